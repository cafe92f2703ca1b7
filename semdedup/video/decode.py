"""Decoding: upright frames with their times, one after the other, and the few of them that are kept to look at."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation

from semdedup.video.probe import Video
from semdedup.video.quarantine import VideoFault, pyav_errors
from semdedup.video.timeline import Timeline, frame_clock


@dataclass(frozen=True)
class Picture:
    """A decoded frame, upright, and the tick from the first frame of the video at which it is shown."""

    tick: int
    frame: Any


class Decoder:
    """Turns packets of a video into pictures.

    One thread: the work is parallel over videos, and frames of several threads would wait in memory.

    Attributes:
        n_decoded: frames so far.
        clock: gives each frame its tick.
    """

    def __init__(self, video: Video, timeline: Timeline) -> None:
        self.stream = video.stream
        self.timeline = timeline
        self.n_decoded = 0
        self.clock = frame_clock(timeline)
        self._limits = video.limits
        self._rotation: _Rotation | None = None
        context = video.stream.codec_context
        context.thread_count = 1
        context.options = {"max_pixels": str(video.limits.max_pixels)}

    def pictures(self, packet: Any) -> Iterator[Picture]:
        """Decode one packet; the empty packet at the end of a stream gives what the decoder still holds.

        Raises:
            VideoFault: ``decode_error``.
        """
        with pyav_errors(f"after {self.n_decoded:,} of {self.timeline.n_frames:,} frames"):
            frames = packet.decode()
        for frame in frames:
            if frame.width * frame.height > self._limits.max_pixels:
                raise VideoFault("too_large", f"a frame of {frame.width}x{frame.height} pixels")
            self.n_decoded += 1
            tick = self.clock.tick(frame.pts)
            if tick >= 0:
                yield Picture(tick, self._upright(frame))

    @property
    def last_tick(self) -> int:
        """Tick of the last frame; -1 before there is one."""
        return self.clock.last_tick

    def _upright(self, frame: Any) -> Any:
        turns = _TURNS.get(frame.rotation)
        if turns is None:
            return frame
        with pyav_errors():
            if self._rotation is None or not self._rotation.fits(frame):
                self._rotation = _Rotation(frame, turns, self.timeline)
            return self._rotation.apply(frame)


_TURNS = {-90: ("clock",), 270: ("clock",), 90: ("cclock",), -270: ("cclock",), 180: ("half",), -180: ("half",)}
"""What makes a frame upright, by the angle of its display matrix, counter-clockwise. Others are damage."""


class _Rotation:
    """A filter that turns frames of one size and format."""

    def __init__(self, frame: Any, turns: Sequence[str], timeline: Timeline) -> None:
        self.key = self._key(frame)
        self.graph = av.filter.Graph()
        source = self.graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format, time_base=timeline.time_base
        )
        if turns == ("half",):
            filters = [self.graph.add("hflip"), self.graph.add("vflip")]
        else:
            filters = [self.graph.add("transpose", turns[0])]
        self.graph.link_nodes(source, *filters, self.graph.add("buffersink")).configure()

    @staticmethod
    def _key(frame: Any) -> tuple[int, int, str, int]:
        return frame.width, frame.height, frame.format.name, frame.rotation

    def fits(self, frame: Any) -> bool:
        return self.key == self._key(frame)

    def apply(self, frame: Any) -> Any:
        self.graph.push(frame)
        return self.graph.pull()


class Sampler:
    """Keeps the frames shown at some moments of a clip, scaled down.

    Args:
        ticks: the moments, in order.
        size: (height, width) to scale to; None keeps the aspect.
        short_side: most pixels of the shorter side where the aspect is kept.
    """

    def __init__(self, ticks: Sequence[int], size: tuple[int, int] | None, short_side: int) -> None:
        self.ticks, self.size, self.short_side = ticks, size, short_side
        self.kept: list[np.ndarray] = []
        self._shown: Any = None
        self._scaled: np.ndarray | None = None

    def add(self, picture: Picture) -> None:
        """A frame of the clip, in order."""
        while self._shown is not None and self._wants() and self.ticks[len(self.kept)] < picture.tick:
            self._keep()
        self._shown, self._scaled = picture.frame, None

    def frames(self) -> np.ndarray:
        """The frames of a clip that has ended: (t, h, w, 3) uint8, RGB."""
        while self._shown is not None and self._wants():
            self._keep()
        self._shown = None
        return np.stack(self.kept) if self.kept else np.zeros((0, 0, 0, 3), dtype=np.uint8)

    def _wants(self) -> bool:
        return len(self.kept) < len(self.ticks)

    def _keep(self) -> None:
        if self._scaled is None:
            size = self.size
            if self.kept:
                size = (self.kept[0].shape[0], self.kept[0].shape[1])
            self._scaled = scaled(self._shown, size, self.short_side)
        self.kept.append(self._scaled)


def scaled(frame: Any, size: tuple[int, int] | None, short_side: int) -> np.ndarray:
    """A frame as (h, w, 3) uint8 RGB of this size, or with its aspect and no larger than this shorter side."""
    if size is None:
        factor = min(1.0, short_side / min(frame.width, frame.height))
        size = max(1, round(frame.height * factor)), max(1, round(frame.width * factor))
    shrinks = size[0] < frame.height or size[1] < frame.width
    kind = Interpolation.AREA if shrinks else Interpolation.BICUBIC
    with pyav_errors():
        return frame.to_ndarray(format="rgb24", height=size[0], width=size[1], interpolation=kind)
