"""One schema for all files of the input: names and types that everything after reading works with."""

from __future__ import annotations

import base64
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from semdedup.dedup.input.columns import (
    as_carried,
    as_embeddings,
    as_marks,
    carried_type,
    check_once,
    common_type,
    embedding_type,
    embeddings_in_words,
    fitting,
    is_fp16_bits,
    is_low_information_type,
    storage_of,
    why_no_embeddings,
)
from semdedup.dedup.input.convert import source_of
from semdedup.dedup.input.facts import FileFacts
from semdedup.dedup.input.found import top_of
from semdedup.dedup.input.ids import BYTES, NUMBERS, TEXT, UUIDS, as_ids, id_kind, id_type, ids_in_words, ids_of_rows
from semdedup.dedup.input.keys import advice_on_keys, key_column, keys_schemas, partition_keys
from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.options import FieldOptions, InputOptions
from semdedup.errors import BadFileError, ParameterError
from semdedup.runs.identity import common_folder
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import EMBEDDER, LOW_INFORMATION, iter_rows, open_parquet


class Origin(NamedTuple):
    """Where rows of a table come from: the file that the user gave, the number of the first one there, how many."""

    source: str
    row: int
    n_rows: int


@dataclass(frozen=True)
class InputSchema:
    """The columns of the input in the names and types that everything after reading works with.

    Attributes:
        options: what the user asked for.
        id: type of the ids, ``string``, ``int64`` or ``uint64``.
        metadata: columns that are carried along, in the types that hold the values of all files.
        folder: URL of the folder that holds all files, with its last slash: below it, ids that are made name files.
        top: that of the folder that all given paths lie in: below it, folders may be keys.
    """

    options: InputOptions
    id: pa.DataType
    metadata: pa.Schema
    folder: str = ""
    top: str = ""

    def below(self, files: Sequence[FileInfo]) -> InputSchema:
        """The same, for input that consists of these files."""
        return replace(self, folder=common_folder([source_of(file) for file in files]), top=top_of(files))

    def read(
        self, file: Location, piece: Slice, read_kwargs: Mapping[str, Any], columns: Collection[str] | None = None
    ) -> Iterator[pa.Table]:
        """The rows of a slice as ``id``, ``embedding`` and metadata, in tables of bounded size.

        Embeddings are in the type that `embedding_type` gives; metadata columns that the file does not have are keys of
        the folders around it, or null.

        Args:
            file: where the slice is, as this process reaches it.
            piece: which rows.
            read_kwargs: options for reading Parquet.
            columns: those of them that are wanted; all by default. A column of another type than the schema has is read
                all the same, so that a value that does not fit is found by whoever reads the rows first.

        Raises:
            BadFileError: the file is damaged, or `low_information` has other values than it can have.
            InputError: a value does not fit into the type that the files have together.
        """
        row = piece.first + piece.start
        for table in rows_of(file, partial(self.wanted, columns), piece, read_kwargs):
            yield self.as_worked_on(table, [Origin(piece.source, row, len(table))], columns)
            row += len(table)

    def wanted(self, columns: Collection[str] | None, there: pa.Schema) -> list[str]:
        """The columns of a file to read, which has these."""
        options = self.options
        if columns is None:
            return options.columns
        ours = {options.id_field: "id", options.embedding_field: "embedding"}
        names = [name for name in options.columns if ours.get(name, name) in columns]
        casts = [field.name for field in self.metadata if self._is_cast(field, there) and field.name not in names]
        return names + casts

    def _is_cast(self, field: pa.Field, there: pa.Schema) -> bool:
        """Whether a file has a metadata column in another type, so that its values may not fit."""
        found = [there.field(i).type for i in there.get_all_field_indices(field.name)]
        return any(carried_type(kind) != field.type for kind in found)

    def as_worked_on(self, table: pa.Table, origins: Sequence[Origin], wanted: Collection[str] | None) -> pa.Table:
        """Rows as they are in files, of one or of several alike, in the names and types that are worked on.

        This is ours: no error in here is the file's, but for what `read` raises, which names the first of several.

        Args:
            table: the rows.
            origins: where they come from, one after the other. See `alike`.
            wanted: which columns.
        """
        source = origins[0].source
        columns = {}
        if wanted is None or "id" in wanted:
            columns["id"] = self._ids(table, origins)
        if wanted is None or "embedding" in wanted:
            columns["embedding"] = self._embeddings(table, source)
        for field in self.metadata:
            if field.name not in table.column_names:
                if wanted is None or field.name in wanted:
                    keys = [key_column(each.source, self.top, field, each.n_rows) for each in origins]
                    columns[field.name] = _one_after_the_other(keys)
            elif field.name == LOW_INFORMATION:
                columns[field.name] = as_marks(table.column(field.name), field.name, source)
            else:
                cast = partial(as_carried, target=field.type)
                columns[field.name] = fitting(table.column(field.name), cast, field.name, source, field.type)
        return pa.table({name: column for name, column in columns.items() if wanted is None or name in wanted})

    def _embeddings(self, table: pa.Table, source: str) -> pa.ChunkedArray:
        if self.options.embedding_field not in table.column_names:  # of size 0
            return pa.chunked_array([pa.array([[]] * len(table), pa.list_(pa.float32()))])
        fp16_bits = is_fp16_bits(self.options.embedding_encoding, source)
        return as_embeddings(table.column(self.options.embedding_field), fp16_bits)

    def _ids(self, table: pa.Table, origins: Sequence[Origin]) -> pa.ChunkedArray:
        name = self.options.id_field
        if name is not None:
            return fitting(table.column(name), partial(as_ids, target=self.id), name, origins[0].source, self.id)
        start = len(self.folder)
        return _one_after_the_other([ids_of_rows(each.source[start:], each.row, each.n_rows) for each in origins])

    def alike(self, one: str, other: str) -> bool:
        """Whether columns of the same type mean the same in two files."""
        return len({is_fp16_bits(self.options.embedding_encoding, source) for source in (one, other)}) == 1

    def to_json(self) -> dict[str, str]:
        """As text, for the plan on disk; the options are known from elsewhere."""
        schema = pa.schema([pa.field("id", self.id), *self.metadata])
        return {"schema": base64.b64encode(schema.serialize().to_pybytes()).decode()}

    @classmethod
    def from_json(cls, options: InputOptions, value: dict[str, str]) -> InputSchema:
        """The reverse of `to_json`."""
        schema = pa.ipc.read_schema(pa.py_buffer(base64.b64decode(value["schema"])))
        return cls(options, schema.field("id").type, pa.schema(list(schema)[1:]))


def _one_after_the_other(columns: Sequence[pa.ChunkedArray]) -> pa.ChunkedArray:
    return columns[0] if len(columns) == 1 else pa.chunked_array([c for column in columns for c in column.chunks])


def rows_of(
    file: Location, wanted: Callable[[pa.Schema], Sequence[str]], piece: Slice, read_kwargs: Mapping[str, Any]
) -> Iterator[pa.Table]:
    """The rows of a slice as they are in the file, those of the wanted columns that it has."""
    with open_parquet(file, read_kwargs) as parquet:
        schema = parquet.schema_arrow
        there = readable(schema, wanted(schema))
        for table in iter_rows(parquet, there, piece.start, piece.stop, piece.row_bytes):
            table.validate(full=True)  # the reader takes bytes for text that are none
            yield table


def readable(schema: pa.Schema, names: Sequence[str]) -> list[str]:
    """Those columns that a file has, but for lists of size 0."""
    return [name for name in names if name in schema.names and not _is_empty(schema, name)]


def _is_empty(schema: pa.Schema, name: str) -> bool:
    """Whether a column has lists of size 0, which PyArrow writes and cannot read."""
    found = storage_of(schema.field(name).type)
    return pa.types.is_fixed_size_list(found) and found.list_size == 0


def check_file_schema(schema: pa.Schema, source: str, options: InputOptions) -> None:
    """Raise a `BadFileError` unless a file has the columns that are needed, each once, of types that can be used."""
    check_once(schema.names, options.columns, source)
    there = f"(columns: {', '.join(schema.names)})"
    for name in filter(None, (options.id_field, options.embedding_field)):
        if name not in schema.names:
            raise BadFileError(
                f"the file {source} has no column {name!r}; it has {', '.join(schema.names) or 'none'}. Name the right "
                "one with id_field / embedding_field (--id-field / --embedding-field)"
                + "; id_field=None (--id-field '') makes ids of file and row."
                * (name == options.id_field)
            )
    found = pa.null() if options.id_field is None else schema.field(options.id_field).type
    if id_type(found) is None and not pa.types.is_null(found):
        raise BadFileError(
            f"the column {options.id_field!r} of {source} is {found}; ids must be text, whole numbers, UUIDs or bytes "
            f"{there}"
        )
    found = schema.field(options.embedding_field).type
    if embedding_type(found, is_fp16_bits(options.embedding_encoding, source)) is None:
        raise BadFileError(
            f"the column {options.embedding_field!r} of {source} is {found}; {why_no_embeddings(found)} {there}"
        )
    if LOW_INFORMATION in schema.names and not is_low_information_type(schema.field(LOW_INFORMATION).type):
        raise BadFileError(
            f"the column {LOW_INFORMATION!r} of {source}, which marks rows that match nothing, is "
            f"{schema.field(LOW_INFORMATION).type}; it must be true or false, or whole numbers 0 and 1. Rename it if "
            "it means something else."
        )


def embedders_of(facts: Sequence[FileFacts]) -> dict[str, str]:
    """Names of the embedders that the metadata of files tell, each with a file that tells it."""
    found: dict[str, str] = {}
    for schema, source in {file.schema: file.source for file in facts}.items():
        embedder = (pa.ipc.read_schema(pa.py_buffer(schema)).metadata or {}).get(EMBEDDER)
        if embedder is not None:
            found.setdefault(embedder.decode(errors="replace"), source)
    return found


def casts_in_words(facts: Sequence[FileFacts], options: FieldOptions) -> list[str]:
    """Each way in which ids or embeddings are read in another type than the files have, once, for the user."""
    found: dict[str | None, None] = {}
    for encoded, source in {file.schema: file.source for file in facts}.items():
        schema = pa.ipc.read_schema(pa.py_buffer(encoded))
        if options.id_field is not None and options.id_field in schema.names:
            found[ids_in_words(options.id_field, schema.field(options.id_field).type)] = None
        if options.embedding_field in schema.names:
            fp16_bits = is_fp16_bits(options.embedding_encoding, source)
            kind = schema.field(options.embedding_field).type
            found[embeddings_in_words(options.embedding_field, kind, fp16_bits)] = None
    return [words for words in found if words is not None]


def unify_schemas(facts: Sequence[FileFacts], options: InputOptions, top: str = "") -> InputSchema:
    """One schema for all files, which have passed `check_file_schema`.

    Args:
        facts: of the files.
        options: which columns are wanted.
        top: the folder that all given paths lie in: below it, folders may be keys. Empty: none are.

    Raises:
        BadFileError: ids are text in one file and numbers in another, or a metadata column has types that do not go
            together; both files are named.
        ParameterError: a metadata field that no file has.
    """
    schemas = {file.schema: file.source for file in facts}
    parsed = [(pa.ipc.read_schema(pa.py_buffer(schema)), source) for schema, source in schemas.items()]
    fields: dict[str, tuple[pa.DataType, str]] = {}
    for schema, source in [*parsed, *keys_schemas(facts, options.metadata_fields, top)]:
        for name in options.carried:
            if name not in schema.names:
                continue
            found = schema.field(name).type
            before = fields.get(name, (found, source))
            merged = pa.bool_() if name == LOW_INFORMATION else common_type(before[0], found)
            if merged is None and name not in fields:
                raise BadFileError(
                    f"the column {name!r} of {source} is {found}, which cannot be carried along; leave it out of "
                    "metadata_fields"
                )
            if merged is None:
                raise BadFileError(
                    f"the column {name!r} is {_both(before, (found, source))}; write it with one type, or leave it out "
                    "of metadata_fields"
                )
            fields[name] = (merged, before[1])
    needed = [name for name in options.metadata_fields if name not in options.optional]
    absent = [name for name in options.carried if name in needed and name not in fields]
    if absent:
        everything = sorted(
            {name for schema, _ in parsed for name in schema.names} | {*partition_keys(facts[0].source, top)}
        )
        raise ParameterError(
            f"metadata_fields names {', '.join(absent)}, which no file has; columns: {', '.join(everything)}"
            + advice_on_keys(absent, top)
        )
    metadata = pa.schema([(name, fields[name][0]) for name in options.carried if name in fields])
    return InputSchema(options, _common_id_type(parsed, options), metadata, top=top)


def _common_id_type(parsed: Sequence[tuple[pa.Schema, str]], options: InputOptions) -> pa.DataType:
    """The type of the ids of all files."""
    if options.id_field is None:
        return pa.string()
    kinds: dict[str, tuple[str, str]] = {}
    types: set[pa.DataType] = set()
    for schema, source in parsed:
        found = schema.field(options.id_field).type
        kind, made = id_kind(found), id_type(found)
        if kind is not None and made is not None:
            kinds.setdefault(TEXT if kind == UUIDS else kind, (str(found) if kind == NUMBERS else kind, source))
            types.add(made)
    if len(kinds) > 1:
        one, other, *_ = sorted(kinds, key=[NUMBERS, BYTES, TEXT].index)
        both = _both(kinds[one], kinds[other])
        raise BadFileError(
            f"the column {options.id_field!r} is {both}; ids must be all text, all whole numbers or all bytes"
        )
    return types.pop() if len(types) == 1 else pa.int64() if types else pa.string()


def _both(one: tuple[object, str], other: tuple[object, str]) -> str:
    """Two types and where each was found: two files, or one of JSON Lines, whose blocks have types of their own."""
    if one[1] == other[1]:
        return f"{one[0]} in some lines of {one[1]} but {other[0]} in others"
    return f"{one[0]} in {one[1]} but {other[0]} in {other[1]}"
