"""Arrow IPC in, Parquet out: the files of a data set that Hugging Face's `save_to_disk` wrote, and others like them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from semdedup.errors import BadFileError, SemdedupError
from semdedup.storage.faults import is_storage_fault
from semdedup.storage.location import READ_AHEAD, FileInfo, Location
from semdedup.storage.tables import CORRUPT

MAGIC = b"ARROW1"
"""How an IPC file begins; a stream has no such mark."""


@dataclass(frozen=True)
class ArrowBlock:
    """An IPC file or stream, to be written as the Parquet file `target`."""

    source: Location
    target: Location


def arrow_blocks(files: Sequence[FileInfo], root: Location, target: Location) -> list[ArrowBlock]:
    """A block for each file: where the batches lie is not known before they are read."""
    return [ArrowBlock(root.at(file.url), target / f"{number:08d}.parquet") for number, file in enumerate(files)]


def arrow_schema(file: FileInfo, root: Location, columns: Sequence[str]) -> tuple[pa.Schema, int]:
    """The named columns that a file has, with their types, and the rows of its first batch that has some."""
    with reading_arrow(columns, ArrowBlock(root.at(file.url), root)) as (schema, tables):
        return schema, next((len(table) for table in tables if len(table)), 0)


@contextlib.contextmanager
def reading_arrow(columns: Sequence[str] | None, block: ArrowBlock) -> Iterator[tuple[pa.Schema, Iterator[pa.Table]]]:
    """The schema and the batches of a file, named columns only. Memory: one batch, with all columns.

    Args:
        columns: their names, of which those are read that there are; None: all columns.
        block: the file.

    Raises:
        BadFileError: it is damaged, or has none of the columns.
    """
    place = block.source
    with contextlib.ExitStack() as stack:
        with _faults(place):
            file = _opened(place)
            stack.enter_context(contextlib.closing(file))
            is_file = file.read(len(MAGIC)) == MAGIC
            file.seek(0)
            reader = stack.enter_context(pa.ipc.open_file(file) if is_file else pa.ipc.open_stream(file))
            schema = reader.schema
        names = [name for name in schema.names if columns is None or name in columns]
        if columns is not None and not names:
            raise BadFileError(
                f"the file {place} has none of the columns {', '.join(columns)}; it has {', '.join(schema.names)}"
            )
        for name in names:
            if schema.names.count(name) > 1:
                raise BadFileError(f"the file {place} has the column {name!r} twice")
        yield pa.schema([schema.field(name) for name in names]), _tables(place, reader, names, is_file)


def _opened(place: Location) -> Any:
    """A file of bytes. Of one in a store a stream is read ahead, an IPC file a batch at a time."""
    if place.is_local:
        return pa.OSFile(place.url, "rb")
    with place.open() as file:
        is_file = file.read(len(MAGIC)) == MAGIC
    return pa.PythonFile(place.open(0 if is_file else READ_AHEAD), "r")


def _tables(place: Location, reader: Any, names: Sequence[str], is_file: bool) -> Iterator[pa.Table]:
    with _faults(place):
        batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else iter(reader)
        for batch in batches:
            table = pa.Table.from_batches([batch.select(list(names))])
            table.validate(full=True)  # nothing in such a file was looked at so far
            yield table


@contextlib.contextmanager
def _faults(place: Location) -> Iterator[None]:
    """Errors of reading a file as those of ours; what is raised where its tables are used passes unchanged."""
    try:
        yield
    except SemdedupError:
        raise
    except Exception as error:
        if is_storage_fault(error):
            raise place.fault("read", error) from error
        if not isinstance(error, CORRUPT):
            raise
        reason = (str(error) or type(error).__name__).splitlines()[0][:300]
        raise BadFileError(f"the file {place} cannot be read as Arrow: {reason}") from error
