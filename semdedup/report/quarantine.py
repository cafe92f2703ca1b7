"""What was set aside, by reason, and the first names of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from semdedup.dedup.base.folders import results_in
from semdedup.dedup.names import QUARANTINE as OF_ROWS
from semdedup.dedup.results.result import DedupResult
from semdedup.errors import SemdedupError
from semdedup.runs.record import Record
from semdedup.storage.location import Location
from semdedup.storage.tables import read_batches
from semdedup.video.clip_meta import parse_object
from semdedup.video.tree import QUARANTINE, SUMMARY

MOST_NAMES = 10
"""Of each reason, that the page names."""

ROWS = 1 << 12
COLUMNS = ("id", "reason", "source", "detail")


@dataclass(frozen=True)
class SetAside:
    """What was set aside for one reason.

    Attributes:
        what: rows, files, videos or clips.
        reason: why.
        count: how many.
        names: of the first of them, each with what was found.
    """

    what: str
    reason: str
    count: int
    names: Sequence[tuple[str, str]] = ()


def read_quarantine(result: DedupResult, root: Location, folders: Sequence[Location]) -> list[SetAside]:
    """What a result and the outputs of `split` that it was made of have set aside.

    Args:
        result: of the dedup.
        root: its folder, or that of the run.
        folders: of clips.
    """
    counts = dict(result.quarantined)
    places = [
        place for each in results_in(root) for place in (each / OF_ROWS, (Record(each).cache_root or each) / OF_ROWS)
    ]
    found = _named("rows", counts, places)
    if result.skipped_files:
        names = [(file, "") for file in result.skipped_files[:MOST_NAMES]]
        found.append(SetAside("files", "could not be read", len(result.skipped_files), names))
    for folder in folders:
        summary = parse_object((folder / SUMMARY).read_bytes()) if (folder / SUMMARY).exists() else {}
        if isinstance(summary, str):
            found.append(SetAside("files", f"{folder / SUMMARY} {summary}", 1))
            continue
        for what, key in (("videos", "quarantined_by_reason"), ("clips", "quarantined_clips_by_reason")):
            by_reason = {str(reason): int(count) for reason, count in summary.get(key, {}).items()}
            found += _named(what, by_reason, [folder / QUARANTINE / f"{what}.parquet"])
    return found


def _named(what: str, counts: Mapping[str, int], places: Sequence[Location]) -> list[SetAside]:
    """Counts by reason, with the first names that the tables have of each."""
    missing = Counter({reason: min(count, MOST_NAMES) for reason, count in counts.items()})
    names: dict[str, list[tuple[str, str]]] = {reason: [] for reason in counts}
    seen: set[tuple[str, str]] = set()
    for row in _rows({place.url: place for place in places}.values()) if counts else ():
        if not +missing:
            break
        reason, name = str(row["reason"]), str(row["id"])
        if missing[reason] > 0 and (reason, name) not in seen:
            seen.add((reason, name))
            missing[reason] -= 1
            source = str(row.get("source") or "")
            told = [source] * (what == "rows" and source != name) + [str(row.get("detail") or "")]
            names[reason].append((name, "; ".join(filter(None, told))))
    return [SetAside(what, reason, count, names[reason]) for reason, count in sorted(counts.items())]


def _rows(places: Any) -> Iterator[Mapping[str, Any]]:
    """The rows of tables of quarantine; one that is gone or damaged has none."""
    for place in places:
        try:
            files = [place] if place.url.endswith(".parquet") else [place.at(file.url) for file in place.files()]
            for file in files:
                for batch in read_batches(file, COLUMNS, ROWS) if file.exists() else ():
                    if {"id", "reason"} <= set(batch.schema.names):
                        yield from batch.to_pylist()
        except (SemdedupError, pa.ArrowException):
            continue
