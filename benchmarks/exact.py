"""Every match of the whole input (`exact_up_to`) beside the matches inside clusters, and beside brute force.

On rows like real ones, which `real_like.looked_at` shows. Brute force is float32 products of every row with every other
one and a look at each product, on as many threads as there are workers, from 1 % of its blocks.
"""

import itertools
import tempfile
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import write_files
from benchmarks.modes import N_FILES, WORKERS, Mode, beside_the_first, report
from benchmarks.real_like import looked_at, real_like_rows
from benchmarks.table import Row
from benchmarks.timing import process
from semdedup import SemanticDeduplicationWorkflow
from semdedup.dedup.kernels.kmeans import auto_n_clusters
from semdedup.dedup.names import CENTROIDS

SIZES: dict[str, dict[str, Any]] = {  # rows, elements, rounds
    "smoke": {"shapes": [(6_000, 48, 1)]},
    "quick": {"shapes": [(50_000, 384, 1)]},
    "full": {"shapes": [(200_000, 384, 2), (1_000_000, 256, 1)]},
}
EPS = 0.05
ALLOWED = {"exact_up_to=0.05": 2.0, "exact_up_to=0.1": 3.0}
"""Times the whole run without."""

INSIDE = "inside clusters"
BLOCK, SHARE, LEAST_BLOCKS = 2048, 0.01, 10


def dedup(inputs: Path | list[str], output: Path, eps: float = EPS, **options: Any) -> SemanticDeduplicationWorkflow:
    """The workflow with the number of clusters chosen here."""
    paths = inputs if isinstance(inputs, list) else str(inputs)
    return SemanticDeduplicationWorkflow(paths, str(output), eps=eps, verbose=False, **options)


def modes(inputs: Path) -> dict[str, Mode]:
    across: dict[str, Mode] = {f"exact_up_to={eps:g}": partial(dedup, inputs, exact_up_to=eps) for eps in (0.05, 0.1)}
    return {INSIDE: partial(dedup, inputs), **across}


def brute_force(data: Path, eps: float) -> dict[str, float]:
    """Seconds of all pairs of the rows of a .npy, from a share of the blocks; called in a process of its own."""
    rows = np.load(data, mmap_mode="r")
    starts = range(0, len(rows), BLOCK)
    blocks = list(itertools.combinations_with_replacement(starts, 2))
    number = min(len(blocks), max(LEAST_BLOCKS, round(SHARE * len(blocks))))
    chosen = np.random.default_rng(0).choice(len(blocks), number, replace=False)
    out, near = np.empty((BLOCK, BLOCK), dtype=np.float32), 0
    np.matmul(rows[:BLOCK], rows[:BLOCK].T)  # so that nothing is loaded while it is timed
    started = time.perf_counter()
    for left, right in (blocks[i] for i in chosen):
        x, y = rows[left : left + BLOCK], rows[right : right + BLOCK]
        product = np.matmul(x, y.T, out=out[: len(x), : len(y)])
        near += np.count_nonzero(product >= 1 - eps)
    passed = time.perf_counter() - started
    return {"seconds": passed * len(blocks) / number, "measured": passed, "blocks": number, "of": len(blocks)}


def measure(n: int, d: int, rounds: int, folder: Path) -> dict[str, Any]:
    rows = real_like_rows(n, d)
    write_files(folder / "input", rows, N_FILES)
    np.save(folder / "rows.npy", rows)
    looks: dict[str, Any] = {}

    def look(name: str, output: Path) -> None:
        if name == INSIDE:
            looks.update(looked_at(rows, np.load(output / CENTROIDS)))

    print(f"whole dedup of {n:,} × {d}, eps {EPS:g}, {auto_n_clusters(n)} clusters, {WORKERS} workers", flush=True)
    found = beside_the_first(modes(folder / "input"), folder, rounds, look)
    with process(threads=WORKERS) as call:
        brute = call(brute_force, folder / "rows.npy", EPS)
    return {"rows": n, "dim": d, "modes": found, "brute_force": brute, "like_real": looks}


def lost(found: Mapping[str, Mapping[str, Any]]) -> float:
    """Share of the duplicates that the comparison inside clusters does not find."""
    every = found["exact_up_to=0.05"]["duplicates"]
    return 1 - found[INSIDE]["duplicates"] / every if every else 0.0


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape, cases = SIZES[size], []
    for n, d, rounds in shape["shapes"]:
        with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name:
            case = measure(n, d, rounds, Path(name))
        brute = case["brute_force"]
        print("\n".join(report(case["modes"], ALLOWED)))
        print(f"    {lost(case['modes']):.1%} of the duplicates lie in other clusters than all that they match")
        print(
            f"    brute force with sgemm {brute['seconds']:9.2f} s for the pairs alone, scaled from "
            f"{brute['blocks']:,} of {brute['of']:,} blocks in {brute['measured']:.2f} s",
            flush=True,
        )
        cases.append(case)
    return {"cases": cases}


def rows(found: dict[str, Any]) -> list[Row]:
    """Each limit of eps beside the run without, its memory, and brute force beside it."""
    lines = []
    for case in found["cases"]:
        size = f"{case['rows']:,} × {case['dim']}, like real rows"
        for name in ALLOWED:
            mode = case["modes"][name]
            ours, every = f"{mode['seconds']:.3g} s", mode["duplicates"]
            missed = f"{every - case['modes'][INSIDE]['duplicates']:,} missed of {every:,}"
            lines.append(Row(f"whole dedup, {name}", size, ours, "without", mode["ratio"], missed=missed))
        beside = case["brute_force"]["seconds"]
        lines.append(
            Row("the same", size, f"{mode['seconds']:.3g} s", "products of all pairs alone", mode["seconds"] / beside)
        )
        lines.append(Row("its memory of a worker", size, f"{mode['peak_mib']:,.0f} MiB", "without", mode["peak_ratio"]))
    return lines
