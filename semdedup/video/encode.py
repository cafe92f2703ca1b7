"""Clips that are encoded anew: the encoders, which of them open here, how they are set, and the file they write."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fractions import Fraction
from types import MappingProxyType
from typing import Any

import av
from av.error import FFmpegError
from av.video.frame import PictureType
from av.video.reformatter import ColorRange, VideoReformatter

from semdedup.arrays import gpu_count
from semdedup.errors import ParameterError
from semdedup.video.audio import AudioTrack
from semdedup.video.clip_file import ClipFile
from semdedup.video.decode import Picture
from semdedup.video.pixels import PIXELS
from semdedup.video.priority import usual_priority
from semdedup.video.quarantine import pyav_errors
from semdedup.video.timeline import Timeline

ENCODERS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "libx264": {"preset": "veryfast", "crf": "21", "x264-params": "mbtree=0"},
        "libopenh264": {"rc_mode": "quality", "allow_skip_frames": "0"},
        "h264_nvenc": {"preset": "p4", "rc": "vbr", "cq": "21", "b": "0"},
        "libvpx-vp9": {"b": "0", "crf": "31", "deadline": "good", "cpu-used": "4", "row-mt": "0"},
        "libsvtav1": {"preset": "8", "crf": "32", "svtav1-params": "lp=1"},
    }
)
"""Options of each encoder: a quality at which training does not notice the loss.

x264 goes without its macroblock tree, which would make files 15-30 % smaller at the same PSNR: with AVX-512, one clip
in twenty came out with other bytes from the same frames (x264 in PyAV 18.1; 400 of 400 the same without the tree).
"""

MOST_REORDERED = 16
"""Packets that an encoder may give after the one that is shown last, and more."""

AUTO = ("h264_nvenc", "libx264", "libopenh264", "libvpx-vp9", "libsvtav1")


def make_encoder(
    container: Any, name: str, rate: Fraction, size: tuple[int, int], time_base: Fraction, frames_stand: bool
) -> Any:
    """Add a video stream with an encoder of one thread to a container: the bytes would depend on their number.

    Where frames stand, they are stored in the order in which they are shown: MP4 tells how long one is shown by the
    next one that is stored.
    """
    stream = container.add_stream(name, rate=rate, options=dict(ENCODERS[name]))
    stream.width, stream.height, stream.pix_fmt = *size, PIXELS
    context = stream.codec_context
    context.thread_count = 1
    context.time_base = time_base
    if frames_stand:
        context.max_b_frames = 0
    return stream


def usable_encoders(names: Iterable[str]) -> Iterator[tuple[str, ...]]:
    """Yield those of the encoders that encode a frame here. A function for a child process: some print, or crash.

    That one is compiled in is no promise: NVENC needs a GPU that has it.
    """
    yield tuple(name for name in names if _encodes(name))


def _encodes(name: str) -> bool:
    if name == "h264_nvenc" and not gpu_count():
        return False
    try:
        context: Any = av.CodecContext.create(name, "w")
        context.width, context.height, context.pix_fmt = 256, 144, "yuv420p"
        context.time_base, context.framerate = Fraction(1, 25), Fraction(25)
        context.thread_count = 1
        context.options = dict(ENCODERS[name])
        with usual_priority():
            packets = context.encode(av.VideoFrame(256, 144, "yuv420p"))
        return bool(packets + context.encode(None))
    except (FFmpegError, ValueError):  # not compiled in, or it does not open
        return False


def choose_encoder(wish: str, usable: Callable[[Iterable[str]], Sequence[str]]) -> str:
    """The encoder to use: the first that a wish means and that is usable.

    Args:
        wish: an encoder, or ``auto``: NVENC where the GPUs have it, else the next of `AUTO`.
        usable: tells which of some encoders every worker can open.

    Raises:
        ParameterError: naming those that there are.
    """
    for name in AUTO if wish == "auto" else (wish,):
        if usable((name,)):
            return name
    raise ParameterError(
        f"the encoder {wish} does not open on every worker; there are: {', '.join(usable(ENCODERS)) or 'none'}. "
        "Choose one of these with --transcode-encoder, or cut without encoding: --cut copy."
    )


class EncodedClip(ClipFile):
    """A clip that is encoded anew: 8 bits of limited range, upright, square pixels, the source's time stamps."""

    def __init__(self, path: str, timeline: Timeline, audio: AudioTrack, encoder: str, rate: Fraction) -> None:
        super().__init__(path, timeline, audio)
        self.encoder, self.rate = encoder, rate
        self._reformatter = VideoReformatter()
        self._held: deque[Any] = deque()  # packets that came last: how long their frames are shown is known at the end
        self._first_dts: int | None = None
        self._last_tick = 0

    def add(self, picture: Picture) -> None:
        """Encode the next frame."""
        shown = picture.frame
        if self._video is None:
            self._start(picture.tick, shown)
        with pyav_errors(writing=True):
            frame = self._of_one_size(shown)
            pts, base = frame.pts, frame.time_base
            frame.pts, frame.time_base = picture.tick - self.origin, self.timeline.time_base
            frame.pict_type = PictureType.NONE
            try:
                self._mux(self._video.encode(frame))
            finally:
                frame.pts, frame.time_base = pts, base  # another clip may take it too
        self._last_tick = picture.tick
        self.n_frames += 1

    def _of_one_size(self, frame: Any) -> Any:
        """A frame in the size of the clip: that of its first frame."""
        return self._reformatter.reformat(frame, width=self.width, height=self.height, threads=1)

    def _start(self, tick: int, frame: Any) -> None:
        self.origin = tick
        self.width, self.height = frame.width, frame.height

        def add_video(container: Any) -> Any:
            timeline, size = self.timeline, (self.width, self.height)
            stream = make_encoder(
                container, self.encoder, self.rate, size, timeline.time_base, timeline.stands(timeline.longest)
            )
            context = stream.codec_context
            for name in ("color_primaries", "color_trc", "colorspace"):
                setattr(context, name, getattr(frame, name))
            context.color_range = ColorRange.MPEG
            return stream

        self._video = self._open(add_video)
        self.codec = self._video.codec_context.codec.canonical_name

    def _mux(self, packets: Sequence[Any]) -> None:
        for packet in packets:
            self._first_dts = packet.dts if self._first_dts is None else self._first_dts
            self._held.append(packet)
            if len(self._held) > MOST_REORDERED:
                self._container.mux(self._held.popleft())

    def _finish_video(self, end: int) -> None:
        """Say how long the last frame is shown: MP4 goes by the packet that is shown last, and by the last of all."""
        self._mux(self._video.encode(None))
        if not self._held:
            return
        shown_last, last = max(self._held, key=lambda packet: packet.pts), self._held[-1]
        ticks = self.timeline.time_base / last.time_base
        shown_last.duration = round((end - self._last_tick) * ticks)
        if last.dts is not None and self._first_dts is not None:
            last.duration = max(1, round((end - self.origin) * ticks) - (last.dts - self._first_dts))
        for packet in self._held:
            self._container.mux(packet)
        self._held.clear()
