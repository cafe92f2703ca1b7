"""Matches: all pairs of rows whose score reaches a threshold. Arrays in, arrays out, NumPy or CuPy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module, block_elements, scratch
from semdedup.dedup.kernels.exact import exact_scores
from semdedup.dedup.kernels.products import Factor, precisions_for, products_error

BATCH = 512
"""Most rows of the right side in one product."""

PAIRS_AT_A_TIME = 1 << 16
"""Pairs that are decided together."""


class Pairs(NamedTuple):
    """Pairs of rows: positions (p,) int64 on the left and on the right, and their scores, (p,) float32."""

    left: Array
    right: Array
    score: Array

    @classmethod
    def together(cls, parts: Sequence[Pairs]) -> Pairs:
        """The pairs of all parts, in their order; `NO_PAIRS` of none."""
        if not parts:
            return NO_PAIRS
        xp = array_module(parts[-1].score)
        return cls(*(xp.concatenate(values) for values in zip(*parts, strict=True)))


NO_PAIRS = Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))


class Matches:
    """Gathers matches that a comparison comes by, as long as there are not too many of them.

    Attributes:
        least: the least score of a match.
        most: how many are held, at most.
        full: whether there were too many; then it holds none, and `semdedup.dedup.kernels.forest` finds what is needed.
    """

    def __init__(self, least: float | np.float32, most: int) -> None:
        self.least, self.full = np.float32(least), False
        self.most, self._number = most, 0
        self._parts: list[Pairs] = []

    def add(self, queries: Array, candidates: Array, scores: Array) -> None:
        """Take the pairs that match among some, (p,) each."""
        if self.full:
            return
        reached = array_module(scores).flatnonzero(scores >= self.least)
        self._parts.append(Pairs(candidates[reached], queries[reached], scores[reached]))
        self._number += len(self._parts[-1].left)
        if self._number > self.most:
            self.give_up()

    def give_up(self) -> None:
        """Hold no matches any more."""
        self.full, self._parts = True, []

    def pairs(self) -> Pairs | None:
        """The candidate on the left, the query on the right; None where there were too many."""
        return None if self.full else Pairs.together(self._parts)


def matching_pairs(left: Array, right: Array, least: float | np.float32) -> Iterator[Pairs]:
    """Every pair of a row of `left` and a row of `right` whose score is at least `least`.

    Products only propose (see `kernels.products.products_error`); scores are those of `exact.exact_scores`.

    Args:
        left: (n, d) float32 of length 1.
        right: (m, d), likewise.
        least: the least score, above 0.

    Yields:
        Pairs, about `PAIRS_AT_A_TIME` or those of one product at a time; none is yielded twice.

    Cost: 2·n·m·d operations, and O(d) a match; memory: both sides once more as bfloat16, and one product.
    """
    yield from _decided(left, right, least, _proposed(left, right, least, within=False))


def matching_pairs_within(rows: Array, least: float | np.float32) -> Iterator[Pairs]:
    """As `matching_pairs` for the pairs of one set of rows: the left position is the smaller one. Cost: n²·d."""
    yield from _decided(rows, rows, least, _proposed(rows, rows, least, within=True))


def _decided(
    left: Array, right: Array, least: float | np.float32, proposed: Iterator[tuple[Array, Array]]
) -> Iterator[Pairs]:
    xp = array_module(left)
    held: list[tuple[Array, Array]] = []

    def decide() -> Pairs:
        rows, columns = (xp.concatenate(part) for part in zip(*held, strict=True))
        scores = exact_scores(left, right, rows, columns)
        reached = scores >= np.float32(least)
        return Pairs(rows[reached], columns[reached], scores[reached])

    for pair in proposed:
        held.append(pair)
        if sum(len(rows) for rows, _ in held) >= PAIRS_AT_A_TIME:
            yield decide()
            held = []
    if held:
        yield decide()


def _proposed(left: Array, right: Array, least: float | np.float32, within: bool) -> Iterator[tuple[Array, Array]]:
    """Pairs that may match, tile by tile: rows of the left, rows of the right, (p,) int64 each."""
    xp = array_module(left)
    if not len(left) or not len(right):
        return
    precision = precisions_for(left, right)[0]
    left_side: Factor = precision(left)
    right_side: Factor = left_side if left is right else precision(right)
    error = 1.0001 * products_error(left_side, right_side, left.shape[1]) + 2.0**-22
    limit = np.float32(float(least) - error)
    height = min(BATCH, len(right))
    width = max(1, block_elements(left) // height)
    space = scratch(xp, "products", (min(width, len(left)) * height,), np.float32)
    for start in range(0, len(right), height):
        stop = min(start + height, len(right))
        packed = right_side.pack(start, stop)
        highest = stop if within else len(left)
        for first in range(0, highest, width):
            last = min(first + width, highest)
            product = space[: (last - first) * (stop - start)].reshape(-1, stop - start)
            left_side.multiply(first, last, packed, product)
            rows, columns = xp.divmod(xp.flatnonzero(product >= limit), stop - start)
            rows, columns = rows + first, columns + start
            if within:
                ahead = rows < columns
                rows, columns = rows[ahead], columns[ahead]
            if len(rows):
                yield rows, columns
