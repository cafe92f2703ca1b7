"""When the frames of a video are shown: arithmetic on the integer time stamps of its packets, without any file.

Times are ticks of the track's time base. Those of a `Timeline` count from the first frame that is shown.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from semdedup.video.plan import DIGITS, Span

HALF_A_MICROSECOND = Fraction(1, 2 * 10**DIGITS)

SECONDS_BACK_IS_A_JUMP = 1.0
"""Where the clock of a file goes back by more, another recording begins, which is shown after the one before it."""

NO_TIME = -(2**63)
"""Stands for a time stamp that a packet does not have. FFmpeg's own value for that."""


@dataclass(frozen=True)
class Timeline:
    """When the frames of a video are shown, as its packets tell. Times are ticks of `time_base` from the first frame.

    Attributes:
        time_base: seconds of one tick.
        origin: the container's own time stamp of the first frame.
        end: the tick after the last frame.
        last: the tick of the last frame.
        n_frames: packets whose frame is to be shown (edit lists hide some).
        n_bytes: bytes of all video packets.
        keyframes: ticks at which decoding can start.
    """

    time_base: Fraction
    origin: int
    end: int
    last: int
    n_frames: int
    n_bytes: int
    keyframes: tuple[int, ...]

    @property
    def duration_s(self) -> float:
        """Seconds from the first frame to the end of the last."""
        return float(self.end * self.time_base)

    @property
    def bitrate(self) -> int:
        """Bits a second of the video track."""
        return round(8 * self.n_bytes / self.duration_s) if self.end else 0


@dataclass
class PacketTimes:
    """The packets of a video track in the order of the file: an entry each, and the bytes of all of them.

    Attributes:
        presentation: time stamp at which its frame is shown, `NO_TIME` where there is none.
        decoding: time stamp at which it is decoded, `NO_TIME` where there is none.
        duration: ticks for which its frame is shown; 0 where it is not known.
        is_key: 1 where decoding can start.
        is_shown: 0 where an edit list hides the frame.
        n_bytes: bytes of all packets.
    """

    presentation: array = field(default_factory=lambda: array("q"))
    decoding: array = field(default_factory=lambda: array("q"))
    duration: array = field(default_factory=lambda: array("q"))
    is_key: bytearray = field(default_factory=bytearray)
    is_shown: bytearray = field(default_factory=bytearray)
    n_bytes: int = 0

    def __len__(self) -> int:
        return len(self.presentation)

    def add(self, pts: int | None, dts: int | None, duration: int | None, is_key: bool, is_shown: bool) -> None:
        """Add the next packet."""
        self.presentation.append(NO_TIME if pts is None else pts)
        self.decoding.append(NO_TIME if dts is None else dts)
        self.duration.append(duration or 0)
        self.is_key.append(is_key)
        self.is_shown.append(is_shown)


def ticks_per_frame(rate: Fraction, time_base: Fraction) -> int:
    """Ticks from one frame to the next at this rate; at least 1."""
    return max(1, round(1 / (rate * time_base)))


def show_times(packets: PacketTimes, step: int, most_ticks_back: Fraction) -> tuple[array, int]:
    """When the frame of each packet is shown on one clock that goes forward, and the tick after the last of them.

    A packet without times gets the one that its position suggests. Where decoding times jump back by more than
    `most_ticks_back`, a second recording begins: it follows the first, as the decoder shows it too.

    Raises:
        OverflowError: a time does not fit into 64 bits.

    >>> packets = PacketTimes()
    >>> for time in (0, 10, 20, 0, 10):
    ...     packets.add(time, time, 10, True, True)
    >>> show_times(packets, 10, Fraction(15))
    (array('q', [0, 10, 20, 30, 40]), 50)
    """
    times = array("q")
    shift, end, decoded = 0, -(2**62), NO_TIME
    stamps = zip(packets.presentation, packets.decoding, packets.duration, packets.is_shown, strict=True)
    for position, (pts, dts, duration, is_shown) in enumerate(stamps):
        if pts == NO_TIME:
            pts = dts if dts != NO_TIME else position * step
        time = pts + shift
        if dts != NO_TIME:
            if decoded != NO_TIME and decoded - dts > most_ticks_back:
                shift += end - time
                time = end
            decoded = dts
        times.append(time)
        if is_shown:
            end = max(end, time + (duration or step))
    return times, end


def timeline_of(packets: PacketTimes, time_base: Fraction, step: int) -> Timeline | None:
    """The timeline that packets tell; None where they show no frame.

    Args:
        packets: all of a track.
        time_base: seconds of one tick.
        step: ticks from one frame to the next, for packets that do not tell their duration.
    """
    times, end = show_times(packets, step, Fraction(SECONDS_BACK_IS_A_JUMP) / time_base)
    shown = array("q", (time for time, is_shown in zip(times, packets.is_shown, strict=True) if is_shown))
    if not shown:
        return None
    origin, last = min(shown), max(shown)
    keys = sorted(time - origin for time, key in zip(times, packets.is_key, strict=True) if key and time >= origin)
    return Timeline(
        time_base=time_base,
        origin=origin,
        end=max(end, last + 1) - origin,
        last=last - origin,
        n_frames=len(shown),
        n_bytes=packets.n_bytes,
        keyframes=tuple(keys),
    )


class FrameClock:
    """Gives decoded frames ticks of a timeline, each later than the one before it, whatever the file tells.

    Args:
        origin: the container's own time stamp of the first frame.
        step: ticks from one frame to the next, for frames without a time.
        most_ticks_back: where times go back by more, another recording begins.
    """

    def __init__(self, origin: int, step: int, most_ticks_back: Fraction) -> None:
        self.last_tick = -1
        self._origin, self._step, self._most_ticks_back = origin, step, most_ticks_back
        self._shift = 0

    def tick(self, pts: int | None) -> int:
        """Tick of the next frame; negative where it comes before the first one that is shown.

        >>> clock = FrameClock(100, 10, Fraction(50))
        >>> [clock.tick(pts) for pts in (90, 100, 110, None, 125, 100)]
        [-10, 0, 10, 20, 25, 26]
        """
        tick = self.last_tick + self._step if pts is None else pts - self._origin + self._shift
        if tick <= self.last_tick:
            if self.last_tick - tick > self._most_ticks_back:
                self._shift += self.last_tick + self._step - tick
                tick = self.last_tick + self._step
            else:
                tick = self.last_tick + 1
        if tick >= 0:
            self.last_tick = tick
        return tick


def frame_clock(timeline: Timeline) -> FrameClock:
    """The clock of the frames that a decoder gives for this timeline."""
    step = max(1, timeline.end // max(1, timeline.n_frames))
    return FrameClock(timeline.origin, step, Fraction(SECONDS_BACK_IS_A_JUMP) / timeline.time_base)


def sample_times(span: Span, n_frames: int) -> list[float]:
    """Moments, in seconds, at the middles of `n_frames` equal parts of the span.

    They depend on the span alone: copies of a clip at other frame rates are looked at in the same moments.
    """
    part = (span.end_s - span.start_s) / n_frames
    return [span.start_s + (i + 0.5) * part for i in range(n_frames)]


def every(span: Span, period_s: float) -> list[float]:
    """Moments, in seconds, a period apart from the start of the span."""
    return [span.start_s + i * period_s for i in range(max(1, math.ceil(span.duration_s / period_s)))]


def ticks(moment_s: float, time_base: Fraction) -> int:
    """The first tick of a clock that is not before a moment, but for the half microsecond that rounding may add."""
    return math.ceil((Fraction(repr(float(moment_s))) - HALF_A_MICROSECOND) / time_base)


def edges(spans: Sequence[Span], time_base: Fraction) -> Iterator[tuple[int, int]]:
    """First tick and tick after the last of each span."""
    return ((ticks(span.start_s, time_base), ticks(span.end_s, time_base)) for span in spans)
