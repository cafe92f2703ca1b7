"""Blocks are compared two at a time; what was found is put in order, and tells which clips go. Functions of tasks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.overlaps.blocks import Blocks, cut_whole
from semdedup.overlaps.duplicates import Coverage, Spans
from semdedup.overlaps.match import Stretches, find_stretches
from semdedup.overlaps.names import DUPLICATE_COLUMNS, OVERLAP_DUPLICATES, OVERLAPS, overlap_columns
from semdedup.storage.chunks import read_every_chunk, write_chunks
from semdedup.storage.location import Location
from semdedup.storage.tables import write_batches, write_table

LONGEST = 10
"""Overlaps that are told of in the result, the longest ones."""

NUMBERS = ("start_a_s", "end_a_s", "start_b_s", "end_b_s", "speed", "score")


@dataclass(frozen=True)
class Comparison:
    """What every task needs to know.

    Attributes:
        blocks: where tracks and clips are.
        final: folder for what is going to be committed.
        mirror: whether mirror images are looked for, too.
        min_overlap: share of a clip that must be shown for it to go.
    """

    blocks: Blocks
    final: Location
    mirror: bool
    min_overlap: float

    @property
    def schema(self) -> pa.Schema:
        """The columns of the overlaps."""
        return overlap_columns(self.mirror)

    def found(self, one: int, other: int) -> Location:
        """What two blocks share: the columns of the overlaps, and the ranks ``a`` and ``b`` of the videos."""
        return self.blocks.scratch / "found" / f"{one}-{other}.arrows"

    def read(self, one: int, other: int) -> pa.Table:
        """The same, as it was written."""
        return pa.Table.from_batches(read_every_chunk(self.found(one, other)))


def compare_blocks(task: Comparison, item: tuple[int, int]) -> dict[str, Any]:
    """Find what the videos of two blocks share, or those of one, and write it where there is something.

    Memory: the tracks of two blocks as int8, what `find_stretches` takes, and the overlaps.

    Returns:
        ``overlaps``; ``pairs`` of different videos with one, videos ``within`` which there is one; ``seconds``, of b.
    """
    first, second = item
    blocks = task.blocks
    one = blocks.load(first)
    found = find_stretches(one, one if first == second else blocks.load(second), task.mirror)
    found = found._replace(a=found.a + blocks.bounds[first], b=found.b + blocks.bounds[second])
    n = len(found.a)
    if n:
        columns = {"a": found.a, "b": found.b, **{name: getattr(found, name) for name in task.schema.names
                                                  if not name.startswith("video")}}  # fmt: skip
        for name, ranks, block in (("video_a", found.a, first), ("video_b", found.b, second)):
            columns[name] = blocks.read_names(block).take(pa.array(ranks - blocks.bounds[block]))
        table = pa.table(columns).select(["a", "b", *task.schema.names])
        write_chunks(task.found(*item), [table.combine_chunks()])
    pairs = np.unique(np.stack([found.a, found.b]), axis=1)
    within = int(np.count_nonzero(pairs[0] == pairs[1]))
    return {
        "overlaps": n,
        "pairs": pairs.shape[1] - within,
        "within": within,
        "seconds": float(np.sum(found.end_b_s - found.start_b_s)),
    }


def write_overlaps(task: Comparison, item: tuple[int, Sequence[int], int]) -> list[dict[str, Any]]:
    """Write the overlaps whose better-ranked video is in one block, in the order of the ranks and then of time.

    Memory: what two blocks share, and `ROWS_AT_A_TIME` overlaps, or those of one video where they are more.

    Args:
        item: the block, those that it shares something with, and how many overlaps there are.

    Returns:
        The `LONGEST`, longest first.
    """
    block, others, n_rows = item
    first, last = task.blocks.bounds[block : block + 2]
    cuts = [0, last - first]
    if n_rows > ROWS_AT_A_TIME:
        counts = np.zeros(last - first, dtype=np.int64)
        for other in others:
            counts += np.bincount(task.read(block, other)["a"].to_numpy() - first, minlength=last - first)
        cuts = cut_whole(counts, ROWS_AT_A_TIME).tolist()
    longest: list[dict[str, Any]] = []

    def parts() -> Iterator[pa.Table]:
        for low, high in pairwise(cuts):
            part = _in_order(task, block, others, first + low, first + high)
            longest[:] = longest_of([*longest, *part.take(_longest(part)).to_pylist()])
            yield part

    write_batches(task.final / OVERLAPS / f"part-{block}.parquet", task.schema, parts())
    return longest


def _in_order(task: Comparison, block: int, others: Sequence[int], low: int, high: int) -> pa.Table:
    """The overlaps whose better-ranked videos have the ranks [low, high)."""
    tables = []
    for other in others:
        table = task.read(block, other)
        a = table["a"].to_numpy()
        tables.append(table.filter(pa.array((a >= low) & (a < high))))
    keys = ("a", "b", "start_a_s", "start_b_s", "end_a_s", "end_b_s")
    return pa.concat_tables(tables).sort_by([(key, "ascending") for key in keys]).select(task.schema.names)


def _longest(table: pa.Table) -> pa.Array:
    """Rows of the longest overlaps."""
    seconds = pc.subtract(table["end_b_s"], table["start_b_s"]).to_numpy()
    return pa.array(np.argsort(-seconds, kind="stable")[:LONGEST])


def longest_of(rows: Sequence[Mapping[str, Any]], n: int = LONGEST) -> list[dict[str, Any]]:
    """The longest of some overlaps, longest first; of equal ones those that come first."""
    return [dict(row) for row in sorted(rows, key=lambda row: row["start_b_s"] - row["end_b_s"])[:n]]


def find_duplicates(task: Comparison, item: tuple[int, Sequence[int]]) -> dict[str, Any]:
    """Write the clips of a block that go by overlap, in the order of rank and time.

    Memory: what two blocks share, the clips of two blocks, and see `Coverage`.

    Args:
        item: the block, and those of better-ranked videos that it shares something with, in order.

    Returns:
        ``clips`` of the block, ``gone`` of them, and their ``seconds``.
    """
    block, others = item
    clips = task.blocks.load_clips(block)
    coverage = Coverage(spans_of(clips))
    for other in others:
        existing = clips if other == block else task.blocks.load_clips(other)
        coverage.add(stretches_of(task.read(other, block)), spans_of(existing))
    gone = coverage.gone(task.min_overlap)
    n = len(gone.clip)
    if n:
        table = pa.table(
            {
                "id": clips["id"].take(pa.array(gone.clip)),
                "video": _names_of(task.blocks, gone.video),
                "start_s": gone.start_s,
                "end_s": gone.end_s,
            },
            schema=DUPLICATE_COLUMNS,
        )
        write_table(task.final / OVERLAP_DUPLICATES / f"part-{block}.parquet", table)
    spans = spans_of(clips)
    seconds = float(np.sum((spans.end_s - spans.start_s)[gone.clip]))
    return {"clips": len(clips), "gone": n, "seconds": seconds}


def spans_of(clips: pa.Table) -> Spans:
    """Clips of `blocks.CLIPS_SCHEMA` as arrays."""
    return Spans(*(clips[name].to_numpy() for name in ("rank", "start_s", "end_s")))


def stretches_of(table: pa.Table) -> Stretches:
    """Overlaps, as `compare_blocks` writes them, as arrays; their videos are ranks."""
    columns = {name: table[name].to_numpy() for name in ("a", "b", *NUMBERS)}
    return Stretches(**columns, mirrored=np.zeros(len(table), dtype=bool))


def _names_of(blocks: Blocks, ranks: np.ndarray) -> pa.Array:
    """The videos of some ranks."""
    of = np.searchsorted(blocks.bounds, ranks, side="right") - 1
    names = np.empty(len(ranks), dtype=object)
    for block in np.unique(of).tolist():
        rows = np.flatnonzero(of == block)
        names[rows] = blocks.read_names(block).take(pa.array(ranks[rows] - blocks.bounds[block])).to_pylist()
    return pa.array(names, pa.string())
