"""How time and memory grow with the rows: at a constant mean size of the clusters, and with the number chosen here.

Every run has the rate of sgemm measured before and after it; its seconds are brought to the median rate of all runs,
for the speed of the machine would otherwise pass for growth.
"""

import shutil
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.data import make_rows, write_files
from benchmarks.data_path import labels_alone
from benchmarks.table import Row
from benchmarks.whole import WORKERS, run_dedup
from benchmarks.workers import local_workers
from semdedup.dedup.names import CENTROIDS

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"n_rows": (2_000, 4_000), "dim": 16, "mean": 200, "rounds": 1},
    "quick": {"n_rows": (12_500, 25_000, 50_000, 100_000), "dim": 128, "mean": 250, "rounds": 1},
    "full": {"n_rows": (125_000, 250_000, 500_000, 1_000_000), "dim": 256, "mean": 1_000, "rounds": 2},
}
MEMORY, N_FILES = "3GiB", 16
ABOUT = ("n_rows", "n_clusters", "iterations")


def exponent(n_rows: Sequence[int], seconds: Sequence[float]) -> float:
    """The b of seconds ≈ a·n^b, by least squares of the logarithms."""
    return float(np.polyfit(np.log(n_rows), np.log(np.maximum(seconds, 1e-3)), 1)[0])


def measure_runs(inputs: Path, outputs: Path, n_clusters: Sequence[int | str]) -> list[dict[str, Any]]:
    """Runs on fresh workers, whose memory is only that of the first one's work, so that its peak alone tells.

    The labels made alone tell the products of the assignment from the shuffle.
    """
    paths, found = sorted(str(path) for path in inputs.iterdir()), []
    with local_workers(WORKERS, MEMORY) as client:
        for k in n_clusters:
            found.append(run_dedup(client, inputs, outputs, k, verbose=False))
            found[-1]["labels"] = labels_alone(client, outputs / CENTROIDS, paths) / WORKERS
            shutil.rmtree(outputs)
    return found


def parts(found: dict[str, Any], speed: float) -> dict[str, float]:
    """Seconds of the parts of a run, had the machine run at `speed` of what it did; and ratios to the products."""
    steps = {step: seconds * speed for step, seconds in found["steps"].items()}
    limits = {name: seconds * speed for name, seconds in found["limits"].items()}
    labels = found["labels"] * speed
    # Clusters are scored as they are written: the bare product counts as comparison, all the rest as writing.
    products = limits["comparison products"]
    return {
        "read": steps["inspect files"] + steps["scan"] + steps["check ids"],
        "seed": steps.get("seed", 0.0),
        "fit": steps["fit"],
        "fit / products": steps["fit"] / limits["fit products"],
        "seed and fit / products": (steps.get("seed", 0.0) + steps["fit"]) / limits["fit products"],
        "assignment": labels,
        "assignment / products": labels / limits["assignment products"],
        "shuffle": steps["assign"] - labels,
        "write": steps["write clusters"] + steps.get("compare", 0.0) - products,
        "comparison": products,
        "total": found["total"] * speed,
        "peak_mib": max(found["peak_mib"]),
    }


def measure(shape: dict[str, Any], folder: Path) -> dict[str, Any]:
    """For both ways to choose the number of clusters the medians of the parts, one for each number of rows."""
    runs: dict[str, dict[int, list[Any]]] = {kind: {n: [] for n in shape["n_rows"]} for kind in ("constant", "auto")}
    for n in shape["n_rows"]:
        write_files(folder / f"{n}", make_rows(n, shape["dim"], n_topics=n // shape["mean"]), N_FILES)
    for i in range(shape["rounds"]):
        for n in shape["n_rows"][:: 1 if i % 2 == 0 else -1]:
            found = measure_runs(folder / f"{n}", folder / "output", [n // shape["mean"], "auto"])
            for sizes, run in zip(runs.values(), found, strict=True):
                sizes[n].append(run)
    rate = statistics.median(run["rate"] for sizes in runs.values() for found in sizes.values() for run in found)
    medians: dict[str, Any] = {"rate": rate}
    for kind, sizes in runs.items():
        medians[kind] = []
        for measured in sizes.values():
            each = [parts(run, run["rate"] / rate) for run in measured]
            middle = {part: statistics.median(one[part] for one in each) for part in each[0]}
            medians[kind].append({**{name: measured[0][name] for name in ABOUT}, **middle})
    return medians


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape = SIZES[size]
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name:
        measured = measure(shape, Path(name))
    exponents = {
        kind: {
            part: exponent(shape["n_rows"], [each[part] for each in measured[kind]])
            for part in measured[kind][0]
            if part not in (*ABOUT, "peak_mib") and " / " not in part
        }
        for kind in ("constant", "auto")
    }
    found = {"dim": shape["dim"], "workers": WORKERS, "mean": shape["mean"], **measured, "exponents": exponents}
    print("\n".join(report(found)), flush=True)
    return found


def report(found: dict[str, Any]) -> list[str]:
    """The figures in lines of text."""
    names = {"constant": f"{found['mean']:,} rows a cluster", "auto": "n_clusters='auto'"}
    lines = []
    for kind, name in names.items():
        sizes = found[kind]
        lines.append(f"growth with {name}, × {found['dim']}, {WORKERS} workers of {MEMORY}; seconds at one speed")
        lines.append(f"  {'rows':<24}" + "".join(f"{each['n_rows']:>12,}" for each in sizes) + f"{'exponent':>12}")
        lines.append(f"  {'clusters':<24}" + "".join(f"{each['n_clusters']:>12,}" for each in sizes))
        for part in sizes[0]:
            if part not in ABOUT and not (kind == "auto" and part == "peak_mib"):
                power = found["exponents"][kind].get(part)
                each = "".join(f"{size[part]:>12,.2f}" for size in sizes)
                lines.append(f"  {part:<24}{each}" + (f"{power:>12.2f}" if power is not None else ""))
    return lines


def rows(found: dict[str, Any]) -> list[Row]:
    """The exponents that the parts must not pass, and how flat the memory is."""
    first, last = found["constant"][0], found["constant"][-1]
    size = f"{first['n_rows']:,} to {last['n_rows']:,} × {found['dim']}"
    linear = {part: found["exponents"]["constant"][part] for part in ("read", "shuffle", "comparison", "write")}
    worst = max(linear, key=linear.__getitem__)
    auto = found["exponents"]["auto"]["total"]
    peaks = [each["peak_mib"] for each in found["constant"]]
    return [
        Row(
            "growth, one mean cluster size", size, f"n^{linear[worst]:.2f}", f"n^1, {worst} is the worst", linear[worst]
        ),
        Row("growth, clusters chosen here", size, f"n^{auto:.2f}", "n^1.5, the whole", auto / 1.5),
        Row("memory of a worker", size, f"{max(peaks):,.0f} MiB", "that at the fewest rows", max(peaks) / peaks[0]),
    ]
