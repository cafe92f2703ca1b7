"""The search for pairs, task by task: rows are laid out in *blocks*, each is compared with itself and with later ones.

A task holds two blocks, and writes the pairs that it finds as it finds them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import Backend, backend_module, to_host
from semdedup.dedup.compare.table import forest_schema
from semdedup.dedup.input.partitions import Partition
from semdedup.dedup.input.rows import low_information_mask, write_aside
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.kernels.bounds import short_rows
from semdedup.dedup.kernels.distinct import occurrences
from semdedup.dedup.kernels.join import Side, centroids_of
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.names import PAIRS, QUARANTINE
from semdedup.dedup.pairs.copies import Copies, expanded
from semdedup.dedup.pairs.match import choose_width, every_match
from semdedup.dedup.ranking import RankingStrategy, rank_order
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION, read_table, write_batches, write_table

ROWS_SAMPLED, BLOCKS_SAMPLED = 8192, 512
"""Rows that the principal axes are taken from, and blocks that these are of, at most."""


@dataclass(frozen=True)
class Block:
    """Rows that one task reads: a part of the input, or clusters of a result, each in a part of its own."""

    number: int
    parts: tuple[Partition, ...]
    clustered: bool


@dataclass(frozen=True)
class PairsTask:
    """What every task needs to know.

    Attributes:
        work: how to read the input.
        strategy: what ranks.
        dim: d.
        least: the least score of a match.
        max_pairs: a task that finds more stops.
        sampled: rows of each block that the principal axes are taken from.
        final: folder for what is going to be committed.
        backend: arrays to compute with.
        write_kwargs: options for writing Parquet.
    """

    work: Workspace
    strategy: RankingStrategy
    dim: int
    least: np.float32
    max_pairs: int
    sampled: int
    final: Location
    backend: Backend
    write_kwargs: Mapping[str, Any]

    def place(self, block: int) -> Location:
        """Folder of the files of a block."""
        return self.work.scratch / f"block-{block}"

    def matched(self, block: int, other: int) -> Location:
        """How many matches the rows of a block have in another, and where that is itself in itself."""
        return self.place(block) / f"matched-{other}.npy"

    @property
    def axes(self) -> Location:
        """The principal axes, without any where products are of whole rows."""
        return self.work.scratch / "axes.npy"


def lay_out_block(task: PairsTask, block: Block) -> dict[str, Any]:
    """Read and normalise the rows of a block, and write what later tasks need of them; the rest goes to the quarantine.

    - ``light.parquet``: ids and what ranks, of the rows that inform; ``rows.npy``: those of them that differ;
      ``different.npy``: which of these each is.
    - ``starts.npy``, ``centroids.npy``: where those of each cluster begin, and their means, of clustered rows.
    - ``sample.npy``: some of the rows.

    Memory: the block, three times.
    """
    xp = backend_module(task.backend)
    rows, lights, different, quarantined = [], [], [], []
    low_rows = n_rows = 0
    for part in block.parts:
        found, light, faulty = task.work.gather(part, task.dim)
        low = low_information_mask(light)
        if low is not None and low.any():
            low_rows += int(low.sum())
            found, light = found[~low], light.filter(pa.array(~low))
        quarantined.append(faulty)
        if not len(found):
            continue
        first, same_as = map(to_host, occurrences(xp.asarray(found)))
        different.append(np.searchsorted(first, same_as) + n_rows)
        n_rows += len(first)
        rows.append(found[first] if len(first) < len(found) else found)
        lights.append(light)
        del found
    place = task.place(block.number)
    every = rows[0] if len(rows) == 1 else np.concatenate([np.empty((0, task.dim), np.float32), *rows])
    save_array(place / "rows.npy", every)
    write_table(place / "light.parquet", pa.concat_tables(lights) if lights else pa.table({}))
    save_array(place / "different.npy", np.concatenate([np.empty(0, np.int64), *different]))
    save_array(place / "sample.npy", every[:: max(1, -(-len(every) // task.sampled))])
    if block.clustered:
        save_array(place / "starts.npy", np.cumsum([0, *map(len, rows)]))
        save_array(place / "centroids.npy", centroids_of(rows, task.dim))
    aside = write_aside(task.final / QUARANTINE / f"{PAIRS}-{block.number}.parquet", pa.concat_tables(quarantined))
    return {"rows": sum(map(len, lights)), LOW_INFORMATION: low_rows, "quarantined": aside}


def fit_axes(task: PairsTask, blocks: Sequence[int]) -> dict[str, Any]:
    """Choose the width of short rows, and write the axes that they are shortened by. Memory: the sample, d² numbers."""
    sample = np.concatenate([load_array(task.place(block) / "sample.npy") for block in blocks])
    width, axes = choose_width(sample, task.least)
    save_array(task.axes, axes)
    return {"width": width, "rows": len(sample)}


def load_side(task: PairsTask, block: Block) -> tuple[Side, Copies]:
    """The rows of a block that differ, with short rows (themselves where products are whole), and their copies."""
    xp, place = backend_module(task.backend), task.place(block.number)
    rows, axes = xp.asarray(load_array(place / "rows.npy")), xp.asarray(load_array(task.axes))
    short = short_rows(rows, axes) if axes.shape[1] else rows
    copies = Copies.of(load_array(place / "different.npy"))
    if not block.clustered:
        return Side(rows, short, np.array([0, len(rows)]), None), copies
    return Side(rows, short, load_array(place / "starts.npy"), load_array(place / "centroids.npy")), copies


class Ends:
    """The rows of one block or two, by their positions: the rows of the second follow those of the first."""

    def __init__(self, task: PairsTask, blocks: Sequence[Block]) -> None:
        self._strategy = task.strategy
        self._places = [task.place(block.number) / "light.parquet" for block in blocks]

    @cached_property
    def light(self) -> pa.Table:
        """Ids and what ranks; read only where there are pairs."""
        return pa.concat_tables(map(read_table, self._places), promote_options="permissive")

    @cached_property
    def ids(self) -> pa.ChunkedArray:
        """Their ids."""
        return self.light.column("id")

    @cached_property
    def rank(self) -> np.ndarray:
        """The rank of each among them, (n,) int64."""
        rank = np.empty(len(self.light), dtype=np.int64)
        rank[rank_order(self.light, self._strategy)] = np.arange(len(rank))
        return rank

    def table(self, pairs: Pairs) -> pa.Table:
        """Pairs of positions as rows of the result."""
        one, other, score = pairs
        first = self.rank[one] < self.rank[other]
        ends = np.where(first, one, other), np.where(first, other, one)
        columns = [*(self.ids.take(pa.array(end)) for end in ends), pa.array(score)]
        return pa.table(columns, schema=forest_schema(self.ids.type))


class Finding:
    """The pairs of two blocks as they are found, counted, up to a number.

    Attributes:
        pairs: how many there were.
        matches: how many of them each row is in, (n,) int64, of both blocks.
        counts: what the bounds left.
    """

    def __init__(self, task: PairsTask, left: tuple[Side, Copies], right: tuple[Side, Copies]) -> None:
        self._task, self._left, self._right = task, left, right
        self.first_of_second = 0 if left is right else len(left[1].rows)
        self.pairs, self.counts = 0, Counter[str]()
        self.matches = np.zeros(self.first_of_second + len(right[1].rows), dtype=np.int64)

    @property
    def too_many(self) -> bool:
        """Whether there are more than are wanted."""
        return self.pairs > self._task.max_pairs

    def __iter__(self) -> Iterator[Pairs]:
        (left, left_copies), (right, right_copies) = self._left, self._right
        for found in self._different(left, right, left_copies):
            for pairs in expanded(found, left_copies, right_copies, ROWS_AT_A_TIME):
                pairs = pairs._replace(right=pairs.right + self.first_of_second)
                self.pairs += len(pairs.left)
                for end in pairs[:2]:
                    self.matches += np.bincount(end, minlength=len(self.matches))
                yield pairs
                if self.too_many:
                    return

    def _different(self, left: Side, right: Side, copies: Copies) -> Iterator[Pairs]:
        """Pairs of rows that differ, and of one block each row that has copies with itself."""
        if left is right:
            yield copies.pairs()
        for found in every_match(left, right, self._task.least, self.counts):
            yield Pairs(*map(to_host, found))


def find_in_span(task: PairsTask, item: tuple[int, Block, tuple[Block, ...]]) -> dict[str, Any]:
    """Write the pairs of a block and some others, of which the first may be itself, a file for each that has any.

    Memory: the rows of two blocks, their short ones, their ids and what ranks, and the pairs of one product.

    Args:
        item: the number of the first file, the block, and the others.

    Returns:
        ``pairs``, ``counts`` of what bounds left, and whether it ``stopped`` because there were too many.
    """
    first, one, others = item
    left = load_side(task, one)
    n_pairs, counts = 0, Counter[str]()
    for number, other in enumerate(others, first):
        finding = _find_in_two(task, number, (one, left), other)
        n_pairs += finding.pairs
        counts.update(finding.counts)
        if n_pairs > task.max_pairs:
            break
    return {"pairs": n_pairs, "counts": dict(counts), "stopped": n_pairs > task.max_pairs}


def _find_in_two(task: PairsTask, number: int, own: tuple[Block, tuple[Side, Copies]], other: Block) -> Finding:
    one, left = own
    within = one.number == other.number
    finding = Finding(task, left, left if within else load_side(task, other))
    ends = Ends(task, [one] if within else [one, other])
    found = iter(finding)
    first = next(found, None)
    if first is not None:
        tables = (ends.table(pairs) for pairs in chain([first], found))
        write_batches(
            task.final / PAIRS / f"part-{number}.parquet", forest_schema(ends.ids.type), tables, task.write_kwargs
        )
        cut = finding.first_of_second or len(finding.matches)
        save_array(task.matched(one.number, other.number), finding.matches[:cut])
        if not within:
            save_array(task.matched(other.number, one.number), finding.matches[cut:])
    return finding


def most_matched(task: PairsTask, block: int) -> tuple[int, Any]:
    """The most matches that a row of a block has in what was found so far, and its id."""
    place = task.place(block)
    files = [file for file in place.files() if "/matched-" in file.url]
    if not files:
        return 0, None
    total = np.sum([load_array(place.at(file.url)) for file in files], axis=0)
    row = int(np.argmax(total))
    return int(total[row]), read_table(place / "light.parquet", ["id"]).column("id")[row].as_py()
