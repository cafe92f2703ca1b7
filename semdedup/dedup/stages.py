"""The three stages. Each also runs alone, on the files of another program."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from semdedup.compute.session import Session
from semdedup.dedup.cluster import run as clustering
from semdedup.dedup.cluster.fit import KMeansOptions
from semdedup.dedup.cluster.run import cluster_embeddings
from semdedup.dedup.compare import run as comparison
from semdedup.dedup.compare.ranking import RankingStrategy
from semdedup.dedup.compare.run import score_clusters
from semdedup.dedup.input.files import InputOptions, find_files
from semdedup.dedup.names import (
    CLUSTER_FOLDER,
    IDENTIFY,
    KMEANS,
    PAIRWISE,
    SCORES_FILE,
    Destination,
    below,
    destination_of,
    find_table,
)
from semdedup.dedup.pipeline import Stage
from semdedup.dedup.threshold import run as identification
from semdedup.dedup.threshold.rule import check_eps
from semdedup.dedup.threshold.run import identify_duplicates
from semdedup.errors import InputError, ParameterError
from semdedup.storage.location import FileInfo, Location, Paths, locations_of


@dataclass
class KMeansStage(Stage):
    """Cluster embeddings: one folder ``centroid={k}`` of Parquet files for each cluster, and the centroids.

    Parameters are those of `SemanticDeduplicationWorkflow`; `output_path` is where the cluster folders go.

    Example:
        >>> KMeansStage(n_clusters=1000, input_path="emb/", output_path="out/kmeans").run()

    Cost: the input is read twice; 2·n·k·d operations for the assignment; memory of a task as in
    `semdedup.dedup.cluster.shuffle.partition_memory`.
    """

    n_clusters: int | str = "auto"
    id_field: str = "id"
    embedding_field: str = "embedding"
    input_path: Paths | None = None
    output_path: str | None = None
    embedding_dim: int | None = None
    metadata_fields: Sequence[str] | None = None
    input_filetype: str = "parquet"
    max_iter: int = 300
    tol: float = 1e-4
    random_state: int = 42
    init: Any = "k-means++"
    n_init: int = 1
    oversampling_factor: float = 2.0
    max_samples_per_batch: int = 1 << 15
    fit_data_fraction: float | None = None
    kmeans_engine: str = "auto"
    read_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)  # they may hold credentials
    write_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)
    files_per_partition: int | None = None
    skip_bad_files: bool = False
    clear_output: bool = False
    verbose: bool = True
    folder: str = ""
    other_outputs: Sequence[Location] = field(default=(), init=False, repr=False)
    ranked_by: RankingStrategy | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        self.step = KMEANS
        self.inputs = InputOptions(
            self.id_field,
            self.embedding_field,
            self.embedding_dim,
            tuple(n for n in self.metadata_fields or () if n not in (self.id_field, self.embedding_field)),
            self.input_filetype,
            self.files_per_partition,
            self.skip_bad_files,
        )
        self.kmeans = KMeansOptions(
            self.n_clusters,
            self.max_iter,
            self.tol,
            self.random_state,
            self.init,
            self.n_init,
            self.oversampling_factor,
            self.max_samples_per_batch,
            self.fit_data_fraction,
            self.kmeans_engine,
        )

    def source(self) -> Sequence[Location]:
        """Where it reads."""
        return locations_of(self.input_path, self.read_kwargs)

    def destination(self) -> Destination:
        """Where it writes."""
        return destination_of(self.output_path, self.folder, self.write_kwargs)

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        return clustering.parameters(self.inputs, self.kmeans)

    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """Its input files."""
        return find_files(sources, self.input_filetype, [self.destination().root, *self.other_outputs])

    def is_result(self, name: str) -> bool:
        """Whether a file of this name is a cluster's."""
        return bool(CLUSTER_FOLDER.search(name))

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        clustering.check_first_files(files, source, self.inputs, self.ranked_by)

    def precede(self, following: Stage | None) -> None:
        """Know by what the clusters will be ranked, where the next stage of the pipeline compares them."""
        destination, self.ranked_by = self.destination(), None
        if isinstance(following, PairwiseStage):
            folder = below(destination.root, destination.folder)
            if all(place.url in (folder.url, destination.root.url) for place in following.source()):
                self.ranked_by = following.strategy

    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Cluster the embeddings."""
        return cluster_embeddings(
            session,
            files,
            source,
            self.inputs,
            self.kmeans,
            self.destination(),
            self.read_kwargs or {},
            self.ranked_by,
        )


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
    which_to_keep: str = "hard"
    distance_metric: str | None = None
    sim_metric: str | None = None
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


@dataclass
class IdentifyDuplicatesStage(Stage):
    """Write the ids whose score reaches 1 - eps, sorted within each file.

    Reads the tables ``cluster_{k}.parquet`` of `PairwiseStage`, its own or another program's. For each eps of
    `count_at` the counts of kept and removed rows go to ``dedup_summary_{eps}.csv`` in the folder `summaries`. The ids
    of the other rows go to the folder `kept`, if one is named.

    Example:
        >>> IdentifyDuplicatesStage(input_path="out/pairwise", output_path="out/duplicates", eps=0.01).run()
    """

    eps: float = 0.1
    input_path: Paths | None = None
    output_path: str | None = None
    count_at: Sequence[float] = ()
    summaries: str = ""
    kept: str = ""
    read_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)  # they may hold credentials
    write_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)
    clear_output: bool = False
    verbose: bool = True
    folder: str = ""

    def __post_init__(self) -> None:
        self.step = IDENTIFY
        self.eps = check_eps(self.eps)
        self.count_at = tuple(check_eps(eps) for eps in self.count_at)

    def source(self) -> Sequence[Location]:
        """Where it reads."""
        return locations_of(self.input_path, self.read_kwargs)

    def destination(self) -> Destination:
        """Where it writes."""
        return destination_of(self.output_path, self.folder, self.write_kwargs)

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        return {"eps": self.eps, "count_at": list(self.count_at), **({"kept": self.kept} if self.kept else {})}

    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """The tables of scores."""
        return find_scores(sources[0])

    def folders(self) -> Sequence[str]:
        """Folders of the ids to drop, and of those to keep."""
        return [self.folder, self.kept] if self.kept else [self.folder]

    def is_result(self, name: str) -> bool:
        """Whether a file of this name holds ids."""
        return name.endswith(".parquet") and "/" not in name and not SCORES_FILE.search(name)

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        identification.check_first_files(files, source)

    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Apply the threshold."""
        folders = (self.summaries, self.kept)
        return identify_duplicates(session, files, source, self.eps, self.count_at, folders, self.destination())


def find_scores(root: Location) -> list[FileInfo]:
    """The tables of scores below a folder, in either layout. Raises `InputError` where there are none."""
    folder = find_table(root, "scores")
    files = [file for file in find_files([folder], "parquet") if SCORES_FILE.search(file.url)]
    if not files:
        raise InputError(
            f"no scores in {folder}: there is no cluster_0.parquet, cluster_1.parquet, …; run PairwiseStage first"
        )
    return files


def ranking_of(
    strategy: RankingStrategy | None, which_to_keep: str, metric: str | None, alias: str | None, random_state: int
) -> RankingStrategy:
    """The strategy that the parameters of a stage or of the workflow mean; an explicit one wins."""
    if metric is not None and alias is not None and metric != alias:
        raise ParameterError(f"distance_metric is {metric!r} but sim_metric, its alias, is {alias!r}; give one of them")
    by_distance = RankingStrategy.by_distance(which_to_keep, metric or alias or "cosine", random_state)
    if strategy is not None and not isinstance(strategy, RankingStrategy):
        raise ParameterError(f"ranking_strategy must be a RankingStrategy; got {type(strategy).__name__}")
    return strategy or by_distance
