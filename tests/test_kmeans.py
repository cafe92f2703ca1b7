"""K-means on arrays: exact decisions, sums in any order, starts that are worth their cost."""

from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from semdedup.arrays import to_host
from semdedup.dedup.exact import on_grid, unit_rows
from semdedup.dedup.kmeans import (
    SUM_GRID_BITS,
    Sums,
    assign,
    auto_n_clusters,
    converged,
    distances_to_centroids,
    lloyd_sums,
    next_centroids,
    sample_size,
    seeds,
)


def topics(rng: np.random.Generator, n: int, d: int, k: int) -> np.ndarray:
    centres = rng.standard_normal((k, d)) * 3
    return unit_rows((centres[rng.integers(k, size=n)] + rng.standard_normal((n, d))).astype(np.float32))


@pytest.mark.parametrize("batch", [None, 1, 7, 100_000])
@pytest.mark.parametrize(("n", "d", "k"), [(1, 1, 1), (200, 3, 5), (500, 64, 40), (300, 10, 300)])
def test_every_row_gets_the_nearest_centroid_for_any_batch_size(
    xp: ModuleType, rng: np.random.Generator, n: int, d: int, k: int, batch: int | None
) -> None:
    rows, centroids = topics(rng, n, d, 8), topics(rng, k, d, 8) * np.float32(0.9)
    distances = ((rows[:, None].astype(float) - centroids[None].astype(float)) ** 2).sum(axis=2)
    labels = to_host(assign(xp.asarray(rows), xp.asarray(centroids), batch))
    # exact ties aside, which rounding of the reference decides
    np.testing.assert_allclose(distances[np.arange(n), labels], distances.min(axis=1), rtol=0, atol=1e-14)


def test_of_equal_centroids_the_first_is_taken(xp: ModuleType, rng: np.random.Generator) -> None:
    rows = topics(rng, 400, 32, 4)
    centroids = np.repeat(topics(rng, 5, 32, 4), 3, axis=0)
    labels = to_host(assign(xp.asarray(rows), xp.asarray(centroids)))
    assert (labels % 3 == 0).all()


def test_distances_are_those_of_the_definition(xp: ModuleType, rng: np.random.Generator) -> None:
    rows, centroids = topics(rng, 100, 20, 3), topics(rng, 3, 20, 3) * np.float32(0.7)
    labels = rng.integers(3, size=100)
    l2, cosine = (to_host(part) for part in distances_to_centroids(*map(xp.asarray, (rows, centroids, labels))))
    own = centroids[labels].astype(float)
    np.testing.assert_allclose(l2, np.linalg.norm(rows - own, axis=1), rtol=1e-6)
    np.testing.assert_allclose(cosine, 1 - (rows * own).sum(axis=1) / np.linalg.norm(own, axis=1), atol=1e-7)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.integers(0, 500), max_size=6))
def test_sums_of_parts_add_up_to_the_same_bits_for_any_cutting(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    sample = on_grid(topics(rng, 500, 12, 5), SUM_GRID_BITS)
    centroids = sample[:9]
    whole = lloyd_sums(sample, centroids)
    parts = [lloyd_sums(part, centroids) for part in np.split(sample[rng.permutation(500)], sorted(cuts)) if len(part)]
    np.testing.assert_array_equal(sum(part.rows for part in reversed(parts)), whole.rows)
    np.testing.assert_array_equal(sum(part.counts for part in parts), whole.counts)


def test_the_same_seeds_on_every_backend_and_none_twice(xp: ModuleType, rng: np.random.Generator) -> None:
    sample = topics(rng, 800, 30, 10)
    found = seeds(xp.asarray(sample), 50, np.random.default_rng(7))
    np.testing.assert_array_equal(found, seeds(sample, 50, np.random.default_rng(7)))
    assert len(set(found.tolist())) == 50


def test_where_all_rows_are_equal_the_first_rows_fill_up() -> None:
    sample = np.ones((6, 4), dtype=np.float32) / 2
    assert sorted(seeds(sample, 6, np.random.default_rng(0)).tolist()) == list(range(6))


def test_means_and_inertia_follow_from_the_sums() -> None:
    rows = unit_rows(np.array([[1, 0], [1, 1], [0, 1]], dtype=np.float32))
    old = np.array([[1, 0], [0, 1], [5, 5]], dtype=np.float32)
    sums = Sums(np.array([rows[0] + rows[1], rows[2], [0, 0]], dtype=np.float64), np.array([2, 1, 0]))
    means, inertia = next_centroids(old, sums)
    np.testing.assert_allclose(means, [(rows[0] + rows[1]) / 2, rows[2], old[2]], rtol=1e-6)
    np.testing.assert_allclose(inertia, ((rows[:2] - means[0]) ** 2).sum(), rtol=1e-5)


def test_seeding_and_iterations_reach_the_inertia_of_scikit_learn(rng: np.random.Generator) -> None:
    sample = topics(rng, 4000, 24, 60)
    centroids, inertia = sample[seeds(sample, 60, np.random.default_rng(0))], np.inf
    for _ in range(50):
        previous = inertia
        centroids, inertia = next_centroids(centroids, lloyd_sums(on_grid(sample, SUM_GRID_BITS), centroids))
        if converged(previous, inertia, 1e-4):
            break
    best = KMeans(60, n_init=3, random_state=0).fit(sample).inertia_
    assert inertia <= 1.03 * best  # the spread of single starts of scikit-learn on this data


def test_the_rule_of_convergence() -> None:
    assert not converged(np.inf, 5.0, 1e-4)
    assert converged(5.0, 5.0, 0.0)
    assert converged(5.0, 4.9999, 1e-4)
    assert not converged(5.0, 4.9, 1e-4)


@pytest.mark.parametrize(("rows", "clusters"), [(1, 1), (4_999, 1), (5_000, 50), (20_000, 100), (1_000_000, 707)])
def test_the_automatic_number_of_clusters(rows: int, clusters: int) -> None:
    assert auto_n_clusters(rows) == clusters


@pytest.mark.parametrize(
    ("rows", "clusters", "fraction", "expected"),
    [(100, 10, None, 100), (10**6, 10, None, 50_000), (10**6, 1000, None, 128_000), (10**6, 1000, 0.5, 500_000),
     (10**9, 10**6, None, 2**22), (10, 2, 0.01, 1)],
)  # fmt: skip
def test_the_sample_is_bounded(rows: int, clusters: int, fraction: float | None, expected: int) -> None:
    assert sample_size(rows, clusters, fraction) == expected
