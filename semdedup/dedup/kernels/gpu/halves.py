"""Rows in half precision, and how far products of them on tensor cores may be from those of the rows themselves."""

from __future__ import annotations

import numpy as np

from semdedup.arrays import Array, array_module, block_elements

COLUMNS = 32
"""Rows are filled up with zeros to a multiple of so many columns."""

SCALE = 2.0**15
"""What rows are multiplied by: their elements end at 1, halves at 65504. Without it those below 2**-14 would have fewer
digits than the others."""


class HalfRows:
    """float32 rows (n, d) of length 1 rounded to halves (float16), CuPy.

    Attributes:
        rows: (n, columns) float16, the rows by `SCALE`; columns beyond d are 0.
        deviation: () float32 on the device, the most by which a row differs from its halves, in Euclidean length.
    """

    def __init__(self, rows: Array) -> None:
        xp = array_module(rows)
        n, dim = rows.shape
        columns = -(-dim // COLUMNS) * COLUMNS
        self.rows = xp.empty((n, columns), dtype=np.float16)
        self.rows[:, dim:] = 0
        square = xp.zeros((), dtype=np.float32)
        step = max(1, block_elements(rows) // 4 // max(1, dim))
        for start in range(0, n, step):
            block = rows[start : start + step]
            halves = self.rows[start : start + step, :dim]
            halves[...] = block * np.float32(SCALE)
            difference = halves.astype(np.float32) * np.float32(1 / SCALE) - block  # exact
            square = xp.maximum(square, xp.einsum("ij,ij->i", difference, difference).max())
        # 1.01 for float32 sums, the rest for squares that vanish
        self.deviation = np.float32(1.01) * xp.sqrt(square) + np.float32(dim * 2.0**-63)

    def __len__(self) -> int:
        return len(self.rows)


def tensor_core_error(dim: int) -> float:
    """Bound on the error of a product of two rows of halves of length at most 1, as tensor cores add it up.

    Products of two halves are exact in float32. Tensor cores add k of them at a time to a sum of before, k = 4 at least
    (4 on Volta, 8 on Ampere, 16 on Hopper): all k + 1 numbers are brought to the exponent of the largest and cut off
    there, by less than ``2**-23`` of it each, and so is their sum where it is put in order, once more. No number is
    larger than ``Σ|x_i y_i|``, which Cauchy and Schwarz bound by 1, but for what errors before have added; 1.01 covers
    that up to d = 40,000. So each step errs by at most ``(k + 2) 2**-23``, there are d / k of them, and k = 4 is the
    worst: ``1.5 d 2**-23``. The additions within a step come in no order that is known, which does not matter here. The
    same holds for sums that are rounded. The measured error is far less, see ``benchmarks/gpu/probes.py``.

    Reference: M. Fasi, N. J. Higham, M. Mikaitis, S. Pranesh, Numerical behavior of NVIDIA tensor cores, PeerJ Computer
    Science 7:e330, 2021.

    >>> tensor_core_error(512) < 1e-4
    True
    """
    padded = -(-dim // COLUMNS) * COLUMNS
    return 1.01 * 1.5 * padded * 2.0**-23 + padded * 2.0**-126


LONGEST = 1 + 2.0**-20
"""Length of the longest row, a little more than rounding leaves."""


def half_error(left: HalfRows, right: HalfRows, dim: int) -> Array:
    """Bound on the difference of a product of halves from the true x·y, for any two rows: () float32 on the device.

    With x' and y' for the rows of halves, ``x·y − x'·y' = (x − x')·y + x'·(y − y')``, which Cauchy and Schwarz bound by
    the deviations, which are measured; `tensor_core_error` is the rest. There is a little on top for what float32
    arithmetic with it loses, and so that two scores that round to the same float32 are never distinguished.
    """
    lengths = LONGEST + left.deviation, LONGEST + right.deviation
    rounding = left.deviation * np.float32(LONGEST) + lengths[0] * right.deviation
    error = np.float32(1.001) * rounding + np.float32(1.001 * tensor_core_error(dim)) * lengths[0] * lengths[1]
    return (np.float32(1.0002) * error + np.float32(2.0**-22)).astype(np.float32)
