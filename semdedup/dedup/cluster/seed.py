"""The centroids to start from: rows of the sample, chosen by k-means++ in one task, or cell by cell where that is much.

The rows to choose from are the first of the sample in the order of its hashes, which are random ones. In *two levels*
they are first told apart by a few coarse centroids, then k-means++ chooses in each of these cells by itself, twice as
many as the cell's share of the square distances to the coarse centroids. Of all that are proposed, those that others
make superfluous are taken away one after the other, until k are left.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from semdedup.arrays import Backend, backend_module, block_elements, to_host
from semdedup.compute.session import Session
from semdedup.dedup import sizes
from semdedup.dedup.cluster.draw import Sample
from semdedup.dedup.kernels.exact import on_grid
from semdedup.dedup.kernels.kmeans import (
    TRIALS,
    Sums,
    assign,
    distances_to_centroids,
    lloyd_sums,
    next_centroids,
    seeds,
)
from semdedup.dedup.kernels.thinning import keep_centers

SEEDING_ROWS_PER_CENTROID, SMALLEST_SEEDING_SAMPLE = 4, 4096
"""Rows that k-means++ draws from: for each centroid, times the oversampling factor, and in all at least."""

SEEDING_BYTES, SEEDING_WORK = 256 << 20, sizes.WORK_PER_TASK
"""Most bytes of rows, and most operations, of a task that chooses all seeds; see `seeding_work`. They are the same for
every cluster of workers, for the seeds follow from them."""

PASSES = 512
"""What k-means++ does with a product of two rows, in operations of a product: four passes over it, as measured."""

COARSE_ITERATIONS = 5
"""Of Lloyd's on the coarse centroids."""

CANDIDATES_PER_SEED, MORE_CANDIDATES = 2, 16
"""How many seeds a cell proposes for each of those that are its share, and how many more."""

CELL_ROWS_PER_SEED = 32
"""Rows of a cell for each that it proposes, at most: crowds of rows that hardly differ propose few."""

NEAREST = 8
"""Proposed seeds that are known of each row, as those are taken away that others make superfluous."""

GRID_BITS = 20
"""Of rows by whose distances that is decided: products of so coarse values are exact in float64, in any order."""

NUMBER_BITS = 24
"""Of a square distance and the number of a seed in one whole number, by which they are sorted: those of the number."""


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


def seeding_memory(n_rows: int, dim: int, n_clusters: int) -> int:
    """Most bytes that a task of the seeding holds.

    In one level the rows as they come from the parts, in their order, and as whole numbers and their doubles, 2 bytes.
    In two levels the proposed seeds of all cells, apart and together; or these and, for each of the rows, `NEAREST`
    pairs of numbers of Python.
    """
    if not in_two_levels(n_rows, dim, n_clusters):
        return 10 * n_rows * dim
    n_proposed = CANDIDATES_PER_SEED * n_clusters + (MORE_CANDIDATES + CANDIDATES_PER_SEED) * math.isqrt(n_clusters)
    return max(SEEDING_BYTES, 8 * n_proposed * dim, 4 * n_proposed * dim + 128 * (NEAREST + 1) * n_rows)


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

    The choice depends on the rows and the seed alone. Memory of a task: `seeding_memory`; of the client: the seeds.

    References: D. Arthur and S. Vassilvitskii, k-means++: the advantages of careful seeding, 2007. In two levels as
    ``two_level_clustering`` of ``faiss.contrib.clustering`` does it, whose cells get centroids by their rows. As groups
    of rows lie across the borders of cells, more are proposed than wanted, as in B. Bahmani et al., Scalable k-means++,
    2012; those to keep are chosen by `keep_centers`.
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

    A group has about a quarter of `SEEDING_BYTES`; its work is that of one level, twice, over the number of cells and
    groups. Every worker gets all proposed seeds, about twice as many as are wanted.
    """
    client, backend, n_cells = session.client, session.backend, math.isqrt(n_clusters - 1) + 1
    n_coarse = min(n_rows, max(SMALLEST_SEEDING_SAMPLE, CELL_ROWS_PER_SEED * n_cells))
    coarse = client.submit(partial(_coarse, n_cells, n_coarse, seed, backend), *_apart(heads), pure=False)
    labels = [client.submit(_label, head.rows, coarse, backend, pure=False) for head in heads]
    parts = list(zip(heads, labels, strict=True))
    weighed = [client.submit(_weigh, head.rows, coarse, label, pure=False) for head, label in parts]
    rows, costs = np.sum(client.gather(weighed), axis=0)
    n_proposed = proposed_seeds(costs, rows, n_clusters)
    limits = n_rows * CELL_ROWS_PER_SEED * n_proposed // np.maximum(rows, 1)
    kept = np.minimum(rows, CELL_ROWS_PER_SEED * n_proposed)
    proposals = []
    for cells in sizes.pack(enumerate(kept.tolist()), max(1, SEEDING_BYTES // (16 * dim))):
        first, last = cells[0], cells[-1] + 1
        take = partial(_rows_of_cells, limits, first, last)
        taken = [client.submit(take, head.rows, head.ranks, label, pure=False) for head, label in parts]
        proposals.append(
            client.submit(partial(_propose, n_proposed[first:last], first, seed, backend), taken, pure=False)
        )
    proposed = client.submit(np.concatenate, proposals, pure=False)
    nearest = [client.submit(_nearest, head.rows, proposed, backend, pure=False) for head in heads]
    ranks = [head.ranks for head in heads]
    return client.submit(partial(_thin, n_clusters), proposed, nearest, ranks, pure=False).result()


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


def proposed_seeds(costs: np.ndarray, rows: np.ndarray, n_seeds: int) -> np.ndarray:
    """How many seeds each cell proposes, by its part of the costs: (c,) int64, at most as many as it has rows.

    >>> proposed_seeds(np.array([90, 10, 0, 0]), np.array([50, 50, 3, 0]), 12)
    array([38, 20,  3,  0])
    """
    share = np.ceil(n_seeds * (costs / max(1, costs.sum()))).astype(np.int64)
    return np.minimum(rows, CANDIDATES_PER_SEED * share + MORE_CANDIDATES)


def _rows_of_cells(
    limits: np.ndarray, first: int, last: int, rows: np.ndarray, ranks: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, ranks and rows of the cells [first, last) in a part: those whose rank is below the limit of the cell."""
    chosen = np.flatnonzero((labels >= first) & (labels < last) & (ranks < limits[labels]))
    return labels[chosen], ranks[chosen], rows[chosen]


def _propose(
    n_proposed: np.ndarray,
    first: int,
    seed: int,
    backend: Backend,
    parts: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]],
) -> np.ndarray:
    """Seeds of neighbouring cells, `n_proposed` of each, the first of which has this number; by k-means++ in each."""
    xp = backend_module(backend)
    labels, ranks, rows = (np.concatenate(found) for found in zip(*parts, strict=True))
    order = np.lexsort((ranks, labels))
    edges = np.searchsorted(labels[order], first + np.arange(len(n_proposed) + 1))
    found = [rows[:0]]
    for cell, (low, high) in enumerate(pairwise(edges.tolist())):
        own = rows[order[low:high]]
        wanted = min(int(n_proposed[cell]), len(own))  # chance may have left fewer below the limit
        if wanted:
            found.append(own[seeds(xp.asarray(own), wanted, np.random.default_rng([seed, first + cell + 1]))])
    return np.concatenate(found)


def _nearest(rows: np.ndarray, proposed: np.ndarray, backend: Backend) -> np.ndarray:
    """Square distances of each row to the nearest proposed seeds, in units of 2**-28, with the numbers of these.

    Returns:
        (m, t) int64, increasing by row, t at most `NEAREST`: the distance times 2**`NUMBER_BITS`, plus the number.
    """
    xp = backend_module(backend)
    n_nearest, side = min(NEAREST, len(proposed)), math.isqrt(block_elements(xp.empty(0)))
    found = np.empty((len(rows), n_nearest), dtype=np.int64)
    for start in range(0, len(rows), side):
        block = on_grid(xp.asarray(rows[start : start + side]), GRID_BITS).astype(np.float64)
        best, squares = xp.empty((len(block), 0), dtype=np.int64), xp.square(block).sum(axis=1)[:, None]
        for first in range(0, len(proposed), side):
            others = on_grid(xp.asarray(proposed[first : first + side]), GRID_BITS).astype(np.float64)
            distances = (squares + xp.square(others).sum(axis=1) - 2 * (block @ others.T)).clip(0)
            numbers = xp.arange(first, first + len(others))
            keys = (xp.rint(distances * 2**28).astype(np.int64) << NUMBER_BITS) + numbers
            best = xp.concatenate([best, keys], axis=1)
            if best.shape[1] > n_nearest:
                best = xp.partition(best, n_nearest - 1, axis=1)[:, :n_nearest]
        found[start : start + side] = to_host(xp.sort(best, axis=1))
    return found


def _thin(
    n_clusters: int, proposed: np.ndarray, nearest: Sequence[np.ndarray], ranks: Sequence[np.ndarray]
) -> np.ndarray:
    """Those of the proposed seeds that stay; rows in the order of their ranks, so that the parts make no difference."""
    numbers = np.concatenate(nearest)[np.argsort(np.concatenate(ranks))]
    number, distance = numbers & ((1 << NUMBER_BITS) - 1), numbers >> NUMBER_BITS
    return proposed[keep_centers(number, distance, len(proposed), min(len(proposed), n_clusters))]
