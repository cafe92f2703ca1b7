"""A remote video as the process that decodes sees it: a local file that is filled with what is asked for."""

from __future__ import annotations

import os
from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from semdedup.video.child import stretch_around

BOX_HEAD = 16
"""Bytes at the beginning of a box of MP4 that tell its length and kind."""

MOST_BOXES = 100_000
"""Boxes in a row that are looked at; a day of a stream in pieces of two seconds has 86,400."""


@dataclass(frozen=True)
class Ranges:
    """A remote video, and the local file that holds what of it has been fetched.

    Attributes:
        path: the local file: as long as the video, with holes.
        n_bytes: length of the video.
        name: a file name that ends as that of the video: FFmpeg looks at it where the content does not tell enough.
    """

    path: str
    n_bytes: int
    name: str

    def open(self) -> RangeFile:
        """Open it for reading. Only in a process that `child` has started, for its parent is who fetches."""
        return RangeFile(self)


Source = str | Ranges
"""What is opened: the path of a local file, or a remote one."""


class RangeFile:
    """A file that asks for what it does not have yet, in the form in which PyAV reads files of Python.

    Each reader of a video has its own, all on one local file: what one has asked for the others find there.
    """

    def __init__(self, ranges: Ranges, stretch: Callable[[int], tuple[int, int]] = stretch_around) -> None:
        self.name = ranges.name
        self._file = open(ranges.path, "rb", buffering=0)  # noqa: SIM115, it is open as long as this object is
        self._n_bytes = ranges.n_bytes
        self._stretch = stretch
        self._position, self._there = 0, (0, 0)
        self._content: list[tuple[int, int]] = []

    def read(self, n_bytes: int) -> bytes:
        """The next bytes: some, but for the end of the file."""
        n_bytes = min(n_bytes, self._n_bytes - self._position)
        if n_bytes <= 0:
            return b""
        start, stop = self._there
        if not start <= self._position < stop:
            end = self._end_of_content()
            if end:
                n_bytes = min(n_bytes, end - self._position)
                self._position += n_bytes
                return bytes(n_bytes)
            start, stop = self._there = self._stretch(self._position)
        found = os.pread(self._file.fileno(), min(n_bytes, stop - self._position), self._position)
        self._position += len(found)
        return found

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to another position, and return it."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._n_bytes}[whence]
        self._position = max(0, start + offset)
        return self._position

    def tell(self) -> int:
        """The position."""
        return self._position

    def leave_out_content(self) -> None:
        """From now on give zeros for what MP4 files hold in ``mdat``, and was not fetched before.

        FFmpeg finds packets by tables in other boxes: so it tells of all packets without reading any.
        """
        before, self._content = self._position, []
        self._content = list(self._boxes(b"mdat"))
        self._position = before

    def _end_of_content(self) -> int:
        """Where the content ends that the position is in; 0 where it is elsewhere."""
        at = bisect_right(self._content, (self._position, self._n_bytes)) - 1
        return self._content[at][1] if at >= 0 and self._position < self._content[at][1] else 0

    def _boxes(self, kind: bytes) -> Iterator[tuple[int, int]]:
        """First and last position of the content of the outermost boxes of a kind, in order."""
        position = 0
        for _ in range(MOST_BOXES):
            self._position, head = position, b""
            while len(head) < BOX_HEAD and (more := self.read(BOX_HEAD - len(head))):
                head += more
            if len(head) < 8:
                return
            size, n_head = int.from_bytes(head[:4], "big"), 8
            if size == 1:  # it follows in 64 bits
                size, n_head = int.from_bytes(head[8:], "big"), BOX_HEAD
            end = self._n_bytes if size == 0 else min(position + size, self._n_bytes)
            if end < position + n_head:  # damaged: what follows is content as well, or it is none
                return
            if head[4:8] == kind:
                yield position + n_head, end
            position = end


def opened(source: Source) -> str | RangeFile:
    """What PyAV is given to open."""
    return source if isinstance(source, str) else source.open()
