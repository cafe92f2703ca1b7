"""Embeddings to the GPU: row groups that cuDF reads and decodes there, beside PyArrow and a copy, in turns.

python -m benchmarks.gpu.reading [ROWS [DIM]]
"""

import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from benchmarks.gpu._input import card, write_input
from semdedup.arrays import frames
from semdedup.dedup.input import on_device
from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.options import InputOptions
from semdedup.storage.location import Location

TURNS = 3


def seconds(cupy: Any, call: Callable[[], Any]) -> tuple[Any, float]:
    started = time.perf_counter()
    found = call()
    cupy.cuda.Device().synchronize()
    return found, time.perf_counter() - started


def main(n_rows: int = 400_000, dim: int = 1536) -> None:
    import cupy

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "in"
        n_bytes = write_input(folder, n_rows, dim, 100)
        print(f"{n_rows:,} x {dim}, {n_bytes / 1e9:.1f} GB, {card()}, cuDF there: {frames.frames_on('gpu')}")
        schema = InputSchema(InputOptions(), pa.string(), pa.schema([]))
        work = Workspace(schema, Location.of(folder), Location.of(Path(name) / "scratch"), {}, backend="gpu")
        slices = []
        for file in sorted(folder.iterdir()):
            rows = min(100_000, n_rows - 100_000 * len(slices))
            slices.append(Slice(str(file), str(file), 0, rows, 0, 4 * dim))
        found, worth = {}, on_device.WORTH_A_CALL
        for _ in range(TURNS):
            for way, least in (("cuDF", worth), ("PyArrow and a copy", 1 << 62)):
                on_device.WORTH_A_CALL = least
                (rows, _, _), taken = seconds(cupy, lambda: work.gather(tuple(slices), dim))
                print(f"  {way:20s} {taken:6.2f} s {n_bytes / taken / 1e9:6.2f} GB/s {n_rows / taken:12,.0f} rows/s")
                found[way] = rows[:: max(1, n_rows // 10_000)].get()
                del rows
        one, other = found.values()
        print(
            "  the same bits" if np.array_equal(one.view(np.uint32), other.view(np.uint32)) else "  FAULT: they differ"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
