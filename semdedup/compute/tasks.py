"""What surrounds a task on a worker: it is counted while it runs, so that a run that fails can wait for its end."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import distributed

from semdedup.compute.allocator import keeping_freed_memory
from semdedup.compute.workers import has_enough, memory_of_thread
from semdedup.errors import SemdedupError
from semdedup.storage.faults import with_retries

_lock = threading.Lock()
_running: Counter[str] = Counter()
"""How many tasks of each run this process is at."""
_ended: set[str] = set()
"""Runs that failed. A task of theirs that arrives late does nothing: its driver may have deleted what it writes to."""


@dataclass(frozen=True)
class TooSmall:
    """What a task gives back on a worker that has less memory than it was cut for."""


@dataclass(frozen=True)
class Failed:
    """What a task gives back in place of raising an error that has a clear sentence: Dask would print it, too, with its
    traceback, once for each worker that it happens on."""

    error: SemdedupError


def memory_here() -> int:
    """Bytes of memory for each thread of the worker that this is called on."""
    worker = distributed.get_worker()
    return memory_of_thread(worker.memory_manager.memory_limit, worker.state.nthreads)


@dataclass(frozen=True)
class Task:
    """A function as the workers call it. The one place on a worker where the function of a task is called.

    Attributes:
        run: what the tasks of one `Session.run` have in common.
        function: called with one item.
        task_memory: bytes that the tasks were cut for; 0: any worker runs them.
    """

    run: str
    function: Callable[[Any], Any]
    task_memory: int = 0

    def __call__(self, item: Any) -> Any:
        """Call the function, unless the run has failed meanwhile; again where a fault of storage may pass.

        Where this worker has too little memory nothing is done, and `TooSmall` is given back; where the function raises
        an error of ours, `Failed`.
        """
        if self.task_memory and not has_enough(memory_here(), self.task_memory):
            return TooSmall()
        with _lock:
            if self.run in _ended:
                return None
            _running[self.run] += 1
        try:
            with keeping_freed_memory():
                return with_retries(lambda: self.function(item))
        except SemdedupError as error:
            return Failed(error)
        finally:
            with _lock:
                _running[self.run] -= 1
                if not _running[self.run]:
                    del _running[self.run]


def end_run(run: str) -> int:
    """On a worker: begin no more tasks of this run. Return how many are still running."""
    with _lock:
        _ended.add(run)
        return _running[run]


def wait_for_running(client: distributed.Client, run: str, seconds: float, say: Callable[[str], None]) -> None:
    """Return when no worker is at a task of this run any more, at the latest after so many seconds.

    Tasks that wait on a worker are not begun. Workers that are gone do not count.
    """
    deadline, pause = time.monotonic() + seconds, 0.02
    while client.status == "running" and (left := deadline - time.monotonic()) > 0:
        with contextlib.suppress(OSError):  # no answer in time, or the scheduler is gone: the status says so
            if not sum(client.run(end_run, run, on_error="ignore", callback_timeout=left).values()):
                return
        if pause < 1 <= pause * 2:
            say("waiting for tasks that are still running")
        time.sleep(min(pause, 1))
        pause *= 2
