"""What is called of RAPIDS is there, with the arguments that are passed: its own Python is asked, without a GPU."""

import importlib
import inspect
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import numpy as np
import pytest

from semdedup import ClusterOptions
from semdedup.arrays import GPU_PACKAGES
from semdedup.arrays.frames import read_lists
from semdedup.compute import cluster
from semdedup.dedup.cluster import fit_cuml
from semdedup.dedup.kernels.exact import on_grid, unit_rows
from semdedup.dedup.kernels.kmeans import SUM_GRID_BITS, assign, lloyd_sums, next_centroids
from semdedup.storage.arrays import save_array
from semdedup.storage.location import Location

ABSENT = [name for name in (*GPU_PACKAGES, "pylibcudf", "raft_dask", "rmm") if find_spec(name) is None]
pytestmark = pytest.mark.skipif(bool(ABSENT), reason=f"RAPIDS is not installed: no {', '.join(ABSENT)}")

CALLS = [
    ("cudf", "read_parquet", 1, "columns row_groups use_pandas_metadata dataset_kwargs"),
    ("cudf", "DataFrame.from_arrow", 1, ""),
    ("cudf", "DataFrame.to_arrow", 1, ""),
    ("cudf", "DataFrame.take", 2, ""),
    ("cudf", "Series.to_arrow", 1, ""),
    ("cudf", "Series.to_cupy", 1, "na_value"),
    ("cudf", "Series.take", 2, ""),
    ("cudf", "Series.fillna", 2, ""),
    ("cudf", "Series.astype", 2, ""),
    ("cudf", "Series.__init__", 2, "index dtype"),
    ("cudf", "Series.from_pylibcudf", 1, "metadata"),
    ("cudf", "ListDtype.__init__", 2, ""),
    ("cudf.core.accessors.lists", "ListMethods.len", 1, ""),
    ("cuml.dask.cluster", "KMeans.__init__", 1, "client n_clusters init n_init max_iter tol random_state"),
    ("cuml.dask.cluster", "KMeans.fit", 2, ""),
    ("cuml.dask.cluster", "KMeans.get_combined_model", 1, ""),
    ("cuml.cluster", "KMeans.__init__", 1,
     "n_clusters init n_init max_iter tol random_state max_samples_per_batch output_type verbose"),
    ("cuml.cluster.kmeans_mg", "KMeansMG.__init__", 1, "handle output_type"),
    ("dask_cuda", "LocalCUDACluster.__init__", 1,
     "n_workers threads_per_worker memory_limit rmm_pool_size rmm_allocator_external_lib_list"),
    ("distributed", "LocalCluster.__init__", 1, "host dashboard_address preload"),
    ("cupyx", "empty_pinned", 2, ""),
    ("cupy", "argsort", 1, "kind"),
    ("cupy", "take", 2, "axis"),
]  # fmt: skip
"""A module, what is called in it, how many arguments it gets by position, and the names of the others."""


@pytest.mark.parametrize(("module", "name", "n_positional", "names"), CALLS, ids=[call[1] for call in CALLS])
def test_a_call_has_the_arguments_that_are_passed(module: str, name: str, n_positional: int, names: str) -> None:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = inspect.getattr_static(found, part) if inspect.isclass(found) else getattr(found, part)
    bound_to_class = isinstance(found, classmethod)
    function = found.__func__ if bound_to_class else found
    inspect.signature(function).bind(*[None] * (n_positional + bound_to_class), **dict.fromkeys(names.split()))


ATTRIBUTES = [
    ("cudf.core.accessors.lists", "ListMethods.leaves"),
    ("cudf", "Series.list"),
    ("cudf", "Series.iloc"),
    ("pylibcudf", "Column.from_array"),
    ("rmm.mr", "get_current_device_resource"),
    ("rmm.mr", "PoolMemoryResource.pool_size"),
    ("rmm.mr", "PoolMemoryResource.get_upstream"),
    ("rmm.mr", "TrackingResourceAdaptor.get_upstream"),
    ("cupy", "get_default_memory_pool"),
    ("cupy.cuda", "MemoryPool.free_bytes"),
    ("cupy.cuda", "Device.pci_bus_id"),
    ("cupy.cuda", "runtime.memGetInfo"),
    ("cupy.cuda", "get_allocator"),
    ("cupy", "ndarray.get"),
]
"""What has no signature to ask for, compiled as it is."""


@pytest.mark.parametrize(("module", "name"), ATTRIBUTES, ids=[name for _, name in ATTRIBUTES])
def test_what_is_used_is_there(module: str, name: str) -> None:
    found: Any = importlib.import_module(module)
    for part in name.split("."):
        found = getattr(found, part)


def test_a_folder_of_a_cluster_makes_no_column_and_row_groups_stay(tmp_path: Path) -> None:
    from cudf.io import parquet
    from fsspec.implementations.local import LocalFileSystem

    paths = [str(tmp_path / "centroid=3" / "part-0.parquet")]
    found = parquet._process_dataset(
        paths=paths, fs=LocalFileSystem(), row_groups=[[1, 2]], dataset_kwargs={"partitioning": None}
    )
    assert found == (paths, [[1, 2]], [], {})


def test_a_path_with_a_bracket_is_a_pattern_to_cudf_and_so_is_not_given_to_it(tmp_path: Path) -> None:
    from cudf.utils import ioutils

    (tmp_path / "1.parquet").touch()
    _, found = ioutils._get_filesystem_and_paths([str(tmp_path / "[1].parquet")], None)
    assert found == [str(tmp_path / "1.parquet")]
    with pytest.raises(ValueError, match="pattern"):
        read_lists(str(tmp_path / "[1].parquet"), "embedding", (0,), 0, 1, np.dtype(np.float32))


def test_the_pool_of_workers_is_shared_with_cupy() -> None:
    from dask_cuda import plugins

    assert "rmm_cupy_allocator" in inspect.getsource(plugins._setup_rmm_for_cupy)
    allocator = importlib.import_module("rmm.allocators.cupy").rmm_cupy_allocator
    assert allocator.__module__.split(".")[0] == "rmm"  # by which it is known that CuPy takes from the pool
    importlib.import_module("cudf")
    assert importlib.import_module("cupy").cuda.get_allocator() is allocator  # so cuDF does it, too
    options = importlib.import_module("dask_cuda.cli").worker.params
    assert "--set-rmm-allocator-for-libs" in [name for option in options for name in option.opts]


class FittedByLloyd:
    """A `KMeansMG` on NumPy's arrays: takes the parts of its worker as they are."""

    def __init__(self, *, handle: Any, output_type: str, **options: Any) -> None:
        assert options.pop("n_init") == 1
        assert set(options) <= set(inspect.signature(importlib.import_module("cuml.cluster").KMeans).parameters)
        self.cluster_centers_, self.max_iter = options["init"], options["max_iter"]

    def _validate_fit_params(self) -> None:
        assert isinstance(self.cluster_centers_, np.ndarray)

    def validate(self, parts: list[np.ndarray], rank: int, n_workers: int) -> None:
        assert parts
        assert 0 <= rank < n_workers

    def fit(self, parts: list[np.ndarray], sample_weight: Any = None) -> "FittedByLloyd":
        rows = np.concatenate(parts)
        for iteration in range(1, self.max_iter + 1):
            self.cluster_centers_, self.inertia_ = next_centroids(
                self.cluster_centers_, lloyd_sums(rows, self.cluster_centers_)
            )
            self.n_iter_ = iteration
        self.labels_ = assign(rows, self.cluster_centers_)
        return self


class NoComms:
    """`Comms` without NCCL."""

    sessionId = b"session"

    def __init__(self, comms_p2p: bool = False, client: distributed.Client | None = None) -> None:
        assert client is distributed.default_client()

    def init(self, workers: Any = None) -> None:
        assert len(workers) == 1

    def destroy(self) -> None:
        pass


@pytest.fixture
def inside() -> Iterator[distributed.Client]:
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None, set_as_default=False
    ) as client:
        yield client


def test_the_fit_goes_through_the_python_of_cuml_on_a_worker_of_one_thread(
    inside: distributed.Client, rng: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kmeans = importlib.import_module("cuml.dask.cluster.kmeans")
    base = importlib.import_module("cuml.internals.base").Base  # what the distributed estimator takes for a model
    of_cuml = type("KMeansMG", (FittedByLloyd, base), {})
    monkeypatch.setattr(importlib.import_module("cuml.cluster.kmeans_mg"), "KMeansMG", of_cuml)
    monkeypatch.setattr(kmeans, "Comms", NoComms)
    monkeypatch.setattr(kmeans, "get_raft_comm_state", lambda *_: {"handle": None, "wid": 0, "nworkers": 1})
    monkeypatch.setattr(kmeans, "cp", SimpleNamespace(zeros=np.zeros))
    monkeypatch.setattr(fit_cuml, "backend_module", lambda backend: np)
    rows = on_grid(unit_rows(rng.standard_normal((300, 8))), SUM_GRID_BITS)
    parts = [inside.submit(np.copy, part, pure=False) for part in (rows[:120], rows[:0], rows[120:])]
    save_array(start := Location.of(tmp_path / "start.npy"), rows[:5])
    options = {"max_iter": 3, "tol": 1e-4, "random_state": 1, "max_samples_per_batch": 1000}
    found = fit_cuml.fit_by_cuml(inside, parts, [120, 0, 180], start, options).result(60)
    expected = rows[:5]
    for _ in range(3):
        expected, inertia = next_centroids(expected, lloyd_sums(rows, expected))
    np.testing.assert_array_equal(found[0], expected)
    assert found[1].tolist() == np.bincount(assign(rows, expected), minlength=5).tolist()
    assert found[2:] == (inertia, 3)


def test_a_cluster_of_our_own_is_one_of_dask_cuda_with_one_pool_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = importlib.import_module("dask_cuda.local_cuda_cluster")
    for name, value in (("gpu_usable", True), ("gpu_count", 2), ("missing_gpu_packages", [])):
        monkeypatch.setattr(cluster, name, lambda value=value: value)
    monkeypatch.setattr(cuda, "cuda_visible_devices", lambda *_: "0,1")
    monkeypatch.setattr(cuda, "nvml_device_index", lambda *_: 0)
    monkeypatch.setattr(cuda, "parse_device_memory_limit", lambda *_, **__: 1 << 30)
    monkeypatch.setattr(cuda, "worker_data_function", lambda **_: lambda index: dict)
    monkeypatch.setattr(cuda, "initialize", lambda **_: None)
    plugins: list[dict[str, Any]] = []
    monkeypatch.setattr(cuda, "worker_plugins", lambda **given: plugins.append(given) or ())
    monkeypatch.setattr(cuda.LocalCUDACluster, "scale", lambda self, n: [self.new_worker_spec()])  # starts none
    with cluster._start_cluster(ClusterOptions(backend="gpu", memory_limit="2GiB"), on_gpu=True) as started:
        options = started.new_spec["options"]
        assert started.cuda_visible_devices == [0, 1]
    assert options["preload"] == [cluster.IGNORE_CTRL_C, "dask_cuda.initialize"]
    assert (options["nthreads"], options["host"], options["memory_limit"]) == (1, "127.0.0.1", 2 << 30)
    assert plugins[0]["rmm_initial_pool_size"] == cluster.POOL_OF_GPU
    assert plugins[0]["rmm_allocator_external_lib_list"] == ["cupy"]
