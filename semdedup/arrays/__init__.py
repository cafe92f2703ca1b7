"""Which arrays are in use: NumPy on the CPU, CuPy on the GPU. The one package that knows.

Everything else works on the arrays that it is given, through `array_module`, or asks for the arrays of a *backend*,
which is one of the words ``"cpu"`` and ``"gpu"``. `frames` is the same for frames, `devices` knows their memory.
"""

from __future__ import annotations

import importlib
import math
import threading
from importlib.util import find_spec
from types import ModuleType
from typing import Any, Literal

import numpy as np

numkong: Any
try:
    numkong = importlib.import_module("numkong")
except ImportError:  # there are no wheels for some platforms; everything works without
    numkong = None

Array = Any
"""A NumPy or CuPy array. Shapes and dtypes are in the docstrings."""

Backend = Literal["cpu", "gpu"]

GPU_PACKAGES = ("cupy", "cudf", "cuml", "dask_cuda")
"""What the extras ``cu12`` and ``cu13`` bring. Only CuPy is indispensable to compute on a GPU."""


def array_module(*arrays: Array) -> ModuleType:
    """Return the module, NumPy or CuPy, that the arrays belong to. Nothing is imported that is not in use already."""
    for array in arrays:
        if type(array).__module__.split(".")[0] == "cupy":
            return importlib.import_module("cupy")
    return np


def backend_module(backend: Backend) -> ModuleType:
    """Return NumPy for ``"cpu"``, CuPy for ``"gpu"``."""
    return np if backend == "cpu" else importlib.import_module("cupy")


def sparse_module(*arrays: Array) -> ModuleType:
    """Return the sparse matrices that go with the arrays: ``scipy.sparse`` or its twin ``cupyx.scipy.sparse``."""
    name = "scipy.sparse" if array_module(*arrays) is np else "cupyx.scipy.sparse"
    return importlib.import_module(name)


def block_elements(*arrays: Array) -> int:
    """Elements of a float32 product that is held at a time: 4 MiB on the CPU, a core's cache; 256 MiB on the GPU."""
    return 1 << 20 if array_module(*arrays) is np else 1 << 26


_buffers = threading.local()


def scratch(xp: ModuleType, name: str, shape: tuple[int, ...], dtype: Any) -> Array:
    """An array of arbitrary content to work in, never to be returned: the next call with this name gets it again.

    Each thread has its own. Dask's workers run with an allocator setting that gives every array above 128 KiB fresh
    pages each time, which made loops over blocks up to 2.6 times slower. CuPy has a pool of its own.
    """
    if xp is not np:
        return xp.empty(shape, dtype=dtype)
    n_bytes = math.prod(shape) * np.dtype(dtype).itemsize
    held = getattr(_buffers, name, None)
    if held is None or held.nbytes < n_bytes:
        held = np.empty(n_bytes, dtype=np.uint8)
        setattr(_buffers, name, held)
    return held[:n_bytes].view(dtype).reshape(shape)


def take_rows(array: Array, rows: Array, out: Array) -> Array:
    """Rows of a matrix by position, into `out`. Positions must lie in [0, len(array))."""
    if isinstance(array, np.ndarray):  # without mode="clip" NumPy would go through a copy of `out`
        return array.take(rows, axis=0, out=out, mode="clip")
    return array_module(array).take(array, rows, axis=0, out=out)


def to_host(array: Array) -> np.ndarray:
    """Return the array in host memory: itself if it is NumPy's, else a copy."""
    return array.get() if hasattr(array, "get") else np.asarray(array)


def host_rows(rows: Array, positions: Array) -> np.ndarray:
    """Rows of a matrix by position, as an array of their own in host memory.

    Of CuPy they are put together on the device and come through page-locked memory, of which CuPy keeps a pool.
    """
    xp = array_module(rows)
    if xp is np:
        return np.asarray(rows[positions])
    chosen = xp.take(rows, xp.asarray(positions), axis=0)
    if not chosen.size:
        return to_host(chosen)
    out: np.ndarray = importlib.import_module("cupyx").empty_pinned(chosen.shape, chosen.dtype)
    chosen.get(out=out)
    return out


def gpu_count() -> int:
    """Number of NVIDIA GPUs that this process may use, asked of NVML: no CUDA context is made and nothing raised.

    ``CUDA_VISIBLE_DEVICES`` is honoured as CUDA does, an empty string hides every device.
    """
    import os

    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if (visible is not None and not visible.strip(", ")) or visible == "-1":
        return 0
    try:
        pynvml = importlib.import_module("pynvml")
        pynvml.nvmlInit()
        present = int(pynvml.nvmlDeviceGetCount())
        pynvml.nvmlShutdown()
    except ImportError:
        return 0
    except Exception as error:  # NVML's errors share no base outside of pynvml
        if type(error).__module__.split(".")[0] != "pynvml":
            raise
        return 0
    return present if visible is None else min(present, len([v for v in visible.split(",") if v.strip()]))


def missing_gpu_packages() -> list[str]:
    """Names of the GPU packages that are not installed, found without importing any of them."""
    return [name for name in GPU_PACKAGES if find_spec(name) is None]


def gpu_usable() -> bool:
    """Whether this process can compute on a GPU: a device is visible and CuPy is installed."""
    return gpu_count() > 0 and find_spec("cupy") is not None
