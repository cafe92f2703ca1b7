"""Arithmetic whose result is the same whatever the block shape, the thread count and the backend.

A matrix product in float32 differs in its last bits with the shape of its blocks, so here products only *propose*;
what they cannot tell apart is decided by `exact_dot`, whose order of additions is fixed.
"""

from __future__ import annotations

import numpy as np

from semdedup.arrays import Array, array_module

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one rounding to float32."""

_CHUNK_ELEMENTS = 1 << 16  # 512 KiB of float64: the working set of a chunk stays in the second-level cache


def product_error(d: int) -> float:
    """Bound on the error of a float32 product of two rows of length at most 1 (a little over, from rounding).

    Any order of the d additions, with or without fused multiply-add, errs by at most ``gamma_d · Σ|x_i y_i|`` with
    ``gamma_d = d·u / (1 − d·u)`` (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002,
    section 3.1), and ``Σ|x_i y_i| ≤ |x||y|`` by Cauchy and Schwarz. The factor 1.01 covers rows longer
    than 1 by rounding; the last term covers products below the smallest normal float32.
    """
    gamma = d * UNIT_ROUNDOFF / (1 - d * UNIT_ROUNDOFF)
    return 1.01 * gamma + d * 2.0**-126


def _fixed_order_sum(terms: Array) -> Array:
    """Sum the columns of float64 `terms` (m, w), in halves: column j is added to column j + ceil(w/2), and again."""
    width = terms.shape[1]
    while width > 1:
        half = (width + 1) // 2
        terms[:, : width - half] += terms[:, half:width]
        width = half
    return terms[:, 0].copy()


def exact_dot(left: Array, right: Array, left_rows: Array | None = None, right_rows: Array | None = None) -> Array:
    """Row by row x·y in float64, the same bits for a row however many rows it is computed with, on every backend.

    Products of two float32 are exact in float64; their sum is taken in a fixed order of halvings, by element-wise
    additions only, which round alike everywhere.

    Args:
        left: (n, d) float32 or float64.
        right: (m, d), likewise.
        left_rows: (p,) rows of `left` to take, instead of all.
        right_rows: (p,) rows of `right` to take, instead of all.

    Returns:
        (p,) float64. Cost: O(p·d) time, a fixed 1 MiB of memory beside the result.
    """
    xp = array_module(left)
    n_pairs = len(left) if left_rows is None else len(left_rows)
    result = xp.empty(n_pairs, dtype=np.float64)
    step = max(1, _CHUNK_ELEMENTS // max(1, left.shape[1])) if xp is np else 1 << 16
    for start in range(0, n_pairs, step):
        chunk = slice(start, start + step)
        x = left[chunk] if left_rows is None else left[left_rows[chunk]]
        y = right[chunk] if right_rows is None else right[right_rows[chunk]]
        terms = x.astype(np.float64)
        terms *= y
        result[chunk] = _fixed_order_sum(terms)
    return result


def unit_rows(rows: Array) -> Array:
    """L2-normalise rows: (n, d) of any float type to (n, d) float32.

    The length is taken in float64 and in a fixed order, and each element is rounded once, so that a row has the same
    bits in whatever company and in whatever float type it is normalised. Rows must be finite and not zero. A row whose
    length is a power of two within one part in a million is only scaled by it: rows already normalised keep their
    bits, and multiplying a row by a power of two changes nothing.
    """
    xp = array_module(rows)
    result = xp.empty(rows.shape, dtype=np.float32)
    step = max(1, _CHUNK_ELEMENTS // max(1, rows.shape[1])) if xp is np else 1 << 16
    for start in range(0, len(rows), step):
        x = rows[start : start + step].astype(np.float64)
        _, exponent = xp.frexp(xp.abs(x).max(axis=1, keepdims=True))
        x = xp.ldexp(x, -exponent)  # exact, and squares of it cannot overflow
        length = xp.sqrt(_fixed_order_sum(x * x))
        power = xp.ldexp(xp.ones_like(length), xp.rint(xp.log2(length)).astype(np.int32))
        length = xp.where(xp.abs(length - power) <= 1e-6 * power, power, length)
        result[start : start + step] = x / length[:, None]
    return result


def on_grid(rows: Array, bits: int) -> Array:
    """Round float32 values to multiples of ``2**-bits``: sums and products of such values can be exact.

    With 30 bits, a float64 sum of up to 2**22 values of magnitude at most 1 has no rounding error at all. With 11 bits,
    a float32 dot product of two rows of length about 1 has none either: every partial sum is a multiple of 2**-22
    below 2. Exact sums do not depend on their order.
    """
    xp = array_module(rows)
    scale = np.float32(2.0**bits)
    return xp.rint(rows * scale) / scale


def near_best(values: Array, best: Array, error: float) -> tuple[Array, Array]:
    """Where a row holds a value that may be its largest, `best`, given that both may be off by `error`.

    Args:
        values: (b, m) float32.
        best: (b,) float32, not below any value of its row.
        error: the most by which a value differs from the true one.

    Returns:
        Rows and columns of the candidates, (p,) int64 each, p ≥ b, ordered by row and column.
    """
    xp = array_module(values)
    threshold = best - np.float32(2.02 * error)  # a little over 2, for the rounding of this line itself
    return xp.divmod(xp.flatnonzero(values >= threshold[:, None]), values.shape[1])


def best_per_row(rows: Array, columns: Array, values: Array, n_rows: int) -> tuple[Array, Array]:
    """The largest value of each row among sparse entries, and its column; of equal values the lowest column.

    Returns:
        value (n_rows,), minus infinity for a row without entries, and column (n_rows,) int64, the largest int64 there.
    """
    xp = array_module(values)
    best = xp.full(n_rows, -np.inf, dtype=values.dtype)
    xp.maximum.at(best, rows, values)
    column = xp.full(n_rows, np.iinfo(np.int64).max, dtype=np.uint64)  # CUDA has no atomic minimum of int64
    winning = values == best[rows]
    xp.minimum.at(column, rows[winning], columns[winning].astype(np.uint64))
    return best, column.astype(np.int64)
