"""Encoders of clips: which there are, which of them really open here, and how they are set."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from types import MappingProxyType
from typing import Any

import av
from av.error import FFmpegError

from semdedup.arrays import gpu_count
from semdedup.errors import ParameterError

ENCODERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "libx264": {"preset": "veryfast", "crf": "20"},
        "libopenh264": {"rc_mode": "quality", "allow_skip_frames": "0"},
        "h264_nvenc": {"preset": "p4", "rc": "vbr", "cq": "21", "b": "0"},
        "libvpx-vp9": {"b": "0", "crf": "31", "deadline": "good", "cpu-used": "4", "row-mt": "0"},
        "libsvtav1": {"preset": "8", "crf": "32", "svtav1-params": "lp=1"},
    }
)
"""Options of each encoder: of a quality that training does not notice, at the speed at which it pays."""

AUTO = ("libx264", "libopenh264", "libvpx-vp9", "libsvtav1")
CHOICES = ("auto", "libx264", "libopenh264", "h264_nvenc", "libvpx-vp9", "libsvtav1")


def make_encoder(container: Any, name: str, rate: Fraction, width: int, height: int, time_base: Fraction) -> Any:
    """Add a video stream with an encoder of one thread to a container: the bytes would depend on their number."""
    stream = container.add_stream(name, rate=rate, options=dict(ENCODERS[name]))
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = time_base
    return stream


@cache
def usable_encoders() -> tuple[str, ...]:
    """The encoders that encode a frame here. That one is compiled in is no promise: NVENC needs a GPU that has it."""
    return tuple(name for name in ENCODERS if _encodes(name))


def _encodes(name: str) -> bool:
    if name == "h264_nvenc" and not gpu_count():
        return False
    try:
        context: Any = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = 256, 144, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.thread_count = 1
        context.options = dict(ENCODERS[name])
        packets = context.encode(av.VideoFrame(256, 144, "yuv420p"))
        return bool(packets + context.encode(None))
    except (FFmpegError, ValueError):  # not compiled in, or it does not open
        return False


def choose_encoder(wish: str, usable: tuple[str, ...]) -> str:
    """The encoder to use: the one wished for; for ``auto`` NVENC where the GPUs have it, else the first of `AUTO`.

    Raises:
        ParameterError: naming those that there are.
    """
    if wish not in CHOICES:
        raise ParameterError(f"transcode_encoder must be one of {', '.join(CHOICES)}; got {wish!r}")
    preferred = ("h264_nvenc", *AUTO) if wish == "auto" else (wish,)
    for name in preferred:
        if name in usable:
            return name
    raise ParameterError(
        f"the encoder {wish} does not open on every worker; there are: {', '.join(usable) or 'none'}. "
        "Choose one of these with --transcode-encoder, or cut without encoding: --cut copy."
    )
