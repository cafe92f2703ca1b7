"""Workers on this machine, and what they use: memory and processor time."""

import contextlib
import os
import threading
from collections.abc import Iterable, Iterator

import distributed
import psutil

from semdedup.compute.profiler import without_freezing_profiler
from semdedup.compute.progress import Advance, Reporter


@contextlib.contextmanager
def local_workers(number: int, memory_limit: str = "auto") -> Iterator[distributed.Client]:
    """A client of so many worker processes of one thread."""
    with (
        without_freezing_profiler(),
        distributed.LocalCluster(
            n_workers=number,
            threads_per_worker=1,
            memory_limit=memory_limit,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


def addresses(client: distributed.Client) -> list[str]:
    return list(client.scheduler_info(n_workers=-1)["workers"])


def pids(client: distributed.Client) -> list[int]:
    return list(client.run(os.getpid).values())


def processor_seconds(pids: Iterable[int]) -> float:
    """Seconds that these processes have run for, in all their threads, in user and in system mode."""
    times = [psutil.Process(pid).cpu_times() for pid in pids]
    return sum(each.user + each.system for each in times)


class ProcessorReporter(Reporter):
    """Progress that is not shown; `seconds` has the processor time of the workers in each step."""

    def __init__(self, pids: Iterable[int]) -> None:
        super().__init__(verbose=False)
        self.pids = list(pids)

    @contextlib.contextmanager
    def step(self, name: str, total: int | None, unit: str) -> Iterator[Advance]:
        started = processor_seconds(self.pids)
        yield lambda n: None
        self.seconds[name] = self.seconds.get(name, 0.0) + processor_seconds(self.pids) - started


class MemoryWatch(threading.Thread):
    """The highest memory of processes in MiB, sampled until the block ends.

    Args:
        pids: the processes.
        tree: whether their children count as well.
        shared_once: whether a page that several processes share is divided among them; that takes time to find out.

    `start_mib` is what each had when the watch was made, `peaks` the highest of each, `largest` that of one process.
    """

    def __init__(self, pids: Iterable[int], tree: bool = False, shared_once: bool = False) -> None:
        super().__init__(daemon=True)
        self.processes = [psutil.Process(pid) for pid in pids]
        self.tree, self.shared_once = tree, shared_once
        self.interval = 0.1 if shared_once else 0.05 if tree else 0.02
        self.peaks, self.largest, self.stopped = [0.0] * len(self.processes), 0.0, threading.Event()
        self._sample()
        self.start_mib = list(self.peaks)

    def __enter__(self) -> "MemoryWatch":
        self.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.stopped.set()
        self.join()

    def run(self) -> None:
        while not self.stopped.wait(self.interval):
            self._sample()

    def _sample(self) -> None:
        for i, process in enumerate(self.processes):
            each = [0.0]
            with contextlib.suppress(psutil.NoSuchProcess):
                for one in (process, *(process.children(recursive=True) if self.tree else ())):
                    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                        found = one.memory_full_info().pss if self.shared_once else one.memory_info().rss
                        each.append(found / 2**20)
            self.peaks[i], self.largest = max(self.peaks[i], sum(each)), max(self.largest, *each)
