"""One run at a time: who owns a folder, who is told so, and what becomes of a run that was overtaken."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import distributed
import pytest

from semdedup import OutputConflictError, StorageError
from semdedup.runs import owner
from semdedup.runs.owner import FILE_NAME, Owner, check_owner, owned, read_owner
from semdedup.runs.record import Record
from semdedup.runs.run import Run
from semdedup.storage.exclusive import claim, remove_claim
from semdedup.storage.location import Location
from tests.helpers import contents, near_duplicates, read_answer, workflow, write_embeddings
from tests.records import running, session_on

BEAT_S, WATCHED_S = 0.1, 2.0


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of this process beat and watch faster."""
    monkeypatch.setattr(owner, "HEARTBEAT_S", BEAT_S)
    monkeypatch.setattr(owner, "WATCH_S", WATCHED_S)
    monkeypatch.setattr(owner, "POLL_S", 0.02)


def silent(line: str) -> None:
    """Take a line that is not looked at."""


# In one process


def test_a_folder_is_owned_for_the_time_of_a_block_and_nothing_is_left(root: Location) -> None:
    with owned(root) as ownership:
        found = read_owner(root)
        assert found is not None
        assert (found.token, found.host, found.pid) == (ownership.token, socket.gethostname(), os.getpid())
        assert re.fullmatch("[0-9a-f]{8}", found.token)
        assert [file.url for file in root.files()] == [f"{root}/{FILE_NAME}"]
        with owned(root) as again:
            assert again is ownership
        ownership.check()
    assert read_owner(root) is None
    assert root.files() == []
    if root.is_local:
        assert not Path(root.url).exists(), "a folder that was made for it goes where it stays empty"


def test_it_says_what_is_needed_to_tell_the_dead_from_the_living(root: Location) -> None:
    with owned(root):
        content = json.loads((root / FILE_NAME).read_bytes())
    assert content.keys() == {"token", "host", "boot_id", "pid", "process_start", "since", "heartbeat"}


def test_another_run_of_the_same_process_is_refused_at_once(root: Location) -> None:
    def other() -> None:
        with owned(root):  # a thread has a context of its own
            pass

    with owned(root), ThreadPoolExecutor(1) as pool:
        started = time.monotonic()
        words = f"another run is at work in {root}: process {os.getpid()} on {socket.gethostname()}, since 2.*take-over"
        with pytest.raises(OutputConflictError, match=words):
            pool.submit(other).result()
        assert time.monotonic() - started < 5
    with owned(root):
        pass


def test_the_heartbeat_is_renewed_in_place(root: Location, quick: None) -> None:
    with owned(root):
        first = (root / FILE_NAME).read_bytes()
        deadline = time.monotonic() + 30
        while (root / FILE_NAME).read_bytes() == first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        now = (root / FILE_NAME).read_bytes()
        before, after = Owner.from_bytes(first), Owner.from_bytes(now)
        assert before is not None
        assert after is not None
        assert after.heartbeat > before.heartbeat
        assert replace(after, heartbeat=before.heartbeat) == before
        assert len(now) == len(first)


def test_the_heartbeat_of_a_run_that_was_overtaken_does_not_overwrite_the_file_of_the_other(
    root: Location, quick: None
) -> None:
    other = replace(Owner.new(), token="0123abcd", pid=1)
    with owned(root) as mine:
        (root / FILE_NAME).remove()
        assert claim(root / FILE_NAME, other.to_bytes()) is not None
        time.sleep(10 * BEAT_S)
        assert (root / FILE_NAME).read_bytes() == other.to_bytes()
        with pytest.raises(OutputConflictError, match="another run has taken over: process 1 on"):
            mine.check()
    assert (root / FILE_NAME).read_bytes() == other.to_bytes(), "nor does its end delete it"


def test_a_run_whose_file_was_deleted_stops(root: Location) -> None:
    with owned(root) as mine:
        (root / FILE_NAME).remove()
        with pytest.raises(OutputConflictError, match="nobody owns the folder any more"):
            mine.check()


@pytest.mark.parametrize("n", [8])
def test_of_many_that_claim_at_once_one_gets_it(root: Location, n: int) -> None:
    barrier = threading.Barrier(n)

    def attempt(number: int) -> bool:
        barrier.wait()
        return claim(root / FILE_NAME, f"{number}".encode()) is not None

    with ThreadPoolExecutor(n) as pool:
        got = list(pool.map(attempt, range(n)))
    assert got.count(True) == 1
    assert (root / FILE_NAME).read_bytes() == f"{got.index(True)}".encode()
    assert [file.url for file in root.files()] == [f"{root}/{FILE_NAME}"], "nothing temporary is left"


def test_of_many_that_take_a_dead_one_away_at_once_one_succeeds(root: Location) -> None:
    place, barrier = root / FILE_NAME, threading.Barrier(4)
    place.write_bytes(b"dead")
    taken: list[int] = []

    def attempt(number: int) -> None:
        barrier.wait()
        if remove_claim(place, b"dead"):
            taken.append(number)
            claim(place, f"{number}".encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(attempt, range(4)))
    assert len(taken) == 1
    assert place.read_bytes() == f"{taken[0]}".encode()
    assert [file.url for file in root.files()] == [place.url]


def test_one_that_was_killed_while_it_took_a_file_away_is_in_nobodys_way(
    root: Location, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = root / FILE_NAME
    place.write_bytes(b"dead")
    with monkeypatch.context() as patch:
        patch.setattr(Location, "remove", lambda place: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            remove_claim(place, b"dead")
    assert not remove_claim(place, b"dead"), "it may still be at it"
    monkeypatch.setattr("semdedup.storage.exclusive.SECONDS_TO_TAKE_AWAY", 0.0)
    deadline = time.monotonic() + 30
    while not remove_claim(place, b"dead"):
        assert time.monotonic() < deadline
    assert root.files() == []


def test_a_file_of_an_owner_that_cannot_be_read_is_watched_then_taken_over(root: Location, quick: None) -> None:
    (root / FILE_NAME).write_bytes(b"{")
    said: list[str] = []
    with owned(root, say=said.append) as mine:
        mine.check()
    assert said == [
        f"{root}/{FILE_NAME} names an owner that cannot be read; watching for {WATCHED_S:g} s whether it is alive"
    ]


def put_owner(root: Location, **changes: object) -> Owner:
    found = replace(Owner.new(), **{"token": "0123abcd", **changes})  # type: ignore[arg-type]
    (root / FILE_NAME).write_bytes(found.to_bytes())
    return found


BOOT, NAMESPACE = owner.boot_id().split("/", 1)
GONE: dict[str, dict[str, object]] = {
    "no such process": {"pid": 2**22 + 1},
    "another process has its id": {"pid": 1, "process_start": 1.0},
    "the host was started again": {"boot_id": f"before/{NAMESPACE}"},
    "an earlier run of this process": {},
}


@pytest.mark.parametrize("changes", GONE.values(), ids=GONE)
def test_an_owner_whose_process_is_gone_is_taken_over_at_once(root: Location, changes: dict[str, object]) -> None:
    put_owner(root, **changes)
    started = time.monotonic()
    with owned(root) as mine:
        mine.check()
    assert time.monotonic() - started < 10


ELSEWHERE: dict[str, dict[str, object]] = {
    "another host": {"host": "elsewhere"},
    "another container of this host": {"boot_id": f"{BOOT}/pid:[1]"},
    "another container, started before": {"boot_id": "before/pid:[1]"},
}


@pytest.mark.parametrize("changes", ELSEWHERE.values(), ids=ELSEWHERE)
def test_an_owner_elsewhere_whose_heart_stands_still_is_taken_over_after_the_watch(
    root: Location, quick: None, changes: dict[str, object]
) -> None:
    put_owner(root, pid=2**22 + 1, **changes)
    started = time.monotonic()
    with owned(root, say=silent) as mine:
        mine.check()
    assert time.monotonic() - started >= WATCHED_S


def test_an_owner_elsewhere_whose_heart_beats_is_left_alone(root: Location, quick: None) -> None:
    found = put_owner(root, host="elsewhere")

    def beat() -> None:
        time.sleep(0.3)
        (root / FILE_NAME).write_bytes(replace(found, heartbeat=found.heartbeat + 1).to_bytes())

    thread = threading.Thread(target=beat)
    thread.start()
    with (
        pytest.raises(OutputConflictError, match=r"another run is at work .* on elsewhere, since"),
        owned(root, say=silent),
    ):
        pass
    thread.join()
    with owned(root, take_over=True) as mine:  # without asking
        mine.check()
    check = pytest.raises(OutputConflictError, match="nobody owns")
    with check:
        check_owner(root, found.token)


# Two processes

PROGRAM = """
import sys, time
from semdedup import OutputConflictError
from semdedup.runs import owner
from semdedup.storage.location import Location
owner.HEARTBEAT_S, owner.WATCH_S, owner.POLL_S = 0.1, 2.0, 0.02
with owner.owned(Location.of(sys.argv[1])) as mine:
    print(mine.token, flush=True)
    sys.stdin.readline()
    try:
        mine.check()
        print("mine", flush=True)
    except OutputConflictError as error:
        print(error, flush=True)
"""


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Callable[[Location], subprocess.Popen]]:
    """A function that starts a process which owns a folder until it is given a line."""
    started: list[subprocess.Popen] = []

    def start(place: Location) -> subprocess.Popen:
        command = [sys.executable, "-c", PROGRAM, place.url]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        assert re.fullmatch("[0-9a-f]{8}\n", process.stdout.readline())
        return process

    yield start
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.communicate()


Another = Callable[[Location], subprocess.Popen]


def test_a_second_process_is_told_who_is_at_work(tmp_path: Path, another: Another, quick: None) -> None:
    place = Location.of(tmp_path / "out")
    process = another(place)
    words = f"another run is at work in {place}: process {process.pid} on {socket.gethostname()}, since 2"
    with pytest.raises(OutputConflictError, match=words), owned(place, say=silent):
        pass
    assert process.communicate("\n")[0] == "mine\n"
    with owned(place):
        pass


def test_a_process_that_was_killed_is_taken_over_at_once(tmp_path: Path, another: Another) -> None:
    place = Location.of(tmp_path / "out")
    process = another(place)
    process.kill()
    process.wait()
    started = time.monotonic()
    with owned(place) as mine:
        mine.check()
    assert time.monotonic() - started < 10
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_process_that_stands_still_is_taken_over_after_the_watch_and_stops_when_it_goes_on(
    tmp_path: Path, another: Another, quick: None
) -> None:
    place = Location.of(tmp_path / "out")
    process = another(place)
    os.kill(process.pid, signal.SIGSTOP)
    with owned(place, say=silent) as mine:
        os.kill(process.pid, signal.SIGCONT)
        said, _ = process.communicate("\n")
        assert f"another run has taken over: process {os.getpid()} on" in said
        mine.check()
    assert not list((tmp_path).glob("out/*"))


def test_a_living_process_is_overtaken_where_that_is_asked_for(tmp_path: Path, another: Another) -> None:
    place = Location.of(tmp_path / "out")
    process = another(place)
    with owned(place, take_over=True) as mine:
        said, _ = process.communicate("\n")
        assert "another run has taken over" in said
        mine.check()


# Whole runs

RUN = """
import os, signal, sys
import distributed
from semdedup import SemanticDeduplicationWorkflow, SemdedupError
from semdedup.runs import commit, owner
owner.HEARTBEAT_S, owner.WATCH_S, owner.POLL_S = 0.1, 2.0, 0.02
source, output, n_clusters, suspended = sys.argv[1:]
write = commit.Orders.write

def stand_still(*arguments):
    os.kill(os.getpid(), signal.SIGSTOP)
    return write(*arguments)

if suspended == "before the orders":
    commit.Orders.write = stand_still
if suspended == "after them":
    commit.Orders.write = lambda *arguments: (write(*arguments), os.kill(os.getpid(), signal.SIGSTOP))
with distributed.Client(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as client:
    try:
        SemanticDeduplicationWorkflow(source, output, int(n_clusters), eps=0.01, max_iter=5, verbose=False).run(client)
        print("done")
    except SemdedupError as error:
        print(type(error).__name__, error)
"""


def start_run(source: Path, out: Path, n_clusters: int, suspended: str = "") -> subprocess.Popen:
    command = [sys.executable, "-c", RUN, str(source), str(out), str(n_clusters), suspended]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def wait_until_stopped(process: subprocess.Popen) -> None:
    deadline = time.monotonic() + 120
    while Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.fixture
def source(tmp_path: Path, rng: object) -> Path:
    return write_embeddings(tmp_path / "in", *near_duplicates(rng, 120), 2)  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["before the orders", "after them"])
def test_a_run_that_was_suspended_and_overtaken_touches_nothing_of_the_other(
    source: Path, client: object, tmp_path: Path, quick: None, moment: str
) -> None:
    out = tmp_path / "out"
    suspended = start_run(source, out, 5, moment)
    wait_until_stopped(suspended)
    workflow(source, out, n_clusters=2, clear_output=True).run(client)  # type: ignore[arg-type]
    before = contents(out) | {"record": (out / "_manifest.json").read_bytes()}
    os.kill(suspended.pid, signal.SIGCONT)
    said, errors = suspended.communicate(timeout=120)
    assert "OutputConflictError" in said, said + errors
    assert contents(out) | {"record": (out / "_manifest.json").read_bytes()} == before
    workflow(source, out, n_clusters=2).run("tcp://127.0.0.1:1")  # complete already
    workflow(source, tmp_path / "fresh", n_clusters=2).run(client)  # type: ignore[arg-type]
    assert read_answer(out)[1] == read_answer(tmp_path / "fresh")[1]


def test_of_two_runs_that_start_at_once_one_does_all_and_the_other_is_told_or_finds_it_done(
    source: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    both = [start_run(source, out, 2) for _ in range(2)]
    said = [process.communicate(timeout=200) for process in both]
    words = sorted(output.split()[0] for output, _ in said if output)
    assert words in (["OutputConflictError", "done"], ["done", "done"]), said
    for output, _ in said:
        if output.startswith("OutputConflictError"):
            assert re.search(rf"another run is at work in {out}: process \d+ on .*, since 2", output)
    assert sorted(path.name for path in out.iterdir() if path.name.startswith("_")) == [
        "_forest",
        "_kmeans_centroids.npy",
        "_manifest.json",
        "_progress.json",
    ]


def overtake(root: Location) -> None:
    """What the run that takes over leaves when it has ended, put there by hand."""
    (root / FILE_NAME).remove()
    Record(root).write({})
    claimed = claim(root / FILE_NAME, replace(Owner.new(), token="another0").to_bytes())
    assert claimed is not None
    claimed.close()


@pytest.mark.parametrize("led_to", [None, StorageError("cannot read _scratch/kmeans-00000000/ids/0.u64")])
def test_a_run_that_was_overtaken_stops_early_says_so_and_leaves_no_scratch(
    client: distributed.Client, tmp_path: Path, quick: None, led_to: Exception | None
) -> None:
    root = Location.of(tmp_path / "out")
    done = []

    def work(run: Run) -> None:
        for _ in run.each("wait", time.sleep, [0.1] * 400):
            if not done:
                overtake(root)
                if led_to is not None:
                    raise led_to
            done.append(1)

    with running(root, session_on(client)) as run:
        assert run is not None
        with pytest.raises(OutputConflictError, match="another run has taken over"), run:
            work(run)
    assert len(done) < 300
    assert [path.name for path in (tmp_path / "out").iterdir()] == [FILE_NAME]
