"""Which files of the input are videos, and what is told of the others."""

import os
from pathlib import Path
from typing import Any

import pytest

from semdedup import InputError, VideoDeduplicationWorkflow, VideoEmbedWorkflow
from semdedup.storage.location import Location
from semdedup.video.containers import EXTENSIONS, HEAD_BYTES, OTHERS, container_of
from semdedup.video.files import NO_CONTAINER, FoundVideos, below, find_videos
from semdedup.video.opening import FORMATS
from tests.helpers import STORAGES, location_in
from tests.videos import make_sound, make_video

NOTHING = below(Location.of("/nowhere"))


def head(path: Path) -> bytes:
    return path.read_bytes()[:HEAD_BYTES]


@pytest.mark.parametrize(
    ("name", "options", "container"),
    [
        ("v.mp4", {}, "mov"),
        ("faststart.mp4", {"container_options": {"movflags": "faststart"}}, "mov"),
        ("fragments.mp4", {"container_options": {"movflags": "frag_keyframe+empty_moov"}}, "mov"),
        ("v.mov", {}, "mov"),
        ("v.f4v", {}, "mov"),
        ("v.3gp", {"codec": "mpeg4"}, "mov"),
        ("v.mkv", {}, "matroska"),
        ("v.webm", {"codec": "libvpx"}, "matroska"),
        ("v.avi", {"codec": "mpeg4"}, "avi"),
        ("v.ts", {}, "mpegts"),
        ("v.m2ts", {}, "mpegts"),
        ("v.mpg", {"codec": "mpeg1video"}, "mpeg"),
        ("v.vob", {"codec": "mpeg2video", "container": "vob"}, "mpeg"),
        ("v.m1v", {"codec": "mpeg1video", "container": "mpeg1video"}, "mpegvideo"),
        ("v.m2v", {"codec": "mpeg2video", "container": "mpeg2video"}, "mpegvideo"),
        ("v.flv", {"codec": "flv1"}, "flv"),
        ("v.ogv", {"codec": "libvpx"}, "ogg"),
        ("v.wmv", {"codec": "wmv2"}, "asf"),
        ("v.mxf", {"codec": "mpeg2video"}, "mxf"),
        ("v.gif", {"codec": "gif", "pix_fmt": "rgb8"}, "gif"),
        ("v.nut", {"codec": "mpeg4"}, None),
        ("v.h264", {"container": "h264"}, None),
        ("v.ivf", {"codec": "libvpx"}, None),
        ("v.mjpeg", {"codec": "mjpeg", "pix_fmt": "yuvj420p"}, None),
    ],
)
def test_the_first_bytes_tell_the_container(
    name: str, options: dict[str, Any], container: str | None, tmp_path: Path
) -> None:
    assert container_of(head(make_video(tmp_path / name, 30, **options))) == container
    assert container is None or container in FORMATS.split(",")


@pytest.mark.parametrize(
    ("name", "codec"), [("s.m4a", "aac"), ("s.ogg", "libopus"), ("s.wav", "pcm_s16le"), ("s.mp3", "libmp3lame")]
)
def test_the_first_bytes_of_sound_are_those_of_no_video(name: str, codec: str, tmp_path: Path) -> None:
    assert container_of(head(make_sound(tmp_path / name, codec=codec))) is None


def box(kind: bytes, content: bytes = b"") -> bytes:
    return (8 + len(content)).to_bytes(4, "big") + kind + content


def packets(size: int, before: int = 0, n: int = 20) -> bytes:
    """A stream of packets of so many bytes, where it was begun in the middle of one."""
    return bytes(before) + n * (b"G\x01\x00\x10" + bytes(size - 4))


@pytest.mark.parametrize(
    ("content", "container"),
    [
        (box(b"wide") + b"\0\0\0\1mdat" + bytes(99), "mov"),
        (box(b"free", bytes(5000)), "mov"),
        (box(b"skip", bytes(50)) + box(b"moov", bytes(50)), "mov"),
        (box(b"free", bytes(50)), None),
        (b"The free encyclopedia that anyone can edit", None),
        (box(b"ftyp", b"heic" + bytes(8)) + box(b"meta", bytes(99)), None),
        (box(b"ftyp", b"M4A " + bytes(8)) + box(b"moov", bytes(99)), None),
        (b"RIFF\0\0\0\0CDXAfmt " + bytes(30) + b"\0\0\x01\xba\x21" + bytes(99), "mpeg"),
        (b"RIFF\0\0\0\0WEBPVP8 " + bytes(99), None),
        (b"\0\0\x01\xba\0" + bytes(99), None),
        (packets(188, 100), "mpegts"),
        (packets(192, 4), "mpegts"),
        (packets(204), "mpegts"),
        (packets(188, n=3), None),
        (b"GATTACA" * 1000, None),
        (b"G" * 5000, None),
        (bytes(5000), None),
        (b"", None),
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", None),
        (bytes(100) + bytes.fromhex("060e2b34020501010d01020101020400") + bytes(99), "mxf"),
    ],
)
def test_what_looks_like_a_container_is_one_and_nothing_else(content: bytes, container: str | None) -> None:
    assert container_of(content[:HEAD_BYTES]) == container


def test_an_ending_means_one_thing() -> None:
    assert not OTHERS.intersection(EXTENSIONS)
    assert all(ending == ending.lower() and ending.startswith(".") for ending in OTHERS.union(EXTENSIONS))


# Folders


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The content of a video."""
    return make_video(tmp_path_factory.mktemp("video") / "v.mp4", 5).read_bytes()


@pytest.fixture(params=STORAGES)
def folder(request: pytest.FixtureRequest, tmp_path: Path, video: bytes) -> Location:
    """Videos under various names among other files."""
    place = location_in(request, tmp_path, "in")
    for name in ("a.MP4", "b.MP4.part", "deep/c", "d.mkv.1", "deep/e.dat", "photo.json", "notes.txt", "._a.MP4"):
        (place / name).write_bytes(video)
    for name in ("deep/f.json", "g.bin", "empty", "deep/empty.mp4"):
        (place / name).write_bytes(b"{}" * ("empty" not in name))
    return place


def names(found: FoundVideos) -> list[str]:
    return [file.relative_path for file in found.videos]


def test_videos_are_found_by_ending_or_content_and_the_others_are_told(folder: Location) -> None:
    found = find_videos([folder], NOTHING)
    assert names(found) == ["a.MP4", "b.MP4.part", "d.mkv.1", "deep/c", "deep/e.dat", "deep/empty.mp4"]
    assert found.told() == [
        "passed over 3 files that are no videos: 2 .json, 1 .txt; 2 files in no container that is read: 1 without an "
        "ending, 1 .bin; 1 files whose names begin with a dot: 1 .mp4"
    ]
    assert found.n_looked_into == 6


def test_a_file_that_is_given_is_a_video_and_a_folder_that_matches_is_searched(folder: Location) -> None:
    assert names(find_videos([folder / "notes.txt", folder / "._a.MP4"], NOTHING)) == ["._a.MP4", "notes.txt"]
    assert names(find_videos([folder / "d*"], NOTHING)) == ["d.mkv.1", "deep/c", "deep/e.dat", "deep/empty.mp4"]
    assert names(find_videos([folder / "**" / "*.dat"], NOTHING)) == ["deep/e.dat"]
    with pytest.raises(InputError, match=r"no videos in .*: there are 1 files that are no videos: 1 \.txt\."):
        find_videos([folder / "*.txt"], NOTHING)


def test_nothing_is_opened_where_endings_tell_all(folder: Location) -> None:
    for name in ("b.MP4.part", "deep/c", "d.mkv.1", "deep/e.dat", "g.bin", "empty"):
        (folder / name).remove()
    assert find_videos([folder], NOTHING).n_looked_into == 0


def test_a_file_that_was_looked_into_is_not_opened_again_unless_it_changes(folder: Location, video: bytes) -> None:
    looked_into: dict[Any, str] = {}
    find_videos([folder], NOTHING, looked_into=looked_into)
    assert len(looked_into) == 6
    looked_into.update(dict.fromkeys(looked_into, NO_CONTAINER))
    (folder / "g.bin").write_bytes(video)
    assert names(find_videos([folder], NOTHING, looked_into=looked_into)) == ["a.MP4", "deep/empty.mp4", "g.bin"]


def test_what_is_no_regular_file_is_a_video_by_its_ending_alone(tmp_path: Path) -> None:
    for ending in ("", ".mp4"):
        os.mkfifo(tmp_path / f"fifo{ending}")
        (tmp_path / f"nowhere{ending}").symlink_to("absent")
        (tmp_path / f"itself{ending}").symlink_to(f"itself{ending}")
        (tmp_path / f"around{ending}").symlink_to(tmp_path)
    found = find_videos([Location.of(tmp_path)], NOTHING)
    assert names(found) == ["around.mp4", "fifo.mp4", "itself.mp4", "nowhere.mp4"]
    assert found.others == "4 files that are links to folders, or no regular files: 4 without an ending"


def test_endings_that_are_many_are_counted_together(tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"a.x{number}").write_text("text")
    (tmp_path / "a.x").write_text("text")
    (tmp_path / "b.x8").write_text("text")
    (tmp_path / "v.mp4").write_text("a video, by its name")
    assert find_videos([Location.of(tmp_path)], NOTHING).others == (
        "11 files in no container that is read: 2 .x8, 1 .x, 1 .x0, 1 .x1, 1 .x2, 1 .x3, 4 others"
    )


def test_what_runs_have_written_is_neither_a_video_nor_passed_over(tmp_path: Path, video: bytes) -> None:
    def write(*written: str) -> None:
        for name in written:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_bytes(video)

    write("a.mp4", "a.json", "deep/b", "out/clips/clips/c.mp4", "out/clips/summary.json", "out/_owner.json")
    write("out/dedup/_manifest.json", "out/dedup-0002/x.npy", "out/dataset/00000.tar", "out/report.html")
    found = VideoDeduplicationWorkflow(str(tmp_path), str(tmp_path / "out")).split.find()
    assert (names(found), found.others) == (["a.mp4", "deep/b"], "1 files that are no videos: 1 .json")
    ours = ("_manifest.json", "_x_embd_parquet_clips.parquet", "_quarantine/x.parquet", "x_embd_parquet/part-0.parquet")
    write(*(f"mine/{name}" for name in ("c.mp4", "notes.txt", *ours)))
    found = VideoEmbedWorkflow(str(tmp_path / "mine")).find()
    assert (names(found), found.others) == (["c.mp4"], "1 files that are no videos: 1 .txt")
