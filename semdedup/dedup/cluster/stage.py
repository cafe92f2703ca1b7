"""`KMeansStage`: embeddings in, one folder for each cluster out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from semdedup.choices import InputFiletype, KMeansEngine
from semdedup.compute.session import Session
from semdedup.dedup.cluster import run as clustering
from semdedup.dedup.cluster.fit import KMeansOptions
from semdedup.dedup.cluster.run import cluster_embeddings
from semdedup.dedup.compare.ranking import RankingStrategy
from semdedup.dedup.input.files import InputOptions, find_files
from semdedup.dedup.names import (
    CLUSTER_FOLDER,
    KMEANS,
    Destination,
    below,
    destination_of,
)
from semdedup.dedup.pipeline import Stage
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
    input_filetype: InputFiletype = "parquet"
    max_iter: int = 300
    tol: float = 1e-4
    random_state: int = 42
    init: Any = "k-means++"
    n_init: int = 1
    oversampling_factor: float = 2.0
    max_samples_per_batch: int = 1 << 15
    fit_data_fraction: float | None = None
    kmeans_engine: KMeansEngine = "auto"
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
        strategy = getattr(following, "strategy", None)
        if following is not None and strategy is not None:
            folder = below(destination.root, destination.folder)
            if all(place.url in (folder.url, destination.root.url) for place in following.source()):
                self.ranked_by = strategy

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
