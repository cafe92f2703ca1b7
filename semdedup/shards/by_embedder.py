"""What the results of each of a run's embedders tell of the clips of one partition; mostly there is one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.errors import DuplicateIdError
from semdedup.shards.drops import DUPLICATE

EXAMPLES = 3


@dataclass(frozen=True)
class ByEmbedder:
    """What the results of one embedder tell of n clips.

    Attributes:
        rows: their rows of `SCORES_SCHEMA`, null where there are none.
        duplicate: which of them are near-duplicates by it, (n,) bool.
        unscored: which of them have no score, (n,) bool.
    """

    rows: pa.Table
    duplicate: np.ndarray
    unscored: np.ndarray

    @classmethod
    def of(cls, number: int, ids: pa.Array, scores: pa.Table, apart: pa.Table, scored: bool) -> ByEmbedder:
        """What that of a number tells.

        Args:
            number: of the embedder.
            ids: of the clips.
            scores: rows of `SCORES_SCHEMA` of all embedders.
            apart: rows of `DROPS_SCHEMA`, likewise.
            scored: whether these are scores, of which a clip has one.

        Raises:
            DuplicateIdError: it has more.
        """
        own = scores.filter(pc.equal(scores["embedder"], number))
        at = positions_of(ids, own["id"], unique=scored)
        rows = own.take(at)
        is_own = pc.and_(pc.equal(apart["reason"], DUPLICATE), pc.equal(apart["embedder"], number))
        duplicate = among(ids, apart.filter(is_own)) | pc.fill_null(rows["duplicate"], False).to_numpy()
        return cls(rows, duplicate, at.is_null().to_numpy(zero_copy_only=False))


def among(ids: pa.Array, rows: pa.Table) -> np.ndarray:
    """Which ids are those of rows, (n,) bool."""
    found: np.ndarray = pc.is_in(ids, value_set=rows["id"]).to_numpy(False)
    return found


def of_the_first(by: Sequence[ByEmbedder], name: str) -> pa.ChunkedArray:
    """A column of scores, of each clip by the first embedder by which it is a near-duplicate, else that has a score."""
    said = [pc.if_else(pa.array(each.duplicate), each.rows[name], None) for each in by]
    return pc.coalesce(*said, *(each.rows[name] for each in by))


def positions_of(ids: pa.Array, others: pa.ChunkedArray, *, unique: bool) -> pa.Array:
    """The position of each id among others; null where it is not among them.

    Raises:
        DuplicateIdError: an id occurs twice there, and should not.
    """
    if unique and len(pc.unique(others)) < len(others):
        counted = pc.value_counts(others)
        twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
        raise DuplicateIdError(
            "the tables of scores or embeddings hold ids more than once, so that it is not clear what a clip gets: "
            f"{', '.join(map(repr, twice[:EXAMPLES].to_pylist()))}. Give one result, and not several together."
        )
    return pc.index_in(ids, value_set=others.combine_chunks())
