"""Motion and sharpness: known answers, a copy has those of its source, and there is one decode for all steps."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest

from semdedup import OutputConflictError, ParameterError, RankingStrategy, SemanticDeduplicationWorkflow
from semdedup.settings.choices import ClipScore
from semdedup.video.decode import Decoder
from semdedup.video.options import SCORES as NAMES
from semdedup.video.plan import Span
from semdedup.video.steps.chain import StepChain
from semdedup.video.steps.embed.providers import EmbedderSpec
from semdedup.video.steps.motion import MOTION, motion
from semdedup.video.steps.sharpness import SHARPNESS, sharpness
from semdedup.video.steps.table import SCORES, steps_with
from semdedup.video.timeline import sample_times
from tests.splits import embedder, make_texture, read_metas, read_rows, read_videos, splitter
from tests.videos import make_video, split, texture

BOTH: tuple[ClipScore, ...] = ("motion", "sharpness")


def pictures(rng: np.random.Generator, n: int, side: int) -> np.ndarray:
    """Noise of all grey levels, (n, side, side), each pixel 8 x 8."""
    return np.kron(rng.integers(0, 256, (n, side // 8, side // 8), dtype=np.uint8), np.ones((1, 8, 8), np.uint8))


def drifting(size: tuple[int, int], rate: int, still: bool = False) -> Iterator[np.ndarray]:
    """Two seconds of a wall of bricks that goes by: the same at any size (w, h) and frame rate."""
    bricks = np.random.default_rng(1).integers(40, 216, (30, 40), dtype=np.uint8)
    wall = np.kron(bricks, np.ones((8, 8), np.uint8))
    step = 320 // size[0]
    for i in range(2 * rate):
        seen = np.roll(wall, 0 if still else -i * 30 // rate, axis=1).reshape(size[1], step, size[0], step)
        yield np.repeat(seen.mean(axis=(1, 3)).astype(np.uint8)[..., None], 3, axis=2)


def test_motion_is_the_mean_difference_of_each_pair_in_percent(rng: np.random.Generator) -> None:
    first, other = pictures(rng, 2, 64)
    dark, bright = np.zeros((64, 64), np.uint8), np.full((64, 64), 255, np.uint8)
    assert motion(np.stack([first, first, other, other])) == 0, "pictures of different pairs are not compared"
    assert motion(np.stack([dark, bright] * 4)) == pytest.approx(100)
    difference = np.abs(first.astype(float) - other).mean() / 255 * 100
    assert motion(np.stack([first, other, first, first])) == pytest.approx(difference / 2)


def test_sharpness_is_the_variance_of_the_laplacian(rng: np.random.Generator) -> None:
    ramp = np.tile(np.arange(256, dtype=np.uint8), (256, 1))
    assert sharpness(ramp[None]) == 0
    noise = pictures(rng, 3, 256)
    expected = []
    for frame in noise.astype(float):
        second = [np.diff(frame, 2, axis)[1:-1] if axis == 1 else np.diff(frame, 2, axis)[:, 1:-1] for axis in (0, 1)]
        expected.append((second[0] + second[1]).var())
    assert sharpness(noise) == pytest.approx(np.mean(expected))
    blurred = (noise[:, :-1, :-1].astype(int) + noise[:, 1:, :-1] + noise[:, :-1, 1:] + noise[:, 1:, 1:]) // 4
    assert sharpness(blurred.astype(np.uint8)) < 0.5 * sharpness(noise)


def test_black_bars_are_no_part_of_either() -> None:
    rows = [np.stack(list(texture(3, 16, size))).mean(axis=-1).astype(np.uint8) for size in ((64, 64), (64, 48))]
    with_bars = np.pad(rows[1], ((0, 0), (8, 8), (0, 0)))
    assert motion(with_bars) == pytest.approx(motion(rows[0]), rel=0.15)
    large = next(drifting((320, 240), 1))[:240, :240, 0]
    bars = np.pad(large[::2, ::2], ((60, 60), (60, 60)))
    assert 0.1 * sharpness(large[None]) < sharpness(np.stack([bars] * 8)) <= sharpness(large[None])
    assert sharpness(np.pad(np.full((8, 128, 256), 90, np.uint8), ((0, 0), (64, 64), (0, 0)))) == 0, "edges of bars"


def test_pairs_of_moments_are_as_far_apart_as_the_clip_is_long() -> None:
    times = np.array(sample_times(Span(10.0, 20.0), 4, 0.25)).reshape(4, 2)
    np.testing.assert_allclose(times.mean(axis=1), [11.25, 13.75, 16.25, 18.75])
    np.testing.assert_allclose(np.diff(times), 0.25)
    short = np.array(sample_times(Span(1.0, 1.1), 4, 0.25)).reshape(4, 2)
    np.testing.assert_allclose(short, [[1.0, 1.1]] * 4)


def test_the_pictures_are_decoded_once_for_all_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And each step sees the frames that it sees alone, also a second embedder."""
    path = make_texture(tmp_path / "a.mp4", 5)
    decoded: list[int] = []
    end = Decoder.pictures

    def counted(self: Decoder, packet: Any) -> Any:
        yield from end(self, packet)
        if packet.size == 0:
            decoded.append(self.n_decoded)

    monkeypatch.setattr(Decoder, "pictures", counted)

    def samples(*scores: str, also: EmbedderSpec | None = None) -> list[tuple[np.ndarray, ...]]:
        chain = StepChain([step.load() for step in steps_with(EmbedderSpec(), also, scores=scores)])
        clips, outcome = split(path, None, wanted=chain.wanted)
        assert outcome.status == "done"
        return [clip.samples for clip in clips]

    other = EmbedderSpec("custom", function=np.mean)
    together, plain, two = samples(*BOTH), samples(), samples(also=other)
    apart = [samples(name) for name in BOTH]
    assert decoded == [40] * 5, "five runs, each decodes the forty frames of the video once"
    for clip, alone in zip(two, plain, strict=True):
        assert [len(frames) for frames in clip] == [16, 16]
        np.testing.assert_array_equal(clip[0], alone[0])
    for i, clip in enumerate(together):
        assert [frames.shape[1:] for frames in clip] == [(64, 64), (256, 341), (64, 64, 3)]
        for frames, alone in zip(clip, (apart[0][i][0], apart[1][i][0], plain[i][0]), strict=True):
            np.testing.assert_array_equal(frames, alone)


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory, client: distributed.Client) -> Path:
    """Clips of one scene, whose copies differ in size, rate, codec and how hard they were compressed, with scores."""
    root = tmp_path_factory.mktemp("scored")
    copies: dict[str, dict[str, Any]] = {
        "a": {"size": (160, 120)},
        "double": {"size": (320, 240)},
        "small": {"size": (80, 60)},
        "slow": {"rate": 10, "size": (160, 120)},
        "intra": {"gop": 1, "size": (160, 120)},
        "mpeg4": {"codec": "mpeg4", "size": (160, 120)},
        "hard": {"options": {"crf": "38"}, "size": (160, 120)},
        "still": {"still": True, "size": (160, 120)},
    }
    for name, options in copies.items():
        rate = options.pop("rate", 20)
        shown = drifting(options.pop("size"), rate, options.pop("still", False))
        make_video(root / "in" / f"{name}.mp4", pictures=shown, rate=rate, **options)
    result = splitter(root / "in", root / "out", clip_scores=BOTH).run(client)
    assert result.clips == len(copies)
    spread = json.loads((root / "out" / "summary.json").read_bytes())["clip_motion"]
    assert spread["clips"] == len(copies)
    assert f"median {spread['median']:.3g}" in dict(result.rows())["  motion"]
    return root


def test_a_score_stands_in_metadata_column_and_table(scored: Path) -> None:
    rows, metas, videos = read_rows(scored / "out"), read_metas(scored / "out"), read_videos(scored / "out")
    for row in rows.itertuples():
        assert (row.motion, row.sharpness) == (metas[row.id]["motion"], metas[row.id]["sharpness"])
        assert videos.loc[row.video, "clip_motion"] == pytest.approx([row.motion])


def test_copies_have_the_motion_of_their_source_and_are_sharp_by_what_is_left(scored: Path) -> None:
    rows = read_rows(scored / "out").set_index("video")
    found, sharp = rows["motion"] / rows["motion"]["a.mp4"], rows["sharpness"] / rows["sharpness"]["a.mp4"]
    assert found.pop("still.mp4") < 0.02
    np.testing.assert_allclose(found, 1, atol=0.15)
    assert sharp["double.mp4"] > 2, "it shows more"
    assert sharp["slow.mp4"] == pytest.approx(1, abs=0.35)
    assert sharp["small.mp4"] < 0.5, "it shows less"


def test_a_score_ranks_duplicates(scored: Path, client: distributed.Client) -> None:
    rows = read_rows(scored / "out").set_index("id")
    source, sharpest = str(scored / "out" / "dct3d_embd_parquet"), RankingStrategy.metadata_based(["sharpness"], False)
    options: dict[str, Any] = {"n_clusters": 1, "eps": 0.5, "removal": "witness", "ranking_strategy": sharpest}
    result = SemanticDeduplicationWorkflow(source, str(scored / "ranked"), **options, verbose=False).run(client)
    pairs = result.witnesses_frame().compute()
    assert len(pairs) >= 4
    sharp = rows["sharpness"]
    assert (sharp[pairs["witness_id"]].to_numpy() >= sharp[pairs["id"]].to_numpy()).all()


def test_scores_of_a_folder_are_all_or_none(scored: Path, client: distributed.Client) -> None:
    with pytest.raises(OutputConflictError, match=r"clip_scores: \['motion', 'sharpness'\] there, \['motion'\] now"):
        splitter(scored / "in", scored / "out", clip_scores="motion").run(client)
    with pytest.raises(ParameterError, match="clip_scores must be some of motion, sharpness; got 'blur'"):
        splitter(scored / "in", scored / "other", clip_scores="blur")
    assert splitter(scored / "in", scored / "out", clip_scores=["sharpness", "motion"]).run(client).processed == 0
    assert "of each clip would be measured: motion" in list(
        splitter(scored / "in", scored / "new", clip_scores="motion").plan(client)
    )


def test_clips_that_exist_are_measured_beside_their_embedding(scored: Path, client: distributed.Client) -> None:
    embedder(scored / "in", scored / "embedded", clip_scores="motion").run(client)
    rows = read_rows(scored / "embedded").set_index("id")
    assert "sharpness" not in rows.columns
    expected = read_rows(scored / "out").assign(id=lambda row: row["video"].str[:-4]).set_index("id")["motion"]
    np.testing.assert_allclose(rows["motion"], expected[rows.index])


def test_every_name_of_a_score_is_a_step() -> None:
    assert tuple(SCORES) == NAMES == BOTH
    assert SCORES == {"motion": MOTION, "sharpness": SHARPNESS}
