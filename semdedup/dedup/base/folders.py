"""The dedups of a run: ``dedup``, then ``dedup-0002``, ``dedup-0003``, …, each with those before it for its base."""

from __future__ import annotations

import itertools
import re

from semdedup.dedup.base.chain import chain_of
from semdedup.dedup.names import IDENTIFY, KMEANS
from semdedup.runs.record import FILE_NAME, Record
from semdedup.storage.location import Location

FIRST = "dedup"
LATER = re.compile(rf"{FIRST}-\d{{4,}}")


def folder_name(number: int) -> str:
    """Name of the folder of a dedup; numbers begin at 1.

    >>> folder_name(1), folder_name(2)
    ('dedup', 'dedup-0002')
    """
    return FIRST if number == 1 else f"{FIRST}-{number:04d}"


def dedups_below(root: Location) -> list[Location]:
    """The dedups below the root of a run that have a record, in order, to the first gap. Cost: a request for each."""
    folders = (root / folder_name(number) for number in itertools.count(1))
    return list(itertools.takewhile(lambda folder: (folder / FILE_NAME).exists(), folders))


def dedups_beyond(root: Location) -> list[Location]:
    """Dedups below the root of a run that come after a gap: one before them was taken away."""
    known = {folder.name for folder in dedups_below(root)}
    names = root.folder_names() if root.is_dir() else []
    others = [root / name for name in names if LATER.fullmatch(name) and name not in known]
    return [folder for folder in others if (folder / FILE_NAME).exists()]


def results_in(path: Location) -> tuple[Location, ...]:
    """The results that a reader of a path reads, the oldest first.

    Of the root of a run these are its dedups, but for a last one that is not complete yet; of anything else the path
    itself, whatever is there.

    Raises:
        InputError: a dedup is not what it was when a later one was compared with it.
        OutputConflictError: a record is damaged.
    """
    if (path / FILE_NAME).exists():
        return (path,)
    folders = dedups_below(path)
    records = [Record(folder) for folder in folders]
    complete = list(itertools.takewhile(lambda record: record.committed(IDENTIFY) is not None, records))
    if not complete:
        return (folders[0] if folders else path,)
    if complete[-1].committed(KMEANS) is None:  # of ids that were extracted there is no more than an order
        return tuple(record.root for record in complete)
    return tuple(link.root for link in chain_of(complete[-1].root))
