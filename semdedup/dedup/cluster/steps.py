"""The shuffle by cluster on the workers, step after step: rows are assigned, files merged if many, clusters written.

The client folds what tasks give back into arrays as it comes: where chunks lie, 8 bytes for each of them, of which
there are at most about `sizes.MANY_READS`, or those of the two levels (`cluster.ranges`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from semdedup.dedup.cluster.ranges import (
    PIECES,
    Files,
    bucket_starts,
    buckets_per_shelf,
    cluster_ranges,
    merged_pieces,
    shelf_starts,
)
from semdedup.dedup.cluster.shuffle import (
    Assignment,
    Gathering,
    Merge,
    WhileWritten,
    assign_partition,
    merge_pieces,
    rows_of_clusters,
    weights_of_clusters,
    write_clusters,
)
from semdedup.dedup.input.partitions import Partition, partition_label
from semdedup.dedup.input.scan import Workspace
from semdedup.errors import IntegrityError
from semdedup.runs.run import Run
from semdedup.storage.arrays import unpack_ends
from semdedup.storage.location import Location


@dataclass(frozen=True)
class Buckets:
    """How clusters are cut into buckets, and these into shelves; decided before the rows are assigned.

    Attributes:
        starts: first cluster of each bucket.
        shelves: first bucket of each shelf; each bucket is one where nothing is merged.
        rows_per_task: rows of a bucket.
    """

    starts: tuple[int, ...]
    shelves: tuple[int, ...]
    rows_per_task: int

    @classmethod
    def of(cls, rows: np.ndarray, n_pieces: int, rows_per_task: int) -> Buckets:
        """Cut clusters by their estimated rows, for a shuffle of so many files."""
        starts = bucket_starts(rows, rows_per_task)
        per_shelf = buckets_per_shelf(n_pieces, len(starts))
        return cls(starts, shelf_starts(starts, rows, per_shelf, rows_per_task), rows_per_task)

    @property
    def chunk_starts(self) -> tuple[int, ...]:
        """First cluster of each chunk of a shuffle file."""
        return tuple(self.starts[bucket] for bucket in self.shelves)

    @property
    def merged(self) -> bool:
        """Whether shuffle files are merged."""
        return len(self.shelves) < len(self.starts)

    def of_shelf(self, shelf: int) -> range:
        """The buckets of a shelf."""
        return range(self.shelves[shelf], [*self.shelves, len(self.starts)][shelf + 1])


class Assigned(NamedTuple):
    """What the assignment counted.

    Attributes:
        rows: how many have a cluster.
        cluster_rows: rows of each cluster, (k,) int64.
        cluster_weights: the same in rows of average size, which tell what a task can hold.
        quarantined: rows in quarantine by reason.
        mean_distance: the mean L2 distance to the centroid.
        files: the shuffle files.
        chunk_weights: rows of average size of their chunks, (files, chunks) int64.
    """

    rows: int
    cluster_rows: np.ndarray
    cluster_weights: np.ndarray
    quarantined: Mapping[str, int]
    mean_distance: float
    files: Files
    chunk_weights: np.ndarray


class Found(NamedTuple):
    """Where the rows of a bucket are: a chunk of each of some files; and of which shuffle files these were made."""

    files: Files
    chunk: int
    pieces: Sequence[range]


def assign_rows(
    run: Run, work: Workspace, partitions: Sequence[Partition], task: Assignment, n_clusters: int, n_rows: int
) -> Assigned:
    """Label the rows of all partitions, `n_rows` of them in all.

    Raises:
        IntegrityError: there are more or fewer rows now.
    """
    rows, distance, quarantined = 0, 0.0, Counter[str]()
    cluster_rows, cluster_weights = np.zeros((2, n_clusters), dtype=np.int64)
    edges = np.zeros((len(partitions), len(task.chunk_starts) + 1), dtype=np.int64)
    chunk_weights = np.zeros((len(partitions), len(task.chunk_starts)), dtype=np.int64)
    items, assign = list(enumerate(partitions)), partial(assign_partition, work, task)
    for entry in run.each("assign", assign, items, unit="partitions", label=partition_label):
        result, position = entry.result, int(entry.key)
        rows += result["assigned"]
        distance += result["distance"]
        quarantined.update(result["quarantined"])
        run.reporter.quarantined(sum(result["quarantined"].values()))
        weights = weights_of_clusters(result)
        cluster_rows += rows_of_clusters(result)
        cluster_weights += weights
        chunk_weights[position] = np.add.reduceat(weights, task.chunk_starts)
        edges[position, 1:] = unpack_ends(result["ends"])
    if rows + sum(quarantined.values()) != n_rows:
        raise IntegrityError(
            f"{n_rows} rows were read, but {rows} assigned and {sum(quarantined.values())} quarantined; did the "
            "input change during the run?"
        )
    mean, files = distance / max(1, rows), Files(PIECES, edges)
    return Assigned(rows, cluster_rows, cluster_weights, quarantined, mean, files, chunk_weights)


def find_buckets(run: Run, work: Workspace, buckets: Buckets, assigned: Assigned) -> list[Found]:
    """Where the rows of each bucket are; files are merged before, where that is decided."""
    if not buckets.merged:
        singly = [range(n, n + 1) for n in range(len(assigned.chunk_weights))]
        return [Found(assigned.files, bucket, singly) for bucket in range(len(buckets.starts))]
    found: list[Found] = []
    items: dict[str, Merge] = {}
    for shelf in range(len(buckets.shelves)):
        of_shelf = buckets.of_shelf(shelf)
        pieces = merged_pieces(assigned.chunk_weights[:, shelf], buckets.rows_per_task)
        folder = f"merged/{shelf}"
        merged = Files(folder, np.zeros((len(pieces), len(of_shelf) + 1), dtype=np.int64))
        found += [Found(merged, chunk, pieces) for chunk in range(len(of_shelf))]
        starts = buckets.starts[of_shelf.start : of_shelf.stop]
        for number, some in enumerate(pieces):
            items[f"{shelf}-{number}"] = Merge(folder, number, starts, assigned.files.chunks(shelf, some))
    merge = partial(merge_pieces, work)
    for entry in run.each("merge", merge, items, unit="files", label=lambda item: f"{item.folder}, {item.number}"):
        shelf, number = map(int, entry.key.split("-"))
        found[buckets.shelves[shelf]].files.edges[number, 1:] = unpack_ends(entry.result["ends"])
    return found


def write_rows(
    run: Run,
    work: Workspace,
    buckets: Buckets,
    assigned: Assigned,
    target: Location,
    write_kwargs: Mapping[str, Any],
    while_written: WhileWritten | None = None,
) -> list[int]:
    """Gather the clusters from the shuffle files and write them; what is done meanwhile: see `write_clusters`.

    Returns:
        The first cluster of each range that one task wrote whole, increasing.

    Raises:
        IntegrityError: not all rows that were assigned are there.
    """
    found = find_buckets(run, work, buckets, assigned)
    present = np.flatnonzero(assigned.cluster_rows).tolist()
    cluster_rows = {cluster: int(assigned.cluster_weights[cluster]) for cluster in present}
    large = {cluster for cluster, rows in cluster_rows.items() if rows > buckets.rows_per_task}
    file_rows = _rows_by_file(run, large, buckets, found) if large else {}
    n_files = [len(some.pieces) for some in found]
    ranges = cluster_ranges(buckets.starts, cluster_rows, file_rows, n_files, buckets.rows_per_task)
    items = [
        Gathering(
            what,
            found[what.bucket].files.chunks(found[what.bucket].chunk, what.files),
            len(what.files) == n_files[what.bucket],
        )
        for what in ranges
    ]
    write = partial(write_clusters, work, target, write_kwargs, while_written=while_written)
    written = run.results("write clusters", write, items, unit="ranges", label=lambda item: str(item.what))
    n_written = sum(result["rows"] for result in written)
    if n_written != assigned.rows:
        raise IntegrityError(f"{assigned.rows} rows were assigned to clusters, but {n_written} written")
    return [item.what.first for item in items if item.whole]


def _rows_by_file(
    run: Run, clusters: Collection[int], buckets: Buckets, found: Sequence[Found]
) -> dict[int, dict[int, int]]:
    """Rows of average size of these clusters, which are few, in each file, from what the journal has of each piece."""
    few = np.array(sorted(clusters))
    of_bucket = np.searchsorted(buckets.starts, few, side="right") - 1
    file_of_piece = [
        np.repeat(np.arange(len(found[bucket].pieces)), [len(pieces) for pieces in found[bucket].pieces])
        for bucket in of_bucket.tolist()
    ]
    counted = [Counter[int]() for _ in few]
    for entry in run.entries("assign"):
        for index, rows in enumerate(weights_of_clusters(entry.result)[few].tolist()):
            if rows:
                counted[index][int(file_of_piece[index][int(entry.key)])] += rows
    return dict(zip(few.tolist(), counted, strict=True))
