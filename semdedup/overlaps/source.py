"""Where the input is: tracks, tables of videos that rank them, and the clips, in the output of `split` or `embed`."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa

from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.overlaps.names import STEP, VIDEOS
from semdedup.runs.identity import fingerprint_of
from semdedup.runs.lookup import check_recorded, known_files
from semdedup.runs.places import EMBEDDINGS_ENDING, find_part
from semdedup.runs.record import Record
from semdedup.runs.written_files import WrittenFiles
from semdedup.storage.file_list import FileList
from semdedup.storage.location import Location
from semdedup.storage.tables import open_parquet
from semdedup.video.kinds import SPLIT
from semdedup.video.kinds import VIDEOS as TABLE
from semdedup.video.tree import ANNOTATION_VERSION, CLIPS, FINGERPRINTS, METAS
from semdedup.video.video_table import files_of_split

EMBED_TABLE = "_clips.parquet"
SPAN_COLUMNS = ("id", "video", "start_s", "end_s")
"""Columns of the embeddings that tell which part of which video a clip is."""

FINGERPRINT_FACT = "fingerprint"
"""Fact of the step: what the vectors are, as the files of tracks say."""

OF_EMBEDDINGS, OF_METAS = "embeddings", "metas"


@dataclass(frozen=True)
class ClipFiles:
    """The files that tell of the clips: embeddings or metadata (`kind`), none where nothing does."""

    kind: str
    files: FileList
    name: str = ""


class Base(NamedTuple):
    """An earlier output: its videos, what identifies it, and what the vectors are that were compared."""

    root: Location
    videos: FileList
    commit: str
    version: str


@dataclass(frozen=True)
class Source:
    """What is read.

    Attributes:
        root: the output of `split` or `embed`.
        tracks: files of tracks.
        tables: of videos.
        clips: files that tell of the clips.
        base: an earlier output, if there is one.
    """

    root: Location
    tracks: FileList
    tables: FileList
    clips: ClipFiles
    base: Base | None = None

    def identity(self) -> dict[str, Any]:
        """What identifies all of it: files of ours by their checksums, others by size and stamp."""
        base = FileList() if self.base is None else self.base.videos
        roots = [self.root, *([] if self.base is None else [self.base.root])]
        metas = f"{(self.root / METAS).url}/"
        is_wanted = self.clips.kind == OF_METAS  # otherwise none of what the split names is among the files
        of_split = (file for file in files_of_split(self.root) if file[0].startswith(metas)) if is_wanted else ()
        known = WrittenFiles(itertools.chain(of_split, known_files(roots).items()))
        return fingerprint_of([self.tracks, self.tables, self.clips.files, base], known)


def find_source(path: Location, base: Location | None = None) -> Source:
    """List the input: the output of `split` or `embed`, its folder of clips or tracks, or the root of a run.

    Raises:
        InputError: no such path; no tracks; files on record are missing; the base is not complete.
    """
    root = _root_of(path)
    tracks = _parquet(root / FINGERPRINTS)
    if not tracks:
        raise InputError(f"no Parquet files in {root / FINGERPRINTS}: there are no tracks to compare")
    return Source(root, tracks, _tables(root), _clips(root), None if base is None else find_base(base))


def _root_of(path: Location) -> Location:
    if not path.is_dir():
        raise InputError(
            f"{path} is a file; give the folder that holds it" if path.exists() else f"no such path: {path}"
        )
    around = [path.parent] if path.name in (FINGERPRINTS, CLIPS) else []
    (clips,) = find_part(path, "clips")
    for place in (path, clips, *around):
        if (place / FINGERPRINTS).is_dir():
            return place
    for place in (path, clips):
        steps = _steps(place)
        if SPLIT in steps:
            raise InputError(
                f"{place} is the output of a split by an earlier version: it has no tracks (no folder {FINGERPRINTS}). "
                "Split again with this version: the same semdedup split with --overwrite, or to another folder."
            )
        if any(step.startswith("embed ") for step in steps):
            raise InputError(
                f"{place} holds embeddings, but no tracks (no folder {FINGERPRINTS}). Of clips that were cut by split, "
                "the tracks are in its output; otherwise embed again with this version: semdedup embed --overwrite."
            )
    raise InputError(
        f"no tracks in {path}: it has no folder {FINGERPRINTS}. Give the output folder of semdedup split or embed, or "
        "the root of a semdedup run."
    )


def _steps(root: Location) -> dict[str, dict[str, Any]]:
    """The steps on record in a folder; none where the record is of something else."""
    with contextlib.suppress(OutputConflictError):
        record = Record(root)
        return {**record.old, **record.steps}
    return {}


def _parquet(folder: Location, is_wanted: Callable[[str], bool] = lambda name: True) -> FileList:
    """The Parquet files right in a folder that our record names, or all where it has none; hidden ones are not data."""
    listed, start = folder.files(), len(folder.url) + 1

    def among(url: str) -> bool:
        name = url[start:]
        return url.endswith(".parquet") and "/" not in name and not name.startswith(("_", ".")) and is_wanted(name)

    ours = check_recorded(folder, listed, among)
    return FileList.of(file for file in listed if (file.url in ours if ours else among(file.url)))


def _tables(root: Location) -> FileList:
    """The table of videos of a split; else those of the clips that were embedded, which are videos themselves."""
    sizes = root.sizes()
    names = [TABLE] if TABLE in sizes else sorted(n for n in sizes if n.startswith("_") and n.endswith(EMBED_TABLE))
    return FileList.of((root / name).info() for name in names)


def _clips(root: Location) -> ClipFiles:
    """The embeddings that the split of a folder has made, else the first of all, else metadata of clips."""
    recorded = (name for name in _steps(root).get(SPLIT, {}).get("files", ()) if "/" in name)
    ours = sorted({folder for name in recorded if (folder := name.partition("/")[0]).endswith(EMBEDDINGS_ENDING)})
    others = sorted(name for name in root.folder_names() if name.endswith(EMBEDDINGS_ENDING))
    for folder in ours or others:
        files = _parquet(root / folder)
        if files and _has_spans(root.at(files[0].url)):
            return ClipFiles(OF_EMBEDDINGS, files, folder)
    place = root / METAS / ANNOTATION_VERSION
    metas = place.files().ending_in(".json") if place.is_dir() else FileList()
    return ClipFiles(OF_METAS, metas, f"{METAS}/{ANNOTATION_VERSION}") if metas else ClipFiles("", FileList())


def _has_spans(file: Location) -> bool:
    with open_parquet(file) as parquet:
        schema: pa.Schema = parquet.schema_arrow
    return all(name in schema.names for name in SPAN_COLUMNS)


def find_base(root: Location) -> Base:
    """An earlier output. Raises `InputError` where it is none, or not complete."""
    if not root.is_dir():
        raise InputError(f"base: no such path: {root}")
    record = Record(root)
    entry = record.committed(STEP)
    if entry is None:
        raise InputError(
            f"base: {root} holds no complete output of semdedup overlaps; run the command that makes it to its end"
        )
    if faults := record.changed(STEP):
        raise InputError(
            f"base: {len(faults)} files of {root} are not as they were written: {'; '.join(faults[:3])}. Run the "
            "command that made them again."
        )
    return Base(root, _parquet(root / VIDEOS), entry["commit"], entry["facts"][FINGERPRINT_FACT])


def check_version(version: str, base: Base) -> None:
    """Refuse a base that compared other vectors."""
    if version != base.version:
        raise InputError(
            f"base: {base.root} compared tracks of the fingerprint {base.version!r}, those given have {version!r}. "
            "Compare all videos anew, without a base"
        )


def check_output(output: Location, base: Location | None) -> None:
    """Refuse an output that is its own base."""
    if base is not None and base.url.rstrip("/") == output.url.rstrip("/"):
        raise ParameterError(f"base is the output path, {output}; what is compared with it goes to another folder")
