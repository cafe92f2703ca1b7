"""Many clusters compared together: the same bits as each on its own."""

from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from semdedup import max_similarity
from semdedup.arrays import to_host
from semdedup.dedup.compare.scored import Limits, score_rows
from semdedup.dedup.compare.together import score_together
from semdedup.dedup.kernels import distinct, many
from semdedup.dedup.kernels.distinct import occurrences
from semdedup.dedup.kernels.exact import exact_scores, unit_rows
from semdedup.dedup.kernels.many import compare_many
from semdedup.dedup.kernels.matches import Matches

KINDS = ["random", "copies", "one topic", "crowded", "equal", "opposite", "axes", "a little longer than 1"]


def make(rng: np.random.Generator, n: int, d: int, kind: str) -> np.ndarray:
    rows = rng.standard_normal((n, d))
    if kind == "copies":
        rows = rows[rng.integers(max(1, n // 2), size=n)]
    if kind == "one topic":
        rows = 3 + rows
    if kind == "crowded":
        rows = 1 + 1e-5 * rows
    if kind == "equal":
        rows[:] = rows[:1]
    if kind == "opposite":  # every product is 0 or less
        rows = np.eye(d)[rng.integers(d, size=n)] * -1.0
        rows[: n // 2] *= -1
    if kind == "axes":
        rows = np.eye(d)[rng.integers(d, size=n)] * rng.choice([-1, 1], (n, 1))
    unit = unit_rows(rows.astype(np.float32))
    return unit * np.float32(1 + 2.0**-22) if kind == "a little longer than 1" else unit


def clusters_of(seed: int, sizes: list[int], d: int, kinds: list[str]) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    each = [make(rng, n, d, kinds[i % len(kinds)]) for i, n in enumerate(sizes)]
    rows = np.concatenate([*each, np.empty((0, d), np.float32)])
    rows.setflags(write=False)
    return rows, np.cumsum([0, *sizes])


def assert_as_one_by_one(xp: ModuleType, rows: np.ndarray, starts: np.ndarray, batch_size: int) -> None:
    score, index = map(to_host, compare_many(xp.asarray(rows), starts, batch_size))
    assert (score.dtype, index.dtype) == (np.float32, np.int64)
    for start, stop in pairwise(starts):
        expected_score, expected_index = max_similarity(rows[start:stop])
        np.testing.assert_array_equal(score[start:stop], expected_score)
        np.testing.assert_array_equal(index[start:stop], start + expected_index)


sizes_of_clusters = st.lists(st.one_of(st.integers(0, 3), st.integers(0, 70)), max_size=8)


@given(
    seed=st.integers(0, 2**32),
    sizes=sizes_of_clusters,
    d=st.integers(1, 20),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=4),
    batch_size=st.integers(1, 100),
)
@example(seed=0, sizes=[], d=3, kinds=["random"], batch_size=1)
@example(seed=0, sizes=[0, 1, 0, 2], d=1, kinds=["equal"], batch_size=1024)
def test_scores_and_matches_are_those_of_each_cluster_on_its_own(
    xp: ModuleType, seed: int, sizes: list[int], d: int, kinds: list[str], batch_size: int
) -> None:
    assert_as_one_by_one(xp, *clusters_of(seed, sizes, d, kinds), batch_size)


@pytest.mark.parametrize("kind", KINDS)
def test_it_does_not_matter_where_small_ends_and_what_is_crowded(
    xp: ModuleType, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    rows, starts = clusters_of(1, [40, 150, 7, 90], 24, [kind, "random"])
    for small, crowded in [(1024, 8), (100, 8), (1024, 0), (0, 8)]:
        monkeypatch.setattr(many, "SMALL", small)
        monkeypatch.setattr(many, "CROWDED", crowded)
        assert_as_one_by_one(xp, rows, starts, 1024)


def test_rows_may_stand_anywhere_in_memory(rng: np.random.Generator) -> None:
    rows, starts = clusters_of(2, [30, 50], 16, ["random"])
    shifted = np.empty(rows.nbytes + 1, np.uint8)[1:].view(np.float32).reshape(rows.shape)
    shifted[...] = rows
    for same in (shifted, np.asfortranarray(rows), np.repeat(rows, 2, axis=0)[::2]):
        for ours, theirs in zip(compare_many(same, starts, 64), compare_many(rows, starts, 64), strict=True):
            np.testing.assert_array_equal(ours, theirs)


@given(seed=st.integers(0, 2**32), sizes=sizes_of_clusters, kinds=st.lists(st.sampled_from(KINDS), min_size=1))
def test_the_matches_are_all_pairs_of_different_rows_of_a_cluster_that_reach_the_threshold(
    xp: ModuleType, seed: int, sizes: list[int], kinds: list[str]
) -> None:
    rows, starts = clusters_of(seed, sizes, 6, kinds)
    matches = Matches(0.7, 1 << 20)
    compare_many(xp.asarray(rows), starts, 1024, matches)
    found = matches.pairs()
    if found is None:  # a crowded cluster gave up
        return
    expected = set()
    for start, stop in pairwise(starts):
        first = start + occurrences(rows[start:stop])[0]
        left, right = (first[ends] for ends in np.triu_indices(len(first), 1))
        scores = exact_scores(rows, rows, left, right)
        expected |= {(a, b, s) for a, b, s in zip(left, right, scores, strict=True) if s >= np.float32(0.7)}
    in_all = occurrences(rows, np.repeat(np.arange(len(sizes)), sizes))[0]  # they count the rows that come first
    left, right, score = map(to_host, found)
    assert set(zip(in_all[left], in_all[right], score, strict=True)) == expected
    assert len(left) == len(expected)


@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=3),
    informing=st.sampled_from([0.0, 0.7, 1.0, None]),
    least=st.sampled_from([0.5, 0.9]),
)
def test_scores_matches_and_forest_of_clusters_together_are_those_of_each(
    xp: ModuleType, seed: int, sizes: list[int], kinds: list[str], informing: float | None, least: float
) -> None:
    rows, starts = clusters_of(seed, sizes, 6, kinds)
    rng = np.random.default_rng(seed)
    each = [xp.asarray(rows[start:stop]) for start, stop in pairwise(starts)]
    informs = [None if informing is None or i % 3 == 1 else rng.random(n) < informing for i, n in enumerate(sizes)]
    found = score_together(each, informs, np.float32(least), 64)
    assert found is not None
    for cluster, mask, (score, match, forest) in zip(each, informs, found, strict=True):
        alone = score_rows(cluster, None if mask is None else ~mask, Limits(np.float32(least), 64))
        for ours, theirs in zip((score, match, *forest), (alone.score, alone.match, *alone.forest), strict=True):
            np.testing.assert_array_equal(ours, theirs)
            assert ours.dtype == theirs.dtype


def test_matches_are_given_up_where_a_cluster_has_too_many(xp: ModuleType) -> None:
    rows, starts = clusters_of(3, [20, 60], 8, ["random", "one topic"])
    matches = Matches(0.1, 100)
    compare_many(xp.asarray(rows), starts, 1024, matches)
    assert matches.full


@given(labels=st.lists(st.tuples(st.integers(0, 3), st.integers(0, 5)), max_size=60), collide=st.booleans())
def test_rows_of_different_groups_are_no_copies_of_each_other(
    xp: ModuleType, labels: list[tuple[int, int]], collide: bool
) -> None:
    groups, kinds = np.array(labels, dtype=np.int64).reshape(-1, 2).T
    rows = np.ones((len(labels), 24), dtype=np.float32)
    rows[:, 20] = kinds  # beside the columns looked at first
    seen: dict[tuple[int, int], int] = {}
    expected = [seen.setdefault(label, position) for position, label in enumerate(labels)]
    with pytest.MonkeyPatch.context() as patch:
        if collide:
            patch.setattr(distinct, "GROUP_FACTOR", np.uint64(0))
        first, like = map(to_host, occurrences(xp.asarray(rows), xp.asarray(groups)))
    if not collide:  # where hashes collide a copy may be found too few, never one too many
        assert like.tolist() == expected
    for position, other in enumerate(like):
        assert labels[position] == labels[other]
        assert other <= position
    assert first.tolist() == [position for position, other in enumerate(like) if position == other]
