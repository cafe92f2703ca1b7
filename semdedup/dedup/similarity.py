"""The comparison: each row's largest cosine similarity to a better-ranked row of its cluster.

Arrays in, arrays out, NumPy or CuPy; no Dask and no storage.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module, block_elements, scratch
from semdedup.dedup.exact import best_per_row, exact_dot, near_best, product_error
from semdedup.errors import ParameterError

BATCH = 256
"""Most queries in one product on the CPU, whatever batch size the user allows."""

CROWDED = 1 / 16
"""Share of a product's elements that may be candidates before float64 products thin them out."""


class BestMatch(NamedTuple):
    """For each query its score, (q,) float32 in [0, 1], and the position of its match, (q,) int64, -1 for none."""

    score: Array
    position: Array


def max_similarity(rows: Array, batch_size: int = 1024) -> tuple[Array, Array]:
    """Compare each row with all better-ranked ones.

    The score is x·y in float64, clipped to [0, 1] and rounded to float32; of equal scores the best-ranked row wins.
    float32 products only propose candidates (see `semdedup.dedup.exact.product_error`), so the result does not depend
    on `batch_size` or on the backend. Rows that are bit-identical to a better-ranked one are never candidates: that
    one ties with them and wins, which keeps a cluster of equal rows cheap.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first, NumPy or CuPy.
        batch_size: the most rows that are compared at a time; memory, not the answer, depends on it.

    Returns:
        score (n,) float32 and index (n,) int64: ``index[i] < i`` except that ``index[0] == 0`` with ``score[0] == 0``.

    Raises:
        ParameterError: for rows that are not a float32 matrix, or a batch size below 1.

    Cost: n²·d floating-point operations, half of the square; memory n·d·4 bytes beside `rows` where some rows are
    equal, plus at most five products of `semdedup.arrays.block_elements`.

    Reference: A. Abbas et al., SemDeDup: Data-efficient learning at web-scale through semantic deduplication, 2023.

    Example:
        >>> max_similarity(np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32))
        (array([0., 0., 1.], dtype=float32), array([0, 0, 1]))
    """
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ParameterError(f"rows must be an (n, d) float32 array, got {rows.dtype} of shape {rows.shape}")
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, got {batch_size}")
    xp = array_module(rows)
    ranks = xp.arange(len(rows))
    first = first_occurrences(rows)
    candidates = rows if len(first) == len(rows) else rows[first]
    score, position = best_match(rows, ranks, candidates, first, batch_size)
    return score, xp.where(position < 0, ranks, first[position])


def best_match(
    queries: Array, query_ranks: Array, candidates: Array, candidate_ranks: Array, batch_size: int = 1024
) -> BestMatch:
    """Compare queries with those candidates that rank better: one tile of a comparison, or a whole one.

    Args:
        queries: (q, d) float32 of length 1.
        query_ranks: (q,) int64, increasing; 0 is the best rank.
        candidates: (c, d) float32 of length 1.
        candidate_ranks: (c,) int64, strictly increasing.
        batch_size: the most queries in one product.

    Returns:
        The best match of each query. Position -1 with score 0 means that no candidate ranks better.
    """
    xp = array_module(queries)
    n, dim = queries.shape
    score = xp.zeros(n, dtype=np.float32)
    position = xp.full(n, -1, dtype=np.int64)
    eligible = xp.searchsorted(candidate_ranks, query_ranks)  # of a query the candidates [0, eligible) rank better
    error = product_error(dim)
    # A square block computes the least beyond the diagonal; a flat one would lose the half that is saved. Blocks of
    # 256 by 2048 measured best of 16 shapes on the CPU: 8,000 rows take 1.4 times the product alone, with 1024 by
    # 1024 it is 2.3 times.
    batch = min(batch_size, max(64, min(BATCH, len(candidates) // 4)))
    tile = max(1, min(len(candidates), max(batch, block_elements(queries) // 2 // batch)))
    space = scratch(xp, "products", (min(batch, n) * tile,), np.float32)
    for start in range(0, n, batch):
        block = queries[start : start + batch]
        counts = eligible[start : start + batch]
        lowest, highest = int(counts[0]), int(counts[-1])
        best = xp.full(len(block), -error, dtype=np.float32)  # what is not above zero is no candidate
        found = []
        for left in range(0, highest, tile):
            right = min(left + tile, highest)
            product = space[: len(block) * (right - left)].reshape(len(block), right - left)
            xp.matmul(block, candidates[left:right].T, out=product)
            if right > lowest:
                edge = max(left, lowest)
                product[:, edge - left :][xp.arange(edge, right) >= counts[:, None]] = -np.inf
            xp.maximum(best, product.max(axis=1), out=best)
            xp.minimum(best, 1, out=best)  # scores end at 1: of rows a little longer than 1 all that reach it tie
            pairs = near_best(product, best, error)
            if len(pairs[0]) > product.size * CROWDED + len(block):
                pairs = _thin_out(block, candidates[left:right], product, best, error)
            found.append((pairs[0], pairs[1] + left, product[pairs]))
        if not found:
            continue
        rows, columns, products = (xp.concatenate(part) for part in zip(*found, strict=True))
        keep = products >= (best - np.float32(2.02 * error))[rows]  # against the final maximum of all tiles
        rows, columns = rows[keep], columns[keep]
        exact = exact_dot(block, candidates, rows, columns).clip(0, 1).astype(np.float32)
        block_score, column = best_per_row(rows, columns, exact, len(block))
        nothing_above_zero = ~(block_score > 0)  # all better-ranked candidates tie at 0: the best-ranked one wins
        block_score[nothing_above_zero] = 0
        column[nothing_above_zero] = 0
        score[start : start + batch] = block_score
        position[start : start + batch] = xp.where(counts > 0, column, -1)
    return BestMatch(score, position)


def _thin_out(block: Array, candidates: Array, product: Array, best: Array, error: float) -> tuple[Array, Array]:
    """Candidates of one tile by float64 products, for tiles in which float32 cannot tell many rows apart.

    float64 products err too, by d·2**-53. Where both ends of that interval round to one float32 the score is known;
    then only the first of the highest known scores is a candidate, beside those whose rounding is not known.
    """
    xp = array_module(block)
    margin = product_error(block.shape[1]) * 2.0**-29
    precise = block.astype(np.float64) @ candidates.astype(np.float64).T
    low = (precise - margin).clip(0, 1).astype(np.float32)
    high = (precise + margin).clip(0, 1).astype(np.float32)
    outside = product < (best - np.float32(2.02 * error))[:, None]
    low[outside] = -1
    high[outside] = -1
    top = low.max(axis=1)[:, None]
    known = low == high
    first_known = xp.argmax(known & (low == top), axis=1)
    wanted = ~known & (high >= top)
    wanted[xp.arange(len(block)), first_known] |= ~outside[xp.arange(len(block)), first_known]
    return xp.divmod(xp.flatnonzero(wanted), wanted.shape[1])


def first_occurrences(rows: Array) -> Array:
    """Positions of the rows that are not bit-identical to an earlier row, (u,) int64, increasing.

    A few columns are looked at first: where they tell all rows apart nothing more is done. Otherwise whole rows are
    hashed and rows of equal hash compared bit by bit. Cost: O(n·d) at the most.
    """
    xp = array_module(rows)
    n, dim = rows.shape
    everything = xp.arange(n)
    if n < 2:
        return everything
    few = xp.ascontiguousarray(rows[:, xp.unique(xp.linspace(0, dim - 1, 8).astype(np.int64))])
    if len(xp.unique(_hash_rows(few))) == n:
        return everything
    _, inverse = xp.unique(_hash_rows(rows), return_inverse=True)
    earliest = xp.full(int(inverse.max()) + 1, n, dtype=np.uint64)  # CUDA has no atomic minimum of int64
    xp.minimum.at(earliest, inverse, everything.astype(np.uint64))
    earliest = earliest.astype(np.int64)
    repeated = xp.flatnonzero(earliest[inverse] != everything)
    bits = rows.view(np.uint32)
    step = max(1, block_elements(rows) // dim)
    distinct = xp.ones(n, dtype=bool)
    for start in range(0, len(repeated), step):
        part = repeated[start : start + step]
        distinct[part] = (bits[part] != bits[earliest[inverse[part]]]).any(axis=1)
    return xp.flatnonzero(distinct)


def _hash_rows(rows: Array) -> Array:
    """A 64-bit multilinear hash of the bits of each row; sums of whole numbers do not depend on their order."""
    xp = array_module(rows)
    n, dim = rows.shape
    factors = xp.asarray(np.random.default_rng(0).integers(0, 2**64, size=dim, dtype=np.uint64) | np.uint64(1))
    hashes = xp.empty(n, dtype=np.uint64)
    step = max(1, block_elements(rows) // 4 // dim)
    for start in range(0, n, step):
        words = xp.ascontiguousarray(rows[start : start + step]).view(np.uint32).astype(np.uint64)
        words *= factors
        hashes[start : start + step] = words.sum(axis=1, dtype=np.uint64)
    return hashes ^ (hashes >> np.uint64(32))
