"""What a clip cannot show of its source is counted and told: other tracks, fields, transfer, damaged frames."""

import io
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from semdedup import ParameterError, VideoSplitWorkflow
from semdedup.video.options import DecodeOptions
from tests.oracle import STORE, Source, ffmpeg, own_pictures
from tests.videos import DCT3D, clip_path, damage, make_video, read_frames, read_numbers, split

TRACKS = [
    ("a.mkv", ("160x90", "240x136"), ("default", "default")),
    ("a.mp4", ("160x90", "240x136"), ("default", "default")),
    ("a.mkv", ("240x136", "160x90"), ("default", "default")),
    ("a.mkv", ("160x90", "240x136"), ("default", "0")),
    ("a.mkv", ("240x136", "160x90"), ("0", "default")),
    ("a.ts", ("160x90", "240x136"), ("0", "0")),
]


def taken_by_ffmpeg(path: Path) -> tuple[int, int]:
    """Width and height of the video track that FFmpeg's program takes."""
    picture = ffmpeg("-i", path, "-frames:v", 1, "-f", "image2pipe", "-c:v", "png", "pipe:1")
    with Image.open(io.BytesIO(picture)) as image:
        return image.size


@pytest.mark.parametrize(("name", "sizes", "marks"), TRACKS)
def test_of_several_video_tracks_it_is_the_one_that_ffmpeg_takes(
    tmp_path: Path, name: str, sizes: tuple[str, str], marks: tuple[str, str]
) -> None:
    """That which is marked as the default; of several such the largest."""
    video = tmp_path / name
    ffmpeg(
        *(part for size in sizes for part in ("-f", "lavfi", "-i", f"testsrc2=r=25:s={size}:d=1")),
        *("-map", "0:v", "-map", "1:v", "-c:v", "libx264", "-preset", "ultrafast"),
        *("-disposition:v:0", marks[0], "-disposition:v:1", marks[1], video),
    )
    clips, outcome = split(video, tmp_path / "clips")
    assert (clips[0].facts["width"], clips[0].facts["height"]) == taken_by_ffmpeg(video)
    assert outcome.facts["tracks_left_out"]


def test_of_one_video_track_none_is_left_out(tmp_path: Path) -> None:
    _, outcome = split(make_video(tmp_path / "a.mp4", 25, audio="aac"), tmp_path / "clips")
    assert not outcome.facts["tracks_left_out"]


FIELDS = ("-flags", "+ilme+ildct")


@pytest.mark.parametrize(
    ("name", "codec", "interlaced"),
    [
        ("a.mpg", ("-c:v", "mpeg2video", *FIELDS), True),
        ("a.mp4", ("-c:v", "libx264", *FIELDS), True),
        ("a.mpg", ("-c:v", "mpeg2video"), False),
        ("a.mp4", ("-c:v", "libx264"), False),
    ],
    ids=["mpeg2-fields", "h264-fields", "mpeg2-frames", "h264-frames"],
)
def test_a_clip_tells_whether_its_source_has_fields(
    tmp_path: Path, name: str, codec: tuple[str, ...], interlaced: bool
) -> None:
    video = tmp_path / name
    order = "interlace,setfield=tff" if interlaced else "null"
    ffmpeg("-f", "lavfi", "-i", "testsrc2=r=50:s=64x64:d=2", "-vf", f"{order},fps=25", *codec, video)
    with av.open(str(video)) as file:
        assert next(file.decode(video=0)).interlaced_frame is interlaced
    clips, _ = split(video, tmp_path / "clips")
    assert [clip.facts["interlaced"] for clip in clips] == [interlaced] * len(clips)


@pytest.mark.parametrize("transfer", ["bt709", "smpte2084", "arib-std-b67"])
def test_a_clip_tells_the_transfer_of_its_source(tmp_path: Path, transfer: str) -> None:
    """By FFmpeg's name. It is that of the pixels of the clip, too, whose brightness is not converted."""
    source = Source(STORE["yuv420p10le-x264-mp4"], "tv", "bt2020nc", primaries="bt2020", transfer=transfer)
    clips, _ = split(source.make(tmp_path / "video"), tmp_path / "clips")
    assert clips[0].facts["transfer"] == transfer


STILLS = {"a.mkv": ("mjpeg", "yuvj420p"), "a.avi": ("mjpeg", "yuvj420p"), "a.mov": ("png", "rgb24")}
"""Files whose frames stand each for itself, with their codec and pixel format."""


def damaged(path: Path, numbers: Iterable[int]) -> Path:
    """A video of a hundred frames, some of which are no pictures any more."""
    codec, pix_fmt = STILLS[path.name]
    video = make_video(path, 100, codec=codec, pix_fmt=pix_fmt)
    for number in numbers:
        damage(video, number)
    return video


@pytest.mark.parametrize("name", STILLS)
@pytest.mark.parametrize("numbers", [(0,), (30, 31, 99)], ids=str)
def test_a_frame_that_cannot_be_decoded_costs_itself_and_is_counted(
    tmp_path: Path, name: str, numbers: tuple[int, ...]
) -> None:
    clips, outcome = split(damaged(tmp_path / name, numbers), tmp_path / "clips")
    assert (outcome.status, outcome.reason) == ("done", "")
    good = [number for number in range(100) if number not in numbers]
    found = [number for clip in clips for number in read_numbers(clip_path(tmp_path / "clips", clip))]
    assert sorted(set(found)) == good
    assert outcome.facts["bad_frames"] == len(numbers)
    for clip in clips:
        first = round(25 * clip.facts["start_s"])
        assert clip.facts["bad_frames"] == sum(first <= number < first + 25 for number in numbers)


def test_a_video_without_damage_has_no_bad_frames(tmp_path: Path) -> None:
    clips, outcome = split(make_video(tmp_path / "a.mp4", 60, audio="aac"), tmp_path / "clips")
    assert [outcome.facts["bad_frames"], *(clip.facts["bad_frames"] for clip in clips)] == [0, 0, 0, 0]


def test_up_to_a_twentieth_of_the_frames_may_be_bad(tmp_path: Path) -> None:
    few, many = ([7 * i + 3 for i in range(n)] for n in (5, 6))
    clips, outcome = split(damaged(tmp_path / "few" / "a.mkv", few), tmp_path / "few")
    assert (outcome.status, outcome.facts["bad_frames"], len(clips)) == ("done", 5, 4)
    _, outcome = split(damaged(tmp_path / "many" / "a.mkv", many), tmp_path / "many")
    assert (outcome.status, outcome.reason) == ("quarantined", "decode_error")
    assert "6" in outcome.detail


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4", "a.ts"])
def test_damage_in_the_middle_of_h264_costs_few_frames(tmp_path: Path, name: str) -> None:
    """At most what FFmpeg loses: frames up to the next key frame, and what the container passes over."""
    video = make_video(tmp_path / name, 250, gop=12)
    content = bytearray(video.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(value ^ 0xFF for value in content[middle : middle + 200])
    video.write_bytes(content)
    clips, outcome = split(video, tmp_path / "clips", duration_s=2.0)
    assert (outcome.status, len(clips)) == ("done", 5)
    found = [read_numbers(clip_path(tmp_path / "clips", clip)) for clip in clips]
    assert [found[0], found[-1]] == [list(range(50)), list(range(200, 250))]
    assert sum(map(len, found)) >= len(own_pictures(video, (64, 48)))


def test_fields_become_whole_frames_where_that_is_asked_for(tmp_path: Path) -> None:
    """A bright bar moves fast: between its fields rows differ, until they are made into whole frames."""
    video = tmp_path / "a.ts"
    bars = "color=c=gray:s=64x48:r=50:d=2,geq=lum='255*lt(mod(X-5*N,64),12)':cb=128:cr=128,interlace,setfield=tff"
    ffmpeg("-f", "lavfi", "-i", bars, "-c:v", "mpeg2video", "-flags", "+ildct+ilme", "-q:v", 2, video)
    combed = {}
    for wish in (False, True):
        clips, outcome = split(video, tmp_path / str(wish), duration_s=1.0, decode=DecodeOptions(deinterlace=wish))
        assert (outcome.status, outcome.facts["interlaced"]) == ("done", True)
        assert [clip.facts["interlaced"] for clip in clips] == [not wish] * len(clips)
        assert [clip.facts["n_frames"] for clip in clips] == [25, 25]
        frames = np.stack([pixels for _, pixels in read_frames(clip_path(tmp_path / str(wish), clips[0]))]).astype(
            float
        )
        combed[wish] = np.abs(np.diff(frames.astype(float), axis=1)).mean()
    assert combed[True] < combed[False] / 3


@pytest.mark.parametrize("transfer", ["smpte2084", "arib-std-b67"])
def test_high_dynamic_range_is_mapped_where_that_is_asked_for(tmp_path: Path, transfer: str) -> None:
    """A ramp of grey from black to the brightest: it stays a ramp, and its highlights differ from each other."""
    video = tmp_path / "a.mp4"
    ramp = "color=s=256x16:r=10:d=1,format=gbrp10le,geq=r='4*X':g='4*X':b='4*X',scale=out_color_matrix=bt2020nc"
    tags = f"setparams=color_trc={transfer}:color_primaries=bt2020:colorspace=bt2020nc:range=tv"
    ffmpeg("-f", "lavfi", "-i", f"{ramp},format=yuv420p10le,{tags}", "-c:v", "libx264", video)
    clips, _ = split(video, tmp_path / "out", duration_s=1.0, decode=DecodeOptions(tonemap="sdr"))
    assert clips[0].facts["transfer"] == "bt709"
    path = clip_path(tmp_path / "out", clips[0])
    with av.open(str(path)) as file:
        context = file.streams.video[0].codec_context
        assert (context.color_trc, context.color_primaries, context.colorspace) == (1, 1, 1)
    grey = read_frames(path)[0][1].astype(float).mean(axis=(0, 2))
    assert grey[:4].max() < 8
    assert grey[-4:].min() > 245
    assert (np.diff(grey.reshape(32, 8).mean(axis=1)) > 0.5).all()
    assert read_frames(path)[0][1].std(axis=2).max() < 6, "grey stays grey"


def test_sound_is_not_decoded_where_nobody_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = make_video(tmp_path / "a.mkv", 50, audio="mp2")

    def opened(*args: Any) -> None:
        raise AssertionError("the sound was opened")

    monkeypatch.setattr("semdedup.video.cut.AudioTrack", opened)
    assert [clip.facts["n_frames"] for clip in split(video, None, sampling=DCT3D)[0]] == [25, 25]
    with pytest.raises(AssertionError, match="opened"):
        split(video, tmp_path / "clips")


@pytest.mark.parametrize("wish", [{"deinterlace": True}, {"tonemap": "sdr"}])
def test_a_picture_that_is_copied_cannot_be_changed(wish: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match="copies it as it is"):
        VideoSplitWorkflow("videos", "clips", cut="copy", **wish)
