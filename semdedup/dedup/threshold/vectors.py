"""The tables of scores in rank order, and the rows of the clusters that they were made of in the same order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.base.chain import links_of
from semdedup.dedup.base.kept import ListedRows
from semdedup.dedup.compare.groups import Cluster, Comparison, read_base, read_cluster
from semdedup.dedup.compare.lay_out import Listed, light_of_chunks, place_rows
from semdedup.dedup.compare.spans import Tiles
from semdedup.dedup.compare.table import score_schema
from semdedup.dedup.input.ids import wide_ids
from semdedup.dedup.input.numbered import cluster_files
from semdedup.dedup.input.rows import gather_unit_rows, low_information_mask
from semdedup.dedup.names import (
    AGAINST,
    BASE_ROWS,
    CLUSTERS_PATH,
    PAIRWISE,
    SCORE,
    cluster_of,
    find_table,
)
from semdedup.dedup.options import InputOptions
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.results.checks import read_checked
from semdedup.dedup.threshold.rule import check_within
from semdedup.errors import BadFileError, InputError
from semdedup.runs.identity import fingerprint, resolve_path
from semdedup.runs.lookup import find_record, known_files
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import RowGroups


class Vectors(NamedTuple):
    """The clusters that scores were made of.

    Attributes:
        source: their storage.
        fields: names of the columns, as they were when the clusters were compared.
        files: the files, of all clusters.
        ranking: what ranks rows of different clusters; any where only rows of one are compared, ranked by the scores.
        base: of an update the clusters of its base, and the folder that names the rows that it was compared with.
    """

    source: Location
    fields: InputOptions
    files: tuple[FileInfo, ...]
    ranking: RankingStrategy
    base: tuple[tuple[FileInfo, ...], ListedRows] | None = None

    @property
    def located(self) -> list[tuple[Location, str]]:
        """Every file, of the base too, with its name to tell."""
        return [(self.source.at(file.url), file.url) for file in (*self.files, *(self.base[0] if self.base else ()))]


def scores_record(scores: Location) -> Mapping[str, Any]:
    """What is on record of the comparison that wrote some scores, and ``root``, where; nothing for those of others.

    Args:
        scores: the root of a result, or its folder of scores.
    """
    record = find_record(find_table(scores, "scores"))
    return {} if record is None else {**(record.committed(PAIRWISE) or {}), "root": record.root}


def is_across(compared: Mapping[str, Any]) -> bool:
    """Whether a comparison on record was one of two sets."""
    return any(name.startswith(AGAINST) for name in compared.get("parameters", ()))


def exact_up_to_of(compared: Mapping[str, Any]) -> float | None:
    """Up to which eps a comparison on record found matches across clusters; None: within clusters only."""
    found = compared.get("parameters", {}).get("exact_up_to")
    return None if found is None else float(found)


def check_exact(compared: Mapping[str, Any], thresholds: Sequence[float]) -> None:
    """Refuse an eps up to which a comparison on record did not find all matches across clusters."""
    for eps in thresholds:
        check_within(eps, exact_up_to_of(compared))


def find_vectors(scores: Location, removal: str, clusters_path: str | None = None) -> Vectors:
    """The clusters that scores were made of: those of `clusters_path`, else those that the record of the scores names.

    Args:
        scores: the root of a result, or its folder of scores.
        removal: the rule that needs them.
        clusters_path: where they are.

    Raises:
        InputError: they are gone, or are not those any more.
    """
    compared = scores_record(scores)
    if clusters_path is not None:
        place = Location.of(clusters_path, scores.options)
    else:
        found = compared.get("facts", {}).get(CLUSTERS_PATH)
        place = find_table(scores, "clusters") if found is None else resolve_path(found, compared["root"])
    needed = (
        f"The removal rule {removal!r} reads the clusters, which are found through the record of the scores. Make the "
        "clusters again with the command that made the scores, name them with clusters_path, or take removal='any'"
    )
    if not place.is_dir():
        raise InputError(f"no clusters in {place}. {needed}")
    folder = find_table(place, "clusters")
    listed = cluster_files(folder)
    if not listed:
        raise InputError(f"no clusters in {place}: there is no folder centroid=0, centroid=1, …. {needed}")
    if "input" in compared and fingerprint(listed, known_files([folder])) != compared["input"]:
        raise InputError(f"the clusters in {place} are not those that the scores in {scores} were made of. {needed}")
    noted = compared.get("parameters", {})
    names = ("id_field", "embedding_field", "embedding_encoding")
    fields = InputOptions(**{name: noted[name] for name in names if name in noted})
    across = noted.get("exact_up_to") is not None
    ranking = RankingStrategy.described(noted["ranking"]) if across else RankingStrategy.random()
    return Vectors(place, fields, tuple(listed), ranking, _base_of(compared))


def _base_of(compared: Mapping[str, Any]) -> tuple[tuple[FileInfo, ...], ListedRows] | None:
    """The clusters of the base that a comparison on record had, all of them there."""
    listed = base_rows_of(compared)
    if listed is None:
        return None
    links = links_of(compared["facts"]["bases"], compared["root"])
    for link in links:
        link.check()
    return tuple(file for link in links for file in link.clusters), listed


def base_rows_of(compared: Mapping[str, Any]) -> ListedRows | None:
    """The rows of the base that a comparison on record had, if it was an update."""
    return ListedRows(compared["root"] / BASE_ROWS) if compared.get("facts", {}).get("bases") else None


class Ranked(NamedTuple):
    """A table of scores in rank order; of an update with the rows of its base, which rank first and match nothing.

    Attributes:
        ids: (n,) of the rows.
        score: (n,) float32.
        match: (n,) int64, the rank of the row of `max_id`.
        n_base: how many of them are of the base.
    """

    ids: pa.Array
    score: np.ndarray
    match: np.ndarray
    n_base: int = 0


def read_scores_of(location: Location) -> pa.Table:
    """The table of scores of one cluster, checked: see `semdedup.dedup.results.checks`."""
    batches = [batch for _, batch in read_checked(location, RowGroups(location.url))]
    return pa.Table.from_batches(batches, batches[0].schema if batches else score_schema(pa.string()))


def read_ranked(location: Location, base: ListedRows | None = None) -> Ranked:
    """Read the table of scores of one cluster, whose rows stand in rank order. Memory: about 100 bytes a row.

    Raises:
        BadFileError: a row comes before the better-ranked one that it matches, or that one is missing; or a value is
            not as it must be, see `semdedup.dedup.results.checks`.
    """
    table = read_scores_of(location)
    ids, max_ids = (wide_ids(table.column(name)) for name in ("id", "max_id"))
    score = table.column(SCORE).to_numpy()
    n_base = 0
    if base is not None:
        theirs = base.ids(cluster_of(location.url)).cast(ids.type)
        n_base, score = len(theirs), np.append(np.zeros(len(theirs), dtype=np.float32), score)
        ids, max_ids = (pa.concat_arrays([theirs, column]) for column in (ids, max_ids))
    match = pc.fill_null(pc.index_in(max_ids, value_set=ids), len(ids)).to_numpy().astype(np.int64)
    wrong = np.flatnonzero((match >= np.arange(len(ids))) & (score > 0))
    if len(wrong):
        raise BadFileError(
            f"the rows of {location} do not stand in rank order: {ids[wrong[0]].as_py()!r} does not come after "
            f"{max_ids[wrong[0]].as_py()!r}, which it matches. Of such scores only the removal rule 'any' can be had."
        )
    return Ranked(ids, score, np.minimum(match, np.arange(len(ids))), n_base)


def ranks_of(column: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    """Position of each id of a column among some ids, (m,) int64; -1 for none."""
    return pc.fill_null(pc.index_in(wide_ids(column).cast(ids.type), value_set=ids), -1).to_numpy().astype(np.int64)


def _checked_ranks(task: Comparison, label: int, found: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    """Which rank each row of a cluster has, (m,) int64, -1 for rows without scores.

    Args:
        found: (m,) the ids of the rows.
        ids: (n,) in rank order.

    Raises:
        InputError: a row that has a score is not there, or is there twice.
    """
    ranks = ranks_of(found, ids)
    counts = np.bincount(ranks[ranks >= 0], minlength=len(ids))
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        there = "more than once" if counts[wrong[0]] else "not"
        raise InputError(
            f"the row {ids[int(wrong[0])].as_py()!r} of the scores of cluster {label} is {there} in "
            f"centroid={label} of {task.clusters}: these are not the clusters that the scores were made of"
        )
    return ranks


def _informs_by_rank(light: pa.Table, ranks: np.ndarray, n: int) -> np.ndarray:
    informs, low = np.ones(n, dtype=bool), low_information_mask(light)
    if low is not None:
        scored = np.flatnonzero(ranks >= 0)
        informs[ranks[scored]] = ~low[scored]
    return informs


def place_scored(task: Comparison, place: Location, ids: pa.Array, listed: Listed, tiles: Tiles) -> np.ndarray:
    """Leave for the tiles of a large cluster where their rows are, by the ranks of their scores.

    Args:
        task: how clusters are read.
        place: folder of the cluster.
        ids: (n,) in rank order.
        listed: the rows of the cluster.
        tiles: of the cluster.

    Returns:
        For each rank whether the row informs, (n,) truth.
    """
    light = light_of_chunks(place, listed.chunks)
    ranks = _checked_ranks(task, tiles.label, light.column("id"), ids)
    informs = _informs_by_rank(light, ranks, len(ids))
    place_rows(place, tiles, listed.chunks, ranks, informs)
    return informs


def read_rows(task: Comparison, cluster: Cluster, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The rows of a cluster in the order of these ids, normalised, (n, d) float32, and whether each informs, (n,).

    Memory: twice the cluster.

    Raises:
        InputError: a row that has a score is not there, or is there twice.
    """
    rows = np.empty((cluster.n_rows, task.dim), dtype=np.float32)
    tables = chain(read_base(task, cluster, task.light_columns[1:]), read_cluster(task, cluster))
    light = gather_unit_rows(tables, task.dim, rows).others
    ranks = _checked_ranks(task, cluster.label, light.column("id"), ids)
    scored = np.flatnonzero(ranks >= 0)
    positions = np.empty(len(ids), dtype=np.int64)
    positions[ranks[scored]] = scored
    return rows[positions], _informs_by_rank(light, ranks, len(ids))
