"""Where a result of the dedup has its tables, in either layout."""

from __future__ import annotations

import re
from collections.abc import Sequence

from semdedup.dedup.input.files import find_files, is_data
from semdedup.dedup.names import SCORES_FILE, find_table
from semdedup.errors import InputError
from semdedup.runs.lookup import check_recorded
from semdedup.storage.location import FileInfo, Location


def recorded_or_listed(folders: Sequence[Location], name: re.Pattern[str]) -> list[FileInfo]:
    """The Parquet files of folders whose path is like this: those that our record names, else those that are listed.

    Raises:
        InputError: files on record are missing or were changed; or there are no Parquet files.
    """
    found: list[FileInfo] = []
    for folder in folders:

        def is_asked_for(url: str, top: str = folder.url) -> bool:
            return bool(name.search(url)) and is_data(url[len(top) :])

        known = check_recorded(folder, folder.files(), is_asked_for)
        listed = [file for file in find_files([folder], "parquet") if name.search(file.url)]
        found += [file for file in listed if file.url in known] if known else listed
    return found


def find_scores(root: Location) -> list[FileInfo]:
    """The tables of scores below a folder, in either layout.

    Raises:
        InputError: there are none; or our record names some that are missing or were changed.
    """
    folder = find_table(root, "scores")
    files = recorded_or_listed([folder], SCORES_FILE)
    if not files:
        raise InputError(
            f"no scores in {folder}: there is no cluster_0.parquet, cluster_1.parquet, …; run PairwiseStage first"
        )
    return files
