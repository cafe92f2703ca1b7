"""Processes of this machine, told apart from those of others and from those that had their ids before."""

from __future__ import annotations

import os
import socket
from functools import cache
from pathlib import Path

import psutil


def host_name() -> str:
    """The machine that this is called on."""
    return socket.gethostname()


def process_is_gone(pid: int, start: float, tolerance_s: float = 1.0) -> bool:
    """Whether a process of this system has ended: none has its id, or one that started at another time."""
    try:
        return abs(psutil.Process(pid).create_time() - start) > tolerance_s
    except psutil.NoSuchProcess:
        return True
    except psutil.Error:
        return False


@cache
def boot_id() -> str:
    """The running system and the namespace of its process ids."""
    boot, namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    try:
        return f"{boot.read_text().strip()}/{os.readlink(namespace)}"
    except OSError:
        return f"{psutil.boot_time():.0f}/"
