"""Ids and their hash."""

import numpy as np
import pyarrow as pa
import pytest

from semdedup.dedup.ids import hash_ids, id_type

TEXT = pa.array([f"clip/{i}…" for i in range(1000)])


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
