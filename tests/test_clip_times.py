"""When a clip shows what: each picture for as long as the source shows it, and the file as long as its span."""

import itertools
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest

from semdedup.video.job import ClipMade
from tests.oracle import ffmpeg
from tests.videos import DCT3D, clip_path, make_video, number_of, read_beeps, read_frames, read_numbers, split

FRAME_S = 1 / 25
"""Of the commonest rate; where frames come more seldom a clip has to be as exact."""

FRAMES_OFF = 1.5
"""Frames by which a file may be longer or shorter than its span."""


class Lengths(NamedTuple):
    """Seconds that a file lasts: as its container tells, and as its video track does."""

    container: float
    video: float


def lengths(path: Path) -> Lengths:
    with av.open(str(path)) as file:
        stream = file.streams.video[0]
        assert file.duration is not None
        assert stream.duration is not None
        return Lengths(float(file.duration / av.time_base), float(stream.duration * stream.time_base))


def assert_lasts(path: Path, clip: ClipMade, frame_s: float = FRAME_S) -> None:
    """Assert that a file lasts its span, whichever part of it is asked, and begins with a picture."""
    expected = pytest.approx(clip.facts["duration_s"], abs=FRAMES_OFF * frame_s)
    assert lengths(path) == (expected, expected)
    assert read_frames(path)[0][0] == 0


def shown_at(path: Path, moments: list[float]) -> list[int]:
    """The numbers that a video of numbered frames shows at some seconds from its start."""
    times, numbers = zip(*((time, number_of(pixels)) for time, pixels in read_frames(path)), strict=True)
    return [numbers[int(np.searchsorted(times, moment, side="right")) - 1] for moment in moments]


def assert_shows(folder: Path, clips: list[ClipMade], times: list[float], frame_s: float = FRAME_S) -> None:
    """Assert that clips show at each moment what the source shows there, and last their spans.

    Args:
        folder: of the clips.
        clips: what `split` gave.
        times: seconds at which the source begins to show the frames 0, 1, 2, …
        frame_s: seconds of a frame.
    """
    for clip in clips:
        start_s, end_s = clip.facts["start_s"], clip.facts["end_s"]
        edges = [start_s, *(time for time in times if start_s < time < end_s), end_s]
        moments = [(a + b) / 2 for a, b in itertools.pairwise(edges) if b - a > frame_s / 2]
        path = clip_path(folder, clip)
        expected = [int(np.searchsorted(times, moment, side="right")) - 1 for moment in moments]
        assert shown_at(path, [moment - start_s for moment in moments]) == expected
        assert_lasts(path, clip, frame_s)


BEEPS_S = [0.5 + 1.5 * i for i in range(18)]


@pytest.mark.parametrize("name", ["slides.mkv", "slides.mp4"])
def test_a_slide_stands_in_every_clip_for_its_time_and_has_its_sound(tmp_path: Path, name: str) -> None:
    """A slide every seven seconds, and clips of three."""
    times = [0.0, 7.0, 14.0, 21.0]
    video = make_video(tmp_path / name, 4, rate=Fraction(1, 7), options={"bf": "0"}, audio="aac", beeps_s=BEEPS_S)
    clips, outcome = split(video, tmp_path / "clips", duration_s=3.0, sampling=DCT3D)
    assert (outcome.status, outcome.facts["duration_s"]) == ("done", pytest.approx(28, abs=0.05))
    assert [clip.facts["start_s"] for clip in clips] == [3.0 * i for i in range(10)]
    assert_shows(tmp_path / "clips", clips, times)
    for clip in clips:
        start_s, end_s = clip.facts["start_s"], clip.facts["end_s"]
        assert clip.facts["audio"] is True
        heard, sound_end_s = read_beeps(clip_path(tmp_path / "clips", clip))
        assert heard == [pytest.approx(beep - start_s, abs=FRAME_S) for beep in BEEPS_S if start_s <= beep < end_s]
        assert sound_end_s == pytest.approx(end_s - start_s, abs=2 * FRAME_S)
        assert clip.frames is not None
        moments = [start_s + (i + 0.5) * (end_s - start_s) / 16 for i in range(16)]
        expected = [int(np.searchsorted(times, moment, side="right")) - 1 for moment in moments]
        assert [number_of(frame) for frame in clip.frames] == expected


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_the_last_frame_of_a_clip_lasts_its_time(tmp_path: Path, name: str) -> None:
    """A frame every four seconds, and clips of ten."""
    video = make_video(tmp_path / name, 10, rate=Fraction(1, 4))
    clips, _ = split(video, tmp_path / "clips", duration_s=10.0)
    assert [clip.facts["end_s"] for clip in clips] == [10, 20, 30, 40]
    assert_shows(tmp_path / "clips", clips, [4.0 * i for i in range(10)])


VARIABLE = [0, 40, 50, 300, 301, 640, 700, 1000, 1013, 1500, 1999, 2300, 4100, 4140, 5700]
"""Milliseconds."""


@pytest.mark.parametrize(("name", "duration_s"), [("a.mkv", 0.5), ("a.mkv", 1.0), ("a.mp4", 2.0)])
def test_clips_of_a_variable_rate_show_each_frame_for_its_time(tmp_path: Path, name: str, duration_s: float) -> None:
    video = make_video(tmp_path / name, len(VARIABLE), rate=25, pts=VARIABLE, time_base=Fraction(1, 1000))
    clips, outcome = split(video, tmp_path / "clips", duration_s=duration_s, min_length_s=0.0)
    assert outcome.facts["duration_s"] == pytest.approx(5.7 + 1 / 25, abs=0.01)
    assert_shows(tmp_path / "clips", clips, [time / 1000 for time in VARIABLE])
    found = [read_numbers(clip_path(tmp_path / "clips", clip)) for clip in clips]
    assert sorted({number for numbers in found for number in numbers}) == list(range(len(VARIABLE)))


B_FRAMES = {"preset": "veryfast", "bf": "3", "x264-params": "b-adapt=0:b-pyramid=normal:scenecut=0"}


@pytest.mark.parametrize(
    ("name", "codec", "options"),
    [
        ("a.avi", "libx264", {"preset": "veryfast", "bf": "1"}),
        ("a.avi", "libx264", B_FRAMES),
        ("a.avi", "mpeg4", {"bf": "2"}),
        ("a.mpg", "mpeg2video", {"bf": "2"}),
        ("a.ts", "libx264", B_FRAMES),
    ],
    ids=["avi-h264-b1", "avi-h264-pyramid", "avi-mpeg4", "mpg-mpeg2", "ts-h264"],
)
def test_frames_that_are_stored_out_of_order_are_neither_lost_nor_late(
    tmp_path: Path, name: str, codec: str, options: dict[str, str]
) -> None:
    """AVI has no times of presentation: its packets tell when they are decoded, and that in whole frames."""
    video = make_video(tmp_path / name, 130, codec=codec, options=options, gop=30)
    clips, outcome = split(video, tmp_path / "clips")
    found = [read_numbers(clip_path(tmp_path / "clips", clip)) for clip in clips]
    assert list(itertools.chain(*found)) == list(range(130))
    assert found == [list(range(i, min(i + 25, 130))) for i in range(0, 130, 25)]
    assert outcome.facts["n_frames"] == sum(clip.facts["n_frames"] for clip in clips) == 130
    for clip in clips:
        assert_lasts(clip_path(tmp_path / "clips", clip), clip)


def tones_and_pictures(path: Path) -> list[tuple[float, int]]:
    """When tones begin, and the number of the picture that a video shows at that moment."""
    heard, _ = read_beeps(path)
    return list(zip(heard, shown_at(path, heard), strict=True))


@pytest.mark.parametrize(
    ("name", "audio"),
    [("a.avi", "libmp3lame"), ("a.avi", "pcm_s16le"), ("a.mkv", "aac"), ("a.ts", "aac"), ("a.mov", "pcm_s16le")],
)
def test_tones_come_with_the_pictures_that_ffmpeg_shows_with_them(tmp_path: Path, name: str, audio: str) -> None:
    """Pictures are stored out of order; what plays together is asked of FFmpeg, for AVI does not tell it."""
    video = make_video(tmp_path / name, 100, options=B_FRAMES, audio=audio, beeps_s=[0.42, 1.22, 2.62, 3.42])
    played = tmp_path / "played.mkv"
    ffmpeg("-i", video, "-fps_mode", "passthrough", "-c:v", "ffv1", "-c:a", "pcm_s16le", played)
    expected = [number for _, number in tones_and_pictures(played)]
    clips, _ = split(video, tmp_path / "clips", duration_s=2.0)
    found = [number for clip in clips for _, number in tones_and_pictures(clip_path(tmp_path / "clips", clip))]
    assert found == pytest.approx(expected, abs=1)


BROKEN_RATES = [
    ("a.mp4", Fraction(30_000, 1001), 1.0, 5),
    ("a.mkv", Fraction(30_000, 1001), 10.0, 13),
    ("a.ts", Fraction(24_000, 1001), 1.0, 5),
    ("a.mp4", Fraction(60_000, 1001), 1.0, 4),
]


@pytest.mark.parametrize(("name", "rate", "duration_s", "seconds"), BROKEN_RATES)
def test_at_broken_rates_no_frame_comes_twice_and_none_is_lost(
    tmp_path: Path, name: str, rate: Fraction, duration_s: float, seconds: int
) -> None:
    """An edge falls between two frames: the one before it stands there, but for less than the time of a frame."""
    n_frames = int(seconds * rate)
    video = make_video(tmp_path / name, n_frames, rate=rate, size=(32, 24), gop=100)
    clips, _ = split(video, tmp_path / "clips", duration_s=duration_s)
    found = [read_numbers(clip_path(tmp_path / "clips", clip)) for clip in clips]
    assert list(itertools.chain(*found)) == list(range(n_frames))
    for clip in clips:
        assert_lasts(clip_path(tmp_path / "clips", clip), clip, float(1 / rate))


def with_a_gap(path: Path, gap_s: int, **options: Any) -> Path:
    """A second of frames, one frame later, and a second of frames from there on."""
    ticks = [*range(25), *range(25 * (1 + gap_s), 25 * (1 + gap_s) + 25)]
    return make_video(path, len(ticks), pts=ticks, **options)


def test_a_frame_stands_for_a_minute_and_no_clip_is_cut_from_the_rest_of_a_gap(tmp_path: Path) -> None:
    video = with_a_gap(tmp_path / "a.mkv", 3600)
    clips, outcome = split(video, tmp_path / "clips", duration_s=10.0)
    assert (outcome.status, outcome.reason) == ("done", "")
    assert [clip.facts["start_s"] for clip in clips[:6]] == [0, 10, 20, 30, 40, 50]
    for clip in clips[6:]:
        assert clip.facts["end_s"] < 62 or clip.facts["start_s"] > 3590
    assert len(clips) <= 9
    assert outcome.facts["gap_s"] == pytest.approx(3600 - 60, abs=15)
    numbers = [read_numbers(clip_path(tmp_path / "clips", clip)) for clip in clips]
    assert {number for found in numbers for number in found} == set(range(50))
    for clip in clips:
        assert_lasts(clip_path(tmp_path / "clips", clip), clip)


def test_within_a_minute_a_frame_stands_and_nothing_is_left_out(tmp_path: Path) -> None:
    video = with_a_gap(tmp_path / "a.mkv", 45)
    clips, outcome = split(video, tmp_path / "clips", duration_s=10.0)
    assert [clip.facts["start_s"] for clip in clips] == [0, 10, 20, 30, 40]
    assert not outcome.facts.get("gap_s")
    ticks = [*range(25), *range(25 * 46, 25 * 46 + 25)]
    assert_shows(tmp_path / "clips", clips, [tick / 25 for tick in ticks])
