"""Rows that are taken in rank order: the better-ranked ones that stay decide whether a row stays.

They come as tiles. Which rows of a tile stay is known only after those of the tiles before it, but what is known by
then is looked at side by side. Tiles are settled *band* by band: first those of a band are compared with the rows that
stay of all bands before it, in tasks of bounded work; then one task settles the band, as many tiles as it has time for.
Only bands wait for each other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from semdedup.arrays import Array, Backend, backend_module
from semdedup.dedup.compare.lay_out import Each, rows_file
from semdedup.dedup.compare.spans import cut_evenly, tiles_per_task
from semdedup.dedup.kernels.greedy import best_kept, stays_in_rank_order
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location


class Rest(NamedTuple):
    """Rows to be taken in rank order.

    Attributes:
        folder: with a file of rows for each tile, `rows_file`, best ranks first.
        n_tiles: how many.
        least: the least score of a match.
        backend: arrays to compute with.
    """

    folder: Location
    n_tiles: int
    least: np.float32
    backend: Backend

    def rows(self, number: int) -> Array:
        """The rows of a tile, (n, d)."""
        return backend_module(self.backend).asarray(load_array(rows_file(self.folder, number)))

    def kept(self, number: int) -> Array:
        """Those of them that stay."""
        rows = load_array(rows_file(self.folder, number))
        return backend_module(self.backend).asarray(rows[load_array(stays_file(self.folder, number))])


def stays_file(folder: Location, tile: int) -> Location:
    """Which rows of a tile stay, positions, (s,) int64."""
    return folder / "stays" / f"{tile}.npy"


def _open_file(folder: Location, tile: int, first: int) -> Location:
    return folder / "open" / f"{tile}-{first}.npy"


class Look(NamedTuple):
    """A tile of a band, and the tiles [first, last) of earlier bands that one task compares it with."""

    rest: Rest
    number: int
    first: int
    last: int


def tiles_per_band(rows_per_tile: int, dim: int) -> int:
    """Tiles that one task settles: all pairs of them are as much work as it may be."""
    return max(1, (math.isqrt(8 * tiles_per_task(rows_per_tile, dim) + 1) - 1) // 2)


def _without_match(rows: Array, kept: Array, least: np.float32) -> np.ndarray:
    """Which rows match none of better-ranked ones, (n,) truth."""
    found = best_kept(rows, np.full(len(rows), len(kept)), kept, np.arange(len(kept)))
    return found.score < least


def look_at_band(look: Look) -> dict[str, Any]:
    """Find the rows of a tile that match no row that stays of some tiles of earlier bands. Memory: two tiles."""
    rest = look.rest
    rows = rest.rows(look.number)
    is_open = np.arange(len(rows))
    for number in range(look.first, look.last):
        if len(is_open):
            on_device = backend_module(rest.backend).asarray(is_open)
            is_open = is_open[_without_match(rows[on_device], rest.kept(number), rest.least)]
    save_array(_open_file(rest.folder, look.number, look.first), is_open)
    return {}


def settle_band(item: tuple[Rest, Sequence[int], Sequence[int]]) -> dict[str, Any]:
    """Find out which rows of the tiles of a band stay; all tiles before it are settled. Memory: two tiles.

    Args:
        item: the rows; numbers of the tiles; where the spans begin of earlier tiles that they were compared with.
    """
    rest, band, spans = item
    on_device = backend_module(rest.backend).asarray
    for number in band:
        rows = rest.rows(number)
        is_open = np.arange(len(rows))
        for first in spans:
            is_open = np.intersect1d(is_open, load_array(_open_file(rest.folder, number, first)), assume_unique=True)
        for before in range(band[0], number):
            if len(is_open):
                is_open = is_open[_without_match(rows[on_device(is_open)], rest.kept(before), rest.least)]
        stays = is_open[stays_in_rank_order(rows[on_device(is_open)], rest.least)]
        save_array(stays_file(rest.folder, number), stays)
    return {}


def settle(each: Each, rests: Sequence[Rest], rows_per_tile: int, dim: int) -> None:
    """Leave which rows of all tiles stay, `stays_file`, of several sets of rows side by side."""
    per_band, per_task = tiles_per_band(rows_per_tile, dim), tiles_per_task(rows_per_tile, dim)
    for first in range(0, max((rest.n_tiles for rest in rests), default=0), per_band):
        bands = [(rest, range(first, min(first + per_band, rest.n_tiles))) for rest in rests if rest.n_tiles > first]
        spans = list(cut_evenly(first, per_task))
        looks = [Look(rest, number, *span) for rest, band in bands for number in band for span in spans]
        step = first // per_band
        each(f"compare with rows that stay {step}", look_at_band, looks)
        each(f"settle rows {step}", settle_band, [(rest, band, [a for a, _ in spans]) for rest, band in bands])
