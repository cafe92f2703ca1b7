"""What the page shows of a result: counts over all of it, and a sample of its pairs and groups."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from semdedup.calibration.bands import Bands, BandSample
from semdedup.dedup.names import cluster_of
from semdedup.dedup.results.pairs import Group
from semdedup.dedup.results.removed import RemovedRows
from semdedup.dedup.results.tallies import CountAt, FileSizes, Histogram, Nearest
from semdedup.dedup.threshold.rule import check_eps
from semdedup.report.sample import N_JUDGED, N_NEAREST, PairSample, read_sample
from semdedup.storage.location import FileInfo

THRESHOLDS = tuple(
    round(float(eps), 6)
    for eps in [*np.arange(0, 0.1, 0.0005), *np.arange(0.1, 0.6, 0.002), *np.arange(0.6, 1.0, 0.005), 0.999]
)
"""The eps that the page has counts for: finer where models work. About 540."""

N_BINS = 100
N_GROUPS, DROPPED_PER_GROUP = 20, 4
CLUSTERS_SAMPLED, MOST_DUPLICATES = 8, 200_000
"""Groups come from so many clusters, none of which has more duplicates than that, so that memory is bounded."""


@dataclass(frozen=True)
class Survey:
    """Counts and samples of a table of scores: counts by the scores alone, groups by the removal rule.

    Attributes:
        eps: the threshold that the page begins with.
        n_rows: rows of the table.
        curve: (eps, duplicates) with `eps` rising.
        histogram: rows by score, (100,) int64.
        cluster_rows: rows of each cluster, (k,) int64.
        cluster_duplicates: duplicates of each cluster at `eps`.
        sample: pairs of all bands of score.
        groups: some groups of duplicates.
        notes: sentences that say what was sampled.
    """

    eps: float
    n_rows: int
    curve: tuple[tuple[float, int], ...]
    histogram: np.ndarray
    cluster_rows: np.ndarray
    cluster_duplicates: np.ndarray
    sample: PairSample
    groups: tuple[Group, ...]
    notes: tuple[str, ...]

    @property
    def duplicates(self) -> int:
        """Duplicates at `eps`."""
        return dict(self.curve)[self.eps]


def survey(rows: RemovedRows, eps: float) -> Survey:
    """Look at a table of scores: all scores once, and the ids of the sample.

    Time: a reading of the scores, and the ids of a few row groups and clusters, see `read_sample`. Memory:
    `ROWS_AT_A_TIME` rows, and the duplicates of one cluster, at most `MOST_DUPLICATES`.
    """
    scores, most = rows.scores, rows.exact_up_to
    thresholds = sorted({*(x for x in THRESHOLDS if most is None or x <= most), check_eps(eps)})
    counts, histogram = CountAt(thresholds), Histogram(N_BINS)
    sizes = FileSizes(len(scores.files), eps)
    nearest, drawn = Nearest(N_NEAREST, 1 - eps), BandSample(Bands.around(eps, most), N_JUDGED)
    scores.tally(counts, histogram, sizes, nearest, drawn)
    tables, cluster_rows, duplicates = _by_cluster(scores.files, sizes)
    with_duplicates = np.flatnonzero(duplicates > 0)
    usable = [int(i) for i in with_duplicates if duplicates[i] <= MOST_DUPLICATES]
    chosen = _spread(sorted(usable, key=lambda i: -duplicates[i]), CLUSTERS_SAMPLED)
    groups = tuple(itertools.islice(_in_turn(_groups(rows, eps, [tables[i] for i in chosen])), N_GROUPS))
    sample = read_sample(scores, drawn, nearest, everywhere=most is not None)
    notes = [_sampled(sample)] if sample.pairs else []
    if with_duplicates.size:
        notes.append(
            f"{_many(len(groups), 'group')}, the largest of {_many(len(chosen), 'cluster')}, of "
            f"{_many(len(with_duplicates), 'cluster')} with duplicates"
        )
    if len(usable) < len(with_duplicates):
        left = len(with_duplicates) - len(usable)
        notes.append(f"no groups of {left:,} clusters with more than {MOST_DUPLICATES:,} duplicates each")
    return Survey(
        eps=eps,
        n_rows=counts.n_rows,
        curve=tuple(zip(thresholds, counts.duplicates, strict=True)),
        histogram=histogram.counts,
        cluster_rows=cluster_rows,
        cluster_duplicates=duplicates,
        sample=sample,
        groups=groups,
        notes=tuple(notes),
    )


def _sampled(sample: PairSample) -> str:
    n, near = len(sample.pairs), len(set(sample.nearest) - set(sample.to_judge))
    filled = sum(size > 0 for size in sample.sizes)
    also = f", and {near:,} more around the threshold" if near else ""
    return f"{_many(n - near, 'pair')}, drawn at random from {_many(filled, 'band')} of score{also}"


def _by_cluster(files: Sequence[FileInfo], sizes: FileSizes) -> tuple[list[list[FileInfo]], np.ndarray, np.ndarray]:
    """The tables of each cluster, of which several results have one each, its rows, and its duplicates."""
    labels = [cluster_of(file.url) for file in files]
    numbers = {label: number for number, label in enumerate(dict.fromkeys(labels))}
    tables: list[list[FileInfo]] = [[] for _ in numbers]
    for label, file in zip(labels, files, strict=True):
        tables[numbers[label]].append(file)
    places = np.array([numbers[label] for label in labels], dtype=np.int64)
    rows, duplicates = (
        np.bincount(places, weights=each, minlength=len(numbers)).astype(np.int64)
        for each in (sizes.rows, sizes.duplicates)
    )
    return tables, rows, duplicates


def _groups(rows: RemovedRows, eps: float, tables: Sequence[Sequence[FileInfo]]) -> list[list[Group]]:
    """The groups of some clusters, the largest of each first; of all of them together where they reach across."""
    several = [[file for own in tables for file in own]] if rows.exact_up_to is not None else tables
    return [sorted(rows.groups(eps, some), key=lambda group: -len(group.dropped)) for some in several if some]


def _spread(items: Sequence[int], n: int) -> list[int]:
    """At most n of the items, from the first to the last at equal distances."""
    if len(items) <= n:
        return list(items)
    return [items[round(i)] for i in np.linspace(0, len(items) - 1, n)]


def _in_turn(lists: Sequence[Sequence[Group]]) -> Iterator[Group]:
    """The first of each list, then the second of each, and so on."""
    for row in itertools.zip_longest(*lists):
        yield from (group for group in row if group is not None)


def _many(n: int, what: str) -> str:
    return f"{n:,} {what}" if n == 1 else f"{n:,} {what}s"
