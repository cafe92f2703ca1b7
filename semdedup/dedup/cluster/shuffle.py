"""The shuffle by cluster, through files: each partition is written sorted by cluster, then read back by ranges.

    partition 0 ─┐  sorted by label   ┌─ clusters  0 …  9 ─▶ centroid=0/ … centroid=9/
    partition 1 ─┼─▶ one file each, ──┼─ clusters 10 … 24 ─▶ …
    partition 2 ─┘  a chunk a bucket  └─ clusters 25 … 40

A *bucket* is a range of clusters. There is never an object for each pair of partition and cluster. Where there would be
too many chunks, files are merged in between (`cluster.ranges`).

The files are what a run that was killed goes on with, so that rows go through them on a GPU too: they are labelled and
sorted by cluster there, and come to the host a chunk at a time. What follows, files to files, is copying, on the host.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.arrays import Backend, backend_module, host_rows, to_host
from semdedup.dedup.cluster.fit import load_centroids
from semdedup.dedup.cluster.ranges import PIECES, Chunks, ClusterRange, shuffle_file
from semdedup.dedup.input.columns import narrow, wide, wide_type
from semdedup.dedup.input.partitions import Partition
from semdedup.dedup.input.rows import embedding_rows, write_aside
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.kernels.kmeans import assign, distances_to_centroids
from semdedup.dedup.names import COSINE_DISTANCE, L2_DISTANCE
from semdedup.dedup.sizes import BESIDE_A_ROW, held_bytes
from semdedup.storage.arrays import pack_ends, unpack_ends
from semdedup.storage.chunks import read_chunks, write_chunks
from semdedup.storage.location import Location
from semdedup.storage.tables import DECODING_BYTES, embedding_column, one_batch, write_table

ROW_GROUP_BYTES = 64 << 20

VALUES_ENCODED = 1 << 16
"""Elements of embeddings that are encoded at a time; PyArrow's 1,024 take a twentieth more time."""


@dataclass(frozen=True)
class Assignment:
    """What every task of the assignment needs to know.

    Attributes:
        dim: d.
        centroids: file of the centroids.
        digest: of its content.
        chunk_starts: first cluster of each chunk of a shuffle file, increasing, the first is 0.
        backend: arrays to compute with.
        max_samples_per_batch: most rows in one product.
        quarantine: folder for the rows that cannot be compared.
        row_bytes: bytes of a row on average, as they are held.
    """

    dim: int
    centroids: Location
    digest: str
    chunk_starts: tuple[int, ...]
    backend: Backend
    max_samples_per_batch: int
    quarantine: Location
    row_bytes: float


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


def merge_memory(n_rows: int, dim: int, bucket_rows: int, other_bytes: int = 0) -> int:
    """Most bytes that `merge_pieces` holds at a time; see `partition_memory`.

    The rows of a shelf in some shuffle files; and those of one bucket, gathered and sorted to be written.
    """
    return (4 * dim + other_bytes + BESIDE_A_ROW) * (n_rows + 2 * bucket_rows)


def piece_file(work: Workspace, position: int) -> Location:
    """The rows of one partition, sorted by cluster, in chunks of clusters."""
    return shuffle_file(work.scratch, PIECES, position)


def assign_partition(work: Workspace, task: Assignment, item: tuple[int, Partition]) -> dict[str, Any]:
    """Label the rows of one partition, and write them sorted by cluster; write those that cannot be compared aside.

    Returns:
        ``assigned``, ``quarantined`` (rows by reason), ``clusters`` (rows up to the end of each cluster, packed; see
        `rows_of_clusters`), ``weights`` (likewise, of rows of average size, where rows differ in size; see
        `weights_of_clusters`), ``ends`` (of the chunks of the file, packed) and ``distance`` (the sum of the L2
        distances).
    """
    position, slices = item
    rows, other, faulty = work.gather(slices, task.dim)
    other = wide(other)
    xp = backend_module(task.backend)
    rows = xp.asarray(rows)
    centroids = load_centroids(task.centroids, task.digest, task.backend)
    device_labels = assign(rows, centroids, task.max_samples_per_batch)
    l2, cosine = distances_to_centroids(rows, centroids, device_labels)
    labels = to_host(device_labels)
    for name, values in ((L2_DISTANCE, l2), (COSINE_DISTANCE, cosine), ("centroid", labels)):
        other = other.append_column(name, pa.array(to_host(values)))
    by_cluster = xp.argsort(device_labels, kind="stable")
    order = to_host(by_cluster)
    starts = np.append(np.searchsorted(labels[order], task.chunk_starts), len(rows))
    schema = piece_schema(work.schema)

    def batches() -> Iterator[pa.RecordBatch]:
        for low, high in pairwise(starts):
            chosen = order[low:high]
            part = other.take(pa.array(chosen)).combine_chunks()
            sorted_rows = embedding_column(host_rows(rows, by_cluster[low:high]))
            part = part.add_column(1, "embedding", sorted_rows).select(schema.names).cast(schema)
            yield one_batch(part)

    ends = write_chunks(piece_file(work, position), batches())
    counts, uneven = np.bincount(labels, minlength=len(centroids)), uneven_bytes(other)
    weights = {}
    if uneven is not None:
        held = np.bincount(labels, uneven, len(centroids)) + held_bytes(1, task.dim) * counts
        weights["weights"] = pack_ends(np.cumsum(np.ceil(held / task.row_bytes).astype(np.int64)))
    return {
        "assigned": len(rows),
        "quarantined": write_aside(task.quarantine / f"part-{position}.parquet", faulty),
        "clusters": pack_ends(np.cumsum(counts)),
        **weights,
        "ends": pack_ends(ends),
        "distance": float(to_host(l2).sum(dtype=np.float64)),
    }


def rows_of_clusters(assigned: Mapping[str, Any]) -> np.ndarray:
    """Rows of each cluster, (k,) int64, from the result of `assign_partition`."""
    return np.diff(unpack_ends(assigned["clusters"]), prepend=0)


def weights_of_clusters(assigned: Mapping[str, Any]) -> np.ndarray:
    """How many rows of average size the rows of each cluster are, (k,) int64: what cuts clusters into tasks."""
    return np.diff(unpack_ends(assigned.get("weights", assigned["clusters"])), prepend=0)


def uneven_bytes(other: pa.Table) -> np.ndarray | None:
    """Bytes of the metadata of each row, (n,) float64; None where all rows take about the same.

    Text is counted row by row, lists and the like evenly. Ids hardly differ in length.
    """
    columns = [column for name, column in zip(other.column_names, other.columns, strict=True) if name != "id"]
    total = np.zeros(len(other))
    uneven = [column for column in columns if not pa.types.is_primitive(column.type)]
    for column in uneven:
        if pa.types.is_large_string(column.type) or pa.types.is_large_binary(column.type):
            total += pc.fill_null(pc.binary_length(column), 0).to_numpy()
        else:
            total += column.nbytes / max(1, len(other))
    return total if uneven else None


class Merge(NamedTuple):
    """What one task merges: the rows of a shelf, of buckets that begin with clusters `starts`, into one file."""

    folder: str
    number: int
    starts: tuple[int, ...]
    chunks: Chunks


def merge_pieces(work: Workspace, item: Merge) -> dict[str, Any]:
    """Put the rows of some shuffle files together, sorted by cluster, those of a cluster in the order of the files.

    Memory: see `merge_memory`.

    Returns:
        ``ends``: of the buckets in the file, packed.
    """
    batches = [batch for batches in read_chunks(item.chunks.spans(work.scratch)) for batch in batches]
    edges = [[*np.searchsorted(_labels(batch), item.starts).tolist(), len(batch)] for batch in batches]
    schema = piece_schema(work.schema)

    def merged() -> Iterator[pa.Table]:
        for bucket in range(len(item.starts)):
            bounds = [(found[bucket], found[bucket + 1]) for found in edges]
            parts = [batch.slice(low, high - low) for batch, (low, high) in zip(batches, bounds, strict=True)]
            rows = pa.Table.from_batches(parts, schema)
            yield rows.take(pa.array(np.argsort(rows.column("centroid").to_numpy(), kind="stable")))

    ends = write_chunks(shuffle_file(work.scratch, item.folder, item.number), merged())
    return {"ends": pack_ends(ends)}


def _labels(batch: pa.RecordBatch) -> np.ndarray:
    return batch.column("centroid").to_numpy()


class Gathering(NamedTuple):
    """What one task writes, where it finds it, and whether that is all there is of these clusters."""

    what: ClusterRange
    chunks: Chunks
    whole: bool = True


WhileWritten = Callable[[str, Iterable[tuple[int, pa.Table]]], None]
"""Does something with clusters of a task, each a number and its rows; the text is a key that no other task has."""


def gather_piece(assigned: Mapping[str, Any], n_clusters: int) -> Gathering:
    """Write all that `assign_partition` found in partition 0, which has been written as one chunk."""
    ends = unpack_ends(assigned["ends"])
    return Gathering(ClusterRange(0, 0, n_clusters, range(1), 0), Chunks(PIECES, 0, np.zeros(1, np.int64), ends))


def write_clusters(
    work: Workspace,
    target: Location,
    write_kwargs: Mapping[str, Any],
    item: Gathering,
    while_written: WhileWritten | None = None,
) -> dict[str, Any]:
    """Gather a range of clusters from shuffle files; write a Parquet file for each below ``centroid={k}``.

    Clusters that are whole are given to `while_written` then, which asks for one after the other.

    Memory: the rows of the range, one chunk of a shuffle file (of a store, `BYTES_AHEAD` besides), and one cluster as
    it is encoded, or what `while_written` takes for it.

    Returns:
        ``rows``.
    """
    slices: dict[int, list[pa.RecordBatch]] = defaultdict(list)
    what = item.what
    for batch in (batch for batches in read_chunks(item.chunks.spans(work.scratch)) for batch in batches):
        labels = _labels(batch)
        low, high = np.searchsorted(labels, [what.first, what.last])
        if low == high:
            continue
        if high - low < len(batch):  # a copy, for a slice would keep the whole batch alive
            batch, labels = _copy_rows(batch, int(low), int(high)), labels[low:high]
        found, starts = np.unique(labels, return_index=True)
        for label, start, stop in zip(found, starts, [*starts[1:], len(labels)], strict=True):
            slices[int(label)].append(batch.slice(start, stop - start).drop_columns("centroid"))
    n_rows, held = 0, deque[tuple[int, pa.Table]]()
    for label in sorted(slices):
        table = as_written(pa.Table.from_batches(slices.pop(label)).combine_chunks(), work.schema)
        name = f"centroid={label}/part-{what.part}.parquet"
        options = {"row_group_size": rows_per_group(table), "write_batch_size": VALUES_ENCODED}
        write_table(target / name, table, {**options, **write_kwargs})
        n_rows += len(table)
        if while_written is not None and item.whole:
            held.append((label, table))
    if while_written is not None and held:
        while_written(f"{what.first}", (held.popleft() for _ in range(len(held))))
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
