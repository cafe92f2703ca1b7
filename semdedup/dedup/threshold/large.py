"""The rule `witness` in clusters that are too large for a task, in tiles of their ranks as the comparison has them.

Each tile looks at the rows that stay without a match. Those of its other rows that match none of these, the rest, are
put together and settled in rank order (`semdedup.dedup.threshold.settle`); then each tile looks at the ones that stay.
Where no row needs a second look nothing is read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial, reduce
from typing import Any, NamedTuple

import numpy as np

from semdedup.arrays import Array, backend_module
from semdedup.dedup.compare.lay_out import Each, Listed, lay_out_tiles, list_rows, rows_file
from semdedup.dedup.compare.spans import Span, Tiles, cut_evenly, tile_spans, tiles_per_task
from semdedup.dedup.kernels.greedy import Witnesses, best_kept, better_witness, first_look
from semdedup.dedup.threshold.groups import Part, Removing
from semdedup.dedup.threshold.settle import Rest, settle, stays_file
from semdedup.dedup.threshold.vectors import place_scored
from semdedup.storage.arrays import load_array, load_columns, load_rows, save_array, save_columns
from semdedup.storage.location import Location

ALONE, UNSURE = 1, 2
"""What a row is at a threshold: it stays without a match, or it needs a second look. All others go, or show nothing."""


class At(NamedTuple):
    """The tiles of a cluster at one of the thresholds, by its number."""

    tiles: Tiles
    threshold: int


Source = tuple[int, int, int]
"""Rows of a tile that matches none of the rows that stay alone: its number, and which of them, [start, stop)."""


def prepare_large(task: Removing, rows_per_tile: int, part: Part) -> dict[str, Any]:
    """Look at the scores of a large cluster. Memory: its ids and scores, see `vectors.read_ranked`.

    Returns:
        ``unsure``: for each threshold how many rows need a second look; and ``rows``.
    """
    ranked = task.read(part)
    looks = [first_look(ranked.score, ranked.match, least)[1] for least in task.limits]
    (task.place(part.cluster.label) / "tiles.json").write_json({"tiles": -(-len(ranked.ids) // rows_per_tile)})
    return {"rows": len(ranked.ids), "unsure": [len(unsure) for unsure in looks]}


def place_unsure(task: Removing, item: tuple[Part, Listed, Tiles]) -> dict[str, Any]:
    """Leave for the tiles where their rows are, and what these are at each threshold.

    Memory: the ids and scores of the cluster, and its ids once more as they are in the files.
    """
    part, listed, tiles = item
    ranked, place = task.read(part), task.place(tiles.label)
    informs = place_scored(task.comparison, place, ranked.ids, listed, tiles)
    for number, least in enumerate(task.limits):
        role = np.zeros(len(informs), dtype=np.int8)
        role[(ranked.score < least) & informs] = ALONE
        role[first_look(ranked.score, ranked.match, least)[1]] = UNSURE
        save_array(place / f"roles-{number}.npy", role)
    return {}


def ranks_of_role(task: Removing, at: At, number: int, role: int) -> np.ndarray:
    """Ranks of the rows of a role in a tile, (r,) int64."""
    tile = at.tiles[number]
    roles = load_rows(task.place(at.tiles.label) / f"roles-{at.threshold}.npy", tile.start, tile.stop)
    return np.flatnonzero(roles == role) + tile.start


def rows_of_ranks(task: Removing, at: At, number: int, ranks: np.ndarray) -> Array:
    """Rows of these ranks in a tile, (r, d)."""
    rows = load_array(rows_file(task.place(at.tiles.label), number)) if len(ranks) else np.empty((0, 1), np.float32)
    return backend_module(task.comparison.backend).asarray(rows[ranks - at.tiles[number].start])


def look_file(task: Removing, what: str, at: At, name: str) -> Location:
    """What a tile found at a threshold, or a span of it."""
    return task.place(at.tiles.label) / f"{what}-{at.threshold}" / f"{name}.npy"


def rest_folder(task: Removing, at: At) -> Location:
    """Where the rest of a cluster is settled."""
    return task.place(at.tiles.label) / f"rest-{at.threshold}"


def look_at_alone(task: Removing, item: tuple[At, Span]) -> dict[str, Any]:
    """Find for the unsure rows of a tile the nearest of the rows of a span that stay without a match.

    Memory: two tiles. Operations: see `spans.tiles_per_task`.
    """
    at, span = item
    unsure = ranks_of_role(task, at, span.number, UNSURE)
    queries, found = rows_of_ranks(task, at, span.number, unsure), Witnesses.none(len(unsure))
    for number in range(span.first, span.last) if len(unsure) else ():
        chosen = ranks_of_role(task, at, number, ALONE)
        found = better_witness(found, best_kept(queries, unsure, rows_of_ranks(task, at, number, chosen), chosen))
    _save(look_file(task, "alone-of-spans", at, f"{span.number}-{span.first}"), found)
    return {}


def find_rest(task: Removing, item: tuple[At, int, Sequence[int]]) -> dict[str, Any]:
    """Put together what the spans of a tile found, and write its rows that match none of those.

    Args:
        item: the tiles, the number of one of them, and where its spans begin.
    """
    at, number, spans = item
    found = [_load(look_file(task, "alone-of-spans", at, f"{number}-{first}")) for first in spans]
    alone = reduce(better_witness, found)
    _save(look_file(task, "alone", at, str(number)), alone)
    unsure = ranks_of_role(task, at, number, UNSURE)
    rest = unsure[alone.score < task.limits[at.threshold]]
    save_array(rest_folder(task, at) / "ranks-of-tiles" / f"{number}.npy", rest)
    if len(rest):
        rows = load_array(rows_file(task.place(at.tiles.label), number))[rest - at.tiles[number].start]
        save_array(rest_folder(task, at) / "rows-of-tiles" / f"{number}.npy", rows)
    return {"rest": len(rest)}


def cut_rest(counts: Sequence[int], rows_per_tile: int) -> list[list[Source]]:
    """Put the rows of several tiles, that have so many each, together as tiles of `rows_per_tile` rows."""
    made: list[list[Source]] = []
    free = 0
    for number, count in enumerate(counts):
        start = 0
        while start < count:
            if not free:
                made.append([])
                free = rows_per_tile
            stop = min(count, start + free)
            made[-1].append((number, start, stop))
            free -= stop - start
            start = stop
    return made


def gather_rest(task: Removing, item: tuple[At, int, Sequence[Source]]) -> dict[str, Any]:
    """Put the rows of a tile of the rest together. Memory: the tile twice."""
    at, number, sources = item
    folder = rest_folder(task, at)
    for what, target in (("rows", rows_file(folder, number)), ("ranks", _ranks_file(folder, number))):
        found = [load_rows(folder / f"{what}-of-tiles" / f"{tile}.npy", *ends) for tile, *ends in sources]
        save_array(target, np.concatenate(found))
    return {}


def _ranks_file(folder: Location, tile: int) -> Location:
    return folder / "ranks" / f"{tile}.npy"


def look_at_settled(task: Removing, item: tuple[At, int, tuple[int, int]]) -> dict[str, Any]:
    """Find for the unsure rows of a tile the nearest of those of the rest that stay, in some tiles of the rest.

    Memory: two tiles. Operations: see `spans.tiles_per_task`.
    """
    at, number, (first, last) = item
    folder = rest_folder(task, at)
    unsure = ranks_of_role(task, at, number, UNSURE)
    queries, found = rows_of_ranks(task, at, number, unsure), Witnesses.none(len(unsure))
    for tile in range(first, last) if len(unsure) else ():
        stays = load_array(stays_file(folder, tile))
        kept = backend_module(task.comparison.backend).asarray(load_array(rows_file(folder, tile))[stays])
        ranks = load_array(_ranks_file(folder, tile))[stays]
        found = better_witness(found, best_kept(queries, unsure, kept, ranks))
    _save(look_file(task, "settled", at, f"{number}-{first}"), found)
    return {}


def merge_looks(task: Removing, item: tuple[At, int, Sequence[int]]) -> dict[str, Any]:
    """Put together what a tile found among the rows that stay. Memory: 12 bytes an unsure row, twice."""
    at, number, spans = item
    found = _load(look_file(task, "alone", at, str(number)))
    for first in spans:
        found = better_witness(found, _load(look_file(task, "settled", at, f"{number}-{first}")))
    _save(look_file(task, "nearest", at, str(number)), found)
    return {}


def _save(place: Location, found: Witnesses) -> None:
    save_columns(place, **found._asdict())


def _load(place: Location) -> Witnesses:
    return Witnesses(**load_columns(place))


def look_at_large(task: Removing, large: Sequence[Part], rows_per_tile: int, each: Each) -> None:
    """Leave in the scratch folder what `removals` needs of large clusters."""
    if not large:
        return
    prepared = each("look at large clusters", partial(prepare_large, task, rows_per_tile), large)
    some = [(part, found) for part, found in zip(large, prepared, strict=True) if any(found["unsure"])]
    parts = [part for part, _ in some]
    tiled = [Tiles(part.cluster.label, found["rows"], rows_per_tile) for part, found in some]
    place = partial(place_unsure, task)
    lay_out_scored(each, task, parts, tiled, place)
    asked = [
        At(tiles, threshold)
        for tiles, (_, found) in zip(tiled, some, strict=True)
        for threshold, count in enumerate(found["unsure"])
        if count
    ]
    _look(each, task, asked, rows_per_tile)


def lay_out_scored(each: Each, task: Removing, parts: Sequence[Part], tiled: Sequence[Tiles], place: Any) -> None:
    """Lay out the tiles of large clusters by the ranks of their scores, which `place` finds in a task for each."""
    clusters, rows_per_tile = [part.cluster for part in parts], tiled[0].rows_per_tile if tiled else 1
    listed = list_rows(each, task.comparison, clusters, rows_per_tile)
    each("place rows", place, list(zip(parts, listed, tiled, strict=True)))
    lay_out_tiles(each, task.comparison, clusters, tiled, rows_per_tile)


def _look(each: Each, task: Removing, asked: Sequence[At], rows_per_tile: int) -> None:
    dim = task.comparison.dim
    looks = [(at, span) for at in asked for span in tile_spans(at.tiles, dim)]
    each("look at rows that stay", partial(look_at_alone, task), looks)
    spans: dict[tuple[At, int], list[int]] = {}
    for at, span in looks:
        spans.setdefault((at, span.number), []).append(span.first)
    items = [(*key, sorted(firsts)) for key, firsts in spans.items()]
    found = each("find the rest", partial(find_rest, task), items)
    counts: dict[At, list[int]] = {at: [0] * len(at.tiles) for at in asked}
    for (at, number, _), result in zip(items, found, strict=True):
        counts[at][number] = result["rest"]
    made = {at: cut_rest(counts[at], rows_per_tile) for at in asked}
    gather = [(at, number, sources) for at in asked for number, sources in enumerate(made[at])]
    each("gather the rest", partial(gather_rest, task), gather)
    rests = [
        Rest(rest_folder(task, at), len(made[at]), task.limits[at.threshold], task.comparison.backend) for at in asked
    ]
    settle(each, rests, rows_per_tile, dim)
    last = [
        (at, number, list(_spans_of_settled(made[at], number, tiles_per_task(rows_per_tile, dim))))
        for at in asked
        for number in range(len(at.tiles))
    ]
    each(
        "look at settled rows",
        partial(look_at_settled, task),
        [(at, number, span) for at, number, some in last for span in some],
    )
    each("merge looks", partial(merge_looks, task), [(at, number, [a for a, _ in some]) for at, number, some in last])


def _spans_of_settled(made: Sequence[Sequence[Source]], number: int, most: int) -> Iterator[tuple[int, int]]:
    """The tiles of the rest with rows that rank better than some of a tile, in spans for a task each."""
    return cut_evenly(sum(sources[0][0] <= number for sources in made), most)
