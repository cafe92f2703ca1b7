"""The sample to fit on, drawn among the rows that can be compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.compute.session import Session
from semdedup.dedup.input.partitions import Partition, partition_label
from semdedup.dedup.input.rows import REASONS, check_rows
from semdedup.dedup.input.scan import SCANNED, Sampling, Workspace, chosen_rows, sample_file, write_sample
from semdedup.dedup.kernels.exact import on_grid, unit_rows
from semdedup.dedup.kernels.kmeans import SUM_GRID_BITS, sample_size
from semdedup.dedup.options import KMeansOptions
from semdedup.display import format_counts
from semdedup.errors import InputError
from semdedup.runs.run import Run
from semdedup.storage.tables import read_arrow_batch


class Sample(NamedTuple):
    """Rows to fit on, in parts that stay on the workers as futures, and the number of rows of each."""

    parts: Sequence[Any]
    sizes: Sequence[int]


def load_sample_part(work: Workspace, n_pieces: int, dim: int, drawn: int, part: int) -> np.ndarray:
    """Rows of one part of the sample that can be compared: (m, d) float32 on the grid, in the order of the hash."""
    pieces = [read_arrow_batch(sample_file(work, position, drawn), part) for position in range(n_pieces)]
    tables = [pa.Table.from_batches([piece]) for piece in pieces]
    table = pa.concat_tables(tables, promote_options="permissive")  # files may differ in type
    checked = check_rows(table.column("hash"), table.column("embedding"), dim)
    order = np.argsort(table.column("hash").to_numpy()[checked.positions], kind="stable")
    return on_grid(unit_rows(checked.rows)[order], SUM_GRID_BITS)


def load_sample(session: Session, work: Workspace, n_pieces: int, n_parts: int, dim: int, drawn: int = 0) -> Sample:
    """The sample that was drawn as the rows were scanned, or one that was drawn later. It can be loaded again."""
    client, key = session.client, f"semdedup-sample-{session.token}-{drawn}"
    load = partial(load_sample_part, work, n_pieces, dim, drawn)
    parts = [client.submit(load, part, key=f"{key}-{part}", pure=False) for part in range(n_parts)]
    return Sample(parts, client.gather([client.submit(len, part, pure=False) for part in parts]))


def usable_sample(
    run: Run,
    work: Workspace,
    partitions: Sequence[Partition],
    n_parts: int,
    n_sampled: int,
    dim: int,
    n_clusters: int,
    kmeans: KMeansOptions,
) -> Sample:
    """The sample of the scan, of `n_sampled` rows; another where fewer than half of these can be compared.

    Whether a row can be compared is known only after the scan, by the length that embeddings must have. To draw again
    the input is read twice: the rows that can be compared are counted, then about as many of them are taken as the
    settings ask for. Either sample depends on ids, seed and rows alone.

    Raises:
        InputError: no row of the input can be compared.
    """
    sample = load_sample(run.session, work, len(partitions), n_parts, dim)
    if sum(sample.sizes) > n_sampled / 2:
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
    for drawn in itertools.count(1):
        sampling = Sampling.of(kmeans.random_state, wanted << (4 * drawn - 4), n_good, n_parts)
        draw = partial(draw_partition, work, sampling, dim, drawn)
        run.results(f"draw sample {drawn}", draw, items, **options)
        sample = load_sample(run.session, work, len(items), n_parts, dim, drawn)
        if sum(sample.sizes):
            break
    return sample


def count_faults(work: Workspace, dim: int, item: tuple[int, Partition]) -> list[int]:
    """How many rows of a partition there are for each of `REASONS`, the first of which is that nothing is wrong."""
    counts = np.zeros(len(REASONS), dtype=np.int64)
    for table in (table for piece in item[1] for table in work.read(piece, SCANNED)):
        faults = check_rows(table.column("id"), table.column("embedding"), dim).faults
        counts += np.bincount(faults, minlength=len(REASONS))
    return counts.tolist()


def draw_partition(work: Workspace, sampling: Sampling, dim: int, drawn: int, item: tuple[int, Partition]) -> int:
    """Write the sampled rows of a partition, those that can be compared; return how many."""
    samples = []
    for table in (table for piece in item[1] for table in work.read(piece, SCANNED)):
        good = check_rows(table.column("id"), table.column("embedding"), dim).faults == 0
        samples.append(chosen_rows(table, sampling, good))
    write_sample(sample_file(work, item[0], drawn), samples, sampling)
    return sum(map(len, samples))
