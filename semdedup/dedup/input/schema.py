"""One schema for all files of the input: names and types that everything after reading works with."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from semdedup.dedup.input.facts import FileFacts
from semdedup.dedup.input.ids import id_type
from semdedup.dedup.input.keys import key_column, keys_schemas, partition_keys
from semdedup.dedup.input.rows import embedding_element_type
from semdedup.dedup.options import InputOptions
from semdedup.errors import BadFileError, ParameterError
from semdedup.storage.location import Location
from semdedup.storage.tables import EMBEDDER, iter_rows, open_parquet


@dataclass(frozen=True)
class InputSchema:
    """The columns of the input in the names and types that everything after reading works with.

    Attributes:
        options: what the user asked for.
        id: type of the ids, ``string``, ``int64`` or ``uint64``.
        metadata: columns that are carried along, in the types that hold the values of all files.
    """

    options: InputOptions
    id: pa.DataType
    metadata: pa.Schema

    def read(
        self, file: Location, start: int, stop: int, read_kwargs: dict[str, Any], source: str = ""
    ) -> Iterator[pa.Table]:
        """Rows [start, stop) of a file as ``id``, ``embedding`` (as it is) and metadata, in tables of bounded size.

        Metadata columns that the file does not have are keys of the folders around its `source`, or null.
        """
        with open_parquet(file, read_kwargs) as parquet:
            there = [name for name in self.options.columns if name in parquet.schema_arrow.names]
            for table in iter_rows(parquet, there, start, stop):
                table.validate(full=True)  # the reader takes bytes for text that are none
                columns = {
                    "id": table.column(self.options.id_field).cast(self.id),
                    "embedding": table.column(self.options.embedding_field),
                }
                for field in self.metadata:
                    column = table.column(field.name).cast(field.type) if field.name in there else None
                    columns[field.name] = key_column(source, field, len(table)) if column is None else column
                yield pa.table(columns)

    def to_json(self) -> dict[str, str]:
        """As text, for the plan on disk; the options are known from elsewhere."""
        schema = pa.schema([pa.field("id", self.id), *self.metadata])
        return {"schema": base64.b64encode(schema.serialize().to_pybytes()).decode()}

    @classmethod
    def from_json(cls, options: InputOptions, value: dict[str, str]) -> InputSchema:
        """The reverse of `to_json`."""
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value["schema"])))
        return cls(options, schema.field("id").type, pa.schema(list(schema)[1:]))


def check_file_schema(schema: pa.Schema, source: str, options: InputOptions) -> None:
    """Raise a `BadFileError` unless a file's columns can hold ids and embeddings."""
    for name in (options.id_field, options.embedding_field):
        if name not in schema.names:
            raise BadFileError(
                f"the file {source} has no column {name!r}; it has {', '.join(schema.names) or 'none'}. Name the right "
                "one with id_field / embedding_field (--id-field / --embedding-field)."
            )
    found = schema.field(options.id_field).type
    if id_type(found) is None and not pa.types.is_null(found):
        raise BadFileError(
            f"the column {options.id_field!r} of {source} is {found}; ids must be text or whole numbers "
            f"(columns: {', '.join(schema.names)})"
        )
    found = schema.field(options.embedding_field).type
    if embedding_element_type(found) is None and not pa.types.is_null(found):
        raise BadFileError(
            f"the column {options.embedding_field!r} of {source} is {found}; embeddings must be lists of float16, "
            f"float32 or float64 (columns: {', '.join(schema.names)})"
        )


def embedders_of(facts: Sequence[FileFacts]) -> dict[str, str]:
    """Names of the embedders that the metadata of files tell, each with a file that tells it."""
    found: dict[str, str] = {}
    for schema, source in {file.schema: file.source for file in facts}.items():
        embedder = (pa.ipc.read_schema(pa.py_buffer(schema)).metadata or {}).get(EMBEDDER)
        if embedder is not None:
            found.setdefault(embedder.decode(errors="replace"), source)
    return found


def unify_schemas(facts: Sequence[FileFacts], options: InputOptions) -> InputSchema:
    """One schema for all files.

    Raises:
        BadFileError: ids are text in one file and numbers in another, or a metadata column has types that do not go
            together; both files are named.
        ParameterError: a metadata field that no file has.
    """
    schemas = {file.schema: file.source for file in facts}
    parsed = [(pa.ipc.read_schema(pa.py_buffer(schema)), source) for schema, source in schemas.items()]
    ids: dict[pa.DataType, str] = {}
    for schema, source in parsed:
        found = id_type(schema.field(options.id_field).type)
        if found is not None:
            ids.setdefault(found, source)
    if pa.string() in ids and len(ids) > 1:
        number = next(kind for kind in ids if kind != pa.string())
        both = _both((number, ids[number]), ("text", ids[pa.string()]))
        raise BadFileError(f"the column {options.id_field!r} is {both}; ids must be all text or all whole numbers")
    kind = pa.string() if not ids or pa.string() in ids else pa.uint64() if set(ids) == {pa.uint64()} else pa.int64()
    parsed += keys_schemas(facts, options.metadata_fields)
    fields: dict[str, tuple[pa.Field, str]] = {}
    for schema, source in parsed:
        for name in options.columns[2:]:
            if name not in schema.names:
                continue
            field = schema.field(name).remove_metadata()
            before = fields.get(name, (field, source))
            try:
                merged = pa.unify_schemas([pa.schema([before[0]]), pa.schema([field])], promote_options="permissive")
            except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
                both = _both((before[0].type, before[1]), (field.type, source))
                raise BadFileError(
                    f"the column {name!r} is {both}; write it with one type, or leave it out of metadata_fields"
                ) from error
            fields[name] = (merged.field(0), before[1])
    absent = [name for name in options.metadata_fields if name not in fields]
    if absent:
        everything = sorted(
            {name for schema, _ in parsed for name in schema.names} | {*partition_keys(facts[0].source)}
        )
        raise ParameterError(
            f"metadata_fields names {', '.join(absent)}, which no file has; columns: {', '.join(everything)}"
        )
    metadata = [fields[name][0].with_nullable(True) for name in options.columns[2:] if name in fields]
    return InputSchema(options, kind, pa.schema(metadata))


def _both(one: tuple[object, str], other: tuple[object, str]) -> str:
    """Two types and where each was found: two files, or one of JSON Lines, whose blocks have types of their own."""
    if one[1] == other[1]:
        return f"{one[0]} in some lines of {one[1]} but {other[0]} in others"
    return f"{one[0]} in {one[1]} but {other[0]} in {other[1]}"
