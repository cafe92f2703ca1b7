"""Copies are found and nothing else is: from videos over `split` and `dedup` to the ids to drop."""

import itertools
import re
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import distributed
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from scipy.fft import idctn

from semdedup import cli
from semdedup.video.steps.embed.dct3d import RECOMMENDED_EPS
from tests.splits import matrix, read_metas, read_rows
from tests.videos import flat, make_video, texture

pytestmark = pytest.mark.slow

SIZE = (96, 64)
STILL_SIZE = (480, 320)
"""The noise that an encoder adds to a still averages out over pixels; where these are few it looks like motion."""

RATE, SECONDS = 12, 2
N_FRAMES = RATE * SECONDS

Pictures = list[np.ndarray]


def seen(grey: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    """A picture of grey levels in one colour."""
    return np.clip(grey[:, :, None] * np.array(colour), 0, 255).astype(np.uint8)


def shapes(seed: int) -> Iterator[np.ndarray]:
    """Discs that move in straight lines before a wall that gets darker to one side."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: SIZE[1], : SIZE[0]]
    slope = rng.uniform(-1, 1, size=2)
    wall = 110 + 40 * (slope[0] * (2 * x / SIZE[0] - 1) + slope[1] * (2 * y / SIZE[1] - 1))
    starts, ends = rng.uniform(0, SIZE, size=(2, 5, 2))
    radii, greys = rng.uniform(7, 16, size=5), rng.choice([20, 60, 190, 240], size=5)
    for part in np.linspace(0, 1, N_FRAMES):
        grey = wall.copy()
        for (across, down), radius, level in zip(starts + part * (ends - starts), radii, greys, strict=True):
            grey[(x - across) ** 2 + (y - down) ** 2 < radius**2] = level
        yield seen(grey, (1.0, 0.9, 0.8))


def picture(seed: int, size: tuple[int, int]) -> np.ndarray:
    """A picture with the spectrum of photographs: waves of all lengths, whose height goes with their length."""
    rng = np.random.default_rng(seed)
    width, height = size
    lengths = 1 / np.maximum(np.hypot(*np.meshgrid(np.arange(width), np.arange(height))), 1)
    grey = idctn(lengths * rng.normal(size=(height, width)), norm="ortho")
    return seen(125 + 45 * (grey - grey.mean()) / grey.std(), tuple(rng.uniform(0.8, 1.1, size=3)))


def pan(seed: int) -> Iterator[np.ndarray]:
    """A camera that moves over a picture twice as large in each direction."""
    wide = picture(seed, (2 * SIZE[0], 2 * SIZE[1]))
    starts, ends = np.random.default_rng(seed).uniform(0, SIZE, size=(2, 2))
    for part in np.linspace(0, 1, N_FRAMES):
        x, y = (starts + part * (ends - starts)).astype(int)
        yield wide[y : y + SIZE[1], x : x + SIZE[0]]


ORIGINALS: dict[str, Callable[[], Iterable[np.ndarray]]] = {
    **{f"texture{seed}": lambda seed=seed: texture(seed, N_FRAMES, SIZE, RATE) for seed in (1, 2, 3)},
    **{f"shapes{seed}": lambda seed=seed: shapes(seed) for seed in (4, 5, 6)},
    **{f"pan{seed}": lambda seed=seed: pan(seed) for seed in (7, 8)},
    **{f"still{seed}": lambda seed=seed: [picture(seed, STILL_SIZE)] * N_FRAMES for seed in (9, 10)},
}
"""Videos that differ from each other."""


def scaled(pictures: Pictures, size: tuple[int, int]) -> Pictures:
    return [np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) for picture in pictures]


def zoomed(pictures: Pictures, across: float, down: float) -> Pictures:
    height, width = pictures[0].shape[:2]
    return scaled(pictures, (round(width * across), round(height * down)))


def letterboxed(pictures: Pictures) -> Pictures:
    """With an eighth of the height black above, and below: 16:9 in 4:3."""
    bar = pictures[0].shape[0] // 6
    return [np.pad(picture, ((bar, bar), (0, 0), (0, 0))) for picture in pictures]


def pillarboxed(pictures: Pictures) -> Pictures:
    """Smaller, with an eighth of the width black at the left, and at the right: 4:3 in 16:9."""
    bar = pictures[0].shape[1] // 6
    return [np.pad(picture, ((0, 0), (bar, bar), (0, 0))) for picture in zoomed(pictures, 3 / 4, 3 / 4)]


def with_logo(pictures: Pictures) -> Pictures:
    """With a white mark in a corner, an eighth of the width and of the height."""
    marked = [picture.copy() for picture in pictures]
    for picture in marked:
        height, width = (side // 8 for side in picture.shape[:2])
        picture[height // 2 : height // 2 + height, -width - width // 2 : -width // 2] = 255
    return marked


def brighter(pictures: Pictures) -> Pictures:
    return [np.clip(1.1 * picture + 12.0, 0, 255).astype(np.uint8) for picture in pictures]


def at_rate(pictures: Pictures, rate: int) -> Pictures:
    """Frames left out, or shown again, as a change of the frame rate does."""
    return [pictures[i * RATE // rate] for i in range(rate * SECONDS)]


class Copy(NamedTuple):
    """How a copy is made: what is done to the pictures, the ending of its file, and how it is encoded."""

    change: Callable[[Pictures], Pictures] = list
    ending: str = "mp4"
    options: dict[str, Any] = {}  # noqa: RUF012


COPIES: dict[str, Copy] = {
    "low quality": Copy(options={"options": {"crf": "40", "preset": "ultrafast"}}),
    "smaller": Copy(lambda pictures: zoomed(pictures, 1 / 2, 1 / 2)),
    "larger": Copy(lambda pictures: zoomed(pictures, 2, 2)),
    "squeezed": Copy(lambda pictures: zoomed(pictures, 2 / 3, 1)),
    "letterboxed": Copy(letterboxed),
    "pillarboxed": Copy(pillarboxed),
    "logo": Copy(with_logo),
    "brighter": Copy(brighter),
    "faster": Copy(lambda pictures: at_rate(pictures, 24), options={"rate": 24}),
    "slower": Copy(lambda pictures: at_rate(pictures, 8), options={"rate": 8}),
    "avi": Copy(ending="avi", options={"codec": "mpeg4", "options": {"qscale": "8", "flags": "+qscale"}}),
    "webm": Copy(ending="webm", options={"codec": "libvpx", "options": {"b": "300k", "deadline": "realtime"}}),
}

DARK = {"black": 0, "white": 255, "grey": 128}


def write_copy(folder: Path, name: str, pictures: Pictures) -> Path:
    """Write a copy of a video."""
    change, ending, options = COPIES[name]
    return make_video(folder / f"{name}.{ending}", pictures=change(pictures), **{"rate": RATE, **options})


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every original with all its copies, in a folder each; and clips that show nothing."""
    folder = tmp_path_factory.mktemp("videos")
    for name, original in ORIGINALS.items():
        pictures = list(original())
        make_video(folder / name / "original.mp4", pictures=pictures, rate=RATE)
        for made in COPIES:
            write_copy(folder / name, made, pictures)
    for name, grey in DARK.items():
        for i in range(2):
            make_video(folder / "dark" / f"{name}{i}.mp4", pictures=flat(N_FRAMES, SIZE, grey), rate=RATE)
    return folder


class Done(NamedTuple):
    """What the two commands wrote and said."""

    clips: Path
    split: Result
    dedup: Result


@pytest.fixture(scope="module")
def done(videos: Path, client: distributed.Client) -> Done:
    """`semdedup split` and `semdedup dedup` with their default settings, but for the shortest clip."""
    out = videos.parent / f"{videos.name}-out"
    shared = ["--scheduler", client.scheduler.address]
    cut = ["split", "--video-dir", str(videos), "--output-clip-path", str(out), "--fixed-stride-min-clip-length-s", "1"]
    found = ["dedup", "--input-embeddings-path", str(out / "dct3d_embd_parquet"), "--output-path", str(out / "dedup")]
    return Done(out, *(CliRunner().invoke(cli.main, [*line, *shared]) for line in (cut, found)))


@pytest.fixture(scope="module")
def rows(done: Done) -> pd.DataFrame:
    """The embeddings, with the name of the original and of the copy."""
    rows = read_rows(done.clips)
    rows[["original", "copy"]] = rows["video"].str.replace(r"\.\w+$", "", regex=True).str.split("/", expand=True)
    return rows


@pytest.fixture(scope="module")
def moving(rows: pd.DataFrame) -> pd.DataFrame:
    """Those that show something."""
    return rows[rows["original"] != "dark"]


@pytest.fixture(scope="module")
def highest_of_others(moving: pd.DataFrame) -> float:
    """The highest score between clips of different originals."""
    scores = matrix(moving) @ matrix(moving).T
    originals = moving["original"].to_numpy()
    return float(scores[originals[:, None] != originals].max())


def test_every_video_becomes_one_clip(done: Done, rows: pd.DataFrame) -> None:
    assert done.split.exit_code == 0, done.split.output
    assert len(rows) == (1 + len(COPIES)) * len(ORIGINALS) + 2 * len(DARK)
    assert set(rows["duration_s"]) == {float(SECONDS)}
    assert len({(row.width, row.height) for row in rows.itertuples()}) == 2 * 6
    assert set(rows["fps"]) == {8.0, 12.0, 24.0}
    codecs = {path.suffix for path in done.clips.parent.glob(f"{done.clips.name[:-4]}/*/*")}
    assert codecs == {".mp4", ".avi", ".webm"}


def test_different_videos_are_below_the_threshold(highest_of_others: float) -> None:
    assert 0.1 < highest_of_others < 1 - RECOMMENDED_EPS


@pytest.mark.parametrize("copy", COPIES)
def test_every_copy_is_nearer_to_its_original_than_any_two_videos_to_each_other(
    copy: str, moving: pd.DataFrame, highest_of_others: float
) -> None:
    vectors = moving.set_index(["copy", "original"])["embedding"]
    scores = {name: float(vectors[copy, name] @ vectors["original", name]) for name in ORIGINALS}
    assert min(scores.values()) > max(highest_of_others, 1 - RECOMMENDED_EPS), scores


def test_the_command_line_takes_the_eps_of_the_embedder_and_says_why(done: Done) -> None:
    assert done.dedup.exit_code == 0, done.dedup.output
    assert f"eps {RECOMMENDED_EPS:g} (recommended by the embedder, from the Parquet metadata)" in done.dedup.stderr
    (summary,) = (done.clips / "dedup" / "extraction").glob("dedup_summary_*.csv")
    assert summary.name == f"dedup_summary_{RECOMMENDED_EPS:.6g}.csv"
    written = pq.read_schema(done.clips / "dct3d_embd_parquet" / "part-00000.parquet").metadata
    assert float(written[b"semdedup.recommended_eps"]) == RECOMMENDED_EPS


def test_of_every_original_and_its_copies_one_is_kept(done: Done, moving: pd.DataFrame) -> None:
    dropped = set(pq.read_table(done.clips / "dedup" / "duplicates")["id"].to_pylist())
    assert dropped <= set(moving["id"]), "what shows nothing is nobody's duplicate"
    left = moving[~moving["id"].isin(dropped)].groupby("original").size()
    assert left.to_dict() == dict.fromkeys(ORIGINALS, 1)


def test_a_duplicate_points_at_a_clip_of_the_same_original(done: Done, rows: pd.DataFrame) -> None:
    scores = pq.read_table(done.clips / "dedup" / "extraction" / "semdedup_pruning_tables").to_pandas()
    original = rows.set_index("id")["original"]
    duplicates = scores[scores["cosine_sim_score"] >= np.float32(1 - RECOMMENDED_EPS)]
    assert len(duplicates) == len(COPIES) * len(ORIGINALS)
    assert (original[duplicates["id"]].array == original[duplicates["max_id"]].array).all()


def test_clips_that_show_nothing_are_marked_and_kept_with_nobody_as_their_double(
    done: Done, rows: pd.DataFrame
) -> None:
    assert set(rows[rows["low_information"]]["original"]) == {"dark"}
    dark = rows[rows["original"] == "dark"]
    assert dark["low_information"].all()
    vectors = matrix(dark)
    assert any(left @ right > 0.99 for left, right in itertools.combinations(vectors, 2)), "or nothing is shown here"
    scores = pq.read_table(done.clips / "dedup" / "extraction" / "semdedup_pruning_tables").to_pandas()
    of_dark = scores[scores["id"].isin(dark["id"])]
    assert (of_dark["cosine_sim_score"] == 0).all()
    assert of_dark["max_id"].tolist() == of_dark["id"].tolist()
    assert not scores[~scores["id"].isin(dark["id"])]["max_id"].isin(dark["id"]).any()
    metas = read_metas(done.clips)
    assert {name for name, meta in metas.items() if meta["low_information"]} == set(dark["id"])
    assert all((done.clips / "clips" / f"{name}.mp4").exists() for name in dark["id"])
    assert re.search(rf"low information +│ {len(dark)} ", done.split.stdout)
