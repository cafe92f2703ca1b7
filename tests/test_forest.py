"""Matches, their forest, and the removal in rank order, against a few lines of NumPy."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup.arrays import to_host
from semdedup.dedup.kernels import forest
from semdedup.dedup.kernels.best_match import compare_ranked, max_similarity
from semdedup.dedup.kernels.distinct import first_occurrences
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.forest import components, forest_of, matches_to_gather, spanning_forest
from semdedup.dedup.kernels.greedy import removal_in_rank_order
from semdedup.dedup.kernels.matches import Matches, Pairs, matching_pairs, matching_pairs_within


def similarities(rows: np.ndarray) -> np.ndarray:
    """The scores of all pairs, by the definition."""
    found = (rows.astype(np.float64) @ rows.astype(np.float64).T).clip(0, 1).astype(np.float32)
    found[(rows[:, None] == rows).all(axis=2)] = 1
    return found


def crowd(n: int, d: int, spread: float, seed: int) -> np.ndarray:
    """Rows about three directions, by so much, with a few copies."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((3, d))[rng.integers(3, size=n)] + spread * rng.standard_normal((n, d))
    rows[rng.integers(n, size=n // 8)] = rows[rng.integers(n, size=n // 8)]
    return unit_rows(rows.astype(np.float32))


def partition(labels: np.ndarray) -> list[tuple[int, ...]]:
    """Rows by component, however components are numbered."""
    return sorted(tuple(np.flatnonzero(labels == label).tolist()) for label in np.unique(labels))


def check_forest(edges: Pairs, scores: np.ndarray, least: float) -> None:
    """At every threshold the edges connect what all matches connect, and there is no circle."""
    n = len(scores)
    assert (edges.left < edges.right).all()
    np.testing.assert_array_equal(edges.score, scores[edges.left, edges.right])
    assert (edges.score >= np.float32(least)).all()
    for limit in np.float32([least, (1 + least) / 2, (1 + 3 * least) / 4, 1]):
        reached = edges.score >= limit
        every = np.nonzero(np.triu(scores >= limit, 1))
        labels = components(*every, n)
        assert partition(components(edges.left[reached], edges.right[reached], n)) == partition(labels)
        assert reached.sum() == n - len(np.unique(labels))


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("most", [10, 1 << 20])
@pytest.mark.parametrize("group", [16, 1 << 10])
def test_the_forest_connects_what_the_matches_connect(
    spread: float, most: int, group: int, xp: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forest, "GROUP", group)
    monkeypatch.setattr(forest, "SAMPLED", 12)
    monkeypatch.setattr(forest, "MOST_EDGES", 64)
    rows = crowd(130, 24, spread, seed=3)
    rows = rows[first_occurrences(rows)]
    matches, on_device = Matches(0.6, most), xp.asarray(rows)
    compare_ranked(on_device, 64, matches)
    for parts in ([on_device], [on_device[:50], on_device[50:]]):
        check_forest(forest_of(parts, 0.6, matches), similarities(rows), 0.6)


def test_levels_to_the_hub_of_many_rows() -> None:
    n = 70_000  # the square of which is beyond 32 bits
    chain = Pairs(np.arange(n - 1), np.arange(1, n), np.linspace(0.9, 1, n - 1, dtype=np.float32))
    label, level = forest._levels_to_hub(chain, n)
    assert (label == 0).all()
    hub = int(level.argmax())
    assert level[hub] == 1
    np.testing.assert_array_equal(level[:hub], chain.score[:hub])  # the nearer to the hub the better
    assert (level[hub + 1 :] == chain.score[hub]).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(2, 40), st.integers(0, 10_000), st.integers(0, 200))
def test_the_spanning_forest_of_any_graph(n: int, seed: int, n_edges: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(n, size=n_edges)
    b = (a + rng.integers(1, n, size=n_edges)) % n
    score = rng.integers(1, 6, size=n_edges).astype(np.float32) / 5
    chosen = spanning_forest(a, b, score, n)
    for limit in np.float32([0.2, 0.4, 0.6, 0.8, 1]):
        every, some = score >= limit, score[chosen] >= limit
        labels = components(a[every], b[every], n)
        assert partition(labels) == partition(components(a[chosen][some], b[chosen][some], n))
        assert some.sum() == n - len(np.unique(labels))


@pytest.mark.parametrize("spread", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("least", [0.3, 0.9, 1.0])
def test_all_matches_are_found_once(spread: float, least: float, xp: ModuleType) -> None:
    rows = crowd(300, 40, spread, seed=1)
    scores, on_device = similarities(rows), xp.asarray(rows)
    within = (map(to_host, pairs[:2]) for pairs in matching_pairs_within(on_device, least))
    found = [(int(i), int(j)) for ends in within for i, j in zip(*ends, strict=True)]
    expected = np.argwhere(np.triu(scores >= np.float32(least), 1))
    assert sorted(found) == sorted(map(tuple, expected.tolist()))
    left, right = on_device[:120], on_device[120:]
    found = []
    for pairs in matching_pairs(left, right, least):
        i, j, score = map(to_host, pairs)
        np.testing.assert_array_equal(score, scores[i, j + 120])
        found += list(zip(i.tolist(), j.tolist(), strict=True))
    assert sorted(found) == sorted(map(tuple, np.argwhere(scores[:120, 120:] >= np.float32(least)).tolist()))


def removal(scores: np.ndarray, least: float) -> tuple[np.ndarray, np.ndarray]:
    """Witness and score of each row, -1 and 0 where it stays, by the definition."""
    n = len(scores)
    witness, similarity = np.full(n, -1), np.zeros(n, dtype=np.float32)
    for row in range(n):
        kept = [other for other in range(row) if witness[other] < 0 and scores[row, other] >= np.float32(least)]
        if kept:
            witness[row] = max(kept, key=lambda other: (scores[row, other], -other))
            similarity[row] = scores[row, witness[row]]
    return witness, similarity


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 80), st.integers(0, 10_000), st.sampled_from([0.02, 0.3, 0.8]), st.sampled_from([0.5, 0.9, 1.0]))
def test_rows_go_in_rank_order(xp: ModuleType, n: int, seed: int, spread: float, least: float) -> None:
    rows = crowd(n, 8, spread, seed)
    on_device = xp.asarray(rows)
    score, match = map(to_host, max_similarity(on_device))
    found = removal_in_rank_order(on_device, score, match, least, batch_size=7)
    witness, similarity = removal(similarities(rows), least)
    np.testing.assert_array_equal(found.witness, witness)
    np.testing.assert_array_equal(found.score, similarity)


def test_a_chain_of_slow_drift_keeps_a_row_for_every_few() -> None:
    angles = np.arange(400) * np.arccos(0.995)
    rows = unit_rows(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    rows = np.concatenate([rows, np.zeros((400, 14), np.float32)], axis=1)[:60]
    found = removal_in_rank_order(rows, *max_similarity(rows), 0.9)
    np.testing.assert_array_equal(found.witness, removal(similarities(rows), 0.9)[0])
    assert np.count_nonzero(found.witness < 0) == 12


def test_a_heap_of_nearly_equal_rows_is_not_listed_pair_by_pair() -> None:
    rng = np.random.default_rng(0)
    rows = unit_rows((1 + 1e-3 * rng.standard_normal((5000, 32))).astype(np.float32))
    matches = matches_to_gather(0.8, len(rows))
    score, match = compare_ranked(rows, 1024, matches)
    assert matches.full
    edges = forest_of([rows], 0.8, matches)
    assert len(edges.left) == len(rows) - 1
    found = removal_in_rank_order(rows, score, match, 0.9)
    assert np.count_nonzero(found.witness < 0) == 1
