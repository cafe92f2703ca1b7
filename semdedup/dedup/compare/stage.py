"""`PairwiseStage`: clusters in, tables of scores out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

import pyarrow as pa

from semdedup.dedup.base.update import Base
from semdedup.dedup.compare.columns import check_cluster_files
from semdedup.dedup.compare.run import score_clusters
from semdedup.dedup.compare.scored import Limits
from semdedup.dedup.compare.while_written import ScoringWhileWritten, plan_scoring
from semdedup.dedup.frame_input.held import Columns
from semdedup.dedup.input.numbered import cluster_files
from semdedup.dedup.names import CLUSTER, CLUSTERS_PATH, PAIRWISE, SCORES_FILE, find_table
from semdedup.dedup.options import (
    CompareOptions,
    FieldOptions,
    InputOptions,
    IOOptions,
    ThresholdOptions,
    UpdateOptions,
)
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.stage import Stage
from semdedup.dedup.threshold.rule import check_within, least_score
from semdedup.errors import InputError
from semdedup.runs.identity import relative_path
from semdedup.runs.record import SCRATCH
from semdedup.runs.run import Run
from semdedup.settings import documented, settings_of
from semdedup.settings.choices import DistanceMetric, EmbeddingEncoding, WhichToKeep
from semdedup.settings.frames import Frame, Input, with_frames
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import FileInfo, Location

FOREST_UP_TO = 0.2
"""Eps up to which the forest tells of components, at least."""


@documented(IOOptions, FieldOptions, CompareOptions, UpdateOptions)
class PairwiseStage(Stage):
    """Score clusters: one table ``cluster_{k}.parquet`` of ``id``, ``max_id``, ``cosine_sim_score`` for each.

    Reads the folders ``centroid={k}`` that `KMeansStage` writes, its own or another program's, or a frame with the
    columns that `semdedup.read_clusters` gives. `sim_metric` is another
    name of `distance_metric`. Beside the scores a forest of the matches is written, for components at any eps up to
    `eps`, where it is given, and at least up to 0.2. With `exact_up_to` every match within that eps is found, in
    whatever clusters the two rows lie, and the forest tells of components up to that eps.

    Example:
        >>> PairwiseStage(input_path="out/kmeans", output_path="out/pairwise", which_to_keep="hard").run()

    Cost: the sum over clusters of n²·d operations; with `exact_up_to`, 2·n·k·d more, and what the bounds leave (see
    `semdedup.dedup.kernels.bounds`). Memory of a task as in `semdedup.dedup.compare.groups.group_memory`.
    """

    step = PAIRWISE

    def __init__(
        self,
        id_field: str | None = "id",
        embedding_field: str = "embedding",
        input_path: Input | None = None,
        output_path: str | None = None,
        embedding_dim: int | None = None,
        embedding_encoding: EmbeddingEncoding | None = None,
        which_to_keep: WhichToKeep | None = None,
        rank_by: str | Sequence[str] | None = None,
        distance_metric: DistanceMetric | None = None,
        sim_metric: DistanceMetric | None = None,
        ranking_strategy: RankingStrategy | Mapping[str, Any] | None = None,
        random_state: int = 42,
        pairwise_batch_size: int = 1024,
        exact_up_to: float | None = None,
        eps: float | None = None,
        base: str | None = None,
        withdraw: Sequence[str | int] = (),
        folder: str = "",
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = with_frames({**locals(), **shared}, "input_path")
        super().__init__(given)
        self.fields, self.compare = InputOptions.of(given), CompareOptions.of(given)
        self.strategy, self.finds_across = self.compare.strategy, self.compare.exact_up_to is not None
        exact, chosen = self.compare.exact_up_to, ThresholdOptions.of(given).eps or 0.0
        check_within(chosen, exact)
        self.forest_up_to = max(FOREST_UP_TO, chosen) if exact is None else exact
        self.base = Base.of(given)
        self.done_before: Location | None = None

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        names = [declared.name for declared in settings_of(FieldOptions)]
        fields = {name: value for name, value in self.fields.recorded().items() if name in names}
        forest = {"forest_up_to": self.forest_up_to}
        base = {} if self.base is None else self.base.parameters()
        return {"folder": self.folder, **self.compare.recorded(), **fields, **forest, **base}

    def columns(self, frame: Frame) -> Columns:
        """The columns of a frame of clusters that it uses."""
        return Columns.of(self.fields, frame, self.strategy.columns, CLUSTER)

    def find_input(self, sources: Sequence[Location]) -> Sequence[FileInfo]:
        """The cluster files."""
        folder = find_table(sources[0], "clusters")
        files = cluster_files(folder)
        if not files:
            raise InputError(
                f"no clusters in {folder}: there is no folder centroid=0, centroid=1, …; run KMeansStage first, or "
                "semdedup dedup"
            )
        return files

    def is_result(self, name: str) -> bool:
        """Whether a file of this name is a table of scores."""
        return bool(SCORES_FILE.search(name))

    def ranking(self) -> RankingStrategy:
        """By what it ranks the rows of a cluster."""
        return self.strategy

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        if self.base is not None:
            self.base.check()
            self.base.check_ranking(self.strategy)
        check_cluster_files(files, source, self.fields, self.strategy)

    @property
    def limits(self) -> Limits:
        """The least score that the forest holds, and the most rows compared at a time."""
        return Limits(least_score(self.forest_up_to), self.compare.pairwise_batch_size)

    def while_written(self, run: Run) -> Callable[[pa.Schema, int], ScoringWhileWritten | None] | None:
        """Score clusters as they are written, on the CPU and below the same local root, unless pairs across clusters
        are asked for, or there is a base."""
        root, plain = self.destination().root, self.base is None and not self.finds_across
        here = run.session.backend == "cpu" and root.is_local and root.url == run.root.url
        if not plain or not here or self.step in run.record.steps:
            return None
        self.done_before = run.root / SCRATCH / f"scored-{run.token}"
        options = (self.fields, self.strategy, self.limits, self.destination())
        return partial(plan_scoring, root, self.done_before, *options)

    def work(self, run: Run, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Score the clusters."""
        if self.done_before is not None and self.done_before.is_dir():
            run.take_over(self.done_before)
        options = (self.fields, self.strategy, self.limits, self.finds_across, self.destination())
        if self.base is not None:
            with run.refusing():
                self.base.check()
        facts = score_clusters(run, files, source, *options, self.base)
        if self.base is not None:
            self.base.check()  # it was read all the while
        return {**facts, CLUSTERS_PATH: relative_path(find_table(source, "clusters"), run.root)}
