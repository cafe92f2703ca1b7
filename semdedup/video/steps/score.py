"""A step that gives a clip one number, measured on the luma of some of its frames."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from semdedup.video.bars import Box, content_box, line_levels
from semdedup.video.steps.frames import averaged
from semdedup.video.steps.protocol import ClipInput, Sampling, StepResult, Wants

DIGITS = 6
"""Digits that are kept."""

SEEN_SIDE = 64
"""Pixels a side in which black bars are looked for."""


@dataclass(frozen=True)
class Score:
    """The step. Its fact is null of a clip that gives no frames.

    Attributes:
        name: of the step, its fact, and the column beside the embeddings.
        sampling: frames that it looks at, of luma.
        measure: what they come to: a function of (t, h, w) uint8.
        version: numbers of different versions do not stand in one folder.
    """

    name: str
    sampling: Sampling
    measure: Callable[[np.ndarray], float]
    version: int = 1
    batch_size: ClassVar[int] = 1
    counted: ClassVar[tuple[str, ...]] = ()

    @property
    def wants(self) -> Wants:
        """Frames of each clip."""
        return Wants(self.sampling)

    @property
    def facts(self) -> Mapping[str, str]:
        """The number."""
        return {self.name: "double"}

    def identity(self) -> Mapping[str, object]:
        """The version."""
        return {"version": self.version}

    def load(self) -> Score:
        """Itself."""
        return self

    def __call__(self, clips: Sequence[ClipInput]) -> list[StepResult]:
        """The number of each clip."""
        return [StepResult({self.name: self._of(clip.frames)}) for clip in clips]

    def _of(self, frames: np.ndarray | None) -> float | None:
        return None if frames is None or not frames.size else float(f"{self.measure(frames):.{DIGITS}g}")


def content_of(frames: np.ndarray) -> Box:
    """Where the content is between black bars, in frames (t, h, w) of luma that are at least 64 pixels a side."""
    height, width = (min(side, SEEN_SIDE) for side in frames.shape[1:])
    small = averaged(frames, height, width)
    return content_box(line_levels(small), height, width)
