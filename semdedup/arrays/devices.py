"""The memory of the device that this process computes on. CuPy is imported where it is asked, and only there."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, NamedTuple

SHARE_OF_FREE = 0.9
"""What of the free memory is planned with: libraries take workspaces of their own, outside of any pool."""


class DeviceFacts(NamedTuple):
    """A device as a process sees it.

    Attributes:
        card: what tells it from others of the same machine, its PCI bus id.
        memory: bytes that this process may take of it: what is free, and what the pool that CuPy takes from holds.
    """

    card: str
    memory: int


def describe_device() -> DeviceFacts:
    """Facts of the device that this process computes on. Makes a CUDA context, so that it is asked once one is needed.

    A pool of RMM that dask-cuda has set up holds most of the memory before any of it is used; all of that counts where
    CuPy takes from it, and none where it does not.
    """
    cupy = importlib.import_module("cupy")
    free, _ = cupy.cuda.runtime.memGetInfo()
    shared = str(getattr(cupy.cuda.get_allocator(), "__module__", "")).split(".")[0] == "rmm"
    held = _held_by_rmm() if shared else cupy.get_default_memory_pool().free_bytes()
    return DeviceFacts(str(cupy.cuda.Device().pci_bus_id), int(SHARE_OF_FREE * (free + held)))


def _held_by_rmm() -> int:
    """Bytes of the pool of RMM in this process. Adaptors may lie around it."""
    resource: Any = importlib.import_module("rmm").mr.get_current_device_resource()
    held = 0
    while resource is not None:
        if hasattr(resource, "pool_size"):
            held += int(resource.pool_size())
        resource = resource.get_upstream() if hasattr(resource, "get_upstream") else None
    return held


def import_beside_cupy(name: str) -> ModuleType:
    """Import a module of cuDF or cuML, which have CuPy allocate by RMM from then on.

    Where RMM has no pool in this process, each array of CuPy would be a call of CUDA: then CuPy keeps the pool that it
    had.
    """
    cupy = importlib.import_module("cupy")
    before = cupy.cuda.get_allocator()
    module = importlib.import_module(name)
    if cupy.cuda.get_allocator() is not before and not _held_by_rmm():
        cupy.cuda.set_allocator(before)
    return module


def memory_of_tasks(devices: dict[str, tuple[str, DeviceFacts]], n_threads: dict[str, int]) -> int:
    """Bytes of a device that a task may take: the least of all workers. Those that share a card share its memory.

    Args:
        devices: by address of the worker, its host and what it sees.
        n_threads: of each worker: tasks that it runs at the same time.

    >>> card = DeviceFacts("0000:01:00.0", 8 << 30)
    >>> memory_of_tasks({"a": ("host", card), "b": ("host", card)}, {"a": 1, "b": 1}) >> 30
    4
    """
    sharers: dict[tuple[str, str], int] = {}
    for address, (host, found) in devices.items():
        sharers[host, found.card] = sharers.get((host, found.card), 0) + n_threads.get(address, 1)
    return min((found.memory // sharers[host, found.card] for host, found in devices.values()), default=0)
