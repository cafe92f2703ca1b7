"""The clustering of the input, from its files to one folder for each cluster."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.dedup.base.ids import check_ids_new
from semdedup.dedup.base.update import Base
from semdedup.dedup.cluster.draw import usable_sample
from semdedup.dedup.cluster.fit import Fit, fit_centroids
from semdedup.dedup.cluster.plan import Plan, check_ranking, make_plan, plan_on_disk
from semdedup.dedup.cluster.shuffle import Assignment, WhileWritten, cluster_schema
from semdedup.dedup.cluster.steps import Buckets, assign_rows, write_rows
from semdedup.dedup.input.partitions import Partition, partition_label
from semdedup.dedup.input.planned import fits, forget_tasks
from semdedup.dedup.input.scan import (
    Sampling,
    Workspace,
    check_ids_unique,
    expected_length,
    lengths_by_source,
    scan_partition,
)
from semdedup.dedup.input.usable import usable_files
from semdedup.dedup.kernels.kmeans import sample_size
from semdedup.dedup.names import CENTROIDS, QUARANTINE, RANGES, Destination, below
from semdedup.dedup.options import InputOptions, KMeansOptions
from semdedup.dedup.ranking import RankingStrategy
from semdedup.runs.run import Run
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import FileInfo, Location, without_storage_options


class Fitted(NamedTuple):
    """What is known once the centroids are: how to read the input, length and number of its rows, the centroids."""

    plan: Plan
    work: Workspace
    dim: int
    n_rows: int
    fit: Fit


Scan = Callable[[Workspace, Sampling, bool, tuple[int, Partition]], dict[str, Any]]
"""What looks at a partition, as `scan_partition` does."""


def scan_as_planned(plan: Plan) -> Scan:
    """What looks at a partition of this plan: `scan_partition`."""
    return scan_partition


def scan_and_fit(
    run: Run,
    files: Sequence[FileInfo],
    source: Location,
    inputs: InputOptions,
    kmeans: KMeansOptions,
    read_kwargs: Mapping[str, Any],
    ranked_by: RankingStrategy | None = None,
    base: Base | None = None,
    scan_of: Callable[[Plan], Scan] = scan_as_planned,
) -> Fitted:
    """Look at every row, refuse what cannot be clustered, and fit the centroids; or find what an earlier run did of it.

    `scan_of` a plan is what looks at a partition, for who wants to take more from it than `scan_partition` does.
    """
    scratch = run.scratch
    kwargs = without_storage_options(read_kwargs)
    before = plan_on_disk(scratch / "plan.json", inputs, files)
    if before is not None:  # this refusal takes back nothing of what an earlier run has done
        check_ranking(before.schema, ranked_by)
    with run.refusing():
        plan, scanned = _plan_and_scan(run, before, files, source, inputs, kmeans, kwargs, ranked_by, base, scan_of)
        work = Workspace(plan.schema, source, scratch, kwargs, backend=run.session.backend)
        n_rows = sum(result["rows"] for result in scanned)
        lengths = lengths_by_source(scanned)
        dim = expected_length(lengths, inputs.embedding_dim) if base is None else base.expected_length(lengths)
        ids = (work, plan.partitions, kmeans.random_state, [result["hashes"] for result in scanned])
        check_ids_unique(run.session, *ids)
        if base is not None:
            check_ids_new(run, *ids, base)
        fit = _fit(run, work, plan, scanned, dim, kmeans.k_for(n_rows), kmeans, base)
    return Fitted(plan, work, dim, n_rows, fit)


def cluster_embeddings(
    run: Run,
    files: Sequence[FileInfo],
    source: Location,
    inputs: InputOptions,
    kmeans: KMeansOptions,
    destination: Destination,
    read_kwargs: Mapping[str, Any],
    ranked_by: RankingStrategy | None = None,
    base: Base | None = None,
    while_written: Callable[[pa.Schema, int], WhileWritten | None] | None = None,
) -> dict[str, Any]:
    """Cluster the embeddings in `files` and write a folder for each cluster, resuming where an earlier run stopped.

    What the clusters are going to be `ranked_by` is refused before any work where they will not have it. With a `base`
    nothing is fitted: its centroids are taken, and rows that cannot be compared with its own are refused. What is done
    `while_written` is asked for with the columns of the clusters and d.

    Returns:
        Facts: rows, quarantined rows by reason, clusters, length, seconds, files skipped.
    """
    plan, work, dim, n_rows, fit = scan_and_fit(run, files, source, inputs, kmeans, read_kwargs, ranked_by, base)
    rows_per_task = plan.rows_per_task(dim)
    expected = fit.counts * (n_rows / max(1, int(fit.counts.sum())))
    buckets = Buckets.of(expected, len(plan.partitions), rows_per_task)
    task = _assignment(run, work, plan, fit, dim, buckets.chunk_starts, kmeans)
    with run.refusing():  # metadata is read now: a value may not fit
        assigned = assign_rows(run, work, plan.partitions, task, len(fit.centroids), n_rows)
    target, kwargs = below(run.final, destination.folder), without_storage_options(destination.write_kwargs)
    also = None if while_written is None else while_written(cluster_schema(plan.schema), dim)
    ranges = write_rows(run, work, buckets, assigned, target, kwargs, also)
    together = base is None and run.root.is_local and run.session.backend == "cpu"  # where they may be scored meanwhile
    with run.noting():
        save_array(run.final / CENTROIDS, fit.centroids)
    return {
        "rows": n_rows,
        "quarantined": dict(assigned.quarantined),
        "clusters": int(np.count_nonzero(assigned.cluster_rows)),
        "n_clusters": len(fit.centroids),
        "embedding_dim": dim,
        "iterations": fit.iterations,
        "inertia": fit.inertia,
        "engine": fit.engine,
        "skipped_files": list(plan.skipped),
        "embedders": list(plan.embedders),
        "casts": list(plan.casts),
        "mean_distance": assigned.mean_distance,
        **({RANGES: ranges} if together else {}),
        **({} if base is None else {"bases": base.entries(run.root)}),
    }


def _plan_and_scan(
    run: Run,
    plan: Plan | None,
    files: Sequence[FileInfo],
    source: Location,
    inputs: InputOptions,
    kmeans: KMeansOptions,
    read_kwargs: Mapping[str, Any],
    ranked_by: RankingStrategy | None,
    base: Base | None,
    scan_of: Callable[[Plan], Scan],
) -> tuple[Plan, list[dict[str, Any]]]:
    """Decide on partitions, unless there is a plan already, and look at every row; again without the files that turned
    out to be bad, if need be."""
    scratch, place = run.scratch, run.scratch / "plan.json"
    if plan is None:
        forget_tasks(run)
    if plan is None or not fits(run, plan.most_bytes):
        facts, skipped = usable_files(run, files, source, inputs)
        machines = run.session.n_slots, run.session.task_memory, source.is_local
        plan = make_plan(files, facts, skipped, inputs, kmeans, *machines, run.session.device_memory)
        check_ranking(plan.schema, ranked_by)
        if base is not None:
            base.check_rows(cluster_schema(plan.schema), plan.embedders)
            if ranked_by is not None:
                base.check_ranking(ranked_by, cluster_schema(plan.schema))
        place.write_json(plan.to_json(files, scratch), forced=True)
    for words in plan.casts:
        run.session.reporter.say(words)
    while True:
        work = Workspace(plan.schema, source, scratch, read_kwargs, backend=run.session.backend)
        n_clusters = kmeans.k_for(plan.n_rows)
        n_wanted = 0 if base is not None else sample_size(plan.n_rows, n_clusters, kmeans.fit_data_fraction)
        sampling = Sampling.of(kmeans.random_state, n_wanted, plan.n_rows)
        scan = partial(scan_of(plan), work, sampling, inputs.skip_bad_files)
        items = list(enumerate(plan.partitions))
        scanned = run.results("scan", scan, items, unit="partitions", label=partition_label)
        bad = dict(pair for result in scanned for pair in result["bad"])
        if not bad:
            return plan, scanned
        plan = plan.without(bad)
        run.forget("scan")
        place.write_json(plan.to_json(files, scratch), forced=True)


def _fit(
    run: Run,
    work: Workspace,
    plan: Plan,
    scanned: Sequence[Mapping[str, Any]],
    dim: int,
    n_clusters: int,
    kmeans: KMeansOptions,
    base: Base | None,
) -> Fit:
    """The centroids: those of the base, else from the files of an earlier run where that has fitted them."""
    noted, centroids_file = work.scratch / "fit.json", work.scratch / "centroids.npy"
    if base is not None:
        centroids = load_array(base.last.centroids)
        save_array(centroids_file, centroids)
        evenly = np.ones(len(centroids), dtype=np.int64)
        return Fit(centroids, evenly, *(base.fit[name] for name in ("inertia", "iterations", "engine")))
    if not noted.exists():
        sample = usable_sample(run, work, plan.partitions, scanned, plan.n_sample_parts, dim, n_clusters, kmeans)
        fit = fit_centroids(run.session, work, sample, dim, n_clusters, kmeans)
        save_array(centroids_file, fit.centroids)
        centroids_file.force()
        facts = {"inertia": fit.inertia, "iterations": fit.iterations, "engine": fit.engine}
        noted.write_json({"counts": fit.counts.tolist(), **facts}, forced=True)
    found = noted.read_json()
    centroids = load_array(centroids_file)
    if len(centroids) < n_clusters:
        run.session.reporter.say(
            f"n_clusters: {n_clusters} asked for, {len(centroids)} made: there are no more rows to start from"
        )
    return Fit(centroids, np.asarray(found["counts"]), found["inertia"], found["iterations"], found["engine"])


def _assignment(
    run: Run, work: Workspace, plan: Plan, fit: Fit, dim: int, starts: tuple[int, ...], kmeans: KMeansOptions
) -> Assignment:
    return Assignment(
        dim=dim,
        centroids=work.scratch / "centroids.npy",
        digest=hashlib.sha256(fit.centroids.tobytes()).hexdigest(),
        chunk_starts=starts,
        backend=run.session.backend,
        max_samples_per_batch=kmeans.max_samples_per_batch,
        quarantine=run.final / QUARANTINE,
        row_bytes=plan.row_bytes(dim),
    )
