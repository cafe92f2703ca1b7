"""Tables of scores are checked as they are read, by whatever step or reader, and whoever wrote them.

`check_columns` looks at the columns of a table, `checked` at values, `check_together` at all tables before the first
answer. Our own tables are known by size and checksum, so that the last is spared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.hashes import Each, HashFiles, find_repeated, write_hashes
from semdedup.dedup.input.ids import as_ids, hash_ids, id_type
from semdedup.dedup.input.scan import ID_HASH_SEED, repeated_in_words
from semdedup.dedup.names import SCORE
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.errors import BadFileError, DuplicateIdError
from semdedup.runs.lookup import known_files
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import RowGroups, cut_files, iter_groups, open_parquet

COLUMNS = ("id", "max_id", SCORE)
"""Columns of a table of scores."""

ABOVE_ONE = 2.0**-9
"""How far above 1 a score may lie, which is then taken as 1: two steps of float16, for programs that compare in it."""

BYTES_PER_TASK = 16 << 20
"""Of tables of scores, what one task reads."""


def in_turn(name: str, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
    """An `Each` for this process."""
    return [function(item) for item in items]


def foreign_files(files: Sequence[FileInfo], folder: Location) -> list[FileInfo]:
    """Those files of a folder that no record of ours names."""
    known = known_files([folder])
    return [file for file in files if file.url not in known]


def check_columns(schema: pa.Schema, url: str, columns: Sequence[str] = COLUMNS) -> pa.DataType:
    """The type in which ids of a table are worked with, after checking that it has these columns, of the right types.

    Raises:
        BadFileError: a column is missing, there twice, or of another type.
    """
    for name in columns:
        there = schema.names.count(name)
        if there != 1:
            held = f"{there} columns" if there else "no column"
            raise BadFileError(
                f"the file {url} has {held} {name!r}; it has {', '.join(schema.names) or 'none'}. Needed are "
                f"{', '.join(columns)}, each once."
            )
    found = {name: schema.field(name).type for name in columns}
    kinds = {name: id_type(kind) for name, kind in found.items() if name != SCORE}
    for name, kind in kinds.items():
        if kind is None:
            raise BadFileError(f"the column {name!r} of {url} is {found[name]}; ids must be text or whole numbers")
        if kind != kinds["id"]:
            raise BadFileError(
                f"the column 'id' of {url} is {found['id']} but the column {name!r} is {found[name]}; write both as one"
            )
    if SCORE in found and not pa.types.is_floating(found[SCORE]):
        raise BadFileError(
            f"the column {SCORE!r} of {url} is {found[SCORE]}; scores must be float16, float32 or float64"
        )
    return kinds["id"]


def checked(rows: pa.RecordBatch, url: str, start: int = 0) -> pa.RecordBatch:
    """Rows of a table whose columns are checked, in the types that everything works with.

    Args:
        rows: some of the columns of such a table; others stay as they are.
        url: the file, for the message.
        start: the number of the first of these rows in the file.

    Returns:
        The same rows; ids as text or 64-bit numbers, scores as float32 in [0, 1].

    Raises:
        BadFileError: an id is null, or a score is null, no finite number, below 0, or above 1 by more than `ABOVE_ONE`.
    """
    columns = {name: rows.column(name) for name in rows.schema.names}
    for name in columns:
        if name == SCORE:
            columns[name] = pa.array(_scores(rows, url, start))
        elif name in COLUMNS:
            columns[name] = as_ids(pa.chunked_array([columns[name]]), id_type(columns[name].type)).chunk(0)
            if columns[name].null_count:
                row = start + int(np.flatnonzero(columns[name].is_null().to_numpy(zero_copy_only=False))[0])
                raise BadFileError(f"the column {name!r} of {url} holds null in row {row}; every row needs an id")
    return pa.record_batch(columns)


def _scores(rows: pa.RecordBatch, url: str, start: int) -> np.ndarray:
    """The scores as float32 in [0, 1]."""
    score = rows.column(SCORE).cast(pa.float32()).to_numpy(zero_copy_only=False)  # null becomes NaN
    fits = (score >= 0) & (score <= np.float32(1 + ABOVE_ONE))
    if not fits.all():
        row = int(np.flatnonzero(~fits)[0])
        of = f", of the id {rows.column('id')[row].as_py()!r}" if "id" in rows.schema.names else ""
        value = rows.column(SCORE)[row].as_py()
        raise BadFileError(
            f"the column {SCORE!r} of {url} holds {'null' if value is None else value} in row {start + row}{of}; "
            "scores must be numbers from 0 to 1. A row that was compared with nothing has score 0."
        )
    return np.minimum(score, np.float32(1)) + np.float32(0)  # -0.0 becomes 0, whose bits are ordered as scores are


def read_checked(
    source: Location,
    part: RowGroups,
    columns: Sequence[str] = COLUMNS,
    there: Sequence[str] = COLUMNS,
    rows: int = ROWS_AT_A_TIME,
) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Some columns of a table, or of some of its row groups, checked.

    Args:
        source: the storage.
        part: what to read.
        columns: which columns to read.
        there: what columns the table must have.
        rows: how many to read at a time.

    Yields:
        The number of a first row in the file, and so many rows from there on; see `checked`.

    Raises:
        BadFileError: see `check_columns` and `checked`.
    """
    with open_parquet(source.at(part.url)) as parquet:
        if parquet.metadata.num_rows:  # pandas writes a table without rows with other types, or without columns
            check_columns(parquet.schema_arrow, part.url, there)
            start = sum(parquet.metadata.row_group(group).num_rows for group in range(part.first))
            for batch in iter_groups(parquet, part.of(parquet), columns, rows):
                yield start, checked(batch, part.url, start)
                start += len(batch)


class Ids(NamedTuple):
    """What a task found of some ids: how many, their type, and a file that has it."""

    n: int
    kind: str
    url: str


def check_together(
    files: Sequence[FileInfo],
    source: Location,
    scratch: Location,
    each: Each = in_turn,
    columns: Sequence[str] = COLUMNS,
) -> None:
    """Read tables whole, and refuse what `check_columns` and `checked` refuse, ids of two types, and an id twice.

    Args:
        files: the tables.
        source: their storage.
        scratch: a folder for hashes of ids, 8 bytes each.
        each: who does the work.
        columns: what each table must have.

    Raises:
        BadFileError: see `check_columns` and `checked`; or ids are text in one table, and numbers in another.
        DuplicateIdError: with examples and the number of repeated ids.

    Time: one reading of the tables; where ids repeat, another of the ids. Memory of a task as of
    `find_repeated`.
    """
    groups = cut_files(files, source, BYTES_PER_TASK)
    found = each("hash ids", partial(_hash_ids, source, scratch, tuple(columns)), list(enumerate(groups)))
    ids = [Ids(*result) for _, results in found for result in results]
    kinds: dict[str, str] = {}
    for some in ids:
        kinds.setdefault(some.kind, some.url)
    if len(kinds) > 1:
        both = " but ".join(f"{kind} in {url}" for kind, url in list(kinds.items())[:2])
        raise BadFileError(f"the column 'id' is {both}; ids must be all text or all whole numbers of one type")
    repeated, n_repeated = find_repeated(each, scratch, [HashFiles(_folder(scratch), [ends for ends, _ in found])])
    if not repeated:
        return
    places: dict[Any, list[str]] = {}
    for pairs in each("look up ids", partial(_ids_with, source, repeated[:1000]), groups):
        for value, url in pairs:
            places.setdefault(value, []).append(url)
    examples = repeated_in_words(places)
    if examples:
        raise DuplicateIdError(
            f"{n_repeated:,} ids stand in the tables of scores below {source} more than once, so that "
            f"it is not clear which row to drop. Examples:\n{examples}\nGive one result, with each id once."
        )


def _folder(scratch: Location) -> Location:
    return scratch / "ids-of-scores"


def _hash_ids(
    source: Location, scratch: Location, columns: Sequence[str], item: tuple[int, tuple[RowGroups, ...]]
) -> tuple[str, list[Ids]]:
    """Write the sorted hashes of the ids of some tables; what `write_hashes` tells of them, and what ids there are."""
    position, parts = item
    hashes, found = [], []
    for part in parts:
        n = 0
        for _, batch in read_checked(source, part, columns, columns):
            hashes.append(hash_ids(batch.column("id"), ID_HASH_SEED))
            n += len(batch)
        if n:
            found.append(Ids(n, str(batch.schema.field("id").type), part.url))
    return write_hashes(_folder(scratch), position, hashes), found


def _ids_with(source: Location, hashes: Sequence[int], parts: Sequence[RowGroups]) -> list[tuple[Any, str]]:
    """The ids that have one of these hashes, with their files."""
    wanted = pa.array(hashes, pa.uint64())
    found = []
    for part in parts:
        for _, batch in read_checked(source, part, ["id"], ["id"]):
            among = pc.is_in(pa.array(hash_ids(batch.column("id"), ID_HASH_SEED)), value_set=wanted)
            found += [(value, part.url) for value in batch.column("id").filter(among).to_pylist()]
    return found
