"""How many leading coordinates pay where a sample is compared with all rows; `kernels.bounds` says what they bound."""

from __future__ import annotations

import numpy as np

from semdedup.dedup.kernels.bounds import principal_axes, short_error, short_rows

ROWS_TO_TRY = 1024
"""Most rows that the number of coordinates is chosen on; half of them give the axes that the other half is tried on."""

SMALLEST_TRIAL = 64
"""Fewer rows choose nothing: they are compared as they are."""

STEP = 16
"""The numbers of coordinates that are tried are multiples of it."""

DECIDING = 100.0
"""What a pair costs that is not ruled out, in whole products: its exact score instead."""


def choose_axes(rows: np.ndarray, least: float) -> np.ndarray:
    """The axes that make the comparison of rows like these with a threshold cheapest.

    Args:
        rows: (n, d) float32 of length 1, a sample in random order.
        least: the least score of a match.

    Returns:
        (d, p) float32; p is 0 where no number of coordinates rules out enough to pay.

    Cost: O(n·d²) for at most `ROWS_TO_TRY` rows, and once for all.
    """
    n, dim = rows.shape
    if n < SMALLEST_TRIAL or dim <= 2 * STEP:
        return np.empty((dim, 0), dtype=np.float32)
    half = min(n, ROWS_TO_TRY) // 2
    tried = rows[half : 2 * half]
    axes = principal_axes(rows[:half], dim // 2)
    costs = {dim: 1.0}
    for width in range(STEP, dim // 2 + 1, STEP):
        short = short_rows(tried, axes[:, :width])
        survivors = np.mean((short @ short.T)[np.triu_indices(half, 1)] >= least - short_error(dim, width + 1))
        costs[width] = (width + 1) / dim + 2 * width / n + DECIDING * survivors
    best = min(costs, key=lambda width: costs[width])
    return principal_axes(rows, best) if best < dim else np.empty((dim, 0), dtype=np.float32)
