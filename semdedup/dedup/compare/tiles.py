"""Scoring clusters that are too large for a task: their rows are ranked by the light columns, laid out in rank order as
*tiles*, and each tile is compared with itself and with all better-ranked tiles.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import Array, backend_module, to_host
from semdedup.dedup.compare.groups import Cluster, Comparison, Scored, rank_cluster, read_base, read_cluster
from semdedup.dedup.compare.table import forest_table, score_table, write_base_rows, write_scores
from semdedup.dedup.input.rows import embedding_rows, low_information_mask
from semdedup.dedup.kernels.best_match import best_match
from semdedup.dedup.kernels.distinct import first_occurrences, occurrences
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.forest import forest_between, forest_of, matches_to_gather, thinned
from semdedup.dedup.kernels.matches import NO_PAIRS, Matches, Pairs
from semdedup.dedup.names import FOREST
from semdedup.runs.run import Run
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location
from semdedup.storage.tables import read_table, write_table


@dataclass(frozen=True)
class Tile:
    """Ranks [start, stop) of one large cluster; the tiles of a cluster before it rank better.

    The rows of a tile are all `of_base`, candidates only, or none of them is.
    """

    cluster: Cluster
    number: int
    start: int
    stop: int
    of_base: bool = False


def tiles_of(cluster: Cluster, n_ranked: int, rows_per_tile: int, n_base: int = 0) -> list[Tile]:
    """Cut the ranks 0 … n_ranked - 1 of a cluster into tiles; the first `n_base` are those of its base."""
    starts = [*range(0, n_base, rows_per_tile), *range(n_base, n_ranked, rows_per_tile)]
    ends = [*starts[1:], n_ranked]
    return [
        Tile(cluster, i, start, stop, start < n_base) for i, (start, stop) in enumerate(zip(starts, ends, strict=True))
    ]


def _label(item: Any) -> str:
    """What a task on a large cluster is called where a worker dies of it."""
    while isinstance(item, tuple):
        item = item[0]
    return f"cluster centroid={(item.cluster if isinstance(item, Tile) else item).label}"


def _place(task: Comparison, cluster: Cluster) -> Location:
    return task.scratch / f"cluster_{cluster.label}"


def rank_large_cluster(task: Comparison, cluster: Cluster) -> dict[str, Any]:
    """Rank a large cluster by its light columns, which it holds whole: about 100 bytes a row.

    Writes the light columns in rank order; for each rank the row, in the order of the files, and whether it informs.
    """
    ranked = rank_cluster(task, cluster, with_rows=False)
    low = low_information_mask(ranked.light)
    place = _place(task, cluster)
    write_table(place / "light.parquet", ranked.light)
    save_array(place / "row_of_rank.npy", ranked.positions)
    save_array(place / "informs.npy", np.ones(len(ranked.light), bool) if low is None else ~low)
    return {"ranked": len(ranked.light), "base": ranked.n_base, "quarantined": dict(ranked.quarantined)}


def lay_out_tile(task: Comparison, tile: Tile) -> dict[str, Any]:
    """Gather the rows of one tile, in rank order and normalised, reading the cluster in batches.

    Memory: the tile, a batch as it is read, 9 bytes for each row of the cluster.
    """
    place = _place(task, tile.cluster)
    wanted = load_array(place / "row_of_rank.npy")[tile.start : tile.stop]
    by_row = np.argsort(wanted)
    sorted_rows = wanted[by_row]
    rows = np.empty((len(wanted), task.dim), dtype=np.float32)
    position = 0
    for table in chain(read_base(task, tile.cluster, []), read_cluster(task, tile.cluster, embeddings_only=True)):
        low, high = np.searchsorted(sorted_rows, [position, position + len(table)])
        if low < high:
            chosen = table.column("embedding").take(pa.array(sorted_rows[low:high] - position))
            found, _ = embedding_rows(chosen, task.dim)
            rows[by_row[low:high]] = unit_rows(found)
        position += len(table)
    informs = load_array(place / "informs.npy")[tile.start : tile.stop]
    candidates = np.flatnonzero(informs)
    candidates = candidates[first_occurrences(rows[candidates])]
    save_array(place / f"rows-{tile.number}.npy", rows)
    save_array(place / f"candidates-{tile.number}.npy", candidates)
    return {"rows": len(rows)}


def compare_tile(task: Comparison, item: tuple[tuple[Tile, ...], int]) -> dict[str, Any]:
    """Compare the rows of the tile of a number with its better-ranked rows and those of all tiles before it.

    The rows of a tile that is of the base are compared with nothing.

    Memory: two tiles, twice each while one is read or thinned out, and both as bfloat16; the products of `best_match`.
    """
    xp = backend_module(task.backend)
    tiles, number = item
    tile = tiles[number]
    place = _place(task, tile.cluster)
    informs = load_array(place / "informs.npy")[tile.start : tile.stop]
    rows = load_array(place / f"rows-{number}.npy")
    asking = np.flatnonzero(informs)
    ranks = asking + tile.start
    queries = xp.asarray(rows[asking])
    score = np.zeros(len(asking), dtype=np.float32)
    match = np.full(len(asking), -1, dtype=np.int64)
    edges = [NO_PAIRS]
    for other in [] if tile.of_base else tiles[: number + 1]:  # best ranks first: of equal scores the first found wins
        chosen = load_array(place / f"candidates-{other.number}.npy")
        block = rows if other.number == number else load_array(place / f"rows-{other.number}.npy")
        candidates, candidate_ranks = xp.asarray(block[chosen]), chosen + other.start
        matches = matches_to_gather(task.limits.least, len(chosen) + len(asking))
        found = best_match(
            queries, xp.asarray(ranks), candidates, xp.asarray(candidate_ranks), task.limits.batch_size, matches
        )
        found_score, position = to_host(found.score), to_host(found.position)
        better = (position >= 0) & ((found_score > score) | (match < 0))
        score[better], match[better] = found_score[better], candidate_ranks[position[better]]
        sides = [(candidates, candidate_ranks), (queries, ranks)]
        edges = [thinned([*edges, _edges(sides, matches, other, within=other.number == number)], tile.stop)]
    every_score = np.zeros(len(rows), dtype=np.float32)
    every_match = np.arange(tile.start, tile.stop)
    every_score[asking] = score
    every_match[asking] = np.where(match < 0, ranks, match)
    save_array(place / f"score-{number}.npy", every_score)
    save_array(place / f"match-{number}.npy", every_match)
    for name, values in edges[0]._asdict().items():
        save_array(place / f"edges-{name}-{number}.npy", values)
    return {"rows": len(rows)}


def _edges(sides: Sequence[tuple[Array, np.ndarray]], matches: Matches, other: Tile, within: bool) -> Pairs:
    """A forest of the matches of candidates and queries, each with their ranks; `within` one tile they are the same.

    Of the candidates of an `other` tile that is of the base none are matches of each other.
    """
    pairs = matches.pairs()
    (candidates, candidate_ranks), (queries, ranks) = sides
    if pairs is not None:
        left, right, score = map(to_host, pairs)
        return Pairs(candidate_ranks[left], ranks[right], score)
    first, same_as = occurrences(queries)
    distinct = queries[first]
    every = candidate_ranks if within else np.concatenate([candidate_ranks, ranks[to_host(first)]])
    if other.of_base:
        found = forest_between(candidates, distinct, matches.least, matches)
    else:
        found = forest_of([candidates] if within else [candidates, distinct], matches.least, matches)
    like = to_host(same_as)
    again = np.flatnonzero(like != np.arange(len(like)))
    left, right = np.append(every[found.left], ranks[like[again]]), np.append(every[found.right], ranks[again])
    return Pairs(left, right, np.append(found.score, np.ones(len(again), dtype=np.float32)))


def load_edges(place: Location, number: int) -> Pairs:
    """The forest that `compare_tile` left for a tile, in the folder of its cluster."""
    return Pairs(*(load_array(place / f"edges-{name}-{number}.npy") for name in Pairs._fields))


def load_tile(task: Comparison, tile: Tile) -> tuple[pa.Table, np.ndarray, Scored]:
    """The light columns of the whole cluster, the rows of a tile, and what `compare_tile` found for them, by rank."""
    place, number = _place(task, tile.cluster), tile.number
    score, match = (load_array(place / f"{name}-{number}.npy") for name in ("score", "match"))
    rows = load_array(place / f"rows-{number}.npy")
    return read_table(place / "light.parquet"), rows, Scored(score, match, load_edges(place, number))


def write_large_cluster(task: Comparison, tiles: Sequence[Tile]) -> dict[str, Any]:
    """Put the scores and the forests of the tiles of one cluster together, those of its base left out.

    Memory: the ids of the cluster, a tile, and the edges of two forests of the cluster.
    """
    place = _place(task, tiles[0].cluster)
    ids = read_table(place / "light.parquet", ["id"]).column("id").combine_chunks()

    new = [tile for tile in tiles if not tile.of_base]

    def tables() -> Iterator[pa.Table]:
        for tile in new:
            match = load_array(place / f"match-{tile.number}.npy")
            score = load_array(place / f"score-{tile.number}.npy")
            own = ids.slice(tile.start, tile.stop - tile.start)
            yield score_table(own, ids.take(pa.array(match)), score)

    cluster = tiles[0].cluster
    label, n_base = cluster.label, new[0].start
    write_scores(task.target, label, ids.type, tables(), task.write_kwargs)
    if cluster.base is not None:
        write_base_rows(task.final, label, ids.slice(0, n_base), task.write_kwargs)
    edges: list[Pairs] = []
    for tile in new:
        edges = [thinned([*edges, load_edges(place, tile.number)], len(ids))]
    table = forest_table(ids, edges[0], None if cluster.base is None else n_base)
    write_table(task.final / FOREST / f"part-{label}.parquet", table, task.write_kwargs)
    return {"rows": len(ids) - n_base, "quarantined": {}}


def compare_large_clusters(
    run: Run, task: Comparison, large: Sequence[Cluster], rows_per_tile: int
) -> tuple[list[dict[str, Any]], list[tuple[Tile, ...]]]:
    """Rank, lay out and compare clusters that are larger than a task: what `rank_large_cluster` gave, and the tiles.

    Memory of a task: the light columns of a cluster, about 100 bytes a row, while it is ranked; then two tiles.
    """
    if not large:
        return [], []
    ranked = run.results("rank", partial(rank_large_cluster, task), large, unit="large clusters", label=_label)
    cut = [
        tiles_of(cluster, done["ranked"], rows_per_tile, done["base"])
        for cluster, done in zip(large, ranked, strict=True)
    ]
    tiled = [tuple(tiles) for tiles in cut if tiles and not tiles[-1].of_base]
    every = [tile for tiles in tiled for tile in tiles]
    run.results("lay out", partial(lay_out_tile, task), every, unit="tiles", label=_label)
    pairs = [(tiles, number) for tiles in tiled for number in reversed(range(len(tiles)))]  # the longest first
    run.results("compare tiles", partial(compare_tile, task), pairs, unit="tiles", label=_label)
    return ranked, tiled


def score_large_clusters(
    run: Run, task: Comparison, large: Sequence[Cluster], rows_per_tile: int
) -> list[dict[str, Any]]:
    """Score clusters that are larger than a task; the same results as `score_group` gives for groups."""
    ranked, tiled = compare_large_clusters(run, task, large, rows_per_tile)
    if not large:
        return []
    written = run.results("write large", partial(write_large_cluster, task), tiled, unit="clusters", label=_label)
    return [{**result, "rows": 0} for result in ranked] + written
