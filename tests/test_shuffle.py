"""The shuffle by cluster: plans that cover every row once, and files that hold what was assigned."""

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import KMeansStage
from semdedup.dedup.cluster import shuffle
from semdedup.dedup.cluster.ranges import (
    ClusterRange,
    Files,
    bucket_starts,
    cluster_ranges,
    merged_pieces,
    shuffle_reads,
)
from semdedup.dedup.cluster.shuffle import (
    Assignment,
    Gathering,
    assign_partition,
    partition_memory,
    piece_file,
    rows_of_clusters,
    write_clusters,
)
from semdedup.dedup.cluster.steps import Buckets
from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.options import InputOptions
from semdedup.storage.arrays import save_array, unpack_ends
from semdedup.storage.chunks import read_chunk
from semdedup.storage.location import Location
from semdedup.storage.tables import DECODING_BYTES, read_table
from tests.helpers import contents, near_duplicates, set_task_bytes, write_embeddings


@pytest.mark.parametrize(
    ("sizes", "bound", "starts"),
    [
        ([5, 5, 20, 1, 1], 10, (0, 2, 3)),
        ([], 10, (0,)),
        ([0, 0, 0], 10, (0,)),
        ([3, 3, 3], 3, (0, 1, 2)),
        ([3, 3, 3], 2, (0, 1, 2)),
        ([0, 50, 0, 1], 10, (0, 2)),
    ],
    ids=["the example", "no clusters", "empty ones", "one each", "each too large", "empty before a large one"],
)
def test_buckets_are_cut_where_they_would_hold_too_much(
    sizes: list[int], bound: float, starts: tuple[int, ...]
) -> None:
    assert bucket_starts(np.array(sizes), bound) == starts


SIZES = st.lists(st.integers(0, 40), max_size=30)


@given(sizes=SIZES, bound=st.integers(1, 60))
def test_buckets_hold_at_most_the_bound_or_one_cluster(sizes: list[int], bound: int) -> None:
    starts = bucket_starts(np.array(sizes), bound)
    assert starts[0] == 0
    assert all(a < b for a, b in itertools.pairwise(starts))
    for bucket in np.split(sizes, starts[1:]):
        assert sum(bucket) <= bound or np.count_nonzero(bucket) == 1


@st.composite
def shuffles(draw: st.DrawFn) -> tuple[list[dict[int, int]], Sequence[int], int]:
    """Rows by cluster of some pieces, cluster numbers where buckets start, and the bound of a task."""
    n_clusters = draw(st.integers(1, 12))
    piece = st.dictionaries(st.integers(0, n_clusters - 1), st.integers(1, 9), max_size=n_clusters)
    starts = draw(st.sets(st.integers(1, n_clusters), max_size=4))
    return draw(st.lists(piece, max_size=6)), sorted({0, *starts}), draw(st.integers(1, 25))


@given(shuffle=shuffles())
def test_ranges_hold_every_row_once_and_no_more_than_the_bound(
    shuffle: tuple[list[dict[int, int]], Sequence[int], int],
) -> None:
    pieces, starts, bound = shuffle
    rows: dict[int, int] = {}
    for piece in pieces:
        for cluster, n in piece.items():
            rows[cluster] = rows.get(cluster, 0) + n
    large = {
        cluster: {position: piece[cluster] for position, piece in enumerate(pieces) if cluster in piece}
        for cluster, n in rows.items()
        if n > bound
    }
    ranges = cluster_ranges(starts, rows, large, [len(pieces)] * len(starts), bound)
    written: list[tuple[int, int]] = []
    files: list[tuple[int, int]] = []
    for task in ranges:
        bucket_stop = [*starts, 10**9][task.bucket + 1]
        assert starts[task.bucket] <= task.first < task.last <= bucket_stop, "a range lies in one bucket"
        own = [
            (position, cluster)
            for position in task.files
            for cluster in pieces[position]
            if task.first <= cluster < task.last
        ]
        held = sum(pieces[position][cluster] for position, cluster in own)
        assert held > 0
        assert held <= bound or len(own) == 1, "more than the bound only where one piece has more of one cluster"
        written += own
        files += {(cluster, task.part) for _, cluster in own}
    assert sorted(written) == sorted((position, cluster) for position, piece in enumerate(pieces) for cluster in piece)
    assert len(set(files)) == len(files), "no two tasks write the same file"


def test_clusters_that_fit_are_one_file_and_only_the_large_one_is_cut() -> None:
    rows, large = {0: 4, 1: 4, 2: 30, 3: 2}, {2: {0: 9, 1: 12, 2: 9}}
    assert list(cluster_ranges([0, 2], rows, large, [3, 3], 10)) == [
        ClusterRange(0, 0, 2, range(3), 0),
        ClusterRange(1, 2, 3, range(1), 0),
        ClusterRange(1, 2, 3, range(1, 2), 1),
        ClusterRange(1, 2, 3, range(2, 3), 2),
        ClusterRange(1, 3, 4, range(3), 0),
    ]


def test_the_memory_of_a_partition_is_its_rows_a_bucket_and_a_batch_being_decoded() -> None:
    assert partition_memory(100_000, 256, 10_000, 900) == (4 * 256 + 900 + 100) * (100_000 + 10_000) + DECODING_BYTES


FAULTY = {3: None, 7: [0.0, 0.0, 0.0], 11: [1.0, float("nan"), 0.0]}


def setup(folder: Path, n: int, n_clusters: int, starts: tuple[int, ...]) -> tuple[Workspace, Assignment]:
    rng = np.random.default_rng(0)
    rows = [FAULTY.get(i, row) for i, row in enumerate(rng.normal(size=(n, 3)).tolist())]
    table = pa.table({"id": range(n), "embedding": pa.array(rows, pa.list_(pa.float64())), "note": map(str, range(n))})
    pq.write_table(table, folder / "input.parquet", row_group_size=17)
    root = Location.of(folder)
    schema = InputSchema(InputOptions(metadata_fields=("note",)), pa.int64(), pa.schema([("note", pa.string())]))
    save_array(root / "centroids.npy", unit_rows(rng.normal(size=(n_clusters, 3))))
    task = Assignment(3, root / "centroids.npy", f"{folder}", starts, "cpu", 1 << 15, root / "quarantine", 120.0)
    return Workspace(schema, root, root / "scratch", {}), task


@pytest.mark.parametrize("n_pieces", [1, 3, 7])
def test_every_row_ends_in_the_file_of_its_cluster_or_in_the_quarantine(tmp_path: Path, n_pieces: int) -> None:
    n, starts = 100, (0, 2, 5)
    work, task = setup(tmp_path, n, 6, starts)
    url = str(tmp_path / "input.parquet")
    edges = np.linspace(0, n, n_pieces + 1).astype(int)
    found = [
        assign_partition(work, task, (i, (Slice(url, "the source", int(edges[i]), int(edges[i + 1])),)))
        for i in range(n_pieces)
    ]
    assert sum(result["assigned"] for result in found) == n - len(FAULTY)
    pieces = [{k: n for k, n in enumerate(rows_of_clusters(result).tolist()) if n} for result in found]
    files = Files("pieces", np.array([[0, *unpack_ends(result["ends"])] for result in found]))
    rows = {k: sum(piece.get(k, 0) for piece in pieces) for k in range(6) if any(k in piece for piece in pieces)}
    large = {k: {i: piece[k] for i, piece in enumerate(pieces) if k in piece} for k in rows if rows[k] > 20}
    target = Location.of(tmp_path / "clusters")
    ranges = cluster_ranges(starts, rows, large, [n_pieces] * 3, 20)
    written = [write_clusters(work, target, {}, Gathering(r, files.chunks(r.bucket, r.files))) for r in ranges]
    names = [file.url.removeprefix(f"{target.url}/") for file in target.files()]
    assert sum(result["rows"] for result in written) == sum(rows.values())
    tables = {name: read_table(target / name) for name in names}
    ids = sorted(value for table in tables.values() for value in table.column("id").to_pylist())
    assert ids == sorted(set(range(n)) - set(FAULTY))
    by_cluster = {k: sum(len(t) for name, t in tables.items() if f"centroid={k}/" in name) for k in rows}
    assert by_cluster == rows
    centroids = np.load(tmp_path / "centroids.npy")
    for name, table in tables.items():
        label = int(name.split("/")[0].removeprefix("centroid="))
        assert table.schema.names == ["id", "embedding", "note", "l2_dist_to_cent", "cosine_dist_to_cent"]
        assert table.column("note").to_pylist() == [str(value) for value in table.column("id").to_pylist()]
        rows_here = np.array(table.column("embedding").to_pylist(), dtype=np.float32)
        assert (np.square(rows_here[:, None] - centroids).sum(axis=2).argmin(axis=1) == label).all()
    aside = [
        row for file in Location.of(tmp_path / "quarantine").files() for row in pq.read_table(file.url).to_pylist()
    ]
    assert sorted((row["id"], row["reason"], row["source"]) for row in aside) == [
        (3, "null", "the source"),
        (7, "zero", "the source"),
        (11, "not_finite", "the source"),
    ]


def test_a_piece_has_one_chunk_for_each_bucket_sorted_by_cluster(tmp_path: Path) -> None:
    work, task = setup(tmp_path, 60, 8, (0, 3, 4, 8))
    slices = (Slice(str(tmp_path / "input.parquet"), "", 0, 60),)
    ends = unpack_ends(assign_partition(work, task, (0, slices))["ends"])
    edges = [0, 3, 4, 8, 8]
    for bucket, span in enumerate(itertools.pairwise([0, *ends[:3].tolist()])):
        labels = read_chunk(piece_file(work, 0), *span).column("centroid").to_numpy()
        assert (np.diff(labels) >= 0).all()
        assert all(edges[bucket] <= label < edges[bucket + 1] for label in labels)


def test_a_partition_of_nothing_but_faulty_rows_writes_an_empty_piece(tmp_path: Path) -> None:
    work, task = setup(tmp_path, 20, 2, (0, 1))
    found = assign_partition(work, task, (0, (Slice(str(tmp_path / "input.parquet"), "", 3, 4),)))
    assert (found["assigned"], found["quarantined"]) == (0, {"null": 1})
    assert rows_of_clusters(found).tolist() == unpack_ends(found["ends"]).tolist() == [0, 0]


def test_assigning_a_partition_again_writes_the_same_bytes(tmp_path: Path) -> None:
    work, task = setup(tmp_path, 60, 4, (0, 2))
    item = (0, (Slice(str(tmp_path / "input.parquet"), "", 0, 60),))
    first = assign_partition(work, task, item), Path(piece_file(work, 0).url).read_bytes()
    assert (assign_partition(work, task, item), Path(piece_file(work, 0).url).read_bytes()) == first


# Two levels


def test_reads_grow_with_the_square_only_up_to_a_million() -> None:
    assert shuffle_reads(1_000, 1_000) == 1_000_000
    assert shuffle_reads(11_445, 11_445) < 2_500_000
    assert shuffle_reads(2_000, 1_000) < 200_000


@given(rows=st.lists(st.integers(0, 9), max_size=40), bound=st.integers(1, 30))
def test_files_are_merged_in_their_order_up_to_what_a_task_holds(rows: list[int], bound: int) -> None:
    merged = merged_pieces(np.array(rows, dtype=np.int64), bound)
    assert [piece for pieces in merged for piece in pieces] == list(range(len(rows)))
    assert all(len(pieces) == 1 or sum(rows[piece] for piece in pieces) <= bound for pieces in merged)


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=40), bound=st.integers(1, 20), most=st.integers(1, 400))
def test_shelves_hold_whole_buckets_and_all_of_them(sizes: list[int], bound: int, most: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semdedup.dedup.sizes.MANY_READS", most)
        buckets = Buckets.of(np.array(sizes), 25, bound)
    of_shelves = [buckets.of_shelf(shelf) for shelf in range(len(buckets.shelves))]
    assert [bucket for shelf in of_shelves for bucket in shelf] == list(range(len(buckets.starts)))
    assert not buckets.merged or 25 * len(buckets.starts) > most
    rows = np.add.reduceat(sizes, buckets.starts)
    for shelf in of_shelves:
        assert len(shelf) == 1 or rows[shelf.start : shelf.stop].sum() <= 5 * bound


class Killed(Exception):
    pass


def clusters(source: Path, out: Path) -> KMeansStage:
    return KMeansStage(
        30, input_path=str(source), output_path=str(out), max_iter=3, metadata_fields=["caption"], verbose=False
    )


@contextlib.contextmanager
def counted_reads() -> Iterator[Counter[str]]:
    """Count the reads of parts of files of this process, by the folder of the scratch folder that they lie in."""
    reads, real = Counter[str](), Location.read_into

    def read(self: Location, start: int, memory: memoryview) -> int:
        reads[self.url.split("/kmeans-")[-1].split("/")[1]] += 1
        return real(self, start, memory)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Location, "read_into", read)
        yield reads


@pytest.fixture(scope="module")
def one_level(
    inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Path, Path, Counter[str]]]:
    """An input of which one cluster is larger than a task, its clusters by a shuffle of one level, and what it read."""
    folder = tmp_path_factory.mktemp("shuffle")
    ids, rows = near_duplicates(np.random.default_rng(7), 1000, 8)
    rows[::3] = rows[0]
    write_embeddings(folder / "in", ids, rows, 20, caption=[f"of {name}" for name in ids])
    with pytest.MonkeyPatch.context() as patch:
        set_task_bytes(patch, 3400)
        with counted_reads() as reads:
            clusters(folder / "in", folder / "out").run(inside)
        yield folder / "in", folder / "out", reads


def failing_once(function: Callable[..., Any], n: int, matters: Callable[[Location], bool]) -> Callable[..., Any]:
    """The function, whose call n of those that matter raises `Killed`."""
    numbers = itertools.count(1)

    def call(location: Location, *args: Any) -> Any:
        if matters(location) and next(numbers) == n:
            raise Killed
        return function(location, *args)

    return call


@pytest.mark.slow
def test_merged_files_give_the_same_clusters_in_fewer_reads(
    one_level: tuple[Path, Path, Counter[str]],
    inside: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, expected, before = one_level
    monkeypatch.setattr("semdedup.dedup.sizes.MANY_READS", 100)
    with counted_reads() as reads:
        clusters(source, tmp_path / "out").run(inside)
    assert contents(tmp_path / "out") == contents(expected)
    assert before["merged"] == 0 < reads["merged"]
    assert reads["pieces"] + reads["merged"] < before["pieces"] * 0.7


def test_a_run_that_fails_in_the_merge_and_then_as_it_writes_repeats_nothing_that_was_done(
    one_level: tuple[Path, Path, Counter[str]],
    inside: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source, expected, _ = one_level
    out = tmp_path / "out"
    monkeypatch.setattr("semdedup.dedup.sizes.MANY_READS", 100)
    merge = failing_once(shuffle.write_chunks, 9, lambda file: "/merged/" in file.url)
    monkeypatch.setattr(shuffle, "write_chunks", merge)
    monkeypatch.setattr(shuffle, "write_table", failing_once(shuffle.write_table, 5, lambda file: True))
    done: dict[str, int] = {}
    for step in ("merge", "write-clusters"):
        with pytest.raises(Killed):
            clusters(source, out).run(inside)
        found = {f"{path.parent.name}/{path.name}": path.stat().st_mtime_ns for path in out.rglob("journal/*/*.json")}
        assert found.items() >= done.items()
        done = found
        assert any(name.startswith(f"{step}/") for name in done)
    clusters(source, out).run(inside)
    assert contents(out) == contents(expected)
