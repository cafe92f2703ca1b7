"""Stretches of time that videos share, by their tracks: all matches of two sets of rows, and a vote. Arrays in and out.

The join is exact: every pair of rows that move and whose cosine reaches `LEAST` is found. What two videos show together
is then a line through their matches, whose slope is the speed; see `align`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from semdedup.dedup.kernels.matches import Pairs, matching_pairs, matching_pairs_within
from semdedup.overlaps.align import LEAST_APART, LEAST_VOTES, Aligned, Votes, align
from semdedup.video.fingerprint import PER_SECOND, mirrored, moves

LEAST = np.float32(0.6)
"""Cosine of two rows that match.

Measured on tracks of public videos and of 17 kinds of copies of them: of copies half the rows have 0.9 or more, and
nine tenths 0.8; of different videos a ten thousandth has 0.5.
"""

MOST_OF_A_ROW = 8
"""Matches of a row with one video that are kept, the best ones: in a video that hardly changes all would be."""

MOST_HELD = 1 << 22
"""Matches that are gathered before `MOST_OF_A_ROW` of each row are kept."""


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


class Stretch(NamedTuple):
    """One entry of `Stretches`."""

    a: int
    start_a_s: float
    end_a_s: float
    b: int
    start_b_s: float
    end_b_s: float
    speed: float
    score: float
    mirrored: bool


KINDS = (np.int64, *[np.float64] * 2, np.int64, *[np.float64] * 4, np.bool_)
"""Types of the columns of `Stretches`."""


def find_stretches(one: Tracks, other: Tracks, mirror: bool = False) -> Stretches:
    """Every stretch of time that a video of one set shares with a video of the other.

    Where one is other: every pair of its videos once (a < b), and each video with itself (start_a_s < start_b_s).

    Args:
        one, other: the tracks.
        mirror: find mirror images, too.

    Cost: 2·n·m·64 operations for n and m rows, and what the votes of videos with matches take. Memory: the rows as
    float32, `MOST_HELD` matches, and `MOST_OF_A_ROW` for each row and each video that it matches.
    """
    same = one is other
    left = _units(one.vectors)
    right = left if same else _units(other.vectors)
    found = list(_shared(left, one.starts, right, other.starts, same, False))
    if mirror:
        right = _units(mirrored(other.vectors))
        found = _without_lesser([*found, *_shared(left, one.starts, right, other.starts, same, True)])
    found.sort(key=lambda each: (each.a, each.b, each.start_a_s, each.start_b_s))
    columns = list(zip(*found, strict=True)) or [()] * len(KINDS)
    return Stretches(*(np.array(column, dtype=kind) for column, kind in zip(columns, KINDS, strict=True)))


def videos_of(starts: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """The video that each row is of."""
    return np.asarray(np.searchsorted(starts, rows, side="right") - 1)


def _shared(
    left: np.ndarray, left_starts: np.ndarray, right: np.ndarray, right_starts: np.ndarray, same: bool, mirror: bool
) -> Iterator[Stretch]:
    one = np.flatnonzero(moves(left))
    if same and not mirror:
        pairs, other = matching_pairs_within(left[one], LEAST), one
    else:
        other = np.flatnonzero(moves(right))
        pairs = matching_pairs(left[one], right[other], LEAST)
    every = (Pairs(one[part.left], other[part.right], part.score) for part in pairs)
    matches = _gathered(every, left_starts, right_starts, same)
    a, b = videos_of(left_starts, matches.left), videos_of(right_starts, matches.right)
    order = np.lexsort((matches.right, b, a))
    a, b, matches = a[order], b[order], Pairs(*(part[order] for part in matches))
    edges = np.flatnonzero((np.diff(a) != 0) | (np.diff(b) != 0)) + 1
    for start, stop in zip([0, *edges], [*edges, len(a)], strict=True):
        if stop - start < LEAST_VOTES:
            continue
        first, second = int(a[start]), int(b[start])
        from_a, from_b = left_starts[first], right_starts[second]
        votes = Votes(matches.left[start:stop] - from_a, matches.right[start:stop] - from_b, matches.score[start:stop])
        rows = left[from_a : left_starts[first + 1]], right[from_b : right_starts[second + 1]]
        within = same and first == second
        for each in align(*rows, votes, within):
            start_a_s, end_a_s, start_b_s, end_b_s = _times(each, *map(len, rows))
            line = each.line.speed, each.score
            yield Stretch(first, start_a_s, end_a_s, second, start_b_s, end_b_s, *line, mirror)


def _times(found: Aligned, n: int, m: int) -> tuple[float, float, float, float]:
    """Where a stretch begins and ends in a and in b, in seconds, within the videos of n and m rows."""
    (start_a, end_a), speed = found.of_a, found.line.speed
    before = max(0.0, -start_a / speed, -found.start)
    after = max(0.0, (end_a - n) / speed, found.end - m)
    edges = start_a + speed * before, end_a - speed * after, found.start + before, found.end - after
    start_a_s, end_a_s, start_b_s, end_b_s = (edge / PER_SECOND for edge in edges)
    return start_a_s, end_a_s, start_b_s, end_b_s


def _gathered(pairs: Iterator[Pairs], left_starts: np.ndarray, right_starts: np.ndarray, same: bool) -> Pairs:
    """Matches, of each row of the right at most `MOST_OF_A_ROW` with one video; of one set without those of a moment
    with itself, and each pair of videos once."""
    held: list[Pairs] = []
    number = 0
    for part in pairs:
        if same:
            a, b = videos_of(left_starts, part.left), videos_of(left_starts, part.right)
            wanted = (a < b) | ((a == b) & (part.right - part.left >= LEAST_APART))
            part = Pairs(*(values[wanted] for values in part))
        held.append(part)
        number += len(part.left)
        if number > MOST_HELD:
            held = [_best_of_rows(Pairs.together(held), left_starts)]
            number = 0
    return _best_of_rows(Pairs.together(held), left_starts)


def _best_of_rows(pairs: Pairs, left_starts: np.ndarray) -> Pairs:
    videos = videos_of(left_starts, pairs.left)
    order = np.lexsort((-pairs.score, videos, pairs.right))
    pairs, videos = Pairs(*(part[order] for part in pairs)), videos[order]
    begins = np.ones(len(order), dtype=bool)
    begins[1:] = (np.diff(videos) != 0) | (np.diff(pairs.right) != 0)
    starts = np.flatnonzero(begins)
    number = np.arange(len(order)) - np.repeat(starts, np.diff(np.append(starts, len(order))))
    return Pairs(*(part[number < MOST_OF_A_ROW] for part in pairs))


def _without_lesser(found: list[Stretch]) -> list[Stretch]:
    """Of stretches that are seen both ways, as in a picture that is symmetric, those with the higher score."""
    by_pair: dict[tuple[int, int], list[Stretch]] = {}
    for each in found:
        by_pair.setdefault((each.a, each.b), []).append(each)
    return [each for some in by_pair.values() for each in some if not any(_is_lesser(each, other) for other in some)]


def _is_lesser(each: Stretch, other: Stretch) -> bool:
    """Whether most of a stretch is seen better the other way; of equal scores the one that is not mirrored counts."""
    in_a = min(each.end_a_s, other.end_a_s) - max(each.start_a_s, other.start_a_s)
    in_b = min(each.end_b_s, other.end_b_s) - max(each.start_b_s, other.start_b_s)
    is_most = 2 * in_a > each.end_a_s - each.start_a_s and 2 * in_b > each.end_b_s - each.start_b_s
    is_better = (other.score, not other.mirrored) > (each.score, not each.mirrored)
    return each.mirrored != other.mirrored and is_most and is_better


def _units(vectors: np.ndarray) -> np.ndarray:
    """Rows as float32 of length 1; 0 stays."""
    rows = vectors.astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=rows, where=norms > 0)
