"""Is everything in place? The checks before every run, one by one, with what was found."""

from __future__ import annotations

import platform
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from semdedup.compute.profiler import MAY_FREEZE
from semdedup.compute.session import MIB, dashboard_of
from semdedup.compute.workers import run_on_workers
from semdedup.dedup.kernels.products import has_bfloat16_matrices
from semdedup.errors import SemdedupError
from semdedup.extras import pip_install
from semdedup.storage.location import Location

OK, MISSING, ADVICE, FAULT = "ok", "optional", "advice", "fault"
"""States of what was looked at."""

OPTIONAL: Mapping[str, tuple[Sequence[str], str, str]] = {
    "numkong": (("numkong",), "faster products on the CPU", ""),
    "bokeh": (("bokeh",), "Dask's dashboard", "dashboard"),
    "matplotlib": (("matplotlib",), "report --plot", "plot"),
    "scenedetect": (("scenedetect-headless", "scenedetect"), "clips between cuts", "scenes"),
    "torch": (("torch",), "embedders that are models", "models"),
    "transformers": (("transformers",), "embedders that are models", "models"),
    "lance": (("pylance",), "Lance in and out", "lance"),
    "gcsfs": (("gcsfs",), "paths at gs://", "gcs"),
    "adlfs": (("adlfs",), "paths at az://", "azure"),
    "huggingface_hub": (("huggingface_hub",), "paths at hf://", "hf"),
    **{
        name: (
            [name.replace("_", "-") + end for end in ("", "-cuda12x", "-cuda13x", "-cu12", "-cu13")],
            "GPUs: the extra cu12 or cu13",
            "",
        )
        for name in GPU_PACKAGES
    },
}
"""Packages that a run does without: the names that they have where they come from, what they bring, and their extra."""


@dataclass(frozen=True)
class Finding:
    """One line of the report: what was looked at, what was found, and whether that is as it must be."""

    subject: str
    found: str
    state: str = OK


def examine(
    options: ClusterOptions, reads: Sequence[Location] = (), writes: Sequence[Location] = ()
) -> Iterator[Finding]:
    """Look at this process, at the cluster that the options mean, and at whether its workers see the paths.

    Everything is looked at, also after something that is not as it must be.

    Args:
        options: which cluster; a local one is started for the check where none is named.
        reads: paths that every worker must read.
        writes: folders that every worker must write to; what is written for the check is removed again.
    """
    yield Finding("Python", platform.python_version())
    for name in (*PACKAGES_THAT_MUST_AGREE, "s3fs"):
        found = _version(name)
        yield Finding(name, "not installed", FAULT) if found is None else Finding(name, found)
    for name, (packages, brings, extra) in OPTIONAL.items():
        found = next(filter(None, map(_version, packages)), None)
        how = f"; {pip_install(extra)}" if extra else ""
        missing = Finding(name, f"not installed (optional: {brings}{how})", MISSING)
        yield missing if found is None else Finding(name, found)
    here = describe_process()
    missing_here = f"; packages missing: {', '.join(here.gpu_packages_missing)}" if here.gpu_packages_missing else ""
    yield Finding("GPUs here", f"{here.n_gpus}{missing_here if here.n_gpus else ''}")
    yield Finding("products here", "bfloat16, then float32" if has_bfloat16_matrices() else "float32")
    yield Finding("free memory here", f"{here.memory_free / MIB:,.0f} MiB")
    looked_at = False
    try:
        with client_for(None, options) as client:
            looked_at = yield from _examine_cluster(client, options, reads, writes)
    except SemdedupError as error:
        yield Finding("cluster", str(error), FAULT)
    if not looked_at:
        yield from (_seen_from_here(place) for place in (*reads, *writes))


def _examine_cluster(
    client: distributed.Client, options: ClusterOptions, reads: Sequence[Location], writes: Sequence[Location]
) -> Generator[Finding, None, bool]:
    """What there is to find in a cluster; whether its workers were asked for the paths."""
    info = client.scheduler_info(n_workers=-1)
    yield Finding("scheduler", f"{info['address']}, dashboard {dashboard_of(client)}")
    if not info["workers"]:
        yield Finding("workers", "none; start some with `dask worker ADDRESS`", FAULT)
        return False
    try:
        check_versions(client)
        yield Finding("versions", "client, scheduler and workers agree")
    except SemdedupError as error:
        yield Finding("versions", str(error), FAULT)
        return False  # workers of another version do not know what they are asked
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
    if freezing := [address for address, there in facts.items() if there.profiler_may_freeze]:
        yield Finding("profiler", f"workers {', '.join(freezing)}: {MAY_FREEZE}", ADVICE)
    yield _checked("backend", lambda: check_backend(facts, options.backend))
    for place in reads:
        yield _checked(str(place), partial(check_paths, client, [place], []), "every worker reads it")
    for place in writes:
        yield _checked(str(place), partial(check_paths, client, [], [place]), "every worker writes to it")
    return True


def _checked(subject: str, check: Callable[[], object], ok: str = "") -> Finding:
    """What a check says where all is well; else what is wrong."""
    try:
        found = check()
    except SemdedupError as error:
        return Finding(subject, str(error), FAULT)
    return Finding(subject, ok or str(found))


def _seen_from_here(place: Location) -> Finding:
    """What this process can say of a path where no worker could be asked: a fault, whatever it is."""
    try:
        here = "is there, seen from here" if place.exists() else "is not there, seen from here"
    except SemdedupError as error:
        here = str(error)
    return Finding(str(place), f"no worker was asked: {here}", FAULT)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
