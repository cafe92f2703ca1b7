"""The files that are a video's own: their names, and their sizes and checksums, which wait on the local disk."""

from __future__ import annotations

import os
import tempfile
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from semdedup.storage.location import Location
from semdedup.storage.written import Written
from semdedup.video.records import FILES
from semdedup.video.tree import files_of_clip, meta_of_clip, records_of_video

COLUMN = "files"
OwnFile = tuple[str, int, str]
"""Name, bytes and checksum of a file: a value of the column `COLUMN`."""

DECODER = msgspec.msgpack.Decoder(list[OwnFile])


def names_of(clips: Iterable[str], videos: Iterable[str]) -> list[str]:
    """Names of all files that there may be of clips and videos."""
    names = [name for clip in sorted(clips) for name in (*files_of_clip(clip), meta_of_clip(clip))]
    return names + [name for video in sorted(videos) for name in records_of_video(video)]


def own_files(row: Mapping[str, Any], written: Mapping[str, Written]) -> list[OwnFile]:
    """Of what a task wrote, the files that are a video's own."""
    names = names_of(row["clips"], [row["video"]])
    return [(name, *written[name]) for name in names if name in written]


class OwnFiles:
    """The files of videos, in the order in which tasks told of them.

    Of a clip they take some 200 bytes: they wait in a file without a name, which is gone when this or its process is.
    Memory: 8 bytes a video.
    """

    def __init__(self) -> None:
        self._place = Location(tempfile.gettempdir())
        with self._place.errors("write to"):
            self._file = tempfile.TemporaryFile(prefix="semdedup-")  # noqa: SIM115, it is open as long as this is
        self._starts = array("q", [0])

    def add(self, files: Sequence[OwnFile]) -> None:
        """Add the files of the next video."""
        content = msgspec.msgpack.encode(files)
        with self._place.errors("write to"):
            self._file.write(content)
        self._starts.append(self._starts[-1] + len(content))

    def __iter__(self) -> Iterator[list[OwnFile]]:
        return self.take(range(len(self._starts) - 1))

    def take(self, positions: Iterable[int]) -> Iterator[list[OwnFile]]:
        """The files of the videos at some positions, in this order."""
        with self._place.errors("read"):
            self._file.flush()
        for position in positions:
            start, stop = self._starts[position], self._starts[position + 1]
            with self._place.errors("read"):
                content = os.pread(self._file.fileno(), stop - start, start)
            yield DECODER.decode(content)


class InOrder:
    """The rows of a column that comes in batches, taken from its beginning on."""

    def __init__(self, batches: Iterator[pa.ListArray]) -> None:
        self._batches, self._held, self._start = batches, pa.nulls(0, FILES), 0

    def take(self, positions: np.ndarray) -> pa.ListArray:
        """The rows at these positions, which ascend, and come after those of the last call."""
        parts, taken = [self._held[:0]], 0
        while taken < len(positions):
            end = self._start + len(self._held)
            upto = int(np.searchsorted(positions, end))
            parts.append(self._held.take(pa.array(positions[taken:upto] - self._start)))
            taken = upto
            if taken < len(positions):
                self._held, self._start = next(self._batches), end
        return pa.concat_arrays(parts)
