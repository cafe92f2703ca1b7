"""What the tasks of a rule over the whole input read, and what they leave for each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.base.kept import ListedRows
from semdedup.dedup.compare.blocks_of_base import kept_rows
from semdedup.dedup.compare.groups import read_cluster
from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.input.rows import gather_unit_rows
from semdedup.dedup.names import OF_BASE, SCORE
from semdedup.dedup.threshold.groups import Part, Removing, Targets, write_removed
from semdedup.storage.location import Location
from semdedup.storage.tables import read_table

Group = tuple[int, tuple[Part, ...]]
"""Some clusters, and their number. Parts without a table of scores are of a base."""

WITNESS = "witness_id"


def numbered(groups: Iterable[Sequence[Part]]) -> tuple[Group, ...]:
    """Groups of clusters with their numbers, those of a base after the others."""
    return tuple((number, tuple(parts)) for number, parts in enumerate(groups))


def read_scores(task: Removing, part: Part) -> pa.Table:
    """``id``, ``max_id`` and score of the rows of a cluster, in rank order."""
    return read_table(task.scores.at(part.scores), ["id", "max_id", SCORE])


def ids_of(task: Removing, part: Part) -> pa.Array:
    """The ids of a cluster, text with 64-bit offsets; of a base those of its kept rows."""
    base = part.cluster.base
    if not part.scores and base is not None and isinstance(base.kept, ListedRows):
        return wide_ids(base.kept.ids(part.cluster.label))
    return wide_ids(read_scores(task, part).column("id"))


def scratch_file(task: Removing, what: str, number: int, ending: str = "parquet") -> Location:
    """A file that tasks leave for each other."""
    return task.comparison.scratch / what / f"{number}.{ending}"


def read_cluster_rows(task: Removing, part: Part) -> tuple[pa.Table, np.ndarray]:
    """What ranks the rows of a cluster, and the rows, in the order of its files; of a base its kept rows."""
    comparison, cluster = task.comparison, part.cluster
    if not part.scores:
        return kept_rows(comparison, cluster)
    rows = np.empty((sum(cluster.rows), comparison.dim), dtype=np.float32)
    gathered = gather_unit_rows(read_cluster(comparison, cluster), comparison.dim, rows)
    light = gathered.others.append_column(OF_BASE, pa.array(np.zeros(gathered.n_rows, dtype=bool)))
    return light, rows[: gathered.n_rows]


def write_dropped(task: Removing, targets: Targets, group: Group, dropped: pa.Table) -> None:
    """Write ids to drop with their witnesses, ``id``, `WITNESS`, score, and the ids to keep if asked for."""
    number, parts = group
    kept: list[pa.Array] = []
    if targets.kept is not None:
        gone = wide_ids(dropped.column("id"))
        for part in parts:
            ids = ids_of(task, part)
            kept.append(ids.filter(pc.invert(pc.is_in(ids, gone))))
    write_removed(targets, number, [dropped], kept)
