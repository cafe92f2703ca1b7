"""Fetching what is asked for of a remote video, each byte once, into a local file with holes."""

from __future__ import annotations

import contextlib
import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from semdedup.storage.location import Location
from semdedup.storage.temporary import temporary_folder
from semdedup.video.child import ChildDied
from semdedup.video.containers import ending_of
from semdedup.video.files import local_copy, reading_video
from semdedup.video.quarantine import VideoFault
from semdedup.video.ranges import Ranges, Source

MOST_BYTES = 8 << 20
"""In one request. That much is in memory at a time, for each video that is read."""

FIRST_BYTES, MOST_BYTES_OF_HEAD = 64 << 10, 1 << 20
"""In the first request of a stretch where little is expected to be read; each that goes on there asks for twice as
much, up to the second."""


@dataclass
class Stretches:
    """Which bytes of a file are there: stretches, in order and apart, each with its first position and its end.

    >>> there = Stretches()
    >>> for stretch in ((0, 4), (8, 10), (4, 8)):
    ...     there.add(*stretch)
    >>> there.around(5), there.around(10), there.after(10)
    ((0, 10), None, None)
    """

    starts: list[int] = field(default_factory=list)
    ends: list[int] = field(default_factory=list)

    def around(self, position: int) -> tuple[int, int] | None:
        """The stretch that a position is in."""
        at = bisect_right(self.starts, position) - 1
        return (self.starts[at], self.ends[at]) if at >= 0 and position < self.ends[at] else None

    def after(self, position: int) -> int | None:
        """Where the next stretch begins."""
        at = bisect_right(self.starts, position)
        return self.starts[at] if at < len(self.starts) else None

    def add(self, start: int, stop: int) -> None:
        """Add a stretch, of which nothing is there; those that it touches become one with it."""
        at = bisect_right(self.starts, start)
        before, behind = at > 0 and self.ends[at - 1] == start, at < len(self.starts) and self.starts[at] == stop
        first, last = at - before, at + behind
        self.starts[first:last] = [self.starts[first] if before else start]
        self.ends[first:last] = [self.ends[last - 1] if behind else stop]


class RemoteCopy:
    """What of a remote video has been asked for, in a local file.

    Costs: one request for up to `MOST_BYTES`, and no byte is fetched twice. Disk: what was asked for.

    Args:
        video: it.
        ranges: the local file, and the length of the video.
        sparing: whether little of it is expected to be read, as of a look at its head.
    """

    def __init__(self, video: Location, ranges: Ranges, sparing: bool) -> None:
        self._video, self._ranges = video, ranges
        self._there = Stretches()
        self._first, self._most = (FIRST_BYTES, MOST_BYTES_OF_HEAD) if sparing else (MOST_BYTES, MOST_BYTES)
        self._asked: dict[int, int] = {}  # by where a request ended, for how much it asked

    def provide(self, position: int) -> tuple[int, int]:
        """Fetch the byte at a position, and some that follow it; the stretch around it that is there then.

        Raises:
            ChildDied: there is no such byte: a process asks that was taken over.
            VideoFault: the video may not be read, or has changed; `GoneFault`: it is not there any more.
            StorageError: the store does not answer, or what was fetched does not fit here.
        """
        if not 0 <= position < self._ranges.n_bytes:
            raise ChildDied(f"the decoding process asked for byte {position:,} of {self._ranges.n_bytes:,}")
        found = self._there.around(position)
        if found is None:
            n_bytes = min(2 * self._asked.pop(position, self._first // 2), self._most)
            stop = min(position + n_bytes, self._there.after(position) or self._ranges.n_bytes)
            self._fetch(position, stop)
            self._asked[stop] = n_bytes
            found = self._there.around(position)
            assert found is not None
        return found

    def _fetch(self, start: int, stop: int) -> None:
        with reading_video(self._video):
            content = self._video.read_bytes(start, stop)
            if len(content) != stop - start:
                detail = f"{len(content):,} bytes came where {stop - start:,} were asked for: has it changed?"
                raise VideoFault("io_error", detail)
            with self._video.errors("read"), open(self._ranges.path, "r+b", buffering=0) as file:
                os.pwrite(file.fileno(), content, start)
        self._there.add(start, stop)


@contextlib.contextmanager
def remote_copy(video: Location, n_bytes: int, sparing: bool) -> Iterator[tuple[Ranges, RemoteCopy]]:
    """A remote video to be read piece by piece, and who fetches the pieces; for the time of the block.

    Raises:
        StorageError: there is no place for temporary files.
    """
    with contextlib.ExitStack() as stack:
        with video.errors("read"):
            folder = stack.enter_context(temporary_folder())
            ranges = Ranges(str(folder / "video"), n_bytes, f"video{ending_of(video.url)}")
            with open(ranges.path, "wb") as file:
                file.truncate(n_bytes)
        yield ranges, RemoteCopy(video, ranges, sparing)


@contextlib.contextmanager
def source_of(
    video: Location, sparing: bool, n_bytes: int | None = None
) -> Iterator[tuple[Source, Callable[[int], tuple[int, int]] | None]]:
    """What the process that decodes is given to open, and who provides what it asks for of a remote video.

    Args:
        video: it.
        sparing: whether little of it is expected to be read.
        n_bytes: its length, where that is known.

    Raises:
        VideoFault: it cannot be read.
        StorageError: the store does not answer, or there is no place for temporary files.
    """
    if video.is_local:
        with local_copy(video) as path:
            yield path, None
        return
    if n_bytes is None:
        with reading_video(video):
            n_bytes = video.info().n_bytes
    with remote_copy(video, n_bytes, sparing) as (ranges, copy):
        yield ranges, copy.provide
