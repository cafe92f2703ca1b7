"""Reading slices one after the other: small ones are put together, so that what is done with rows is done once.

A small file costs its opening, 0.2 ms, and no more.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.input.schema import InputSchema, Origin, rows_of
from semdedup.errors import BadFileError, InputError
from semdedup.storage.location import Location
from semdedup.storage.tables import BATCH_BYTES, ROWS_PER_BATCH

FEW_ROWS, FEW_BYTES = ROWS_PER_BATCH // 8, BATCH_BYTES // 8
"""Tables of fewer rows and bytes are put together with those that follow."""


class Rows(NamedTuple):
    """Rows of one file, or of several small ones."""

    table: pa.Table
    origins: Sequence[Origin]

    @property
    def edges(self) -> np.ndarray:
        """Where the rows of each file begin in the table, and where the last ends, (m + 1,) int64."""
        return np.cumsum([0, *(origin.n_rows for origin in self.origins)])

    def sources_of(self, positions: np.ndarray) -> list[str]:
        """The files of some rows, given by their positions in the table."""
        found = np.searchsorted(self.edges, positions, side="right") - 1
        return [self.origins[index].source for index in found.tolist()]


def read_slices(
    schema: InputSchema,
    file_of: Callable[[Slice], Location],
    slices: Sequence[Slice],
    read_kwargs: Mapping[str, Any],
    columns: Collection[str] | None = None,
    on_bad: Callable[[Slice, BadFileError], None] | None = None,
) -> Iterator[Rows]:
    """The rows of slices in their order, as `InputSchema.read` gives them, in tables of at most `ROWS_PER_BATCH` rows.

    Args:
        schema: how they are read.
        file_of: where the file of a slice is.
        slices: which.
        read_kwargs: options for reading Parquet.
        columns: those that are wanted; all by default.
        on_bad: is told of a file that cannot be read, of which rows may have been given before; else that is raised.

    Raises:
        BadFileError, InputError: as `InputSchema.read`.
    """
    by_source = {piece.source: piece for piece in slices} if on_bad is not None else {}

    def worked_on(table: pa.Table, origins: Sequence[Origin]) -> Iterator[Rows]:
        try:
            yield Rows(schema.as_worked_on(table, origins, columns), origins)
        except InputError as error:
            if len(origins) > 1:  # the one that it is about is to be named
                for (low, high), origin in zip(pairwise(Rows(table, origins).edges.tolist()), origins, strict=True):
                    yield from worked_on(table.slice(low, high - low), [origin])
            elif isinstance(error, BadFileError) and on_bad is not None:
                on_bad(by_source[origins[0].source], error)
            else:
                raise

    def raw() -> Iterator[tuple[pa.Table, list[Origin]]]:
        for pieces in side_by_side(slices):
            try:
                yield from _raw(schema, file_of, pieces, read_kwargs, columns)
            except BadFileError as error:
                if on_bad is None:
                    raise
                on_bad(pieces[0], error)

    for table, origins in _together(schema, raw()):
        yield from worked_on(table, origins)


def side_by_side(slices: Sequence[Slice]) -> Iterator[Sequence[Slice]]:
    """Slices that follow one another in one file, which is one that small files were put into."""
    start = 0
    for stop in range(1, len(slices) + 1):
        before = slices[stop - 1]
        if stop == len(slices) or slices[stop].url != before.url or slices[stop].start != before.stop:
            yield slices[start:stop]
            start = stop


def _raw(
    schema: InputSchema,
    file_of: Callable[[Slice], Location],
    pieces: Sequence[Slice],
    read_kwargs: Mapping[str, Any],
    columns: Collection[str] | None,
) -> Iterator[tuple[pa.Table, list[Origin]]]:
    """Rows as they are in a file, of slices that follow one another there."""
    first, stops = pieces[0].start, [piece.stop for piece in pieces]
    row_bytes = max(piece.row_bytes for piece in pieces)
    every = replace(pieces[0], stop=stops[-1], row_bytes=row_bytes)
    for table in rows_of(file_of(every), partial(schema.wanted, columns), every, read_kwargs):
        last = first + len(table)
        some = pieces[bisect_right(stops, first) : bisect_left(stops, last) + 1]
        bounds = [(max(piece.start, first), min(piece.stop, last)) for piece in some]
        yield (
            table,
            [
                Origin(piece.source, piece.first + low, high - low)
                for piece, (low, high) in zip(some, bounds, strict=True)
            ],
        )
        first = last


def _together(
    schema: InputSchema, tables: Iterator[tuple[pa.Table, list[Origin]]]
) -> Iterator[tuple[pa.Table, list[Origin]]]:
    """Put small tables together that have the same columns and mean the same by them."""
    held: list[tuple[pa.Table, list[Origin]]] = []
    n_rows = n_bytes = 0
    for table, origins in tables:
        few = len(table) < FEW_ROWS and table.nbytes < FEW_BYTES
        if held and not (
            few
            and n_rows + len(table) <= ROWS_PER_BATCH
            and n_bytes <= BATCH_BYTES
            and table.schema.equals(held[0][0].schema)
            and schema.alike(origins[0].source, held[0][1][0].source)
        ):
            yield from _joined(held)
            held, n_rows, n_bytes = [], 0, 0
        held.append((table, origins))
        n_rows, n_bytes = n_rows + len(table), n_bytes + table.nbytes
    yield from _joined(held)


def _joined(held: Sequence[tuple[pa.Table, list[Origin]]]) -> Iterator[tuple[pa.Table, list[Origin]]]:
    """The tables as one; one by one where they have a type that PyArrow cannot put together."""
    if len(held) > 1:
        try:
            together = pa.concat_tables([table for table, _ in held]).combine_chunks()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            pass
        else:
            yield together, [origin for _, origins in held for origin in origins]
            return
    yield from held
