"""`split` and `embed` on an object store, by the protocol of a real S3 server: same result, and no secret anywhere."""

import io
import json
import logging
import shlex
from pathlib import Path
from typing import Any

import distributed
import fsspec
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from semdedup import OutputConflictError, StorageError, cli
from semdedup.runs.at_work import PROGRESS
from semdedup.storage.location import Location
from semdedup.video.clip_ids import VideoIdentity, clip_id
from semdedup.video.plan import Span
from tests.helpers import NOWHERE, contents, files_below, stamps
from tests.splits import (
    BASE,
    COMMIT,
    RUN,
    Death,
    copy_folder,
    embedder,
    make_folder,
    make_texture,
    read_rows,
    run_to_death,
    splitter,
)

SECRET, KEY = "canary-secret-0451", "test-access-key"
NAMES = ("a.mp4", "below/b c.mp4", "100%+[x]?*ü影.mp4")

FLAGS = "--fixed-stride-split-duration 2 --fixed-stride-min-clip-length-s 1 --transcode-encoder libx264"
"""What `splitter` does."""

Bucket = tuple[str, dict]


pytestmark = pytest.mark.usefixtures("kept_children")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("videos"), NAMES)


@pytest.fixture(scope="module")
def local(videos: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a split of them on this machine wrote. Nobody may change it."""
    out = tmp_path_factory.mktemp("local") / "out"
    splitter(videos, out).run(client)
    return out


def options(bucket: Bucket) -> dict[str, Any]:
    return {"storage_options": bucket[1]}


def both(bucket: Bucket) -> dict[str, Any]:
    return {"read_kwargs": options(bucket), "write_kwargs": options(bucket)}


def filesystem(bucket: Bucket) -> Any:
    return fsspec.filesystem("s3", **bucket[1], use_listings_cache=False)


def put(bucket: Bucket, files: dict[str, Path]) -> None:
    """Upload files under these keys."""
    fs = filesystem(bucket)
    for key, path in files.items():
        fs.pipe_file(f"{bucket[0]}/{key}", path.read_bytes())


def objects(bucket: Bucket, folder: str = "") -> dict[str, bytes]:
    """Every object below a folder of the bucket, with its content."""
    fs = filesystem(bucket)
    prefix = f"{bucket[0]}/{folder}/".rstrip("/").removeprefix("s3://") + "/"
    found = fs.find(prefix)
    return {path.removeprefix(prefix): fs.cat_file(path) for path in found if not path.endswith(PROGRESS)}


def versions(bucket: Bucket) -> dict[str, tuple]:
    """Every object with what the server says of its version."""
    found = filesystem(bucket).find(bucket[0], detail=True)
    return {path: (info["ETag"], info["LastModified"]) for path, info in found.items()}


def rows_in(found: dict[str, bytes], folder: str = "dct3d_embd_parquet") -> pd.DataFrame:
    parts = [pq.read_table(io.BytesIO(content)) for name, content in found.items() if name.startswith(f"{folder}/")]
    assert len(parts) == 1
    return parts[0].to_pandas()


def assert_result_of(found: dict[str, bytes], local: Path, source: str, videos: Path) -> None:
    """Assert that objects are the files of a split on this machine, but for the place of the videos."""
    assert sorted(found) == files_below(local)
    for name, content in contents(local).items():
        if name.startswith("metas/"):
            assert json.loads(found[name]) == json.loads(
                content.replace(json.dumps(f"{videos}/").encode()[1:-1], f"{source}/".encode())
            )
        elif name != "_videos.parquet":
            assert found[name] == content, name


@pytest.fixture
def source(s3: Bucket, videos: Path) -> str:
    """The videos in the bucket."""
    put(s3, {f"in/{name}": videos / name for name in NAMES})
    return f"{s3[0]}/in"


# The same result


def test_in_and_out_on_s3_give_the_files_of_a_local_run(
    s3: Bucket, source: str, videos: Path, local: Path, client: distributed.Client
) -> None:
    result = splitter(source, f"{s3[0]}/out", **both(s3)).run(client)
    found = objects(s3, "out")
    assert_result_of(found, local, source, videos)
    assert rows_in(found).equals(read_rows(local))
    assert (result.processed, result.clips, result.embedded) == (3, 6, 6)
    assert result.paths["clip files"] == f"{s3[0]}/out/clips"
    assert set(objects(s3)) == {f"in/{name}" for name in NAMES} | {f"out/{name}" for name in found}


def test_input_on_s3_and_output_on_this_machine(
    s3: Bucket, source: str, local: Path, client: distributed.Client, tmp_path: Path
) -> None:
    splitter(source, tmp_path / "out", read_kwargs=options(s3)).run(client)
    assert contents(tmp_path / "out" / "clips") == contents(local / "clips")
    assert read_rows(tmp_path / "out").equals(read_rows(local))
    assert splitter(source, tmp_path / "out", read_kwargs=options(s3)).run(NOWHERE).processed == 0


def test_input_on_this_machine_and_output_on_s3(
    s3: Bucket, videos: Path, local: Path, client: distributed.Client
) -> None:
    splitter(videos, f"{s3[0]}/out", write_kwargs=options(s3)).run(client)
    assert_result_of(objects(s3, "out"), local, str(videos), videos)


def test_embed_on_s3_reads_what_split_wrote_there(
    s3: Bucket, source: str, local: Path, client: distributed.Client, tmp_path: Path
) -> None:
    splitter(source, f"{s3[0]}/out", generate_embeddings=False, **both(s3)).run(client)
    result = embedder(f"{s3[0]}/out", **both(s3)).run(client)
    assert result.paths["embeddings"] == f"{s3[0]}/out/dct3d_embd_parquet"
    embedder(copy_folder(local / "clips", tmp_path / "clips"), tmp_path / "out").run(client)
    found, expected = (rows.set_index("id").sort_index() for rows in (rows_in(objects(s3, "out")), read_rows(local)))
    assert found.drop(columns="embedding").equals(expected.drop(columns="embedding"))
    vectors = read_rows(tmp_path / "out").set_index("id").sort_index()["embedding"]
    assert all((found["embedding"][i] == vectors[i]).all() for i in found.index)
    before = versions(s3)
    assert embedder(f"{s3[0]}/out", **both(s3)).run(NOWHERE).processed == 0
    assert versions(s3) == before


HOSTILE = ("../up.mp4", "a/../../etc/passwd.mp4", "./dot.mp4", "a//double.mp4", "%2E%2E/quoted.mp4", "a/ .mp4")


def test_keys_that_look_like_paths_stay_below_the_output(
    s3: Bucket, videos: Path, client: distributed.Client, tmp_path: Path
) -> None:
    """A key is any text: only a file system gives ``..`` and ``//`` a meaning."""
    put(s3, {f"in/{key}": videos / "a.mp4" for key in HOSTILE})
    (tmp_path / "place").mkdir()
    for out, kwargs in ((f"{s3[0]}/out", both(s3)), (tmp_path / "place" / "out", {"read_kwargs": options(s3)})):
        result = splitter(f"{s3[0]}/in", out, limit_clips=1, **kwargs).run(client)
        assert (result.processed, result.clips, result.quarantined) == (len(HOSTILE), len(HOSTILE), {})
        assert {video["video"] for video in result.videos} == set(HOSTILE)
    assert [path.name for path in tmp_path.iterdir()] == ["place"]
    assert [path.name for path in (tmp_path / "place").iterdir()] == ["out"]
    names = set(objects(s3))
    assert {f"in/{key}" for key in HOSTILE} == {name for name in names if not name.startswith("out/")}
    assert not [name for name in names if name.startswith("out/") and ("/../" in name or "//" in name)]
    written = {f"out/{name}" for name in files_below(tmp_path / "place" / "out")}
    assert written == {name for name in names if name.startswith("out/")}
    rows = rows_in(objects(s3, "out"))
    assert rows["id"].is_unique
    for row in rows.itertuples():
        assert row.id == clip_id("semdedup", VideoIdentity(row.video, "", 0, 0), Span(row.start_s, row.end_s), "")


# Again


def test_a_run_with_nothing_to_do_changes_no_object_and_a_change_is_refused_or_cleared(
    s3: Bucket, source: str, local: Path, client: distributed.Client
) -> None:
    out = f"{s3[0]}/out"
    splitter(source, out, **both(s3)).run(client)
    before = versions(s3)
    assert splitter(source, out, **both(s3)).run(NOWHERE).processed == 0
    assert versions(s3) == before
    with pytest.raises(OutputConflictError, match="limit_clips: 0 there, 1 now"):
        splitter(source, out, limit_clips=1, **both(s3)).run(NOWHERE)
    assert versions(s3) == before
    filesystem(s3).pipe_file(f"{out}/clips/notes.txt", b"mine")
    splitter(source, out, limit_clips=1, clear_output=True, **both(s3)).run(client)
    found = objects(s3, "out")
    assert found["clips/notes.txt"] == b"mine"
    firsts = read_rows(local).query("start_s == 0")
    assert rows_in(found).equals(firsts.reset_index(drop=True))
    assert {name for name in found if name.endswith(".mp4")} == {f"clips/{i}.mp4" for i in firsts["id"]}
    assert len([name for name in found if name.startswith("metas/")]) == len(firsts)


def test_a_video_that_has_changed_is_done_anew(
    s3: Bucket, source: str, client: distributed.Client, tmp_path: Path
) -> None:
    out = f"{s3[0]}/out"
    splitter(source, out, **both(s3)).run(client)
    before = versions(s3)
    put(s3, {"in/a.mp4": make_texture(tmp_path / "a.mp4", 99, 2)})
    result = splitter(source, out, **both(s3)).run(client)
    assert (result.processed, result.clips) == (1, 5)
    clips = {path: version for path, version in versions(s3).items() if path.endswith(".mp4") and "/out/" in path}
    changed = [path for path, version in clips.items() if version != before.get(path)]
    (row,) = rows_in(objects(s3, "out")).query("video == 'a.mp4'").itertuples()
    assert [path.rsplit("/", 1)[1] for path in changed] == [f"{row.id}.mp4"]
    assert len(clips) == 5


DEATHS = (
    Death(BASE, "commit", 1),
    Death(RUN, "carry_out", 1),
    Death(Location, "move_into", 1),
    Death(COMMIT, "delete_files", 1),
)


@pytest.mark.slow
def test_a_run_that_was_killed_again_and_again_goes_on_and_gives_the_same(
    s3: Bucket, source: str, videos: Path, local: Path, client: distributed.Client
) -> None:
    out, command = f"{s3[0]}/out", ["--scheduler", client.scheduler.address, "--storage-options", json.dumps(s3[1])]
    clips: dict[str, tuple] = {}
    for death in DEATHS:
        run_to_death(death, ["split", "--video-dir", source, "--output-path", out, *FLAGS.split(), *command, "--quiet"])
        now = {path: version for path, version in versions(s3).items() if path.endswith(".mp4")}
        assert clips.items() <= now.items(), "no clip is put there twice"
        clips = now
    assert len(clips) == 3 + 6
    splitter(source, out, **both(s3)).run(client)
    assert clips.items() <= versions(s3).items()
    assert_result_of(objects(s3, "out"), local, source, videos)


# On the command line


def on_the_command_line(line: str, bucket: Bucket, client: distributed.Client) -> Result:
    shared = ["--scheduler", client.scheduler.address, "--storage-options", json.dumps(bucket[1])]
    return CliRunner().invoke(cli.main, [*shlex.split(line), *shared])


@pytest.mark.slow
def test_the_way_from_videos_to_duplicates_on_s3_tells_no_secret(
    s3: Bucket,
    source: str,
    local: Path,
    videos: Path,
    client: distributed.Client,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG, logger="semdedup")
    caplog.set_level(logging.DEBUG, logger="distributed")
    assert (s3[1]["secret"], s3[1]["key"]) == (SECRET, KEY)
    put(s3, {"in/copy.mp4": videos / "a.mp4"})
    filesystem(s3).pipe_file(f"{source}/broken.mp4", b"broken")
    out = f"{s3[0]}/out"
    lines = {
        f"split --video-dir {source} --output-clip-path {out} {FLAGS} --dry-run --verbose": 0,
        f"split --video-dir {source} --output-clip-path {out} {FLAGS} --verbose": 3,
        f"split --video-dir {source} --output-clip-path {out} {FLAGS} --limit-clips 1": 1,
        f"embed --input-clip-path {out} --output-path {s3[0]}/own": 0,
        f"dedup --input-embeddings-path {out}/dct3d_embd_parquet --output-path {out}/dedup": 0,
    }
    printed = []
    for line, status in lines.items():
        done = on_the_command_line(line, s3, client)
        assert done.exit_code == status, done.output
        assert "Traceback" not in done.output
        printed.append(done.output)
    found = objects(s3)
    dropped = [name for name in found if name.startswith("out/dedup/duplicates/")]
    drop = {i for name in dropped for i in pq.read_table(io.BytesIO(found[name]))["id"].to_pylist()}
    rows = rows_in(objects(s3, "out")).set_index("id")
    assert sorted(rows.loc[list(drop), "start_s"]) == [0, 2], "the two clips of the copy, or of what it is a copy of"
    assert set(rows.loc[list(drop), "video"]) <= {"a.mp4", "copy.mp4"}
    keys = client.run_on_scheduler(lambda dask_scheduler: [repr(entry) for entry in dask_scheduler.transition_log])
    assert any("semdedup-split" in key for key in keys)
    logs = [caplog.text, repr(client.get_scheduler_logs()), repr(client.get_worker_logs()), *capfd.readouterr()]
    for secret in (SECRET, KEY):
        assert not [text for text in (*printed, *logs, *keys) if secret in text]
        assert not [name for name, content in found.items() if secret.encode() in content]


# Faults


def test_credentials_that_are_wrong_are_a_clear_error(strict_s3: Bucket, tmp_path: Path) -> None:
    source = f"{strict_s3[0]}/in"
    with pytest.raises(StorageError, match=rf"cannot .* {source}") as caught:
        splitter(source, tmp_path / "out", read_kwargs=options(strict_s3)).run(NOWHERE)
    assert SECRET not in str(caught.value)
    assert stamps(tmp_path) == {}


def test_an_output_bucket_that_is_not_there_is_a_clear_error(
    s3: Bucket, videos: Path, client: distributed.Client
) -> None:
    absent = f"s3://absent-{s3[0][5:][-20:]}"
    with pytest.raises(StorageError, match=rf"cannot .* {absent}/out") as caught:
        splitter(videos, f"{absent}/out", write_kwargs=options(s3)).run(client)
    assert SECRET not in str(caught.value)


def test_a_video_that_disappears_while_others_are_done_costs_nothing_but_itself(
    s3: Bucket, source: str, client: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = splitter(source, f"{s3[0]}/out", **both(s3))
    files = run.find()
    filesystem(s3).rm_file(f"{source}/a.mp4")
    monkeypatch.setattr(run, "find", lambda: files)
    result = run.run(client)
    assert result.quarantined == {"unreadable": 1}
    assert (result.clips, result.count("done")) == (4, 2)


def test_keys_with_parts_that_are_empty_are_videos_of_their_own(
    s3: Bucket, videos: Path, client: distributed.Client
) -> None:
    keys = ("a.mp4", "/a.mp4", "d/a.mp4", "d//a.mp4")
    put(s3, {f"in/{key}": videos / "a.mp4" for key in keys})
    result = splitter(f"{s3[0]}/in", f"{s3[0]}/out", **both(s3)).run(client)
    assert (result.count("done"), result.clips, result.embedded) == (4, 8, 8)
    for folder in ("processed_videos", "processed_clip_chunks"):
        assert {json.loads(record)["video"] for record in objects(s3, f"out/{folder}").values()} == set(keys)
    assert splitter(f"{s3[0]}/in", f"{s3[0]}/out", **both(s3)).run(NOWHERE).processed == 0
