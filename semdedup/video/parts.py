"""The Parquet files of the embeddings: which of them are written anew, and one of them written by a task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.storage.location import Location
from semdedup.storage.tables import read_arrow_batch, read_table, write_batches
from semdedup.video.records import with_columns
from semdedup.video.tree import version_key
from semdedup.video.video_rows import VideoRows
from semdedup.video.worker import ROW_FILES

PART_BYTES = 128 << 20
"""Embeddings in one Parquet file. A file of less than half is rewritten with what a later run adds."""

ROWS_PER_GROUP = 1 << 13

HELD = ("video", "n_bytes", "stamp", "n_rows", "clips", "part")
"""Columns of the table of videos that tell where the embeddings of each are."""


@dataclass(frozen=True)
class Part:
    """A file that is written.

    Attributes:
        name: of it.
        videos: rows of the table of the videos in it, in order: `HELD`. Their ``part`` is the file where their
            embeddings are, and empty where those are in the scratch folder; ``clips`` are null there.
    """

    name: str
    videos: pa.RecordBatch


@dataclass(frozen=True)
class Parts:
    """Where the files are and go.

    Attributes:
        old: folder of those that there are.
        scratch: of the run, with the embeddings of its videos.
        new: folder of those that are written.
        schema: of the embeddings.
    """

    old: Location
    scratch: Location
    new: Location
    schema: pa.Schema

    def most_rows(self, new: VideoRows) -> int:
        """Rows of a file of `PART_BYTES`, by the length of the first new embedding."""
        embedded = np.flatnonzero(new.numbers("n_rows"))
        if not len(embedded):
            return 1 << 62
        return max(1, PART_BYTES // (4 * len(self._rows(new[int(embedded[0])]).column("embedding")[0])))

    def _rows(self, row: Mapping[str, Any]) -> pa.RecordBatch:
        version = version_key(row["video"], row["n_bytes"], row["stamp"])
        return read_arrow_batch(self.scratch / ROW_FILES / f"{version}.arrow", 0)

    def write(self, part: Part) -> int:
        """Write one file: videos of this run, and others from the files that it replaces. Gives the number of rows."""
        tables = []
        old: dict[str, list[str]] = {}
        for row in part.videos.to_pylist():
            if row["part"]:
                old.setdefault(row["part"], []).extend(row["clips"])
            else:
                tables.append(pa.Table.from_batches([self._rows(row)]))
        for earlier, clips in old.items():  # by id: an embedded clip has the video that it was cut from there
            table = with_columns(read_table(self.old / earlier), self.schema)
            tables.append(table.filter(pc.is_in(table["id"], pa.array(clips))))
        rows = pa.concat_tables(tables).sort_by([(key, "ascending") for key in ("video", "start_s", "end_s", "id")])
        groups = (rows.slice(start, ROWS_PER_GROUP) for start in range(0, len(rows), ROWS_PER_GROUP))
        write_batches(self.new / part.name, self.schema, groups)
        return len(rows)


@dataclass(frozen=True)
class PartPlan:
    """Which files are written, and where the embeddings of each video will be.

    Attributes:
        parts: that are written.
        kept: names of those that stay.
        of_old: of each row of the table as it was, the number of the part that it will be in; -1: as it was.
        of_new: of each row of this run, the same.
    """

    parts: list[Part]
    kept: list[str]
    of_old: np.ndarray
    of_new: np.ndarray


def plan_parts(old: VideoRows, new: VideoRows, most: int) -> PartPlan:
    """Plan the Parquet files of the embeddings.

    Files that are large and hold no video of the new ones stay; everything else is cut anew, by the number of rows.

    Args:
        old: the table of videos, as it was.
        new: rows of the videos of this run.
        most: rows of a file.
    """
    n_old, n_new = old.numbers("n_rows"), new.numbers("n_rows")
    of_old, of_new = np.full(len(old), -1), np.full(len(new), -1)
    parts = pc.fill_null(old.column("part"), "").to_pylist()
    held: Counter[str] = Counter()
    for part, n_rows in zip(parts, n_old, strict=True):
        if n_rows:
            held[part] += int(n_rows)
    anew = old.positions(new.column("video"))
    anew = anew[anew >= 0]
    touched = {parts[position] for position in anew} & held.keys()
    if not n_new.any() and not touched:
        return PartPlan([], sorted(held), of_old, of_new)
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
        Part(name, _held(rows.take(positions[order[start:end]])))
        for name, start, end in zip(names, starts, ends, strict=True)
    ]
    return PartPlan(written, sorted(held.keys() - cut), of_old, of_new)


def _held(rows: VideoRows) -> pa.RecordBatch:
    (batch,) = rows.batches
    columns = {name: batch[name] for name in HELD}
    is_old = pc.not_equal(batch["part"], "")
    columns["clips"] = pc.if_else(is_old, batch["clips"], pa.scalar(None, batch["clips"].type))
    return pa.RecordBatch.from_arrays(list(columns.values()), list(columns))
