"""Turn videos into a training set without near-duplicates, on Dask, with or without GPUs."""

from importlib.metadata import version

from semdedup.compute import ClusterOptions
from semdedup.dedup.cross import CrossStage
from semdedup.dedup.extract import Extraction, extract
from semdedup.dedup.leaks import LeakResult, find_leaks
from semdedup.dedup.pipeline import Pipeline, StageResult
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.read import read_clusters, read_duplicates, read_embeddings, read_scores
from semdedup.dedup.result import DedupResult, load
from semdedup.dedup.scores import Explanation, Group, Pair
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
from semdedup.export.result import ShardResult
from semdedup.export.workflow import ShardWorkflow
from semdedup.report.write import plot_curve, write_report
from semdedup.video.plan import PlanOptions, Span
from semdedup.video.result import SplitResult
from semdedup.video.source import Limits
from semdedup.video.tree import (
    get_output_path_ce1_embd_parquet,
    get_output_path_clips,
    get_output_path_dct3d_embd_parquet,
    get_output_path_embd_parquet,
    get_output_path_iv2_embd_parquet,
    get_output_path_metas,
    get_output_path_previews,
    get_output_path_processed_clip_chunks,
    get_output_path_processed_videos,
)
from semdedup.video.workflow import VideoEmbedWorkflow, VideoSplitWorkflow
from semdedup.workflow import RunResult, VideoDeduplicationWorkflow

__version__ = version("semdedup")

__all__ = [
    "BadFileError",
    "ClusterError",
    "ClusterOptions",
    "CrossStage",
    "DedupResult",
    "DuplicateIdError",
    "Explanation",
    "Extraction",
    "Group",
    "IdentifyDuplicatesStage",
    "InputError",
    "IntegrityError",
    "KMeansStage",
    "LeakResult",
    "Limits",
    "OutputConflictError",
    "Pair",
    "PairwiseStage",
    "ParameterError",
    "Pipeline",
    "PlanOptions",
    "RankingStrategy",
    "RunResult",
    "SemanticDeduplicationWorkflow",
    "SemdedupError",
    "ShardResult",
    "ShardWorkflow",
    "Span",
    "SplitResult",
    "StageResult",
    "StorageError",
    "VideoDeduplicationWorkflow",
    "VideoEmbedWorkflow",
    "VideoSplitWorkflow",
    "extract",
    "find_leaks",
    "get_output_path_ce1_embd_parquet",
    "get_output_path_clips",
    "get_output_path_dct3d_embd_parquet",
    "get_output_path_embd_parquet",
    "get_output_path_iv2_embd_parquet",
    "get_output_path_metas",
    "get_output_path_previews",
    "get_output_path_processed_clip_chunks",
    "get_output_path_processed_videos",
    "load",
    "max_similarity",
    "plot_curve",
    "read_clusters",
    "read_duplicates",
    "read_embeddings",
    "read_scores",
    "write_report",
]
