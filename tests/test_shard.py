"""`shard` on a cluster: every kept clip once, no dropped clip, the same bytes always, whole or not at all."""

import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import av
import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from semdedup import (
    BadFileError,
    DuplicateIdError,
    IdentifyDuplicatesStage,
    InputError,
    OutputConflictError,
    ParameterError,
)
from semdedup.cli import main
from semdedup.dedup.names import COMMAND_LINE, WORKFLOW, Layout
from semdedup.shards import join, plan, run
from semdedup.shards.layouts import LAYOUTS, ShardLayout
from semdedup.shards.layouts.base import WrittenShard
from semdedup.shards.streams import writing_stream
from semdedup.storage.location import Location
from tests.helpers import NOWHERE, contents, files_below, kill, stamps, start_program, wait_for
from tests.shards import (
    content_of,
    embedding_of,
    ids_in,
    make_clips,
    meta_of,
    read_manifest,
    read_samples,
    score_of,
    sharder,
    write_duplicates,
    write_scores,
    write_vectors,
)
from tests.videos import make_video

IDS = [f"clip-{i:03d}" for i in range(60)]
EPS = 0.25
DUPLICATES = {clip_id for clip_id in IDS if score_of(clip_id) >= 0.75}
KEPT = [clip_id for clip_id in IDS if clip_id not in DUPLICATES]


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a split, with scores of all but two clips, and of one that is none, in the folder ``dedup``."""
    root = make_clips(tmp_path_factory.mktemp("clips") / "in", IDS)
    write_scores(root / "dedup", {clip_id: score_of(clip_id) for clip_id in [*IDS, "gone"]}, extracted=EPS)
    return root


@pytest.fixture(scope="module")
def dataset(clips: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips that remain, with their embeddings."""
    out = tmp_path_factory.mktemp("dataset") / "out"
    sharder(clips, out, input_semantic_dedup_path=clips / "dedup", with_embeddings=True).run(client)
    return out


def table(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


# What is written


def test_every_kept_clip_is_there_once_and_no_dropped_clip(dataset: Path) -> None:
    samples = read_samples(dataset)
    assert 0 < len(DUPLICATES) < len(IDS)
    assert ids_in(samples) == KEPT
    for sample in samples:
        clip_id = sample["json"]["id"]
        assert sample["__key__"].rsplit("/", 1)[-1] == clip_id
        assert sample["mp4"] == content_of(clip_id)
        expected = {"source": f"clips/{clip_id}.mp4", "score": score_of(clip_id), "max_id": IDS[0]}
        assert sample["json"] == {**meta_of(clip_id), "start_s": 1.5, "end_s": 3.25, **expected}
        assert sample["npy"].dtype == np.float32
        np.testing.assert_array_equal(sample["npy"], embedding_of(clip_id))


def test_the_index_says_where_each_member_is(dataset: Path) -> None:
    index = table(dataset / "index.parquet")
    assert [row["id"] for row in index] == KEPT
    for row in index:
        shard = (dataset / row["shard"]).read_bytes()

        def member(name: str, row: dict = row, shard: bytes = shard) -> bytes:
            return shard[row[f"{name}_offset"] : row[f"{name}_offset"] + row[f"{name}_size"]]

        assert member("mp4") == content_of(row["id"])
        assert json.loads(member("json"))["id"] == row["id"]
        np.testing.assert_array_equal(np.load(io.BytesIO(member("npy"))), embedding_of(row["id"]))
        assert (row["key"], row["score"]) == (row["id"], score_of(row["id"]))


def test_the_manifest_tells_of_shards_and_the_table_of_dropped_clips(dataset: Path, clips: Path) -> None:
    manifest = read_manifest(dataset)
    assert [shard["name"] for shard in manifest["shards"]] == [f"{i:05d}.tar" for i in range(len(manifest["shards"]))]
    for shard in manifest["shards"]:
        content = (dataset / shard["name"]).read_bytes()
        assert (shard["sha256"], shard["bytes"]) == (hashlib.sha256(content).hexdigest(), len(content))
        assert shard["samples"] <= 10
    counts = manifest["counts"]
    assert sum(shard["samples"] for shard in manifest["shards"]) == counts["kept"] == len(KEPT)
    assert (counts["clips"], counts["dropped"]) == (len(IDS), {"duplicate": len(DUPLICATES)})
    assert (counts["unmatched"], manifest["eps"], manifest["source"]) == (1, EPS, str(clips))
    dropped = table(dataset / "dropped.parquet")
    assert [row["id"] for row in dropped] == sorted(DUPLICATES)
    assert dropped[0] == {
        "id": dropped[0]["id"], "reason": "duplicate", "score": score_of(dropped[0]["id"]), "max_id": IDS[0],
        "source": f"clips/{dropped[0]['id']}.mp4",
    }  # fmt: skip
    beside = ["README.md", "_manifest.json", "dropped.parquet", "index.parquet", "manifest.json"]
    assert files_below(dataset) == sorted([*(shard["name"] for shard in manifest["shards"]), *beside])


def test_tars_have_no_time_and_no_owner_and_any_tar_reads_them(dataset: Path, tmp_path: Path) -> None:
    with tarfile.open(dataset / "00000.tar") as tar:
        for member in tar:
            assert (member.mtime, member.uid, member.gid, member.uname, member.mode) == (0, 0, 0, "", 0o644)
    subprocess.run(["tar", "xf", dataset / "00000.tar", "-C", tmp_path], check=True, stderr=subprocess.PIPE)
    assert (tmp_path / f"{KEPT[0]}.mp4").read_bytes() == content_of(KEPT[0])


def test_the_code_of_the_card_loads_the_dataset(dataset: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    card = (dataset / "README.md").read_text()
    assert f"| in the shards | {len(KEPT)} |" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    monkeypatch.chdir(dataset)
    found: dict[str, Any] = {}
    exec(code + "    seen.append(about['id'])\n", found | {"seen": (seen := [])})
    assert seen == KEPT


def test_the_result_tells_all_of_it(clips: Path, dataset: Path) -> None:
    result = sharder(clips, dataset, input_semantic_dedup_path=clips / "dedup", with_embeddings=True).run(NOWHERE)
    assert (result.clips, result.kept, result.duplicates) == (len(IDS), len(KEPT), len(DUPLICATES))
    assert result.resumed
    text = str(result)
    for words in ("dropped, duplicate", "scores of no clip", "0.25 (that of the ids extracted there)", "index.parquet"):
        assert words in text


def test_real_videos_decode(client: distributed.Client, tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        make_video(tmp_path / "in" / "deep" / f"{name}.mp4", 6)
    (tmp_path / "in" / "note.txt").write_text("x")
    (tmp_path / "in" / "other.webm").write_bytes(b"x")
    make_video(tmp_path / "in" / "another.mkv", 2).rename(tmp_path / "in" / "another")
    result = sharder(tmp_path / "in", tmp_path / "out").run(client)
    samples = read_samples(tmp_path / "out")
    assert ids_in(samples) == ["a", "b", "c"]
    for sample in samples:
        with av.open(io.BytesIO(sample["mp4"])) as video:
            assert sum(1 for _ in video.decode(video=0)) == 6
    assert samples[0]["json"] == {
        "id": "a", "source": "deep/a.mp4", "video": None, "start_s": None, "end_s": None, "score": None, "max_id": None,
    }  # fmt: skip
    assert (result.facts["left_out"], result.facts["without_metadata"]) == (2, 3)


# The same bytes always


@pytest.mark.parametrize("seed", [None, 3])
def test_the_bytes_do_not_depend_on_workers_and_partitions(
    clips: Path, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int | None
) -> None:
    def run(name: str, connected: Any = client) -> dict[str, bytes]:
        options = {"input_semantic_dedup_path": clips / "dedup", "with_embeddings": True, "shuffle_seed": seed}
        sharder(clips, tmp_path / name, **options, target_tar_size_mb=0.02).run(connected)
        return contents(tmp_path / name)

    whole = run("whole")
    monkeypatch.setattr(plan, "EMBEDDED_CLIPS_PER_PARTITION", 7)
    monkeypatch.setattr(plan, "SCORE_BYTES", 1)
    monkeypatch.setattr(plan, "EMBEDDING_BYTES", 1)
    assert run("many partitions, two workers") == whole
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as alone,
    ):
        assert run("many partitions, one worker", alone) == whole
    ids = [sample["json"]["id"] for sample in read_samples(tmp_path / "whole")]
    assert sorted(ids) == KEPT
    assert (ids == KEPT) == (seed is None)


def test_chunks_of_samples_change_nothing(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one process, so that the size of chunks can be changed."""
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as alone,
    ):
        for name, most in (("a", 1024), ("b", 4), ("c", 1)):
            for module in (join, sys.modules["semdedup.shards.write"]):
                monkeypatch.setattr(module, "SAMPLES_AT_A_TIME", most)
            options = {"input_semantic_dedup_path": clips / "dedup", "semantic_dedup_epsilon": 0.5}
            sharder(clips, tmp_path / name, **options).run(alone)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") == contents(tmp_path / "c")


def test_a_shard_is_no_larger_than_asked_unless_its_one_clip_is(
    clips: Path, client: distributed.Client, tmp_path: Path
) -> None:
    big = make_clips(tmp_path / "in", IDS[:20], metas=False, embeddings=False)
    (big / "clips" / "clip-005.mp4").write_bytes(bytes(50_000))
    sharder(big, tmp_path / "out", target_tar_size_mb=0.01, samples_per_shard=1000).run(client)
    samples = read_samples(tmp_path / "out")
    assert ids_in(samples) == IDS[:20]
    large = [shard for shard in read_manifest(tmp_path / "out")["shards"] if shard["bytes"] > 10_485 + 1024]
    assert [(shard["samples"], shard["bytes"] > 50_000) for shard in large] == [(1, True)]


# Which clips are dropped


@pytest.mark.parametrize("layout", [WORKFLOW, COMMAND_LINE])
@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.uint64(), pa.dictionary(pa.int32(), pa.string())])
def test_both_layouts_and_ids_of_any_type(
    client: distributed.Client, tmp_path: Path, layout: Layout, kind: pa.DataType
) -> None:
    ids = [str(i) for i in range(20)]
    make_clips(tmp_path / "in", ids, metas=False, embeddings=False)
    scores = {i: 1.0 if i % 3 == 0 else 0.5 for i in range(18)}
    typed = scores if pa.types.is_integer(kind) else {str(i): score for i, score in scores.items()}
    write_scores(tmp_path / "dedup", typed, layout, kind=kind)
    options = {"input_semantic_dedup_path": tmp_path / "dedup", "semantic_dedup_epsilon": 0.01}
    result = sharder(tmp_path / "in", tmp_path / "out", **options).run(client)
    assert sorted(ids_in(read_samples(tmp_path / "out")), key=int) == [i for i in ids if int(i) % 3 or int(i) >= 18]
    assert (result.duplicates, result.facts["without_score"]) == (6, 2)


def test_a_score_at_the_threshold_is_a_duplicate_in_float32(client: distributed.Client, tmp_path: Path) -> None:
    make_clips(tmp_path / "in", ["a", "b", "c"], metas=False, embeddings=False)
    at = np.float32(1 - 0.1)
    scores = {"a": float(at), "b": float(np.nextafter(at, np.float32(0))), "c": 0.0}
    write_scores(tmp_path / "dedup", scores)
    options = {"input_semantic_dedup_path": tmp_path / "dedup", "semantic_dedup_epsilon": 0.1}
    sharder(tmp_path / "in", tmp_path / "out", **options).run(client)
    assert ids_in(read_samples(tmp_path / "out")) == ["b", "c"]


def test_a_list_of_ids_to_drop(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    write_duplicates(tmp_path / "dedup", [*IDS[:5], IDS[0], "gone"])
    result = sharder(clips, tmp_path / "out", input_semantic_dedup_path=tmp_path / "dedup").run(client)
    assert ids_in(read_samples(tmp_path / "out")) == IDS[5:]
    assert [row["id"] for row in table(tmp_path / "out" / "dropped.parquet")] == IDS[:5]
    assert (result.facts["without_score"], result.facts["unmatched"]) == (0, 1)


def test_what_the_stage_alone_and_the_program_extract(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    stage = IdentifyDuplicatesStage(
        eps=EPS, input_path=str(clips / "dedup"), output_path=str(tmp_path / "alone"), verbose=False
    )
    stage.run(client)
    command = ["extract", str(clips / "dedup"), "--eps", str(EPS), "--output-path", str(tmp_path / "extracted")]
    done = CliRunner().invoke(main, [*command, "--quiet", "--scheduler", client.scheduler.address])
    assert done.exit_code == 0, done.output
    for name in ("alone", "extracted"):
        out = tmp_path / f"out-{name}"
        sharder(clips, out, input_semantic_dedup_path=tmp_path / name).run(client)
        assert ids_in(read_samples(out)) == KEPT


def test_all_clips_dropped_is_a_dataset_without_shards(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    write_duplicates(tmp_path / "dedup", IDS)
    result = sharder(clips, tmp_path / "out", input_semantic_dedup_path=tmp_path / "dedup").run(client)
    assert (result.shards, result.kept, result.duplicates) == (0, 0, len(IDS))
    assert table(tmp_path / "out" / "index.parquet") == []


def test_an_empty_file_is_dropped_and_told(client: distributed.Client, tmp_path: Path) -> None:
    make_clips(tmp_path / "in", ["a", "b"], embeddings=False)
    (tmp_path / "in" / "clips" / "b.mp4").write_bytes(b"")
    result = sharder(tmp_path / "in", tmp_path / "out").run(client)
    assert (result.kept, result.dropped) == (1, {"empty_file": 1})
    assert [row["reason"] for row in table(tmp_path / "out" / "dropped.parquet")] == ["empty_file"]


def test_clips_without_embedding_have_none_and_are_counted(client: distributed.Client, tmp_path: Path) -> None:
    make_clips(tmp_path / "in", ["a", "b"], embeddings=False)
    write_vectors(tmp_path / "in" / "x_embd_parquet", ["b", "other"])
    result = sharder(tmp_path / "in", tmp_path / "out", with_embeddings=True).run(client)
    assert ["npy" in sample for sample in read_samples(tmp_path / "out")] == [False, True]
    assert result.facts["without_embedding"] == 1


# Hostile names


def test_hostile_names_are_safe_keys_and_stand_in_the_json(client: distributed.Client, tmp_path: Path) -> None:
    ids = ["x.y", "<script>", "a\nb", "\u00e9\U0001f3ac", "A", "a", "a b", "..x", "x..", "-rf", "*", "con", "k" * 200]
    ids = [clip_id for clip_id in ids if not clip_id.startswith(".")]
    make_clips(tmp_path / "in", ids)
    write_scores(tmp_path / "dedup", dict.fromkeys([*ids, "a/b", ".."], 0.5) | {"<script>": 1.0})
    options = {"input_semantic_dedup_path": tmp_path / "dedup", "semantic_dedup_epsilon": 0.1, "with_embeddings": True}
    sharder(tmp_path / "in", tmp_path / "out", **options).run(client)
    samples = read_samples(tmp_path / "out")
    assert sorted(ids_in(samples)) == sorted(clip_id for clip_id in ids if clip_id != "<script>")
    for sample in samples:
        assert sample["mp4"] == content_of(sample["json"]["id"])
        np.testing.assert_array_equal(sample["npy"], embedding_of(sample["json"]["id"]))
    names = []
    for shard in read_manifest(tmp_path / "out")["shards"]:
        with tarfile.open(tmp_path / "out" / shard["name"]) as tar:
            names += tar.getnames()
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9_-]*\.(mp4|json|npy)", name) for name in names)
    assert len({name.casefold() for name in names}) == len(names)


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_a_name_that_is_no_text(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    Path(os.fsdecode(bytes(tmp_path / "in") + b"/\xff.mp4")).write_bytes(b"content")
    sharder(tmp_path / "in", tmp_path / "out").run(client)
    (sample,) = read_samples(tmp_path / "out")
    assert (sample["mp4"], sample["json"]["id"]) == (b"content", "\\xff")


# Refusals


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_names_that_are_equal_as_text_are_refused(tmp_path: Path) -> None:
    for name in ("\udcff.mp4", r"\xff.mp4"):
        (tmp_path / name).write_bytes(b"content")
    with pytest.raises(InputError, match=r"two clips would have the same id: .*xff.mp4 and .*xff.mp4; rename one"):
        sharder(tmp_path, tmp_path / "out").run(NOWHERE)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (lambda root: root.mkdir(), {}, InputError, "no clips in .*: it holds 0 files"),
        (lambda root: None, {}, InputError, "no such path"),
        (lambda root: make_clips(root, ["a"]), {"annotation_version": "v9"}, InputError, r"no metadata in .*: v0\."),
        (lambda root: make_clips(root, ["a"], embeddings=False), {"with_embeddings": True}, ParameterError,
         r"no embeddings in .*no folder \*_embd_parquet"),
        (lambda root: write_vectors(make_clips(root, ["a"]) / "x_embd_parquet", ["a"]), {"with_embeddings": True},
         ParameterError, "several embedders: dct3d_embd_parquet, x_embd_parquet. Name one"),
        (lambda root: make_clips(root, ["a"]), {"semantic_dedup_epsilon": 0.1}, ParameterError, "but no scores"),
        (lambda root: make_clips(root, ["a"]), {"input_semantic_dedup_path": "in/clips"}, InputError,
         "neither scores nor ids to drop"),
        (lambda root: make_clips(root, ["a"]), {"input_semantic_dedup_path": ""}, ParameterError, "not empty"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_before_anything_is_written(
    tmp_path: Path, make: Callable[[Path], Any], options: dict, error: type[Exception], message: str
) -> None:
    make(tmp_path / "in")
    if options.get("input_semantic_dedup_path"):
        options = {"input_semantic_dedup_path": tmp_path / options["input_semantic_dedup_path"]}
    with pytest.raises(error, match=message):
        sharder(tmp_path / "in", tmp_path / "out", **options).run(NOWHERE)
    assert not (tmp_path / "out").exists()


def refused(client: Any, source: Path, out: Path, error: type[Exception], message: str, **options: Any) -> None:
    """Assert that a run is refused while it works, and takes back everything."""
    with pytest.raises(error, match=message):
        sharder(source, out, **options).run(client)
    assert not out.exists()


def test_scores_of_other_clips_are_refused(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    write_scores(tmp_path / "dedup", {"x": 0.5, "y": 0.75})
    options = {"input_semantic_dedup_path": tmp_path / "dedup", "semantic_dedup_epsilon": 0.1}
    message = r"none of the 2 scores in .* belongs to a clip in .*ids there are 'x', 'y'"
    refused(client, clips, tmp_path / "out", InputError, message, **options)


def test_tables_of_scores_without_rows_are_refused(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "dedup", {"x": 0.5}, n_files=1) / WORKFLOW.scores
    pq.write_table(pq.read_table(folder / "cluster_0.parquet").slice(0, 0), folder / "cluster_0.parquet")
    options = {"input_semantic_dedup_path": tmp_path / "dedup", "semantic_dedup_epsilon": 0.1}
    refused(client, clips, tmp_path / "out", InputError, "no rows in the 1 tables of scores", **options)


def test_an_id_with_two_scores_is_refused(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "dedup", {IDS[0]: 0.5}, n_files=1) / WORKFLOW.scores
    (folder / "cluster_1.parquet").write_bytes((folder / "cluster_0.parquet").read_bytes())
    options = {"input_semantic_dedup_path": tmp_path / "dedup", "semantic_dedup_epsilon": 0.1}
    refused(client, clips, tmp_path / "out", DuplicateIdError, f"more than once.*'{IDS[0]}'", **options)


def test_a_table_that_holds_no_scores_is_refused(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    folder = write_scores(tmp_path / "dedup", {IDS[0]: 0.5}, n_files=1) / WORKFLOW.scores
    pq.write_table(pa.table({"id": [IDS[0]]}), folder / "cluster_0.parquet")
    options = {"input_semantic_dedup_path": tmp_path / "dedup", "semantic_dedup_epsilon": 0.1}
    refused(client, clips, tmp_path / "out", BadFileError, r"cluster_0.parquet has no column 'max_id'", **options)


def test_metadata_that_are_malformed_cost_the_clip_its_metadata_and_are_named(
    client: distributed.Client, tmp_path: Path, capfd: pytest.CaptureFixture
) -> None:
    wrong = {"b": "{", "c": "[1]", "d": json.dumps(meta_of("d") | {"loss": float("nan")})}
    make_clips(tmp_path / "in", "abcdef")
    for clip_id, content in wrong.items():
        (tmp_path / "in" / "metas" / "v0" / f"{clip_id}.json").write_text(content)
    (tmp_path / "in" / "metas" / "v0" / "e.json").unlink()
    result = sharder(tmp_path / "in", tmp_path / "out", verbose=True).run(client)
    said = capfd.readouterr().err
    assert "3 metadata files are malformed; their clips go without metadata: " in said
    assert re.search(r"metas/v0/b\.json is no JSON: .*/c\.json is no JSON object.*/d\.json is no JSON: NaN", said)
    assert (result.kept, result.facts["without_metadata"], result.facts["malformed_metadata"]) == (6, 4, 3)
    samples = {sample["json"]["id"]: sample["json"] for sample in read_samples(tmp_path / "out")}
    json.dumps(samples, allow_nan=False)
    for clip_id in "bcde":
        assert (samples[clip_id]["video"], samples[clip_id]["start_s"], "windows" in samples[clip_id]) == (
            None,
            None,
            False,
        )
    assert samples["a"]["windows"] == meta_of("a")["windows"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| of these with metadata that are malformed | 3 |" in card


def test_a_folder_of_other_shards_is_refused_and_left_alone(clips: Path, tmp_path: Path) -> None:
    for name in ("00000.tar", "deep/part.tar.gz", "README.md", "manifest.json", "v0/wdinfo_list.csv", "a/wdinfo.json"):
        out = tmp_path / name.replace("/", "-")
        (out / name).parent.mkdir(parents=True)
        (out / name).write_text("mine")
        for clear in (False, True):
            with pytest.raises(OutputConflictError, match=rf"no record of: {name}\. They are not deleted"):
                sharder(clips, out, clear_output=clear).run(NOWHERE)
        assert files_below(out) == [name]


# Other parameters, other input, again


@pytest.fixture
def small(tmp_path: Path, client: distributed.Client) -> Path:
    """A small dataset in ``out``, made of ``in``."""
    make_clips(tmp_path / "in", IDS[:6], embeddings=False)
    sharder(tmp_path / "in", tmp_path / "out").run(client)
    return tmp_path


def test_a_second_run_changes_nothing(small: Path) -> None:
    before = stamps(small / "out")
    assert sharder(small / "in", small / "out").run(NOWHERE).resumed
    assert stamps(small / "out") == before


def test_other_parameters_are_refused_with_the_differences(small: Path) -> None:
    before = contents(small / "out")
    with pytest.raises(OutputConflictError, match=r"samples_per_shard: 10 there, 3 now") as caught:
        sharder(small / "in", small / "out", samples_per_shard=3, shuffle_seed=1).run(NOWHERE)
    assert "shuffle_seed: None there, 1 now" in str(caught.value)
    assert contents(small / "out") == before


def test_a_clip_or_a_caption_that_changed_is_refused_until_the_output_is_cleared(
    small: Path, client: distributed.Client
) -> None:
    meta = small / "in" / "metas" / "v0" / f"{IDS[0]}.json"
    meta.write_text(json.dumps({"caption": "new"}))
    with pytest.raises(OutputConflictError, match="changed since"):
        sharder(small / "in", small / "out").run(NOWHERE)
    (small / "out" / "mine.txt").write_text("mine")
    sharder(small / "in", small / "out", clear_output=True, samples_per_shard=4).run(client)
    assert [shard["samples"] for shard in read_manifest(small / "out")["shards"]] == [4, 2]
    assert read_samples(small / "out")[0]["json"]["caption"] == "new"
    assert (small / "out" / "mine.txt").read_text() == "mine"


def test_a_dataset_inside_the_folder_of_clips_is_no_input(client: distributed.Client, tmp_path: Path) -> None:
    make_video(tmp_path / "in" / "a.mp4", 2)
    for _ in range(2):
        sharder(tmp_path / "in", tmp_path / "in" / "out").run(client)
    assert ids_in(read_samples(tmp_path / "in" / "out")) == ["a"]


# Whole or not at all


DRIVER = """
import json, sys
from semdedup import ClusterOptions
from semdedup.shards import plan, workflow

if __name__ == "__main__":
    parameters, scheduler = json.loads(sys.argv[1])
    plan.CLIPS_PER_PARTITION, plan.SCORE_BYTES = 20, 1
    workflow.ShardWorkflow(**parameters).run(cluster=ClusterOptions(scheduler=scheduler))
"""


@pytest.mark.slow
def test_a_run_that_is_killed_in_step_after_step_ends_with_the_same_bytes(
    clips: Path, client: distributed.Client, tmp_path: Path
) -> None:
    options = {"input_semantic_dedup_path": clips / "dedup", "samples_per_shard": 2}
    sharder(clips, tmp_path / "expected", **options).run(client)
    out = tmp_path / "out"
    parameters = {"input_clip_path": str(clips), "output_dataset_path": str(out), "verbose": False}
    parameters |= {name: str(value) if name.endswith("path") else value for name, value in options.items()}
    done = 0
    for pattern in ("_scratch/*/journal/join/1.json", "_scratch/*/journal/write-shards/3.json", "0000*.tar"):
        process = start_program(tmp_path, DRIVER, parameters, client.scheduler.address)
        try:
            wait_for(out, pattern)
        finally:
            kill(process)
        done += not (out / "manifest.json").exists()
    assert done >= 2
    result = sharder(clips, out, **options).run(client)
    assert contents(out) == contents(tmp_path / "expected")
    assert result.kept == len(KEPT)


def test_a_clip_that_changes_during_the_run_is_an_error(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clips(tmp_path / "in", IDS[:3], embeddings=False)
    shards_of = run.ShardRun._cut

    def shrink_first(self: Any, partitions: Any) -> Any:
        (tmp_path / "in" / "clips" / f"{IDS[1]}.mp4").write_bytes(b"short")
        return shards_of(self, partitions)

    monkeypatch.setattr(run.ShardRun, "_cut", shrink_first)
    with pytest.raises(InputError, match=rf"{IDS[1]}.mp4 is not as long as it was when it was listed"):
        sharder(tmp_path / "in", tmp_path / "out").run(client)
    assert [name for name in files_below(tmp_path / "out") if name.endswith((".tar", ".tmp"))] == []
    monkeypatch.undo()
    sharder(tmp_path / "in", tmp_path / "out", clear_output=True).run(client)
    assert read_samples(tmp_path / "out")[1]["mp4"] == b"short"


def test_a_stream_that_breaks_leaves_nothing(tmp_path: Path) -> None:
    def write_half() -> None:
        with writing_stream(Location.of(tmp_path / "x.tar"), 10) as file:
            file.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write_half()
    assert files_below(tmp_path) == []


# The tree of cosmos-curate


def test_the_tree_of_cosmos_curate_has_a_bin_for_every_clip(
    client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_clips(tmp_path / "in", IDS, embeddings=False)
    shapes = [(1920, 1080, 250), (720, 1280, 500), (640, 640, 100), (5000, 100, 250), (None, 5, 5)]
    for i, clip_id in enumerate(IDS):
        width, height, n_frames = shapes[i % 5]
        meta = {"width": width, "height": height, "num_frames": n_frames, "framerate": 25.0, "windows": []}
        (tmp_path / "in" / "metas" / "v0" / f"{clip_id}.json").write_text(json.dumps(meta))
    (tmp_path / "in" / "metas" / "v0" / f"{IDS[0]}.json").unlink()
    monkeypatch.setattr(plan, "CLIPS_PER_PARTITION", 13)
    monkeypatch.setattr("semdedup.shards.layouts.cosmos.TARS_PER_PART", 2)
    result = sharder(tmp_path / "in", tmp_path / "out", layout="cosmos", samples_per_shard=5).run(client)
    assert (result.dropped, result.kept) == ({}, len(IDS))
    expected = {
        "v0/resolution_1080/aspect_ratio_16_9/duration_5_10": IDS[5::5],
        "v0/resolution_720/aspect_ratio_9_16/duration_10_30": IDS[1::5],
        "v0/resolution_lt_720/aspect_ratio_1_1/duration_lt_5": IDS[2::5],
        "v0/resolution_lt_720/aspect_ratio_16_9/duration_5_10": IDS[3::5],
        "v0/resolution_unknown/aspect_ratio_unknown/duration_unknown": sorted([IDS[0], *IDS[4::5]]),
    }
    listed = (tmp_path / "out" / "v0" / "wdinfo_list.csv").read_text().splitlines()
    assert listed == [f"{tmp_path}/out/{folder}/wdinfo.json" for folder in expected]
    for folder, ids in expected.items():
        info = json.loads((tmp_path / "out" / folder / "wdinfo.json").read_bytes())
        assert info["data_list"][:3] == ["part_000000/000000.tar", "part_000000/000001.tar", "part_000001/000000.tar"]
        assert (info["root"], info["total_key_count"]) == (f"{tmp_path}/out/{folder}", len(ids))
        assert (info["data_keys"], info["chunk_size"]) == (["video", "metas"], 2)
        videos, metas = (
            read_samples(tmp_path / "out", [f"{folder}/{kind}/{name}" for name in info["data_list"]])
            for kind in ("video", "metas")
        )
        assert [sample["__key__"].rsplit("/")[-1] for sample in videos] == ids == ids_in(metas)
        assert [sample["mp4"] for sample in videos] == [content_of(clip_id) for clip_id in ids]
    for row in table(tmp_path / "out" / "index.parquet"):
        shard, known = ((tmp_path / "out" / row[name]).read_bytes() for name in ("shard", "json_shard"))
        assert shard[row["mp4_offset"] : row["mp4_offset"] + row["mp4_size"]] == content_of(row["id"])
        assert json.loads(known[row["json_offset"] : row["json_offset"] + row["json_size"]])["id"] == row["id"]
    code = re.findall(r"```python\n(.*?)```", (tmp_path / "out" / "README.md").read_text(), re.DOTALL)[0]
    monkeypatch.chdir(tmp_path / "out")
    exec(code + "    seen.append(about['id'])\n", {"seen": (seen := [])})
    assert sorted(seen) == sorted(IDS)


# A layout of somebody else


class FirstLetterLayout(ShardLayout):
    """A bin for clips of videos "c" and one for the others; a tar of videos, one of the rest; and a list of tars."""

    name = "first_letter"
    tar_columns: ClassVar = {"mp4": "shard", "json": "rest_shard", "npy": "rest_shard"}
    n_bins = 2
    extra_names = ("list.txt",)
    loading = "shards = open('list.txt').read().split()\n"

    def bin_of(self, meta: Mapping[str, Any]) -> int:
        return int(meta.get("video") != "c.mp4")

    def tar_names(self, version: str, bin_: int, number: int) -> dict[str, str]:
        return {"shard": f"{'co'[bin_]}/{number}.tar", "rest_shard": f"{'co'[bin_]}/{number}.rest.tar"}

    def extra_files(self, root: Location, version: str, shards: Sequence[WrittenShard]) -> Iterator[tuple[str, bytes]]:
        yield "list.txt", "\n".join(f"{shard.tars['shard']} {shard.samples}" for shard in shards).encode()


def test_a_layout_is_one_class_and_one_entry_in_the_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(LAYOUTS, FirstLetterLayout.name, FirstLetterLayout())
    make_clips(tmp_path / "in", ["ca", "cb", "da", "cc"])
    out = tmp_path / "out"
    with (
        distributed.LocalCluster(
            n_workers=1, processes=False, threads_per_worker=1, dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as alone,
    ):
        options = {"layout": "first_letter", "with_embeddings": True, "samples_per_shard": 2}
        sharder(tmp_path / "in", out, **options).run(alone)
    assert (out / "list.txt").read_text().splitlines() == ["c/0.tar 2", "c/1.tar 1", "o/0.tar 1"]
    index = pq.read_table(out / "index.parquet")
    assert index.column_names[2:4] == ["shard", "rest_shard"]
    assert index["id"].to_pylist() == ["ca", "cb", "cc", "da"]
    for row in index.to_pylist():
        content = {"mp4": content_of(row["id"])}
        for member, column in FirstLetterLayout.tar_columns.items():
            start, size = row[f"{member}_offset"], row[f"{member}_size"]
            content.setdefault(member, (out / row[column]).read_bytes()[start : start + size])
        assert (out / row["shard"]).read_bytes()[row["mp4_offset"] :].startswith(content["mp4"])
        assert json.loads(content["json"])["id"] == row["id"]
        np.testing.assert_array_equal(np.load(io.BytesIO(content["npy"])), embedding_of(row["id"]))
    assert FirstLetterLayout.loading in (out / "README.md").read_text()
    (out / "_manifest.json").unlink()
    for path in [*out.rglob("*.tar"), *out.glob("*.parquet"), out / "README.md", out / "manifest.json"]:
        path.unlink()
    with pytest.raises(OutputConflictError, match=r"no record of: list\.txt\."):
        sharder(tmp_path / "in", out, **options).run(NOWHERE)


# The command line


def test_the_command(clips: Path, client: distributed.Client, tmp_path: Path) -> None:
    def invoke(*flags: str) -> Any:
        given = ["shard", "--input-clip-path", str(clips), "--output-dataset-path", str(tmp_path / "out"), *flags]
        return CliRunner().invoke(main, given)

    dedup = ["--input-semantic-dedup-path", str(clips / "dedup"), "--semantic-dedup-epsilon", "0.5"]
    told = invoke(*dedup, "--dry-run", "--scheduler", NOWHERE)
    gone = sum(score_of(clip_id) >= 0.5 for clip_id in [*IDS, "gone"])
    assert told.exit_code == 0, told.output
    assert f"duplicates: {gone} of 61 scores reach 1 - eps, eps 0.5 (given)" in told.output
    assert not (tmp_path / "out").exists()
    flags = ["--with-embeddings", "--samples-per-shard", "7", "--shuffle-seed", "1", "--quiet"]
    done = invoke(*dedup, *flags, "--scheduler", client.scheduler.address)
    assert done.exit_code == 0, done.output
    assert "in the shards" in done.output
    assert "npy" in read_samples(tmp_path / "out")[0]
    other = invoke("--scheduler", NOWHERE, "--with-embeddings", "dct3d_embd_parquet")
    assert (other.exit_code, "samples_per_shard: 7 there, 10000 now" in other.output) == (1, True)
    wrong = invoke("--semantic-dedup-epsilon", "0.5")
    assert (wrong.exit_code, "but no scores" in wrong.output) == (2, True)
    assert "semdedup shard --input-clip-path" in CliRunner().invoke(main, ["shard", "--help"]).output
