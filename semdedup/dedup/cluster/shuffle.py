"""The shuffle by cluster, through files: each partition is written sorted by cluster, then read back by ranges.

    partition 0 ─┐  sorted by label   ┌─ clusters  0 …  9 ─▶ centroid=0/ … centroid=9/
    partition 1 ─┼─▶ one file each, ──┼─ clusters 10 … 24 ─▶ …
    partition 2 ─┘  a batch a bucket  └─ clusters 25 … 40

A *bucket* is a range of clusters. There is never an object for each pair of partition and cluster.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import Backend, backend_module, to_host
from semdedup.dedup.cluster.fit import load_centroids
from semdedup.dedup.input.columns import narrow, wide, wide_type
from semdedup.dedup.input.partitions import Partition
from semdedup.dedup.input.rows import embedding_rows, write_aside
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.kernels.kmeans import assign, distances_to_centroids
from semdedup.dedup.names import COSINE_DISTANCE, L2_DISTANCE
from semdedup.dedup.sizes import BESIDE_A_ROW
from semdedup.storage.location import Location
from semdedup.storage.tables import (
    DECODING_BYTES,
    embedding_column,
    one_batch,
    read_arrow_batch,
    write_arrow,
    write_table,
)

ROW_GROUP_BYTES = 64 << 20


@dataclass(frozen=True)
class Assignment:
    """What every task of the assignment needs to know.

    Attributes:
        dim: d.
        centroids: file of the centroids.
        digest: of its content.
        bucket_starts: first cluster of each bucket, increasing, the first is 0.
        backend: arrays to compute with.
        max_samples_per_batch: most rows in one product.
        quarantine: folder for the rows that cannot be compared.
    """

    dim: int
    centroids: Location
    digest: str
    bucket_starts: tuple[int, ...]
    backend: Backend
    max_samples_per_batch: int
    quarantine: Location


def cluster_schema(schema: InputSchema) -> pa.Schema:
    """Columns of a cluster file."""
    return pa.schema(
        [
            ("id", schema.id),
            ("embedding", pa.list_(pa.float32())),
            *schema.metadata,
            (L2_DISTANCE, pa.float32()),
            (COSINE_DISTANCE, pa.float32()),
        ]
    )


def piece_schema(schema: InputSchema) -> pa.Schema:
    """Columns of a shuffle file: those of a cluster file, text with 64-bit offsets, and the cluster."""
    columns = cluster_schema(schema)
    wide = [field if field.name == "embedding" else field.with_type(wide_type(field.type)) for field in columns]
    return pa.schema([*wide, ("centroid", pa.int32())])


def partition_memory(n_rows: int, dim: int, bucket_rows: int, other_bytes: int = 0) -> int:
    """Most bytes that `assign_partition` holds at a time, of rows that have `other_bytes` each beside the embedding.

    The whole partition, its embeddings normalised; one batch of it as it is decoded; and the rows of one bucket,
    gathered to be written.
    """
    return (4 * dim + other_bytes + BESIDE_A_ROW) * (n_rows + bucket_rows) + DECODING_BYTES


def piece_file(work: Workspace, position: int) -> Location:
    """The rows of one partition, sorted by cluster: one Arrow batch for each bucket."""
    return work.scratch / "pieces" / f"{position}.arrow"


def assign_partition(work: Workspace, task: Assignment, item: tuple[int, Partition]) -> dict[str, Any]:
    """Label the rows of one partition, and write them sorted by cluster; write those that cannot be compared aside.

    Returns:
        ``assigned``, ``quarantined`` (rows by reason), ``clusters`` (label and rows, sparse) and ``distance`` (the sum
        of the L2 distances).
    """
    position, slices = item
    rows, other, faulty = work.gather(slices, task.dim)
    other = wide(other)
    xp = backend_module(task.backend)
    device_rows = xp.asarray(rows)
    centroids = load_centroids(task.centroids, task.digest, task.backend)
    device_labels = assign(device_rows, centroids, task.max_samples_per_batch)
    l2, cosine = distances_to_centroids(device_rows, centroids, device_labels)
    labels = to_host(device_labels)
    del device_rows
    for name, values in ((L2_DISTANCE, l2), (COSINE_DISTANCE, cosine), ("centroid", labels)):
        other = other.append_column(name, pa.array(to_host(values)))
    order = np.argsort(labels, kind="stable")
    starts = np.append(np.searchsorted(labels[order], task.bucket_starts), len(rows))
    schema = piece_schema(work.schema)

    def batches() -> Iterator[pa.RecordBatch]:
        for low, high in pairwise(starts):
            chosen = order[low:high]
            part = other.take(pa.array(chosen)).combine_chunks()
            part = part.add_column(1, "embedding", embedding_column(rows[chosen])).select(schema.names).cast(schema)
            yield one_batch(part)

    write_arrow(piece_file(work, position), schema, batches())
    found, counts = np.unique(labels, return_counts=True)
    return {
        "assigned": len(rows),
        "quarantined": write_aside(task.quarantine / f"part-{position}.parquet", faulty),
        "clusters": [found.tolist(), counts.tolist()],
        "distance": float(to_host(l2).sum(dtype=np.float64)),
    }


@dataclass(frozen=True)
class ClusterRange:
    """What one task writes: clusters [first, last) of one bucket, from some pieces, as files named ``part-{part}``."""

    bucket: int
    first: int
    last: int
    pieces: tuple[int, ...]
    part: int


def bucket_starts(sizes: np.ndarray, rows_per_bucket: float) -> tuple[int, ...]:
    """Cut clusters 0 … k - 1 into consecutive buckets of about `rows_per_bucket` rows by their estimated sizes.

    >>> bucket_starts(np.array([5, 5, 20, 1, 1]), 10)
    (0, 2, 3)
    """
    starts, held = [0], 0.0
    for cluster, size in enumerate(sizes):
        if held and held + size > rows_per_bucket:
            starts.append(cluster)
            held = 0.0
        held += float(size)
    return tuple(starts)


def cluster_ranges(
    starts: Sequence[int],
    cluster_rows: Mapping[int, int],
    piece_rows: Mapping[int, Mapping[int, int]],
    n_pieces: int,
    rows_per_task: int,
) -> list[ClusterRange]:
    """Plan which task writes what, now that the sizes of the clusters are known.

    Args:
        starts: first cluster of each bucket.
        cluster_rows: rows of each cluster that has any.
        piece_rows: for each cluster above `rows_per_task`, its rows in each piece; it is cut between pieces.
        n_pieces: number of shuffle files.
        rows_per_task: most rows a task holds, unless one piece has more of one cluster.
    """
    every = tuple(range(n_pieces))
    buckets: dict[int, list[int]] = defaultdict(list)
    for cluster in sorted(cluster_rows):
        buckets[int(np.searchsorted(starts, cluster, side="right")) - 1].append(cluster)
    ranges: list[ClusterRange] = []
    for bucket, clusters in buckets.items():
        first, held = clusters[0], 0
        for cluster in clusters:
            rows = cluster_rows[cluster]
            if held and held + rows > rows_per_task:
                ranges.append(ClusterRange(bucket, first, cluster, every, 0))
                first, held = cluster, 0
            if rows > rows_per_task:
                parts = _cut_pieces(piece_rows[cluster], rows_per_task)
                ranges += [ClusterRange(bucket, cluster, cluster + 1, p, n) for n, p in enumerate(parts)]
                first, held = cluster + 1, 0
            else:
                held += rows
        if held:
            ranges.append(ClusterRange(bucket, first, clusters[-1] + 1, every, 0))
    return ranges


def _cut_pieces(rows: Mapping[int, int], rows_per_task: int) -> list[tuple[int, ...]]:
    parts: list[tuple[int, ...]] = []
    current: list[int] = []
    held = 0
    for piece in sorted(rows):
        if held and held + rows[piece] > rows_per_task:
            parts.append(tuple(current))
            current, held = [], 0
        current.append(piece)
        held += rows[piece]
    return [*parts, tuple(current)]


def write_clusters(
    work: Workspace, target: Location, write_kwargs: Mapping[str, Any], item: ClusterRange
) -> dict[str, Any]:
    """Gather a range of clusters from the shuffle files; write a Parquet file for each below ``centroid={k}``.

    Memory: the rows of the range, one batch of a shuffle file, and one cluster as it is encoded.

    Returns:
        ``rows``.
    """
    slices: dict[int, list[pa.RecordBatch]] = defaultdict(list)
    for position in item.pieces:
        batch = read_arrow_batch(piece_file(work, position), item.bucket)
        labels = batch.column("centroid").to_numpy()
        low, high = np.searchsorted(labels, [item.first, item.last])
        if low == high:
            continue
        if high - low < len(batch):  # a copy, for a slice would keep the whole batch alive
            batch, labels = _copy_rows(batch, int(low), int(high)), labels[low:high]
        found, starts = np.unique(labels, return_index=True)
        for label, start, stop in zip(found, starts, [*starts[1:], len(labels)], strict=True):
            slices[int(label)].append(batch.slice(start, stop - start).drop_columns("centroid"))
    n_rows = 0
    for label in sorted(slices):
        table = as_written(pa.Table.from_batches(slices.pop(label)), work.schema)
        name = f"centroid={label}/part-{item.part}.parquet"
        write_table(target / name, table, {"row_group_size": rows_per_group(table), **write_kwargs})
        n_rows += len(table)
    return {"rows": n_rows}


def as_written(table: pa.Table, schema: InputSchema) -> pa.Table:
    """Rows of shuffle files, without their cluster, with the columns of a cluster file. No value is copied."""
    columns = cluster_schema(schema)
    return pa.table([narrow(table.column(field.name), field.type) for field in columns], schema=columns)


def rows_per_group(table: pa.Table) -> int:
    """Rows of a row group of a cluster file, of about `ROW_GROUP_BYTES`."""
    return max(1, ROW_GROUP_BYTES * len(table) // max(1, table.nbytes))


def _copy_rows(batch: pa.RecordBatch, low: int, high: int) -> pa.RecordBatch:
    """Rows [low, high) in memory of their own."""
    part = batch.slice(low, high - low)
    lengths = part.column("embedding").value_lengths()
    rows, _ = embedding_rows(pa.chunked_array([part.column("embedding")]), lengths[0].as_py())
    columns = {
        name: embedding_column(rows.copy())
        if name == "embedding"
        else part.column(name).take(pa.array(np.arange(len(part))))
        for name in batch.schema.names
    }
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=batch.schema)
