"""The clip plan: which spans of a video become clips. Pure arithmetic.

Seconds count from the first frame of the video. A span holds the frames whose time lies in ``[start_s, end_s)``::

    duration 25 s, clips of 10 s every 10 s, at least 2 s long          the same every 5 s, at least 8 s long

    0         10        20   25                                         0    5    10   15   20   25
    ├─────────┼─────────┼────┤                                          ├─────────┤
                                                                             ├─────────┤
                                                                                  ├─────────┤ …
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from semdedup.errors import ParameterError

ALGORITHMS = ("fixed_stride", "scene")
CUTS = ("reencode", "copy")

DIGITS = 6
"""Spans are kept to the microsecond: sums of floats would otherwise make ids that differ in the last bit."""


@dataclass(frozen=True)
class Span:
    """A stretch of a video, in seconds from its first frame; the end is not part of it."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Its length in seconds."""
        return round(self.end_s - self.start_s, DIGITS)


@dataclass(frozen=True)
class PlanOptions:
    """How videos are cut into clips.

    Attributes:
        algorithm: ``fixed_stride``, or ``scene`` for clips between cuts.
        duration_s: length of the clips of ``fixed_stride``.
        stride_s: from the start of one such clip to the start of the next; None: the duration, so that they touch.
        min_length_s: shorter clips are left out; they can only occur at the end of a video.
        scene_min_length_s: shorter scenes are left out.
        scene_max_length_s: longer scenes are cut into pieces of this length.
        cut: ``reencode``, exact to the frame, or ``copy``, at key frames and without loss.
        limit_clips: most clips of one video, from its start; 0: all.
    """

    algorithm: str = "fixed_stride"
    duration_s: float = 10.0
    stride_s: float | None = None
    min_length_s: float = 2.0
    scene_min_length_s: float = 2.0
    scene_max_length_s: float = 60.0
    cut: str = "reencode"
    limit_clips: int = 0

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ParameterError(f"splitting_algorithm must be one of {', '.join(ALGORITHMS)}; got {self.algorithm!r}")
        if self.cut not in CUTS:
            raise ParameterError(f"cut must be one of {', '.join(CUTS)}; got {self.cut!r}")
        lengths = {
            "fixed_stride_split_duration": self.duration_s,
            "fixed_stride_stride_s": self.stride,
            "scene_max_length_s": self.scene_max_length_s,
        }
        for name, value in lengths.items():
            if not (0.001 <= value < math.inf):
                raise ParameterError(f"{name} must be at least a millisecond, and finite; got {value}")
        for name, value, most in (
            ("fixed_stride_min_clip_length_s", self.min_length_s, self.duration_s),
            ("scene_min_length_s", self.scene_min_length_s, self.scene_max_length_s),
        ):
            if not 0 <= value <= most:
                raise ParameterError(f"{name} must lie between 0 and the length of the clips, {most}; got {value}")
        if self.limit_clips < 0:
            raise ParameterError(f"limit_clips must be 0 (no limit) or more; got {self.limit_clips}")

    def told(self) -> dict[str, Any]:
        """The options that make a difference, by the names that users give them, as JSON values."""
        if self.algorithm == "scene":
            lengths = {"scene_min_length_s": self.scene_min_length_s, "scene_max_length_s": self.scene_max_length_s}
        else:
            lengths = {
                "fixed_stride_split_duration": self.duration_s,
                "fixed_stride_stride_s": self.stride,
                "fixed_stride_min_clip_length_s": self.min_length_s,
            }
        return {
            "splitting_algorithm": self.algorithm,
            **{name: float(value) for name, value in lengths.items()},
            "cut": self.cut,
            "limit_clips": self.limit_clips,
        }

    @property
    def stride(self) -> float:
        """The stride in seconds."""
        return self.duration_s if self.stride_s is None else self.stride_s

    def spans(self, duration_s: float, cuts_s: Sequence[float] = ()) -> list[Span]:
        """The plan of a video that is so long and has cuts at these moments (for ``scene``)."""
        if self.algorithm == "scene":
            planned = scenes(duration_s, cuts_s, self.scene_min_length_s, self.scene_max_length_s)
        else:
            planned = fixed_stride(duration_s, self.duration_s, self.stride, self.min_length_s)
        return planned[: self.limit_clips] if self.limit_clips else planned


def fixed_stride(
    duration_s: float, clip_s: float, stride_s: float, min_length_s: float, start_s: float = 0.0
) -> list[Span]:
    """Spans of `clip_s` seconds, one every `stride_s`; those at the end are as long as the video lets them be.

    Spans shorter than `min_length_s` are left out. Multiples are computed, not sums, so that no rounding adds up.

    >>> fixed_stride(23.5, 10, 10, 2)
    [Span(start_s=0.0, end_s=10.0), Span(start_s=10.0, end_s=20.0), Span(start_s=20.0, end_s=23.5)]
    >>> fixed_stride(21.5, 10, 10, 2)
    [Span(start_s=0.0, end_s=10.0), Span(start_s=10.0, end_s=20.0)]
    """
    duration_s, clip_s, stride_s = float(duration_s), float(clip_s), float(stride_s)  # NumPy's would spread to the ids
    video_end_s = round(start_s + duration_s, DIGITS)
    spans = []
    for i in range(math.ceil(duration_s / stride_s)):
        start = round(start_s + i * stride_s, DIGITS)
        end = round(start_s + (i + clip_s / stride_s) * stride_s, DIGITS)  # where they touch: the next start, exactly
        if start < video_end_s:
            spans.append(Span(start, min(end, video_end_s)))
    least_s = max(min_length_s - 10**-DIGITS, 10**-DIGITS)  # rounding may take a microsecond
    return [span for span in spans if span.duration_s >= least_s]


def scenes(duration_s: float, cuts_s: Sequence[float], min_length_s: float, max_length_s: float) -> list[Span]:
    """Spans between cuts; those longer than `max_length_s` are cut by stride, what is shorter than the minimum goes.

    >>> scenes(30, [4, 5], 2, 15)
    [Span(start_s=0.0, end_s=4.0), Span(start_s=5.0, end_s=20.0), Span(start_s=20.0, end_s=30.0)]
    """
    inside = sorted({round(float(cut), DIGITS) for cut in cuts_s if 0 < cut < duration_s})
    marks = [0.0, *inside, round(float(duration_s), DIGITS)]
    return [
        span
        for start, end in itertools.pairwise(marks)
        for span in fixed_stride(round(end - start, DIGITS), max_length_s, max_length_s, min_length_s, start)
    ]


def at_keyframes(spans: Sequence[Span], keyframes_s: Sequence[float], duration_s: float) -> list[Span]:
    """The spans that a cut without decoding can give: each edge moves back to the last key frame at or before it.

    Touching spans still touch; spans between the same two key frames vanish. The end of the video stays an edge.
    """
    keys = sorted(keyframes_s)

    def back(moment: float) -> float:
        position = bisect_right(keys, moment + 0.5 * 10**-DIGITS)
        return keys[position - 1] if position else keys[0]

    end_of_video = round(duration_s, DIGITS)
    moved = [Span(back(s.start_s), s.end_s if s.end_s >= end_of_video else back(s.end_s)) for s in spans]
    return [span for span in dict.fromkeys(moved) if span.start_s < span.end_s]
