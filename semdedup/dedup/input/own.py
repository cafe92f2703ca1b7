"""Results of semdedup within an input: what an earlier run wrote there is no input of the next one."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from semdedup.dedup.names import (
    CAPTIONS_FOLDER,
    EMBEDDINGS_FOLDER,
    EXPORTED,
    KMEANS,
    PAIRWISE,
    TRACKS_FOLDER,
    WRITTEN,
)
from semdedup.errors import OutputConflictError
from semdedup.runs.record import FILE_NAME, Record
from semdedup.storage.file_list import FileList
from semdedup.storage.listing import MAGIC
from semdedup.storage.location import REQUESTS_IN_FLIGHT, Location

EMBEDDINGS = re.compile(rf"(?:^|/)[^/]*{EMBEDDINGS_FOLDER}/")
"""Tables of embeddings, which are input wherever they lie."""

TABLES = re.compile(rf"(?:^|/)(?:{WRITTEN[KMEANS].pattern}|{WRITTEN[PAIRWISE].pattern}|(?:part|train)-\d+\.parquet)$")
"""Names that tables of results have. Where a pattern is given, records are looked for around such files alone."""


BESIDE = re.compile(rf"(?:{TRACKS_FOLDER}|[^/]*{CAPTIONS_FOLDER})/")
"""Folders of tracks and of captions, as the record beside them names them."""


class OwnFiles(NamedTuple):
    """What records of ours in and below a folder name: by URL the folder that is told; and those of all records."""

    recorded: dict[str, str]
    roots: tuple[str, ...]

    def is_around(self, url: str) -> bool:
        """Whether a file lies below the folder of a record."""
        return url.startswith(self.roots)


def own_files(top: Location, files: FileList, named: Sequence[str] = ()) -> OwnFiles:
    """Files of results below a folder, but for embeddings, and for what is asked for by name.

    Args:
        top: the folder that is given, whose own record counts for nothing but tracks and captions: it was meant.
        files: what was found below.
        named: parts of the pattern that was given, where it was one; a folder of a result that it names was meant.
    """
    roots = {f"{folder}/" for folder in files.named(FILE_NAME, EXPORTED).folders()}
    if named:
        roots |= _roots_around(top, files)
    meant = {part for part in named if not MAGIC.search(part)}
    recorded: dict[str, str] = {}
    ours: list[str] = []
    for root in sorted(roots):
        names = _names_in(top.at(root.rstrip("/")))
        if names is None:
            continue
        ours.append(root)
        is_below = len(root.rstrip("/")) > len(top.url.rstrip("/"))
        passed = [name for name in names if not EMBEDDINGS.search(name)] if is_below else filter(is_beside, names)
        recorded |= {
            root + name: root if is_below else f"{root}{name.partition('/')[0]}/"
            for name in passed
            if not meant & set(name.split("/"))
        }
    return OwnFiles(recorded, tuple(ours))


def is_beside(name: str) -> bool:
    """Whether a name in a record is that of a file of tracks or of captions, which lie beside embeddings."""
    return BESIDE.match(name) is not None


def _names_in(root: Location) -> Collection[str] | None:
    """The files that the records of a result and of an export name; None where one is damaged, or of something else."""
    try:
        export = (root / EXPORTED).read_json() if (root / EXPORTED).exists() else {"files": []}
        return {*Record(root).files, *map(str, export["files"])}
    except (OutputConflictError, ValueError, TypeError, KeyError):
        return None


def _roots_around(top: Location, files: FileList) -> set[str]:
    """Folders with a record, of those between the folder and files that may be tables of results."""
    start = len(top.url.rstrip("/")) + 1
    candidates: set[str] = set()
    for url in filter(TABLES.search, files.urls()):
        folder = url.rpartition("/")[0]
        if BESIDE.fullmatch(folder.rpartition("/")[2] + "/"):  # beside it, which may be the top
            candidates.add(folder.rpartition("/")[0])
        while len(folder) > start and folder not in candidates:
            candidates.add(folder)
            folder = folder.rpartition("/")[0]
    with ThreadPoolExecutor(REQUESTS_IN_FLIGHT) as pool:
        places = sorted(candidates)
        there = pool.map(lambda folder: any((top.at(folder) / name).exists() for name in (FILE_NAME, EXPORTED)), places)
        return {f"{folder}/" for folder, found in zip(places, there, strict=True) if found}
