"""What stands in an output folder, and how a run becomes part of it: whole, or not at all.

The table of videos tells of every video that was looked at. A run notes what became of each of its videos in the
scratch folder; at its end the notes become rows of that table, and their embeddings rows of a few large Parquet files.
All new files are made in the scratch folder first. Once they are complete, that is put on record, and from there a run
that was killed is only ever taken forward.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from semdedup.compute.session import Session
from semdedup.errors import IntegrityError, OutputConflictError
from semdedup.runs.record import SCRATCH, Manifest
from semdedup.storage.location import REQUESTS_IN_FLIGHT, Location
from semdedup.storage.tables import read_arrow_batch, read_table, write_batches, write_table
from semdedup.video.records import VIDEO_COLUMNS, VideoFile, quarantine_table, summary, with_columns
from semdedup.video.tree import (
    ANNOTATION_VERSION,
    CHUNK_RECORDS,
    CLIPS,
    METAS,
    PREVIEWS,
    QUARANTINE,
    SUMMARY,
    VIDEO_RECORDS,
    file_key,
    record_name,
)
from semdedup.video.worker import NOTES, PLACING, ROW_FILES

PART_BYTES = 128 << 20
"""Embeddings in one Parquet file. A file of less than half is rewritten with what a later run adds."""

ROWS_PER_GROUP = 1 << 13
FINAL, ORDERS = "final", "commit.json"
"""In the scratch folder: the new files, as they will stand; and what is to be done with them, which is written last."""


@dataclass(frozen=True)
class Kind:
    """What distinguishes `split` from `embed`.

    Attributes:
        step: name in the manifest.
        table: the table of videos.
        quarantine: the table of videos in quarantine.
        folder: of the embeddings; empty where there are none.
        owns_clips: whether clips, metadata and records are this step's.
    """

    step: str
    table: str
    quarantine: str
    folder: str
    owns_clips: bool


def split_kind(folder: str) -> Kind:
    """Clips and, if there is a folder for them, embeddings."""
    return Kind("split", "_videos.parquet", f"{QUARANTINE}/videos.parquet", folder, True)


def embed_kind(folder: str) -> Kind:
    """Embeddings of clips that exist."""
    return Kind(f"embed {folder}", f"_{folder}_clips.parquet", f"{QUARANTINE}/{folder}.parquet", folder, False)


class Ledger:
    """The table of videos of a folder, and the step of the manifest that it belongs to."""

    def __init__(self, root: Location, kind: Kind) -> None:
        self.root, self.kind = root, kind
        self.manifest = Manifest(root)
        self.videos: dict[str, dict[str, Any]] = {}
        self._read()

    def _read(self) -> None:
        table = self.root / self.kind.table
        rows = read_table(table).to_pylist() if self.kind.step in self.manifest.steps and table.exists() else []
        self.videos = {row["video"]: row for row in rows}

    @property
    def record(self) -> Mapping[str, Any] | None:
        """Record of the step in the manifest: begun, committed, or being deleted by a run that was killed."""
        return self.manifest.steps.get(self.kind.step)

    @property
    def half_cleared(self) -> bool:
        """Whether a run was killed while it deleted this step: nothing that is left of it counts."""
        return self.record is not None and self.record["status"] == "clearing"

    def check_foreign(self, clearing: bool = False) -> None:
        """Refuse a folder with clips or embeddings of somebody else, or of another step: they would be taken for ours.

        Args:
            clearing: whether what is ours is about to be deleted; otherwise a folder with a record is as it should be.

        Raises:
            OutputConflictError: naming some of the files.
        """
        if self.record is not None and not clearing:
            return
        ours = {*self._names(), *(self.record or {}).get("files", ())}
        folders = {self.kind.folder: ".parquet"} if self.kind.folder else {}
        folders |= {CLIPS: ".mp4"} if self.kind.owns_clips else {}
        for folder, ending in folders.items():
            names = [file.url[len(self.root.url) + 1 :] for file in (self.root / folder).files()]
            foreign = [name for name in names if name.endswith(ending) and name not in ours]
            if foreign:
                raise OutputConflictError(
                    f"{self.root / folder} holds {len(foreign):,} files that the step '{self.kind.step}' has not "
                    f"written: {', '.join(foreign[:3])}. They are not deleted; move them away, or choose another "
                    "output path."
                )

    def missing(self, files: Sequence[VideoFile]) -> list[VideoFile]:
        """Videos that are new, or not what they were when they were looked at."""
        found = []
        videos = {} if self.half_cleared else self.videos
        for file in files:
            row = videos.get(file.relative_path)
            if row is None or (row["n_bytes"], row["stamp"]) != (file.n_bytes, file.stamp):
                known = row is not None
                found.append(VideoFile(file.relative_path, file.url, file.n_bytes, file.stamp, known))
        return found

    def begin(self, parameters: Mapping[str, Any], source: Mapping[str, Any]) -> Location:
        """Put the run on record; return its scratch folder, which may be that of a run that was killed."""
        step = self.kind.step
        scratch = f"{SCRATCH}/{step.split()[0]}-{uuid.uuid4().hex[:8]}"
        if self.half_cleared:
            self.clear()
        if self.record is None:
            self.manifest.remove_strays()
            self.manifest.begin(step, parameters, source, [scratch])
        elif self.manifest.committed(step):
            self.manifest.remove_strays()
            self.manifest.reopen(step, parameters, source, [scratch])
        return self.manifest.scratch(step)

    def notes(self, files: Sequence[VideoFile]) -> dict[str, dict[str, Any]]:
        """What a run that was killed noted of these videos as they are now."""
        stamps = {file.relative_path: (file.n_bytes, file.stamp) for file in files}
        folder = self.manifest.scratch(self.kind.step) / NOTES
        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
            notes = list(pool.map(lambda file: folder.at(file.url).read_json(), folder.files()))
        return {note["video"]: note for note in notes if stamps.get(note["video"]) == (note["n_bytes"], note["stamp"])}

    def commit(
        self, session: Session, notes: Mapping[str, Mapping[str, Any]], embedder: str, schema: pa.Schema
    ) -> None:
        """Make the notes of a run part of the folder; `schema` is that of the embeddings."""
        scratch = self.manifest.scratch(self.kind.step)
        (scratch / FINAL).remove_tree()  # of a run that was killed before it had everything
        before = dict(self.videos)
        parts, kept = self._plan_parts(notes, scratch)
        write = partial(_write_part, self.root, scratch, self.kind.folder, schema)
        sizes = session.run("write embeddings", write, parts, unit="files") if parts else ()
        n_rows = sum(rows for _, rows in sizes)
        if n_rows != sum(row["n_rows"] for _, videos in parts for row in videos):
            raise IntegrityError(f"{n_rows} embeddings were written, which is not what the videos gave")
        rows = {**self.videos, **{name: dict(note) for name, note in notes.items()}}
        for name, videos in parts:
            for row in videos:
                rows[row["video"]] = {**row, "part": name}
        self.videos = {name: rows[name] for name in sorted(rows)}
        files = self._write_tables(scratch / FINAL, embedder) + [
            f"{self.kind.folder}/{name}" for name in (*kept, *(name for name, _ in parts))
        ]
        had = (self.record or {}).get("files", [])
        placed = self._placed(scratch) if self.kind.owns_clips else {}
        records = {path for video in placed.keys() - self.videos.keys() for path in _records_of_video(video)}
        orders = {
            "files": sorted(files),
            "obsolete": sorted(records.union(had) - set(files)),
            "obsolete_clips": self._obsolete_clips(before, placed) if self.kind.owns_clips else [],
        }
        (scratch / ORDERS).write_json(orders)
        self.finish()

    def finish(self) -> bool:
        """Carry out what a run has ordered, this one or one that was killed. False where there are no orders."""
        if self.record is None or self.manifest.committed(self.kind.step) or self.half_cleared:
            return False
        step = self.kind.step
        scratch = self.manifest.scratch(step)
        if not (scratch / ORDERS).exists():
            return False
        orders = (scratch / ORDERS).read_json()
        self.manifest.announce(step, sorted({*orders["files"], *orders["obsolete"]}))
        (scratch / FINAL).move_into(self.root)
        clips = [path for clip in orders["obsolete_clips"] for path in _files_of_clip(clip)]
        self._remove([*orders["obsolete"], *clips])
        self._read()
        self.manifest.commit(step, orders["files"], self._facts())
        scratch.remove_tree()
        scratch.parent.remove_if_empty()
        return True

    def clear(self) -> None:
        """Delete what this step wrote and nothing else: by the table of videos, and by the notes of killed runs."""
        if self.record is None:
            return
        names = self._names()
        self.manifest.doom(self.kind.step)
        self._remove(names)
        self.manifest.clear([self.kind.step])
        self.videos = {}

    def _names(self) -> list[str]:
        """Files of clips and videos that this step has put in place; the manifest lists the others."""
        if self.record is None or not self.kind.owns_clips:
            return []
        clips = {clip for row in self.videos.values() for clip in row["clips"]}
        videos = set(self.videos)
        scratch = self.manifest.scratch(self.kind.step)
        for video, ids in self._placed(scratch).items():
            videos.add(video)
            clips.update(ids)
        videos |= {scratch.at(file.url).read_json()["video"] for file in (scratch / NOTES).files()}
        names = [path for clip in sorted(clips) for path in _files_of_clip(clip)]
        for video in sorted(videos):
            names += _records_of_video(video)
        return names

    def _remove(self, names: Sequence[str]) -> None:
        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
            list(pool.map(lambda name: (self.root / name).remove(), names))
        folders = {name.rsplit("/", depth)[0] for name in names for depth in range(1, name.count("/") + 1)}
        for folder in sorted(folders, key=len, reverse=True):
            (self.root / folder).remove_if_empty()

    def _placed(self, scratch: Location) -> dict[str, list[str]]:
        """Videos that runs began to put in place, with the ids of their clips in whatever version it was."""
        placed: dict[str, list[str]] = {}
        for file in (scratch / PLACING).files():
            placing = scratch.at(file.url).read_json()
            placed.setdefault(placing["video"], []).extend(placing["clips"])
        return placed

    def _obsolete_clips(
        self, before: Mapping[str, Mapping[str, Any]], placed: Mapping[str, Sequence[str]]
    ) -> list[str]:
        """Clips of videos that have changed, or changed between a run that was killed and this one."""
        now = {clip for row in self.videos.values() for clip in row["clips"]}
        then = {clip for row in before.values() for clip in row["clips"]}
        return sorted(then.union(*placed.values()) - now)

    def _plan_parts(
        self, notes: Mapping[str, Mapping[str, Any]], scratch: Location
    ) -> tuple[list[tuple[str, list[dict[str, Any]]]], list[str]]:
        """Which Parquet files are written, with the videos of each in order; and the names of those that stay.

        Files that are large and hold no video of the notes stay; everything else is cut anew, by the number of rows.
        """
        by_part: dict[str, list[dict[str, Any]]] = {}
        for row in self.videos.values():
            if row["n_rows"]:
                by_part.setdefault(row["part"], []).append(row)
        new = [dict(note) for note in notes.values() if note["n_rows"]]
        most = self._rows_per_part(new, scratch)
        touched = {self.videos[name]["part"] for name in notes if name in self.videos}
        if not new and not touched & by_part.keys():
            return [], sorted(by_part)
        small = {part for part, rows in by_part.items() if sum(row["n_rows"] for row in rows) < most / 2}
        cut = sorted(part for part in by_part if part in touched | small)
        kept = sorted(by_part.keys() - set(cut))
        old = [row for part in cut for row in by_part[part] if row["video"] not in notes]
        groups: list[list[dict[str, Any]]] = []
        size = most
        for row in sorted([*old, *new], key=lambda row: row["video"]):
            if size + row["n_rows"] > most:
                groups.append([])
                size = 0
            groups[-1].append(row)
            size += row["n_rows"]
        fresh = (f"part-{i:05d}.parquet" for i in range(len(by_part) + len(groups)))
        names = [*cut, *(name for name in fresh if name not in by_part)]
        return list(zip(names, groups, strict=False)), kept

    def _rows_per_part(self, new: Sequence[Mapping[str, Any]], scratch: Location) -> int:
        if not new:
            return 1 << 62
        first = read_arrow_batch(scratch / ROW_FILES / f"{file_key(new[0]['video'])}.arrow", 0)
        return max(1, PART_BYTES // (4 * len(first.column("embedding")[0])))

    def _write_tables(self, final: Location, embedder: str) -> list[str]:
        videos = list(self.videos.values())
        write_table(final / self.kind.table, pa.Table.from_pylist(videos, schema=VIDEO_COLUMNS))
        names = [self.kind.table]
        quarantine = quarantine_table(videos)
        if len(quarantine):
            write_table(final / self.kind.quarantine, quarantine)
            names.append(self.kind.quarantine)
        if self.kind.owns_clips:
            (final / SUMMARY).write_json(summary(videos, embedder or None))
            names.append(SUMMARY)
        return names

    def _facts(self) -> dict[str, Any]:
        return summary(list(self.videos.values()), None)


def _files_of_clip(clip: str) -> list[str]:
    return [f"{CLIPS}/{clip}.mp4", f"{PREVIEWS}/{clip}.webp", f"{METAS}/{ANNOTATION_VERSION}/{clip}.json"]


def _records_of_video(video: str) -> list[str]:
    name = record_name(video)
    return [f"{VIDEO_RECORDS}/{name}.json", f"{CHUNK_RECORDS}/{name}_0.json"]


def _write_part(
    root: Location, scratch: Location, folder: str, schema: pa.Schema, part: tuple[str, list[dict[str, Any]]]
) -> int:
    """Write one Parquet file of embeddings: of videos of this run, and of others from the files that it replaces."""
    name, videos = part
    tables = []
    old: dict[str, list[str]] = {}
    for row in videos:
        if row["part"]:
            old.setdefault(row["part"], []).extend(row["clips"])
        else:
            batch = read_arrow_batch(scratch / ROW_FILES / f"{file_key(row['video'])}.arrow", 0)
            tables.append(pa.Table.from_batches([batch]))
    for earlier, clips in old.items():  # by id: a clip that is only embedded has the video that it was cut from there
        table = with_columns(read_table(root / folder / earlier), schema)
        tables.append(table.filter(pc.is_in(table["id"], pa.array(clips))))
    rows = pa.concat_tables(tables).sort_by([(key, "ascending") for key in ("video", "start_s", "end_s", "id")])
    groups = (rows.slice(start, ROWS_PER_GROUP) for start in range(0, len(rows), ROWS_PER_GROUP))
    write_batches(scratch / FINAL / folder / name, schema, groups)
    return len(rows)
