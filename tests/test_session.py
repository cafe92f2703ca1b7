"""Tasks on a cluster whose workers join, leave and die: every task is done, or the run ends with what happened."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import distributed
import pytest

from semdedup import ClusterError, ClusterOptions, InputError
from semdedup.compute import exits, in_flight, preflight, session, workers
from semdedup.compute.cluster import connect
from semdedup.compute.preflight import check_paths
from semdedup.compute.progress import Reporter
from semdedup.compute.session import Session, check_cluster, short_repr
from semdedup.storage.location import Location

pytestmark = [pytest.mark.timeout(120), pytest.mark.slow]


@contextlib.contextmanager
def cluster_of(
    n_workers: int, threads: int = 1, memory_limit: str = "1GiB"
) -> Iterator[tuple[distributed.LocalCluster, distributed.Client]]:
    """A real cluster of its own for a test that harms it."""
    with (
        distributed.LocalCluster(
            n_workers=n_workers,
            threads_per_worker=threads,
            memory_limit=memory_limit,
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield cluster, client


def session_on(client: distributed.Client) -> Session:
    return check_cluster(client, "cpu", Reporter(verbose=False))


def pid_after(seconds: float, item: Any) -> int:
    time.sleep(seconds)
    return os.getpid()


# Workers that join


def test_workers_that_join_later_get_tasks() -> None:
    with cluster_of(1) as (cluster, client):
        opened = session_on(client)
        assert opened.n_slots == 1
        results = opened.run("wait", partial(pid_after, 0.2), range(60))
        pids = {next(results)[1]}
        cluster.scale(3)
        found = list(results)
        pids |= {pid for _, pid in found}
        assert len(found) == 59
        assert len(pids) == 3
        assert opened.n_slots == 3


def test_more_workers_mean_more_tasks_in_flight(client: distributed.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = session_on(client)
    monkeypatch.setattr(opened.workers, "seconds_between", 0.0)
    monkeypatch.setattr(in_flight, "LEAST_IN_FLIGHT", 0)
    threads = {"a": 1}
    monkeypatch.setattr(client, "nthreads", lambda **_: threads)
    taken = []

    def items() -> Iterator[int]:
        for i in range(40):
            taken.append(i)
            yield i

    class Items(list[int]):
        def __iter__(self) -> Iterator[int]:
            return items()

    results = opened.run("wait", partial(pid_after, 0.0), Items(range(40)))
    next(results)
    assert len(taken) == 1 + in_flight.TASKS_PER_SLOT
    threads["b"] = 9
    next(results)
    assert len(taken) == 2 + 10 * in_flight.TASKS_PER_SLOT
    assert len(list(results)) == 38


def test_an_adaptive_cluster_grows_with_the_tasks() -> None:
    with cluster_of(1) as (cluster, client):
        cluster.adapt(minimum=1, maximum=3, interval="200ms", target_duration="1s")
        pids = {pid for _, pid in session_on(client).run("wait", partial(pid_after, 0.3), range(60))}
        assert len(pids) == 3


# Workers with more memory and with less

MIB = 1 << 20


class Workers:
    """Workers in this process, of one thread each, that are added one by one."""

    def __init__(self, cluster: distributed.LocalCluster) -> None:
        self.cluster, self.by_name = cluster, dict[str, distributed.Worker]()

    def add(self, **mebibytes: int) -> None:
        """Start workers, by name with their memory."""

        async def start(name: str, limit: int) -> distributed.Worker:
            address = self.cluster.scheduler_address
            options: dict[str, Any] = {"nthreads": 1, "memory_limit": limit, "dashboard_address": "127.0.0.1:0"}
            worker = await distributed.Worker(address, name=name, **options)
            worker.memory_manager.memory_pause_fraction = False  # this process may hold more than a worker's limit
            return worker

        for name, number in mebibytes.items():
            self.by_name[name] = self.cluster.sync(start, name, number * MIB)

    def end(self, name: str) -> None:
        self.cluster.sync(self.by_name.pop(name).close)

    def pause(self, name: str, paused: bool) -> None:
        """As its memory manager does, which pauses no worker here."""
        worker = self.by_name[name]

        async def change() -> None:
            worker.status = distributed.core.Status.paused if paused else distributed.core.Status.running

        self.cluster.sync(change)


@contextlib.contextmanager
def workers_of(**mebibytes: int) -> Iterator[tuple[Workers, distributed.Client]]:
    with (
        distributed.LocalCluster(n_workers=0, processes=False, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        every = Workers(cluster)
        every.add(**mebibytes)
        try:
            yield every, client
        finally:
            for name in list(every.by_name):
                every.end(name)


def name_after(seconds: float, item: Any) -> str:
    time.sleep(seconds)
    return str(distributed.get_worker().name)


@pytest.mark.parametrize(
    ("threads_and_memory", "memory"),
    [
        ([(1, 8)], 8),
        ([(1, 8), (1, 2)], 2),
        ([(1, 8)] * 10 + [(1, 2)], 8),
        ([(1, 8)] * 9 + [(1, 2)], 2),
        ([(32, 8), (2, 2)], 8),
        ([(32, 8), (4, 2)], 2),
        ([(40, 8), (1, 1), (1, 2), (4, 3)], 3),
        ([], 0),
    ],
)
def test_few_threads_with_less_memory_do_not_decide(threads_and_memory: list[tuple[int, int]], memory: int) -> None:
    assert workers.memory_of_most(workers.WorkerFacts(*both, paused=False) for both in threads_and_memory) == memory


def test_a_worker_that_joins_with_less_memory_gets_no_task_that_was_cut_for_more(capsys: Any) -> None:
    with workers_of(large=2000) as (every, client):
        opened = check_cluster(client, "cpu", Reporter())
        opened.workers.seconds_between = 0.1
        assert opened.task_memory == 2000 * MIB
        results = opened.run("wait", partial(name_after, 0.02), range(300))
        names = [next(results)[1]]
        every.add(small=1000, nearly=1900)
        names += [name for _, name in results]
        assert len(names) == 300
        assert {*names} == {"large", "nearly"}
        said = " ".join(capsys.readouterr().err.split())
        assert "1 of 3 workers have less memory than the 2,000 MiB a thread that tasks were cut for" in said
        assert every.by_name["small"].address in said
        free = {name for _, name in opened.run("wait", partial(name_after, 0.02), range(60), task_memory=0)}
        assert free == {"large", "nearly", "small"}


def test_where_the_workers_with_enough_memory_go_those_that_come_do_their_tasks() -> None:
    with workers_of(large=2000, small=1000) as (every, client):
        opened = session_on(client)
        opened.workers.seconds_between = 0.1
        results = opened.run("wait", partial(name_after, 0.05), range(60), task_memory=2000 * MIB)
        names = [next(results)[1] for _ in range(5)]
        every.end("large")
        every.add(other=2000)
        names += [name for _, name in results]
        assert len(names) == 60
        assert {*names} == {"large", "other"}


def test_a_run_ends_where_no_worker_has_the_memory_that_its_tasks_were_cut_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(in_flight, "SECONDS_WITHOUT_MEMORY", 0.2)
    with workers_of(a=1000, b=800) as (_, client):
        opened = session_on(client)
        opened.workers.seconds_between = 0.1
        with pytest.raises(ClusterError, match=r"for 0 s there has been none: the 2 .* 1,000 MiB"):
            list(opened.run("wait", partial(name_after, 0.0), range(5), task_memory=2000 * MIB))


def test_a_run_whose_workers_are_all_paused_says_so(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(in_flight, "SECONDS_BETWEEN_LOOKS", 0.2)
    monkeypatch.setattr(workers, "SECONDS_BETWEEN_LOOKS", 0.0)
    with workers_of(a=2000) as (every, client):
        opened = check_cluster(client, "cpu", Reporter())
        opened.workers.seconds_between = 0.1
        results = opened.run("wait", partial(name_after, 0.0), range(100))
        next(results)
        every.pause("a", True)
        threading.Timer(1.0, lambda: every.pause("a", False)).start()
        assert len(list(results)) == 99
        assert "all 1 workers are paused" in capsys.readouterr().err


# Workers that leave


def test_a_worker_that_left_before_it_was_asked_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with cluster_of(2) as (_, client):
        before = workers.worker_addresses(client)
        client.retire_workers(before[:1])
        answers = iter([before])
        monkeypatch.setattr(
            preflight, "worker_addresses", lambda of: next(answers, None) or workers.worker_addresses(of)
        )
        started = time.monotonic()
        check_paths(client, [Location.of(tmp_path)], [Location.of(tmp_path / "out")])
        assert time.monotonic() - started < 20
        assert not list(tmp_path.iterdir())


def test_where_all_workers_have_left_the_check_of_paths_names_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(preflight, "SECONDS_TO_ANSWER", 1.0)
    with cluster_of(1) as (cluster, client):
        before = workers.worker_addresses(client)
        cluster.scale(0)
        while workers.worker_addresses(client):
            time.sleep(0.05)
        answers = iter([before])
        monkeypatch.setattr(
            preflight, "worker_addresses", lambda of: next(answers, None) or workers.worker_addresses(of)
        )
        with pytest.raises(ClusterError, match=rf"worker {before[0]} left.*\n.*run the same command again"):
            check_paths(client, [], [Location.of(tmp_path / "out")])
        assert not list(tmp_path.iterdir())


def test_a_worker_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(preflight, "SECONDS_TO_ANSWER", 0.5)
    with cluster_of(1) as (_, client):
        (address,) = workers.worker_addresses(client)
        busy = client.submit(time.sleep, 3)
        with pytest.raises(ClusterError, match=rf"1 of 1 workers did not say.*\n.*{address}"):
            check_paths(client, [], [Location.of(tmp_path / "out")])
        busy.result()


def test_a_run_ends_where_all_workers_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SECONDS_WITHOUT_WORKERS", 2.0)
    with cluster_of(1) as (cluster, client):
        results = session_on(client).run("wait", partial(pid_after, 0.05), range(1000))
        next(results)
        cluster.scale(0)
        with pytest.raises(ClusterError, match=r"step 'wait'.*no workers for 2 s.*same command again"):
            list(results)


def test_a_run_goes_on_when_workers_come_back() -> None:
    with cluster_of(1) as (cluster, client):
        results = session_on(client).run("wait", partial(pid_after, 0.05), range(80))
        next(results)
        cluster.scale(0)
        timer = threading.Timer(2, cluster.scale, [1])
        timer.start()
        assert len(list(results)) == 79
        timer.join()


def test_workers_that_die_cost_no_result(tmp_path: Path) -> None:
    with cluster_of(2) as (_, client):
        found = dict(session_on(client).run("die", partial(die_once, tmp_path), range(20)))
        assert found == {i: i for i in range(20)}


def die_once(folder: Path, item: int) -> int:
    mark = folder / "died"
    if item == 7 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return item


# Tasks that kill


def abort_at(name: str, seconds: float, item: str) -> str:
    if item == name:
        time.sleep(0.2)  # so that Dask knows of the tasks that ended before
        os.abort()
    time.sleep(seconds)
    return item


def test_a_task_that_aborts_its_worker_is_named_with_the_signal() -> None:
    names = [f"clip-{i}.mp4" for i in range(6)]
    with cluster_of(1) as (_, client):
        run = session_on(client).run(
            "decode", partial(abort_at, names[2], 0.01), names, label=lambda name: f"the video {name}"
        )
        with pytest.raises(ClusterError) as caught:
            list(run)
    text = str(caught.value)
    assert "step 'decode'" in text
    assert "It was at the video clip-2.mp4." in text
    assert "signal 6 (SIGABRT)" in text
    assert "memory" not in text
    assert "Run the same command again" in text


def test_where_a_worker_has_threads_all_that_it_was_at_are_named() -> None:
    names = [f"clip-{i}.mp4" for i in range(8)]
    with cluster_of(1, threads=2) as (_, client):
        run = session_on(client).run("decode", partial(abort_at, names[0], 1.0), names)
        with pytest.raises(ClusterError, match=r"one of these:(\n  'clip-\d.mp4'){2}\n") as caught:
            list(run)
    assert "clip-0.mp4" in str(caught.value)


def exceed(item: int) -> int:
    held = []
    while item == 0:
        held.append(bytearray(os.urandom(1 << 20)) * 8)
        time.sleep(0.01)
    return len(held)


def test_a_task_that_exceeds_the_memory_of_its_worker_is_named_with_the_limit() -> None:
    with cluster_of(1, memory_limit="400MiB") as (_, client), pytest.raises(ClusterError) as caught:
        list(session_on(client).run("grow", exceed, range(3), label=lambda item: f"cluster {item}"))
    text = str(caught.value)
    assert "It was at cluster 0." in text
    assert "memory limit of 400 MiB" in text
    assert "--memory-limit" in text


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Worker process 7 was killed by signal 11", "signal 11 (SIGSEGV)"),
        ("Worker process 7 exited with status 3", "exit code 3"),
        ("Worker process 77 exited with status 3", None),
        ("Worker process 7 was killed by unknown signal", None),
    ],
)
def test_the_log_of_a_nanny_tells_how_a_process_ended(line: str, words: str | None) -> None:
    found = exits.exit_in_log(7, ["Restarting worker", f"distributed.nanny - INFO - {line}"])
    assert (words in found) if found and words else found is words


def test_an_item_without_a_label_is_shown_short() -> None:
    assert short_repr("a.mp4") == "'a.mp4'"
    assert short_repr(["b" * 500]) == "['" + "b" * 298 + "…"


# Runs that fail


def fail_or_write(folder: Path, item: int) -> int:
    if item == 2:
        while len(list(folder.glob("begun-*"))) < 2:
            time.sleep(0.01)
        raise InputError("not like this")
    (folder / f"begun-{item}").touch()
    time.sleep(1.5)
    (folder / f"written-{item}").touch()
    return item


def test_after_a_run_that_failed_no_task_writes_any_more(tmp_path: Path) -> None:
    with cluster_of(3) as (_, client):
        opened = session_on(client)
        with pytest.raises(InputError, match="not like this"):
            list(opened.run("write", partial(fail_or_write, tmp_path), [0, 1, 2, *range(3, 30)]))
        left = sorted(path.name for path in tmp_path.iterdir())
        assert {"written-0", "written-1"} <= set(left)
        time.sleep(2)
        assert sorted(path.name for path in tmp_path.iterdir()) == left
        assert list(opened.run("more", short_repr, [1])) == [(0, "1")]


def test_a_run_that_is_left_early_waits_for_its_tasks(tmp_path: Path) -> None:
    with cluster_of(2) as (_, client):
        for _ in session_on(client).run("write", partial(begin_and_write, tmp_path), range(10)):
            break
        left = sorted(path.name for path in tmp_path.iterdir())
        assert len([name for name in left if name.startswith("begun")]) * 2 == len(left)
        time.sleep(1)
        assert sorted(path.name for path in tmp_path.iterdir()) == left


def begin_and_write(folder: Path, item: int) -> None:
    (folder / f"begun-{item}").touch()
    time.sleep(0.7)
    (folder / f"written-{item}").touch()


def fail_beside(folder: Path, item: int) -> None:
    if item:
        while not (folder / "begun").exists():
            time.sleep(0.01)
        raise InputError("not like this")
    (folder / "begun").touch()
    time.sleep(6)


def test_the_wait_for_running_tasks_has_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "SECONDS_TO_WAIT_FOR_TASKS", 0.5)
    with cluster_of(2) as (_, client):
        started = time.monotonic()
        with pytest.raises(InputError):
            list(session_on(client).run("wait", partial(fail_beside, tmp_path), range(2)))
        assert time.monotonic() - started < 5


# GPUs, and the end of a cluster of our own


def test_more_workers_than_gpus_is_a_cluster_error_with_both_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("gpu_usable", True), ("gpu_count", 2), ("missing_gpu_packages", [])):
        monkeypatch.setattr(f"semdedup.compute.cluster.{name}", lambda value=value: value)
    with pytest.raises(ClusterError, match=r"4 workers.*2 GPUs"), connect(ClusterOptions(n_workers=4)):
        pass


def test_without_dask_cuda_one_process_uses_a_gpu_and_two_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("gpu_usable", True), ("gpu_count", 2), ("missing_gpu_packages", ["dask_cuda"])):
        monkeypatch.setattr(f"semdedup.compute.cluster.{name}", lambda value=value: value)
    with (
        pytest.raises(ClusterError, match=r"2 workers.*2 GPUs.*Without dask_cuda"),
        connect(ClusterOptions(n_workers=2)),
    ):
        pass


def test_a_cluster_of_our_own_ends_without_a_word(capfd: pytest.CaptureFixture[str]) -> None:
    with connect(ClusterOptions(n_workers=2, memory_limit="1GiB", backend="cpu")) as client:
        client.submit(time.sleep, 6)
        time.sleep(0.5)
    assert capfd.readouterr().err == ""
