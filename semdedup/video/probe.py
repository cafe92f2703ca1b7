"""Opening a video that may be hostile, and what its packets tell before anything is decoded."""

from __future__ import annotations

import errno
import os
import time
from array import array
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeVar

import av
from av.error import FFmpegError
from av.stream import Disposition

from semdedup.errors import ParameterError

FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,flv,ogg,asf,mxf,gif"
"""Containers that are opened. Playlists (HLS, DASH, SDP, ffconcat), which name other files and hosts, are not."""

EXTENSIONS = (
    *(".mp4", ".mov", ".avi", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".flv", ".ogv", ".ogm"),
    *(".wmv", ".asf", ".3gp", ".3g2", ".mxf", ".gif", ".vob"),
)
"""Files with these names are videos."""

REASONS = {
    "unreadable": "no container that is known, or damaged beyond opening",
    "no_video": "no video track",
    "no_frames": "a video track without a single frame",
    "truncated": "fewer frames than the file declares; clips before the end of what is there are kept",
    "encrypted": "the video is encrypted",
    "decode_error": "a frame cannot be decoded, or the decoder crashed; clips before it are kept",
    "timeout": "no progress for longer than the limit",
    "too_large": "more pixels or frames than the limits allow",
}
"""Why a video is quarantined."""

OUR_FAULT = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE})
"""Errors of writing that say nothing against the video."""

T = TypeVar("T")
Alive = Generator[None, None, T]
"""Work that yields now and then as a sign of life, and returns its result."""

SECONDS_BETWEEN_SIGNS = 1.0
DURATION_FROM_ZERO = ("matroska", "asf")
"""Containers in which many writers declare the time of the end, also where the first frame is later than zero."""

LEAST_SHARE_OF_FRAMES = 0.95
"""A video of which fewer of the declared frames come out is truncated. A few are lost where a stream starts midway."""

FRAMES_MISSED_AT_THE_END = 3
"""Where packets are fewer than declared frames, as with two fields to a frame, the last must be as late as declared,
give or take so many frames."""

SECONDS_BACK_IS_A_JUMP = 1.0
"""Where the clock of a file goes back by more, another recording begins, which is shown after the one before it."""


class Pulse:
    """Tells when the next sign of life is due."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def due(self) -> bool:
        """Whether one should be given now, at this call."""
        now = time.monotonic()
        if now - self._last < SECONDS_BETWEEN_SIGNS:
            return False
        self._last = now
        return True


class VideoFault(Exception):
    """What is wrong with a video: one of `REASONS`, and what was found."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


@dataclass(frozen=True)
class Limits:
    """What one video may cost.

    Attributes:
        max_pixels: width times height of a frame; 8K has 33 million.
        max_frames: frames of a video; ten million are 92 hours at 30 a second.
        timeout_s: seconds without any progress after which a video is given up.
    """

    max_pixels: int = 64_000_000
    max_frames: int = 10_000_000
    timeout_s: float = 120.0

    def __post_init__(self) -> None:
        for name in ("max_pixels", "max_frames", "timeout_s"):
            if not getattr(self, name) > 0:
                raise ParameterError(f"{name} must be more than 0; got {getattr(self, name)}")


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
        """The packets of the video, without a last one that the end of the file cuts short: its frame is damaged."""
        held = None
        for packet in self.container.demux(self.stream):
            if held is not None and packet.size:
                yield held
            held = packet if packet.is_corrupt else None
            if held is None:
                yield packet

    def timeline(self) -> Alive[Timeline]:
        """Read all packets, decode none.

        A container that ends in an error gives the timeline up to there; decoding will meet the same error.

        Raises:
            VideoFault: ``encrypted``, ``too_large``, or ``no_frames`` and ``truncated`` where there are no packets.
        """
        stream = self.stream
        base = stream.time_base or Fraction(1, 90_000)
        rate = stream.average_rate or stream.guessed_rate or Fraction(25)
        step = max(1, round(1 / (rate * base)))
        shown, keys = array("q"), array("q")
        n_bytes = n_packets = shift = 0
        end, decoded = -(2**62), None
        fault, pulse = "", Pulse()
        try:
            for packet in self.packets():
                if packet.size == 0:
                    continue
                if packet.has_sidedata("encryption_info"):
                    raise VideoFault("encrypted", f"{self.facts().codec} packets are encrypted")
                when = packet.pts if packet.pts is not None else packet.dts
                when = (when if when is not None else n_packets * step) + shift
                if packet.dts is not None:
                    if decoded is not None and (decoded - packet.dts) * base > SECONDS_BACK_IS_A_JUMP:
                        shift += end - when  # two recordings in one file; the decoder goes on in the same way
                        when = end
                    decoded = packet.dts
                n_packets += 1
                n_bytes += packet.size
                if packet.is_keyframe:
                    keys.append(when)
                if not packet.is_discard:
                    shown.append(when)
                    end = max(end, when + (packet.duration or step))
                if n_packets > self.limits.max_frames:
                    raise VideoFault("too_large", f"more than {self.limits.max_frames:,} frames")
                if pulse.due():
                    yield
        except FFmpegError as error:
            fault = error_text(error)
        if not shown:
            declared = stream.frames
            if fault:
                raise VideoFault("unreadable", fault)
            if declared:
                raise VideoFault("truncated", f"0 of {declared:,} declared frames are in the file")
            raise VideoFault("no_frames", "the video track is empty")
        origin, last = min(shown), max(shown)
        return Timeline(
            time_base=base,
            origin=origin,
            end=max(end, last + 1) - origin,
            last=last - origin,
            n_frames=len(shown),
            n_bytes=n_bytes,
            keyframes=tuple(sorted(key - origin for key in keys if key >= origin)),
        )


def open_container(path: str, limits: Limits) -> Any:
    """Open a local file for reading with nothing but the formats above, and without reaching for anything else.

    Raises:
        VideoFault: ``unreadable``.
    """
    try:
        opened: Any = av.open(
            os.path.abspath(path),
            # The first two are for the container, the third for the decoders that look into its first packets. As
            # `stream_options` it would reach the first track only, and FLV and MPEG, without a list of them, fail.
            options={
                "format_whitelist": FORMATS,
                "protocol_whitelist": "file",
                "max_pixels": str(limits.max_pixels),
            },
            timeout=limits.timeout_s,
            metadata_errors="replace",
        )
        return opened
    except (FFmpegError, OSError, ValueError) as error:  # PyAV raises ValueError for some malformed headers
        raise VideoFault("unreadable", error_text(error)) from error


def error_text(error: Exception) -> str:
    """An error of FFmpeg without the path, which stands beside it anyway."""
    log = getattr(error, "log", None)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (f"{text}: {log[2]}" if log and log[2] else text).strip()


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
    told = f"{n_decoded:,} of {max(declared, timeline.n_frames):,} declared frames"
    if declared and n_decoded < LEAST_SHARE_OF_FRAMES * min(timeline.n_frames, declared):
        return told
    if declared and n_decoded < declared // 2:  # an edit list that hides most of a video is more likely damage
        return told
    if declared and timeline.n_frames < LEAST_SHARE_OF_FRAMES * declared and timeline.n_frames < declared - 1:
        frames_s = min(0.5, FRAMES_MISSED_AT_THE_END / facts.fps) if facts.fps else 0.5
        return "" if _ends_as_declared(facts, timeline, frames_s) else told
    gap_s = float((timeline.last - last_decoded) * timeline.time_base)
    if gap_s > max(0.5, 0.02 * timeline.duration_s):
        return f"{told}; frames end {gap_s:.2f} s before the last packet"
    if not facts.audio_codec and not _ends_as_declared(facts, timeline, 0.5):
        return f"{told}; {timeline.duration_s:.2f} of {facts.declared_duration_s:.2f} declared seconds"
    return ""


def _ends_as_declared(facts: VideoFacts, timeline: Timeline, tolerance_s: float) -> bool:
    end_s = timeline.duration_s
    if facts.container.startswith(DURATION_FROM_ZERO):
        end_s += max(0.0, float(timeline.origin * timeline.time_base))
    missing_s = facts.declared_duration_s - end_s
    return missing_s <= max(tolerance_s, 0.02 * facts.declared_duration_s)
