"""The tasks of a run that are with the cluster: a bounded number, on workers that have the memory for them."""

from __future__ import annotations

import itertools
import math
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import distributed

from semdedup.compute.exits import RUN_AGAIN
from semdedup.compute.tasks import Task
from semdedup.compute.workers import SECONDS_BETWEEN_LOOKS, WorkerFacts, Workers, has_enough
from semdedup.errors import ClusterError

TASKS_PER_SLOT = 2
"""Tasks in flight for each thread of the workers: one that runs and one that waits, so that no thread idles."""
LEAST_IN_FLIGHT = 32
"""Tasks in flight on however few workers: an adaptive cluster starts more of them where it sees tasks wait."""
SECONDS_WITHOUT_MEMORY = 60.0
"""A run ends where for so long there is no worker that has the memory for its tasks."""
MOST_MOVES = 3
"""How often a task is submitted again because the workers that had the memory for it are gone: it may have killed them.
"""

MIB = 1 << 20


class InFlight:
    """Tasks that were submitted and have not ended.

    Where some workers have less memory a thread than the task was cut for, tasks are submitted for the others alone.
    What was submitted before a small worker joined is refused there (`TooSmall`), and submitted once more. Dask lets a
    task wait for ever where the workers that it was submitted for are gone: it is submitted again for those that came.

    Args:
        client: connection to the cluster.
        workers: which there are.
        task: what is called, with each of the items.
        items: what it is called with.
        prefix: of the keys of the tasks; the position of the item follows, and how often it was submitted before.
        say: takes a line for the user.
    """

    def __init__(
        self,
        client: distributed.Client,
        workers: Workers,
        task: Task,
        items: Sequence[Any],
        prefix: str,
        say: Callable[[str], None],
    ) -> None:
        self._client, self._workers, self._task = client, workers, task
        self._items, self._prefix, self._say = items, prefix, say
        self._rest, self._n_rest = iter(enumerate(items)), len(items)
        self._again: list[int] = []
        self._submitted, self._moved = Counter[int](), Counter[int]()
        self._completed = distributed.as_completed(loop=client.loop)
        self._positions: dict[distributed.Future, int] = {}
        self._allowed: dict[distributed.Future, Collection[str]] = {}
        self._present, self._too_small = set[str](), set[str]()
        self._last, self._none_since = time.monotonic(), math.inf

    @property
    def is_over(self) -> bool:
        """Whether all have ended and none is left to be submitted."""
        return not (self._positions or self._again or self._n_rest)

    def position_of(self, key: str) -> int | None:
        """The position of the item that a task of this key has; None where it is none of these tasks."""
        return int(key.removeprefix(self._prefix).partition("-")[0]) if key.startswith(self._prefix) else None

    def fill(self) -> None:
        """Submit tasks, as many as the workers that are there now can be at, and some that wait.

        Raises:
            ClusterError: there has been no worker that has the memory for them for `SECONDS_WITHOUT_MEMORY`.
        """
        wanted = max(LEAST_IN_FLIGHT, self._workers.n_threads() * TASKS_PER_SLOT) - len(self._positions)
        allowed = self._suitable() if self._task.task_memory else None
        for position, item in itertools.islice(self._next(), max(0, wanted) if allowed != [] else 0):
            self._submitted[position] += 1
            key = f"{self._prefix}{position}-{self._submitted[position]}"
            future = self._client.submit(self._task, item, key=key, pure=False, workers=allowed)
            self._positions[future] = position
            self._completed.add(future)
            if allowed is not None:
                self._allowed[future] = allowed

    def _next(self) -> Iterator[tuple[int, Any]]:
        while self._again:
            position = self._again.pop()
            yield position, self._items[position]
        for position, item in self._rest:
            self._n_rest -= 1
            yield position, item

    def ended(self, seconds: float) -> Iterator[tuple[int, distributed.Future]]:
        """Positions and futures of tasks that have ended; none where none has within so many seconds."""
        found = wait_for_some(self._completed, seconds)
        if found:
            self._last = time.monotonic()
        elif time.monotonic() - self._last > SECONDS_BETWEEN_LOOKS:
            self._tell_where_all_are_paused()
            self._last = time.monotonic()
        for future in found:
            if future in self._positions:  # not one that was taken back
                yield self._positions[future], future

    def forget(self, future: distributed.Future) -> None:
        """Release a task whose result was taken."""
        self._positions.pop(future)
        self._allowed.pop(future, None)
        future.release()

    def again(self, position: int) -> None:
        """Submit a task once more, which a worker that is too small has refused: it has only just joined."""
        self._workers.ask_again()
        self._again.append(position)

    def cancel(self) -> None:
        """Give up what has not ended."""
        if self._positions and self._client.status == "running":
            self._client.cancel(list(self._positions), force=True)
            self._positions.clear()

    def _suitable(self) -> list[str] | None:
        """Addresses of the workers with enough memory; None where all have."""
        facts = self._workers.facts()
        small = [address for address, found in facts.items() if not has_enough(found.memory, self._task.task_memory)]
        if facts and self._present != facts.keys():
            self._present = set(facts)
            self._take_back()
        if facts and not small:
            self._none_since = math.inf
            return None
        allowed = sorted(facts.keys() - {*small})
        if allowed and {*small} - self._too_small:
            self._say(
                f"{len(small)} of {len(facts)} workers have less memory than the {self._wanted} that tasks were cut "
                f"for, and get none of them: {', '.join(sorted(small)[:3])}"
            )
        self._too_small |= {*small}
        self._check_wait(facts, allowed)
        return allowed

    @property
    def _wanted(self) -> str:
        return f"{self._task.task_memory / MIB:,.0f} MiB a thread"

    def _check_wait(self, facts: Mapping[str, WorkerFacts], allowed: Collection[str]) -> None:
        if allowed or not facts:  # without any worker the run ends for that
            self._none_since = math.inf
            return
        self._none_since = min(self._none_since, time.monotonic())
        if time.monotonic() - self._none_since > SECONDS_WITHOUT_MEMORY:
            most = max(found.memory for found in facts.values())
            raise ClusterError(
                f"tasks were cut for workers with {self._wanted}, and for {SECONDS_WITHOUT_MEMORY:.0f} s there has "
                f"been none: the {len(facts)} that are there have {most / MIB:,.0f} MiB or less. Start such workers, "
                f"or give these more memory (--memory-limit) or fewer threads. {RUN_AGAIN}"
            )

    def _take_back(self) -> None:
        """Submit tasks again whose workers are all gone."""
        gone = [
            future
            for future, allowed in self._allowed.items()
            if not future.done() and self._present.isdisjoint(allowed)
        ]
        for future in gone:
            self._allowed.pop(future)
            position = self._positions.pop(future)
            self._again.append(position)
            self._moved[position] += 1
            if self._moved[position] > MOST_MOVES:
                raise ClusterError(
                    f"the workers with the memory that tasks were cut for, {self._wanted}, went {MOST_MOVES} times "
                    f"while they were at one of them. Look at their logs. {RUN_AGAIN}"
                )
        if gone:
            self._client.cancel(gone, force=True)

    def _tell_where_all_are_paused(self) -> None:
        """A worker that uses most of its memory begins no task: where that holds for all, nothing goes on."""
        facts = self._workers.facts()
        if facts and all(found.paused for found in facts.values()):
            self._say(
                f"all {len(facts)} workers are paused: each uses so much of its memory that Dask begins no more tasks "
                "on it (distributed.worker.memory.pause). The run goes on when that falls; where it does not, give the "
                "workers more memory (--memory-limit) or fewer threads, and run the same command again."
            )


def wait_for_some(completed: distributed.as_completed, seconds: float) -> list[distributed.Future]:
    """Futures that are done; none where none is done after so many seconds."""
    deadline = time.monotonic() + seconds
    while not completed.has_ready() and time.monotonic() < deadline:
        with completed.thread_condition:
            completed.thread_condition.wait(0.1)  # as its own iterator does, which has no limit of time
    return completed.next_batch(block=False)
