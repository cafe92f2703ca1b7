"""The comparison on one GPU beside the loops of NeMo Curator, and many small clusters at once. Needs CuPy and NumPy.

python -m benchmarks.gpu.comparison [--rows N ...] [--dims D ...] [--most-seconds S]

TFLOP/s are those of half of the square, n·n·d operations, for all: a loop that multiplies all of it does twice as
many. A *decision* is whether the score of a row reaches 1 − eps; flipped is what differs from the exact one.
"""

import argparse
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

if find_spec("lazy_loader") is None:  # the kernels need nothing but NumPy and CuPy; the package says more
    sys.modules["semdedup"] = ModuleType("semdedup")
    sys.modules["semdedup"].__path__ = [str(Path(__file__).parents[2] / "semdedup")]

from benchmarks.loops import curator_1_3, curator_1_4
from semdedup.dedup.kernels import best_match
from semdedup.dedup.kernels.gpu import compare
from semdedup.dedup.kernels.gpu.tiles import Rectangle
from semdedup.dedup.kernels.many import compare_many

EPS = (0.01, 0.05, 0.1, 0.2)
CHECKED = 4096
"""Rows whose scores are compared with NumPy's float64, to the bit."""


class Measured(NamedTuple):
    """Seconds, and scores (n,) on the device, if any; whether the seconds were scaled from fewer rows."""

    seconds: float
    scores: Any = None
    scaled: bool = False


def made_rows(cp: Any, n: int, dim: int) -> Any:
    """Groups of about 20 rows that are alike in all degrees, so that some scores lie near every threshold."""
    rng = cp.random.default_rng(0)
    centres = rng.standard_normal((max(1, n // 20), dim), dtype=np.float32)
    rows = centres[rng.integers(0, len(centres), n)]
    step = 1 << 16
    for start in range(0, n, step):
        part = rows[start : start + step]
        noise = rng.standard_normal(part.shape, dtype=np.float32)
        part += noise * rng.random((len(part), 1), dtype=np.float32)
        part /= cp.linalg.norm(part, axis=1, keepdims=True)
    return rows


def measure(cp: Any, function: Callable[[], Any], repeat: int = 3) -> Measured:
    """The least time of some calls, each to the end of all work of the device; what the last one gives."""
    times, found = [], None
    for _ in range(repeat):
        found = None
        cp.cuda.Device().synchronize()
        started = time.perf_counter()
        found = function()
        cp.cuda.Device().synchronize()
        times.append(time.perf_counter() - started)
    return Measured(min(times), found)


def proposed(rows: Any, cp: Any) -> None:
    """Halves and the kernel that proposes, alone."""
    n = len(rows)
    search = compare.Search(rows, rows, cp.arange(n, dtype=np.int32))
    search.propose([Rectangle((0, n), (0, n), within=True)], np.float32(np.inf))


def plain(rows: Any) -> Any:
    """The comparison by CuPy's own products, as where there are no tensor cores."""
    asked, best_match.has_tensor_cores = best_match.has_tensor_cores, lambda *arrays: False
    try:
        return best_match.max_similarity(rows)[0]
    finally:
        best_match.has_tensor_cores = asked


def ways(cp: Any, rows: Any) -> dict[str, Callable[[], Any]]:
    halves = rows.astype(np.float16)
    return {
        "NeMo Curator up to 1.3, float32": lambda: curator_1_3(cp, rows)[0],
        "NeMo Curator 1.4, float16": lambda: curator_1_4(cp, halves)[0],
        "semdedup without its kernels": lambda: plain(rows),
        "semdedup, only what proposes": lambda: proposed(rows, cp),
        "semdedup": lambda: best_match.max_similarity(rows)[0],
    }


def flipped(cp: Any, scores: Any, exact: Any) -> str:
    if scores is None:
        return ""
    counts = [int(cp.count_nonzero((scores.astype(np.float32) >= 1 - eps) != (exact >= 1 - eps))) for eps in EPS]
    return "/".join(map(str, counts))


def one_size(cp: Any, n: int, dim: int, before: dict[str, tuple[int, float]], most_seconds: float) -> None:
    """Measure all ways with so many rows; what would take too long is scaled from the rows of before."""
    rows = made_rows(cp, n, dim)
    found: dict[str, Measured] = {}
    for name, function in ways(cp, rows).items():
        fewer, seconds = before.get(name, (n, 0.0))
        expected = seconds * (n / fewer) ** 2
        if expected > most_seconds:
            found[name] = Measured(expected, scaled=True)
            continue
        found[name] = measure(cp, function, repeat=3 if expected < most_seconds / 5 else 1)
        before[name] = n, found[name].seconds
    exact = found["semdedup"].scores
    checked = best_match.max_similarity(rows[:CHECKED])[0].get()
    few = rows[:CHECKED].get()
    same = bool((checked == best_match.max_similarity(few)[0]).all())
    print(f"n={n} d={dim}: {len(few)} scores are {'' if same else 'NOT '}those of NumPy; flipped at eps {EPS}")
    slowest = found["NeMo Curator up to 1.3, float32"].seconds
    for name, one in found.items():
        speed, times = n * n * dim / one.seconds / 1e12, slowest / one.seconds
        scaled = " (scaled from fewer rows)" if one.scaled else f" flipped {flipped(cp, one.scores, exact)}"
        if name == "semdedup, only what proposes":
            scaled = ""
        print(f"  {name:34s} {one.seconds * 1e3:10.2f} ms {speed:7.1f} TFLOP/s {times:6.2f} x{scaled}", flush=True)


def small_clusters(cp: Any, n: int, size: int, dim: int) -> None:
    rows, starts = made_rows(cp, n, dim), np.arange(0, n + 1, size)
    together = measure(cp, lambda: compare_many(rows, starts, 1024)[0])
    few = 50
    apart = measure(cp, lambda: [best_match.max_similarity(rows[i : i + size]) for i in starts[:few].tolist()])
    loop = measure(cp, lambda: [curator_1_4(cp, rows[i : i + size].astype(np.float16)) for i in starts[:few].tolist()])
    print(
        f"{n // size} clusters of {size} x {dim}: together {together.seconds / len(starts) * 1e6:.1f} us a cluster, "
        f"one by one {apart.seconds / few * 1e6:.1f} us, Curator 1.4's loop {loop.seconds / few * 1e6:.1f} us",
        flush=True,
    )


def main(arguments: list[str] | None = None) -> None:
    import cupy as cp

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000, 100_000, 200_000, 500_000])
    parser.add_argument("--dims", type=int, nargs="+", default=[512, 768, 1536])
    parser.add_argument("--most-seconds", type=float, default=3.0, help="of one call; else it is scaled")
    given = parser.parse_args(arguments)
    name = cp.cuda.runtime.getDeviceProperties(0)["name"].decode()
    print(f"{name}, CuPy {cp.__version__}, CUDA {cp.cuda.runtime.runtimeGetVersion()}")
    for dim in given.dims:
        before: dict[str, tuple[int, float]] = {}
        best_match.max_similarity(made_rows(cp, 3000, dim))  # compiles
        for n in sorted(given.rows):
            one_size(cp, n, dim, before, given.most_seconds)
            cp.get_default_memory_pool().free_all_blocks()
    for size in (100, 300):
        small_clusters(cp, 200_000 // size * size, size, 512)


if __name__ == "__main__":
    main()
