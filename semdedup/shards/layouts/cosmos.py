"""The bins of cosmos-curate's dataset tree: by resolution, aspect ratio and duration.

Its own bins leave out clips of less than 5 seconds, those wider than ten times their height, and those whose size or
length is not known, without a word. Here these have bins too: nothing is lost by the choice of a layout.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

RESOLUTIONS = (("1080", 1080), ("720", 720), ("lt_720", 0))
"""Name, and the least of height and width."""

ASPECT_RATIOS = (("9_16", 0.65), ("3_4", 0.88), ("1_1", 1.16), ("4_3", 1.55), ("16_9", math.inf))
"""Name, and the largest width over height."""

DURATIONS = (("lt_5", 0.0, 5.0), ("5_10", 5.0, 10.0), ("10_30", 10.0, 30.0), ("30_inf", 30.0, math.inf))
"""Name, and seconds from and to. Both ends are included, but for that of the first; the first that fits counts."""

BINS = (
    *(
        f"resolution_{resolution}/aspect_ratio_{ratio}/duration_{duration}"
        for resolution, _ in RESOLUTIONS
        for ratio, _ in ASPECT_RATIOS
        for duration, *_ in DURATIONS
    ),
    "resolution_unknown/aspect_ratio_unknown/duration_unknown",
)
"""Folders of the bins, in the order in which they are numbered. The last is for clips without usable metadata."""


def bin_of(meta: Mapping[str, Any]) -> int:
    """The number of the bin that a clip falls in, by its metadata.

    >>> BINS[bin_of({"width": 1920, "height": 1080, "num_frames": 250, "framerate": 25})]
    'resolution_1080/aspect_ratio_16_9/duration_5_10'
    """
    values = [meta.get(name) for name in ("width", "height", "num_frames", "framerate")]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < math.inf for v in values):
        return len(BINS) - 1
    width, height, n_frames, rate = map(float, values)  # type: ignore[arg-type]
    resolution = next(i for i, (_, least) in enumerate(RESOLUTIONS) if min(width, height) >= least)
    ratio = next(i for i, (_, most) in enumerate(ASPECT_RATIOS) if width / height <= most)
    seconds = n_frames / rate
    short = seconds < DURATIONS[0][2]
    duration = 0 if short else next(i for i, (_, low, high) in enumerate(DURATIONS) if i and low <= seconds <= high)
    return (resolution * len(ASPECT_RATIOS) + ratio) * len(DURATIONS) + duration
