"""Groups of duplicates: from pairs of a duplicate and its match to the kept row that stays for all of them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.names import SCORE
from semdedup.dedup.results.pairs import Group, Pair


def groups_of(duplicates: pa.Table, cluster: int, across: bool) -> Iterator[Group]:
    """The duplicates of one cluster, sorted into groups, in the order in which their kept rows first come.

    Args:
        duplicates: ``id``, ``max_id``, score; and ``cluster`` of each, where they are of several.
        cluster: where they lie.
        across: whether the match stays itself: it is a witness, or of another set.
    """
    ids, max_ids = (wide_ids(duplicates.column(name)) for name in ("id", "max_id"))
    kept = max_ids if across else max_ids.take(pa.array(_ends(ids, max_ids)))
    encoded = kept.dictionary_encode()
    several = "cluster" in duplicates.column_names
    clusters = duplicates.column("cluster") if several else pa.array(np.full(len(ids), cluster))
    columns = {"id": ids, "max_id": max_ids, SCORE: duplicates.column(SCORE), "cluster": clusters}
    table = pa.table({**columns, "group": encoded.indices})
    by_group = table.sort_by([("group", "ascending"), (SCORE, "descending"), ("id", "ascending")])
    edges = np.bincount(encoded.indices.to_numpy(), minlength=len(encoded.dictionary)).cumsum()
    for number, (start, stop) in enumerate(itertools.pairwise([0, *edges.tolist()])):
        rows = by_group.slice(start, stop - start)
        pairs = tuple(
            Pair(*values) for values in zip(*(rows.column(name).to_pylist() for name in columns), strict=True)
        )
        yield Group(encoded.dictionary[number].as_py(), pairs, pairs[0].cluster)


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
