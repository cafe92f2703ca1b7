"""Clusters scored as they are written, by the task that has their rows in memory: nobody has to read them again.

    gather a range of clusters ─┬─▶ centroid=K/                       in the scratch folder of k-means
                                └─▶ scores, a forest, an entry        in one that the comparison takes over

Both are complete when their step is. What is not in that folder, the comparison reads and scores itself: large
clusters, and those that an earlier run has written, for what a killed run has scored so goes with it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import pyarrow as pa

from semdedup.dedup.compare.columns import check_columns
from semdedup.dedup.compare.groups import Cluster, Comparison, score_group
from semdedup.dedup.compare.scored import Limits
from semdedup.dedup.input.facts import FileFacts
from semdedup.dedup.names import Destination, below
from semdedup.dedup.options import InputOptions
from semdedup.dedup.ranking import RankingStrategy
from semdedup.errors import InputError, ParameterError
from semdedup.runs.journal import FINAL, Job, journal_of
from semdedup.runs.run import Run
from semdedup.storage.location import Location, without_storage_options

NAME = "score while written"

PLAIN = {pa.string(), pa.bool_(), pa.int32(), pa.int64(), pa.float32(), pa.float64()}
"""Types that come back from Parquet as they are."""


@dataclass(frozen=True)
class ScoringWhileWritten:
    """Scores clusters that a task holds, as `score_group` does, into a scratch folder of the same root."""

    task: Comparison
    root: Location

    def __call__(self, key: str, written: Iterable[tuple[int, pa.Table]]) -> None:
        """Score clusters, each a number and its rows, and leave an entry with this key."""
        scratch = self.task.scratch
        place = journal_of(scratch, NAME) / f"{key}.json"
        Job(partial(_score, self.task), written, self.root, scratch, place)()


def _score(task: Comparison, written: Iterable[tuple[int, pa.Table]]) -> dict[str, Any]:
    rows: dict[str, int] = {}

    def clusters() -> Iterator[Cluster]:
        for label, table in written:
            rows[str(label)] = len(table)
            yield Cluster(label, (task.clusters.url,), (len(table),), held=table)

    return {**score_group(task, clusters()), "clusters": rows}


def plan_scoring(
    root: Location,
    scratch: Location,
    fields: InputOptions,
    strategy: RankingStrategy,
    limits: Limits,
    destination: Destination,
    written: pa.Schema,
    dim: int,
) -> ScoringWhileWritten | None:
    """How clusters with the columns `written` are scored as they are; None where that is left to who reads them: where
    they would be refused, or ranked by what may come back from Parquet as another type."""
    if any(name in written.names and written.field(name).type not in PLAIN for name in strategy.columns):
        return None
    if fields.embedding_dim not in (None, dim):
        return None
    facts = FileFacts(root.url, root.url, 1, dim, written.serialize().to_pybytes())
    try:
        schema = check_columns([facts], fields, strategy)
    except (InputError, ParameterError):
        return None
    final, kwargs = scratch / FINAL, without_storage_options(destination.write_kwargs)
    target = below(final, destination.folder)
    task = Comparison(root, target, final, scratch, schema, strategy, dim, limits, "cpu", kwargs)
    return ScoringWhileWritten(task, root)


def scored_while_written(run: Run, clusters: Sequence[Cluster]) -> tuple[list[dict[str, Any]], set[int]]:
    """What tasks that have scored clusters so gave back, and the numbers of these clusters."""
    rows = {str(cluster.label): sum(cluster.rows) for cluster in clusters}
    entries = run.done_for_it(NAME, lambda entry: entry.result["clusters"].items() <= rows.items())
    found = [entry.result for entry in entries]
    return found, {int(label) for result in found for label in result["clusters"]}
