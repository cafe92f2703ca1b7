"""Precision and recall from verdicts on some pairs of each band, with intervals.

Of band h there are N_h pairs; n_h of them were judged, drawn at random, and k_h were the same clip twice. The share of
such pairs in the band, p_h, is estimated by k_h / n_h. At an eps the bands 1 … j go, so that, as in any stratified
sample (W. G. Cochran, Sampling Techniques, 3rd ed. 1977, section 5.3)::

    precision = sum_{h <= j} N_h p_h / sum_{h <= j} N_h          recall = sum_{h <= j} N_h p_h / sum_h N_h p_h

The interval of p_h alone is that of Clopper and Pearson, from the quantiles of Beta(k_h, n_h - k_h + 1) below and of
Beta(k_h + 1, n_h - k_h) above. Both figures rise with the p_h of the bands that go, and recall falls with those of the
others. So the low end is the quantile of the figure where the former are drawn from their lower distributions and
the latter from their upper ones, and the high end the reverse: melded intervals (M. P. Fay, M. A. Proschan and
E. Brittain, Combining one-sample confidence procedures for inference in the two-sample case, Biometrics 71, 2015,
146-156). Of one band that is Clopper and Pearson's interval itself. A band of which all pairs were judged is known; one
of which none was may hold any share, which counts in the intervals, and not in the estimates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

CONFIDENCE = 0.95
N_DRAWS = 10_000
"""Of each distribution, at equal steps of probability, in a random order: sums come out to a thousandth."""


class Share(NamedTuple):
    """An estimate and the ends of its interval; NaN where nothing is known."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Judged:
    """What was judged of each band.

    Attributes:
        sizes: pairs, (h,) int64.
        judged: how many of them were judged, (h,) int64.
        same: how many of those were the same, (h,) int64.
    """

    sizes: np.ndarray
    judged: np.ndarray
    same: np.ndarray

    @property
    def shares(self) -> np.ndarray:
        """The estimated share of the same in each band, (h,); NaN where none was judged."""
        return np.where(self.judged > 0, self.same / np.maximum(1, self.judged), np.nan)

    def first(self, n: int) -> Judged:
        """The same of the first n bands."""
        return Judged(self.sizes[:n], self.judged[:n], self.same[:n])


def precision_and_recall(judged: Judged, n_bands: Sequence[int]) -> list[tuple[Share, Share]]:
    """Precision and recall where the first so many bands go, for each of these numbers.

    Recall is among all bands of `judged`. Each interval holds for its figure with a probability of `CONFIDENCE`; not
    all of them together.
    """
    weights = judged.sizes.astype(np.float64)
    known = np.where(judged.judged > 0, weights, 0.0)
    same = known * np.nan_to_num(judged.shares)
    lower, upper = _draws(judged, lower=True) * weights[:, None], _draws(judged, lower=False) * weights[:, None]
    found = []
    for n in n_bands:
        precision = _share(
            same[:n].sum(), known[:n].sum(), _over(lower[:n].sum(0), weights[:n].sum()),
            _over(upper[:n].sum(0), weights[:n].sum()),
        )  # fmt: skip
        low_kept, high_kept = lower[:n].sum(0), upper[:n].sum(0)
        recall = _share(
            same[:n].sum(), same.sum(), _over(low_kept, low_kept + upper[n:].sum(0)),
            _over(high_kept, high_kept + lower[n:].sum(0)),
        )  # fmt: skip
        found.append((precision, recall))
    return found


def _over(part: np.ndarray, whole: np.ndarray | float) -> np.ndarray:
    """Shares of draws; 0 / 0 is NaN."""
    with np.errstate(invalid="ignore"):
        return np.asarray(part / whole)


def _share(part: float, whole: float, lower: np.ndarray, upper: np.ndarray) -> Share:
    tail = (1 - CONFIDENCE) / 2
    estimate = float(part / whole) if whole else np.nan
    return Share(estimate, _quantile(lower, tail, 0.0), _quantile(upper, 1 - tail, 1.0))


def _quantile(draws: np.ndarray, at: float, otherwise: float) -> float:
    """A quantile; where a share of nothing was drawn it may be any, so that `otherwise` is said."""
    return float(np.quantile(np.where(np.isnan(draws), otherwise, draws), at, method="inverted_cdf"))


def _draws(judged: Judged, lower: bool) -> np.ndarray:
    """The lower or upper distribution of the share in each band, (h, `N_DRAWS`)."""
    from scipy.stats import beta

    rng = np.random.default_rng(0)
    steps = (np.arange(N_DRAWS) + 0.5) / N_DRAWS
    drawn = np.empty((len(judged.sizes), N_DRAWS))
    for row, n_pairs, n, k in zip(drawn, judged.sizes, judged.judged, judged.same, strict=True):
        if n == n_pairs:
            row[:] = k / max(1, n)
        elif lower:
            row[:] = rng.permutation(beta.ppf(steps, k, n - k + 1)) if k else 0.0
        else:
            row[:] = rng.permutation(beta.ppf(steps, k + 1, n - k)) if k < n else 1.0
    return drawn
