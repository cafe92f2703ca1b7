"""Stretches that videos share: the search on Dask against one call over all tracks."""

import json
import shlex
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import distributed
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from semdedup import (
    BadFileError,
    InputError,
    OutputConflictError,
    OverlapsResult,
    ParameterError,
    SemdedupError,
    cli,
    find_overlaps,
)
from semdedup.overlaps import run as overlaps_run
from semdedup.overlaps.blocks import cut_whole, units_of
from semdedup.overlaps.source import find_source
from semdedup.overlaps.tracks import videos_in
from semdedup.runs.record import Record
from semdedup.storage.location import Location
from semdedup.storage.tables import FINGERPRINT
from tests.helpers import NOWHERE, assert_nothing_left, contents, set_task_bytes, stamps
from tests.overlaps import (
    Clip,
    every_clip,
    expected,
    noise,
    read_gone,
    read_overlaps,
    track_table,
    write_clips,
    write_tracks,
)
from tests.splits import RATE, Death, run_to_death, splitter
from tests.videos import make_video, texture

BYTES_OF_A_ROW = 4 * 64 + 64

Tracks = dict[str, np.ndarray]


def overlaps(source: Any, out: Any, client: Any, **options: Any) -> OverlapsResult:
    return find_overlaps(str(source), str(out), client=client, verbose=False, **options)


@pytest.fixture
def rows_per_task(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that makes a block hold so many rows."""
    return lambda n: set_task_bytes(monkeypatch, n * BYTES_OF_A_ROW)


@pytest.fixture(scope="module")
def tracks() -> Tracks:
    """Seven videos: a source, what was cut out of it, a compilation, an intro in two, one that repeats itself."""
    rng = np.random.default_rng(3)
    source, intro, other = noise(rng, 90), noise(rng, 20), noise(rng, 45)
    return {
        "a/source.mp4": source,
        "b/cut.mp4": source[40:110],
        "c/compiled.mp4": np.concatenate([noise(rng, 12), source[90:150], noise(rng, 7), other[10:60]]),
        "d/first.mp4": np.concatenate([intro, noise(rng, 30)]),
        "e/second.mp4": np.concatenate([noise(rng, 3), intro, noise(rng, 25)]),
        "f/other.mp4": other,
        "g/loop.mp4": np.concatenate([other[:50], noise(rng, 9), other[:50]]),
    }


@pytest.fixture(scope="module")
def clips(tracks: Tracks) -> list[Clip]:
    return every_clip(tracks)


def assert_same(out: Path, tracks: Tracks, clips: list[Clip], **options: Any) -> None:
    """Assert that an output is what one call over all tracks gives, in the order of the ranks."""
    table, gone = expected(tracks, clips, **options)
    pd.testing.assert_frame_equal(read_overlaps(out), table, check_exact=True)
    pd.testing.assert_frame_equal(read_gone(out), gone, check_dtype=False, check_exact=True)


# The answer


def test_the_answer_is_that_of_one_call_over_all_tracks_however_they_are_cut(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, clips: list[Clip],
    rows_per_task: Callable[[int], None],
) -> None:  # fmt: skip
    for n_files, rows in ((1, 10_000), (3, 250), (7, 60)):  # one block, some, a block for each video
        source = write_tracks(tmp_path / f"in-{n_files}", tracks, n_files)
        write_clips(source, clips, n_files)
        rows_per_task(rows)
        found = overlaps(source, tmp_path / f"out-{n_files}", inside)
        assert_same(tmp_path / f"out-{n_files}", tracks, clips)
        assert (found.videos, found.clips) == (7, len(clips))
    assert found.pairs == len({*zip(*read_overlaps(tmp_path / "out-7")[["video_a", "video_b"]].T.to_numpy(),
                                    strict=True)}) - 1  # fmt: skip
    assert found.facts["within"] == 1
    gone = read_gone(tmp_path / "out-7")
    assert found.duplicates == len(gone)
    assert {f"b/cut.mp4:{start}" for start in range(0, 35, 5)} <= set(gone["id"])  # the whole of what was cut out
    assert not set(gone["id"]) & {clip[0] for clip in clips if clip[1] == "a/source.mp4"}


def test_the_order_of_rows_and_files_on_disk_does_not_matter(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, clips: list[Clip],
    rows_per_task: Callable[[int], None],
) -> None:  # fmt: skip
    rows_per_task(120)
    backwards = dict(reversed(tracks.items()))
    source = write_tracks(tmp_path / "in", backwards, 2)
    write_clips(source, clips[::-1], 2)
    overlaps(source, tmp_path / "out", inside)
    assert_same(tmp_path / "out", tracks, clips)


def write_videos(folder: Path, rows: list[dict[str, Any]], name: str = "_videos.parquet") -> None:
    pq.write_table(pa.Table.from_pylist(rows), folder / name)


def test_videos_rank_by_pixels_then_bitrate_then_duration_then_path(
    inside: distributed.Client, tmp_path: Path, rng: np.random.Generator, rows_per_task: Callable[[int], None]
) -> None:
    same = noise(rng, 20)
    best_first = {
        "large.mp4": (1920, 1080, 10, 9.0),
        "sharp.mp4": (640, 480, 90, 9.0),
        "long.mp4": (640, 480, 10, 99.0),
        "a.mp4": (640, 480, 10, 9.0),
        "b.mp4": (640, 480, 10, 9.0),
        "no-bitrate.mp4": (640, 480, None, 99.0),
        "no-height.mp4": (9999, None, 99, 99.0),
        "unknown.mp4": (None, None, None, None),
    }
    source = write_tracks(tmp_path / "in", dict.fromkeys(sorted(best_first), same), 2)
    names = ("width", "height", "bitrate", "duration_s")
    rows = [{"video": video, **dict(zip(names, each, strict=True))} for video, each in best_first.items()]
    write_videos(source, [*rows[:-1], {"video": "of no track.mp4", "width": 7}])
    rows_per_task(90)
    overlaps(source, tmp_path / "out", inside)
    ranks = pq.read_table(tmp_path / "out" / "_videos")["video"].to_pylist()
    assert ranks == list(best_first)
    found = read_overlaps(tmp_path / "out")
    assert [*zip(found["video_a"], found["video_b"], strict=True)] == [
        (a, b) for i, a in enumerate(best_first) for b in list(best_first)[i + 1 :]
    ]


def test_clips_are_found_in_metadata_where_there_are_no_embeddings(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, clips: list[Clip]
) -> None:
    source = write_tracks(tmp_path / "in", tracks)
    metas = source / "metas" / "v0"
    metas.mkdir(parents=True)
    for i, (_, video, start, end) in enumerate(clips):
        (metas / f"{i:03d}.json").write_text(json.dumps({"video": video, "duration_span": [start, end]}))
    (metas / "broken.json").write_text("{")
    (metas / "of-no-track.json").write_text(json.dumps({"video": "x.mp4", "start_s": 1, "end_s": 3}))
    found = overlaps(source, tmp_path / "out", inside)
    numbered = [(f"{i:03d}", *rest) for i, (_, *rest) in enumerate(clips)]
    assert_same(tmp_path / "out", tracks, numbered)
    assert [found.facts[name] for name in ("clips_from", "without_track", "without_span")] == ["metas/v0", 1, 1]


def test_without_clips_none_go_and_this_is_said(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_tracks(tmp_path / "in", tracks)
    found = find_overlaps(str(source), str(tmp_path / "out"), client=inside)
    assert_same(tmp_path / "out", tracks, [])
    assert (found.clips, found.duplicates) == (0, 0)
    told = capsys.readouterr().err
    assert "overlap_duplicates is empty" in told
    assert "by their paths alone" in told
    table = pq.read_table(tmp_path / "out" / "overlap_duplicates")
    assert table.column_names == ["id", "video", "start_s", "end_s"]


def test_videos_that_share_nothing_give_tables_without_rows(
    inside: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    tracks = {"a": noise(rng, 30), "b": noise(rng, 30), "black": np.zeros((60, 64), np.int8)}
    tracks["also black"] = tracks["black"]
    source = write_tracks(tmp_path / "in", tracks)
    found = overlaps(source, tmp_path / "out", inside, mirror=True)
    assert (found.overlaps, found.videos, found.video_seconds) == (0, 4, 120)
    assert len(found.longest()) == len(found.frame()) == 0
    assert read_overlaps(tmp_path / "out").columns.tolist()[-1] == "mirrored"
    assert "longest" not in str(found)


def test_the_result_tells_the_longest(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_tracks(tmp_path / "in", tracks)
    found = overlaps(source, tmp_path / "out", inside)
    table = read_overlaps(tmp_path / "out")
    by_length = table.iloc[(table["start_b_s"] - table["end_b_s"]).argsort(kind="stable")].reset_index(drop=True)
    pd.testing.assert_frame_equal(found.longest(3), by_length[:3])
    pd.testing.assert_frame_equal(found.longest(100), by_length[:100])
    pd.testing.assert_frame_equal(found.frame().compute(), table, check_dtype=False)
    assert "a/source.mp4 0:20.0–0:55.0 = b/cut.mp4 0:00.0–0:35.0" in str(found)
    assert json.loads(json.dumps(found.to_json()))["longest"][0]["video_b"] == "b/cut.mp4"


def test_what_was_cut_out_of_a_video_is_found_after_a_split(client: distributed.Client, tmp_path: Path) -> None:
    pictures = list(texture(5, 24 * RATE, rate=RATE))
    for name, part, size in (("a.mp4", pictures, 64), ("cut.mp4", pictures[47 : 47 + 13 * RATE], 32)):
        shown = (picture[:, ::2][::2] if size == 32 else picture for picture in part)
        make_video(tmp_path / "videos" / name, pictures=shown, size=(size, size * 3 // 4), rate=RATE)
    splitter(tmp_path / "videos", tmp_path / "clips").run(client)
    found = overlaps(tmp_path / "clips", tmp_path / "out", client)
    (row,) = found.longest().to_dict("records")
    assert (row["video_a"], row["video_b"]) == ("a.mp4", "cut.mp4")
    times = [row[name] for name in ("start_a_s", "end_a_s", "start_b_s", "end_b_s")]
    np.testing.assert_allclose(times, [4.7, 17.7, 0, 13], atol=0.5)
    spans = pq.read_table(tmp_path / "clips" / "dct3d_embd_parquet", columns=["id", "video", "start_s"]).to_pandas()
    of_cut = spans[spans["video"] == "cut.mp4"].sort_values("start_s")
    gone = read_gone(tmp_path / "out").set_index("id")
    assert set(of_cut["id"][:-1]) <= set(gone.index) <= set(of_cut["id"])
    shown = gone.loc[of_cut["id"][:-1]]
    assert shown["video"].eq("a.mp4").all()
    np.testing.assert_allclose(shown["start_s"] - 4.7, of_cut["start_s"][:-1], atol=0.5)


# A base


def test_new_videos_are_compared_with_those_of_a_base_which_rank_first(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, clips: list[Clip],
    rows_per_task: Callable[[int], None],
) -> None:  # fmt: skip
    rows_per_task(120)
    old = {name: track for name, track in tracks.items() if name > "b"}
    source = write_tracks(tmp_path / "in", old)
    write_clips(source, clips)
    overlaps(source, tmp_path / "base", inside)
    write_tracks(source, tracks, 3)
    found = overlaps(source, tmp_path / "out", inside, base=str(tmp_path / "base"))
    ranked = {**old, **tracks}  # a/source.mp4 would rank first by its path
    table, gone = expected(ranked, clips)
    new = table[table["video_b"] == "a/source.mp4"].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_overlaps(tmp_path / "out"), new)
    mine = {clip[0] for clip in clips if clip[1] == "a/source.mp4"}
    pd.testing.assert_frame_equal(
        read_gone(tmp_path / "out"), gone[gone["id"].isin(mine)].reset_index(drop=True), check_dtype=False
    )
    assert (found.facts["base_videos"], found.videos, found.clips) == (6, 7, len(mine))
    assert pq.read_table(tmp_path / "out" / "_videos")["video"].to_pylist() == list(ranked)
    again = overlaps(source, tmp_path / "third", inside, base=str(tmp_path / "out"))
    assert (again.overlaps, again.facts["base_videos"], again.clips) == (0, 7, 0)  # nothing is new
    changed = {**tracks, "b/cut.mp4": tracks["b/cut.mp4"][:-1]}
    write_tracks(source, changed, 3)
    with pytest.raises(InputError, match=r"1 videos were changed .* b/cut\.mp4"):
        overlaps(source, tmp_path / "fourth", inside, base=str(tmp_path / "base"))
    assert_nothing_left(tmp_path / "fourth")


def test_what_is_no_base_is_refused(inside: distributed.Client, tmp_path: Path, rng: np.random.Generator) -> None:
    source = write_tracks(tmp_path / "in", {"a": noise(rng, 10)})
    with pytest.raises(InputError, match="holds no complete output of semdedup overlaps"):
        overlaps(source, tmp_path / "out", NOWHERE, base=str(source))
    with pytest.raises(ParameterError, match="base is the output path"):
        overlaps(source, tmp_path / "out", NOWHERE, base=str(tmp_path / "out"))
    overlaps(source, tmp_path / "base", inside)
    other = write_tracks(tmp_path / "other", {"b": noise(rng, 10)})
    with pytest.raises(ParameterError, match="none of the 1 videos"):
        overlaps(other, tmp_path / "out", inside, base=str(tmp_path / "base"))
    (tmp_path / "base" / "_videos" / "part-0.parquet").unlink()
    with pytest.raises(InputError, match=r"_videos/part-0\.parquet is missing"):
        overlaps(other, tmp_path / "out", NOWHERE, base=str(tmp_path / "base"))


# Runs


def test_a_run_that_was_interrupted_goes_on_and_gives_the_same(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, clips: list[Clip],
    rows_per_task: Callable[[int], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    source = write_tracks(tmp_path / "in", tracks, 3)
    write_clips(source, clips)
    rows_per_task(120)
    overlaps(source, tmp_path / "whole", inside)
    for name in ("scatter_clips", "compare_blocks", "find_duplicates"):
        with monkeypatch.context() as patch:
            patch.setattr(overlaps_run, name, partial(failing_late, getattr(overlaps_run, name)))
            with pytest.raises(RuntimeError, match="the power went"):
                overlaps(source, tmp_path / "out", inside)
        rows_per_task(10_000)  # another cluster, perhaps: what was cut stays cut so
    overlaps(source, tmp_path / "out", inside)
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


def failing_late(function: Callable[..., Any], task: Any, item: Any) -> Any:
    """A function of a task that fails for some items."""
    if item[0] == 2 or (isinstance(item[1], tuple) and item[0] == 0):
        raise RuntimeError("the power went")
    return function(task, item)


def test_what_is_complete_is_left_alone_and_what_differs_is_refused(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, clips: list[Clip]
) -> None:
    source, out = write_tracks(tmp_path / "in", tracks), tmp_path / "out"
    write_clips(source, clips)
    first = overlaps(source, out, inside)
    before = stamps(out)
    assert overlaps(source, out, NOWHERE, verify=True).resumed
    assert stamps(out) == before
    assert first.to_json()["longest"] == overlaps(source, out, NOWHERE).to_json()["longest"]
    with pytest.raises(OutputConflictError, match=r"min_overlap: 0\.8 there, 0\.5 now"):
        overlaps(source, out, NOWHERE, min_overlap=0.5)
    write_clips(source, clips[:-1])
    with pytest.raises(OutputConflictError, match=r"(?s)input: .*base \(--base\)"):
        overlaps(source, out, NOWHERE)
    overlaps(source, out, inside, min_overlap=0.5, clear_output=True)
    assert_same(out, tracks, clips[:-1], min_overlap=0.5)
    (out / "overlaps" / "part-0.parquet").unlink()
    overlaps(source, out, inside, min_overlap=0.5)
    assert_same(out, tracks, clips[:-1], min_overlap=0.5)


def test_files_that_are_not_ours_are_not_mixed_in(tmp_path: Path, rng: np.random.Generator) -> None:
    source = write_tracks(tmp_path / "in", {"a": noise(rng, 10)})
    (tmp_path / "out" / "overlaps").mkdir(parents=True)
    (tmp_path / "out" / "overlaps" / "mine.parquet").write_bytes(b"x")
    with pytest.raises(OutputConflictError, match=r"mine\.parquet"):
        overlaps(source, tmp_path / "out", NOWHERE)
    assert (tmp_path / "out" / "overlaps" / "mine.parquet").exists()


def test_in_a_store_it_is_the_same(
    inside: distributed.Client, tmp_path: Path, tracks: Tracks, clips: list[Clip], s3: tuple[str, dict],
    rows_per_task: Callable[[int], None],
) -> None:  # fmt: skip
    bucket, options = s3
    rows_per_task(200)
    tracks = {name: tracks[name] for name in ("a/source.mp4", "b/cut.mp4")}
    clips = [clip for clip in clips if clip[1] in tracks]
    source = write_tracks(tmp_path / "in", tracks)
    write_clips(source, clips)
    store = fsspec.filesystem("s3", **options)
    store.put(f"{source}/", f"{bucket}/in/", recursive=True)
    overlaps(f"{bucket}/in", f"{bucket}/out", inside, storage_options=options)
    store.get(f"{bucket}/out/", f"{tmp_path}/out/", recursive=True)
    assert_same(tmp_path / "out", tracks, clips)
    assert "secret" not in (tmp_path / "out" / "_manifest.json").read_text()


@pytest.mark.slow
def test_a_run_that_dies_goes_on(client: distributed.Client, tmp_path: Path, tracks: Tracks, clips: list[Clip]) -> None:
    source = write_tracks(tmp_path / "in", tracks, 2)
    write_clips(source, clips)
    scheduler = ["--scheduler", client.scheduler.address]
    command = ["overlaps", str(source), "--output-path", str(tmp_path / "out"), "--quiet", *scheduler]
    run_to_death(Death("semdedup.overlaps.run", "_write", 1), command)
    assert Record(Location.of(tmp_path / "out")).steps["overlaps"]["status"] == "begun"
    overlaps(source, tmp_path / "out", client)
    assert_same(tmp_path / "out", tracks, clips)


# Input


def test_names_of_videos_may_be_anything(
    inside: distributed.Client, tmp_path: Path, rng: np.random.Generator, rows_per_task: Callable[[int], None]
) -> None:
    rows_per_task(50)
    same = noise(rng, 20)
    tracks = dict.fromkeys(sorted(["", "../x", "a/b", "a\nb", "<script>", "ü", "'; --", "𝔞"], key=str.encode), same)
    source = write_tracks(tmp_path / "in", tracks)
    clips = every_clip(tracks)
    write_clips(source, clips)
    found = overlaps(source, tmp_path / "out", inside)
    assert_same(tmp_path / "out", tracks, clips)
    assert "a\\nb" in str(found)


@pytest.mark.parametrize("place", ["", "fingerprints", "clips", "../"])
def test_any_folder_of_the_output_may_be_given(place: str, tmp_path: Path, rng: np.random.Generator) -> None:
    source = write_tracks(tmp_path / "run" / "clips", {"a": noise(rng, 1)})
    (source / "clips").mkdir()
    assert find_source(Location.of(source / place)).root.url == str(source)


def changed(table: pa.Table, **columns: Any) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


GOOD = track_table({"a.mp4": np.ones((6, 64), np.int8), "b.mp4": np.ones((4, 64), np.int8)})
LISTS = GOOD["fingerprint"].combine_chunks()
BAD = {
    "no column": (GOOD.drop_columns("t_s"), r"no column 't_s'; it has \['video', 'fingerprint'\]"),
    "another type": (changed(GOOD, t_s=GOOD["t_s"].cast(pa.float32())), "'t_s' .* is float; double is needed"),
    "another length": (
        changed(GOOD, fingerprint=pa.FixedSizeListArray.from_arrays(LISTS.values, 32)[:10]),
        r"'fingerprint' .*\[32\]; fixed_size_list<int8>\[64\] is needed",
    ),
    "other numbers": (changed(GOOD, fingerprint=LISTS.cast(pa.list_(pa.int16(), 64))), "is needed"),
    "numbers for names": (changed(GOOD, video=pa.array(range(10))), "'video' .* is int64; string is needed"),
    "a name that is null": (changed(GOOD, video=pa.array([None, *GOOD["video"].to_pylist()[1:]])), "'video' .* null"),
    "a vector that is null": (changed(GOOD, fingerprint=pa.array([None, *LISTS.to_pylist()[1:]], LISTS.type)), "null"),
    "a number that is null": (
        changed(GOOD, fingerprint=pa.array([[None] * 64, *LISTS.to_pylist()[1:]], LISTS.type)),
        "null",
    ),
    "a row that is missing": (GOOD.take([0, 1, 3, 4]), r"row 2 of the video 'a\.mp4' .* 1\.75; 1\.25 is needed"),
    "rows in another order": (GOOD.take([1, 0]), "0.75; 0.25 is needed"),
    "a moment that is none": (changed(GOOD, t_s=pa.array([float("nan")] * 10)), "nan; 0.25 is needed"),
    "a video in two places": (GOOD.take([0, 1, 6, 7, 2, 3]), "1.25; 0.25 is needed"),
}


@pytest.mark.parametrize("case", BAD)
def test_tracks_that_are_none_are_refused_by_the_name_of_their_file(case: str, tmp_path: Path) -> None:
    table, message = BAD[case]
    pq.write_table(table, tmp_path / "bad.parquet")
    with pytest.raises(BadFileError, match=message) as error:
        list(videos_in(Location.of(tmp_path / "bad.parquet"), 0, {}))
    assert str(tmp_path / "bad.parquet") in str(error.value)


def test_nothing_is_left_where_tracks_are_refused(inside: distributed.Client, tmp_path: Path) -> None:
    source = write_tracks(tmp_path / "in", {"z.mp4": np.ones((3, 64), np.int8)})
    bad = source / "fingerprints" / "bad.parquet"
    for table, message in (
        (GOOD.slice(1), rf"row 0 .* in {bad} has t_s 0\.75"),
        (pa.concat_tables([GOOD, GOOD]), f"2 videos have rows in more than one place, 'a.mp4' from row 0 of {bad}"),
    ):
        pq.write_table(table, bad)
        with pytest.raises(BadFileError, match=message):
            overlaps(source, tmp_path / "out", inside)
        assert_nothing_left(tmp_path / "out")


def test_vectors_of_different_kinds_are_not_compared(
    inside: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    for name, version in (("a", "grey-1"), ("b", "grey-2")):
        table = track_table({name: noise(rng, 10)}).replace_schema_metadata({FINGERPRINT: version})
        for folder in (name, "both"):
            (tmp_path / folder / "fingerprints").mkdir(parents=True, exist_ok=True)
            pq.write_table(table, tmp_path / folder / "fingerprints" / f"{name}.parquet")
    with pytest.raises(InputError, match=r"a\.parquet has 'grey-1'; .*b\.parquet has 'grey-2'"):
        overlaps(tmp_path / "both", tmp_path / "out", inside)
    assert_nothing_left(tmp_path / "out")
    assert overlaps(tmp_path / "a", tmp_path / "base", inside).facts["fingerprint"] == "grey-1"
    with pytest.raises(InputError, match="compared tracks of the fingerprint 'grey-1', those given have 'grey-2'"):
        overlaps(tmp_path / "b", tmp_path / "out", inside, base=str(tmp_path / "base"))


def test_what_holds_no_tracks_is_refused(inside: distributed.Client, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="no such path"):
        overlaps(tmp_path / "nowhere", out, NOWHERE)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="it has no folder fingerprints"):
        overlaps(tmp_path / "empty", out, NOWHERE)
    (tmp_path / "empty" / "fingerprints").mkdir()
    with pytest.raises(InputError, match="no Parquet files"):
        overlaps(tmp_path / "empty", out, NOWHERE)
    Record(Location.of(tmp_path / "split")).update("split", status="committed", parameters={}, input={}, files={})
    with pytest.raises(InputError, match=r"split by an earlier version.*Split again with this version"):
        overlaps(tmp_path / "split", out, NOWHERE)
    with pytest.raises(InputError, match="no rows in the 2 files of tracks"):
        overlaps(write_tracks(tmp_path / "none", {}, 2), out, inside)
    assert_nothing_left(out)
    with pytest.raises(ParameterError, match=r"min_overlap must lie in \(0, 1\]; got 0"):
        overlaps(tmp_path / "none", out, NOWHERE, min_overlap=0)


def test_a_table_that_cannot_rank_is_refused(
    inside: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    source = write_tracks(tmp_path / "in", {"a": noise(rng, 10)})
    write_videos(source, [{"video": "a", "width": "wide"}])
    with pytest.raises(
        BadFileError, match=r"_videos\.parquet cannot be used to rank them: its column 'width' is string"
    ):
        overlaps(source, tmp_path / "out", inside)
    write_videos(source, [{"name": "a"}])
    with pytest.raises(BadFileError, match="it has no column 'video'"):
        overlaps(source, tmp_path / "out", inside)


# The parts


def test_parts_hold_whole_videos(rng: np.random.Generator) -> None:
    for _ in range(50):
        rows = rng.integers(1, 30, rng.integers(0, 40))
        file = np.sort(rng.integers(0, 3, len(rows)))
        cuts = cut_whole(rows, 40)
        parts = [rows[low:high] for low, high in pairwise(cuts)]
        assert all(len(part) and part.sum() <= 40 for part in parts)
        assert all(part.sum() + after[0] > 40 for part, after in pairwise(parts))
        units = units_of(rows, file, ["a", "b", "c"], 40)
        covered = [i for unit in units for i in range(unit.first, unit.last)]
        assert covered == list(range(len(rows)))
        assert all(rows[unit.first : unit.last].sum() == unit.stop - unit.start for unit in units)
        assert all({"abc"[i] for i in file[unit.first : unit.last]} == {unit.url} for unit in units)
    assert cut_whole(np.array([50, 1, 60]), 40).tolist() == [0, 1, 2, 3]


# The command


@pytest.fixture
def run(client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Any]:
    """Run the command in an empty folder."""
    monkeypatch.chdir(tmp_path)
    scheduler = ["--scheduler", client.scheduler.address]
    return lambda line: CliRunner().invoke(cli.main, ["overlaps", *scheduler, *shlex.split(line)])


def test_the_command_prints_the_longest_last(
    run: Callable[[str], Any], tmp_path: Path, tracks: Tracks, clips: list[Clip]
) -> None:
    write_clips(write_tracks(tmp_path / "clips", tracks), clips)
    plan = run("clips --output-path out --dry-run")
    assert plan.exit_code == 0, plan.output
    assert "1 files of tracks" in plan.output
    assert not (tmp_path / "out").exists()
    done = run("clips --output-path out --min-overlap 0.9")
    assert done.exit_code == 0, done.output
    last = [line for line in done.stdout.splitlines() if "=" in line]
    assert "a/source.mp4 0:20.0–0:55.0 = b/cut.mp4 0:00.0–0:35.0" in last[1]
    assert_same(tmp_path / "out", tracks, clips, min_overlap=0.9)
    again = run("clips --output-path out --min-overlap 0.9 --json --quiet")
    assert json.loads(again.stdout)["videos"] == 7
    assert run("clips --output-path out --min-overlap 2").exit_code == 2
    assert run("nowhere --output-path out").exit_code == 1
    assert "semdedup overlaps clips --output-path" in run("--help").output


def test_every_error_is_one_of_semdedup(tmp_path: Path) -> None:
    with pytest.raises(SemdedupError):
        find_overlaps("", str(tmp_path / "out"))
    with pytest.raises(ParameterError, match="mirror must be true or false"):
        find_overlaps("clips", str(tmp_path / "out"), mirror="yes")  # type: ignore[arg-type]
