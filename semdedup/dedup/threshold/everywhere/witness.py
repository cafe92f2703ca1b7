"""The removal rule `witness` over the whole input, where matches were found across clusters (`exact_up_to`).

As within one cluster: a row without a better-ranked match stays, and a row whose best match stays goes for its sake.
The others, the *unsure* rows, are gathered from the clusters and looked at again: first against all rows that stay,
cluster by cluster; those that match none are then taken in rank order among themselves; and the ones of these that
stay are compared with all unsure rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.arrays import backend_module, to_host
from semdedup.dedup.compare.lay_out import Each
from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.input.rows import low_information_mask
from semdedup.dedup.kernels.bounds import short_rows
from semdedup.dedup.kernels.greedy import Witnesses, best_kept, better_witness, stays_in_rank_order
from semdedup.dedup.kernels.join import Join, Side, centroids_of
from semdedup.dedup.names import SCORE
from semdedup.dedup.ranking import ranks_of_rows
from semdedup.dedup.sizes import pack
from semdedup.dedup.threshold.everywhere.scratch import (
    WITNESS,
    Group,
    numbered,
    read_cluster_rows,
    read_scores,
    scratch_file,
    write_dropped,
)
from semdedup.dedup.threshold.everywhere.unsure import (
    find_reached,
    find_unsure,
    fit_axes,
    gather_unsure,
    load_unsure,
)
from semdedup.dedup.threshold.groups import Part, Removing, Targets
from semdedup.dedup.threshold.vectors import ranks_of
from semdedup.errors import InputError, IntegrityError
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.tables import count_rows, read_table, write_table

ROW, THRESHOLD = "row", "threshold"

ROWS_TOGETHER = 1 << 15
"""Rows of clusters that unsure rows are compared with at a time: what is computed of these is computed as often."""


def look_at_staying(task: Removing, item: tuple[int, tuple[int, ...], Group]) -> dict[str, Any]:
    """Find for some unsure rows, in some clusters, the nearest row that stays because it has no better-ranked match.

    Of two rows that match the worse-ranked has a better-ranked match; so one without ranks better than all its matches.

    Memory: the unsure rows, `ROWS_TOGETHER` rows of clusters or a larger cluster, twice.
    """
    block, numbers, (number, parts) = item
    xp = backend_module(task.comparison.backend)
    unsure, axes = load_unsure(task, numbers), xp.asarray(load_array(scratch_file(task, "axes", 0, "npy")))
    queries = xp.asarray(unsure.rows)
    left = Side(queries, short_rows(queries, axes), unsure.starts, unsure.centroids)
    found = [_no_candidates(unsure.light)]
    for staying in _rows_that_stay(task, parts):
        candidates = xp.asarray(staying.rows)
        right = Side(candidates, short_rows(candidates, axes), staying.starts, staying.centroids)
        for pairs in Join(left, right, min(task.limits)).pairs():
            query, row, value = map(to_host, pairs)
            for threshold, least in enumerate(task.limits):
                chosen = (value >= least) & (staying.score[row] < least) & unsure.flags[query, threshold]
                light = staying.light.take(pa.array(row[chosen]))
                found.append(_candidates(light, query[chosen], threshold, value[chosen]))
    together = pa.concat_tables(found, promote_options="permissive")
    write_table(scratch_file(task, f"near-{block}", number), _best(task, together))
    return {}


class Staying(NamedTuple):
    """Rows of some clusters that stay at one of the thresholds at least: what ranks them, their scores, the rows, where
    those of each cluster begin, and the means of the clusters."""

    light: pa.Table
    score: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    centroids: np.ndarray


def _rows_that_stay(task: Removing, parts: Sequence[Part]) -> Iterator[Staying]:
    """The rows that have no better-ranked match, of about `ROWS_TOGETHER` rows at a time."""
    held: list[tuple[pa.Table, np.ndarray, np.ndarray, np.ndarray]] = []

    def together() -> Staying:
        lights, scores, rows, centroids = zip(*held, strict=True)
        light = pa.concat_tables(lights, promote_options="permissive")
        starts = np.cumsum([0, *map(len, rows)])
        return Staying(light, np.concatenate(scores), np.concatenate(rows), starts, np.concatenate(centroids))

    for part in parts:
        light, rows = read_cluster_rows(task, part)
        score = _score_of_rows(task, part, light)
        low = low_information_mask(light)
        stays = score < max(task.limits) if low is None else (score < max(task.limits)) & ~low
        if stays.any():
            centroid = centroids_of([rows], task.comparison.dim)
            held.append((light.filter(pa.array(stays)), score[stays], rows[stays], centroid))
        if sum(len(each[1]) for each in held) >= ROWS_TOGETHER:
            yield together()
            held = []
    if held:
        yield together()


def _score_of_rows(task: Removing, part: Part, light: pa.Table) -> np.ndarray:
    """The score of each row of a cluster as its files have them, (n,) float32."""
    if not part.scores:
        return np.zeros(len(light), dtype=np.float32)  # rows of a base stay
    scores = read_scores(task, part)
    places = ranks_of(light.column("id"), wide_ids(scores.column("id")))
    if len(light) != len(scores) or (places < 0).any():
        raise InputError(
            f"the rows of centroid={part.cluster.label} in {task.comparison.clusters} are not those of the scores of "
            f"cluster {part.cluster.label}: these are not the clusters that the scores were made of"
        )
    return scores.column(SCORE).to_numpy()[places]


def _no_candidates(light: pa.Table) -> pa.Table:
    """A table as `_candidates` gives it, without rows."""
    return _candidates(light.slice(0, 0), np.empty(0, np.int64), 0, np.empty(0, np.float32))


def _candidates(light: pa.Table, rows: np.ndarray, threshold: int, score: np.ndarray) -> pa.Table:
    """Rows that stay, (p,), each with the unsure row that it matches at a threshold, and their score."""
    table = light.append_column(ROW, pa.array(rows, pa.int64()))
    return table.append_column(THRESHOLD, pa.array(np.full(len(rows), threshold))).append_column(SCORE, pa.array(score))


def _best(task: Removing, candidates: pa.Table) -> pa.Table:
    """For each unsure row and threshold the candidate of the highest score, of equal ones the best-ranked."""
    row, threshold = candidates.column(ROW).to_numpy(), candidates.column(THRESHOLD).to_numpy()
    keys = row * len(task.limits) + threshold
    ranks = ranks_of_rows(candidates, task.comparison.strategy)
    order = np.lexsort((ranks, -candidates.column(SCORE).to_numpy(), keys))
    return candidates.take(pa.array(order[np.append(True, keys[order][1:] != keys[order][:-1])[: len(order)]]))


@dataclass(frozen=True)
class Looks:
    """How the second look is cut into tasks.

    Attributes:
        groups: all clusters, those of a base among them.
        blocks: for each block of unsure rows the groups that they come from.
        rows_per_tile: most rows of a tile of those that are taken in rank order.
    """

    groups: tuple[Group, ...]
    blocks: tuple[tuple[int, ...], ...]
    rows_per_tile: int


def settle(task: Removing, looks: Looks) -> dict[str, Any]:
    """Take the unsure rows that match none of the rows that stay in rank order, tile by tile, at each threshold.

    Memory: what ranks all unsure rows, and the rows of two tiles.

    Returns:
        ``tiles``: for each threshold how many tiles of rows that stay there are.
    """
    lights = [[read_table(scratch_file(task, "light", n)) for n in numbers] for numbers in looks.blocks]
    light = pa.concat_tables(chain.from_iterable(lights), promote_options="permissive")
    ranks = ranks_of_rows(light, task.comparison.strategy)
    flags = np.concatenate(
        [load_array(scratch_file(task, "flags", n, "npy")) for numbers in looks.blocks for n in numbers]
    )
    sizes = [sum(map(len, tables)) for tables in lights]
    for block, start in enumerate(np.cumsum([0, *sizes])[:-1]):
        save_array(scratch_file(task, "ranks", block, "npy"), ranks[start : start + sizes[block]])
        near = _near(task, looks, block)
        flags[start + near.column(ROW).to_numpy(), near.column(THRESHOLD).to_numpy()] = False
    tiles = []
    for threshold, least in enumerate(task.limits):
        rest = np.flatnonzero(flags[:, threshold])
        rest = rest[np.argsort(ranks[rest])]
        number = 0
        for start in range(0, len(rest), looks.rows_per_tile):
            chosen = rest[start : start + looks.rows_per_tile]
            rows = _rows_at(task, looks, sizes, chosen)
            for before in range(number):
                kept = load_array(scratch_file(task, f"kept-{threshold}", before, "npy"))
                found = best_kept(rows, np.full(len(rows), len(kept)), kept, np.arange(len(kept)))
                rows, chosen = rows[found.score < least], chosen[found.score < least]
            stays = stays_in_rank_order(backend_module(task.comparison.backend).asarray(rows), least)
            save_array(scratch_file(task, f"kept-{threshold}", number, "npy"), rows[stays])
            save_array(scratch_file(task, f"kept-ranks-{threshold}", number, "npy"), ranks[chosen[stays]])
            write_table(scratch_file(task, f"kept-light-{threshold}", number), light.take(pa.array(chosen[stays])))
            number += 1
        tiles.append(number)
    return {"tiles": tiles}


def _near(task: Removing, looks: Looks, block: int) -> pa.Table:
    """What all groups of clusters found for a block of unsure rows."""
    found = [read_table(scratch_file(task, f"near-{block}", number)) for number, _ in looks.groups]
    return _best(task, pa.concat_tables(found, promote_options="permissive"))


def _rows_at(task: Removing, looks: Looks, sizes: Sequence[int], positions: np.ndarray) -> np.ndarray:
    """Rows at positions among all unsure rows, (p, d), a block at a time."""
    rows = np.empty((len(positions), task.comparison.dim), dtype=np.float32)
    start = 0
    for size, numbers in zip(sizes, looks.blocks, strict=True):
        inside = np.flatnonzero((positions >= start) & (positions < start + size))
        if len(inside):
            rows[inside] = load_unsure(task, numbers).rows[positions[inside] - start]
        start += size
    return rows


def look_at_settled(task: Removing, item: tuple[Looks, tuple[int, ...], int]) -> dict[str, Any]:
    """Find the witness of each row of a block of unsure rows at each threshold; rows without one stay.

    Memory: the block, and a tile of rows that stay.
    """
    looks, tiles, block = item
    unsure = load_unsure(task, looks.blocks[block])
    ranks = load_array(scratch_file(task, "ranks", block, "npy"))
    found = [_near(task, looks, block)]
    for threshold, least in enumerate(task.limits):
        asking = np.flatnonzero(unsure.flags[:, threshold])
        asking = asking[np.argsort(ranks[asking])]
        queries = backend_module(task.comparison.backend).asarray(unsure.rows[asking])
        best, lights = Witnesses.none(len(asking)), [unsure.light.slice(0, 0)]
        every_rank = [np.empty(0, np.int64)]
        for tile in range(tiles[threshold]):
            kept_ranks = load_array(scratch_file(task, f"kept-ranks-{threshold}", tile, "npy"))
            kept = backend_module(task.comparison.backend).asarray(
                load_array(scratch_file(task, f"kept-{threshold}", tile, "npy"))
            )
            best = better_witness(best, best_kept(queries, ranks[asking], kept, kept_ranks))
            lights.append(read_table(scratch_file(task, f"kept-light-{threshold}", tile)))
            every_rank.append(kept_ranks)
        goes = np.flatnonzero(best.score >= least)
        place = np.searchsorted(np.concatenate(every_rank), best.witness[goes])
        witnesses = pa.concat_tables(lights, promote_options="permissive").take(pa.array(place))
        found.append(_candidates(witnesses, asking[goes], threshold, best.score[goes]))
    chosen = _best(task, pa.concat_tables(found, promote_options="permissive"))
    ids = unsure.light.column("id").take(chosen.column(ROW))
    columns = {
        "id": ids,
        WITNESS: chosen.column("id"),
        SCORE: chosen.column(SCORE),
        THRESHOLD: chosen.column(THRESHOLD),
    }
    write_table(scratch_file(task, "witnesses", block), pa.table(columns))
    return {}


def write_everywhere(task: Removing, targets: Targets, n_blocks: int, group: Group) -> dict[str, Any]:
    """Write the ids to drop of some clusters and their witnesses. Memory: their ids, and those of all unsure rows.

    Returns:
        ``rows``, and ``removed`` for each threshold.
    """
    number, parts = group
    reached, unsure = (
        read_table(scratch_file(task, "reached", number)),
        load_array(scratch_file(task, "unsure", number, "npy")),
    )
    again = [read_table(scratch_file(task, "witnesses", block)) for block in range(n_blocks)] if unsure.any() else []
    removed, dropped = [], None
    for threshold, least in enumerate(task.limits):
        sure = (reached.column(SCORE).to_numpy() >= least) & ~unsure[:, threshold]
        direct = reached.filter(pa.array(sure)).rename_columns(["id", WITNESS, SCORE])
        asked = reached.column("id").filter(pa.array(unsure[:, threshold])).combine_chunks()
        others = [
            table.filter(pc.and_(pc.equal(table.column(THRESHOLD), threshold), pc.is_in(table.column("id"), asked)))
            for table in again
        ]
        goes = pa.concat_tables([direct, *(table.drop_columns(THRESHOLD) for table in others)])
        removed.append(len(goes))
        dropped = goes if dropped is None else dropped
    assert dropped is not None
    write_dropped(task, targets, group, dropped)
    return {"rows": sum(count_rows(task.scores.at(part.scores)) for part in parts), "removed": removed}


def remove_everywhere(
    task: Removing,
    targets: Targets,
    groups: Sequence[Sequence[Part]],
    base: Sequence[Sequence[Part]],
    rows_per_task: int,
    each: Each,
) -> list[dict[str, Any]]:
    """The rule `witness` over the whole input; for each group of clusters its rows, and those removed."""
    every = numbered([*groups, *base])
    own = every[: len(groups)]
    reached = each("scores", partial(find_reached, task), own)
    (found,) = each("unsure rows", partial(find_unsure, task), [tuple(result["reached"] for result in reached)])
    some = [number for number, count in enumerate(found["unsure"]) if count]
    blocks: list[tuple[int, ...]] = []
    if some:
        each("gather unsure rows", partial(gather_unsure, task), [own[number] for number in some])
        each("principal axes", partial(fit_axes, task), [tuple(some)])
        blocks = pack([(number, found["unsure"][number]) for number in some], rows_per_task)
        looks = Looks(every, tuple(blocks), rows_per_task)
        items = [(block, numbers, group) for block, numbers in enumerate(blocks) for group in every]
        each("look at rows that stay", partial(look_at_staying, task), items)
        (settled,) = each("settle", partial(settle, task), [looks])
        last = [(looks, tuple(settled["tiles"]), block) for block in range(len(blocks))]
        each("look at settled rows", partial(look_at_settled, task), last)
    results = each("threshold", partial(write_everywhere, task, targets, len(blocks)), own)
    if sum(result["rows"] for result in results) != sum(result["rows"] for result in reached):
        raise IntegrityError("tables of scores changed while the removal rule was applied")
    return results


def unwitnessed_everywhere(task: Removing, n_groups: int, n_base: int) -> int:
    """After `remove_everywhere`: how many rows reach the first threshold and match none that does not.

    Args:
        task: as for it.
        n_groups: of clusters.
        n_base: of clusters of a base.
    """
    unsure = [load_array(scratch_file(task, "unsure", number, "npy"))[:, 0] for number in range(n_groups)]
    count, block = sum(int(flags.sum()) for flags in unsure), 0
    while scratch_file(task, f"near-{block}", 0).exists():
        near = [read_table(scratch_file(task, f"near-{block}", number)) for number in range(n_groups + n_base)]
        rows = [table.column(ROW).filter(pc.equal(table.column(THRESHOLD), 0)).to_numpy() for table in near]
        count, block = count - len(np.unique(np.concatenate(rows))), block + 1
    return count
