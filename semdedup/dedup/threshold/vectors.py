"""The rows of clusters in the rank order of their scores: what a second look at a cluster needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.compare.groups import Cluster
from semdedup.dedup.input.files import recorded_or_listed
from semdedup.dedup.input.ids import id_type
from semdedup.dedup.input.rows import commonest_length, embedding_rows, length_counts, low_information_mask
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.names import AGAINST, CLUSTER_FOLDER, CLUSTERS_PATH, PAIRWISE, SCORE, find_table
from semdedup.errors import BadFileError, InputError
from semdedup.runs.identity import fingerprint, resolve_path
from semdedup.runs.lookup import find_record, known_files
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import LOW_INFORMATION, iter_rows, open_parquet, read_table


class Vectors(NamedTuple):
    """Where the clusters are that scores were made of.

    Attributes:
        source: their storage.
        id_field, embedding_field: names of the columns.
    """

    source: Location
    id_field: str = "id"
    embedding_field: str = "embedding"


def scores_record(scores: Location) -> Mapping[str, Any]:
    """What is on record of the comparison that wrote some scores; nothing for those of another program.

    Args:
        scores: the root of a result, or its folder of scores.
    """
    record = find_record(find_table(scores, "scores"))
    return {} if record is None else {**(record.committed(PAIRWISE) or {}), "root": record.root}


def is_across(compared: Mapping[str, Any]) -> bool:
    """Whether a comparison on record was one of two sets."""
    return any(name.startswith(AGAINST) for name in compared.get("parameters", ()))


def find_vectors(scores: Location, clusters_path: str | None = None) -> tuple[Vectors, list[FileInfo]]:
    """The clusters that scores were made of, and their files: of `clusters_path`, else where the record says.

    Raises:
        InputError: they are gone, or are not those any more.
    """
    compared = scores_record(scores)
    place = _clusters_of(scores, compared) if clusters_path is None else Location.of(clusters_path, scores.options)
    needed = (
        "The removal rule 'witness' reads the clusters, which are found through the record of the scores. Make the "
        "clusters again with the command that made the scores, name them with clusters_path, or take removal='any'"
    )
    if not place.is_dir():
        raise InputError(f"no clusters in {place}. {needed}")
    listed = recorded_or_listed([find_table(place, "clusters")], CLUSTER_FOLDER)
    if not listed:
        raise InputError(f"no clusters in {place}: there is no folder centroid=0, centroid=1, …. {needed}")
    if "input" in compared and fingerprint(listed, known_files([place])) != compared["input"]:
        raise InputError(f"the clusters in {place} are not those that the scores in {scores} were made of. {needed}")
    parameters = compared.get("parameters", {})
    named = {"id": parameters.get("id_field", "id"), "embedding": parameters.get("embedding_field", "embedding")}
    with open_parquet(place.at(listed[0].url)) as file:  # as they were called in the input, or as we call them
        there = file.schema_arrow.names
    return Vectors(place, *(name if name in there else ours for ours, name in named.items())), listed


def _clusters_of(scores: Location, compared: Mapping[str, Any]) -> Location:
    """Where the record of a comparison says that its clusters are, else where they would be below the same root."""
    place = compared.get("facts", {}).get(CLUSTERS_PATH)
    return find_table(scores, "clusters") if place is None else resolve_path(place, compared["root"])


class Ranked(NamedTuple):
    """A table of scores in rank order.

    Attributes:
        ids: (n,) of the rows.
        score: (n,) float32.
        match: (n,) int64, the rank of the row of `max_id`.
    """

    ids: pa.Array
    score: np.ndarray
    match: np.ndarray


def read_ranked(location: Location) -> Ranked:
    """Read the table of scores of one cluster, whose rows stand in rank order. Memory: about 100 bytes a row.

    Raises:
        BadFileError: a row comes before the better-ranked one that it matches, or that one is missing.
    """
    table = read_table(location, ["id", "max_id", SCORE])
    for name in ("id", "max_id", SCORE):
        if name not in table.column_names:
            raise BadFileError(f"the file {location} is no table of scores: it has no column {name!r}")
    kind = id_type(table.column("id").type) or table.column("id").type
    ids, max_ids = (_whole(table.column(name).cast(kind)) for name in ("id", "max_id"))
    score = table.column(SCORE).cast(pa.float32()).to_numpy()
    match = pc.fill_null(pc.index_in(max_ids, value_set=ids), len(ids)).to_numpy().astype(np.int64)
    wrong = np.flatnonzero((match > np.arange(len(ids))) & (score > 0))
    if len(wrong):
        raise BadFileError(
            f"the rows of {location} do not stand in rank order: {ids[wrong[0]].as_py()!r} comes before "
            f"{max_ids[wrong[0]].as_py()!r}, which it matches. Of such scores only the removal rule 'any' can be had."
        )
    return Ranked(ids, score, np.minimum(match, np.arange(len(ids))))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    wide = column.cast(pa.large_string()) if pa.types.is_string(column.type) else column
    return wide.combine_chunks()


def light_rows(vectors: Vectors, cluster: Cluster, ids: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """For each row of the files of a cluster its rank, (m,) int64, -1 where it has no score; and of each rank whether
    it informs, (n,) truth.

    Raises:
        InputError: a row that has a score is not there, or is there twice.
    """
    ranks, informs = [], np.ones(len(ids), dtype=bool)
    for table in _tables(vectors, cluster, with_rows=False):
        ranks.append(ranks_of(table.column("id"), ids))
        low = low_information_mask(table)
        if low is not None:
            informs[ranks[-1][low & (ranks[-1] >= 0)]] = False
    every = np.concatenate(ranks) if ranks else np.empty(0, dtype=np.int64)
    counts = np.bincount(every[every >= 0], minlength=len(ids))
    wrong = np.flatnonzero(counts != 1)
    if len(wrong):
        there = "more than once" if counts[wrong[0]] else "not"
        raise InputError(
            f"the row {ids[int(wrong[0])].as_py()!r} of the scores of cluster {cluster.label} is {there} in "
            f"centroid={cluster.label} of {vectors.source}: these are not the clusters that the scores were made of"
        )
    return every, informs


def ranks_of(column: pa.ChunkedArray, ids: pa.Array) -> np.ndarray:
    """Position of each id of a column among some ids, (m,) int64; -1 for none."""
    return pc.fill_null(pc.index_in(_whole(column).cast(ids.type), value_set=ids), -1).to_numpy().astype(np.int64)


def rows_between(vectors: Vectors, cluster: Cluster, ranks: np.ndarray, start: int, stop: int) -> np.ndarray:
    """The rows of ranks [start, stop) of a cluster, in rank order and normalised, (stop - start, d) float32.

    Args:
        vectors, cluster: which.
        ranks: (m,) the rank of each row in the order of the files, from `light_rows`.
        start, stop: the ranks that are wanted.

    Memory: the rows, and a batch as it is read.
    """
    rows: np.ndarray | None = None
    seen = 0
    for table in _tables(vectors, cluster, with_rows=True):
        rank = ranks[seen : seen + len(table)]
        seen += len(table)
        wanted = np.flatnonzero((rank >= start) & (rank < stop))
        if len(wanted):
            column = table.column("embedding").take(pa.array(wanted))
            if rows is None:
                rows = np.empty((stop - start, commonest_length(length_counts(column))), dtype=np.float32)
            found, positions = embedding_rows(column, rows.shape[1])
            rows[rank[wanted[positions]] - start] = unit_rows(found)
    return np.empty((0, 1), dtype=np.float32) if rows is None else rows


def _tables(vectors: Vectors, cluster: Cluster, with_rows: bool) -> Iterator[pa.Table]:
    """A cluster in tables of bounded size: ``id`` and whether rows are of low information, or ``embedding`` alone."""
    for url in cluster.urls:
        with open_parquet(vectors.source.at(url)) as file:
            ours = {vectors.id_field: "id", vectors.embedding_field: "embedding", LOW_INFORMATION: LOW_INFORMATION}
            wanted = [vectors.embedding_field] if with_rows else [vectors.id_field, LOW_INFORMATION]
            for table in iter_rows(file, [name for name in wanted if name in file.schema_arrow.names]):
                yield table.rename_columns([ours[name] for name in table.column_names])
