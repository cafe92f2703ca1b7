"""The fit by cuML, over a stand-in with the signatures and habits of cuML 26.10; and which engine is chosen.

`tests/test_rapids.py` does the same with cuML's own Python, where it is installed.
"""

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import dask.array
import distributed
import numpy as np
import pytest

from semdedup import ClusterError, ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import Session
from semdedup.compute.workers import Workers
from semdedup.dedup.cluster import fit_cuml
from semdedup.dedup.cluster.draw import load_sample
from semdedup.dedup.cluster.fit import KMeansOptions, _chosen_engine, fit_centroids
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.kernels.exact import on_grid, unit_rows
from semdedup.dedup.kernels.kmeans import SUM_GRID_BITS, assign, lloyd_sums, next_centroids
from semdedup.dedup.names import KMEANS
from semdedup.runs.record import Record
from semdedup.storage.arrays import save_array
from semdedup.storage.location import Location
from tests.helpers import near_duplicates, workflow, write_embeddings


class KMeansMG:
    """What runs in each worker; here in one alone. Takes no argument twice, and none that it does not know."""

    def __init__(
        self,
        *,
        handle: Any,
        n_clusters: int = 8,
        max_iter: int = 300,
        tol: float = 1e-4,
        verbose: bool = False,
        random_state: int | None = None,
        init: Any = "scalable-k-means++",
        n_init: int | str = "auto",
        oversampling_factor: float = 2.0,
        max_samples_per_batch: int = 1 << 15,
        output_type: str | None = None,
    ) -> None:
        self.cluster_centers_, self.max_iter, self.tol, self.output_type = init, max_iter, tol, output_type

    def fit(self, rows: np.ndarray, sample_weight: Any = None) -> "KMeansMG":
        for iteration in range(1, self.max_iter + 1):
            self.cluster_centers_, self.inertia_ = next_centroids(
                self.cluster_centers_, lloyd_sums(rows, self.cluster_centers_)
            )
            self.n_iter_ = iteration
        self.labels_ = assign(rows, self.cluster_centers_)
        return self


def run_in_worker(objs: list[np.ndarray], datatype: str, **kwargs: Any) -> KMeansMG:
    return KMeansMG(handle=None, output_type=datatype, **kwargs).fit(np.concatenate(objs))


class KMeans:
    """``cuml.dask.cluster.KMeans``: passes `output_type` itself, and waits on the current client."""

    def __init__(
        self, *, client: distributed.Client | None = None, verbose: bool = False, n_clusters: int = 8, **kwargs: Any
    ) -> None:
        self.client = distributed.default_client() if client is None else client
        self.kwargs = {**kwargs, "verbose": verbose, "n_clusters": n_clusters}

    def fit(self, rows: Any, sample_weight: Any = None) -> "KMeans":
        assert isinstance(rows, dask.array.Array)
        parts = [self.client.compute(part) for part in rows.to_delayed().ravel()]
        distributed.wait(parts)
        futures = [self.client.submit(run_in_worker, parts, "cupy", **self.kwargs, pure=False)]
        distributed.wait(futures)
        self.model = futures[0].result()
        self.inertia_ = self.model.inertia_
        labels = self.client.submit(getattr, futures[0], "labels_")
        self.labels_ = dask.array.from_delayed(labels, shape=(len(rows),), dtype=np.int32)
        return self

    def get_combined_model(self) -> KMeansMG:
        return self.model


@pytest.fixture
def cuml(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in, on arrays of NumPy, in every process that is asked for it."""
    for name in ("cuml", "cuml.dask", "cuml.dask.cluster"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    sys.modules["cuml.dask.cluster"].KMeans = KMeans  # type: ignore[attr-defined]
    monkeypatch.setattr(fit_cuml, "backend_module", lambda backend: np)
    monkeypatch.setattr(fit_cuml, "cuml_faults", lambda client: {})
    monkeypatch.setattr(fit_cuml, "import_beside_cupy", importlib.import_module)


@pytest.fixture
def local_client() -> Iterator[distributed.Client]:
    """A worker in this process, and no current client."""
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None, set_as_default=False
    ) as client:
        with pytest.raises(ValueError, match="No clients found"):
            distributed.default_client()
        yield client


def test_the_fit_passes_nothing_twice_and_finds_its_client(
    cuml: None, local_client: distributed.Client, rng: np.random.Generator, tmp_path: Path
) -> None:
    rows = on_grid(unit_rows(rng.standard_normal((300, 8))), SUM_GRID_BITS)
    parts = [local_client.submit(np.copy, part) for part in (rows[:120], rows[:0], rows[120:])]
    options = {"max_iter": 3, "tol": 1e-4, "random_state": 1, "max_samples_per_batch": 1000}
    save_array(start := Location.of(tmp_path / "start.npy"), rows[:5])
    future = fit_cuml.fit_by_cuml(local_client, parts, [120, 0, 180], start, options)
    centroids, counts, inertia, iterations = future.result()
    expected = rows[:5]
    for _ in range(3):
        expected, least = next_centroids(expected, lloyd_sums(rows, expected))
    np.testing.assert_array_equal(centroids, expected)
    assert counts.tolist() == np.bincount(assign(rows, expected), minlength=5).tolist()
    assert (inertia, iterations) == (least, 3)


def session_with(of_worker: str, of_scheduler: str = "", backend: str = "gpu", device_memory: int = 1 << 30) -> Any:
    """A session of one worker and a scheduler who answer so."""
    said: list[str] = []
    client = SimpleNamespace(run=lambda asked: {"tcp://w": of_worker}, run_on_scheduler=lambda *asked: of_scheduler)
    reporter = SimpleNamespace(say=said.append)
    return SimpleNamespace(
        client=client, backend=backend, reporter=reporter, said=said, device_memory=device_memory, n_slots=1
    )


@pytest.mark.parametrize(
    ("backend", "asked", "of_scheduler", "of_worker", "engine", "reason"),
    [
        ("cpu", "auto", "", "", "lloyd", "on the CPU"),
        ("gpu", "lloyd", "", "", "lloyd", "asked for"),
        ("gpu", "auto", "", "", "cuml", "every worker has a GPU and cuML"),
        ("gpu", "cuml", "", "", "cuml", "every worker has a GPU and cuML"),
        ("cpu", "cuml", "", "", "cuml", "every worker has a GPU and cuML"),
        ("gpu", "auto", "", "no usable GPU", "lloyd", "no cuML: tcp://w: no usable GPU"),
        ("gpu", "auto", "packages missing: raft_dask", "", "lloyd", "no cuML: scheduler: packages missing: raft_dask"),
    ],
)
def test_the_engine_is_chosen_and_said_with_the_reason(
    backend: str, asked: str, of_scheduler: str, of_worker: str, engine: str, reason: str
) -> None:
    session = session_with(of_worker, of_scheduler, backend)
    assert _chosen_engine(session, KMeansOptions(kmeans_engine=asked), 1 << 20) == engine
    assert session.said == [f"k-means engine: {engine} ({reason})"]


def test_a_sample_that_does_not_fit_on_the_gpus_is_left_to_lloyd() -> None:
    session = session_with("", device_memory=3 << 30)
    assert _chosen_engine(session, KMeansOptions(), 2 << 30) == "lloyd"
    assert session.said == ["k-means engine: lloyd (no cuML: GPUs: the sample needs 4.0 GiB, and they have 3.0 GiB "
                            "together)"]  # fmt: skip


def test_workers_are_asked_for_their_cards_and_the_client_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(fit_cuml, "gpu_usable", lambda: True)
    monkeypatch.setattr(fit_cuml, "find_spec", lambda name: True)
    asked = SimpleNamespace(run=lambda call: {"tcp://w": call()}, run_on_scheduler=lambda call, *args: call(*args))
    assert "CUDA_VISIBLE_DEVICES is not set" in fit_cuml.cuml_faults(asked)["tcp://w"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    assert fit_cuml.cuml_faults(asked) == {}
    monkeypatch.setattr(fit_cuml, "find_spec", lambda name: None if name == "raft_dask" else True)
    assert fit_cuml.cuml_faults(asked) == dict.fromkeys(("scheduler", "tcp://w"), "packages missing: raft_dask")


def test_cuml_that_cannot_run_is_an_error_that_says_where_and_why(client: distributed.Client, tmp_path: Path) -> None:
    if not fit_cuml._missing():
        pytest.skip("cuML can run here")
    write_embeddings(tmp_path / "in", *near_duplicates(np.random.default_rng(8), 50), n_files=1)
    with pytest.raises(ClusterError, match=r"'cuml' cannot run here:\n  scheduler: .*(\n  tcp://.*)+\n.*'lloyd'"):
        workflow(tmp_path / "in", tmp_path / "out", kmeans_engine="cuml").run(client)


@pytest.mark.parametrize("engine", ["cuml", "lloyd"])
def test_a_fit_says_which_engine_ran(
    cuml: None, local_client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    sample = on_grid(unit_rows(np.random.default_rng(0).standard_normal((60, 6))), SUM_GRID_BITS)
    monkeypatch.setattr(
        "semdedup.dedup.cluster.draw.load_sample_part",
        lambda work, dim, drawn, part: (np.arange(part, 60, 2, dtype=np.uint64), sample[part::2]),
    )
    session = Session(local_client, "cpu", Reporter(verbose=False), Workers(local_client))
    work = Workspace(None, Location.of(str(tmp_path)), Location.of(str(tmp_path)), {})  # type: ignore[arg-type]
    found = fit_centroids(
        session, work, load_sample(session, work, [0, 1], 6), 6, 4, KMeansOptions(kmeans_engine=engine, max_iter=2)
    )
    assert found.engine == engine
    assert (found.centroids.shape, found.counts.sum()) == ((4, 6), 60)


def test_the_record_has_the_engine_that_ran(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", *near_duplicates(np.random.default_rng(8), 50), n_files=1)
    workflow(tmp_path / "in", tmp_path / "out").run(client, cluster=ClusterOptions(backend="cpu"))
    recorded = Record(Location.of(tmp_path / "out")).committed(KMEANS)
    assert recorded is not None
    assert recorded["facts"]["engine"] == "lloyd"
