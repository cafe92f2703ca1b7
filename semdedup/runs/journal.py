"""What the tasks of a run have done: each leaves its result and the files that it wrote as a small JSON file.

Entries have keys of their own, so that a plan may grow. An entry counts only while the files that it names are there in
their size: after a power cut a journal may have outlived them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xxhash

from semdedup.errors import OutputConflictError
from semdedup.storage.listing import FileInfo
from semdedup.storage.location import Location
from semdedup.storage.written import Written, collecting

ENDING, HOME, FINAL = ".json", "~/", "final"

FORMAT = 2
"""Of what tasks give back and of the files that they leave for others: what another version has done is done again."""


@dataclass(frozen=True)
class Entry:
    """What one task has done.

    Attributes:
        key: of its job.
        result: what its function gave back, as JSON values.
        written: files that it finished: below the root, by their relative names; in the scratch folder, whose name
            changes when another run goes on with it, as ``~/`` and the name in there.
    """

    key: str
    result: Any
    written: Mapping[str, Written]


@dataclass(frozen=True)
class Job:
    """A call that leaves an entry in a journal. Being done twice must do no harm."""

    function: Callable[[Any], Any]
    item: Any
    root: Location
    scratch: Location
    place: Location

    def __call__(self) -> tuple[Any, dict[str, Written]]:
        """Call the function on a worker, and note what it did."""
        with collecting(self.root.url, self.scratch.url, (self.scratch / FINAL).url) as written:
            result = self.function(self.item)
        written = within_scratch(written, self.root, self.scratch)
        self.place.write_bytes(json.dumps({"format": FORMAT, "result": result, "written": written}).encode())
        return result, written


def journal_of(scratch: Location, name: str) -> Location:
    """The folder with the entries of a part of a step."""
    return scratch / "journal" / name.replace(" ", "-")


def within_scratch(written: Mapping[str, Written], root: Location, scratch: Location) -> dict[str, Written]:
    """Names relative to the root, with ``~/`` for the scratch folder."""
    prefix = scratch.url[len(root.url.rstrip("/")) + 1 :] + "/"
    return {HOME + name[len(prefix) :] if name.startswith(prefix) else name: each for name, each in written.items()}


def run_job(job: Job) -> tuple[Any, dict[str, Written]]:
    """Call a job; a function of this module, for it travels to the workers."""
    return job()


def read_journal(
    root: Location, scratch: Location, folder: Location, wanted: Container[str] | None = None
) -> Iterator[Entry]:
    """The entries in a folder that count, one after the other; with `wanted`, of these keys alone.

    Cost: a request an entry, `REQUESTS_IN_FLIGHT` at a time, and a listing of the folders that the entries name files
    in, each once. Memory: 8 bytes for each file listed, and the entries that are being read; none is kept.
    """
    there = _Listed(root, scratch)
    for file, content in folder.read_all(_entries_in(folder, wanted)):
        entry = _entry(_key_of(folder, file), content)
        if entry is not None and all(there.has(name, written.n_bytes) for name, written in entry.written.items()):
            yield entry


def _entries_in(folder: Location, wanted: Container[str] | None) -> list[FileInfo]:
    files = [file for file in folder.files() if file.url.endswith(ENDING) and file.n_bytes]
    return files if wanted is None else [file for file in files if _key_of(folder, file) in wanted]


def _key_of(folder: Location, file: FileInfo) -> str:
    return file.url[len(folder.url) + 1 : -len(ENDING)]


def _entry(key: str, content: bytes) -> Entry | None:
    try:
        value = json.loads(content)
        if value["format"] != FORMAT:
            return None
        return Entry(key, value["result"], {name: Written(*each) for name, each in value["written"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # cut off by a power cut, or of an earlier version: it is done again


class _Listed:
    """Which files there are below a root, and in which size; each of its folders is listed once, when first asked for.

    A folder is listed with all that lies below it: there may be one for each cluster, and a store lists a thousand
    files in a request. Of a file a hash of its name and size is kept.
    """

    def __init__(self, root: Location, scratch: Location) -> None:
        self._root, self._scratch = root, scratch
        self._found: dict[str, np.ndarray] = {}

    def has(self, name: str, n_bytes: int) -> bool:
        """Whether a file that an entry names is there, of this size."""
        base, inside = (self._scratch, name[len(HOME) :]) if name.startswith(HOME) else (self._root, name)
        try:
            base.below(inside)
        except OutputConflictError:
            return False
        top = inside.rpartition("/")[0].partition("/")[0]  # empty: right in the base
        folder = base / top if top else base
        if folder.url not in self._found:
            self._found[folder.url] = _hashes_of_files(base, top)
        found, wanted = self._found[folder.url], np.uint64(_hash(inside, n_bytes))
        position = int(np.searchsorted(found, wanted))
        return position < len(found) and bool(found[position] == wanted)


def _hashes_of_files(base: Location, top: str) -> np.ndarray:
    """A hash of the name and size of each file below a folder of `base`, or right in it for no name; (n,) uint64."""
    if top:
        start = len(base.url) + 1
        hashes = (_hash(file.url[start:], file.n_bytes) for file in (base / top).files())
    else:
        hashes = (_hash(name, n_bytes) for name, n_bytes in (base.sizes() if base.is_dir() else {}).items())
    return np.sort(np.fromiter(hashes, dtype=np.uint64))


def _hash(name: str, n_bytes: int) -> int:
    return xxhash.xxh3_64_intdigest(f"{name}\0{n_bytes}".encode(errors="surrogateescape"))
