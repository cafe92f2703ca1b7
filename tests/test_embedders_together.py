"""Several embedders in one run: what each alone would write, and what `run` and `shard` make of their results."""

import itertools
import json
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import (
    InputError,
    OutputConflictError,
    ParameterError,
    SemanticDeduplicationWorkflow,
    ShardWorkflow,
    VideoSplitWorkflow,
)
from semdedup.run_dedups import RunDedups
from semdedup.run_result import RunResult
from tests.helpers import contents
from tests.runs import Place, copied
from tests.splits import OWN, RATE, assert_same_result, embedder, matrix, read_rows, read_videos, splitter
from tests.videos import make_video, texture

pytestmark = pytest.mark.usefixtures("kept_children")

NOWHERE = "tcp://127.0.0.1:1"
FOLDERS = ("dct3d_embd_parquet", "tone_embd_parquet")

VIDEOS = {
    "a.mp4": (1, 1, 12),
    "copy-of-a.mp4": (1, 1, 32),
    "dim-a.mp4": (1, 2, 30),
    "b.mp4": (2, 3, 20),
    "c.mp4": (3, 3, 30),
}
"""What a video shows, by which dct3d knows it; how dim it is, by which `Tone` does; how hard it is compressed."""

LATER = {"copy-of-b.mp4": (2, 3, 35), "dim-b.mp4": (2, 2, 30), "dark.mp4": (8, 8, 20), "new.mp4": (9, 3, 30)}

FEW = {"a.mp4": (1, 1, 12), "b.mp4": (2, 3, 20), "dark.mp4": (4, 8, 20)}


class Tone:
    """A user's embedder to which clips are the same that are as bright; it fails on dark ones while a file is there."""

    name, n_frames, frame_size, recommended_eps = "tone", 5, (12, 16), 0.25

    def __init__(self, mood: Path) -> None:
        self.mood = mood

    def __call__(self, frames: np.ndarray) -> np.ndarray:
        mean = float(frames.mean())
        if mean < 25 and self.mood.exists():
            raise ValueError("too dark for me")
        return np.eye(4)[int(np.searchsorted([25, 50, 90], mean))]


def show(folder: Path, name: str, of: tuple[int, int, int]) -> None:
    """Write a video of one clip."""
    seed, dim, crf = of
    folder.mkdir(exist_ok=True)
    pictures = (picture // dim for picture in texture(seed, 2 * RATE, (64, 48), RATE))
    make_video(folder / name, pictures=pictures, rate=RATE, options={"crf": str(crf)})


@pytest.fixture(scope="module")
def mood(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mood") / "bad"


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos") / "in"
    for name, of in VIDEOS.items():
        show(folder, name, of)
    return folder


# Splitting and embedding


def test_one_that_fails_on_a_clip_costs_the_other_nothing(
    client: distributed.Client, mood: Path, tmp_path: Path
) -> None:
    for name, of in FEW.items():
        show(tmp_path / "in", name, of)
    mood.touch()
    result = splitter(tmp_path / "in", tmp_path / "out", embedding_algorithm=[Tone(mood), "dct3d"]).run(client)
    mood.unlink()
    assert result.processed == 3
    assert (result.clips, result.embedded, result.quarantined_clips) == (3, 2, {"embed_error": 1})
    assert result.counts.by_folder == dict(zip(FOLDERS, (3, 2), strict=True))
    assert dict(result.rows())["    tone_embd_parquet"] == "2"
    (fault,) = pq.read_table(tmp_path / "out" / "_quarantine" / "clips.parquet").to_pylist()
    assert "Tone failed on frames" in fault["detail"]
    rows = [read_rows(tmp_path / "out", folder) for folder in FOLDERS]
    assert set(rows[0]["id"]) - set(rows[1]["id"]) == {fault["id"]}
    summary = json.loads((tmp_path / "out" / "summary.json").read_bytes())
    assert summary["embedding_algorithm"] == ["dct3d", "tone"]
    assert summary["num_clips_with_embeddings_by_folder"] == dict(zip(FOLDERS, (3, 2), strict=True))
    for folder, eps in zip(FOLDERS, (b"0.5052083333333334", b"0.25"), strict=True):
        told = pq.read_schema(tmp_path / "out" / folder / "part-00000.parquet").metadata
        assert (told[b"semdedup.embedder"].decode() in folder, told[b"semdedup.recommended_eps"]) == (True, eps)
    with pytest.raises(OutputConflictError, match=r"embedding_algorithm: \['dct3d', 'tone'\] there, 'dct3d' now"):
        splitter(tmp_path / "in", tmp_path / "out").run(NOWHERE)
    with pytest.raises(InputError, match="several embedders: dct3d_embd_parquet, tone_embd_parquet; name one"):
        SemanticDeduplicationWorkflow(str(tmp_path / "out"), str(tmp_path / "dedup"), eps=0.1).run(NOWHERE)


@pytest.mark.slow
def test_runs_that_are_killed_or_find_new_videos_or_lost_files_give_what_one_run_gives_and_each_embedder_alone(
    client: distributed.Client, mood: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, tone = tmp_path / "in", Tone(mood)
    for name, of in FEW.items():
        show(source, name, of)
    orders: list[list[Any]] = [[tone, "dct3d"], ["dct3d", tone]]
    runs = [splitter(source, tmp_path / "out", embedding_algorithm=order) for order in orders]
    mood.touch()
    with monkeypatch.context() as patch:
        patch.setattr("semdedup.video.base.commit", lambda *_: 1 / 0)  # as if it had been killed there
        with pytest.raises(ZeroDivisionError):
            runs[0].run(client)
    assert runs[1].run(client).quarantined_clips == {"embed_error": 1}
    mood.unlink()
    assert [runs[0].run(client).processed, runs[0].run(NOWHERE).processed] == [1, 0], "only the dark one is done again"
    show(source, "late.mp4", (6, 1, 20))
    assert runs[1].run(client).clean
    videos_of = read_videos(tmp_path / "out")
    assert videos_of["n_rows"].tolist() == videos_of["n_rows_tone_embd_parquet"].tolist() == [1] * 4
    splitter(source, tmp_path / "fresh", embedding_algorithm=[tone, "dct3d"]).run(client)
    assert_same_result(tmp_path / "out", tmp_path / "fresh")
    (lost,) = (tmp_path / "out" / FOLDERS[1]).iterdir()
    lost.unlink()
    assert runs[0].run(client).processed == 4
    assert_same_result(tmp_path / "out", tmp_path / "fresh")

    for folder, one in zip(FOLDERS, ("dct3d", tone), strict=True):
        splitter(source, tmp_path / folder, embedding_algorithm=one, upload_clips=False).run(client)
        pd.testing.assert_frame_equal(read_rows(tmp_path / "out", folder), read_rows(tmp_path / folder, folder))
    again = embedder(tmp_path / "out", tmp_path / "again", embedding_algorithm=["dct3d", tone])
    assert again.run(client).counts.by_folder == dict.fromkeys(FOLDERS, 4)
    for folder in FOLDERS:
        left, right = (read_rows(tmp_path / out, folder).set_index("id").sort_index() for out in ("out", "again"))
        np.testing.assert_array_equal(matrix(left) @ matrix(left).T > 0.5, matrix(right) @ matrix(right).T > 0.5)
        assert left["video"].equals(right["video"])
    assert again.run(NOWHERE).processed == 0


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"embedding_algorithm": ["dct3d", "dct3d"]}, "two embedders that would write to dct3d_embd_parquet"),
        ({"embedding_algorithm": [np.mean, np.sum]}, "two embedders that would write to custom_embd_parquet"),
        ({"embedding_algorithm": []}, "embedding_algorithm must be one of the embedders or several"),
        ({"embedding_algorithm": ["dct3d", 3]}, "embedding_algorithm must be one of the embedders or several"),
        ({"embedding_algorithm": ["dct3d", "resnet"]}, "embedding_algorithm must be one of .*'resnet'"),
        ({"embedding_algorithm": ["hf", "dct3d"], "model_dir": ["a", "b"]}, r"got 2 for 1 \(hf\)"),
    ],
)
def test_embedders_that_do_not_go_together_are_refused_at_once(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        VideoSplitWorkflow("in", "out", **given)


# The whole way


@pytest.fixture(scope="module")
def place(videos: Path, mood: Path, tmp_path_factory: pytest.TempPathFactory) -> Place:
    split = {**OWN, "embedding_algorithm": [Tone(mood), "dct3d"]}
    return Place(videos, tmp_path_factory.mktemp("run") / "out", split)


@pytest.fixture(scope="module")
def first(place: Place, client: distributed.Client) -> RunResult:
    return place.run(client)


def gone(place: Place) -> set[str]:
    """Videos whose clip is not in the dataset, after checking that every clip is there or was dropped."""
    video_of, dropped = place.video_of(), place.dropped()
    assert sorted([*place.samples(), *dropped.index]) == sorted(video_of)
    return {video_of[clip] for clip in dropped.index}


def test_near_duplicates_by_either_go_and_are_not_compared_again(
    place: Place, first: RunResult, client: distributed.Client, tmp_path: Path
) -> None:
    assert gone(place) == {"copy-of-a.mp4", "dim-a.mp4", "c.mp4"}
    assert {name: (dedup.total, dedup.duplicates) for name, dedup in first.dedups.items()} == {
        "dct3d": (5, 2),
        "tone": (3, 1),
    }
    assert (first.shard.kept, first.shard.duplicates) == (2, 3)
    assert first.shard.by_embedder == {"dct3d": 2, "tone": 1}
    lines = dict(first.rows())
    assert lines["  near-duplicates by tone at eps 0.25, witness"] == "1"
    assert lines["  near-duplicates by either, dropped"] == "3"
    assert sorted(path.name for path in place.out.glob("*") if path.name[0] != "_") == [
        *("clips", "dataset", "dedup_dct3d", "dedup_tone", "overlaps", "report_dct3d.html", "report_tone.html")
    ]
    reasons = place.dropped()
    by_tone = reasons.loc[[clip for clip, video in place.video_of().items() if video == "c.mp4"]].iloc[0]
    assert (by_tone["score"], place.video_of()[by_tone["max_id"]]) == (1.0, "b.mp4")
    card = (place.out / "dataset" / "README.md").read_text()
    assert "by one of several embedders: by dct3d where" in card
    before = contents(place.out)
    assert place.run(client).shard.resumed
    assert {name for name, content in contents(place.out).items() if before.get(name) != content} <= {"_progress.json"}


def test_those_who_read_such_a_run_take_one_embedder_or_all(
    place: Place, first: RunResult, client: distributed.Client, tmp_path: Path
) -> None:
    out = str(place.out)
    for read in (semdedup.load, semdedup.write_report, lambda path: semdedup.export(path, str(tmp_path / "rows"))):
        with pytest.raises(InputError, match="several embedders: dedup_dct3d, dedup_tone; name one of"):
            read(out)
    assert semdedup.load(f"{out}/dedup_tone").duplicates == 1
    for number, (options, kept) in enumerate([({}, 2), ({"duplicate_when": "both"}, 5)]):
        found = ShardWorkflow(out, str(tmp_path / f"{number}"), verbose=False, **options).run(client)
        assert found.kept == kept, "of those that one has dropped the other has no score"
    one = ShardWorkflow(out, str(tmp_path / "one"), input_semantic_dedup_path=f"{out}/dedup_dct3d", verbose=False).run(
        client
    )
    assert (one.kept, one.duplicates) == (3, 2)


@pytest.mark.slow
def test_new_videos_and_clips_that_an_embedder_failed_on_at_first(
    place: Place,
    first: RunResult,
    client: distributed.Client,
    mood: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    later = copied(place, tmp_path)
    shards = later.shards()
    for name, of in {
        "copy-of-b.mp4": (2, 3, 35),
        "dim-b.mp4": (2, 2, 30),
        "dark.mp4": (8, 8, 20),
        "new.mp4": (9, 3, 30),
    }.items():
        show(later.videos, name, of)
    mood.touch()
    made = itertools.count()
    real = RunDedups._eps

    def killed(self: RunDedups, *given: Any) -> Any:
        if next(made) == 1:
            raise ZeroDivisionError  # as if it had been killed between the dedups of the embedders
        return real(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(RunDedups, "_eps", killed)
        with pytest.raises(ZeroDivisionError):
            later.run(client)
    result = later.run(client)
    mood.unlink()
    assert not result.clean
    assert gone_of(later) == {"copy-of-a.mp4", "dim-a.mp4", "c.mp4", "copy-of-b.mp4", "dim-b.mp4", "new.mp4"}
    assert (result.split.clips, result.split.embedded, result.shard.clips, result.shard.kept) == (9, 8, 8, 2)
    assert result.shard.facts["quarantined"] == 1
    assert [dedup.total for dedup in result.dedups.values()] == [8, 4]
    healed = later.run(client)
    assert healed.clean
    assert (healed.shard.clips, healed.shard.kept) == (9, 3)
    assert [dedup.total for dedup in healed.dedups.values()] == [9, 5]
    assert shards.items() <= later.shards().items(), "what was shipped stays as it was"
    assert healed.shard.by_embedder == {"dct3d": 4, "tone": 2}


def gone_of(place: Place) -> set[str]:
    video_of = place.video_of()
    return {video_of[clip] for clip in place.dropped().index}


@pytest.mark.slow
def test_with_both_those_go_that_are_so_by_each(place: Place, client: distributed.Client, tmp_path: Path) -> None:
    both = Place(place.videos, tmp_path / "out", place.split)
    result = both.run(client, duplicate_when="both")
    assert gone(both) == {"copy-of-a.mp4"}
    assert [(dedup.total, dedup.duplicates) for dedup in result.dedups.values()] == [(5, 2), (5, 2)]
    assert (result.shard.kept, result.shard.duplicates) == (4, 1)
    with pytest.raises(OutputConflictError, match="duplicate_when: 'both' there, 'either' now"):
        both.run(client, duplicate_when="either")
    assert both.run(client).shard.resumed, "what is not said again is as it was"
    either = both.run(client, duplicate_when="either", clear_output=True)
    assert either.shard.kept == 2
    alone = both.run(client, split={**OWN}, clear_output=True)
    assert alone.shard.kept == 3
    assert not list(both.out.glob("dedup_*")), "those of other embedders are gone"
