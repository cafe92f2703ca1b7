"""The clips of the input, with their metadata: the output of `split`, or any folder of MP4 files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa

from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.runs.lookup import check_recorded
from semdedup.runs.record import Record
from semdedup.storage.location import FileInfo, Location
from semdedup.video.clip_ids import BY_NAME, BY_PATH, file_id, of_one_name
from semdedup.video.containers import EXTENSIONS, OTHERS, ending_of
from semdedup.video.files import look_into, printable
from semdedup.video.quarantine import EMBED_ERROR
from semdedup.video.records import clip_faults
from semdedup.video.tree import ANNOTATION_VERSION, CLIPS, METAS
from semdedup.video.video_table import VideoTable, split_kind

MP4 = ".mp4"
EMBEDDINGS_SUFFIX = "_embd_parquet"


@dataclass(frozen=True)
class Inputs:
    """The files that a dataset is made from.

    Attributes:
        root: the folder that paths of clips are relative to.
        clips: the MP4 files.
        metas: metadata of clips, ``{id}.json`` each.
        embeddings: tables with ``id`` and ``embedding``.
        left_out: videos that are no MP4 files, or hidden: they are not in the dataset.
        metas_folder: where `metas` are.
        embeddings_folder: name of the folder of `embeddings`, or None.
        folder: the folder that holds the clips.
        id_scheme: what ids of clips are, as `embed` makes them.
        quarantined: clips that `split` has put into quarantine; they are not in the dataset.
    """

    root: Location
    clips: Sequence[FileInfo]
    metas: Sequence[FileInfo]
    embeddings: Sequence[FileInfo]
    left_out: int
    metas_folder: Location
    embeddings_folder: str | None
    folder: Location
    id_scheme: str
    quarantined: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes of all clips."""
        return sum(clip.n_bytes for clip in self.clips)

    def id_of(self, url: str) -> str:
        """The id of a clip, by its file."""
        return printable(file_id(self.id_scheme, url[len(self.folder.url.rstrip("/")) + 1 :]))


def find_inputs(
    path: Location, output: Location, version: str, with_embeddings: bool | str, compared: bool = False
) -> Inputs:
    """List the input. Of the output of `split`, the folder ``clips`` may be given as well; or the root of a run.

    Files below the output are left out; and where clips were `compared`, those that `split` could not embed: they may
    be duplicates, and are clips like others once a later run has embedded them.

    Raises:
        InputError: no such folder; no clips; files on record are missing; two clips of one id; no metadata of this
            version, though there is of others.
        ParameterError: embeddings are asked for, and there are none, or several.
    """
    root = path.parent if path.name == CLIPS and (path.parent / METAS).is_dir() else path
    if (root / CLIPS / METAS).is_dir() and not (root / METAS).is_dir():
        root = root / CLIPS
    folder = root / CLIPS if (root / CLIPS).is_dir() else root
    if not folder.is_dir():
        raise InputError(
            f"{path} is a file; give the folder that holds it" if path.exists() else f"no such path: {path}"
        )
    files = [file for file in folder.files() if not file.url.startswith(output.url.rstrip("/") + "/")]
    check_recorded(folder, files, lambda url: _is_visible(url) and url.lower().endswith(MP4))
    clips = [file for file in files if _is_visible(file.url) and file.url.lower().endswith(MP4)]
    videos = _videos(folder, files)
    left_out = len(videos) - len(clips)
    if not clips:
        raise InputError(
            f"no clips in {folder}: it holds {len(files):,} files, none of which is an {MP4} file"
            + f"; {left_out:,} are other videos" * bool(left_out)
        )
    metas_folder = root / METAS / version
    metas = [file for file in metas_folder.files() if file.url.endswith(".json")]
    check_recorded(metas_folder, metas, lambda url: url.endswith(".json"))
    failed = _check_split(root, {CLIPS: clips, f"{METAS}/{version}": metas})
    if not metas and (version != ANNOTATION_VERSION or (root / METAS).is_dir()):
        others = sorted({file.url[len((root / METAS).url) + 1 :].split("/")[0] for file in (root / METAS).files()})
        if others or version != ANNOTATION_VERSION:
            raise InputError(
                f"no metadata in {metas_folder}; versions there are: {', '.join(others) or 'none'}. Give one of them "
                "as annotation_version (--annotation-version)."
            )
    embeddings_folder, embeddings = _find_embeddings(root, with_embeddings)
    inputs = Inputs(
        root=root,
        clips=clips,
        metas=metas,
        embeddings=embeddings,
        left_out=left_out,
        metas_folder=metas_folder,
        embeddings_folder=embeddings_folder,
        folder=folder,
        id_scheme=_id_scheme(root, folder, videos),
    )
    _check_unique(inputs)
    if compared and failed:
        kept = [clip for clip in clips if inputs.id_of(clip.url) not in failed]
        inputs = replace(inputs, clips=kept, quarantined=len(clips) - len(kept))
    return inputs


def _id_scheme(root: Location, folder: Location, videos: Sequence[FileInfo]) -> str:
    """What `embed` takes for ids of these files."""
    start = len(folder.url.rstrip("/")) + 1
    names = (printable(file.url[start:]) for file in videos if _is_visible(file.url))
    return BY_PATH if _embedded_by_path(root) or of_one_name(names) else BY_NAME


def _embedded_by_path(root: Location) -> bool:
    """Whether `embed` has put embeddings beside the clips whose ids are paths: it keeps to that, and so do others."""
    with contextlib.suppress(OutputConflictError):  # a record of something else, or damaged
        return any(step.get("parameters", {}).get("clip_ids") == BY_PATH for step in Record(root).steps.values())
    return False


def _check_split(root: Location, listed: Mapping[str, Sequence[FileInfo]]) -> set[str]:
    """The clips that `split` could not embed; of a folder of others none.

    Raises:
        InputError: clips or metadata are not as `split` left them.
    """
    try:
        table = VideoTable(root, split_kind(""))
    except OutputConflictError:
        return set()  # a record of something else, or damaged
    faults = [f"{root / fault}" for found in table.changed(listed=listed).values() for fault in found]
    if faults:
        raise InputError(
            f"{len(faults):,} files that the step 'split' wrote to {root} are not as it left them: "
            f"{'; '.join(sorted(faults)[:3])}. Run the command that made them again: it makes anew what is missing."
        )
    return {fault["id"] for _, fault in clip_faults(table.rows.values()) if fault["reason"] == EMBED_ERROR}


def _videos(folder: Location, files: Sequence[FileInfo]) -> list[FileInfo]:
    """The files that are videos: by their endings, also hidden ones, or where these tell nothing by the first bytes."""
    endings = [ending_of(file.url.rpartition("/")[2]) for file in files]
    known = [file for file, ending in zip(files, endings, strict=True) if ending in EXTENSIONS]
    unknown = [
        (folder, file)
        for file, ending in zip(files, endings, strict=True)
        if ending not in EXTENSIONS and ending not in OTHERS and _is_visible(file.url)
    ]
    looked = zip(unknown, look_into(unknown, {}), strict=True)
    return known + [file for (_, file), reason in looked if not reason]


def _is_visible(url: str) -> bool:
    """Whether a file is not hidden: macOS leaves hidden files beside every video, and rsync while it works."""
    return not url.rsplit("/", 1)[-1].startswith(".")


def _find_embeddings(root: Location, wanted: bool | str) -> tuple[str | None, list[FileInfo]]:
    if not wanted:
        return None, []
    names = [wanted] if isinstance(wanted, str) else _embeddings_folders(root)
    if len(names) > 1:
        raise ParameterError(
            f"with_embeddings: {root} holds embeddings of several embedders: {', '.join(names)}. Name one."
        )
    files = [file for name in names for file in (root / name).files() if file.url.endswith(".parquet")]
    for name in names:
        check_recorded(root / name, files, lambda url: url.endswith(".parquet"))
    if not files:
        raise ParameterError(
            f"with_embeddings: no embeddings in {root}: there is no "
            + (
                f"Parquet file in {wanted}"
                if isinstance(wanted, str)
                else f"folder *{EMBEDDINGS_SUFFIX} with Parquet files"
            )
        )
    return names[0], files


def _embeddings_folders(root: Location) -> list[str]:
    with root.errors("list"):
        listed = root.fs.ls(root.url, detail=False)
    names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in listed)
    return sorted(name for name in names if name.endswith(EMBEDDINGS_SUFFIX))


def clip_table(inputs: Inputs) -> pa.Table:
    """A row for each clip: ``id``, ``path`` (relative, as the storage spells it), ``bytes``, and whether it has a meta.

    Where ids are paths, metadata are those of the clips right in the folder: clips below it may have the same names.
    """
    known = {stem_of(meta.url) for meta in inputs.metas}
    start = len(inputs.root.url.rstrip("/")) + 1
    paths = [clip.url[start:] for clip in inputs.clips]
    ids = [inputs.id_of(clip.url) for clip in inputs.clips]
    has_meta = [
        stem_of(path) in known and (inputs.id_scheme == BY_NAME or "/" not in clip_id)
        for path, clip_id in zip(paths, ids, strict=True)
    ]
    return pa.table(
        {
            "id": pa.array(ids, pa.large_string()),
            "path": pa.array(map(os.fsencode, paths), pa.large_binary()),
            "bytes": pa.array([clip.n_bytes for clip in inputs.clips], pa.int64()),
            "has_meta": pa.array(has_meta, pa.bool_()),
        }
    )


def _check_unique(inputs: Inputs) -> None:
    first: dict[str, str] = {}
    for clip in inputs.clips:
        other = first.setdefault(inputs.id_of(clip.url), clip.url)
        if other != clip.url:
            raise InputError(
                f"two clips would have the same id: {printable(other)} and {printable(clip.url)}; rename one"
            )


def stem_of(path: str) -> str:
    """The name of a file without its folder and ending."""
    return os.path.splitext(path.rsplit("/", 1)[-1])[0]
