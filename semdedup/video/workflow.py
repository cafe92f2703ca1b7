"""`VideoSplitWorkflow` and `VideoEmbedWorkflow`: their parameters, and what the workers have to know."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import distributed

from semdedup.compute.session import Session
from semdedup.errors import ParameterError
from semdedup.runs.record import Record
from semdedup.storage.location import Location, Paths, locations_of, storage_options_of
from semdedup.video.base import VideoWorkflow
from semdedup.video.clip_ids import SCHEMES
from semdedup.video.encode import choose_encoder, preferred
from semdedup.video.files import find_videos
from semdedup.video.plan import PlanOptions
from semdedup.video.probe import Limits
from semdedup.video.records import VideoFile
from semdedup.video.scenes import check_scenes
from semdedup.video.steps.embed.providers import CUSTOM, EmbedderSpec
from semdedup.video.steps.table import STEPS, steps_with
from semdedup.video.tree import CLIPS, METAS, SUMMARY
from semdedup.video.video_table import embed_kind, split_kind, stamped_by_split
from semdedup.video.worker import Settings, encoders_here

CLIPS_PER_TASK = 32
"""Clips that exist and are only embedded go to the workers in so many a task, so that a model gets whole batches."""

Embedding = str | Callable[[Any], Any]
"""The name of an embedder, or a function of a clip's frames (t, h, w, 3) uint8 that gives (d,) float32."""


class VideoSplitWorkflow(VideoWorkflow):
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
        take_over: go on in place of a run that seems to be at work in the output path.
        verify: read the files of what is complete already, and compare their checksums.

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
        splitting_algorithm: str = "fixed_stride",
        fixed_stride_split_duration: float = 10.0,
        fixed_stride_stride_s: float | None = None,
        fixed_stride_min_clip_length_s: float = 2.0,
        scene_min_length_s: float = 2.0,
        scene_max_length_s: float = 60.0,
        cut: str = "reencode",
        transcode_encoder: str = "auto",
        clip_id_scheme: str = "semdedup",
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
        take_over: bool = False,
        verify: bool = False,
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
        self.take_over, self.verify = take_over, verify
        self.kind = split_kind(self.embedder.folder if self.embedder else "")

    def parameters(self) -> dict[str, Any]:
        """What the result depends on beside the videos, as JSON values."""
        return {
            **self.plan_options.told(),
            "transcode_encoder": self.transcode_encoder if self._encodes else None,
            "clip_id_scheme": self.clip_id_scheme,
            "upload_clips": self.upload_clips,
            "generate_previews": self.generate_previews,
            **_step_parameters(self.embedder),
        }

    @property
    def _encodes(self) -> bool:
        return self.upload_clips and self.plan_options.cut == "reencode"

    def settings(self, session: Session) -> Settings:
        """What the workers have to know; the encoder is one that every worker can open."""
        encoder = ""
        if self._encodes:
            record = Record(self.output).steps.get(self.kind.step)
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
            steps=steps_with(self.embedder),
            inputs=self.sources[0],
        )

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        clips = {"clip files": str(self.output / CLIPS)} if self.upload_clips else {}
        metas = {"metadata": str(self.output / METAS), "summary": str(self.output / SUMMARY)}
        return {**clips, **metas, **self._embeddings_path()}


class VideoEmbedWorkflow(VideoWorkflow):
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
        take_over: go on in place of a run that seems to be at work in the output path.
        verify: read the files of what is complete already, and compare their checksums.
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
        take_over: bool = False,
        verify: bool = False,
    ) -> None:
        given = _given(locations_of(input_path, read_kwargs), "input_path")
        self.sources = [path / CLIPS if (path / CLIPS).is_dir() else path for path in given]
        self.embedder: EmbedderSpec = _spec(embedding_algorithm, model_dir, trust_remote_code, embedding_batch_size)
        root = self.sources[0].parent if self.sources[0].name == CLIPS else given[0]
        self.output = root if output_path is None else Location.of(output_path, storage_options_of(write_kwargs))
        self.limits, self.limit = limits or Limits(), _limit(limit)
        self.clear_output, self.verbose = clear_output, verbose
        self.take_over, self.verify = take_over, verify
        self.kind = embed_kind(self.embedder.folder)

    def find(self) -> list[VideoFile]:
        """The clips of the input; their ids must differ."""
        files = find_videos(self.sources, self.output / self.kind.folder, unique_stems=True)
        folder = self.sources[0]
        return list(stamped_by_split(folder.parent, files)) if folder.name == CLIPS else files

    def parameters(self) -> dict[str, Any]:
        """What the result depends on beside the clips, as JSON values."""
        return _step_parameters(self.embedder)

    def settings(self, session: Session) -> Settings:
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
        )

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        return self._embeddings_path()


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
