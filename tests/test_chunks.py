"""Files of chunks: each is a range of bytes, neighbours are one request, and their ends are few bytes of JSON."""

import json
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup.storage.arrays import pack_ends, unpack_ends
from semdedup.storage.chunks import read_chunk, read_chunks, read_every_chunk, write_chunks
from semdedup.storage.location import Location


@given(steps=st.lists(st.one_of(st.integers(0, 300), st.integers(0, 2**52)), max_size=40))
def test_packed_ends_are_the_same_numbers(steps: list[int]) -> None:
    ends = np.cumsum(steps, dtype=np.int64)
    packed = json.loads(json.dumps(pack_ends(ends)))
    assert unpack_ends(packed).dtype == np.int64
    assert unpack_ends(packed).tolist() == ends.tolist()


@pytest.mark.parametrize(("mean", "most"), [(4, 0.7), (23_000, 3.0), (2_300_000, 4.5)])
def test_thousands_of_ends_take_a_few_bytes_each(rng: np.random.Generator, mean: int, most: float) -> None:
    ends = np.cumsum(rng.poisson(mean, size=20_000))
    assert len(pack_ends(ends)) < most * len(ends) < len(json.dumps(ends.tolist())) / 2


def test_runs_of_chunks_are_read_by_their_bytes_alone(root: Location, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = [3, 0, 5, 1, 0, 0, 7]
    starts = np.cumsum([0, *sizes])
    batches = [
        pa.record_batch({"n": np.arange(low, high), "text": [f"row {n}" for n in range(low, high)]})
        for low, high in pairwise(starts.tolist())
    ]
    file = root / "chunks"
    edges = [0, *write_chunks(file, batches)]
    spans = [(first, last) for first in range(7) for last in range(first + 1, 8)]
    asked = []
    read = Location.read_bytes
    read_into = Location.read_into
    monkeypatch.setattr(Location, "read_bytes", lambda self, *span: asked.append(span) or read(self, *span))
    monkeypatch.setattr(
        Location,
        "read_into",
        lambda self, start, memory: asked.append((start, start + len(memory))) or read_into(self, start, memory),
    )
    found = list(read_chunks([(file, edges[first], edges[last]) for first, last in spans]))
    for (first, last), of_run in zip(spans, found, strict=True):
        rows = [number for batch in of_run for number in batch.column("n").to_pylist()]
        assert rows == list(range(starts[first], starts[last]))
    assert sorted(asked) == sorted(
        span for first, last in spans if (span := (edges[first], edges[last])) and span[0] < span[1]
    )
    assert read_chunk(file, edges[2], edges[3]).equals(batches[2])
    assert [batch for batch in batches if len(batch)] == read_every_chunk(file)


def test_no_chunks_are_read_by_no_request(root: Location) -> None:
    assert list(read_chunks([])) == []
