"""The fingerprint track of a video, made while its pictures pass."""

from __future__ import annotations

import math
from collections import deque
from fractions import Fraction

import numpy as np

from semdedup.video.bars import content_box, line_levels
from semdedup.video.decode import Picture
from semdedup.video.fingerprint import DIM, PER_SECOND, REACH, SAMPLES_PER_SECOND, SIDE, fingerprint

STEP = SAMPLES_PER_SECOND // PER_SECOND
"""Samples from one fingerprint to the next, the first of which is half as many after the first sample."""

STEPS_OF_A_BOX = 8
"""Before and after a moment, samples of so many steps tell where its picture has bars, one of each."""


class TrackMaker:
    """Makes the track of a video. Memory: 42 samples of 4 kB, and 64 bytes a fingerprint.

    Args:
        time_base: seconds of one tick of the pictures.
    """

    def __init__(self, time_base: Fraction) -> None:
        self._time_base = time_base
        self._shown: Picture | None = None
        self._n_samples = 0
        self._samples: deque[np.ndarray] = deque(maxlen=STEPS_OF_A_BOX * STEP + REACH + 2)
        self._levels: deque[np.ndarray] = deque(maxlen=2 * STEPS_OF_A_BOX)
        self._made: list[np.ndarray] = []
        self._next = 0

    def add(self, picture: Picture) -> None:
        """The next picture, in the order in which they are shown. Raises `VideoFault`: ``decode_error``."""
        self._sample_until(picture.tick)
        self._shown = picture

    def finish(self, end_tick: int) -> np.ndarray:
        """The track of a video that ends at a tick: (n, 64) int8, a row for each moment before the end, or one.

        Raises `VideoFault`: ``decode_error``.
        """
        if self._shown is None:
            return np.zeros((0, DIM), dtype=np.int8)
        self._sample_until(end_tick)
        while self._moment < max(self._n_samples, STEP):
            self._make()
        self._shown = None
        return np.stack(self._made)

    @property
    def _moment(self) -> int:
        """The moment of the next fingerprint, in samples."""
        return STEP // 2 + STEP * len(self._made)

    def _sample_until(self, tick: int) -> None:
        """Take the samples at moments before a tick, of the picture that is shown until then."""
        sample: np.ndarray | None = None
        while self._next < tick:
            if self._shown is None:  # nothing is shown at the start of the video
                sample = np.zeros((SIDE, SIDE), dtype=np.uint8)
            elif sample is None:
                sample = self._shown.grey((SIDE, SIDE))
            self._samples.append(sample)
            if self._n_samples % STEP == 0:
                self._levels.append(line_levels(sample))
            self._n_samples += 1
            self._next = math.ceil(Fraction(self._n_samples, SAMPLES_PER_SECOND) / self._time_base)
            if self._n_samples > self._moment + STEPS_OF_A_BOX * STEP:
                self._make()

    def _make(self) -> None:
        """Make the next fingerprint."""
        held = self._n_samples - len(self._samples)  # the first sample that is held
        first = max(self._moment - REACH, held)
        samples = list(self._samples)[first - held : self._moment + REACH + 1 - held]
        box = content_box(np.stack(self._levels), SIDE, SIDE)
        self._made.append(fingerprint(np.stack(samples), first - self._moment, box))
