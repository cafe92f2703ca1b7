"""The settings of the cluster, each declared here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import dask.utils

from semdedup.errors import ParameterError
from semdedup.settings import Kind, Options, setting
from semdedup.settings.choices import BackendChoice
from semdedup.settings.kinds import choice, path, text, whole


def _memory(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value == "auto"):
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or dask.utils.parse_bytes(value) < 0:
        raise ValueError
    return value


@dataclass(frozen=True)
class ClusterOptions(Options):
    """Which cluster to work on, or how to start one."""

    heading: ClassVar[str] = "Cluster"

    scheduler: str | None = setting(None, text(), "Dask scheduler to work on, tcp://host:8786.")
    scheduler_file: str | None = setting(None, path(), "JSON file that a running scheduler wrote.")
    n_workers: int | None = setting(None, whole(1), "Workers to start here; one a core or GPU by default.")
    threads_per_worker: int = setting(1, whole(1), "Threads of each worker started here.")
    memory_limit: str = setting("auto", Kind("be like 2GiB, or auto", _memory), "Memory of each worker, as in 2GiB.")
    backend: BackendChoice = setting(
        "auto", choice(*get_args(BackendChoice)), "auto takes GPUs where every worker has one."
    )

    def check_together(self) -> None:
        """A scheduler is named once."""
        if self.scheduler and self.scheduler_file:
            raise ParameterError("give a scheduler address or a scheduler file, not both")
