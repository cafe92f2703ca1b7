"""The rows of the input that remain, with all their columns, as Parquet files: one batch is in memory at a time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from semdedup.dedup.input.columns import as_carried, check_once, common_type
from semdedup.dedup.input.convert import reading_rows, source_of
from semdedup.dedup.input.found import top_of
from semdedup.dedup.input.ids import as_ids, id_type, ids_of_rows
from semdedup.dedup.input.keys import key_column, key_type, partition_keys
from semdedup.errors import BadFileError, InputError
from semdedup.exports.gone import Fields, Gone
from semdedup.runs.identity import common_folder
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import write_batches

FILE_BYTES = 512 << 20
"""Bytes of rows, uncompressed, after which the next file begins: about what the Hugging Face Hub advises."""


def schema_of(files: Sequence[FileInfo], root: Location, fields: Fields) -> pa.Schema:
    """The columns of all files, of which a file may lack some, and those keys of folders that were carried along.

    Columns that have one type in all files keep it, others get the type in which a dedup carries them.

    Raises:
        BadFileError: files have one column in types that do not go together.
    """
    found: dict[str, tuple[pa.DataType, str]] = {}
    for file in files:
        source = source_of(file)
        with reading_rows(file, root, fields.filetype) as (schema, _):
            check_once(schema.names, schema.names, source)
            for name, kind in zip(schema.names, schema.types, strict=True):
                before, first = found.setdefault(name, (kind, source))
                if before != kind:
                    found[name] = _together(name, (before, first), (kind, source), fields.id), first
    keys = [partition_keys(source_of(file), top_of(files)) for file in files]
    for name in fields.metadata:
        values = [of_file[name] for of_file in keys if name in of_file]
        if values and name not in found:
            found[name] = key_type(values), ""
    return pa.schema([(name, kind) for name, (kind, _) in found.items()])


def _together(name: str, one: tuple[pa.DataType, str], other: tuple[pa.DataType, str], id_field: str | None) -> Any:
    """A type for the values of a column in two files."""
    ids = {id_type(one[0]), id_type(other[0])}
    kind = ids.pop() if name == id_field and len(ids) == 1 else common_type(one[0], other[0])
    if kind is None:
        raise BadFileError(
            f"the column {name!r} is {one[0]} in {one[1]} but {other[0]} in {other[1]}, which do not go together in "
            "one table. Write the column with one type in all files."
        )
    return kind


def kept_rows(
    files: Sequence[FileInfo], root: Location, schema: pa.Schema, fields: Fields, gone: Gone, counts: Counter[str]
) -> Iterator[pa.Table]:
    """The rows that remain; all rows are counted, by ``rows``, ``kept`` and what became of the others."""
    start = len(common_folder([source_of(file) for file in files]))
    for file in files:
        n_rows = 0
        with reading_rows(file, root, fields.filetype) as (there, tables):
            if fields.id is not None and fields.id not in there.names and there.names:
                raise InputError(f"{source_of(file)} has no column {fields.id!r}; it has {', '.join(there.names)}")
            for table in tables:
                if fields.id is None:
                    ids = ids_of_rows(source_of(file)[start:], n_rows, len(table))
                elif fields.id in table.column_names:
                    ids = table.column(fields.id)
                else:  # lines of JSON that have none
                    ids = pa.chunked_array([pa.nulls(len(table), pa.string())])
                remains = gone.look(ids, counts)
                n_rows += len(table)
                counts["rows"] += len(table)
                kept = table.filter(pa.array(remains))
                counts["kept"] += len(kept)
                if len(kept):
                    key = partial(key_column, source_of(file), top_of(files), n_rows=len(kept))
                    yield _aligned(kept, schema, fields.id, key)


def write_files(folder: Location, name: str, schema: pa.Schema, tables: Iterator[pa.Table]) -> int:
    """Write tables as ``{name}-00000.parquet``, …, at least one file; how many. They are of about `FILE_BYTES`."""
    for number in itertools.count():
        first = next(tables, None)
        if first is None and number:
            return number
        write_batches(folder / f"{name}-{number:05d}.parquet", schema, _until_full(first, tables))
    raise AssertionError


def _until_full(first: pa.Table | None, tables: Iterator[pa.Table]) -> Iterator[pa.Table]:
    held, table = 0, first
    while table is not None:
        held += table.nbytes
        yield table
        if held >= FILE_BYTES:
            return
        table = next(tables, None)


def _aligned(table: pa.Table, schema: pa.Schema, id_field: str | None, key: Callable[[pa.Field], Any]) -> pa.Table:
    """Rows with the columns of all files; `key` makes those that the file of these rows has not."""
    columns = []
    for field in schema:
        if field.name not in table.column_names:
            columns.append(key(field))
        elif field.name == id_field and id_type(field.type) == field.type:
            columns.append(as_ids(table.column(field.name), field.type))
        else:
            columns.append(as_carried(table.column(field.name), field.type))
    return pa.table(columns, schema=schema)
