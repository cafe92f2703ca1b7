"""The public workflows, on the client: which videos are missing, the tasks for them, and the commit."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import Session, open_session
from semdedup.display import one_line
from semdedup.errors import IntegrityError, ParameterError
from semdedup.runs.record import FILE_NAME, fingerprint
from semdedup.settings import documented
from semdedup.settings.choices import ClipIdScheme, Cut, SplittingAlgorithm, TranscodeEncoder
from semdedup.storage.location import FileInfo, Location, Paths, locations_of, storage_options_of
from semdedup.video.child import end_children
from semdedup.video.encode import choose_encoder
from semdedup.video.files import find_videos
from semdedup.video.job import PlannedVideo
from semdedup.video.ledger import Ledger, embed_kind, split_kind
from semdedup.video.options import ClipOptions, Embedding, EmbedOptions, Limits, PlanOptions, VideoIOOptions
from semdedup.video.records import VideoFile, rows_schema
from semdedup.video.result import SplitResult
from semdedup.video.scenes import check_scenes
from semdedup.video.steps.embed.providers import CUSTOM, EmbedderSpec
from semdedup.video.steps.table import STEPS, steps_with
from semdedup.video.tree import CLIPS, METAS, SUMMARY
from semdedup.video.worker import Settings, encoders_here, plan_videos, process_videos

CLIPS_PER_TASK = 32
"""Clips that exist and are only embedded go to the workers in so many a task, so that a model gets whole batches."""

ANOTHER_EMBEDDER = "Another embedder needs no other clips: semdedup embed."


class _VideoWorkflow:
    """What the two workflows share: which videos are missing, the run over them, and the commit."""

    sources: Sequence[Location]
    ledger: Ledger
    embedder: EmbedderSpec | None
    limits: Limits
    limit: int
    clear_output: bool
    verbose: bool
    unit: str
    unit_of_tasks: str
    per_task: int

    def _take(self, given: Mapping[str, Any]) -> VideoIOOptions:
        """Keep the settings that the two share."""
        io = VideoIOOptions.of(given)
        self.limits, self.limit = io.limits or Limits(), io.limit
        self.clear_output, self.verbose = io.clear_output, io.verbose
        return io

    def parameters(self) -> dict[str, Any]:
        """What the result depends on beside the videos, as JSON values."""
        raise NotImplementedError

    def settings(self, session: Session, scratch: Location) -> Settings:
        """What the workers have to know."""
        raise NotImplementedError

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        raise NotImplementedError

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> SplitResult:
        """Process the videos that are new or have changed; the others are left as they are.

        Args:
            client: a `distributed.Client`, a scheduler address, or None: the current default client if there is one,
                else a cluster of its own for the time of the run. A client that is given is never closed.
            cluster: how to start that cluster.

        Raises:
            SemdedupError: see `semdedup.errors`. A run that is refused has written nothing.
        """
        started = time.monotonic()
        reporter = Reporter(self.verbose)
        files = self.find()
        todo = self._todo(files)
        if not todo and not self._unfinished():
            self.ledger.manifest.remove_strays()
            reporter.say(f"{len(files):,} {self.unit}: all complete already, nothing to do")
            return self._result(0, 0.0, 0, {"total": time.monotonic() - started})
        ends = [self.sources[0].at(file.url) for file in (files[0], files[-1])]
        with (
            open_session(client, cluster or ClusterOptions(), reporter, ends, [self.ledger.root]) as session,
            _ending_children(session),
        ):
            return self._run(session, cluster or ClusterOptions(), files, started)

    def find(self) -> list[VideoFile]:
        """The videos of the input."""
        return find_videos(self.sources, self.ledger.root)

    def plan(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> Iterator[str]:
        """What `run` would do, in lines of text. Everything is read that it would read first; nothing is written."""
        files = self.find()
        todo = self._todo(files)[: self.limit or None]
        yield f"input: {len(files):,} {self.unit}; {len(files) - len(todo):,} complete or left out, {len(todo):,} to do"
        yield f"would write to {self.ledger.root}"
        if not todo:
            return
        reporter = Reporter(self.verbose)
        first = self.sources[0].at(files[0].url)
        with (
            open_session(client, cluster or ClusterOptions(), reporter, [first]) as session,
            _ending_children(session),
        ):
            settings = self._settings(session, cluster)
            batches = [[video] for video in todo]
            plans = dict(session.run("plan", partial(plan_videos, settings), batches, unit=self.unit, label=_paths_of))
        n_clips, seconds = 0, 0.0
        for position in range(len(batches)):
            for path, found in plans[position]:
                name = one_line(path)
                if isinstance(found, PlannedVideo):
                    n_clips += len(found.spans)
                    seconds += sum(span.duration_s for span in found.spans)
                    shown = ", ".join(f"{span.start_s:g}-{span.end_s:g}" for span in found.spans[:4])
                    more = " …" if len(found.spans) > 4 else ""
                    yield (
                        f"  {name}: {found.timeline.duration_s:.2f} s, {len(found.spans)} clips: {shown}{more}"
                        if found.spans
                        else f"  {name}: {found.timeline.duration_s:.2f} s, too short"
                    )
                else:
                    yield f"  {name}: quarantine: {found.reason}: {one_line(found.detail)}"
        yield f"{n_clips:,} clips of {seconds:,.1f} s in all"

    def _todo(self, files: Sequence[VideoFile]) -> list[VideoFile]:
        """Videos to process; refuses where the folder does not go with the parameters. Nothing is written."""
        if self.clear_output:
            return list(files)
        self.ledger.check_foreign()
        record = self.ledger.record
        parameters = self.parameters()
        if record is not None and parameters.get("transcode_encoder") == "auto":
            parameters["transcode_encoder"] = record["parameters"].get("transcode_encoder")
        self.ledger.manifest.check(self.ledger.kind.step, parameters, hint=ANOTHER_EMBEDDER)
        return self.ledger.missing(files)

    def _settings(self, session: Session, cluster: ClusterOptions | None) -> Settings:
        settings = self.settings(session, self.ledger.root)
        if self.embedder is not None and cluster is not None and cluster.backend == "cpu":
            return replace(settings, steps=steps_with(replace(self.embedder, backend="cpu")))
        return settings

    def _unfinished(self) -> bool:
        return self.ledger.record is not None and not self.ledger.manifest.committed(self.ledger.kind.step)

    def _run(
        self, session: Session, cluster: ClusterOptions, files: Sequence[VideoFile], started: float
    ) -> SplitResult:
        ledger, reporter = self.ledger, session.reporter
        settings = self._settings(session, cluster)
        if self.clear_output:
            ledger.check_foreign(clearing=True)
            ledger.clear()
        if ledger.finish():
            reporter.say("completed what an earlier run had ordered")
        todo = ledger.missing(files)
        left_out = len(todo) - len(todo[: self.limit or None])
        todo = todo[: self.limit or None]
        if not todo and not self._unfinished():
            return self._result(0, 0.0, left_out, {"total": time.monotonic() - started})
        parameters = {**self.parameters(), **({"transcode_encoder": settings.encoder} if settings.encoder else {})}
        ledger.manifest.check(ledger.kind.step, parameters, hint=ANOTHER_EMBEDDER)
        scratch = ledger.begin(parameters, fingerprint(FileInfo(f.url, f.n_bytes, f.stamp) for f in files))
        notes = ledger.notes(todo)
        if notes:
            reporter.say(f"{len(notes):,} of {len(todo):,} {self.unit} were done by a run that was interrupted")
        rest = [video for video in todo if video.relative_path not in notes]
        batches = [rest[i : i + self.per_task] for i in range(0, len(rest), self.per_task)]
        work = partial(process_videos, replace(settings, scratch=scratch))
        for _, found in session.run(ledger.kind.step, work, batches, unit=self.unit_of_tasks, label=_paths_of):
            notes |= {note["video"]: note for note in found}
        if len(notes) != len(todo):
            raise IntegrityError(f"{len(todo)} videos went in, {len(notes)} came out")
        name, eps = ("", None) if self.embedder is None else (self.embedder.name, self.embedder.recommended_eps)
        ledger.commit(session, notes, name, rows_schema(settings.steps, name, eps))
        footage_s = sum(note["duration_s"] for note in notes.values())
        seconds = {**reporter.seconds, "total": time.monotonic() - started}
        return self._result(len(notes), footage_s, left_out, seconds)

    def _result(self, processed: int, footage_s: float, left_out: int, seconds: Mapping[str, float]) -> SplitResult:
        videos = list(self.ledger.videos.values())
        paths = self.paths()
        if any(video["status"] == "quarantined" for video in videos):
            paths["quarantine"] = str(self.ledger.root / self.ledger.kind.quarantine)
        paths["manifest"] = str(self.ledger.root / FILE_NAME)
        return SplitResult(videos, processed, left_out, seconds, paths, footage_s)

    def _embeddings_path(self) -> dict[str, str]:
        return {"embeddings": str(self.ledger.root / self.ledger.kind.folder)} if self.ledger.kind.folder else {}


@documented(VideoIOOptions, PlanOptions, ClipOptions, EmbedOptions)
class VideoSplitWorkflow(_VideoWorkflow):
    """Videos to clips, their metadata, and one embedding a clip.

    A video is decoded once, by one process, which streams it: memory is bounded by the frames that its codec holds and
    the sampled frames of a batch of clips, whatever its length. Cost: decoding and encoding; all else is small beside.

    Example:
        >>> result = VideoSplitWorkflow("videos/", "clips/", fixed_stride_split_duration=5).run()
    """

    unit, unit_of_tasks, per_task = "videos", "videos", 1

    def __init__(
        self,
        input_path: Paths | None = None,
        output_path: str | None = None,
        *,
        video_dir: Paths | None = None,
        output_clip_path: str | None = None,
        splitting_algorithm: SplittingAlgorithm = "fixed_stride",
        fixed_stride_split_duration: float = 10.0,
        fixed_stride_stride_s: float | None = None,
        fixed_stride_min_clip_length_s: float = 2.0,
        scene_min_length_s: float = 2.0,
        scene_max_length_s: float = 60.0,
        cut: Cut = "reencode",
        transcode_encoder: TranscodeEncoder = "auto",
        clip_id_scheme: ClipIdScheme = "semdedup",
        limit_clips: int = 0,
        limit: int = 0,
        upload_clips: bool = True,
        generate_previews: bool = False,
        generate_embeddings: bool = True,
        embedding_algorithm: Embedding = "dct3d",
        model_dir: str | None = None,
        trust_remote_code: bool = False,
        embedding_batch_size: int | None = None,
        limits: Limits | Mapping[str, Any] | None = None,
        read_kwargs: Mapping[str, Any] | None = None,
        write_kwargs: Mapping[str, Any] | None = None,
        clear_output: bool = False,
        verbose: bool = True,
    ) -> None:
        given = locals()
        io = self._take(given)
        self.sources = locations_of(_given(io.input_path, "input_path"), io.read_kwargs)
        self.output = Location.of(_given(io.output_path, "output_path"), storage_options_of(io.write_kwargs))
        self.plan_options, self.clips = PlanOptions.of(given), ClipOptions.of(given)
        if self.plan_options.algorithm == "scene":
            check_scenes()
        self.embedder = _spec(EmbedOptions.of(given)) if self.clips.generate_embeddings else None
        self.ledger = Ledger(self.output, split_kind(self.embedder.folder if self.embedder else ""))

    def parameters(self) -> dict[str, Any]:
        """What the result depends on beside the videos, as JSON values."""
        return {
            **self.plan_options.recorded(),
            **self.clips.recorded(),
            **({} if self._encodes else {"transcode_encoder": None}),
            **_step_parameters(self.embedder),
        }

    @property
    def _encodes(self) -> bool:
        return self.clips.upload_clips and self.plan_options.cut == "reencode"

    def settings(self, session: Session, scratch: Location) -> Settings:
        """What the workers have to know; the encoder is one that every worker can open."""
        encoder = ""
        if self._encodes:
            record = self.ledger.record
            earlier = None if record is None or self.clear_output else record["parameters"].get("transcode_encoder")
            wish = earlier if earlier and self.clips.transcode_encoder == "auto" else self.clips.transcode_encoder
            encoder = choose_encoder(wish, partial(usable_everywhere, session.client))
        return Settings(
            plan=self.plan_options,
            encoder=encoder,
            id_scheme=self.clips.clip_id_scheme,
            previews=self.clips.generate_previews,
            upload_clips=self.clips.upload_clips,
            limits=self.limits,
            steps=steps_with(self.embedder),
            inputs=self.sources[0],
            output=self.output,
            scratch=scratch,
        )

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        clips = {"clip files": str(self.output / CLIPS)} if self.clips.upload_clips else {}
        metas = {"metadata": str(self.output / METAS), "summary": str(self.output / SUMMARY)}
        return {**clips, **metas, **self._embeddings_path()}


@documented(VideoIOOptions, EmbedOptions)
class VideoEmbedWorkflow(_VideoWorkflow):
    """Clips that exist to embeddings: one for each file, whose name without ending is its id.

    `input_path` may be the output folder of a split: its clips are meant then. Where ``metas/v0`` stands beside
    ``clips``, spans and videos are taken from there. Without `output_path` the embeddings go to the folder of the
    split, or the input folder.
    """

    unit, unit_of_tasks, per_task = "clips", "tasks", CLIPS_PER_TASK

    def __init__(
        self,
        input_path: Paths,
        output_path: str | None = None,
        *,
        embedding_algorithm: Embedding = "dct3d",
        model_dir: str | None = None,
        trust_remote_code: bool = False,
        embedding_batch_size: int | None = None,
        limit: int = 0,
        limits: Limits | Mapping[str, Any] | None = None,
        read_kwargs: Mapping[str, Any] | None = None,
        write_kwargs: Mapping[str, Any] | None = None,
        clear_output: bool = False,
        verbose: bool = True,
    ) -> None:
        given = locals()
        io = self._take(given)
        folders = locations_of(_given(io.input_path, "input_path"), io.read_kwargs)
        self.sources = [path / CLIPS if (path / CLIPS).is_dir() else path for path in folders]
        self.embedder: EmbedderSpec = _spec(EmbedOptions.of(given))
        root = self.sources[0].parent if self.sources[0].name == CLIPS else folders[0]
        self.output = (
            root if io.output_path is None else Location.of(io.output_path, storage_options_of(io.write_kwargs))
        )
        self.ledger = Ledger(self.output, embed_kind(self.embedder.folder))

    def find(self) -> list[VideoFile]:
        """The clips of the input; their ids must differ."""
        return find_videos(self.sources, self.ledger.root / self.ledger.kind.folder, unique_stems=True)

    def parameters(self) -> dict[str, Any]:
        """What the result depends on beside the clips, as JSON values."""
        return _step_parameters(self.embedder)

    def settings(self, session: Session, scratch: Location) -> Settings:
        """What the workers have to know."""
        return Settings(
            plan=None,
            encoder="",
            id_scheme="semdedup",
            previews=False,
            upload_clips=False,
            limits=self.limits,
            steps=steps_with(self.embedder),
            inputs=self.sources[0],
            output=self.output,
            scratch=scratch,
        )

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        return self._embeddings_path()


@contextlib.contextmanager
def _ending_children(session: Session) -> Iterator[None]:
    """At the end of the block no worker has a process that decodes: the workers may be somebody's who goes on."""
    try:
        yield
    finally:
        if session.client.status == "running":
            session.client.run(end_children)


def _paths_of(batch: Sequence[VideoFile]) -> str:
    """What a task is at, for the error where its worker dies."""
    return ", ".join(video.relative_path for video in batch)


def _step_parameters(embedder: EmbedderSpec | None) -> dict[str, Any]:
    """What the results of the steps depend on, as parameters of a run; of the embedder: ``embedding_…``."""
    found = {f"{step.name}_{name}": value for step in STEPS.values() for name, value in step.identity().items()}
    if embedder is None:
        return {**found, "embedding_algorithm": None}
    return {**found, **{f"embedding_{name}": value for name, value in embedder.identity().items()}}


def usable_everywhere(client: distributed.Client, names: Iterable[str]) -> list[str]:
    """Those of the encoders that every worker can open."""
    found = list(client.run(encoders_here, tuple(names)).values())
    return [name for name in found[0] if all(name in others for others in found)]


def _spec(options: EmbedOptions) -> EmbedderSpec:
    algorithm = options.embedding_algorithm
    name, function = (CUSTOM, algorithm) if callable(algorithm) else (algorithm, None)
    spec = EmbedderSpec(name, options.model_dir, options.trust_remote_code, options.embedding_batch_size, function)
    spec.check()
    return spec


def _given(value: Any, name: str) -> Any:
    if not value:
        raise ParameterError(f"{name} is not given: name the folder")
    return value
