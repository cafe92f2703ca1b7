"""`KMeansStage`: embeddings in, one folder for each cluster out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, Unpack

import numpy as np
import numpy.typing as npt

from semdedup.dedup.base.update import Base
from semdedup.dedup.cluster.plan import check_embedding_files
from semdedup.dedup.cluster.run import cluster_embeddings
from semdedup.dedup.frame_input.held import Columns
from semdedup.dedup.input.files import embeddings_of, find_files
from semdedup.dedup.input.found import FoundFiles
from semdedup.dedup.input.keys import keys_identity
from semdedup.dedup.names import CLUSTER_FOLDER, KMEANS, below
from semdedup.dedup.options import InputOptions, IOOptions, KMeansOptions, UpdateOptions
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.stage import Stage
from semdedup.display import format_counts
from semdedup.errors import InputError
from semdedup.runs.run import Run
from semdedup.settings import documented
from semdedup.settings.choices import EmbeddingEncoding, Init, InputFiletype, KMeansEngine
from semdedup.settings.frames import Frame, Input, with_frames
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import FileInfo, Location

FEW_ROWS = 50
"""Fewer rows a cluster than this, on average, are told: as many clusters hide copies, and spare little work."""


@documented(IOOptions, InputOptions, KMeansOptions, UpdateOptions)
class KMeansStage(Stage):
    """Cluster embeddings: one folder ``centroid={k}`` of Parquet files for each cluster, and the centroids.

    Parameters are those of `SemanticDeduplicationWorkflow`; `output_path` is where the cluster folders go.

    Example:
        >>> KMeansStage(input_path="emb/", output_path="out/kmeans").run()

    Cost: the input is read twice; 2·n·k·d operations for the assignment; memory of a task as in
    `semdedup.dedup.cluster.shuffle.partition_memory`.
    """

    step = KMEANS

    def __init__(
        self,
        n_clusters: int | Literal["auto"] = "auto",
        id_field: str | None = "id",
        embedding_field: str = "embedding",
        input_path: Input | None = None,
        output_path: str | None = None,
        embedding_dim: int | None = None,
        embedding_encoding: EmbeddingEncoding | None = None,
        metadata_fields: Sequence[str] | None = None,
        input_filetype: InputFiletype = "parquet",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: int = 42,
        init: Init | npt.NDArray[np.floating] | Sequence[Sequence[float]] = "k-means++",
        n_init: int = 1,
        oversampling_factor: float = 2.0,
        max_samples_per_batch: int = 1 << 15,
        fit_data_fraction: float | None = None,
        kmeans_engine: KMeansEngine = "auto",
        files_per_partition: int | None = None,
        skip_bad_files: bool = False,
        base: str | None = None,
        withdraw: Sequence[str | int] = (),
        folder: str = "",
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = with_frames({**locals(), **shared}, "input_path")
        super().__init__(given)
        self.inputs, self.kmeans = InputOptions.of(given), KMeansOptions.of(given)
        self.other_outputs: Sequence[Location] = ()
        self.ranked_by: RankingStrategy | None = None
        self.following: Stage | None = None
        self.base = Base.of(given)

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        base = {} if self.base is None else {"base": self.base.digest}
        return {"folder": self.folder, **self.inputs.recorded(), **self.kmeans.recorded(), **base}

    def columns(self, frame: Frame) -> Columns:
        """The columns of a frame that it uses."""
        return Columns.of(self.inputs, frame)

    def source(self) -> Sequence[Location]:
        """The embeddings; of the output of a split, or the root of a run, the folder of them."""
        return self._embeddings

    @cached_property
    def _embeddings(self) -> Sequence[Location]:
        return embeddings_of(super().source())

    def find_input(self, sources: Sequence[Location]) -> FoundFiles:
        """Its input files."""
        outputs = [self.destination().root, *self.other_outputs]
        return find_files(sources, self.inputs.input_filetype, outputs, recorded=True)

    def identify(self, sources: Sequence[Location]) -> tuple[Sequence[FileInfo], Mapping[str, Any] | None]:
        """As every stage; keys of partitions that are carried along are part of the input."""
        files, identity = super().identify(sources)
        if identity is None or not files:
            return files, identity
        return files, {
            **identity,
            **keys_identity(files, self.inputs.metadata_fields),
        }

    def is_result(self, name: str) -> bool:
        """Whether a file of this name is a cluster's."""
        return bool(CLUSTER_FOLDER.search(name))

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        if self.base is not None:
            self.base.check()
            if self.ranked_by is not None:
                self.base.check_ranking(self.ranked_by)
        check_embedding_files(files, source, self.inputs, self.ranked_by, self.base)

    def before(self, following: Stage | None) -> None:
        """Know the next stage of the pipeline, where that reads the clusters, and by what it will rank them."""
        self.ranked_by = self.following = None
        if following is not None and following.frame is None and following.ranking() is not None:
            destination = self.destination()
            folder = below(destination.root, destination.folder)
            if all(place.url in (folder.url, destination.root.url) for place in following.source()):
                self.ranked_by, self.following = following.ranking(), following
        self.inputs = self.inputs.ranked(self.ranked_by)

    def work(self, run: Run, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Cluster the embeddings.

        Raises:
            InputError: no row can be compared, of those that are new.
        """
        read_kwargs, destination = self.io.read_kwargs or {}, self.destination()
        if self.base is not None:
            with run.refusing():
                self.base.check()
        options = (self.inputs, self.kmeans, destination, read_kwargs)
        while_written = None if self.following is None else self.following.while_written(run)
        facts = cluster_embeddings(run, files, source, *options, self.ranked_by, self.base, while_written)
        across = self.following is not None and self.following.finds_across
        chosen = self.base is None and self.kmeans.n_clusters != "auto"
        if chosen and not across and (warning := tiny_clusters(facts["rows"], facts["n_clusters"])):
            run.session.reporter.say_once(warning)
        if self.base is not None and not facts["clusters"]:
            with run.refusing():
                raise InputError(
                    "every new row was set aside, so that there is nothing to compare with the base: "
                    + format_counts(facts["quarantined"])
                )
        return facts


def tiny_clusters(n_rows: int, n_clusters: int) -> str:
    """What to do where clusters are so small that copies lie in different ones; empty where they are not.

    >>> tiny_clusters(20_000, 100), tiny_clusters(20, 1)
    ('', '')
    """
    if n_clusters < 2 or n_rows >= FEW_ROWS * n_clusters:
        return ""
    return (
        f"warning: n_clusters {n_clusters:,} leaves {n_rows / n_clusters:.3g} rows to a cluster, and only rows of one "
        "cluster are compared: copies in different clusters stay. Leave n_clusters (--n-clusters) out, or give "
        "exact_up_to (--exact-up-to) to find the matches across clusters, too"
    )
