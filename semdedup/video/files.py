"""The videos of the input: which files there are, by which names they go, and a path to open each by."""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from semdedup.display import format_passed_over
from semdedup.errors import InputError, StorageError
from semdedup.storage.faults import chain, is_passing, repeated
from semdedup.storage.listing import MAGIC, split_pattern
from semdedup.storage.location import REQUESTS_IN_FLIGHT, FileInfo, Location
from semdedup.video.containers import EXTENSIONS, HEAD_BYTES, OTHERS, container_of, ending_of
from semdedup.video.quarantine import ERRORS_OF_THIS_MACHINE, GoneFault, VideoFault
from semdedup.video.records import VideoFile
from semdedup.video.temporary import temporary_folder

MANY = 1000
"""More files than this that were looked into are told."""

NO_VIDEOS = "that are no videos"
NO_CONTAINER = "in no container that is read"
HIDDEN = "whose names begin with a dot"
NO_FILES = "that are links to folders, or no regular files"
GONE = "that are gone"
"""Why a file is passed over. The last is not told: it is not there."""


class NoVideosError(InputError):
    """There is no such path, or there are no videos."""


@dataclass(frozen=True)
class FoundVideos:
    """The videos of the input, and what was passed over.

    Attributes:
        videos: in the order of their relative paths.
        passed_over: of each reason, how many files there are of each ending.
        n_looked_into: files whose endings tell nothing, so that their first bytes were read.
    """

    videos: Sequence[VideoFile]
    passed_over: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    n_looked_into: int = 0

    @property
    def others(self) -> str:
        """What was passed over, in words; empty where nothing was."""
        return format_passed_over(self.passed_over)

    def told(self) -> list[str]:
        """Lines on what was passed over, and on how many files were looked into where they are many."""
        looked = f"looked into {self.n_looked_into:,} files, whose endings tell nothing"
        return [f"passed over {self.others}"] * bool(self.others) + [looked] * (self.n_looked_into > MANY)


def below(folder: Location, names: str = "") -> re.Pattern[str]:
    """A pattern for URLs of what lies below a folder; with `names` of what has such a relative path."""
    return re.compile(f"{re.escape(folder.url.rstrip('/'))}/(?:{names})", re.DOTALL)


def find_videos(
    paths: Sequence[Location],
    own: re.Pattern[str],
    looked_into: MutableMapping[FileInfo, str] | None = None,
) -> FoundVideos:
    """List videos: files, folders at any depth, and patterns, in the order of their relative paths.

    A path that is a file is a video. In folders the ending tells, and where it says nothing the first bytes. Names that
    begin with ``.`` are not videos: macOS leaves such files beside every video.

    Args:
        paths: where to look.
        own: for URLs of what runs wrote, which is left out, so that clips do not become videos.
        looked_into: what an earlier call found in files, which are not opened again.

    Raises:
        NoVideosError: no such path, or no videos.
        InputError: two videos of one relative path.
    """
    found: dict[str, VideoFile] = {}
    passed_over: dict[str, str] = {}  # by URL, why
    unknown: list[tuple[str, Location, FileInfo]] = []
    for path in paths:
        root, files = _listed(path)
        for file in files:
            name = file.url.rpartition("/")[2]
            if own.match(file.url) or not name:  # no name: what marks a folder in an object store
                continue
            reason = "" if file.url == path.url else _why_by_name(name)
            if reason is None:
                unknown.append((root, path, file))
            elif reason:
                passed_over[file.url] = reason
            else:
                _add(found, root, file)
    reasons = look_into([(path, file) for _, path, file in unknown], {} if looked_into is None else looked_into)
    for (root, _, file), reason in zip(unknown, reasons, strict=True):
        if reason:
            passed_over[file.url] = reason
        else:
            _add(found, root, file)
    result = FoundVideos([found[name] for name in sorted(found)], _counted(passed_over), len(unknown))
    if not found:
        raise NoVideosError(
            f"no videos in {', '.join(map(str, paths))}: there are {result.others or 'no files'}. Videos end in "
            f"{', '.join(EXTENSIONS)}, or begin as such files do; what lies below the output folder does not count."
        )
    return result


def _add(found: dict[str, VideoFile], root: str, file: FileInfo) -> None:
    """Add a video, by its path relative to `root`."""
    video = VideoFile(printable(file.url[len(root) :].removeprefix("/")), file.url, file.n_bytes, file.stamp)
    other = found.setdefault(video.relative_path, video)
    if other.url != video.url:
        raise InputError(
            f"two videos go by the name {video.relative_path!r}: {other.url} and {video.url}. Clips are named "
            "after the path below the input folder; give one folder that holds both."
        )


def _why_by_name(name: str) -> str | None:
    """By its name, why a file is passed over; empty for a video, None where the name does not tell."""
    if name.startswith("."):
        return HIDDEN
    ending = ending_of(name)
    return "" if ending in EXTENSIONS else NO_VIDEOS if ending in OTHERS else None


def _counted(passed_over: Mapping[str, str]) -> dict[str, Counter[str]]:
    """Of each reason, how many files there are of each ending, by the reason of each file."""
    counts = {reason: Counter[str]() for reason in (NO_VIDEOS, NO_CONTAINER, HIDDEN, NO_FILES)}
    for url, reason in passed_over.items():
        if reason != GONE:
            counts[reason][ending_of(url.rpartition("/")[2])] += 1
    return {reason: endings for reason, endings in counts.items() if endings}


def look_into(files: Sequence[tuple[Location, FileInfo]], known: MutableMapping[FileInfo, str]) -> Iterator[str]:
    """By the first bytes of files, why each is passed over; empty for a video.

    Args:
        files: any path in the storage of each, and the file.
        known: what was found before, which is added to.
    """

    def look(item: tuple[Location, FileInfo]) -> str:
        storage, file = item
        if file not in known:
            known[file] = _why_no_video(storage.at(file.url), file.n_bytes)
        return known[file]

    with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
        for start in range(0, len(files), 8 * REQUESTS_IN_FLIGHT):
            yield from pool.map(look, files[start : start + 8 * REQUESTS_IN_FLIGHT])


def _why_no_video(place: Location, n_bytes: int) -> str:
    """Why a file is passed over. One that cannot be read may be a video: what is wrong is told where it is read."""
    try:
        if place.is_local:
            with place.errors("look up"):
                if not stat.S_ISREG(os.stat(place.url).st_mode):
                    return NO_FILES
        return NO_CONTAINER if not n_bytes or container_of(place.read_bytes(0, HEAD_BYTES)) is None else ""
    except StorageError as error:
        fault = read_fault(error, place.is_local)
        if fault is None:
            raise
        if _is_gone(place, error):
            return GONE
        return NO_FILES if fault.reason == "unreadable" else ""


def _is_gone(place: Location, error: Exception) -> bool:
    """Whether a file that was listed is not there any more, by the error of reading it; a link to nowhere is there."""
    absent = any(isinstance(cause, FileNotFoundError) for cause in chain(error))
    return absent and not (place.is_local and os.path.lexists(place.url))


def _listed(path: Location) -> tuple[str, Sequence[FileInfo]]:
    """Files of one path, and the folder that their names are relative to."""
    if path.is_dir():
        return path.url, path.files()
    if path.exists():
        return path.parent.url, [path.info()]
    files: Sequence[FileInfo] = path.glob(deep=True) if MAGIC.search(path.url) else []
    if not files:
        raise NoVideosError(f"no such path: {path}")
    return split_pattern(path.url)[0], files


@contextlib.contextmanager
def reading_video(video: Location) -> Iterator[None]:
    """Around what reads a video: what that says of this video alone becomes a fault of it.

    Raises:
        VideoFault: it may not be read (``permission``), or cannot be.
        GoneFault: it is not there any more (``unreadable``).
        StorageError: the store does not answer, or this machine cannot read or write at all.
    """
    try:
        yield
    except (OSError, StorageError) as error:
        fault = read_fault(error, video.is_local)
        if fault is not None and _is_gone(video, error):
            fault = GoneFault(fault.reason, fault.detail)
        if fault is None:
            raise
        raise fault from error


@contextlib.contextmanager
def local_copy(video: Location) -> Iterator[str]:
    """The path of a video on this machine: its own, or that of a copy for the time of the block.

    Raises:
        VideoFault: it is no regular file (``unreadable``); see `reading_video`.
        StorageError: the store does not answer, or the copy does not fit here.
    """
    with contextlib.ExitStack() as stack:
        with reading_video(video):
            if video.is_local:
                path = video.url
                if not stat.S_ISREG(os.stat(path).st_mode):
                    raise VideoFault("unreadable", "not a regular file")
                _read(video, 0)
            else:
                path = str(stack.enter_context(temporary_folder()) / "video")
                video.fetch(Path(path))
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
        fault = read_fault(error, True)
        if fault is None:
            raise
        raise fault from error


@repeated
def _read(file: Location, most: int | None = None) -> None:
    """Open a local file and read it to its end, or so many pieces of it."""
    with file.errors("read"), open(file.url, "rb", buffering=0) as opened:
        for _ in itertools.count() if most is None else range(most):
            if not opened.read(1 << 22):
                return


def can_be_read(video: Location) -> bool:
    """Whether a file gives its first byte here; a video that does not serves not to try the workers with."""
    if video.is_local and not os.path.isfile(video.url):
        return False
    try:
        return bool(video.read_bytes(0, 1))
    except StorageError:
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
