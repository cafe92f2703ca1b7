"""The rows of slices with their embeddings on the device, where they are checked, normalised and computed with.

What is large of a local file cuDF reads and decodes there, a *slab* of row groups at a time. Everything else PyArrow
reads as on the CPU, and it is copied: small slices, files in a store (whose requests, retries and credentials are
ours), float16, and whatever cuDF is absent for or refuses. The rows are the same to the bit. Ids and metadata are
PyArrow's in either case: hashes, ranks and names are made on the host. cuDF verifies no checksums of pages.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semdedup.arrays import host_rows, to_host
from semdedup.arrays.frames import MOST_ELEMENTS, REFUSALS, Lists, frames_on, on_device, read_lists
from semdedup.dedup.input.columns import embedding_type, is_fp16_bits, storage_of
from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.input.rows import DeviceTable, embedding_rows, row_lengths
from semdedup.dedup.input.schema import InputSchema, Origin
from semdedup.dedup.input.several import Rows, read_slices
from semdedup.dedup.sizes import LARGEST_GROUP
from semdedup.errors import BadFileError
from semdedup.storage.location import Location
from semdedup.storage.tables import embedding_column, open_parquet

WORTH_A_CALL = 2 << 20
"""Bytes of a slice from which on cuDF reads it: its calls take some milliseconds, in which PyArrow reads as much."""

SLAB_BYTES = 256 << 20
"""Bytes of embeddings that cuDF reads at a time, unless a row group has more; PyArrow reads one of `LARGEST_GROUP`."""

LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
"""Kinds of embeddings that cuDF reads; in a Parquet file they are alike."""

ELEMENTS = (pa.float32(), pa.float64(), pa.int8(), pa.uint8(), pa.int16(), pa.int32(), pa.uint16())
"""Elements that cuDF reads; it has no float16."""


class Slab(NamedTuple):
    """Some neighbouring row groups of a file, and which of their rows: `n_rows` from `first` on."""

    groups: tuple[int, ...]
    first: int
    n_rows: int


class GroupFacts(NamedTuple):
    """Rows of a row group, and elements of its embeddings."""

    n_rows: int
    n_values: int


def slabs_of(groups: Sequence[GroupFacts], start: int, stop: int, most_values: int) -> list[Slab]:
    """Cut rows [start, stop) of a file into slabs of at most `most_values` elements, or one row group.

    >>> slabs_of([GroupFacts(10, 100), GroupFacts(10, 100), GroupFacts(10, 100)], 5, 25, 200)
    [Slab(groups=(0, 1), first=5, n_rows=15), Slab(groups=(2,), first=0, n_rows=5)]
    """
    slabs: list[Slab] = []
    held = begin = 0
    for number, (n_rows, n_values) in enumerate(groups):
        low, high = max(start - begin, 0), min(stop - begin, n_rows)
        begin += n_rows
        if low >= high:
            continue
        if slabs and held + n_values <= most_values:
            slabs[-1] = Slab((*slabs[-1].groups, number), slabs[-1].first, slabs[-1].n_rows + high - low)
            held += n_values
        else:
            slabs.append(Slab((number,), low, high - low))
            held = n_values
    return slabs


def read_on_device(
    schema: InputSchema,
    file_of: Callable[[Slice], Location],
    slices: Sequence[Slice],
    read_kwargs: Mapping[str, Any],
    columns: Collection[str] | None = None,
    on_bad: Callable[[Slice, BadFileError], None] | None = None,
) -> Iterator[Rows]:
    """As `read_slices`, the embeddings on the device: tables are a `DeviceTable`, those that cuDF reads as large as a
    slab. Memory: of the host ids and metadata of a slab; of the device its embeddings.
    """

    def by_cudf(piece: Slice) -> bool:
        worth = piece.row_bytes * (piece.stop - piece.start) >= WORTH_A_CALL
        return worth and not read_kwargs and frames_on("gpu") and file_of(piece).is_local

    for large, some in groupby(slices, by_cudf):
        if not large:
            yield from _copied(read_slices(schema, file_of, list(some), read_kwargs, columns, on_bad))
            continue
        for piece in some:
            try:
                for part, lists in _slabs(schema, file_of(piece), piece):
                    if lists is None:
                        yield from _copied(read_slices(schema, file_of, [part], read_kwargs, columns))
                        continue
                    tables = schema.read(file_of(part), part, read_kwargs, _but_embedding(schema, columns))
                    origin = Origin(part.source, part.first + part.start, len(lists))
                    yield Rows(DeviceTable(pa.concat_tables(tables), lists), [origin])
            except BadFileError as error:
                if on_bad is None:
                    raise
                on_bad(piece, error)


def tables_on_device(
    schema: InputSchema, file: Location, piece: Slice, read_kwargs: Mapping[str, Any]
) -> Iterator[DeviceTable]:
    """The rows of one slice, as `InputSchema.read` gives them, the embeddings on the device."""
    return (rows.table for rows in read_on_device(schema, lambda _: file, [piece], read_kwargs))


def chosen_on_device(lists: Lists, hashes: np.ndarray, chosen: np.ndarray) -> pa.Table:
    """Hash and embedding of some rows, given by position, on the host; those of a length together.

    What comes from the device is what is chosen. Memory there: the rows of a length once more, where not all have it.
    """
    lengths = row_lengths(lists)[chosen]
    parts = [pa.table({"hash": pa.array([], pa.uint64()), "embedding": pa.array([], pa.list_(pa.float16()))})]
    for length in np.unique(lengths).tolist():
        own = chosen[lengths == length]
        if length > 0:
            rows, positions = lists.rows(length)
            column = embedding_column(host_rows(rows, np.searchsorted(to_host(positions), own)))
        else:
            column = pa.array([None if length < 0 else []] * len(own), pa.list_(pa.float16()))
        parts.append(pa.table({"hash": pa.array(hashes[own]), "embedding": column}))
    return pa.concat_tables(parts, promote_options="permissive")


def _copied(found: Iterator[Rows]) -> Iterator[Rows]:
    for rows in found:
        if "embedding" not in rows.table.column_names:
            yield rows
            continue
        column = rows.table.column("embedding")
        lists = Lists(row_lengths(column), partial(embedding_rows, column))
        yield Rows(DeviceTable(rows.table.drop_columns("embedding"), on_device(lists)), rows.origins)


def _slabs(schema: InputSchema, file: Location, piece: Slice) -> Iterator[tuple[Slice, Lists | None]]:
    """The slabs of a slice, in their order, with their embeddings; None of what cuDF does not read."""
    with open_parquet(file) as parquet:
        groups, element = _facts(parquet, schema, piece.source)
    start = piece.start
    most = min(MOST_ELEMENTS, SLAB_BYTES // (8 if element is None else element.itemsize))
    for slab in slabs_of(groups, piece.start, piece.stop, most):
        part, lists = replace(piece, start=start, stop=start + slab.n_rows), None
        n_values = sum(groups[number].n_values for number in slab.groups)
        if element is not None and n_values <= min(MOST_ELEMENTS, LARGEST_GROUP // element.itemsize):
            try:
                lists = read_lists(file.url, schema.options.embedding_field, *slab, element)
            except REFUSALS:
                element = None  # nor what follows
        yield part, lists
        start = part.stop


def _but_embedding(schema: InputSchema, columns: Collection[str] | None) -> list[str]:
    names = ["id", *schema.metadata.names] if columns is None else columns
    return [name for name in names if name != "embedding"]


def _facts(parquet: pq.ParquetFile, schema: InputSchema, source: str) -> tuple[list[GroupFacts], np.dtype | None]:
    """The row groups of a file, and the elements that its embeddings are worked on as; None where cuDF is not asked."""
    name, metadata = schema.options.embedding_field, parquet.metadata
    field = parquet.schema_arrow.field(name)
    found = storage_of(field.type)
    made = embedding_type(field.type, is_fp16_bits(schema.options.embedding_encoding, source))
    leaves = [i for i in range(metadata.num_columns) if parquet.schema.column(i).path.split(".")[0] == name]
    asked = any(is_kind(found) for is_kind in LISTS) and found.value_type in ELEMENTS and len(leaves) == 1
    groups = [
        GroupFacts(group.num_rows, group.column(leaves[0]).num_values if leaves else 0)
        for group in map(metadata.row_group, range(metadata.num_row_groups))
    ]
    return groups, np.dtype(made.value_type.to_pandas_dtype()) if asked and made is not None else None
