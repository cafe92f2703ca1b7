"""The table of videos of an output folder: what became of each video, and which files of the folder are its own.

A later run goes by it: it processes videos that are new or have changed, those whose files are missing, and those that
failed for a reason of the moment.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from semdedup.errors import BadFileError, OutputConflictError
from semdedup.runs.files import changed_files, check_names, refuse_foreign
from semdedup.runs.record import Record
from semdedup.storage.location import READ_AHEAD, REQUESTS_IN_FLIGHT, FileInfo, Location
from semdedup.storage.tables import read_table, write_table
from semdedup.storage.written import Written, checksum_of
from semdedup.video.quarantine import is_tried_again
from semdedup.video.records import FILES, VIDEO_COLUMNS, VideoFile
from semdedup.video.tree import (
    ANNOTATION_VERSION,
    CHUNK_RECORDS,
    CLIPS,
    METAS,
    PREVIEWS,
    QUARANTINE,
    SUMMARY,
    VIDEO_RECORDS,
    files_of_clip,
    meta_of_clip,
    records_of_video,
)
from semdedup.video.worker import PLACING

SPLIT, VIDEOS = "split", "_videos.parquet"
COLUMN = "files"
PLACES = (CLIPS, PREVIEWS, f"{METAS}/{ANNOTATION_VERSION}", VIDEO_RECORDS, CHUNK_RECORDS)
"""Folders of the files that are a video's own."""


OwnFile = tuple[str, int, str]
"""Name, bytes and checksum of a file: a value of the column `files`."""


@dataclass(frozen=True)
class Kind:
    """What distinguishes `split` from `embed`.

    Attributes:
        step: name in the record.
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

    @property
    def clip_quarantine(self) -> str:
        """The table of clips in quarantine."""
        return f"{QUARANTINE}/{'' if self.owns_clips else f'{self.folder}_'}clips.parquet"

    @property
    def written(self) -> Mapping[str, re.Pattern[str]]:
        """What the names of the files of the step look like: a record or a table that names others is not believed."""
        names = [re.escape(name) for name in (self.table, self.quarantine, self.clip_quarantine)]
        if self.owns_clips:
            names += [r"[^/]+_embd_parquet/part-\d+\.parquet", re.escape(SUMMARY)]
            names += [rf"{CLIPS}/[^/]+\.mp4", rf"{PREVIEWS}/[^/]+\.webp", rf"{METAS}/{ANNOTATION_VERSION}/[^/]+\.json"]
            names += [rf"{VIDEO_RECORDS}/.+\.json", rf"{CHUNK_RECORDS}/.+_0\.json"]
        else:
            names.append(rf"{re.escape(self.folder)}/part-\d+\.parquet")
        return {self.step: re.compile("|".join(names), re.DOTALL)}


def split_kind(folder: str) -> Kind:
    """Clips and, if there is a folder for them, embeddings."""
    return Kind(SPLIT, VIDEOS, f"{QUARANTINE}/videos.parquet", folder, True)


def embed_kind(folder: str) -> Kind:
    """Embeddings of clips that exist."""
    return Kind(f"embed {folder}", f"_{folder}_clips.parquet", f"{QUARANTINE}/{folder}.parquet", folder, False)


@dataclass(frozen=True)
class Missing:
    """What a folder lacks.

    Attributes:
        videos: that are to be processed.
        faults: what is wrong with files that were complete, a line each.
        files: names of files of the step, not of a video, that are missing or have changed.
    """

    videos: Sequence[VideoFile]
    faults: Sequence[str] = ()
    files: frozenset[str] = frozenset()


class VideoTable:
    """The table of videos of a folder, beside the record of the step that it belongs to.

    Args:
        root: the folder.
        kind: of the step.
        token: of the run that owns the folder; None: it is only read.

    Attributes:
        rows: what became of each video, by its name.
    """

    def __init__(self, root: Location, kind: Kind, token: str | None = None) -> None:
        self.root, self.kind = root, kind
        self.record = Record(root, token)
        self.rows: dict[str, dict[str, Any]] = {}
        self._files: pa.ListArray = pa.array([], FILES)
        self.read()

    @property
    def entry(self) -> Mapping[str, Any] | None:
        """The record of the step."""
        return self.record.steps.get(self.kind.step) or self.record.old.get(self.kind.step)

    @property
    def status(self) -> str | None:
        """``begun``, ``committed`` or ``clearing``; None where the step is not on record."""
        return None if self.entry is None else self.entry["status"]

    def read(self) -> None:
        """Read the table again. One that is damaged or has changed since it was committed tells of no videos."""
        self.rows, self._files = {}, pa.array([], FILES)
        place = self.root / self.kind.table
        if self.entry is None or not place.exists():
            return
        written = self.entry.get("files", {}).get(self.kind.table, Written(-1, ""))
        if self.status == "committed" and written.n_bytes not in (-1, place.info().n_bytes):
            return
        with contextlib.suppress(BadFileError):
            table = read_table(place)
            rows = table.select([name for name in VIDEO_COLUMNS.names if name in table.column_names]).to_pylist()
            self.rows = {row["video"]: row for row in rows}
            if COLUMN in table.column_names:
                self._files = pa.concat_arrays(table[COLUMN].chunks) if len(table) else self._files

    def check_foreign(self, clearing: bool = False) -> None:
        """Refuse a folder with clips or embeddings of somebody else, or of another step: they would be taken for ours.

        Args:
            clearing: whether what is ours is about to be deleted; otherwise a folder with a record is as it should be.

        Raises:
            OutputConflictError: naming some of the files.
        """
        if self.entry is not None and not clearing:
            return
        ours = {*self.names(), *(self.entry or {}).get("files", ())}
        folders = {self.kind.folder: ".parquet"} if self.kind.folder else {}
        folders |= {CLIPS: ".mp4"} if self.kind.owns_clips else {}
        for folder, ending in folders.items():
            names = [file.url[len(self.root.url) + 1 :] for file in (self.root / folder).files()]
            foreign = [name for name in names if name.endswith(ending) and name not in ours]
            refuse_foreign(self.root / folder, foreign, f"that the step '{self.kind.step}' has not written")

    def missing(self, files: Sequence[VideoFile], verify: bool = False) -> Missing:
        """Compare the input and the folder with the table.

        Args:
            files: videos of the input.
            verify: compare checksums of files, too.
        """
        if self.entry is None or self.status == "clearing":
            return Missing(list(files))
        recorded = {name: written for name, written in self.entry.get("files", {}).items() if written.n_bytes >= 0}
        faults = changed_files(self.root, recorded, verify)
        changed = frozenset(name for name in recorded if any(fault.startswith(f"{name} ") for fault in faults))
        own = self.changed(verify)
        faults += [f"{fault}, of {video}" for video, found in sorted(own.items()) for fault in found]
        todo = []
        for file in files:
            row = self.rows.get(file.relative_path)
            if (
                row is None
                or (row["n_bytes"], row["stamp"]) != (file.n_bytes, file.stamp)
                or is_tried_again(row)
                or file.relative_path in own
                or (row["n_rows"] and f"{self.kind.folder}/{row['part']}" in changed)
            ):
                todo.append(replace(file, known=row is not None))
        return Missing(todo, faults, changed)

    def changed(
        self, verify: bool = False, listed: Mapping[str, Iterable[FileInfo]] | None = None
    ) -> dict[str, list[str]]:
        """What is wrong with the files of videos, by video: missing, or changed since they were written.

        Others add to metadata, which have changed where they are no JSON object any more; those that have become
        smaller are looked at.

        Args:
            verify: compare the checksums of files, too, and look at all metadata.
            listed: the files of some of the `PLACES`, where only these are asked for. Metadata are not looked at then:
                who asks reads them.
        """
        if not self.kind.owns_clips or not self.rows or len(self._files) != len(self.rows):
            return {}
        places = listed or {place: (self.root / place).files() for place in PLACES}
        files, owners, videos = self._files.flatten(), pc.list_parent_indices(self._files), list(self.rows)
        begins = tuple(f"{place}/" for place in places)
        asked = pa.array([name.startswith(begins) for name in files.field("name").to_pylist()], pa.bool_())
        files, owners = files.filter(asked), owners.filter(asked)
        names, n_bytes = files.field("name"), files.field("bytes")
        start = len(self.root.url.rstrip("/")) + 1
        there = [(os.fsencode(file.url[start:]), file.n_bytes) for found in places.values() for file in found]
        value_set = pa.array([name for name, _ in there], pa.binary())  # of others there may be names that are no text
        positions = pc.index_in(names.cast(pa.binary()), value_set=value_set)
        found = pa.array([size for _, size in there], pa.int64()).take(positions)
        wrong: dict[str, list[str]] = {}

        def note(position: int, fault: str) -> None:
            wrong.setdefault(videos[owners[position].as_py()], []).append(f"{names[position].as_py()} {fault}")

        is_meta, same = pc.starts_with(names, f"{METAS}/"), pc.equal(found, n_bytes)
        for position in pc.indices_nonzero(pc.is_null(positions)).to_pylist():
            note(position, "is missing")
        for position in pc.indices_nonzero(pc.and_not(pc.invert(same), is_meta)).to_pylist():
            note(position, f"has {found[position].as_py():,} bytes instead of {n_bytes[position].as_py():,}")
        looked_at = pc.is_valid(found) if verify else pc.and_(pc.less(found, n_bytes), listed is None)
        for position in self._where(_is_no_meta, files, pc.and_(is_meta, looked_at)):
            note(position, "is damaged: it is no JSON object")
        if verify:
            for position in self._where(_has_other_content, files, pc.and_not(same, is_meta)):
                note(position, "has another content than was written")
        return wrong

    def _where(self, test: Callable[[Location, str], bool], files: pa.StructArray, asked: pa.BooleanArray) -> list[int]:
        """Positions of the files, of those asked for, of which a test of file and checksum is true."""
        positions = pc.indices_nonzero(asked).to_pylist()

        def is_true(position: int) -> bool:
            file = files[position].as_py()
            return test(self.root.below(file["name"]), file["checksum"])

        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
            return [p for p, true in zip(positions, pool.map(is_true, positions), strict=True) if true]

    def placed(self) -> dict[str, list[str]]:
        """Videos that runs which were killed began to put in place, with the ids of clips in whatever version."""
        found: dict[str, list[str]] = {}
        for name in (self.entry or {}).get("temporary") or ():
            folder = self.root.below(name) / PLACING
            for _, content in folder.read_all(folder.files()):
                with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off by a power cut: not yet in place
                    value = json.loads(content)
                    found.setdefault(value["video"], []).extend(value["clips"])
        return found

    def names(self) -> list[str]:
        """Files of clips and videos that this step has put in place; those on record are not among them."""
        if self.entry is None or not self.kind.owns_clips:
            return []
        placed = self.placed()
        clips = {clip for row in self.rows.values() for clip in row["clips"]}.union(*placed.values())
        return names_of(clips, self.rows.keys() | placed.keys())

    def clear(self) -> None:
        """Delete what this step wrote and nothing else: by the table, by the record, and by what killed runs left."""
        if self.entry is not None:
            self.record.clear([self.kind.step], self.kind.written, {self.kind.step: self.names()})
        self.read()

    def checked(self, names: Iterable[str]) -> list[str]:
        """Names of files that are about to be deleted. Raises `OutputConflictError` for one that is none of ours."""
        found = sorted(names)
        check_names(self.root, {self.kind.step: found}, self.kind.written)
        return found

    def write(
        self, place: Location, rows: Mapping[str, Mapping[str, Any]], files: Mapping[str, Sequence[OwnFile]]
    ) -> None:
        """Write the table of these rows; `files` are those of the videos that have changed."""
        known, new = {video: i for i, video in enumerate(self.rows)}, {video: i for i, video in enumerate(files)}
        column = pa.concat_arrays([self._files, pa.array(list(files.values()), FILES)])
        positions = [len(self._files) + new[video] if video in new else known[video] for video in rows]
        table = pa.Table.from_pylist(list(rows.values()), schema=VIDEO_COLUMNS)
        write_table(place, table.append_column(COLUMN, column.take(pa.array(positions, pa.int64()))))


def _is_no_meta(file: Location, _checksum: str) -> bool:
    try:
        return not isinstance(file.read_json(), dict)
    except (ValueError, RecursionError):
        return True


def _has_other_content(file: Location, checksum: str) -> bool:
    with file.open(READ_AHEAD) as opened:
        return checksum_of(opened) != checksum


def names_of(clips: Iterable[str], videos: Iterable[str]) -> list[str]:
    """Names of all files that there may be of clips and videos."""
    names = [name for clip in sorted(clips) for name in (*files_of_clip(clip), meta_of_clip(clip))]
    return names + [name for video in sorted(videos) for name in records_of_video(video)]


def own_files(row: Mapping[str, Any], written: Mapping[str, Written]) -> list[OwnFile]:
    """Of what a task wrote, the files that are a video's own."""
    names = names_of(row["clips"], [row["video"]])
    return [(name, *written[name]) for name in names if name in written]


def stamped_by_split(root: Location, files: Sequence[VideoFile]) -> Iterator[VideoFile]:
    """Clips that a split wrote to this folder are known by their checksums, wherever and whenever they were copied."""
    known = files_of_split(root)
    for file in files:
        n_bytes, checksum = known.get(file.url, (-1, ""))
        yield replace(file, stamp=checksum) if n_bytes == file.n_bytes else file


def files_of_split(root: Location) -> dict[str, Written]:
    """By URL, what the table of a split in this folder, if there is one, names as the videos' own."""
    known: dict[str, Written] = {}
    place = root / VIDEOS
    if not place.exists():
        return known
    with contextlib.suppress(BadFileError, OutputConflictError):  # then they are files like others
        entry = Record(root).steps.get(SPLIT)
        table = read_table(place, [COLUMN] if entry is not None and entry["status"] != "clearing" else [])
        for batch in table.to_batches() if table.num_columns else ():
            for file in batch.column(0).flatten().to_pylist():
                known[f"{root.url.rstrip('/')}/{file['name']}"] = Written(file["bytes"], file["checksum"])
    return known
