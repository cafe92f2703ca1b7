"""Folders for temporary files, whose names tell whose they are, so that those of a killed process can be removed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from semdedup.runs.owner import boot_id, host_name, process_is_gone

NAME = re.compile(r"semdedup-([0-9a-f]{8})-([0-9a-f]{8})-(\d{1,10})-(\d{1,12})-\w+")
"""The system in which a process id means something, when that started, the process, and the second it started in."""

CLOCK_S = 3600.0
"""A process that seems to have started this much earlier or later is the same one: the clock may have been set."""


@contextlib.contextmanager
def temporary_folder() -> Iterator[Path]:
    """A local folder for the time of the block. Folders of processes of this host that were killed are removed."""
    system, boot = _here()
    _remove_leftovers(Path(tempfile.gettempdir()), system, boot)
    owner = f"{os.getpid()}-{psutil.Process().create_time():.0f}"
    folder = Path(tempfile.mkdtemp(prefix=f"semdedup-{system}-{boot}-{owner}-"))
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
