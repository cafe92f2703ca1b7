"""The removal rule `components` over the whole input, where matches were found across clusters (`exact_up_to`)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.arrays import backend_module, to_host
from semdedup.dedup.compare.lay_out import Each
from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.kernels.exact import exact_scores
from semdedup.dedup.kernels.forest import components
from semdedup.dedup.names import OF_BASE, SCORE
from semdedup.dedup.threshold.everywhere.scratch import (
    WITNESS,
    Group,
    ids_of,
    numbered,
    read_cluster_rows,
    read_scores,
    scratch_file,
    write_dropped,
)
from semdedup.dedup.threshold.groups import Part, Removing, Targets
from semdedup.dedup.threshold.vectors import ranks_of
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.tables import read_table, write_table


def find_components(task: Removing, forest: Sequence[str]) -> dict[str, Any]:
    """Leave the rows that go at the first threshold, with their witness, and the score where an edge tells it.

    Memory: the edges of the forest, about 200 bytes each.

    Returns:
        ``removed`` at each threshold, and whether scores are ``unknown``.
    """
    assert task.forest is not None
    edges = pa.concat_tables(read_table(task.forest.at(url)) for url in forest)
    ends = pa.chunked_array([*edges.column("id_a").chunks, *edges.column("id_b").chunks])
    codes = wide_ids(ends).dictionary_encode()
    numbers, score = codes.indices.to_numpy().astype(np.int64), edges.column(SCORE).to_numpy()
    a, b = numbers[: len(edges)], numbers[len(edges) :]
    n = len(codes.dictionary)
    of_base = np.zeros(n, dtype=bool)
    if OF_BASE in edges.column_names:
        of_base[a[edges.column(OF_BASE).to_numpy()]] = True
    found = [_witnesses(a, b, score >= least, of_base) for least in task.limits]
    removed = [int(np.count_nonzero(witness >= 0)) for witness in found]
    witness = found[0]
    goes = np.flatnonzero(witness >= 0)
    known = np.full(n, np.nan, dtype=np.float32)
    direct = witness[b] == a
    known[b[direct]] = score[direct]
    ids = codes.dictionary
    columns = {"id": ids.take(pa.array(goes)), WITNESS: ids.take(pa.array(witness[goes])), SCORE: known[goes]}
    write_table(scratch_file(task, "components", 0), pa.table(columns))
    return {"removed": removed, "unknown": bool(np.isnan(known[goes]).any())}


def _witnesses(a: np.ndarray, b: np.ndarray, reached: np.ndarray, of_base: np.ndarray) -> np.ndarray:
    """The best-ranked row of the component of each row, (n,) int64; -1 for rows that stay: it, and those of a base.

    Args:
        a, b: (p,) the ends of all edges, in the order of the ranks of `a`, the better ones.
        reached: (p,) truth, which edges reach the threshold.
        of_base: (n,) truth, which rows are of a base.
    """
    n = len(of_base)
    left, right = a[reached], b[reached]
    label = components(left, right, n)
    best = np.full(label.max(initial=-1) + 1, -1)
    best[label[left[::-1]]] = left[::-1]  # the first edge of a component is written last
    witness = best[label]
    witness[(witness == np.arange(n)) | of_base] = -1
    return witness


def gather_rows(task: Removing, group: Group) -> dict[str, Any]:
    """Leave those rows of some clusters whose similarity to a witness, or as a witness, is not known.

    Memory: a cluster at a time, and these rows.
    """
    number, parts = group
    table = read_table(scratch_file(task, "components", 0))
    table = table.filter(pc.is_nan(table.column(SCORE)))
    wanted = pc.unique(pa.chunked_array([*table.column("id").chunks, *table.column(WITNESS).chunks]))
    ids, rows = [pa.array([], wanted.type)], [np.empty((0, task.comparison.dim), dtype=np.float32)]
    for part in parts:
        own = wide_ids(ids_of(task, part))
        inside = own.filter(pc.is_in(own, wanted))
        if len(inside):
            light, every = read_cluster_rows(task, part)
            positions = ranks_of(pa.chunked_array([inside]), wide_ids(light.column("id")))
            ids.append(inside.cast(wanted.type))
            rows.append(every[positions])
    write_table(scratch_file(task, "ids", number), pa.table({"id": pa.chunked_array(ids)}))
    save_array(scratch_file(task, "rows", number, "npy"), np.concatenate(rows))
    return {}


def score_rows_of_group(task: Removing, item: tuple[int, int]) -> dict[str, Any]:
    """Compute the unknown similarities of the rows of a group and their witnesses. Memory: the rows of two groups."""
    number, n_groups = item
    xp = backend_module(task.comparison.backend)
    table = read_table(scratch_file(task, "components", 0))
    own = read_table(scratch_file(task, "ids", number)).column("id")
    asked = table.filter(pc.and_(pc.is_nan(table.column(SCORE)), pc.is_in(table.column("id"), own.combine_chunks())))
    left = ranks_of(asked.column("id"), own.combine_chunks())
    queries = xp.asarray(load_array(scratch_file(task, "rows", number, "npy")))
    score = np.full(len(asked), np.nan, dtype=np.float32)
    for other in range(n_groups) if len(asked) else ():
        ids = read_table(scratch_file(task, "ids", other)).column("id").combine_chunks()
        right = ranks_of(asked.column(WITNESS), ids)
        here = np.flatnonzero(right >= 0)
        if len(here):
            others = xp.asarray(load_array(scratch_file(task, "rows", other, "npy")))
            score[here] = to_host(exact_scores(queries, others, xp.asarray(left[here]), xp.asarray(right[here])))
    found = pa.table({"id": asked.column("id"), WITNESS: asked.column(WITNESS), SCORE: score})
    write_table(scratch_file(task, "similar", number), found)
    return {}


def write_components(task: Removing, targets: Targets, unknown: bool, group: Group) -> dict[str, Any]:
    """Write the ids to drop of some clusters and their witnesses. Memory: all rows that go, about 200 bytes each."""
    number, parts = group
    table = read_table(scratch_file(task, "components", 0))
    scores = [read_scores(task, part).column("id") for part in parts]
    own = wide_ids(pa.chunked_array([chunk for column in scores for chunk in column.chunks]))
    mine = table.filter(pc.is_in(table.column("id"), own))
    if unknown:
        known = mine.filter(pc.invert(pc.is_nan(mine.column(SCORE))))
        mine = pa.concat_tables([known, read_table(scratch_file(task, "similar", number))])
    write_dropped(task, targets, group, mine)
    return {"rows": len(own), "removed": [len(mine)] + [0] * (len(task.limits) - 1)}


def remove_components_everywhere(
    task: Removing,
    targets: Targets,
    groups: Sequence[Sequence[Part]],
    base: Sequence[Sequence[Part]],
    each: Each,
) -> list[dict[str, Any]]:
    """The rule `components` over the whole input; for each group of clusters its rows, and those removed."""
    assert task.forest is not None
    every = numbered([*groups, *base])
    own = every[: len(groups)]
    forest = tuple(file.url for file in task.forest.files())
    (found,) = each("components", partial(find_components, task), [forest])
    if found["unknown"]:
        each("gather rows", partial(gather_rows, task), every)
        pairs = [(number, len(every)) for number, _ in own]
        each("compare with witnesses", partial(score_rows_of_group, task), pairs)
    results = each("threshold", partial(write_components, task, targets, found["unknown"]), own)
    return [*results, {"rows": 0, "removed": [0, *found["removed"][1:]]}]
