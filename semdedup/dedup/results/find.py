"""Where a result of the dedup has its tables, in either layout."""

from __future__ import annotations

from semdedup.dedup.input.files import recorded_or_listed
from semdedup.dedup.names import SCORES_FILE, find_table
from semdedup.errors import InputError
from semdedup.storage.location import FileInfo, Location


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
