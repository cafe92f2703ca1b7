"""Opening a video that may be hostile, and what its packets tell before anything is decoded."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.error import FFmpegError
from av.stream import Disposition

from semdedup.video.heartbeat import HeartbeatTimer, WithHeartbeats
from semdedup.video.options import Limits
from semdedup.video.quarantine import VideoFault, error_text, pyav_errors
from semdedup.video.timeline import PacketTimes, Timeline, ticks_per_frame, timeline_of

FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,mxf,gif"
"""Containers that are opened. Playlists (HLS, DASH, SDP, ffconcat), which name other files and hosts, are not."""

EXTENSIONS = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".ogv", ".ogm"),
    *(".wmv", ".asf", ".3gp", ".3g2", ".mxf", ".gif", ".vob"),
)
"""Files with these names are videos."""

DURATION_FROM_ZERO = ("matroska", "asf")
"""Containers in which many writers declare the time of the end, also where the first frame is later than zero."""

LEAST_SHARE_OF_FRAMES = 0.95
"""A video of which fewer of the declared frames come out is truncated. A few are lost where a stream starts midway."""

FRAMES_MISSED_AT_THE_END = 3
"""Where packets are fewer than declared frames, as with two fields to a frame, the last must be as late as declared,
give or take so many frames."""


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
        declared_frames: frames that the container declares; 0 where it does not.
        declared_duration_s: seconds that it declares; 0 where it does not.
    """

    width: int
    height: int
    fps: float
    codec: str
    pixel_format: str
    audio_codec: str
    container: str
    declared_frames: int
    declared_duration_s: float


class Video:
    """An open video. Close it, or use it in a ``with`` block.

    Raises:
        VideoFault: ``unreadable``, ``no_video`` or ``too_large``.
    """

    def __init__(self, path: str, limits: Limits) -> None:
        self.path = path
        self.limits = limits
        self.container = open_container(path, limits)
        try:
            with pyav_errors():
                self.stream = _video_stream(self.container)
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

    def facts(self) -> VideoFacts:
        """What the container tells."""
        with pyav_errors():
            stream, context = self.stream, self.stream.codec_context
            audio = self.container.streams.audio
            if stream.duration is not None and stream.time_base:
                duration_s = float(stream.duration * stream.time_base)
            else:
                duration_s = (self.container.duration or 0) / av.time_base
            rate = stream.average_rate or stream.guessed_rate or 0
            return VideoFacts(
                width=context.width,
                height=context.height,
                fps=round(float(rate), 6),
                codec=context.codec.canonical_name,
                pixel_format=context.pix_fmt or "",
                audio_codec=audio[0].codec_context.codec.canonical_name if audio and audio[0].codec_context else "",
                container=self.container.format.name,
                declared_frames=stream.frames,
                declared_duration_s=max(0.0, round(duration_s, 6)),
            )

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

    def timeline(self) -> WithHeartbeats[Timeline]:
        """Read all packets, decode none.

        A container that ends in an error gives the timeline up to there; decoding will meet the same error.

        Raises:
            VideoFault: ``encrypted``, ``too_large``, or ``no_frames`` and ``truncated`` where there are no packets.
        """
        base = self.stream.time_base or Fraction(1, 90_000)
        rate = self.stream.average_rate or self.stream.guessed_rate or Fraction(25)
        packets, fault = yield from self._packet_times()
        try:
            timeline = timeline_of(packets, base, ticks_per_frame(rate, base))
        except OverflowError as error:
            raise VideoFault("decode_error", "time stamps are too far apart for 64 bits") from error
        if timeline is not None:
            return timeline
        if fault:
            raise VideoFault("unreadable", fault)
        if self.stream.frames:
            raise VideoFault("truncated", f"0 of {self.stream.frames:,} declared frames are in the file")
        raise VideoFault("no_frames", "the video track is empty")

    def _packet_times(self) -> WithHeartbeats[tuple[PacketTimes, str]]:
        """Times of all packets, and the error that ended reading, if one did."""
        packets, timer = PacketTimes(), HeartbeatTimer()
        reading = self.packets()
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
            packets.add(packet.pts, packet.dts, packet.duration, packet.is_keyframe, not packet.is_discard)
            packets.n_bytes += packet.size
            if len(packets) > self.limits.max_frames:
                raise VideoFault("too_large", f"more than {self.limits.max_frames:,} frames")
            if timer.due():
                yield


def open_container(path: str, limits: Limits) -> Any:
    """Open a local file for reading with nothing but the formats above, and without reaching for anything else.

    Raises:
        VideoFault: ``unreadable``.
        MemoryError: there is no memory left.
    """
    try:
        opened: Any = av.open(
            os.path.abspath(path),
            # The first two are for the container, the third for the decoders that look into its first packets. As
            # `stream_options` it would reach the first track only, and FLV and MPEG, without a list of them, fail.
            options={"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": str(limits.max_pixels)},
            timeout=limits.timeout_s,
            metadata_errors="replace",
        )
        return opened
    except MemoryError:
        raise
    except (FFmpegError, OSError, ValueError) as error:  # PyAV raises ValueError for some malformed headers
        raise VideoFault("unreadable", error_text(error)) from error


def _video_stream(container: Any) -> Any:
    for stream in container.streams.video:
        if stream.disposition & Disposition.attached_pic or stream.codec_context is None:  # a cover is no video
            continue
        return stream
    kinds = sorted({stream.type for stream in container.streams})
    raise VideoFault("no_video", f"tracks: {', '.join(kinds) or 'none'}")


def shortfall(facts: VideoFacts, timeline: Timeline, n_decoded: int, last_decoded: int) -> str:
    """Tell in words that a video gave fewer frames than it declares; empty where it did not. Decoders say nothing.

    Packets count where the container declares its frames; times count always, for field-coded and hidden frames make
    packets that are no frames.
    """
    declared = facts.declared_frames
    found = f"{n_decoded:,} of {max(declared, timeline.n_frames):,} declared frames"
    if declared and n_decoded < LEAST_SHARE_OF_FRAMES * min(timeline.n_frames, declared):
        return found
    if declared and n_decoded < declared // 2:  # an edit list that hides most of a video is more likely damage
        return found
    if declared and timeline.n_frames < LEAST_SHARE_OF_FRAMES * declared and timeline.n_frames < declared - 1:
        frames_s = min(0.5, FRAMES_MISSED_AT_THE_END / facts.fps) if facts.fps else 0.5
        return "" if _ends_as_declared(facts, timeline, frames_s) else found
    gap_s = float((timeline.last - last_decoded) * timeline.time_base)
    if gap_s > max(0.5, 0.02 * timeline.duration_s):
        return f"{found}; frames end {gap_s:.2f} s before the last packet"
    if not facts.audio_codec and not _ends_as_declared(facts, timeline, 0.5):
        return f"{found}; {timeline.duration_s:.2f} of {facts.declared_duration_s:.2f} declared seconds"
    return ""


def _ends_as_declared(facts: VideoFacts, timeline: Timeline, tolerance_s: float) -> bool:
    end_s = timeline.duration_s
    if facts.container.startswith(DURATION_FROM_ZERO):
        end_s += max(0.0, float(timeline.origin * timeline.time_base))
    missing_s = facts.declared_duration_s - end_s
    return missing_s <= max(tolerance_s, 0.02 * facts.declared_duration_s)
