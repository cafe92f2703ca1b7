"""What captions clips: which model is meant, and the step itself, loaded and ready."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from semdedup.errors import ClusterError, InputError, ParameterError
from semdedup.extras import pip_install
from semdedup.runs.places import CAPTIONS_ENDING
from semdedup.video.options import CAPTIONER_NAME, CaptionOptions
from semdedup.video.quarantine import CAPTION_ERROR, NO_WINDOW
from semdedup.video.steps.caption.shots import Failure, Shot
from semdedup.video.steps.caption.windows import (
    LEAST_FRAMES,
    MOST_WINDOWS,
    WINDOWS,
    Window,
    caption_name,
    frames_of,
    plan_windows,
)
from semdedup.video.steps.embed.model_folder import check_folder, check_local, digest_of, state_of
from semdedup.video.steps.embed.own_names import code_in
from semdedup.video.steps.protocol import ClipInput, Sampling, StepResult, Wants

if TYPE_CHECKING:
    from semdedup.video.steps.caption.models import CaptionModel

PACKAGES = ("torch", "torchvision", "transformers", "safetensors")
"""What the extra ``captions`` brings, and every model needs."""

DECIDING = (".json", ".jinja", ".txt", ".model", ".safetensors")
"""Endings of the files that decide about the captions: settings, template, vocabulary, weights."""

DEFAULT_PROMPT = (
    "Describe what this video shows: its subjects, what they do, the place, and how the camera moves. "
    "Write one paragraph of plain sentences, and say nothing that cannot be seen."
)

MOST_FRAMES = 128
"""Frames of a clip that are looked at, of longer clips fewer a second: they are in memory together."""

SHORTEST_S = 1e-3
MOST_PROMPT = 1 << 16
"""Bytes of a prompt."""

HELD = 2
"""Models that a process keeps, for runs that alternate."""


@dataclass(frozen=True)
class CaptionSpec:
    """Which captions are meant. It is small, and travels to the workers, which load the model.

    Attributes:
        options: as given, with a model.
        prompt: what the model is asked.
        backend: ``auto`` takes a GPU where torch sees one; ``cpu``; ``gpu``.
    """

    options: CaptionOptions
    prompt: str
    backend: Literal["auto", "cpu", "gpu"] = "auto"
    name: ClassVar[str] = "caption"
    facts: ClassVar[Mapping[str, str]] = MappingProxyType({WINDOWS: ""})
    counted: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def of(cls, options: CaptionOptions) -> CaptionSpec | None:
        """What options mean, checked; None where they name no model. Nothing is imported or loaded.

        Raises:
            ParameterError: no usable name or prompt, packages are missing, or the model brings code of its own.
            InputError: the folder is absent or holds no model that can be loaded; or the prompt's file cannot be read.
        """
        if options.model is None:
            return None
        if "://" not in options.model:
            options = replace(options, model=os.path.abspath(options.model))  # a worker may be in another folder
        prompt = options.prompt or (DEFAULT_PROMPT if options.prompt_file is None else read_prompt(options.prompt_file))
        spec = cls(options, prompt)
        spec.check()
        return spec

    @property
    def folder(self) -> Path:
        """The folder of the model."""
        return Path(self.options.model or "")

    @property
    def model(self) -> str:
        """What the model is called in files: as given, or as its folder."""
        return self.options.name or os.path.basename(os.path.abspath(self.folder)).lower()

    @property
    def parquet_folder(self) -> str:
        """Name of the folder of the Parquet files of its captions."""
        return f"{self.model}{CAPTIONS_ENDING}"

    def check(self) -> None:
        """Refuse what cannot work; see `of`."""
        missing = [name for name in PACKAGES if find_spec(name) is None]
        if missing:
            raise ParameterError(f"captioning_model needs {', '.join(missing)}: {pip_install('captions')}")
        if int(version("transformers").partition(".")[0]) < 5:
            raise ParameterError(
                f"captioning_model needs transformers 5; here is {version('transformers')}: " + pip_install("captions")
            )
        check_local(self.options.model or "", "captioning_model")
        if not re.fullmatch(CAPTIONER_NAME, self.model):
            raise ParameterError(
                f"the captions need a name of letters, digits, '.', '_' and '-'; that of the folder is {self.model!r}: "
                "give one as captioning_name (--captioning-name)"
            )
        check_folder(self.folder, "captioning_model")
        if code_in(self.folder):
            raise ParameterError(
                f"the model in {self.folder} brings Python code of its own, which is not run for captions; those work "
                "that transformers has itself: Qwen2.5-VL, Qwen3-VL, SmolVLM2 and their like"
            )

    def identity(self) -> dict[str, Any]:
        """Values of JSON that the captions depend on. Time: that of reading the weights once."""
        held = self.options.recorded()
        return {**held, "name": self.model, "prompt": self.prompt, "model_sha256": digest_of(self.folder, self._state)}

    @property
    def _state(self) -> tuple[tuple[str, int, int], ...]:
        return state_of(self.folder, DECIDING)

    def load(self) -> Captioner:
        """The step, with a model that is loaded once in a process, while its files are the same."""
        with _loading:
            self.check()
            key = (self.folder, self.backend, self._state)
            if key not in _loaded:
                try:
                    from semdedup.video.steps.caption.models import load_caption_model
                except (ImportError, RuntimeError) as error:
                    raise ClusterError(
                        f"torch, torchvision and transformers do not work together on {socket.gethostname()}: {error}. "
                        f"Install them from one index: {pip_install('captions')}"
                    ) from error

                while len(_loaded) >= HELD:
                    del _loaded[next(iter(_loaded))]
                _loaded[key] = load_caption_model(self.folder, self.backend)
            return Captioner(self, _loaded[key])


_loaded: dict[tuple, CaptionModel] = {}
_loading = threading.Lock()


def read_prompt(path: str) -> str:
    """The prompt that a file holds. Raises `InputError` where it holds none."""
    try:
        with open(path, "rb") as file:
            content = file.read(MOST_PROMPT + 1)
        text = content.decode("utf-8-sig").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"captioning_prompt_file: {path} cannot be read as text: {error}") from error
    if not text or len(content) > MOST_PROMPT:
        found = "no text" if not text else f"more than {MOST_PROMPT:,} bytes"
        raise InputError(f"captioning_prompt_file: {path} holds {found}; needed: the prompt, in UTF-8")
    return text


@dataclass(frozen=True)
class Captioner:
    """The step: captions of the windows of clips.

    Attributes:
        spec: which captions.
        loaded: the model.
    """

    spec: CaptionSpec
    loaded: CaptionModel
    name: ClassVar[str] = CaptionSpec.name

    @property
    def wants(self) -> Wants:
        """Frames of each clip, so many a second."""
        options = self.spec.options
        return Wants(Sampling(MOST_FRAMES, None, options.short_side, per_second=options.sampling_fps))

    @property
    def batch_size(self) -> int:
        """Clips at a time."""
        return self.spec.options.batch_size

    def __call__(self, clips: Sequence[ClipInput]) -> list[StepResult]:
        """The windows of each clip with their captions. A clip of which one window fails has none, and a fault."""
        options = self.spec.options
        cut = [self._cut(clip) for clip in clips]
        shots = [shot for _, found in cut for shot in found]
        said: list[str | Failure] = []
        for start in range(0, len(shots), options.batch_size):
            batch = shots[start : start + options.batch_size]
            said += self.loaded.describe(batch, self.spec.prompt, options.max_new_tokens)
        results = []
        for clip, (windows, _) in zip(clips, cut, strict=True):
            results.append(self._result(clip, windows, said[: len(windows)]))
            said = said[len(windows) :]
        return results

    def _cut(self, clip: ClipInput) -> tuple[list[Window], list[Shot]]:
        """The windows of a clip, and what the model sees of each; none where there are too many."""
        assert clip.frames is not None
        options, n_frames, n_samples = self.spec.options, clip.facts["n_frames"], len(clip.frames)
        windows = plan_windows(n_frames, options.window_size, options.remainder_threshold)
        if not n_samples or len(windows) > MOST_WINDOWS:
            return [], []
        rate = n_samples / max(clip.facts["duration_s"], SHORTEST_S)
        return windows, [Shot(clip.frames[frames_of(window, n_frames, n_samples)], rate) for window in windows]

    def _result(self, clip: ClipInput, windows: Sequence[Window], said: Sequence[str | Failure]) -> StepResult:
        reason, fault, found, name = CAPTION_ERROR, "", [], caption_name(self.spec.model)
        if not windows:
            n_frames, reason = clip.facts["n_frames"], NO_WINDOW
            fault = f"{n_frames:,} frames, where {LEAST_FRAMES} are needed, in at most {MOST_WINDOWS} windows"
        for window, text in zip(windows, said, strict=True):
            if isinstance(text, Failure) or not text:
                why = text.why if isinstance(text, Failure) else "the model gave no text"
                fault = fault or f"frames {window.start} to {window.end}: {why}"
            else:
                found.append({"start_frame": window.start, "end_frame": window.end, name: text})
        return StepResult({WINDOWS: []}, fault=(reason, fault)) if fault else StepResult({WINDOWS: found})
