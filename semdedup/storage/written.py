"""What a block of code wrote: name, size and checksum of every file, for the record that will name it.

Whoever writes a file through a `Location` need not know of this: while a block is inside `collecting`, each finished
file is noted, by its name relative to a folder.
"""

from __future__ import annotations

import contextlib
import contextvars
import ctypes
import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import xxhash

CHECKSUM_BYTES = 1 << 16
"""Bytes that are hashed at a time: larger buffers get fresh pages for each file under Dask's allocator (2 GB in 1,000
files: 0.2 s so, 0.8 s with 1 MiB)."""

START_WRITING = 2
"""``SYNC_FILE_RANGE_WRITE`` of Linux: begin to write the pages of a file to disk, and do not wait."""


class Written(NamedTuple):
    """Size and checksum (XXH3, 128 bits, as hexadecimal text) of a finished file."""

    n_bytes: int
    checksum: str


@dataclass
class Collector:
    """Files that were finished below a folder, by their names relative to it.

    Attributes:
        prefix: URL of the folder.
        passing: URL of a folder in there whose files are gone when the work is done: of them the size is enough.
        lasting: URL of a folder in that, whose files are not.
        files: what was noted.
    """

    prefix: str
    passing: str
    lasting: str
    files: dict[str, Written] = field(default_factory=dict)

    def is_passing(self, url: str) -> bool:
        """Whether a file will be gone when the work is done."""
        return bool(self.passing) and url.startswith(self.passing) and not url.startswith(self.lasting)

    def note(self, url: str, written: Written) -> None:
        """Note a file by its name relative to the folder."""
        self.files[url[len(self.prefix) :]] = written


_collector: contextvars.ContextVar[Collector | None] = contextvars.ContextVar("semdedup_collector", default=None)


@contextlib.contextmanager
def collecting(folder: str, passing: str = "", lasting: str = "") -> Iterator[dict[str, Written]]:
    """Note every file that this block finishes below a folder; the arguments are URLs, see `Collector`.

    Threads that the block starts take part where they run in a copy of its context.
    """
    prefix, passing, lasting = (url.rstrip("/") + "/" * bool(url) for url in (folder, passing, lasting))
    collector = Collector(prefix, passing, lasting)
    token = _collector.set(collector)
    try:
        yield collector.files
    finally:
        _collector.reset(token)


def _collector_of(url: str) -> Collector | None:
    """The collector that a file belongs to, if there is one."""
    collector = _collector.get()
    return collector if collector is not None and url.startswith(collector.prefix) else None


def note_bytes(url: str, content: bytes) -> None:
    """Note a file that was written from memory."""
    if (collector := _collector_of(url)) is not None:
        checksum = "" if collector.is_passing(url) else xxhash.xxh3_128_hexdigest(content)
        collector.note(url, Written(len(content), checksum))


def note_file(url: str, path: Path, durable: bool) -> None:
    """Note a finished local file that is about to be at `url`; where it stays on this disk, begin to write it out.

    Cost: a reading of the file, from memory mostly (14 GB/s measured).
    """
    if (collector := _collector_of(url)) is None:
        return
    if collector.is_passing(url):
        collector.note(url, Written(os.stat(path).st_size, ""))
        return
    with open(path, "rb", buffering=0) as file:
        collector.note(url, Written(*_checksum(file)))
        if durable:
            start_writing_out(file.fileno())


class NotedStream:
    """A file that is written piece by piece to a store, and noted at its end."""

    def __init__(self, file: Any) -> None:
        self._file, self._digest, self._n_bytes = file, xxhash.xxh3_128(), 0

    def write(self, piece: Any) -> int:
        """Write a piece."""
        self._digest.update(piece)
        self._n_bytes += len(piece)
        return int(self._file.write(piece))

    def note(self, url: str) -> None:
        """Note the file, which is complete now."""
        if (collector := _collector_of(url)) is not None:
            collector.note(url, Written(self._n_bytes, self._digest.hexdigest()))


def checksum_of(file: Any) -> str:
    """The checksum of what is left to read of an open file."""
    return _checksum(file)[1]


def _checksum(file: Any) -> tuple[int, str]:
    digest, n_bytes, buffer = xxhash.xxh3_128(), 0, bytearray(CHECKSUM_BYTES)
    view = memoryview(buffer)
    while n := file.readinto(buffer):
        digest.update(view[:n])
        n_bytes += n
    return n_bytes, digest.hexdigest()


def start_writing_out(descriptor: int) -> None:
    """Tell the system to begin to write a file to disk, so that forcing it later finds little left; Linux only."""
    function = getattr(ctypes.CDLL(None), "sync_file_range", None) if os.name == "posix" else None
    if function is not None:
        function(ctypes.c_int(descriptor), ctypes.c_int64(0), ctypes.c_int64(0), ctypes.c_uint(START_WRITING))


def force_names_to_disk(folder: str) -> None:
    """Wait until the names in a folder are on the disk, where this may be asked and the file system knows of it."""
    try:
        force_to_disk(folder)
    except OSError as error:  # a folder that others own; file systems that take no fsync of a folder
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EINVAL, errno.EBADF, errno.ENOTSUP, errno.ENOSYS):
            raise


def force_to_disk(path: str) -> int:
    """Wait until a file is on the disk; the bytes of the file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        return os.fstat(descriptor).st_size
    finally:
        os.close(descriptor)
