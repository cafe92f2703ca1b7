"""Scoring one group of clusters: each cluster is read, ranked and compared, and its table of scores written."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.arrays import Array, Backend, backend_module, block_elements
from semdedup.dedup.base.kept import BaseRows
from semdedup.dedup.compare.scored import Limits, Scored, score_new_rows, score_rows
from semdedup.dedup.compare.table import forest_table, score_table, write_base_rows, write_scores
from semdedup.dedup.compare.together import score_together
from semdedup.dedup.input.on_device import tables_on_device
from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.input.rows import (
    DeviceTable,
    embedding_rows,
    gather_unit_rows,
    length_counts,
    low_information_mask,
    with_source,
    write_aside,
)
from semdedup.dedup.input.scan import check_lengths
from semdedup.dedup.input.schema import InputSchema, Origin
from semdedup.dedup.kernels.many import most_small
from semdedup.dedup.names import FOREST, OF_BASE, QUARANTINE, cluster_file
from semdedup.dedup.ranking import RankingStrategy, rank_order
from semdedup.dedup.sizes import BESIDE_A_ROW
from semdedup.storage.location import Location
from semdedup.storage.tables import DECODING_BYTES, LOW_INFORMATION, write_table


@dataclass(frozen=True)
class Comparison:
    """What every task of the comparison needs to know.

    Attributes:
        clusters: storage of the cluster files.
        target: folder for the tables of scores, until they are committed.
        final: folder around it, in which the forests of matches and the quarantine have theirs.
        scratch: folder for the tiles of large clusters.
        schema: how the cluster files are read.
        strategy: what ranks.
        dim: d.
        limits: the least score of a match that the forest holds, and the most rows compared at a time.
        backend: arrays to compute with.
        write_kwargs: options for writing Parquet.
    """

    clusters: Location
    target: Location
    final: Location
    scratch: Location
    schema: InputSchema
    strategy: RankingStrategy
    dim: int
    limits: Limits
    backend: Backend
    write_kwargs: Mapping[str, Any]

    @property
    def light_columns(self) -> list[str]:
        """Columns to read beside the embeddings: the ids, and then what ranks, and the mark of low information."""
        return list(dict.fromkeys(["id", *self.strategy.columns, LOW_INFORMATION]))


@dataclass(frozen=True)
class Cluster:
    """One cluster: its number, its files and their rows; where an update has a base, what stands in it there; and the
    rows of its only file, where they are in memory."""

    label: int
    urls: tuple[str, ...]
    rows: tuple[int, ...]
    base: BaseRows | None = None
    held: pa.Table | None = None

    @property
    def n_rows(self) -> int:
        """Rows of all its files, those of its base among them."""
        return sum(self.rows) + (0 if self.base is None else self.base.n_rows)


def group_memory(n_rows: int, dim: int, batch_size: int, other_bytes: int = 0) -> int:
    """Most bytes that `score_group` holds at a time, for a largest cluster of `n_rows`.

    Rows have `other_bytes` each of what is read beside the embedding, held as they come and in rank order.

    Clusters of a group are worked on one after the other, or small ones a few at a time, so that the rows of a group
    bound its work and not its memory. A cluster is held normalised, in rank order, once more without repeated rows
    where some are equal, and as bfloat16; beside it one batch as it is decoded, and five products of at most 4 MiB, or
    of one batch by 64 candidates.
    """
    row_bytes = (3 * 4 + 2) * dim + 2 * other_bytes + BESIDE_A_ROW
    return max(n_rows, _stack_rows(dim, "cpu")) * row_bytes + DECODING_BYTES + 5 * max(4 << 20, 4 * batch_size * 64)


def score_group(task: Comparison, group: Iterable[Cluster]) -> dict[str, Any]:
    """Score the clusters of one group; write ``cluster_{k}.parquet`` for each, and one forest for all of them.

    They are a sequence, but where their rows are held.

    Memory: see `group_memory`.

    Returns:
        ``rows``, and ``quarantined`` by reason.
    """
    n_rows, quarantined, edges, labels = 0, Counter[str](), [], []
    for cluster, ranked, found in scored_clusters(task, group, quarantined):
        labels.append(cluster.label)
        ids = ranked.light.column("id")
        table = score_table(ids.slice(ranked.n_base), ids.take(pa.array(found.match)), found.score)
        write_scores(task.target, cluster.label, ids.type, [table], task.write_kwargs)
        edges.append(forest_table(ids, found.forest, None if cluster.base is None else ranked.n_base))
        if cluster.base is not None:
            write_base_rows(task.final, cluster.label, ids.slice(0, ranked.n_base), task.write_kwargs)
        n_rows += len(table)
    if edges:
        place = task.final / FOREST / f"part-{labels[0]}.parquet"
        write_table(place, pa.concat_tables(edges, promote_options="permissive"), task.write_kwargs)
    return {"rows": n_rows, "quarantined": dict(quarantined)}


def scored_clusters(
    task: Comparison, group: Iterable[Cluster], quarantined: Counter[str]
) -> Iterator[tuple[Cluster, Ranked, Scored]]:
    """Rank and score clusters in their order, small ones together, but for those without rows that can be compared.

    Args:
        quarantined: rows that cannot be compared are counted there, by reason.
    """
    stack: list[tuple[Cluster, Ranked]] = []
    small = most_small(backend_module(task.backend))
    for cluster in ready(group):
        alone = cluster.n_rows > small or (cluster.base is not None and cluster.base.n_rows > 0)
        if alone or sum(held.n_rows for held, _ in stack) + cluster.n_rows > _stack_rows(task.dim, task.backend):
            yield from _scored(task, stack)
            stack = []
        ranked = rank_cluster(task, cluster)
        quarantined.update(ranked.quarantined)
        if len(ranked.light) > ranked.n_base and not alone:
            stack.append((cluster, ranked))
        elif len(ranked.light) > ranked.n_base:
            rows = backend_module(task.backend).asarray(ranked.rows)
            yield cluster, ranked, score_new_rows(rows, low_information_mask(ranked.light), ranked.n_base, task.limits)
    yield from _scored(task, stack)


def _stack_rows(dim: int, backend: Backend) -> int:
    """Rows of small clusters that are compared together, at most, unless one cluster has more."""
    return block_elements(backend_module(backend).empty(0)) // dim


def _scored(task: Comparison, stack: Sequence[tuple[Cluster, Ranked]]) -> Iterator[tuple[Cluster, Ranked, Scored]]:
    """Score small clusters without a base together, or where they have too many matches one after the other."""
    if not stack:
        return
    rows = [backend_module(task.backend).asarray(ranked.rows) for _, ranked in stack]
    low = [low_information_mask(ranked.light) for _, ranked in stack]
    found = score_together(rows, [None if mask is None else ~mask for mask in low], *task.limits)
    for number, (cluster, ranked) in enumerate(stack):
        scored = score_rows(rows[number], low[number], task.limits) if found is None else Scored(*found[number])
        yield cluster, ranked, scored


class Ranked(NamedTuple):
    """The rows of a cluster that can be compared, best-ranked first.

    Attributes:
        light: ids, what ranks, and whether they inform, n rows.
        rows: (n, d) float32 of length 1, in arrays of the backend.
        n_base: how many of them are kept rows of the base, which are candidates only.
        quarantined: how many of its own cannot be compared, by reason.
    """

    light: pa.Table
    rows: Array
    n_base: int
    quarantined: Mapping[str, int]


def ready(group: Iterable[Cluster]) -> Iterable[Cluster]:
    """Clusters of one task, with what tells which rows of their base are kept in memory."""
    if not isinstance(group, Sequence) or not group or group[0].base is None:
        return group
    kept = group[0].base.in_memory([cluster.label for cluster in group])
    return [replace(cluster, base=replace(cluster.base, kept=kept)) for cluster in group if cluster.base is not None]


def rank_cluster(task: Comparison, cluster: Cluster) -> Ranked:
    """Read a cluster whole and rank it, the kept rows of a base first; write what cannot be compared into quarantine.

    Memory: the cluster twice, and a batch of it as it is decoded.
    """
    if cluster.held is not None:
        return _rank_held(task, cluster, cluster.held)
    xp = backend_module(task.backend)
    sets: list[tuple[Iterator[pa.Table | DeviceTable], bool]] = [(read_cluster(task, cluster, task.backend), False)]
    if cluster.base is not None and cluster.base.urls:
        sets.insert(0, (read_base(task, cluster, task.light_columns[1:]), True))
    rows = xp.empty((cluster.n_rows, task.dim), dtype=np.float32)
    n = n_base = 0
    lights, orders = [], []
    for tables, checked_before in sets:
        n_base = n
        gathered = gather_unit_rows(tables, task.dim, rows[n:], checked_before)
        order = rank_order(gathered.others, task.strategy)
        lights.append(gathered.others.take(pa.array(order)))
        orders.append(order + n)
        n += gathered.n_rows
    light = lights[0] if len(lights) == 1 else pa.concat_tables(lights, promote_options="permissive")
    if cluster.base is not None:
        light = light.append_column(OF_BASE, pa.array(np.arange(len(light)) < n_base))
    quarantined = set_aside(task, cluster, gathered.faulty)
    return Ranked(light, rows[xp.asarray(np.concatenate(orders))], n_base, quarantined)


def _rank_held(task: Comparison, cluster: Cluster, held: pa.Table) -> Ranked:
    """`rank_cluster` of rows in memory, which were found fit and normalised when they were assigned."""
    table = task.schema.as_worked_on(held, [Origin(cluster.urls[0], 0, len(held))], None)
    rows, _ = embedding_rows(table.column("embedding"), task.dim)
    light = table.drop_columns("embedding")
    order = rank_order(light, task.strategy)
    return Ranked(light.take(pa.array(order)), rows[order], 0, {})


def read_cluster(task: Comparison, cluster: Cluster, backend: Backend = "cpu") -> Iterator[Any]:
    """The rows of a cluster, in tables of bounded size: ``id``, ``embedding`` and what ranks. On a GPU embeddings are
    on the device, see `read_on_device`.

    Raises:
        BadFileError: no row of a file has the length that is compared.
    """
    on_gpu = backend == "gpu"
    read = partial(tables_on_device, task.schema) if on_gpu else task.schema.read
    for url, n_rows in zip(cluster.urls, cluster.rows, strict=True):
        lengths = Counter[int]()
        piece = Slice(url, url, 0, n_rows, row_bytes=4 * task.dim * on_gpu)
        for table in read(task.clusters.at(url), piece, {}):
            lengths.update(length_counts(table.column("embedding")))
            yield table
        check_lengths({url: lengths}, task.dim, "the length that is compared")


def read_base(task: Comparison, cluster: Cluster, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The kept rows of the base in a cluster, in tables of bounded size: ``id``, ``embedding`` and these columns."""
    if cluster.base is not None:
        yield from cluster.base.tables(task.clusters, cluster.label, ["embedding", *columns])


def set_aside(task: Comparison, cluster: Cluster, faulty: pa.Table) -> dict[str, int]:
    """Write the rows of a cluster that cannot be compared into the quarantine; return how many for each reason."""
    source = cluster.urls[0].rsplit("/", 1)[0]
    return write_aside(task.final / QUARANTINE / cluster_file(cluster.label), with_source(faulty, source))
