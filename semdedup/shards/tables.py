"""The tables of a dataset, ``index.parquet`` and ``dropped.parquet``, put together from what tasks have written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa

from semdedup.shards.join import DROPPED_SCHEMA, dropped_file
from semdedup.shards.streams import REQUESTS_AHEAD, ahead, read_chunk
from semdedup.shards.write import index_file
from semdedup.storage.location import Location
from semdedup.storage.tables import write_batches

ROWS_PER_GROUP = 1 << 16
"""Rows of a row group of either table."""


def write_index(target: Location, scratch: Location, written: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
    """Write the index, from the results of `write_shard` in order."""
    chunks = (
        chunk
        for number, result in enumerate(written)
        for chunk in _chunks(index_file(scratch, number), result["index_ends"])
    )
    write_batches(target, schema, _row_groups(chunks, schema))


def write_dropped(target: Location, scratch: Location, partitions: Sequence[Mapping[str, Any]]) -> None:
    """Write the table of dropped clips, from the results of `join_partition` in order."""
    chunks = (
        chunk
        for number, found in enumerate(partitions)
        for chunk in _chunks(dropped_file(scratch, number), found["dropped_ends"])
    )
    write_batches(target, DROPPED_SCHEMA, _row_groups(chunks, DROPPED_SCHEMA))


def _row_groups(chunks: Iterable[tuple[Location, int, int]], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of chunks, given by file and range of bytes, in groups that do not depend on how they were cut."""
    held: list[pa.RecordBatch] = []
    for batch in ahead(lambda chunk: read_chunk(*chunk), chunks, REQUESTS_AHEAD):
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
