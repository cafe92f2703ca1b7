"""The work of an estimate on a session: scan and fit as the run does, compare a sample, measure pieces of the rest."""

from __future__ import annotations

import hashlib
import math
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from operator import itemgetter

import numpy as np

from semdedup.dedup import sizes
from semdedup.dedup.cluster.plan import Plan
from semdedup.dedup.cluster.run import Fitted, Scan, scan_and_fit
from semdedup.dedup.cluster.shuffle import Assignment
from semdedup.dedup.compare.scored import Limits
from semdedup.dedup.compare.stage import FOREST_UP_TO
from semdedup.dedup.estimate.across import measure_across
from semdedup.dedup.estimate.cost import AcrossTried, Expected, cost_table, mean_piece
from semdedup.dedup.estimate.look import Look, Seen, look_at_partition
from semdedup.dedup.estimate.options import EstimateOptions
from semdedup.dedup.estimate.pieces import LARGEST_CLUSTER, ROWS, Measuring, labelled_folder, measure_piece, piece_of
from semdedup.dedup.estimate.result import Estimate, shares_of
from semdedup.dedup.estimate.sample import lay_out_sample, sampling_of, scan_and_take
from semdedup.dedup.input.scan import Sampling
from semdedup.dedup.kernels.kmeans import sample_size
from semdedup.dedup.options import CompareOptions, InputOptions, IOOptions, KMeansOptions
from semdedup.dedup.threshold.rule import least_score
from semdedup.runs.run import Run
from semdedup.storage.arrays import save_array
from semdedup.storage.location import FileInfo, Location, without_storage_options


@dataclass(frozen=True)
class Asked:
    """What is asked for, by groups of settings."""

    io: IOOptions
    inputs: InputOptions
    kmeans: KMeansOptions
    compare: CompareOptions
    options: EstimateOptions


def estimate_files(run: Run, files: Sequence[FileInfo], source: Location, asked: Asked) -> Estimate:
    """Estimate what a run over these files would find and cost.

    Cost: the scan and the fit of the run; the input is read once more; 2·s·n·p operations at most for a sample of s
    rows and p leading coordinates; about a second of pieces.
    """
    options, seed = asked.options, asked.kmeans.random_state
    started = time.monotonic()
    fitted = scan_and_fit(
        run,
        files,
        source,
        asked.inputs,
        asked.kmeans,
        asked.io.read_kwargs or {},
        scan_of=partial(_scan_of, seed, options.sample),
    )
    begun = time.monotonic() - started
    plan, work, dim = fitted.plan, fitted.work, fitted.dim
    clusters = _assignment(run, fitted, fitted.fit.centroids, asked.kmeans, "centroids")
    least, settled = least_score(max(options.eps)), least_score(min(options.eps))
    lay_out = partial(lay_out_sample, work, clusters, float(least), plan.rows_per_task(dim))
    (sample,) = run.results("sample", lay_out, [(len(plan.partitions), options.sample)])
    look = partial(look_at_partition, work, Look(clusters, seed, least, settled))
    items = [(block, item) for block in range(len(sample["asking"])) for item in enumerate(plan.partitions)]
    seen = [Seen.nothing(size) for size in sample["asking"]]
    rows, quarantined = 0, Counter[str]()
    for position, looked in run.session.run("compare sample", look, items, unit="partitions"):
        block = items[position][0]
        seen[block].take(looked.seen)
        if block == 0:
            rows += looked.rows
            quarantined.update(looked.quarantined)
    every = Seen(*(np.concatenate(part) for part in zip(*seen, strict=True)))
    shares = shares_of(every, sample["rows"], options.eps)
    duplicates = float((every.own >= least).sum()) / max(1, sample["rows"])
    return Estimate(
        shares=shares,
        cost=cost_table(_expected(run, fitted, asked, clusters, begun, duplicates)),
        total=rows,
        quarantined=dict(quarantined),
        sampled=sample["rows"],
        n_clusters=len(fitted.fit.centroids),
        seconds=time.monotonic() - started,
        skipped_files=plan.skipped,
    )


def _scan_of(seed: int, wanted: int, plan: Plan) -> Scan:
    chosen: Sampling = sampling_of(seed, wanted, plan.n_rows)
    return partial(scan_and_take, chosen)


def _assignment(run: Run, fitted: Fitted, centroids: np.ndarray, kmeans: KMeansOptions, name: str) -> Assignment:
    place = run.scratch / f"{name}.npy"
    save_array(place, centroids)
    return Assignment(
        dim=fitted.dim,
        centroids=place,
        digest=hashlib.sha256(centroids.tobytes()).hexdigest(),
        chunk_starts=(0,),
        backend=run.session.backend,
        max_samples_per_batch=kmeans.max_samples_per_batch,
        quarantine=run.scratch / "aside",
        row_bytes=fitted.plan.row_bytes(fitted.dim),
    )


def _expected(
    run: Run, fitted: Fitted, asked: Asked, clusters: Assignment, begun: float, duplicates: float
) -> Expected:
    """What is to be known of the run to tell its cost; pieces of it are measured on the workers."""
    plan, fit, slots = fitted.plan, fitted.fit, run.session.n_slots
    cluster_rows = fit.counts * (fitted.n_rows / max(1, int(fit.counts.sum())))
    typical = float(np.square(cluster_rows).sum()) / max(1, fitted.n_rows)  # of the cluster of a row
    partition_rows = plan.rows_per_task(fitted.dim)
    rows = min(partition_rows, max(ROWS, min(LARGEST_CLUSTER, math.ceil(typical))))
    n_few = max(1, min(len(fit.centroids), round(rows / max(1.0, typical))))
    few = _assignment(run, fitted, fit.centroids[:n_few], asked.kmeans, "few")
    measuring = Measuring(
        clusters=clusters,
        few=few,
        n_few=n_few,
        strategy=asked.compare.strategy,
        limits=Limits(least_score(max(FOREST_UP_TO, *asked.options.eps)), asked.compare.pairwise_batch_size),
        eps=max(asked.options.eps),
        write_kwargs=without_storage_options(asked.io.write_kwargs or {}),
        backend=run.session.backend,
    )
    pieces = [piece_of(plan.partitions[slot % len(plan.partitions)], rows) for slot in range(slots)]
    measured = run.session.run("measure", partial(measure_piece, fitted.work, measuring), list(enumerate(pieces)))
    found = [piece for _, piece in measured]
    several = [eps for eps in asked.options.eps if eps > 0] if len(fit.centroids) > 1 else []
    across = partial(
        measure_across, fitted.work, clusters, [labelled_folder(fitted.work, slot) for slot in range(slots)]
    )
    tried = [one for _, one in sorted(run.session.run("measure across", across, several), key=itemgetter(0))]
    n_bytes = sizes.held_bytes(fitted.n_rows, fitted.n_rows * fitted.dim)
    task_bytes = sizes.bytes_per_task(slots, run.session.task_memory, n_bytes)
    n_blocks = math.ceil(fitted.n_rows / sizes.rows_per_task(task_bytes, fitted.dim))
    started = time.monotonic()
    idle = list(range(4 * slots))
    run.results("idle", _nothing, idle)
    task_seconds = (time.monotonic() - started) / len(idle)
    wanted = sample_size(fitted.n_rows, len(fit.centroids), asked.kmeans.fit_data_fraction)
    return Expected(
        rows=fitted.n_rows,
        bytes=(run.record.steps[run.step]["input"]["bytes"], 4 * fitted.dim * wanted + 8 * fitted.n_rows),
        cluster_rows=cluster_rows,
        tasks=2 * len(plan.partitions) + 2 * math.ceil(fitted.n_rows / partition_rows),
        slots=slots,
        begun=begun,
        task_seconds=task_seconds,
        duplicates=duplicates,
        piece=mean_piece(found),
        across=AcrossTried(n_blocks, fitted.dim, [one for one in tried if one is not None]),
    )


def _nothing(item: int) -> int:
    return item
