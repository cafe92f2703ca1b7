"""Leaks between two sets, against ten lines of NumPy."""

import itertools
import re
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import distributed
import fsspec
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

import semdedup
from semdedup import (
    BadFileError,
    CrossStage,
    DuplicateIdError,
    IdentifyDuplicatesStage,
    InputError,
    LeakResult,
    OutputConflictError,
    ParameterError,
    Pipeline,
    cli,
    find_leaks,
    write_report,
)
from semdedup.dedup import sizes
from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.input.schema import InputSchema
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.leaks.tasks import Best, LeakTask, best_among, better_of, compare_span, lay_out_block, write_block
from semdedup.dedup.options import InputOptions
from semdedup.dedup.sizes import WORK_PER_TASK, count_tasks
from semdedup.storage.location import Location
from tests.helpers import (
    NOWHERE,
    assert_nothing_left,
    contents,
    embedding_table,
    ids_of,
    kill,
    read_all_scores,
    read_folder,
    set_task_bytes,
    stamps,
    start_program,
    wait_for,
    workflow,
    write_embeddings,
)
from tests.test_similarity import KINDS, make

DIM = 6
TASK_BYTES = 600  # 25 rows of 6 elements: some blocks, many spans, chunks of 6 rows


def reference(a_ids: Sequence[Any], a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    """Score and match of each row of B by the definition: the first of equals has the smallest id."""
    order = sorted(range(len(a_ids)), key=lambda i: a_ids[i])
    queries, rows = unit_rows(b), unit_rows(a[order])
    similarity = (queries.astype(np.float64) @ rows.astype(np.float64).T).clip(0, 1).astype(np.float32)
    similarity[(queries[:, None] == rows).all(axis=2)] = 1
    return similarity.max(axis=1), [a_ids[order[i]] for i in similarity.argmax(axis=1)]


def reference_table(sets: "Sets") -> pd.DataFrame:
    """The table of scores of two sets, by id."""
    score, match = reference(sets.a_ids, sets.a, sets.b)
    table = pd.DataFrame({"id": sets.b_ids, "max_id": match, "cosine_sim_score": score})
    return table.sort_values("id", ignore_index=True)


class Sets:
    """Ids and rows of two sets: B has copies, near copies and strangers; A has rows that stand there several times."""

    def __init__(self, seed: int = 0, n_a: int = 180, n_b: int = 70) -> None:
        rng = np.random.default_rng(seed)
        self.a = rng.normal(size=(n_a, DIM)).astype(np.float32)
        self.a[n_a // 2 : n_a // 2 + 20] = self.a[:20]
        self.b = rng.normal(size=(n_b, DIM)).astype(np.float32)
        self.b[:20] = self.a[:20]
        self.b[20:40] = self.a[30:50] + rng.normal(scale=0.02, size=(20, DIM)).astype(np.float32)
        self.a_ids = [f"a{i:04d}" for i in rng.permutation(n_a)]
        self.b_ids = [f"b{i:04d}" for i in rng.permutation(n_b)]

    def write(self, place: Path, files: tuple[int, int] = (3, 2)) -> tuple[str, str]:
        """Write both as Parquet folders."""
        a = write_embeddings(place / "a", self.a_ids, self.a, files[0])
        return str(a), str(write_embeddings(place / "b", self.b_ids, self.b, files[1]))


@pytest.fixture(scope="module")
def sets() -> Sets:
    return Sets()


@pytest.fixture
def tiny_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several blocks, many spans and chunks."""
    set_task_bytes(monkeypatch, TASK_BYTES)


def leaks(a: Any, b: Any, out: Path, client: Any, **options: Any) -> LeakResult:
    return find_leaks(a, b, str(out), client=client, verbose=False, **options)


def assert_by_the_definition(out: Path, sets: Sets) -> None:
    pd.testing.assert_frame_equal(read_all_scores(out), reference_table(sets), check_exact=True)


# The comparison


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 60),
    m=st.integers(1, 60),
    dim=st.integers(1, 12),
    kind=st.sampled_from(KINDS),
    whole_ids=st.booleans(),
    data=st.data(),
)
def test_any_cut_of_a_and_any_order_of_its_parts_give_the_definition(
    xp: ModuleType, seed: int, n: int, m: int, dim: int, kind: str, whole_ids: bool, data: st.DataObject
) -> None:
    rng = np.random.default_rng(seed)
    rows = make(rng, n + m, dim, kind)[rng.permutation(n + m)]
    b, a = rows[:n], rows[n:]
    numbers = rng.choice(3 * m, m, replace=False)
    ids = [int(i) for i in numbers] if whole_ids else [f"clip-{i}" for i in numbers]
    cuts = sorted(data.draw(st.sets(st.integers(1, m), max_size=6)) | {0, m})
    parts = [slice(low, high) for low, high in itertools.pairwise(cuts)]
    queries = xp.asarray(b)
    best = Best.none(n, pa.array(ids).type)
    for part in data.draw(st.permutations(parts)):
        best = better_of(best, best_among(queries, a[part], pa.array(ids[part])))
    score, match = reference(ids, a, b)
    np.testing.assert_array_equal(best.score, score)
    assert best.ids.to_pylist() == match


def test_nothing_compared_with_nothing() -> None:
    none = Best.none(2, pa.string())
    found = Best(np.array([0.5, 0], dtype=np.float32), pa.array(["x", "y"]))
    for best in (better_of(none, found), better_of(found, none)):
        assert (best.score.tolist(), best.ids.to_pylist()) == ([0.5, 0], ["x", "y"])
    assert better_of(none, none).ids.null_count == 2
    rows = np.ones((1, 1), dtype=np.float32)
    assert len(best_among(rows[:0], rows, pa.array([1])).ids) == 0


@given(
    n_slots=st.integers(1, 1000),
    a_rows=st.integers(1, 10**9),
    b_rows=st.integers(1, 10**8),
    dim=st.integers(1, 2000),
    most=st.integers(sizes.SMALLEST_TASK, sizes.LARGEST_TASK),
)
def test_blocks_fit_and_tasks_are_many_enough_and_short_enough(
    n_slots: int, a_rows: int, b_rows: int, dim: int, most: int
) -> None:
    n_blocks, n_spans = count_tasks(n_slots, a_rows * dim, b_rows * dim, b_rows, most)
    assert 4 * b_rows * dim / n_blocks <= most
    assert 2 * a_rows * b_rows * dim / (n_blocks * n_spans) <= WORK_PER_TASK
    enough = n_blocks * n_spans >= sizes.PARTITIONS_PER_SLOT * n_slots
    assert enough or 4 * a_rows * dim / n_spans <= 2 * sizes.SMALLEST_TASK


def test_a_small_b_is_one_block_and_a_is_cut() -> None:
    mib = 1 << 20
    assert count_tasks(16, 25_600 * mib, 2 * mib, 1 << 12, 256 * mib)[0] == 1
    assert count_tasks(16, 2 * mib, 25_600 * mib, 1 << 25, 256 * mib)[0] >= 400


def test_the_tasks_compute_the_definition_on_every_backend(backend: Any, sets: Sets, tmp_path: Path) -> None:
    a, b = sets.write(tmp_path, (1, 1))
    schema = InputSchema(InputOptions(), pa.string(), pa.schema([]))
    here = Location.of(tmp_path)
    work = Workspace(schema, here, here / "scratch", {})
    task = LeakTask(work, work, DIM, 16, here / "scratch", here / "pairwise_results", here / "aside", backend, {})
    blocks = [(Slice(f"{b}/part-0.parquet", "b", low, low + 35),) for low in (0, 35)]
    spans = [(Slice(f"{a}/part-0.parquet", "a", low, low + 60),) for low in (0, 60, 120)]
    for number, block in enumerate(blocks):
        assert lay_out_block(task, (number, block))["rows"] == 35
        for index, span in enumerate(spans):
            assert compare_span(task, (number, index, span)) == {"rows": 60, "left_out": {}}
        assert write_block(task, (number, len(spans)))["rows"] == 35
    assert_by_the_definition(tmp_path, sets)


# The whole


@pytest.mark.parametrize(
    ("files", "task_bytes", "reverse"),
    [((1, 1), None, False), ((3, 2), TASK_BYTES, False), ((7, 5), 2 * TASK_BYTES, True), ((2, 9), 24, True)],
)
def test_the_answer_does_not_depend_on_files_or_blocks(
    files: tuple[int, int],
    task_bytes: int | None,
    reverse: bool,
    sets: Sets,
    client: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if task_bytes is not None:
        set_task_bytes(monkeypatch, task_bytes)
    written = Sets(n_a=60, n_b=45) if task_bytes == 24 else Sets()
    expected = reference_table(written)
    if reverse:
        for name in ("a", "a_ids", "b", "b_ids"):
            setattr(written, name, getattr(written, name)[::-1])
    a, b = written.write(tmp_path, files)
    result = leaks(a, b, tmp_path / "out", client, eps=0.01)
    pd.testing.assert_frame_equal(read_all_scores(tmp_path / "out"), expected, check_exact=True)
    dropped = expected["id"][expected["cosine_sim_score"] >= np.float32(1 - 0.01)].tolist()
    assert read_folder(tmp_path / "out" / "duplicates")["id"].tolist() == sorted(dropped)
    assert (result.a_rows, result.b_rows) == (len(written.a), len(written.b))
    assert (result.leaks, result.clean, result.quarantined) == (len(dropped), len(written.b) - len(dropped), {})
    assert not (tmp_path / "out" / "_scratch").exists()
    tables = {path.name for path in (tmp_path / "out" / "pairwise_results").iterdir()}
    assert tables == {f"cluster_{i}.parquet" for i in range(len(tables))}
    assert (len(tables) > 1) == (task_bytes is not None)


@pytest.mark.usefixtures("tiny_tasks")
def test_one_worker_gives_the_same(sets: Sets, tmp_path: Path) -> None:
    a, b = sets.write(tmp_path)
    with (
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as alone,
    ):
        leaks(a, b, tmp_path / "out", alone)
    assert_by_the_definition(tmp_path / "out", sets)


def test_rows_that_are_bad_or_show_nothing(client: distributed.Client, tmp_path: Path) -> None:
    right, left, up = [1.0, 0, 0], [-1.0, 0, 0], [0, 1.0, 0]
    nan, zero, short = [float("nan"), 0, 0], [0.0, 0, 0], [1.0, 0]
    a_rows = [right, up, right, nan, zero, None, short, right]
    a_ids = ["a3", "a2", "a1", "a-nan", "a-zero", "a-null", "a-short", None]
    b_rows = [right, right, left, up, nan, zero, None, short, right]
    b_ids = ["leak", "black", "other", "a2", "b-nan", "b-zero", "b-null", "b-short", None]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    black = [[False, False, True, None, None, None, None, None], [None, True, False, False, *[None] * 5]]
    for name, ids, rows, low in (("a", a_ids, a_rows, black[0]), ("b", b_ids, b_rows, black[1])):
        pq.write_table(embedding_table(ids, rows, low_information=pa.array(low)), tmp_path / name / "x.parquet")
    result = leaks(str(tmp_path / "a"), str(tmp_path / "b"), tmp_path / "out", client, eps=0)
    found = {row["id"]: (row["max_id"], row["cosine_sim_score"]) for row in _rows(tmp_path / "out")}
    assert found == {"leak": ("a3", 1), "black": ("black", 0), "other": ("a2", 0), "a2": ("a2", 1)}
    assert result.quarantined == {"not_finite": 1, "zero": 1, "null": 1, "wrong_length": 1, "null_id": 1}
    assert result.left_out == {**result.quarantined, "low_information": 1}
    assert (result.leaks, result.clean, result.low_information, result.b_rows, result.a_rows) == (2, 2, 1, 9, 8)
    aside = read_folder(tmp_path / "out" / "_quarantine")
    assert dict(zip(aside["id"], aside["reason"], strict=True))["b-short"] == "wrong_length"
    assert set(aside["source"]) == {str(tmp_path / "b" / "x.parquet")}
    loaded = semdedup.load(str(tmp_path / "out"))
    assert (loaded.total, loaded.quarantined) == (9, result.quarantined)
    assert "is a duplicate of a2" in str(loaded.explain("a2"))
    assert "compared with nothing" in str(loaded.explain("black"))
    assert "left out of A" in str(result)


def _rows(out: Path) -> list[dict[str, Any]]:
    return read_all_scores(out).to_dict("records")


def test_a_b_of_which_no_row_can_be_compared_is_all_quarantined(client: distributed.Client, tmp_path: Path) -> None:
    a, b = _set(tmp_path / "a", EYE), _set(tmp_path / "b", [[0.0, 0, 0]] * 2)
    result = leaks(a, b, tmp_path / "out", client)
    assert (result.leaks, result.clean, result.b_rows, result.quarantined) == (0, 0, 2, {"zero": 2})
    assert result.pairs() == []
    assert Path(write_report(str(tmp_path / "out"), verbose=False)).exists()


def test_the_stage_runs_alone_and_in_a_pipeline(client: distributed.Client, tmp_path: Path) -> None:
    a, b = _set(tmp_path / "a", EYE), _set(tmp_path / "b", EYE)
    cross = CrossStage(against=a, input_path=b, output_path=str(tmp_path / "scores"), verbose=False)
    identify = IdentifyDuplicatesStage(eps=0, output_path=str(tmp_path / "ids"), verbose=False)
    Pipeline().add_stage(cross).add_stage(identify).run(client)
    assert (tmp_path / "scores" / "cluster_0.parquet").exists()
    assert ids_of(tmp_path / "ids" / "part-0.parquet") == ["b0", "b1", "b2"]
    with pytest.raises(ParameterError, match="name the embeddings of A"):
        CrossStage(input_path=b, output_path=str(tmp_path / "other")).run(NOWHERE)


def test_an_id_twice_in_a_does_no_harm(client: distributed.Client, tmp_path: Path) -> None:
    a = write_embeddings(tmp_path / "a", [7, 7, 1], np.eye(3, dtype=np.float32), 2)
    b = write_embeddings(tmp_path / "b", [7, 1], np.eye(3, dtype=np.float32)[:2])
    assert leaks(str(a), str(b), tmp_path / "out", client).leaks == 2
    assert [(row["id"], row["max_id"]) for row in _rows(tmp_path / "out")] == [(1, 7), (7, 7)]


def test_the_output_of_split_and_its_recommended_eps(client: distributed.Client, tmp_path: Path) -> None:
    for name, rows in (("train", [[1, 0.0], [0, 1.0]]), ("eval", [[1, 0.5]])):
        folder = tmp_path / name / "dct3d_embd_parquet"
        folder.mkdir(parents=True)
        (tmp_path / name / "clips").mkdir()
        pq.write_table(pa.table({"other": [1]}), tmp_path / name / "clips" / "not_embeddings.parquet")
        metadata = {b"semdedup.embedder": b"dct3d", b"semdedup.recommended_eps": b"0.25"}
        ids = [f"{name}-{i}" for i in range(len(rows))]
        pq.write_table(embedding_table(ids, rows).replace_schema_metadata(metadata), folder / "part-00000.parquet")
    train, evaluation = str(tmp_path / "train"), str(tmp_path / "eval")
    result = leaks(train, evaluation, tmp_path / "out", client)
    assert (result.eps, result.leaks) == (0.25, 1)
    assert result.eps_from.startswith("recommended")
    (tmp_path / "eval" / "hf_embd_parquet").mkdir()
    with pytest.raises(InputError, match="dct3d_embd_parquet, hf_embd_parquet"):
        leaks(train, evaluation, tmp_path / "second", NOWHERE)
    several = [str(tmp_path / "train" / "dct3d_embd_parquet" / "*.parquet"), train]
    assert leaks(several, evaluation + "/dct3d_embd_parquet", tmp_path / "third", client, eps=0).leaks == 0


# Refused


def _set(folder: Path, rows: Any, ids: Any = None, metadata: dict | None = None, **others: Any) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    table = embedding_table([f"{folder.name}{i}" for i in range(len(rows))] if ids is None else ids, rows, **others)
    pq.write_table(table.replace_schema_metadata(metadata), folder / "part.parquet")
    return str(folder)


EYE = np.eye(3).tolist()


@pytest.mark.parametrize(
    ("a", "b", "error", "words"),
    [
        ({"rows": EYE}, {"rows": [[1, 0]]}, InputError, ["length 3", "length 2", "/a", "/b"]),
        ({"rows": EYE}, {"rows": EYE, "ids": ["x", "y", "x"]}, DuplicateIdError, ["'x': 2 times"]),
        ({"rows": [[0, 0, 0]]}, {"rows": EYE}, InputError, ["no row of", "/a", "1 zero"]),
        ({"rows": [None]}, {"rows": EYE}, InputError, ["/a holds no embeddings"]),
        ({"rows": EYE}, {"rows": [None, []]}, InputError, ["/b holds no embeddings"]),
        ({"rows": []}, {"rows": EYE}, InputError, ["no rows in", "/a"]),
    ],
)
def test_content_that_cannot_be_compared_is_refused_and_nothing_is_left(
    a: Any, b: Any, error: type, words: list[str], client: distributed.Client, tmp_path: Path
) -> None:
    with pytest.raises(error) as raised:
        leaks(_set(tmp_path / "a", **a), _set(tmp_path / "b", **b), tmp_path / "out", client)
    assert all(word in str(raised.value) for word in words), raised.value
    assert_nothing_left(tmp_path / "out")


@pytest.mark.parametrize(
    ("b", "options", "error", "words"),
    [
        ({"metadata": {"semdedup.embedder": "hf:x"}}, {}, InputError, ["'dct3d'", "'hf:x'", "/a", "/b"]),
        ({"ids": [1, 2, 3]}, {}, BadFileError, ["int64", "text"]),
        ({}, {"embedding_field": "vector"}, BadFileError, ["no column 'vector'", "embedding"]),
        ({}, {"eps": 1}, ParameterError, ["eps"]),
        ({}, {"id_field": "embedding"}, ParameterError, ["id_field"]),
    ],
)
def test_what_the_files_show_is_refused_before_a_cluster_is_asked_for(
    b: Any, options: Any, error: type, words: list[str], tmp_path: Path
) -> None:
    a = _set(tmp_path / "a", EYE, metadata={"semdedup.embedder": "dct3d"})
    with pytest.raises(error) as raised:
        leaks(a, _set(tmp_path / "b", EYE, **b), tmp_path / "out", NOWHERE, **options)
    assert all(word in str(raised.value) for word in words), raised.value
    assert_nothing_left(tmp_path / "out")
    with pytest.raises(InputError, match="no such path"):
        leaks(str(tmp_path / "nowhere"), a, tmp_path / "out", NOWHERE)


def test_another_a_or_b_or_eps_is_refused_with_the_difference(client: distributed.Client, tmp_path: Path) -> None:
    a, b = _set(tmp_path / "a", EYE), _set(tmp_path / "b", EYE)
    out = tmp_path / "out"
    assert leaks(a, b, out, client).leaks == 3
    before = stamps(out)
    assert leaks(a, b, out, NOWHERE).leaks == 3  # complete already: no cluster is needed
    for first, second, options, word in [
        (b, b, {}, "against_digest"),
        (a, a, {}, "input: 1 files"),
        (a, b, {"eps": 0.3}, "semdedup extract --eps"),
    ]:
        with pytest.raises(OutputConflictError, match=word):
            leaks(first, second, out, NOWHERE, **options)
    assert stamps(out) == before
    _set(tmp_path / "a", -np.eye(3))
    with pytest.raises(OutputConflictError, match="against_digest"):
        leaks(a, b, out, NOWHERE)
    assert leaks(a, b, out, client, clear_output=True).leaks == 0


def test_a_folder_with_a_dedup_is_refused(client: distributed.Client, tmp_path: Path) -> None:
    a = _set(tmp_path / "a", EYE)
    workflow(a, tmp_path / "out", n_clusters=1).run(client)
    before = stamps(tmp_path / "out")
    for clear in (False, True):
        with pytest.raises(OutputConflictError, match="another output path"):
            leaks(a, a, tmp_path / "out", NOWHERE, clear_output=clear)
    assert stamps(tmp_path / "out") == before


# Killed

DRIVER = """
import json, sys
from semdedup import find_leaks
from semdedup.dedup import sizes

if __name__ == "__main__":
    a, b, out, scheduler, task_bytes, sizes.PARTITIONS_PER_SLOT = json.loads(sys.argv[1])
    sizes.SMALLEST_TASK = sizes.LARGEST_TASK = task_bytes
    sizes.BESIDE_A_ROW = 0
    find_leaks(a, b, out, client=scheduler, verbose=False)
"""


@pytest.mark.slow
@pytest.mark.usefixtures("tiny_tasks")
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    client: distributed.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizes, "PARTITIONS_PER_SLOT", 40)  # some eighty tasks, so that there is a middle
    sets = Sets(n_a=900)
    a, b = sets.write(tmp_path)
    leaks(a, b, tmp_path / "uninterrupted", client)
    out = tmp_path / "out"
    process = start_program(tmp_path, DRIVER, a, b, str(out), client.scheduler.address, TASK_BYTES, 40)
    try:
        wait_for(out, "_scratch/pairwise-*/journal/compare/*.json", process)
    finally:
        kill(process)
    assert not (out / "pairwise_results").exists()
    result = find_leaks(a, b, str(out), client=client)
    assert re.search(r"compare: [1-9]\d* of \d{2,} tasks were done by an earlier run", capsys.readouterr().err)
    assert contents(out) == contents(tmp_path / "uninterrupted")
    assert result.a_rows == len(sets.a)
    assert_by_the_definition(out, sets)


# What works on the output


def test_load_extract_and_report_take_ids_of_a_and_b_apart(client: distributed.Client, tmp_path: Path) -> None:
    """The id 1 of B copies the id 2 of A and the reverse, 3 copies itself: within one set that would be a circle."""
    a = _set(tmp_path / "a", EYE, ids=[1, 2, 3])
    b = _set(tmp_path / "b", [EYE[1], EYE[0], EYE[2], [1, 1, 1]], ids=[1, 2, 3, 4])
    out = tmp_path / "out"
    result = leaks(a, b, out, client, eps=0.1)
    loaded = semdedup.load(str(out))
    for scores in (loaded.scores, result.scores):
        groups = {group.kept: [pair.id for pair in group.dropped] for group in scores.groups(0.1)}
        assert groups == {1: [2], 2: [1], 3: [3]}
    assert [pair.id for pair in result.pairs(2)] == [1, 2]
    assert len(result.pairs(10)) == 3
    assert len(list(semdedup.load(str(out / "pairwise_results")).groups(0.1))) >= 1  # no record there; but it ends
    assert (loaded.duplicates, loaded.kept, loaded.rethreshold(0.5).duplicates) == (3, 1, 4)
    extraction = semdedup.extract(str(out), 0.5, client=client, verbose=False)
    assert (extraction.duplicates, extraction.kept) == (4, 0)
    assert ids_of(out / "duplicates" / "part-0.parquet") == [1, 2, 3]


def test_the_report_shows_a_left_and_b_right(client: distributed.Client, tmp_path: Path) -> None:
    a, b = _set(tmp_path / "a", EYE), _set(tmp_path / "b", EYE)
    leaks(a, b, tmp_path / "out", client)
    page = Path(write_report(str(tmp_path / "out"), verbose=False)).read_text()
    groups = page[page.index('class="keptside') :]
    kept, _, dropped = groups.partition("droppedside")
    assert "a0" in kept
    assert "b0" not in kept
    assert "b0" in dropped[: dropped.index('class="keptside')]
    assert "by way of" not in page
    assert "against_files" in page


# Command line


@pytest.fixture
def run(client: distributed.Client) -> Callable[[str], Result]:
    def invoke(line: str) -> Result:
        name, *rest = shlex.split(line)
        return CliRunner().invoke(cli.main, [name, "--scheduler", client.scheduler.address, *rest])

    return invoke


def test_the_command_prints_the_table_and_the_first_leaks(run: Any, sets: Sets, tmp_path: Path) -> None:
    a, b = sets.write(tmp_path)
    line = f"leaks {a} {b} --output-path {tmp_path}/out --eps 0.01"
    planned = run(f"{line} --dry-run")
    assert planned.exit_code == 0
    assert "would write to" in planned.output
    assert "given" in planned.output
    assert not (tmp_path / "out").exists()
    done = run(f"{line} --quiet")
    assert done.exit_code == 0, done.output
    assert "leaks at eps 0.01" in done.output
    told = [text for text in done.output.splitlines() if text.startswith("leak:")]
    assert len(told) == 10
    assert all("' of B is 'a" in text and text.endswith("score 1.000000") for text in told)
    refused = run(f"{line.replace('0.01', '0.02')} --quiet")
    assert refused.exit_code == 1
    assert "eps" in refused.output
    assert run(f"{line.replace('0.01', '0.02')} --quiet --overwrite").exit_code == 0


def test_exit_statuses(run: Any, tmp_path: Path) -> None:
    a, b = _set(tmp_path / "a", EYE), _set(tmp_path / "b", [*EYE, [0, 0, 0]])
    done = run(f"leaks {a} {b} --output-path {tmp_path}/out --quiet")
    assert done.exit_code == 3, done.output
    assert "zero" in done.output
    assert run(f"leaks {a} {b} --output-path {tmp_path}/out2 --eps 2").exit_code == 2
    assert run(f"leaks {a} {tmp_path}/nowhere --output-path {tmp_path}/out2").exit_code == 1
    assert "semdedup leaks train" in run("leaks --help").output


# Object store


@pytest.mark.slow
def test_sets_and_output_in_a_bucket(
    s3: tuple[str, dict], sets: Sets, client: distributed.Client, tmp_path: Path
) -> None:
    bucket, options = s3
    sets.write(tmp_path / "in")
    fs = fsspec.filesystem("s3", **options, use_listings_cache=False)
    fs.put(f"{tmp_path}/in/", f"{bucket}/in/", recursive=True)
    found = leaks(f"{bucket}/in/a", f"{bucket}/in/b", f"{bucket}/out", client, eps=0.01, storage_options=options)
    fs.get(f"{bucket}/out/", f"{tmp_path}/out/", recursive=True)
    assert_by_the_definition(tmp_path / "out", sets)
    assert found.leaks == len(read_folder(tmp_path / "out" / "duplicates")) >= 20
    assert options["secret"] not in (tmp_path / "out" / "_manifest.json").read_text() + str(found) + repr(found.scores)
