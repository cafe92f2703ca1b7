"""Embeddings that are read on the device are those of the CPU; what a GPU holds decides how clusters are cut."""

import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import ClusterError
from semdedup.arrays import backend_module, devices, frames, to_host
from semdedup.arrays.devices import DeviceFacts, memory_of_tasks
from semdedup.arrays.frames import Lists
from semdedup.compute import workers
from semdedup.dedup import sizes
from semdedup.dedup.forecast.given import Machines, Rows
from semdedup.dedup.forecast.memory import compared_on_device, memory_of
from semdedup.dedup.forecast.plan import RunPlan
from semdedup.dedup.input import on_device
from semdedup.dedup.input.on_device import GroupFacts, Slab, slabs_of
from semdedup.dedup.input.partitions import Partition, Slice
from semdedup.dedup.input.planned import planned_on_device
from semdedup.dedup.input.rows import check_rows, embedding_rows, row_lengths
from semdedup.dedup.input.scan import Sampling, Workspace, count_lengths, scan_partition
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.options import InputOptions, KMeansOptions
from semdedup.storage.chunks import read_every_chunk
from semdedup.storage.location import Location

GROUPS = st.lists(st.builds(GroupFacts, st.integers(0, 9), st.integers(0, 90)), max_size=8)


@given(GROUPS, st.integers(0, 70), st.integers(0, 70), st.integers(1, 200))
def test_slabs_are_the_rows_asked_for_once_each_and_in_bounds(
    groups: list[GroupFacts], one: int, other: int, most: int
) -> None:
    start, stop = sorted((min(one, sum(g.n_rows for g in groups)), min(other, sum(g.n_rows for g in groups))))
    found = slabs_of(groups, start, stop, most)
    begins = np.cumsum([0, *(group.n_rows for group in groups)]).tolist()
    rows = [begins[slab.groups[0]] + slab.first + i for slab in found for i in range(slab.n_rows)]
    assert rows == list(range(start, stop))
    assert all(sum(groups[n].n_values for n in slab.groups) <= most for slab in found if len(slab.groups) > 1)


# Reading


DIM, N = 24, 300
KINDS = [
    pa.list_(pa.float32()), pa.large_list(pa.float32()), pa.list_(pa.float32(), DIM), pa.list_(pa.float64()),
    pa.list_(pa.float16()), pa.list_(pa.int8()), pa.list_(pa.int32()),
]  # fmt: skip


def write(folder: Path, rng: np.random.Generator, kind: pa.DataType, faults: bool) -> tuple[Workspace, Partition]:
    """Two files of three row groups each and a small one, and slices that begin and end within groups."""
    floats = pa.types.is_floating(kind.value_type)
    rows: list[Any] = (np.rint(20 * rng.standard_normal((N, DIM))) + 0.5 * floats).tolist()
    ids: list[Any] = [f"r{i}" for i in range(N)]
    if faults:
        rows[7], ids[13] = [0.0] * DIM, None
        if not pa.types.is_fixed_size_list(kind):  # of which PyArrow 19 writes no null rows
            rows[5], rows[8], rows[9] = None, rows[8][:3], []
        if floats:
            rows[11], rows[12][0] = [np.nan] * DIM, None
    embeddings = pa.array(rows, pa.list_(pa.float64())).cast(kind)
    table = pa.table({"id": ids, "embedding": embeddings, "note": range(N)})
    bounds = {"a": (0, 140), "b": (140, 290), "c": (290, N)}
    for name, (low, high) in bounds.items():
        pq.write_table(table.slice(low, high - low), folder / f"{name}.parquet", row_group_size=50)
    large = 1 << 20
    where = {name: str(folder / f"{name}.parquet") for name in bounds}
    slices = (
        Slice(where["a"], where["a"], 0, 140, 0, large),
        Slice(where["b"], where["b"], 20, 130, 0, large),
        Slice(where["c"], where["c"], 0, 10, 0, 4 * DIM),
    )
    schema = InputSchema(InputOptions(metadata_fields=("note",)), pa.string(), pa.schema([("note", pa.int64())]))
    return Workspace(schema, Location.of(folder), Location.of(folder / "scratch"), {}), slices


class Reader:
    """Reads as cuDF is asked to, by PyArrow, to arrays of CuPy or of what stands in for it; refuses the nth call."""

    def __init__(self, xp: Any, refused: int = -1) -> None:
        self.xp, self.refused, self.calls = xp, refused, list[tuple[str, Slab]]()

    def __call__(
        self, path: str, column: str, groups: Sequence[int], first: int, n_rows: int, element: np.dtype
    ) -> Lists:
        self.calls.append((path, Slab(tuple(groups), first, n_rows)))
        if len(self.calls) - 1 == self.refused:
            raise RuntimeError("CUDF failure: not supported")
        found = pq.ParquetFile(path).read_row_groups(list(groups), [column]).column(column).slice(first, n_rows)
        kind = pa.list_(pa.from_numpy_dtype(element))
        found = found.cast(kind if not pa.types.is_large_list(found.type) else pa.large_list(kind.value_type))

        def rows(dim: int) -> tuple[Any, Any]:
            values, positions = embedding_rows(found, dim)
            return self.xp.asarray(np.ascontiguousarray(values)), self.xp.asarray(positions)

        return Lists(self.xp.asarray(row_lengths(found)), rows)


@pytest.fixture
def reader(xp: Any, backend: str, monkeypatch: pytest.MonkeyPatch) -> Reader:
    if backend == "cpu":
        pytest.skip("the CPU is what is compared with")
    reader = Reader(xp)
    monkeypatch.setattr(on_device, "read_lists", reader)
    monkeypatch.setattr(on_device, "frames_on", lambda backend: True)
    return reader


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("faults", [False, True])
@pytest.mark.parametrize("refused", [-1, 0, 1])
def test_rows_on_the_device_are_those_on_the_host_to_the_bit(
    reader: Reader, tmp_path: Path, rng: np.random.Generator, kind: pa.DataType, faults: bool, refused: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    reader.refused = refused
    work, slices = write(tmp_path, rng, kind, faults)
    monkeypatch.setattr(on_device, "SLAB_BYTES", 110 * DIM * 4)
    there = Workspace(work.schema, work.inputs, work.scratch, {}, backend="gpu")
    expected, found = work.gather(slices, DIM), there.gather(slices, DIM)
    assert isinstance(found[0], reader.xp.ndarray)
    assert to_host(found[0]).tobytes() == expected[0].tobytes()
    assert found[1].equals(expected[1])
    assert found[2].equals(expected[2])
    assert bool(reader.calls) == (kind.value_type != pa.float16())  # cuDF has none
    assert not any(path.endswith("c.parquet") for path, _ in reader.calls)  # which is small
    if kind == pa.list_(pa.float32()) and refused < 0:
        slabs = [slab for _, slab in reader.calls]
        assert slabs == [Slab((0, 1), 0, 100), Slab((2,), 0, 40), Slab((0, 1), 20, 80), Slab((2,), 0, 30)]


def test_ids_are_made_of_file_and_row_where_nothing_but_embeddings_is_in_the_file(
    reader: Reader, tmp_path: Path, rng: np.random.Generator
) -> None:
    rows = rng.standard_normal((200, DIM)).tolist()
    file = str(tmp_path / "in.parquet")
    pq.write_table(pa.table({"embedding": pa.array(rows, pa.list_(pa.float32()))}), file, row_group_size=60)
    schema = InputSchema(InputOptions(id_field=None), pa.string(), pa.schema([]), f"{tmp_path}/")
    place, slices = Location.of(tmp_path), (Slice(file, file, 30, 170, 0, 1 << 20),)
    expected, found = (Workspace(schema, place, place, {}, backend=b).gather(slices, DIM) for b in ("cpu", "gpu"))
    assert found[1].equals(expected[1])
    assert to_host(found[0]).tobytes() == expected[0].tobytes()
    assert reader.calls


@pytest.mark.parametrize("faults", [False, True])
def test_the_scan_of_the_device_finds_what_that_of_the_host_does(
    reader: Reader, tmp_path: Path, rng: np.random.Generator, faults: bool
) -> None:
    work, slices = write(tmp_path, rng, pa.list_(pa.float32()), faults)
    results, samples = [], []
    for backend in ("cpu", "gpu"):
        place = Location.of(tmp_path / backend)
        scanned = Workspace(work.schema, work.inputs, place, {}, backend=backend)
        result = scan_partition(scanned, Sampling.of(3, N // 2, N), False, (0, slices))
        batches = read_every_chunk(place / "sample" / "0.arrows")
        sample = pa.Table.from_batches([batch.cast(batches[0].schema) for batch in batches])
        sample = sample.sort_by("hash")
        samples.append((sample["hash"].to_pylist(), check_rows(sample["hash"], sample["embedding"], DIM)))
        result["lengths"] = {source: sorted(counts) for source, counts in result["lengths"].items()}
        results.append({name: value for name, value in result.items() if name != "sample_ends"})
    assert results[0] == results[1]
    (hashes, expected), (of_device, found) = samples
    assert hashes == of_device
    assert len(hashes) > N // 3
    np.testing.assert_array_equal(found.faults, expected.faults)
    np.testing.assert_array_equal(found.rows, expected.rows)
    assert reader.calls


def test_a_normalised_row_comes_through_page_locked_memory_unchanged(reader: Reader, rng: np.random.Generator) -> None:
    from semdedup.arrays import host_rows

    rows = unit_rows(rng.standard_normal((50, 7)))
    chosen = rng.permutation(50)[:20]
    for positions in (chosen, reader.xp.asarray(chosen)):
        assert host_rows(reader.xp.asarray(rows), positions).tobytes() == rows[chosen].tobytes()
    assert host_rows(reader.xp.asarray(rows), chosen[:0]).shape == (0, 7)
    assert backend_module("gpu") is reader.xp


@pytest.mark.parametrize("name", ["a*.parquet", "[1].parquet", "a?.parquet", "zip::a.parquet"])
def test_cudf_is_not_given_a_path_that_it_would_take_for_another(name: str) -> None:
    with pytest.raises(frames.REFUSALS, match="pattern"):
        frames.read_lists(f"/folder/{name}", "embedding", (0,), 0, 1, np.dtype(np.float32))


def test_lengths_of_files_that_are_read_together_are_counted_for_each(tmp_path: Path) -> None:
    from semdedup.dedup.input.schema import Origin
    from semdedup.dedup.input.several import Rows

    table = pa.table({"embedding": pa.array([[1.0], [2.0, 3.0], None, [4.0]], pa.list_(pa.float32()))})
    lengths: dict[str, Counter[int]] = {}
    count_lengths(lengths, Rows(table, [Origin("a", 0, 2), Origin("b", 0, 2)]))
    assert lengths == {"a": Counter({1: 1, 2: 1}), "b": Counter({1: 1})}


# Memory


CARD = DeviceFacts("0000:01:00.0", 12 << 30)


def test_workers_that_share_a_card_share_its_memory_and_threads_of_a_worker_do() -> None:
    other = DeviceFacts("0000:02:00.0", 10 << 30)
    apart = {"a": ("host", CARD), "b": ("host", other), "c": ("elsewhere", CARD)}
    assert memory_of_tasks(apart, dict.fromkeys(apart, 1)) == 10 << 30
    assert memory_of_tasks(apart, {"a": 2, "b": 1, "c": 1}) == 6 << 30
    shared = {"a": ("host", CARD), "b": ("host", CARD), "c": ("host", CARD)}
    assert memory_of_tasks(shared, dict.fromkeys(shared, 1)) == 4 << 30


def test_a_card_that_is_full_is_an_error_that_tells_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    class Client:
        def run(self, function: Any, *args: Any, **options: Any) -> dict[str, Any]:
            return {"tcp://w": ("host", CARD._replace(memory=500 << 20))}

        def nthreads(self) -> dict[str, int]:
            return {"tcp://w": 1}

    with pytest.raises(ClusterError, match=r"500 MiB.*\n  tcp://w: 500 MiB free on 0000:01:00.0"):
        workers.device_memory_of_tasks(Client())  # type: ignore[arg-type]


@given(st.integers(workers.LEAST_OF_DEVICE, 200 << 30))
def test_what_is_not_cut_on_a_gpu_is_what_it_holds(memory: int) -> None:
    uncut = sizes.uncut_on_device(memory)
    rows = sizes.rows_on_device(uncut, 1536, sizes.TaskRows(1000, 500))
    assert rows.most >= 1000
    assert rows.together == 500
    assert compared_on_device(rows.most, 1536) < memory


def test_a_cluster_of_the_peer_is_one_task_on_a_card_of_80_gib() -> None:
    assert sizes.rows_on_device(sizes.uncut_on_device(64 << 30), 1536, sizes.TaskRows(1, 1)).most > 330_000


class OnGpus:
    """A run on so many GPUs of so much memory, or on the CPU, that has done a step."""

    def __init__(self, scratch: Location, memory: int | None, n_slots: int = 1) -> None:
        self.scratch, self.forgotten = scratch, list[str]()
        self.session = SimpleNamespace(device_memory=memory, n_slots=n_slots)
        (scratch / "journal" / "compare" / "0.json").write_bytes(b"{}")

    def forget(self, name: str) -> None:
        self.forgotten.append(name)


def test_clusters_are_cut_as_the_first_run_did_unless_gpus_hold_less_or_there_are_none_now(tmp_path: Path) -> None:
    rows, gib = sizes.TaskRows(1000, 500), 1 << 30

    def planned(place: Location, memory: int | None, n_slots: int = 1) -> tuple[int, bool]:
        run = OnGpus(place, memory, n_slots)
        found = planned_on_device(run, place / "plan.json", rows, 512, 20.0)  # type: ignore[arg-type]
        return found.most, bool(run.forgotten)

    assert planned(Location.of(tmp_path / "never"), None) == (1000, False)
    place = Location.of(tmp_path / "once")
    first, forgotten = planned(place, 40 * gib)
    assert first == sizes.rows_on_device(5 * gib, 512, rows, 20.0).most > 1000
    assert forgotten  # what a run on the CPU had begun
    assert planned(place, 40 * gib) == planned(place, 80 * gib, n_slots=8) == (first, False)
    smaller, forgotten = planned(place, 16 * gib)
    assert (smaller < first, forgotten) == (True, True)
    assert planned(place, None) == (1000, True)
    assert planned(place, None) == (1000, False)


@pytest.mark.parametrize("device", [8, 24, 80])
@pytest.mark.parametrize("n", [1_000_000, 100_000_000])
def test_no_step_of_a_run_on_gpus_is_forecast_to_hold_more_than_they_have(n: int, device: int) -> None:
    gib = 1 << 30
    rows = Rows(n, 1536, max(1, n // 1_000_000), rows_per_group=100_000, is_local=True)
    k = max(3, n // 330_000)
    on_cpu, on_gpu = (
        RunPlan.of(rows, Machines(2, 1, 64 * gib, memory), KMeansOptions(n_clusters=k)) for memory in (0, device * gib)
    )
    assert memory_of(on_cpu).device == 0
    assert 0 < memory_of(on_gpu).device <= device * gib
    assert memory_of(on_gpu).worker <= 64 * gib
    assert len(on_gpu.groups[1]) <= len(on_cpu.groups[1])
    assert {piece.stop - piece.start for part in on_gpu.clustering.partitions for piece in part} == {100_000}
    if device == 80:
        assert not on_gpu.groups[1]  # no cluster is cut, nor above a row group


class Pool:
    """A resource of RMM that holds so much, or that lies around another."""

    def __init__(self, held: int = 0, around: "Pool | None" = None) -> None:
        self.around = around
        if held:
            self.pool_size = lambda: held

    def get_upstream(self) -> "Pool | None":
        return self.around


@pytest.mark.parametrize("pool", [0, 48 << 30])
def test_cupy_keeps_its_pool_where_rmm_has_none_when_cudf_is_imported(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, pool: int
) -> None:
    (tmp_path / "a_cudf.py").write_text("import cupy\ncupy.cuda.set_allocator('of RMM')\n")
    taken = ["of CuPy"]
    cuda = SimpleNamespace(get_allocator=lambda: taken[-1], set_allocator=taken.append)
    rmm = SimpleNamespace(mr=SimpleNamespace(get_current_device_resource=lambda: Pool(pool)))
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    monkeypatch.setitem(sys.modules, "rmm", rmm)
    monkeypatch.delitem(sys.modules, "a_cudf", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert devices.import_beside_cupy("a_cudf").__name__ == "a_cudf"
    assert taken[-1] == ("of RMM" if pool else "of CuPy")


@pytest.mark.parametrize(("takes_from_it", "more"), [(True, 48 << 30), (False, 1 << 30)])
def test_a_pool_of_rmm_counts_as_free_where_cupy_takes_from_it(
    monkeypatch: pytest.MonkeyPatch, takes_from_it: bool, more: int
) -> None:
    def of_rmm() -> None: ...

    of_rmm.__module__ = "rmm.allocators.cupy" if takes_from_it else "cupy.cuda.memory"
    cuda = SimpleNamespace(
        runtime=SimpleNamespace(memGetInfo=lambda: (10 << 30, 60 << 30)),
        get_allocator=lambda: of_rmm,
        Device=lambda: SimpleNamespace(pci_bus_id="0000:01:00.0"),
    )
    cupy = SimpleNamespace(cuda=cuda, get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 1 << 30))
    rmm = SimpleNamespace(mr=SimpleNamespace(get_current_device_resource=lambda: Pool(around=Pool(48 << 30, Pool()))))
    for name, module in (("cupy", cupy), ("rmm", rmm)):
        monkeypatch.setitem(sys.modules, name, module)
    assert devices.describe_device() == ("0000:01:00.0", int(0.9 * ((10 << 30) + more)))
