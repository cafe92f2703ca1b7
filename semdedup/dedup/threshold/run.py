"""The threshold: from tables of scores to the ids to drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup import sizes
from semdedup.dedup.names import SCORE, Destination, below, join, summary_name
from semdedup.dedup.results.tallies import CountAt
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.errors import BadFileError
from semdedup.runs.run import Run
from semdedup.storage.location import FileInfo, Location, without_storage_options
from semdedup.storage.tables import RowGroups, cut_files, iter_groups, open_parquet, write_table

BYTES_PER_GROUP = 16 << 20


def check_score_files(files: Sequence[FileInfo], source: Location) -> None:
    """Refuse on the client, before a cluster is started, what the footers of the first files show to be wrong."""
    for file in files[: sizes.FILES_CHECKED_FIRST]:
        with open_parquet(source.at(file.url)) as parquet:
            _check_columns(parquet.schema_arrow.names, file.url)


def _check_columns(names: Sequence[str], url: str) -> None:
    for name in ("id", SCORE):
        if name not in names:
            raise BadFileError(f"the file {url} is no table of scores: it has no column {name!r}; it has {list(names)}")


@dataclass(frozen=True)
class Identification:
    """What every task of the threshold needs to know: where scores are, where ids go, the thresholds to count at.

    The ids of rows that are kept are written only where there is a place for them.
    """

    scores: Location
    dropped: Location
    kept: Location | None
    eps: float
    count_at: tuple[float, ...]
    write_kwargs: Mapping[str, Any]


def identify_in_files(task: Identification, item: tuple[int, tuple[RowGroups, ...]]) -> dict[str, Any]:
    """Write the ids to drop of some tables of scores, sorted, as one file; those to keep, if asked for, as another.

    Memory: the ids that are written, twice.

    Returns:
        ``rows``, ``duplicates``, ``removed_at`` (a count for each threshold).
    """
    position, parts = item
    counts = CountAt([task.eps, *task.count_at])
    dropped: list[pa.Array] = []
    kept: list[pa.Array] = []
    for part in parts:
        with open_parquet(task.scores.at(part.url)) as parquet:
            _check_columns(parquet.schema_arrow.names, part.url)
            for batch in iter_groups(parquet, part.of(parquet), ["id", SCORE], ROWS_AT_A_TIME):
                scores = batch.column(SCORE).cast(pa.float32()).to_numpy(zero_copy_only=False)
                counts.take(0, 0, scores)
                mask = duplicate_mask(scores, task.eps)
                dropped.append(batch.column("id").filter(pa.array(mask)))
                if task.kept is not None:
                    kept.append(batch.column("id").filter(pa.array(~mask)))
    _write_ids(task.dropped, position, dropped, task.write_kwargs)
    if task.kept is not None:
        _write_ids(task.kept, position, kept, task.write_kwargs)
    duplicates, *removed = counts.duplicates
    return {
        "rows": counts.n_rows,
        "duplicates": duplicates,
        "removed_at": dict(zip(map(repr, task.count_at), removed, strict=True)),
    }


def _write_ids(target: Location, position: int, found: Sequence[pa.Array], kwargs: Mapping[str, Any]) -> None:
    """Write ids, sorted; nothing where there are none, but for the first file: readers need a schema."""
    if not position or any(map(len, found)):
        ids = pa.chunked_array(found) if found else pa.chunked_array([], pa.string())
        write_table(target / f"part-{position}.parquet", pa.table({"id": ids.take(pc.sort_indices(ids))}), kwargs)


def identify_duplicates(
    run: Run,
    score_files: Sequence[FileInfo],
    source: Location,
    eps: float,
    count_at: Sequence[float],
    folders: tuple[str, str],
    destination: Destination,
) -> dict[str, Any]:
    """Write the ids of all rows whose score reaches 1 - eps, resuming where an earlier run stopped.

    For each eps of `count_at` a summary of one line, ``dedup_summary_{eps}.csv``, is written. `folders` are those of
    the summaries, and of the ids to keep (empty: these are not written), below the destination's root.

    Returns:
        Facts: rows, duplicates, and rows removed at each eps of `count_at`.
    """
    summaries, kept_folder = folders
    kwargs = without_storage_options(destination.write_kwargs)
    dropped, kept = below(run.final, destination.folder), run.final / kept_folder if kept_folder else None
    task = Identification(source, dropped, kept, eps, tuple(count_at), kwargs)
    with run.refusing():
        items = list(enumerate(cut_files(score_files, source, BYTES_PER_GROUP)))
        found = run.results("threshold", partial(identify_in_files, task), items, unit="groups", label=_group_label)
    facts: dict[str, Any] = {
        "rows": sum(result["rows"] for result in found),
        "duplicates": sum(result["duplicates"] for result in found),
        "removed_at": {repr(at): sum(result["removed_at"][repr(at)] for result in found) for at in count_at},
    }
    with run.noting():
        for at in count_at:
            removed = facts["removed_at"][repr(at)]
            line = f"eps,kept,removed,total\n{at!r},{facts['rows'] - removed},{removed},{facts['rows']}\n"
            (run.final / join(summaries, summary_name(at))).write_bytes(line.encode())
    return facts


def _group_label(item: tuple[int, Sequence[RowGroups]]) -> str:
    return f"the tables of scores from {item[1][0].url} on"
