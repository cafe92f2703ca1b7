"""Complete means that it is there: what is missing is named and made again, and a result may be moved or copied."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import InputError, OutputConflictError, StorageError
from semdedup.dedup.cluster import run as clustering
from semdedup.dedup.threshold.extract import extract
from semdedup.report.write import write_report
from tests import helpers
from tests.helpers import NOWHERE, near_duplicates, stamps, workflow, write_embeddings
from tests.shards import make_clips, score_of, sharder, write_scores

pytestmark = pytest.mark.slow


def contents(out: Path) -> dict[str, bytes]:
    """Every file with its bytes; of the rows in quarantine that it is there, for it names the place of the input."""
    return {name: b"" if "_quarantine" in name else held for name, held in helpers.contents(out).items()}


@pytest.fixture(scope="module")
def made(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An input with a row that is set aside, and its result."""
    place = tmp_path_factory.mktemp("made")
    ids, rows = near_duplicates(np.random.default_rng(3), 90)
    rows[5] = 0
    write_embeddings(place / "in", ids, rows, 2)
    workflow(place / "in", place / "out").run(client)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of these: of the input with its times, for it is not ours."""
    shutil.copytree(made, tmp_path / "place")
    return tmp_path / "place"


FILES = {
    "clusters": ("kmeans", "kmeans_results/centroid=1/*.parquet"),
    "centroids": ("kmeans", "_kmeans_centroids.npy"),
    "quarantine": ("kmeans", "_quarantine/*.parquet"),
    "scores": ("pairwise", "pairwise_results/cluster_1.parquet"),
    "ids to drop": ("identify", "duplicates/*.parquet"),
}
HARMS: dict[str, Any] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_bytes(b""),
    "shorter": lambda file: file.write_bytes(file.read_bytes()[:-9]),
}


def harm(out: Path, pattern: str, how: str) -> Path:
    file = next(out.glob(pattern))
    HARMS[how](file)
    return file


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize(("step", "pattern"), FILES.values(), ids=FILES)
def test_what_is_missing_or_changed_is_named_and_made_again(
    step: str, pattern: str, how: str, place: Path, client: distributed.Client, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(place / "out")
    file = harm(place / "out", pattern, how)
    workflow(place / "in", place / "out", verbose=True).run(client)
    said = capsys.readouterr()
    name = file.relative_to(place / "out")
    assert f"{step}: made again, for 1 of its files changed: {name} " in said.out + said.err
    assert contents(place / "out") == before
    after = stamps(place)
    workflow(place / "in", place / "out").run(NOWHERE)
    assert stamps(place) == after


def test_a_flipped_byte_is_found_where_checksums_are_asked_for(place: Path, client: distributed.Client) -> None:
    before = contents(place / "out")
    file = next((place / "out").glob("duplicates/*.parquet"))
    content = bytearray(file.read_bytes())
    content[20] ^= 1
    file.write_bytes(content)
    workflow(place / "in", place / "out").run(NOWHERE)
    assert file.read_bytes() == content, "only sizes are looked at unless it is asked for"
    asked = workflow(place / "in", place / "out")
    for stage in asked.pipeline.stages:
        object.__setattr__(stage.io, "verify", True)
    asked.run(client)
    assert contents(place / "out") == before


def scores_of(place: Path) -> Any:
    return semdedup.load(str(place / "out"))


READERS = {
    "load": scores_of,
    "report": lambda place: write_report(str(place / "out"), output_path=str(place / "page.html"), verbose=False),
    "extract": lambda place: extract(str(place / "out"), 0.3, str(place / "at"), client=NOWHERE, verbose=False),
    "shard": lambda place: sharder(
        place / "clips", place / "ds", input_semantic_dedup_path=place / "out", semantic_dedup_epsilon=0.1
    ).run(NOWHERE),
}


@pytest.mark.parametrize("how", HARMS)
@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_readers_refuse_a_result_that_is_not_all_there(reader: Any, how: str, place: Path) -> None:
    make_clips(place / "clips", ["a"])
    file = harm(place / "out", "pairwise_results/cluster_1.parquet", how)
    with pytest.raises(InputError, match=r"step 'pairwise' wrote .* not as it left them") as found:
        reader(place)
    assert str(file) in str(found.value)


def test_a_table_that_is_not_on_record_is_not_read_with_ours(place: Path) -> None:
    rows = semdedup.load(str(place / "out")).total
    shutil.copy(place / "out/pairwise_results/cluster_1.parquet", place / "out/pairwise_results/cluster_9.parquet")
    assert scores_of(place).scores.n_rows == rows - 1
    assert len(scores_of(place).scores.files) == 3


# Shards


@pytest.mark.parametrize("name", ["00000.tar", "index.parquet", "dropped.parquet", "README.md"])
@pytest.mark.parametrize("how", HARMS)
def test_a_file_of_a_dataset_is_made_again(name: str, how: str, client: distributed.Client, tmp_path: Path) -> None:
    ids = [f"clip-{i}" for i in range(6)]
    make_clips(tmp_path / "clips", ids)
    write_scores(tmp_path / "scores", {clip: score_of(clip) for clip in ids})
    asked = sharder(
        tmp_path / "clips",
        tmp_path / "out",
        input_semantic_dedup_path=tmp_path / "scores",
        semantic_dedup_epsilon=0.5,
    )
    asked.run(client)
    before = contents(tmp_path / "out")
    harm(tmp_path / "out", name, how)
    asked.run(client)
    assert contents(tmp_path / "out") == before


# Moved, copied


@pytest.mark.parametrize("how", ["moved", "copied with new times"])
@pytest.mark.parametrize("cache", [False, True], ids=["one folder", "cache elsewhere"])
def test_a_result_that_was_moved_or_copied_is_still_complete(
    how: str, cache: bool, made: Path, client: distributed.Client, tmp_path: Path
) -> None:
    def places(root: Path) -> dict[str, Any]:
        return {"cache_path": root / "cache"} if cache else {}

    shutil.copytree(made / "in", tmp_path / "in")
    (tmp_path / "a").mkdir()
    workflow(tmp_path / "in", tmp_path / "a/out", **places(tmp_path / "a")).run(client)
    if how == "moved":
        os.rename(tmp_path / "a", tmp_path / "b")
    else:
        shutil.copytree(tmp_path / "a", tmp_path / "b", copy_function=shutil.copyfile)
    result = workflow(tmp_path / "in", tmp_path / "b/out", **places(tmp_path / "b")).run(NOWHERE)
    assert result.total == 90
    assert semdedup.load(str(tmp_path / "b/out")).total == 90


def test_clusters_of_ours_are_input_wherever_they_are(place: Path, client: distributed.Client) -> None:
    def score(clusters: Path) -> Any:
        stage = semdedup.PairwiseStage(input_path=str(clusters), output_path=str(place / "scores"), verbose=False)
        return stage

    score(place / "out" / "kmeans_results").run(client)
    shutil.copytree(place / "out", place / "copy", copy_function=shutil.copyfile)
    assert score(place / "copy" / "kmeans_results").run(NOWHERE).resumed


def test_a_run_that_was_killed_is_gone_on_with_where_it_was_copied_to(
    made: Path, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(made / "in", tmp_path / "in")

    def killed(*args: Any) -> Any:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(clustering, "write_rows", killed)
        with pytest.raises(KeyboardInterrupt):
            workflow(tmp_path / "in", tmp_path / "out").run(client)
    shutil.copytree(tmp_path / "out", tmp_path / "copy", copy_function=shutil.copyfile)
    with monkeypatch.context() as patch:  # the fit is not done again
        patch.setattr(clustering, "fit_centroids", killed)
        workflow(tmp_path / "in", tmp_path / "copy").run(client)
    assert contents(tmp_path / "copy") == contents(made / "out")


# Input that changes


@pytest.mark.parametrize("change", ["more rows", "a file more", "a file less", "touched"])
def test_input_that_changes_during_the_run_is_refused(
    change: str, made: Path, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shutil.copytree(made / "in", tmp_path / "in")
    real = clustering.write_rows

    def later(*args: Any) -> Any:
        found = real(*args)
        file = source / "part-0.parquet"
        if change == "more rows":
            shutil.copy(source / "part-1.parquet", file)
        elif change == "a file more":
            shutil.copy(file, source / "part-2.parquet")
        elif change == "a file less":
            (source / "part-1.parquet").unlink()
        else:
            os.utime(file, ns=(0, 0))
        return found

    monkeypatch.setattr(clustering, "write_rows", later)
    with pytest.raises(InputError, match="the input changed while the step 'kmeans' was reading it"):
        workflow(source, tmp_path / "out").run(client)
    assert not (tmp_path / "out" / "kmeans_results").exists()


# Records of semdedup 0.1


@pytest.fixture
def old(place: Path) -> Path:
    """The result as semdedup 0.1 recorded it."""
    file = place / "out" / "_manifest.json"
    steps = json.loads(file.read_text())["steps"]
    for step in steps.values():
        step["files"] = sorted(step["files"])
        step["temporary"] = []
    file.write_text(json.dumps({"format": 1, "steps": steps}))
    return place


def test_a_result_of_format_1_is_read_as_a_foreign_table(old: Path, client: distributed.Client) -> None:
    assert scores_of(old).total == 89
    assert extract(str(old / "out"), 0.3, str(old / "at"), client=client, verbose=False).total == 89
    assert Path(READERS["report"](old)).exists()


def test_a_run_on_a_result_of_format_1_stops_and_clears_it_where_asked_to(
    old: Path, client: distributed.Client
) -> None:
    before = stamps(old)
    with pytest.raises(OutputConflictError, match=r"semdedup 0\.1 made.*clear_output=True \(--overwrite\) makes them"):
        workflow(old / "in", old / "out").run(NOWHERE)
    assert stamps(old) == before
    (old / "out" / "notes.txt").write_text("mine")
    answer = contents(old / "out")
    workflow(old / "in", old / "out", clear_output=True).run(client)
    assert contents(old / "out") == answer
    assert json.loads((old / "out" / "_manifest.json").read_text())["format"] == 2


# Names that a record gives


@pytest.mark.parametrize("name", ["/srv/somewhere/notes.txt", "../notes.txt", "mine/notes.txt", "_scratch/../x"])
def test_a_record_that_was_made_to_harm_harms_nothing(name: str, place: Path) -> None:
    (place / "notes.txt").write_text("x")
    (place / "out" / "mine").mkdir()
    (place / "out" / "mine" / "notes.txt").write_text("x")
    file = place / "out" / "_manifest.json"
    content = json.loads(file.read_text())
    content["steps"]["kmeans"]["files"][name] = [1, ""]
    file.write_text(json.dumps(content))
    before = {key: when for key, when in stamps(place).items() if "_owner" not in key}
    with pytest.raises(OutputConflictError, match=r"Nothing was (changed|deleted)"):
        run_here(place)
    files = {key for key in before if Path(key).is_file()}
    assert {key: when for key, when in stamps(place).items() if key in files} == {key: before[key] for key in files}


def run_here(place: Path) -> None:
    with distributed.Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0") as client:
        workflow(place / "in", place / "out", clear_output=True).run(client)


# Faults of storage are not content


@pytest.mark.parametrize("error", ["EIO", "ESTALE", "ETIMEDOUT", "EMFILE"])
@pytest.mark.parametrize("lasting", [False, True], ids=["once", "lasting"])
def test_a_fault_while_a_file_is_read_skips_nothing(
    error: str, lasting: bool, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno

    source = shutil.copytree(made / "in", tmp_path / "in")
    monkeypatch.setattr("semdedup.storage.faults.PAUSES_S", (0.0, 0.0))
    real, left = pq.ParquetFile.iter_batches, [1]

    def flaky(self: Any, *args: Any, **kwargs: Any) -> Any:
        looked_at = lasting and args[0] == 1  # by the client, before anything is done
        if left and not looked_at:
            if not lasting:
                left.pop()
            raise OSError(getattr(errno, error), os.strerror(getattr(errno, error)))
        return real(self, *args, **kwargs)

    with distributed.Client(processes=False, n_workers=1, dashboard_address="127.0.0.1:0") as client:
        with monkeypatch.context() as patch:
            patch.setattr(pq.ParquetFile, "iter_batches", flaky)
            asked = workflow(source, tmp_path / "out", skip_bad_files=True)
            if lasting:
                with pytest.raises(StorageError, match=r"cannot read .*part-\d\.parquet: "):
                    asked.run(client)
                assert (tmp_path / "out" / "_manifest.json").exists(), "what was done is kept"
            else:
                assert asked.run(client).total == 90
        result = workflow(source, tmp_path / "out", skip_bad_files=True).run(client)
    assert (result.total, result.skipped_files) == (90, ())
