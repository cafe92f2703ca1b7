"""The removal rule with witnesses: in rank order a row goes if a better-ranked row that stays matches it.

Arrays in, arrays out, NumPy or CuPy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module, to_host
from semdedup.dedup.kernels.best_match import BATCH, best_match
from semdedup.dedup.kernels.distinct import first_occurrences
from semdedup.dedup.kernels.matches import matching_pairs_within


class Witnesses(NamedTuple):
    """For each row its witness, (n,) int64, -1 for a row that stays, and the score of the two, (n,) float32."""

    witness: np.ndarray
    score: np.ndarray

    @classmethod
    def none(cls, n: int) -> Witnesses:
        """No row has one."""
        return cls(np.full(n, -1, dtype=np.int64), np.zeros(n, dtype=np.float32))


def needs_second_look(score: np.ndarray, match: np.ndarray, least: float | np.float32) -> np.ndarray:
    """Rows whose best match may go itself, (n,) truth: those that reach the threshold and whose match reaches it, too.

    The others are decided: without a better-ranked match a row stays; and one whose best match stays goes for it.

    Args:
        score: (n,) float32, of each row with the most similar better-ranked one.
        match: (n,) int64, the position of that one.
        least: the least score of a match.
    """
    reached = score >= np.float32(least)
    return reached & reached[match]


def first_look(score: np.ndarray, match: np.ndarray, least: float | np.float32) -> tuple[Witnesses, np.ndarray]:
    """What scores alone decide of the rule ``witness``, and the rows that need a second look, (u,) int64 increasing.

    Args:
        score, match, least: as for `needs_second_look`. Of the rows that need it the witness is not known yet: -1.
    """
    again = needs_second_look(score, match, least)
    decided = (score >= np.float32(least)) & ~again
    return Witnesses(np.where(decided, match, -1), np.where(decided, score, np.float32(0))), np.flatnonzero(again)


def removal_in_rank_order(
    rows: Array, score: np.ndarray, match: np.ndarray, least: float | np.float32, batch_size: int = 1024
) -> Witnesses:
    """Which rows of one ranked set go, and for whose sake: the rule ``witness``.

    Rows without a better-ranked match stay. A row whose most similar better-ranked row stays goes for its sake. The
    rest gets a second look: those that match none of the rows known to stay are taken in rank order among themselves.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first.
        score, match: of `best_match.max_similarity` on them.
        least: the least score of a match, above 0.
        batch_size: the most rows that are compared at a time.

    Cost: 2·u·n·d operations for u rows that get a second look; memory a copy of the rows that stay, where u > 0.
    """
    score, match = to_host(score), to_host(match)
    found, again = first_look(score, match, least)
    if not len(again):
        return found
    queries, staying = rows[_on(rows, again)], np.flatnonzero(score < np.float32(least))
    near = best_kept(queries, again, rows[_on(rows, staying)], staying, batch_size)
    open_rows = np.flatnonzero(near.score < np.float32(least))
    kept = open_rows[stays_in_rank_order(queries[_on(rows, open_rows)], least, batch_size)]
    near = better_witness(near, best_kept(queries, again, queries[_on(rows, kept)], again[kept], batch_size))
    return with_second_look(found, again, near, least)


def with_second_look(found: Witnesses, again: np.ndarray, near: Witnesses, least: float | np.float32) -> Witnesses:
    """The `first_look`, completed by the best row that stays of each row that needed a second one, (u,)."""
    goes = near.score >= np.float32(least)
    found.witness[again[goes]] = near.witness[goes]
    found.score[again[goes]] = near.score[goes]
    return found


def best_kept(
    queries: Array, ranks: np.ndarray, kept: Array, kept_ranks: np.ndarray, batch_size: int = 1024
) -> Witnesses:
    """For some rows the most similar better-ranked one of those that stay, by rank; -1 and score 0 for none.

    Args:
        queries: (q, d) float32 of length 1.
        ranks: (q,) int64, increasing.
        kept: (k, d), likewise.
        kept_ranks: (k,) int64, strictly increasing.
        batch_size: the most rows that are compared at a time.
    """
    if not len(ranks) or not len(kept_ranks):
        return Witnesses.none(len(ranks))
    xp = array_module(queries)
    first = first_occurrences(kept)
    candidates, candidate_ranks = kept[first], _on(queries, kept_ranks)[first]
    found = best_match(queries, _on(queries, ranks), candidates, candidate_ranks, batch_size)
    position = to_host(xp.where(found.position < 0, -1, candidate_ranks[found.position]))
    return Witnesses(position, to_host(found.score))


def better_witness(one: Witnesses, other: Witnesses) -> Witnesses:
    """Row by row the higher score; of equal scores the better rank, which is the smaller position."""
    wins = (other.score > one.score) | (
        (other.score == one.score) & (other.witness >= 0) & ((other.witness < one.witness) | (one.witness < 0))
    )
    return Witnesses(np.where(wins, other.witness, one.witness), np.where(wins, other.score, one.score))


def stays_in_rank_order(rows: Array, least: float | np.float32, batch_size: int = 1024) -> np.ndarray:
    """Which rows of one ranked set stay when they are taken in rank order, (n,) truth.

    Block by block: a row that matches one of an earlier block that stays goes; within the block the matches decide.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first.
        least: the least score of a match, above 0.
        batch_size: the most rows that are compared at a time.

    Cost: 2·n·s·d operations where s rows stay; memory: those rows once more, and as bfloat16.
    """
    xp = array_module(rows)
    stays = np.zeros(len(rows), dtype=bool)
    kept, n_kept = xp.empty_like(rows), 0
    for start in range(0, len(rows), BATCH):
        block = rows[start : start + BATCH]
        still = np.ones(len(block), dtype=bool)
        if n_kept:
            before = kept[:n_kept]
            found = best_match(block, xp.full(len(block), len(before)), before, xp.arange(len(before)), batch_size)
            still = to_host(found.score) < np.float32(least)
        open_rows = np.flatnonzero(still)
        chosen = open_rows[_greedy(block[_on(rows, open_rows)], least)]
        stays[start + chosen] = True
        kept[n_kept : n_kept + len(chosen)] = block[_on(rows, chosen)]
        n_kept += len(chosen)
    return stays


def _greedy(rows: Array, least: float | np.float32) -> np.ndarray:
    """`stays_in_rank_order` for few rows: (n,) truth."""
    stays = np.ones(len(rows), dtype=bool)
    matched = np.zeros((len(rows), len(rows)), dtype=bool)
    for pairs in matching_pairs_within(rows, least):
        matched[to_host(pairs.left), to_host(pairs.right)] = True
    for row in np.flatnonzero(matched.any(axis=1)):
        if stays[row]:
            stays[matched[row]] = False
    return stays


def _on(rows: Array, positions: np.ndarray) -> Array:
    """Positions as an array of the module of the rows."""
    return array_module(rows).asarray(positions)
