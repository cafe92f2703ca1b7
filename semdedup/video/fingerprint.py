"""The fingerprint track of a video: two small vectors a second of its time, wherever its clips are cut.

What the vectors are is known here alone. A frame that is copied, scaled or encoded again has nearly the same one.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from semdedup.video.decode import Picture

VERSION = "grey-1"
"""Name of what the vectors are. Those of different versions are never compared: it is on record beside them."""

PER_SECOND = 2
DIM = 64

SIDE = 8
LEAST_CONTRAST = 2.0
"""Grey levels, of 255, by which the cells of a picture differ at least; others are flat."""


def moments_s(n: int) -> np.ndarray:
    """The moments of the first `n` vectors of a track: seconds from the first frame, (n,) float64."""
    return (np.arange(n) + 0.5) / PER_SECOND


class TrackMaker:
    """Makes the track of a video from its pictures. Memory: 64 bytes a vector, and one picture.

    Args:
        time_base: seconds of one tick of the pictures.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._made: list[np.ndarray] = []
        self._shown: Picture | None = None
        self._vector: np.ndarray | None = None
        self._next = self._tick_of(0)

    def add(self, picture: Picture) -> None:
        """The next picture, in the order in which they are shown. Raises `VideoFault`: ``decode_error``."""
        while self._next < picture.tick:
            self._keep()
        self._shown, self._vector = picture, None

    def finish(self, end_tick: int) -> np.ndarray:
        """The track of a video that ends at a tick: (n, 64) int8, a row for each half second that has begun.

        A row is zero where there is nothing to go by: flat pictures, and none. Raises `VideoFault`: ``decode_error``.
        """
        n = max(1, math.ceil(end_tick * self._time_base * PER_SECOND)) if self._shown is not None else 0
        while len(self._made) < n:
            self._keep()
        self._shown = self._vector = None
        return np.stack(self._made[:n]) if n else np.zeros((0, DIM), dtype=np.int8)

    def _tick_of(self, i: int) -> int:
        """The first tick that is not before the moment of a vector."""
        return math.ceil(Fraction(2 * i + 1, 2 * PER_SECOND) / self._time_base)

    def _keep(self) -> None:
        """The vector of what is shown at the next moment."""
        if self._vector is None:
            self._vector = np.zeros(DIM, dtype=np.int8) if self._shown is None else _vector_of(self._shown)
        self._made.append(self._vector)
        self._next = self._tick_of(len(self._made))


def _vector_of(picture: Picture) -> np.ndarray:
    grey = picture.rgb((SIDE, SIDE), SIDE).mean(axis=2, dtype=np.float32).reshape(-1)
    grey -= grey.mean()
    most = float(np.abs(grey).max())
    if most < LEAST_CONTRAST:
        return np.zeros(DIM, dtype=np.int8)
    return np.rint(grey * (127 / most)).astype(np.int8)
