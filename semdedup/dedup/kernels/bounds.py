"""Bounds that rule out matches without a product of whole rows. Arrays in, arrays out, NumPy or CuPy.

Two bounds, both proven, both with the error of the float32 arithmetic that they are computed in:

- **Margin.** Let two rows x and y of length 1 have a score of at least 1 − eps, so that |x − y| ≤ r = √(2 eps). For any
  two points a and b, ``(x − y)·(a − b) ≤ r·|a − b|`` by Cauchy and Schwarz. With the centroids of the clusters of x and
  y for a and b, that is ``(x·a − x·b) + (y·b − y·a) ≤ r·|a − b|``: the sum of how far each of them is on its own side
  of the hyperplane between the centroids. One of them lies within r/2 of it.
- **Leading coordinates.** For any matrix V (d, p) of spectral norm at most 1, ``I − V·Vᵀ`` is positive semidefinite and
  has a square root W. So ``x·y = Vᵀx·Vᵀy + Wx·Wy ≤ Vᵀx·Vᵀy + |Wx||Wy|``, with ``|Wx|² = |x|² − |Vᵀx|²``. The right side
  is a product of p + 1 numbers. With the leading principal axes of the rows for V, the rest is short and the bound is
  close.
"""

from __future__ import annotations

import numpy as np

from semdedup.arrays import Array, array_module
from semdedup.dedup.kernels.exact import product_error, square_lengths

LONGEST = 1 + 2.0**-22
"""Length of a normalised row at most, for what rounding leaves."""


def radius(least: float | np.float32) -> float:
    """The largest distance of two rows whose score, rounded to float32, is at least `least`."""
    return float(np.sqrt(2 * (LONGEST**2 - float(least)) + 2.0**-24))


def margin_error(dim: int, longest: float) -> float:
    """Bound on the error of ``(x·a − x·b) + (y·b − y·a)`` by float32 products with points no longer than `longest`."""
    return 4.04 * product_error(dim) * LONGEST * longest + 2.0**-21 * longest


def short_width(dim: int, eps: float) -> int:
    """Numbers of a short row, the rest included: enough of them that few pairs but matches remain, measured on
    sentence embeddings of 384 dimensions; 0 where rows are too short to begin with for that to pay."""
    width = 32 if eps <= 0.1 else 64
    return width if dim >= 2 * width else 0


def principal_axes(rows: np.ndarray, n_axes: int) -> np.ndarray:
    """Leading principal axes of rows about the origin, (d, n_axes) float32 of spectral norm at most 1.

    Args:
        rows: (n, d) float32, a sample.
        n_axes: at most d.

    Cost: O(n·d² + d²·n_axes).
    """
    from scipy.linalg import eigh

    dim = rows.shape[1]
    values = rows.astype(np.float64)
    _, axes = eigh(values.T @ values, subset_by_index=[dim - n_axes, dim - 1])
    axes = axes[:, ::-1].astype(np.float32).astype(np.float64)
    excess = float(np.linalg.norm(axes.T @ axes - np.eye(n_axes)))  # of the square of the norm over 1
    return np.nextafter((axes / (1 + excess)).astype(np.float32), np.float32(0))


def short_rows(rows: Array, axes: Array) -> Array:
    """Leading coordinates of rows and the length of the rest, (n, p + 1) float32, for `short_error`.

    Args:
        rows: (n, d) float32 of length 1.
        axes: (d, p) float32 of spectral norm at most 1.
    """
    xp = array_module(rows)
    dim, n_axes = axes.shape
    result = xp.empty((len(rows), n_axes + 1), dtype=np.float32)
    leading = rows @ axes
    result[:, :n_axes] = leading
    known = xp.maximum(xp.sqrt(square_lengths(leading)) - _coordinate_error(dim, n_axes), 0)
    rest = xp.sqrt(xp.maximum(square_lengths(rows) * (1 + 2.0**-22) - known * known, 0))
    result[:, n_axes] = rest.astype(np.float32) * np.float32(1 + 2.0**-22)  # rounded up
    return result


def _coordinate_error(dim: int, n_axes: int) -> float:
    """Bound on the length of the difference of computed and true coordinates of a row."""
    return 1.01 * float(np.sqrt(n_axes)) * product_error(dim) * LONGEST


def short_error(dim: int, width: int) -> float:
    """What is to be added to the float32 product of two short rows so that x·y does not exceed it.

    With coordinates off by at most e, ``u·v`` differs from the true product of coordinates by at most
    ``e(|u| + |v|) + e²``; the product itself errs as `exact.product_error` says.
    """
    error = _coordinate_error(dim, width)
    length = LONGEST + 2 * error
    return 2 * error * length + error * error + product_error(width) * length * length
