"""The seeds of k-means that are chosen among rows drawn together. Arrays in, arrays out, NumPy or CuPy."""

from __future__ import annotations

import numpy as np

from semdedup.arrays import Array, array_module, scratch, take_rows
from semdedup.dedup.kernels.gpu.choose import ChosenByKernel
from semdedup.dedup.kernels.gpu.compiled import has_kernels


def start_choosing(first: int, n_clusters: int, squares: Array, nearest: Array) -> Chosen | ChosenByKernel:
    """The first seed of so many, on a GPU by a kernel: then the host does not wait for each seed."""
    by_kernel = has_kernels(squares)
    return (ChosenByKernel if by_kernel else Chosen)(first, n_clusters, squares, nearest)


class Chosen:
    """Seeds, as far as they are chosen.

    Attributes:
        squares: (m,) int32, square lengths of the rows.
        nearest: (m,) int32, square distance of each row to the nearest seed.
        number: how many seeds there are.
        total: the sum of `nearest`.
    """

    def __init__(self, first: int, n_clusters: int, squares: Array, nearest: Array) -> None:
        self.squares, self.nearest, self.number = squares, nearest, 1
        self.total = int(nearest.sum(dtype=np.int64))
        self._chosen = np.full(n_clusters, first)

    def among(self, drawn: Array, share: Array, products: Array, trials: int) -> None:
        """Choose seeds among rows drawn: for each the best of the first `trials` that are left, while that many are.

        A row is left as long as it is as far from all seeds as it must be, and was not tried.

        Args:
            drawn: (w,) int64 positions of rows.
            share: (w,) int64, evenly distributed below the square distances of these as they were drawn.
            products: (w, m) int32, twice the products of these with all rows.
            trials: how many rows are tried for each seed.
        """
        xp = array_module(drawn)
        candidates = xp.arange(len(drawn))
        while self.number < len(self._chosen):
            candidates = candidates[share[candidates] < self.nearest[drawn[candidates]]]
            if len(candidates) < trials:  # never the first time
                break
            few, candidates = candidates[:trials], candidates[trials:]
            lowered = _lowered(products, few, self.nearest - self.squares, self.squares[drawn[few]])
            best = few[int(lowered.argmax())]
            self.nearest = xp.minimum(self.nearest, self.squares + self.squares[drawn[best]] - products[best])
            self._chosen[self.number] = int(drawn[best])
            self.number += 1
        self.total = int(self.nearest.sum(dtype=np.int64))

    def positions(self) -> np.ndarray:
        """Those that are chosen, (number,) int64."""
        return self._chosen[: self.number]


def _lowered(products: Array, candidates: Array, limits: Array, squares: Array) -> Array:
    """By how much each candidate lowers the sum of the square distances to the nearest seed.

    For one row that is ``nearest − (square + own square − twice the product)`` where that is positive.

    Args:
        products: (w, m) int32, twice the products of drawn rows and all rows.
        candidates: (t,) rows of `products`.
        limits: (m,) int32, square distance to the nearest seed less the square.
        squares: (t,) int32, of the candidates.

    Returns:
        (t,) int64. Cost: four passes over t·m elements.
    """
    xp = array_module(products)
    m = products.shape[1]
    terms = take_rows(products, candidates, scratch(xp, "terms", (len(candidates), m), np.int32))
    terms += limits
    xp.maximum(terms, squares[:, None], out=terms)
    return terms.sum(axis=1, dtype=np.int64) - m * squares.astype(np.int64)
