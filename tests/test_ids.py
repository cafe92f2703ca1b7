"""Ids and their hash."""

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup.dedup.input.ids import hash_ids, id_type

TEXT = pa.array([f"clip/{i}…" for i in range(1000)])


@given(
    ids=st.lists(st.text(max_size=6), max_size=20) | st.lists(st.integers(-(2**63), 2**63 - 1), max_size=20),
    cuts=st.lists(st.integers(0, 20), max_size=4),
    seed=st.integers(-(2**63), 2**64 - 1),
)
def test_an_id_has_its_hash_wherever_it_stands(ids: list[str] | list[int], cuts: list[int], seed: int) -> None:
    kind = pa.string() if all(isinstance(value, str) for value in ids) else pa.int64()
    alone = [hash_ids(pa.array([value], kind), seed)[0] for value in ids]
    whole = pa.array(ids, kind)
    edges = [0, *sorted(min(cut, len(ids)) for cut in cuts), len(ids)]
    chunked = pa.chunked_array([whole.slice(start, stop - start) for start, stop in pairwise(edges)], type=kind)
    for found in (hash_ids(whole, seed), hash_ids(chunked, seed), hash_ids(whole[::-1], seed)[::-1]):
        assert found.dtype == np.uint64
        np.testing.assert_array_equal(found, np.array(alone, dtype=np.uint64))


@pytest.mark.parametrize("narrow", [pa.int8(), pa.uint16(), pa.int32()], ids=str)
def test_a_number_has_one_hash_in_every_type(narrow: pa.DataType) -> None:
    ids = pa.array([0, 1, 7, 127], narrow)
    np.testing.assert_array_equal(hash_ids(ids, 3), hash_ids(ids.cast(pa.int64()), 3))
    np.testing.assert_array_equal(hash_ids(ids, 3), hash_ids(ids.cast(pa.uint64()), 3))


def test_null_ids_disturb_no_other() -> None:
    for whole, holed in (([1, 2, 3], [1, None, 3]), (["a", "b", "c"], ["a", None, "c"])):
        np.testing.assert_array_equal(hash_ids(pa.array(holed), 5)[[0, 2]], hash_ids(pa.array(whole), 5)[[0, 2]])


def test_the_hash_is_the_one_that_earlier_versions_gave() -> None:
    """The fit's sample and random ranks follow from it: a run that is resumed with a newer version needs the same."""
    assert hash_ids(pa.array(["clip-0", "é"]), 42).tolist() == [6_517_299_170_990_001_954, 17_413_489_771_473_228_592]
    assert hash_ids(pa.array([0, -1]), 42).tolist() == [12_870_963_724_712_631_011, 14_312_216_795_054_535_368]


def test_the_hash_depends_on_the_id_and_the_seed_alone() -> None:
    whole = hash_ids(TEXT, 1)
    np.testing.assert_array_equal(hash_ids(TEXT.slice(10, 20), 1), whole[10:30])
    np.testing.assert_array_equal(hash_ids(pa.chunked_array([TEXT.slice(0, 3), TEXT.slice(3)]), 1), whole)
    np.testing.assert_array_equal(hash_ids(TEXT.take(pa.array([5, 1])), 1), whole[[5, 1]])
    for other in (pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        np.testing.assert_array_equal(hash_ids(TEXT.cast(other).cast(id_type(other)), 1), whole)
    assert (hash_ids(TEXT, 2) != whole).all()


@pytest.mark.parametrize(
    "ids", [pa.array(range(100_000)), pa.array([f"clip-{i}" for i in range(100_000)])], ids=["int", "text"]
)
def test_hashes_are_distinct_and_uniform(ids: pa.Array) -> None:
    hashes = hash_ids(ids, 42)
    assert len(np.unique(hashes)) == len(ids)
    shares = np.histogram(hashes.astype(np.float64), bins=16, range=(0, 2.0**64))[0] / len(ids)
    np.testing.assert_allclose(shares, 1 / 16, atol=0.005)  # five standard deviations


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (pa.string(), pa.string()), (pa.large_string(), pa.string()), (pa.string_view(), pa.string()),
        (pa.dictionary(pa.int8(), pa.large_string()), pa.string()), (pa.int8(), pa.int64()), (pa.uint32(), pa.int64()),
        (pa.uint64(), pa.uint64()), (pa.float64(), None), (pa.list_(pa.int8()), None), (pa.timestamp("s"), None),
    ],
    ids=str,
)  # fmt: skip
def test_ids_are_text_or_whole_numbers(found: pa.DataType, expected: pa.DataType | None) -> None:
    assert id_type(found) == expected


def test_uniform_for_any_seed_and_seeds_are_unrelated() -> None:
    ids = pa.array(range(4096))
    low = [hash_ids(ids, seed) < np.uint64(2**63) for seed in (0, 1, 2, 3)]
    for i, one in enumerate(low):
        assert abs(one.mean() - 0.5) < 0.04  # five standard deviations
        for other in low[:i]:
            assert abs((one ^ other).mean() - 0.5) < 0.04
