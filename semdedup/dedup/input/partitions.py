"""Cutting files into partitions of rows: arithmetic on what the footers say."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate

from semdedup.dedup.input.facts import FileFacts


@dataclass(frozen=True, slots=True)
class Slice:
    """Rows [start, stop) of one file.

    Attributes:
        url: the file.
        source: the file that the user gave: the same, or the one that it was made of.
        start, stop: which rows.
        first: what the number of a row in the file is less than that in `source`: of a source several files may be
            made, and a file of several sources.
        row_bytes: bytes of one of its rows once it is decoded, on average; 0 where that is not known.
    """

    url: str
    source: str
    start: int
    stop: int
    first: int = 0
    row_bytes: int = 0


Partition = tuple[Slice, ...]


def partition_label(item: tuple[int, Partition]) -> str:
    """What a partition is called where a worker dies of it: its number and its files."""
    number, slices = item
    files = list(dict.fromkeys(piece.source for piece in slices))
    return f"partition {number}: {', '.join(files[:3])}" + f" and {len(files) - 3} more files" * (len(files) > 3)


def cut_partitions(
    facts: Iterable[FileFacts], target_bytes: int, files_per_partition: int | None, most_bytes: int = 0
) -> list[Partition]:
    """Cut files into partitions of about `target_bytes` each, see `sizes.held_bytes`; small files share a partition.

    Files are cut between row groups. A row group of up to `most_bytes` is not cut: what begins in the middle of one is
    read from its beginning. A partition holds more than either only where one row does. Files without rows are in none.
    """
    partitions: list[Partition] = []
    current: list[Slice] = []
    held = 0.0
    before: dict[str, int] = {}

    def close() -> None:
        nonlocal current, held
        if current:
            partitions.append(tuple(current))
        current, held = [], 0.0

    for file in facts:
        if file.n_rows == 0:
            continue
        row_bytes = file.n_bytes / file.n_rows
        most_rows = [max(1, int(n_bytes / row_bytes)) for n_bytes in (target_bytes, max(target_bytes, most_bytes))]
        pieces = list(_pieces(file.group_rows or [file.n_rows], *most_rows))
        if len(pieces) > 1:
            close()
        for start, stop in pieces:
            full = files_per_partition is not None and len(current) >= files_per_partition
            if full or (current and held + (stop - start) * row_bytes > target_bytes):
                close()
            first, at = before.get(file.source, 0) - file.offset, file.offset
            current.append(Slice(file.url, file.source, at + start, at + stop, first, round(row_bytes)))
            held += (stop - start) * row_bytes
        before[file.source] = before.get(file.source, 0) + file.n_rows
    close()
    return partitions


def _pieces(group_rows: Sequence[int], target_rows: int, most_rows: int) -> Iterator[tuple[int, int]]:
    """Cut the rows of a file: as many row groups as have `target_rows`; a group of more than `most_rows` by itself.

    >>> list(_pieces([30, 30, 30, 100], 60, 60))
    [(0, 60), (60, 90), (90, 140), (140, 190)]
    """
    start = before = 0
    for end in accumulate(group_rows):
        if before > start and end - start > target_rows:
            yield start, before
            start = before
        if end - start > most_rows:
            rows = -(-(end - start) // -(-(end - start) // most_rows))
            yield from ((low, min(low + rows, end)) for low in range(start, end, rows))
            start = end
        before = end
    if start < before:
        yield start, before
