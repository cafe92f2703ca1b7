"""K-means on arrays: exact decisions, sums in any order, starts that are worth their cost."""

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from semdedup import arrays
from semdedup.arrays import to_host
from semdedup.dedup.kernels import kmeans, products
from semdedup.dedup.kernels.exact import exact_dot, on_grid, unit_rows
from semdedup.dedup.kernels.kmeans import (
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


@pytest.fixture(params=["int8", "bfloat16", "float32"])
def precision(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What products of NumPy's rows propose in first. What the processor does not multiply, NumKong emulates."""
    if request.param != "float32" and arrays.numkong is None:
        pytest.skip("NumKong is not installed")
    monkeypatch.setattr(products, "has_byte_products", lambda: request.param == "int8")
    monkeypatch.setattr(products, "has_bfloat16_matrices", lambda: request.param == "bfloat16")
    monkeypatch.setattr(kmeans, "FEW_CENTROIDS", 1)
    monkeypatch.setattr(products, "SMALLEST_DIM", 1)
    monkeypatch.setattr(products, "SMALLEST_PRODUCT", 1)
    return request.param


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 70), st.integers(1, 40), st.integers(1, 50)),
    width=st.sampled_from([1.0, 1e-2, 1e-4, 1e-7, 0.0]),
    length=st.sampled_from([1.0, 0.3, 0.0]),
)
def test_labels_are_those_of_float64_for_every_precision_of_the_products(
    xp: ModuleType, precision: str, seed: int, shape: tuple[int, int, int], width: float, length: float
) -> None:
    (n, d, k), rng = shape, np.random.default_rng(seed)
    rows = unit_rows(1 + width * rng.standard_normal((n, d)))
    means = unit_rows(1 + width * rng.standard_normal((k, d))) * (length * rng.random((k, 1))).astype(np.float32)
    centroids = means[rng.integers(k, size=k)]  # some of them twice
    nearness = np.array([exact_dot(centroids, row[None].repeat(k, axis=0)) for row in rows])
    expected = (nearness - exact_dot(centroids, centroids) / 2).argmax(axis=1)
    assert to_host(assign(xp.asarray(rows), xp.asarray(centroids))).tolist() == expected.tolist()


@pytest.mark.parametrize("width", [1.0, 1e-3])
def test_labels_of_many_rows_are_the_same_in_every_precision(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, width: float
) -> None:
    if arrays.numkong is None:
        pytest.skip("NumKong is not installed")
    centres = rng.standard_normal((1, 64)) + width * rng.standard_normal((200, 64))
    rows = unit_rows(centres[rng.integers(200, size=3000)] + width / 3 * rng.standard_normal((3000, 64)))
    labels = []
    for coarse in ("int8", "bfloat16", "float32"):
        monkeypatch.setattr(products, "has_byte_products", lambda coarse=coarse: coarse == "int8")
        monkeypatch.setattr(products, "has_bfloat16_matrices", lambda coarse=coarse: coarse == "bfloat16")
        labels.append(assign(rows, rows[:200] * np.float32(0.8)))
    np.testing.assert_array_equal(labels[0], labels[2])
    np.testing.assert_array_equal(labels[1], labels[2])
    assert len(set(labels[0].tolist())) > 100


def test_centroids_that_differ_less_than_float32_can_tell_are_told_apart(
    xp: ModuleType, rng: np.random.Generator
) -> None:
    rows = unit_rows(np.column_stack([np.ones(400), 2.0**-15 * rng.standard_normal((400, 4))]))
    sizes = 2.0**-15 * rng.standard_normal((200, 4))  # of products with them: 2**-30
    centroids = unit_rows(np.column_stack([np.ones(200), sizes]))
    nearness = np.array([exact_dot(centroids, row[None].repeat(200, axis=0)) for row in rows])
    expected = (nearness - exact_dot(centroids, centroids) / 2).argmax(axis=1)
    assert to_host(assign(xp.asarray(rows), xp.asarray(centroids))).tolist() == expected.tolist()
    assert len(set(expected.tolist())) > 50


HALVES = st.lists(st.sampled_from([-0.5, 0.0, 0.5]), min_size=4, max_size=4)


@given(
    rows=st.lists(HALVES, max_size=30),
    centroids=st.lists(HALVES, min_size=1, max_size=12),
    batch=st.none() | st.integers(1, 40),
)
def test_ties_go_to_the_first_of_the_nearest_centroids(
    xp: ModuleType, rows: list[list[float]], centroids: list[list[float]], batch: int | None
) -> None:
    x, c = np.array(rows, dtype=np.float32).reshape(-1, 4), np.array(centroids, dtype=np.float32)
    distances = ((x[:, None] - c) ** 2).sum(axis=2)  # sums of quarters: exact
    assert to_host(assign(xp.asarray(x), xp.asarray(c), batch)).tolist() == distances.argmin(axis=1).tolist()


@given(seed=st.integers(0, 2**32), width=st.sampled_from([1.0, 1e-3, 1e-6]), batch=st.integers(1, 200))
def test_a_label_does_not_depend_on_the_rows_it_is_found_with(
    xp: ModuleType, seed: int, width: float, batch: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = xp.asarray(topics(rng, 120, 24, 4))
    centroids = xp.asarray(unit_rows(1 + width * rng.standard_normal((30, 24))))  # nearly equal
    labels = to_host(assign(rows, centroids))
    np.testing.assert_array_equal(to_host(assign(rows, centroids, batch)), labels)
    order = rng.permutation(120)
    np.testing.assert_array_equal(to_host(assign(rows[xp.asarray(order)], centroids)), labels[order])
    assert to_host(assign(rows[7:8], centroids))[0] == labels[7]


@pytest.mark.parametrize("elements", [1, 1 << 6, 1 << 11])
def test_the_size_of_a_product_changes_no_label_and_no_sum(
    xp: ModuleType, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, elements: int
) -> None:
    part, centroids = xp.asarray(on_grid(topics(rng, 300, 16, 5), SUM_GRID_BITS)), xp.asarray(topics(rng, 70, 16, 5))
    labels, sums = assign(part, centroids), lloyd_sums(part, centroids)
    monkeypatch.setattr(kmeans, "block_elements", lambda *arrays: elements)
    np.testing.assert_array_equal(to_host(assign(part, centroids)), to_host(labels))
    again = lloyd_sums(part, centroids)
    np.testing.assert_array_equal(to_host(again.rows), to_host(sums.rows))
    np.testing.assert_array_equal(to_host(again.counts), to_host(sums.counts))


def test_no_rows_have_no_labels(xp: ModuleType) -> None:
    labels = assign(xp.empty((0, 3), dtype=np.float32), xp.zeros((4, 3), dtype=np.float32))
    assert (labels.shape, labels.dtype) == ((0,), np.int32)


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


def test_the_distance_to_a_centroid_without_direction_is_one(xp: ModuleType) -> None:
    rows, centroids = xp.asarray([[0.6, 0.8]], dtype=np.float32), xp.zeros((1, 2), dtype=np.float32)
    l2, cosine = distances_to_centroids(rows, centroids, xp.asarray([0]))
    assert to_host(l2).tolist() == to_host(cosine).tolist() == [1]


def test_the_distance_of_a_row_to_itself_is_zero(xp: ModuleType, rng: np.random.Generator) -> None:
    rows = xp.asarray(topics(rng, 50, 33, 5))
    l2, cosine = map(to_host, distances_to_centroids(rows, rows, xp.arange(50)))
    assert not l2.any()
    assert cosine.max() < 1e-6


@given(st.integers(0, 2**32), st.integers(1, 60), st.integers(1, 8))
def test_sums_and_counts_are_those_of_the_rows_of_each_label(xp: ModuleType, seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    part, centroids = on_grid(topics(rng, n, 5, 3), SUM_GRID_BITS), topics(rng, k, 5, 3)
    labels = to_host(assign(xp.asarray(part), xp.asarray(centroids)))
    found = lloyd_sums(xp.asarray(part), xp.asarray(centroids))
    assert to_host(found.counts).tolist() == np.bincount(labels, minlength=k).tolist()
    for label, total in enumerate(to_host(found.rows)):
        assert total.tolist() == [math.fsum(column) for column in part[labels == label].T.astype(float)]


@settings(max_examples=25)
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


@settings(max_examples=30)
@given(
    seed=st.integers(0, 2**32),
    shape=st.tuples(st.integers(1, 60), st.sampled_from([1, 3, 40, 1536, 2500])),
    width=st.sampled_from([1.0, 1e-4, 0.0]),
    signs=st.booleans(),
    elements=st.sampled_from([1, 1 << 9, 1 << 20]),
)
def test_the_same_seeds_with_and_without_numkong_and_for_any_size_of_blocks(
    seed: int, shape: tuple[int, int], width: float, signs: bool, elements: int
) -> None:
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(shape)
    sample = unit_rows(np.sign(noise) if signs else 1 + width * noise)  # signs: the longest rows of whole numbers
    found = seeds(sample, shape[0] // 2 + 1, np.random.default_rng(seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "numkong", None)
        patch.setattr(kmeans, "block_elements", lambda *arrays: elements)
        again = seeds(sample, shape[0] // 2 + 1, np.random.default_rng(seed))
    np.testing.assert_array_equal(found, again)


@pytest.mark.parametrize("width", [1.0, 1e-5])
@pytest.mark.parametrize("choices", [1, 8])
def test_every_group_of_rows_far_from_the_others_is_seeded(
    xp: ModuleType, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, width: float, choices: int
) -> None:
    monkeypatch.setattr(kmeans, "CHOICES_A_DRAW", choices)
    groups = rng.integers(40, size=1000)
    centres = 1 + width * rng.standard_normal((40, 20))
    sample = unit_rows(centres[groups] + width * 0.02 * rng.standard_normal((1000, 20)))
    assert len(set(groups[seeds(xp.asarray(sample), 40, np.random.default_rng(1))].tolist())) == 40


@given(st.integers(0, 2**32), st.lists(st.integers(0, 7), min_size=1, max_size=40), st.data())
def test_rows_that_differ_are_chosen_before_any_row_twice(
    xp: ModuleType, seed: int, which: list[int], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(which)))
    sample = np.eye(8, dtype=np.float32)[which]
    found = seeds(xp.asarray(sample), k, np.random.default_rng(seed))
    assert len(set(found.tolist())) == k
    assert len({which[position] for position in found}) == min(k, len(set(which)))


def test_where_all_rows_are_equal_the_first_rows_fill_up(xp: ModuleType) -> None:
    sample = xp.ones((6, 4), dtype=np.float32) / 2
    found = seeds(sample, 4, np.random.default_rng(0)).tolist()
    assert found[1:] == [position for position in range(6) if position != found[0]][:3]
    assert sorted(seeds(sample, 6, np.random.default_rng(0)).tolist()) == list(range(6))


def test_another_generator_chooses_other_seeds(rng: np.random.Generator) -> None:
    sample = topics(rng, 400, 12, 10)
    first, other = (seeds(sample, 20, np.random.default_rng(seed)).tolist() for seed in (1, 2))
    assert first != other


def test_means_and_inertia_follow_from_the_sums() -> None:
    rows = unit_rows(np.array([[1, 0], [1, 1], [0, 1]], dtype=np.float32))
    old = np.array([[1, 0], [0, 1], [5, 5]], dtype=np.float32)
    sums = Sums(np.array([rows[0] + rows[1], rows[2], [0, 0]], dtype=np.float64), np.array([2, 1, 0]))
    means, inertia = next_centroids(old, sums)
    np.testing.assert_allclose(means, [(rows[0] + rows[1]) / 2, rows[2], old[2]], rtol=1e-6)
    np.testing.assert_allclose(inertia, ((rows[:2] - means[0]) ** 2).sum(), rtol=1e-5)


@settings(max_examples=30)
@given(st.integers(0, 2**32), st.integers(1, 12))
def test_the_inertia_is_the_sum_of_square_distances_and_never_grows(seed: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    sample = on_grid(topics(rng, 200, 9, 4), SUM_GRID_BITS)
    centroids, previous = sample[:k], np.inf
    for _ in range(6):
        labels = assign(sample, centroids)
        centroids, inertia = next_centroids(centroids, lloyd_sums(sample, centroids))
        direct = ((sample.astype(float) - centroids[labels]) ** 2).sum()
        # rows are of length 1 within 2**-24, and centroids rounded to float32
        assert inertia == pytest.approx(direct, abs=200 * 2.0**-22)
        assert inertia <= previous + 200 * 2.0**-22
        previous = inertia


def test_a_cluster_without_rows_keeps_its_centroid() -> None:
    old = np.array([[0.25, 0.5], [1, 0]], dtype=np.float32)
    means, _ = next_centroids(old, Sums(np.array([[0, 0], [3, 0]], dtype=np.float64), np.array([0, 3])))
    assert means.tolist() == [[0.25, 0.5], [1, 0]]
    assert old.tolist() == [[0.25, 0.5], [1, 0]]


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
