"""The fit and the assignment on one thread, beside products at the rate of sgemm, and beside the peers' k-means.

The fit is the one of `KMeansStage` on a worker of one thread, its steps ``seed`` and ``fit``, with the parameters that
users get. Peers run in a process of one thread, on as many rows as its sample has. Each measurement has two of the rate
of sgemm around it, in the same process. Inertias are of all rows, in float64.
"""

import tempfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import numpy as np

from benchmarks.data import make_rows, unstructured_rows, write_files
from benchmarks.limits import label_operations, sgemm_rate, workers_rate
from benchmarks.peers import CLUSTERING, those_installed
from benchmarks.table import Row
from benchmarks.timing import interleave, medians, process, seconds_of
from benchmarks.workers import local_workers
from semdedup import KMeansStage
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.kmeans import assign, sample_size
from semdedup.dedup.names import CENTROIDS

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"rows": 3_000, "dim": 16, "clusters": (20,), "rounds": 1},
    "quick": {"rows": 30_000, "dim": 128, "clusters": (128,), "rounds": 1},
    "full": {"rows": 100_000, "dim": 256, "clusters": (256, 2048), "rounds": 3},
}
OURS = "semdedup"
ITERATIONS = 10
"""Of the peers, and of the products that everybody stands beside."""

ONCE_ABOVE_S = 15
"""What takes longer is measured in the first round only."""

KINDS: dict[str, Callable[[int, int, int], np.ndarray]] = {
    "clustered": lambda n, d, k: unit_rows(make_rows(n, d, n_topics=k)),
    "unstructured": lambda n, d, k: unstructured_rows(n, d),
}


def fit_ours(client: distributed.Client, inputs: Path, output: Path, k: int, d: int) -> tuple[np.ndarray, float, float]:
    """Centroids, seconds, and operations a second that the worker could have done meanwhile."""
    before = workers_rate(client, d)
    result = KMeansStage(k, input_path=str(inputs), output_path=str(output), verbose=False).run(client)
    after = workers_rate(client, d)
    return np.load(output / CENTROIDS), result.steps.get("seed", 0.0) + result.steps["fit"], (before + after) / 2


def fit_peer(name: str, data: Path, sampled: int, k: int) -> tuple[np.ndarray, float, float]:
    """The same of a peer; called in a process of one thread."""
    rows = np.load(data)
    sample = rows[np.random.default_rng(0).permutation(len(rows))[:sampled]]
    fit, centroids = CLUSTERING[name][1], []
    fit(sample[:100], 2, 1)  # so that nothing is loaded while it is timed
    before = sgemm_rate(rows.shape[1])
    seconds = seconds_of(lambda: centroids.append(fit(sample, k, ITERATIONS)))
    after = sgemm_rate(rows.shape[1])
    return np.asarray(centroids[0], dtype=np.float32), seconds, (before + after) / 2


def inertia(rows: np.ndarray, centroids: np.ndarray) -> float:
    """Sum of the squared distances of all rows to their nearest centroids."""
    labels, doubles = assign(rows, centroids), centroids.astype(np.float64)
    return sum(
        float(np.square(rows[start : start + 4096] - doubles[labels[start : start + 4096]]).sum())
        for start in range(0, len(rows), 4096)
    )


def measure_assign(data: Path, centroids: np.ndarray, rounds: int) -> dict[str, float]:
    """Labels of all rows beside the products; called in a process of one thread."""
    rows = np.load(data)
    operations = label_operations(*rows.shape, len(centroids))
    assign(rows[:1000], centroids)
    candidates = {OURS: lambda: assign(rows, centroids)}
    return interleave(candidates, lambda: operations / sgemm_rate(rows.shape[1]), rounds)[OURS]


def measure(
    client: distributed.Client,
    call: Callable[..., Any],
    kind: str,
    n: int,
    d: int,
    k: int,
    rounds: int,
    peers: list[str],
) -> dict[str, Any]:
    """One kind of rows and number of clusters; `call` calls in a process of one thread."""
    rows = KINDS[kind](n, d, k)
    sampled = sample_size(n, k, None)
    products = ITERATIONS * label_operations(sampled, d, k)
    measured: dict[str, list[tuple[float, float]]] = defaultdict(list)
    inertias: dict[str, float] = {}
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name:
        folder = Path(name)
        np.save(folder / "rows.npy", rows)
        write_files(folder / "input", rows, 4)
        for i in range(rounds):
            fits = {OURS: lambda i=i: fit_ours(client, folder / "input", folder / f"output-{i}", k, d)}
            for peer in peers:
                fits[peer] = lambda peer=peer: call(fit_peer, peer, folder / "rows.npy", sampled, k)
            for contender, fit in fits.items():
                if i and measured[contender][0][0] > ONCE_ABOVE_S:
                    continue
                centroids, seconds, rate = fit()
                measured[contender].append((seconds, products / rate))
                if contender not in inertias:
                    inertias[contender] = inertia(rows, centroids)
        ours = np.load(folder / "output-0" / CENTROIDS)
        assigned = call(measure_assign, folder / "rows.npy", ours, max(3, rounds))
    best = min(inertias.values())
    fits = {
        contender: {**medians(pairs), "inertia": inertias[contender], "inertia_ratio": inertias[contender] / best}
        for contender, pairs in measured.items()
    }
    return {"kind": kind, "rows": n, "dim": d, "clusters": k, "sample": sampled, "fits": fits, "assign": assigned}


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape = SIZES[size]
    n, d = shape["rows"], shape["dim"]
    print(
        f"k-means of {n:,} × {d} on one thread, in multiples of the products of {ITERATIONS} iterations on the sample"
    )
    peers, cases = list(those_installed(CLUSTERING)), []
    with local_workers(1) as client, process() as call:
        for k in shape["clusters"]:
            for kind in KINDS:
                case = measure(client, call, kind, n, d, k, shape["rounds"], peers)
                print(f"  {kind} rows, {k} clusters, a sample of {case['sample']:,}")
                for name, found in case["fits"].items():
                    print(
                        f"    {name:<40}{found['seconds']:9.3f} s{found['ratio']:8.2f} ×,"
                        f" inertia {found['inertia_ratio']:.4f} × the best"
                    )
                print(
                    f"    assignment of all rows at {1 / case['assign']['ratio']:.0%} of the rate of sgemm", flush=True
                )
                cases.append(case)
    return {"cases": cases}


def rows(found: dict[str, Any]) -> list[Row]:
    """Of clustered rows the fit, its inertia beside the best peer's, and the assignment; of others the fit."""
    lines = []
    for case in found["cases"]:
        kind = "" if case["kind"] == "clustered" else f", {case['kind']}"
        size = f"{case['rows']:,} × {case['dim']}{kind}, {case['clusters']:,} clusters"
        ours, assigned = case["fits"][OURS], case["assign"]
        products = f"the products of {ITERATIONS} iterations"
        lines.append(Row("k-means, one thread", size, f"{ours['seconds']:.3g} s", products, ours["ratio"]))
        if kind:
            continue
        peers = {name: fit["inertia"] for name, fit in case["fits"].items() if name != OURS}
        if peers:
            best = min(peers, key=peers.__getitem__)
            beside = ours["inertia"] / peers[best]
            lines.append(
                Row("its inertia", size, f"{ours['inertia']:.4g}", f"the best peer's, {best}", beside, peer=True)
            )
        lines.append(
            Row("assignment, one thread", size, f"{assigned['seconds']:.3g} s", "its products", assigned["ratio"])
        )
    return lines
