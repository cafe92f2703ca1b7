"""Mappings of options for PyArrow and fsspec: what is wrong in them is found on one small table, before work begins.

PyArrow is imported when they are checked: the processes that decode know these settings, too, and go without.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import numpy as np

from semdedup.settings import Found, Kind, setting, shown
from semdedup.settings.kinds import mapping
from semdedup.settings.shared import NO_PART

COUNTS = ("row_group_size", "data_page_size", "dictionary_pagesize_limit", "write_batch_size", "max_rows_per_page")
"""Options of `pyarrow.parquet.write_table` that PyArrow does not come back from where they are 0 or less."""

STORAGE_HEADING = "Storage"

NOT_FOR_USERS = {"source", "where", "table", "filesystem", "schema", "metadata", "common_metadata", "self"}


def _check_storage(options: Mapping[str, Any]) -> None:
    """Refuse ``storage_options`` that are no mapping, or whose names are no text."""
    found = options.get("storage_options")
    if found is not None and not isinstance(found, Mapping):
        raise Found(f"storage_options that are {type(found).__name__}")
    if not all(isinstance(name, str) for name in found or {}):
        raise Found("storage_options with a name that is not text")


def _check_storage_alone(options: Mapping[str, Any]) -> None:
    _check_storage(options)
    others = {name: value for name, value in options.items() if name != "storage_options"}
    if others:
        raise Found(f"the name {next(iter(others))!r}")


def _sample() -> Any:
    """Two rows with columns of every kind that semdedup writes."""
    import pyarrow as pa

    embedding = pa.array([[1.0], [2.0]], pa.list_(pa.float32()))
    score = pa.array([0.5, 1.0], pa.float32())
    return pa.table({"id": ["a", "b"], "embedding": embedding, "max_id": ["a", "a"], "cosine_sim_score": score})


def _check_read(options: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    _check_storage(options)
    others = {name: value for name, value in options.items() if name != "storage_options"}
    _check_known(others, pq.ParquetFile.__init__)
    if not isinstance(others.get("binary_type"), (pa.DataType, type(None))):  # PyArrow would end the process
        raise Found("a binary_type that is no type of PyArrow")
    sink = pa.BufferOutputStream()
    pq.write_table(_sample(), sink)
    try:
        with pq.ParquetFile(pa.BufferReader(sink.getvalue()), **others) as file:
            file.read()
    except Exception as error:  # whatever PyArrow makes of it
        raise Found(_fault(others, error)) from None


def _check_write(options: Mapping[str, Any]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from semdedup.storage.tables import parquet_options

    _check_storage(options)
    others = {name: value for name, value in options.items() if name != "storage_options"}
    _check_known(others, pq.write_table, "data_page_size", "coerce_timestamps", "allow_truncated_timestamps")
    for name in COUNTS:
        value = others.get(name)
        whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
        if value is not None and not (whole and value > 0):
            raise Found(f"the {name} {shown(value)}, which is no whole number above 0")
    try:
        sample = _sample()
        pq.write_table(sample, pa.BufferOutputStream(), **parquet_options(sample.schema, others))
    except Exception as error:
        raise Found(_fault(others, error)) from None


def _check_known(options: Mapping[str, Any], function: Any, *more: str) -> None:
    known = {*inspect.signature(function).parameters, *more} - NOT_FOR_USERS - {"kwargs"}
    for name in options:
        if name not in known:
            raise Found(f"the name {name!r}")


def _fault(options: Mapping[str, Any], error: Exception) -> str:
    return f"{', '.join(options)}, of which PyArrow says: {(str(error) or type(error).__name__).splitlines()[0][:200]}"


READ = mapping("be a mapping of options of pyarrow.parquet.ParquetFile, and storage_options", _check_read)
WRITE = mapping("be a mapping of options of pyarrow.parquet.write_table, and storage_options", _check_write)
STORAGE = mapping("be a mapping with storage_options alone", _check_storage_alone)
FSSPEC = mapping("be a mapping of options for fsspec", lambda options: None)


def kwargs_setting(kind: Kind, help: str) -> Any:
    """A field for such a mapping: never recorded, for it may hold credentials."""
    return setting(None, kind, help, unrecorded=NO_PART, heading=STORAGE_HEADING)
