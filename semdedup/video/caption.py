"""`VideoCaptionWorkflow`: captions of clips that exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

from semdedup.errors import ParameterError
from semdedup.settings import documented
from semdedup.settings.choices import Tonemap
from semdedup.settings.shared import SharedKeywords
from semdedup.storage.location import Paths
from semdedup.video.kinds import caption_kind
from semdedup.video.of_clips import ClipWorkflow
from semdedup.video.options import CaptionOptions, DecodeOptions, Limits, VideoIOOptions
from semdedup.video.result import SplitResult
from semdedup.video.steps.caption.captioner import CaptionSpec
from semdedup.video.steps.protocol import StepSpec
from semdedup.video.tree import METAS
from semdedup.video.workflow import caption_parameters

ANOTHER_CAPTIONER = (
    "Captions of another model, or by another prompt, go beside those there under a name of their own: "
    "captioning_name (--captioning-name)."
)


@dataclass(frozen=True, repr=False)
class CaptionResult(SplitResult):
    """Counts over all clips, and what this run added; see `SplitResult`, whose videos are clips here."""

    @property
    def captioned(self) -> int:
        """Clips with captions."""
        return self.counts.n_captioned

    @property
    def windows(self) -> int:
        """Captions of all clips: one a window."""
        return self.counts.n_captions

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that is known."""
        seconds, failed = self.seconds.get("total", 0.0), {**self.quarantined, **self.quarantined_clips}
        return [
            ("clips", f"{len(self.videos):,}"),
            ("  captioned", f"{self.captioned:,}"),
            ("  failed", f"{sum(failed.values()):,}"),
            *((f"    {reason}", f"{count:,}") for reason, count in failed.items()),
            ("windows", f"{self.windows:,}"),
            *([("clips with malformed metadata", f"{self.malformed_metadata:,}")] if self.malformed_metadata else []),
            ("processed by this run", f"{self.processed:,}"),
            *([("left for another run", f"{self.left_out:,}")] if self.left_out else []),
            *((f"{step} seconds", f"{time:.1f}") for step, time in self.seconds.items()),
            *([("speed", f"{self.processed / seconds:.2f} clips a second")] if self.processed and seconds else []),
            *self.paths.items(),
        ]


@documented(VideoIOOptions, DecodeOptions, CaptionOptions)
class VideoCaptionWorkflow(ClipWorkflow):
    """Clips that exist to captions of their windows, by a vision-language model from a local folder.

    `input_path` is the output folder of a split, its folder ``clips``, the root of a run, or any folder of clips; ids
    are as `VideoEmbedWorkflow` makes them. Captions go into the windows of ``metas/v0/{id}.json``, as the peers write
    them, and as rows into ``{name}_caption_parquet/`` (``id``, ``start_frame``, ``end_frame``, ``caption``,
    ``model``). What other models said stays: each has a name of its own, by default that of its folder. Decoding of
    text is greedy, so that the same clip has the same caption in every run on one kind of machine.

    A clip that fails, at any of its windows, is in the quarantine of this step and is a clip like others everywhere
    else. The next run tries it again (``caption_error``), unless it has no window (``no_window``: less than 4 frames,
    or more than 128 windows); clips with captions are left alone.

    Cost: each clip is decoded once; the model reads `captioning_sampling_fps` frames a second. Memory of a worker: the
    model, which its threads share, and the frames of a batch of clips, 1 MB each at the default size.

    Example:
        >>> VideoCaptionWorkflow("clips/", captioning_model="models/Qwen2.5-VL-7B-Instruct").run()
    """

    result, hint = CaptionResult, ANOTHER_CAPTIONER
    without_meta = "their captions are in the Parquet files alone"

    def __init__(
        self,
        input_path: Paths,
        output_path: str | None = None,
        *,
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
        self.embedders = ()
        found = CaptionSpec.of(CaptionOptions.of(given))
        if found is None:
            raise ParameterError("captioning_model is not given: name the local folder of a vision-language model")
        self.captioner: CaptionSpec = found
        self.per_task = self.captioner.options.batch_size
        self.kind = caption_kind(self.captioner.parquet_folder)

    @property
    def steps(self) -> tuple[StepSpec, ...]:
        """What every clip goes through: nothing but the model."""
        return (self.captioner,)

    def step_parameters(self) -> dict[str, Any]:
        """What captions depend on, as parameters of a run."""
        return caption_parameters(self.captioner)

    def paths(self) -> dict[str, str]:
        """Where the results are, by what they are."""
        return {**self._captions_path(), "metadata": str(self.output / METAS)}
