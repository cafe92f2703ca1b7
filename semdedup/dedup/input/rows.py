"""Embedding columns of Arrow and the (n, d) arrays that they hold: one into the other without an object per row."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.arrays import Array, array_module, to_host
from semdedup.arrays.frames import Lists
from semdedup.dedup.kernels.exact import square_lengths, unit_rows
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION, write_table

NULL, WRONG_LENGTH, NOT_FINITE, ZERO, NULL_ID = "null", "wrong_length", "not_finite", "zero", "null_id"
REASONS = ("", NULL, WRONG_LENGTH, NOT_FINITE, ZERO, NULL_ID)
"""Why a row is quarantined; the position is the code that `check_rows` gives, 0 means that nothing is wrong."""


CHECKED_ON_GPU = 1 << 24
"""Elements that are checked at a time on a GPU: CuPy takes two copies of them in float64, 256 MiB."""

Column: TypeAlias = pa.ChunkedArray | Lists
"""A column of embeddings: Arrow's on the host, or one whose values may be on the device."""


@dataclass(frozen=True)
class DeviceTable:
    """Rows whose embeddings are on the device; their other columns are Arrow's, on the host."""

    light: pa.Table
    embeddings: Lists

    def __len__(self) -> int:
        return len(self.light)

    def column(self, name: str) -> Any:
        """A column by its name."""
        return self.embeddings if name == "embedding" else self.light.column(name)

    def drop_columns(self, name: str) -> pa.Table:
        """The columns but the embedding, which is the only one that can be left out."""
        assert name == "embedding"
        return self.light


def row_lengths(column: Column) -> np.ndarray:
    """Number of elements of each row, (n,) int64; -1 for a null row."""
    if isinstance(column, Lists):
        return to_host(column.lengths).astype(np.int64, copy=False)
    lengths = pc.fill_null(pc.list_value_length(column), -1)
    return lengths.to_numpy().astype(np.int64, copy=False)


def length_counts(column: Column) -> dict[int, int]:
    """How many rows of the column have which length, null rows left out."""
    return counts_of(row_lengths(column))


def counts_of(lengths: np.ndarray) -> dict[int, int]:
    """How many of (n,) lengths there are of each, those of null rows left out."""
    found, counts = np.unique(lengths, return_counts=True)
    return {int(length): int(count) for length, count in zip(found, counts, strict=True) if length >= 0}


def commonest_length(counts: Mapping[int, int]) -> int:
    """The length that most rows have, 0 left out; of equally common ones the largest; 0 where there is none."""
    return max(filter(None, counts), key=lambda length: (counts[length], length), default=0)


def embedding_rows(column: Column, dim: int) -> tuple[Array, Array]:
    """The rows of a list column that have `dim` elements, as one array.

    Args:
        column: of a type that `embedding_type` gives; null rows and elements allowed.
        dim: d, the expected length.

    Returns:
        The rows, (m, d) of the column's type, null elements as NaN, and the positions of these rows in the column,
        (m,) int64. A column of one chunk in which every row is whole is not copied; anything else is copied once.
    """
    if isinstance(column, Lists):
        return column.rows(dim)
    blocks, positions, start = [], [], 0
    for chunk in column.chunks:
        lengths = row_lengths(pa.chunked_array([chunk]))
        good = np.flatnonzero(lengths == dim)
        if pa.types.is_fixed_size_list(chunk.type):
            size = chunk.type.list_size
            values = chunk.values.slice(chunk.offset * size, len(chunk) * size)  # .flatten() would drop null rows
            width = size
        else:
            if len(good) < len(chunk):
                chunk = chunk.filter(pa.array(lengths == dim))
            values, width = chunk.flatten(), dim
        rows = values.to_numpy(zero_copy_only=False).reshape(-1, width) if width else np.empty((0, dim))
        if pa.types.is_fixed_size_list(chunk.type) and len(good) < len(chunk):
            rows = rows[good] if width == dim else np.empty((0, dim), rows.dtype)
        if len(good):
            blocks.append(rows)
            positions.append(good + start)
        start += len(lengths)
    if not blocks:
        return np.empty((0, dim), dtype=np.float32), np.empty(0, dtype=np.int64)
    return (blocks[0] if len(blocks) == 1 else np.concatenate(blocks)), np.concatenate(positions)


@dataclass(frozen=True)
class CheckedRows:
    """The rows of a table sorted into those that can be compared and those that cannot: arrays of NumPy or CuPy.

    Attributes:
        rows: (m, d) the embeddings that can be compared, as they came.
        positions: (m,) int64, their positions in the table.
        faults: (n,) uint8, for every row of the table the position of its reason in `REASONS`, 0 for those in `rows`.
    """

    rows: Array
    positions: Array
    faults: Array


def check_rows(ids: pa.ChunkedArray, embeddings: Column, dim: int) -> CheckedRows:
    """Find the rows that can be compared: an id, and `dim` finite elements that are not all zero.

    Cost: O(n·d) time; memory of one copy of the embeddings where some row is at fault, of two bits a value otherwise.
    """
    null_ids = ids.is_null().to_numpy()
    if isinstance(embeddings, Lists):
        null_ids = array_module(embeddings.lengths).asarray(null_ids)
        missing = embeddings.lengths < 0
    else:
        missing = embeddings.is_null().to_numpy()
    return sorted_rows(*embedding_rows(embeddings, dim), missing, null_ids)


def sorted_rows(rows: Array, positions: Array, missing: Array, null_ids: Array) -> CheckedRows:
    """Sort the rows of a table into those that can be compared and those that cannot, NumPy or CuPy.

    Args:
        rows: (m, d) the embeddings of the expected length.
        positions: (m,) int64, their positions in the table.
        missing: (n,) truth, for every row of the table whether its embedding is null.
        null_ids: (n,) truth, whether its id is null.
    """
    xp = array_module(rows)
    faults = xp.full(len(missing), REASONS.index(WRONG_LENGTH), dtype=np.uint8)
    faults[missing] = REASONS.index(NULL)
    found = xp.zeros(len(rows), dtype=np.uint8)
    step = max(1, (1 << 16 if xp is np else CHECKED_ON_GPU) // max(1, rows.shape[1]))
    for start in range(0, len(rows), step):
        block = rows[start : start + step]
        square = square_lengths(block)
        suspect = xp.flatnonzero(~(xp.isfinite(square) & (square > 0)))  # or long or short beyond float64's squares
        if len(suspect):
            fault = found[start : start + step]
            fault[suspect[~block[suspect].any(axis=1)]] = REASONS.index(ZERO)
            fault[suspect[~xp.isfinite(block[suspect]).all(axis=1)]] = REASONS.index(NOT_FINITE)
    faults[positions] = found
    faults[null_ids] = REASONS.index(NULL_ID)
    good = faults[positions] == 0
    if not good.all():
        rows, positions = rows[good], positions[good]
    return CheckedRows(rows, positions, faults)


def _without_check(ids: pa.ChunkedArray, embeddings: Column, dim: int) -> CheckedRows:
    """`check_rows` of rows that all can be compared."""
    return CheckedRows(*embedding_rows(embeddings, dim), np.zeros(len(ids), dtype=np.uint8))


class Gathered(NamedTuple):
    """What `gather_unit_rows` found beside the rows.

    Attributes:
        n_rows: how many rows can be compared.
        others: the other columns of these rows.
        faulty: ``id`` and ``reason`` of the rows that cannot.
        positions: (n_rows,) int64, the positions of the rows in the input.
    """

    n_rows: int
    others: pa.Table
    faulty: pa.Table
    positions: np.ndarray


def gather_unit_rows(
    tables: Iterable[pa.Table | DeviceTable], dim: int, out: Array | None, checked_before: bool = False
) -> Gathered:
    """Check and L2-normalise the rows of tables that come one after the other.

    Args:
        tables: at least one, with the columns ``id`` and ``embedding``.
        dim: d, the length that embeddings must have.
        out: (m, d) float32 for the rows, NumPy or CuPy, with space for all of them; None where only the other columns
            are wanted. Rows of tables on the host are copied to a device as they come.
        checked_before: whether all rows are known to be such as can be compared.

    Memory: one table, and a copy of its embeddings where some of its rows cannot be compared.
    """
    n, seen = 0, 0
    others, faulty, positions = [], [], []
    for table in tables:
        check = _without_check if checked_before else check_rows
        checked = check(table.column("id"), table.column("embedding"), dim)
        if out is not None:
            unit_rows(array_module(out).asarray(checked.rows), out=out[n : n + len(checked.rows)])
        n += len(checked.rows)
        other, faults, good = table.drop_columns("embedding"), to_host(checked.faults), to_host(checked.positions)
        wrong = np.flatnonzero(faults)
        reasons = pa.array([REASONS[code] for code in faults[wrong]], pa.string())
        faulty.append(pa.table({"id": table.column("id").take(pa.array(wrong)), "reason": reasons}))
        others.append(other.take(pa.array(good)) if len(wrong) else other)
        positions.append(good + seen)
        seen += len(table)
    together = pa.concat_tables(others, promote_options="permissive")
    return Gathered(n, together, pa.concat_tables(faulty), np.concatenate(positions))


def in_chunks(tables: Iterator[pa.Table], n_rows: int) -> Iterator[Iterable[pa.Table]]:
    """Tables in turns of at least `n_rows` rows, but for the last, and less than one table more. Nothing is held."""

    def turn(first: pa.Table) -> Iterator[pa.Table]:
        missing = n_rows - len(first)
        yield first
        while missing > 0 and (following := next(tables, None)) is not None:
            missing -= len(following)
            yield following

    return (turn(first) for first in tables)


def low_information_mask(light: pa.Table) -> np.ndarray | None:
    """Which rows are marked as of low information, (n,) truth; None where the column is absent."""
    if LOW_INFORMATION not in light.column_names:
        return None
    return light.column(LOW_INFORMATION).fill_null(False).to_numpy().astype(bool)


def with_source(faulty: pa.Table, source: str | Sequence[str]) -> pa.Table:
    """The table of the quarantine: ``id``, ``reason``, and the file or folder that the rows, or each, come from."""
    sources = [source] * len(faulty) if isinstance(source, str) else source
    return faulty.append_column("source", pa.array(sources, pa.string()))


def write_aside(place: Location, faulty: pa.Table) -> dict[str, int]:
    """Write rows into the quarantine, if there are any; return how many for each reason."""
    if len(faulty):
        write_table(place, faulty)
    return dict(Counter(faulty.column("reason").to_pylist()))
