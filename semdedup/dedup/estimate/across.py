"""What finding every match across clusters costs: the bounds tried on a few thousand rows, and what they leave of all.

Of few rows of each cluster the one that is nearest to another cluster is farther from it than of many: the bounds leave
a smaller share of the pairs of few rows. How this share grows is seen on half of the rows, and growth itself wanes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from semdedup.arrays import to_host
from semdedup.dedup.cluster.fit import load_centroids
from semdedup.dedup.cluster.shuffle import Assignment, piece_file, piece_schema
from semdedup.dedup.estimate.pieces import timed
from semdedup.dedup.input.rows import embedding_rows
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.kernels.bounds import principal_axes, short_rows, short_width
from semdedup.dedup.kernels.exact import exact_scores
from semdedup.dedup.kernels.join import NANOSECONDS_A_RECTANGLE, Join, Margins, Side
from semdedup.dedup.threshold.rule import least_score
from semdedup.storage.chunks import read_every_chunk
from semdedup.storage.location import Location

CLUSTERS = 128
"""Most clusters whose rows the bounds are tried on."""

PIECES = 4
"""Most pieces whose rows they are tried on."""

REPEATED = 4
"""Times that the rows are repeated to see what margins and products cost a row."""

AREA_WANES, CHOSEN_WANES = 0.8, 0.72
"""The growth of what margins leave from one doubling of the rows to the next, as powers of the one before; measured
between 2,048 and 200,000 rows of sentence embeddings: of pairs of rows, and of pairs of clusters."""

RECTANGLES, HALVED = 2, 0.5
"""Products for each pair of clusters, and the share of the pairs of rows that dividing by the margins leaves."""

APART = 1e30
"""A price of a pair of rows at which clusters are looked at two by two."""


@dataclass(frozen=True)
class Across:
    """What the bounds left at one eps, and seconds of one thread.

    Attributes:
        eps: the threshold.
        rows, clusters: rows that they were tried on, and the clusters that these are of.
        area, chosen: pairs of rows and pairs of clusters that margins left, of half of the rows and of all.
        survivors: share of the pairs of rows that leading coordinates left.
        margin: seconds for the margin of a row and a cluster.
        pair, decided: seconds of a short product, and of an exact score.
        byte: seconds to write and to read a byte of the blocks.
    """

    eps: float
    rows: int
    clusters: int
    area: tuple[float, float]
    chosen: tuple[int, int]
    survivors: float
    margin: float
    pair: float
    decided: float
    byte: float


def measure_across(work: Workspace, clusters: Assignment, labelled: Sequence[Location], eps: float) -> Across | None:
    """Try the bounds on rows that pieces of the assignment labelled; None where they are of less than two clusters."""
    rows, labels = _some_clusters(work, clusters, labelled)
    if len(np.unique(labels)) < 2:
        return None
    centroids = np.asarray(to_host(load_centroids(clusters.centroids, clusters.digest, clusters.backend)))
    width, least = short_width(clusters.dim, eps) or clusters.dim, least_score(eps)
    short = short_rows(rows, principal_axes(rows, width - 1))
    whole = _side(rows, short, labels, centroids)
    every_other = _side(rows[::2], short[::2], labels[::2], centroids)
    half = Margins(every_other, every_other, least, APART)
    margins, once = timed(lambda: Margins(whole, whole, least, APART))
    copies = np.repeat(np.arange(len(rows)), REPEATED)
    several = _side(rows[copies], short[copies], labels[copies], centroids)
    _, often = timed(lambda: Margins(several, several, least, APART))
    join = _blocked(whole, least)
    sum(len(found.left) for found in join.pairs())
    again = _blocked(several, least)
    _, joining = timed(lambda: sum(len(found.left) for found in again.pairs()))
    others = np.random.default_rng(1).permutation(len(rows))
    _, deciding = timed(lambda: exact_scores(rows, rows, np.arange(len(rows)), others))
    place = labelled[0] / f"block-{eps}"
    _, writing = timed(lambda: place.write_bytes(rows.tobytes()))
    _, reading = timed(place.read_bytes)
    return Across(
        eps=eps,
        rows=len(rows),
        clusters=len(whole.starts) - 1,
        area=(half.area, margins.area),
        chosen=(len(half.chosen), len(margins.chosen)),
        survivors=join.counts["by_axes"] / max(1, join.counts["pairs"]),
        margin=max(0.0, often - once) / (2 * (REPEATED - 1) * len(rows) * (len(whole.starts) - 1)),
        pair=2 * max(0.0, joining - again.counts["by_axes"] * deciding / len(rows)) / len(copies) ** 2,
        decided=deciding / len(rows),
        byte=(writing + reading) / rows.nbytes,
    )


def _blocked(side: Side, least: np.float32) -> Join:
    """The join of the rows of different clusters that does not look at margins."""
    side = side._replace(centroids=None)
    return Join(side, side, least)


def _some_clusters(
    work: Workspace, clusters: Assignment, labelled: Sequence[Location]
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of pieces, of `CLUSTERS` clusters at random, and their labels, in the order of these."""
    pieces = [Workspace(work.schema, work.inputs, place, {}) for place in labelled[:PIECES]]
    batches = [batch for piece in pieces for batch in read_every_chunk(piece_file(piece, 0))]
    table = pa.Table.from_batches(batches, piece_schema(work.schema))
    labels = table.column("centroid").to_numpy()
    rows, _ = embedding_rows(table.column("embedding"), clusters.dim)
    order = np.argsort(labels, kind="stable")
    some = np.random.default_rng(0).permutation(np.unique(labels))[:CLUSTERS]
    chosen = order[np.isin(labels[order], some)]
    return rows[chosen], labels[chosen]


def _side(rows: np.ndarray, short: np.ndarray, labels: np.ndarray, centroids: np.ndarray) -> Side:
    found, starts = np.unique(labels, return_index=True)
    return Side(rows, short, np.append(starts, len(rows)), centroids[found])


def grown(half: float, whole: float, doubling: float, wanes: float, n_doublings: float) -> float:
    """What a number that was counted for half of some rows, and for all of them, is after more doublings.

    Args:
        doubling: the factor of a doubling that goes without saying.
        wanes: the power to which the rest of the factor is raised from one doubling to the next.

    >>> grown(1, 4, 4, 0.8, 3)
    256.0
    """
    if not half or not whole:
        return whole * doubling**n_doublings
    rest = max(1.0, whole / half / doubling)
    exponent = wanes * (1 - wanes**n_doublings) / (1 - wanes)
    return float(whole * doubling**n_doublings * rest**exponent)


def across_seconds(found: Across, n_rows: int, n_clusters: int, n_blocks: int, dim: int) -> float:
    """Seconds of one thread to find all matches across clusters, beyond the comparison within them."""
    share = found.clusters / n_clusters
    doublings = max(0.0, float(np.log2(n_rows * share / found.rows)))
    every = n_rows**2 / 2
    area = min(every, HALVED * grown(*found.area, 4, AREA_WANES, doublings) / share**2)
    pairs = min(n_clusters * (n_clusters - 1) / 2, grown(*found.chosen, 1, CHOSEN_WANES, doublings) / share**2)
    by_margins = area * found.pair + RECTANGLES * pairs * NANOSECONDS_A_RECTANGLE * 1e-9
    decided = found.survivors * every * found.decided
    copied = found.byte * across_bytes(n_rows, n_blocks, dim, found.eps)
    return found.margin * n_rows * n_clusters + min(by_margins, every * found.pair) + decided + copied


def across_bytes(n_rows: int, n_blocks: int, dim: int, eps: float) -> float:
    """Bytes of blocks that are read: each block with each other one."""
    return 4.0 * (dim + (short_width(dim, eps) or dim)) * n_rows * n_blocks
