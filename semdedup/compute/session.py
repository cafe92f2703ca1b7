"""A checked cluster, and driving tasks through it."""

from __future__ import annotations

import contextlib
import importlib.util
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import distributed

from semdedup.arrays import Backend
from semdedup.compute.cluster import client_for
from semdedup.compute.exits import RUN_AGAIN, address_of, cluster_errors
from semdedup.compute.in_flight import InFlight
from semdedup.compute.interrupts import within
from semdedup.compute.options import ClusterOptions
from semdedup.compute.preflight import check_backend, check_paths, check_versions, describe_process
from semdedup.compute.progress import Reporter
from semdedup.compute.tasks import Failed, Task, TooSmall, wait_for_running
from semdedup.compute.workers import Workers, run_on_workers
from semdedup.errors import ClusterError
from semdedup.extras import pip_install
from semdedup.storage.location import Location

SECONDS_TO_WAIT_FOR_WORKERS = 30
SECONDS_WITHOUT_WORKERS = 60.0
"""A run ends where there is no worker for so long. Workers that are started again take a few seconds."""
SECONDS_TO_WAIT_FOR_TASKS = 60.0
"""How long a run that fails waits for its tasks that are running."""
SECONDS_TO_CANCEL = 0.5
"""How long a run that was interrupted waits for the scheduler to hear that nothing is wanted any more."""
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
        interrupted: set by Ctrl-C: after that nothing is waited for.
        planned: what `task_memory` was when it was asked, for this step: tasks are cut for that.
    """

    client: distributed.Client
    backend: Backend
    reporter: Reporter
    workers: Workers
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    check: Callable[[], None] = lambda: None
    interrupted: threading.Event = field(default_factory=threading.Event)
    planned: list[int] = field(default_factory=list, init=False, compare=False)

    @property
    def n_slots(self) -> int:
        """Tasks that the workers run at the same time, by the workers that are there now."""
        return self.workers.n_threads()

    @property
    def task_memory(self) -> int:
        """Bytes that one task may use, see `memory_of_most`; of the GPU where it has less. Who asks cuts tasks for it,
        so `run` keeps to it."""
        self.planned.append(self.workers.task_memory())
        on_host = self.planned[-1]
        return on_host if self.device_memory is None else min(on_host, self.device_memory)

    @property
    def device_memory(self) -> int | None:
        """Bytes of a GPU that one task may use, see `Workers.device_memory`; None on the CPU."""
        return None if self.backend == "cpu" else self.workers.device_memory()

    def run(
        self,
        name: str,
        function: Callable[..., Any],
        items: Sequence[Any],
        *,
        unit: str = "tasks",
        label: Callable[[Any], str] = short_repr,
        task_memory: int | None = None,
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
            task_memory: bytes that the items were cut for: workers with less a thread get none, whenever they join.
                None: the most that the `task_memory` of this session has been; 0: any worker will do.

        Yields:
            (position of the item, result) in the order in which the tasks end. Results are released at once, so that a
            worker that dies later costs nothing that was done before.

        Raises:
            SemdedupError: what a task raised, or `ClusterError` where workers or the scheduler died.
        """
        with self.reporter.step(name, len(items), unit) as advance:
            needed = max(self.planned, default=0) if task_memory is None else task_memory
            for position, result in self._drive(name, Task(uuid.uuid4().hex, function, needed), items, label):
                advance(1)
                yield position, result

    def _drive(
        self, name: str, task: Task, items: Sequence[Any], label: Callable[[Any], str]
    ) -> Iterator[tuple[int, Any]]:
        prefix = f"semdedup-{name.replace(' ', '-')}-{self.token}-{task.run[:8]}-"
        flying = InFlight(self.client, self.workers, task, items, prefix, self.reporter.say)

        def describe(key: str) -> str | None:
            position = flying.position_of(key)
            return None if position is None else label(items[position])

        with self.giving_up(task, flying.cancel), cluster_errors(self.client, f"step '{name}'", describe):
            flying.fill()
            while not flying.is_over:
                self.check()
                for position, future in flying.ended(self.workers.seconds_between):
                    result = self.result_of(name, future)
                    flying.forget(future)
                    if isinstance(result, TooSmall):
                        flying.again(position)
                    flying.fill()
                    if not isinstance(result, TooSmall):
                        yield position, result
                flying.fill()
                self.require_workers(name)

    @contextlib.contextmanager
    def giving_up(self, task: Task, cancel: Callable[[], None]) -> Iterator[None]:
        """Where the block fails or is left early, `cancel` what has not ended, and wait for what is running.

        After Ctrl-C nothing is waited for, not even a scheduler that does not answer.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted.set()
            raise
        except (Exception, GeneratorExit):
            if not self.interrupted.is_set():  # or a generator is only thrown away, when all is over
                cancel()
                wait_for_running(self.client, task.run, SECONDS_TO_WAIT_FOR_TASKS, self.reporter.say)
            raise
        finally:
            within(SECONDS_TO_CANCEL, cancel)

    def result_of(self, name: str, future: distributed.Future) -> Any:
        """The result of a task that has ended, or what it raised.

        It is computed again where the worker that holds it has died since.
        """
        while True:
            try:
                found = future.result(timeout=SECONDS_WITHOUT_WORKERS)
            except TimeoutError:
                if future.status == "error":  # the task's own error
                    raise
                self.require_workers(name)
            else:
                if isinstance(found, Failed):
                    raise found.error
                return found

    def require_workers(self, name: str) -> None:
        """Raise `ClusterError` where there have been no workers for `SECONDS_WITHOUT_WORKERS`."""
        if self.workers.seconds_without() > SECONDS_WITHOUT_WORKERS:
            raise ClusterError(
                f"step '{name}': the scheduler at {address_of(self.client)} has had no workers for "
                f"{SECONDS_WITHOUT_WORKERS:.0f} s. Start some with `dask worker ADDRESS`. {RUN_AGAIN}"
            )


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
    with client_for(client, options, reporter) as found, cluster_errors(found, "the run"):
        session = check_cluster(found, options.backend, reporter)
        with reporter.doing("checking whether the workers see the paths"):
            check_paths(found, reads, writes, may_go)
        try:
            yield session
        except KeyboardInterrupt:
            session.interrupted.set()
            raise


def check_cluster(client: distributed.Client, backend: str, reporter: Reporter) -> Session:
    """Check versions and GPUs of a cluster and measure it. Raises `ClusterError` where it cannot do the work."""
    try:
        with reporter.doing(f"waiting for workers of {address_of(client)}", is_announced=not client.nthreads()):
            client.wait_for_workers(1, timeout=SECONDS_TO_WAIT_FOR_WORKERS)
    except TimeoutError as error:
        raise ClusterError(
            f"the scheduler at {address_of(client)} has no workers. Start some with `dask worker ADDRESS`."
        ) from error
    with reporter.doing("checking the workers"):
        check_versions(client)
        arrays = check_backend(run_on_workers(client, describe_process), backend)
    session = Session(client, arrays, reporter, Workers(client))
    reporter.say_once(
        f"Dask: {len(client.nthreads())} workers, {session.n_slots} threads, "
        f"{session.workers.task_memory() / MIB:.0f} MiB a task, {arrays}; dashboard {dashboard_of(client)}"
    )
    return session


def dashboard_of(client: distributed.Client) -> str:
    """Where the dashboard of the cluster is, or what is missing for one here."""
    if importlib.util.find_spec("bokeh") is None and isinstance(client.cluster, distributed.LocalCluster):
        return f"not shown: {pip_install('dashboard')}"
    return str(client.dashboard_link)
