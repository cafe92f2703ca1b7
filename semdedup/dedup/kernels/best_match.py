"""The comparison: each row's largest cosine similarity to a better-ranked row of its cluster.

Arrays in, arrays out, NumPy or CuPy; no Dask and no storage.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, overload

import numpy as np

from semdedup.arrays import Array, array_module, block_elements, scratch
from semdedup.dedup.kernels.distinct import equal_pairs, occurrences, with_copies
from semdedup.dedup.kernels.exact import best_per_row, exact_scores, quick_error
from semdedup.dedup.kernels.gpu.compare import compare
from semdedup.dedup.kernels.gpu.compiled import has_tensor_cores
from semdedup.dedup.kernels.gpu.tiles import Rectangle
from semdedup.dedup.kernels.matches import Matches
from semdedup.dedup.kernels.products import Factor, precisions_for, products_error
from semdedup.errors import ParameterError

BATCH = 256
"""Most queries in one product on the CPU, whatever batch size the user allows: of the square on the diagonal half is
multiplied in vain, and smaller ones lose more in calls."""

RUN = 16
"""Rows of a product whose maximum is taken first."""

CROWDED = 1 / 16
"""Share of the runs of a product that may be near the maximum before a finer precision thins them out."""

PAIRS_AT_A_TIME = 1 << 14
"""Proposed pairs that are decided together, at least."""


class BestMatch(NamedTuple):
    """For each query its score, (q,) float32 in [0, 1], and the position of its match, (q,) int64, -1 for none."""

    score: Array
    position: Array


@overload
def max_similarity(
    rows: np.ndarray[Any, np.dtype[np.floating]], batch_size: int = ...
) -> tuple[np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.int64]]]: ...


@overload
def max_similarity(rows: Array, batch_size: int = ...) -> tuple[Array, Array]: ...


def max_similarity(rows: Array, batch_size: int = 1024) -> tuple[Array, Array]:
    """Compare each row with all better-ranked ones.

    The score is x·y in float64, clipped to [0, 1] and rounded to float32; of equal scores the best-ranked row wins.
    Products in bfloat16 or float32 only propose candidates (see `kernels.products.products_error`), so the
    result does not depend on `batch_size`, on the processor or on the backend. Rows that are bit-identical to a
    better-ranked one have score 1 and are compared with nothing else, which keeps a cluster of equal rows cheap.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first, NumPy or CuPy.
        batch_size: the most rows that are compared at a time; memory, not the answer, depends on it.

    Returns:
        score (n,) float32 and index (n,) int64: ``index[i] < i`` except that ``index[0] == 0`` with ``score[0] == 0``.

    Raises:
        ParameterError: for rows that are not a float32 matrix, or a batch size below 1.

    Cost: n²·d floating-point operations, half of the square; memory n·d·2 bytes beside `rows` for bfloat16 and n·d·4
    where some rows are equal, plus at most five products of `semdedup.arrays.block_elements`.

    Reference: A. Abbas et al., SemDeDup: Data-efficient learning at web-scale through semantic deduplication, 2023.

    Example:
        >>> max_similarity(np.array([[1, 0], [0, 1], [0, 1]], dtype=np.float32))
        (array([0., 0., 1.], dtype=float32), array([0, 0, 1]))
    """
    if rows.ndim != 2 or rows.dtype != np.float32:
        raise ParameterError(f"rows must be an (n, d) float32 array, got {rows.dtype} of shape {rows.shape}")
    if batch_size < 1:
        raise ParameterError(f"batch_size must be at least 1, got {batch_size}")
    return compare_ranked(rows, batch_size)


def compare_ranked(
    rows: Array, batch_size: int, matches: Matches | None = None, copies: tuple[Array, Array] | None = None
) -> tuple[Array, Array]:
    """`max_similarity`, which on the way gathers the matches among the rows that are not bit-identical.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first.
        batch_size: the most rows that are compared at a time.
        matches: gathers them, where given, by their position among the rows that come first.
        copies: `distinct.occurrences` of the rows, where they are known already.
    """
    first, same_as = occurrences(rows) if copies is None else copies
    distinct = rows if len(first) == len(rows) else rows[first]
    return with_copies(best_match(distinct, first, distinct, first, batch_size, matches), first, same_as)


def best_match(
    queries: Array,
    query_ranks: Array,
    candidates: Array,
    candidate_ranks: Array,
    batch_size: int = 1024,
    matches: Matches | None = None,
) -> BestMatch:
    """Compare queries with those candidates that rank better: one tile of a comparison, or a whole one.

    Args:
        queries: (q, d) float32 of length 1.
        query_ranks: (q,) int64, increasing; 0 is the best rank.
        candidates: (c, d) float32 of length 1.
        candidate_ranks: (c,) int64, strictly increasing.
        batch_size: the most queries in one product.
        matches: gathers the pairs of a query and a candidate that ranks better whose score is high enough, on the way.

    Returns:
        The best match of each query. Position -1 with score 0 means that no candidate ranks better.
    """
    xp = array_module(queries)
    n = len(queries)
    # of a query the candidates [0, eligible) rank better; 32 bits are compared faster
    eligible = xp.searchsorted(candidate_ranks, query_ranks).astype(np.int32)
    result = BestMatch(xp.zeros(n, dtype=np.float32), xp.where(eligible > 0, 0, -1))  # of ties at 0 the best-ranked
    spans = [(0, n)]
    if has_tensor_cores(queries):
        whole = Rectangle((0, n), (0, len(candidates)), queries is candidates and query_ranks is candidate_ranks)
        rest = compare(queries, candidates, eligible, [whole], result.score, result.position, matches)
        spans = [rectangle.queries for rectangle in rest]
    for span in spans:
        compare_in_blocks(queries, candidates, eligible, span, batch_size, result, matches)
    return result


def compare_in_blocks(
    queries: Array,
    candidates: Array,
    eligible: Array,
    span: tuple[int, int],
    batch_size: int,
    result: BestMatch,
    matches: Matches | None,
) -> None:
    """`best_match` of the queries [start, stop), `span`, into the result, by the matrix products of the arrays' module.

    Of query i the candidates [0, eligible[i]) rank better, (q,) int32.
    """
    xp = array_module(queries)
    n = span[1] - span[0]
    height = max(1, min(batch_size, n if xp is not np or n <= 2 * BATCH else BATCH))
    proposals = _Proposals(queries, candidates, height, matches)
    undecided = _Undecided(queries, candidates, result, matches, span)
    for start in range(*span, height):
        stop = min(start + height, span[1])
        floor = xp.zeros(stop - start, dtype=np.float32)  # no score is less
        found = proposals.of_block(start, stop, eligible[start:stop], floor)
        undecided.add(found, start, stop, floor)


class _Proposals:
    """Proposes candidates for blocks of queries, in the coarsest precision that leaves few enough of them."""

    def __init__(self, queries: Array, candidates: Array, height: int, matches: Matches | None) -> None:
        xp = array_module(queries)
        self.queries, self.candidates, self.matches = queries, candidates, matches
        self.precisions = _precisions(queries, candidates)
        self.left_side, self.right_side, self.error = next(self.precisions)
        self.width = max(1, block_elements(queries) // 2 // height // RUN) * RUN
        self.space = scratch(xp, "products", (self.width * height,), np.float32)

    def of_block(self, start: int, stop: int, counts: Array, floor: Array) -> list[tuple[Array, Array, Array]]:
        """Candidates of the queries [start, stop), tile by tile: their rows, queries from `start` on, highest scores.

        Of query j the candidates [0, counts[j]) rank better. `floor` is raised in place to what scores are at least.
        """
        lowest, highest = int(counts[0]), int(counts[-1])
        packed = self.right_side.pack(start, stop)
        found = []
        left = 0
        while left < highest:
            right = min(left + self.width, highest)
            size = right - left
            product = self.space[: -(-size // RUN) * RUN * (stop - start)].reshape(-1, stop - start)
            self.left_side.multiply(left, right, packed, product[:size])
            _rule_out(product, left, right, lowest, counts)
            near = self._near(product, floor)
            if near is None and (finer := next(self.precisions, None)) is not None:
                self.left_side, self.right_side, self.error = finer  # here, and for all that follow
                packed = self.right_side.pack(start, stop)
                continue
            if near is None:
                block = self.queries[start:stop]
                near = _thin_out(self.candidates[left:right], block, product[:size], floor, self.error)
            rows, columns = near
            found.append((rows + left, columns, product[near] + self.error))
            left = right
        return found

    def _near(self, product: Array, floor: Array) -> tuple[Array, Array] | None:
        """`_near_maximum`, with the matches as long as they are gathered; they are given up where they crowd."""
        if self.matches is not None and not self.matches.full:
            near = _near_maximum(product, floor, self.error, float(self.matches.least))
            if near is not None:
                return near
            self.matches.give_up()
        return _near_maximum(product, floor, self.error)


class _Undecided:
    """Proposed pairs, gathered until there are enough of them to be decided together."""

    def __init__(
        self, queries: Array, candidates: Array, result: BestMatch, matches: Matches | None, span: tuple[int, int]
    ) -> None:
        self.queries, self.candidates, self.result, self.matches = queries, candidates, result, matches
        self.pairs: list[tuple[Array, Array]] = []
        self.number, (self.first, self.last) = 0, span

    def add(self, found: list[tuple[Array, Array, Array]], start: int, stop: int, floor: Array) -> None:
        """Pairs of the queries [start, stop) found in all tiles: candidates, queries from `start` on, highest score."""
        if found:
            xp = array_module(floor)
            rows, columns, at_most = (xp.concatenate(part) for part in zip(*found, strict=True))
            least = floor  # of all tiles
            if self.matches is not None and not self.matches.full:
                least = xp.minimum(floor, np.float32(self.matches.least))
            keep = at_most >= least[columns]
            self.pairs.append((columns[keep] + start, rows[keep]))
            self.number += len(self.pairs[-1][0])
        if self.number > PAIRS_AT_A_TIME or stop == self.last:
            self._decide(slice(self.first, stop))
            self.pairs, self.number, self.first = [], 0, stop

    def _decide(self, span: slice) -> None:
        """Compute the scores of the pairs and write the best of each query of `span` into the result."""
        if not self.pairs:
            return
        xp = array_module(self.queries)
        rows, columns = (xp.concatenate(part) for part in zip(*self.pairs, strict=True))
        exact = exact_scores(self.queries, self.candidates, rows, columns)
        if self.matches is not None:
            self.matches.add(rows, columns, exact)
        score, column = best_per_row(rows - span.start, columns, exact, span.stop - span.start)
        above_zero = score > 0
        self.result.score[span] = xp.where(above_zero, score, self.result.score[span])
        self.result.position[span] = xp.where(above_zero, column, self.result.position[span])


def _rule_out(product: Array, left: int, right: int, lowest: int, counts: Array) -> None:
    """Make minus infinity what is no product of candidates [left, right), or of one that does not rank better.

    Of query j the candidates [0, counts[j]) rank better; `lowest` is the least of the counts.
    """
    xp = array_module(product)
    product[right - left :] = -np.inf
    if right > lowest:
        edge = max(left, lowest)
        beyond = xp.arange(edge, right, dtype=np.int32)[:, None] >= counts
        xp.copyto(product[edge - left : right - left], np.float32(-np.inf), where=beyond)


def _precisions(queries: Array, candidates: Array) -> Iterator[tuple[Factor, Factor, np.float32]]:
    """Candidates and queries as factors, and the error of their products: first in the fastest precision that pays."""
    dim = queries.shape[1]
    for precision in precisions_for(candidates, queries):
        left = precision(candidates)
        right = left if queries is candidates else precision(queries)
        yield left, right, slack(left, right, dim)


def slack(left: Factor, right: Factor, dim: int) -> np.float32:
    """The error of products of rows of length `dim`, as candidates are chosen with it.

    It has a little on top for what float32 arithmetic with it loses, and so that two scores that round to the
    same float32, or two rows that are equal and two that are nearly so, are never distinguished.
    """
    return np.float32(1.0001 * products_error(left, right, dim) + 2.0**-22)


def _near_maximum(product: Array, floor: Array, error: np.float32, match: float = np.inf) -> tuple[Array, Array] | None:
    """Where columns of a product hold what may be their maximum, over this tile and those before it, or a match.

    Args:
        product: (m, q) float32, m a multiple of `RUN`.
        floor: (q,) float32, what the maximum of each column is at least; raised in place. Scores end at 1, so does it:
            of rows a little longer than 1 all that reach it tie.
        error: the most by which an element differs from the true one.
        match: the least score of a match; infinite where matches are not asked for.

    Returns:
        Rows and columns of the candidates, (p,) int64 each; None where they are too many to be decided one by one.
    """
    xp = array_module(product)
    n_columns = product.shape[1]
    # looked at one by one only where their maximum is near; of rows that are far apart, so that whole slices are
    # compared: a third of the time of rows side by side
    runs = product.reshape(RUN, -1, n_columns)
    maxima = runs.max(axis=0)
    xp.maximum(floor, xp.minimum(maxima.max(axis=0) - error, 1), out=floor)
    least = xp.minimum(floor, np.float32(match)) - error
    run, column = xp.divmod(xp.flatnonzero(maxima >= least), n_columns)
    if len(run) > maxima.size * CROWDED + 4 * n_columns:
        return None
    values = runs[:, run, column]
    place, found = xp.divmod(xp.flatnonzero(values >= least[column]), max(1, len(run)))
    return place * len(maxima) + run[found], column[found]


def _thin_out(candidates: Array, block: Array, product: Array, floor: Array, error: np.float32) -> tuple[Array, Array]:
    """Candidates of one tile by float64 products, for tiles in which float32 cannot tell many rows apart.

    float64 products err too, by d·2**-53. Where both ends of that interval round to one float32 the score is known;
    then only the first of the highest known scores is a candidate, beside those whose rounding is not known.
    """
    xp = array_module(block)
    margin = quick_error(block.shape[1])
    precise = candidates.astype(np.float64) @ block.astype(np.float64).T
    low = (precise - margin).clip(0, 1).astype(np.float32)
    high = (precise + margin).clip(0, 1).astype(np.float32)
    outside = product < floor - error
    if bool((high == 1).any()):  # copies have score 1, whatever rounding left of their length
        equal = equal_pairs(candidates, block)
        low[equal], high[equal] = 1, 1
    low[outside] = -1
    high[outside] = -1
    top = low.max(axis=0)
    known = low == high
    first_known = xp.argmax(known & (low == top), axis=0)
    wanted = ~known & (high >= top)
    every = xp.arange(len(block))
    wanted[first_known, every] |= ~outside[first_known, every]
    return xp.divmod(xp.flatnonzero(wanted), wanted.shape[1])
