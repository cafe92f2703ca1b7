"""Files as their storage lists them, in columns: 24 bytes and the name a file, where objects would take 400."""

from __future__ import annotations

import io
from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.storage.batches import ROWS_PER_BATCH, regrouped, taken
from semdedup.storage.file_columns import (
    bytes_of,
    has_ending,
    joined_files,
    name_column,
    stamp_column,
    stamp_texts,
    texts,
    url_column,
    url_texts,
)

AT_A_TIME = 1 << 12
"""Files that are objects at a time where a list is gone through."""

BYTES_PER_FILE = 16
"""Memory of a listed file beside its name and stamp: the place of its folder, the offset of its name, its bytes."""

LOCAL_STAMP, S3_STAMP = 8, 16
"""Bytes of a stamp: of a local file, and of an object of S3; of one that was uploaded in parts the text takes 41."""


@dataclass(frozen=True)
class FileInfo:
    """A file as its storage lists it: where it is, how many bytes, and a stamp that changes with its content."""

    url: str
    n_bytes: int
    stamp: str


def listing_memory(n_files: int, name_bytes: float, stamp_bytes: float = LOCAL_STAMP) -> int:
    """Bytes that `n_files` take in a `FileList` whose names have so many bytes on average, without their folders.

    A folder takes the bytes of its path once for each batch of `ROWS_PER_BATCH` files that it is in. While a local
    folder of more than that many files is put in order, they are there twice.
    """
    return round(n_files * (BYTES_PER_FILE + name_bytes + stamp_bytes))


class FileList(Sequence[FileInfo]):
    """Files in the order in which they were added, mostly that of their URLs. Parts of it are views.

    Args:
        batches: columns ``folder`` (with its last slash, a dictionary), ``name``, ``bytes`` and ``stamp``. Text is
            UTF-8 with lone surrogates in it as they are, so that bytes sort as text does.

    Attributes:
        batches: the same.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch] = ()) -> None:
        self.batches = tuple(batch for batch in batches if len(batch))
        self._ends = np.cumsum([0, *map(len, self.batches)])

    @classmethod
    def of(cls, files: Iterable[FileInfo]) -> FileList:
        """A list of these files, in their order."""
        if isinstance(files, FileList):
            return files
        builder = FileListBuilder()
        for file in files:
            builder.add_file(file)
        return builder.finish()

    @classmethod
    def joined(cls, lists: Iterable[FileList]) -> FileList:
        """Several lists as one, without a copy."""
        return cls(batch for files in lists for batch in files.batches)

    def __len__(self) -> int:
        return int(self._ends[-1])

    @overload
    def __getitem__(self, index: int) -> FileInfo: ...
    @overload
    def __getitem__(self, index: slice) -> FileList: ...
    def __getitem__(self, index: int | slice) -> FileInfo | FileList:
        if isinstance(index, slice):
            start, stop, step = index.indices(len(self))
            return self._part(start, stop) if step == 1 else self.take(np.arange(start, stop, step))
        position = range(len(self))[index]
        return next(_infos(self._part(position, position + 1).batches[0]))

    def _part(self, start: int, stop: int) -> FileList:
        first = int(np.searchsorted(self._ends, start, side="right")) - 1
        parts = []
        for number in range(first, len(self.batches)):
            low, high = max(start - self._ends[number], 0), min(stop - self._ends[number], len(self.batches[number]))
            if low >= high:
                break
            parts.append(self.batches[number].slice(low, high - low))
        return FileList(parts)

    def __iter__(self) -> Iterator[FileInfo]:
        for part in self._parts():
            yield from _infos(part)

    def _parts(self) -> Iterator[pa.RecordBatch]:
        for batch in self.batches:
            for start in range(0, len(batch), AT_A_TIME):
                yield batch.slice(start, AT_A_TIME)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str):
            return NotImplemented
        return len(self) == len(other) and all(a == b for a, b in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"FileList({list(self[:3])}{', …' * (len(self) > 3)}, {len(self):,} files)"

    def __reduce__(self) -> tuple[Any, ...]:
        return _from_streams, ([_stream(batch) for batch in self.batches],)

    @property
    def n_bytes(self) -> np.ndarray:
        """Bytes of each file, (n,) int64."""
        return np.concatenate([np.empty(0, np.int64), *(batch["bytes"].to_numpy() for batch in self.batches)])

    def urls(self) -> Iterator[str]:
        """Where each file is."""
        for part in self._parts():
            yield from url_texts(part)

    def names(self) -> Iterator[pa.BinaryArray]:
        """The last parts of the URLs, a batch at a time."""
        return (batch["name"] for batch in self.batches)

    def folders(self) -> set[str]:
        """The folders that files are right in, without their last slashes."""
        found = (batch["folder"].unique().dictionary_decode().unique() for batch in self.batches)
        return {folder[:-1] for column in found for folder in texts(column)}

    def filter(self, mask: np.ndarray) -> FileList:
        """The files for which a mask, (n,) bool, is true."""
        if mask.all():
            return self
        kept = (_kept(batch, pa.array(part)) for batch, part in zip(self.batches, self._split(mask), strict=True))
        return FileList(regrouped(kept, joined_files))

    def _split(self, mask: np.ndarray) -> list[np.ndarray]:
        return np.split(mask, self._ends[1:-1]) if self.batches else []

    def take(self, positions: np.ndarray) -> FileList:
        """The files at these positions, in this order; a new list."""
        return FileList(
            taken(self._ends, self.batches.__getitem__, positions[i : i + ROWS_PER_BATCH], joined_files)
            for i in range(0, len(positions), ROWS_PER_BATCH)
        )

    def where(self, is_wanted: Callable[[pa.BinaryArray], pa.BooleanArray]) -> FileList:
        """The files whose names are wanted; the function is given the names of many files at a time."""
        return FileList(regrouped((_kept(batch, is_wanted(batch["name"])) for batch in self.batches), joined_files))

    def outside(self, folder: str) -> FileList:
        """The files that are not below a folder."""
        begin = bytes_of(f"{folder.rstrip('/')}/")

        def is_outside(places: pa.DictionaryArray) -> pa.BooleanArray:
            return pc.invert(pc.starts_with(places.dictionary, begin)).take(places.indices)

        return FileList(regrouped((_kept(batch, is_outside(batch["folder"])) for batch in self.batches), joined_files))

    def named(self, *names: str) -> FileList:
        """The files of these names."""
        wanted = pa.array([bytes_of(name) for name in names], pa.binary())
        return self.where(lambda found: pc.is_in(found, value_set=wanted))

    def ending_in(self, *endings: str) -> FileList:
        """The files whose names end so, in capitals or not; endings are ASCII."""
        return self.where(lambda found: has_ending(found, *endings))

    def is_ordered(self) -> bool:
        """Whether no URL is smaller than the one before it."""
        last = b""
        for batch in self.batches:
            urls = url_column(batch)
            if last > urls[0].as_py() or pc.any(pc.greater(urls[:-1], urls[1:])).as_py():
                return False
            last = urls[-1].as_py()
        return True

    def ordered(self) -> FileList:
        """The files in the order of their URLs. Memory: another list, and the URLs if there are several folders."""
        if self.is_ordered():
            return self
        folders = {value for batch in self.batches for value in batch["folder"].dictionary[:2].to_pylist()}
        keys = pa.chunked_array(self.names() if len(folders) == 1 else map(url_column, self.batches))
        return self.take(pc.sort_indices(keys).to_numpy().astype(np.int64))

    def once(self) -> FileList:
        """The files of a list in order, each URL once."""
        new, last = [], None
        for url in self.urls():
            new.append(url != last)
            last = url
        return self.filter(np.array(new, dtype=bool))

    def position(self, url: str) -> int | None:
        """Where the file of a URL is in a list that is in order; None where it is not in it."""
        found = bisect_left(range(len(self)), url, key=lambda i: self[i].url)
        return found if found < len(self) and self[found].url == url else None


class FileListBuilder:
    """A `FileList` that is made bit by bit. Memory beside the list: `ROWS_PER_BATCH` files as objects."""

    def __init__(self) -> None:
        self._done: list[pa.RecordBatch] = []
        self._begin()

    def _begin(self) -> None:
        self._folders: dict[str, int] = {}
        self._places, self._sizes = array("i"), array("q")
        self._names: list[str] = []
        self._stamps: list[int | str] = []

    def add(self, folder: str, names: Sequence[str], n_bytes: Iterable[int], stamps: Iterable[int | str]) -> None:
        """Add files of one folder, which is given with its last slash. Stamps of local files are whole numbers."""
        place = self._folders.setdefault(folder, len(self._folders))
        self._names += names
        self._sizes.extend(n_bytes)
        self._stamps += stamps
        self._places.extend([place] * len(names))
        if len(self._names) >= ROWS_PER_BATCH:
            self._flush()

    def add_file(self, file: FileInfo) -> None:
        """Add one file."""
        folder, slash, name = file.url.rpartition("/")
        self.add(folder + slash, (name,), (file.n_bytes,), (file.stamp,))

    def add_list(self, files: FileList) -> None:
        """Add the files of a list."""
        if len(files):
            self._flush()
            self._done += files.batches

    def _flush(self) -> None:
        if self._names:
            folders = pa.DictionaryArray.from_arrays(
                pa.array(np.array(self._places, dtype=np.int32)), name_column(list(self._folders))
            )
            sizes = pa.array(np.array(self._sizes, dtype=np.int64))
            columns = [folders, name_column(self._names), sizes, stamp_column(self._stamps)]
            self._done.append(pa.RecordBatch.from_arrays(columns, ["folder", "name", "bytes", "stamp"]))
            self._begin()

    def finish(self) -> FileList:
        """The list of all that was added."""
        self._flush()
        return FileList(regrouped(self._done, joined_files))


def _kept(batch: pa.RecordBatch, mask: pa.BooleanArray) -> pa.RecordBatch:
    """The rows of a batch for which a mask is true; the batch itself where that is all."""
    return batch if mask.true_count == len(batch) else batch.filter(mask)


def _infos(batch: pa.RecordBatch) -> Iterator[FileInfo]:
    columns = url_texts(batch), batch["bytes"].to_pylist(), stamp_texts(batch["stamp"])
    return (FileInfo(*values) for values in zip(*columns, strict=True))


def _stream(batch: pa.RecordBatch) -> bytes:
    """A batch as a stream, which holds no more than its rows where it is a view."""
    file = io.BytesIO()
    with pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(joined_files([batch]))
    return file.getvalue()


def _from_streams(streams: Sequence[bytes]) -> FileList:
    return FileList(pa.ipc.open_stream(stream).read_next_batch() for stream in streams)
