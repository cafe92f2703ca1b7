"""The order of samples, and the partitions that it is cut into: by id, or by a seeded hash of the id."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.ids import hash_ids

HASH = "hash"
Boundary = tuple[Any, ...]
"""The first id of a partition, with its hash before it where there is a seed."""


def in_order(table: pa.Table, seed: int | None) -> pa.Table:
    """The rows of a table with a column ``id`` in the order of samples; with a seed it gets the column ``hash``.

    Time: O(n log n); memory: a second copy of the table.
    """
    if seed is not None:
        table = table.append_column(HASH, pa.array(hash_ids(table["id"], seed)))
    return table.take(pc.sort_indices(table, sort_keys=[(name, "ascending") for name in _keys(table)]))


def _keys(table: pa.Table) -> list[str]:
    return [HASH, "id"] if HASH in table.column_names else ["id"]


def boundaries(table: pa.Table, per_partition: int) -> list[Boundary]:
    """Where each partition of at most so many rows of a table in order begins. The first begins before everything."""
    return [_key(table, row) for row in range(0, len(table), per_partition)]


def _key(table: pa.Table, row: int) -> Boundary:
    return tuple(table[name][row].as_py() for name in _keys(table))


def parts(table: pa.Table, bounds: Sequence[Boundary]) -> Iterator[pa.RecordBatch]:
    """The rows of a table in order that belong to each partition: a batch each, perhaps empty.

    Time: O(partitions · log n).
    """
    inner = [bisect.bisect_left(range(len(table)), bound, key=lambda row: _key(table, row)) for bound in bounds[1:]]
    names = [name for name in table.column_names if name != HASH]
    table = table.select(names).combine_chunks()
    for start, stop in pairwise([0, *inner, len(table)]):
        rows = table.slice(start, stop - start).to_batches()
        yield rows[0] if rows else pa.RecordBatch.from_pylist([], schema=table.schema)


def cut(table: pa.Table, per_partition: int) -> Iterator[pa.RecordBatch]:
    """A table in order in batches of so many rows, in memory of their own."""
    table = table.drop_columns([HASH]) if HASH in table.column_names else table
    for start in range(0, len(table), per_partition):
        yield table.take(np.arange(start, min(start + per_partition, len(table)))).combine_chunks().to_batches()[0]
