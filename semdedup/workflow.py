"""The whole way in one call: videos to a training set without near-duplicates."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, Unpack

import distributed

from semdedup.compute.cluster import client_for
from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.dedup.results.chain import ChainResult
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.overlaps.folders import overlaps_below
from semdedup.overlaps.search import OverlapSearch
from semdedup.report.write import PAGE, write_report
from semdedup.run_dedups import RunDedups
from semdedup.run_options import Eps, RunOptions
from semdedup.run_overlaps import RunOverlaps, Searches
from semdedup.run_result import RunResult, check_balance
from semdedup.runs.at_work import PROGRESS, at_work
from semdedup.runs.owner import FILE_NAME as OWNER
from semdedup.runs.places import CLIPS, DEDUPS, OF_EMBEDDER, OVERLAPS
from semdedup.settings import check_names, documented, needed
from semdedup.settings.choices import DropWhen
from semdedup.settings.reprs import Shown
from semdedup.settings.shared import Shared
from semdedup.shards.result import ShardResult
from semdedup.shards.workflow import ShardWorkflow
from semdedup.storage.location import Location, Paths
from semdedup.updates import ANEW
from semdedup.video.changes import changes_of
from semdedup.video.files import below
from semdedup.video.quarantine import EMBED_ERROR
from semdedup.video.records import ROWS
from semdedup.video.result import MOST_FAULTS, SplitResult
from semdedup.video.video_table import VideoTable
from semdedup.video.workflow import VideoSplitWorkflow

DEDUP, DATASET = DEDUPS.first, "dataset"
"""Folders of the steps, below the output path, beside ``clips``, ``overlaps`` and the page, ``report.html``; and of
videos that came later ``overlaps-0002``, ``dedup-0002``, … Of several embedders each has its own: ``dedup_hf/dedup``,
and ``report_hf.html``."""

WRITTEN = (
    rf"{CLIPS}/|(?:{OVERLAPS.first}|{DEDUP})(?:-\d+)?/|{OF_EMBEDDER}[^/]+/{DEDUP}(?:-\d+)?/|{DATASET}/"
    rf"|report(?:_[^/]+)?\.html$|{OWNER}$|{PROGRESS}$"
)
"""All that is written below the output path."""

METADATA = tuple(name for name in ROWS.names if name not in ("id", "embedding", "low_information"))
"""Columns of the clips that the dedup carries along, for those who ask why."""

WHEN = {
    "either": "by overlap, or as near-duplicates",
    "both": "where they go by overlap and are near-duplicates",
}
NO_OVERLAPS = f"none are looked for: the clips here were compared without; {ANEW}"

WORKFLOWS: Mapping[str, type] = {
    "split": VideoSplitWorkflow,
    "overlaps": OverlapSearch,
    "dedup": SemanticDeduplicationWorkflow,
    "shard": ShardWorkflow,
}
OURS = {
    *("input_path", "video_dir", "output_path", "output_clip_path", "input_clip_path", "output_dataset_path"),
    *("input_semantic_dedup_path", "semantic_dedup_epsilon", "eps", "count_at"),
    *("read_kwargs", "write_kwargs", "cache_kwargs", "cache_path", "clear_output", "verbose", "take_over", "verify"),
    *("base", "withdraw", "clips", "storage_options", "input_overlaps_path", "drop_when", "duplicate_when"),
}
"""Parameters of the parts that the whole way sets by itself."""


def names_of(part: str) -> list[str]:
    """Parameters of a part that the whole way takes."""
    ours = OURS | ({"layout"} if part == "dedup" else set())  # that of the folders
    return [name for name in inspect.signature(WORKFLOWS[part]).parameters if name not in ours]


@documented(RunOptions)
class VideoDeduplicationWorkflow(Shown):
    """Split videos, find what they share, embed and compare their clips, report, and write those that remain as shards.

    Each part goes on where an earlier run stopped, and is left alone where it is complete. Of near-duplicates the best
    copy stays (most pixels, then the highest bitrate, then the longest), unless `dedup` has another ranking; the
    removal rule is ``witness`` unless `dedup` has another one. What is not given is as in earlier runs there. Clips
    that better-ranked videos show go by overlap, before others are compared; with ``drop_when="both"`` all are
    compared, and those go that are near-duplicates, too.

    With several embedders (``split={"embedding_algorithm": ["dct3d", "hf"]}``) each has a dedup of its own. Clips that
    are near-duplicates by one of them go, and are not compared by those that follow in the order of their names; with
    ``duplicate_when="both"`` all compare all, and those go that are near-duplicates by each. A clip that one of them
    failed on is in quarantine until a later run has embedded it with all.

    A folder of videos may grow. New videos are compared with those of before, whose clips stay; those of their clips
    that do not go by overlap are compared with the clips in the dataset, and with each other (``overlaps-0002``,
    ``dedup-0002``, …). What remains is added to the dataset in new shards; no shard that there was is written again.
    Of a video that was deleted the clips stay. A video that was changed is refused by name, for its clips may be in the
    dataset: ``clear_output`` makes overlaps, dedup and dataset anew.

    Raises:
        ParameterError: a part has no such parameter, or a parameter has a value that it cannot have.

    Example:
        >>> result = VideoDeduplicationWorkflow("videos/", "out/", split={"fixed_stride_split_duration": 5}).run()
        >>> result.dedup.borderline(10)
    """

    def __init__(
        self,
        input_path: Paths,
        output_path: str,
        *,
        eps: Eps | None = None,
        drop_when: DropWhen | None = None,
        duplicate_when: DropWhen | None = None,
        split: Mapping[str, Any] | None = None,
        overlaps: Mapping[str, Any] | None = None,
        dedup: Mapping[str, Any] | None = None,
        shard: Mapping[str, Any] | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        self.options = options = RunOptions.of({**locals(), **shared})
        self.storage_options = options.storage_options or {}
        self.root = Location.of(needed(options.output_path, "output_path"), self.storage_options)
        self.input_path = needed(options.input_path, "input_path")
        parts = {"split": split, "overlaps": overlaps, "dedup": dedup, "shard": shard}
        self.more: dict[str, Mapping[str, Any]] = {part: {} if more is None else more for part, more in parts.items()}
        for part, more in self.more.items():
            check_names(part, more, names_of(part))
        self.split = self._split(clear_output=False)  # parameters of every part are checked before any work
        if not (self.split.clips.upload_clips and self.split.clips.generate_embeddings):
            raise ParameterError("upload_clips and generate_embeddings are needed on the whole way")
        self.searches = Searches(self.root, self.root / CLIPS, self.more["overlaps"], options.drop_when, self._shared())
        self.dedups = RunDedups(
            *(self.root, self.root / CLIPS, self.split.embedders, {"metadata_fields": METADATA, **self.more["dedup"]}),
            *(options.eps, options.duplicate_when, self._shared()),
        )
        self.dedups.check()
        self._shard(None)  # so are those of the dataset

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> RunResult:
        """Go the whole way, on one cluster.

        `client` and `cluster` are as for `SemanticDeduplicationWorkflow.run`.

        Raises:
            SemdedupError: see `semdedup.errors`.
        """
        started = time.monotonic()
        reporter = Reporter(self.options.verbose)
        with reporter.doing("looking for videos"):
            gone = self._check_videos()  # an absent input is refused before a cluster is started
        with (
            at_work(self.root, reporter, take_over=self.options.take_over),
            client_for(client, cluster or ClusterOptions(), reporter) as found,
        ):
            reporter.part("1 of 5: split")
            split = self._run_split(found, cluster)
            if not split.embedded:
                raise InputError(
                    f"none of the {len(split.videos):,} videos gave a clip with an embedding: "
                    + ("; ".join(split.faults()) or "all are too short")
                )
            reporter.part("2 of 5: overlaps")
            overlaps = self._find_overlaps(split, found, cluster, reporter)
            left_out = self.searches.left_out() if overlaps else ()
            one_by_one = overlaps is None or overlaps.drop_when == "either"
            dedups = self.dedups.run(found, cluster, reporter, split, left_out, one_by_one)
            reporter.part("4 of 5: report")
            report_started = time.monotonic()
            reports = {name: self._report(name, dedup) for name, dedup in dedups.items()}
            report_seconds = time.monotonic() - report_started
            reporter.part("5 of 5: shard")
            shard = self._run_shard(found, cluster, reporter, dedups, overlaps)
            when = self.dedups.duplicate_when
            result = RunResult(split, dedups, shard, reports, {}, gone, overlaps, when)
            reporter.summarize(result.rows())
        if gone:
            examples = ", ".join(gone[:3])
            reporter.say(f"{len(gone):,} videos of earlier runs are gone, their clips stay: {examples}")
        check_balance(split, overlaps, dedups, shard, when)
        seconds = {
            "split": split.seconds["total"],
            "overlaps": 0.0 if overlaps is None else overlaps.seconds,
            "dedup": sum(dedup.seconds["total"] for dedup in dedups.values()),
            "report": report_seconds,
            "shard": shard.seconds["total"],
            "total": time.monotonic() - started,
        }
        return replace(result, seconds=seconds)

    def plan(self, *, cluster: ClusterOptions | None = None) -> Iterator[str]:
        """What `run` would do, in lines of text; nothing is written. The later parts depend on the clips."""
        gone = self._check_videos()
        yield from self.split.plan(cluster=cluster)
        if gone:
            yield f"  gone, their clips stay: {len(gone):,} videos"
        pages = [self._page(name) for name in self.dedups.names]
        rest = ", ".join(str(self.root / name) for name in (*self._names(), *pages, DATASET))
        yield f"then would compare the videos and the clips, and write {rest}"
        if self.searches.are_wanted(self.dedups.n_made):
            yield f"  clips go {WHEN[self.searches.drop_when]}"
        else:
            yield f"  overlaps: {NO_OVERLAPS}"
        if len(self.dedups.names) > 1:
            yield f"  near-duplicates are so by {self.dedups.duplicate_when} of {', '.join(self.dedups.names)}"

    def _shared(self, **others: Any) -> dict[str, Any]:
        kwargs = {"storage_options": self.storage_options}
        shared = {name: getattr(self.options, name) for name in self.options.last}
        return {"read_kwargs": kwargs, "write_kwargs": kwargs, **shared, **others}

    def _split(self, clear_output: bool) -> VideoSplitWorkflow:
        shared = self._shared(clear_output=clear_output)
        split = VideoSplitWorkflow(self.input_path, (self.root / CLIPS).url, **shared, **self.more["split"])
        split.own = below(self.root, WRITTEN)
        return split

    def _run_split(self, client: distributed.Client, cluster: ClusterOptions | None) -> SplitResult:
        try:
            return self.split.run(client, cluster=cluster)
        except OutputConflictError:
            if not self.options.clear_output:
                raise
            return self._split(clear_output=True).run(client, cluster=cluster)

    def _check_videos(self) -> tuple[str, ...]:
        """Videos of earlier runs that are gone.

        Raises:
            InputError: there is no input.
            OutputConflictError: videos were changed whose clips are in a dedup.
        """
        files, n_made = self.split.find().videos, self.dedups.n_made
        if self.searches.are_wanted(n_made):
            self.searches.check()
        self.dedups.check_record()
        found = changes_of(VideoTable(self.split.output, self.split.kind), files)
        if found.changed and n_made and not self.options.clear_output:
            raise OutputConflictError(
                f"{len(found.changed):,} videos were changed since their clips were compared: "
                f"{', '.join(found.changed[:MOST_FAULTS])}. Clips of what they were may be in the dataset. Put back "
                f"what was there, or give what is new another name; or {ANEW}."
            )
        return found.gone

    def _names(self) -> Iterator[str]:
        """Folders of the overlaps and dedups that `run` would complete or make."""
        overlaps = [("", OVERLAPS, self.searches.folders)] if self.searches.are_wanted(self.dedups.n_made) else []
        dedups = ((place, DEDUPS, folders) for place, folders in self.dedups.planned())
        for place, names, there in [*overlaps, *dedups]:
            n = 0 if self.options.clear_output else len(there)
            yield place + (names.first if n == 0 else f"{names.name(n)} or {names.name(n + 1)}")

    def _find_overlaps(
        self, split: SplitResult, client: distributed.Client, cluster: ClusterOptions | None, reporter: Reporter
    ) -> RunOverlaps | None:
        """Find overlaps, unless there is nothing to find them by."""
        if not self.searches.are_wanted(self.dedups.n_made):
            reporter.say(f"overlaps: {NO_OVERLAPS}")
            return None
        if not split.counts.n_fingerprints:
            reporter.say("overlaps: none are looked for, for no video has a fingerprint track")
            return None
        found = self.searches.run(client, cluster, reporter)
        failed = [fault["id"] for _, fault in split.videos.clip_faults() if fault["reason"] == EMBED_ERROR]
        return replace(found, waiting=self.searches.n_among(failed)) if failed else found

    def _page(self, name: str) -> str:
        """The name of the page about the dedups of an embedder."""
        return PAGE if len(self.dedups.names) == 1 else f"report_{name}.html"

    def _report(self, name: str, dedup: DedupResult) -> str:
        place = self.dedups.place(name)
        return write_report(
            (place if isinstance(dedup, ChainResult) else place / DEDUP).url,
            clips=(self.root / CLIPS).url,
            output_path=(self.root / self._page(name)).url,
            eps=dedup.eps,
            overlaps=[folder.url for folder in overlaps_below(self.root)] or None,
            storage_options=self.storage_options,
            verbose=self.options.verbose,
        )

    def _run_shard(
        self,
        client: distributed.Client,
        cluster: ClusterOptions | None,
        reporter: Reporter,
        dedups: Mapping[str, DedupResult],
        overlaps: RunOverlaps | None,
    ) -> ShardResult:
        results: dict[str, Any] = {"input_semantic_dedup_path": self.root.url}
        if len(dedups) == 1:
            ((name, dedup),) = dedups.items()
            newest = self.dedups.folders[name][-1]
            results = {"input_semantic_dedup_path": newest.url, "semantic_dedup_epsilon": dedup.eps}
        shard = self._shard(overlaps, **results)
        if not self.options.clear_output and shard.is_stale():
            reporter.say(f"{DATASET}: begun again, for clips came since it was begun")
            shard = self._shard(overlaps, **results, clear_output=True)
        return shard.run(client, cluster=cluster)

    def _shard(self, overlaps: RunOverlaps | None, clear_output: bool | None = None, **results: Any) -> ShardWorkflow:
        return ShardWorkflow(
            (self.root / CLIPS).url,
            (self.root / DATASET).url,
            input_overlaps_path=None if overlaps is None else self.root.url,
            drop_when=None if overlaps is None else overlaps.drop_when,
            **results,
            **self._shared(**({} if clear_output is None else {"clear_output": clear_output})),
            **self.more["shard"],
        )
