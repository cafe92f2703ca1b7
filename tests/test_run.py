"""`semdedup run`: the whole way with one command."""

import json
import os
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import distributed
import fsspec
import pandas as pd
import pytest
from click.testing import CliRunner, Result

import semdedup
from semdedup import InputError, ParameterError, VideoDeduplicationWorkflow, cli
from semdedup.dedup import names
from semdedup.runs import places
from semdedup.video import tree
from tests.helpers import NOWHERE, contents, files_below, stamps
from tests.splits import BRIEF, BRIEF_S, make_folder, make_texture, read_rows

SPLIT = {**BRIEF}


pytestmark = pytest.mark.usefixtures("kept_children")


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four videos of two clips each, one of which is a poorer copy of another; one that is broken, one too short."""
    folder = make_folder(tmp_path_factory.mktemp("videos"), ["a.mp4", "b.mp4", "c.mp4"], BRIEF_S)
    make_texture(folder / "copy.mp4", sum(b"a.mp4"), BRIEF_S, options={"crf": "32"})
    (folder / "broken.mp4").write_bytes(b"broken")
    make_texture(folder / "short.mp4", 1, 0.2)
    return folder


def whole(source: Any, output: Any, **parameters: Any) -> VideoDeduplicationWorkflow:
    return VideoDeduplicationWorkflow(str(source), str(output), **{"split": SPLIT, "verbose": False, **parameters})


def command(client: distributed.Client, *arguments: Any) -> Result:
    scheduler = ["--scheduler", str(client.scheduler.address), "--quiet"]
    return CliRunner().invoke(cli.main, ["run", *map(str, arguments), *scheduler])


def results(out: Path) -> dict[str, bytes]:
    """Everything that was written, but the manifests: these have times."""
    return {name: content for name, content in contents(out).items() if not name.endswith("_manifest.json")}


@pytest.fixture(scope="module")
def done(videos: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done") / "out"
    result = whole(videos, out).run(client)
    assert (result.shard.clips, result.shard.duplicates, result.shard.kept) == (8, 2, 6)
    assert (result.dedup.total, result.dedup.duplicates) == (8, 2)
    assert not result.clean
    assert client.status == "running"
    text = "\n".join(" ".join(row) for row in result.rows())
    became = [("videos", "6"), ("  done", "4"), ("  too short", "1"), ("  in quarantine", "1"), ("    unreadable", "1")]
    assert result.rows()[:5] == became, "every video is one of these"
    for words in ("in quarantine", "unreadable", "near-duplicates at eps 0.505208", "report.html", "total seconds"):
        assert words in text
    return out


@pytest.mark.slow
def test_every_clip_is_in_the_dataset_or_a_duplicate(done: Path) -> None:
    rows = read_rows(done / "clips").set_index("id")
    with tarfile.open(done / "dataset" / "00000.tar") as tar:
        kept = {name.split(".")[0] for name in tar.getnames()}
    dropped = pd.read_parquet(done / "dataset" / "dropped.parquet").set_index("id")
    assert kept | set(dropped.index) == set(rows.index)
    assert not kept & set(dropped.index)
    for row in dropped.itertuples():
        assert (rows.loc[row.Index, "video"], rows.loc[row.max_id, "video"]) == ("copy.mp4", "a.mp4"), "the best stays"
        assert rows.loc[row.Index, "start_s"] == rows.loc[row.max_id, "start_s"]
    assert sorted(path.name for path in done.iterdir()) == [
        "_progress.json",
        "clips",
        "dataset",
        "dedup",
        "overlaps",
        "report.html",
    ]
    assert "2 of 8 clips are near-duplicates" in (done / "report.html").read_text()


def test_a_second_run_changes_nothing(videos: Path, done: Path, client: distributed.Client) -> None:
    before = stamps(done)
    result = whole(videos, done).run(client)
    assert result.split.processed == 0
    assert result.shard.resumed
    changed = {Path(name).name for name, when in stamps(done).items() if before.get(name) != when}
    assert changed <= {"report.html"}
    assert before.keys() == stamps(done).keys()


@pytest.mark.slow
def test_the_later_parts_are_made_anew_over_all_videos_when_that_is_asked_for(
    videos: Path, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    source = tmp_path / "in"
    make_folder(source, ["a.mp4", "b.mp4"], BRIEF_S)
    whole(source, out).run(client)
    clips = stamps(out / "clips" / "clips")
    make_folder(source, ["new.mp4"], BRIEF_S)
    result = whole(source, out, clear_output=True).run(client)
    assert result.shard.clips == 6
    assert not (out / "dedup-0002").exists()
    assert clips.items() <= stamps(out / "clips" / "clips").items(), "clips that were there are not made again"
    whole(source, tmp_path / "fresh").run(client)
    assert results(out / "dataset").keys() == results(tmp_path / "fresh" / "dataset").keys()
    assert (out / "dataset" / "00000.tar").read_bytes() == (tmp_path / "fresh" / "dataset" / "00000.tar").read_bytes()
    shorter = {**SPLIT, "fixed_stride_split_duration": 0.5}
    assert whole(source, out, clear_output=True, split=shorter).run(client).shard.clips == 12


def test_flags_and_a_file_say_the_same(videos: Path, done: Path, client: distributed.Client, tmp_path: Path) -> None:
    told = {"video_dir": str(videos), "output_path": str(tmp_path / "out"), "eps": 0.3, "split": SPLIT}
    told["shard"] = {"samples_per_shard": 2}
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps(told))  # JSON is YAML
    flags = ("--eps", 0.4, "--samples-per-shard", 3, "--n-clusters", 1, "--json")
    found = command(client, "--config", config, *flags)
    assert found.exit_code == 3, found.output
    result = json.loads(found.stdout)
    assert (result["dedup"]["eps"], result["dedup"]["total"], result["shard"]["facts"]["shards"]) == (0.4, 8, 2)
    assert (result["split"]["videos"], result["split"]["quarantined"]) == (
        {"all": 6, "done": 4, "too_short": 1, "quarantined": 1}, {"unreadable": 1},
    )  # fmt: skip
    assert Path(result["report"]).exists()
    assert "broken.mp4: unreadable" in found.stderr
    assert len(list((tmp_path / "out" / "dataset").glob("*.tar"))) == 2
    rows = read_rows(tmp_path / "out" / "clips")
    assert rows["id"].tolist() == read_rows(done / "clips")["id"].tolist()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "must hold a mapping"),
        ("{", "is no YAML"),
        ("videos: x", "has no parameter 'videos' here"),
        ("split: 5", "split must be a mapping"),
        ("video_dir: x\noutput_path: y\nsplit: {duration: 5}", "split has no parameter 'duration' here"),
        ("video_dir: x\noutput_path: y\ndedup: {eps: 0.5}", "dedup has no parameter 'eps' here"),
        ("video_dir: x\noutput_path: y\nshard: {layout: round}", "layout"),
        ("video_dir: x\noutput_path: y\neps: 2", "eps must lie in"),
        ("video_dir: x\noutput_path: y\nsplit: {upload_clips: false}", "upload_clips"),
        ("output_path: y", "Missing option '--video-dir'"),
    ],
)
def test_a_file_that_makes_no_sense_is_refused_before_any_work(text: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "run.yaml").write_text(text)
    done = CliRunner().invoke(cli.main, ["run", "--config", str(tmp_path / "run.yaml")])
    assert done.exit_code == 2, done.output
    assert words in done.output
    assert [path.name for path in tmp_path.iterdir()] == ["run.yaml"]


def test_inputs_without_clips_are_told(client: distributed.Client, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such path"):
        whole(tmp_path / "none", tmp_path / "out").run(NOWHERE)
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "broken.mp4").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"none of the 1 videos gave a clip .*broken\.mp4: unreadable"):
        whole(tmp_path / "in", tmp_path / "out").run(client)
    with pytest.raises(ParameterError, match="no parameter 'colour'"):
        whole(tmp_path / "in", tmp_path / "out", shard={"colour": "red"})


def test_a_dry_run_writes_nothing(videos: Path, client: distributed.Client, tmp_path: Path) -> None:
    found = command(client, "--video-dir", videos, "--output-path", tmp_path / "out", "--dry-run")
    assert found.exit_code == 0, found.output
    assert "a.mp4: 2.00 s" in found.output
    assert "dataset" in found.output
    assert list(tmp_path.iterdir()) == []


EMBEDDINGS, CLUSTERS = "clips/dct3d_embd_parquet/part-00000.parquet", "dedup/kmeans_results/centroid=0"
NO_EMBEDDINGS = "the embeddings that it was made of are not in it"
NO_SCORES, NO_CLIPS = "no scores in", "it holds \\d+ files, none of which is an .mp4 file"
FOLDERS = ("root", "clips", "dedup")
FOUND = {
    "dedup --dry-run --input-embeddings-path {} --output-path {out}": (EMBEDDINGS, EMBEDDINGS, NO_EMBEDDINGS),
    "estimate --input-embeddings-path {} --eps 0.5": ("│ rows +│ 8", None, NO_EMBEDDINGS),
    "pairs --dry-run {} --eps 0.1 --output-path {out}": (CLUSTERS, EMBEDDINGS, CLUSTERS),
    "leaks --dry-run {} {} --output-path {out}": (EMBEDDINGS, EMBEDDINGS, NO_EMBEDDINGS),
    "extract {} --eps 0.1 --dry-run": ("dedup/pairwise_results", NO_SCORES, "dedup/pairwise_results"),
    "explain {} {row}": ("{row}", NO_SCORES, "{row}"),
    "calibrate --dry-run {} {verdicts}": ("not in .*dedup", NO_SCORES, "not in .*dedup"),
    "shard --dry-run --input-clip-path {} --output-dataset-path {out}": (
        "8 clips, .*\n.*those listed in 1 files",
        "8 clips, .*\n.*none are dropped",
        NO_CLIPS,
    ),
    "export --dry-run {} --output-path {out}": (EMBEDDINGS, "neither scores nor ids to drop in", EMBEDDINGS),
    "export --dry-run {dedup} --clips-path {} --output-path {out}": (EMBEDDINGS, EMBEDDINGS, NO_CLIPS),
    "overlaps --dry-run {} --output-path {out}": (
        "tracks, .*clips\n",
        "tracks, .*clips\n",
        "has no folder fingerprints",
    ),
    "report {} --output-path {out}.html --quiet": ("report: ", NO_SCORES, "report: "),
    "status {}": ("done", "done", "done"),
    "clean --dry-run {}": ("0 bytes", "0 bytes", "0 bytes"),
}
"""What each command finds in the root of a run, in the output of a split, and in that of a dedup, or what it says."""
REFUSALS = (NO_EMBEDDINGS, NO_SCORES, NO_CLIPS, "neither", "no videos", "has no folder", "not in")


@pytest.mark.parametrize(
    ("line", "folder", "words"),
    [
        pytest.param(line, folder, words, marks=[pytest.mark.slow] * ("│" in words))
        for line, row in FOUND.items()
        for folder, words in zip(FOLDERS, row, strict=True)
        if words is not None
    ],
)
def test_every_command_finds_what_it_needs(
    line: str, folder: str, words: str, done: Path, client: distributed.Client, tmp_path: Path
) -> None:
    place = done if folder == "root" else done / folder
    row = read_rows(done / "clips")["id"][0]
    pair = {"id": row, "max_id": "other", "score": 0.7, "same": True}
    verdicts = {"format": "semdedup verdicts 1", "bands": [0.1, 0.5], "verdicts": [pair]}
    (tmp_path / "verdicts.json").write_text(json.dumps(verdicts))
    others = {"row": row, "dedup": done / "dedup", "verdicts": tmp_path / "verdicts.json", "out": tmp_path / "out"}
    told = [part.format(place, place, **others) for part in line.split()]
    if told[0] == "estimate":
        told += ["--scheduler", client.scheduler.address, "--quiet"]
    found = CliRunner().invoke(cli.main, told)
    assert re.search(words.format(row=row), found.output) if "{row}" in words else re.search(words, found.output)
    assert found.exit_code == any(words.startswith(each) for each in REFUSALS), found.output
    assert not (tmp_path / "out").exists()
    if (tmp_path / "out.html").exists():
        assert "data:image/jpeg" in (tmp_path / "out.html").read_text(), "the clips were found, too"


def test_clips_below_a_root_are_embedded(done: Path, tmp_path: Path) -> None:
    for place in (done, done / "clips", done / "clips" / "clips"):
        found = semdedup.VideoEmbedWorkflow(str(place))
        assert ([str(each) for each in found.sources], str(found.output)) == (
            [str(done / "clips" / "clips")],
            str(done / "clips"),
        )


def test_folders_are_called_alike_everywhere() -> None:
    assert (places.CLIPS, places.METAS, places.TRACKS) == (tree.CLIPS, tree.METAS, tree.FINGERPRINTS)
    assert (places.EMBEDDINGS_ENDING, places.TRACKS) == (names.EMBEDDINGS_FOLDER, names.TRACKS_FOLDER)


def test_a_root_without_a_result_is_refused(done: Path, tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "clips").symlink_to(done / "clips")
    with pytest.raises(InputError, match="is the root of a run without a result"):
        next(semdedup.ShardWorkflow(str(tmp_path / "root"), str(tmp_path / "out")).plan())


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["clips/clips", "dedup", "dataset"])
def test_a_run_that_is_killed_goes_on_and_gives_the_same(
    moment: str, videos: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    config = tmp_path / "run.yaml"
    config.write_text(json.dumps({"video_dir": str(videos), "output_path": str(out), "split": SPLIT}))
    arguments = ["run", "--config", str(config), "--quiet", "--n-workers", "1", "--backend", "cpu"]
    started = subprocess.Popen(
        [sys.executable, "-m", "semdedup.cli", *arguments],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 60
    while not (out / moment).exists() and started.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    os.killpg(started.pid, signal.SIGKILL)
    started.wait()
    result = whole(videos, out).run(client)
    assert (result.shard.clips, result.shard.duplicates) == (8, 2)
    whole(videos, tmp_path / "fresh").run(client)
    assert files_below(out) == files_below(tmp_path / "fresh")
    for part in ("clips/clips", "clips/dct3d_embd_parquet", "dedup/pairwise_results", "dataset"):
        left, right = results(out / part), results(tmp_path / "fresh" / part)
        same = {name for name in left if left[name] == right[name]}
        assert left.keys() - same <= {"manifest.json", "README.md"}, "these tell the path of the input"


@pytest.mark.slow
def test_the_whole_way_on_an_object_store(
    videos: Path, done: Path, client: distributed.Client, s3: tuple[str, dict], tmp_path: Path
) -> None:
    bucket, options = s3
    fs = fsspec.filesystem("s3", **options, use_listings_cache=False)
    fs.put(f"{videos}/", f"{bucket}/videos/", recursive=True)
    result = whole(f"{bucket}/videos", f"{bucket}/out", storage_options=options).run(client)
    assert (result.shard.clips, result.shard.duplicates) == (8, 2)
    page = fs.cat_file(f"{bucket}/out/report.html").decode()
    pictures = re.compile(r'data:image/jpeg;base64,[^"]+')
    assert pictures.findall(page) == pictures.findall((done / "report.html").read_text())
    loaded = semdedup.load(f"{bucket}/out/dedup", storage_options=options)
    assert loaded.rethreshold(0.9).duplicates == semdedup.load(str(done / "dedup")).rethreshold(0.9).duplicates
    assert len(list(loaded.groups())) == 2
    semdedup.plot_curve(f"{bucket}/out/dedup", f"{bucket}/curve.png", storage_options=options)
    assert fs.cat_file(f"{bucket}/curve.png").startswith(b"\x89PNG")
    found = semdedup.extract(f"{bucket}/out/dedup", 0.9, client=client, storage_options=options, verbose=False)
    assert fs.exists(found.paths["ids to keep"] + "/part-0.parquet")
    secret = options["secret"].encode()
    assert not [path for path in fs.find(f"{bucket}/out") if secret in fs.cat_file(path)]
