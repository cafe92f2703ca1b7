"""Kinds of values that settings of the dedup alone take."""

from __future__ import annotations

from typing import Any

import numpy as np

from semdedup.arrays import to_host
from semdedup.dedup.ranking import strategy_of
from semdedup.settings import Found, Kind
from semdedup.settings.kinds import text

INITS = {"k-means++": "k-means++", "k-means||": "k-means++", "scalable-k-means++": "k-means++", "random": "random"}
"""What users may write. k-means++ on a sub-sample does here what k-means|| does elsewhere: it spares full passes."""


def _init(value: Any) -> Any:
    """A word, or centroids (k, d) float32 that are finite and not zero."""
    if isinstance(value, str):
        if value not in INITS:
            raise ValueError
        return value
    if np.ndim(value) != 2 or not np.size(value):
        raise Found(f"an array of shape {np.shape(value)}" if np.shape(value) else type(value).__name__)
    with np.errstate(over="ignore"):
        rows = np.ascontiguousarray(to_host(value) if hasattr(value, "get") else value, dtype=np.float32)
    for words, wrong in (("not finite", ~np.isfinite(rows).all(axis=1)), ("zero", ~rows.any(axis=1))):
        if wrong.any():
            raise Found(f"an array of shape {rows.shape} whose row {int(np.argmax(wrong))} is {words}")
    return rows


INIT = Kind(f"be one of {', '.join(INITS)}, or an array (n_clusters, d) of finite rows that are not zero", _init)


def _column_or_none(value: Any) -> str | None:
    return None if value is None or value == "" else str(text().plain(value))


COLUMN_OR_NONE = Kind("be the name of a column, or None where there is none", _column_or_none)


RANKING = Kind(
    "be a RankingStrategy, or a mapping such as {metadata_cols: [height], ascending: [false]} or {random_seed: 7}",
    strategy_of,
    metavar="MAPPING",
)


def _id(value: Any) -> str | int:
    """An id: text, or a whole number."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (str, int, np.integer)) or value == "":
        raise TypeError
    return value if isinstance(value, str) else int(value)


ID = Kind("be an id", _id)
