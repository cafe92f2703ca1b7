"""Clusters to run on: found, started, checked before work, and left as they were found."""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pandas as pd
import pytest

from semdedup import (
    ClusterError,
    ClusterOptions,
    KMeansStage,
    ParameterError,
    Pipeline,
    VideoDeduplicationWorkflow,
    deduplicate,
    estimate,
    find_leaks,
    find_overlaps,
    find_pairs,
)
from semdedup.arrays import gpu_usable
from semdedup.compute import profiler
from semdedup.compute.cluster import connect
from semdedup.compute.preflight import check_paths, check_versions
from semdedup.storage.location import Location
from tests.helpers import (
    NOWHERE,
    WORKER,
    answer_of,
    assert_same_answer,
    near_duplicates,
    processes_of,
    set_task_bytes,
    start_scheduler,
    workflow,
    write_embeddings,
)
from tests.overlaps import every_clip, noise, write_clips, write_tracks
from tests.shards import make_clips, sharder
from tests.splits import embedder, make_texture, splitter


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """A scheduler and two workers, each a process of its own in another folder: its address and its file."""
    folder = tmp_path_factory.mktemp("elsewhere")
    with processes_of(folder) as start:
        file = start_scheduler(start, folder)
        for _ in range(2):
            start("dask_worker", "--scheduler-file", str(file), *WORKER)
        with distributed.Client(scheduler_file=str(file), set_as_default=False) as client:
            client.wait_for_workers(2, timeout=60)
            address = client.scheduler.address
        yield address, file


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], np.ndarray]:
    return near_duplicates(np.random.default_rng(8), 120)


@pytest.fixture(scope="module")
def expected(rows: Any, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return answer_of(rows, client, tmp_path_factory.mktemp("expected"))


@pytest.fixture
def here(rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with the input in ``in``."""
    write_embeddings(tmp_path / "in", *rows, n_files=2)
    monkeypatch.chdir(tmp_path)
    return tmp_path


# Found or started


@pytest.mark.parametrize("how", ["client", "address", "scheduler file", "scheduler in the options"])
def test_relative_paths_work_on_a_remote_scheduler_in_another_folder(
    how: str, remote: tuple[str, Path], here: Path, expected: Any
) -> None:
    address, file = remote
    run = workflow("in", "out").run
    if how == "client":
        with distributed.Client(address, set_as_default=False) as own:
            run(own)
            assert own.status == "running"
    elif how == "address":
        run(address)
    elif how == "scheduler file":
        run(cluster=ClusterOptions(scheduler_file=str(file)))
    else:
        run(cluster=ClusterOptions(scheduler=address))
    assert_same_answer(here / "out", expected)


def test_a_foreign_cluster_is_left_as_it_was_found(remote: tuple[str, Path], here: Path) -> None:
    with distributed.Client(remote[0], set_as_default=False) as own:
        mine = own.submit(sum, [1, 2], key="the future of its owner")
        mine.result()

        def state() -> Any:
            workers = own.scheduler_info(n_workers=-1)["workers"]
            tasks = own.run_on_scheduler(lambda dask_scheduler: sorted(map(str, dask_scheduler.tasks)))
            clients = own.run_on_scheduler(lambda dask_scheduler: sorted(dask_scheduler.clients))
            pids = own.run(os.getpid)
            settings = own.run(lambda: repr(sorted(dask.config.config.items())))
            environment = own.run(lambda: sorted(os.environ.items()))
            return sorted(workers), tasks, clients, pids, settings, environment, repr(dask.config.config)

        before, threads = state(), {thread.name for thread in threading.enumerate()}
        workflow("in", "out").run(own)
        deadline = time.monotonic() + 10
        while state() != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert state() == before
        assert own.status == "running"
        assert mine.result() == 3
        assert {thread.name for thread in threading.enumerate()} <= threads | {"asyncio_0"}
        workflow("in", "out by address").run(remote[0])
        assert own.submit(sum, [3, 4]).result() == 7


def test_a_client_that_is_not_the_default_is_the_one_that_works(
    remote: tuple[str, Path], here: Path, client: distributed.Client, expected: Any
) -> None:
    def executed(which: distributed.Client) -> int:
        return which.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.transition_log))

    other = distributed.Client(remote[0], set_as_default=False)
    with client.as_current(), contextlib.closing(other):
        before = executed(client), executed(other)
        workflow("in", "out").run(other)
        assert executed(client) == before[0]
        assert executed(other) > before[1]
    assert_same_answer(here / "out", expected)


def test_the_default_client_is_used_when_there_is_one(remote: tuple[str, Path], here: Path, expected: Any) -> None:
    with distributed.Client(remote[0], set_as_default=False) as default, default.as_current():
        before = default.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.transition_log))
        workflow("in", "out").run()
        assert default.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.transition_log)) > before
        assert default.status == "running"
    assert_same_answer(here / "out", expected)


def test_a_refusal_on_the_default_client_is_the_error_that_it_is(
    remote: tuple[str, Path], here: Path, rng: np.random.Generator
) -> None:
    write_embeddings(here / "many", list(range(20)), rng.normal(size=(20, 3)), 20)  # more than are looked at up front
    with (
        distributed.Client(remote[0], set_as_default=False) as default,
        default.as_current(),
        pytest.raises(ParameterError, match=r"metadata_fields.*caption"),
    ):
        workflow("many", "out", metadata_fields=["caption"]).run()


SCRIPT = """
import distributed, psutil, sys
from semdedup import ClusterOptions, SemanticDeduplicationWorkflow

if __name__ == "__main__":
    run = SemanticDeduplicationWorkflow("in", "out", 3, max_iter=5, eps=0.01).run
    run(cluster=ClusterOptions(n_workers=1, memory_limit="1GiB"))
    assert not psutil.Process().children(recursive=True) or all(
        "resource_tracker" in " ".join(child.cmdline()) for child in psutil.Process().children(recursive=True)
    )
    try:
        distributed.default_client()
    except ValueError:
        print("no client is left")
"""


def test_without_a_client_a_cluster_is_started_and_ended(here: Path, expected: Any) -> None:
    (here / "script.py").write_text(SCRIPT)
    ended = subprocess.run([sys.executable, "script.py"], cwd=here, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip() == "no client is left"
    assert "Dask: 1 workers" in ended.stderr
    assert "dashboard http://127.0.0.1:" in ended.stderr
    assert_same_answer(here / "out", expected)


def test_workers_that_are_started_are_not_profiled_where_that_may_freeze_them(here: Path) -> None:
    may_freeze = sys.version_info < (3, 11, 12)
    with dask.config.set({profiler.SETTING: True}):
        assert profiler.profiler_may_freeze() == may_freeze
        with connect(ClusterOptions(n_workers=1, backend="cpu")) as client:
            assert client.run(dask.config.get, profiler.SETTING) == dict.fromkeys(client.nthreads(), not may_freeze)
            assert dask.config.get(profiler.SETTING)
            for nanny in client.cluster.workers.values():  # what it starts a worker with that takes the place of this
                assert dask.config.get(profiler.SETTING, config=nanny.config) == (not may_freeze)
    assert not profiler.profiler_may_freeze(), "it is off in the tests"


# Refused


def test_nothing_at_the_address_is_a_cluster_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semdedup.compute.cluster.SECONDS_TO_WAIT_FOR_SCHEDULER", 1, raising=False)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at tcp://127.0.0.1:1:.*dask scheduler"):
        workflow("in", "out").run(NOWHERE)
    assert not (here / "out").exists()


@pytest.mark.timeout(25)
def test_a_scheduler_file_that_is_not_there_is_a_cluster_error(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("semdedup.compute.cluster.SECONDS_TO_WAIT_FOR_SCHEDULER", 1, raising=False)
    with pytest.raises(ClusterError, match=r"no Dask scheduler answers at .*absent\.json"):
        workflow("in", "out").run(cluster=ClusterOptions(scheduler_file=str(here / "absent.json")))


def test_a_client_that_is_closed_is_a_cluster_error(remote: tuple[str, Path], here: Path) -> None:
    closed = distributed.Client(remote[0], set_as_default=False)
    closed.close()
    with pytest.raises(ClusterError, match="closed"):
        workflow("in", "out").run(closed)
    assert not (here / "out").exists()


def test_a_client_of_the_event_loop_is_told_of_threads_and_works_in_one(
    remote: tuple[str, Path], here: Path, expected: Any, rng: np.random.Generator
) -> None:
    rows = pd.DataFrame({"id": ["a", "b"], "embedding": [[1.0, 0.0], [0.0, 1.0]]})
    make_texture(here / "videos" / "a.mp4", 0, 1)
    write_tracks(here / "tracks", tracks := {"a.mp4": noise(rng, 10), "b.mp4": noise(rng, 10)})
    write_clips(here / "tracks", every_clip(tracks))
    ways: dict[str, Callable[[Any], object]] = {
        "workflow": workflow("in", "out").run,
        "stage": KMeansStage(3, input_path="in", output_path="out", verbose=False).run,
        "pipeline": Pipeline("p").add_stage(KMeansStage(3, input_path="in", output_path="out", verbose=False)).run,
        "deduplicate": lambda own: deduplicate(rows, 0.1, output_path="out", client=own, verbose=False),
        "estimate": lambda own: estimate("in", client=own, verbose=False),
        "pairs": lambda own: find_pairs("in", 0.1, "out", client=own, verbose=False),
        "leaks": lambda own: find_leaks("in", "in", "out", client=own, verbose=False),
        "overlaps": lambda own: find_overlaps("tracks", "out", client=own, verbose=False),
        "split": splitter("videos", "out").run,
        "embed": embedder("videos", "out").run,
        "shard": sharder(make_clips(here / "clips", ["a"]), "out").run,
        "all": VideoDeduplicationWorkflow("videos", "whole", verbose=False).run,
    }

    async def tried() -> None:
        async with distributed.Client(remote[0], asynchronous=True, set_as_default=False) as own:
            for way, run in ways.items():
                with pytest.raises(ParameterError, match=r"^client is asynchronous.*asyncio\.to_thread"):
                    run(own)
                assert not (here / "out").exists(), way
            with own.as_current(), pytest.raises(ParameterError, match=r"^the current client is asynchronous"):
                workflow("in", "out").run()
            await asyncio.to_thread(workflow("in", "out").run, own)
            assert own.status == "running"

    asyncio.run(tried())
    assert_same_answer(here / "out", expected)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backend": "tpu"}, "backend must be one of auto, cpu, gpu; got 'tpu'"),
        ({"n_workers": 0}, "n_workers.*at least 1.*0"),
        ({"threads_per_worker": 0}, "threads_per_worker.*at least 1.*0"),
        ({"scheduler": "tcp://a:1", "scheduler_file": "b.json"}, "not both"),
        ({"memory_limit": "much"}, "memory_limit.*much"),
    ],
    ids=["backend", "n_workers", "threads", "two schedulers", "memory_limit"],
)
def test_options_of_a_cluster_check_themselves(options: dict[str, Any], words: str) -> None:
    with pytest.raises(ParameterError, match=words):
        ClusterOptions(**options)


@pytest.mark.skipif(gpu_usable(), reason="there is a GPU")
@pytest.mark.parametrize("where", ["a cluster of its own", "the workers of a client"])
def test_a_gpu_that_is_not_there_is_a_cluster_error(where: str, here: Path, remote: tuple[str, Path]) -> None:
    scheduler = None if where == "a cluster of its own" else remote[0]
    options = ClusterOptions(backend="gpu", scheduler=scheduler)
    with pytest.raises(ClusterError, match=r"gpu.*(0 GPUs|workers cannot)"), distributed.Client(remote[0]) as default:
        workflow("in", "out").run(None if scheduler is None else default, cluster=options)
    assert not (here / "out").exists()


def test_a_scheduler_without_workers_is_a_cluster_error(
    tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.compute.session.SECONDS_TO_WAIT_FOR_WORKERS", 0.5)
    with processes_of(tmp_path) as start:
        file = start_scheduler(start, tmp_path)
        with pytest.raises(ClusterError, match=r"has no workers.*dask worker"):
            workflow("in", "out").run(cluster=ClusterOptions(scheduler_file=str(file)))
    assert not (here / "out").exists()


@contextlib.contextmanager
def odd_worker(
    address: str, folder: Path, prefix: tuple[str, ...] = (), **environment: str
) -> Iterator[tuple[distributed.Client, str]]:
    """Add a worker that is not like the others, for a while: a client, and its address."""
    with processes_of(folder) as start, distributed.Client(address, set_as_default=False) as own:
        before = own.scheduler_info(n_workers=-1)["workers"].keys()
        start("dask_worker", address, *WORKER, prefix=prefix, **environment)
        own.wait_for_workers(len(before) + 1, timeout=30)
        odd = (own.scheduler_info(n_workers=-1)["workers"].keys() - before).pop()
        yield own, odd
        own.retire_workers([odd])


def hiding(folder: Path) -> tuple[str, ...]:
    """What to put before a command so that it sees this folder empty. Skips where the kernel does not let users."""
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"], check=False).returncode:
        pytest.skip("hiding a folder from a worker takes a kernel that lets users make namespaces")
    return "unshare", "-Urm", "sh", "-c", f'mount -t tmpfs none {folder} && exec "$@"', "sh"


def test_a_worker_with_another_version_is_named_with_both_versions(
    remote: tuple[str, Path], here: Path, tmp_path: Path
) -> None:
    ours = distribution("semdedup").version
    metadata = tmp_path / "path" / "semdedup-9.9.9.dist-info" / "METADATA"
    metadata.parent.mkdir(parents=True)
    metadata.write_text("Metadata-Version: 2.1\nName: semdedup\nVersion: 9.9.9\n")
    with odd_worker(remote[0], tmp_path, PYTHONPATH=str(tmp_path / "path")) as (own, odd):
        with pytest.raises(ClusterError, match=rf"worker {odd}: semdedup 9\.9\.9 \(client: {ours}\)") as caught:
            workflow("in", "out").run(own)
        assert str(caught.value).count("semdedup 9.9.9") == 1
    assert not (here / "out").exists()


def test_equal_versions_are_told_by_process(remote: tuple[str, Path]) -> None:
    with distributed.Client(remote[0], set_as_default=False) as own:
        found = check_versions(own)
        workers = {f"worker {address}" for address in own.scheduler_info(n_workers=-1)["workers"]}
    assert found.keys() == {"client", "scheduler"} | workers
    assert {"python", "dask", "semdedup", "pandas", "pyarrow", "numpy"} <= found["client"].keys()


def test_a_worker_that_does_not_see_the_input_is_named(remote: tuple[str, Path], here: Path, tmp_path: Path) -> None:
    with odd_worker(remote[0], tmp_path, hiding(here / "in")) as (own, odd):
        with pytest.raises(ClusterError, match=rf"worker {odd} does not see .*part-0\.parquet") as caught:
            workflow("in", "out").run(own)
        seeing = own.scheduler_info(n_workers=-1)["workers"].keys() - {odd}
    assert not any(f"worker {address} " in str(caught.value) for address in seeing)
    assert not (here / "out").exists()


def test_a_worker_that_does_not_see_the_output_is_named(remote: tuple[str, Path], here: Path, tmp_path: Path) -> None:
    (here / "shared").mkdir()
    words = r"does not see what the client writes in .*shared/out"
    with (
        odd_worker(remote[0], tmp_path, hiding(here / "shared")) as (own, odd),
        pytest.raises(ClusterError, match=rf"worker {odd} {words}"),
    ):
        workflow("in", "shared/out").run(own)
    assert not list((here / "shared").iterdir())


def test_paths_are_checked_on_every_worker_and_leave_no_trace(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "in").write_text("x")
    check_paths(client, [Location.of(tmp_path / "in")], [Location.of(tmp_path / "out"), Location.of(tmp_path / "b")])
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    with pytest.raises(ClusterError, match=r"does not see .*absent") as caught:
        check_paths(client, [Location.of(tmp_path / "absent")], [])
    for address in client.scheduler_info(n_workers=-1)["workers"]:
        assert address in str(caught.value)


def test_checks_that_refuse_leave_no_folder_that_they_made(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    writes = [Location.of(tmp_path / name) for name in ("mine/a/b", "mine/a/b/c", "x/y/z")]
    with pytest.raises(ClusterError):
        check_paths(client, [Location.of(tmp_path / "absent")], writes)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]


def test_checks_leave_an_empty_folder_of_the_user_where_it_is(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(ClusterError):
        check_paths(client, [Location.of(tmp_path / "absent")], [Location.of(tmp_path / "out")])
    assert (tmp_path / "out").is_dir()


# Lost


@pytest.mark.slow
def test_a_scheduler_killed_in_the_middle_is_a_cluster_error_and_the_run_goes_on_elsewhere(
    here: Path, client: distributed.Client, expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_task_bytes(monkeypatch, 100)
    (here / "cluster").mkdir()
    with processes_of(here / "cluster") as start:
        file = start_scheduler(start, here / "cluster")
        start("dask_worker", "--scheduler-file", str(file), *WORKER)
        with distributed.Client(scheduler_file=str(file), set_as_default=False, timeout="5s") as own:
            own.wait_for_workers(1, timeout=30)
            pid = own.run_on_scheduler(os.getpid)

            def kill_scheduler() -> None:
                while not any(here.glob("out/_scratch/kmeans-*/journal/scan/*.json")):
                    time.sleep(0.001)
                os.kill(pid, signal.SIGKILL)

            killer = threading.Thread(target=kill_scheduler, daemon=True)
            killer.start()
            with pytest.raises(ClusterError, match=r"scheduler.*lost.*same command again"):
                workflow("in", "out").run(own)
            killer.join(10)
    workflow("in", "out").run(client)
    assert_same_answer(here / "out", expected)
