"""Why workers end: what the logs of their nannies say of it, and the errors that a user reads."""

from __future__ import annotations

import contextlib
import re
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import distributed
from distributed.scheduler import KilledWorker, WorkerState

from semdedup.errors import ClusterError

SECONDS_FOR_LOGS = 10.0
"""A nanny is asked through its worker, which it has to start again first."""

RUN_AGAIN = "Run the same command again: it goes on where it stopped."


def address_of(client: distributed.Client) -> str:
    """Address of the scheduler, for messages."""
    return str(client.scheduler.address) if client.scheduler else "?"


@contextlib.contextmanager
def cluster_errors(
    client: distributed.Client, what: str, describe: Callable[[str], str | None] = lambda key: None
) -> Iterator[None]:
    """Turn the death of workers and of the scheduler into a `ClusterError` that says what to do.

    Args:
        what: what is being done, for the message.
        describe: what the task with this key is at: a file, a video, a cluster; None where the key is not known.
    """
    try:
        yield
    except KilledWorker as error:
        raise ClusterError(_killed_message(client, what, error, describe)) from error
    except (distributed.client.FutureCancelledError, distributed.comm.CommClosedError) as error:
        raise ClusterError(
            f"{what}: the scheduler at {address_of(client)} was lost or forgot the tasks. {RUN_AGAIN}"
        ) from error


def _killed_message(
    client: distributed.Client, what: str, error: KilledWorker, describe: Callable[[str], str | None]
) -> str:
    worker = error.last_worker
    keys = _keys_at_death(client, error)
    described = [text for key in keys if (text := describe(key)) is not None][: worker.nthreads]
    at = {0: "", 1: f" It was at {''.join(described)}."}.get(
        len(described), " The worker was at one of these:\n" + "".join(f"  {text}\n" for text in described)
    )
    ending, for_memory = _exit_of(client, worker)
    if for_memory:
        advice = "Give the workers more memory (--memory-limit) or fewer threads."
    else:
        advice = (
            "Look at that input: damaged data can make a library crash. Where it is sound, look at the worker's log."
        )
    return (
        f"{what}: a task ended the process of its worker {error.allowed_failures + 1} times.{at}\n"
        f"Worker {worker.address}: {ending}.\n{advice} {RUN_AGAIN}"
    )


def _keys_at_death(client: distributed.Client, error: KilledWorker) -> list[str]:
    """Keys of the tasks that were on the worker each time that it died, in the order in which they were submitted.

    Dask puts the death down to every task that was given to the worker, also to those that had not begun, or had ended
    and not been reported. Tasks begin in the order of their submission, so those that ran are the first, one a thread.
    """
    task = str(error.task)
    with contextlib.suppress(OSError):
        events = (event for _, event in client.get_events("all") if isinstance(event, Mapping))
        deaths = (event for event in events if event.get("action") == "remove-worker")
        all_keys = (set(map(str, event["processing-tasks"])) for event in deaths)
        if each := [keys for keys in all_keys if task in keys]:
            return sorted(set.intersection(*each), key=_in_natural_order)
    return [task]


def _in_natural_order(key: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", key)]


def _exit_of(client: distributed.Client, worker: WorkerState) -> tuple[str, bool]:
    """How the process of a worker ended, in words, and whether that was for want of memory. Only what is on record."""
    with contextlib.suppress(OSError):
        for _, event in client.get_events("worker-restart-memory"):
            if event.get("pid") == worker.pid and event.get("worker") == worker.address:
                limit = f" of {worker.memory_limit / 2**20:,.0f} MiB" if worker.memory_limit else ""
                return (
                    f"its process {worker.pid} used {event['rss'] / 2**20:,.0f} MiB, more than its memory limit{limit} "
                    "allows, and was ended by Dask",
                    True,
                )
        deadline = time.monotonic() + SECONDS_FOR_LOGS
        while worker.nanny and client.status == "running" and time.monotonic() < deadline:
            if found := exit_in_log(worker.pid, _lines_of_nanny(client, worker.nanny)):
                return found, False
            time.sleep(0.2)
    return f"how its process {worker.pid} ended is not in the logs that Dask keeps", False


def _lines_of_nanny(client: distributed.Client, nanny: str) -> list[str]:
    workers = client.scheduler_info(n_workers=-1)["workers"]
    asked = [address for address, facts in workers.items() if facts["nanny"] == nanny]
    logs: dict[str, Any] = client.get_worker_logs(workers=asked, nanny=True) if asked else {}
    return [str(entry[1]) for entries in logs.values() if isinstance(entries, Iterable) for entry in entries]


def exit_in_log(pid: int, lines: Iterable[str]) -> str | None:
    """What the log of a nanny says of the end of a process, in words.

    >>> exit_in_log(7, ["distributed.nanny - INFO - Worker process 7 was killed by signal 6"])
    'its process 7 was ended by signal 6 (SIGABRT)'
    """
    for line in lines:
        if found := re.search(rf"Worker process {pid} (was killed by signal (\d+)|exited with status (\d+))", line):
            _, number, status = found.groups()
            if status:
                return f"its process {pid} ended with exit code {status}"
            name = next((s.name for s in signal.Signals if s == int(number)), "unknown")
            hint = "; if the system ran out of memory, its log (dmesg) says so" if name == "SIGKILL" else ""
            return f"its process {pid} was ended by signal {number} ({name}){hint}"
    return None
