"""Which rows of the input do not remain, by their ids: duplicates, and those that were set aside."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from semdedup.dedup.input.ids import as_ids, id_type
from semdedup.dedup.names import KMEANS, QUARANTINE, SCORE
from semdedup.dedup.results.removed import RemovedRows
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.errors import InputError
from semdedup.runs.record import Record
from semdedup.shards.chain import DropChain
from semdedup.shards.drops import Drops, roots_of
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import read_table

DUPLICATE, OVERLAP, SET_ASIDE, WITHDRAWN = "duplicates", "overlap", "quarantined", "withdrawn"


@dataclass(frozen=True)
class Gone:
    """The ids of the rows that do not remain, by reason. Memory: all of these ids.

    Attributes:
        ids: of each reason.
        n_kept: how many rows the result keeps; None where only ids to drop are known.
    """

    ids: Mapping[str, pd.Index]
    n_kept: int | None

    @classmethod
    def of(cls, chain: DropChain, advance: Callable[[int], None]) -> Gone:
        """What goes of a result, or of several that were made one after the other; `advance` is called for each."""
        gone: dict[str, list[pa.Array]] = {DUPLICATE: [], OVERLAP: [], WITHDRAWN: [], SET_ASIDE: []}
        n_rows, scored = 0, True
        for link, withdrawn in zip(chain.links, chain.withdrawn, strict=True):
            gone[DUPLICATE] += ids_that_go(link)
            gone[WITHDRAWN] += _ids_in(withdrawn, link.source)
            gone[SET_ASIDE] += _set_aside(link.source)
            scored = scored and link.scored
            n_rows += Scores(link.files, link.source).n_rows if link.scored else 0
            advance(1)
        for found in chain.overlaps:
            gone[OVERLAP] += _ids_in(found.files, found.source)
        ids = {why: _index(parts) for why, parts in gone.items()}
        if chain.drop_when == "both":  # those of which both is so are said to go by overlap, as `shard` says it
            ids[OVERLAP] = ids[DUPLICATE].intersection(ids[OVERLAP], sort=False)
            ids[DUPLICATE] = ids[DUPLICATE][:0]
        ids[WITHDRAWN] = ids[WITHDRAWN].difference(ids[DUPLICATE].union(ids[OVERLAP], sort=False), sort=False)
        taken = len(ids[DUPLICATE]) + len(ids[WITHDRAWN]) + (len(ids[OVERLAP]) if chain.drop_when == "both" else 0)
        return cls(ids, n_rows - taken if scored else None)

    def look(self, ids: pa.ChunkedArray, counts: Counter[str]) -> np.ndarray:
        """Which of some rows remain, (n,) truth; the others are counted by reason.

        Raises:
            InputError: the ids are of another type than those of the result.
        """
        kind = id_type(ids.type)
        if kind is None:
            raise InputError(f"the ids of the input are {ids.type}, which no result has")
        # nulls are looked for apart: among whole numbers they would make floats of all of them
        values = _plain(as_ids(ids, kind).fill_null("" if kind == pa.string() else 0))
        remains = np.ones(len(values), dtype=bool)
        nulls = ids.is_null().to_numpy(zero_copy_only=False) if ids.null_count else ~remains
        counts[SET_ASIDE] += int(np.count_nonzero(nulls))
        remains &= ~nulls
        for why, found in self.ids.items():
            if len(found):
                here = remains & (found.get_indexer(pd.Index(values)) >= 0)
                counts[why] += int(np.count_nonzero(here))
                remains &= ~here
        return remains


def ids_that_go(link: Drops) -> Iterator[pa.Array]:
    """The ids of the duplicates of one result, in pieces."""
    if link.ids or not link.scored:
        yield from _ids_in(link.ids or link.files, link.source)
    elif link.by_scores:
        assert link.eps is not None
        for _, batch in Scores(link.files, link.source).batches(["id", SCORE]):
            scores = batch.column(SCORE).cast(pa.float32()).to_numpy(zero_copy_only=False)
            yield batch.column("id").filter(pa.array(duplicate_mask(scores, link.eps)))
    else:
        assert link.eps is not None
        assert link.removal is not None
        yield from RemovedRows(Scores.of(link.source), link.removal).ids(link.eps).chunks


class Fields(NamedTuple):
    """How the input of a result was read.

    Attributes:
        id: the column of its ids, None where these were made.
        filetype: ``parquet`` or ``jsonl``.
        metadata: columns that were carried along; keys of folders are among them.
    """

    id: str | None = "id"
    filetype: str = "parquet"
    metadata: tuple[str, ...] = ()

    @classmethod
    def of(cls, chain: DropChain) -> Fields:
        """Those on record; the defaults where there is none."""
        for root in (root for link in chain.links for root in roots_of(link.source)):
            found = Record(root).every_step.get(KMEANS, {}).get("parameters", {})
            if "id_field" in found:
                filetype = found.get("input_filetype", cls().filetype)
                return cls(found["id_field"], filetype, tuple(found.get("metadata_fields") or ()))
        return cls()


def _ids_in(files: tuple[FileInfo, ...], source: Location) -> Iterator[pa.Array]:
    for file in files:
        yield from read_table(source.at(file.url), ["id"]).column("id").chunks


def _set_aside(source: Location) -> Iterator[pa.Array]:
    for root in roots_of(source):
        files = tuple(file for file in (root / QUARANTINE).files() if file.url.endswith(".parquet"))
        yield from (chunk.drop_null() for chunk in _ids_in(files, source))


def _plain(ids: Any) -> np.ndarray:
    found: np.ndarray = ids.to_numpy(zero_copy_only=False) if isinstance(ids, pa.Array) else ids.to_numpy()
    return found


def _index(parts: list[pa.Array]) -> pd.Index:
    columns = [pa.chunked_array([part]) for part in parts if len(part)]
    arrays = [_plain(as_ids(column, id_type(column.type) or column.type)) for column in columns]
    return pd.Index(np.concatenate(arrays)).unique() if arrays else pd.Index([], dtype=object)
