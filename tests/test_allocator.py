"""Freed memory that a task keeps for what it allocates next."""

import ctypes
import os
import subprocess
import sys

import pytest

COPIES = """
import resource, sys
import numpy as np
from semdedup.compute.allocator import keeping_freed_memory

def pages_of_copies():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        rows.copy()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

rows = np.ones(1 << 18)  # 2 MiB, 512 pages
before = pages_of_copies()
with keeping_freed_memory():
    with keeping_freed_memory():
        rows.copy()
    inside = pages_of_copies()
print(before, inside, pages_of_copies())
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="not glibc"
)
def test_freed_memory_is_kept_while_a_task_runs_and_no_longer() -> None:
    environment = {**os.environ, "MALLOC_TRIM_THRESHOLD_": "65536"}
    process = subprocess.run([sys.executable, "-c", COPIES], env=environment, capture_output=True, text=True)
    assert process.returncode == 0, process.stderr
    before, inside, after = map(int, process.stdout.split())
    assert min(before, after) > 20 * 500
    assert inside < 2 * 512
