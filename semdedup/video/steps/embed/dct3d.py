"""An embedding that needs no model: signs of the lowest frequencies of a clip in time and space. It finds copies.

Copies that were encoded again, scaled, brightened or given a logo keep most of these signs. Black bars around the
picture are cut off before. A shift in time of a second does not leave enough of the signs. It knows nothing of meaning:
a mirrored clip, or another recording of the same scene, is a different clip.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from scipy.fft import dctn

from semdedup.video.bars import content_box, line_levels
from semdedup.video.steps.frames import averaged, shrink, spread

VERSION = 2
"""Embeddings of different versions are not compared. 1: black bars were left in the picture."""

N_FRAMES = 16
SEEN_SIDE = 64
"""Pixels a side in which bars are looked for: at 32 a mark in a bar leaves no line of it clean."""

SIDE = 32
BLOCK = (6, 8, 8)
"""Frequencies kept along t, y, x: 384 of 16 x 32 x 32."""

DIM = BLOCK[0] * BLOCK[1] * BLOCK[2]

RECOMMENDED_EPS = 48.5 / 96
"""A duplicate scores at least 1 - eps = 47.5/96 = 0.495.

The median splits 384 values 192 : 192. If two clips share `a` of their plus signs, they differ in 192 - a places of
either kind and share `a` minus signs, so that their product is (2a - 2(192 - a)) / 384 = a/96 - 1: scores are multiples
of 1/96. 47.5/96 lies between two of them, where no rounding of a score can move it over the threshold: it asks for
48/96, three quarters of the signs. Different clips share half of them give or take 2.6 % (1/2/sqrt(384)).
"""

STILL_RMS = 2.0
"""Below this root mean square of its temporal frequencies (of grey levels, orthonormal) a clip is a still picture.

Measured on four public videos: 0 to 2 where one frame is repeated and encoded (x264, crf 18 to 30, a key frame every
half second), 21 to 290 where they move. Higher would take dark clips with little motion for stills.
"""


def dct3d(frames: np.ndarray) -> np.ndarray:
    """Embed one clip: `dct3d_batch` of it."""
    return dct3d_batch([frames])[0]


def dct3d_batch(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Embed clips: what is between black bars, where there are some. Cost: about a millisecond a clip.

    The idea of hashing the signs of a 3-D DCT is that of vid_dup_finder (https://github.com/Farmadupe/vid_dup_finder_lib).

    Args:
        clips: n arrays (t, h, w, 3) uint8, RGB; best 16 frames of 64 x 64, larger ones are averaged down to that.

    Returns:
        (n, 384) float32 of +-1/sqrt(384), hence of norm 1.
    """
    cubes = np.stack([_content(spread(frames, N_FRAMES)) for frames in clips])
    block = dctn(cubes, axes=(1, 2, 3), norm="ortho")[:, : BLOCK[0], : BLOCK[1], : BLOCK[2]]
    values = block.reshape(len(block), DIM).copy()
    # Every temporal frequency of a still is 0: 5 signs of 6 would be the same in all of them, whatever they show.
    still = np.sqrt(np.mean(block[:, 1:] ** 2, axis=(1, 2, 3))) < STILL_RMS
    if still.any():
        values[still] = dctn(cubes[still].mean(axis=1), axes=(1, 2), norm="ortho")[:, *_lowest_of_a_picture()]
    signs = np.where(values > np.median(values, axis=1, keepdims=True), 1.0, -1.0)
    return (signs / np.sqrt(DIM)).astype(np.float32)


def _content(frames: np.ndarray) -> np.ndarray:
    """What is between black bars: frames (t, h, w, 3) as (t, 32, 32) grey levels."""
    grey = shrink(frames, *(min(side, SEEN_SIDE) for side in frames.shape[1:3]))
    return averaged(grey, SIDE, SIDE, content_box(line_levels(grey), *grey.shape[1:]))


@lru_cache
def _lowest_of_a_picture() -> tuple[np.ndarray, np.ndarray]:
    """The 384 lowest of the 32 x 32 frequencies of a picture, by y + x."""
    y, x = np.divmod(np.argsort(np.add.outer(np.arange(SIDE), np.arange(SIDE)), axis=None, kind="stable")[:DIM], SIDE)
    return y, x
