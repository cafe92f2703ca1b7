"""Scoring clusters that are too large for a task: each tile is compared with itself and with all better-ranked tiles.

A task compares one tile with a *span* of the others, so that its work is bounded and little is lost of it where a run
is killed. What the spans of a tile found is merged: scores tile by tile, forests in rounds.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.arrays import Array, backend_module, to_host
from semdedup.dedup.compare.edges import FOREST, load_edges, merge_forests, save_edges
from semdedup.dedup.compare.groups import Cluster, Comparison
from semdedup.dedup.compare.lay_out import (
    Each,
    candidates_file,
    cluster_place,
    label_in,
    lay_out_tiles,
    light_file,
    list_rows,
    rank_rows,
    rows_file,
)
from semdedup.dedup.compare.spans import Span, Tile, Tiles, tile_spans
from semdedup.dedup.compare.table import forest_table, score_table, write_base_rows, write_forest, write_scores
from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.kernels.best_match import best_match
from semdedup.dedup.kernels.distinct import occurrences
from semdedup.dedup.kernels.forest import MOST_EDGES, forest_between, forest_of, matches_to_gather, thinned
from semdedup.dedup.kernels.matches import Matches, Pairs
from semdedup.dedup.names import FOREST as FORESTS
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.runs.run import Run
from semdedup.storage.arrays import load_array, load_columns, load_rows, save_columns
from semdedup.storage.location import Location
from semdedup.storage.tables import read_table


class Best(NamedTuple):
    """Of each row of a tile the score with its best match, (n,) float32, and the rank of that, (n,) int64."""

    score: np.ndarray
    match: np.ndarray


def item_label(item: Any) -> str:
    """What a task on a large cluster is called where a worker dies of it."""
    return f"cluster centroid={label_in(item)}"


def span_memory(rows_per_tile: int, dim: int, batch_size: int) -> int:
    """Most bytes of embeddings and products that `compare_span` holds: two tiles, twice each while one is read or
    thinned out, and both as bfloat16; five products of at most 4 MiB, or of one batch by 64 candidates."""
    return 2 * (2 * 4 + 2) * rows_per_tile * dim + 5 * max(4 << 20, 4 * batch_size * 64)


def compare_span(task: Comparison, span: Span) -> dict[str, Any]:
    """Compare the rows of a tile with the better-ranked rows of the tiles of a span.

    Memory: see `span_memory`, and two forests of the rows of the span. Operations: at most `sizes.WORK_PER_TASK`, three
    times that where so many rows match each other that the forest is not found by the way.

    Returns:
        ``edges`` of the forest of the matches.
    """
    xp, tile = backend_module(task.backend), span.tiles[span.number]
    place = cluster_place(task.scratch, span.tiles.label)
    rows = load_array(rows_file(place, tile.number))
    asking = np.flatnonzero(load_rows(place / "informs.npy", tile.start, tile.stop))
    ranks, queries = asking + tile.start, xp.asarray(rows[asking])
    best = Best(np.zeros(len(asking), dtype=np.float32), np.full(len(asking), -1, dtype=np.int64))
    edges: list[Pairs] = []
    for other in span.tiles[span.first : span.last]:  # best ranks first: of equal scores the first found wins
        within = other.number == tile.number
        chosen = load_array(candidates_file(place, other.number))
        block = rows if within else load_array(rows_file(place, other.number))
        candidates, candidate_ranks = xp.asarray(block[chosen]), chosen + other.start
        matches = matches_to_gather(task.limits.least, len(chosen) + len(asking))
        found = best_match(
            queries, xp.asarray(ranks), candidates, xp.asarray(candidate_ranks), task.limits.batch_size, matches
        )
        position = to_host(found.position)
        match = np.where(position < 0, -1, candidate_ranks[position] if len(chosen) else -1)
        best = better_of(best, Best(to_host(found.score), match))
        edges.append(_edges([(candidates, candidate_ranks), (queries, ranks)], matches, other, within))
        if sum(len(found.left) for found in edges) > MOST_EDGES:
            edges = [thinned(edges, tile.stop)]
    every = Best(np.zeros(len(rows), dtype=np.float32), np.full(len(rows), -1, dtype=np.int64))
    every.score[asking], every.match[asking] = best
    forest = thinned(edges, tile.stop)
    save_columns(best_file(place, span), **every._asdict())
    save_edges(place / edges_name(span), forest)
    return {"edges": len(forest.left)}


def better_of(one: Best, other: Best) -> Best:
    """Row by row the higher score; of equal scores that of `one`, whose matches rank better."""
    wins = (other.match >= 0) & ((other.score > one.score) | (one.match < 0))
    return Best(np.where(wins, other.score, one.score), np.where(wins, other.match, one.match))


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


def best_file(place: Location, span: Span) -> Location:
    """What a span found for the rows of its tile; where it is the only one, what was found for them at all."""
    return place / "best" / (f"{span.number}.npy" if span.whole else f"{span.number}-{span.first}.npy")


def edges_name(span: Span) -> str:
    """Name of the forest of the matches of a span, in the folder of its cluster."""
    return f"edges/{span.number}-{span.first}.npy"


def load_best(place: Location, tile: Tile) -> Best:
    """The best matches of the rows of a tile, after all its spans; the match of a row without one is itself."""
    score, match = Best(**load_columns(place / "best" / f"{tile.number}.npy"))
    return Best(score, np.where(match < 0, np.arange(tile.start, tile.stop), match))


def merge_spans(task: Comparison, spans: Sequence[Span]) -> dict[str, Any]:
    """Put together what the spans of one tile found for its rows, best ranks first. Memory: 12 bytes a row, twice."""
    tiles, number = spans[0].tiles, spans[0].number
    place = cluster_place(task.scratch, tiles.label)
    best = Best(**load_columns(best_file(place, spans[0])))
    for span in spans[1:]:
        best = better_of(best, Best(**load_columns(best_file(place, span))))
    save_columns(place / "best" / f"{number}.npy", **best._asdict())
    return {}


def compare_tiles(each: Each, task: Comparison, tiled: Sequence[Tiles]) -> None:
    """Compare the tiles of large clusters, which are laid out; see `load_best`, and `FOREST` in the folder of each."""
    spans = sorted(
        (span for tiles in tiled for span in tile_spans(tiles, task.dim)), key=lambda span: span.first - span.last
    )
    results = each("compare spans", partial(compare_span, task), spans)
    of_tile: dict[tuple[int, int], list[Span]] = {}
    edges: dict[int, list[tuple[str, int]]] = {tiles.label: [] for tiles in tiled}
    for span, result in sorted(zip(spans, results, strict=True), key=lambda one: one[0][1:]):
        of_tile.setdefault((span.tiles.label, span.number), []).append(span)
        edges[span.tiles.label].append((edges_name(span), result["edges"]))
    each("merge spans", partial(merge_spans, task), [tuple(some) for some in of_tile.values() if len(some) > 1])
    forests = [(tiles.label, tiles.n_rows, edges[tiles.label]) for tiles in tiled]
    merge_forests(each, task.scratch, forests)


def writing_memory(n_rows: int, id_bytes: int) -> int:
    """Most bytes that `write_large_cluster` holds for a cluster of `n_rows` rows, all of which match another, with ids
    of `id_bytes` each: the ids, once more as they are put together, and the edges of its forest twice."""
    return n_rows * (2 * (id_bytes + 8) + 2 * 20)


def write_large_cluster(task: Comparison, item: tuple[Tiles, bool]) -> dict[str, Any]:
    """Write the scores and the forest of a cluster, those of its base left out; `item` tells whether it has one.

    Memory: see `writing_memory`, and a tile.
    """
    tiles, based = item
    place, label, n_base = cluster_place(task.scratch, tiles.label), tiles.label, tiles.n_base
    read = [read_table(light_file(place, tile.number), ["id"]).column("id") for tile in tiles]
    kind = read[0].type
    ids = wide_ids(pa.chunked_array([chunk for column in read for chunk in column.chunks]))
    del read

    def tables() -> Iterator[pa.Table]:
        for number in tiles.own:
            tile = tiles[number]
            score, match = load_best(place, tile)
            own = ids.slice(tile.start, tile.stop - tile.start)
            yield score_table(own, ids.take(pa.array(match)), score)

    write_scores(task.target, label, kind, tables(), task.write_kwargs)
    if based:
        write_base_rows(task.final, label, ids.slice(0, n_base), task.write_kwargs)
    edges = load_edges(place / FOREST)
    parts = (
        forest_table(ids, Pairs(*(end[start : start + ROWS_AT_A_TIME] for end in edges)), n_base if based else None)
        for start in range(0, len(edges.left), ROWS_AT_A_TIME)
    )
    write_forest(task.final / FORESTS / f"part-{label}.parquet", kind, parts, based, task.write_kwargs)
    return {"rows": len(ids) - n_base, "quarantined": {}}


def compare_large_clusters(
    run: Run, task: Comparison, large: Sequence[Cluster], rows_per_tile: int
) -> tuple[list[dict[str, Any]], list[Tiles]]:
    """Rank, lay out and compare clusters that are larger than a task: what `rank_rows` gave, and the tiles.

    Memory of a task: see `lay_out.ranking_memory`, `span_memory` and `edges.merging_memory`.
    """
    if not large:
        return [], []
    each: Each = partial(run.results, unit="tasks", label=item_label)
    listed = list_rows(each, task, large, rows_per_tile)
    ranked = each("rank rows", partial(rank_rows, task, rows_per_tile), listed)
    cut = [
        Tiles(cluster.label, done["ranked"], rows_per_tile, done["base"])
        for cluster, done in zip(large, ranked, strict=True)
    ]
    tiled = [tiles for tiles in cut if tiles.own]
    lay_out_tiles(each, task, large, tiled, rows_per_tile)
    compare_tiles(each, task, tiled)
    return ranked, tiled


def score_large_clusters(
    run: Run, task: Comparison, large: Sequence[Cluster], rows_per_tile: int
) -> list[dict[str, Any]]:
    """Score clusters that are larger than a task; the same results as `score_group` gives for groups."""
    ranked, tiled = compare_large_clusters(run, task, large, rows_per_tile)
    if not large:
        return []
    based = {cluster.label for cluster in large if cluster.base is not None}
    items = [(tiles, tiles.label in based) for tiles in tiled]
    written = run.results("write large", partial(write_large_cluster, task), items, unit="clusters", label=item_label)
    return [{**result, "rows": 0} for result in ranked] + written
