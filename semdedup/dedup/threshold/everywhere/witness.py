"""The removal rule `witness` over the whole input, where matches were found across clusters (`exact_up_to`).

As within one cluster: a row without a better-ranked match stays, and a row whose best match stays goes for its sake.
The others, the *unsure* rows, are gathered from the clusters and looked at again: first against all rows that stay,
cluster by cluster; those that match none are then taken in rank order among themselves; and the ones of these that
stay are compared with all unsure rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.arrays import backend_module, to_host
from semdedup.dedup.compare.lay_out import Each
from semdedup.dedup.compare.spans import cut_evenly, tiles_per_task
from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.input.rows import low_information_mask
from semdedup.dedup.kernels.bounds import short_rows
from semdedup.dedup.kernels.join import Join, Side, centroids_of
from semdedup.dedup.names import SCORE
from semdedup.dedup.sizes import pack
from semdedup.dedup.threshold.everywhere.rest import (
    THRESHOLD,
    best_candidates,
    candidates_of,
    find_witnesses,
    look_at_settled,
    merge_near,
    no_candidates,
    rank_rest,
    settle_rest,
)
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
from semdedup.storage.arrays import load_array
from semdedup.storage.tables import count_rows, read_table, write_table

ROWS_TOGETHER = 1 << 15
"""Rows of clusters that unsure rows are compared with at a time: what is computed of these is computed as often."""


def look_at_staying(task: Removing, item: tuple[int, tuple[int, ...], tuple[Group, ...]]) -> dict[str, Any]:
    """Find for some unsure rows, in some clusters, the nearest row that stays because it has no better-ranked match.

    Of two rows that match the worse-ranked has a better-ranked match; so one without ranks better than all its matches.

    Memory: the unsure rows, `ROWS_TOGETHER` rows of clusters or a larger cluster, twice.
    """
    block, numbers, groups = item
    xp = backend_module(task.comparison.backend)
    unsure, axes = load_unsure(task, numbers), xp.asarray(load_array(scratch_file(task, "axes", 0, "npy")))
    queries = xp.asarray(unsure.rows)
    left = Side(queries, short_rows(queries, axes), unsure.starts, unsure.centroids)
    found = [no_candidates(unsure.light)]
    for staying in _rows_that_stay(task, [part for _, parts in groups for part in parts]):
        candidates = xp.asarray(staying.rows)
        right = Side(candidates, short_rows(candidates, axes), staying.starts, staying.centroids)
        for pairs in Join(left, right, min(task.limits)).pairs():
            query, row, value = map(to_host, pairs)
            for threshold, least in enumerate(task.limits):
                chosen = (value >= least) & (staying.score[row] < least) & unsure.flags[query, threshold]
                light = staying.light.take(pa.array(row[chosen]))
                found.append(candidates_of(light, query[chosen], threshold, value[chosen]))
        found = [best_candidates(task, found)]
    write_table(scratch_file(task, f"near-{block}", groups[0][0]), found[0])
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


def write_everywhere(task: Removing, targets: Targets, item: tuple[Group, int]) -> dict[str, Any]:
    """Write the ids to drop of some clusters and their witnesses. Memory: their ids, and those of a block.

    Args:
        item: the clusters, and the block that has their unsure rows.

    Returns:
        ``rows``, and ``removed`` for each threshold.
    """
    group, block = item
    number, parts = group
    reached, unsure = (
        read_table(scratch_file(task, "reached", number)),
        load_array(scratch_file(task, "unsure", number, "npy")),
    )
    again = [read_table(scratch_file(task, "witnesses", block))] if unsure.any() else []
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
        _look(task, blocks, every, rows_per_task, each)
    block_of = {number: block for block, numbers in enumerate(blocks) for number in numbers}
    last = [(group, block_of.get(group[0], -1)) for group in own]
    results = each("threshold", partial(write_everywhere, task, targets), last)
    if sum(result["rows"] for result in results) != sum(result["rows"] for result in reached):
        raise IntegrityError("tables of scores changed while the removal rule was applied")
    return results


def _look(
    task: Removing, blocks: Sequence[tuple[int, ...]], every: Sequence[Group], rows_per_task: int, each: Each
) -> None:
    """Leave the witness of each unsure row of all blocks."""
    spans = list(cut_evenly(len(every), tiles_per_task(rows_per_task, task.comparison.dim)))
    items = [(block, numbers, tuple(every[a:b])) for block, numbers in enumerate(blocks) for a, b in spans]
    each("look at spans of clusters", partial(look_at_staying, task), items)
    near = [(block, tuple(first for first, _ in spans)) for block in range(len(blocks))]
    each("merge looks", partial(merge_near, task), near)
    (found,) = each("rank the rest", partial(rank_rest, task, rows_per_task), [tuple(blocks)])
    rests = settle_rest(each, task, blocks, found["rest"], rows_per_task)
    most = tiles_per_task(rows_per_task, task.comparison.dim)
    again = [(t, span) for t, tiles in rests for span in cut_evenly(len(tiles), most)]
    looks = [(block, numbers, t, span) for block, numbers in enumerate(blocks) for t, span in again]
    each("look at spans of settled rows", partial(look_at_settled, task), looks)
    names = tuple((t, first) for t, (first, _) in again)
    each(
        "find witnesses",
        partial(find_witnesses, task, names),
        [(block, numbers) for block, numbers in enumerate(blocks)],
    )


def unwitnessed_everywhere(task: Removing, n_groups: int) -> int:
    """After `remove_everywhere`: how many rows reach the first threshold and match none that does not.

    Args:
        task: as for it.
        n_groups: of clusters.
    """
    unsure = [load_array(scratch_file(task, "unsure", number, "npy"))[:, 0] for number in range(n_groups)]
    count, block = sum(int(flags.sum()) for flags in unsure), 0
    while scratch_file(task, "near", block).exists():
        near = read_table(scratch_file(task, "near", block))
        count, block = count - int(np.count_nonzero(near.column(THRESHOLD).to_numpy() == 0)), block + 1
    return count
