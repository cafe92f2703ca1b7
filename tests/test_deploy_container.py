"""The container is built and tried, where there is a program for that and an image to begin with."""

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parent.parent
RECIPE = ROOT / "deploy" / "container" / "Dockerfile"
(STANDARD,) = re.findall(r"^ARG BASE=(\S+)$", RECIPE.read_text(), re.M)
BASE = os.environ.get("SEMDEDUP_BASE_IMAGE", STANDARD)
"""An image that is here already: no registry is asked."""
FLAGS = shlex.split(os.environ.get("SEMDEDUP_BUILD_FLAGS", ""))
"""More flags for the build: certificates of a proxy, a mirror of PyPI."""
RUN = ("run", "--rm", "--network=none")
NAME = f"localhost/semdedup-test:{os.getpid()}"


def call(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def program() -> str:
    """Docker or Podman, whichever runs containers here and has the image."""
    found = [name for name in ("docker", "podman") if shutil.which(name) and call(name, "info").returncode == 0]
    if not found:
        pytest.skip("neither docker nor podman works here")
    having = [name for name in found if call(name, "image", "inspect", BASE).returncode == 0]
    if not having:
        pytest.skip(f"no image {BASE} here: pull it, or name another one in SEMDEDUP_BASE_IMAGE")
    tried = {name: call(name, *RUN, BASE, "true") for name in having}
    working = [name for name, done in tried.items() if done.returncode == 0]
    if not working:
        pytest.skip(f"containers do not run here: {tried[having[0]].stderr.strip()}")
    return working[0]


@pytest.fixture(scope="module")
def image(program: str) -> Iterator[str]:
    built = call(program, "build", "-f", str(RECIPE), "-t", NAME, "--build-arg", f"BASE={BASE}", *FLAGS, str(ROOT))
    assert built.returncode == 0, built.stdout[-3000:] + built.stderr[-3000:]
    yield NAME
    call(program, "image", "rm", NAME)


def test_the_image_runs_the_demo_as_no_root_and_as_any_user(program: str, image: str) -> None:
    for user in ("1000", "4321"):
        done = call(program, *RUN, f"--user={user}", image, "semdedup", "demo", "--quiet")
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    shown = call(program, *RUN, image)
    assert shown.stdout.startswith("Usage: semdedup")


def test_the_image_has_the_programs_of_scheduler_and_workers_and_no_source(program: str, image: str) -> None:
    command = "dask scheduler --version && dask worker --version && test ! -e /source && id -u"
    done = call(program, *RUN, image, "sh", "-c", command)
    assert (done.returncode, done.stdout.split()[-1]) == (0, "1000"), done.stderr
