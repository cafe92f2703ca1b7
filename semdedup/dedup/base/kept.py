"""Which rows of a base are kept: those in its clusters whose ids neither go as duplicates nor are withdrawn.

Clusters are found by their number, ids to drop are not: each of these is given to its cluster by a join over ranges of
the hash of the ids, so that a task holds the ids of one range, whatever the base.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.base.ids import IDS_PER_TASK
from semdedup.dedup.base.update import Base
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.input.scan import EXAMPLES, range_starts
from semdedup.dedup.names import KMEANS, L2_DISTANCE, WITHDRAWN_IDS, cluster_file, label_of
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.errors import InputError
from semdedup.runs.run import Run
from semdedup.storage.location import Location
from semdedup.storage.tables import (
    RowGroups,
    cut_files,
    iter_groups,
    iter_rows,
    open_parquet,
    read_arrow_batch,
    read_arrow_batches,
    read_table,
    write_arrow_parts,
    write_table,
)

IDS_PER_RANGE = 1 << 21
"""Ids of a base in one range of the hash, about."""

DUPLICATE, BEFORE, NOW = range(3)
"""Why a row of a base is not kept: it is a duplicate, a later link withdrew it, or this update withdraws it."""


class Part(NamedTuple):
    """What one task reads of a chain: its storage, some files, and of ids to drop why they are (`DUPLICATE`, …)."""

    store: Location
    files: tuple[RowGroups, ...]
    why: int = -1


@dataclass(frozen=True)
class KeptRows:
    """The rows of a base that are not kept, by cluster; it travels to the tasks.

    Attributes:
        folder: where the join has written them, one file a range.
        n_ranges: how many.
        held: of some clusters these ids, where a task has read them together.
    """

    folder: Location
    n_ranges: int
    held: Mapping[int, pa.Array] = field(default_factory=dict)

    def holding(self, clusters: Collection[int]) -> KeptRows:
        """With the ids of some clusters in memory: footers of the files, which name every cluster, are read once."""
        found = self.dropped(clusters)
        return replace(self, held={label: table.column("id").combine_chunks() for label, table in found.items()})

    def dropped(self, clusters: Collection[int]) -> dict[int, pa.Table]:
        """The rows that are not kept of some clusters: ``id``, ``why``. Memory: these ids."""
        found: dict[int, list[pa.RecordBatch]] = {cluster: [] for cluster in clusters}
        for index in range(self.n_ranges):
            batches = read_arrow_batches(_dropped_file(self.folder, index), list(found))
            for cluster, batch in zip(found, batches, strict=True):
                found[cluster].append(batch)
        return {cluster: pa.Table.from_batches(batches) for cluster, batches in found.items()}

    def dropped_ids(self, cluster: int) -> pa.Array:
        """The ids of those of one cluster."""
        found = self if cluster in self.held else self.holding([cluster])
        return found.held[cluster]


@dataclass(frozen=True)
class ListedRows:
    """The rows of a base that an update compared with, as it has left them in `BASE_ROWS`."""

    folder: Location

    def ids(self, cluster: int) -> pa.Array:
        """Their ids, in rank order."""
        return read_table(self.folder / cluster_file(cluster), ["id"]).column("id").combine_chunks()


@dataclass(frozen=True)
class BaseRows:
    """The rows of one cluster in the results of a chain: its files there, and how tasks know which rows are kept.

    Attributes:
        urls: the files.
        n_rows: rows of all of them, those too that are not kept.
        kept: what tells.
    """

    urls: tuple[str, ...]
    n_rows: int
    kept: KeptRows | ListedRows

    def in_memory(self, clusters: Collection[int]) -> KeptRows | ListedRows:
        """What tells, ready to be asked for some clusters of one task."""
        return self.kept.holding(clusters) if isinstance(self.kept, KeptRows) else self.kept

    def tables(self, store: Location, label: int, columns: Sequence[str]) -> Iterator[pa.Table]:
        """The kept rows, in tables of bounded size: ``id`` and those of these columns that a file has."""
        listed = isinstance(self.kept, ListedRows)
        among = self.kept.ids(label) if isinstance(self.kept, ListedRows) else self.kept.dropped_ids(label)
        for url in self.urls:
            with open_parquet(store.at(url)) as file:
                names = dict.fromkeys(["id", *columns])
                for table in iter_rows(file, [name for name in names if name in file.schema_arrow.names]):
                    if not len(among):
                        yield table.slice(0, 0) if listed else table
                        continue
                    inside = pc.is_in(table.column("id").cast(among.type), among)
                    yield table.filter(inside if listed else pc.invert(inside))


@dataclass(frozen=True)
class Kept:
    """The kept rows of a base, and what was counted on the way.

    Attributes:
        rows: how tasks find them.
        n_rows: how many they are.
        mean_distance: mean L2 distance to their centroids.
        emptied: clusters that lose rows now.
    """

    rows: KeptRows
    n_rows: int
    mean_distance: float
    emptied: tuple[int, ...]

    def facts(self, base: Base) -> dict[str, Any]:
        """What a record tells of it, see `semdedup.dedup.base.summary`."""
        n_rows = sum(link.facts(KMEANS)["rows"] for link in base.links)
        return {"base": {"rows": n_rows, "kept": self.n_rows, "mean_distance": self.mean_distance}}


def find_kept(run: Run, base: Base) -> Kept:
    """Give the ids that are not kept to their clusters.

    Raises:
        InputError: an id to drop or to withdraw is in no cluster of the base.

    Cost: the ids of the base and its distances are read once, and its ids to drop; memory of a task: `IDS_PER_TASK`
    ids, or those of one range, about `IDS_PER_RANGE`.
    """
    n_ids = sum(link.facts(KMEANS)["rows"] for link in base.links)
    n_ranges = max(1, -(-n_ids // IDS_PER_RANGE))
    most_bytes = 4 * base.dim * IDS_PER_TASK
    clusters = [
        Part(link.cache, part) for link in base.links for part in cut_files(link.clusters, link.cache, most_bytes)
    ]
    ids = [
        Part(link.root if why == DUPLICATE else link.cache, part, why)
        for link in base.links
        for why, files in ((DUPLICATE, link.duplicates), (BEFORE, link.withdrawn))
        for part in cut_files(files, link.root, 8 * IDS_PER_TASK)
    ]
    if base.values:
        place = run.scratch / WITHDRAWN_IDS
        write_table(place, pa.table({"id": base.withdraw}))
        ids.append(Part(run.scratch, (RowGroups(place.url),), NOW))
    located = partial(_locate, run.scratch, n_ranges, base.id_type)
    for name, parts in (("locate base rows", clusters), ("locate ids to drop", ids)):
        run.results(name, located, list(enumerate(parts)), unit="groups")
    join = partial(_join, run.scratch, (len(clusters), len(ids)), base.fit["n_clusters"])
    found = run.results("join ids to drop", join, list(range(n_ranges)), unit="ranges")
    _refuse_lost(base, found)
    n_rows = sum(result["kept"] for result in found)
    return Kept(
        KeptRows(run.scratch / "dropped", n_ranges),
        n_rows,
        sum(result["distance"] for result in found) / max(1, n_rows),
        tuple(sorted({cluster for result in found for cluster in result["emptied"]})),
    )


def _refuse_lost(base: Base, found: Sequence[Mapping[str, Any]]) -> None:
    """Raise where ids to drop or to withdraw were found in no cluster."""
    lost: dict[bool, list[Any]] = {False: [], True: []}
    for result in found:
        for value, why in result["lost"]:
            lost[why == NOW].append(value)
    if lost[False]:
        raise InputError(
            f"base: ids to drop of {' or '.join(base.paths)} are in none of their clusters, such as "
            f"{', '.join(map(repr, lost[False][:EXAMPLES]))}: the base is damaged"
        )
    base.refuse_lost(lost[True])


def _located_file(scratch: Location, kind: str, position: int) -> Location:
    return scratch / "located" / f"{kind}-{position}.arrow"


def _dropped_file(folder: Location, index: int) -> Location:
    return folder / f"{index}.arrow"


def _locate(scratch: Location, n_ranges: int, kind: pa.DataType, item: tuple[int, Part]) -> int:
    """Write rows of a chain in the order of their hash, one batch a range: of clusters ``cluster`` and the distance, of
    ids to drop ``id``, ``why``."""
    position, part = item
    of_clusters = part.why < 0
    names = ["id", L2_DISTANCE] if of_clusters else ["id"]
    types = {"cluster": pa.int32(), "distance": pa.float32()} if of_clusters else {"id": kind, "why": pa.int8()}
    schema = pa.schema(types)
    hashes, tables = [np.empty(0, np.uint64)], [schema.empty_table()]
    for file in part.files:
        with open_parquet(part.store.at(file.url)) as parquet:
            for batch in iter_groups(parquet, file.of(parquet), names, ROWS_AT_A_TIME):
                ids = batch.column("id").cast(kind)
                hashes.append(hash_ids(ids, 0))
                every_row = np.ones(len(batch), np.int32)
                columns = [ids, pa.array(every_row * part.why).cast(pa.int8())]
                if of_clusters:
                    columns = [pa.array(every_row * label_of(file.url)), batch.column(L2_DISTANCE)]
                tables.append(pa.table(columns, schema=schema))
    every = np.concatenate(hashes)
    order = np.argsort(every, kind="stable")
    table = (
        pa.concat_tables(tables).take(pa.array(order)).append_column("hash", pa.array(every[order])).combine_chunks()
    )
    starts = np.searchsorted(every[order], range_starts(n_ranges))
    write_arrow_parts(_located_file(scratch, "rows" if of_clusters else "ids", position), table, starts)
    return len(table)


def _join(scratch: Location, n_parts: tuple[int, int], n_clusters: int, index: int) -> dict[str, Any]:
    """Give the ids to drop of one range to their clusters, and count what is kept in it."""
    rows, ids = (
        [read_arrow_batch(_located_file(scratch, kind, position), index) for position in range(number)]
        for kind, number in zip(("rows", "ids"), n_parts, strict=True)
    )
    base = pa.Table.from_batches(rows).sort_by("hash")
    dropped = pa.Table.from_batches(ids)
    hashes, wanted = base.column("hash").to_numpy(), dropped.column("hash").to_numpy()
    first, last = np.searchsorted(hashes, wanted), np.searchsorted(hashes, wanted, side="right")
    lost = dropped.filter(pa.array(first == last)).slice(0, 100)
    # ids that share a hash by chance are given to the clusters of all of them, where readers look for the id itself
    repeats = last - first
    positions = np.arange(repeats.sum()) - np.repeat(repeats.cumsum() - repeats, repeats) + np.repeat(first, repeats)
    clusters = base.column("cluster").to_numpy()[positions]
    order = np.argsort(clusters, kind="stable")
    given = dropped.take(pa.array(np.repeat(np.arange(len(dropped)), repeats)[order])).select(["id", "why"])
    given = given.combine_chunks()
    starts = np.searchsorted(clusters[order], np.arange(n_clusters))
    write_arrow_parts(_dropped_file(scratch / "dropped", index), given, starts)
    stays = np.ones(len(base), dtype=bool)
    stays[positions] = False
    now = given.column("why").to_numpy() == NOW
    return {
        "kept": len(base) - pc.count_distinct(dropped.column("id")).as_py(),
        "distance": float(base.column("distance").to_numpy()[stays].sum(dtype=np.float64)),
        "emptied": np.unique(clusters[order][now]).tolist(),
        "lost": [list(pair) for pair in zip(*(lost.column(name).to_pylist() for name in ("id", "why")), strict=True)],
    }
