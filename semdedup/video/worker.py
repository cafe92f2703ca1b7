"""A task on a Dask worker: videos are fetched, cut in a child process, passed through the steps, and put in place.

A task counts once its entry is in the journal of the run, which is the last thing that is written. One that is
killed before leaves files that are whole, and that doing it again replaces by the same ones.
"""

from __future__ import annotations

import contextlib
import contextvars
import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from semdedup.storage.location import Location
from semdedup.storage.temporary import temporary_folder
from semdedup.video.child import ChildDied, ChildOutOfMemory, ChildTimeout, borrowed_child
from semdedup.video.clip_meta import parse_object
from semdedup.video.cut import plan_video, split_video
from semdedup.video.encode import usable_encoders
from semdedup.video.fetch import source_of
from semdedup.video.files import check_readable, printable
from semdedup.video.job import ClipFiles, ClipMade, Outcome, PlannedVideo, SplitJob, TrackMade, Wanted
from semdedup.video.options import DecodeOptions, Limits, PlanOptions
from semdedup.video.quarantine import GoneFault, VideoFault
from semdedup.video.ranges import Source
from semdedup.video.records import (
    QUARANTINED,
    TOO_SHORT,
    VideoFile,
    chunk_record,
    clip_meta,
    video_record,
    video_row,
)
from semdedup.video.row_files import (
    CAPTIONS,
    TRACKS,
    RowKind,
    caption_rows,
    embedding_kinds,
    embedding_rows,
    origin_of,
    track_rows,
)
from semdedup.video.steps.caption.captioner import CaptionSpec
from semdedup.video.steps.caption.windows import WINDOWS
from semdedup.video.steps.chain import Clip, StepChain, set_other_lengths_aside
from semdedup.video.steps.embed.providers import EmbedderSpec
from semdedup.video.steps.protocol import StepSpec
from semdedup.video.target import Target
from semdedup.video.tree import files_of_clip, meta_of_clip, records_of_video

SECONDS_TO_TRY = 60.0
UPLOADS = 8
"""Files of one video that are put in place at a time."""

PLACING = "placing"
"""Folder in the scratch folder: ids of clips that are being put in place."""

BY_CONTENT = ("unreadable", "no_video", "no_frames", "truncated", "decode_error")
"""Reasons that FFmpeg's errors and ends of input are put down to: the disk may have been the cause."""


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
        decode: how the picture is read.
        steps: what every clip goes through, in order.
        inputs: storage of the videos.
        target: where results go; None where nothing is written.
    """

    plan: PlanOptions | None
    encoder: str
    id_scheme: str
    previews: bool
    upload_clips: bool
    limits: Limits
    decode: DecodeOptions
    steps: tuple[StepSpec, ...]
    inputs: Location
    target: Target | None = None

    @property
    def embeddings(self) -> dict[str, RowKind]:
        """What is written of the embeddings of each embedder, by its name."""
        folders = {step.folder: step.name for step in self.steps if isinstance(step, EmbedderSpec)}
        return {folders[folder]: kind for folder, kind in embedding_kinds(list(folders)).items()}

    @property
    def captioner(self) -> CaptionSpec | None:
        """What captions clips, where that is among the steps."""
        return next((step for step in self.steps if isinstance(step, CaptionSpec)), None)

    def job(self, video: VideoFile, source: Source, folder: str | None, wanted: Wanted) -> SplitJob:
        """What the process that decodes has to know of one video."""
        return SplitJob(
            source=source,
            relative_path=video.relative_path,
            url=printable(video.url),
            files=None if folder is None else ClipFiles(folder, self.encoder, self.previews),
            plan=self.plan,
            id_scheme=self.id_scheme,
            wanted=wanted,
            limits=self.limits,
            decode=self.decode,
        )


@dataclass
class _Work:
    """A video in the making: its clips, its fingerprint track, and how it ended."""

    video: VideoFile
    clips: list[Clip] = field(default_factory=list)
    track: np.ndarray | None = None
    outcome: Outcome = field(default_factory=lambda: Outcome(QUARANTINED, "decode_error", "the video was not finished"))


def process_videos(settings: Settings, videos: Sequence[VideoFile]) -> list[dict[str, Any]]:
    """Cut videos and pass their clips through the steps; return the row of each in the table of videos.

    Batches of clips go over the videos of a task.

    Memory: what the steps want of one batch of clips each, and of one clip with what the decoder and encoder hold.
    """
    assert settings.target is not None
    chain = StepChain([step.load() for step in settings.steps])
    wanted = replace(chain.wanted, track=settings.target.tracks)
    done: list[_Work] = []
    with _work_folder(settings.target) as folder:
        for video in videos:
            work = _Work(video)
            done.append(work)
            for found in _run(settings, work, split_video, wanted, folder):
                if isinstance(found, ClipMade):
                    work.clips.append(Clip(dict(found.facts), found.samples, found.sounds))
                    chain.add(work.clips[-1])
                elif isinstance(found, TrackMade):
                    work.track = found.fingerprints
        chain.finish()
        set_other_lengths_aside([clip for work in done for clip in work.clips])
        return [_put_in_place(settings, settings.target, work, folder) for work in done]


def plan_videos(settings: Settings, videos: Sequence[VideoFile]) -> list[tuple[str, Any]]:
    """Plan videos and write nothing: (path, `PlannedVideo` or `Outcome`) for each."""
    plans: list[tuple[str, Any]] = []
    for video in videos:
        work = _Work(video)
        for found in _run(settings, work, plan_video, Wanted(), None):
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
def _work_folder(target: Target) -> Iterator[Path]:
    """A local folder to write clips to: beside their place where that is local, so that they need only be renamed."""
    if not target.root.is_local:
        with temporary_folder() as folder:
            yield folder
        return
    folder = Path(target.scratch.url, f"work-{uuid.uuid4().hex}")
    with target.scratch.errors("write to"):
        folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(
    settings: Settings,
    work: _Work,
    function: Callable[[SplitJob], Iterator[ClipMade | TrackMade | PlannedVideo | Outcome | None]],
    wanted: Wanted,
    folder: Path | None,
) -> Iterator[ClipMade | TrackMade | PlannedVideo]:
    """Run a function of `cut` in a child process. Whatever happens to it, the outcome of the video says so."""
    limits = settings.limits
    clip_folder = str(folder) if folder is not None and settings.upload_clips else None
    try:
        video, sparing = work.video, settings.target is None
        opened = source_of(settings.inputs.at(video.url), sparing, video.n_bytes)
        with opened as (source, provide), borrowed_child() as child:
            try:
                ended = False
                job = settings.job(work.video, source, clip_folder, wanted)
                answers: Iterator[ClipMade | TrackMade | PlannedVideo | Outcome] = child.call(
                    function, job, limits.timeout_s, limits.max_memory, provide
                )
                for found in answers:
                    if isinstance(found, Outcome):
                        work.outcome, ended = found, True
                    else:
                        yield found
                if ended and work.outcome.reason in BY_CONTENT:
                    check_readable(source if isinstance(source, str) else source.path)
            except OSError as error:  # of the disk, not of the video
                place = settings.inputs if settings.target is None else settings.target.root
                with place.errors("write clips to"):
                    raise error
    except ChildOutOfMemory as error:
        work.outcome = Outcome(QUARANTINED, "out_of_memory", str(error), work.outcome.facts)
    except ChildDied as error:
        work.outcome = Outcome(QUARANTINED, "decode_error", str(error), work.outcome.facts)
    except ChildTimeout as error:
        work.outcome = Outcome(QUARANTINED, "timeout", str(error), work.outcome.facts)
    except VideoFault as fault:
        work.outcome = Outcome(QUARANTINED, fault.reason, fault.detail, work.outcome.facts)
        if isinstance(fault, GoneFault):
            work.video = replace(work.video, stamp="")  # so that no later run takes it for what it has tried


def _put_in_place(settings: Settings, target: Target, work: _Work, folder: Path) -> dict[str, Any]:
    """Move what was made of a video to where it belongs; return its row."""
    video, outcome = work.video, work.outcome
    kept = [clip for clip in work.clips if not clip.rejected]
    clips = [{**clip.facts, "preview": settings.previews and settings.upload_clips} for clip in kept]
    embeddings = settings.embeddings
    track = work.track if clips else None  # of a video without clips nothing can be a copy
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
        "rejected": [clip.facts["id"] for clip in work.clips if clip.rejected],
        "n_rows": sum(bool(embeddings) and clip.vectors.keys() >= embeddings.keys() for clip in kept),
        "of_embedders": {
            column: value
            for name, kind in embeddings.items()
            for column, value in ((kind.n_rows, sum(name in clip.vectors for clip in kept)), (kind.part, ""))
            if len(embeddings) > 1
        },
        "n_captions": sum(len(clip.facts.get(WINDOWS) or ()) for clip in kept),
        "n_fingerprints": 0 if track is None else len(track),
        "meta_faults": [],
        "clip_faults": [
            *outcome.facts.get("clip_faults", []),
            *(
                {"id": clip.facts["id"], "reason": reason, "detail": detail, "step": step}
                for clip in kept
                for reason, detail, step in clip.faults
            ),
        ],
    }
    note["meta_faults"] = _write_rows(settings, target, video, kept, track)
    if settings.plan is not None:
        # By version: a run that was killed may have placed clips of another version of the video.
        placing = {"video": video.relative_path, "clips": [clip["id"] for clip in clips]}
        (target.scratch / PLACING / f"{video.version}.json").write_json(placing)
        with ThreadPoolExecutor(UPLOADS) as pool:  # in copies of this context, so that the files are noted
            context = contextvars.copy_context
            calls = [
                pool.submit(context().run, _put_clip, settings, target, note, clip, folder, video.known)
                for clip in clips
            ]
            note["meta_faults"] = [fault for call in calls if (fault := call.result())]
        record, chunk = records_of_video(video.relative_path)
        target.put_json(chunk, chunk_record(note), folder)
        target.put_json(record, video_record(note), folder)
    elif settings.captioner is not None:
        faults = (target.put_captions(clip, settings.steps, settings.id_scheme, folder) for clip in clips)
        note["meta_faults"] = [fault for fault in faults if fault]
    return video_row(note)


def _write_rows(
    settings: Settings, target: Target, video: VideoFile, clips: Sequence[Clip], track: np.ndarray | None
) -> list[str]:
    """Leave the rows of a video for later; what was wrong with the metadata that its clip, which exists, has."""
    embeddings, faults, origin = settings.embeddings, list[str](), dict[str, Any]()
    if settings.plan is None and any(clip.vectors for clip in clips):
        found = origin_of(settings.inputs, video)
        faults, origin = ([found], {}) if isinstance(found, str) else ([], found)
    for name, kind in embeddings.items():
        if any(name in clip.vectors for clip in clips):
            kind.write(target.scratch, video.version, embedding_rows(settings.steps, name, video, clips, origin))
    captioner = settings.captioner
    if captioner is not None and any(clip.facts.get(WINDOWS) for clip in clips):
        CAPTIONS.write(target.scratch, video.version, caption_rows(clips, captioner.model))
    if track is not None:
        TRACKS.write(target.scratch, video.version, track_rows(video, track))
    return faults


def _put_clip(
    settings: Settings, target: Target, note: dict[str, Any], clip: dict[str, Any], folder: Path, known: bool
) -> str:
    """Put the files of a clip in place; return what was wrong with its earlier metadata, which are made anew then."""
    if settings.upload_clips:
        for name in files_of_clip(clip["id"])[: 1 + settings.previews]:
            target.put(name, folder / name.rsplit("/", 1)[1])
    name = meta_of_clip(clip["id"])
    meta = target.root / name
    # Whatever its fields, for those that are read here are written anew.
    earlier = parse_object(meta.read_bytes()) if known and meta.exists() else {}
    fault = f"{meta} {earlier}" if isinstance(earlier, str) else ""
    target.put_json(name, clip_meta(clip, note, {} if isinstance(earlier, str) else earlier, settings.steps), folder)
    return fault
