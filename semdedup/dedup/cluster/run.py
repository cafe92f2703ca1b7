"""The clustering of the input, from its files to one folder for each cluster."""

from __future__ import annotations

import hashlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from semdedup.compute.session import Session
from semdedup.dedup import sizes
from semdedup.dedup.cluster.fit import fit_centroids
from semdedup.dedup.cluster.shuffle import (
    Assignment,
    assign_partition,
    bucket_starts,
    cluster_ranges,
    cluster_schema,
    write_clusters,
)
from semdedup.dedup.input.facts import FileFacts, inspect_files
from semdedup.dedup.input.jsonl import convert_block, jsonl_blocks, read_block
from semdedup.dedup.input.partitions import Partition, Slice, cut_partitions
from semdedup.dedup.input.scan import Sampling, Workspace, check_ids_unique, expected_length, scan_partition
from semdedup.dedup.input.schema import InputSchema, check_file_schema, unify_schemas
from semdedup.dedup.kernels.kmeans import sample_size
from semdedup.dedup.names import CENTROIDS, KMEANS, QUARANTINE, Destination, join
from semdedup.dedup.options import InputOptions, KMeansOptions
from semdedup.dedup.ranking import RankingStrategy, check_rankable
from semdedup.errors import BadFileError, InputError, IntegrityError
from semdedup.runs.journal import read_journal, run_journaled
from semdedup.runs.record import Manifest
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import FileInfo, Location, without_storage_options


@dataclass(frozen=True)
class Plan:
    """What is decided before the first row is read; kept in the scratch folder, so that a resumed run decides alike."""

    schema: InputSchema
    partitions: tuple[Partition, ...]
    n_rows: int
    task_bytes: int
    skipped: tuple[str, ...]
    n_sample_parts: int

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        partitions = [[[s.url, s.source, s.start, s.stop] for s in partition] for partition in self.partitions]
        rest = {name: getattr(self, name) for name in ("n_rows", "task_bytes", "skipped", "n_sample_parts")}
        return {"schema": self.schema.to_json(), "partitions": partitions, **rest}

    @classmethod
    def from_json(cls, options: InputOptions, value: dict[str, Any]) -> Plan:
        """The reverse of `to_json`."""
        partitions = tuple(tuple(Slice(*piece) for piece in partition) for partition in value.pop("partitions"))
        skipped = tuple(value.pop("skipped"))
        schema = InputSchema.from_json(options, value.pop("schema"))
        return cls(schema=schema, partitions=partitions, skipped=skipped, **value)


def cluster_embeddings(
    session: Session,
    files: Sequence[FileInfo],
    source: Location,
    inputs: InputOptions,
    kmeans: KMeansOptions,
    destination: Destination,
    read_kwargs: Mapping[str, Any],
    ranked_by: RankingStrategy | None = None,
) -> dict[str, Any]:
    """Cluster the embeddings in `files` and write a folder for each cluster, resuming where an earlier run stopped.

    The manifest of the destination must have the step on record as begun. What the clusters are going to be
    `ranked_by` is refused before any work where they will not have it.

    Returns:
        Facts: rows, quarantined rows by reason, clusters, length, seconds, files skipped.
    """
    manifest = Manifest(destination.root)
    scratch = manifest.scratch(KMEANS)
    partial_folder, partial_quarantine, beside = (scratch / name for name in ("output", "quarantine", "beside"))
    kwargs = without_storage_options(read_kwargs)
    plan_file, fit_file = scratch / "plan.json", scratch / "fit.json"
    if plan_file.exists():  # this refusal takes back nothing of what an earlier run has done
        check_ranking(Plan.from_json(inputs, plan_file.read_json()).schema, ranked_by)
    with manifest.refusing(KMEANS):
        plan, scanned = _plan_and_scan(session, files, source, plan_file, inputs, kmeans, kwargs, ranked_by)
        work = Workspace(plan.schema, source, scratch, kwargs)
        n_rows = sum(result["rows"] for result in scanned)
        dim = expected_length(_lengths_by_source(scanned), inputs.embedding_dim)
        check_ids_unique(session, work, plan.partitions, kmeans.random_state, [result["hashes"] for result in scanned])
        wanted = kmeans.k_for(n_rows)
        if not fit_file.exists():
            fit = fit_centroids(session, work, len(plan.partitions), plan.n_sample_parts, dim, wanted, kmeans)
            save_array(scratch / "centroids.npy", fit.centroids)
            facts = {"inertia": fit.inertia, "iterations": fit.iterations, "engine": fit.engine}
            fit_file.write_json({"counts": fit.counts.tolist(), **facts})
    fitted = fit_file.read_json()
    centroids = load_array(scratch / "centroids.npy")
    if len(centroids) < wanted:
        session.reporter.say(
            f"n_clusters: {wanted} asked for, {len(centroids)} made: there are no more rows to start from"
        )

    rows_per_task = sizes.rows_per_task(plan.task_bytes, dim)
    estimated = np.asarray(fitted["counts"]) * (n_rows / max(1, sum(fitted["counts"])))
    starts = bucket_starts(estimated, rows_per_task)
    digest = hashlib.sha256(centroids.tobytes()).hexdigest()
    task = Assignment(
        dim,
        scratch / "centroids.npy",
        digest,
        starts,
        session.backend,
        kmeans.max_samples_per_batch,
        partial_quarantine,
    )
    assigned, quarantined, cluster_rows = 0, Counter[str](), Counter[int]()
    quarantine_files: list[str] = []
    items = list(enumerate(plan.partitions))
    journal = scratch / "assign"
    for _, result in run_journaled(
        session, "assign", partial(assign_partition, work, task), items, journal, unit="partitions"
    ):
        assigned += result["assigned"]
        quarantined.update(result["quarantined"])
        cluster_rows.update(dict(zip(*result["clusters"], strict=True)))
        quarantine_files += result["files"]
    if assigned + sum(quarantined.values()) != n_rows:
        raise IntegrityError(
            f"{n_rows} rows were read, but {assigned} assigned and {sum(quarantined.values())} quarantined; did the "
            "input change during the run?"
        )
    large = {cluster for cluster, rows in cluster_rows.items() if rows > rows_per_task}
    piece_rows: dict[int, dict[int, int]] = {cluster: {} for cluster in large}
    for position, result in read_journal(journal) if large else ():
        for cluster, rows in zip(*result["clusters"], strict=True):
            if cluster in large:
                piece_rows[cluster][position] = rows
    ranges = cluster_ranges(starts, cluster_rows, piece_rows, len(items), rows_per_task)
    write = partial(write_clusters, work, partial_folder, without_storage_options(destination.write_kwargs))
    written, cluster_files = 0, []
    for _, result in run_journaled(session, "write clusters", write, ranges, scratch / "write", unit="ranges"):
        written += result["rows"]
        cluster_files += result["files"]
    if written != assigned:
        raise IntegrityError(f"{assigned} rows were assigned to clusters, but {written} written")

    listed = [CENTROIDS, *(join(destination.folder, name) for name in cluster_files)]
    listed += [join(QUARANTINE, name) for name in quarantine_files]
    save_array(beside / CENTROIDS, centroids)
    facts = {
        "rows": n_rows,
        "quarantined": dict(quarantined),
        "clusters": len(cluster_rows),
        "n_clusters": len(centroids),
        "embedding_dim": dim,
        "engine": fitted["engine"],
        "iterations": fitted["iterations"],
        "inertia": fitted["inertia"],
        "skipped_files": list(plan.skipped),
    }
    moves = [(partial_folder, destination.folder), (partial_quarantine, QUARANTINE), (beside, "")]
    manifest.complete(KMEANS, moves, listed, facts)
    return facts


def _lengths_by_source(scanned: Sequence[Mapping[str, Any]]) -> dict[str, Counter[int]]:
    lengths: dict[str, Counter[int]] = defaultdict(Counter)
    for result in scanned:
        for source, pairs in result["lengths"].items():
            lengths[source].update(dict(map(tuple, pairs)))
    return lengths


def _plan_and_scan(
    session: Session,
    files: Sequence[FileInfo],
    source: Location,
    place: Location,
    inputs: InputOptions,
    kmeans: KMeansOptions,
    read_kwargs: Mapping[str, Any],
    ranked_by: RankingStrategy | None,
) -> tuple[Plan, list[dict[str, Any]]]:
    """Decide on partitions and look at every row; again without the files that turned out to be bad, if need be."""
    scratch = place.parent
    if place.exists():
        plan = Plan.from_json(inputs, place.read_json())
    else:
        facts, skipped = _inspect(session, files, source, scratch, inputs)
        plan = _make_plan(session, facts, skipped, inputs, kmeans)
        check_ranking(plan.schema, ranked_by)
        place.write_json(plan.to_json())
    while True:
        work = Workspace(plan.schema, source, scratch, read_kwargs)
        n_clusters = kmeans.k_for(plan.n_rows)
        n_wanted = sample_size(plan.n_rows, n_clusters, kmeans.fit_data_fraction)
        sampling = Sampling.of(kmeans.random_state, n_wanted, plan.n_rows, plan.n_sample_parts)
        scan = partial(scan_partition, work, sampling, inputs.skip_bad_files)
        items = list(enumerate(plan.partitions))
        results = dict(run_journaled(session, "scan", scan, items, scratch / "scan", unit="partitions"))
        bad = dict(pair for result in results.values() for pair in result["bad"])
        if not bad:
            return plan, [results[position] for position in range(len(items))]
        plan = _without(plan, bad)
        (scratch / "scan").remove_tree()
        place.write_json(plan.to_json())


def _inspect(
    session: Session, files: Sequence[FileInfo], source: Location, scratch: Location, inputs: InputOptions
) -> tuple[list[FileFacts], list[str]]:
    """Facts of all files that can be read and have rows, in the order of the files, and the faults of the others."""
    readable = [(source.at(file.url), file.url) for file in files]
    skipped: list[str] = []
    if inputs.input_filetype == "jsonl":
        blocks = jsonl_blocks(files, source, scratch / "jsonl")
        bad_sources = set()
        convert = partial(_convert_or_tell, inputs.skip_bad_files, inputs.columns)
        for position, result in run_journaled(
            session, "read JSON Lines", convert, blocks, scratch / "blocks", unit="blocks"
        ):
            if result["bad"]:
                bad_sources.add(blocks[position].source.url)
                skipped.append(result["bad"])
        readable = [(block.target, block.source.url) for block in blocks if block.source.url not in bad_sources]
    groups = [readable[i : i + sizes.FILES_PER_INSPECTION] for i in range(0, len(readable), sizes.FILES_PER_INSPECTION)]
    inspect = partial(inspect_files, inputs.embedding_field, inputs.skip_bad_files)
    found: dict[int, list[FileFacts]] = {}
    for position, (facts, bad) in session.run("inspect files", inspect, groups, unit="groups"):
        found[position] = facts
        skipped += bad
    usable, unfit = _usable([facts for position in sorted(found) for facts in found[position]], inputs)
    skipped += unfit
    if not usable:
        _refuse_without_rows(files, skipped)
    return usable, skipped


def _usable(facts: Sequence[FileFacts], inputs: InputOptions) -> tuple[list[FileFacts], list[str]]:
    """The files that have rows and the right columns, and the faults of those that have not the right columns."""
    usable, skipped = [], []
    for file in facts:
        if not file.n_rows:
            continue
        try:
            check_file_schema(pa.ipc.read_schema(pa.py_buffer(file.schema)), file.source, inputs)
        except BadFileError as error:
            if not inputs.skip_bad_files:
                raise
            skipped.append(str(error))
        else:
            usable.append(file)
    return usable, skipped


def _refuse_without_rows(files: Sequence[FileInfo], skipped: Sequence[str]) -> NoReturn:
    paths = sorted({file.url.rsplit("/", 1)[0] for file in files})
    note = f" ({len(skipped)} files were skipped; the first: {skipped[0]})" if skipped else ""
    raise InputError(f"no rows in {', '.join(paths[:5])}: {len(files)} files, all without rows{note}")


def check_first_files(
    files: Sequence[FileInfo], source: Location, inputs: InputOptions, ranked_by: RankingStrategy | None = None
) -> None:
    """Refuse on the client, before a cluster is started, what the first files show to be wrong.

    All files are looked at by the workers later; a small input is judged here already.
    """
    first = files[: sizes.FILES_CHECKED_FIRST]
    if inputs.input_filetype == "jsonl":
        first = [file for file in first if file.n_bytes <= sizes.JSONL_BYTES_CHECKED_FIRST]
        facts, bad = _read_jsonl(first, source, inputs)
    else:
        located = [(source.at(file.url), file.url) for file in first]
        facts, bad = inspect_files(inputs.embedding_field, inputs.skip_bad_files, located)
    usable, unfit = _usable(facts, inputs)
    if ranked_by is not None:
        for file in usable:
            schema = pa.ipc.read_schema(pa.py_buffer(file.schema))
            carried = pa.schema([field for field in schema if field.name in inputs.metadata_fields])
            check_rankable(carried, ranked_by, file.source, complete=False)
    if len(first) == len(files):
        if not usable:
            _refuse_without_rows(files, bad + unfit)
        check_ranking(unify_schemas(usable, inputs), ranked_by)


def check_ranking(schema: InputSchema, ranked_by: RankingStrategy | None) -> None:
    """Raise a `ParameterError` unless clusters of this input can be ranked so."""
    if ranked_by is not None:
        check_rankable(cluster_schema(schema), ranked_by, "the table of clusters")


def _read_jsonl(files: Sequence[FileInfo], source: Location, inputs: InputOptions) -> tuple[list[FileFacts], list[str]]:
    """Facts of small files of JSON Lines, as `inspect_files` gives them of the Parquet files that they become."""
    facts, bad = [], []
    for block in jsonl_blocks(files, source, source):
        try:
            table = read_block(inputs.columns, block)
            facts.append(FileFacts("", block.source.url, len(table), 0, table.schema.serialize().to_pybytes()))
        except BadFileError as error:
            if not inputs.skip_bad_files:
                raise
            bad.append(str(error))
    return facts, bad


def _convert_or_tell(skip_bad_files: bool, columns: Sequence[str], block: Any) -> dict[str, Any]:
    try:
        convert_block(columns, block)
    except BadFileError as error:
        if not skip_bad_files:
            raise
        return {"bad": str(error)}
    return {"bad": ""}


def _make_plan(
    session: Session, facts: Sequence[FileFacts], skipped: Sequence[str], inputs: InputOptions, kmeans: KMeansOptions
) -> Plan:
    n_rows, n_values = sum(file.n_rows for file in facts), sum(file.n_values for file in facts)
    slots, memory = session.n_slots, session.task_memory
    task_bytes = sizes.bytes_per_partition(slots, memory, 4 * n_values)
    most_bytes = sizes.bytes_per_task(slots, memory, 4 * n_values)
    n_clusters = kmeans.k_for(n_rows)
    sample_bytes = 4 * n_values * sample_size(n_rows, n_clusters, kmeans.fit_data_fraction) // n_rows
    return Plan(
        schema=unify_schemas(facts, inputs),
        partitions=tuple(cut_partitions(facts, task_bytes // 4, inputs.files_per_partition, most_bytes // 4)),
        n_rows=n_rows,
        task_bytes=task_bytes,
        skipped=tuple(skipped),
        n_sample_parts=max(session.n_slots, -(-sample_bytes // task_bytes)),
    )


def _without(plan: Plan, bad: Mapping[str, str]) -> Plan:
    kept = [tuple(piece for piece in partition if piece.source not in bad) for partition in plan.partitions]
    partitions = tuple(partition for partition in kept if partition)
    if not partitions:
        raise InputError(f"no rows are left: every file was skipped; the first: {next(iter(bad.values()))}")
    n_rows = sum(piece.stop - piece.start for partition in partitions for piece in partition)
    skipped = (*plan.skipped, *bad.values())
    return Plan(plan.schema, partitions, n_rows, plan.task_bytes, skipped, plan.n_sample_parts)
