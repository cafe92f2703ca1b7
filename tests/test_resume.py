"""Runs that are killed, started again, changed or cleared: complete or absent, nothing repeated, nothing mixed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pytest

from semdedup import IdentifyDuplicatesStage, InputError, OutputConflictError
from tests.helpers import (
    DRIVER,
    NOWHERE,
    assert_same_answer,
    contents,
    files_below,
    kill,
    near_duplicates,
    read_all_scores,
    read_answer,
    read_folder,
    set_task_bytes,
    stamps,
    start_driver,
    wait_for,
    work_of_driver,
    workflow,
    write_embeddings,
    write_texts,
)

ROWS = 400
TASK_BYTES = 3000  # 46 rows of 16 elements: some clusters are larger, some smaller
PARAMETERS = {"n_clusters": 8, "max_iter": 5, "eps": 0.01}


@pytest.fixture(scope="module")
def emb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_embeddings(tmp_path_factory.mktemp("in"), *near_duplicates(np.random.default_rng(4), ROWS, 16), 3)


@pytest.fixture
def tiny_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many partitions, buckets and tiles, so that there is a middle to be killed in."""
    set_task_bytes(monkeypatch, TASK_BYTES)


@pytest.fixture(scope="module")
def uninterrupted(emb: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run that nothing happened to."""
    out = tmp_path_factory.mktemp("uninterrupted") / "out"
    with pytest.MonkeyPatch.context() as patch:
        set_task_bytes(patch, TASK_BYTES)
        workflow(emb, out, **PARAMETERS).run(client)
    return out


def start(place: Path, emb: Path, out: Path, scheduler: str | None = None) -> subprocess.Popen:
    """Start a run over many small tasks."""
    parameters = {**PARAMETERS, "input_path": str(emb), "output_path": str(out)}
    return start_driver(place, parameters, task_bytes=TASK_BYTES, scheduler=scheduler)


def assert_finished_alike(out: Path, expected: Path) -> None:
    """Assert that an output has the same files with the same bytes as another, and nothing temporary."""
    found = contents(out)
    assert found.keys() == contents(expected).keys()
    assert found == contents(expected)


# Killed


@pytest.mark.slow
def test_a_driver_killed_in_step_after_step_ends_with_the_same_bytes(
    emb: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    done: dict[str, int] = {}
    killed_in = ("kmeans-*/journal/assign", "kmeans-*/journal/write-clusters", "pairwise-*/journal/compare-spans")
    for step in (*killed_in, None):
        process = start(tmp_path, emb, out)
        if step is None:
            assert process.wait(120) == 0, (tmp_path / "log").read_text()
        else:
            wait_for(out, f"_scratch/{step}/*.json", process)
            kill(process)
            assert not (out / "duplicates").exists()
            assert (out / "kmeans_results").exists() == step.startswith("pairwise")
        log = (tmp_path / "log").read_text()
        for name, count in done.items():
            assert re.search(rf"{name.replace('-', ' ')}: {count} of \d+ \w+ were done by an earlier run", log), log
        if step:
            word = step.split("/")[-1]
            done = {word: len(list(out.glob(f"_scratch/{step}/*.json")))}
    assert "kmeans: complete already" in log
    assert_finished_alike(out, uninterrupted)


@pytest.mark.slow
def test_a_driver_killed_on_a_foreign_cluster_ends_with_the_same_bytes_and_repeats_nothing(
    emb: Path, uninterrupted: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "kmeans_results").mkdir(parents=True)
    (out / "kmeans_results" / "notes.txt").write_text("so that the clusters are moved file by file")
    moments = [
        "_scratch/kmeans-*/ids/*",
        "_scratch/kmeans-*/fit/*.npy",
        "_scratch/kmeans-*/journal/write-clusters/*.json",
        "kmeans_results/centroid=*",
        "_scratch/pairwise-*/journal/compare-spans/*.json",
    ]
    for moment in moments:
        journal = {path: when for path, when in stamps(out).items() if path.endswith(".json") and "_scratch" in path}
        process = start(tmp_path, emb, out, client.scheduler.address)
        wait_for(out, moment, process)
        kill(process)
        now = stamps(out)
        assert all(now.get(path, when) == when for path, when in journal.items())
    process = start(tmp_path, emb, out, client.scheduler.address)
    assert process.wait(120) == 0, (tmp_path / "log").read_text()
    (out / "kmeans_results" / "notes.txt").unlink()
    assert_finished_alike(out, uninterrupted)


@pytest.mark.usefixtures("tiny_tasks")
@pytest.mark.parametrize(
    "moment",
    [
        pytest.param("kmeans-*/fit/*.npy", marks=pytest.mark.slow),
        pytest.param("kmeans-*/journal/assign/*.json", marks=pytest.mark.slow),
        "pairwise-*/journal/compare-spans/*.json",
    ],
)
def test_a_worker_killed_in_the_middle_changes_nothing(
    moment: str, emb: Path, uninterrupted: Path, mortal: Callable[[], distributed.Client], tmp_path: Path
) -> None:
    client = mortal()
    victim = next(iter(client.run(os.getpid).values()))

    def kill_one() -> None:
        wait_for(tmp_path / "out", f"_scratch/{moment}")
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill_one, daemon=True)
    killer.start()
    workflow(emb, tmp_path / "out", **PARAMETERS).run(client)
    killer.join(10)
    assert not Path(f"/proc/{victim}/exe").exists()
    assert_finished_alike(tmp_path / "out", uninterrupted)


FULL_DISK = """
mount -t tmpfs -o size={small} none {out} || exit 77
{python} driver.py '{arguments}' > first.log 2>&1 && exit 78
mount -o remount,size=64m {out} || exit 77
{python} driver.py '{arguments}' > second.log 2>&1 || exit 79
cp -r {out} {copy}
"""


@pytest.mark.slow
def test_a_full_disk_is_a_clear_error_and_the_run_goes_on_when_there_is_room(
    emb: Path, uninterrupted: Path, client: distributed.Client, tmp_path: Path
) -> None:
    if shutil.which("unshare") is None or subprocess.run(["unshare", "-Urm", "true"], check=False).returncode:
        pytest.skip("mounting a small disk takes a kernel that lets users make namespaces")
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "out").mkdir()
    parameters = {**PARAMETERS, "input_path": str(emb), "output_path": str(tmp_path / "out")}
    script = FULL_DISK.format(
        small="250k",
        out=tmp_path / "out",
        copy=tmp_path / "copy",
        python=sys.executable,
        arguments=json.dumps([TASK_BYTES, work_of_driver(TASK_BYTES), None, 1, parameters]),
    )
    ended = subprocess.run(["unshare", "-Urm", "sh", "-c", script], cwd=tmp_path, check=False)
    first = (tmp_path / "first.log").read_text()
    assert ended.returncode == 0, first + (tmp_path / "second.log").read_text()
    assert re.search(r"StorageError cannot write .*No space left on device\. Free some space and run the same", first)
    assert "were done by an earlier run" in (tmp_path / "second.log").read_text()
    assert_finished_alike(tmp_path / "copy", uninterrupted)


# Started again


@pytest.fixture
def small(tmp_path: Path) -> Path:
    return write_embeddings(tmp_path / "in", *near_duplicates(np.random.default_rng(6), 60), 2)


@pytest.mark.parametrize("cache", [False, True], ids=["one folder", "cache elsewhere"])
@pytest.mark.parametrize("eps", [None, 0.01], ids=["scores only", "with eps"])
def test_a_run_with_nothing_to_do_changes_no_byte_and_needs_no_cluster(
    eps: float | None, cache: bool, small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(small, ["zero"], np.zeros((1, 6)), names=["zero.parquet"])
    places = {"cache_path": tmp_path / "cache"} if cache else {}
    first = workflow(small, tmp_path / "out", eps=eps, **places).run(client)
    before = stamps(tmp_path)
    again = workflow(small, tmp_path / "out", eps=eps, **places).run(NOWHERE)
    assert stamps(tmp_path) == before
    assert (again.total, again.duplicates, again.quarantined) == (first.total, first.duplicates, first.quarantined)
    assert again.paths == first.paths


def test_nothing_temporary_is_left_after_success(uninterrupted: Path) -> None:
    top = {path.name for path in uninterrupted.iterdir()}
    tables = {"kmeans_results", "pairwise_results", "duplicates"}
    assert top == {*tables, "_forest", "_kmeans_centroids.npy", "_manifest.json", "_progress.json"}
    assert not [path for path in files_below(uninterrupted) if ".tmp" in path]


@pytest.mark.parametrize(
    "parameters", [{"pairwise_batch_size": 7}, {"files_per_partition": 1}, {"max_samples_per_batch": 9}], ids=str
)
def test_parameters_that_no_answer_depends_on_may_change(
    parameters: dict[str, Any], small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(small, tmp_path / "out").run(client)
    before = stamps(tmp_path)
    workflow(small, tmp_path / "out", **parameters).run(NOWHERE)
    assert stamps(tmp_path) == before


def test_scratch_that_is_on_no_record_is_not_taken_for_work_done(
    small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(small, tmp_path / "clean").run(client)
    stale = tmp_path / "out" / "_scratch" / "kmeans-0123abcd" / "journal" / "scan" / "0.json"
    stale.parent.mkdir(parents=True)
    stale.write_text(json.dumps({"rows": 1, "hashes": 0, "lengths": {}, "bad": []}))
    workflow(small, tmp_path / "out").run(client)
    assert_same_answer(tmp_path / "out", read_answer(tmp_path / "clean"))
    stale.parent.mkdir(parents=True)
    stale.write_text("of a run that was killed at its very end")
    workflow(small, tmp_path / "out").run(NOWHERE)
    assert not (tmp_path / "out" / "_scratch").exists()


def test_what_a_task_of_a_killed_run_writes_late_does_not_get_into_the_next_run(
    emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    process = start(tmp_path, emb, out, client.scheduler.address)
    wait_for(out, "_scratch/kmeans-*/final/*/*/*.parquet", process)
    kill(process)
    left = tmp_path / "left"
    shutil.copytree(next(out.glob("_scratch/kmeans-*")), left, ignore=shutil.ignore_patterns("_*.tmp"))
    before = next(out.glob("_scratch/kmeans-*"))

    def write_late() -> None:
        while before.exists() or not list(out.glob("_scratch/kmeans-*/*")):
            time.sleep(0.001)
        shutil.copytree(left, before)

    late = threading.Thread(target=write_late, daemon=True)
    late.start()
    workflow(emb, out, n_clusters=2, clear_output=True).run(client)
    late.join(10)
    workflow(emb, tmp_path / "fresh", n_clusters=2).run(client)
    assert_same_answer(out, read_answer(tmp_path / "fresh"))
    workflow(emb, out, n_clusters=2).run(NOWHERE)
    assert files_below(out) == files_below(tmp_path / "fresh")


# Changed

CHANGES: dict[str, tuple[dict[str, Any], str]] = {
    "n_clusters": ({"n_clusters": 4}, r"'kmeans'.*\n.*n_clusters: 3 there, 4 now"),
    "random_state": ({"random_state": 1}, r"'kmeans'.*\n.*random_state: 42 there, 1 now"),
    "embedding_dim": ({"embedding_dim": 6}, r"'kmeans'.*\n.*embedding_dim: None there, 6 now"),
    "init": ({"init": np.eye(6)[:3]}, r"'kmeans'.*\n.*init: 'k-means\+\+' there"),
    "which_to_keep": ({"which_to_keep": "easy"}, r"'pairwise'.*\n.*ranking: .* there, .* now"),
    "distance_metric": ({"distance_metric": "l2"}, r"'pairwise'.*\n.*ranking: .*cosine.* there, .*l2.* now"),
    "eps": ({"eps": 0.2}, r"'identify'.*\n.*eps: 0.01 there, 0.2 now"),
}


@pytest.mark.parametrize(("parameters", "words"), CHANGES.values(), ids=CHANGES)
def test_other_parameters_are_refused_with_the_difference_and_the_way_out(
    parameters: dict[str, Any], words: str, small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(small, tmp_path / "out").run(client)
    before = stamps(tmp_path)
    with pytest.raises(OutputConflictError, match=words) as caught:
        workflow(small, tmp_path / "out", **parameters).run(NOWHERE)
    assert "clear_output=True" in str(caught.value)
    assert str(tmp_path / "out") in str(caught.value)
    assert stamps(tmp_path) == before


@pytest.mark.parametrize("change", ["a file more", "a file less", "a file changed"])
def test_other_input_is_refused_with_the_difference(
    change: str, small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(small, tmp_path / "out").run(client)
    if change == "a file more":
        write_embeddings(small, ["new"], np.ones((1, 6)), names=["new.parquet"])
        words = "input: 2 files of .* there, 3 files of .* now"
    elif change == "a file less":
        (small / "part-1.parquet").unlink()
        words = "input: 2 files of .* there, 1 files of .* now"
    else:
        write_embeddings(small, ["new"], np.ones((1, 6)), names=["part-1.parquet"])
        words = "input: 2 files of .* there, 2 files of .* now, changed since"
    before = stamps(tmp_path)
    with pytest.raises(OutputConflictError, match=words):
        workflow(small, tmp_path / "out").run(NOWHERE)
    assert stamps(tmp_path) == before


def test_scores_of_a_changed_folder_are_not_taken_for_those_compared_before(
    small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(small, tmp_path / "out", eps=None).run(client)
    scores = tmp_path / "out" / "pairwise_results"

    def identify() -> IdentifyDuplicatesStage:
        return IdentifyDuplicatesStage(
            eps=0.01, input_path=str(scores), output_path=str(tmp_path / "drop"), verbose=False
        )

    identify().run(client)
    (scores / "cluster_1.parquet").unlink()
    with pytest.raises(InputError, match=r"'pairwise' wrote to .*cluster_1\.parquet is missing.*makes anew"):
        identify().run(NOWHERE)


# Cleared


def foreign_files(out: Path) -> dict[str, str]:
    """Put files and folders of somebody else between ours; return what they hold."""
    held = {
        "notes.txt": "mine",
        "_private/x.parquet": "not even Parquet",
        "kmeans_results/notes.txt": "mine too",
        "kmeans_results/centroid=2/_theirs": "in a folder of ours",
        "pairwise_results/_notes": "x",
        "duplicates/_readme.md": "y",
    }
    write_texts(out, held)
    for name in ("empty", "kmeans_results/empty"):
        (out / name).mkdir()
    return held


def test_clear_output_deletes_what_is_ours_and_nothing_else(
    small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    write_embeddings(small, ["zero"], np.zeros((1, 6)), names=["zero.parquet"])
    workflow(small, out, n_clusters=3).run(client)
    held = foreign_files(out)
    (small / "zero.parquet").unlink()
    result = workflow(small, out, n_clusters=2, clear_output=True).run(client)
    assert {name: (out / name).read_text() for name in held} == held
    assert (out / "empty").is_dir()
    assert (out / "kmeans_results" / "empty").is_dir()
    ours = set(files_below(out)) - held.keys()
    workflow(small, tmp_path / "fresh", n_clusters=2).run(client)
    assert ours == set(files_below(tmp_path / "fresh"))
    assert_same_answer(out, read_answer(tmp_path / "fresh"))
    assert result.quarantined == {}


@pytest.mark.parametrize("eps", [None, 0.01], ids=["scores only", "with eps"])
def test_clear_output_clears_output_and_cache(
    eps: float | None, small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(small, ["zero"], np.zeros((1, 6)), names=["zero.parquet"])
    workflow(small, tmp_path / "out", cache_path=tmp_path / "cache").run(client)
    write_embeddings(small, ["null"], np.full((1, 6), np.nan), names=["zero.parquet"])
    again = workflow(small, tmp_path / "out", cache_path=tmp_path / "cache", eps=eps, n_clusters=2, clear_output=True)
    assert again.run(client).quarantined == {"not_finite": 1}
    assert read_folder(tmp_path / "out" / "_quarantine")["reason"].tolist() == ["not_finite"]
    assert (tmp_path / "out" / "duplicates").exists() == (eps is not None)
    assert len(list((tmp_path / "cache" / "pairwise_results").iterdir())) == 2
    cache = json.loads((tmp_path / "out" / "_manifest.json").read_text())["cache"]
    assert cache["steps"]["kmeans"]["parameters"]["n_clusters"] == 2


def test_a_cache_elsewhere_is_not_taken_for_results_in_the_output(
    small: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(small, tmp_path / "out", cache_path=tmp_path / "cache", eps=None).run(client)
    workflow(small, tmp_path / "out", eps=None).run(client)
    assert read_all_scores(tmp_path / "out").equals(read_all_scores(tmp_path / "cache"))


def test_a_run_killed_while_its_files_were_put_in_place_can_be_cleared_but_not_changed(
    emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / "kmeans_results").mkdir(parents=True)
    (out / "kmeans_results" / "notes.txt").write_text("so that the clusters are moved file by file")
    process = start(tmp_path, emb, out, client.scheduler.address)
    wait_for(out, "kmeans_results/centroid=*", process)
    kill(process)
    with pytest.raises(OutputConflictError, match="n_clusters: 8 there, 2 now"):
        workflow(emb, out, n_clusters=2, eps=None).run(NOWHERE)
    workflow(emb, out, n_clusters=2, eps=None, clear_output=True).run(client)
    clusters = sorted(path.name for path in (out / "kmeans_results").iterdir())
    assert clusters == ["centroid=0", "centroid=1", "notes.txt"]
    assert len(read_all_scores(out)) == ROWS


def test_a_refused_run_clears_nothing(small: Path, client: distributed.Client, tmp_path: Path) -> None:
    workflow(small, tmp_path / "out").run(client)
    before = stamps(tmp_path / "out")
    shutil.rmtree(small)
    small.mkdir()
    (small / "a.parquet").write_bytes(b"broken")
    with pytest.raises(Exception, match=r"a\.parquet"):
        workflow(small, tmp_path / "out", clear_output=True).run(client)
    assert stamps(tmp_path / "out") == before
