"""The kernels for GPUs against NumPy, bit for bit: on a GPU, or built for the processor (`test_host_kernels`)."""

import os
import warnings
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from semdedup import max_similarity
from semdedup.arrays import backend_module, gpu_usable
from semdedup.dedup.kernels.best_match import best_match
from semdedup.dedup.kernels.distinct import occurrences
from semdedup.dedup.kernels.exact import exact_dot, exact_scores, exact_square_distance, unit_rows
from semdedup.dedup.kernels.gpu import compare, compiled, halves, tiles
from semdedup.dedup.kernels.kmeans import seeds
from semdedup.dedup.kernels.many import compare_many
from semdedup.dedup.kernels.matches import Matches


@pytest.fixture
def cp() -> ModuleType:
    if not gpu_usable():
        message = "no usable GPU: a device and CuPy are needed"
        if os.environ.get("SEMDEDUP_REQUIRE_GPU") == "1":
            pytest.fail(message)
        pytest.skip(message)
    cupy = backend_module("gpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if not compiled.has_tensor_cores(cupy.zeros(1)):
            pytest.skip("a GPU without tensor cores for halves")
    return cupy


@pytest.fixture
def crowded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little room for candidates, and few queries are taken apart no more."""
    monkeypatch.setattr(compare, "FEWEST_FOUND", 200)
    monkeypatch.setattr(compare, "FOUND_A_QUERY", 0)
    monkeypatch.setattr(tiles, "LEAST_QUERIES", 64)


def made_rows(rng: np.random.Generator, n: int, dim: int, alike: float = 0.05) -> np.ndarray:
    """Some groups of near-duplicates, some copies, some opposites."""
    rows = rng.normal(size=(n, dim))
    few = n // 4
    rows[n - few :] = rows[rng.integers(max(1, n - few), size=few)] + alike * rng.normal(size=(few, dim))
    rows[rng.integers(n, size=n // 20)] = rows[0]
    rows[rng.integers(n, size=n // 20)] = -rows[n // 2]
    return unit_rows(rows.astype(np.float32))


def assert_same(found: Any, expected: Any) -> None:
    for array, reference in zip(found, expected, strict=True):
        np.testing.assert_array_equal(array.get(), reference, strict=True)


def on_host(found: Any) -> tuple[np.ndarray, ...]:
    return tuple(array.get() for array in found)


@pytest.mark.parametrize("dim", [1, 3, 7, 8, 9, 100, 128, 129, 300, 768, 1536])
@pytest.mark.parametrize(("left", "right"), [("f4", "f4"), ("f4", "f8"), ("f8", "f4"), ("f8", "f8")])
def test_sums_have_the_bits_of_numpy(cp: ModuleType, rng: np.random.Generator, dim: int, left: str, right: str) -> None:
    x, y = rng.normal(size=(20, dim)).astype(left), rng.normal(size=(20, dim)).astype(right)
    rows, columns = rng.integers(20, size=37), rng.integers(20, size=37)
    there = cp.asarray(x), cp.asarray(y), cp.asarray(rows), cp.asarray(columns)
    assert_same([exact_dot(*there)], [exact_dot(x, y, rows, columns)])
    assert_same([exact_dot(*there[:2])], [exact_dot(x, y)])
    if left == right == "f4":
        expected = exact_square_distance(x[:9], y, columns[:9])
        assert_same([exact_square_distance(there[0][:9], there[1], there[3][:9])], [expected])


def test_scores_of_equal_rows_are_one(cp: ModuleType, rng: np.random.Generator) -> None:
    x = unit_rows(rng.normal(size=(50, 100)).astype(np.float32))
    every = np.arange(50)
    assert (exact_scores(cp.asarray(x), cp.asarray(x.copy()), cp.asarray(every), cp.asarray(every)).get() == 1).all()


@pytest.mark.parametrize("dim", [1, 31, 32, 33])
def test_halves_are_those_of_numpy(cp: ModuleType, rng: np.random.Generator, dim: int) -> None:
    x = unit_rows(rng.normal(size=(70, dim)).astype(np.float32))
    x[1] *= 2.0 ** -rng.integers(0, 60, size=dim).astype(np.float32)  # subnormal halves, and what vanishes
    found = halves.halve(cp.asarray(x))
    expected = (x * np.float32(halves.SCALE)).astype(np.float16)
    assert (found.rows.get()[:, :dim] == expected).all()
    assert (found.rows.get()[:, dim:] == 0).all()
    apart = (np.square(expected.astype(np.float64) / halves.SCALE - x)).sum(axis=1).max() ** 0.5
    square = float(found.square.get().view(np.float32)[0])
    assert apart <= halves.deviation(square, dim) <= 1.02 * apart + halves.vanished(dim)


SIZES = [(1, 5), (2, 1), (127, 3), (129, 33), (256, 64), (300, 384), (150, 512), (140, 768), (130, 1536)]


@pytest.mark.parametrize(("n", "dim"), SIZES)
def test_a_cluster_on_the_gpu_has_the_answer_of_the_cpu(
    cp: ModuleType, rng: np.random.Generator, n: int, dim: int
) -> None:
    x = made_rows(rng, n, dim)
    assert_same(max_similarity(cp.asarray(x)), max_similarity(x))


@pytest.mark.parametrize("alike", [1e-3, 1e-6])
def test_what_there_is_no_room_for_is_compared_otherwise(
    cp: ModuleType, rng: np.random.Generator, crowded: None, alike: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = unit_rows(rng.normal(size=(1, 40)) + alike * rng.normal(size=(500, 40)))
    rows[:300] = unit_rows(rng.normal(size=(300, 40)))
    left_over = []
    monkeypatch.setattr("semdedup.dedup.kernels.best_match.compare", noting(left_over))
    assert_same(max_similarity(cp.asarray(rows)), max_similarity(rows))
    assert sorted(rest.queries for rest in left_over) == [(256, 384), (384, 500)]


def noting(left_over: list[tiles.Rectangle]) -> Any:
    def function(*arguments: Any) -> list[tiles.Rectangle]:
        rest = compare.compare(*arguments)
        left_over.extend(rest)
        return rest

    return function


@pytest.mark.parametrize("least", [0.9, 0.1, None])
def test_small_clusters_at_once_have_the_answer_of_the_cpu(
    cp: ModuleType, rng: np.random.Generator, least: float | None
) -> None:
    check_clusters(cp, rng, least)


@pytest.mark.parametrize("least", [0.9, 0.1, None])
def test_small_clusters_without_room_have_the_answer_of_the_cpu(
    cp: ModuleType, rng: np.random.Generator, least: float | None, crowded: None
) -> None:
    check_clusters(cp, rng, least)


def check_clusters(cp: ModuleType, rng: np.random.Generator, least: float | None) -> None:
    sizes = [3, 0, 1, 127, 128, 129, 2, 260]
    x = np.concatenate([made_rows(rng, size, 40, 1e-4) for size in sizes if size])
    starts = np.concatenate([[0], np.cumsum(sizes)])
    here, there = (None, None) if least is None else (Matches(least, 3000), Matches(least, 3000))
    assert_same(compare_many(cp.asarray(x), starts, 256, there), compare_many(x, starts, 256, here))
    if here is None or there is None:
        return
    if there.full:
        return  # room is for other numbers of candidates than on the CPU
    found, expected = there.pairs(), here.pairs()
    assert found is not None
    assert expected is not None
    of_gpu = sorted(zip(*map(np.ndarray.tolist, on_host(found)), strict=True))
    assert of_gpu == sorted(zip(*(np.asarray(part).tolist() for part in expected), strict=True))


@pytest.mark.parametrize("room", [None, "crowded"])
def test_queries_and_candidates_with_ranks(
    cp: ModuleType, rng: np.random.Generator, room: str | None, request: pytest.FixtureRequest
) -> None:
    if room:
        request.getfixturevalue(room)
    rows = made_rows(rng, 700, 20)
    queries, candidates = rows[:290], rows[300:]
    ranks = rng.permutation(2000)
    query_ranks, candidate_ranks = np.sort(ranks[:290]), np.sort(ranks[300:700])
    arrays = queries, query_ranks, candidates, candidate_ranks
    assert_same(best_match(*map(cp.asarray, arrays)), best_match(*arrays))


@pytest.mark.parametrize("groups", [None, np.arange(300) // 70])
def test_copies_are_those_that_numpy_finds(cp: ModuleType, rng: np.random.Generator, groups: np.ndarray | None) -> None:
    rows = rng.normal(size=(300, 40)).astype(np.float32)[rng.integers(100, size=300)]
    rows[200:, 39] = np.where(rng.random(100) < 0.5, 0, -0.0)  # whose bits differ
    of_cpu = occurrences(rows, groups)
    assert_same(occurrences(cp.asarray(rows), None if groups is None else cp.asarray(groups)), of_cpu)
    assert len(of_cpu[0]) < 250


def test_all_candidates_are_noted_where_there_is_just_room(cp: ModuleType, rng: np.random.Generator) -> None:
    n = 200
    x = made_rows(rng, n, 50)
    there, everything = cp.asarray(x), [tiles.Rectangle((0, n), (0, n), within=True)]
    for room in (n * (n - 1) // 2, 500):
        search = compare.Search(there, there, cp.arange(n, dtype=np.int32), capacity=room)
        assert search.propose(everything, np.float32(-2)) == n * (n - 1) // 2  # a match that every pair is
        queries, candidates, products = (array.get() for array in search.found)
        assert len(set(zip(queries.tolist(), candidates.tolist(), strict=True))) == room
        assert (candidates < queries).all()
        error = halves.half_error(2**-11, 2**-11, 50)
        assert np.abs(products - (x[queries].astype(np.float64) * x[candidates]).sum(axis=1)).max() < error


def test_candidates_beyond_a_rectangle_are_not_looked_at(cp: ModuleType, rng: np.random.Generator) -> None:
    x = made_rows(rng, 300, 20)
    score, position = cp.zeros(140, dtype=np.float32), cp.full(140, -1)
    part = [tiles.Rectangle((0, 140), (3, 50))]
    eligible = cp.full(140, 160, dtype=np.int32)
    assert compare.compare(cp.asarray(x[160:]), cp.asarray(x[:160]), eligible, part, score, position) == []
    ranks = np.arange(47), np.full(140, 47)
    expected = best_match(x[160:], ranks[1], x[3:50], ranks[0])
    assert_same((score, position), (expected.score, np.where(expected.score > 0, expected.position + 3, -1)))


def test_how_much_is_launched_does_not_depend_on_the_number_of_rows(cp: ModuleType, rng: np.random.Generator) -> None:
    """A large cluster takes at most 30 launches and 3 times that the host waits; many small ones no more of them."""
    counted = getattr(cp, "COUNT", None)
    if counted is None:
        pytest.skip("a GPU does not count")
    counts = []
    for sizes in ([300], [2100], [90] * 20):
        rows = cp.asarray(made_rows(rng, sum(sizes), 8))
        counted.clear()
        if len(sizes) == 1:
            max_similarity(rows)
        else:
            compare_many(rows, np.concatenate([[0], np.cumsum(sizes)]), 1024)
        counts.append(dict(counted))
    assert counts[0] == counts[1]
    assert all(count["kernels"] <= 30 and count["waits"] <= 3 for count in counts), counts


def test_seeds_are_those_of_the_cpu_and_no_seed_is_waited_for(cp: ModuleType, rng: np.random.Generator) -> None:
    rows = np.repeat(made_rows(rng, 400, 24), 5, axis=0)  # of rows that are equally good the first drawn is taken
    for k in (2, 40, 300):
        of_cpu = seeds(rows, k, np.random.default_rng(3))
        counted = getattr(cp, "COUNT", {})
        counted.clear()
        np.testing.assert_array_equal(seeds(cp.asarray(rows), k, np.random.default_rng(3)), of_cpu)
        if counted:
            assert counted["waits"] <= k / 2 + 5
