"""The exact answer, by NumPy in float64 and nothing of semdedup: what everybody is held to in `decisions`."""

from typing import NamedTuple

import numpy as np

BLOCK = 1024


class Answer(NamedTuple):
    """Of n rows of length 1, best-ranked first, and an eps.

    Attributes:
        pairs: (p, 2) int64, those whose similarity is at least 1 - eps, the better-ranked row first, in order.
        any: (n,) which rows go because they match a better-ranked one.
        witness: (n,) which rows go because they match a better-ranked one that stays.
    """

    pairs: np.ndarray
    any: np.ndarray
    witness: np.ndarray


def exact_answer(rows: np.ndarray, eps: float) -> Answer:
    """Similarities are rounded to float32, as tables have them, and compared with 1 - eps in float32.

    Takes n²·d operations in float64, and a block of products of memory.
    """
    doubles, least = rows.astype(np.float64), np.float32(1 - eps)
    found = [np.empty((0, 2), dtype=np.int64)]
    for start in range(0, len(rows), BLOCK):
        block = doubles[start : start + BLOCK]
        product = np.triu(doubles[: start + len(block)] @ block.T, 1 - start)  # 0 where a row is not better-ranked
        better, worse = np.nonzero(product.astype(np.float32) >= least)
        found.append(np.stack([better, worse + start], axis=1))
    pairs = np.concatenate(found)
    goes = np.zeros(len(rows), dtype=bool)
    goes[pairs[:, 1]] = True
    return Answer(pairs[np.lexsort(pairs.T[::-1])], goes, _without_witness(len(rows), pairs))


def _without_witness(n: int, pairs: np.ndarray) -> np.ndarray:
    """Row by row in rank order: one goes if a row that stays is among its better-ranked matches."""
    goes = np.zeros(n, dtype=bool)
    by_worse = pairs[np.argsort(pairs[:, 1], kind="stable")]
    for better, worse in by_worse.tolist():
        if not goes[better]:
            goes[worse] = True
    return goes


class Difference(NamedTuple):
    """What an answer misses of the exact one, and what it has beyond it."""

    missed: int
    wrong: int
    of: int

    def __str__(self) -> str:
        return f"{self.missed:,} / {self.wrong:,} of {self.of:,}"


def difference_of_rows(goes: np.ndarray, exact: np.ndarray) -> Difference:
    """Of two (n,) truths: rows that should go and stay, and rows that should stay and go."""
    return Difference(int((exact & ~goes).sum()), int((goes & ~exact).sum()), int(exact.sum()))


def difference_of_pairs(pairs: np.ndarray, exact: np.ndarray) -> Difference:
    """Of two lists (p, 2) of pairs without order; what is listed twice counts once."""
    ours, theirs = ({(int(a), int(b)) for a, b in np.sort(each, axis=1)} for each in (pairs, exact))
    return Difference(len(theirs - ours), len(ours - theirs), len(theirs))
