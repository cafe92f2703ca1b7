"""What only a machine with a GPU can answer. Importing these needs none; each is run from the root of the project.

- ``python -m benchmarks.gpu.packages``: which packages of RAPIDS can be imported.
- ``python -m benchmarks.gpu.probes``: what semdedup assumes of CuPy, and its arrays beside those of the CPU.
- ``python -m benchmarks.gpu.comparison [DIM [ROWS ...]]``: the comparison beside the usual loop in PyTorch.
- ``python -m benchmarks.gpu.end_to_end [ROWS [DIM [CLUSTERS [THREADS]]]]``: rows a second of the whole dedup on one
  GPU; ``python -m benchmarks.gpu.end_to_end same``: its answer beside that of the CPU.
- ``python -m benchmarks.gpu.engines [ROWS [DIM [CLUSTERS]]]``: the fit by cuML beside ours.
- ``python -m benchmarks.gpu.reading [ROWS [DIM]]``: row groups read by cuDF beside PyArrow and a copy.
- ``python -m benchmarks.gpu.atomic_max LIBNVRTC ATOMICS``: how CuPy's atomicMax of double is compiled; needs no GPU.
"""
