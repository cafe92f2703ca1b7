"""The scores of the ranked rows of one cluster, and the forest of their matches. Arrays in, arrays out."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module, to_host
from semdedup.dedup.kernels.best_match import best_match, compare_ranked
from semdedup.dedup.kernels.distinct import first_occurrences, occurrences
from semdedup.dedup.kernels.forest import forest_between, forest_of, matches_to_gather, thinned
from semdedup.dedup.kernels.matches import Pairs


class Limits(NamedTuple):
    """The least score of a match, and the most rows that are compared at a time."""

    least: np.float32
    batch_size: int


class Scored(NamedTuple):
    """What a comparison gives of n ranked rows.

    Attributes:
        score: (n,) float32 with the best match, 0 for a row without one.
        match: (n,) int64, the position of that one; of a row without one itself.
        forest: a maximum spanning forest of the matches, by position.
    """

    score: np.ndarray
    match: np.ndarray
    forest: Pairs


def score_new_rows(rows: Array, low_information: np.ndarray | None, n_base: int, limits: Limits) -> Scored:
    """`score_rows` of all but the first `n_base` rows, which rank better than the others and are candidates only.

    Returns:
        As `score_rows`, of the others; positions are those among all rows, and no edge is between two of the base.
    """
    low = np.zeros(len(rows), dtype=bool) if low_information is None else low_information
    among = score_rows(rows[n_base:], low[n_base:], limits)
    forest = Pairs(among.forest.left + n_base, among.forest.right + n_base, among.forest.score)
    score, match = among.score, among.match + n_base
    theirs, mine = np.flatnonzero(~low[:n_base]), n_base + np.flatnonzero(~low[n_base:])
    if not len(theirs) or not len(mine):
        return Scored(score, match, forest)
    xp = array_module(rows)
    theirs = theirs[to_host(first_occurrences(rows[xp.asarray(theirs)]))]
    first, same_as = map(to_host, occurrences(rows[xp.asarray(mine)]))
    candidates, queries = rows[xp.asarray(theirs)], rows[xp.asarray(mine[first])]
    matches = matches_to_gather(limits.least, len(theirs) + len(first))
    ranks = xp.asarray(mine[first]), xp.asarray(theirs)
    found = best_match(queries, ranks[0], candidates, ranks[1], limits.batch_size, matches)
    place = np.searchsorted(first, same_as)
    best, position = to_host(found.score)[place], to_host(found.position)[place]
    wins = best >= score[mine - n_base]  # of equal scores the base, which ranks better
    score[mine[wins] - n_base], match[mine[wins] - n_base] = best[wins], theirs[position[wins]]
    between = forest_between(candidates, queries, limits.least, matches)
    ends = np.append(theirs, mine[first])
    edges = Pairs(ends[between.left], ends[between.right], between.score)
    return Scored(score, match, thinned([forest, edges], len(rows)))


def score_rows(rows: Array, low_information: np.ndarray | None, limits: Limits) -> Scored:
    """Score the rows of one cluster: `max_similarity`, but rows of low information match nothing and nobody.

    Args:
        rows: (n, d) float32 of length 1, best-ranked first.
        low_information: (n,) truth, or None where every row informs.
        limits: the least score of a match, and the most rows compared at a time.
    """
    informs, compared = informing_rows(rows, low_information)
    copies = occurrences(compared)
    first, same_as = map(to_host, copies)
    distinct = compared if len(first) == len(compared) else compared[copies[0]]
    matches = matches_to_gather(limits.least, len(first))
    found = among_all(len(rows), informs, compare_ranked(compared, limits.batch_size, matches, copies))
    forest = forest_of([distinct], limits.least, matches)
    again = np.flatnonzero(same_as != np.arange(len(same_as)))
    ends = np.append(first[forest.left], same_as[again]), np.append(first[forest.right], again)
    order = np.lexsort(ends[::-1])
    scores = np.append(forest.score, np.ones(len(again), dtype=np.float32))[order]
    left, right = (to_host(informs)[end[order]] for end in ends)
    return Scored(to_host(found[0]), to_host(found[1]), Pairs(left, right, scores))


def best_of_rows(rows: Array, low_information: np.ndarray | None, batch_size: int = 1024) -> tuple[Array, Array]:
    """Score and match of `score_rows` without its forest, as arrays of the kind that the rows are."""
    informs, compared = informing_rows(rows, low_information)
    return among_all(len(rows), informs, compare_ranked(compared, batch_size))


def informing_rows(rows: Array, low_information: np.ndarray | None) -> tuple[Array, Array]:
    """Positions (m,) int64 of the rows that are not of low information, and these rows, (m, d)."""
    xp = array_module(rows)
    informs = xp.arange(len(rows)) if low_information is None else xp.flatnonzero(xp.asarray(~low_information))
    return informs, rows if len(informs) == len(rows) else rows[informs]


def among_all(n: int, informs: Array, found: tuple[Array, Array]) -> tuple[Array, Array]:
    """Scores and matches of some of n rows as those of all: the others have score 0, and themselves as match."""
    xp = array_module(informs)
    score, match = xp.zeros(n, dtype=np.float32), xp.arange(n)
    score[informs], match[informs] = found[0], informs[found[1]]
    return score, match
