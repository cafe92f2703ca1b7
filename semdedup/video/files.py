"""The videos of the input: which files there are, by which names they go, and a path to open each by."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from semdedup.errors import InputError, StorageError
from semdedup.storage.faults import chain, is_passing, repeated
from semdedup.storage.location import FileInfo, Location
from semdedup.video.probe import EXTENSIONS
from semdedup.video.quarantine import ERRORS_OF_THIS_MACHINE, VideoFault
from semdedup.video.records import VideoFile
from semdedup.video.temporary import temporary_folder

PATTERN = re.compile(r"[*?\[]")


def find_videos(paths: Sequence[Location], output: Location, unique_stems: bool = False) -> list[VideoFile]:
    """List videos: files, folders at any depth, and patterns, in the order of their relative paths.

    What is below the output is left out, so that clips do not become videos. Names that begin with ``.`` are not
    videos either: macOS leaves such files beside every video.

    Raises:
        InputError: no such path, no videos, or two videos of one relative path (with `unique_stems`: of one name).
    """
    found: dict[str, VideoFile] = {}
    seen: list[str] = []
    for path in paths:
        root, files = _listed(path)
        seen += [file.url for file in files]
        for file in files:
            below_output = file.url.startswith(output.url.rstrip("/") + "/")
            if below_output or not file.url.lower().endswith(EXTENSIONS) or file.url.rsplit("/", 1)[-1].startswith("."):
                continue
            video = VideoFile(printable(file.url[len(root) :].lstrip("/")), file.url, file.n_bytes, file.stamp)
            other = found.setdefault(video.relative_path, video)
            if other.url != video.url:
                raise InputError(
                    f"two videos go by the name {video.relative_path!r}: {other.url} and {video.url}. Clips are named "
                    "after the path below the input folder; give one folder that holds both."
                )
    if not found:
        kinds = sorted({os.path.splitext(url)[1] or "no ending" for url in seen})
        held = f"{len(seen)} files ({', '.join(kinds[:5])})" if seen else "no files"
        raise InputError(
            f"no videos in {', '.join(map(str, paths))}: there are {held}. Videos end in {', '.join(EXTENSIONS)}; what "
            "lies below the output folder does not count."
        )
    if unique_stems:
        _check_stems(found)
    return [found[name] for name in sorted(found)]


def _check_stems(names: Iterable[str]) -> None:
    stems: dict[str, str] = {}
    for name in names:
        other = stems.setdefault(os.path.splitext(os.path.basename(name))[0], name)
        if other != name:
            raise InputError(f"two clips would get the same id, the name of the file: {other} and {name}; rename one")


def _listed(path: Location) -> tuple[str, list[FileInfo]]:
    """Files of one path, and the folder that their names are relative to."""
    if path.is_dir():
        return path.url, path.files()
    if path.exists():
        return path.parent.url, [path.info()]
    files = path.glob() if PATTERN.search(path.url) else []
    if not files:
        raise InputError(f"no such path: {path}")
    fixed = path.url[: PATTERN.search(path.url).start()]  # type: ignore[union-attr]
    return fixed.rsplit("/", 1)[0], files


@contextlib.contextmanager
def local_copy(video: Location) -> Iterator[str]:
    """The path of a video on this machine: its own, or that of a copy for the time of the block.

    Raises:
        VideoFault: it is no regular file, or is gone (``unreadable``); or may not be read (``permission``).
        StorageError: the store does not answer, or the copy does not fit here.
    """
    with contextlib.ExitStack() as stack:
        try:
            if video.is_local:
                path = video.url
                if not stat.S_ISREG(os.stat(path).st_mode):
                    raise VideoFault("unreadable", "not a regular file")
                _read(video, 0)
            else:
                path = str(stack.enter_context(temporary_folder()) / "video")
                video.fetch(Path(path))
        except (OSError, StorageError) as error:
            raise (read_fault(error, video.is_local) or error) from error
        yield path


def check_readable(path: str) -> None:
    """Read a local file to its end, for what FFmpeg calls an error of the input may be one of the disk.

    Raises:
        VideoFault: ``io_error`` where the disk fails each time.
        StorageError: this machine cannot read at all.
    """
    try:
        _read(Location(path))
    except StorageError as error:
        raise (read_fault(error, True) or error) from error


@repeated
def _read(file: Location, most: int | None = None) -> None:
    """Open a local file and read it to its end, or so many pieces of it."""
    with file.errors("read"), open(file.url, "rb", buffering=0) as opened:
        for _ in itertools.count() if most is None else range(most):
            if not opened.read(1 << 22):
                return


def can_be_read(video: Location) -> bool:
    """Whether a local file gives its first bytes here; a video that does not serves not to try the workers with."""
    if not video.is_local:
        return True
    try:
        with open(video.url if os.path.isfile(video.url) else os.devnull, "rb", buffering=0) as file:
            return bool(file.read(1))
    except OSError:
        return False


def read_fault(error: Exception, is_local: bool) -> VideoFault | None:
    """What a failure to read a video says of this video alone; None where it is one of the machine or the store."""
    cause = next((found for found in chain(error) if isinstance(found, OSError)), None)
    if cause is None or cause.errno in ERRORS_OF_THIS_MACHINE - {errno.EACCES}:
        return None
    detail = cause.strerror or str(cause)
    if isinstance(cause, PermissionError):
        return VideoFault("permission", detail)
    if isinstance(cause, FileNotFoundError):
        return VideoFault("unreadable", detail)
    if not is_local:
        return None  # the store fails for every video
    return VideoFault("io_error", detail) if is_passing(cause) else VideoFault("unreadable", detail)


def printable(name: str) -> str:
    """A file name as text that any table and JSON file can hold: bytes that are no UTF-8 are written as ``\\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
