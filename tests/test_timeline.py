"""Time stamps on plain numbers: what packets tell of when frames are shown, however broken they are."""

from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup.video.timeline import FrameClock, PacketClock, PacketTimes, Timeline, ticks, timeline_of

BASE = Fraction(1, 10)
"""Ten ticks a second: more than ten back are another recording."""


def packets_of(stamps: Sequence[tuple[int | None, int | None]], **flags: Sequence[int]) -> PacketTimes:
    """Packets of these presentation and decoding times."""
    packets = PacketTimes()
    for i, (pts, dts) in enumerate(stamps):
        key, shown = (flags.get(name, [1] * len(stamps))[i] for name in ("keys", "shown"))
        packets.add(pts, dts, 1, bool(key), bool(shown))
    return packets


def times_of(clock: PacketClock, packets: PacketTimes) -> list[int]:
    """When the frame of each packet is shown."""
    stamps = zip(packets.presentation, packets.decoding, packets.duration, packets.is_shown, strict=True)
    return [clock.time(*stamp) for stamp in stamps]


def timeline(packets: PacketTimes) -> Timeline:
    """The timeline of packets, in which a frame may stand for a minute."""
    found = timeline_of(packets, BASE, 1, 60.0)
    assert found is not None
    return found


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
    clock = PacketClock(BASE, 1)
    assert (times_of(clock, packets_of(stamps)), clock.end) == (expected, end), what


def test_a_timeline_counts_from_the_first_frame_that_is_shown() -> None:
    packets = packets_of([(97, 97), (98, 98), (99, 99), (100, 100)], keys=[1, 0, 1, 0], shown=[0, 1, 1, 1])
    packets.n_bytes = 400
    found = timeline(packets)
    assert (found.origin, found.last, found.end, found.n_frames) == (98, 2, 3, 3)
    assert found.keyframes == (0, 1), "the frames from the hidden one on are copied, hidden"
    assert found.duration_s == 0.3
    assert found.bitrate == round(8 * 400 / 0.3)
    assert found.gaps == ()


def test_a_frame_stands_for_a_minute_and_the_rest_of_the_time_is_a_gap() -> None:
    packets = packets_of([(5, 5), (6, 6), (1006, 1006), (1606, 1606), (2207, 2207)])
    assert timeline(packets).gaps == ((601, 1001), (2201, 2202))
    assert timeline(packets).gaps_s == [(60.1, 100.1), (220.1, 220.2)]


def test_a_track_that_shows_nothing_has_no_timeline() -> None:
    assert timeline_of(PacketTimes(), BASE, 1, 60.0) is None
    assert timeline_of(packets_of([(0, 0)], shown=[0]), BASE, 1, 60.0) is None


def test_times_beyond_64_bits_are_refused() -> None:
    with pytest.raises(OverflowError):
        timeline(packets_of([(2**62, 2**62), (-(2**62), -(2**62)), (2**62, 2**62)]))


def ticks_of(
    stamps: Sequence[tuple[int | None, int | None]], order: Sequence[int], depth: int, pts: bool = True
) -> list[int]:
    """Ticks of frames that come in this order, each after `depth` packets more than it needs."""
    clock = FrameClock(timeline(packets_of(stamps)), 1, depth)
    found: list[int] = []
    for i, (shown, decoded) in enumerate(stamps):
        clock.add_packet(shown, decoded, 1, True)
        if i >= depth:
            found.append(clock.tick(stamps[order[i - depth]][0] if pts else None))
    return found + [clock.tick(stamps[i][0] if pts else None) for i in order[len(found) :]]


@given(st.lists(st.one_of(st.none(), st.integers(-(10**6), 10**6)), min_size=1, max_size=50), st.integers(0, 3))
def test_frames_are_shown_one_after_the_other(stamps: list[int | None], depth: int) -> None:
    found = ticks_of([(stamp, stamp) for stamp in stamps], range(len(stamps)), depth)
    shown = [tick for tick in found if tick >= 0]
    assert shown == sorted(set(shown))


@pytest.mark.parametrize("pts", [True, False])
def test_frames_that_are_stored_in_another_order_get_their_times(pts: bool) -> None:
    stamps = [(0, -2), (4, -1), (2, 0), (1, 1), (3, 2), (8, 3), (6, 4), (5, 5), (7, 6)]
    assert ticks_of(stamps, [0, 3, 2, 4, 1, 7, 6, 8, 5], 3, pts) == list(range(9))


def test_times_of_packets_in_the_order_of_the_file_are_those_of_frames_in_the_order_shown() -> None:
    """AVI: the time stamps that frames bring along are those of other frames."""
    stamps = [(i + 1, i) for i in range(9)]
    assert ticks_of(stamps, [0, 3, 2, 4, 1, 7, 6, 8, 5], 3) == list(range(9))


def test_a_packet_that_gives_no_frame_moves_none_of_the_others() -> None:
    for lost in (1, 4):
        clock = FrameClock(timeline(packets_of([(i, i) for i in range(8)])), 1, 0)
        found = []
        for i in range(8):
            clock.add_packet(i, i, 1, True)
            if i == lost:
                clock.drop_packet()
            else:
                found.append(clock.tick(None))
        assert found == [tick for tick in range(8) if tick != lost]


def test_a_clock_follows_the_timeline_over_a_jump() -> None:
    stamps = [(stamp, stamp) for stamp in (0, 20, 0, 1, 2)]
    assert ticks_of(stamps, range(5), 0) == times_of(PacketClock(BASE, 1), packets_of(stamps))


def test_ticks_takes_the_numbers_of_numpy() -> None:
    import numpy as np

    assert ticks(np.float64(2.5), BASE) == ticks(2.5, BASE) == 25
