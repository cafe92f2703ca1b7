"""The priority of threads, which libraries change."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

THREADS = "/proc/self/task"
REAL_TIME = tuple(getattr(os, name) for name in ("SCHED_FIFO", "SCHED_RR") if hasattr(os, name))


@contextlib.contextmanager
def usual_priority() -> Iterator[None]:
    """Afterwards no thread of this process has the priority of real-time threads, unless this one had it before.

    SVT-AV1 gives it to the threads that it starts and to the one that opens it, where it has the right to, as root
    has in a container. Such a thread, and whatever it starts, goes before everything else on the machine.
    """
    if not (hasattr(os, "sched_setscheduler") and os.path.isdir(THREADS)):  # Linux has both
        yield
        return
    before, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    try:
        yield
    finally:
        for thread in map(int, os.listdir(THREADS)):
            with contextlib.suppress(OSError):  # it has ended
                if before not in REAL_TIME and os.sched_getscheduler(thread) in REAL_TIME:
                    os.sched_setscheduler(thread, before, parameters)
