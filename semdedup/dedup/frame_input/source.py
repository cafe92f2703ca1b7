"""A frame as the input of a step: what identifies it, and its rows as Parquet in the scratch folder of the run."""

from __future__ import annotations

import contextlib
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from semdedup.compute.partitions import run_on_partitions
from semdedup.compute.session import Session
from semdedup.dedup.frame_input.convert import first_line
from semdedup.dedup.frame_input.digest import ContentDigest
from semdedup.dedup.frame_input.held import PARTITION_BITS, Columns, Held, hold, read_once
from semdedup.dedup.frame_input.parts import part_in_words, partition_name, rows_name
from semdedup.errors import BadFileError, InputError, SemdedupError
from semdedup.runs.journal import Job
from semdedup.runs.run import Run
from semdedup.settings.frames import Frame, frame_of
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import lists_of_views, write_batches
from semdedup.storage.temporary import temporary_prefix

PART_BYTES = 64 << 20
"""Bytes of a part that the client writes."""

GROUP_BYTES = 4 << 20
"""Bytes of a row group, and of what is converted at a time: a partition of the run that begins in the middle of a file
reads no more than that in vain."""

PLAIN = {"compression": "NONE", "use_dictionary": False, "write_statistics": False, "write_page_checksum": False}
"""How what is read twice and then deleted is written: as fast as it can be."""

NOT_READ = {"files": 0, "bytes": 0, "digest": "not read yet"}
"""What is on record of a Dask frame until its partitions are written: only then is its content known."""


class FrameSource:
    """A frame that a step reads. What the client holds is known by its content at once, a Dask frame once it is read.

    Attributes:
        frame: the frame.
        columns: which of its columns are used.
        identity: what identifies its content, for the record; None where that is not known yet.
        place: the folder of its parts, once they are written.
    """

    def __init__(self, frame: Frame, columns: Columns) -> None:
        self.frame, self.columns = read_once(frame), columns
        self.place: Location | None = None
        self._identity: Mapping[str, Any] | None = None

    @cached_property
    def _held(self) -> Held:
        return hold(self.frame, self.columns)

    @property
    def identity(self) -> Mapping[str, Any] | None:
        """See the class."""
        if self._identity is None and not self.frame.is_lazy:
            with self.naming():
                self._identity = _identity([put(None, self._held)])
        return self._identity

    def check(self, check_schema: Callable[[Sequence[FileInfo], Location], None]) -> None:
        """Refuse here what the columns show to be wrong, by what checks the footers of files; see `head`."""
        with self.head() as (files, folder):
            check_schema(files, folder)

    @contextlib.contextmanager
    def head(self) -> Iterator[tuple[Sequence[FileInfo], Location]]:
        """A file that has the columns of the frame and no values, and its folder; both are gone after the block.

        Raises:
            InputError: there are no rows, or a column is missing or of the wrong type.
        """
        schema = self._meta().schema if self.frame.is_lazy else self._held.schema
        if not self.frame.is_lazy and not self._held.n_rows:
            raise InputError(f"no rows in {self.frame.name}")
        with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as temporary:
            folder, cluster = Location.of(temporary), self.columns.cluster
            with self.naming(folder):
                place = (folder / f"{cluster}=0" if cluster else folder) / "head.parquet"
                head = _head(schema, self.columns.embedding_field)
                write_part(place, [head.drop_columns(cluster) if cluster else head])
                yield [place.info()], folder

    def _meta(self) -> Held:
        """What a Dask frame tells of its columns; where they are objects, that is a guess."""
        kind = frame_of(self.frame.value._meta)
        if kind is None or kind.is_lazy:
            raise BadFileError(f"{self.frame.name} has no partitions of pandas or cuDF")
        return hold(replace(kind, called=self.frame.name), self.columns)

    def learn(self, session: Session, noted: Mapping[str, Any] | None = NOT_READ) -> None:
        """Know the content of a Dask frame, where the record says that an earlier run has read one.

        Args:
            noted: the input on record; None to read it in any case.

        Cost: the frame is computed, and nothing of it is written.
        """
        if self._identity is None and self.frame.is_lazy:
            if noted == NOT_READ:
                self._identity = NOT_READ
            else:
                every = range(self.frame.value.npartitions)
                self._identity = _identity(self._look(session, every).values())

    def write(self, run: Run, name: str = "frame", recorded: bool = True) -> Location:
        """Write the rows below the scratch folder of a run, but for what an earlier run has written of them.

        Args:
            run: the run.
            name: of the folder.
            recorded: whether this is what the record calls the input of the step.

        Raises:
            InputError: a Dask frame gave other rows when it was computed again.
        """
        self.place, work = run.scratch / name, f"write {name}"
        with self.naming(), run.refusing():
            if not self.frame.is_lazy:
                self._write_here(run, self.place, work)
                del self._held  # what was converted; it is in the files now
                return self.place
            found = _identity(self._write_there(run, self.place, work))
            if not found["rows"]:
                raise InputError(f"no rows in {self.frame.name}")
            if self._identity not in (NOT_READ, found):
                raise InputError(
                    f"{self.frame.name} gave other rows when it was computed again; make it so that it gives the same "
                    "rows each time, or .persist() it"
                )
            self._identity = found
        if recorded and run.record.steps[run.step]["input"] == NOT_READ:
            run.record.update(run.step, input=dict(found))
        return self.place

    def _write_here(self, run: Run, folder: Location, work: str) -> None:
        noted = folder / "_rows.json"  # ranges as an earlier run has cut them: a part is written once
        if not noted.exists():
            noted.write_json(self._held.rows_in(PART_BYTES))
        step, n_rows = noted.read_json(), self._held.n_rows
        ranges = [(start, min(start + step, n_rows)) for start in range(0, n_rows, step)]
        jobs = {rows_name(start, stop): (start, stop) for start, stop in ranges}

        def drive(name: str, calls: Sequence[Job]) -> Iterator[tuple[int, Any]]:
            with run.reporter.step(name, len(calls), "parts") as advance:
                for position, call in enumerate(calls):
                    yield position, call()
                    advance(1)

        write = partial(_write_range, self._held, folder, self.columns.cluster)
        for _ in run.each(work, write, jobs, unit="parts", drive=drive):
            pass

    def _write_there(self, run: Run, folder: Location, work: str) -> list[Mapping[str, Any]]:
        before = {int(entry.key): entry.result for entry in run.entries(work)}
        if before and self._identity == NOT_READ and self._look(run.session, sorted(before)) != before:
            run.forget(work)
            folder.remove_tree()
        frame = self._columns_of()

        def drive(name: str, calls: Sequence[Job]) -> Iterator[tuple[int, Any]]:
            numbers = {call.item: position for position, call in enumerate(calls)}
            items = {call.item: call for call in calls}
            for number, found in run_on_partitions(run.session, name, _call_job, frame, items):
                yield numbers[number], found

        task = WritePartition(self.columns, self.frame.name, folder)
        return run.results(work, task, range(frame.npartitions), unit="partitions", drive=drive)

    def _look(self, session: Session, numbers: Sequence[int]) -> dict[int, Mapping[str, Any]]:
        """What `WritePartition` gives for partitions, with nothing written."""
        look, frame = WritePartition(self.columns, self.frame.name, None), self._columns_of()
        items = {number: number for number in numbers}
        with self.naming():
            return dict(sorted(run_on_partitions(session, "read frame", look, frame, items)))

    def _columns_of(self) -> Any:
        """The Dask frame without the columns that nobody needs."""
        value = self.frame.value
        return value[[*self.columns.among(list(value.columns)), self.columns.embedding_field]]

    @contextlib.contextmanager
    def naming(self, place: Location | None = None) -> Iterator[None]:
        """While errors may name files of the frame: its parts are called what they are, and not by where they stand."""
        try:
            yield
        except SemdedupError as error:
            folder = self.place if place is None else place
            text = str(error)
            if folder is None or folder.url not in text:
                raise
            pattern = rf"(?:the file )?{re.escape(folder.url)}(?:(?:/\w+=\d+)?/([\w-]+\.parquet))?"
            words = re.sub(pattern, lambda match: part_in_words(match[1] or "", self.frame.name), text)
            raise type(error)(words) from error


@dataclass(frozen=True)
class WritePartition:
    """Writes a partition of a Dask frame, on the worker that holds it; with no folder it is only looked at."""

    columns: Columns
    name: str
    folder: Location | None

    def __call__(self, item: tuple[int, Any]) -> dict[str, Any]:
        """What was written: digest, rows and bytes of the content."""
        number, partition = item
        frame, called = frame_of(partition), f"partition {number} of {self.name}"
        if frame is None or frame.is_lazy:
            raise BadFileError(f"{called} is a {type(partition).__name__}; partitions must be frames of pandas or cuDF")
        held = hold(replace(frame, called=called), self.columns, number << PARTITION_BITS)
        return put(None if self.folder is None else self.folder / partition_name(number), held, self.columns.cluster)


def _call_job(item: tuple[Job, Any]) -> Any:
    job, partition = item
    return replace(job, item=(job.item, partition))()


def _write_range(held: Held, folder: Location, cluster: str, span: tuple[int, int]) -> dict[str, Any]:
    start, stop = span
    step = held.rows_in(GROUP_BYTES)
    pieces = (held.rows(row, min(row + step, stop)) for row in range(start, stop, step))
    write_part(folder / rows_name(start, stop), pieces, cluster)
    return {"rows": stop - start}


def put(place: Location | None, held: Held, cluster: str = "") -> dict[str, Any]:
    """Write what is held to a file, or only read it: digest, rows and bytes of the content."""
    digest = ContentDigest()

    def tables() -> Iterator[pa.Table]:
        for start, stop in [*held.pieces(GROUP_BYTES)] or [(0, 0)]:
            table = held.rows(start, stop)
            digest.take(table)
            yield table

    if place is not None:
        write_part(place, tables(), cluster)
    else:
        for _ in tables():
            pass
    return {"digest": digest.hexdigest(), "rows": digest.n_rows, "bytes": digest.n_bytes}


def write_part(place: Location, tables: Iterator[pa.Table] | Sequence[pa.Table], cluster: str = "") -> None:
    """Write tables of one schema, one after the other, as a Parquet file that is read soon and then deleted.

    Of clusters a file for each, in folders named by the column `cluster`, as `KMeansStage` writes them.

    Raises:
        BadFileError: a column has a type that Parquet does not know, or the number of a cluster cannot be one.
    """
    plain = (_plain(table) for table in tables)
    if cluster:
        for label, rows in _by_cluster(pa.concat_tables(plain, promote_options="permissive"), cluster, place):
            write_part(place.parent / f"{cluster}={label}" / place.name, [rows])
        return
    first = next(plain)

    def every() -> Iterator[pa.Table]:
        yield first
        yield from plain

    try:
        write_batches(place, first.schema, every(), PLAIN)
    except (pa.ArrowNotImplementedError, pa.ArrowTypeError, pa.ArrowInvalid) as error:
        kinds = ", ".join(f"{field.name} ({field.type})" for field in first.schema)
        raise BadFileError(
            f"the columns {kinds} cannot be written as Parquet: {first_line(error)}; cast the column, or leave it out "
            "of metadata_fields"
        ) from error


def _by_cluster(table: pa.Table, cluster: str, place: Location) -> Iterator[tuple[int, pa.Table]]:
    """The rows of each cluster, without its number."""
    column = table.column(cluster)
    fault = str(column.type) if not pa.types.is_integer(column.type) else "null in some rows" * bool(column.null_count)
    if not fault and pc.min(column).as_py() < 0:
        fault = f"{pc.min(column).as_py()} in some row"
    if fault:
        raise BadFileError(f"the column {cluster!r} of {place} is {fault}; numbers of clusters must be 0, 1, 2, …")
    table = table.sort_by(cluster)
    labels, starts = np.unique(table.column(cluster).to_numpy(), return_index=True)
    for label, start, stop in zip(labels, starts, [*starts[1:], len(table)], strict=True):
        yield int(label), table.slice(start, stop - start).drop_columns(cluster)


def _plain(table: pa.Table) -> pa.Table:
    """Without layouts that Parquet does not know."""
    for position, field in enumerate(table.schema):
        kind, column = field.type, table.column(position)
        if pa.types.is_run_end_encoded(kind):
            column = pa.chunked_array([pc.run_end_decode(chunk) for chunk in column.chunks], kind.value_type)
        elif pa.types.is_list_view(kind) or pa.types.is_large_list_view(kind):
            column = lists_of_views(column)
        elif pa.types.is_string_view(kind):
            column = column.cast(pa.large_string())
        elif pa.types.is_binary_view(kind):
            column = column.cast(pa.large_binary())
        if column.type != kind:
            table = table.set_column(position, field.name, column)
    return table.replace_schema_metadata(None)


def _head(schema: pa.Schema, embedding_field: str) -> pa.Table:
    """Two rows of nulls with these columns; embeddings have a length in one of them, so that none is told for all."""
    columns = {}
    for field in schema:
        columns[field.name] = pa.nulls(2, field.type)
        if field.name == embedding_field and hasattr(field.type, "value_type"):
            kind = field.type.value_type
            columns[field.name] = pa.array([None, [None, None]], pa.list_(kind))
    return pa.table(columns)


def _identity(parts: Sequence[Mapping[str, Any]] | Any) -> dict[str, Any]:
    """What identifies parts in their order."""
    found = list(parts)
    digest = xxhash.xxh3_128("\n".join(part["digest"] for part in found).encode()).hexdigest()
    rows, n_bytes = (sum(part[name] for part in found) for name in ("rows", "bytes"))
    return {"files": 0, "bytes": n_bytes, "rows": rows, "digest": digest}
