"""The Dask cluster that does the work: finding or starting one, and driving tasks through it."""

from __future__ import annotations

import contextlib
import importlib.util
import multiprocessing
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dask
import dask.utils
import distributed
from distributed.scheduler import KilledWorker

from semdedup.arrays import Backend, gpu_count, gpu_usable, missing_gpu_packages
from semdedup.choices import BackendChoice
from semdedup.compute.preflight import check_backend, check_paths, check_versions, describe_process
from semdedup.compute.progress import Reporter
from semdedup.errors import ClusterError, ParameterError
from semdedup.storage.location import Location

SECONDS_TO_WAIT_FOR_SCHEDULER = 15
SECONDS_TO_WAIT_FOR_WORKERS = 30
TASKS_PER_SLOT = 2
"""Tasks in flight for each thread of the workers: one that runs and one that waits, so that no thread idles."""

MIB = 1 << 20
MEMORY_IF_UNLIMITED = 4096 * MIB


@dataclass(frozen=True)
class ClusterOptions:
    """Which cluster to work on, or how to start one.

    Attributes:
        scheduler: address of a running scheduler, ``tcp://host:8786``.
        scheduler_file: path of the JSON file that a running scheduler wrote.
        n_workers: workers of a cluster started here; one a core, or one a GPU, where not given.
        threads_per_worker: threads of each worker started here.
        memory_limit: memory of each worker started here, as Dask understands it: ``2GiB``, ``auto``.
        backend: ``auto`` takes GPUs where every worker has one.
    """

    scheduler: str | None = None
    scheduler_file: str | None = None
    n_workers: int | None = None
    threads_per_worker: int = 1
    memory_limit: str = "auto"
    backend: BackendChoice = "auto"

    def __post_init__(self) -> None:
        if self.backend not in ("auto", "cpu", "gpu"):
            raise ParameterError(f"backend must be auto, cpu or gpu; got {self.backend!r}")
        if self.scheduler and self.scheduler_file:
            raise ParameterError("give a scheduler address or a scheduler file, not both")
        for name, value in (("n_workers", self.n_workers), ("threads_per_worker", self.threads_per_worker)):
            if value is not None and value < 1:
                raise ParameterError(f"{name} must be at least 1, got {value}")
        try:
            dask.utils.parse_bytes(0 if self.memory_limit in ("auto", None) else self.memory_limit)
        except (ValueError, TypeError) as error:
            raise ParameterError(f"memory_limit must be like 2GiB, or auto; got {self.memory_limit!r}") from error


@dataclass(frozen=True)
class Session:
    """A checked cluster, ready for work.

    Attributes:
        client: connection to it.
        backend: arrays that its workers compute with.
        n_slots: tasks that it runs at the same time.
        task_memory: bytes that one of these tasks may use: the least memory of a worker over its threads.
        reporter: where progress goes.
    """

    client: distributed.Client
    backend: Backend
    n_slots: int
    task_memory: int
    reporter: Reporter
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:8])

    def run(
        self, name: str, function: Callable[..., Any], items: Sequence[Any], *, unit: str = "tasks"
    ) -> Iterator[tuple[int, Any]]:
        """Call ``function(item)`` on the workers, with a bounded number of tasks in flight, and show progress.

        Yields:
            (position of the item, result) in the order in which the tasks end. Results are released at once, so that a
            worker that dies later costs nothing that was done before.

        Raises:
            SemdedupError: what a task raised, or `ClusterError` where workers or the scheduler died.
        """
        with self.reporter.step(name, len(items), unit) as advance:
            for position, result in self._drive(name, function, items):
                advance(1)
                yield position, result

    def _drive(self, name: str, function: Callable[..., Any], items: Sequence[Any]) -> Iterator[tuple[int, Any]]:
        remaining = iter(enumerate(items))
        positions: dict[distributed.Future, int] = {}
        run = uuid.uuid4().hex[:8]
        key = f"semdedup-{name.replace(' ', '-')}-{self.token}-{run}"

        completed = distributed.as_completed(loop=self.client.loop)

        def submit_next() -> None:
            position, item = next(remaining, (-1, None))
            if position >= 0:
                future = self.client.submit(function, item, key=f"{key}-{position}", pure=False)
                positions[future] = position
                completed.add(future)

        for _ in range(self.n_slots * TASKS_PER_SLOT):
            submit_next()
        try:
            with _cluster_errors(self.client, f"step '{name}'"):
                for future in completed:
                    result = future.result()
                    position = positions.pop(future)
                    future.release()
                    submit_next()
                    yield position, result
        finally:
            if positions and self.client.status == "running":
                self.client.cancel(list(positions), force=True)


@contextlib.contextmanager
def _cluster_errors(client: distributed.Client, what: str) -> Iterator[None]:
    """Turn the death of workers and of the scheduler into a `ClusterError` that says what to do."""
    again = "Run the same command again: it goes on where it stopped."
    try:
        yield
    except KilledWorker as error:
        raise ClusterError(
            f"{what}: one task killed several workers in a row, most likely for want of memory. Give the workers more "
            f"memory (--memory-limit) or fewer threads. {again}"
        ) from error
    except (distributed.client.FutureCancelledError, distributed.comm.CommClosedError) as error:
        raise ClusterError(
            f"{what}: the scheduler at {_address(client)} was lost or forgot the tasks. {again}"
        ) from error


def _address(client: distributed.Client) -> str:
    return str(client.scheduler.address) if client.scheduler else "?"


@contextlib.contextmanager
def connect(options: ClusterOptions) -> Iterator[distributed.Client]:
    """Connect to the cluster that the options name, or start one for the time of the block.

    Raises:
        ClusterError: nothing answers at the address, or a GPU is asked for and there is none.
    """
    if options.scheduler or options.scheduler_file:
        with _connect_to_scheduler(options.scheduler, options.scheduler_file) as client:
            yield client
        return
    if options.backend == "gpu" and not gpu_usable():
        raise ClusterError(
            f"backend gpu: this machine shows {gpu_count()} GPUs; packages missing: "
            f"{', '.join(missing_gpu_packages()) or 'none'}. Install semdedup[cu12] or semdedup[cu13] on a machine "
            "with an NVIDIA GPU and its driver, or take --backend cpu."
        )
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        raise ClusterError(
            "workers cannot be started while this script is being imported by one of them. Put the call behind\n"
            '    if __name__ == "__main__":\n'
            "or pass a Client."
        )
    on_gpu = options.backend != "cpu" and gpu_usable() and not missing_gpu_packages()
    try:
        cluster = _start_gpu_cluster(options) if on_gpu else _start_cpu_cluster(options)
    except (RuntimeError, OSError, TimeoutError) as error:
        raise ClusterError(
            f"no local cluster could be started: {str(error).rstrip('.')}. In a script the call must stand behind "
            '`if __name__ == "__main__":`; otherwise pass a Client or a scheduler address.'
        ) from error
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        yield client


def _start_cpu_cluster(options: ClusterOptions) -> Any:
    n_workers = options.n_workers or max(1, dask.system.CPU_COUNT // options.threads_per_worker)
    return distributed.LocalCluster(
        n_workers=n_workers,
        threads_per_worker=options.threads_per_worker,
        memory_limit=options.memory_limit,
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    )


def _start_gpu_cluster(options: ClusterOptions) -> Any:
    import dask_cuda

    return dask_cuda.LocalCUDACluster(
        n_workers=options.n_workers,
        threads_per_worker=options.threads_per_worker,
        memory_limit=options.memory_limit,
        rmm_pool_size=0.8,
        rmm_allocator_external_lib_list=["cupy"],
        host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    )


def _connect_to_scheduler(address: str | None, scheduler_file: str | None) -> distributed.Client:
    where = address or scheduler_file
    if scheduler_file is not None and not Path(scheduler_file).exists():
        raise ClusterError(
            f"no Dask scheduler answers at {scheduler_file}: there is no such file. "
            "`dask scheduler --scheduler-file FILE` writes one."
        )
    try:
        return distributed.Client(
            address, scheduler_file=scheduler_file, timeout=SECONDS_TO_WAIT_FOR_SCHEDULER, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(
            f"no Dask scheduler answers at {where}: {error}. Start one with `dask scheduler` and give its address."
        ) from error


def _default_client() -> distributed.Client | None:
    try:
        client = distributed.default_client()
    except ValueError:  # there is none
        return None
    return client if client.status == "running" and not client.asynchronous else None


@contextlib.contextmanager
def client_for(client: distributed.Client | str | None, options: ClusterOptions) -> Iterator[distributed.Client]:
    """The client to work with: the one given, one for the address given, the current default one, or a cluster's own.

    Only what is started here is closed here.
    """
    if isinstance(client, str):
        options = ClusterOptions(scheduler=client, backend=options.backend)
    elif client is not None:
        if not isinstance(client, distributed.Client):
            raise ParameterError(
                f"client must be a distributed.Client, a scheduler address or None; got {type(client).__name__}"
            )
        if client.asynchronous:
            raise ParameterError("client is asynchronous; give one made with asynchronous=False")
        if client.status != "running":
            raise ClusterError(f"the client is {client.status}; give one that is connected")
        yield client
        return
    elif not (options.scheduler or options.scheduler_file):
        default = _default_client()
        if default is not None:
            yield default
            return
    with connect(options) as own:
        yield own


@contextlib.contextmanager
def open_session(
    client: distributed.Client | str | None,
    options: ClusterOptions,
    reporter: Reporter,
    reads: Sequence[Location] = (),
    writes: Sequence[Location] = (),
) -> Iterator[Session]:
    """Find or start a cluster, check it, and give it as a `Session`. What was started here ends with the block.

    Raises:
        ClusterError: the cluster cannot do the work; the message says which process and why.
    """
    with client_for(client, options) as found, _cluster_errors(found, "the run"):
        session = check_cluster(found, options.backend, reporter)
        check_paths(found, reads, writes)
        yield session


def check_cluster(client: distributed.Client, backend: str, reporter: Reporter) -> Session:
    """Check versions and GPUs of a cluster and measure it. Raises `ClusterError` where it cannot do the work."""
    try:
        client.wait_for_workers(1, timeout=SECONDS_TO_WAIT_FOR_WORKERS)
    except TimeoutError as error:
        raise ClusterError(
            f"the scheduler at {_address(client)} has no workers. Start some with `dask worker ADDRESS`."
        ) from error
    check_versions(client)
    arrays = check_backend(client.run(describe_process), backend)
    workers = client.scheduler_info(n_workers=-1)["workers"].values()
    memory = min((w["memory_limit"] or MEMORY_IF_UNLIMITED) // w["nthreads"] for w in workers)
    n_slots = sum(w["nthreads"] for w in workers)
    reporter.say(
        f"Dask: {len(workers)} workers, {n_slots} threads, {memory / MIB:.0f} MiB a task, {arrays}; "
        f"dashboard {dashboard_of(client)}"
    )
    return Session(client, arrays, n_slots, memory, reporter)


def dashboard_of(client: distributed.Client) -> str:
    """Where the dashboard of the cluster is, or what is missing for one here."""
    if importlib.util.find_spec("bokeh") is None and isinstance(client.cluster, distributed.LocalCluster):
        return "not shown: pip install 'semdedup[dashboard]'"
    return str(client.dashboard_link)
