"""Bad and hostile videos: each costs itself and nothing else, and what becomes of it is told the same everywhere."""

import ctypes
import errno
import json
import os
import shutil
import signal
import socket
import sys
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import distributed
import pyarrow.parquet as pq
import pytest

from semdedup import ParameterError, SplitResult
from semdedup.video import base
from semdedup.video.files import read_fault
from semdedup.video.opening import open_container
from semdedup.video.options import DecodeOptions, Limits
from semdedup.video.quarantine import OF_THE_MOMENT, REASONS, VideoFault
from tests.helpers import files_below, stamps
from tests.splits import (
    RATE,
    assert_nothing_half_written,
    assert_same_result,
    copy_folder,
    embedder,
    make_texture,
    read_metas,
    read_rows,
    read_videos,
    splitter,
)
from tests.videos import (
    Decoders,
    cut_off,
    damage,
    flat,
    make_sound,
    make_video,
    read_frames,
    read_numbers,
    refer_to,
    split,
)

pytestmark = pytest.mark.usefixtures("kept_children")


LIMITS = Limits(max_pixels=320 * 240, max_frames=400, max_duration_s=100, max_clips=45, timeout_s=4)
FAST_START = {"movflags": "faststart"}
CENC = {
    "encryption_scheme": "cenc-aes-ctr",
    "encryption_key": "00112233445566778899aabbccddeeff",
    "encryption_kid": "aabbccddeeff00112233445566778899",
}


def write(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def make_counted(path: Path, n_frames: int = 40, **options: object) -> Path:
    """Write a video of numbered frames, of 4 seconds."""
    return make_video(path, n_frames, rate=RATE, **options)  # type: ignore[arg-type]


def make_empty(path: Path) -> Path:
    """Write a video track without frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as out:
        track = out.add_stream("mpeg4", rate=RATE)
        track.width, track.height, track.pix_fmt = 64, 48, "yuv420p"
        out.start_encoding()
    return path


def make_bad(folder: Path) -> None:
    """Write videos of every fault into folders that have the names of the faults."""
    whole = make_counted(folder / "done" / "whole.mp4").read_bytes()
    make_counted(folder / "done" / "whole.mkv")
    make_counted(folder / "done" / "at_the_limit.mp4", size=(320, 240), n_frames=20)
    make_counted(folder / "too_short" / "short.mp4", 9)

    bad = folder / "unreadable"
    write(bad / "zero.mp4", b"")
    write(bad / "text.mp4", b"This is not a video.\n" * 100)
    write(bad / "noise.mp4", bytes(i * i * 7919 % 251 for i in range(20_000)))
    write(bad / "page.mp4", b"<!DOCTYPE html><html><body>404 Not Found</body></html>")
    write(bad / "no_index.mp4", whole[: len(whole) // 2])
    write(bad / "zeros.mkv", bytes(50_000))
    os.mkfifo(bad / "fifo.mp4")
    (bad / "nowhere.mp4").symlink_to(folder / "absent.mp4")
    (bad / "itself.mp4").symlink_to("itself.mp4")
    (bad / "device.mp4").symlink_to("/dev/zero")
    (folder / "io_error").mkdir()
    (folder / "io_error" / "disk.mp4").symlink_to("/proc/self/mem")  # a regular file whose first byte cannot be read
    if os.geteuid():  # root may read everything
        write(folder / "permission" / "secret.mp4", whole).chmod(0)

    make_sound(folder / "no_video" / "sound.mp4")
    make_sound(folder / "no_video" / "cover.mp4", cover=True)
    make_empty(folder / "no_frames" / "empty.avi")

    bad = folder / "truncated"
    cut_off(make_counted(bad / "cut.mp4", gop=1, container_options=FAST_START), 0.8)
    cut_off(make_counted(bad / "cut.mkv", gop=1), 0.55)
    cut_off(make_counted(bad / "cut.flv", gop=1), 0.55)
    cut_off(make_counted(bad / "cut.avi", codec="mjpeg", pix_fmt="yuvj420p"), 0.6)
    cut_off(make_counted(bad / "cut.webm", codec="libvpx", gop=1), 0.55)
    first = make_counted(bad / "header.mp4", container_options=FAST_START)
    write(first, first.read_bytes()[: first.read_bytes().index(b"mdat") + 4])

    bad = folder / "decode_error"
    for name, codec in (("h264.mp4", "libx264"), ("mpeg4.mkv", "mpeg4"), ("ffv1.mkv", "ffv1"), ("mjpeg.mkv", "mjpeg")):
        video = make_texture(bad / name, 1, codec=codec, pix_fmt="yuvj420p" if codec == "mjpeg" else "yuv420p")
        for number in (25, 26, 27):  # more than a twentieth of its frames
            damage(video, number)
    damage(make_texture(folder / "done" / "one_bad.mkv", 1, codec="mjpeg", pix_fmt="yuvj420p"), 25)
    wide = flat(20, (17_000, 2))  # H.264 ends at 16,384
    make_video(folder / "encode_error" / "wide.mkv", codec="ffv1", pictures=wide, rate=RATE)

    tenths = Fraction(1, 10)
    make_counted(folder / "too_long" / "gap.mkv", 3, pts=[0, 1, 1200], time_base=tenths)
    make_counted(folder / "too_many_clips" / "slow.mkv", 49, pts=range(0, 980, 20), time_base=tenths)
    make_counted(folder / "encrypted" / "cenc.mp4", container_options=CENC)
    make_counted(folder / "too_large" / "wide.mp4", size=(322, 240), n_frames=20)
    make_video(folder / "too_large" / "long.mp4", pictures=flat(401), rate=RATE)
    make_counted(folder / "timeout" / "stuck.mp4", 250, size=(320, 240))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Bad videos among good ones."""
    folder = tmp_path_factory.mktemp("bad")
    make_bad(folder)
    return folder


POSSIBLE = set(REASONS) - {"out_of_memory"} - (set() if os.geteuid() else {"permission"})
"""What these videos show. The memory that decoding takes is a matter of the process; see `test_child`."""


def pause(seconds: tuple[float, ...]) -> tuple[float, ...]:
    """Set the pauses between attempts at storage in this process; gives those that there were."""
    from semdedup.storage import faults

    before, faults.PAUSES_S = faults.PAUSES_S, seconds
    return before


@pytest.fixture(scope="module", autouse=True)
def short_pauses(client: distributed.Client) -> Iterator[None]:
    """Workers do not wait long for a disk."""
    before = client.run(pause, (0.01, 0.01))
    yield
    client.run(pause, next(iter(before.values())))


@pytest.fixture(scope="module")
def run(bad: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[SplitResult, Path]:
    """A split of them, and its result. The process that decodes one of them is stopped, so that it hangs."""
    out = tmp_path_factory.mktemp("out") / "out"
    with Decoders(bad / "timeout" / "stuck.mp4", signal.SIGSTOP) as stuck:
        result = splitter(bad, out, limits=LIMITS).run(client)
    assert len(stuck.pids) == 1
    return result, out


# Every reason


def test_every_video_ends_as_it_should_and_the_others_go_on(bad: Path, run: tuple[SplitResult, Path]) -> None:
    found = {}
    for row in run[0].videos:
        assert row["status"] in ("done", "too_short", "quarantined")
        assert bool(row["reason"]) == (row["status"] == "quarantined")
        found[row["video"]] = row["reason"] or row["status"]
    names = {str(path.relative_to(bad)) for path in bad.rglob("*") if not path.is_dir()}
    assert found == {name: name.split("/")[0] for name in names}
    assert {name.split("/")[0] for name in names} == {*POSSIBLE, "done", "too_short"}


def test_all_that_is_told_of_faults_agrees(bad: Path, run: tuple[SplitResult, Path]) -> None:
    result, out = run
    expected = {reason: len(list((bad / reason).iterdir())) for reason in sorted(POSSIBLE)}
    assert result.quarantined == expected
    assert (result.count("done"), result.count("too_short")) == (4, 1)
    assert result.count("quarantined") == sum(expected.values()) == len(result.videos) - 5

    table = pq.read_table(out / "_quarantine" / "videos.parquet").to_pandas()
    assert table.columns.tolist() == ["id", "reason", "source", "detail"]
    assert Counter(table["reason"]) == Counter(expected)
    assert (table["source"] == str(bad) + "/" + table["id"]).all()
    assert (table["detail"].str.len() > 0).all()
    assert result.paths["quarantine"] == str(out / "_quarantine" / "videos.parquet")

    told = json.loads((out / "summary.json").read_bytes())
    assert told["quarantined_by_reason"] == expected
    assert told["num_quarantined_videos"] == sum(expected.values())
    assert told["num_input_videos"] == result.processed == len(result.videos)
    assert told["too_short_videos"] == ["too_short/short.mp4"]

    videos = read_videos(out)
    for row in table.itertuples():
        assert (videos.loc[row.id, "reason"], videos.loc[row.id, "detail"]) == (row.reason, row.detail)
        record = json.loads((out / "processed_videos" / f"{row.id}.json").read_bytes())
        assert (record["status"], record["reason"], record["detail"]) == ("quarantined", row.reason, row.detail)
    assert len(files_below(out / "processed_videos")) == len(files_below(out / "processed_clip_chunks")) == len(videos)

    shown = [" ".join(line.split()) for line in str(result).replace("│", " ").splitlines()]
    for reason, count in expected.items():
        assert f"{reason} {count}" in shown
    faults = result.faults()
    assert len(faults) == 11
    assert faults[-1].startswith(f"and {sum(expected.values()) - 10} more")


def test_what_was_found_is_said(run: tuple[SplitResult, Path]) -> None:
    details = read_videos(run[1])["detail"].to_dict()
    said = {
        "unreadable/fifo.mp4": "not a regular file",
        "unreadable/device.mp4": "not a regular file",
        "unreadable/nowhere.mp4": "No such file or directory",
        "unreadable/itself.mp4": "symbolic links",
        "unreadable/no_index.mp4": "moov atom not found",
        "no_video/sound.mp4": "tracks: audio",
        "truncated/header.mp4": "0 of 40 declared frames",
        "truncated/cut.mkv": "of 4.00 declared seconds",
        "encrypted/cenc.mp4": "h264 packets are encrypted",
        "decode_error/mpeg4.mkv": "3 of 40 frames cannot be decoded, more than 5% (--max-bad-frames); the last: ",
        "encode_error/wide.mkv": "all 1 clips, the first: the clip cannot be written: ",
        "too_long/gap.mkv": "120 s from the first frame to the last; the limit is 100 s",
        "too_many_clips/slow.mkv": "49 clips; the limit is 45",
        "timeout/stuck.mp4": "no progress for 4 s",
        "too_large/wide.mp4": "322x240 pixels; the limit is 76,800",
        "too_large/long.mp4": "more than 400 frames",
        "too_short/short.mp4": "0.90 s",
    }
    assert {name: words in details[name] for name, words in said.items()} == dict.fromkeys(said, True)
    assert not any("/tmp" in detail for detail in details.values())


def test_good_clips_before_a_fault_are_kept(run: tuple[SplitResult, Path]) -> None:
    result, out = run
    shown: dict[str, list[list[int]]] = {}
    for meta in sorted(read_metas(out).values(), key=lambda meta: meta["duration_span"]):
        shown.setdefault(meta["video"], []).append(read_numbers(out / meta["clip_location"]))
    first, second = list(range(20)), list(range(20, 40))
    assert shown["done/whole.mp4"] == shown["done/whole.mkv"] == [first, second]
    assert [len(clip) for clip in shown["done/one_bad.mkv"]] == [20, 19]
    for name in ("cut.mp4", "cut.mkv", "cut.flv", "cut.avi", "cut.webm"):
        frames = [number for clip in shown[f"truncated/{name}"] for number in clip]
        assert frames == list(range(len(frames)))
        assert 10 <= len(frames) < 40, name
    for name in ("h264.mp4", "mpeg4.mkv", "ffv1.mkv", "mjpeg.mkv"):  # the frame after the first five of the second clip
        assert [len(clip) for clip in shown[f"decode_error/{name}"]] == [20], name
    kinds = {name.split("/")[0] for name in shown}
    assert kinds <= {"done", "truncated", "decode_error", "timeout"}
    assert set(read_rows(out)["id"]) == set(read_metas(out))
    assert result.clips == result.embedded == len(list((out / "clips").iterdir()))
    assert_nothing_half_written(out)


def test_a_second_run_tries_again_what_failed_by_the_moment_and_nothing_else(
    bad: Path, run: tuple[SplitResult, Path], client: distributed.Client, tmp_path: Path
) -> None:
    out = copy_folder(run[1], tmp_path / "out")
    moment = [row["video"] for row in run[0].videos if row["reason"] in OF_THE_MOMENT]
    assert {name.split("/")[0] for name in moment} == OF_THE_MOMENT & POSSIBLE
    clips = {id for row in run[0].videos if row["video"] not in moment for id in row["clips"]}
    before = {name: stamp for name, stamp in stamps(out / "clips").items() if Path(name).stem in clips}
    result = splitter(bad, out, limits=LIMITS).run(client)
    assert result.processed == len(moment)
    assert result.quarantined == {reason: n for reason, n in run[0].quarantined.items() if reason != "timeout"}
    (stuck,) = [row for row in result.videos if row["video"].startswith("timeout/")]
    assert stuck["status"] == "done", "nothing stops its process this time"
    assert before.items() <= stamps(out / "clips").items()


def test_a_disk_that_works_again_gives_what_it_holds(client: distributed.Client, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    good = make_counted(folder / "good.mp4")
    (folder / "bad.mp4").symlink_to("/proc/self/mem")
    result = splitter(folder, out).run(client)
    assert (result.quarantined, result.clips) == ({"io_error": 1}, 2)
    (row,) = pq.read_table(out / "_quarantine" / "videos.parquet").to_pylist()
    assert (row["reason"], row["detail"]) == ("io_error", "Input/output error")
    (folder / "bad.mp4").unlink()
    shutil.copy(good, folder / "bad.mp4")
    result = splitter(folder, out).run(client)
    assert (result.processed, result.quarantined, result.clips) == (1, {}, 4)
    splitter(folder, tmp_path / "fresh").run(client)
    assert_same_result(out, tmp_path / "fresh")


@pytest.mark.parametrize("n_videos", [1, 2])
@pytest.mark.parametrize("bad_one", ["first", "last"])
@pytest.mark.parametrize(("target", "reason"), [("/proc/self/mem", "io_error"), ("/nowhere", "unreadable")])
def test_a_video_that_cannot_be_read_is_set_aside_among_few_as_among_many(
    target: str, reason: str, bad_one: str, n_videos: int, client: distributed.Client, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / ("a.mp4" if bad_one == "first" else "z.mp4")).symlink_to(target)
    if n_videos > 1:
        make_counted(tmp_path / "in" / "m.mp4", 20)
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert (result.quarantined, result.count("done")) == ({reason: 1}, n_videos - 1)


@pytest.mark.parametrize("moment", ["listed", "checked"])
@pytest.mark.parametrize("others", [False, True])
def test_a_video_that_goes_is_set_aside_and_done_when_it_comes_back(
    others: bool, moment: str, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    video = make_counted(tmp_path / "in" / "a.mp4", 20)
    away = video.rename(tmp_path / "away")
    shutil.copy2(away, video)
    if others:
        make_counted(tmp_path / "in" / "b.mp4", 20)
    run = splitter(tmp_path / "in", tmp_path / "out")
    if moment == "listed":
        find = run.find

        def find_and_lose() -> object:
            found = find()
            video.unlink(missing_ok=True)
            return found

        monkeypatch.setattr(run, "find", find_and_lose)
    else:
        monkeypatch.setattr(base, "can_be_read", lambda place: video.unlink(missing_ok=True) or True)
    result = run.run(client)
    assert (result.quarantined, result.count("done")) == ({"unreadable": 1}, int(others))
    assert read_videos(tmp_path / "out").loc["a.mp4", "detail"] == "No such file or directory"
    monkeypatch.undo()
    shutil.copy2(away, video)
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert (result.processed, result.quarantined, result.count("done")) == (1, {}, 1 + others)


def test_videos_of_any_ending_and_bare_streams_lose_no_frame(
    client: distributed.Client, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "in"
    for codec in ("mpeg1video", "mpeg2video"):
        options = {"bf": "2"}
        make_video(folder / f"{codec}.mpg", 50, codec=codec, container=codec, options=options)
        make_video(folder / codec, 50, codec=codec, container=codec, options=options)
    make_video(folder / "v.mp4", 50).rename(folder / "v.mp4.part")
    (folder / "notes.txt").write_text("no video")
    lines = list(splitter(folder, tmp_path / "out").plan(client))
    assert lines[0] == "passed over 1 files that are no videos: 1 .txt"
    result = splitter(folder, tmp_path / "out", verbose=True, fixed_stride_min_clip_length_s=0).run(client)
    assert lines[0] in capfd.readouterr().err
    assert result.count("done") == 5
    shown: dict[str, list[int]] = {}
    for meta in sorted(read_metas(tmp_path / "out").values(), key=lambda meta: meta["duration_span"]):
        shown.setdefault(meta["video"], []).extend(read_numbers(tmp_path / "out" / meta["clip_location"]))
    assert len(shown) == 5
    assert set(map(tuple, shown.values())) == {tuple(range(50))}


@pytest.mark.parametrize(
    ("number", "local", "remote"),
    [
        (errno.EACCES, "permission", "permission"),
        (errno.EPERM, "permission", "permission"),
        (errno.ENOENT, "unreadable", "unreadable"),
        (errno.ELOOP, "unreadable", None),
        (errno.EIO, "io_error", None),
        (errno.ESTALE, "io_error", None),
        (errno.ETIMEDOUT, "io_error", None),
        (errno.ENOSPC, None, None),
        (errno.EMFILE, None, None),
    ],
)
def test_what_a_failure_to_read_says_of_a_video(number: int, local: str | None, remote: str | None) -> None:
    for is_local, reason in ((True, local), (False, remote)):
        fault = read_fault(OSError(number, os.strerror(number)), is_local)
        assert (fault and fault.reason) == reason, "None: it is about the machine or the store, and ends the run"


def test_a_dry_run_tells_the_faults_that_show_before_decoding(
    bad: Path, client: distributed.Client, tmp_path: Path
) -> None:
    lines = list(splitter(bad, tmp_path / "out", limits=LIMITS).plan(client))
    for reason in ("unreadable", "no_video", "no_frames", "encrypted", "too_large"):
        for name in os.listdir(bad / reason):
            assert [line for line in lines if line.startswith(f"  {reason}/{name}: quarantine: {reason}: ")], name
    assert "  too_short/short.mp4: 0.90 s, too short" in lines
    assert "  done/whole.mp4: 4.00 s, 2 clips: 0-2, 2-4" in lines
    assert not (tmp_path / "out").exists()


def test_a_video_that_is_mended_leaves_the_quarantine(client: distributed.Client, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    good = make_counted(folder / "good.mp4")
    cut_off(Path(shutil.copy(good, folder / "bad.mp4")), 0.5)
    assert splitter(folder, out).run(client).quarantined == {"unreadable": 1}
    shutil.copy(good, folder / "bad.mp4")
    result = splitter(folder, out).run(client)
    assert (result.processed, result.quarantined, result.clips) == (1, {}, 4)
    assert not (out / "_quarantine").exists()
    splitter(folder, tmp_path / "fresh").run(client)
    assert_same_result(out, tmp_path / "fresh")


def test_a_folder_of_nothing_but_bad_videos_is_done_as_well(client: distributed.Client, tmp_path: Path) -> None:
    write(tmp_path / "in" / "a.mp4", b"")
    write(tmp_path / "in" / "b.mp4", b"x")
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert (result.clips, result.embedded, result.quarantined) == (0, 0, {"unreadable": 2})
    assert not (tmp_path / "out" / "clips").exists()
    assert not (tmp_path / "out" / "dct3d_embd_parquet").exists()


def test_bad_clips_that_are_only_embedded_are_set_aside_too(
    bad: Path, client: distributed.Client, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for name in ("done/whole.mkv", "truncated/cut.flv", "encrypted/cenc.mp4", "unreadable/text.mp4"):
        folder.mkdir(exist_ok=True)
        shutil.copy(bad / name, folder)
    result = embedder(folder, tmp_path / "out").run(client)
    assert result.quarantined == {"encrypted": 1, "truncated": 1, "unreadable": 1}
    table = pq.read_table(tmp_path / "out" / "_quarantine" / "dct3d_embd_parquet.parquet").to_pandas()
    assert dict(zip(table["id"], table["reason"], strict=True)) == {
        "cenc.mp4": "encrypted",
        "cut.flv": "truncated",
        "text.mp4": "unreadable",
    }
    assert set(read_rows(tmp_path / "out")["id"]) == {"cut", "whole"}


# Limits


def test_limits_hold_from_the_first_pixel_and_frame_on(tmp_path: Path) -> None:
    video = make_counted(tmp_path / "v.mp4", 20)
    assert split(video, None, limits=Limits(max_pixels=64 * 48, max_frames=20))[1].status == "done"
    assert split(video, None, limits=Limits(max_pixels=64 * 48 - 1))[1].reason == "too_large"
    assert split(video, None, limits=Limits(max_frames=19))[1].reason == "too_large"


@pytest.mark.parametrize("limit", ["max_pixels", "max_frames", "timeout_s"])
@pytest.mark.parametrize("value", [0, -1, float("nan")])
def test_limits_that_nothing_fits_are_refused_by_name(limit: str, value: float) -> None:
    with pytest.raises(ParameterError, match=limit):
        Limits(**{limit: value})  # type: ignore[arg-type]


@pytest.mark.parametrize("ending", ["gif", "mp4"])
def test_a_small_file_of_huge_pictures_costs_no_memory(tmp_path: Path, ending: str) -> None:
    """A GIF of 65535x65535 pixels, whatever it is named: 12 GB a frame, if anybody made room for it."""
    size = b"\xff\xff\xff\xff"
    picture = b"\x21\xf9\x04\0\x0a\0\0\0\x2c\0\0\0\0" + size + b"\0\x02\x02\x44\x01\0"
    video = write(tmp_path / f"bomb.{ending}", b"GIF89a" + size + b"\x80\0\0\0\0\0\xff\xff\xff" + 3 * picture + b";")
    clips, outcome = split(video, tmp_path / "clips")
    assert (clips, outcome.status) == ([], "quarantined")
    assert outcome.reason in ("too_large", "decode_error")
    assert not list((tmp_path / "clips").iterdir())


def test_a_header_that_tells_a_smaller_size_does_not_get_around_the_limit(tmp_path: Path) -> None:
    video = make_counted(tmp_path / "v.mp4", 20, size=(128, 96))
    content = video.read_bytes()
    lie = content.replace(b"\0\x80\0\x60", b"\0\x40\0\x30")
    assert lie != content
    write(video, lie)
    assert split(video, None)[1].status == "done"
    assert split(video, None, limits=Limits(max_pixels=64 * 48))[1].reason == "too_large"


def test_a_video_that_grows_beyond_the_limit_keeps_the_clips_before(tmp_path: Path) -> None:
    small = make_counted(tmp_path / "small.ts", 20)
    large = make_counted(tmp_path / "large.ts", 20, size=(128, 96), start_pts=20)
    video = write(tmp_path / "v.ts", small.read_bytes() + large.read_bytes())
    assert [clip.facts["n_frames"] for clip in split(video, None)[0]] == [10, 10, 10, 10]
    clips, outcome = split(video, None, limits=Limits(max_pixels=64 * 48))
    assert (outcome.status, outcome.reason in ("too_large", "decode_error")) == ("quarantined", True)
    assert [clip.facts["start_s"] for clip in clips] == [0.0]


# Cuts and damage


@pytest.mark.parametrize("share", [0.3, 0.5, 0.7, 0.8])
@pytest.mark.parametrize("name", ["v.mp4", "v.mkv", "v.flv"])
def test_a_cut_video_is_truncated_wherever_it_is_cut(name: str, share: float, tmp_path: Path) -> None:
    """Also in the middle of a packet, as here: the frame that is left of it is not shown."""
    video = make_texture(tmp_path / name, 3, container_options=FAST_START if name == "v.mp4" else None)
    whole = [pixels for _, pixels in read_frames(video)]
    cut_off(video, share)
    clips, outcome = split(video, tmp_path / "clips", min_length_s=0.1)
    assert (outcome.status, outcome.reason) == ("quarantined", "truncated"), outcome
    n_frames = sum(clip.facts["n_frames"] for clip in clips)
    assert 0.7 * share * len(whole) < n_frames < len(whole)
    last = read_frames(tmp_path / "clips" / f"{clips[-1].facts['id']}.mp4")[-1][1]
    assert abs(last.astype(int) - whole[n_frames - 1]).mean() < 12


@pytest.mark.parametrize(("name", "codec"), [("v.mkv", "libx264"), ("v.asf", "mpeg4"), ("v.mp4", "libx264")])
def test_a_start_that_is_not_zero_is_no_loss_and_hides_none(name: str, codec: str, tmp_path: Path) -> None:
    """Some containers declare the time of the end, and no length."""
    fast = FAST_START if name == "v.mp4" else None
    video = make_counted(tmp_path / name, codec=codec, gop=1, start_pts=35, container_options=fast)
    assert split(video, None)[1].status == "done"
    if name == "v.asf":  # one that is cut declares nothing any more
        return
    clips, outcome = split(cut_off(video, 0.6), None)
    assert (outcome.reason, 0 < len(clips) < 4) == ("truncated", True)


def test_a_short_video_that_is_cut_is_truncated_and_not_too_short(tmp_path: Path) -> None:
    video = make_counted(tmp_path / "v.mkv", 30, gop=1)
    assert split(video, None, min_length_s=1.0, duration_s=3.0)[1].status == "done"
    cut_off(video, 0.4)
    clips, outcome = split(video, None, min_length_s=1.0, duration_s=3.0)
    assert (clips, outcome.reason) == ([], "truncated")


@pytest.mark.parametrize("number", [0, 12, 39])
def test_a_frame_that_cannot_be_decoded_is_skipped_and_counted_where_it_was(number: int, tmp_path: Path) -> None:
    video = damage(make_texture(tmp_path / "v.mkv", 1, codec="mjpeg", pix_fmt="yuvj420p"), number)
    clips, outcome = split(video, tmp_path / "clips")
    assert (outcome.status, outcome.facts["bad_frames"], outcome.facts["n_frames"]) == ("done", 1, 39)
    expected = [int(number // RATE == i) for i in range(4)]
    assert [clip.facts["bad_frames"] for clip in clips] == expected
    assert [clip.facts["n_frames"] for clip in clips] == [RATE - n for n in expected]
    _, strict = split(video, tmp_path / "strict", decode=DecodeOptions(max_bad_frames=0))
    assert strict.reason == "decode_error"
    assert "1 of 40 frames cannot be decoded, more than 0%" in strict.detail


def test_damage_at_the_end_that_is_counted_costs_no_clip(tmp_path: Path) -> None:
    video = make_counted(tmp_path / "v.mkv", 400, codec="mjpeg", pix_fmt="yuvj420p")
    for number in range(396, 400):
        damage(video, number)
    for options in ({"duration_s": 20.0}, {"plan": None, "id_scheme": "name"}):
        clips, outcome = split(video, None, **options)
        assert (outcome.status, outcome.facts["bad_frames"]) == ("done", 4)
        assert sum(clip.facts["n_frames"] for clip in clips) == 396


def test_sound_that_is_damaged_costs_nothing_but_itself(tmp_path: Path) -> None:
    video = make_texture(tmp_path / "v.mkv", 1, audio="mp2")
    content = bytearray(video.read_bytes())
    with av.open(str(video)) as file:
        packets = [packet for packet in file.demux(audio=0) if packet.size]
        places = [(content.index(bytes(packet)), packet.size) for packet in packets[10:40]]
    for place, size in places:
        content[place : place + size] = b"\xff" * size
    write(video, bytes(content))
    clips, outcome = split(video, tmp_path / "clips")
    assert (outcome.status, [clip.facts["n_frames"] for clip in clips]) == ("done", [RATE] * 4)


# Names


NAMES = [
    "new\nline.mp4",
    "a...mp4",
    "a..mp4",
    "%2E%2E.mp4",
    "up\\..\\..\\up.mp4",
    "<script>alert(1)<.mp4",
    "'single' \"double\" `back`.mp4",
    "$(touch hacked);&|.mp4",
    "*?[x]{y}.mp4",
    "-o.mp4",
    " .mp4",
    "tab\t and \x1b[31mred.mp4",
    "http:example.mp4",
    "concat:a|b.mp4",
    "%05d.mp4",
    "l" * 251 + ".mp4",
    "ü" * 125 + ".mp4",
    "UPPER.MP4",
    "folder.mp4/..inside.mp4/v.mp4",
]


@pytest.mark.slow
def test_any_name_of_a_file_is_the_name_of_a_video(client: distributed.Client, tmp_path: Path) -> None:
    """They name records and rows, and nothing is written elsewhere. Names that are no UTF-8 are written as text."""
    folder, out = tmp_path / "in", tmp_path / "out"
    source = make_counted(tmp_path / "source.mp4", 20)
    names = list(NAMES)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, folder / name)
    try:
        shutil.copy(source, os.fsencode(folder) + b"/bytes \xff\xfe.mp4")
        names.append("bytes \\xff\\xfe.mp4")
    except OSError:  # a file system that takes UTF-8 only
        pass
    (folder / "empty.mp4").mkdir()
    write(folder / "._hidden.mp4", b"what macOS leaves beside a video")
    before = {path for path in tmp_path.rglob("*") if out not in path.parents}
    result = splitter(folder, out).run(client)
    assert {row["video"] for row in result.videos} == set(names)
    assert {row["status"] for row in result.videos} == {"done"}
    assert {path for path in tmp_path.rglob("*") if out not in path.parents} - {out} == before
    assert set(read_rows(out)["video"]) == set(names)
    assert read_rows(out)["id"].nunique() == len(names)
    assert {meta["video"] for meta in read_metas(out).values()} == set(names)
    records = [
        json.loads((out / "processed_videos" / name).read_bytes()) for name in files_below(out / "processed_videos")
    ]
    assert sorted(record["video"] for record in records) == sorted(names)
    before_rerun = stamps(out)
    assert splitter(folder, out).run(client).processed == 0
    assert stamps(out) == before_rerun


@pytest.mark.parametrize("scheme", ["nemo", "cosmos"])
def test_the_ids_of_the_peers_are_made_of_any_name(scheme: str, client: distributed.Client, tmp_path: Path) -> None:
    folder = tmp_path / "in"
    source = make_counted(folder / "a.mp4", 20)
    try:
        shutil.copy(source, os.fsencode(folder) + b"/\xff.mp4")
    except OSError:
        pytest.skip("a file system that takes UTF-8 only")
    result = splitter(folder, tmp_path / "out", clip_id_scheme=scheme, generate_embeddings=False).run(client)
    assert (result.count("done"), result.clips) == (2, 2)


def test_bad_videos_of_any_name_are_told(client: distributed.Client, tmp_path: Path) -> None:
    for name in NAMES:
        write(tmp_path / "in" / name, b"nothing")
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert result.quarantined == {"unreadable": len(NAMES)}
    table = pq.read_table(tmp_path / "out" / "_quarantine" / "videos.parquet")
    assert sorted(table["id"].to_pylist()) == sorted(NAMES)


def test_a_link_that_leads_to_a_video_is_a_video_and_one_in_a_circle_is_no_trap(
    client: distributed.Client, tmp_path: Path
) -> None:
    real = make_counted(tmp_path / "elsewhere" / "real.mp4", 20)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "link.mp4").symlink_to(real)
    (tmp_path / "in" / "around").symlink_to(tmp_path / "in")
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert [(row["video"], row["status"]) for row in result.videos] == [("link.mp4", "done")]


# Hostile files


class Opened:
    """Tells whether files of a folder were opened, by anybody: Linux's inotify."""

    OPEN = 0x20

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._events = libc.inotify_init1(os.O_NONBLOCK)
        assert libc.inotify_add_watch(self._events, os.fsencode(folder), self.OPEN) > 0

    def seen(self) -> bool:
        """Whether any was since the last call."""
        try:
            return bool(os.read(self._events, 1 << 16))
        except BlockingIOError:
            return False

    def close(self) -> None:
        os.close(self._events)


class Trap:
    """A TCP and a UDP port on this machine, and a folder with real videos, that nobody has a reason to touch."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.video = make_texture(folder / "real.ts", 7)
        self.tcp = socket.create_server(("127.0.0.1", 0))
        self.udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.udp.bind(("127.0.0.1", 0))
        for port in (self.tcp, self.udp):
            port.setblocking(False)
        self.opened = Opened(folder)
        self.web = f"http://127.0.0.1:{self.tcp.getsockname()[1]}"

    def touched(self) -> set[str]:
        """What was, since the last call."""
        found = set()
        for name, take in (("tcp", lambda: self.tcp.accept()[0].close()), ("udp", lambda: self.udp.recv(1))):
            try:
                take()
                found.add(name)
            except BlockingIOError:
                pass
        return found | ({"file"} if self.opened.seen() else set())

    def close(self) -> None:
        self.tcp.close()
        self.udp.close()
        self.opened.close()


def playlist(*lines: str) -> str:
    return "\n".join(["#EXTM3U", "#EXT-X-VERSION:3", "#EXT-X-TARGETDURATION:4", "#EXT-X-MEDIA-SEQUENCE:0", *lines, ""])


def manifest(base: str) -> str:
    return (
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'mediaPresentationDuration="PT4S" profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period>'
        '<AdaptationSet contentType="video" mimeType="video/mp4"><Representation id="1" bandwidth="1000" width="64" '
        f'height="48"><BaseURL>{base}</BaseURL></Representation></AdaptationSet></Period></MPD>'
    )


def hostile_texts(trap: Trap) -> dict[str, str]:
    """Files that name other files and hosts, by what they are."""
    video, end, web = str(trap.video), "#EXT-X-ENDLIST", trap.web
    return {
        "ffconcat": f"ffconcat version 1.0\nfile '{video}'\n",
        "ffconcat of a web page": f"ffconcat version 1.0\nfile '{web}/a.ts'\n",
        "hls of a file": playlist("#EXTINF:4,", video, end),
        "hls of a file url": playlist("#EXTINF:4,", f"file://{video}", end),
        "hls of a web page": playlist("#EXTINF:4,", f"{web}/a.ts", end),
        "hls of hls": playlist("#EXT-X-STREAM-INF:BANDWIDTH=1", f"{web}/b.m3u8"),
        "hls with a key": playlist(f'#EXT-X-KEY:METHOD=AES-128,URI="{web}/key"', "#EXTINF:4,", video, end),
        "hls that goes on": playlist("#EXTINF:4,", f"concat:{video}|{video}"),
        "dash of a web page": manifest(f"{web}/a.mp4"),
        "dash of a file": manifest(f"file://{video}"),
        "sdp": "\r\n".join(
            [
                *("v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=x", "c=IN IP4 127.0.0.1", "t=0 0"),
                *(f"m=video {trap.udp.getsockname()[1]} RTP/AVP 96", "a=rtpmap:96 H264/90000", ""),
            ]
        ),
    }


@pytest.fixture
def trap(tmp_path: Path) -> Iterator[Trap]:
    """Ports and files that must stay alone."""
    if sys.platform != "linux":
        pytest.skip("needs inotify")
    laid = Trap(tmp_path / "private")
    assert laid.touched() == set()
    yield laid
    laid.close()


def test_playlists_and_scripts_named_as_videos_reach_for_nothing(
    trap: Trap, client: distributed.Client, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    for ending in ("mp4", "ts", "mkv", "flv", "gif"):
        for name, text in hostile_texts(trap).items():
            write(folder / f"{name}.{ending}", text.encode())
    good = make_counted(folder / "good.mp4", 20)
    result = splitter(folder, tmp_path / "out", limits=Limits(timeout_s=20)).run(client)
    assert trap.touched() == set()
    found = {row["video"]: (row["reason"], row["clips"] != []) for row in result.videos}
    assert found.pop(good.name) == ("", True)
    assert len(found) == 55
    assert set(found.values()) == {("unreadable", False)}


def test_a_video_whose_pictures_stand_in_another_file_gives_none_of_them(
    trap: Trap, client: distributed.Client, tmp_path: Path
) -> None:
    """QuickTime's data references. The other file has the same layout, so that it would fit."""
    private = trap.video.parent
    for name in ("a.mp4", "b.mov"):
        real = make_texture(private / f"real.{name}", 7)
        refer_to(Path(shutil.copy(real, private / name)), real)
    assert trap.touched() == {"file"}  # by this test
    with av.open(str(private / "a.mp4"), options={"enable_drefs": "1"}) as file:  # they would be found
        assert sum(1 for _ in file.decode(video=0)) == 40
    for name in ("a.mp4", "b.mov"):  # hostile files and those that they name lie in one folder
        (tmp_path / "in").mkdir(exist_ok=True)
        shutil.move(private / name, tmp_path / "in")
    shutil.copy(private / "real.a.mp4", tmp_path / "in" / "real.a.mp4.private")
    trap.touched()
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert [(row["video"], row["status"], row["reason"]) for row in result.videos] == [
        ("a.mp4", "quarantined", "truncated"),
        ("b.mov", "quarantined", "truncated"),
        ("real.a.mp4.private", "done", ""),
    ]
    assert [row["clips"] for row in result.videos[:2]] == [[], []]
    assert trap.touched() == set()


@pytest.mark.parametrize(
    ("name", "format_name", "options", "expected"),
    [
        ("ffconcat", None, {"safe": "0"}, {"file"}),
        ("ffconcat of a web page", None, {"safe": "0"}, {"tcp"}),
        ("hls of a file", "hls", {}, {"file"}),
        ("hls of a web page", "hls", {}, {"tcp"}),
        ("hls of hls", "hls", {}, {"tcp"}),
    ],
)
def test_the_trap_shuts_where_nothing_is_forbidden(
    name: str, format_name: str | None, options: dict[str, str], expected: set[str], trap: Trap, tmp_path: Path
) -> None:
    """The same files, opened without our options: what the tests above look for would be seen."""
    path = write(tmp_path / "v.mp4", hostile_texts(trap)[name].encode())
    allowed = {"protocol_whitelist": "file,http,tcp,udp,rtp,crypto", "extension_picky": "0", **options}
    if format_name != "hls":
        allowed.pop("extension_picky")
    try:
        with av.open(str(path), format=format_name, options=allowed, timeout=0.3) as file:
            assert file.streams.video or expected == {"tcp"}
    except av.error.FFmpegError:  # nobody answers
        assert expected == {"tcp"}
    assert trap.touched() == expected


def test_a_path_is_never_an_address(trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path in (
        f"{trap.web}/a.mp4",
        f"concat:{trap.video}",
        f"file:{trap.video}",
        f"subfile,,start,0,end,0,,:{trap.video}",
    ):
        with pytest.raises(VideoFault) as fault:
            open_container(path, Limits())
        assert fault.value.reason == "unreadable"
    assert trap.touched() == set()
