"""The memory of a task is what its formula says, measured; and it does not grow with the input."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from semdedup.dedup.cluster.shuffle import partition_memory
from semdedup.dedup.compare.groups import group_memory
from semdedup.storage.tables import embedding_column

MIB = 1 << 20
DIM = 256
ALLOWANCE = 96 * MIB  # ids and other columns, buffers of the BLAS for each thread, pools that keep what was freed

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc"
)

PEAK = """
def status(name):
    line = next(line for line in open("/proc/self/status") if line.startswith(name))
    return int(line.split()[1]) * 1024
"""

ASSIGN = (
    PEAK
    + """
import json, sys
import numpy as np, pyarrow as pa
from semdedup.storage.arrays import save_array
from semdedup.dedup.options import InputOptions
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.cluster.shuffle import Assignment, assign_partition, rows_of_clusters
from semdedup.storage.location import Location

folder = sys.argv[1]
start, stop, dim, n_buckets = map(int, sys.argv[2:])
root = Location.of(folder)
work = Workspace(InputSchema(InputOptions(), pa.string(), pa.schema([])), root, root / "scratch", {})
centroids = np.random.default_rng(1).standard_normal((n_buckets, dim)).astype(np.float32) / dim**0.5
save_array(root / "centroids.npy", centroids)
places = (root / "centroids.npy", "digest", tuple(range(n_buckets)))
task = Assignment(dim, *places, "cpu", 1 << 15, root / "quarantine", 1.0)
warm = Slice(root.url + "/input.parquet", "input", 0, 256)
assign_partition(work, task, (0, (warm,)))
before = status("VmRSS")
found = assign_partition(work, task, (1, (Slice(root.url + "/input.parquet", "input", start, stop),)))
largest = int(rows_of_clusters(found).max())
print(json.dumps({"grown": status("VmHWM") - before, "rows": found["assigned"], "largest": largest}))
"""
)

SCORE = (
    PEAK
    + """
import json, sys
import numpy as np, pyarrow as pa
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.options import InputOptions
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.compare.groups import Cluster, Comparison, score_group
from semdedup.dedup.compare.scored import Limits
from semdedup.storage.location import Location

folder, n_rows, dim, n_clusters = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
root = Location.of(folder)
strategy = RankingStrategy.random(1)
places = (root, root / "scores", root, root / "scratch")
schema = InputSchema(InputOptions(), pa.string(), pa.schema([]))
task = Comparison(*places, schema, strategy, dim, Limits(np.float32(0.8), 1024), "cpu", {})
score_group(task, (Cluster(0, (root.url + "/small.parquet",), (64,)),))
before = status("VmRSS")
group = tuple(Cluster(k, (root.url + "/input.parquet",), (n_rows,)) for k in range(n_clusters))
found = score_group(task, group)
print(json.dumps({"grown": status("VmHWM") - before, "rows": found["rows"]}))
"""
)


def write(path: Path, n_rows: int, dim: int = DIM) -> None:
    rows = np.random.default_rng(0).standard_normal((n_rows, dim)).astype(np.float32)
    rows[-1] = rows[0]  # where rows are equal, the comparison makes one more copy
    table = pa.table({"id": [f"clip-{i}" for i in range(n_rows)], "embedding": embedding_column(rows)})
    pq.write_table(table, path)


def measure(script: str, folder: Path, *numbers: int) -> dict:
    command = [sys.executable, "-c", script, str(folder), *map(str, numbers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("n_rows", "dim"), [(40_000, 256), (120_000, 256), pytest.param(20_000, 1536, marks=pytest.mark.slow)]
)
def test_the_assignment_of_a_partition_stays_within_its_formula(tmp_path: Path, n_rows: int, dim: int) -> None:
    write(tmp_path / "input.parquet", n_rows, dim)
    found = measure(ASSIGN, tmp_path, 0, n_rows, dim, 8)
    assert found["rows"] == n_rows
    formula = partition_memory(n_rows, dim, found["largest"])
    assert found["grown"] <= formula + ALLOWANCE
    assert found["grown"] >= formula / 3  # a formula far above what is used would say nothing


@pytest.mark.slow
def test_a_partition_needs_the_same_memory_whatever_else_the_input_holds(tmp_path: Path) -> None:
    alone, among_four = tmp_path / "alone", tmp_path / "among four"
    for folder, n_rows in ((alone, 40_000), (among_four, 160_000)):
        folder.mkdir()
        write(folder / "input.parquet", n_rows)  # one row group: all of the larger one would be 160 MiB
    needed = measure(ASSIGN, alone, 0, 40_000, DIM, 8)["grown"]
    for start in (0, 120_000):
        found = measure(ASSIGN, among_four, start, start + 40_000, DIM, 8)
        assert found["rows"] == 40_000
        assert found["grown"] <= needed + ALLOWANCE / 2


@pytest.mark.parametrize(("n_rows", "dim"), [(12_000, 256), pytest.param(6_000, 2048, marks=pytest.mark.slow)])
def test_scoring_a_group_stays_within_its_formula(tmp_path: Path, n_rows: int, dim: int) -> None:
    write(tmp_path / "input.parquet", n_rows, dim)
    write(tmp_path / "small.parquet", 64, dim)
    formula = group_memory(n_rows, dim, 1024)
    found = measure(SCORE, tmp_path, n_rows, dim, 1)
    assert found["rows"] == n_rows
    assert found["grown"] <= formula + ALLOWANCE
    assert found["grown"] >= formula / 3


def test_a_group_of_many_clusters_needs_no_more_memory_than_its_largest(tmp_path: Path) -> None:
    write(tmp_path / "input.parquet", 2_000, 1024)
    write(tmp_path / "small.parquet", 64, 1024)
    few, many = (measure(SCORE, tmp_path, 2_000, 1024, n)["grown"] for n in (2, 10))
    assert many <= few + ALLOWANCE / 2  # all ten would be 80 MiB
