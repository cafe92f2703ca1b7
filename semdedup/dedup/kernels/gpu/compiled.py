"""The kernels of ``kernels.cu``, compiled by CuPy when they are first asked for."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any

import numpy as np

from semdedup.arrays import Array, array_module

TENSOR_CORES = 80
"""The compute capability, times ten, from which on `propose` runs: Ampere. It copies to shared memory as it goes on."""


def has_kernels(*arrays: Array) -> bool:
    """Whether there are kernels for the arrays: they are CuPy's."""
    return hasattr(array_module(*arrays), "RawModule")


def has_tensor_cores(*arrays: Array) -> bool:
    """Whether the GPU that holds the arrays multiplies matrices of halves as `propose` does."""
    xp = array_module(*arrays)
    return has_kernels(*arrays) and int(xp.cuda.Device().compute_capability) >= TENSOR_CORES


def kernel(xp: ModuleType, name: str, left: Any = np.float32, right: Any = np.float32) -> Any:
    """A kernel for the current device, for rows of these types."""
    return _compiled(xp, int(xp.cuda.Device().id), np.dtype(left), np.dtype(right)).get_function(name)


@cache
def _compiled(xp: ModuleType, device: int, left: np.dtype[Any], right: np.dtype[Any]) -> Any:
    types = (
        f"-D{side}={'double' if kind == np.float64 else 'float'}" for side, kind in (("LEFT", left), ("RIGHT", right))
    )
    source = (files(__package__) / "kernels.cu").read_text(encoding="utf-8")
    return xp.RawModule(code=source, options=("-std=c++17", *types))
