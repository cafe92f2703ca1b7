"""The comparison of clusters: from one folder for each cluster to one table of scores for each.

Small clusters are packed into *groups*, one task each. A cluster too large for a task is laid out in rank order as
*tiles*, and each tile is compared with itself and all better-ranked tiles, some of these in a task.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from semdedup.dedup import sizes
from semdedup.dedup.base.kept import BaseRows, KeptRows, ListedRows, find_kept
from semdedup.dedup.base.returning import name_returning
from semdedup.dedup.base.update import Base
from semdedup.dedup.compare.across import score_across
from semdedup.dedup.compare.columns import check_columns, counted_of
from semdedup.dedup.compare.groups import Cluster, Comparison, score_group
from semdedup.dedup.compare.scored import Limits
from semdedup.dedup.compare.tiles import score_large_clusters
from semdedup.dedup.compare.while_written import scored_while_written
from semdedup.dedup.input.facts import Counted, FileFacts, inspect_all
from semdedup.dedup.input.partitions import Slice, cut_partitions
from semdedup.dedup.input.planned import planned_on_device, planned_rows
from semdedup.dedup.input.rows import commonest_length, length_counts
from semdedup.dedup.input.scan import ID_HASH_SEED, Workspace, check_ids_unique, expected_length, scan_lengths
from semdedup.dedup.input.schema import InputSchema, casts_in_words
from semdedup.dedup.names import CLUSTER_FOLDER, KMEANS, RANGES, Destination, below, find_table, label_of
from semdedup.dedup.options import InputOptions
from semdedup.dedup.ranking import RankingStrategy
from semdedup.errors import InputError, IntegrityError
from semdedup.runs.lookup import find_record, known_files
from semdedup.runs.run import Run
from semdedup.storage.location import FileInfo, Location, without_storage_options

CLUSTERS_PER_GROUP = 256


def find_clusters(files: Sequence[FileInfo], facts: Sequence[FileFacts]) -> list[Cluster]:
    """Sort files by the cluster in their path, ``centroid=K``."""
    rows = {file.url: file.n_rows for file in facts}
    urls: dict[int, list[str]] = defaultdict(list)
    for file in files:
        match = CLUSTER_FOLDER.search(file.url)
        if match and rows.get(file.url):
            urls[int(match[1])].append(file.url)
    return [Cluster(k, tuple(sorted(urls[k])), tuple(rows[url] for url in sorted(urls[k]))) for k in sorted(urls)]


class Based(NamedTuple):
    """Clusters with what stands in them in a base.

    Attributes:
        clusters: those that have new rows.
        everywhere: all clusters of the base, without new rows; none where only clusters are compared.
        n_bytes: how many bytes all that has.
        facts: what is to be on record of the base.
    """

    clusters: Sequence[Cluster]
    everywhere: Sequence[Cluster] = ()
    n_bytes: int = 0
    facts: Mapping[str, Any] = {}


def _with_base(run: Run, clusters: Sequence[Cluster], base: Base, across: bool) -> Based:
    kept = find_kept(run, base)
    update = {"bases": base.entries(run.root), **kept.facts(base)} | (
        name_returning(run, base, kept) if base.values else {}
    )
    wanted = {cluster.label for cluster in clusters}
    every = ((link.cache, file) for link in base.links for file in link.clusters)
    files = [(store, file) for store, file in every if across or label_of(file.url) in wanted]
    located = [(store.at(file.url), file.url) for store, file in files]
    facts, _ = inspect_all(run.session, located, Counted("embedding", ("id",), ("id",)), name="inspect the base")
    listed = [file for _, file in files]
    return Based(
        with_base(clusters, listed, kept.rows, facts),
        clusters_of_base(listed, kept.rows, facts) if across else (),
        sum(file.n_bytes for file in facts),
        update,
    )


def with_base(
    clusters: Sequence[Cluster], files: Sequence[FileInfo], kept: KeptRows | ListedRows, facts: Sequence[FileFacts]
) -> list[Cluster]:
    """The clusters with what stands in them in files of a base."""
    theirs = {cluster.label: cluster.base for cluster in clusters_of_base(files, kept, facts)}
    return [replace(cluster, base=theirs.get(cluster.label, BaseRows((), 0, kept))) for cluster in clusters]


def clusters_of_base(
    files: Sequence[FileInfo], kept: KeptRows | ListedRows, facts: Sequence[FileFacts]
) -> list[Cluster]:
    """All clusters that files of a base hold, without new rows."""
    found = find_clusters(files, facts)
    return [Cluster(each.label, (), (), BaseRows(each.urls, each.n_rows, kept)) for each in found]


def pack_groups(clusters: Sequence[Cluster], rows: sizes.TaskRows) -> tuple[list[tuple[Cluster, ...]], list[Cluster]]:
    """Pack clusters into groups of about equal work, and set those aside that are larger than a task.

    The work of a group is the sum of squares of its clusters; a group holds at most `CLUSTERS_PER_GROUP` clusters and
    `rows.together` rows, but for a larger cluster. The heaviest groups come first, so that none of them is left for the
    end.
    """
    large = [cluster for cluster in clusters if cluster.n_rows > rows.most]
    groups: list[tuple[Cluster, ...]] = []
    current: list[Cluster] = []
    held = 0
    for cluster in sorted((c for c in clusters if c.n_rows <= rows.most), key=lambda c: (-c.n_rows, c.label)):
        if current and (held + cluster.n_rows > rows.together or len(current) == CLUSTERS_PER_GROUP):
            groups.append(tuple(current))
            current, held = [], 0
        current.append(cluster)
        held += cluster.n_rows
    return groups + [tuple(current)] * bool(current), large


def score_clusters(
    run: Run,
    files: Sequence[FileInfo],
    source: Location,
    fields: InputOptions,
    strategy: RankingStrategy,
    limits: Limits,
    across: bool,
    destination: Destination,
    base: Base | None = None,
) -> dict[str, Any]:
    """Score all clusters in `files` and write a table for each, resuming where an earlier run stopped.

    The forests of matches go to `FOREST`. With `across`, matches of all clusters are found, else those within each.
    With a `base` its kept rows are compared with, too.

    Returns:
        Facts: rows scored, rows quarantined by reason, clusters; what bounds left of the pairs `across` clusters; of an
        update what it tells of its base.
    """
    session, scratch = run.session, run.scratch
    with run.refusing():
        located = [(source.at(file.url), file.url) for file in files]
        facts, _ = inspect_all(session, located, counted_of(fields, strategy), name="inspect clusters")
        schema = check_columns(facts, fields, strategy)
        for words in casts_in_words(facts, schema.options):
            session.reporter.say(words)
        clusters = find_clusters(files, facts)
        if not clusters:
            raise InputError(f"no rows in the clusters of {source}")
        ours = known_files([find_table(source, "clusters")])
        if all(file.url in ours for file in files):
            dim = fields.embedding_dim or commonest_dim(source, clusters, schema)
        else:
            dim = _look_at_foreign(run, facts, source, schema.below(files))
        based = Based(clusters) if base is None else _with_base(run, clusters, base, across)
    rows, uncut = _rows_of_tasks(run, facts, based.n_bytes, dim)
    task = Comparison(
        clusters=source,
        target=below(run.final, destination.folder),
        final=run.final,
        scratch=scratch,
        schema=schema.below(files),
        strategy=strategy,
        dim=dim,
        limits=limits,
        backend=session.backend,
        write_kwargs=without_storage_options(destination.write_kwargs),
    )
    counts: dict[str, Any] = {}
    if across:
        results, counts = score_across(run, task, *pack_groups(based.clusters, rows), based.everywhere, rows.most)
    else:
        results = _score_within(run, task, based.clusters, rows, uncut)
    balanced = _balanced(results, sum(sum(cluster.rows) for cluster in clusters))
    forests = [] if across else [[one.label for one in group] for group in ranges_of(based.clusters, source)]
    found = {**balanced, "clusters": len(clusters), **based.facts, **({"forests": forests} if forests else {})}
    return {**found, "pairs": counts} if across else found


def _score_within(
    run: Run, task: Comparison, clusters: Sequence[Cluster], rows: sizes.TaskRows, uncut: sizes.TaskRows
) -> list[dict[str, Any]]:
    """Score each cluster by itself, unless that was done as it was written; what tasks gave back."""
    done, labels = scored_while_written(run, clusters)
    ranges = ranges_of(clusters, task.clusters)
    in_ranges = {cluster.label for group in ranges for cluster in group}
    small, large = pack_groups([cluster for cluster in clusters if cluster.label not in in_ranges], uncut)
    missing = [group for group in ranges if group[0].label not in labels]
    tiled = score_large_clusters(run, task, large, rows.most)
    return [
        *done,
        *tiled,
        *run.results("compare", partial(score_group, task), [*missing, *small], unit="groups", label=_group_label),
    ]


def ranges_of(clusters: Sequence[Cluster], source: Location) -> list[tuple[Cluster, ...]]:
    """Clusters that one task of k-means wrote, and may have scored: they are a group whoever scores them, so that the
    same files come out. None of an update, and of clusters for which no ranges are on record."""
    record = find_record(find_table(source, "clusters"))
    facts = (record.committed(KMEANS) or {}).get("facts", {}) if record is not None else {}
    starts = facts.get(RANGES, [])
    if not starts or any(cluster.base is not None for cluster in clusters):
        return []
    groups: dict[int, list[Cluster]] = defaultdict(list)
    for cluster in clusters:
        if len(cluster.urls) == 1:
            groups[bisect_right(starts, cluster.label)].append(cluster)
    return [tuple(groups[number]) for number in sorted(groups) if number]


def _look_at_foreign(run: Run, facts: Sequence[FileFacts], source: Location, schema: InputSchema) -> int:
    """The length of the embeddings of clusters of another program, after the checks that the input of k-means passes.

    Raises:
        DuplicateIdError: an id is there twice.
        BadFileError: no row of a file has the commonest length; or a file cannot be read.
    """
    work = Workspace(schema, source, run.scratch / "scan", {})
    n_bytes = sum(file.n_bytes for file in facts)
    n_bytes = sizes.bytes_per_task(run.session.n_slots, run.session.task_memory, n_bytes)
    partitions = cut_partitions(facts, n_bytes, None)
    lengths, hashes = scan_lengths(run, "scan", work, partitions)
    dim = expected_length(lengths, schema.options.embedding_dim)
    check_ids_unique(run.session, work, partitions, ID_HASH_SEED, hashes)
    return dim


def _rows_of_tasks(
    run: Run, facts: Sequence[FileFacts], n_bytes_of_base: int, dim: int
) -> tuple[sizes.TaskRows, sizes.TaskRows]:
    """Rows of tasks that hold them in memory of the host, as tiles and blocks are; and of what compares clusters."""
    n_bytes = sum(file.n_bytes for file in facts) + n_bytes_of_base
    others = sum(file.other_bytes for file in facts) / max(1, sum(file.n_rows for file in facts))
    rows = planned_rows(run, run.scratch / "plan.json", n_bytes, dim, others)
    return rows, planned_on_device(run, run.scratch / "plan-on-device.json", rows, dim, others)


def _balanced(results: Sequence[Mapping[str, Any]], n_rows: int) -> dict[str, Any]:
    """``rows`` and ``quarantined`` of all tasks. Raises an `IntegrityError` unless that are all `n_rows` rows."""
    n_scored = sum(result["rows"] for result in results)
    quarantined = sum((Counter(result["quarantined"]) for result in results), Counter[str]())
    if n_scored + sum(quarantined.values()) != n_rows:
        raise IntegrityError(
            f"{n_rows} rows are in the clusters, but {n_scored} were scored and {quarantined} quarantined"
        )
    return {"rows": n_scored, "quarantined": dict(quarantined)}


def _group_label(group: Sequence[Cluster]) -> str:
    names = [f"centroid={cluster.label}" for cluster in group[:3]]
    return f"clusters {', '.join(names)}" + f" and {len(group) - 3} more" * (len(group) > 3)


def commonest_dim(source: Location, clusters: Sequence[Cluster], schema: InputSchema) -> int:
    """The length of most embeddings of the first file that has any.

    Raises:
        InputError: none has.
    """
    for url, n_rows in (
        (url, rows) for cluster in clusters for url, rows in zip(cluster.urls, cluster.rows, strict=True)
    ):
        counts = Counter[int]()
        for table in schema.read(source.at(url), Slice(url, url, 0, n_rows), {}, ["embedding"]):
            counts.update(length_counts(table.column("embedding")))
        if commonest_length(counts):
            return commonest_length(counts)
    raise InputError(f"the clusters of {source} hold no embeddings: every one of them is null or empty")
