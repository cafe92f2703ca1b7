"""Record batches that follow each other as one run of rows: some of the rows, and small batches put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa

ROWS_PER_BATCH = 1 << 16
"""Rows up to which small batches are put together."""

Join = Callable[[Sequence[pa.RecordBatch]], pa.RecordBatch]
"""Makes one batch of some, at least one."""


def joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of one schema as one."""
    if len(batches) == 1:
        return batches[0]
    columns = [pa.concat_arrays([batch.column(i) for batch in batches]) for i in range(batches[0].num_columns)]
    return pa.RecordBatch.from_arrays(columns, schema=batches[0].schema)


def regrouped(batches: Iterable[pa.RecordBatch], join: Join = joined) -> Iterator[pa.RecordBatch]:
    """Batches, of which small ones are put together up to `ROWS_PER_BATCH`; those without rows are left out."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        if held and sum(map(len, held)) + len(batch) > ROWS_PER_BATCH:
            yield join(held) if len(held) > 1 else held[0]
            held = []
        if len(batch):
            held.append(batch)
    if held:
        yield join(held) if len(held) > 1 else held[0]


def taken(
    ends: np.ndarray, batch: Callable[[int], pa.RecordBatch], positions: np.ndarray, join: Join = joined
) -> pa.RecordBatch:
    """The rows at some positions, in this order, of batches that follow each other.

    Args:
        ends: where each batch begins, and the end.
        batch: gives one by its number; called once for each that there are rows of.
        positions: at least one.
        join: puts the rows together that come from several batches.
    """
    order = np.argsort(positions, kind="stable")
    ascending = positions[order]
    cuts = np.searchsorted(ascending, ends)
    parts = [
        batch(number).take(pa.array(ascending[cuts[number] : cuts[number + 1]] - ends[number]))
        for number in range(len(ends) - 1)
        if cuts[number] < cuts[number + 1]
    ]
    back = np.empty(len(order), dtype=np.int64)
    back[order] = np.arange(len(order))
    return join(parts).take(pa.array(back))
