"""The removal rules for clusters, some of which are one task: each is read in rank order, and its rows stay or go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.arrays import Array, Backend, array_module, backend_module
from semdedup.dedup.compare.groups import Cluster
from semdedup.dedup.kernels.greedy import Witnesses, best_kept, first_look, removal_in_rank_order, with_second_look
from semdedup.dedup.names import SCORE
from semdedup.dedup.threshold.rule import least_score
from semdedup.dedup.threshold.vectors import Ranked, Vectors, light_rows, read_ranked, rows_between
from semdedup.errors import IntegrityError
from semdedup.storage.arrays import load_array
from semdedup.storage.location import Location
from semdedup.storage.tables import write_table


class Part(NamedTuple):
    """One cluster: its rows, the URL of its table of scores, and whether it is too large to be held."""

    cluster: Cluster
    scores: str
    large: bool = False


@dataclass(frozen=True)
class Removing:
    """What every task needs to know.

    Attributes:
        scores: storage of the tables of scores.
        vectors: where the clusters are.
        scratch: folder for the tiles of large clusters.
        thresholds: each eps that is asked for.
        backend: arrays to compute with.
    """

    scores: Location
    vectors: Vectors
    scratch: Location
    thresholds: tuple[float, ...]
    backend: Backend

    def place(self, cluster: Cluster) -> Location:
        """Folder of a large cluster."""
        return self.scratch / f"cluster_{cluster.label}"


@dataclass(frozen=True)
class Targets:
    """Where ids and witnesses are written: those of rows that are kept only where there is a place for them."""

    dropped: Location
    kept: Location | None
    witnesses: Location | None
    write_kwargs: Mapping[str, Any]


def removals(task: Removing, part: Part) -> tuple[Ranked, list[Witnesses]]:
    """The rows of a cluster in rank order, and which of them go, for each threshold.

    A cluster is read only where a row needs a second look. Memory: twice its rows, and the products of `best_match`;
    of a large one the ids and scores.

    Raises:
        IntegrityError: a witness goes itself.
    """
    ranked = read_ranked(task.scores.at(part.scores))
    limits = [least_score(eps) for eps in task.thresholds]
    looks = [first_look(ranked.score, ranked.match, least) for least in limits]
    if part.large:
        found = [
            with_second_look(*look, nearest_of_large(task, part, number), least)
            for number, (look, least) in enumerate(zip(looks, limits, strict=True))
        ]
    elif any(len(unsure) for _, unsure in looks):
        ranks, informs = light_rows(task.vectors, part.cluster, ranked.ids)
        rows = rows_between(task.vectors, part.cluster, ranks, 0, len(ranked.ids))
        ranked_rows = backend_module(task.backend).asarray(rows)
        found = [removal_of_informing(ranked_rows, ranked, informs, least) for least in limits]
    else:
        found = [look for look, _ in looks]
    for removal in found:
        check_witnesses(removal, part)
    return ranked, found


def removal_of_informing(rows: Array, ranked: Ranked, informs: np.ndarray, least: np.float32) -> Witnesses:
    """`removal_in_rank_order` of a cluster whose rows of low information stay, and are nobody's witness."""
    if informs.all():
        return removal_in_rank_order(rows, ranked.score, ranked.match, least)
    ranks = np.flatnonzero(informs)
    match = np.searchsorted(ranks, ranked.match[ranks])  # of a row that informs the match does, too
    inner = removal_in_rank_order(rows[array_module(rows).asarray(ranks)], ranked.score[ranks], match, least)
    found = Witnesses.none(len(informs))
    found.witness[ranks] = np.where(inner.witness < 0, -1, ranks[inner.witness])
    found.score[ranks] = inner.score
    return found


def unwitnessed(task: Removing, part: Part) -> list[int]:
    """At each threshold how many of the rows that reach it match none that does not: what `any` takes from nobody's
    side. Memory: as `removals`."""
    if part.large:
        found = [nearest_of_large(task, part, number, "alone") for number in range(len(task.thresholds))]
        return [int((near.score < least_score(e)).sum()) for near, e in zip(found, task.thresholds, strict=True)]
    ranked = read_ranked(task.scores.at(part.scores))
    ranks, informs = light_rows(task.vectors, part.cluster, ranked.ids)
    rows = rows_between(task.vectors, part.cluster, ranks, 0, len(ranked.ids))
    counts = []
    for least in map(least_score, task.thresholds):
        again = first_look(ranked.score, ranked.match, least)[1]
        staying = np.flatnonzero((ranked.score < least) & informs)
        counts.append(int((best_kept(rows[again], again, rows[staying], staying).score < least).sum()))
    return counts


def nearest_of_large(task: Removing, part: Part, threshold: int, what: str = "nearest") -> Witnesses:
    """What the tiles of a large cluster found for the rows that needed a second look, (u,), in rank order."""
    place = task.place(part.cluster) / f"{what}-{threshold}"
    sizes = (task.place(part.cluster) / "tiles.json").read_json()
    found = [load_array(place / f"{number}.npy") for number in range(sizes["tiles"])] if sizes["tiles"] else []
    together = np.concatenate([np.empty(0, NEAREST), *found])
    return Witnesses(together["witness"], together["score"])


NEAREST = np.dtype([("witness", np.int64), ("score", np.float32)])
"""How the second look of a tile is written."""


def check_witnesses(removal: Witnesses, part: Part) -> None:
    """Raise an `IntegrityError` unless every witness stays."""
    goes = removal.witness >= 0
    if goes[removal.witness[goes]].any():
        raise IntegrityError(f"a witness in cluster {part.cluster.label} does not stay itself")


def witness_table(ranked: Ranked, removal: Witnesses) -> pa.Table:
    """``id``, ``witness_id`` and similarity of the rows that go."""
    goes = np.flatnonzero(removal.witness >= 0)
    ids, witnesses = (ranked.ids.take(pa.array(rows)) for rows in (goes, removal.witness[goes]))
    return pa.table({"id": ids, "witness_id": witnesses, SCORE: removal.score[goes]})


def remove_in_group(task: Removing, targets: Targets, item: tuple[int, tuple[Part, ...]]) -> dict[str, Any]:
    """Write the ids to drop of some clusters with their witnesses, as a file each; the ids to keep, if asked for.

    The first of the thresholds is the one that is written, the others are counted. Memory: see `removals`; the ids that
    are written, three times.

    Returns:
        ``rows``, and ``removed`` for each threshold.
    """
    position, parts = item
    n_rows, removed = 0, np.zeros(len(task.thresholds), dtype=np.int64)
    dropped: list[pa.Table] = []
    kept: list[pa.Array] = []
    for part in parts:
        ranked, found = removals(task, part)
        n_rows += len(ranked.ids)
        removed += [np.count_nonzero(removal.witness >= 0) for removal in found]
        dropped.append(witness_table(ranked, found[0]))
        if targets.kept is not None:
            kept.append(ranked.ids.filter(pa.array(found[0].witness < 0)))
    write_removed(targets, position, dropped, kept)
    return {"rows": n_rows, "removed": removed.tolist()}


def write_removed(targets: Targets, position: int, dropped: Sequence[pa.Table], kept: Sequence[pa.Array]) -> None:
    """Write what goes and what stays, each sorted by id; nothing where there is none, but for the first file."""
    if dropped:
        table = with_narrow_text(pa.concat_tables(dropped).sort_by("id"))
        if targets.witnesses is not None and (len(table) or not position):
            write_table(targets.witnesses / part_name(position), table, targets.write_kwargs)
        write_ids(targets.dropped, position, [table.column("id")], targets.write_kwargs)
    if targets.kept is not None:
        write_ids(targets.kept, position, kept, targets.write_kwargs)


def write_ids(
    target: Location, position: int, found: Sequence[pa.Array | pa.ChunkedArray], kwargs: Mapping[str, Any]
) -> None:
    """Write ids, sorted; nothing where there are none, but for the first file: readers need a schema."""
    if not position or any(map(len, found)):
        chunks = [chunk for part in found for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
        ids = pa.chunked_array(chunks) if chunks else pa.chunked_array([], pa.string())
        table = with_narrow_text(pa.table({"id": ids.take(pc.sort_indices(ids))}))
        write_table(target / part_name(position), table, kwargs)


def part_name(position: int) -> str:
    """Name of a file of ids."""
    return f"part-{position}.parquet"


def with_narrow_text(table: pa.Table) -> pa.Table:
    """Ids as they are written: text as ``string``."""
    return table.cast(pa.schema([_narrow(field) for field in table.schema]))


def _narrow(field: pa.Field) -> pa.Field:
    return field.with_type(pa.string()) if pa.types.is_large_string(field.type) else field


def parts_of(clusters: Sequence[Cluster], scores: Mapping[int, str], rows_per_task: int) -> Iterator[Part]:
    """The clusters that have scores."""
    for cluster in clusters:
        if cluster.label in scores:
            yield Part(cluster, scores[cluster.label], cluster.n_rows > rows_per_task)
