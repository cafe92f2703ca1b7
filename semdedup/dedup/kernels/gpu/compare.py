"""The comparison on tensor cores: proposed in half precision, decided in float64, few launches for many clusters.

For queries of any number of clusters it takes one launch each to round rows, to propose, to decide and to write the
result, and the host waits for one number: how many candidates there are.
"""

from __future__ import annotations

import numpy as np

from semdedup.arrays import Array, array_module
from semdedup.dedup.kernels.gpu.compiled import NOTHING, contiguous, launch
from semdedup.dedup.kernels.gpu.halves import COLUMNS, SCALE, depth_of, halve, tensor_core_error, vanished
from semdedup.dedup.kernels.gpu.sums import leaves_of
from semdedup.dedup.kernels.gpu.tiles import SIDE, Rectangle, launches
from semdedup.dedup.kernels.matches import Matches

THREADS, STAGES = 128, 3
"""Threads of a block of `propose`, and stages of its copies, as in ``kernels.cu``."""

SHARED_BYTES = STAGES * 2 * SIDE * COLUMNS * 2
"""Shared memory of a block of `propose`: 48 KiB, what every GPU gives without being asked."""

FOUND_A_QUERY, FEWEST_FOUND = 32, 1 << 16
"""Candidates that there is room for, for each query, and at least. Tiles that run first know of no high product yet, so
that most of what they note is soon no longer near the highest."""


def compare(
    queries: Array,
    candidates: Array,
    eligible: Array,
    rectangles: list[Rectangle],
    score: Array,
    position: Array,
    matches: Matches | None = None,
) -> list[Rectangle]:
    """Compare queries with better-ranked candidates, and write the highest score of each and whose it is.

    Args:
        queries: (q, d) float32 of length 1, CuPy, on a GPU of which `compiled.has_tensor_cores`.
        candidates: (c, d) likewise; the same object where rows are compared among themselves.
        eligible: (q,) int32: of query i the candidates [0, eligible[i]) rank better. It does not fall within a
            rectangle.
        rectangles: what is compared. Each query is in one of them at most.
        score: (q,) float32, 0 before.
        position: (q,) int64; left as it is where no score is above 0.
        matches: gathers pairs whose score is high enough, where given. Given up where there are too many.

    Returns:
        What is not done, because too many candidates are near the best of their query for each to be decided. Then
        `matches` are given up.

    Cost: 2·d operations for each pair, in half precision, of tiles of 128 x 128; memory: both sides as halves, and
    12 bytes for `FOUND_A_QUERY` candidates of each query.

    By its arithmetic a tile needs 64 operations for a byte that it reads. On an H100, whose second-level cache gives
    about 5.5 TB/s, that is 350 TFLOP/s at the most; instructions of this kind (mma.sync) reach about 600. Both are
    estimates: see ``benchmarks/gpu/comparison.py`` for what is measured.
    """
    rectangles = [
        one for one in rectangles if one.queries[0] < one.queries[1] and one.candidates[0] < one.candidates[1]
    ]
    if not rectangles:
        return []
    search = Search(queries, candidates, eligible)
    rest: list[Rectangle] = []
    if not search.over(rectangles, matches) and not (_wanted(matches) and search.over(rectangles, matches)):
        if matches is not None:
            matches.give_up()
        rest = search.in_parts(rectangles)
    search.place(score, position)
    return rest


def _wanted(matches: Matches | None) -> bool:
    return matches is not None and not matches.full


class Search:
    """The highest product of each query so far, the candidates that were noted, and the best of those decided.

    Attributes:
        capacity: room for candidates.
        found: those noted last: queries and candidates, int32, and products of halves, float32, `capacity` of each.
    """

    def __init__(self, queries: Array, candidates: Array, eligible: Array, capacity: int | None = None) -> None:
        xp = array_module(queries)
        n, dim = queries.shape
        left = halve(queries)
        right = left if queries is candidates else halve(candidates)
        self.rows = contiguous(queries, np.float32), contiguous(candidates, np.float32)
        self.halves = left.rows, right.rows
        self.bound = left.square, right.square, np.float32(vanished(dim)), np.float32(tensor_core_error(dim))
        self.eligible = contiguous(eligible, np.int32)
        self.highest, self.best = xp.zeros(n, dtype=np.uint32), xp.zeros(n, dtype=np.uint64)
        self.capacity = max(FEWEST_FOUND, FOUND_A_QUERY * n) if capacity is None else capacity
        kinds = (np.int32, np.int32, np.float32)
        self.found: list[Array] = [xp.empty(self.capacity, dtype=kind) for kind in kinds]

    def over(self, rectangles: list[Rectangle], matches: Matches | None) -> bool:
        """Propose and decide; whether there was room for all candidates. If not, the highest products are known now."""
        match = np.float32(matches.least if matches is not None and _wanted(matches) else np.inf)
        n_found = self.propose(rectangles, match)
        if n_found <= self.capacity:
            self._decide(n_found, match, matches)
        return n_found <= self.capacity

    def in_parts(self, rectangles: list[Rectangle]) -> list[Rectangle]:
        """Propose and decide what there is room for, halving the rest; those that are left over at the end.

        Each halving is one more pass at a tenth of the time that those left over take in float32.
        """
        if self.over(rectangles, None):
            return []
        middle = len(rectangles) // 2
        halves = [rectangles[:middle], rectangles[middle:]] if middle else [[one] for one in rectangles[0].halves()]
        return [one for half in halves for one in self.in_parts(half)] if halves else rectangles

    def propose(self, rectangles: list[Rectangle], match: np.float32) -> int:
        """How many candidates are near the highest products known by then; they are noted as far as there is room."""
        xp = array_module(self.eligible)
        n_found = xp.zeros(1, dtype=np.uint64)
        depth = np.int32(depth_of(self.rows[0].shape[1]))
        for per_side, squares in launches(rectangles):
            what = *self.halves, depth, np.float32(SCALE**-2), xp.asarray(squares), np.int32(per_side), self.eligible
            room = np.uint64(self.capacity), n_found, *self.found
            arguments = *what, *self.bound, match, self.highest, *room
            launch(xp, "propose", len(squares) * per_side**2, THREADS, *arguments, shared_bytes=SHARED_BYTES)
        return int(n_found[0])

    def _decide(self, n_found: int, match: np.float32, matches: Matches | None) -> None:
        """Compute the scores of the candidates noted that are near the highest products in the end."""
        if not n_found:
            return
        xp = array_module(self.eligible)
        dim = self.rows[0].shape[1]
        scores = xp.empty(n_found, dtype=np.float32) if np.isfinite(match) else NOTHING
        what = *self.rows, np.int32(dim), *leaves_of(xp, dim), *self.bound, match, self.highest, np.int64(n_found)
        launch(xp, "decide", -(-n_found // THREADS), THREADS, *what, *self.found, scores, self.best)
        if matches is not None and np.isfinite(match):
            queries, candidates = (numbers[:n_found].astype(np.int64) for numbers in self.found[:2])
            matches.add(queries, candidates, scores)

    def place(self, score: Array, position: Array) -> None:
        """Write the best of each query."""
        n = len(self.best)
        launch(array_module(score), "place_best", -(-n // THREADS), THREADS, self.best, np.int64(n), score, position)
