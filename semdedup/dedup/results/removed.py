"""The rows of a result that go by a removal rule, at any threshold: counted, grouped, explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.names import SCORE, cluster_of
from semdedup.dedup.results.groups import groups_of
from semdedup.dedup.results.pairs import Explanation, Group, Id, Pair
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.threshold.local import LocalRemoval
from semdedup.dedup.threshold.rule import REMOVAL, check_eps, check_within, duplicate_mask, least_score
from semdedup.dedup.threshold.vectors import exact_up_to_of, scores_record
from semdedup.errors import ParameterError
from semdedup.storage.location import FileInfo


@dataclass(frozen=True)
class RemovedRows:
    """What goes by a rule.

    Attributes:
        scores: the scores.
        removal: the rule.

    Under ``any`` the scores tell everything. Other rules go through the clusters one after the other, in this process.
    Where matches were found across clusters, the rows that go are held: about 200 bytes each.
    """

    scores: Scores
    removal: str = "any"

    def __post_init__(self) -> None:
        REMOVAL.check(self.removal)
        if self.removal == "components" and self.scores.across:
            raise ParameterError("removal must be any or witness for scores of one set against another")

    @cached_property
    def exact_up_to(self) -> float | None:
        """Up to which eps matches were found across clusters; None: within clusters only."""
        return exact_up_to_of(scores_record(self.scores.source))

    @property
    def by_scores(self) -> bool:
        """Whether the score alone tells of a row that it goes. Of a row of two sets the match always stays."""
        return self.removal == "any" or self.scores.across

    def count(self, thresholds: Sequence[float]) -> tuple[int, list[int]]:
        """Rows, and how many of them go at each eps. Time: one reading of the scores, and what the rule needs."""
        self._check(thresholds)
        if self.by_scores:
            return self.scores.count(thresholds)
        with self._local(thresholds) as local:
            if self.exact_up_to is not None:
                return local.everywhere()[:2]
            n_rows, removed = 0, np.zeros(len(thresholds), dtype=np.int64)
            for file in self.scores.files:
                ranked, found = local.cluster(file)
                n_rows += len(ranked.ids) - ranked.n_base
                removed += [np.count_nonzero(each.witness >= 0) for each in found]
            return n_rows, removed.tolist()

    def ids(self, eps: float) -> pa.ChunkedArray:
        """The ids of the rows that go. Memory: these ids, and under other rules than ``any`` their witnesses."""
        self._check([eps])
        return (self._duplicates(eps) if self.by_scores else self._witnesses(eps)).column("id")

    def groups(self, eps: float, files: Sequence[FileInfo] | None = None) -> Iterator[Group]:
        """Each kept row for whose sake others go, with these; under ``any`` see `Scores.groups`.

        Args:
            eps: the threshold.
            files: the tables to look at, one a cluster; all of them by default. Where matches were found across
                clusters, groups with a row that goes from one of these.
        """
        self._check([eps])
        if self.exact_up_to is not None:
            labels = None if files is None else {cluster_of(file.url) for file in files}
            for group in groups_of(self._across_clusters(eps), -1, not self.by_scores):
                if labels is None or any(pair.cluster in labels for pair in group.dropped):
                    yield group
        elif self.by_scores:
            yield from self.scores.groups(eps, files)
        else:
            with self._local([eps]) as local:
                for file in self.scores.files if files is None else files:
                    removed = local.removed(file).rename_columns(["id", "max_id", SCORE])
                    if len(removed):
                        yield from groups_of(removed, cluster_of(file.url), True)

    def borderline(self, n: int, eps: float) -> list[Pair]:
        """See `Scores.borderline`."""
        self._check([eps])
        return self.scores.borderline(n, eps)

    def without_witness(self, eps: float) -> int:
        """How many of the rows that go match no row that stays. Reads the clusters in which that is not certain."""
        self._check([eps])
        if self.scores.across or self.removal == "witness":
            return 0
        if self.removal == "components":
            return int(np.count_nonzero(self._witnesses(eps).column(SCORE).to_numpy() < least_score(eps)))
        with self._local([eps], "witness") as local:
            if self.exact_up_to is not None:
                return local.unwitnessed_everywhere()
            return sum(local.unwitnessed(file)[0] for file in self.scores.files)

    def explain(self, row_id: Id, eps: float | None) -> Explanation:
        """Why a row is kept or dropped, see `Scores.explain`; under other rules than ``any`` for whose sake."""
        found = self.scores.explain(row_id, eps)
        if self.by_scores or eps is None:
            return found
        self._check([eps])
        witness = self._witness_of(found.pair, eps)
        other = found.max_metadata if witness is None else self.scores.metadata([witness]).get(witness.max_id, {})
        return replace(found, duplicate=witness is not None, witness=witness, max_metadata=other)

    def suggest_eps(self, target_fraction: float) -> float:
        """The smallest eps at which at most this fraction of the rows remains.

        Raises:
            ParameterError: the fraction cannot be reached; or the rule is another than ``any``.
        """
        if not self.by_scores:
            raise ParameterError(
                f"target_fraction is for removal='any'; under {self.removal!r} give eps; "
                "result.remaining([0.05, 0.1]) tells what remains"
            )
        eps = self.scores.suggest_eps(target_fraction)
        self._check([eps])
        return eps

    def _check(self, thresholds: Sequence[float]) -> None:
        for eps in thresholds:
            check_within(check_eps(eps), self.exact_up_to)

    def _local(self, thresholds: Sequence[float], removal: str = "") -> LocalRemoval:
        self.scores.check()
        return LocalRemoval(self.scores.source, self.scores.files, thresholds, removal or self.removal)

    def _witnesses(self, eps: float) -> pa.Table:
        """``id``, ``witness_id`` and similarity of all rows that go."""
        with self._local([eps]) as local:
            if self.exact_up_to is not None:
                return local.everywhere()[2]
            return pa.concat_tables(local.removed(file) for file in self.scores.files)

    def _witness_of(self, pair: Pair, eps: float) -> Pair | None:
        """The witness of a row, given the row and its match, and their similarity; None for a row that stays."""
        if self.exact_up_to is not None:
            found = self._witnesses(eps)
        else:
            (file,) = (file for file in self.scores.files if cluster_of(file.url) == pair.cluster)
            with self._local([eps]) as local:
                found = local.removed(file)
        row = found.filter(pc.equal(found.column("id"), pa.scalar(pair.id, found.schema.field("id").type))).to_pylist()
        return Pair(pair.id, row[0]["witness_id"], row[0][SCORE], pair.cluster) if row else None

    def _duplicates(self, eps: float) -> pa.Table:
        """``id``, ``max_id``, score and ``cluster`` of the rows whose score reaches the threshold."""
        tables = []
        for cluster, batch in self.scores.batches(["id", "max_id", SCORE]):
            goes = pa.Table.from_batches([batch.filter(pa.array(duplicate_mask(batch.column(SCORE).to_numpy(), eps)))])
            tables.append(goes.append_column("cluster", pa.array(np.full(len(goes), cluster))))
        return pa.concat_tables(tables)

    def _across_clusters(self, eps: float) -> pa.Table:
        """The rows that go, with their match, or witness, and the cluster of each."""
        if self.by_scores:
            return self._duplicates(eps)
        removed = self._witnesses(eps).rename_columns(["id", "max_id", SCORE])
        clusters = np.full(len(removed), -1)
        for cluster, batch in self.scores.batches(["id"]):
            ids = batch.column("id").cast(removed.schema.field("id").type)  # wide text there
            clusters[pc.is_in(removed.column("id"), value_set=ids).to_numpy()] = cluster
        return removed.append_column("cluster", pa.array(clusters))
