"""Previews of clips: small animated WebP files."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import av
import numpy as np

from semdedup.video.quarantine import pyav_errors

PERIOD_S = 1.0
HEIGHT = 240
OPTIONS = {"quality": "50", "compression_level": "4", "lossless": "0"}


def write_preview(path: str, frames: np.ndarray) -> None:
    """Write frames, (t, h, w, 3) uint8, `PERIOD_S` apart, as a WebP that goes round for ever."""
    with (
        pyav_errors(writing=True),
        av.open(path, "w", format="webp", options={"loop": "0", "fflags": "+bitexact"}) as container,
    ):
        stream: Any = container.add_stream("libwebp_anim", rate=1, options=OPTIONS)
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 1000)
        for i, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(i * PERIOD_S * 1000), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
