"""Frame strips: some frames of a clip side by side, as one small picture."""

from __future__ import annotations

import base64
import contextlib
import io
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from semdedup.compute.progress import Reporter
from semdedup.errors import StorageError
from semdedup.storage.location import Location
from semdedup.video.child import ChildDied, ChildTimeout, borrowed_child, end_children
from semdedup.video.cut import split_video
from semdedup.video.files import local_copy
from semdedup.video.job import ClipMade, Outcome, SplitJob, Wanted
from semdedup.video.options import Limits
from semdedup.video.quarantine import VideoFault
from semdedup.video.steps.protocol import Sampling
from semdedup.video.tree import ANNOTATION_VERSION, CLIPS, METAS

FRAMES, HEIGHT, WIDEST, GAP, QUALITY = 5, 90, 320, 2, 70
GREY = (128, 134, 142)
SECONDS_A_CLIP = 60.0
CHILDREN = 2
MOST_BYTES = 6 << 20
"""Of all pictures of a page, as they are embedded: what keeps it below 10 MB."""


@dataclass(frozen=True)
class ClipStrip:
    """The frame strip of a clip, and its metadata.

    Attributes:
        id: as text.
        strip: a ``data:`` URI; empty where there is no picture.
        missing: why there is none.
        metadata: of the clip, None where there is none.
        url: of its file; empty where there is none.
    """

    id: str
    strip: str = ""
    missing: str = ""
    metadata: Mapping[str, Any] | None = None
    url: str = ""


def load_strips(ids: Sequence[Any], folders: Sequence[Location], reporter: Reporter) -> dict[Any, ClipStrip]:
    """Look up the clips of these ids in outputs of `split`, or folders of MP4 files; pictures until `MOST_BYTES`.

    Clips are decoded in processes of their own, some at a time.
    """
    unique = list(dict.fromkeys(ids))
    if not folders:
        return {row_id: ClipStrip(str(row_id)) for row_id in unique}
    places = [
        (root / CLIPS if (root / CLIPS).is_dir() else root, root / METAS / ANNOTATION_VERSION) for root in folders
    ]
    strips: dict[Any, ClipStrip] = {}
    n_bytes = 0
    try:
        with reporter.step("frame strips", len(unique), "clips") as advance, ThreadPoolExecutor(CHILDREN) as pool:
            for row_id, clip in zip(unique, pool.map(lambda i: _look_up(str(i), places), unique), strict=True):
                if n_bytes + len(clip.strip) > MOST_BYTES:
                    clip = ClipStrip(clip.id, "", "left out, to keep the page small", clip.metadata, clip.url)
                n_bytes += len(clip.strip)
                strips[row_id] = clip
                advance(1)
    finally:
        end_children()
    return strips


def _look_up(name: str, places: Sequence[tuple[Location, Location]]) -> ClipStrip:
    """The clip of this name, from the first folder that has it."""
    metadata: Mapping[str, Any] | None = None
    for folder, metas in places if _is_file_name(name) else ():
        with contextlib.suppress(StorageError, ValueError):
            place = metas / f"{name}.json"
            meta = place.read_json() if place.exists() else None
            metadata = meta if isinstance(meta, dict) else metadata
        if (folder / f"{name}.mp4").exists():
            return _decode(name, folder / f"{name}.mp4", metadata)
    return ClipStrip(name, missing="no such clip in the folder", metadata=metadata)


def _decode(name: str, clip: Location, metadata: Mapping[str, Any] | None) -> ClipStrip:
    try:
        with local_copy(clip) as path:
            frames = _sample(path)
    except (StorageError, VideoFault) as error:
        why = error.detail if isinstance(error, VideoFault) else error
        return ClipStrip(name, missing=f"cannot be read: {why}", metadata=metadata)
    except (ChildDied, ChildTimeout) as error:
        return ClipStrip(name, missing=f"cannot be decoded: {error}", metadata=metadata, url=clip.url)
    if isinstance(frames, str):
        return ClipStrip(name, missing=frames, metadata=metadata, url=clip.url)
    return ClipStrip(name, strip_of(frames), "", metadata, clip.url)


def _is_file_name(name: str) -> bool:
    """Whether an id can be the name of a file below a folder, and of no other one."""
    return bool(name) and "/" not in name and "\0" not in name and len(name.encode()) <= 250


def _sample(path: str) -> np.ndarray | str:
    """Frames of a clip, (t, h, w, 3) uint8, or why there are none."""
    job = SplitJob(
        path=path,
        relative_path="clip.mp4",
        url=path,
        folder=None,
        plan=None,
        encoder="",
        id_scheme="semdedup",
        wanted=Wanted((Sampling(FRAMES, None, HEIGHT),)),
        previews=False,
        limits=Limits(timeout_s=SECONDS_A_CLIP),
    )
    why = "it has no frames"
    frames: np.ndarray | None = None
    with borrowed_child() as child:
        answers: Iterator[ClipMade | Outcome] = child.call(split_video, job, SECONDS_A_CLIP)
        for found in answers:
            if isinstance(found, ClipMade):
                frames = found.frames
            elif found.reason:
                why = f"cannot be decoded: {found.reason}: {found.detail}"
    return why if frames is None else frames


def strip_of(frames: np.ndarray) -> str:
    """Frames, (t, h, w, 3) uint8, side by side as a JPEG in a ``data:`` URI."""
    pictures = [Image.fromarray(frame) for frame in frames]
    width = max(1, min(WIDEST, round(pictures[0].width * HEIGHT / pictures[0].height)))
    strip = Image.new("RGB", ((width + GAP) * len(pictures) - GAP, HEIGHT), GREY)
    for i, picture in enumerate(pictures):
        strip.paste(picture.resize((width, HEIGHT), Image.Resampling.BILINEAR), (i * (width + GAP), 0))
    content = io.BytesIO()
    strip.save(content, "JPEG", quality=QUALITY, optimize=True)
    return "data:image/jpeg;base64," + base64.b64encode(content.getvalue()).decode()
