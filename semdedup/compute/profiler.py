"""Dask's profiler, which looks at the threads of every process of a cluster, where Python may freeze under it.

Before 3.11.12 a collection of garbage may begin while `sys._current_frames` holds a lock that each thread takes as it
begins and ends; where the collection then lets go of the interpreter's own lock, the process stands still for good
(https://github.com/python/cpython/issues/106883). Scheduler and workers wait for it until Dask's `worker-ttl`.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext

import dask.config

SETTING = "distributed.worker.profile.enabled"
MAY_FREEZE = f"Python before 3.11.12 may freeze under Dask's profiler; take a newer one, or set {SETTING}: False"

_IS_OLD = sys.version_info < (3, 11, 12)


def profiler_may_freeze() -> bool:
    """Whether this process may stand still because it is profiled."""
    return _IS_OLD and bool(dask.config.get(SETTING, True))


def without_freezing_profiler() -> AbstractContextManager[object]:
    """While a cluster is started: its processes are not profiled where they may freeze."""
    return dask.config.set({SETTING: False}) if profiler_may_freeze() else nullcontext()
