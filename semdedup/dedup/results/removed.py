"""The rows of a result that go by a removal rule, at any threshold: counted, grouped, explained."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.dedup.names import SCORE, cluster_of
from semdedup.dedup.results.groups import groups_of
from semdedup.dedup.results.pairs import Explanation, Group, Pair
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.threshold.local import LocalRemoval
from semdedup.dedup.threshold.rule import REMOVAL, check_eps, least_score
from semdedup.errors import ParameterError
from semdedup.storage.location import FileInfo


@dataclass(frozen=True)
class RemovedRows:
    """What goes by a rule.

    Attributes:
        scores: the scores.
        removal: the rule.

    Under ``any`` the scores tell everything. Other rules go through the clusters one after the other, in this process.
    """

    scores: Scores
    removal: str = "any"

    def __post_init__(self) -> None:
        REMOVAL.check(self.removal)
        if self.removal == "components" and self.scores.across:
            raise ParameterError("removal must be any or witness for scores of one set against another")

    @property
    def by_scores(self) -> bool:
        """Whether the score alone tells of a row that it goes. Of a row of two sets the match always stays."""
        return self.removal == "any" or self.scores.across

    def _local(self, thresholds: Sequence[float], removal: str = "") -> LocalRemoval:
        return LocalRemoval(self.scores.source, self.scores.files, thresholds, removal or self.removal)

    def count(self, thresholds: Sequence[float]) -> tuple[int, list[int]]:
        """Rows, and how many of them go at each eps. Time: one reading of the scores, and what the rule needs."""
        if self.by_scores:
            return self.scores.count(thresholds)
        removed = np.zeros(len(thresholds), dtype=np.int64)
        with self._local(thresholds) as local:
            for file in self.scores.files:
                _, found = local.cluster(file)
                removed += [np.count_nonzero(each.witness >= 0) for each in found]
        return self.scores.n_rows, removed.tolist()  # those of a base, which stand in front, are not among them

    def groups(self, eps: float, files: Sequence[FileInfo] | None = None) -> Iterator[Group]:
        """Each kept row that is a witness, with the rows that go for its sake; under ``any`` see `Scores.groups`."""
        if self.by_scores:
            yield from self.scores.groups(eps, files)
            return
        with self._local([check_eps(eps)]) as local:
            for file in self.scores.files if files is None else files:
                removed = local.removed(file)
                if len(removed):
                    yield from groups_of(removed.rename_columns(["id", "max_id", SCORE]), cluster_of(file.url), True)

    def witness_of(self, pair: Pair, eps: float) -> Pair | None:
        """The witness of a row, given the row and its match, and their similarity; None for a row that stays."""
        (file,) = (file for file in self.scores.files if cluster_of(file.url) == pair.cluster)
        with self._local([check_eps(eps)]) as local:
            ranked, (found,) = local.cluster(file)
        rank = ranked.ids.index(pa.scalar(pair.id, ranked.ids.type)).as_py()
        if found.witness[rank] < 0:
            return None
        return Pair(pair.id, ranked.ids[int(found.witness[rank])].as_py(), float(found.score[rank]), pair.cluster)

    def without_witness(self, eps: float) -> int:
        """How many of the rows that go match no row that stays. Reads the clusters in which that is not certain."""
        if self.scores.across or self.removal == "witness":
            return 0
        files = self.scores.files
        with self._local([check_eps(eps)], "witness" if self.removal == "any" else "") as local:
            if self.removal == "any":
                return sum(local.unwitnessed(file)[0] for file in files)
            scores = (local.removed(file).column(SCORE).to_numpy() for file in files)
            return sum(int(np.count_nonzero(each < least_score(eps))) for each in scores)

    def suggest_eps(self, target_fraction: float) -> float:
        """The smallest eps at which at most this fraction of the rows remains.

        Raises:
            ParameterError: the fraction cannot be reached; or the rule is ``witness``, under which a larger eps may
                leave more rows.
        """
        if not self.by_scores:
            raise ParameterError(
                f"target_fraction is for removal='any'; under {self.removal!r} give eps; "
                "result.remaining([0.05, 0.1]) tells what remains"
            )
        return self.scores.suggest_eps(target_fraction)

    def explain(self, row_id: Any, eps: float | None) -> Explanation:
        """Why a row is kept or dropped, see `Scores.explain`; under other rules than ``any`` for whose sake."""
        found = self.scores.explain(row_id, eps)
        if self.by_scores or eps is None:
            return found
        witness = self.witness_of(found.pair, eps)
        other = found.max_metadata if witness is None else self.scores.metadata([witness]).get(witness.max_id, {})
        return replace(found, duplicate=witness is not None, witness=witness, max_metadata=other)
