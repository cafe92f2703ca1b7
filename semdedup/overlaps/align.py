"""How two tracks go together: a vote on offset and speed, and how far the stretch goes that they share.

Positions are rows, of which a second has two; by a *line* row x of b shows what row ``offset + speed * x`` of a shows.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from semdedup.video.fingerprint import moves

FASTEST = 0.06
"""Speeds that are tried: from 1 - FASTEST to 1 + FASTEST."""

SPEED_STEP = 0.01

NEAR = 1.5
"""Rows by which a match may be off a line that it votes for."""

LEAST_VOTES = 4
"""Matches near a line, fewer of which are chance."""

SHARED = 0.4
"""Cosine of rows above which a stretch goes on, and below which it loses."""

DROP = 3.0
"""A stretch ends where it would lose so much, of cosines less `SHARED`, before it gains again."""

LEAST_GAIN = 2.2
"""Least sum of cosines, each less `SHARED`, of a stretch."""

LEAST_ROWS = 5
"""Least rows of a stretch that move, and have a fingerprint on both sides."""

SHIFTS = (3, 4, 5, 6, 7)
"""Rows by which a stretch is shifted, either way, to see whether it goes on being alike: then it hardly changes."""

LEAST_CONTRAST = 0.5
"""How much of what most of these shifts leave to 1 the mean cosine has to make up for: a camera that stands sees much
the same at any time."""

LIKELIER = 0.01
"""By how much a mean cosine may be smaller at a speed of 1, and that is taken."""

ROWS_OF_A_FIT = 64
"""Rows of a stretch that a line is fitted by, at most."""

NEARBY = 8
"""Rows of a near a line that are looked at for each row of b."""

LEAST_OF_LONG, LONG = 0.2, 5.0
"""Or it is larger by so much, and by so much in the sum over all rows, in different videos: a copy that is little like
its source, but for long."""

LEAST_APART = 6
"""Rows of one video that are nearer than this are of the same moment."""


class Line(NamedTuple):
    """Row x of b goes with row ``offset + speed * x`` of a."""

    offset: float
    speed: float

    def at(self, rows: np.ndarray) -> np.ndarray:
        """Rows of a, not whole, that go with rows of b."""
        return self.offset + self.speed * rows


class Aligned(NamedTuple):
    """A stretch that two tracks share.

    Attributes:
        first, last: rows of b that go with a.
        start, end: where it begins and ends among the rows of b, of which row x goes from x to x + 1.
        line: what they go with.
        score: their mean cosine.
    """

    first: int
    last: int
    start: float
    end: float
    line: Line
    score: float

    @property
    def of_a(self) -> tuple[float, float]:
        """Where it begins and ends among the rows of a."""
        start, end = self.line.at(np.array([self.start, self.end]) - 0.5) + 0.5
        return float(start), float(end)


class Votes(NamedTuple):
    """Matches of two tracks: a row of a, a row of b, and their cosine, (p,) each."""

    a: np.ndarray
    b: np.ndarray
    score: np.ndarray

    def where(self, chosen: np.ndarray | slice) -> Votes:
        """Some of them."""
        return Votes(self.a[chosen], self.b[chosen], self.score[chosen])


def align(a: np.ndarray, b: np.ndarray, votes: Votes, within: bool) -> list[Aligned]:
    """Every stretch that two tracks share.

    Args:
        a: (n, 64) float32, rows of length 1, or 0 where there is no fingerprint.
        b: (m, 64), likewise.
        votes: matches of them.
        within: whether both are the same; of a match a is the earlier row.

    Cost: O(p) for each speed and stretch, and O(n + m) a stretch.
    """
    votes = _peaks(votes)
    found: list[Aligned] = []
    while len(votes.a) >= LEAST_VOTES:
        line, n_votes = _best_line(votes)
        if n_votes < LEAST_VOTES:
            break
        near = np.abs(votes.a - line.at(votes.b)) <= NEAR
        grown = _grown(a, b, line, votes.where(near), within)
        done = near
        if grown is not None:
            distance = np.abs(votes.a - grown.line.at(votes.b))
            done = near | ((distance <= 4) & (votes.b >= grown.first) & (votes.b <= grown.last))
            if _is_shared(a, b, grown, within) and not any(_is_same(grown, other) for other in found):
                found.append(grown)
        votes = votes.where(~done)
    return found


def _peaks(votes: Votes) -> Votes:
    """Of matches of one row of b with rows of a that follow each other the best one."""
    votes = votes.where(np.lexsort((votes.a, votes.b)))
    keep = np.ones(len(votes.a), dtype=bool)
    for step in (1, 2):
        one, other = votes.where(slice(None, -step)), votes.where(slice(step, None))
        close = (one.b == other.b) & (other.a - one.a <= 2)
        keep[:-step] &= ~(close & (one.score < other.score))
        keep[step:] &= ~(close & (other.score <= one.score))
    return votes.where(keep)


def _best_line(votes: Votes) -> tuple[Line, int]:
    """The line that most matches are near to, and how many; of equal ones that whose speed is nearest to 1."""
    best, most = Line(0.0, 1.0), -1.0
    steps = round(FASTEST / SPEED_STEP)
    for step in sorted(range(-steps, steps + 1), key=abs):
        speed = 1 + step * SPEED_STEP
        offsets = votes.a - speed * votes.b
        lowest = np.floor(offsets.min())
        counts = np.bincount((offsets - lowest).astype(np.int64))
        together = np.convolve(counts, (1, 1, 1), mode="same")
        at = int(together.argmax())
        if together[at] - bool(step) > most:
            best, most = Line(lowest + at + 0.5, speed), float(together[at] - bool(step))
    return best, int(most)


def _grown(a: np.ndarray, b: np.ndarray, line: Line, votes: Votes, within: bool) -> Aligned | None:
    """The stretch along a line from the matches near it, with a better line; None where there is none."""
    first, last = _longest_run(votes.b)
    grown = None
    for _ in range(8):  # each time the line is better, and holds for longer
        line = _fitted(a, b, line, first, last)
        grown = _extended(a, b, line, first, last, within)
        if grown is None or (grown.first >= first - 1 and grown.last <= last + 1):
            break
        first, last = grown.first, grown.last
    return grown


def _longest_run(rows: np.ndarray) -> tuple[int, int]:
    """First and last of the most rows, sorted, without a gap of more than eight."""
    parts = np.split(rows, np.flatnonzero(np.diff(rows) > 8) + 1)
    most = max(parts, key=len)
    return int(most[0]), int(most[-1])


def _fitted(a: np.ndarray, b: np.ndarray, line: Line, first: int, last: int) -> Line:
    """The line near this one by which rows [first, last] of b go best with a; a speed of 1 is taken where it is as
    good, but for `LIKELIER`."""
    rows = np.unique(np.linspace(first, last, min(ROWS_OF_A_FIT, last - first + 1)).round().astype(np.int64))
    middle, half = (first + last) / 2, max(0.5, (last - first) / 2)
    nearby = _Nearby.of(a, b, line, rows)
    best, highest = line, -np.inf
    for reach in (1.0, 0.25, 0.0625):  # in rows: at the middle, and by speed at the ends
        around = np.linspace(-reach, reach, 9)
        speeds = np.append(best.speed + around / half, 1.0)
        speeds = speeds[np.abs(speeds - 1) <= FASTEST]
        at_middle = best.offset + best.speed * middle + around
        speed, centre = (part.ravel() for part in np.meshgrid(speeds, at_middle))
        scores = nearby.scores(centre - speed * middle, speed) + LIKELIER * (speed == 1.0)
        position = int(scores.argmax())
        if scores[position] > highest:
            best = Line(float(centre[position] - speed[position] * middle), float(speed[position]))
            highest = scores[position]
    return best


class _Nearby(NamedTuple):
    """Products of some rows of b with the rows of a near a line: all that it takes to try lines near that one.

    Attributes:
        rows: of b, (r,).
        low: first of the rows of a, (r,), of which each has `NEARBY`.
        products: (r, NEARBY); NaN where either has no fingerprint.
        steps: products of these rows of a with the next one, (r, NEARBY - 1).
    """

    rows: np.ndarray
    low: np.ndarray
    products: np.ndarray
    steps: np.ndarray

    @classmethod
    def of(cls, a: np.ndarray, b: np.ndarray, line: Line, rows: np.ndarray) -> _Nearby:
        """Around a line."""
        low = np.floor(line.at(rows)).astype(np.int64) - NEARBY // 2 + 1
        at = low[:, None] + np.arange(NEARBY)
        near = a[np.clip(at, 0, len(a) - 1)]
        products = np.einsum("rnd,rd->rn", near, b[rows])
        known = (at >= 0) & (at < len(a)) & near.any(axis=2) & b[rows].any(axis=1)[:, None]
        steps = np.einsum("rnd,rnd->rn", near[:, :-1], near[:, 1:])
        return cls(rows, low, np.where(known, products, np.nan), steps)

    def scores(self, offsets: np.ndarray, speeds: np.ndarray) -> np.ndarray:
        """The mean cosine by each of k lines, (k,); -1 by one that leads too far away."""
        at = offsets[:, None] + speeds[:, None] * self.rows - self.low
        below = np.clip(np.floor(at).astype(np.int64), 0, NEARBY - 2)
        share = at - below
        each = np.arange(len(self.rows))
        products = (1 - share) * self.products[each, below] + share * self.products[each, below + 1]
        squares = (1 - share) ** 2 + share**2 + 2 * share * (1 - share) * self.steps[each, below]
        cosines = products / np.sqrt(np.maximum(squares, 1e-6))
        cosines[(at < 0) | (at > NEARBY - 1)] = np.nan
        n_known = np.count_nonzero(~np.isnan(cosines), axis=1)
        enough = 2 * n_known > np.count_nonzero(~np.isnan(self.products).all(axis=1))
        return np.where(enough, np.nansum(cosines, axis=1) / np.maximum(n_known, 1), -1.0)


def _cosines(a: np.ndarray, b: np.ndarray, line: Line, rows: np.ndarray) -> np.ndarray:
    """Cosine of each of some rows of b with what goes with it in a; NaN where either has no fingerprint."""
    at = line.at(rows)
    low = np.floor(at).astype(np.int64)
    share = (at - low)[:, None].astype(np.float32)
    inside = (at >= -0.5) & (at <= len(a) - 0.5)
    below, above = a[np.clip(low, 0, len(a) - 1)], a[np.clip(low + 1, 0, len(a) - 1)]
    between = (1 - share) * below + share * above
    other = b[rows]
    cosines = np.einsum("ij,ij->i", between, other) / np.maximum(np.linalg.norm(between, axis=1), 1e-6)
    known = inside & below.any(axis=1) & above.any(axis=1) & other.any(axis=1)
    return np.where(known, cosines, np.nan)


def _extended(a: np.ndarray, b: np.ndarray, line: Line, first: int, last: int, within: bool) -> Aligned | None:
    """The stretch along a line around rows [first, last] of b, as far as it gains."""
    rows = np.arange(len(b))
    at = line.at(rows)
    allowed = (at >= -0.5) & (at <= len(a) - 0.5)
    if within:
        allowed &= rows - at >= LEAST_APART
    start, stop = _run_around(allowed, (first + last) // 2)
    if start >= stop:
        return None
    cosines = _cosines(a, b, line, rows[start:stop])
    gains = np.nan_to_num(cosines - SHARED, nan=0.0)
    centre = (first + last) // 2 - start
    end = centre + _furthest(gains[centre:])
    begin = centre - _furthest(gains[: centre + 1][::-1])
    inside = cosines[begin : end + 1]
    known = inside[~np.isnan(inside)]
    if not len(known):
        return None
    score = float(known.mean())
    edges = start + begin - _beyond(cosines[: begin + 1][::-1], score), start + end + 1 + _beyond(cosines[end:], score)
    return Aligned(start + begin, start + end, *edges, line, score)


def _beyond(cosines: np.ndarray, score: float) -> float:
    """How far a stretch goes on beyond its last row, the first of these, in rows.

    A fingerprint is made of what is seen a second before and after: at the edge of a stretch half of that is shared,
    and the cosine is about half of what it is inside.
    """
    half = score / 2
    if len(cosines) < 2 or np.isnan(cosines[:2]).any() or not cosines[0] > half > cosines[1]:
        return 0.0
    return float((cosines[0] - half) / (cosines[0] - cosines[1])) - 0.5


def _run_around(allowed: np.ndarray, row: int) -> tuple[int, int]:
    """Where the run of allowed rows around one begins and ends."""
    if not allowed[row]:
        return row, row
    other = np.concatenate([[-1], np.flatnonzero(~allowed), [len(allowed)]])
    position = int(np.searchsorted(other, row))
    return int(other[position - 1]) + 1, int(other[position])


def _furthest(gains: np.ndarray) -> int:
    """The position up to which the sum is largest, before it falls by `DROP`."""
    sums = np.cumsum(gains)
    highest = np.maximum.accumulate(sums)
    fallen = np.flatnonzero(sums < highest - DROP)
    return int(np.argmax(sums[: fallen[0]] if len(fallen) else sums))


def _is_shared(a: np.ndarray, b: np.ndarray, found: Aligned, within: bool) -> bool:
    """Whether a stretch is more than chance, and changes enough for its offset to be known; stills do not count."""
    rows = np.arange(found.first, found.last + 1)
    rows = rows[moves(b[rows])]
    cosines = _known(a, b, found.line, rows)
    if len(cosines) < LEAST_ROWS or (cosines - SHARED).sum() < LEAST_GAIN:
        return False
    shifts = (*SHIFTS, *(-shift for shift in SHIFTS))
    others = [_known(a, b, Line(found.line.offset + shift, found.line.speed), rows) for shift in shifts]
    shifted = [float(other.mean()) for other in others if len(other) >= LEAST_ROWS - 2]
    if not shifted:
        return True
    contrast = float(cosines.mean() - np.median(shifted))
    if not within and contrast >= LEAST_OF_LONG and contrast * len(cosines) >= LONG:
        return True
    return contrast >= LEAST_CONTRAST * (1 - float(np.median(shifted)))


def _known(a: np.ndarray, b: np.ndarray, line: Line, rows: np.ndarray) -> np.ndarray:
    """The cosines of some rows, where both sides have a fingerprint."""
    cosines = _cosines(a, b, line, rows)
    return cosines[~np.isnan(cosines)]


def _is_same(found: Aligned, other: Aligned) -> bool:
    """Whether a stretch is another one again, a little shifted: most of it, on both sides."""

    def share(one: tuple[float, float], two: tuple[float, float]) -> float:
        common = min(one[1], two[1]) - max(one[0], two[0])
        return common / max(1e-9, min(one[1] - one[0], two[1] - two[0]))

    in_b = share((found.start, found.end), (other.start, other.end))
    return in_b > 0.5 and share(found.of_a, other.of_a) > 0.5
