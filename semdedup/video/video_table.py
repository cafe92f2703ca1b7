"""The table of videos of an output folder: what became of each video, and which files of the folder are its own.

A later run goes by it: it processes videos that are new or have changed, those whose files are missing, and those that
failed for a reason of the moment.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.errors import BadFileError, OutputConflictError
from semdedup.runs.files import changed_files, check_names, refuse_foreign
from semdedup.runs.record import Record
from semdedup.storage.batches import regrouped
from semdedup.storage.file_list import FileList
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import read_batches
from semdedup.storage.written import Written
from semdedup.video.kinds import SPLIT, VIDEOS, Kind
from semdedup.video.own_changes import Sizes, changed_own_files, lost_captions
from semdedup.video.own_files import COLUMN, names_of
from semdedup.video.records import FILES, VideoFile
from semdedup.video.tree import (
    ANNOTATION_VERSION,
    CHUNK_RECORDS,
    CLIPS,
    METAS,
    PREVIEWS,
    VIDEO_RECORDS,
)
from semdedup.video.video_rows import ROWS, VideoRows, with_nulls
from semdedup.video.worker import PLACING

PLACES = (CLIPS, PREVIEWS, f"{METAS}/{ANNOTATION_VERSION}", VIDEO_RECORDS, CHUNK_RECORDS)
"""Folders of the files that are a video's own."""


AT_A_TIME = 1 << 16


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
        kind: of the step, before it is known what the folder has.
        token: of the run that owns the folder; None: it is only read.

    Attributes:
        kind: as it is in this folder, see `Kind.on`.
        rows: what became of each video, in the order of their names.
    """

    def __init__(self, root: Location, kind: Kind, token: str | None = None) -> None:
        self.root, self._asked = root, kind
        self.record = Record(root, token)
        self.rows, self._has_files = VideoRows(), False
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
        self.rows, self._has_files = VideoRows(), False
        self.kind = self._asked.on(self.record)
        place = self.root / self.kind.table
        if self.entry is None or not place.exists():
            return
        written = self.entry.get("files", {}).get(self.kind.table, Written(-1, ""))
        if self.status == "committed" and written.n_bytes not in (-1, place.info().n_bytes):
            return
        with contextlib.suppress(BadFileError, pa.ArrowInvalid, pa.ArrowNotImplementedError):
            columns = self.kind.columns
            batches = read_batches(place, columns.names, ROWS)
            rows = VideoRows(regrouped(with_nulls(batch, columns) for batch in batches))
            n_files = sum(len(batch) for batch in read_batches(place, [COLUMN], ROWS) if batch.num_columns)
            self.rows, self._has_files = rows, len(rows) == n_files

    def files(self) -> Iterator[pa.ListArray]:
        """The files of each video that are its own, `FILES`, a batch of videos at a time, in their order."""
        if self._has_files:
            for batch in read_batches(self.root / self.kind.table, [COLUMN], ROWS):
                yield batch.column(0)
        else:
            yield pa.nulls(len(self.rows), FILES)

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
        folders = dict.fromkeys(self._asked.on(self.record, anew=True).rows, ".parquet")
        folders |= {CLIPS: ".mp4"} if self.kind.owns_clips else {}
        start = len(self.root.url.rstrip("/")) + 1
        for folder, ending in folders.items():
            files = (self.root / folder).files().where(partial(pc.ends_with, pattern=ending))
            foreign = [url[start:] for url in files.urls() if url[start:] not in ours]
            if foreign:
                wrote = f"that the step '{self.kind.step}' has not written{self._who_wrote(folder)}"
                refuse_foreign(self.root / folder, foreign, wrote)

    def _who_wrote(self, folder: str) -> str:
        """What to say of a folder that another step on record has written to; nothing where none has."""
        for name, entry in self.record.steps.items():
            if any(file.startswith(f"{folder}/") for file in entry.get("files", ())):
                return (
                    f", but '{name}' (embedders that are given together stay together: give the same again, or leave "
                    "out those that are there)"
                )
        return ""

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
        rows, tried_again = self.rows, self.rows.tried_again()
        n_bytes = rows.numbers("n_bytes")
        stamps, lost = rows.column("stamp").to_pylist(), self._lost(changed)
        todo = []
        positions = rows.positions(pa.array([file.relative_path for file in files], pa.string())).tolist()
        for file, row in zip(files, positions, strict=True):
            if (
                row < 0
                or (n_bytes[row], stamps[row]) != (file.n_bytes, file.stamp)
                or tried_again[row]
                or file.relative_path in own
                or lost[row]
            ):
                todo.append(replace(file, known=row >= 0))
        return Missing(todo, faults, changed)

    def _lost(self, changed: frozenset[str]) -> np.ndarray:
        """Which videos have rows in files that have changed, (n,) bool."""
        lost = np.zeros(len(self.rows), dtype=bool)
        for folder, kind in self.kind.rows.items() if changed else ():
            parts = pc.fill_null(self.rows.column(kind.part), "").to_pylist()
            is_in = np.fromiter((f"{folder}/{part}" in changed for part in parts), dtype=bool, count=len(parts))
            lost |= is_in & (self.rows.numbers(kind.n_rows) > 0)
        return lost

    def changed(
        self, verify: bool = False, listed: Mapping[str, Iterable[FileInfo]] | None = None
    ) -> dict[str, list[str]]:
        """What is wrong with the files of videos, by video; see `changed_own_files`.

        Args:
            verify: compare the checksums of files, too, and look at all metadata.
            listed: the files of some of the `PLACES`, where only these are asked for. Metadata are not looked at then:
                who asks reads them.
        """
        if not self.rows or not self._has_files:
            return {}
        if self.kind.captions and not self.kind.owns_clips:
            metas = Sizes(self.root, [(self.root / METAS / ANNOTATION_VERSION).files()])
            name = self.kind.captions.removesuffix("_parquet")
            return lost_captions(self.root, self._videos_with_files(), metas, name, verify)
        if not self.kind.owns_clips:
            return {}
        places = PLACES if listed is None else tuple(listed)
        lists = ((self.root / place).files() if listed is None else FileList.of(listed[place]) for place in places)
        there = Sizes(self.root, lists)  # one listing at a time
        return changed_own_files(self.root, self._videos_with_files(), there, places, verify, listed is None)

    def _videos_with_files(self) -> Iterator[tuple[list[str], pa.ListArray]]:
        videos, start = self.rows.column("video"), 0
        for column in self.files():
            yield videos.slice(start, len(column)).to_pylist(), column
            start += len(column)

    def placed(self) -> Placed:
        """What runs which were killed began to put in place."""
        videos, clips = _Texts(), _Texts()
        for name in (self.entry or {}).get("temporary") or ():
            folder = self.root.below(name) / PLACING
            for _, content in folder.read_all(folder.files()):
                with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off by a power cut: not yet in place
                    value = json.loads(content)
                    clips.add(value["clips"])
                    videos.add([value["video"]])
        return Placed(videos.column(), clips.column())

    def names(self) -> list[str]:
        """Files of clips and videos that this step has put in place; those on record are not among them."""
        if self.entry is None or not self.kind.owns_clips:
            return []
        placed = self.placed()
        clips = pc.unique(pa.chunked_array([*self._clips(), *placed.clips.chunks], pa.string()))
        videos = pc.unique(pa.chunked_array([*self.rows.column("video").chunks, *placed.videos.chunks], pa.string()))
        return names_of(clips.to_pylist(), videos.to_pylist())

    def _clips(self) -> Iterator[pa.StringArray]:
        return (batch["clips"].flatten() for batch in self.rows.batches)

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


class Placed(NamedTuple):
    """Videos of which a run put files in place, and their clips in whatever version; both as columns of text."""

    videos: pa.ChunkedArray
    clips: pa.ChunkedArray


class _Texts:
    """A column of text that is made bit by bit."""

    def __init__(self) -> None:
        self._done: list[pa.StringArray] = []
        self._held: list[str] = []

    def add(self, texts: Sequence[str]) -> None:
        pa.array(texts, pa.string())  # raises an error for what is no text
        self._held += texts
        if len(self._held) >= AT_A_TIME:
            self._done.append(pa.array(self._held, pa.string()))
            self._held = []

    def column(self) -> pa.ChunkedArray:
        return pa.chunked_array([*self._done, pa.array(self._held, pa.string())])


def stamped_by_split(root: Location, files: Sequence[VideoFile]) -> Sequence[VideoFile]:
    """Clips that a split wrote to this folder are known by their checksums, wherever and whenever they were copied."""
    stamped, known = list(files), {file.url: i for i, file in enumerate(files)}
    for url, (n_bytes, checksum) in files_of_split(root):
        if (i := known.get(url)) is not None and stamped[i].n_bytes == n_bytes:
            stamped[i] = replace(stamped[i], stamp=checksum)
    return stamped


def files_of_split(root: Location) -> Iterator[tuple[str, Written]]:
    """What the table of a split in this folder, if there is one, names as the videos' own, by URL."""
    with contextlib.suppress(BadFileError, OutputConflictError):  # then they are files like others
        if not (root / VIDEOS).exists():
            return
        entry = Record(root).steps.get(SPLIT)
        if entry is None or entry["status"] == "clearing":
            return
        for batch in read_batches(root / VIDEOS, [COLUMN], ROWS):
            for file in batch.column(0).flatten().to_pylist() if batch.num_columns else ():
                yield f"{root.url.rstrip('/')}/{file['name']}", Written(file["bytes"], file["checksum"])
