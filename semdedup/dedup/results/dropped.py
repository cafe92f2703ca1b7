"""The ids that a result drops, and frames without these rows. Ids are read a few at a time, wherever they stand."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from semdedup.dedup.frame_input.held import PARTITION_BITS, ids_of
from semdedup.dedup.input.ids import as_ids, id_type
from semdedup.dedup.names import SCORE
from semdedup.dedup.sizes import ROWS_AT_A_TIME
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.errors import ParameterError
from semdedup.settings.frames import Frame, frame_of
from semdedup.storage.location import Location
from semdedup.storage.tables import open_parquet

MOST_HELD = 8 << 20
"""Bytes of ids that travel with a lazy frame; Dask warns of graphs that are larger."""


@dataclass(frozen=True)
class Dropped:
    """Ids to drop.

    Attributes:
        files: tables of ids with the eps at which they go: of scores, or, with None, of nothing but ids that go.
        held: ids in memory.
    """

    files: tuple[tuple[Location, float | None], ...]
    held: tuple[pa.Array, ...] = ()

    def in_memory(self) -> Dropped:
        """The same without files, where the ids are at most `MOST_HELD` bytes; else itself."""
        held, n_bytes = [], 0
        for ids in self._pieces():
            held.append(ids)
            n_bytes += ids.nbytes
            if n_bytes > MOST_HELD:
                return self
        return Dropped((), tuple(held))

    def _pieces(self) -> Iterator[pa.Array]:
        """The ids, some at a time."""
        yield from self.held
        for location, eps in self.files:
            with open_parquet(location) as file:
                yield from _batches(file, eps)

    def among(self, ids: pa.ChunkedArray) -> np.ndarray:
        """Which of some ids are dropped, (n,) truth; a null id is not.

        Time: a reading of the tables. Memory: `ROWS_AT_A_TIME` rows, and the ids.

        Raises:
            ParameterError: ids are text here and whole numbers there.
        """
        found = np.zeros(len(ids), dtype=bool)
        if not len(ids) or ids.null_count == len(ids):
            return found
        wanted: pa.ChunkedArray | None = None
        for batch in self._pieces():
            if wanted is None or wanted.type != batch.type:
                wanted = _alike(ids, batch.type)
            found |= pc.is_in(wanted, batch).to_numpy(zero_copy_only=False)
        return found


def _alike(ids: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    """Ids of a frame in the type that they have in the result."""
    found = id_type(ids.type)
    try:
        if found is None or (found == pa.string()) != (id_type(kind) == pa.string()):
            raise pa.ArrowInvalid
        return as_ids(ids, found).cast(kind)
    except pa.ArrowInvalid as error:
        raise ParameterError(f"ids are {ids.type} in the frame and {kind} in the result; cast them") from error


def _batches(file: pq.ParquetFile, eps: float | None) -> Iterator[pa.Array]:
    """The ids that go."""
    columns = ["id"] if eps is None else ["id", SCORE]
    for batch in file.iter_batches(ROWS_AT_A_TIME, columns=columns, use_threads=False):
        if eps is not None:
            scores = batch.column(SCORE).cast(pa.float32()).to_numpy(zero_copy_only=False)
            batch = batch.filter(pa.array(duplicate_mask(scores, eps)))
        if len(batch):
            yield batch.column("id")


def without_dropped(frame: Frame, id_field: str, dropped: Dropped) -> Any:
    """The same kind of frame without the rows that are dropped, in their order; all else as it was.

    A Dask frame stays lazy: each partition reads the ids when it is computed. A stream of Arrow becomes a table.
    """
    if frame.is_lazy:
        return _lazily(frame, id_field, dropped)
    return _rows_at(frame, np.flatnonzero(~dropped.among(ids_of(frame, id_field))))


def _rows_at(frame: Frame, positions: np.ndarray) -> Any:
    value = frame.value
    if frame.kind in ("pandas", "cudf"):
        return value.iloc[positions]
    if frame.kind == "datasets":
        return value.select(positions)
    if frame.kind == "arrow":
        return _arrow_rows(value, positions)
    if frame.kind == "cupy":
        import cupy

        return value[cupy.asarray(positions)]
    return value[positions]


def _arrow_rows(value: Any, positions: np.ndarray) -> Any:
    """Rows of a table or a record batch. Arrow picks rows of columns of some types only, but cuts those of all."""
    mask = np.zeros(value.num_rows, dtype=bool)
    mask[positions] = True
    try:
        return value.filter(pa.array(mask))  # a chunk at a time, where `take` would first put all of them together
    except pa.ArrowNotImplementedError:
        edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).reshape(-1, 2)
        table = value if isinstance(value, pa.Table) else pa.Table.from_batches([value])
        runs = [table.slice(start, stop - start) for start, stop in edges.tolist()]
        cut = pa.concat_tables([table.slice(0, 0), *runs])
        return cut if isinstance(value, pa.Table) else cut.combine_chunks().to_batches()[0]


def as_it_came(frame: Frame, kept: Any) -> Any:
    """Rows of a frame that was read once: a reader of record batches is given back as one."""
    if isinstance(frame.value, pa.RecordBatchReader):
        return pa.RecordBatchReader.from_batches(kept.schema, kept.to_batches())
    return kept


@dataclass(frozen=True)
class _DropRows:
    """Drops rows of one partition of a Dask frame."""

    id_field: str
    dropped: Dropped
    by_position: bool
    name: str

    def __call__(self, partition: Any, number: Any = None) -> Any:
        frame = frame_of(partition)
        assert frame is not None
        position = 0 if number is None else int(number.iloc[0])
        held = Frame(partition, frame.kind, self.by_position, f"a partition of {self.name}")
        gone = self.dropped.among(ids_of(held, self.id_field, position << PARTITION_BITS))
        return partition.iloc[np.flatnonzero(~gone)]


def _lazily(frame: Frame, id_field: str, dropped: Dropped) -> Any:
    value, task = frame.value, _DropRows(id_field, dropped, frame.by_position, frame.name)
    if not frame.by_position:
        _check_lazy(frame, id_field)
        return value.map_partitions(task, meta=value._meta, enforce_metadata=False)
    import dask.dataframe as dd

    numbers = dd.from_map(_number, range(value.npartitions), meta=pd.Series([], dtype="int64"))
    return value.map_partitions(task, numbers, meta=value._meta, align_dataframes=False, enforce_metadata=False)


def _check_lazy(frame: Frame, id_field: str) -> None:
    names: Sequence[Any] = list(frame.value.columns)
    if id_field not in names:
        raise ParameterError(f"{frame.name} has no column {id_field!r}; it has {', '.join(map(str, names[:50]))}")


def _number(number: int) -> pd.Series:
    return pd.Series([number], dtype="int64")
