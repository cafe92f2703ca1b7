"""What is there, and listings of folders that leave nothing out: what cannot be listed is an error that names it."""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fsspec.utils import glob_translate

from semdedup.errors import ParameterError
from semdedup.storage.faults import repeated
from semdedup.storage.path import StoragePath
from semdedup.storage.stores import stamp_of

MAGIC = re.compile(r"[*?\[]")
"""What makes a path a pattern."""


@dataclass(frozen=True)
class FileInfo:
    """A file as its storage lists it: where it is, how many bytes, and a stamp that changes with its content."""

    url: str
    n_bytes: int
    stamp: str


@dataclass(frozen=True)
class ListedPath(StoragePath):
    """A path of which is told what is there, and what lies below."""

    @repeated
    def exists(self) -> bool:
        """Whether a file or a folder is there. Raises `StorageError` where that cannot be told."""
        with self.errors("look up"):
            return _mode(self.url) is not None if self.is_local else bool(self.fs.exists(self.url))

    @repeated
    def is_dir(self) -> bool:
        """Whether it is a folder, or a link to one."""
        with self.errors("look up"):
            return stat.S_ISDIR(_mode(self.url) or 0) if self.is_local else bool(self.fs.isdir(self.url))

    @repeated
    def info(self) -> FileInfo:
        """Size and stamp of one file."""
        with self.errors("look up"):
            return _local_info(self.url) if self.is_local else self._file_info(self.fs.info(self.url))

    @repeated
    def files(self) -> list[FileInfo]:
        """All files below this folder, at any depth, in the order of their paths. An absent folder has none.

        Links to folders are not followed, and listed like files.

        Raises:
            StorageError: this folder, or one in there, which is named, cannot be listed.
        """
        with self.errors("list"):
            if not self.is_local:
                self.forget_listings()
                found = [self._file_info(entry) for entry in self.fs.find(self.url, detail=True).values()]
            elif os.path.isfile(self.url):
                found = [_local_info(self.url)]
            else:
                found = self._local_files()
        return sorted(found, key=lambda file: file.url)

    def _local_files(self) -> list[FileInfo]:
        found: list[FileInfo] = []
        rest = [self.url]
        while rest:
            folders, files = self.at(rest.pop())._entries()
            rest += folders
            found += files
        return found

    def _entries(self) -> tuple[list[str], list[FileInfo]]:
        """URLs of the folders right in this folder, and the files; nothing where it is not there."""
        with self.errors("list"):
            if self.is_local:
                return _local_entries(self.url)
            try:
                listed = self.fs.ls(self.url, detail=True)
            except FileNotFoundError:
                return [], []
            inside = [entry for entry in listed if self._url_of(entry["name"]).startswith(self.url.rstrip("/") + "/")]
            folders = [self._url_of(entry["name"]) for entry in inside if entry["type"] == "directory"]
            return folders, [self._file_info(entry) for entry in inside if entry["type"] != "directory"]

    @repeated
    def glob(self, deep: bool = False) -> list[FileInfo]:
        """All files that match this path read as a pattern (``*``, ``?``, ``[…]``, ``**``), in order.

        Args:
            deep: a folder that matches stands for all files below it.

        Raises:
            ParameterError: it is no pattern, or one of buckets.
            StorageError: a folder that may hold such files, which is named, cannot be listed.
        """
        fixed, parts = split_pattern(self.url)
        found = {file.url: file for file in self.at(fixed)._matching(parts, deep)}
        return [found[url] for url in sorted(found)]

    def _matching(self, parts: Sequence[str], deep: bool) -> Iterator[FileInfo]:
        """Files below this folder whose relative path matches a pattern, given part by part."""
        part, *rest = parts
        if "**" in part:
            pattern, start = pattern_of("/".join(parts)), len(self.url.rstrip("/")) + 1
            yield from (file for file in self.files() if pattern.match(file.url[start:]))
            return
        if rest and not MAGIC.search(part):
            yield from self.at(f"{self.url.rstrip('/')}/{part}")._matching(rest, deep)
            return
        pattern = pattern_of(part)
        folders, files = self._entries()
        for folder in (self.at(url) for url in folders):
            if rest and pattern.match(folder.name):
                yield from folder._matching(rest, deep)
            elif deep and pattern.match(folder.name):
                yield from folder.files()
        if not rest:
            yield from (file for file in files if pattern.match(self.at(file.url).name))

    @repeated
    def sizes(self) -> dict[str, int]:
        """Bytes of the files right in this folder, by name."""
        with self.errors("list"):
            entries = self.fs.ls(self.url, detail=True)
        return {entry["name"].rstrip("/").rsplit("/", 1)[-1]: entry["size"] for entry in entries}

    @repeated
    def folder_names(self) -> list[str]:
        """Names of the files and folders right in this folder."""
        with self.errors("list"):
            return sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in self.fs.ls(self.url, detail=False))

    def _file_info(self, entry: Mapping[str, Any]) -> FileInfo:
        """What an entry of a listing of an object store says."""
        return FileInfo(self._url_of(entry["name"]), entry["size"], stamp_of(entry))

    def _url_of(self, name: str) -> str:
        return f"{self.url.partition('://')[0]}://{name.lstrip('/')}"


def _mode(path: str) -> int | None:
    """What a path leads to, as ``st_mode`` tells it; None where there is nothing."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have this name
        return None


def _local_info(path: str) -> FileInfo:
    try:
        found = os.stat(path)
    except OSError:  # a link that leads nowhere is listed; opening it fails with its name
        return FileInfo(path, 0, str(os.lstat(path).st_mtime_ns))
    return FileInfo(path, found.st_size, str(found.st_mtime_ns))


def _local_entries(folder: str) -> tuple[list[str], list[FileInfo]]:
    """Paths of the folders right in a folder, and the files, without those that went while they were listed."""
    folders: list[str] = []
    files: list[FileInfo] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    files.append(_local_info(entry.path))
    return folders, files


def pattern_of(text: str) -> re.Pattern[str]:
    """A pattern of names or relative paths as a regular expression."""
    try:
        return re.compile(glob_translate(text))
    except (ValueError, re.error) as error:
        raise ParameterError(f"the pattern {text!r} means nothing: {error}") from None


def split_pattern(url: str) -> tuple[str, list[str]]:
    """The folder that a pattern is looked for in, and the parts of the rest.

    >>> split_pattern("/videos/20*/raw/*.mp4")
    ('/videos', ['20*', 'raw', '*.mp4'])
    """
    found = MAGIC.search(url)
    fixed = (url if found is None else url[: found.start()]).rpartition("/")[0]
    if fixed.endswith(":/"):
        raise ParameterError(f"the pattern {url!r} must name the bucket")
    return fixed or "/", [part for part in url[len(fixed) :].split("/") if part]
