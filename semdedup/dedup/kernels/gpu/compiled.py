"""The kernels of ``kernels.cu``, compiled by CuPy when they are first asked for."""

from __future__ import annotations

import warnings
from functools import cache
from importlib.resources import files
from types import ModuleType
from typing import Any

import numpy as np

from semdedup.arrays import Array, array_module

TENSOR_CORES = 80
"""The compute capability, times ten, from which on `propose` is compiled: Ampere, which copies as it multiplies."""

NOTHING = np.uintp(0)
"""A pointer to nothing, as an argument of a kernel."""


def has_kernels(*arrays: Array) -> bool:
    """Whether there are kernels for the arrays: they are CuPy's, and the kernels could be compiled for their GPU."""
    xp = array_module(*arrays)
    return xp is not np and _compiled(xp, int(xp.cuda.Device().id)) is not None


def has_tensor_cores(*arrays: Array) -> bool:
    """Whether the GPU that holds the arrays multiplies matrices of halves as `propose` does."""
    xp = array_module(*arrays)
    return has_kernels(*arrays) and int(xp.cuda.Device().compute_capability) >= TENSOR_CORES


def contiguous(array: Array, dtype: Any) -> Array:
    """The array as a kernel takes it, which is given its address alone: itself where it is of this type already."""
    return array_module(array).ascontiguousarray(array, dtype=dtype)


def launch(xp: ModuleType, name: str, blocks: int, threads: int, *arguments: Any, shared_bytes: int = 0) -> None:
    """Launch a kernel on the current device. Arguments are arrays, contiguous, and numbers of NumPy's types.

    Raises:
        ValueError: for more blocks than a grid has. CuPy would pass on the rest of their number by 2**32.
    """
    if not 0 < blocks < 1 << 31:
        raise ValueError(f"{name}: a grid has 1 to 2**31 - 1 blocks, not {blocks}")
    kernel = _compiled(xp, int(xp.cuda.Device().id)).get_function(name)
    kernel((blocks,), (threads,), arguments, shared_mem=shared_bytes)


@cache
def _compiled(xp: ModuleType, device: int) -> Any:
    """The module of kernels, compiled for the current device, which has this number; None where that fails."""
    source = (files(__package__) / "kernels.cu").read_text(encoding="utf-8")
    module = xp.RawModule(code=source, options=("-std=c++17",))
    try:
        module.compile()
    except (xp.cuda.compiler.CompileException, xp.cuda.driver.CUDADriverError) as error:
        warnings.warn(
            f"the kernels of semdedup could not be compiled for GPU {device}; CuPy's own are used instead, which gives "
            f"the same results and takes longer. {str(error)[:2000]}",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    return module
