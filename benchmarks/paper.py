"""On paper: what 10 million, 100 million and a billion clips take on many machines.

Tasks, requests, bytes and memory come from the program's own formulas (`semdedup.dedup.forecast`), which
`tests/test_paper.py` holds to measured runs. Hours are operations and bytes at the rates that this machine shows in a
run made here; nothing is measured on the machines themselves. What is assumed of them is in `CLUSTERS` and
`ASSUMPTIONS`, and printed.
"""

import math
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.data import make_rows, write_files
from benchmarks.growth import measure_runs, parts
from benchmarks.limits import compare_operations, label_operations
from semdedup.dedup import sizes
from semdedup.dedup.cluster.seed import in_two_levels, seeding_rows, seeding_work
from semdedup.dedup.forecast.given import MIB, Found, Machines, Rows
from semdedup.dedup.forecast.memory import memory_of
from semdedup.dedup.forecast.plan import RunPlan
from semdedup.dedup.forecast.tasks import tasks_of
from semdedup.dedup.forecast.traffic import total_of, traffic_of
from semdedup.dedup.options import KMeansOptions

SIZES: dict[str, dict[str, int]] = {
    "smoke": {"n_rows": 4_000, "dim": 16},
    "quick": {"n_rows": 100_000, "dim": 128},
    "full": {"n_rows": 1_000_000, "dim": 256},
}
CLIPS, DIM, ROWS_PER_FILE, N_FILES = (10_000_000, 100_000_000, 1_000_000_000), 512, 100_000, 16

TASKS_A_SECOND, REQUESTS_A_SECOND = 1_000, 5_000
"""Of a scheduler, and of a store."""


@dataclass(frozen=True)
class Cluster:
    """Machines that are assumed.

    Attributes:
        name: what they are.
        machines: worker processes on all of them.
        label_rate: operations a second of one worker in float32 products that label; None: as measured here.
        compare_rate: the same in products that compare.
        transfer: bytes a second that all of them together send to a store and get from it.
        why: where these numbers come from.
    """

    name: str
    machines: Machines
    label_rate: float | None
    compare_rate: float | None
    transfer: float
    why: str


CLUSTERS = (
    Cluster(
        "64 CPU machines",
        Machines(64 * 32, 1, 4096 * MIB),
        None,
        None,
        64 * 25e9 / 8,
        "32 cores each, each as fast as one measured here, with 4 GiB; 25 Gbit/s a machine to a store that keeps up",
    ),
    Cluster(
        "8 H100s",
        Machines(8, 1, 64 * 1024 * MIB),
        67e12 / 2,
        989e12 / 2,
        10e9,
        "NOT MEASURED: half of the data sheet of the H100 SXM, 67 TFLOP/s of float32 to label, 989 TFLOP/s of dense "
        "float16 to compare; 10 GB/s to the store together; the data path on one CPU core for each GPU",
    ),
)
ASSUMPTIONS = (
    f"{DIM} elements of float32 a clip, ids of {Rows(1, 1, 1).id_bytes:g} bytes, {ROWS_PER_FILE:,} clips a file, "
    f"n_clusters='auto', clusters of equal size, {Found().iterations} iterations, {Found().duplicates:.0%} duplicates, "
    "all files in a store",
    "read, shuffle and write: time of a worker a byte as measured here, and the transfer on top",
    "fit, assignment and comparison: operations at the rate, times what they took here beside it",
    f"requests: {REQUESTS_A_SECOND:,} a second of the store; no step is faster than {TASKS_A_SECOND:,} tasks a second",
)


def measure(size: str) -> dict[str, Any]:
    """Rates of this machine, from one run of the dedup: seconds of its parts, and operations a second of a worker."""
    n, dim = SIZES[size]["n_rows"], SIZES[size]["dim"]
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name:
        write_files(Path(name, "in"), make_rows(n, dim, n_topics=max(1, n // 500)), N_FILES)
        (found,) = measure_runs(Path(name, "in"), Path(name, "out"), ["auto"])
    return {**{key: found[key] for key in ("n_rows", "dim", "n_clusters", "rate")}, **parts(found, 1.0), "workers": 2}


def seconds_of_seeding(measured: Mapping[str, Any], plan: RunPlan) -> float:
    """Of k-means++: its work at the speed measured, in one task or shared by groups of cells, see `choose_seeds`."""

    def work(n: int, dim: int, k: int) -> int:
        return seeding_work(min(seeding_rows(k, KMeansOptions().oversampling_factor), n), dim, k)

    k, dim = plan.n_clusters, plan.rows.dim
    n_rows = min(seeding_rows(k, plan.kmeans.oversampling_factor), plan.n_sampled)
    each = measured["seed"] / work(measured["n_rows"], measured["dim"], measured["n_clusters"])
    seconds = each * work(plan.n_sampled, dim, k)
    if not in_two_levels(n_rows, dim, k):
        return seconds
    n_groups = max(1, 16 * dim * n_rows // sizes.LARGEST_TASK)
    return seconds * 2 / math.isqrt(k) / min(n_groups, plan.machines.n_slots)


def seconds_of(measured: Mapping[str, Any], plan: RunPlan, cluster: Cluster) -> dict[str, float]:
    """Seconds of the parts of a run on machines that are assumed."""
    rows, k, slots = plan.rows, plan.n_clusters, cluster.machines.n_slots
    rate, n_bytes = measured["rate"] / measured["workers"], 4 * rows.n * rows.dim
    label, compare = slots * (cluster.label_rate or rate), slots * (cluster.compare_rate or rate)
    per_byte = measured["workers"] / (measured["n_rows"] * 4 * measured["dim"])
    total, tasks = total_of(traffic_of(plan)), tasks_of(plan)
    faster = rate / (cluster.label_rate or rate)
    fit = label_operations(plan.n_sampled * plan.found.iterations, rows.dim, k) / label * measured["fit / products"]
    return {
        **{part: n_bytes * measured[part] * per_byte / slots for part in ("read", "shuffle", "write")},
        "transfer": (total.fetched + total.sent) / cluster.transfer,
        "requests": total.requests / REQUESTS_A_SECOND,
        "seeding": seconds_of_seeding(measured, plan) * faster,
        "fit": max(fit, tasks["fit"] / TASKS_A_SECOND),
        "assignment": label_operations(rows.n, rows.dim, k) / label * measured["assignment / products"],
        "comparison": compare_operations(plan.cluster_rows, rows.dim) / compare,
        "scheduling": (sum(tasks.values()) - tasks["fit"]) / TASKS_A_SECOND,
    }


def estimate(measured: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tasks, requests, bytes, memory and hours, for each number of clips and each cluster."""
    found = []
    for cluster in CLUSTERS:
        for n in CLIPS:
            plan = RunPlan.of(Rows(n, DIM, n // ROWS_PER_FILE), cluster.machines)
            total, seconds = total_of(traffic_of(plan)), seconds_of(measured, plan, cluster)
            memory = asdict(memory_of(plan, on_store=True))
            found.append(
                {
                    "clips": n,
                    "cluster": cluster.name,
                    "clusters": plan.n_clusters,
                    "tasks": tasks_of(plan),
                    "requests": total.requests,
                    "traffic": asdict(total),
                    "memory_mib": {process: n_bytes / MIB for process, n_bytes in memory.items()},
                    "hours": {part: each / 3600 for part, each in seconds.items()},
                    "total_hours": sum(seconds.values()) / 3600,
                }
            )
    return found


def report(found: list[dict[str, Any]]) -> list[str]:
    """The estimate as a table for each cluster, with everything that it assumes."""
    lines = ["on paper, from the program's formulas and the rates of this machine:"]
    lines += [f"  assumed: {line}" for line in ASSUMPTIONS]
    for cluster in CLUSTERS:
        those = [one for one in found if one["cluster"] == cluster.name]
        lines.append(f"  {cluster.name} (assumed: {cluster.why})")

        def line(name: str, values: list[str]) -> str:
            return f"    {name:<26}" + "".join(f"{value:>16}" for value in values)

        lines.append(line("clips", [f"{one['clips']:,}" for one in those]))
        lines.append(line("clusters", [f"{one['clusters']:,}" for one in those]))
        lines.append(line("tasks", [f"{sum(one['tasks'].values()):,}" for one in those]))
        lines.append(line("requests", [f"{one['requests']:,.0f}" for one in those]))
        for moved in ("fetched", "sent"):
            lines.append(line(f"TB {moved}", [f"{one['traffic'][moved] / 1e12:.2f}" for one in those]))
        for process in ("client", "scheduler", "worker"):
            lines.append(line(f"MiB of {process}", [f"{one['memory_mib'][process]:,.0f}" for one in those]))
        for part in those[0]["hours"]:
            lines.append(line(f"hours, {part}", [f"{one['hours'][part]:.3f}" for one in those]))
        lines.append(line("hours in all", [f"{one['total_hours']:.2f}" for one in those]))
    return lines


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    measured = measure(size)
    found = estimate(measured)
    print(f"rates from a run of {measured['n_rows']:,} × {measured['dim']}, {measured['total']:.1f} s")
    print("\n".join(report(found)), flush=True)
    return {"measured": measured, "paper": found}
