"""The threshold itself: which scores make a row a duplicate."""

from __future__ import annotations

import numpy as np

from semdedup.errors import ParameterError

DEFAULT_EPS = 0.1
"""Where nobody chooses: neither the user nor the embedder."""

SCORE = "cosine_sim_score"
"""Column of the scores."""

ROWS_AT_A_TIME = 1 << 18
"""Rows of a table of scores that are held at a time."""


def check_eps(eps: float) -> float:
    """Return eps, or raise a `ParameterError` unless 0 ≤ eps < 1."""
    if isinstance(eps, bool) or not isinstance(eps, (int, float, np.number)) or not 0 <= float(eps) < 1:
        raise ParameterError(
            f"eps must lie in [0, 1), a row is dropped where its score is at least 1 - eps; got {eps!r}"
        )
    return float(eps)


def duplicate_mask(scores: np.ndarray, eps: float) -> np.ndarray:
    """Which rows are duplicates, (n,): a score of at least 1 - eps, compared in float32."""
    return scores >= np.float32(1 - check_eps(eps))
