"""The sample that is compared with all rows: chosen by a hash of the ids, taken along while the input is scanned."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.arrays import backend_module, to_host
from semdedup.dedup.cluster.fit import load_centroids
from semdedup.dedup.cluster.shuffle import Assignment
from semdedup.dedup.estimate.axes import choose_axes
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.input.partitions import Partition
from semdedup.dedup.input.rows import check_rows
from semdedup.dedup.input.scan import Sampling, Workspace, scan_partition
from semdedup.dedup.input.several import Rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.kmeans import assign
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION, read_arrow_batch, write_arrow_parts

OTHER_SEED = 1 << 32
"""Added to the seed for the hash that samples: no seed is as large. The one that ranks is the run's own."""


def sampling_of(seed: int, wanted: int, n_rows: int) -> Sampling:
    """Which rows to take along, so that `wanted` of them can be expected even after chance has taken some away."""
    margin = math.ceil(6 * math.sqrt(wanted)) + 6
    return Sampling.of(seed + OTHER_SEED, wanted + margin, n_rows)


@dataclass(frozen=True)
class TakingWorkspace(Workspace):
    """A workspace that takes along, of all rows that are read, those of the sample."""

    chosen: Sampling
    rank_seed: int
    taken: list[pa.Table]

    def read(self, *asked: Any, **options: Any) -> Iterator[Rows]:
        """As `Workspace.read`."""
        for rows in super().read(*asked, **options):
            self._take(rows.table)
            yield rows

    def _take(self, table: pa.Table) -> None:
        ids = table.column("id")
        hashes = hash_ids(ids, self.chosen.seed)
        places = pa.array(np.flatnonzero(self.chosen.chosen(hashes) & ~ids.is_null().to_numpy()))
        few = table.take(places)
        embeddings = few.column("embedding")
        low = few.column(LOW_INFORMATION) if LOW_INFORMATION in few.column_names else pa.nulls(len(few), pa.bool_())
        columns = {
            "hash": pa.array(hashes[places.to_numpy()]),
            "rank": pa.array(hash_ids(few.column("id"), self.rank_seed)),
            LOW_INFORMATION: low,
            "embedding": embeddings.cast(pa.list_(embeddings.type.value_type)),
        }
        self.taken.append(pa.table(columns))


def taken_file(work: Workspace, position: int) -> Location:
    """Rows of one partition that belong to the sample, as they came."""
    return work.scratch / "taken" / f"{position}.arrow"


def scan_and_take(
    chosen: Sampling, work: Workspace, sampling: Sampling, skip_bad_files: bool, item: tuple[int, Partition]
) -> dict[str, Any]:
    """`scan_partition`, which ranks by the seed of its `sampling`; writes the rows of the sample besides."""
    taken: list[pa.Table] = []
    taking = TakingWorkspace(work.schema, work.inputs, work.scratch, work.read_kwargs, chosen, sampling.seed, taken)
    found = scan_partition(taking, sampling, skip_bad_files, item)
    columns = [("hash", pa.uint64()), ("rank", pa.uint64()), (LOW_INFORMATION, pa.bool_())]
    empty = pa.schema([*columns, ("embedding", pa.list_(pa.float16()))]).empty_table()
    table = pa.concat_tables([empty, *taken], promote_options="permissive").combine_chunks()
    write_arrow_parts(taken_file(work, item[0]), table, [0])
    return found


class Sample(NamedTuple):
    """Rows that ask for a better-ranked match, best rank first.

    Attributes:
        rows: (q, d) float32 of length 1.
        ranks: (q,) uint64, increasing; a smaller one is better.
        labels: (q,) int32, their clusters.
        axes: (d, p) float32 to rule out pairs by, see `kernels.bounds`; p is 0 where rows are compared as they are.
    """

    rows: np.ndarray
    ranks: np.ndarray
    labels: np.ndarray
    axes: np.ndarray


def lay_out_sample(
    work: Workspace, clusters: Assignment, least: float, rows_per_block: int, item: tuple[int, int]
) -> dict[str, Any]:
    """Put the rows that were taken along together into blocks of `Sample`; the first `wanted` that can be compared.

    Args:
        item: pieces that they were taken from, and how many are wanted.

    Returns:
        ``rows`` of the sample, and ``asking``, those of each block: rows of low information match nothing and do not
        ask.

    Memory: the sample three times.
    """
    n_pieces, wanted = item
    pieces = (read_arrow_batch(taken_file(work, position), 0) for position in range(n_pieces))
    table = pa.concat_tables([pa.Table.from_batches([piece]) for piece in pieces], promote_options="permissive")
    table = table.sort_by("hash")  # the sample is in the order of its hash: its first rows are random ones, too
    checked = check_rows(table.column("hash"), table.column("embedding"), clusters.dim)
    positions, rows = checked.positions[:wanted], unit_rows(checked.rows[:wanted])
    asking = ~table.column(LOW_INFORMATION).fill_null(False).to_numpy()[positions].astype(bool)
    n_sampled, rows = len(rows), rows[asking]
    ranks = table.column("rank").to_numpy()[positions][asking]
    axes = choose_axes(rows, least)
    centroids = load_centroids(clusters.centroids, clusters.digest, clusters.backend)
    labels = to_host(assign(backend_module(clusters.backend).asarray(rows), centroids, clusters.max_samples_per_batch))
    order = np.argsort(ranks, kind="stable")
    n_blocks = max(1, -(-len(order) // rows_per_block))
    parts = np.array_split(order, n_blocks)
    for block, part in enumerate(parts):
        _write_block(work, block, Sample(rows[part], ranks[part], labels[part], axes))
    return {"rows": n_sampled, "asking": [len(part) for part in parts]}


def _write_block(work: Workspace, block: int, sample: Sample) -> None:
    for name, array in sample._asdict().items():
        save_array(_place(work.scratch, block) / f"{name}.npy", array)


def _place(scratch: Location, block: int) -> Location:
    return scratch / f"asking-{block}"


@lru_cache(maxsize=1)
def load_block(scratch: Location, block: int) -> Sample:
    """A block of the sample, once for each worker process while it is the one in use."""
    return Sample(*(load_array(_place(scratch, block) / f"{name}.npy") for name in Sample._fields))
