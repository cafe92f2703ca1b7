"""The comparison of many small clusters. Arrays in, arrays out; no Dask and no storage.

A call of NumPy takes as long as comparing ten rows of a cluster of a hundred. So as few as possible are made for each
cluster, on products that are still in the cache, and everything that is no product is done for all of them at once.
"""

from __future__ import annotations

from types import ModuleType
from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module, scratch, take_rows, to_host
from semdedup.dedup.kernels.best_match import BestMatch, best_match, compare_in_blocks, slack
from semdedup.dedup.kernels.distinct import occurrences, with_copies
from semdedup.dedup.kernels.exact import best_per_row, dots, exact_scores
from semdedup.dedup.kernels.gpu.compare import compare
from semdedup.dedup.kernels.gpu.compiled import has_tensor_cores
from semdedup.dedup.kernels.gpu.tiles import Rectangle
from semdedup.dedup.kernels.matches import Matches
from semdedup.dedup.kernels.products import SinglePrecision, has_matrix_units

SMALL, SMALL_BESIDE_MATRIX_UNITS = 1024, 640
"""Most rows of a small cluster: its products with itself are held, of which half are asked. They are in float32; where
bfloat16 takes a fifth of the time, larger clusters are quicker by themselves."""

CROWDED = 8
"""Pairs a row, on average, from which on a small cluster is compared like a large one."""


def compare_many(
    rows: Array,
    starts: np.ndarray,
    batch_size: int,
    matches: Matches | None = None,
    copies: tuple[Array, Array] | None = None,
) -> tuple[Array, Array]:
    """`best_match.max_similarity` of each of several clusters: the same bits, in less time where they are small.

    Args:
        rows: (n, d) float32 of length 1: the clusters one after the other, each best-ranked first.
        starts: (c + 1,) int64 in host memory: where each cluster starts, increasing from 0, and n.
        batch_size: the most rows that are compared at a time; memory, not the answer, depends on it.
        matches: gathers the matches in each cluster, where given, by their position among the rows that are not
            bit-identical to a better-ranked one of their cluster.
        copies: `distinct.occurrences` of the rows of each cluster, where they are known already.

    Returns:
        score (n,) float32 and index (n,) int64, of all rows; the best-ranked one of a cluster has score 0 and itself.

    Cost: half of the square of each cluster; memory as `max_similarity`.
    """
    first, same_as = copies_in_each(rows, starts) if copies is None else copies
    distinct, edges = rows, np.asarray(starts)
    if len(first) < len(rows):
        distinct, edges = rows[first], np.searchsorted(to_host(first), starts)
    return with_copies(_best_of_each(distinct, edges, batch_size, matches), first, same_as)


def most_small(xp: ModuleType) -> int:
    """Most rows of a small cluster in the arrays of this module."""
    return min(SMALL, SMALL_BESIDE_MATRIX_UNITS) if xp is np and has_matrix_units() else SMALL


def copies_in_each(rows: Array, starts: np.ndarray) -> tuple[Array, Array]:
    """`distinct.occurrences` of the rows of clusters that stand one after the other, as for `compare_many`."""
    clusters = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    return occurrences(rows, array_module(rows).asarray(clusters))


def _best_of_each(rows: Array, edges: np.ndarray, batch_size: int, matches: Matches | None) -> BestMatch:
    """The best match of each row in its cluster, in which no two rows are equal."""
    xp = array_module(rows)
    sizes = np.diff(edges)
    best_ranked = np.repeat(edges[:-1], sizes)  # of ties at 0
    position = np.where(np.arange(len(rows)) > best_ranked, best_ranked, -1)
    result = BestMatch(xp.zeros(len(rows), dtype=np.float32), xp.asarray(position))
    alone = sizes > 1
    if has_tensor_cores(rows):
        _compare_on_tensor_cores(rows, edges, np.flatnonzero(alone), batch_size, result, matches)
        return result
    if xp is np:
        small = alone & (sizes <= min(most_small(xp), batch_size))
        alone &= ~small
        alone[_compare_small(rows, edges, np.flatnonzero(small), result, matches)] = True
    for number in np.flatnonzero(alone).tolist():
        _compare_alone(rows, slice(int(edges[number]), int(edges[number + 1])), batch_size, result, matches)
    return result


def _compare_on_tensor_cores(
    rows: Array, edges: np.ndarray, clusters: np.ndarray, batch_size: int, result: BestMatch, matches: Matches | None
) -> None:
    """Compare the rows of each of some clusters on a GPU, all of them at once, into the result."""
    xp = array_module(rows)
    spans = zip(edges[clusters].tolist(), edges[clusters + 1].tolist(), strict=True)
    squares = [Rectangle(span, span, within=True) for span in spans]
    every = xp.arange(len(rows), dtype=np.int32)
    for rest in compare(rows, rows, every, squares, result.score, result.position, matches):
        begin, end = rest.candidates
        cluster, found = rows[begin:end], BestMatch(result.score[begin:end], result.position[begin:end] - begin)
        span = rest.queries[0] - begin, rest.queries[1] - begin
        compare_in_blocks(cluster, cluster, every[: end - begin], span, batch_size, found, None)
        own = slice(*rest.queries)
        result.position[own] = found.position[slice(*span)] + begin


def _compare_alone(rows: Array, span: slice, batch_size: int, result: BestMatch, matches: Matches | None) -> None:
    """Compare the rows of one cluster by `best_match`, into the result."""
    xp, begin = array_module(rows), span.start
    own = None if matches is None or matches.full else Matches(matches.least, matches.most)
    cluster, ranks = rows[span], xp.arange(span.stop - begin)
    score, position = best_match(cluster, ranks, cluster, ranks, batch_size, own)
    result.score[span] = score
    result.position[span] = xp.where(position < 0, position, position + begin)
    if own is None or matches is None:
        return
    found = own.pairs()
    if found is None:
        matches.give_up()
    else:
        matches.add(found.right + begin, found.left + begin, found.score)


class _Held(NamedTuple):
    """Space for the cluster at hand, of as many rows as the largest of them: m.

    Attributes:
        product: (m·m,) float32.
        near: (m·m,) bool, which of the products are near the largest of their row.
        rows: (m, d) float32.
    """

    product: np.ndarray
    near: np.ndarray
    rows: np.ndarray

    @classmethod
    def of(cls, size: int, dim: int) -> _Held:
        return cls(
            scratch(np, "products", (size * size,), np.float32),
            scratch(np, "near", (size * size,), bool),
            scratch(np, "near rows", (size, dim), np.float32),
        )


def _compare_small(
    rows: np.ndarray, edges: np.ndarray, clusters: np.ndarray, result: BestMatch, matches: Matches | None
) -> list[int]:
    """Compare the rows of each of some clusters by one product, into the result.

    Returns:
        The clusters that are left out: too many of their rows are near each other.
    """
    whole, limit, sizes = SinglePrecision(rows), np.float32(1), np.diff(edges)[clusters]
    if matches is not None and not matches.full:
        limit = min(limit, matches.least)
    error = slack(whole, whole, rows.shape[1])
    limits = limit + error, np.float32(2.02) * error
    held = _Held.of(int(sizes.max(initial=0)), rows.shape[1])
    one, sums = np.full(len(rows), -1), np.zeros(len(rows))
    queries, candidates, left_out = [], [], []
    for number, begin, size in zip(clusters.tolist(), edges[clusters].tolist(), sizes.tolist(), strict=True):
        cluster, nearest = rows[begin : begin + size], one[begin : begin + size]
        others = _nearest(whole, begin, nearest, limits, held)
        if others is not None:
            if len(others[0]) > CROWDED * size:
                nearest[:] = -1
                left_out.append(number)
                continue
            queries.append(others[0] + begin)
            candidates.append(others[1] + begin)
        sums[begin : begin + size] = dots(cluster, take_rows(cluster, nearest, held.rows[:size]))
        nearest += begin
        nearest[0] = -1
    some = np.flatnonzero(one >= 0)
    pairs = [(some, one[some], exact_scores(rows, rows, some, one[some], sums[some]))]
    if queries:
        query, candidate = np.concatenate(queries), np.concatenate(candidates)
        pairs.append((query, candidate, exact_scores(rows, rows, query, candidate)))
    query, candidate, scores = (np.concatenate(part) for part in zip(*pairs, strict=True))
    if matches is not None:
        matches.add(query, candidate, scores)
    score, column = best_per_row(query, candidate, scores, len(rows))
    above_zero = score > 0
    result.score[above_zero], result.position[above_zero] = score[above_zero], column[above_zero]
    return left_out


def _nearest(
    factor: SinglePrecision, begin: int, nearest: np.ndarray, limits: tuple[np.float32, np.float32], held: _Held
) -> tuple[np.ndarray, np.ndarray] | None:
    """Of each row of a cluster the better-ranked one with the largest product, and others that may be as near.

    Args:
        factor: all rows.
        begin: position of the first row of the cluster.
        nearest: (m,) int64, is written; the best-ranked row gets itself.
        limits: from where on products count as equally large; and how much less than that, or than the largest of
            its row, the product of another may be.
        held: space to work in.

    Returns:
        Rows and candidates of the others, (p,) int64 each, if any. Positions are those in the cluster.
    """
    size = len(nearest)
    flat = held.product[: size * size]
    product, near = flat.reshape(size, size), held.near[: size * size].reshape(size, size)
    product.fill(-np.inf)
    factor.triangle(begin, begin + size, product)
    flat[:: size + 1] = -np.inf
    product.argmax(axis=1, out=nearest)  # faster than max
    least = np.minimum(flat[nearest + np.arange(0, size * size, size)], limits[0])
    least -= limits[1]
    np.greater(product, least[:, None], out=near)
    if np.count_nonzero(near) < size:  # all but the best-ranked row have one
        return None
    row, column = np.divmod(np.flatnonzero(near), size)
    other = column != nearest[row]
    return row[other], column[other]
