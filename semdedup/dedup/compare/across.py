"""The comparison across clusters: with `exact_up_to` every match of the whole input is found, wherever it lies.

The clusters are laid out in *blocks*; each block is compared with itself and with every later one, some of these in a
task, which holds two and nothing else. Bounds leave few pairs to be decided (see `kernels.bounds` and `kernels.join`).
What the tasks found for a row is put together with its best match within the cluster, in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.arrays import to_host
from semdedup.dedup.compare.blocks import (
    CLUSTERS_SAMPLED,
    MATCH,
    ROW,
    Block,
    best_matches,
    edge_table,
    edges_file,
    fit_axes,
    found_file,
    lay_out_edges,
    lay_out_group,
    lay_out_tile_block,
    load_light,
    load_side,
    matches_of,
    with_base_told,
)
from semdedup.dedup.compare.blocks_of_base import compare_with_base
from semdedup.dedup.compare.edges import merged_in_rounds
from semdedup.dedup.compare.groups import Cluster, Comparison
from semdedup.dedup.compare.reduce import reduce_matches
from semdedup.dedup.compare.spans import blocks_per_task, cut_evenly
from semdedup.dedup.compare.table import score_table, write_forest, write_scores
from semdedup.dedup.compare.tiles import compare_large_clusters
from semdedup.dedup.input.columns import wide
from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.kernels.bounds import short_width
from semdedup.dedup.kernels.forest import spanning_forest
from semdedup.dedup.kernels.join import Join
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.names import FOREST, OF_BASE, SCORE
from semdedup.dedup.ranking import ranks_of_rows
from semdedup.dedup.sizes import ROWS_AT_A_TIME
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
    blocks, results, edges = _lay_out(run, task, small, large, rows_per_task)
    compared, found = _compare_all(run, task, blocks, rows_per_task, edges)
    if base:
        compared += compare_with_base(run, task, blocks, base, rows_per_task, found, edges)
    items = [(block, tuple(found[block.number])) for block in blocks]
    run.results("merge blocks", partial(merge_block, task), items, unit="blocks")
    run.results("write large", partial(join_tiles, task), _tiles_by_cluster(blocks), unit="clusters")
    merged_in_rounds([edges], partial(_merge_round, run, task))
    counts: Counter[str] = Counter()
    for result in compared:
        counts.update(result["counts"])
    return results, dict(counts)


def _lay_out(
    run: Run, task: Comparison, small: Sequence[tuple[Cluster, ...]], large: Sequence[Cluster], rows_per_task: int
) -> tuple[list[Block], list[dict[str, Any]], list[tuple[str, int]]]:
    """The blocks, without their clusters; results; and the names of forests within clusters, each with its edges."""
    blocks = [Block(number, group[0].label, group) for number, group in enumerate(small)]
    laid_out = run.results("lay out groups", partial(lay_out_group, task), blocks, unit="groups")
    edges = [(f"block-{block.number}", result["edges"]) for block, result in zip(blocks, laid_out, strict=True)]
    ranked, tiled = compare_large_clusters(run, task, large, rows_per_task)
    for tiles in tiled:
        blocks += [Block(len(blocks) + i, tiles.label, (), tiles, number) for i, number in enumerate(tiles.own)]
    results = laid_out + [{**result, "rows": 0} for result in ranked]
    of_tiles = [block for block in blocks if block.tiles is not None]
    results += run.results("lay out tiles as blocks", partial(lay_out_tile_block, task), of_tiles, unit="tiles")
    forests = run.results("lay out forests", partial(lay_out_edges, task), tiled, unit="clusters")
    edges += [(f"cluster-{tiles.label}", result["edges"]) for tiles, result in zip(tiled, forests, strict=True)]
    return [block.bare for block in blocks], results, edges


def _compare_all(
    run: Run, task: Comparison, blocks: Sequence[Block], rows_per_task: int, edges: list[tuple[str, int]]
) -> tuple[list[dict[str, Any]], dict[int, list[str]]]:
    """Compare all blocks; results, and of each block the names of what was found. Forests are added to `edges`."""
    spans: list[BlockSpan] = []
    most = blocks_per_task(len(blocks), rows_per_task, task.dim)
    for i, block in enumerate(blocks):
        others = [other for other in blocks[i:] if not block.same_cluster(other)]
        spans += [(block, tuple(others[first:last])) for first, last in cut_evenly(len(others), most)]
    compared = run.results("compare blocks with spans", partial(compare_blocks, task), spans, unit="spans of blocks")
    found: dict[int, list[str]] = {block.number: [] for block in blocks}
    for span, result in zip(spans, compared, strict=True):
        for number in result["found"]:
            found[number].append(span_name(span))
        edges.append((span_name(span), result["edges"]))
    return compared, found


BlockSpan = tuple[Block, tuple[Block, ...]]
"""A block, and others that one task compares it with, of which it may be the first itself."""


def span_name(span: BlockSpan) -> str:
    """By which what a task found is named."""
    return f"{span[0].number}-{span[1][0].number}"


def _tiles_by_cluster(blocks: Sequence[Block]) -> list[tuple[Block, ...]]:
    by_label: dict[int, list[Block]] = {}
    for block in blocks:
        if block.tiles is not None:
            by_label.setdefault(block.label, []).append(block)
    return [tuple(found) for found in by_label.values()]


def compare_blocks(task: Comparison, span: BlockSpan) -> dict[str, Any]:
    """Find the matches between a block and some others; write the best of each row, and a forest of all.

    Memory: the rows of two blocks and their short ones, and what `Join` and `reduce_matches` hold; of the rows of the
    block two matches each; and the forests.

    Returns:
        ``counts`` of `Join`, ``found`` (numbers of the blocks whose rows have a better-ranked match), ``edges``.
    """
    one, others = span
    left, left_rows = load_side(task, one)
    own, mine, forests = load_light(task, one), list[pa.Table](), list[pa.Table]()
    found, counts = list[int](), Counter[str]()
    for other in others:
        within = other.number == one.number
        right, right_rows = (left, left_rows) if within else load_side(task, other)
        light = own if within else pa.concat_tables([own, load_light(task, other)], promote_options="permissive")
        shift = 0 if within else len(own)
        join = Join(left, right, task.limits.least)
        matches = (
            Pairs(left_rows[to_host(pairs.left)], right_rows[to_host(pairs.right)] + shift, to_host(pairs.score))
            for pairs in join.pairs()
        )
        reduced = reduce_matches(matches, light, task.strategy)
        counts.update(join.counts)
        of_one = reduced.best.right < len(own)
        if of_one.any():
            mine = [*mine, matches_of(light, reduced.best, of_one, 0)]
            mine = [best_matches(mine, task.strategy)]
        if not of_one.all():
            write_table(
                found_file(task, other.number, span_name(span)), matches_of(light, reduced.best, ~of_one, shift)
            )
            found.append(other.number)
        if len(reduced.forest.left):
            forests.append(edge_table(light, reduced.forest))
    if mine:
        write_table(found_file(task, one.number, span_name(span)), mine[0])
        found.append(one.number)
    if forests:
        write_table(edges_file(task, span_name(span)), pa.concat_tables(forests, promote_options="permissive"))
    return {"counts": dict(counts), "found": found, "edges": sum(map(len, forests))}


def merge_block(task: Comparison, item: tuple[Block, tuple[str, ...]]) -> dict[str, Any]:
    """Put together what was found for the rows of a block, within its clusters and in other blocks; write the scores.

    A row that has a match in another cluster gets the best of all: the highest score, of equal ones the best rank.

    Memory: ids and what ranks of the rows of the block and of their matches, and of three matches for each elsewhere.
    """
    block, others = item
    place = block.place(task)
    light, own = load_light(task, block), read_table(place / "own.parquet")
    score = own.column(SCORE).to_numpy().copy()
    ids, max_ids = wide_ids(light.column("id")), wide_ids(own.column(f"{MATCH}id"))
    if others:
        candidates = _candidates(task, block, others, 2 * len(light))
        rows = np.unique(candidates.column(ROW).to_numpy())
        within = own.take(pa.array(rows))
        within = within.rename_columns([name.removeprefix(MATCH) for name in within.column_names])
        within = within.append_column(ROW, pa.array(rows)).filter(pa.array(score[rows] >= task.limits.least))
        best = best_matches([candidates, within], task.strategy)
        score[rows] = best.column(SCORE).to_numpy()
        position = np.arange(len(light))
        position[rows] = len(light) + np.arange(len(rows))
        max_ids = pa.concat_arrays([max_ids, wide_ids(best.column("id"))])
        max_ids = max_ids.take(pa.array(position))
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


def _candidates(task: Comparison, block: Block, others: Sequence[str], most: int) -> pa.Table:
    """What was found for the rows of a block elsewhere, of each row the best where there are more than `most`."""
    held: list[pa.Table] = []
    for other in others:
        held.append(read_table(found_file(task, block.number, other)))
        if sum(map(len, held)) > most:
            held = [best_matches(held, task.strategy)]
    return pa.concat_tables(held, promote_options="permissive")


def join_tiles(task: Comparison, blocks: Sequence[Block]) -> dict[str, Any]:
    """Write the scores of a large cluster from those of its tiles. Memory: one of them."""
    parts = [block.place(task) / "scores.parquet" for block in blocks]
    ids = read_table(parts[0], ["id"]).column("id").type
    write_scores(task.target, blocks[0].label, ids, map(read_table, parts), task.write_kwargs)
    return {}


class MergeEdges(NamedTuple):
    """Names of forests that one task merges, and of what it writes; nothing for the last one, which is a result."""

    names: tuple[str, ...]
    target: str


def _merge_round(
    run: Run, task: Comparison, number: int, items: list[tuple[int, tuple[str, ...], bool]]
) -> list[tuple[str, int]]:
    jobs = [
        MergeEdges(names, "" if last else f"merged-{number}-{position}")
        for position, (_, names, last) in enumerate(items)
    ]
    results = run.results(f"merge all forests {number}", partial(merge_forests, task), jobs, unit="forests")
    return [(job.target, result["edges"]) for job, result in zip(jobs, results, strict=True)]


def merge_forests(task: Comparison, merge: MergeEdges) -> dict[str, Any]:
    """Write one forest of the matches in some, the last of all by rank.

    Memory: ids and what ranks of the rows that have a match there, a few times: `edges.EDGES_PER_TASK` edges, or those
    of two forests.
    """
    target = task.final / FOREST / "part-0.parquet"
    if not merge.names:
        write_forest(target, task.schema.id, [], False, task.write_kwargs)
        return {"edges": 0}
    tables = [wide(read_table(edges_file(task, name))) for name in merge.names]
    edges = with_base_told(pa.concat_tables(tables, promote_options="permissive"))
    ends = pa.chunked_array([*edges.column("id").chunks, *edges.column("id_b").chunks], edges.column("id").type)
    codes = wide_ids(ends).dictionary_encode()
    numbers, score = codes.indices.to_numpy().astype(np.int64), edges.column(SCORE).to_numpy()
    chosen = spanning_forest(numbers[: len(edges)], numbers[len(edges) :], score, len(codes.dictionary))
    edges = edges.take(pa.array(chosen))
    if merge.target:
        write_table(edges_file(task, merge.target), edges)
        return {"edges": len(edges)}
    order = np.lexsort((numbers[len(numbers) // 2 :][chosen], ranks_of_rows(edges, task.strategy)))
    edges = edges.rename_columns(["id_a" if name == "id" else name for name in edges.column_names])
    with_base = OF_BASE in edges.column_names
    names = ["id_a", "id_b", SCORE, *[OF_BASE] * with_base]
    parts = (
        edges.select(names).take(pa.array(order[start : start + ROWS_AT_A_TIME]))
        for start in range(0, len(order), ROWS_AT_A_TIME)
    )
    write_forest(target, task.schema.id, parts, with_base, task.write_kwargs)
    return {"edges": len(edges)}
