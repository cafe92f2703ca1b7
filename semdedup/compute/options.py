"""The settings of the cluster, each declared here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, get_args

import dask.utils

from semdedup.errors import ParameterError
from semdedup.settings import Kind, Options, asking_the_site, check_names, setting, settings_of
from semdedup.settings.choices import BackendChoice
from semdedup.settings.kinds import choice, path, text, whole
from semdedup.settings.site import names_said, place

SITE = "semdedup.cluster"
"""Where a site says in Dask's configuration which workers are started; which scheduler, ``scheduler-address`` says."""


def _memory(value: Any) -> Any:
    if value is None or (isinstance(value, str) and value == "auto"):
        return value
    if isinstance(value, bool) or not isinstance(value, (str, int, float)) or dask.utils.parse_bytes(value) < 0:
        raise ValueError
    return value


@asking_the_site
@dataclass(frozen=True)
class ClusterOptions(Options):
    """Which cluster to work on, or how to start one."""

    heading: ClassVar[str] = "Cluster"

    scheduler: str | None = setting(None, text(), "Dask scheduler to work on, tcp://host:8786.")
    scheduler_file: str | None = setting(None, path(), "JSON file that a running scheduler wrote.")
    n_workers: int | None = setting(None, whole(1), "Workers to start here; one a core or GPU by default.", site=SITE)
    threads_per_worker: int = setting(1, whole(1), "Threads of each worker started here.", site=SITE)
    memory_limit: str = setting(
        "auto", Kind("be like 2GiB, or auto", _memory), "Memory of each worker, as in 2GiB.", site=SITE
    )
    backend: BackendChoice = setting(
        "auto", choice(*get_args(BackendChoice)), "auto takes GPUs where every worker has one.", site=SITE
    )

    def check_together(self) -> None:
        """A scheduler is named once, and the site names settings that there are."""
        check_site()
        if self.scheduler and self.scheduler_file:
            raise ParameterError("give a scheduler address or a scheduler file, not both")


def check_site() -> None:
    """Refuse what a site says of settings that there are not: a typing error would go unseen."""
    top, section = SITE.split(".")
    known = {top: [section], SITE: [declared.name for declared in settings_of(ClusterOptions) if declared.site]}
    for name, names in known.items():
        if (found := names_said(name)) is not None:
            check_names(place(name), found, names)
