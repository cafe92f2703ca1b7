"""A video that is open, and what its container and its packets tell before anything is decoded."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av

from semdedup.video.heartbeat import HeartbeatTimer, WithHeartbeats
from semdedup.video.opening import audio_stream, left_out, open_container, video_stream
from semdedup.video.options import Limits
from semdedup.video.quarantine import VideoFault, pyav_errors
from semdedup.video.ranges import Source, opened
from semdedup.video.timeline import PacketTimes, Timeline, ticks_per_frame, timeline_of

DURATION_FROM_ZERO = ("matroska", "asf")
"""Containers in which many writers declare the time of the end, also where the first frame is later than zero."""

MOST_FRAMES_A_SECOND = 1000
"""Some containers tell the rate of their clock where they know none of frames."""

TIMED_BY_TABLES = frozenset({"h264", "hevc", "av1", "vp8", "vp9", "mpeg4", "mjpeg", "prores", "dnxhd"})
"""Codecs of which MP4 and QuickTime tell when frames are shown without a look into them. FFmpeg cuts MPEG-2, for one,
into frames itself."""

DECLARES_DURATION = frozenset({"matroska", "avi", "flv", "asf", "ogg", "mpegts", "mpeg"})
"""Containers that declare their duration at the beginning or the end, or by the times that are there. Of others FFmpeg
guesses it by the bit rate."""

LEAST_SHARE_OF_FRAMES = 0.95
"""A video of which fewer of the declared frames come out is truncated. A few are lost where a stream starts midway."""

FRAMES_MISSED_AT_THE_END = 3
"""Where packets are fewer than declared frames, as with two fields to a frame, the last must be as late as declared,
give or take so many frames."""


@dataclass(frozen=True)
class Declared:
    """How long a container says that its video is. 0 where it does not.

    Attributes:
        n_frames: frames.
        duration_s: seconds, of the video track or of all tracks together.
        video_s: seconds of the video track alone.
    """

    n_frames: int
    duration_s: float
    video_s: float


@dataclass(frozen=True)
class VideoFacts:
    """What a container tells of its video, as JSON values.

    Attributes:
        width: pixels, as stored (before rotation).
        height: pixels, as stored.
        fps: average frame rate; 0 where it is not known.
        codec: name of the video codec.
        pixel_format: how pixels are stored, ``yuv420p``; empty where it is not known.
        audio_codec: name of the audio codec, or empty.
        container: name of the container.
        declared: how long it is said to be.
        tracks_left_out: video and audio tracks that are not used, in words.
    """

    width: int
    height: int
    fps: float
    codec: str
    pixel_format: str
    audio_codec: str
    container: str
    declared: Declared
    tracks_left_out: tuple[str, ...]


class Video:
    """An open video. Close it, or use it in a ``with`` block.

    Args:
        source: it.
        limits: what it may cost.
        track: which of its video tracks is meant, from 0; None: the one that FFmpeg chooses.

    Raises:
        VideoFault: ``unreadable``, ``no_video`` or ``too_large``.
    """

    def __init__(self, source: Source, limits: Limits, track: int | None = None) -> None:
        self.limits = limits
        self._file = opened(source)
        self._by_tables = False
        self.container = open_container(self._file, limits)
        try:
            with pyav_errors():
                self.stream = video_stream(self.container, track)
            self._check_size(self.stream.codec_context.width, self.stream.codec_context.height)
        except VideoFault:
            self.container.close()
            raise

    def __enter__(self) -> Video:
        return self

    def __exit__(self, *exception: object) -> None:
        self.container.close()

    def _check_size(self, width: int, height: int) -> None:
        if width * height > self.limits.max_pixels:
            raise VideoFault("too_large", f"{width}x{height} pixels; the limit is {self.limits.max_pixels:,}")

    @property
    def _rate(self) -> Fraction | None:
        """Average frames a second; of a bare MPEG stream what its header says, for there FFmpeg's average is 25."""
        average = None if self.container.format.name == "mpegvideo" else self.stream.average_rate
        return average or self.stream.guessed_rate

    def facts(self) -> VideoFacts:
        """What the container tells."""
        with pyav_errors():
            stream, context = self.stream, self.stream.codec_context
            audio = audio_stream(self.container)
            of_all_s = (self.container.duration or 0) / av.time_base
            of_video_s = _declared_s(stream)
            if not of_video_s and len(self.container.streams) == 1:
                of_video_s = of_all_s
            rate = self._rate or 0
            return VideoFacts(
                width=context.width,
                height=context.height,
                fps=round(float(rate), 6),
                codec=context.codec.canonical_name,
                pixel_format=context.pix_fmt or "",
                audio_codec=audio.codec_context.codec.canonical_name if audio and audio.codec_context else "",
                container=self.container.format.name,
                declared=Declared(
                    n_frames=stream.frames,
                    duration_s=max(0.0, round(_declared_s(stream, tagged=False) or of_all_s, 6)),
                    video_s=max(0.0, round(of_video_s, 6)),
                ),
                tracks_left_out=tuple(left_out(self.container, (stream, audio))),
            )

    @property
    def rate(self) -> Fraction:
        """Frames a second; 25 where that is not known, or cannot be."""
        rate = self._rate
        return Fraction(rate) if rate and rate <= MOST_FRAMES_A_SECOND else Fraction(25)

    @property
    def pixel_aspect(self) -> Fraction:
        """Width of a pixel by its height: what the container says of it, else the codec, else 1."""
        found = self.stream.sample_aspect_ratio
        return Fraction(found) if found else Fraction(1)

    def packets(self) -> Iterator[Any]:
        """The packets of the video, without a last one that the end of the file cuts short: its frame is damaged.

        Raises:
            VideoFault: ``decode_error``.
        """
        held, reading = None, self.container.demux(self.stream)
        while True:
            with pyav_errors():
                packet = next(reading, None)
            if packet is None:
                return
            if held is not None and packet.size:
                yield held
            held = packet if packet.is_corrupt else None
            if held is None:
                yield packet

    @property
    def time_base(self) -> Fraction:
        """Seconds of one tick of the time stamps."""
        return Fraction(self.stream.time_base or Fraction(1, 90_000))

    def timeline(self) -> WithHeartbeats[Timeline]:
        """Read all packets, decode none.

        A container that ends in an error gives the timeline up to there; decoding will meet the same error.

        Raises:
            VideoFault: ``encrypted``, ``too_large``, ``too_long``; of no packets ``no_frames`` or ``truncated``.
        """
        base = self.time_base
        packets, fault = yield from self._packet_times()
        try:
            timeline = timeline_of(packets, base, ticks_per_frame(self.rate, base), self.limits.max_frame_s)
        except OverflowError as error:
            raise VideoFault("decode_error", "time stamps are too far apart for 64 bits") from error
        if timeline is not None:
            return self._checked(timeline)
        if fault:
            raise VideoFault("unreadable", fault)
        if self.stream.frames:
            raise VideoFault("truncated", f"0 of {self.stream.frames:,} declared frames are in the file")
        raise VideoFault("no_frames", "the video track is empty")

    def timeline_by_tables(self) -> WithHeartbeats[Timeline | None]:
        """`timeline` of a remote video without its content; None where that takes the content.

        Key frames are those that the container names: a parser may find others.
        """
        is_mov = self.container.format.name.startswith("mov")
        if isinstance(self._file, str) or not is_mov or self.facts().codec not in TIMED_BY_TABLES:
            return None
        with pyav_errors():
            self._file.leave_out_content()
        self._by_tables = True
        return (yield from self.timeline())

    def declared_timeline(self) -> Timeline | None:
        """The timeline of a video with as many seconds as its container declares; None where it declares none.

        Raises:
            VideoFault: ``too_long``.
        """
        facts, base = self.facts(), self.time_base
        kind = facts.container.split(",")[0]
        seconds = facts.declared.video_s or facts.declared.duration_s
        if kind in DURATION_FROM_ZERO and self.stream.start_time:
            seconds -= float(self.stream.start_time * base)
        end = round(Fraction(seconds) / base)
        if kind not in DECLARES_DURATION or end <= 0:
            return None
        step = ticks_per_frame(self.rate, base)
        n_frames = facts.declared.n_frames or max(1, round(end / step))
        return self._checked(Timeline(base, 0, end, max(0, end - step), n_frames, 0, (0,)))

    def _checked(self, timeline: Timeline) -> Timeline:
        if timeline.duration_s > self.limits.max_duration_s:
            limit = f"the limit is {self.limits.max_duration_s:,g} s"
            raise VideoFault("too_long", f"{timeline.duration_s:,.0f} s from the first frame to the last; {limit}")
        return timeline

    def _packet_times(self) -> WithHeartbeats[tuple[PacketTimes, str]]:
        """Times of all packets, and the error that ended reading, if one did."""
        packets, timer = PacketTimes(), HeartbeatTimer()
        reading, key_of = self.packets(), _KeysByTable(self.stream) if self._by_tables else None
        while True:
            try:
                packet = next(reading, None)
            except VideoFault as fault:
                return packets, fault.detail
            if packet is None:
                return packets, ""
            if packet.size == 0:
                continue
            if packet.has_sidedata("encryption_info"):
                raise VideoFault("encrypted", f"{self.facts().codec} packets are encrypted")
            is_key = packet.is_keyframe if key_of is None else key_of(packet)
            packets.add(packet.pts, packet.dts, packet.duration, is_key, not packet.is_discard)
            packets.n_bytes += packet.size
            if len(packets) > self.limits.max_frames:
                raise VideoFault("too_large", f"more than {self.limits.max_frames:,} frames")
            if timer.due():
                yield


class _KeysByTable:
    """Tells which packets of a track, in the order of the file, its container lists as key frames."""

    def __init__(self, stream: Any) -> None:
        self._entries, self._next = stream.index_entries, 0

    def __call__(self, packet: Any) -> bool:
        while self._next < len(self._entries):
            entry = self._entries[self._next]
            self._next += 1
            if entry.pos == packet.pos:
                return bool(entry.is_keyframe)
        return False


def _declared_s(stream: Any, tagged: bool = True) -> float:
    """Seconds that a container declares of one track; Matroska has a tag for that. 0 where it does not."""
    if stream.duration is not None and stream.time_base:
        return float(stream.duration * stream.time_base)
    found = re.fullmatch(r"(\d+):(\d\d):(\d\d(?:\.\d+)?)", stream.metadata.get("DURATION", "")) if tagged else None
    return sum(float(part) * unit for part, unit in zip(found.groups(), (3600, 60, 1), strict=True)) if found else 0.0


def ends_early(timeline: Timeline, last_decoded: int) -> bool:
    """Whether the frames end so long before the packets do that something is lost."""
    return (timeline.last - last_decoded) * timeline.time_base > max(0.5, 0.02 * timeline.duration_s)


def shortfall(facts: VideoFacts, timeline: Timeline, n_decoded: int, last_decoded: int) -> str:
    """Tell in words that a video gave fewer frames than it declares; empty where it did not. Decoders say nothing.

    Packets count where the container declares its frames; times count always, for field-coded and hidden frames make
    packets that are no frames.
    """
    declared = facts.declared.n_frames
    found = f"{n_decoded:,} of {max(declared, timeline.n_frames):,} declared frames"
    if declared and n_decoded < LEAST_SHARE_OF_FRAMES * min(timeline.n_frames, declared):
        return found
    # An edit list that hides most of a video is more likely damage. AVI declares ticks, with frames or not.
    if declared and n_decoded < declared // 2 and facts.container != "avi":
        return found
    if declared and timeline.n_frames < LEAST_SHARE_OF_FRAMES * declared and timeline.n_frames < declared - 1:
        frames_s = min(0.5, FRAMES_MISSED_AT_THE_END / facts.fps) if facts.fps else 0.5
        return "" if _ends_as_declared(facts, timeline, frames_s) else found
    if ends_early(timeline, last_decoded):
        gap_s = float((timeline.last - last_decoded) * timeline.time_base)
        return f"{found}; frames end {gap_s:.2f} s before the last packet"
    if not _ends_as_declared(facts, timeline, 0.5):
        return f"{found}; {timeline.duration_s:.2f} of {facts.declared.video_s:.2f} declared seconds"
    return ""


def _ends_as_declared(facts: VideoFacts, timeline: Timeline, tolerance_s: float) -> bool:
    """Whether the video track is as long as it is said to be. What is said of all tracks together tells nothing."""
    end_s = timeline.duration_s
    if facts.container.startswith(DURATION_FROM_ZERO):
        end_s += max(0.0, float(timeline.origin * timeline.time_base))
    missing_s = facts.declared.video_s - end_s
    return missing_s <= max(tolerance_s, 0.02 * facts.declared.video_s)
