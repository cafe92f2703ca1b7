"""How the finished files of a run get into place: forced to disk, ordered, moved, and only then on record.

Once the orders are written, a run that is killed is only ever taken forward: whoever begins the step next carries them
out. Whatever is killed before that leaves the folder as it was.
"""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from semdedup.errors import IntegrityError, OutputConflictError
from semdedup.runs.files import changed_files, delete_files
from semdedup.runs.identity import commit_of
from semdedup.runs.journal import FINAL
from semdedup.runs.record import Record, versions
from semdedup.storage.location import REQUESTS_IN_FLIGHT, UNFINISHED, Location
from semdedup.storage.written import Written, force_names_to_disk, force_to_disk

ORDERS = "orders.json"
"""In the scratch folder: what is to be done with the new files, written last."""


@dataclass(frozen=True)
class Orders:
    """What is left to do once every new file is complete.

    Attributes:
        files: all files of the step, when it is done.
        obsolete: names of files that go.
        facts: what is to be known of the step.
        forced: bytes and seconds of forcing the files to disk.
    """

    files: Mapping[str, Written]
    obsolete: Sequence[str]
    facts: Mapping[str, Any]
    forced: tuple[int, float]

    def write(self, scratch: Location) -> None:
        """Write the orders, forced to disk; from here on they are carried out."""
        value = {"files": self.files, "obsolete": self.obsolete, "facts": self.facts, "forced": self.forced}
        (scratch / ORDERS).write_json(value, forced=True)

    @classmethod
    def read(cls, scratch: Location) -> Orders | None:
        """The orders that a run has left, or None; also where a power cut damaged them, for nothing was done then."""
        place = scratch / ORDERS
        if not place.exists():
            return None
        try:
            value = json.loads(place.read_bytes())
            files = {name: Written(*each) for name, each in value["files"].items()}
            (n_bytes, seconds), obsolete, facts = value["forced"], list(value["obsolete"]), dict(value["facts"])
        except (ValueError, KeyError, TypeError, AttributeError):
            return None
        return cls(files, obsolete, facts, (n_bytes, seconds))

    def check_names(self, root: Location, step: str, written: re.Pattern[str] | None, scratch: Location) -> None:
        """Refuse names that lead out of the folder, or that the step cannot have written.

        Raises:
            OutputConflictError: with the name. Nothing was moved or deleted.
        """
        moved = [file.url[len((scratch / FINAL).url) + 1 :] for file in (scratch / FINAL).files()]
        for name in [*self.files, *self.obsolete, *moved]:
            root.below(name)
            if written is not None and not written.fullmatch(name) and not UNFINISHED.fullmatch(name.split("/")[-1]):
                raise OutputConflictError(
                    f"what a killed run left in {scratch} says that the step '{step}' writes {name!r}, which it does "
                    f"not. Nothing was changed. Choose another output path, or move the folder {root} away as a whole."
                )


def carry_out(record: Record, step: str, orders: Orders, check: Callable[[], None]) -> None:
    """Move the new files into place, delete the obsolete ones, and put the step on record as complete.

    Called again after it was interrupted, it does what is left.

    `check` raises where another run owns the folder; it is called before each file is put in place.

    Raises:
        IntegrityError: a file is not there afterwards.
    """
    root = record.root
    scratch = root.below(record.steps[step]["temporary"][0])
    files = {**orders.files, **{name: Written(-1, "") for name in orders.obsolete}}
    record.update(step, files=files)  # wherever this is killed, clearing finds them
    (scratch / FINAL).move_into(root, check)
    check()
    delete_files(root, orders.obsolete)
    force_names(root, orders.files)
    faults = changed_files(root, orders.files)
    if faults:
        raise IntegrityError(
            f"{root}: the step '{step}' is not complete: {'; '.join(faults[:3])}. The folder was changed meanwhile, "
            "or files are lost. Run the same command again."
        )
    record.update(
        step,
        status="committed",
        files=orders.files,
        facts=dict(orders.facts),
        versions=versions(),
        commit=commit_of(orders.files),
        forced={"bytes": orders.forced[0], "seconds": round(orders.forced[1], 3)},
        temporary=None,
    )
    scratch.remove_tree()
    record.remove_strays()  # what tasks of an overtaken run wrote late
    scratch.parent.remove_if_empty()


def force_files(places: Iterable[str]) -> tuple[int, float]:
    """Wait until these local files are on the disk of this host; bytes and seconds.

    Cost: one ``fsync`` a file, side by side. Writing out was begun when each was finished. (Measured: 1 GiB in 1,000
    files 0.5 s, as one ``syncfs``; 5,000 files of 4 KiB 0.4 s where ``syncfs`` takes 0.1 s; but that waits for what
    other programs write as well, and does not name the file that could not be written.)
    """
    started = time.monotonic()
    with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
        n_bytes = sum(pool.map(force_file, places))
    return n_bytes, time.monotonic() - started


def force_file(path: str) -> int:
    """Force one file; one that another host has moved or deleted meanwhile counts nothing."""
    with Location(path).errors("force to disk"):
        try:
            return force_to_disk(path)
        except FileNotFoundError:
            return 0


def force_names(root: Location, names: Iterable[str]) -> None:
    """Wait until the names of files in their folders, and of these folders, are on the disk."""
    if not root.is_local:
        return
    folders = {root.url, os.path.dirname(root.url)}
    for name in names:
        parts = name.split("/")
        folders |= {os.path.join(root.url, *parts[:depth]) for depth in range(1, len(parts))}

    def force(folder: str) -> None:
        with Location(folder).errors("force to disk"):
            force_names_to_disk(folder)

    with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
        list(pool.map(force, sorted(folders)))
