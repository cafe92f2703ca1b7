"""The first look at the rows: their lengths, the fit's sample, and whether an id is there twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import Array, Backend, backend_module
from semdedup.compute.session import Session
from semdedup.dedup.frame_input.parts import source_in_words
from semdedup.dedup.input.hashes import HashFiles, find_repeated, write_hashes
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.input.on_device import chosen_on_device, read_on_device
from semdedup.dedup.input.partitions import Partition, Slice, partition_label
from semdedup.dedup.input.rows import (
    DeviceTable,
    commonest_length,
    counts_of,
    gather_unit_rows,
    row_lengths,
    with_source,
)
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.input.several import Rows, read_slices
from semdedup.errors import BadFileError, DuplicateIdError, InputError
from semdedup.runs.run import Run
from semdedup.storage.arrays import pack_ends
from semdedup.storage.chunks import write_chunks
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION

SAMPLE_ROWS = 1 << 10
"""Rows of a chunk of the sample: what the parts of the sample are made of."""

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
        backend: where the embeddings of rows that are read, are.
    """

    schema: InputSchema
    inputs: Location
    scratch: Location
    read_kwargs: Mapping[str, Any]
    backend: Backend = field(default="cpu", kw_only=True)

    def read(
        self,
        slices: Partition,
        columns: Collection[str] | None = None,
        on_bad: Callable[[Slice, BadFileError], None] | None = None,
    ) -> Iterator[Rows]:
        """The rows of slices, in tables of bounded size: all columns, or those that are wanted. See `read_slices`, and
        `read_on_device`, which keeps embeddings on a GPU."""
        with_rows = columns is None or "embedding" in columns
        read = read_on_device if self.backend == "gpu" and with_rows else read_slices
        return read(self.schema, self._file_of, slices, self.read_kwargs, columns, on_bad)

    def _file_of(self, piece: Slice) -> Location:
        """Where the file of a slice is; converted JSON Lines are in the scratch folder."""
        inside = piece.url.startswith(self.scratch.url + "/")
        return (self.scratch if inside else self.inputs).at(piece.url)

    def gather(self, slices: Partition, dim: int) -> tuple[Array, pa.Table, pa.Table]:
        """The rows of a partition, normalised (n, d) float32 in arrays of the backend, their other columns, and the
        rows for the quarantine."""
        n_rows = sum(piece.stop - piece.start for piece in slices)
        rows = backend_module(self.backend).empty((n_rows, dim), dtype=np.float32)
        others, faulty, n = [], [], 0
        for found in self.read(slices):
            gathered = gather_unit_rows([found.table], dim, rows[n:])
            n += gathered.n_rows
            others.append(gathered.others)
            wrong = np.setdiff1d(np.arange(len(found.table)), gathered.positions, assume_unique=True)
            faulty.append(with_source(gathered.faulty, [source_in_words(name) for name in found.sources_of(wrong)]))
        return rows[:n], pa.concat_tables(others), pa.concat_tables(faulty)


def range_starts(n_ranges: int, stop: int = WHOLE) -> np.ndarray:
    """The lowest hash of each of equal ranges of the hashes below `stop`, (n_ranges,) uint64."""
    return np.array([stop * index // n_ranges for index in range(n_ranges)], dtype=np.uint64)


@dataclass(frozen=True)
class Sampling:
    """Which rows are fitted on: those whose hash is below `threshold`.

    The hash depends on the id and the seed alone, so the sample does not depend on files or partitions.
    """

    seed: int
    threshold: int

    @classmethod
    def of(cls, seed: int, n_wanted: int, n_rows: int) -> Sampling:
        """Sample about `n_wanted` of `n_rows` rows; all of them where that many are wanted, none for 0."""
        return cls(seed, WHOLE if n_wanted >= n_rows else WHOLE * n_wanted // n_rows)

    def chosen(self, hashes: np.ndarray) -> np.ndarray:
        """Truth for each hash, (n,): whether the row belongs to the sample."""
        return hashes <= np.uint64(self.threshold - 1) if self.threshold else np.zeros(len(hashes), dtype=bool)


def sample_file(work: Workspace, position: int, drawn: int = 0) -> Location:
    """Rows of one partition that belong to the sample, ``hash`` and ``embedding``, in chunks of `SAMPLE_ROWS`.

    `drawn` tells the sample of the scan, 0, from those that are drawn later.
    """
    return work.scratch / (f"sample-{drawn}" if drawn else "sample") / f"{position}.arrows"


def chosen_rows(table: pa.Table | DeviceTable, hashes: np.ndarray, chosen: np.ndarray) -> pa.Table:
    """Hash and embedding of the rows of a table that are `chosen`, (n,) truth, given the hashes of the ids."""
    chosen = np.flatnonzero(chosen)
    if isinstance(table, DeviceTable):
        return chosen_on_device(table.embeddings, hashes, chosen)
    embeddings = table.column("embedding").take(pa.array(chosen))
    lists = embeddings.cast(pa.list_(embeddings.type.value_type))
    return pa.table({"hash": pa.array(hashes[chosen]), "embedding": lists})


def hashes_folder(work: Workspace) -> Location:
    """The hashes of the ids, a file for each partition."""
    return work.scratch / "ids"


def scan_partition(
    work: Workspace, sampling: Sampling, skip_bad_files: bool, item: tuple[int, Partition]
) -> dict[str, Any]:
    """Look at one partition; write its part of the sample and the hashes of its ids.

    Metadata is read only where files that cannot be read are to be skipped: they have to be found now.

    Returns:
        ``rows``, ``hashes`` (where bins of the hash end among those of the ids, see `write_hashes`), ``sampled`` and
        ``sample_ends`` (see `write_sample`), ``lengths`` (rows of each length, by source) and ``bad`` (source and
        reason of unreadable files).

    Memory: a batch of rows as it is read, the rows of the sample, 16 bytes a row.
    """
    position, slices = item
    columns = None if skip_bad_files else SCANNED
    lengths: dict[str, Counter[int]] = {}
    hashes, samples, bad, n_rows = [], [], [], 0

    def on_bad(piece: Slice, error: BadFileError) -> None:
        bad.append([piece.source, str(error)])

    for rows in work.read(slices, columns, on_bad if skip_bad_files else None):
        table, ids = rows.table, rows.table.column("id")
        n_rows += len(table)
        count_lengths(lengths, rows)
        found = hash_ids(ids, sampling.seed)
        present = ~ids.is_null().to_numpy()
        hashes.append(found[present])
        samples.append(chosen_rows(table, found, present & sampling.chosen(found)))
    return {
        "rows": n_rows,
        "hashes": write_hashes(hashes_folder(work), position, hashes),
        **write_sample(sample_file(work, position), samples),
        "lengths": {source: [list(pair) for pair in counts.items()] for source, counts in lengths.items()},
        "bad": bad,
    }


def count_lengths(lengths: dict[str, Counter[int]], rows: Rows) -> None:
    """Add how many rows of each file have which length."""
    of_rows = row_lengths(rows.table.column("embedding"))
    found = counts_of(of_rows)
    if len(rows.origins) == 1 or found == {max(found, default=0): len(rows.table)}:
        for origin in rows.origins:
            share = dict.fromkeys(found, origin.n_rows) if len(rows.origins) > 1 else found
            lengths.setdefault(origin.source, Counter()).update(share)
        return
    for origin, (low, high) in zip(rows.origins, pairwise(rows.edges.tolist()), strict=True):
        lengths.setdefault(origin.source, Counter()).update(counts_of(of_rows[low:high]))


def scan_lengths(
    run: Run, name: str, work: Workspace, partitions: Sequence[Partition]
) -> tuple[dict[str, Counter[int]], list[str]]:
    """Scan all partitions without a sample, as a step of this name.

    Returns:
        How many rows of each file have which length, and what is known of the hashes of the ids of each partition (by
        `ID_HASH_SEED`), for `check_ids_unique`.
    """
    no_sample = Sampling(ID_HASH_SEED, threshold=1)  # hashes below 1: no row, but for a chance of n in 2**64
    scan = partial(scan_partition, work, no_sample, False)
    found = run.results(name, scan, list(enumerate(partitions)), unit="partitions", label=partition_label)
    return lengths_by_source(found), [result["hashes"] for result in found]


def write_sample(location: Location, samples: Sequence[pa.Table]) -> dict[str, Any]:
    """Write the sampled rows of a partition, in the widest of their types.

    Returns:
        ``sampled``: how many; and ``sample_ends``: where chunks of `SAMPLE_ROWS` of them end in the file, packed.
    """
    empty = pa.table({"hash": pa.array([], pa.uint64()), "embedding": pa.array([], pa.list_(pa.float16()))})
    sample = pa.concat_tables([empty, *samples], promote_options="permissive")
    chunks = (sample.slice(start, SAMPLE_ROWS) for start in range(0, len(sample), SAMPLE_ROWS))
    return {"sampled": len(sample), "sample_ends": pack_ends(write_chunks(location, chunks))}


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


def check_ids_unique(
    session: Session, work: Workspace, partitions: Sequence[Partition], seed: int, hashes: Sequence[str]
) -> None:
    """Refuse an input with an id more than once.

    Args:
        session: the cluster.
        work: the input.
        partitions: all of it.
        seed: of the hashes.
        hashes: what `scan_partition` has told of them, by partition.

    Raises:
        DuplicateIdError: with examples and the number of repeated ids.
    """
    files = HashFiles(hashes_folder(work), hashes)
    places, n_repeated = repeated_ids(session, work, partitions, seed, [files])
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
    session: Session, work: Workspace, partitions: Sequence[Partition], seed: int, files: Sequence[HashFiles]
) -> tuple[dict[Any, list[str]], int]:
    """The ids of the input whose hash stands more than once in some files, each with the files of its rows.

    Hashes are compared range by range, then ids looked up, so that the caller can tell a chance collision of two hashes
    from one id. Memory and reads as of `find_repeated`.

    Returns:
        Up to a thousand ids, and the number of repeated hashes.
    """

    def each(name: str, function: Callable[[Any], Any], items: Sequence[Any]) -> list[Any]:
        found = dict(session.run(name, function, items, unit="parts"))
        return [found[position] for position in range(len(items))]

    repeated, n_repeated = find_repeated(each, work.scratch, files)
    places: dict[Any, list[str]] = {}
    if repeated:
        look = partial(_ids_with_hashes, work, seed, np.array(repeated[:1000], dtype=np.uint64))
        for _, found in session.run("look up ids", look, list(partitions), unit="partitions"):
            for value, source in found:
                places.setdefault(value, []).append(source)
    return places, n_repeated


def _ids_with_hashes(work: Workspace, seed: int, hashes: np.ndarray, slices: Partition) -> list[tuple[Any, str]]:
    found: list[tuple[Any, str]] = []
    for rows in work.read(slices, ["id"]):
        ids = rows.table.column("id")
        wanted = np.flatnonzero(np.isin(hash_ids(ids, seed), hashes) & ~ids.is_null().to_numpy())
        found += zip(ids.take(pa.array(wanted)).to_pylist(), rows.sources_of(wanted), strict=True)
    return found
