"""The rows of a folder of embeddings that no result of a chain has, nor a list of ids: input in files of its own.

    embeddings, file by file ──ids──▶ range 0 of the hash: those of no other ──▶ per file ──▶ part-0.parquet, …
    results, ids left out ───ids──▶  range 1 …

A folder of embeddings grows: its files are written anew with rows that came in between. So new rows are found by their
ids, with a join over ranges of their hash; a task holds the ids of one range, whatever the input.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import accumulate, pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.base.chain import Link
from semdedup.dedup.base.ids import IdFiles, id_tasks
from semdedup.dedup.base.kept import IDS_PER_RANGE
from semdedup.dedup.input.files import find_files
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.input.scan import range_starts
from semdedup.dedup.names import KMEANS
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.errors import InputError
from semdedup.runs.files import delete_files
from semdedup.runs.identity import fingerprint
from semdedup.runs.lookup import known_files
from semdedup.runs.record import Record
from semdedup.runs.run import Run
from semdedup.runs.step import Identity, Step
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import (
    RowGroups,
    count_rows,
    cut_files,
    iter_groups,
    iter_rows,
    open_parquet,
    read_arrow_batch,
    write_arrow,
    write_arrow_parts,
    write_batches,
)

SELECT = "select"
"""Name of the step in the record of the result that is made of the rows."""

FOLDER = "_input"
"""Folder of the files, below that of the result."""

LEFT_OUT = "left_out"
"""Parameter of the step: what identifies the ids that were left out; it is there where there were such tables."""

WRITTEN = {SELECT: re.compile(rf"{FOLDER}/part-\d+\.parquet")}
ROWS_PER_GROUP = 1 << 13

LEFT_OUT_BYTES = 16 << 20
"""Bytes of tables of ids that one task reads, unless one row group has more."""


class NothingNewError(InputError):
    """Every row of the embeddings is one of a result, or left out."""


class LeftOut(NamedTuple):
    """Ids of rows that no result is to have: how many, tables with a column ``id``, their storage, what identifies
    them; and whether they are the first of several that are made one after the other."""

    rows: int
    files: Sequence[FileInfo]
    source: Location
    identity: str
    is_first: bool

    @classmethod
    def of(cls, rows: int, files: Sequence[FileInfo], result: Location, is_first: bool) -> LeftOut:
        """Those in tables of a result; its record tells what identifies them, so that they are not read."""
        return cls(rows, files, result, fingerprint(files, known_files([result]))["digest"], is_first)


class Embeddings(NamedTuple):
    """A folder of embeddings, and those of other embedders, in which a row has to be as well to be compared."""

    folder: Location
    others: tuple[Location, ...] = ()

    @property
    def folders(self) -> tuple[Location, ...]:
        """All of them."""
        return (self.folder, *self.others)


def identify(folders: Sequence[Location]) -> Identity:
    """What identifies folders of embeddings as they are now."""
    return fingerprint(find_files(folders, "parquet"), known_files(folders))


def selection(root: Location, embeddings: Embeddings, links: Sequence[Link], left_out: Sequence[LeftOut]) -> Step:
    """The step that writes the rows of `embeddings` that neither a link nor what is left out has to the folder `FOLDER`
    of a result in `root`."""
    results = {"results": [link.commit for link in links]}
    return Step(
        name=SELECT,
        root=root,
        parameters={
            **results,
            **({LEFT_OUT: [ids.identity for ids in left_out]} if any(x.rows for x in left_out) else {}),
        },
        identify=partial(identify, embeddings.folders),
        written=WRITTEN,
    )


def select_new_rows(
    embeddings: Embeddings, links: Sequence[Link], left_out: Sequence[LeftOut]
) -> Callable[[Run], dict[str, Any]]:
    """The work of this step. Its facts: ``rows``.

    Raises:
        NothingNewError: there are no such rows. Nothing is left of the step.

    Cost: ids of all are read once, and the embeddings once. Memory of a task: `base.ids.IDS_PER_TASK` ids, those of one
    range, about `IDS_PER_RANGE`, or the new ids of one file.
    """

    def work(run: Run) -> dict[str, Any]:
        with run.refusing():
            return _select(run, embeddings, links, left_out)

    return work


def forget_selected(root: Location, token: str) -> None:
    """Delete the files that the step wrote, once the result made of them is complete; what they were made from stays
    on record."""
    record = Record(root, token)
    files = (record.committed(SELECT) or {}).get("files")
    if files:
        delete_files(root, files)
        record.update(SELECT, files={})


def _select(run: Run, source: Embeddings, links: Sequence[Link], left_out: Sequence[LeftOut]) -> dict[str, Any]:
    embeddings = source.folder
    files = find_files([embeddings], "parquet")
    with open_parquet(embeddings.at(files[0].url)) as parquet:
        kind = parquet.schema_arrow.field("id").type
    n_ids = sum(link.facts(KMEANS)["rows"] for link in links)
    n_ids += sum(count_rows(embeddings.at(file.url)) for file in files)
    n_ids += sum(ids.rows for ids in left_out)
    n_ranges = max(1, -(-n_ids // IDS_PER_RANGE))
    ours: list[IdFiles] = [(embeddings, str(embeddings), (RowGroups(file.url),)) for file in files]
    theirs = id_tasks(links) + [
        (ids.source, str(ids.source), part)
        for ids in left_out
        for part in cut_files(ids.files, ids.source, LEFT_OUT_BYTES)
    ]
    with_files = [(folder, find_files([folder], "parquet")) for folder in source.others]
    needed = [(folder, str(folder), (RowGroups(file.url),)) for folder, listed in with_files for file in listed]
    for name, parts in (("ours", ours), ("theirs", theirs), ("needed", needed)):
        spread = partial(_spread, run.scratch / name, n_ranges, kind)
        run.results(f"ids {name}", spread, list(enumerate(parts)), unit="groups")
    at = accumulate((len(listed) for _, listed in with_files), initial=0)
    join = partial(_join, run.scratch, len(ours), len(theirs), list(pairwise(at)))
    n_new = sum(run.results("find new rows", join, list(range(n_ranges)), unit="ranges"))
    if not n_new:
        others = ", ".join(str(place) for place in [*(x.root for x in links), *(x.source for x in left_out)])
        raise NothingNewError(f"every row of {embeddings} is one of {others}")
    write = partial(_write, run.scratch, run.final / FOLDER, embeddings, n_ranges)
    written = run.results("write new rows", write, [(i, file.url) for i, file in enumerate(files)], unit="files")
    return {"rows": sum(written)}


def _spread(target: Location, n_ranges: int, kind: pa.DataType, item: tuple[int, IdFiles]) -> int:
    """Write the ids of some files, a batch for each range of the hash; how many there are."""
    position, (store, _, groups) = item
    chunks: list[pa.Array] = []
    for part in groups:
        with open_parquet(store.at(part.url)) as parquet:
            for batch in iter_groups(parquet, part.of(parquet), ["id"], ROWS_AT_A_TIME):
                chunks.append(batch.column("id").drop_null().cast(kind))
    ids = pa.chunked_array(chunks, kind).combine_chunks()
    hashes = hash_ids(ids, 0)
    order = np.argsort(hashes, kind="stable")
    table = pa.table({"id": ids.take(pa.array(order))})
    starts = np.searchsorted(hashes[order], range_starts(n_ranges))
    write_arrow_parts(target / f"{position}.arrow", table, starts)
    return len(ids)


def _join(scratch: Location, n_ours: int, n_theirs: int, needed: Sequence[tuple[int, int]], index: int) -> int:
    """Write the ids of one range that no other has, and all other embedders have, a batch for each file of the
    embeddings; how many there are.

    Args:
        needed: of each other embedder the numbers of its files, as first and end.
    """

    def ids(name: str, start: int, stop: int) -> list[pa.Array]:
        files = (scratch / name / f"{i}.arrow" for i in range(start, stop))
        return [read_arrow_batch(file, index).column("id") for file in files]

    known, others = ids("theirs", 0, n_theirs), [ids("needed", *files) for files in needed]
    found: list[pa.RecordBatch] = []
    for position in range(n_ours):
        batch = read_arrow_batch(scratch / "ours" / f"{position}.arrow", index)
        kind = batch.schema.field("id").type
        batch = batch.filter(pc.invert(pc.is_in(batch.column("id"), value_set=pa.chunked_array(known, kind))))
        for other in others:
            batch = batch.filter(pc.is_in(batch.column("id"), value_set=pa.chunked_array(other, kind)))
        found.append(batch)
    write_arrow(scratch / "new" / f"{index}.arrow", found[0].schema, found)
    return sum(map(len, found))


def _write(scratch: Location, target: Location, store: Location, n_ranges: int, item: tuple[int, str]) -> int:
    """Write the new rows of one file of the embeddings in their order, where it has any; how many there are."""
    position, url = item
    new = [read_arrow_batch(scratch / "new" / f"{index}.arrow", position).column("id") for index in range(n_ranges)]
    wanted = pa.chunked_array(new)
    if len(wanted):
        with open_parquet(store.at(url)) as parquet:
            rows = _groups(parquet, wanted)
            write_batches(target / f"part-{position}.parquet", parquet.schema_arrow, rows)
    return len(wanted)


def _groups(parquet: Any, wanted: pa.ChunkedArray) -> Iterator[pa.Table]:
    """The rows of an open file with one of these ids, `ROWS_PER_GROUP` at a time."""
    held: list[pa.Table] = []
    for table in iter_rows(parquet, parquet.schema_arrow.names):
        held.append(table.filter(pc.is_in(table.column("id"), value_set=wanted)))
        if sum(map(len, held)) >= ROWS_PER_GROUP:
            yield pa.concat_tables(held)
            held = []
    if any(map(len, held)):
        yield pa.concat_tables(held)
