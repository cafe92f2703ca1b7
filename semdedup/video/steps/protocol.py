"""The protocol of a step on a clip: what it wants of a clip, and what it gives.

A step is a file of this folder and an entry of `table.STEPS`. Reading, cutting and writing know no step by name.
Imports nothing but NumPy: the process that decodes imports it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np


@dataclass(frozen=True)
class Sampling:
    """Frames of a clip, at the middles of as many equal parts of it.

    Attributes:
        n_frames: how many; with a rate the most.
        size: (height, width) that they are scaled to; None keeps their aspect.
        short_side: most pixels of the shorter side where the aspect is kept.
        luma: whether they are luma alone, (t, h, w) of all values, and not RGB.
        enlarged: whether the shorter side is as many pixels also of a smaller picture.
        pair_s: seconds from each to another one, which follows it: frames are twice as many then, and each two of them
            lie around the middle of a part. Of a clip that is shorter they are its first and its last picture.
        per_second: their rate; None: there are as many of any clip.
    """

    n_frames: int
    size: tuple[int, int] | None
    short_side: int
    luma: bool = False
    enlarged: bool = False
    pair_s: float = 0.0
    per_second: float | None = None

    def n_of(self, duration_s: float) -> int:
        """How many there are of a clip that is so long.

        >>> Sampling(128, None, 448, per_second=2.0).n_of(10.0)
        20
        """
        if self.per_second is None:
            return self.n_frames
        return min(self.n_frames, max(1, round(duration_s * self.per_second)))


@dataclass(frozen=True)
class Wants:
    """What a step wants of a clip, beside its facts.

    Attributes:
        frames: frames that are sampled for it. ``any``: those in colour that another step asks for; where none does,
            the step is left out.
        sound_hz: rate of the samples of its sound, mono; None: no sound.
    """

    frames: Sampling | Literal["any"] | None = None
    sound_hz: int | None = None


@dataclass(frozen=True)
class ClipInput:
    """What a step gets of a clip.

    Attributes:
        facts: what is known of it, with what earlier steps gave.
        frames: (t, h, w, 3) uint8, RGB, or (t, h, w) luma, where the step wants frames.
        sound: (n,) float32, mono, where the step wants sound; empty where the clip has none.
    """

    facts: Mapping[str, Any]
    frames: np.ndarray | None = None
    sound: np.ndarray | None = None


@dataclass(frozen=True)
class StepResult:
    """What a step gives for a clip.

    Attributes:
        facts: JSON values for the names that the step declares; they go into the metadata of the clip.
        vector: (d,) float32: the embedding. It is kept by the name of the step: embedders give it.
        rejected: why the clip is left out of the result; empty: it is not.
        fault: why there is nothing of the above, as reason and detail of a `ClipFault`; None: there is.
    """

    facts: Mapping[str, Any] = field(default_factory=dict)
    vector: np.ndarray | None = None
    rejected: str = ""
    fault: tuple[str, str] | None = None


class ClipStep(Protocol):
    """A step that is loaded and ready. It is called with up to `batch_size` clips, from several threads."""

    @property
    def name(self) -> str:
        """Name of the step."""

    @property
    def wants(self) -> Wants:
        """What it wants of each clip."""

    @property
    def batch_size(self) -> int:
        """Clips that it likes to get at a time."""

    def __call__(self, clips: Sequence[ClipInput], /) -> Sequence[StepResult]:
        """Look at clips; one result for each.

        Raises:
            ClipFault: what is wrong with some of them. Each is tried by itself then; one that fails by itself goes on
                without the result of this step, and into quarantine. Whatever else is raised ends the run.
        """


class StepSpec(Protocol):
    """Says which step is meant. It is small, and travels to the workers, which load it."""

    @property
    def name(self) -> str:
        """Name of the step."""

    @property
    def facts(self) -> Mapping[str, str]:
        """Names of the facts that it gives, with the Arrow type of their column beside the embeddings.

        Where that is empty the fact is in the metadata of the clip alone.
        """

    @property
    def counted(self) -> Sequence[str]:
        """Those of its facts that are true or false, and are counted for each video and in the summary."""

    def identity(self) -> Mapping[str, Any]:
        """JSON values that its results depend on; they belong to the parameters of a run."""

    def load(self) -> ClipStep:
        """The step itself, ready to be called."""
