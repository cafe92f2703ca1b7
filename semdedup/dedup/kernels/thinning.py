"""Which of many candidates to keep as centers, so that rows stay near one: the reverse greedy algorithm."""

from __future__ import annotations

import heapq

import numpy as np


def keep_centers(nearest: np.ndarray, distances: np.ndarray, n_candidates: int, n_kept: int) -> np.ndarray:
    """Take candidates away one after the other, each time the one by which the sum of the distances grows least.

    Of each row only some nearest candidates are known. One that loses the last of them counts with four times the
    largest distance.

    Args:
        nearest: (m, t) candidates by row, nearest first, each once in a row.
        distances: (m, t) int64, their distances, not decreasing.
        n_candidates: how many candidates there are.
        n_kept: how many stay.

    Returns:
        (n_kept,) int64, increasing. Cost: O(m·t) steps of Python, and memory of as many numbers.

    Reference: M. Chrobak, C. Kenyon and N. Young, The reverse greedy algorithm for the metric k-median problem, 2006.
    """
    lost = 4 * int(distances.max(initial=0)) + 1
    # a row is at its nearest candidate that is still there; `after` is the next one of them
    lists = [
        [*zip(row, far, strict=True), (-1, lost)] for row, far in zip(nearest.tolist(), distances.tolist(), strict=True)
    ]
    at, after = [0] * len(lists), [1] * len(lists)
    costs = [0] * n_candidates
    touching: list[list[int]] = [[] for _ in range(n_candidates)]
    for row, of_row in enumerate(lists):
        costs[of_row[0][0]] += of_row[1][1] - of_row[0][1]
        for candidate, _ in of_row[:2]:
            if candidate >= 0:
                touching[candidate].append(row)
    there = [True] * n_candidates
    heap = [(cost, candidate) for candidate, cost in enumerate(costs)]
    heapq.heapify(heap)
    for _ in range(n_candidates - n_kept):
        cost, gone = heapq.heappop(heap)
        while cost < costs[gone]:  # costs only grow
            cost, gone = heapq.heappushpop(heap, (costs[gone], gone))
        there[gone] = False
        for row in touching[gone]:
            of_row, first, second = lists[row], at[row], after[row]
            if gone not in (of_row[first][0], of_row[second][0]):
                continue
            before = of_row[second][1] - of_row[first][1]
            if of_row[first][0] == gone:
                first, before = second, 0
            if first == len(of_row) - 1:  # none of its nearest is left
                at[row] = after[row] = first
                continue
            second = max(second, first) + 1
            while second < len(of_row) - 1 and not there[of_row[second][0]]:
                second += 1
            costs[of_row[first][0]] += of_row[second][1] - of_row[first][1] - before
            if of_row[second][0] >= 0:
                touching[of_row[second][0]].append(row)
            at[row], after[row] = first, second
    return np.flatnonzero(there)
