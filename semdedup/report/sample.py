"""The pairs that a page shows: some of every band of score, so that there are some around any eps, and their chains."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from semdedup.calibration.bands import Bands, BandSample
from semdedup.dedup.names import SCORE, cluster_of
from semdedup.dedup.results.checks import COLUMNS
from semdedup.dedup.results.pairs import Id, Pair
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.results.tallies import Nearest

N_JUDGED, N_BEYOND, N_NEAREST = 96, 4, 12
"""Pairs to judge, of the bands in which they go at some eps; pairs of the band beyond; and pairs nearest to the eps."""

MOST_LINKS = 3
"""Steps of a chain that are looked up beyond a pair: each is a reading of the ids of its cluster."""


@dataclass(frozen=True)
class PairSample:
    """Pairs of a table of scores.

    Attributes:
        bands: of score.
        sizes: rows of each band.
        pairs: highest scores first.
        to_judge: positions of those that were drawn at random from their bands, in the order in which to judge them.
        nearest: positions of those nearest to the eps of the page.
        known: rows by id: those of the pairs, and those that the chains from them lead to.
    """

    bands: Bands
    sizes: tuple[int, ...]
    pairs: tuple[Pair, ...] = ()
    to_judge: tuple[int, ...] = ()
    nearest: tuple[int, ...] = ()
    known: Mapping[Id, Pair] = field(default_factory=dict)

    @property
    def first(self) -> list[Pair]:
        """The pairs in the order in which they matter: those around the eps of the page, and those to judge."""
        order = dict.fromkeys([*self.nearest, *self.to_judge, *range(len(self.pairs))])
        return [self.pairs[i] for i in order]

    def chain(self, pair: Pair) -> list[Pair]:
        """The row that a pair's row is most like, the row that this one is most like, and so on, as far as is known."""
        found: list[Pair] = []
        row = self.known.get(pair.max_id)
        while row is not None and row not in found and row != pair:
            found.append(row)
            row = None if row.score <= 0 else self.known.get(row.max_id)
        return found


def read_sample(scores: Scores, drawn: BandSample, nearest: Nearest, everywhere: bool) -> PairSample:
    """Read the ids of the pairs that were drawn.

    Args:
        scores: the table.
        drawn: of it.
        nearest: pairs nearest to an eps.
        everywhere: whether a row may be most like one of another cluster.

    Cost: the row groups that hold the pairs; for the chains `MOST_LINKS` readings of the ids of their clusters, or of
    all.
    """
    judged = drawn.to_judge(N_JUDGED)
    places = list(dict.fromkeys([*judged, *nearest.places, *drawn.beyond[:N_BEYOND]]))
    order = {place: i for i, place in enumerate(places)}
    found = scores.pairs(places)
    by_score = sorted(range(len(found)), key=lambda i: (-found[i].score, i))
    position = {i: new for new, i in enumerate(by_score)}
    pairs = tuple(found[i] for i in by_score)
    return PairSample(
        bands=drawn.bands,
        sizes=tuple(drawn.sizes.tolist()),
        pairs=pairs,
        to_judge=tuple(position[order[place]] for place in judged),
        nearest=tuple(position[order[place]] for place in nearest.places),
        known={pair.id: pair for pair in pairs} if scores.across else _chained(scores, pairs, everywhere),
    )


def _chained(scores: Scores, pairs: Sequence[Pair], everywhere: bool) -> dict[Id, Pair]:
    """The rows of pairs, and those that the chains from them lead to, by id."""
    known: dict[Id, Pair] = {pair.id: pair for pair in pairs}
    ends: Sequence[Pair] = pairs
    for _ in range(MOST_LINKS):
        wanted = {pair.max_id: pair.cluster for pair in ends if pair.score > 0 and pair.max_id not in known}
        if not wanted:
            break
        ends = _rows(scores, wanted, everywhere)
        known |= {pair.id: pair for pair in ends}
    return known


def _rows(scores: Scores, wanted: Mapping[Id, int], everywhere: bool) -> list[Pair]:
    """The rows of some ids, given the cluster of each."""
    labels = set(wanted.values())
    files = tuple(file for file in scores.files if everywhere or cluster_of(file.url) in labels)
    ids = pa.array(list(wanted), scores.id_type)
    found = []
    for cluster, batch in replace(scores, files=files, foreign=()).batches(COLUMNS):
        for row in batch.filter(
            pc.is_in(batch.column("id"), value_set=ids.cast(batch.schema.field("id").type))
        ).to_pylist():
            found.append(Pair(row["id"], row["max_id"], row[SCORE], cluster))
    return found
