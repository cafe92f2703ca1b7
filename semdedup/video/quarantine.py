"""Why a video or a clip is put into quarantine: every reason there is, and the exceptions that carry one."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from av.error import ExitError, FFmpegError

REASONS = {
    "unreadable": "no container that is known, or damaged beyond opening",
    "no_video": "no video track",
    "no_frames": "a video track without a single frame",
    "truncated": "fewer frames than the file declares; clips before the end of what is there are kept",
    "encrypted": "the video is encrypted",
    "decode_error": "too many frames cannot be decoded, or the decoder crashed; clips before that are kept",
    "encode_error": "no clip of the video can be encoded",
    "timeout": "no progress for longer than the limit",
    "io_error": "the disk or the network failed while the file was read",
    "permission": "the file may not be read",
    "too_large": "more pixels or frames than the limits allow",
    "too_long": "longer than the limits allow",
    "too_many_clips": "more clips than the limits allow",
    "out_of_memory": "decoding or encoding it takes more memory than the limit; clips before that are kept",
}
"""The reasons, each with its sentence. A new one is added here and nowhere else."""

EMBED_ERROR, CAPTION_ERROR, NO_WINDOW = "embed_error", "caption_error", "no_window"

CLIP_REASONS = {
    "encode_error": "the clip cannot be encoded or written as MP4",
    EMBED_ERROR: "the embedding function or model failed, or gave no finite vector; the clip is kept without embedding",
    CAPTION_ERROR: "the captioning model failed, or gave no text; the clip is kept without caption",
    NO_WINDOW: "the clip has too few frames for a caption, or too many; it is kept without",
}
"""Those for a clip, whose video goes on."""

OF_THE_MOMENT = frozenset({"timeout", "io_error", "permission", EMBED_ERROR, CAPTION_ERROR})
"""Reasons that say nothing about the bytes of a video: the next run tries it again."""

ERRORS_OF_THIS_MACHINE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EMFILE})
"""Errors that say nothing against the video."""

ERRORS_OF_WRITING = ERRORS_OF_THIS_MACHINE | {errno.EIO, errno.ESTALE, errno.EREMOTEIO}
"""Those where a clip is written. Of reading, FFmpeg says EIO of content as well: `worker` reads the file to tell."""


class Fault(Exception):
    """One of the `reasons`, and what was found."""

    reasons: ClassVar[Mapping[str, str]]

    def __init__(self, reason: str, detail: str) -> None:
        if reason not in self.reasons:
            raise KeyError(f"the reason {reason!r} is not in the table of semdedup.video.quarantine; add it there")
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail


class VideoFault(Fault):
    """What is wrong with a video: one of `REASONS`."""

    reasons = REASONS


class ClipFault(Fault):
    """What is wrong with a clip, or with some of a batch: one of `CLIP_REASONS`."""

    reasons = CLIP_REASONS


def is_tried_again(row: Mapping[str, Any]) -> bool:
    """Whether a row of the table of videos tells of a video, or a clip of it, that failed by the moment."""
    reasons = [row["reason"], *(fault["reason"] for fault in row.get("clip_faults") or ())]
    return not OF_THE_MOMENT.isdisjoint(reasons)


class GoneFault(VideoFault):
    """A video was listed and is not there any more. If it comes back, as it was, the next run tries it again."""


def error_text(error: Exception) -> str:
    """An error of FFmpeg without the path, which is recorded beside it anyway."""
    log = getattr(error, "log", None)
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return (f"{text}: {log[2]}" if log and log[2] else text).strip()


@contextlib.contextmanager
def pyav_errors(where: str = "", writing: bool = False, passing: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Around calls of PyAV, and around nothing else: its errors become faults of the video.

    Args:
        where: said before the error.
        writing: whether they encode or write a file.
        passing: errors that the caller looks at.

    Raises:
        VideoFault: ``decode_error``, or ``encode_error`` of `writing`; ``timeout``.
        MemoryError: there is no memory left; it ends the process that decodes.
        OSError: the error is about this machine (a full disk, say) and not about the video.
    """
    try:
        yield
    except (FFmpegError, ValueError, OverflowError) as error:
        if isinstance(error, (MemoryError, *passing)):
            raise
        if isinstance(error, ExitError):
            raise VideoFault("timeout", "reading took longer than the limit") from error
        if getattr(error, "errno", None) in (ERRORS_OF_WRITING if writing else ERRORS_OF_THIS_MACHINE):
            raise
        detail = f"{where}: {error_text(error)}" if where else error_text(error)
        raise (VideoFault("encode_error", detail) if writing else VideoFault("decode_error", detail)) from error
