"""What is known of single rows of a result: pairs, groups of duplicates, and why a row is kept or dropped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
import pandas as pd

from semdedup.dedup.names import SCORE
from semdedup.settings import Setting
from semdedup.settings.kinds import whole

Id = str | int
"""An id: text, or a whole number."""

MOST_PAIRS = Setting(whole(0), 10, "The most pairs.", "n")


@dataclass(frozen=True)
class Pair:
    """A row and the row that its score is about: the most similar better-ranked one of its cluster, or of a set A."""

    id: Id
    max_id: Id
    score: float
    cluster: int

    def __str__(self) -> str:
        return f"{self.id} is most like {self.max_id}: score {self.score:.6f}, cluster {self.cluster}"

    def _repr_html_(self) -> str:
        return _table(("id", "max_id", "score", "cluster"), [(self.id, self.max_id, self.score, self.cluster)])


def table_of(pairs: Sequence[Pair]) -> pd.DataFrame:
    """``id``, ``max_id``, ``cosine_sim_score`` (float32) of pairs, most similar first."""
    ordered = sorted(pairs, key=lambda pair: -pair.score)
    columns = {"id": [pair.id for pair in ordered], "max_id": [pair.max_id for pair in ordered]}
    return pd.DataFrame({**columns, SCORE: np.array([pair.score for pair in ordered], dtype=np.float32)})


MOST_SHOWN = 10
"""Duplicates of a group that are shown."""


@dataclass(frozen=True, repr=False)
class Group:
    """A row that is kept, and the duplicates that go for its sake.

    Attributes:
        kept: the row that stays, the witness of all others.
        dropped: a `Pair` for each duplicate; its `max_id` is the kept row, or another duplicate nearer to it.
        cluster: where they lie.
    """

    kept: Id
    dropped: tuple[Pair, ...]
    cluster: int

    def __repr__(self) -> str:
        pairs = ", ".join(map(repr, self.dropped[:MOST_SHOWN]))
        more = f", … {len(self.dropped) - MOST_SHOWN:,} more" * (len(self.dropped) > MOST_SHOWN)
        return f"Group(kept={self.kept!r}, dropped=({pairs}{more}), cluster={self.cluster})"

    def __str__(self) -> str:
        lines = [f"{self.kept} stays, {len(self.dropped):,} go; cluster {self.cluster}"]
        lines += [f"  {pair.id}: score {pair.score:.6f}" for pair in self.dropped[:MOST_SHOWN]]
        return "\n".join([*lines, *self._more()])

    def _repr_html_(self) -> str:
        rows = [
            (f"{self.kept} stays", "", ""),
            *((pair.id, pair.max_id, pair.score) for pair in self.dropped[:MOST_SHOWN]),
        ]
        return _table(("id", "max_id", "score"), [*rows, *((line, "", "") for line in self._more())])

    def _more(self) -> list[str]:
        n = len(self.dropped) - MOST_SHOWN
        return [f"… and {n:,} more"] if n > 0 else []


@dataclass(frozen=True)
class Explanation:
    """Why a row is kept or dropped.

    Attributes:
        pair: the row, the better-ranked row most like it, their score and cluster.
        duplicate: whether the row goes; None where there is no eps.
        metadata: columns of the row's clip beside its embedding, where the clusters are there.
        max_metadata: the same of the other clip: the witness, where there is one.
        witness: the row, the kept row for whose sake it goes, and their similarity; None where it stays, and under the
            rule ``any``, which looks at the score alone.
    """

    pair: Pair
    duplicate: bool | None
    metadata: Mapping[str, Any]
    max_metadata: Mapping[str, Any]
    witness: Pair | None = None

    def __str__(self) -> str:
        pair = self.pair
        if (
            pair.id == pair.max_id and pair.score == 0 and self.witness is None
        ):  # the same id may be in two sets that were compared
            return f"{pair.id} is kept: it ranks best of cluster {pair.cluster}, or is compared with nothing"
        verdict = {True: "is a duplicate of", False: "is kept; most like it is", None: "is most like"}[self.duplicate]
        lines = [f"{pair.id} {verdict} {pair.max_id}: score {pair.score:.6f}, cluster {pair.cluster}"]
        if self.witness is not None:
            kept = f"{self.witness.max_id}, which stays: similarity {self.witness.score:.6f}"
            lines = [f"{pair.id} goes for the sake of {kept}, cluster {pair.cluster}"]
            if pair.max_id != self.witness.max_id:
                lines.append(f"  most like it is {pair.max_id}: score {pair.score:.6f}")
        names = list(dict.fromkeys([*self.metadata, *self.max_metadata]))
        lines += [f"  {name}: {self.metadata.get(name)} | {self.max_metadata.get(name)}" for name in names]
        return "\n".join(lines)


def _table(names: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Rows of values as a table of HTML; a score with six digits."""
    cells = ([f"{value:.6f}" if isinstance(value, float) else escape(str(value)) for value in row] for row in rows)
    body = "".join(f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>" for row in cells)
    return f'<table class="semdedup"><tr>{"".join(f"<th>{name}</th>" for name in names)}</tr>{body}</table>'
