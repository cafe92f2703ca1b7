"""What is compared with what: rectangles of queries and candidates, taken apart into squares of tiles. Host arrays."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

SIDE = 128
"""Queries and candidates of a tile, as in ``kernels.cu``."""

TOGETHER = 8
"""Tiles along each side of a square, of a large rectangle: blocks of the kernel that run at the same time read the same
16 stretches of rows, which stay in the second-level cache."""

MOST_SQUARES = 1 << 20
"""Squares of a launch, of up to 64 tiles each."""

LEAST_QUERIES = 1024
"""Queries that are not taken apart any more."""


@dataclass(frozen=True)
class Rectangle:
    """Queries that are compared with the candidates that rank better, of one cluster.

    Attributes:
        queries: positions of the first query, and beyond the last.
        candidates: likewise.
        within: whether both are positions of the same rows in their order, so that candidates from the query's own
            position on need not be looked at.
    """

    queries: tuple[int, int]
    candidates: tuple[int, int]
    within: bool = False

    def halves(self) -> list[Rectangle]:
        """The same queries in two parts; in none where they are few."""
        first, end = self.queries
        n_blocks = -(-(end - first) // SIDE)
        if n_blocks < 2 or end - first <= LEAST_QUERIES:
            return []
        middle = first + n_blocks // 2 * SIDE
        return [Rectangle(part, self.candidates, self.within) for part in ((first, middle), (middle, end))]

    def large(self) -> bool:
        """Whether tiles are worth being taken together."""
        sides = (end - first for first, end in (self.queries, self.candidates))
        return min(sides) > 2 * TOGETHER * SIDE

    def bands(self, side: int, most: int) -> Iterator[Rectangle]:
        """The rectangle in parts of whole rows of squares, of at most so many squares each, or of one row."""
        (first, end), (first_candidate, end_candidate) = self.queries, self.candidates
        height = max(1, most // max(1, -(-(end_candidate - first_candidate) // side))) * side
        for start in range(first, end, height):
            stop = min(start + height, end)
            last = min(end_candidate, stop) if self.within else end_candidate
            yield Rectangle((start, stop), (first_candidate, last), self.within)

    def squares(self, side: int) -> np.ndarray:
        """First query and end, first candidate and end, (s, 4) int32, of squares of so many rows that cover it.

        >>> Rectangle((0, 300), (0, 300), within=True).squares(256)
        array([[  0, 256,   0, 256],
               [256, 300,   0, 256],
               [256, 300, 256, 300]], dtype=int32)
        """
        (first_query, end_query), (first, end) = self.queries, self.candidates
        queries, candidates = np.arange(first_query, end_query, side), np.arange(first, end, side)
        row, column = np.repeat(queries, len(candidates)), np.tile(candidates, len(queries))
        ends = np.minimum(row + side, end_query)
        found = np.stack([row, ends, column, np.minimum(column + side, end)], axis=1)
        return (found[column < ends - 1] if self.within else found).astype(np.int32)


def launches(rectangles: Iterable[Rectangle], most: int = MOST_SQUARES) -> Iterator[tuple[int, np.ndarray]]:
    """The squares of all rectangles, by how many tiles they have along a side, which are two kinds at most.

    Together as long as they are no more than `most`: a grid of CUDA ends at 2**31 - 1 blocks. Memory: about 80 bytes
    for each of them.
    """
    kinds: dict[int, list[np.ndarray]] = {TOGETHER: [], 1: []}
    held = dict.fromkeys(kinds, 0)
    for rectangle in rectangles:
        per_side = TOGETHER if rectangle.large() else 1
        for band in rectangle.bands(per_side * SIDE, most):
            squares = band.squares(per_side * SIDE)
            if held[per_side] and held[per_side] + len(squares) > most:
                yield per_side, np.concatenate(kinds[per_side])
                kinds[per_side], held[per_side] = [], 0
            kinds[per_side].append(squares)
            held[per_side] += len(squares)
    yield from ((per_side, np.concatenate(kinds[per_side])) for per_side, n in held.items() if n)
