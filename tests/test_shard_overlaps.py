"""`shard` where clips go by overlap: beside the near-duplicates, or where they are that, too."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import distributed
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from semdedup import InputError, OutputConflictError, ParameterError
from semdedup.cli import main
from tests.helpers import NOWHERE
from tests.shards import (
    ids_in,
    make_clips,
    read_manifest,
    read_samples,
    sharder,
    write_duplicates,
    write_overlap_duplicates,
    write_scores,
)

SCORES = {"a": 0.0, "b": 0.9, "c": 0.9, "d": 0.0, "e": 0.0, "f": 0.9}
BY_OVERLAP = ["c", "d", "gone"]
EITHER, BOTH = {"b": "duplicate", "c": "overlap", "d": "overlap", "f": "duplicate"}, {"c": "overlap"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips, scores of all, by which b, c and f are near-duplicates, and c, d and one that is no clip by overlap."""
    root = tmp_path_factory.mktemp("place")
    make_clips(root / "in", SCORES, metas=False, embeddings=False)
    write_scores(root / "dedup", SCORES, extracted=0.25)
    write_overlap_duplicates(root / "shared", BY_OVERLAP)
    return root


def dropped(out: Path) -> dict[str, str]:
    return {row["id"]: row["reason"] for row in pq.read_table(out / "dropped.parquet").to_pylist()}


@pytest.mark.parametrize(("when", "expected"), [(None, EITHER), ("either", EITHER), ("both", BOTH)])
def test_clips_that_go_by_overlap_go_beside_near_duplicates_or_with_them(
    when: str | None, expected: Mapping[str, str], place: Path, client: distributed.Client, tmp_path: Path
) -> None:
    options = {"input_semantic_dedup_path": place / "dedup", "input_overlaps_path": place / "shared"}
    result = sharder(place / "in", tmp_path / "out", drop_when=when, **options).run(client)
    assert dropped(tmp_path / "out") == expected
    assert ids_in(read_samples(tmp_path / "out")) == [name for name in SCORES if name not in expected]
    n_overlap = list(expected.values()).count("overlap")
    assert (result.clips, result.by_overlap, result.duplicates) == (6, n_overlap, len(expected) - n_overlap)
    assert result.kept + result.duplicates + result.by_overlap == result.clips
    assert ("  dropped, overlap", str(n_overlap)) in result.rows()
    manifest = read_manifest(tmp_path / "out")
    assert manifest["parameters"]["drop_when"] == (when or "either")
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"| dropped, overlap: a better-ranked video shows it, or its own video earlier | {n_overlap} |" in card
    assert ("it is a near-duplicate, too" in card) == (when == "both")
    row = pd.read_parquet(tmp_path / "out" / "dropped.parquet").set_index("id").loc["c"]
    assert (row["score"], row["max_id"]) == (pytest.approx(0.9), "a"), "the score is told beside the reason"
    with pytest.raises(OutputConflictError, match="drop_when"):
        sharder(place / "in", tmp_path / "out", drop_when="either" if when == "both" else "both", **options).run(
            NOWHERE
        )


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("path", ["shared", "shared/overlap_duplicates"])
def test_overlaps_alone_and_with_ids_to_drop(
    path: str, seed: int | None, place: Path, client: distributed.Client, tmp_path: Path
) -> None:
    options = {"input_overlaps_path": place / path, "shuffle_seed": seed}
    result = sharder(place / "in", tmp_path / "out", **options).run(client)
    assert dropped(tmp_path / "out") == {"c": "overlap", "d": "overlap"}
    assert (result.facts["eps"], result.facts["without_score"]) == (None, 0)
    ids = write_duplicates(tmp_path / "ids", ["b", "c"])
    sharder(place / "in", tmp_path / "other", input_semantic_dedup_path=ids, **options).run(client)
    assert dropped(tmp_path / "other") == {"b": "duplicate", "c": "overlap", "d": "overlap"}


def test_a_clip_that_went_by_overlap_before_the_dedup_lacks_no_score(
    place: Path, client: distributed.Client, tmp_path: Path
) -> None:
    write_scores(tmp_path / "dedup", {name: SCORES[name] for name in "abe"}, extracted=0.25)
    options = {"input_semantic_dedup_path": tmp_path / "dedup", "input_overlaps_path": place / "shared"}
    result = sharder(place / "in", tmp_path / "out", **options).run(client)
    assert result.facts["without_score"] == 1, "f"


def run_root(root: Path, drop_when: str) -> Path:
    """What `run` leaves, as far as `shard` reads it: of two generations."""
    make_clips(root / "clips", [*SCORES, "g", "h"], metas=False, embeddings=False)
    write_scores(root / "dedup", {name: SCORES[name] for name in SCORES if name not in "cd"}, extracted=0.25)
    write_overlap_duplicates(root / "overlaps", ["c", "d"], {"drop_when": drop_when})
    write_overlap_duplicates(root / "overlaps-0002", ["h"])
    return root


def test_the_overlaps_of_a_run_are_found_by_themselves(client: distributed.Client, tmp_path: Path) -> None:
    root = run_root(tmp_path / "run", "either")
    expected = {**EITHER, "h": "overlap"}
    for number, (clips, dedup) in enumerate([(root, root), (root / "clips", root / "dedup"), (root, root / "dedup")]):
        out = tmp_path / f"out-{number}"
        sharder(clips, out, input_semantic_dedup_path=dedup).run(client)
        assert dropped(out) == expected
    sharder(root, tmp_path / "all", input_overlaps_path=root).run(client)
    assert dropped(tmp_path / "all") == dict.fromkeys("cdh", "overlap")
    for folder, expected_ids in (("overlaps", "cd"), ("overlaps-0002", "cdh")):
        sharder(root, tmp_path / folder, input_overlaps_path=root / folder).run(client)
        assert dropped(tmp_path / folder) == dict.fromkeys(expected_ids, "overlap")
    arguments = [
        "--input-clip-path",
        root,
        "--output-dataset-path",
        tmp_path / "x",
        "--input-semantic-dedup-path",
        root,
    ]
    done = CliRunner().invoke(main, ["shard", *map(str, arguments), "--dry-run"])
    assert done.exit_code == 0, done.output
    assert "by overlap: those listed in 2 files" in done.output


def test_what_a_run_drops_is_dropped_unless_told_otherwise(client: distributed.Client, tmp_path: Path) -> None:
    root = run_root(tmp_path / "run", "both")
    sharder(root, tmp_path / "both", input_semantic_dedup_path=root).run(client)
    assert dropped(tmp_path / "both") == {}, "c and d have no score, so that they are no near-duplicates"
    sharder(root, tmp_path / "either", input_semantic_dedup_path=root, drop_when="either").run(client)
    assert dropped(tmp_path / "either") == {**EITHER, "h": "overlap"}


def test_clips_that_came_since_and_all_went_by_overlap_are_added_to_the_dataset(
    client: distributed.Client, tmp_path: Path
) -> None:
    root = tmp_path / "run"
    make_clips(root / "clips", SCORES, metas=False, embeddings=False)
    write_scores(root / "dedup", {name: SCORES[name] for name in SCORES if name not in "cd"}, extracted=0.25)
    write_overlap_duplicates(root / "overlaps", ["c", "d"], {"drop_when": "either"})

    def run() -> Any:
        return sharder(root, tmp_path / "out", input_semantic_dedup_path=root).run(client)

    first = run()
    before = (tmp_path / "out" / "00000.tar").stat()
    write_overlap_duplicates(root / "overlaps-0002", ["h"])
    (root / "clips" / "clips" / "h.mp4").write_bytes(b"content")
    result = run()
    assert (result.clips, result.by_overlap, result.kept, result.shards) == (7, 3, first.kept, first.shards)
    assert result.facts["eps"] == 0.25
    assert dropped(tmp_path / "out") == {**EITHER, "h": "overlap"}
    assert (tmp_path / "out" / "00000.tar").stat() == before
    (root / "clips" / "clips" / "i.mp4").write_bytes(b"content")
    with pytest.raises(OutputConflictError, match="differ"):
        run()  # no result is about this clip
    assert sharder(root, tmp_path / "out", input_semantic_dedup_path=root, clear_output=True).run(client).clips == 8


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"input_overlaps_path": "in"}, InputError, r"no tables of clips that go by overlap in .*overlap_duplicates/"),
        ({"input_overlaps_path": "none"}, InputError, "no tables of clips"),
        ({"input_overlaps_path": "shared", "drop_when": "both"}, ParameterError, "--input-semantic-dedup-path"),
        ({"input_semantic_dedup_path": "dedup", "drop_when": "both"}, ParameterError, "--input-overlaps-path"),
        ({"drop_when": "neither"}, ParameterError, "drop_when must be one of either, both"),
    ],
)
def test_overlaps_that_cannot_be_are_refused(
    options: Mapping[str, Any], error: type[Exception], words: str, place: Path, tmp_path: Path
) -> None:
    given = {name: place / value if name.endswith("path") else value for name, value in options.items()}
    with pytest.raises(error, match=words):
        sharder(place / "in", tmp_path / "out", **given).run(NOWHERE)
    assert not (tmp_path / "out").exists()


def test_overlaps_of_other_clips_and_damaged_ones_are_refused(
    place: Path, client: distributed.Client, tmp_path: Path
) -> None:
    other = write_overlap_duplicates(tmp_path / "other", ["x", "y"])
    with pytest.raises(InputError, match=r"none of the 2 clips that go by overlap, of .*other, is in"):
        sharder(place / "in", tmp_path / "out", input_overlaps_path=other).run(client)
    assert not (tmp_path / "out").exists()
    (other / "overlap_duplicates" / "part-0.parquet").unlink()
    with pytest.raises(InputError, match=r"part-0\.parquet is missing"):
        sharder(place / "in", tmp_path / "out", input_overlaps_path=other).run(NOWHERE)
