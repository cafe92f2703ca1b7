"""Which samples go into which shard: arithmetic on sizes, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from semdedup.shards.layouts import ShardLayout
from semdedup.storage.arrays import load_array
from semdedup.storage.location import Location


@dataclass(frozen=True)
class Rows:
    """Rows [start, stop) of the samples of one partition; those of the shard's bin are meant."""

    partition: int
    start: int
    stop: int


def pack(sizes: np.ndarray, most_samples: int, most_bytes: int) -> list[tuple[int, int]]:
    """Cut samples into shards, greedily and in order: [start, stop) of each.

    A shard is full when the next sample would take it over `most_samples` or `most_bytes`; a sample that is larger than
    that has a shard of its own. Time: O(n) once, and O(log n) a shard.

    Args:
        sizes: bytes of each sample, (n,) int64.

    >>> pack(np.array([3, 3, 3, 9, 1]), most_samples=2, most_bytes=8)
    [(0, 2), (2, 3), (3, 4), (4, 5)]
    """
    ends = np.cumsum(sizes, dtype=np.int64)
    shards, start = [], 0
    while start < len(sizes):
        before = int(ends[start - 1]) if start else 0
        stop = int(np.searchsorted(ends, before + most_bytes, side="right"))
        stop = min(max(stop, start + 1), start + most_samples)
        shards.append((start, stop))
        start = stop
    return shards


def rows_of_shards(
    sizes: Sequence[np.ndarray], bins: Sequence[np.ndarray], chosen: int, most_samples: int, most_bytes: int
) -> Iterator[tuple[tuple[Rows, ...], int]]:
    """Pack the samples of one bin, over all partitions in order.

    `sizes` and `bins` are the bytes and the bin of each sample, for each partition; `chosen` is the bin.

    Yields:
        (the rows of a shard, its bytes).
    """
    rows = [np.flatnonzero(found == chosen) for found in bins]
    firsts = np.cumsum([0, *map(len, rows)])
    packed = np.concatenate([found[chosen_rows] for found, chosen_rows in zip(sizes, rows, strict=True)])
    for start, stop in pack(packed, most_samples, most_bytes):
        parts = []
        first_partition = int(np.searchsorted(firsts, start, side="right")) - 1
        for partition in range(first_partition, len(rows)):
            low, high = max(start - firsts[partition], 0), min(stop - firsts[partition], len(rows[partition]))
            if firsts[partition] >= stop:
                break
            if low < high:
                parts.append(Rows(partition, int(rows[partition][low]), int(rows[partition][high - 1]) + 1))
        yield tuple(parts), int(packed[start:stop].sum())


@dataclass(frozen=True)
class Shard:
    """What one task writes.

    Attributes:
        number: position among the shards of the run.
        tars: names of its tars, by column of the index; see `ShardLayout.tar_columns`.
        bin: of its samples.
        rows: where these are.
        ends: for each of `rows`, where the chunks of the samples of that partition end.
        n_bytes: bytes of its samples, about.
    """

    number: int
    tars: dict[str, str]
    bin: int
    rows: tuple[Rows, ...]
    ends: tuple[tuple[int, ...], ...]
    n_bytes: int


def read_sizes(file: Location) -> tuple[np.ndarray, np.ndarray]:
    """Bytes and bin of each sample of a partition, (n,) int64 and (n,) int16, from the file that the join wrote."""
    sizes, bins = load_array(file)
    return sizes.copy(), bins.astype(np.int16)


def pack_shards(
    layout: ShardLayout,
    version: str,
    samples: Sequence[tuple[np.ndarray, np.ndarray]],
    ends: Sequence[Sequence[int]],
    most_samples: int,
    most_bytes: int,
    first: Mapping[int, int] = {},
) -> list[Shard]:
    """Cut the samples of all bins into shards.

    Args:
        layout: names the tars.
        version: ``annotation_version``, for these names.
        samples: for each partition, bytes and bin of each sample, from `read_sizes`.
        ends: for each partition, where the chunks of its samples end.
        most_samples, most_bytes: as for `pack`.
        first: for each bin the number of its first shard, where there are shards already.
    """
    shards: list[Shard] = []
    lengths, bins = [sizes for sizes, _ in samples], [found for _, found in samples]
    for bin_ in range(layout.n_bins):
        for i, (rows, n_bytes) in enumerate(rows_of_shards(lengths, bins, bin_, most_samples, most_bytes)):
            places = tuple(tuple(ends[part.partition]) for part in rows)
            tars = layout.tar_names(version, bin_, first.get(bin_, 0) + i)
            shards.append(Shard(len(shards), tars, bin_, rows, places, n_bytes))
    return shards
