"""Single pictures of a video, at moments that are asked for: to look at, and not to compute with.

Runs in a process of its own (`child`), for it reads hostile files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import msgspec
import numpy as np

from semdedup.video.heartbeat import HeartbeatTimer, WithHeartbeats
from semdedup.video.options import Limits
from semdedup.video.pixels import PictureMaker
from semdedup.video.probe import Video
from semdedup.video.quarantine import VideoFault, pyav_errors
from semdedup.video.ranges import Source

MOST_FRAMES = 2000
"""That are decoded for one picture: key frames are ten seconds apart, seldom more."""

BACK_S = (0, 10, 60, 86_400)
"""Seconds before a moment where the search begins: containers without an index of key frames (MPEG-TS, MPEG, FLV) find
a packet that is near, and the next key frame may come after the moment."""


@dataclass(frozen=True)
class StillsJob:
    """Which pictures of a video are wanted.

    Attributes:
        source: local file, or a remote one that is fetched as it is read.
        moments_s: seconds from the first frame.
        short_side: most pixels of the shorter side of a picture.
        limits: what the video may cost.
    """

    source: Source
    moments_s: Sequence[float]
    short_side: int
    limits: Limits


class Stills(msgspec.Struct, frozen=True, tag=True):
    """The pictures of a video.

    Attributes:
        pictures: of each moment (h, w, 3) uint8, all of one size; none where the video cannot be read.
        fault: why there are none.
    """

    pictures: tuple[np.ndarray, ...] = ()
    fault: str = ""


def take_stills(job: StillsJob) -> Iterator[Stills | None]:
    """Decode the frames that are shown at some moments; after the end the last one. None is a sign of life.

    Cost: for each moment a search for the key frame before it, and the frames from there on.
    """
    av.logging.set_level(av.logging.PANIC)
    try:
        with Video(job.source, job.limits) as video:
            maker = PictureMaker(video.pixel_aspect, job.limits.max_pixels, to_sdr=False)
            taken: list[np.ndarray] = []
            for moment_s in job.moments_s:
                frame = yield from _shown_at(video, moment_s)
                size = (taken[0].shape[0], taken[0].shape[1]) if taken else None
                taken.append(maker.rgb(maker.picture(frame), size, job.short_side))
            yield Stills(tuple(taken))
    except VideoFault as fault:
        yield Stills(fault=f"{fault.reason}: {fault.detail}")


def _shown_at(video: Video, moment_s: float) -> WithHeartbeats[Any]:
    """The frame that is shown at a moment.

    Raises:
        VideoFault: there is none, or it lies too far from a key frame.
    """
    base, origin = video.time_base, video.stream.start_time or 0
    tick = origin + round(moment_s / base)
    frame = None
    for back_s in BACK_S:
        frame = yield from _decoded_to(video, tick, max(min(0, origin), tick - round(back_s / base)))
        if frame is not None and (frame.pts is None or frame.pts <= tick):
            break
    if frame is None:
        raise VideoFault("no_frames", f"none at {moment_s:.1f} s")
    return frame


def _decoded_to(video: Video, tick: int, from_tick: int) -> WithHeartbeats[Any]:
    """The last frame until a tick, or the first one after it, decoding from about another tick on; None: no frame."""
    timer, shown = HeartbeatTimer(), None
    with pyav_errors("seeking"):
        video.container.seek(from_tick, stream=video.stream)
    decoding = video.container.decode(video.stream)
    for _ in range(MOST_FRAMES):
        with pyav_errors():
            frame = next(decoding, None)
        if frame is None or (shown is not None and frame.pts is not None and frame.pts > tick):
            return shown
        if frame.width * frame.height > video.limits.max_pixels:
            raise VideoFault("too_large", f"a frame of {frame.width}x{frame.height} pixels")
        shown = frame
        if timer.due():
            yield None
    raise VideoFault("too_large", f"more than {MOST_FRAMES:,} frames from a key frame")
