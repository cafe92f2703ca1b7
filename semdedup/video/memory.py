"""How much memory the process that decodes may take, and whether that is what ended it."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

try:
    import resource
except ImportError:  # Windows has none
    resource = None  # type: ignore[assignment]

STATM, DATA_FIELD = Path("/proc/self/statm"), 5
STATUS = Path("/proc/self/status")

OUT_OF_MEMORY = errno.ENOMEM
"""The exit status of a process that has taken too much."""

SECONDS_BETWEEN_LOOKS = 0.05


@contextlib.contextmanager
def memory_limit(most_bytes: int) -> Iterator[None]:
    """Let this process take so much more memory than it has, for the time of the block.

    Past 7/8 of it the process is ended, with the status `OUT_OF_MEMORY`: many a library tells of an allocation that
    failed as a damaged frame, or as an error that has no name. The rest is for what is asked for between two looks;
    beyond the limit allocations fail.

    What can be written to counts (RLIMIT_DATA). The whole address space would count what drivers of GPUs, heaps and
    threads reserve and never use, too: with CUDA more than any machine has. Linux alone can do it; elsewhere there is
    no limit.
    """
    has = _data_bytes()
    if has is None:
        yield
        return
    before = resource.getrlimit(resource.RLIMIT_DATA)
    limits = [limit for limit in before if limit != resource.RLIM_INFINITY]
    is_over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(has + most_bytes // 8 * 7, is_over), daemon=True)
    watcher.start()
    resource.setrlimit(resource.RLIMIT_DATA, (min([has + most_bytes, *limits]), before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, before)
        is_over.set()
        watcher.join()


def _watch(most_bytes: int, is_over: threading.Event) -> None:
    try:
        while not is_over.wait(SECONDS_BETWEEN_LOOKS):
            if (_data_bytes() or 0) > most_bytes:
                os._exit(OUT_OF_MEMORY)
    except MemoryError:
        os._exit(OUT_OF_MEMORY)


def _data_bytes() -> int | None:
    """Bytes that this process can write to; None where the system does not tell."""
    try:
        return int(STATM.read_text().split()[DATA_FIELD]) * resource.getpagesize()
    except OSError:
        return None


def peak_bytes() -> int:
    """The most memory that this program has had at a time; 0 where it is not known."""
    with contextlib.suppress(OSError):
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        return int(found[1]) << 10 if found else 0
    return 0


def wait(process: subprocess.Popen[bytes], inherited: int) -> int:
    """Wait for the end of a process; return the most memory that it had at a time, 0 where it is not known.

    Args:
        process: that ends.
        inherited: `peak_bytes` of its parent before it was started. Linux says of the process that it had as much.
    """
    if process.returncode is None and hasattr(os, "wait4"):
        with contextlib.suppress(ChildProcessError):  # somebody else has asked
            _, status, usage = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
            peak = usage.ru_maxrss << (0 if sys.platform == "darwin" else 10)
            return peak if peak > inherited + inherited // 16 else 0  # neither is counted to the byte
    process.wait()
    return 0


def ran_out(status: int, peak: int, most_bytes: int) -> bool:
    """Whether the end of a process is put down to a lack of memory.

    A library that does not look whether it got memory crashes. What it asked for in vain is not in the peak; where a
    buffer is doubled, that is half.
    """
    return status == OUT_OF_MEMORY or (status < 0 and peak >= most_bytes / 2)
