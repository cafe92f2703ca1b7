"""A cluster on two hosts, network namespaces here, whose link is cut for longer than Dask waits, and healed."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import distributed
import pytest

from semdedup import VideoDeduplicationWorkflow
from tests.helpers import processes_of, wait_for, wait_until
from tests.hosts import Host, lacking, two_hosts
from tests.runs import compared
from tests.splits import make_folder

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TIMEOUTS = {"DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": "11s", "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s"}
"""After so long without an answer a connection is dead: the least that Dask takes, in place of half a minute."""
WORKER = ("--nthreads", "1", "--memory-limit", "1GiB", "--no-dashboard")
SECONDS_TO_NOTICE = 120


class Hosts(NamedTuple):
    """Two hosts, the scheduler on the first with its log, two workers beside it, and how another one is started."""

    one: Host
    other: Host
    scheduler: str
    log: Path
    start_worker: Callable[[Host], subprocess.Popen]


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    if lacking():
        pytest.skip(lacking())
    folder = tmp_path_factory.mktemp("hosts")
    with two_hosts() as (one, other), processes_of(folder) as start:
        address = ("--host", one.address, "--port", "8786", "--no-dashboard")
        start("dask_scheduler", *address, prefix=one.prefix, **TIMEOUTS)
        scheduler = f"tcp://{one.address}:8786"

        def start_worker(host: Host) -> subprocess.Popen:
            where = (scheduler, "--host", host.address, *WORKER)
            return start("dask_worker", *where, prefix=host.prefix, **TIMEOUTS)

        start_worker(one)
        start_worker(one)
        yield Hosts(one, other, scheduler, folder / "dask_scheduler-0.log", start_worker)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("videos"), [f"{letter}.mp4" for letter in "abcdefgh"])


@pytest.fixture(scope="module")
def expected(videos: Path, inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What a run leaves that nothing disturbs."""
    out = tmp_path_factory.mktemp("expected") / "out"
    assert VideoDeduplicationWorkflow(str(videos), str(out), verbose=False).run(inside).shard.kept == 8
    return compared(out)


@pytest.fixture
def start_run(hosts: Hosts, videos: Path, tmp_path: Path) -> Iterator[Callable[[Host], subprocess.Popen]]:
    """A function that starts the program on a host; what it says goes to the file ``log``."""
    command = [sys.executable, "-m", "semdedup", "run", "--scheduler", hosts.scheduler]
    command += ["--video-dir", str(videos), "--output-path", str(tmp_path / "out")]
    with contextlib.ExitStack() as started:

        def start(host: Host) -> subprocess.Popen:
            log = started.enter_context(open(tmp_path / "log", "w"))
            run = subprocess.Popen(
                [*host.prefix, *command], cwd=tmp_path, stdout=log, stderr=log, env=os.environ | TIMEOUTS
            )
            started.callback(run.wait)
            started.callback(run.kill)
            return run

        yield start


def test_a_run_survives_the_loss_of_a_host_and_gives_what_an_undisturbed_one_gives(
    hosts: Hosts, start_run: Callable[[Host], subprocess.Popen], expected: dict[str, bytes], tmp_path: Path
) -> None:
    cut_off = [hosts.start_worker(hosts.other) for _ in range(2)]
    joined = f"Register worker addr: tcp://{hosts.other.address}"
    wait_until(lambda: hosts.log.read_text().count(joined) == len(cut_off), "workers of both hosts")
    run = start_run(hosts.one)
    wait_for(tmp_path, "out/**/*.mp4", run, 300)
    hosts.other.set_link("down")
    for worker in cut_off:
        worker.wait(SECONDS_TO_NOTICE)
    hosts.other.set_link("up")
    hosts.start_worker(hosts.other)  # as what keeps workers alive does
    assert run.wait(600) == 0, (tmp_path / "log").read_text()
    assert compared(tmp_path / "out") == expected


def test_a_run_that_is_cut_off_from_its_scheduler_says_so_and_goes_on_when_it_is_called_again(
    hosts: Hosts, start_run: Callable[[Host], subprocess.Popen], expected: dict[str, bytes], tmp_path: Path
) -> None:
    run = start_run(hosts.other)
    wait_for(tmp_path, "out/**/*.mp4", run, 300)
    hosts.other.set_link("down")
    assert run.wait(SECONDS_TO_NOTICE) == 1
    message = f"the scheduler at {hosts.scheduler} was lost or forgot the tasks. Run the same command again: it goes on"
    assert message in (tmp_path / "log").read_text()
    hosts.other.set_link("up")
    assert start_run(hosts.other).wait(600) == 0, (tmp_path / "log").read_text()
    assert compared(tmp_path / "out") == expected
