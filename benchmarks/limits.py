"""What the hardware allows: reading the same files with PyArrow alone, and the same matrix products alone."""

import time
from collections.abc import Sequence

import distributed
import numpy as np
import pyarrow.parquet as pq


def read_file(path: str) -> int:
    return pq.read_table(path, columns=["id", "embedding"], use_threads=False).num_rows


def multiply(shapes: Sequence[tuple[int, int, int, float]]) -> None:
    """Products (a, d) @ (d, b), each shape as often as its last number says (the fraction as fewer rows)."""
    for a, d, b, times in shapes:
        left = np.random.default_rng(0).standard_normal((a, d), dtype=np.float32)
        right = np.random.default_rng(1).standard_normal((b, d), dtype=np.float32)
        out = np.empty((a, b), dtype=np.float32)
        for _ in range(int(times)):
            np.matmul(left, right.T, out=out)
        rest = int((times - int(times)) * a)
        if rest:
            np.matmul(left[:rest], right.T, out=out[:rest])


def seconds_to_read(client: distributed.Client, paths: Sequence[str]) -> float:
    started = time.monotonic()
    client.gather(client.map(read_file, paths, pure=False))
    return time.monotonic() - started


def seconds_to_multiply(client: distributed.Client, n: int, d: int, k: int) -> float:
    """(n, d) @ (d, k) spread over the workers, in blocks that stay in their caches."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    rows = max(64, min(n, (1 << 20) // max(1, k)))
    task = [(rows, d, k, n / rows / len(workers))]
    started = time.monotonic()
    client.gather([client.submit(multiply, task, workers=[worker], pure=False) for worker in workers])
    return time.monotonic() - started


def seconds_to_compare(client: distributed.Client, sizes: Sequence[int], d: int) -> float:
    """Half of the square of each cluster, n²·d operations, as products of square blocks."""
    workers = list(client.scheduler_info(n_workers=-1)["workers"])
    block = 256
    pairs = sum(n * n / 2 for n in sizes)
    task = [(block, d, block, pairs / block**2 / len(workers))]
    started = time.monotonic()
    client.gather([client.submit(multiply, task, workers=[worker], pure=False) for worker in workers])
    return time.monotonic() - started
