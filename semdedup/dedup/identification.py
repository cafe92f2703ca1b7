"""The threshold: from tables of scores to the ids to drop."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.compute import Session
from semdedup.dedup.clustering import FILES_CHECKED_FIRST
from semdedup.dedup.layout import IDENTIFY, Destination, join, summary_name
from semdedup.errors import BadFileError, ParameterError
from semdedup.journal import run_journaled
from semdedup.manifest import Manifest
from semdedup.storage import FileInfo, Location, without_storage_options
from semdedup.tables import open_parquet, read_table, write_table

BYTES_PER_GROUP = 64 << 20
FILES_PER_GROUP = 1000


def check_eps(eps: float) -> float:
    """Return eps, or raise a `ParameterError` unless 0 ≤ eps < 1."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float, np.number)) or not 0 <= float(eps) < 1:
        raise ParameterError(
            f"eps must lie in [0, 1), a row is dropped where its score is at least 1 - eps; got {eps!r}"
        )
    return float(eps)


def duplicate_mask(scores: np.ndarray, eps: float) -> np.ndarray:
    """Which rows are duplicates, (n,): a score of at least 1 - eps, compared in float32."""
    return scores >= np.float32(1 - check_eps(eps))


def check_first_files(files: Sequence[FileInfo], source: Location) -> None:
    """Refuse on the client, before a cluster is started, what the footers of the first files show to be wrong."""
    for file in files[:FILES_CHECKED_FIRST]:
        with open_parquet(source.at(file.url)) as parquet:
            _check_columns(parquet.schema_arrow.names, file.url)


def _check_columns(names: Sequence[str], url: str) -> None:
    for name in ("id", "cosine_sim_score"):
        if name not in names:
            raise BadFileError(f"the file {url} is no table of scores: it has no column {name!r}; it has {list(names)}")


@dataclass(frozen=True)
class Identification:
    """What every task of the threshold needs to know: where scores are, where ids go, the thresholds to count at."""

    scores: Location
    target: Location
    eps: float
    count_at: tuple[float, ...]
    write_kwargs: Mapping[str, Any]


def identify_in_files(task: Identification, item: tuple[int, tuple[str, ...]]) -> dict[str, Any]:
    """Write the ids to drop of some tables of scores, sorted, as one file. Memory: the scores of these files.

    Returns:
        ``rows``, ``duplicates``, ``removed_at`` (a count for each threshold), ``files`` and the type of the ids.
    """
    position, urls = item
    tables = [read_table(task.scores.at(url), ["id", "cosine_sim_score"]) for url in urls]
    for url, found in zip(urls, tables, strict=True):
        _check_columns(found.column_names, url)
    table = pa.concat_tables(tables)
    scores = table.column("cosine_sim_score").cast(pa.float32()).to_numpy()
    ids = table.column("id").filter(pa.array(duplicate_mask(scores, task.eps)))
    files = []
    if len(ids) or position == 0:  # one file at least, for readers that need a schema
        name = f"part-{position}.parquet"
        write_table(task.target / name, pa.table({"id": ids.take(pc.sort_indices(ids))}), task.write_kwargs)
        files.append(name)
    removed = {repr(eps): int(duplicate_mask(scores, eps).sum()) for eps in task.count_at}
    return {"rows": len(table), "duplicates": len(ids), "removed_at": removed, "files": files}


def identify_duplicates(
    session: Session,
    score_files: Sequence[FileInfo],
    source: Location,
    eps: float,
    count_at: Sequence[float],
    summaries: str,
    destination: Destination,
) -> dict[str, Any]:
    """Write the ids of all rows whose score reaches 1 - eps, resuming where an earlier run stopped.

    For each eps of `count_at` a summary of one line, ``dedup_summary_{eps}.csv``, goes to the folder `summaries`.

    Returns:
        Facts: rows, duplicates, and rows removed at each eps of `count_at`.
    """
    manifest = Manifest(destination.root)
    scratch = manifest.scratch(IDENTIFY)
    journal, target, beside = (scratch / name for name in ("groups", "output", "beside"))
    task = Identification(source, target, eps, tuple(count_at), without_storage_options(destination.write_kwargs))
    items = list(enumerate(_groups(score_files)))
    identify = partial(identify_in_files, task)
    with manifest.refusing(IDENTIFY):
        found = [result for _, result in run_journaled(session, "threshold", identify, items, journal, unit="groups")]
    facts: dict[str, Any] = {
        "rows": sum(result["rows"] for result in found),
        "duplicates": sum(result["duplicates"] for result in found),
        "removed_at": {repr(at): sum(result["removed_at"][repr(at)] for result in found) for at in count_at},
    }
    tables = {at: join(summaries, summary_name(at)) for at in count_at}
    files = [join(destination.folder, name) for result in found for name in result["files"]] + list(tables.values())
    for at, name in tables.items():
        removed = facts["removed_at"][repr(at)]
        line = f"eps,kept,removed,total\n{at!r},{facts['rows'] - removed},{removed},{facts['rows']}\n"
        (beside / name).write_bytes(line.encode())
    manifest.complete(IDENTIFY, [(target, destination.folder), (beside, "")], files, facts)
    return facts


def _groups(files: Sequence[FileInfo]) -> list[tuple[str, ...]]:
    groups: list[list[str]] = []
    held = 0
    for file in files:
        if not groups or held + file.n_bytes > BYTES_PER_GROUP or len(groups[-1]) == FILES_PER_GROUP:
            groups.append([])
            held = 0
        groups[-1].append(file.url)
        held += file.n_bytes
    return [tuple(group) for group in groups]
