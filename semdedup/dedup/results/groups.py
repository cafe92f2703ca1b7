"""Groups of duplicates: from pairs of a duplicate and its match to the kept row that stays for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.names import SCORE
from semdedup.dedup.results.pairs import Group, Pair


def groups_of(duplicates: pa.Table, cluster: int, across: bool) -> Iterator[Group]:
    """The duplicates of one cluster, sorted into groups, in the order in which their kept rows first come.

    Where rows were compared `across` two sets the kept row is the match itself.
    """
    ids, max_ids = (_wide(duplicates.column(name)) for name in ("id", "max_id"))
    kept = max_ids if across else max_ids.take(pa.array(_ends(ids, max_ids)))
    encoded = kept.dictionary_encode()
    table = pa.table({"id": ids, "max_id": max_ids, SCORE: duplicates.column(SCORE), "group": encoded.indices})
    by_group = table.sort_by([("group", "ascending"), (SCORE, "descending"), ("id", "ascending")])
    edges = np.bincount(encoded.indices.to_numpy(), minlength=len(encoded.dictionary)).cumsum()
    for number, (start, stop) in enumerate(itertools.pairwise([0, *edges.tolist()])):
        rows = by_group.slice(start, stop - start)
        columns = (rows.column(name).to_pylist() for name in ("id", "max_id", SCORE))
        pairs = (Pair(row_id, max_id, score, cluster) for row_id, max_id, score in zip(*columns, strict=True))
        yield Group(encoded.dictionary[number].as_py(), tuple(pairs), cluster)


def _wide(column: pa.ChunkedArray) -> pa.Array:
    """A column of ids as one array; text with 64-bit offsets, for more than 2 GiB of it."""
    return (column.cast(pa.large_string()) if pa.types.is_string(column.type) else column).combine_chunks()


def _ends(ids: pa.Array, max_ids: pa.Array) -> np.ndarray:
    """For each duplicate the last one on the way to a row that is kept, (n,) int64: the position of one whose match is
    no duplicate. Every step looks twice as far. (Tables of others may go in circles: then it is any on the circle.)"""
    own = np.arange(len(ids))
    following = pc.fill_null(pc.index_in(max_ids, value_set=ids), -1).to_numpy().astype(np.int64)
    following = np.where(following < 0, own, following)
    for _ in range(len(ids).bit_length()):
        further = following[following]
        if (further == following).all():
            break
        following = further
    return following
