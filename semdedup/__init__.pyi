"""What `semdedup` offers, and where it lives. `__init__.py` imports it from here, when it is first asked for."""

from . import frames
from .calibration.result import Calibration
from .calibration.run import calibrate
from .compute.options import ClusterOptions
from .dedup.base.summary import BaseSummary, Withdrawal
from .dedup.cluster.stage import KMeansStage
from .dedup.compare.stage import PairwiseStage
from .dedup.deduplicate import deduplicate
from .dedup.estimate.result import Estimate
from .dedup.estimate.search import estimate
from .dedup.kernels.best_match import max_similarity
from .dedup.leaks.search import LeakResult, find_leaks
from .dedup.leaks.stage import CrossStage
from .dedup.pairs.search import PairsResult, find_pairs
from .dedup.pairs.stage import PairsStage
from .dedup.pipeline import Pipeline
from .dedup.ranking import RankingStrategy
from .dedup.results.frames import read_clusters, read_duplicates, read_embeddings, read_scores, read_witnesses
from .dedup.results.load import load
from .dedup.results.pairs import Explanation, Group, Pair
from .dedup.results.result import DedupResult
from .dedup.stage import StageResult
from .dedup.threshold.extract import Extraction, extract
from .dedup.threshold.stage import IdentifyDuplicatesStage
from .dedup.workflow import SemanticDeduplicationWorkflow
from .errors import (
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
from .exports.write import Export, export
from .overlaps.result import OverlapsResult
from .overlaps.search import find_overlaps
from .report.inline import show_pairs
from .report.write import plot_curve, write_report
from .run_result import RunResult
from .shards.result import ShardResult
from .shards.workflow import ShardWorkflow
from .video.caption import CaptionResult, VideoCaptionWorkflow
from .video.options import Limits, PlanOptions
from .video.plan import Span
from .video.result import SplitResult
from .video.tree import (
    get_output_path_ce1_embd_parquet,
    get_output_path_clips,
    get_output_path_dct3d_embd_parquet,
    get_output_path_embd_parquet,
    get_output_path_fingerprints,
    get_output_path_iv2_embd_parquet,
    get_output_path_metas,
    get_output_path_previews,
    get_output_path_processed_clip_chunks,
    get_output_path_processed_videos,
)
from .video.workflow import VideoEmbedWorkflow, VideoSplitWorkflow
from .workflow import VideoDeduplicationWorkflow

__version__: str

__all__ = [
    "BadFileError",
    "BaseSummary",
    "Calibration",
    "CaptionResult",
    "ClusterError",
    "ClusterOptions",
    "CrossStage",
    "DedupResult",
    "DuplicateIdError",
    "Estimate",
    "Explanation",
    "Export",
    "Extraction",
    "Group",
    "IdentifyDuplicatesStage",
    "InputError",
    "IntegrityError",
    "KMeansStage",
    "LeakResult",
    "Limits",
    "OutputConflictError",
    "OverlapsResult",
    "Pair",
    "PairsResult",
    "PairsStage",
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
    "VideoCaptionWorkflow",
    "VideoDeduplicationWorkflow",
    "VideoEmbedWorkflow",
    "VideoSplitWorkflow",
    "Withdrawal",
    "calibrate",
    "deduplicate",
    "estimate",
    "export",
    "extract",
    "find_leaks",
    "find_overlaps",
    "find_pairs",
    "frames",
    "get_output_path_ce1_embd_parquet",
    "get_output_path_clips",
    "get_output_path_dct3d_embd_parquet",
    "get_output_path_embd_parquet",
    "get_output_path_fingerprints",
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
    "read_witnesses",
    "show_pairs",
    "write_report",
]
