"""Arrays on storage: ``.npy`` files."""

from __future__ import annotations

import io
import math
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
        with location.errors("read"):
            return np.load(location.url, allow_pickle=False)
    return np.load(io.BytesIO(location.read_bytes()), allow_pickle=False)


@repeated
def load_rows(location: Location, start: int, stop: int) -> np.ndarray:
    """Rows [start, stop) of an array in a ``.npy`` file, and nothing else of the file but its header.

    The file is read, not mapped: Dask counts mapped pages as memory of the worker.
    """
    if location.is_local:
        with location.errors("read"), open(location.url, "rb") as file:
            shape, dtype = _read_header(file)
            width = math.prod(shape[1:])
            file.seek(dtype.itemsize * width * start, io.SEEK_CUR)
            found = np.fromfile(file, dtype, (stop - start) * width)
    else:
        head = io.BytesIO(location.read_bytes(0, HEADER_BYTES))
        shape, dtype = _read_header(head)
        n_bytes = dtype.itemsize * math.prod(shape[1:])
        first = head.tell() + n_bytes * start
        some = n_bytes * (stop - start)  # a range of no bytes would be the whole file
        found = np.frombuffer(location.read_bytes(first, first + some) if some else b"", dtype)
    return found.reshape(stop - start, *shape[1:])


def _read_header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    return shape, dtype
