"""Checks of a cluster before work starts: versions, backends, and whether every worker sees the paths."""

from __future__ import annotations

import contextlib
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import distributed
import psutil

from semdedup.arrays import Backend, gpu_count, gpu_usable, missing_gpu_packages
from semdedup.errors import ClusterError, SemdedupError, StorageError
from semdedup.storage.location import Location

PACKAGES_THAT_MUST_AGREE = ("dask", "distributed", "semdedup", "pandas", "pyarrow", "numpy")


@dataclass(frozen=True)
class ProcessFacts:
    """What a process of the cluster says of itself."""

    host: str
    n_gpus: int
    gpu_packages_missing: tuple[str, ...]
    gpu_usable: bool
    memory_free: int


def describe_process() -> ProcessFacts:
    """Facts of the process that this is called in. No CUDA context is made."""
    return ProcessFacts(
        socket.gethostname(),
        gpu_count(),
        tuple(missing_gpu_packages()),
        gpu_usable(),
        psutil.virtual_memory().available,
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
        "and semdedup[cu12] or [cu13], or take --backend cpu."
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


def check_paths(client: distributed.Client, reads: Sequence[Location], writes: Sequence[Location]) -> None:
    """Check that every worker reads the inputs and that what it writes is seen by the client, and the reverse.

    The probes written for this are removed again, and folders made for them where they stay empty.

    Raises:
        ClusterError: naming the worker and the path.
    """
    run = uuid.uuid4().hex[:12]
    tokens = {place / f"_probe-{run}": run for place in {place.url: place for place in writes}.values()}
    written: list[Location] = []
    made = {folder.url: folder for place in writes for folder in place.absent_folders()}
    try:
        for token, content in tokens.items():
            token.write_bytes(content.encode())
            written.append(token)
        names = {address: f"w{i}" for i, address in enumerate(sorted(client.scheduler_info(n_workers=-1)["workers"]))}
        faults: list[str] = []
        answers = [
            (
                address,
                client.submit(_see_paths, reads, tokens, name, workers=[address], key=f"semdedup-see-{run}-{name}"),
            )
            for address, name in names.items()
        ]
        for address, future in answers:
            faults += [f"  worker {address} {fault}" for fault in future.result()]
        for address, name in names.items():
            for token in tokens:
                answer = token.at(f"{token.url}-{name}")
                written.append(answer)
                if not faults and not answer.exists():
                    faults.append(f"  the client does not see what worker {address} writes in {token.parent}")
        if faults:
            raise ClusterError(
                "every worker must read the input and write the output:\n"
                + "\n".join(faults[:20])
                + "\nUse a path that all machines share, or s3://."
            )
    finally:
        for place in written:
            with contextlib.suppress(SemdedupError):
                place.remove()
        for url in sorted(made, key=len, reverse=True):
            made[url].remove_if_empty()
