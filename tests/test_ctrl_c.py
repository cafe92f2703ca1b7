"""Ctrl-C, pressed at any moment: the program ends in seconds, says what to do, and leaves no process behind."""

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import distributed
import numpy as np
import psutil
import pytest

from semdedup.compute.interrupts import interruptible, within
from semdedup.ctrl_c import SENTENCE
from tests.helpers import near_duplicates, write_embeddings

ROOT = str(Path(__file__).parents[1])
SECONDS = 3
SECONDS_OF_A_BUSY_MACHINE = 5

TASKS = """
import sys, time
from semdedup.ctrl_c import end_at_ctrl_c, leave
from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import open_session

def nap(seconds):
    print("asleep", flush=True)
    time.sleep(seconds)

if __name__ == "__main__":
    end_at_ctrl_c()
    try:
        address = sys.argv[1] if len(sys.argv) > 1 else None
        with open_session(address, ClusterOptions(n_workers=1), Reporter()) as session:
            for _ in session.run("wait", nap, [600.0] * 3, unit="naps"):
                pass
    except KeyboardInterrupt:
        leave()
"""
"""A program that is in the middle of a task."""

DEAF = """
import time
from semdedup import ctrl_c
ctrl_c.SECONDS_TO_END = 0.5
ctrl_c.end_at_ctrl_c()
for moment in ["ready", "heard"] + 100 * ["again"]:
    try:
        print(moment, flush=True)
        time.sleep(600)
    except KeyboardInterrupt:
        pass
"""
"""A program that goes on."""


class Program:
    """A program in a session of its own, as a terminal starts one."""

    def __init__(self, *command: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command],
            **{"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "cwd": ROOT, "start_new_session": True},
        )
        self.said = ""

    def wait_for(self, words: str) -> None:
        """Read what it says until the words come."""
        assert self.process.stdout is not None
        while words not in self.said:
            piece = os.read(self.process.stdout.fileno(), 4096).decode()
            assert piece, self.said
            self.said += piece

    def press(self) -> None:
        """Send Ctrl-C to all its processes, as a terminal does."""
        self.started = psutil.Process(self.process.pid).children(recursive=True)
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> float:
        """Wait for its end; how long that took."""
        began = time.monotonic()
        said, _ = self.process.communicate(timeout=60)
        seconds = time.monotonic() - began
        self.said += said.decode()
        return seconds

    def assert_ended_well(self) -> None:
        seconds = self.end()
        assert self.process.returncode == 130, self.said
        assert self.said.count(SENTENCE) == 1, self.said
        assert "Traceback" not in self.said, self.said
        assert "leaked" not in self.said, self.said
        assert seconds < SECONDS + SECONDS_OF_A_BUSY_MACHINE
        _, alive = psutil.wait_procs(self.started, timeout=10)
        assert not alive


@pytest.fixture
def program() -> Iterator[Callable[..., Program]]:
    begun: list[Program] = []

    def begin(*command: str) -> Program:
        begun.append(Program(*command))
        return begun[-1]

    yield begin
    for each in begun:
        each.process.kill()
        each.process.communicate()


@pytest.fixture(scope="module")
def emb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("made") / "in", *near_duplicates(np.random.default_rng(0), 60), 2)


def dedup(emb: Path, out: Path, *more: str) -> list[str]:
    return ["-m", "semdedup", "dedup", "--input-embeddings-path", str(emb), "--output-path", str(out), *more]


def test_while_workers_start(program: Callable[..., Program], emb: Path, tmp_path: Path) -> None:
    running = program(*dedup(emb, tmp_path / "out", "--n-workers", "1"))
    running.wait_for("starting workers")
    running.press()
    running.assert_ended_well()
    assert not [path for path in tmp_path.rglob("*") if path.name not in ("out", "_owner.json")]


def test_in_the_middle_of_a_task(program: Callable[..., Program], tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text(TASKS)
    running = program(str(tmp_path / "tasks.py"))
    running.wait_for("asleep")
    running.press()
    running.assert_ended_well()


def test_pressed_again_it_ends_at_once_and_once_it_ends_all_the_same(program: Callable[..., Program]) -> None:
    patient, impatient = program("-c", DEAF), program("-c", DEAF)
    for each in (patient, impatient):
        each.wait_for("ready")
        each.press()
        each.wait_for("heard")
    impatient.press()
    impatient.assert_ended_well()
    assert patient.process.poll() is None, "it has time for its end"
    patient.assert_ended_well()


@pytest.mark.slow
def test_while_the_program_is_being_imported(program: Callable[..., Program], emb: Path, tmp_path: Path) -> None:
    running = program("-X", "importtime", *dedup(emb, tmp_path / "out"))
    running.wait_for("semdedup.errors")
    running.press()
    running.assert_ended_well()


@pytest.mark.slow
def test_while_it_connects_to_a_scheduler_that_does_not_answer(
    program: Callable[..., Program], emb: Path, tmp_path: Path
) -> None:
    with subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_scheduler", "--port", "0", "--host", "127.0.0.1", "--no-dashboard",
         "--scheduler-file", str(tmp_path / "file")],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as scheduler:  # fmt: skip
        try:
            while not (tmp_path / "file").exists():
                time.sleep(0.1)
            time.sleep(0.5)
            scheduler.send_signal(signal.SIGSTOP)
            running = program(*dedup(emb, tmp_path / "out", "--scheduler-file", str(tmp_path / "file")))
            running.wait_for("connecting to")
            time.sleep(0.5)
            running.press()
            running.assert_ended_well()
        finally:
            scheduler.kill()


@pytest.mark.slow
@pytest.mark.parametrize("answers", [True, False])
def test_with_a_remote_scheduler_whether_it_answers_or_not(
    program: Callable[..., Program], tmp_path: Path, answers: bool
) -> None:
    (tmp_path / "tasks.py").write_text(TASKS.replace("[600.0]", "[6.0]"))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, host="127.0.0.1", dashboard_address="127.0.0.1:0"
    ) as cluster:
        running = program(str(tmp_path / "tasks.py"), cluster.scheduler_address)
        running.wait_for("Dask: 1 workers")
        time.sleep(1)
        if not answers:
            cluster.loop.call_later(0, time.sleep, 5)  # its loop stands still
        running.press()
        running.assert_ended_well()


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0, 3.0, 4.0])
def test_at_any_moment_of_a_run_that_then_goes_on(
    program: Callable[..., Program], emb: Path, tmp_path: Path, seconds: float
) -> None:
    running = program(*dedup(emb, tmp_path / "out", "--n-workers", "1"))
    running.wait_for("starting workers")
    time.sleep(seconds)
    if running.process.poll() is None:
        running.press()
        running.end()
        is_over = "manifest" in running.said  # then Python may be at its own end, and hear no signals
        assert running.process.returncode in ((0, 130, -signal.SIGINT) if is_over else (130,)), running.said
        assert "Traceback" not in running.said, running.said
    again = program(*dedup(emb, tmp_path / "out", "--n-workers", "1"))
    again.end()
    assert again.process.returncode == 0, again.said


# The means


def test_what_a_wait_was_for_is_undone_when_it_comes_after_all() -> None:
    undone: queue.Queue[int] = queue.Queue()
    may_end = threading.Event()

    def make() -> int:
        os.kill(os.getpid(), signal.SIGINT)
        may_end.wait(20)
        return 7

    with pytest.raises(KeyboardInterrupt):
        interruptible(make, undone.put)
    assert undone.empty()
    may_end.set()
    assert undone.get(timeout=20) == 7
    assert interruptible(lambda: 8, undone.put) == 8
    with pytest.raises(ZeroDivisionError):
        interruptible(lambda: 1 / 0, undone.put)
    assert undone.empty()


def test_what_takes_too_long_is_not_waited_for() -> None:
    assert within(10, lambda: None)
    assert within(10, lambda: 1 / 0), "what it raises is passed over"
    assert not within(0.01, lambda: time.sleep(0.5))
