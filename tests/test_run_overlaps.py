"""`semdedup run` where videos share stretches of time: what better ones show goes before the dedup, or with it."""

import itertools
import json
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import distributed
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

import semdedup
from semdedup import (
    InputError,
    OutputConflictError,
    PairwiseStage,
    ParameterError,
    SemanticDeduplicationWorkflow,
    ShardWorkflow,
    cli,
)
from semdedup.dedup.base import new_rows
from semdedup.run_overlaps import Searches
from semdedup.run_result import RunResult
from tests.helpers import files_below, stamps
from tests.runs import Place, compared, copied
from tests.splits import OWN, RATE, Death, read_rows, run_to_death
from tests.videos import make_video, texture

pytestmark = pytest.mark.usefixtures("kept_children")

FIRST = ("a.mp4", "late-a.mp4", "b.mp4", "brief.mp4", "copy-of-brief.mp4")
BRIEF = "brief.mp4"
"""Too short to share a stretch of time with another: its copies are near-duplicates only."""


def show(place: Place, name: str) -> None:
    """Write a video: ``late-x.mp4`` shows what ``x.mp4`` does from second 1 on, where no clip of it begins."""
    of = name.removeprefix("late-").removeprefix("copy-of-").removeprefix("sharp-")
    first, seconds = float(name.startswith("late-")), 2.0 if of == BRIEF else 8.0
    pictures = texture(sum(of.encode()), round(seconds * RATE), rate=RATE)
    crf = "12" if name.startswith("sharp-") else "20" if name == of else "32"
    place.videos.mkdir(exist_ok=True)
    make_video(
        place.videos / name,
        pictures=itertools.islice(pictures, round(first * RATE), None),
        rate=RATE,
        options={"crf": crf},
    )


@pytest.fixture(scope="module")
def first(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Place, RunResult]:
    """The first run: a video and one that shows it from its second 1 on, another, and two near-duplicates of a clip."""
    folder = tmp_path_factory.mktemp("first")
    place = Place(folder / "videos", folder / "out", OWN)
    for name in FIRST:
        show(place, name)
    return place, place.run(client)


@pytest.fixture(scope="module")
def twice(
    first: tuple[Place, RunResult], client: distributed.Client, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Place, RunResult]:
    """The second run, over a copy that is sharper than what it shows, one of the first run, and a near-duplicate."""
    place = copied(first[0], tmp_path_factory.mktemp("second"))
    before = place.shards()
    for name in ("sharp-a.mp4", "c.mp4", "late-c.mp4", "sharp-brief.mp4"):
        show(place, name)
    result = place.run(client)
    assert before.items() <= place.shards().items(), "shards that were shipped are as they were"
    return place, result


def by_overlap(place: Place) -> set[str]:
    """The ids of all clips that go by overlap."""
    return {
        row
        for folder in place.out.glob("overlaps*")
        for row in pq.read_table(folder / "overlap_duplicates")["id"].to_pylist()
    }


def assert_balanced(place: Place, result: RunResult) -> None:
    """Assert that every clip is in the dataset, or was dropped for its reason."""
    rows, dropped, samples = read_rows(place.out / "clips"), place.dropped()["reason"], place.samples()
    assert sorted([*samples, *dropped.index]) == sorted(rows["id"])
    overlaps, duplicates = by_overlap(place), set(semdedup.read_duplicates(str(place.out)).compute()["id"])
    reasons = {reason: set(dropped.index[dropped == reason]) for reason in ("overlap", "duplicate")}
    assert result.overlaps is not None
    if result.overlaps.drop_when == "both":
        assert reasons == {"overlap": overlaps & duplicates, "duplicate": set()}
    else:
        assert reasons == {"overlap": overlaps, "duplicate": duplicates}
        assert len(rows) == result.shard.kept + len(duplicates) + len(overlaps)
    assert (result.overlaps.total, result.dedup.duplicates) == (len(overlaps), len(duplicates))
    assert result.shard.kept == len(samples)


def counts_of(place: Place) -> Mapping[str, int]:
    """How many clips of each video were dropped; of the brief ones all together, for any of them may stay."""
    video_of = place.video_of()
    videos = [video_of[row] for row in place.dropped().index]
    return dict(Counter(BRIEF if video.endswith(BRIEF) else video for video in videos))


def test_what_another_video_shows_goes_before_the_dedup(
    first: tuple[Place, RunResult], client: distributed.Client
) -> None:
    place, result = first
    assert_balanced(place, result)
    assert counts_of(place) == {"late-a.mp4": 4, BRIEF: 1}
    assert (result.shard.clips, result.shard.by_overlap, result.shard.duplicates, result.dedup.total) == (14, 4, 1, 10)
    assert not by_overlap(place) & set(semdedup.read_scores(str(place.out)).compute()["id"]), (
        "the dedup sees the others"
    )
    assert not (place.out / "dedup" / new_rows.FOLDER).exists()
    lines = dict(result.rows())
    assert (lines["  by overlap"], lines["  near-duplicates at eps 0.505208, witness"]) == ("4", "1")
    assert "overlaps seconds" in lines
    page = (place.out / "report.html").read_text()
    assert "<b>4</b><span>clips go by overlap</span>" in page
    before = stamps(place.out)
    again = place.run(client)
    assert again.shard.resumed
    assert_balanced(place, again)
    after = stamps(place.out)
    assert {name for name in after if before.get(name) != after[name]} <= {str(place.out), f"{place.out}/report.html"}


def test_videos_of_before_stay_where_better_ones_come(
    twice: tuple[Place, RunResult], client: distributed.Client
) -> None:
    place, result = twice
    assert_balanced(place, result)
    expected = {"late-a.mp4": 4, "sharp-a.mp4": 4, "late-c.mp4": 4, BRIEF: 2}
    assert counts_of(place) == expected
    lines = dict(result.rows())
    assert (lines["  overlaps"], lines["  overlaps-0002"]) == ("4 clips by overlap", "8 clips by overlap")
    assert lines["  dedup-0002"] == "5 clips, 1 near-duplicates"


def test_those_who_read_a_run_leave_out_what_went_by_overlap(
    twice: tuple[Place, RunResult], client: distributed.Client, tmp_path: Path
) -> None:
    place, _ = twice
    out = str(place.out)
    for number, dedup in enumerate([out, f"{out}/dedup-0002"]):
        options = {"input_semantic_dedup_path": dedup, "verbose": False}
        ShardWorkflow(f"{out}/clips", str(tmp_path / f"set-{number}"), **options).run(client)
        index = pd.read_parquet(tmp_path / f"set-{number}" / "index.parquet")
        assert sorted(index["id"]) == sorted(place.samples())
    found = semdedup.export(out, str(tmp_path / "rows"), format="parquet", verbose=False)
    assert (found.counts["rows"], found.counts["overlap"], found.counts["duplicates"]) == (27, 12, 2)
    assert sorted(pq.read_table(tmp_path / "rows" / "part-00000.parquet")["id"].to_pylist()) == sorted(place.samples())
    dropped, video_of = place.dropped(), place.video_of()
    clip = next(row for row in dropped.index if video_of[row] == "late-a.mp4")
    for path in (out, f"{out}/dedup"):
        done = CliRunner().invoke(cli.main, ["explain", path, clip])
        assert done.exit_code == 0, done.output
        assert f"{clip} goes by overlap: a.mp4 shows it from " in done.output
    other = dropped.index[dropped["reason"] == "duplicate"][0]
    done = CliRunner().invoke(cli.main, ["explain", out, other])
    assert "by overlap" not in done.output
    assert "goes for the sake of" in done.output


@pytest.mark.slow
def test_new_videos_of_which_nothing_remains_are_added_as_dropped(
    twice: tuple[Place, RunResult], client: distributed.Client, tmp_path: Path
) -> None:
    place = copied(twice[0], tmp_path)
    before = place.shards()
    show(place, "copy-of-b.mp4")
    result = place.run(client)
    assert_balanced(place, result)
    assert place.shards() == before
    assert counts_of(place)["copy-of-b.mp4"] == 4
    assert (place.out / "overlaps-0003").exists()
    assert not (place.out / "dedup-0003").exists()
    assert place.run(client).shard.resumed
    show(place, "d.mp4")
    result = place.run(client)
    assert_balanced(place, result)
    assert [link.total for link in result.dedup.links] == [10, 5, 4]  # type: ignore[attr-defined]


@pytest.mark.slow
def test_with_both_those_go_that_are_near_duplicates_too(client: distributed.Client, tmp_path: Path) -> None:
    place = Place(tmp_path / "videos", tmp_path / "out", OWN)
    for name in (*FIRST, "copy-of-b.mp4"):
        show(place, name)
    ranking = {"metadata_cols": ["bitrate"], "ascending": [False]}
    told = {"video_dir": str(place.videos), "output_path": str(place.out), "split": OWN, "run": {"drop_when": "both"}}
    told |= {"overlaps": {"min_overlap": 0.9, "mirror": True}, "dedup": {"ranking_strategy": ranking}}
    (tmp_path / "run.yaml").write_text(json.dumps(told))
    scheduler = ["--scheduler", str(client.scheduler.address), "--quiet"]
    command = ["run", "--config", str(tmp_path / "run.yaml"), "--min-overlap", "0.75", *scheduler]
    done = CliRunner().invoke(cli.main, command)
    assert done.exit_code == 0, done.output
    assert "both, dropped" in done.output
    steps = json.loads((place.out / "overlaps" / "_manifest.json").read_bytes())["steps"]
    assert steps["overlaps"]["parameters"] == {"min_overlap": 0.75, "mirror": True, "base": None}
    given = {"dedup": told["dedup"], "shard": {}}
    with pytest.raises(OutputConflictError, match="drop_when: 'both' there, 'either' now"):
        place.run(client, drop_when="either", **given)
    with pytest.raises(OutputConflictError, match=r"min_overlap: 0\.75 there, 0\.9 now"):
        place.run(client, overlaps={"min_overlap": 0.9}, **given)
    show(place, "sharp-b.mp4")
    done = CliRunner().invoke(cli.main, [*command, "--dry-run"])
    assert "overlaps or " in done.output
    assert "clips go where they go by overlap and are near-duplicates" in done.output
    result = place.run(client, **given)  # what is not said again is as it was
    assert_balanced(place, result)
    assert result.dedup.total == result.shard.clips == 22
    counts = counts_of(place)
    assert (counts["copy-of-b.mp4"], counts["sharp-b.mp4"]) == (4, 4)
    assert BRIEF not in counts
    lines = dict(result.rows())
    assert lines["  both, dropped"] == str(len(place.dropped()))
    assert int(lines["  near-duplicates at eps 0.505208, witness"]) > result.shard.by_overlap
    options = {"input_semantic_dedup_path": str(place.out), "verbose": False}
    ShardWorkflow(str(place.out), str(tmp_path / "set"), **options).run(client)
    assert len(pd.read_parquet(tmp_path / "set" / "index.parquet")) == result.shard.kept


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"overlaps": {"base": "x"}}, "overlaps has no parameter 'base' here; it has min_overlap, mirror"),
        ({"overlaps": {"min_overlap": 2}}, "min_overlap must"),
        ({"shard": {"drop_when": "both"}}, "shard has no parameter 'drop_when' here"),
        ({"drop_when": "neither"}, "drop_when must be one of either, both"),
    ],
)
def test_what_cannot_be_asked_for_is_refused(given: Mapping[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=words):
        Place(tmp_path, tmp_path / "out").workflow(**given)


DEATHS = {
    "overlaps": Death("semdedup.overlaps.search", "join_tracks", 1, "after"),
    "before the note": Death(Searches, "_note_drop_when", 1),
    "selecting": Death("semdedup.dedup.base.new_rows", "_select", 1, "after"),
    "before the dedup": Death(SemanticDeduplicationWorkflow, "run", 1),
    "comparing": Death(PairwiseStage, "work", 1, "after"),
    "after the dedup": Death("semdedup.dedup.base.new_rows", "forget_selected", 1),
}


@pytest.mark.parametrize(
    "moment", [each if each == "comparing" else pytest.param(each, marks=pytest.mark.slow) for each in DEATHS]
)
@pytest.mark.parametrize("grown", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_run_that_is_killed_goes_on_and_gives_the_same(
    moment: str,
    grown: bool,
    first: tuple[Place, RunResult],
    twice: tuple[Place, RunResult],
    client: distributed.Client,
    tmp_path: Path,
) -> None:
    expected = twice[0] if grown else first[0]
    place = Place(expected.videos, tmp_path / "out", OWN)  # metadata of clips tell where their videos are
    if grown:
        shutil.copytree(first[0].out, place.out, copy_function=shutil.copy2)
    run_to_death(DEATHS[moment], place.command(client))
    assert_balanced(place, place.run(client))
    assert files_below(place.out) == files_below(expected.out)
    left, right = compared(place.out), compared(expected.out)
    assert [name for name in left if left[name] != right[name]] == []


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["overlaps", "before the note", "selecting", "comparing"])
def test_videos_that_come_after_a_kill(
    moment: str, first: tuple[Place, RunResult], client: distributed.Client, tmp_path: Path
) -> None:
    place = Place(tmp_path / "videos", tmp_path / "out", OWN)
    shutil.copytree(first[0].videos, place.videos, copy_function=shutil.copy2)
    run_to_death(DEATHS[moment], place.command(client))
    for name in ("sharp-a.mp4", "c.mp4"):
        show(place, name)
    result = place.run(client)
    assert_balanced(place, result)
    assert (place.out / "overlaps-0002").exists() == (moment != "overlaps")


def unlink(place: Place, folder: str) -> None:
    """Take a table of clips that go by overlap away."""
    next((place.out / folder / "overlap_duplicates").glob("*.parquet")).unlink()


def test_overlaps_that_are_damaged_or_taken_away(
    twice: tuple[Place, RunResult], client: distributed.Client, tmp_path: Path
) -> None:
    place = copied(twice[0], tmp_path)
    kept = compared(place.out)
    unlink(place, "overlaps-0002")
    with pytest.raises(InputError, match="is missing"):
        ShardWorkflow(
            str(place.out), str(tmp_path / "set"), input_semantic_dedup_path=str(place.out), verbose=False
        ).run("tcp://127.0.0.1:1")
    assert place.run(client).shard.resumed
    assert compared(place.out) == kept, "the last one is made again"
    unlink(place, "overlaps")
    with pytest.raises(OutputConflictError, match=r"part-\d+\.parquet is missing.*--overwrite"):
        place.run(client)
    shutil.rmtree(place.out / "overlaps")
    with pytest.raises(OutputConflictError, match=r"overlaps is not there, and .*overlaps-0002 was made after it"):
        place.run(client)
    shutil.rmtree(place.out / "overlaps-0002")
    with pytest.raises(OutputConflictError, match="other clips went by overlap"):
        place.run(client)


@pytest.mark.slow
def test_a_run_that_compared_all_clips_without_overlaps_goes_on_so(
    client: distributed.Client, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    place = Place(tmp_path / "videos", tmp_path / "out", OWN)
    for name in ("a.mp4", "b.mp4"):
        show(place, name)
    place.run(client)
    shutil.rmtree(place.out / "overlaps")
    shutil.rmtree(place.out / "dataset")
    show(place, "late-a.mp4")
    with pytest.raises(OutputConflictError, match=r"made without overlaps.*--overwrite"):
        place.run(client, drop_when="both")
    result = place.run(client, verbose=True)
    assert "overlaps: none are looked for" in capsys.readouterr().err
    assert result.overlaps is None
    assert result.shard.by_overlap == 0
    assert result.shard.clips == result.dedup.total == 12
    result = place.run(client, clear_output=True)
    assert_balanced(place, result)
    assert counts_of(place) == {"late-a.mp4": 4}
