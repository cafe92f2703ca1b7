"""`PairsStage`: embeddings or a result in, tables of pairs out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Unpack

from semdedup.dedup.compare.columns import check_cluster_files
from semdedup.dedup.frame_input.held import Columns
from semdedup.dedup.input.found import top_of
from semdedup.dedup.input.keys import keys_identity
from semdedup.dedup.input.usable import first_usable_files
from semdedup.dedup.names import PAIRS
from semdedup.dedup.options import FieldOptions, IOOptions, PairsOptions, RankedOptions
from semdedup.dedup.pairs.run import list_pairs
from semdedup.dedup.pairs.source import Clusters, Search, checked_fields, find_clusters_of, list_files
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.stage import Stage
from semdedup.dedup.threshold.rule import DEFAULT_EPS
from semdedup.runs.run import Run
from semdedup.settings import documented
from semdedup.settings.choices import EmbeddingEncoding, InputFiletype
from semdedup.settings.frames import Frame, Input, with_frames
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import FileInfo, Location


@documented(IOOptions, FieldOptions, PairsOptions)
class PairsStage(Stage):
    """List every pair within eps: tables ``pairs/part-{n}.parquet`` of ``id_a``, ``id_b``, ``cosine_sim_score``.

    Reads embeddings, or a result of the dedup: its clusters, by the ranks of its record. The parameters are those of
    `find_pairs`.

    Example:
        >>> PairsStage(input_path="emb/", eps=0.05, output_path="out").run()

    Cost: the input is read twice; at most n²·d operations, mostly a tenth of them; memory of a task as in
    `semdedup.dedup.pairs.tasks.find_in_span`.
    """

    step, hint = PAIRS, ""

    def __init__(
        self,
        eps: float = DEFAULT_EPS,
        input_path: Input | None = None,
        output_path: str | None = None,
        id_field: str | None = "id",
        embedding_field: str = "embedding",
        embedding_dim: int | None = None,
        embedding_encoding: EmbeddingEncoding | None = None,
        input_filetype: InputFiletype = "parquet",
        ranking_strategy: RankingStrategy | Mapping[str, Any] | None = None,
        max_pairs: int = 10**9,
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = with_frames({**locals(), **shared, "folder": PAIRS}, "input_path")
        super().__init__(given)
        self.fields, self.options = RankedOptions.of(given), PairsOptions.of(given)

    def made_anew(self) -> Sequence[str]:
        """What goes where its output is cleared: nothing is made of pairs."""
        return (PAIRS,)

    def columns(self, frame: Frame) -> Columns:
        """The columns of a frame that it uses."""
        ranking = self.options.ranking_strategy
        return Columns.of(self.fields, frame, () if ranking is None else ranking.columns)

    def search(self) -> tuple[Search, Clusters | None]:
        """What is asked for, and the clusters where a result is given."""
        clusters = find_clusters_of(self.source())
        ranking = self.options.ranking_strategy or (clusters.ranking if clusters else None) or RankingStrategy.by_id()
        return Search(self.fields, self.options, ranking, clusters is not None), clusters

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        ranking = {"ranking_strategy": self.search()[0].strategy.describe()}
        fields = {name: value for name, value in self.fields.recorded().items() if name in FIELDS}
        return {**self.options.recorded(), **fields, **ranking}

    def find_input(self, sources: Sequence[Location]) -> Sequence[FileInfo]:
        """The files of embeddings, or of the clusters of a result."""
        _, clusters = self.search()
        return list_files(sources, clusters, self.fields.input_filetype, [self.destination().root])

    def identify(self, sources: Sequence[Location]) -> tuple[Sequence[FileInfo], Mapping[str, Any] | None]:
        """As every stage; keys of partitions that rank are part of the input."""
        files, identity = super().identify(sources)
        if identity is None or not files:
            return files, identity
        search, _ = self.search()
        keys = () if search.clustered else search.strategy.columns
        return files, {**identity, **keys_identity(files, keys)}

    def is_result(self, name: str) -> bool:
        """Whether a file of this name would be read as pairs."""
        return name.endswith(".parquet")

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        search, _ = self.search()
        if search.clustered:
            check_cluster_files(files, source, self.fields, search.strategy)
            return
        wanted = replace(self.fields, metadata_fields=search.strategy.columns)
        usable, every = first_usable_files(files, source, wanted)
        checked_fields(usable, search, top_of(files), complete=every)

    def work(self, run: Run, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """List the pairs."""
        return list_pairs(run, files, source, self.search()[0], (self.io.read_kwargs, self.io.write_kwargs))


FIELDS = ("id_field", "embedding_field", "embedding_dim", "embedding_encoding", "input_filetype")
"""Settings of `RankedOptions` that are parameters of this stage."""
