"""Makers and readers that the workflow tests share: inputs, the reference answer, and what stands in a folder."""

import contextlib
import glob
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from semdedup import SemanticDeduplicationWorkflow
from semdedup.dedup import sizes
from semdedup.runs.at_work import PROGRESS
from semdedup.storage.location import Location
from tests import reference

LISTS: Mapping[str, Callable[[pa.DataType, int], pa.DataType]] = {
    "list": lambda element, dim: pa.list_(element),
    "large_list": lambda element, dim: pa.large_list(element),
    "fixed_size_list": lambda element, dim: pa.list_(element, dim),
}


def near_duplicates(rng: np.random.Generator, n: int = 240, dim: int = 6) -> tuple[list[str], np.ndarray]:
    """Ids and float32 rows of any length, a third of them near copies of others and some of them exact copies."""
    rows = rng.normal(size=(n, dim)).astype(np.float32)
    third = n // 3
    rows[:third] = rows[third : 2 * third] + rng.normal(scale=0.02, size=(third, dim)).astype(np.float32)
    rows[: third // 4] = rows[third : third + third // 4]
    order = rng.permutation(n)
    return [f"clip-{i:05d}" for i in range(n)], rows[order]


def embedding_table(ids: Iterable[Any], rows: Any, column: pa.DataType | None = None, **others: Any) -> pa.Table:
    """A table of ids, embeddings (an array, or lists that may be null, ragged or hold nulls) and other columns."""
    values = [None if row is None else list(row) for row in rows]
    ids = ids if isinstance(ids, pa.Array) else pa.array(list(ids))
    return pa.table({"id": ids, "embedding": pa.array(values, column or pa.list_(pa.float32())), **others})


def write_embeddings(
    folder: Path,
    ids: Sequence[Any],
    rows: np.ndarray,
    n_files: int = 1,
    *,
    column: pa.DataType | None = None,
    names: Sequence[str] | None = None,
    **others: Sequence[Any],
) -> Path:
    """Write an input of `n_files` Parquet files, cut from top to bottom."""
    folder.mkdir(parents=True, exist_ok=True)
    for i, chosen in enumerate(np.array_split(np.arange(len(ids)), n_files)):
        part = {name: pa.array([values[j] for j in chosen]) for name, values in others.items()}
        table = embedding_table([ids[j] for j in chosen], rows[chosen], column, **part)
        pq.write_table(table, folder / (names[i] if names else f"part-{i}.parquet"))
    return folder


def workflow(source: Any, output: Any, **parameters: Any) -> SemanticDeduplicationWorkflow:
    """The workflow without progress, with 3 clusters after 5 iterations and eps 0.01 unless told otherwise."""
    chosen = {"n_clusters": 3, "max_iter": 5, "eps": 0.01, "verbose": False, **parameters}
    return SemanticDeduplicationWorkflow(
        input_path=[str(path) for path in source] if isinstance(source, list) else str(source),
        output_path=str(output),
        **{name: str(value) if name.endswith("_path") else value for name, value in chosen.items()},
    )


def read_folder(folder: Path) -> pd.DataFrame:
    """All rows below a folder of Parquet files, by id; ``centroid=K`` in a path becomes a column."""
    table = ds.dataset(folder, format="parquet", partitioning="hive").to_table()
    return table.to_pandas().sort_values("id", ignore_index=True)


def read_all_scores(output: Path) -> pd.DataFrame:
    """The scores of a result, by id."""
    return read_folder(output / "pairwise_results")


def read_answer(output: Path) -> tuple[pd.DataFrame, list[Any]]:
    """What must not depend on how it was computed: the scores by id, and the sorted ids of the duplicates."""
    return read_all_scores(output), read_folder(output / "duplicates")["id"].tolist()


def assert_same_answer(found: Path, expected: tuple[pd.DataFrame, list[Any]]) -> None:
    """Assert that the answer of a result is the expected one to the last bit."""
    scores, duplicates = read_answer(found)
    pd.testing.assert_frame_equal(scores, expected[0], check_exact=True)
    assert duplicates == expected[1]


def reference_scores(clusters: pd.DataFrame, by: Sequence[str], ascending: Sequence[bool]) -> pd.DataFrame:
    """Scores of clusters whose embeddings are normalised, by brute force, in order of the ids.

    `ascending` has one more entry than `by`, the direction in which ids break ties.
    """
    ids, rows, labels = reference.ranked(clusters, by, ascending)
    found = reference.scores(rows, labels)
    table = pd.DataFrame({"id": ids, "max_id": ids[found.match], "cosine_sim_score": found.score})
    return table.sort_values("id", ignore_index=True)


def files_below(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, but for what tells how far a run is: that is of its time."""
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != PROGRESS)
    return sorted(str(path.relative_to(folder)) for path in found)


def write_texts(folder: Path, held: Mapping[str, str]) -> None:
    """Put files below a folder, by their names."""
    for name, content in held.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content)


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder with its bytes, the manifest left out: it holds time stamps of files."""
    return {name: (folder / name).read_bytes() for name in files_below(folder) if name != "_manifest.json"}


def stamps(folder: Path) -> dict[str, int]:
    """Every file and folder below a folder with the time of its last change."""
    found = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # tasks may still be at work there
            found[str(path)] = path.stat().st_mtime_ns
    return found


def assert_nothing_left(output: Path) -> None:
    """Assert that a refused run left nothing behind: no result, no scratch, no record."""
    assert not list(output.rglob("*"))


def ids_of(path: Path) -> list[Any]:
    """Ids of one Parquet file in their order."""
    return pq.read_table(path)["id"].to_pylist()


NOWHERE = "tcp://127.0.0.1:1"
"""No scheduler answers here: what is refused for another reason was refused before a cluster was asked for."""

DRIVER = """
import json, sys
from semdedup import ClusterOptions, SemanticDeduplicationWorkflow, SemdedupError
from semdedup.dedup import sizes

if __name__ == "__main__":
    task_bytes, work_per_task, scheduler, n_workers, parameters = json.loads(sys.argv[1])
    sizes.SMALLEST_TASK = sizes.LARGEST_TASK = task_bytes
    sizes.WORK_PER_TASK = work_per_task
    sizes.BESIDE_A_ROW = 0
    cluster = ClusterOptions(scheduler=scheduler, n_workers=n_workers, memory_limit="1GiB")
    try:
        print(SemanticDeduplicationWorkflow(**parameters).run(cluster=cluster).duplicates)
    except SemdedupError as error:
        print(type(error).__name__, error)
        sys.exit(1)
"""
"""A program of a user: it runs the workflow on a scheduler, or on a cluster of its own."""


def work_of_driver(task_bytes: int) -> int:
    """Operations of a task of `DRIVER`: few, so that a tile is compared with few others at a time."""
    return task_bytes**2 // 64


def start_driver(
    place: Path, parameters: dict[str, Any], *, task_bytes: int, scheduler: str | None = None
) -> subprocess.Popen:
    """Start `DRIVER`; see `start_program`."""
    return start_program(place, DRIVER, task_bytes, work_of_driver(task_bytes), scheduler, 2, parameters)


def start_program(place: Path, program: str, *arguments: Any) -> subprocess.Popen:
    """Start a Python program in a process group of its own, its arguments as JSON; its words go to the file ``log``."""
    script = place / "driver.py"
    script.write_text(program)
    with open(place / "log", "w") as log:
        return subprocess.Popen(
            [sys.executable, str(script), json.dumps(arguments)],
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd=place,
        )


def set_task_bytes(monkeypatch: pytest.MonkeyPatch, n_bytes: int) -> None:
    """Make every task hold so many bytes of embeddings and ids."""
    monkeypatch.setattr(sizes, "BESIDE_A_ROW", 0)
    monkeypatch.setattr(sizes, "SMALLEST_TASK", n_bytes)
    monkeypatch.setattr(sizes, "LARGEST_TASK", n_bytes)


def set_task_work(monkeypatch: pytest.MonkeyPatch, n_bytes: int, dim: int, tiles: int = 2) -> None:
    """Make every task hold so many bytes, and compare as many rows of `dim` elements with so many times themselves."""
    set_task_bytes(monkeypatch, n_bytes)
    monkeypatch.setattr(sizes, "WORK_PER_TASK", tiles * 2 * (n_bytes // (4 * dim)) ** 2 * dim)


def wait_for(out: Path, pattern: str, process: subprocess.Popen | None = None, seconds: float = 60) -> None:
    """Wait until a file of this name stands below the output."""
    deadline = time.monotonic() + seconds
    while not glob.glob(pattern, root_dir=out, recursive=True):  # unlike `Path.glob`, it bears that folders are renamed
        assert time.monotonic() < deadline, f"{pattern} did not appear"
        assert process is None or process.poll() is None, f"the driver ended before {pattern} appeared"
        time.sleep(0.001)


def wait_until(is_so: Callable[[], object], what: str, seconds: float = 60) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline, f"{what}: not within {seconds:.0f} s"
        time.sleep(0.1)


def kill(process: subprocess.Popen) -> None:
    """SIGKILL the driver with everything that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


@contextlib.contextmanager
def processes_of(folder: Path) -> Iterator[Any]:
    """A function that starts a program of Dask's in a folder. What it starts is killed at the end."""
    started: list[subprocess.Popen] = []

    def start(program: str, *arguments: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.Popen:
        command = [*prefix, sys.executable, "-m", f"distributed.cli.{program}", *arguments]
        with open(folder / f"{program}-{len(started)}.log", "w") as log:
            started.append(
                subprocess.Popen(
                    command, cwd=folder, stdout=log, stderr=log, start_new_session=True, env=os.environ | environment
                )
            )
        return started[-1]

    try:
        yield start
    finally:
        for process in started:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


WORKER = ("--no-nanny", "--nthreads", "1", "--memory-limit", "1GiB", "--no-dashboard", "--host", "127.0.0.1")
SCHEDULER = ("--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file")


def start_scheduler(start: Any, folder: Path) -> Path:
    """Start a scheduler without workers in a folder; give its scheduler file, which stands there."""
    file = folder / "scheduler.json"
    start("dask_scheduler", *SCHEDULER, str(file))
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return file


STORAGES = ["local", "s3"]


def location_in(request: pytest.FixtureRequest, folder: Path, name: str) -> Location:
    """What a fixture with `STORAGES` as params gives: a folder on this machine, or in a bucket of its own."""
    if request.param == "local":
        return Location.of(folder / name)
    bucket, options = request.getfixturevalue("s3")
    return Location.of(f"{bucket}/{name}", options)


def answer_of(rows: tuple[list[str], np.ndarray], client: Any, place: Path) -> tuple[pd.DataFrame, list[Any]]:
    """The answer for ids and rows, from two files on this machine."""
    workflow(write_embeddings(place / "in", *rows, n_files=2), place / "out").run(client)
    return read_answer(place / "out")
