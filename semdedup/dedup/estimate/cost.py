"""What a run costs on these workers, from short pieces of it that were measured on them: plain arithmetic."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import NamedTuple

import numpy as np
import pandas as pd

from semdedup.dedup.estimate.across import Across, across_bytes, across_seconds
from semdedup.dedup.estimate.pieces import Piece


class AcrossTried(NamedTuple):
    """Of the comparison across clusters: its blocks, the length of rows, what bounds left at each eps."""

    blocks: int
    dim: int
    found: Sequence[Across]


@dataclass(frozen=True)
class Expected:
    """What is known of a run before it is run.

    Attributes:
        rows: rows of the input.
        bytes: of its files, and of what the scan writes.
        cluster_rows: (k,) how many rows each cluster is expected to have.
        tasks: tasks of the four steps that go over all rows.
        slots: tasks that the workers run at the same time.
        begun: seconds of the scan and of the fit, which the estimate has done as the run does.
        task_seconds: what a task takes that does nothing, on all workers together.
        duplicates: share of the rows that are duplicates within their cluster, at the largest eps.
        piece: the pieces that were measured, as one.
        across: what is known of the comparison across clusters.
    """

    rows: int
    bytes: tuple[int, int]
    cluster_rows: np.ndarray
    tasks: int
    slots: int
    begun: float
    task_seconds: float
    duplicates: float
    piece: Piece
    across: AcrossTried

    @property
    def squares(self) -> float:
        """The sum of the squares of the sizes of the clusters, which the comparison goes with."""
        return float(np.square(self.cluster_rows).sum())

    def all_rows(self, of_piece: float) -> float:
        """What is so much for the piece is so much for all rows."""
        return of_piece * self.rows / self.piece.rows if self.piece.rows else np.nan


@dataclass(frozen=True)
class Cost:
    """Seconds of a run, and bytes that it reads and writes."""

    seconds: float
    read: float
    written: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.seconds + other.seconds, self.read + other.read, self.written + other.written)


def mean_piece(pieces: Sequence[Piece]) -> Piece:
    """Several pieces as one of average size; those without rows do not count."""
    found = [piece for piece in pieces if piece.rows]
    if not found:
        return Piece()
    names = ("rows", "clusters", "assign", "write", "compare", "pair", "read", "tables")
    means = {name: fmean(getattr(piece, name) for piece in found) for name in names}
    return Piece(**means, bytes=tuple(int(fmean(part)) for part in zip(*(p.bytes for p in found), strict=True)))  # type: ignore[arg-type]


def any_cost(run: Expected) -> Cost:
    """Within clusters, rule ``any``: scan, fit, assignment, shuffle, comparison, threshold."""
    piece = run.piece
    labelled = run.all_rows(piece.assign + piece.write + piece.compare)
    tables = piece.tables * len(run.cluster_rows) / max(1, piece.clusters)
    seconds = run.begun + run.tasks * run.task_seconds + (labelled + piece.pair * run.squares + tables) / run.slots
    shuffled, clusters, scores = map(run.all_rows, piece.bytes)
    source, sampled = run.bytes
    between = sampled + shuffled + clusters + scores
    return Cost(seconds, 2 * source + between, between)


def witness_cost(run: Expected) -> Cost:
    """Rule ``witness``: clusters in which a duplicate resembles a duplicate are read and looked at once more."""
    unsure = run.duplicates**2
    looked_at = float(((1 - (1 - unsure) ** run.cluster_rows) * run.cluster_rows).sum()) / max(1, run.rows)
    again = run.all_rows(run.piece.read) * looked_at + 2 * unsure * run.piece.pair * run.squares
    return any_cost(run) + Cost(again / run.slots, run.all_rows(run.piece.bytes[1]) * looked_at, 0.0)


def components_cost(run: Expected) -> Cost:
    """Rule ``components``: the forest of the comparison is read beside the scores, and is no larger than they are."""
    scores = run.all_rows(run.piece.bytes[2]) * run.duplicates
    tables = run.piece.tables * len(run.cluster_rows) / max(1, run.piece.clusters)
    return any_cost(run) + Cost(tables / run.slots, scores, scores)


def across_cost(run: Expected, found: Across) -> Cost:
    """With `exact_up_to`: blocks of clusters are laid out, and each is compared with each other one."""
    n_blocks, dim, _ = run.across
    seconds = across_seconds(found, run.rows, len(run.cluster_rows), n_blocks, dim)
    read = across_bytes(run.rows, n_blocks, dim, found.eps)
    return any_cost(run) + Cost(seconds / run.slots, read, read / n_blocks)


MODES: Mapping[str, Callable[[Expected], Cost]] = {
    "any": any_cost,
    "witness": witness_cost,
    "components": components_cost,
}
"""The removal rules within clusters, and what a run costs under each."""


def cost_table(run: Expected) -> pd.DataFrame:
    """``mode``, ``seconds``, ``bytes`` (those ``read`` and those ``written``) of each mode."""
    costs = {mode: cost(run) for mode, cost in MODES.items()}
    costs |= {f"exact_up_to={found.eps:.6g}": across_cost(run, found) for found in run.across.found}
    rows = [(mode, cost.seconds, cost.read + cost.written, cost.read, cost.written) for mode, cost in costs.items()]
    return pd.DataFrame(rows, columns=["mode", "seconds", "bytes", "read", "written"])
