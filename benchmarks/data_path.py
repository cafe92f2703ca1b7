"""From list<float32> Parquet to one folder for each cluster: processor time beside PyArrow reading and writing alone.

Processor time is that of the workers, in all their threads. The workers' steps before the fit and the assignment read
every row (twice), check it and sort it into shuffle files; ``write clusters`` gathers it from there.

The assignment multiplies as well, which is no part of the data path. So the labels are made again, in the same workers,
of the same rows with the same centroids and nothing else, and the processor time of that call alone is taken off. What
else the step does with the rows (normalising them, their distances to the centroids) stays in.
"""

import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.data import make_rows, write_files
from benchmarks.limits import read_file, write_file
from benchmarks.table import Row
from benchmarks.workers import ProcessorReporter, local_workers, pids, processor_seconds
from semdedup import KMeansStage
from semdedup.compute.session import check_cluster
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.kmeans import assign
from semdedup.dedup.names import CENTROIDS
from semdedup.dedup.stage import execute_stages

SIZES: dict[str, dict[str, int]] = {
    "smoke": {"n_rows": 3_000, "dim": 16, "n_clusters": 20, "n_files": 4, "rounds": 1},
    "quick": {"n_rows": 50_000, "dim": 256, "n_clusters": 200, "n_files": 16, "rounds": 2},
    "full": {"n_rows": 500_000, "dim": 256, "n_clusters": 1000, "n_files": 64, "rounds": 2},
}
READING, WRITING = ("inspect files", "scan", "check ids", "assign"), "write clusters"
TICK = 0.01
"""Seconds that processor time is counted in: less cannot be told from nothing."""


def seconds_to_label(centroids: Path, path: str) -> float:
    """Processor seconds of the labels of the rows of a file, which are read before."""
    column = pq.read_table(path, columns=["embedding"], use_threads=False)["embedding"].combine_chunks()
    rows, means = unit_rows(column.flatten().to_numpy().reshape(len(column), -1)), np.load(centroids)
    started = time.process_time()
    assign(rows, means)
    return time.process_time() - started


def labels_alone(client: distributed.Client, centroids: Path, paths: Sequence[str]) -> float:
    """Processor seconds of the labels of all rows, on the workers."""
    return sum(client.gather([client.submit(seconds_to_label, centroids, path, pure=False) for path in paths]))


def seconds_to_write(target: Path, paths: Sequence[str]) -> float:
    """Processor seconds of writing the rows of some cluster files, which are read before, as one file."""
    table = pa.concat_tables(pq.ParquetFile(path).read(use_threads=False) for path in paths)
    started = time.process_time()
    write_file(table, target)
    return time.process_time() - started


def writing_alone(client: distributed.Client, clusters: Path, n_files: int) -> float:
    """Processor seconds of writing all cluster files once more, as so many files, on the workers."""
    paths = sorted(str(path) for path in clusters.rglob("*.parquet"))
    with tempfile.TemporaryDirectory(dir=clusters.parent) as name:
        tasks = [
            client.submit(seconds_to_write, Path(name, f"{i}.parquet"), paths[i::n_files], pure=False)
            for i in range(min(n_files, len(paths)))
        ]
        return sum(client.gather(tasks))


def reading_alone(client: distributed.Client, paths: Sequence[str]) -> float:
    """Processor seconds of the workers while they read all files and do nothing with them."""
    workers = pids(client)
    started = processor_seconds(workers)
    client.gather(client.map(read_file, paths, pure=False))
    return max(TICK, processor_seconds(workers) - started)


def measure_round(client: distributed.Client, inputs: Path, output: Path, n_clusters: int) -> dict[str, float]:
    """Processor seconds of each step, and of what stands beside them, measured before and after."""
    paths = sorted(str(path) for path in inputs.iterdir())
    before = reading_alone(client, paths)
    session = check_cluster(client, "cpu", ProcessorReporter(pids(client)))
    stage = KMeansStage(n_clusters, input_path=str(inputs), output_path=str(output), max_iter=2, verbose=False)
    (result,) = execute_stages(session, [stage])
    found = {name: result.steps[name] for name in (*READING, WRITING)}
    found["reading alone"] = (before + reading_alone(client, paths)) / 2
    found["writing alone"] = writing_alone(client, Path(result.path), len(paths))
    found["labels alone"] = labels_alone(client, output / CENTROIDS, paths)
    found["reading and shuffle"] = max(TICK, sum(found[name] for name in READING) - found["labels alone"])
    found["reading ratio"] = found["reading and shuffle"] / found["reading alone"]
    found["writing ratio"] = found[WRITING] / found["writing alone"]
    return found


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape = SIZES[size]
    n, d, k = shape["n_rows"], shape["dim"], shape["n_clusters"]
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name, local_workers(2) as client:
        inputs = Path(name, "input")
        write_files(inputs, make_rows(n, d, n_topics=k), shape["n_files"])
        reading_alone(client, sorted(str(path) for path in inputs.iterdir()))  # files and libraries are in memory now
        found = []
        for i in range(shape["rounds"]):
            found.append(measure_round(client, inputs, Path(name, f"output-{i}"), k))
            shutil.rmtree(Path(name, f"output-{i}"))
    medians = {step: statistics.median(each[step] for each in found) for step in found[0]}
    print(f"data path of {n:,} × {d}, {shape['n_files']} files, {k} clusters, processor seconds")
    for step, seconds in medians.items():
        if not step.endswith("ratio"):
            print(f"  {step:<24}{seconds:9.2f}")
    print(f"  reading and shuffle, without the products: {medians['reading ratio']:.2f} × reading alone")
    print(f"  writing: {medians['writing ratio']:.2f} × writing the same rows once", flush=True)
    return {**shape, "processor_seconds": medians}


def rows(found: dict[str, Any]) -> list[Row]:
    """Reading with the shuffle, and writing, each beside PyArrow."""
    seconds = found["processor_seconds"]
    size = f"{found['n_rows']:,} × {found['dim']}, {found['n_files']} files, {found['n_clusters']:,} clusters"
    shuffled, written = seconds["reading and shuffle"], seconds[WRITING]
    what = "processor time"
    return [
        Row(f"reading, shuffle: {what}", size, f"{shuffled:.3g} s", "PyArrow reading", seconds["reading ratio"]),
        Row(f"writing clusters: {what}", size, f"{written:.3g} s", "PyArrow writing once", seconds["writing ratio"]),
    ]
