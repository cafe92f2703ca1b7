"""The dedup from embeddings to the ids to drop, in one call."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import distributed

from semdedup.choices import DistanceMetric, InputFiletype, KMeansEngine, WhichToKeep
from semdedup.compute.session import ClusterOptions
from semdedup.dedup.cluster.stage import KMeansStage
from semdedup.dedup.compare.ranking import RankingStrategy
from semdedup.dedup.compare.stage import PairwiseStage, ranking_of
from semdedup.dedup.input.files import OUR_COLUMNS
from semdedup.dedup.names import (
    CENTROIDS,
    IDENTIFY,
    KMEANS,
    PAIRWISE,
    QUARANTINE,
    STEPS,
    WORKFLOW,
    Layout,
    below,
)
from semdedup.dedup.pipeline import Pipeline, StageResult
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.threshold.rule import check_eps
from semdedup.dedup.threshold.stage import IdentifyDuplicatesStage
from semdedup.errors import IntegrityError
from semdedup.runs.record import FILE_NAME, Manifest
from semdedup.storage.location import Location, Paths, storage_options_of


class SemanticDeduplicationWorkflow:
    """Find near-duplicates among embeddings: cluster them, compare within clusters, apply a threshold.

    Args:
        input_path: file, folder, glob or list of Parquet (or JSON Lines) with ids and embeddings.
        output_path: folder for the ids to drop, the quarantine and the manifest.
        n_clusters: number of clusters; ``auto`` is 1 below 5,000 rows, else √(rows / 2).
        cache_path: folder for clusters and scores; `output_path` where not given.
        id_field, embedding_field: names of the columns.
        embedding_dim: expected length of the embeddings; the commonest where not given.
        metadata_fields: columns to carry along to the clusters. Those that `ranking_strategy` needs are added.
        input_filetype: ``parquet`` or ``jsonl``.
        max_iter, tol, random_state, init, n_init, oversampling_factor, max_samples_per_batch, fit_data_fraction,
        kmeans_engine: of the clustering, see `semdedup.dedup.cluster.fit.KMeansOptions`.
        distance_metric: ``cosine`` or ``l2``: the distance to the centroid that ranks. `sim_metric` is another name.
        which_to_keep: ``hard`` (farthest from the centroid is kept), ``easy`` or ``soft`` (nearest), ``random``.
        ranking_strategy: another ranking, which wins over `which_to_keep`.
        pairwise_batch_size: most rows compared at a time.
        eps: a row is dropped where its score is at least 1 - eps; None writes scores only.
        read_kwargs, write_kwargs, cache_kwargs: options for Parquet, each with ``storage_options``; `cache_kwargs` is
            `write_kwargs` where not given.
        files_per_partition: most files in one partition.
        skip_bad_files: count and list files that cannot be read, instead of stopping.
        clear_output: first delete what semdedup wrote to these folders before.
        verbose: show progress.
        layout: names of the folders.
        count_at: thresholds to count kept and removed rows at, each written to a ``dedup_summary_{eps}.csv``.

    Raises:
        ParameterError: a parameter has a value that it cannot have.

    Example:
        >>> result = SemanticDeduplicationWorkflow(input_path="emb/", output_path="out/", eps=0.1).run()
        >>> result.duplicates

    Reference: A. Abbas et al., SemDeDup: Data-efficient learning at web-scale through semantic deduplication, 2023.
    """

    def __init__(
        self,
        input_path: Paths,
        output_path: str,
        n_clusters: int | str = "auto",
        *,
        cache_path: str | None = None,
        id_field: str = "id",
        embedding_field: str = "embedding",
        embedding_dim: int | None = None,
        metadata_fields: Sequence[str] | None = None,
        input_filetype: InputFiletype = "parquet",
        max_iter: int = 300,
        tol: float = 1e-4,
        random_state: int = 42,
        init: Any = "k-means++",
        n_init: int = 1,
        oversampling_factor: float = 2.0,
        max_samples_per_batch: int = 1 << 15,
        fit_data_fraction: float | None = None,
        kmeans_engine: KMeansEngine = "auto",
        distance_metric: DistanceMetric | None = None,
        sim_metric: DistanceMetric | None = None,
        which_to_keep: WhichToKeep = "hard",
        ranking_strategy: RankingStrategy | None = None,
        pairwise_batch_size: int = 1024,
        eps: float | None = None,
        read_kwargs: Mapping[str, Any] | None = None,
        write_kwargs: Mapping[str, Any] | None = None,
        cache_kwargs: Mapping[str, Any] | None = None,
        files_per_partition: int | None = None,
        skip_bad_files: bool = False,
        clear_output: bool = False,
        verbose: bool = True,
        layout: Layout = WORKFLOW,
        count_at: Sequence[float] = (),
    ) -> None:
        self.output = Location.of(output_path, storage_options_of(write_kwargs))
        self.cache = self.output
        if cache_path is not None:
            self.cache = Location.of(cache_path, storage_options_of(cache_kwargs or write_kwargs))
        self.eps = None if eps is None else check_eps(eps)
        self.layout = layout
        strategy = ranking_of(ranking_strategy, which_to_keep, distance_metric, sim_metric, random_state)
        cached = write_kwargs if cache_kwargs is None else cache_kwargs
        ranked_by = () if ranking_strategy is None else strategy.columns
        kmeans = KMeansStage(
            n_clusters=n_clusters,
            id_field=id_field,
            embedding_field=embedding_field,
            input_path=input_path,
            output_path=self.cache.url,
            embedding_dim=embedding_dim,
            metadata_fields=list(dict.fromkeys([*(metadata_fields or ()), *_metadata(ranked_by, id_field)])),
            input_filetype=input_filetype,
            max_iter=max_iter,
            tol=tol,
            random_state=random_state,
            init=init,
            n_init=n_init,
            oversampling_factor=oversampling_factor,
            max_samples_per_batch=max_samples_per_batch,
            fit_data_fraction=fit_data_fraction,
            kmeans_engine=kmeans_engine,
            read_kwargs=read_kwargs,
            write_kwargs=cached,
            files_per_partition=files_per_partition,
            skip_bad_files=skip_bad_files,
            clear_output=clear_output,
            verbose=verbose,
            folder=layout.clusters,
        )
        kmeans.other_outputs = [self.output]
        pairwise = PairwiseStage(
            output_path=self.cache.url,
            ranking_strategy=strategy,
            pairwise_batch_size=pairwise_batch_size,
            input_path=below(self.cache, layout.clusters).url,
            read_kwargs=cached,
            write_kwargs=cached,
            clear_output=clear_output,
            verbose=verbose,
            folder=layout.scores,
        )
        self.pipeline = Pipeline("semantic deduplication").add_stage(kmeans).add_stage(pairwise)
        if self.eps is not None:
            identify = IdentifyDuplicatesStage(
                eps=self.eps,
                count_at=count_at,
                summaries=layout.summaries,
                input_path=below(self.cache, layout.scores).url,
                output_path=self.output.url,
                read_kwargs=cached,
                write_kwargs=write_kwargs,
                clear_output=clear_output,
                verbose=verbose,
                folder=layout.duplicates,
            )
            self.pipeline.add_stage(identify)

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
        quarantined: dict[str, int] = dict(clustered["quarantined"])
        for reason, count in scored["quarantined"].items():
            quarantined[reason] = quarantined.get(reason, 0) + count
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
        if quarantined:
            paths["quarantine"] = str(self.output / QUARANTINE)
        paths["manifest"] = str(self.output / FILE_NAME)
        times = {name: result.seconds for name, result in results.items()}
        metadata = {
            **{name: clustered[name] for name in ("clusters", "n_clusters", "embedding_dim", "iterations", "inertia")},
            "total_time": seconds,
            "kmeans_time": times[KMEANS],
            "pairwise_time": times[PAIRWISE],
            "num_duplicates": duplicates,
            "step_seconds": {step: seconds for result in results.values() for step, seconds in result.steps.items()},
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
        """The cache lies elsewhere: the output gets its own copy of the quarantine and of the story of the steps."""
        manifest, cache = Manifest(self.output), Manifest(self.cache)
        manifest.remove_strays()
        if self.eps is None and self.pipeline.stages[0].clear_output:  # no stage writes here that would have cleared it
            manifest.clear(STEPS)
        listed = (name for step in STEPS for name in cache.steps.get(step, {}).get("files", ()))
        copies = [name for name in listed if name.startswith(f"{QUARANTINE}/")]
        for name in copies:
            content, target = (self.cache / name).read_bytes(), self.output / name
            if not target.exists() or target.read_bytes() != content:
                target.write_bytes(content)
        manifest.include(cache, copies)


def _metadata(columns: Sequence[str], id_field: str) -> list[str]:
    return [column for column in columns if column not in OUR_COLUMNS and column != id_field]
