"""Forests of the matches of large clusters, by rank: files of edges that are merged in rounds."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from typing import Any, NamedTuple, TypeVar

from semdedup.dedup.compare.lay_out import Each, cluster_place
from semdedup.dedup.kernels.forest import thinned
from semdedup.dedup.kernels.matches import Pairs
from semdedup.storage.arrays import load_columns, save_columns
from semdedup.storage.location import Location

T = TypeVar("T")

EDGES_PER_TASK = 1 << 20
"""Edges that a task merges, or those of two files."""

FOREST = "forest.npy"
"""The forest of a whole cluster, in its folder."""


def save_edges(file: Location, edges: Pairs) -> None:
    """Write edges."""
    save_columns(file, **edges._asdict())


def load_edges(file: Location) -> Pairs:
    """Read edges."""
    return Pairs(**load_columns(file))


def merging_memory(n_rows: int) -> int:
    """Most bytes that merging the forests of a cluster of `n_rows` rows takes, all of which match another: two forests
    of at most as many edges each, of 200 bytes while one forest is made of them."""
    return 200 * 2 * max(n_rows, EDGES_PER_TASK)


class Merge(NamedTuple):
    """Files of edges of a cluster of `n_rows` rows that one task merges, and the name of the file that it writes."""

    label: int
    n_rows: int
    names: tuple[str, ...]
    target: str


def merge_edges(scratch: Location, merge: Merge) -> dict[str, Any]:
    """Write the forest of the edges in some files. Memory: see `merging_memory`."""
    place = cluster_place(scratch, merge.label)
    forest = thinned([load_edges(place / name) for name in merge.names], merge.n_rows)
    save_edges(place / merge.target, forest)
    return {"edges": len(forest.left)}


def packs(counted: Sequence[tuple[T, int]], most: int) -> list[tuple[T, ...]]:
    """Pack what comes with a number of edges, in its order, into parts of at most `most`, or of two; the last part may
    be one."""
    parts: list[list[T]] = [[]]
    held = 0
    for each, n_edges in counted:
        if len(parts[-1]) > 1 and held + n_edges > most:
            parts.append([])
            held = 0
        parts[-1].append(each)
        held += n_edges
    return [tuple(part) for part in parts]


def merged_in_rounds(
    found: Sequence[list[tuple[T, int]]],
    merge: Callable[[int, list[tuple[int, tuple[T, ...], bool]]], list[tuple[T, int]]],
) -> None:
    """Merge lists of files until each list has become one.

    Args:
        found: lists of files, each with the number of its edges. Those without edges are left out.
        merge: called with the number of a round, and for each part to merge that of its list, the files, and whether
            what it makes is the last of the list; gives the files made, with their edges.
    """
    lists = [[each for each in files if each[1]] for files in found]
    open_lists = set(range(len(lists)))
    for number in count():
        items = []
        for index in sorted(open_lists):
            parts = packs(lists[index], EDGES_PER_TASK)
            items += [(index, part, len(parts) == 1) for part in parts]
        if not items:
            return
        made = merge(number, items)
        for index in open_lists:
            lists[index] = [file for file, item in zip(made, items, strict=True) if item[0] == index]
        open_lists -= {index for index, _, last in items if last}


def merge_forests(each: Each, scratch: Location, clusters: Sequence[tuple[int, int, list[tuple[str, int]]]]) -> None:
    """Leave the forest of each of some clusters as `FOREST` in its folder.

    Args:
        clusters: of each its number, its rows, and files of edges with the number of these.
    """

    def merge(number: int, items: list[tuple[int, tuple[str, ...], bool]]) -> list[tuple[str, int]]:
        jobs = [
            Merge(*clusters[index][:2], files, FOREST if last else f"edges/merged-{number}-{position}.npy")
            for position, (index, files, last) in enumerate(items)
        ]
        results = each(f"merge forests {number}", partial(merge_edges, scratch), jobs)
        return [(job.target, result["edges"]) for job, result in zip(jobs, results, strict=True)]

    merged_in_rounds([files for _, _, files in clusters], merge)
