"""The dedup step by step, as functions of one partition: a frame in, a frame out.

    ddf ─ normalize ─▶ assign_clusters ─▶ .shuffle("centroid") ─▶ score_clusters ─▶ drop ─▶ what remains

Each is a pure function of a pandas frame, or of a cuDF frame, whose embeddings never leave the GPU; each works eagerly,
and on a Dask DataFrame through ``map_partitions`` without ``meta=``. Together they give the scores of
`SemanticDeduplicationWorkflow` with the same centroids, row for row, for inputs that fit in the memory of the workers;
the workflow is for the rest. Dask's option ``dataframe.convert-string`` must be off where the frame is made, for it
turns lists into text:

    >>> dask.config.set({"dataframe.convert-string": False})
    >>> rows = ddf.map_partitions(frames.normalize)                     # ddf: id, embedding and other columns
    >>> labelled = rows.map_partitions(frames.assign_clusters, "out/_kmeans_centroids.npy")
    >>> whole = labelled.shuffle("centroid")                            # rows of a cluster are in one partition
    >>> scores = whole.map_partitions(frames.score_clusters, keep_columns=True)
    >>> scores.map_partitions(frames.drop, eps=0.1).to_parquet("kept")

The same lines run on GPUs with ``ddf = dask_cudf.read_parquet(...)`` on a ``dask_cuda.LocalCUDACluster``. What
is called of cuDF was checked against its Python, and has not run yet.

A partition without rows, and the rows that Dask makes up to infer types with, give a frame without rows, whose columns
and types are those of any other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from itertools import pairwise
from typing import Any, TypeVar

import numpy as np

from semdedup.arrays import Array, array_module, to_host
from semdedup.dedup.compare.scored import best_of_rows
from semdedup.dedup.input.rows import REASONS, low_information_mask
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.kmeans import assign, distances_to_centroids
from semdedup.dedup.names import COSINE_DISTANCE, L2_DISTANCE, SCORE
from semdedup.dedup.ranking import WHICH_TO_KEEP, RankingStrategy, rank_order, strategy_of
from semdedup.dedup.threshold.rule import check_eps, duplicate_mask
from semdedup.errors import InputError, ParameterError
from semdedup.frames.checks import checked, checked_centroids, comparable_rows, light_columns, loaded_centroids
from semdedup.frames.columns import (
    arrow_column,
    check_frame,
    host_labels,
    numbers,
    of_cudf,
    take,
    text_column,
    with_rows,
    without_stand_ins,
)
from semdedup.settings import Kind, Setting
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION

F = TypeVar("F")
"""A DataFrame of pandas or cuDF: what comes back is of the kind that went in."""

__all__ = ["assign_clusters", "drop", "normalize", "rejected", "score_clusters"]

HINTS = {
    "id": "normalize makes it of the column that its id_field names.",
    "embedding": "normalize makes it of the column that its embedding_field names.",
    "centroid": "Call assign_clusters first, then shuffle by it.",
    SCORE: "Call score_clusters first, with keep_columns=True where the other columns are wanted.",
}
"""What to do about a missing column."""


def normalize(df: F, *, id_field: str = "id", embedding_field: str = "embedding") -> F:
    """The rows that can be compared, with embeddings of length 1.

    A row can be compared if it has an id, and an embedding of finite elements, not all zero, as long as most
    embeddings of the partition are. `rejected` gives the others.

    Args:
        df: ids, which are text or whole numbers, embeddings (n, d), and other columns. pandas may hold embeddings as
            one-dimensional arrays or lists, some of them missing, or as Arrow lists of any kind; cuDF as lists.
        id_field: column of the ids.
        embedding_field: column of the embeddings.

    Returns:
        The columns of `df`, (m ≤ n) rows with their index; ids are named ``id`` and embeddings ``embedding``, as those
        of every other function here. pandas: an object column of (d,) float32 arrays, which are views of one (m, d)
        array, and which Dask's shuffle carries. cuDF: a column of float32 lists.

    Raises:
        ParameterError: `df` is no frame, or lacks a column, or has it twice; or it has another column ``id`` or
            ``embedding``.
        InputError: columns of other types, among them embeddings that Dask has turned into text.

    Cost: O(n·d) time; one copy of the embeddings, and of the input where it is no array already.

    Example:
        >>> df = pd.DataFrame({"id": ["a", "b"], "embedding": [[3.0, 4.0], None]})
        >>> normalize(df)
          id   embedding
        0  a  [0.6, 0.8]
    """
    found, given = checked(df, id_field, embedding_field)
    names = {id_field: "id", embedding_field: "embedding"}
    for own, name in names.items():
        if name != own and name in given.columns and name not in names:
            raise ParameterError(
                f"the column {own!r} becomes {name!r}, and there is another column {name!r}: rename or drop that one"
            )
    kept = with_rows(take(given, found.positions), embedding_field, unit_rows(found.rows))
    return kept.rename(columns=names)


def rejected(df: F, *, id_field: str = "id", embedding_field: str = "embedding") -> F:
    """The rows that `normalize` leaves out, each with its reason.

    Args:
        df: as for `normalize`.
        id_field: column of the ids.
        embedding_field: column of the embeddings.

    Returns:
        ``id``, of the type that it has in `df`, and ``reason``, text: ``null``, ``wrong_length``, ``not_finite``,
        ``zero`` or ``null_id``; with the index of `df`.

    Raises:
        ParameterError, InputError: as `normalize`.

    Cost: O(n·d) time.

    Example:
        >>> rejected(pd.DataFrame({"id": ["a", "b"], "embedding": [[3.0, 4.0], None]}))
          id reason
        1  b   null
    """
    found, given = checked(df, id_field, embedding_field)
    wrong = array_module(found.faults).flatnonzero(found.faults)
    told = given[[id_field]].take(wrong).rename(columns={id_field: "id"})
    told["reason"] = text_column([REASONS[code] for code in to_host(found.faults[wrong])], told)
    return told


def assign_clusters(df: F, centroids: Any) -> F:
    """The nearest centroid of each row, and how far it is.

    Args:
        df: n rows as `normalize` gives them; of them ``embedding`` is used.
        centroids: (k, d) numbers, NumPy or CuPy; or the path of a ``.npy`` file of them, local or ``s3://``, which is
            read once in each worker. The workflow writes ``_kmeans_centroids.npy``. For many partitions a path is less
            to send.

    Returns:
        `df` with the columns ``centroid``, int32, the first of equally near ones; ``l2_dist_to_cent`` and
        ``cosine_dist_to_cent``, float32, of the row normalised; in place of columns of these names.

    Raises:
        ParameterError: `df` is no frame, or has no embeddings; centroids of another shape or length, or not finite.
        InputError: rows that cannot be compared; `BadFileError` for a file that holds no array.
        StorageError: a file that cannot be read.

    Cost: 2·n·k·d operations; memory of the embeddings once more, and of two products of a few MiB.

    Example:
        >>> df = pd.DataFrame({"id": ["a"], "embedding": [[0.6, 0.8]]})
        >>> assign_clusters(df, np.array([[1, 0], [0, 1]]))[["centroid", "cosine_dist_to_cent"]]
           centroid  cosine_dist_to_cent
        0         1                  0.2
    """
    check_frame(df, ["embedding"], HINTS)
    means = centroids if isinstance(centroids, (str, os.PathLike, Location)) else checked_centroids(centroids)
    rows, given = comparable_rows(df)
    xp = array_module(rows)
    if len(rows):
        if isinstance(means, (str, os.PathLike, Location)):
            means = loaded_centroids(means, of_cudf(given))
        means = xp.asarray(to_host(means) if xp is np else means)
        if means.shape[1] != rows.shape[1]:
            raise ParameterError(
                f"centroids have length {means.shape[1]}, the embeddings {rows.shape[1]}: they are of another input"
            )
        labels = assign(rows, means)
        l2, cosine = distances_to_centroids(rows, means, labels)
    else:
        labels, l2, cosine = (xp.empty(0, dtype=kind) for kind in (np.int32, np.float32, np.float32))
    labelled = given.copy(deep=False)
    for name, values in (("centroid", labels), (L2_DISTANCE, l2), (COSINE_DISTANCE, cosine)):
        labelled[name] = values
    return labelled


def score_clusters(
    df: F, ranking: str | RankingStrategy | Mapping[str, Any] = "hard", *, keep_columns: bool = False
) -> F:
    """The largest similarity of each row to a better-ranked row of its cluster, and which row that is.

    Args:
        df: n rows of whole clusters, of one or of several, as `assign_clusters` gives them, in any order. A row whose
            ``low_information`` is true matches nothing and nobody.
        ranking: ``"hard"`` (farthest from the centroid first), ``"easy"`` or ``"soft"`` (nearest first), ``"random"``
            (by a hash of the id, with the seed 42), ``"best"`` (most pixels, then ``bitrate``, then ``duration_s``, by
            those of these columns that there are), or a `RankingStrategy`, or a mapping such as
            ``{"metadata_cols": ["height"], "ascending": [False]}``.
        keep_columns: give all columns of `df` but the embedding.

    Returns:
        ``id``, ``max_id`` of the same type, and ``cosine_sim_score``, float32, in the order and with the index of `df`.
        The best-ranked row of a cluster has score 0 and itself as ``max_id``; similarities below 0 count as 0.

    Raises:
        ParameterError: `df` is no frame, or lacks a column; a ranking that is none, or by columns that are absent or
            without an order.
        InputError: rows that cannot be compared, a cluster that is no whole number, a ``low_information`` that is not
            true, false, 0, 1 or missing; `DuplicateIdError` for an id that is there twice.

    Cost: n²·d operations for a cluster of n rows, half of the square; memory of the embeddings once more, and of the
    largest cluster three times. Ids and what ranks are on the host, with cuDF too.

    Reference: A. Abbas et al., SemDeDup: Data-efficient learning at web-scale through semantic deduplication, 2023.

    Example:
        >>> df = assign_clusters(normalize(pd.DataFrame({"id": [1, 2], "embedding": [[1, 0], [0.6, 0.8]]})), [[1, 0]])
        >>> score_clusters(df)
           id  max_id  cosine_sim_score
        0   1       2               0.6
        1   2       2               0.0
    """
    strategy = RANKING.check(ranking)
    there = [name for name in (*strategy.columns, LOW_INFORMATION) if name in getattr(df, "columns", ())]
    check_frame(df, ["centroid", "id", "embedding", *there], HINTS)
    rows, given = comparable_rows(df)
    light = light_columns(given, strategy)
    labels = host_labels(arrow_column(given, "centroid"), "centroid")
    score, match = _scores(rows, labels, rank_order(light, strategy), low_information_mask(light))
    index, given = given.index, given.reset_index(drop=True)  # columns are set by position, whatever the index is
    ids = given["id"]
    found = given.drop(columns=[name for name in ("embedding", "max_id", SCORE) if name in given.columns])
    found = (found if keep_columns else found[["id"]]).drop(columns="id")
    for position, (name, values) in enumerate(
        {"id": ids, "max_id": ids.take(match).reset_index(drop=True), SCORE: score}.items()
    ):
        found.insert(position, name, values)
    found.index = index
    return found


def drop(df: F, eps: float) -> F:
    """The rows whose score is below the threshold of eps: those that the removal rule ``any`` keeps.

    Args:
        df: n rows with ``cosine_sim_score``, numbers from 0 to 1.
        eps: rows go whose score is at least ``1 - eps``, compared in float32; 0 ≤ eps < 1.

    Returns:
        Rows of `df` with their index, columns unchanged.

    Raises:
        ParameterError: `df` is no frame, or has no score; an eps out of its range.
        InputError: scores that are not finite, or not numbers.

    Cost: O(n).

    Example:
        >>> drop(pd.DataFrame({"id": [1, 2], "cosine_sim_score": [0.95, 0.2]}), eps=0.1)
           id  cosine_sim_score
        1   2               0.2
    """
    check_eps(eps)
    check_frame(df, [SCORE], HINTS)
    given = without_stand_ins(df)
    scores = numbers(given, SCORE)
    xp = array_module(scores)
    n_bad = int((~xp.isfinite(scores)).sum())
    if n_bad:
        raise InputError(
            f"{n_bad} of {len(given)} rows have a {SCORE!r} that is null or not finite: nothing says their fate"
        )
    return take(given, xp.flatnonzero(~duplicate_mask(scores, eps)))


def _ranking(value: Any) -> RankingStrategy:
    if isinstance(value, str):
        if value not in WHICH_TO_KEEP:
            raise ValueError
        return RankingStrategy.by_distance(value, "cosine")  # type: ignore[arg-type]
    return strategy_of(value)


RANKING = Setting(
    Kind(
        f"be one of {', '.join(WHICH_TO_KEEP)}, a RankingStrategy, or a mapping such as "
        "{'metadata_cols': ['height'], 'ascending': [False]} or {'random_seed': 7}",
        _ranking,
    ),
    "hard",
    "Which row of near-duplicates ranks better.",
    "ranking",
)


def _scores(rows: Array, labels: np.ndarray, order: np.ndarray, low: np.ndarray | None) -> tuple[Array, Array]:
    """Score (n,) float32 and match (n,) int64 of rows of several clusters, given in the order of their ranks."""
    xp = array_module(rows)
    score, match = xp.zeros(len(rows), dtype=np.float32), xp.arange(len(rows))
    order = order[np.argsort(labels[order], kind="stable")]
    starts = np.unique(labels[order], return_index=True)[1]
    for start, stop in pairwise([*starts.tolist(), len(order)]):
        chosen = order[start:stop]
        there = xp.asarray(chosen)
        found = best_of_rows(rows[there], None if low is None else low[chosen])
        score[there], match[there] = found[0], there[found[1]]
    return score, match
