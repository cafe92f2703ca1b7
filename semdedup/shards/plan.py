"""How the work is cut into tasks: the order of samples, partitions of the sorted clips, row groups of other tables."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.ids import hash_ids
from semdedup.shards.chain import DropChain
from semdedup.shards.inputs import Inputs, clip_rows, meta_digests
from semdedup.storage.chunks import write_chunks
from semdedup.storage.location import Location
from semdedup.storage.tables import RowGroups, cut_files

CLIPS_PER_PARTITION = 1 << 15
EMBEDDED_CLIPS_PER_PARTITION = 1 << 13
"""Most clips that one task joins; fewer where their embeddings come along."""

SCORE_BYTES, EMBEDDING_BYTES = 16 << 20, 64 << 20
"""Bytes of Parquet files that one task scatters, unless one row group has more."""

HASH = "hash"
Boundary = tuple[Any, ...]
"""The first id of a partition, with its hash before it where there is a seed."""


def in_order(table: pa.Table, seed: int | None) -> pa.Table:
    """The rows of a table with a column ``id`` in the order of samples; with a seed it gets the column ``hash``.

    Time: O(n log n); memory: a second copy of the table.
    """
    if seed is not None:
        table = table.append_column(HASH, _hashes(table["id"], seed))
    return table.take(_positions(table))


def order_of(ids: pa.ChunkedArray, seed: int | None) -> np.ndarray:
    """The positions of ids in the order of samples, (n,) int64. Memory: 16 bytes an id, with a seed 8 more."""
    table = pa.table({"id": ids})
    if seed is not None:
        table = table.append_column(HASH, _hashes(ids, seed))
    return _positions(table).to_numpy().astype(np.int64)


def _positions(table: pa.Table) -> pa.Array:
    return pc.sort_indices(table, sort_keys=[(name, "ascending") for name in _keys(table)])


def _hashes(ids: pa.ChunkedArray, seed: int) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(hash_ids(chunk, seed)) for chunk in ids.chunks], pa.uint64())


def _keys(table: pa.Table) -> list[str]:
    return [HASH, "id"] if HASH in table.column_names else ["id"]


def boundary_of(table: pa.Table, seed: int | None) -> Boundary:
    """Where a partition begins, by its rows in order."""
    return _key(in_order(table.select(["id"]).slice(0, 1), seed), 0)


def _key(table: pa.Table, row: int) -> Boundary:
    return tuple(table[name][row].as_py() for name in _keys(table))


def parts(table: pa.Table, bounds: Sequence[Boundary]) -> Iterator[pa.RecordBatch]:
    """The rows of a table in order that belong to each partition: a batch each, perhaps empty.

    Time: O(partitions · log n).
    """
    inner = [bisect.bisect_left(range(len(table)), bound, key=lambda row: _key(table, row)) for bound in bounds[1:]]
    names = [name for name in table.column_names if name != HASH]
    table = table.select(names).combine_chunks()
    for start, stop in pairwise([0, *inner, len(table)]):
        rows = table.slice(start, stop - start).to_batches()
        yield rows[0] if rows else pa.RecordBatch.from_pylist([], schema=table.schema)


@dataclass(frozen=True)
class Plan:
    """How the work is cut into tasks.

    Attributes:
        bounds: where the partitions begin.
        clip_ends: where they end in the file of clips, in bytes.
        scores: for each task, the row groups of scores, or of ids to drop, that it scatters.
        links: for each of these, the number of the result that they are of.
        embeddings: the same for embeddings.
    """

    bounds: list[Boundary]
    clip_ends: list[int]
    scores: list[tuple[RowGroups, ...]]
    links: list[int]
    embeddings: list[tuple[RowGroups, ...]]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Plan:
        """The reverse of `dataclasses.asdict`."""
        scores, embeddings = (
            [tuple(RowGroups(**groups) for groups in task) for task in value[name]] for name in ("scores", "embeddings")
        )
        bounds = [tuple(bound) for bound in value["bounds"]]
        return cls(bounds, value["clip_ends"], scores, value["links"], embeddings)


def clips_file(scratch: Location) -> Location:
    """The sorted table of clips, a chunk for each partition."""
    return scratch / "clips.arrows"


def plan_memory(n_clips: int, n_metas: int, id_bytes: float, seeded: bool) -> int:
    """Bytes that `plan_once` takes beside the lists of clips and metadata: ids, their order, and digests of metadata.

    Ids and their order are there together, then the order and the digests.
    """
    ids = n_clips * (id_bytes + 4 + 24 + 8 * seeded)  # positions as Arrow sorts them, twice, and as they are kept
    return round(max(ids, 8 * n_clips + 16 * n_metas))


def plan_once(scratch: Location, inputs: Inputs, drops: DropChain | None, seed: int | None) -> Plan:
    """Sort the clips, and cut them and the tables into tasks. A resumed run reads the plan, so that it cuts alike."""
    place = scratch / "plan.json"
    if not place.exists():
        per_partition = EMBEDDED_CLIPS_PER_PARTITION if inputs.embeddings_folder else CLIPS_PER_PARTITION
        links = [] if drops is None else [cut_files(link.files, link.source, SCORE_BYTES) for link in drops.links]
        bounds: list[Boundary] = []
        clip_ends = write_chunks(clips_file(scratch), _partitions(inputs, seed, per_partition, bounds))
        plan = Plan(
            bounds=bounds,
            clip_ends=clip_ends,
            scores=[task for tasks in links for task in tasks],
            links=[number for number, tasks in enumerate(links) for _ in tasks],
            embeddings=cut_files(inputs.embeddings, inputs.root, EMBEDDING_BYTES),
        )
        clips_file(scratch).force()
        place.write_json(asdict(plan), forced=True)
    return Plan.from_json(place.read_json())


def _partitions(
    inputs: Inputs, seed: int | None, per_partition: int, bounds: list[Boundary]
) -> Iterator[pa.RecordBatch]:
    """The rows of the clips in order, so many at a time; where each batch begins is added to `bounds`."""
    order = order_of(pa.chunked_array(inputs.ids(), pa.string()), seed)
    metas = meta_digests(inputs)
    for start in range(0, len(order), per_partition):
        rows = clip_rows(inputs, inputs.clips.take(order[start : start + per_partition]), metas)
        bounds.append(boundary_of(rows, seed))
        yield rows.combine_chunks().to_batches()[0]
