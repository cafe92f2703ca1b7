"""Ids of clips, so that the same clip has the same id in every run.

Of a clip that is cut, a UUID (RFC 9562, version 5) of what it is; of one that is a file, its name, or its path.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable
from dataclasses import dataclass

from semdedup.video.plan import Span

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "https://github.com/semdedup/semdedup#clip")


BY_NAME, BY_PATH = "file_name", "path"
"""What the ids of clips that are files are: names without ending where these differ, else paths below the input."""


@dataclass(frozen=True)
class VideoIdentity:
    """What ids are made of.

    Attributes:
        relative_path: path below the input folder, with ``/``.
        path: the whole path, as the peers use it.
        fps: average frame rate.
        duration_s: duration as the container tells it, which is what the peers know.
    """

    relative_path: str
    path: str
    fps: float
    duration_s: float


def clip_id(scheme: str, video: VideoIdentity, span: Span, algorithm: str) -> str:
    """The id of a clip.

    ``semdedup``: of the relative path and the span in microseconds, so that it does not change when the folder moves.
    ``nemo`` and ``cosmos``: what NeMo Curator and cosmos-curate make, which depends on the whole path. Both count whole
    frames for scenes; for fixed strides the first does too and the second takes seconds.
    """
    if scheme == "semdedup":
        start_us, end_us = round(span.start_s * 1e6), round(span.end_s * 1e6)
        return str(uuid.uuid5(NAMESPACE, f"{video.relative_path}\n{start_us}-{end_us}"))
    start_s, end_s = span.start_s, min(span.end_s, _duration_in_frames(video))
    if scheme == "cosmos" and algorithm == "fixed_stride":
        span_text = f"{start_s}_{end_s}"
    else:
        whole = int if algorithm == "fixed_stride" else round
        span_text = f"{whole(start_s * video.fps)}_{whole(end_s * video.fps)}"
    return str(uuid.uuid5(uuid.NAMESPACE_URL, f"{video.path}_{span_text}"))


def _duration_in_frames(video: VideoIdentity) -> float:
    """The peers' duration: whole frames at the average rate."""
    return int(video.duration_s * video.fps) / video.fps


def file_id(scheme: str, relative_path: str) -> str:
    """The id of a clip that is a file.

    >>> file_id(BY_NAME, "top/episode_0.mp4"), file_id(BY_PATH, "top/episode_0.mp4")
    ('episode_0', 'top/episode_0.mp4')
    """
    return relative_path if scheme == BY_PATH else os.path.splitext(relative_path.rsplit("/", 1)[-1])[0]


def of_one_name(relative_paths: Iterable[str]) -> tuple[str, str] | None:
    """Two files whose names without ending are the same, if there are such.

    >>> of_one_name(["top/episode_0.mp4", "side/episode_1.mp4", "side/episode_0.mkv"])
    ('top/episode_0.mp4', 'side/episode_0.mkv')
    """
    first: dict[str, str] = {}
    for path in relative_paths:
        if (other := first.setdefault(file_id(BY_NAME, path), path)) != path:
            return other, path
    return None
