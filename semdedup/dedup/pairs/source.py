"""What pairs are looked for in: files of embeddings, or the clusters of a result, by the ranks on its record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import pyarrow as pa

from semdedup.dedup.compare.columns import check_columns
from semdedup.dedup.input.facts import FileFacts
from semdedup.dedup.input.files import find_embeddings
from semdedup.dedup.input.keys import advice_on_keys, partition_keys
from semdedup.dedup.input.numbered import cluster_files
from semdedup.dedup.input.schema import check_file_schema
from semdedup.dedup.names import CLUSTER_FOLDER, CLUSTERS_PATH, find_table
from semdedup.dedup.options import PairsOptions, RankedOptions
from semdedup.dedup.ranking import RankingStrategy, check_rankable
from semdedup.dedup.threshold.vectors import is_across, scores_record
from semdedup.errors import InputError, ParameterError
from semdedup.runs.identity import resolve_path
from semdedup.runs.places import find_part
from semdedup.storage.location import FileInfo, Location


class Clusters(NamedTuple):
    """The folder of the clusters of a result, and the ranking on its record; None where there is none."""

    folder: Location
    ranking: RankingStrategy | None


class Search(NamedTuple):
    """What is asked for: columns, threshold and limit, what ranks, and whether the files are clusters of a result."""

    fields: RankedOptions
    options: PairsOptions
    strategy: RankingStrategy
    clustered: bool


def find_clusters_of(sources: Sequence[Location]) -> Clusters | None:
    """The clusters of a result, or of that of a run from videos on; None where other files are given, or a run has
    several results, which have no ranks in common.

    Raises:
        InputError: a result that has no clusters.
    """
    if len(sources) == 1 and sources[0].is_dir():
        results = find_part(sources[0], "results")
        return _clusters_of(results[0]) if len(results) == 1 else None
    return None


def _clusters_of(root: Location) -> Clusters | None:
    compared = scores_record(root)
    folder, noted = find_table(root, "clusters"), compared.get("facts", {}).get(CLUSTERS_PATH)
    if folder.url == root.url and noted is not None:
        place = resolve_path(noted, compared["root"])
        folder = find_table(place, "clusters") if place.is_dir() else root
    if folder.url != root.url or any(CLUSTER_FOLDER.search(name) for name in root.folder_names()):
        ranking = compared.get("parameters", {}).get("ranking")
        return Clusters(folder, None if ranking is None else RankingStrategy.described(ranking))
    if is_across(compared):
        raise InputError(f"{root} holds the comparison of two sets, which has no clusters; name embeddings instead")
    if compared.get("parameters"):
        raise InputError(
            f"{root} holds a result whose clusters are not there any more; run the command that made it again, or name "
            "the embeddings that it was made of"
        )
    return None


def list_files(
    sources: Sequence[Location], clusters: Clusters | None, filetype: str, outputs: Sequence[Location]
) -> Sequence[FileInfo]:
    """The files of the clusters of a result, else of embeddings.

    Raises:
        InputError: no such path, or no files.
    """
    if clusters is None:
        return find_embeddings(sources, outputs, filetype)
    files = cluster_files(clusters.folder)
    if not files:
        raise InputError(f"no clusters in {clusters.folder}: there is no folder centroid=0, centroid=1, …")
    return files


def checked_fields(facts: Sequence[FileFacts], search: Search, top: str, complete: bool = True) -> RankedOptions:
    """The columns to read, after checking that the files have those that are compared and ranked by.

    Args:
        facts: of files that have rows. Clusters have our names, and every column in every file.
        search: what is asked for.
        top: the folder that all given paths lie in: below it, folders may be keys.
        complete: whether these are all files: a column that ranks must be in one of them.

    Raises:
        BadFileError: a column is missing or of the wrong type.
        ParameterError: a column that ranks is missing or has no order.
    """
    if search.clustered:
        there = check_columns(facts, search.fields, search.strategy).options
        fields = replace(search.fields, id_field=there.id_field, embedding_field=there.embedding_field)
        return replace(fields, metadata_fields=there.metadata_fields)
    names: dict[str, None] = {}
    for file in {file.schema: file for file in facts}.values():
        schema = pa.ipc.read_schema(pa.py_buffer(file.schema))
        check_file_schema(schema, file.source, search.fields)
        check_rankable(schema, search.strategy, file.source, complete=False)
        names |= dict.fromkeys(schema.names)
    for file in facts:
        names |= dict.fromkeys(partition_keys(file.source, top))
    ranked_by = search.strategy.among(names)
    absent = [column for column in ranked_by if column not in names]
    if complete and absent:
        raise ParameterError(
            f"ranking needs the column {absent[0]!r}, which no file has; they have {', '.join(names)}"
            + advice_on_keys(absent, top)
        )
    return replace(search.fields, metadata_fields=ranked_by)
