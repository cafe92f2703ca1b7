"""Folders gone through so that their files come in order, each folder read once and forgotten."""

from __future__ import annotations

import contextlib
import errno
import heapq
import os
import stat
from bisect import bisect_left
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Self

import numpy as np
import pyarrow as pa

from semdedup.storage.batches import ROWS_PER_BATCH
from semdedup.storage.file_columns import name_column, stamp_values, texts, url_texts
from semdedup.storage.file_list import AT_A_TIME, FileList, FileListBuilder


class FolderFiles:
    """The files right in one folder, which are put in order once all are there.

    Of many files, runs of `ROWS_PER_BATCH` are put in order as they come, and merged at the end. Memory: twice their
    columns.
    """

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self._files: list[tuple[str, int, int | str]] = []
        self._runs: list[pa.RecordBatch] = []
        self._ordered: FileList | None = None

    def add(self, name: str, n_bytes: int, stamp: int | str) -> None:
        """Add a file."""
        self._files.append((name, n_bytes, stamp))
        if len(self._files) == ROWS_PER_BATCH:
            self._files.sort()
            builder = FileListBuilder()
            self._add(builder, self._files)
            self._runs += builder.finish().batches
            self._files = []

    def _add(self, builder: FileListBuilder, files: Sequence[tuple[str, int, int | str]]) -> None:
        names, sizes, stamps = zip(*files, strict=True)
        builder.add(self.folder, names, sizes, stamps)

    def order(self) -> Self:
        """Put them in order."""
        self._files.sort()
        if self._runs:
            builder, merged = FileListBuilder(), heapq.merge(*map(_run, self._runs), self._files)
            while some := list(islice(merged, AT_A_TIME)):
                self._add(builder, some)
            self._ordered, self._files, self._runs = builder.finish(), [], []
        return self

    def before(self, name: str) -> int:
        """How many names come before this one."""
        if self._ordered is None:
            return bisect_left(self._files, name, key=lambda file: file[0])
        found, files = self.folder + name, self._ordered
        return bisect_left(range(len(files)), found, key=lambda i: files[i].url)

    def give(self, builder: FileListBuilder, start: int, stop: int | None = None) -> None:
        """Add the files [start, stop) to a list."""
        if self._ordered is not None:
            builder.add_list(self._ordered[start:stop])
        elif files := list(islice(self._files, start, stop)):
            self._add(builder, files)

    def listed(self) -> FileList:
        """They as a list."""
        builder = FileListBuilder()
        self.give(builder, 0)
        return builder.finish()


def depth_first(
    folder: str, entries: Callable[[str], tuple[Sequence[str], FolderFiles]], builder: FileListBuilder
) -> None:
    """Add all files below a folder to a list, in the order of their URLs.

    Args:
        folder: without its last slash.
        entries: names of the folders in a folder, and its files in order.
        builder: of the list.
    """
    stack: list[tuple[Iterator[str], FolderFiles, int]] = []

    def enter(url: str) -> None:
        names, files = entries(url)
        names = sorted(f"{name}/" for name in names)
        stack.append((_each(name_column(names) if len(names) > AT_A_TIME else names), files, 0))

    enter(folder)
    while stack:
        names, files, start = stack.pop()
        name = next(names, None)
        if name is None:
            files.give(builder, start)
            continue
        stop = files.before(name)
        files.give(builder, start, stop)
        stack.append((names, files, stop))
        enter(f"{files.folder}{name[:-1]}")


def _run(batch: pa.RecordBatch) -> Iterator[tuple[str, int, int | str]]:
    """Name, bytes and stamp of each file of a batch, some of them objects at a time."""
    for start in range(0, len(batch), AT_A_TIME):
        part = batch.slice(start, AT_A_TIME)
        yield from zip(texts(part["name"]), part["bytes"].to_pylist(), stamp_values(part["stamp"]), strict=True)


def _each(names: pa.BinaryArray | list[str]) -> Iterator[str]:
    """Names one after the other; of many, some are objects at a time."""
    if isinstance(names, list):
        yield from names
        return
    for start in range(0, len(names), AT_A_TIME):
        yield from texts(names[start : start + AT_A_TIME])


def local_entries(
    folder: str, links: list[str] | None = None, linked: list[str] | None = None
) -> tuple[list[str], FolderFiles]:
    """Names of the folders right in a local folder, and its files, without those that went while they were listed.

    Args:
        folder: its path.
        links: gets the paths of links to folders; without it they are among the files.
        linked: gets the paths of files that are links.
    """
    folders: list[str] = []
    files = FolderFiles(f"{folder.rstrip('/')}/")
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.name)
            elif not entry.is_symlink():
                with contextlib.suppress(FileNotFoundError):
                    found = entry.stat()
                    files.add(entry.name, found.st_size, found.st_mtime_ns)
            elif links is not None and leads_to_folder(entry.path):
                links.append(entry.path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    files.add(entry.name, *size_and_stamp(entry.path))
                    if linked is not None:
                        linked.append(entry.path)
    return folders, files.order()


def mode_of(path: str) -> int | None:
    """What a path leads to, as ``st_mode`` tells it; None where there is nothing."""
    try:
        return os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: no file can have this name
        return None


def leads_to_folder(link: str) -> bool:
    """Whether a link leads to a folder."""
    try:
        return stat.S_ISDIR(mode_of(link) or 0)
    except OSError as error:
        if error.errno == errno.ELOOP:  # links that lead to each other lead nowhere
            return False
        raise


def size_and_stamp(path: str) -> tuple[int, int]:
    """Bytes of a local file, and its stamp."""
    try:
        found = os.stat(path)
    except OSError:  # a link that leads nowhere is listed; opening it fails with its name
        return 0, os.lstat(path).st_mtime_ns
    return found.st_size, found.st_mtime_ns


@dataclass(frozen=True)
class Listing:
    """Files below a folder, links followed.

    Attributes:
        files: each under every name that it has there, in the order of their URLs; after these those that are links.
        links: links to folders that were not followed, for they lead to one that was listed, or to one around.
        top, real_top: URL of the folder, and of the place that is the same for all its names.
        folders: such a place for each folder that was reached through a link, by its URL.
        targets: such a place for each file that is a link, by its URL.
    """

    files: FileList = field(default_factory=FileList)
    links: Sequence[str] = ()
    top: str = ""
    real_top: str = ""
    folders: Mapping[str, str] = field(default_factory=dict)
    targets: Mapping[str, str] = field(default_factory=dict)

    def real_folder(self, folder: str) -> str:
        """The place that is the same for all names of a folder; both are given with their last slashes."""
        real = self.folders.get(folder[:-1]) if self.folders else None
        return f"{self.real_top.rstrip('/')}{folder[len(self.top.rstrip('/')) :]}" if real is None else f"{real}/"

    def real_places(self, files: FileList) -> Iterator[str]:
        """For some of the files, each, the place that is the same for all its names."""
        folder, real = "", ""
        for url in files.urls():
            if (target := self.targets.get(url)) is not None:
                yield target
                continue
            start = url.rfind("/") + 1
            if url[:start] != folder:
                folder = url[:start]
                real = self.real_folder(folder)
            yield real + url[start:]

    def are_links(self, batch: pa.RecordBatch) -> np.ndarray:
        """Which files of a batch are links, (n,) bool."""
        if not self.targets:
            return np.zeros(len(batch), dtype=bool)
        return np.array([url in self.targets for url in url_texts(batch)], dtype=bool)
