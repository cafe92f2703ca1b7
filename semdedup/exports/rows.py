"""The rows of the input that remain, with all their columns, as Parquet files: one batch is in memory at a time."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence

import pyarrow as pa

from semdedup.dedup.input.convert import reading_rows, source_of
from semdedup.dedup.input.ids import ids_of_rows
from semdedup.errors import BadFileError, InputError
from semdedup.exports.gone import Fields, Gone
from semdedup.runs.identity import common_folder
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import write_batches

FILE_BYTES = 512 << 20
"""Bytes of rows, uncompressed, after which the next file begins: about what the Hugging Face Hub advises."""


def schema_of(files: Sequence[FileInfo], root: Location, filetype: str) -> pa.Schema:
    """The columns of all files; a file may lack some of them.

    Raises:
        BadFileError: files have one column in types that do not go together.
    """
    found: pa.Schema | None = None
    for file in files:
        with reading_rows(file, root, filetype) as (schema, _):
            schema = schema.remove_metadata()
            repeated = [name for name, count in Counter(schema.names).items() if count > 1]
            if repeated:
                raise BadFileError(f"{source_of(file)} has the column {repeated[0]!r} twice")
            try:
                found = schema if found is None else pa.unify_schemas([found, schema], promote_options="permissive")
            except pa.ArrowException as error:
                first, now = source_of(files[0]), source_of(file)
                raise BadFileError(f"the columns of {first} and {now} do not go together: {error}") from None
    assert found is not None
    return found


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
                    yield _aligned(kept, schema)


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


def _aligned(table: pa.Table, schema: pa.Schema) -> pa.Table:
    columns = [
        table.column(field.name) if field.name in table.column_names else pa.nulls(len(table), field.type)
        for field in schema
    ]
    return pa.table(columns, names=schema.names).cast(schema)
