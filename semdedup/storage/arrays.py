"""Arrays on storage: ``.npy`` files."""

from __future__ import annotations

import io

import numpy as np

from semdedup.storage.location import Location


def save_array(location: Location, array: np.ndarray) -> None:
    """Write a ``.npy`` file, whole or not at all."""
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=False)
    location.write_bytes(buffer.getvalue())


def load_array(location: Location) -> np.ndarray:
    """Read a ``.npy`` file. Pickles inside it are refused."""
    return np.load(io.BytesIO(location.read_bytes()), allow_pickle=False)
