"""The unsure rows: those whose best match may go itself. Scores tell of them; they are gathered from the clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.kernels.bounds import principal_axes, short_width
from semdedup.dedup.kernels.join import centroids_of
from semdedup.dedup.names import SCORE
from semdedup.dedup.threshold.everywhere.scratch import Group, ids_of, read_cluster_rows, read_scores, scratch_file
from semdedup.dedup.threshold.groups import Removing
from semdedup.dedup.threshold.vectors import ranks_of
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.tables import read_table, write_table

ROWS_SAMPLED = 1 << 13
"""Unsure rows that the principal axes are taken from."""


def find_reached(task: Removing, group: Group) -> dict[str, Any]:
    """Leave the rows of some clusters whose score reaches a threshold. Memory: their scores.

    Returns:
        ``rows`` of the clusters, and ``reached``, how many are left.
    """
    number, parts = group
    least, n_rows, found = min(task.limits), 0, []
    for part in parts:
        scores = read_scores(task, part)
        n_rows += len(scores)
        found.append(scores.filter(pc.greater_equal(scores.column(SCORE), pa.scalar(least, pa.float32()))))
    reached = pa.concat_tables(found)
    write_table(scratch_file(task, "reached", number), reached)
    return {"rows": n_rows, "reached": len(reached)}


def find_unsure(task: Removing, counts: Sequence[int]) -> dict[str, Any]:
    """Tell of all rows that reach a threshold at which of them their best match reaches it, too.

    Memory: ids, match and score of all rows that reach the lowest threshold, about 200 bytes each.

    Returns:
        ``unsure``: how many there are in each group of clusters.
    """
    reached = pa.concat_tables(read_table(scratch_file(task, "reached", number)) for number in range(len(counts)))
    score = reached.column(SCORE).to_numpy()
    match = ranks_of(reached.column("max_id"), wide_ids(reached.column("id")))
    match_score = np.where(match < 0, np.float32(-1), score[match])
    unsure = np.stack([(score >= least) & (match_score >= least) for least in task.limits], axis=1)
    ends = np.cumsum([0, *counts])
    for number, count in enumerate(counts):
        save_array(scratch_file(task, "unsure", number, "npy"), unsure[ends[number] : ends[number] + count])
    return {"unsure": [int(part.any(axis=1).sum()) for part in np.split(unsure, ends[1:-1])]}


def gather_unsure(task: Removing, group: Group) -> dict[str, Any]:
    """Leave the unsure rows of some clusters, and what ranks them. Memory: a cluster at a time, and these rows."""
    number, parts = group
    reached = read_table(scratch_file(task, "reached", number))
    flags = load_array(scratch_file(task, "unsure", number, "npy"))
    some = flags.any(axis=1)
    wanted, flags = wide_ids(reached.column("id").filter(pa.array(some))), flags[some]
    lights, rows, order, starts, centroids = [], [], [], [0], []
    for part in parts:
        inside = np.flatnonzero(pc.is_in(wanted, ids_of(task, part)))
        if not len(inside):
            continue
        light, every = read_cluster_rows(task, part)
        positions = ranks_of(pa.chunked_array([wanted.take(pa.array(inside))]), wide_ids(light.column("id")))
        lights.append(light.take(pa.array(positions)))
        rows.append(every[positions])
        order.append(inside)
        starts.append(starts[-1] + len(inside))
        centroids.append(centroids_of([every], task.comparison.dim))
    write_table(scratch_file(task, "light", number), pa.concat_tables(lights, promote_options="permissive"))
    save_array(scratch_file(task, "rows", number, "npy"), np.concatenate(rows))
    save_array(scratch_file(task, "flags", number, "npy"), flags[np.concatenate(order)])
    save_array(scratch_file(task, "starts", number, "npy"), np.array(starts))
    save_array(scratch_file(task, "centroids", number, "npy"), np.concatenate(centroids))
    return {"rows": starts[-1]}


class Unsure(NamedTuple):
    """The unsure rows of some groups of clusters: what ranks them, whether they are unsure at each threshold, and the
    rows as one side of a join."""

    light: pa.Table
    flags: np.ndarray
    rows: np.ndarray
    starts: np.ndarray
    centroids: np.ndarray


def load_unsure(task: Removing, numbers: Sequence[int]) -> Unsure:
    """Read what `gather_unsure` left for some groups."""
    light = pa.concat_tables(
        (read_table(scratch_file(task, "light", n)) for n in numbers), promote_options="permissive"
    )
    flags, rows, centroids = (
        np.concatenate([load_array(scratch_file(task, what, n, "npy")) for n in numbers])
        for what in ("flags", "rows", "centroids")
    )
    starts, every = [np.zeros(1, dtype=np.int64)], 0
    for n in numbers:
        found = load_array(scratch_file(task, "starts", n, "npy"))
        starts.append(found[1:] + every)
        every += int(found[-1])
    return Unsure(light, flags, rows, np.concatenate(starts), centroids)


def fit_axes(task: Removing, numbers: Sequence[int]) -> dict[str, Any]:
    """Take the principal axes of a sample of the unsure rows. Memory: those of a group, and the sample."""
    each = max(1, ROWS_SAMPLED // len(numbers))
    sample = np.concatenate([load_array(scratch_file(task, "rows", number, "npy"))[:each] for number in numbers])
    dim = task.comparison.dim
    width = short_width(dim, max(task.thresholds)) or dim + 1
    save_array(scratch_file(task, "axes", 0, "npy"), principal_axes(sample, width - 1))
    return {}
