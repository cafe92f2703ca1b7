"""The comparison of clusters on one thread, beside n²·d operations at the rate of sgemm, and beside the peers."""

from typing import Any

import numpy as np

from benchmarks.data import make_rows
from benchmarks.limits import compare_operations, sgemm_rate
from benchmarks.peers import COMPARISON, Peer, those_installed
from benchmarks.table import Row
from benchmarks.timing import interleave, process
from semdedup import max_similarity
from semdedup.dedup.kernels.exact import unit_rows

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"shapes": [(1, 300, 24), (5, 40, 24)], "rounds": 1},
    "quick": {"shapes": [*((1, n, d) for d in (256, 768) for n in (1_000, 5_000)), (100, 300, 256)], "rounds": 3},
    "full": {
        "shapes": [
            (clusters, n, d)
            for d in (256, 512, 768)
            for clusters, n in ((1, 1_000), (1, 5_000), (1, 10_000), (1, 20_000), (200, 100), (100, 300))
        ],
        "rounds": 5,
    },
}
MOST_ROWS = {"semhash (approximate)": 5_000}
"""Of peers that would take minutes."""

OURS, ALONE = "semdedup.max_similarity", "NumPy, half the square, float32 alone"


def measure_shape(clusters: int, n: int, d: int, rounds: int, peers: list[str]) -> dict[str, Any]:
    """Clusters of n rows of length d, each compared within itself."""
    each = [unit_rows(make_rows(n, d, n_topics=1, seed=seed)) for seed in range(clusters)]
    called: dict[str, Peer] = {OURS: max_similarity, **{name: COMPARISON[name][1] for name in peers}}
    for function in called.values():  # so that nothing is loaded while it is timed
        function(np.ascontiguousarray(each[0][:100]))
    operations = compare_operations([n] * clusters, d)
    found = interleave(
        {name: lambda function=function: [function(rows) for rows in each] for name, function in called.items()},
        lambda: operations / sgemm_rate(d),
        rounds,
    )
    return {"clusters": clusters, "rows": n, "dim": d, "found": found}


def measure(shapes: list[tuple[int, int, int]], rounds: int) -> list[dict[str, Any]]:
    """All shapes, printed one by one; called in a process of one thread."""
    peers = list(those_installed(COMPARISON))
    found = []
    for clusters, n, d in shapes:
        shape = measure_shape(clusters, n, d, rounds, [name for name in peers if n <= MOST_ROWS.get(name, n)])
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
    """The largest cluster of each length, and many small ones, beside the limit; one of them beside peers."""
    single = [shape for shape in found["shapes"] if shape["clusters"] == 1]
    lengths = sorted({shape["dim"] for shape in single})
    largest = [max((s for s in single if s["dim"] == d), key=lambda s: s["rows"]) for d in lengths]
    many = [shape for shape in found["shapes"] if shape["clusters"] > 1][:1]
    lines = [_row(shape, "n²·d operations at the rate of sgemm", 1.0) for shape in [*largest, *many]]
    middle = largest[len(largest) // 2]
    for name in ("PyTorch, the loop of NeMo Curator", "faiss IndexFlatIP.search(x, 2)"):
        if name in middle["found"]:
            lines.append(_row(middle, name, middle["found"][name]["ratio"]))
    return lines


def _row(shape: dict[str, Any], beside: str, ratio: float) -> Row:
    """A row beside something that takes `ratio` times the limit."""
    ours = shape["found"][OURS]
    times = "" if shape["clusters"] == 1 else f"{shape['clusters']} × "
    size = f"{times}{shape['rows']:,} rows × {shape['dim']}"
    seconds = f"{ours['seconds']:.3g} s"
    return Row("comparison, one thread", size, seconds, beside, ours["ratio"] / ratio, peer=beside in COMPARISON)
