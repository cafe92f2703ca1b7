"""What the removal rules need to know of clusters before one of them is read, and how they are cut into tasks."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from semdedup.arrays import Backend
from semdedup.dedup.compare.columns import check_columns
from semdedup.dedup.compare.groups import Cluster, Comparison
from semdedup.dedup.compare.run import (
    clusters_of_base,
    commonest_dim,
    find_clusters,
    pack_groups,
    with_base,
)
from semdedup.dedup.compare.scored import Limits
from semdedup.dedup.input.facts import FileFacts
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.names import FOREST
from semdedup.dedup.sizes import TaskRows
from semdedup.dedup.threshold.components import Group, groups_of_forests
from semdedup.dedup.threshold.groups import Part, Removing
from semdedup.dedup.threshold.rule import least_score
from semdedup.dedup.threshold.vectors import Vectors, scores_record
from semdedup.errors import InputError
from semdedup.runs.lookup import check_recorded
from semdedup.storage.location import Location

FOREST_FILE = re.compile(rf"(?:^|/){FOREST}/part-(\d+)\.parquet$")
BATCH_SIZE = 1024


class Clusters(NamedTuple):
    """The clusters that have scores.

    Attributes:
        vectors: where they are.
        schema: how they are read.
        clusters: each with its files and rows.
        base: clusters of the base of an update that was compared across clusters, without its own rows.
        dim: d.
        n_bytes: bytes of all rows, see `sizes.held_bytes`.
        other_bytes: those of a row beside its embedding, on average.
    """

    vectors: Vectors
    schema: InputSchema
    clusters: Sequence[Cluster]
    base: Sequence[Cluster]
    dim: int
    n_bytes: int
    other_bytes: float


def clusters_of(vectors: Vectors, facts: Sequence[FileFacts], scored: Mapping[int, str]) -> Clusters:
    """The clusters that have scores, from what the footers of their files say.

    Raises:
        InputError: one of them is missing.
    """
    schema = check_columns(facts, vectors.fields, vectors.ranking).below(vectors.files)
    clusters = find_clusters(vectors.files, facts)
    if vectors.base is not None:
        clusters = with_base(clusters, *vectors.base, facts)
    missing = sorted(scored.keys() - {cluster.label for cluster in clusters})
    if missing:
        gone = f"cluster {missing[0]}, but no rows of centroid={missing[0]} in {vectors.source}"
        raise InputError(f"there are scores of {gone}: these are not the clusters that the scores were made of")
    dim = commonest_dim(vectors.source, clusters, schema)
    base = [] if vectors.base is None else clusters_of_base(*vectors.base, facts)
    others = sum(file.other_bytes for file in facts) / max(1, sum(file.n_rows for file in facts))
    return Clusters(vectors, schema, clusters, base, dim, sum(file.n_bytes for file in facts), others)


def removing_of(
    scores: Location, found: Clusters, thresholds: Sequence[float], removal: str, scratch: Location, backend: Backend
) -> Removing:
    """The task of a rule for these clusters. Ranks are those of the scores; across clusters what ranks is on record."""
    comparison = Comparison(
        clusters=found.vectors.source,
        target=scratch,
        final=scratch,
        scratch=scratch,
        schema=found.schema,
        strategy=found.vectors.ranking,
        dim=found.dim,
        limits=Limits(least_score(max(thresholds)), BATCH_SIZE),
        backend=backend,
        write_kwargs={},
    )
    forest = forest_of_record(scores, max(thresholds)) if removal == "components" else None
    return Removing(scores, comparison, tuple(dict.fromkeys(thresholds)), removal, forest)


def forest_of_record(scores: Location, eps: float) -> Location | None:
    """The folder of the forests of matches that the comparison wrote, where they tell of this eps.

    Raises:
        InputError: forests on record are missing or were changed.
    """
    compared = scores_record(scores)
    up_to = compared.get("parameters", {}).get("forest_up_to")
    if up_to is None or eps > up_to:
        return None
    folder: Location = compared["root"] / FOREST
    check_recorded(folder, folder.files(), lambda url: bool(FOREST_FILE.search(url)))
    return folder


def parts_of(group: Sequence[Cluster], scored: Mapping[int, str], rows_per_task: int) -> tuple[Part, ...]:
    """Those clusters of a group that have scores."""
    here = (cluster for cluster in group if cluster.label in scored)
    return tuple(Part(cluster, scored[cluster.label], cluster.n_rows > rows_per_task) for cluster in here)


def packed_parts(clusters: Sequence[Cluster], scored: Mapping[int, str], rows: TaskRows) -> list[tuple[Part, ...]]:
    """Groups of small clusters, and large ones alone, which come first."""
    small, large = pack_groups(clusters, rows)
    groups = (parts_of(group, scored, rows.most) for group in [*((cluster,) for cluster in large), *small])
    return [group for group in groups if group]


def packed_base(clusters: Sequence[Cluster], rows: TaskRows) -> list[tuple[Part, ...]]:
    """Groups of clusters of a base, which have no scores."""
    small, large = pack_groups(clusters, rows)
    return [tuple(Part(cluster, "") for cluster in group) for group in [*((cluster,) for cluster in large), *small]]


def forest_groups(
    task: Removing, clusters: Sequence[Cluster], scored: Mapping[int, str], rows: TaskRows
) -> list[Group]:
    """The groups of clusters that share a forest, each with it; large clusters apart, first."""
    if task.forest is None:
        return [(group, "") for group in packed_parts(clusters, scored, rows)]
    urls = {int(match[1]): file.url for file in task.forest.files() if (match := FOREST_FILE.search(file.url))}
    on_record = scores_record(task.scores).get("facts", {}).get("forests", ())
    groups = groups_of_forests(clusters, list(urls), on_record)
    return sorted(_with_forest(groups, urls, scored, rows.most), key=_order)


def _with_forest(
    groups: Sequence[Sequence[Cluster]], urls: Mapping[int, str], scored: Mapping[int, str], rows_per_task: int
) -> Iterator[Group]:
    for group in groups:
        parts = parts_of(group, scored, rows_per_task)
        small = tuple(part for part in parts if not part.large)
        if parts and group[0].label not in urls:
            raise InputError(
                f"there is no forest of the matches of cluster {group[0].label}; compare the clusters again"
            )
        yield from (((part,), urls[group[0].label]) for part in parts if part.large)
        if small:
            yield small, urls[group[0].label]


def _order(group: Group) -> bool:
    return not group[0][0].large
