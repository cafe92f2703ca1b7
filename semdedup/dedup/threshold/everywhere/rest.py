"""The rest: unsure rows that match none of the rows that stay without a match. They are taken in rank order.

They are put together as tiles in the order of their ranks, settled, and all unsure rows look at those that stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import backend_module
from semdedup.dedup.compare.blocks import ROW, best_matches
from semdedup.dedup.compare.lay_out import (
    Each,
    cluster_place,
    gather_tile,
    light_file,
    place_rows,
    rows_file,
    sort_chunk,
)
from semdedup.dedup.compare.spans import Tiles
from semdedup.dedup.kernels.greedy import best_kept
from semdedup.dedup.names import SCORE
from semdedup.dedup.ranking import ranks_of_rows
from semdedup.dedup.threshold.everywhere.scratch import WITNESS, scratch_file
from semdedup.dedup.threshold.everywhere.unsure import load_unsure
from semdedup.dedup.threshold.groups import Removing
from semdedup.dedup.threshold.settle import Rest, settle, stays_file
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location
from semdedup.storage.tables import read_table, write_table

THRESHOLD = "threshold"
"""Column of a table of candidates: at which threshold one is one, by its number."""

Tiled = tuple[int, Tiles]
"""A threshold, by its number, and the tiles of its rest."""


def no_candidates(light: pa.Table) -> pa.Table:
    """A table as `candidates_of` gives it, without rows."""
    return candidates_of(light.slice(0, 0), np.empty(0, np.int64), 0, np.empty(0, np.float32))


def candidates_of(light: pa.Table, rows: np.ndarray, threshold: int, score: np.ndarray) -> pa.Table:
    """Rows that stay, (p,), each with the unsure row that it matches at a threshold, and their score."""
    table = light.append_column(ROW, pa.array(rows, pa.int64()))
    return table.append_column(THRESHOLD, pa.array(np.full(len(rows), threshold))).append_column(SCORE, pa.array(score))


def best_candidates(task: Removing, found: Sequence[pa.Table]) -> pa.Table:
    """For each unsure row and threshold the candidate of the highest score, of equal ones the best-ranked."""
    return best_matches(found, task.comparison.strategy, THRESHOLD)


def merge_near(task: Removing, item: tuple[int, tuple[int, ...]]) -> dict[str, Any]:
    """Put together what a block of unsure rows found in spans of groups of clusters, which begin with these numbers.

    Memory: what ranks two candidates of each row.
    """
    block, firsts = item
    best = read_table(scratch_file(task, f"near-{block}", firsts[0]))
    for first in firsts[1:]:
        best = best_candidates(task, [best, read_table(scratch_file(task, f"near-{block}", first))])
    write_table(scratch_file(task, "near", block), best)
    return {}


def rest_place(task: Removing, threshold: int) -> Location:
    """Folder of the rest at a threshold."""
    return cluster_place(task.comparison.scratch, threshold)


def _ranks_file(place: Location, tile: int) -> Location:
    return place / "ranks-of-tiles" / f"{tile}.npy"


def rank_rest(task: Removing, rows_per_tile: int, blocks: Sequence[tuple[int, ...]]) -> dict[str, Any]:
    """Rank all unsure rows, and leave for the tiles of the rest at each threshold where their rows are.

    Memory: what ranks all unsure rows, see `lay_out.ranking_memory`.

    Returns:
        ``rest``: at each threshold how many rows it has.
    """
    lights = [[read_table(scratch_file(task, "light", n)) for n in numbers] for numbers in blocks]
    light = pa.concat_tables(chain.from_iterable(lights), promote_options="permissive")
    ranks = ranks_of_rows(light, task.comparison.strategy)
    flags = [load_array(scratch_file(task, "flags", n, "npy")) for numbers in blocks for n in numbers]
    is_open, counts = np.concatenate(flags), [sum(map(len, tables)) for tables in lights]
    for block, start in enumerate(np.cumsum([0, *counts])[:-1]):
        save_array(scratch_file(task, "ranks", block, "npy"), ranks[start : start + counts[block]])
        near = read_table(scratch_file(task, "near", block), [ROW, THRESHOLD])
        is_open[start + near.column(ROW).to_numpy(), near.column(THRESHOLD).to_numpy()] = False
    chunks, n_rest = [(block, 0, count) for block, count in enumerate(counts)], []
    for threshold in range(len(task.limits)):
        rest = np.flatnonzero(is_open[:, threshold])
        rest = rest[np.argsort(ranks[rest])]
        place, tiles = rest_place(task, threshold), Tiles(threshold, len(rest), rows_per_tile)
        places = np.full(len(light), -1, dtype=np.int64)
        places[rest] = np.arange(len(rest))
        place_rows(place, tiles, chunks, places, np.ones(len(rest), dtype=bool))
        for tile in tiles:
            chosen = rest[tile.start : tile.stop]
            save_array(_ranks_file(place, tile.number), ranks[chosen])
            write_table(light_file(place, tile.number), light.take(pa.array(chosen)))
        n_rest.append(len(rest))
    return {"rest": n_rest}


def _sort_block(task: Removing, item: tuple[int, int, tuple[int, ...]]) -> dict[str, Any]:
    """Write those rows of a block that are of the rest at a threshold in rank order. Memory: the block twice."""
    threshold, block, numbers = item
    sort_chunk(rest_place(task, threshold), block, 0, load_unsure(task, numbers).rows)
    return {}


def settle_rest(
    each: Each, task: Removing, blocks: Sequence[tuple[int, ...]], counts: Sequence[int], rows_per_tile: int
) -> list[Tiled]:
    """Find out which rows of the rest stay, at each threshold that has one."""
    tiled = [(number, Tiles(number, count, rows_per_tile)) for number, count in enumerate(counts) if count]
    chunks = [(number, block, numbers) for number, _ in tiled for block, numbers in enumerate(blocks)]
    each("sort the rest", partial(_sort_block, task), chunks)
    items = [(tiles, tile) for _, tiles in tiled for tile in range(len(tiles))]
    each("gather the rest", partial(gather_tile, task.comparison), items)
    backend = task.comparison.backend
    rests = [Rest(rest_place(task, number), len(tiles), task.limits[number], backend) for number, tiles in tiled]
    settle(each, rests, rows_per_tile, task.comparison.dim)
    return tiled


def _again(task: Removing, block: int, threshold: int, first: int) -> Location:
    return scratch_file(task, f"again-{block}-{threshold}", first)


def look_at_settled(task: Removing, item: tuple[int, tuple[int, ...], int, tuple[int, int]]) -> dict[str, Any]:
    """Find for the unsure rows of a block the nearest of the rest that stay, in some tiles, at a threshold.

    Memory: the block, and a tile of the rest twice.
    """
    block, numbers, threshold, (first, last) = item
    unsure, ranks = load_unsure(task, numbers), load_array(scratch_file(task, "ranks", block, "npy"))
    asking = np.flatnonzero(unsure.flags[:, threshold])
    asking = asking[np.argsort(ranks[asking])]
    xp, place = backend_module(task.comparison.backend), rest_place(task, threshold)
    queries = xp.asarray(unsure.rows[asking])
    found = [no_candidates(unsure.light)]
    for tile in range(first, last):
        stays = load_array(stays_file(place, tile))
        kept, kept_ranks = load_array(rows_file(place, tile))[stays], load_array(_ranks_file(place, tile))[stays]
        best = best_kept(queries, ranks[asking], xp.asarray(kept), kept_ranks)
        goes = np.flatnonzero(best.score >= task.limits[threshold])
        chosen = stays[np.searchsorted(kept_ranks, best.witness[goes])]
        light = read_table(light_file(place, tile)).take(pa.array(chosen))
        found = [best_candidates(task, [*found, candidates_of(light, asking[goes], threshold, best.score[goes])])]
    write_table(_again(task, block, threshold, first), found[0])
    return {}


def find_witnesses(
    task: Removing, names: Sequence[tuple[int, int]], item: tuple[int, tuple[int, ...]]
) -> dict[str, Any]:
    """Write the witness of each row of a block of unsure rows at each threshold; rows without one stay.

    Memory: what ranks two candidates of each row.

    Args:
        names: thresholds, and where the spans begin of the tiles that were looked at.
        item: a block, and the groups that its rows come from.
    """
    block, numbers = item
    best = read_table(scratch_file(task, "near", block))
    for threshold, first in names:
        best = best_candidates(task, [best, read_table(_again(task, block, threshold, first))])
    ids = pa.concat_tables([read_table(scratch_file(task, "light", n), ["id"]) for n in numbers]).column("id")
    columns = {
        "id": ids.take(best.column(ROW)),
        WITNESS: best.column("id"),
        SCORE: best.column(SCORE),
        THRESHOLD: best.column(THRESHOLD),
    }
    write_table(scratch_file(task, "witnesses", block), pa.table(columns))
    return {}
