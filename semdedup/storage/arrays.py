"""Arrays on storage: ``.npy`` files."""

from __future__ import annotations

import io

import numpy as np

from semdedup.storage.faults import repeated
from semdedup.storage.location import Location


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
