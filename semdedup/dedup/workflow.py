"""The dedup from embeddings to the ids to drop, in one call."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Unpack

import distributed
import numpy as np
import numpy.typing as npt

from semdedup.compute.options import ClusterOptions
from semdedup.dedup.base.summary import summary_of
from semdedup.dedup.base.update import Base
from semdedup.dedup.cluster.stage import KMeansStage
from semdedup.dedup.compare.stage import PairwiseStage
from semdedup.dedup.names import (
    CENTROIDS,
    IDENTIFY,
    KMEANS,
    OUR_COLUMNS,
    PAIRWISE,
    QUARANTINE,
    STEPS,
    WITNESSES,
    WORKFLOW,
    WRITTEN,
    Layout,
    below,
)
from semdedup.dedup.options import (
    CompareOptions,
    InputOptions,
    IOOptions,
    KMeansOptions,
    ThresholdOptions,
    UpdateOptions,
)
from semdedup.dedup.pipeline import Pipeline
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.stage import StageResult
from semdedup.dedup.threshold.rule import REMOVAL, check_within
from semdedup.dedup.threshold.stage import IdentifyDuplicatesStage
from semdedup.errors import IntegrityError, ParameterError
from semdedup.runs.commit import force_names
from semdedup.runs.owner import owned
from semdedup.runs.record import FILE_NAME, Record
from semdedup.settings import documented, needed, taken
from semdedup.settings.choices import (
    DistanceMetric,
    EmbeddingEncoding,
    Init,
    InputFiletype,
    KMeansEngine,
    RemovalRule,
    WhichToKeep,
)
from semdedup.settings.frames import Input, with_frames
from semdedup.settings.reprs import Shown
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import Location, storage_options_of


@documented(IOOptions, InputOptions, KMeansOptions, CompareOptions, ThresholdOptions, UpdateOptions)
class SemanticDeduplicationWorkflow(Shown):
    """Find near-duplicates among embeddings: cluster them, compare within clusters, apply a threshold.

    Columns that rank are added to `metadata_fields`.

    Args:
        layout: names of the folders.

    Raises:
        ParameterError: a parameter has a value that it cannot have.

    Example:
        >>> result = SemanticDeduplicationWorkflow(input_path="emb/", output_path="out/", eps=0.1).run()
        >>> result.duplicates

    Reference: A. Abbas et al., SemDeDup: Data-efficient learning at web-scale through semantic deduplication, 2023.
    """

    named: frozenset[str]

    def __init__(
        self,
        input_path: Input,
        output_path: str,
        n_clusters: int | Literal["auto"] = "auto",
        *,
        cache_path: str | None = None,
        id_field: str | None = "id",
        embedding_field: str = "embedding",
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
        distance_metric: DistanceMetric | None = None,
        sim_metric: DistanceMetric | None = None,
        which_to_keep: WhichToKeep | None = None,
        rank_by: str | Sequence[str] | None = None,
        ranking_strategy: RankingStrategy | Mapping[str, Any] | None = None,
        pairwise_batch_size: int = 1024,
        exact_up_to: float | None = None,
        eps: float | None = None,
        cache_kwargs: Mapping[str, Any] | None = None,
        files_per_partition: int | None = None,
        skip_bad_files: bool = False,
        removal: RemovalRule = "any",
        base: str | None = None,
        withdraw: Sequence[str | int] = (),
        layout: Layout = WORKFLOW,
        count_at: Sequence[float] = (),
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = with_frames({**locals(), **shared}, "input_path")
        io = IOOptions.of(given)
        cached = io.write_kwargs if io.cache_kwargs is None else io.cache_kwargs
        self.base = Base.of({**given, "write_kwargs": cached})
        if self.base is not None:
            given = self.base.inherit(given, self.named)
        threshold = ThresholdOptions.of(given)
        if not isinstance(layout, Layout):
            raise ParameterError(f"layout must be a Layout, such as WORKFLOW; got {layout!r}")
        self.eps, self.removal, self.layout = threshold.eps, threshold.removal, layout
        output_path, writes = needed(io.output_path, "output_path"), storage_options_of(io.write_kwargs)
        self.output = self.cache = Location.of(output_path, writes)
        if io.cache_path is not None:
            self.cache = Location.of(io.cache_path, storage_options_of(cached))
        given |= {"count_at": threshold.count_at, "output_path": self.cache.url, "write_kwargs": cached}
        self.pipeline = self._pipeline(_with_ranking(given), io, cached)

    def _pipeline(self, given: dict[str, Any], io: IOOptions, cached: Mapping[str, Any] | None) -> Pipeline:
        """The stages, each with its share of the keywords that were given."""
        layout = self.layout
        for at in given["count_at"]:
            check_within(at, given["exact_up_to"])
        kmeans = KMeansStage(**taken(KMeansStage, given, folder=layout.clusters))
        kmeans.other_outputs = [self.output]
        given |= {
            "input_path": below(self.cache, layout.clusters).url,
            "read_kwargs": {"storage_options": storage_options_of(cached)},
            **{"embedding_dim": None, "embedding_encoding": None},  # of clusters, which are written in one way
        }
        counted = (self.eps or 0.0, *given["count_at"]) if self.removal == "components" else (self.eps,)
        pairwise = PairwiseStage(**{**taken(PairwiseStage, given, folder=layout.scores), "eps": max(counted)})
        pipeline = Pipeline("semantic deduplication").add_stage(kmeans).add_stage(pairwise)
        if self.eps is not None:
            given |= {
                "input_path": below(self.cache, layout.scores).url,
                "output_path": self.output.url,
                "write_kwargs": io.write_kwargs,
                "summaries": layout.summaries,
            }
            identify = IdentifyDuplicatesStage(**taken(IdentifyDuplicatesStage, given, folder=layout.duplicates))
            pipeline.add_stage(identify)
        return pipeline

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> DedupResult:
        """Run, going on where an earlier run with the same parameters and input stopped.

        Args:
            client: a `distributed.Client`, a scheduler address, or None: the current default client if there is one,
                else a cluster of its own for the time of the run. A client that is given is never closed.
            cluster: how to start that cluster, and which backend to use.

        Raises:
            SemdedupError: see `semdedup.errors`. A run that is refused has written nothing.
        """
        started = time.monotonic()
        results = {result.stage: result for result in self.pipeline.run(client, cluster=cluster)}
        return self._finish(results, time.monotonic() - started)

    def describe(self) -> list[str]:
        """What `run` would do, in lines of text; see `Pipeline.describe`."""
        return self.pipeline.describe()

    def _finish(self, results: Mapping[str, StageResult], seconds: float) -> DedupResult:
        """Check the balance of rows, complete the output folder, and sum up."""
        clustered, scored = results[KMEANS].facts, results[PAIRWISE].facts
        identified = results[IDENTIFY].facts if IDENTIFY in results else None
        quarantined = dict(Counter(clustered["quarantined"]) + Counter(scored["quarantined"]))
        duplicates = None if identified is None else identified["duplicates"]
        kept = None if identified is None else identified["rows"] - identified["duplicates"]
        balance = scored["rows"] if kept is None or duplicates is None else kept + duplicates
        if balance + sum(quarantined.values()) != clustered["rows"]:
            raise IntegrityError(
                f"{clustered['rows']} rows went in, but {balance} were scored and {sum(quarantined.values())} set aside"
            )
        if self.cache.url != self.output.url:
            self._complete_output()
        paths = {
            "clusters": results[KMEANS].path,
            "centroids": str(self.cache / CENTROIDS),
            "scores": results[PAIRWISE].path,
        }
        if identified is not None:
            paths["ids to drop"] = results[IDENTIFY].path
            if self.removal != REMOVAL.default:
                paths["witnesses"] = str(self.output / WITNESSES)
        if quarantined:
            paths["quarantine"] = str(self.output / QUARANTINE)
        paths["manifest"] = str(self.output / FILE_NAME)
        times = {name: result.seconds for name, result in results.items()}
        forced = [sum(part) for part in zip(*(result.forced for result in results.values()), strict=True)]
        seconds -= forced[1]
        base, withdrawn = summary_of(clustered, scored, self.cache)
        metadata = {
            "base": base,
            "withdrawn": withdrawn,
            "passed_over": clustered.get("passed_over", {}),
            **{name: clustered[name] for name in ("clusters", "n_clusters", "embedding_dim", "iterations", "inertia")},
            "total_time": seconds,
            "forced_bytes": forced[0],
            "forced_seconds": forced[1],
            "kmeans_time": times[KMEANS],
            "pairwise_time": times[PAIRWISE],
            "num_duplicates": duplicates,
            "step_seconds": {step: seconds for result in results.values() for step, seconds in result.steps.items()},
            "removal": self.removal,
            "output": self.output,
            "pairs": scored.get("pairs"),
            "removed_at": {} if identified is None else identified["removed_at"],
        }
        return DedupResult(
            total=clustered["rows"],
            duplicates=duplicates,
            kept=kept,
            quarantined=quarantined,
            eps=self.eps,
            seconds={**times, "total": seconds},
            paths=paths,
            metadata=metadata,
            skipped_files=tuple(clustered["skipped_files"]),
            scores=Scores.of(self.cache),
        )

    def _complete_output(self) -> None:
        """The cache is elsewhere: the output gets its own copy of the quarantine and of the record of the steps."""
        first, cache = self.pipeline.stages[0], Record(self.cache)
        listed = (name for step in STEPS for name in cache.steps.get(step, {}).get("files", ()))
        copies = [name for name in listed if name.startswith(f"{QUARANTINE}/")]
        contents = {name: (self.cache / name).read_bytes() for name in copies}
        cleared = self.eps is None and first.clear_output  # no stage writes here that would clear it
        there = all((self.output / name).exists() for name in copies)
        if there and not cleared and Record(self.output).includes(cache, copies):
            return
        with owned(self.output, take_over=first.io.take_over) as ownership:
            record = Record(self.output, ownership.token)
            record.remove_strays()
            if cleared:
                record.clear(STEPS, WRITTEN)
            for name, content in contents.items():
                (self.output / name).write_bytes(content)
            force_names(self.output, copies)
            record.include(cache, copies)


def _with_ranking(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords with `metadata_fields` that hold what ranks, too, and a checked `exact_up_to`."""
    inputs, compare = InputOptions.of(given), CompareOptions.of(given)
    more = [column for column in compare.strategy.columns if column not in (*OUR_COLUMNS, inputs.id_field)]
    return {**given, "metadata_fields": [*inputs.metadata_fields, *more], "exact_up_to": compare.exact_up_to}
