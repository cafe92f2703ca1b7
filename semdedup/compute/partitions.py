"""Calling a function on every partition of a Dask collection, on the workers that hold or compute it."""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import distributed

from semdedup.compute.exits import cluster_errors
from semdedup.compute.in_flight import wait_for_some
from semdedup.compute.session import Session
from semdedup.compute.tasks import Task


@dataclass(frozen=True)
class _OnPartition:
    """A call with a partition. Dask looks into tuples and dictionaries in a graph, but not in here."""

    task: Task
    item: Any

    def __call__(self, partition: Any) -> Any:
        return self.task((self.item, partition))


def run_on_partitions(
    session: Session,
    name: str,
    function: Callable[[tuple[Any, Any]], Any],
    frame: Any,
    items: Mapping[int, Any],
) -> Iterator[tuple[int, Any]]:
    """Call ``function((item, partition))`` for some partitions of a Dask DataFrame, and show progress.

    All of them are one graph, so that what they have in common is computed once; Dask decides how many are in memory.
    A partition that was persisted is taken where it is.

    Args:
        items: by the number of the partition.

    Yields:
        (number, result) in the order in which the tasks end. The results come to the client, the partitions do not.

    Raises:
        SemdedupError: as for `Session.run`. What the computation of a partition raises comes as it is, with a note.
    """
    import dask

    client, task = session.client, Task(uuid.uuid4().hex, function)
    prefix = f"semdedup-{name.replace(' ', '-')}-{session.token}-{task.run[:8]}-"
    partitions = frame.to_delayed()
    calls = [
        dask.delayed(_OnPartition(task, item), pure=False, traverse=False)(
            partitions[number], dask_key_name=f"{prefix}{number}"
        )
        for number, item in items.items()
    ]

    def describe(key: str) -> str | None:
        return f"partition {key.removeprefix(prefix)}" if key.startswith(prefix) else None

    with session.reporter.step(name, len(items), "partitions") as advance:
        futures: dict[distributed.Future, int] = {}
        with (
            session.giving_up(task, lambda: _cancel(client, futures)),
            cluster_errors(client, f"step '{name}'", describe),
        ):
            futures.update(zip(client.compute(calls), items, strict=True))
            completed = distributed.as_completed(list(futures), loop=client.loop)
            while futures:
                session.check()
                for future in wait_for_some(completed, session.workers.seconds_between):
                    with _noting(futures[future]):
                        result = session.result_of(name, future)
                    number = futures.pop(future)
                    future.release()
                    advance(1)
                    yield number, result
                session.require_workers(name)


@contextlib.contextmanager
def _noting(number: int) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        error.add_note(f"in partition {number} of the Dask DataFrame, which was being computed")
        raise


def _cancel(client: distributed.Client, futures: dict[distributed.Future, int]) -> None:
    if futures and client.status == "running":
        client.cancel(list(futures), force=True)
        futures.clear()
