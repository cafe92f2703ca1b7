"""Frame strips: some frames of a clip side by side, as one small picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from semdedup.compute.progress import Reporter
from semdedup.errors import InputError, StorageError
from semdedup.report.previews import SAMPLING, Preview, preview_of
from semdedup.runs.places import around, find_part
from semdedup.storage.location import Location
from semdedup.video.child import Child, ChildDied, ChildTimeout, borrowed_child
from semdedup.video.clip_meta import describe_faults, read_meta
from semdedup.video.containers import EXTENSIONS
from semdedup.video.cut import plan_video, split_video
from semdedup.video.files import local_copy
from semdedup.video.job import ClipMade, Outcome, PlannedVideo, SplitJob, TrackMade, Wanted
from semdedup.video.options import DecodeOptions, Limits
from semdedup.video.quarantine import VideoFault
from semdedup.video.steps.protocol import Sampling
from semdedup.video.stills import StillsJob, take_stills
from semdedup.video.tree import ANNOTATION_VERSION, CLIPS, METAS

FRAMES, HEIGHT, WIDEST, GAP, QUALITY = 5, 90, 320, 2, 70
GREY = (128, 134, 142)
SECONDS_A_CLIP = 60.0
LONG_S = 120.0
"""Clips that are longer, as whole videos may be, are looked into: to decode an hour takes a minute."""

CHILDREN = 2
LONGEST_PATH = 1000
MOST_BYTES = 5 << 20
"""Of all pictures of a page, as they are embedded; with `PREVIEW_BYTES` what keeps it below 10 MB."""

PREVIEW_BYTES, MOST_PREVIEWS = 2 << 20, 80
"""Of all previews of a page, which the first clips that are asked for have."""


@dataclass(frozen=True)
class ClipStrip:
    """The frame strip of a clip, and its metadata.

    Attributes:
        id: as text.
        strip: a ``data:`` URI; empty where there is no picture.
        missing: why there is none.
        metadata: of the clip, None where there is none.
        url: of its file; empty where there is none.
        meta_fault: what is wrong with the metadata that it has, which are not used then, with the file.
        preview: a small video of it, where it has one.
    """

    id: str
    strip: str = ""
    missing: str = ""
    metadata: Mapping[str, Any] | None = None
    url: str = ""
    meta_fault: str = ""
    preview: Preview | None = None


def clip_folders(root: Location, given: Sequence[Location] | None) -> Sequence[Location]:
    """The folders of clips that are given, or those found: of the run, whose root or dedup this is, or of the split in
    whose output the dedup is. Raises an `InputError` for one that is not there."""
    if given is None:
        places = (place for path in around(root) for place in find_part(path, "clips"))
        return next(([place] for place in places if (place / METAS).is_dir()), [])
    given = [place for path in given for place in find_part(path, "clips")]
    for folder in given:
        if not folder.is_dir():
            raise InputError(f"no such folder: {folder}; give the output of split, or a folder of MP4 files")
    return given


def load_strips(
    ids: Sequence[Any],
    folders: Sequence[Location],
    reporter: Reporter,
    most_bytes: int,
    most_previews: int = MOST_PREVIEWS,
) -> dict[Any, ClipStrip]:
    """Look up the clips of these ids in outputs of `split`, or folders of MP4 files; pictures until `most_bytes`.

    The first ones have previews, `most_previews` of at most `PREVIEW_BYTES` together.

    Clips are decoded in processes of their own, some at a time, which the caller ends.
    """
    unique = list(dict.fromkeys(ids))
    if not folders:
        return {row_id: ClipStrip(str(row_id)) for row_id in unique}
    places = [
        (root / CLIPS if (root / CLIPS).is_dir() else root, root / METAS / ANNOTATION_VERSION) for root in folders
    ]
    strips: dict[Any, ClipStrip] = {}
    n_bytes = preview_bytes = 0

    def look_up(numbered: tuple[int, Any]) -> ClipStrip:
        return _look_up(str(numbered[1]), places, numbered[0] < most_previews)

    with reporter.step("frame strips", len(unique), "clips") as advance, ThreadPoolExecutor(CHILDREN) as pool:
        for row_id, clip in zip(unique, pool.map(look_up, enumerate(unique)), strict=True):
            if n_bytes + len(clip.strip) > most_bytes:
                clip = replace(clip, strip="", missing="left out, to keep the page small", preview=None)
            if clip.preview is not None and preview_bytes + len(clip.preview.video) > PREVIEW_BYTES:
                clip = replace(clip, preview=None)
            n_bytes += len(clip.strip)
            preview_bytes += 0 if clip.preview is None else len(clip.preview.video)
            strips[row_id] = clip
            advance(1)
    if faults := [clip.meta_fault for clip in strips.values() if clip.meta_fault]:
        reporter.say(describe_faults(len(faults), faults, "their clips are shown without"))
    return strips


def _look_up(name: str, places: Sequence[tuple[Location, Location]], with_preview: bool) -> ClipStrip:
    """The clip of this name, from the first folder that has it."""
    known, fault = None, ""
    for folder, metas in places:
        if _is_file_name(name):
            place = metas / f"{name}.json"
            meta = read_meta(place)
            known, fault = (meta, "") if isinstance(meta, dict) else (known, f"{place} {meta}" if meta else fault)
        file = next((folder / path for path in _paths_of(name) if (folder / path).exists()), None)
        if file is not None:
            found = _decode(name, file, with_preview)
            break
    else:
        found = ClipStrip(name, missing="no such clip in the folder")
    return replace(found, metadata=known, meta_fault=fault)


def _decode(name: str, clip: Location, with_preview: bool) -> ClipStrip:
    try:
        with local_copy(clip) as path:
            found = _sample(path, with_preview)
    except (StorageError, VideoFault) as error:
        return ClipStrip(name, missing=f"cannot be read: {error.detail if isinstance(error, VideoFault) else error}")
    except (ChildDied, ChildTimeout) as error:
        return ClipStrip(name, missing=f"cannot be decoded: {error}", url=clip.url)
    if isinstance(found, str):
        return ClipStrip(name, missing=found, url=clip.url)
    preview = preview_of(found.samples[1], found.duration_s) if len(found.samples) > 1 else None
    return ClipStrip(name, strip_of(found.samples[0]), url=clip.url, preview=preview)


def _paths_of(name: str) -> list[str]:
    """Where the clip of an id may be below a folder: its name may be the id, or its path."""
    is_path = name.lower().endswith(EXTENSIONS) and len(name.encode()) <= LONGEST_PATH and "\0" not in name
    inside = not name.startswith("/") and not {".", ".."} & set(name.split("/"))
    return [f"{name}.mp4"] * _is_file_name(name) + [name] * (is_path and inside)


def _is_file_name(name: str) -> bool:
    """Whether an id can be the name of a file below a folder, and of no other one."""
    return bool(name) and "/" not in name and "\0" not in name and len(name.encode()) <= 250


class _Sampled(NamedTuple):
    """Frames of a clip, each (t, h, w, 3) uint8: for its strip and, where it has one, its preview."""

    samples: Sequence[Sequence[np.ndarray] | np.ndarray]
    duration_s: float


def _sample(path: str, with_preview: bool) -> _Sampled | str:
    """Frames of a clip, or why there are none."""
    job = SplitJob(
        source=path,
        relative_path="clip.mp4",
        url=path,
        files=None,
        plan=None,
        id_scheme="semdedup",
        wanted=Wanted((Sampling(FRAMES, None, HEIGHT), *([SAMPLING] if with_preview else []))),
        limits=Limits(timeout_s=SECONDS_A_CLIP),
        decode=DecodeOptions(max_bad_frames=1.0),
    )
    why = "it has no frames"
    with borrowed_child() as child:
        plans: list[PlannedVideo | Outcome] = list(child.call(plan_video, job, SECONDS_A_CLIP))
        for plan in plans:
            if isinstance(plan, PlannedVideo) and plan.timeline.duration_s > LONG_S:
                return _look_into(child, job, plan.timeline.duration_s)
        answers: Iterator[ClipMade | TrackMade | Outcome] = child.call(split_video, job, SECONDS_A_CLIP)
        made: _Sampled | None = None
        for found in answers:
            if isinstance(found, ClipMade):
                made = _Sampled(found.samples, float(found.facts["duration_s"]))
            elif isinstance(found, Outcome) and found.reason:
                why = f"cannot be decoded: {found.reason}: {found.detail}"
    return why if made is None else made


def _look_into(child: Child, job: SplitJob, duration_s: float) -> _Sampled | str:
    """A few frames of a long clip, which is not decoded as a whole, and has no preview."""
    moments = [duration_s * (i + 0.5) / FRAMES for i in range(FRAMES)]
    (found,) = child.call(take_stills, StillsJob(job.source, moments, HEIGHT, job.limits), SECONDS_A_CLIP)
    return _Sampled([found.pictures], duration_s) if found.pictures else f"cannot be decoded: {found.fault}"


def strip_of(frames: Sequence[np.ndarray] | np.ndarray, height: int = HEIGHT) -> str:
    """Frames, each (h, w, 3) uint8, side by side and so high, as a JPEG in a ``data:`` URI."""
    pictures = [Image.fromarray(frame) for frame in frames]
    width = max(1, min(WIDEST, round(pictures[0].width * height / pictures[0].height)))
    strip = Image.new("RGB", ((width + GAP) * len(pictures) - GAP, height), GREY)
    for i, picture in enumerate(pictures):
        strip.paste(picture.resize((width, height), Image.Resampling.BILINEAR), (i * (width + GAP), 0))
    content = io.BytesIO()
    strip.save(content, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
