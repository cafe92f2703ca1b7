"""Decoding: pictures of a video with their times, one after the other, and the few of them that are kept to look at."""

from __future__ import annotations

from array import array
from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semdedup.video.options import DecodeOptions
from semdedup.video.pixels import PictureMaker, graph_of, transfer_of
from semdedup.video.probe import Video
from semdedup.video.quarantine import VideoFault, pyav_errors
from semdedup.video.steps.protocol import Sampling
from semdedup.video.timeline import FrameClock, Timeline, ticks_per_frame

DEINTERLACE = "bwdif=mode=send_frame:deint=interlaced"
"""A frame for each frame; those that are not marked as interlaced pass."""


@dataclass(frozen=True)
class Looks:
    """What is told of a picture: small, so that it may be kept for longer than the picture.

    Attributes:
        size: width and height.
        transfer: transfer characteristics by their name; empty where they are not known.
        is_turned: whether the frame is stored with its sides exchanged.
    """

    size: tuple[int, int]
    transfer: str
    is_turned: bool


class Picture:
    """A frame as a player shows it, see `pixels`, and the tick from the first frame of the video at which it is shown.

    It is made when it is first looked at: of a video that is only sampled most frames are not.
    """

    def __init__(self, tick: int, frame: Any, maker: PictureMaker) -> None:
        self.tick = tick
        self.looks = Looks(maker.size(frame), maker.transfer(frame), maker.is_turned(frame))
        self.is_interlaced = bool(frame.interlaced_frame)
        self._frame, self._maker, self._made = frame, maker, False

    @property
    def frame(self) -> Any:
        """The frame. Raises `VideoFault`: ``decode_error``."""
        if not self._made:
            self._frame, self._made = self._maker.picture(self._frame), True
        return self._frame

    def rgb(self, size: tuple[int, int] | None, short_side: int) -> np.ndarray:
        """It as (h, w, 3) uint8 RGB, see `PictureMaker.rgb`."""
        return self._maker.rgb(self.frame, size, short_side)

    def sampled(self, sampling: Sampling, size: tuple[int, int] | None) -> np.ndarray:
        """It as a frame of a sampling, of this (height, width) if one is given."""
        if sampling.luma:
            return self._maker.luma(self.frame, size, sampling.short_side, sampling.enlarged)
        return self.rgb(size, sampling.short_side)

    def grey(self, size: tuple[int, int]) -> np.ndarray:
        """It as (h, w) uint8 grey levels, see `PictureMaker.grey`."""
        return self._maker.grey(self.frame, size)

    def at(self, tick: int) -> Picture:
        """The same, shown at another moment."""
        other = object.__new__(Picture)
        other.__dict__ = {**self.__dict__, "tick": tick, "_frame": self.frame, "_made": True}
        return other


class Decoder:
    """Turns packets of a video into pictures. A packet that cannot be decoded is skipped and counted.

    One thread: the work is parallel over videos, and frames of several threads would wait in memory.

    Attributes:
        n_decoded: frames so far.
        bad_ticks: of the packets so far that could not be decoded, in order.
        is_interlaced: whether any frame of the file was.
        transfer: transfer characteristics of the first frame of the file, by their name.
        clock: gives each frame its tick.
    """

    def __init__(self, video: Video, timeline: Timeline, options: DecodeOptions) -> None:
        self.timeline = timeline
        self.n_decoded = 0
        self.bad_ticks = array("q")
        self.is_interlaced, self.transfer = False, ""
        self._limits, self._options = video.limits, options
        self._maker = PictureMaker(video.pixel_aspect, video.limits.max_pixels, options.tonemap == "sdr")
        self._deinterlacer = _Deinterlacer() if options.deinterlace else None
        context = video.stream.codec_context
        context.thread_count = 1
        context.options = {"max_pixels": str(video.limits.max_pixels)}
        self.clock = FrameClock(timeline, ticks_per_frame(video.rate, timeline.time_base), context.reorder_depth)

    def pictures(self, packet: Any) -> Iterator[Picture]:
        """Decode one packet; the empty packet at the end of a stream gives what the decoder still holds.

        Raises:
            VideoFault: ``decode_error`` where too many packets cannot be decoded; ``too_large``.
        """
        for frame in self._deinterlaced(self._timed(packet), packet.size == 0):
            tick = round(frame.pts * frame.time_base / self.timeline.time_base)  # the filter has a clock of its own
            yield Picture(tick, frame, self._maker)

    @property
    def last_tick(self) -> int:
        """Tick of the last frame, also of one that cannot be decoded; -1 before there is one."""
        return max(self.clock.last_tick, self.bad_ticks[-1] if self.bad_ticks else -1)

    def _timed(self, packet: Any) -> Iterator[Any]:
        """The frames that a packet gives, with ticks as their time stamps."""
        if packet.size:
            self.clock.add_packet(packet.pts, packet.dts, packet.duration, not packet.is_discard)
        try:
            with pyav_errors(f"after {self.n_decoded:,} of {self.timeline.n_frames:,} frames"):
                frames = packet.decode()
        except VideoFault as fault:
            if fault.reason != "decode_error":
                raise
            self._skip(fault, self.clock.drop_packet() if packet.size else self.timeline.last)
            return
        for frame in frames:
            if frame.width * frame.height > self._limits.max_pixels:
                raise VideoFault("too_large", f"a frame of {frame.width}x{frame.height} pixels")
            self.transfer = self.transfer if self.n_decoded else transfer_of(frame)
            self.is_interlaced |= bool(frame.interlaced_frame)
            self.n_decoded += 1
            tick = self.clock.tick(frame.pts)
            if tick >= 0:
                frame.pts, frame.time_base = tick, self.timeline.time_base
                yield frame

    def _skip(self, fault: VideoFault, tick: int) -> None:
        insort(self.bad_ticks, tick)
        n_bad, most = len(self.bad_ticks), self._options.max_bad_frames
        if n_bad > most * self.timeline.n_frames:
            raise VideoFault(
                "decode_error",
                f"{n_bad:,} of {self.timeline.n_frames:,} frames cannot be decoded, more than {most:.0%} "
                f"(--max-bad-frames); the last: {fault.detail}",
            ) from fault

    def _deinterlaced(self, frames: Iterator[Any], ends: bool) -> Iterator[Any]:
        if self._deinterlacer is None:
            yield from frames
            return
        for frame in frames:
            yield from self._deinterlacer.add(frame)
        if ends:
            yield from self._deinterlacer.end()


class _Deinterlacer:
    """FFmpeg's filter, which looks at the frame after as well, and so gives each frame when the next one comes."""

    def __init__(self) -> None:
        self._kind: tuple[Any, ...] = ()
        self._graph: Any = None

    def add(self, frame: Any) -> Iterator[Any]:
        kind = frame.width, frame.height, frame.format.name, frame.colorspace, frame.color_range
        if kind != self._kind:
            yield from self.end()
            with pyav_errors("deinterlacing"):
                self._kind, self._graph = kind, graph_of(frame, [DEINTERLACE])
        with pyav_errors("deinterlacing"):
            self._graph.push(frame)
        yield from self._ready()

    def end(self) -> Iterator[Any]:
        if self._graph is not None:
            with pyav_errors("deinterlacing"):
                self._graph.push(None)
            yield from self._ready()
            self._kind, self._graph = (), None

    def _ready(self) -> Iterator[Any]:
        while True:
            try:
                with pyav_errors("deinterlacing", passing=(BlockingIOError, EOFError)):
                    frame = self._graph.pull()
            except (BlockingIOError, EOFError):  # it wants more, or has given all
                return
            yield frame


class Sampler:
    """Keeps the frames shown at some moments of a clip, scaled down.

    Args:
        ticks: the moments.
        sampling: how they are scaled.
    """

    def __init__(self, ticks: Sequence[int], sampling: Sampling) -> None:
        self.ticks, self.sampling = sorted(ticks), sampling
        self.kept: list[np.ndarray] = []
        self._places = [bisect_left(self.ticks, tick) for tick in ticks]  # pairs of moments may lie in one another
        self._shown: Picture | None = None
        self._scaled: np.ndarray | None = None

    def add(self, picture: Picture) -> None:
        """A frame of the clip, in order."""
        while self._shown is not None and self._wants() and self.ticks[len(self.kept)] < picture.tick:
            self._keep()
        self._shown, self._scaled = picture, None

    def frames(self) -> np.ndarray:
        """The frames of a clip that has ended, in the order of the moments: (t, h, w, 3) uint8, RGB; or (t, h, w)."""
        while self._shown is not None and self._wants():
            self._keep()
        self._shown = None
        if not self.kept:
            return np.zeros((0, 0, 0) if self.sampling.luma else (0, 0, 0, 3), dtype=np.uint8)
        return np.stack([self.kept[place] for place in self._places])

    def _wants(self) -> bool:
        return len(self.kept) < len(self.ticks)

    def _keep(self) -> None:
        if self._scaled is None:
            size = self.sampling.size
            if self.kept:
                size = (self.kept[0].shape[0], self.kept[0].shape[1])
            assert self._shown is not None
            self._scaled = self._shown.sampled(self.sampling, size)
        self.kept.append(self._scaled)
