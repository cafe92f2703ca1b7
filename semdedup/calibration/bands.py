"""Bands of score: some pairs of each are judged, which tells of all pairs of the band.

A pair is a row of a table of scores, and the row that its score is about. Its band tells at which eps the row goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from semdedup.dedup.threshold.rule import least_score, thresholds_reached

EDGES = (0.0, 0.01, 0.02, 0.03, 0.05, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.7)
"""The eps between which the bands lie: narrow where models tell copies from others, wide where nobody drops."""

Place = tuple[int, int]
"""Number of a file, and of a row in it."""

_MIX = (np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
"""The constants of SplitMix64 (Steele, Lea and Flood, Fast splittable pseudorandom number generators, 2014)."""


@dataclass(frozen=True)
class Bands:
    """Bands of score, those of the highest scores first; rows of score 0 were compared with nothing and are in none.

    Attributes:
        edges: rising eps. Band 0 holds the rows that go at ``edges[0]``, band i those that go at ``edges[i]`` and not
            before, the last one those that go at none of them.
    """

    edges: tuple[float, ...]

    @classmethod
    def around(cls, eps: float, most: float | None = None) -> Bands:
        """The bands between `EDGES`, with an edge at an eps that is of interest and none close to it or beyond `most`.

        >>> Bands.around(0.51, 0.6).edges[-3:]
        (0.3, 0.4, 0.51)
        """
        others = [edge for edge in EDGES if edge == 0 or abs(edge - eps) > 0.1 * eps]
        return cls(tuple(edge for edge in sorted({*others, eps}) if most is None or edge <= most))

    def __len__(self) -> int:
        return len(self.edges) + 1

    def of(self, scores: np.ndarray) -> np.ndarray:
        """The band of each float32 score, (n,) int64; -1 for 0.

        >>> Bands((0.0, 0.1)).of(np.array([1, 0.95, 0.9, 0.5, 0], np.float32))
        array([ 0,  1,  1,  2, -1])
        """
        least = np.array([least_score(eps) for eps in reversed(self.edges)], np.float32)
        return np.where(scores > 0, len(self.edges) - thresholds_reached(scores, least), -1)


class BandSample:
    """Counts the rows of each band, and draws some of each at random, in one reading. It is a `tallies.Tally`.

    Each row gets a random number by its place, and those with the least numbers are drawn: the same table, the same
    sample. Memory: `most` rows of each band.
    """

    def __init__(self, bands: Bands, most: int) -> None:
        self.bands, self._most = bands, most
        self.sizes = np.zeros(len(bands), np.int64)
        self._drawn: list[list[tuple[int, Place]]] = [[] for _ in range(len(bands))]
        self._last = np.full(len(bands), np.iinfo(np.uint64).max, np.uint64)  # drawn, of bands that are full

    def take(self, file: int, start: int, scores: np.ndarray) -> None:
        """See `Tally`."""
        found = self.bands.of(scores)
        there = np.flatnonzero(found >= 0)
        self.sizes += np.bincount(found[there], minlength=len(self.bands))
        if not self._most:
            return
        numbers = _random_numbers(file, start + there)
        nearer = np.flatnonzero(numbers < self._last[found[there]])
        numbers, there = numbers[nearer], there[nearer]
        for band in np.unique(found[there]).tolist():
            inside = np.flatnonzero(found[there] == band)
            least = inside[np.argsort(numbers[inside], kind="stable")[: self._most]]
            new = [(int(numbers[i]), (file, start + int(there[i]))) for i in least]
            drawn = self._drawn[band] = sorted([*self._drawn[band], *new])[: self._most]
            if len(drawn) == self._most:
                self._last[band] = drawn[-1][0]

    def to_judge(self, n: int) -> list[Place]:
        """The places of at most `n` rows of all bands but the last: one of each band, then a second of each, and so on.

        Whoever judges them in this order, and stops somewhere, has judged as many of each band, and cannot tell by the
        order which is next.
        """
        turns = [(i, *numbered) for drawn in self._drawn[:-1] for i, numbered in enumerate(drawn)]
        return [place for _, _, place in sorted(turns)[:n]]

    @property
    def beyond(self) -> list[Place]:
        """The places of the rows drawn of the last band, which go at no eps that anybody chooses."""
        return [place for _, place in self._drawn[-1]]


def _random_numbers(file: int, rows: np.ndarray) -> np.ndarray:
    """A number for each row of a file, (n,) uint64, by SplitMix64."""
    with np.errstate(over="ignore"):
        x = (rows.astype(np.uint64) + np.uint64(1)) * _MIX[0] + np.uint64(file) * _MIX[1]
        x = (x ^ (x >> np.uint64(30))) * _MIX[1]
        x = (x ^ (x >> np.uint64(27))) * _MIX[2]
        return np.asarray(x ^ (x >> np.uint64(31)))


def describe(bands: Bands) -> Sequence[str]:
    """The scores of each band, in words.

    >>> describe(Bands((0.0, 0.1)))
    ['score 1', '0.9 to 1', 'below 0.9']
    """
    scores = [f"{1 - eps:.4g}" for eps in bands.edges]
    first = "score 1" if bands.edges[0] == 0 else f"{scores[0]} to 1"
    between = [f"{low} to {high}" for high, low in pairwise(scores)]
    return [first, *between, f"below {scores[-1]}"]
