"""What a process counts of itself, and a scheduler of its tasks; imports little, so that a scheduler stays as it is."""

import contextlib
import re
from collections import Counter
from pathlib import Path
from typing import Any

from distributed.diagnostics.plugin import SchedulerPlugin

STEP_OF_KEY = re.compile(r"semdedup-(.+?)-[0-9a-f]{8}(?:-[0-9a-f]{8})?-\d+(?:-\d+)?$")
"""Keys of tasks that a step drives, and of parts of the sample; others are named after their function."""


def step_of_key(key: Any) -> str:
    """The step that a task of Dask belongs to.

    >>> step_of_key("semdedup-write-clusters-0a1b2c3d-4e5f6071-12"), step_of_key("_sums-0a1b2c3d")
    ('write clusters', '_sums')
    """
    found = STEP_OF_KEY.match(str(key))
    return found[1].replace("-", " ") if found else str(key).rsplit("-", 5)[0].split("-")[0]


class TaskCount(SchedulerPlugin):
    """Counts the tasks that ended, by step, and the most that the scheduler held at a time."""

    name = "semdedup-task-count"

    def __init__(self) -> None:
        self.ended: Counter[str] = Counter()
        self.held = self.most_held = 0

    def transition(self, key: Any, start: str, finish: str, *args: Any, **kwargs: Any) -> None:
        """Called by the scheduler."""
        if finish == "memory" and start == "processing":
            self.ended[step_of_key(key)] += 1
        self.held += (start == "released" and finish in ("waiting", "no-worker")) - (finish == "forgotten")
        self.most_held = max(self.most_held, self.held)


def counted_tasks(dask_scheduler: Any = None) -> tuple[dict[str, int], int]:
    """On the scheduler: what its `TaskCount` has counted."""
    plugin = dask_scheduler.plugins[TaskCount.name]
    return dict(plugin.ended), plugin.most_held


def status_of(name: str) -> int:
    """Bytes of a line of ``/proc/self/status``."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024


def begin_peak() -> int:
    """Begin to measure the peak memory of this process anew; the bytes that it holds now."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return status_of("VmRSS")


def peak() -> int:
    """The most memory that this process has held since then, bytes."""
    return status_of("VmHWM")


def bytes_moved() -> tuple[int, int]:
    """Bytes that this process has read from files and written to them."""
    found = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(found["rchar"]), int(found["wchar"])
