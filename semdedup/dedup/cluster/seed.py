"""The centroids to start from: rows of the sample, chosen by k-means++ in one task, or cell by cell where that is much.

The rows to choose from are the first of the sample in the order of its hashes, which are random ones. In *two levels*
they are first told apart by a few coarse centroids, then k-means++ chooses in each of these cells by itself. A cell
gets seeds by its share of the square distances to the coarse centroids: what k-means++ draws by.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from semdedup.arrays import Backend, backend_module, to_host
from semdedup.compute.session import Session
from semdedup.dedup import sizes
from semdedup.dedup.cluster.draw import Sample
from semdedup.dedup.kernels.kmeans import (
    TRIALS,
    Sums,
    assign,
    distances_to_centroids,
    lloyd_sums,
    next_centroids,
    seeds,
)

SEEDING_ROWS_PER_CENTROID, SMALLEST_SEEDING_SAMPLE = 4, 4096
"""Rows that k-means++ draws from: for each centroid, times the oversampling factor, and in all at least."""

SEEDING_BYTES, SEEDING_WORK = 256 << 20, sizes.WORK_PER_TASK
"""Most bytes of rows, and most operations, of a task that chooses all seeds; see `seeding_work`. They are the same for
every cluster of workers, for the seeds follow from them."""

PASSES = 512
"""What k-means++ does with a product of two rows, in operations of a product: four passes over it, as measured."""

COARSE_ITERATIONS = 5
"""Of Lloyd's on the coarse centroids."""

CELL_ROWS_PER_SEED = 32
"""Rows of a cell for each of its seeds, at most: crowds of rows that hardly differ get few seeds."""


class Head(NamedTuple):
    """The first rows of a part of the sample: a future of them, (m, d), and their ranks among all, (m,) int64."""

    rows: Any
    ranks: np.ndarray


def seeding_rows(n_clusters: int, oversampling_factor: float) -> int:
    """How many rows of the sample k-means++ draws from."""
    per_centroid = SEEDING_ROWS_PER_CENTROID * oversampling_factor
    return max(n_clusters, SMALLEST_SEEDING_SAMPLE, int(per_centroid * n_clusters))


def seeding_work(n_rows: int, dim: int, n_clusters: int) -> int:
    """Operations of k-means++ on so many rows: 2·m·k·t·(d + `PASSES`), with t = 2·(2 + log k) rows tried for a seed."""
    return 2 * n_rows * n_clusters * TRIALS * (2 + int(math.log(n_clusters))) * (dim + PASSES)


def in_two_levels(n_rows: int, dim: int, n_clusters: int) -> bool:
    """Whether the seeds are chosen cell by cell."""
    return 4 * n_rows * dim > SEEDING_BYTES or seeding_work(n_rows, dim, n_clusters) > SEEDING_WORK


def first_rows(session: Session, sample: Sample, wanted: int) -> list[Head]:
    """The first rows of the sample, by parts. They depend on the rows alone, not on the parts."""
    every = np.concatenate(sample.hashes)
    last = np.partition(every, wanted - 1)[wanted - 1] if wanted < len(every) else np.uint64(2**64 - 1)
    counts = [int(np.searchsorted(hashes, last, side="right")) for hashes in sample.hashes]
    chosen = np.concatenate([hashes[:count] for hashes, count in zip(sample.hashes, counts, strict=True)])
    ranks = np.empty(len(chosen), dtype=np.int64)
    ranks[np.argsort(chosen, kind="stable")] = np.arange(len(chosen))
    of_parts = np.split(ranks, np.cumsum(counts)[:-1])
    return [
        Head(session.client.submit(_first, part, count, pure=False), of_part)
        for part, count, of_part in zip(sample.parts, counts, of_parts, strict=True)
        if count
    ]


def _first(part: np.ndarray, count: int) -> np.ndarray:
    return part[:count]


def in_order(heads: Sequence[np.ndarray], ranks: Sequence[np.ndarray], n_rows: int) -> np.ndarray:
    """The first `n_rows` rows, (n_rows, d) float32, in the order of their ranks."""
    n_rows = min(n_rows, sum(map(len, ranks)))
    rows = np.empty((n_rows, heads[0].shape[1]), dtype=np.float32)
    for head, of_head in zip(heads, ranks, strict=True):
        chosen = of_head < n_rows
        rows[of_head[chosen]] = head[chosen]
    return rows


def choose_seeds(session: Session, sample: Sample, dim: int, wanted: int, n_clusters: int, seed: int) -> np.ndarray:
    """Choose `n_clusters` of the first `wanted` rows of the sample by k-means++: (k, d) float32.

    The choice depends on the rows and the seed alone. Memory of a task: two to three times `SEEDING_BYTES`; of the
    client: the seeds.

    References: D. Arthur and S. Vassilvitskii, k-means++: the advantages of careful seeding, 2007. In two levels as
    ``two_level_clustering`` of ``faiss.contrib.clustering`` does it, whose cells get centroids by their rows; here they
    get them by their square distances, as k-means++ draws, so that crowds of equal rows get few.
    """
    wanted = min(wanted, sum(sample.sizes))
    heads = first_rows(session, sample, wanted)
    if in_two_levels(wanted, dim, n_clusters):
        return _by_cells(session, heads, dim, wanted, n_clusters, seed)
    choose = partial(_seed, n_clusters, wanted, seed, session.backend)
    return session.client.submit(choose, *_apart(heads), pure=False).result()


def _apart(heads: Sequence[Head]) -> tuple[list[Any], list[np.ndarray]]:
    return [head.rows for head in heads], [head.ranks for head in heads]


def _seed(
    n_clusters: int,
    n_rows: int,
    seed: int,
    backend: Backend,
    heads: Sequence[np.ndarray],
    ranks: Sequence[np.ndarray],
) -> np.ndarray:
    rows = in_order(heads, ranks, n_rows)
    return rows[seeds(backend_module(backend).asarray(rows), n_clusters, np.random.default_rng(seed))]


def _by_cells(session: Session, heads: Sequence[Head], dim: int, n_rows: int, n_clusters: int, seed: int) -> np.ndarray:
    """Seeds in the order of their cells. Tasks: those of each part, and parts times groups of cells.

    A group has about a quarter of `SEEDING_BYTES`; its work is that of one level over the number of cells and groups.
    """
    client, backend, n_cells = session.client, session.backend, math.isqrt(n_clusters - 1) + 1
    n_coarse = min(n_rows, max(SMALLEST_SEEDING_SAMPLE, CELL_ROWS_PER_SEED * n_cells))
    few = [Head(client.submit(_first, head.rows, int(n), pure=False), head.ranks[:n]) for head in heads
           if (n := np.searchsorted(head.ranks, n_coarse))]  # fmt: skip
    coarse = client.submit(partial(_coarse, n_cells, n_coarse, seed, backend), *_apart(few), pure=False)
    labels = [client.submit(_label, head.rows, coarse, backend, pure=False) for head in heads]
    weighed = [
        client.submit(_weigh, head.rows, coarse, cell, pure=False) for head, cell in zip(heads, labels, strict=True)
    ]
    rows, costs = np.sum(client.gather(weighed), axis=0)
    n_seeds = shares(costs.tolist(), rows.tolist(), n_clusters)
    limits = n_rows * CELL_ROWS_PER_SEED * n_seeds // np.maximum(rows, 1)
    kept = np.minimum(rows, CELL_ROWS_PER_SEED * n_seeds)
    groups = sizes.pack(enumerate(kept.tolist()), max(1, SEEDING_BYTES // (16 * dim)))
    chosen = []
    for cells in groups:
        take = partial(_rows_of_cells, limits, cells[0], cells[-1] + 1)
        parts = [
            client.submit(take, head.rows, head.ranks, cell, pure=False)
            for head, cell in zip(heads, labels, strict=True)
        ]
        of_cells = n_seeds[cells[0] : cells[-1] + 1]
        chosen.append(client.submit(partial(_seed_cells, of_cells, cells[0], seed, backend), parts, pure=False))
    return np.concatenate(client.gather(chosen))


def _coarse(
    n_cells: int,
    n_rows: int,
    seed: int,
    backend: Backend,
    heads: Sequence[np.ndarray],
    ranks: Sequence[np.ndarray],
) -> np.ndarray:
    """Coarse centroids, (c, d) float32: k-means++ and a few iterations on the first rows."""
    xp = backend_module(backend)
    rows = in_order(heads, ranks, n_rows)
    centroids = rows[seeds(xp.asarray(rows), n_cells, np.random.default_rng(seed))]
    for _ in range(COARSE_ITERATIONS):
        found = lloyd_sums(xp.asarray(rows), xp.asarray(centroids))
        centroids, _ = next_centroids(centroids, Sums(to_host(found.rows), to_host(found.counts)))
    return centroids


def _label(rows: np.ndarray, coarse: np.ndarray, backend: Backend) -> np.ndarray:
    xp = backend_module(backend)
    return to_host(assign(xp.asarray(rows), xp.asarray(coarse)))


def _weigh(rows: np.ndarray, coarse: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Rows of each cell, and their square distances in units of 2**-30, which add up exactly: (2, c) int64."""
    l2, _ = distances_to_centroids(rows, coarse, labels)
    squares = np.rint(np.square(l2, dtype=np.float64) * 2**30).astype(np.int64)
    costs = np.zeros(len(coarse), dtype=np.int64)
    np.add.at(costs, labels, squares)
    return np.stack([np.bincount(labels, minlength=len(coarse)), costs])


def shares(costs: Sequence[int], most: Sequence[int], n_seeds: int) -> np.ndarray:
    """Deal seeds to cells by their costs: (c,) int64; at least 1 to each that has rows, at most as many as it has rows.

    One after the other goes to the cell whose cost over its seeds, with that one, is the largest (D'Hondt's method).

    >>> shares([90, 10, 0, 0], [50, 50, 3, 0], 12)
    array([9, 2, 1, 0])
    """
    dealt = [min(1, rows) for rows in most]
    waiting = [(-cost / 2, cell) for cell, cost in enumerate(costs) if dealt[cell] < most[cell]]
    heapq.heapify(waiting)
    for _ in range(min(n_seeds, sum(most)) - sum(dealt)):
        _, cell = heapq.heappop(waiting)
        dealt[cell] += 1
        if dealt[cell] < most[cell]:
            heapq.heappush(waiting, (-costs[cell] / (dealt[cell] + 1), cell))
    return np.array(dealt, dtype=np.int64)


def _rows_of_cells(
    limits: np.ndarray, first: int, last: int, rows: np.ndarray, ranks: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, ranks and rows of the cells [first, last) in a part: those whose rank is below the limit of the cell."""
    chosen = np.flatnonzero((labels >= first) & (labels < last) & (ranks < limits[labels]))
    return labels[chosen], ranks[chosen], rows[chosen]


def _seed_cells(
    n_seeds: np.ndarray,
    first: int,
    seed: int,
    backend: Backend,
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Seeds of neighbouring cells, `n_seeds` of each, the first of which has this number; by k-means++ in each."""
    labels, ranks, rows = (np.concatenate(found) for found in zip(*parts, strict=True))
    order = np.lexsort((ranks, labels))
    edges = np.searchsorted(labels[order], first + np.arange(len(n_seeds) + 1))
    chosen = [np.empty((0, rows.shape[1]), dtype=np.float32)]
    for cell, (low, high) in enumerate(pairwise(edges.tolist())):
        wanted = min(int(n_seeds[cell]), high - low)  # fewer only where chance has left no more rows below the limit
        if wanted:
            own = rows[order[low:high]]
            generator = np.random.default_rng([seed, first + cell + 1])
            chosen.append(own[seeds(backend_module(backend).asarray(own), wanted, generator)])
    return np.concatenate(chosen)
