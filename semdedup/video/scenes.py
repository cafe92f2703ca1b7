"""Cuts between scenes, found by PySceneDetect in frames that PyAV decodes.

Its detectors are fed here. If it opened the file itself, it would open playlists as well, and whatever they name.
"""

from __future__ import annotations

import contextlib
from importlib.util import find_spec
from typing import Any

import numpy as np

from semdedup.errors import ParameterError
from semdedup.extras import pip_install
from semdedup.video.decode import Decoder
from semdedup.video.heartbeat import HeartbeatTimer, WithHeartbeats
from semdedup.video.options import DecodeOptions, Limits
from semdedup.video.probe import Video
from semdedup.video.quarantine import VideoFault
from semdedup.video.ranges import Source
from semdedup.video.timeline import Timeline

WIDTH = 256
"""Frames are looked at in this width: cuts are seen as well as in full size, ten times faster."""

FRAMES_BETWEEN_CUTS = 5
NOMINAL_FPS = 25.0
"""The detectors count frames; which rate they think that those have makes no difference, as the times are ours."""


def check_scenes() -> None:
    """Raises `ParameterError` where PySceneDetect is not installed."""
    if find_spec("scenedetect") is None:
        raise ParameterError(f"splitting_algorithm scene needs PySceneDetect: {pip_install('scenes')}")


def find_cuts(source: Source, timeline: Timeline, limits: Limits, decode: DecodeOptions) -> WithHeartbeats[list[float]]:
    """Seconds at which new scenes begin, in order.

    AdaptiveDetector (https://www.scenedetect.com): a frame starts a scene where its change of hue, saturation and
    brightness stands out from that of its neighbours, so that fast camera movement makes no cut. Cost: one decoding of
    the video. A fault ends the search; the decoding of the clips meets it again and tells of it.

    Raises:
        VideoFault: the file cannot be opened any more.
    """
    from scenedetect import FrameTimecode
    from scenedetect.detectors import AdaptiveDetector

    detector = AdaptiveDetector(min_scene_len=FRAMES_BETWEEN_CUTS)
    seconds: list[float] = []
    cuts: list[Any] = []
    timer = HeartbeatTimer()
    with Video(source, limits, decode.video_track) as video:
        decoder = Decoder(video, timeline, decode)
        with contextlib.suppress(VideoFault):
            for packet in video.packets():
                for picture in decoder.pictures(packet):
                    code = FrameTimecode(len(seconds), NOMINAL_FPS)
                    seconds.append(float(picture.tick * timeline.time_base))
                    width, height = picture.looks.size
                    small = max(1, round(height * min(1, WIDTH / width))), min(WIDTH, width)
                    bgr = picture.rgb(small, min(small))[:, :, ::-1]
                    cuts += detector.process_frame(code, np.ascontiguousarray(bgr))
                    if timer.due():
                        yield
        if seconds:
            cuts += detector.post_process(FrameTimecode(len(seconds) - 1, NOMINAL_FPS))
    return sorted(seconds[cut.frame_num] for cut in cuts)
