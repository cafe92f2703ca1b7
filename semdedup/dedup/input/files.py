"""The input: which files there are, what they hold, and how they are cut into partitions."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from semdedup.dedup.compare.ranking import COSINE_DISTANCE, L2_DISTANCE
from semdedup.dedup.input.ids import id_type
from semdedup.dedup.input.rows import embedding_element_type
from semdedup.dedup.threshold.rule import DEFAULT_EPS, check_eps
from semdedup.errors import BadFileError, InputError, ParameterError
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import LOW_INFORMATION, RECOMMENDED_EPS, iter_rows, open_parquet

EXTENSIONS = {"parquet": (".parquet", ".pq"), "jsonl": (".jsonl", ".ndjson")}
PICKLES = (".pickle", ".pkl")
OUR_COLUMNS = ("id", "embedding", "centroid", L2_DISTANCE, COSINE_DISTANCE)


@dataclass(frozen=True)
class InputOptions:
    """What to read from the input.

    Attributes:
        id_field: name of the column of ids.
        embedding_field: name of the column of embeddings.
        embedding_dim: expected length of an embedding, d; the commonest length of the input where not given.
        metadata_fields: columns to carry along.
        filetype: ``parquet`` or ``jsonl``.
        files_per_partition: most files in one partition; partitions are bounded in bytes all the same.
        skip_bad_files: count and list files that cannot be read, instead of stopping.
    """

    id_field: str = "id"
    embedding_field: str = "embedding"
    embedding_dim: int | None = None
    metadata_fields: tuple[str, ...] = ()
    filetype: str = "parquet"
    files_per_partition: int | None = None
    skip_bad_files: bool = False

    def __post_init__(self) -> None:
        if self.filetype not in EXTENSIONS:
            raise ParameterError(f"input_filetype must be parquet or jsonl; got {self.filetype!r}")
        if self.embedding_dim is not None and self.embedding_dim < 1:
            raise ParameterError(f"embedding_dim must be at least 1; got {self.embedding_dim}")
        if self.files_per_partition is not None and self.files_per_partition < 1:
            raise ParameterError(f"files_per_partition must be at least 1; got {self.files_per_partition}")
        if self.id_field == self.embedding_field:
            raise ParameterError(f"id_field and embedding_field are both {self.id_field!r}")
        taken = [name for name in self.metadata_fields if name in OUR_COLUMNS]
        if taken:
            raise ParameterError(
                f"metadata_fields names {', '.join(taken)}, which semdedup writes itself; rename it in the input"
            )

    @property
    def columns(self) -> list[str]:
        """Columns to read where a file has them."""
        return list(dict.fromkeys([self.id_field, self.embedding_field, *self.metadata_fields, LOW_INFORMATION]))


def find_files(paths: Sequence[Location], filetype: str, outputs: Sequence[Location] = ()) -> list[FileInfo]:
    """List the input: files, folders (at any depth) and patterns. Names that begin with ``_`` or ``.`` are not data.

    What lies below `outputs` is left out, so that a result inside the input folder does not become input.

    Raises:
        InputError: a path is not there, or there are no files; pickles are refused by name.
    """
    found: dict[str, FileInfo] = {}
    for path in paths:
        if path.is_dir():
            listed = [file for file in path.files() if is_data(file.url[len(path.url) :])]
            wanted = [file for file in listed if file.url.endswith(EXTENSIONS[filetype])]
            if not wanted:
                _refuse_empty(path, listed, filetype)
        elif path.exists():
            if path.url.endswith(PICKLES):
                _refuse_pickles(path.parent)
            wanted = [path.info()]
        else:
            wanted = path.glob() if any(mark in path.url for mark in "*?[") else []
            if not wanted:
                _refuse_absent(path)
        found |= {file.url: file for file in wanted}
    for output in outputs:
        found = {url: file for url, file in found.items() if not url.startswith(output.url.rstrip("/") + "/")}
    if not found:
        raise InputError(
            f"no {filetype} files in {', '.join(map(str, paths))} outside of the output folder; take another output"
        )
    return [found[url] for url in sorted(found)]


def is_data(relative: str) -> bool:
    """Whether no part of a relative path begins with ``_`` or ``.``."""
    return not any(part.startswith(("_", ".")) for part in relative.strip("/").split("/"))


def _refuse_empty(path: Location, listed: Sequence[FileInfo], filetype: str) -> None:
    if any(file.url.endswith(PICKLES) for file in listed):
        _refuse_pickles(path)
    there = sorted({"." + file.url.rsplit("/", 1)[-1].rpartition(".")[2] for file in listed})
    held = f"it holds {len(listed)} files ({', '.join(there[:5])})" if listed else "it is empty"
    raise InputError(f"no {filetype} files in {path}: {held}; files must end in {' or '.join(EXTENSIONS[filetype])}")


def _refuse_pickles(folder: Location) -> None:
    raise InputError(
        f"{folder} holds pickles, which are never read: loading one runs whatever code is in it. The same embeddings "
        f"stand as Parquet in the folder beside it: {folder.parent / (folder.name + '_parquet')}"
    )


def _refuse_absent(path: Location) -> None:
    beside = path.parent / (path.name + "_parquet")
    hint = f"; did you mean {beside}?" if not any(mark in path.url for mark in "*?[") and beside.exists() else ""
    raise InputError(f"no such path: {path}{hint}")


@dataclass(frozen=True)
class FileFacts:
    """What the footer of a Parquet file says.

    Attributes:
        url: where it is.
        source: the file that the user gave: the same, or the JSON Lines file that it was made from.
        n_rows: rows.
        n_values: elements of all embeddings together.
        schema: columns and types, serialised; files mostly share one.
    """

    url: str
    source: str
    n_rows: int
    n_values: int
    schema: bytes


def inspect_files(
    embedding_field: str, skip_bad_files: bool, files: Sequence[tuple[Location, str]]
) -> tuple[list[FileFacts], list[str]]:
    """Read the footers of some files; return their facts and the reasons of those that cannot be read."""
    facts, bad = [], []
    for location, source in files:
        try:
            with open_parquet(location) as file:
                metadata, schema = file.metadata, file.schema_arrow
                leaves = [i for i in range(metadata.num_columns) if _root(metadata, i) == embedding_field]
                groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
                n_values = sum(group.column(leaf).num_values for group in groups for leaf in leaves)
                serialised = schema.serialize().to_pybytes()
                facts.append(FileFacts(location.url, source, metadata.num_rows, n_values, serialised))
        except BadFileError as error:
            if not skip_bad_files:
                raise
            bad.append(str(error))
    return facts, bad


def _root(metadata: Any, leaf: int) -> str:
    return metadata.schema.column(leaf).path.split(".")[0]


def recommended_eps(files: Sequence[Location], skip_bad_files: bool = False) -> float | None:
    """The eps that the embedder recommends in the schema metadata of the first file that can be read, if any.

    Raises:
        BadFileError: the file cannot be read, or what stands there is no number in [0, 1).
    """
    for location in files:
        try:
            with open_parquet(location) as file:
                text = (file.schema_arrow.metadata or {}).get(RECOMMENDED_EPS)
                eps = None if text is None else float(text)  # a ValueError becomes a BadFileError that names the file
                if eps is not None and not 0 <= eps < 1:
                    raise ValueError(f"its metadata recommends eps {eps}, which is not in [0, 1)")
                return eps
        except BadFileError:
            if not skip_bad_files:
                raise
    return None


def chosen_eps(eps: float | None, files: Sequence[Location], skip_bad_files: bool = False) -> tuple[float, str]:
    """The threshold, and who chose it: the user, else the embedder of the files, else nobody."""
    if eps is not None:
        return check_eps(eps), "given"
    found = recommended_eps(files, skip_bad_files)
    if found is not None:
        return found, "recommended by the embedder, from the Parquet metadata"
    return DEFAULT_EPS, "the default; none was given and the input recommends none"


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

    def read(self, file: Location, start: int, stop: int, read_kwargs: dict[str, Any]) -> Iterator[pa.Table]:
        """Rows [start, stop) of a file as ``id``, ``embedding`` (as it is) and metadata, in tables of bounded size.

        Metadata columns that the file does not have are null.
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
                    absent = pa.chunked_array([pa.nulls(len(table), field.type)])
                    columns[field.name] = table.column(field.name).cast(field.type) if field.name in there else absent
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
        everything = sorted({name for schema, _ in parsed for name in schema.names})
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


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of one file."""

    url: str
    source: str
    start: int
    stop: int


Partition = tuple[Slice, ...]


def cut_partitions(
    facts: Iterable[FileFacts], target_values: int, files_per_partition: int | None, most_values: int = 0
) -> list[Partition]:
    """Cut files into partitions of about `target_values` embedding elements each; small files share a partition.

    A file of up to `most_values` is not cut: what begins in the middle of a row group is decoded from its beginning.
    A partition holds more than either only where one row does. Files without rows are in none.
    """
    partitions: list[Partition] = []
    current: list[Slice] = []
    held = 0.0

    def close() -> None:
        nonlocal current, held
        if current:
            partitions.append(tuple(current))
        current, held = [], 0.0

    for file in facts:
        if file.n_rows == 0:
            continue
        row_values = max(1.0, file.n_values / file.n_rows)
        n_pieces = -(-file.n_rows // max(1, int(max(target_values, most_values) / row_values)))
        rows = -(-file.n_rows // n_pieces)
        if n_pieces > 1:
            close()
        for start in range(0, file.n_rows, rows):
            stop = min(start + rows, file.n_rows)
            full = files_per_partition is not None and len(current) >= files_per_partition
            if full or (current and held + (stop - start) * row_values > target_values):
                close()
            current.append(Slice(file.url, file.source, start, stop))
            held += (stop - start) * row_values
    close()
    return partitions
