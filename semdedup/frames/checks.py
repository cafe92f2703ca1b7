"""What the functions of frames check before they compute: ids, embeddings, centroids and what ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.arrays import Array, array_module, to_host
from semdedup.dedup.cluster.fit import load_centroids
from semdedup.dedup.input.columns import as_marks, is_low_information_type
from semdedup.dedup.input.ids import as_ids, id_type
from semdedup.dedup.input.rows import REASONS, CheckedRows, commonest_length, sorted_rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.ranking import RankingStrategy, check_rankable
from semdedup.errors import BadFileError, DuplicateIdError, InputError, ParameterError
from semdedup.frames.columns import (
    Frame,
    arrow_column,
    check_frame,
    column_type,
    embedding_lists,
    null_mask,
    without_stand_ins,
)
from semdedup.storage.location import Location
from semdedup.storage.tables import LOW_INFORMATION


def checked(df: Frame, id_field: str, embedding_field: str) -> tuple[CheckedRows, Frame]:
    """The rows of a frame sorted into those that can be compared and the others; and the frame, see
    `without_stand_ins`."""
    if id_field == embedding_field:
        raise ParameterError(f"id_field and embedding_field are both {id_field!r}; they must be two columns")
    hints = {id_field: "Name the ids with id_field.", embedding_field: "Name the embeddings with embedding_field."}
    check_frame(df, [id_field, embedding_field], hints)
    df = without_stand_ins(df)
    _check_ids(column_type(df, id_field), id_field)
    return _sorted(df, embedding_field, null_mask(df, id_field)), df


def _check_ids(found: pa.DataType, name: str) -> None:
    if id_type(found) is None and not pa.types.is_null(found):
        raise InputError(f"the column {name!r} is {found}; ids must be text, whole numbers, UUIDs or bytes")


def _sorted(df: Frame, name: str, null_ids: Array | None = None) -> CheckedRows:
    lists = embedding_lists(df, name)
    lengths = lists.lengths
    xp = array_module(lengths)
    found, counts = map(to_host, xp.unique(lengths[lengths >= 0], return_counts=True))
    dim = commonest_length(dict(zip(found.tolist(), counts.tolist(), strict=True))) or 1
    none = xp.zeros(len(lengths), dtype=bool)
    return sorted_rows(*lists.rows(dim), lengths < 0, none if null_ids is None else null_ids)


def comparable_rows(df: Frame) -> tuple[Array, Frame]:
    """The embeddings, (n, d) float32 of length 1, of a frame whose rows all can be compared; and the frame, see
    `without_stand_ins`."""
    df = without_stand_ins(df)
    found = _sorted(df, "embedding")
    if len(found.positions) < len(df):
        faults = np.unique(to_host(found.faults), return_counts=True)
        told = ", ".join(f"{REASONS[code]}: {n}" for code, n in zip(*faults, strict=True) if code)
        raise InputError(
            f"{len(df) - len(found.positions)} of {len(df)} rows have embeddings that cannot be compared ({told}); "
            "normalize leaves such rows out, and rejected tells them"
        )
    return unit_rows(found.rows), df


def checked_centroids(value: Any) -> Array:
    """Centroids (k, d) float32 of what a user gave, or read."""
    words = "centroids must be an array (k, d) of finite numbers, or the path of a .npy file of one"
    found = type(value).__name__
    if hasattr(value, "shape") or isinstance(value, Sequence):
        xp = array_module(value)
        try:
            with np.errstate(over="ignore"):
                rows = xp.ascontiguousarray(xp.asarray(value), dtype=np.float32)
        except (ValueError, TypeError):
            raise ParameterError(f"{words}; got {found}") from None
        found = f"an array of shape {rows.shape}"
        if rows.ndim == 2 and rows.size:
            if bool(xp.isfinite(rows).all()):
                return rows
            found += " with elements that are not finite"
    raise ParameterError(f"{words}; got {found}")


def loaded_centroids(path: Any, gpu: bool) -> Array:
    """Centroids (k, d) float32 from their file, which is read once in each worker until it changes."""
    place = Location.of(path)
    try:
        found = load_centroids(place, place.info().stamp, "gpu" if gpu else "cpu")
    except (ValueError, EOFError) as error:
        raise BadFileError(f"the file {place} holds no array as numpy.save writes it: {error}") from error
    return checked_centroids(found)


def light_columns(df: Frame, strategy: RankingStrategy) -> pa.Table:
    """Ids, what ranks, and which rows are of low information, in Arrow."""
    wanted = ["id", *strategy.columns, *([LOW_INFORMATION] if LOW_INFORMATION in df.columns else [])]
    columns = {name: arrow_column(df, name) for name in dict.fromkeys(wanted) if name in df.columns}
    kinds = {name: columns[name].type if name in columns else pa.null() for name in df.columns}
    check_rankable(pa.schema([(str(name), kind) for name, kind in kinds.items()]), strategy, "the frame")
    _check_ids(columns["id"].type, "id")
    ids = as_ids(columns["id"], id_type(columns["id"].type) or pa.string())
    if ids.null_count:
        raise InputError(f"{ids.null_count} of {len(ids)} ids are null; normalize leaves such rows out")
    _check_once(ids)
    if LOW_INFORMATION in columns:
        columns[LOW_INFORMATION] = _marks(columns[LOW_INFORMATION])
    return pa.table({**columns, "id": ids})


def _check_once(ids: pa.ChunkedArray) -> None:
    counts = ids.value_counts()
    twice = counts.filter(pa.array(counts.field("counts").to_numpy() > 1))
    if len(twice):
        examples = ", ".join(repr(value) for value in twice.field("values")[:3].to_pylist())
        raise DuplicateIdError(f"{len(twice)} ids stand in the partition more than once, such as {examples}")


def _marks(column: pa.ChunkedArray) -> pa.ChunkedArray:
    if not is_low_information_type(column.type):
        raise InputError(
            f"the column {LOW_INFORMATION!r} is {column.type}; it must be true or false, 0 or 1, or missing in each row"
        )
    return as_marks(column, LOW_INFORMATION, "the frame")
