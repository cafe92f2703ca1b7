"""What is there, and listings of folders that leave nothing out: what cannot be listed is an error that names it."""

from __future__ import annotations

import contextlib
import heapq
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from fsspec.utils import glob_translate

from semdedup.errors import ParameterError
from semdedup.storage.faults import repeated
from semdedup.storage.file_columns import texts
from semdedup.storage.file_list import FileInfo, FileList, FileListBuilder
from semdedup.storage.folders import FolderFiles, Listing, depth_first, local_entries, mode_of, size_and_stamp
from semdedup.storage.path import StoragePath
from semdedup.storage.stores import FLAT, S3, stamp_of, store_of

MAGIC = re.compile(r"[*?\[]")
"""What makes a path a pattern."""


@dataclass(frozen=True)
class ListedPath(StoragePath):
    """A path of which is told what is there, and what lies below."""

    @repeated
    def exists(self) -> bool:
        """Whether a file or a folder is there. Raises `StorageError` where that cannot be told."""
        with self.errors("look up"):
            return mode_of(self.url) is not None if self.is_local else bool(self.fs.exists(self.url))

    @repeated
    def is_dir(self) -> bool:
        """Whether it is a folder, or a link to one."""
        with self.errors("look up"):
            return stat.S_ISDIR(mode_of(self.url) or 0) if self.is_local else bool(self.fs.isdir(self.url))

    @repeated
    def info(self) -> FileInfo:
        """Size and stamp of one file."""
        with self.errors("look up"):
            if self.is_local:
                n_bytes, stamp = size_and_stamp(self.url)
                return FileInfo(self.url, n_bytes, str(stamp))
            return self._file_info(self.fs.info(self.url))

    @repeated
    def files(self) -> FileList:
        """All files below this folder, at any depth, in the order of their paths. An absent folder has none.

        Links to folders are not followed, and listed like files.

        Memory: that of the list, and what one folder or one page of a listing holds; in gs:// and az:// 1 kB a file
        while they are listed.

        Raises:
            StorageError: this folder, or one in there, which is named, cannot be listed.
        """
        builder = FileListBuilder()
        with self.errors("list"):
            if self.is_local and os.path.isfile(self.url):
                return FileList.of([self.info()])
            self.forget_listings()
            if self._has_pages:
                for _, entries in self._pages(""):
                    self._add(builder, entries)
            elif not self.is_local and store_of(self.url) in FLAT:
                self._add(builder, self.fs.find(self.url, detail=True).values())
            else:
                depth_first(self.url, lambda url: self.at(url)._entries(), builder)
            found = builder.finish()
            return found.ordered() if found or self.is_local else self._itself()

    def _itself(self) -> FileList:
        """This path as a list of one file, where it is one in a store; else nothing."""
        with contextlib.suppress(FileNotFoundError):
            entry = self.fs.info(self.url)
            return FileList.of([self._file_info(entry)] if entry["type"] != "directory" else [])
        return FileList()

    @repeated
    def walk(self) -> Listing:
        """The files below this folder, at any depth, through links to folders as well; each folder once.

        A link that leads to a folder that was listed, or to one around this folder, is not followed, for there would be
        no end. Of several names of a folder its own comes first, but after all comes what begins with ``_`` or ``.``.

        Raises:
            StorageError: this folder, or one in there, which is named, cannot be listed.
        """
        return self._walk([self.url], FileList())

    def _walk(self, folders: Sequence[str], matched: FileList) -> Listing:
        """The files below folders in this one, or this one itself, and some that were found already."""
        real_top = self.real_url(self.url)
        if not self.is_local:
            found = FileList.joined([matched, *(self.at(folder).files() for folder in folders)])
            return Listing(found.ordered().once(), (), self.url, real_top)
        builder, linked = FileListBuilder(), [url for url in matched.urls() if os.path.islink(url)]
        links, reals = list[str](), dict[str, str]()
        if not self._add_plain(folders, builder, linked):
            builder, linked = FileListBuilder(), [url for url in matched.urls() if os.path.islink(url)]
            links, reals = self._add_through_links(folders, builder, linked)
        found = FileList.joined([matched, builder.finish()]).ordered()
        found = found.once() if matched or len(folders) > 1 else found
        reals |= {folder: os.path.realpath(folder or "/") for folder in matched.folders()}
        targets = {url: os.path.realpath(url) for url in linked}
        if targets:
            is_link = np.fromiter((url in targets for url in found.urls()), dtype=bool, count=len(found))
            found = FileList.joined([found.filter(~is_link), found.filter(is_link)])
        return Listing(found, links, self.url, real_top, reals, targets)

    def _add_plain(self, folders: Sequence[str], builder: FileListBuilder, linked: list[str]) -> bool:
        """Add the files below folders; False where there is a link to a folder, which this does not follow."""
        links: list[str] = []

        def entries(url: str) -> tuple[Sequence[str], FolderFiles]:
            names, files = self.at(url)._entries(links, linked)
            return ([], FolderFiles(url)) if links else (names, files)

        for folder in folders:
            if links or (folder != self.url and os.path.islink(folder)):
                return False
            depth_first(folder, entries, builder)
        return not links

    def _add_through_links(
        self, folders: Sequence[str], builder: FileListBuilder, linked: list[str]
    ) -> tuple[list[str], dict[str, str]]:
        """Add the files below folders and behind links; the links that are not followed, and folders' real places."""
        around, seen, not_followed = f"{os.path.realpath(self.url)}/", set[str](), list[str]()
        rest: list[tuple[bool, bool, str]] = []  # whether it comes last, whether it is a link, the path
        reals: dict[str, str] = {}

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
            reals[url] = real
            links: list[str] = []
            names, files = self.at(url)._entries(links, linked)
            files.give(builder, 0)
            for name in names:
                add(f"{files.folder}{name}", last, False)
            for folder in links:
                add(folder, last, True)
        return sorted(not_followed), reals

    def real_url(self, url: str) -> str:
        """What a path in this storage has in common with all its other names."""
        if self.is_local:
            return os.path.realpath(url)
        protocols = self.fs.protocol
        return f"{protocols if isinstance(protocols, str) else protocols[0]}://{url.partition('://')[2]}"

    def _entries(
        self, links: list[str] | None = None, linked: list[str] | None = None
    ) -> tuple[Sequence[str], FolderFiles]:
        """Names of the folders right in this folder, and its files in order; nothing where it is not there.

        `links` and `linked` are as for `local_entries`.
        """
        with self.errors("list"):
            if self.is_local:
                return local_entries(self.url, links, linked)
            folder = f"{self.url.rstrip('/')}/"
            names, files = list[str](), FolderFiles(folder)
            with contextlib.suppress(FileNotFoundError):
                for folders, entries in self._pages("/") if self._has_pages else self._listed():
                    names += [url[len(folder) :] for url in map(self._url_of, folders) if url.startswith(folder)]
                    for entry in entries:
                        if (url := self._url_of(entry["name"])).startswith(folder):
                            files.add(url[len(folder) :], entry["size"], stamp_of(entry))
            return names, files.order()

    def _listed(self) -> Iterator[tuple[Sequence[str], Sequence[Mapping[str, Any]]]]:
        """Names of the folders right in this folder of a store, and what it says of the files; all at once."""
        listed = self.fs.ls(self.url, detail=True)
        folders = [entry["name"] for entry in listed if entry["type"] == "directory"]
        yield folders, [entry for entry in listed if entry["type"] != "directory"]

    @property
    def _has_pages(self) -> bool:
        """Whether the store can be asked for a listing page by page."""
        return not self.is_local and store_of(self.url) is S3 and not self.fs.version_aware

    def _pages(self, delimiter: str) -> Iterator[tuple[Sequence[str], Sequence[Mapping[str, Any]]]]:
        """As `_listed`, in parts of a thousand; without a delimiter the files at any depth, in the order of keys."""
        bucket, key, _ = self.fs.split_path(self.url)
        asked = {"Bucket": bucket, "Prefix": f"{key}/" if key else "", "Delimiter": delimiter, **self.fs.req_kw}
        while True:
            page = self.fs.call_s3("list_objects_v2", **asked)
            files = [
                {**entry, "name": f"{bucket}/{entry['Key']}", "size": entry["Size"]}
                for entry in page.get("Contents", ())
            ]
            yield [f"{bucket}/{each['Prefix'][:-1]}" for each in page.get("CommonPrefixes", ())], files
            if not page.get("IsTruncated"):
                return
            asked["ContinuationToken"] = page["NextContinuationToken"]

    def _add(self, builder: FileListBuilder, entries: Sequence[Mapping[str, Any]]) -> None:
        """Add files to a list, as the store tells of them."""
        for entry in entries:
            folder, slash, name = self._url_of(entry["name"]).rpartition("/")
            builder.add(folder + slash, (name,), (entry["size"],), (stamp_of(entry),))

    @repeated
    def glob(self, deep: bool = False) -> FileList:
        """All files that match this path read as a pattern (``*``, ``?``, ``[…]``, ``**``), in order.

        Args:
            deep: a folder that matches stands for all files below it.

        Raises:
            ParameterError: it is no pattern, or one of buckets.
            StorageError: a folder that may hold such files, which is named, cannot be listed.
        """
        fixed, parts = split_pattern(self.url)
        found: list[FileList] = []
        for match in self.at(fixed)._matching(parts, through_links=False):
            if isinstance(match, FileList):
                found.append(match)
            elif deep:
                found.append(match.files())
        return FileList.joined(found).ordered().once()

    @repeated
    def walk_matches(self) -> Listing:
        """`walk` of all files and folders that match this path read as a pattern; see `glob` for what it raises."""
        fixed, parts = split_pattern(self.url)
        matches = list(self.at(fixed)._matching(parts, through_links=True))
        folders = sorted(match.url for match in matches if isinstance(match, ListedPath))
        return self.at(fixed)._walk(folders, FileList.joined(match for match in matches if isinstance(match, FileList)))

    def _matching(self, parts: Sequence[str], through_links: bool) -> Iterator[FileList | Self]:
        """Files and folders below this folder whose relative path matches a pattern, given part by part."""
        part, *rest = parts
        if "**" in part:
            pattern, start = pattern_of("/".join(parts)), len(self.url.rstrip("/")) + 1
            listed = self.walk().files if through_links else self.files()
            are_so = (pattern.match(url[start:]) is not None for url in listed.urls())
            yield listed.filter(np.fromiter(are_so, dtype=bool, count=len(listed)))
            return
        if rest and not MAGIC.search(part):
            yield from self.at(f"{self.url.rstrip('/')}/{part}")._matching(rest, through_links)
            return
        pattern = pattern_of(part)
        links: list[str] | None = [] if through_links else None
        names, files = self._entries(links)
        for folder in (self.at(url) for url in [*(f"{files.folder}{name}" for name in names), *(links or [])]):
            if pattern.match(folder.url.rpartition("/")[2]):  # nothing where a key has two slashes in a row
                yield from folder._matching(rest, through_links) if rest else [folder]
        if not rest:  # what marks a folder in a store has no name

            def matches(found: pa.BinaryArray) -> pa.BooleanArray:
                return pa.array([pattern.match(name or self.name) is not None for name in texts(found)], pa.bool_())

            yield files.listed().where(matches)

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
