"""The fingerprint of a moment of a video: what is seen around it, and how that changes. Arrays in, arrays out.

It is taken from the lowest frequencies of the picture, without bars at its sides, so that it is nearly the same after
encoding, scaling, slight cropping, a logo, a subtitle, another brightness or frame rate. A mirror image has the same
numbers with other signs. No weights are needed.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from semdedup.video.bars import Box

VERSION = "dct-1"
"""Name of what the vectors are. Those of different versions are never compared: it is on record beside them."""

PER_SECOND = 2
"""Fingerprints a second."""

SAMPLES_PER_SECOND = 8
"""Pictures a second that they are made of."""

REACH = SAMPLES_PER_SECOND
"""Samples before and after its moment that a fingerprint is made of: those of a second."""

SIDE = 64
"""Pixels of a side of a sample, whatever the aspect of the picture."""

N_FREQUENCIES = 32
"""Frequencies that are kept, the lowest but for the mean: once of the picture, once of its change."""

DIM = 2 * N_FREQUENCIES

FLAT = 2.0
"""Grey levels of 255: where the kept frequencies of a picture have a smaller root mean square, it shows nothing."""

STILL = 0.4
"""Grey levels by which a picture changes within a second, by the same measure; what changes less is a still.

Measured where one picture is repeated: 0 to 0.15 at x264's crf 18 to 28, up to 0.35 at 38. What moves has 1 to 40.
"""

EVENNESS = 0.7
"""Power that numbers are raised to, so that few large ones, a logo or a subtitle, do not outweigh all others."""


def moments_s(n: int) -> np.ndarray:
    """The moments of the first n fingerprints of a track: seconds from the first frame, (n,) float64."""
    return (np.arange(n) + 0.5) / PER_SECOND


def fingerprint(samples: np.ndarray, first: int, box: Box) -> np.ndarray:
    """The fingerprint of a moment.

    Args:
        samples: (t, 64, 64) uint8, grey levels of the pictures around it, `SAMPLES_PER_SECOND`.
        first: by how many samples the first of them is later than the moment; negative: it is earlier. Samples farther
            away than `REACH` count for nothing.
        box: where the content is.

    Returns:
        (64,) int8, the largest number 127: half of them are of the picture, half of its change. These are 0 of a still;
        all are 0 of a flat picture.
    """
    seen, change = _weights(first, len(samples)) @ samples.reshape(len(samples), -1).astype(np.float32)
    numbers = np.zeros((2, N_FREQUENCIES), dtype=np.float32)
    for number, (part, least) in enumerate(zip((seen, change), (FLAT, STILL), strict=True)):
        frequencies = _frequencies(part.reshape(SIDE, SIDE), box)
        if np.linalg.norm(frequencies) < least * SIDE:  # orthonormal: by Parseval, of the picture
            break
        numbers[number] = _balanced(frequencies)
    return np.rint(numbers.ravel() * (127 / max(float(np.abs(numbers).max()), 1e-9))).astype(np.int8)


def moves(track: np.ndarray) -> np.ndarray:
    """Which fingerprints, (n, 64), are of pictures that change: others match too much to tell a moment by, (n,)."""
    return np.asarray(track[:, N_FREQUENCIES:].any(axis=1))


def mirrored(track: np.ndarray) -> np.ndarray:
    """The track, (n, 64) int8, of the video whose pictures are exchanged left and right."""
    odd = np.tile(_kept()[1] % 2, 2) == 1
    return np.where(odd, -track, track)


def _balanced(frequencies: np.ndarray) -> np.ndarray:
    """Frequencies with weights against their natural decay, evened out, of norm 1."""
    y, x = _kept()
    weighted = frequencies * np.hypot(y, x)
    numbers = np.sign(weighted) * np.abs(weighted) ** EVENNESS
    return numbers / np.linalg.norm(numbers)


def _frequencies(picture: np.ndarray, box: Box) -> np.ndarray:
    """The kept frequencies of what is in a box of a picture, (32,) float32, as if that were `SIDE` pixels a side."""
    y, x = _kept()
    waves = int(max(y.max(), x.max())) + 1
    rows, columns = _waves_over(box.top, box.bottom, waves), _waves_over(box.left, box.right, waves)
    return (rows @ picture @ columns.T)[y, x]


@lru_cache
def _weights(first: int, n: int) -> np.ndarray:
    """Weights of n samples, (2, n) float32: a mean around the moment; and one after it less one before it."""
    at = np.arange(first, first + n) / REACH
    middle, after, before = (np.maximum(0.0, 1 - np.abs(at - centre) / reach) for centre, reach in _WINDOWS)
    middle, after, before = (window / max(window.sum(), 1e-9) for window in (middle, after, before))
    return np.stack([middle, after - before]).astype(np.float32)


_WINDOWS = ((0.0, 1.0), (0.5, 0.5), (-0.5, 0.5))
"""Centre and reach of triangular windows, as parts of `REACH`."""


@lru_cache
def _kept() -> tuple[np.ndarray, np.ndarray]:
    """The frequencies that are kept, along y and x, by their distance from 0, which is not kept."""
    y, x = np.divmod(np.arange(SIDE * SIDE), SIDE)
    lowest = np.argsort(y * y + x * x, kind="stable")[1 : N_FREQUENCIES + 1]
    return y[lowest], x[lowest]


@lru_cache(maxsize=256)
def _waves_over(start: float, stop: float, n: int) -> np.ndarray:
    """The n lowest cosines of an orthonormal DCT-II over a part of a side, by the pixels of all of it: (n, 64)."""
    edges = (start + (stop - start) * np.arange(SIDE + 1) / SIDE) * SIDE
    pixels = np.arange(SIDE)
    shares = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    means = np.maximum(shares, 0) / np.diff(edges)[:, None]
    angles = np.pi / SIDE * np.arange(n)[:, None] * (pixels + 0.5)
    waves = np.sqrt(2 / SIDE) * np.cos(angles)
    waves[0] /= np.sqrt(2)
    return (waves @ means).astype(np.float32)
