"""The three stages, and the pipeline that chains them. Each stage also runs alone, on the files of another program."""

from __future__ import annotations

import contextlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import distributed

from semdedup.compute import ClusterOptions, Session, open_session
from semdedup.dedup import clustering, comparison, identification
from semdedup.dedup.clustering import Destination, cluster_embeddings
from semdedup.dedup.comparison import score_clusters
from semdedup.dedup.fit import KMeansOptions
from semdedup.dedup.identification import check_eps, identify_duplicates
from semdedup.dedup.inputs import InputOptions, find_files, is_data
from semdedup.dedup.layout import CLUSTER_FOLDER, QUARANTINE, SCORES_FILE, below, find_table, join, temporary_name
from semdedup.dedup.ranking import RankingStrategy
from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.manifest import SCRATCH, Manifest, fingerprint
from semdedup.progress import Reporter
from semdedup.storage import FileInfo, Location, storage_options_of

Paths = str | Sequence[str]


@dataclass(frozen=True)
class StageResult:
    """What one stage did: its name, where it wrote, its facts (counts), its seconds, and those of the steps within.

    `resumed` tells that an earlier run had committed the same already, and nothing was done.
    """

    stage: str
    path: str
    facts: Mapping[str, Any]
    seconds: float
    steps: Mapping[str, float] = field(default_factory=dict)
    resumed: bool = False


class Stage(ABC):
    """A stage of the dedup: it stores its parameters and checks them; the work is done by functions."""

    step: str
    clear_output: bool
    verbose: bool

    @abstractmethod
    def source(self) -> Sequence[Location]:
        """Where it reads."""

    @abstractmethod
    def destination(self) -> Destination:
        """Where it writes."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input, as JSON values."""

    @abstractmethod
    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """Its input files. Raises `InputError` where there are none."""

    @abstractmethod
    def is_result(self, name: str) -> bool:
        """Whether a reader would take a file of this name, relative to the destination, for a result of this stage."""

    @abstractmethod
    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Do the work; return its facts."""

    @abstractmethod
    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse on the client what the footers of the first input files show to be wrong."""

    def check_destination(self, manifest: Manifest) -> None:
        """Refuse to write where results stand that are not on record: they would be read together with ours.

        Raises:
            OutputConflictError: naming some of the files.
        """
        destination = self.destination()
        folder = below(destination.root, destination.folder)
        ours = manifest.files
        names = (file.url[len(folder.url) + 1 :] for file in folder.files())
        foreign = [n for n in names if is_data(n) and self.is_result(n) and join(destination.folder, n) not in ours]
        if foreign:
            raise OutputConflictError(
                f"{folder} holds {len(foreign)} files that look like results of the step '{self.step}', but that "
                f"semdedup has no record of: {', '.join(foreign[:3])}. They are not deleted; move them away, or choose "
                "another output path."
            )

    @property
    @abstractmethod
    def kwargs(self) -> Sequence[Mapping[str, Any] | None]:
        """Its ``read_kwargs`` and ``write_kwargs``."""

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> StageResult:
        """Run this stage alone. `client` and `cluster` are as for the workflow."""
        return Pipeline(self.step).add_stage(self).run(client, cluster=cluster)[0]

    def execute(self, session: Session, sources: Sequence[Location], clear_output: bool) -> StageResult:
        """Run on a session, going on where an earlier run stopped."""
        destination = self.destination()
        files = self.find_input(sources)
        identity = fingerprint(files)
        manifest = Manifest(destination.root)
        if clear_output:
            manifest.clear()
        manifest.check(self.step, self.parameters(), identity)
        path = str(below(destination.root, destination.folder))
        temporary = [
            f"{SCRATCH}/{self.step}",
            temporary_name(destination.folder, self.step),
            temporary_name(QUARANTINE, self.step),
        ]
        done = manifest.committed(self.step)
        if done or self.step not in manifest.steps:  # what a run left that was killed, or its tasks that outlived it
            for folder in temporary:
                (destination.root / folder).remove_tree()
            (destination.root / SCRATCH).remove_if_empty()
        if done:
            session.reporter.say(f"{self.step}: complete already, nothing to do")
            return StageResult(self.step, path, done["facts"], 0.0, resumed=True)
        manifest.begin(self.step, self.parameters(), identity, temporary)
        started = time.monotonic()
        session.reporter.seconds.clear()
        facts = self.work(session, files, sources[0])
        return StageResult(self.step, path, facts, time.monotonic() - started, dict(session.reporter.seconds))


@dataclass
class KMeansStage(Stage):
    """Cluster embeddings: one folder ``centroid={k}`` of Parquet files for each cluster, and the centroids.

    Parameters are those of `SemanticDeduplicationWorkflow`; `output_path` is where the cluster folders go.

    Example:
        >>> KMeansStage(n_clusters=1000, input_path="emb/", output_path="out/kmeans").run()

    Cost: the input is read twice; 2·n·k·d operations for the assignment; memory of a task as in
    `semdedup.dedup.shuffle.partition_memory`.
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

    def __post_init__(self) -> None:
        self.step = clustering.STEP
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

    @property
    def kwargs(self) -> Sequence[Mapping[str, Any] | None]:
        """Its ``read_kwargs`` and ``write_kwargs``."""
        return self.read_kwargs, self.write_kwargs

    def source(self) -> Sequence[Location]:
        """Where it reads."""
        return _locations(self.input_path, self.read_kwargs)

    def destination(self) -> Destination:
        """Where it writes."""
        return _destination(self.output_path, self.folder, self.write_kwargs)

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
        clustering.check_first_files(files, source, self.inputs)

    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Cluster the embeddings."""
        return cluster_embeddings(
            session, files, source, self.inputs, self.kmeans, self.destination(), self.read_kwargs or {}
        )


@dataclass
class PairwiseStage(Stage):
    """Score clusters: one table ``cluster_{k}.parquet`` of ``id``, ``max_id``, ``cosine_sim_score`` for each.

    Reads the folders ``centroid={k}`` that `KMeansStage` writes, its own or another program's. `sim_metric` is another
    name of `distance_metric`.

    Example:
        >>> PairwiseStage(input_path="out/kmeans", output_path="out/pairwise", which_to_keep="hard").run()

    Cost: the sum over clusters of n²·d operations; memory of a task as in `semdedup.dedup.comparison.group_memory`.
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
        self.step = comparison.STEP
        self.strategy = ranking_of(
            self.ranking_strategy, self.which_to_keep, self.distance_metric, self.sim_metric, self.random_state
        )
        if isinstance(self.pairwise_batch_size, bool) or not isinstance(self.pairwise_batch_size, int):
            raise ParameterError(f"pairwise_batch_size must be a whole number; got {self.pairwise_batch_size!r}")
        if self.pairwise_batch_size < 1:
            raise ParameterError(f"pairwise_batch_size must be at least 1; got {self.pairwise_batch_size}")
        self.fields = InputOptions(self.id_field, self.embedding_field, self.embedding_dim)

    @property
    def kwargs(self) -> Sequence[Mapping[str, Any] | None]:
        """Its ``read_kwargs`` and ``write_kwargs``."""
        return self.read_kwargs, self.write_kwargs

    def source(self) -> Sequence[Location]:
        """Where it reads."""
        return _locations(self.input_path, self.read_kwargs)

    def destination(self) -> Destination:
        """Where it writes."""
        return _destination(self.output_path, self.folder, self.write_kwargs)

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
    `count_at` the counts of kept and removed rows go to ``dedup_summary_{eps}.csv`` in the folder `summaries`.

    Example:
        >>> IdentifyDuplicatesStage(input_path="out/pairwise", output_path="out/duplicates", eps=0.01).run()
    """

    eps: float = 0.1
    input_path: Paths | None = None
    output_path: str | None = None
    count_at: Sequence[float] = ()
    summaries: str = ""
    read_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)  # they may hold credentials
    write_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)
    clear_output: bool = False
    verbose: bool = True
    folder: str = ""

    def __post_init__(self) -> None:
        self.step = identification.STEP
        self.eps = check_eps(self.eps)
        self.count_at = tuple(check_eps(eps) for eps in self.count_at)

    @property
    def kwargs(self) -> Sequence[Mapping[str, Any] | None]:
        """Its ``read_kwargs`` and ``write_kwargs``."""
        return self.read_kwargs, self.write_kwargs

    def source(self) -> Sequence[Location]:
        """Where it reads."""
        return _locations(self.input_path, self.read_kwargs)

    def destination(self) -> Destination:
        """Where it writes."""
        return _destination(self.output_path, self.folder, self.write_kwargs)

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input."""
        return {"eps": self.eps, "count_at": list(self.count_at)}

    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """The tables of scores."""
        return find_scores(sources[0])

    def is_result(self, name: str) -> bool:
        """Whether a file of this name holds ids to drop."""
        return name.endswith(".parquet") and "/" not in name and not SCORES_FILE.search(name)

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files show to be wrong."""
        identification.check_first_files(files, source)

    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Apply the threshold."""
        return identify_duplicates(session, files, source, self.eps, self.count_at, self.summaries, self.destination())


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


def _locations(paths: Paths | None, kwargs: Mapping[str, Any] | None) -> Sequence[Location]:
    if paths is None:
        return ()
    listed = [paths] if isinstance(paths, (str, Location)) or hasattr(paths, "__fspath__") else list(paths)
    if not listed:
        raise ParameterError("input_path is an empty list")
    return [Location.of(path, storage_options_of(kwargs)) for path in listed]


def _destination(path: str | None, folder: str, kwargs: Mapping[str, Any] | None) -> Destination:
    if path is None:
        raise ParameterError("output_path is not given: name the folder to write to")
    return Destination(Location.of(path, storage_options_of(kwargs)), folder, kwargs or {})


class Pipeline:
    """Stages one after the other; a stage without `input_path` reads what the stage before it wrote.

    Example:
        >>> pipeline = Pipeline(name="dedup", description="k-means, then comparison")
        >>> pipeline.add_stage(KMeansStage(input_path="emb/", output_path="out/kmeans"))
        >>> pipeline.add_stage(PairwiseStage(output_path="out/pairwise"))
        >>> pipeline.run()
    """

    def __init__(self, name: str = "", description: str = "") -> None:
        self.name = name
        self.description = description
        self.stages: list[Stage] = []

    def add_stage(self, stage: Stage) -> Pipeline:
        """Append a stage; returns the pipeline, so that calls chain."""
        if not isinstance(stage, Stage):
            raise ParameterError(f"add_stage takes a stage; got {type(stage).__name__}")
        self.stages.append(stage)
        return self

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> list[StageResult]:
        """Run the stages on a client, a scheduler address, the current default client, or a cluster of their own.

        Parameters, paths and conflicts with earlier results are checked before a cluster is started or used.

        Returns:
            One `StageResult` for each stage.
        """
        if not self.stages:
            raise ParameterError("the pipeline has no stages; add some with add_stage")
        self.check()
        first = self.stages[0]
        reporter = Reporter(any(stage.verbose for stage in self.stages))
        writes = [stage.destination().root for stage in self.stages]
        if self._all_committed():
            session: Any = contextlib.nullcontext(_NoSession(reporter))
        else:
            session = open_session(client, cluster or ClusterOptions(), reporter, self._readable(first), writes)
        with session as opened:
            return self.execute(opened)

    def check(self) -> None:
        """Check what can be checked on the client: parameters, the first input, earlier results. Nothing is written."""
        previous: Stage | None = None
        for stage in self.stages:
            destination = stage.destination()
            if previous is None:
                sources = stage.source()
                if not sources:
                    raise ParameterError(f"{type(stage).__name__} is the first stage and has no input_path")
                files = stage.find_input(sources)
                identity = fingerprint(files)
            else:
                identity = None
            manifest = Manifest(destination.root)
            if not stage.clear_output:
                manifest.check(stage.step, stage.parameters(), identity)
            if stage.clear_output or stage.step not in manifest.steps:
                stage.check_destination(manifest)
                if previous is None:
                    stage.check_schema(files, sources[0])
            previous = stage

    def describe(self) -> list[str]:
        """What `run` would do, in lines of text. Everything that can be checked is checked; nothing is written."""
        self.check()
        first = self.stages[0]
        files = first.find_input(first.source())
        n_bytes = sum(file.n_bytes for file in files)
        lines = [f"input: {len(files):,} files, {n_bytes:,} bytes, from {files[0].url} to {files[-1].url}"]
        for stage in self.stages:
            destination = stage.destination()
            done = Manifest(destination.root).committed(stage.step) and not stage.clear_output
            what = "complete already" if done else f"would write to {below(destination.root, destination.folder)}"
            lines.append(f"{stage.step}: {what}; {json.dumps(stage.parameters(), sort_keys=True)}")
        return lines

    def execute(self, session: Session) -> list[StageResult]:
        """Run the stages on a session that is open."""
        results: list[StageResult] = []
        cleared: set[str] = set()
        before: Sequence[Location] = ()
        for stage in self.stages:
            destination = stage.destination()
            clear = stage.clear_output and destination.root.url not in cleared
            cleared.add(destination.root.url)
            results.append(stage.execute(session, stage.source() or before, clear))
            before = [below(destination.root, destination.folder)]
        return results

    def _readable(self, first: Stage) -> list[Location]:
        found = first.find_input(first.source())
        return [first.source()[0].at(file.url) for file in (found[0], found[-1])]

    def _all_committed(self) -> bool:
        return all(
            not stage.clear_output and Manifest(stage.destination().root).committed(stage.step) for stage in self.stages
        )


@dataclass(frozen=True)
class _NoSession:
    """Stands in for a session where every stage is complete and no cluster is needed."""

    reporter: Reporter
