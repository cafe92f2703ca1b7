"""Time stamps on plain numbers: what packets tell of when frames are shown, however broken they are."""

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup.video.timeline import FrameClock, PacketTimes, show_times, ticks, timeline_of

BASE = Fraction(1, 10)
"""Ten ticks a second: more than ten back are another recording."""


def packets_of(stamps: Sequence[tuple[int | None, int | None]], **flags: Sequence[int]) -> PacketTimes:
    """Packets of these presentation and decoding times."""
    packets = PacketTimes()
    for i, (pts, dts) in enumerate(stamps):
        key, shown = (flags.get(name, [1] * len(stamps))[i] for name in ("keys", "shown"))
        packets.add(pts, dts, 1, bool(key), bool(shown))
    return packets


@pytest.mark.parametrize(
    ("what", "stamps", "expected", "end"),
    [
        ("in order", [(0, 0), (1, 1), (2, 2)], [0, 1, 2], 3),
        ("decoded in another order than shown", [(0, -2), (3, -1), (1, 0), (2, 1)], [0, 3, 1, 2], 4),
        ("no presentation times", [(None, 0), (None, 1), (None, 2)], [0, 1, 2], 3),
        ("no times at all", [(None, None)] * 3, [0, 1, 2], 3),
        ("a small step back is kept", [(0, 0), (20, 20), (15, 15)], [0, 20, 15], 21),
        ("a second recording follows the first", [(0, 0), (20, 20), (0, 0), (1, 1)], [0, 20, 21, 22], 23),
        ("a third one too", [(50, 50), (0, 0), (30, 30), (5, 5)], [50, 51, 81, 82], 83),
        ("an hour ahead is a gap", [(0, 0), (36_000, 36_000)], [0, 36_000], 36_001),
    ],
)
def test_times_on_one_clock(
    what: str, stamps: list[tuple[int | None, int | None]], expected: list[int], end: int
) -> None:
    times, found_end = show_times(packets_of(stamps), 1, 1 / BASE)
    assert (times.tolist(), found_end) == (expected, end), what


def test_a_timeline_counts_from_the_first_frame_that_is_shown() -> None:
    packets = packets_of([(97, 97), (98, 98), (99, 99), (100, 100)], keys=[1, 0, 1, 0], shown=[0, 1, 1, 1])
    packets.n_bytes = 400
    timeline = timeline_of(packets, BASE, 1)
    assert timeline is not None
    assert (timeline.origin, timeline.last, timeline.end, timeline.n_frames) == (98, 2, 3, 3)
    assert timeline.keyframes == (1,), "the one that is hidden is before the start"
    assert timeline.duration_s == 0.3
    assert timeline.bitrate == round(8 * 400 / 0.3)


def test_a_track_that_shows_nothing_has_no_timeline() -> None:
    assert timeline_of(PacketTimes(), BASE, 1) is None
    assert timeline_of(packets_of([(0, 0)], shown=[0]), BASE, 1) is None


def test_times_beyond_64_bits_are_refused() -> None:
    with pytest.raises(OverflowError):
        show_times(packets_of([(2**62, 2**62), (-(2**62), -(2**62)), (2**62, 2**62)]), 1, 1 / BASE)


@given(st.lists(st.one_of(st.none(), st.integers(-(10**6), 10**6)), max_size=50), st.integers(1, 100))
def test_frames_are_shown_one_after_the_other(stamps: list[int | None], step: int) -> None:
    clock = FrameClock(0, step, Fraction(10))
    shown = [tick for tick in map(clock.tick, stamps) if tick >= 0]
    assert shown == sorted(set(shown))
    assert clock.last_tick == (shown[-1] if shown else -1)


def test_a_clock_follows_the_timeline_over_a_jump() -> None:
    stamps = [0, 20, 0, 1, 2]
    times, _ = show_times(packets_of([(stamp, stamp) for stamp in stamps]), 1, 1 / BASE)
    clock = FrameClock(0, 1, 1 / BASE)
    assert [clock.tick(stamp) for stamp in stamps] == times.tolist()


def test_ticks_takes_the_numbers_of_numpy() -> None:
    import numpy as np

    assert ticks(np.float64(2.5), BASE) == ticks(2.5, BASE) == 25
