"""Which clips go by overlap. Pure functions of arrays.

A moment of a clip counts as shown where an overlap maps it to a moment of a better-ranked video, or of its own video
before the clip begins, that lies in a clip. A clip goes where enough of its moments are shown.

Where a video repeats itself again and again, an overlap maps some moments into the clip itself. These are mapped once
more, until they are before it: a clip is never shown by itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from semdedup.overlaps.match import Stretches

NEARLY_S = 1e-6
"""Seconds that are rounding: times are decimal fractions, and their sums are not."""

PAIRS_AT_A_TIME = 1 << 18
"""Overlaps, each with a clip, that are looked at together."""


class Spans(NamedTuple):
    """Parts of videos, (n,) each: rank of the video int64, start and end float64; in the order of these three."""

    video: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray


class Gone(NamedTuple):
    """Clips that go, (m,) each: which of the clips, the rank of the video that shows most of it, and where there."""

    clip: np.ndarray
    video: np.ndarray
    start_s: np.ndarray
    end_s: np.ndarray


class Coverage:
    """How much of each of some clips is shown, as overlaps are added. The order in which they are added matters for
    nothing but ties: of two overlaps that show the same amount, the one that was added first is told.

    Args:
        clips: in the order of rank, start, end.

    Memory: 80 bytes a clip, 32 bytes for each stretch that is shown without a gap, and `PAIRS_AT_A_TIME` pairs.
    """

    def __init__(self, clips: Spans) -> None:
        self.clips = clips
        self._latest = _running_max(clips.end_s, clips.video)
        self._shown = Spans(np.empty(0, np.int64), np.empty(0), np.empty(0))
        n = len(clips.video)
        self._most, self._by = np.zeros(n), np.full(n, -1, dtype=np.int64)
        self._start, self._end = np.zeros(n), np.zeros(n)

    def add(self, overlaps: Stretches, clips: Spans) -> None:
        """Add overlaps, whose videos are ranks, with the clips that exist of their better-ranked videos."""
        existing = joined(clips)
        longest = float(np.max(self.clips.end_s - self.clips.start_s, initial=0))
        overlaps, floors = _repeated(overlaps, longest)
        first = _count(self.clips.video, self._latest, overlaps.b, overlaps.start_b_s, or_equal=True)
        last = _count(self.clips.video, self.clips.start_s, overlaps.b, overlaps.end_b_s, or_equal=False)
        ends = np.cumsum(np.maximum(last - first, 0))
        start = 0
        while start < len(ends):
            held = ends[start - 1] if start else 0
            stop = max(start + 1, int(np.searchsorted(ends, held + PAIRS_AT_A_TIME, side="right")))
            part = slice(start, stop)
            self._add(_taken(overlaps, part), _taken(floors, part), first[part], last[part], existing)
            start = stop

    def _add(
        self, overlaps: Stretches, floors: Stretches, first: np.ndarray, last: np.ndarray, existing: Spans
    ) -> None:
        of, clip = _ranges(first, last)
        low = np.maximum(overlaps.start_b_s[of], self.clips.start_s[clip])
        high = np.minimum(overlaps.end_b_s[of], self.clips.end_s[clip])
        image_low, image_high = (_image(overlaps, of, moment) for moment in (low, high))
        # The earlier stretch stays: a clip is not shown by itself, nor by what comes after its beginning. The first
        # image before that counts, so it is not before the image of the beginning.
        within, begin = overlaps.a[of] == overlaps.b[of], self.clips.start_s[clip]
        image_low = np.where(within, np.maximum(image_low, _image(floors, of, begin)), image_low)
        image_high = np.where(within, np.minimum(image_high, begin), image_high)
        wanted = np.flatnonzero(image_high > image_low)
        of, clip, image_low, image_high = (each[wanted] for each in (of, clip, image_low, image_high))
        video = overlaps.a[of]
        first = _count(existing.video, existing.end_s, video, image_low, or_equal=True)
        last = _count(existing.video, existing.start_s, video, image_high, or_equal=False)
        pair, span = _ranges(first, last)
        start = np.maximum(image_low[pair], existing.start_s[span])
        end = np.minimum(image_high[pair], existing.end_s[span])
        low, high = (_origin(overlaps, of[pair], moment) for moment in (start, end))
        self._shown = joined(
            Spans(*(np.concatenate(both) for both in zip(self._shown, (clip[pair], low, high), strict=True)))
        )
        self._note(clip, video, pair, high - low, start, end)

    def _note(
        self, clip: np.ndarray, video: np.ndarray, pair: np.ndarray, seconds: np.ndarray, *ends: np.ndarray
    ) -> None:
        """Keep for each clip the overlap that shows most of it, of pairs of an overlap and a clip with their parts."""
        shown = np.flatnonzero(np.bincount(pair, minlength=len(clip)))
        if not len(shown):
            return
        begins = np.searchsorted(pair, shown)
        total = np.round(np.add.reduceat(seconds, begins) / NEARLY_S)
        start, end = np.minimum.reduceat(ends[0], begins), np.maximum.reduceat(ends[1], begins)
        clip, video = clip[shown], video[shown]
        order = np.lexsort((np.arange(len(clip)), -total, clip))
        best = order[np.append(True, np.diff(clip[order]) > 0)]
        best = best[total[best] > self._most[clip[best]]]
        at = clip[best]
        self._most[at], self._by[at] = total[best], video[best]
        self._start[at], self._end[at] = start[best], end[best]

    def gone(self, min_overlap: float) -> Gone:
        """The clips of which at least that share is shown."""
        shown = self._shown
        seconds = np.bincount(shown.video, shown.end_s - shown.start_s, minlength=len(self.clips.video))
        length = self.clips.end_s - self.clips.start_s
        goes = np.flatnonzero((seconds >= min_overlap * length - NEARLY_S) & (self._most > 0))
        return Gone(goes, self._by[goes], self._start[goes], self._end[goes])


def _repeated(overlaps: Stretches, longest_s: float) -> tuple[Stretches, Stretches]:
    """Overlaps, and those within one video applied again to what they map into themselves, up to clips of a length.

    Returns:
        These, and for each the overlap that it repeats, or is.
    """
    step = overlaps.start_b_s - overlaps.start_a_s
    once = _taken(overlaps, (overlaps.a == overlaps.b) & (step > 0))
    every, repeats = [overlaps], [overlaps]
    again = once
    while len(again.a):
        start = once.start_b_s + (again.start_b_s - once.start_a_s) / once.speed
        least = (once.start_b_s - once.start_a_s) / 2  # at a higher speed the steps become smaller and smaller
        wanted = (again.start_b_s - once.start_a_s < longest_s) & (start < once.end_b_s)
        wanted &= start - again.start_b_s >= least
        again = again._replace(start_b_s=start, speed=again.speed * once.speed)
        again, once = _taken(again, wanted), _taken(once, wanted)
        every.append(again)
        repeats.append(once)
    return _together(every), _together(repeats)


def _taken(overlaps: Stretches, chosen: slice | np.ndarray) -> Stretches:
    return Stretches(*(column[chosen] for column in overlaps))


def _together(parts: list[Stretches]) -> Stretches:
    return Stretches(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def _image(overlaps: Stretches, of: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Where moments of b are in a."""
    return overlaps.start_a_s[of] + overlaps.speed[of] * (moment - overlaps.start_b_s[of])


def _origin(overlaps: Stretches, of: np.ndarray, moment: np.ndarray) -> np.ndarray:
    """Where moments of a are in b."""
    return overlaps.start_b_s[of] + (moment - overlaps.start_a_s[of]) / overlaps.speed[of]


def joined(spans: Spans) -> Spans:
    """Spans of each video without overlap: those that touch are one. Time: O(n log n)."""
    order = np.lexsort((spans.end_s, spans.start_s, spans.video))
    video, start, end = (column[order] for column in spans)
    if not len(video):
        return Spans(video, start, end)
    latest = _running_max(end, video)
    begins = np.append(True, (np.diff(video) > 0) | (start[1:] > latest[:-1]))
    firsts = np.flatnonzero(begins)
    return Spans(video[firsts], start[firsts], np.maximum.reduceat(end, firsts))


def _running_max(values: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """The largest so far of each group; groups stand together."""
    found: np.ndarray = pd.Series(values).groupby(groups, sort=False).cummax().to_numpy()
    return found


def _count(
    videos: np.ndarray, moments: np.ndarray, of: np.ndarray, before: np.ndarray, *, or_equal: bool
) -> np.ndarray:
    """For each video and moment asked for, how many come before it, (n,) int64: pairs in the order of video and moment.

    Time: O((n + m) log(n + m)); exact, where keys of video and moment in one number would not be.
    """
    n = len(videos)
    is_asked = np.repeat([False, True], [n, len(of)])
    order = np.lexsort((is_asked == or_equal, np.concatenate([moments, before]), np.concatenate([videos, of])))
    asked = is_asked[order]
    counts = np.empty(len(of), dtype=np.int64)
    counts[order[asked] - n] = np.cumsum(~asked)[asked]
    return counts


def _ranges(first: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The numbers of ranges [first, last): of which range each is, and the number; ranges may be empty, or less."""
    widths = np.maximum(last - first, 0)
    of = np.repeat(np.arange(len(first)), widths)
    return of, np.arange(len(of)) - np.repeat(np.cumsum(widths) - widths, widths) + first[of]
