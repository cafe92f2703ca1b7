"""The tables of a dataset, ``index.parquet`` and ``dropped.parquet``, put together from what tasks have written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from semdedup.shards.join import DROPPED_SCHEMA, dropped_file
from semdedup.shards.streams import REQUESTS_AHEAD
from semdedup.shards.write import index_file
from semdedup.storage.chunks import ahead, read_chunk
from semdedup.storage.location import Location
from semdedup.storage.tables import open_parquet, write_batches

ROWS_PER_GROUP = 1 << 16
"""Rows of a row group of either table."""


def write_index(
    target: Location,
    scratch: Location,
    written: Sequence[Mapping[str, Any]],
    schema: pa.Schema,
    before: Location | None = None,
) -> None:
    """Write the index: the rows of the one `before`, if any, and those from the results of `write_shard` in order."""
    chunks = (
        chunk
        for number, result in enumerate(written)
        for chunk in _chunks(index_file(scratch, number), result["index_ends"])
    )
    write_batches(target, schema, _row_groups(_rows(before, chunks), schema))


def write_dropped(
    target: Location, scratch: Location, partitions: Sequence[Mapping[str, Any]], before: Location | None = None
) -> None:
    """Write the table of dropped clips: the rows of the one `before`, and from the results of `join_partition`."""
    chunks = (
        chunk
        for number, found in enumerate(partitions)
        for chunk in _chunks(dropped_file(scratch, number), found["dropped_ends"])
    )
    write_batches(target, DROPPED_SCHEMA, _row_groups(_rows(before, chunks), DROPPED_SCHEMA))


def _rows(before: Location | None, chunks: Iterable[tuple[Location, int, int]]) -> Iterator[pa.RecordBatch]:
    """The rows of an earlier table, and those of chunks, given by file and range of bytes."""
    if before is not None:
        with open_parquet(before) as parquet:
            yield from parquet.iter_batches(ROWS_PER_GROUP, use_threads=False)
    yield from ahead(lambda chunk: read_chunk(*chunk), chunks, REQUESTS_AHEAD)


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of batches in groups that do not depend on how they were cut."""
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        while sum(map(len, held)) >= ROWS_PER_GROUP:
            rows = pa.Table.from_batches(held, schema)
            yield rows.slice(0, ROWS_PER_GROUP)
            held = rows.slice(ROWS_PER_GROUP).to_batches()
    if held:
        yield pa.Table.from_batches(held, schema)


def _chunks(file: Location, ends: Sequence[int]) -> Iterator[tuple[Location, int, int]]:
    """The chunks of a file that have rows."""
    return ((file, start, end) for start, end in pairwise([0, *ends]) if start < end)
