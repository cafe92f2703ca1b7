"""The sound of clips: all that the source has, at its moment, and what had to be changed is said."""

from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
import pytest

from semdedup.video.job import ClipMade
from tests.oracle import ffmpeg
from tests.videos import clip_path, make_video, probe, read_beeps, split

FRAME_S = 1 / 25
TONES_S = [0.5 + i for i in range(10)]
"""When the tones of the sources begin."""


def make_sounding(
    path: Path,
    seconds: float = 4,
    *codec: str,
    rate_hz: int = 48_000,
    channels: str = "mono",
    silent: str = "",
    delay_s: float = 0.0,
    sound_s: float | None = None,
) -> Path:
    """Write a moving picture with a short tone in each second, half a second after its start.

    Args:
        path: whose ending tells the container.
        seconds: of the picture.
        codec: options of the encoders.
        rate_hz: of the sound.
        channels: layout of the sound, as FFmpeg names it; the tone is in its first channel, or everywhere.
        silent: sounds of all channels, with ``{}`` for the tone, where it is in some of them.
        delay_s: seconds by which the sound begins late. The tones are at their times all the same.
        sound_s: seconds of sound; None: as long as the picture.
    """
    length_s = (seconds if sound_s is None else sound_s) - delay_s
    tone = f"0.6*sin(2*PI*1000*t)*lt(mod(t+{delay_s}+0.5,1),0.1)"
    waves = silent.format(tone) if silent else "|".join([tone] * av.AudioLayout(channels).nb_channels)
    ffmpeg(
        *("-f", "lavfi", "-i", f"testsrc2=r=25:s=64x48:d={seconds}"),
        *("-itsoffset", delay_s, "-f", "lavfi", "-i", f"aevalsrc='{waves}':s={rate_hz}:c={channels}:d={length_s}"),
        *("-c:v", "mpeg4" if path.suffix == ".avi" else "libx264", "-g", 25, *codec, path),
    )
    return path


class Samples(NamedTuple):
    """The sound of a file, decoded.

    Attributes:
        rate_hz: samples a second.
        layout: of its channels.
        loudness: largest absolute value of each channel, by its name.
        n: samples of a channel.
        start_s: second at which they begin.
    """

    rate_hz: int
    layout: str
    loudness: dict[str, float]
    n: int
    start_s: float


def samples_of(path: Path) -> Samples | None:
    """What can be heard of a file; None where it has no track of sound."""
    with av.open(str(path)) as file:
        if not file.streams.audio:
            return None
        first = next(file.decode(audio=0), None)
    if first is None:
        return Samples(0, "", {}, 0, 0.0)
    decoded = ffmpeg("-i", path, "-map", "0:a:0", "-f", "f32le", "-c:a", "pcm_f32le", "pipe:1")
    values = np.frombuffer(decoded, dtype=np.float32).reshape(-1, first.layout.nb_channels)
    names = [channel.name for channel in first.layout.channels]
    loudness = dict(zip(names, np.abs(values).max(axis=0).round(3).tolist(), strict=True))
    return Samples(first.sample_rate, first.layout.name, loudness, len(values), float(first.time))


def tones_of(path: Path) -> list[float]:
    """Seconds at which tones begin; none where the file has no sound."""
    return read_beeps(path)[0] if samples_of(path) is not None else []


def assert_tones(folder: Path, clips: list[ClipMade], tones_s: list[float] = TONES_S) -> None:
    """Assert that clips have the tones of the source, at their moments."""
    for clip in clips:
        start_s, end_s = clip.facts["start_s"], clip.facts["end_s"]
        assert clip.facts["audio"] is True
        heard = tones_of(clip_path(folder, clip))
        assert heard == [pytest.approx(tone - start_s, abs=FRAME_S) for tone in tones_s if start_s <= tone < end_s]


def assert_heard(folder: Path, clip: ClipMade) -> Samples:
    """Assert that a clip has sound that is not silent; what it is."""
    assert clip.facts["audio"] is True
    found = samples_of(clip_path(folder, clip))
    assert found is not None
    assert max(found.loudness.values()) > 0.3
    return found


ENCODED = {"fixed": {}, "copied": {"cut": "copy"}}
"""Ways to cut, with the options of `split`."""


@pytest.mark.parametrize("way", ENCODED)
@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "libopus")])
def test_of_plain_sound_nothing_has_to_be_said(tmp_path: Path, name: str, codec: str, way: str) -> None:
    video = make_sounding(tmp_path / name, 3, "-c:a", codec)
    clips, _ = split(video, tmp_path / "clips", **ENCODED[way])
    assert len(clips) == 3
    assert_tones(tmp_path / "clips", clips)
    assert [clip.facts["audio_changes"] for clip in clips] == [[], [], []]


def damage_sound(path: Path, share: float, n_packets: int) -> Path:
    """Overwrite what some packets of a transport stream hold of the sound with zeros, from a share of the file on."""
    with av.open(str(path)) as file:
        pid = file.streams.audio[0].id
    content = bytearray(path.read_bytes())
    sounding = [
        start
        for start in range(0, len(content), 188)
        if int.from_bytes(content[start + 1 : start + 3], "big") & 0x5FFF == pid  # inside of a packet of the sound
        and content[start + 3] & 0x30 == 0x10  # which has nothing else
        and start > share * len(content)
    ]
    for start in sounding[:n_packets]:
        content[start + 4 : start + 188] = bytes(184)
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("codec", ["aac", "mp2"])
def test_damaged_packets_of_sound_cost_those_packets_and_are_told(tmp_path: Path, codec: str) -> None:
    """Three of them in the fourth second of ten; the seconds after them sound as they do in the source."""
    video = damage_sound(make_sounding(tmp_path / "a.ts", 10, "-c:a", codec, "-b:a", "96k"), 1 / 3, 3)
    clips, outcome = split(video, tmp_path / "clips", duration_s=3.0)
    assert (outcome.status, len(clips)) == ("done", 4)
    assert_tones(tmp_path / "clips", [clips[0], *clips[2:]])
    assert [clip.facts["audio"] for clip in clips] == [True] * 4
    assert len(tones_of(clip_path(tmp_path / "clips", clips[1]))) >= 2
    assert clips[1].facts["audio_changes"]
    assert not clips[3].facts["audio_changes"]


AAC_RATES_HZ = (7350, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 64000, 88200, 96000)


@pytest.mark.parametrize(
    ("name", "rate_hz"), [("a.avi", 37_800), ("a.mkv", 37_800), ("a.mov", 18_900), ("a.mkv", 192_000)]
)
def test_sound_at_a_rate_that_aac_lacks_is_resampled_and_that_is_said(tmp_path: Path, name: str, rate_hz: int) -> None:
    video = make_sounding(tmp_path / name, 3, "-c:a", "pcm_s16le", rate_hz=rate_hz)
    clips, outcome = split(video, tmp_path / "clips")
    assert outcome.status == "done"
    assert_tones(tmp_path / "clips", clips)
    neighbours = max(r for r in AAC_RATES_HZ if r < rate_hz), min((r for r in AAC_RATES_HZ if r > rate_hz), default=0)
    for clip in clips:
        found = samples_of(clip_path(tmp_path / "clips", clip))
        assert found is not None
        assert found.rate_hz in (*neighbours, 48_000)
        assert found.n == pytest.approx(clip.facts["duration_s"] * found.rate_hz, abs=2048)
        assert any(f"{rate_hz // 1000}" in told for told in clip.facts["audio_changes"])


@pytest.mark.parametrize("rate_hz", [22_050, 48_000])
def test_sound_at_a_rate_of_aac_keeps_it_and_nothing_is_said(tmp_path: Path, rate_hz: int) -> None:
    video = make_sounding(tmp_path / "a.avi", 2, "-c:a", "pcm_s16le", rate_hz=rate_hz)
    clips, _ = split(video, tmp_path / "clips")
    assert_tones(tmp_path / "clips", clips)
    for clip in clips:
        found = samples_of(clip_path(tmp_path / "clips", clip))
        assert found is not None
        assert found.rate_hz == rate_hz
        assert clip.facts["audio_changes"] == []


CENTRE = "0|0|{}|0|0|0"


@pytest.mark.parametrize(
    ("name", "codec", "channels", "silent"),
    [
        ("a.mov", "pcm_s16le", "5.1", CENTRE),
        ("a.ts", "ac3", "5.1", CENTRE),
        ("a.mkv", "flac", "5.1", CENTRE),
        ("a.mov", "pcm_s16le", "7.1", f"{CENTRE}|0|0"),
    ],
)
def test_the_channels_of_sound_stay_what_they_are(
    tmp_path: Path, name: str, codec: str, channels: str, silent: str
) -> None:
    """The tone stands in the centre alone, and is as loud there as before."""
    video = make_sounding(tmp_path / name, 2, "-c:a", codec, channels=channels, silent=silent)
    clips, _ = split(video, tmp_path / "clips")
    for clip in clips:
        found = samples_of(clip_path(tmp_path / "clips", clip))
        assert found is not None
        assert found.layout.split("(")[0] == channels  # as 5.1(side), which is 5.1 with other names
        assert {name for name, loud in found.loudness.items() if loud > 0.05} == {"FC"}
        assert found.loudness["FC"] == pytest.approx(0.6, abs=0.3)  # AAC overshoots where a tone begins


@pytest.mark.parametrize("name", ["a.mkv", "a.avi"])
def test_channels_without_names_are_heard(tmp_path: Path, name: str) -> None:
    """Matroska and AVI tell how many channels PCM has, and not which."""
    video = make_sounding(tmp_path / name, 2, "-c:a", "pcm_s16le", channels="5.1", silent=CENTRE)
    clips, _ = split(video, tmp_path / "clips")
    for clip in clips:
        found = assert_heard(tmp_path / "clips", clip)
        if len(found.loudness) < 6:
            assert clip.facts["audio_changes"]


def test_channels_that_aac_lacks_are_mixed_and_that_is_said(tmp_path: Path) -> None:
    video = make_sounding(tmp_path / "a.mov", 2, "-c:a", "pcm_s16le", channels="5.1.2", silent=f"{CENTRE}|0|0")
    clips, _ = split(video, tmp_path / "clips")
    for clip in clips:
        assert_heard(tmp_path / "clips", clip)
        assert clip.facts["audio_changes"]


@pytest.mark.parametrize("way", ENCODED)
@pytest.mark.parametrize(
    ("name", "codec"), [("a.mp4", "aac"), ("a.mkv", "flac"), ("a.avi", "pcm_s16le"), ("a.ts", "mp2")]
)
def test_a_clip_has_a_track_of_sound_where_it_has_samples(tmp_path: Path, name: str, codec: str, way: str) -> None:
    """Sound from 1.25 to 3.75 s of a video of six."""
    video = make_sounding(tmp_path / name, 6, "-c:a", codec, delay_s=1.25, sound_s=3.75)
    clips, outcome = split(video, tmp_path / "clips", **ENCODED[way])
    assert (outcome.status, outcome.detail) == ("done", "")
    found = [samples_of(clip_path(tmp_path / "clips", clip)) for clip in clips]
    assert [clip.facts["audio"] for clip in clips] == [sound is not None for sound in found]
    assert all(sound.n > 0 for sound in found if sound is not None)
    starts = [clip.facts["start_s"] for clip in clips]
    if name != "a.avi":  # which has no time for its sound: it begins with the pictures
        assert [start for start, sound in zip(starts, found, strict=True) if sound is not None] == [1.0, 2.0, 3.0]
        assert_tones(tmp_path / "clips", [clip for clip in clips if clip.facts["audio"]])


@pytest.mark.parametrize(
    ("name", "codec", "channels"),
    [
        ("a.avi", "pcm_s16le", "stereo"),
        ("a.avi", "adpcm_ms", "stereo"),
        ("a.mov", "pcm_s16be", "stereo"),
        ("a.mkv", "wmav2", "stereo"),
        ("a.mkv", "libvorbis", "stereo"),
    ],
)
def test_clips_that_are_copied_have_every_sound(tmp_path: Path, name: str, codec: str, channels: str) -> None:
    """What MP4 refuses, or what players do not find in it, is encoded; the pictures are copied."""
    video = make_sounding(tmp_path / name, 3, "-c:a", codec, channels=channels)
    clips, outcome = split(video, tmp_path / "clips", cut="copy")
    assert (outcome.status, outcome.detail, len(clips)) == ("done", "", 3)
    assert_tones(tmp_path / "clips", clips)
    assert {probe(clip_path(tmp_path / "clips", clip))["codec"] for clip in clips} == {probe(video)["codec"]}


def test_sound_of_a_clip_without_new_pictures_is_kept(tmp_path: Path) -> None:
    """One picture for six seconds."""
    video = make_video(tmp_path / "a.mkv", 2, rate=Fraction(1, 5), audio="aac", beeps_s=TONES_S)
    clips, _ = split(video, tmp_path / "clips", duration_s=2.0)
    assert len(clips) == 5
    assert_tones(tmp_path / "clips", clips)
    for clip in clips:
        found = samples_of(clip_path(tmp_path / "clips", clip))
        assert found is not None
        assert found.n == pytest.approx(2 * found.rate_hz, rel=0.05)


def test_a_clip_that_begins_in_the_middle_of_a_long_packet_has_the_rest_of_it(tmp_path: Path) -> None:
    """Packets of a second, as cameras write them to AVI, and clips of one and a half."""
    first = make_sounding(tmp_path / "first.mkv", 6, "-c:a", "pcm_s16le")
    video = tmp_path / "a.mkv"
    ffmpeg("-i", first, "-c:v", "copy", "-af", "asetnsamples=48000", "-c:a", "pcm_s16le", video)
    with av.open(str(video)) as file:
        assert next(file.decode(audio=0)).samples == 48_000
    clips, _ = split(video, tmp_path / "clips", duration_s=1.4)
    assert_tones(tmp_path / "clips", clips)
    for clip in clips:
        found = samples_of(clip_path(tmp_path / "clips", clip))
        assert found is not None
        assert found.n / found.rate_hz == pytest.approx(clip.facts["duration_s"], abs=FRAME_S)


@pytest.mark.parametrize("way", ENCODED)
def test_a_track_of_sound_without_a_packet_costs_nothing(tmp_path: Path, way: str) -> None:
    with av.open(str(tmp_path / "a.ts"), "w") as out:
        picture: Any = out.add_stream("mpeg2video", rate=25)
        picture.width, picture.height, picture.pix_fmt = 64, 48, "yuv420p"
        out.add_stream("mp2", rate=48_000, layout="mono")
        for i in range(50):
            frame = av.VideoFrame(64, 48, "yuv420p")
            frame.pts = i
            out.mux(picture.encode(frame))
        out.mux(picture.encode(None))
    clips, outcome = split(tmp_path / "a.ts", tmp_path / "clips", duration_s=1.0, **ENCODED[way])
    assert (outcome.status, [clip.facts["audio"] for clip in clips]) == ("done", [False] * len(clips))
    assert clips[0].facts["audio_changes"] == ["sound left out: how it is sampled is not known"]


def test_samples_of_64_bits_cost_no_video(tmp_path: Path) -> None:
    video = make_sounding(tmp_path / "a.mkv", 3, "-c:a", "pcm_s64le")
    clips, outcome = split(video, tmp_path / "clips", duration_s=0.77)
    assert (outcome.status, all(clip.facts["audio"] for clip in clips)) == ("done", True)
