"""Rows in half precision, and how far products of them on tensor cores may be from those of the rows themselves."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module
from semdedup.dedup.kernels.gpu.compiled import contiguous, launch

COLUMNS = 32
"""Rows are filled up with zeros to a multiple of so many columns, as ``STEP`` in ``kernels.cu``."""

SCALE = 2.0**15
"""What rows are multiplied by: their elements end at 1, halves at 65504. Without it those below 2**-14 would be
subnormal halves, of fewer digits than the others; now those below 2**-29 are."""

LONGEST = 1 + 2.0**-20
"""Length of the longest row, a little more than rounding leaves."""

THREADS = 256


class HalfRows(NamedTuple):
    """Rows of length 1 rounded to halves.

    Attributes:
        rows: (n, columns) float16, the rows by `SCALE`; columns beyond d are 0.
        square: (1,) uint32, the bits of a float32: the largest square of the length by which a row differs from its
            halves.
    """

    rows: Array
    square: Array


def depth_of(dim: int) -> int:
    """Columns of the halves of rows of so many columns."""
    return -(-dim // COLUMNS) * COLUMNS


def halve(rows: Array) -> HalfRows:
    """Round rows, (n, d) float32 of length 1, CuPy, to halves. Cost: one launch; memory 2·n·columns bytes."""
    xp = array_module(rows)
    (n, dim), depth = rows.shape, depth_of(rows.shape[1])
    halves = HalfRows(xp.empty((n, depth), dtype=np.float16), xp.zeros(1, dtype=np.uint32))
    if n:
        sizes = np.int64(n), np.int32(dim), np.int32(depth), np.float32(SCALE)
        blocks = -(-n * 32 // THREADS)
        launch(xp, "halve", blocks, THREADS, contiguous(rows, np.float32), *sizes, halves.rows, halves.square)
    return halves


def tensor_core_error(dim: int) -> float:
    """Bound on the error of a product of two rows of halves of length at most 1, as tensor cores add it up.

    A product of two halves is exact in float32. Tensor cores add some of them at a time to the sum of those before, 4
    on Volta, 8 on Ampere, 16 on Hopper: all these numbers are shifted to the exponent of the largest and cut off there,
    nothing is rounded to nearest, and so is their sum as it is normalised. 24 digits at least are kept. So each number
    but the largest loses less than ``2**-23`` of the largest, and the sum as much of itself; neither is larger than
    ``Σ|x_i y_i| ≤ 1`` (Cauchy and Schwarz), but for what errors of before have added, which 1.01 covers up to
    d = 40,000. With j products that are not 0 that makes ``(j + 1) 2**-23`` at most, and ``j + 1 ≤ 2 j``. All together
    there are d products: the error is at most ``2 d 2**-23``. In which order they come, and how many at a time, was
    nowhere asked. It holds all the more where sums are rounded to nearest. The last term covers products below the
    smallest normal float32.

    Reference: M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ Computer
    Science 7:e330, 2021 (products exact, additions cut off, the largest first, normalised at the end).
    ``benchmarks/gpu/probes.py`` measures the error on a card, which is far less.

    >>> tensor_core_error(512) < 1.3e-4
    True
    """
    return 1.01 * 2 * dim * 2.0**-23 + dim * 2.0**-126


def vanished(dim: int) -> float:
    """Bound on the length that squares of differences below the smallest normal float32 take from a deviation."""
    return dim * 2.0**-63


def deviation(square: float, dim: int) -> float:
    """The most by which a row differs from its halves, in Euclidean length, of what `HalfRows.square` holds.

    1.01 covers the rounding of float32 sums.
    """
    return 1.01 * square**0.5 + vanished(dim)


def half_error(left_deviation: float, right_deviation: float, dim: int) -> float:
    """Bound on the difference of a product of halves on tensor cores from the true x·y, for any two rows of length 1.

    With x' and y' for the halves, ``x·y − x'·y' = (x − x')·y + x'·(y − y')``, which Cauchy and Schwarz bound by the
    deviations, which are measured, and the lengths; the product x'·y' itself errs by `tensor_core_error` of its
    lengths. There is a little on top for what float32 arithmetic with it loses, and so that two scores that round to
    the same float32, or two rows that are equal and two that are nearly so, are never distinguished.

    ``kernels.cu`` has the same as ``error_of``, for the deviations stay on the device.
    """
    lengths = LONGEST + left_deviation, LONGEST + right_deviation
    rounding = left_deviation * LONGEST + lengths[0] * right_deviation
    return 1.001 * (rounding + tensor_core_error(dim) * lengths[0] * lengths[1]) + 2.0**-22
