"""The threshold itself: which scores make a row a duplicate."""

from __future__ import annotations

from typing import Any, get_args

import numpy as np

from semdedup.errors import ParameterError
from semdedup.settings import Setting
from semdedup.settings.choices import RemovalRule
from semdedup.settings.kinds import choice, number

DEFAULT_EPS = 0.1
"""Where nobody chooses: neither the user nor the embedder."""


EPS = Setting(number(0, 1, open_above=True), DEFAULT_EPS, "Drop rows whose score is at least 1 - eps.", "eps")

REMOVAL = Setting(
    choice(*get_args(RemovalRule)),
    "any",
    "Which rows go: any that matches a better-ranked row; those that match one that stays, the witness; or all but the "
    "best-ranked of each component of matches.",
    "removal",
)


def check_eps(eps: Any) -> float:
    """Return eps, or raise a `ParameterError` unless 0 ≤ eps < 1."""
    return EPS.check(eps)


def check_within(eps: float, exact_up_to: float | None) -> None:
    """Raise a `ParameterError` for an eps beyond the one up to which matches across clusters were found."""
    if exact_up_to is not None and eps > exact_up_to:
        raise ParameterError(
            f"eps {eps:g} is above exact_up_to {exact_up_to:g}: matches across clusters are found up to exact_up_to "
            "only. Choose a smaller eps, or compare anew with a larger exact_up_to (--exact-up-to)."
        )


def least_score(eps: float) -> np.float32:
    """The smallest score that makes a row a duplicate: 1 - eps in float32."""
    return np.float32(1 - check_eps(eps))


def exact_eps(eps: float) -> str:
    """The shortest text of an eps at which the same rows are duplicates, for messages and commands to copy.

    >>> exact_eps(0.10000000149011612), exact_eps(1 - 0.7)
    ('0.1', '0.3')
    """
    texts = (f"{eps:.{digits}g}" for digits in range(6, 17))
    same = (text for text in texts if float(text) < 1 and least_score(float(text)) == least_score(eps))
    return next(same, repr(float(eps)))


def duplicate_mask(scores: np.ndarray, eps: float) -> np.ndarray:
    """Which rows are duplicates, (n,): a score of at least 1 - eps, compared in float32."""
    return scores >= least_score(eps)


def thresholds_reached(scores: np.ndarray, least: np.ndarray) -> np.ndarray:
    """How many of some increasing least scores each score reaches, (n,) int64: `duplicate_mask` for many eps at once.

    A score that is NaN reaches none.
    """
    reached = np.searchsorted(least, scores, side="right")
    reached[np.isnan(scores)] = 0
    return reached


def least_eps(score: np.float32) -> float:
    """The smallest eps at which a score makes a row a duplicate: the reverse of `least_score`."""
    eps = 1.0 - float(score)
    while np.float32(1 - eps) > score:
        eps = float(np.nextafter(eps, 2.0))
    return max(eps, 0.0)
