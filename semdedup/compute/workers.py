"""Which workers a cluster has at the moment: they join and leave while a run goes on."""

from __future__ import annotations

import contextlib
import math
import socket
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any, NamedTuple

import distributed

from semdedup.arrays.devices import DeviceFacts, describe_device, memory_of_tasks
from semdedup.errors import ClusterError

SECONDS_FOR_SCHEDULER = 10
SECONDS_BETWEEN_LOOKS = 10.0
"""How often the scheduler is asked for all that it knows of its workers: a kilobyte each."""

MEMORY_IF_UNLIMITED = 4 << 30
ENOUGH_FOR_ANY_TASK = 4 << 30
"""No task is cut for more than that: workers that differ above it are alike."""

FEW_THREADS = 0.1
"""The part of all threads whose workers are passed over where they have the least memory."""

NEARLY = 0.9
"""Workers with that part of the memory that tasks were cut for take them: machines of one kind differ a little."""


LEAST_OF_DEVICE = 4 << 30
"""Bytes of a GPU that a task needs at least: products of 256 MiB, what is being decoded, and few rows."""


class WorkerFacts(NamedTuple):
    """What the scheduler says of a worker.

    Attributes:
        n_threads: tasks that it runs at the same time.
        memory: bytes for each of them.
        paused: whether it begins no more tasks, for it uses most of its memory.
    """

    n_threads: int
    memory: int
    paused: bool


def memory_of_most(workers: Iterable[WorkerFacts]) -> int:
    """The least memory of a thread, of those workers that have nearly all threads of a cluster; 0 where there are none.

    Workers with the least memory are passed over while they have less than `FEW_THREADS` of the threads: one small
    machine among many does not make all tasks small. It gets none of those that are cut for the others.

    >>> big, small = WorkerFacts(1, 8 << 30, False), WorkerFacts(1, 1 << 30, False)
    >>> memory_of_most([*[big] * 63, small]) >> 30, memory_of_most([*[big] * 3, small]) >> 30
    (8, 1)
    """
    ordered = sorted(workers, key=lambda worker: worker.memory)
    few = FEW_THREADS * sum(worker.n_threads for worker in ordered)
    n_threads = 0
    for worker in ordered:
        n_threads += worker.n_threads
        if n_threads >= few:
            return worker.memory
    return 0


def memory_of_thread(limit: int | None, n_threads: int) -> int:
    """Bytes for each thread of a worker; where it has no limit it counts as one of `MEMORY_IF_UNLIMITED`."""
    return (limit or MEMORY_IF_UNLIMITED) // n_threads


def has_enough(memory: int, task_memory: int) -> bool:
    """Whether a thread with so much memory runs tasks that were cut for `task_memory` bytes."""
    return memory >= NEARLY * min(task_memory, ENOUGH_FOR_ANY_TASK)


class Workers:
    """The workers that are there, asked of the scheduler at most once in `seconds_between`."""

    seconds_between = 1.0

    def __init__(self, client: distributed.Client) -> None:
        self._client = client
        self._n_threads = 1
        self._task_memory = 0
        self._asked = self._looked = -math.inf
        self._gone_since: float | None = None
        self._present: Collection[str] = ()
        self._facts: dict[str, WorkerFacts] = {}
        self._device_memory: int | None = None

    def n_threads(self) -> int:
        """Threads of all workers; those of the last workers seen where there are none at present."""
        self._ask()
        return self._n_threads

    def seconds_without(self) -> float:
        """For how long there has been no worker."""
        self._ask()
        return 0.0 if self._gone_since is None else time.monotonic() - self._gone_since

    def task_memory(self) -> int:
        """The memory of a thread, see `memory_of_most`; of the last workers seen where there are none at present."""
        self._look()
        self._task_memory = memory_of_most(self._facts.values()) or self._task_memory
        return self._task_memory

    def device_memory(self) -> int:
        """Bytes of a GPU that one task may use, as all workers had it when this was first asked.

        Raises:
            ClusterError: as `device_memory_of_tasks`.
        """
        if self._device_memory is None:
            self._device_memory = device_memory_of_tasks(self._client)
        return self._device_memory

    def facts(self) -> dict[str, WorkerFacts]:
        """What is known of each worker that is there, by address; at most `SECONDS_BETWEEN_LOOKS` old."""
        self._ask()
        if self._present - self._facts.keys() or time.monotonic() - self._looked >= SECONDS_BETWEEN_LOOKS:
            self._look()
        return {address: found for address, found in self._facts.items() if address in self._present}

    def ask_again(self) -> None:
        """Ask the scheduler when next something is wanted to be known, for workers have joined or left."""
        self._asked = -math.inf

    def _look(self) -> None:
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        self._looked = time.monotonic()
        self._facts = {address: _facts_of(worker) for address, worker in workers.items()}

    def _ask(self) -> None:
        """Ask the scheduler. Where it does not answer nothing is known of the workers: the last answer counts."""
        if time.monotonic() - self._asked < self.seconds_between or self._client.status != "running":
            return
        with contextlib.suppress(OSError):
            n_threads = self._client.nthreads(callback_timeout=SECONDS_FOR_SCHEDULER)
            self._asked, self._present = time.monotonic(), n_threads.keys()
            if n_threads:
                self._n_threads, self._gone_since = sum(n_threads.values()), None
            elif self._gone_since is None:
                self._gone_since = self._asked


def _facts_of(worker: dict[str, Any]) -> WorkerFacts:
    n_threads = worker["nthreads"]
    return WorkerFacts(n_threads, memory_of_thread(worker["memory_limit"], n_threads), worker["status"] == "paused")


def worker_addresses(client: distributed.Client) -> list[str]:
    """Addresses of the workers that are there now."""
    return sorted(client.scheduler_info(n_workers=-1)["workers"])


def run_on_workers(client: distributed.Client, function: Callable[..., Any], *args: Any) -> dict[str, Any]:
    """Call a function on every worker: its result by address. Workers that leave meanwhile are left out.

    Raises:
        ClusterError: no worker answered.
        Exception: what the function raised, but for an `OSError`: that is how a worker that left is seen.
    """
    answers = client.run(function, *args, on_error="return")
    for answer in answers.values():
        if isinstance(answer, Exception) and not isinstance(answer, OSError):
            raise answer
    found = {address: answer for address, answer in answers.items() if not isinstance(answer, Exception)}
    if not found:
        raise ClusterError("no worker of the cluster answered: all have left. Start some and run the command again.")
    return found


def _device_here() -> tuple[str, DeviceFacts]:
    return socket.gethostname(), describe_device()


def device_memory_of_tasks(client: distributed.Client) -> int:
    """Bytes of a GPU that each task may use, the least of all workers; workers that share a card share its memory.

    Raises:
        ClusterError: a card has no memory left.
    """
    found = run_on_workers(client, _device_here)
    memory = memory_of_tasks(found, client.nthreads())
    if memory < LEAST_OF_DEVICE:
        cards = "\n".join(
            f"  {address}: {device.memory / 2**20:.0f} MiB free on {device.card}"
            for address, (_, device) in list(found.items())[:10]
        )
        raise ClusterError(
            f"a task has {memory / 2**20:.0f} MiB of GPU memory and needs {LEAST_OF_DEVICE / 2**20:.0f} MiB:\n{cards}\n"
            "End what else uses the GPU, start one worker a GPU (dask cuda worker), or take --backend cpu."
        )
    return memory
