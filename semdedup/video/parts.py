"""The Parquet files of the embeddings: which of them are written anew, and one of them written by a task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from semdedup.storage.location import Location
from semdedup.storage.tables import read_arrow_batch, read_table, write_batches
from semdedup.video.records import with_columns
from semdedup.video.tree import version_key
from semdedup.video.worker import ROW_FILES

PART_BYTES = 128 << 20
"""Embeddings in one Parquet file. A file of less than half is rewritten with what a later run adds."""

ROWS_PER_GROUP = 1 << 13

Row = Mapping[str, Any]
Part = tuple[str, list[Row]]
"""Name of a file, and the rows of the table of the videos in it, in order."""


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

    def most_rows(self, new: Sequence[Row]) -> int:
        """Rows of a file of `PART_BYTES`, by the length of the first new embedding."""
        if not new:
            return 1 << 62
        return max(1, PART_BYTES // (4 * len(self._rows(new[0]).column("embedding")[0])))

    def _rows(self, row: Row) -> pa.RecordBatch:
        version = version_key(row["video"], row["n_bytes"], row["stamp"])
        return read_arrow_batch(self.scratch / ROW_FILES / f"{version}.arrow", 0)

    def write(self, part: Part) -> int:
        """Write one file: videos of this run, and others from the files that it replaces. Gives the number of rows."""
        name, videos = part
        tables = []
        old: dict[str, list[str]] = {}
        for row in videos:
            if row["part"]:
                old.setdefault(row["part"], []).extend(row["clips"])
            else:
                tables.append(pa.Table.from_batches([self._rows(row)]))
        for earlier, clips in old.items():  # by id: an embedded clip has the video that it was cut from there
            table = with_columns(read_table(self.old / earlier), self.schema)
            tables.append(table.filter(pc.is_in(table["id"], pa.array(clips))))
        rows = pa.concat_tables(tables).sort_by([(key, "ascending") for key in ("video", "start_s", "end_s", "id")])
        groups = (rows.slice(start, ROWS_PER_GROUP) for start in range(0, len(rows), ROWS_PER_GROUP))
        write_batches(self.new / name, self.schema, groups)
        return len(rows)


def plan_parts(rows: Mapping[str, Row], new: Mapping[str, Row], most: int) -> tuple[list[Part], list[str]]:
    """Which Parquet files are written, and the names of those that stay.

    Files that are large and hold no video of the new ones stay; everything else is cut anew, by the number of rows.

    Args:
        rows: of the table of videos, as it was.
        new: of the videos of this run.
        most: rows of a file.
    """
    by_part: dict[str, list[Row]] = {}
    for row in rows.values():
        if row["n_rows"]:
            by_part.setdefault(row["part"], []).append(row)
    added = [row for row in new.values() if row["n_rows"]]
    touched = {rows[name]["part"] for name in new if name in rows}
    if not added and not touched & by_part.keys():
        return [], sorted(by_part)
    small = {part for part, held in by_part.items() if sum(row["n_rows"] for row in held) < most / 2}
    cut = sorted(part for part in by_part if part in touched | small)
    kept = sorted(by_part.keys() - set(cut))
    old = [row for part in cut for row in by_part[part] if row["video"] not in new]
    groups: list[list[Row]] = []
    size = most
    for row in sorted([*old, *added], key=lambda row: row["video"]):
        if size + row["n_rows"] > most:
            groups.append([])
            size = 0
        groups[-1].append(row)
        size += row["n_rows"]
    fresh = (f"part-{i:05d}.parquet" for i in range(len(by_part) + len(groups)))
    names = [*cut, *(name for name in fresh if name not in by_part)]
    return list(zip(names, groups, strict=False)), kept
