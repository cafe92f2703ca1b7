"""Kernels for NVIDIA GPUs: what the comparison does on CuPy's arrays where a call of CuPy a step would be too slow."""
