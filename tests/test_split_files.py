"""What stands in an output of `split` and `embed` is looked at: what is missing or changed is named and made again.

And the folder belongs to one run at a time, wherever it is.
"""

import json
import os
import shutil
import sys
import threading
import time
from pathlib import Path
from typing import Any

import distributed
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdedup import InputError, OutputConflictError, ShardWorkflow
from semdedup.runs.owner import FILE_NAME as OWNER
from semdedup.runs.owner import Owner
from tests.helpers import NOWHERE, contents, files_below, stamps, wait_for
from tests.splits import (
    BASE,
    Death,
    assert_same_result,
    copy_folder,
    embedder,
    make_folder,
    make_texture,
    read_metas,
    read_rows,
    read_videos,
    run_to_death,
    splitter,
)

pytestmark = [pytest.mark.usefixtures("kept_children"), pytest.mark.slow]

NAMES = ("a.mp4", "b.mp4", "below/c.mp4")
PART = "dct3d_embd_parquet/part-00000.parquet"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = make_folder(tmp_path_factory.mktemp("videos") / "in", NAMES)
    (folder / "bad.mp4").write_bytes(b"bad")
    return folder


@pytest.fixture(scope="module")
def done(videos: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a split of them wrote. Nobody may change it."""
    out = tmp_path_factory.mktemp("done") / "out"
    splitter(videos, out, generate_previews=True).run(client)
    return out


@pytest.fixture
def out(done: Path, tmp_path: Path) -> Path:
    """A copy of it, which may be changed."""
    return copy_folder(done, tmp_path / "out")


def again(videos: Path, out: Path, client: Any, **parameters: Any) -> Any:
    return splitter(videos, out, generate_previews=True, **{"verbose": True, **parameters}).run(client)


def first_clip(out: Path, video: str = "a.mp4") -> str:
    return read_videos(out).loc[video, "clips"][0]


# What is missing or changed


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("name", "harm", "fault", "n_processed"),
    [
        ("clips/{}.mp4", Path.unlink, "is missing", 1),
        ("clips/{}.mp4", truncated, "bytes instead of", 1),
        ("previews/{}.webp", Path.unlink, "is missing", 1),
        ("metas/v0/{}.json", Path.unlink, "is missing", 1),
        ("metas/v0/{}.json", truncated, "is damaged", 1),
        ("processed_videos/a.mp4.json", truncated, "bytes instead of", 1),
        ("processed_clip_chunks/below/c.mp4_0.json", Path.unlink, "is missing", 1),
        (PART, Path.unlink, "is missing", 3),
        (PART, truncated, "bytes instead of", 3),
        ("summary.json", Path.unlink, "is missing", 0),
        ("_quarantine/videos.parquet", Path.unlink, "is missing", 0),
        ("_videos.parquet", Path.unlink, "is missing", 4),
        ("_videos.parquet", truncated, "bytes instead of", 4),
    ],
)
def test_a_file_that_is_missing_or_changed_is_named_and_made_again(
    name: str,
    harm: Any,
    fault: str,
    n_processed: int,
    videos: Path,
    done: Path,
    out: Path,
    client: distributed.Client,
    capfd: pytest.CaptureFixture,
) -> None:
    name = name.format(first_clip(done))
    harm(out / name)
    assert again(videos, out, client).processed == n_processed
    said = capfd.readouterr().err
    assert name in said
    assert fault in said
    assert_same_result(out, done)
    assert again(videos, out, NOWHERE).processed == 0
    assert "not as they were left" not in capfd.readouterr().err


def test_several_lost_files_and_a_limit_come_back_run_by_run(
    videos: Path, done: Path, out: Path, client: distributed.Client
) -> None:
    (out / PART).unlink()
    (out / "clips" / f"{first_clip(done, 'b.mp4')}.mp4").unlink()
    counts = [again(videos, out, client, limit=2).processed for _ in range(3)]
    assert counts == [2, 1, 0]
    assert_same_result(out, done)


def test_what_is_lost_of_a_video_that_is_gone_is_said_and_the_rest_stays(
    videos: Path, out: Path, client: distributed.Client, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    source = copy_folder(videos, tmp_path / "in")
    clip = first_clip(out)
    (source / "a.mp4").unlink()
    (out / "clips" / f"{clip}.mp4").unlink()
    before = stamps(out)
    assert again(source, out, NOWHERE).processed == 0
    assert f"clips/{clip}.mp4 is missing, of a.mp4" in capfd.readouterr().err
    assert stamps(out) == before
    (out / PART).unlink()
    assert again(source, out, client).processed == 2
    assert set(read_rows(out)["video"]) == {"b.mp4", "below/c.mp4"}
    assert read_videos(out).loc["a.mp4", "n_rows"] == 0
    shutil.copy2(videos / "a.mp4", source)
    assert again(source, out, client).processed == 1
    assert len(read_rows(out)) == 6


def test_metadata_that_others_add_to_are_as_they_were_left(videos: Path, out: Path) -> None:
    for name, meta in read_metas(out).items():
        (out / "metas" / "v0" / f"{name}.json").write_text(json.dumps({**meta, "caption": "waves"}))
    before = stamps(out)
    assert again(videos, out, NOWHERE, verify=True).processed == 0
    assert stamps(out) == before


def test_another_content_of_the_same_size_is_found_where_it_is_asked_for(
    videos: Path, done: Path, out: Path, client: distributed.Client, capfd: pytest.CaptureFixture
) -> None:
    clip = out / "clips" / f"{first_clip(done)}.mp4"
    clip.write_bytes(bytes(clip.stat().st_size))
    assert again(videos, out, NOWHERE).processed == 0
    assert again(videos, out, client, verify=True).processed == 1
    assert "has another content than was written, of a.mp4" in capfd.readouterr().err
    assert_same_result(out, done)


def test_no_dataset_is_made_where_clips_are_missing(videos: Path, out: Path, tmp_path: Path) -> None:
    clip = first_clip(out)
    (out / "clips" / f"{clip}.mp4").unlink()
    with pytest.raises(InputError, match=rf"1 files that the step 'split' wrote .*clips/{clip}\.mp4 is missing.*again"):
        ShardWorkflow(str(out), str(tmp_path / "dataset"), verbose=False).run(NOWHERE)
    assert not (tmp_path / "dataset").exists()


def test_embeddings_of_clips_that_are_lost_are_made_again(
    out: Path, client: distributed.Client, tmp_path: Path
) -> None:
    embedder(out / "clips", tmp_path / "emb").run(client)
    rows = read_rows(tmp_path / "emb")
    (tmp_path / "emb" / PART).unlink()
    assert embedder(out / "clips", tmp_path / "emb").run(client).processed == 6
    assert read_rows(tmp_path / "emb").equals(rows)


def test_a_clip_of_a_killed_run_counts_only_in_its_size(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    flags = ["--fixed-stride-split-duration", "2", "--fixed-stride-min-clip-length-s", "1", "--generate-previews"]
    flags += ["--transcode-encoder", "libx264", "--quiet", "--scheduler", client.scheduler.address]
    places = ["--video-dir", str(videos), "--output-clip-path", str(out)]
    run_to_death(Death(BASE, "commit", 1), ["split", *places, *flags])
    clip = out / "clips" / f"{first_clip(done)}.mp4"
    others = {path: stamp for path, stamp in stamps(out / "clips").items() if path != str(clip)}
    os.truncate(clip, 0)  # what a power cut may leave
    entries = [json.loads(path.read_bytes()) for path in out.glob("_scratch/split-*/journal/split/*.json")]
    kept = [name for entry in entries for name in entry["written"] if entry["result"][0]["video"] != "a.mp4"]
    again(videos, out, client)
    assert_same_result(out, done)
    now = stamps(out / "clips")
    same = others.keys() & {str(out / name) for name in kept}
    assert len(same) == 4
    assert {path: now[path] for path in same} == {path: others[path] for path in same}


# Elsewhere


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_a_folder_that_was_moved_or_copied_is_complete_where_it_is(
    how: str, videos: Path, out: Path, client: distributed.Client, tmp_path: Path
) -> None:
    other = tmp_path / "elsewhere" / "out"
    other.parent.mkdir()
    if how == "moved":
        out.rename(other)
    else:
        shutil.copytree(out, other, copy_function=shutil.copy)  # with other times
    before = stamps(other)
    assert again(videos, other, NOWHERE, verify=True).processed == 0
    assert stamps(other) == before


def test_embeddings_of_the_clips_of_a_split_are_complete_after_a_copy(
    videos: Path, client: distributed.Client, tmp_path: Path
) -> None:
    splitter(videos, tmp_path / "out", generate_embeddings=False).run(client)
    embedder(tmp_path / "out").run(client)
    other = Path(shutil.copytree(tmp_path / "out", tmp_path / "other", copy_function=shutil.copy))
    assert embedder(other).run(NOWHERE).processed == 0


# Whose it is


def running(target: Any) -> tuple[threading.Thread, list[BaseException]]:
    """Run something in a thread; what it raises is in the list."""
    raised: list[BaseException] = []

    def call() -> None:
        try:
            target()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    return thread, raised


@pytest.fixture(scope="module")
def long(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos that take some time."""
    folder = tmp_path_factory.mktemp("long") / "in"
    for number in range(8):
        make_texture(folder / f"{number}.mp4", number, 20)
    return folder


def test_of_two_runs_on_one_folder_one_goes_on_and_the_other_is_told_who_is_there(
    long: Path, client: distributed.Client, tmp_path: Path
) -> None:
    thread, raised = running(lambda: splitter(long, tmp_path / "out").run(client))
    wait_for(tmp_path / "out", OWNER)
    with pytest.raises(OutputConflictError, match=rf"another run is at work in .*process {os.getpid()} on .*since"):
        splitter(long, tmp_path / "out").run(client)
    thread.join(60)
    assert not raised
    assert not (tmp_path / "out" / OWNER).exists()
    assert splitter(long, tmp_path / "out").run(NOWHERE).processed == 0


def test_a_run_that_was_overtaken_puts_nothing_more_in_place(
    long: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    thread, raised = running(lambda: splitter(long, out).run(client))
    wait_for(out, "_scratch/split-*/journal/split/*.json")
    (tmp_path / "other").write_bytes(Owner.new().to_bytes())
    os.replace(tmp_path / "other", out / OWNER)
    time.sleep(0.5)  # files that were checked just before
    before = files_below(out / "clips")
    thread.join(60)
    assert len(raised) == 1
    assert isinstance(raised[0], OutputConflictError)
    assert "another run has taken over" in str(raised[0])
    assert files_below(out / "clips") == before
    assert not (out / "_videos.parquet").exists()
    assert splitter(long, out, take_over=True).run(client).count("done") == 8
    splitter(long, tmp_path / "fresh").run(client)
    assert_same_result(out, tmp_path / "fresh")


# Input that changes, records that harm


def test_a_video_that_changes_during_the_run_is_refused_by_name_and_the_others_are_kept(
    videos: Path, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = copy_folder(videos, tmp_path / "in"), tmp_path / "out"
    run = splitter(source, out)
    find, listed = run.find, []

    def changing() -> Any:
        if listed:
            make_texture(source / "b.mp4", 4711, 6)
            make_texture(source / "new.mp4", 4712, 2)
        listed.append(1)
        return find()

    monkeypatch.setattr(run, "find", changing)
    with pytest.raises(InputError, match=r"1 videos changed while they were being processed: b\.mp4"):
        run.run(client)
    assert not (out / "_videos.parquet").exists()
    before = stamps(out / "clips")
    splitter(source, out).run(client)
    splitter(source, tmp_path / "fresh").run(client)
    assert_same_result(out, tmp_path / "fresh")
    kept = [str(out / "clips" / f"{clip}.mp4") for clip in read_videos(out).loc["a.mp4", "clips"]]
    assert [stamps(out / "clips")[path] for path in kept] == [before[path] for path in kept]


@pytest.mark.parametrize("clip", ["../../mine", "/mine", "x/../../../mine"])
def test_a_table_that_names_files_elsewhere_deletes_nothing(
    clip: str, videos: Path, out: Path, client: distributed.Client, tmp_path: Path
) -> None:
    (tmp_path / "mine.mp4").write_text("mine")
    table = pq.read_table(out / "_videos.parquet")
    clips = [[*clips, clip] for clips in table["clips"].to_pylist()]
    place = table.column_names.index("clips")
    pq.write_table(table.set_column(place, "clips", pa.array(clips)), out / "_videos.parquet")
    record = json.loads((out / "_manifest.json").read_bytes())
    record["steps"]["split"]["files"]["_videos.parquet"][0] = (out / "_videos.parquet").stat().st_size
    (out / "_manifest.json").write_text(json.dumps(record))
    before = contents(out)
    with pytest.raises(OutputConflictError, match="cannot have"):
        again(videos, out, client, limit_clips=1, clear_output=True)
    assert contents(out) == before
    assert (tmp_path / "mine.mp4").exists()


def test_what_0_1_made_is_refused_and_cleared(
    videos: Path, out: Path, client: distributed.Client, tmp_path: Path
) -> None:
    record = json.loads((out / "_manifest.json").read_bytes())
    (step,) = record["steps"].values()
    old = {"status": "committed", "facts": {}, "temporary": [], "parameters": step["parameters"]}
    old |= {"input": {"files": 4, "bytes": 1, "digest": ""}, "files": sorted(step["files"])}
    (out / "_manifest.json").write_text(json.dumps({"format": 1, "steps": {"split": old}}))
    table = pq.read_table(out / "_videos.parquet")
    pq.write_table(table.drop_columns(["files"]), out / "_videos.parquet")
    before = contents(out)
    with pytest.raises(OutputConflictError, match=r"semdedup 0\.1 made.*--overwrite"):
        again(videos, out, NOWHERE)
    assert contents(out) == before
    again(videos, out, client, limit_clips=1, clear_output=True)
    again(videos, tmp_path / "fresh", client, limit_clips=1)
    assert_same_result(out, tmp_path / "fresh")


@pytest.mark.parametrize(
    ("name", "harm", "fault"),
    [
        ("clips/{}.mp4", Path.unlink, "is missing"),
        ("clips/{}.mp4", truncated, "bytes instead of"),
        ("metas/v0/{}.json", Path.unlink, "is missing"),
    ],
)
def test_shards_are_not_made_of_what_is_not_as_split_left_it(
    name: str, harm: Any, fault: str, out: Path, tmp_path: Path
) -> None:
    name = name.format(first_clip(out))
    harm(out / name)
    with pytest.raises(InputError, match=f"the step 'split' wrote to .*/{name} .*{fault}"):
        ShardWorkflow(str(out), str(tmp_path / "dataset")).run(NOWHERE)
    assert not (tmp_path / "dataset").exists()


def test_shards_are_made_without_metadata_that_are_damaged(
    out: Path, client: distributed.Client, tmp_path: Path
) -> None:
    truncated(out / "metas" / "v0" / f"{first_clip(out)}.json")
    result = ShardWorkflow(str(out), str(tmp_path / "dataset"), verbose=False).run(client)
    assert result.facts["without_metadata"] == result.facts["malformed_metadata"] == 1


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_foreign_name_that_is_no_text_is_in_nobodys_way(videos: Path, out: Path) -> None:
    Path(os.fsdecode(bytes(out / "clips") + b"/\xff.mp4")).write_bytes(b"content")
    assert again(videos, out, NOWHERE).processed == 0


def test_shards_of_a_split_that_was_copied_with_new_times_are_complete(
    done: Path, tmp_path: Path, client: distributed.Client
) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    shutil.copytree(done, before / "clips")
    ShardWorkflow(str(before / "clips"), str(before / "dataset"), verbose=False).run(client)
    shutil.copytree(before, after, copy_function=shutil.copy)
    shutil.rmtree(before)
    ShardWorkflow(str(after / "clips"), str(after / "dataset"), verbose=False).run(NOWHERE)
