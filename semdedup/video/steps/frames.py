"""Frames of clips as arrays: choosing some of them, and shrinking them to grey levels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

Frames = np.ndarray
"""Frames of a clip: (t, h, w, 3) uint8, RGB."""

LUMA = np.array([0.299, 0.587, 0.114])
"""ITU-R BT.601."""


def spread(frames: np.ndarray, n: int) -> np.ndarray:
    """Return n frames of a clip, at the midpoints of n equal parts; some twice where it has fewer.

    >>> spread(np.arange(6), 3)
    array([1, 3, 5])
    """
    t = len(frames)
    return frames if t == n else frames[(2 * np.arange(n) + 1) * t // (2 * n)]


def shrink(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames as (t, height, width) float64 grey levels in [0, 255], each the mean over its area."""
    rows, columns = _area_weights(frames.shape[1], height), _area_weights(frames.shape[2], width).T
    grey = np.empty((len(frames), height, width))
    for out, frame in zip(grey, frames, strict=True):
        luma = frame @ LUMA
        out[:] = luma if luma.shape == out.shape else rows @ luma @ columns
    return grey


@lru_cache
def _area_weights(n_in: int, n_out: int) -> np.ndarray:
    """Which share of each input pixel makes up an output pixel, along one axis: (n_out, n_in), rows of sum 1."""
    edges = np.arange(n_out + 1) * (n_in / n_out)
    pixels = np.arange(n_in)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.maximum(overlap, 0) * (n_out / n_in)
