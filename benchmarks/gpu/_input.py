"""Rows about centres, some of them copies of others, as Parquet files; written by several threads."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

ROWS_PER_GROUP, ROWS_PER_FILE, N_THREADS = 50_000, 100_000, 8
NOISE, COPIES = 0.5, 20
"""How far rows lie from their centre, an element; and one row in so many is a copy of another of its file."""


def _write_file(place: Path, ids: np.ndarray, centres: np.ndarray, seed: int) -> None:
    rng = np.random.Generator(np.random.SFC64(seed))
    rows = rng.standard_normal((len(ids), centres.shape[1]), dtype=np.float32)
    rows *= NOISE
    rows += centres[rng.integers(len(centres), size=len(ids))]
    chosen = rng.choice(len(ids), len(ids) // COPIES, replace=False)
    rows[chosen] = rows[rng.integers(len(ids), size=len(chosen))]
    offsets = pa.array(np.arange(0, rows.size + 1, rows.shape[1], dtype=np.int32))
    lists = pa.ListArray.from_arrays(offsets, pa.array(rows.reshape(-1)))
    table = pa.table({"id": pa.array([f"clip-{i:09d}" for i in ids.tolist()]), "embedding": lists})
    pq.write_table(table, place, row_group_size=ROWS_PER_GROUP, use_dictionary=False, compression="none")


def write_input(folder: Path, n_rows: int, dim: int, n_centres: int) -> int:
    """Write (n_rows, dim) float32 rows about centres; return the bytes of the files."""
    folder.mkdir(parents=True)
    centres = np.random.default_rng(0).standard_normal((n_centres, dim), dtype=np.float32)
    starts = range(0, n_rows, ROWS_PER_FILE)
    with ThreadPoolExecutor(N_THREADS) as pool:
        for seed, start in enumerate(starts):
            ids = np.arange(start, min(start + ROWS_PER_FILE, n_rows))
            pool.submit(_write_file, folder / f"{seed:05d}.parquet", ids, centres, seed)
    files = list(folder.iterdir())
    if len(files) != len(starts):
        raise RuntimeError(f"{len(starts)} files were to be written, {len(files)} are there")
    return sum(file.stat().st_size for file in files)


def card() -> str:
    """Name of the first GPU."""
    import cupy

    return str(cupy.cuda.runtime.getDeviceProperties(0)["name"].decode())
