"""The array tests for the GPU, over a strict stand-in for CuPy: what they cover is never unexecuted."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

TESTS = Path(__file__).parent
STAND_IN = TESTS / "strict_cupy"


def run_over_the_stand_in(*arguments: str, **environment: str) -> subprocess.CompletedProcess:
    """Pytest in a process of its own, for which there is a GPU and CuPy, or what looks like them."""
    path = os.pathsep.join([str(STAND_IN), str(TESTS.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    settings = {"PYTHONPATH": path, "SEMDEDUP_REQUIRE_GPU": "1", "DASK_DISTRIBUTED__DIAGNOSTICS__NVML": "False"}
    hidden = {"CUDA_VISIBLE_DEVICES", "PYTEST_ADDOPTS"}
    kept = {name: value for name, value in os.environ.items() if name not in hidden}
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-o", "addopts=", "-p", "no:cacheprovider", *arguments]
    return subprocess.run(
        command, cwd=TESTS.parent, env={**kept, **settings, **environment}, capture_output=True, text=True, check=False
    )


def count(done: subprocess.CompletedProcess, outcome: str) -> int:
    found = re.search(rf"(\d+) {outcome}", done.stdout.splitlines()[-1])
    return int(found[1]) if found else 0


def assert_all_passed(done: subprocess.CompletedProcess, at_least: int) -> None:
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
    assert "no usable GPU" not in done.stdout
    assert count(done, "passed") >= at_least, done.stdout[-2000:]


@pytest.mark.parametrize(
    ("file", "at_least"),
    [
        ("test_exact.py", 30),
        ("test_kmeans.py", 30),
        ("test_similarity.py", 150),
        ("test_many.py", 10),
        ("test_leaks.py", 2),
        ("test_forest.py", 20),
        ("test_pairs.py", 1),
        ("test_frames.py", 1),
        ("test_seeding.py", 1),
        ("test_on_device.py", 40),
    ],
)
def test_arrays_on_the_gpu(file: str, at_least: int) -> None:
    done = run_over_the_stand_in("-k", "gpu and not bfloat16", f"tests/{file}")  # bfloat16 is for NumPy's arrays alone
    assert_all_passed(done, at_least)


def test_a_join_on_the_gpu() -> None:
    assert_all_passed(run_over_the_stand_in("-k", "gpu and join", "tests/test_across.py"), 1)


def test_the_whole_dedup_on_the_gpu() -> None:
    """cuDF, cuML and dask-cuda have no stand-in, so that Lloyd runs on CuPy's arrays in workers of Dask's own."""
    assert_all_passed(run_over_the_stand_in("tests/test_gpu.py"), 4)
