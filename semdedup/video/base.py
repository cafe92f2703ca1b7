"""What the two workflows over videos share, on the client: which videos are missing, the run, and its result."""

from __future__ import annotations

import contextlib
import itertools
import math
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import distributed

from semdedup.compute.interrupts import within
from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import SECONDS_TO_CANCEL, Session, open_session
from semdedup.display import one_line
from semdedup.runs.at_work import at_work
from semdedup.runs.identity import fingerprint
from semdedup.runs.owner import Ownership
from semdedup.runs.record import FILE_NAME
from semdedup.runs.run import begin, finish
from semdedup.runs.step import tidy
from semdedup.settings.reprs import Shown
from semdedup.storage.location import FileInfo, Location
from semdedup.video.child import end_children
from semdedup.video.clip_meta import describe_faults
from semdedup.video.dry_run import describe_videos
from semdedup.video.files import FoundVideos, NoVideosError, can_be_read, find_videos
from semdedup.video.kinds import Kind
from semdedup.video.options import Limits, StepOptions, VideoIOOptions
from semdedup.video.records import VideoFile, rows_schema
from semdedup.video.result import MOST_FAULTS, SplitResult
from semdedup.video.run import check_unchanged, commit, process
from semdedup.video.steps.caption.captioner import CaptionSpec
from semdedup.video.steps.embed.providers import EmbedderSpec
from semdedup.video.steps.protocol import StepSpec
from semdedup.video.steps.table import steps_with
from semdedup.video.tally import Tally
from semdedup.video.target import Target
from semdedup.video.tree import FINGERPRINTS
from semdedup.video.video_rows import VideoRows
from semdedup.video.video_table import Missing, VideoTable
from semdedup.video.worker import Settings

ANOTHER_EMBEDDER = (
    "Embeddings of another embedder, or of another version of one, are not compared with those there; they need no "
    "other clips: semdedup embed --input-clip-path makes them of the clips there, and semdedup caption captions these."
)
BEGUN, COMMITTED, CLEARING = "begun", "committed", "clearing"

MODELS = (EmbedderSpec, CaptionSpec)
"""Steps that choose a backend."""

MOST_TRIED = 8
"""Videos that are tried at each end of the input for one that can be read."""


@dataclass(frozen=True)
class Done:
    """How much a run has done: videos, and seconds of them."""

    n_videos: int = 0
    footage_s: float = 0.0


NOTHING = Done()


class VideoWorkflow(Shown):
    """What the two workflows share: which videos are missing, the run over them, and the commit."""

    sources: Sequence[Location]
    output: Location
    own: re.Pattern[str]
    kind: Kind
    embedders: tuple[EmbedderSpec, ...]
    step_options: StepOptions = StepOptions()
    captioner: CaptionSpec | None
    io: VideoIOOptions
    unit: str
    unit_of_tasks: str
    per_task: int
    result: type[SplitResult] = SplitResult
    hint = ANOTHER_EMBEDDER
    without_meta = "their clips are embedded as if there were none"

    @property
    def limits(self) -> Limits:
        """What one video may cost."""
        return self.io.limits or Limits()

    @property
    def steps(self) -> tuple[StepSpec, ...]:
        """What every clip goes through."""
        return steps_with(*self.embedders, self.captioner, scores=self.step_options.clip_scores)

    def step_parameters(self) -> dict[str, Any]:
        """What the results of the steps depend on, as parameters of a run; of an embedder: ``embedding_…``.

        Of several ``embedding_algorithm`` is the list of their names, and what each depends on has its name in front.
        """
        found = {
            f"{step.name}_{name}": value
            for step in steps_with(scores=self.step_options.clip_scores)
            for name, value in step.identity().items()
        }
        names = [spec.name for spec in self.embedders]
        for spec in self.embedders:
            front = f"embedding_{spec.name}" if len(names) > 1 else "embedding"
            found |= {f"{front}_{name}": value for name, value in spec.identity().items()}
        found |= {} if len(names) == 1 else {"embedding_algorithm": names or None}
        return {**found, **self.step_options.recorded()}

    def parameters(self, files: Sequence[VideoFile]) -> dict[str, Any]:
        """What the result depends on beside the videos, as JSON values."""
        raise NotImplementedError

    def settings(self, session: Session, files: Sequence[VideoFile]) -> Settings:
        """What the workers have to know."""
        raise NotImplementedError

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        raise NotImplementedError

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> SplitResult:
        """Process the videos that are new or have changed, or whose files are missing; the others are left as they are.

        `client` and `cluster` are as for `SemanticDeduplicationWorkflow.run`.

        Raises:
            SemdedupError: see `semdedup.errors`. A run that is refused has written nothing.
        """
        started = time.monotonic()
        reporter = Reporter(self.io.verbose)
        with reporter.doing("looking for videos"):
            found = self.find()
        files = found.videos
        for line in found.told():
            reporter.say(line)
        table = VideoTable(self.output, self.kind)
        missing = self._missing(table, files)
        if not (missing.videos or missing.files) and table.status == COMMITTED:
            tidy(self.output)
            self._say_faults(reporter, missing)
            reporter.say(f"{len(files):,} {self.unit}: all complete already, nothing to do")
            return self._result(table, NOTHING, 0, {"total": time.monotonic() - started})
        reads, writes = self._readable(files), [self.output]
        with (
            at_work(self.output, reporter, take_over=self.io.take_over) as ownership,
            open_session(client, cluster or ClusterOptions(), reporter, reads, writes, may_go=True) as session,
            _ending_children(session),
        ):
            done, left_out = self._run(session, ownership, cluster, files)
            seconds = {**reporter.seconds, "total": time.monotonic() - started - reporter.forced_seconds}
            result = self._result(VideoTable(self.output, self.kind), done, left_out, seconds)
            reporter.summarize(result.rows())
        return result

    def find(self) -> FoundVideos:
        """The videos of the input, and what else was there."""
        return find_videos(self.sources, self.own, looked_into=self._looked_into)

    @cached_property
    def _looked_into(self) -> dict[FileInfo, str]:
        """What was found in files whose endings tell nothing: the input is listed again at the end."""
        return {}

    def _readable(self, files: Sequence[VideoFile]) -> list[Location]:
        """One of the first videos and one of the last, to try the workers with: such as can be read here."""
        found = []
        for end in (files[:MOST_TRIED], files[: -MOST_TRIED - 1 : -1]):
            places = (self.sources[0].at(file.url) for file in end)
            found += list(itertools.islice(filter(can_be_read, places), 1))
        return found

    def plan(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> Iterator[str]:
        """What `run` would do, in lines of text. Everything is read that it would read first; nothing is written."""
        found = self.find()
        files = found.videos
        yield from found.told()
        todo = self._missing(VideoTable(self.output, self.kind), files).videos[: self.io.limit or None]
        yield f"input: {len(files):,} {self.unit}; {len(files) - len(todo):,} complete or left out, {len(todo):,} to do"
        yield f"would write to {self.output}"
        if not todo:
            return
        reads, reporter = self._readable(files), Reporter(self.io.verbose)
        with (
            open_session(client, cluster or ClusterOptions(), reporter, reads, may_go=True) as session,
            _ending_children(session),
        ):
            yield from describe_videos(session, self._settings(session, cluster, files), todo, self.unit)

    def _missing(self, table: VideoTable, files: Sequence[VideoFile]) -> Missing:
        """What is to be done; refuses where the folder does not go with the parameters. Nothing is written."""
        if self.io.clear_output:
            return Missing(list(files))
        table.check_foreign()
        parameters = {**self.parameters(files), **table.kind.parameters}
        if table.entry is not None and parameters.get("transcode_encoder") == "auto":
            parameters["transcode_encoder"] = table.entry["parameters"].get("transcode_encoder")
        table.record.check(table.kind.step, parameters, hint=self.hint)
        return table.missing(files, self.io.verify)

    def _settings(self, session: Session, cluster: ClusterOptions | None, files: Sequence[VideoFile]) -> Settings:
        settings = self.settings(session, files)
        if cluster is not None and cluster.backend == "cpu":
            steps = (replace(step, backend="cpu") if isinstance(step, MODELS) else step for step in settings.steps)
            return replace(settings, steps=tuple(steps))
        return settings

    def _run(
        self, session: Session, ownership: Ownership, cluster: ClusterOptions | None, files: Sequence[VideoFile]
    ) -> tuple[Done, int]:
        """What was done of videos, and how many were left out."""
        table, reporter = VideoTable(self.output, self.kind, ownership.token), session.reporter
        settings = self._settings(session, cluster, files)
        if self.io.clear_output:
            table.check_foreign(clearing=True)
        if self.io.clear_output or table.status == CLEARING:
            table.clear()
        if finish(table.record, table.kind.step, ownership):
            reporter.say("completed what an earlier run had ordered")
            table.read()
        table.record.remove_strays(table.kind.written[table.kind.step])
        missing = table.missing(files, self.io.verify)
        self._say_faults(reporter, missing)
        todo = missing.videos[: self.io.limit or None]
        left_out = len(missing.videos) - len(todo)
        if not todo and not missing.files and table.status == COMMITTED:
            return NOTHING, left_out
        encoder = {"transcode_encoder": settings.encoder} if settings.encoder else {}
        parameters = {**self.parameters(files), **encoder, **table.kind.parameters}
        table.record.check(table.kind.step, parameters, hint=self.hint)
        placed = table.placed()  # before this run puts its own there
        if table.status == BEGUN:
            todo = [replace(video, known=True) for video in todo]
        source = fingerprint(FileInfo(file.url, file.n_bytes, file.stamp) for file in files)
        run = begin(table.record, table.kind.step, parameters, source, ownership, session, table.kind.written)
        assert run is not None, "what a killed run had ordered was carried out above"
        embedders = {spec.name: rows_schema(settings.steps, spec.name, spec.recommended_eps) for spec in self.embedders}
        columns = {name: kind.n_rows for name, kind in settings.embeddings.items()}
        with run:
            settings = replace(settings, target=Target(run.root, run.scratch, run.token, table.kind.tracks))
            tallies = Tally.all_of(table.rows, columns)
            units = self.unit, self.unit_of_tasks
            done = process(run, settings, todo, self.per_task, *units, tallies, table.kind.columns)
            rows = done.rows()
            check_unchanged(rows, self._now())
            self._say_meta_faults(reporter, rows)
            commit(run, table, missing, done, placed, embedders)
        return Done(len(rows), math.fsum(rows.numbers("duration_s"))), left_out

    def _now(self) -> Sequence[VideoFile]:
        """The videos of the input, of which all may have gone."""
        try:
            return self.find().videos
        except NoVideosError:
            return []

    def _say_faults(self, reporter: Reporter, missing: Missing) -> None:
        """Tell what is not as it was left, by name."""
        if missing.faults:
            reporter.say(
                f"{len(missing.faults):,} files in {self.output} are not as they were left; they are made again where "
                f"their {self.unit} are there: {'; '.join(map(one_line, missing.faults[:MOST_FAULTS]))}"
            )

    def _say_meta_faults(self, reporter: Reporter, rows: VideoRows) -> None:
        faults = list(rows.meta_faults())
        made_anew = "they are made anew, without what others had added"
        then = made_anew if self.kind.owns_clips else self.without_meta
        if faults:
            reporter.say(describe_faults(len(faults), faults, then))

    def _result(self, table: VideoTable, done: Done, left_out: int, seconds: Mapping[str, float]) -> SplitResult:
        paths = self.paths() | ({"fingerprints": str(self.output / FINGERPRINTS)} if table.kind.tracks else {})
        result = self.result(table.rows, done.n_videos, left_out, seconds, paths, done.footage_s)
        if result.quarantined:
            paths["quarantine"] = str(self.output / self.kind.quarantine)
        if result.quarantined_clips:
            paths["quarantine of clips"] = str(self.output / self.kind.clip_quarantine)
        paths["manifest"] = str(self.output / FILE_NAME)
        return result

    def _embeddings_path(self) -> dict[str, str]:
        return {
            "embeddings" if len(self.embedders) == 1 else f"embeddings, {spec.name}": str(self.output / spec.folder)
            for spec in self.embedders
        }

    def _captions_path(self) -> dict[str, str]:
        return {"captions": str(self.output / self.kind.captions)} if self.kind.captions else {}


@contextlib.contextmanager
def _ending_children(session: Session) -> Iterator[None]:
    """At the end of the block no worker has a process that decodes: the workers may be somebody's who goes on."""

    def end() -> None:
        if session.client.status == "running":
            session.client.run(end_children)

    try:
        yield
    except KeyboardInterrupt:
        within(SECONDS_TO_CANCEL, end)
        raise
    except BaseException:
        end()
        raise
    end()
