"""The removal rules for one cluster after the other, in this process: for questions to a result that exists."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Self

import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.compare.run import find_clusters
from semdedup.dedup.input.facts import inspect_files
from semdedup.dedup.kernels.greedy import Witnesses, first_look
from semdedup.dedup.names import CLUSTER_FOLDER, cluster_of
from semdedup.dedup.threshold.groups import Part, Removing, removals, unwitnessed, witness_table
from semdedup.dedup.threshold.large import look_at_large
from semdedup.dedup.threshold.rule import least_score
from semdedup.dedup.threshold.vectors import Ranked, Vectors, find_vectors, read_ranked
from semdedup.errors import InputError
from semdedup.storage.location import FileInfo, Location


class LocalRemoval(AbstractContextManager["LocalRemoval"]):
    """Which rows of a cluster go, at some thresholds. Clusters are looked for when the first is needed.

    Memory: as a task of the comparison; clusters that are larger go through files in a temporary folder.

    Args:
        scores: the root of the result, or the folder of its scores.
        thresholds: each eps.
        removal: the rule, ``witness`` or ``components``.
    """

    def __init__(self, scores: Location, thresholds: Sequence[float], removal: str = "witness") -> None:
        self._scores, self.thresholds, self.removal = scores, tuple(thresholds), removal
        self._temporary = tempfile.TemporaryDirectory(prefix="semdedup-")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._temporary.cleanup()

    @cached_property
    def _clusters(self) -> tuple[Vectors, list[FileInfo]]:
        return find_vectors(self._scores)

    def cluster(self, file: FileInfo) -> tuple[Ranked, list[Witnesses]]:
        """The rows of a cluster, by its table of scores, and their witnesses at each threshold."""
        ranked = read_ranked(self._scores.at(file.url))
        limits = [least_score(eps) for eps in self.thresholds]
        looks = [first_look(ranked.score, ranked.match, least) for least in limits]
        if not any(len(unsure) for _, unsure in looks):
            return ranked, [found for found, _ in looks]
        return removals(*self._part(file))

    def unwitnessed(self, file: FileInfo) -> list[int]:
        """At each threshold how many of the rows whose score reaches it match no row whose score does not."""
        ranked = read_ranked(self._scores.at(file.url))
        looks = (first_look(ranked.score, ranked.match, least_score(eps))[1] for eps in self.thresholds)
        if not any(map(len, looks)):
            return [0] * len(self.thresholds)
        return unwitnessed(*self._part(file))

    def removed(self, file: FileInfo) -> pa.Table:
        """``id``, ``witness_id`` and similarity of the rows that go at the first threshold."""
        ranked, found = self.cluster(file)
        return witness_table(ranked, found[0])

    def _part(self, file: FileInfo) -> tuple[Removing, Part]:
        vectors, listed = self._clusters
        label = cluster_of(file.url)
        own = [each for each in listed if (match := CLUSTER_FOLDER.search(each.url)) and int(match[1]) == label]
        facts, _ = inspect_files(
            vectors.embedding_field, False, [(vectors.source.at(each.url), each.url) for each in own]
        )
        clusters = find_clusters(own, facts)
        if not clusters:
            raise InputError(
                f"there are scores of cluster {label}, but no rows of centroid={label} in {vectors.source}"
            )
        n_values = sum(each.n_values for each in facts)
        rows_per_task = sizes.rows_per_task(sizes.LARGEST_TASK, max(1, n_values // clusters[0].n_rows))
        part = Part(clusters[0], file.url, clusters[0].n_rows > rows_per_task)
        task = Removing(self._scores, vectors, Location.of(self._temporary.name), self.thresholds, "cpu")
        if part.large:
            task.place(part.cluster).remove_tree()
            look_at_large(task, [part], rows_per_task, _in_turn)
        return task, part


def _in_turn(name: str, function: Callable[[Any], dict[str, Any]], items: Sequence[Any]) -> list[dict[str, Any]]:
    return [function(item) for item in items]
