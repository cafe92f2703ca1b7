"""cuDF, cuML, dask-cuda and the whole dedup on GPUs beside the answer of the CPU. A step that fails ends no other."""

import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet

from semdedup import ClusterOptions, SemanticDeduplicationWorkflow, read_embeddings
from semdedup.compute.cluster import connect

N_ROWS, DIM, N_CLUSTERS, N_FILES = 60_000, 512, 200, 4
LISTS = (pa.list_(pa.float32()), pa.list_(pa.float32(), 2), pa.list_(pa.float16()), pa.large_list(pa.float32()))


def attempt(name: str, function: Callable[[], Any]) -> None:
    started = time.perf_counter()
    try:
        found = function()
        print(f"OK   {name}: {found} [{time.perf_counter() - started:.1f} s]", flush=True)
    except Exception as error:
        traceback.print_exc(limit=-4)
        print(f"FAIL {name}: {type(error).__name__} {str(error)[:400]}", flush=True)


def write_input(folder: Path) -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((N_CLUSTERS, DIM))
    rows = centres[rng.integers(N_CLUSTERS, size=N_ROWS)] + 0.5 * rng.standard_normal((N_ROWS, DIM))
    rows[rng.integers(N_ROWS, size=N_ROWS // 20)] = rows[rng.integers(N_ROWS, size=N_ROWS // 20)]
    folder.mkdir()
    for file, part in enumerate(np.array_split(np.arange(N_ROWS), N_FILES)):
        offsets = pa.array(np.arange(0, len(part) * DIM + 1, DIM), pa.int32())
        lists = pa.ListArray.from_arrays(offsets, pa.array(rows[part].astype(np.float32).ravel()))
        pa.parquet.write_table(pa.table({"id": pa.array(part), "embedding": lists}), folder / f"{file}.parquet")


def dedup(folder: Path, name: str, backend: str, client: Any = None, **options: Any) -> Any:
    workflow = SemanticDeduplicationWorkflow(
        input_path=str(folder / "in"), output_path=str(folder / name), n_clusters=N_CLUSTERS, eps=0.1, **options
    )
    result = workflow.run(client, cluster=ClusterOptions(backend=backend))
    return result.metadata


def differences(folder: Path, name: str) -> dict[str, int]:
    """Rows of each column in which two answers differ."""
    first, second = (
        pa.dataset.dataset(folder / which / "pairwise_results").to_table().sort_by("id") for which in ("cpu", name)
    )
    return {c: int((first[c].to_numpy() != second[c].to_numpy()).sum()) for c in first.column_names}


def frame_of(kind: pa.DataType) -> Any:
    import cudf

    return dict(cudf.DataFrame.from_arrow(pa.table({"e": pa.array([np.array([1, 2], np.float16)], kind)})).dtypes)


def read_on_gpu(folder: Path) -> Any:
    frame = read_embeddings(str(folder / "in"), backend="gpu")
    return type(frame), len(frame), type(frame.partitions[0].compute())


def too_many_workers() -> int:
    with connect(ClusterOptions(backend="auto", n_workers=64)) as client:
        return len(client.scheduler_info()["workers"])


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_input(folder / "in")
        for kind in LISTS:
            attempt(f"cuDF of {kind}", lambda kind=kind: frame_of(kind))
        attempt("read_embeddings, backend gpu", lambda: read_on_gpu(folder))
        attempt("CPU", lambda: dedup(folder, "cpu", "cpu"))
        attempt("GPU, Lloyd", lambda: dedup(folder, "lloyd", "gpu", kmeans_engine="lloyd"))
        attempt("  differences from the CPU", lambda: differences(folder, "lloyd"))
        attempt("GPU, cuML", lambda: dedup(folder, "cuml", "gpu", kmeans_engine="cuml"))
        attempt("64 workers, backend auto (a ClusterError is expected)", too_many_workers)


if __name__ == "__main__":
    main()
