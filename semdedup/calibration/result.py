"""What `calibrate` gives: an eps, and precision and recall at each eps that was in question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd
from rich.table import Table

from semdedup.calibration.intervals import Share
from semdedup.dedup.threshold.rule import exact_eps
from semdedup.display import Displayable

SHARES = tuple(f"{share}{end}" for share in ("precision", "recall") for end in ("", "_low", "_high"))


@dataclass(frozen=True, repr=False)
class Calibration(Displayable):
    """An eps that verdicts speak for.

    Attributes:
        eps: the one that is recommended.
        figures: a row for each eps that was in question, rising: ``eps``, ``removed`` (rows whose score reaches it),
            ``precision``, ``recall``, each with the ends of a 95 % interval, ``_low`` and ``_high``, and ``judged``
            (verdicts on the pairs that go). Shares are from 0 to 1; NaN where no pair that goes was judged.
        embedder: whose embeddings were compared; None where the record does not tell, or tells of several.
        judged: verdicts.
        same: how many of them say that the pair is the same.
        least_score: of the bands that were judged: recall is among the pairs whose score is at least this.
        result: where the result is.
        path: where this is stored; empty where it is not.
        scores: what the record calls the commit of the scores; empty where there is none.
    """

    eps: float
    figures: pd.DataFrame
    embedder: str | None
    judged: int
    same: int
    least_score: float
    result: str
    path: str = ""
    scores: str = ""

    @property
    def precision(self) -> Share:
        """Of the pairs that go at `eps`, the share that is the same."""
        return self._share("precision")

    @property
    def recall(self) -> Share:
        """Of the pairs that are the same, the share that goes at `eps`."""
        return self._share("recall")

    def _share(self, name: str) -> Share:
        row = self.figures[self.figures["eps"] == self.eps].iloc[0]
        return Share(*(float(row[f"{name}{end}"]) for end in ("", "_low", "_high")))

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        lines = [
            ("recommended eps", exact_eps(self.eps)),
            ("judged", f"{self.judged:,} pairs: {self.same:,} the same, {self.judged - self.same:,} not"),
            ("embedder", self.embedder or "not known"),
        ]
        lines.append(("recall is of pairs with", f"a score of at least {self.least_score:.4g}"))
        return [*lines, *([("stored in", self.path)] if self.path else [])]

    def table(self) -> Table:
        """The figures as a table for a terminal, with the rest below it."""
        table = Table(title="semdedup", title_justify="left", caption_justify="left")
        for name in self._header:
            table.add_column(name, justify="right")
        for cells, is_best in self._lines():
            table.add_row(*cells, style="bold" if is_best else "")
        table.caption = "\n".join(f"{name}: {value}" for name, value in self.rows())
        return table

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{escape(name)}</th>" for name in self._header)
        body = "".join(
            f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in cells)}</tr>" for cells, _ in self._lines()
        )
        rest = "<br>".join(escape(f"{name}: {value}") for name, value in self.rows())
        return f'<table class="semdedup"><caption>semdedup</caption><tr>{head}</tr>{body}</table><p>{rest}</p>'

    _header = ("", "eps", "rows that go", "judged", "precision (95 %)", "recall (95 %)")

    def _lines(self) -> list[tuple[list[str], bool]]:
        """The cells of each line, and whether it is that of the recommended eps."""
        return [
            (
                [
                    "→" * (row["eps"] == self.eps),
                    f"{row['eps']:.6g}",
                    f"{row['removed']:,}",
                    f"{row['judged']:,}",
                    _percent(row, "precision"),
                    _percent(row, "recall"),
                ],
                bool(row["eps"] == self.eps),
            )
            for row in self.figures.to_dict("records")
        ]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; null for NaN."""
        records = [
            {str(key): None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
            for row in self.figures.to_dict("records")
        ]
        return {
            "eps": self.eps,
            "embedder": self.embedder,
            "precision": dict(zip(Share._fields, self.precision, strict=True)),
            "recall": dict(zip(Share._fields, self.recall, strict=True)),
            "judged": self.judged,
            "same": self.same,
            "least_score": self.least_score,
            "scores": self.scores,
            "figures": records,
        }


def figures_of(
    eps: Sequence[float], removed: Sequence[int], judged: Sequence[int], shares: Sequence[tuple[Share, Share]]
) -> pd.DataFrame:
    """The figures of a `Calibration`."""
    shown = np.array([[*precision, *recall] for precision, recall in shares]).reshape(-1, len(SHARES))
    columns = {"eps": list(map(float, eps)), "removed": list(map(int, removed)), "judged": list(map(int, judged))}
    return pd.DataFrame({**columns, **dict(zip(SHARES, shown.T, strict=True))})


def _percent(row: dict[Any, Any], name: str) -> str:
    share, low, high = (row[f"{name}{end}"] for end in ("", "_low", "_high"))
    return "not known" if np.isnan(share) else f"{share:.0%} ({low:.0%} to {high:.0%})"
