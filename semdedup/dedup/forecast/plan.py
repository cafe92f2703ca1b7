"""A run without rows: the functions that plan its steps are asked what they would do with so many."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.cluster.draw import sample_parts
from semdedup.dedup.cluster.fit import share_parts
from semdedup.dedup.cluster.plan import Plan, make_plan
from semdedup.dedup.cluster.ranges import ClusterRange, cluster_ranges, merged_pieces
from semdedup.dedup.cluster.steps import Buckets
from semdedup.dedup.compare.groups import Cluster
from semdedup.dedup.compare.lay_out import pieces_of
from semdedup.dedup.compare.run import pack_groups
from semdedup.dedup.compare.spans import Span, Tiles, tile_spans
from semdedup.dedup.forecast.given import Found, Machines, Rows
from semdedup.dedup.input.facts import OFFSET, FileFacts
from semdedup.dedup.input.scan import SAMPLE_ROWS
from semdedup.dedup.kernels.kmeans import sample_size
from semdedup.dedup.options import InputOptions, KMeansOptions
from semdedup.storage.arrays import pack_ends
from semdedup.storage.location import FileInfo

SCHEMA = pa.schema([("id", pa.string()), ("embedding", pa.list_(pa.float32()))])


OFFSET_BYTES = 4 + OFFSET
"""Of an id beside its text: its length as Parquet has it, and its offset in memory; so `input.facts` counts."""

RANK_BYTES = 4
"""Of a row in what ranks it: its distance to the centroid."""


@dataclass(frozen=True)
class RunPlan:
    """What the steps of a run decide before, and as, they go over the rows.

    Attributes:
        rows: of the run.
        machines: its workers.
        kmeans: how it clusters.
        found: what it finds out.
        clustering: partitions of the input, and what a task holds.
    """

    rows: Rows
    machines: Machines
    kmeans: KMeansOptions
    found: Found
    clustering: Plan

    @classmethod
    def of(
        cls, rows: Rows, machines: Machines, kmeans: KMeansOptions | None = None, found: Found | None = None
    ) -> RunPlan:
        """Plan a run. Time: that of the plan of a real one; a second or two for a billion rows."""
        kmeans, found = kmeans or KMeansOptions(), found or Found()
        per_file = _evenly(rows.n, rows.n_files)
        schema = SCHEMA.serialize().to_pybytes()
        names = [f"input/part-{number:07d}.parquet" for number in range(rows.n_files)]
        files = [FileInfo(name, round(rows.n_bytes / rows.n_files), "") for name in names]
        beside, kinds = rows.id_bytes + OFFSET_BYTES + rows.other_bytes, {n: rows.groups_of(n) for n in {*per_file}}
        facts = [
            FileFacts(name, name, n, n * rows.dim, schema, round(n * beside), kinds[n])
            for name, n in zip(names, per_file, strict=True)
        ]
        slots = machines.n_slots, machines.task_memory, rows.is_local, machines.device_memory_of_task
        return cls(rows, machines, kmeans, found, make_plan(files, facts, [], InputOptions(), kmeans, *slots))

    @property
    def n_clusters(self) -> int:
        """k."""
        return self.kmeans.k_for(self.rows.n)

    @property
    def n_pieces(self) -> int:
        """Partitions of the input, and shuffle files."""
        return len(self.clustering.partitions)

    @cached_property
    def partition_rows(self) -> np.ndarray:
        """Rows of each partition, (p,) int64."""
        return np.array([sum(piece.stop - piece.start for piece in part) for part in self.clustering.partitions])

    @property
    def n_sampled(self) -> int:
        """Rows of the sample that is fitted on."""
        return sample_size(self.rows.n, self.n_clusters, self.kmeans.fit_data_fraction)

    @cached_property
    def _sample_parts(self) -> list[tuple[tuple[int, int, int], ...]]:
        """Parts of the sample, in rows in place of bytes."""
        ends = np.cumsum(np.append(0, self.partition_rows)) * self.n_sampled // self.rows.n
        drawn = np.diff(ends)
        chunks = ([*range(SAMPLE_ROWS, n, SAMPLE_ROWS), n] for n in drawn.tolist())
        of_scan = [
            {"sampled": n, "sample_ends": pack_ends(chunk)} for n, chunk in zip(drawn.tolist(), chunks, strict=True)
        ]
        return sample_parts(of_scan, self.clustering.n_sample_parts)

    @property
    def sample_part_rows(self) -> list[int]:
        """Rows of each part of the sample."""
        return [sum(end - start for _, start, end in part) for part in self._sample_parts]

    @property
    def n_sample_reads(self) -> int:
        """Ranges of files that the parts of the sample are read from."""
        return sum(map(len, self._sample_parts))

    @cached_property
    def fit_sums(self) -> int:
        """Tasks that sum up parts of the sample in each iteration."""
        workers = [f"{number}" for number in range(self.machines.n_workers)]
        rows = self.sample_part_rows
        holders = [[workers[number % len(workers)]] for number in range(len(rows))]
        return len(share_parts(rows, holders, dict.fromkeys(workers, self.machines.n_threads)))

    @property
    def rows_per_task(self) -> int:
        """Rows that a task of the shuffle holds."""
        return self.clustering.rows_per_task(self.rows.dim)

    @cached_property
    def cluster_rows(self) -> np.ndarray:
        """Rows of each cluster, (k,) int64."""
        return self.found.rows_of_clusters(self.rows.n, self.n_clusters)

    @cached_property
    def buckets(self) -> Buckets:
        """Buckets of the shuffle."""
        return Buckets.of(self.cluster_rows.astype(float), self.n_pieces, self.rows_per_task)

    @cached_property
    def merged(self) -> list[list[range]]:
        """For each shelf of the shuffle which shuffle files become one; nothing where none are merged."""
        if not self.buckets.merged:
            return []
        of_shelf = np.add.reduceat(self.cluster_rows, self.buckets.chunk_starts)
        shares = self.partition_rows / self.rows.n
        return [merged_pieces(np.ceil(rows * shares).astype(int), self.buckets.rows_per_task) for rows in of_shelf]

    @property
    def n_merge_reads(self) -> int:
        """Ranges of shuffle files that are read to merge them."""
        return sum(len(pieces) for of_shelf in self.merged for pieces in of_shelf)

    @cached_property
    def ranges(self) -> list[ClusterRange]:
        """Which task writes which clusters."""
        buckets, n_buckets = self.buckets, len(self.buckets.starts)
        files_of_shelf = [len(pieces) for pieces in self.merged]
        shelf_of = np.searchsorted(buckets.shelves, np.arange(n_buckets), side="right") - 1
        n_files = [files_of_shelf[shelf] if self.merged else self.n_pieces for shelf in shelf_of.tolist()]
        rows = {cluster: n for cluster, n in enumerate(self.cluster_rows.tolist()) if n}
        of_bucket = np.searchsorted(buckets.starts, np.arange(self.n_clusters), side="right") - 1
        large = {
            cluster: dict(enumerate(_evenly(n, n_files[of_bucket[cluster]])))
            for cluster, n in rows.items()
            if n > buckets.rows_per_task
        }
        return list(cluster_ranges(buckets.starts, rows, large, n_files, buckets.rows_per_task))

    @cached_property
    def clusters(self) -> list[Cluster]:
        """The clusters that have rows, with the files that `ranges` write of each."""
        parts = dict.fromkeys(np.flatnonzero(self.cluster_rows).tolist(), 1)
        for one in self.ranges:
            if one.part:
                parts[one.first] = max(parts[one.first], one.part + 1)
        return [
            Cluster(label, ("",) * n_parts, tuple(_evenly(int(self.cluster_rows[label]), n_parts)))
            for label, n_parts in parts.items()
        ]

    @property
    def n_cluster_files(self) -> int:
        """Files of all clusters."""
        return sum(len(cluster.urls) for cluster in self.clusters)

    @cached_property
    def rows_per_tile(self) -> int:
        """Rows of a tile of a cluster that is cut."""
        return sizes.rows_compared(sizes.bytes_uncut(*self._compared_by), self.rows.dim, self._beside_compared)

    @property
    def _beside_compared(self) -> float:
        """Bytes beside the embedding of a row that is compared."""
        return self.rows.id_bytes + OFFSET_BYTES + RANK_BYTES

    @property
    def _compared_by(self) -> tuple[int, int, int]:
        """Threads, memory of a task, and bytes of all rows that are compared."""
        beside = round(self.rows.n * self._beside_compared)
        held = sizes.held_bytes(self.rows.n, self.rows.n * self.rows.dim, beside)
        return self.machines.n_slots, self.machines.task_memory, held

    @cached_property
    def groups(self) -> tuple[list[tuple[Cluster, ...]], list[Cluster]]:
        """Groups of small clusters, and large clusters."""
        dim, beside = self.rows.dim, self._beside_compared
        together = sizes.rows_per_task(sizes.bytes_per_task(*self._compared_by), dim, beside)
        rows = sizes.TaskRows(self.rows_per_tile, together)
        if self.machines.device_memory_of_task is not None:
            uncut = sizes.uncut_on_device(self.machines.device_memory_of_task)
            rows = sizes.rows_on_device(uncut, dim, rows, beside)
        return pack_groups(self.clusters, rows)

    @cached_property
    def tiled(self) -> list[Tiles]:
        """The tiles of each large cluster."""
        return [Tiles(cluster.label, cluster.n_rows, self.rows_per_tile) for cluster in self.groups[1]]

    @cached_property
    def spans(self) -> list[list[Span]]:
        """The tasks that compare the tiles of each large cluster."""
        return [tile_spans(tiles, self.rows.dim) for tiles in self.tiled]

    @cached_property
    def large_pieces(self) -> list[int]:
        """In how many pieces each large cluster is read."""
        return [len(pieces_of(cluster, self.rows_per_tile)) for cluster in self.groups[1]]


def _evenly(n: int, n_parts: int) -> Sequence[int]:
    """`n` in so many nearly equal parts."""
    return np.diff(np.arange(n_parts + 1) * n // n_parts).tolist()
