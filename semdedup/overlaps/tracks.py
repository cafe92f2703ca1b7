"""The tracks of videos as `split` and `embed` write them, or anybody: which videos a file holds, and their vectors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash

from semdedup.display import one_line
from semdedup.errors import BadFileError, InputError
from semdedup.storage.chunks import write_chunks
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import FINGERPRINT, iter_rows, open_parquet
from semdedup.video.fingerprint import DIM, PER_SECOND

COLUMNS = {
    "video": (pa.types.is_string, "string"),
    "t_s": (pa.types.is_float64, "double"),
    "fingerprint": (pa.list_(pa.int8(), DIM).equals, f"fixed_size_list<int8>[{DIM}]"),
}
"""Columns of a track, with what tells their types, and what these are called."""

NEARLY_S = 1e-6
"""Moments that differ by no more are the same."""

FOUND_COLUMNS = pa.schema(
    {"file": pa.int32(), "video": pa.string(), "first": pa.int64(), "rows": pa.int64(), "digest": pa.uint64()}
)
"""What is found of each video: the number of its file, where its rows begin there, how many they are, their digest."""

FOUND_AT_A_TIME = 1 << 14


def check_columns(schema: pa.Schema, url: str) -> None:
    """Refuse a file whose columns are not those of tracks.

    Raises:
        BadFileError: a column is missing, there twice, or of another type.
    """
    needed = ", ".join(f"{name} ({words})" for name, (_, words) in COLUMNS.items())
    for name, (is_right, words) in COLUMNS.items():
        n = schema.names.count(name)
        if n != 1:
            raise BadFileError(
                f"the file {url} has {n or 'no'} column{'s' * (n > 1)} {name!r}; it has {schema.names}. "
                f"A file of tracks has {needed}"
            )
        if not is_right(plain_type(schema.field(name).type)):
            raise BadFileError(
                f"the column {name!r} of {url} is {schema.field(name).type}; {words} is needed. A file of tracks has "
                f"{needed}"
            )


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Text as ``string``, whichever of its types it has; a list without the name of its elements."""
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    if pa.types.is_fixed_size_list(kind):
        return pa.list_(kind.value_type, kind.list_size)
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


@dataclass(frozen=True)
class Scan:
    """What every task that looks at tracks needs to know: the storage of the input, and a folder to write to."""

    source: Location
    target: Location

    def place(self, number: int) -> Location:
        """What the task of this number has found."""
        return self.target / f"{number}.arrows"


def scan_files(task: Scan, item: tuple[int, Sequence[tuple[int, FileInfo]]]) -> dict[str, Any]:
    """Find the videos in some files, each with its number, and check every row; writes `FOUND_COLUMNS` in chunks.

    Memory: a batch of rows, and what was found.

    Returns:
        ``versions``: what the vectors are, as files say, each with one of these files.

    Raises:
        BadFileError: columns, types or moments are not those of tracks.
    """
    number, files = item
    versions: dict[str, str] = {}
    found = [each for position, file in files for each in videos_in(task.source.at(file.url), position, versions)]
    table = pa.Table.from_pylist(found, FOUND_COLUMNS)
    write_chunks(task.place(number), table.to_batches(FOUND_AT_A_TIME))
    return {"versions": versions}


def videos_in(file: Location, number: int, versions: dict[str, str]) -> Iterator[dict[str, Any]]:
    """The videos in a file of tracks, in order; the rows of each stand together. Notes what the vectors are."""
    track = _Track(file.url)
    with open_parquet(file) as parquet:
        check_columns(parquet.schema_arrow, file.url)
        version = (parquet.schema_arrow.metadata or {}).get(FINGERPRINT, b"").decode(errors="replace")
        versions.setdefault(version, file.url)
        start = 0
        for table in iter_rows(parquet, list(COLUMNS)):
            for video, rows, moments in _runs_in(table, file.url, start):
                if video != track.video and track.n_rows:
                    yield track.found(number)
                if video != track.video:
                    track = _Track(file.url, video, track.first + track.n_rows)
                track.add(rows, moments)
            start += len(table)
    if track.n_rows:
        yield track.found(number)


class _Track:
    """The rows of a video as they come."""

    def __init__(self, url: str, video: str | None = None, first: int = 0) -> None:
        self._url, self.video, self.first = url, video, first
        self.n_rows, self._digest = 0, xxhash.xxh3_64()

    def add(self, rows: np.ndarray, moments: np.ndarray) -> None:
        needed = (self.n_rows + np.arange(len(moments)) + 0.5) / PER_SECOND
        wrong = ~(np.abs(moments - needed) <= NEARLY_S)
        if wrong.any():
            at = int(np.argmax(wrong))
            raise BadFileError(
                f"row {self.n_rows + at:,} of the video {one_line(repr(self.video))} in {self._url} has t_s "
                f"{moments[at]:g}; {needed[at]:g} is needed: the rows of a video stand together, one each half second, "
                "from 0.25 on"
            )
        self.n_rows += len(rows)
        self._digest.update(np.ascontiguousarray(rows).data)

    def found(self, number: int) -> dict[str, Any]:
        return {"file": number, "video": self.video, "first": self.first, "rows": self.n_rows,
                "digest": self._digest.intdigest()}  # fmt: skip


def _runs_in(table: pa.Table, url: str, start: int) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Runs of rows of one video: its name, vectors (n, 64) int8, and moments (n,)."""
    for name in COLUMNS:
        if table[name].null_count:
            raise BadFileError(f"the column {name!r} of {url} is null in rows {start:,} to {start + len(table):,}")
    videos = table["video"].cast(pa.string()).combine_chunks()
    vectors, moments = vectors_of(table["fingerprint"], url), table["t_s"].to_numpy()
    changes = pc.not_equal(videos[1:], videos[:-1]).to_numpy(zero_copy_only=False)
    bounds = [0, *(np.flatnonzero(changes) + 1).tolist(), len(table)]
    for low, high in pairwise(bounds):
        yield videos[low].as_py(), vectors[low:high], moments[low:high]


def vectors_of(column: pa.ChunkedArray, url: str) -> np.ndarray:
    """A column of fingerprints as (n, 64) int8. Raises `BadFileError` where a number is null."""
    parts = [np.empty(0, np.int8)]
    for chunk in column.chunks:
        values = chunk.flatten()
        if values.null_count or chunk.null_count:
            raise BadFileError(f"the column 'fingerprint' of {url} holds nulls; every number of a vector is needed")
        parts.append(values.to_numpy())
    return np.concatenate(parts).reshape(-1, DIM)


def only_version(versions: Iterable[Mapping[str, str]]) -> str:
    """What all vectors are, by what files say, each with one of these; empty where they say nothing.

    Raises:
        InputError: they differ.
    """
    found = {version: url for each in versions for version, url in each.items()}
    if len(found) > 1:
        words = "; ".join(f"{url} has {version!r}" for version, url in sorted(found.items()))
        raise InputError(
            f"tracks of different fingerprints cannot be compared: {words}. Split the videos of one kind again, with "
            "the version that made the others"
        )
    return next(iter(found), "")


def read_vectors(file: Location, start: int, stop: int) -> np.ndarray:
    """The vectors of rows [start, stop) of a file, (n, 64) int8. Memory: these, and a batch as it is decoded."""
    vectors, n = np.empty((stop - start, DIM), np.int8), 0
    with open_parquet(file) as parquet:
        check_columns(parquet.schema_arrow, file.url)
        for table in iter_rows(parquet, ["fingerprint"], start, stop):
            vectors[n : n + len(table)] = vectors_of(table["fingerprint"], file.url)
            n += len(table)
    return vectors
