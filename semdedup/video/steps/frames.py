"""Frames of clips as arrays: choosing some of them, and averaging them down to grey levels."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from semdedup.video.bars import WHOLE, Box

Frames = np.ndarray
"""Frames of a clip: (t, h, w, 3) uint8, RGB."""

LUMA = np.array([299, 587, 114], dtype=np.float32)
"""Thousandths, ITU-R BT.601. Sums of these with bytes are whole numbers that float32 holds exactly, in any order."""

AT_A_TIME = 2**18
"""Pixels that are held as grey levels in full size: frames may be large."""


def spread(frames: np.ndarray, n: int) -> np.ndarray:
    """Return n frames of a clip, at the midpoints of n equal parts; some twice where it has fewer.

    >>> spread(np.arange(6), 3)
    array([1, 3, 5])
    """
    t = len(frames)
    return frames if t == n else frames[(2 * np.arange(n) + 1) * t // (2 * n)]


def shrink(frames: np.ndarray, height: int, width: int) -> np.ndarray:
    """Frames as (t, height, width) float64 grey levels in [0, 255], each the mean over its area."""
    grey = np.empty((len(frames), height, width))
    step = max(1, AT_A_TIME // max(1, frames[:1].size // 3))
    for i in range(0, len(frames), step):
        grey[i : i + step] = averaged(frames[i : i + step] @ LUMA / np.float32(1000), height, width)
    return grey


def averaged(grey: np.ndarray, height: int, width: int, box: Box = WHOLE) -> np.ndarray:
    """Pictures (..., h, w) of grey levels as (..., height, width) float64, each the mean over its area of the box.

    What is outside of the box is taken for black: in a line at its edge it has made the content darker, and the next
    line stands in for what is missing.
    """
    h, w = grey.shape[-2:]
    if box == WHOLE and (h, w) == (height, width):
        return grey.astype(np.float64, copy=False)
    return _area_weights(h, height, box.top, box.bottom) @ grey @ _area_weights(w, width, box.left, box.right).T


@lru_cache
def _area_weights(n_in: int, n_out: int, start: float, end: float) -> np.ndarray:
    """Which share of each input pixel makes up an output pixel, along one axis: (n_out, n_in).

    Outputs are equal parts of what lies between start and end, which are shares of the axis. Rows have the sum 1, but
    for those with a pixel that is partly black.
    """
    edges = n_in * np.linspace(start, end, n_out + 1)
    pixels = np.arange(n_in)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.maximum(overlap, 0) / (edges[1] - edges[0])
    first, last = int(edges[0]), int(np.ceil(edges[-1])) - 1
    for pixel, black, inner in ((first, edges[0] - first, first + 1), (last, last + 1 - edges[-1], last - 1)):
        if black > 0:
            weights[:, inner] += black * weights[:, pixel]
    return weights
