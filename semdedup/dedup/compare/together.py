"""Scoring many small clusters together: one comparison and one forest for all of them. Arrays in, arrays out."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from semdedup.arrays import Array, array_module, to_host
from semdedup.dedup.kernels.forest import MOST_EDGES, matches_to_gather, thinned
from semdedup.dedup.kernels.many import compare_many, copies_in_each
from semdedup.dedup.kernels.matches import Matches, Pairs


def score_together(
    rows: Sequence[Array], informs: Sequence[np.ndarray | None], least: np.float32, batch_size: int
) -> list[tuple[np.ndarray, np.ndarray, Pairs]] | None:
    """What `scored.score_rows` gives of each of several clusters: the same bits, with few calls for all of them.

    Args:
        rows: of each cluster (n_i, d) float32 of length 1, best-ranked first.
        informs: of each (n_i,) truth, whether its rows can match; None where all of them can.
        least: the least score of a match.
        batch_size: the most rows that are compared at a time.

    Returns:
        Scores (n_i,) float32, matches (n_i,) int64 and forest of each, by position in the cluster. None where they have
        more matches than are worth listing.

    Memory: the rows twice, and a third time where some are equal or cannot match, and 24 bytes for each of at most
    `forest.MOST_EDGES` matches.
    """
    xp = array_module(rows[0])
    sizes = [len(each) for each in rows]
    starts = np.cumsum([0, *sizes])
    together = xp.concatenate(rows)
    use = np.concatenate(
        [np.ones(n, dtype=bool) if each is None else each for n, each in zip(sizes, informs, strict=True)]
    )
    used = np.flatnonzero(use)
    compared = together if len(used) == len(use) else together[xp.asarray(used)]
    edges = np.searchsorted(used, starts)
    copies = copies_in_each(compared, edges)
    most = sum(matches_to_gather(least, n).most for n in np.diff(edges).tolist())
    matches = Matches(least, min(MOST_EDGES, most))
    found = [to_host(each) for each in compare_many(compared, edges, batch_size, matches, copies)]
    pairs = matches.pairs()
    if pairs is None:
        return None
    score, match = np.zeros(len(use), dtype=np.float32), np.arange(len(use))
    score[used], match[used] = found[0], used[found[1]]
    first, same_as = map(to_host, copies)
    forest = _with_copies(thinned([Pairs(*map(to_host, pairs))], len(first)), first, same_as)
    left, right = used[forest.left], used[forest.right]
    cuts = np.searchsorted(left, starts)
    return [
        (
            score[start:stop],
            match[start:stop] - start,
            Pairs(left[a:b] - start, right[a:b] - start, forest.score[a:b]),
        )
        for (start, stop), (a, b) in zip(pairwise(starts.tolist()), pairwise(cuts.tolist()), strict=True)
    ]


def _with_copies(forest: Pairs, first: np.ndarray, same_as: np.ndarray) -> Pairs:
    """The forest of all rows, given that of the rows that come first: each copy hangs on the first row like it."""
    again = np.flatnonzero(same_as != np.arange(len(same_as)))
    left, right = np.append(first[forest.left], same_as[again]), np.append(first[forest.right], again)
    score = np.append(forest.score, np.ones(len(again), dtype=np.float32))
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], score[order])
