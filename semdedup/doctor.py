"""Is everything in place? The checks before every run, one by one, with what was found."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import distributed

from semdedup.arrays import GPU_PACKAGES
from semdedup.compute.cluster import client_for
from semdedup.compute.options import ClusterOptions
from semdedup.compute.preflight import (
    PACKAGES_THAT_MUST_AGREE,
    check_backend,
    check_paths,
    check_versions,
    describe_process,
)
from semdedup.compute.session import MIB, dashboard_of
from semdedup.compute.workers import run_on_workers
from semdedup.dedup.kernels.products import has_bfloat16_matrices
from semdedup.errors import SemdedupError
from semdedup.storage.location import Location

OPTIONAL = ("numkong", *GPU_PACKAGES)
"""What makes things faster, and does not exist for every platform."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and whether that is as it must be."""

    subject: str
    found: str
    ok: bool = True


def examine(
    options: ClusterOptions, reads: Sequence[Location] = (), writes: Sequence[Location] = ()
) -> Iterator[Finding]:
    """Look at this process, at the cluster that the options mean, and at whether its workers see the paths.

    Args:
        options: which cluster; a local one is started for the check where none is named.
        reads: paths that every worker must read.
        writes: folders that every worker must write to; what is written for the check is removed again.
    """
    yield Finding("Python", platform.python_version())
    for name in (*PACKAGES_THAT_MUST_AGREE, "s3fs", *OPTIONAL):
        yield Finding(name, _version(name), _version(name) != "not installed" or name in OPTIONAL)
    here = describe_process()
    missing = f"; packages missing: {', '.join(here.gpu_packages_missing)}" if here.gpu_packages_missing else ""
    yield Finding("GPUs here", f"{here.n_gpus}{missing}")
    yield Finding("products here", "bfloat16, then float32" if has_bfloat16_matrices() else "float32")
    yield Finding("free memory here", f"{here.memory_free / MIB:,.0f} MiB")
    try:
        with client_for(None, options) as client:
            yield from _examine_cluster(client, options, reads, writes)
    except SemdedupError as error:
        yield Finding("cluster", str(error), False)


def _examine_cluster(
    client: distributed.Client, options: ClusterOptions, reads: Sequence[Location], writes: Sequence[Location]
) -> Iterator[Finding]:
    info = client.scheduler_info(n_workers=-1)
    yield Finding("scheduler", f"{info['address']}, dashboard {dashboard_of(client)}")
    if not info["workers"]:
        yield Finding("workers", "none; start some with `dask worker ADDRESS`", False)
        return
    check_versions(client)
    yield Finding("versions", "client, scheduler and workers agree")
    facts = run_on_workers(client, describe_process)
    for address, there in facts.items():
        worker = info["workers"].get(address)
        if worker is None:  # joined meanwhile
            continue
        limit = f"{worker['memory_limit'] / MIB:,.0f} MiB" if worker["memory_limit"] else "no limit"
        yield Finding(
            f"worker {address}",
            f"{there.host}: {worker['nthreads']} threads, memory limit {limit}, "
            f"free {there.memory_free / MIB:,.0f} MiB, {there.n_gpus} GPUs",
        )
    yield Finding("backend", check_backend(facts, options.backend))
    for place, reading in [*((place, True) for place in reads), *((place, False) for place in writes)]:
        try:
            check_paths(client, [place] if reading else [], [] if reading else [place])
            yield Finding(str(place), "every worker reads it" if reading else "every worker writes to it")
        except SemdedupError as error:
            yield Finding(str(place), str(error), False)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
