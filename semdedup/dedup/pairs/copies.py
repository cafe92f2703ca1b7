"""Rows that are bit-identical: one of them is compared, and the pairs that it is in are pairs of all. NumPy arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from semdedup.dedup.kernels.matches import Pairs


class Copies(NamedTuple):
    """Which of n rows each of u different ones stands for.

    Attributes:
        rows: (n,) int64, positions of rows: those of the first, those of the second, ….
        starts: (u + 1,) int64, where those of each begin.
    """

    rows: np.ndarray
    starts: np.ndarray

    @classmethod
    def of(cls, different: np.ndarray) -> Copies:
        """From the different row that each row is, (n,) int64; each of them is at least one."""
        return cls(np.argsort(different, kind="stable"), np.append(0, np.cumsum(np.bincount(different))))

    @property
    def sizes(self) -> np.ndarray:
        """How many rows each stands for, (u,)."""
        return np.diff(self.starts)

    def pairs(self) -> Pairs:
        """Each different row that stands for several, paired with itself."""
        several = np.flatnonzero(self.sizes > 1)
        return Pairs(several, several, np.ones(len(several), np.float32))


def expanded(pairs: Pairs, left: Copies, right: Copies, most: int) -> Iterator[Pairs]:
    """The pairs of rows that pairs of different rows mean, at most so many at a time.

    Args:
        pairs: positions among the different rows of each side; a row paired with itself means its copies, each pair of
            them once, where both sides are the same.
        left, right: the sides.
        most: how many.

    Cost: O(1) a pair, but for copies of one row two; memory: `most` pairs, whatever there are.
    """
    widths = right.sizes[pairs.right]
    ends = np.cumsum(left.sizes[pairs.left] * widths)
    for start in range(0, int(ends[-1]) if len(ends) else 0, most):
        number = np.arange(start, min(start + most, int(ends[-1])))
        pair = np.searchsorted(ends, number, side="right")
        row, column = np.divmod(number - np.append(0, ends)[pair], widths[pair])
        one, other, score = (part[pair] for part in pairs)
        rows, columns = left.rows[left.starts[one] + row], right.rows[right.starts[other] + column]
        if left is right:
            wanted = (one != other) | (rows < columns)
            rows, columns, score = rows[wanted], columns[wanted], score[wanted]
        if len(rows):
            yield Pairs(rows, columns, score)
