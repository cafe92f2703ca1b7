"""What can be counted of scores in one reading: each tally takes them piece by piece and holds no rows."""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from semdedup.dedup.threshold.rule import duplicate_mask, least_score, thresholds_reached


class Tally(Protocol):
    """Something that takes scores, and can be asked afterwards."""

    def take(self, file: int, start: int, scores: np.ndarray) -> None:
        """Take float32 scores of the rows `start` and after of the file of this number. Files come in order."""


class CountAt:
    """How many rows there are, and how many of them are duplicates at each eps. Cost: n log of the thresholds."""

    def __init__(self, thresholds: Sequence[float]) -> None:
        limits = np.array([least_score(eps) for eps in thresholds], dtype=np.float32)
        self._order = np.argsort(limits, kind="stable")
        self._limits = limits[self._order]
        self._between = np.zeros(len(limits) + 1, dtype=np.int64)

    def take(self, file: int, start: int, scores: np.ndarray) -> None:
        """See `Tally`."""
        places = thresholds_reached(scores, self._limits)
        self._between += np.bincount(places, minlength=len(self._between))

    @property
    def n_rows(self) -> int:
        """Rows that were taken."""
        return int(self._between.sum())

    @property
    def duplicates(self) -> list[int]:
        """Duplicates at each threshold, in the order that they were given."""
        counts = np.empty(len(self._limits), dtype=np.int64)
        counts[self._order] = self._between[::-1].cumsum()[::-1][1:]
        return counts.tolist()


class Histogram:
    """Rows with a score in each of `n_bins` equal bins of [0, 1]; the last one holds 1 too."""

    def __init__(self, n_bins: int = 100) -> None:
        self.counts = np.zeros(n_bins, dtype=np.int64)

    def take(self, file: int, start: int, scores: np.ndarray) -> None:
        """See `Tally`."""
        n_bins = len(self.counts)
        self.counts += np.bincount(np.minimum((scores * n_bins).astype(np.int64), n_bins - 1), minlength=n_bins)


class FileSizes:
    """Rows of each file, and how many of them are duplicates."""

    def __init__(self, n_files: int, eps: float) -> None:
        self.rows = np.zeros(n_files, dtype=np.int64)
        self.duplicates = np.zeros(n_files, dtype=np.int64)
        self._eps = eps

    def take(self, file: int, start: int, scores: np.ndarray) -> None:
        """See `Tally`."""
        self.rows[file] += len(scores)
        self.duplicates[file] += np.count_nonzero(duplicate_mask(scores, self._eps))


class Nearest:
    """The `n` rows whose score is nearest to a value, nearest first; rows that were compared with nothing are not
    among them. Of equally near ones the first that come."""

    def __init__(self, n: int, value: float | np.float32) -> None:
        self._n, self._value = n, np.float32(value)
        self._heap: list[tuple[float, int, int]] = []

    def take(self, file: int, start: int, scores: np.ndarray) -> None:
        """See `Tally`."""
        compared = np.flatnonzero(scores > 0)
        distances = np.abs(scores[compared] - self._value)
        if len(self._heap) == self._n:
            closer = distances < -self._heap[0][0] if self._n else np.zeros(len(distances), dtype=bool)
            compared, distances = compared[closer], distances[closer]
        for i in np.argsort(distances, kind="stable")[: self._n]:
            entry = (-float(distances[i]), -file, -(start + int(compared[i])))
            if len(self._heap) < self._n:
                heapq.heappush(self._heap, entry)
            else:
                heapq.heappushpop(self._heap, entry)

    @property
    def places(self) -> list[tuple[int, int]]:
        """File and row of each."""
        return [(-file, -row) for _, file, row in sorted(self._heap, reverse=True)]


def bounds_lines(pairs: Mapping[str, int]) -> list[tuple[str, str]]:
    """What the bounds left of the pairs of rows in different clusters, see `semdedup.dedup.kernels.join.Join`."""
    every = pairs.get("pairs", 0)
    if not every:
        return []
    left = {"by_margin": "  left by margins", "by_axes": "  left by leading coordinates", "matches": "  matches"}
    lines = [("pairs across clusters", f"{every:,}")]
    lines += [(words, f"{pairs.get(name, 0):,} ({pairs.get(name, 0) / every:.2g})") for name, words in left.items()]
    blocked = pairs.get("blocked", 0) / every
    return [*lines, ("  multiplied without margins", f"{blocked:.0%}, where that was cheaper")] if blocked else lines
