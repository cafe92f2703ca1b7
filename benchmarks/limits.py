"""What the hardware allows: matrix products alone, and reading and writing the same files with PyArrow alone."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.timing import seconds_of
from benchmarks.workers import addresses

BLOCK = 2048


@lru_cache(maxsize=1)
def _factors(d: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    left, right = (rng.standard_normal((BLOCK, d), dtype=np.float32) for _ in range(2))
    return left, right, np.empty((BLOCK, BLOCK), dtype=np.float32)


def sgemm_rate(d: int) -> float:
    """Floating-point operations a second, now, of products of two matrices of 2048 rows of length d in float32.

    Of two different ones: NumPy multiplies a matrix with its own transpose in half of the operations.
    """
    left, right, out = _factors(d)
    return 2 * BLOCK**2 * d / seconds_of(np.matmul, left, right.T, out, least=0.05)


def workers_rate(client: distributed.Client, d: int) -> float:
    """The same of all workers together, while all of them multiply."""
    return sum(client.gather([client.submit(sgemm_rate, d, workers=[a], pure=False) for a in addresses(client)]))


def read_file(path: str) -> int:
    return pq.read_table(path, columns=["id", "embedding"], use_threads=False).num_rows


def seconds_to_read(client: distributed.Client, paths: Sequence[str]) -> float:
    return seconds_of(lambda: client.gather(client.map(read_file, paths, pure=False)))


def write_file(table: pa.Table, path: Path) -> None:
    """Write a table as the clusters are written: nothing is tried on embeddings, which do not compress."""
    flat = [field.name for field in table.schema if not pa.types.is_nested(field.type)]
    pq.write_table(
        table,
        path,
        compression=dict.fromkeys(flat, "ZSTD"),
        use_dictionary=[name for name in flat if name != "id"],
        write_statistics=flat,
        write_page_checksum=True,
    )


def compare_operations(sizes: Sequence[int], d: int) -> float:
    """Of comparing each row of each cluster with those before it: half of the square, n²·d."""
    return float(sum(n * n for n in sizes)) * d


def label_operations(n: int, d: int, k: int) -> float:
    """Of the products of n rows with k centroids."""
    return 2.0 * n * d * k
