"""The files of clusters and of scores: a folder ``centroid={k}``, a table ``cluster_{k}.parquet``, once for each k."""

from __future__ import annotations

import re

from semdedup.dedup.input.files import recorded_or_listed
from semdedup.dedup.names import CLUSTER_FOLDER, SCORES_FILE
from semdedup.errors import InputError
from semdedup.storage.location import FileInfo, Location

CLUSTER_LIKE = re.compile(r"(?:^|/)centroid=[^/]*(?=/)")
SCORES_LIKE = re.compile(r"(?:^|/)cluster_[^/]*\.parquet$")

MOST_CLUSTERS = 1 << 31
"""The number of a cluster is an int32 wherever it is a column."""


def cluster_files(folder: Location) -> list[FileInfo]:
    """The Parquet files below folders ``centroid={k}`` of a folder; those that our record names, where there is one.

    Raises:
        InputError: k is no whole number, or two folders are of the same k; or as `recorded_or_listed`.
    """
    return _numbered(folder, CLUSTER_LIKE, CLUSTER_FOLDER, "folder", "centroid=0, centroid=1, …")


def score_files(folder: Location) -> list[FileInfo]:
    """The tables ``cluster_{k}.parquet`` below a folder; as for `cluster_files`."""
    return _numbered(folder, SCORES_LIKE, SCORES_FILE, "table of scores", "cluster_0.parquet, cluster_1.parquet, …")


def _numbered(folder: Location, like: re.Pattern[str], exact: re.Pattern[str], what: str, names: str) -> list[FileInfo]:
    found = recorded_or_listed([folder], like)
    places: dict[int, str] = {}
    for file in found:
        number, part = exact.search(file.url), like.search(file.url)
        place = file.url[: part.end()] if part else file.url
        if number is None or int(number[1]) >= MOST_CLUSTERS:
            raise InputError(
                f"{place} is named like a {what}, but not by the number of a cluster: names are {names}. Give it such "
                "a name, or take it away."
            )
        before = places.setdefault(int(number[1]), place)
        if before != place:
            raise InputError(
                f"cluster {int(number[1])} is there twice below {folder}: {before} and {place}. Give the folder of one "
                "result, or number its clusters anew."
            )
    return found
