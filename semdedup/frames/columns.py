"""Columns of a pandas or cuDF frame as arrays and Arrow columns, and arrays as columns of such a frame.

pandas holds embeddings as an object column of arrays or lists, or as an Arrow list; cuDF as a list column, whose values
are a CuPy array without a copy. Ids and what ranks are Arrow columns on the host with either. cuDF is imported where a
frame of it was given, and only there.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from semdedup.arrays import Array
from semdedup.arrays.frames import Lists, lists_of_cudf, of_cudf, series_of_rows
from semdedup.dedup.frame_input.convert import ObjectRows, chunked, series_column
from semdedup.dedup.input.columns import EMBEDDINGS, as_embeddings, embedding_type
from semdedup.dedup.input.rows import embedding_rows, row_lengths
from semdedup.errors import InputError, ParameterError
from semdedup.settings import shown

Frame = Any
"""A DataFrame of pandas or cuDF."""


ROWS = 1 << 16
"""Rows of objects that become one piece of an Arrow column, which holds fewer than 2**31 elements."""


def check_frame(df: Any, columns: Iterable[str], hints: dict[str, str]) -> None:
    """Raise a `ParameterError` unless `df` is a pandas or cuDF frame that has these columns, each once.

    Args:
        hints: what to do about a column that is missing, by its name.
    """
    if not isinstance(df, pd.DataFrame) and not (of_cudf(df) and hasattr(df, "columns")):
        hint = "; give it to the function with map_partitions" if hasattr(df, "map_partitions") else ""
        package, found = type(df).__module__.split(".")[0], type(df).__name__
        found = found if package == "builtins" else f"{package}.{found}"
        raise ParameterError(f"df must be a pandas or cuDF DataFrame; got {found}{hint}")
    names = list(df.columns)
    for name in columns:
        if name not in names:
            there = ", ".join(map(str, names)) or "none"
            raise ParameterError(f"the frame has no column {name!r}; it has {there}. {hints.get(name, '')}".rstrip())
        if names.count(name) > 1:
            raise ParameterError(f"the frame has {names.count(name)} columns {name!r}: rename or drop all but one")


def without_stand_ins(df: Frame) -> Frame:
    """The frame; without its rows where they are those that Dask makes up to infer types with.

    What these hold is for Dask to say and changes with its versions (the text "foo" or an `object()` where a pandas
    column holds objects, nulls for Arrow lists, [0, 1] for lists of cuDF), so that Dask is asked for them.
    """
    if len(df) != 2:
        return df
    from dask.dataframe.utils import meta_nonempty

    empty = df.iloc[:0]
    try:
        made_up = meta_nonempty(empty)
    except (TypeError, ValueError, NotImplementedError, ImportError):  # Dask cannot make such columns up
        return df
    equal = df.to_arrow().equals(made_up.to_arrow()) if of_cudf(df) else df.equals(made_up)
    return empty if equal else df


def arrow_column(df: Frame, name: str) -> pa.ChunkedArray:
    """A column in Arrow, on the host.

    Raises:
        InputError: values of kinds that do not go together.
    """
    return chunked(df[name].to_arrow() if of_cudf(df) else series_column(df[name], f"the column {name!r}"))


def column_type(df: Frame, name: str) -> pa.DataType:
    """The Arrow type of a column. Raises as `arrow_column`."""
    return df[name].iloc[:0].to_arrow().type if of_cudf(df) else arrow_column(df, name).type


def embedding_lists(df: Frame, name: str) -> Lists:
    """The embedding column of a frame.

    Raises:
        InputError: it cannot hold embeddings.
    """
    if of_cudf(df):
        series = df[name]
        element = _check_type(name, column_type(df, name), None).value_type.to_pandas_dtype()
        return lists_of_cudf(series, np.dtype(element))
    column = _list_column(df[name], name)
    return Lists(row_lengths(column), partial(embedding_rows, column))


def _list_column(series: pd.Series, name: str) -> pa.ChunkedArray:
    """An embedding column of pandas in Arrow."""
    whose = f"the column {name!r}"
    if series.dtype != object:
        column = series_column(series, whose)
        _check_type(name, column.type, None)
        return as_embeddings(chunked(column))
    values = series.to_numpy()
    for text in (value for value in values if isinstance(value, str)):
        _check_type(name, pa.string(), text)
    found = ObjectRows(values, whose)
    _check_type(name, found.type, None)
    pieces = [chunked(found.rows(i, min(i + ROWS, len(values)))) for i in range(0, len(values), ROWS)]
    return as_embeddings(pa.chunked_array([chunk for piece in pieces for chunk in piece.chunks], found.type))


def _check_type(name: str, found: pa.DataType, example: str | None) -> pa.DataType:
    """The type in which embeddings of the type `found` are worked on; an `InputError` where there is none."""
    if pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found):
        such = "" if example is None else f" (such as {shown(example)})"
        raise InputError(
            f"the column {name!r} holds text{such} in place of embeddings. Dask turns lists into text as it makes a "
            "frame, unless its option dataframe.convert-string is off: call "
            "dask.config.set({'dataframe.convert-string': False}) before the frame is made."
        )
    target = embedding_type(found)
    if target is None:
        bits = " Of lists of uint16 make float16, where they are its bits, or float32, where they are numbers."
        raise InputError(
            f"the column {name!r} is {found}; embeddings must be {EMBEDDINGS}, or one-dimensional arrays of these."
            + bits * (getattr(found, "value_type", None) == pa.uint16())
        )
    return target


def with_rows(df: Frame, name: str, rows: Array) -> Frame:
    """The frame with these rows, (n, d) float32, as its column `name`, in place of one that there is.

    pandas holds them as an object column of views, (d,) each, of the one array; cuDF as a list column, without a copy.
    """
    df = df.copy(deep=False)
    if of_cudf(df):
        df[name] = series_of_rows(rows, df.index)
        return df
    views = np.empty(len(rows), dtype=object)
    for position, row in enumerate(rows):
        views[position] = row
    df[name] = views
    return df


def text_column(values: list[str], like: Frame) -> Any:
    """Text as a column that goes with a frame, in the type that its library has for text."""
    series = importlib.import_module("cudf").Series if of_cudf(like) else pd.Series
    return series(values, index=like.index, dtype="str")


def take(df: Frame, positions: Array) -> Frame:
    """Rows of a frame by position, (m,); the frame itself, in a shallow copy, where it is all of them in order.

    The positions are increasing.
    """
    return df.copy(deep=False) if len(positions) == len(df) else df.take(positions)


def numbers(df: Frame, name: str) -> Array:
    """A column of numbers as float32, (n,), NumPy or CuPy; NaN where it is null.

    Raises:
        InputError: it does not hold numbers.
    """
    found = column_type(df, name)
    if not (pa.types.is_floating(found) or pa.types.is_integer(found) or pa.types.is_null(found)):
        raise InputError(f"the column {name!r} is {found}; it must hold numbers")
    if of_cudf(df):
        return df[name].astype("float32").to_cupy(na_value=np.nan)
    return arrow_column(df, name).cast(pa.float32(), safe=False).to_numpy()


def null_mask(df: Frame, name: str) -> Array:
    """Which rows of a column are null, (n,) truth; NumPy or CuPy."""
    found = df[name].isna()
    return found.to_cupy() if of_cudf(df) else found.to_numpy(dtype=bool)


def host_labels(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """A column of whole numbers, none of them null, as an array (n,).

    Raises:
        InputError: it holds something else.
    """
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if (not pa.types.is_integer(column.type) and len(column)) or column.null_count:
        nulls = f" with {column.null_count} nulls" if column.null_count else ""
        raise InputError(f"the column {name!r} is {column.type}{nulls}; it must hold a whole number in each row")
    return column.to_numpy()
