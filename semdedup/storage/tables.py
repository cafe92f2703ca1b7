"""Parquet and Arrow files: reading ranges of rows, writing whole files."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semdedup.errors import BadFileError, ParameterError, SemdedupError
from semdedup.storage.faults import is_storage_fault
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.parquet import is_small, open_stored

LOW_INFORMATION = "low_information"
"""Column that marks the clips that show nothing: black, or flat."""

RECOMMENDED_EPS = b"semdedup.recommended_eps"
"""Key in the metadata of a Parquet schema: the eps that goes with its embeddings."""

EMBEDDER = b"semdedup.embedder"
"""Key in there: the name of the embedder."""

FINGERPRINT = b"semdedup.fingerprint"
"""Key in the metadata of the schema of fingerprint tracks: the name of what their vectors are."""

BATCH_BYTES, ROWS_PER_BATCH = 4 << 20, 1 << 12
"""Most bytes of a Parquet file, uncompressed, and most rows that are decoded at a time."""

DECODING_BYTES = 8 * BATCH_BYTES
"""Memory that this takes: measured five times the batch, for lists, and 7 MiB. Larger batches were not faster.

Of a file in a store `parquet.FETCHED_BYTES` more.
"""

FILES_PER_TASK = 1000
"""Most files that one task reads, however small."""

CORRUPT = (OSError, ValueError, pa.ArrowException)
"""What PyArrow raises for files that are damaged or were made to harm; UnicodeDecodeError is a ValueError."""


@contextlib.contextmanager
def open_parquet(
    location: Location, read_kwargs: Mapping[str, Any] | None = None, n_bytes: int | None = None
) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file; what is wrong with its content becomes a `BadFileError` inside the block.

    A fault of the disk, the network or the store says nothing about the content: it becomes a `StorageError`.

    Local files are decoded page by page, so that memory is bounded by the rows asked for and not by the row group. What
    is fetched of a file in a store: see `StoredParquet`.

    Args:
        location: the file.
        read_kwargs: options of `pyarrow.parquet.ParquetFile`.
        n_bytes: its size, where a listing has told it: a small file is read at once, which in a store is one request
            and not two.
    """
    kwargs: dict[str, Any] = {"page_checksum_verification": True, **(read_kwargs or {})}
    try:
        with contextlib.ExitStack() as stack:
            if location.is_local:
                local = {"buffer_size": 0 if is_small(n_bytes) else 1 << 20, "pre_buffer": False, **kwargs}
                source = pa.BufferReader(_content(location.url)) if is_small(n_bytes) else location.url
                yield stack.enter_context(pq.ParquetFile(source, **local))
            else:
                yield stack.enter_context(open_stored(location, kwargs, n_bytes))
    except SemdedupError:  # a ParameterError is a ValueError
        raise
    except Exception as error:
        if is_storage_fault(error):
            raise location.fault("read", error) from error
        if not isinstance(error, CORRUPT):
            raise
        raise BadFileError(f"the file {location} cannot be read as Parquet: {_first_line(error)}") from error


def _content(path: str) -> bytes:
    with open(path, "rb", buffering=0) as file:  # of many small files the objects of `pathlib` would be a sixth of all
        return file.read()


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0][:300]


def iter_rows(
    file: pq.ParquetFile, columns: Sequence[str], start: int = 0, stop: int | None = None, row_bytes: int = 0
) -> Iterator[pa.Table]:
    """Rows [start, stop) of an open file, in tables of at most `ROWS_PER_BATCH` rows. Memory: `DECODING_BYTES`.

    Where a row of these columns is known to take `row_bytes` once it is decoded, batches are cut by that: what repeats
    takes less in the file.
    """
    stop = file.metadata.num_rows if stop is None else stop
    groups: list[int] = []
    first = position = 0
    for group in range(file.metadata.num_row_groups):
        last = first + file.metadata.row_group(group).num_rows
        if first < stop and last > start:
            position = position if groups else first
            groups.append(group)
        first = last
    n_bytes = sum(file.metadata.row_group(group).total_byte_size for group in groups)
    n_rows = sum(file.metadata.row_group(group).num_rows for group in groups)
    most = BATCH_BYTES // row_bytes if row_bytes else BATCH_BYTES * n_rows // max(1, n_bytes)
    most = max(1, min(ROWS_PER_BATCH, most))
    for batch in iter_groups(file, groups, columns, most):
        low, high = max(start - position, 0), min(stop - position, len(batch))
        if low < high:
            yield pa.Table.from_batches([batch.slice(low, high - low)])
        position += len(batch)
        if position >= stop:
            return
    if start < stop:  # a damaged footer
        raise ValueError(f"rows up to {stop:,} were to be read, but there are {position:,}")


def iter_groups(
    file: pq.ParquetFile, groups: Sequence[int], columns: Sequence[str], batch_size: int
) -> Iterator[pa.RecordBatch]:
    """Batches of some row groups of an open file. None are read for no groups, where PyArrow 19 raises an error."""
    if groups:
        yield from file.iter_batches(batch_size, list(groups), list(columns), use_threads=False)


@dataclass(frozen=True)
class RowGroups:
    """Row groups [first, last) of a Parquet file; all from the first on for a `last` of 0."""

    url: str
    first: int = 0
    last: int = 0

    def of(self, file: pq.ParquetFile) -> range:
        """Their numbers in the file, which is open."""
        return range(self.first, self.last or file.metadata.num_row_groups)


def cut_files(files: Sequence[FileInfo], source: Location, most_bytes: int) -> list[tuple[RowGroups, ...]]:
    """Cut Parquet files into tasks of about `most_bytes`: many small files, or a part of a large one.

    Of files larger than that, the footers are read.
    """
    tasks: list[list[RowGroups]] = []
    held = 0
    for file in files:
        for part, n_bytes in _cut_file(file, source, most_bytes):
            if not tasks or held + n_bytes > most_bytes or len(tasks[-1]) == FILES_PER_TASK:
                tasks.append([])
                held = 0
            tasks[-1].append(part)
            held += n_bytes
    return [tuple(task) for task in tasks]


def _cut_file(file: FileInfo, source: Location, most_bytes: int) -> Iterator[tuple[RowGroups, int]]:
    """A file, or its row groups where it is large, with the bytes of each."""
    if file.n_bytes <= most_bytes:
        yield RowGroups(file.url), file.n_bytes
        return
    with open_parquet(source.at(file.url)) as parquet:
        n_groups = parquet.metadata.num_row_groups
    for group in range(n_groups):
        yield RowGroups(file.url, group, group + 1), file.n_bytes // n_groups


def count_rows(location: Location) -> int:
    """Rows of a Parquet file, as its footer tells."""
    with open_parquet(location) as file:
        return int(file.metadata.num_rows)


def read_table(location: Location, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a whole Parquet file, or some of its columns; columns that it does not have are left out."""
    with open_parquet(location) as file:
        names = file.schema_arrow.names
        wanted = names if columns is None else [name for name in columns if name in names]
        if not file.metadata.num_row_groups:  # which PyArrow 19 fails on
            return file.schema_arrow.empty_table().select(wanted)
        return file.read(columns=wanted, use_threads=False)


def read_batches(location: Location, columns: Sequence[str], batch_size: int) -> Iterator[pa.RecordBatch]:
    """Some columns of a Parquet file, so many rows at a time; columns that it does not have are left out."""
    with open_parquet(location) as file:
        wanted = [name for name in columns if name in file.schema_arrow.names]
        yield from iter_groups(file, range(file.metadata.num_row_groups), wanted, batch_size)


def write_table(location: Location, table: pa.Table, write_kwargs: Mapping[str, Any] | None = None) -> None:
    """Write one Parquet file, whole or not at all.

    Embeddings do not compress and get neither dictionary nor statistics; everything else is compressed with Zstandard.
    Options of `pyarrow.parquet.write_table` given by the user win. No pandas metadata is written: readers that do not
    know an Arrow type named there would fail.
    """
    with location.writing() as path:
        pq.write_table(table.replace_schema_metadata(None), path, **parquet_options(table.schema, write_kwargs))


def write_batches(
    location: Location, schema: pa.Schema, tables: Iterable[pa.Table], write_kwargs: Mapping[str, Any] | None = None
) -> None:
    """Write one Parquet file from tables that come one after the other; only one of them is in memory at a time."""
    options = parquet_options(schema, write_kwargs)
    rows_per_group = options.pop("row_group_size", None)
    with location.writing() as path, pq.ParquetWriter(path, schema, **options) as writer:
        for table in tables:
            writer.write_table(table.cast(schema), rows_per_group)
            del table  # before the next one is made


def parquet_options(schema: pa.Schema, write_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """Options of `pyarrow.parquet.write_table` for a schema: ours, and those of the user, which win."""
    flat = [field.name for field in schema if not pa.types.is_nested(field.type)]
    defaults = {
        "compression": dict.fromkeys(flat, "ZSTD"),
        "use_dictionary": [name for name in flat if name not in ("id", "max_id")],
        "write_statistics": flat,
        "write_page_checksum": True,
    }
    return {**defaults, **(write_kwargs or {})}


def write_arrow(location: Location, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> None:
    """Write an Arrow IPC file of these batches, whole or not at all; one batch is in memory at a time."""
    with location.writing() as path, pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            del batch  # before the next one is made


def one_batch(table: pa.Table) -> pa.RecordBatch:
    """A table of at most one chunk as a batch, which may have no rows. Raises a `ValueError` for more chunks."""
    batches = table.to_batches()
    if len(batches) > 1:
        raise ValueError(f"a table of one chunk is needed, this one has {len(batches)}: rows would be lost")
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=table.schema)


def write_arrow_parts(location: Location, table: pa.Table, starts: Sequence[int] | np.ndarray) -> None:
    """Write a table as an Arrow IPC file, a batch from each of these rows to the next of them; it has one chunk."""
    ends = pairwise([*starts, len(table)])
    write_arrow(location, table.schema, (one_batch(table.slice(start, stop - start)) for start, stop in ends))


def read_arrow_batch(location: Location, index: int) -> pa.RecordBatch:
    """Read one batch of an Arrow IPC file by position, and nothing else of the file but its footer.

    The file is read, not mapped: Dask counts mapped pages as memory of the worker.
    """
    (batch,) = read_arrow_batches(location, [index])
    return batch


def read_arrow_batches(location: Location, indices: Sequence[int]) -> Iterator[pa.RecordBatch]:
    """Read some batches of an Arrow IPC file, one after the other; see `read_arrow_batch`."""
    with location.errors("read"), contextlib.ExitStack() as stack:
        opened = pa.OSFile(location.url, "rb") if location.is_local else location.open()
        source = stack.enter_context(opened)
        file = pa.ipc.open_file(source)
        for index in indices:
            yield file.get_batch(index)


def embedding_column(rows: np.ndarray) -> pa.ListArray:
    """A ``list<float>`` column of the rows of an (n, d) float32 array, without a copy.

    Raises:
        ParameterError: for more than 2**31 - 1 elements, which one Arrow list array cannot hold.
    """
    n, dim = rows.shape
    if n * dim >= 2**31:
        raise ParameterError(f"{n} rows of {dim} elements do not fit into one Arrow list array; write them in parts")
    offsets = pa.array(np.arange(0, (n + 1) * dim, dim, dtype=np.int32) if dim else np.zeros(n + 1, np.int32))
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(rows).reshape(-1)))


def lists_of_views(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """List views as lists. PyArrow's own cast, from 19 to 26 at least, gives lists whose offsets are too short."""
    large = pa.types.is_large_list_view(column.type)
    lists, offset = (pa.LargeListArray, pa.int64()) if large else (pa.ListArray, pa.int32())
    made = []
    for chunk in column.chunks:
        lengths = pc.fill_null(pc.list_value_length(chunk), 0).to_numpy(zero_copy_only=False)
        offsets = pa.array(np.append(0, np.cumsum(lengths)), offset)
        made.append(lists.from_arrays(offsets, chunk.flatten(), mask=chunk.is_null() if chunk.null_count else None))
    list_of = pa.large_list if large else pa.list_
    return pa.chunked_array(made, list_of(column.type.value_type))
