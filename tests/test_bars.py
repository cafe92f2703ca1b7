"""Black bars are found where there are some, and nowhere else."""

from collections.abc import Callable
from functools import lru_cache

import numpy as np
import pytest
from scipy.fft import idct

from semdedup.video.bars import WHOLE, Box, content_box, line_levels
from semdedup.video.steps.embed.dct3d import RECOMMENDED_EPS, dct3d
from semdedup.video.steps.frames import averaged

SIDE = 64
SOURCE = 160
"""Pixels a side of the pictures that are drawn; averaged down to 64, so that bars need not end with a line."""

N_FRAMES = 16
WAVES = (8, 12, 12)


@lru_cache
def content(seed: int, height: int = SOURCE, width: int = SOURCE) -> np.ndarray:
    """Moving clouds, (16, height, width) grey levels from 15 to 240."""
    rng = np.random.default_rng(seed)
    cube = rng.normal(size=WAVES) / (1 + sum(np.ix_(*map(np.arange, WAVES))))
    for axis, n in enumerate((N_FRAMES, height, width)):
        cube = idct(cube, n=n, axis=axis)
    return (15 + 225 * (cube - cube.min()) / np.ptp(cube)).astype(np.float32)


@lru_cache
def noise(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 2.5, (N_FRAMES, SOURCE, SOURCE)).astype(np.float32)


def between_bars(seed: int, box: Box, black: float = 0.0) -> np.ndarray:
    """A smaller picture in a black frame, (16, 160, 160)."""
    top, bottom, left, right = (round(SOURCE * edge) for edge in box)
    pictures = np.full((N_FRAMES, SOURCE, SOURCE), black, dtype=np.float32)
    pictures[:, top:bottom, left:right] = content(seed, bottom - top, right - left)
    return pictures


def small(pictures: np.ndarray, seed: int = 0) -> np.ndarray:
    """As an encoder and a sampler leave them: (16, 64, 64), with a little noise, in [0, 255]."""
    _, height, width = pictures.shape
    return averaged(np.clip(pictures + noise(seed)[:, :height, :width], 0, 255), SIDE, SIDE)


def box_of(grey: np.ndarray) -> Box:
    return content_box(line_levels(grey), *grey.shape[1:])


def far(one: Box, other: Box) -> float:
    """Largest distance of an edge, as a share of a side."""
    return float(np.abs(np.subtract(one, other)).max())


BOXES = {
    "16:9 in 4:3": Box(0.125, 0.875, 0, 1),
    "4:3 in 16:9": Box(0, 1, 0.125, 0.875),
    "2.39 in 16:9": Box(0.128, 0.872, 0, 1),
    "16:9 in 9:16": Box(0.342, 0.658, 0, 1),
    "on four sides": Box(0.125, 0.875, 0.125, 0.875),
    "below only": Box(0, 0.83, 0, 1),
    "not in the middle": Box(0.07, 0.8, 0, 1),
    "thin": Box(0.04, 0.96, 0, 1),
    "none": WHOLE,
}


@pytest.mark.parametrize("box", BOXES.values(), ids=BOXES)
@pytest.mark.parametrize("black", [0, 20])
def test_the_box_is_found_to_less_than_half_a_line(box: Box, black: float) -> None:
    for seed in range(2):
        found = box_of(small(between_bars(seed, box, black), seed))
        assert far(found, box) < 0.5 / SIDE, found


def test_words_and_marks_in_a_bar_belong_to_the_bar() -> None:
    letterboxed, pillarboxed = (between_bars(1, BOXES[name]) for name in ("16:9 in 4:3", "4:3 in 16:9"))
    letterboxed[:, 146:153, 30:120:2] = 230  # in the bar below, all the time
    letterboxed[:3, 2:14, 12:140:2] = 230  # in the bar above, for a while
    assert far(box_of(small(letterboxed)), BOXES["16:9 in 4:3"]) < 0.01
    pillarboxed[:, 10:25, 4:16] = 255
    assert far(box_of(small(pillarboxed)), BOXES["4:3 in 16:9"]) < 0.01


def fade(pictures: np.ndarray) -> np.ndarray:
    return pictures * np.clip(np.linspace(-0.3, 1, 16), 0, 1)[:, None, None]


def vignette(pictures: np.ndarray) -> np.ndarray:
    y, x = np.meshgrid(*2 * [np.linspace(-1, 1, SOURCE)], indexing="ij")
    return pictures * np.clip(1.2 - np.hypot(y, x), 0, 1)


def dark_for_half_the_time(pictures: np.ndarray) -> np.ndarray:
    return np.concatenate([between_bars(5, BOXES["16:9 in 4:3"])[:8], pictures[8:]])


def title(pictures: np.ndarray) -> np.ndarray:
    words = np.zeros_like(pictures)
    words[:, 75:85, 40:125:3] = 220
    return words


@pytest.mark.parametrize("change", [fade, vignette, dark_for_half_the_time, title, np.zeros_like])
def test_where_there_is_doubt_the_picture_is_whole(change: Callable[[np.ndarray], np.ndarray]) -> None:
    for seed in range(2):
        assert box_of(small(change(content(seed)))) == WHOLE


def test_a_fade_of_what_is_between_bars_hides_none() -> None:
    box = BOXES["on four sides"]
    assert far(box_of(small(fade(between_bars(2, box)))), box) < 0.01


def test_levels_of_a_stretch_are_those_of_its_pictures() -> None:
    grey = small(between_bars(3, BOXES["2.39 in 16:9"]))
    levels = line_levels(grey)
    assert levels.shape == (16, 2, 2 * SIDE)
    assert levels.dtype == np.float32
    np.testing.assert_array_equal(levels, np.stack([line_levels(picture) for picture in grey]))
    assert content_box(levels[:0], SIDE, SIDE) == WHOLE
    assert line_levels(grey[:, :3, :2]).shape == (16, 2, 5)
    assert box_of(grey[:, :3, :2]) == WHOLE


def test_what_is_cut_off_leaves_the_average_of_the_content() -> None:
    box = BOXES["on four sides"]
    pictures = between_bars(4, box)
    np.testing.assert_allclose(
        averaged(pictures, 32, 32, box), averaged(pictures[:, 20:140, 20:140], 32, 32), atol=1e-3
    )
    flat = np.zeros((1, SIDE, SIDE))
    flat[:, 9:51] = 100
    flat[:, 9], flat[:, 50] = 30, 80  # lines that are partly black
    np.testing.assert_allclose(averaged(flat, 32, 32, Box(9.7 / SIDE, 50.8 / SIDE, 0, 1)), 100)


@pytest.mark.parametrize("name", [name for name in BOXES if name != "none"])
def test_what_is_between_bars_embeds_as_it_does_without_them(name: str) -> None:
    def frames(pictures: np.ndarray, seed: int) -> np.ndarray:
        return np.repeat(np.round(small(pictures, seed)).astype(np.uint8)[..., None], 3, axis=-1)

    framed = between_bars(1, BOXES[name])
    top, bottom, left, right = (round(SOURCE * edge) for edge in BOXES[name])
    bare = framed[:, top:bottom, left:right]
    assert dct3d(frames(bare, 1)) @ dct3d(frames(framed, 2)) > 0.8 > 1 - RECOMMENDED_EPS
