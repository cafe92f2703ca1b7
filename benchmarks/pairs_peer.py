"""Listing all pairs of rows within eps on one thread, beside Lance's `find_duplicate_pairs`.

Both begin with files and end with pairs in memory: here a Parquet file is read and brought to length 1, there an index
(IVF_FLAT, cosine) that exists already. Lance compares inside the partitions of its index alone; with one partition that
is everything, with twenty the pairs that it misses are counted.
"""

import statistics
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.peers import PAIRS, lance_index, those_installed
from benchmarks.real_like import real_like_rows
from benchmarks.table import Row
from benchmarks.timing import process, seconds_of
from semdedup.dedup.input.rows import embedding_rows
from semdedup.dedup.kernels.bounds import short_rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.join import Side
from semdedup.dedup.pairs.match import choose_width, every_match

SIZES: dict[str, dict[str, Any]] = {
    "smoke": {"rows": 1_000, "dim": 48, "rounds": 1},
    "quick": {"rows": 20_000, "dim": 512, "rounds": 1},
    "full": {"rows": 20_000, "dim": 512, "rounds": 5},
}
EPS, PARTITIONS = 0.1, 20
OURS = "semdedup"
SAMPLE = 8192
"""Rows that the axes are taken from, as `find_pairs` does."""

AT_LEAST = 5
"""Times as fast as the peer."""


def pairs_here(path: Path, eps: float) -> np.ndarray:
    """All pairs of the rows of a Parquet file, (p, 2), the smaller position first."""
    column = pq.read_table(path, columns=["embedding"])["embedding"]
    least = np.float32(1 - eps)
    rows = unit_rows(embedding_rows(column, column.type.list_size)[0])
    _, axes = choose_width(rows[:: max(1, len(rows) // SAMPLE)], least)
    side = Side(rows, short_rows(rows, axes) if axes.shape[1] else rows, np.array([0, len(rows)]), None)
    found = list(every_match(side, side, least, Counter()))
    return np.concatenate([np.empty((0, 2), dtype=np.int64), *(np.stack([p.left, p.right], axis=1) for p in found)])


def measure(folder: Path, rows: np.ndarray, peers: list[str], rounds: int) -> dict[str, Any]:
    """Seconds of everybody in rounds, and the pairs that a peer misses; called in a process of one thread."""
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    pq.write_table(pa.table({"embedding": embeddings}), folder / "rows.parquet", compression="none")
    ours = _as_set(pairs_here(folder / "rows.parquet", EPS))
    seconds: dict[str, list[float]] = {OURS: [], **{name: [] for name in peers}}
    missed: dict[str, dict[str, int]] = {name: {} for name in peers}
    for partitions in (PARTITIONS, 1) if peers else ():
        lance_index(folder / f"lance-{partitions}", embeddings, partitions)
        for name in peers:
            theirs = _as_set(PAIRS[name][1](folder / f"lance-{partitions}", EPS))
            if theirs - ours:  # at most those whose similarity is the threshold but for rounding
                print(f"    {name} lists {len(theirs - ours)} pairs that are not listed here")
            missed[name][str(partitions)] = len(ours - theirs)
    for _ in range(rounds):
        seconds[OURS].append(seconds_of(pairs_here, folder / "rows.parquet", EPS))
        for name in peers:
            seconds[name].append(seconds_of(PAIRS[name][1], folder / "lance-1", EPS))
    ratios = {
        name: statistics.median(a / b for a, b in zip(seconds[OURS], seconds[name], strict=True)) for name in peers
    }
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    return {"seconds": medians, "pairs": len(ours), "missed": missed, "ratios": ratios}


def _as_set(pairs: np.ndarray) -> set[tuple[int, int]]:
    return {(int(a), int(b)) for a, b in np.sort(pairs, axis=1)}


def run(size: str) -> dict[str, Any]:
    """Measure and print; return the figures."""
    shape = SIZES[size]
    n, d = shape["rows"], shape["dim"]
    print(f"all pairs of {n:,} × {d} like real rows within eps {EPS:g}, one thread")
    peers = list(those_installed(PAIRS))
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name, process() as call:
        found = call(measure, Path(name), real_like_rows(n, d), peers, shape["rounds"])
    print(f"    {OURS:<40}{found['seconds'][OURS]:9.3f} s, {found['pairs']:,} pairs")
    for peer in peers:
        missed = ", ".join(f"{number:,} in {partitions}" for partitions, number in found["missed"][peer].items())
        print(
            f"    {peer:<40}{found['seconds'][peer]:9.3f} s, {1 / found['ratios'][peer]:.1f} × as long (wanted: at "
            f"least {AT_LEAST}), its index made before; pairs missed by number of its partitions: {missed}",
            flush=True,
        )
    return {"rows": n, "dim": d, **found}


def rows(found: dict[str, Any]) -> list[Row]:
    """Time beside the peer's."""
    size, ours = f"{found['rows']:,} × {found['dim']}, eps {EPS:g}", f"{found['seconds'][OURS]:.3g} s"
    return [Row("all pairs, one thread", size, ours, name, ratio, peer=True) for name, ratio in found["ratios"].items()]
