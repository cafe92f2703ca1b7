"""The rule `components`: of the rows that matches connect the best-ranked stays, the witness of the others.

Which rows are connected the forests tell that the comparison wrote, up to the eps that they were written for; beyond it
clusters are compared again. The similarity of a row and its witness is that of an edge, or the score of the row, where
these two are meant; else the rows are read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import array_module, backend_module, to_host
from semdedup.dedup.compare.edges import FOREST, load_edges
from semdedup.dedup.compare.groups import Cluster
from semdedup.dedup.compare.lay_out import Each, Listed, rows_file
from semdedup.dedup.compare.scored import score_new_rows
from semdedup.dedup.compare.spans import Span, Tiles, tile_spans
from semdedup.dedup.compare.tiles import compare_tiles
from semdedup.dedup.kernels.exact import exact_scores
from semdedup.dedup.kernels.forest import components
from semdedup.dedup.kernels.greedy import Witnesses
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.names import SCORE
from semdedup.dedup.threshold.groups import Part, Removing, Targets, write_group
from semdedup.dedup.threshold.large import lay_out_scored
from semdedup.dedup.threshold.vectors import Ranked, place_scored, ranks_of
from semdedup.storage.arrays import load_array, load_columns, load_rows, save_array, save_columns
from semdedup.storage.tables import read_table

Group = tuple[tuple[Part, ...], str]
"""Some clusters, and the URL of the forest of their matches; empty where they are compared again."""


def groups_of_forests(
    clusters: Sequence[Cluster], labels: Sequence[int], together: Sequence[Sequence[int]] = ()
) -> list[tuple[Cluster, ...]]:
    """Which clusters each forest is about, the one that names the forest first.

    Clusters that were scored as they were written share a forest with those of their task, which is on record. The
    comparison packs the others in the order of their size, and names a forest by the first of them.

    Args:
        clusters: all of them.
        labels: of the forests.
        together: the clusters of each forest that is on record.
    """
    named, known, groups = set(labels), {cluster.label: cluster for cluster in clusters}, list[list[Cluster]]()
    for group in together:
        first_named = sorted((label for label in group if label in known), key=lambda label: label not in named)
        groups += [[known.pop(label) for label in first_named]] * bool(first_named)
    n_recorded = len(groups)
    for cluster in sorted(known.values(), key=lambda one: (-one.n_rows, one.label)):
        if cluster.label in named or len(groups) == n_recorded:
            groups.append([])
        groups[-1].append(cluster)
    return [tuple(group) for group in groups]


def best_of_components(edges: Pairs, n: int, least: np.float32, n_base: int = 0) -> np.ndarray:
    """The best-ranked row of the component of each of n ranked rows, (n,) int64; -1 for a row that stays: that one
    itself, and rows of a base.

    Args:
        edges: a maximum spanning forest of the matches, by rank.
        n: how many rows there are.
        least: the least score of a match.
        n_base: how many of them, the first, are of a base.
    """
    reached = edges.score >= least
    label = components(edges.left[reached], edges.right[reached], n)
    _, first = np.unique(label, return_index=True)
    stays = (first[label] == np.arange(n)) | (np.arange(n) < n_base)
    return np.where(stays, -1, first[label])


def known_scores(edges: Pairs, ranked: Ranked, witness: np.ndarray) -> np.ndarray:
    """The similarity of each row that goes to its witness, (n,) float32: an edge or its score; NaN where unknown."""
    score = np.where(witness < 0, np.float32(0), np.float32(np.nan))
    own = (witness >= 0) & (ranked.match == witness)
    score[own] = ranked.score[own]
    direct = witness[edges.right] == edges.left
    score[edges.right[direct]] = edges.score[direct]
    return score


def edges_of(task: Removing, parts: Sequence[tuple[Part, Ranked]], forest: str) -> Iterator[Pairs]:
    """The edges among the rows of each of some clusters, by rank, from the forest of all of them."""
    assert task.forest is not None
    table = read_table(task.forest.at(forest))
    ids = pa.chunked_array([ranked.ids for _, ranked in parts]).combine_chunks()
    ends = [ranks_of(table.column(name), ids) for name in ("id_a", "id_b")]
    score = table.column(SCORE).to_numpy()
    start = 0
    for _, ranked in parts:
        stop = start + len(ranked.ids)
        own = (ends[0] >= start) & (ends[0] < stop)
        yield Pairs(ends[0][own] - start, ends[1][own] - start, score[own])
        start = stop


def components_of(task: Removing, group: Group) -> Iterator[tuple[Part, Ranked, list[Witnesses]]]:
    """The rows of some clusters, and which of them go by the rule ``components``, for each threshold.

    Memory: the ids, scores and edges of the group; twice the rows of a cluster that is read; of a large one the ids.
    """
    parts, forest = group
    read = [(part, task.read(part)) for part in parts]
    every = edges_of(task, read, forest) if forest else (None for _ in read)
    for (part, ranked), edges in zip(read, every, strict=True):
        if part.large:
            yield part, ranked, _of_large(task, part, ranked, edges)
        else:
            yield part, ranked, _of_small(task, part, ranked, edges)


def _of_small(task: Removing, part: Part, ranked: Ranked, edges: Pairs | None) -> list[Witnesses]:
    least = task.limits
    rows = None
    if edges is None:
        rows, informs = task.rows(part, ranked)
        limits = task.comparison.limits._replace(least=min(least))
        edges = score_new_rows(rows, ~informs, ranked.n_base, limits).forest
    best = [best_of_components(edges, len(ranked.ids), limit, ranked.n_base) for limit in least]
    score = known_scores(edges, ranked, best[0])
    unknown = np.flatnonzero(np.isnan(score))
    if len(unknown):
        rows = task.rows(part, ranked)[0] if rows is None else rows
        on_device = array_module(rows).asarray
        score[unknown] = to_host(exact_scores(rows, rows, on_device(unknown), on_device(best[0][unknown])))
    return _with_scores(best, score)


def _with_scores(best: Sequence[np.ndarray], score: np.ndarray) -> list[Witnesses]:
    return [Witnesses(witness, score if number == 0 else np.zeros(0)) for number, witness in enumerate(best)]


def remove_components(task: Removing, targets: Targets, item: tuple[int, Group]) -> dict[str, Any]:
    """The rule ``components`` for the clusters of a group; see `write_group`. Memory: see `components_of`."""
    position, group = item
    return write_group(targets, position, components_of(task, group))


def _of_large(task: Removing, part: Part, ranked: Ranked, edges: Pairs | None) -> list[Witnesses]:
    """From what `look_at_large_components` left."""
    place = task.place(part.cluster.label)
    edges = load_edges(place / FOREST) if edges is None else edges
    best = [best_of_components(edges, len(ranked.ids), least, ranked.n_base) for least in task.limits]
    score = known_scores(edges, ranked, best[0])
    unknown = np.flatnonzero(np.isnan(score))
    similar = place / "similar"
    for file in similar.files() if len(unknown) else ():
        found = load_columns(similar.at(file.url))
        score[found["row"]] = found["score"]
    return _with_scores(best, score)


def _prepare(task: Removing, part: Part) -> dict[str, Any]:
    """How many rows a large cluster has scores of."""
    ranked = task.read(part)
    return {"rows": len(ranked.ids), "base": ranked.n_base}


def _place(task: Removing, item: tuple[Part, Listed, Tiles]) -> dict[str, Any]:
    """Find the rows of a large cluster in its files. Memory: its scores, and its ids as they are in the files."""
    part, listed, tiles = item
    place_scored(task.comparison, task.place(tiles.label), task.read(part).ids, listed, tiles)
    return {}


def _name_unknown(task: Removing, group: Group) -> dict[str, Any]:
    """Leave for the tiles of a large cluster the witnesses of rows whose similarity nothing tells, -1 for others."""
    ((part,), forest) = group
    ranked = task.read(part)
    place, n = task.place(part.cluster.label), len(ranked.ids)
    edges = next(edges_of(task, [(part, ranked)], forest)) if forest else load_edges(place / FOREST)
    best = best_of_components(edges, n, task.limits[0], ranked.n_base)
    save_array(place / "unknown.npy", np.where(np.isnan(known_scores(edges, ranked, best)), best, -1))
    return {}


def _score_span(task: Removing, span: Span) -> dict[str, Any]:
    """Compute the similarity of rows of a tile and their witnesses in the tiles of a span, where it is not known.

    Memory: two tiles.
    """
    tiles, number = span.tiles, span.number
    place, xp = task.place(tiles.label), backend_module(task.comparison.backend)
    own, last = tiles[number], tiles[span.last - 1]
    witness = load_rows(place / "unknown.npy", own.start, own.stop)
    if not ((witness >= tiles[span.first].start) & (witness < last.stop)).any():
        return {}
    rows = xp.asarray(load_array(rows_file(place, number)))
    ranks, scores = [], []
    for other in tiles[span.first : span.last]:
        wanted = np.flatnonzero((witness >= other.start) & (witness < other.stop))
        if len(wanted):
            others = xp.asarray(load_array(rows_file(place, other.number)))
            ends = xp.asarray(wanted), xp.asarray(witness[wanted] - other.start)
            ranks.append(wanted + own.start)
            scores.append(to_host(exact_scores(rows, others, *ends)))
    similar = place / "similar" / f"{number}-{span.first}.npy"
    save_columns(similar, row=np.concatenate(ranks), score=np.concatenate(scores))
    return {}


def look_at_large_components(task: Removing, groups: Sequence[Group], rows_per_tile: int, each: Each) -> None:
    """Leave in the scratch folder what `components_of` needs of large clusters, each with the forest of it alone."""
    if not groups:
        return
    parts = [part for (part,), _ in groups]
    found = each("look at large clusters", partial(_prepare, task), parts)
    tiled = [
        Tiles(part.cluster.label, done["rows"], rows_per_tile, done["base"])
        for part, done in zip(parts, found, strict=True)
    ]
    lay_out_scored(each, task, parts, tiled, partial(_place, task))
    if task.forest is None:
        compare_tiles(each, task.comparison, tiled)
    each("find components", partial(_name_unknown, task), groups)
    spans = [span for tiles in tiled for span in tile_spans(tiles, task.comparison.dim)]
    each("compare spans with witnesses", partial(_score_span, task), spans)
