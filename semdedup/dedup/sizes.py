"""How much one task is given: bytes of a task, of a partition, of a tile; files looked at together. Plain arithmetic.

The bytes of rows are those of their float32 embeddings, of the other columns that are read, and of `BESIDE_A_ROW`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import NamedTuple, TypeVar

T = TypeVar("T")

FILES_PER_INSPECTION = 256
"""Files whose footers one task reads."""

FILES_CHECKED_FIRST, JSONL_BYTES_CHECKED_FIRST = 8, 1 << 20
"""Files that the client looks at before a cluster is started. JSON Lines tell their columns only as they are read, so
files of more bytes than that are left to the workers."""

PARTITIONS_PER_SLOT = 4
"""Partitions for each thread of the workers, at least: enough that none waits long for the last one."""

THREADS_CUT_FOR = 32
"""Clusters and row groups are cut to give that many threads a fair share, and no smaller for more threads."""

SMALLEST_TASK, LARGEST_TASK = 4 << 20, 256 << 20
SHARE_OF_TASK_MEMORY = 8
"""A task is given this share of its memory to hold as rows; embeddings as float64, copies and the process itself take
the rest."""

BESIDE_A_ROW = 100
"""Bytes that a task holds for each row whatever its columns are: hash, order, label, distances, offsets of text."""

MODEST_PARTITION, MANY_PARTITIONS = 32 << 20, 1024
"""Files share partitions of that size while there are not more than so many: memory hardly grows with the input then.
Each range of clusters is gathered from every partition, so that more of them would cost more than memory."""

WORK_PER_TASK = 1 << 46
"""Most operations of a task that compares two sets: less than half an hour of one core at 50 GFLOP/s is lost where a
run is killed."""

LARGEST_ON_DEVICE, WORK_ON_DEVICE = 8 << 30, 1 << 54
"""Most bytes, and most operations, of a cluster that is one task on a GPU: ten minutes at 30 TFLOP/s."""

LARGEST_GROUP = 2 << 30
"""Most bytes of a row group that is read on a GPU."""

CHUNKS_A_BLOCK = 4
"""The rows of A that a task holds at a time are this part of the bytes of a block: they are held three times, in the
order of the files, in the order of the ids, and without repeated rows."""

MANY_READS = 1_000_000
"""Where more parts of files than that would be read, files are merged before: a million reads of 20 ms are five hours
and a half of a thread, and their number grows with the square of the input."""

ROWS_AT_A_TIME = 1 << 18
"""Rows of a table of scores that are held at a time."""


def most_bytes_per_task(task_memory: int) -> int:
    """Bytes that fit in a task, whose share of a worker's memory is `task_memory`."""
    return min(LARGEST_TASK, max(SMALLEST_TASK, task_memory // SHARE_OF_TASK_MEMORY))


def bytes_per_task(n_slots: int, task_memory: int, total_bytes: int) -> int:
    """Bytes that one task is given to hold: bounded by its memory and by a fair share of all for `n_slots` threads."""
    fair = -(-total_bytes // (n_slots * PARTITIONS_PER_SLOT))
    return max(SMALLEST_TASK, min(most_bytes_per_task(task_memory), fair))


def bytes_uncut(n_slots: int, task_memory: int, total_bytes: int) -> int:
    """Bytes of a cluster, or of a row group of a local file, up to which it is one task: what is cut is read more than
    once. Few threads get a fair share each all the same; of many, some may wait while a task of this size ends.

    >>> bytes_uncut(8, 2 << 30, 20 << 30) >> 20, bytes_uncut(2048, 2 << 30, 20 << 30) >> 20
    (256, 160)
    """
    return bytes_per_task(min(n_slots, THREADS_CUT_FOR), task_memory, total_bytes)


def bytes_per_partition(n_slots: int, task_memory: int, total_bytes: int) -> int:
    """Bytes of one partition, and of the clusters that are gathered at a time."""
    modest = max(MODEST_PARTITION, -(-total_bytes // MANY_PARTITIONS))
    return min(bytes_per_task(n_slots, task_memory, total_bytes), modest)


def held_bytes(n_rows: int, n_values: int, other_bytes: int = 0) -> int:
    """Bytes that a task holds of rows whose embeddings have `n_values` elements together.

    >>> held_bytes(1_000, 1_000 * 512, 40 * 1_000)
    2188000
    """
    return 4 * n_values + other_bytes + BESIDE_A_ROW * n_rows


def rows_per_task(task_bytes: int, dim: int, other_bytes: float = 0.0) -> int:
    """Rows of `dim` elements, and of so many bytes beside these, that a task holds: the size of a tile.

    >>> rows_per_task(64 << 20, 512), rows_per_task(64 << 20, 16, 7_000)
    (31242, 9367)
    """
    return max(1, int(task_bytes / (4 * dim + other_bytes + BESIDE_A_ROW)))


class TaskRows(NamedTuple):
    """Rows of clusters that a task is given: one of up to `most` is not cut, and such of `together` share a task."""

    most: int
    together: int


def pack(counted: Iterable[tuple[T, int]], most: int) -> list[tuple[T, ...]]:
    """Pack what comes with a number of rows, in its order, into parts of at most `most` rows, but for a larger one.

    >>> pack([("a", 5), ("b", 4), ("c", 9)], 10)
    [('a', 'b'), ('c',)]
    """
    parts: list[list[T]] = []
    held = 0
    for each, n_rows in counted:
        if not parts or held + n_rows > most:
            parts.append([])
            held = 0
        parts[-1].append(each)
        held += n_rows
    return [tuple(part) for part in parts]


def count_tasks(n_slots: int, a_values: int, b_values: int, b_rows: int, most_bytes: int) -> tuple[int, int]:
    """Into how many blocks to cut B and into how many spans to cut A, where two sets are compared.

    A is read once a block, and B once a span. For T tasks that is least with √(T·b/a) blocks and √(T·a/b) spans, where
    a and b are the elements of the sets; what rows hold beside them counts as elements of four bytes. A block has at
    most `most_bytes`, a task at most `WORK_PER_TASK` operations.
    """
    wanted = n_slots * PARTITIONS_PER_SLOT

    def pieces(values: int, n_bytes: int) -> int:
        return max(1, -(-4 * values // n_bytes))

    fair = min(round(math.sqrt(wanted * b_values / max(1, a_values))), pieces(b_values, SMALLEST_TASK))
    n_blocks = max(fair, pieces(b_values, most_bytes))
    fair = min(-(-wanted // n_blocks), pieces(a_values, SMALLEST_TASK))
    return n_blocks, max(fair, -(-2 * b_rows * a_values // (n_blocks * WORK_PER_TASK)))


def rows_compared(task_bytes: int, dim: int, other_bytes: float = 0.0, work: int | None = None) -> int:
    """Rows of a tile, or of a block, of which a task compares two: as many as it holds, unless their product is more
    operations than `work`, by default `WORK_PER_TASK`, as for few elements."""
    work = WORK_PER_TASK if work is None else work
    return min(rows_per_task(task_bytes, dim, other_bytes), max(1, math.isqrt(work // (2 * dim))))


def uncut_on_device(device_memory: int) -> int:
    """Bytes of a cluster up to which it is one task on a GPU, of which the task may use so much memory.

    It comes, is put in rank order, and is there once more in half precision, beside what sorts it and products of a
    quarter of a GiB. No fair share is looked at: tiles, which go through files, take longer than what would wait.

    >>> uncut_on_device(64 << 30) >> 20, uncut_on_device(6 << 30) >> 20
    (8192, 768)
    """
    return min(LARGEST_ON_DEVICE, device_memory // SHARE_OF_TASK_MEMORY)


def most_of_rows(task_memory: int, device_memory: int | None) -> int:
    """Bytes of rows that a task reads at most: on a GPU one row group of a file may be more than fits on the host, for
    what cuDF reads of a row group is all of it.

    >>> most_of_rows(4 << 30, None) >> 20, most_of_rows(4 << 30, 64 << 30) >> 20
    (256, 2048)
    """
    on_host = most_bytes_per_task(task_memory)
    return on_host if device_memory is None else max(on_host, min(LARGEST_GROUP, uncut_on_device(device_memory)))


def rows_on_device(uncut: int, dim: int, rows: TaskRows, other_bytes: float = 0.0) -> TaskRows:
    """What tasks are given where a cluster of up to `uncut` bytes is one task on a GPU: `rows`, or more uncut."""
    return rows._replace(most=max(rows.most, rows_compared(uncut, dim, other_bytes, WORK_ON_DEVICE)))
