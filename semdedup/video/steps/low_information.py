"""Marks clips that show nothing, black or flat: their embeddings would be noise, which the dedup must not compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from semdedup.storage.tables import LOW_INFORMATION
from semdedup.video.steps.frames import Frames, shrink
from semdedup.video.steps.protocol import ClipInput, StepResult, Wants

FLAT_STD = 2.0
"""Grey levels of 255. Below this standard deviation a frame shows nothing that an embedding could go by."""

FLAT_SIDE = 32
"""Frames are averaged down to about this many pixels a side before, so that grain does not count as content."""


class LowInformation:
    """The step: `low_information` of whatever frames are sampled for the embedding."""

    name = LOW_INFORMATION
    wants = Wants(frames="any")
    batch_size = 1
    facts: Mapping[str, str] = MappingProxyType({LOW_INFORMATION: "bool"})  # a column that the dedup reads
    counted = (LOW_INFORMATION,)

    def identity(self) -> Mapping[str, object]:
        """Nothing that could be set."""
        return {}

    def load(self) -> LowInformation:
        """Itself."""
        return self

    def __call__(self, clips: Sequence[ClipInput]) -> list[StepResult]:
        """A fact of each clip."""
        return [
            StepResult({LOW_INFORMATION: clip.frames is not None and low_information(clip.frames)}) for clip in clips
        ]


def low_information(frames: Frames) -> bool:
    """Whether a clip is black or flat, so that its embedding would be noise.

    The measure is the standard deviation of the grey levels of each frame, averaged down to about 32 x 32 pixels: its
    mean over the frames stays below 2 of 255. Flat colours that fade into each other count as flat; a clip that is
    black but for an eighth of its time, in which it shows something, does not.

    Args:
        frames: (t, h, w, 3) uint8, RGB, sampled over the whole clip.
    """
    if not frames.size:
        return True
    height, width = (min(side, FLAT_SIDE) for side in frames.shape[1:3])
    return bool(shrink(frames, height, width).std(axis=(1, 2)).mean() < FLAT_STD)
