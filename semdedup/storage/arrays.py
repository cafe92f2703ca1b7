"""Arrays on storage: ``.npy`` files, and in JSON."""

from __future__ import annotations

import base64
import io
import math
import threading
import zlib
from collections.abc import Sequence
from typing import BinaryIO

import numpy as np

from semdedup.storage.faults import repeated
from semdedup.storage.location import Location

HEADER_BYTES = 256
"""Bytes of a ``.npy`` file in which its header ends: of ours, which have few dimensions and few fields."""


@repeated
def save_array(location: Location, array: np.ndarray) -> None:
    """Write a ``.npy`` file, whole or not at all. A local one is written without a copy in memory."""
    if location.is_local:
        with location.writing() as path, path.open("wb") as file:
            np.save(file, array, allow_pickle=False)
    else:
        buffer = io.BytesIO()
        np.save(buffer, array, allow_pickle=False)
        location.write_bytes(buffer.getvalue())


@repeated
def load_array(location: Location) -> np.ndarray:
    """Read a ``.npy`` file, a local one without a second copy in memory. Pickles inside it are refused."""
    if location.is_local:
        with location.errors("read"), open(location.url, "rb") as file:
            shape, dtype, by_columns = _read_header(file)
            found = np.fromfile(file, dtype, math.prod(shape))
    else:
        content = location.read_bytes()
        head = io.BytesIO(content)
        shape, dtype, by_columns = _read_header(head)
        found = np.frombuffer(content, dtype, math.prod(shape), head.tell()).copy()
    return found.reshape(shape[::-1]).T if by_columns else found.reshape(shape)


def save_columns(location: Location, **columns: np.ndarray) -> None:
    """Write arrays of one length, at least one, by their names, as one ``.npy`` file."""
    (length,) = {len(values) for values in columns.values()}
    together = np.empty(length, dtype=[(name, values.dtype) for name, values in columns.items()])
    for name, values in columns.items():
        together[name] = values
    save_array(location, together)


def load_columns(location: Location) -> dict[str, np.ndarray]:
    """Read what `save_columns` wrote."""
    found = load_array(location)
    return {name: np.ascontiguousarray(found[name]) for name in found.dtype.names or ()}


def pack_ends(ends: Sequence[int] | np.ndarray) -> str:
    """Numbers that do not decrease, from 0 on, as a short text for JSON: where parts of a file end, or rows add up.

    What they grow by is written in as few bytes as the largest of it needs, the bytes of equal weight side by side, and
    compressed: about 2 bytes for each of thousands of chunks of some kB, 1 for counts below a hundred.

    >>> unpack_ends(pack_ends([3, 3, 10]))
    array([ 3,  3, 10])
    """
    steps = np.diff(np.asarray(ends, dtype=np.uint64), prepend=np.uint64(0))
    width = max(1, -(-int(steps.max(initial=0)).bit_length() // 8))
    planes = steps.astype("<u8").view(np.uint8).reshape(-1, 8)[:, :width].T
    return f"{width}:{base64.b64encode(zlib.compress(planes.tobytes(), 9)).decode()}"


def unpack_ends(text: str) -> np.ndarray:
    """The reverse of `pack_ends`, (n,) int64."""
    width, _, packed = text.partition(":")
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed)), dtype=np.uint8).reshape(int(width), -1)
    steps = np.zeros((planes.shape[1], 8), dtype=np.uint8)
    steps[:, : int(width)] = planes.T
    return np.cumsum(steps.reshape(-1).view("<u8"), dtype=np.uint64).astype(np.int64)


@repeated
def load_rows(location: Location, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) of an array in a ``.npy`` file, and nothing else of the file but its header.

    The file is read, not mapped: Dask counts mapped pages as memory of the worker.
    """
    if location.is_local:
        with location.errors("read"), open(location.url, "rb") as file:
            shape, dtype, _ = _read_header(file)
            width = math.prod(shape[1:])
            file.seek(dtype.itemsize * width * start, io.SEEK_CUR)
            found = np.fromfile(file, dtype, (stop - start) * width)
    else:
        head = io.BytesIO(location.read_bytes(0, HEADER_BYTES))
        shape, dtype, _ = _read_header(head)
        n_bytes = dtype.itemsize * math.prod(shape[1:])
        first = head.tell() + n_bytes * start
        some = n_bytes * (stop - start)  # a range of no bytes would be the whole file
        found = np.frombuffer(location.read_bytes(first, first + some) if some else b"", dtype)
    return found.reshape(stop - start, *shape[1:])


HEADERS = threading.Lock()
"""Held while a header is read: NumPy parses it as Python, and threads that do so at the same time now and then get a
``SystemError`` (AST constructor recursion depth mismatch) from Python 3.11 and 3.12."""


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype, bool]:
    """Shape and type of an array, and whether it is stored by columns."""
    with HEADERS:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, dtype = read(file)
    if dtype.hasobject:
        raise ValueError("the array holds objects, which would have to be unpickled")
    return shape, dtype, by_columns
