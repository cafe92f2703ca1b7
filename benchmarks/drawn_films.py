"""Films that are drawn: shots with cuts between them, a camera that pans, zooms and shakes, things that move, grain.

One seed one film, whatever the machine. Each shot has a place of its own, of value noise and of shapes, so that two
films show nothing in common.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from scipy import ndimage

Picture = np.ndarray[Any, np.dtype[Any]]

GRAIN = 4.0
"""Standard deviation of the noise of the camera, in grey levels."""


class Thing(NamedTuple):
    """What moves in front of a place: its picture, how much it covers, and its way."""

    colours: Picture
    cover: Picture
    start: Picture
    velocity: Picture
    swing: Picture
    pace: float

    def place(self, t: float) -> tuple[int, int]:
        """Row and column of its upper left corner."""
        row, column = self.start + self.velocity * t + self.swing * np.sin(self.pace * t)
        return int(row), int(column)


def value_noise(rng: np.random.Generator, size: tuple[int, int], coarsest: int = 4, octaves: int = 5) -> Picture:
    """A texture (h, w) float32 from 0 to 1: random grids, each twice as fine and weighted less than the one before."""
    total = np.zeros(size, np.float32)
    for octave in range(octaves):
        cells = coarsest << octave
        grid = rng.random((cells + 2, cells * 2 + 2)).astype(np.float32)
        rows = np.linspace(0, cells, size[0], dtype=np.float32)
        columns = np.linspace(0, 2 * cells, size[1], dtype=np.float32)
        total += 0.6**octave * ndimage.map_coordinates(grid, np.meshgrid(rows, columns, indexing="ij"), order=1)
    return (total - total.min()) / np.ptp(total)


def _coloured(rng: np.random.Generator, noise: Picture) -> Picture:
    """The texture in colours of its own, (h, w, 3) float32."""
    palette = rng.uniform(20, 235, (4, 3))
    steps = np.linspace(0, 1, len(palette))
    return np.stack([np.interp(noise, steps, palette[:, c]) for c in range(3)], axis=-1).astype(np.float32)


def _place(rng: np.random.Generator, size: tuple[int, int]) -> Picture:
    """What a shot is taken of: ground of value noise with a horizon, boxes and discs on it."""
    height, width = size
    picture = _coloured(rng, value_noise(rng, size))
    horizon = int(height * rng.uniform(0.25, 0.6))
    sky = _coloured(rng, value_noise(rng, size, 2, 3))
    picture[:horizon] = 0.3 * picture[:horizon] + 0.7 * sky[:horizon]
    y, x = np.ogrid[:height, :width]
    for _ in range(int(rng.integers(12, 30))):
        row, column = rng.uniform(0, height), rng.uniform(0, width)
        high, wide = rng.uniform(0.03, 0.22, 2) * height
        if rng.random() < 0.6:
            inside = (np.abs(y - row) < high) & (np.abs(x - column) < wide)
        else:
            inside = ((y - row) / high) ** 2 + ((x - column) / wide) ** 2 < 1
        picture[inside] = rng.uniform(0.2, 0.5) * picture[inside] + 0.6 * rng.uniform(0, 255, 3)
    return np.clip(picture, 0, 255)


def _thing(rng: np.random.Generator, size: tuple[int, int], pace: float) -> Thing:
    high, wide = (rng.uniform(0.12, 0.4, 2) * size[0]).astype(int)
    colours = _coloured(rng, value_noise(rng, (high, wide), 2, 3))
    y, x = np.ogrid[-1 : 1 : high * 1j, -1 : 1 : wide * 1j]
    cover = np.clip((1 - np.maximum(np.abs(x), np.abs(y)) ** rng.uniform(2, 6) - 0.4 * x**2 * y**2) * 6, 0, 1)
    start = rng.uniform(-0.1, 0.9, 2) * size
    velocity, swing = rng.normal(0, 0.1 * pace, 2) * size, rng.normal(0, 0.08 * pace, 2) * size
    return Thing(colours, cover.astype(np.float32)[..., None], start, velocity, swing, rng.uniform(0.5, 4))


def _paste(frame: Picture, thing: Thing, t: float) -> None:
    row, column = thing.place(t)
    high, wide = thing.cover.shape[:2]
    top, left = max(row, 0), max(column, 0)
    bottom, right = min(row + high, frame.shape[0]), min(column + wide, frame.shape[1])
    if top < bottom and left < right:
        part = slice(top - row, bottom - row), slice(left - column, right - column)
        below = frame[top:bottom, left:right]
        below += thing.cover[part] * (thing.colours[part] - below)


def draw_shot(rng: np.random.Generator, size: tuple[int, int], n_frames: int, rate: float, pace: float) -> Iterator:
    """The frames of a shot, (h, w, 3) float32. `pace` says how much moves: 1 is lively, 0.2 calm."""
    height, width = size
    wide = int(1.8 * height), int(2 * width)
    place = _place(rng, wide)
    things = [_thing(rng, size, pace) for _ in range(int(rng.integers(2, 6)))]
    shake = ndimage.gaussian_filter1d(rng.normal(size=(n_frames, 2)), rate / 12, axis=0, mode="nearest")
    shake *= 0.006 * pace * height / (shake.std() + 1e-6)
    spare = np.array([wide[0] / 1.3 - height, wide[1] / 1.3 - width])
    begin, pan = rng.uniform(0.2, 0.8, 2) * spare, rng.normal(0, 0.12 * pace, 2) * size
    zooming, light = rng.normal(0, 0.04 * pace), (rng.uniform(0, 0.12), rng.uniform(0.3, 2), rng.uniform(0, 6))
    for i in range(n_frames):
        t = i / rate
        zoom = float(np.clip(1 + zooming * t, 0.8, 1.25))
        corner = np.clip(begin + pan * t, 0, spare) + shake[i]
        rows = np.clip(corner[0] + np.arange(height) * zoom, 0, wide[0] - 1).astype(int)
        columns = np.clip(corner[1] + np.arange(width) * zoom, 0, wide[1] - 1).astype(int)
        frame = place[rows][:, columns]
        for thing in things:
            _paste(frame, thing, t)
        yield frame * (1 + light[0] * np.sin(light[1] * t + light[2]))


def draw_film(seed: int, size: tuple[int, int], seconds: float, rate: int, pace: float = 1.0) -> Iterator[Picture]:
    """The frames of a film, (h, w, 3) uint8: shots of 2 to 6 s.

    Args:
        seed: one seed, one film.
        size: height and width.
        seconds: how long it is.
        rate: frames a second.
        pace: how much moves: 1 is lively, 0.2 calm.
    """
    rng = np.random.default_rng([15, seed])
    grain = rng.normal(0, GRAIN, (size[0] + 64, size[1] + 64, 1)).astype(np.float32)
    left = round(seconds * rate)
    while left:
        n_frames = min(left, int(rng.uniform(2, 6) * rate))
        if left - n_frames < rate:
            n_frames = left
        for frame in draw_shot(rng, size, n_frames, rate, pace):
            row, column = rng.integers(0, 64, 2)
            yield np.clip(frame + grain[row : row + size[0], column : column + size[1]], 0, 255).astype(np.uint8)
        left -= n_frames
