"""Clips go through the steps of a run one after the other, in batches of the size that each step likes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from semdedup.errors import ParameterError
from semdedup.video.job import Wanted
from semdedup.video.quarantine import EMBED_ERROR, ClipFault
from semdedup.video.steps.protocol import ClipInput, ClipStep, Sampling, StepResult

NOTHING = np.empty(0, dtype=np.uint8)


@dataclass
class Clip:
    """A clip on its way: what is known of it, and what the steps look at until the last is done with it.

    Attributes:
        facts: JSON values.
        samples: frames for each sampling of `Wanted`.
        sounds: samples of sound for each rate of `Wanted`.
        vectors: its embeddings, by the names of the embedders.
        rejected: why it is left out of the result; empty: it is not.
        faults: reason and detail of each step that failed on it, and its name.
    """

    facts: dict[str, Any]
    samples: tuple[np.ndarray, ...] = ()
    sounds: tuple[np.ndarray, ...] = ()
    vectors: dict[str, np.ndarray] = field(default_factory=dict)
    rejected: str = ""
    faults: list[tuple[str, str, str]] = field(default_factory=list)


class StepChain:
    """Passes clips through steps in their order. A clip that a step rejects goes to no other.

    A step that fails on a clip costs it the result of this step.

    Attributes:
        wanted: what the clips must bring along.
    """

    def __init__(self, steps: Sequence[ClipStep]) -> None:
        samplings = [step.wants.frames for step in steps if isinstance(step.wants.frames, Sampling)]
        rates = [step.wants.sound_hz for step in steps if step.wants.sound_hz is not None]
        self.wanted = Wanted(tuple(dict.fromkeys(samplings)), tuple(dict.fromkeys(rates)))
        self._any = next((sampling for sampling in samplings if not sampling.luma), None)
        self._steps = [step for step in steps if step.wants.frames != "any" or self._any]
        looked_at = [self._any if step.wants.frames == "any" else step.wants.frames for step in self._steps]
        self._last = [max(i for i, one in enumerate(looked_at) if one == wish) for wish in self.wanted.samplings]
        self._waiting: list[list[Clip]] = [[] for _ in self._steps]

    def add(self, clip: Clip) -> None:
        """Take the next clip. What it wants is kept until a batch is full."""
        self._pass_on(clip, 0)

    def finish(self) -> None:
        """Run the batches that are not full: there are no more clips."""
        for position in range(len(self._steps)):
            self._run(position)

    def _pass_on(self, clip: Clip, position: int) -> None:
        if clip.rejected or position == len(self._steps):
            clip.samples = clip.sounds = ()
            return
        if clip.samples:  # a clip may wait for long, and not with what no step looks at any more
            samples = zip(clip.samples, self._last, strict=True)
            clip.samples = tuple(frames if position <= last else NOTHING for frames, last in samples)
        self._waiting[position].append(clip)
        if len(self._waiting[position]) >= self._steps[position].batch_size:
            self._run(position)

    def _run(self, position: int) -> None:
        step, clips = self._steps[position], self._waiting[position]
        self._waiting[position] = []
        if not clips:
            return
        results = _results(step, [self._input(step, clip) for clip in clips])
        for clip, result in zip(clips, results, strict=True):
            _take(clip, step.name, result)
            self._pass_on(clip, position + 1)

    def _input(self, step: ClipStep, clip: Clip) -> ClipInput:
        wants, frames, sound = step.wants, None, None
        sampling = self._any if wants.frames == "any" else wants.frames
        if sampling is not None:
            frames = clip.samples[self.wanted.samplings.index(sampling)]
        if wants.sound_hz is not None:
            sound = clip.sounds[self.wanted.sound_rates_hz.index(wants.sound_hz)]
        return ClipInput(clip.facts, frames, sound)


def _results(step: ClipStep, clips: Sequence[ClipInput]) -> Sequence[StepResult]:
    """What a step gives for clips: together, or where it fails on them each by itself."""
    try:
        results = step(clips)
    except ClipFault as fault:
        if len(clips) == 1:
            return [StepResult(fault=(fault.reason, fault.detail))]
    else:
        if len(results) != len(clips):
            raise ParameterError(f"{type(step).__name__} gave {len(results)} results for {len(clips)} clips")
        return results
    # Here the error is gone, and with it what it held: the memory of a GPU, say.
    return [result for clip in clips for result in _results(step, [clip])]


def set_other_lengths_aside(clips: Sequence[Clip]) -> None:
    """Take their embedding from clips where it is not as long as most: those of one embedder have one length."""
    for name in dict.fromkeys(name for clip in clips for name in clip.vectors):
        lengths = Counter(len(clip.vectors[name]) for clip in clips if name in clip.vectors)
        usual = max(lengths, key=lambda length: lengths[length])
        for clip in clips:
            if name in clip.vectors and len(clip.vectors[name]) != usual:
                found = len(clip.vectors.pop(name))
                detail = f"the embedding of {name} has {found} elements where most have {usual}"
                clip.faults.append((EMBED_ERROR, detail, name))


def _take(clip: Clip, step: str, result: StepResult) -> None:
    if result.fault is not None:
        clip.faults.append((*result.fault, step))
    clip.facts.update(result.facts)
    clip.rejected = result.rejected
    if result.vector is not None:
        clip.vectors[step] = result.vector
