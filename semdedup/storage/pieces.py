"""Rows that tasks have scattered: each wrote one file, with a piece for each partition that its rows go to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from semdedup.storage.chunks import ahead, read_chunk
from semdedup.storage.location import Location


@dataclass(frozen=True)
class Pieces:
    """Where the rows of one partition are in the files that tasks have scattered.

    Attributes:
        folder: of the files.
        ranges: where the piece of the partition begins and ends in the file of each task, in bytes, (tasks, 2) int64.
    """

    folder: Location
    ranges: np.ndarray

    def read(self, schema: pa.Schema) -> pa.Table:
        """The rows, in no particular order. Memory: the rows."""
        tasks = np.flatnonzero(self.ranges[:, 0] < self.ranges[:, 1]).tolist()
        batches = ahead(self._read, tasks, 1 if self.folder.is_local else len(tasks[:8]) or 1)
        return pa.Table.from_batches(list(batches), schema).combine_chunks()

    def _read(self, task: int) -> pa.RecordBatch:
        return read_chunk(piece_file(self.folder, task), *self.ranges[task].tolist())


def piece_file(folder: Location, task: int) -> Location:
    """The file that a task writes."""
    return folder / f"{task}.arrows"


def pieces_of(folder: Location, cuts: np.ndarray, partition: int) -> Pieces:
    """The pieces of one partition: a view of what `cuts_of` gives."""
    return Pieces(folder, cuts[:, partition : partition + 2])


def cuts_of(ends: Iterable[tuple[int, Sequence[int] | np.ndarray]], n_tasks: int, n_partitions: int) -> np.ndarray:
    """Where the files of tasks are cut into partitions, (tasks, partitions + 1) int64: what the client holds of them.

    Args:
        ends: the position of each task, and the ``ends`` that it returned.
    """
    cuts = np.zeros((n_tasks, n_partitions + 1), dtype=np.int64)
    for task, found in ends:
        cuts[task, 1:] = found
    return cuts
