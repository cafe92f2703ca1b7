"""Several results as one: a first one and its updates, each compared with those before it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from semdedup.dedup.results.pairs import Explanation, Group, Id
from semdedup.dedup.results.removed import RemovedRows
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.results.scores import NoSuchRowError, Scores
from semdedup.settings.choices import RemovalRule
from semdedup.storage.location import FileInfo


@dataclass(frozen=True)
class ChainRows(RemovedRows):
    """What goes of several results, of each by its own rule; `removal` is that of the last.

    Attributes:
        links: the same of each.
    """

    links: tuple[RemovedRows, ...] = ()

    @classmethod
    def together(cls, scores: Scores, links: Sequence[RemovedRows]) -> ChainRows:
        """What goes of results, given their scores as one."""
        return cls(scores, links[-1].removal, tuple(links))

    @cached_property
    def exact_up_to(self) -> float | None:
        """The least of theirs; None: within clusters only, in all of them."""
        return min((link.exact_up_to for link in self.links if link.exact_up_to is not None), default=None)

    @property
    def by_scores(self) -> bool:
        """Whether the scores alone tell in all of them."""
        return all(link.by_scores for link in self.links)

    def count(self, thresholds: Sequence[float]) -> tuple[int, list[int]]:
        """See `RemovedRows.count`; of all together."""
        counts = [link.count(thresholds) for link in self.links]
        removed = zip(*(found for _, found in counts), strict=True)
        return sum(rows for rows, _ in counts), [sum(each) for each in removed]

    def groups(self, eps: float, files: Sequence[FileInfo] | None = None) -> Iterator[Group]:
        """See `RemovedRows.groups`; result by result, so that a kept row may come once for each."""
        for link in self.links:
            own = None if files is None else [file for file in files if file in link.scores.files]
            if own is None or own:
                yield from link.groups(eps, own)

    def without_witness(self, eps: float) -> int:
        """See `RemovedRows.without_witness`; of all together."""
        return sum(link.without_witness(eps) for link in self.links)

    def explain(self, row_id: Id, eps: float | None) -> Explanation:
        """See `RemovedRows.explain`; by the result that has the row. The other row may be one of an earlier result."""
        for link in self.links:
            try:
                found = link.explain(row_id, eps)
            except NoSuchRowError:
                continue
            other = found.pair if found.witness is None else found.witness
            others = found.max_metadata or self.scores.metadata([other]).get(other.max_id, {})
            return replace(found, max_metadata=others)
        raise NoSuchRowError(f"no row {row_id!r} in the scores of {self.scores.source} and its updates")


@dataclass(frozen=True, repr=False)
class ChainResult(DedupResult):
    """The results of a chain read together; counts are over all of them.

    Each is asked by its own record, so that each has its own removal rule. At another eps than that of the record each
    is looked at as it was compared then: with the rows of the base that were kept at the time.
    """

    @classmethod
    def of(cls, links: Sequence[DedupResult], paths: Mapping[str, str]) -> ChainResult:
        """The results of a chain, the oldest first, as one."""
        last = links[-1]
        duplicates = kept = None
        if all(link.duplicates is not None for link in links):
            duplicates = sum(link.duplicates or 0 for link in links)
            # of the rows before the last update those are kept that it was compared with: some may have been withdrawn
            kept = (last.kept or 0) + (
                sum(link.kept or 0 for link in links[:-1]) if last.base is None else last.base.kept
            )
        quarantined = sum((Counter(link.quarantined) for link in links), Counter[str]())
        return cls(
            total=sum(link.total for link in links),
            duplicates=duplicates,
            kept=kept,
            quarantined=dict(quarantined),
            eps=last.eps,
            seconds={},
            paths=paths,
            metadata={"num_duplicates": duplicates, "removal": last.removal, "links": tuple(links)},
            skipped_files=tuple(file for link in links for file in link.skipped_files),
            scores=Scores.chained([link.scores for link in links if link.scores is not None]),
        )

    @property
    def links(self) -> tuple[DedupResult, ...]:
        """The results, the oldest first."""
        found: tuple[DedupResult, ...] = self.metadata["links"]
        return found

    @property
    def _links(self) -> tuple[DedupResult, ...]:
        return self.links

    def rethreshold(self, eps: float, removal: RemovalRule | None = None) -> ChainResult:
        """See `DedupResult.rethreshold`; of each result."""
        links = tuple(link.rethreshold(eps, removal) for link in self.links)
        duplicates = sum(link.duplicates or 0 for link in links)
        metadata = {**self.metadata, "num_duplicates": duplicates, "removal": links[-1].removal, "links": links}
        kept = sum(link.kept or 0 for link in links)
        return replace(self, eps=float(eps), duplicates=duplicates, kept=kept, metadata=metadata)

    def _removed(self, removal: str | None = None) -> ChainRows:
        return ChainRows.together(self._scores, [link._removed(removal) for link in self.links])

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell; a line for each result."""

        def count(link: DedupResult) -> str:
            removed = "no eps" if link.duplicates is None else f"{link.duplicates:,} duplicates, {link.removal}"
            return f"{link.total:,} rows, {removed}"

        lines = super().rows()
        advice = [("advice", self.advice)] * bool(self.advice)
        return lines[:1] + [(f"  {name_of(link)}", count(link)) for link in self.links] + advice + lines[1:]

    def to_json(self) -> dict[str, Any]:
        """As of each result; of each in ``results``."""
        results = {name_of(link): link.to_json() for link in self.links}
        return {**super().to_json(), "results": results, "advice": self.advice or None}

    @property
    def advice(self) -> str:
        """What to do where the centroids do not fit the rows of the last update; empty where they do."""
        return "" if self.links[-1].base is None else self.links[-1].base.advice


def name_of(link: DedupResult) -> str:
    """The name of the folder of a result."""
    return str(link.paths["results"]).rstrip("/").rsplit("/", 1)[-1]
