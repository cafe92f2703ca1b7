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
    reached = score >= np.float32(least)
    witness = np.where(reached, match, -1)
    similarity = np.where(reached, score, np.float32(0))
    again = np.flatnonzero(needs_second_look(score, match, least))
    if not len(again):
        return Witnesses(witness, similarity)
    staying = best_kept(rows, again, np.flatnonzero(~reached), batch_size)
    open_rows = again[staying.score < np.float32(least)]
    kept = open_rows[stays_in_rank_order(rows[_on(rows, open_rows)], least, batch_size)]
    found = better_witness(staying, best_kept(rows, again, kept, batch_size))
    witness[again], similarity[again] = found
    witness[kept], similarity[kept] = -1, 0
    return Witnesses(witness, similarity)


def best_kept(rows: Array, asking: np.ndarray, kept: np.ndarray, batch_size: int) -> Witnesses:
    """For rows (q,), increasing, the most similar better-ranked one of those that stay; -1 and score 0 for none."""
    if not len(kept):
        return Witnesses(np.full(len(asking), -1, dtype=np.int64), np.zeros(len(asking), dtype=np.float32))
    xp = array_module(rows)
    candidates = rows[_on(rows, kept)]
    first = first_occurrences(candidates)
    ranks = _on(rows, kept)[first]
    found = best_match(rows[_on(rows, asking)], _on(rows, asking), candidates[first], ranks, batch_size)
    position = to_host(xp.where(found.position < 0, -1, ranks[found.position]))
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

    Cost: 2·n·s·d operations where s rows stay.
    """
    xp = array_module(rows)
    stays = np.zeros(len(rows), dtype=bool)
    kept: list[Array] = []
    for start in range(0, len(rows), BATCH):
        block = rows[start : start + BATCH]
        still = np.ones(len(block), dtype=bool)
        if kept:
            before = xp.concatenate(kept)
            found = best_match(block, xp.full(len(block), len(before)), before, xp.arange(len(before)), batch_size)
            still = to_host(found.score) < np.float32(least)
        open_rows = np.flatnonzero(still)
        chosen = open_rows[_greedy(block[_on(rows, open_rows)], least)]
        stays[start + chosen] = True
        kept.append(block[_on(rows, chosen)])
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
