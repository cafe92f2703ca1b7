"""The removal rules for clusters, some of which are one task: each is read in rank order, and its rows stay or go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.arrays import Array, array_module, backend_module
from semdedup.dedup.base.kept import ListedRows
from semdedup.dedup.compare.groups import Cluster, Comparison
from semdedup.dedup.compare.lay_out import cluster_place
from semdedup.dedup.input.columns import narrow_type
from semdedup.dedup.kernels.greedy import (
    Witnesses,
    best_kept,
    first_look,
    removal_in_rank_order,
    with_second_look,
)
from semdedup.dedup.names import SCORE
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.dedup.threshold.rule import least_score
from semdedup.dedup.threshold.vectors import Ranked, read_ranked, read_rows
from semdedup.errors import IntegrityError
from semdedup.storage.arrays import load_columns
from semdedup.storage.location import Location
from semdedup.storage.tables import write_batches


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
        comparison: how to read the clusters, and to compare them.
        thresholds: each eps that is asked for; the first is the one whose rows are written, at others they are counted.
        removal: the rule.
        forest: storage of the forests of matches; None where clusters are to be compared again.
    """

    scores: Location
    comparison: Comparison
    thresholds: tuple[float, ...]
    removal: str
    forest: Location | None = None

    @property
    def limits(self) -> list[np.float32]:
        """The least score of a match, for each threshold."""
        return [least_score(eps) for eps in self.thresholds]

    def place(self, label: int) -> Location:
        """Folder of a large cluster, where its tiles are."""
        return cluster_place(self.comparison.scratch, label)

    def read(self, part: Part) -> Ranked:
        """The scores of a cluster."""
        base = part.cluster.base
        listed = base.kept if base is not None and isinstance(base.kept, ListedRows) else None
        return read_ranked(self.scores.at(part.scores), listed)

    def rows(self, part: Part, ranked: Ranked) -> tuple[Array, np.ndarray]:
        """The rows of a cluster in rank order, on the device, and whether each informs."""
        rows, informs = read_rows(self.comparison, part.cluster, ranked.ids)
        return backend_module(self.comparison.backend).asarray(rows), informs


@dataclass(frozen=True)
class Targets:
    """Where ids and witnesses are written: those of rows that are kept only where there is a place for them."""

    dropped: Location
    kept: Location | None
    witnesses: Location | None
    write_kwargs: Mapping[str, Any]


def removals(task: Removing, part: Part) -> tuple[Ranked, list[Witnesses]]:
    """The rows of a cluster in rank order, and which of them go by the rule ``witness``, for each threshold.

    A cluster is read only where a row needs a second look. Memory: twice its rows, and the products of `best_match`;
    of a large one the ids and scores.
    """
    ranked = task.read(part)
    looks = [first_look(ranked.score, ranked.match, least) for least in task.limits]
    if not any(len(again) for _, again in looks):
        return ranked, [found for found, _ in looks]
    if part.large:
        nearest = [nearest_of_large(task, part, number, len(again)) for number, (_, again) in enumerate(looks)]
        every = zip(looks, nearest, task.limits, strict=True)
        return ranked, [with_second_look(*look, near, least) for look, near, least in every]
    rows, informs = task.rows(part, ranked)
    return ranked, [removal_of_informing(rows, ranked, informs, least) for least in task.limits]


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
    """At each threshold how many rows whose score reaches it match none whose score does not, better-ranked or not.

    Of two that match the worse-ranked has a score that reaches it. So it is enough to look at better-ranked ones.
    Memory: see `removals`.
    """
    ranked = task.read(part)
    looks = [first_look(ranked.score, ranked.match, least)[1] for least in task.limits]
    if not any(map(len, looks)):
        return [0] * len(looks)
    if part.large:
        found = [nearest_of_large(task, part, number, len(again), "alone") for number, again in enumerate(looks)]
    else:
        rows, informs = task.rows(part, ranked)
        on_device = array_module(rows).asarray
        alone = [np.flatnonzero((ranked.score < least) & informs) for least in task.limits]
        found = [
            best_kept(rows[on_device(again)], again, rows[on_device(staying)], staying)
            for again, staying in zip(looks, alone, strict=True)
        ]
    return [int(np.count_nonzero(near.score < least)) for near, least in zip(found, task.limits, strict=True)]


def nearest_of_large(task: Removing, part: Part, threshold: int, n_unsure: int, what: str = "nearest") -> Witnesses:
    """What the tiles of a large cluster found for the rows that needed a second look, (u,), in rank order."""
    if not n_unsure:
        return Witnesses.none(0)
    place = task.place(part.cluster.label)
    n_tiles = (place / "tiles.json").read_json()["tiles"]
    files = (place / f"{what}-{threshold}" / f"{number}.npy" for number in range(n_tiles))
    found = [Witnesses(**load_columns(file)) for file in files]
    return Witnesses(*map(np.concatenate, zip(*found, strict=True)))


def check_witnesses(found: Witnesses, part: Part) -> None:
    """Raise an `IntegrityError` unless every witness stays."""
    goes = found.witness >= 0
    if goes[found.witness[goes]].any():
        raise IntegrityError(f"a witness in cluster {part.cluster.label} does not stay itself")


def witness_table(ranked: Ranked, found: Witnesses) -> pa.Table:
    """``id``, ``witness_id`` and similarity of the rows that go."""
    goes = np.flatnonzero(found.witness >= 0)
    ids, witnesses = (ranked.ids.take(pa.array(rows)) for rows in (goes, found.witness[goes]))
    return pa.table({"id": ids, "witness_id": witnesses, SCORE: found.score[goes]})


def write_group(
    targets: Targets, position: int, found: Iterator[tuple[Part, Ranked, list[Witnesses]]]
) -> dict[str, Any]:
    """Write the ids to drop of some clusters, their witnesses, and the ids to keep, if asked for, a file each.

    Memory: the ids that are written, three times.

    Returns:
        ``rows``, and ``removed`` for each threshold.

    Raises:
        IntegrityError: a witness goes itself.
    """
    n_rows, removed = 0, np.zeros(0, dtype=np.int64)
    dropped: list[pa.Table] = []
    kept: list[pa.Array] = []
    for part, ranked, at in found:
        check_witnesses(at[0], part)
        n_rows += len(ranked.ids) - ranked.n_base
        counts = np.array([np.count_nonzero(each.witness >= 0) for each in at])
        removed = removed + counts if len(removed) else counts
        dropped.append(witness_table(ranked, at[0]))
        if targets.kept is not None:
            kept.append(ranked.ids.filter(pa.array(at[0].witness < 0)).slice(ranked.n_base))
    write_removed(targets, position, dropped, kept)
    return {"rows": n_rows, "removed": removed.tolist()}


def remove_in_group(task: Removing, targets: Targets, item: tuple[int, tuple[Part, ...]]) -> dict[str, Any]:
    """The rule ``witness`` for the clusters of a group; see `write_group`. Memory: see `removals`."""
    position, parts = item
    return write_group(targets, position, ((part, *removals(task, part)) for part in parts))


def write_removed(targets: Targets, position: int, dropped: Sequence[pa.Table], kept: Sequence[pa.Array]) -> None:
    """Write what goes and what stays, each sorted by id; nothing where there is none, but for the first file."""
    if dropped:
        table = pa.concat_tables(dropped)
        if targets.witnesses is not None and (len(table) or not position):
            _write_sorted(targets.witnesses / part_name(position), table, targets.write_kwargs)
        write_ids(targets.dropped, position, [table.column("id")], targets.write_kwargs)
    elif not position:
        write_ids(targets.dropped, position, [], targets.write_kwargs)
    if targets.kept is not None:
        write_ids(targets.kept, position, kept, targets.write_kwargs)


def write_ids(
    target: Location, position: int, found: Sequence[pa.Array | pa.ChunkedArray], kwargs: Mapping[str, Any]
) -> None:
    """Write ids, sorted; nothing where there are none, but for the first file: readers need a schema."""
    if not position or any(map(len, found)):
        chunks = [chunk for part in found for chunk in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
        ids = pa.chunked_array(chunks) if chunks else pa.chunked_array([], pa.string())
        _write_sorted(target / part_name(position), pa.table({"id": ids}), kwargs)


def part_name(position: int) -> str:
    """Name of a file of ids."""
    return f"part-{position}.parquet"


def _write_sorted(place: Location, table: pa.Table, kwargs: Mapping[str, Any]) -> None:
    """Write rows sorted by id, text as ``string``: in parts, for more than 2 GiB of it."""
    order = pc.sort_indices(table.column("id"))
    schema = pa.schema([field.with_type(narrow_type(field.type)) for field in table.schema])
    starts = range(0, len(table), ROWS_AT_A_TIME)
    write_batches(place, schema, (table.take(order[start : start + ROWS_AT_A_TIME]) for start in starts), kwargs)
