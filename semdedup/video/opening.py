"""Opening a file that may be hostile, and which of its tracks are used."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator, Sequence
from typing import Any

import av
from av.error import ExitError, FFmpegError
from av.stream import Disposition

from semdedup.video.options import Limits
from semdedup.video.quarantine import ERRORS_OF_THIS_MACHINE, VideoFault, error_text
from semdedup.video.ranges import RangeFile

FORMATS = "mov,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,ogg,asf,mxf,gif"
"""Containers that are opened. Playlists (HLS, DASH, SDP, ffconcat), which name other files and hosts, are not."""

DEFAULT_COUNTS = 5_000_000
"""Pixels, or channels, that a track which is marked as default counts more, where FFmpeg chooses one."""


def open_container(file: str | RangeFile, limits: Limits) -> Any:
    """Open a file for reading with nothing but the formats above, and without reaching for anything else.

    Raises:
        VideoFault: ``unreadable``.
        MemoryError: there is no memory left.
    """
    try:
        opened: Any = av.open(
            os.path.abspath(file) if isinstance(file, str) else file,
            # The first two are for the container, the third for the decoders that look into its first packets. As
            # `stream_options` it would reach the first track only, and FLV and MPEG, without a list of them, fail.
            options={"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": str(limits.max_pixels)},
            # What waits for a store is no decoder that hangs; the process is given up after that time all the same.
            timeout=limits.timeout_s if isinstance(file, str) else None,
            metadata_errors="replace",
        )
        return opened
    except MemoryError:
        raise
    except ExitError as error:
        raise VideoFault("timeout", f"opening took longer than {limits.timeout_s:g} s") from error
    except (FFmpegError, OSError, ValueError) as error:  # PyAV raises ValueError for some malformed headers
        if getattr(error, "errno", None) in ERRORS_OF_THIS_MACHINE - {errno.EACCES}:
            raise
        raise VideoFault("unreadable", error_text(error)) from error


def video_stream(container: Any, track: int | None) -> Any:
    """The video track that is meant. FFmpeg takes the one with most pixels; one that is marked as default has
    `DEFAULT_COUNTS` more. A cover is no video.
    """
    streams = list(container.streams.video)
    videos = [s for s in streams if not s.disposition & Disposition.attached_pic and s.codec_context is not None]
    if track is not None:
        videos = [stream for stream in videos if stream is streams[track]] if track < len(streams) else []
    if not videos:
        kinds = sorted({stream.type for stream in container.streams})
        wanted = "" if track is None else f"video track {track} is wanted; "
        raise VideoFault("no_video", f"{wanted}tracks: {', '.join(kinds) or 'none'}")
    return max(videos, key=lambda s: s.codec_context.width * s.codec_context.height + _default(s))


def audio_stream(container: Any) -> Any:
    """The audio track that is used: as FFmpeg chooses, that with most channels. None where there is none."""
    streams = list(container.streams.audio)
    return max(streams, key=lambda s: (s.codec_context.channels if s.codec_context else 0) + _default(s), default=None)


def _default(stream: Any) -> int:
    return DEFAULT_COUNTS if stream.disposition & Disposition.default else 0


def left_out(container: Any, used: Sequence[Any]) -> Iterator[str]:
    """The video and audio tracks that are not used, in words."""
    for stream in container.streams:
        if stream.type not in ("video", "audio") or any(stream is other for other in used):
            continue
        context = stream.codec_context
        name = context.codec.canonical_name if context is not None else "unknown codec"
        if stream.type == "audio":
            detail = f"{context.channels} channels" if context is not None else ""
        else:
            detail = f"{context.width}x{context.height}" if context is not None else ""
            detail = "cover" if stream.disposition & Disposition.attached_pic else detail
        yield f"{stream.type} track {stream.index}: {name} {detail}".rstrip()
