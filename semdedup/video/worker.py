"""The work on one video, as a task on a worker: fetch it, have it cut, embed its clips, and put everything in place.

A video counts once its note stands in the scratch folder, which is the last thing that is written. A task that is
killed before leaves files that are whole, and that doing it again replaces by the same ones.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.errors import ParameterError
from semdedup.storage.location import Location, json_bytes
from semdedup.storage.tables import LOW_INFORMATION, embedding_column, write_arrow
from semdedup.video.child import ChildDied, ChildTimeout, borrowed_child
from semdedup.video.cut import ClipMade, Outcome, PlannedVideo, Sampling, SplitJob, plan_video, split_video
from semdedup.video.encode import usable_encoders
from semdedup.video.files import Unreadable, local_copy, printable
from semdedup.video.plan import PlanOptions
from semdedup.video.probe import Limits
from semdedup.video.records import (
    QUARANTINED,
    ROWS,
    TOO_SHORT,
    VideoFile,
    chunk_record,
    clip_meta,
    video_record,
    video_row,
)
from semdedup.video.steps.embed.providers import Embedder, EmbedderSpec, load_embedder, low_information
from semdedup.video.tree import (
    ANNOTATION_VERSION,
    CHUNKS,
    CLIPS,
    METAS,
    PREVIEWS,
    VIDEOS,
    key_of,
    record_name,
)

SECONDS_TO_TRY = 60.0
UPLOADS = 8
"""Files of one video that are put in place at a time."""

NOTES, ROW_FILES, PLACING = "notes", "rows", "placing"
"""Folders in the scratch folder: what became of each video; embeddings; ids of clips that are being put in place."""


@dataclass(frozen=True)
class Settings:
    """What is done with every video, and where.

    Attributes:
        plan: how videos are cut; None: they are clips already, and are only embedded.
        encoder: name of the encoder.
        id_scheme: how ids are made.
        previews: whether previews are written.
        upload_clips: whether clips are written.
        limits: what one video may cost.
        embedder: what embeds; None: nothing.
        inputs: storage of the videos.
        output: folder for the results.
        scratch: folder for what is not yet complete.
    """

    plan: PlanOptions | None
    encoder: str
    id_scheme: str
    previews: bool
    upload_clips: bool
    limits: Limits
    embedder: EmbedderSpec | None
    inputs: Location
    output: Location
    scratch: Location

    def job(self, video: VideoFile, path: str, folder: str | None, embedder: Embedder | None) -> SplitJob:
        """What the process that decodes has to know of one video."""
        sampling = None
        if embedder is not None:
            sampling = Sampling(embedder.n_frames, embedder.frame_size, embedder.short_side)
        return SplitJob(
            path=path,
            relative_path=video.relative_path,
            url=printable(video.url),
            folder=folder,
            plan=self.plan,
            encoder=self.encoder,
            id_scheme=self.id_scheme,
            sampling=sampling,
            previews=self.previews,
            limits=self.limits,
        )


@dataclass
class _Work:
    """A video in the making: its clips, and the vectors of those that are embedded."""

    video: VideoFile
    clips: list[dict[str, Any]] = field(default_factory=list)
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    outcome: Outcome = field(default_factory=lambda: Outcome(QUARANTINED, "decode_error", "the video was not finished"))


def process_videos(settings: Settings, videos: Sequence[VideoFile]) -> list[dict[str, Any]]:
    """Cut and embed videos; return the row of each in the table of videos.

    Clips are embedded in batches that go over the videos of a task.

    Memory: the sampled frames of one batch of clips, and those of one clip with what the decoder and encoder hold.
    """
    embedder = None if settings.embedder is None else load_embedder(settings.embedder)
    done: list[_Work] = []
    with _work_folder(settings) as folder:
        waiting: list[tuple[_Work, dict[str, Any], np.ndarray]] = []
        for video in videos:
            work = _Work(video)
            done.append(work)
            for made in _clips(settings, work, embedder, folder):
                if made.frames is not None and embedder is not None:
                    clip = {**made.facts, LOW_INFORMATION: low_information(made.frames)}
                    waiting.append((work, clip, made.frames))
                else:
                    clip = dict(made.facts)
                work.clips.append(clip)
                if embedder is not None and len(waiting) >= embedder.batch_size:
                    _embed(embedder, waiting)
        if embedder is not None and waiting:
            _embed(embedder, waiting)
        return [_put_in_place(settings, work, folder) for work in done]


def plan_videos(settings: Settings, videos: Sequence[VideoFile]) -> list[tuple[str, Any]]:
    """Plan videos and write nothing: (path, `PlannedVideo` or `Outcome`) for each."""
    plans: list[tuple[str, Any]] = []
    for video in videos:
        work = _Work(video)
        for found in _run(settings, work, plan_video, None, None):
            plans.append((video.relative_path, found))
        if not plans or plans[-1][0] != video.relative_path:
            plans.append((video.relative_path, work.outcome))
    return plans


def encoders_here(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the encoders that can be opened on this worker."""
    try:
        with borrowed_child() as child:
            (found,) = child.call(usable_encoders, names, SECONDS_TO_TRY)  # to its end: the process is kept
            return found
    except (ChildDied, ChildTimeout):  # an encoder that crashes is not usable; asked one by one, the others are
        return () if len(names) == 1 else tuple(name for name in names if encoders_here((name,)))


@contextlib.contextmanager
def _work_folder(settings: Settings) -> Iterator[Path]:
    """A local folder to write clips to: beside their place where that is local, so that they need only be renamed."""
    if settings.output.is_local:
        folder = Path(settings.scratch.url, f"work-{uuid.uuid4().hex}")
        with settings.scratch.errors("write to"):
            folder.mkdir(parents=True)
    else:
        folder = Path(tempfile.mkdtemp(prefix="semdedup-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clips(settings: Settings, work: _Work, embedder: Embedder | None, folder: Path) -> Iterator[ClipMade]:
    for found in _run(settings, work, split_video, embedder, folder):
        if isinstance(found, ClipMade):
            yield found
        elif isinstance(found, Outcome):
            work.outcome = found


def _run(
    settings: Settings, work: _Work, function: Any, embedder: Embedder | None, folder: Path | None
) -> Iterator[ClipMade | PlannedVideo | Outcome]:
    """Run a function of `split` in a child process. Whatever happens to it, the outcome of the video tells."""
    limits = settings.limits
    clip_folder = str(folder) if folder is not None and settings.upload_clips else None
    try:
        with local_copy(settings.inputs.at(work.video.url)) as path, borrowed_child() as child:
            try:
                yield from child.call(function, settings.job(work.video, path, clip_folder, embedder), limits.timeout_s)
            except OSError as error:  # of the disk, not of the video
                with settings.output.errors("write clips to"):
                    raise error
    except ChildDied as error:
        work.outcome = Outcome(QUARANTINED, "decode_error", str(error), work.outcome.facts)
    except ChildTimeout as error:
        work.outcome = Outcome(QUARANTINED, "timeout", str(error), work.outcome.facts)
    except Unreadable as error:
        work.outcome = Outcome(QUARANTINED, "unreadable", str(error))


def _embed(embedder: Embedder, waiting: list[tuple[_Work, dict[str, Any], np.ndarray]]) -> None:
    """Embed the clips that wait, and empty the list."""
    vectors = np.asarray(embedder.embed([frames for _, _, frames in waiting]), dtype=np.float32)
    if vectors.ndim != 2 or len(vectors) != len(waiting):
        raise ParameterError(
            f"the embedder {embedder.name} gave {vectors.shape} for {len(waiting)} clips; needed (n, d)"
        )
    with np.errstate(all="ignore"):  # a row of zeros or of NaN stays what it is: the dedup sets it aside
        norms = np.sqrt(np.square(vectors, dtype=np.float64).sum(axis=1, keepdims=True))
        vectors = (vectors / np.where(norms > 0, norms, 1)).astype(np.float32)
    for (work, clip, _), vector in zip(waiting, vectors, strict=True):
        work.vectors[clip["id"]] = vector
    waiting.clear()


def _put_in_place(settings: Settings, work: _Work, folder: Path) -> dict[str, Any]:
    """Move what was made of a video to where it belongs; the note comes last."""
    video, outcome = work.video, work.outcome
    clips = [{**clip, "preview": settings.previews and settings.upload_clips} for clip in work.clips]
    note: dict[str, Any] = {
        "video": video.relative_path,
        "url": printable(video.url),
        "n_bytes": video.n_bytes,
        "stamp": video.stamp,
        "status": outcome.status,
        "reason": "" if outcome.status == TOO_SHORT else outcome.reason,
        "detail": outcome.detail,
        "facts": outcome.facts,
        "clips": clips,
        "n_rows": len(work.vectors),
    }
    key = key_of(video.relative_path)
    if work.vectors:
        table = _rows(settings, note, work)
        write_arrow(settings.scratch / ROW_FILES / f"{key}.arrow", table.schema, table.to_batches())
    if settings.plan is not None:
        # Not under the name of the video alone: a run that was killed may have placed clips of another version of it.
        version = key_of("\0".join([video.relative_path, str(video.n_bytes), video.stamp]))
        (settings.scratch / PLACING / f"{version}.json").write_json(
            {"video": video.relative_path, "clips": [clip["id"] for clip in clips]}
        )
        with ThreadPoolExecutor(UPLOADS) as pool:
            list(pool.map(lambda clip: _put_clip(settings, note, clip, folder, video.known), clips))
        name = record_name(video.relative_path)
        _put_json(settings.output / CHUNKS / f"{name}_0.json", chunk_record(note), folder)
        _put_json(settings.output / VIDEOS / f"{name}.json", video_record(note), folder)
    row = video_row(note)
    (settings.scratch / NOTES / f"{key}.json").write_json(row)
    return row


def _put_clip(settings: Settings, note: dict[str, Any], clip: dict[str, Any], folder: Path, known: bool) -> None:
    name = clip["id"]
    if settings.upload_clips:
        (settings.output / CLIPS / f"{name}.mp4").take(folder / f"{name}.mp4")
        if settings.previews:
            (settings.output / PREVIEWS / f"{name}.webp").take(folder / f"{name}.webp")
    meta = settings.output / METAS / ANNOTATION_VERSION / f"{name}.json"
    earlier = meta.read_json() if known and meta.exists() else {}
    _put_json(meta, clip_meta(clip, note, earlier), folder)


def _put_json(place: Location, value: Any, folder: Path) -> None:
    """Write a file by way of the work folder: what a kill leaves half-written is left there, and goes with it."""
    made = folder / f"{uuid.uuid4().hex}.json"
    with place.errors("write"):
        made.write_bytes(json_bytes(value))
    place.take(made)


def _rows(settings: Settings, note: dict[str, Any], work: _Work) -> pa.Table:
    """The embeddings of a video with what serves to rank them, in the order of the clips."""
    clips = [clip for clip in work.clips if clip["id"] in work.vectors]
    if settings.plan is None:
        clips = [{**clip, **_origin(settings, work.video, clip)} for clip in clips]
    columns: dict[str, Any] = {
        name: [clip.get(name, note["video"] if name == "video" else None) for clip in clips]
        for name in ROWS.names
        if name != "embedding"
    }
    columns["embedding"] = embedding_column(np.stack([work.vectors[clip["id"]] for clip in clips]))
    return pa.table({name: columns[name] for name in ROWS.names}, schema=ROWS)


def _origin(settings: Settings, file: VideoFile, clip: dict[str, Any]) -> dict[str, Any]:
    """Where a clip that exists was cut from, if its metadata stand beside it as `split` writes them."""
    folder = settings.inputs.at(file.url).parent
    if folder.name != CLIPS:
        return {}
    meta = folder.parent / METAS / ANNOTATION_VERSION / f"{clip['id']}.json"
    if not meta.exists():
        return {}
    told = meta.read_json()
    start_s, end_s = told.get("duration_span", (clip["start_s"], clip["end_s"]))
    video = told.get("video") or told.get("source_video") or file.relative_path
    return {"video": video, "start_s": start_s, "end_s": end_s, "bitrate": told.get("bitrate_source", clip["bitrate"])}
