"""The dedups of a run: ``dedup``, then ``dedup-0002``, ``dedup-0003``, …, each with those before it for its base."""

from __future__ import annotations

import itertools

from semdedup.dedup.base.chain import chain_of
from semdedup.dedup.names import IDENTIFY, KMEANS
from semdedup.runs.places import find_part
from semdedup.runs.record import Record
from semdedup.storage.location import Location


def results_in(path: Location) -> tuple[Location, ...]:
    """The results that a reader of a path reads, the oldest first.

    Of the root of a run, or the output of a split with dedups in it, these are its dedups, but for a last one that is
    not complete yet; of anything else the path itself, whatever is there.

    Raises:
        InputError: a dedup is not what it was when a later one was compared with it.
        OutputConflictError: a record is damaged.
    """
    folders = find_part(path, "results")
    if folders == (path,):
        return folders
    records = [Record(folder) for folder in folders]
    complete = list(itertools.takewhile(lambda record: record.committed(IDENTIFY) is not None, records))
    if not complete:
        return folders[:1]
    if complete[-1].committed(KMEANS) is None:  # of ids that were extracted there is no more than an order
        return tuple(record.root for record in complete)
    return tuple(link.root for link in chain_of(complete[-1].root))
