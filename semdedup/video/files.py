"""The videos of the input: which files there are, by which names they go, and a path to open each by."""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from semdedup.errors import InputError, StorageError
from semdedup.storage.location import FileInfo, Location
from semdedup.video.probe import EXTENSIONS
from semdedup.video.records import VideoFile

PATTERN = re.compile(r"[*?\[]")


def find_videos(paths: Sequence[Location], output: Location, unique_stems: bool = False) -> list[VideoFile]:
    """List videos: files, folders at any depth, and patterns, in the order of their relative paths.

    What lies below the output is left out, so that clips do not become videos. Names that begin with ``.`` are not
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


class Unreadable(Exception):
    """A file that is listed and cannot be opened."""


@contextlib.contextmanager
def local_copy(video: Location) -> Iterator[str]:
    """The path of a video on this machine: its own, or that of a copy for the time of the block.

    Raises:
        Unreadable: it is no regular file, or may not be read, or is gone.
    """
    if video.is_local:
        try:
            if not stat.S_ISREG(os.stat(video.url).st_mode):
                raise Unreadable("not a regular file")
            with open(video.url, "rb"):
                pass
        except OSError as error:
            raise Unreadable(error.strerror or str(error)) from error
        yield video.url
        return
    with tempfile.TemporaryDirectory(prefix="semdedup-") as folder:
        path = Path(folder, "video")
        try:
            video.fetch(path)
        except StorageError as error:
            if isinstance(error.__cause__, (FileNotFoundError, PermissionError)):
                raise Unreadable(str(error.__cause__)) from error
            raise
        yield str(path)


def printable(name: str) -> str:
    """A file name as text that any table and JSON file can hold: bytes that are no UTF-8 are written as ``\\xNN``."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
