"""Where the tables of overlaps lie: in the folder that `find_overlaps` wrote to, or below the root of a run."""

from __future__ import annotations

import itertools

from semdedup.overlaps.names import STEP
from semdedup.runs.places import find_part
from semdedup.runs.record import Record
from semdedup.settings.choices import DropWhen
from semdedup.storage.location import Location

DROP = "drop"
"""Name of the step of a run that notes its `drop_when`, in the record of its first overlaps."""


def overlaps_below(root: Location) -> tuple[Location, ...]:
    """The overlaps of a run, the oldest first, but for a last one that is not complete yet; none of any other folder.

    Raises:
        OutputConflictError: a record is damaged.
    """
    found = find_part(root, "overlaps")
    return tuple(itertools.takewhile(lambda folder: Record(folder).committed(STEP) is not None, found))


def drop_when_of(root: Location) -> DropWhen | None:
    """Which clips a run drops, by the record below its root; None where the folder is no such root.

    Raises:
        OutputConflictError: a record is damaged.
    """
    folders = overlaps_below(root)
    entry = Record(folders[0]).committed(DROP) if folders else None
    return None if entry is None else entry["parameters"]["drop_when"]
