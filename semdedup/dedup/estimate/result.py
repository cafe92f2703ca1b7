"""What `estimate` gives: shares with their intervals, and what a run costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from semdedup.dedup.estimate.look import Seen
from semdedup.dedup.threshold.rule import least_score
from semdedup.display import OfInput, format_counts

CONFIDENCE = 0.95


def interval(found: int, asked: int) -> tuple[float, float, float]:
    """A share and its interval by Clopper and Pearson, which holds at least as often as it says; NaN of none.

    >>> share, low, high = interval(0, 10)
    >>> share, low, round(high, 6)
    (0.0, 0.0, 0.308497)

    Reference: C. J. Clopper and E. S. Pearson, The use of confidence or fiducial limits, 1934.
    """
    from scipy.stats import beta

    if not asked:
        return (np.nan,) * 3
    tail = (1 - CONFIDENCE) / 2
    low = float(beta.ppf(tail, found, asked - found + 1)) if found else 0.0
    high = float(beta.ppf(1 - tail, found + 1, asked - found)) if found < asked else 1.0
    return found / asked, low, high


def shares_of(seen: Seen, n_sampled: int, eps: Sequence[float]) -> pd.DataFrame:
    """The shares at each eps, of a sample of which some rows asked and found this."""
    rows = []
    for each in eps:
        duplicate = seen.best >= least_score(each)
        lost = duplicate & (seen.own < least_score(each))
        duplicates = interval(int(duplicate.sum()), n_sampled)
        rows.append((each, *duplicates, *interval(int(lost.sum()), int(duplicate.sum()))))
    names = [f"{share}{end}" for share in ("duplicates", "lost") for end in ("", "_low", "_high")]
    return pd.DataFrame(rows, columns=["eps", *names], dtype=np.float64)


@dataclass(frozen=True, repr=False)
class Estimate(OfInput):
    """What a run would find and cost, before it is run.

    Attributes:
        shares: a row for each `eps`. `duplicates`: share of the rows that can be compared that have a better-ranked
            match anywhere, ranked by the hash of their ids. `lost`: of these, the share whose every such match lies in
            another cluster, so that a run without `exact_up_to` does not see it; NaN where there are none. Each with
            the ends of a 95 % interval (Clopper and Pearson), `_low` and `_high`.
        cost: a row for each `mode` of a run: `seconds` on these workers, and `bytes`, which are those `read` and those
            `written`.
        total: rows of the input.
        quarantined: rows that cannot be compared, by reason; they are in no share.
        sampled: rows that were compared with all others.
        n_clusters: clusters of the run.
        seconds: time that the estimate took.
        skipped_files: faults of files that were left out.
    """

    shares: pd.DataFrame
    cost: pd.DataFrame
    total: int
    quarantined: Mapping[str, int]
    sampled: int
    n_clusters: int
    seconds: float
    skipped_files: tuple[str, ...] = ()

    @property
    def n_quarantined(self) -> int:
        """Rows that cannot be compared."""
        return sum(self.quarantined.values())

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""

        def percent(row: Any, name: str) -> str:
            share, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
            return "none" if np.isnan(share) else f"{share:.2%} ({low:.2%} to {high:.2%})"

        lines = [("rows", f"{self.total:,}")]
        if self.quarantined:
            lines.append(("cannot be compared", format_counts(self.quarantined)))
        lines += self.lines_of_input()
        lines += [("sampled", f"{self.sampled:,}"), ("clusters", f"{self.n_clusters:,}")]
        for _, row in self.shares.iterrows():
            lines.append((f"eps {row['eps']:.6g}: duplicates", percent(row, "duplicates")))
            lines.append(("  of these across clusters only", percent(row, "lost")))
        for _, row in self.cost.iterrows():
            read, written = (f"{row[name] / 1e9:,.2f} GB {name}" for name in ("read", "written"))
            lines.append((f"a run, {row['mode']}", f"about {row['seconds']:,.0f} s, {read}, {written}"))
        return [*lines, ("seconds", f"{self.seconds:.1f}")]

    def to_json(self) -> dict[str, Any]:
        """As JSON values: a list of records for each table; null for NaN."""

        def records(table: pd.DataFrame) -> list[dict[str, Any]]:
            found = table.to_dict(orient="records")
            return [
                {str(k): None if isinstance(v, float) and np.isnan(v) else v for k, v in row.items()} for row in found
            ]

        return {
            "shares": records(self.shares),
            "cost": records(self.cost),
            "total": self.total,
            "quarantined": dict(self.quarantined),
            "sampled": self.sampled,
            "n_clusters": self.n_clusters,
            "seconds": self.seconds,
            "skipped_files": list(self.skipped_files),
            "passed_over": self.passed_over,
        }
