"""What a forecast is made for: rows, what a run finds out of them, and the workers that they are given to."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIB = 1 << 20


@dataclass(frozen=True)
class Rows:
    """The rows of a run, as Parquet files of equal size have them.

    Attributes:
        n: how many.
        dim: d, elements of each embedding, float32.
        n_files: files of the input.
        rows_per_group: rows of a row group of these, at most; PyArrow writes so many, if it is not told otherwise.
        value_bytes: of an element in these files: 4, more where PyArrow has tried a dictionary.
        id_bytes: of an id.
        stored_id_bytes: of an id in a file, compressed.
        other_bytes: of the metadata of a row that is carried along.
        is_local: whether the files are, and not in a store.
    """

    n: int
    dim: int
    n_files: int
    rows_per_group: int = 1 << 20
    value_bytes: float = 4.0
    id_bytes: float = 24.0
    stored_id_bytes: float = 12.0
    other_bytes: float = 0.0
    is_local: bool = False

    @property
    def n_bytes(self) -> float:
        """Bytes of the input's files."""
        return self.n * (self.value_bytes * self.dim + self.stored_id_bytes + self.other_bytes)

    def groups_of(self, n: int) -> array[int]:
        """Rows of each row group of a file of `n` rows; none where it has one."""
        whole, rest = divmod(n, self.rows_per_group)
        return array("q", [self.rows_per_group] * whole + [rest] * bool(rest) if n > self.rows_per_group else ())


@dataclass(frozen=True)
class Found:
    """What only a run itself finds out.

    Attributes:
        shares: of the rows, that of each cluster; None: clusters are equal.
        iterations: of the fit.
        duplicates: share of the rows that match a better-ranked one.
    """

    shares: Sequence[float] | None = None
    iterations: int = 20
    duplicates: float = 0.1

    def rows_of_clusters(self, n_rows: int, n_clusters: int) -> np.ndarray:
        """Rows of each cluster, (k,) int64, which add up to all."""
        shares = np.ones(n_clusters) if self.shares is None else np.asarray(self.shares, dtype=np.float64)
        ends = np.rint(np.cumsum(shares) / shares.sum() * n_rows).astype(np.int64)
        return np.diff(ends, prepend=0)


@dataclass(frozen=True)
class Machines:
    """Workers: how many processes, and of each the threads, the bytes of memory, and those of its GPU; 0 on the CPU."""

    n_workers: int
    n_threads: int = 1
    memory: int = 4096 * MIB
    device_memory: int = 0

    @property
    def device_memory_of_task(self) -> int | None:
        """Bytes of a GPU that a task may use; None on the CPU."""
        return self.device_memory // self.n_threads if self.device_memory else None

    @property
    def n_slots(self) -> int:
        """Tasks that they run at the same time."""
        return self.n_workers * self.n_threads

    @property
    def task_memory(self) -> int:
        """Bytes that a task may use; of the GPU where it has less."""
        return min(self.memory, self.device_memory or self.memory) // self.n_threads
