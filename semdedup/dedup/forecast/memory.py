"""The most memory that each process of a run holds: client, scheduler, and a worker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from semdedup.compute.in_flight import LEAST_IN_FLIGHT, TASKS_PER_SLOT
from semdedup.dedup.cluster.fit import fit_memory
from semdedup.dedup.cluster.seed import seeding_memory, seeding_rows
from semdedup.dedup.cluster.shuffle import ROW_GROUP_BYTES, merge_memory, partition_memory
from semdedup.dedup.compare.edges import merging_memory
from semdedup.dedup.compare.groups import group_memory
from semdedup.dedup.compare.lay_out import ranking_memory
from semdedup.dedup.compare.tiles import span_memory, writing_memory
from semdedup.dedup.forecast.given import MIB
from semdedup.dedup.forecast.plan import RunPlan
from semdedup.dedup.input.hashes import HASHES_PER_RANGE, count_ranges
from semdedup.dedup.input.on_device import SLAB_BYTES
from semdedup.storage.chunks import BYTES_AHEAD
from semdedup.storage.parquet import FETCHED_BYTES
from semdedup.storage.tables import DECODING_BYTES

PRODUCTS_BATCH = 1024
"""Rows of a product of the comparison, by default."""


PRODUCT_BYTES = 256 << 20
"""Of a product on a GPU, see `semdedup.arrays.block_elements`."""


@dataclass(frozen=True)
class Memory:
    """Bytes of each process, and of the GPU of a worker, if it has one: of hardly any rows, or at most in a run."""

    client: float
    scheduler: float
    worker: float
    device: float = 0.0


IDLE = Memory(160 * MIB, 144 * MIB, 205 * MIB)
"""What each holds in a run of hardly any rows on local files, as measured: Python, libraries and their buffers."""

IDLE_ON_STORE = Memory(195 * MIB, 144 * MIB, 230 * MIB)
"""The same where all files are in a store, whose client comes on top."""

TASK_BYTES, WORKER_BYTES = 3_000, 100_000
"""What a scheduler holds of a task in flight beside what it is given, and of a worker."""

LISTED_BYTES, RECORDED_BYTES, FACTS_BYTES, ENTRY_BYTES = 120, 700, 600, 6_000
"""What a client holds of a file that is listed, that goes on record, whose footer was read; and of a partition."""


def memory_of(plan: RunPlan, on_store: bool = False, idle: Memory | None = None) -> Memory:
    """The most that each process of a run holds.

    Args:
        plan: of the run.
        on_store: whether its files are in a store: what is fetched of these comes on top.
        idle: what each process holds in a run of hardly any rows; as measured by default.
    """
    idle = idle or (IDLE_ON_STORE if on_store else IDLE)
    partition = int(plan.partition_rows.max()) * plan.rows.n_bytes / plan.rows.n
    fetched = min(partition, max(BYTES_AHEAD, FETCHED_BYTES)) if on_store else 0
    return Memory(
        idle.client + sum(client_parts(plan).values()),
        idle.scheduler + sum(scheduler_parts(plan).values()),
        idle.worker + plan.machines.n_threads * (fetched + max(worker_tasks(plan).values())),
        plan.machines.n_threads * max(device_tasks(plan).values(), default=0.0),
    )


def client_parts(plan: RunPlan) -> Mapping[str, float]:
    """What grows on the client, by what it grows with."""
    rows, k = plan.rows, plan.n_clusters
    chunks = plan.n_pieces * (len(plan.buckets.shelves) + 1)
    recorded = plan.n_cluster_files + len(plan.clusters)
    return {
        "centroids": 8.0 * k * rows.dim * 4,
        "hashes of the sample": 2 * 8.0 * plan.n_sampled,
        "files": (LISTED_BYTES + FACTS_BYTES) * rows.n_files,
        "partitions": ENTRY_BYTES * plan.n_pieces,
        "chunks": 2 * 8.0 * chunks + 2 * 8.0 * plan.n_merge_reads,
        "ranges of hashes": 2 * 8.0 * plan.n_pieces * count_ranges(rows.n),
        "clusters": RECORDED_BYTES * recorded + (LISTED_BYTES + FACTS_BYTES) * plan.n_cluster_files,
    }


def tasks_in_flight(plan: RunPlan) -> int:
    """Most tasks of a step that the scheduler knows at a time."""
    return max(LEAST_IN_FLIGHT, TASKS_PER_SLOT * plan.machines.n_slots)


def scheduler_parts(plan: RunPlan) -> Mapping[str, float]:
    """What grows on the scheduler: with tasks in flight, what these are given, parts of the sample, and workers."""
    files_of_range = max((len(one.files) for one in plan.ranges), default=0)
    n = tasks_in_flight(plan)
    return {
        "tasks": n * TASK_BYTES,
        "what they are given": min(n, len(plan.ranges)) * 16.0 * files_of_range
        + min(n, count_ranges(plan.rows.n)) * 16.0 * plan.n_pieces,
        "parts of the sample": 4 * TASK_BYTES * len(plan.sample_part_rows),
        "workers": WORKER_BYTES * plan.machines.n_workers,
    }


def compared_on_device(n_rows: int, dim: int) -> int:
    """Most bytes of a GPU that `compare.groups.score_group` holds at a time, for a largest cluster of `n_rows`.

    The rows as they come, a slab of them as it is decoded; then in rank order, once more without repeated rows where
    some are equal, and in half precision; and five products. The host holds what ranks the rows, and a batch.
    """
    return n_rows * (3 * 4 + 2) * dim + 2 * SLAB_BYTES + 5 * PRODUCT_BYTES


def device_tasks(plan: RunPlan) -> Mapping[str, float]:
    """The most bytes of a GPU that a task of each step holds there; nothing on the CPU."""
    if not plan.machines.device_memory:
        return {}
    dim, k = plan.rows.dim, plan.n_clusters
    n_group = max((group[0].n_rows for group in plan.groups[0]), default=0)
    partition = int(plan.partition_rows.max())
    found = {
        "fit": 4.0 * dim * plan.n_sampled / plan.machines.n_slots + 2 * 8.0 * k * dim + 2 * PRODUCT_BYTES,
        "assign": 4.0 * dim * (3 * partition + 2 * k) + 2 * PRODUCT_BYTES,  # as it is in the file, decoded, normalised
        "compare": compared_on_device(n_group, dim),
    }
    if plan.tiled:
        found["compare spans"] = compared_on_device(2 * plan.rows_per_tile, dim)
    return found


def worker_tasks(plan: RunPlan) -> Mapping[str, float]:
    """The most that a task of each step holds."""
    rows, dim, k = plan.rows, plan.rows.dim, plan.n_clusters
    beside = rows.id_bytes + rows.other_bytes + 3 * 8
    partition = int(plan.partition_rows.max())
    chunk = min(partition, int(np.ceil(plan.rows_per_task / max(1, plan.n_pieces))))
    largest = int(plan.cluster_rows.max())
    in_range = min(max(plan.rows_per_task, 1), rows.n)
    n_group = max((group[0].n_rows for group in plan.groups[0]), default=0)
    sampled = plan.n_sampled * partition / rows.n
    encoded = 4.0 * dim * min(in_range, ROW_GROUP_BYTES // (4 * dim))
    scored = group_memory(min(largest, in_range), dim, PRODUCTS_BATCH) if rows.is_local else 0  # as they are written
    seeding = min(seeding_rows(k, plan.kmeans.oversampling_factor), plan.n_sampled)
    a_worker = plan.n_sampled / plan.machines.n_workers
    found = {
        "scan": DECODING_BYTES + 2 * 4 * dim * sampled + 24.0 * partition + beside * partition,
        "check ids": 16.0 * min(HASHES_PER_RANGE, rows.n),
        "seed": seeding_memory(seeding, dim, k),
        "fit": fit_memory(round(a_worker), k, dim, plan.machines.n_threads) / plan.machines.n_threads,
        "assign": partition_memory(partition, dim, chunk, round(beside)) + 8 * k * dim,
        "write clusters": 4.0 * dim * in_range + 2 * beside * in_range + max(encoded, scored),
        "compare": group_memory(n_group, dim, PRODUCTS_BATCH) + beside * n_group,
    }
    if plan.machines.device_memory:  # rows are there; what ranks them, and is written of them, is on the host
        found["assign"] = 4.0 * dim * chunk + DECODING_BYTES + 2 * beside * partition
        found["compare"] = DECODING_BYTES + 2 * beside * n_group
    if plan.merged:
        found["merge"] = merge_memory(plan.rows_per_task, dim, plan.rows_per_task)
    if plan.tiled:
        found["rank rows"] = ranking_memory(largest, round(beside))
        found["compare spans"] = span_memory(plan.rows_per_tile, dim, PRODUCTS_BATCH)
        found["merge forests"] = merging_memory(largest)
        found["write large"] = writing_memory(largest, round(rows.id_bytes))
    return found
