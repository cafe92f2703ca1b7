"""A checked cluster, and driving tasks through it."""

from __future__ import annotations

import contextlib
import importlib.util
import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import distributed

from semdedup.arrays import Backend
from semdedup.compute.cluster import client_for
from semdedup.compute.exits import RUN_AGAIN, address_of, cluster_errors
from semdedup.compute.options import ClusterOptions
from semdedup.compute.preflight import check_backend, check_paths, check_versions, describe_process
from semdedup.compute.progress import Reporter
from semdedup.compute.tasks import Task, wait_for_running
from semdedup.compute.workers import Workers, run_on_workers
from semdedup.errors import ClusterError
from semdedup.storage.location import Location

SECONDS_TO_WAIT_FOR_WORKERS = 30
SECONDS_WITHOUT_WORKERS = 60.0
"""A run ends where there is no worker for so long. Workers that are started again take a few seconds."""
SECONDS_TO_WAIT_FOR_TASKS = 60.0
"""How long a run that fails waits for its tasks that are running."""
TASKS_PER_SLOT = 2
"""Tasks in flight for each thread of the workers: one that runs and one that waits, so that no thread idles."""
LEAST_IN_FLIGHT = 32
"""Tasks in flight on however few workers: an adaptive cluster starts more of them where it sees tasks wait."""

MIB = 1 << 20
MOST_OF_AN_ITEM = 300


def short_repr(item: Any) -> str:
    """What a task is at where its step has no better words for it."""
    text = repr(item)
    return text if len(text) <= MOST_OF_AN_ITEM else f"{text[:MOST_OF_AN_ITEM]}…"


@dataclass(frozen=True)
class Session:
    """A checked cluster, ready for work.

    Attributes:
        client: connection to it.
        backend: arrays that its workers compute with.
        reporter: where progress goes.
        workers: which workers there are at the moment.
        token: what tells this session from others, for names of files.
        check: raises where the work is not to go on; called while tasks are waited for.
    """

    client: distributed.Client
    backend: Backend
    reporter: Reporter
    workers: Workers
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    check: Callable[[], None] = lambda: None

    @property
    def n_slots(self) -> int:
        """Tasks that the workers run at the same time, by the workers that are there now."""
        return self.workers.n_threads()

    @property
    def task_memory(self) -> int:
        """Bytes that one task may use: the least memory of a worker that is there now over its threads."""
        return self.workers.task_memory()

    def run(
        self,
        name: str,
        function: Callable[..., Any],
        items: Sequence[Any],
        *,
        unit: str = "tasks",
        label: Callable[[Any], str] = short_repr,
    ) -> Iterator[tuple[int, Any]]:
        """Call ``function(item)`` on the workers, with a bounded number of tasks in flight, and show progress.

        Workers that join meanwhile get tasks as well. Where the block that takes the results is left early, or a task
        fails, no task of this run begins any more and those that are running have ended when this ends, or
        `SECONDS_TO_WAIT_FOR_TASKS` have passed: what they write to can be deleted. After Ctrl-C nothing is waited for.

        Args:
            name: name of the step.
            function: can be pickled.
            items: one for each task.
            unit: what the items are, for the progress.
            label: what an item is, for the error where the worker dies of it: a file, a video, a cluster.

        Yields:
            (position of the item, result) in the order in which the tasks end. Results are released at once, so that a
            worker that dies later costs nothing that was done before.

        Raises:
            SemdedupError: what a task raised, or `ClusterError` where workers or the scheduler died.
        """
        with self.reporter.step(name, len(items), unit) as advance:
            for position, result in self._drive(name, function, items, label):
                advance(1)
                yield position, result

    def _drive(
        self, name: str, function: Callable[..., Any], items: Sequence[Any], label: Callable[[Any], str]
    ) -> Iterator[tuple[int, Any]]:
        task = Task(uuid.uuid4().hex, function)
        prefix = f"semdedup-{name.replace(' ', '-')}-{self.token}-{task.run[:8]}-"
        remaining = iter(enumerate(items))
        positions: dict[distributed.Future, int] = {}
        completed = distributed.as_completed(loop=self.client.loop)

        def fill() -> None:
            wanted = max(LEAST_IN_FLIGHT, self.n_slots * TASKS_PER_SLOT) - len(positions)
            for position, item in itertools.islice(remaining, max(0, wanted)):
                future = self.client.submit(task, item, key=f"{prefix}{position}", pure=False)
                positions[future] = position
                completed.add(future)

        def describe(key: str) -> str | None:
            return label(items[int(key.removeprefix(prefix))]) if key.startswith(prefix) else None

        try:
            with cluster_errors(self.client, f"step '{name}'", describe):
                fill()
                while positions:
                    self.check()
                    for future in wait_for_some(completed, self.workers.seconds_between):
                        result = self.result_of(name, future)
                        position = positions.pop(future)
                        future.release()
                        fill()
                        yield position, result
                    fill()
                    self.require_workers(name)
        except (Exception, GeneratorExit):
            self._cancel(positions)
            wait_for_running(self.client, task.run, SECONDS_TO_WAIT_FOR_TASKS, self.reporter.say)
            raise
        finally:
            self._cancel(positions)

    def _cancel(self, futures: dict[distributed.Future, int]) -> None:
        if futures and self.client.status == "running":
            self.client.cancel(list(futures), force=True)
            futures.clear()

    def result_of(self, name: str, future: distributed.Future) -> Any:
        """The result of a task that has ended. It is computed again where the worker that holds it has died since."""
        while True:
            try:
                return future.result(timeout=SECONDS_WITHOUT_WORKERS)
            except TimeoutError:
                if future.status == "error":  # the task's own error
                    raise
                self.require_workers(name)

    def require_workers(self, name: str) -> None:
        """Raise `ClusterError` where there have been no workers for `SECONDS_WITHOUT_WORKERS`."""
        if self.workers.seconds_without() > SECONDS_WITHOUT_WORKERS:
            raise ClusterError(
                f"step '{name}': the scheduler at {address_of(self.client)} has had no workers for "
                f"{SECONDS_WITHOUT_WORKERS:.0f} s. Start some with `dask worker ADDRESS`. {RUN_AGAIN}"
            )


def wait_for_some(completed: distributed.as_completed, seconds: float) -> list[distributed.Future]:
    """Futures that are done; none where none is done after so many seconds."""
    deadline = time.monotonic() + seconds
    while not completed.has_ready() and time.monotonic() < deadline:
        with completed.thread_condition:
            completed.thread_condition.wait(0.1)  # as its own iterator does, which has no limit of time
    return completed.next_batch(block=False)


@contextlib.contextmanager
def open_session(
    client: distributed.Client | str | None,
    options: ClusterOptions,
    reporter: Reporter,
    reads: Sequence[Location] = (),
    writes: Sequence[Location] = (),
    may_go: bool = False,
) -> Iterator[Session]:
    """Find or start a cluster, check it, and give it as a `Session`. What was started here ends with the block.

    `reads`, `writes` and `may_go` are as for `check_paths`.

    Raises:
        ClusterError: the cluster cannot do the work; the message says which process and why.
    """
    with client_for(client, options) as found, cluster_errors(found, "the run"):
        session = check_cluster(found, options.backend, reporter)
        check_paths(found, reads, writes, may_go)
        yield session


def check_cluster(client: distributed.Client, backend: str, reporter: Reporter) -> Session:
    """Check versions and GPUs of a cluster and measure it. Raises `ClusterError` where it cannot do the work."""
    try:
        client.wait_for_workers(1, timeout=SECONDS_TO_WAIT_FOR_WORKERS)
    except TimeoutError as error:
        raise ClusterError(
            f"the scheduler at {address_of(client)} has no workers. Start some with `dask worker ADDRESS`."
        ) from error
    check_versions(client)
    arrays = check_backend(run_on_workers(client, describe_process), backend)
    session = Session(client, arrays, reporter, Workers(client))
    reporter.say(
        f"Dask: {len(client.nthreads())} workers, {session.n_slots} threads, "
        f"{session.task_memory / MIB:.0f} MiB a task, {arrays}; dashboard {dashboard_of(client)}"
    )
    return session


def dashboard_of(client: distributed.Client) -> str:
    """Where the dashboard of the cluster is, or what is missing for one here."""
    if importlib.util.find_spec("bokeh") is None and isinstance(client.cluster, distributed.LocalCluster):
        return "not shown: pip install 'semdedup[dashboard]'"
    return str(client.dashboard_link)
