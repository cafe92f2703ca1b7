"""The first look at the rows: their lengths, the fit's sample, and whether an id is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.compute.session import Session
from semdedup.dedup.frame_input.parts import source_in_words
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.input.partitions import Partition, Slice, partition_label
from semdedup.dedup.input.rows import (
    commonest_length,
    gather_unit_rows,
    length_counts,
    with_source,
)
from semdedup.dedup.input.schema import InputSchema
from semdedup.errors import BadFileError, DuplicateIdError, InputError
from semdedup.runs.run import Run
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION, write_arrow_parts

HASHES_PER_RANGE = 1 << 23
"""Hashes of ids that one task looks through for repetitions: 64 MiB."""

SCANNED = ("id", "embedding", LOW_INFORMATION)
"""Columns that the scan reads. Others are read by who carries them along."""

EXAMPLES = 5
WHOLE = 2**64

ID_HASH_SEED = 0
"""The seed of the hashes by which repeated ids are found where no sample is taken."""


@dataclass(frozen=True)
class Workspace:
    """What every task of the clustering needs to know.

    Attributes:
        schema: columns and types of the input.
        inputs: storage of the input.
        scratch: folder for files between steps, readable and writable by all workers.
        read_kwargs: options for reading Parquet.
    """

    schema: InputSchema
    inputs: Location
    scratch: Location
    read_kwargs: Mapping[str, Any]

    def read(self, piece: Slice, columns: Collection[str] | None = None) -> Iterator[pa.Table]:
        """The rows of a slice, in tables of bounded size; converted JSON Lines are in the scratch folder.

        Columns are all by default, else those that are wanted; see `InputSchema.read`.
        """
        inside = piece.url.startswith(self.scratch.url + "/")
        file = (self.scratch if inside else self.inputs).at(piece.url)
        return self.schema.read(file, piece, self.read_kwargs, columns)

    def gather(self, slices: Partition, dim: int) -> tuple[np.ndarray, pa.Table, pa.Table]:
        """The rows of a partition, normalised (n, d) float32, their other columns, and the rows for the quarantine."""
        rows = np.empty((sum(piece.stop - piece.start for piece in slices), dim), dtype=np.float32)
        others, faulty, n = [], [], 0
        for piece in slices:
            gathered = gather_unit_rows(self.read(piece), dim, rows[n:])
            n += gathered.n_rows
            others.append(gathered.others)
            faulty.append(with_source(gathered.faulty, source_in_words(piece.source)))
        return rows[:n], pa.concat_tables(others), pa.concat_tables(faulty)


def range_starts(n_ranges: int, stop: int = WHOLE) -> np.ndarray:
    """The lowest hash of each of equal ranges of the hashes below `stop`, (n_ranges,) uint64."""
    return np.array([stop * index // n_ranges for index in range(n_ranges)], dtype=np.uint64)


@dataclass(frozen=True)
class Sampling:
    """Which rows are fitted on: those whose hash is below `threshold`, in `n_parts` ranges of the hash.

    The hash depends on the id and the seed alone, so the sample does not depend on files or partitions.
    """

    seed: int
    threshold: int
    n_parts: int

    @classmethod
    def of(cls, seed: int, n_wanted: int, n_rows: int, n_parts: int) -> Sampling:
        """Sample about `n_wanted` of `n_rows` rows; all of them where that many are wanted, none for 0."""
        return cls(seed, WHOLE if n_wanted >= n_rows else WHOLE * n_wanted // n_rows, n_parts)

    def edges(self) -> np.ndarray:
        """Lowest hash of each part, (n_parts,) uint64."""
        return range_starts(self.n_parts, self.threshold)

    def chosen(self, hashes: np.ndarray) -> np.ndarray:
        """Truth for each hash, (n,): whether the row belongs to the sample."""
        return hashes <= np.uint64(self.threshold - 1) if self.threshold else np.zeros(len(hashes), dtype=bool)


def sample_file(work: Workspace, position: int, drawn: int = 0) -> Location:
    """Rows of one partition that belong to the sample, ``hash`` and ``embedding``: one Arrow batch for each part.

    `drawn` tells the sample of the scan, 0, from those that are drawn later.
    """
    return work.scratch / (f"sample-{drawn}" if drawn else "sample") / f"{position}.arrow"


def chosen_rows(table: pa.Table, sampling: Sampling, among: np.ndarray) -> pa.Table:
    """Hash and embedding of the rows that belong to a sample, `among` those for which this is true."""
    hashes = hash_ids(table.column("id"), sampling.seed)
    chosen = np.flatnonzero(among & sampling.chosen(hashes))
    embeddings = table.column("embedding").take(pa.array(chosen))
    lists = embeddings.cast(pa.list_(embeddings.type.value_type))
    return pa.table({"hash": pa.array(hashes[chosen]), "embedding": lists})


def hashes_file(work: Workspace, position: int) -> Location:
    """The sorted hashes of the ids of one partition, uint64."""
    return work.scratch / "ids" / f"{position}.u64"


def scan_partition(
    work: Workspace, sampling: Sampling, skip_bad_files: bool, item: tuple[int, Partition]
) -> dict[str, Any]:
    """Look at one partition; write its part of the sample and the hashes of its ids.

    Metadata is read only where files that cannot be read are to be skipped: they have to be found now.

    Returns:
        ``rows``, ``hashes`` (rows with an id), ``sampled``, ``lengths`` (rows of each length, by source) and ``bad``
        (source and reason of unreadable files).

    Memory: a batch of rows as it is read, the rows of the sample, 16 bytes a row.
    """
    position, slices = item
    columns = None if skip_bad_files else SCANNED
    lengths: dict[str, Counter[int]] = {}
    hashes, samples, bad, n_rows = [], [], [], 0
    for piece in slices:
        try:
            for table in work.read(piece, columns):
                n_rows += len(table)
                lengths.setdefault(piece.source, Counter()).update(length_counts(table.column("embedding")))
                found = hash_ids(table.column("id"), sampling.seed)
                present = ~table.column("id").is_null().to_numpy()
                hashes.append(found[present])
                samples.append(chosen_rows(table, sampling, present))
        except BadFileError as error:
            if not skip_bad_files:
                raise
            bad.append([piece.source, str(error)])
    every = np.sort(np.concatenate(hashes)) if hashes else np.empty(0, dtype=np.uint64)
    hashes_file(work, position).write_bytes(every.tobytes())
    write_sample(sample_file(work, position), samples, sampling)
    return {
        "rows": n_rows,
        "hashes": len(every),
        "sampled": sum(map(len, samples)),
        "lengths": {source: [list(pair) for pair in counts.items()] for source, counts in lengths.items()},
        "bad": bad,
    }


def scan_lengths(
    run: Run, name: str, work: Workspace, partitions: Sequence[Partition]
) -> tuple[dict[str, Counter[int]], list[int]]:
    """Scan all partitions without a sample, as a step of this name.

    Returns:
        How many rows of each file have which length, and for each partition the number of its ids, whose hashes (by
        `ID_HASH_SEED`) are left for `check_ids_unique`.
    """
    no_sample = Sampling(ID_HASH_SEED, threshold=1, n_parts=1)  # hashes below 1: no row, but for a chance of n in 2**64
    scan = partial(scan_partition, work, no_sample, False)
    found = run.results(name, scan, list(enumerate(partitions)), unit="partitions", label=partition_label)
    return lengths_by_source(found), [result["hashes"] for result in found]


def write_sample(location: Location, samples: Sequence[pa.Table], sampling: Sampling) -> None:
    """Write the sampled rows of a partition in the order of their hash, in the widest of their types."""
    empty = pa.table({"hash": pa.array([], pa.uint64()), "embedding": pa.array([], pa.list_(pa.float16()))})
    sample = pa.concat_tables([empty, *samples], promote_options="permissive").sort_by("hash").combine_chunks()
    write_arrow_parts(location, sample, np.searchsorted(sample.column("hash").to_numpy(), sampling.edges()))


def lengths_by_source(scanned: Iterable[Mapping[str, Any]]) -> dict[str, Counter[int]]:
    """How many rows of each file have which length, from the results of `scan_partition`."""
    lengths: dict[str, Counter[int]] = {}
    for result in scanned:
        for source, pairs in result["lengths"].items():
            lengths.setdefault(source, Counter()).update(dict(map(tuple, pairs)))
    return lengths


def expected_length(
    lengths: Mapping[str, Mapping[int, int]], embedding_dim: int | None, asked_by: str = "embedding_dim"
) -> int:
    """The length that embeddings must have: the one asked for, else the commonest.

    Raises:
        BadFileError: a file has embeddings, but none of that length.
        InputError: there are no embeddings.
    """
    total: Counter[int] = Counter()
    for counts in lengths.values():
        total.update(counts)
    expected = embedding_dim or commonest_length(total)
    if not commonest_length(total):
        raise InputError("the input holds no embeddings: every one of them is null or empty")
    check_lengths(lengths, expected, asked_by if embedding_dim else "the commonest length of the input")
    return expected


def check_lengths(lengths: Mapping[str, Mapping[int, int]], expected: int, why: str) -> None:
    """Raise a `BadFileError` where a file has embeddings, but none of the length that they must have.

    Args:
        lengths: how many rows of each file have which length. Rows of length 0 have no embedding.
        expected: the length.
        why: where it comes from.
    """
    for source, counts in sorted(lengths.items()):
        if commonest_length(counts) and expected not in counts:
            raise BadFileError(
                f"the file {source} has embeddings of length {commonest_length(counts)} and none of length {expected} "
                f"({why}). Embeddings of different models cannot be compared; take the file out, or give "
                "embedding_dim (--embedding-dim)."
            )


HashFile = tuple[Location, int]
"""A file of sorted hashes, uint64, and how many it holds."""


def check_ids_unique(
    session: Session, work: Workspace, partitions: Sequence[Partition], seed: int, counts: Sequence[int]
) -> None:
    """Refuse an input with an id more than once.

    Raises:
        DuplicateIdError: with examples and the number of repeated ids.
    """
    files = [(hashes_file(work, position), count) for position, count in enumerate(counts)]
    places, n_repeated = repeated_ids(session, work, partitions, seed, files)
    examples = repeated_in_words(places)
    if examples:
        raise DuplicateIdError(
            f"{n_repeated:,} ids stand in the input more than once, so that ids could not tell which row to drop. "
            f"Examples:\n{examples}\nMake ids unique; if a file is there twice, take one away."
        )


def repeated_in_words(places: Mapping[Any, Sequence[str]]) -> str:
    """Examples of ids that stand more than once, a line each; empty where none does, for two ids may have one hash.

    Args:
        places: ids, each with the files of its rows.
    """
    twice = sorted(value for value, sources in places.items() if len(sources) > 1)
    return "\n".join(
        f"  {value!r}: {len(places[value])} times, in {' and '.join(dict.fromkeys(places[value]))}"
        for value in twice[:EXAMPLES]
    )


def repeated_ids(
    session: Session, work: Workspace, partitions: Sequence[Partition], seed: int, files: Sequence[HashFile]
) -> tuple[dict[Any, list[str]], int]:
    """The ids of the input whose hash stands more than once in some files, each with the files of its rows.

    Hashes are compared range by range, then ids looked up, so that the caller can tell a chance collision of two hashes
    from one id. Memory of a task: 16 bytes for each of about `HASHES_PER_RANGE` ids.

    Returns:
        Up to a thousand ids, and the number of repeated hashes.
    """
    n_ranges = max(1, -(-sum(count for _, count in files) // HASHES_PER_RANGE))
    tasks = [(index, n_ranges) for index in range(n_ranges)]
    repeated: list[int] = []
    n_repeated = 0
    for _, (found, number) in session.run("check ids", partial(repeated_hashes, list(files)), tasks, unit="ranges"):
        repeated += found
        n_repeated += number
    places: dict[Any, list[str]] = {}
    if repeated:
        look = partial(_ids_with_hashes, work, seed, np.array(repeated[:1000], dtype=np.uint64))
        for _, found in session.run("look up ids", look, list(partitions), unit="partitions"):
            for value, source in found:
                places.setdefault(value, []).append(source)
    return places, n_repeated


def repeated_hashes(files: Sequence[HashFile], item: tuple[int, int]) -> tuple[list[int], int]:
    """The first thousand hashes that stand more than once in one of n ranges, given by its number and n; how many."""
    index, n_ranges = item
    low, high = WHOLE * index // n_ranges, WHOLE * (index + 1) // n_ranges
    blocks = []
    for file, count in files:
        if not count:
            continue
        start, stop = _byte_range(file, count, low, high)
        blocks.append(np.frombuffer(file.read_bytes(start, stop), dtype=np.uint64))
    hashes = np.sort(np.concatenate(blocks)) if blocks else np.empty(0, dtype=np.uint64)
    repeated = np.unique(hashes[1:][hashes[1:] == hashes[:-1]])
    return [int(value) for value in repeated[:1000]], len(repeated)


def _byte_range(file: Location, count: int, low: int, high: int) -> tuple[int, int]:
    """Bytes of the sorted file that hold the hashes in [low, high), by bisection of the file."""

    def first_not_below(value: int) -> int:
        left, right = 0, count
        while left < right:
            middle = (left + right) // 2
            found = int.from_bytes(file.read_bytes(8 * middle, 8 * middle + 8), "little")
            left, right = (middle + 1, right) if found < value else (left, middle)
        return left

    start = 0 if low == 0 else first_not_below(low)
    stop = count if high == WHOLE else first_not_below(high)
    return 8 * start, 8 * stop


def _ids_with_hashes(work: Workspace, seed: int, hashes: np.ndarray, slices: Partition) -> list[tuple[Any, str]]:
    found = []
    for piece in slices:
        for table in work.read(piece):
            ids = table.column("id").drop_null()
            wanted = np.isin(hash_ids(ids, seed), hashes)
            found += [(value, piece.source) for value in ids.filter(pa.array(wanted)).to_pylist()]
    return found
