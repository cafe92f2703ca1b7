"""A hundredth of new rows against an earlier result, beside the run over all, and beside reading what it kept."""

import statistics
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.data import write_files
from benchmarks.exact import dedup
from benchmarks.limits import seconds_to_read
from benchmarks.modes import MEMORY, N_FILES, WORKERS, beside_the_first, report, run_mode
from benchmarks.real_like import real_like_rows
from benchmarks.table import Row
from benchmarks.workers import local_workers
from semdedup.dedup.names import WORKFLOW

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"rows": 6_000, "dim": 48, "rounds": 1},
    "quick": {"rows": 100_000, "dim": 256, "rounds": 1},
    "full": {"rows": 1_000_000, "dim": 256, "rounds": 2},
}
NEW, EPS = 0.01, 0.1
ALLOWED_OF_ALL, ALLOWED_OF_READING = 0.25, 1.5
"""Of the run over all, or times the reading of the kept embeddings, whichever is more."""

ALL, ON_BASE = "all rows", "new rows on the base"


def seconds_to_read_kept(base: Path, kept: float) -> float:
    """Of ids and embeddings of all clusters by bare PyArrow on the workers, times the share of rows that are kept."""
    paths = sorted(str(path) for path in (base / WORKFLOW.clusters).rglob("*.parquet"))
    with local_workers(WORKERS, MEMORY) as client:
        return kept * statistics.mean(seconds_to_read(client, paths) for _ in range(2))


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape = SIZES[size]
    n, new = shape["rows"], round(NEW * shape["rows"])
    rows = real_like_rows(n, shape["dim"])
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name:
        folder = Path(name)
        write_files(folder / "old", rows[:-new], N_FILES)
        write_files(folder / "new", rows[-new:], 1, first=n - new)
        earlier = run_mode(partial(dedup, folder / "old", eps=EPS), folder / "base")
        read = seconds_to_read_kept(folder / "base", 1 - earlier["duplicates"] / earlier["rows"])
        modes = {
            ALL: partial(dedup, [str(folder / "old"), str(folder / "new")], eps=EPS),
            ON_BASE: partial(dedup, folder / "new", eps=EPS, base=str(folder / "base")),
        }
        found = beside_the_first(modes, folder, shape["rounds"])
    seconds = found[ON_BASE]["seconds"]
    allowed = max(ALLOWED_OF_ALL, ALLOWED_OF_READING * read / found[ALL]["seconds"])
    print(f"{new:,} new rows on a base of {n - new:,} × {shape['dim']} like real rows, eps {EPS:g}, {WORKERS} workers")
    print("\n".join(report(found, {ON_BASE: round(allowed, 3)})))
    print(f"    = {seconds / read:.2f} × the bare reading of the kept embeddings, {read:.2f} s", flush=True)
    return {"rows": n, "new": new, "dim": shape["dim"], "modes": found, "read": read, "allowed": allowed}


def rows(found: dict[str, Any]) -> list[Row]:
    """The new rows beside all of them, and beside the reading."""
    size, mode = f"{found['new']:,} new of {found['rows']:,} × {found['dim']}", found["modes"][ON_BASE]
    ours = f"{mode['seconds']:.3g} s"
    return [
        Row("dedup of new rows, base=", size, ours, "the run over all", mode["ratio"]),
        Row("the same", size, ours, "reading of the kept embeddings", mode["seconds"] / found["read"]),
    ]
