"""What each step of a run asks of a store: requests by operation, and bytes fetched and sent."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, fields

from semdedup.dedup import sizes
from semdedup.dedup.compare.spans import lay_out_bytes, lay_out_reads, tile_bytes
from semdedup.dedup.forecast.plan import RunPlan
from semdedup.dedup.forecast.tasks import score_bytes, tasks_of
from semdedup.dedup.input.hashes import check_reads
from semdedup.storage.parquet import FOOTER_BYTES, GROUPS_BYTES, piece_bytes

LISTED = 1000
"""Objects that a store lists, or deletes, in one request."""


@dataclass(frozen=True)
class Traffic:
    """Requests by operation, and bytes of bodies that are fetched and sent."""

    get: float = 0
    put: float = 0
    head: float = 0
    copy: float = 0
    delete: float = 0
    list: float = 0
    fetched: float = 0
    sent: float = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(getattr(self, one.name) + getattr(other, one.name) for one in fields(self)))

    def times(self, n: float) -> Traffic:
        """So many times the same."""
        return Traffic(*(n * getattr(self, one.name) for one in fields(self)))

    @property
    def requests(self) -> float:
        """Of all operations."""
        return self.get + self.put + self.head + self.copy + self.delete + self.list


def fetching(n_bytes: float, n_requests: float = 1) -> Traffic:
    """Ranges of files that are known to be there."""
    return Traffic(get=n_requests, fetched=n_bytes)


def writing(n_bytes: float) -> Traffic:
    """A file."""
    return Traffic(put=1, sent=n_bytes)


def opening(n_bytes: float) -> Traffic:
    """A Parquet file of so many bytes: its size is asked for, then the footer; a small one is fetched whole."""
    return Traffic(head=1, get=1, fetched=min(n_bytes, FOOTER_BYTES))


def reading(n_bytes: float) -> Traffic:
    """All of a Parquet file of one row group, of ids and embeddings."""
    if n_bytes <= FOOTER_BYTES:
        return opening(n_bytes)
    return opening(n_bytes) + _of_group(n_bytes)


def _of_group(n_bytes: float) -> Traffic:
    """A row group, or its beginning: in one request where it is small, else the embeddings in pieces, and the ids."""
    pieces = 1 if n_bytes <= GROUPS_BYTES else math.ceil(n_bytes / piece_bytes(2)) + 1
    return fetching(n_bytes, pieces)


def reading_slices(plan: RunPlan) -> Traffic:
    """All partitions of the input: of small row groups these, of larger ones what is before the end of the slice."""
    rows, total = plan.rows, Traffic()
    row_bytes, file_rows = rows.n_bytes / rows.n, math.ceil(rows.n / rows.n_files)
    if row_bytes * file_rows <= FOOTER_BYTES:
        return opening(row_bytes * file_rows).times(sum(map(len, plan.clustering.partitions)))
    alike = Counter((piece.start, piece.stop) for part in plan.clustering.partitions for piece in part)
    for (start, stop), number in alike.items():
        found, small = opening(row_bytes * file_rows), 0.0
        for first in range(start - start % rows.rows_per_group, stop, rows.rows_per_group):
            n_bytes = row_bytes * (min(first + rows.rows_per_group, file_rows) - first)
            if n_bytes <= GROUPS_BYTES:
                small += n_bytes
            else:
                found += _of_group(row_bytes * (min(stop, first + rows.rows_per_group) - first))
        total += (found + fetching(small, math.ceil(small / GROUPS_BYTES))).times(number)
    return total


def committing(n_files: int) -> Traffic:
    """Files are moved into place, one after the other after a look whether the folder is this run's still."""
    each = Traffic(get=1, head=1, copy=1, fetched=513)
    listing = Traffic(list=8 * math.ceil(n_files / LISTED), delete=math.ceil(n_files / LISTED))
    return each.times(n_files) + listing


ALWAYS = Traffic(get=50, put=27, head=125, delete=8, list=140, fetched=400_000, sent=300_000)
"""What a run asks beside all that is counted here: whether this or that is there, who owns the folder, the record."""

JOURNAL_BYTES = 300
"""Of the entry of a task that wrote no file that stays."""


def traffic_of(plan: RunPlan) -> Mapping[str, Traffic]:
    """What each step asks of a store, and ``always`` what does not depend on the rows."""
    found = {"always": ALWAYS, **_of_clustering(plan), **_of_comparison(plan), **_of_threshold(plan)}
    return {name: traffic for name, traffic in found.items() if traffic.requests}


def total_of(traffic: Mapping[str, Traffic]) -> Traffic:
    """All steps together."""
    return sum(traffic.values(), Traffic())


def needed_bytes(plan: RunPlan) -> float:
    """Bytes that a run must fetch, whatever a store is asked: the input to look at the rows and to assign them; hashes,
    sample and shuffle files once, or what is merged twice; centroids; the clusters, and the scores, once."""
    rows, sums = plan.rows, plan.found.iterations * plan.fit_sums + plan.machines.n_workers
    shuffled = rows.n * shuffled_row_bytes(plan) * (2 if plan.merged else 1)
    between = 8 * rows.n + plan.n_sampled * (4 * rows.dim + 12) + shuffled + sums * 4 * plan.n_clusters * rows.dim
    return 2 * rows.n_bytes + between + cluster_bytes(plan) + score_bytes(plan)


def _of_clustering(plan: RunPlan) -> dict[str, Traffic]:
    rows, parts, k = plan.rows, plan.n_pieces, plan.n_clusters
    tasks = tasks_of(plan)
    the_input = reading_slices(plan)
    a_file = rows.n_bytes / rows.n_files
    sample = plan.n_sampled * (4 * rows.dim + 12)
    centroids = 4 * k * rows.dim + 128
    pieces = rows.n * shuffled_row_bytes(plan)
    reads = sum(len(one.files) for one in plan.ranges)
    merges = tasks.get("merge", 0)
    clusters = plan.n_cluster_files
    journal = writing(JOURNAL_BYTES)
    merged = fetching(pieces, plan.n_merge_reads) + (writing(pieces / max(1, merges)) + journal).times(merges)
    return {
        "look at files": opening(a_file).times(rows.n_files + min(rows.n_files, sizes.FILES_CHECKED_FIRST)),
        "scan": the_input
        + writing(8 * rows.n / parts).times(parts)
        + writing(sample / parts).times(parts)
        + writing(JOURNAL_BYTES + 600).times(parts),
        "check ids": fetching(8 * rows.n, check_reads(parts, rows.n)),
        "merge hashes": (fetching(0) + writing(0)).times(tasks.get("merge hashes", 0)),
        "sample": fetching(sample, plan.n_sample_reads),
        "fit": (writing(centroids) + fetching(centroids).times(plan.fit_sums)).times(plan.found.iterations)
        + Traffic(delete=plan.found.iterations),
        "assign": the_input
        + fetching(centroids).times(plan.machines.n_workers)
        + writing(pieces / parts).times(parts)
        + writing(JOURNAL_BYTES + 2 * (k + len(plan.buckets.shelves))).times(parts),
        "merge": merged if merges else Traffic(),
        "write clusters": fetching(pieces, reads)
        + writing(cluster_bytes(plan) / clusters).times(clusters)
        + writing(JOURNAL_BYTES + 100 * clusters / len(plan.ranges)).times(len(plan.ranges)),
        "commit clusters": committing(clusters) + Traffic(delete=math.ceil(4 * parts / LISTED)),
    }


def shuffled_row_bytes(plan: RunPlan) -> float:
    """Of a row in a shuffle file, uncompressed: embedding, id, metadata, offsets, label and distances."""
    rows = plan.rows
    return 4 * rows.dim + 4 + rows.id_bytes + 4 + rows.other_bytes + 3 * 4


def cluster_bytes(plan: RunPlan) -> float:
    """Of all clusters in Parquet files: embeddings, ids, metadata, two distances; and a footer for each file."""
    rows = plan.rows
    return rows.n * (4 * rows.dim + rows.stored_id_bytes + rows.other_bytes + 8) + 2_200 * plan.n_cluster_files


def _of_comparison(plan: RunPlan) -> dict[str, Traffic]:
    rows, files = plan.rows, plan.n_cluster_files
    groups, large = plan.groups
    n_small = sum(map(len, groups))
    in_small = sum(cluster.n_rows for group in groups for cluster in group)
    a_file = cluster_bytes(plan) / files
    scores = score_bytes(plan)
    n_scores = len(plan.clusters)
    return {
        "look at clusters": opening(a_file).times(files),
        "compare": reading(in_small / rows.n * cluster_bytes(plan) / max(1, n_small)).times(n_small)
        + writing(scores / n_scores).times(n_small)
        + (writing(forest_bytes(plan) / max(1, len(groups))) + writing(JOURNAL_BYTES)).times(len(groups)),
        "compare large": _of_large(plan) if large else Traffic(),
        "commit scores": committing(n_scores + len(groups) + len(large)),
    }


def _of_large(plan: RunPlan) -> Traffic:
    dim, tile, found = plan.rows.dim, plan.rows_per_tile, Traffic()
    for cluster, n_pieces in zip(plan.groups[1], plan.large_pieces, strict=True):
        n = cluster.n_rows
        n_tiles = -(-n // tile)
        read, written = lay_out_bytes(n, dim)
        found += fetching(read + tile_bytes(n, tile, dim), lay_out_reads(n, tile) + 4 * n_pieces + 6 * n_tiles)
        found += Traffic(put=2 * n_pieces + 6 * n_tiles + 4, sent=written)
    return found


def forest_bytes(plan: RunPlan) -> float:
    """Of all forests: an edge for each duplicate."""
    rows = plan.rows
    return plan.found.duplicates * rows.n * (2 * rows.stored_id_bytes + 4)


def _of_threshold(plan: RunPlan) -> dict[str, Traffic]:
    n_tables, n_tasks = len(plan.clusters), tasks_of(plan)["threshold"]
    ids = plan.found.duplicates * plan.rows.n * plan.rows.stored_id_bytes
    each = score_bytes(plan) / n_tables
    return {
        "threshold": reading(each).times(n_tables) + (writing(ids / n_tasks) + writing(JOURNAL_BYTES)).times(n_tasks),
        "commit ids": committing(n_tasks),
    }
