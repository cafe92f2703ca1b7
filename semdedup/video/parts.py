"""The Parquet files of embeddings, or of tracks: which of them are written anew, and one of them written by a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.storage.location import Location
from semdedup.storage.tables import read_table, write_batches
from semdedup.video.records import with_columns
from semdedup.video.row_files import RowKind
from semdedup.video.tree import version_key
from semdedup.video.video_rows import VideoRows

ROWS_PER_GROUP = 1 << 13


def write_name(kind: RowKind) -> str:
    """What the part of a run is called that writes the files of a kind of rows."""
    return f"write {kind.name}"


@dataclass(frozen=True)
class Part:
    """A file that is written.

    Attributes:
        name: of it.
        videos: rows of the table of the videos in it, in order: what tells where the rows of each are. The ``part`` of
            the kind is the file where they are, and empty where they are in the scratch folder; ``clips`` are null
            there, and where they are not asked for.
    """

    name: str
    videos: pa.RecordBatch


@dataclass(frozen=True)
class Parts:
    """Where the files are and go.

    Attributes:
        kind: of their rows.
        old: folder of those that there are.
        scratch: of the run, with the rows of its videos.
        new: folder of those that are written.
        schema: of the rows.
    """

    kind: RowKind
    old: Location
    scratch: Location
    new: Location
    schema: pa.Schema

    def most_rows(self, new: VideoRows) -> int:
        """Rows of a file, by the length of the first new vector, or text."""
        with_rows = np.flatnonzero(new.numbers(self.kind.n_rows))
        if not len(with_rows):
            return 1 << 62
        column = self._rows(new[int(with_rows[0])])[self.kind.vector]
        if pa.types.is_string(column.type):
            return max(1, self.kind.part_bytes * len(column) // column.nbytes)
        vector = column.slice(0, 1).flatten()
        return max(1, self.kind.part_bytes // (len(vector) * vector.type.byte_width))

    def _rows(self, row: Mapping[str, Any]) -> pa.RecordBatch:
        return self.kind.read(self.scratch, version_key(row["video"], row["n_bytes"], row["stamp"]))

    def write(self, part: Part) -> int:
        """Write one file: videos of this run, and others from the files that it replaces. Gives the number of rows."""
        tables = []
        old: dict[str, list[str]] = {}
        by = self.kind.by
        for row in part.videos.to_pylist():
            if row[self.kind.part]:
                old.setdefault(row[self.kind.part], []).extend(row["clips"] if by == "id" else [row["video"]])
            else:
                tables.append(pa.Table.from_batches([self._rows(row)]))
        for earlier, wanted in old.items():
            table = with_columns(read_table(self.old / earlier), self.schema)
            tables.append(table.filter(pc.is_in(table[by], pa.array(wanted))))
        rows = pa.concat_tables(tables).sort_by([(key, "ascending") for key in self.kind.order])
        groups = (rows.slice(start, ROWS_PER_GROUP) for start in range(0, len(rows), ROWS_PER_GROUP))
        write_batches(self.new / part.name, self.schema, groups, self.kind.write_kwargs)
        return len(rows)


@dataclass(frozen=True)
class PartPlan:
    """Which files are written, and where the rows of each video will be.

    Attributes:
        kind: of the rows.
        parts: that are written.
        kept: names of those that stay.
        of_old: of each row of the table as it was, the number of the part that it will be in; -1: as it was.
        of_new: of each row of this run, the same.
    """

    kind: RowKind
    parts: list[Part]
    kept: list[str]
    of_old: np.ndarray
    of_new: np.ndarray

    @property
    def n_rows(self) -> int:
        """Rows of the parts that are written."""
        return sum(pc.sum(part.videos[self.kind.n_rows]).as_py() for part in self.parts)


def plan_parts(kind: RowKind, old: VideoRows, new: VideoRows, most: int) -> PartPlan:
    """Plan the Parquet files of rows of a kind.

    Files that are large and hold no video of the new ones stay; everything else is cut anew, by the number of rows.

    Args:
        kind: of the rows.
        old: the table of videos, as it was.
        new: rows of the videos of this run.
        most: rows of a file.
    """
    n_old, n_new = old.numbers(kind.n_rows), new.numbers(kind.n_rows)
    of_old, of_new = np.full(len(old), -1), np.full(len(new), -1)
    parts = pc.fill_null(old.column(kind.part), "").to_pylist()
    held: Counter[str] = Counter()
    for part, n_rows in zip(parts, n_old, strict=True):
        if n_rows:
            held[part] += int(n_rows)
    anew = old.positions(new.column("video"))
    anew = anew[anew >= 0]
    touched = {parts[position] for position in anew} & held.keys()
    if not n_new.any() and not touched:
        return PartPlan(kind, [], sorted(held), of_old, of_new)
    cut = touched | {part for part, n_rows in held.items() if n_rows < most / 2}
    is_cut = np.fromiter((part in cut for part in parts), dtype=bool, count=len(parts)) & (n_old > 0)
    is_cut[anew] = False
    from_old, from_new = np.flatnonzero(is_cut), np.flatnonzero(n_new)
    rows = VideoRows([*old.batches, *new.batches])
    positions = np.concatenate([from_old, len(old) + from_new])
    order = pc.sort_indices(rows.column("video").take(pa.array(positions))).to_numpy()
    starts, size = list[int](), most
    for i, n_rows in enumerate(np.concatenate([n_old[from_old], n_new[from_new]])[order].tolist()):
        if size + n_rows > most:
            starts.append(i)
            size = 0
        size += n_rows
    fresh = (f"part-{i:05d}.parquet" for i in range(len(held) + len(starts)))
    names = [*sorted(cut), *(name for name in fresh if name not in held)][: len(starts)]
    numbers = np.zeros(len(order), dtype=np.int64)
    numbers[order] = np.repeat(np.arange(len(starts)), np.diff([*starts, len(order)]))
    of_old[from_old], of_new[from_new] = np.split(numbers, [len(from_old)])
    ends = [*starts[1:], len(order)]
    written = [
        Part(name, _held(kind, rows.take(positions[order[start:end]])))
        for name, start, end in zip(names, starts, ends, strict=True)
    ]
    return PartPlan(kind, written, sorted(held.keys() - cut), of_old, of_new)


def _held(kind: RowKind, rows: VideoRows) -> pa.RecordBatch:
    """What tells where the rows of videos are."""
    (batch,) = rows.batches
    columns = {name: batch[name] for name in ("video", "n_bytes", "stamp", kind.n_rows, "clips", kind.part)}
    is_old = pc.and_(pc.not_equal(batch[kind.part], ""), kind.by == "id")
    columns["clips"] = pc.if_else(is_old, batch["clips"], pa.scalar(None, batch["clips"].type))
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
