"""Parquet files in a store: the footer and the columns that are asked for are fetched, in few requests, and no more."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from semdedup.storage.location import Location

FOOTER_BYTES = 64 << 10
"""Bytes at the end of a file that PyArrow asks for first; those of a footer that is larger are a second request."""

GROUPS_BYTES = 16 << 20
"""Most bytes of row groups that are fetched before they are decoded, of the columns that are wanted."""

PIECES_BYTES, SMALLEST_PIECE, LARGEST_PIECE = 32 << 20, 256 << 10, 8 << 20
"""Most bytes of a larger row group that are held, in a piece of each column, and how large such a piece is."""

FETCHED_BYTES = PIECES_BYTES + 2 * LARGEST_PIECE
"""Memory for what is fetched of a file in a store, for 128 columns and less: pieces are copied on the way."""


class StoredParquet(pq.ParquetFile):
    """A Parquet file in a store.

    Row groups of up to `GROUPS_BYTES` are fetched before they are decoded, as many at a time as are that large
    together: what lies side by side of the columns that are wanted, but for gaps of up to 8 KiB, is one request. Of
    larger row groups each column is fetched by itself while it is decoded, in pieces of `piece_bytes`.

    To open it costs a request or two for the footer. A part of a large row group is read from the beginning of the row
    group on, for PyArrow cannot look up where its pages are.
    """

    def __init__(self, source: Any, **kwargs: Any) -> None:
        super().__init__(source, pre_buffer=True, **kwargs)
        self._source, self._kwargs = source, kwargs

    def iter_batches(
        self,
        batch_size: int = 65536,
        row_groups: Sequence[int] | None = None,
        columns: Sequence[str] | None = None,
        use_threads: bool = True,
        use_pandas_metadata: bool = False,
    ) -> Iterator[pa.RecordBatch]:
        """Batches of at most `batch_size` rows. Memory: `FETCHED_BYTES`, and what PyArrow takes to decode them."""
        groups = range(self.metadata.num_row_groups) if row_groups is None else row_groups
        n_bytes = wanted_bytes(self.metadata, groups, columns)
        options = {"columns": columns, "use_threads": use_threads, "use_pandas_metadata": use_pandas_metadata}
        for part in fetched_together(n_bytes):
            if n_bytes[part.start] <= GROUPS_BYTES:
                read = super().iter_batches
            else:
                piece = piece_bytes(self.metadata.num_columns if columns is None else len(columns))
                kwargs = {**self._kwargs, "metadata": self.metadata, "pre_buffer": False, "buffer_size": piece}
                read = pq.ParquetFile(self._source, **kwargs).iter_batches
            yield from read(batch_size, [groups[i] for i in part], **options)


def wanted_bytes(metadata: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str] | None) -> list[int]:
    """Bytes in the file of some columns in each of some row groups; of all columns for None.

    Raises:
        OSError: the footer is damaged.
    """
    check_chunks(metadata, groups, columns)
    chosen = leaves_of(metadata, columns)
    return [sum(metadata.row_group(group).column(i).total_compressed_size for i in chosen) for group in groups]


def leaves_of(metadata: pq.FileMetaData, columns: Sequence[str] | None) -> list[int]:
    """Numbers of the leaves of some columns, given by their names; of all columns for None."""
    paths = [f"{metadata.schema.column(i).path}." for i in range(metadata.num_columns)]
    begins = ("",) if columns is None else tuple(f"{name}." for name in columns)
    return [i for i, path in enumerate(paths) if path.startswith(begins)]


def check_chunks(metadata: pq.FileMetaData, groups: Sequence[int], columns: Sequence[str] | None) -> None:
    """Raise what PyArrow raises where a damaged footer tells nonsense of the column chunks in some row groups.

    PyArrow ends the process where such a footer is asked for a column chunk (`RowGroupMetaData.column`). A reader that
    begins with these row groups looks at all of their chunks before it reads a byte, and raises an error. Here it gets
    no byte.
    """
    if not groups:
        return
    with contextlib.closing(_Unread()) as source:
        reader = pq.ParquetFile(source, metadata=metadata, pre_buffer=True)
        names = None if columns is None else list(columns)
        with contextlib.suppress(_ReadError):
            next(reader.iter_batches(1, list(groups), names, use_threads=False), None)


class _ReadError(Exception):
    """A byte was to be read."""


class _Unread(io.RawIOBase):
    """A file of any size, of which nothing can be read."""

    _position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: 1 << 62}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def read(self, size: int = -1) -> bytes:
        raise _ReadError


def fetched_together(n_bytes: Sequence[int]) -> Iterator[range]:
    """Positions of row groups of so many bytes that are fetched at a time: up to `GROUPS_BYTES`, or one that is larger.

    >>> list(fetched_together([6 << 20, 7 << 20, 8 << 20, 90 << 20, 1]))
    [range(0, 2), range(2, 3), range(3, 4), range(4, 5)]
    """
    start, held = 0, 0
    for position, size in enumerate(n_bytes):
        if position > start and held + size > GROUPS_BYTES:
            yield range(start, position)
            start, held = position, 0
        held += size
    if start < len(n_bytes):
        yield range(start, len(n_bytes))


def piece_bytes(n_columns: int) -> int:
    """Bytes of a column of a large row group that are fetched at a time, where so many columns are read.

    >>> piece_bytes(2) >> 20, piece_bytes(16) >> 20
    (8, 2)
    """
    return max(SMALLEST_PIECE, min(LARGEST_PIECE, PIECES_BYTES // max(1, n_columns)))


def is_small(n_bytes: int | None) -> bool:
    """Whether a file is known to be no larger than what PyArrow asks for first."""
    return n_bytes is not None and n_bytes <= FOOTER_BYTES


@contextlib.contextmanager
def open_stored(location: Location, kwargs: dict[str, Any], n_bytes: int | None = None) -> Iterator[pq.ParquetFile]:
    """Open a Parquet file in a store; one that is no larger than what PyArrow asks for first is fetched whole.

    Args:
        location: the file.
        kwargs: options of PyArrow. Who gives ``pre_buffer`` or ``buffer_size`` decides what is fetched.
        n_bytes: its size, where a listing has told it. A small one then costs one request in place of two.
    """
    with contextlib.ExitStack() as stack:
        if is_small(n_bytes):
            source: Any = pa.BufferReader(location.read_bytes())
        else:
            source = stack.enter_context(location.open())
            if getattr(source, "size", FOOTER_BYTES + 1) <= FOOTER_BYTES:
                source = pa.BufferReader(source.read())
        chosen = pq.ParquetFile if kwargs.keys() & {"pre_buffer", "buffer_size"} else StoredParquet
        yield stack.enter_context(chosen(source, **kwargs))
