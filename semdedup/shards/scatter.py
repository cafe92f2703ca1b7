"""Rows of scores and embeddings go to the partition of clips that their id falls in, through files.

A task reads some row groups, sorts the rows and cuts them at the boundaries of the partitions; what it writes is one
file with a piece for each partition.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.columns import as_embeddings, check_once, embedding_type, is_fp16_bits
from semdedup.dedup.input.ids import as_ids, id_type
from semdedup.dedup.names import SCORE
from semdedup.dedup.results.checks import COLUMNS, read_checked
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.errors import BadFileError
from semdedup.shards.drops import DUPLICATE
from semdedup.shards.plan import Boundary, in_order, parts
from semdedup.storage.chunks import write_chunks
from semdedup.storage.location import Location
from semdedup.storage.pieces import piece_file
from semdedup.storage.tables import RowGroups, open_parquet

SCORES_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "score": pa.float32(),
        "max_id": pa.string(),
        "duplicate": pa.bool_(),
        "embedder": pa.int8(),
    }
)
DROPS_SCHEMA = pa.schema({"id": pa.string(), "reason": pa.string(), "embedder": pa.int8()})
EMBEDDINGS_SCHEMA = pa.schema({"id": pa.string(), "embedding": pa.list_(pa.float32())})


@dataclass(frozen=True)
class Scatter:
    """What every task that scatters rows to partitions needs to know.

    Attributes:
        source: storage of the tables.
        target: folder for the files that it writes, one a task.
        bounds: where the partitions begin.
        seed: of the order of samples.
        scored: whether the tables are scores; else ids to drop.
        eps: the threshold for scores that tell by themselves which rows go; None where ids to drop come apart.
        reason: of ids to drop that come apart, why they go.
        embedder: which of several embedders the tables are of, by its number.
    """

    source: Location
    target: Location
    bounds: tuple[Boundary, ...]
    seed: int | None
    scored: bool = False
    eps: float | None = None
    reason: str = DUPLICATE
    embedder: int = 0


def scatter_scores(task: Scatter, item: tuple[int, tuple[RowGroups, ...]]) -> dict[str, Any]:
    """Write the rows of some tables of scores, or of ids to drop, cut into partitions.

    Returns:
        ``rows`` that have an id, and ``ends``: where each partition ends in the file.
    """
    columns = COLUMNS if task.scored else ("id",)
    batches = (batch for part in item[1] for _, batch in read_checked(task.source, part, columns, columns))
    return _scatter(task, item, [SCORES_SCHEMA.empty_table(), *(_scores(task, batch) for batch in batches)])


def scatter_several(tasks: Sequence[Scatter], item: tuple[int, tuple[int, tuple[RowGroups, ...]]]) -> dict[str, Any]:
    """`scatter_scores` for tables of several results, of which the item names one by its number."""
    position, (number, groups) = item
    return scatter_scores(tasks[number], (position, groups))


def scatter_drops(tasks: Sequence[Scatter], item: tuple[int, tuple[int, tuple[RowGroups, ...]]]) -> dict[str, Any]:
    """The same for tables of ids to drop that come beside the scores, of which each task has a reason of its own."""
    position, (number, groups) = item
    task = tasks[number]
    tables = [DROPS_SCHEMA.empty_table()]
    for part in groups:
        for _, found in read_checked(task.source, part, ("id",), ("id",)):
            reasons = pa.array([task.reason]).take(pa.array(np.zeros(len(found), dtype=np.int8)))
            columns = [found["id"].cast(pa.string()), reasons, _number(task.embedder, len(found))]
            tables.append(pa.table(columns, schema=DROPS_SCHEMA))
    return _scatter(task, (position, groups), tables)


def _scores(task: Scatter, found: pa.RecordBatch) -> pa.Table:
    n = len(found)
    if not task.scored:
        score, max_id = pa.nulls(n, pa.float32()), pa.nulls(n, pa.string())
        duplicate = pa.array(np.full(n, True))
    else:
        score, max_id = found[SCORE], found["max_id"].cast(pa.string())
        mask = np.zeros(n, dtype=bool) if task.eps is None else duplicate_mask(score.to_numpy(), task.eps)
        duplicate = pa.array(mask)
    columns = [found["id"].cast(pa.string()), score, max_id, duplicate, _number(task.embedder, n)]
    return pa.table(columns, schema=SCORES_SCHEMA)


def _number(number: int, n: int) -> pa.Array:
    return pa.array(np.full(n, number, dtype=np.int8))


def scatter_embeddings(task: Scatter, item: tuple[int, tuple[RowGroups, ...]]) -> dict[str, Any]:
    """Write the rows of some tables of embeddings, cut into partitions. Rows without one are left out.

    Returns:
        ``rows``, and ``ends``: where each partition ends in the file.
    """
    tables = []
    for found in _read(task.source, item[1]):
        ids, rows = found["id"].cast(pa.string()), found["embedding"].cast(EMBEDDINGS_SCHEMA.field("embedding").type)
        tables.append(pa.table({"id": ids, "embedding": rows}).filter(pc.is_valid(rows)))
    return _scatter(task, item, tables)


def _read(source: Location, groups: Sequence[RowGroups]) -> Iterator[pa.Table]:
    """Tables of embeddings; ids may be text or whole numbers, which are compared as text."""
    for part in groups:
        with open_parquet(source.at(part.url)) as parquet:
            schema = parquet.schema_arrow
            check_once(schema.names, ("id", "embedding"), part.url)
            fp16_bits = is_fp16_bits(None, part.url)
            for name in ("id", "embedding"):
                if name not in schema.names:
                    raise BadFileError(f"the file {part.url} has no column {name!r}; it has {schema.names}")
                found = schema.field(name).type
                if (id_type(found) if name == "id" else embedding_type(found, fp16_bits)) is None:
                    raise BadFileError(
                        f"the column {name!r} of {part.url} is {schema.field(name).type}, which cannot be used"
                    )
            table = parquet.read_row_groups(list(part.of(parquet)), columns=["id", "embedding"], use_threads=False)
        ids = as_ids(table["id"], id_type(table["id"].type))
        yield pa.table({"id": ids, "embedding": as_embeddings(table["embedding"], fp16_bits)})


def _scatter(task: Scatter, item: tuple[int, Any], tables: Sequence[pa.Table]) -> dict[str, Any]:
    table = pa.concat_tables(tables)
    rows = in_order(table.filter(pc.is_valid(table["id"])), task.seed)
    ends = write_chunks(piece_file(task.target, item[0]), parts(rows, task.bounds))
    return {"rows": len(rows), "ends": ends}
