"""`report` and `extract` over many score rows, beside the bare read of the same columns; and their memory."""

import itertools
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workers import MemoryWatch

SIZES: dict[str, dict[str, int]] = {
    "smoke": {"rows": 20_000, "clusters": 4},
    "quick": {"rows": 2_000_000, "clusters": 100},
    "full": {"rows": 20_000_000, "clusters": 400},
}
EPS = 0.05
READ = """
import sys, time
import pyarrow.parquet as pq
from pathlib import Path
started = time.monotonic()
for path in sorted(Path(sys.argv[1]).glob("*.parquet")):
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(1 << 18, columns=sys.argv[2].split(","), use_threads=False):
            pass
print(time.monotonic() - started)
"""


def make_scores(folder: Path, rows: int, clusters: int) -> None:
    """Tables of scores with ids like those of `split`, 36 characters each; one row in ten is a near-duplicate."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    edges = np.linspace(0, rows, clusters + 1).astype(int)
    for cluster, (start, stop) in enumerate(itertools.pairwise(edges)):
        numbers = np.arange(start, stop)
        ids = pa.array([f"{number:08x}-0000-5000-8000-{cluster:012x}" for number in numbers])
        better = (rng.random(len(numbers)) * np.arange(len(numbers))).astype(int)
        scores = rng.beta(4, 3, len(numbers)).astype(np.float32)
        copies = rng.random(len(numbers)) < 0.1
        scores[copies] = 1 - rng.exponential(0.01, copies.sum()).astype(np.float32).clip(0, 1)
        scores[0] = 0
        table = pa.table({"id": ids, "max_id": ids.take(pa.array(better)), "cosine_sim_score": scores})
        pq.write_table(table, folder / f"cluster_{cluster}.parquet")


def timed(*command: str) -> dict[str, float]:
    """Seconds and memory, in MiB, of a command."""
    started = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", "semdedup.cli", *command], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )
    with MemoryWatch([process.pid], tree=True, shared_once=True) as watch:
        _, said = process.communicate()
    seconds = time.monotonic() - started
    if process.returncode:
        raise SystemExit(said.decode())
    return {"seconds": seconds, "together_mib": watch.peaks[0], "largest_mib": watch.largest}


def bare_read(folder: Path, columns: str) -> float:
    """Seconds that PyArrow takes to read columns, in batches, on one thread, and do nothing with them."""
    done = subprocess.run([sys.executable, "-c", READ, str(folder), columns], capture_output=True, check=True)
    return float(done.stdout)


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape = SIZES[size]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, "scores")
        make_scores(folder, shape["rows"], shape["clusters"])
        start_s = timed("report", "--help")["seconds"]
        found: dict[str, Any] = {**shape, "start_s": start_s, "read_scores_s": bare_read(folder, "cosine_sim_score")}
        found["report"] = timed("report", str(folder), "--eps", str(EPS), "--quiet")
        found["page_mb"] = (folder / "report.html").stat().st_size / 1e6
        found["read_ids_s"] = bare_read(folder, "id,cosine_sim_score")
        target = str(Path(name, "extracted"))
        cluster = ("--n-workers", "2", "--memory-limit", "1GiB", "--backend", "cpu")
        found["extract"] = timed(
            "extract", str(folder), "--eps", str(EPS), "--output-path", target, "--quiet", *cluster
        )
    print(f"{shape['rows']:,} score rows in {shape['clusters']} clusters; a command starts in {start_s:.1f} s")
    for command, column, read in (
        ("report", "scores", found["read_scores_s"]),
        ("extract", "ids and scores", found["read_ids_s"]),
    ):
        figures = found[command]
        ratio = (figures["seconds"] - start_s) / read
        print(
            f"  {command:<8}{figures['seconds']:7.1f} s, {ratio:5.1f} x the bare read of "
            f"the {column} ({read:.2f} s) after its start; memory {figures['together_mib']:,.0f} MiB, "
            f"of one process {figures['largest_mib']:,.0f} MiB"
        )
    print(f"  the page has {found['page_mb']:.1f} MB", flush=True)
    return found
