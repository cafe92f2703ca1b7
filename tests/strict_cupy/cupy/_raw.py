"""Kernels of one's own, built for the processor by g++: their threads are fibers (``../host_kernels.hpp``)."""

import ctypes
import hashlib
import subprocess
import tempfile
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent.parent
BUILT = Path(tempfile.gettempdir()) / "semdedup-host-kernels"
KINDS = {"i": ctypes.c_int32, "q": ctypes.c_int64, "l": ctypes.c_int64, "L": ctypes.c_uint64, "Q": ctypes.c_uint64}
KINDS |= {"I": ctypes.c_uint32, "f": ctypes.c_float, "d": ctypes.c_double}


class RawModule:
    """Takes what CuPy's takes of it; counts its launches as CuPy's own kernels are counted."""

    def __init__(self, *, code, options=(), backend="nvrtc", name_expressions=None):
        defines = [option for option in options if option.startswith("-D")]
        parts = [(HERE / "host_kernels.hpp").read_text(), code, (HERE / "host_launch.hpp").read_text()]
        name = hashlib.sha256("\n".join([*parts, *defines]).encode()).hexdigest()[:16]
        library = BUILT / f"{name}.so"
        if not library.exists():
            BUILT.mkdir(exist_ok=True)
            source = BUILT / f"{name}.cpp"
            source.write_text("\n".join(parts))
            flags = ["-O2", "-ffp-contract=off", "-std=c++17", "-shared", "-fPIC", "-U_FORTIFY_SOURCE", "-w"]
            subprocess.run(["g++", *flags, *defines, str(source), "-o", str(library)], check=True)
        self._library = ctypes.CDLL(str(library))

    def get_function(self, name):
        return RawKernel(self._library[f"run_{name}"])


class RawKernel:
    """A kernel that is called with grid, block and arguments."""

    def __init__(self, function):
        self._function = function

    def __call__(self, grid, block, args, *, shared_mem=0):
        import cupy

        cupy.COUNT["kernels"] += 1
        shape = [ctypes.c_uint32(number) for number in (*grid, *block, shared_mem)]
        self._function(*shape, *map(_argument, args))


def _argument(value):
    import cupy

    if isinstance(value, cupy.ndarray):
        if not value.host.flags.c_contiguous:
            raise ValueError("a kernel is given the address of an array alone, and this one is not contiguous")
        return ctypes.c_void_p(value.host.ctypes.data)
    if not isinstance(value, np.generic):
        raise TypeError(
            f"give numbers with their type, not {type(value).__name__}: CuPy takes 64 bits for those of Python"
        )
    return KINDS[value.dtype.char](value.item())
