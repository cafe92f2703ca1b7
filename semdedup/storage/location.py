"""Paths that are local or ``s3://`` alike, and writes that are complete or absent.

A `Location` is a path with the options needed to reach it. Its ``repr`` never shows the options, so that credentials
stay out of logs, errors, task keys and tracebacks.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import fsspec

from semdedup.errors import ParameterError, StorageError

Paths = str | Sequence[str]
"""A path or several."""

UNFINISHED = re.compile(r"_[0-9a-f]{32}\.tmp|_probe-[0-9a-f]{12}(-w\d+)?")
"""Names of files that `Location.writing` has not finished, and of those by which a cluster was tried."""

REQUESTS_IN_FLIGHT = 32
"""Requests to an object store that one process keeps in flight when it moves or deletes many objects."""


@dataclass(frozen=True)
class FileInfo:
    """A file as its storage lists it: where it is, how many bytes, and a stamp that changes with its content."""

    url: str
    n_bytes: int
    stamp: str


@dataclass(frozen=True)
class Location:
    """A file or folder, local or in an object store.

    >>> Location.of("clips") / "emb" / "a.parquet"      # relative paths are resolved where this is called
    Location('/home/me/clips/emb/a.parquet')
    """

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, path: str | os.PathLike[str] | Location, storage_options: Mapping[str, Any] | None = None) -> Location:
        """Return the location of a path; a relative local path is resolved against the current folder.

        Raises:
            ParameterError: for a path that is empty, that carries credentials, or whose protocol is not known.
        """
        if isinstance(path, Location):
            return path
        text = os.fspath(path)
        if not isinstance(text, str) or not text:
            raise ParameterError(f"a path must be text that is not empty, got {path!r}")
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)), dict(storage_options or {}))
        protocol, _, rest = text.partition("://")
        if protocol == "file":
            return cls(os.path.abspath("/" + rest.lstrip("/")), dict(storage_options or {}))
        if "@" in rest.split("/")[0]:
            raise ParameterError(
                f"the path {protocol}://…@… carries credentials; give them as storage_options or through a profile"
            )
        if protocol not in fsspec.available_protocols():
            raise ParameterError(f"the path {text!r} has the protocol {protocol!r}, which is not known")
        return cls(text.rstrip("/"), dict(storage_options or {}))

    def __repr__(self) -> str:
        return f"Location({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Location:
        return Location(f"{self.url.rstrip('/')}/{name}", self.options)

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self.url, "options": self.options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    @property
    def is_local(self) -> bool:
        """Whether the path is on a file system of this machine (which other machines may share)."""
        return "://" not in self.url

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.url.rstrip("/").rsplit("/", 1)[-1]

    @property
    def parent(self) -> Location:
        """The folder that holds it."""
        return Location(self.url.rstrip("/").rsplit("/", 1)[0] or "/", self.options)

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system. Listings are never cached: other workers write into the same folders."""
        if self.is_local:
            return fsspec.filesystem("file")
        protocol = self.url.partition("://")[0]
        with self.errors("reach"):
            return fsspec.filesystem(protocol, **{"use_listings_cache": False, **self.options})

    @contextlib.contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Turn what storage raises into a `StorageError` that names the path and the action, never the options."""
        try:
            yield
        except StorageError:
            raise
        except OSError as error:
            hint = " Free some space and run the same command again: it goes on where it stopped." * (error.errno == 28)
            reason = error.strerror or str(error) or type(error).__name__
            raise StorageError(f"cannot {action} {self.url}: {reason}.{hint}") from error
        except Exception as error:  # botocore's errors have no base that can be named without importing it
            if type(error).__module__.split(".")[0] not in {"botocore", "aiobotocore", "aiohttp"}:
                raise
            raise StorageError(f"cannot {action} {self.url}: {type(error).__name__}: {error}") from error

    def exists(self) -> bool:
        """Whether a file or a folder is there."""
        with self.errors("look up"):
            return bool(self.fs.exists(self.url))

    def is_dir(self) -> bool:
        """Whether it is a folder."""
        with self.errors("look up"):
            return bool(self.fs.isdir(self.url))

    def info(self) -> FileInfo:
        """Size and stamp of one file."""
        with self.errors("look up"):
            return self._file_info(self.fs.info(self.url))

    def files(self) -> list[FileInfo]:
        """All files below this folder, at any depth, in the order of their paths. An absent folder has none."""
        with self.errors("list"):
            found = [self._file_info(entry) for entry in self.fs.find(self.url, detail=True).values()]
        return sorted(found, key=lambda file: file.url)

    def glob(self) -> list[FileInfo]:
        """All files that match this path read as a pattern (``*``, ``?``, ``[…]``, ``**``), in order."""
        with self.errors("list"):
            found = self.fs.glob(self.url, detail=True)
        files = [self._file_info(entry) for entry in found.values() if entry["type"] == "file"]
        return sorted(files, key=lambda file: file.url)

    def _file_info(self, entry: Mapping[str, Any]) -> FileInfo:
        if self.is_local:
            path = entry["name"]  # a link that leads nowhere is listed; whoever opens it tells of it
            found = os.stat(path) if os.path.exists(path) else os.lstat(path)
            return FileInfo(path, entry["size"], str(found.st_mtime_ns))
        url = f"{self.url.partition('://')[0]}://{entry['name'].lstrip('/')}"
        stamp = entry.get("ETag") or entry.get("etag") or entry.get("LastModified") or entry.get("mtime")
        return FileInfo(url, entry["size"], str(stamp))

    def at(self, url: str) -> Location:
        """Another path in the same storage."""
        return Location(url, self.options)

    def open(self) -> BinaryIO:
        """Open a file for reading. Remote files are read by ranges, without read-ahead of what nobody asked for."""
        with self.errors("read"):
            return self.fs.open(self.url, "rb", **({} if self.is_local else {"cache_type": "readahead"}))

    def read_bytes(self, start: int | None = None, end: int | None = None) -> bytes:
        """Content of a file, or its bytes ``[start, end)``."""
        with self.errors("read"):
            return self.fs.cat_file(self.url, start=start, end=end)

    def read_json(self) -> Any:
        """Content of a JSON file."""
        return json.loads(self.read_bytes())

    def write_bytes(self, content: bytes) -> None:
        """Write a file whole: a reader sees the old content, or the new, or nothing."""
        if not self.is_local:
            with self.errors("write"):
                self.fs.pipe_file(self.url, content)
            return
        with self.writing() as path:
            path.write_bytes(content)

    def write_json(self, value: Any) -> None:
        """Write a JSON file whole."""
        self.write_bytes(json_bytes(value))

    @contextlib.contextmanager
    def writing(self) -> Iterator[Path]:
        """Give the path of a local temporary file to write to; it becomes this file when the block ends well.

        When the block raises, nothing is left. (An ``fsspec`` or ``ParquetWriter`` file in a ``with`` block would
        commit what was written so far.) Local files are renamed into place; others are uploaded as one object.
        """
        if self.is_local:
            target = Path(self.url)
            with self.errors("write"):
                target.parent.mkdir(parents=True, exist_ok=True)
                temporary = target.parent / f"_{uuid.uuid4().hex}.tmp"
                try:
                    yield temporary
                    os.replace(temporary, target)
                finally:
                    temporary.unlink(missing_ok=True)
            return
        with self.errors("write"), tempfile.TemporaryDirectory(prefix="semdedup-") as folder:
            path = Path(folder, "file")
            yield path
            self.fs.put_file(str(path), self.url)

    def take(self, path: Path) -> None:
        """Make a finished local file this file. Where this is local too, both must be on one file system."""
        with self.errors("write"):
            if self.is_local:
                os.makedirs(os.path.dirname(self.url), exist_ok=True)
                os.replace(path, self.url)
            else:
                self.fs.put_file(str(path), self.url)

    def fetch(self, path: Path) -> None:
        """Copy this file to a local path, a piece at a time."""
        with self.errors("read"):
            self.fs.get_file(self.url, str(path))

    def move_into(self, target: Location) -> None:
        """Move everything below this folder to the same place below `target`.

        A local folder is renamed in one step where `target` does not exist or is empty; otherwise its files are moved
        one by one. Called again after an interruption, it moves what is left. Temporary files that `writing` left where
        its process was killed are deleted.
        """
        if self.is_local:
            for file in self.files():
                if UNFINISHED.fullmatch(self.at(file.url).name):
                    self.at(file.url).remove()
        if self.is_local and target.is_local and os.path.isdir(self.url):
            with self.errors("move"):
                os.makedirs(os.path.dirname(target.url), exist_ok=True)
                with contextlib.suppress(OSError):  # not empty: go on file by file
                    os.rename(self.url, target.url)
                    return
        prefix = len(self.url) + 1

        def move(file: FileInfo) -> None:
            destination = target / file.url[prefix:]
            with destination.errors("move to"):
                if self.is_local:
                    os.makedirs(os.path.dirname(destination.url), exist_ok=True)
                    os.replace(file.url, destination.url)
                else:  # not fs.mv, which reads a path with * ? [ in it as a pattern
                    self.fs.cp_file(file.url, destination.url)
                    self.fs.rm_file(file.url)

        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
            list(pool.map(move, self.files()))
        self.remove_tree()

    def remove(self) -> None:
        """Delete one file; one that is not there is fine."""
        with self.errors("delete"), contextlib.suppress(FileNotFoundError):
            self.fs.rm_file(self.url)

    def remove_tree(self) -> None:
        """Delete this folder and everything in it. Only for folders that semdedup itself made."""
        if self.is_local:
            shutil.rmtree(self.url, ignore_errors=True)
            return
        with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:  # fs.rm would read * ? [ in the path as a pattern
            list(pool.map(lambda file: self.at(file.url).remove(), self.files()))

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

    def absent_folders(self) -> list[Location]:
        """This folder and those around it that do not exist, from the inside out. Object stores have no folders."""
        absent: list[Location] = []
        place = self
        while place.is_local and not os.path.lexists(place.url):
            absent.append(place)
            place = place.parent
        return absent


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
    listed = [paths] if isinstance(paths, (str, Location)) or hasattr(paths, "__fspath__") else list(paths)
    if not listed:
        raise ParameterError("input_path is an empty list")
    return [Location.of(path, storage_options_of(kwargs)) for path in listed]
