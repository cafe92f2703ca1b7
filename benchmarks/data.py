"""Embeddings for the benchmarks: clips on topics, a tenth of them near-duplicates of others."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq


def make_rows(n_rows: int, dim: int, n_topics: int, seed: int = 0) -> np.ndarray:
    """(n_rows, dim) float32, not normalised; the last tenth are noisy copies of rows before them."""
    rng = np.random.default_rng(seed)
    topics = rng.standard_normal((n_topics, dim), dtype=np.float32)
    rows = np.empty((n_rows, dim), dtype=np.float32)
    n_originals = n_rows - n_rows // 10
    for start in range(0, n_originals, 1 << 16):
        stop = min(start + (1 << 16), n_originals)
        rows[start:stop] = topics[rng.integers(n_topics, size=stop - start)]
        rows[start:stop] += rng.standard_normal((stop - start, dim), dtype=np.float32)
    copied = rng.integers(n_originals, size=n_rows - n_originals)
    rows[n_originals:] = rows[copied] + 0.02 * rng.standard_normal((len(copied), dim), dtype=np.float32)
    return rows


def unstructured_rows(n_rows: int, dim: int, seed: int = 0) -> np.ndarray:
    """(n_rows, dim) float32 of length 1, in directions that are all equally likely."""
    rows = np.random.default_rng(seed).standard_normal((n_rows, dim), dtype=np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows


def write_files(folder: Path, rows: np.ndarray, n_files: int, seed: int = 1, first: int = 0) -> None:
    """Write rows, shuffled by the seed, as `n_files` Parquet files of ``id`` and ``embedding`` (list<float>).

    Ids count the rows from `first` on.
    """
    folder.mkdir(parents=True)
    order = np.random.default_rng(seed).permutation(len(rows))
    for i, chosen in enumerate(np.array_split(order, n_files)):
        block = rows[chosen]
        offsets = pa.array(np.arange(len(block) + 1, dtype=np.int32) * rows.shape[1])
        embeddings = pa.ListArray.from_arrays(offsets, pa.array(block.reshape(-1)))
        ids = pa.array([f"clip-{first + row:09d}" for row in chosen])
        pq.write_table(pa.table({"id": ids, "embedding": embeddings}), folder / f"part-{i:04d}.parquet")
