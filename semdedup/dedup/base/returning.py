"""What rows that are withdrawn from a base kept out: duplicates of the base that nothing that stays matches any more.

A duplicate of a link is named where a withdrawn row matches it at the eps of that link, or was its witness, and no kept
row of the chain that stays matches it at that eps. Matches are sought as the links sought them: within a cluster, or
with `exact_up_to` anywhere. The new rows of the update are not asked. Nothing comes back by itself: ids of the base are
refused as new rows, so that whoever wants a named row back gives it anew, under another id.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.base.chain import Link
from semdedup.dedup.base.kept import BEFORE, DUPLICATE, NOW, Kept, KeptRows
from semdedup.dedup.base.update import Base
from semdedup.dedup.input.rows import gather_unit_rows, low_information_mask
from semdedup.dedup.kernels.best_match import best_match
from semdedup.dedup.names import COULD_RETURN, IDENTIFY, PAIRWISE, SCORE, WITHDRAWN, WITHDRAWN_IDS, label_of
from semdedup.dedup.threshold.rule import least_score
from semdedup.runs.run import Run
from semdedup.storage.location import Location
from semdedup.storage.tables import (
    LOW_INFORMATION,
    RowGroups,
    cut_files,
    embedding_column,
    iter_rows,
    open_parquet,
    read_table,
    write_table,
)

BYTES_PER_TASK = 64 << 20
"""Of the clusters that lose rows, what one task reads."""


class Piece(NamedTuple):
    """What one task reads of a link: its storage, some files, and the least score of a match there."""

    store: Location
    files: tuple[RowGroups, ...]
    least: np.float32


@dataclass(frozen=True)
class Search:
    """What every task needs to know: where ids to drop are, where to write, d, whether clusters do not matter."""

    kept: KeptRows
    scratch: Location
    dim: int
    across: bool

    def rows(self, piece: Piece, which: int) -> Iterator[tuple[int, pa.Array, np.ndarray]]:
        """The cluster, ids and embeddings (n, d) of rows that inform, in pieces of bounded size.

        Args:
            which: `NOW` for the rows that are withdrawn and had been kept, `DUPLICATE` for duplicates that are not
                withdrawn, -1 for the rows that stay.
        """
        labels = {label_of(file.url) for file in piece.files}
        dropped = self.kept.dropped(labels)
        for file in piece.files:
            label = label_of(file.url)
            reasons = {why: _ids_for(dropped[label], why) for why in (DUPLICATE, BEFORE, NOW)}
            with open_parquet(piece.store.at(file.url)) as parquet:
                groups = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
                bounds = np.cumsum([0, *groups])
                span = file.of(parquet)
                columns = [name for name in ("id", "embedding", LOW_INFORMATION) if name in parquet.schema_arrow.names]
                for table in iter_rows(parquet, columns, int(bounds[span.start]), int(bounds[span.stop])):
                    chosen = _chosen(table, reasons, which)
                    if len(chosen):
                        rows = np.empty((len(chosen), self.dim), dtype=np.float32)
                        found = gather_unit_rows([chosen], self.dim, rows)
                        yield label, found.others.column("id").combine_chunks(), rows[: found.n_rows]


def _ids_for(dropped: pa.Table, why: int) -> pa.Array:
    return dropped.filter(pc.equal(dropped.column("why"), why)).column("id").combine_chunks()


def _chosen(table: pa.Table, reasons: dict[int, pa.Array], which: int) -> pa.Table:
    ids = table.column("id")
    among = {why: pc.is_in(ids, found).to_numpy() for why, found in reasons.items()}
    low = low_information_mask(table)
    if which == NOW:
        mask = among[NOW] & ~among[DUPLICATE] & ~among[BEFORE]
    elif which == DUPLICATE:
        mask = among[DUPLICATE] & ~among[NOW] & ~among[BEFORE]
    else:
        mask = ~(among[DUPLICATE] | among[NOW] | among[BEFORE])
    return table.filter(pa.array(mask if low is None else mask & ~low))


def name_returning(run: Run, base: Base, kept: Kept) -> dict[str, Any]:
    """Write the tables of ``_withdrawn``: the ids that are withdrawn, and the duplicates that could come back.

    Returns:
        Facts: ``withdrawn``, with the counts ``ids`` and ``could_return``.

    Cost: three readings of the clusters that lose rows (of all of them with `exact_up_to`). Memory of a task: a batch
    of rows, those that are withdrawn, and the duplicates that match them.
    """
    write = run.final / WITHDRAWN
    with run.noting():
        write_table(write / WITHDRAWN_IDS, pa.table({"id": base.withdraw}))
    across = any(link.parameters(PAIRWISE).get("exact_up_to") is not None for link in base.links)
    search = Search(kept.rows, run.scratch / "returning", base.dim, across)
    pieces = list(enumerate(_pieces(base, kept.emptied, across)))
    n = len(pieces)
    run.results("read withdrawn rows", partial(_collect_withdrawn, search), pieces, unit="groups")
    witnesses = [
        (i, part)
        for i, part in enumerate(
            Piece(link.root, part, np.float32(0))
            for link in base.links
            for part in cut_files(link.witnesses, link.root, BYTES_PER_TASK)
        )
    ]
    run.results("find their duplicates", partial(_collect_by_witness, search, n), witnesses, unit="groups")
    find = partial(_collect_kept_out, search, n, len(witnesses))
    run.results("find what they kept out", find, pieces, unit="groups")
    run.results("find what stays out", partial(_find_still_out, search, n), pieces, unit="groups")
    (number,) = run.results("write what could return", partial(_write_returning, search, n, write), [0])
    return {"withdrawn": {"ids": len(base.withdraw), "could_return": number}}


def _pieces(base: Base, clusters: Sequence[int], across: bool) -> Iterator[Piece]:
    wanted = set(clusters)
    for link in base.links:
        files = [f for f in link.clusters if across or label_of(f.url) in wanted]
        for part in cut_files(files, link.cache, BYTES_PER_TASK):
            yield Piece(link.cache, part, least_of(link))


def least_of(link: Link) -> np.float32:
    """The least score of a match in a link."""
    return least_score(link.parameters(IDENTIFY)["eps"])


def _place(search: Search, name: str, position: int) -> Location:
    return search.scratch / f"{name}-{position}.parquet"


def _write_rows(
    place: Location, search: Search, found: Sequence[tuple[int, pa.Array, np.ndarray]], **others: Any
) -> None:
    """Write rows with their cluster, if there are any."""
    if found:
        ids = pa.concat_arrays([ids for _, ids, _ in found])
        labels = np.concatenate([np.full(len(ids), label, np.int32) for label, ids, _ in found])
        rows = np.concatenate([rows for _, _, rows in found])
        columns = {name: pa.concat_arrays(list(value)) for name, value in others.items()}
        write_table(place, pa.table({"id": ids, "cluster": labels, "embedding": embedding_column(rows), **columns}))


def _read_rows(search: Search, name: str, n: int, labels: set[int] | None) -> tuple[pa.Table, np.ndarray]:
    """What `_write_rows` has written in n places, of some clusters: the light columns, and the rows (m, d)."""
    tables = []
    for position in range(n):
        place = _place(search, name, position)
        if place.exists():
            table = read_table(place)
            if labels is not None:
                table = table.filter(pc.is_in(table.column("cluster"), pa.array(list(labels), pa.int32())))
            tables.append(table)
    if not tables or not sum(map(len, tables)):
        return pa.table({"id": pa.array([], pa.string()), "cluster": pa.array([], pa.int32())}), np.empty(
            (0, search.dim), np.float32
        )
    table = pa.concat_tables(tables).combine_chunks()
    rows = table.column("embedding").combine_chunks().flatten().to_numpy().reshape(-1, search.dim)
    return table.drop_columns("embedding"), rows


def _scope(search: Search, piece: Piece) -> set[int] | None:
    """The clusters whose rows are compared with those of a piece; None for all."""
    if search.across:
        return None
    return {label_of(file.url) for file in piece.files}


def _scores(queries: np.ndarray, candidates: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The highest score of each query with any candidate, (q,), and which; 0 and -1 without candidates."""
    found = best_match(queries, np.full(len(queries), len(candidates)), candidates, np.arange(len(candidates)))
    return found.score, found.position


def _collect_withdrawn(search: Search, item: tuple[int, Piece]) -> int:
    position, piece = item
    found = list(search.rows(piece, NOW))
    _write_rows(_place(search, "withdrawn", position), search, found)
    return sum(len(ids) for _, ids, _ in found)


def _collect_by_witness(search: Search, n: int, item: tuple[int, Piece]) -> int:
    """Write the ids of duplicates whose witness is withdrawn."""
    position, piece = item
    withdrawn, _ = _read_rows(search, "withdrawn", n, None)
    tables = []
    for file in piece.files:
        table = read_table(piece.store.at(file.url), ["id", "witness_id"])
        gone = withdrawn.column("id").cast(table.column("witness_id").type)
        tables.append(table.filter(pc.is_in(table.column("witness_id"), gone.combine_chunks())).select(["id"]))
    found = pa.concat_tables(tables)
    if len(found):
        write_table(_place(search, "by-witness", position), found)
    return len(found)


def _collect_kept_out(search: Search, n: int, n_witnessed: int, item: tuple[int, Piece]) -> int:
    """Write the duplicates that a withdrawn row matches, or whose witness it was."""
    position, piece = item
    withdrawn, theirs = _read_rows(search, "withdrawn", n, _scope(search, piece))
    places = [_place(search, "by-witness", i) for i in range(n_witnessed)]
    witnessed = [read_table(place).column("id").combine_chunks() for place in places if place.exists()]
    found, matched, scored = [], [], []
    if len(theirs):
        for label, ids, rows in search.rows(piece, DUPLICATE):
            mine = (
                np.arange(len(theirs))
                if search.across
                else np.flatnonzero(withdrawn.column("cluster").to_numpy() == label)
            )
            if not len(mine):
                continue
            score, best = _scores(rows, theirs[mine])
            out = score >= piece.least
            for known in witnessed:
                out |= pc.is_in(ids, known.cast(ids.type)).to_numpy(zero_copy_only=False)
            if out.any():
                found.append((label, ids.filter(pa.array(out)), rows[out]))
                matched.append(withdrawn.column("id").take(pa.array(mine[best[out]])).combine_chunks())
                scored.append(pa.array(score[out]))
    least = [pa.array(np.full(len(ids), piece.least)) for _, ids, _ in found]
    _write_rows(_place(search, "out", position), search, found, withdrawn_id=matched, score=scored, least=least)
    return sum(len(ids) for _, ids, _ in found)


def _find_still_out(search: Search, n: int, item: tuple[int, Piece]) -> int:
    """Write which of these a row that stays matches."""
    position, piece = item
    out, theirs = _read_rows(search, "out", n, _scope(search, piece))
    if not len(theirs):
        return 0
    still = np.zeros(len(theirs), dtype=bool)
    least, clusters = out.column("least").to_numpy(), out.column("cluster").to_numpy()
    for label, _, rows in search.rows(piece, -1):
        asking = np.flatnonzero(~still if search.across else ~still & (clusters == label))
        if len(asking):
            score, _ = _scores(theirs[asking], rows)
            still[asking[score >= least[asking]]] = True
    if still.any():
        write_table(_place(search, "still", position), out.select(["id"]).filter(pa.array(still)))
    return int(still.sum())


def _write_returning(search: Search, n: int, target: Location, _: int) -> int:
    out, _rows = _read_rows(search, "out", n, None)
    if not len(out):
        return 0
    for position in range(n):
        place = _place(search, "still", position)
        if place.exists():
            out = out.filter(pc.invert(pc.is_in(out.column("id"), read_table(place).column("id").combine_chunks())))
    table = pa.table(
        {"id": out.column("id"), "withdrawn_id": out.column("withdrawn_id"), SCORE: out.column("score")}
    ).sort_by("id")
    if len(table):
        write_table(target / COULD_RETURN, table)
    return len(table)
