"""Remove near-duplicates from video training sets, on Dask, with or without GPUs."""

from importlib.metadata import version

from semdedup.compute import ClusterOptions
from semdedup.dedup.pipeline import Pipeline, StageResult
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.read import read_clusters, read_duplicates, read_embeddings, read_scores
from semdedup.dedup.result import DedupResult
from semdedup.dedup.similarity import max_similarity
from semdedup.dedup.stages import IdentifyDuplicatesStage, KMeansStage, PairwiseStage
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.errors import (
    BadFileError,
    ClusterError,
    DuplicateIdError,
    InputError,
    IntegrityError,
    OutputConflictError,
    ParameterError,
    SemdedupError,
    StorageError,
)

__version__ = version("semdedup")

__all__ = [
    "BadFileError",
    "ClusterError",
    "ClusterOptions",
    "DedupResult",
    "DuplicateIdError",
    "IdentifyDuplicatesStage",
    "InputError",
    "IntegrityError",
    "KMeansStage",
    "OutputConflictError",
    "PairwiseStage",
    "ParameterError",
    "Pipeline",
    "RankingStrategy",
    "SemanticDeduplicationWorkflow",
    "SemdedupError",
    "StageResult",
    "StorageError",
    "max_similarity",
    "read_clusters",
    "read_duplicates",
    "read_embeddings",
    "read_scores",
]
