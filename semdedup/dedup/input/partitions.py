"""Cutting files into partitions of rows: arithmetic on what the footers say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from semdedup.dedup.input.facts import FileFacts


@dataclass(frozen=True)
class Slice:
    """Rows [start, stop) of one file.

    Attributes:
        url: the file.
        source: the file that the user gave: the same, or the one that it was made of.
        start, stop: which rows.
        first: number of the first row of the file among those of `source`, of which several files may be made.
    """

    url: str
    source: str
    start: int
    stop: int
    first: int = 0


Partition = tuple[Slice, ...]


def partition_label(item: tuple[int, Partition]) -> str:
    """What a partition is called where a worker dies of it: its number and its files."""
    number, slices = item
    files = list(dict.fromkeys(piece.source for piece in slices))
    return f"partition {number}: {', '.join(files[:3])}" + f" and {len(files) - 3} more files" * (len(files) > 3)


def cut_partitions(
    facts: Iterable[FileFacts], target_values: int, files_per_partition: int | None, most_values: int = 0
) -> list[Partition]:
    """Cut files into partitions of about `target_values` embedding elements each; small files share a partition.

    A file of up to `most_values` is not cut: what begins in the middle of a row group is decoded from its beginning.
    A partition holds more than either only where one row does. Files without rows are in none.
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
        row_values = max(1.0, file.n_values / file.n_rows)
        n_pieces = -(-file.n_rows // max(1, int(max(target_values, most_values) / row_values)))
        rows = -(-file.n_rows // n_pieces)
        if n_pieces > 1:
            close()
        for start in range(0, file.n_rows, rows):
            stop = min(start + rows, file.n_rows)
            full = files_per_partition is not None and len(current) >= files_per_partition
            if full or (current and held + (stop - start) * row_values > target_values):
                close()
            current.append(Slice(file.url, file.source, start, stop, before.get(file.source, 0)))
            held += (stop - start) * row_values
        before[file.source] = before.get(file.source, 0) + file.n_rows
    close()
    return partitions
