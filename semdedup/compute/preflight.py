"""Checks of a cluster before work starts: versions, backends, and whether every worker sees the paths."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

import distributed
import psutil

from semdedup.arrays import Backend, gpu_count, gpu_usable, missing_gpu_packages
from semdedup.compute.profiler import profiler_may_freeze
from semdedup.compute.workers import worker_addresses
from semdedup.errors import ClusterError, SemdedupError, StorageError
from semdedup.storage.location import Location

PACKAGES_THAT_MUST_AGREE = ("dask", "distributed", "semdedup", "pandas", "pyarrow", "numpy")
SECONDS_TO_ANSWER = 300.0
"""A worker may first end a task of somebody else."""
SECONDS_BETWEEN_LOOKS = 1.0
N_THREADS = 16


@dataclass(frozen=True)
class ProcessFacts:
    """What a process of the cluster says of itself."""

    host: str
    n_gpus: int
    gpu_packages_missing: tuple[str, ...]
    gpu_usable: bool
    memory_free: int
    profiler_may_freeze: bool


def describe_process() -> ProcessFacts:
    """Facts of the process that this is called in. No CUDA context is made."""
    return ProcessFacts(
        socket.gethostname(),
        gpu_count(),
        tuple(missing_gpu_packages()),
        gpu_usable(),
        psutil.virtual_memory().available,
        profiler_may_freeze(),
    )


def check_versions(client: distributed.Client) -> dict[str, dict[str, str]]:
    """Compare the versions of client, scheduler and workers; return them by process.

    Asked by messages and not by a function of ours, which would not run where the versions differ.

    Raises:
        ClusterError: the Python minor version or one of `PACKAGES_THAT_MUST_AGREE` differs or is missing.
    """
    found: Any = client.get_versions(check=False, packages=["semdedup", "pyarrow", "pandas"])
    processes = {"client": found["client"], "scheduler": found["scheduler"]}
    processes |= {f"worker {address}": facts for address, facts in found["workers"].items()}
    versions: dict[str, dict[str, str]] = {}
    for process, facts in processes.items():
        python = ".".join(str(facts["host"]["python"]).split(".")[:2])
        packages = {name: str(facts["packages"].get(name)) for name in PACKAGES_THAT_MUST_AGREE}
        versions[process] = {"python": python, **packages}
    differences = [
        f"  {process}: {name} {'is not installed' if version == 'None' else version} (client: {expected})"
        for process, theirs in versions.items()
        for name, version in theirs.items()
        if version != (expected := versions["client"][name])
    ]
    if differences:
        raise ClusterError(
            "client, scheduler and workers must have the same Python minor version and the same packages:\n"
            + "\n".join(differences[:20])
            + "\nInstall the same environment everywhere and start the cluster again."
        )
    return versions


def check_backend(facts: Mapping[str, ProcessFacts], backend: str) -> Backend:
    """Which arrays the workers compute with: all the same, and a GPU only where every worker has one.

    Raises:
        ClusterError: a GPU is asked for, or some workers have one, and a worker has none.
    """
    with_gpu = [address for address, worker in facts.items() if worker.gpu_usable]
    without = {address: worker for address, worker in facts.items() if not worker.gpu_usable}
    if backend == "cpu" or (backend == "auto" and not with_gpu):
        return "cpu"
    if not without:
        return "gpu"
    lines = [
        f"  {address}: {worker.n_gpus} GPUs, packages missing: {', '.join(worker.gpu_packages_missing) or 'none'}"
        for address, worker in list(without.items())[:10]
    ]
    wish = "backend gpu was asked for" if backend == "gpu" else f"{len(with_gpu)} workers can use a GPU"
    raise ClusterError(
        f"{wish}, but {len(without)} of {len(facts)} workers cannot:\n"
        + "\n".join(lines)
        + "\nGive every worker a GPU "
        "and the packages of the extra cu12 or cu13, or take --backend cpu."
    )


def _see_paths(reads: Sequence[Location], tokens: Mapping[Location, str], worker_name: str) -> list[str]:
    """On a worker: what is wrong with the paths, in words; nothing where all is well."""
    faults = []
    for place in reads:
        try:
            if not place.exists():
                faults.append(f"does not see {place}")
            elif not place.is_dir():
                with place.open() as file:
                    file.read(1)
        except StorageError as error:
            faults.append(str(error))
    for token, content in tokens.items():
        answer = token.at(f"{token.url}-{worker_name}")
        try:
            if not token.exists() or token.read_bytes() != content.encode():
                faults.append(f"does not see what the client writes in {token.parent}")
            else:
                answer.write_bytes(b"")
        except StorageError as error:
            faults.append(str(error))
    return faults


def check_paths(
    client: distributed.Client, reads: Sequence[Location], writes: Sequence[Location], may_go: bool = False
) -> None:
    """Check that every worker reads the inputs and that what it writes is seen by the client, and the reverse.

    Workers that leave meanwhile are left out, those that join are asked too. The probes written for this are removed
    again, and folders made for them where they stay empty.

    Args:
        may_go: one of `reads` that is not there for the client either says nothing of the workers.

    Raises:
        ClusterError: naming the worker and the path; or a worker does not answer, or all have left.
    """
    run = uuid.uuid4().hex[:12]
    tokens = {place / f"_probe-{run}": run for place in {place.url: place for place in writes}.values()}
    written: list[Location] = []
    made = {folder.url: folder for place in writes for folder in place.absent_folders()}
    try:
        for token, content in tokens.items():
            token.write_bytes(content.encode())
            written.append(token)
        answers = _ask_workers(
            client,
            partial(_see_paths, reads, tokens),
            f"semdedup-see-{run}",
            lambda name: written.extend(token.at(f"{token.url}-{name}") for token in tokens),
        )
        faults = [f"  worker {address} {fault}" for address, (_, found) in answers.items() for fault in found]
        probes = [
            (address, token, token.at(f"{token.url}-{name}"))
            for address, (name, _) in answers.items()
            for token in tokens
        ]
        if not faults:
            seen = _at_once(lambda probe: probe[2].exists(), probes)
            faults = [
                f"  the client does not see what worker {address} writes in {token.parent}"
                for (address, token, _), there in zip(probes, seen, strict=True)
                if not there
            ]
        there = [place for place in reads if place.exists()] if faults and may_go else reads
        if len(there) < len(reads):
            check_paths(client, there, writes, may_go)
        elif faults:
            raise ClusterError(
                "every worker must read the input and write the output:\n"
                + "\n".join(faults[:20])
                + "\nUse a path that all machines share, or s3://."
            )
    finally:
        _at_once(_remove, written)
        for url in sorted(made, key=len, reverse=True):
            made[url].remove_if_empty()


def _remove(place: Location) -> None:
    with contextlib.suppress(SemdedupError):
        place.remove()


def _ask_workers(
    client: distributed.Client, function: Callable[[str], Any], key: str, names: Callable[[str], None]
) -> dict[str, tuple[str, Any]]:
    """Call ``function(name)`` in a task on every worker at once, under a name that `names` is given beforehand.

    Workers that join are asked too; those that leave are left out, for their answer would never come.

    Returns:
        (name, result) by address, of the workers that are there.

    Raises:
        ClusterError: a worker does not answer within `SECONDS_TO_ANSWER`, or all have left.
    """
    asked: dict[str, str] = {}
    futures: dict[distributed.Future, str] = {}
    answers: dict[str, tuple[str, Any]] = {}
    completed = distributed.as_completed(loop=client.loop, with_results=True, raise_errors=False)
    deadline = time.monotonic() + SECONDS_TO_ANSWER
    while True:
        present = worker_addresses(client)
        for address in present:
            if address not in asked:
                asked[address] = f"w{len(asked)}"
                names(asked[address])
                future = client.submit(function, asked[address], workers=[address], key=f"{key}-{asked[address]}")
                futures[future] = address
                completed.add(future)
        missing = [address for address in present if address not in answers]
        if present and not missing:
            return {address: answers[address] for address in present}
        if time.monotonic() > deadline:
            raise ClusterError(_no_answer(asked, present, missing))
        look_again = time.monotonic() + SECONDS_BETWEEN_LOOKS
        while any(address not in answers for address in missing) and time.monotonic() < look_again:
            for future, result in completed.next_batch(block=False):
                if future.status != "finished":
                    future.result()  # raises what happened
                answers[futures[future]] = asked[futures[future]], result
            time.sleep(0.005)


def _no_answer(asked: Iterable[str], present: Sequence[str], missing: Sequence[str]) -> str:
    if not present:
        left = "\n".join(f"  worker {address} left while it was checked" for address in list(asked)[:20])
        return f"the cluster has no workers any more:\n{left}\nStart some and run the same command again."
    silent = "\n".join(f"  worker {address}" for address in missing[:20])
    return (
        f"{len(missing)} of {len(present)} workers did not say within {SECONDS_TO_ANSWER:g} s whether they see the "
        f"paths:\n{silent}\nThey run other tasks, or their storage does not answer. Wait, or end them, and run "
        "the same command again."
    )


def _at_once(function: Callable[[Any], Any], values: Sequence[Any]) -> list[Any]:
    """Call a function that waits for storage with many values at the same time."""
    with ThreadPoolExecutor(N_THREADS) as pool:
        return list(pool.map(function, values))
