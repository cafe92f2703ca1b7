"""The removal rules for one cluster after the other, in this process: for questions to a result that exists."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Self

import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.base.kept import ListedRows
from semdedup.dedup.input.facts import Counted, inspect_files
from semdedup.dedup.kernels.greedy import Witnesses, first_look
from semdedup.dedup.names import WITNESSES, cluster_of
from semdedup.dedup.threshold.components import components_of, look_at_large_components
from semdedup.dedup.threshold.everywhere.components import remove_components_everywhere
from semdedup.dedup.threshold.everywhere.witness import remove_everywhere, unwitnessed_everywhere
from semdedup.dedup.threshold.groups import Part, Removing, Targets, removals, unwitnessed, witness_table
from semdedup.dedup.threshold.large import look_at_large
from semdedup.dedup.threshold.plan import (
    Clusters,
    clusters_of,
    forest_groups,
    packed_base,
    packed_parts,
    parts_of,
    removing_of,
)
from semdedup.dedup.threshold.rule import least_score
from semdedup.dedup.threshold.vectors import Ranked, base_rows_of, find_vectors, read_ranked, scores_record
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import read_table
from semdedup.storage.temporary import temporary_prefix


class LocalRemoval(AbstractContextManager["LocalRemoval"]):
    """Which rows of a cluster go, at some thresholds. Clusters are looked for when the first is needed.

    Memory: as a task of the comparison; clusters that are larger go through files in a temporary folder.

    Args:
        scores: the root of the result, or the folder of its scores.
        files: the tables of scores.
        thresholds: each eps.
        removal: the rule, ``witness`` or ``components``.
    """

    def __init__(
        self, scores: Location, files: Sequence[FileInfo], thresholds: Sequence[float], removal: str = "witness"
    ) -> None:
        self._scores, self.thresholds, self.removal = scores, tuple(thresholds), removal
        self._scored = {cluster_of(file.url): file.url for file in files}
        self._temporary = tempfile.TemporaryDirectory(prefix=temporary_prefix())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    @cached_property
    def _found(self) -> Clusters:
        vectors = find_vectors(self._scores, self.removal)
        facts, _ = inspect_files(Counted.of(vectors.fields), False, vectors.located)
        return clusters_of(vectors, facts, self._scored)

    @cached_property
    def _base(self) -> ListedRows | None:
        return base_rows_of(scores_record(self._scores))

    @cached_property
    def _task(self) -> Removing:
        scratch = Location.of(self._temporary.name)
        return removing_of(self._scores, self._found, self.thresholds, self.removal, scratch, "cpu")

    @cached_property
    def _rows_per_task(self) -> int:
        return sizes.rows_compared(sizes.LARGEST_TASK, self._found.dim, self._found.other_bytes)

    @property
    def _task_rows(self) -> sizes.TaskRows:
        return sizes.TaskRows(self._rows_per_task, self._rows_per_task)

    @cached_property
    def _forests(self) -> dict[int, str]:
        """The forest of each cluster."""
        groups = forest_groups(self._task, self._found.clusters, self._scored, self._task_rows)
        return {part.cluster.label: forest for parts, forest in groups for part in parts}

    def cluster(self, file: FileInfo) -> tuple[Ranked, list[Witnesses]]:
        """The rows of a cluster, by its table of scores, and their witnesses at each threshold."""
        if self.removal == "components":
            part = self._part(file)
            group = (part,), self._forests[part.cluster.label]
            if part.large:
                look_at_large_components(self._task, [group], self._rows_per_task, _in_turn)
            ((_, ranked, found),) = components_of(self._task, group)
            return ranked, found
        ranked = read_ranked(self._scores.at(file.url), self._base)
        looks = [first_look(ranked.score, ranked.match, least_score(eps)) for eps in self.thresholds]
        if not any(len(again) for _, again in looks):
            return ranked, [found for found, _ in looks]
        return removals(self._task, self._looked_at(file))

    def unwitnessed(self, file: FileInfo) -> list[int]:
        """At each threshold how many of the rows whose score reaches it match no row whose score does not."""
        ranked = read_ranked(self._scores.at(file.url), self._base)
        looks = (first_look(ranked.score, ranked.match, least_score(eps))[1] for eps in self.thresholds)
        if not any(map(len, looks)):
            return [0] * len(self.thresholds)
        return unwitnessed(self._task, self._looked_at(file))

    def removed(self, file: FileInfo) -> pa.Table:
        """``id``, ``witness_id`` and similarity of the rows that go at the first threshold."""
        ranked, found = self.cluster(file)
        return witness_table(ranked, found[0])

    @property
    def _groups(self) -> tuple[Sequence[tuple[Part, ...]], Sequence[tuple[Part, ...]]]:
        """Groups of clusters, and those of a base."""
        groups = packed_parts(self._found.clusters, self._scored, self._task_rows)
        return groups, packed_base(self._found.base, self._task_rows)

    def unwitnessed_everywhere(self) -> int:
        """`unwitnessed` at the first threshold, of all clusters, where scores tell of matches across them."""
        self.everywhere()
        return unwitnessed_everywhere(self._task, len(self._groups[0]))

    def everywhere(self) -> tuple[int, list[int], pa.Table]:
        """For scores that tell of matches across clusters: the rows, how many go at each threshold, and a table of
        ``id``, ``witness_id`` and similarity of those that go at the first."""
        groups, base = self._groups
        folder = self._task.comparison.scratch / "removed"
        targets = Targets(folder / "ids", None, folder / WITNESSES, {})
        if self.removal == "components":
            results = remove_components_everywhere(self._task, targets, groups, base, _in_turn)
        else:
            results = remove_everywhere(self._task, targets, groups, base, self._rows_per_task, _in_turn)
        removed = [sum(each) for each in zip(*(result["removed"] for result in results), strict=True)]
        tables = [read_table(file) for file in ((folder / WITNESSES).at(f.url) for f in (folder / WITNESSES).files())]
        at = [removed[self._task.thresholds.index(eps)] for eps in self.thresholds]
        return sum(result["rows"] for result in results), at, pa.concat_tables(tables)

    def _part(self, file: FileInfo) -> Part:
        label = cluster_of(file.url)
        own = [cluster for cluster in self._found.clusters if cluster.label == label]
        return parts_of(own, self._scored, self._rows_per_task)[0]

    def _looked_at(self, file: FileInfo) -> Part:
        part = self._part(file)
        if part.large:
            self._task.place(part.cluster.label).remove_tree()
            look_at_large(self._task, [part], self._rows_per_task, _in_turn)
        return part


def _in_turn(name: str, function: Callable[[Any], dict[str, Any]], items: Sequence[Any]) -> list[dict[str, Any]]:
    return [function(item) for item in items]
