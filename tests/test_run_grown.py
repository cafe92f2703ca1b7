"""`semdedup run` on a folder of videos that grows: an update of the dedup, new shards, and one answer over all."""

import dataclasses
import json
import os
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import distributed
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

import semdedup
from semdedup import (
    InputError,
    OutputConflictError,
    PairwiseStage,
    ParameterError,
    SemanticDeduplicationWorkflow,
    ShardWorkflow,
    VideoDeduplicationWorkflow,
    cli,
)
from semdedup.dedup.threshold.rule import least_score
from semdedup.run_result import RunResult
from semdedup.runs.record import Record
from semdedup.shards.run import ShardRun
from semdedup.storage.location import Location
from tests.helpers import files_below, stamps
from tests.runs import Place, compared, copied
from tests.splits import (
    BRIEF,
    BRIEF_S,
    OWN,
    RUN,
    Death,
    make_texture,
    matrix,
    read_rows,
    run_to_death,
)
from tests.splits import make_folder as make_videos
from tests.videos import make_video, texture

pytestmark = pytest.mark.usefixtures("kept_children")

NEW = ["d.mp4"]


def make_folder(folder: Path, names: list[str], seconds: float = BRIEF_S) -> None:
    """Write videos of two clips each that differ."""
    make_videos(folder, names, seconds)


def copy_of(path: Path, name: str, crf: int = 32) -> None:
    """Write a video that shows what the one of this name shows."""
    make_texture(path, sum(name.encode()), BRIEF_S, options={"crf": str(crf)})


def grow(place: Place) -> None:
    """Add a video, and a copy of one that is there; four clips."""
    make_folder(place.videos, NEW)
    copy_of(place.videos / "copy-of-a.mp4", "a.mp4")


@pytest.fixture(scope="module")
def begun(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The first run: three videos of two clips each, of which two show the same, and one that is broken."""
    place = Place(tmp_path_factory.mktemp("videos"), tmp_path_factory.mktemp("first") / "out")
    make_folder(place.videos, ["a.mp4", "b.mp4"])
    copy_of(place.videos / "copy-of-b.mp4", "b.mp4")
    (place.videos / "broken.mp4").write_bytes(b"broken")
    result = place.run(client)
    assert (result.shard.clips, result.shard.duplicates, result.shard.shards) == (6, 2, 1)
    assert result.dedup.removal == "witness"
    return place


@pytest.fixture
def first(begun: Place, tmp_path: Path) -> Place:
    """A copy of the first run."""
    return copied(begun, tmp_path)


@pytest.fixture(scope="module")
def twice(begun: Place, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Place:
    """The second run, over a video more and a copy of one of the first."""
    place = copied(begun, tmp_path_factory.mktemp("second"))
    before = place.shards()
    grow(place)
    result = place.run(client)
    assert (result.shard.clips, result.shard.duplicates, result.shard.kept, result.shard.shards) == (10, 4, 6, 2)
    assert (result.dedup.total, result.dedup.duplicates, result.dedup.kept) == (10, 4, 6)
    assert before.items() <= place.shards().items(), "shards that were shipped are as they were"
    assert sorted(place.shards()) == ["00000.tar", "00001.tar"]
    assert sorted(path.name for path in place.out.iterdir()) == [
        *("_progress.json", "clips", "dataset", "dedup", "dedup-0002", "overlaps", "overlaps-0002", "report.html")
    ]
    text = "\n".join(" ".join(row) for row in result.rows())
    for words in (
        "dedup-0002 4 clips, 2 near-duplicates",
        "near-duplicates at eps 0.505208, witness 4",
        "dedup 6 clips",
    ):
        assert words in text
    return place


def assert_balanced(place: Place) -> None:
    """Assert that every clip is in the dataset or was dropped, and that what was dropped is like one that stays."""
    rows, samples, dropped = read_rows(place.out / "clips").set_index("id"), place.samples(), place.dropped()
    assert sorted([*samples, *dropped.index]) == sorted(rows.index)
    assert set(semdedup.read_duplicates(str(place.out)).compute()["id"]) == set(dropped.index)
    unit = matrix(rows) / np.linalg.norm(matrix(rows), axis=1, keepdims=True)
    vectors = dict(zip(rows.index, unit, strict=True))
    eps = semdedup.load(str(place.out)).eps
    assert eps is not None
    for row_id in dropped.index:
        assert max(np.float32(vectors[row_id] @ vectors[other]) for other in samples) >= least_score(eps) - 1e-6
    for i, one in enumerate(samples):
        for other in samples[:i]:
            assert vectors[one] @ vectors[other] < least_score(eps) + 1e-6


def test_new_clips_are_compared_with_those_of_before(twice: Place) -> None:
    assert_balanced(twice)
    video_of, dropped = twice.video_of(), twice.dropped()
    assert [video_of[row_id] for row_id in dropped.index[-2:]] == ["copy-of-a.mp4"] * 2, "what there was stays"
    for row in dropped.itertuples():
        assert video_of[row.Index][-5:] == video_of[row.max_id][-5:]
    scores = semdedup.read_scores(str(twice.out / "dedup-0002")).compute()
    assert {video_of[row_id] for row_id in scores["id"]} == {"d.mp4", "copy-of-a.mp4"}


def test_the_results_are_read_together(twice: Place, client: distributed.Client) -> None:
    out = str(twice.out)
    found = semdedup.load(out)
    assert (found.total, found.kept, found.duplicates, found.n_quarantined) == (10, 6, 4, 0)
    assert semdedup.load(f"{out}/dedup-0002").total == 4
    assert found.rethreshold(found.eps).duplicates == 4
    assert found.rethreshold(0.0).duplicates == 0
    assert dict(found.remaining([0.0, found.eps])) == {0.0: 1.0, found.eps: 0.6}
    assert found.without_witness() == 0
    assert sum(len(group.dropped) for group in found.groups()) == 4
    assert len(found.borderline(20)) == len(
        [1 for s in semdedup.read_scores(out).compute()["cosine_sim_score"] if s > 0]
    )
    for frame in (semdedup.read_scores(out), semdedup.read_clusters(out)):
        assert sorted(frame.compute()["id"]) == sorted(twice.video_of())
    for row in twice.dropped().itertuples():
        told = found.explain(row.Index)
        assert told.duplicate
        assert told.metadata["video"] == twice.video_of()[row.Index]
        assert told.max_metadata["video"][-5:] == told.metadata["video"][-5:]
    with pytest.raises(InputError, match="no row 'none'"):
        found.explain("none")


def test_the_commands_read_the_results_together(twice: Place, client: distributed.Client, tmp_path: Path) -> None:
    def command(*arguments: Any, on_dask: bool = True) -> Result:
        scheduler = ["--scheduler", str(client.scheduler.address)] * on_dask
        done = CliRunner().invoke(cli.main, [*map(str, arguments), *scheduler, "--quiet"])
        assert done.exit_code == 0, done.output
        return done

    page = tmp_path / "page.html"
    command("report", twice.out, "--output-path", page, on_dask=False)
    assert "4 of 10 clips are near-duplicates" in page.read_text()
    assert "2 dedups together" in page.read_text()
    assert page.read_text().count("data:image/jpeg") > 0, "the clips of the run are found"
    assert "4 of 10 clips are near-duplicates" in (twice.out / "report.html").read_text()

    done = command("extract", twice.out, "--eps", 0.6, "--output-path", tmp_path / "ids")
    found = semdedup.load(str(twice.out)).rethreshold(0.6)
    assert f"{found.duplicates:,} (" in done.output
    ids = semdedup.read_duplicates(str(tmp_path / "ids")).compute()["id"]
    assert len(ids) == found.duplicates
    assert sorted(path.name for path in (tmp_path / "ids").iterdir()) == ["dedup", "dedup-0002"]

    command("shard", "--input-clip-path", twice.out, "--output-dataset-path", tmp_path / "all",
            "--input-semantic-dedup-path", twice.out)  # fmt: skip
    index = pd.read_parquet(tmp_path / "all" / "index.parquet")
    assert sorted(index["id"]) == sorted(twice.samples())
    with tarfile.open(tmp_path / "all" / "00000.tar") as tar:
        meta = json.loads(tar.extractfile(f"{index['key'][0]}.json").read())  # type: ignore[union-attr]
    assert meta["video"] == twice.video_of()[index["id"][0]]
    newest = ShardWorkflow(
        str(twice.out / "clips"), str(tmp_path / "b"), input_semantic_dedup_path=str(twice.out / "dedup-0002"),
        verbose=False,
    ).run(client)  # fmt: skip
    assert (newest.kept, newest.duplicates) == (6, 4), "of an update, its bases are read too"
    by_ids = ShardWorkflow(
        str(twice.out), str(tmp_path / "c"), input_semantic_dedup_path=str(tmp_path / "ids"), verbose=False
    ).run(client)
    assert by_ids.duplicates == found.duplicates
    with pytest.raises(ParameterError, match="semdedup extract"):
        ShardWorkflow(
            str(twice.out), str(tmp_path / "d"), input_semantic_dedup_path=str(twice.out), semantic_dedup_epsilon=0.6
        ).run("tcp://127.0.0.1:1")


def test_a_dry_run_says_what_would_be_made(first: Place, client: distributed.Client) -> None:
    (first.videos / "a.mp4").unlink()
    make_folder(first.videos, NEW)
    before = stamps(first.out)
    done = CliRunner().invoke(cli.main, [*first.command(client), "--dry-run"])
    assert done.exit_code == 0, done.output
    for words in ("d.mp4: 2.00 s", "gone, their clips stay: 1 videos", "dedup or dedup-0002"):
        assert words in done.output
    assert stamps(first.out) == before


def test_new_clips_that_are_far_from_the_centroids_are_told(twice: Place, client: distributed.Client) -> None:
    found = semdedup.load(str(twice.out))
    summary = found.links[-1].base  # type: ignore[attr-defined]
    assert (summary.rows, summary.kept, found.advice) == (6, 4, "")  # type: ignore[attr-defined]
    far = dataclasses.replace(summary, new_mean_distance=3 * summary.mean_distance)
    last = dataclasses.replace(found, metadata={**found.metadata})
    links = [*found.links[:-1], dataclasses.replace(found.links[-1], metadata={"base": far})]  # type: ignore[attr-defined]
    last.metadata["links"] = tuple(links)  # type: ignore[index]
    assert "cluster all anew" in dict(last.rows())["advice"]


def test_a_run_with_nothing_new_does_nothing(twice: Place, client: distributed.Client) -> None:
    before = stamps(twice.out)
    result = twice.run(client)
    assert result.split.processed == 0
    assert result.shard.resumed
    assert result.dedup.duplicates == 4
    after = stamps(twice.out)
    assert {name for name in after if before.get(name) != after[name]} <= {str(twice.out), f"{twice.out}/report.html"}
    assert before.keys() == after.keys()


def test_a_third_run_and_a_video_that_was_deleted(
    twice: Place, client: distributed.Client, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place = copied(twice, tmp_path)
    before = place.shards()
    (place.videos / "a.mp4").unlink()
    copy_of(place.videos / "copy-of-d.mp4", NEW[0])
    make_folder(place.videos, ["e.mp4"])
    result = place.run(client, verbose=True)
    assert "1 videos of earlier runs are gone, their clips stay: a.mp4" in capsys.readouterr().err
    assert result.gone == ("a.mp4",)
    assert (result.shard.clips, result.shard.duplicates, result.shard.shards) == (14, 6, 3)
    assert [(place.out / f"dedup{number}").is_dir() for number in ("", "-0002", "-0003")] == [True] * 3
    assert before.items() <= place.shards().items()
    assert_balanced(place)
    assert "a.mp4" in {place.video_of()[row_id] for row_id in place.samples()}
    assert [link.total for link in semdedup.load(str(place.out)).links] == [6, 4, 4]  # type: ignore[attr-defined]
    tables = json.loads((place.out / "dataset" / "manifest.json").read_bytes())
    assert [shard["name"] for shard in tables["shards"]] == ["00000.tar", "00001.tar", "00002.tar"]
    assert (tables["counts"]["clips"], tables["counts"]["kept"]) == (14, 8)
    assert "8 clips" in (place.out / "dataset" / "README.md").read_text()
    again = place.run(client)
    assert again.gone == ("a.mp4",)
    assert again.shard.resumed


def test_a_video_that_was_deleted_and_no_other_changes_nothing(first: Place, client: distributed.Client) -> None:
    (first.videos / "a.mp4").unlink()
    before = first.shards()
    result = first.run(client)
    assert result.gone == ("a.mp4",)
    assert first.shards() == before
    assert not (first.out / "dedup-0002").exists()
    assert result.shard.clips == 6


@pytest.mark.slow
def test_a_video_that_was_changed_stops_the_run(twice: Place, client: distributed.Client, tmp_path: Path) -> None:
    place = copied(twice, tmp_path)
    make_texture(place.videos / "b.mp4", 77, BRIEF_S)
    before = stamps(place.out)
    with pytest.raises(OutputConflictError, match=r"1 videos were changed .*: b\.mp4\..*--overwrite"):
        place.run(client)
    found = CliRunner().invoke(cli.main, place.command(client))
    assert found.exit_code == 1, found.output
    assert "b.mp4" in found.output
    dry = CliRunner().invoke(cli.main, [*place.command(client), "--dry-run"])
    assert dry.exit_code == 1, dry.output
    assert stamps(place.out) == before
    result = place.run(client, clear_output=True)
    assert sorted(path.name for path in place.out.iterdir()) == [
        "_progress.json",
        "clips",
        "dataset",
        "dedup",
        "overlaps",
        "report.html",
    ]
    assert (result.dedup.total, result.shard.clips) == (10, 10)
    assert_balanced(place)
    fresh = Place(place.videos, tmp_path / "fresh")
    fresh.run(client)
    assert files_below(place.out) == files_below(fresh.out)
    assert compared(place.out / "dedup") == compared(fresh.out / "dedup")
    assert place.samples() == fresh.samples()
    make_folder(place.videos, ["e.mp4"])
    assert place.run(client).shard.shards == result.shard.shards + 1


def test_a_video_in_quarantine_that_is_mended_is_new(first: Place, client: distributed.Client) -> None:
    make_texture(first.videos / "broken.mp4", 5, BRIEF_S)
    result = first.run(client)
    assert result.clean
    assert [link.total for link in result.dedup.links] == [6, 2]  # type: ignore[attr-defined]


DEATHS = {
    "split": Death("semdedup.video.base", "commit", 1),
    "selecting": Death("semdedup.dedup.base.new_rows", "_select", 1, "after"),
    "before the dedup": Death(SemanticDeduplicationWorkflow, "run", 1),
    "comparing": Death(PairwiseStage, "work", 1, "after"),
    "after the dedup": Death("semdedup.dedup.base.new_rows", "forget_selected", 1),
    "report": Death("semdedup.workflow", "write_report", 1),
    "shard": Death(ShardRun, "run", 1, "after"),
    "commit of shards": Death(RUN, "carry_out", 6),
    "after all": Death("semdedup.workflow", "check_balance", 1),
}


@pytest.mark.parametrize(
    "moment",
    [each if each == "comparing" else pytest.param(each, marks=pytest.mark.slow) for each in DEATHS],
)
def test_a_second_run_that_is_killed_goes_on_and_gives_the_same(
    moment: str, first: Place, twice: Place, client: distributed.Client
) -> None:
    before = first.shards()
    place = Place(twice.videos, first.out)  # metadata of clips tell where their videos are
    run_to_death(DEATHS[moment], place.command(client))
    result = place.run(client)
    assert (result.shard.clips, result.shard.duplicates) == (10, 4)
    assert before.items() <= place.shards().items()
    assert files_below(place.out) == files_below(twice.out)
    left, right = compared(place.out), compared(twice.out)
    assert [name for name in left if left[name] != right[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["selecting", "comparing", "after the dedup", "shard", "commit of shards"])
def test_videos_that_come_after_a_kill_are_not_mixed_in(moment: str, first: Place, client: distributed.Client) -> None:
    before = first.shards()
    grow(first)
    run_to_death(DEATHS[moment], first.command(client))
    make_folder(first.videos, ["e.mp4"])
    result = first.run(client)
    assert before.items() <= first.shards().items()
    assert (result.shard.clips, result.shard.duplicates) == (12, 4)
    expected = [6, 6] if moment == "selecting" else [6, 4, 2]
    assert [link.total for link in result.dedup.links] == expected  # type: ignore[attr-defined]
    assert_balanced(first)


@pytest.mark.slow
@pytest.mark.parametrize(
    "death", [Death(PairwiseStage, "work", 1, "after"), Death(ShardRun, "run", 1, "after")], ids=["dedup", "dataset"]
)
def test_videos_that_come_before_the_first_run_is_complete(
    death: Death, client: distributed.Client, tmp_path: Path
) -> None:
    place = Place(tmp_path / "videos", tmp_path / "out")
    place.videos.mkdir()
    make_folder(place.videos, ["a.mp4", "b.mp4"])
    run_to_death(death, place.command(client))
    grow(place)
    result = place.run(client)
    assert (result.shard.clips, result.shard.duplicates) == (8, 2)
    assert (place.out / "dedup-0002").is_dir() == (death.owner is ShardRun), "what is complete is a base"
    assert_balanced(place)


@pytest.mark.slow
def test_readers_pass_over_an_update_that_is_not_complete(first: Place, client: distributed.Client) -> None:
    grow(first)
    run_to_death(DEATHS["comparing"], first.command(client))
    assert semdedup.load(str(first.out)).total == 6
    first.run(client)
    record = Record(Location.of(first.out / "dedup-0002"))
    assert not record.steps["select"]["files"]
    make_folder(first.videos, ["e.mp4"])
    run_to_death(DEATHS["comparing"], first.command(client))
    found = semdedup.load(str(first.out))
    assert found.total == 10
    assert found.paths["unfinished"] == str(first.out / "dedup-0003")


def test_an_earlier_dedup_that_is_damaged_is_named(twice: Place, client: distributed.Client, tmp_path: Path) -> None:
    place = copied(twice, tmp_path)
    next((place.out / "dedup" / "kmeans_results").rglob("*.parquet")).unlink()
    with pytest.raises(OutputConflictError, match=r"centroid=0/part-0\.parquet is missing.*--overwrite"):
        place.run(client)
    with pytest.raises(InputError, match="not as they were written"):
        SemanticDeduplicationWorkflow(
            str(place.out / "clips" / "dct3d_embd_parquet"),
            str(tmp_path / "other"),
            base=str(place.out / "dedup-0002"),
        ).run(client)


@pytest.mark.slow
def test_the_last_dedup_is_made_again_where_it_can_be(twice: Place, client: distributed.Client, tmp_path: Path) -> None:
    place = copied(twice, tmp_path)
    before, tars = compared(place.out), place.shards()
    next((place.out / "dedup-0002" / "kmeans_results").rglob("*.parquet")).unlink()
    result = place.run(client)
    assert result.shard.resumed
    assert compared(place.out) == before
    assert place.shards() == tars
    next((place.out / "dedup-0002" / "kmeans_results").rglob("*.parquet")).unlink()
    make_folder(place.videos, ["e.mp4"])
    with pytest.raises(OutputConflictError, match="clips that came since"):
        place.run(client)


def test_a_dedup_that_was_taken_away_is_missed(twice: Place, client: distributed.Client, tmp_path: Path) -> None:
    place = copied(twice, tmp_path)
    os.rename(place.out / "dedup-0002", place.out / "dedup-0003")
    with pytest.raises(OutputConflictError, match=r"dedup-0002 is not there, and .*dedup-0003 was made after it"):
        place.run(client)
    os.rename(place.out / "dedup", place.out / "dedup-0002")
    with pytest.raises(OutputConflictError, match=r"dedup is not there"):
        place.run(client)
    place.run(client, clear_output=True)
    assert sorted(path.name for path in place.out.iterdir()) == [
        "_progress.json",
        "clips",
        "dataset",
        "dedup",
        "overlaps",
        "report.html",
    ]


def test_clips_that_an_update_withdraws_are_not_in_a_dataset(
    twice: Place, client: distributed.Client, tmp_path: Path
) -> None:
    row = pq.read_table(twice.out / "clips" / "dct3d_embd_parquet").slice(0, 1)
    pq.write_table(row.set_column(0, "id", pa.array(["other"])), tmp_path / "new.parquet")
    gone = twice.samples()[0]
    base = {"base": str(twice.out / "dedup-0002"), "withdraw": [gone]}
    SemanticDeduplicationWorkflow(
        str(tmp_path / "new.parquet"), str(tmp_path / "dedup"), **base, verbose=False
    ).run(client)  # fmt: skip
    found = ShardWorkflow(
        str(twice.out), str(tmp_path / "set"), input_semantic_dedup_path=str(tmp_path / "dedup"), verbose=False
    ).run(client)
    assert (found.kept, found.dropped) == (5, {"duplicate": 4, "withdrawn": 1})
    dropped = pd.read_parquet(tmp_path / "set" / "dropped.parquet").set_index("id")
    assert dropped.loc[gone, "reason"] == "withdrawn"


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"eps": 0.2}, "eps: 0.505"),
        ({"dedup": {"n_clusters": 2}}, "n_clusters: 'auto' there, 2 now"),
        ({"dedup": {"removal": "any"}}, "removal: 'witness' there, 'any' now"),
        ({"dedup": {"which_to_keep": "easy"}}, "ranking"),
    ],
)
def test_other_parameters_are_refused_on_a_folder_that_has_grown(
    parameters: Mapping[str, Any], words: str, first: Place, client: distributed.Client
) -> None:
    make_folder(first.videos, NEW)
    with pytest.raises(OutputConflictError, match=words):
        first.run(client, **parameters)
    assert not (first.out / "dedup-0002").exists()
    for name in ("base", "withdraw"):
        with pytest.raises(ParameterError, match=name):
            first.workflow(dedup={name: "x"})


@pytest.mark.parametrize("rule", [pytest.param("any", marks=pytest.mark.slow), "components"])
def test_each_update_has_the_rule_and_the_eps_of_the_first(
    rule: str, client: distributed.Client, tmp_path: Path
) -> None:
    place = Place(tmp_path / "videos", tmp_path / "out")
    place.videos.mkdir()
    make_folder(place.videos, ["a.mp4", "b.mp4"])
    place.run(client, eps=0.4, dedup={"removal": rule, "n_clusters": 1, "which_to_keep": "random"})
    grow(place)
    given = {"n_clusters": 1}
    result = place.run(client, dedup=given)
    for name in ("dedup", "dedup-0002"):
        steps = json.loads((place.out / name / "_manifest.json").read_text())["steps"]
        assert steps["pairwise"]["parameters"]["ranking"] == {"random_seed": 42}, "what is not given is as it was"
    assert (result.dedup.eps, result.dedup.removal, result.shard.duplicates) == (0.4, rule, 2)
    assert place.run(client, eps=0.4, dedup={**given, "removal": rule}).shard.resumed


@pytest.mark.parametrize(
    "shard",
    [
        pytest.param({"layout": "cosmos"}, marks=pytest.mark.slow),
        {"with_embeddings": True, "shuffle_seed": 7, "samples_per_shard": 3},
    ],
)
def test_a_dataset_of_any_kind_is_continued(
    shard: Mapping[str, Any], client: distributed.Client, tmp_path: Path
) -> None:
    place = Place(tmp_path / "videos", tmp_path / "out")
    place.videos.mkdir()
    make_folder(place.videos, ["a.mp4", "b.mp4"])
    place.run(client, shard=shard)
    before = stamps(place.out / "dataset")
    tars = {name: when for name, when in before.items() if name.endswith(".tar")}
    make_folder(place.videos, ["d.mp4", "e.mp4"])
    result = place.run(client, shard=shard)
    assert tars.items() <= stamps(place.out / "dataset").items()
    assert result.shard.kept == 8
    assert sorted(place.samples()) == sorted(place.video_of())
    manifest = json.loads((place.out / "dataset" / "manifest.json").read_bytes())
    names = [tar["name"] for tar in manifest["shards"]]
    assert len(set(names)) == len(names)
    assert sorted(names) == sorted(name for name in files_below(place.out / "dataset") if name.endswith(".tar"))
    if shard.get("layout") == "cosmos":
        (info,) = (place.out / "dataset").rglob("wdinfo.json")
        told = json.loads(info.read_bytes())
        assert told["data_list"] == ["part_000000/000000.tar", "part_000000/000001.tar"]
        assert (told["data_list_key_count"], told["total_key_count"]) == ([4, 4], 8)
    else:
        index = pd.read_parquet(place.out / "dataset" / "index.parquet")
        assert index["npy_size"].notna().all()
        assert index["shard"].tolist() == ["00000.tar"] * 3 + ["00001.tar"] + ["00002.tar"] * 3 + ["00003.tar"]


def test_a_dataset_is_continued_only_where_nothing_of_it_changed(
    twice: Place, client: distributed.Client, tmp_path: Path
) -> None:
    def shard(place: Place) -> Any:
        return ShardWorkflow(
            str(place.out), str(tmp_path / "dataset"), input_semantic_dedup_path=str(place.out), verbose=False
        ).run(client)

    def shrunk(place: Place) -> Place:
        """What there was before the update."""
        for row_id, video in place.video_of().items():
            if video in ("d.mp4", "copy-of-a.mp4"):
                (place.out / "clips" / "clips" / f"{row_id}.mp4").unlink()
                (place.out / "clips" / "metas" / "v0" / f"{row_id}.json").unlink()
        for name in ("_manifest.json", "_videos.parquet"):
            (place.out / "clips" / name).unlink()
        os.rename(place.out / "dedup-0002", place.out / "later")
        return place

    whole = copied(twice, tmp_path / "whole")
    place = shrunk(copied(twice, tmp_path / "place"))
    assert shard(place).clips == 6
    with pytest.raises(OutputConflictError, match="differ"):
        shard(whole)  # no record of a split there any more: clips are known by their stamps, and metadata
    for name in ("_manifest.json", "_videos.parquet"):
        (whole.out / "clips" / name).unlink()
    meta = next((whole.out / "clips" / "metas" / "v0").glob("*.json"))
    text = meta.read_text()
    meta.write_text(text[:-1] + ', "caption": "a cat"}')
    with pytest.raises(OutputConflictError, match="differ"):
        shard(whole)


class Choosy:
    """A user's embedder to which all clips are the same, but for dim ones, on which it fails while a file is there."""

    def __init__(self, mood: Path) -> None:
        self.mood = mood

    def __call__(self, frames: np.ndarray) -> list[float]:
        if frames.mean() < 30 and self.mood.exists():
            raise ValueError("too dim for me")
        return [1.0, 2.0]


@pytest.mark.slow
def test_a_clip_that_failed_to_be_embedded_waits_in_quarantine_and_is_new_once_it_is(
    client: distributed.Client, tmp_path: Path
) -> None:
    place, mood = Place(tmp_path / "videos", tmp_path / "out"), tmp_path / "mood"
    make_texture(place.videos / "a.mp4", 1)
    make_video(place.videos / "dim.mp4", pictures=(picture // 7 for picture in texture(2, 20)), rate=10)
    split = {**OWN, "embedding_algorithm": Choosy(mood)}
    mood.touch()
    for _ in range(2):
        result = place.run(client, split=split)
        assert not result.clean
        assert result.split.quarantined_clips == {"embed_error": 1}
        assert (result.split.clips, result.dedup.total, result.shard.clips, result.shard.kept) == (3, 2, 2, 1)
        assert result.shard.facts["quarantined"] == 1
        assert ("  in quarantine, embed_error", "1") in result.rows()
        assert "embed_error" in Path(result.report).read_text()
    before = place.shards()
    mood.unlink()
    result = place.run(client, split=split)
    assert result.clean
    assert (result.dedup.total, result.dedup.duplicates, result.shard.clips, result.shard.kept) == (3, 2, 3, 1)
    assert place.shards() == before, "it is like one that stays"


@pytest.mark.slow
def test_a_folder_that_grows_in_an_object_store(
    begun: Place, twice: Place, client: distributed.Client, s3: tuple[str, dict], tmp_path: Path
) -> None:
    bucket, options = s3
    fs = fsspec.filesystem("s3", **options, use_listings_cache=False)
    fs.put(f"{begun.videos}/", f"{bucket}/videos/", recursive=True)

    def run() -> RunResult:
        return VideoDeduplicationWorkflow(
            f"{bucket}/videos",
            f"{bucket}/out",
            split=BRIEF,
            shard={"samples_per_shard": 4},
            storage_options=options,
            verbose=False,
        ).run(client)

    run()
    before = fs.cat_file(f"{bucket}/out/dataset/00000.tar"), fs.info(f"{bucket}/out/dataset/00000.tar")["LastModified"]
    for name in (*NEW, "copy-of-a.mp4"):
        fs.put(str(twice.videos / name), f"{bucket}/videos/{name}")
    result = run()
    assert (result.shard.clips, result.shard.duplicates, result.shard.shards) == (10, 4, 2)
    after = fs.cat_file(f"{bucket}/out/dataset/00000.tar"), fs.info(f"{bucket}/out/dataset/00000.tar")["LastModified"]
    assert before == after
    fs.get(f"{bucket}/out/dataset/index.parquet", str(tmp_path / "index.parquet"))
    assert pd.read_parquet(tmp_path / "index.parquet")["id"].tolist() == twice.samples()
    assert not fs.exists(f"{bucket}/out/dedup-0002/_input")
    assert semdedup.load(f"{bucket}/out", storage_options=options).duplicates == 4
    assert run().shard.resumed
