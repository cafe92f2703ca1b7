"""Ten million rows on two small workers beside one million: time, memory of each process, and how they grow.

The parts are printed as they end, and kept in the folder that is given (``--folder``): a run that is cut off goes on
with what was done. Without a folder everything is in a temporary one, which needs four times the bytes of the input.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.growth import exponent
from benchmarks.measured_run import measured_run
from benchmarks.table import Row
from semdedup.storage.tables import embedding_column

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"n_rows": (2_000, 4_000), "dim": 16},
    "quick": {"n_rows": (100_000, 1_000_000), "dim": 128},
    "full": {"n_rows": (1_000_000, 10_000_000), "dim": 128},
}
WORKERS, MEMORY, EPS = 2, "2GiB", 0.05
ROWS_PER_FILE, TOPICS = 250_000, 2_000
MOST_GROWTH, MOST_OF_MEMORY = 1.2, 1.15
"""Bars: the exponent of the time, and the peak of a worker over that with a tenth of the rows."""

MIB = 1 << 20


def blocks(n_rows: int, dim: int) -> Iterator[np.ndarray]:
    """The rows of each file, (m, d) float32; a tenth of them are noisy copies of others in the same file."""
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((TOPICS, dim), dtype=np.float32)
    for start in range(0, n_rows, ROWS_PER_FILE):
        m = min(ROWS_PER_FILE, n_rows - start)
        rows = topics[rng.integers(TOPICS, size=m)]
        rows += rng.standard_normal((m, dim), dtype=np.float32)
        n_copies = m // 10
        rows[:n_copies] = rows[n_copies : 2 * n_copies]
        rows[:n_copies] += 0.02 * rng.standard_normal((n_copies, dim), dtype=np.float32)
        yield rows


def write_input(folder: Path, n_rows: int, dim: int) -> None:
    """Write the files of the input, one in memory at a time; those that are there stay."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, rows in enumerate(blocks(n_rows, dim)):
        place, unfinished = folder / f"part-{number:04d}.parquet", folder / "_unfinished"
        if not place.exists():
            first = number * ROWS_PER_FILE
            ids = [f"clip-{row:09d}" for row in range(first, first + len(rows))]
            table = pa.table({"id": ids, "embedding": embedding_column(rows)})
            pq.write_table(table, unfinished, row_group_size=1 << 16)
            unfinished.rename(place)


def measure(folder: Path, n_rows: int, dim: int, verbose: bool) -> dict[str, Any]:
    """What a run over so many rows took, now or before this was cut off."""
    place = folder / f"measured-{n_rows}.json"
    if not place.exists():
        inputs, output = folder / f"in-{n_rows}", folder / f"out-{n_rows}"
        write_input(inputs, n_rows, dim)
        resumed = output.exists()
        parameters = {"input_path": str(inputs), "output_path": str(output), "eps": EPS, "verbose": verbose}
        found = measured_run(parameters, WORKERS, 1, MEMORY)
        place.write_text(json.dumps({**found, "resumed": resumed}))
        shutil.rmtree(output)
        shutil.rmtree(inputs)
    return json.loads(place.read_text())


def run(size: str, folder: Path | None = None) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape, runs = SIZES[size], []
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as temporary:
        place = folder or Path(temporary)
        for n_rows in shape["n_rows"]:
            runs.append(measure(place, n_rows, shape["dim"], verbose=size == "full"))
            print("\n".join(report(runs[-1], shape["dim"])), flush=True)
    seconds = [each["seconds"] for each in runs]
    peaks = [max(each["peak"]["workers"]) for each in runs]
    found = {**shape, "runs": runs, "exponent": exponent(shape["n_rows"], seconds), "memory": peaks[-1] / peaks[0]}
    parts = [step for step in runs[0]["steps"] if step in runs[-1]["steps"]]
    each = ((step, exponent(shape["n_rows"], [one["steps"][step] for one in runs])) for step in parts)
    print(
        f"    growth: n^{found['exponent']:.2f} (at most n^{MOST_GROWTH:g}); "
        f"memory of a worker {found['memory']:.2f} × (at most {MOST_OF_MEMORY:g} ×)"
    )
    print(f"    of the steps: {', '.join(f'{step} n^{power:.2f}' for step, power in each)}", flush=True)
    return found


def report(found: Mapping[str, Any], dim: int) -> list[str]:
    """The figures of one run in lines of text."""
    resumed = ", the end of a run that was cut off" if found["resumed"] else ""
    workers = ", ".join(f"{peak / MIB:,.0f}" for peak in found["peak"]["workers"])
    base = max(found["base"]["workers"]) / MIB
    steps = ", ".join(f"{step} {seconds:.1f}" for step, seconds in found["steps"].items())
    return [
        f"dedup of {found['rows']:,} × {dim}, {WORKERS} workers of {MEMORY}: {found['seconds']:.0f} s{resumed}, "
        f"{found['n_clusters']:,} clusters, {found['iterations']} iterations, {found['duplicates']:,} duplicates",
        f"    most memory: workers {workers} MiB (with nothing to do {base:,.0f}), client "
        f"{found['peak']['client'] / MIB:,.0f} MiB, scheduler {found['peak']['scheduler'] / MIB:,.0f} MiB",
        f"    seconds of the steps: {steps}; {sum(found['tasks'].values()):,} tasks",
    ]


def rows(found: Mapping[str, Any]) -> list[Row]:
    """How time and memory grow."""
    size = f"{found['n_rows'][0]:,} to {found['n_rows'][-1]:,} × {found['dim']}"
    last = found["runs"][-1]
    peak = max(last["peak"]["workers"]) / MIB
    return [
        Row("growth, two workers of 2 GiB", size, f"n^{found['exponent']:.2f}", "n^1", found["exponent"]),
        Row("memory of a worker there", size, f"{peak:,.0f} MiB", "that at the fewest rows", found["memory"]),
    ]
