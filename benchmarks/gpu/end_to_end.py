"""The whole dedup on one GPU: rows a second and the seconds of each step; for few rows beside the answer of the CPU.

    python -m benchmarks.gpu.end_to_end [ROWS [DIM [CLUSTERS [THREADS]]]]
    python -m benchmarks.gpu.end_to_end same

By default 990,000 x 1536 in 3 clusters: 6 GB are written to the folder for temporary files, and about as much twice
over by the run. ``same``: 60,000 x 512 in 200 clusters on the CPU and on the GPU, with Lloyd and with cuML, and the
tables compared. A step that fails ends no other.
"""

import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.dataset

from benchmarks.gpu._input import card, write_input
from semdedup import ClusterOptions, SemanticDeduplicationWorkflow, read_embeddings
from semdedup.compute.cluster import connect


def attempt(name: str, function: Callable[[], Any]) -> None:
    started = time.perf_counter()
    try:
        found = function()
        print(f"OK   {name}: {found} [{time.perf_counter() - started:.1f} s]", flush=True)
    except Exception as error:
        traceback.print_exc(limit=-4)
        print(f"FAIL {name}: {type(error).__name__} {str(error)[:400]}", flush=True)


def dedup(folder: Path, name: str, cluster: ClusterOptions, client: Any = None, **options: Any) -> Any:
    workflow = SemanticDeduplicationWorkflow(
        input_path=str(folder / "in"), output_path=str(folder / name), eps=0.1, **options
    )
    return workflow.run(client, cluster=cluster)


def differences(folder: Path, name: str) -> dict[str, int]:
    """Rows of each column in which two answers differ."""
    first, second = (
        pyarrow.dataset.dataset(folder / which / "pairwise_results").to_table().sort_by("id") for which in ("cpu", name)
    )
    return {c: int((first[c].to_numpy() != second[c].to_numpy()).sum()) for c in first.column_names}


def read_on_gpu(folder: Path) -> Any:
    frame = read_embeddings(str(folder / "in"), backend="gpu")
    return type(frame), len(frame), type(frame.partitions[0].compute())


def too_many_workers() -> int:
    with connect(ClusterOptions(backend="auto", n_workers=64)) as client:
        return len(client.scheduler_info(n_workers=-1)["workers"])


def compare_with_cpu(folder: Path) -> None:
    write_input(folder / "in", 60_000, 512, 200)
    gpu = ClusterOptions(backend="gpu", n_workers=1)
    attempt("read_embeddings, backend gpu", lambda: read_on_gpu(folder))
    attempt("CPU", lambda: dedup(folder, "cpu", ClusterOptions(backend="cpu"), n_clusters=200).seconds)
    for engine in ("lloyd", "cuml"):
        attempt(f"GPU, {engine}", lambda e=engine: dedup(folder, e, gpu, n_clusters=200, kmeans_engine=e).seconds)
    attempt("  differences of Lloyd from the CPU (none are expected)", lambda: differences(folder, "lloyd"))
    attempt("64 workers, backend auto (a ClusterError is expected)", too_many_workers)


def measure(folder: Path, n_rows: int, dim: int, n_clusters: int, threads: int) -> None:
    started = time.perf_counter()
    n_bytes = write_input(folder / "in", n_rows, dim, n_clusters)
    print(f"{n_rows:,} x {dim}, {n_bytes / 1e9:.1f} GB written in {time.perf_counter() - started:.1f} s; {card()}")
    options = ClusterOptions(backend="gpu", n_workers=1, threads_per_worker=threads)
    with connect(options) as client:
        started = time.perf_counter()
        result = dedup(folder, "out", options, client, n_clusters=n_clusters)
        wall = time.perf_counter() - started
    forced = result.metadata["forced_seconds"]
    print(f"{n_rows / (wall - forced):,.0f} rows/s: {wall:.1f} s, {forced:.1f} s of which forced to disk")
    for step, seconds in {**result.seconds, **result.metadata["step_seconds"]}.items():
        print(f"  {step:24s} {seconds:8.2f} s {n_rows / max(seconds, 1e-9):14,.0f} rows/s")
    print(result)


def main(what: str = "990000", dim: int = 1536, n_clusters: int = 3, threads: int = 1) -> None:
    with tempfile.TemporaryDirectory() as name:
        if what == "same":
            compare_with_cpu(Path(name))
        else:
            measure(Path(name), int(what), dim, n_clusters, threads)


if __name__ == "__main__":
    main(*sys.argv[1:2], *map(int, sys.argv[2:]))
