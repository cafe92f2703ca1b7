"""Files and folders that are local or in a store alike: reads, listings, and writes that are complete or absent."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from semdedup.errors import ParameterError, StorageError
from semdedup.storage.faults import is_unknown_operation, repeated
from semdedup.storage.listing import FileInfo, ListedPath
from semdedup.storage.s3 import KEYS_AT_ONCE, delete_objects, upload_options, whole_options
from semdedup.storage.stores import S3, await_copy, store_of
from semdedup.storage.temporary import temporary_prefix
from semdedup.storage.written import force_names_to_disk, force_to_disk, note_bytes, note_file

Paths = str | Sequence[str]
"""A path or several."""

UNFINISHED = re.compile(r"_[0-9a-f]{32}\.tmp|_probe-[0-9a-f]{12}(-w\d+)?")
"""Names of files that `Location.writing` has not finished, and of those by which a cluster was tried."""

READ_AHEAD = 8 << 20
"""Bytes that are fetched at a time where a file in a store is read from the beginning to the end."""

REQUESTS_IN_FLIGHT = 32
"""Requests to an object store that one process keeps in flight when it moves or deletes many objects."""


@dataclass(frozen=True)
class Location(ListedPath):
    """A file or folder, local or in an object store, and what can be done with it.

    >>> Location.of("/data/clips") / "emb" / "a.parquet"      # relative paths are resolved where this is called
    Location(url='/data/clips/emb/a.parquet')
    """

    @repeated
    def open(self, ahead: int = 0) -> BinaryIO:
        """Open a file for reading. Of a file in a store each read is one request for the bytes of that read alone.

        One request more tells its size; by what else that tells, S3 notices where a file is replaced between two reads.

        Args:
            ahead: bytes behind each read of a file in a store that are fetched and kept with it, for those who read
                from the beginning to the end: `READ_AHEAD`.
        """
        options: dict[str, Any] = {}
        if not self.is_local:
            options = {"cache_type": "readahead", "block_size": ahead} if ahead else {"cache_type": "none"}
        with self.errors("read"):
            return self.fs.open(self.url, "rb", **options)

    @repeated
    def read_bytes(self, start: int | None = None, end: int | None = None) -> bytes:
        """Content of a file, or its bytes ``[start, end)``: one request to a store."""
        whole = start is None and end is None and not self.is_local
        options = whole_options(self.url, self.fs) if whole else {"start": start, "end": end}
        with self.errors("read"):
            return self.fs.cat_file(self.url, **options)

    @repeated
    def read_into(self, start: int, memory: memoryview) -> int:
        """Fill memory with the bytes of a local file from `start` on; how many there are."""
        n_read = 0
        with self.errors("read"), open(self.url, "rb", buffering=0) as file:
            file.seek(start)
            while n_read < len(memory) and (n := file.readinto(memory[n_read:])):
                n_read += n
        return n_read

    def read_json(self) -> Any:
        """Content of a JSON file."""
        return json.loads(self.read_bytes())

    @repeated
    def write_bytes(self, content: bytes, forced: bool = False) -> None:
        """Write a file whole: a reader sees the old content, the new, or nothing; `forced`: after a power cut too."""
        if self.is_local:
            with self.writing() as path:
                path.write_bytes(content)
                if forced:
                    force_to_disk(str(path))
            if forced:
                with self.errors("force to disk"):
                    force_names_to_disk(os.path.dirname(self.url))
        else:
            self.check_writable()
            with self.errors("write"):
                self.fs.pipe_file(self.url, content)
            note_bytes(self.url, content)

    def write_json(self, value: Any, forced: bool = False) -> None:
        """Write a JSON file whole; see `write_bytes`."""
        self.write_bytes(json_bytes(value), forced)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """Give the path of a local temporary file to write to; it becomes this file when the block ends well.

        When the block raises, nothing is left. (An ``fsspec`` or ``ParquetWriter`` file in a ``with`` block would
        commit what was written so far.) Local files are renamed into place; others are uploaded as one object.
        """
        if self.is_local:
            with self.errors("write"):
                os.makedirs(os.path.dirname(self.url), exist_ok=True)
            temporary = Path(os.path.dirname(self.url), f"_{uuid.uuid4().hex}.tmp")
            try:
                with self.errors("write"):
                    yield temporary
                self.take(temporary)
            finally:
                temporary.unlink(missing_ok=True)
            return
        with tempfile.TemporaryDirectory(prefix=temporary_prefix()) as folder:
            path = Path(folder, "file")
            with self.errors("write"):
                yield path
            self.take(path)

    def take(self, path: Path) -> None:
        """Make a finished local file this file. Where this is local too, both must be on one file system."""
        note_file(self.url, path, durable=self.is_local)
        self._take(path)

    @repeated
    def _take(self, path: Path) -> None:
        with self.errors("write"):
            if self.is_local:
                os.makedirs(os.path.dirname(self.url), exist_ok=True)
                os.replace(path, self.url)
            else:
                self.check_writable()
                self.fs.put_file(str(path), self.url, **upload_options(self.url, os.stat(path).st_size))

    @repeated
    def fetch(self, path: Path) -> None:
        """Copy this file to a local path, a piece at a time."""
        with self.errors("read"):
            self.fs.get_file(self.url, str(path))

    def move_into(self, target: Location, check: Callable[[], None] = lambda: None) -> None:
        """Move everything below this folder to the same place below `target`; `check` is called before each move.

        A local folder is renamed in one step where it is absent from `target` or empty there; other local files are
        moved one by one, objects copied and deleted. Called again after an interruption, it moves what is left.
        Temporary files that `writing` left where its process was killed are deleted.
        """
        if self.is_local and target.is_local:
            if os.path.isdir(self.url):
                self._rename_into(target, check)
            return

        def copy(file: FileInfo) -> None:
            check()
            target.at(f"{target.url}{file.url[len(self.url) :]}")._copy_from(self.at(file.url))

        files = self.files()
        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
            for start in range(0, len(files), KEYS_AT_ONCE):
                part = files[start : start + KEYS_AT_ONCE]
                list(pool.map(copy, part))
                self.remove_files([self.at(file.url) for file in part])

    @repeated
    def _copy_from(self, source: Location) -> None:
        with self.errors("move to"):  # not fs.mv, which reads a path with * ? [ in it as a pattern
            self.fs.cp_file(source.url, self.url)
            await_copy(self.fs, self.url)

    @repeated
    def _rename_into(self, target: Location, check: Callable[[], None]) -> None:
        with self.errors("list"):
            for folder, _, names in os.walk(self.url):
                for name in filter(UNFINISHED.fullmatch, names):
                    os.unlink(os.path.join(folder, name))
        check()
        with target.errors("move to"):
            os.makedirs(os.path.dirname(target.url), exist_ok=True)
            with contextlib.suppress(OSError):  # not empty: go on with what is in it
                os.rename(self.url, target.url)
                return
            with os.scandir(self.url) as entries:
                found = sorted((entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries)
            for name, is_folder in found:
                if is_folder:
                    (self / name)._rename_into(target / name, check)
                else:
                    check()
                    os.replace(f"{self.url}/{name}", f"{target.url}/{name}")
            self.remove_if_empty()

    @repeated
    def remove(self) -> None:
        """Delete one file; one that is not there is fine."""
        with self.errors("delete"), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.url)

    def remove_files(self, places: Sequence[Location]) -> None:
        """Delete many files of this storage, side by side: one request a file, or `KEYS_AT_ONCE` files of S3.

        Raises:
            StorageError: a file that could not be deleted, which it names; the others may be gone.
        """
        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
            if store_of(self.url) is S3 and len(places) > 1:
                parts = [places[start : start + KEYS_AT_ONCE] for start in range(0, len(places), KEYS_AT_ONCE)]
                gone = list(pool.map(self._remove_at_once, parts))
                places = [place for part, is_gone in zip(parts, gone, strict=True) if not is_gone for place in part]
            list(pool.map(Location.remove, places))

    @repeated
    def _remove_at_once(self, places: Sequence[Location]) -> bool:
        """Delete files of one bucket of S3 by one request; whether the store knows such a request."""
        try:
            with self.errors("delete files of"):
                failed = delete_objects(self.fs, [place.url for place in places])
        except StorageError as error:
            if is_unknown_operation(error):  # not all that speak the protocol of S3 do
                return False
            raise
        for url, reason in failed.items():
            raise self.at(url).fault("delete", reason)
        return True

    def read_all(self, files: Sequence[FileInfo]) -> Iterator[tuple[FileInfo, bytes]]:
        """Contents of many small files, read side by side and given in order; some of them are in memory at a time."""
        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
            for start in range(0, len(files), 8 * REQUESTS_IN_FLIGHT):
                part = files[start : start + 8 * REQUESTS_IN_FLIGHT]
                yield from zip(part, pool.map(lambda file: self.at(file.url).read_bytes(), part), strict=True)

    def force(self) -> int:
        """Wait until a local file and its name, or the names in a local folder, are on the disk; the bytes of it."""
        if not self.is_local:
            return 0
        with self.errors("force to disk"):
            n_bytes = force_to_disk(self.url)
            force_names_to_disk(os.path.dirname(self.url))
        return n_bytes

    @repeated
    def remove_tree(self) -> None:
        """Delete this folder and everything in it. Only for folders that semdedup itself made."""
        if self.is_local:
            with self.errors("delete"):
                while os.path.lexists(self.url):  # again where something in it went meanwhile, which ends it early
                    with contextlib.suppress(FileNotFoundError):
                        shutil.rmtree(self.url)
            return
        self.remove_files([self.at(file.url) for file in self.files()])  # fs.rm would read * ? [ as a pattern

    def remove_if_empty(self) -> None:
        """Delete this folder if it holds nothing. Object stores have no such thing as an empty folder."""
        if self.is_local:
            with contextlib.suppress(OSError):
                os.rmdir(self.url)

    def remove_unfinished(self) -> None:
        """Delete the temporary files in this folder, not below, that a process left when it was killed."""
        if self.is_local and os.path.isdir(self.url):
            with self.errors("list"):
                names = os.listdir(self.url)
            for name in filter(UNFINISHED.fullmatch, names):
                (self / name).remove()


def json_bytes(value: Any) -> bytes:
    """How JSON is written: sorted, so that the same value gives the same bytes."""
    return json.dumps(value, indent=1, sort_keys=True).encode()


def storage_options_of(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """The ``storage_options`` of a ``read_kwargs``, ``write_kwargs`` or ``cache_kwargs``."""
    return dict((kwargs or {}).get("storage_options") or {})


def without_storage_options(kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """What is left of such options for PyArrow."""
    return {key: value for key, value in (kwargs or {}).items() if key != "storage_options"}


def locations_of(paths: Paths | None, kwargs: Mapping[str, Any] | None) -> Sequence[Location]:
    """The locations that the ``input_path`` and ``read_kwargs`` of a stage mean; none for no path."""
    if paths is None:
        return ()
    listed: Sequence[Any] = paths if isinstance(paths, (list, tuple)) else [paths]
    if not listed:
        raise ParameterError("input_path is an empty list")
    for path in listed:
        if not isinstance(path, (str, Location)) and not hasattr(path, "__fspath__"):
            raise ParameterError(f"a path, a glob or a list of these is needed here; got {type(path).__name__}")
    return [Location.of(path, storage_options_of(kwargs)) for path in listed]
