"""Which candidates may be the nearest of each query, by one pass over their products on tensor cores."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module
from semdedup.dedup.kernels.gpu.compiled import kernel
from semdedup.dedup.kernels.gpu.halves import SCALE, HalfRows, half_error

SIDE, THREADS, SHARED_BYTES = 128, 256, 3 * 2 * 128 * 32 * 2
"""Queries and candidates of a tile, threads of a block and its shared memory, as in ``kernels.cu``."""

TILES_AT_A_TIME = 1 << 18
"""Tiles of a launch: four megabytes of numbers."""

BLOCKS_TOGETHER = 8
"""Blocks of queries whose tiles with the same candidates stand together, so that these are still in the cache."""

FOUND_A_QUERY, FEWEST_FOUND = 16, 1 << 16
"""Candidates that there is room for, for each query, and at least."""


class Proposals(NamedTuple):
    """Pairs that are left to decide: positions of queries and of candidates, (p,) int64 each."""

    queries: Array
    candidates: Array


@dataclass(frozen=True)
class Rectangle:
    """Queries that are compared with candidates that rank better, of one cluster.

    Attributes:
        queries: positions of the first query, and beyond the last.
        candidates: likewise.
        within: whether they are the same rows, so that half of the square is enough.
    """

    queries: tuple[int, int]
    candidates: tuple[int, int]
    within: bool

    def tiles(self) -> Iterator[np.ndarray]:
        """First query and end, first candidate and end of the tiles, (t, 4) int32, some at a time."""
        (first_query, end_query), (first, end) = self.queries, self.candidates
        for group in range(first_query, end_query, BLOCKS_TOGETHER * SIDE):
            rows = np.arange(group, min(group + BLOCKS_TOGETHER * SIDE, end_query), SIDE)
            last = min(end, int(rows[-1]) + SIDE) if self.within else end
            columns, starts = np.meshgrid(np.arange(first, last, SIDE), rows, indexing="ij")
            found = np.stack(
                [starts, np.minimum(starts + SIDE, end_query), columns, np.minimum(columns + SIDE, end)], -1
            )
            flat = found.reshape(-1, 4).astype(np.int32)
            yield flat[flat[:, 2] < flat[:, 1]] if self.within else flat


def launches(rectangles: Iterator[Rectangle] | list[Rectangle]) -> Iterator[np.ndarray]:
    """The tiles of all rectangles, (t, 4) int32, about `TILES_AT_A_TIME` at a time."""
    held: list[np.ndarray] = []
    number = 0
    for rectangle in rectangles:
        for tiles in rectangle.tiles():
            held.append(tiles)
            number += len(tiles)
            if number >= TILES_AT_A_TIME:
                yield np.concatenate(held)
                held, number = [], 0
    if number:
        yield np.concatenate(held)


def propose(
    queries: Array, candidates: Array, eligible: Array, rectangles: list[Rectangle], match: float = np.inf
) -> Proposals | None:
    """The candidates of each query that may have its largest score, or one of at least `match`.

    Args:
        queries: (q, d) float32 of length 1, CuPy.
        candidates: (c, d) likewise; the same object where rows are compared among themselves.
        eligible: (q,) int32: of query i the candidates [0, eligible[i]) rank better.
        rectangles: what is compared.
        match: the least score of a match; infinite where matches are not asked for.

    Returns:
        Pairs, in no order; None where there are too many of them.

    Cost: 2·d operations for each pair of the tiles, a launch for `TILES_AT_A_TIME`, and two synchronisations; memory:
    both sides as halves, and 12 bytes for `FOUND_A_QUERY` candidates of each query.
    """
    xp = array_module(queries)
    left = HalfRows(queries)
    right = left if queries is candidates else HalfRows(candidates)
    search = _Search(left, right, eligible, half_error(left, right, queries.shape[1]), match)
    found = search.over(rectangles)
    if found > search.capacity:  # the highest products are known now: fewer candidates are near them from the beginning
        found = search.over(rectangles)
    if found > search.capacity:
        return None
    rows, columns, products = (array[:found] for array in search.found)
    keep = xp.flatnonzero(products >= search.least()[rows])
    return Proposals(rows[keep].astype(np.int64), columns[keep].astype(np.int64))


class _Search:
    """The highest product of each query so far, and the candidates that were noted."""

    def __init__(self, left: HalfRows, right: HalfRows, eligible: Array, error: Array, match: float) -> None:
        xp = array_module(eligible)
        self.left, self.right, self.eligible, self.error = left, right, eligible, error
        self.match = np.float32(match)
        self.highest = xp.zeros(len(left), dtype=np.uint32)
        self.capacity = max(FEWEST_FOUND, FOUND_A_QUERY * len(left))
        kinds = (np.int32, np.int32, np.float32)
        self.found: list[Any] = [xp.empty(self.capacity, dtype=kind) for kind in kinds]

    def over(self, rectangles: list[Rectangle]) -> int:
        """Look at all tiles; how many candidates were near the highest products known by then."""
        xp = array_module(self.eligible)
        number = xp.zeros(1, dtype=np.uint64)
        run = kernel(xp, "propose")
        depth, scale = np.int64(self.left.rows.shape[1]), np.float32(1 / SCALE**2)
        for tiles in launches(rectangles):
            sides = self.left.rows, self.right.rows, depth, scale, xp.asarray(tiles)
            limits = self.eligible, self.error, self.match, self.highest
            room = np.uint64(self.capacity), number, *self.found
            run((len(tiles),), (THREADS,), (*sides, *limits, *room), shared_mem=SHARED_BYTES)
        return int(number[0])

    def least(self) -> Array:
        """The product from which on a candidate of each query may be the nearest, or a match, as in ``kernels.cu``."""
        xp = array_module(self.eligible)
        highest = self.highest.view(np.float32)
        nearest = xp.minimum(highest - self.error, np.float32(1)).clip(0, None)
        return xp.minimum(nearest, self.match) - self.error
