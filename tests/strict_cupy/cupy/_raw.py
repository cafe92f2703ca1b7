"""Kernels of one's own, built for the processor by g++: their threads are fibers (``../host_kernels.hpp``)."""

import ctypes
import hashlib
import os
import re
import subprocess
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

HERE = Path(__file__).parent.parent
BUILT = Path(tempfile.gettempdir()) / "semdedup-host-kernels"
FLAGS = ("-O3", "-march=native", "-ffp-contract=off", "-std=c++17", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-w")


class CompileException(Exception):
    """What CuPy raises where a kernel cannot be compiled."""


class CUDADriverError(RuntimeError):
    """What CuPy raises where the driver refuses a kernel."""


compiler = SimpleNamespace(CompileException=CompileException)
driver = SimpleNamespace(CUDADriverError=CUDADriverError)


class RawModule:
    """Takes what CuPy's takes of it. Without ``FAKE_KERNELS=1`` nothing can be compiled."""

    def __init__(self, *, code, options=(), backend="nvrtc", name_expressions=None):
        self._code, self._options, self._library = code, options, None

    def compile(self, log_stream=None):
        if os.environ.get("FAKE_KERNELS") != "1":
            raise CompileException("kernels are built where FAKE_KERNELS=1")
        names = re.findall(r'extern "C" __global__ void(?: __launch_bounds__\(.*\))?\s+(\w+)\(', self._code)
        names += re.findall(r"^FIXED_ORDER_SUMS\((\w+)", self._code, re.MULTILINE)
        exported = [f"HOST_KERNEL({name})" for name in names if name != "NAME"]
        source = "\n".join([(HERE / "host_kernels.hpp").read_text(), self._code, *exported])
        library = BUILT / f"{hashlib.sha256(source.encode()).hexdigest()[:16]}.so"
        if not library.exists():
            BUILT.mkdir(exist_ok=True)
            with tempfile.TemporaryDirectory(dir=BUILT) as folder:
                (Path(folder) / "kernels.cpp").write_text(source)
                built = Path(folder) / "kernels.so"
                command = ["g++", *FLAGS, f"{folder}/kernels.cpp", "-o", str(built)]
                done = subprocess.run(command, capture_output=True, text=True, check=False)
                if done.returncode:
                    raise CompileException(done.stderr)
                built.rename(library)
        self._library = ctypes.CDLL(str(library))

    def get_function(self, name):
        return RawKernel(self._library[f"run_{name}"])


class RawKernel:
    """A kernel that is called with grid, block and arguments; its launches are counted as CuPy's own are."""

    def __init__(self, function):
        self._function = function

    def __call__(self, grid, block, args, *, shared_mem=0):
        import cupy

        cupy.COUNT["kernels"] += 1
        values = [_value(argument) for argument in args]
        addresses = (ctypes.c_void_p * len(values))(*[value.ctypes.data for value in values])
        self._function(*map(ctypes.c_uint32, (grid[0], block[0], shared_mem)), addresses)


def _value(argument):
    """What the kernel is given, in memory of its own: the address of an array, or a number."""
    import cupy

    if isinstance(argument, cupy.ndarray):
        if not argument.host.flags.c_contiguous:
            raise ValueError("a kernel is given the address of an array alone, and this one is not contiguous")
        return np.array(argument.host.ctypes.data, dtype=np.uintp)
    if not isinstance(argument, np.generic):
        raise TypeError(
            f"give numbers with their type, not {type(argument).__name__}: CuPy takes 64 bits for those of Python"
        )
    return np.array(argument)
