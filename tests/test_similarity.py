"""The comparison, against ten lines of NumPy."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup import ParameterError, max_similarity
from semdedup.arrays import to_host
from semdedup.dedup.exact import unit_rows
from semdedup.dedup.similarity import best_match, first_occurrences


def reference(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and index of each row, best-ranked first, by the definition."""
    products = rows.astype(np.float64) @ rows.astype(np.float64).T
    similarity = np.clip(products, 0, 1).astype(np.float32)
    score, index = np.zeros(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=np.int64)
    for i in range(1, len(rows)):
        index[i] = similarity[i, :i].argmax()
        score[i] = similarity[i, index[i]]
    return score, index


def make(rng: np.random.Generator, n: int, d: int, kind: str) -> np.ndarray:
    rows = rng.standard_normal((n, d))
    if kind == "copies":
        rows = rows[rng.integers(max(1, n // 2), size=n)]
    if kind == "one topic":
        rows = 5 + rows
    if kind == "crowded":
        rows = 1 + 1e-4 * rows
    if kind == "equal":
        rows[:] = rows[:1]
    if kind == "opposite":
        rows = np.where(np.arange(n)[:, None] % 2, 1, -1) * (5 + rows)
    return unit_rows(rows.astype(np.float32))


KINDS = ["random", "copies", "one topic", "crowded", "equal", "opposite"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n", "d"), [(1, 3), (2, 1), (65, 2), (300, 16), (700, 300), (1500, 33)])
@pytest.mark.parametrize("batch_size", [1, 64, 4096])
def test_scores_and_indices_are_those_of_the_definition_bit_by_bit(
    xp: ModuleType, rng: np.random.Generator, kind: str, n: int, d: int, batch_size: int
) -> None:
    if n > 300 and batch_size == 1:
        pytest.skip("a batch of one row is tried on small inputs")
    rows = make(rng, n, d, kind)
    score, index = max_similarity(xp.asarray(rows), batch_size)
    expected_score, expected_index = reference(rows)
    np.testing.assert_array_equal(to_host(score), expected_score)
    np.testing.assert_array_equal(to_host(index), expected_index)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 120), st.integers(1, 20), st.sampled_from(KINDS), st.integers(1, 200))
def test_any_rows_and_any_batch_size_agree_with_the_definition(
    seed: int, n: int, d: int, kind: str, batch_size: int
) -> None:
    rows = make(np.random.default_rng(seed), n, d, kind)
    score, index = max_similarity(rows, batch_size)
    expected_score, expected_index = reference(rows)
    np.testing.assert_array_equal(score, expected_score)
    np.testing.assert_array_equal(index, expected_index)


def test_the_known_answer_of_six_vectors(xp: ModuleType) -> None:
    rows = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [1, 2, 3], [1, 2, 3]], dtype=np.float32)
    score, index = max_similarity(xp.asarray(unit_rows(rows)))
    # six decimals are what the known answer gives
    np.testing.assert_allclose(to_host(score), [0, 0.974631, 0.998190, 0.999618, 1, 1], atol=2e-6)
    assert to_host(index).tolist() == [0, 0, 1, 2, 0, 0]


def test_tiles_combine_to_the_whole(rng: np.random.Generator) -> None:
    rows = make(rng, 500, 24, "one topic")
    whole_score, whole_index = max_similarity(rows)
    ranks = np.arange(500)
    for start in range(100, 500, 100):
        queries = slice(start, start + 100)
        found = [
            best_match(rows[queries], ranks[queries], rows[left : left + 100], ranks[left : left + 100])
            for left in range(0, start + 100, 100)
        ]
        scores = np.stack([np.where(tile.position < 0, -1, tile.score) for tile in found])
        best = scores.argmax(axis=0)  # the first of equal ones: the best-ranked tile
        positions = np.stack([tile.position for tile in found])[best, np.arange(100)] + 100 * best
        np.testing.assert_array_equal(scores.max(axis=0), whole_score[queries])
        np.testing.assert_array_equal(positions, whole_index[queries])


def test_a_query_without_a_better_ranked_candidate_has_no_match(xp: ModuleType) -> None:
    rows = xp.asarray(make(np.random.default_rng(0), 4, 3, "random"))
    found = best_match(rows[:2], xp.asarray([0, 1]), rows[2:], xp.asarray([2, 3]))
    assert to_host(found.position).tolist() == [-1, -1]
    assert to_host(found.score).tolist() == [0, 0]


def test_the_rows_of_the_caller_are_not_changed(rng: np.random.Generator) -> None:
    rows = make(rng, 200, 8, "copies")
    rows.setflags(write=False)
    max_similarity(rows)


def test_first_occurrences_are_the_rows_that_are_not_repeated(xp: ModuleType, rng: np.random.Generator) -> None:
    rows = np.sign(rng.standard_normal((400, 64))).astype(np.float32)[rng.integers(60, size=400)]
    _, first = np.unique(rows, axis=0, return_index=True)
    assert to_host(first_occurrences(xp.asarray(rows))).tolist() == sorted(first)


@pytest.mark.parametrize(
    ("rows", "batch_size"),
    [(np.zeros((2, 2)), 1), (np.zeros(3, np.float32), 1), (np.zeros((2, 2), np.float32), 0)],
    ids=["float64", "one axis", "batch of none"],
)
def test_rows_that_are_no_float32_matrix_are_refused(rows: np.ndarray, batch_size: int) -> None:
    with pytest.raises(ParameterError, match="must be"):
        max_similarity(rows, batch_size)
