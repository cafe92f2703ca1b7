"""The comparison of two sets, task by task: each row of B gets its best match among all rows of A.

B is laid out in *blocks*, normalised; A is cut into *spans* of its files. A task holds one block and streams one span;
what the tasks of a block found is put together by `better_of`, in any order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.arrays import Array, Backend, array_module, backend_module, to_host
from semdedup.dedup.compare.table import score_table, write_scores
from semdedup.dedup.input.partitions import Partition
from semdedup.dedup.input.rows import gather_unit_rows, in_chunks, low_information_mask, write_aside
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.kernels.best_match import best_match
from semdedup.dedup.kernels.distinct import first_occurrences
from semdedup.dedup.names import SCORE, cluster_file
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION, ROWS_PER_BATCH, read_table, write_table


class Best(NamedTuple):
    """The best match of each row of B so far.

    Attributes:
        score: (q,) float32 in [0, 1]; -1 where there was nothing to match.
        ids: (q,) of the matches; null where there was nothing.
    """

    score: np.ndarray
    ids: pa.Array

    @classmethod
    def none(cls, n: int, kind: pa.DataType) -> Best:
        """Nothing found yet for n rows; `better_of` this and another is the other."""
        return cls(np.full(n, -1, dtype=np.float32), pa.nulls(n, kind))


def better_of(one: Best, other: Best) -> Best:
    """Row by row the higher score; of equal scores the smaller id. Associative and commutative."""
    smaller = pc.fill_null(pc.less(other.ids, one.ids), False).to_numpy(zero_copy_only=False)
    wins = (other.score > one.score) | ((other.score == one.score) & smaller)
    return Best(np.where(wins, other.score, one.score), pc.if_else(pa.array(wins), other.ids, one.ids))


def best_among(queries: Array, rows: np.ndarray, ids: pa.Array) -> Best:
    """The best match of each query among all rows, the one of smallest id among equals.

    Args:
        queries: (q, d) float32 of length 1, NumPy or CuPy.
        rows: (m, d) float32 of length 1, m ≥ 1, in host memory.
        ids: (m,) of the rows. The same id may be there twice.

    Cost: 2·q·m·d operations, decided in float64 (`kernels.best_match`); memory twice the rows and
    the products.
    """
    xp = array_module(queries)
    order = pc.sort_indices(ids).to_numpy()
    candidates = xp.asarray(rows[order])
    first = first_occurrences(candidates)
    if len(first) < len(candidates):
        candidates = candidates[first]
    ranks = xp.arange(len(candidates))
    found = best_match(queries, xp.full(len(queries), len(candidates)), candidates, ranks)
    position = order[to_host(first)[to_host(found.position)]]
    return Best(to_host(found.score), ids.take(pa.array(position)))


@dataclass(frozen=True)
class LeakTask:
    """What every task needs to know.

    Attributes:
        a, b: how to read the two sets.
        dim: d.
        chunk_rows: rows of A that are compared at a time.
        scratch: folder for blocks and for what was found between steps.
        target: folder for the tables of scores, until they are committed.
        quarantine: folder for rows of B that cannot be compared.
        backend: arrays to compute with.
        write_kwargs: options for writing Parquet.
    """

    a: Workspace
    b: Workspace
    dim: int
    chunk_rows: int
    scratch: Location
    target: Location
    quarantine: Location
    backend: Backend
    write_kwargs: Mapping[str, Any]

    def block(self, number: int) -> Location:
        """Folder of a block of B, normalised: ``rows.npy`` of those that inform, ``ids.parquet`` of all."""
        return self.scratch / f"block-{number}"

    def found(self, block: int, span: int) -> Location:
        """What a block found in a span of A."""
        return self.scratch / "found" / f"{block}-{span}.parquet"


def lay_out_block(task: LeakTask, item: tuple[int, Partition]) -> dict[str, Any]:
    """Check and normalise the rows of one block of B; write those that cannot be compared into the quarantine.

    Memory: the block, once more where rows are of low information, and a batch as it is read.
    """
    number, slices = item
    rows, light, faulty = task.b.gather(slices, task.dim)
    low = low_information_mask(light)
    informs = np.ones(len(rows), dtype=bool) if low is None else ~low
    save_array(task.block(number) / "rows.npy", rows if informs.all() else rows[informs])
    write_table(task.block(number) / "ids.parquet", pa.table({"id": light.column("id"), "informs": informs}))
    aside = write_aside(task.quarantine / cluster_file(number), faulty)
    return {"rows": len(rows), LOW_INFORMATION: len(rows) - int(informs.sum()), "quarantined": aside}


def compare_span(task: LeakTask, item: tuple[int, int, Partition]) -> dict[str, Any]:
    """Compare a block of B with the rows of one span of A, which are streamed.

    Memory: the block, twice while it is read; three times `chunk_rows` rows, four times where some are of low
    information; a batch as it is decoded; the products of `best_match`; three times the ids of the matches.

    Returns:
        ``rows`` of the span, and how many of them were ``left_out``, by reason.
    """
    block, number, span = item
    queries = backend_module(task.backend).asarray(load_array(task.block(block) / "rows.npy"))
    best = Best.none(len(queries), task.a.schema.id)
    most = min(task.chunk_rows, sum(piece.stop - piece.start for piece in span))
    buffer = np.empty((most + ROWS_PER_BATCH, task.dim), dtype=np.float32)
    n_rows, left_out = 0, Counter[str]()
    for chunk in in_chunks((rows.table for rows in task.a.read(span)), most):
        gathered = gather_unit_rows(chunk, task.dim, buffer)
        rows, ids = buffer[: gathered.n_rows], gathered.others.column("id").combine_chunks()
        n_rows += len(rows) + len(gathered.faulty)
        left_out.update(gathered.faulty.column("reason").to_pylist())
        low = low_information_mask(gathered.others)
        if low is not None and low.any():
            left_out[LOW_INFORMATION] += int(low.sum())
            rows, ids = rows[~low], ids.filter(pa.array(~low))
        if len(rows):
            best = better_of(best, best_among(queries, rows, ids))
    write_table(task.found(block, number), pa.table({"max_id": best.ids, SCORE: best.score}))
    return {"rows": n_rows, "left_out": dict(left_out)}


def write_block(task: LeakTask, item: tuple[int, int]) -> dict[str, Any]:
    """Put together what a block found in all spans, as a table of scores. Memory: the ids of the block, four times.

    A row of low information has score 0 and itself as its match.
    """
    number, n_spans = item
    light = read_table(task.block(number) / "ids.parquet")
    ids, informs = light.column("id").combine_chunks(), light.column("informs").to_numpy()
    tables = (read_table(task.found(number, span)) for span in range(n_spans))
    every = (Best(table.column(SCORE).to_numpy(), table.column("max_id").combine_chunks()) for table in tables)
    best = reduce(better_of, every, Best.none(int(informs.sum()), ids.type))
    score, match = np.zeros(len(ids), dtype=np.float32), np.arange(len(ids)) + len(best.ids)
    score[informs], match[informs] = best.score, np.arange(len(best.ids))
    max_ids = pa.chunked_array([best.ids, ids]).take(pa.array(match))
    table = score_table(ids, max_ids, score)
    write_scores(task.target, number, ids.type, [table], task.write_kwargs)
    return {"rows": len(table)}
