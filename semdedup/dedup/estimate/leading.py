"""Short products that rule out pairs: leading coordinates of rotated rows, with the length of the rest.

Rotate all rows by an orthogonal matrix, which changes no cosine, and let x_p be the first p coordinates of a row of
length 1 and r_x = √(1 − |x_p|²) the length of the others. By Cauchy and Schwarz ``x·y ≤ x_p·y_p + r_x·r_y``: a product
of p + 1 elements instead of d. With the principal axes of a sample in front, hardly more than the matches reach a
threshold. Arrays in, arrays out, NumPy or CuPy.
"""

from __future__ import annotations

import numpy as np

from semdedup.arrays import Array, array_module, scratch
from semdedup.dedup.kernels.exact import product_error

ROWS_TO_TRY = 1024
"""Most rows that the number of coordinates is chosen on; half of them give the axes that the other half is tried on."""

SMALLEST_TRIAL = 64
"""Fewer rows choose nothing: they are compared as they are."""

STEP = 16
"""The numbers of coordinates that are tried are multiples of it."""

DECIDING = 100.0
"""What a pair costs that is not ruled out, in whole products: its exact score instead."""


def principal_axes(rows: np.ndarray, n_axes: int) -> np.ndarray:
    """The directions in which rows (n, d) are longest, (d, n_axes) float32 of length 1, the longest first."""
    doubles = rows.astype(np.float64)
    _, axes = np.linalg.eigh(doubles.T @ doubles)  # the longest last
    return np.ascontiguousarray(axes[:, ::-1][:, :n_axes].astype(np.float32))


def choose_axes(rows: np.ndarray, least: float) -> np.ndarray:
    """The axes that make the comparison of rows like these with a threshold cheapest.

    Args:
        rows: (n, d) float32 of length 1, a sample in random order.
        least: the least score of a match.

    Returns:
        (d, p) float32; p is 0 where no number of coordinates rules out enough to pay.
    """
    n, dim = rows.shape
    if n < SMALLEST_TRIAL or dim <= 2 * STEP:
        return np.empty((dim, 0), dtype=np.float32)
    half = min(n, ROWS_TO_TRY) // 2
    axes = principal_axes(rows[:half], dim // 2)
    costs = {}
    for width in range(STEP, dim // 2 + 1, STEP):
        short = leading(rows[half : 2 * half], None, axes[:, :width])
        pairs = (short @ short.T)[np.triu_indices(half, 1)]
        survivors = np.mean(pairs >= least - bound_error(dim, width))
        costs[width] = (width + 1) / dim + 2 * width / n + DECIDING * survivors
    best = min(costs, key=lambda width: costs[width])
    return principal_axes(rows, best if costs[best] < 1 else 0)


def leading(rows: Array, lengths: Array | None, axes: Array) -> Array:
    """The leading coordinates of rows, and an upper bound of the length of the rest: (n, p + 1) float32.

    Args:
        rows: (n, d) float32.
        lengths: (n,) float64 of the rows; None where all are 1.
        axes: (d, p) float32.

    The result lies in scratch memory of the thread: the next call takes its place.
    """
    xp = array_module(rows)
    dim, width = axes.shape
    short = scratch(xp, "short", (len(rows), width + 1), np.float32)
    coordinates = scratch(xp, "coordinates", (len(rows), width), np.float32)
    xp.matmul(rows, axes, out=coordinates)
    if lengths is not None:
        coordinates /= lengths.astype(np.float32)[:, None]
    squares = xp.einsum("ij,ij->i", coordinates, coordinates, dtype=np.float64)
    short[:, :width] = coordinates
    short[:, width] = xp.sqrt((1 - squares).clip(0) + 3 * coordinates_error(dim, width))
    return short


def coordinates_error(dim: int, width: int) -> float:
    """Bound on the length by which leading coordinates as computed differ from the true ones.

    Each coordinate is a float32 product with an axis of length 1, rounded by the division, and the axes are rounded to
    float32, which moves each coordinate by at most 2**-24 of the length of a row times √d.
    """
    return float(width**0.5 * (product_error(dim) + (dim**0.5 + 4) * 2.0**-24))


def bound_error(dim: int, width: int) -> float:
    """By how much the product of two rows of `leading` may fall below the true bound.

    With e the error of the coordinates, x_p·y_p errs by 2e + e², and the lengths of the rests are upper bounds already;
    the product itself errs by what a float32 product does, of rows of length √(1 + 3e) at most. 2**-22 is for scores
    that round to the threshold. A width of 0 means whole rows.
    """
    return 3 * coordinates_error(dim, width) + 1.01 * product_error(width + 1 if width else dim) + 2.0**-22
