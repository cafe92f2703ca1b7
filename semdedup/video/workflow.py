"""`VideoSplitWorkflow`: a folder of videos to clips and embeddings. `VideoEmbedWorkflow`: clips to embeddings."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import distributed

from semdedup.choices import ClipIdScheme, Cut, SplittingAlgorithm, TranscodeEncoder
from semdedup.compute.progress import Reporter
from semdedup.compute.session import ClusterOptions, Session, open_session
from semdedup.display import one_line
from semdedup.errors import IntegrityError, ParameterError
from semdedup.runs.record import FILE_NAME, fingerprint
from semdedup.storage.location import FileInfo, Location, Paths, locations_of, storage_options_of
from semdedup.video.child import end_children
from semdedup.video.clip_ids import SCHEMES
from semdedup.video.cut import PlannedVideo
from semdedup.video.encode import choose_encoder, preferred
from semdedup.video.files import find_videos
from semdedup.video.ledger import Ledger, embed_kind, split_kind
from semdedup.video.plan import PlanOptions
from semdedup.video.probe import Limits
from semdedup.video.records import VideoFile
from semdedup.video.result import SplitResult
from semdedup.video.scenes import check_scenes
from semdedup.video.steps.embed.providers import CUSTOM, EmbedderSpec
from semdedup.video.tree import CLIPS, METAS, SUMMARY
from semdedup.video.worker import Settings, encoders_here, plan_videos, process_videos

CLIPS_PER_TASK = 32
"""Clips that exist and are only embedded go to the workers in so many a task, so that a model gets whole batches."""

ANOTHER_EMBEDDER = "Another embedder needs no other clips: semdedup embed."

Embedding = str | Callable[[Any], Any]
"""The name of an embedder, or a function of a clip's frames (t, h, w, 3) uint8 that gives (d,) float32."""


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

    def parameters(self) -> dict[str, Any]:
        """What the result depends on beside the videos, as JSON values."""
        raise NotImplementedError

    def settings(self, session: Session, scratch: Location) -> Settings:
        """What the workers have to know."""
        raise NotImplementedError

    def paths(self) -> dict[str, str]:
        """What is told of where things stand."""
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
            plans = dict(session.run("plan", partial(plan_videos, settings), batches, unit=self.unit))
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
        if settings.embedder is not None and cluster is not None and cluster.backend == "cpu":
            return replace(settings, embedder=replace(settings.embedder, backend="cpu"))
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
        for _, found in session.run(ledger.kind.step, work, batches, unit=self.unit_of_tasks):
            notes |= {note["video"]: note for note in found}
        if len(notes) != len(todo):
            raise IntegrityError(f"{len(todo)} videos went in, {len(notes)} came out")
        name, eps = ("", None) if self.embedder is None else (self.embedder.name, self.embedder.recommended_eps)
        ledger.commit(session, notes, name, eps)
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


class VideoSplitWorkflow(_VideoWorkflow):
    """Videos to clips, their metadata, and one embedding a clip.

    A video is decoded once, by one process, which streams it: memory is bounded by the frames that its codec holds and
    the sampled frames of a batch of clips, whatever its length. Cost: decoding and encoding; all else is small beside.

    Args:
        input_path: a folder of videos (searched at any depth), a file, a pattern, or a list; alias ``video_dir``.
        output_path: folder for clips, metadata and embeddings; alias ``output_clip_path``.
        splitting_algorithm: ``fixed_stride`` or ``scene`` (needs the extra ``scenes``).
        fixed_stride_split_duration: seconds of a clip.
        fixed_stride_stride_s: seconds from one start to the next; None: the duration.
        fixed_stride_min_clip_length_s: a shorter clip, at the end of a video, is left out.
        scene_min_length_s: shorter scenes are left out.
        scene_max_length_s: longer scenes are cut by stride.
        cut: ``reencode``, exact to the frame; ``copy``, without loss, at key frames: the true span is recorded.
        transcode_encoder: ``auto``, ``libx264``, ``libopenh264``, ``h264_nvenc``, ``libvpx-vp9`` or ``libsvtav1``.
        clip_id_scheme: ``semdedup``, or ``nemo`` and ``cosmos`` for the ids that those programs make.
        limit_clips: most clips of one video; 0: all.
        limit: most videos that this run processes; 0: all.
        upload_clips: whether clips are written.
        generate_previews: whether an animated WebP is written beside each clip.
        generate_embeddings: whether clips are embedded.
        embedding_algorithm: ``dct3d``, ``cosmos-embed1-224p`` (``336p``, ``448p``), ``internvideo2``, ``hf``, or a
            function ``frames (t, h, w, 3) uint8 -> (d,) float32``.
        model_dir: folder of the model.
        trust_remote_code: whether Python code that comes with a model may run.
        embedding_batch_size: clips that a model embeds at a time.
        limits: what one video may cost.
        read_kwargs: ``storage_options`` of the input.
        write_kwargs: ``storage_options`` of the output.
        clear_output: first delete what an earlier split wrote there, and nothing else.
        verbose: show progress.

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
        limits: Limits | None = None,
        read_kwargs: Mapping[str, Any] | None = None,
        write_kwargs: Mapping[str, Any] | None = None,
        clear_output: bool = False,
        verbose: bool = True,
    ) -> None:
        self.sources = _given(locations_of(input_path or video_dir, read_kwargs), "input_path")
        self.output = Location.of(
            _given(output_path or output_clip_path, "output_path"), storage_options_of(write_kwargs)
        )
        self.plan_options = PlanOptions(
            splitting_algorithm,
            fixed_stride_split_duration,
            fixed_stride_stride_s,
            fixed_stride_min_clip_length_s,
            scene_min_length_s,
            scene_max_length_s,
            cut,
            limit_clips,
        )
        if splitting_algorithm == "scene":
            check_scenes()
        preferred(transcode_encoder)
        if clip_id_scheme not in SCHEMES:
            raise ParameterError(f"clip_id_scheme must be one of {', '.join(SCHEMES)}; got {clip_id_scheme!r}")
        self.embedder = None
        if generate_embeddings:
            self.embedder = _spec(embedding_algorithm, model_dir, trust_remote_code, embedding_batch_size)
        self.transcode_encoder, self.clip_id_scheme = transcode_encoder, clip_id_scheme
        self.upload_clips, self.generate_previews = upload_clips, generate_previews
        self.limits, self.limit = limits or Limits(), _limit(limit)
        self.clear_output, self.verbose = clear_output, verbose
        self.ledger = Ledger(self.output, split_kind(self.embedder.folder if self.embedder else ""))

    def parameters(self) -> dict[str, Any]:
        """What the result depends on beside the videos, as JSON values."""
        return {
            **self.plan_options.told(),
            "transcode_encoder": self.transcode_encoder if self._encodes else None,
            "clip_id_scheme": self.clip_id_scheme,
            "upload_clips": self.upload_clips,
            "generate_previews": self.generate_previews,
            **_told(self.embedder),
        }

    @property
    def _encodes(self) -> bool:
        return self.upload_clips and self.plan_options.cut == "reencode"

    def settings(self, session: Session, scratch: Location) -> Settings:
        """What the workers have to know; the encoder is one that every worker can open."""
        encoder = ""
        if self._encodes:
            record = self.ledger.record
            earlier = None if record is None or self.clear_output else record["parameters"].get("transcode_encoder")
            wish = earlier if earlier and self.transcode_encoder == "auto" else self.transcode_encoder
            encoder = choose_encoder(wish, partial(usable_everywhere, session.client))
        return Settings(
            plan=self.plan_options,
            encoder=encoder,
            id_scheme=self.clip_id_scheme,
            previews=self.generate_previews,
            upload_clips=self.upload_clips,
            limits=self.limits,
            embedder=self.embedder,
            inputs=self.sources[0],
            output=self.output,
            scratch=scratch,
        )

    def paths(self) -> dict[str, str]:
        """What is told of where things stand."""
        clips = {"clip files": str(self.output / CLIPS)} if self.upload_clips else {}
        metas = {"metadata": str(self.output / METAS), "summary": str(self.output / SUMMARY)}
        return {**clips, **metas, **self._embeddings_path()}


class VideoEmbedWorkflow(_VideoWorkflow):
    """Clips that exist to embeddings: one for each file, whose name without ending is its id.

    Args:
        input_path: a folder of clips, a file, a pattern, or a list. The output folder of a split may be given: its
            clips are meant then. Where ``metas/v0`` stands beside ``clips``, spans and videos are taken from there.
        output_path: folder for the embeddings; None: that of the split, or the input folder.
        embedding_algorithm: as for `VideoSplitWorkflow`.
        model_dir: folder of the model.
        trust_remote_code: whether Python code that comes with a model may run.
        embedding_batch_size: clips that a model embeds at a time.
        limit: most clips that this run embeds; 0: all.
        limits: what one clip may cost.
        read_kwargs: ``storage_options`` of the input.
        write_kwargs: ``storage_options`` of the output.
        clear_output: first delete what an earlier run of this wrote there, and nothing else.
        verbose: show progress.
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
        limits: Limits | None = None,
        read_kwargs: Mapping[str, Any] | None = None,
        write_kwargs: Mapping[str, Any] | None = None,
        clear_output: bool = False,
        verbose: bool = True,
    ) -> None:
        given = _given(locations_of(input_path, read_kwargs), "input_path")
        self.sources = [path / CLIPS if (path / CLIPS).is_dir() else path for path in given]
        self.embedder: EmbedderSpec = _spec(embedding_algorithm, model_dir, trust_remote_code, embedding_batch_size)
        root = self.sources[0].parent if self.sources[0].name == CLIPS else given[0]
        self.output = root if output_path is None else Location.of(output_path, storage_options_of(write_kwargs))
        self.limits, self.limit = limits or Limits(), _limit(limit)
        self.clear_output, self.verbose = clear_output, verbose
        self.ledger = Ledger(self.output, embed_kind(self.embedder.folder))

    def find(self) -> list[VideoFile]:
        """The clips of the input; their ids must differ."""
        return find_videos(self.sources, self.ledger.root / self.ledger.kind.folder, unique_stems=True)

    def parameters(self) -> dict[str, Any]:
        """What the result depends on beside the clips, as JSON values."""
        return _told(self.embedder)

    def settings(self, session: Session, scratch: Location) -> Settings:
        """What the workers have to know."""
        return Settings(
            plan=None,
            encoder="",
            id_scheme="semdedup",
            previews=False,
            upload_clips=False,
            limits=self.limits,
            embedder=self.embedder,
            inputs=self.sources[0],
            output=self.output,
            scratch=scratch,
        )

    def paths(self) -> dict[str, str]:
        """What is told of where things stand."""
        return self._embeddings_path()


@contextlib.contextmanager
def _ending_children(session: Session) -> Iterator[None]:
    """At the end of the block no worker has a process that decodes: the workers may be somebody's who goes on."""
    try:
        yield
    finally:
        if session.client.status == "running":
            session.client.run(end_children)


def _told(embedder: EmbedderSpec | None) -> dict[str, Any]:
    """The embedder among the parameters of a run."""
    if embedder is None:
        return {"embedding_algorithm": None}
    return {f"embedding_{name}": value for name, value in embedder.identity().items()}


def usable_everywhere(client: distributed.Client, names: Iterable[str]) -> list[str]:
    """Those of the encoders that every worker can open."""
    found = list(client.run(encoders_here, tuple(names)).values())
    return [name for name in found[0] if all(name in others for others in found)]


def _spec(algorithm: Embedding, model_dir: str | None, trust_remote_code: bool, batch_size: int | None) -> EmbedderSpec:
    function = algorithm if callable(algorithm) else None
    name = CUSTOM if callable(algorithm) else algorithm
    spec = EmbedderSpec(name, model_dir, trust_remote_code, batch_size, function)
    spec.check()
    return spec


def _given(value: Any, name: str) -> Any:
    if not value:
        raise ParameterError(f"{name} is not given: name the folder")
    return value


def _limit(limit: int | None) -> int:
    if limit is not None and limit < 0:
        raise ParameterError(f"limit must be 0 (no limit) or more; got {limit}")
    return limit or 0
