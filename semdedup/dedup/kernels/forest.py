"""Connected components of matches at every threshold, from one small table: a maximum spanning forest of the pairs.

At any threshold the edges of the forest that reach it connect the same rows as all pairs that reach it do, and there
are at most n − 1 of them. Forests of parts merge: the forest of their edges together is one of the union.

Reference: R. E. Tarjan, Data structures and network algorithms, 1983, chapter 6 (minimum spanning trees).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from semdedup.arrays import Array, array_module, to_host
from semdedup.dedup.kernels.distinct import equal_pairs
from semdedup.dedup.kernels.exact import exact_dot, quick_error
from semdedup.dedup.kernels.matches import Matches, Pairs, matching_pairs

GROUP = 1024
"""Rows whose products with each other, and with those of one more group, are held at a time, in float64."""

MATCHES_A_ROW = 16
"""Matches a row, on average, that are gathered before the forest is sought in a way that does not list them."""

FEW_EDGES = 64
"""Edges whose spanning forest is found without SciPy."""

MOST_EDGES = 1 << 18
"""Edges that are gathered before the forest thins them out."""


def spanning_forest(a: np.ndarray, b: np.ndarray, score: np.ndarray, n: int) -> np.ndarray:
    """Positions of the edges of a maximum spanning forest, (e,) int64, increasing.

    Args:
        a, b: (p,) the ends of each edge, in [0, n), different from each other. An edge may be there twice.
        score: (p,) in [0, 1].
        n: number of vertices.

    Cost: O(p log p).
    """
    if len(a) <= FEW_EDGES:
        return _spanning_forest_of_few(a.tolist(), b.tolist(), np.asarray(score).tolist())
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import minimum_spanning_tree

    low, high = np.minimum(a, b).astype(np.int64), np.maximum(a, b).astype(np.int64)
    keys = low * n + high
    order = np.lexsort((-np.asarray(score, dtype=np.float64), keys))
    chosen = order[np.append(True, keys[order][1:] != keys[order][:-1])]  # of an edge that is there twice, the best
    ends, places = np.unique(np.concatenate([low[chosen], high[chosen]]), return_inverse=True)
    left, right = places[: len(chosen)], places[len(chosen) :]
    weights = 2.0 - score[chosen].astype(np.float64)  # never 0, which would be no edge
    tree = minimum_spanning_tree(coo_array((weights, (left, right)), shape=(len(ends), len(ends))).tocsr()).tocoo()
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
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    edges = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(n, n))
    return connected_components(edges, directed=False)[1]


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

    Cost: O(p log p) of p matches. Where too many were found to be listed: about 12·n²·d operations for up to `GROUP`
    rows, and up to 4·n²·d of many more.
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
    edges = [Pairs(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
    for piece in matching_pairs(left, right, least) if pairs is None else [pairs]:
        start, stop, score = map(to_host, piece)
        edges.append(Pairs(start, stop + len(left), score))
        if sum(len(found.left) for found in edges) > MOST_EDGES:
            edges = [thinned(edges, n)]
    return Pairs(*(np.concatenate(part) for part in zip(*edges, strict=True)))


def thinned(edges: Sequence[Pairs], n: int) -> Pairs:
    """A maximum spanning forest of these edges of n vertices, smaller ends on the left, in the order of these."""
    together = Pairs(*(np.concatenate(part) for part in zip(*edges, strict=True)))
    chosen = spanning_forest(together.left, together.right, together.score, n)
    ends = together.left[chosen], together.right[chosen]
    left, right = np.minimum(*ends), np.maximum(*ends)
    order = np.lexsort((right, left))
    return Pairs(left[order], right[order], together.score[chosen][order])


def _dense_forest(parts: Sequence[Array], least: float | np.float32) -> Pairs:
    """The forest of rows most of which match each other, whose matches are too many to list.

    The rows are cut into groups. The first group together with each other one gives a forest of all rows, by Prim's
    algorithm on their scores. In it, the least score on the path between two rows is at least the smaller of the least
    scores on the paths from each of the two to a third, the *hub*. A pair of any other two groups whose score does not
    exceed that is in no maximum spanning forest, and nearly all are like that: only the others are decided.

    Reference: D. R. Karger, P. N. Klein and R. E. Tarjan, A randomized linear-time algorithm to find minimum spanning
    trees, 1995 (edges that are heavy with regard to the forest of a sample).
    """
    groups, starts = [], []
    position = 0
    for part in parts:
        for start in range(0, len(part), GROUP):
            groups.append(part[start : start + GROUP])
            starts.append(position + start)
        position += len(part)
    edges: list[Pairs] = []
    xp = array_module(groups[0])
    for number in range(max(1, len(groups) - 1)):
        chosen = [0, number + 1] if len(groups) > 1 else [0]
        rows = np.concatenate([np.arange(starts[i], starts[i] + len(groups[i])) for i in chosen])
        together = xp.concatenate([groups[i] for i in chosen])
        found = _prim(_scores_between(together, together), least)
        edges = [thinned([*edges, Pairs(rows[found.left], rows[found.right], found.score)], position)]
    label, level = _levels_to_hub(edges[0], position)
    for first, second in ((i, j) for i in range(1, len(groups)) for j in range(i + 1, len(groups))):
        spans = [slice(starts[i], starts[i] + len(groups[i])) for i in (first, second)]
        scores = _scores_between(groups[first], groups[second])
        row, column = _needed(scores, [(label[s], level[s]) for s in spans], np.float32(least))
        edges.append(Pairs(row + starts[first], column + starts[second], scores[row, column]))
        if sum(len(found.left) for found in edges[1:]) > MOST_EDGES:
            edges = [thinned(edges, position)]
            label, level = _levels_to_hub(edges[0], position)
    return edges[0] if len(edges) == 1 else thinned(edges, position)


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


def _prim(scores: np.ndarray, least: float | np.float32) -> Pairs:
    """Edges of a maximum spanning forest of rows by all their scores (n, n), without those below the least score.

    Reference: R. C. Prim, Shortest connection networks and some generalizations, 1957.
    """
    n = len(scores)
    best, parent = scores[0].copy(), np.zeros(n, dtype=np.int64)
    best[0] = -1
    outside = np.ones(n, dtype=bool)
    outside[0] = False
    child, level = np.empty(n - 1, dtype=np.int64), np.empty(n - 1, dtype=np.float32)
    for step in range(n - 1):
        nearest = int(best.argmax())
        child[step], level[step] = nearest, best[nearest]
        outside[nearest] = False
        row = scores[nearest]
        closer = row > best
        closer &= outside
        np.copyto(best, row, where=closer)
        parent[closer] = nearest
        best[nearest] = -1
    reached = level >= np.float32(least)
    return Pairs(parent[child[reached]], child[reached], level[reached])


def _levels_to_hub(forest: Pairs, n: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of n rows its component, and the least score on the path to the hub of that component, (n,) each.

    The hub is a row of the largest part that the better half of the edges connects: most rows are well connected to it.
    """
    from scipy.sparse import coo_array
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
    tree = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(n + 1, n + 1)).tocsr()
    order, before = breadth_first_order(tree, n, directed=False)
    keys = np.minimum(a, b) * (n + 1) + np.maximum(a, b)
    sorted_keys = np.argsort(keys)
    child = order[1:]
    wanted = np.minimum(child, before[child]) * (n + 1) + np.maximum(child, before[child])
    level = [1.0] * (n + 1)
    edges = score[sorted_keys[np.searchsorted(keys[sorted_keys], wanted)]]
    for row, parent, edge in zip(child.tolist(), before[child].tolist(), edges.tolist(), strict=True):
        level[row] = min(edge, level[parent])
    return label, np.array(level[:n], dtype=np.float32)


def _needed(scores: np.ndarray, known: Sequence[tuple[np.ndarray, np.ndarray]], least: np.float32) -> Array:
    """Where scores (n, m) of two groups may improve on a forest, by component and level to the hub of their rows."""
    (label, level), (other_label, other_level) = known
    limit = np.minimum(level[:, None], other_level)
    limit[label[:, None] != other_label] = np.nextafter(least, np.float32(0))
    return np.divmod(np.flatnonzero(scores > limit), scores.shape[1])
