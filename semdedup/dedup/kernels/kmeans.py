"""K-means on unit rows: seeding, Lloyd's iteration and assignment, each a function of arrays, NumPy or CuPy.

Every decision is exact, so that the same sample and seed give the same centroids and labels for any number of workers,
block shape and thread count. Parts of a sample may be worked on anywhere; `Sums` of parts are added in any order.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module, block_elements, scratch, sparse_module, take_rows
from semdedup.dedup.kernels.chosen import start_choosing
from semdedup.dedup.kernels.distinct import first_occurrences
from semdedup.dedup.kernels.exact import (
    best_per_row,
    exact_dot,
    exact_square_distance,
    near_best,
    on_grid,
    quick_dot,
    quick_error,
    square_lengths,
)
from semdedup.dedup.kernels.products import WholeNumbers, precisions_for_labels, products_error

MAX_SAMPLE_ROWS = 1 << 22
"""Most rows of a fit's sample: up to here float64 sums of grid values are exact (see `on_grid`)."""

SAMPLE_ROWS_PER_CENTROID = 128
SMALLEST_SAMPLE = 50_000
SUM_GRID_BITS = 30

TRIALS = 2
"""Rows that are tried for each seed, in multiples of 2 + log k."""

CHOICES_A_DRAW = 8
SEED_PRODUCTS = 1 << 20
"""Products of rows drawn for several choices at a time. The choice depends on it, so it is no `block_elements`."""

FEW_CENTROIDS = 64
"""Of fewer centroids than this a product in float32 costs less than rounding the rows."""

MEMBERS = 16
"""Rows a label, on average, from which on they are summed label by label."""

CROWDED = 1 / 64
"""Share of the products of rows and centroids that may be candidates before a finer precision thins them out."""


class Sums(NamedTuple):
    """What one part of the sample adds to the next centroids: row sums (k, d) float64 and counts (k,) int64."""

    rows: Array
    counts: Array


def auto_n_clusters(n_rows: int) -> int:
    """Number of clusters where assigning a row and comparing it cost the same: √(n/2), and 1 below 5,000 rows."""
    return 1 if n_rows < 5_000 else round((n_rows / 2) ** 0.5)


def sample_size(n_rows: int, n_clusters: int, fit_data_fraction: float | None) -> int:
    """Rows to fit on: the fraction asked for, else 128 a centroid and at least 50,000; never more than 2**22."""
    if fit_data_fraction is not None:
        wanted = int(np.ceil(n_rows * fit_data_fraction))
    else:
        wanted = max(SMALLEST_SAMPLE, SAMPLE_ROWS_PER_CENTROID * n_clusters)
    return min(n_rows, wanted, MAX_SAMPLE_ROWS)


def seeds(sample: Array, n_clusters: int, rng: np.random.Generator) -> np.ndarray:
    """Choose rows to start from by greedy k-means++.

    Distances are taken between rows rounded to whole numbers (`_whole_numbers`), whose products are exact: the choice
    is the same on every machine. Rows are drawn many at a time, so that one product serves several seeds; of those
    drawn before the latest seed, a row is kept with the share of its square distance that the seed has left, which is
    as good as drawing anew. Where no row differs from the seeds any more, the first rows not yet chosen fill up.

    Args:
        sample: (m, d) float32 of length 1, m ≥ n_clusters.
        n_clusters: k.
        rng: source of the draws.

    Returns:
        (k,) int64 positions in the sample. Cost: O(m·d·k·log k) operations; memory 2·m·d bytes and `SEED_PRODUCTS`
        products, or those of the rows of one choice.

    Reference: D. Arthur and S. Vassilvitskii, k-means++: the advantages of careful seeding, 2007 (the greedy variant:
    of several draws the one that lowers the potential most; here of twice the 2 + log k that they name).
    V. Cohen-Addad et al., Fast and accurate k-means++ via rejection sampling, 2020.
    """
    xp = array_module(sample)
    m = len(sample)
    rows = WholeNumbers(_whole_numbers(sample))
    squares = rows.squares()
    trials = TRIALS * (2 + int(np.log(n_clusters)))
    n_drawn = trials * max(1, min(CHOICES_A_DRAW, SEED_PRODUCTS // (trials * m)))
    first = int(rng.random() * m)
    nearest = squares + squares[first] - rows.doubled_products(xp.asarray([first]))[0]
    chosen = start_choosing(first, n_clusters, squares, nearest)
    while chosen.number < n_clusters and chosen.total:
        draws = xp.asarray(rng.integers(chosen.total, size=n_drawn))
        cumulated = xp.cumsum(chosen.nearest, dtype=np.int64)
        drawn = xp.searchsorted(cumulated, draws, side="right")
        share = draws - (cumulated[drawn] - chosen.nearest[drawn])  # evenly distributed below its square distance
        chosen.among(drawn, share, rows.doubled_products(drawn), trials)
    positions = chosen.positions()
    if len(positions) < n_clusters:
        unused = np.setdiff1d(np.arange(m), positions)
        positions = np.concatenate([positions, unused[: n_clusters - len(positions)]])
    return positions


def _whole_numbers(rows: Array) -> Array:
    """Rows about their mean, stretched and rounded to whole numbers: (m, d) float32 to (m, d) int8.

    What is common to all rows says nothing of their distances, and is taken off so that few bits tell them apart. No
    element exceeds 63, nor a square length 2**23, so that twice a row is int8 too and its products are exact in int32
    and in float32.
    """
    xp = array_module(rows)
    m, dim = rows.shape
    step = max(1, block_elements(rows) // dim)
    starts = range(0, m, step)
    totals = [on_grid(rows[start : start + step], SUM_GRID_BITS).sum(axis=0, dtype=np.float64) for start in starts]
    mean = (sum(totals) / m).astype(np.float32)
    largest = float(xp.maximum(rows.max(axis=0) - mean, mean - rows.min(axis=0)).max())
    factor = np.float32(min(63, int(2**11.5 / dim**0.5)) / largest if largest else 0)
    whole = xp.empty((m, dim), dtype=np.int8)
    for start in starts:
        whole[start : start + step] = xp.rint((rows[start : start + step] - mean) * factor)
    return whole


def assign(rows: Array, centroids: Array, max_samples_per_batch: int | None = None) -> Array:
    """Label each row with its nearest centroid in Euclidean distance; of equally near ones the first.

    Products propose, in the coarsest precision that tells most rows' centroids apart (`kernels.products`); rows
    whose best two centroids lie within their error are decided in float64. The products are with centroids about their
    mean, which adds the same to all of a row, and is the less in error the closer the centroids lie together.

    Args:
        rows: (n, d) float32 of length 1.
        centroids: (k, d) float32.
        max_samples_per_batch: most rows in one product; memory, not the answer, depends on it.

    Returns:
        (n,) int32. Cost: 2·n·k·d operations; memory of three products of `arrays.block_elements`, or of 64 rows.
    """
    xp = array_module(rows)
    n, dim = rows.shape
    distinct = first_occurrences(centroids)  # the others would be candidates wherever the first of them is
    if len(distinct) < len(centroids):
        return distinct[assign(rows, centroids[distinct], max_samples_per_batch)].astype(np.int32)
    k = len(centroids)
    labels = xp.zeros(n, dtype=np.int32)
    if k == 1:
        return labels
    half_squares = exact_dot(centroids, centroids) / 2
    # the nearest centroid c has the largest x·c − |c|²/2, and so the largest x·(c − mean) − (|c|² − mean square)/2
    about = centroids - (centroids.sum(axis=0, dtype=np.float64) / k).astype(np.float32)
    offsets = (half_squares - half_squares.mean()).astype(np.float32)
    longest, extent = float(xp.sqrt(exact_dot(about, about).max())), float(xp.sqrt(2 * half_squares.max()))
    # of c − mean, of the offset, of their difference and of the limit for candidates; then of the float64 that decides
    rounding = 2.0**-22 * (longest + float(xp.abs(offsets).max())) + 2 * quick_error(dim) * (extent + extent**2)
    precisions = iter(precisions_for_labels(rows, centroids)[-1 if k < FEW_CENTROIDS else 0 :])
    precision = next(precisions)
    right_side = precision(about, longest)
    packed = right_side.pack(0, k)
    batch = max(1, min(max_samples_per_batch or n or 1, max(64, block_elements(rows) // max(k, dim))))
    products = scratch(xp, "products", (min(batch, n), k), np.float32)
    start = 0
    while start < n:
        block = rows[start : start + batch]
        nearness = products[: len(block)]
        left_side = precision(block, passing=True)
        left_side.multiply(0, len(block), packed, nearness)
        nearness -= offsets
        error = products_error(left_side, right_side, dim) + rounding
        label, pair_rows, pair_columns = _nearest(nearness, error)
        if len(pair_rows) > nearness.size * CROWDED and (finer := next(precisions, None)) is not None:
            precision = finer  # here, and for all that follow
            right_side = precision(about, longest)
            packed = right_side.pack(0, k)
            continue
        if len(pair_rows):
            found, column = _decide(block, centroids, half_squares, pair_rows, pair_columns)
            label[found] = column
        labels[start : start + batch] = label
        start += batch
    return labels


def _nearest(nearness: Array, error: float) -> tuple[Array, Array, Array]:
    """The column of the largest value of each row, and the candidates of the rows where it is not sure.

    Args:
        nearness: (b, k) float32, k ≥ 2; overwritten.
        error: the most by which a value differs from the true one.

    Returns:
        Label (b,) int64; rows and columns of the candidates, (p,) int64 each, at least two of a row, ordered.
    """
    xp = array_module(nearness)
    every = xp.arange(len(nearness))
    label = nearness.argmax(axis=1)
    best = nearness[every, label]
    nearness[every, label] = -np.inf
    second = nearness[every, nearness.argmax(axis=1)]  # in NumPy argmax is faster than max
    unsure = xp.flatnonzero(second >= best - np.float32(2.02 * error))
    nearness[every, label] = best
    rows, columns = near_best(nearness[unsure], best[unsure], error)
    return label, unsure[rows], columns


def _decide(block: Array, centroids: Array, half_squares: Array, rows: Array, columns: Array) -> tuple[Array, Array]:
    """Of the candidates of each row the nearest centroid, in float64; of equally near ones the first.

    Sums in any order tell most of them apart at a third of the cost of `exact_dot`, which decides the rest.

    Returns:
        Rows (u,) int64, each once, and the columns (u,) int64.
    """
    xp = array_module(block)
    first = xp.ones(len(rows), dtype=bool)
    first[1:] = rows[1:] != rows[:-1]
    found, group = rows[first], xp.cumsum(first) - 1
    values = quick_dot(block, centroids, rows, columns) - half_squares[columns]
    best, _ = best_per_row(group, columns, values, len(found))
    longest = float(xp.sqrt(2 * half_squares.max()))
    close = values >= best[group] - 8 * quick_error(block.shape[1]) * (longest + longest**2)
    rows, columns, group = rows[close], columns[close], group[close]
    if len(rows) == len(found):
        return found, columns
    values = exact_dot(block, centroids, rows, columns) - half_squares[columns]
    return found, best_per_row(group, columns, values, len(found))[1]


def distances_to_centroids(rows: Array, centroids: Array, labels: Array) -> tuple[Array, Array]:
    """Distance of each row to the centroid of its label: Euclidean, and cosine to the normalised centroid.

    Returns:
        l2 (n,) and cosine (n,), float32, those of float64 sums in a fixed order. Sums in any order give an interval for
        each; only where its ends do not round to one float32 is the fixed order asked. Cost: O(n·d).
    """
    xp = array_module(rows)
    dim = rows.shape[1]
    square = exact_dot(centroids, centroids)
    length = xp.sqrt(square)
    length[length == 0] = 1  # the mean of opposite rows: every direction is equally far

    def cosine(dot: Array, labels: Array) -> Array:
        return (1 - dot / length[labels]).clip(0, 2).astype(np.float32)

    def l2(square_distance: Array) -> Array:
        return xp.sqrt(square_distance.clip(0)).astype(np.float32)

    dot = quick_dot(rows, centroids, None, labels)
    square_distance = square_lengths(rows) + square[labels] - 2 * dot
    reach = max(1.0, float(length.max())) ** 2  # of the terms of both sums, which are four at most
    margin, margin_of_square = 2.02 * quick_error(dim) * reach, 10 * quick_error(dim + 4) * reach
    nearest, farthest = cosine(dot + margin, labels), cosine(dot - margin, labels)
    inner, outer = l2(square_distance - margin_of_square), l2(square_distance + margin_of_square)
    unsure = xp.flatnonzero((nearest != farthest) | (inner != outer))
    if len(unsure):
        nearest[unsure] = cosine(exact_dot(rows, centroids, unsure, labels[unsure]), labels[unsure])
        inner[unsure] = l2(exact_square_distance(rows[unsure], centroids, labels[unsure]))
    return inner, nearest


def lloyd_sums(part: Array, centroids: Array, onto: Sums | None = None) -> Sums:
    """Assign one part of the sample and sum its rows by label: exact, so that sums of parts add up in any order.

    Args:
        part: (n, d) float32, on the grid of `SUM_GRID_BITS`.
        centroids: (k, d) float32.
        onto: sums that these are added to, in place.

    Memory: the sums, 8·k·d bytes, and products of `semdedup.arrays.block_elements`.
    """
    xp = array_module(part)
    labels = assign(part, centroids)
    k = len(centroids)
    sums = onto or Sums(xp.zeros(centroids.shape, dtype=np.float64), xp.zeros(k, dtype=np.int64))
    by_label = xp.argsort(labels, kind="stable")  # so that those of a label are added up one after the other
    add = _add_label_by_label if xp is np and len(part) >= MEMBERS * k else _add_together
    add(part, by_label, labels[by_label], sums.rows)
    sums.counts[...] += xp.bincount(labels, minlength=k)
    return sums


def _add_label_by_label(part: np.ndarray, by_label: np.ndarray, in_order: np.ndarray, sums: np.ndarray) -> None:
    """Add the rows of a part to the sums of their labels: the rows at positions `by_label` have the labels `in_order`.

    Each label's rows are summed by BLAS while they are in the cache.
    """
    step = max(1, block_elements(part) // 8 // part.shape[1])
    shape = min(step, len(part)), part.shape[1]
    singles, doubles = scratch(np, "part", shape, np.float32), scratch(np, "products", shape, np.float64)
    ones = np.ones(len(singles))
    edges = np.searchsorted(in_order, np.arange(len(sums) + 1))
    for label in np.flatnonzero(np.diff(edges)).tolist():
        for start in range(edges[label], edges[label + 1], step):
            members = by_label[start : min(start + step, edges[label + 1])]
            n = len(members)
            doubles[:n] = take_rows(part, members, singles[:n])
            sums[label] += ones[:n] @ doubles[:n]


def _add_together(part: Array, by_label: Array, in_order: Array, sums: Array) -> None:
    """`_add_label_by_label` by sparse matrices of many labels each, NumPy or CuPy."""
    xp, sparse = array_module(part), sparse_module(part)
    step = max(1, block_elements(part) // 2 // part.shape[1])
    shape = min(step, len(part)), part.shape[1]
    singles, doubles = scratch(xp, "part", shape, np.float32), scratch(xp, "products", shape, np.float64)
    for start in range(0, len(part), step):
        found = in_order[start : start + step]
        n, first, last = len(found), int(found[0]), int(found[-1]) + 1
        doubles[:n] = take_rows(part, by_label[start : start + step], singles[:n])
        edges = xp.searchsorted(found, xp.arange(first, last + 1, dtype=found.dtype)).astype(np.int32)
        members = sparse.csr_matrix((xp.ones(n), xp.arange(n, dtype=np.int32), edges), shape=(last - first, n))
        sums[first:last] += members @ doubles[:n]


def next_centroids(centroids: np.ndarray, sums: Sums) -> tuple[np.ndarray, float]:
    """Means of the clusters, and the inertia about them; a cluster without rows keeps its centroid.

    The inertia follows from the sums alone: Σ|x − c|² = n − Σ|sum|²/count for rows of length 1.
    """
    filled = sums.counts > 0
    means = centroids.copy()
    means[filled] = (sums.rows[filled] / sums.counts[filled, None]).astype(np.float32)
    explained = (exact_dot(sums.rows[filled], sums.rows[filled]) / sums.counts[filled]).sum()
    return means, max(0.0, float(sums.counts.sum() - explained))


def converged(previous: float, inertia: float, tol: float) -> bool:
    """Whether the last iteration lowered the inertia by no more than `tol` of it (the rule of RAFT's k-means)."""
    return np.isfinite(previous) and previous - inertia <= tol * previous
