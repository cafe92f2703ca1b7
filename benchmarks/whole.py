"""The whole dedup on two workers with little memory, step by step, beside the limits of the machine and a script.

Neither the start of processes nor what they import is timed, of the workers or of the script. On a machine that others
use as well, processor time says more than seconds: that of the workers, and of the script in all its threads.
"""

import importlib
import os
import statistics
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import distributed
import psutil
import pyarrow.parquet as pq

from benchmarks.data import make_rows, write_files
from benchmarks.data_path import writing_alone
from benchmarks.limits import compare_operations, label_operations, seconds_to_read, workers_rate
from benchmarks.peers import faiss_script
from benchmarks.table import Row
from benchmarks.timing import process
from benchmarks.workers import MemoryWatch, local_workers, pids, processor_seconds
from semdedup import SemanticDeduplicationWorkflow
from semdedup.dedup.kernels.kmeans import sample_size

SIZES = {
    "smoke": {"n_rows": 6_000, "dim": 32, "n_clusters": 20, "n_files": 4},
    "quick": {"n_rows": 100_000, "dim": 256, "n_clusters": 100, "n_files": 20},
    "full": {"n_rows": 1_000_000, "dim": 512, "n_clusters": 1000, "n_files": 20},
}
WORKERS, MEMORY, EPS = 2, "3GiB", 0.01

IMPORTED = ("semdedup.dedup.cluster.run", "semdedup.dedup.compare.run", "scipy.sparse.csgraph", "scipy.linalg.blas")
"""What workers import in a run, when they first need it."""


def import_all() -> None:
    for name in IMPORTED:
        importlib.import_module(name)


def run_dedup(
    client: distributed.Client, inputs: Path, outputs: Path, n_clusters: int | str, verbose: bool
) -> dict[str, Any]:
    """Run the workflow; its steps, the limits beside them at the rates of the same minutes, and the workers' memory."""
    paths = sorted(str(path) for path in inputs.iterdir())
    with pq.ParquetFile(paths[0]) as file:
        d = len(next(file.iter_batches(1))["embedding"][0])
    client.run(import_all)
    rate, workers = workers_rate(client, d), pids(client)
    with MemoryWatch(workers) as watch:
        workflow = SemanticDeduplicationWorkflow(str(inputs), str(outputs), n_clusters, eps=EPS, verbose=verbose)
        started = processor_seconds(workers)
        result = workflow.run(client)
        processor = processor_seconds(workers) - started
    if not all(map(psutil.Process.is_running, watch.processes)):
        raise SystemExit("a worker died, most likely for want of memory, and was started again")
    rate = (rate + workers_rate(client, d)) / 2
    # not before the run as well: it would leave memory in the workers, the more the larger the files
    read = statistics.mean(seconds_to_read(client, paths) for _ in range(2))
    written = writing_alone(client, Path(result.paths["clusters"]), len(paths)) / WORKERS
    sizes = [pq.read_metadata(path).num_rows for path in (outputs / "pairwise_results").glob("*.parquet")]
    n, k = result.total, result.metadata["n_clusters"]
    fitted = sample_size(n, k, None) * result.metadata["iterations"]
    return {
        "n_rows": n,
        "dim": d,
        "n_clusters": k,
        "duplicates": result.duplicates,
        "iterations": result.metadata["iterations"],
        "total": result.metadata["total_time"],
        "processor": processor,
        "forced": (result.metadata["forced_bytes"], result.metadata["forced_seconds"]),
        "steps": result.metadata["step_seconds"],
        "limits": {
            "reading": read,
            "writing": written,
            "fit products": label_operations(fitted, d, k) / rate,
            "assignment products": label_operations(n, d, k) / rate,
            "comparison products": compare_operations(sizes, d) / rate,
        },
        "rate": rate,
        "peak_mib": watch.peaks,
        "start_mib": watch.start_mib,
        "largest_cluster": max(sizes),
    }


def run_script(inputs: Path, output: Path, n_clusters: int) -> dict[str, float] | None:
    """The peer in a process of as many threads as there are workers; None where faiss is not installed."""
    if find_spec("faiss") is None:
        return None
    with process(threads=WORKERS) as call:
        before = call(time.process_time)
        found = call(faiss_script, inputs, output, n_clusters, EPS)
        return {**found, "processor": call(time.process_time) - before, "load": os.getloadavg()[0]}


def measure(size: str, folder: Path) -> dict[str, Any]:
    shape = SIZES[size]
    k, inputs = shape["n_clusters"], folder / "input"
    write_files(inputs, make_rows(shape["n_rows"], shape["dim"], n_topics=k), shape["n_files"])
    scripts = [run_script(inputs, folder / "script.parquet", k)]
    with local_workers(WORKERS, MEMORY) as client:
        found = run_dedup(client, inputs, folder / "output", k, verbose=size != "smoke")
    scripts.append(run_script(inputs, folder / "script.parquet", k))
    return {**shape, **found, "scripts": [script for script in scripts if script]}


FLOORS = {
    "scan": ("reading",),
    "fit": ("fit products",),
    "assign": ("reading", "assignment products"),
    "write clusters": ("writing", "comparison products"),
}
"""What a step cannot do without: files read and written by PyArrow alone, and products in float32. Clusters are scored
as they are written, and by the step "compare" where they are larger than a task."""


def report(found: dict[str, Any]) -> list[str]:
    """The figures in lines of text."""
    shape = f"{found['n_rows']:,} × {found['dim']} float32, {found['n_files']} files, {found['n_clusters']} clusters"
    (n_bytes, forced), limits, total = found["forced"], found["limits"], found["total"]
    lines = [
        f"dedup of {shape}, {WORKERS} workers of {MEMORY}: {total:.1f} s, {found['iterations']} iterations of the fit; "
        f"{total + forced:.1f} s with forcing {n_bytes:,} bytes to disk",
        f"  processor time of the workers {found['processor']:.1f} s; {found['rate'] / 1e9:.0f} GFLOP/s of both",
        f"  {'step':<20}{'seconds':>9}   {'beside':<36}{'seconds':>9}{'ratio':>8}",
    ]
    for step, seconds in found["steps"].items():
        beside = FLOORS.get(step, ())
        floor = sum(limits[name] for name in beside)
        words = f"{' + '.join(beside):<36}{floor:>9.2f}{seconds / floor:>8.2f}" if beside else ""
        lines.append(f"  {step:<20}{seconds:>9.2f}   {words}".rstrip())
    between = total - sum(found["steps"].values())
    lines.append(f"  {'between steps':<20}{between:>9.2f}")
    products = sum(limits[name] for name in limits if name.endswith("products"))
    files = 2 * limits["reading"] + limits["writing"]
    lines.append(
        f"  all products in float32: {products:.1f} s, {products / total:.0%} of the total; reading twice and writing "
        f"once: {files:.1f} s, {files / total:.0%}"
    )
    pairs = zip(found["peak_mib"], found["start_mib"], strict=True)
    peaks = ", ".join(f"{peak:.0f} MiB (at the start {start:.0f})" for peak, start in pairs)
    lines.append(f"  peak memory of each worker: {peaks}; largest cluster {found['largest_cluster']:,} rows")
    if not found["scripts"]:
        lines.append("  faiss is not installed: no script of faiss beside it")
    for script in found["scripts"]:
        of_script = (
            f"{script['seconds']:.1f} s, processor time {script['processor']:.1f} s, {script['peak_mib']:.0f} MiB"
        )
        lines.append(
            f"  a script of faiss, {WORKERS} threads: {of_script}, load {script['load']:.1f}; the workflow takes "
            f"{total / script['seconds']:.2f} × its time, {found['processor'] / script['processor']:.2f} × its "
            f"processor time and {sum(found['peak_mib']) / script['peak_mib']:.2f} × its memory"
        )
    return lines


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as folder:
        found = measure(size, Path(folder))
    print("\n".join(report(found)), flush=True)
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """Time and memory beside the script of faiss."""
    if not found["scripts"]:
        return []
    seconds, mib = (statistics.mean(script[name] for script in found["scripts"]) for name in ("seconds", "peak_mib"))
    ours = sum(found["peak_mib"])
    size = f"{found['n_rows']:,} × {found['dim']}, {found['n_clusters']:,} clusters"
    beside = f"a script of faiss, {WORKERS} threads"
    return [
        Row(
            f"whole dedup, {WORKERS} workers",
            size,
            f"{found['total']:.3g} s",
            beside,
            found["total"] / seconds,
            peer=True,
        ),
        Row("its memory, both workers", size, f"{ours:,.0f} MiB", beside, ours / mib, peer=True),
    ]
