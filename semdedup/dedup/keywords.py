"""The options of the workflow as keywords, for functions that hand them on: type checkers know names and types."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from semdedup.dedup.ranking import RankingStrategy
from semdedup.settings.choices import (
    DistanceMetric,
    EmbeddingEncoding,
    Init,
    InputFiletype,
    KMeansEngine,
    RemovalRule,
    WhichToKeep,
)
from semdedup.settings.shared import SharedKeywords


class DedupKeywords(SharedKeywords, total=False):
    """Keywords of `SemanticDeduplicationWorkflow`, but paths, `eps`, `random_state`, base and layout."""

    n_clusters: int | Literal["auto"]
    cache_path: str | None
    id_field: str | None
    embedding_field: str
    embedding_dim: int | None
    embedding_encoding: EmbeddingEncoding | None
    metadata_fields: Sequence[str] | None
    input_filetype: InputFiletype
    max_iter: int
    tol: float
    init: Init | npt.NDArray[np.floating] | Sequence[Sequence[float]]
    n_init: int
    oversampling_factor: float
    max_samples_per_batch: int
    fit_data_fraction: float | None
    kmeans_engine: KMeansEngine
    distance_metric: DistanceMetric | None
    sim_metric: DistanceMetric | None
    which_to_keep: WhichToKeep | None
    rank_by: str | Sequence[str] | None
    ranking_strategy: RankingStrategy | Mapping[str, Any] | None
    pairwise_batch_size: int
    exact_up_to: float | None
    cache_kwargs: Mapping[str, Any] | None
    files_per_partition: int | None
    skip_bad_files: bool
    removal: RemovalRule
    count_at: Sequence[float]
