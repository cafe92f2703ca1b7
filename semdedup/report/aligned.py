"""Two videos above each other so that what they share is aligned: bars, times and pictures, ready for the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from semdedup.display import clock
from semdedup.report.overlaps import Overlap, OverlapSurvey, Stretch

WIDTH = 1000.0
"""Units across a drawing."""

NARROWEST = 5.0
"""Units of a mark: a second of a film of two hours can be seen, too."""

N_MOMENTS = 5


@dataclass(frozen=True)
class Bar:
    """Where a video is drawn, and the stretch in it: left edges and widths, in units."""

    x: float
    width: float
    mark_x: float
    mark_width: float

    @property
    def mark_end(self) -> float:
        """The right edge of the mark."""
        return self.mark_x + self.mark_width


@dataclass(frozen=True)
class AlignedVideos:
    """The section of overlaps.

    Attributes:
        survey: counts, and some of the longest.
        figures: what the template shows of each overlap that is shown.
        pictures: of the moments of a and of b, of one overlap after the other; empty text where there is none.
    """

    survey: OverlapSurvey
    figures: Sequence[Mapping[str, Any]]
    pictures: Sequence[Sequence[str]]

    @property
    def n_bytes(self) -> int:
        """Of all pictures, as they are embedded."""
        return sum(len(picture) for strip in self.pictures for picture in strip)

    def notes(self) -> list[str]:
        """Sentences that say what is not shown."""
        if not self.figures:
            return []
        shown = f"{len(self.figures):,} of {self.survey.overlaps:,} overlaps"
        notes = [f"{shown}, the longest of each worse-ranked video first"]
        moments = [picture for strip in self.pictures for picture in strip]
        if self.n_bytes and (absent := moments.count("")):
            notes.append(
                f"{len(moments) - absent:,} of {len(moments):,} frames of overlaps: of the others no clip and no video "
                "could be read, or they were left out to keep the page small"
            )
        return notes


def bars(overlap: Overlap, duration_a_s: float, duration_b_s: float) -> tuple[Bar, Bar]:
    """The bars of both videos on one time scale, shifted so that the middles of the stretches are above each other.

    Where both are one video nothing is shifted.

    >>> a, b = bars(Overlap("a", 10, 20, "b", 0, 10, 1.0, 0.9), 40, 20)
    >>> a, b.x
    (Bar(x=0.0, width=1000.0, mark_x=250.0, mark_width=250.0), 250.0)
    """
    middle_a, middle_b = (overlap.start_a_s + overlap.end_a_s) / 2, (overlap.start_b_s + overlap.end_b_s) / 2
    if overlap.video_a == overlap.video_b:
        middle_b = middle_a
    before = max(middle_a, middle_b)
    unit = WIDTH / max(1e-9, before + max(duration_a_s - middle_a, duration_b_s - middle_b))

    def bar(middle_s: float, duration_s: float, start_s: float, end_s: float) -> Bar:
        x, width = (before - middle_s) * unit, (end_s - start_s) * unit
        mark_x, mark_width = x + start_s * unit, max(NARROWEST, width)
        mark_x = min(max(0.0, mark_x + (width - mark_width) / 2), WIDTH - mark_width)
        return Bar(x, duration_s * unit, mark_x, mark_width)

    return (
        bar(middle_a, duration_a_s, overlap.start_a_s, overlap.end_a_s),
        bar(middle_b, duration_b_s, overlap.start_b_s, overlap.end_b_s),
    )


def align(survey: OverlapSurvey, durations: Mapping[str, float], pictures: Sequence[Sequence[str]]) -> AlignedVideos:
    """The section of overlaps.

    Args:
        survey: of the overlaps.
        durations: seconds of the videos of which that is known.
        pictures: of the moments of a and of b, of one overlap after the other.
    """
    ends = dict(durations)
    for overlap in survey.shown:
        for video, _, end_s in overlap.sides:
            ends[video] = max(ends.get(video, 0.0), end_s)
    figures = []
    for overlap, pictures_a, pictures_b in zip(survey.shown, pictures[::2], pictures[1::2], strict=True):
        a, b = overlap.sides
        bar_a, bar_b = bars(overlap, ends[a.video], ends[b.video])
        moments_a, moments_b = zip(*overlap.moments(N_MOMENTS), strict=True)
        speed = f"{100 * overlap.speed:.1f}".removesuffix(".0")
        figures.append(
            {
                "one_video": a.video == b.video,
                "seconds": clock(overlap.seconds),
                "score": overlap.score,
                "speed": "" if speed == "100" else speed,
                "mirrored": overlap.mirrored,
                "sides": (
                    _side(a, durations, bar_a, list(zip(moments_a, pictures_a, strict=True))),
                    _side(b, durations, bar_b, list(zip(moments_b, pictures_b, strict=True))),
                ),
            }
        )
    return AlignedVideos(survey, figures, pictures)


def _side(
    stretch: Stretch, durations: Mapping[str, float], bar: Bar, moments: Sequence[tuple[float, str]]
) -> dict[str, Any]:
    return {
        "video": stretch.video,
        "start": clock(stretch.start_s),
        "end": clock(stretch.end_s),
        "duration": clock(durations[stretch.video]) if durations.get(stretch.video) else "",
        "bar": bar,
        "moments": [(clock(moment), picture) for moment, picture in moments],
    }
