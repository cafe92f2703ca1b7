"""Rows that occur more than once, bit for bit: arrays in, arrays out, NumPy or CuPy."""

from __future__ import annotations

from functools import cache

import numpy as np

from semdedup.arrays import Array, array_module, block_elements

COLUMNS_LOOKED_AT = 8
"""Columns that tell almost all rows apart."""


def first_occurrences(rows: Array) -> Array:
    """Positions of the rows that are not bit-identical to an earlier row, (u,) int64, increasing.

    A few columns are looked at first: where they tell all rows apart nothing more is done. Otherwise whole rows are
    hashed and rows of equal hash compared bit by bit. Cost: O(n·d) at the most.
    """
    xp = array_module(rows)
    n, dim = rows.shape
    everything = xp.arange(n)
    if n < 2:
        return everything
    few = xp.ascontiguousarray(rows[:, :: max(1, dim // COLUMNS_LOOKED_AT)])
    hashes = xp.sort(_hash_rows(few))
    if not (hashes[1:] == hashes[:-1]).any():
        return everything
    _, inverse = xp.unique(_hash_rows(rows), return_inverse=True)
    earliest = xp.full(int(inverse.max()) + 1, n, dtype=np.uint64)  # CUDA has no atomic minimum of int64
    xp.minimum.at(earliest, inverse, everything.astype(np.uint64))
    earliest = earliest.astype(np.int64)
    repeated = xp.flatnonzero(earliest[inverse] != everything)
    bits = rows.view(np.uint32)
    step = max(1, block_elements(rows) // dim)
    distinct = xp.ones(n, dtype=bool)
    for start in range(0, len(repeated), step):
        part = repeated[start : start + step]
        distinct[part] = (bits[part] != bits[earliest[inverse[part]]]).any(axis=1)
    return xp.flatnonzero(distinct)


def _hash_rows(rows: Array) -> Array:
    """A 64-bit multilinear hash of the bits of each row; sums of whole numbers do not depend on their order."""
    xp = array_module(rows)
    n, dim = rows.shape
    factors = xp.asarray(_factors(dim))
    hashes = xp.empty(n, dtype=np.uint64)
    step = max(1, block_elements(rows) // 4 // dim)
    for start in range(0, n, step):
        words = xp.ascontiguousarray(rows[start : start + step]).view(np.uint32).astype(np.uint64)
        words *= factors
        hashes[start : start + step] = words.sum(axis=1, dtype=np.uint64)
    return hashes ^ (hashes >> np.uint64(32))


@cache
def _factors(dim: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, size=dim, dtype=np.uint64) | np.uint64(1)
