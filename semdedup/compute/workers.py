"""Which workers a cluster has at the moment: they join and leave while a run goes on."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

import distributed

from semdedup.errors import ClusterError

SECONDS_FOR_SCHEDULER = 10
MEMORY_IF_UNLIMITED = 4 << 30


class Workers:
    """The workers that are there, asked of the scheduler at most once in `seconds_between`."""

    seconds_between = 1.0

    def __init__(self, client: distributed.Client) -> None:
        self._client = client
        self._n_threads = 1
        self._task_memory = 0
        self._asked = -self.seconds_between
        self._gone_since: float | None = None

    def n_threads(self) -> int:
        """Threads of all workers; those of the last workers seen where there are none at present."""
        self._ask()
        return self._n_threads

    def seconds_without(self) -> float:
        """For how long there has been no worker."""
        self._ask()
        return 0.0 if self._gone_since is None else time.monotonic() - self._gone_since

    def task_memory(self) -> int:
        """The least memory of a worker over its threads; of the last workers seen where there are none at present."""
        workers = self._client.scheduler_info(n_workers=-1)["workers"].values()
        found = [(worker["memory_limit"] or MEMORY_IF_UNLIMITED) // worker["nthreads"] for worker in workers]
        self._task_memory = min(found, default=self._task_memory)
        return self._task_memory

    def _ask(self) -> None:
        """Ask the scheduler. Where it does not answer nothing is known of the workers: the last answer counts."""
        if time.monotonic() - self._asked < self.seconds_between or self._client.status != "running":
            return
        with contextlib.suppress(OSError):
            n_threads = sum(self._client.nthreads(callback_timeout=SECONDS_FOR_SCHEDULER).values())
            self._asked = time.monotonic()
            if n_threads:
                self._n_threads, self._gone_since = n_threads, None
            elif self._gone_since is None:
                self._gone_since = self._asked


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
