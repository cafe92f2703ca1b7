"""Faults on purpose: the operation N of storage fails, or the process is killed at it.

Every operation of storage is inside a block of `StoragePath.errors`, the one door, so that counting its blocks counts
operations.
"""

import contextlib
import itertools
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import distributed
import pytest

from semdedup.storage import faults
from semdedup.storage.path import StoragePath
from tests.helpers import workflow
from tests.shards import sharder
from tests.splits import splitter

COMMANDS: dict[str, Callable[[Path, Path, Any], Any]] = {
    "dedup": lambda source, out, client: workflow(source / "emb", out).run(client),
    "shard": lambda source, out, client: sharder(
        source / "clips", out, input_semantic_dedup_path=source / "scores", semantic_dedup_epsilon=0.5
    ).run(client),
    "split": lambda source, out, client: splitter(source / "videos", out).run(client),
}


@contextlib.contextmanager
def counting() -> Iterator[Callable[[], int]]:
    """Count the operations of storage of this process: a function that gives how many there were."""
    counter = itertools.count()
    with _at_each(lambda: next(counter)):
        yield lambda: next(counter)


@contextlib.contextmanager
def failing(n: int, error: int | None, lasting: bool = False) -> Iterator[None]:
    """Let operation n fail with an error number; None: the process is killed. Where it lasts, all later ones fail."""
    counter = itertools.count(1)

    def fail() -> None:
        number = next(counter)
        if number == n or (lasting and number > n):
            if error is None:
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(error, os.strerror(error or 0))

    with _at_each(fail):
        yield


@contextlib.contextmanager
def _at_each(act: Callable[[], Any]) -> Iterator[None]:
    real = StoragePath.errors

    @contextlib.contextmanager
    def errors(place: StoragePath, action: str) -> Iterator[None]:
        with real(place, action):
            act()
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(StoragePath, "errors", errors)
        patch.setattr(faults, "PAUSES_S", (0.0,) * len(faults.PAUSES_S))
        yield


@contextlib.contextmanager
def cluster_inside() -> Iterator[distributed.Client]:
    """A cluster in this process: its operations of storage are counted with those of the client."""
    with distributed.Client(
        processes=False, n_workers=1, threads_per_worker=2, dashboard_address="127.0.0.1:0", set_as_default=False
    ) as client:
        yield client


def _run_to_its_end(command: str, source: Path, out: Path, n: int) -> None:
    with cluster_inside() as client, failing(n, None):
        COMMANDS[command](source, out, client)


def killed_at(command: str, source: Path, out: Path, n: int) -> bool:
    """Run a command in a process of its own that is killed at operation n; False where it has no so many."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.faults"])
    process = context.Process(target=_run_to_its_end, args=(command, source, out, n))
    process.start()
    process.join(240)
    assert process.exitcode in (0, -signal.SIGKILL)
    return process.exitcode != 0
