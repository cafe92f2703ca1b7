"""Arithmetic that gives the same bits in any company."""

import math
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup.arrays import to_host
from semdedup.dedup.exact import (
    best_per_row,
    exact_dot,
    exact_square_distance,
    near_best,
    on_grid,
    pairwise_sum,
    product_error,
    unit_rows,
)

WIDTHS = [1, 2, 7, 8, 9, 100, 127, 128, 129, 256, 384, 513, 768, 1536]


@pytest.mark.parametrize("width", WIDTHS)
def test_the_order_spelled_out_is_the_one_of_numpy(rng: np.random.Generator, width: int) -> None:
    terms = rng.standard_normal((50, width)) * 10.0 ** rng.integers(-8, 8, size=(50, width))
    np.testing.assert_array_equal(pairwise_sum(terms), np.add.reduce(terms, axis=1))


@pytest.mark.parametrize("dim", WIDTHS)
def test_a_row_has_the_same_bits_alone_and_in_company(xp: ModuleType, rng: np.random.Generator, dim: int) -> None:
    left, right = (xp.asarray(rng.standard_normal((700, dim)).astype(np.float32)) for _ in range(2))
    together = to_host(exact_dot(left, right))
    rows = xp.asarray(rng.permutation(700)[:40])
    np.testing.assert_array_equal(to_host(exact_dot(left, right, rows, rows)), together[to_host(rows)])
    assert to_host(exact_dot(left[5:6], right[5:6]))[0] == together[5]
    expected = [math.fsum(a * b for a, b in zip(x, y, strict=True)) for x, y in zip(*(to_host(part)[:20].astype(float).tolist() for part in (left, right)), strict=True)]  # fmt: skip  # noqa: E501
    np.testing.assert_allclose(together[:20], expected, rtol=0, atol=1e-12)  # d roundings of 2**-53, of values below 10


def test_square_distances_are_those_of_the_difference(xp: ModuleType, rng: np.random.Generator) -> None:
    left = rng.standard_normal((30, 5)).astype(np.float32)
    right = rng.standard_normal((4, 5)).astype(np.float32)
    rows = rng.integers(4, size=30)
    found = exact_square_distance(xp.asarray(left), xp.asarray(right), xp.asarray(rows))
    expected = ((left.astype(float) - right[rows]) ** 2).sum(axis=1)
    np.testing.assert_allclose(to_host(found), expected, rtol=1e-14)
    assert to_host(exact_square_distance(xp.asarray(right), xp.asarray(right), xp.arange(4))).tolist() == [0] * 4


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32), st.sampled_from([1, 3, 64, 768, 4096]))
def test_the_error_bound_holds_for_float32_products(seed: int, dim: int) -> None:
    rows = unit_rows(np.random.default_rng(seed).standard_normal((40, dim)).astype(np.float32))
    products = rows @ rows.T
    true = rows.astype(np.float64) @ rows.astype(np.float64).T
    assert np.abs(products - true).max() <= product_error(dim)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_rows_are_normalised_alike_in_any_company_and_only_once(
    xp: ModuleType, rng: np.random.Generator, dtype: type
) -> None:
    rows = xp.asarray((rng.standard_normal((600, 96)) * 3).astype(dtype))
    unit = unit_rows(rows)
    assert unit.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(to_host(unit).astype(float), axis=1), 1, atol=1e-7)
    np.testing.assert_array_equal(to_host(unit_rows(rows[17:18])), to_host(unit)[17:18])
    np.testing.assert_array_equal(to_host(unit_rows(unit)), to_host(unit))


@pytest.mark.parametrize(
    ("scale", "dtype"), [(1e30, np.float32), (1e-30, np.float32), (1e200, np.float64), (1e-200, np.float64)]
)
def test_very_long_and_very_short_rows_are_normalised(scale: float, dtype: type) -> None:
    rows = np.array([[3, 4], [-4, 3]], dtype=np.float64) * scale
    np.testing.assert_allclose(unit_rows(rows.astype(dtype)), [[0.6, 0.8], [-0.8, 0.6]], rtol=1e-6)


def test_scaling_by_a_power_of_two_changes_no_bit(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((50, 40)).astype(np.float32) * 5
    np.testing.assert_array_equal(unit_rows(rows), unit_rows(rows * np.float32(1024)))


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32))
def test_float64_sums_of_grid_values_do_not_depend_on_their_order(seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = on_grid(unit_rows(rng.standard_normal((3000, 4)).astype(np.float32)), 30).astype(np.float64)
    shuffled = values[rng.permutation(3000)]
    np.testing.assert_array_equal(values.sum(axis=0), shuffled.sum(axis=0))
    np.testing.assert_array_equal(values.sum(axis=0), np.add.accumulate(shuffled, axis=0)[-1])


@pytest.mark.parametrize("dim", [3, 256, 1536])
def test_float32_products_of_grid_rows_are_exact(rng: np.random.Generator, dim: int) -> None:
    rows = on_grid(unit_rows(rng.standard_normal((100, dim)).astype(np.float32)), 11)
    np.testing.assert_array_equal(rows @ rows.T, rows.astype(np.float64) @ rows.astype(np.float64).T)


def test_candidates_are_all_values_that_may_be_the_largest(xp: ModuleType) -> None:
    values = xp.asarray([[0.5, 0.9, 0.9001], [0.1, -1.0, 0.0]], dtype=np.float32)
    rows, columns = near_best(values, values.max(axis=1), 0.001)
    assert list(zip(to_host(rows).tolist(), to_host(columns).tolist(), strict=True)) == [(0, 1), (0, 2), (1, 0)]


def test_of_equal_values_the_lowest_column_wins(xp: ModuleType) -> None:
    rows, columns = xp.asarray([0, 0, 0, 2]), xp.asarray([9, 4, 5, 1])
    values = xp.asarray([1.0, 2.0, 2.0, -3.0])
    best, column = best_per_row(rows, columns, values, 3)
    assert to_host(best).tolist() == [2, -np.inf, -3]
    assert to_host(column).tolist() == [4, np.iinfo(np.int64).max, 1]
