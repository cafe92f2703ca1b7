"""Black bars around a picture, above and below, left and right: where the content is that they surround.

A bar is black, nearly even, stands for the whole time, and ends in a straight line at something brighter. Dark scenes,
fades from black and titles on black are none: where there is doubt, the whole picture is the content. Bars that are
coloured, white or a blurred copy of the picture are not looked for.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

DARKEST = 32.0
"""Grey levels of 255. A bar is no brighter: black in the wrong range is 16, of a brightened copy about 20."""

TOLERANCE = 6.0
"""Grey levels by which a pixel of a bar may be brighter than black, in a small picture. Encoders add 1 to 4."""

CLEAN = 0.02
"""A line is clean in a picture in which no larger share of it is brighter than black."""

MOST_OF_THE_TIME = 0.8
"""A line is clean if it is so in this share of the pictures: words in a bar come and go."""

JUMP = 0.3
"""Least that is seen beyond the straight edge of a bar, as a share of the line of which most is seen."""

WORDS = 0.4
"""Most that is seen of the area of a bar, by the same measure: of one with words or a mark in it."""

MARK = 1 / 8
"""Lines of words, or a mark, take no larger share of a side."""

LEAST_CONTENT = 0.25
"""Where less of a side would remain, it is no picture between bars: 16:9 in 9:16 leaves 0.32."""

LEAST_SEEN = 0.05
"""A picture of which a smaller share is brighter than black says nothing about bars."""


class Box(NamedTuple):
    """Where the content of a picture is: edges as shares of its height and width, from the top and the left."""

    top: float = 0.0
    bottom: float = 1.0
    left: float = 0.0
    right: float = 1.0


WHOLE = Box()


def line_levels(grey: np.ndarray) -> np.ndarray:
    """What tells of each line of a picture whether it may lie in a bar.

    Args:
        grey: (..., h, w) grey levels in [0, 255], small pictures: 48 to 128 pixels a side, averaged over areas.

    Returns:
        (..., 2, h + w) float32, of the rows and then of the columns: how far the mean of the line is above black, and
        the share of its pixels that are brighter than black. Black is the mean of the darkest line.
    """
    grey = np.asarray(grey, dtype=np.float32)
    means = np.concatenate([grey.mean(axis=-1), grey.mean(axis=-2)], axis=-1)
    black = np.minimum(means.min(axis=-1, keepdims=True), DARKEST)
    seen = grey > (black + np.float32(TOLERANCE))[..., None]
    shares = np.concatenate([seen.mean(axis=-1, dtype=np.float32), seen.mean(axis=-2, dtype=np.float32)], axis=-1)
    return np.stack([means - black, shares], axis=-2)


def content_box(levels: np.ndarray, height: int, width: int) -> Box:
    """Where the content is in all pictures of a stretch of time.

    Args:
        levels: (t, 2, h + w), `line_levels` of its pictures.
        height: h.
        width: w.
    """
    levels = levels[levels[:, 1, :height].mean(axis=1) >= LEAST_SEEN]
    if not len(levels):
        return WHOLE
    rows, columns = _content(levels[..., :height]), _content(levels[..., height:])
    if min(rows[1] - rows[0], columns[1] - columns[0]) < LEAST_CONTENT:
        return WHOLE
    return Box(*rows, *columns)


def _content(levels: np.ndarray) -> tuple[float, float]:
    """Where the content begins and ends along one axis, as shares of the n lines of `levels` (t, 2, n)."""
    heights, shares = levels.mean(axis=0)[0], np.median(levels[:, 1], axis=0)
    clean = (levels[:, 1] <= CLEAN).mean(axis=0) >= MOST_OF_THE_TIME
    shares = shares / max(float(shares.max()), CLEAN)
    n = len(shares)
    return _bar(heights, shares, clean) / n, 1 - _bar(heights[::-1], shares[::-1], clean[::-1]) / n


def _bar(heights: np.ndarray, shares: np.ndarray, clean: np.ndarray) -> float:
    """Lines of the bar at the beginning, with the part that it takes of the line in which it ends."""
    found, n = 0, len(shares)
    for edge in np.flatnonzero(clean[:-2] & ~clean[1:-1]) + 1:
        if shares[:edge].mean() > WORDS:
            break
        if shares[edge : edge + 2].max() >= JUMP:
            found = int(edge)
        if not clean[edge : edge + int(n * MARK) + 1].any():
            break
    if not found:
        return 0.0
    outside, inside = float(heights[found - 1]), float(heights[found + 1])
    shown = (float(heights[found]) - outside) / max(inside - outside, 1.0)
    return found + 1 - min(max(shown, 0.0), 1.0)
