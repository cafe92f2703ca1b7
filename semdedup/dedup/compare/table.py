"""The one writer of tables of scores and of forests of matches. Ids may come with 64-bit offsets, for more than 2 GiB.

Scores: a file for each cluster, with the columns ``id``, ``max_id`` and the score, in the order of the ranks. Forests:
``id_a``, ``id_b`` and the score; a ranks before b, and the edges of a component are in the order of the rank of a.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.dedup.input.columns import narrow, narrow_type
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.names import BASE_ROWS, OF_BASE, SCORE, cluster_file
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.storage.location import Location
from semdedup.storage.tables import write_batches


def _written(ids: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    return narrow(ids, narrow_type(ids.type))


def score_schema(ids: pa.DataType) -> pa.Schema:
    """Columns of a table of scores, for ids of this type."""
    written = narrow_type(ids)
    return pa.schema([("id", written), ("max_id", written), (SCORE, pa.float32())])


def score_table(ids: pa.Array | pa.ChunkedArray, max_ids: pa.Array | pa.ChunkedArray, score: np.ndarray) -> pa.Table:
    """Rows of a table of scores: ids, (n,) of one type, those of their matches, and the scores, (n,) float32."""
    return pa.table([*(_written(column) for column in (ids, max_ids)), pa.array(score)], schema=score_schema(ids.type))


def forest_schema(ids: pa.DataType) -> pa.Schema:
    """Columns of a table of edges, for ids of this type."""
    written = narrow_type(ids)
    return pa.schema([("id_a", written), ("id_b", written), (SCORE, pa.float32())])


def forest_table(ids: pa.Array | pa.ChunkedArray, edges: Pairs, n_base: int | None = None) -> pa.Table:
    """Edges between rows of these ids, (n,) in the order of their ranks. The first `n_base` are of the base, if any."""
    ends = (_written(ids.take(pa.array(end))) for end in (edges.left, edges.right))
    table = pa.table([*ends, pa.array(edges.score)], schema=forest_schema(ids.type))
    return table if n_base is None else table.append_column(OF_BASE, pa.array(edges.left < n_base))


def write_forest(
    file: Location, ids: pa.DataType, tables: Iterable[pa.Table], with_base: bool, write_kwargs: Mapping[str, Any]
) -> None:
    """Write a forest, given in tables as `forest_table` makes them, of which one is in memory at a time."""
    schema = forest_schema(ids).append(pa.field(OF_BASE, pa.bool_())) if with_base else forest_schema(ids)
    write_batches(file, schema, tables, write_kwargs)


def write_base_rows(final: Location, cluster: int, ids: pa.Array | pa.ChunkedArray, kwargs: Mapping[str, Any]) -> None:
    """Write the ids, in rank order, of the rows of a base that an update compares with in a cluster."""
    kind = narrow_type(ids.type)
    parts = (ids.slice(start, ROWS_AT_A_TIME) for start in range(0, len(ids), ROWS_AT_A_TIME))
    tables = (pa.table({"id": _written(part)}) for part in parts)
    write_batches(final / BASE_ROWS / cluster_file(cluster), pa.schema([("id", kind)]), tables, kwargs)


def write_scores(
    folder: Location, cluster: int, ids: pa.DataType, tables: Iterable[pa.Table], write_kwargs: Mapping[str, Any]
) -> None:
    """Write the scores of one cluster, given in tables of which one is in memory at a time."""
    write_batches(folder / cluster_file(cluster), score_schema(ids), tables, write_kwargs)
