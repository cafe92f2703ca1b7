"""Compile CuPy's own ``atomicMax(double*, double)`` and print the conversions and maxima in it. Needs no GPU.

    python -m benchmarks.gpu.atomic_max LIBNVRTC ATOMICS

LIBNVRTC is libnvrtc.so.13 of nvidia-cuda-nvrtc; ATOMICS is cupy/_core/include/cupy/atomics.cuh of the wheel.
"""

import ctypes
import re
import sys
from pathlib import Path

KERNEL = '\nextern "C" __global__ void k(double* a, double v){ atomicMax(a, v); }\n'


def compiled(library: str, source: str) -> str:
    """PTX of a source."""
    nvrtc, program = ctypes.CDLL(library), ctypes.c_void_p()
    options = (ctypes.c_char_p * 2)(b"--gpu-architecture=compute_90", b"--std=c++17")
    if nvrtc.nvrtcCreateProgram(ctypes.byref(program), source.encode(), b"k.cu", 0, None, None):
        raise SystemExit("NVRTC makes no program")
    failed = nvrtc.nvrtcCompileProgram(program, 2, options)
    what, size = ("ProgramLog" if failed else "PTX"), ctypes.c_size_t()
    getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    text = ctypes.create_string_buffer(size.value)
    getattr(nvrtc, f"nvrtcGet{what}")(program, text)
    if failed:
        raise SystemExit(text.value.decode()[:500])
    return text.value.decode()


def main(library: str, header: str) -> None:
    text = Path(header).read_text()
    body = text[text.index("__device__ double atomicMax") :]
    for line in compiled(library, body[: body.index("\n}\n") + 3] + KERNEL).splitlines():
        if re.search(r"cvt|max|cas", line):
            print(line)


if __name__ == "__main__":
    main(*sys.argv[1:])
