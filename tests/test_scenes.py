"""Clips between cuts: the videos are made with cuts at known frames, and the clips have to begin exactly there."""

import contextlib
import itertools
import subprocess
import sys
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest

from semdedup import OutputConflictError, ParameterError
from semdedup.video.clip_ids import VideoIdentity, clip_id
from semdedup.video.cut import plan_video
from semdedup.video.job import ClipMade, PlannedVideo
from semdedup.video.options import Limits
from semdedup.video.plan import Span
from tests.splits import read_rows, splitter
from tests.videos import (
    clip_path,
    damage,
    flat,
    make_video,
    read_frames,
    scenes,
    split,
    split_job,
    texture,
)

pytest.importorskip("scenedetect")

LENGTHS = (30, 45, 25)
"""Frames of the scenes of most videos here; at 25 frames a second the cuts are at 1.2 s and 3 s of 4 s."""

SPANS = [(0.0, 1.2), (1.2, 3.0), (3.0, 4.0)]


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    """Three scenes."""
    return list(scenes((1, 2, 3), LENGTHS))


def cut(path: Path, folder: Path | None = None, **options: Any) -> tuple[list[ClipMade], str]:
    """Cut a video into scenes of at least 0.2 s; gives the clips and the status, or what is wrong."""
    chosen = {"algorithm": "scene", "scene_min_length_s": 0.2, **options}
    clips, outcome = split(path, folder, **chosen)
    return clips, outcome.reason or outcome.status


def spans(clips: Sequence[ClipMade]) -> list[tuple[float, float]]:
    return [(clip.facts["start_s"], clip.facts["end_s"]) for clip in clips]


def frames_of(clips: Sequence[ClipMade]) -> list[int]:
    return [clip.facts["n_frames"] for clip in clips]


def distance(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left.astype(float) - right).mean())


# Where clips begin


def test_clips_begin_exactly_at_the_cuts_and_hold_their_scenes(pictures: list[np.ndarray], tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", pictures=pictures)
    clips, status = cut(video, tmp_path / "clips")
    assert (status, spans(clips), frames_of(clips)) == ("done", SPANS, list(LENGTHS))
    first = 0
    for clip, length in zip(clips, LENGTHS, strict=True):
        shown = [pixels for _, pixels in read_frames(clip_path(tmp_path / "clips", clip))]
        assert len(shown) == length
        for i in (0, length - 1):
            assert distance(shown[i], pictures[first + i]) < 12  # as far as the encoder leaves it
        if first:
            assert distance(shown[0], pictures[first - 1]) > 30
        first += length


def test_ids_are_those_of_the_spans(pictures: list[np.ndarray], tmp_path: Path) -> None:
    clips, _ = cut(make_video(tmp_path / "v.mp4", pictures=pictures))
    identity = VideoIdentity("v.mp4", "", 25.0, 4.0)
    assert [clip.facts["id"] for clip in clips] == [
        clip_id("semdedup", identity, Span(*span), "scene") for span in SPANS
    ]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("v.mkv", {"codec": "ffv1"}),
        ("v.ts", {}),
        ("v.webm", {"codec": "libvpx"}),
        ("v.avi", {"codec": "mpeg4"}),
        ("b_frames.mp4", {"options": {"preset": "medium", "bf": "3"}}),
        ("turned.mp4", {"rotation": 90}),
        ("long_groups.mp4", {"gop": 1000, "options": {"sc_threshold": "0"}}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_cuts_do_not_depend_on_how_the_video_is_stored(
    name: str, options: dict[str, Any], pictures: list[np.ndarray], tmp_path: Path
) -> None:
    clips, status = cut(make_video(tmp_path / name, pictures=pictures, **options))
    assert (status, spans(clips)) == ("done", SPANS)


def test_cuts_do_not_depend_on_the_size(tmp_path: Path) -> None:
    """Frames are looked at in a width of 256; one that is wider, and one that is a stripe."""
    for size in ((640, 32), (16, 128)):
        video = make_video(tmp_path / f"{size[0]}.mp4", pictures=scenes((1, 2, 3), LENGTHS, size))
        assert spans(cut(video)[0]) == SPANS


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.ts"])
def test_seconds_count_from_the_first_frame(name: str, pictures: list[np.ndarray], tmp_path: Path) -> None:
    clips, status = cut(make_video(tmp_path / name, pictures=pictures, start_pts=80))
    assert (status, spans(clips), frames_of(clips)) == ("done", SPANS, list(LENGTHS))


@pytest.mark.parametrize("rate", [Fraction(10), Fraction(30_000, 1001), Fraction(60)])
def test_seconds_are_those_of_the_frame_rate(rate: Fraction, tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", pictures=scenes((1, 2, 3), LENGTHS), rate=rate)
    clips, status = cut(video)
    marks = [float(n / rate) for n in (0, *itertools.accumulate(LENGTHS))]
    assert (status, frames_of(clips)) == ("done", list(LENGTHS))
    np.testing.assert_allclose(spans(clips), list(itertools.pairwise(marks)), atol=1e-5)


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_cuts_of_a_variable_frame_rate_are_at_the_times_of_their_frames(
    name: str, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    ticks = list(itertools.accumulate([0, *(1 + i % 4 for i in range(99))]))
    video = make_video(tmp_path / name, pictures=pictures, pts=ticks, time_base=Fraction(1, 50))
    clips, status = cut(video)
    assert (status, frames_of(clips)) == ("done", list(LENGTHS))
    starts = [ticks[n] / 50 for n in (0, 30, 75)]
    np.testing.assert_allclose([start for start, _ in spans(clips)], starts, atol=0.001)
    assert [end for _, end in spans(clips)][:2] == [start for start, _ in spans(clips)][1:]


# Where there are no cuts


@pytest.mark.parametrize("kind", ["moving", "still", "black", "fading"])
def test_a_video_without_cuts_is_one_scene(kind: str, tmp_path: Path) -> None:
    def fading() -> Iterator[np.ndarray]:
        for i, (one, other) in enumerate(zip(texture(1, 60), texture(2, 60), strict=True)):
            share = min(1.0, max(0.0, (i - 10) / 40))
            yield ((1 - share) * one + share * other).astype(np.uint8)

    made = {
        "moving": texture(1, 60),
        "still": texture(1, 60, still=True),
        "black": flat(60),
        "fading": fading(),
    }
    clips, status = cut(make_video(tmp_path / "v.mp4", pictures=made[kind]))
    assert (status, spans(clips), frames_of(clips)) == ("done", [(0.0, 2.4)], [60])


def test_one_frame_is_one_scene(tmp_path: Path) -> None:
    clips, status = cut(make_video(tmp_path / "v.mp4", 1), scene_min_length_s=0.0)
    assert (status, spans(clips)) == ("done", [(0.0, 0.04)])


# Lengths


def test_scenes_that_are_too_short_are_left_out(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", pictures=scenes((4, 5, 6, 7), (20, 6, 30, 25)))
    assert spans(cut(video)[0]) == [(0.0, 0.8), (0.8, 1.04), (1.04, 2.24), (2.24, 3.24)]
    assert spans(cut(video, scene_min_length_s=0.5)[0]) == [(0.0, 0.8), (1.04, 2.24), (2.24, 3.24)]
    assert spans(cut(video, scene_min_length_s=1.1)[0]) == [(1.04, 2.24)]
    assert cut(video, scene_min_length_s=2.0) == ([], "too_short")


def test_scenes_that_are_too_long_are_cut_by_stride(pictures: list[np.ndarray], tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", pictures=pictures)
    pieces = [(0.0, 0.8), (0.8, 1.2), (1.2, 2.0), (2.0, 2.8), (2.8, 3.0), (3.0, 3.8), (3.8, 4.0)]
    assert spans(cut(video, scene_max_length_s=0.8, scene_min_length_s=0.1)[0]) == pieces
    longer = [span for span in pieces if span[1] - span[0] > 0.3]
    assert spans(cut(video, scene_max_length_s=0.8, scene_min_length_s=0.3)[0]) == longer


def test_the_number_of_scenes_can_be_limited(pictures: list[np.ndarray], tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", pictures=pictures)
    assert spans(cut(video, limit_clips=2)[0]) == SPANS[:2]


def test_the_lengths_of_fixed_stride_make_no_difference(pictures: list[np.ndarray], tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", pictures=pictures)
    assert spans(cut(video, duration_s=100.0, stride_s=0.5, min_length_s=50.0)[0]) == SPANS


# Faults


def test_scenes_before_a_fault_are_kept(pictures: list[np.ndarray], tmp_path: Path) -> None:
    video = damage(make_video(tmp_path / "v.mkv", pictures=pictures, codec="ffv1"), 90)
    clips, status = cut(video, tmp_path / "clips")
    assert (status, spans(clips), frames_of(clips)) == ("decode_error", SPANS[:2], list(LENGTHS[:2]))


def test_a_playlist_is_not_opened_by_the_detector_either(pictures: list[np.ndarray], tmp_path: Path) -> None:
    real = make_video(tmp_path / "real.ts", pictures=pictures)
    (tmp_path / "v.mp4").write_text(f"ffconcat version 1.0\nfile '{real}'\n")
    assert cut(tmp_path / "v.mp4") == ([], "unreadable")


def test_limits_hold_for_the_detector_too(pictures: list[np.ndarray], tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", pictures=pictures)
    assert cut(video, limits=Limits(max_frames=99)) == ([], "too_large")
    assert cut(video, limits=Limits(max_frames=100))[1] == "done"


# The workflow


def test_a_plan_finds_the_same_scenes(pictures: list[np.ndarray], tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", pictures=pictures)
    planned = [item for item in plan_video(split_job(video, None, algorithm="scene", scene_min_length_s=0.2)) if item]
    assert isinstance(planned[0], PlannedVideo)
    assert planned[0].spans == [Span(*span) for span in SPANS]


def test_the_workflow_splits_into_scenes_and_does_not_mix_them_with_others(
    pictures: list[np.ndarray], client: distributed.Client, tmp_path: Path
) -> None:
    make_video(tmp_path / "in" / "three.mp4", pictures=pictures)
    make_video(tmp_path / "in" / "one.mp4", pictures=texture(9, 50))
    out = tmp_path / "out"
    scene = {"splitting_algorithm": "scene", "scene_min_length_s": 0.5}
    result = splitter(tmp_path / "in", out, **scene).run(client)
    assert (result.count("done"), result.clips) == (2, 4)
    rows = read_rows(out)
    found = list(rows[["video", "start_s", "end_s"]].itertuples(index=False, name=None))
    assert found == [("one.mp4", 0.0, 2.0), *(("three.mp4", *span) for span in SPANS)]
    assert splitter(tmp_path / "in", out, **scene).run(client).processed == 0
    with pytest.raises(OutputConflictError, match="scene_min_length_s"):
        splitter(tmp_path / "in", out, **{**scene, "scene_min_length_s": 0.6}).run(client)
    with pytest.raises(OutputConflictError, match="splitting_algorithm"):
        splitter(tmp_path / "in", out).run(client)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("scene_max_length_s", {"scene_max_length_s": 0.0}),
        ("scene_min_length_s", {"scene_min_length_s": -1.0}),
        ("scene_min_length_s", {"scene_min_length_s": 61.0}),
        ("splitting_algorithm", {"splitting_algorithm": "scenes"}),
    ],
)
def test_lengths_that_make_no_sense_are_refused_by_name(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=name):
        splitter(tmp_path, tmp_path / "out", **{"splitting_algorithm": "scene", **options})


WITHOUT = """
import sys
from pathlib import Path

sys.modules["scenedetect"] = None  # to import it fails, as where it is not installed

import semdedup
from tests.splits import splitter
from tests.videos import split

video = Path(sys.argv[1])
try:
    splitter(video.parent, video.parent / "out", splitting_algorithm="scene")
except semdedup.ParameterError as error:
    print(error)
print(split(video, None)[1].status)
print((video.parent / "out").exists())
"""


def test_without_the_extra_the_error_names_it_and_the_rest_works(tmp_path: Path) -> None:
    video = make_video(tmp_path / "v.mp4", 30)
    with contextlib.chdir(Path(__file__).parents[1]):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT, str(video)], capture_output=True, text=True, timeout=120, check=True
        )
    error, status, wrote = done.stdout.splitlines()
    assert "pip install 'scenedetect-headless[pyav]" in error
    assert "splitting_algorithm" in error
    assert (status, wrote) == ("done", "False")
