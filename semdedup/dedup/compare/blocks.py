"""Blocks: the rows of some clusters, scored within their clusters, laid out to be compared across clusters.

A block is a group of small clusters, or a tile of a large one. What later tasks need of it lies in files of its own, so
that a task holds two blocks at most, whatever the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.arrays import backend_module, to_host
from semdedup.dedup.compare.edges import FOREST, load_edges
from semdedup.dedup.compare.groups import Cluster, Comparison, read_cluster, scored_clusters
from semdedup.dedup.compare.lay_out import cluster_place, light_file, light_of_ranks, rows_file
from semdedup.dedup.compare.scored import Scored
from semdedup.dedup.compare.spans import Tiles
from semdedup.dedup.compare.tiles import load_best
from semdedup.dedup.input.columns import wide
from semdedup.dedup.input.rows import gather_unit_rows, low_information_mask
from semdedup.dedup.kernels.bounds import principal_axes, short_rows
from semdedup.dedup.kernels.distinct import occurrences
from semdedup.dedup.kernels.join import Side, centroids_of
from semdedup.dedup.kernels.matches import NO_PAIRS, Pairs
from semdedup.dedup.names import OF_BASE, SCORE
from semdedup.dedup.ranking import RankingStrategy, ranks_of_rows
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION, read_table, write_table

CLUSTERS_SAMPLED, ROWS_SAMPLED = 64, 128
"""Clusters, and rows of each, that the principal axes are taken from."""

ROW = "row"
"""Column of a table of matches: of which row each is, by its position."""

MATCH = "max_"
"""Columns that begin so are those of a row's best match within its cluster."""


@dataclass(frozen=True)
class Block:
    """A block: its number, its first cluster; and the clusters of it, or the tiles of a large one and which it is.

    To tasks that need but its files it goes without clusters, see `bare`.
    """

    number: int
    label: int
    clusters: tuple[Cluster, ...] = ()
    tiles: Tiles | None = None
    tile: int = 0

    @property
    def bare(self) -> Block:
        """Without its clusters, whose files are many."""
        return replace(self, clusters=())

    def place(self, task: Comparison) -> Location:
        """Folder of its files."""
        return task.scratch / f"block-{self.number}"

    def same_cluster(self, other: Block) -> bool:
        """Whether both are tiles of one cluster, whose rows have been compared with each other already."""
        return self.tiles is not None and other.tiles is not None and self.label == other.label


class Part(NamedTuple):
    """Rows of one cluster, ranked and scored, for `write_block`.

    Attributes:
        label: the cluster.
        light: ids and what ranks.
        rows: the rows, (n, d).
        every: ids and what ranks of all rows of the cluster, those of a base among them, in rank order.
        scored: the scores of the rows, by position in `every`.
    """

    label: int
    light: pa.Table
    rows: np.ndarray
    every: pa.Table
    scored: Scored


def axes_file(task: Comparison) -> Location:
    """The principal axes of the rows, by which all blocks are shortened."""
    return task.scratch / "axes.npy"


def fit_axes(task: Comparison, width: int, clusters: Sequence[Cluster]) -> dict[str, Any]:
    """Take the principal axes of a sample of rows of these clusters. Memory: the sample, and d² numbers twice."""
    found = []
    for cluster in clusters:
        table = next(read_cluster(task, cluster)).slice(0, ROWS_SAMPLED)
        rows = np.empty((len(table), task.dim), dtype=np.float32)
        found.append(rows[: gather_unit_rows([table], task.dim, rows).n_rows])
    sample = np.concatenate(found)
    save_array(axes_file(task), principal_axes(sample, width - 1))
    return {"rows": len(sample)}


def lay_out_group(task: Comparison, block: Block) -> dict[str, Any]:
    """Rank and score the clusters of a block, each by itself, and write what is needed to go on.

    Memory: as `groups.score_group`, and the rows of the block once more, short and as they are.

    Returns:
        ``rows``, ``quarantined`` by reason, and ``edges``.
    """
    parts, quarantined = [], Counter[str]()
    for cluster, ranked, scored in scored_clusters(task, block.clusters, quarantined):
        light, rows = ranked.light.slice(ranked.n_base), to_host(ranked.rows[ranked.n_base :])
        parts.append(Part(cluster.label, light, rows, ranked.light, scored))
    write_block(task, block, parts)
    n_edges = sum(len(part.scored.forest.left) for part in parts)
    return {"rows": sum(len(part.light) for part in parts), "quarantined": dict(quarantined), "edges": n_edges}


def lay_out_tile_block(task: Comparison, block: Block) -> dict[str, Any]:
    """The same for a tile that was compared with the tiles before it. Its edges are those of `lay_out_edges`.

    Memory: the tile twice, and ids and what ranks of its rows and of their matches.
    """
    assert block.tiles is not None
    tile, place = block.tiles[block.tile], cluster_place(task.scratch, block.label)
    best = load_best(place, tile)
    ranks = np.unique(best.match)
    every = light_of_ranks(place, block.tiles, ranks)
    scored = Scored(best.score, np.searchsorted(ranks, best.match), NO_PAIRS)
    own, rows = read_table(light_file(place, tile.number)), load_array(rows_file(place, tile.number))
    write_block(task, block, [Part(block.label, own, rows, every, scored)])
    return {"rows": len(own), "quarantined": {}, "edges": 0}


def lay_out_edges(task: Comparison, tiles: Tiles) -> dict[str, Any]:
    """Write the forest of a large cluster as an edge table. Memory: ids and what ranks of its rows that match."""
    place = cluster_place(task.scratch, tiles.label)
    forest = load_edges(place / FOREST)
    ranks = np.unique(np.concatenate([forest.left, forest.right]))
    if len(ranks):
        ends = Pairs(np.searchsorted(ranks, forest.left), np.searchsorted(ranks, forest.right), forest.score)
        light = wide(light_of_ranks(place, tiles, ranks))
        write_table(edges_file(task, f"cluster-{tiles.label}"), edge_table(light, ends))
    return {"edges": len(forest.left)}


def write_block(task: Comparison, block: Block, parts: Sequence[Part]) -> None:
    """Write the files of a block.

    - ``light.parquet``: for each row its id and what ranks it; ``own.parquet``: its score, and the same of its match.
    - ``rows.npy``, ``short.npy``: the rows that inform, without repeated ones; ``row_of.npy``: which these are.
    - ``copies.npy``: (2, c), rows that are bit-identical to a better-ranked one, and that one.
    - ``starts.npy``, ``labels.npy``, ``centroids.npy``: of the clusters in ``rows.npy``; centroids are means of them.
    - the forests of the clusters, see `edge_table`, if there is an edge: `edges_file` of ``block-{number}``.
    """
    place, xp = block.place(task), backend_module(task.backend)
    rows, row_of, copies, edges = [], [], [], []
    first = 0
    for part in parts:
        low = low_information_mask(part.light)
        informs = np.arange(len(part.light)) if low is None else np.flatnonzero(~low)
        distinct, like = map(to_host, occurrences(xp.asarray(part.rows[informs])))
        again = np.flatnonzero(like != np.arange(len(like)))
        row_of.append(first + informs[distinct])
        rows.append(part.rows[informs[distinct]])
        copies.append(first + np.stack([informs[again], informs[like[again]]]))
        edges.append(edge_table(part.every, part.scored.forest))
        first += len(part.light)
    kept = [found for found in rows if len(found)]
    lights = [part.light for part in parts]
    own = [_own(part) for part in parts]
    write_table(place / "light.parquet", _together(lights))
    write_table(place / "own.parquet", _together(own))
    if any(map(len, edges)):
        write_table(edges_file(task, f"block-{block.number}"), _together(edges))
    every_row = np.concatenate([np.empty((0, task.dim), np.float32), *kept])
    save_array(place / "rows.npy", every_row)
    save_array(place / "short.npy", to_host(short_rows(xp.asarray(every_row), xp.asarray(load_array(axes_file(task))))))
    save_array(place / "row_of.npy", np.concatenate([np.empty(0, np.int64), *row_of]))
    save_array(place / "copies.npy", np.concatenate([np.empty((2, 0), np.int64), *copies], axis=1))
    save_array(place / "starts.npy", np.cumsum([0, *map(len, kept)]))
    sizes = np.array([[part.label, len(part.light)] for part in parts], dtype=np.int64).reshape(-1, 2)
    save_array(place / "labels.npy", sizes)
    save_array(place / "centroids.npy", centroids_of(kept, task.dim))


def _own(part: Part) -> pa.Table:
    """Of each row its score, and id and what ranks of its match, in columns that begin with `MATCH`."""
    matches = part.every.take(pa.array(part.scored.match))
    matches = matches.rename_columns([f"{MATCH}{name}" for name in matches.column_names])
    return matches.append_column(SCORE, pa.array(part.scored.score))


def _together(tables: Sequence[pa.Table]) -> pa.Table:
    """One table of several; one without columns for a block without rows."""
    return pa.concat_tables(tables, promote_options="permissive") if tables else pa.table({})


def edge_table(light: pa.Table, edges: Pairs) -> pa.Table:
    """Edges with the id of both ends, and what ranks the first of them: ``id``, …, ``id_b``, the score."""
    names = [name for name in light.column_names if name != LOW_INFORMATION]
    first = light.select(names).take(pa.array(edges.left))
    second = light.column("id").take(pa.array(edges.right))
    return first.append_column("id_b", second).append_column(SCORE, pa.array(edges.score))


def load_side(task: Comparison, block: Block) -> tuple[Side, np.ndarray]:
    """The rows of a block that can match, and which of its rows these are."""
    xp, place = backend_module(task.backend), block.place(task)
    rows, short = (xp.asarray(load_array(place / f"{name}.npy")) for name in ("rows", "short"))
    starts, centroids = (load_array(place / f"{name}.npy") for name in ("starts", "centroids"))
    return Side(rows, short, starts, centroids), load_array(place / "row_of.npy")


def load_light(task: Comparison, block: Block) -> pa.Table:
    """Ids and what ranks, of all rows of a block, cluster by cluster in rank order."""
    return read_table(block.place(task) / "light.parquet")


def found_file(task: Comparison, block: int, other: str) -> Location:
    """The best matches of the rows of a block in another, in itself across clusters, or in clusters of a base."""
    return task.scratch / f"found-{block}" / f"{other}.parquet"


def edges_file(task: Comparison, name: str) -> Location:
    """A forest: of a block and some others, of a block and clusters of a base, of a large cluster, or of several."""
    return task.scratch / "edges" / f"{name}.parquet"


def matches_of(light: pa.Table, best: Pairs, which: np.ndarray | slice, start: int = 0) -> pa.Table:
    """Some of the best matches: their ids and what ranks them, the `ROW` of each, from `start` on, and the score."""
    table = light.take(pa.array(best.left[which]))
    table = table.append_column(ROW, pa.array(best.right[which] - start))
    return table.append_column(SCORE, pa.array(best.score[which]))


def best_matches(tables: Sequence[pa.Table], strategy: RankingStrategy, *beside: str) -> pa.Table:
    """For each row that some tables have matches of, the one of the highest score, of equal ones the best-ranked.

    Args:
        tables: ids of matches and what ranks them, the `ROW` that each is of, and the score.
        strategy: what ranks.
        beside: columns of whole numbers; there is a best match for each of their values that a row has.

    Returns:
        The best matches, sorted by row, then by these columns.
    """
    found = with_base_told(pa.concat_tables(tables, promote_options="permissive"))
    keys = [found.column(name).to_numpy() for name in (ROW, *beside)]
    order = np.lexsort((ranks_of_rows(found, strategy), -found.column(SCORE).to_numpy(), *reversed(keys)))
    is_first = np.ones(len(order), dtype=bool)
    is_first[1:] = np.any([key[order][1:] != key[order][:-1] for key in keys], axis=0)
    return found.take(pa.array(order[is_first]))


def with_base_told(table: pa.Table) -> pa.Table:
    """A table in which rows are told to be of a base, or not; where it is not told they are not."""
    if OF_BASE not in table.column_names:
        return table
    return table.set_column(table.column_names.index(OF_BASE), OF_BASE, table.column(OF_BASE).fill_null(False))
