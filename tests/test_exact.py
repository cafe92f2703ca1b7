"""Arithmetic that gives the same bits in any company."""

import math
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup.arrays import to_host
from semdedup.dedup.kernels.exact import (
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
    first, second = to_host(left).astype(float), to_host(right).astype(float)
    expected = [math.fsum(x * y) for x, y in zip(first[:20], second[:20], strict=True)]
    np.testing.assert_allclose(together[:20], expected, rtol=0, atol=1e-12)  # d roundings of 2**-53, of values below 10


@given(
    seed=st.integers(0, 2**32),
    dim=st.integers(1, 300),
    pairs=st.lists(st.tuples(st.integers(0, 29), st.integers(0, 9)), max_size=60),
)
def test_a_pair_has_the_same_bits_in_any_selection_and_order(
    xp: ModuleType, seed: int, dim: int, pairs: list[tuple[int, int]]
) -> None:
    rng = np.random.default_rng(seed)
    left, right = (rng.standard_normal((n, dim)).astype(np.float32) for n in (30, 10))
    rows, columns = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    chosen = to_host(exact_dot(*map(xp.asarray, (left, right, rows, columns))))
    alone = [to_host(exact_dot(xp.asarray(left[i : i + 1]), xp.asarray(right[j : j + 1])))[0] for i, j in pairs]
    np.testing.assert_array_equal(chosen, np.array(alone, dtype=np.float64))
    swapped = to_host(exact_dot(*map(xp.asarray, (right, left, columns, rows))))
    np.testing.assert_array_equal(chosen, swapped)


def test_square_distances_are_those_of_the_difference(xp: ModuleType, rng: np.random.Generator) -> None:
    left = rng.standard_normal((30, 5)).astype(np.float32)
    right = rng.standard_normal((4, 5)).astype(np.float32)
    rows = rng.integers(4, size=30)
    found = exact_square_distance(xp.asarray(left), xp.asarray(right), xp.asarray(rows))
    expected = ((left.astype(float) - right[rows]) ** 2).sum(axis=1)
    np.testing.assert_allclose(to_host(found), expected, rtol=1e-14)
    assert to_host(exact_square_distance(xp.asarray(right), xp.asarray(right), xp.arange(4))).tolist() == [0] * 4


def gaussian(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    return rng.standard_normal((n, dim))


def constant(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """All products of one sign, so that roundings do not cancel."""
    return np.ones((n, dim)) + 1e-3 * rng.random((n, dim))


def spiked(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Elements of very different sizes, down to products below the smallest normal float32."""
    return rng.standard_normal((n, dim)) * 10.0 ** rng.integers(-30, 1, (n, dim)) + 1e-30


@pytest.mark.parametrize(
    "make", [gaussian, pytest.param(constant, marks=pytest.mark.slow), spiked], ids=["gaussian", "constant", "spiked"]
)
@given(seed=st.integers(0, 2**32), dim=st.sampled_from([1, 3, 64, 768, 4096]), rows=st.integers(1, 40))
def test_the_error_bound_holds_for_float32_products_of_any_block(
    xp: ModuleType, make: Callable, seed: int, dim: int, rows: int
) -> None:
    left = unit_rows(make(np.random.default_rng(seed), 40, dim))
    products = to_host(xp.asarray(left[:rows]) @ xp.asarray(left).T)
    true = left[:rows].astype(np.float64) @ left.astype(np.float64).T
    assert np.abs(products - true).max() <= product_error(dim)


def test_the_error_bound_is_not_vacuous() -> None:
    assert [product_error(dim) < 1e-4 for dim in (1, 256, 1536)] == [True] * 3
    assert product_error(512) > product_error(511) > 511 * 2.0**-24


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


@given(
    rows=st.lists(st.lists(st.floats(-1e4, 1e4, width=16), min_size=3, max_size=3).filter(any), min_size=1, max_size=9),
    exponent=st.integers(-100, 100),
)
def test_a_row_has_the_same_bits_in_any_type_scale_and_company_and_the_second_time(
    xp: ModuleType, rows: list[list[float]], exponent: int
) -> None:
    given = np.array(rows, dtype=np.float16)
    unit = to_host(unit_rows(xp.asarray(given)))
    for same in (given.astype(np.float32), given.astype(np.float64), given.astype(np.float64) * 2.0**exponent, unit):
        np.testing.assert_array_equal(to_host(unit_rows(xp.asarray(same))), unit)
    for row, expected in zip(given, unit, strict=True):
        np.testing.assert_array_equal(to_host(unit_rows(xp.asarray(row[None])))[0], expected)


def test_rows_are_normalised_into_the_place_that_is_given(xp: ModuleType, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((20, 4))
    rows.setflags(write=False)
    out = xp.zeros((30, 4), dtype=np.float32)
    unit_rows(xp.asarray(rows), out=out[5:25])
    np.testing.assert_array_equal(to_host(out[5:25]), to_host(unit_rows(xp.asarray(rows))))
    assert not out[:5].any()
    assert not out[25:].any()


@pytest.mark.parametrize(
    ("scale", "dtype"),
    [(1e30, np.float32), (1e-30, np.float32), (1e-44, np.float32), (1e200, np.float64), (1e-320, np.float64)],
)
def test_very_long_and_very_short_rows_are_normalised(scale: float, dtype: type) -> None:
    rows = (np.array([[3, 4], [-4, 3]]) * scale).astype(dtype)
    whole = rows / rows.max()  # what is left of 3 : 4 where there are no more digits
    expected = whole / np.linalg.norm(whole, axis=1, keepdims=True)
    np.testing.assert_allclose(unit_rows(rows), expected, rtol=1e-6)


def test_scaling_by_a_power_of_two_changes_no_bit(rng: np.random.Generator) -> None:
    rows = rng.standard_normal((50, 40)).astype(np.float32) * 5
    np.testing.assert_array_equal(unit_rows(rows), unit_rows(rows * np.float32(1024)))


@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 3000), max_size=5))
def test_float64_sums_of_grid_values_do_not_depend_on_their_order(seed: int, cuts: list[int]) -> None:
    rng = np.random.default_rng(seed)
    values = on_grid(unit_rows(rng.standard_normal((3000, 4))), 30).astype(np.float64)
    total = values.sum(axis=0)
    shuffled = values[rng.permutation(3000)]
    np.testing.assert_array_equal(shuffled.sum(axis=0), total)
    np.testing.assert_array_equal(np.add.accumulate(shuffled, axis=0)[-1], total)
    np.testing.assert_array_equal(sum(part.sum(axis=0) for part in np.split(shuffled, sorted(cuts))), total)
    assert total.tolist() == [math.fsum(column) for column in values.T]


@given(value=st.floats(-1, 1, width=32), bits=st.sampled_from([11, 30]))
def test_the_grid_is_the_nearest_multiple(xp: ModuleType, value: float, bits: int) -> None:
    rounded = to_host(on_grid(xp.asarray([[value]], dtype=np.float32), bits))
    assert rounded.dtype == np.float32
    assert float(rounded[0, 0]) * 2**bits == round(value * 2**bits)


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


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_zeros_of_both_signs_are_equal(xp: ModuleType, dtype: type) -> None:
    best, column = best_per_row(xp.asarray([0, 0]), xp.asarray([3, 8]), xp.asarray([-0.0, 0.0], dtype=dtype), 1)
    assert (to_host(best)[0], to_host(column)[0]) == (0, 3)


@given(
    base=st.sampled_from([-1.0, -1e-300, 0.0, 1e-300, 0.5, 1.0, 1e300]),
    steps=st.lists(st.tuples(st.integers(0, 3), st.integers(-3, 3)), min_size=1, max_size=30),
)
def test_the_best_is_told_apart_to_the_last_bit_of_float64(
    xp: ModuleType, base: float, steps: list[tuple[int, int]]
) -> None:
    values = base + np.array([step for _, step in steps]) * (np.spacing(base) if base else 5e-324)
    rows, columns = np.array([row for row, _ in steps]), np.arange(len(steps))[::-1].copy()
    best, column = map(to_host, best_per_row(*map(xp.asarray, (rows, columns, values)), 4))
    for row in range(4):
        own = [(-value, c) for r, c, value in zip(rows, columns, values, strict=True) if r == row]
        value, first = min(own, default=(np.inf, np.iinfo(np.int64).max))
        assert (best[row], column[row]) == (-value, first)


def test_differences_below_float32_decide(xp: ModuleType) -> None:
    values = xp.asarray([1, 1 + 2.0**-30, 1 - 2.0**-30, -1, -1 - 2.0**-30])
    best, column = best_per_row(xp.asarray([0, 0, 0, 1, 1]), xp.asarray([0, 1, 2, 4, 3]), values, 2)
    assert to_host(best).tolist() == [1 + 2.0**-30, -1]
    assert to_host(column).tolist() == [1, 4]


@given(
    st.lists(st.lists(st.floats(-1, 1, width=32), min_size=5, max_size=5), min_size=1, max_size=6),
    st.sampled_from([0.0, 1e-6, 0.1]),
)
def test_no_value_that_may_be_the_largest_is_missed(xp: ModuleType, values: list[list[float]], error: float) -> None:
    array = np.array(values, dtype=np.float32)
    rows, columns = (to_host(part) for part in near_best(*map(xp.asarray, (array, array.max(axis=1))), error))
    found = list(zip(rows.tolist(), columns.tolist(), strict=True))
    assert found == sorted(set(found))
    best = array.max(axis=1).astype(float)
    possible = np.argwhere(array.astype(float) + error >= best[:, None] - error)
    assert set(map(tuple, possible.tolist())) <= set(found)


@given(
    st.dictionaries(
        st.tuples(st.integers(0, 4), st.integers(0, 9)), st.sampled_from([-1.0, -0.5, 0.0, 0.5]), max_size=20
    )
)
def test_the_best_of_sparse_entries_is_found_in_any_order(xp: ModuleType, entries: dict) -> None:
    rows = xp.asarray([row for row, _ in entries], dtype=np.int64)
    columns = xp.asarray([column for _, column in entries], dtype=np.int64)
    best, column = map(to_host, best_per_row(rows, columns, xp.asarray([*entries.values()], dtype=np.float32), 5))
    for row in range(5):
        own = [(-value, c) for (r, c), value in entries.items() if r == row]
        value, first = min(own, default=(np.inf, np.iinfo(np.int64).max))
        assert (best[row], column[row]) == (-value, first)
