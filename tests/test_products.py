"""The bound of what a product may be off, for every precision, and that the answer does not depend on the precision."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import max_similarity
from semdedup.dedup.kernels import exact, products
from semdedup.dedup.kernels.exact import rounded_dot, unit_rows
from semdedup.dedup.kernels.products import (
    BytePrecision,
    Factor,
    HalfPrecision,
    SinglePrecision,
    precisions_for,
    precisions_for_labels,
    products_error,
)

needs_numkong = pytest.mark.skipif(products.numkong is None, reason="NumKong has no wheel for this platform")
PRECISIONS = [
    SinglePrecision,
    pytest.param(HalfPrecision, marks=needs_numkong),
    pytest.param(BytePrecision, marks=needs_numkong),
]


def multiplied(left: Factor, right: Factor, n: int, m: int) -> np.ndarray:
    out = np.empty((n, m), dtype=np.float32)
    left.multiply(0, n, right.pack(0, m), out)
    return out


def unlike(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Rows of length 1 whose elements are of very different size."""
    return unit_rows(rng.standard_normal((n, d)) * 10.0 ** rng.uniform(-45, 0, (n, d)))


def alike(rng: np.random.Generator, n: int, d: int) -> np.ndarray:
    """Rows that point the same way, so that errors of the same sign add up."""
    return unit_rows(1 + 1e-2 * rng.random((n, d)))


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("make", [unlike, alike])
@given(seed=st.integers(0, 2**32), d=st.integers(1, 400), length=st.sampled_from([1.0, 1e-3, 0.6]))
def test_no_product_is_off_by_more_than_the_bound(precision, make, seed: int, d: int, length: float) -> None:
    rng = np.random.default_rng(seed)
    rows, others = make(rng, 40, d), np.float32(length) * make(rng, 30, d)
    left, right = precision(rows), precision(others, length)
    off = np.abs(multiplied(left, right, 40, 30) - rows.astype(np.float64) @ others.astype(np.float64).T)
    assert off.max() <= products_error(left, right, d)
    passing = precision(rows, passing=True)
    off = np.abs(multiplied(passing, right, 40, 30) - rows.astype(np.float64) @ others.astype(np.float64).T)
    assert off.max() <= products_error(passing, right, d)


@needs_numkong
def test_bfloat16_is_rounded_to_the_nearest() -> None:
    """Of all its values, and of what lies just before, half-way and just after between each and the next."""
    between = np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
    values = (np.arange(1 << 16, dtype=np.uint32)[:, None] << 16 | between).view(np.float32).reshape(-1, 1)
    values = np.ascontiguousarray(values[np.abs(values[:, 0]) <= 2])  # not those that are no number, or infinite
    halves = np.empty(values.shape, np.uint16)
    target = products.numkong.from_pointer(halves.ctypes.data, halves.shape, "bfloat16", owner=halves)
    products.numkong.astype(values, "bfloat16", out=target)
    rounded = (halves.astype(np.uint32) << 16).view(np.float32)
    off = np.abs(rounded.astype(np.float64) - values)
    assert (off <= np.maximum(2.0**-8 * np.abs(values), 2.0**-134)).all()


@needs_numkong
def test_the_bound_of_half_precision_is_measured_and_of_use(rng: np.random.Generator) -> None:
    rows = HalfPrecision(unit_rows(rng.standard_normal((500, 256))))
    assert 2**-10 < rows.deviation < 2**-8, "the unit roundoff of bfloat16 is 2**-8"
    assert products_error(rows, rows, 256) < 0.005
    held = HalfPrecision(np.eye(64, dtype=np.float32))
    assert held.deviation < 1e-12, "bfloat16 holds these rows"


@needs_numkong
def test_the_bound_of_bytes_is_measured_and_of_use(rng: np.random.Generator) -> None:
    rows = BytePrecision(unit_rows(rng.standard_normal((500, 256))))
    assert 0.005 < rows.deviation < 0.015
    assert products_error(rows, rows, 256) < 0.03
    held = BytePrecision(np.eye(64, dtype=np.float32))
    assert held.deviation < 1e-5, "bytes hold these rows, but for what stretching may round"


@needs_numkong
def test_passing_rows_are_stretched_one_by_one(rng: np.random.Generator) -> None:
    rows = unit_rows(rng.standard_normal((40, 64))) * np.geomspace(1e-3, 1, 40, dtype=np.float32)[:, None]
    right = BytePrecision(unit_rows(rng.standard_normal((30, 64))))
    left = BytePrecision(rows, passing=True)
    found, true = multiplied(left, right, 40, 30), rows @ right.rows.T * right.scales[0]
    assert (np.abs(found - true).max(axis=1) < 0.1 * np.linalg.norm(rows, axis=1)).all()


@pytest.mark.parametrize("precision", PRECISIONS[1:])
def test_parts_of_a_factor_are_multiplied_as_the_whole(precision, rng: np.random.Generator) -> None:
    rows = precision(unit_rows(rng.standard_normal((90, 70))))
    whole = multiplied(rows, rows, 90, 90)
    out = np.empty((30, 20), dtype=np.float32)
    rows.multiply(40, 70, rows.pack(5, 25), out)
    np.testing.assert_allclose(out, whole[40:70, 5:25], atol=1e-5)


def test_float32_comes_last_and_alone_where_nothing_else_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "has_bfloat16_matrices", lambda: True)
    large, narrow = np.empty((1000, 64), dtype=np.float32), np.empty((1000, 8), dtype=np.float32)
    assert precisions_for(large, large) == [HalfPrecision, SinglePrecision]
    assert precisions_for(narrow, narrow) == [SinglePrecision]
    assert precisions_for(large[:10], large[:10]) == [SinglePrecision]
    monkeypatch.setattr(products, "has_byte_products", lambda: False)
    assert precisions_for_labels(large, large) == [HalfPrecision, SinglePrecision]
    monkeypatch.setattr(products, "has_bfloat16_matrices", lambda: False)
    assert precisions_for(large, large) == precisions_for_labels(large, large) == [SinglePrecision]
    monkeypatch.setattr(products, "has_byte_products", lambda: True)
    assert precisions_for(large, large) == [SinglePrecision]
    assert precisions_for_labels(large, large) == [BytePrecision, SinglePrecision]
    assert precisions_for_labels(narrow, narrow) == [SinglePrecision]
    assert precisions_for_labels(*[np.empty((256, 1 + (1 << 17)), dtype=np.float32)] * 2) == [SinglePrecision]


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({}, False),
        ({"haswell": True, "skylake": True}, False),
        ({"genoa": True, "sapphireamx": True, "sapphire": True}, True),
        ({"genoa": True, "sapphire": True}, False),
        ({"genoa": True, "sapphire": False}, True),
    ],
    ids=["none", "AVX-512 without bfloat16", "AMX", "Intel's without AMX", "AMD's since Zen 4"],
)
def test_bfloat16_is_taken_where_it_is_faster_than_float32(
    monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], expected: bool
) -> None:
    monkeypatch.setattr(products, "numkong", SimpleNamespace(get_capabilities=lambda: capabilities))
    products.has_bfloat16_matrices.cache_clear()
    assert products.has_bfloat16_matrices() == expected
    products.has_bfloat16_matrices.cache_clear()


def test_the_answer_is_the_same_without_numkong(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = unit_rows(rng.standard_normal((900, 48)) + 1)
    rows[500:] = rows[:400] + np.float32(1e-4) * rows[100:500]
    rows = unit_rows(rows)
    found = max_similarity(rows)
    products.has_bfloat16_matrices.cache_clear()
    for module in (exact, products):
        monkeypatch.setattr(module, "numkong", None)
    np.testing.assert_array_equal(max_similarity(rows), found)
    products.has_bfloat16_matrices.cache_clear()


@given(seed=st.integers(0, 2**32), d=st.integers(1, 300), scale=st.sampled_from([0.0, 2.0**-24, 1.0]))
def test_a_rounded_dot_has_the_bits_of_the_exact_one(seed: int, d: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    rows = unit_rows(1 + scale * rng.standard_normal((60, d)))
    left, right = rng.integers(60, size=200), rng.integers(60, size=200)
    expected = exact.exact_dot(rows, rows, left, right).astype(np.float32)
    np.testing.assert_array_equal(rounded_dot(rows, rows, left, right), expected)


def test_sums_that_lie_between_two_float32_are_decided_in_the_fixed_order(monkeypatch: pytest.MonkeyPatch) -> None:
    half = 2.0**-25  # x·y = 1/2 + 2**-25, halfway between two float32
    left = np.array([[0.5, half**0.5 * 2**0.5, 0.0]], dtype=np.float32)
    left[0, 1:] = 2.0**-12, 2.0**-12
    right = np.array([[1.0, 2.0**-14, 2.0**-14]], dtype=np.float32)
    asked, exact_dot = [], exact.exact_dot
    monkeypatch.setattr(exact, "exact_dot", lambda *args: asked.append(len(args[2])) or exact_dot(*args))
    zero = np.zeros(1, dtype=np.int64)
    expected = exact_dot(left, right, zero, zero).astype(np.float32)
    np.testing.assert_array_equal(rounded_dot(left, right, zero, zero), expected)
    assert asked == [1]
