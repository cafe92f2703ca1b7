"""The one writer of tables of scores: a file for each cluster, with the columns ``id``, ``max_id`` and the score."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.dedup.names import SCORE, cluster_file
from semdedup.storage.location import Location
from semdedup.storage.tables import write_batches


def score_schema(ids: pa.DataType) -> pa.Schema:
    """Columns of a table of scores."""
    return pa.schema([("id", ids), ("max_id", ids), (SCORE, pa.float32())])


def score_table(ids: pa.Array | pa.ChunkedArray, max_ids: pa.Array | pa.ChunkedArray, score: np.ndarray) -> pa.Table:
    """Rows of a table of scores: ids, (n,) of one type, those of their matches, and the scores, (n,) float32."""
    return pa.table([ids, max_ids, pa.array(score)], schema=score_schema(ids.type))


def write_scores(
    folder: Location, cluster: int, ids: pa.DataType, tables: Iterable[pa.Table], write_kwargs: Mapping[str, Any]
) -> None:
    """Write the scores of one cluster, given in tables of which one is in memory at a time."""
    write_batches(folder / cluster_file(cluster), score_schema(ids), tables, write_kwargs)
