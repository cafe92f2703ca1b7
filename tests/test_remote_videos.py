"""Videos in a store are read piece by piece: no byte twice, of a dry run little, and with the results of local ones."""

import itertools
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import distributed
import fsspec
import numpy as np
import pytest

from semdedup import StorageError
from semdedup.storage.location import Location
from semdedup.video.child import ChildDied, borrowed_child, stretch_around
from semdedup.video.fetch import MOST_BYTES, RemoteCopy, Stretches, remote_copy
from semdedup.video.quarantine import GoneFault, VideoFault
from semdedup.video.ranges import RangeFile, Ranges
from tests.helpers import contents
from tests.splits import make_texture, read_rows, read_videos, splitter
from tests.videos import cut_off, make_video

pytestmark = pytest.mark.usefixtures("kept_children")

RATE = 10


def noise(n_frames: int, size: tuple[int, int]) -> Iterator[np.ndarray]:
    """Frames that take many bytes."""
    picture = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    return (np.roll(picture, 3 * i, axis=1) for i in range(n_frames))


def make_videos(folder: Path) -> Path:
    """A video for each way in which a container tells of its packets."""
    folder.mkdir()
    for name, codec, movflags in (
        ("tables at the end.mp4", "libx264", ""),
        ("tables first.mp4", "libx265", "faststart"),
        ("fragments.mp4", "libx264", "frag_keyframe+empty_moov"),
        ("without tables.mov", "mpeg2video", ""),
        ("a.mkv", "libx264", ""),
        ("b.avi", "mpeg4", ""),
        ("c.ts", "libx264", ""),
    ):
        make_video(
            folder / name,
            pictures=noise(60, (320, 240)),
            rate=RATE,
            codec=codec,
            audio="libmp3lame" if name.endswith("avi") else "aac",
            container_options={"movflags": movflags} if movflags else None,
        )
    make_texture(folder / "short.mp4", 1, 0.5)
    cut_off(make_texture(folder / "cut off.mkv", 2, 4), 0.7)
    (folder / "broken.mp4").write_bytes(b"broken" * 1000)
    return folder


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_videos(tmp_path_factory.mktemp("videos") / "in")


@pytest.fixture
def remote(local: Path) -> Iterator[str]:
    """The same videos in a store that is in the memory of this process."""
    fs = fsspec.filesystem("memory")
    for path in local.iterdir():
        fs.pipe_file(f"/in/{path.name}", path.read_bytes())
    yield "memory://in"
    fs.rm("/in", recursive=True)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[tuple[int, int]]]:
    """By the name of a video, the ranges that were asked for."""
    ranges: dict[str, list[tuple[int, int]]] = {}
    read_bytes = Location.read_bytes

    def reading(place: Location, start: int | None = None, end: int | None = None) -> bytes:
        if not place.is_local and start is not None and end is not None and end > 1:  # not the try of one byte
            ranges.setdefault(place.name, []).append((start, end))
        return read_bytes(place, start, end)

    monkeypatch.setattr(Location, "read_bytes", reading)
    return ranges


def test_each_byte_is_fetched_once_and_the_clips_are_those_of_local_videos(
    local: Path,
    remote: str,
    fetched: dict[str, list[tuple[int, int]]],
    inside: distributed.Client,
    tmp_path: Path,
) -> None:
    results = [splitter(source, tmp_path / name).run(inside) for name, source in (("l", local), ("r", remote))]
    assert results[0].quarantined == results[1].quarantined
    for folder in ("clips", "processed_videos", "processed_clip_chunks"):
        assert contents(tmp_path / "l" / folder) == contents(tmp_path / "r" / folder)
    assert len(contents(tmp_path / "l" / "clips")) == 7 * 3 + 1
    assert read_rows(tmp_path / "l").equals(read_rows(tmp_path / "r"))
    differ = ["url", "stamp", "files"]
    assert read_videos(tmp_path / "l").drop(columns=differ).equals(read_videos(tmp_path / "r").drop(columns=differ))
    assert fetched.keys() == {path.name for path in local.iterdir()}
    for name, ranges in fetched.items():
        ordered = sorted(ranges)
        assert all(before[1] <= after[0] for before, after in itertools.pairwise(ordered)), name
        assert ordered[-1][1] <= (local / name).stat().st_size


@pytest.mark.parametrize("options", [{}, {"cut": "copy"}], ids=["encoded", "copied"])
def test_a_dry_run_plans_as_with_local_videos_and_fetches_what_tells_the_plan(
    options: dict[str, str],
    local: Path,
    remote: str,
    fetched: dict[str, list[tuple[int, int]]],
    inside: distributed.Client,
    tmp_path: Path,
) -> None:
    of_local, of_remote = (
        list(splitter(source, tmp_path / "out", **options).plan(inside)) for source in (local, remote)
    )
    lines = zip([line.replace(": about ", ": ") for line in of_remote], of_local, strict=True)
    differing = [there for there, here in lines if there != here]
    assert ["cut off.mkv: 4.00 s" in line or " s in all" in line for line in differing] == [True] * (
        0 if options else 2
    ), "where its packets are not read, a video is as long as it says"
    about = {line.strip().split(":")[0] for line in of_remote if ": about " in line}
    by_tables = {"tables at the end.mp4", "tables first.mp4", "fragments.mp4"}
    declared = {"a.mkv", "b.avi", "c.ts"}
    assert about - {"short.mp4", "cut off.mkv"} == (by_tables if options else declared)
    share = {
        name: sum(end - start for start, end in ranges) / (local / name).stat().st_size
        for name, ranges in fetched.items()
    }
    assert all(share[name] < 0.7 for name in by_tables), share
    assert all(part <= 1 for part in share.values())
    assert not (tmp_path / "out").exists()


def test_a_video_that_goes_while_it_is_read_is_gone(
    remote: str, inside: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, cat_file, calls = fsspec.filesystem("memory"), type(fsspec.filesystem("memory")).cat_file, Counter[str]()
    monkeypatch.setattr("semdedup.video.fetch.MOST_BYTES", 100_000)

    def cat(self: object, path: str, start: int | None = None, end: int | None = None, **options: object) -> bytes:
        calls[path] += 1
        if path.endswith("a.mkv") and calls[path] == 4:
            fs.rm_file("/in/a.mkv")
        return cat_file(self, path, start, end, **options)

    monkeypatch.setattr(type(fs), "cat_file", cat)
    result = splitter(remote, tmp_path / "out").run(inside)
    video = read_videos(tmp_path / "out").loc["a.mkv"]
    assert (video["status"], video["reason"], video["stamp"]) == ("quarantined", "unreadable", "")
    assert result.count("done") == 6


def test_a_store_that_fails_ends_the_run(
    remote: str, inside: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: object, path: str, *rest: object, **options: object) -> bytes:
        raise ConnectionResetError("the store went away")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "cat_file", refuse)
    with pytest.raises(StorageError, match="cannot read memory://in/"):
        splitter(remote, tmp_path / "other").run(inside)


def remote_file(content: bytes) -> Location:
    fsspec.filesystem("memory").pipe_file("/one/video.mp4", content)
    return Location.of("memory://one/video.mp4")


@pytest.mark.parametrize("sparing", [True, False])
def test_what_is_read_is_what_is_there_and_no_byte_is_fetched_twice(
    sparing: bool, fetched: dict[str, list[tuple[int, int]]], rng: np.random.Generator
) -> None:
    content = rng.bytes(3_000_000)
    with remote_copy(remote_file(content), len(content), sparing) as (ranges, copy):
        files = [RangeFile(ranges, copy.provide) for _ in range(2)]
        for position, n_bytes in rng.integers(0, (len(content) + 10, 200_000), (200, 2)):
            file = files[position % 2]
            file.seek(int(position))
            found = file.read(int(n_bytes))
            assert found == content[position : position + len(found)]
            assert found or position >= len(content) or not n_bytes
    ordered = sorted(fetched["video.mp4"])
    assert all(before[1] <= after[0] for before, after in itertools.pairwise(ordered))
    assert not Path(ranges.path).exists()


def test_a_reader_that_goes_on_asks_for_more_at_a_time(fetched: dict[str, list[tuple[int, int]]]) -> None:
    content = bytes(4 * MOST_BYTES)
    place = remote_file(content)
    with remote_copy(place, len(content), True) as (_, copy):
        copy.provide(5)
        while copy.provide(5)[1] < len(content):
            copy.provide(copy.provide(5)[1])
    sizes = [end - start for start, end in fetched.pop("video.mp4")]
    assert sizes[:5] == [2**i for i in range(16, 21)]
    assert max(sizes) == 2**20
    with remote_copy(place, len(content), False) as (_, copy):
        assert copy.provide(0) == (0, MOST_BYTES)


def test_stretches_are_those_of_the_positions_that_were_added(rng: np.random.Generator) -> None:
    there, held = Stretches(), np.zeros(60, dtype=bool)
    for start in rng.permutation(30) * 2:
        there.add(int(start), int(start) + 2)
        held[start : start + 2] = True
        ends = np.flatnonzero(np.diff(np.r_[0, held, 0])).reshape(-1, 2).tolist()
        assert list(map(list, zip(there.starts, there.ends, strict=True))) == ends
        for position in range(60):
            around = [tuple(stretch) for stretch in ends if stretch[0] <= position < stretch[1]]
            assert there.around(position) == (around[0] if around else None)
            assert there.after(position) == min((first for first, _ in ends if first > position), default=None)


# A process that decodes and was taken over


def ask_for(position: int) -> Iterator[int]:
    yield from stretch_around(position)


@pytest.mark.parametrize("position", [-1, 10, 1 << 62])
def test_a_process_gets_nothing_that_is_not_of_its_video(position: int) -> None:
    with remote_copy(remote_file(b"0123456789"), 10, True) as (_, copy), borrowed_child() as child:
        assert list(child.call(ask_for, 0, 60, provide=copy.provide)) == [0, 10]
        with pytest.raises(ChildDied, match="asked for byte"):
            list(child.call(ask_for, position, 60, provide=copy.provide))
    assert not child.alive


def test_a_process_that_asks_for_more_of_a_local_file_is_ended() -> None:
    with borrowed_child() as child, pytest.raises(ChildDied, match="has as a whole"):
        list(child.call(ask_for, 0, 60))
    assert not child.alive


def test_a_video_that_became_shorter_or_went_is_at_fault_itself(tmp_path: Path) -> None:
    place = remote_file(b"0123456789")
    (tmp_path / "video").write_bytes(bytes(20))
    copy = RemoteCopy(place, Ranges(str(tmp_path / "video"), 20, "video.mp4"), False)
    with pytest.raises(VideoFault, match="10 bytes came where 20 were asked for"):
        copy.provide(0)
    place.remove()
    with pytest.raises(GoneFault):
        copy.provide(0)
