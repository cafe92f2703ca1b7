"""Files of sorted hashes of ids, and which hashes stand in them more than once.

Whoever writes such a file gets to know where each of `BINS` equal ranges of the hash ends in it. Ranges of any size can
be put together from these, so that a range is one read of a file, however many ranges there turn out to be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from semdedup.dedup import sizes
from semdedup.storage.arrays import pack_ends, unpack_ends
from semdedup.storage.chunks import read_spans
from semdedup.storage.location import Location

HASHES_PER_RANGE = 1 << 23
"""Hashes of ids that one task looks through for repetitions: 64 MiB."""

BIN_BITS = 10
BINS = 1 << BIN_BITS
"""Ranges of the hash whose ends are known in each file: as many as a check of eight billion ids has, 1 kB a file."""

EXAMPLES_A_RANGE = 1000

Each = Callable[[str, Callable[[Any], Any], Sequence[Any]], Sequence[Any]]
"""Calls a function for each of some items, as a part of this name; the results, in order."""


class HashFiles(NamedTuple):
    """Files of sorted hashes in one folder, which numbers name, and for each of them what `write_hashes` gave."""

    folder: Location
    ends: Sequence[str]


class FileRange(NamedTuple):
    """Hashes [starts, ends) of the files of a folder, (n,) int64 each."""

    folder: Location
    starts: np.ndarray
    ends: np.ndarray


def hashes_file(folder: Location, number: int) -> Location:
    """Sorted hashes of ids, uint64."""
    return folder / f"{number}.u64"


def write_hashes(folder: Location, number: int, hashes: Iterable[np.ndarray]) -> str:
    """Write hashes, sorted, as a file of a folder; give the number of hashes up to the end of each bin, packed."""
    every = np.sort(np.concatenate([np.empty(0, dtype=np.uint64), *hashes]))
    hashes_file(folder, number).write_bytes(every.tobytes())
    bins = (every >> np.uint64(64 - BIN_BITS)).astype(np.int64)
    return pack_ends(np.cumsum(np.bincount(bins, minlength=BINS)))


def count_hashes(ends: str) -> int:
    """How many hashes a file has."""
    return int(unpack_ends(ends)[-1])


def count_ranges(n_hashes: int) -> int:
    """Ranges of the hash in which so many hashes are looked through."""
    return min(BINS, max(1, -(-n_hashes // HASHES_PER_RANGE)))


def check_reads(n_files: int, n_hashes: int) -> int:
    """Reads of files that the check of so many hashes takes: one of each file a range, or those of `find_repeated`."""
    n_ranges = count_ranges(n_hashes)
    if n_files * n_ranges <= sizes.MANY_READS:
        return n_files * n_ranges
    return n_files + min(n_files, -(-n_hashes // HASHES_PER_RANGE)) * n_ranges


def find_repeated(each: Each, scratch: Location, files: Sequence[HashFiles]) -> tuple[list[int], int]:
    """The hashes that stand more than once in some files, the first thousand of each range; and how many there are.

    Each range is one task, that reads its part of every file. Where that would be more than `sizes.MANY_READS`, files
    are merged first into such as have `HASHES_PER_RANGE` hashes.

    Memory of a task: 16 bytes for each of about `HASHES_PER_RANGE` hashes. Reads: see `check_reads`.
    """
    counts = [[count_hashes(ends) for ends in some.ends] for some in files]
    n_ranges = count_ranges(sum(map(sum, counts)))
    if sum(map(len, counts)) * n_ranges > sizes.MANY_READS:
        every = (
            ((some.folder, number, count), count)
            for some, of_folder in zip(files, counts, strict=True)
            for number, count in enumerate(of_folder)
        )
        groups = list(enumerate(sizes.pack(every, HASHES_PER_RANGE)))
        folder = scratch / "merged-ids"
        files = [HashFiles(folder, each("merge hashes", partial(_merge, folder), groups))]
    found = each("check ids", _repeated, _cut(files, n_ranges))
    return [value for values, _ in found for value in values], sum(number for _, number in found)


def _cut(files: Sequence[HashFiles], n_ranges: int) -> list[tuple[FileRange, ...]]:
    """Where each range lies in each file."""
    bounds = BINS * np.arange(n_ranges + 1) // n_ranges
    edges = [
        np.array([np.append(0, unpack_ends(ends))[bounds] for ends in some.ends], dtype=np.int64).reshape(
            -1, len(bounds)
        )
        for some in files
    ]
    return [
        tuple(
            FileRange(some.folder, of_folder[:, index], of_folder[:, index + 1])
            for some, of_folder in zip(files, edges, strict=True)
        )
        for index in range(n_ranges)
    ]


def _merge(folder: Location, item: tuple[int, Sequence[tuple[Location, int, int]]]) -> str:
    number, parts = item
    spans = [(hashes_file(source, part), 0, 8 * count) for source, part, count in parts if count]
    return write_hashes(folder, number, (np.frombuffer(block, dtype=np.uint64) for block in read_spans(spans)))


def _repeated(parts: Sequence[FileRange]) -> tuple[list[int], int]:
    """Hashes that stand more than once in a range of some files; how many."""
    spans = [
        (hashes_file(part.folder, number), 8 * int(start), 8 * int(end))
        for part in parts
        for number, (start, end) in enumerate(zip(part.starts, part.ends, strict=True))
        if start < end
    ]
    blocks = [np.frombuffer(block, dtype=np.uint64) for block in read_spans(spans)]
    hashes = np.sort(np.concatenate([np.empty(0, dtype=np.uint64), *blocks]))
    repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    return [int(value) for value in repeated[:EXAMPLES_A_RANGE]], len(repeated)
