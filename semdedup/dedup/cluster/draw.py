"""The sample to fit on, drawn among the rows that can be compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from functools import partial
from operator import getitem
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.arrays import to_host
from semdedup.compute.session import Session
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.input.partitions import Partition, partition_label
from semdedup.dedup.input.rows import REASONS, check_rows
from semdedup.dedup.input.scan import (
    SAMPLE_ROWS,
    SCANNED,
    Sampling,
    Workspace,
    chosen_rows,
    sample_file,
    write_sample,
)
from semdedup.dedup.kernels.exact import on_grid, unit_rows
from semdedup.dedup.kernels.kmeans import SUM_GRID_BITS, sample_size
from semdedup.dedup.options import KMeansOptions
from semdedup.display import format_counts
from semdedup.errors import InputError
from semdedup.runs.run import Run
from semdedup.storage.arrays import unpack_ends
from semdedup.storage.chunks import read_chunks


class Sample(NamedTuple):
    """Rows to fit on.

    Attributes:
        parts: futures of (m, d) float32 rows of length 1, on the grid, each part in the order of its hashes.
        hashes: of the rows of each part, (m,) uint64, increasing: 8 bytes a row on the client.
    """

    parts: Sequence[Any]
    hashes: Sequence[np.ndarray]

    @property
    def sizes(self) -> list[int]:
        """Rows of each part."""
        return [len(hashes) for hashes in self.hashes]


FileSpan = tuple[int, int, int]
"""A sample file, by the position of its partition, and a range of its bytes."""


def sample_parts(drawn: Sequence[Mapping[str, Any]], n_parts: int) -> list[tuple[FileSpan, ...]]:
    """Cut the sample into at most `n_parts` parts of about as many rows each, made of whole chunks.

    A file is read once, and once more for each cut that goes through it: at most partitions + parts reads in all.

    Args:
        drawn: for each partition, what `write_sample` gave.
        n_parts: how many parts.
    """
    total, before = sum(one["sampled"] for one in drawn), 0
    parts: list[list[FileSpan]] = [[] for _ in range(n_parts)]
    for position, one in enumerate(drawn):
        start = 0
        for number, end in enumerate(unpack_ends(one["sample_ends"]).tolist()):
            part = parts[(before + number * SAMPLE_ROWS) * n_parts // total]
            if part and part[-1][0] == position:
                start = part.pop()[1]
            part.append((position, start, end))
            start = end
        before += one["sampled"]
    return [tuple(part) for part in parts if part]


def load_sample_part(work: Workspace, dim: int, drawn: int, part: Sequence[FileSpan]) -> tuple[np.ndarray, np.ndarray]:
    """Rows of one part of the sample that can be compared, in the order of the hash: hashes, and rows on the grid."""
    spans = [(sample_file(work, position, drawn), start, end) for position, start, end in part]
    tables = [pa.Table.from_batches([batch]) for batches in read_chunks(spans) for batch in batches]
    table = pa.concat_tables(tables, promote_options="permissive")  # files may differ in type
    checked = check_rows(table.column("hash"), table.column("embedding"), dim)
    hashes = table.column("hash").to_numpy()[checked.positions]
    order = np.argsort(hashes, kind="stable")
    return hashes[order], on_grid(unit_rows(checked.rows)[order], SUM_GRID_BITS)


def load_sample(session: Session, work: Workspace, parts: Sequence[Any], dim: int, drawn: int = 0) -> Sample:
    """The sample that was drawn as the rows were scanned, or one that was drawn later, in parts of `sample_parts`.

    It can be loaded again, so that a worker may die.
    """
    client, key = session.client, f"semdedup-sample-{session.token}-{drawn}"
    load = partial(load_sample_part, work, dim, drawn)
    loaded = [client.submit(load, part, key=f"{key}-{n}", pure=False) for n, part in enumerate(parts)]
    hashes, rows = ([client.submit(getitem, pair, half, pure=False) for pair in loaded] for half in (0, 1))
    return Sample(rows, client.gather(hashes))


def usable_sample(
    run: Run,
    work: Workspace,
    partitions: Sequence[Partition],
    drawn: Sequence[Mapping[str, Any]],
    n_parts: int,
    dim: int,
    n_clusters: int,
    kmeans: KMeansOptions,
) -> Sample:
    """The sample that the scan has `drawn`; another where fewer than half of its rows can be compared.

    Whether a row can be compared is known only after the scan, by the length that embeddings must have. To draw again
    the input is read twice: the rows that can be compared are counted, then about as many of them are taken as the
    settings ask for. Either sample depends on ids, seed and rows alone.

    Raises:
        InputError: no row of the input can be compared.
    """
    sample = load_sample(run.session, work, sample_parts(drawn, n_parts), dim)
    if sum(sample.sizes) > sum(one["sampled"] for one in drawn) / 2:
        return sample
    items, options = list(enumerate(partitions)), {"unit": "partitions", "label": partition_label}
    counted = run.results("count rows to fit on", partial(count_faults, work, dim), items, **options)
    n_good, *n_bad = np.sum(counted, axis=0).tolist()
    if not n_good:
        aside = {reason: count for reason, count in zip(REASONS[1:], n_bad, strict=True) if count}
        raise InputError(f"every row was set aside, so that there is nothing to cluster: {format_counts(aside)}")
    run.session.reporter.say(f"sample: drawn again, among the {n_good:,} rows that can be compared")
    wanted = sample_size(n_good, n_clusters, kmeans.fit_data_fraction)
    wanted += math.ceil(6 * math.sqrt(wanted)) + 6  # so that chance does not leave too few
    for time in itertools.count(1):
        sampling = Sampling.of(kmeans.random_state, wanted << (4 * time - 4), n_good)
        draw = partial(draw_partition, work, sampling, dim, time)
        drawn = run.results(f"draw sample {time}", draw, items, **options)
        sample = load_sample(run.session, work, sample_parts(drawn, n_parts), dim, time)
        if sum(sample.sizes):
            break
    return sample


def count_faults(work: Workspace, dim: int, item: tuple[int, Partition]) -> list[int]:
    """How many rows of a partition there are for each of `REASONS`, the first of which is that nothing is wrong."""
    counts = np.zeros(len(REASONS), dtype=np.int64)
    for table in (rows.table for rows in work.read(item[1], SCANNED)):
        faults = check_rows(table.column("id"), table.column("embedding"), dim).faults
        counts += np.bincount(to_host(faults), minlength=len(REASONS))
    return counts.tolist()


def draw_partition(
    work: Workspace, sampling: Sampling, dim: int, drawn: int, item: tuple[int, Partition]
) -> dict[str, Any]:
    """Write the sampled rows of a partition, those that can be compared; see `write_sample`."""
    samples = []
    for table in (rows.table for rows in work.read(item[1], SCANNED)):
        good = to_host(check_rows(table.column("id"), table.column("embedding"), dim).faults) == 0
        hashes = hash_ids(table.column("id"), sampling.seed)
        samples.append(chosen_rows(table, hashes, good & sampling.chosen(hashes)))
    return write_sample(sample_file(work, item[0], drawn), samples)
