"""The videos of an input and their ranks: those of a base first, then by pixels, bitrate, duration and path."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.display import one_line
from semdedup.errors import BadFileError, InputError, ParameterError
from semdedup.overlaps.names import VIDEO_COLUMNS
from semdedup.storage.batches import ROWS_PER_BATCH
from semdedup.storage.digests import AT_A_TIME, digests, repeated
from semdedup.storage.file_list import FileList
from semdedup.storage.location import Location
from semdedup.storage.tables import open_parquet, read_batches

NUMBERS = {"width": pa.int64(), "height": pa.int64(), "bitrate": pa.int64(), "duration_s": pa.float64()}
"""Columns of a table of videos by which they are ranked; one that is missing, or null, is not known."""

EXAMPLES = 3


@dataclass(frozen=True)
class Videos:
    """Videos with a track, in the order of the files and of their rows.

    Attributes:
        names: ``string``, chunked.
        file: number of the file of each, (v,) int32.
        first: where its rows begin there, (v,) int64.
        rows: how many they are, (v,) int64.
        digest: of its fingerprints, (v,) uint64.

    Memory: 28 bytes a video, and its name.
    """

    names: pa.ChunkedArray
    file: np.ndarray
    first: np.ndarray
    rows: np.ndarray
    digest: np.ndarray

    @classmethod
    def of(cls, batches: Iterable[pa.RecordBatch]) -> Videos:
        """From batches of `tracks.FOUND_COLUMNS`."""
        every = list(batches)

        def column(name: str, kind: type) -> np.ndarray:
            return np.concatenate([np.empty(0, kind), *(batch[name].to_numpy() for batch in every)])

        names = pa.chunked_array([batch["video"] for batch in every], pa.string())
        return cls(
            names,
            column("file", np.int32),
            column("first", np.int64),
            column("rows", np.int64),
            column("digest", np.uint64),
        )

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class Places:
    """Where each of some names is among others, by digests. Memory: 24 bytes a name."""

    ascending: np.ndarray
    order: np.ndarray

    @classmethod
    def of(cls, found: np.ndarray) -> Places:
        """Of digests, (v,) S16, which differ."""
        order = np.argsort(found, kind="stable")
        return cls(found[order], order)

    def find(self, found: np.ndarray) -> np.ndarray:
        """The position of each of other digests, (n,) int64; -1 for those that are not there."""
        places = np.full(len(found), -1, dtype=np.int64)
        for start in range(0, len(found) if len(self.order) else 0, AT_A_TIME):
            some = found[start : start + AT_A_TIME]
            at = np.minimum(np.searchsorted(self.ascending, some), len(self.order) - 1)
            places[start : start + AT_A_TIME] = np.where(self.ascending[at] == some, self.order[at], -1)
        return places


def digests_of(names: pa.ChunkedArray) -> np.ndarray:
    """The digests of names, (v,) S16; some of them are objects at a time."""
    pieces = (
        digests(chunk[start : start + ROWS_PER_BATCH].to_pylist())
        for chunk in names.chunks
        for start in range(0, len(chunk), ROWS_PER_BATCH)
    )
    return np.concatenate([np.empty(0, "S16"), *pieces])


def check_once(videos: Videos, found: np.ndarray, files: FileList) -> None:
    """Raise `BadFileError` where the rows of a video do not stand together, or in several files; by its digests."""
    again, first = repeated(found)
    if len(again):
        earliest = int(np.argmin(again))
        at, other = int(again[earliest]), int(first[earliest])

        def place(i: int) -> str:
            return f"row {videos.first[i]:,} of {files[int(videos.file[i])].url}"

        raise BadFileError(
            f"{len(again):,} videos have rows in more than one place, {one_line(repr(videos.names[at].as_py()))} from "
            f"{place(other)} and again from {place(at)}. The rows of a video must stand together, in one file"
        )


def read_numbers(root: Location, tables: FileList, places: Places) -> pa.Table | None:
    """What the tables of videos tell of those at `places`: `NUMBERS`, null where nothing does; None without a table.

    Memory: 40 bytes a video, and a batch of the table.
    """
    if not tables:
        return None
    n = len(places.order)
    known = {name: np.zeros(n, dtype=bool) for name in NUMBERS}
    values = {name: np.zeros(n, dtype=kind.to_pandas_dtype()) for name, kind in NUMBERS.items()}
    for file in reversed(tables):  # the first one that knows a video wins
        for batch in _batches(root.at(file.url)):
            at = places.find(digests(batch["video"].to_pylist()))
            for name, kind in NUMBERS.items():
                if name in batch.schema.names:
                    column = batch[name].cast(kind)
                    wanted = (at >= 0) & column.is_valid().to_numpy(zero_copy_only=False)
                    values[name][at[wanted]] = column.to_numpy(zero_copy_only=False)[wanted]
                    known[name][at[wanted]] = True
    columns = {name: pa.array(values[name], kind, mask=~known[name]) for name, kind in NUMBERS.items()}
    return pa.table(columns)


def _batches(file: Location) -> Iterator[pa.RecordBatch]:
    with open_parquet(file) as parquet:
        schema = parquet.schema_arrow
    columns = ["video", *NUMBERS]
    right = {"video": pa.types.is_string, **dict.fromkeys(NUMBERS, lambda kind: _is_number(kind))}
    wrong = [name for name in columns if name in schema.names and not right[name](schema.field(name).type)]
    if wrong or "video" not in schema.names:
        raise BadFileError(
            f"the table of videos {file.url} cannot be used to rank them: "
            + (f"its column {wrong[0]!r} is {schema.field(wrong[0]).type}" if wrong else "it has no column 'video'")
            + f"; needed are video (string) and {', '.join(NUMBERS)} (numbers)"
        )
    return read_batches(file, columns, ROWS_PER_BATCH)


def _is_number(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_null(kind)


def rank_order(names: pa.ChunkedArray, numbers: pa.Table | None, base: np.ndarray) -> np.ndarray:
    """Positions of videos, best first, (v,) int64.

    Most pixels first, then the highest bitrate, then the longest duration; what is not known comes last, and ties go by
    the path.

    Args:
        names: paths.
        numbers: `NUMBERS` of each; None where nothing is known: then by path alone.
        base: rank of each in the base, (v,) int64; -1 for those that are not in there, which follow.
    """
    columns = {"base": pa.array(np.where(base < 0, np.iinfo(np.int64).max, base))}
    keys = [("base", "ascending")]
    if numbers is not None:
        columns["pixels"] = pc.multiply(numbers["width"], numbers["height"])
        columns |= {name: numbers[name] for name in ("bitrate", "duration_s")}
        keys += [(name, "descending") for name in ("pixels", "bitrate", "duration_s")]
    table = pa.table({**columns, "video": names})
    order: np.ndarray = pc.sort_indices(table, [*keys, ("video", "ascending")]).to_numpy()
    return order.astype(np.int64)


@dataclass(frozen=True)
class Earlier:
    """The videos of a base in the order of their ranks: names, rows, and digests of their tracks."""

    names: pa.ChunkedArray
    rows: np.ndarray
    digest: np.ndarray


def read_earlier(files: Sequence[Location]) -> Earlier:
    """The videos of a base."""
    batches = [batch for file in files for batch in read_batches(file, VIDEO_COLUMNS.names, ROWS_PER_BATCH)]
    table = pa.Table.from_batches(batches, VIDEO_COLUMNS)
    return Earlier(table["video"], table["rows"].to_numpy(), table["digest"].to_numpy())


def ranks_in_base(videos: Videos, places: Places, earlier: Earlier, base: Location) -> np.ndarray:
    """The rank of each video in a base, (v,) int64; -1 for those that are new.

    Raises:
        InputError: a video has another track than it had there.
        ParameterError: none of the videos of the base is here.
    """
    at = places.find(digests_of(earlier.names))
    there = np.flatnonzero(at >= 0)
    if len(earlier.rows) and not len(there):
        raise ParameterError(
            f"base: none of the {len(earlier.rows):,} videos of {base} is among those given. A base is an earlier "
            "output for the same folder, which has grown since"
        )
    found = at[there]
    changed = there[(videos.rows[found] != earlier.rows[there]) | (videos.digest[found] != earlier.digest[there])]
    if len(changed):
        names = ", ".join(one_line(earlier.names[int(i)].as_py()) for i in changed[:EXAMPLES])
        raise InputError(
            f"base: {len(changed):,} videos were changed since they were compared in {base}: {names}. Compare all "
            "videos anew, without a base"
        )
    ranks = np.full(len(videos), -1, dtype=np.int64)
    ranks[found] = there
    return ranks
