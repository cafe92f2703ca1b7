"""Ids of new rows must be new: no base of the chain has them, as kept rows, as duplicates or in quarantine."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.base.chain import Link
from semdedup.dedup.base.update import Base
from semdedup.dedup.input.hashes import HashFiles, write_hashes
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.input.partitions import Partition
from semdedup.dedup.input.scan import EXAMPLES, Workspace, hashes_folder, repeated_ids
from semdedup.dedup.names import KMEANS, WITHDRAWN_IDS, label_of
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.errors import DuplicateIdError
from semdedup.runs.run import Run
from semdedup.storage.location import Location
from semdedup.storage.tables import RowGroups, cut_files, iter_groups, open_parquet, read_table, write_table

IDS_PER_TASK = 1 << 18
"""Ids of a base that one task holds."""

IdFiles = tuple[Location, str, tuple[RowGroups, ...]]
"""What one task reads of a chain: the storage, the folder to tell the user, and files that have a column ``id``."""


def id_tasks(links: Sequence[Link]) -> list[IdFiles]:
    """Tasks that together read every id of a chain once: those in its clusters, and those in quarantine."""
    return [
        (link.cache, str(link.root), part)
        for link in links
        for part in cut_files(
            [*link.clusters, *link.quarantine], link.cache, 4 * link.facts(KMEANS)["embedding_dim"] * IDS_PER_TASK
        )
    ]


def check_ids_new(
    run: Run, work: Workspace, partitions: Sequence[Partition], seed: int, hashes: Sequence[str], base: Base
) -> None:
    """Refuse an input with ids that stand in the base, and ids to withdraw that do not.

    Memory of a task: the hashes of `IDS_PER_TASK` ids, and the ids to withdraw.

    Args:
        hashes: what `scan_partition` has told of the hashes that it has written with this seed, by partition.

    Raises:
        DuplicateIdError: with examples, and the number of such ids.
        InputError: ids to withdraw are no rows of the base.
    """
    tasks = list(enumerate(id_tasks(base.links)))
    write_table(work.scratch / WITHDRAWN_IDS, pa.table({"id": base.withdraw}))
    theirs = run.results("hash ids of the base", partial(_hash_ids, work.scratch, seed), tasks, unit="groups")
    lost = set(range(len(base.withdraw))).difference(*(found for _, found in theirs))
    base.refuse_lost(base.withdraw.take(pa.array(sorted(lost), pa.int64())).to_pylist())
    files = [
        HashFiles(hashes_folder(work), hashes),
        HashFiles(_hashes_folder(work.scratch), [ends for ends, _ in theirs]),
    ]
    places, number = repeated_ids(run.session, work, partitions, seed, files)
    if not places:
        return
    wanted = pa.array(list(places), work.schema.id)
    found: dict[Any, str] = {}
    for _, pairs in run.session.run("look up ids in the base", partial(_ids_among, wanted), tasks, unit="groups"):
        found |= dict(pairs)
    if found:
        examples = "\n".join(
            f"  {value!r} of {places[value][0]}: stands in {found[value]}" for value in sorted(found)[:EXAMPLES]
        )
        raise DuplicateIdError(
            f"base: {number:,} ids of the input stand in the base already, as kept rows, duplicates or in quarantine. "
            f"Examples:\n{examples}\nGive only new rows, or give these rows other ids."
        )


def _hashes_folder(scratch: Location) -> Location:
    return scratch / "base-ids"


def _ids(item: tuple[int, IdFiles]) -> Iterator[tuple[pa.Array, bool]]:
    """Ids, in pieces, and whether they are of rows that lie in a cluster."""
    _, (store, _, parts) = item
    for part in parts:
        with open_parquet(store.at(part.url)) as parquet:
            for batch in iter_groups(parquet, part.of(parquet), ["id"], ROWS_AT_A_TIME):
                yield batch.column("id").drop_null(), label_of(part.url) >= 0


def _hash_ids(scratch: Location, seed: int, item: tuple[int, IdFiles]) -> tuple[str, list[int]]:
    """Write hashes; give what `write_hashes` tells of them, and which ids to withdraw are of rows in clusters."""
    withdrawn = read_table(scratch / WITHDRAWN_IDS).column("id").combine_chunks()
    hashes, found = [], np.zeros(len(withdrawn), dtype=bool)
    for ids, clustered in _ids(item):
        hashes.append(hash_ids(ids, seed))
        if clustered and len(withdrawn):
            found |= pc.is_in(withdrawn, ids.cast(withdrawn.type)).to_numpy(zero_copy_only=False)
    return write_hashes(_hashes_folder(scratch), item[0], hashes), np.flatnonzero(found).tolist()


def _ids_among(wanted: pa.Array, item: tuple[int, IdFiles]) -> list[tuple[Any, str]]:
    where = item[1][1]
    return [
        (value, where)
        for ids, _ in _ids(item)
        for value in ids.filter(pc.is_in(ids.cast(wanted.type), wanted)).to_pylist()
    ]
