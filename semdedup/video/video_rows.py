"""Rows of the table of videos in columns: what became of each video, in some 370 bytes, and 40 a clip."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.storage.batches import ROWS_PER_BATCH, joined, taken
from semdedup.video.quarantine import OF_THE_MOMENT
from semdedup.video.records import QUARANTINE_COLUMNS, QUARANTINED, VIDEO_COLUMNS, type_of

Row = Mapping[str, Any]

ROWS, CLIPS = 1 << 10, 1 << 15
"""Most rows that are objects at a time, and most clips of them, but for one row with more."""


def rows_memory(n_videos: int, n_clips: int, name_bytes: float) -> int:
    """Bytes that `n_videos` with `n_clips` take in `VideoRows`.

    A row has nineteen numbers, offsets of fourteen texts and lists, a stamp and a status (of 19 and 4 bytes), and
    twice the name of the video, which is also the end of its URL; a clip has an id of 36 bytes and its offset. The 4
    bytes of each score that is measured of it are not counted.

    Args:
        n_videos: rows.
        n_clips: clips of all of them.
        name_bytes: of the name of a video, or its URL, on average.
    """
    return round(n_videos * (19 * 8 + 14 * 4 + 23 + 2 * name_bytes) + n_clips * 40)


class VideoRows(Sequence[dict[str, Any]]):
    """Rows of the table of videos, `VIDEO_COLUMNS` and those of several embedders: each is a dictionary when asked for.

    Attributes:
        batches: the columns.
    """

    def __init__(self, batches: Iterable[pa.RecordBatch] = ()) -> None:
        self.batches = tuple(batch for batch in batches if len(batch))
        self.ends = np.cumsum([0, *map(len, self.batches)])

    @classmethod
    def of(cls, rows: Iterable[Row], columns: pa.Schema = VIDEO_COLUMNS) -> VideoRows:
        """Those that dictionaries tell; what one lacks is null."""
        held = RowsHeld(columns)
        for row in rows:
            held.add(row)
        return held.rows()

    def __len__(self) -> int:
        return int(self.ends[-1])

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, index: slice) -> VideoRows: ...
    def __getitem__(self, index: int | slice) -> dict[str, Any] | VideoRows:
        positions = np.arange(len(self))[index]
        if isinstance(index, slice):
            return self.take(positions)
        return next(iter(self.take(np.array([positions]))))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        for batch in self.batches:
            for start in range(0, len(batch), ROWS):
                yield from batch.slice(start, ROWS).to_pylist()

    def column(self, name: str) -> pa.ChunkedArray:
        """A column, without a copy."""
        return pa.chunked_array([batch[name] for batch in self.batches], type_of(name))

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers, (n,); 0 where there is none."""
        return pc.fill_null(self.column(name), 0).to_numpy()

    def sum(self, name: str) -> int:
        """The sum of a column of whole numbers."""
        return int(pc.sum(self.column(name)).as_py() or 0)

    @property
    def n_clips(self) -> int:
        """Clips of all videos."""
        return int(sum(pc.sum(pc.list_value_length(batch["clips"])).as_py() or 0 for batch in self.batches))

    def filter(self, mask: np.ndarray) -> VideoRows:
        """The rows for which a mask, (n,) bool, is true."""
        parts = np.split(mask, self.ends[1:-1]) if self.batches else []
        return VideoRows(batch.filter(pa.array(part)) for batch, part in zip(self.batches, parts, strict=True))

    def where(self, name: str, value: str) -> VideoRows:
        """The rows that have this value in a column of text."""
        return self.filter(_flags(pc.equal(self.column(name), value)))

    def with_no(self, name: str) -> VideoRows:
        """The rows with a column of lists that are empty."""
        i, kind = VIDEO_COLUMNS.get_field_index(name), type_of(name)
        return VideoRows(batch.set_column(i, name, pa.array([[]] * len(batch), kind)) for batch in self.batches)

    def take(self, positions: np.ndarray) -> VideoRows:
        """The rows at these positions, in this order."""
        return VideoRows([taken(self.ends, self.batches.__getitem__, positions)] if len(positions) else ())

    def positions(self, videos: pa.Array | pa.ChunkedArray) -> np.ndarray:
        """Of each of these names of videos the position of its row, (n,) int64; -1 where there is none."""
        if not len(self):
            return np.full(len(videos), -1, dtype=np.int64)
        found = pc.index_in(videos, value_set=pa.concat_arrays(self.column("video").chunks))
        return pc.fill_null(found, -1).to_numpy().astype(np.int64)

    def tried_again(self) -> np.ndarray:
        """Which videos, or clips of them, failed by the moment, (n,) bool."""
        moment = pa.array(sorted(OF_THE_MOMENT))
        found = [np.zeros(0, dtype=bool)]
        for batch in self.batches:
            is_so = _flags(pc.is_in(batch["reason"], value_set=moment))
            reasons = batch["clip_faults"].flatten().field("reason")
            of = pc.list_parent_indices(batch["clip_faults"]).filter(pc.is_in(reasons, value_set=moment))
            is_so[of.to_numpy()] = True
            found.append(is_so)
        return np.concatenate(found)

    def clip_faults(self) -> Iterator[tuple[str, Mapping[str, str]]]:
        """Clips in quarantine: of each its video, and ``id``, ``reason`` and ``detail``."""
        for row in self.filter(self._holding("clip_faults")):
            yield from ((row["video"], fault) for fault in row["clip_faults"])

    def in_quarantine(self) -> VideoRows:
        """The rows of videos in quarantine, or of which clips are."""
        return self.filter(_flags(pc.equal(self.column("status"), QUARANTINED)) | self._holding("clip_faults"))

    def meta_faults(self) -> Iterator[str]:
        """What is wrong with metadata that could not be used."""
        for row in self.filter(self._holding("meta_faults")):
            yield from row["meta_faults"]

    def _holding(self, name: str) -> np.ndarray:
        return _flags(pc.greater(pc.list_value_length(self.column(name)), 0))


def quarantine_table(rows: VideoRows) -> pa.Table:
    """Videos in quarantine: a row each."""
    bad = rows.where("status", QUARANTINED)
    columns = [bad.column(name) for name in ("video", "reason", "url", "detail")]
    return pa.table(columns, schema=QUARANTINE_COLUMNS)


def clip_quarantine_table(rows: VideoRows) -> pa.Table:
    """Clips in quarantine: a row each."""
    return pa.Table.from_pylist([{**fault, "source": video} for video, fault in rows.clip_faults()], QUARANTINE_COLUMNS)


def with_nulls(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The columns of a schema; one that the batch does not have is null."""
    columns = [
        batch[field.name].cast(field.type) if field.name in batch.schema.names else pa.nulls(len(batch), field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


class RowsHeld:
    """`VideoRows` that are made bit by bit. Memory beside them: `ROWS` rows as objects."""

    def __init__(self, columns: pa.Schema = VIDEO_COLUMNS) -> None:
        self._columns = columns
        self._rows: list[Row] = []
        self._n_clips = 0
        self._small: list[pa.RecordBatch] = []
        self._large: list[pa.RecordBatch] = []

    def add(self, row: Row) -> None:
        """Add one; what it lacks is null."""
        self._rows.append(row)
        self._n_clips += len(row["clips"])
        if len(self._rows) == ROWS or self._n_clips >= CLIPS:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._small.append(pa.RecordBatch.from_pylist(self._rows, schema=self._columns))
            self._rows, self._n_clips = [], 0
        if sum(map(len, self._small)) >= ROWS_PER_BATCH:
            self._large.append(joined(self._small))
            self._small = []

    def rows(self) -> VideoRows:
        """All that were added."""
        self._flush()
        return VideoRows([*self._large, *self._small])


def _flags(column: pa.Array | pa.ChunkedArray) -> np.ndarray:
    """A column of truth values, (n,) bool; false where it is null."""
    return np.array(pc.fill_null(column, False).to_numpy(zero_copy_only=False), dtype=bool)
