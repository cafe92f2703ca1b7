"""Which rows are bit-identical to an earlier one, by two kernels and a sort."""

from __future__ import annotations

import numpy as np

from semdedup.arrays import Array, array_module
from semdedup.dedup.kernels.gpu.compiled import NOTHING, contiguous, launch

THREADS = 256


def first_alike(rows: Array, groups: Array | None) -> Array:
    """For each row the first one that is bit-identical to it, and of its group.

    Args:
        rows: (n, d) float32, CuPy, n ≥ 1.
        groups: (n,) whole numbers, or None.

    Returns:
        (n,) int64. Cost: O(n·d), three launches besides the sort; the host waits for nothing.
    """
    xp = array_module(rows)
    n, dim = rows.shape
    sizes = np.int64(n), np.int32(dim)
    bits = contiguous(rows, np.float32), NOTHING if groups is None else contiguous(groups, np.int64)
    blocks = -(-n * 32 // THREADS)
    hashes, found = xp.empty(n, dtype=np.uint64), xp.empty(n, dtype=np.int64)
    launch(xp, "hash_rows", blocks, THREADS, *bits, *sizes, hashes)
    order = xp.argsort(hashes, kind="stable")
    launch(xp, "first_alike", blocks, THREADS, *bits, *sizes, contiguous(order, np.int64), hashes[order], found)
    return found
