"""What a path is, local or in a store: its parts, its file system, and the one door for errors of storage.

The ``repr`` of a path never shows its options, so that credentials stay out of logs, errors, task keys and tracebacks.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import fsspec

from semdedup.errors import OutputConflictError, ParameterError, SemdedupError, StorageError
from semdedup.storage.faults import is_absence, is_passing, is_refusal, is_storage_fault
from semdedup.storage.stores import S3, check_package, container_of, redacted, split_account, store_of

IN_A_BUCKET = ("write", "move to", "list")
"""Actions on a store of which "not found" may mean that the bucket is not there."""


@dataclass(frozen=True)
class StoragePath:
    """A path with the options to reach it. The options are never shown."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, path: str | os.PathLike[str] | Self, storage_options: Mapping[str, Any] | None = None) -> Self:
        """Return the location of a path; a relative local path is resolved against the current folder.

        Raises:
            ParameterError: for a path that is empty, that carries credentials, or whose protocol is not known.
        """
        if isinstance(path, cls):
            return path
        text = os.fspath(path) if isinstance(path, os.PathLike) else path
        if not isinstance(text, str) or not text:
            raise ParameterError(f"a path must be text that is not empty, got {path!r}")
        if storage_options is not None and not isinstance(storage_options, Mapping):
            raise ParameterError(f"storage_options must be a mapping; got {type(storage_options).__name__}")
        if "://" not in text:
            return cls(os.path.abspath(os.path.expanduser(text)), dict(storage_options or {}))
        protocol, _, rest = text.partition("://")
        if protocol in ("file", "local"):
            return cls(os.path.abspath("/" + rest.lstrip("/")), dict(storage_options or {}))
        rest, account = split_account(protocol, rest)
        if "@" in rest.split("/")[0]:
            raise ParameterError(
                f"the path {protocol}://…@… carries credentials; give them as storage_options or through a profile"
            )
        check_package(protocol)
        if not rest.strip("/"):
            store = store_of(text)
            raise ParameterError(f"the path {text!r} names no {store.container if store else 'place'}")
        return cls(f"{protocol}://{rest.rstrip('/')}", {**account, **(storage_options or {})})

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.url!r})"

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Self:
        return type(self)(f"{self.url.rstrip('/')}/{name}", self.options)

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
    def parent(self) -> Self:
        """The folder that holds it."""
        return type(self)(self.url.rstrip("/").rsplit("/", 1)[0] or "/", self.options)

    @cached_property
    def fs(self) -> Any:
        """The fsspec file system. Listings are never cached: other workers write into the same folders."""
        if self.is_local:
            return fsspec.filesystem("file")
        protocol = self.url.partition("://")[0]
        with self.errors("reach"):
            try:
                found = fsspec.filesystem(protocol, **{"use_listings_cache": False, **self.options})
                if protocol in S3.protocols:
                    found.connect()  # s3fs looks at what it is given only then
            except (TypeError, ValueError) as error:  # adlfs: ValueError
                if is_passing(error):
                    raise self.fault("reach", error) from error
                said = redacted(str(error), self.options)
                raise ParameterError(f"storage_options do not go with {protocol}://: {said}.{self._help()}") from None
            return found

    def forget_listings(self) -> None:
        """Let the next listing ask the store: huggingface_hub keeps listings whatever it is told."""
        if (store := store_of(self.url)) is not None and store.read_only:
            self.fs.invalidate_cache()

    def check_writable(self) -> None:
        """Refuse a path in a store that takes no files one by one.

        Raises:
            ParameterError: it is such a store.
        """
        if (store := store_of(self.url)) is not None and store.read_only:
            raise ParameterError(
                f"{self.url} can be read and not written to: choose an output path on a disk, in s3://, gs:// or "
                "az://, and upload the result from there"
            )

    def missing_container(self) -> str:
        """What to say where the bucket, container or repository of this path is not there; empty where it is.

        Of a store of another kind nothing is known.
        """
        store, container = store_of(self.url), container_of(self.url)
        if store is None:
            return ""
        with self.errors("look up"):
            if self.fs.exists(container):
                return ""
        return f"there is no {store.container} {container}, or none that these credentials may see.{self._help()}"

    def _help(self) -> str:
        store = store_of(self.url)
        return "" if store is None else f" {store.credentials}"

    @contextlib.contextmanager
    def errors(self, action: str) -> Iterator[None]:
        """Turn what storage raises into a `StorageError` that names the path and the action, never the options.

        The one door to storage: every operation of a `Location` is inside such a block.
        """
        try:
            yield
        except SemdedupError:
            raise
        except Exception as error:
            if not is_storage_fault(error) and not isinstance(error, OSError):
                raise
            raise self.fault(action, error) from error

    def fault(self, action: str, error: Exception) -> StorageError:
        """The `StorageError` that an operation on this path ends with."""
        store = None if self.is_local else store_of(self.url)
        refused = store is not None and is_refusal(error)
        missing = ""
        if store is not None and is_absence(error) and action in IN_A_BUCKET:
            with contextlib.suppress(SemdedupError):
                missing = self.missing_container()
        if missing:
            reason = missing
        elif isinstance(error, OSError):
            reason = error.strerror or str(error) or type(error).__name__
        else:
            reason = f"{type(error).__name__}: {error}"
        reason = redacted(reason.strip().splitlines()[0] if reason.strip() else type(error).__name__, self.options)
        full = isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT)
        hint = " Free some space and run the same command again: it goes on where it stopped." * full
        hint += self._help() * refused
        found = StorageError(f"cannot {action} {self.url}: {reason.rstrip('.')}.{hint}")
        found.passing = is_passing(error)
        return found

    def below(self, name: Any) -> Self:
        """The place of a name that is taken from a record or a journal, which must lie in this folder.

        Raises:
            OutputConflictError: the name is absolute, empty, or leads out of the folder.
        """
        parts = name.split("/") if isinstance(name, str) else [""]
        if any(part in ("", ".", "..") or "\0" in part or part.endswith(":") for part in parts):
            raise OutputConflictError(
                f"a record in {self.url} names {name!r}, which leads out of that folder. Nothing was changed. The "
                "record is damaged or was made to harm: choose another output path, or move this folder away."
            )
        return self / name

    def at(self, url: str) -> Self:
        """Another path in the same storage."""
        return type(self)(url, self.options)

    def around(self, n: int) -> list[Self]:
        """This folder and those around it, n in all, from the inside out."""
        places: list[Self] = []
        place = self
        while len(places) < n and (not places or place.url != places[-1].url):
            places.append(place)
            place = place.parent
        return places

    def absent_folders(self) -> list[Self]:
        """This folder and those around it that do not exist, from the inside out. Object stores have no folders."""
        absent: list[Self] = []
        place = self
        while place.is_local and not os.path.lexists(place.url):
            absent.append(place)
            place = place.parent
        return absent
