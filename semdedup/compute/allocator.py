"""Memory that a task frees and that it takes again a moment later: kept by the process in between.

Dask's nannies start workers with ``MALLOC_TRIM_THRESHOLD_`` set, so that memory goes back to the system as soon as it
is free. Each array above 128 KiB then has fresh pages, which the system has to find and clear: a copy of 2 MiB took 20
times as long on a virtual machine, and the whole dedup a quarter more processor time.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3
"""Names of the settings of ``mallopt`` in the C library of GNU."""

KEPT_BYTES, LARGEST_KEPT = 32 << 20, 8 << 20
"""Free memory that is kept, and the largest array of which it is: larger ones have pages of 2 MiB, which cost less."""

GIVEN_BACK_FROM = 128 << 10
"""Bytes from which on free memory goes back where nothing else is set."""

_lock = threading.Lock()
_inside = 0


@contextlib.contextmanager
def keeping_freed_memory() -> Iterator[None]:
    """Keep up to `KEPT_BYTES` of freed memory while the block runs, in all threads; give it back at its end.

    Blocks may run at the same time. Nothing happens where Dask has set nothing, or with another C library.
    """
    global _inside
    library = _library()
    if library is None:
        yield
        return
    with _lock:
        _inside += 1
        if _inside == 1:
            library.mallopt(MMAP_THRESHOLD, LARGEST_KEPT)
            library.mallopt(TRIM_THRESHOLD, KEPT_BYTES)
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if not _inside:
                library.mallopt(MMAP_THRESHOLD, _set("MALLOC_MMAP_THRESHOLD_"))
                library.mallopt(TRIM_THRESHOLD, _set("MALLOC_TRIM_THRESHOLD_"))
                library.malloc_trim(0)


def _library() -> Any:
    """The C library of GNU, in a process where Dask wants free memory given back at once; else None."""
    if sys.platform != "linux" or "MALLOC_TRIM_THRESHOLD_" not in os.environ:
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None


def _set(name: str) -> int:
    value = os.environ.get(name, "")
    return int(value) if value.isdecimal() else GIVEN_BACK_FROM
