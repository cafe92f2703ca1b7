"""Rows that occur more than once, bit for bit: arrays in, arrays out, NumPy or CuPy."""

from __future__ import annotations

from functools import cache

import numpy as np

from semdedup.arrays import Array, array_module, block_elements
from semdedup.dedup.kernels.gpu.compiled import has_kernels
from semdedup.dedup.kernels.gpu.copies import first_alike

COLUMNS_LOOKED_AT = 8
"""Columns that tell almost all rows apart."""

GROUP_FACTOR = np.uint64(0x9E3779B97F4A7C15)
"""What tells hashes of different groups apart: odd, and its multiples differ in all their bits."""


def first_occurrences(rows: Array) -> Array:
    """Positions of the rows that are not bit-identical to an earlier row, (u,) int64, increasing. See `occurrences`."""
    return occurrences(rows)[0]


def occurrences(rows: Array, groups: Array | None = None) -> tuple[Array, Array]:
    """Which rows come first, and for each row the first one that is bit-identical to it.

    A few columns are looked at first: where they tell all rows apart nothing more is done. Of the others whole rows are
    hashed and rows of equal hash compared bit by bit. Cost: O(n·d) at the most.

    Args:
        rows: (n, d) float32.
        groups: (n,) whole numbers; rows of different groups count as different. None: all are of one.

    Returns:
        Positions of the rows that are not bit-identical to an earlier one, (u,) int64, increasing; and for each row the
        position of the first row like it, (n,) int64.
    """
    xp = array_module(rows)
    n, dim = rows.shape
    everything = xp.arange(n)
    if n < 2:
        return everything, everything
    if has_kernels(rows):
        alike = first_alike(rows, groups)
        first = xp.flatnonzero(alike == everything)
        return (everything, everything) if len(first) == n else (first, alike)
    apart = xp.zeros(n, dtype=np.uint64) if groups is None else groups.astype(np.uint64) * GROUP_FACTOR
    few = hash_rows(rows[:, :COLUMNS_LOOKED_AT]) + apart
    in_order = xp.sort(few)
    shared = in_order[1:][in_order[1:] == in_order[:-1]]
    if not len(shared):
        return everything, everything
    place = xp.minimum(xp.searchsorted(shared, few), len(shared) - 1)
    alike = xp.flatnonzero(shared[place] == few)  # at a first look
    _, inverse = xp.unique(hash_rows(rows[alike]) + apart[alike], return_inverse=True)
    earliest = xp.full(int(inverse.max()) + 1, n, dtype=np.uint64)  # CUDA has no atomic minimum of int64
    xp.minimum.at(earliest, inverse, alike.astype(np.uint64))
    like = everything.copy()
    like[alike] = earliest.astype(np.int64)[inverse]
    repeated = xp.flatnonzero(like != everything)
    bits = rows.view(np.uint32)
    step = max(1, block_elements(rows) // dim)
    for start in range(0, len(repeated), step):
        part = repeated[start : start + step]
        differ = (bits[part] != bits[like[part]]).any(axis=1)
        if groups is not None:
            differ |= groups[part] != groups[like[part]]
        like[part[differ]] = part[differ]  # a chance collision of two hashes
    return xp.flatnonzero(like == everything), like


def with_copies(found: tuple[Array, Array], first: Array, same_as: Array) -> tuple[Array, Array]:
    """The best match of all rows, given that of each row which is not bit-identical to a better-ranked one.

    Args:
        found: of those the score (u,) float32 and the position (u,) int64 among them, -1 for none.
        first: (u,) their positions among all, see `occurrences`.
        same_as: (n,) the position of the first row that each is bit-identical to.

    Returns:
        score (n,) float32 and index (n,) int64: of a row without a match its own; of a copy the first row like it, or
        a better-ranked one of the same score.
    """
    xp = array_module(first)
    score, position = found
    index = xp.where(position < 0, first, first[position])
    if len(first) == len(same_as):
        return score, index
    place = xp.searchsorted(first, same_as)  # of the first row that is bit-identical, among those compared
    tie = score[place] == 1  # with a row that ranks better than all copies
    every_index = xp.where(tie, index[place], same_as)
    every_score = xp.ones(len(same_as), dtype=np.float32)
    every_score[first], every_index[first] = score, index
    return every_score, every_index


def equal_pairs(left: Array, right: Array) -> tuple[Array, Array]:
    """For each row of `right` that is equal to one of `left`, the first such position, and its own; (p,) each.

    Args:
        left: (n, d) float32, n ≥ 1.
        right: (m, d) float32.

    Cost: O((n + m)·d).
    """
    xp = array_module(left)
    hashes, wanted = hash_rows(left), hash_rows(right)
    order = xp.argsort(hashes, kind="stable")
    place = xp.minimum(xp.searchsorted(hashes[order], wanted), len(left) - 1)
    position = order[place]
    found = xp.flatnonzero(hashes[position] == wanted)
    same = (left[position[found]] == right[found]).all(axis=1)
    return position[found[same]], found[same]


def hash_rows(rows: Array) -> Array:
    """A 64-bit multilinear hash of the bits of each row; sums of whole numbers do not depend on their order."""
    xp = array_module(rows)
    n, dim = rows.shape
    factors = xp.asarray(_factors(dim))
    hashes = xp.empty(n, dtype=np.uint64)
    step = max(1, block_elements(rows) // 4 // dim)
    for start in range(0, n, step):
        words = xp.ascontiguousarray(rows[start : start + step]).view(np.uint32).astype(np.uint64)
        if xp is np:
            hashes[start : start + step] = words @ factors  # a tenth of the time of the sums
            continue
        words *= factors
        hashes[start : start + step] = words.sum(axis=1, dtype=np.uint64)
    return hashes ^ (hashes >> np.uint64(32))


@cache
def _factors(dim: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 2**64, size=dim, dtype=np.uint64) | np.uint64(1)
