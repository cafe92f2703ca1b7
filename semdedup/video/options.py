"""The settings of split and embed, each declared here and nowhere else."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, get_args

from semdedup.errors import ParameterError
from semdedup.settings import INPUT, OUTPUT, Kind, Options, setting
from semdedup.settings.choices import ClipIdScheme, ClipScore, Cut, SplittingAlgorithm, Tonemap, TranscodeEncoder
from semdedup.settings.kinds import choice, grouped, n_bytes, number, path, paths, several, text, truth, whole
from semdedup.settings.shared import NO_PART, SharedOptions
from semdedup.storage.kwargs import STORAGE, kwargs_setting
from semdedup.video.plan import Span, fixed_stride, scenes, without_gaps

ENCODERS, SCHEMES, SCORES = get_args(TranscodeEncoder), get_args(ClipIdScheme), get_args(ClipScore)

if TYPE_CHECKING:
    from semdedup.storage.location import Paths

LENGTH = number(0.001)
SHORTEST_S = 2.0
"""Seconds of the shortest clip where nothing else is said and clips may be so long."""
LATER = "what it leaves out is done by the next run"

Embedding = str | Callable[[Any], Any]
"""The name of an embedder, or a function of a clip's frames (t, h, w, 3) uint8 that gives (d,) float32."""

Embeddings = Embedding | Sequence[Embedding]
"""One or several of these; each writes a folder of its own."""


@dataclass(frozen=True)
class PlanOptions(Options):
    """How videos are cut into clips."""

    algorithm: str = setting(
        "fixed_stride",
        choice(*get_args(SplittingAlgorithm)),
        "Clips of one length, or between cuts (needs the extra scenes).",
        name="splitting_algorithm",
    )
    duration_s: float = setting(10.0, LENGTH, "Seconds of a clip.", name="fixed_stride_split_duration")
    stride_s: float | None = setting(
        None, LENGTH, "Seconds from one start to the next; the duration by default.", name="fixed_stride_stride_s"
    )
    min_length_s: float | None = setting(
        None,
        number(0),
        f"A shorter clip, at the end of a video, is left out; {SHORTEST_S:g} s by default, or the duration if less.",
        name="fixed_stride_min_clip_length_s",
    )
    scene_min_length_s: float | None = setting(
        None, number(0), f"Shorter scenes are left out; {SHORTEST_S:g} s by default, or the longest if less."
    )
    scene_max_length_s: float = setting(60.0, LENGTH, "Longer scenes are cut into pieces of this length.")
    cut: str = setting("reencode", choice(*get_args(Cut)), "Exact to the frame, or without loss at key frames.")
    limit_clips: int = setting(0, whole(0), "Most clips of each video, from its start; 0: all.")

    def check_together(self) -> None:
        """No clip can be as long as the shortest that is kept where that is longer than all."""
        for name, value, most in (
            ("fixed_stride_min_clip_length_s", self.min_length, self.duration_s),
            ("scene_min_length_s", self.scene_min_length, self.scene_max_length_s),
        ):
            if value > most:
                raise ParameterError(f"{name} must lie in [0, {most:g}], the length of the clips; got {value!r}")

    def recorded(self) -> dict[str, Any]:
        """The settings that make a difference, by name."""
        found = super().recorded() | {
            "fixed_stride_stride_s": self.stride,
            "fixed_stride_min_clip_length_s": self.min_length,
            "scene_min_length_s": self.scene_min_length,
        }
        unused = "fixed_stride_" if self.algorithm == "scene" else "scene_"
        return {name: value for name, value in found.items() if not name.startswith(unused)}

    @property
    def stride(self) -> float:
        """The stride in seconds."""
        return self.duration_s if self.stride_s is None else self.stride_s

    @property
    def min_length(self) -> float:
        """The least length of a clip in seconds."""
        return min(SHORTEST_S, self.duration_s) if self.min_length_s is None else self.min_length_s

    @property
    def scene_min_length(self) -> float:
        """The least length of a scene in seconds."""
        return min(SHORTEST_S, self.scene_max_length_s) if self.scene_min_length_s is None else self.scene_min_length_s

    def most_spans(self, duration_s: float) -> int:
        """More clips than this a video of this length cannot have, but for cuts between scenes."""
        return math.ceil(duration_s / (self.scene_max_length_s if self.algorithm == "scene" else self.stride))

    def spans(
        self, duration_s: float, cuts_s: Sequence[float] = (), gaps_s: Sequence[tuple[float, float]] = ()
    ) -> list[Span]:
        """The plan of a video that is so long, with cuts at these moments (for ``scene``) and without these gaps."""
        if self.algorithm == "scene":
            least_s = self.scene_min_length
            planned = scenes(duration_s, cuts_s, least_s, self.scene_max_length_s)
        else:
            least_s = self.min_length
            planned = fixed_stride(duration_s, self.duration_s, self.stride, least_s)
        planned = without_gaps(planned, gaps_s, least_s)
        return planned[: self.limit_clips] if self.limit_clips else planned


@dataclass(frozen=True)
class Limits(Options):
    """What one video may cost."""

    heading: ClassVar[str] = "What one video may cost"

    max_pixels: int = setting(64_000_000, whole(1), "Most pixels of a frame; 8K has 33 million.")
    max_frames: int = setting(10_000_000, whole(1), "Most frames of a video; ten million are 92 hours at 30 a second.")
    max_duration_s: float = setting(
        86_400.0, LENGTH, "Longest video, in seconds; a day. One odd time stamp makes a small file longer."
    )
    max_clips: int = setting(100_000, whole(1), "Most clips of a video; a day in clips of a second has 86,400.")
    max_frame_s: float = setting(
        60.0, LENGTH, "Seconds for which a frame may stand; no clip is cut from what follows until the next frame."
    )
    timeout_s: float = setting(
        120.0,
        number(0, open_below=True),
        "Seconds without progress after which a video is given up.",
        flags=["--video-timeout"],
    )
    max_memory: int = setting(
        4 << 30,
        n_bytes(1 << 20),
        "Most memory that the process decoding a video may take, as in 4GiB; 8K takes 2 with x264 and 6 with AV1.",
    )


@dataclass(frozen=True)
class DecodeOptions(Options):
    """How the picture of a video is read."""

    heading: ClassVar[str] = INPUT

    video_track: int | None = setting(
        None, whole(0), "Which video track, from 0; by default the largest, as FFmpeg chooses."
    )
    deinterlace: bool = setting(False, truth(), "Make whole frames of the fields of interlaced video.")
    tonemap: str | None = setting(
        None,
        choice(*get_args(Tonemap)),
        "Map high dynamic range (PQ, HLG) to BT.709; by default it stays.",
    )
    max_bad_frames: float = setting(
        0.05, number(0, 1), "Share of a video's frames that may be undecodable; they are skipped and counted."
    )

    def recorded(self) -> dict[str, Any]:
        """The settings that differ from the default, so that a folder from before there were any goes on."""
        usual = Options.recorded(DecodeOptions())
        return {name: value for name, value in super().recorded().items() if value != usual[name]}


@dataclass(frozen=True)
class ClipOptions(Options):
    """What is written of each clip."""

    heading: ClassVar[str] = OUTPUT

    transcode_encoder: str = setting("auto", choice(*ENCODERS), "Encoder of the clips; auto takes the best that opens.")
    clip_id_scheme: str = setting(
        "semdedup", choice(*SCHEMES), "Ids that stay when the folder moves, or as the peers make them."
    )
    upload_clips: bool = setting(True, truth(), "Write clips as MP4 files.", flags=["--no-upload-clips"])
    generate_previews: bool = setting(False, truth(), "Write an animated WebP for each clip.")
    generate_embeddings: bool = setting(
        True, truth(), "Embed clips.", flags=["--no-generate-embeddings"], unrecorded="the embedder is, or none"
    )


def _scores() -> Kind:
    given = several(f"be some of {', '.join(SCORES)}", choice(*SCORES))
    return replace(given, plain=lambda value: tuple(sorted(set(given.plain(value)), key=SCORES.index)))


@dataclass(frozen=True)
class StepOptions(Options):
    """What is measured of each clip."""

    clip_scores: tuple[ClipScore, ...] = setting(
        (),
        _scores(),
        "Numbers to measure of each clip, columns beside its embedding and in its metadata; none by default.",
    )

    def recorded(self) -> dict[str, Any]:
        """The scores, where any are chosen, so that a folder from before there were any goes on."""
        return {name: value for name, value in super().recorded().items() if value}


def _embedding(value: Any) -> Any:
    if not callable(value) and (not isinstance(value, str) or not value):
        raise TypeError
    return value


def _embeddings() -> Kind:
    item = Kind("", _embedding, metavar="NAME")
    given = several("be one of the embedders or several, or in Python functions", item)

    def plain(value: Any) -> tuple[Embedding, ...]:
        found = given.plain([value] if callable(value) else value)
        if not found:
            raise ValueError
        return found

    return replace(given, plain=plain)


@dataclass(frozen=True)
class EmbedOptions(Options):
    """How clips are embedded. Which embedders there are, `embedders_of` checks."""

    embedding_algorithm: tuple[Embedding, ...] = setting(
        "dct3d", _embeddings(), "Embedders of the clips, one or several; each writes a folder of its own."
    )
    model_dir: Paths | None = setting(
        None,
        paths(),
        "Folder of the model, or of several models in the order of the embedders; nothing is ever downloaded.",
    )
    trust_remote_code: bool = setting(False, truth(), "Run Python code that comes with the model.")
    embedding_batch_size: int | None = setting(None, whole(1), "Clips that a model embeds at a time.")


CAPTIONER_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}"
"""What a model that captions may be called: a part of names of folders and fields."""


@dataclass(frozen=True)
class CaptionOptions(Options):
    """How clips are captioned. What the folder of the model must hold, `CaptionSpec` checks."""

    model: str | None = setting(
        None,
        path(),
        "Local folder of a vision-language model, whose captions are written; nothing is ever downloaded.",
        name="captioning_model",
        unrecorded="a digest of the model is",
    )
    name: str | None = setting(
        None,
        text("be letters, digits, '.', '_' and '-'", CAPTIONER_NAME),
        "What the model is called in files, NAME_caption; by default as its folder.",
        name="captioning_name",
        unrecorded="the name of the model is, also where it is that of the folder",
    )
    prompt: str | None = setting(
        None,
        text("be text that is not empty"),
        "What the model is asked of each window; by default what it shows.",
        name="captioning_prompt",
        flags=["--captioning-prompt", "--prompt", "--captioning-prompt-text"],
        unrecorded="the prompt is, also where it comes from a file",
    )
    prompt_file: str | None = setting(
        None,
        path(),
        "Text file with the prompt.",
        name="captioning_prompt_file",
        flags=["--captioning-prompt-file", "--prompt-file"],
        unrecorded="the prompt is",
    )
    max_new_tokens: int = setting(
        512,
        whole(1),
        "Most tokens of a caption.",
        name="captioning_max_new_tokens",
        flags=["--captioning-max-new-tokens", "--max-new-tokens", "--captioning-max-output-tokens"],
    )
    window_size: int = setting(
        256, whole(4), "Frames of a window, each of which has a caption.", name="captioning_window_size"
    )
    remainder_threshold: int = setting(
        128,
        whole(0),
        "Frames that make what is left at the end of a clip a window of its own; of fewer the last is longer.",
        name="captioning_remainder_threshold",
    )
    sampling_fps: float = setting(
        2.0, number(0.001), "Frames a second that the model sees.", name="captioning_sampling_fps"
    )
    short_side: int = setting(
        448,
        whole(16),
        "Most pixels of the shorter side of these frames; the model may scale them further.",
        name="captioning_short_side",
    )
    batch_size: int = setting(
        8, whole(1), "Windows that the model captions at a time.", name="captioning_batch_size", unrecorded=NO_PART
    )

    def check_together(self) -> None:
        """There is one prompt."""
        if self.prompt is not None and self.prompt_file is not None:
            raise ParameterError("captioning_prompt and captioning_prompt_file are both given; give one of them")


@dataclass(frozen=True)
class VideoIOOptions(SharedOptions):
    """Where to read and write, how much at a time, and what one video may cost."""

    input_path: Paths | None = setting(
        None,
        paths(),
        "Folder, searched at any depth, file or glob; or several.",
        aliases=["video_dir"],
        flags=["--video-dir", "--input-video-path"],
        heading=INPUT,
    )
    output_path: str | None = setting(
        None,
        path(),
        "Folder for results, local or s3://.",
        aliases=["output_clip_path"],
        flags=["--output-clip-path", "--output-path"],
    )
    limits: Limits | None = setting(None, grouped(Limits, "limits"), "What one video may cost.", unrecorded=NO_PART)
    limit: int = setting(
        0, whole(0), "Most videos (embed: clips) that this run processes; 0: all.", unrecorded=LATER, heading=INPUT
    )
    read_kwargs: dict[str, Any] | None = kwargs_setting(STORAGE, "storage_options of the input.")
    write_kwargs: dict[str, Any] | None = kwargs_setting(STORAGE, "storage_options of the output.")
