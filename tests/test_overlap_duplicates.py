"""Which clips go by overlap: known answers, and every moment looked at by itself."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup.overlaps.duplicates import Coverage, Gone, Spans, joined
from semdedup.overlaps.match import Stretches

CELL = 0.125
"""Times here are halves of seconds and speeds powers of two, so that every edge is an edge of such a cell."""


class Overlap(NamedTuple):
    a: int
    start_a_s: float
    b: int
    start_b_s: float
    seconds: float
    speed: float = 1.0


Span = tuple[int, float, float]


def stretches(overlaps: Sequence[Overlap]) -> Stretches:
    a, start_a, b, start_b, seconds, speed = (
        np.array([overlap[i] for overlap in overlaps], dtype=kind)
        for i, kind in enumerate((np.int64, float, np.int64, float, float, float))
    )
    ones = np.ones(len(a))
    return Stretches(a, start_a, start_a + speed * seconds, b, start_b, start_b + seconds, speed, ones, ones < 0)


def spans(found: Sequence[Span]) -> Spans:
    ordered = sorted(found)
    return Spans(*(np.array([span[i] for span in ordered], dtype=kind)
                   for i, kind in enumerate((np.int64, float, float))))  # fmt: skip


def gone(
    clips: Sequence[Span], overlaps: Sequence[Overlap], min_overlap: float = 0.8
) -> list[tuple[Span, int, float, float]]:
    """The clips that go, each with what shows it."""
    coverage = Coverage(spans(clips))
    coverage.add(stretches(overlaps), spans(clips))
    found: Gone = coverage.gone(min_overlap)
    ordered = sorted(clips)
    return [(ordered[clip], *shows) for clip, *shows in zip(*map(np.ndarray.tolist, found), strict=True)]


def test_a_clip_goes_where_a_better_ranked_video_shows_enough_of_it() -> None:
    clips = [(0, 0.0, 10.0), (0, 10.0, 20.0), (1, 0.0, 10.0), (1, 10.0, 20.0)]
    assert gone(clips, [Overlap(0, 5, 1, 2, 8)]) == [((1, 0.0, 10.0), 0, 5.0, 13.0)]
    assert gone(clips, [Overlap(0, 5, 1, 2.5, 7.5)]) == []
    assert gone(clips, [Overlap(0, 5, 1, 2.5, 7.5)], 0.75) == [((1, 0.0, 10.0), 0, 5.0, 12.5)]


def test_what_is_in_no_clip_shows_nothing() -> None:
    clips = [(0, 0.0, 6.0), (1, 0.0, 10.0)]
    assert gone(clips, [Overlap(0, 0, 1, 0, 10)]) == []
    assert gone(clips, [Overlap(0, 0, 1, 0, 10)], 0.6) == [((1, 0.0, 10.0), 0, 0.0, 6.0)]
    assert gone([(0, 0.0, 6.0), (0, 8.0, 10.0), (1, 0.0, 10.0)], [Overlap(0, 0, 1, 0, 10)]) == [
        ((1, 0.0, 10.0), 0, 0.0, 10.0)
    ]


def test_several_videos_show_a_clip_together_and_the_one_that_shows_most_is_told() -> None:
    clips = [(0, 0.0, 100.0), (1, 0.0, 100.0), (2, 0.0, 10.0)]
    parts = [Overlap(0, 50, 2, 0, 4), Overlap(1, 20, 2, 3, 6)]
    assert gone(clips, parts) == [((2, 0.0, 10.0), 1, 20.0, 26.0)]
    assert gone(clips, parts, 0.95) == []


def test_of_two_that_show_the_same_the_better_ranked_is_told() -> None:
    clips = [(0, 0.0, 100.0), (1, 0.0, 100.0), (2, 0.0, 10.0)]
    assert gone(clips, [Overlap(0, 7, 2, 0, 10), Overlap(1, 0, 2, 0, 10)]) == [((2, 0.0, 10.0), 0, 7.0, 17.0)]


def test_speed_stretches_what_is_shown() -> None:
    clips = [(0, 0.0, 20.0), (1, 0.0, 10.0)]
    assert gone(clips, [Overlap(0, 0, 1, 0, 10, 2.0)], 1.0) == [((1, 0.0, 10.0), 0, 0.0, 20.0)]
    assert gone([(0, 0.0, 15.0), (1, 0.0, 10.0)], [Overlap(0, 0, 1, 0, 10, 2.0)], 0.75) == [
        ((1, 0.0, 10.0), 0, 0.0, 15.0)
    ]


def test_within_a_video_the_earlier_part_stays() -> None:
    clips = [(0, 0.0, 10.0), (0, 10.0, 20.0), (0, 20.0, 30.0)]
    assert gone(clips, [Overlap(0, 0, 0, 20, 10)]) == [((0, 20.0, 30.0), 0, 0.0, 10.0)]


def test_a_clip_that_repeats_itself_stays() -> None:
    assert gone([(0, 0.0, 30.0)], [Overlap(0, 0, 0, 5, 25)]) == []
    both = [(0, 0.0, 30.0), (0, 10.0, 35.0)]
    assert gone(both, [Overlap(0, 0, 0, 5, 30)], 1.0) == [(both[1], 0, 5.0, 10.0)]


def test_of_what_is_repeated_again_and_again_the_first_clip_stays() -> None:
    clips = [(0, start, start + 10.0) for start in (0.0, 10.0, 20.0, 30.0)]
    found = gone(clips, [Overlap(0, 0, 0, 3, 37)])
    assert [clip for clip, *_ in found] == clips[1:]
    assert [shows for _, *shows in found] == [[0, 7.0, 10.0], [0, 17.0, 20.0], [0, 27.0, 30.0]]
    assert gone(clips[1:2], [Overlap(0, 0, 0, 3, 37)]) == []  # nothing is before it


def test_no_overlaps_and_no_clips_are_fine() -> None:
    assert gone([], []) == []
    assert gone([(0, 0.0, 5.0)], []) == []
    assert gone([], [Overlap(0, 0, 1, 0, 10)]) == []
    assert gone([(0, 0.0, 9.0), (1, 5.0, 5.0)], [Overlap(0, 0, 1, 0, 10)]) == []  # a clip without length


def test_sums_of_decimal_fractions_reach_the_share_that_they_are() -> None:
    clips = [(0, 0.0, 9.0), (1, 0.0, 0.7)]
    thirds = [Overlap(0, i, 1, 0.1 * i, 0.1) for i in range(7)]
    assert len(gone(clips, thirds, 1.0)) == 1


HALVES = st.integers(0, 24).map(lambda n: n / 2)


@st.composite
def overlaps_of(draw: st.DrawFn) -> Overlap:
    a, b = sorted(draw(st.tuples(st.integers(0, 3), st.integers(0, 3))))
    start_a, start_b, seconds = draw(HALVES), draw(HALVES), draw(st.integers(1, 24)) / 2
    if a == b:
        start_b += start_a + 0.5
    return Overlap(a, start_a, b, start_b, seconds, draw(st.sampled_from([0.5, 1.0, 2.0])) if a != b else 1.0)


@st.composite
def clips_of(draw: st.DrawFn) -> Span:
    start = draw(HALVES)
    return draw(st.integers(0, 3)), start, start + draw(st.integers(1, 12)) / 2


def by_every_moment(clips: Sequence[Span], overlaps: Sequence[Overlap], min_overlap: float) -> list[tuple]:
    found = []
    for clip in sorted(clips):
        video, start, end = clip
        cells = np.arange(start, end, CELL)
        shown = np.zeros(len(cells), dtype=bool)
        best: tuple[int, tuple] = (0, ())
        for overlap in overlaps:
            if overlap.b != video:
                continue
            images = overlap.start_a_s + overlap.speed * (cells - overlap.start_b_s)
            middles = images + overlap.speed * CELL / 2
            times = np.zeros(len(cells), dtype=int)
            for _ in range(200 if overlap.a == video else 0):  # again while the image is in the clip itself
                again = (middles > start) & (middles > overlap.start_b_s)
                images, middles = (x - again * (overlap.start_b_s - overlap.start_a_s) for x in (images, middles))
                times += again
            is_in = (cells >= overlap.start_b_s) & (cells < overlap.start_b_s + overlap.seconds)
            exists = np.zeros(len(cells), dtype=bool)
            for other, low, high in clips:
                exists |= (other == overlap.a) & (middles > low) & (middles < high)
            part = is_in & exists & ((overlap.a != video) | (middles < start))
            shown |= part
            for k in np.unique(times):
                at = images[part & (times == k)]
                if len(at) > best[0]:
                    best = (len(at), (overlap.a, at[0], at[-1] + overlap.speed * CELL))
        if best[0] and shown.sum() * CELL >= min_overlap * (end - start) - 1e-9:
            found.append((clip, *best[1]))
    return found


@given(
    clips=st.lists(clips_of(), max_size=8, unique=True),
    overlaps=st.lists(overlaps_of(), max_size=8),
    min_overlap=st.sampled_from([0.125, 0.5, 0.8, 1.0]),
)
def test_any_clips_and_any_overlaps(clips: list[Span], overlaps: list[Overlap], min_overlap: float) -> None:
    assert gone(clips, overlaps, min_overlap) == by_every_moment(clips, overlaps, min_overlap)


@given(clips=st.lists(clips_of(), max_size=8, unique=True), overlaps=st.lists(overlaps_of(), max_size=8))
def test_overlaps_may_come_in_parts(clips: list[Span], overlaps: list[Overlap]) -> None:
    overlaps.sort(key=lambda overlap: overlap.a)
    coverage = Coverage(spans(clips))
    for a in range(4):
        of_a = [overlap for overlap in overlaps if overlap.a == a]
        coverage.add(stretches(of_a), spans([clip for clip in clips if clip[0] == a]))
    whole = Coverage(spans(clips))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semdedup.overlaps.duplicates.PAIRS_AT_A_TIME", 2)
        whole.add(stretches(overlaps), spans(clips))
    for one, other in zip(coverage.gone(0.5), whole.gone(0.5), strict=True):
        np.testing.assert_array_equal(one, other)


@given(st.lists(clips_of(), max_size=12))
def test_spans_are_joined_where_they_touch(clips: list[Span]) -> None:
    found = list(zip(*map(np.ndarray.tolist, joined(spans(clips))), strict=True))
    for video in range(4):
        own = [(start, end) for of, start, end in found if of == video]
        cells = {cell for of, start, end in clips if of == video for cell in np.arange(start, end, CELL).tolist()}
        assert {cell for start, end in own for cell in np.arange(start, end, CELL).tolist()} == cells
        assert all(end < start for (_, end), (start, _) in pairwise(own))
