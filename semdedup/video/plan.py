"""The clip plan: which spans of a video become clips. Pure arithmetic.

Seconds count from the first frame of the video. A span holds the frames whose time is in ``[start_s, end_s)``::

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
    return _long_enough(spans, _least(min_length_s))


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


def without_gaps(spans: Sequence[Span], gaps_s: Sequence[tuple[float, float]], min_length_s: float) -> list[Span]:
    """The spans without what lies in gaps, in order; pieces of a span that was cut so go where they are too short.

    Gaps are in order and apart. Cost: a search in them for each span.

    >>> without_gaps([Span(0, 10), Span(10, 20)], [(3.0, 16.0)], 2)
    [Span(start_s=0, end_s=3.0), Span(start_s=16.0, end_s=20)]
    """
    least_s, ends = _least(min_length_s), [end for _, end in gaps_s]
    found: list[Span] = []
    for span in spans:
        start_s, is_cut = span.start_s, False
        for gap_start, gap_end in itertools.islice(gaps_s, bisect_right(ends, span.start_s), None):
            if gap_start >= span.end_s:
                break
            found += _long_enough([Span(start_s, round(gap_start, DIGITS))], least_s)
            start_s, is_cut = round(gap_end, DIGITS), True
        found += _long_enough([Span(start_s, span.end_s)], least_s) if is_cut else [span]
    return found


def _least(min_length_s: float) -> float:
    """The length that a span must have: rounding may take a microsecond."""
    return max(min_length_s - 10**-DIGITS, 10**-DIGITS)


def _long_enough(spans: Sequence[Span], least_s: float) -> list[Span]:
    return [span for span in spans if span.duration_s >= least_s]


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
