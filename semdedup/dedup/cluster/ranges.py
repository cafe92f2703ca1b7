"""Who merges and who writes what: arithmetic on the rows of clusters, and on where they lie in shuffle files.

A *bucket* is a range of clusters that a task can hold. With one level, each of P shuffle files has a chunk for each of
B buckets, and a task reads its bucket from all files: P·B reads. Where these pass `sizes.MANY_READS`, buckets go by
*shelves* of r neighbouring ones, √P of them. A shuffle file has a chunk for each shelf; files are merged, shelf by
shelf, as many at a time as a task can hold; the merged files have a chunk for each bucket:

    P files, B / r chunks each ──▶ merged: about r files for each shelf, r chunks each ──▶ B tasks, of r reads each
              P · B / r reads                                 B · r reads
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from semdedup.dedup import sizes
from semdedup.storage.chunks import Span
from semdedup.storage.location import Location

PIECES = "pieces"
"""The folder of the shuffle files as they are written first, numbered as the partitions."""


def shuffle_file(scratch: Location, folder: str, number: int) -> Location:
    """A shuffle file of a folder of the scratch folder."""
    return scratch.below(folder) / f"{number}.arrows"


class Chunks(NamedTuple):
    """Chunks of shuffle files: of the files [first, first + n) of a folder, bytes [starts, ends), (n,) int64 each."""

    folder: str
    first: int
    starts: np.ndarray
    ends: np.ndarray

    def spans(self, scratch: Location) -> list[Span]:
        """Those that have rows, in the order of the files."""
        return [
            (shuffle_file(scratch, self.folder, self.first + n), int(start), int(end))
            for n, (start, end) in enumerate(zip(self.starts, self.ends, strict=True))
            if start < end
        ]


class Files(NamedTuple):
    """Shuffle files of one folder; `edges` has where their chunks begin and end: (files, chunks + 1) int64."""

    folder: str
    edges: np.ndarray

    def chunks(self, index: int, files: range) -> Chunks:
        """One chunk of some neighbouring files; views, so that a plan of all of them takes no memory."""
        edges = self.edges[files.start : files.stop]
        return Chunks(self.folder, files.start, edges[:, index], edges[:, index + 1])


@dataclass(frozen=True)
class ClusterRange:
    """What one task writes: clusters [first, last) of one bucket, from some files, as files named ``part-{part}``."""

    bucket: int
    first: int
    last: int
    files: range
    part: int


def bucket_starts(rows: np.ndarray, rows_per_bucket: float) -> tuple[int, ...]:
    """Cut clusters 0 … k - 1 into consecutive buckets of about `rows_per_bucket` rows by their estimated rows.

    >>> bucket_starts(np.array([5, 5, 20, 1, 1]), 10)
    (0, 2, 3)
    """
    starts, held = [0], 0.0
    for cluster, size in enumerate(rows):
        if held and held + size > rows_per_bucket:
            starts.append(cluster)
            held = 0.0
        held += float(size)
    return tuple(starts)


def buckets_per_shelf(n_pieces: int, n_buckets: int) -> int:
    """How many buckets go together where rows are merged; 1 where they are not, for there are few reads."""
    return 1 if n_pieces * n_buckets <= sizes.MANY_READS else math.isqrt(n_pieces)


def shuffle_reads(n_pieces: int, n_buckets: int) -> int:
    """About how many parts of files the shuffle reads, in both levels together.

    >>> shuffle_reads(1_000, 1_000), shuffle_reads(11_500, 11_500)
    (1000000, 2472500)
    """
    per_shelf = buckets_per_shelf(n_pieces, n_buckets)
    if per_shelf == 1:
        return n_pieces * n_buckets
    return n_pieces * -(-n_buckets // per_shelf) + n_buckets * per_shelf


def shelf_starts(starts: Sequence[int], rows: np.ndarray, per_shelf: int, rows_per_task: int) -> tuple[int, ...]:
    """The first bucket of each shelf: of `per_shelf` buckets by their rows, so that a large one may stand alone.

    Args:
        starts: first cluster of each bucket.
        rows: estimated rows of each cluster.
        per_shelf: buckets of a shelf.
        rows_per_task: rows of a bucket.
    """
    if per_shelf == 1:
        return tuple(range(len(starts)))
    return bucket_starts(np.add.reduceat(rows, starts), per_shelf * rows_per_task)


def merged_pieces(shelf_rows: np.ndarray, rows_per_task: int) -> list[range]:
    """Which neighbouring shuffle files are merged into one, given the rows of a shelf that each of them has.

    >>> merged_pieces(np.array([4, 4, 0, 4, 9, 1]), 9)
    [range(0, 3), range(3, 4), range(4, 5), range(5, 6)]
    """
    packed = sizes.pack(enumerate(shelf_rows.tolist()), rows_per_task)
    return [range(pieces[0], pieces[-1] + 1) for pieces in packed]


def cluster_ranges(
    starts: Sequence[int],
    cluster_rows: Mapping[int, int],
    file_rows: Mapping[int, Mapping[int, int]],
    n_files: Sequence[int],
    rows_per_task: int,
) -> Iterator[ClusterRange]:
    """Plan which task writes what, now that the sizes of the clusters are known.

    Args:
        starts: first cluster of each bucket.
        cluster_rows: rows of each cluster that has any.
        file_rows: for each cluster above `rows_per_task`, its rows in each file; it is cut between files.
        n_files: number of the shuffle files that the rows of each bucket lie in.
        rows_per_task: most rows a task holds, unless one file has more of one cluster.
    """
    buckets: dict[int, list[int]] = defaultdict(list)
    for cluster in sorted(cluster_rows):
        buckets[bisect_right(starts, cluster) - 1].append(cluster)
    for bucket, clusters in buckets.items():
        every = range(n_files[bucket])
        first, held = clusters[0], 0
        for cluster in clusters:
            rows = cluster_rows[cluster]
            if held and held + rows > rows_per_task:
                yield ClusterRange(bucket, first, cluster, every, 0)
                first, held = cluster, 0
            if rows > rows_per_task:
                parts = _cut_files(file_rows[cluster], rows_per_task)
                yield from (ClusterRange(bucket, cluster, cluster + 1, files, n) for n, files in enumerate(parts))
                first, held = cluster + 1, 0
            else:
                held += rows
        if held:
            yield ClusterRange(bucket, first, clusters[-1] + 1, every, 0)


def _cut_files(rows: Mapping[int, int], rows_per_task: int) -> list[range]:
    packed = sizes.pack(sorted(rows.items()), rows_per_task)
    return [range(files[0], files[-1] + 1) for files in packed]
