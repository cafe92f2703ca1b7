"""Frames in and out: a Dask DataFrame beside the same rows as Parquet, and `deduplicate` beside its kernels alone.

The frame is held by the workers before the clock starts, as `persist` leaves it. Both runs of a round are on one
cluster, and the second has what the first left warm; the order changes from round to round.
"""

import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd

from benchmarks.data import make_rows, write_files
from benchmarks.peers import WITNESS, those_installed
from benchmarks.table import Row
from benchmarks.timing import seconds_of
from benchmarks.workers import local_workers
from semdedup import SemanticDeduplicationWorkflow, deduplicate, max_similarity, read_embeddings
from semdedup.dedup.kernels.exact import on_grid, unit_rows
from semdedup.dedup.kernels.kmeans import (
    SUM_GRID_BITS,
    assign,
    auto_n_clusters,
    converged,
    lloyd_sums,
    next_centroids,
    seeds,
)

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"frame": (4_000, 32, 4), "small": (2_000, 32), "rounds": 1},
    "quick": {"frame": (200_000, 256, 20), "small": (20_000, 384), "rounds": 3},
    "full": {"frame": (500_000, 256, 40), "small": (20_000, 384), "rounds": 3},
}
WORKERS, MEMORY, EPS = 2, "4GiB", 0.01
SEEDING_ROWS, TOL = 4096, 1e-4


def kmeans_alone(rows: np.ndarray) -> np.ndarray:
    """The labels that k-means of the program gives (n, d) rows, by its kernels and nothing else."""
    sample = on_grid(rows, SUM_GRID_BITS)
    centroids = sample[seeds(sample[:SEEDING_ROWS], auto_n_clusters(len(rows)), np.random.default_rng(42))]
    previous, inertia = np.inf, np.inf
    while not converged(previous, inertia, TOL):
        previous, (centroids, inertia) = inertia, next_centroids(centroids, lloyd_sums(sample, centroids))
    return assign(rows, centroids)


def kernels_alone(rows: np.ndarray) -> None:
    """k-means, and every row compared with all others."""
    kmeans_alone(rows)
    max_similarity(rows)


def kernels_by_cluster(rows: np.ndarray) -> None:
    """k-means, and every row compared with those of its cluster: what a run has to compute."""
    labels = kmeans_alone(rows)
    for label in np.unique(labels):
        max_similarity(rows[labels == label])


def measure_frame(client: distributed.Client, shape: tuple[int, int, int], rounds: int, folder: Path) -> dict[str, Any]:
    """Seconds of the run over Parquet, and over a Dask DataFrame of the same rows that the workers hold."""
    n_rows, dim, n_files = shape
    inputs = folder / "parquet"
    write_files(inputs, make_rows(n_rows, dim, n_topics=auto_n_clusters(n_rows)), n_files)
    with client.as_current():
        frame = read_embeddings(str(inputs)).persist()
        distributed.wait(frame)
    kinds = {"parquet": str(inputs), "frame": frame}
    seconds: dict[str, list[float]] = {name: [] for name in kinds}
    duplicates = set()
    for turn in range(rounds):
        for name in sorted(kinds, reverse=bool(turn % 2)):
            started = time.perf_counter()
            output = folder / f"{name}-{turn}"
            workflow = SemanticDeduplicationWorkflow(kinds[name], str(output), eps=EPS, verbose=False)
            duplicates.add(workflow.run(client).duplicates)
            seconds[name].append(time.perf_counter() - started)
    if len(duplicates) > 1:
        raise SystemExit(f"a frame gave another answer than Parquet: {duplicates}")
    pairs = zip(seconds["frame"], seconds["parquet"], strict=True)
    return {
        "n_rows": n_rows,
        "dim": dim,
        "seconds": {name: statistics.median(each) for name, each in seconds.items()},
        "ratio": statistics.median(frame / parquet for frame, parquet in pairs),
    }


def measure_small(client: distributed.Client, shape: tuple[int, int], rounds: int) -> dict[str, Any]:
    """Seconds of `deduplicate` of a pandas DataFrame, of the kernels alone, and of peers."""
    n_rows, dim = shape
    rows = unit_rows(make_rows(n_rows, dim, n_topics=auto_n_clusters(n_rows)))
    frame = pd.DataFrame({"id": np.arange(n_rows), "embedding": list(rows)})
    candidates: dict[str, Callable[[], object]] = {
        "deduplicate": lambda: deduplicate(frame, EPS, client=client, verbose=False),
        "k-means and max_similarity": lambda: kernels_alone(rows),
        "k-means and max_similarity by cluster": lambda: kernels_by_cluster(rows),
    }
    for name, prepare in those_installed(WITNESS).items():
        candidates[name] = prepare(rows, EPS, Path())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for candidate in candidates.values():  # what a first call loads is no part of it
            candidate()
        taken = [{name: seconds_of(candidate) for name, candidate in candidates.items()} for _ in range(rounds)]
    return {
        "n_rows": n_rows,
        "dim": dim,
        "seconds": {name: statistics.median(each[name] for each in taken) for name in candidates},
        "ratios": {name: statistics.median(each["deduplicate"] / each[name] for each in taken) for name in candidates},
    }


def measure(size: str, folder: Path) -> dict[str, Any]:
    shape = SIZES[size]
    with local_workers(WORKERS, MEMORY) as client:
        small = measure_small(client, shape["small"], shape["rounds"])
        return {"small": small, "frame": measure_frame(client, shape["frame"], shape["rounds"], folder)}


def report(found: dict[str, Any]) -> list[str]:
    """The figures in lines of text."""
    frame, small = found["frame"], found["small"]
    lines = [
        f"a Dask DataFrame of {frame['n_rows']:,} × {frame['dim']} that {WORKERS} workers hold: "
        f"{frame['seconds']['frame']:.1f} s, {frame['ratio']:.2f} × the {frame['seconds']['parquet']:.1f} s of Parquet"
    ]
    lines.append(f"deduplicate of a pandas DataFrame of {small['n_rows']:,} × {small['dim']}, {WORKERS} workers:")
    for name, seconds in small["seconds"].items():
        beside = "" if name == "deduplicate" else f"   deduplicate takes {small['ratios'][name]:.2f} × its time"
        lines.append(f"  {name:<40}{seconds:>8.2f} s{beside}")
    return lines


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as folder:
        found = measure(size, Path(folder))
    print("\n".join(report(found)), flush=True)
    return found


def rows(found: dict[str, Any]) -> list[Row]:
    """The frame beside Parquet; `deduplicate` beside its kernels and peers."""
    frame, small = found["frame"], found["small"]
    size = f"{frame['n_rows']:,} × {frame['dim']}"
    ours = f"{frame['seconds']['frame']:.3g} s"
    table = [Row("dedup of a Dask DataFrame", size, ours, "the same rows as Parquet", frame["ratio"])]
    size, ours = f"{small['n_rows']:,} × {small['dim']}", f"{small['seconds']['deduplicate']:.3g} s"
    for name, ratio in small["ratios"].items():
        if name != "deduplicate":
            table.append(Row("deduplicate of pandas", size, ours, name, ratio, peer="semhash" in name))
    return table
