"""Rows that are withdrawn from the base: which are meant, and what they alone kept out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from semdedup.errors import InputError, ParameterError
from semdedup.storage.location import Location
from semdedup.storage.tables import read_table

ENDINGS = (".txt", ".parquet")


def withdrawn_ids(values: Sequence[str | int], near: Location, kind: pa.DataType) -> pa.Array:
    """The ids that are meant, each once, in the type of the base's: those given, or those in the one file given.

    Args:
        values: ids; or one path that ends in .txt or .parquet.
        near: a place in the storage that the file is in.
        kind: type of the ids.

    Raises:
        InputError: there is no such file, or it has no column ``id``.
        ParameterError: an id is not of that type.
    """
    given: Sequence[Any] = list(values)
    if len(given) == 1 and isinstance(given[0], str) and given[0].endswith(ENDINGS):
        given = _ids_in(Location.of(given[0], near.options))
    try:
        found = pa.array([int(value) if pa.types.is_integer(kind) else str(value) for value in given], kind)
    except (ValueError, pa.ArrowInvalid, OverflowError) as error:
        raise ParameterError(f"withdraw: the ids of {near} are {kind}: {error}") from None
    return found.unique()


def _ids_in(file: Location) -> list[Any]:
    if not file.exists():
        raise InputError(f"withdraw: no such file: {file}")
    if file.url.endswith(".txt"):
        return [line for line in file.read_bytes().decode().splitlines() if line]
    table = read_table(file, ["id"])
    if not table.num_columns:
        raise InputError(f"withdraw: the file {file} has no column 'id'")
    return table.column("id").drop_null().to_pylist()
