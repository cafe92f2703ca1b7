"""All matches of one set of rows or between two, and how wide a product finds them best. Arrays in, arrays out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

from semdedup.dedup.kernels.bounds import principal_axes, short_error, short_rows
from semdedup.dedup.kernels.join import Join, Side
from semdedup.dedup.kernels.matches import Pairs, matching_pairs, matching_pairs_within

WIDTHS = (32, 64, 128, 256)
"""Numbers of a short row that are tried, the length of the rest included."""

ROWS_TRIED = 2048
"""Rows of the sample all pairs of which are tried."""

NANOSECONDS_A_PAIR, NANOSECONDS_A_NUMBER, NANOSECONDS_TO_DECIDE = 1.0, 0.024, 0.8
"""What a pair costs in a product, what each number of a row adds, and what deciding it costs for each of d numbers:
measured on one core, with 20,000 sentence embeddings of 384 dimensions. To choose by, not to rely on."""


def choose_width(sample: np.ndarray, least: float | np.float32) -> tuple[int, np.ndarray]:
    """How many numbers of a short row rule out other pairs at the least cost, and the axes that rows are shortened by.

    A narrow product is cheap but leaves more pairs to be decided: how many is tried on a sample.

    Args:
        sample: (s, d) float32 of length 1.
        least: the least score of a match.

    Returns:
        The width, 0 where products of whole rows are cheaper, and (d, width - 1) float32 for `short_rows`, then (d, 0).

    Cost: O(s·d² + d³), and a few products of `ROWS_TRIED` rows.
    """
    dim = sample.shape[1]
    widths = [width for width in WIDTHS if 2 * width <= dim]
    if not widths or not len(sample):
        return 0, np.empty((dim, 0), np.float32)
    axes = principal_axes(sample, widths[-1] - 1)
    tried = sample[:: -(-len(sample) // ROWS_TRIED)]

    def cost(width: int) -> float:
        short, error = (short_rows(tried, axes[:, : width - 1]), short_error(dim, width)) if width else (tried, 0.0)
        left = (np.count_nonzero(short @ short.T >= float(least) - error) - len(tried)) / len(tried) ** 2
        return NANOSECONDS_A_PAIR + NANOSECONDS_A_NUMBER * (width or dim) + NANOSECONDS_TO_DECIDE * dim * left

    width = min([*widths, 0], key=cost)
    return width, axes[:, : max(0, width - 1)]


def every_match(left: Side, right: Side, least: float | np.float32, counts: Counter[str]) -> Iterator[Pairs]:
    """All matches between the rows of two sides; of one side, where both are the same, each pair of its rows once.

    Args:
        left, right: the sides. Short rows that are the rows themselves: products of whole rows.
        least: the least score of a match, above 0.
        counts: what was looked at, and what the bounds left of it, is added to it; see `kernels.join.Join`.

    Yields:
        Pairs, a bounded number at a time; of one side the left position is the smaller one.

    Cost: 2·n·m operations for each number of a short row; less where margins of clusters rule out pairs.
    """
    if left is not right or (left.centroids is not None and len(left.starts) > 2):
        yield from _joined(left, right, least, counts)
    if left is not right:
        return
    for start, stop in pairwise(left.starts.tolist()):
        whole = left.short is left.rows
        rows = left.rows[start:stop]
        each = np.arange(len(rows) + 1)  # each row is a cluster of its own, all pairs of which are wanted
        side = Side(rows, rows if whole else left.short[start:stop], each, None)
        for found in _joined(side, side, least, counts):
            yield Pairs(found.left + start, found.right + start, found.score)


def _joined(left: Side, right: Side, least: float | np.float32, counts: Counter[str]) -> Iterator[Pairs]:
    """What `Join` finds; without bounds to go by, the matches of all rows, by the fastest product that there is."""
    if left.centroids is None and left.short is left.rows:
        n, m = len(left.rows), len(right.rows)
        number = n * (n - 1) // 2 if left is right else n * m
        counts.update(dict.fromkeys(("pairs", "by_margin", "by_axes", "blocked"), number))
        same = left is right
        found = matching_pairs_within(left.rows, least) if same else matching_pairs(left.rows, right.rows, least)
        for pairs in found:
            counts["matches"] += len(pairs.left)
            yield pairs
        return
    join = Join(left, right, least)
    yield from join.pairs()
    counts.update(join.counts)
