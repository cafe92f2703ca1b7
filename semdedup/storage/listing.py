"""What is there, and listings of folders that leave nothing out: what cannot be listed is an error that names it."""

from __future__ import annotations

import contextlib
import errno
import functools
import heapq
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Self

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


class Listing(NamedTuple):
    """Files below a folder, links followed.

    Attributes:
        files: each under every name that it has there, links last; with the place that is the same for all its names.
        links: links to folders that were not followed, for they lead to one that was listed, or to one around.
    """

    files: list[tuple[str, FileInfo]]
    links: list[str]


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

    @repeated
    def walk(self) -> Listing:
        """The files below this folder, at any depth, through links to folders as well; each folder once.

        A link that leads to a folder that was listed, or to one around this folder, is not followed, for there would be
        no end. Of several names of a folder its own comes first, but after all comes what begins with ``_`` or ``.``.

        Raises:
            StorageError: this folder, or one in there, which is named, cannot be listed.
        """
        return self._walk([self.url], [])

    def _walk(self, folders: Sequence[str], matched: Sequence[FileInfo]) -> Listing:
        """The files below folders in this one, or this one itself, and some that were found already."""
        found = {file.url: file for file in matched}
        if not self.is_local:
            found |= {file.url: file for folder in folders for file in self.at(folder).files()}
            return Listing([(self.real_url(url), found[url]) for url in sorted(found)], [])
        around, seen, not_followed = f"{os.path.realpath(self.url)}/", set[str](), list[str]()
        rest: list[tuple[bool, bool, str]] = []  # whether it comes last, whether it is a link, the path

        def add(url: str, last: bool, is_link: bool) -> None:
            heapq.heappush(rest, (last or os.path.basename(url).startswith(("_", ".")), is_link, url))

        for folder in folders:
            add(folder, False, folder != self.url and os.path.islink(folder))
        while rest:
            last, is_link, url = heapq.heappop(rest)
            real = os.path.realpath(url)
            if real in seen or (is_link and around.startswith(f"{real.rstrip('/')}/")):
                not_followed += [url] * is_link
                continue
            seen.add(real)
            links: list[str] = []
            below, files = self.at(url)._entries(links)
            found |= {file.url: file for file in files}
            for folder in below:
                add(folder, last, False)
            for folder in links:
                add(folder, last, True)
        real_folder = functools.cache(os.path.realpath)
        named: list[tuple[str, FileInfo]] = []
        for is_link, url in sorted((os.path.islink(url), url) for url in found):
            folder, name = os.path.split(url)
            named.append((os.path.realpath(url) if is_link else os.path.join(real_folder(folder), name), found[url]))
        return Listing(named, sorted(not_followed))

    def real_url(self, url: str) -> str:
        """What a path in this storage has in common with all its other names."""
        if self.is_local:
            return os.path.realpath(url)
        protocols = self.fs.protocol
        return f"{protocols if isinstance(protocols, str) else protocols[0]}://{url.partition('://')[2]}"

    def _entries(self, links: list[str] | None = None) -> tuple[list[str], list[FileInfo]]:
        """URLs of the folders right in this folder, and the files; nothing where it is not there.

        Local links to folders are among the files, or are added to `links` where that is given.
        """
        with self.errors("list"):
            if self.is_local:
                return _local_entries(self.url, links)
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
        found: dict[str, FileInfo] = {}
        for match in self.at(fixed)._matching(parts, through_links=False):
            if isinstance(match, FileInfo):
                found[match.url] = match
            elif deep:
                found |= {file.url: file for file in match.files()}
        return [found[url] for url in sorted(found)]

    @repeated
    def walk_matches(self) -> Listing:
        """`walk` of all files and folders that match this path read as a pattern; see `glob` for what it raises."""
        fixed, parts = split_pattern(self.url)
        matches = sorted(self.at(fixed)._matching(parts, through_links=True), key=lambda match: match.url)
        folders = [match.url for match in matches if isinstance(match, ListedPath)]
        return self.at(fixed)._walk(folders, [match for match in matches if isinstance(match, FileInfo)])

    def _matching(self, parts: Sequence[str], through_links: bool) -> Iterator[FileInfo | Self]:
        """Files and folders below this folder whose relative path matches a pattern, given part by part."""
        part, *rest = parts
        if "**" in part:
            pattern, start = pattern_of("/".join(parts)), len(self.url.rstrip("/")) + 1
            listed = [file for _, file in self.walk().files] if through_links else self.files()
            yield from (file for file in listed if pattern.match(file.url[start:]))
            return
        if rest and not MAGIC.search(part):
            yield from self.at(f"{self.url.rstrip('/')}/{part}")._matching(rest, through_links)
            return
        pattern = pattern_of(part)
        links: list[str] | None = [] if through_links else None
        folders, files = self._entries(links)
        for folder in (self.at(url) for url in [*folders, *(links or [])]):
            if pattern.match(folder.url.rpartition("/")[2]):  # nothing where a key has two slashes in a row
                yield from folder._matching(rest, through_links) if rest else [folder]
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


def _leads_to_folder(link: str) -> bool:
    try:
        return stat.S_ISDIR(_mode(link) or 0)
    except OSError as error:
        if error.errno == errno.ELOOP:  # links that lead to each other lead nowhere
            return False
        raise


def _local_info(path: str) -> FileInfo:
    try:
        found = os.stat(path)
    except OSError:  # a link that leads nowhere is listed; opening it fails with its name
        return FileInfo(path, 0, str(os.lstat(path).st_mtime_ns))
    return FileInfo(path, found.st_size, str(found.st_mtime_ns))


def _local_entries(folder: str, links: list[str] | None = None) -> tuple[list[str], list[FileInfo]]:
    """Paths of the folders right in a folder, and the files, without those that went while they were listed."""
    folders: list[str] = []
    files: list[FileInfo] = []
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif links is not None and entry.is_symlink() and _leads_to_folder(entry.path):
                links.append(entry.path)
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
