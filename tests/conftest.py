"""Fixtures that all tests share: the backends that are present, a real Dask cluster, a real S3 server."""

import os
from collections.abc import Iterator
from types import ModuleType

import distributed
import hypothesis
import numpy as np
import pytest

from semdedup.arrays import backend_module, gpu_usable

# No deadline, for nothing here asserts a time. The same examples in every run, like `rng`. `xp` and `backend` hold no
# state, so that one of them may serve all examples of a test.
hypothesis.settings.register_profile(
    "semdedup",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.function_scoped_fixture, hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("semdedup")


@pytest.fixture(autouse=True)
def wide_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables that are printed keep paths on one line, however long those of the tests are."""
    monkeypatch.setenv("COLUMNS", "500")


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


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict]:
    """Storage options of a real S3 protocol server on 127.0.0.1."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    yield {
        "key": "test-access-key",
        "secret": "canary-secret-0451",
        "client_kwargs": {"endpoint_url": f"http://{host}:{port}", "region_name": "eu-central-1"},
    }
    server.stop()


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
def rng() -> np.random.Generator:
    """A source of random numbers that is the same in every run."""
    return np.random.default_rng(0)
