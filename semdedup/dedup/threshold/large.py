"""The rule `witness` in clusters that are too large for a task, in tiles of their ranks as the comparison has them.

Each tile looks at the rows that stay without a match; then the tiles, best ranks first, settle which of their other
rows stay; then each looks at those. Where no row needs a second look nothing is read.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from semdedup.arrays import backend_module
from semdedup.dedup.compare.tiles import Tile, lay_out_tile, tiles_of
from semdedup.dedup.kernels.greedy import Witnesses, best_kept, better_witness, first_look, stays_in_rank_order
from semdedup.dedup.threshold.groups import NEAREST, Part, Removing
from semdedup.dedup.threshold.vectors import Ranked, rows_of_ranks
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location

Each = Callable[[str, Callable[[Any], dict[str, Any]], Sequence[Any]], list[dict[str, Any]]]
"""Calls a function, a step of this name, for items, and gives the results in their order."""

Item = tuple[tuple[Tile, ...], int, int]
"""The tiles of a cluster, the number of one of them, and that of a threshold."""


ALONE, UNSURE = 1, 2
"""What a row is at a threshold: it stays without a match, or it needs a second look. All others go, or show nothing."""


def find_rows(task: Removing, part: Part, ranked: Ranked) -> np.ndarray:
    """Leave for the tiles where the rows of a large cluster are; whether each informs, (n,) truth.

    Memory: the light columns of the cluster, about 100 bytes a row.
    """
    place = task.place(part.cluster)
    positions, informs = rows_of_ranks(task.comparison, part.cluster, ranked.ids, None)
    save_array(place / "row_of_rank.npy", positions)
    save_array(place / "informs.npy", informs)
    return informs


def prepare_large(task: Removing, rows_per_tile: int, part: Part) -> dict[str, Any]:
    """Look at the scores of a large cluster, and find its rows in the files if some need more than that.

    Memory: the ids and scores of the cluster, about 100 bytes a row.

    Returns:
        ``unsure``: for each threshold how many rows need a second look; and ``rows``.
    """
    place = task.place(part.cluster)
    ranked = task.read(part)
    looks = [first_look(ranked.score, ranked.match, least)[1] for least in task.limits]
    if any(map(len, looks)):
        informs = find_rows(task, part, ranked)
        for number, (least, unsure) in enumerate(zip(task.limits, looks, strict=True)):
            role = np.zeros(len(informs), dtype=np.int8)
            role[(ranked.score < least) & informs] = ALONE
            role[unsure] = UNSURE
            save_array(place / f"roles-{number}.npy", role)
    (place / "tiles.json").write_json({"tiles": -(-len(ranked.ids) // rows_per_tile)})
    return {"rows": len(ranked.ids), "unsure": [len(unsure) for unsure in looks]}


class _Tiles:
    """The tiles of one cluster at one threshold, as a task reads them."""

    def __init__(self, task: Removing, item: Item) -> None:
        self.tiles, self.number, self.threshold = item
        self.place = task.place(self.tiles[0].cluster)
        self.least = task.limits[self.threshold]
        self._xp = backend_module(task.comparison.backend)
        self._roles = load_array(self.place / f"roles-{self.threshold}.npy")

    def ranks(self, number: int, role: int) -> np.ndarray:
        """Ranks of the rows of a role in a tile."""
        tile = self.tiles[number]
        return np.flatnonzero(self._roles[tile.start : tile.stop] == role) + tile.start

    def rows(self, number: int, ranks: np.ndarray) -> Any:
        """Rows of these ranks in a tile."""
        if not len(ranks):
            return self._xp.empty((0, 1), dtype=np.float32)
        return self._xp.asarray(load_array(self.place / f"rows-{number}.npy")[ranks - self.tiles[number].start])

    def file(self, what: str, number: int) -> Location:
        """A file that a tile leaves."""
        return self.place / f"{what}-{self.threshold}" / f"{number}.npy"

    def nearest(self, ranks: np.ndarray, candidates: Callable[[int], np.ndarray], last: int) -> Witnesses:
        """The nearest of the candidates of the tiles up to the last for the rows of these ranks of the own tile."""
        queries, found = self.rows(self.number, ranks), Witnesses.none(len(ranks))
        for number in range(last + 1) if len(ranks) else ():
            chosen = candidates(number)
            near = best_kept(queries, ranks, self.rows(number, chosen), chosen)
            found = better_witness(found, near)
        return found

    def settled(self, number: int) -> np.ndarray:
        """Ranks of those rows of a tile that stay on a second look."""
        return load_array(self.file("stays", number))


def look_at_alone(task: Removing, item: Item) -> dict[str, Any]:
    """Find for the unsure rows of a tile the nearest row that stays without a match. Memory: two tiles."""
    tiles = _Tiles(task, item)
    unsure = tiles.ranks(tiles.number, UNSURE)
    found = tiles.nearest(unsure, lambda number: tiles.ranks(number, ALONE), tiles.number)
    _save(tiles.file("alone", tiles.number), found)
    return {}


def settle_tile(task: Removing, item: Item) -> dict[str, Any]:
    """Find out which of the unsure rows of a tile stay; all tiles before it are settled. Memory: two tiles."""
    tiles = _Tiles(task, item)
    unsure, alone = tiles.ranks(tiles.number, UNSURE), _load(tiles.file("alone", tiles.number))
    rest = unsure[alone.score < tiles.least]
    before = tiles.nearest(rest, tiles.settled, tiles.number - 1)
    rest = rest[before.score < tiles.least]
    stays = rest[stays_in_rank_order(tiles.rows(tiles.number, rest), tiles.least)]
    save_array(tiles.file("stays", tiles.number), stays)
    return {"stay": len(stays)}


def look_at_settled(task: Removing, item: Item) -> dict[str, Any]:
    """Find for the unsure rows of a tile the nearest row that stays. Memory: two tiles."""
    tiles = _Tiles(task, item)
    unsure, alone = tiles.ranks(tiles.number, UNSURE), _load(tiles.file("alone", tiles.number))
    found = better_witness(alone, tiles.nearest(unsure, tiles.settled, tiles.number))
    _save(tiles.file("nearest", tiles.number), found)
    return {}


def _save(place: Location, found: Witnesses) -> None:
    array = np.empty(len(found.witness), dtype=NEAREST)
    array["witness"], array["score"] = found
    save_array(place, array)


def _load(place: Location) -> Witnesses:
    array = load_array(place)
    return Witnesses(array["witness"], array["score"])


def look_at_large(task: Removing, large: Sequence[Part], rows_per_tile: int, each: Each) -> None:
    """Leave in the scratch folder what `removals` needs of large clusters. Tiles that settle wait for those before."""
    if not large:
        return
    prepared = each("look at large clusters", partial(prepare_large, task, rows_per_tile), large)
    cut: list[tuple[Tile, ...]] = []
    items: list[Item] = []
    for part, found in zip(large, prepared, strict=True):
        if any(found["unsure"]):
            cut.append(tuple(tiles_of(part.cluster, found["rows"], rows_per_tile)))
            items += [(cut[-1], tile.number, e) for e in range(len(task.thresholds)) for tile in cut[-1]]
    each("lay out tiles", partial(lay_out_tile, task.comparison), [tile for tiles in cut for tile in tiles])
    each("look at tiles", partial(look_at_alone, task), items)
    for number in range(max(map(len, cut), default=0)):
        each(f"settle tiles {number}", partial(settle_tile, task), [item for item in items if item[1] == number])
    each("look at tiles again", partial(look_at_settled, task), items)
