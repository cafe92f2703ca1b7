"""The files of clusters and of scores: a folder ``centroid={k}``, a table ``cluster_{k}.parquet``, once for each k."""

from __future__ import annotations

import re
from collections.abc import Sequence

from semdedup.dedup.input.files import find_files
from semdedup.dedup.input.found import FoundFiles
from semdedup.dedup.input.rules import is_data
from semdedup.dedup.names import CLUSTER_FOLDER, SCORES_FILE
from semdedup.errors import InputError
from semdedup.runs.lookup import check_recorded
from semdedup.storage.location import FileInfo, Location

CLUSTER_LIKE = re.compile(r"(?:^|/)centroid=[^/]*(?=/)")
SCORES_LIKE = re.compile(r"(?:^|/)cluster_[^/]*\.parquet$")

OTHER_TABLES = "whose names are of other tables"
"""Why a Parquet file among such tables is passed over."""

MOST_CLUSTERS = 1 << 31
"""The number of a cluster is an int32 wherever it is a column."""


def cluster_files(folder: Location) -> FoundFiles:
    """The Parquet files below folders ``centroid={k}`` of a folder; those that our record names, where there is one.

    Raises:
        InputError: k is no whole number, or two folders are of the same k; or as `_recorded_or_listed`.
    """
    files = _recorded_or_listed(folder, CLUSTER_LIKE)
    _check_numbers(files, folder, CLUSTER_LIKE, CLUSTER_FOLDER, "centroid=0, centroid=1, …")
    return files


def score_files(folder: Location) -> FoundFiles:
    """The tables ``cluster_{k}.parquet`` below a folder; as for `cluster_files`."""
    files = _recorded_or_listed(folder, SCORES_LIKE)
    check_score_names(files, folder)
    return files


def check_score_names(files: Sequence[FileInfo], folder: Location) -> None:
    """Refuse tables named like scores, but not by a number, and two of the same cluster."""
    _check_numbers(files, folder, SCORES_LIKE, SCORES_FILE, "cluster_0.parquet, cluster_1.parquet, …")


def _recorded_or_listed(folder: Location, name: re.Pattern[str]) -> FoundFiles:
    """The Parquet files of a folder whose path is like this: those that our record names, else those that are listed.

    What else lies there is passed over, and counted where no record of ours tells what belongs to it.

    Raises:
        InputError: files on record are missing or were changed; or there are no Parquet files.
    """

    def is_asked_for(url: str) -> bool:
        return bool(name.search(url)) and is_data(url[len(folder.url) :])

    known = check_recorded(folder, folder.files(), is_asked_for)
    found = find_files([folder], "parquet")
    files = tuple(file for file in found if name.search(file.url))
    if known:
        return FoundFiles(tuple(file for file in files if file.url in known))
    others = {OTHER_TABLES: {".parquet": len(found) - len(files)}} if len(found) > len(files) else {}
    return FoundFiles(files, {**found.passed_over, **others})


def _check_numbers(
    files: Sequence[FileInfo], folder: Location, like: re.Pattern[str], exact: re.Pattern[str], names: str
) -> None:
    places: dict[int, str] = {}
    for file in files:
        number, part = exact.search(file.url), like.search(file.url)
        place = file.url[: part.end()] if part else file.url
        if number is None or int(number[1]) >= MOST_CLUSTERS:
            raise InputError(
                f"{place} is named like a cluster, but not by its number: names are {names} (below 2**31). Give it "
                "such a name, or take it away."
            )
        before = places.setdefault(int(number[1]), place)
        if before != place:
            raise InputError(
                f"cluster {int(number[1])} is there twice below {folder}: {before} and {place}. Give the folder of one "
                "result, or number its clusters anew."
            )
