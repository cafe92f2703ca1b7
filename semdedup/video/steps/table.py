"""The steps that clips go through. Adding one takes a file of this folder and an entry here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from semdedup.video.steps.low_information import LowInformation
from semdedup.video.steps.motion import MOTION
from semdedup.video.steps.protocol import StepSpec
from semdedup.video.steps.sharpness import SHARPNESS

STEPS: dict[str, StepSpec] = {step.name: step for step in (LowInformation(),)}
"""By name, in the order in which clips go through them. The models of a run come last: its embedder, its captioner."""

SCORES: dict[str, StepSpec] = {step.name: step for step in (MOTION, SHARPNESS)}
"""Steps that go after these where they are chosen; each gives one number of its name."""


def steps_with(*models: StepSpec | None, scores: Iterable[str] = ()) -> tuple[StepSpec, ...]:
    """The steps of a run that computes these of `SCORES`, and has these models."""
    return (*STEPS.values(), *map(SCORES.__getitem__, scores), *(model for model in models if model is not None))


def columns_of(steps: Sequence[StepSpec]) -> dict[str, str]:
    """Columns beside the embeddings that steps declare, with their Arrow types."""
    return {name: kind for step in steps for name, kind in step.facts.items() if kind}


def counted() -> list[str]:
    """Facts that are counted for each video and in the summary."""
    return [name for step in STEPS.values() for name in step.counted]
