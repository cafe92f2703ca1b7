"""Ids: the types they may have, and a seeded hash of them that depends on nothing else."""

from __future__ import annotations

import uuid

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

HASHED_AT_A_TIME = 1 << 16
"""Ids that are text of Python at a time, of about 100 bytes each."""


def id_type(found: pa.DataType) -> pa.DataType | None:
    """The type in which ids of the type `found` are worked on and written, None where it cannot hold ids.

    Text of any kind becomes ``string``; whole numbers become ``int64``, or ``uint64`` where they are that already.
    UUIDs become ``string``, in their canonical form, and so do bytes, as hexadecimal digits.
    """
    kind = id_kind(found)
    if kind is None:
        return None
    return pa.string() if kind != NUMBERS else pa.uint64() if by_value(found) == pa.uint64() else pa.int64()


TEXT, UUIDS, BYTES, NUMBERS = "text", "UUIDs", "bytes", "whole numbers"
"""What ids can be. Text and UUIDs go together; others do not: the same id would be written in two ways."""


def id_kind(found: pa.DataType) -> str | None:
    """What ids of the type `found` are, None where it cannot hold ids."""
    found = by_value(found)
    if pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return TEXT
    if found == pa.uuid():
        return UUIDS
    if found == pa.binary_view() or any(is_kind(found) for is_kind in ARE_BYTES):
        return BYTES
    return NUMBERS if pa.types.is_integer(found) else None


ARE_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_fixed_size_binary)


def by_value(found: pa.DataType) -> pa.DataType:
    """The type itself, of a dictionary that of its values."""
    return found.value_type if pa.types.is_dictionary(found) else found


def as_ids(column: pa.ChunkedArray, target: pa.DataType) -> pa.ChunkedArray:
    """A column of ids as they are worked on. Raises `ArrowInvalid` where a number does not fit into the target.

    UUIDs in their canonical form, bytes as hexadecimal digits in lower case; no copy where nothing changes.
    """
    kind, found = id_kind(column.type), by_value(column.type)
    if kind not in (UUIDS, BYTES):
        return column if column.type == target else column.cast(found).cast(target)
    values = column.cast(found)
    write = _canonical if kind == UUIDS else bytes.hex
    plain = values.cast(pa.binary(16)) if kind == UUIDS else values
    text = [None if value is None else write(value) for value in plain.to_pylist()]
    return pa.chunked_array([pa.array(text, pa.string())])


def _canonical(value: bytes) -> str:
    return str(uuid.UUID(bytes=value))


def ids_of_rows(file: str, first: int, n_rows: int) -> pa.ChunkedArray:
    """Ids for rows that have none: the path of their file below the folder of the input, and the number of the row."""
    name = file.encode(errors="backslashreplace").decode()
    return pa.chunked_array([pa.array([f"{name}:{n}" for n in range(first, first + n_rows)], pa.string())])


def ids_in_words(name: str, found: pa.DataType) -> str | None:
    """How ids are read as text, for the user; None where they are text or numbers."""
    words = {UUIDS: "uuid read as text, in its canonical form", BYTES: f"{by_value(found)} read as hexadecimal digits"}
    kind = id_kind(found)
    return f"{name}: {words[kind]}" if kind in words else None


def wide_ids(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column of ids as one array; text with 64-bit offsets, for more than 2 GiB of it."""
    ids = column.cast(pa.large_string()) if pa.types.is_string(column.type) else column
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def wide_text(table: pa.Table) -> pa.Table:
    """A table whose text has 64-bit offsets: rows are taken from columns of more than 2 GiB then."""
    return _with_types(table, pa.string(), pa.large_string())


def narrow_text(table: pa.Table) -> pa.Table:
    """A table with its text as it is written, as ``string``."""
    return _with_types(table, pa.large_string(), pa.string())


def _with_types(table: pa.Table, old: pa.DataType, new: pa.DataType) -> pa.Table:
    return table.cast(pa.schema([field.with_type(new) if field.type == old else field for field in table.schema]))


def _mix(words: np.ndarray) -> np.ndarray:
    """Finaliser of splitmix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def hash_ids(ids: pa.Array | pa.ChunkedArray, seed: int) -> np.ndarray:
    """Hash ids to uniform 64-bit words: (n,) uint64, a function of the id and the seed alone.

    Text is hashed by SipHash as pandas has it, whole numbers by their value, then mixed with the seed. Null ids hash
    too, to no particular word. Cost: O(bytes of the ids); memory: 8 bytes an id, and the
    text of `HASHED_AT_A_TIME`.
    """
    column = pa.chunked_array([ids]) if isinstance(ids, pa.Array) else ids
    words = np.empty(len(column), dtype=np.uint64)
    for start in range(0, len(column), HASHED_AT_A_TIME):
        part = column.slice(start, HASHED_AT_A_TIME)
        words[start : start + len(part)] = _words(part)
    with np.errstate(over="ignore"):
        offset = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        return _mix(words + offset)


def _words(ids: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_integer(ids.type):
        return pc.fill_null(ids, 0).to_numpy().astype(np.uint64, copy=False)
    return pd.util.hash_array(pc.fill_null(ids, "").to_numpy(), categorize=False)
