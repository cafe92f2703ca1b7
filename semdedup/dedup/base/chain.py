"""A result and the earlier ones that it was compared with, found through records and checked to be as they were."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, TypedDict

import pyarrow as pa
import xxhash

from semdedup.dedup.names import (
    CENTROIDS,
    CLUSTER_FOLDER,
    IDENTIFY,
    KMEANS,
    PAIRWISE,
    QUARANTINE,
    WITHDRAWN,
    WITHDRAWN_IDS,
    WITNESSES,
)
from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.runs.files import changed_files
from semdedup.runs.identity import relative_path, resolve_path
from semdedup.runs.record import Record
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import open_parquet
from semdedup.storage.written import Written


class Entry(TypedDict):
    """How a record names a base: its path as seen from the folder of that record, and its commit."""

    path: str
    commit: str


@dataclass(frozen=True)
class Link:
    """One result of a chain, as its records tell of it; nothing of its tables is read.

    Attributes:
        root: its folder.
        cache: the folder that holds its clusters and their record; mostly the same.
        steps: what is known of the steps that are complete, by name.
    """

    root: Location
    cache: Location = field(repr=False)
    steps: Mapping[str, Mapping[str, Any]] = field(repr=False)

    @classmethod
    def read(cls, root: Location) -> Link:
        """The result in a folder.

        Raises:
            InputError: there is none, or its clusters are not complete.
        """
        if not root.exists():
            raise InputError(f"base: no such path: {root}")
        try:
            record = Record(root)
            cached = record if KMEANS in record.steps or record.cache_root is None else Record(record.cache_root)
        except OutputConflictError as error:
            raise InputError(f"base: {error}") from error
        places = {KMEANS: cached, PAIRWISE: cached, IDENTIFY: record}
        steps = {name: entry for name, place in places.items() if (entry := place.committed(name)) is not None}
        link = cls(root, cached.root, steps)
        if record.old:
            raise InputError(f"base: {root} was made by semdedup 0.1, whose results new rows cannot be compared with")
        if KMEANS not in steps or PAIRWISE not in steps:
            missing = " and ".join(name for name in (KMEANS, PAIRWISE) if name not in steps)
            raise InputError(
                f"base: {root} holds no complete result of the dedup: the step {missing} is not on record as complete. "
                "Name the folder that SemanticDeduplicationWorkflow or semdedup dedup wrote to, and finish that run."
            )
        return link

    @property
    def commit(self) -> str:
        """What identifies its clusters, scores and ids to drop, wherever they are."""
        commits = (self.steps[name]["commit"] if name in self.steps else "" for name in (KMEANS, PAIRWISE, IDENTIFY))
        return xxhash.xxh3_128("\n".join(commits).encode()).hexdigest()

    @property
    def bases(self) -> Sequence[Entry]:
        """The bases on its record, the oldest first; paths are as seen from `cache`."""
        return self.facts(KMEANS).get("bases", ())

    def facts(self, step: str) -> Mapping[str, Any]:
        """Facts of a step."""
        return self.steps[step]["facts"]

    def parameters(self, step: str) -> Mapping[str, Any]:
        """Parameters of a step."""
        return self.steps[step]["parameters"]

    def _names(self, step: str) -> Mapping[str, Written]:
        return self.steps.get(step, {}).get("files", {})

    def _files(self, root: Location, step: str, folder: str) -> list[FileInfo]:
        inside = f"{folder}/" if folder else ""
        return [
            FileInfo((root / name).url, written.n_bytes, written.checksum)
            for name, written in sorted(self._names(step).items())
            if name.startswith(inside) and name.endswith(".parquet")
        ]

    @cached_property
    def clusters(self) -> list[FileInfo]:
        """The files of its clusters, by their record."""
        found = self._files(self.cache, KMEANS, self.parameters(KMEANS)["folder"])
        return [file for file in found if CLUSTER_FOLDER.search(file.url)]

    @property
    def quarantine(self) -> list[FileInfo]:
        """The files that tell of its rows that could not be compared."""
        return self._files(self.cache, KMEANS, QUARANTINE)

    @property
    def duplicates(self) -> list[FileInfo]:
        """The files of its ids to drop."""
        return self._files(self.root, IDENTIFY, self.parameters(IDENTIFY)["folder"])

    @property
    def withdrawn(self) -> list[FileInfo]:
        """The file of the ids that it withdrew from its bases, if there is one."""
        files = self._files(self.cache, PAIRWISE, WITHDRAWN)
        return [file for file in files if file.url.endswith(f"/{WITHDRAWN_IDS}")]

    @property
    def witnesses(self) -> list[FileInfo]:
        """The files that tell for whose sake its duplicates go, where its removal rule has such."""
        return self._files(self.root, IDENTIFY, WITNESSES)

    @property
    def centroids(self) -> Location:
        """The file of its centroids."""
        return self.cache / CENTROIDS

    @cached_property
    def schema(self) -> pa.Schema:
        """Columns of its clusters."""
        with open_parquet(self.cache.at(self.clusters[0].url)) as file:
            return file.schema_arrow

    @property
    def kept(self) -> int:
        """Rows that stayed under its eps, those among them that later links withdrew."""
        return self.facts(IDENTIFY)["rows"] - self.facts(IDENTIFY)["duplicates"]

    def check(self) -> None:
        """Make sure that its clusters and ids to drop are all there in their size, as its records tell.

        Raises:
            InputError: naming what is missing or was changed.
        """
        withdrawn = {name: each for name, each in self._names(PAIRWISE).items() if name.startswith(f"{WITHDRAWN}/")}
        faults = changed_files(self.cache, {**self._names(KMEANS), **withdrawn})
        faults += changed_files(self.root, self._names(IDENTIFY))
        if faults:
            raise InputError(
                f"base: {len(faults)} files of {self.root} are not as they were written: {'; '.join(faults[:3])}. "
                "Run the command that made it again: it makes anew what is missing."
            )

    def check_kept(self) -> None:
        """Refuse a base that no eps was applied to: it has no kept rows."""
        if IDENTIFY not in self.steps:
            raise ParameterError(
                f"base: {self.root} was made without eps, so that none of its rows is known to be kept. Run it again "
                "with eps (--eps)."
            )


def chain_of(root: Location) -> tuple[Link, ...]:
    """The result in a folder and all its bases, the oldest first, itself the last. Cost: the records are read.

    Raises:
        InputError: a result is not there, or is another than it was; the message names it.
    """
    last = Link.read(root)
    return (*links_of(last.bases, last.cache), last)


def links_of(entries: Sequence[Entry], root: Location) -> list[Link]:
    """The results that the record of a folder names as bases; as for `chain_of`."""
    links = []
    for entry in entries:
        link = Link.read(resolve_path(entry["path"], root))
        if link.commit != entry["commit"]:
            raise InputError(
                f"base: {link.root} is not what it was when {root} was compared with it: it was made anew or changed "
                f"since. Put back what was there, or make {root} anew."
            )
        link.check_kept()
        links.append(link)
    return links


def eps_of(root: Location) -> float:
    """The eps of the result in a folder. Raises `ParameterError` where it has none."""
    link = Link.read(root)
    link.check_kept()
    return link.parameters(IDENTIFY)["eps"]


def entries_of(links: Sequence[Link], root: Location) -> list[Entry]:
    """How the record of a folder names the links of a chain."""
    return [{"path": relative_path(link.root, root), "commit": link.commit} for link in links]
