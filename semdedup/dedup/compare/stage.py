"""`PairwiseStage`: clusters in, tables of scores out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from semdedup.choices import DistanceMetric, WhichToKeep
from semdedup.compute.session import Session
from semdedup.dedup.compare import run as comparison
from semdedup.dedup.compare.ranking import RankingStrategy
from semdedup.dedup.compare.run import score_clusters
from semdedup.dedup.input.files import InputOptions, find_files
from semdedup.dedup.names import (
    CLUSTER_FOLDER,
    PAIRWISE,
    SCORES_FILE,
    Destination,
    destination_of,
    find_table,
)
from semdedup.dedup.pipeline import Stage
from semdedup.errors import InputError, ParameterError
from semdedup.storage.location import FileInfo, Location, Paths, locations_of


@dataclass
class PairwiseStage(Stage):
    """Score clusters: one table ``cluster_{k}.parquet`` of ``id``, ``max_id``, ``cosine_sim_score`` for each.

    Reads the folders ``centroid={k}`` that `KMeansStage` writes, its own or another program's. `sim_metric` is another
    name of `distance_metric`.

    Example:
        >>> PairwiseStage(input_path="out/kmeans", output_path="out/pairwise", which_to_keep="hard").run()

    Cost: the sum over clusters of n²·d operations; memory of a task as in `semdedup.dedup.compare.groups.group_memory`.
    """

    id_field: str = "id"
    embedding_field: str = "embedding"
    input_path: Paths | None = None
    output_path: str | None = None
    embedding_dim: int | None = None
    which_to_keep: WhichToKeep = "hard"
    distance_metric: DistanceMetric | None = None
    sim_metric: DistanceMetric | None = None
    ranking_strategy: RankingStrategy | None = None
    random_state: int = 42
    pairwise_batch_size: int = 1024
    read_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)  # they may hold credentials
    write_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)
    clear_output: bool = False
    verbose: bool = True
    folder: str = ""

    def __post_init__(self) -> None:
        self.step = PAIRWISE
        self.strategy = ranking_of(
            self.ranking_strategy, self.which_to_keep, self.distance_metric, self.sim_metric, self.random_state
        )
        if isinstance(self.pairwise_batch_size, bool) or not isinstance(self.pairwise_batch_size, int):
            raise ParameterError(f"pairwise_batch_size must be a whole number; got {self.pairwise_batch_size!r}")
        if self.pairwise_batch_size < 1:
            raise ParameterError(f"pairwise_batch_size must be at least 1; got {self.pairwise_batch_size}")
        self.fields = InputOptions(self.id_field, self.embedding_field, self.embedding_dim)

    def source(self) -> Sequence[Location]:
        """Where it reads."""
        return locations_of(self.input_path, self.read_kwargs)

    def destination(self) -> Destination:
        """Where it writes."""
        return destination_of(self.output_path, self.folder, self.write_kwargs)

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        return {"ranking": self.strategy.describe(), "id_field": self.id_field, "embedding_field": self.embedding_field}

    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """The cluster files."""
        folder = find_table(sources[0], "clusters")
        files = [file for file in find_files([folder], "parquet") if CLUSTER_FOLDER.search(file.url)]
        if not files:
            raise InputError(
                f"no clusters in {folder}: there is no folder centroid=0, centroid=1, …; run KMeansStage first"
            )
        return files

    def is_result(self, name: str) -> bool:
        """Whether a file of this name is a table of scores."""
        return bool(SCORES_FILE.search(name))

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        comparison.check_first_files(files, source, self.fields, self.strategy)

    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Score the clusters."""
        return score_clusters(
            session, files, source, self.fields, self.strategy, self.pairwise_batch_size, self.destination()
        )


def ranking_of(
    strategy: RankingStrategy | None,
    which_to_keep: WhichToKeep,
    metric: DistanceMetric | None,
    alias: DistanceMetric | None,
    random_state: int,
) -> RankingStrategy:
    """The strategy that the parameters of a stage or of the workflow mean; an explicit one wins."""
    if metric is not None and alias is not None and metric != alias:
        raise ParameterError(f"distance_metric is {metric!r} but sim_metric, its alias, is {alias!r}; give one of them")
    by_distance = RankingStrategy.by_distance(which_to_keep, metric or alias or "cosine", random_state)
    if strategy is not None and not isinstance(strategy, RankingStrategy):
        raise ParameterError(f"ranking_strategy must be a RankingStrategy; got {type(strategy).__name__}")
    return strategy or by_distance
