"""Many small files are put together as they are inspected: opened once, they are not opened by each step that follows.

The rows stand in a file in the scratch folder, as they are in theirs, of which the facts tell whose they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semdedup.compute.session import Session
from semdedup.dedup.input.columns import is_fp16_bits
from semdedup.dedup.input.facts import (
    ROWS_ASKED,
    Counted,
    FileFacts,
    Files,
    facts_of,
    files_of_tasks,
    put_together,
)
from semdedup.dedup.input.schema import readable
from semdedup.errors import BadFileError
from semdedup.storage.faults import repeated
from semdedup.storage.location import Location
from semdedup.storage.parquet import is_small
from semdedup.storage.tables import BATCH_BYTES, iter_groups, open_parquet, write_table

FEWEST_FILES = 64
"""Fewer small files than that are left as they are."""

MOST_ROWS, MOST_BYTES = 256, 256 << 10
"""Rows and bytes, decoded, of a small file. It is small as it is stored, too: see `is_small`."""

WRITTEN = {"compression": "none", "use_dictionary": False, "write_statistics": False}


class Packing(NamedTuple):
    """Where small files are put together, and what is read of them.

    Attributes:
        folder: in the scratch folder.
        counted: the columns, all of which are read.
        encoding: what lists of uint16 hold, as for `is_fp16_bits`.
        skip_bad_files: whether files that cannot be read are told and left out.
    """

    folder: Location
    counted: Counted
    encoding: str | None
    skip_bad_files: bool


class Found(NamedTuple):
    """A file of the input: where it is, what the user called it, its size."""

    location: Location
    source: str
    n_bytes: int


def inspect_and_pack(
    session: Session, files: Sequence[Found], packing: Packing, name: str = "inspect files"
) -> tuple[list[FileFacts], list[str]]:
    """`inspect_all` of files, the small ones among which are put together where they are many."""
    tasks = files_of_tasks([file[:2] for file in files], [file.n_bytes for file in files])
    return put_together(session.run(name, partial(pack_files, packing), tasks, unit="groups"))


def pack_files(packing: Packing, files: Files) -> tuple[list[FileFacts], list[str]]:
    """`inspect_files` of some files; where many are small, their rows are written to files of the task's number.

    Memory: `BATCH_BYTES` of rows twice, and those of one small file.
    """
    pack = _Pack(packing, files.number)
    few = sum(map(is_small, files.n_bytes)) < FEWEST_FILES
    for file in (Found(*located, n_bytes) for located, n_bytes in zip(files.located, files.n_bytes, strict=True)):
        try:
            if few or not is_small(file.n_bytes) or not pack.take(file):
                pack.found.append(facts_of(file.location, file.source, packing.counted, file.n_bytes))
        except BadFileError as error:
            pack.refuse(error)
    pack.write()
    return pack.found, pack.bad


class _Known(NamedTuple):
    """A schema, as it is serialised; the columns to read, none where files that have it are not put together."""

    schema: pa.Schema
    encoded: bytes
    names: list[str]


class _Pack:
    """Rows of small files that are alike, held until they are written; facts of all files, in their order.

    Files mostly have the schema of the one before, so that what follows from it is known.
    """

    def __init__(self, packing: Packing, number: int) -> None:
        self.found: list[FileFacts] = []
        self.bad: list[str] = []
        self._packing, self._number, self._written = packing, number, 0
        self._known: _Known | None = None
        self._held: list[tuple[Found, pa.Table]] = []
        self._held_bytes, self._fp16_bits = 0, False

    def take(self, file: Found) -> bool:
        """Take a file, if it is one that can be put together with others."""
        rows, known = self._rows_of(file)
        if rows is None:
            self.write()
            return False
        fp16_bits = is_fp16_bits(self._packing.encoding, file.source)
        if known is not self._known or fp16_bits != self._fp16_bits or self._held_bytes + rows.nbytes > BATCH_BYTES:
            self.write()
        self._known, self._fp16_bits = known, fp16_bits
        self._held.append((file, rows))
        self._held_bytes += rows.nbytes
        return True

    def refuse(self, error: BadFileError) -> None:
        """Note a file that cannot be read. Raises the error where that ends the run."""
        if not self._packing.skip_bad_files:
            raise error
        self.bad.append(str(error))

    @repeated
    def _rows_of(self, file: Found) -> tuple[pa.Table | None, _Known]:
        with open_parquet(file.location, {"pre_buffer": False}, file.n_bytes) as parquet:
            schema, known = parquet.schema_arrow, self._known
            if known is None or not schema.equals(known.schema, check_metadata=True):
                known = _Known(schema, schema.serialize().to_pybytes(), names_to_pack(schema, self._packing.counted))
            if not known.names or not 0 < parquet.metadata.num_rows <= MOST_ROWS:
                return None, known
            return _rows_of_small(parquet, known.names), known

    def write(self) -> None:
        """Write what is held, for good: a plan on disk will name it."""
        if not self._held or self._known is None:
            return
        try:
            together = _valid([rows for _, rows in self._held])
        except pa.ArrowInvalid:
            self._held = [(file, rows) for file, rows in self._held if self._is_valid(file, rows)]
            if not self._held:
                return
            together = _valid([rows for _, rows in self._held])
        place = self._packing.folder / f"{self._number}-{self._written}.parquet"
        write_table(place, together, WRITTEN)
        place.force()
        self._note(place, self._known, together)
        self._written += 1
        self._held, self._held_bytes = [], 0

    def _is_valid(self, file: Found, rows: pa.Table) -> bool:
        try:
            rows.validate(full=True)
        except pa.ArrowInvalid as error:
            why = str(error).splitlines()[0]
            self.refuse(BadFileError(f"the file {file.location} cannot be read as Parquet: {why}"))
            return False
        return True

    def _note(self, place: Location, known: _Known, together: pa.Table) -> None:
        """Make the facts of the files that are held."""
        lengths = pc.fill_null(pc.list_value_length(together.column(self._packing.counted.embedding)), 0)
        n_values = np.append(0, np.cumsum(lengths.to_numpy().astype(np.int64)))
        others = [name for name in known.names if name != self._packing.counted.embedding]
        first = 0
        for file, rows in self._held:
            last = first + len(rows)
            values = int(n_values[last] - n_values[first])
            n_bytes = sum(rows.column(name).nbytes for name in others)
            self.found.append(
                FileFacts(place.url, file.source, len(rows), values, known.encoded, n_bytes, offset=first)
            )
            first = last


def _valid(tables: Sequence[pa.Table]) -> pa.Table:
    """Tables as one, which holds no bytes as text that are none: the reader takes these. Else raises `ArrowInvalid`."""
    together = pa.concat_tables(tables).combine_chunks()
    together.validate(full=True)
    return together


def _rows_of_small(parquet: pq.ParquetFile, names: Sequence[str]) -> pa.Table | None:
    """The rows of an open file; None where they have more than `MOST_BYTES`, or are not as the footer says."""
    batches, n_bytes = [], 0
    for batch in iter_groups(parquet, range(parquet.metadata.num_row_groups), names, ROWS_ASKED):
        batches.append(batch)
        n_bytes += batch.nbytes
        nulls = any(pa.types.is_fixed_size_list(column.type) and column.null_count for column in batch.columns)
        if n_bytes > MOST_BYTES or nulls:  # which PyArrow 19 cannot write
            return None
    return pa.Table.from_batches(batches) if sum(map(len, batches)) == parquet.metadata.num_rows else None


LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def names_to_pack(schema: pa.Schema, counted: Counted) -> list[str]:
    """The columns to read of files with this schema; none where one of them is not plain, or is there twice."""
    names = [name for name in schema.names if name == counted.embedding or name in counted.others]
    if len(names) > len({*names}) or counted.embedding not in names:
        return []
    has_lists = any(is_kind(schema.field(counted.embedding).type) for is_kind in LISTS)
    plain = has_lists and all(_is_plain(schema.field(name).type) for name in names)
    return names if plain and len(readable(schema, names)) == len(names) else []


def _is_plain(kind: pa.DataType) -> bool:
    """Whether values of a type are the same after they were written as Parquet and read, with any PyArrow."""
    if any(is_kind(kind) for is_kind in LISTS):
        kind = kind.value_type
        return pa.types.is_integer(kind) or pa.types.is_floating(kind)
    text = (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary, pa.types.is_large_binary)
    return any(is_kind(kind) for is_kind in (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, *text))
