"""Videos in blocks: how they are cut, and how their tracks and clips get there, through files.

A block holds whole videos that follow each other in the order of the ranks. Tasks that read a range of a file of tracks
scatter its rows to blocks; a task for each block gathers them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.overlaps.match import Tracks
from semdedup.overlaps.tracks import read_vectors
from semdedup.storage.arrays import load_array, load_rows, pack_ends, save_array
from semdedup.storage.chunks import read_chunk, read_every_chunk, write_chunks
from semdedup.storage.location import Location
from semdedup.storage.pieces import Pieces, piece_file
from semdedup.video.fingerprint import DIM

ROWS_SCHEMA = pa.schema({"rank": pa.int64(), "vector": pa.binary(DIM)})
CLIPS_SCHEMA = pa.schema({"rank": pa.int64(), "start_s": pa.float64(), "end_s": pa.float64(), "id": pa.string()})

BYTES_PER_ROW = 4 * DIM
"""Of a row as float32; its int8 is what is beside that."""


def wanted_bytes(n_slots: int, task_memory: int, n_rows: int) -> int:
    """Bytes of rows that a block holds: bounded by the memory of a task, of which each holds two, and by a fair share.

    B blocks are B·(B + 1) / 2 tasks.
    """
    tasks = n_slots * sizes.PARTITIONS_PER_SLOT
    fair = n_rows * (BYTES_PER_ROW + DIM + sizes.BESIDE_A_ROW) // math.ceil(math.sqrt(2 * tasks)) + 1
    return max(sizes.SMALLEST_TASK, min(sizes.most_bytes_per_task(task_memory), fair))


def rows_per_block(task_bytes: int) -> int:
    """Rows of a block of so many bytes."""
    return sizes.rows_compared(task_bytes, DIM, DIM)


def cut_whole(rows: np.ndarray, most: int) -> np.ndarray:
    """Where parts begin, and the end, when videos of so many rows are cut into parts of at most `most`; one that has
    more is a part of its own.

    >>> cut_whole(np.array([3, 4, 9, 1, 1]), 8)
    array([0, 2, 3, 5])
    """
    ends, cuts = np.append(0, np.cumsum(rows)), [0]
    while cuts[-1] < len(rows):
        last = int(np.searchsorted(ends, ends[cuts[-1]] + most, side="right")) - 1
        cuts.append(max(last, cuts[-1] + 1))
    return np.array(cuts, dtype=np.int64)


@dataclass(frozen=True)
class Blocks:
    """What every task needs to know of the blocks.

    Attributes:
        source: storage of the input.
        scratch: folder for files between tasks.
        bounds: rank of the first video of each block, and the number of all, (B + 1,).
        name_ends: where the names of each block end in `names`, in bytes.
        n_earlier: blocks of videos of the base, which come first.
    """

    source: Location
    scratch: Location
    bounds: tuple[int, ...]
    name_ends: tuple[int, ...]
    n_earlier: int = 0

    def __len__(self) -> int:
        return len(self.bounds) - 1

    @property
    def names(self) -> Location:
        """The videos in the order of their ranks, a chunk for each block."""
        return self.scratch / "names.arrows"

    @property
    def places(self) -> Location:
        """Rows and rank of each video, in the order of the files, (v, 2) int64."""
        return self.scratch / "places.npy"

    @property
    def ranks(self) -> Location:
        """``digest`` and ``rank`` of each video, by digest."""
        return self.scratch / "ranks.npy"

    @property
    def tracks(self) -> Location:
        """Folder of the rows that are scattered."""
        return self.scratch / "tracks"

    @property
    def clips(self) -> Location:
        """Folder of the clips that are scattered."""
        return self.scratch / "clips"

    def read_names(self, block: int) -> pa.StringArray:
        """The videos of a block."""
        start = self.name_ends[block - 1] if block else 0
        return read_chunk(self.names, start, self.name_ends[block]).column(0)

    def load(self, block: int) -> Tracks:
        """The tracks of a block."""
        return Tracks(load_array(self._vectors(block)), load_array(self._starts(block)))

    def load_clips(self, block: int) -> pa.Table:
        """The clips of a block in the order of rank, start, end and id: `CLIPS_SCHEMA`."""
        return pa.Table.from_batches(read_every_chunk(self._clips(block)), CLIPS_SCHEMA)

    def _clips(self, block: int) -> Location:
        return self.scratch / "blocks" / f"{block}-clips.arrows"

    def _vectors(self, block: int) -> Location:
        return self.scratch / "blocks" / f"{block}.npy"

    def _starts(self, block: int) -> Location:
        return self.scratch / "blocks" / f"{block}-starts.npy"

    def pieces(self, table: pa.Table) -> list[pa.Table]:
        """The rows of a table for each block, by their column ``rank``."""
        ranks = table["rank"].to_numpy()
        order = np.argsort(ranks, kind="stable")
        cuts = np.searchsorted(ranks[order], self.bounds)
        return [table.take(pa.array(order[start:stop])).combine_chunks() for start, stop in pairwise(cuts)]

    def gather(self, item: tuple[int, Pieces, Pieces]) -> dict[str, int]:
        """Write the tracks and clips of one block. Memory: its rows as int8, three times."""
        block, track_pieces, clip_pieces = item
        rows = track_pieces.read(ROWS_SCHEMA)
        ranks = rows["rank"].to_numpy()
        order = np.argsort(ranks, kind="stable")
        save_array(self._vectors(block), _vectors_in(rows["vector"])[order])
        counts = np.bincount(ranks - self.bounds[block], minlength=self.bounds[block + 1] - self.bounds[block])
        save_array(self._starts(block), np.append(0, np.cumsum(counts)))
        clips = clip_pieces.read(CLIPS_SCHEMA).sort_by([(name, "ascending") for name in CLIPS_SCHEMA.names])
        write_chunks(self._clips(block), [clips.combine_chunks()])
        return {"rows": len(rows), "clips": len(clips)}


class Unit(NamedTuple):
    """What a task scatters: videos [first, last) in the order of the files, which are rows [start, stop) of one."""

    number: int
    url: str
    first: int
    last: int
    start: int
    stop: int


def units_of(rows: np.ndarray, file: np.ndarray, urls: Sequence[str], most: int) -> list[Unit]:
    """Cut files of tracks into units of at most so many rows, but for longer videos."""
    units: list[Unit] = []
    edges = [0, *(np.flatnonzero(np.diff(file)) + 1).tolist(), len(file)] if len(file) else []
    for low, high in pairwise(edges):
        starts = np.append(0, np.cumsum(rows[low:high]))
        for first, last in pairwise(cut_whole(rows[low:high], most).tolist()):
            units.append(
                Unit(len(units), urls[file[low]], low + first, low + last, int(starts[first]), int(starts[last]))
            )
    return units


def scatter_tracks(blocks: Blocks, unit: Unit) -> dict[str, Any]:
    """Write the rows of some videos, cut into blocks. Memory: the rows as int8, three times.

    Returns:
        ``rows``, and ``ends``: where each block ends in the file.
    """
    vectors = read_vectors(blocks.source.at(unit.url), unit.start, unit.stop)
    rows, ranks = load_rows(blocks.places, unit.first, unit.last).T
    column = pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIM), len(vectors), [None, pa.py_buffer(vectors)])
    table = pa.table({"rank": np.repeat(ranks, rows), "vector": column}, schema=ROWS_SCHEMA)
    ends = write_chunks(piece_file(blocks.tracks, unit.number), blocks.pieces(table))
    return {"rows": len(table), "ends": pack_ends(ends)}


def _vectors_in(column: pa.ChunkedArray) -> np.ndarray:
    """A column of vectors as (n, 64) int8, without a copy where it has one chunk."""
    parts = [np.frombuffer(chunk.buffers()[1], np.int8).reshape(-1, DIM)[chunk.offset : chunk.offset + len(chunk)]
             for chunk in column.chunks if len(chunk)]  # fmt: skip
    return np.concatenate(parts) if len(parts) != 1 else parts[0]
