"""Previews: a clip as a small video inside the page, which plays wherever the page is."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.error import FFmpegError

from semdedup.video.steps.protocol import Sampling

SAMPLING = Sampling(40, None, 144)
"""The whole clip in 40 pictures: five seconds of small ones are 10 to 60 KB."""

LEAST_RATE, MOST_RATE = 8, 50
CODEC = "libvpx-vp9"
"""Every build of PyAV has it, and every browser plays it; 50 ms for a preview."""

OPTIONS = {"b": "0", "crf": "40", "deadline": "realtime", "cpu-used": "7", "row-mt": "0"}


@dataclass(frozen=True)
class Preview:
    """A preview.

    Attributes:
        video: a WebM file as a ``data:`` URI.
        speed: how many times as fast as the clip it plays.
    """

    video: str
    speed: float


def preview_of(frames: Sequence[np.ndarray] | np.ndarray, duration_s: float) -> Preview | None:
    """Frames of a whole clip at equal distances, each (h, w, 3) uint8, as a preview; None where they cannot be encoded.

    Clips of up to five seconds play as fast as they are, longer ones faster. Same frames, same bytes.
    """
    height, width = (size // 2 * 2 for size in frames[0].shape[:2])
    rate = min(MOST_RATE, max(LEAST_RATE, round(len(frames) / max(0.1, duration_s))))
    if not height or not width:
        return None
    content = io.BytesIO()
    try:
        with av.open(content, "w", format="webm", options={"fflags": "+bitexact"}) as container:
            stream: Any = container.add_stream(CODEC, rate=Fraction(rate), options=OPTIONS)
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            stream.codec_context.thread_count = 1
            for pixels in frames:
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels[:height, :width]), format="rgb24")
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    except (FFmpegError, ValueError):
        return None
    uri = "data:video/webm;base64," + base64.b64encode(content.getvalue()).decode()
    return Preview(uri, duration_s * rate / len(frames))
