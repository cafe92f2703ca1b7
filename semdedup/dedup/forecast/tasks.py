"""How many tasks each step of a run gives to the workers."""

from __future__ import annotations

import math

from semdedup.dedup import sizes
from semdedup.dedup.cluster.seed import SEEDING_BYTES, in_two_levels, seeding_rows
from semdedup.dedup.compare.edges import EDGES_PER_TASK
from semdedup.dedup.forecast.plan import RunPlan
from semdedup.dedup.input.hashes import HASHES_PER_RANGE, count_ranges
from semdedup.dedup.threshold.run import BYTES_PER_GROUP
from semdedup.storage.tables import FILES_PER_TASK


def tasks_of(plan: RunPlan) -> dict[str, int]:
    """Tasks by step; steps that have none are left out."""
    found = {"probe": plan.machines.n_workers, **_clustering(plan), **_comparison(plan), "threshold": _threshold(plan)}
    return {name: number for name, number in found.items() if number}


def _clustering(plan: RunPlan) -> dict[str, int]:
    n_parts, n_ranges = len(plan.sample_part_rows), count_ranges(plan.rows.n)
    many = plan.n_pieces * n_ranges > sizes.MANY_READS
    return {
        "inspect files": _inspections(plan.rows.n_files),
        "scan": plan.n_pieces,
        "merge hashes": len(sizes.pack(enumerate(plan.partition_rows.tolist()), HASHES_PER_RANGE)) if many else 0,
        "check ids": n_ranges,
        "sample": 3 * n_parts,  # a part is read, and its hashes and rows are told apart
        "seed": _seeding(plan),
        "fit": plan.found.iterations * (2 * plan.fit_sums - 1),
        "assign": plan.n_pieces,
        "merge": sum(map(len, plan.merged)),
        "write clusters": len(plan.ranges),
    }


def _inspections(n_files: int) -> int:
    return -(-n_files // sizes.FILES_PER_INSPECTION)


def _seeding(plan: RunPlan) -> int:
    """The first rows of each part, and one task that chooses; or cell by cell, see `seed.choose_seeds`."""
    n_parts, k, dim = len(plan.sample_part_rows), plan.n_clusters, plan.rows.dim
    n_rows = min(seeding_rows(k, plan.kmeans.oversampling_factor), plan.n_sampled)
    if not in_two_levels(n_rows, dim, k):
        return n_parts + 1
    n_groups = -(-n_rows // max(1, SEEDING_BYTES // (16 * dim)))
    return 4 * n_parts + 3 + n_groups * (n_parts + 1)


def _comparison(plan: RunPlan) -> dict[str, int]:
    groups, large = plan.groups
    spans = plan.spans
    n_pieces = sum(plan.large_pieces)
    several = [sum(1 for span in some if span.last == span.number + 1 and not span.whole) for some in spans]
    return {
        "inspect clusters": _inspections(sum(len(cluster.urls) for cluster in plan.clusters)),
        "list rows": n_pieces,
        "rank rows": len(large),
        "sort rows": n_pieces,
        "gather tiles": sum(map(len, plan.tiled)),
        "compare spans": sum(map(len, spans)),
        "merge spans": sum(several),
        "merge forests": sum(
            _merges(plan, cluster.n_rows, len(some)) for cluster, some in zip(large, spans, strict=True)
        ),
        "write large": len(large),
        "compare": len(groups),
    }


def _merges(plan: RunPlan, n_rows: int, n_files: int) -> int:
    """Merges of the forests of a cluster, whose edges are as many as its duplicates."""
    a_task, total = math.ceil(plan.found.duplicates * n_rows), 0
    while n_files:
        edges = a_task // n_files
        parts = max(1, -(-n_files // max(2, EDGES_PER_TASK // max(1, edges))))
        total, n_files = total + parts, 0 if parts == 1 else parts
    return total


SCORE_FOOTER = 1_400
"""Bytes of a table of scores beside its rows."""


def score_bytes(plan: RunPlan) -> float:
    """Bytes of all tables of scores."""
    rows = plan.rows
    return SCORE_FOOTER * len(plan.clusters) + rows.n * (2 * rows.stored_id_bytes + 4)


def _threshold(plan: RunPlan) -> int:
    """Tasks of the rule ``any``: as many tables of scores as `cut_files` puts together."""
    each = max(1, min(FILES_PER_TASK, int(BYTES_PER_GROUP * len(plan.clusters) / score_bytes(plan))))
    return -(-len(plan.clusters) // each)
