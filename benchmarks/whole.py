"""The whole dedup on two workers with little memory, step by step, beside the limits of the machine."""

import contextlib
import os
import tempfile
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import distributed
import psutil
import pyarrow.parquet as pq

from benchmarks.data import make_rows, write_files
from benchmarks.limits import seconds_to_compare, seconds_to_multiply, seconds_to_read
from semdedup import SemanticDeduplicationWorkflow
from semdedup.dedup.kmeans import sample_size

SIZES = {
    "smoke": {"n_rows": 6_000, "dim": 32, "n_clusters": 20, "n_files": 4},
    "quick": {"n_rows": 100_000, "dim": 256, "n_clusters": 100, "n_files": 20},
    "full": {"n_rows": 1_000_000, "dim": 256, "n_clusters": 1000, "n_files": 20},
}


class MemoryWatch(threading.Thread):
    """Samples the resident memory of processes of this machine; `peaks` are their highest values in MiB."""

    def __init__(self, pids: Iterable[int]) -> None:
        super().__init__(daemon=True)
        self.processes = [psutil.Process(pid) for pid in pids]
        self.peaks = [0.0] * len(self.processes)
        self.stopped = threading.Event()

    def run(self) -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            while not self.stopped.wait(0.02):
                for i, process in enumerate(self.processes):
                    self.peaks[i] = max(self.peaks[i], process.memory_info().rss / 2**20)


def measure(size: str, folder: Path) -> dict[str, Any]:
    shape = SIZES[size]
    n, d, k = shape["n_rows"], shape["dim"], shape["n_clusters"]
    inputs, outputs = folder / "input", folder / "output"
    write_files(inputs, make_rows(n, d, n_topics=k), shape["n_files"])
    paths = sorted(str(path) for path in inputs.iterdir())
    options = {"n_workers": 2, "threads_per_worker": 1, "memory_limit": "2GiB"}
    with (
        distributed.LocalCluster(host="127.0.0.1", dashboard_address="127.0.0.1:0", **options) as cluster,
        distributed.Client(cluster) as client,
    ):
        watch = MemoryWatch(client.run(os.getpid).values())
        start = [process.memory_info().rss / 2**20 for process in watch.processes]
        watch.start()
        workflow = SemanticDeduplicationWorkflow(str(inputs), str(outputs), k, eps=0.01, verbose=size != "smoke")
        result = workflow.run(client)
        watch.stopped.set()
        watch.join()
        if not all(process.is_running() for process in watch.processes):
            raise SystemExit("a worker died, most likely for want of memory, and was started again")
        sizes = [pq.read_metadata(path).num_rows for path in (outputs / "pairwise_results").glob("*.parquet")]
        fitted = sample_size(n, k, None) * result.metadata["iterations"]
        limits = {
            "read": seconds_to_read(client, paths),
            "fit products": seconds_to_multiply(client, fitted, d, k),
            "assignment products": seconds_to_multiply(client, n, d, k),
            "comparison products": seconds_to_compare(client, sizes, d),
        }
    return {
        **shape,
        "duplicates": result.duplicates,
        "iterations": result.metadata["iterations"],
        "total": result.metadata["total_time"],
        "steps": result.metadata["step_seconds"],
        "limits": limits,
        "peak_mib": watch.peaks,
        "start_mib": start,
        "largest_cluster": max(sizes),
    }


BESIDE = {
    "scan": "read",
    "fit": "fit products",
    "assign": "assignment products",
    "compare": "comparison products",
}


def report(found: dict[str, Any]) -> list[str]:
    shape = f"{found['n_rows']:,} × {found['dim']} float32, {found['n_files']} files, {found['n_clusters']} clusters"
    lines = [
        f"dedup of {shape}, two workers of 2 GiB: {found['total']:.1f} s, {found['iterations']} iterations of the fit"
    ]
    lines.append(f"  {'step':<20}{'seconds':>9}   {'beside':<22}{'seconds':>9}{'ratio':>8}")
    for step, seconds in found["steps"].items():
        limit = BESIDE.get(step)
        beside = f"{limit:<22}{found['limits'][limit]:>9.2f}{seconds / found['limits'][limit]:>8.2f}" if limit else ""
        lines.append(f"  {step:<20}{seconds:>9.2f}   {beside}")
    limits, total = found["limits"], found["total"]
    bound = limits["read"] + limits["assignment products"] + limits["comparison products"]
    with_fit = bound + limits["fit products"]
    lines.append(f"  reading + products of assignment and comparison: {bound:.1f} s, {bound / total:.0%} of the total")
    lines.append(f"  and the products of the fit's assignments: {with_fit:.1f} s, {with_fit / total:.0%} of the total")
    lines.append(f"  everything that is neither: {1 - with_fit / total:.0%} of the total")
    pairs = zip(found["peak_mib"], found["start_mib"], strict=True)
    peaks = ", ".join(f"{peak:.0f} MiB (at the start {start:.0f})" for peak, start in pairs)
    lines.append(f"  peak memory of each worker: {peaks}; largest cluster {found['largest_cluster']:,} rows")
    return lines


def run(size: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as folder:
        found = measure(size, Path(folder))
    print("\n".join(report(found)), flush=True)
    return found
