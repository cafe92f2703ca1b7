"""The whole way in one call: videos to a training set without near-duplicates."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import distributed

from semdedup.compute.cluster import client_for
from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.dedup.base.new_rows import LeftOut
from semdedup.dedup.input.files import find_files
from semdedup.dedup.results.chain import ChainResult
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.threshold.recommended import chosen_eps
from semdedup.dedup.threshold.rule import EPS
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.errors import InputError, OutputConflictError, ParameterError
from semdedup.overlaps.folders import overlaps_below
from semdedup.overlaps.search import OverlapSearch
from semdedup.report.write import PAGE, write_report
from semdedup.run_overlaps import RunOverlaps, Searches
from semdedup.run_result import RunResult, check_balance
from semdedup.runs.at_work import PROGRESS, at_work
from semdedup.runs.owner import FILE_NAME as OWNER
from semdedup.runs.places import CLIPS, DEDUPS, OVERLAPS
from semdedup.settings import INPUT, METHOD, check_names, documented, needed, setting
from semdedup.settings.choices import DropWhen
from semdedup.settings.kinds import path, paths
from semdedup.settings.reprs import Shown
from semdedup.settings.shared import Shared, SharedOptions, clear_output_setting
from semdedup.shards.options import DROP_WHEN
from semdedup.shards.result import ShardResult
from semdedup.shards.workflow import ShardWorkflow
from semdedup.storage.kwargs import FSSPEC, kwargs_setting
from semdedup.storage.location import Location, Paths
from semdedup.updates import ANEW, Dedups
from semdedup.video.changes import changes_of
from semdedup.video.files import below
from semdedup.video.records import ROWS
from semdedup.video.result import MOST_FAULTS, SplitResult
from semdedup.video.video_table import VideoTable
from semdedup.video.workflow import VideoSplitWorkflow

DEDUP, DATASET = DEDUPS.first, "dataset"
"""Folders of the steps, below the output path, beside ``clips``, ``overlaps`` and the page, ``report.html``; and of
videos that came later ``overlaps-0002``, ``dedup-0002``, …"""

WRITTEN = rf"{CLIPS}/|(?:{OVERLAPS.first}|{DEDUP})(?:-\d+)?/|{DATASET}/|{PAGE}$|{OWNER}$|{PROGRESS}$"
"""All that is written below the output path."""

METADATA = tuple(name for name in ROWS.names if name not in ("id", "embedding", "low_information"))
"""Columns of the clips that the dedup carries along, for those who ask why."""

WHEN = {
    "either": "by overlap, or as near-duplicates",
    "both": "where they go by overlap and are near-duplicates",
}
NO_OVERLAPS = f"none are looked for: the clips here were compared without; {ANEW}"

RUN_REMOVAL = "witness"
"""The removal rule of the whole way, where none is given: each clip that goes is like one in the dataset."""

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
    *("base", "withdraw", "clips", "storage_options", "input_overlaps_path", "drop_when"),
}
"""Parameters of the parts that the whole way sets by itself."""


def names_of(part: str) -> list[str]:
    """Parameters of a part that the whole way takes."""
    ours = OURS | ({"layout"} if part == "dedup" else set())  # that of the folders
    return [name for name in inspect.signature(WORKFLOWS[part]).parameters if name not in ours]


@dataclass(frozen=True)
class RunOptions(SharedOptions):
    """What the whole way has beside the settings of its parts."""

    input_path: Paths | None = setting(
        None,
        paths(),
        "Folder of videos, searched at any depth, file or glob; or several.",
        aliases=["video_dir"],
        flags=["--video-dir", "--input-video-path"],
        heading=INPUT,
    )
    output_path: str | None = setting(None, path(), "Folder for clips, dedup, report and dataset; local or s3://.")
    eps: float | None = setting(
        None, EPS.kind, f"{EPS.help} By default what the embedder recommends, else 0.1.", heading=METHOD
    )
    drop_when: DropWhen | None = setting(
        None,
        DROP_WHEN.kind,
        f"{DROP_WHEN.help} By default as in earlier runs there, else {DROP_WHEN.default}.",
        heading=METHOD,
    )
    storage_options: dict[str, Any] | None = kwargs_setting(FSSPEC, "Options for fsspec.")
    clear_output: bool = clear_output_setting(
        "Make overlaps, dedup and dataset anew; clips where their own parameters changed."
    )


@documented(RunOptions)
class VideoDeduplicationWorkflow(Shown):
    """Split videos, find what they share, embed and compare their clips, report, and write those that remain as shards.

    Each part goes on where an earlier run stopped, and is left alone where it is complete. Of near-duplicates the best
    copy stays (most pixels, then the highest bitrate, then the longest), unless `dedup` has another ranking; the
    removal rule is ``witness`` unless `dedup` has another one. What is not given is as in earlier runs there. Clips
    that better-ranked videos show go by overlap, before others are compared; with ``drop_when="both"`` all are
    compared, and those go that are near-duplicates, too.

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
        eps: float | None = None,
        drop_when: DropWhen | None = None,
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
        self.input_path, self.eps = needed(options.input_path, "input_path"), options.eps
        parts = {"split": split, "overlaps": overlaps, "dedup": dedup, "shard": shard}
        self.more: dict[str, Mapping[str, Any]] = {part: {} if more is None else more for part, more in parts.items()}
        for part, more in self.more.items():
            check_names(part, more, names_of(part))
        self.split = self._split(clear_output=False)  # parameters of every part are checked before any work
        if not (self.split.clips.upload_clips and self.split.clips.generate_embeddings):
            raise ParameterError("upload_clips and generate_embeddings are needed on the whole way")
        self.searches = Searches(self.root, self.root / CLIPS, self.more["overlaps"], options.drop_when, self._shared())
        self._dedups(fresh=True).check(self.eps or 0.0)
        self._shard(None, DEDUP, None)

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
            dedups = self._dedups(left_out=self.searches.left_out() if overlaps else ())
            eps, why = self._eps(split, dedups)
            reporter.part(f"3 of 5: dedup at eps {eps:g} ({why})")
            dedup = dedups.run(found, cluster, reporter, eps)
            reporter.part("4 of 5: report")
            report_started = time.monotonic()
            report = self._report(eps, dedup)
            report_seconds = time.monotonic() - report_started
            reporter.part("5 of 5: shard")
            shard = self._run_shard(found, cluster, reporter, eps, overlaps)
            reporter.summarize(RunResult(split, dedup, shard, report, {}, gone, overlaps).rows())
        if gone:
            examples = ", ".join(gone[:3])
            reporter.say(f"{len(gone):,} videos of earlier runs are gone, their clips stay: {examples}")
        check_balance(split, overlaps, dedup, shard)
        seconds = {
            "split": split.seconds["total"],
            "overlaps": 0.0 if overlaps is None else overlaps.seconds,
            "dedup": dedup.seconds["total"],
            "report": report_seconds,
            "shard": shard.seconds["total"],
            "total": time.monotonic() - started,
        }
        return RunResult(split, dedup, shard, report, seconds, gone, overlaps)

    def plan(self, *, cluster: ClusterOptions | None = None) -> Iterator[str]:
        """What `run` would do, in lines of text; nothing is written. The later parts depend on the clips."""
        gone = self._check_videos()
        yield from self.split.plan(cluster=cluster)
        if gone:
            yield f"  gone, their clips stay: {len(gone):,} videos"
        rest = ", ".join(str(self.root / name) for name in (*self._names(), PAGE, DATASET))
        yield f"then would compare the videos and the clips, and write {rest}"
        if self.searches.are_wanted(len(self._dedups().folders)):
            yield f"  clips go {WHEN[self.searches.drop_when]}"
        else:
            yield f"  overlaps: {NO_OVERLAPS}"

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
        files, dedups = self.split.find().videos, self._dedups()
        if self.searches.are_wanted(len(dedups.folders)):
            self.searches.check()
        found = changes_of(VideoTable(self.split.output, self.split.kind), files)
        if found.changed and dedups.folders and not self.options.clear_output:
            raise OutputConflictError(
                f"{len(found.changed):,} videos were changed since their clips were compared: "
                f"{', '.join(found.changed[:MOST_FAULTS])}. Clips of what they were may be in the dataset. Put back "
                f"what was there, or give what is new another name; or {ANEW}."
            )
        return found.gone

    def _names(self) -> Iterator[str]:
        """Folders of the overlaps and dedups that `run` would complete or make."""
        folders = self._dedups().folders
        overlaps = [(OVERLAPS, self.searches.folders)] if self.searches.are_wanted(len(folders)) else []
        for names, there in [*overlaps, (DEDUPS, folders)]:
            n = 0 if self.options.clear_output else len(there)
            yield names.first if n == 0 else f"{names.name(n)} or {names.name(n + 1)}"

    def _eps(self, split: SplitResult, dedups: Dedups) -> tuple[float, str]:
        recorded = None if self.options.clear_output else dedups.recorded("eps")
        if self.eps is None and recorded is not None:
            return recorded, f"as in {self.root / DEDUP}"
        folder = Location.of(split.paths["embeddings"], self.storage_options)
        return chosen_eps(self.eps, [folder.at(file.url) for file in find_files([folder], "parquet")])

    def _find_overlaps(
        self, split: SplitResult, client: distributed.Client, cluster: ClusterOptions | None, reporter: Reporter
    ) -> RunOverlaps | None:
        """Find overlaps, unless there is nothing to find them by."""
        if not self.searches.are_wanted(len(self._dedups().folders)):
            reporter.say(f"overlaps: {NO_OVERLAPS}")
            return None
        if not split.counts.n_fingerprints:
            reporter.say("overlaps: none are looked for, for no video has a fingerprint track")
            return None
        return self.searches.run(client, cluster, reporter)

    def _dedups(self, fresh: bool = False, left_out: Sequence[LeftOut] = ()) -> Dedups:
        """The dedups; what is not given is as in the first one, unless all are to be `fresh`."""
        embeddings = self.root / CLIPS / self.split.kind.folders[0]
        given = {"metadata_fields": METADATA, **self.more["dedup"]}
        dedups = Dedups(self.root, embeddings, given, self._shared(), left_out)
        anew = fresh or self.options.clear_output
        recorded = None if anew else dedups.recorded("removal")
        return dedups.with_default("removal", RUN_REMOVAL if recorded is None else recorded).ranked(anew)

    def _report(self, eps: float, dedup: DedupResult) -> str:
        return write_report(
            (self.root if isinstance(dedup, ChainResult) else self.root / DEDUP).url,
            clips=(self.root / CLIPS).url,
            output_path=(self.root / PAGE).url,
            eps=eps,
            overlaps=[folder.url for folder in overlaps_below(self.root)] or None,
            storage_options=self.storage_options,
            verbose=self.options.verbose,
        )

    def _run_shard(
        self,
        client: distributed.Client,
        cluster: ClusterOptions | None,
        reporter: Reporter,
        eps: float,
        overlaps: RunOverlaps | None,
    ) -> ShardResult:
        newest = self._dedups().folders[-1].name
        shard = self._shard(eps, newest, overlaps)
        if not self.options.clear_output and shard.is_stale():
            reporter.say(f"{DATASET}: begun again, for clips came since it was begun")
            shard = self._shard(eps, newest, overlaps, clear_output=True)
        return shard.run(client, cluster=cluster)

    def _shard(self, eps: float | None, dedup: str, overlaps: RunOverlaps | None, **others: Any) -> ShardWorkflow:
        return ShardWorkflow(
            (self.root / CLIPS).url,
            (self.root / DATASET).url,
            input_semantic_dedup_path=(self.root / dedup).url,
            semantic_dedup_epsilon=eps,
            input_overlaps_path=None if overlaps is None else self.root.url,
            drop_when=None if overlaps is None else overlaps.drop_when,
            **self._shared(**others),
            **self.more["shard"],
        )
