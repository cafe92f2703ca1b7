"""Ids: the types they may have, and a seeded hash of them that depends on nothing else."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc


def id_type(found: pa.DataType) -> pa.DataType | None:
    """The type in which ids of the type `found` are worked on and written, None where it cannot hold ids.

    Text of any kind becomes ``string``; whole numbers become ``int64``, or ``uint64`` where they are that already.
    """
    if pa.types.is_dictionary(found):
        return id_type(found.value_type)
    if pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found):
        return pa.string()
    if pa.types.is_uint64(found):
        return pa.uint64()
    if pa.types.is_integer(found):
        return pa.int64()
    return None


def wide_ids(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    """A column of ids as one array; text with 64-bit offsets, for more than 2 GiB of it."""
    ids = column.cast(pa.large_string()) if pa.types.is_string(column.type) else column
    return ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids


def _mix(words: np.ndarray) -> np.ndarray:
    """Finaliser of splitmix64 (Steele, Lea and Flood, Fast Splittable Pseudorandom Number Generators, 2014)."""
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def hash_ids(ids: pa.Array | pa.ChunkedArray, seed: int) -> np.ndarray:
    """Hash ids to uniform 64-bit words: (n,) uint64, a function of the id and the seed alone.

    Text is hashed by SipHash as pandas has it, whole numbers by their value, then mixed with the seed. Null ids hash
    too, to no particular word. Cost: O(bytes of the ids).
    """
    if isinstance(ids, pa.ChunkedArray):
        ids = ids.combine_chunks() if ids.num_chunks != 1 else ids.chunk(0)
    if pa.types.is_integer(ids.type):
        words = pc.fill_null(ids, 0).to_numpy(zero_copy_only=False).astype(np.uint64, copy=False)
    else:
        text = pc.fill_null(ids, "").to_numpy(zero_copy_only=False)
        words = pd.util.hash_array(text, categorize=False)
    with np.errstate(over="ignore"):
        offset = _mix(np.array([seed & 0xFFFFFFFFFFFFFFFF], dtype=np.uint64) + np.uint64(0x9E3779B97F4A7C15))
        return _mix(words + offset)
