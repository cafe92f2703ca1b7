"""Fingerprint tracks: two vectors a second of each video, whatever becomes of its clips."""

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow.parquet as pq
import pytest

from semdedup import OutputConflictError
from semdedup.storage.location import Location
from semdedup.video.cut import split_video
from semdedup.video.fingerprint import DIM, VERSION
from semdedup.video.job import ClipMade, Outcome, TrackMade, Wanted
from semdedup.video.kinds import split_kind
from semdedup.video.options import DecodeOptions
from semdedup.video.parts import Parts, plan_parts
from semdedup.video.records import TRACK_ROWS, VideoFile
from semdedup.video.row_files import TRACKS, track_rows
from semdedup.video.track import TrackMaker
from semdedup.video.video_rows import VideoRows
from semdedup.video.video_table import VideoTable
from tests.helpers import NOWHERE, files_below, stamps
from tests.splits import (
    RATE,
    assert_same_tracks,
    copy_folder,
    embedder,
    make_texture,
    read_tracks,
    read_videos,
    splitter,
)
from tests.videos import damage, flat, make_video, split_job, texture

pytestmark = pytest.mark.usefixtures("kept_children")

LENGTHS = {"a.mp4": 4.0, "below/b.mkv": 5.2, "turned.mp4": 2.6}


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of these lengths, and one that is too short for a clip. Nobody may change them."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, seconds) in enumerate(LENGTHS.items()):
        make_texture(folder / name, seed, seconds, **({"rotation": 90} if name == "turned.mp4" else {}))
    make_texture(folder / "short.mp4", 9, 0.5)
    return folder


@pytest.fixture(scope="module")
def done(videos: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a split of them wrote. Nobody may change it."""
    out = tmp_path_factory.mktemp("done") / "out"
    splitter(videos, out, upload_clips=False).run(client)
    return out


def made_of(path: Path, folder: Path | None = None, **options: Any) -> tuple[np.ndarray, list[ClipMade], Outcome]:
    """The track of a video, its clips, and how it ended: made in this process."""
    if folder is not None:
        folder.mkdir()
    found = list(split_video(split_job(path, folder, wanted=Wanted(track=True), **options)))
    (track,) = (item for item in found if isinstance(item, TrackMade))
    assert isinstance(found[-1], Outcome)
    return track.fingerprints, [item for item in found if isinstance(item, ClipMade)], found[-1]


def test_a_video_has_two_vectors_a_second_of_its_own_time(done: Path) -> None:
    tracks = read_tracks(done)
    assert {name: len(track) for name, track in tracks.items()} == {"a.mp4": 8, "below/b.mkv": 10, "turned.mp4": 5}
    table = pq.read_table(done / "fingerprints" / "part-00000.parquet")
    assert table.schema.remove_metadata().equals(TRACK_ROWS.remove_metadata())
    assert table.schema.metadata[b"semdedup.fingerprint"] == VERSION.encode()
    rows = read_videos(done)
    assert rows["n_fingerprints"].to_dict() == {**{name: len(track) for name, track in tracks.items()}, "short.mp4": 0}
    assert rows.loc["a.mp4", ["width", "height"]].tolist() == [64, 48]
    assert rows.loc["a.mp4", "bitrate"] == pytest.approx(8 * rows.loc["a.mp4", "n_bytes"] / 4, rel=0.3)
    recorded = json.loads((done / "_manifest.json").read_bytes())["steps"]["split"]
    assert recorded["parameters"]["fingerprint_version"] == VERSION


def test_the_vector_of_a_moment_tells_what_is_shown_then_at_any_frame_rate(tmp_path: Path) -> None:
    tracks = [
        made_of(make_video(tmp_path / f"{rate}.mkv", pictures=texture(5, 4 * rate, rate=rate), rate=rate))[0]
        for rate in (10, 25)
    ]
    units = [track / np.linalg.norm(track.astype(float), axis=1, keepdims=True) for track in tracks]
    assert (units[0] @ units[1].T).argmax(axis=1).tolist() == list(range(8))


PLANS: dict[str, dict[str, Any]] = {
    "longer clips": {"duration_s": 3.0},
    "clips that overlap": {"duration_s": 2.0, "stride_s": 0.7},
    "clips with gaps between them": {"duration_s": 1.0, "stride_s": 2.0},
    "few clips": {"limit_clips": 1},
    "copied": {"cut": "copy"},
    "the whole video": {"plan": None},
    "with previews": {"previews": True},
}


@pytest.mark.parametrize("name", PLANS)
def test_a_track_does_not_depend_on_how_clips_are_cut(name: str, videos: Path, done: Path, tmp_path: Path) -> None:
    video = "below/b.mkv"
    folder = None if name == "the whole video" else tmp_path / "clips"
    track, clips, _ = made_of(videos / video, folder, **PLANS[name])
    assert clips
    np.testing.assert_array_equal(track, read_tracks(done)[video])


def test_embed_writes_the_tracks_of_split_once_for_a_folder(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    source, out = copy_folder(videos, tmp_path / "in"), tmp_path / "out"
    (source / "short.mp4").unlink()
    result = embedder(source, out).run(client)
    assert result.paths["fingerprints"] == str(out / "fingerprints")
    assert_same_tracks(out, done)
    before = stamps(out / "fingerprints")
    other = {"embedding_algorithm": grey_level}
    assert "fingerprints" not in embedder(source, out, **other).run(client).paths
    assert stamps(out / "fingerprints") == before
    assert embedder(source, out).run(NOWHERE).processed == embedder(source, out, **other).run(NOWHERE).processed == 0
    embedder(source, out, **other, clear_output=True).run(client)
    assert stamps(out / "fingerprints") == before
    embedder(source, out, clear_output=True).run(client)
    assert_same_tracks(out, done)


def grey_level(frames: np.ndarray) -> np.ndarray:
    """An embedder: (t, h, w, 3) frames to a vector."""
    return np.array([frames.mean(), 1], dtype=np.float32)


def test_clips_of_a_split_have_no_tracks_of_their_own(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    splitter(videos, tmp_path / "out", generate_embeddings=False).run(client)
    assert_same_tracks(tmp_path / "out", done)
    before = stamps(tmp_path / "out" / "fingerprints")
    embedder(tmp_path / "out").run(client)
    embedder(tmp_path / "out", tmp_path / "elsewhere").run(client)
    assert stamps(tmp_path / "out" / "fingerprints") == before
    assert not (tmp_path / "elsewhere" / "fingerprints").exists()


def test_a_file_of_tracks_that_is_lost_is_made_again(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    source, out = copy_folder(videos, tmp_path / "in"), copy_folder(done, tmp_path / "out")
    (out / "fingerprints" / "part-00000.parquet").unlink()
    (source / "turned.mp4").unlink()
    assert splitter(source, out, upload_clips=False).run(client).processed == 2
    assert read_tracks(out).keys() == {"a.mp4", "below/b.mkv"}
    assert read_videos(out)["n_fingerprints"].to_dict() == {
        "a.mp4": 8,
        "below/b.mkv": 10,
        "short.mp4": 0,
        "turned.mp4": 0,
    }
    assert splitter(videos, out, upload_clips=False).run(client).processed == 1
    assert_same_tracks(out, done)


def test_tracks_of_somebody_else_are_not_overwritten(videos: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "out" / "fingerprints" / "part-00000.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    for workflow in (splitter(videos, tmp_path / "out"), embedder(videos, tmp_path / "out")):
        with pytest.raises(OutputConflictError, match="fingerprints"):
            workflow.run(NOWHERE)
    assert files_below(tmp_path / "out") == ["fingerprints/part-00000.parquet"]


def test_a_video_that_fails_in_the_middle_has_the_track_of_its_clips(tmp_path: Path) -> None:
    video = make_texture(tmp_path / "v.mkv", 3, 4, codec="mjpeg", pix_fmt="yuvj420p")
    whole, _, _ = made_of(video)
    track, clips, outcome = made_of(damage(video, 30), decode=DecodeOptions(max_bad_frames=0))
    assert (outcome.status, outcome.reason, len(clips)) == ("quarantined", "decode_error", 2)
    assert max(clip.facts["end_s"] for clip in clips) <= len(track) / 2 < 4
    np.testing.assert_array_equal(track[:4], whole[:4])  # later ones see what comes a second later


def test_what_shows_nothing_has_vectors_of_zero(tmp_path: Path) -> None:
    track, _, _ = made_of(make_video(tmp_path / "v.mkv", pictures=flat(20), rate=RATE))
    assert track.shape == (4, DIM)
    assert not track.any()


def test_a_maker_without_pictures_gives_no_vectors() -> None:
    assert TrackMaker(Fraction(1, 10)).finish(50).shape == (0, DIM)


@pytest.mark.parametrize(
    "wrong", [np.zeros((3, DIM), np.float32), np.zeros((3, DIM - 1), np.int8), np.zeros(DIM, np.int8)]
)
def test_what_is_no_track_is_not_taken_for_one(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no track"):
        TrackMade(wrong)


def test_tracks_take_less_than_a_hundredth_of_clips_at_a_megabit_a_second(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    """Vectors of noise, which cannot be compressed, in short videos with long names."""
    scratch, rows = Location.of(str(tmp_path / "scratch")), []
    for i in range(1000):
        video = VideoFile(f"{'folder' * 10}/video-{i:05d}.mp4", "", 1, f"{i}")
        TRACKS.write(scratch, video.version, track_rows(video, rng.integers(-127, 128, (20, DIM), dtype=np.int8)))
        named = {"video": video.relative_path, "n_bytes": 1, "stamp": f"{i}", "clips": [], "part": ""}
        rows.append({**named, "n_fingerprints": 20, "fingerprint_part": ""})
    work = Parts(TRACKS, scratch, scratch, Location.of(str(tmp_path / "new")), TRACK_ROWS)
    (part,) = plan_parts(TRACKS, VideoRows(), VideoRows.of(rows), work.most_rows(VideoRows.of(rows))).parts
    assert work.write(part) == 20_000
    path = tmp_path / "new" / part.name
    assert path.stat().st_size / 10_000 < 200 < 1_000_000 / 8 / 100
    stored = pq.ParquetFile(path)
    assert [stored.metadata.row_group(i).num_rows for i in range(3)] == [8192, 8192, 3616]


def test_an_output_of_before_there_were_tracks_is_read_and_not_gone_on_with(
    videos: Path, done: Path, tmp_path: Path
) -> None:
    out = copy_folder(done, tmp_path / "out")
    as_it_was(out)
    rows = VideoTable(Location.of(str(out)), split_kind(["dct3d_embd_parquet"])).rows
    assert [row["n_rows"] for row in rows] == read_videos(done)["n_rows"].tolist()
    assert rows.sum("n_fingerprints") == 0
    with pytest.raises(OutputConflictError, match=rf"fingerprint_version: None there, '{VERSION}' now"):
        splitter(videos, out, upload_clips=False).run(NOWHERE)


def as_it_was(out: Path) -> None:
    """Make an output what it would have been without tracks."""
    table = pq.read_table(out / "_videos.parquet")
    added = ["width", "height", "bitrate", "n_fingerprints", "fingerprint_part"]
    pq.write_table(table.drop_columns(added), out / "_videos.parquet")
    for path in (out / "fingerprints").iterdir():
        path.unlink()
    (out / "fingerprints").rmdir()
    manifest = json.loads((out / "_manifest.json").read_bytes())
    step = manifest["steps"]["split"]
    del step["parameters"]["fingerprint_version"]
    del step["files"]["fingerprints/part-00000.parquet"]
    step["files"]["_videos.parquet"][0] = (out / "_videos.parquet").stat().st_size
    (out / "_manifest.json").write_text(json.dumps(manifest))
