"""The clips of the input, with their metadata: the output of `split`, or any folder of MP4 files."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.runs.lookup import check_recorded
from semdedup.runs.places import EMBEDDINGS_ENDING, find_part
from semdedup.runs.record import Record
from semdedup.shards.clip_columns import (
    MP4,
    as_stored,
    column_digests,
    is_clip,
    is_hidden,
    is_meta,
    paths_below,
    printable_column,
    stem_columns,
    stems,
)
from semdedup.storage.digests import are_among, repeated
from semdedup.storage.file_columns import texts
from semdedup.storage.file_list import FileList
from semdedup.storage.location import Location
from semdedup.video.clip_ids import BY_NAME, BY_PATH
from semdedup.video.containers import EXTENSIONS, OTHERS, ending_of
from semdedup.video.files import look_into, printable
from semdedup.video.kinds import split_kind
from semdedup.video.quarantine import EMBED_ERROR
from semdedup.video.tree import ANNOTATION_VERSION, CLIPS, METAS
from semdedup.video.video_table import VideoTable


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
    clips: FileList
    metas: FileList
    embeddings: FileList
    left_out: int
    metas_folder: Location
    embeddings_folder: str | None
    folder: Location
    id_scheme: str
    quarantined: int = 0

    @property
    def n_bytes(self) -> int:
        """Bytes of all clips."""
        return int(self.clips.n_bytes.sum())

    def ids_of(self, batch: pa.RecordBatch) -> pa.StringArray:
        """The ids of a batch of clips."""
        is_path = self.id_scheme == BY_PATH
        return printable_column(paths_below(batch, self.folder) if is_path else stems(batch["name"]))

    def ids(self) -> Iterator[pa.StringArray]:
        """The ids of the clips, a batch at a time."""
        return map(self.ids_of, self.clips.batches)


def find_inputs(
    path: Location,
    output: Location,
    version: str,
    with_embeddings: bool | str,
    compared: bool = False,
    by: Collection[str] = (),
) -> Inputs:
    """List the input. Of the output of `split`, the folder ``clips`` may be given as well; or the root of a run.

    Files below the output are left out; and where clips were `compared`, those that `split` could not embed, `by` one
    of these embedders where it has several: they may be duplicates, and are clips like others once a later run has
    embedded them.

    Raises:
        InputError: no such folder; no clips; files on record are missing; two clips of one id; no metadata of this
            version, though there is of others.
        ParameterError: embeddings are asked for, and there are none, or several.
    """
    (root,) = find_part(path, "clips")
    folder = root / CLIPS if (root / CLIPS).is_dir() else root
    if not folder.is_dir():
        raise InputError(
            f"{path} is a file; give the folder that holds it" if path.exists() else f"no such path: {path}"
        )
    files = folder.files().outside(output.url)
    check_recorded(folder, files, lambda url: _is_visible(url) and url.lower().endswith(MP4))
    clips = files.where(is_clip)
    videos = _videos(folder, files)
    left_out = len(videos) - len(clips)
    if not clips:
        raise InputError(
            f"no clips in {folder}: it holds {len(files):,} files, none of which is an {MP4} file"
            + f"; {left_out:,} are other videos" * bool(left_out)
        )
    metas_folder = root / METAS / version
    metas = metas_folder.files().where(is_meta)
    check_recorded(metas_folder, metas, lambda url: url.endswith(".json"))
    failed = _check_split(root, {CLIPS: clips, f"{METAS}/{version}": metas}, by)
    if not metas:
        _check_version(root, version)
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
        id_scheme=_id_scheme(root, videos),
    )
    _check_unique(inputs)
    if compared and failed:
        gone = pa.array(sorted(failed), pa.string())
        stay = np.concatenate([pc.invert(pc.is_in(ids, value_set=gone)).to_numpy(False) for ids in inputs.ids()])
        kept = clips.filter(stay)
        inputs = replace(inputs, clips=kept, quarantined=len(clips) - len(kept))
    return inputs


def _check_version(root: Location, version: str) -> None:
    """Raise `InputError` where metadata of this version were asked for, of which there are none, or of others."""
    metas = root / METAS
    if version == ANNOTATION_VERSION and not metas.is_dir():
        return
    others = sorted({file.url[len(metas.url) + 1 :].split("/")[0] for file in metas.files()})
    if others or version != ANNOTATION_VERSION:
        raise InputError(
            f"no metadata in {metas / version}; versions there are: {', '.join(others) or 'none'}. Give one of them "
            "as annotation_version (--annotation-version)."
        )


def _id_scheme(root: Location, videos: FileList) -> str:
    """What `embed` takes for ids of these files. Memory: 32 bytes a file, while it is found out."""
    if _embedded_by_path(root):
        return BY_PATH
    visible = videos.where(lambda names: pc.invert(is_hidden(names)))
    again, _ = repeated(column_digests(map(printable_column, stem_columns(visible))))
    return BY_PATH if len(again) else BY_NAME


def _embedded_by_path(root: Location) -> bool:
    """Whether `embed` has put embeddings beside the clips whose ids are paths: it keeps to that, and so do others."""
    with contextlib.suppress(OutputConflictError):  # a record of something else, or damaged
        return any(step.get("parameters", {}).get("clip_ids") == BY_PATH for step in Record(root).steps.values())
    return False


def _check_split(root: Location, listed: Mapping[str, FileList], by: Collection[str]) -> set[str]:
    """The clips that `split` could not embed, by one of these embedders; of a folder of others none.

    Raises:
        InputError: clips or metadata are not as `split` left them.
    """
    try:
        table = VideoTable(root, split_kind())
    except OutputConflictError:
        return set()  # a record of something else, or damaged
    faults = [f"{root / fault}" for found in table.changed(listed=listed).values() for fault in found]
    if faults:
        raise InputError(
            f"{len(faults):,} files that the step 'split' wrote to {root} are not as it left them: "
            f"{'; '.join(sorted(faults)[:3])}. Run the command that made them again: it makes anew what is missing."
        )
    failed = [fault for _, fault in table.rows.clip_faults() if fault["reason"] == EMBED_ERROR]
    return {fault["id"] for fault in failed if not (by and fault["step"]) or fault["step"] in by}


def _videos(folder: Location, files: FileList) -> FileList:
    """The files that are videos: by their endings, also hidden ones, or where these tell nothing by the first bytes."""
    known = files.where(lambda names: _by_ending(names, lambda name: ending_of(name) in EXTENSIONS))
    unknown = files.where(lambda names: _by_ending(names, _says_nothing))
    if not unknown:
        return known
    looked = look_into([(folder, file) for file in unknown], {})
    return FileList.joined([known, unknown.filter(np.array([not reason for reason in looked], dtype=bool))])


def _by_ending(names: pa.BinaryArray, is_so: Callable[[str], bool]) -> pa.BooleanArray:
    """Of which names something is true; it is asked of each name but for clips, of which it is the same."""
    clips = is_clip(names)
    others = pc.invert(clips)
    if not others.true_count:
        return pa.array(np.full(len(names), is_so(f"a{MP4}")))
    found = np.full(len(names), is_so(f"a{MP4}"))
    found[others.to_numpy(zero_copy_only=False)] = [is_so(name) for name in texts(names.filter(others))]
    return pa.array(found)


def _says_nothing(name: str) -> bool:
    ending = ending_of(name)
    return ending not in EXTENSIONS and ending not in OTHERS and _is_visible(name)


def _is_visible(url: str) -> bool:
    """Whether a file is not hidden: macOS leaves hidden files beside every video, and rsync while it works."""
    return not url.rsplit("/", 1)[-1].startswith(".")


def _find_embeddings(root: Location, wanted: bool | str) -> tuple[str | None, FileList]:
    if not wanted:
        return None, FileList()
    names = [wanted] if isinstance(wanted, str) else _embeddings_folders(root)
    if len(names) > 1:
        raise ParameterError(
            f"with_embeddings: {root} holds embeddings of several embedders: {', '.join(names)}. Name one."
        )
    listed = (file for name in names for file in (root / name).files() if file.url.endswith(".parquet"))
    files = FileList.of(listed)
    for name in names:
        check_recorded(root / name, files, lambda url: url.endswith(".parquet"))
    if not files:
        raise ParameterError(
            f"with_embeddings: no embeddings in {root}: there is no "
            + (
                f"Parquet file in {wanted}"
                if isinstance(wanted, str)
                else f"folder *{EMBEDDINGS_ENDING} with Parquet files"
            )
        )
    return names[0], files


def _embeddings_folders(root: Location) -> list[str]:
    with root.errors("list"):
        listed = root.fs.ls(root.url, detail=False)
    names = (entry.rstrip("/").rsplit("/", 1)[-1] for entry in listed)
    return sorted(name for name in names if name.endswith(EMBEDDINGS_ENDING))


def meta_digests(inputs: Inputs) -> np.ndarray:
    """Digests of the names of metadata without their endings, (m,) S16, in ascending order."""
    found = column_digests(stem_columns(inputs.metas))
    found.sort()
    return found


def clip_rows(inputs: Inputs, clips: FileList, metas: np.ndarray) -> pa.Table:
    """A row for each clip: ``id``, ``path`` (relative, as the storage spells it), ``bytes``, and whether it has a meta.

    Where ids are paths, metadata are those of the clips right in the folder: clips below it may have the same names.

    Args:
        inputs: of which the clips are.
        clips: some of them.
        metas: from `meta_digests`.
    """
    return pa.concat_tables([_rows(inputs, batch, metas) for batch in clips.batches])


def _rows(inputs: Inputs, batch: pa.RecordBatch, metas: np.ndarray) -> pa.Table:
    ids = inputs.ids_of(batch)
    has_meta = pa.array(are_among(column_digests([stems(batch["name"])]), metas))
    if inputs.id_scheme == BY_PATH:
        has_meta = pc.and_not(has_meta, pc.match_substring(ids, "/"))
    return pa.table(
        {
            "id": ids.cast(pa.large_string()),
            "path": as_stored(paths_below(batch, inputs.root)),
            "bytes": batch["bytes"],
            "has_meta": has_meta,
        }
    )


def _check_unique(inputs: Inputs) -> None:
    """Refuse two clips of one id. By their names they differ, or paths would be taken."""
    again, first = repeated(column_digests(inputs.ids())) if inputs.id_scheme == BY_PATH else ((), ())
    if len(again):
        at = int(np.argmin(again))
        other, clip = inputs.clips[int(first[at])].url, inputs.clips[int(again[at])].url
        raise InputError(f"two clips would have the same id: {printable(other)} and {printable(clip)}; rename one")
