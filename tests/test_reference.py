"""The reference that others are held against: known answers on rows that one can see through."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from semdedup.dedup.kernels.exact import unit_rows
from tests import reference

EPS = 0.05
STEP = 0.3
"""Of an angle: cos(.3) = .955 matches at EPS, cos(.6) = .825 does not."""


def on_circle(*angles: float) -> np.ndarray:
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


CHAIN = on_circle(*(STEP * i for i in range(5)))


def test_scores_of_six_known_vectors() -> None:
    rows = unit_rows(np.float64([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [1, 2, 3], [1, 2, 3]]))
    found = reference.scores(rows)
    np.testing.assert_allclose(found.score, [0, 0.974631, 0.998190, 0.999618, 1, 1], atol=1e-6)
    assert found.match.tolist() == [0, 0, 1, 2, 0, 0]
    assert (found.score[4:] == 1).all()


@pytest.mark.parametrize(("which", "duplicates"), [("hard", 1471), ("easy", 1495)])
def test_blobs_have_the_known_number_of_duplicates(which: str, duplicates: int) -> None:
    blobs, _ = make_blobs(n_samples=[100, 200, 300, 400, 500], n_features=3, random_state=42)
    rows = unit_rows(blobs)
    fitted = KMeans(5, n_init=1, random_state=42).fit(rows)
    centroids = unit_rows(fitted.cluster_centers_)[fitted.labels_]
    distance = (1 - (rows * centroids).sum(axis=1)).astype(np.float32)
    order = np.lexsort((np.arange(1500), distance))  # nearest first, ties by id
    order = order[::-1] if which == "hard" else order
    removed = reference.removal(rows[order], 0.01, clusters=fitted.labels_[order]).removed
    assert len(removed) == duplicates


def test_of_a_chain_each_rule_leaves_what_it_says() -> None:
    assert reference.removal(CHAIN, EPS, "any").witness.tolist() == [-1, 0, 1, 2, 3]
    assert reference.removal(CHAIN, EPS, "witness").witness.tolist() == [-1, 0, -1, 2, -1]
    components = reference.removal(CHAIN, EPS, "components")
    assert components.witness.tolist() == [-1, 0, 0, 0, 0]
    np.testing.assert_allclose(components.score, [0, *np.cos(STEP * np.arange(1, 5))], atol=1e-6)


def test_the_witness_is_the_most_similar_row_that_stays_and_of_equals_the_best_ranked() -> None:
    found = reference.removal(on_circle(0.0, 0.5, 0.0, 0.3, 0.2), EPS, "witness")
    assert found.witness.tolist() == [-1, -1, 0, 1, 0]
    np.testing.assert_allclose(found.score, [0, 0, 1, np.cos(0.2), np.cos(0.2)], atol=1e-6)


def test_clusters_part_rows_and_exact_up_to_joins_them_where_they_match() -> None:
    clusters = np.array([0, 0, 1, 1, 1])
    inside = reference.scores(CHAIN, clusters)
    assert inside.match.tolist() == [0, 0, 2, 2, 3]
    assert inside.score[2] == 0
    assert reference.scores(CHAIN, clusters, exact_up_to=EPS).match.tolist() == [0, 0, 1, 2, 3]
    assert reference.removal(CHAIN, EPS, clusters=clusters).removed.tolist() == [1, 3, 4]
    across = on_circle(0.0, 1.0, 0.4)  # row 2 is nearest to row 0, which it does not match
    found = reference.scores(across, np.array([0, 1, 1]), exact_up_to=EPS)
    assert found.match.tolist() == [0, 1, 1]
    np.testing.assert_allclose(found.score[2], np.cos(0.6), atol=1e-6)


def test_pairs_are_those_that_match() -> None:
    found = reference.pairs(CHAIN, EPS)
    assert list(zip(found.better, found.worse, strict=True)) == list(pairwise(range(5)))
    np.testing.assert_allclose(found.score, np.cos(STEP), atol=1e-6)
    assert len(reference.pairs(CHAIN, EPS, np.array([0, 0, 1, 1, 1])).score) == 3
    assert len(reference.pairs(CHAIN, EPS, base=3).score) == 2


def test_rows_of_the_base_stay_and_are_not_compared_with_each_other() -> None:
    rows = on_circle(0.0, 0.1, 0.3, 0.6, 3.0, 3.1)  # two of the base, close to one another, and four new ones
    assert reference.scores(rows, base=2).match.tolist() == [0, 1, 1, 2, 0, 4]
    assert reference.scores(rows, base=2).score[1] == 0
    assert reference.removal(rows, EPS, "any", base=2).witness.tolist() == [-1, -1, 1, 2, -1, 4]
    assert reference.removal(rows, EPS, "witness", base=2).witness.tolist() == [-1, -1, 1, -1, -1, 4]
    assert reference.removal(rows, EPS, "components", base=2).witness.tolist() == [-1, -1, 0, 0, -1, 4]


def test_rows_with_low_information_match_nothing() -> None:
    low = np.array([False, True, False, False, False])
    assert reference.scores(CHAIN, low_information=low).match.tolist() == [0, 1, 0, 2, 3]
    for rule, stay in (("any", [0, 1, 2]), ("witness", [0, 1, 2, 4]), ("components", [0, 1, 2])):
        removed = reference.removal(CHAIN, EPS, rule, low_information=low).removed
        assert np.setdiff1d(range(5), removed).tolist() == stay


def test_equal_rows_match_at_eps_0() -> None:
    rows = unit_rows(np.random.default_rng(0).normal(size=(50, 384)))
    found = reference.scores(np.concatenate([rows, rows]))
    assert (found.score[50:] == 1).all()
    assert found.match[50:].tolist() == list(range(50))
    assert len(reference.removal(np.concatenate([rows, rows]), 0.0, "witness").removed) == 50


@pytest.mark.parametrize("eps", [0.05, *(pytest.param(eps, marks=pytest.mark.slow) for eps in (0.1, 0.2))])
@pytest.mark.parametrize("name", ["text_rows", "digit_rows"])
def test_on_real_rows_the_rules_differ_and_contain_each_other(
    name: str, eps: float, request: pytest.FixtureRequest
) -> None:
    rows = request.getfixturevalue(name)
    removed = [set(reference.removal(rows, eps, rule).removed) for rule in ("witness", "any", "components")]
    assert removed[0] <= removed[1] <= removed[2]
    assert len(removed[0]) < len(removed[1])
    stay = np.setdiff1d(np.arange(len(rows)), list(removed[0]))
    assert len(reference.pairs(rows[stay], eps).score) == 0
    assert len(removed[1]) == len(np.unique(reference.pairs(rows, eps).worse))
    assert removed[1] == set(np.flatnonzero(reference.scores(rows).score >= reference.least_score(eps)))


def test_the_real_rows_are_those_that_their_readme_describes(text_rows: np.ndarray) -> None:
    found = {eps: len(reference.pairs(text_rows, eps).score) for eps in (0.05, 0.1, 0.2)}
    assert found == {0.05: 303, 0.1: 877, 0.2: 2894}
    removed = [len(reference.removal(text_rows, 0.1, rule).removed) for rule in ("witness", "any", "components")]
    assert removed == [371, 404, 434]
