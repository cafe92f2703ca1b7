"""What is held in memory, here or on a worker, as Arrow: columns as they are, embeddings a range of rows at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import pyarrow as pa

from semdedup.dedup.frame_input.convert import (
    ObjectRows,
    check_exact,
    chunked,
    element_dtype,
    first_line,
    matrix_column,
    only_once,
    refuse_text,
    series_column,
)
from semdedup.dedup.options import InputOptions
from semdedup.errors import BadFileError
from semdedup.settings.frames import Frame

Column: TypeAlias = "pa.Array | pa.ChunkedArray"
Rows = Callable[[int, int], Column]
"""Gives the embeddings of rows [start, stop)."""

SAMPLED = 1000
"""Rows by which the bytes of a row are told."""

PARTITION_BITS = 32
"""Ids by position are, of a Dask frame, the number of the partition and in the lower 32 bits the row in there."""


CLUSTER_GIVEN_BY = (
    "It holds the number of each row's cluster, as semdedup.read_clusters and semdedup.frames.assign_clusters give it."
)


@dataclass(frozen=True)
class Columns:
    """Which columns of a frame are used: ids, or positions in their place, embeddings, and others if it has them.

    Of clusters `cluster` names the column that holds the number of each row's; it must be there.
    """

    id_field: str
    embedding_field: str
    others: tuple[str, ...] = ()
    by_position: bool = False
    cluster: str = ""
    fp16_bits: bool = False

    @classmethod
    def of(cls, fields: InputOptions, frame: Frame, others: Sequence[str] = (), cluster: str = "") -> Columns:
        """The columns that settings name, and others, of a frame."""
        names = tuple(dict.fromkeys([*fields.carried, *others, *([cluster] if cluster else [])]))
        fp16_bits = fields.embedding_encoding == "fp16_bits"
        return cls(fields.id_field or "id", fields.embedding_field, names, frame.by_position, cluster, fp16_bits)

    def among(self, names: Sequence[Any]) -> list[str]:
        """The other columns that a frame with these names has, and its ids where these are a column."""
        wanted = self.others if self.by_position else (self.id_field, *self.others)
        there = [name for name in names if isinstance(name, str)]
        return [name for name in dict.fromkeys(wanted) if name in there and name != self.embedding_field]


@dataclass(frozen=True)
class Held:
    """A frame in memory.

    Attributes:
        n_rows: its rows.
        others: ids and other columns that are used, whole.
        embedding_field: name of the embeddings.
        embeddings: gives those of a range of rows.
        names: all columns that the frame has.
    """

    n_rows: int
    others: pa.Table
    embedding_field: str
    embeddings: Rows
    names: tuple[str, ...]

    def rows(self, start: int, stop: int) -> pa.Table:
        """Rows [start, stop) of the columns that are used."""
        found = self.embeddings(start, stop)
        return self.others.slice(start, stop - start).append_column(self.embedding_field, chunked(found))

    def pieces(self, n_bytes: int) -> Iterator[tuple[int, int]]:
        """Ranges of rows of about so many bytes each."""
        step = self.rows_in(n_bytes)
        for start in range(0, self.n_rows, step):
            yield start, min(start + step, self.n_rows)

    def rows_in(self, n_bytes: int) -> int:
        """How many rows have about so many bytes."""
        sample = self.rows(0, min(SAMPLED, self.n_rows))
        return max(1, n_bytes * max(1, len(sample)) // max(1, sample.nbytes))

    @property
    def schema(self) -> pa.Schema:
        """The columns that are used; and of the other columns the names, without a type."""
        used = self.rows(0, 0).schema
        return pa.schema([*used, *(pa.field(name, pa.null()) for name in self.names if name not in used.names)])


def hold(frame: Frame, columns: Columns, first_id: int = 0) -> Held:
    """A frame that is in memory as it will be written.

    Args:
        frame: any but a lazy one.
        columns: what is used of it.
        first_id: the id of the first row, where ids are positions.

    Raises:
        BadFileError: a column is missing, is there twice, or holds what cannot be written.
    """
    return HOLD[frame.kind](frame, columns, first_id)


def _held(n_rows: int, found: pa.Table, columns: Columns, first_id: int, rows: Rows, names: Sequence[Any]) -> Held:
    if columns.by_position:
        ids = pa.array(np.arange(first_id, first_id + n_rows, dtype=np.int64))
        found = pa.table({columns.id_field: ids, **{name: found.column(name) for name in found.column_names}})
    texts = tuple(name for name in names if isinstance(name, str))
    return Held(n_rows, found, columns.embedding_field, rows, texts)


def check_names(frame: Frame, names: Sequence[Any], columns: Columns, index: Sequence[Any] = ()) -> None:
    """Refuse a frame that lacks the ids or the embeddings, or has a column twice."""
    every = [*([] if columns.by_position else [columns.id_field]), columns.embedding_field, columns.cluster]
    needed = [name for name in every if name]
    only_once(names, [*needed, *columns.others], frame.name)
    for name in needed:
        if name in names:
            continue
        if name in index:
            raise BadFileError(f"{name!r} is the index of {frame.name} and no column of it; call .reset_index() first")
        some = ", ".join(map(str, names[:50])) or "none"
        if name == columns.cluster:
            raise BadFileError(f"{frame.name} has no column {name!r}; it has {some}. {CLUSTER_GIVEN_BY}")
        hint = "" if name == columns.embedding_field else " id_field=None takes the positions of the rows."
        raise BadFileError(
            f"{frame.name} has no column {name!r}; it has {some}. Name the right one with id_field / "
            f"embedding_field.{hint}"
        )


def light_columns(frame: Frame, names: Sequence[str]) -> pa.Table:
    """Some columns of a frame that is in memory, whole, in Arrow: ids and the like, not embeddings."""
    value = frame.value
    if frame.kind == "pandas":
        found = {n: series_column(value[n], f"the column {n!r} of {frame.name}") for n in names}
        return pa.table({name: chunked(column) for name, column in found.items()})
    if frame.kind in ("cudf", "polars"):
        return value[list(names)].to_arrow() if names else pa.table({})
    if frame.kind == "datasets":
        table = value.select_columns(list(names)).with_format("arrow")[:] if names else pa.table({})
        return table.combine_chunks()
    return _table_of(frame).select(list(names))


def ids_of(frame: Frame, id_field: str, first_id: int = 0) -> pa.ChunkedArray:
    """The ids of a frame that is in memory: a column, or the positions of its rows from `first_id` on."""
    if frame.by_position:
        n_rows = frame.value.num_rows if frame.kind == "arrow" else len(frame.value)
        return pa.chunked_array([np.arange(first_id, first_id + n_rows, dtype=np.int64)])
    index = list(frame.value.index.names) if frame.kind == "pandas" else []
    check_names(frame, column_names(frame), Columns(id_field, ""), index)
    return light_columns(frame, [id_field]).column(id_field)


def column_names(frame: Frame) -> list[Any]:
    """The names of the columns of a frame; a matrix has none."""
    if frame.kind in ("numpy", "cupy"):
        return []
    if frame.kind == "arrow":
        return list(frame.value.schema.names)
    return list(frame.value.column_names if frame.kind == "datasets" else frame.value.columns)


def read_once(frame: Frame) -> Frame:
    """The frame itself; of a stream of Arrow, which may be read only once, a table of what it gives."""
    once = frame.kind == "stream" or isinstance(frame.value, pa.RecordBatchReader)
    return replace(frame, value=_table_of(frame), kind="arrow", called=frame.name) if once else frame


def _pandas(frame: Frame, columns: Columns, first_id: int) -> Held:
    value, names = frame.value, column_names(frame)
    check_names(frame, names, columns, list(value.index.names))
    others = light_columns(frame, columns.among(names))
    series, whose = value[columns.embedding_field], f"the column {columns.embedding_field!r} of {frame.name}"
    if isinstance(series.dtype, pd.StringDtype):
        refuse_text(whose)
    if series.dtype == object:
        rows: Rows = ObjectRows(series.to_numpy(), whose, columns.fp16_bits).rows
    else:
        rows = _slices(series_column(series, whose))
    return _held(len(value), others, columns, first_id, rows, names)


def _arrow(frame: Frame, columns: Columns, first_id: int) -> Held:
    """Arrow, and what hands it out; what can be read once is read here."""
    table = _table_of(frame)
    check_names(frame, table.column_names, columns)
    others = table.select(columns.among(table.column_names))
    rows = _slices(table.column(columns.embedding_field))
    return _held(len(table), others, columns, first_id, rows, table.column_names)


def _table_of(frame: Frame) -> pa.Table:
    value = frame.value
    if isinstance(value, pa.RecordBatchReader):
        return value.read_all()
    if isinstance(value, pa.Table):
        return value
    try:
        return pa.Table.from_batches([value]) if isinstance(value, pa.RecordBatch) else pa.table(value)
    except (pa.ArrowException, TypeError, ValueError) as error:
        raise BadFileError(f"{frame.name} gives no table of Arrow: {first_line(error)}") from error


def _by_arrow(frame: Frame, columns: Columns, first_id: int) -> Held:
    """cuDF and Polars hand out the columns that are used as Arrow."""
    names = column_names(frame)
    check_names(frame, names, columns)
    others, field = light_columns(frame, columns.among(names)), columns.embedding_field
    rows = _slices(light_columns(frame, [field]).column(field))
    return _held(len(frame.value), others, columns, first_id, rows, names)


def _datasets(frame: Frame, columns: Columns, first_id: int) -> Held:
    """A `datasets.Dataset` reads its rows from the disk: the embeddings a range at a time."""
    names, field = column_names(frame), columns.embedding_field
    check_names(frame, names, columns)
    vectors = frame.value.select_columns([field]).with_format("arrow")

    def rows(start: int, stop: int) -> Column:
        return vectors[start:stop].column(field)

    others = light_columns(frame, columns.among(names))
    return _held(len(frame.value), others, columns, first_id, rows, names)


def _matrix(frame: Frame, columns: Columns, first_id: int) -> Held:
    value, whose = frame.value, frame.name
    if columns.cluster:
        raise BadFileError(f"{whose} has no column {columns.cluster!r}. {CLUSTER_GIVEN_BY}")
    if value.ndim != 2 or 0 in value.shape[1:]:
        raise BadFileError(f"{whose} has shape {tuple(value.shape)}; it must be (n, d), a row for each embedding")
    dtype = element_dtype(np.dtype(value.dtype), whose, columns.fp16_bits)

    def rows(start: int, stop: int) -> Column:
        part = value[start:stop]
        part = part.get() if frame.kind == "cupy" else np.asarray(part)
        check_exact(part, whose)
        return matrix_column(part, dtype)

    return _held(len(value), pa.table({}), columns, first_id, rows, [columns.embedding_field])


def _slices(column: Column) -> Rows:
    return lambda start, stop: column.slice(start, stop - start)


HOLD: dict[str, Callable[[Frame, Columns, int], Held]] = {
    "pandas": _pandas,
    "cudf": _by_arrow,
    "polars": _by_arrow,
    "arrow": _arrow,
    "stream": _arrow,
    "datasets": _datasets,
    "numpy": _matrix,
    "cupy": _matrix,
}
"""How each kind of frame is held."""
