"""A digest of the content of a table: its values and types, whatever its chunks, offsets and buffers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

_LISTS: tuple[Callable[[pa.DataType], bool], ...] = (
    *(pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list),
    *(pa.types.is_list_view, pa.types.is_large_list_view),
)
_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_BYTES = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view)


def _is(found: pa.DataType, among: tuple[Callable[[pa.DataType], bool], ...]) -> bool:
    return any(check(found) for check in among)


def plain_type(found: pa.DataType) -> str:
    """A type in words, without how it is laid out: lists, text and bytes of any kind, dictionaries as their values."""
    if pa.types.is_dictionary(found):
        return plain_type(found.value_type)
    if _is(found, _LISTS):
        return f"list<{plain_type(found.value_type)}>"
    return "string" if _is(found, _TEXT) else "binary" if _is(found, _BYTES) else str(found)


class ContentDigest:
    """Takes tables that come one after the other; the same rows cut in other places give the same digest.

    Attributes:
        n_bytes: what was hashed, in bytes.
        n_rows: rows so far.

    Cost: a reading of the memory; nothing is copied, but for nulls and for types that are laid out in an unusual way.
    """

    def __init__(self) -> None:
        self.n_bytes = self.n_rows = 0
        self._types: dict[str, str] = {}
        self._hashes: dict[str, Any] = {}
        self._counts: Counter[str] = Counter()

    def take(self, table: pa.Table) -> None:
        """Go on with the rows of a table, which has the same columns as those before."""
        self.n_rows += len(table)
        for name in table.column_names:
            column = table.column(name)
            self._types.setdefault(name, plain_type(column.type))
            for chunk in column.chunks:
                self._take(chunk, name)

    def hexdigest(self) -> str:
        """The digest so far."""
        whole = xxhash.xxh3_128()
        for name, words in self._types.items():
            whole.update(f"{name}\0{words}\n".encode(errors="surrogateescape"))
        for path in sorted(self._counts.keys() | self._hashes.keys()):
            part = self._hashes[path].hexdigest() if path in self._hashes else ""
            whole.update(f"{path}\0{self._counts[path]}\0{part}\n".encode(errors="surrogateescape"))
        return whole.hexdigest()

    def _add(self, path: str, content: Any) -> None:
        self._hashes.setdefault(path, xxhash.xxh3_128()).update(content)
        self.n_bytes += memoryview(content).nbytes

    def _take(self, array: pa.Array, path: str) -> None:
        """One column, or what is in a column; each part of it at a path of its own."""
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if pa.types.is_run_end_encoded(array.type):
            array = pc.run_end_decode(array)
        if array.null_count:
            missing = np.flatnonzero(array.is_null().to_numpy(zero_copy_only=False)) + self._counts[path]
            self._add(f"{path}\0null", missing.astype(np.int64))
        self._counts[path] += len(array)
        kind = array.type
        if pa.types.is_null(kind):
            return
        if _is(kind, _LISTS):
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False)
            self._add(f"{path}\0length", lengths.astype(np.int64))
            self._take(array.flatten(), f"{path}\0item")
        elif pa.types.is_struct(kind):
            for field, part in zip(kind, array.flatten(), strict=True):
                self._take(part, f"{path}\0{field.name}")
        else:
            self._take_leaf(array.drop_null() if array.null_count else array, path)

    def _take_leaf(self, array: pa.Array, path: str) -> None:
        kind = array.type
        if _is(kind, (*_TEXT, *_BYTES)):
            array = array.cast(pa.large_string() if _is(kind, _TEXT) else pa.large_binary())
            offsets = np.frombuffer(array.buffers()[1] or b"\0" * 8, dtype=np.int64)
            offsets = offsets[array.offset : array.offset + len(array) + 1]
            self._add(f"{path}\0length", np.diff(offsets))
            if len(array) and array.buffers()[2] is not None:
                self._add(path, memoryview(array.buffers()[2])[int(offsets[0]) : int(offsets[-1])])
            return
        if pa.types.is_boolean(kind):
            array = array.cast(pa.uint8())
        width = _width(array.type)
        if width is None:
            self._add(path, "".join(f"{value!r}\n" for value in array.to_pylist()).encode(errors="surrogateescape"))
        elif len(array):
            start = array.offset * width
            self._add(path, memoryview(array.buffers()[1])[start : start + len(array) * width])


def _width(kind: pa.DataType) -> int | None:
    """Bytes of a value of a type whose values stand one after the other; None for others."""
    if pa.types.is_nested(kind):
        return None
    try:
        return int(kind.bit_width) // 8
    except ValueError:
        return None
