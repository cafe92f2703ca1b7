"""On paper: what 100 million and a billion clips take on many machines, from the figures of `benchmarks.growth`.

Nothing here is measured on those machines. What is assumed of them is in `CLUSTERS` and `ASSUMPTIONS`, and printed.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.limits import compare_operations, label_operations
from semdedup.dedup.kernels.kmeans import auto_n_clusters, sample_size

CLIPS, DIM = (100_000_000, 1_000_000_000), 512
TASK_BYTES = 256 << 20
IDS_PER_TASK, CLUSTERS_PER_TASK = 1 << 23, 256
OTHER_BYTES = 64
"""Of a row in the shuffle: its id, its label, its distances."""

TASKS_A_SECOND = 1_000
"""Of a scheduler."""


@dataclass(frozen=True)
class Cluster:
    """Machines that are assumed.

    Attributes:
        name: what they are.
        workers: worker processes on all of them.
        label_rate: operations a second of one worker in float32 products that label; None: as measured here.
        compare_rate: the same in products that compare.
        transfer: bytes a second that all of them together send through the shuffle and back.
        why: where these numbers come from.
    """

    name: str
    workers: int
    label_rate: float | None
    compare_rate: float | None
    transfer: float
    why: str


CLUSTERS = (
    Cluster(
        "64 CPU machines",
        64 * 32,
        None,
        None,
        64 * 25e9 / 8,
        "32 cores each, every one as fast as one measured here; a network of 25 Gbit/s each, to a store that keeps up",
    ),
    Cluster(
        "8 H100s",
        8,
        67e12 / 2,
        989e12 / 2,
        10e9,
        "NOT MEASURED: half of the data sheet of the H100 SXM, 67 TFLOP/s of float32 to label, 989 TFLOP/s of dense "
        "float16 to compare; local disks of 10 GB/s together; the data path on one CPU core for each GPU",
    ),
)
ASSUMPTIONS = (
    f"{DIM} elements of float32 a clip, n_clusters='auto', clusters of equal size, {TASK_BYTES >> 20} MiB of "
    "embeddings a task",
    "read, shuffle and write: time of a worker a byte as measured here at the largest size, and the transfer on top",
    "fit, assignment and comparison: operations at the rate, times what they took here beside it at the largest size",
    f"the fit: no faster than its tasks, many small ones, pass a scheduler of {TASKS_A_SECOND:,} tasks a second",
    "start of the fit: as measured here, growing with the square of the clusters, in one process of the speed measured",
)


def estimate(growth: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Tasks, load of the scheduler, bytes and hours, for each number of clips and each cluster."""
    measured = growth["auto"][-1]
    rate = growth["rate"] / growth["workers"]
    per_byte = {
        part: measured[part] * growth["workers"] / (measured["n_rows"] * 4 * growth["dim"])
        for part in ("read", "shuffle", "write")
    }
    found = []
    for n in CLIPS:
        k = auto_n_clusters(n)
        sample = sample_size(n, k, None)
        n_bytes = 4 * DIM * n
        partitions = -(-n_bytes // TASK_BYTES)
        shuffled = n * (4 * DIM + OTHER_BYTES)
        fit_operations = label_operations(sample * measured["iterations"], DIM, k)
        for cluster in CLUSTERS:
            label = cluster.workers * (cluster.label_rate or rate)
            compare = cluster.workers * (cluster.compare_rate or rate)
            seconds = {part: n_bytes * each / cluster.workers for part, each in per_byte.items()}
            seconds["transfer"] = (
                2 * n_bytes + 4 * shuffled
            ) / cluster.transfer  # read twice; shuffle, clusters: in, out
            seconds["start of the fit"] = (
                measured["seed"] * (k / measured["n_clusters"]) ** 2 * (DIM / growth["dim"]) * rate
            ) / (cluster.label_rate or rate)
            seconds["assignment"] = label_operations(n, DIM, k) / label * measured["assignment / products"]
            operations = compare_operations([n // k], DIM) * k
            seconds["comparison"] = operations / compare * measured["comparison / products"]
            sample_parts = max(cluster.workers, -(-4 * DIM * sample // TASK_BYTES))
            tasks = {
                "scan, assignment, writing": 3 * partitions,
                "check of ids": -(-n // IDS_PER_TASK),
                "fit": 2 * sample_parts * measured["iterations"],
                "comparison": max(partitions, -(-k // CLUSTERS_PER_TASK)),
            }
            seconds["fit"] = max(fit_operations / label * measured["fit / products"], tasks["fit"] / TASKS_A_SECOND)
            total = sum(seconds.values())
            found.append(
                {
                    "clips": n,
                    "cluster": cluster.name,
                    "n_clusters": k,
                    "sample": sample,
                    "tasks": tasks,
                    "tasks_a_second": sum(tasks.values()) / total,
                    "shuffled_tb": shuffled / 1e12,
                    "hours": {part: each / 3600 for part, each in seconds.items()},
                    "total_hours": total / 3600,
                }
            )
    return found


def report(found: list[dict[str, Any]]) -> list[str]:
    """The estimate in lines of text, with everything that it assumes."""
    lines = ["on paper, from these figures:"]
    lines += [f"  assumed: {line}" for line in ASSUMPTIONS]
    lines += [f"  assumed of {cluster.name}: {cluster.why}" for cluster in CLUSTERS]
    for one in found:
        hours = ", ".join(f"{part} {each:.2f}" for part, each in one["hours"].items())
        lines.append(
            f"  {one['clips']:,} clips on {one['cluster']}: {one['total_hours']:.2f} hours, {one['n_clusters']:,} "
            f"clusters, {sum(one['tasks'].values()):,} tasks, {one['tasks_a_second']:.1f} a second, "
            f"{one['shuffled_tb']:.2f} TB shuffled"
        )
        lines.append(f"    hours: {hours}")
    return lines
