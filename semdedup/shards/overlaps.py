"""Which clips go by overlap: the tables that `find_overlaps` wrote."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field

from semdedup.errors import InputError
from semdedup.overlaps.folders import overlaps_below
from semdedup.overlaps.names import OVERLAP_DUPLICATES
from semdedup.runs.lookup import check_recorded
from semdedup.runs.places import OVERLAPS
from semdedup.storage.location import FileInfo, Location


@dataclass(frozen=True)
class OverlapDrops:
    """Tables of clips that go by overlap, of one output of `find_overlaps`; and their storage."""

    files: tuple[FileInfo, ...]
    source: Location = field(repr=False)


def find_overlap_drops(path: Location) -> tuple[OverlapDrops, ...]:
    """The tables of an output of `find_overlaps`, or in its folder of such tables; or all of a run, the oldest first.

    Of a later search of a run these are also those of the searches before it, whose videos it took as they were.

    Raises:
        InputError: there are none, which is not taken for "nothing goes"; or files on record are missing.
    """
    earlier = list(itertools.takewhile(lambda place: place.url != path.url, overlaps_below(path.parent)))
    places = [*earlier, path] if path.name == OVERLAPS.name(len(earlier) + 1) else [path]
    return tuple(map(tables_in, overlaps_below(path) or places))


def tables_in(path: Location) -> OverlapDrops:
    """The tables of one output of `find_overlaps`; raises as `find_overlap_drops`."""
    folder = path if path.name == OVERLAP_DUPLICATES else path / OVERLAP_DUPLICATES
    listed = [file for file in folder.files() if file.url.endswith(".parquet")] if folder.is_dir() else []
    check_recorded(folder, listed, lambda url: url.endswith(".parquet"))
    if not listed:
        raise InputError(
            f"no tables of clips that go by overlap in {path}. Give the folder that semdedup overlaps wrote to, which "
            f"holds {OVERLAP_DUPLICATES}/*.parquet, or the root of a run."
        )
    return OverlapDrops(tuple(listed), path)
