"""Folders for temporary files, whose names tell whose they are, so that those of a killed process can be removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil

from semdedup.storage.processes import boot_id, host_name, process_is_gone

NAME = re.compile(r"semdedup-([0-9a-f]{8})-([0-9a-f]{8})-(\d{1,10})-(\d{1,12})-\w+")
"""The system in which a process id means something, when that started, the process, and the second it started in."""

CLOCK_S = 3600.0
"""A process that seems to have started this much earlier or later is the same one: the clock may have been set."""

SECONDS_BETWEEN_LOOKS = 60.0
"""How often a process looks for what others have left: a folder is made for each file that is uploaded."""

_looked: dict[str, float] = {}
"""When this process last looked, by the folder for temporary files."""


def temporary_prefix(what: str = "") -> str:
    """What the name of a temporary folder of this process begins with, for `tempfile`; `what` is of letters.

    Folders of processes of this host that were killed are removed now and then.
    """
    system, boot = _here()
    parent = tempfile.gettempdir()
    if time.monotonic() - _looked.get(parent, -SECONDS_BETWEEN_LOOKS) >= SECONDS_BETWEEN_LOOKS:
        _looked[parent] = time.monotonic()
        _remove_leftovers(Path(parent), system, boot)
    start = psutil.Process().create_time()
    return f"semdedup-{system}-{boot}-{os.getpid()}-{start:.0f}-{what}" + "_" * bool(what)


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A local folder for the time of the block. Folders of processes of this host that were killed are removed."""
    folder = Path(tempfile.mkdtemp(prefix=temporary_prefix()))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _here() -> tuple[str, str]:
    """This host with its namespace of process ids, and its last start, in a few digits each."""
    boot, _, namespace = boot_id().partition("/")
    return _digits(f"{host_name()}/{namespace}"), _digits(boot)


def _digits(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _remove_leftovers(parent: Path, system: str, boot: str) -> None:
    user = getattr(os, "getuid", int)()  # Windows has no users in this sense
    with contextlib.suppress(OSError):  # what cannot be listed or removed stays
        for entry in list(os.scandir(parent)):
            found = NAME.fullmatch(entry.name)
            if found is None or found[1] != system or not entry.is_dir(follow_symlinks=False):
                continue
            if entry.stat(follow_symlinks=False).st_uid != user:
                continue
            if found[2] != boot or process_is_gone(int(found[3]), float(found[4]), CLOCK_S):
                shutil.rmtree(entry.path, ignore_errors=True)
