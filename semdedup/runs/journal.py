"""What the tasks of a run have done: each leaves its result and the files that it wrote as a small JSON file.

Entries have keys of their own, so that a plan may grow. An entry counts only while the files that it names are there in
their size: after a power cut a journal may have outlived them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from semdedup.errors import OutputConflictError
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
        self.place.write_json({"format": FORMAT, "result": result, "written": written})
        return result, written


def within_scratch(written: Mapping[str, Written], root: Location, scratch: Location) -> dict[str, Written]:
    """Names relative to the root, with ``~/`` for the scratch folder."""
    prefix = scratch.url[len(root.url.rstrip("/")) + 1 :] + "/"
    return {HOME + name[len(prefix) :] if name.startswith(prefix) else name: each for name, each in written.items()}


def run_job(job: Job) -> tuple[Any, dict[str, Written]]:
    """Call a job; a function of this module, for it travels to the workers."""
    return job()


def read_journal(root: Location, scratch: Location, folder: Location) -> Iterator[Entry]:
    """The entries in a folder that count, one after the other.

    Cost: a listing of the folders that they name files in; entries are read side by side and not kept.
    """
    sizes = _Sizes(root, scratch)
    files = [file for file in folder.files() if file.url.endswith(ENDING) and file.n_bytes]
    for file, content in folder.read_all(files):
        entry = _entry(file.url[len(folder.url) + 1 : -len(ENDING)], content)
        if entry is not None and all(sizes.of(name) == written.n_bytes for name, written in entry.written.items()):
            yield entry


def _entry(key: str, content: bytes) -> Entry | None:
    try:
        value = json.loads(content)
        if value["format"] != FORMAT:
            return None
        return Entry(key, value["result"], {name: Written(*each) for name, each in value["written"].items()})
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # cut off by a power cut, or of an earlier version: it is done again


class _Sizes:
    """Sizes of the files below a root, each folder listed once, when first asked for."""

    def __init__(self, root: Location, scratch: Location) -> None:
        self._root, self._scratch = root, scratch
        self._found: dict[str, dict[str, int]] = {}

    def of(self, name: str) -> int | None:
        try:
            place = self._scratch.below(name[len(HOME) :]) if name.startswith(HOME) else self._root.below(name)
        except OutputConflictError:
            return None
        folder, _, last = name.rpartition("/")
        if folder not in self._found:
            parent = place.parent
            self._found[folder] = parent.sizes() if parent.is_dir() else {}
        return self._found[folder].get(last)
