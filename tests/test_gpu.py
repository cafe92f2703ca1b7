"""Whole dedups on a GPU: every table and centroid is that of the CPU, to the bit."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdedup import ClusterOptions
from semdedup.arrays import gpu_usable
from semdedup.compute.cluster import connect
from semdedup.dedup import sizes
from semdedup.dedup.cluster.fit_cuml import cuml_faults
from semdedup.dedup.compare import tiles
from semdedup.dedup.compare.spans import tile_spans
from semdedup.dedup.names import KMEANS
from semdedup.dedup.results.frames import for_cudf
from semdedup.runs.record import Record
from semdedup.storage.location import Location
from tests.helpers import embedding_table, near_duplicates, read_folder, set_task_bytes, workflow

on_gpu = pytest.mark.skipif(
    not gpu_usable() and os.environ.get("SEMDEDUP_REQUIRE_GPU") != "1",
    reason="no usable GPU: a device and CuPy are needed",
)
N, DIM = 3000, 384
KINDS = [pa.list_(pa.float32()), pa.list_(pa.float32(), DIM), pa.list_(pa.float16()), pa.list_(pa.float64())]


@pytest.fixture(scope="module")
def gpus() -> Iterator[distributed.Client]:
    """A worker on a GPU, of dask-cuda where it is there."""
    with connect(ClusterOptions(backend="gpu", n_workers=1)) as client:
        yield client


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], np.ndarray]:
    ids, found = near_duplicates(np.random.default_rng(8), N, DIM)
    found[7], found[70] = 0, np.nan
    return ids, np.float16(found).astype(np.float32)  # which every type holds


def write(folder: Path, ids: list[str], rows: np.ndarray, kind: pa.DataType) -> Path:
    """One file of some row groups, large enough for cuDF to be asked."""
    folder.mkdir()
    table = embedding_table(ids, rows, note=[f"note {i}" for i in range(len(ids))])
    table = table.set_column(1, "embedding", table["embedding"].cast(kind))
    pq.write_table(table, folder / "part.parquet", row_group_size=700)
    return folder


def tables_of(out: Path) -> dict[str, Any]:
    """Everything that a dedup writes, by what it is called."""
    folders = ("kmeans_results", "pairwise_results", "duplicates", "quarantine")
    found = {name: read_folder(out / name) for name in folders if (out / name).is_dir()}
    forest = pd.concat([pq.read_table(file).to_pandas() for file in sorted(out.rglob("*forest*/*.parquet"))])
    found["forest"] = forest.sort_values(["id_a", "id_b"], ignore_index=True)
    return found


def assert_equal(found: Path, expected: Path) -> None:
    one, other = tables_of(found), tables_of(expected)
    assert one.keys() == other.keys() >= {"kmeans_results", "pairwise_results", "duplicates", "forest"}
    for name in one:
        pd.testing.assert_frame_equal(one[name], other[name], check_exact=True)
    centroids = [np.load(out / "_kmeans_centroids.npy") for out in (found, expected)]
    assert centroids[0].tobytes() == centroids[1].tobytes()


@on_gpu
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_table_and_centroid_is_that_of_the_cpu(
    gpus: distributed.Client, client: distributed.Client, rows: Any, tmp_path: Path, kind: pa.DataType
) -> None:
    write(tmp_path / "in", *rows, kind)
    chosen = {"n_clusters": 12, "eps": 0.1, "metadata_fields": ["note"], "kmeans_engine": "lloyd"}
    for name, workers in (("cpu", client), ("gpu", gpus)):
        cluster = ClusterOptions(backend=name)  # type: ignore[arg-type]
        result = workflow(tmp_path / "in", tmp_path / name, **chosen).run(workers, cluster=cluster)
        assert result.total == N
    assert_equal(tmp_path / "gpu", tmp_path / "cpu")


@on_gpu
def test_a_cluster_larger_than_a_gpu_holds_goes_in_tiles_to_the_same_answer(
    rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "in", *rows, pa.list_(pa.float32()))
    chosen = {"n_clusters": 2, "eps": 0.1, "kmeans_engine": "lloyd"}
    cut: list[int] = []
    monkeypatch.setattr(tiles, "tile_spans", lambda some, dim: cut.append(len(some)) or tile_spans(some, dim))
    options = {"processes": False, "threads_per_worker": 1, "dashboard_address": "127.0.0.1:0"}
    with distributed.Client(n_workers=1, set_as_default=False, **options) as inside:
        workflow(tmp_path / "in", tmp_path / "cpu", **chosen).run(inside, cluster=ClusterOptions(backend="cpu"))
        set_task_bytes(monkeypatch, 400 * 4 * DIM)
        monkeypatch.setattr(sizes, "LARGEST_ON_DEVICE", 900 * 4 * DIM)
        workflow(tmp_path / "in", tmp_path / "gpu", **chosen).run(inside, cluster=ClusterOptions(backend="gpu"))
    assert max(cut) > 2
    assert_equal(tmp_path / "gpu", tmp_path / "cpu")


@on_gpu
def test_cuml_finds_an_inertia_within_one_percent_of_ours(gpus: distributed.Client, rows: Any, tmp_path: Path) -> None:
    faults = cuml_faults(gpus)
    if faults:
        pytest.skip(f"cuML cannot run here: {faults}")
    write(tmp_path / "in", *rows, pa.list_(pa.float32()))
    inertia = {}
    for engine in ("lloyd", "cuml"):
        chosen = {"n_clusters": 40, "max_iter": 100, "kmeans_engine": engine}
        cluster = ClusterOptions(backend="gpu")
        workflow(tmp_path / "in", tmp_path / engine, **chosen).run(gpus, cluster=cluster)
        recorded = Record(Location.of(tmp_path / engine)).committed(KMEANS)
        assert recorded is not None
        assert recorded["facts"]["engine"] == engine
        inertia[engine] = recorded["facts"]["inertia"]
    assert abs(inertia["cuml"] / inertia["lloyd"] - 1) < 0.01, inertia


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_tables_have_types_that_cudf_has(kind: pa.DataType) -> None:
    values = pa.array([np.arange(DIM, dtype=kind.value_type.to_pandas_dtype()), None], kind)
    wanted = pa.float32() if kind.value_type == pa.float16() else kind.value_type
    found = for_cudf(pa.table({"id": ["a", "b"], "embedding": values}))
    assert found.schema.types == [pa.string(), pa.list_(wanted)]
    assert found["embedding"].to_pylist() == values.to_pylist()
