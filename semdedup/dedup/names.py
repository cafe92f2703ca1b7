"""Names of the folders, files and columns of a result, in the two layouts that there are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from semdedup.errors import InputError, OutputConflictError
from semdedup.runs.places import CAPTIONS_ENDING, EMBEDDINGS_ENDING, TRACKS
from semdedup.runs.record import Record
from semdedup.settings import needed
from semdedup.storage.location import Location, storage_options_of

KMEANS, PAIRWISE, IDENTIFY = STEPS = ("kmeans", "pairwise", "identify")
"""Names of the steps, each of which is made of what the one before it wrote."""

PAIRS = "pairs"
"""Name of the step that lists pairs, and of their folder."""

CENTROIDS = "_kmeans_centroids.npy"
QUARANTINE = "_quarantine"
WITNESSES = "witnesses"
RANGES = "ranges"
"""Fact of k-means: the first cluster of each range that one task wrote; they share a forest when they are scored."""

FOREST = "_forest"
"""Folder of a maximum spanning forest of the matches."""

OF_BASE = "a_of_base"
"""Column of such a forest of an update: whether the row `id_a` is one of its base; `id_b` never is."""

WITNESSES = "witnesses"
"""Folder of the table that tells for whose sake each duplicate goes."""

EXPORTED = "_export.json"
"""What an export has written, and whether it is complete."""

WITHDRAWN = "_withdrawn"
"""Folder for the rows that an update withdrew from its base."""

BASE_ROWS = "_base"
"""Folder of the ids of the kept rows of a base that an update compared with, in rank order, a file for each cluster."""

WITHDRAWN_IDS, COULD_RETURN = "withdrawn.parquet", "could_return.parquet"
"""Files in there: the ids that were withdrawn, and the duplicates that nothing else keeps out."""

L2_DISTANCE, COSINE_DISTANCE = "l2_dist_to_cent", "cosine_dist_to_cent"
"""Columns of a cluster: the distances of a row to its centroid."""

CLUSTER = "centroid"
"""Column of the number of a row's cluster, and key of the folders of clusters."""

SCORE = "cosine_sim_score"
"""Column of the scores."""

CLUSTERS_PATH = "clusters_path"
"""Fact of a comparison: where the clusters are, as seen from its root."""

OUR_COLUMNS = ("id", "embedding", "centroid", L2_DISTANCE, COSINE_DISTANCE)
"""Columns of a cluster that semdedup writes itself."""

EMBEDDINGS_FOLDER = EMBEDDINGS_ENDING
"""How the folders end in which `split` and `embed` write embeddings."""

CAPTIONS_FOLDER = CAPTIONS_ENDING
"""How the names of folders of captions end that `split` and `caption` write: they are no embeddings."""

TRACKS_FOLDER = TRACKS
"""Folder beside them of the fingerprint tracks of the videos, which are no input of a dedup."""

AGAINST = "against"
"""Parameters of a comparison that begin so tell of the other set, where rows were compared with those of another."""


@dataclass(frozen=True)
class Layout:
    """Folders of the three tables, and of the summaries, below a result's root; empty for the root itself."""

    clusters: str
    scores: str
    duplicates: str
    summaries: str = ""


WORKFLOW = Layout("kmeans_results", "pairwise_results", "duplicates")
"""What `SemanticDeduplicationWorkflow` writes."""

COMMAND_LINE = Layout("clustering_results", "extraction/semdedup_pruning_tables", "duplicates", "extraction")
"""What the command line writes, and the documents that name these folders describe."""

CLUSTER_FOLDER = re.compile(r"(?:^|/)centroid=(\d+)(?:/|$)")
SCORES_FILE = re.compile(r"(?:^|/)cluster_(\d+)\.parquet$")


_TABLES = r"(?:[^/]+/){0,4}"
WRITTEN = {
    KMEANS: re.compile(rf"{_TABLES}centroid=\d+/[^/]+\.parquet|{re.escape(CENTROIDS)}|{QUARANTINE}/[^/]+\.parquet"),
    PAIRWISE: re.compile(
        rf"{_TABLES}cluster_\d+\.parquet|(?:{QUARANTINE}|{FOREST}|{WITHDRAWN}|{BASE_ROWS})/[^/]+\.parquet"
    ),
    IDENTIFY: re.compile(rf"{_TABLES}(?:part-\d+\.parquet|dedup_summary_[^/]+\.csv)"),
    PAIRS: re.compile(rf"{PAIRS}/part-\d+\.parquet|{QUARANTINE}/{PAIRS}-\d+\.parquet"),
}
"""What the names of the files of each step look like: a record that names others is not believed."""


def cluster_file(cluster: int) -> str:
    """Name of the table that holds the scores of a cluster, or its rows in quarantine."""
    return f"cluster_{cluster}.parquet"


def label_of(url: str) -> int:
    """The cluster that a file of clusters belongs to, by its folder; -1 where that tells none."""
    match = CLUSTER_FOLDER.search(url)
    return int(match[1]) if match else -1


def cluster_of(url: str) -> int:
    """The cluster that a table of scores is about, by its name; -1 where that tells none."""
    match = SCORES_FILE.search(url)
    return int(match[1]) if match else -1


def join(*parts: str) -> str:
    """Join parts of a relative path; empty ones vanish."""
    return "/".join(part for part in parts if part)


def below(root: Location, folder: str) -> Location:
    """The folder below the root, or the root itself for an empty name."""
    return root / folder if folder else root


def summary_name(eps: float) -> str:
    """Name of the CSV file with the counts for one eps."""
    return f"dedup_summary_{eps:.6g}.csv"


def _cache_of(root: Location) -> Location | None:
    """The folder of clusters and scores that the record of a result names, where that is another."""
    try:
        return Record(root).cache_root
    except OutputConflictError:  # damaged, or of something else
        return None


def find_table(root: Location, table: str) -> Location:
    """The folder of ``clusters``, ``scores`` or ``duplicates`` below a result's root, in whichever layout it has.

    The folder itself may be given as well. Where the record of the root names a cache, it is looked at next.

    Raises:
        InputError: there is no such path.
    """
    cache = _cache_of(root)
    for place in (root, *([cache] if cache is not None else [])):
        for layout in (WORKFLOW, COMMAND_LINE):
            folder = below(place, getattr(layout, table))
            if folder.is_dir():
                return folder
    if root.exists():
        return root
    raise InputError(f"no such path: {root}")


@dataclass(frozen=True)
class Destination:
    """Where a step writes: below `folder` of `root`, whose manifest tells of it, with these options for Parquet."""

    root: Location
    folder: str
    write_kwargs: Mapping[str, Any] = field(repr=False)  # they may hold credentials


def destination_of(path: str | None, folder: str, kwargs: Mapping[str, Any] | None) -> Destination:
    """The destination that the ``output_path`` and ``write_kwargs`` of a stage mean."""
    root = Location.of(needed(path, "output_path"), storage_options_of(kwargs))
    root.check_writable()
    return Destination(root, folder, kwargs or {})
