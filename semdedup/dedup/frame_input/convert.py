"""Columns of pandas and matrices of NumPy as Arrow, without an object for each element."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pyarrow as pa

from semdedup.errors import BadFileError


def refuse_text(whose: str) -> NoReturn:
    """Refuse embeddings that are text; Dask makes text of them unless it is told not to."""
    advice = "parse it first, as with json.loads"
    if "Dask" in whose:
        advice = (
            "Dask's dataframe.convert-string must be off while the frame is made: "
            'dask.config.set({"dataframe.convert-string": False})'
        )
    raise BadFileError(f"{whose} is text; embeddings must be lists of numbers. {advice}")


def element_dtype(found: np.dtype, whose: str, fp16_bits: bool = False) -> np.dtype:
    """The dtype in which numbers of the dtype `found` are written: a float that holds each of its values.

    Args:
        found: of an array.
        whose: what it is called in messages.
        fp16_bits: whether uint16 is known to hold the bits of float16, as which it is read later.

    Raises:
        BadFileError: it holds no numbers, or they may be the bits of others.
    """
    if found.kind == "f":
        return np.dtype(np.float64) if found.itemsize > 8 else found.newbyteorder("=")
    if found == np.uint16:
        if fp16_bits:
            return np.dtype(np.uint16)
        raise BadFileError(
            f"{whose} is uint16, which may be numbers or the bits of float16: say which, with .view(numpy.float16) or "
            ".astype(numpy.float32)"
        )
    if found.kind in "iu":
        return np.dtype(np.float32) if found.itemsize <= 2 else np.dtype(np.float64)
    raise BadFileError(f"{whose} is {found}; embeddings must be floats or whole numbers")


def list_column(values: np.ndarray, lengths: np.ndarray, missing: np.ndarray | None = None) -> pa.ListArray:
    """A ``list`` column of rows of these lengths, (n,), whose elements follow one another in `values`.

    Args:
        values: (sum of the lengths,) of float.
        lengths: 0 for the rows that are `missing`.
        missing: (n,) truth, the rows that are null; None for none.
    """
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    if offsets[-1] >= 2**31:
        raise BadFileError(f"{len(lengths):,} rows of {offsets[-1]:,} elements in one piece are too many for Arrow")
    mask = None if missing is None or not missing.any() else pa.array(missing)
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), pa.array(values), mask=mask)


def matrix_column(rows: np.ndarray, dtype: np.dtype) -> pa.ListArray:
    """A ``list`` column of the rows of a matrix (n, d), in this dtype. Without a copy where it is that already."""
    flat = np.ascontiguousarray(rows, dtype=dtype).reshape(-1)
    return list_column(flat, np.full(len(rows), rows.shape[1], dtype=np.int64))


def check_exact(rows: np.ndarray, whose: str) -> None:
    """Refuse whole numbers that float64 does not hold."""
    wide = rows.dtype.kind in "iu" and rows.dtype.itemsize == 8 and rows.size > 0
    if wide and max(int(rows.max()), -int(rows.min())) > 2**53:
        raise BadFileError(f"{whose} holds whole numbers beyond 2**53, which floats do not hold; scale them")


class ObjectRows:
    """A pandas column of Python objects as embeddings: 1-d arrays, lists, or None.

    Attributes:
        type: of the column in Arrow.
    """

    def __init__(self, values: np.ndarray, whose: str, fp16_bits: bool = False) -> None:
        self._fp16_bits = fp16_bits
        self._values, self._whose, self._whole = values, whose, None
        self._missing = np.fromiter((_is_missing(value) for value in values), dtype=bool, count=len(values))
        present = values[~self._missing]
        if all(isinstance(value, np.ndarray) for value in present):
            self.type = pa.list_(self._element(present))
        else:
            self._whole = self._of_lists(values)
            self.type = self._whole.type

    def _element(self, present: np.ndarray) -> pa.DataType:
        self._dtype = np.dtype(np.float32)
        for row, value in enumerate(present):
            if value.ndim != 1:
                raise BadFileError(
                    f"{self._whose} holds an array of shape {value.shape}, in row {self._row_of(row)}; an embedding "
                    "has one dimension"
                )
        dtypes = {value.dtype for value in present}
        if dtypes:
            are_bits = self._fp16_bits and len(dtypes) == 1
            self._dtype = np.result_type(*(element_dtype(dtype, self._whose, are_bits) for dtype in dtypes))
        return pa.from_numpy_dtype(self._dtype)

    def _row_of(self, present: int) -> int:
        return int(np.flatnonzero(~self._missing)[present])

    def _of_lists(self, values: np.ndarray) -> pa.Array | pa.ChunkedArray:
        if any(isinstance(value, str) for value in values):
            refuse_text(self._whose)
        plain = [None if gone else value for value, gone in zip(values, self._missing, strict=True)]
        try:
            found = _lists(plain)
            whole = found.type == pa.list_(pa.int64())
            return found.cast(pa.list_(pa.float64())) if whole else found
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
            raise BadFileError(
                f"{self._whose} holds what is no list of numbers: {first_line(error)}. An embedding is a 1-d array or "
                "a list of numbers, of one type in all rows"
            ) from error

    def rows(self, start: int, stop: int) -> pa.Array | pa.ChunkedArray:
        """The rows [start, stop)."""
        if self._whole is not None:
            return self._whole.slice(start, stop - start)
        missing = self._missing[start:stop]
        present = list(self._values[start:stop][~missing])
        lengths = np.zeros(stop - start, dtype=np.int64)
        lengths[~missing] = [len(value) for value in present]
        flat = np.concatenate(present, dtype=self._dtype) if present else np.empty(0, self._dtype)
        if self._dtype == np.float64:
            for value in present:
                check_exact(value, self._whose)
        return list_column(flat, lengths, missing)


def _lists(plain: list[Any]) -> pa.Array | pa.ChunkedArray:
    try:
        return pa.array(plain)
    except pa.ArrowInvalid:  # arrays and lists of several kinds of numbers
        if not all(value is None or isinstance(value, (np.ndarray, list, tuple)) for value in plain):
            raise
        doubles = [
            None if value is None else np.asarray(value).astype(np.float64, casting="same_kind") for value in plain
        ]
        return pa.array(doubles, pa.list_(pa.float64()))


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and value != value)


def series_column(series: Any, whose: str) -> pa.Array | pa.ChunkedArray:
    """A pandas column as Arrow, whatever its index is; what is missing is null.

    Raises:
        BadFileError: its values have no type in common.
    """
    try:
        return pa.Array.from_pandas(series)
    except (pa.ArrowException, ValueError, TypeError, OverflowError) as error:
        raise BadFileError(f"{whose} holds values that go into no one type of Arrow: {first_line(error)}") from error


def chunked(column: pa.Array | pa.ChunkedArray) -> pa.ChunkedArray:
    """A column in chunks, one of them where it has none."""
    return column if isinstance(column, pa.ChunkedArray) else pa.chunked_array([column])


def only_once(names: Sequence[Any], wanted: Sequence[str], whose: str) -> None:
    """Refuse a frame that has one of these columns more than once."""
    for name in wanted:
        if sum(1 for each in names if isinstance(each, str) and each == name) > 1:
            raise BadFileError(f"{whose} has the column {name!r} more than once; rename one of them")


def first_line(error: Exception) -> str:
    """What another library says, in a line."""
    return (str(error) or type(error).__name__).splitlines()[0][:200]
