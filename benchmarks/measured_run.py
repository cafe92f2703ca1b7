"""One dedup on processes of their own, and what it took: tasks, bytes, memory of client, scheduler and each worker.

A cluster that is started in a program shares the process of its scheduler with the client. Here all are apart, so that
each has a peak of its own.
"""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import distributed
import psutil

from benchmarks.counting import TaskCount, begin_peak, bytes_moved, counted_tasks, peak
from semdedup import SemanticDeduplicationWorkflow

ROOT = Path(__file__).parent.parent
SECONDS_TO_START = 60


class RunFailedError(Exception):
    """A run did not end: a worker died, or the workflow raised an error."""


@contextlib.contextmanager
def processes(folder: Path, n_workers: int, n_threads: int, memory: str) -> Iterator[str]:
    """A scheduler and workers as processes of their own; gives the scheduler's file."""
    file = folder / "scheduler.json"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    started: list[subprocess.Popen] = []

    def start(program: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"distributed.cli.{program}", *arguments, "--host", "127.0.0.1"]
        with open(folder / f"{program}.log", "a") as log:
            started.append(subprocess.Popen(command, stdout=log, stderr=log, env=environment, cwd=folder))

    try:
        start("dask_scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file))
        deadline = time.monotonic() + SECONDS_TO_START
        while not file.exists():
            if time.monotonic() > deadline:
                raise RunFailedError(f"no scheduler after {SECONDS_TO_START} s; see {folder}")
            time.sleep(0.02)
        workers = ("--nworkers", str(n_workers), "--nthreads", str(n_threads), "--memory-limit", memory)
        start("dask_worker", "--scheduler-file", str(file), *workers, "--no-dashboard")
        yield str(file)
    finally:
        for process in reversed(started):
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """End a process and those that it started."""
    below = []
    with contextlib.suppress(psutil.NoSuchProcess):
        below = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(10)
    for one in below:
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.kill()
    process.wait()


def run_here(scheduler_file: str, n_workers: int, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Run the workflow from this process on a cluster; gives what `measured_run` does."""
    with distributed.Client(scheduler_file=scheduler_file, set_as_default=False) as client:
        client.wait_for_workers(n_workers, timeout=SECONDS_TO_START)
        client.register_plugin(TaskCount())
        client.run(_import_all)
        base = {"client": begin_peak(), "scheduler": client.run_on_scheduler(begin_peak)}
        base["workers"] = list(client.run(begin_peak).values())
        pids, moved = client.run(os.getpid), client.run(bytes_moved)
        result = SemanticDeduplicationWorkflow(**parameters).run(client)
        if client.run(os.getpid) != pids:
            raise RunFailedError("a worker died, most likely for want of memory, and was started again")
        tasks, most_held = client.run_on_scheduler(counted_tasks)
        now = client.run(bytes_moved)
        peaks = {"client": peak(), "scheduler": client.run_on_scheduler(peak)}
        peaks["workers"] = list(client.run(peak).values())
    return {
        "rows": result.total,
        "duplicates": result.duplicates,
        "n_clusters": result.metadata["n_clusters"],
        "iterations": result.metadata["iterations"],
        "seconds": result.metadata["total_time"],
        "steps": dict(result.metadata["step_seconds"]),
        "tasks": tasks,
        "tasks_held": most_held,
        "base": base,
        "peak": peaks,
        "read": sum(now[at][0] - moved[at][0] for at in now),
        "written": sum(now[at][1] - moved[at][1] for at in now),
    }


def _import_all() -> None:
    """Import on a worker what tasks need, so that it counts as the process and not as their memory."""
    import semdedup.dedup.workflow  # noqa: F401


def measured_run(
    parameters: Mapping[str, Any], n_workers: int = 2, n_threads: int = 1, memory: str = "2GiB"
) -> dict[str, Any]:
    """Run the workflow with these parameters, its client in a process of its own as well.

    Returns:
        ``rows``, ``duplicates``, ``n_clusters``, ``iterations``; ``seconds``, and by step ``steps``; ``tasks`` by step,
        and ``tasks_held``, the most that the scheduler knew at a time; of ``client``, ``scheduler`` and ``workers`` the
        bytes of memory before the run, ``base``, and at most, ``peak``; bytes that workers ``read`` from local files
        and ``written`` to them.

    Raises:
        RunFailedError: with the end of what the run said.
    """
    with tempfile.TemporaryDirectory(prefix="semdedup-benchmark-") as name:
        with processes(Path(name), n_workers, n_threads, memory) as file:
            given = json.dumps({"scheduler_file": file, "n_workers": n_workers, "parameters": dict(parameters)})
            command = [sys.executable, "-m", "benchmarks.measured_run"]
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            stderr = None if parameters.get("verbose") else subprocess.PIPE
            done = subprocess.run(
                command, input=given, stdout=subprocess.PIPE, stderr=stderr, text=True, env=environment, check=False
            )
        if done.returncode:
            raise RunFailedError((done.stderr or "see above").strip()[-2000:])
        return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    print(json.dumps(run_here(**json.load(sys.stdin))))
