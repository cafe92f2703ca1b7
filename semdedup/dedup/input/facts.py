"""What the footers of Parquet files say: rows, elements and columns, before a row is read."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semdedup.compute.session import Session
from semdedup.dedup import sizes
from semdedup.dedup.input.columns import storage_of
from semdedup.dedup.options import FieldOptions
from semdedup.errors import BadFileError
from semdedup.storage.faults import repeated
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.parquet import check_chunks
from semdedup.storage.tables import BATCH_BYTES, iter_groups, open_parquet

FOR_A_ROW = {"pre_buffer": False, "buffer_size": 1 << 16}
"""How files are opened of which hardly a row is read."""

TO_MEASURE = {"pre_buffer": False, "buffer_size": 1 << 20}
"""How files are opened of which the beginning of a column is read."""

GROUPS_ASKED, ROWS_ASKED = 16, 16
"""Row groups of a file that are asked what they hold, of more some; and rows of one that is read for that."""

MEASURED_BYTES = 8 << 20
"""How much of a column of text is read, as it is encoded, where the footer does not tell what it takes decoded."""

ROWS_MEASURED = 1 << 16
"""Rows of it at a time, at most."""

WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 8, "FLOAT": 4, "DOUBLE": 8}
"""Bytes of a value of each physical type of Parquet, at most. Others are text, or have a length of their own."""

OFFSET = 8
"""Bytes of the offset of a text."""


class Counted(NamedTuple):
    """Columns of files whose bytes are counted, those that a file has.

    Attributes:
        embedding: the column of the embeddings.
        others: what is read beside it.
        different: those of them whose values all differ, as ids do: no dictionary makes these smaller than they are.
    """

    embedding: str
    others: tuple[str, ...] = ()
    different: tuple[str, ...] = ()

    @classmethod
    def of(cls, fields: FieldOptions, others: Iterable[str] = ()) -> Counted:
        """Ids, embeddings and these."""
        ids = () if fields.id_field is None else (fields.id_field,)
        names = dict.fromkeys([*ids, *others])
        return cls(fields.embedding_field, tuple(name for name in names if name != fields.embedding_field), ids)


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What the footer of a Parquet file says. There may be a million of these.

    Attributes:
        url: where it is.
        source: the file that the user gave: the same, or the JSON Lines file that it was made from.
        n_rows: rows.
        n_values: elements of all embeddings together; of a file of many row groups, as some of these have them.
        schema: columns and types, serialised; files that have the same share one object.
        other_bytes: bytes of the other columns that are read, decoded; of many row groups likewise.
        group_rows: rows of each row group, int64; empty where there is one at most.
        offset: number of its first row in the file at `url`, which may hold others before.
    """

    url: str
    source: str
    n_rows: int
    n_values: int
    schema: bytes
    other_bytes: int = 0
    group_rows: array[int] = field(default_factory=lambda: array("q"))
    offset: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes that a task holds of all its rows, see `sizes.held_bytes`."""
        return sizes.held_bytes(self.n_rows, self.n_values, self.other_bytes)


@dataclass(frozen=True)
class Files:
    """Files that one task inspects; an object, for Dask looks into each tuple and list of what it sends.

    Attributes:
        number: of the task.
        located: each file, and what the user called it.
        n_bytes: their sizes, where they are known.
    """

    number: int
    located: Sequence[tuple[Location, str]]
    n_bytes: Sequence[int] = ()


def files_of_tasks(located: Sequence[tuple[Location, str]], n_bytes: Sequence[int] = ()) -> list[Files]:
    """Cut files into those of one task each."""
    most = sizes.FILES_PER_INSPECTION
    starts = range(0, len(located), most)
    return [Files(n, located[i : i + most], n_bytes[i : i + most]) for n, i in enumerate(starts)]


def _inspect(counted: Counted, skip_bad_files: bool, files: Files) -> tuple[list[FileFacts], list[str]]:
    return inspect_files(counted, skip_bad_files, files.located)


def inspect_files(
    counted: Counted, skip_bad_files: bool, files: Sequence[tuple[Location, str]]
) -> tuple[list[FileFacts], list[str]]:
    """Read the footers of some files; return their facts and the reasons of those that cannot be read."""
    facts, bad = [], []
    schemas: dict[bytes, bytes] = {}
    for location, source in files:
        try:
            facts.append(facts_of(location, source, counted))
        except BadFileError as error:
            if not skip_bad_files:
                raise
            bad.append(str(error))
    return [sharing(file, schemas) for file in facts], bad


def sharing(file: FileFacts, schemas: dict[bytes, bytes]) -> FileFacts:
    """The facts of a file with the one object of its schema."""
    schema = schemas.setdefault(file.schema, file.schema)
    return file if schema is file.schema else replace(file, schema=schema)


@repeated
def facts_of(location: Location, source: str, counted: Counted, n_bytes: int | None = None) -> FileFacts:
    """The facts of a file, whose size may be known."""
    with open_parquet(location, FOR_A_ROW, n_bytes) as file:
        metadata, schema = file.metadata, file.schema_arrow
        groups = [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]
        values, others = _held_by_a_row(location, file, schema, counted)
        return FileFacts(
            location.url,
            location.url if source == location.url else source,
            metadata.num_rows,
            round(values * metadata.num_rows),
            schema.serialize().to_pybytes(),
            math.ceil(others * metadata.num_rows),
            array("q", groups if len(groups) > 1 else ()),
        )


def _held_by_a_row(
    location: Location, file: pq.ParquetFile, schema: pa.Schema, counted: Counted
) -> tuple[float, float]:
    """Elements of an embedding and bytes of the other columns on average, by types and by what the footer says of some
    row groups. Values are read only of row groups of a few rows, and of text that repeats.
    """
    there = [name for name in (counted.embedding, *counted.others) if schema.names.count(name) == 1]  # more are refused
    kinds = {name: storage_of(schema.field(schema.names.index(name)).type) for name in there}
    fixed = [name for name, kind in kinds.items() if name == counted.embedding and pa.types.is_fixed_size_list(kind)]
    asked = [name for name, kind in kinds.items() if name not in fixed and _may_be_asked(kind, name, counted)]
    metadata = file.metadata
    paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
    leaves = {name: [i for i, path in enumerate(paths) if f"{path}.".startswith(f"{name}.")] for name in asked}
    some = range(0, metadata.num_row_groups, max(1, metadata.num_row_groups // GROUPS_ASKED)) if asked else range(0)
    groups = [group for group in some if metadata.row_group(group).num_rows]
    check_chunks(metadata, groups, asked)
    others = [name for name in asked if name != counted.embedding]
    n_rows, n_values, n_bytes = 0, 0, 0.0
    for group in groups:
        rows = metadata.row_group(group).num_rows
        n_rows += rows
        for leaf in leaves.get(counted.embedding, ()):
            n_values += metadata.row_group(group).column(leaf).num_values
        if rows <= ROWS_ASKED:
            n_bytes += sum(batch.nbytes for batch in iter_groups(file, [group], others, rows)) if others else 0
            continue
        for name in others:
            n_bytes += sum(
                _chunk_bytes(location, file, group, leaf, name not in counted.different) for leaf in leaves[name]
            )
    values = float(kinds[fixed[0]].list_size) if fixed else n_values / max(1, n_rows)
    return values, n_bytes / max(1, n_rows)


def _may_be_asked(kind: pa.DataType, name: str, counted: Counted) -> bool:
    """Whether a column can be read, and its chunks tell something: lists of size 0 PyArrow writes and cannot read."""
    if name == counted.embedding:
        return pa.types.is_nested(kind)
    return not (pa.types.is_fixed_size_list(kind) and kind.list_size == 0)


def _chunk_bytes(location: Location, file: pq.ParquetFile, group: int, leaf: int, repeats: bool) -> float:
    """Bytes of a column chunk once it is decoded, of texts that may repeat or do not.

    Numbers have a width. Text takes what its chunk takes before compression, but where the chunk has each text only
    once, in a dictionary, or in part, as what it does not share with the one before: then it is measured.
    """
    chunk = file.metadata.row_group(group).column(leaf)
    width = WIDTHS.get(chunk.physical_type) or file.schema.column(leaf).length
    if width:
        return float(width * chunk.num_values)
    plain = float(chunk.total_uncompressed_size + OFFSET * chunk.num_values)
    in_part = "DELTA_BYTE_ARRAY" in chunk.encodings
    if in_part or (repeats and chunk.has_dictionary_page):
        rows = file.metadata.row_group(group).num_rows
        measured = _measured(location, group, chunk.path_in_schema, (rows, chunk.total_uncompressed_size), in_part)
        return max(plain, measured)
    return plain


def _measured(location: Location, group: int, path: str, size: tuple[int, int], in_part: bool) -> float:
    """Bytes of a chunk of text once it is decoded: it is read, repeated texts as their numbers in a dictionary.

    Of a chunk above `MEASURED_BYTES`, which is no dictionary alone, the beginning is read. The rest is taken to be like
    it, or to take what the chunk takes, if that is more. Memory: the dictionary, and a batch.

    Args:
        size: its rows, and its bytes as it is encoded.
        in_part: whether texts stand there in part, which PyArrow cannot read as a dictionary.
    """
    n_rows, n_bytes = size
    most = n_rows if n_bytes <= MEASURED_BYTES else max(1, n_rows * MEASURED_BYTES // n_bytes)
    at_a_time = ROWS_ASKED if in_part else min(ROWS_MEASURED, max(1, n_rows * BATCH_BYTES // max(1, n_bytes)))
    seen, found = 0, 0
    with open_parquet(location, {**TO_MEASURE, "read_dictionary": [] if in_part else [path]}) as file:
        for batch in iter_groups(file, [group], [path], at_a_time):
            found += _text_bytes(batch.column(0))
            seen += len(batch)
            if seen >= most:
                break
    return found + (n_rows - seen) * max(found / max(1, seen), n_bytes / n_rows)


def _text_bytes(column: pa.Array) -> int:
    """Bytes of the texts in a column of text, or of lists or structs of one, decoded."""
    while pa.types.is_nested(column.type):
        column = column.flatten()[0] if pa.types.is_struct(column.type) else column.flatten()
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.fill_null(pc.binary_length(column.dictionary), 0).to_numpy(zero_copy_only=False)
    used = column.indices.drop_null().to_numpy()
    return int(lengths[used].sum(dtype=np.int64)) + OFFSET * len(column)


def inspect_all(
    session: Session,
    files: Sequence[tuple[Location, str]],
    counted: Counted,
    skip_bad_files: bool = False,
    name: str = "inspect files",
) -> tuple[list[FileFacts], list[str]]:
    """`inspect_files` on the workers, many files at a time; facts are in the order of the files."""
    inspect = partial(_inspect, counted, skip_bad_files)
    return put_together(session.run(name, inspect, files_of_tasks(files), unit="groups"))


def put_together(
    found: Iterable[tuple[int, tuple[Sequence[FileFacts], Sequence[str]]]],
) -> tuple[list[FileFacts], list[str]]:
    """The facts and the faults that tasks have found, in the order of their numbers."""
    schemas: dict[bytes, bytes] = {}
    in_order = [result for _, result in sorted(found, key=lambda pair: pair[0])]
    facts = [sharing(file, schemas) for facts, _ in in_order for file in facts]
    return facts, [why for _, bad in in_order for why in bad]


def inspect_first(files: Sequence[FileInfo], source: Location, counted: Counted) -> list[FileFacts]:
    """`inspect_files` of the first files, here: what is wrong is refused before there are workers."""
    first = [(source.at(file.url), file.url) for file in files[: sizes.FILES_CHECKED_FIRST]]
    return inspect_files(counted, False, first)[0]
