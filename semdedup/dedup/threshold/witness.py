"""The rule `witness`: rows go in rank order, each for the sake of a better-ranked row that stays.

Arrays in, arrays out; no Dask and no storage. Rows without a match stay. A row whose best match is one of those goes for
it. Only the others, whose best match may go itself, get a second look with the vectors: at the rows that stay without a
match, and among themselves. They are few in real data.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module, to_host
from semdedup.dedup.kernels.best_match import best_match
from semdedup.dedup.kernels.distinct import first_occurrences
from semdedup.dedup.kernels.exact import rounded_dot

BLOCK = 256
"""Rows that are settled together: all pairs of them are decided, and no more are held."""


class Removal(NamedTuple):
    """For each row of a ranked set the rank of its witness, (n,) int64, -1 for rows that stay, and their similarity,
    (n,) float32, 0 there."""

    witness: np.ndarray
    score: np.ndarray

    @classmethod
    def none(cls, n: int) -> Removal:
        """Every row stays."""
        return cls(np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.float32))


def first_look(score: np.ndarray, match: np.ndarray, least: np.float32) -> tuple[Removal, np.ndarray]:
    """What the scores alone decide.

    Args:
        score: (n,) float32, of rows in rank order.
        match: (n,) int64, the rank of the best better-ranked match of each.
        least: the smallest similarity of a match.

    Returns:
        The removal as far as it is known, and the ranks of the rows that need a second look, (u,) int64.
    """
    reaches = score >= least
    certain = reaches & ~reaches[match]
    found = Removal(np.where(certain, match, -1), np.where(certain, score, np.float32(0)))
    return found, np.flatnonzero(reaches & ~certain)


def nearest_among(queries: Array, ranks: np.ndarray, rows: Array, row_ranks: np.ndarray, batch_size: int) -> Removal:
    """For each query its most similar row among those that rank better, ties to the best-ranked.

    Args:
        queries: (q, d) float32 of length 1, NumPy or CuPy.
        ranks: (q,) int64, increasing.
        rows: (c, d) float32, likewise.
        row_ranks: (c,) int64, strictly increasing.
        batch_size: most queries in one product.

    Cost: 2·q·c·d operations at most (`best_match`).
    """
    if not len(ranks) or not len(row_ranks):
        return Removal.none(len(ranks))
    xp = array_module(queries)
    first = first_occurrences(rows)
    candidates = rows if len(first) == len(rows) else rows[first]
    row_ranks = row_ranks[to_host(first)]
    found = best_match(queries, xp.asarray(ranks), candidates, xp.asarray(row_ranks), batch_size)
    position = to_host(found.position)
    return Removal(np.where(position < 0, -1, row_ranks[position]), to_host(found.score))


def better_of(one: Removal, other: Removal) -> Removal:
    """Row by row the higher similarity; of equal ones the better-ranked witness."""
    wins = (other.witness >= 0) & (
        (one.witness < 0) | (other.score > one.score) | ((other.score == one.score) & (other.witness < one.witness))
    )
    return Removal(np.where(wins, other.witness, one.witness), np.where(wins, other.score, one.score))


def staying(rows: Array, least: np.float32, batch_size: int) -> np.ndarray:
    """Which of some rows stay if each goes that matches a better-ranked one that stays, (n,) truth.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first.
        least: the smallest similarity of a match.
        batch_size: most queries in one product.

    Cost: 2·n·k·d operations, k the rows that stay; memory of those once more, and of the pairs of `BLOCK` rows.
    """
    xp = array_module(rows)
    stays = np.ones(len(rows), dtype=bool)
    for start in range(0, len(rows), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(rows)))
        before = np.flatnonzero(stays[:start])
        near = nearest_among(rows[block[0] : block[-1] + 1], block, rows[xp.asarray(before)], before, batch_size)
        stays[block[(near.witness >= 0) & (near.score >= least)]] = False
        left = block[stays[block]]
        better, worse = np.triu_indices(len(left), 1)
        similar = rounded_dot(rows, rows, xp.asarray(left[better]), xp.asarray(left[worse]))
        matches = to_host(similar) >= least
        for i in np.unique(better[matches]):
            if stays[left[i]]:
                stays[left[worse[matches & (better == i)]]] = False
    return stays


def removal_in_rank_order(
    rows: Array,
    score: np.ndarray,
    match: np.ndarray,
    least: np.float32,
    informs: np.ndarray | None = None,
    batch_size: int = 1024,
) -> Removal:
    """The rule for one ranked set that is held whole.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first, NumPy or CuPy.
        score, match, least: as for `first_look`.
        informs: (n,) truth: the others are of low information and nobody's witness; None: all inform.
        batch_size: most queries in one product.

    Cost: 2·u·n·d operations at most for u rows that need a second look.
    """
    found, unsure = first_look(score, match, least)
    if not len(unsure):
        return found
    xp = array_module(rows)
    alone = score < least if informs is None else (score < least) & informs
    queries, candidates = rows[xp.asarray(unsure)], np.flatnonzero(alone)
    near = nearest_among(queries, unsure, rows[xp.asarray(candidates)], candidates, batch_size)
    rest = np.flatnonzero((near.witness < 0) | (near.score < least))
    stays = rest[staying(queries[xp.asarray(rest)], least, batch_size)]
    again = nearest_among(queries, unsure, queries[xp.asarray(stays)], unsure[stays], batch_size)
    return with_second_look(found, unsure, better_of(near, again), least)


def with_second_look(found: Removal, unsure: np.ndarray, near: Removal, least: np.float32) -> Removal:
    """The first look, completed by the nearest row that stays of each row that needed a second one, (u,)."""
    goes = (near.witness >= 0) & (near.score >= least)
    found.witness[unsure[goes]] = near.witness[goes]
    found.score[unsure[goes]] = near.score[goes]
    return found
