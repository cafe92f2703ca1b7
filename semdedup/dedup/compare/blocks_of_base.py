"""Blocks of new rows against all kept rows of a base, cluster by cluster, wherever they lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import backend_module, to_host
from semdedup.dedup import sizes
from semdedup.dedup.compare.blocks import (
    Block,
    axes_file,
    edge_table,
    edges_file,
    found_file,
    load_light,
    load_side,
    matches_of,
)
from semdedup.dedup.compare.groups import Cluster, Comparison, read_base, ready
from semdedup.dedup.compare.reduce import reduce_matches
from semdedup.dedup.compare.table import write_base_rows
from semdedup.dedup.input.rows import gather_unit_rows, low_information_mask
from semdedup.dedup.kernels.bounds import short_rows
from semdedup.dedup.kernels.distinct import first_occurrences
from semdedup.dedup.kernels.join import Join, Side, centroids_of
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.names import OF_BASE
from semdedup.dedup.ranking import rank_order
from semdedup.runs.run import Run
from semdedup.storage.arrays import load_array
from semdedup.storage.tables import LOW_INFORMATION, write_table

Clusters = tuple[int, tuple[Cluster, ...]]
"""Some clusters of a base, and their number."""


def compare_with_base(
    run: Run,
    task: Comparison,
    blocks: Sequence[Block],
    base: Sequence[Cluster],
    rows_per_task: int,
    found: dict[int, list[str]],
    edges: list[tuple[str, int]],
) -> list[dict[str, Any]]:
    """Find the matches of the rows of all blocks with the kept rows of a base.

    Args:
        base: its clusters.
        found: for each block what was found of it; what is found here is added.
        edges: names of forests that were written, each with its edges; those written here are added.

    Returns:
        Results with ``counts`` of `Join`.
    """
    numbered = list(enumerate(sizes.pack([(cluster, cluster.n_rows) for cluster in base], rows_per_task)))
    run.results("list the base", partial(list_base_rows, task), numbered, unit="groups")
    items = [(block, group) for block in blocks for group in numbered]
    results = run.results("compare with the base", partial(compare_block_with_base, task), items, unit="groups")
    for (block, (number, _)), result in zip(items, results, strict=True):
        if result["found"]:
            found[block.number].append(f"base-{number}")
        edges.append((f"{block.number}-base-{number}", result["edges"]))
    return results


def kept_rows(task: Comparison, cluster: Cluster) -> tuple[pa.Table, np.ndarray]:
    """What ranks the kept rows of a base in a cluster, and the rows, (n, d). Memory: the cluster, and a batch."""
    rows = np.empty((cluster.n_rows, task.dim), dtype=np.float32)
    gathered = gather_unit_rows(read_base(task, cluster, task.light_columns[1:]), task.dim, rows)
    light = gathered.others.append_column(OF_BASE, pa.array(np.ones(gathered.n_rows, dtype=bool)))
    return light, rows[: gathered.n_rows]


def list_base_rows(task: Comparison, item: Clusters) -> dict[str, Any]:
    """Write the ids of the kept rows of some clusters, in rank order: what an update was compared with.

    Memory: the ids and what ranks of a cluster, whose embeddings are not read.
    """
    for cluster in ready(item[1]):
        assert cluster.base is not None
        columns = task.light_columns[1:]
        light = pa.concat_tables(
            cluster.base.tables(task.clusters, cluster.label, columns), promote_options="permissive"
        )
        order = rank_order(light, task.strategy)
        write_base_rows(task.final, cluster.label, light.column("id").take(pa.array(order)), task.write_kwargs)
    return {}


def compare_block_with_base(task: Comparison, item: tuple[Block, Clusters]) -> dict[str, Any]:
    """Find the matches of the rows of a block in some clusters of a base; write the best of each row, and a forest.

    Memory: the rows of the block, a cluster twice, and what `Join` and `reduce_matches` hold.

    Returns:
        ``counts`` of `Join`, ``found`` rows that have a match there, ``edges``.
    """
    block, (number, clusters) = item
    xp = backend_module(task.backend)
    left, row_of = load_side(task, block)
    axes = xp.asarray(load_array(axes_file(task)))
    light = load_light(task, block)
    if OF_BASE not in light.column_names:
        light = light.append_column(OF_BASE, pa.array(np.zeros(len(light), dtype=bool)))
    found, edges, counts = [], [], Counter[str]()
    for cluster in ready(clusters):
        theirs, every = kept_rows(task, cluster)
        low = low_information_mask(theirs)
        usable = np.arange(len(theirs)) if low is None else np.flatnonzero(~low)
        order = usable[rank_order(theirs.take(pa.array(usable)), task.strategy)]
        chosen = order[to_host(first_occurrences(xp.asarray(every[order])))]
        if not len(chosen):
            continue
        rows = xp.asarray(every[chosen])
        centroid = centroids_of([every[chosen]], task.dim)
        right = Side(rows, short_rows(rows, axes), np.array([0, len(chosen)]), centroid)
        join = Join(left, right, task.limits.least)
        together = pa.concat_tables([light, theirs], promote_options="permissive")
        pairs = (
            Pairs(len(light) + chosen[to_host(p.right)], row_of[to_host(p.left)], to_host(p.score))
            for p in join.pairs()
        )
        reduced = reduce_matches(pairs, together, task.strategy)
        counts.update(join.counts)
        if len(reduced.best.left):
            found.append(matches_of(together, reduced.best, slice(None)))
            edges.append(edge_table(together, reduced.forest))
    if found:
        write_table(found_file(task, block.number, f"base-{number}"), _together(found))
        write_table(edges_file(task, f"{block.number}-base-{number}"), _together(edges))
    return {"counts": dict(counts), "found": sum(map(len, found)), "edges": sum(map(len, edges))}


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    table = pa.concat_tables(tables, promote_options="permissive")
    return table.drop_columns([LOW_INFORMATION]) if LOW_INFORMATION in table.column_names else table
