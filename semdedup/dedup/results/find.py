"""Where a result of the dedup has its tables, in either layout."""

from __future__ import annotations

from semdedup.dedup.input.found import FoundFiles
from semdedup.dedup.input.numbered import score_files
from semdedup.dedup.names import IDENTIFY, find_table
from semdedup.dedup.threshold.rule import REMOVAL
from semdedup.errors import InputError, OutputConflictError
from semdedup.runs.lookup import find_record
from semdedup.runs.record import Record
from semdedup.storage.location import Location


def find_scores(root: Location) -> FoundFiles:
    """The tables of scores below a folder, in either layout.

    Raises:
        InputError: there are none; or our record names some that are missing or were changed.
    """
    folder = find_table(root, "scores")
    files = score_files(folder)
    if not files:
        raise InputError(
            f"no scores in {folder}: there is no cluster_0.parquet, cluster_1.parquet, …; run PairwiseStage first, or "
            "semdedup dedup"
        )
    return files


def recorded_removal(root: Location) -> str:
    """The removal rule on record of a result, or of the one that a folder of scores belongs to; else ``any``."""
    try:
        records = [Record(root), find_record(find_table(root, "scores"))]
    except OutputConflictError:  # damaged, or of something else: somebody else's tables
        return str(REMOVAL.default)
    found = [step for record in records if record is not None and (step := record.steps.get(IDENTIFY))]
    return str(found[0]["parameters"].get("removal", REMOVAL.default)) if found else str(REMOVAL.default)
