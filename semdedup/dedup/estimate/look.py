"""The sample compared with the rows of one partition, which are streamed: no row is normalised that is ruled out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.arrays import Array, Backend, backend_module, scratch, take_rows, to_host
from semdedup.dedup.cluster.fit import load_centroids
from semdedup.dedup.cluster.shuffle import Assignment
from semdedup.dedup.estimate.sample import Sample, load_block
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.input.partitions import Partition
from semdedup.dedup.input.rows import REASONS, check_rows, low_information_mask
from semdedup.dedup.input.scan import SCANNED, Workspace
from semdedup.dedup.kernels.bounds import short_error, short_rows
from semdedup.dedup.kernels.exact import exact_scores, product_error, square_lengths, unit_rows
from semdedup.dedup.kernels.kmeans import assign

BATCH = 256
"""Rows in one product with the sample."""

LABELLED_AT_A_TIME = 1 << 14
"""Matches whose rows are labelled together, at least; what that settles is not compared any more."""

LONGEST = 2.0**40
"""Rows longer or shorter than this, or its inverse, are normalised before float32 multiplies them."""


ROUGHLY = 2.0**-20
"""By how much the product of a row that is divided by its length in float32 may differ from that of the unit row."""


class Seen(NamedTuple):
    """What rows of the sample found.

    Attributes:
        best: (q,) float32, the largest score with a better-ranked row that matches, 0 for none.
        own: (q,) float32, the same among rows of its own cluster.
    """

    best: np.ndarray
    own: np.ndarray

    @classmethod
    def nothing(cls, n: int) -> Seen:
        """For n rows, nothing yet."""
        return cls(np.zeros(n, dtype=np.float32), np.zeros(n, dtype=np.float32))

    def take(self, other: Seen) -> None:
        """Take in what the same rows found elsewhere."""
        np.maximum(self.best, other.best, out=self.best)
        np.maximum(self.own, other.own, out=self.own)


class Search:
    """The search for better-ranked matches of a sample among rows that come batch by batch.

    A row of the sample that has a match in its own cluster within the smallest eps is settled: what else it may match
    changes no share. So a heap of near-equal rows costs no more than its first batch.

    Args:
        sample: on the host.
        label: gives the cluster of each of some rows of length 1, (m, d) to (m,).
        backend: arrays to compute with.
        least, settled: the least scores of a match at the largest and at the smallest eps.
    """

    def __init__(
        self,
        sample: Sample,
        label: Callable[[Array], Array],
        backend: Backend,
        least: np.float32,
        settled: np.float32,
    ) -> None:
        self.seen = Seen.nothing(len(sample.rows))
        self._xp = backend_module(backend)
        self._sample, self._label = sample, label
        self._least, self._settled = least, settled
        self._axes = self._xp.asarray(sample.axes) if sample.axes.shape[1] else None
        self._every = self._xp.asarray(sample.rows)
        dim, width = sample.axes.shape
        error = short_error(dim, width + 1) if width else 1.01 * product_error(dim)
        self._limit = np.float32(float(least) - error - ROUGHLY)
        self._short = self._every if self._axes is None else short_rows(self._every, self._axes)
        self._held: list[tuple[np.ndarray, Array, np.ndarray, np.ndarray]] = []
        self._n_held = 0
        self._ask(np.arange(len(sample.rows)))

    def _ask(self, positions: np.ndarray) -> None:
        """Go on for some rows of the sample."""
        self._asking, self._ranks = positions, self._sample.ranks[positions]
        self._queries = self._short if len(positions) == len(self._short) else self._short[self._xp.asarray(positions)]

    def compare(self, rows: np.ndarray, ranks: np.ndarray) -> None:
        """Compare some rows, (n, d) as they came, with ranks (n,) uint64, in any order."""
        order = np.argsort(ranks)
        rows, ranks = self._xp.asarray(rows), ranks[order]
        rows, short = self._shortened(rows)
        ordered = scratch(self._xp, "ordered", short.shape, np.float32)
        short = take_rows(short, self._xp.asarray(order), ordered)
        for start in range(0, len(ranks), BATCH):
            stop = min(start + BATCH, len(ranks))
            first = int(np.searchsorted(self._ranks, ranks[start], side="right"))  # the others rank better than these
            if first == len(self._ranks):
                return
            product = scratch(self._xp, "products", (len(self._ranks) - first, stop - start), np.float32)
            self._xp.matmul(self._queries[first:], short[start:stop].T, out=product)
            near = to_host(self._xp.flatnonzero(product >= self._limit))
            if len(near):
                query, column = np.divmod(near, stop - start)
                query, column = query + first, column + start
                better = ranks[column] < self._ranks[query]
                self._decide(self._asking[query[better]], rows, order[column[better]])

    def _shortened(self, rows: Array) -> tuple[Array, Array]:
        """Rows as they are to be normalised, and what is multiplied of them: leading coordinates, or unit rows.

        For the coordinates a row is divided by its length in float32, which leaves it within 2**-22 of what
        normalising gives, at a quarter of the cost.
        """
        lengths = self._xp.sqrt(square_lengths(rows))
        if rows.dtype == np.float32 and bool(((lengths < LONGEST) & (lengths > 1 / LONGEST)).all()):
            roughly = scratch(self._xp, "roughly", rows.shape, np.float32)
            self._xp.divide(rows, lengths.astype(np.float32)[:, None], out=roughly)
        else:
            rows = roughly = unit_rows(rows)
        return rows, (roughly if self._axes is None else short_rows(roughly, self._axes))

    def _decide(self, queries: np.ndarray, rows: Array, positions: np.ndarray) -> None:
        """Score pairs that were not ruled out, and keep those that match until their rows are labelled."""
        if not len(queries):
            return
        chosen, row = np.unique(positions, return_inverse=True)
        units = unit_rows(rows[self._xp.asarray(chosen)])
        on = self._xp.asarray
        scores = to_host(exact_scores(self._every, units, on(queries), on(row.reshape(-1))))
        reached = scores >= self._least
        matched, row = np.unique(row.reshape(-1)[reached], return_inverse=True)
        if not len(matched):
            return
        self._held.append((queries[reached], units[on(matched)], scores[reached], row.reshape(-1)))
        self._n_held += len(row)
        if self._n_held >= LABELLED_AT_A_TIME:
            self.settle()

    def settle(self) -> Seen:
        """Label the rows that matched, and go on without the rows of the sample that are settled."""
        if not self._held:
            return self.seen
        labels = to_host(self._label(self._xp.concatenate([part for _, part, _, _ in self._held])))
        start = 0
        for queries, part, scores, row in self._held:
            own = labels[start + row] == self._sample.labels[queries]
            np.maximum.at(self.seen.best, queries, scores)
            np.maximum.at(self.seen.own, queries[own], scores[own])
            start += len(part)
        self._held, self._n_held = [], 0
        open_rows = self.seen.own[self._asking] < self._settled
        if not open_rows.all():
            self._ask(self._asking[open_rows])
        return self.seen


@dataclass(frozen=True)
class Look:
    """What every task that compares the sample needs to know.

    Attributes:
        clusters: the centroids, the length of rows, the arrays to compute with.
        rank_seed: of the hash of the ids that ranks.
        least, settled: the least scores of a match at the largest and at the smallest eps.
    """

    clusters: Assignment
    rank_seed: int
    least: np.float32
    settled: np.float32


class Looked(NamedTuple):
    """What a partition gave: matches of the sample, its rows, those that cannot be compared by reason, seconds."""

    seen: Seen
    rows: int
    quarantined: dict[str, int]
    reading_seconds: float


def look_at_partition(work: Workspace, task: Look, item: tuple[int, tuple[int, Partition]]) -> Looked:
    """Compare a block of the sample with the rows of one partition.

    Memory: the block, twice with its leading coordinates; a batch as it is decoded and its leading coordinates; one
    product; the rows that match.
    """
    block, (_, slices) = item
    centroids = load_centroids(task.clusters.centroids, task.clusters.digest, task.clusters.backend)

    def label(rows: Array) -> Array:
        return assign(rows, centroids, task.clusters.max_samples_per_batch)

    search = Search(load_block(work.scratch, block), label, task.clusters.backend, task.least, task.settled)
    faults = np.zeros(len(REASONS), dtype=np.int64)
    on_host = replace(work, backend="cpu")  # few of the rows are compared in full
    tables = Timed(rows.table for rows in on_host.read(slices, SCANNED))
    for table in tables:
        checked = check_rows(table.column("id"), table.column("embedding"), task.clusters.dim)
        faults += np.bincount(checked.faults, minlength=len(REASONS))
        rows, positions = checked.rows, checked.positions
        low = low_information_mask(table)
        if low is not None and low.any():
            informs = ~low[positions]
            rows, positions = rows[informs], positions[informs]
        if len(rows):
            search.compare(rows, hash_ids(table.column("id"), task.rank_seed)[positions])
    counted = {reason: int(n) for reason, n in zip(REASONS, faults, strict=True) if reason and n}
    return Looked(search.settle(), int(faults.sum()), counted, tables.seconds)


class Timed:
    """An iterator, and the seconds that its items took."""

    def __init__(self, items: Iterable[pa.Table]) -> None:
        self._items, self.seconds = iter(items), 0.0

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> pa.Table:
        started = time.perf_counter()
        try:
            return next(self._items)
        finally:
            self.seconds += time.perf_counter() - started
