"""Connected components of matches at every threshold, from one small table: a maximum spanning forest of the pairs.

At any threshold the edges of the forest that reach it connect the same rows as all pairs that reach it do, and there
are at most n − 1 of them. Forests of parts merge: the forest of their edges together is one of the union.

Reference: R. E. Tarjan, Data structures and network algorithms, 1983, chapter 6 (minimum spanning trees).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from semdedup.arrays import Array, array_module, scratch, to_host
from semdedup.dedup.kernels.bounds import LONGEST
from semdedup.dedup.kernels.distinct import equal_pairs
from semdedup.dedup.kernels.exact import exact_dot, exact_scores, quick_error
from semdedup.dedup.kernels.matches import Matches, Pairs, matching_pairs
from semdedup.dedup.kernels.products import SinglePrecision, products_error

GROUP = 512
"""Rows whose products with those of another group are held at a time."""

SAMPLED = 256
"""Rows of a sample whose forest tells of most pairs that they are in none."""

CROWDED = 16
"""Where more than one in so many pairs is left by products in float32, products in float64 decide."""

MATCHES_A_ROW = 16
"""Matches a row, on average, that are gathered before the forest is sought in a way that does not list them."""

FEW_EDGES = 64
"""Edges whose spanning forest is found without SciPy."""

MOST_EDGES = 1 << 18
"""Edges that are gathered before the forest thins them out."""


def spanning_forest(a: np.ndarray, b: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:
    """Positions of the edges of a maximum spanning forest, (e,) int64, increasing.

    Of edges of equal score those of smaller ends come first, so that there is one such forest only, and forests of
    parts merge to that of the whole, in whatever order.

    Args:
        a, b: (p,) the ends of each edge, in [0, n), different from each other. An edge may be there twice.
        score: (p,) in [0, 1].
        n: number of vertices.

    Cost: O(p log p).
    """
    if len(a) <= FEW_EDGES:
        return _spanning_forest_of_few(a.tolist(), b.tolist(), np.asarray(score).tolist())
    from scipy.sparse.csgraph import minimum_spanning_tree

    low, high = np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64)
    keys = low * n + high
    order = np.lexsort((-np.asarray(score, dtype=np.float64), keys))
    chosen = order[np.append(True, keys[order][1:] != keys[order][:-1])]  # of an edge that is there twice, the best
    ends, places = np.unique(np.concatenate([low[chosen], high[chosen]]), return_inverse=True)
    left, right = places[: len(chosen)], places[len(chosen) :]
    weights = np.empty(len(chosen), dtype=np.float64)  # places in the order; 0 would be no edge
    weights[np.argsort(-score[chosen], kind="stable")] = np.arange(1, len(chosen) + 1)
    tree = minimum_spanning_tree(_graph(left, right, len(ends), weights)).tocoo()
    found = ends[np.minimum(tree.row, tree.col)] * n + ends[np.maximum(tree.row, tree.col)]
    return np.sort(chosen[np.searchsorted(keys[chosen], found)])


def _spanning_forest_of_few(a: list[int], b: list[int], score: list[float]) -> np.ndarray:
    """The same by Kruskal's algorithm, where a call of SciPy takes longer than the work: 1 ms."""
    parent: dict[int, int] = {}

    def root(vertex: int) -> int:
        while (above := parent.get(vertex, vertex)) != vertex:
            parent[vertex] = vertex = parent.get(above, above)
        return vertex

    chosen = []
    for edge in sorted(range(len(a)), key=lambda i: (-score[i], min(a[i], b[i]), max(a[i], b[i]))):
        one, other = root(a[edge]), root(b[edge])
        if one != other:
            parent[one] = other
            chosen.append(edge)
    return np.sort(np.array(chosen, dtype=np.int64))


def components(a: np.ndarray, b: np.ndarray, n: int) -> np.ndarray:
    """The connected component of each of n vertices, (n,) int32, from edges (p,) in [0, n). Cost: O(n + p)."""
    from scipy.sparse.csgraph import connected_components

    return connected_components(_graph(a, b, n), directed=False)[1]


def _graph(a: np.ndarray, b: np.ndarray, n: int, weights: np.ndarray | None = None) -> Any:
    """A graph of n vertices as `scipy.sparse.csgraph` takes it; SciPy 1.14 knows vertices of 32 bits only."""
    from scipy.sparse import coo_array

    values = np.ones(len(a), dtype=np.int8) if weights is None else weights
    return coo_array((values, (a.astype(np.int32), b.astype(np.int32))), shape=(n, n)).tocsr()


def matches_to_gather(least: float | np.float32, n: int) -> Matches:
    """To be given to a comparison of n rows: as many of its matches as are worth listing."""
    return Matches(least, MATCHES_A_ROW * n + (1 << 12))


def forest_of(parts: Sequence[Array], least: float | np.float32, gathered: Matches) -> Pairs:
    """A maximum spanning forest of the matches among rows, from those that their comparison gathered, or anew.

    Args:
        parts: arrays (n_i, d) float32 of length 1; the rows of one array are pairwise different.
        least: the least score of a match.
        gathered: the matches, at positions in all rows together.

    Returns:
        The edges, the smaller position on the left; NumPy arrays.

    Cost: O(p log p) of p matches; where too many were found to be listed, n²·d operations more.
    """
    n = sum(map(len, parts))
    pairs = gathered.pairs()
    found = _dense_forest(parts, least) if pairs is None else Pairs(*map(to_host, pairs))
    return thinned([found], n)


def forest_between(left: Array, right: Array, least: float | np.float32, gathered: Matches) -> Pairs:
    """Edges that hold a maximum spanning forest of the matches of a row of `left` and one of `right`, and no others.

    Args:
        left: (n, d) float32 of length 1.
        right: (m, d), likewise.
        least: the least score of a match.
        gathered: the matches that a comparison of `right` with the candidates `left` came by.

    Returns:
        The edges, positions of `right` counted on from those of `left`; NumPy arrays. They are `thinned` only where
        they are many: the caller has more of them.

    Cost: O(p log p) of p matches, which are sought again, piece by piece, where they were too many to be listed.
    """
    n = len(left) + len(right)
    pairs = gathered.pairs()
    edges: list[Pairs] = []
    for piece in matching_pairs(left, right, least) if pairs is None else [pairs]:
        start, stop, score = map(to_host, piece)
        edges.append(Pairs(start, stop + len(left), score))
        if sum(len(found.left) for found in edges) > MOST_EDGES:
            edges = [thinned(edges, n)]
    return Pairs.together(edges)


def thinned(edges: Sequence[Pairs], n: int) -> Pairs:
    """A maximum spanning forest of these edges of n vertices, smaller ends on the left, in the order of these."""
    together = Pairs.together(edges)
    chosen = spanning_forest(together.left, together.right, together.score, n)
    ends = together.left[chosen], together.right[chosen]
    left, right = np.minimum(*ends), np.maximum(*ends)
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], together.score[chosen][order])


def _dense_forest(parts: Sequence[Array], least: float | np.float32) -> Pairs:
    """The forest of rows most of which match each other, whose matches are too many to list.

    A sample of the rows, connected by Prim's algorithm, and an edge from each other row to the nearest of the sample
    make a forest of all rows. In it, the least score on the path between two rows is at least the smaller of the least
    scores on the paths from each of the two to a third, the *hub*. A pair whose score does not exceed that is in no
    maximum spanning forest, and nearly all are like that: only the others are decided.

    Reference: D. R. Karger, P. N. Klein and R. E. Tarjan, A randomized linear-time algorithm to find minimum spanning
    trees, 1995 (edges that are heavy with regard to the forest of a sample).
    """
    groups = [part[start : start + GROUP] for part in parts for start in range(0, len(part), GROUP)]
    starts = np.cumsum([0, *map(len, groups)])
    n = int(starts[-1])
    edges = [thinned([_sample_forest(groups, starts, least)], n)]
    label, level = _levels_to_hub(edges[0], n)
    for first, second in ((i, j) for i in range(len(groups)) for j in range(i, len(groups))):
        spans = [slice(starts[i], starts[i + 1]) for i in (first, second)]
        known = [(label[span], level[span]) for span in spans]
        edges.append(_needed(groups[first], groups[second], known, np.float32(least)))
        edges[-1] = Pairs(edges[-1].left + spans[0].start, edges[-1].right + spans[1].start, edges[-1].score)
        if sum(len(found.left) for found in edges[1:]) > MOST_EDGES:
            edges = [thinned(edges, n)]
            label, level = _levels_to_hub(edges[0], n)
    return thinned(edges, n)


def _sample_forest(groups: Sequence[Array], starts: np.ndarray, least: float | np.float32) -> Pairs:
    """A forest of all rows: of a sample by its products, and of each other row the nearest of the sample."""
    xp, n = array_module(groups[0]), int(starts[-1])
    chosen = np.arange(0, n, max(1, n // SAMPLED))
    places = np.searchsorted(starts, chosen, side="right") - 1
    sample = xp.concatenate([groups[g][xp.asarray(chosen[places == g] - starts[g])] for g in np.unique(places)])
    left, right, score = [], [], []
    for number, group in enumerate(groups):
        nearest = (sample @ group.T).argmax(axis=0)
        left.append(chosen[to_host(nearest)])
        right.append(np.arange(starts[number], starts[number + 1]))
        score.append(to_host(exact_scores(sample, group, nearest, xp.arange(len(group)))))
    tree = _prim(to_host(sample @ sample.T))
    left.append(chosen[tree[0]])
    right.append(chosen[tree[1]])
    score.append(to_host(exact_scores(sample, sample, *map(xp.asarray, tree))))
    found = Pairs(*map(np.concatenate, (left, right, score)))
    usable = (found.score >= np.float32(least)) & (found.left != found.right)
    return Pairs(*(part[usable] for part in found))


def _scores_between(left: Array, right: Array) -> np.ndarray:
    """The scores of all pairs of rows, (n, m) float32, exact, from float64 products."""
    xp = array_module(left)
    products = left.astype(np.float64) @ right.astype(np.float64).T
    margin = 1.01 * quick_error(left.shape[1])
    scores = (products - margin).clip(0, 1).astype(np.float32)
    unsure = xp.flatnonzero(scores != (products + margin).clip(0, 1).astype(np.float32))
    for start in range(0, len(unsure), 1 << 16):
        part = unsure[start : start + (1 << 16)]
        exact = exact_dot(left, right, *xp.divmod(part, len(right)))
        scores.reshape(-1)[part] = exact.clip(0, 1).astype(np.float32)
    first, second = equal_pairs(left, right)
    scores[first, second] = 1
    if left is right:
        scores[second, first] = 1
    return to_host(scores)


def _prim(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ends of the edges of a maximum spanning tree of rows by all their scores (n, n), (n − 1,) int64 each.

    Reference: R. C. Prim, Shortest connection networks and some generalizations, 1957.
    """
    n = len(scores)
    best, parent = scores[0].copy(), np.zeros(n, dtype=np.int64)
    best[0] = -np.inf
    outside = np.ones(n, dtype=bool)
    outside[0] = False
    child = np.empty(n - 1, dtype=np.int64)
    for step in range(n - 1):
        nearest = int(best.argmax())
        child[step] = nearest
        outside[nearest] = False
        closer = scores[nearest] > best
        closer &= outside
        np.copyto(best, scores[nearest], where=closer)
        parent[closer] = nearest
        best[nearest] = -np.inf
    return parent[child], child


def _levels_to_hub(forest: Pairs, n: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of n rows its component, and the least score on the path to the hub of that component, (n,) each.

    The hub is a row of the largest part that the better half of the edges connects: most rows are well connected to it.
    """
    from scipy.sparse.csgraph import breadth_first_order

    label = components(forest.left, forest.right, n)
    good = forest.score >= np.median(forest.score) if len(forest.score) else np.empty(0, bool)
    cores = components(forest.left[good], forest.right[good], n)
    by_size = np.argsort(np.bincount(cores)[cores], kind="stable")
    hubs = np.empty(label.max() + 1, dtype=np.int64)
    hubs[label[by_size]] = by_size  # the last one written is of the largest core
    # one more vertex, from which the hubs are reached, makes a tree of the forest
    a, b = np.append(forest.left, hubs), np.append(forest.right, np.full(len(hubs), n))
    score = np.append(forest.score, np.ones(len(hubs), dtype=np.float32))
    order, before = breadth_first_order(_graph(a, b, n + 1), n, directed=False)
    keys = np.minimum(a, b) * (n + 1) + np.maximum(a, b)
    sorted_keys = np.argsort(keys)
    child = order[1:].astype(np.int64)  # SciPy's are of 32 bits
    parents = before[child].astype(np.int64)
    wanted = np.minimum(child, parents) * (n + 1) + np.maximum(child, parents)
    level = [1.0] * (n + 1)
    edges = score[sorted_keys[np.searchsorted(keys[sorted_keys], wanted)]]
    for row, parent, edge in zip(child.tolist(), parents.tolist(), edges.tolist(), strict=True):
        level[row] = min(edge, level[parent])
    return label, np.array(level[:n], dtype=np.float32)


def _needed(left: Array, right: Array, known: Sequence[tuple[np.ndarray, np.ndarray]], least: np.float32) -> Pairs:
    """The pairs of two groups that may improve on a forest, given component and level to the hub of their rows.

    Products in float32 rule out all but those within their error of that, unless these are still many. The two groups
    may be the same one: then of each pair of its rows the first is on the left.
    """
    xp, shape = array_module(left), (len(left), len(right))
    (label, level), (other_label, other_level) = known
    limit = np.minimum(level[:, None], other_level, out=scratch(np, "limit", shape, np.float32))
    if (label != label[0]).any() or (other_label != label[0]).any():
        limit[label[:, None] != other_label] = np.nextafter(least, np.float32(0))
    products = xp.matmul(left, right.T, out=scratch(xp, "products", shape, np.float32))
    side, other = SinglePrecision(left, LONGEST), SinglePrecision(right, LONGEST)
    products += np.float32(1.0001 * products_error(side, other, left.shape[1]) + 2.0**-22)
    row, column = xp.divmod(xp.flatnonzero(products > xp.asarray(limit)), len(right))
    if left is right:
        row, column = (end[row < column] for end in (row, column))
    if len(row) * CROWDED > products.size:
        scores = _scores_between(left, right)
        rows, columns = np.divmod(np.flatnonzero(scores > limit), len(right))
        ahead = rows < columns if left is right else slice(None)
        return Pairs(rows[ahead], columns[ahead], scores[rows[ahead], columns[ahead]])
    score = to_host(exact_scores(left, right, row, column))
    rows, columns = to_host(row), to_host(column)
    better = score > limit[rows, columns]
    return Pairs(rows[better], columns[better], score[better])
