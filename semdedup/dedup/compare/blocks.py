"""Blocks: the rows of some clusters, scored within their clusters, laid out to be compared across clusters.

A block is a group of small clusters, or a tile of a large one. What later tasks need of it lies in files of its own, so
that a task holds two blocks at most, whatever the input.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.arrays import backend_module, to_host
from semdedup.dedup.compare.groups import Cluster, Comparison, Scored, read_cluster, scored_clusters
from semdedup.dedup.compare.tiles import Tile, load_tile
from semdedup.dedup.input.rows import gather_unit_rows, low_information_mask
from semdedup.dedup.kernels.bounds import principal_axes, short_rows
from semdedup.dedup.kernels.distinct import occurrences
from semdedup.dedup.kernels.join import Side, centroids_of
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.names import OF_BASE, SCORE
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION, read_table, write_table

CLUSTERS_SAMPLED, ROWS_SAMPLED = 64, 128
"""Clusters, and rows of each, that the principal axes are taken from."""

MATCH = "max_"
"""Columns that begin so are those of a row's best match within its cluster."""


@dataclass(frozen=True)
class Block:
    """A block: its number, and the clusters of it, or the tile of a large one and all tiles of that cluster."""

    number: int
    clusters: tuple[Cluster, ...] = ()
    tiles: tuple[Tile, ...] = ()
    tile: int = 0

    @property
    def label(self) -> int:
        """Its first cluster."""
        return self.clusters[0].label if self.clusters else self.tiles[0].cluster.label

    def place(self, task: Comparison) -> Location:
        """Folder of its files."""
        return task.scratch / f"block-{self.number}"

    def same_cluster(self, other: Block) -> bool:
        """Whether both are tiles of one cluster, whose rows have been compared with each other already."""
        return bool(self.tiles and other.tiles) and self.label == other.label


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
        ``rows``, and ``quarantined`` by reason.
    """
    parts, quarantined = [], Counter[str]()
    for cluster, ranked, scored in scored_clusters(task, block.clusters, quarantined):
        light, rows = ranked.light.slice(ranked.n_base), ranked.rows[ranked.n_base :]
        parts.append(Part(cluster.label, light, rows, ranked.light, scored))
    write_block(task, block, parts)
    return {"rows": sum(len(part.light) for part in parts), "quarantined": dict(quarantined)}


def lay_out_tile_block(task: Comparison, block: Block) -> dict[str, Any]:
    """The same for a tile that was compared with the tiles before it. Memory: the tile twice, and its cluster's ids."""
    tile = block.tiles[block.tile]
    light, rows, scored = load_tile(task, tile)
    own = light.slice(tile.start, tile.stop - tile.start)
    write_block(task, block, [Part(tile.cluster.label, own, rows, light, scored)])
    return {"rows": len(own), "quarantined": {}}


def write_block(task: Comparison, block: Block, parts: Sequence[Part]) -> None:
    """Write the files of a block.

    - ``light.parquet``: for each row its id and what ranks it; ``own.parquet``: its score, and the same of its match.
    - ``rows.npy``, ``short.npy``: the rows that inform, without repeated ones; ``row_of.npy``: which these are.
    - ``copies.npy``: (2, c), rows that are bit-identical to a better-ranked one, and that one.
    - ``starts.npy``, ``labels.npy``, ``centroids.npy``: of the clusters in ``rows.npy``; centroids are means of them.
    - ``edges.parquet``: the forests of the clusters, see `edge_table`.
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
    write_table(place / "edges.parquet", _together(edges))
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


def edges_file(task: Comparison, pair: str) -> Location:
    """The forest of the matches of two blocks, or of a block and clusters of a base."""
    return task.scratch / "edges" / f"{pair}.parquet"


def with_base_told(table: pa.Table) -> pa.Table:
    """A table in which rows are told to be of a base, or not; where it is not told they are not."""
    if OF_BASE not in table.column_names:
        return table
    return table.set_column(table.column_names.index(OF_BASE), OF_BASE, table.column(OF_BASE).fill_null(False))
