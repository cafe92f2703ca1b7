"""The bins of cosmos-curate's dataset tree: by resolution, aspect ratio and duration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

NO_METADATA, NO_ASPECT_RATIO, NO_DURATION = "no_bin_metadata", "no_bin_aspect_ratio", "no_bin_duration"
"""Why a clip falls in no bin: its size, frames or rate are not known; it is too wide; it is too short."""

RESOLUTIONS = (("1080", 1080), ("720", 720), ("lt_720", 0))
"""Name, and the least of height and width."""

ASPECT_RATIOS = (("9_16", 0.65), ("3_4", 0.88), ("1_1", 1.16), ("4_3", 1.55), ("16_9", 10.0))
"""Name, and the largest width over height."""

DURATIONS = (("5_10", 5.0, 10.0), ("10_30", 10.0, 30.0), ("30_inf", 30.0, math.inf))
"""Name, and seconds from and to, both included; the first that fits counts."""

BINS = tuple(
    f"resolution_{resolution}/aspect_ratio_{ratio}/duration_{duration}"
    for resolution, _ in RESOLUTIONS
    for ratio, _ in ASPECT_RATIOS
    for duration, *_ in DURATIONS
)
"""Folders of the bins, in the order in which they are numbered."""


def bin_of(meta: Mapping[str, Any]) -> tuple[int, str]:
    """The number of the bin that a clip falls in, by its metadata, and ""; or -1 and why it falls in none.

    >>> BINS[bin_of({"width": 1920, "height": 1080, "num_frames": 250, "framerate": 25})[0]]
    'resolution_1080/aspect_ratio_16_9/duration_5_10'
    """
    values = [meta.get(name) for name in ("width", "height", "num_frames", "framerate")]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < math.inf for v in values):
        return -1, NO_METADATA
    width, height, n_frames, rate = map(float, values)  # type: ignore[arg-type]
    resolution = next(i for i, (_, least) in enumerate(RESOLUTIONS) if min(width, height) >= least)
    ratio = next((i for i, (_, most) in enumerate(ASPECT_RATIOS) if width / height <= most), None)
    if ratio is None:
        return -1, NO_ASPECT_RATIO
    seconds = n_frames / rate
    duration = next((i for i, (_, low, high) in enumerate(DURATIONS) if low <= seconds <= high), None)
    if duration is None:
        return -1, NO_DURATION
    return (resolution * len(ASPECT_RATIOS) + ratio) * len(DURATIONS) + duration, ""
