"""What a dedup must answer, by brute force in NumPy: scores, matching pairs, and the rules of removal.

Rows are (n, d) float32 of length 1 **in rank order over the whole input, best first**, so that positions are ranks.
All functions know these keywords:

    clusters: (n,) labels; rows of different ones are not compared. None: all rows are compared.
    base: the first so many rows are those that an earlier result kept: never removed, not compared with each other.
    low_information: (n,) bool; such rows match nothing.

Memory and time grow with n²; meant for a few thousand rows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import csr_array
from scipy.sparse.csgraph import connected_components


class Scores(NamedTuple):
    """The largest similarity of each row to a better-ranked one, (n,) float32, and that row's position, (n,) int64.

    Rows with which nothing is compared have 0 and themselves.
    """

    score: np.ndarray
    match: np.ndarray


class Removal(NamedTuple):
    """For each row the position of its witness, (n,) int64, -1 where it stays, and their similarity, (n,) float32."""

    witness: np.ndarray
    score: np.ndarray

    @property
    def removed(self) -> np.ndarray:
        return np.flatnonzero(self.witness >= 0)


class Pairs(NamedTuple):
    """Positions of the better-ranked rows, of the others, and similarities, ordered by the positions."""

    better: np.ndarray
    worse: np.ndarray
    score: np.ndarray


def ranked(
    clusters: pd.DataFrame, by: Sequence[str] = ("cosine_dist_to_cent",), ascending: Sequence[bool] = (False, False)
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Ids, rows and cluster labels of a table of clusters (``id``, ``embedding``, ``centroid``, `by`) in rank order.

    `ascending` has one more entry than `by`: the direction in which ids break ties.
    """
    table = clusters.sort_values([*by, "id"], ascending=list(ascending), na_position="last")
    rows = np.stack(table["embedding"]).astype(np.float32)
    return table["id"].to_numpy(), rows, table["centroid"].to_numpy()


def least_score(eps: float) -> np.float32:
    """The similarity from which on two rows match."""
    return np.float32(1 - float(eps))


def similarities(rows: np.ndarray) -> np.ndarray:
    """(n, n) float32: x·y in float64, clipped to [0, 1], rounded once; exactly 1 where rows are equal bit for bit."""
    doubles = rows.astype(np.float64)
    found = (doubles @ doubles.T).clip(0, 1).astype(np.float32)
    _, same = np.unique(np.ascontiguousarray(rows).view(np.uint32), axis=0, return_inverse=True)
    same = same.reshape(-1)  # NumPy 2.0 gives it the dimensions of the rows
    found[same[:, None] == same] = 1
    return found


def compared(
    n: int, clusters: np.ndarray | None = None, base: int = 0, low_information: np.ndarray | None = None
) -> np.ndarray:
    """(n, n) bool: whether row i is compared with row j, which ranks better."""
    mask = np.tri(n, k=-1, dtype=bool)
    mask[:base, :base] = False
    if clusters is not None:
        mask &= clusters[:, None] == clusters
    if low_information is not None:
        mask &= ~(low_information[:, None] | low_information)
    return mask


def _best(similarity: np.ndarray, mask: np.ndarray) -> Scores:
    """The best of each row where the mask holds; of equal ones the first, which ranks best."""
    among = np.where(mask, similarity, np.float32(-1))
    match, n = among.argmax(axis=1), np.arange(len(mask))
    none = ~mask.any(axis=1)
    return Scores(np.where(none, np.float32(0), among[n, match]), np.where(none, n, match))


def scores(
    rows: np.ndarray,
    clusters: np.ndarray | None = None,
    exact_up_to: float | None = None,
    base: int = 0,
    low_information: np.ndarray | None = None,
) -> Scores:
    """Scores within clusters; with `exact_up_to` those of the whole input where they reach its threshold."""
    similarity = similarities(rows)
    inside = _best(similarity, compared(len(rows), clusters, base, low_information))
    if exact_up_to is None:
        return inside
    anywhere = _best(similarity, compared(len(rows), None, base, low_information))
    reaches = anywhere.score >= least_score(exact_up_to)
    return Scores(*(np.where(reaches, a, b) for a, b in zip(anywhere, inside, strict=True)))


def pairs(
    rows: np.ndarray,
    eps: float,
    clusters: np.ndarray | None = None,
    base: int = 0,
    low_information: np.ndarray | None = None,
) -> Pairs:
    """All pairs that match."""
    similarity = similarities(rows)
    matching = compared(len(rows), clusters, base, low_information) & (similarity >= least_score(eps))
    better, worse = np.nonzero(matching.T)
    return Pairs(better, worse, similarity[worse, better])


def removal(
    rows: np.ndarray,
    eps: float,
    rule: str = "any",
    clusters: np.ndarray | None = None,
    base: int = 0,
    low_information: np.ndarray | None = None,
) -> Removal:
    """What the rules ``any``, ``witness`` and ``components`` remove; the witness of ``any`` is the best match.

    With `exact_up_to` all rows are compared at every eps up to it: no `clusters` then.
    """
    similarity = similarities(rows)
    mask = compared(len(rows), clusters, base, low_information)
    matching = mask & (similarity >= least_score(eps))
    if rule == "components":
        witness = _first_of_components(matching, base)
        goes = witness >= 0
        score = np.where(goes, similarity[np.arange(len(rows)), witness], np.float32(0))
        return Removal(witness, score)
    stays = np.ones(len(rows), dtype=bool)
    if rule == "witness":
        for i in range(len(rows)):  # best first: whether the rows before it stay is known
            matching[i] &= stays
            stays[i] = not matching[i].any()
    score, match = _best(similarity, matching)
    goes = matching.any(axis=1)
    return Removal(np.where(goes, match, -1), np.where(goes, score, np.float32(0)))


def _first_of_components(matching: np.ndarray, base: int) -> np.ndarray:
    """The best-ranked row of the component of each row that goes, -1 for rows that stay: the first, and all of base."""
    n, labels = connected_components(csr_array(matching), directed=False)
    first = np.full(n, len(labels))
    np.minimum.at(first, labels, np.arange(len(labels)))
    witness = first[labels]
    witness[witness == np.arange(len(labels))] = -1
    witness[:base] = -1
    return witness
