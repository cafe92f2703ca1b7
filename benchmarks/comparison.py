"""The comparison of clusters on one thread, beside n²·d operations at the rate of sgemm; `decisions` has the peers."""

from collections.abc import Callable
from typing import Any
from unittest import mock

import numpy as np

from benchmarks.data import make_rows
from benchmarks.limits import compare_operations, sgemm_rate
from benchmarks.table import Row
from benchmarks.timing import interleave, process
from semdedup import max_similarity
from semdedup.dedup.kernels import products
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.many import compare_many
from semdedup.dedup.kernels.products import has_bfloat16_matrices

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"shapes": [(1, 300, 24), (5, 40, 24)], "rounds": 1},
    "quick": {"shapes": [*((1, n, d) for d in (256, 768) for n in (1_000, 5_000)), (100, 300, 256)], "rounds": 3},
    "full": {
        "shapes": [
            (clusters, n, d)
            for d in (256, 512, 768)
            for clusters, n in ((1, 1_000), (1, 5_000), (1, 10_000), (1, 20_000), (200, 100), (100, 300))
        ],
        "rounds": 3,
    },
}
OURS, FLOAT32, ALONE = "semdedup", "semdedup, float32 only", "NumPy, half the square, float32 alone"


def float32_alone(rows: np.ndarray, block: int = 256) -> None:
    """The comparison in float32 products and maxima, half of the square in NumPy, and nothing decided in float64."""
    best = np.zeros(len(rows), dtype=np.float32)
    for start in range(0, len(rows), block):
        stop = min(start + block, len(rows))
        product = rows[start:stop] @ rows[:stop].T
        product[:, start:][np.arange(stop - start) >= np.arange(stop - start)[:, None]] = -1
        best[start:stop] = product.max(axis=1)


def in_float32(call: Callable[[], object]) -> object:
    """What a call gives where the processor is not faster in bfloat16 than in float32."""
    with mock.patch.object(products, "has_bfloat16_matrices", return_value=False):
        return call()


def measure_shape(clusters: int, n: int, d: int, rounds: int) -> dict[str, Any]:
    """Clusters of n rows of length d, each compared within itself."""
    each = [unit_rows(make_rows(n, d, n_topics=1, seed=seed)) for seed in range(clusters)]
    called = {OURS: max_similarity, ALONE: float32_alone}
    for function in called.values():  # so that nothing is loaded while it is timed
        function(np.ascontiguousarray(each[0][:100]))
    operations = compare_operations([n] * clusters, d)
    calls = {name: lambda function=function: [function(rows) for rows in each] for name, function in called.items()}
    if clusters > 1:
        together, starts = np.concatenate(each), np.arange(clusters + 1) * n
        calls[OURS] = lambda: compare_many(together, starts, 1024)
    elif has_bfloat16_matrices():
        calls[FLOAT32] = lambda: in_float32(lambda: max_similarity(each[0]))
    found = interleave(calls, lambda: operations / sgemm_rate(d), rounds)
    found.setdefault(FLOAT32, found[OURS])
    return {"clusters": clusters, "rows": n, "dim": d, "found": found}


def measure(shapes: list[tuple[int, int, int]], rounds: int) -> list[dict[str, Any]]:
    """All shapes, printed one by one; called in a process of one thread."""
    found = []
    for clusters, n, d in shapes:
        shape = measure_shape(clusters, n, d, rounds)
        ours = shape["found"][OURS]
        rate = compare_operations([n] * clusters, d) / ours["limit"] / 1e9
        print(f"  {clusters} × {n:,} rows of {d} (sgemm: {rate:.0f} GFlop/s)")
        for name, figures in shape["found"].items():
            print(f"    {name:<40}{figures['seconds']:9.4f} s{figures['ratio']:8.2f} ×")
        price = ours["ratio"] / shape["found"][ALONE]["ratio"]
        print(f"    with every decision exact it takes {price:.2f} × the time of float32 alone", flush=True)
        found.append(shape)
    return found


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    print("comparison on one thread, in multiples of n²·d operations at the rate of sgemm", flush=True)
    with process() as call:
        return {"shapes": call(measure, SIZES[size]["shapes"], SIZES[size]["rounds"])}


def rows(found: dict[str, Any]) -> list[Row]:
    """The largest cluster of each length, and many small ones."""
    single = [shape for shape in found["shapes"] if shape["clusters"] == 1]
    lengths = sorted({shape["dim"] for shape in single})
    largest = [max((s for s in single if s["dim"] == d), key=lambda s: s["rows"]) for d in lengths]
    many = [shape for shape in found["shapes"] if shape["clusters"] > 1 and shape["dim"] == lengths[0]]
    lines = []
    shapes = [(shape, OURS, "") for shape in [*largest, *many]]
    for shape, name, how in [*shapes, *((shape, FLOAT32, ", float32 only") for shape in largest)]:
        ours, times = shape["found"][name], "" if shape["clusters"] == 1 else f"{shape['clusters']} × "
        size = f"{times}{shape['rows']:,} rows × {shape['dim']}{how}"
        beside = "n²·d operations at the rate of sgemm"
        lines.append(Row("comparison, one thread", size, f"{ours['seconds']:.3g} s", beside, ours["ratio"]))
    return lines
