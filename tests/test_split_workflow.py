"""`VideoSplitWorkflow`: the folder that it writes, what a second run does to it, and what it depends on."""

import itertools
import json
import os
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import InputError, OutputConflictError, ParameterError, SplitResult, VideoSplitWorkflow
from semdedup.video import kinds, row_files
from semdedup.video.clip_ids import VideoIdentity, clip_id
from semdedup.video.plan import Span
from semdedup.video.row_files import EMBEDDINGS, TRACKS
from tests.helpers import NOWHERE, contents, files_below, stamps, write_texts
from tests.splits import (
    assert_nothing_half_written,
    assert_same_result,
    assert_same_tracks,
    copy_folder,
    make_folder,
    make_texture,
    matrix,
    read_metas,
    read_rows,
    read_tracks,
    read_videos,
    result_of,
    splitter,
)
from tests.videos import DCT3D, flat, make_video, probe, read_frames, split, texture

pytestmark = pytest.mark.usefixtures("kept_children")


NAMES = ("a.mp4", "below/b.mp4", "c.mp4")

TOP = {
    *("clips", "metas", "previews", "dct3d_embd_parquet", "fingerprints", "processed_videos", "processed_clip_chunks"),
    *("summary.json", "_videos.parquet", "_manifest.json"),
}
"""What stands in an output."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three videos of 4, 4 and 5 seconds, one of them below a folder."""
    folder = make_folder(tmp_path_factory.mktemp("videos"), NAMES[:2])
    make_texture(folder / "c.mp4", 3, 5, audio="aac")
    return folder


@pytest.fixture(scope="module")
def done(videos: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a split of them wrote, previews included. Nobody may change it."""
    out = tmp_path_factory.mktemp("done") / "out"
    splitter(videos, out, generate_previews=True).run(client)
    return out


@pytest.fixture
def again(done: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be changed."""
    return copy_folder(done, tmp_path / "out")


# The folder


def test_the_tree_is_that_of_the_peers(done: Path) -> None:
    top = {path.name for path in done.iterdir()}
    assert top == TOP | {"_progress.json"}
    ids = set(read_rows(done)["id"])
    assert len(ids) == 7
    assert {path.name for path in (done / "clips").iterdir()} == {f"{i}.mp4" for i in ids}
    assert {path.name for path in (done / "previews").iterdir()} == {f"{i}.webp" for i in ids}
    assert {path.name for path in (done / "metas" / "v0").iterdir()} == {f"{i}.json" for i in ids}
    assert files_below(done / "processed_videos") == [f"{name}.json" for name in NAMES]
    assert files_below(done / "processed_clip_chunks") == [f"{name}_0.json" for name in NAMES]
    assert files_below(done / "dct3d_embd_parquet") == files_below(done / "fingerprints") == ["part-00000.parquet"]
    assert_nothing_half_written(done)


def test_the_helpers_point_at_what_is_there(done: Path) -> None:
    out = str(done)
    found = {
        "clips": semdedup.get_output_path_clips(out),
        "metas/v0": semdedup.get_output_path_metas(out, "v0"),
        "previews": semdedup.get_output_path_previews(out),
        "processed_videos": semdedup.get_output_path_processed_videos(out),
        "processed_clip_chunks": semdedup.get_output_path_processed_clip_chunks(out),
        "dct3d_embd_parquet": semdedup.get_output_path_dct3d_embd_parquet(out + "/"),
        "fingerprints": semdedup.get_output_path_fingerprints(out),
    }
    assert found == {name: f"{out}/{name}" for name in found}
    assert all(os.path.isdir(path) for path in found.values())
    assert semdedup.get_output_path_embd_parquet(out, "custom_embd_parquet") == f"{out}/custom_embd_parquet"
    assert semdedup.get_output_path_iv2_embd_parquet("s3://b/out/") == "s3://b/out/iv2_embd_parquet"
    assert semdedup.get_output_path_ce1_embd_parquet(out).endswith("/ce1_embd_parquet")
    assert semdedup.get_output_path_ce1_embd_parquet(out, "224p").endswith("/ce1_embd_224p_parquet")


def test_the_embeddings_have_the_columns_to_compare_and_to_rank(done: Path) -> None:
    table = pq.read_table(done / "dct3d_embd_parquet" / "part-00000.parquet")
    assert {field.name: field.type for field in table.schema} == {
        "id": pa.string(),
        "embedding": pa.list_(pa.float32()),
        "video": pa.string(),
        "start_s": pa.float64(),
        "end_s": pa.float64(),
        "duration_s": pa.float64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "fps": pa.float64(),
        "bitrate": pa.int64(),
        "n_frames": pa.int32(),
        "low_information": pa.bool_(),
    }
    told = table.schema.metadata
    assert told[b"semdedup.embedder"] == b"dct3d"
    assert 0.4 < float(told[b"semdedup.recommended_eps"]) < 0.6
    rows = table.to_pandas()
    assert not rows.isna().any(axis=None)
    np.testing.assert_allclose(np.linalg.norm(matrix(rows), axis=1), 1, atol=1e-6)
    assert matrix(rows).shape == (7, 384)
    spans = [(0.0, 2.0), (2.0, 4.0)]
    expected = [(name, *span) for name in NAMES for span in spans] + [("c.mp4", 4.0, 5.0)]
    assert list(rows[["video", "start_s", "end_s"]].itertuples(index=False, name=None)) == expected
    assert rows["duration_s"].tolist() == [2.0] * 6 + [1.0]
    assert rows["n_frames"].tolist() == [20] * 6 + [10]
    assert set(rows["fps"]) == {10.0}
    assert set(zip(rows["width"], rows["height"], strict=True)) == {(64, 48)}
    assert (rows["bitrate"] > 1000).all()
    assert not rows["low_information"].any()


def test_ids_are_those_of_path_and_span(done: Path) -> None:
    for row in read_rows(done).itertuples():
        identity = VideoIdentity(row.video, "anywhere", 0.0, 0.0)
        assert row.id == clip_id("semdedup", identity, Span(row.start_s, row.end_s), "fixed_stride")


def test_embeddings_are_those_of_the_video_itself(videos: Path, done: Path, tmp_path: Path) -> None:
    """Split in this process, a video at a time, gives the same as on the cluster."""
    from semdedup.video.steps.embed.dct3d import dct3d

    rows = read_rows(done).set_index("id")
    for name in NAMES:
        clips, outcome = split(
            videos / name, tmp_path / "clips", relative_path=name, duration_s=2.0, min_length_s=1.0, sampling=DCT3D
        )
        assert outcome.status == "done"
        for clip in clips:
            np.testing.assert_array_equal(rows.loc[clip.facts["id"], "embedding"], dct3d(clip.frames))
    assert contents(tmp_path / "clips") == contents(done / "clips")


def test_what_is_told_of_a_clip(videos: Path, done: Path) -> None:
    metas = read_metas(done)
    for row in read_rows(done).itertuples():
        meta = metas[row.id]
        clip = done / meta["clip_location"]
        assert meta["id"] == meta["span_uuid"] == row.id == clip.stem
        assert meta["video"] == row.video
        assert meta["source_video"] == str(videos / row.video)
        assert meta["duration_span"] == [row.start_s, row.end_s]
        assert (meta["width_source"], meta["height_source"], meta["framerate_source"]) == (64, 48, 10.0)
        told = probe(clip)
        assert (meta["width"], meta["height"], meta["video_codec"]) == (told["width"], told["height"], told["codec"])
        assert meta["num_frames"] == told["n_frames"] == row.n_frames == len(read_frames(clip))
        assert meta["num_bytes"] == clip.stat().st_size
        assert meta["has_audio"] == bool(told["audio"]) == (row.video == "c.mp4")
        assert meta["windows"] == []
        assert meta["valid"] is True


def test_what_is_told_of_a_video(done: Path) -> None:
    rows = read_rows(done)
    for name, seconds in zip(NAMES, (4.0, 4.0, 5.0), strict=True):
        record = json.loads((done / "processed_videos" / f"{name}.json").read_bytes())
        chunk = json.loads((done / "processed_clip_chunks" / f"{name}_0.json").read_bytes())
        mine = rows[rows["video"] == name]
        told = {"video": name, "status": "done", "reason": "", "detail": "", "width": 64, "height": 48}
        told |= {"framerate": 10.0, "num_frames": 10 * seconds, "num_frames_declared": 10 * seconds}
        told |= {"duration": seconds, "video_codec": "h264", "pixel_format": "yuv420p", "num_total_clips": len(mine)}
        told |= {"num_clip_chunks": 1, "audio_format": "aac" if name == "c.mp4" else ""}
        assert record.items() >= told.items()
        assert chunk["clips"] == mine["id"].tolist()
        assert chunk["total_clip_duration"] == seconds
        assert chunk["num_clips_with_embeddings"] == chunk["num_clips_transcoded"] == len(mine)
        assert chunk["num_clips_with_webp"] == chunk["num_clips_passed"] == len(mine)


def recount(out: Path, source: Path) -> dict[str, Any]:
    """The summary, counted from the files."""
    records = [json.loads(path.read_bytes()) for path in (out / "processed_videos").rglob("*.json")]
    statuses = Counter(record["status"] for record in records)
    metas = read_metas(out).values()
    seconds = [end - start for start, end in (meta["duration_span"] for meta in metas)]
    rows = read_rows(out) if (out / "dct3d_embd_parquet").exists() else None
    bad = Counter(record["reason"] for record in records if record["status"] == "quarantined")
    return {
        "num_input_videos": len(records),
        "num_processed_videos": statuses["done"],
        "num_too_short_videos": statuses["too_short"],
        "num_quarantined_videos": statuses["quarantined"],
        "quarantined_by_reason": dict(bad),
        "num_quarantined_clips": 0,
        "quarantined_clips_by_reason": {},
        "too_short_videos": sorted(record["video"] for record in records if record["status"] == "too_short"),
        "embedding_algorithm": None if rows is None else "dct3d",
        "total_video_bytes": sum((source / record["video"]).stat().st_size for record in records),
        "total_video_duration": pytest.approx(sum(record["duration"] or 0 for record in records)),
        "total_clip_duration": pytest.approx(sum(seconds)),
        "max_clip_duration": pytest.approx(max(seconds)),
        "total_clip_bytes": sum(path.stat().st_size for path in (out / "clips").glob("*.mp4")),
        "total_num_clips": len(metas),
        "total_num_clips_with_embeddings": 0 if rows is None else len(rows),
        "total_num_clips_with_captions": 0,
        "total_num_captions": 0,
        "total_num_fingerprints": sum(map(len, read_tracks(out).values())),
        **{
            f"total_{name}": sum(record[name] or 0 for record in records)
            for name in ("bad_frames", "bad_audio_packets", "gap_s")
        },
        "total_other_tracks": sum(len(record["tracks_left_out"]) for record in records),
        "total_num_clips_low_information": sum(bool(meta["low_information"]) for meta in metas),
    }


def test_the_summary_is_a_recount_of_the_folder(videos: Path, done: Path) -> None:
    assert json.loads((done / "summary.json").read_bytes()) == recount(done, videos)


def test_the_result_tells_what_was_done(videos: Path, client: distributed.Client, tmp_path: Path) -> None:
    make_texture(tmp_path / "in" / "short.mp4", 1, 0.5)
    make_video(tmp_path / "in" / "black.mp4", pictures=flat(20), rate=10)
    shutil.copy(videos / "a.mp4", tmp_path / "in")
    (tmp_path / "in" / "broken.mp4").write_bytes(b"nothing")
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert isinstance(result, SplitResult)
    assert (result.processed, result.clips, result.embedded, result.quarantined) == (4, 3, 3, {"unreadable": 1})
    assert {name: os.path.exists(path) for name, path in result.paths.items()} == dict.fromkeys(
        ["clip files", "metadata", "summary", "embeddings", "fingerprints", "quarantine", "manifest"], True
    )
    shown = [" ".join(line.split()) for line in str(result).replace("│", " ").splitlines()]
    for line in ("videos 4", "done 2", "too short 1", "in quarantine 1", "unreadable 1", "low information 1"):
        assert line in shown
    assert "broken.mp4: unreadable" in result.faults()[0]
    assert json.loads((tmp_path / "out" / "summary.json").read_bytes()) == recount(tmp_path / "out", tmp_path / "in")
    dark = read_rows(tmp_path / "out").set_index("video")["low_information"]
    assert dark.to_dict() == {"a.mp4": False, "black.mp4": True}


# Options


def test_without_clips_only_facts_and_embeddings_are_written(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    result = splitter(videos, tmp_path / "out", upload_clips=False, generate_previews=True).run(client)
    names = {name.split("/")[0] for name in files_below(tmp_path / "out")}
    assert names == TOP - {"clips", "previews"}
    assert "clip files" not in result.paths
    assert read_rows(tmp_path / "out").equals(read_rows(done)), "embeddings are of the source, not of the clips"
    for meta in read_metas(tmp_path / "out").values():
        assert meta["clip_location"] is None
        assert meta["num_bytes"] is None


def test_without_embeddings_the_clips_are_the_same(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    result = splitter(videos, tmp_path / "out", generate_embeddings=False).run(client)
    assert contents(tmp_path / "out" / "clips") == contents(done / "clips")
    assert not list((tmp_path / "out").glob("*_embd_parquet"))
    assert (result.clips, result.embedded) == (7, 0)
    assert json.loads((tmp_path / "out" / "summary.json").read_bytes())["embedding_algorithm"] is None
    assert "embeddings" not in result.paths


def test_a_limit_of_videos_is_a_part_of_the_work_and_the_next_run_goes_on(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    counts = []
    for _ in range(3):
        result = splitter(videos, tmp_path / "out", limit=2, generate_previews=True).run(client)
        counts.append((result.processed, result.left_out, len(result.videos)))
    assert counts == [(2, 1, 2), (1, 0, 3), (0, 0, 3)]
    assert_same_result(tmp_path / "out", done)


def test_a_limit_of_clips_takes_the_first_of_each_video(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    splitter(videos, tmp_path / "out", limit_clips=1).run(client)
    rows, all_rows = read_rows(tmp_path / "out"), read_rows(done)
    first = all_rows[all_rows["start_s"] == 0].reset_index(drop=True)
    assert rows.equals(first)


@pytest.mark.parametrize("kind", ["plan", "plan of what is done"])
def test_a_dry_run_tells_the_plan_and_writes_nothing(
    kind: str, videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "absent" / "out"
    if kind == "plan of what is done":
        copy_folder(done, out)
    before = stamps(tmp_path)
    lines = list(splitter(videos, out, generate_previews=True).plan(client))
    assert stamps(tmp_path) == before
    if kind == "plan":
        assert "3 videos; 0 complete or left out, 3 to do" in lines[0]
        assert f"would write to {out}" in lines[1]
        assert [line for line in lines if "c.mp4" in line] == ["  c.mp4: 5.00 s, 3 clips: 0-2, 2-4, 4-5"]
        assert lines[-1] == "7 clips of 13.0 s in all"
    else:
        assert "3 videos; 3 complete or left out, 0 to do" in lines[0]


def mean_colour(frames: np.ndarray) -> np.ndarray:
    """A user's embedder."""
    return frames.reshape(-1, 3).mean(axis=0).astype(np.float32)


class Sized:
    """A user's embedder with wishes."""

    name, n_frames, frame_size, recommended_eps = "sized", 5, (24, 32), 0.125

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        assert frames.shape == (5, 24, 32, 3)
        assert frames.dtype == np.uint8
        return np.arange(1, 8) * frames.mean()


def test_a_function_of_the_user_embeds(videos: Path, client: distributed.Client, tmp_path: Path) -> None:
    splitter(videos, tmp_path / "one", embedding_algorithm=mean_colour).run(client)
    rows = read_rows(tmp_path / "one", "custom_embd_parquet")
    assert matrix(rows).shape == (7, 3)
    colour = mean_colour(np.stack([pixels for _, pixels in read_frames(videos / "a.mp4")]))
    assert matrix(rows)[0] @ colour / np.linalg.norm(colour) > 0.999
    assert b"semdedup.recommended_eps" not in pq.read_schema(next((tmp_path / "one").glob("custom*/*"))).metadata
    splitter(videos, tmp_path / "two", embedding_algorithm=Sized()).run(client)
    rows = read_rows(tmp_path / "two", "sized_embd_parquet")
    np.testing.assert_allclose(matrix(rows), np.tile(np.arange(1, 8) / np.sqrt(140), (7, 1)), rtol=1e-6)
    told = pq.read_schema(tmp_path / "two" / "sized_embd_parquet" / "part-00000.parquet").metadata
    assert told[b"semdedup.recommended_eps"] == b"0.125"
    assert told[b"semdedup.embedder"] == b"sized"
    with pytest.raises(OutputConflictError, match=r"embedding_function: '.*mean_colour' there, .*Sized"):
        splitter(videos, tmp_path / "one", embedding_algorithm=Sized()).run(NOWHERE)


def fails(frames: np.ndarray) -> np.ndarray:
    raise RuntimeError("no embedding today")


def test_a_function_that_fails_is_told_and_nothing_is_committed(
    videos: Path, client: distributed.Client, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=r"fails failed on frames .*no embedding today"):
        splitter(videos, tmp_path / "out", embedding_algorithm=fails).run(client)
    assert not list((tmp_path / "out").glob("*_embd_parquet"))
    assert not (tmp_path / "out" / "summary.json").exists()


class Choosy:
    """A user's embedder that fails on what is dark, as long as a file is there."""

    def __init__(self, mood: Path) -> None:
        self.mood = mood

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        if frames.mean() < 30 and self.mood.exists():
            raise ValueError("too dark for me")
        return mean_colour(frames)


def test_a_function_that_fails_on_a_clip_costs_that_clip_its_embedding_until_it_works(
    client: distributed.Client, tmp_path: Path
) -> None:
    make_texture(tmp_path / "in" / "a.mp4", 1)
    make_video(tmp_path / "in" / "b.mp4", pictures=itertools.chain(flat(20), texture(3, 20, rate=10)), rate=10)
    mood = tmp_path / "mood"
    mood.touch()
    runs = splitter(tmp_path / "in", tmp_path / "out", embedding_algorithm=Choosy(mood))
    for processed in (2, 1):  # the next run tries that video again
        result = runs.run(client)
        assert (result.processed, result.clips, result.embedded) == (processed, 4, 3)
        assert (result.quarantined, result.quarantined_clips, result.clean) == ({}, {"embed_error": 1}, False)
        (row,) = pq.read_table(tmp_path / "out" / "_quarantine" / "clips.parquet").to_pylist()
        assert (row["reason"], row["source"]) == ("embed_error", "b.mp4")
        assert re.search(r"Choosy failed on frames of shape \(16, .*: ValueError\('too dark for me'\)", row["detail"])
        assert result.faults() == [f"clip {row['id']} of b.mp4: embed_error: {row['detail']}"]
        assert read_frames(tmp_path / "out" / "clips" / f"{row['id']}.mp4")
        assert read_metas(tmp_path / "out").keys() - set(read_rows(tmp_path / "out", "custom_embd_parquet")["id"]) == {
            row["id"]
        }
        summary = json.loads((tmp_path / "out" / "summary.json").read_bytes())
        assert (summary["num_quarantined_clips"], summary["quarantined_clips_by_reason"]) == (1, {"embed_error": 1})
    mood.unlink()
    assert runs.run(client).clean
    splitter(tmp_path / "in", tmp_path / "fresh", embedding_algorithm=Choosy(mood)).run(client)
    assert_same_result(tmp_path / "out", tmp_path / "fresh")
    assert runs.run(NOWHERE).processed == 0


def test_a_copied_cut_tells_the_true_spans(videos: Path, client: distributed.Client, tmp_path: Path) -> None:
    splitter(videos, tmp_path / "out", cut="copy", fixed_stride_split_duration=1.5, transcode_encoder="auto").run(
        client
    )
    rows = read_rows(tmp_path / "out")
    for row in rows.itertuples():
        assert row.start_s * 10 % 12 == pytest.approx(0), "a key frame every 12 frames"
        assert len(read_frames(tmp_path / "out" / "clips" / f"{row.id}.mp4")) == row.n_frames
    starts = rows[rows["video"] == "a.mp4"]["start_s"].tolist()
    assert starts == sorted(starts)


@pytest.mark.parametrize(
    ("parameters", "error", "words"),
    [
        ({"input_path": None}, ParameterError, "input_path is not given"),
        ({"input_path": []}, ParameterError, "input_path"),
        ({"output_path": ""}, ParameterError, "output_path"),
        ({"splitting_algorithm": "random"}, ParameterError, "splitting_algorithm must be one of"),
        ({"fixed_stride_split_duration": 0}, ParameterError, "fixed_stride_split_duration"),
        ({"fixed_stride_split_duration": float("nan")}, ParameterError, "fixed_stride_split_duration"),
        ({"fixed_stride_min_clip_length_s": 11}, ParameterError, "fixed_stride_min_clip_length_s"),
        ({"transcode_encoder": "x264"}, ParameterError, "libx264"),
        ({"clip_id_scheme": "uuid"}, ParameterError, "clip_id_scheme"),
        ({"cut": "exact"}, ParameterError, "cut must be one of"),
        ({"limit": -1}, ParameterError, "limit"),
        ({"limit_clips": -1}, ParameterError, "limit_clips"),
        ({"embedding_algorithm": "resnet"}, ParameterError, "embedding_algorithm must be one of"),
        ({"embedding_algorithm": "hf"}, ParameterError, "model|hf needs torch"),
        ({"output_path": "gopher://x/y"}, ParameterError, "protocol"),
    ],
)
def test_parameters_that_make_no_sense_are_refused_at_once(
    parameters: dict[str, Any], error: type[Exception], words: str, tmp_path: Path
) -> None:
    given = {"input_path": str(tmp_path), "output_path": str(tmp_path / "out"), **parameters}
    with pytest.raises(error, match=words):
        VideoSplitWorkflow(**given)


def test_an_encoder_that_is_not_there_names_those_that_are_and_clears_nothing(
    videos: Path, again: Path, client: distributed.Client
) -> None:
    before = stamps(again)
    with pytest.raises(ParameterError, match=r"h264_nvenc does not open .* there are: .*libx264"):
        splitter(videos, again, transcode_encoder="h264_nvenc", clear_output=True).run(client)
    assert stamps(again) == before


@pytest.mark.parametrize("content", ["absent", "empty", "other files", "broken link to a folder"])
def test_an_input_without_videos_is_refused(content: str, tmp_path: Path) -> None:
    source = tmp_path / "in"
    if content == "broken link to a folder":
        source.symlink_to(tmp_path / "nowhere")
    elif content != "absent":
        source.mkdir()
    if content == "other files":
        (source / "notes.txt").write_text("no video")
        (source / "._a.mp4").write_text("what macOS leaves")
    with pytest.raises(
        InputError, match="no such path" if content in ("absent", "broken link to a folder") else "no videos in"
    ):
        splitter(source, tmp_path / "out").run(NOWHERE)
    assert not (tmp_path / "out").exists()


# Again


def test_a_run_with_nothing_to_do_changes_no_byte_and_needs_no_cluster(videos: Path, again: Path) -> None:
    before = stamps(again)
    bytes_before = contents(again)
    result = splitter(videos, again, generate_previews=True).run(NOWHERE)
    assert stamps(again) == before
    assert contents(again) == bytes_before
    assert (result.processed, result.clips, result.embedded) == (0, 7, 7)
    splitter(videos, again, generate_previews=True, transcode_encoder="auto").run(NOWHERE)
    assert stamps(again) == before


def test_videos_that_are_added_give_what_a_fresh_run_over_all_gives(
    videos: Path, client: distributed.Client, tmp_path: Path
) -> None:
    source = copy_folder(videos, tmp_path / "in")
    late = [source / "b-late.mp4", source / "zz.mp4", source / "broken.mp4", source / "short.mp4"]
    splitter(source, tmp_path / "out").run(client)
    before = stamps(tmp_path / "out" / "clips")
    make_texture(late[0], 8), make_texture(late[1], 9)
    late[2].write_bytes(b"broken")
    make_texture(late[3], 10, 0.5)
    result = splitter(source, tmp_path / "out").run(client)
    assert result.processed == 4
    assert before.items() <= stamps(tmp_path / "out" / "clips").items(), "clips that were there are not touched"
    splitter(source, tmp_path / "fresh").run(client)
    assert_same_result(tmp_path / "out", tmp_path / "fresh")
    assert read_videos(tmp_path / "out")["status"].to_dict() == {
        **dict.fromkeys([*NAMES, "b-late.mp4", "zz.mp4"], "done"),
        "broken.mp4": "quarantined",
        "short.mp4": "too_short",
    }


def test_rows_of_many_parts_stay_where_they_are(
    videos: Path, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_files, "EMBEDDINGS", replace(EMBEDDINGS, part_bytes=4 * 384 * 4))  # four rows a file
    monkeypatch.setattr(kinds, "TRACKS", replace(TRACKS, part_bytes=16 * 64))  # two videos of four seconds
    source = copy_folder(videos, tmp_path / "in")
    splitter(source, tmp_path / "out").run(client)
    folders = [tmp_path / "out" / folder for folder in ("dct3d_embd_parquet", "fingerprints")]
    before = [stamps(folder) for folder in folders]
    assert [len(found) for found in before] == [2, 2]
    make_texture(source / "d.mp4", 77)
    splitter(source, tmp_path / "out").run(client)
    for folder, found in zip(folders, before, strict=True):
        assert found.items() < stamps(folder).items(), "files that are half full or more are not written again"
    splitter(source, tmp_path / "fresh").run(client)
    fresh = read_rows(tmp_path / "fresh").sort_values("id", ignore_index=True)
    assert read_rows(tmp_path / "out").sort_values("id", ignore_index=True).equals(fresh)
    for folder, column in zip(folders, ("part", "fingerprint_part"), strict=True):
        for name, part in read_videos(tmp_path / "out")[column].items():
            assert name in pq.read_table(folder / part)["video"].to_pylist()
    make_texture(source / "below" / "b.mp4", 5, 2)  # now one clip
    splitter(source, tmp_path / "out").run(client)
    shutil.rmtree(tmp_path / "fresh")
    splitter(source, tmp_path / "fresh").run(client)
    fresh = read_rows(tmp_path / "fresh").sort_values("id", ignore_index=True)
    assert read_rows(tmp_path / "out").sort_values("id", ignore_index=True).equals(fresh)
    assert_same_tracks(tmp_path / "out", tmp_path / "fresh")


@pytest.mark.parametrize("now", ["other content", "shorter", "too short", "broken"])
def test_a_video_that_has_changed_is_done_anew_and_nothing_of_the_old_is_left(
    now: str, videos: Path, again: Path, client: distributed.Client, tmp_path: Path
) -> None:
    source = copy_folder(videos, tmp_path / "in")
    before = stamps(again / "clips")
    rows = read_rows(again)
    old = set(rows[rows["video"] == "c.mp4"]["id"])
    if now == "broken":
        (source / "c.mp4").write_bytes(b"broken")
    else:
        make_texture(source / "c.mp4", 1234, {"other content": 5, "shorter": 2, "too short": 0.5}[now])
    result = splitter(source, again, generate_previews=True).run(client)
    assert result.processed == 1
    left = stamps(again / "clips")
    others = {path: when for path, when in before.items() if Path(path).stem not in old}
    assert others.items() <= left.items()
    splitter(source, tmp_path / "fresh", generate_previews=True).run(client)
    # the others were cut from another folder, which is told where a video came from
    same = {name: content for name, content in result_of(again).items() if not name.startswith(("metas/", "_videos"))}
    fresh = result_of(tmp_path / "fresh")
    assert same == {name: fresh[name] for name in same}
    assert files_below(again) == files_below(tmp_path / "fresh")
    columns = ["n_bytes", "status", "reason", "detail", "duration_s", "n_frames", "n_rows", "part", "clip_bytes"]
    assert read_videos(again)[columns].equals(read_videos(tmp_path / "fresh")[columns])


def test_what_others_wrote_into_the_metadata_is_carried_along(
    videos: Path, again: Path, client: distributed.Client, tmp_path: Path
) -> None:
    source = copy_folder(videos, tmp_path / "in")
    caption = [{"start_frame": 0, "end_frame": 20, "qwen_caption": "waves of colour"}]
    for name, meta in read_metas(again).items():
        (again / "metas" / "v0" / f"{name}.json").write_text(json.dumps({**meta, "windows": caption, "aesthetic": 4.5}))
    make_texture(source / "a.mp4", 999, 6)  # has changed, and is longer
    make_texture(source / "new.mp4", 998, 2)
    splitter(source, again, generate_previews=True).run(client)
    rows = read_rows(again).set_index("id")
    metas = read_metas(again)
    assert set(metas) == set(rows.index)
    new = rows[(rows["video"] == "new.mp4") | ((rows["video"] == "a.mp4") & (rows["start_s"] == 4))].index
    assert len(new) == 2
    for name, meta in metas.items():
        assert meta["windows"] == ([] if name in new else caption)
        assert meta.get("aesthetic") == (None if name in new else 4.5)
        assert meta["num_bytes"] == (again / "clips" / f"{name}.mp4").stat().st_size


def test_a_folder_that_moves_keeps_its_ids_and_nothing_is_done_again(
    videos: Path, again: Path, client: distributed.Client, tmp_path: Path
) -> None:
    elsewhere = copy_folder(videos, tmp_path / "elsewhere" / "deep")
    before = stamps(again)
    result = splitter(elsewhere, again, generate_previews=True).run(NOWHERE)
    assert result.processed == 0
    assert stamps(again) == before
    splitter(elsewhere, tmp_path / "fresh", generate_previews=True).run(client)
    assert contents(tmp_path / "fresh" / "clips") == contents(again / "clips")
    assert read_rows(tmp_path / "fresh").equals(read_rows(again))


CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "duration": ({"fixed_stride_split_duration": 3}, r"fixed_stride_split_duration: 2.0 there, 3.0 now"),
    "stride": ({"fixed_stride_stride_s": 1}, r"fixed_stride_stride_s: 2.0 there, 1.0 now"),
    "minimum": ({"fixed_stride_min_clip_length_s": 2}, r"fixed_stride_min_clip_length_s: 1.0 there, 2.0 now"),
    "algorithm": ({"splitting_algorithm": "scene"}, r"splitting_algorithm: 'fixed_stride' there, 'scene' now"),
    "cut": ({"cut": "copy"}, r"cut: 'reencode' there, 'copy' now"),
    "encoder": ({"transcode_encoder": "libvpx-vp9"}, r"transcode_encoder: 'libx264' there, 'libvpx-vp9' now"),
    "ids": ({"clip_id_scheme": "nemo"}, r"clip_id_scheme: 'semdedup' there, 'nemo' now"),
    "clips": ({"upload_clips": False}, r"upload_clips: True there, False now"),
    "previews": ({"generate_previews": False}, r"generate_previews: True there, False now"),
    "embeddings": ({"generate_embeddings": False}, r"embedding_algorithm: 'dct3d' there, None now"),
    "embedder": ({"embedding_algorithm": mean_colour}, r"embedding_algorithm: 'dct3d' there, 'custom' now"),
    "clips of a video": ({"limit_clips": 5}, r"limit_clips: 0 there, 5 now"),
    "two": (
        {"limit_clips": 5, "cut": "copy"},
        r"cut: 'reencode' there, 'copy' now\n  limit_clips: 0 there, 5 now\n  transcode_encoder: 'libx264' there, None",
    ),
}


@pytest.mark.parametrize(("parameters", "words"), CHANGES.values(), ids=CHANGES)
def test_other_parameters_are_refused_with_the_difference_and_the_way_out(
    parameters: dict[str, Any], words: str, videos: Path, done: Path
) -> None:
    before = stamps(done)
    with pytest.raises(OutputConflictError, match=words) as caught:
        splitter(videos, done, **{"generate_previews": True, **parameters}).run(NOWHERE)
    assert "clear_output=True" in str(caught.value)
    assert str(done) in str(caught.value)
    assert stamps(done) == before


def test_clear_output_deletes_what_is_ours_and_nothing_else(
    videos: Path, again: Path, client: distributed.Client, tmp_path: Path
) -> None:
    held = {
        "notes.txt": "mine",
        "metas/v0/notes.json": "mine too",
        "metas/v1/x.json": "of another version",
        "previews/cover.webp": "a picture",
        "processed_videos/notes.txt": "n",
        "_private/x.parquet": "not even Parquet",
    }
    write_texts(again, held)
    (again / "empty").mkdir()
    splitter(videos, again, fixed_stride_split_duration=3, clear_output=True).run(client)
    assert {name: (again / name).read_text() for name in held} == held
    assert (again / "empty").is_dir()
    splitter(videos, tmp_path / "fresh", fixed_stride_split_duration=3).run(client)
    assert sorted(set(files_below(again)) - held.keys()) == files_below(tmp_path / "fresh")
    for name in held:
        (again / name).unlink()
    assert_same_result(again, tmp_path / "fresh")


@pytest.mark.parametrize("clear_output", [False, True])
@pytest.mark.parametrize("name", ["clips/theirs.mp4", "dct3d_embd_parquet/part-00000.parquet"])
def test_a_folder_with_clips_or_embeddings_of_somebody_else_is_refused(
    name: str, clear_output: bool, videos: Path, client: distributed.Client, tmp_path: Path
) -> None:
    theirs = tmp_path / "out" / name
    theirs.parent.mkdir(parents=True)
    theirs.write_text("theirs")
    with pytest.raises(OutputConflictError, match=rf"1 files .*{name}.*not deleted"):
        splitter(videos, tmp_path / "out", clear_output=clear_output).run(client)
    assert files_below(tmp_path / "out") == [name]


def test_a_clip_of_somebody_else_among_ours_stays(
    videos: Path, again: Path, client: distributed.Client, tmp_path: Path
) -> None:
    """A run that clears refuses before it has cleared anything."""
    (again / "clips" / "theirs.mp4").write_text("theirs")
    before = contents(again)
    with pytest.raises(OutputConflictError, match=r"theirs\.mp4"):
        splitter(videos, again, limit_clips=1, clear_output=True).run(client)
    assert contents(again) == before
