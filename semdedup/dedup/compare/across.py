"""The comparison across clusters: with `exact_up_to` every match of the whole input is found, wherever it lies.

The clusters are laid out in *blocks*; each block is compared with itself and with every later one, one task each, which
holds the two and nothing else. Bounds leave few pairs to be decided (see `kernels.bounds` and `kernels.join`). What the
tasks found for a row is put together with its best match within the cluster, in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import to_host
from semdedup.dedup.compare.blocks import (
    CLUSTERS_SAMPLED,
    MATCH,
    Block,
    edge_table,
    edges_file,
    fit_axes,
    found_file,
    lay_out_group,
    lay_out_tile_block,
    load_light,
    load_side,
    with_base_told,
)
from semdedup.dedup.compare.blocks_of_base import compare_with_base
from semdedup.dedup.compare.groups import Cluster, Comparison
from semdedup.dedup.compare.reduce import reduce_matches
from semdedup.dedup.compare.table import forest_schema, score_table, write_scores
from semdedup.dedup.compare.tiles import compare_large_clusters
from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.kernels.bounds import short_width
from semdedup.dedup.kernels.forest import spanning_forest
from semdedup.dedup.kernels.join import Join
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.names import FOREST, OF_BASE, SCORE
from semdedup.dedup.ranking import ranks_of_rows
from semdedup.runs.run import Run
from semdedup.storage.arrays import load_array
from semdedup.storage.tables import read_table, write_table


def score_across(
    run: Run,
    task: Comparison,
    small: Sequence[tuple[Cluster, ...]],
    large: Sequence[Cluster],
    base: Sequence[Cluster],
    rows_per_task: int,
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Score all clusters, and find every match across them, and with those of a base.

    Returns:
        Results with ``rows`` and ``quarantined``, and what the bounds left: see `kernels.join.Join`.
    """
    eps = 1 - float(task.limits.least)
    width = short_width(task.dim, eps) or task.dim + 1
    clusters = [cluster for group in small for cluster in group] + list(large)
    sampled = clusters[:: -(-len(clusters) // CLUSTERS_SAMPLED)]
    run.results("principal axes", partial(fit_axes, task, width), [tuple(sampled)])
    blocks = [Block(number, group) for number, group in enumerate(small)]
    results = run.results("compare", partial(lay_out_group, task), blocks, unit="groups")
    ranked, tiled = compare_large_clusters(run, task, large, rows_per_task)
    results += [{**result, "rows": 0} for result in ranked]
    for tiles in tiled:
        first = len(blocks)
        own = [tile.number for tile in tiles if not tile.of_base]
        new = [Block(first + i, tiles=tiles, tile=number) for i, number in enumerate(own)]
        results += run.results(f"lay out tiles of {tiles[0].cluster.label}", partial(lay_out_tile_block, task), new)
        blocks += new
    pairs = [(a, b) for i, a in enumerate(blocks) for b in blocks[i:] if not a.same_cluster(b)]
    compared = run.results("compare blocks", partial(compare_blocks, task), pairs, unit="pairs of blocks")
    found: dict[int, list[str]] = {block.number: [] for block in blocks}
    for (a, b), result in zip(pairs, compared, strict=True):
        for one, other, rows in ((a, b, result["found"][0]), (b, a, result["found"][1])):
            if rows:
                found[one.number].append(str(other.number))
    with_edges = [f"{a.number}-{b.number}" for (a, b), result in zip(pairs, compared, strict=True) if result["edges"]]
    if base:
        compared += compare_with_base(run, task, blocks, base, rows_per_task, found, with_edges)
    items = [(block, tuple(found[block.number])) for block in blocks]
    run.results("put together", partial(merge_block, task), items, unit="blocks")
    run.results("write large", partial(join_tiles, task), _tiles_by_cluster(blocks), unit="clusters")
    run.results("forest", partial(merge_forests, task, blocks), [tuple(with_edges)])
    counts: Counter[str] = Counter()
    for result in compared:
        counts.update(result["counts"])
    return results, dict(counts)


def _tiles_by_cluster(blocks: Sequence[Block]) -> list[tuple[Block, ...]]:
    by_label: dict[int, list[Block]] = {}
    for block in blocks:
        if block.tiles:
            by_label.setdefault(block.label, []).append(block)
    return [tuple(found) for found in by_label.values()]


def compare_blocks(task: Comparison, item: tuple[Block, Block]) -> dict[str, Any]:
    """Find the matches between two blocks; write the best of each row, and a forest of all.

    Memory: the rows of two blocks and their short ones, and what `Join` and `reduce_matches` hold.

    Returns:
        ``counts`` of `Join`, ``found`` (rows of each block that have a better-ranked match in the other), ``edges``.
    """
    one, other = item
    left, left_rows = load_side(task, one)
    right, right_rows = (left, left_rows) if one is other or one == other else load_side(task, other)
    within = right is left
    join = Join(left, right, task.limits.least)
    lights = [load_light(task, one)] if within else [load_light(task, one), load_light(task, other)]
    light = pa.concat_tables(lights, promote_options="permissive")
    shift = 0 if within else len(lights[0])
    matches = (
        Pairs(left_rows[to_host(found.left)], right_rows[to_host(found.right)] + shift, to_host(found.score))
        for found in join.pairs()
    )
    found = reduce_matches(matches, light, task.strategy)
    sides = [(one, 0, len(light))] if within else [(one, 0, shift), (other, shift, len(light))]
    counts = []
    for block, start, stop in sides:
        mine = (found.best.right >= start) & (found.best.right < stop)
        counts.append(int(mine.sum()))
        if counts[-1]:
            table = light.take(pa.array(found.best.left[mine]))
            table = table.append_column("row", pa.array(found.best.right[mine] - start))
            table = table.append_column(SCORE, pa.array(found.best.score[mine]))
            against = one if block is other else other
            write_table(found_file(task, block.number, str(against.number)), table)
    if len(found.forest.left):
        write_table(edges_file(task, f"{one.number}-{other.number}"), edge_table(light, found.forest))
    return {"counts": dict(join.counts), "found": [*counts, 0][:2], "edges": len(found.forest.left)}


def merge_block(task: Comparison, item: tuple[Block, tuple[str, ...]]) -> dict[str, Any]:
    """Put together what was found for the rows of a block, within its clusters and in other blocks; write the scores.

    A row that has a match in another cluster gets the best of all: the highest score, of equal ones the best rank.

    Memory: ids and what ranks of the rows of the block, of their matches, and of those that were found elsewhere.
    """
    block, others = item
    place = block.place(task)
    light, own = load_light(task, block), read_table(place / "own.parquet")
    score = own.column(SCORE).to_numpy().copy()
    ids, max_ids = light.column("id"), own.column(f"{MATCH}id").combine_chunks()
    if others:
        found = [read_table(found_file(task, block.number, other)) for other in others]
        candidates = pa.concat_tables(found, promote_options="permissive")
        rows = np.unique(candidates.column("row").to_numpy())
        within = own.take(pa.array(rows))
        within = within.rename_columns([name.removeprefix(MATCH) for name in within.column_names])
        within = within.append_column("row", pa.array(rows)).filter(pa.array(score[rows] >= task.limits.least))
        every = with_base_told(pa.concat_tables([candidates, within], promote_options="permissive"))
        row, value = every.column("row").to_numpy(), every.column(SCORE).to_numpy()
        order = np.lexsort((ranks_of_rows(every, task.strategy), -value, row))
        chosen = order[np.append(True, row[order][1:] != row[order][:-1])]
        score[rows] = value[chosen]
        position = np.arange(len(light))
        position[rows] = len(light) + np.arange(len(rows))
        max_ids = pa.chunked_array([max_ids, every.column("id").take(pa.array(chosen)).combine_chunks()])
        max_ids = max_ids.take(pa.array(position)).combine_chunks()
    copies, originals = load_array(place / "copies.npy")
    tie = score[originals] == 1  # with a row that ranks better than all copies
    position = np.arange(len(light))
    position[copies[tie]] = originals[tie]
    table = score_table(ids, max_ids.take(pa.array(position)), score)
    if block.tiles:
        write_table(place / "scores.parquet", table)
        return {"rows": len(table)}
    start = 0
    for label, n_rows in load_array(place / "labels.npy").tolist():
        write_scores(task.target, label, ids.type, [table.slice(start, n_rows)], task.write_kwargs)
        start += n_rows
    return {"rows": len(table)}


def join_tiles(task: Comparison, blocks: Sequence[Block]) -> dict[str, Any]:
    """Write the scores of a large cluster from those of its tiles. Memory: one of them."""
    parts = [block.place(task) / "scores.parquet" for block in blocks]
    ids = read_table(parts[0], ["id"]).column("id").type
    write_scores(task.target, blocks[0].label, ids, map(read_table, parts), task.write_kwargs)
    return {}


def merge_forests(task: Comparison, blocks: Sequence[Block], pairs: Sequence[str]) -> dict[str, Any]:
    """Write one forest of all matches, from those within clusters and those of pairs of blocks, by rank.

    Memory: ids and what ranks of all rows that have a match, a few times.
    """
    places = [block.place(task) / "edges.parquet" for block in blocks] + [edges_file(task, pair) for pair in pairs]
    edges = with_base_told(pa.concat_tables(map(read_table, places), promote_options="permissive"))
    ends = pa.chunked_array([*edges.column("id").chunks, *edges.column("id_b").chunks])
    codes = wide_ids(ends).dictionary_encode()
    numbers, score = codes.indices.to_numpy().astype(np.int64), edges.column(SCORE).to_numpy()
    chosen = spanning_forest(numbers[: len(edges)], numbers[len(edges) :], score, len(codes.dictionary))
    edges = edges.take(pa.array(chosen))
    order = np.lexsort((numbers[len(numbers) // 2 :][chosen], ranks_of_rows(edges, task.strategy)))
    edges = edges.rename_columns(["id_a" if name == "id" else name for name in edges.column_names])
    schema = forest_schema(edges.schema.field("id_a").type)
    if OF_BASE in edges.column_names:
        schema = schema.append(pa.field(OF_BASE, pa.bool_()))
    table = edges.select(schema.names).take(pa.array(order)).cast(schema)
    write_table(task.final / FOREST / "part-0.parquet", table, task.write_kwargs)
    return {"edges": len(table)}
