"""The clip plan: tables of known answers, and what holds for every video."""

import itertools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from semdedup import ParameterError, SemdedupError
from semdedup.video.options import PlanOptions
from semdedup.video.plan import Span, at_keyframes, fixed_stride, scenes
from semdedup.video.timeline import every, sample_times, ticks

MICROSECOND = 1e-6
CLOSE = 1.5 * MICROSECOND
"""Spans are kept to the microsecond; both ends may have been rounded."""

seconds = st.floats(0.01, 1000, allow_nan=False)
lengths = st.floats(0.25, 60, allow_nan=False)
shares = st.floats(0, 1, allow_nan=False)
cut_lists = st.lists(st.floats(-1, 1001, allow_nan=False), max_size=12)


def pairs(spans: list[Span]) -> list[tuple[float, float]]:
    return [(span.start_s, span.end_s) for span in spans]


@pytest.mark.parametrize(
    ("told", "duration_s", "clip_s", "stride_s", "min_s", "expected"),
    [
        ("whole multiples", 20, 10, 10, 2, [(0, 10), (10, 20)]),
        ("a rest that is long enough", 23.5, 10, 10, 2, [(0, 10), (10, 20), (20, 23.5)]),
        ("a rest that is just long enough", 22, 10, 10, 2, [(0, 10), (10, 20), (20, 22)]),
        ("a rest that is too short", 21.999, 10, 10, 2, [(0, 10), (10, 20)]),
        ("shorter than one clip", 7, 10, 10, 2, [(0, 7)]),
        ("shorter than the minimum", 1.9, 10, 10, 2, []),
        ("nothing", 0, 10, 10, 0, []),
        ("overlap", 25, 10, 5, 8, [(0, 10), (5, 15), (10, 20), (15, 25)]),
        ("overlap, with what is left over", 25, 10, 5, 2, [(0, 10), (5, 15), (10, 20), (15, 25), (20, 25)]),
        ("gaps", 25, 4, 10, 2, [(0, 4), (10, 14), (20, 24)]),
        ("a tenth does not add up to errors", 0.7, 0.1, 0.1, 0.1, [(i / 10, (i + 1) / 10) for i in range(7)]),
        ("a third of a second", 1, 1 / 3, 1 / 3, 0.3, [(0, 0.333333), (0.333333, 0.666667), (0.666667, 1)]),
        ("no clip may be shorter", 1.9, 2 / 3, 2 / 3, 2 / 3, [(0, 0.666667), (0.666667, 1.333333)]),
        ("no minimum, a rest of a microsecond", 2.000001, 1, 1, 0, [(0, 1), (1, 2), (2, 2.000001)]),
        ("no minimum, a rest below a microsecond", 2.0000001, 1, 1, 0, [(0, 1), (1, 2)]),
    ],
)
def test_fixed_stride(
    told: str, duration_s: float, clip_s: float, stride_s: float, min_s: float, expected: list[tuple[float, float]]
) -> None:
    assert pairs(fixed_stride(duration_s, clip_s, stride_s, min_s)) == expected, told


@given(duration_s=seconds, clip_s=lengths, stride_s=lengths, share=shares)
def test_fixed_stride_gives_spans_in_order_inside_the_video_within_the_lengths(
    duration_s: float, clip_s: float, stride_s: float, share: float
) -> None:
    min_s = share * clip_s
    spans = fixed_stride(duration_s, clip_s, stride_s, min_s)
    assert all(a.start_s < b.start_s and a.end_s <= b.end_s for a, b in itertools.pairwise(spans))
    for i, span in enumerate(spans):
        assert span.start_s == pytest.approx(i * stride_s, abs=CLOSE)  # none is missing but at the end
        assert 0 <= span.start_s < span.end_s <= duration_s + CLOSE
        assert min_s - CLOSE <= span.duration_s <= clip_s + CLOSE
        assert span.end_s == pytest.approx(min(i * stride_s + clip_s, duration_s), abs=CLOSE)
    next_s = len(spans) * stride_s
    assert len(spans) >= (duration_s - clip_s) // stride_s + 1  # none that is whole is left out
    assert min(clip_s, duration_s - next_s) < max(min_s, MICROSECOND) + CLOSE  # another one would be too short


@given(duration_s=seconds, clip_s=lengths, share=shares)
@example(duration_s=1000.0, clip_s=1 / 3, share=0.0)
def test_spans_touch_and_cover_all_but_less_than_the_minimum(duration_s: float, clip_s: float, share: float) -> None:
    min_s = share * clip_s
    spans = fixed_stride(duration_s, clip_s, clip_s, min_s)
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(spans))
    covered_s = spans[-1].end_s if spans else 0.0
    assert duration_s - covered_s < max(min_s, MICROSECOND) + CLOSE


RATES = [Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(25), Fraction(60)]


def edges(spans: Sequence[Span], base: Fraction) -> list[tuple[int, int]]:
    """First tick and tick after the last of each span."""
    return [(ticks(span.start_s, base), ticks(span.end_s, base)) for span in spans]


@given(
    rate=st.sampled_from(RATES),
    finer=st.sampled_from([1, 512, None]),
    n_frames=st.integers(1, 4000),
    clip_s=st.one_of(st.sampled_from([0.25, 1 / 3, 1.0, 1.001, 10.0, 1001 / 3000]), st.floats(0.25, 60)),
)
@example(rate=Fraction(30_000, 1001), finer=None, n_frames=4000, clip_s=1.001)
@example(rate=Fraction(24_000, 1001), finer=1, n_frames=4000, clip_s=10 / 3)
def test_each_frame_lies_in_exactly_one_of_the_spans_that_touch(
    rate: Fraction, finer: int | None, n_frames: int, clip_s: float
) -> None:
    base = Fraction(1, 90_000) if finer is None else 1 / (rate * finer)
    shown = [round(i / rate / base) for i in range(n_frames)]
    duration_s = float(round(n_frames / rate / base) * base)
    bounds = edges(fixed_stride(duration_s, clip_s, clip_s, 0.0), base)
    for tick in shown:
        assert sum(start <= tick < end for start, end in bounds) == 1


def test_a_frame_on_the_edge_opens_the_next_clip() -> None:
    for rate in RATES:
        clip_s = float(30 / rate)  # whole frames, which no decimal number of seconds tells exactly
        bounds = edges(fixed_stride(float(120 / rate), clip_s, clip_s, 0), 1 / rate)
        assert bounds == [(0, 30), (30, 60), (60, 90), (90, 120)]


@given(
    moment_s=st.integers(0, 10**10).map(lambda us: round(us / 1e6, 6)),
    base=st.sampled_from([Fraction(1, 25), Fraction(1001, 30_000), Fraction(1, 90_000), Fraction(1, 1000)]),
)
def test_ticks_is_the_first_tick_that_is_not_before(moment_s: float, base: Fraction) -> None:
    tick = ticks(moment_s, base)
    half = Fraction(1, 2_000_000)
    assert (tick - 1) * base < Fraction(repr(moment_s)) - half <= tick * base


@pytest.mark.parametrize(
    ("told", "duration_s", "cuts_s", "min_s", "max_s", "expected"),
    [
        ("no cuts", 30, [], 2, 60, [(0, 30)]),
        ("cuts", 30, [4, 12.5], 2, 60, [(0, 4), (4, 12.5), (12.5, 30)]),
        ("a short scene goes", 30, [4, 5], 2, 60, [(0, 4), (5, 30)]),
        ("a long scene is cut by stride", 30, [4, 5], 2, 15, [(0, 4), (5, 20), (20, 30)]),
        ("its rest is too short", 30, [4, 14], 2, 15, [(0, 4), (4, 14), (14, 29)]),
        ("cuts out of order, twice, and outside", 30, [12, 4, 4, 0, -1, 30, 31], 2, 60, [(0, 4), (4, 12), (12, 30)]),
        ("all too short", 3, [1, 2], 2, 60, []),
    ],
)
def test_scenes(
    told: str, duration_s: float, cuts_s: list[float], min_s: float, max_s: float, expected: list[tuple[float, float]]
) -> None:
    assert pairs(scenes(duration_s, cuts_s, min_s, max_s)) == expected, told


@given(duration_s=seconds, cuts_s=cut_lists, max_s=lengths, share=shares)
def test_scenes_hold_no_cut_and_keep_to_the_lengths(
    duration_s: float, cuts_s: list[float], max_s: float, share: float
) -> None:
    min_s = share * max_s
    spans = scenes(duration_s, cuts_s, min_s, max_s)
    inside = [cut for cut in cuts_s if 0 < cut < duration_s]
    assert all(a.end_s <= b.start_s + CLOSE for a, b in itertools.pairwise(spans))
    for span in spans:
        assert -CLOSE <= span.start_s < span.end_s <= duration_s + CLOSE
        assert min_s - CLOSE <= span.duration_s <= max_s + CLOSE
        assert not any(span.start_s + CLOSE < cut < span.end_s - CLOSE for cut in inside)
    marks = [0.0, *sorted(inside), duration_s]
    lost_s = duration_s - sum(span.duration_s for span in spans)
    assert lost_s <= (min_s + 3 * MICROSECOND) * (len(marks) - 1) + CLOSE * (len(spans) + 1)  # a rest a scene


@pytest.mark.parametrize(
    ("told", "spans", "keys", "expected"),
    [
        ("edges on key frames stay", [(0, 4), (4, 8)], [0, 2, 4, 6], [(0, 4), (4, 8)]),
        ("edges move back", [(0, 5), (5, 8)], [0, 4], [(0, 4), (4, 8)]),
        ("both in one group of pictures", [(0, 1), (1, 2), (2, 8)], [0, 4], [(0, 8)]),
        ("the end is no key frame", [(0, 5), (5, 8)], [0, 5, 7], [(0, 5), (5, 8)]),
        ("the rest was left out", [(0, 3), (3, 6)], [0, 3, 5], [(0, 3), (3, 5)]),
        ("overlapping", [(0, 4), (2, 6)], [0, 2, 4, 6], [(0, 4), (2, 6)]),
        ("the first key frame comes late", [(0, 4), (4, 8)], [1, 4], [(1, 4), (4, 8)]),
        ("one key frame", [(0, 4), (4, 8)], [0], [(0, 8)]),
    ],
)
def test_at_keyframes(
    told: str, spans: list[tuple[float, float]], keys: list[float], expected: list[tuple[float, float]]
) -> None:
    assert pairs(at_keyframes([Span(*pair) for pair in spans], keys, 8)) == expected, told


@given(
    duration_s=seconds,
    clip_s=lengths,
    keys=st.lists(st.floats(0, 1, exclude_max=True, allow_nan=False), max_size=20),
)
def test_at_keyframes_parts_the_video_into_whole_groups_of_pictures(
    duration_s: float, clip_s: float, keys: list[float]
) -> None:
    at = sorted({0.0, *(round(key * duration_s, 6) for key in keys)})
    at = [key for key in at if key < round(duration_s, 6)]
    spans = at_keyframes(fixed_stride(duration_s, clip_s, clip_s, 0.0), at, duration_s)
    assert spans[0].start_s == 0
    assert spans[-1].end_s == round(duration_s, 6)
    assert all(a.end_s == b.start_s for a, b in itertools.pairwise(spans))  # each key frame in one clip
    assert all(span.start_s in at for span in spans)


@given(start_s=seconds, length_s=st.floats(0.001, 100), n_frames=st.integers(1, 64))
def test_samples_lie_in_the_middles_of_equal_parts(start_s: float, length_s: float, n_frames: int) -> None:
    span = Span(start_s, start_s + length_s)
    moments = sample_times(span, n_frames)
    part_s = length_s / n_frames
    assert len(moments) == n_frames
    assert all(span.start_s < moment < span.end_s for moment in moments)
    assert moments[0] - span.start_s == pytest.approx(part_s / 2, rel=1e-3, abs=1e-9)
    assert all(b - a == pytest.approx(part_s, rel=1e-3, abs=1e-9) for a, b in itertools.pairwise(moments))


@given(start_s=seconds, length_s=st.floats(0.001, 100), period_s=st.floats(0.1, 10))
def test_every_gives_the_start_and_no_moment_after_the_end(start_s: float, length_s: float, period_s: float) -> None:
    span = Span(round(start_s, 6), round(start_s + length_s, 6))
    moments = every(span, period_s)
    assert moments[0] == span.start_s
    assert all(moment < span.end_s for moment in moments)
    assert span.end_s - moments[-1] <= period_s + CLOSE


def test_the_options_choose_the_plan() -> None:
    cuts = [4.0, 5.0]
    assert pairs(PlanOptions().spans(25)) == [(0, 10), (10, 20), (20, 25)]
    assert pairs(PlanOptions(stride_s=5, min_length_s=8).spans(25, cuts)) == [(0, 10), (5, 15), (10, 20), (15, 25)]
    assert pairs(PlanOptions(algorithm="scene", scene_max_length_s=15).spans(30, cuts)) == [(0, 4), (5, 20), (20, 30)]
    assert pairs(PlanOptions(limit_clips=2).spans(25)) == [(0, 10), (10, 20)]


def test_what_makes_no_difference_is_not_told() -> None:
    fixed, scene = PlanOptions(), PlanOptions(algorithm="scene")
    assert fixed.recorded() == PlanOptions(stride_s=10, scene_min_length_s=1).recorded()
    assert scene.recorded() == PlanOptions(algorithm="scene", duration_s=3, min_length_s=1).recorded()
    assert fixed.recorded() != PlanOptions(stride_s=9).recorded()
    assert fixed.recorded() != scene.recorded()
    assert fixed.recorded() != PlanOptions(cut="copy").recorded()


def test_the_shortest_clip_is_two_seconds_or_as_long_as_clips_are() -> None:
    assert pairs(PlanOptions(duration_s=1).spans(3.5)) == [(0, 1), (1, 2), (2, 3)]
    assert pairs(PlanOptions().spans(11.9)) == [(0, 10)]
    assert pairs(PlanOptions(algorithm="scene", scene_max_length_s=1).spans(2.5, [0.5])) == [(0.5, 1.5), (1.5, 2.5)]
    assert PlanOptions().recorded() == PlanOptions(min_length_s=2.0).recorded()
    assert PlanOptions(duration_s=1).recorded()["fixed_stride_min_clip_length_s"] == 1.0
    scene = PlanOptions(algorithm="scene", scene_max_length_s=1.5)
    assert scene.recorded() == PlanOptions("scene", scene_max_length_s=1.5, scene_min_length_s=1.5).recorded()


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"algorithm": "transnetv2"}, "splitting_algorithm"),
        ({"cut": "smart"}, "cut"),
        ({"duration_s": 0}, "fixed_stride_split_duration"),
        ({"duration_s": -1, "min_length_s": 0}, "fixed_stride_split_duration"),
        ({"duration_s": math.nan}, "fixed_stride_split_duration"),
        ({"duration_s": math.inf}, "fixed_stride_split_duration"),
        ({"stride_s": 0}, "fixed_stride_stride_s"),
        ({"stride_s": math.inf}, "fixed_stride_stride_s"),
        ({"min_length_s": -1}, "fixed_stride_min_clip_length_s"),
        ({"min_length_s": 11}, "fixed_stride_min_clip_length_s"),
        ({"min_length_s": math.nan}, "fixed_stride_min_clip_length_s"),
        ({"scene_max_length_s": 0}, "scene_max_length_s"),
        ({"scene_min_length_s": 61}, "scene_min_length_s"),
        ({"scene_min_length_s": -0.1}, "scene_min_length_s"),
        ({"limit_clips": -1}, "limit_clips"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], name: str) -> None:
    with pytest.raises(ParameterError, match=name) as error:
        PlanOptions(**options)
    assert isinstance(error.value, SemdedupError)
    assert str(next(iter(options.values()))) in str(error.value)
