"""Of a stream of matches what the rules need: the best of each row, and a forest of all."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.dedup.kernels.forest import thinned
from semdedup.dedup.kernels.matches import NO_PAIRS, Pairs
from semdedup.dedup.ranking import RankingStrategy, rank_order

MOST_PAIRS = 1 << 19
"""Matches that are held before they are reduced."""


class Reduced(NamedTuple):
    """What is left of the matches of n rows.

    Attributes:
        best: for each row that has a better-ranked match (on the right) the most similar one (on the left), of equally
            similar ones the best-ranked; in the order of the rows.
        forest: a maximum spanning forest of all matches, the better-ranked row on the left.
    """

    best: Pairs
    forest: Pairs


def reduce_matches(matches: Iterable[Pairs], light: pa.Table, strategy: RankingStrategy) -> Reduced:
    """Reduce matches, in whatever order they come.

    Args:
        matches: pairs of positions of rows, NumPy arrays.
        light: ids of the n rows and what ranks them; only the rows that match are ranked.
        strategy: what ranks.

    Memory: `MOST_PAIRS` matches, those of one piece, and two for each of the n rows.
    """
    found = Reduced(NO_PAIRS, NO_PAIRS)
    held: list[Pairs] = []
    number = 0
    for pairs in matches:
        held.append(pairs)
        number += len(pairs.left)
        if number > MOST_PAIRS:
            found, held, number = _reduce(found, held, light, strategy), [], 0
    return _reduce(found, held, light, strategy) if number else found


def _reduce(before: Reduced, new: list[Pairs], light: pa.Table, strategy: RankingStrategy) -> Reduced:
    best, forest = Pairs.together([before.best, *new]), Pairs.together([before.forest, *new])
    rows = np.unique(np.concatenate([best.left, best.right, forest.left, forest.right]))
    rank = np.empty(len(rows), dtype=np.int64)
    rank[rank_order(light.take(pa.array(rows)), strategy)] = np.arange(len(rows))
    best = _by_rank(best, rows, rank)
    order = np.lexsort((best.left, -best.score, best.right))  # as ranks
    chosen = order[np.append(True, best.right[order][1:] != best.right[order][:-1])]
    row_of = np.empty(len(rows), dtype=np.int64)
    row_of[rank] = rows
    best = Pairs(row_of[best.left[chosen]], row_of[best.right[chosen]], best.score[chosen])
    in_order = np.argsort(best.right)
    forest = thinned([_by_rank(forest, rows, rank)], len(rows))
    return Reduced(
        Pairs(*(part[in_order] for part in best)), Pairs(row_of[forest.left], row_of[forest.right], forest.score)
    )


def _by_rank(pairs: Pairs, rows: np.ndarray, rank: np.ndarray) -> Pairs:
    """The pairs as ranks, the better one on the left."""
    one, other = (rank[np.searchsorted(rows, end)] for end in pairs[:2])
    return Pairs(np.minimum(one, other), np.maximum(one, other), pairs.score)
