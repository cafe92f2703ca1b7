"""Keys of Hive partitions: columns whose values stand in the names of folders, as in ``year=2020/a.parquet``.

They are read where they are asked for as metadata. A file that has such a column itself goes by its own. Folders above
what is given are no partitions of it: `top` is the URL of the folder that all given paths lie in, with its last slash.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import unquote

import pyarrow as pa
import xxhash

from semdedup.dedup.input.facts import FileFacts
from semdedup.dedup.input.found import top_of
from semdedup.storage.location import FileInfo

NULL = "__HIVE_DEFAULT_PARTITION__"
"""What writers put where a value is null."""

WHOLE = re.compile(r"-?[0-9]{1,19}")


def partition_keys(url: str, top: str) -> dict[str, str | None]:
    """The keys of the folders around a file, each with its text, None for null; the innermost of the same name.

    >>> partition_keys("/tmp/run=1/emb/year=2020/city=S%C3%A3o%20Paulo/part=a.parquet", "/tmp/run=1/emb/")
    {'year': '2020', 'city': 'São Paulo'}
    """
    if not top or not url.startswith(top):
        return {}
    parts = [part.partition("=") for part in url[len(top) :].split("/")[:-1]]
    pairs = [(unquote(name), unquote(value)) for name, equals, value in parts if equals and name]
    return {name: None if value == NULL else value for name, value in pairs}


def advice_on_keys(names: Sequence[str], top: str) -> str:
    """What to do where columns that no file has are keys of folders above what is given; empty where none is one."""
    above = [name for name in names if name in partition_keys(top, top[:1])]
    return f". The key {above[0]} is of a folder above: give the folder that holds {above[0]}=…" if above else ""


def keys_schemas(facts: Sequence[FileFacts], names: Sequence[str], top: str) -> list[tuple[pa.Schema, str]]:
    """A schema for each key of folders that is asked for, with a file below them, as if it were a column of files.

    The type is int64 where all values are whole numbers, else text. Files that have such a column do not count.
    """
    if not names:
        return []
    values: dict[str, dict[str | None, str]] = {}
    columns = {schema: pa.ipc.read_schema(pa.py_buffer(schema)).names for schema in {file.schema for file in facts}}
    for file in facts:
        for name, value in partition_keys(file.source, top).items():
            if name in names and name not in columns[file.schema]:
                values.setdefault(name, {}).setdefault(value, file.source)
    return [(pa.schema([(name, key_type(found))]), next(iter(found.values()))) for name, found in values.items()]


def key_column(url: str, top: str, field: pa.Field, n_rows: int) -> pa.ChunkedArray:
    """A column that the file of this URL does not have: the value of its key; null where there is no such key."""
    value = partition_keys(url, top).get(field.name)
    if value is None:
        return pa.chunked_array([pa.nulls(n_rows, field.type)])
    is_text = pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
    kind = pa.string() if is_text else key_type([value])
    one = pa.array([int(value) if kind == pa.int64() else value], kind).cast(field.type)
    return pa.chunked_array([pa.repeat(one[0], n_rows)], field.type)


def keys_identity(files: Sequence[FileInfo], names: Sequence[str]) -> dict[str, Any]:
    """What identifies the keys of an input that are asked for; nothing where there are none."""
    if not names:
        return {}
    digest, top, comma, has_keys = xxhash.xxh3_128(b"["), top_of(files), "", False
    folder, keys = "", ""
    for file in files:
        before, folder = folder, file.url.rpartition("/")[0]
        if folder != before or not keys:
            found = [(name, value) for name, value in partition_keys(file.url, top).items() if name in names]
            keys, has_keys = repr(found), has_keys or bool(found)
        digest.update(f"{comma}{keys}".encode(errors="surrogateescape"))
        comma = ", "
    digest.update(b"]")
    return {"keys": digest.hexdigest()} if has_keys else {}


def key_type(values: Iterable[str | None]) -> pa.DataType:
    """The type of a key with these values: int64 where all are whole numbers, else text."""
    there = [value for value in values if value is not None]
    if not there:
        return pa.null()
    whole = all(WHOLE.fullmatch(value) and -(2**63) <= int(value) < 2**63 for value in there)
    return pa.int64() if whole else pa.string()
