"""All matches between the rows of some clusters and those of others, most pairs of which are ruled out by bounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np

from semdedup.arrays import Array, array_module, block_elements, scratch, take_rows
from semdedup.dedup.kernels.bounds import margin_error, radius, short_error
from semdedup.dedup.kernels.exact import exact_scores
from semdedup.dedup.kernels.matches import PAIRS_AT_A_TIME, Pairs

SMALL = 1 << 12
"""Pairs of rows of two clusters from which on they are divided once more by their margins."""

PART_CLUSTERS, PART_ROWS = 128, 1 << 16
"""Clusters and rows, but for a larger cluster, whose margins are held at a time: 9 bytes for each pair of the two."""

NANOSECONDS_A_RECTANGLE, NANOSECONDS_A_PAIR = 30_000.0, 0.3
"""What a product costs beside its operations, and a pair beside its product; to choose a plan by, not to rely on."""

OPERATIONS_A_NANOSECOND = 40.0


class Side(NamedTuple):
    """Rows of some clusters, cluster by cluster.

    Attributes:
        rows: (n, d) float32 of length 1.
        short: (n, p) float32, `bounds.short_rows` of them.
        starts: (c + 1,) int64, where the rows of each cluster begin; none is empty.
        centroids: (c, d) float32, any points, the nearer to their rows the better; None where nothing is known.
    """

    rows: Array
    short: Array
    starts: np.ndarray
    centroids: Array | None


def centroids_of(parts: Sequence[np.ndarray], dim: int) -> np.ndarray:
    """The mean of the rows of each part, (n_i, d) float32, summed in float64: (c, d) float32. None may be empty."""
    means = [rows.mean(axis=0, dtype=np.float64).astype(np.float32) for rows in parts]
    return np.stack(means) if means else np.empty((0, dim), dtype=np.float32)


class Join:
    """The matches between two sides.

    Args:
        left, right: the sides. The same one on both: the matches between rows of its different clusters.
        least: the least score of a match, above 0.

    Attributes:
        counts: ``pairs`` of rows of different clusters, ``by_margin`` and ``by_axes`` how many of them each of the two
            bounds left, ``matches``, and ``blocked``, how many of them were multiplied without looking at margins
            because that was cheaper.
    """

    def __init__(self, left: Side, right: Side, least: float | np.float32) -> None:
        self.left, self.right, self.least = left, right, np.float32(least)
        dim, width = left.rows.shape[1], left.short.shape[1]
        self._limit = np.float32(float(least) - short_error(dim, width) - 2.0**-22)
        self.counts: Counter[str] = Counter()

    def pairs(self) -> Iterator[Pairs]:
        """The matches, about `PAIRS_AT_A_TIME` at a time, positions in the rows of each side.

        Memory: the margins of two parts, see `PART_ROWS`, three times; one product; the pairs.
        """
        xp = array_module(self.left.rows)
        held: list[tuple[Array, Array]] = []
        number = 0
        for rows, columns in self._proposed():
            held.append((rows, columns))
            number += len(rows)
            if number >= PAIRS_AT_A_TIME:
                yield self._decide(*(xp.concatenate(part) for part in zip(*held, strict=True)))
                held, number = [], 0
        if held:
            yield self._decide(*(xp.concatenate(part) for part in zip(*held, strict=True)))

    def _decide(self, rows: Array, columns: Array) -> Pairs:
        scores = exact_scores(self.left.rows, self.right.rows, rows, columns)
        reached = scores >= self.least
        self.counts["matches"] += int(reached.sum())
        return Pairs(rows[reached], columns[reached], scores[reached])

    def _proposed(self) -> Iterator[tuple[Array, Array]]:
        """Pairs that may match, (p,) rows of the left and of the right; some clusters of each at a time."""
        within = self.left is self.right
        lefts = list(_parts(self.left))
        rights = lefts if within else list(_parts(self.right))
        for i, (left, start) in enumerate(lefts):
            for right, first in rights[i:] if within else rights:
                for rows, columns in self._of_parts(left, right):
                    yield rows + start, columns + first

    def _of_parts(self, left: Side, right: Side) -> Iterator[tuple[Array, Array]]:
        n, m = len(left.rows), len(right.rows)
        number = (n * n - int((_sizes(left) ** 2).sum())) // 2 if left is right else n * m
        self.counts["pairs"] += number
        plan = self._plan(left, right)
        if plan is None:
            self.counts["blocked"] += number
            self.counts["by_margin"] += number
            yield from self._blocked(left, right)
            return
        for rows, columns in plan:
            self.counts["by_margin"] += len(rows) * len(columns)
            yield from self._near(left, right, rows, columns)

    def _near(
        self, one: Side, other: Side, rows: np.ndarray, columns: np.ndarray
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Where the products of short rows leave a match possible."""
        width = one.short.shape[1]
        most = max(1, block_elements() // max(1, len(columns)))
        right = take_rows(other.short, columns, scratch(np, "right", (len(columns), width), np.float32))
        for start in range(0, len(rows), most):
            part = rows[start : start + most]
            left = take_rows(one.short, part, scratch(np, "left", (len(part), width), np.float32))
            products = scratch(np, "products", (len(part), len(columns)), np.float32)
            np.matmul(left, right.T, out=products)
            if products.max() >= self._limit:
                found, column = np.divmod(np.flatnonzero(products >= self._limit), len(columns))
                self.counts["by_axes"] += len(found)
                yield part[found], columns[column]

    def _blocked(self, left: Side, right: Side) -> Iterator[tuple[Array, Array]]:
        """The same for all rows, tile by tile, without those of the same cluster."""
        xp = array_module(left.rows)
        labels = [xp.asarray(np.repeat(np.arange(len(sizes)), sizes)) for sizes in map(_sizes, (left, right))]
        n, m = len(left.rows), len(right.rows)
        height = 512 if xp is np else 8192
        width = max(1, block_elements(left.rows) // height)
        for start, first in product(range(0, n, height), range(0, m, width)):
            stop, last = min(start + height, n), min(first + width, m)
            if left is right and last <= start:
                continue
            products = scratch(xp, "products", (stop - start, last - first), np.float32)
            xp.matmul(left.short[start:stop], right.short[first:last].T, out=products)
            rows, columns = xp.divmod(xp.flatnonzero(products >= self._limit), last - first)
            rows, columns = rows + start, columns + first
            if left is right:
                other = labels[0][rows] < labels[1][columns]
                rows, columns = rows[other], columns[other]
            self.counts["by_axes"] += len(rows)
            if len(rows):
                yield rows, columns

    def _plan(self, left: Side, right: Side) -> Iterator[tuple[np.ndarray, np.ndarray]] | None:
        """Rectangles of rows that the margins leave, or None where products of all rows are expected to be cheaper."""
        if left.centroids is None or right.centroids is None or array_module(left.rows) is not np:
            return None
        pair = 2 * left.short.shape[1] / OPERATIONS_A_NANOSECOND + NANOSECONDS_A_PAIR
        margins = Margins(left, right, self.least, pair)
        whole = len(left.rows) * len(right.rows) * (0.5 if left is right else 1.0) * pair
        return None if margins.cost >= whole else margins.rectangles()


def _parts(side: Side) -> Iterator[tuple[Side, int]]:
    """A side in parts of few clusters and rows, so that the margins of their rows fit in little memory.

    Where there are no centroids there are no margins, and the side is one part.
    """
    if side.centroids is None:
        yield side, 0
        return
    first, n_clusters = 0, len(side.starts) - 1
    while first < n_clusters:
        last = first + 1
        start = int(side.starts[first])
        while last < n_clusters and last - first < PART_CLUSTERS and side.starts[last + 1] - start <= PART_ROWS:
            last += 1
        stop = int(side.starts[last])
        centroids = None if side.centroids is None else side.centroids[first:last]
        yield (
            Side(side.rows[start:stop], side.short[start:stop], side.starts[first : last + 1] - start, centroids),
            start,
        )
        first = last


def _sizes(side: Side) -> np.ndarray:
    """Rows of each cluster, (c,)."""
    return np.diff(side.starts)


class Margins:
    """Which rows of two clusters can match, by how far they are from the hyperplane between the centroids.

    Args:
        left, right: the sides.
        least: the least score of a match.
        pair: nanoseconds that the product of two short rows takes, about; where that is very much clusters are looked
            at two by two.

    Attributes:
        chosen: (p, 2) int64, the pairs of clusters that are looked at two by two.
        area: pairs of rows of them, in one rectangle each.
        cost: nanoseconds that the products of all rectangles take, about.
    """

    def __init__(self, left: Side, right: Side, least: float | np.float32, pair: float) -> None:
        points = [np.asarray(side.centroids, dtype=np.float64) for side in (left, right)]
        between = np.linalg.norm(points[0][:, None] - points[1], axis=2)
        longest = max(float(np.linalg.norm(each, axis=1).max()) for each in points)
        self._limits = (radius(least) * between + margin_error(left.rows.shape[1], longest)).astype(np.float32)
        left_depths, self._left_least = _depths(left, right)
        right_depths, self._right_least = _depths(right, left)
        possible = self._left_least + self._right_least.T <= self._limits
        if left is right:
            possible = np.triu(possible, 1)
        reach = np.where(possible, self._limits, -np.inf)
        self._starts = right.starts
        self._left = _within(left_depths, left.starts, reach - self._right_least.T)
        together = self._left.counts.sum(axis=0) * _sizes(right) * pair + NANOSECONDS_A_RECTANGLE
        apart = 1.5 * NANOSECONDS_A_RECTANGLE * possible.sum(axis=0)
        self._together = together < apart
        self.cost = float(together[self._together].sum())
        reach[:, self._together] = -np.inf
        self.chosen = np.argwhere(np.isfinite(reach))
        self.area = 0.0
        if len(self.chosen):
            self._right = _within(right_depths, right.starts, (reach - self._left_least).T)
            a, b = self.chosen.T
            self.area = float(self._left.counts[a, b].astype(np.float64) @ self._right.counts[b, a])
            self.cost += 0.5 * self.area * pair + 2 * NANOSECONDS_A_RECTANGLE * len(a)

    def rectangles(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of the left and rows of the right, all pairs of which are to be looked at; every match is in one.

        Where few rows of many clusters are near to a cluster of the right they are paired with the whole of it. Else
        the rows of two clusters make a rectangle, and where they are many two: the half of the left that is nearer to
        the hyperplane with all of the right, and the other half with those of the right that are near to it.
        """
        for b in np.flatnonzero(self._together).tolist():
            rows = self._left.all_of(b)
            if len(rows):
                yield rows, np.arange(self._starts[b], self._starts[b + 1])
        for a, b in self.chosen.tolist():
            rows, depths = self._left.of(a, b)
            columns, other_depths = self._right.of(b, a)
            if len(rows) * len(columns) <= SMALL:
                yield rows, columns
                continue
            limit, least, other_least = self._limits[a, b], self._left_least[a, b], self._right_least[b, a]
            cut = least + (limit - other_least - least) / 2
            near = depths <= cut
            yield rows[near], columns
            other = other_depths <= np.nextafter(limit - cut, np.float32(np.inf))
            if not near.all() and other.any():
                yield rows[~near], columns[other]


class _Rows(NamedTuple):
    """Rows of cluster i that are near to cluster j, for all i and j, one list after the other."""

    counts: np.ndarray
    ends: np.ndarray
    rows: np.ndarray
    depths: np.ndarray

    def all_of(self, j: int) -> np.ndarray:
        """The rows of all clusters that are near to cluster j."""
        return self.rows[int(self.ends[j, 0] - self.counts[0, j]) : int(self.ends[j, -1])]

    def of(self, i: int, j: int) -> tuple[np.ndarray, np.ndarray]:
        """Those of cluster i, and their depths."""
        stop = int(self.ends[j, i])
        part = slice(stop - int(self.counts[i, j]), stop)
        return self.rows[part], self.depths[part]


def _depths(side: Side, other: Side) -> tuple[np.ndarray, np.ndarray]:
    """How much more each row's product with its own centroid is than with another, (other clusters, n) float32, and
    the least of each cluster, (clusters, other clusters)."""
    assert side.centroids is not None
    assert other.centroids is not None
    own = np.empty(len(side.rows), dtype=np.float32)
    for cluster, (start, stop) in enumerate(zip(side.starts[:-1], side.starts[1:], strict=True)):
        own[start:stop] = side.rows[start:stop] @ side.centroids[cluster]
    depths = own - other.centroids @ side.rows.T
    return depths, np.minimum.reduceat(depths, side.starts[:-1], axis=1).T


def _within(depths: np.ndarray, starts: np.ndarray, limits: np.ndarray) -> _Rows:
    """The rows whose depth with regard to cluster j is at most ``limits[i, j]``, i their own cluster."""
    most = np.repeat(limits.T, np.diff(starts), axis=1)
    near = depths <= most
    counts = np.add.reduceat(near, starts[:-1], axis=1, dtype=np.int64)
    _, rows = np.nonzero(near)
    return _Rows(counts.T, counts.cumsum().reshape(counts.shape), rows, depths[near])
