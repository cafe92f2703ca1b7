"""`VideoSplitWorkflow` and `VideoEmbedWorkflow`: their parameters, and what the workers have to know."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Unpack

import distributed

from semdedup.compute.session import Session
from semdedup.errors import ParameterError
from semdedup.runs.record import Record
from semdedup.settings import documented, needed
from semdedup.settings.choices import ClipIdScheme, ClipScore, Cut, SplittingAlgorithm, Tonemap, TranscodeEncoder
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import Location, Paths, locations_of, storage_options_of
from semdedup.video.base import VideoWorkflow
from semdedup.video.encode import choose_encoder
from semdedup.video.files import below
from semdedup.video.kinds import embed_kind, split_kind
from semdedup.video.of_clips import ClipWorkflow
from semdedup.video.options import (
    CaptionOptions,
    ClipOptions,
    DecodeOptions,
    Embeddings,
    EmbedOptions,
    Limits,
    PlanOptions,
    StepOptions,
    VideoIOOptions,
)
from semdedup.video.records import VideoFile
from semdedup.video.scenes import check_scenes
from semdedup.video.steps.caption.captioner import CaptionSpec
from semdedup.video.steps.embed.chosen import embedders_of
from semdedup.video.tree import CLIPS, METAS, SUMMARY
from semdedup.video.worker import Settings, encoders_here


@documented(VideoIOOptions, PlanOptions, DecodeOptions, ClipOptions, StepOptions, EmbedOptions, CaptionOptions)
class VideoSplitWorkflow(VideoWorkflow):
    """Videos to clips, their metadata, embeddings, captions if asked for, and a fingerprint track a video.

    A video is decoded once, by one process, which streams it: memory is bounded by the frames that its codec holds and
    the sampled frames of a batch of clips, whatever its length. Cost: decoding and encoding; all else is small beside.
    Of a video in a store each byte is fetched once, to the local disk, while the video is at work; `plan` fetches its
    head, and of MP4 the tables that tell of its frames.

    Each embedder writes a folder of its own. A clip that one of several fails on has the embeddings of the others.

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
        fixed_stride_min_clip_length_s: float | None = None,
        scene_min_length_s: float | None = None,
        scene_max_length_s: float = 60.0,
        cut: Cut = "reencode",
        transcode_encoder: TranscodeEncoder = "auto",
        clip_id_scheme: ClipIdScheme = "semdedup",
        limit_clips: int = 0,
        limit: int = 0,
        video_track: int | None = None,
        deinterlace: bool = False,
        tonemap: Tonemap | None = None,
        max_bad_frames: float = 0.05,
        upload_clips: bool = True,
        generate_previews: bool = False,
        generate_embeddings: bool = True,
        embedding_algorithm: Embeddings = "dct3d",
        model_dir: Paths | None = None,
        trust_remote_code: bool = False,
        embedding_batch_size: int | None = None,
        clip_scores: Sequence[ClipScore] = (),
        captioning_model: str | None = None,
        captioning_name: str | None = None,
        captioning_prompt: str | None = None,
        captioning_prompt_file: str | None = None,
        captioning_max_new_tokens: int = 512,
        captioning_window_size: int = 256,
        captioning_remainder_threshold: int = 128,
        captioning_sampling_fps: float = 2.0,
        captioning_short_side: int = 448,
        captioning_batch_size: int = 8,
        limits: Limits | Mapping[str, Any] | None = None,
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = {**locals(), **shared}
        self.io = io = VideoIOOptions.of(given)
        self.sources = locations_of(needed(io.input_path, "input_path"), io.read_kwargs)
        self.output = Location.of(needed(io.output_path, "output_path"), storage_options_of(io.write_kwargs))
        self.own = below(self.output)
        self.plan_options, self.clips = PlanOptions.of(given), ClipOptions.of(given)
        self.decode, self.step_options = DecodeOptions.of(given), StepOptions.of(given)
        _check_plan(self.plan_options, self.decode)
        self.embedders = embedders_of(EmbedOptions.of(given)) if self.clips.generate_embeddings else ()
        self.captioner = CaptionSpec.of(CaptionOptions.of(given))
        folders = [spec.folder for spec in self.embedders]
        self.kind = split_kind(folders, self.captioner.parquet_folder if self.captioner else "")

    def parameters(self, files: Sequence[VideoFile]) -> dict[str, Any]:
        """What the result depends on beside the videos, as JSON values."""
        return {
            **self.plan_options.recorded(),
            **self.decode.recorded(),
            **self.clips.recorded(),
            **({} if self._encodes else {"transcode_encoder": None}),
            **self.step_parameters(),
            **caption_parameters(self.captioner),
        }

    @property
    def _encodes(self) -> bool:
        return self.clips.upload_clips and self.plan_options.cut == "reencode"

    def settings(self, session: Session, files: Sequence[VideoFile]) -> Settings:
        """What the workers have to know; the encoder is one that every worker can open."""
        encoder = ""
        if self._encodes:
            record = Record(self.output).steps.get(self.kind.step)
            earlier = None if record is None or self.io.clear_output else record["parameters"].get("transcode_encoder")
            wish = earlier if earlier and self.clips.transcode_encoder == "auto" else self.clips.transcode_encoder
            encoder = choose_encoder(wish, partial(usable_everywhere, session.client))
        return Settings(
            plan=self.plan_options,
            encoder=encoder,
            id_scheme=self.clips.clip_id_scheme,
            previews=self.clips.generate_previews,
            upload_clips=self.clips.upload_clips,
            limits=self.limits,
            decode=self.decode,
            steps=self.steps,
            inputs=self.sources[0],
        )

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        clips = {"clip files": str(self.output / CLIPS)} if self.clips.upload_clips else {}
        metas = {"metadata": str(self.output / METAS), "summary": str(self.output / SUMMARY)}
        return {**clips, **metas, **self._embeddings_path(), **self._captions_path()}


@documented(VideoIOOptions, DecodeOptions, StepOptions, EmbedOptions)
class VideoEmbedWorkflow(ClipWorkflow):
    """Clips that exist to embeddings: one of each embedder for each file, and its fingerprint track.

    The id of a clip is the name of its file without ending where all of these differ. Where some are the same, as in
    data sets with one folder for each camera, ids are paths below the input folder, with ending. A folder of
    embeddings keeps the ids that it began with.

    `input_path` may be the output folder of a split: its clips are meant then. Where ``metas/v0`` is beside
    ``clips``, spans and videos are taken from there, and no tracks are written: they would be of parts of videos, whose
    own are in the output of the split. Of several runs with one output the first writes the tracks. Embedders that
    are given together decode each clip once, and stay together in this output. Without `output_path` the embeddings go
    to the folder of the split, or the input folder.
    """

    def __init__(
        self,
        input_path: Paths,
        output_path: str | None = None,
        *,
        embedding_algorithm: Embeddings = "dct3d",
        model_dir: Paths | None = None,
        trust_remote_code: bool = False,
        embedding_batch_size: int | None = None,
        clip_scores: Sequence[ClipScore] = (),
        limit: int = 0,
        video_track: int | None = None,
        deinterlace: bool = False,
        tonemap: Tonemap | None = None,
        max_bad_frames: float = 0.05,
        limits: Limits | Mapping[str, Any] | None = None,
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = {**locals(), **shared}
        self._place(given)
        self.embedders = embedders_of(EmbedOptions.of(given))
        self.captioner, self.step_options = None, StepOptions.of(given)
        of_split = any(path.name == CLIPS and (path.parent / METAS).is_dir() for path in self.sources)
        self.kind = embed_kind([spec.folder for spec in self.embedders], tracks=not of_split)

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        return self._embeddings_path()


def _check_plan(plan: PlanOptions, decode: DecodeOptions) -> None:
    """Refuse a plan whose package is not installed, and one that copies pictures that are to be changed."""
    if plan.algorithm == "scene":
        check_scenes()
    if plan.cut == "copy" and (decode.deinterlace or decode.tonemap):
        raise ParameterError(
            "deinterlace and tonemap change the picture, and cut='copy' (--cut copy) copies it as it is; "
            "leave them out, or let clips be encoded: cut='reencode'"
        )


def caption_parameters(captioner: CaptionSpec | None) -> dict[str, Any]:
    """What captions depend on, as parameters of a run: ``captioning_…``. Without captions there are none."""
    identity = {} if captioner is None else captioner.identity()
    return {f"captioning_{name.removeprefix('captioning_')}": value for name, value in identity.items()}


def usable_everywhere(client: distributed.Client, names: Iterable[str]) -> list[str]:
    """Those of the encoders that every worker can open."""
    found = list(client.run(encoders_here, tuple(names)).values())
    return [name for name in found[0] if all(name in others for others in found)]
