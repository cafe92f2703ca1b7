"""The benchmark of overlaps scores tables that are made up as their answers say they must be scored."""

import itertools
from dataclasses import asdict
from typing import Any

import pytest

from benchmarks.overlap_scores import lines, score
from benchmarks.planted_videos import CHANGES, Piece, Stretch, Video, pieces_of, shared_stretches


def _video(name: str, change: str, pieces: tuple[Piece, ...]) -> Video:
    return Video(f"{name}.{change}", name, change, pieces[-1].end_s, 25.0, (64, 48), pieces)


SOURCES = [_video(name, "source", (Piece(name, 0.0, seconds),)) for name, seconds in (("x", 20.0), ("y", 12.0))]
WANTED = ("faster_5", "shift_3.7", "middle", "mirrored", "embedded")
COPIES = [
    _video(source.source, change, pieces_of(source, CHANGES[change], [other, other]))
    for source, other in itertools.permutations(SOURCES)
    for change in WANTED
]
VIDEOS = [*SOURCES, *COPIES]
PLANTED = [
    {"change": copy.change, **asdict(stretch)}
    for copy in COPIES
    for source in SOURCES
    if source.source == copy.source
    for stretch in shared_stretches(source, copy)
]


def _rows(*stretches: Stretch) -> list[dict[str, Any]]:
    return [{**asdict(stretch), "score": 0.9} for stretch in stretches]


def _truth() -> list[Stretch]:
    return [each for pair in itertools.combinations(VIDEOS, 2) for each in shared_stretches(*pair)]


def _turned(row: dict[str, Any]) -> dict[str, Any]:
    swap = {"video_a": "video_b", "start_a_s": "start_b_s", "end_a_s": "end_b_s"}
    swap |= {b: a for a, b in swap.items()}
    return {swap.get(name, name): 1 / value if name == "speed" else value for name, value in row.items()}


@pytest.mark.parametrize("turn", [False, True])
def test_the_truth_scores_1_whichever_video_stands_first(turn: bool) -> None:
    rows = [_turned(row) if turn else row for row in _rows(*_truth())]
    found = score(VIDEOS, PLANTED, rows, mirror=True)
    assert set(found["changes"]) == set(WANTED)
    for each in (*found["changes"].values(), found["copies"]):
        assert each["planted"] == each["found"] > 0
        assert each["iou"] == pytest.approx(1)
        assert each["speed_error"] == pytest.approx(0)
        assert each["offset_error_s"] == pytest.approx(0, abs=1e-9)
    assert found["false"] == found["elsewhere"] == found["missed"] == []


def test_what_is_planted_stands_where_the_change_says() -> None:
    where = {(each["video_b"], each["change"]): each for each in PLANTED}
    faster, middle = where["x.faster_5", "faster_5"], where["x.middle", "middle"]
    assert (faster["end_a_s"], faster["end_b_s"], faster["speed"]) == pytest.approx((20, 20 / 1.05, 1.05))
    assert (middle["start_a_s"], middle["end_a_s"], middle["start_b_s"]) == (5, 15, 0)
    assert where["y.embedded", "embedded"]["start_b_s"] == 8
    assert where["x.mirrored", "mirrored"]["mirrored"]


def test_without_mirror_no_mirrored_copy_is_asked_for() -> None:
    found = score(VIDEOS, PLANTED, [], mirror=False)
    assert set(found["changes"]) == set(WANTED) - {"mirrored"}
    assert {each["found"] for each in found["changes"].values()} == {0}
    assert len(found["missed"]) == 2 * (len(WANTED) - 1)


def test_a_stretch_of_which_a_fifth_is_missing_is_found_and_one_of_which_more_is_missing_is_not() -> None:
    for share, n in ((0.81, 1), (0.79, 0)):
        told = Stretch("x.source", 3.7, 3.7 + 16.3 * share, "x.shift_3.7", 0.0, 16.3 * share)
        found = score(VIDEOS, PLANTED, _rows(told), mirror=False)
        assert found["changes"]["shift_3.7"]["found"] == n
        assert not found["elsewhere"]


def test_the_errors_of_speed_and_offset_are_those_that_were_made() -> None:
    told = Stretch("x.source", 3.9, 20.0, "x.shift_3.7", 0.0, 16.1, speed=1.01)
    found = score(VIDEOS, PLANTED, _rows(told), mirror=False)["changes"]["shift_3.7"]
    assert found["speed_error"] == pytest.approx(0.01)
    assert found["offset_error_s"] == pytest.approx(0.2 + 0.01 * 16.3 / 2)


def test_overlaps_of_strangers_are_false_and_named_and_others_are_elsewhere_or_within() -> None:
    wrong = Stretch("x.middle", 0.0, 5.0, "y.middle", 1.0, 6.0)
    moved = Stretch("x.source", 0.0, 10.0, "x.middle", 0.0, 10.0)
    inside = Stretch("x.source", 0.0, 5.0, "x.source", 10.0, 15.0)
    found = score(VIDEOS, PLANTED, _rows(wrong, moved, inside), mirror=False)
    assert [row["video_b"] for row in found["false"]] == ["y.middle"]
    assert [row["video_b"] for row in found["elsewhere"]] == ["x.middle"]
    assert found["within"] == 1
    # Embedded copies show both sources: each video is a stranger to those of the other source but its embedded one.
    assert found["strangers"] == 5 * 5
    assert any("FALSE x.middle 0.0-5.0 s, y.middle" in line for line in lines(found))
