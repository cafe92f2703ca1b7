"""When the frames of a video are shown: arithmetic on the integer time stamps of its packets, without any file.

Times are ticks of the track's time base. Those of a `Timeline` count from the first frame that is shown.
"""

from __future__ import annotations

import math
from array import array
from bisect import insort
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from semdedup.video.plan import DIGITS, Span

HALF_A_MICROSECOND = Fraction(1, 2 * 10**DIGITS)

SECONDS_BACK_IS_A_JUMP = 1.0
"""Where the clock of a file goes back by more, another recording begins, which is shown after the one before it."""

FRAMES_LATE = 1.5
MOST_SECONDS_A_FRAME = Fraction(1, 10)
"""A frame stands where the next one comes later than so many frames are apart on average, or so many tenths of a
second. Clips that begin meanwhile begin with it."""

MOST_HELD = 256
"""Packets that a decoder may take in before it gives their frames; codecs hold 16 frames at most."""

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
        keyframes: ticks at which decoding can start; 0 also where it takes frames that are hidden before.
        gaps: ticks at which a frame has stood for as long as one may, and at which the next one is shown.
        longest: most ticks from one frame to the next.
        is_reordered: whether the times of the packets, in the order of the file, ever go back. Where they do not, but
            frames are stored in another order than they are shown in (AVI holds no times for that), the times are right
            and belong to other frames.
    """

    time_base: Fraction
    origin: int
    end: int
    last: int
    n_frames: int
    n_bytes: int
    keyframes: tuple[int, ...]
    gaps: tuple[tuple[int, int], ...] = ()
    longest: int = 0
    is_reordered: bool = True

    def clock_s(self, tick: int) -> float:
        """Seconds of the container's own clock at a tick."""
        return float((self.origin + tick) * self.time_base)

    @property
    def gap_s(self) -> float:
        """Seconds of all gaps."""
        return sum(end - start for start, end in self.gaps_s)

    @property
    def frame_ticks(self) -> float:
        """Ticks from one frame to the next on average; a tenth of a second at most."""
        return min(self.last / max(1, self.n_frames - 1), float(MOST_SECONDS_A_FRAME / self.time_base))

    def stands(self, n_ticks: int) -> bool:
        """Whether a frame that is shown for so many ticks stands: longer than frames do on average."""
        return n_ticks > FRAMES_LATE * self.frame_ticks

    @property
    def gaps_s(self) -> list[tuple[float, float]]:
        """The gaps, in seconds."""
        return [(float(start * self.time_base), float(end * self.time_base)) for start, end in self.gaps]

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


class PacketClock:
    """Gives packets, in the order of the file, the times at which their frames are shown, on a clock that goes forward.

    A packet without times gets the one that its position suggests. Where decoding times jump back by more than
    `SECONDS_BACK_IS_A_JUMP`, a second recording begins: it follows the first, as the decoder shows it too.

    Args:
        time_base: seconds of one tick.
        step: ticks from one frame to the next, for packets that do not tell their duration.

    >>> clock = PacketClock(Fraction(1, 10), 1)
    >>> [clock.time(tick, tick, 1, True) for tick in (0, 20, 0, 1)], clock.end
    ([0, 20, 21, 22], 23)
    """

    def __init__(self, time_base: Fraction, step: int) -> None:
        self.end = -(2**62)
        self._step, self._most_ticks_back = step, Fraction(SECONDS_BACK_IS_A_JUMP) / time_base
        self._shift, self._position, self._decoded = 0, 0, NO_TIME

    def time(self, pts: int, dts: int, duration: int, is_shown: int) -> int:
        """The tick of the next packet; `end` is then the tick after the last of those that are shown."""
        if pts == NO_TIME:
            pts = dts if dts != NO_TIME else self._position * self._step
        self._position += 1
        time = pts + self._shift
        if dts != NO_TIME:
            if self._decoded != NO_TIME and self._decoded - dts > self._most_ticks_back:
                self._shift += self.end - time
                time = self.end
            self._decoded = dts
        if is_shown:
            self.end = max(self.end, time + (duration or self._step))
        return time


def timeline_of(packets: PacketTimes, time_base: Fraction, step: int, max_frame_s: float) -> Timeline | None:
    """The timeline that packets tell; None where they show no frame.

    Args:
        packets: all of a track.
        time_base: seconds of one tick.
        step: ticks from one frame to the next, for packets that do not tell their duration.
        max_frame_s: seconds for which a frame may stand; what follows until the next one is a gap.

    Raises:
        OverflowError: a time does not fit into 64 bits.
    """
    clock = PacketClock(time_base, step)
    stamps = zip(packets.presentation, packets.decoding, packets.duration, packets.is_shown, strict=True)
    times = array("q", (clock.time(*stamp) for stamp in stamps))
    shown = array("q", (time for time, is_shown in zip(times, packets.is_shown, strict=True) if is_shown))
    if not shown:
        return None
    in_file = np.frombuffer(shown, dtype=np.int64)  # ten million frames as Python's numbers are half a gigabyte
    in_order = np.sort(in_file)
    origin, last = int(in_order[0]), int(in_order[-1])
    end = max(clock.end, last + 1)
    if end - origin >= 1 << 62:
        raise OverflowError(f"times from {origin} to {end}")
    keys = sorted({max(0, time - origin) for time, key in zip(times, packets.is_key, strict=True) if key})
    apart = np.diff(in_order, append=end)
    most = max(1, math.floor(Fraction(max_frame_s) / time_base))
    gaps = [
        (int(in_order[i]) + most - origin, int(in_order[i] + apart[i]) - origin) for i in np.flatnonzero(apart > most)
    ]
    return Timeline(
        time_base=time_base,
        origin=origin,
        end=end - origin,
        last=last - origin,
        n_frames=len(shown),
        n_bytes=packets.n_bytes,
        keyframes=tuple(keys),
        gaps=tuple(gaps),
        longest=int(apart[:-1].max(initial=0)),
        is_reordered=bool((np.diff(in_file) < 0).any()),
    )


class FrameClock:
    """Gives decoded frames their ticks of a timeline: that of their packet, and each later than the one before it.

    Frames come in the order in which they are shown. Where the times of the packets are not reordered, the next frame
    has the earliest time that is left; so it has where it does not tell its own.

    Args:
        timeline: that of the packets.
        step: ticks from one frame to the next, for packets that do not tell their duration.
        depth: packets that the decoder may hold before it gives a frame, where frames are reordered.

    Three frames, stored in the order I P B and shown as I B P, of a container without presentation times, which gives
    them the times 0, 1, 2 in the order of the file. The decoder holds one packet, and its frames bring these along:

    >>> packets = PacketTimes()
    >>> for stamp in (0, 1, 2):
    ...     packets.add(stamp, stamp, 1, True, True)
    >>> timeline = timeline_of(packets, Fraction(1, 25), 1, 60.0)
    >>> clock = FrameClock(timeline, 1, depth=1)
    >>> clock.add_packet(0, 0, 1, True)
    >>> clock.add_packet(1, 1, 1, True)
    >>> first = clock.tick(0)
    >>> clock.add_packet(2, 2, 1, True)
    >>> first, clock.tick(2), clock.tick(1)
    (0, 1, 2)
    """

    def __init__(self, timeline: Timeline, step: int, depth: int) -> None:
        self.last_tick = -1
        self._timeline, self._depth = timeline, depth
        self._packets = PacketClock(timeline.time_base, step)
        self._step = max(1, timeline.end // max(1, timeline.n_frames))
        self._waiting: list[tuple[int, int]] = []  # times of packets whose frames have not come, with their time stamps
        self._added = (0, NO_TIME)
        self._shift = -timeline.origin

    def add_packet(self, pts: int | None, dts: int | None, duration: int | None, is_shown: bool) -> None:
        """Take the time of the next packet, which is about to be decoded."""
        stamp = NO_TIME if pts is None else pts
        time = self._packets.time(stamp, NO_TIME if dts is None else dts, duration or 0, is_shown)
        self._added = time - self._timeline.origin, stamp
        if is_shown:
            insort(self._waiting, self._added)
            del self._waiting[:-MOST_HELD]

    def drop_packet(self) -> int:
        """The packet that was added last cannot be decoded: no frame will come of it. Its tick."""
        if self._added in self._waiting:
            self._waiting.remove(self._added)
        return self._added[0]

    def tick(self, pts: int | None) -> int:
        """Tick of the next frame; negative where it comes before the first one that is shown."""
        tick = self._own(pts)
        if tick is None:  # the earliest that is left
            while len(self._waiting) > self._depth + 1:  # frames of these have been lost
                self._waiting.pop(0)
            tick = self._waiting[0][0] if self._waiting else self.last_tick + self._step
        while self._waiting and self._waiting[0][0] <= tick:
            self._waiting.pop(0)
        if tick <= self.last_tick and self.last_tick >= 0:
            tick = self.last_tick + 1
        self.last_tick = max(tick, self.last_tick)
        return tick

    def _own(self, pts: int | None) -> int | None:
        """The tick of the packet of a frame; None where it does not tell, or is not to be trusted."""
        if pts is None or (self._depth and not self._timeline.is_reordered):
            return None
        found = next((tick for tick, stamp in self._waiting if stamp == pts), None)
        if found is not None:
            self._shift = found - pts
        return pts + self._shift


def sample_times(span: Span, n_frames: int, pair_s: float = 0.0) -> list[float]:
    """Moments, in seconds, at the middles of `n_frames` equal parts of the span; or two so far apart around each.

    They depend on the span alone: copies of a clip at other frame rates are looked at in the same moments.
    """
    part = (span.end_s - span.start_s) / n_frames
    middles = [span.start_s + (i + 0.5) * part for i in range(n_frames)]
    if not pair_s:
        return middles
    apart = min(pair_s, span.end_s - span.start_s)
    first = [min(max(middle - apart / 2, span.start_s), span.end_s - apart) for middle in middles]
    return [moment for start in first for moment in (start, start + apart)]


def every(span: Span, period_s: float) -> list[float]:
    """Moments, in seconds, a period apart from the start of the span."""
    return [span.start_s + i * period_s for i in range(max(1, math.ceil(span.duration_s / period_s)))]


def ticks(moment_s: float, time_base: Fraction) -> int:
    """The first tick of a clock that is not before a moment, but for the half microsecond that rounding may add."""
    return math.ceil((Fraction(repr(float(moment_s))) - HALF_A_MICROSECOND) / time_base)
