"""Where a result of the dedup has its tables, in either layout."""

from __future__ import annotations

from semdedup.dedup.input.files import find_files
from semdedup.dedup.names import SCORES_FILE, find_table
from semdedup.errors import InputError
from semdedup.runs.lookup import committed_files
from semdedup.storage.location import FileInfo, Location


def find_scores(root: Location) -> list[FileInfo]:
    """The tables of scores below a folder, in either layout. Raises `InputError` where there are none."""
    folder = find_table(root, "scores")
    files = [file for file in find_files([folder], "parquet") if SCORES_FILE.search(file.url)]
    if not files:
        raise InputError(
            f"no scores in {folder}: there is no cluster_0.parquet, cluster_1.parquet, …; run PairwiseStage first"
        )
    return committed_files(folder, files, SCORES_FILE.search)
