"""Short pieces of a run, measured on the workers: functions of the run itself on a few thousand rows of the input."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa

from semdedup.arrays import Backend
from semdedup.dedup.cluster.shuffle import (
    Assignment,
    assign_partition,
    cluster_schema,
    gather_piece,
    rows_of_clusters,
    write_clusters,
)
from semdedup.dedup.compare.groups import Cluster, Comparison, rank_cluster, score_group
from semdedup.dedup.compare.scored import Limits, score_rows
from semdedup.dedup.input.facts import Counted, inspect_files
from semdedup.dedup.input.partitions import Partition
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.input.several import Rows
from semdedup.dedup.names import SCORE, cluster_file
from semdedup.dedup.options import RankedOptions
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.storage.location import Location
from semdedup.storage.tables import read_table

T = TypeVar("T")

LABELLED = "labelled"
"""Folder of the rows of a piece as the run would label them."""

ROWS = 1 << 13
"""Rows of a piece, where clusters are not expected to be larger."""

LARGEST_CLUSTER = 1 << 14
"""Rows of the largest cluster that is compared; from there on the time of a pair is the same."""

WARMING_ROWS = 256
"""Rows of the piece that goes before: what is done for the first time in a process is not counted."""


@dataclass(frozen=True)
class Measuring:
    """What every task that measures needs to know.

    Attributes:
        clusters: the assignment of the run.
        few: the same with as few centroids as make clusters of the size that is expected.
        n_few: how many these are.
        strategy: what ranks.
        limits: the least score of a match that forests hold, and the most rows compared at a time.
        eps: a threshold.
        write_kwargs: options for writing Parquet.
        backend: arrays to compute with.
    """

    clusters: Assignment
    few: Assignment
    n_few: int
    strategy: RankingStrategy
    limits: Limits
    eps: float
    write_kwargs: Mapping[str, Any]
    backend: Backend


@dataclass(frozen=True)
class Piece:
    """What a piece of a run took: seconds of one thread, and bytes of files.

    Attributes:
        rows, clusters: rows of the piece, and clusters that have some of them.
        assign, write: seconds to label and to shuffle the rows, and to write the clusters.
        compare, pair: seconds to compare the clusters: those that go with the rows, and those that go with the sum of
            the squares of the sizes of the clusters, over this sum.
        read: seconds to read the clusters once more.
        tables: seconds to look at the footers of the clusters and to apply the threshold.
        bytes: of the shuffle files, of the clusters, of the scores.
    """

    rows: int = 0
    clusters: int = 0
    assign: float = 0.0
    write: float = 0.0
    compare: float = 0.0
    pair: float = 0.0
    read: float = 0.0
    tables: float = 0.0
    bytes: tuple[int, int, int] = (0, 0, 0)


def piece_of(partition: Partition, n_rows: int) -> Partition:
    """The first rows of a partition, about as many as asked for."""
    chosen, held = [], 0
    for piece in partition:
        if held < n_rows:
            chosen.append(replace(piece, stop=min(piece.stop, piece.start + n_rows - held)))
            held += chosen[-1].stop - chosen[-1].start
    return tuple(chosen)


def measure_piece(work: Workspace, task: Measuring, item: tuple[int, Partition]) -> Piece:
    """Run a small piece of each step; its files lie below the scratch folder. Memory: the rows of the piece, twice."""
    number, slices = item
    _run_piece(work, task, work.scratch / f"warming-{number}", piece_of(slices, WARMING_ROWS))
    return _run_piece(work, task, _folder(work, number), slices)


def _folder(work: Workspace, number: int) -> Location:
    return work.scratch / f"measured-{number}"


def labelled_folder(work: Workspace, number: int) -> Location:
    """Where a piece has its shuffle file."""
    return _folder(work, number) / LABELLED


def _run_piece(work: Workspace, task: Measuring, place: Location, slices: Partition) -> Piece:
    _, assigning = timed(lambda: assign_partition(_elsewhere(work, place / LABELLED), task.clusters, (0, slices)))
    again = _elsewhere(work, place / "grouped")
    labelled = assign_partition(again, task.few, (0, slices))
    everything = gather_piece(labelled, task.n_few)
    _, writing = timed(lambda: write_clusters(again, place / "clusters", task.write_kwargs, everything))
    group = [
        Cluster(label, ((place / "clusters" / f"centroid={label}" / "part-0.parquet").url,), (rows,))
        for label, rows in enumerate(rows_of_clusters(labelled).tolist())
        if rows
    ]
    if not group:
        return Piece()
    comparison = _comparison(work, task, place)
    _, comparing = timed(lambda: score_group(comparison, tuple(group)))
    scores = [place / "scores" / cluster_file(cluster.label) for cluster in group]
    _, identifying = timed(lambda: [duplicate_mask(_scores(file), task.eps).sum() for file in scores])
    looked_at = [(place.at(cluster.urls[0]), cluster.urls[0]) for cluster in group]
    _, inspecting = timed(lambda: inspect_files(Counted("embedding"), False, looked_at))
    reading, comparing_pairs = _largest(comparison, max(group, key=lambda cluster: cluster.n_rows))
    folders = (place / LABELLED / "pieces", place / "clusters", place / "scores")
    pieces, clusters, tables = (sum(file.n_bytes for file in folder.files()) for folder in folders)
    return Piece(
        rows=sum(cluster.n_rows for cluster in group),
        clusters=len(group),
        assign=assigning,
        write=writing,
        compare=comparing - comparing_pairs * sum(cluster.n_rows**2 for cluster in group),
        pair=comparing_pairs,
        read=reading * sum(cluster.n_rows for cluster in group),
        tables=identifying + inspecting,
        bytes=(pieces, clusters, tables),
    )


def _comparison(work: Workspace, task: Measuring, place: Location) -> Comparison:
    return Comparison(
        clusters=place,
        target=place / "scores",
        final=place,
        scratch=place,
        schema=_schema_of_clusters(work.schema, task.strategy),
        strategy=task.strategy,
        dim=task.clusters.dim,
        limits=task.limits,
        backend=task.backend,
        write_kwargs=task.write_kwargs,
    )


def _schema_of_clusters(schema: InputSchema, strategy: RankingStrategy) -> InputSchema:
    """How the clusters of an input are read, of which only what ranks and marks is needed."""
    options, there = RankedOptions(metadata_fields=strategy.columns), cluster_schema(schema)
    return InputSchema(options, schema.id, pa.schema([field for field in there if field.name in options.carried]))


def _scores(file: Location) -> np.ndarray:
    return read_table(file, [SCORE]).column(SCORE).to_numpy()


def _largest(task: Comparison, cluster: Cluster) -> tuple[float, float]:
    """Seconds a row to read a cluster again, and seconds to compare it, over the square of its rows."""
    ranked, reading = timed(lambda: rank_cluster(task, cluster))
    _, comparing = timed(lambda: score_rows(ranked.rows, None, task.limits))
    return reading / cluster.n_rows, comparing / cluster.n_rows**2


def timed(call: Callable[[], T]) -> tuple[T, float]:
    """What a call gives, and the seconds that it takes."""
    started = time.perf_counter()
    return call(), time.perf_counter() - started


@dataclass(frozen=True)
class _Elsewhere(Workspace):
    """A workspace that reads as another does, whose scratch folder may hold its input, and writes to its own."""

    reading: Workspace

    def read(self, *asked: Any, **options: Any) -> Iterator[Rows]:
        """As the other one."""
        return self.reading.read(*asked, **options)


def _elsewhere(work: Workspace, scratch: Location) -> Workspace:
    return _Elsewhere(work.schema, work.inputs, scratch, work.read_kwargs, work, backend=work.backend)
