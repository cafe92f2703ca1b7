"""The sample to fit on, its seeds in one level and in two, the sums of the fit: the cut into parts changes nothing."""

from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup.compute.session import Session
from semdedup.dedup.cluster import seed as seeding
from semdedup.dedup.cluster.draw import Sample, sample_parts
from semdedup.dedup.cluster.fit import fit_centroids, share_parts
from semdedup.dedup.cluster.seed import choose_seeds, in_two_levels, seeding_rows
from semdedup.dedup.input.scan import SAMPLE_ROWS, Workspace, write_sample
from semdedup.dedup.kernels.exact import on_grid, unit_rows
from semdedup.dedup.kernels.kmeans import SUM_GRID_BITS, converged, lloyd_sums, next_centroids, seeds
from semdedup.dedup.kernels.thinning import keep_centers
from semdedup.dedup.options import KMeansOptions
from semdedup.storage.arrays import pack_ends, unpack_ends
from semdedup.storage.chunks import read_chunks
from semdedup.storage.location import Location
from tests.records import session_on


@pytest.fixture(scope="module")
def here(inside: distributed.Client) -> Session:
    return session_on(inside)


def sample_of(session: Session, rows: np.ndarray, n_parts: int) -> Sample:
    """A sample whose hashes go with the rows, cut into parts."""
    hashes = np.random.default_rng(5).permutation(len(rows)).astype(np.uint64)
    parts = [part[np.argsort(hashes[part])] for part in np.array_split(np.arange(len(rows)), n_parts)]
    futures = [session.client.submit(np.copy, rows[part], pure=False) for part in parts]
    return Sample(futures, [hashes[part] for part in parts])


def grouped(rng: np.random.Generator, n_rows: int, n_groups: int, dim: int) -> np.ndarray:
    centers = unit_rows(rng.normal(size=(n_groups, dim)).astype(np.float32))
    noise = rng.normal(scale=0.4 / dim**0.5, size=(n_rows, dim))
    rows = unit_rows((centers[rng.integers(n_groups, size=n_rows)] + noise).astype(np.float32))
    rows[: n_rows // 4] = rows[0]  # a crowd
    return on_grid(rows, SUM_GRID_BITS)


def inertia_after_fit(rows: np.ndarray, centroids: np.ndarray) -> float:
    inertia = np.inf
    while True:
        previous, (centroids, inertia) = inertia, next_centroids(centroids, lloyd_sums(rows, centroids))
        if converged(previous, inertia, 1e-4):
            return inertia


# Seeds


def test_seeds_in_one_level_are_those_of_the_first_rows_whatever_the_parts(
    here: Session, rng: np.random.Generator
) -> None:
    rows = grouped(rng, 900, 30, 8)
    order = np.argsort(np.random.default_rng(5).permutation(len(rows)))[:500]
    expected = rows[order][seeds(rows[order], 20, np.random.default_rng(3))]
    for n_parts in (1, 4):
        np.testing.assert_array_equal(choose_seeds(here, sample_of(here, rows, n_parts), 8, 500, 20, 3), expected)


def test_seeds_in_two_levels_are_as_good_and_the_same_whatever_the_parts(
    here: Session, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    k, dim = 80, 16
    rows = grouped(rng, 5000, k, dim)
    wanted = seeding_rows(k, 2.0)
    one = choose_seeds(here, sample_of(here, rows, 3), dim, wanted, k, 1)
    assert not in_two_levels(wanted, dim, k)
    for bound in ("SEEDING_WORK", "SEEDING_BYTES"):
        with monkeypatch.context() as patch:
            patch.setattr(seeding, bound, 4 * dim * wanted - 1)
            assert in_two_levels(wanted, dim, k)
    monkeypatch.setattr(seeding, "SEEDING_BYTES", 4 * dim * wanted - 1)
    two = [choose_seeds(here, sample_of(here, rows, n_parts), dim, wanted, k, 1) for n_parts in (3, 5)]
    np.testing.assert_array_equal(*two)
    assert len(np.unique(two[0], axis=0)) == k
    assert inertia_after_fit(rows, two[0]) <= 1.02 * inertia_after_fit(rows, one)


def test_where_rows_repeat_there_are_as_many_seeds_as_asked_for(here: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = np.repeat(np.eye(4, dtype=np.float32), 30, axis=0)
    monkeypatch.setattr(seeding, "SEEDING_BYTES", 1)
    found = choose_seeds(here, sample_of(here, rows, 2), 4, 120, 9, 0)
    assert found.shape == (9, 4)
    assert len(np.unique(found, axis=0)) == 4


@settings(max_examples=40)
@given(data=st.data())
def test_the_candidate_that_others_make_superfluous_goes_first(data: st.DataObject) -> None:
    n_candidates = data.draw(st.integers(1, 7))
    row = st.lists(st.integers(0, 20), min_size=n_candidates, max_size=n_candidates)
    distances = np.array(data.draw(st.lists(row, min_size=1, max_size=10)))
    n_kept = data.draw(st.integers(1, n_candidates))
    there = list(range(n_candidates))
    while len(there) > n_kept:
        without = {gone: distances[:, [c for c in there if c != gone]].min(axis=1).sum() for gone in there}
        there.remove(min(there, key=without.__getitem__))
    nearest = np.argsort(distances, axis=1, kind="stable")
    found = keep_centers(nearest, np.take_along_axis(distances, nearest, axis=1), n_candidates, n_kept)
    assert found.tolist() == there


def test_of_candidates_beyond_those_that_are_known_as_many_stay_as_are_wanted() -> None:
    nearest, distances = np.array([[0], [0], [1], [2]]), np.array([[1], [2], [3], [4]])
    assert [keep_centers(nearest, distances, 4, n).tolist() for n in (4, 3, 2, 1)] == [
        [0, 1, 2, 3],
        [0, 1, 2],
        [0, 1],
        [0],
    ]


# The sample and its parts


@given(sizes=st.lists(st.integers(0, 5 * SAMPLE_ROWS), min_size=1, max_size=8), n_parts=st.integers(1, 9))
def test_parts_of_the_sample_have_every_chunk_once_in_few_reads(sizes: list[int], n_parts: int) -> None:
    chunks = [-(-size // SAMPLE_ROWS) for size in sizes]
    drawn = [
        {"sampled": size, "sample_ends": pack_ends(np.arange(1, n + 1) * 10)}
        for size, n in zip(sizes, chunks, strict=True)
    ]
    parts = sample_parts(drawn, n_parts)
    spans = [span for part in parts for span in part]
    assert [(file, chunk) for file, start, end in spans for chunk in range(start // 10, end // 10)] == [
        (file, chunk) for file, n in enumerate(chunks) for chunk in range(n)
    ]
    assert len(parts) <= n_parts
    assert len(spans) <= len(sizes) + n_parts
    rows = [sum((end - start) // 10 * SAMPLE_ROWS for _, start, end in part) for part in parts]
    assert max(rows, default=0) <= sum(sizes) / n_parts + (1 + len(sizes)) * SAMPLE_ROWS


def test_a_sample_file_has_all_rows_in_the_widest_type(tmp_path: Path) -> None:
    n, file = SAMPLE_ROWS + 5, Location.of(tmp_path / "0.arrows")
    tables = [
        pa.table({"hash": pa.array(range(n), pa.uint64()), "embedding": pa.array([[1.0]] * n, pa.list_(kind))})
        for kind in (pa.float16(), pa.float64())
    ]
    found = write_sample(file, tables)
    ends = unpack_ends(found["sample_ends"])
    assert (found["sampled"], len(ends)) == (2 * n, 3)
    (batches,) = read_chunks([(file, 0, int(ends[-1]))])
    assert [value for batch in batches for value in batch.column("hash").to_pylist()] == 2 * list(range(n))
    assert {str(batch.schema.field("embedding").type.value_type) for batch in batches} == {"double"}


# The fit


@settings(max_examples=30)
@given(data=st.data())
def test_parts_are_dealt_once_and_stay_where_they_are_unless_a_worker_has_its_share(data: st.DataObject) -> None:
    threads = data.draw(st.dictionaries(st.sampled_from("abcd"), st.integers(1, 3), min_size=1))
    sizes = data.draw(st.lists(st.integers(1, 50), max_size=20))
    holders = [data.draw(st.sets(st.sampled_from("abcd"), max_size=2)) for _ in sizes]
    groups = share_parts(sizes, holders, threads)
    assert sorted(part for _, parts in groups for part in parts) == list(range(len(sizes)))
    workers = [worker for worker, _ in groups]
    assert workers == sorted(workers, key=workers.index), "those of a worker side by side"
    assert all(workers.count(worker) <= threads[worker] for worker in workers)
    share = sum(sizes) / sum(threads.values())
    for worker, number in threads.items():
        held = [part for of, parts in groups if of == worker for part in parts]
        assert sum(sizes[part] for part in held) <= share * number + max(sizes, default=0)


def test_a_part_for_each_thread_stays_where_it_is() -> None:
    holders = [["a"], ["b"], ["b"], ["a"]]
    assert share_parts([9, 10, 11, 10], holders, {"a": 2, "b": 2}) == [
        ("a", (0,)),
        ("a", (3,)),
        ("b", (1,)),
        ("b", (2,)),
    ]


def test_the_fit_is_the_same_whatever_the_parts_and_makes_one_sum_a_thread(
    here: Session, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = grouped(rng, 1500, 12, 8)
    work = Workspace(None, Location.of(tmp_path), Location.of(tmp_path), {})  # type: ignore[arg-type]
    options, fits = KMeansOptions(max_iter=4, tol=0.0), []
    summed: list[int] = []
    real = here.client.submit

    def submit(function: Any, *args: Any, **options: Any) -> Any:
        if "workers" in options:
            summed.append(len(args[0]))
        return real(function, *args, **options)

    monkeypatch.setattr(here.client, "submit", submit)
    for n_parts in (1, 7):
        summed.clear()
        fits.append(fit_centroids(here, work, sample_of(here, rows, n_parts), 8, 12, options))
        assert len(summed) <= here.n_slots * fits[-1].iterations
        assert sum(summed) == n_parts * fits[-1].iterations
    np.testing.assert_array_equal(fits[0].centroids, fits[1].centroids)
    assert fits[0].inertia == fits[1].inertia
