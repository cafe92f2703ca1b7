"""`shard --keep-if`: what the grammar takes, what is neither true nor false, and that no clip is lost by it."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import distributed
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from semdedup import OutputConflictError, ParameterError, VideoDeduplicationWorkflow
from semdedup.cli import main
from semdedup.shards import join
from semdedup.shards.conditions import holds, parsed
from tests.helpers import contents
from tests.shards import ids_in, make_clips, meta_of, read_manifest, read_samples, score_of, sharder, write_scores
from tests.splits import BRIEF, BRIEF_S, RATE
from tests.videos import make_video, texture

IDS = [f"clip-{i:03d}" for i in range(40)]
MOTION: dict[str, float | None] = {clip_id: i / 10 for i, clip_id in enumerate(IDS)}
MOTION |= {"clip-007": None, "clip-011": None}  # the second has no metadata at all


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips whose motion goes up from 0 in tenths, with scores."""
    root = make_clips(tmp_path_factory.mktemp("clips") / "in", IDS)
    for clip_id in IDS:
        facts = {"motion": MOTION[clip_id], "framerate": 25.0, "low_information": clip_id == "clip-030"}
        (root / "metas" / "v0" / f"{clip_id}.json").write_text(json.dumps({**meta_of(clip_id), **facts}))
    (root / "metas" / "v0" / "clip-011.json").unlink()
    write_scores(root / "dedup", {clip_id: score_of(clip_id) for clip_id in IDS}, extracted=0.25)
    return root


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('true')",
        "motion.real > 1",
        "motion[0] > 1",
        "motion + 1 > 2",
        "(lambda: motion)() > 1",
        "[motion for motion in range(9)]",
        "f'{motion}' == 'a'",
        "motion if height else width",
        "motion in (1, 2)",
        "motion is True",
        "motion > None",
        "motion > 1j",
        "motion > b'a'",
        "1 < 2",
        "motion",
        "'a'",
        "True",
        "motion = 1",
        "motion > 1; height > 2",
        "(motion := 3) > 1",
        "motion >",
        "",
        "\0",
        "(" * 300 + "motion > 1" + ")" * 300,
        "motion > 1 or " * 500 + "motion > 1",
    ],
)
def test_what_is_no_condition_is_refused_and_never_run(clips: Path, tmp_path: Path, text: str) -> None:
    with pytest.raises(ParameterError, match="keep_if"):
        list(sharder(clips, tmp_path / "out", keep_if=text).plan())
    assert not (tmp_path / "out").exists()


def test_conditions_have_three_values() -> None:
    """As truth tables have them: what is not known decides nothing."""

    def combined(found: list[bool | None], decides: bool) -> bool | None:
        return decides if decides in found else None if None in found else not decides

    for a, b in itertools.product((True, False, None), repeat=2):
        facts = {"a": a, "b": b}
        assert holds(parsed("a and b"), facts) is combined([a, b], False)
        assert holds(parsed("a or b"), facts) is combined([a, b], True)
        assert holds(parsed("not a"), facts) is (None if a is None else not a)
    clip = {"motion": 0.5, "height": 480, "width": 640, "video": "a.mp4", "dark": False}
    expected = {
        "motion > 0.1 and (height >= 720 or not dark)": True,
        "0.1 < motion <= 0.5": True,
        "0.1 < motion < 0.5": False,
        "width > height": True,
        "-1 < motion": True,
        "video != 'b, c.mp4' and video == \"a.mp4\"": True,
        "dark == False": True,
        "motion > 'a'": None,
        "motion == True": None,
        "0.6 < motion < other": False,
        "0.4 < motion < other": None,
    }
    assert {text: holds(parsed(text), clip) for text in expected} == expected


def test_clips_that_do_not_satisfy_it_are_listed_with_the_reason(
    clips: Path, inside: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    conditions = ["motion > 0.45 and fps == 25", "not low_information", "1.7 < duration_s <= 1.75"]
    options = {"keep_if": conditions, "input_semantic_dedup_path": clips / "dedup"}
    for name, most in (("a", 1024), ("b", 3)):
        for module in (join, sys.modules["semdedup.shards.write"]):
            monkeypatch.setattr(module, "SAMPLES_AT_A_TIME", most)
        result = sharder(clips, tmp_path / name, **options).run(inside)
    assert contents(tmp_path / "a") == contents(tmp_path / "b")
    duplicates = {clip_id for clip_id in IDS if score_of(clip_id) >= 0.75}
    stays = [i for i in IDS if (MOTION[i] or 0) > 0.45 and i != "clip-030" and i not in duplicates]
    assert ids_in(read_samples(tmp_path / "a")) == stays
    dropped = {row["id"]: row["reason"] for row in pq.read_table(tmp_path / "a" / "dropped.parquet").to_pylist()}
    assert set(dropped) == set(IDS) - set(stays)
    assert {clip_id for clip_id, reason in dropped.items() if reason == "duplicate"} == duplicates
    filtered = {clip_id for clip_id, reason in dropped.items() if reason == "filter"}
    assert result.dropped == {"duplicate": len(duplicates), "filter": len(filtered)}
    assert result.clips == result.kept + len(duplicates) + len(filtered)
    unknown = {"clip-007", "clip-011"} - duplicates
    assert unknown <= filtered
    assert result.facts["filter_unknown"] == len(unknown)
    assert read_manifest(tmp_path / "a")["parameters"]["keep_if"] == conditions
    assert "- Kept if: `motion > 0.45 and fps == 25` and `not low_information`" in (
        tmp_path / "a" / "README.md"
    ).read_text(encoding="utf-8")
    assert sharder(clips, tmp_path / "a", **options).run(inside).resumed
    with pytest.raises(OutputConflictError, match="keep_if: "):
        sharder(clips, tmp_path / "a", **options | {"keep_if": "motion > 0.5"}).run(inside)


def test_a_filter_that_keeps_nothing_gives_an_empty_dataset(
    clips: Path, inside: distributed.Client, tmp_path: Path
) -> None:
    result = sharder(clips, tmp_path / "out", keep_if="motion > 1000").run(inside)
    assert (result.kept, result.shards, result.dropped) == (0, 0, {"filter": len(IDS)})


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "moton > 1",
            "no column 'moton'; the closest is 'motion'. There are duration_s, end_s, fps, framerate,",
        ),
        ("sharpness > 1", "no column 'sharpness'.*split --clip-scores measures it"),
        ("windows > 1", "no column 'windows'"),
        ("motion > 'a'", "motion is a number, and 'a' is text"),
        ("width", "width is a number, and a condition is true or false"),
    ],
)
def test_what_no_clip_can_satisfy_is_refused_with_the_columns(
    clips: Path, tmp_path: Path, text: str, told: str
) -> None:
    with pytest.raises(ParameterError, match=told):
        list(sharder(clips, tmp_path / "out", keep_if=text).plan())


def test_clips_without_metadata_have_no_columns(tmp_path: Path) -> None:
    root = make_clips(tmp_path / "in", IDS[:3], metas=False, embeddings=False)
    with pytest.raises(ParameterError, match="there is nothing to ask of clips: no metadata"):
        list(sharder(root, tmp_path / "out", keep_if="width > 1").plan())


def test_the_flag_is_repeated_and_keeps_its_commas(clips: Path, tmp_path: Path) -> None:
    def plan(*flags: str) -> Any:
        paths = ["--input-clip-path", str(clips), "--output-dataset-path", str(tmp_path / "out")]
        return CliRunner().invoke(main, ["shard", *paths, "--dry-run", *flags])

    found = plan("--keep-if", "motion > 1", "--keep-if", "video != 'a, b'", "height > 2")
    assert found.exit_code != 0
    assert "no column 'height'" in found.output
    found = plan("--keep-if", "motion > 1", "--keep-if", "video != 'a, b'", "width > 2")
    assert found.exit_code == 0, found.output
    assert "kept if: (motion > 1) and (video != 'a, b') and (width > 2)" in found.output


@pytest.mark.slow
def test_a_run_grows_and_loses_no_clip_by_its_filter(client: distributed.Client, tmp_path: Path) -> None:
    """Of videos that move the clips stay, of those that stand they go, whenever they came."""
    source, out = tmp_path / "in", tmp_path / "out"
    options: dict[str, Any] = {"split": {**BRIEF, "clip_scores": "motion"}, "shard": {"keep_if": "motion > 0.1"}}
    for n, names in enumerate((["a", "still-b"], ["c", "still-d"]), start=1):
        for name in names:
            shown = texture(ord(name[-1]), round(BRIEF_S * RATE), rate=RATE, still=name.startswith("still"))
            make_video(source / f"{name}.mp4", pictures=shown, rate=RATE)
        result = VideoDeduplicationWorkflow(str(source), str(out), verbose=False, **options).run(client)
        filtered = result.shard.dropped["filter"]
        assert result.split.clips == 4 * n == result.shard.kept + (result.dedup.duplicates or 0) + filtered
        assert filtered >= n
        assert dict(result.rows())["  by keep_if"] == str(filtered)
        videos = {sample["json"]["video"] for sample in read_samples(out / "dataset")}
        assert videos == {"a.mp4", "c.mp4"} if n == 2 else {"a.mp4"}
