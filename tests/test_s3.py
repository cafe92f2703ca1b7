"""The dedup on an object store, by the protocol of a real S3 server: same answer, and no secret anywhere."""

import io
import json
import logging
import time
from pathlib import Path
from typing import Any

import distributed
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import (
    IdentifyDuplicatesStage,
    InputError,
    KMeansStage,
    OutputConflictError,
    PairwiseStage,
    Pipeline,
    SemdedupError,
    StorageError,
)
from semdedup.dedup.input.files import find_files
from semdedup.dedup.sizes import FILES_CHECKED_FIRST
from semdedup.storage.location import Location
from tests.helpers import (
    NOWHERE,
    answer_of,
    kill,
    near_duplicates,
    read_answer,
    set_task_bytes,
    start_driver,
    workflow,
    write_embeddings,
)

SECRET = "canary-secret-0451"

Bucket = tuple[str, dict]
Answer = tuple[pd.DataFrame, list[Any]]


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], np.ndarray]:
    return near_duplicates(np.random.default_rng(9), 90)


@pytest.fixture(scope="module")
def expected(rows: Any, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Answer:
    return answer_of(rows, client, tmp_path_factory.mktemp("local"))


def options(bucket: Bucket) -> dict[str, Any]:
    return {"storage_options": bucket[1]}


def objects(bucket: Bucket) -> dict[str, bytes]:
    """Every object of the bucket with its content."""
    fs = fsspec.filesystem("s3", **bucket[1], use_listings_cache=False)
    prefix = bucket[0].removeprefix("s3://") + "/"
    return {path.removeprefix(prefix): fs.cat_file(path) for path in fs.find(bucket[0])}


def upload(bucket: Bucket, source: Path, name: str = "in") -> str:
    fsspec.filesystem("s3", **bucket[1]).put(str(source) + "/", f"{bucket[0]}/{name}/", recursive=True)
    return f"{bucket[0]}/{name}"


@pytest.fixture
def source(s3: Bucket, rows: Any, tmp_path: Path) -> str:
    """The input in the bucket."""
    return upload(s3, write_embeddings(tmp_path / "in", *rows, n_files=2))


def answer_in(bucket: Bucket, scores: str, duplicates: str) -> Answer:
    found = objects(bucket)
    tables = [pq.read_table(io.BytesIO(found[name])) for name in found if name.startswith(f"{scores}/cluster_")]
    drop = [pq.read_table(io.BytesIO(found[name]))["id"] for name in found if name.startswith(f"{duplicates}/part-")]
    ids = sorted(i for column in drop for i in column.to_pylist())
    return pa.concat_tables(tables).to_pandas().sort_values("id", ignore_index=True), ids


def assert_equal(found: Answer, expected: Answer) -> None:
    pd.testing.assert_frame_equal(found[0], expected[0], check_exact=True)
    assert found[1] == expected[1]


@pytest.mark.parametrize("files", [pytest.param("one", marks=pytest.mark.slow), "many"])
def test_input_and_output_on_s3_give_the_answer_of_local_ones(
    files: str, s3: Bucket, source: str, expected: Answer, client: distributed.Client, monkeypatch: Any
) -> None:
    if files == "many":  # many partitions, tiles and objects to move
        set_task_bytes(monkeypatch, 500)
    result = workflow(source, f"{s3[0]}/out", read_kwargs=options(s3), write_kwargs=options(s3)).run(client)
    assert_equal(answer_in(s3, "out/pairwise_results", "out/duplicates"), expected)
    assert result.duplicates == len(expected[1])
    names = [name.split("/")[1] for name in objects(s3) if name.startswith("out/")]
    assert set(names) == {
        "_forest",
        "kmeans_results",
        "pairwise_results",
        "duplicates",
        "_manifest.json",
        "_progress.json",
        "_kmeans_centroids.npy",
    }


@pytest.mark.parametrize("form", ["file", "glob", "list"])
def test_input_on_s3_may_be_a_file_a_glob_or_a_list(
    form: str, s3: Bucket, source: str, expected: Answer, client: distributed.Client, tmp_path: Path, rows: Any
) -> None:
    if form == "file":
        whole = upload(s3, write_embeddings(tmp_path / "whole", *rows, names=["all.parquet"]), "whole")
        path: Any = f"{whole}/all.parquet"
    elif form == "glob":
        path = f"{source}/part-*.parquet"
    else:
        path = [f"{source}/part-1.parquet", f"{source}/part-0.parquet"]
    made = semdedup.SemanticDeduplicationWorkflow(
        path, str(tmp_path / "out"), 3, max_iter=5, eps=0.01, read_kwargs=options(s3), verbose=False
    )
    made.run(client)
    assert_equal(read_answer(tmp_path / "out"), expected)


def test_a_listing_on_s3_finds_every_object_once_and_tells_what_is_passed_over(s3: Bucket) -> None:
    bucket, opts = s3
    fs = fsspec.filesystem("s3", **opts, use_listings_cache=False)
    wanted = ("year=1/e/a.parquet", "./b.parquet", "e/c.PQ", "_k=v/d.parq", "e/part-r-00000", "e//f.parquet")
    for name in (*wanted, "_SUCCESS", "e/.x.parquet.crc", "e/g.csv", "e/noend"):
        fs.pipe_file(
            f"{bucket}/in/{name}", b"text" if name.endswith(("csv", "noend")) else b"PAR1" + bytes(8) + b"PAR1"
        )
    fs.call_s3("put_object", Bucket=bucket.removeprefix("s3://"), Key="in/e/", Body=b"")  # what marks a folder

    def listed(*paths: str) -> set[str]:
        files = find_files([Location.of(f"{bucket}{path}", opts) for path in paths], "parquet")
        return {file.url.removeprefix(f"{bucket}/in/") for file in files}

    for paths in (["/in"], ["/in/"], ["/in", "/in/e/*", "/in/e/c.PQ"], ["/"], [""]):
        assert listed(*paths) == set(wanted), paths
    assert listed("/in/*/e") == {"year=1/e/a.parquet"}
    assert listed("/i*/*/c.*", "/in/_k*") == {"e/c.PQ", "_k=v/d.parq"}
    both = [Location.of(path, opts) for path in (f"{bucket}/in", f"{bucket.replace('s3:', 's3a:')}/in")]
    found = find_files(both, "parquet")
    assert len(found) == len(wanted)
    assert found.passed_over["that are no Parquet"] == {"": 2, ".csv": 2}


def test_input_on_s3_cache_and_output_local(
    s3: Bucket, source: str, expected: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(source, tmp_path / "out", read_kwargs=options(s3)).run(client)
    assert_equal(read_answer(tmp_path / "out"), expected)


def test_cache_on_s3_input_and_output_local(
    s3: Bucket, rows: Any, expected: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", [*rows[0], "zero"], np.concatenate([rows[1], np.zeros((1, 6))]))
    run = workflow(tmp_path / "in", tmp_path / "out", cache_path=f"{s3[0]}/cache", cache_kwargs=options(s3)).run
    assert run(client).quarantined == {"zero": 1}
    top = {path.name for path in (tmp_path / "out").iterdir()}
    assert top == {"duplicates", "_quarantine", "_manifest.json", "_progress.json"}
    local = sorted(pq.read_table(tmp_path / "out" / "duplicates")["id"].to_pylist())
    assert_equal((answer_in(s3, "cache/pairwise_results", "none")[0], local), expected)


def test_output_on_s3_input_and_cache_local(
    s3: Bucket, rows: Any, expected: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", *rows)
    made = semdedup.SemanticDeduplicationWorkflow(
        str(tmp_path / "in"),
        f"{s3[0]}/out",
        3,
        max_iter=5,
        eps=0.01,
        cache_path=str(tmp_path / "cache"),
        write_kwargs=options(s3),
        cache_kwargs={"storage_options": None},
        verbose=False,
    )
    made.run(client)
    scores = pq.read_table(tmp_path / "cache" / "pairwise_results").to_pandas().sort_values("id", ignore_index=True)
    found = objects(s3)
    assert sorted(found) == ["out/_manifest.json", "out/_progress.json", "out/duplicates/part-0.parquet"]
    ids = pq.read_table(io.BytesIO(found["out/duplicates/part-0.parquet"]))["id"].to_pylist()
    assert_equal((scores, ids), expected)


def test_json_lines_on_s3(s3: Bucket, rows: Any, expected: Answer, client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "lines").mkdir()
    lines = [json.dumps({"id": i, "embedding": x.astype(float).tolist()}) for i, x in zip(*rows, strict=True)]
    (tmp_path / "lines" / "a.jsonl").write_text("\n".join(lines))
    path = upload(s3, tmp_path / "lines", "lines")
    kwargs = {"read_kwargs": options(s3), "write_kwargs": options(s3), "input_filetype": "jsonl"}
    workflow(path, f"{s3[0]}/out", **kwargs).run(client)
    assert_equal(answer_in(s3, "out/pairwise_results", "out/duplicates"), expected)


def test_stages_on_s3_and_readers(s3: Bucket, source: str, expected: Answer, client: distributed.Client) -> None:
    kwargs = {"read_kwargs": options(s3), "write_kwargs": options(s3), "verbose": False}
    pipeline = Pipeline("on s3")
    pipeline.add_stage(
        KMeansStage(n_clusters=3, max_iter=5, input_path=source, output_path=f"{s3[0]}/kmeans", **kwargs)
    )
    pipeline.add_stage(PairwiseStage(output_path=f"{s3[0]}/pairwise", **kwargs))
    pipeline.add_stage(IdentifyDuplicatesStage(eps=0.01, output_path=f"{s3[0]}/drop", **kwargs))
    pipeline.run(client)
    assert_equal(answer_in(s3, "pairwise", "drop"), expected)
    scores = client.compute(semdedup.read_scores(f"{s3[0]}/pairwise", storage_options=s3[1])).result()
    assert sorted(scores["id"]) == expected[0]["id"].tolist()
    clusters = client.compute(semdedup.read_clusters(f"{s3[0]}/kmeans", storage_options=s3[1])).result()
    assert set(clusters["centroid"]) == {0, 1, 2}
    rows = client.compute(semdedup.read_embeddings(source, storage_options=s3[1])).result()
    assert len(rows) == 90


# Again and again


@pytest.mark.slow
def test_a_finished_run_on_s3_does_nothing_again_and_refuses_changes_until_cleared(
    s3: Bucket, source: str, client: distributed.Client, tmp_path: Path
) -> None:
    out, kwargs = f"{s3[0]}/out", {"read_kwargs": options(s3), "write_kwargs": options(s3)}
    fs = fsspec.filesystem("s3", **s3[1], use_listings_cache=False)
    workflow(source, out, **kwargs).run(client)
    before = {path: (info["ETag"], info["LastModified"]) for path, info in fs.find(s3[0], detail=True).items()}
    workflow(source, out, **kwargs).run(NOWHERE)
    assert {p: (i["ETag"], i["LastModified"]) for p, i in fs.find(s3[0], detail=True).items()} == before
    with pytest.raises(OutputConflictError, match="n_clusters: 3 there, 2 now"):
        workflow(source, out, n_clusters=2, **kwargs).run(NOWHERE)
    fs.pipe_file(f"{out}/notes.txt", b"mine")
    fs.pipe_file(f"{out}/kmeans_results/_notes", b"mine too")
    workflow(source, out, n_clusters=2, clear_output=True, **kwargs).run(client)
    found = objects(s3)
    assert (found["out/notes.txt"], found["out/kmeans_results/_notes"]) == (b"mine", b"mine too")
    assert sorted(name for name in found if "cluster_" in name) == [
        "out/pairwise_results/cluster_0.parquet",
        "out/pairwise_results/cluster_1.parquet",
    ]
    upload(s3, write_embeddings(tmp_path / "more", ["new"], np.ones((1, 6)), names=["new.parquet"]))
    with pytest.raises(OutputConflictError, match=r"input: 2 files of .* there, 3 files of .* now"):
        workflow(source, out, n_clusters=2, **kwargs).run(NOWHERE)


@pytest.mark.slow
def test_a_driver_killed_on_s3_goes_on_where_it_stopped(
    s3: Bucket, source: str, expected: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    fs = fsspec.filesystem("s3", **s3[1], use_listings_cache=False)
    kwargs = {"read_kwargs": options(s3), "write_kwargs": options(s3)}
    parameters = {
        "input_path": source,
        "output_path": f"{s3[0]}/out",
        "n_clusters": 3,
        "max_iter": 5,
        "eps": 0.01,
        **kwargs,
    }
    for moment in ("_scratch/kmeans-*/journal/assign/*.json", "kmeans_results/*/*", None):
        process = start_driver(tmp_path, parameters, task_bytes=800, scheduler=client.scheduler.address)
        if moment is None:
            assert process.wait(60) == 0, (tmp_path / "log").read_text()
        else:
            while not fs.glob(f"{s3[0]}/out/{moment}"):
                assert process.poll() is None, (tmp_path / "log").read_text()
                time.sleep(0.02)
            kill(process)
    log = (tmp_path / "log").read_text()
    assert "were done by an earlier run" in log or "kmeans: complete already" in log
    assert SECRET not in log
    assert_equal(answer_in(s3, "out/pairwise_results", "out/duplicates"), expected)
    assert not [name for name in objects(s3) if "_scratch" in name]


# Secrets


def test_the_secret_is_in_no_file_log_key_or_word_of_a_run(
    s3: Bucket,
    source: str,
    client: distributed.Client,
    capfd: pytest.CaptureFixture,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    caplog.set_level(logging.DEBUG, logger="semdedup")
    caplog.set_level(logging.DEBUG, logger="distributed")
    assert s3[1]["secret"] == SECRET
    kwargs = {"read_kwargs": options(s3), "write_kwargs": options(s3), "cache_kwargs": options(s3)}
    run = workflow(source, f"{s3[0]}/out", cache_path=f"{s3[0]}/cache", verbose=True, **kwargs)
    result = run.run(client)
    with pytest.raises(SemdedupError) as caught:
        workflow(source, f"{s3[0]}/out", cache_path=f"{s3[0]}/cache", n_clusters=2, **kwargs).run(client)
    keys = client.run_on_scheduler(lambda dask_scheduler: [repr(entry) for entry in dask_scheduler.transition_log])
    assert any("semdedup-scan" in key for key in keys)
    logs = [caplog.text, repr(client.get_scheduler_logs()), repr(client.get_worker_logs()), *capfd.readouterr()]
    words = [*logs, repr(result), result._repr_html_(), repr(caught.value), repr(vars(run)), *keys]
    assert not [text for text in words if SECRET in text]
    assert not [name for name, content in objects(s3).items() if SECRET.encode() in content]
    assert f"{s3[0]}/cache" in repr(result)


def test_a_task_that_fails_on_s3_tells_no_secret(
    s3: Bucket, source: str, client: distributed.Client, capfd: pytest.CaptureFixture, tmp_path: Path
) -> None:
    """Dask logs what failed, with its arguments; not where the error has a clear sentence."""
    fs = fsspec.filesystem("s3", **s3[1])
    table = pa.table({"id": [f"x{i}" for i in range(100)], "embedding": [[1.0] * 6] * 100})
    pq.write_table(table, tmp_path / "bad.parquet", compression="none")
    for i in range(FILES_CHECKED_FIRST):  # which the client looks at
        fs.put_file(str(tmp_path / "bad.parquet"), f"{source}/a-{i}.parquet")
    content = bytearray((tmp_path / "bad.parquet").read_bytes())
    content[8:400] = bytes(392)
    fs.pipe_file(f"{source}/bad.parquet", bytes(content))
    with pytest.raises(semdedup.BadFileError, match=r"s3://.*/in/bad\.parquet") as caught:
        workflow(source, f"{s3[0]}/out", read_kwargs=options(s3), write_kwargs=options(s3)).run(client)
    logs = client.get_worker_logs()
    assert not any("Compute Failed" in str(lines) for lines in logs.values())
    chain: BaseException | None = caught.value
    while chain is not None:
        assert SECRET not in repr(chain) + str(vars(chain))
        chain = chain.__cause__ or chain.__context__
    assert SECRET not in "".join(capfd.readouterr()) + repr(logs)
    assert not [name for name in objects(s3) if not name.startswith("in/")]


def test_credentials_that_are_wrong_are_a_clear_error(strict_s3: Bucket, tmp_path: Path) -> None:
    source = f"{strict_s3[0]}/in"
    with pytest.raises(StorageError, match=rf"cannot .* {source}") as caught:
        workflow(source, tmp_path / "out", read_kwargs=options(strict_s3)).run(NOWHERE)
    assert SECRET not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_bucket_that_is_not_there_is_a_clear_error(s3: Bucket, source: str, tmp_path: Path) -> None:
    absent = f"s3://absent-{s3[0][5:][-20:]}"
    with pytest.raises(InputError, match=rf"no such path: {absent}/in: there is no bucket") as caught:
        workflow(f"{absent}/in", tmp_path / "out", read_kwargs=options(s3)).run(NOWHERE)
    assert SECRET not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_output_bucket_that_is_not_there_is_a_clear_error(
    s3: Bucket, source: str, client: distributed.Client
) -> None:
    absent = f"s3://absent-{s3[0][5:][-20:]}"
    with pytest.raises(StorageError, match=rf"cannot .* {absent}/out") as caught:
        workflow(source, f"{absent}/out", read_kwargs=options(s3), write_kwargs=options(s3)).run(client)
    assert SECRET not in str(caught.value)


def test_a_server_that_does_not_answer_is_a_clear_error(s3: Bucket, tmp_path: Path) -> None:
    nowhere = {"endpoint_url": "http://127.0.0.1:1", "region_name": "us-east-1"}
    wish = {**s3[1], "client_kwargs": nowhere, "config_kwargs": {"retries": {"max_attempts": 0}}}
    with pytest.raises(StorageError, match=r"s3://bucket/in.*127\.0\.0\.1:1") as caught:
        workflow("s3://bucket/in", tmp_path / "out", read_kwargs={"storage_options": wish}).run(NOWHERE)
    assert SECRET not in str(caught.value)
