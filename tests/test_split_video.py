"""One video cut into clips: the frames say their numbers, so what a clip holds is read from its pictures."""

import gc
import itertools
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from semdedup.video.child import Child
from semdedup.video.cut import plan_video, split_video
from semdedup.video.encode import ENCODERS, usable_encoders
from semdedup.video.job import ClipMade, Outcome, PlannedVideo
from semdedup.video.plan import Span
from semdedup.video.steps.embed.dct3d import dct3d
from semdedup.video.steps.protocol import Sampling
from semdedup.video.timeline import sample_times
from tests.helpers import contents, files_below
from tests.videos import (
    DCT3D,
    clip_numbers,
    clip_path,
    flat,
    make_sound,
    make_video,
    number_of,
    numbers,
    probe,
    read_beeps,
    read_frames,
    read_numbers,
    read_packets,
    read_times,
    split,
    split_job,
    texture,
)

USABLE = next(usable_encoders(ENCODERS))


def ranges(*marks: int) -> list[list[int]]:
    """Numbers from each mark up to the next."""
    return [list(range(a, b)) for a, b in itertools.pairwise(marks)]


def spans(clips: list[ClipMade]) -> list[tuple[float, float]]:
    return [(clip.facts["start_s"], clip.facts["end_s"]) for clip in clips]


def assert_plays(path: Path, width: int, height: int) -> None:
    """Assert that a clip is what players take: 8 bits, 4:2:0, upright, of even sides, from 0 on."""
    told = probe(path)
    assert (told["width"], told["height"], told["pix_fmt"]) == (width, height, "yuv420p")
    with av.open(str(path)) as file:
        frames = list(file.decode(video=0))
        assert file.streams.video[0].start_time == 0
    assert frames[0].time == 0
    assert {(frame.width, frame.height, frame.rotation) for frame in frames} == {(width, height, 0)}
    assert len(frames) == told["n_frames"]


def test_clips_hold_exactly_their_frames(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", 60)
    clips, outcome = split(video, tmp_path / "out")
    assert (outcome.status, outcome.reason, outcome.detail) == ("done", "", "")
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 25, 50, 60)
    assert spans(clips) == [(0, 1), (1, 2), (2, 2.4)]
    facts = clips[0].facts
    assert facts["n_bytes"] == clip_path(tmp_path / "out", clips[0]).stat().st_size
    known = {"duration_s": 1.0, "width": 64, "height": 48, "fps": 25.0, "n_frames": 25, "codec": "h264", "audio": False}
    assert {name: facts[name] for name in known} == known
    assert files_below(tmp_path / "out") == sorted(f"{clip.facts['id']}.mp4" for clip in clips)
    n_bytes = sum(map(len, read_packets(video)))
    assert outcome.facts["bitrate"] == round(8 * n_bytes / 2.4)
    assert outcome.facts["n_frames"] == outcome.facts["n_frames_declared"] == 60


@pytest.mark.parametrize("rate", [Fraction(24_000, 1001), Fraction(30_000, 1001), Fraction(60)], ids=str)
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_no_frame_is_lost_or_twice_at_any_rate(tmp_path: Path, rate: Fraction, container: str) -> None:
    video = make_video(tmp_path / f"a.{container}", 130, rate=rate)
    clips, _ = split(video, tmp_path / "out", duration_s=0.5, min_length_s=0)
    firsts = [-(-i * rate // 2) for i in range(len(clips))]  # frame n is shown at n / rate; the first not before i / 2
    assert clip_numbers(tmp_path / "out", clips) == ranges(*map(int, firsts), 130)


def test_clips_overlap_where_the_stride_is_shorter(tmp_path: Path) -> None:
    clips, _ = split(make_video(tmp_path / "a.mp4", 60), tmp_path / "out", stride_s=0.4, min_length_s=1)
    assert spans(clips) == [(0, 1), (0.4, 1.4), (0.8, 1.8), (1.2, 2.2)]
    assert clip_numbers(tmp_path / "out", clips) == [list(range(i, i + 25)) for i in (0, 10, 20, 30)]


def test_frames_between_clips_are_left_out(tmp_path: Path) -> None:
    clips, outcome = split(make_video(tmp_path / "a.mp4", 60), tmp_path / "out", duration_s=0.4, stride_s=1)
    assert clip_numbers(tmp_path / "out", clips) == [list(range(i, i + 10)) for i in (0, 25, 50)]
    assert outcome.facts["n_frames"] == 60


def test_the_number_of_clips_can_be_limited(tmp_path: Path) -> None:
    clips, outcome = split(make_video(tmp_path / "a.mp4", 60), tmp_path / "out", limit_clips=1)
    assert (spans(clips), outcome.status) == ([(0, 1)], "done")


VARIABLE = [0, 40, 50, 300, 301, 640, 700, 1000, 1013, 1500, 1999, 2000, 2400]
"""Milliseconds."""


@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_times_of_variable_frame_rates_are_kept(tmp_path: Path, container: str) -> None:
    video = make_video(tmp_path / f"a.{container}", len(VARIABLE), rate=30, pts=VARIABLE, time_base=Fraction(1, 1000))
    clips, outcome = split(video, tmp_path / "out", sampling=DCT3D)
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 7, 11, 13)
    for clip, frames in zip(clips, ranges(0, 7, 11, 13), strict=True):
        times = [(VARIABLE[i] - VARIABLE[frames[0]]) / 1000 for i in frames]
        assert read_times(clip_path(tmp_path / "out", clip)) == pytest.approx(times, abs=1e-3)
    assert outcome.facts["duration_s"] == pytest.approx(2.4 + 1 / 30, abs=2e-3)


def test_a_frame_that_stays_for_longer_than_a_clip_gives_clips(tmp_path: Path) -> None:
    """A slide show: clips in which no new frame comes show the one that stays."""
    video = make_video(tmp_path / "a.mp4", 4, rate=1, pts=[0, 35, 36, 60], time_base=Fraction(1, 10))
    clips, outcome = split(video, tmp_path / "out", sampling=DCT3D, previews=True)
    assert outcome.status == "done"
    assert spans(clips) == [(i, i + 1) for i in range(7)]
    assert clip_numbers(tmp_path / "out", clips) == [[0], [0], [0], [0, 1, 2], [2], [2], [3]]
    for clip in clips:
        assert clip.frames is not None
        assert clip.frames.shape == (16, 64, 64, 3)


@pytest.mark.parametrize("container", ["mp4", "mkv", "ts", "mov"])
def test_a_start_that_is_not_zero(tmp_path: Path, container: str) -> None:
    video = make_video(tmp_path / f"a.{container}", 60, start_pts=1000, audio="aac", beeps_s=(0.3, 1.3))
    assert read_times(video)[0] > 39
    clips, outcome = split(video, tmp_path / "out")
    assert (outcome.status, outcome.facts["duration_s"]) == ("done", pytest.approx(2.4, abs=0.03))
    assert spans(clips)[0] == (0, 1)
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 25, 50, 60)
    assert read_beeps(clip_path(tmp_path / "out", clips[1]))[0] == [pytest.approx(0.3, abs=0.05)]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mkv", {"container_options": {"live": "1"}}),
        ("a.flv", {"container_options": {"flvflags": "no_duration_filesize"}}),
        ("a.ts", {}),
        ("a.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}),
    ],
)
def test_a_container_that_does_not_tell_its_duration(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    video = make_video(tmp_path / name, 60, audio="aac", **options)
    clips, outcome = split(video, tmp_path / "out")
    assert (outcome.status, outcome.detail) == ("done", "")
    assert outcome.facts["duration_s"] == pytest.approx(2.4, abs=0.03)
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 25, 50, 60)


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_clips_of_rotated_videos_are_upright(tmp_path: Path, rotation: int) -> None:
    video = make_video(tmp_path / "a.mp4", 30, rotation=rotation)
    clips, outcome = split(video, tmp_path / "out", sampling=DCT3D, previews=True)
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 25, 30)
    assert_plays(clip_path(tmp_path / "out", clips[0]), 64, 48)
    assert (clips[0].facts["width"], clips[0].facts["height"]) == (64, 48)
    assert (outcome.facts["width"], outcome.facts["height"]) == ((64, 48) if rotation == 180 else (48, 64))
    straight, _ = split(make_video(tmp_path / "b.mp4", 30), None, sampling=DCT3D)
    for turned, plain in zip(clips, straight, strict=True):
        assert turned.frames is not None
        assert plain.frames is not None
        assert [number_of(frame) for frame in turned.frames] == [number_of(frame) for frame in plain.frames]


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_a_rotated_video_has_the_embedding_of_the_straight_one(tmp_path: Path, rotation: int) -> None:
    straight, turned = (
        split(make_video(tmp_path / f"{r}.mp4", pictures=texture(5, 50, (96, 64)), rotation=r), None, sampling=DCT3D)[0]
        for r in (0, rotation)
    )
    for a, b in zip(straight, turned, strict=True):
        assert a.frames is not None
        assert b.frames is not None
        assert dct3d(a.frames) @ dct3d(b.frames) > 0.9  # what encoding on its side leaves


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((65, 49), (64, 48)),
        ((33, 48), (32, 48)),
        ((7, 5), (6, 4)),
        ((3, 100), (2, 100)),
        ((1, 1), (2, 2)),
        ((2, 2), (2, 2)),
    ],
)
def test_odd_and_tiny_sizes_give_files_that_play(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    video = make_video(tmp_path / "a.mkv", 12, size=size, codec="ffv1", pix_fmt="yuv444p")
    clips, outcome = split(video, tmp_path / "out", sampling=DCT3D, previews=True)
    assert (outcome.status, outcome.detail) == ("done", "")
    assert_plays(clip_path(tmp_path / "out", clips[0]), *expected)
    assert (clips[0].facts["width"], clips[0].facts["height"]) == expected
    assert clips[0].frames is not None
    assert clips[0].frames.shape == (16, 64, 64, 3)
    if min(size) > 30:
        assert clip_numbers(tmp_path / "out", clips) == ranges(0, 12)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.mp4", {"pix_fmt": "yuv420p10le"}),
        ("a.mp4", {"codec": "libx265", "pix_fmt": "yuv420p10le"}),
        ("a.mkv", {"codec": "libx265", "pix_fmt": "yuv444p12le"}),
        ("a.mp4", {"pix_fmt": "yuv444p"}),
        ("a.mov", {"codec": "prores", "pix_fmt": "yuv422p10le"}),
        ("a.mkv", {"codec": "ffv1", "pix_fmt": "gray"}),
        ("a.mov", {"codec": "png", "pix_fmt": "rgba"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "-".join(value.values()),
)
def test_other_pixel_formats_become_eight_bits(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    clips, outcome = split(make_video(tmp_path / name, 30, **options), tmp_path / "out")
    assert outcome.facts["pixel_format"] == options["pix_fmt"]
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 25, 30)
    assert_plays(clip_path(tmp_path / "out", clips[0]), 64, 48)


def test_ten_bits_keep_their_brightness(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", pictures=flat(10, grey=180), pix_fmt="yuv420p10le", codec="libx265")
    clips, _ = split(video, tmp_path / "out")
    assert np.abs(read_frames(clip_path(tmp_path / "out", clips[0]))[3][1].astype(int) - 180).max() <= 3


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.ts", {"audio": "aac"}),
        ("a.mpg", {"codec": "mpeg2video", "audio": "mp2"}),
        ("a.webm", {"codec": "libvpx-vp9", "audio": "libopus"}),
        ("a.avi", {"codec": "mpeg4", "audio": "pcm_s16le"}),
        ("a.avi", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}),
        ("a.flv", {"audio": "aac"}),
        ("a.mov", {"codec": "mjpeg", "pix_fmt": "yuvj420p", "audio": "pcm_s16le"}),
        ("a.3gp", {"codec": "mpeg4", "audio": "aac"}),
        ("a.wmv", {"codec": "wmv2", "audio": "wmav2"}),
        ("a.mxf", {"codec": "mpeg2video"}),
        ("a.ogv", {"codec": "libvpx", "audio": "libopus", "container": "ogg"}),
    ],
    ids=lambda value: value if isinstance(value, str) else value.get("codec", "libx264"),
)
def test_containers(tmp_path: Path, name: str, options: dict[str, Any]) -> None:
    clips, outcome = split(make_video(tmp_path / name, 60, **options), tmp_path / "out")
    assert (outcome.status, outcome.detail) == ("done", "")
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 25, 50, 60)
    assert_plays(clip_path(tmp_path / "out", clips[0]), 64, 48)
    assert all(clip.facts["audio"] is ("audio" in options) for clip in clips)


def test_a_gif(tmp_path: Path) -> None:
    clips, outcome = split(make_video(tmp_path / "a.gif", 30, codec="gif", pix_fmt="rgb8", rate=20), tmp_path / "out")
    assert outcome.status == "done"
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 20, 30)


BEEPS_S = (0.2, 0.7, 1.1, 1.6, 2.2)


@pytest.mark.parametrize(
    ("name", "audio", "expected"),
    [
        ("a.mp4", "aac", "aac"),
        ("a.mkv", "ac3", "ac3"),
        ("a.mkv", "libopus", "opus"),
        ("a.mkv", "flac", "flac"),
        ("a.mp4", "libmp3lame", "mp3"),
        ("a.avi", "libmp3lame", "aac"),
        ("a.mov", "pcm_s16le", "aac"),
        ("a.avi", "pcm_s16le", "aac"),
        ("a.ts", "aac", "aac"),
    ],
)
def test_sound_stays_with_its_pictures(tmp_path: Path, name: str, audio: str, expected: str) -> None:
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    video = make_video(tmp_path / name, 60, codec=codec, audio=audio, beeps_s=BEEPS_S)
    clips, outcome = split(video, tmp_path / "out")
    assert outcome.status == "done"
    assert len(clips) == 3
    for i, clip in enumerate(clips):
        path = clip_path(tmp_path / "out", clip)
        assert clip.facts["audio"] is True
        assert probe(path)["audio"] == [expected]
        heard, end_s = read_beeps(path)
        assert heard == [pytest.approx(beep - i, abs=0.05) for beep in BEEPS_S if i <= beep < i + 1]
        assert end_s == pytest.approx(clip.facts["duration_s"], abs=0.1 if audio == "flac" else 0.05)  # whole packets


def test_sound_that_ends_early_or_late_does_no_harm(tmp_path: Path) -> None:
    for audio_s in (0.5, 9.0):
        video = make_video(tmp_path / f"{audio_s}.mp4", 60, audio="aac", audio_s=audio_s, beeps_s=(0.2,))
        clips, outcome = split(video, tmp_path / "out")
        assert (outcome.status, outcome.detail) == ("done", "")
        assert clip_numbers(tmp_path / "out", clips) == ranges(0, 25, 50, 60)
        assert read_beeps(clip_path(tmp_path / "out", clips[0]))[0] == [pytest.approx(0.2, abs=0.05)]
        with av.open(str(clip_path(tmp_path / "out", clips[2]))) as file:
            assert float(file.duration / av.time_base) == pytest.approx(0.4, abs=0.05)


@pytest.mark.parametrize("open_gop", [0, 1])
@pytest.mark.parametrize("container", ["mp4", "mkv"])
def test_copied_clips_hold_the_packets_of_the_source(tmp_path: Path, container: str, open_gop: int) -> None:
    """Key frames every 10 frames; clips of one second begin at the one before, and the true span is told."""
    options = {"preset": "veryfast", "x264-params": f"scenecut=0:min-keyint=10:open-gop={open_gop}:bframes=2:b-adapt=0"}
    video = make_video(tmp_path / f"a.{container}", 60, gop=10, options=options, audio="aac", beeps_s=BEEPS_S)
    clips, outcome = split(video, tmp_path / "out", cut="copy", sampling=DCT3D)
    assert (outcome.status, outcome.detail) == ("done", "")
    assert spans(clips) == [(0, 0.8), (0.8, 2.0), (2.0, 2.4)]
    packets = read_packets(video)
    copied = [read_packets(clip_path(tmp_path / "out", clip)) for clip in clips]
    if not open_gop:
        assert list(itertools.chain(*copied)) == packets
        assert clip_numbers(tmp_path / "out", clips) == ranges(0, 20, 50, 60)
    for clip, kept, shown in zip(clips, copied, ranges(0, 20, 50, 60), strict=True):
        path = clip_path(tmp_path / "out", clip)
        assert set(kept) <= set(packets)
        assert set(shown) - set(read_numbers(path)) <= set(shown[-2:])  # those that refer to the next key frame
        with av.open(str(path)) as file:
            assert next(file.demux(video=0)).is_keyframe
        assert clip.facts["codec"] == "h264"
        heard, _ = read_beeps(path)
        start_s, end_s = clip.facts["start_s"], clip.facts["end_s"]
        assert heard == [pytest.approx(b - start_s, abs=0.05) for b in BEEPS_S if start_s <= b < end_s]
    assert set(map(len, copied)) != {0}


def test_copied_clips_of_a_rotated_video_keep_its_rotation(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", 50, gop=25, rotation=90)
    clips, _ = split(video, tmp_path / "out", cut="copy")
    with av.open(str(clip_path(tmp_path / "out", clips[1]))) as file, av.open(str(video)) as source:
        assert next(file.decode(video=0)).rotation == next(source.decode(video=0)).rotation == -90


def test_a_codec_that_mp4_does_not_hold_is_told_when_copying(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.avi", 30, codec="wmv2")
    clips, outcome = split(video, tmp_path / "out", cut="copy")
    assert (clips, outcome.status, outcome.reason) == ([], "quarantined", "encode_error")
    assert "cannot be written" in outcome.detail
    assert files_below(tmp_path / "out") == []


@pytest.mark.parametrize("encoder", USABLE)
def test_every_encoder_gives_clips_that_play(tmp_path: Path, encoder: str) -> None:
    video = make_video(tmp_path / "a.mp4", 30, size=(160, 120), audio="aac")
    clips, outcome = split(video, tmp_path / "out", encoder=encoder)
    assert outcome.status == "done"
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 25, 30)
    assert_plays(clip_path(tmp_path / "out", clips[0]), 160, 120)
    assert clips[0].facts["codec"] == {"libvpx-vp9": "vp9", "libsvtav1": "av1"}.get(encoder, "h264")
    split(video, tmp_path / "again", encoder=encoder)
    assert contents(tmp_path / "out") == contents(tmp_path / "again")
    if hasattr(os, "sched_getscheduler"):
        assert os.sched_getscheduler(0) == os.SCHED_OTHER, "as SVT-AV1 does not leave it, where root runs it"


def test_the_same_input_gives_the_same_bytes_here_and_in_a_child(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", pictures=texture(1, 60, (160, 120)), audio="pcm_s16le", container="mov")
    options: dict[str, Any] = {"previews": True, "sampling": DCT3D}
    first, outcome = split(video, tmp_path / "1", **options)
    split(video, tmp_path / "2", **options)
    (tmp_path / "3").mkdir()
    child = Child()
    try:
        found = list(child.call(split_video, split_job(video, tmp_path / "3", **options), 60))
    finally:
        child.kill()
    assert len(contents(tmp_path / "1")) == 6
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "3")
    for here, there in zip(first, (item for item in found if isinstance(item, ClipMade)), strict=True):
        assert here.facts == there.facts
        np.testing.assert_array_equal(here.frames, there.frames)
    assert found[-1] == outcome


@pytest.mark.parametrize(
    ("size", "expected"), [((320, 480), (240, 360)), ((640, 480), (320, 240)), ((96, 64), (96, 64))]
)
def test_previews_are_animated_and_small(tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]) -> None:
    """One frame a second; the shorter side has at most 240 pixels."""
    video = make_video(tmp_path / "a.mp4", 25, size=size, rate=5)
    clips, _ = split(video, tmp_path / "out", previews=True, duration_s=3.0)
    shown = []
    for clip in clips:
        with Image.open(tmp_path / "out" / f"{clip.facts['id']}.webp") as image:
            assert (image.format, image.size) == ("WEBP", expected)
            for i in range(getattr(image, "n_frames", 1)):
                image.seek(i)
                shown.append(number_of(np.asarray(image.convert("RGB"))))
    assert shown == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("n_samples", [1, 7, 16, 60])
def test_sampled_frames_are_those_shown_at_the_midpoints(tmp_path: Path, n_samples: int) -> None:
    video = make_video(tmp_path / "a.mkv", len(VARIABLE), rate=30, pts=VARIABLE, time_base=Fraction(1, 1000))
    for path in (video, make_video(tmp_path / "b.mp4", 60, rate=Fraction(30_000, 1001))):
        clips, _ = split(path, None, sampling=Sampling(n_samples, (30, 40), 30))
        times = read_times(path)
        for clip in clips:
            start_s, end_s = clip.facts["start_s"], clip.facts["end_s"]
            inside = [i for i, time in enumerate(times) if start_s <= time < end_s]
            expected = [
                max((i for i in inside if times[i] <= moment), default=inside[0])
                for moment in sample_times(Span(start_s, end_s), n_samples)
            ]
            assert clip.frames is not None
            assert clip.frames.shape == (n_samples, 30, 40, 3)
            assert [number_of(frame) for frame in clip.frames] == expected


def test_sampled_frames_keep_their_aspect_without_a_size(tmp_path: Path) -> None:
    video = make_video(tmp_path / "a.mp4", 30, size=(320, 240))
    for side, shape in ((60, (60, 80)), (500, (240, 320))):
        clips, _ = split(video, None, sampling=Sampling(4, None, side))
        assert clips[0].frames is not None
        assert clips[0].frames.shape == (4, *shape, 3)


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    video = make_video(tmp_path / "in" / "a.mp4", 60)
    clips, outcome = split(video, None, previews=True, sampling=DCT3D)
    assert (len(clips), outcome.status) == (3, "done")
    assert "n_bytes" not in clips[0].facts
    assert clips[0].facts["n_frames"] == 25
    assert files_below(tmp_path) == ["in/a.mp4"]


def test_a_plan_tells_what_splitting_gives_and_writes_nothing(tmp_path: Path) -> None:
    video = make_video(tmp_path / "in" / "a.mp4", 60)
    *_, planned = plan_video(split_job(video, tmp_path))
    assert isinstance(planned, PlannedVideo)
    clips, _ = split(video, tmp_path / "out")
    assert [(span.start_s, span.end_s) for span in planned.spans] == spans(clips)
    *_, refused = plan_video(split_job(make_sound(tmp_path / "in" / "s.mp4"), tmp_path))
    assert isinstance(refused, Outcome)
    assert refused.reason == "no_video"


def test_a_video_that_is_a_clip_already_is_taken_whole(tmp_path: Path) -> None:
    video = make_video(tmp_path / "cl.ip.mp4", 30)
    clips, outcome = split(video, None, plan=None, sampling=DCT3D)
    assert outcome.status == "done"
    assert [(clip.facts["id"], clip.facts["n_frames"]) for clip in clips] == [("cl.ip", 30)]
    assert spans(clips) == [(0, 1.2)]


@pytest.mark.parametrize("start_pts", [0, 900])
def test_a_recording_behind_another_in_one_file_is_shown_after_it(start_pts: int, tmp_path: Path) -> None:
    first = make_video(tmp_path / "1.ts", 100, start_pts=start_pts)
    second = make_video(tmp_path / "2.ts", 50, options={"bf": "2"})
    (tmp_path / "both.ts").write_bytes(first.read_bytes() + second.read_bytes())
    clips, outcome = split(tmp_path / "both.ts", tmp_path / "clips", duration_s=2.0, min_length_s=0.5)
    assert outcome.status == "done"
    assert spans(clips) == [(0, 2), (2, 4), (4, 6)]
    found = [read_numbers(clip_path(tmp_path / "clips", clip)) for clip in clips]
    assert found == [*ranges(0, 50, 100), list(range(50))]


def test_a_recording_behind_another_is_copied_behind_it(tmp_path: Path) -> None:
    parts = [make_video(tmp_path / f"{i}.ts", 50, gop=25, pictures=numbers(50, first=50 * i)) for i in range(2)]
    (tmp_path / "both.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    clips, outcome = split(tmp_path / "both.ts", tmp_path / "clips", cut="copy")
    assert outcome.status == "done"
    assert clip_numbers(tmp_path / "clips", clips) == ranges(0, 25, 50, 75, 100)


def test_a_change_of_size_in_the_middle_is_scaled_to_the_first(tmp_path: Path) -> None:
    """MPEG-TS may change its parameters on the way: a recording of two programmes."""
    parts = [
        make_video(tmp_path / f"{i}.ts", pictures=numbers(25, size, first=25 * i), start_pts=25 * i)
        for i, size in enumerate([(64, 48), (96, 80)])
    ]
    video = tmp_path / "a.ts"
    video.write_bytes(b"".join(part.read_bytes() for part in parts))
    clips, outcome = split(video, tmp_path / "out", duration_s=2.0, sampling=DCT3D)
    assert (outcome.status, outcome.detail) == ("done", "")
    assert clip_numbers(tmp_path / "out", clips) == ranges(0, 50)
    assert_plays(clip_path(tmp_path / "out", clips[0]), 64, 48)


def test_a_clip_that_the_encoder_refuses_costs_that_clip(tmp_path: Path) -> None:
    """H.264 ends at 16,384 pixels: in the middle of a video of JPEGs these become wider."""
    narrow, wide = (
        make_video(tmp_path / f"{size[0]}.mkv", pictures=flat(25, size), codec="mjpeg", pix_fmt="yuvj420p")
        for size in ((64, 48), (16_400, 16))
    )
    with av.open(str(narrow)) as source, av.open(str(tmp_path / "a.mkv"), "w") as out:
        track = out.add_stream_from_template(source.streams.video[0])
        for i, content in enumerate([*read_packets(narrow), *read_packets(wide)]):
            packet = av.Packet(content)
            packet.pts = packet.dts = i
            packet.time_base, packet.stream = Fraction(1, 25), track
            out.mux(packet)
    clips, outcome = split(tmp_path / "a.mkv", tmp_path / "out", duration_s=1.0)
    assert (outcome.status, spans(clips)) == ("done", [(0, 1)])
    (fault,) = outcome.facts["clip_faults"]
    assert fault["reason"] == "encode_error"
    assert "invalid width" in fault["detail"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == [clip_path(tmp_path, clips[0]).name]


def test_no_frame_waits_for_the_garbage_collector(tmp_path: Path) -> None:
    """A hundred frames of 4K are a gigabyte."""
    video = make_video(tmp_path / "a.mp4", 100, rotation=90)
    gc.collect()
    gc.disable()
    try:
        clips, _ = split(video, tmp_path / "out", sampling=DCT3D)
        waiting = sum(isinstance(thing, av.VideoFrame) for thing in gc.get_objects())
    finally:
        gc.enable()
    assert len(clips) == 4
    assert waiting < 5
