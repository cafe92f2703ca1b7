"""Steps on clips: one that is new goes all the way without a change elsewhere, and how clips pass through several."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow.parquet as pq
import pytest

from semdedup import ParameterError
from semdedup.video.quarantine import ClipFault
from semdedup.video.steps.chain import Clip, StepChain, set_other_lengths_aside
from semdedup.video.steps.protocol import ClipInput, Sampling, StepResult, StepSpec, Wants
from semdedup.video.steps.table import STEPS
from semdedup.video.tally import MOST_FAILED, Tally
from semdedup.video.video_rows import VideoRows
from tests.splits import embedder, make_folder, make_texture, read_metas, read_rows, splitter
from tests.videos import flat, make_video


class Brightness:
    """Mean brightness of a clip: a fact with a column. It looks at frames of its own."""

    name = "brightness"
    wants = Wants(frames=Sampling(4, (16, 16), 16), sound_hz=8000)
    batch_size = 3
    facts: Mapping[str, str] = {"brightness": "double", "loudness": ""}
    counted = ()

    def __init__(self, least: float = 0.0) -> None:
        self.least = least

    def identity(self) -> Mapping[str, Any]:
        return {"least": self.least}

    def load(self) -> "Brightness":
        return self

    def __call__(self, clips: Sequence[ClipInput]) -> list[StepResult]:
        found = []
        for clip in clips:
            assert clip.frames is not None
            assert clip.sound is not None
            assert clip.frames.shape == (4, 16, 16, 3)
            mean = float(clip.frames.mean())
            loudness = float(np.abs(clip.sound).mean()) if len(clip.sound) else None
            found.append(
                StepResult({"brightness": mean, "loudness": loudness}, rejected="" if mean >= self.least else "dark")
            )
        return found


def add(monkeypatch: pytest.MonkeyPatch, step: StepSpec) -> None:
    monkeypatch.setitem(STEPS, step.name, step)


def test_a_new_step_gives_a_fact_in_the_metadata_and_a_column(
    tmp_path: Path, client: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "in", ["a.mp4", "b.mp4"])
    splitter(tmp_path / "in", tmp_path / "plain").run(client)
    add(monkeypatch, Brightness())
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert result.clips == 4
    rows, metas = read_rows(tmp_path / "out"), read_metas(tmp_path / "out")
    assert len(metas) == len(rows) == 4
    for row in rows.itertuples():
        meta = metas[row.id]
        assert meta["brightness"] == row.brightness
        assert 20 < row.brightness < 235
        assert meta["loudness"] is None, "there is no sound"
    assert "loudness" not in rows.columns
    others = read_rows(tmp_path / "plain")
    np.testing.assert_array_equal(np.stack(rows["embedding"]), np.stack(others["embedding"]))
    assert rows[others.columns].drop(columns="embedding").equals(others.drop(columns="embedding"))
    parameters = json.loads((tmp_path / "out" / "_manifest.json").read_bytes())["steps"]["split"]["parameters"]
    assert parameters["brightness_least"] == 0.0


def test_a_step_hears_the_sound_of_its_clip(
    tmp_path: Path, client: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_video(tmp_path / "in" / "a.mp4", 40, rate=10, audio="aac", beeps_s=(0.5, 2.5))
    add(monkeypatch, Brightness())
    splitter(tmp_path / "in", tmp_path / "out").run(client)
    metas = read_metas(tmp_path / "out")
    assert len(metas) == 2
    assert all(meta["loudness"] > 0.001 for meta in metas.values())


def test_a_clip_that_a_step_rejects_is_recorded_and_not_written(
    tmp_path: Path, client: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_texture(tmp_path / "in" / "bright.mp4", 1)
    make_video(tmp_path / "in" / "dark.mp4", pictures=flat(40, (64, 48)), rate=10)
    add(monkeypatch, Brightness(least=20.0))
    result = splitter(tmp_path / "in", tmp_path / "out").run(client)
    assert result.clips == result.embedded == 2
    assert set(read_rows(tmp_path / "out")["video"]) == {"bright.mp4"}
    assert len(list((tmp_path / "out" / "clips").iterdir())) == len(read_metas(tmp_path / "out")) == 2
    chunk = json.loads((tmp_path / "out" / "processed_clip_chunks" / "dark.mp4_0.json").read_bytes())
    assert len(chunk["filtered_clips"]) == 2
    assert chunk["clips"] == []
    video = json.loads((tmp_path / "out" / "processed_videos" / "dark.mp4.json").read_bytes())
    assert video["num_total_clips"] == 2


def test_steps_run_without_an_embedder_and_for_clips_that_exist(
    tmp_path: Path, client: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_folder(tmp_path / "in", ["a.mp4"])
    add(monkeypatch, Brightness())
    splitter(tmp_path / "in", tmp_path / "out", generate_embeddings=False).run(client)
    metas = read_metas(tmp_path / "out")
    assert all(meta["brightness"] > 20 for meta in metas.values())
    embedder(tmp_path / "out").run(client)
    rows = read_rows(tmp_path / "out").set_index("id")
    assert set(rows.index) == set(metas)
    assert (rows["brightness"] > 20).all()


class Recorder:
    """A step that notes the batches that it gets, and rejects some clips."""

    name = "recorder"

    def __init__(self, batch_size: int, wants: Wants = Wants(), reject: Sequence[int] = ()) -> None:  # noqa: B008
        self.batch_size, self.wants, self.reject = batch_size, wants, reject
        self.batches: list[list[int]] = []

    def __call__(self, clips: Sequence[ClipInput]) -> list[StepResult]:
        self.batches.append([clip.facts["n"] for clip in clips])
        return [StepResult(rejected="no" if clip.facts["n"] in self.reject else "") for clip in clips]


def test_clips_pass_through_steps_in_order_and_in_batches() -> None:
    first, second = Recorder(1, reject=[1, 4]), Recorder(3)
    chain = StepChain([first, second])
    clips = [Clip({"n": n}) for n in range(7)]
    for clip in clips:
        chain.add(clip)
    chain.finish()
    assert first.batches == [[n] for n in range(7)]
    assert second.batches == [[0, 2, 3], [5, 6]]
    assert [clip.facts["n"] for clip in clips if clip.rejected] == [1, 4]


def test_what_steps_want_is_asked_for_once_and_any_frames_are_those_of_another() -> None:
    sampling = Sampling(2, None, 8)
    wants = [Wants("any"), Wants(sampling), Wants(sampling, sound_hz=100), Wants(sound_hz=100)]
    chain = StepChain([Recorder(1, want) for want in wants])
    assert chain.wanted.samplings == (sampling,)
    assert chain.wanted.sound_rates_hz == (100,)
    alone = Recorder(1, Wants("any"))
    chain = StepChain([alone])
    chain.add(Clip({"n": 0}))
    chain.finish()
    assert alone.batches == [], "nobody asks for frames"


def test_a_step_must_give_one_result_for_each_clip() -> None:
    class Short(Recorder):
        def __call__(self, clips: Sequence[ClipInput]) -> list[StepResult]:
            return []

    chain = StepChain([Short(1)])
    with pytest.raises(ParameterError, match="0 results for 1 clips"):
        chain.add(Clip({"n": 0}))


class Failing(Recorder):
    """A step that fails on some clips, and says so of the batch that they are in."""

    def __call__(self, clips: Sequence[ClipInput]) -> list[StepResult]:
        super().__call__(clips)
        for clip in clips:
            if clip.facts["n"] in self.reject:
                raise ClipFault("embed_error", f"no {clip.facts['n']}")
        return [StepResult({"seen": True}) for _ in clips]


def test_a_step_that_fails_on_clips_costs_each_of_them_its_result_and_nothing_else() -> None:
    failing, last = Failing(4, reject=[1, 6]), Recorder(1)
    chain, clips = StepChain([failing, last]), [Clip({"n": n}) for n in range(7)]
    for clip in clips:
        chain.add(clip)
    chain.finish()
    assert failing.batches == [[0, 1, 2, 3], [0], [1], [2], [3], [4, 5, 6], [4], [5], [6]]
    assert {clip.facts["n"]: clip.faults for clip in clips if clip.faults} == {
        1: [("embed_error", "no 1", "recorder")],
        6: [("embed_error", "no 6", "recorder")],
    }
    assert [clip.facts.get("seen") for clip in clips] == [True, None, True, True, True, True, None]
    assert last.batches == [[n] for n in range(7)], "the next step gets all of them"


def test_embeddings_of_another_length_than_most_are_set_aside() -> None:
    lengths = {"a": (5, 3, 3), "b": (4, 4, 2)}
    clips = [Clip({}, vectors={name: np.ones(of[i]) for name, of in lengths.items()}) for i in range(3)] + [Clip({})]
    set_other_lengths_aside(clips)
    found = [{name: len(vector) for name, vector in clip.vectors.items()} for clip in clips]
    assert found == [{"b": 4}, {"a": 3, "b": 4}, {"a": 3}, {}]
    assert [clip.faults for clip in clips] == [
        [("embed_error", "the embedding of a has 5 elements where most have 3", "a")],
        [],
        [("embed_error", "the embedding of b has 2 elements where most have 4", "b")],
        [],
    ]


def rows_of(embedded: int, *failed: str, step: str | None = "a") -> list[dict[str, Any]]:
    """A row of the table of videos; versions before several embedders did not tell the step."""
    faults = [{"id": clip, "reason": "embed_error", "detail": f"not {clip}", "step": step} for clip in failed]
    return [{"video": "a.mp4", "n_rows": embedded, "clips": [], "clip_faults": faults}]


def tally_of(before: VideoRows) -> Tally:
    return Tally.all_of(before, {"a": "n_rows"})[0]


def test_an_embedder_that_fails_on_every_clip_is_at_fault_itself() -> None:
    many = [f"c{i}" for i in range(MOST_FAILED)]
    tally = tally_of(VideoRows())
    tally.take(rows_of(0, *many[1:]))
    with pytest.raises(ParameterError, match="none of 20 clips could be embedded, of the first: not c1"):
        tally.take(rows_of(0, many[0]))
    tally = tally_of(VideoRows())
    tally.take(rows_of(0, "c0"))
    with pytest.raises(ParameterError, match="none of 1 clips could be embedded"):
        tally.take([], at_the_end=True)
    tally = tally_of(VideoRows())
    tally.take(rows_of(1, *many))
    tally.take(rows_of(0, *many), at_the_end=True)
    tally_of(VideoRows()).take(rows_of(0, *many, step="another embedder"), at_the_end=True)


def test_clips_that_failed_in_earlier_runs_tell_nothing_new() -> None:
    many = [f"c{i}" for i in range(MOST_FAILED)]
    tally_of(VideoRows.of(rows_of(5, *many, step=None))).take(rows_of(0, *many, "new"), at_the_end=True)
    with pytest.raises(ParameterError, match="none of 20 clips"):
        tally_of(VideoRows.of(rows_of(5))).take(rows_of(0, *many))


def test_a_folder_of_before_a_step_had_a_column_grows(
    tmp_path: Path, client: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Quiet(Brightness):  # whose results may stand beside those of runs without it
        def identity(self) -> Mapping[str, Any]:
            return {}

    make_folder(tmp_path / "in", ["a.mp4"])
    splitter(tmp_path / "in", tmp_path / "out").run(client)
    make_folder(tmp_path / "in", ["b.mp4"])
    add(monkeypatch, Quiet())
    splitter(tmp_path / "in", tmp_path / "out").run(client)
    rows = pq.read_table(tmp_path / "out" / "dct3d_embd_parquet").to_pandas()
    assert rows.groupby("video")["brightness"].count().to_dict() == {"a.mp4": 0, "b.mp4": 2}
