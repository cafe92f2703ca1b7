"""A result that exists: from its folder, or from the root of a run, whose results are a chain."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from semdedup.dedup.base.folders import results_in
from semdedup.dedup.base.summary import summary_of
from semdedup.dedup.names import AGAINST, IDENTIFY, KMEANS, PAIRWISE
from semdedup.dedup.results.chain import ChainResult
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.threshold.rule import REMOVAL
from semdedup.runs.places import DEDUPS
from semdedup.runs.record import Record
from semdedup.storage.location import Location


def load(path: str, *, storage_options: Mapping[str, Any] | None = None) -> DedupResult:
    """The result in a folder, local or remote, of either layout, or of another program; or all results of a run.

    Args:
        path: the folder that a dedup wrote to, or one with tables of scores; or the root of a run, whose dedups are
            read together: see `ChainResult`.
        storage_options: for fsspec.

    Raises:
        InputError: there are no scores.
    """
    root = Location.of(path, storage_options)
    results = [_load_one(place) for place in results_in(root)]
    if len(results) == 1:
        return results[0]
    unfinished = [str(place) for place in DEDUPS.below(root)[len(results) :]]
    return ChainResult.of(results, {"results": str(root), **({"unfinished": unfinished[0]} if unfinished else {})})


def _load_one(root: Location) -> DedupResult:
    record = Record(root)
    steps = record.every_step
    clustered, compared = steps.get(KMEANS, {}).get("facts", {}), steps.get(PAIRWISE, {})
    found = Scores.of(record.cache_root or root)
    scores = replace(found, across=any(name.startswith(AGAINST) for name in compared.get("parameters", ())))
    identified = steps.get(IDENTIFY, {})
    facts = identified.get("facts", {})
    rows = facts["rows"] if facts else scores.n_rows
    base, withdrawn = summary_of(clustered, compared.get("facts", {}), record.cache_root or root)
    quarantined = Counter(clustered.get("quarantined", {})) + Counter(compared.get("facts", {}).get("quarantined", {}))
    duplicates = facts.get("duplicates")
    return DedupResult(
        total=clustered.get("rows", rows + sum(quarantined.values())),
        duplicates=duplicates,
        kept=None if duplicates is None else rows - duplicates,
        quarantined=dict(quarantined),
        eps=identified.get("parameters", {}).get("eps"),
        seconds={},
        paths={"results": str(root)},
        metadata={
            "num_duplicates": duplicates,
            "removal": identified.get("parameters", {}).get("removal", REMOVAL.default),
            "removed_at": facts.get("removed_at", {}),
            "base": base,
            "withdrawn": withdrawn,
            "passed_over": clustered.get("passed_over", {}),
            "output": root,
            "pairs": compared.get("facts", {}).get("pairs"),
        },
        skipped_files=tuple(clustered.get("skipped_files", ())),
        scores=scores,
    )
