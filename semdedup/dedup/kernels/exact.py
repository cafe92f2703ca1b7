"""Arithmetic whose result is the same whatever the block shape, the thread count and the backend.

A matrix product in float32 differs in its last bits with the shape of its blocks, so here products only *propose*;
what they cannot tell apart is decided by `exact_dot`, whose order of additions is fixed.
"""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from semdedup.arrays import Array, array_module, block_elements, numkong, scratch, take_rows
from semdedup.dedup.kernels.gpu.compiled import has_kernels
from semdedup.dedup.kernels.gpu.sums import fixed_order_sums

UNIT_ROUNDOFF = 2.0**-24
"""Largest relative error of one rounding to float32."""

_CHUNK_ELEMENTS = 1 << 16  # 512 KiB of float64: the working set of a chunk stays in the second-level cache
_CHUNK_ELEMENTS_ON_GPU = 1 << 25  # 256 MiB


def product_error(d: int) -> float:
    """Bound on the error of a float32 product of two rows of length at most 1 (a little over, from rounding).

    Any order of the d additions, with or without fused multiply-add, errs by at most ``gamma_d · Σ|x_i y_i|`` with
    ``gamma_d = d·u / (1 − d·u)`` (N. J. Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed., 2002,
    section 3.1), and ``Σ|x_i y_i| ≤ |x||y|`` by Cauchy and Schwarz. The factor 1.01 covers rows longer
    than 1 by rounding; the last term covers products below the smallest normal float32.
    """
    gamma = d * UNIT_ROUNDOFF / (1 - d * UNIT_ROUNDOFF)
    return 1.01 * gamma + d * 2.0**-126


def _chunk_rows(xp: ModuleType, dim: int) -> int:
    return max(1, (_CHUNK_ELEMENTS if xp is np else _CHUNK_ELEMENTS_ON_GPU) // max(1, dim))


def _fixed_order_sum(terms: Array) -> Array:
    """Sum the columns of float64 `terms` (m, w) in an order that depends on w alone, the one of `pairwise_sum`.

    NumPy's own reduction of contiguous rows has this order, and is nine times faster than spelling it out.
    """
    return np.add.reduce(terms, axis=1) if isinstance(terms, np.ndarray) else pairwise_sum(terms)


def pairwise_sum(terms: Array) -> Array:
    """Sum the columns of `terms` (m, w) as NumPy sums contiguous values, by element-wise additions only.

    Up to 128 columns: eight running sums, over columns 0, 8, 16, …, then 1, 9, 17, …, added two by two. More columns:
    the halves, cut at a multiple of eight. Additions of float64 round alike on every backend.

    Reference: N. J. Higham, The accuracy of floating point summation, 1993 (pairwise summation).
    """
    width = terms.shape[1]
    if width > 128:
        cut = width // 2 - width // 2 % 8
        return pairwise_sum(terms[:, :cut]) + pairwise_sum(terms[:, cut:])
    whole = width - width % 8
    if whole:
        sums = terms[:, :8].copy()
        for start in range(8, whole, 8):
            sums += terms[:, start : start + 8]
        sums = sums[:, 0::2] + sums[:, 1::2]
        sums = sums[:, 0::2] + sums[:, 1::2]
        total = sums[:, 0] + sums[:, 1]
    else:
        total, whole = terms[:, 0].copy(), 1
    for column in range(whole, width):
        total += terms[:, column]
    return total


def _for_each_pair(
    sums: Callable[[Array, Array], Array], left: Array, right: Array, left_rows: Array | None, right_rows: Array | None
) -> Array:
    """For each pair of rows what ``sums(x, y)`` makes of it, (p,) float64; some pairs at a time."""
    xp = array_module(left)
    dim = left.shape[1]
    n_pairs = len(left) if left_rows is None else len(left_rows)
    result = xp.empty(n_pairs, dtype=np.float64)
    step = _chunk_rows(xp, dim)
    most = min(step, n_pairs)
    every_x = scratch(xp, "x", (most, dim), left.dtype)
    every_y = scratch(xp, "y", (most, dim), right.dtype)
    for start in range(0, n_pairs, step):
        chunk = slice(start, min(start + step, n_pairs))
        size = chunk.stop - start
        x = left[chunk] if left_rows is None else take_rows(left, left_rows[chunk], every_x[:size])
        y = right[chunk] if right_rows is None else take_rows(right, right_rows[chunk], every_y[:size])
        result[chunk] = sums(x, y)
    return result


def exact_dot(left: Array, right: Array, left_rows: Array | None = None, right_rows: Array | None = None) -> Array:
    """Row by row x·y in float64, the same bits for a row however many rows it is computed with, on every backend.

    Products of two float32 are exact in float64; their sum is taken in a fixed order (`pairwise_sum`).

    Args:
        left: (n, d) float32 or float64.
        right: (m, d), likewise.
        left_rows: (p,) rows of `left` to take, instead of all.
        right_rows: (p,) rows of `right` to take, instead of all.

    Returns:
        (p,) float64. Cost: O(p·d) time, a fixed 1 MiB of memory beside the result, on a GPU 512 MiB.
    """
    xp = array_module(left)
    if has_kernels(left):
        return fixed_order_sums(left, right, left_rows, right_rows).value

    def sums(x: Array, y: Array) -> Array:
        terms = scratch(xp, "terms", x.shape, np.float64)
        xp.multiply(x, y, out=terms, dtype=np.float64)
        return _fixed_order_sum(terms)

    return _for_each_pair(sums, left, right, left_rows, right_rows)


def quick_dot(left: Array, right: Array, left_rows: Array | None, right_rows: Array) -> Array:
    """`exact_dot` in any order of additions, (p,) float64, at a third of its cost where NumKong is installed.

    It and `exact_dot` both err by at most `quick_error` for rows of length at most 1, or a little over.
    """
    if array_module(left) is not np or numkong is None:
        return exact_dot(left, right, left_rows, right_rows)
    return _for_each_pair(_numkong_dot, left, right, left_rows, right_rows)


def _numkong_dot(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Row by row x·y of float32 rows, (n,) float64.

    Reference: NumKong's dot products of float32 multiply and add in float64 (its README, "IEEE Precision").
    """
    for rows in (x, y):
        if not (rows.flags.c_contiguous and rows.flags.aligned):  # received rows may be at any address
            return _numkong_dot(*(np.require(rows, requirements=["C", "A"]) for rows in (x, y)))
    return np.asarray(numkong.dot(x, y))


def quick_error(d: int) -> float:
    """Bound on the error of a float64 sum of d products in any order: `product_error` with its unit roundoff."""
    return product_error(d) * 2.0**-29


def dots(x: Array, y: Array) -> Array:
    """`quick_dot` of two arrays of the same shape: (n, d) float32 to (n,) float64."""
    return _numkong_dot(x, y) if array_module(x) is np and numkong is not None else exact_dot(x, y)


def rounded_dot(left: Array, right: Array, left_rows: Array, right_rows: Array, sums: Array | None = None) -> Array:
    """`exact_dot` rounded to float32, (p,), at a quarter of its cost where NumKong is installed; bits are the same.

    Where both ends of the interval in which the sum in the fixed order must lie round to one float32 it is the score;
    elsewhere, about once in a million, the fixed order decides. Rows of length at most 1, or a little over.

    Args:
        left, right, left_rows, right_rows: as of `exact_dot`.
        sums: (p,) float64, their `quick_dot` where it is known.
    """
    if has_kernels(left):
        return exact_dot(left, right, left_rows, right_rows).astype(np.float32)
    if sums is None:
        sums = quick_dot(left, right, left_rows, right_rows)
    margin = 2.02 * quick_error(left.shape[1])
    xp = array_module(left)
    rounded = (sums - margin).astype(np.float32)
    unsure = xp.flatnonzero(rounded != (sums + margin).astype(np.float32))
    if len(unsure):
        rounded[unsure] = exact_dot(left, right, left_rows[unsure], right_rows[unsure]).astype(np.float32)
    return rounded


NEARLY_ONE = np.float32(1 - 2.0**-20)
"""A score from which on two rows may be bit-identical: rounding leaves x·x within 2**-22 of 1."""


def exact_scores(left: Array, right: Array, left_rows: Array, right_rows: Array, sums: Array | None = None) -> Array:
    """The scores of pairs of rows, (p,) float32: `rounded_dot` clipped to [0, 1], and exactly 1 where rows are equal.

    Rounding can leave x·x of a normalised row a little below 1; two copies of it match at every threshold all the same.

    Args:
        left: (n, d) float32 of length 1.
        right: (m, d), likewise.
        left_rows, right_rows: (p,) rows of each to take.
        sums: (p,) float64, the `quick_dot` of these pairs where it is known.

    Cost: O(p·d).
    """
    xp = array_module(left)
    if has_kernels(left):
        found = fixed_order_sums(left, right, left_rows, right_rows)
        scores = found.value.astype(np.float32).clip(0, 1)
        return xp.where(found.equal & (scores >= NEARLY_ONE), np.float32(1), scores)
    scores = rounded_dot(left, right, left_rows, right_rows, sums).clip(0, 1)
    near = xp.flatnonzero(scores >= NEARLY_ONE)
    step = max(1, block_elements(left) // 8 // left.shape[1])
    for start in range(0, len(near), step):
        part = near[start : start + step]
        equal = (left[left_rows[part]] == right[right_rows[part]]).all(axis=1)
        scores[part[equal]] = 1
    return scores


def exact_square_distance(left: Array, right: Array, right_rows: Array) -> Array:
    """Row by row |x − y|² in float64, like `exact_dot`: (n, d) and (m, d) float32 and (n,) rows of `right` to (n,)."""
    xp = array_module(left)
    if has_kernels(left):
        return fixed_order_sums(left, right, None, right_rows, squared=True).value

    def sums(x: Array, y: Array) -> Array:
        terms = scratch(xp, "terms", x.shape, np.float64)
        xp.subtract(x, y, out=terms, dtype=np.float64)
        xp.multiply(terms, terms, out=terms)
        return _fixed_order_sum(terms)

    return _for_each_pair(sums, left, right, None, right_rows)


def square_lengths(rows: Array) -> Array:
    """|x|² of each row, (n, d) to (n,) float64, within ``gamma_d`` of float64 and in any order: to ask, not to keep.

    Infinite or NaN where an element is, and for float64 where a square overflows.
    """
    xp = array_module(rows)
    if xp is np and numkong is not None and rows.dtype == np.float32 and rows.size:
        return _numkong_dot(rows, rows)
    if has_kernels(rows):
        return exact_dot(rows, rows)  # CuPy's einsum makes two copies in float64
    return xp.einsum("ij,ij->i", rows, rows, dtype=np.float64)


def unit_rows(rows: Array, out: Array | None = None) -> Array:
    """L2-normalise rows: (n, d) of any float type to (n, d) float32, into `out` where given.

    The length is taken in float64 and in a fixed order, and each element times its reciprocal is rounded to float32, so
    that a row has the same bits in whatever company and in whatever float type it is normalised. Rows must be finite
    and not zero. A row whose length is a power of two within 2**-23, what rounding leaves, is only divided by that
    power: rows already normalised keep their bits, and multiplying a row by a power of two changes nothing.
    """
    xp = array_module(rows)
    n, dim = rows.shape
    result = xp.empty(rows.shape, dtype=np.float32) if out is None else out
    step = _chunk_rows(xp, dim)
    values = scratch(xp, "x", (min(step, n), dim), np.float64)
    squares = scratch(xp, "terms", (min(step, n), dim), np.float64)
    are_unit = rows.dtype == np.float32  # until some are not: then it is asked no more
    for start in range(0, n, step):
        chunk = rows[start : start + step]
        are_unit = are_unit and bool((xp.abs(square_lengths(chunk) - 1) <= 2.0**-23).all())
        if are_unit:
            result[start : start + step] = chunk  # half of what is allowed below, so that both ways agree
            continue
        x, terms = values[: len(chunk)], squares[: len(chunk)]
        x[...] = chunk
        if chunk.dtype == np.float64:  # squares of narrower types cannot leave the range of float64
            _, exponent = xp.frexp(xp.maximum(x.max(axis=1), -x.min(axis=1)))
            xp.ldexp(x, -exponent[:, None], out=x)  # exact
        xp.multiply(x, x, out=terms)
        length = xp.sqrt(_fixed_order_sum(terms))
        power = xp.ldexp(xp.ones(len(x)), xp.rint(xp.log2(length)).astype(np.int32))
        x *= 1 / xp.where(xp.abs(length - power) <= 2.0**-23 * power, power, length)[:, None]
        result[start : start + step] = x
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
        best: (b,) float32, the largest of its row, or a limit from which on values count as equal.
        error: the most by which a value differs from the true one.

    Returns:
        Rows and columns of the candidates, (p,) int64 each, p ≥ b, ordered by row and column.
    """
    xp = array_module(values)
    threshold = best - np.float32(2.02 * error)  # a little over 2, for the rounding of this line itself
    near = scratch(xp, "near", values.shape, bool)
    xp.greater_equal(values, threshold[:, None], out=near)
    return xp.divmod(xp.flatnonzero(near), values.shape[1])


def _ordered_bits(values: Array) -> Array:
    """Unsigned whole numbers in the order of the values, in scratch memory: uint64 of float64, uint32 of float32.

    The bits of a float that is not negative are in its order already; those of a negative one are in the reverse. None
    is 0, which is less than minus infinity.
    """
    xp = array_module(values)
    unsigned, signed = (np.uint64, np.int64) if values.dtype == np.float64 else (np.uint32, np.int32)
    sign = 8 * values.dtype.itemsize - 1
    bits = xp.add(values, 0, out=scratch(xp, "bits", values.shape, values.dtype)).view(unsigned)  # -0 becomes 0
    flipped = xp.right_shift(bits.view(signed), sign, out=scratch(xp, "flipped", values.shape, signed)).view(unsigned)
    flipped |= unsigned(1 << sign)  # the sign alone, or every bit where the value is negative
    bits ^= flipped
    return bits


def best_per_row(rows: Array, columns: Array, values: Array, n_rows: int) -> tuple[Array, Array]:
    """The largest value of each row among sparse entries, and its column; of equal values the lowest column.

    Values are compared as whole numbers: CuPy's ``maximum.at`` of float64 goes through float32.

    Returns:
        value (n_rows,), minus infinity for a row without entries, and column (n_rows,) int64, the largest int64 there.
    """
    xp = array_module(values)
    bits = _ordered_bits(values)
    largest = xp.zeros(n_rows, dtype=bits.dtype)
    xp.maximum.at(largest, rows, bits)
    none = np.iinfo(np.int64).max
    column = xp.full(n_rows, none, dtype=np.uint64)  # CUDA has no atomic minimum of int64
    xp.minimum.at(column, rows, xp.where(bits == largest[rows], columns, none).astype(np.uint64))
    return _values_of(largest, values.dtype), column.astype(np.int64)


def _values_of(bits: Array, dtype: Any) -> Array:
    """The values whose `_ordered_bits` these are; minus infinity for 0."""
    xp = array_module(bits)
    sign = bits.dtype.type(1 << (8 * bits.dtype.itemsize - 1))
    values = xp.where(bits < sign, ~bits, bits ^ sign).view(dtype)
    return xp.where(bits == 0, dtype.type(-np.inf), values)
