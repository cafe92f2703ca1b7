"""Columns of files: names that need not be UTF-8, and stamps in the room that they need."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

ETAG = re.compile(r'"[0-9a-f]{32}"')
NUMBER = re.compile(r"0|-?[1-9][0-9]{0,17}")
"""What stamps mostly are: of S3, and of local files."""


def bytes_of(text: str) -> bytes:
    """A name as it stands in a column: UTF-8, with lone surrogates as they are, so that bytes sort as text does."""
    return text.encode(errors="surrogatepass")


def name_column(names: Sequence[str]) -> pa.BinaryArray:
    """Names as a column, in memory of their exact size: what Arrow's builders allocate is up to twice that."""
    together = "".join(names)
    lengths = map(len, names) if together.isascii() else (len(bytes_of(name)) for name in names)
    offsets = np.zeros(len(names) + 1, dtype=np.int32)
    np.cumsum(np.fromiter(lengths, dtype=np.int32, count=len(names)), out=offsets[1:])
    return pa.Array.from_buffers(
        pa.binary(), len(names), [None, pa.py_buffer(offsets), pa.py_buffer(bytes_of(together))]
    )


def texts(column: pa.Array) -> list[str]:
    """The reverse of `name_column`."""
    try:
        return column.cast(pa.large_string() if pa.types.is_large_binary(column.type) else pa.string()).to_pylist()
    except pa.ArrowInvalid:
        return [value.decode(errors="surrogatepass") for value in column.to_pylist()]


def stamp_column(stamps: Sequence[int | str]) -> pa.Array:
    """Stamps as a column: int64 where all are whole numbers, 16 bytes where all are MD5 sums, else text."""
    if all(isinstance(stamp, int) or NUMBER.fullmatch(stamp) for stamp in stamps):
        return pa.array(np.fromiter(map(int, stamps), dtype=np.int64, count=len(stamps)))
    words = list(map(str, stamps))
    if all(map(ETAG.fullmatch, words)):
        sums = bytes.fromhex("".join(word[1:-1] for word in words))
        return pa.Array.from_buffers(pa.binary(16), len(words), [None, pa.py_buffer(sums)])
    return name_column(words)


def stamp_values(column: pa.Array) -> list[Any]:
    """The reverse of `stamp_column`: whole numbers, or text."""
    if pa.types.is_integer(column.type):
        values: list[Any] = column.to_pylist()
        return values
    if pa.types.is_fixed_size_binary(column.type):
        return [f'"{value.hex()}"' for value in column.to_pylist()]
    return texts(column)


def stamp_texts(column: pa.Array) -> list[str]:
    """The reverse of `stamp_column`, as text."""
    return list(map(str, stamp_values(column)))


def folder_texts(column: pa.DictionaryArray) -> list[str]:
    """The folder of each file."""
    if len(column) < len(column.dictionary):
        return texts(column.dictionary_decode())
    folders = texts(column.dictionary)
    return [folders[place] for place in column.indices.to_pylist()]


def url_column(batch: pa.RecordBatch) -> pa.LargeBinaryArray:
    """The URLs of a batch of files."""
    wide = pa.large_binary()
    folders, names = batch["folder"].dictionary_decode().cast(wide), batch["name"].cast(wide)
    return pc.binary_join_element_wise(folders, names, pa.scalar(b"", wide))


def url_texts(batch: pa.RecordBatch) -> list[str]:
    """The URLs of a batch of files."""
    pairs = zip(folder_texts(batch["folder"]), texts(batch["name"]), strict=True)
    return [folder + name for folder, name in pairs]


def has_ending(names: pa.BinaryArray, *endings: str) -> pa.BooleanArray:
    """Which names end so, in capitals or not; endings are ASCII."""
    found = np.zeros(len(names), dtype=bool)
    for ending in endings:
        last = pc.binary_slice(names, -len(ending))
        found |= pc.is_in(last, value_set=pa.array(_spellings(ending), pa.binary())).to_numpy(zero_copy_only=False)
    return pa.array(found)


def _spellings(ending: str) -> list[bytes]:
    """An ending in small letters and capitals, in every mixture of them."""
    found = [b""]
    for letter in ending:
        found = [begin + each.encode() for begin in found for each in {letter.lower(), letter.upper()}]
    return found


def joined_files(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """Batches of files as one, with the folders that it needs."""
    kinds = {batch["stamp"].type for batch in batches}
    columns = []
    for name in ("folder", "name", "bytes", "stamp"):
        parts = [batch[name] for batch in batches]
        if name == "stamp" and len(kinds) > 1:
            parts = [name_column(stamp_texts(part)) for part in parts]
        if name == "folder":
            parts = [pc.dictionary_encode(part.dictionary_decode()) for part in parts]
        columns.append(pa.concat_arrays(parts) if len(parts) > 1 else parts[0])
    return pa.RecordBatch.from_arrays(columns, ["folder", "name", "bytes", "stamp"])
