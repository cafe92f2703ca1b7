"""The plan of the shuffle: every row of every cluster is written exactly once, by tasks of bounded size."""

from collections import Counter

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from semdedup.dedup.shuffle import bucket_starts, cluster_ranges

PIECES = st.lists(st.dictionaries(st.integers(0, 30), st.integers(1, 50), max_size=12), min_size=1, max_size=6)


def test_buckets_hold_about_what_they_should() -> None:
    assert bucket_starts(np.array([5, 5, 20, 1, 1]), 10) == (0, 2, 3)
    assert bucket_starts(np.array([1]), 10) == (0,)


@given(st.lists(st.integers(0, 100), min_size=1, max_size=50), st.integers(1, 300))
def test_buckets_are_consecutive_and_only_a_cluster_of_its_own_exceeds_them(sizes: list[int], rows: int) -> None:
    starts = bucket_starts(np.array(sizes), rows)
    assert starts[0] == 0
    assert list(starts) == sorted(set(starts))
    for first, last in zip(starts, [*starts[1:], len(sizes)], strict=True):
        held = [size for size in sizes[first:last] if size]
        assert sum(held) <= rows or len(held) == 1


@given(PIECES, st.integers(1, 200), st.lists(st.integers(1, 30), max_size=4))
def test_ranges_cover_every_row_exactly_once_within_their_bound(
    pieces: list[dict[int, int]], rows_per_task: int, cuts: list[int]
) -> None:
    starts = (0, *sorted(set(cuts)))
    totals = Counter[int]()
    for piece in pieces:
        totals.update(piece)
    large = {cluster for cluster, rows in totals.items() if rows > rows_per_task}
    by_piece = {c: {i: piece[c] for i, piece in enumerate(pieces) if c in piece} for c in large}
    ranges = cluster_ranges(starts, totals, by_piece, len(pieces), rows_per_task)
    seen = Counter[tuple[int, int]]()
    names = Counter[tuple[int, int]]()
    for item in ranges:
        in_range = [(i, c) for i in item.pieces for c in pieces[i] if item.first <= c < item.last and c in totals]
        seen.update(in_range)
        names.update({(c, item.part) for _, c in in_range})
        last = starts[item.bucket + 1] if item.bucket + 1 < len(starts) else np.inf
        assert starts[item.bucket] <= item.first
        assert item.last <= last
        held = sum(pieces[i][c] for i, c in in_range)
        assert held <= rows_per_task or len(in_range) == 1
    assert seen == Counter((i, c) for i, piece in enumerate(pieces) for c in piece)
    assert set(names.values()) <= {1}  # no file is written twice
