"""The rows of a cluster that is too large for a task, laid out in rank order as tiles.

Its files are read in *pieces*, twice: first what ranks the rows, then the rows, which each piece leaves sorted by rank.
A tile is gathered from the ranges of the pieces that are its.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.dedup import sizes
from semdedup.dedup.compare.groups import Cluster, Comparison, read_base, read_cluster, set_aside
from semdedup.dedup.compare.spans import Tiles
from semdedup.dedup.input.ids import narrow_text, wide_text
from semdedup.dedup.input.rows import gather_unit_rows, in_chunks, low_information_mask
from semdedup.dedup.kernels.distinct import first_occurrences
from semdedup.dedup.names import OF_BASE
from semdedup.dedup.ranking import rank_order
from semdedup.errors import IntegrityError
from semdedup.storage.arrays import load_array, load_rows, save_array
from semdedup.storage.location import Location
from semdedup.storage.tables import ROWS_PER_BATCH, read_table, write_table

Each = Callable[[str, Callable[[Any], dict[str, Any]], Sequence[Any]], list[dict[str, Any]]]
"""Calls a function, a step of this name, for items, and gives the results in their order."""


class Piece(NamedTuple):
    """Some files of a cluster, of a base or its own, and their number."""

    cluster: Cluster
    number: int


Chunk = tuple[int, int, int]
"""Some rows of a piece that are held together: the piece, their number in there, and how many they are."""


class Listed(NamedTuple):
    """A cluster whose rows were listed, in chunks, the first `of_base` of which are of a base."""

    cluster: Cluster
    chunks: tuple[Chunk, ...]
    of_base: int

    @property
    def rows(self) -> list[int]:
        """Rows of each chunk."""
        return [n_rows for _, _, n_rows in self.chunks]


def cluster_place(scratch: Location, label: int) -> Location:
    """Folder of a large cluster."""
    return scratch / f"cluster_{label}"


def label_in(item: Any) -> int | None:
    """The first cluster that is in what a task is given."""
    if isinstance(item, (Cluster, Tiles)):
        return item.label
    inner = map(label_in, item) if isinstance(item, tuple) else iter(())
    return next((label for label in inner if label is not None), None)


def pieces_of(cluster: Cluster, rows_per_piece: int) -> list[Piece]:
    """Cut a cluster into pieces of at most so many rows, or one file: first those of its base, then its own."""
    base = [] if cluster.base is None else [replace(cluster.base, urls=(url,)) for url in cluster.base.urls]
    files = [((url, n_rows), n_rows) for url, n_rows in zip(cluster.urls, cluster.rows, strict=True)]
    parts = [Cluster(cluster.label, (), (), each) for each in base]
    for own in sizes.pack(files, rows_per_piece):
        parts.append(Cluster(cluster.label, tuple(url for url, _ in own), tuple(n_rows for _, n_rows in own)))
    return [Piece(part, number) for number, part in enumerate(parts)]


def _chunks(task: Comparison, piece: Piece, n_rows: int) -> Iterator[Iterable[pa.Table]]:
    of_base = piece.cluster.base is not None
    tables = read_base(task, piece.cluster, task.light_columns[1:]) if of_base else read_cluster(task, piece.cluster)
    return in_chunks(tables, n_rows)


def list_piece(task: Comparison, rows_per_chunk: int, piece: Piece) -> dict[str, Any]:
    """Write the ids of a piece, and what ranks its rows, in chunks; and the rows that cannot be compared.

    Memory: the ids of the piece, and a batch as it is decoded.

    Returns:
        ``chunks``: rows of each.
    """
    place, rows, faulty = cluster_place(task.scratch, piece.cluster.label), [], []
    for number, tables in enumerate(_chunks(task, piece, rows_per_chunk)):
        gathered = gather_unit_rows(tables, task.dim, None, checked_before=piece.cluster.base is not None)
        write_table(_light_file(place, piece.number, number), gathered.others)
        rows.append(gathered.n_rows)
        faulty.append(gathered.faulty)
    if any(map(len, faulty)):
        write_table(_faulty_file(place, piece.number), pa.concat_tables(faulty))
    return {"chunks": rows, "faulty": sum(map(len, faulty))}


def _light_file(place: Location, piece: int, chunk: int) -> Location:
    return place / "light-of-pieces" / f"{piece}-{chunk}.parquet"


def _faulty_file(place: Location, piece: int) -> Location:
    return place / "faulty" / f"{piece}.parquet"


def light_of_chunks(place: Location, chunks: Sequence[Chunk]) -> pa.Table:
    """What `list_piece` wrote of some chunks, text with 64-bit offsets."""
    tables = [wide_text(read_table(_light_file(place, piece, chunk))) for piece, chunk, _ in chunks]
    return pa.concat_tables(tables, promote_options="permissive")


def ranking_memory(n_rows: int, light_bytes: int) -> int:
    """Most bytes that `rank_rows` holds for a cluster of `n_rows` rows with `light_bytes` bytes of ids and of columns
    that rank, each: the columns, once more as they are sorted by or written, and four numbers a row."""
    return n_rows * (2 * light_bytes + 4 * 8)


def rank_rows(task: Comparison, rows_per_tile: int, listed: Listed) -> dict[str, Any]:
    """Rank a large cluster, the kept rows of a base first; write what its tiles need to know, see `place_rows`, and
    what cannot be compared into quarantine.

    Memory: see `ranking_memory`.
    """
    cluster, place = listed.cluster, cluster_place(task.scratch, listed.cluster.label)
    n_base = sum(listed.rows[: listed.of_base])
    sets = [listed.chunks[: listed.of_base], listed.chunks[listed.of_base :]]
    lights = [light_of_chunks(place, chunks) for chunks in sets if chunks]
    order = [rank_order(light, task.strategy) for light in lights]
    by_rank = np.concatenate([order[0], *(each + n_base for each in order[1:])])
    light = pa.concat_tables(lights, promote_options="permissive")
    if cluster.base is not None:
        light = light.append_column(OF_BASE, pa.array(np.arange(len(light)) < n_base))
    low = low_information_mask(light)
    informs = np.ones(len(light), dtype=bool) if low is None else ~low[by_rank]
    tiles = Tiles(cluster.label, len(light), rows_per_tile, n_base)
    for tile in tiles:
        write_table(light_file(place, tile.number), narrow_text(light.take(pa.array(by_rank[tile.start : tile.stop]))))
    ranks = np.empty(len(light), dtype=np.int64)
    ranks[by_rank] = np.arange(len(light))
    place_rows(place, tiles, listed.chunks, ranks, informs)
    pieces = dict.fromkeys(piece for piece, _, _ in listed.chunks)
    faulty = [read_table(_faulty_file(place, piece)) for piece in pieces if _faulty_file(place, piece).exists()]
    quarantined = set_aside(task, cluster, pa.concat_tables(faulty)) if faulty else {}
    return {"ranked": len(light), "base": n_base, "quarantined": quarantined}


def light_file(place: Location, tile: int) -> Location:
    """Ids and what ranks of the rows of a tile, in rank order."""
    return place / "light" / f"{tile}.parquet"


def light_of_ranks(place: Location, tiles: Tiles, ranks: np.ndarray) -> pa.Table:
    """Ids and what ranks of the rows of these ranks, (r,) int64 increasing. Memory: these, and of one tile."""
    found: list[pa.Table] = []
    for tile in tiles:
        low, high = np.searchsorted(ranks, [tile.start, tile.stop])
        if low < high or not found:
            found.append(read_table(light_file(place, tile.number)).take(pa.array(ranks[low:high] - tile.start)))
    return pa.concat_tables(found, promote_options="permissive")


def place_rows(place: Location, tiles: Tiles, chunks: Sequence[Chunk], ranks: np.ndarray, informs: np.ndarray) -> None:
    """Write what the tiles of a cluster need to find their rows.

    - ``informs.npy``: for each rank whether the row informs; ``chunk_of_rank.npy``: in which chunk it stands.
    - ``ranks/{piece}-{chunk}.npy``: the ranks of the rows of a chunk, -1 for those that are left out.
    - ``sources/{tile}.npy``: (k, 4) int64, of the chunks that a tile has rows of the piece and the number in there; how
      many rows of them better tiles have; and how many this one has.

    Args:
        ranks: (m,) int64, of all rows of the chunks.
        informs: (n,) truth, by rank.
    """
    chunk_of_rank = np.empty(tiles.n_rows, dtype=np.int32)
    start = 0
    for number, (piece, chunk, n_rows) in enumerate(chunks):
        own = ranks[start : start + n_rows]
        save_array(_ranks_file(place, piece, chunk), own)
        chunk_of_rank[own[own >= 0]] = number
        start += n_rows
    save_array(place / "informs.npy", informs)
    save_array(place / "chunk_of_rank.npy", chunk_of_rank)
    names = np.array([chunk[:2] for chunk in chunks], dtype=np.int64).reshape(-1, 2)
    before = np.zeros(len(names), dtype=np.int64)
    for tile in tiles:
        counts = np.bincount(chunk_of_rank[tile.start : tile.stop], minlength=len(names))
        there = np.flatnonzero(counts)
        save_array(_sources_file(place, tile.number), np.column_stack([names, before, counts])[there])
        before += counts


def _ranks_file(place: Location, piece: int, chunk: int) -> Location:
    return place / "ranks" / f"{piece}-{chunk}.npy"


def _sources_file(place: Location, tile: int) -> Location:
    return place / "sources" / f"{tile}.npy"


def _sorted_file(place: Location, piece: int, chunk: int) -> Location:
    return place / "sorted" / f"{piece}-{chunk}.npy"


def sort_piece(task: Comparison, rows_per_chunk: int, piece: Piece) -> dict[str, Any]:
    """Write the rows of a piece in rank order, normalised, those of each chunk by themselves.

    Memory: a chunk twice, and a batch as it is decoded.

    Raises:
        IntegrityError: they are not as many as when they were ranked.
    """
    place = cluster_place(task.scratch, piece.cluster.label)
    n_rows = sum(piece.cluster.rows) if piece.cluster.base is None else piece.cluster.base.n_rows
    buffer = np.empty((min(n_rows, rows_per_chunk + ROWS_PER_BATCH), task.dim), dtype=np.float32)
    for number, tables in enumerate(_chunks(task, piece, rows_per_chunk)):
        gathered = gather_unit_rows(tables, task.dim, buffer, checked_before=piece.cluster.base is not None)
        if len(load_array(_ranks_file(place, piece.number, number))) != gathered.n_rows:
            raise IntegrityError(f"files of cluster {piece.cluster.label} changed while they were compared")
        sort_chunk(place, piece.number, number, buffer)
    return {}


def sort_chunk(place: Location, piece: int, chunk: int, rows: np.ndarray) -> None:
    """Write the rows of a chunk in rank order, without those that have no rank. Memory: these once more."""
    ranks = load_array(_ranks_file(place, piece, chunk))
    ranked = np.flatnonzero(ranks >= 0)
    save_array(_sorted_file(place, piece, chunk), rows[ranked[np.argsort(ranks[ranked])]])


def gather_tile(task: Comparison, item: tuple[Tiles, int]) -> dict[str, Any]:
    """Gather the rows of one tile, in rank order and normalised; and tell which of them can be a match.

    Memory: the tile, and a chunk at most; the candidates of a tile once more where some rows are equal.
    """
    tiles, number = item
    tile, place = tiles[number], cluster_place(task.scratch, tiles.label)
    rows = np.empty((tile.stop - tile.start, task.dim), dtype=np.float32)
    order = np.argsort(load_rows(place / "chunk_of_rank.npy", tile.start, tile.stop), kind="stable")
    done = 0
    for piece, chunk, before, n_rows in load_array(_sources_file(place, number)).tolist():
        rows[order[done : done + n_rows]] = load_rows(_sorted_file(place, piece, chunk), before, before + n_rows)
        done += n_rows
    candidates = np.flatnonzero(load_rows(place / "informs.npy", tile.start, tile.stop))
    candidates = candidates[first_occurrences(rows[candidates])]
    save_array(rows_file(place, number), rows)
    save_array(candidates_file(place, number), candidates)
    return {"rows": len(rows)}


def rows_file(place: Location, tile: int) -> Location:
    """The rows of a tile, (n, d) float32 of length 1, in rank order."""
    return place / "rows" / f"{tile}.npy"


def candidates_file(place: Location, tile: int) -> Location:
    """Which of them inform and are not bit-identical to a better-ranked one of the tile, (c,) int64."""
    return place / "candidates" / f"{tile}.npy"


def list_rows(each: Each, task: Comparison, clusters: Sequence[Cluster], rows_per_tile: int) -> list[Listed]:
    """List the rows of large clusters, piece by piece."""
    pieces = [pieces_of(cluster, rows_per_tile) for cluster in clusters]
    every = [piece for some in pieces for piece in some]
    results = iter(each("list rows", partial(list_piece, task, rows_per_tile), every))
    listed = []
    for cluster, some in zip(clusters, pieces, strict=True):
        chunks, of_base = [], 0
        for piece in some:
            chunks += [(piece.number, number, n_rows) for number, n_rows in enumerate(next(results)["chunks"])]
            of_base = of_base if piece.cluster.base is None else len(chunks)
        listed.append(Listed(cluster, tuple(chunks), of_base))
    return listed


def lay_out_tiles(
    each: Each, task: Comparison, clusters: Sequence[Cluster], tiled: Sequence[Tiles], rows_per_tile: int
) -> None:
    """Lay the tiles of large clusters out, whose rows were listed and ranked."""
    wanted = {tiles.label for tiles in tiled}
    pieces = [piece for one in clusters if one.label in wanted for piece in pieces_of(one, rows_per_tile)]
    each("sort rows", partial(sort_piece, task, rows_per_tile), pieces)
    tiles = [(each_tiles, number) for each_tiles in tiled for number in range(len(each_tiles))]
    each("gather tiles", partial(gather_tile, task), tiles)
