"""Frames on the device: list columns of cuDF, and the CuPy arrays that their values are without a copy.

cuDF is imported where it is used. Where it is not installed, or does not read something, embeddings are read by PyArrow
and copied to the device; that is the reference, and gives the same bits.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from importlib.util import find_spec
from typing import Any

import numpy as np

from semdedup.arrays import Array, Backend, array_module, backend_module
from semdedup.arrays.devices import import_beside_cupy

MOST_ELEMENTS = 2**31 - 1
"""A column of cuDF has no more values than that, and neither has the child of a list column."""

PATTERN = frozenset("*?[")
"""What makes a path one that cuDF looks for files by."""

FLOAT16_NAN = 0x7E00
"""The bits of NaN as float16."""

REFUSALS = (RuntimeError, ValueError, TypeError, KeyError, OverflowError, MemoryError, OSError)
"""What cuDF raises for files, types and encodings that it does not read; PyArrow reads them, or says what is wrong."""


@dataclass(frozen=True)
class Lists:
    """A column of embeddings, (n,) lists, whose values are on the host or on the device.

    Attributes:
        lengths: (n,) whole numbers, the number of elements of each row, -1 for a null row; NumPy or CuPy.
        rows: for a length d gives the rows that have it, (m, d), and their positions, (m,) int64; null elements as NaN.
    """

    lengths: Array
    rows: Callable[[int], tuple[Array, Array]]

    def __len__(self) -> int:
        return len(self.lengths)


def frames_on(backend: Backend) -> bool:
    """Whether frames are on the device: the backend is ``gpu`` and cuDF is there. Else they are Arrow's on the host."""
    return backend == "gpu" and _cudf_is_there()


@cache
def _cudf_is_there() -> bool:
    return find_spec("cudf") is not None and find_spec("pylibcudf") is not None


def of_cudf(frame: Any) -> bool:
    """Whether a frame or a column is one of cuDF."""
    return type(frame).__module__.split(".")[0] == "cudf"


def lists_of_cudf(series: Any, element: np.dtype) -> Lists:
    """The embeddings of a list column of cuDF, whose elements are worked on as `element`."""
    lengths = series.list.len().fillna(-1).to_cupy()
    return Lists(lengths, partial(_rows_of_cudf, series, lengths, element))


def _rows_of_cudf(series: Any, lengths: Array, element: np.dtype, dim: int) -> tuple[Array, Array]:
    """A view of the values where every row is whole and of this type, else one copy."""
    positions = array_module(lengths).flatnonzero(lengths == dim)
    leaves = series.list.leaves
    if len(positions) < len(series) or len(leaves) != len(positions) * dim:
        leaves = series.take(positions).list.leaves
    if element == np.float16 and leaves.dtype == np.uint16:  # which has its bits; cuDF has no float16
        return leaves.to_cupy(na_value=FLOAT16_NAN).view(np.float16).reshape(len(positions), dim), positions
    leaves = leaves if leaves.dtype == element else leaves.astype(element)
    return leaves.to_cupy(na_value=np.nan).reshape(len(positions), dim), positions


def series_of_rows(rows: Array, index: Any) -> Any:
    """A list column of cuDF of the rows of a CuPy array, (n, d) float32 with fewer than 2**31 elements, no copy."""
    cudf = importlib.import_module("cudf")
    if not len(rows):
        return cudf.Series([], dtype=cudf.ListDtype("float32"), index=index)
    plc = importlib.import_module("pylibcudf")
    return cudf.Series.from_pylibcudf(plc.Column.from_array(rows), metadata={"index": index})


def read_lists(path: str, column: str, groups: Sequence[int], first: int, n_rows: int, element: np.dtype) -> Lists:
    """A column of embeddings of a local Parquet file, read and decoded on the device.

    Args:
        path: the file.
        column: name of the column.
        groups: row groups to read.
        first, n_rows: which of their rows; they are cut off after reading.
        element: type in which elements are worked on.

    Raises:
        RuntimeError, and others of `REFUSALS`: cuDF does not read it.
    """
    if not PATTERN.isdisjoint(path) or "::" in path:
        raise ValueError(f"cuDF would take {path} for a pattern, which other files may match")
    cudf = import_beside_cupy("cudf")
    frame = cudf.read_parquet(
        path,
        columns=[column],
        row_groups=[list(groups)],
        use_pandas_metadata=False,  # no column becomes an index
        dataset_kwargs={"partitioning": None},  # nor a folder of the path, such as centroid=7, a column
    )
    series = frame[column]
    if (first, n_rows) != (0, len(series)):
        series = series.iloc[first : first + n_rows]
    if len(series) != n_rows:
        raise ValueError(f"{n_rows} rows of {path} were to be read, but there are {len(series)}")
    return lists_of_cudf(series, element)


def on_device(lists: Lists) -> Lists:
    """Embeddings on the host as such on the device: lengths now, rows where they are asked for."""
    cupy = backend_module("gpu")

    def rows(dim: int) -> tuple[Array, Array]:
        found, positions = lists.rows(dim)
        return cupy.asarray(np.ascontiguousarray(found)), cupy.asarray(positions)

    return Lists(cupy.asarray(lists.lengths), rows)
