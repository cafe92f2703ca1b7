"""What a run of many rows, long rows or many files takes: bytes and requests of a store, memory, workers that join.

Each case has a bar, which is printed beside what was measured.
"""

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.counting_s3 import CountingS3, counting_server
from benchmarks.data import make_rows, write_files
from benchmarks.measured_run import RunFailedError, measured_run
from benchmarks.table import Row
from semdedup.compute.progress import Reporter
from semdedup.compute.session import check_cluster
from semdedup.dedup.forecast.given import MIB, Found, Machines, Rows
from semdedup.dedup.forecast.plan import RunPlan
from semdedup.dedup.forecast.traffic import needed_bytes, total_of, traffic_of
from semdedup.storage.tables import embedding_column

SIZES: dict[str, dict[str, dict[str, Any]]] = {
    "smoke": {
        "store": {"n_rows": 3_000, "dim": 16, "n_files": 3},
        "metadata": {"n_rows": 1_000, "dim": 16, "n_bytes": 2_000, "n_files": 4, "memory": "700MiB"},
        "one row group": {"n_rows": 3_000, "dim": 64, "memory": "500MiB"},
        "many files": {"n_files": 60, "rows_a_file": 5, "dim": 16},
        "workers that join": {"n_tasks": 8, "seconds": 0.1},
        "threads": {"n_rows": 3_000, "dim": 32},
    },
    "quick": {
        "store": {"n_rows": 30_000, "dim": 128, "n_files": 6},
        "metadata": {"n_rows": 12_000, "dim": 16, "n_bytes": 7_000, "n_files": 8, "memory": "500MiB"},
        "one row group": {"n_rows": 50_000, "dim": 512, "memory": "400MiB"},
        "many files": {"n_files": 2_000, "rows_a_file": 5, "dim": 64},
        "workers that join": {"n_tasks": 24, "seconds": 0.5},
        "threads": {"n_rows": 100_000, "dim": 128},
    },
    "full": {
        "store": {"n_rows": 300_000, "dim": 256, "n_files": 6},
        "metadata": {"n_rows": 48_000, "dim": 16, "n_bytes": 7_000, "n_files": 8, "memory": "700MiB"},
        "one row group": {"n_rows": 200_000, "dim": 512, "memory": "500MiB"},
        "many files": {"n_files": 20_000, "rows_a_file": 5, "dim": 64},
        "workers that join": {"n_tasks": 24, "seconds": 0.5},
        "threads": {"n_rows": 500_000, "dim": 256},
    },
}
EPS, WORKERS, MEMORY = 0.05, 2, "2GiB"
MOST_BYTES, MOST_OF_ONE_FILE, MOST_OF_ALL_WORKERS, MOST_OF_WORKERS = 1.3, 2.0, 1.3, 1.2
"""Bars: bytes fetched over those that must be; many files over one; workers that join over all from the beginning;
threads over processes."""


def parameters(inputs: object, output: object, **others: Any) -> dict[str, Any]:
    """Parameters of a run that says nothing."""
    return {"input_path": str(inputs), "output_path": str(output), "eps": EPS, "verbose": False, **others}


@contextlib.contextmanager
def input_on_store(shape: Mapping[str, Any], folder: Path) -> Iterator[tuple[CountingS3, int]]:
    """A store with the input in ``s3://bucket/in``, which counts from now on; and the bytes of the input."""
    import s3fs

    write_files(folder, make_rows(shape["n_rows"], shape["dim"], max(1, shape["n_rows"] // 500)), shape["n_files"])
    with counting_server() as s3:
        fs = s3fs.S3FileSystem(**s3.storage_options)
        fs.mkdir("bucket")
        fs.put(f"{folder}/", "bucket/in/", recursive=True)
        s3.reset()
        yield s3, sum(path.stat().st_size for path in folder.iterdir())


def store(shape: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A run from a store to a store: requests by operation, and bytes fetched over those that must be read."""
    with input_on_store(shape, folder / "in") as (s3, n_bytes):
        kwargs = {"storage_options": s3.storage_options}
        found = measured_run(
            parameters("s3://bucket/in", "s3://bucket/out", read_kwargs=kwargs, write_kwargs=kwargs), WORKERS, 1, MEMORY
        )
        operations = {name: count._asdict() for name, count in s3.counts().items()}
        total = s3.total()
    plan = plan_of(shape, n_bytes, found)
    expected = total_of(traffic_of(plan))
    return {
        "operations": operations,
        "fetched": total.fetched,
        "needed": needed_bytes(plan),
        "requests": total.n,
        "expected": {"fetched": expected.fetched, "requests": expected.requests},
        **_facts(found),
    }


def plan_of(shape: Mapping[str, Any], n_bytes: int, found: Mapping[str, Any]) -> RunPlan:
    """The plan of the run that was measured, over an input of so many bytes."""
    n, dim, ids = shape["n_rows"], shape["dim"], 4.6
    rows = Rows(n, dim, shape["n_files"], value_bytes=(n_bytes / n - ids) / dim, id_bytes=14, stored_id_bytes=ids)
    duplicates = found["duplicates"] / n
    return RunPlan.of(rows, Machines(WORKERS, 1, 2048 * MIB), found=Found(None, found["iterations"], duplicates))


def metadata(shape: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Rows that are short, with much text beside them that is carried along, on one worker of little memory."""
    n, rng = shape["n_rows"], np.random.default_rng(0)
    rows = make_rows(n, shape["dim"], max(1, n // 500))
    (folder / "in").mkdir()
    for number, chosen in enumerate(np.array_split(np.arange(n), shape["n_files"])):
        captions = [rng.bytes(shape["n_bytes"] // 2).hex() for _ in chosen]
        ids = [f"clip-{row:09d}" for row in chosen]
        table = pa.table({"id": ids, "embedding": embedding_column(rows[chosen]), "caption": captions})
        pq.write_table(table, folder / "in" / f"part-{number}.parquet")
    given = parameters(folder / "in", folder / "out", metadata_fields=["caption"])
    return _facts(measured_run(given, 1, 1, shape["memory"]))


def one_row_group(shape: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A file that is one row group, larger than what a worker holds."""
    rows = make_rows(shape["n_rows"], shape["dim"], max(1, shape["n_rows"] // 500))
    table = pa.table({"id": pa.array(range(len(rows))), "embedding": embedding_column(rows)})
    (folder / "in").mkdir()
    pq.write_table(table, folder / "in" / "all.parquet", row_group_size=len(rows), compression="none")
    del rows, table
    return _facts(measured_run(parameters(folder / "in", folder / "out"), WORKERS, 1, shape["memory"]))


def many_files(shape: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Many small files beside one file of the same rows."""
    rows = make_rows(shape["n_files"] * shape["rows_a_file"], shape["dim"], max(1, shape["n_files"] // 100))
    write_files(folder / "one", rows, 1)
    write_files(folder / "many", rows, shape["n_files"])
    found = {}
    for name in ("one", "many"):
        found[name] = _facts(measured_run(parameters(folder / name, folder / f"out-{name}"), WORKERS, 1, MEMORY))
        print(f"    {name}: {found[name]['seconds']:.1f} s", flush=True)
    return {
        **found["many"],
        "one": found["one"],
        "ratio": found["many"]["seconds"] / found["one"]["seconds"],
        "most": MOST_OF_ONE_FILE,
    }


def workers_that_join(shape: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Tasks that sleep, on four workers of which three join after the session was opened, beside four from then on."""
    late, at_once = _sleep_on(1, 4, shape), _sleep_on(4, 4, shape)
    return {"seconds": late, "at_once": at_once, "ratio": late / at_once, "most": MOST_OF_ALL_WORKERS}


def _sleep_on(first: int, then: int, shape: Mapping[str, Any]) -> float:
    """Seconds of all tasks, begun when `then` workers are there; the session was opened with the `first`."""
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        distributed.LocalCluster(n_workers=first, **options) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        session = check_cluster(client, "cpu", Reporter(verbose=False))
        cluster.scale(then)
        client.wait_for_workers(then, timeout=60)
        started = time.monotonic()
        list(session.run("sleep", time.sleep, [shape["seconds"]] * shape["n_tasks"]))
        return time.monotonic() - started


def threads(shape: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """One worker of two threads beside two workers of one, with the same memory in all."""
    write_files(folder / "in", make_rows(shape["n_rows"], shape["dim"], max(1, shape["n_rows"] // 500)), 16)
    found = {}
    for name, numbers in (("processes", (2, 1, "2GiB")), ("threads", (1, 2, "4GiB"))):
        found[name] = _facts(measured_run(parameters(folder / "in", folder / f"out-{name}"), *numbers))
        print(f"    {name}: {found[name]['seconds']:.1f} s", flush=True)
    ratio = found["threads"]["seconds"] / found["processes"]["seconds"]
    return {**found["threads"], "processes": found["processes"], "ratio": ratio, "most": MOST_OF_WORKERS}


def _facts(found: Mapping[str, Any]) -> dict[str, Any]:
    """What is kept of a measured run."""
    peaks = {"client": found["peak"]["client"], "worker": max(found["peak"]["workers"])}
    return {
        **{name: found[name] for name in ("rows", "duplicates", "seconds", "steps", "tasks")},
        "peak_mib": {name: n_bytes / MIB for name, n_bytes in peaks.items()},
    }


CASES: Mapping[str, Callable[[Mapping[str, Any], Path], dict[str, Any]]] = {
    "store": store,
    "metadata": metadata,
    "one row group": one_row_group,
    "many files": many_files,
    "workers that join": workers_that_join,
    "threads": threads,
}


def run(size: str) -> dict[str, Any]:
    """Measure and print, case by case; return the figures."""
    found: dict[str, Any] = {}
    for name, case in CASES.items():
        shape = SIZES[size][name]
        told = (f"{key} {value:,}" if isinstance(value, int) else f"{key} {value}" for key, value in shape.items())
        print(f"scale, {name}: {', '.join(told)}", flush=True)
        with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as folder:
            try:
                found[name] = {**shape, **case(shape, Path(folder)), "completes": True}
            except RunFailedError as error:
                found[name] = {**shape, "completes": False, "error": str(error)}
        print("\n".join(report(found[name])), flush=True)
    return found


def report(found: Mapping[str, Any]) -> list[str]:
    """The figures of a case in lines of text."""
    if not found["completes"]:
        return [f"    FAILED: {found['error']}"]
    lines = [f"    completes in {found['seconds']:.1f} s"]
    if "peak_mib" in found:
        lines[0] += f"; most memory {', '.join(f'{name} {mib:,.0f} MiB' for name, mib in found['peak_mib'].items())}"
    if "operations" in found:
        fetched, needed = found["fetched"], found["needed"]
        lines.append(
            f"    fetched {fetched:,} bytes = {fetched / needed:.2f} × those that it must (at most {MOST_BYTES:g})"
        )
        each = (f"{name} {count['n']:,}" for name, count in found["operations"].items())
        lines.append(f"    {found['requests']:,} requests: {', '.join(each)}")
        of = found["expected"]
        lines.append(f"    by the formulas: {of['fetched']:,.0f} bytes, {of['requests']:,.0f} requests")
    if "ratio" in found:
        lines.append(f"    {found['ratio']:.2f} × what it stands beside (at most {found['most']:g})")
    return lines


def rows(found: Mapping[str, Any]) -> list[Row]:
    """Each case beside what it is held to."""
    made = []
    done = {name: case for name, case in found.items() if case["completes"]}
    if case := done.get("store"):
        size = f"{case['n_rows']:,} × {case['dim']}, {case['n_files']} files"
        ratio = case["fetched"] / case["needed"]
        made.append(Row("S3 to S3", size, f"{case['fetched'] / 1e6:,.0f} MB fetched", "what must be read", ratio))
    if case := done.get("many files"):
        size = f"{case['n_files']:,} files of {case['rows_a_file']} rows"
        made.append(Row("many files", size, f"{case['seconds']:.3g} s", "one file", case["ratio"]))
    if case := done.get("workers that join"):
        size = f"{case['n_tasks']} tasks of {case['seconds']:g} s"
        made.append(Row("3 of 4 workers join", size, f"{case['seconds']:.3g} s", "4 from the start", case["ratio"]))
    if case := done.get("threads"):
        size = f"{case['n_rows']:,} × {case['dim']}"
        made.append(Row("1 worker of 2 threads", size, f"{case['seconds']:.3g} s", "2 workers of 1", case["ratio"]))
    return made
