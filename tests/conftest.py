"""Fixtures that all tests share: the backends that are present, a real Dask cluster, a real S3 server."""

import os

# Before Dask is imported, and for the processes that tests start: see `semdedup.compute.profiler`.
os.environ["DASK_DISTRIBUTED__WORKER__PROFILE__ENABLED"] = "False"

import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import distributed
import hypothesis
import numpy as np
import pytest

from benchmarks.counting_s3 import moto_server
from semdedup.arrays import backend_module, gpu_usable
from semdedup.compute.session import Session
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.storage.location import Location
from tests.faults import cluster_inside
from tests.helpers import STORAGES, WORKER, location_in, processes_of, start_scheduler
from tests.records import session_on

# No deadline, for nothing here asserts a time. The same examples in every run, like `rng`. `xp` and `backend` hold no
# state, so that one of them may serve all examples of a test.
hypothesis.settings.register_profile(
    "semdedup",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("semdedup")

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

MOST_PROCESSES = 4
"""The whole suite runs in that many processes at most: each starts clusters of its own."""


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    """Run the whole suite in a process for each core, where pytest-xdist is installed and `-n` says nothing else."""
    whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
    if not whole or not config.pluginmanager.hasplugin("xdist") or hasattr(config, "workerinput"):
        return  # the processes that this starts come here as well
    if config.option.numprocesses is None:
        config.option.numprocesses, config.option.maxprocesses = "auto", MOST_PROCESSES
        config.option.dist = "worksteal"


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that are printed keep paths on one line, however long those of the tests are."""
    monkeypatch.setenv("COLUMNS", "500")


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a store refuses is tried again at once, here; the workers of `client` pause as they do elsewhere."""
    monkeypatch.setattr("semdedup.storage.faults.PAUSES_S", (0.001, 0.005, 0.02))


@pytest.fixture(scope="module")
def kept_children() -> Iterator[None]:
    """The processes that decode are kept from one run to the next, which saves the time to start them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("semdedup.video.base.end_children", int)
        yield


@pytest.fixture(params=["cpu", "gpu"])
def backend(request: pytest.FixtureRequest) -> str:
    """Every backend that is present. With SEMDEDUP_REQUIRE_GPU=1 a missing GPU fails instead of skipping."""
    if request.param == "gpu" and not gpu_usable():
        message = "no usable GPU: a device and CuPy are needed"
        if os.environ.get("SEMDEDUP_REQUIRE_GPU") == "1":
            pytest.fail(message)
        pytest.skip(message)
    return request.param


@pytest.fixture
def xp(backend: str) -> ModuleType:
    """The arrays of the backend: NumPy or CuPy."""
    return backend_module(backend)


@pytest.fixture(scope="session")
def client() -> Iterator[distributed.Client]:
    """A real cluster of two worker processes on this machine."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, memory_limit="2GiB", host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as connected,
    ):
        yield connected


@pytest.fixture(scope="module")
def inside() -> Iterator[distributed.Client]:
    """A cluster in this process: it starts at once, and what is changed for a test is changed for its workers."""
    with cluster_inside() as connected:
        yield connected


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], distributed.Client]]:
    """A function that gives a client of a cluster with two workers, which may be killed."""
    folder = tmp_path_factory.mktemp("cluster")
    with processes_of(folder) as start_process:
        file = str(start_scheduler(start_process, folder))
        with distributed.Client(scheduler_file=file, set_as_default=False) as connected:

            def with_two_workers() -> distributed.Client:
                for _ in range(2 - len(connected.scheduler_info(n_workers=-1)["workers"])):
                    start_process("dask_worker", "--scheduler-file", file, *WORKER)
                connected.wait_for_workers(2, timeout=60)
                return connected

            yield with_two_workers


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """A real browser, which reaches for nothing by itself."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the page is looked at with Playwright")
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no Chromium on this machine")
    options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with playwright.sync_playwright() as started:
        opened = started.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


@pytest.fixture
def browser(chromium: Any) -> Iterator[Any]:
    """The browser, whose pages are closed after each test: they would go on playing."""
    yield chromium
    for context in chromium.contexts:
        context.close()


@pytest.fixture(params=STORAGES)
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """The folder of a result."""
    return location_in(request, tmp_path, "out")


@pytest.fixture(scope="module")
def session(client: distributed.Client) -> Session:
    """A session on the cluster."""
    return session_on(client)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict]:
    """Storage options of a real S3 protocol server on 127.0.0.1."""
    with moto_server() as url:
        yield {
            "key": "test-access-key",
            "secret": "canary-secret-0451",
            "client_kwargs": {"endpoint_url": url, "region_name": "eu-central-1"},
        }


@pytest.fixture
def s3(s3_server: dict, request: pytest.FixtureRequest) -> tuple[str, dict]:
    """A bucket of its own for the test: ("s3://bucket", storage_options)."""
    import re

    import s3fs

    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower()).strip("-")[:50] or "bucket"
    bucket = f"{name}-{os.urandom(4).hex()}"
    s3fs.S3FileSystem(**s3_server, use_listings_cache=False).mkdir(bucket)
    return f"s3://{bucket}", s3_server


@pytest.fixture
def strict_s3(monkeypatch: pytest.MonkeyPatch, s3_server: dict) -> Iterator[tuple[str, dict]]:
    """As `s3`, on a server that checks credentials and knows none."""
    monkeypatch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", "0")
    with moto_server() as url:
        client = {**s3_server["client_kwargs"], "endpoint_url": url}
        yield "s3://bucket", {**s3_server, "client_kwargs": client}


@pytest.fixture
def rng() -> np.random.Generator:
    """A source of random numbers that is the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture(scope="session")
def text_rows() -> np.ndarray:
    """(2500, 384) float32 of length 1: real sentence embeddings, see `tests/data/README.md`."""
    return _read_only(np.load(Path(__file__).parent / "data" / "text_embeddings.npy"))


@pytest.fixture(scope="session")
def digit_rows() -> np.ndarray:
    """(1797, 64) float32 of length 1: the handwritten digits of scikit-learn."""
    from sklearn.datasets import load_digits

    return _read_only(load_digits().data)


def _read_only(rows: np.ndarray) -> np.ndarray:
    units = unit_rows(rows)
    units.setflags(write=False)
    return units
