"""What types the columns of a file may have, and how each is read: decided here, for every step."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semdedup.errors import BadFileError, InputError
from semdedup.storage.tables import lists_of_views

FP16_BITS = "fp16_bits"
"""What `embedding_encoding` says of lists of uint16 that hold the bits of float16."""

CURATOR_CLUSTERS = re.compile(r"(?:^|/)kmeans_results/centroid=\d+/[^/]+$")
"""Files in which NeMo Curator, from 1.4 on, writes such lists."""

EMBEDDINGS = "lists of float16, float32 or float64, or of int8, uint8, int16 or int32"

ListOf = Callable[[pa.DataType | pa.Field], pa.DataType]
LISTS: tuple[tuple[Callable[[pa.DataType], bool], ListOf], ...] = (
    (pa.types.is_list, pa.list_),
    (pa.types.is_large_list, pa.large_list),
)
LIST_VIEWS: tuple[tuple[Callable[[pa.DataType], bool], ListOf], ...] = (
    (pa.types.is_list_view, pa.list_),
    (pa.types.is_large_list_view, pa.large_list),
)
"""Lists of varying length, each with what makes the list that embeddings are worked on as."""

VIEWS = {pa.string_view(): pa.string(), pa.binary_view(): pa.binary()}

NUMBERS = {
    pa.int8(): pa.float32(),
    pa.uint8(): pa.float32(),
    pa.int16(): pa.float32(),
    pa.int32(): pa.float64(),
    pa.null(): pa.float32(),
}
"""Elements of embeddings that are made floating, each with a type that holds every one of their values."""


FLOATS = {pa.float16(): "float16", pa.float32(): "float32", pa.float64(): "float64"}
"""What users call the elements of embeddings."""


def storage_of(found: pa.DataType) -> pa.DataType:
    """The type itself, of an extension type that of what is stored."""
    return found.storage_type if isinstance(found, pa.BaseExtensionType) else found


def is_fp16_bits(encoding: str | None, source: str) -> bool:
    """Whether lists of uint16 in this file hold the bits of float16: it was said, or NeMo Curator wrote them."""
    return encoding == FP16_BITS or bool(CURATOR_CLUSTERS.search(source))


def embedding_type(found: pa.DataType, fp16_bits: bool = False) -> pa.DataType | None:
    """The type in which embeddings of the type `found` are worked on, None where that cannot hold embeddings.

    Lists of any kind and tensors of a fixed shape become ``list``, ``large_list`` or ``fixed_size_list`` of float16,
    float32 or float64; a column of nulls becomes a ``list`` of nulls. Lists of uint16 are taken for the bits of
    float16 where `fp16_bits`, and cannot be taken otherwise.
    """
    if pa.types.is_null(found):
        return pa.list_(pa.float32())
    if isinstance(found, pa.FixedShapeTensorType) and list(found.permutation or ()) != sorted(found.permutation or ()):
        return None  # the same elements in another order
    found = storage_of(found)
    if pa.types.is_fixed_size_list(found):
        element = _element(found.value_type, fp16_bits)
        return None if element is None else _same_or(found, pa.list_(element, found.list_size))
    for is_kind, list_of in (*LISTS, *LIST_VIEWS):
        if is_kind(found):
            element = _element(found.value_type, fp16_bits)
            return None if element is None else _same_or(found, list_of(element))
    return None


def _element(found: pa.DataType, fp16_bits: bool) -> pa.DataType | None:
    if pa.types.is_floating(found):
        return found
    return pa.float16() if fp16_bits and found == pa.uint16() else NUMBERS.get(found)


def _same_or(found: pa.DataType, made: pa.DataType) -> pa.DataType:
    """`found` where the two differ in the name of their elements at most."""
    return found if found == made else made


def as_embeddings(column: pa.ChunkedArray, fp16_bits: bool = False) -> pa.ChunkedArray:
    """A column in the type that `embedding_type` gives for it; no copy where it has that type already."""
    target = embedding_type(column.type, fp16_bits)
    if target is None or column.type == target:
        return column
    column = column.cast(storage_of(column.type))
    if any(is_kind(column.type) for is_kind, _ in LIST_VIEWS):
        column = lists_of_views(column)
    if fp16_bits and not pa.types.is_null(column.type) and column.type.value_type == pa.uint16():
        return pa.chunked_array([chunk.view(target) for chunk in column.chunks], target)
    return column.cast(target)


def why_no_embeddings(found: pa.DataType) -> str:
    """What to say of a column that cannot hold embeddings."""
    element = getattr(storage_of(found), "value_type", None)
    if element == pa.uint16():
        return (
            "lists of uint16 are read where they hold the bits of float16, which embedding_encoding='fp16_bits' "
            "(--embedding-encoding fp16_bits) says; write numbers as float32"
        )
    return f"embeddings must be {EMBEDDINGS}"


def embeddings_in_words(name: str, found: pa.DataType, fp16_bits: bool) -> str | None:
    """How embeddings are read as other numbers, for the user; None where they are not."""
    made = embedding_type(found, fp16_bits)
    if made is None or found == made or pa.types.is_null(found):
        return None
    element = getattr(storage_of(found), "value_type", None)
    return None if made.value_type == element else f"{name}: list<{element}> read as {FLOATS[made.value_type]}"


def carried_type(found: pa.DataType) -> pa.DataType:
    """The type in which a column of metadata of the type `found` is carried along.

    It holds the same values: dictionaries and views of text or bytes become what they stand for, at any depth, and
    extension types of Python's, which workers need not know, become what they store. Arrow can neither take rows of
    these nor write two dictionaries to one file.

    Raises:
        ArrowNotImplementedError: that cannot be done with a view of lists.
    """
    if any(is_kind(found) for is_kind, _ in LIST_VIEWS):
        if carried_type(found.value_type) != found.value_type:
            raise pa.ArrowNotImplementedError(str(found))
        return found
    if pa.types.is_dictionary(found):
        return carried_type(found.value_type)
    if isinstance(found, pa.BaseExtensionType):
        storage = carried_type(found.storage_type)
        known = not isinstance(found, pa.ExtensionType) and storage == found.storage_type
        return found if known else storage
    if pa.types.is_struct(found):
        inner = [found.field(i) for i in range(found.num_fields)]
        return pa.struct([field.with_type(carried_type(field.type)) for field in inner])
    if pa.types.is_map(found):
        return pa.map_(carried_type(found.key_type), carried_type(found.item_type), found.keys_sorted)
    if pa.types.is_fixed_size_list(found):
        field = found.value_field.with_type(carried_type(found.value_type))
        return pa.list_(field, found.list_size) if _fixed_sizes_may_be_null() else pa.list_(field)
    for is_kind, list_of in LISTS:
        if is_kind(found):
            return list_of(found.value_field.with_type(carried_type(found.value_type)))
    return VIEWS.get(found, found)


@lru_cache
def _fixed_sizes_may_be_null() -> bool:
    """Whether Parquet files with null rows of a ``fixed_size_list`` can be written: with PyArrow 19 they cannot."""
    try:
        pq.write_table(pa.table({"x": pa.nulls(1, pa.list_(pa.int8(), 1))}), pa.BufferOutputStream())
    except pa.ArrowNotImplementedError:
        return False
    return True


TEXT_BYTES = 1 << 30
"""Bytes of an array whose offsets have 32 bits, at most: half of what these can tell."""

WIDE = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}


def wide_type(found: pa.DataType) -> pa.DataType:
    """The type that holds the same values with 64-bit offsets: rows of it can be taken from more than 2 GiB of text."""
    if pa.types.is_list(found) or pa.types.is_large_list(found):
        return pa.large_list(found.value_field.with_type(wide_type(found.value_type)))
    if pa.types.is_struct(found):
        inner = [found.field(i) for i in range(found.num_fields)]
        return pa.struct([field.with_type(wide_type(field.type)) for field in inner])
    return WIDE.get(found, found)


def wide(table: pa.Table) -> pa.Table:
    """A table with its columns in their `wide_type`. Cost: new offsets, 8 bytes a value; no value is copied."""
    return table.cast(pa.schema([field.with_type(wide_type(field.type)) for field in table.schema]))


def narrow_type(ids: pa.DataType) -> pa.DataType:
    """The type that ids are written in: text with 32-bit offsets, as other programs have it."""
    return pa.string() if pa.types.is_large_string(ids) else ids


def narrow(column: pa.Array | pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """A column of the `wide_type` of `target` as `target`, in as many arrays as 32-bit offsets need."""
    chunks = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    if column.type == target:
        return pa.chunked_array(chunks, target)
    return pa.chunked_array([part for chunk in chunks for part in _narrow(chunk, target)], target)


def _narrow(chunk: pa.Array, target: pa.DataType) -> Iterator[pa.Array]:
    if chunk.get_total_buffer_size() <= TEXT_BYTES:
        yield chunk.cast(target)
        return
    n_parts = max(1, min(len(chunk), -(-chunk.nbytes // TEXT_BYTES)))
    edges = [len(chunk) * i // n_parts for i in range(n_parts + 1)]
    for start, stop in pairwise(edges):
        part = chunk.take(pa.array(np.arange(start, stop)))  # a slice would keep its large offsets
        if part.nbytes > TEXT_BYTES and len(part) > 1:
            yield from _narrow(part, target)
        else:
            yield part.cast(target)


def common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """A type that holds the values of two types as they are carried; None where there is none."""
    if any(pa.types.is_fixed_size_list(kind) and not kind.list_size for kind in (one, other)):
        return None  # PyArrow does not read it
    try:
        schemas = [pa.schema([("", carried_type(kind))]) for kind in (one, other)]
        together = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
        for kind in (one, other):
            if kind not in (together, pa.null()) and "list_view" in f"{kind} {together}":  # see `lists_of_views`
                return None
            as_carried(pa.chunked_array([pa.nulls(1, kind)]), together)  # there is a way from one to the other
    except (pa.ArrowTypeError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return None
    return together


def as_carried(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """A column of metadata in the type that holds those of all files. Raises `ArrowInvalid` where a value does not fit.

    No copy where the column has that type already.
    """
    if column.type == target:
        return column
    if pa.types.is_null(column.type):
        return pa.chunked_array([pa.nulls(len(column), target)])
    return column.cast(carried_type(column.type)).cast(target)


def is_low_information_type(found: pa.DataType) -> bool:
    """Whether a column can mark rows of low information: truth, 0 and 1 in any whole number, or nulls only."""
    return pa.types.is_boolean(found) or pa.types.is_integer(found) or pa.types.is_null(found)


def as_marks(column: pa.ChunkedArray, name: str, source: str) -> pa.ChunkedArray:
    """Marks of low information as truth. Raises a `BadFileError` for a whole number that is not 0 or 1."""
    if pa.types.is_integer(column.type):
        wrong = column.filter(pc.invert(pc.is_in(column, pa.array([0, 1, None], column.type))))
        if len(wrong):
            raise BadFileError(
                f"the column {name!r} of {source} has the value {wrong[0].as_py()}; it must be true or false, 0 or 1"
            )
    return column.cast(pa.bool_())


def fitting(
    column: pa.ChunkedArray, cast: Callable[[pa.ChunkedArray], pa.ChunkedArray], name: str, source: str, target: object
) -> pa.ChunkedArray:
    """A column after a cast of values that may not fit; the file is sound, so that no `BadFileError` is raised.

    Raises:
        InputError: with the first value that does not fit.
    """
    try:
        return cast(column)
    except pa.ArrowInvalid as error:
        value = _first(column, cast)
        raise InputError(
            f"the column {name!r} of {source} is {column.type} and has the value {value}, which does not fit into "
            f"{target}, the type that the other files need. Write the column with one type in all files"
        ) from error


def _first(column: pa.ChunkedArray, cast: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> str:
    low, high = 0, len(column)  # the first value that does not fit lies in [low, high)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(column.slice(low, middle - low), cast) else (low, middle)
    (chunk,) = (chunk for chunk in column.slice(low, 1).chunks if len(chunk))
    return _as_text(chunk)


def _fits(column: pa.ChunkedArray, cast: Callable[[pa.ChunkedArray], pa.ChunkedArray]) -> bool:
    try:
        cast(column)
    except pa.ArrowInvalid:
        return False
    return True


def python_rows(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Rows as Python's values, by column; as text where Python has none: a point in time of the year 10,000."""
    columns = [_python_values(column) for column in batch.columns]
    return [dict(zip(batch.schema.names, row, strict=True)) for row in zip(*columns, strict=True)]


def _python_values(column: pa.Array) -> list[Any]:
    try:
        values: list[Any] = column.to_pylist()
    except (OverflowError, ValueError):
        return [_as_text(column.slice(i, 1)) if column[i].is_valid else None for i in range(len(column))]
    return values


def _as_text(one: pa.Array) -> str:
    """The text of an array of one value."""
    return str(one.to_string(skip_new_lines=True)).strip("[]")


def check_once(names: Iterable[str], used: Iterable[str], source: str) -> None:
    """Raise a `BadFileError` where a column that is used stands in a file twice."""
    listed = list(names)
    for name in used:
        if listed.count(name) > 1:
            times = "twice" if listed.count(name) == 2 else f"{listed.count(name)} times"
            raise BadFileError(f"the file {source} cannot be used: the column {name!r} stands there {times}")
