"""The Dask cluster that does the work: the one that the user names, or one started for the run."""

from __future__ import annotations

import contextlib
import copy
import logging
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import dask
import dask.utils
import distributed

from semdedup.arrays import gpu_count, gpu_usable, missing_gpu_packages
from semdedup.compute.interrupts import interruptible, within
from semdedup.compute.options import ClusterOptions
from semdedup.compute.profiler import without_freezing_profiler
from semdedup.compute.progress import Reporter
from semdedup.errors import ClusterError, ParameterError

SECONDS_TO_WAIT_FOR_SCHEDULER = 15
SECONDS_TO_SILENCE_WORKERS = 2
CONFIGURED = "scheduler-address"
"""What Dask's configuration calls the scheduler that its programs work on; Dask's operator sets it for its jobs."""
POOL_OF_GPU = 0.8
"""What of a GPU's memory the pool of a worker takes; the rest is for CUDA, for libraries, and for the client."""
SECONDS_TO_LEAVE = 0.5
"""How long a run that was interrupted waits for the end of its workers, or for a scheduler that it leaves."""
IGNORE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
"""Run by each worker: a terminal sends Ctrl-C to them, too, and each would answer with a traceback; we end them."""
IN_A_THREAD = (
    " here, and a run would hold up its event loop. Start the run in a thread, `await asyncio.to_thread(workflow.run, "
    "client)` (a function likewise, with client=client), or give a client made with asynchronous=False"
)
"""What to do where a client belongs to the event loop that this would stop."""


@contextlib.contextmanager
def connect(options: ClusterOptions, reporter: Reporter | None = None) -> Iterator[distributed.Client]:
    """Connect to the cluster that the options name, else to that of Dask's configuration, else start one for the block.

    Ctrl-C ends it at once: workers that were started here are killed, and a scheduler elsewhere is left.

    Raises:
        ClusterError: nothing answers at the address, or a GPU is asked for and there is none.
    """
    reporter = reporter or Reporter(verbose=False)
    named = options.scheduler or options.scheduler_file
    configured = None if named else dask.config.get(CONFIGURED, None)
    if named or configured:
        source = "" if named else f" ({CONFIGURED} of Dask's configuration)"
        address = str(configured) if configured else options.scheduler
        with reporter.doing(f"connecting to {named or configured}{source}", is_announced=True):
            client = interruptible(
                lambda: _connect_to_scheduler(address, options.scheduler_file, source), distributed.Client.close
            )
        with _left_at_once(client.close):
            yield client
        client.close()
        return
    on_gpu = _check_local(options)
    try:
        with reporter.doing("starting workers", is_announced=True):
            cluster, client = interruptible(lambda: _start(options, on_gpu), lambda made: _kill(*made))
    except (ValueError, RuntimeError, OSError) as error:
        raise ClusterError(
            f"no local cluster could be started: {str(error).rstrip('.')}. In a script the call must be behind "
            '`if __name__ == "__main__":`; otherwise pass a Client or a scheduler address.'
        ) from None  # what led to it is pages of Dask's own steps
    with _left_at_once(lambda: _kill(cluster, client)):
        try:
            yield client
        except Exception:
            _end(cluster, client, reporter)
            raise
        _end(cluster, client, reporter)


def end_where_imported() -> None:
    """End this process with a sentence where it is a worker that imports the script which started it.

    The script would start workers in each worker. An error would come with a traceback from each, above the one that
    counts: that of the script.
    """
    if getattr(multiprocessing.process.current_process(), "_inheriting", False):
        raise SystemExit(
            "workers cannot be started while this script is being imported by one of them: the call must be behind "
            '`if __name__ == "__main__":`'
        )


@contextlib.contextmanager
def _left_at_once(leave: Callable[[], object]) -> Iterator[None]:
    """Where the block is interrupted, call `leave`, and go on without it where it takes longer."""
    try:
        yield
    except KeyboardInterrupt:
        within(SECONDS_TO_LEAVE, leave)
        raise


def _end(cluster: Any, client: distributed.Client, reporter: Reporter) -> None:
    with contextlib.ExitStack() as levels, reporter.doing("ending the workers"):
        _silence(client, levels)
        client.close()
        cluster.close()


def _check_local(options: ClusterOptions) -> bool:
    """Whether the workers that are started here are to use GPUs. Raises a `ClusterError` where none can be started."""
    if options.backend == "gpu" and not gpu_usable():
        raise ClusterError(
            f"backend gpu: this machine shows {gpu_count()} GPUs; packages missing: "
            f"{', '.join(missing_gpu_packages()) or 'none'}. Install the extra cu12 or cu13 (pip install "
            "'.[cu13]' in a checkout) on a machine with an NVIDIA GPU and its driver, or take --backend cpu."
        )
    end_where_imported()
    return options.backend != "cpu" and gpu_usable() and not missing_gpu_packages()


def _kill(cluster: Any, client: distributed.Client) -> None:
    """End a cluster of our own without waiting for what its workers are at: a run that is killed goes on later."""
    with contextlib.ExitStack() as levels:
        for logger, level in _log_nothing():
            levels.callback(logger.setLevel, level)
        for worker in list(cluster.workers.values()):
            worker.auto_restart = False
            if worker.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
        client.close()
        cluster.close()


def _silence(client: distributed.Client, levels: contextlib.ExitStack) -> None:
    """Before a cluster of our own closes: its processes log no more of connections that end, here until `levels` does.

    Dask warns of every worker that takes a while to end and of every connection that closes under it.
    """
    if client.status == "running":
        with contextlib.suppress(OSError):
            client.run(_log_nothing, on_error="ignore", callback_timeout=SECONDS_TO_SILENCE_WORKERS)
    for logger, level in _log_nothing():
        levels.callback(logger.setLevel, level)


def _log_nothing() -> list[tuple[logging.Logger, int]]:
    """Stop what Dask logs in this process; return its loggers with the levels that they had."""
    names = [n for n in logging.root.manager.loggerDict if n.split(".")[0] in ("distributed", "tornado", "asyncio")]
    before = [(logger, logger.level) for logger in map(logging.getLogger, names)]
    for logger, _ in before:
        logger.setLevel(logging.CRITICAL + 1)
    return before


def _start(options: ClusterOptions, on_gpu: bool) -> tuple[Any, distributed.Client]:
    with without_freezing_profiler():
        cluster = _start_cluster(options, on_gpu)
    return cluster, distributed.Client(cluster, set_as_default=False)


def _start_cluster(options: ClusterOptions, on_gpu: bool) -> Any:
    shared: dict[str, Any] = {
        **{"threads_per_worker": options.threads_per_worker, "memory_limit": options.memory_limit},
        **{"host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"},
    }
    n_gpus = 0 if options.backend == "cpu" or not gpu_usable() else gpu_count() if on_gpu else 1
    if n_gpus and (options.n_workers or 1) > n_gpus:
        alone = "" if on_gpu else f" Without {', '.join(missing_gpu_packages())} one process uses one of them."
        raise ClusterError(
            f"{options.n_workers} workers were asked for, and this machine shows {gpu_count()} GPUs: one a worker."
            f"{alone} Ask for fewer workers (--n-workers), or take --backend cpu."
        )
    if not on_gpu:
        n_workers = options.n_workers or n_gpus or max(1, dask.system.CPU_COUNT // options.threads_per_worker)
        config = copy.deepcopy(dask.config.config)  # as it is now, also for workers that are started again
        return distributed.LocalCluster(n_workers=n_workers, preload=IGNORE_CTRL_C, config=config, **shared)
    import dask_cuda

    return dask_cuda.LocalCUDACluster(
        n_workers=options.n_workers,
        rmm_pool_size=POOL_OF_GPU,
        rmm_allocator_external_lib_list=["cupy"],  # one pool, whoever allocates
        preload=[IGNORE_CTRL_C],
        **shared,
    )


def _connect_to_scheduler(address: str | None, scheduler_file: str | None, source: str) -> distributed.Client:
    where = f"{address or scheduler_file}{source}"
    if scheduler_file is not None and not Path(scheduler_file).exists():
        raise ClusterError(
            f"no Dask scheduler answers at {scheduler_file}: there is no such file. "
            "`dask scheduler --scheduler-file FILE` writes one."
        )
    try:
        return distributed.Client(
            address, scheduler_file=scheduler_file, timeout=SECONDS_TO_WAIT_FOR_SCHEDULER, set_as_default=False
        )
    except (OSError, TimeoutError, ValueError, MemoryError) as error:  # a number that another program sent is a length
        raise ClusterError(
            f"no Dask scheduler answers at {where}: {error}. Start one with `dask scheduler` and give its address."
        ) from error


def _default_client() -> distributed.Client | None:
    """The current client, if one is connected. Raises a `ParameterError` where this would stop its event loop."""
    try:
        client = distributed.default_client()
    except ValueError:  # there is none
        return None
    if client.status != "running":
        return None
    if client.asynchronous:
        raise ParameterError(f"the current client is asynchronous{IN_A_THREAD}")
    return client


@contextlib.contextmanager
def client_for(
    client: distributed.Client | str | None, options: ClusterOptions, reporter: Reporter | None = None
) -> Iterator[distributed.Client]:
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
            raise ParameterError(f"client is asynchronous{IN_A_THREAD}")
        if client.status != "running":
            raise ClusterError(f"the client is {client.status}; give one that is connected")
        yield client
        return
    elif not (options.scheduler or options.scheduler_file):
        default = _default_client()
        if default is not None:
            yield default
            return
    with connect(options, reporter) as own:
        yield own
