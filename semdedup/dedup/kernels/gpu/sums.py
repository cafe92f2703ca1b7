"""Sums of products of rows in float64 by one kernel, in the order of additions that every backend has."""

from __future__ import annotations

from functools import cache
from types import ModuleType
from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module
from semdedup.dedup.kernels.gpu.compiled import NOTHING, contiguous, launch

THREADS, LANES = 256, 8
"""Threads of a block, and for a pair of rows."""


class Sums(NamedTuple):
    """Of each pair of rows the sum over the columns, (p,) float64, and whether they are equal, (p,) bool."""

    value: Array
    equal: Array


def fixed_order_sums(
    left: Array, right: Array, left_rows: Array | None = None, right_rows: Array | None = None, squared: bool = False
) -> Sums:
    """x·y of pairs of rows, or |x − y|² if `squared`, in the order of additions of `exact.pairwise_sum`.

    Args:
        left: (n, d) float32 or float64, CuPy.
        right: (m, d), likewise.
        left_rows, right_rows: (p,) rows of each to take, instead of all.
        squared: whether differences are summed.

    Cost: one launch, p·d; no memory beside the result.
    """
    xp = array_module(left)
    n_pairs = len(left) if left_rows is None else len(left_rows)
    found = Sums(xp.empty(n_pairs, dtype=np.float64), xp.empty(n_pairs, dtype=bool))
    if not n_pairs:
        return found
    numbers = [NOTHING if rows is None else contiguous(rows, np.int64) for rows in (left_rows, right_rows)]
    x, y = _of_floats(left), _of_floats(right)
    launch(
        xp,
        "fixed_order_sums_" + "".join("d" if rows.dtype == np.float64 else "f" for rows in (x, y)),
        -(-n_pairs * LANES // THREADS),
        THREADS,
        *(x, y, *numbers, np.int64(n_pairs), np.int32(left.shape[1]), *leaves_of(xp, left.shape[1])),
        *(np.int32(squared), found.value, found.equal),
    )
    return found


def _of_floats(rows: Array) -> Array:
    return contiguous(rows, np.float64 if rows.dtype == np.float64 else np.float32)


def leaves_of(xp: ModuleType, width: int) -> tuple[Array, np.int32]:
    """`leaves` on the current device, and how many they are, as arguments of a kernel."""
    return _leaves_on(xp, int(xp.cuda.Device().id), width), np.int32(len(leaves(width)))


@cache
def _leaves_on(xp: ModuleType, device: int, width: int) -> Array:
    return xp.asarray(np.array(leaves(width), dtype=np.int32))


def leaves(width: int) -> list[tuple[int, int]]:
    """How `exact.pairwise_sum` takes a sum apart: the parts that are summed one after the other, in their order.

    Returns:
        Of each part how many columns it has, and how many of the sums before it are added to its own then, last first.

    >>> leaves(300)
    [(72, 0), (72, 1), (72, 0), (84, 2)]
    """
    if width <= 128:
        return [(width, 0)]
    cut = width // 2 - width // 2 % 8
    *parts, (last, additions) = leaves(width - cut)
    return [*leaves(cut), *parts, (last, additions + 1)]
