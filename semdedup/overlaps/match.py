"""Stretches of time that two videos share, by their tracks. Arrays in, arrays out."""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np


class Tracks(NamedTuple):
    """Tracks of some videos, one after the other.

    Attributes:
        vectors: (n, 64) int8; row i of a video is at (i + 0.5) / 2 s.
        starts: (v + 1,) int64, rows starts[k]:starts[k+1] are those of video k.
    """

    vectors: np.ndarray
    starts: np.ndarray


class Stretches(NamedTuple):
    """Overlaps, in columns of equal length, sorted by a, b, start_a_s, start_b_s.

    Attributes:
        a, b: int64, the video of the one and of the other set.
        start_a_s, end_a_s, start_b_s, end_b_s, speed, score: float64.
        mirrored: bool.
    """

    a: np.ndarray
    start_a_s: np.ndarray
    end_a_s: np.ndarray
    b: np.ndarray
    start_b_s: np.ndarray
    end_b_s: np.ndarray
    speed: np.ndarray
    score: np.ndarray
    mirrored: np.ndarray


LEAST_ROWS, LEAST_COSINE = 6, 0.9


def find_stretches(one: Tracks, other: Tracks, mirror: bool = False) -> Stretches:
    """Runs of at least `LEAST_ROWS` rows whose cosines are at least `LEAST_COSINE`.

    Where one is other: every pair of its videos once (a < b), and each video with itself (start_a_s < start_b_s).
    """
    rows = []
    left, right = _units(one.vectors), _units(other.vectors)
    for a, (start, stop) in enumerate(pairwise(one.starts.tolist())):
        for b, (start_b, stop_b) in enumerate(pairwise(other.starts.tolist())):
            if one is other and a > b:
                continue
            cosines = left[start:stop] @ right[start_b:stop_b].T
            least = 1 if one is other and a == b else -(stop - start)
            offsets = np.subtract.outer(-np.arange(stop - start), -np.arange(stop_b - start_b))[cosines >= LEAST_COSINE]
            for offset in np.unique(offsets[offsets >= least]).tolist():
                rows += [(a, i / 2, j / 2, b, (i + offset) / 2, (j + offset) / 2, 1.0, score, False)
                         for i, j, score in _runs(np.diagonal(cosines, offset), max(0, -offset))]  # fmt: skip
    rows.sort(key=lambda row: (row[0], row[3], row[1], row[4]))
    columns = list(zip(*rows, strict=True)) or [()] * len(Stretches._fields)
    kinds = (np.int64, float, float, np.int64, float, float, float, float, bool)
    return Stretches(*(np.array(column, dtype=kind) for column, kind in zip(columns, kinds, strict=True)))


def _units(vectors: np.ndarray) -> np.ndarray:
    rows = vectors.astype(np.float64)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def _runs(cosines: np.ndarray, first: int) -> list[tuple[int, int, float]]:
    """First and last row (exclusive) and mean cosine of each run, counted from `first`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], cosines >= LEAST_COSINE, [0]])))
    return [(first + int(i), first + int(j), float(cosines[i:j].mean()))
            for i, j in edges.reshape(-1, 2) if j - i >= LEAST_ROWS]  # fmt: skip
