"""Frames in, frames out: what people hold in memory, or in Dask, gives what the same rows in a file give."""

import contextlib
import gc
import os
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import dask
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import SemanticDeduplicationWorkflow
from semdedup.dedup.frame_input.convert import ObjectRows
from semdedup.dedup.frame_input.digest import ContentDigest
from semdedup.dedup.frame_input.held import Columns, hold
from semdedup.dedup.frame_input.parts import source_in_words
from semdedup.dedup.frame_input.source import write_part
from semdedup.dedup.input.ids import as_ids, id_type
from semdedup.dedup.results.dropped import Dropped, without_dropped
from semdedup.errors import (
    BadFileError,
    ClusterError,
    DuplicateIdError,
    InputError,
    OutputConflictError,
    ParameterError,
    SemdedupError,
)
from semdedup.settings.frames import Frame, frame_of
from semdedup.storage.location import Location
from tests.helpers import embedding_table, near_duplicates, read_folder

OPTIONS: Mapping[str, Any] = {"n_clusters": 1, "max_iter": 3, "verbose": False}
EPS = 0.01
NOWHERE = "tcp://127.0.0.1:9"
"""A scheduler that is not there: whoever needs one fails."""


@pytest.fixture(scope="module")
def near() -> Iterator[distributed.Client]:
    """A cluster in this process, where a run takes a fraction of a second."""
    with (
        distributed.LocalCluster(processes=False, n_workers=1, threads_per_worker=2, dashboard_address=None) as cluster,
        distributed.Client(cluster, set_as_default=False) as connected,
    ):
        yield connected


@pytest.fixture(scope="module")
def table() -> pa.Table:
    ids, rows = near_duplicates(np.random.default_rng(0), 60)
    return embedding_table(ids, rows, height=pa.array(np.arange(60)))


@pytest.fixture(scope="module")
def frame(table: pa.Table) -> pd.DataFrame:
    """With an object column of arrays, and an index that says nothing."""
    rows = np.stack(table.column("embedding").to_numpy())
    return pd.DataFrame({**table.drop_columns("embedding").to_pydict(), "embedding": list(rows)}, index=[7] * 60)


@pytest.fixture(scope="module")
def dropped(table: pa.Table, near: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The ids that go where the same rows are in a file."""
    folder = tmp_path_factory.mktemp("file")
    pq.write_table(table, folder / "rows.parquet")
    found = SemanticDeduplicationWorkflow(str(folder / "rows.parquet"), str(folder / "out"), eps=EPS, **OPTIONS)
    found.run(near)
    return sorted(read_folder(folder / "out" / "duplicates")["id"])


def in_dask(frame: pd.DataFrame, npartitions: int = 3) -> Any:
    with dask.config.set({"dataframe.convert-string": False}):
        return dd.from_pandas(frame.reset_index(drop=True), npartitions=npartitions)


class Stream:
    """What hands out Arrow and nothing else, as a relation of a database does."""

    def __init__(self, table: pa.Table) -> None:
        self._table = table

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._table.__arrow_c_stream__(requested_schema)


KINDS: Mapping[str, Callable[[pa.Table, pd.DataFrame], Any]] = {
    "pandas": lambda table, frame: frame,
    "pandas of lists": lambda table, frame: frame.assign(embedding=[list(map(float, row)) for row in frame.embedding]),
    "pandas of Arrow": lambda table, frame: table.to_pandas(types_mapper=pd.ArrowDtype),
    "table": lambda table, frame: table,
    "batch": lambda table, frame: table.combine_chunks().to_batches()[0],
    "reader": lambda table, frame: table.to_reader(max_chunksize=7),
    "stream": lambda table, frame: Stream(table),
    "polars": lambda table, frame: pytest.importorskip("polars").from_arrow(table),
    "datasets": lambda table, frame: pytest.importorskip("datasets").Dataset(table),
    "Dask": lambda table, frame: in_dask(frame),
    "Dask, by position": lambda table, frame: in_dask(frame),
    "NumPy": lambda table, frame: np.stack(frame.embedding),
}


def kept_positions(found: Any, table: pa.Table) -> list[int]:
    """The rows of the table that a frame still has."""
    if isinstance(found, np.ndarray):
        every = np.stack(table.column("embedding").to_numpy())
        return [int(np.flatnonzero((every == row).all(axis=1))[0]) for row in found]
    if hasattr(found, "compute"):
        found = found.compute()
    if isinstance(found, pa.RecordBatchReader | pa.Table | pa.RecordBatch):
        heights = (found.read_all() if isinstance(found, pa.RecordBatchReader) else found).column("height").to_pylist()
    else:
        heights = list(found["height"])
    return [int(height) for height in heights]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_frame_loses_the_rows_that_a_file_of_them_loses(
    kind: str,
    table: pa.Table,
    frame: pd.DataFrame,
    dropped: list[str],
    near: distributed.Client,
    client: distributed.Client,
    tmp_path: Path,
) -> None:
    given = KINDS[kind](table, frame)
    by_position = {"id_field": None} if kind == "Dask, by position" else {}
    workers = client if kind == "Dask" else near  # of the lazy kind, workers are other processes
    found = semdedup.deduplicate(given, EPS, client=workers, output_path=str(tmp_path), **OPTIONS, **by_position)
    assert type(found) is (pa.Table if kind == "stream" else type(given))
    ids = table.column("id").to_pylist()
    expected = [position for position, row_id in enumerate(ids) if row_id not in dropped]
    if kind == "NumPy":  # of equal rows, which have the same first position, one stays
        expected = kept_positions(np.stack(frame.embedding)[expected], table)
    assert kept_positions(found, table) == expected
    assert not (tmp_path / "_scratch").exists()
    if kind == "pandas":
        pd.testing.assert_frame_equal(found, frame.iloc[expected])
        assert sorted(read_folder(tmp_path / "duplicates")["id"]) == dropped


def digest_of(given: Any, *others: str) -> str:
    found = frame_of(given)
    assert found is not None
    held = hold(found, Columns("id", "embedding", others))
    digest = ContentDigest()
    for start in range(0, held.n_rows, 11):
        digest.take(held.rows(start, min(start + 11, held.n_rows)))
    return digest.hexdigest()


def test_a_frame_is_known_by_its_values_and_not_by_how_they_are_laid_out(table: pa.Table, frame: pd.DataFrame) -> None:
    expected = digest_of(table)
    chunked = pa.concat_tables([table.slice(i, 9) for i in range(0, 60, 9)])
    padded = pa.concat_tables([table.slice(0, 3), table]).slice(3)
    wide = table.set_column(1, "embedding", table.column("embedding").cast(pa.large_list(pa.float32())))
    for same in (chunked, padded, wide, frame, table.to_pandas(types_mapper=pd.ArrowDtype), frame.reset_index()):
        assert digest_of(same) == expected
    changed = frame.assign(id=["another", *frame.id[1:]])
    doubles = frame.assign(embedding=[row.astype(float) for row in frame.embedding])
    missing = frame.assign(embedding=[None, *frame.embedding[1:]])
    others = [digest_of(each) for each in (changed, doubles, missing, frame[::-1], table.slice(1))]
    assert len({expected, *others}) == 6


@pytest.mark.parametrize(
    "column",
    [
        pa.array([True, None, False]),
        pa.array(["a", None, "bc"]).dictionary_encode(),
        pa.array([{"x": 1, "y": [1, 2]}, None, {"x": None, "y": None}]),
        pa.array([[("k", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        pa.array([1, None, 3], pa.decimal128(5)),
        pa.array([b"abc", None, b"def"], pa.binary(3)),
        pa.nulls(3),
    ],
    ids=lambda column: str(column.type),
)
def test_columns_of_every_type_are_digested_wherever_they_are_cut(column: pa.Array) -> None:
    whole, cut, other = ContentDigest(), ContentDigest(), ContentDigest()
    whole.take(pa.table({"x": column}))
    for start in range(3):
        cut.take(pa.table({"x": pa.concat_arrays([column, column]).slice(3 + start, 1)}))
    other.take(pa.table({"x": column.take(pa.array([2, 1, 0]))}))
    assert whole.hexdigest() == cut.hexdigest()
    assert (whole.hexdigest() == other.hexdigest()) == (column.type == pa.null())


def test_a_run_is_resumed_by_the_content_of_its_frame(
    frame: pd.DataFrame, near: distributed.Client, tmp_path: Path
) -> None:
    def run(given: Any, client: distributed.Client | str) -> semdedup.DedupResult:
        return SemanticDeduplicationWorkflow(given, str(tmp_path / "out"), eps=EPS, **OPTIONS).run(client)

    first = run(frame, near)
    again = run(frame.copy().reset_index().assign(unused=1), NOWHERE)
    assert (again.total, again.duplicates) == (first.total, first.duplicates)
    with pytest.raises(OutputConflictError, match=r"input: a frame of 60 rows and .* there, a frame of 59 rows"):
        run(frame[1:], NOWHERE)
    once = pa.Table.from_pandas(frame, preserve_index=False).to_reader()  # is read once, whatever is run of it
    anew = SemanticDeduplicationWorkflow(once, str(tmp_path / "out"), eps=EPS, clear_output=True, **OPTIONS)
    assert anew.run(near).duplicates == anew.run(near).duplicates == first.duplicates
    lazy = SemanticDeduplicationWorkflow(in_dask(frame), str(tmp_path / "lazy"), eps=EPS, **OPTIONS)
    assert lazy.run(near).duplicates == lazy.run(near).duplicates == first.duplicates
    other = SemanticDeduplicationWorkflow(in_dask(frame[1:]), str(tmp_path / "lazy"), eps=EPS, **OPTIONS)
    with pytest.raises(OutputConflictError, match="a frame of 59 rows"):
        other.run(near)


@pytest.mark.parametrize("lazy", [False, True])
def test_what_a_killed_run_wrote_of_a_frame_is_not_written_again_and_goes_in_the_end(
    lazy: bool,
    frame: pd.DataFrame,
    near: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from semdedup.dedup.cluster import stage

    written: list[dict[str, int]] = []
    real = stage.cluster_embeddings

    def killed_once(run: Any, *args: Any) -> Any:
        folder = Path(run.scratch.url) / "frame"
        written.append({path.name: path.stat().st_ino for path in sorted(folder.glob("*.parquet"))})
        if len(written) == 1:
            raise RuntimeError("killed")
        return real(run, *args)

    monkeypatch.setattr(stage, "cluster_embeddings", killed_once)
    given = in_dask(frame) if lazy else frame
    workflow = SemanticDeduplicationWorkflow(given, str(tmp_path), eps=EPS, **OPTIONS)
    with pytest.raises(RuntimeError, match="killed"):
        workflow.run(near)
    assert (tmp_path / "_scratch").is_dir()
    again = SemanticDeduplicationWorkflow(given, str(tmp_path), eps=EPS, **OPTIONS)
    assert again.run(near).total == 60
    assert written[0] == written[1]
    assert len(written[0]) == (3 if lazy else 1)
    assert not (tmp_path / "_scratch").exists()


def _frame_with(**columns: Any) -> pd.DataFrame:
    return pd.DataFrame({"id": ["a", "b"], "embedding": [np.ones(2), np.ones(2)]} | columns)


REFUSED: Mapping[str, tuple[Callable[[], Any], type[SemdedupError], str]] = {
    "a dict": (lambda: {"id": ["a"]}, ParameterError, r"input_path must be a path, a glob, .*; got a dict"),
    "a set": (lambda: {"a"}, ParameterError, "or a frame: a Dask, pandas.*; got a set"),
    "a generator": (lambda: (x for x in "ab"), ParameterError, "got a generator"),
    "a list of arrays": (lambda: [np.ones(2)], ParameterError, "got a list that holds a ndarray"),
    "a series": (lambda: pd.Series([1]), ParameterError, "a pandas.Series is not taken as a frame: .*one column"),
    "masked": (lambda: np.ma.ones((2, 2)), ParameterError, "fill what is masked"),
    "one dimension": (lambda: np.ones(3), BadFileError, r"has shape \(3,\); it must be \(n, d\)"),
    "complex": (lambda: np.ones((2, 2), complex), BadFileError, "the NumPy matrix is complex128; embeddings must be"),
    "uint16": (lambda: np.ones((2, 2), np.uint16), BadFileError, r"the bits of float16: say which, with \.view"),
    "no rows": (lambda: np.ones((0, 2)), InputError, "no rows in the NumPy matrix"),
    "no column": (lambda: _frame_with().drop(columns="embedding"), BadFileError, "no column 'embedding'; it has id"),
    "no ids": (lambda: _frame_with().drop(columns="id"), BadFileError, "id_field=None takes the positions"),
    "ids as index": (lambda: _frame_with().set_index("id"), BadFileError, r"call \.reset_index\(\) first"),
    "ids twice": (lambda: pd.concat([_frame_with(), _frame_with().id], axis=1), BadFileError, "'id' more than once"),
    "float ids": (
        lambda: _frame_with(id=[0.5, 1]),
        BadFileError,
        "'id' of the pandas DataFrame is double; ids must be",
    ),
    "mixed ids": (lambda: _frame_with(id=[1, "a"]), BadFileError, "into no one type of Arrow"),
    "2-d cells": (
        lambda: _frame_with(embedding=[np.ones((1, 2)), np.ones(2)]),
        BadFileError,
        r"shape \(1, 2\), in row 0",
    ),
    "text": (lambda: _frame_with(embedding=["[1]", "[2]"]), BadFileError, "is text; .* json.loads"),
    "stringified": (
        lambda: dd.from_pandas(_frame_with().astype({"embedding": "string"}), npartitions=1),
        BadFileError,
        "Dask's dataframe.convert-string must be off",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_input_is_refused_in_words_before_anything_is_written(case: str, tmp_path: Path) -> None:
    make, error, words = REFUSED[case]
    with pytest.raises(error, match=words):
        SemanticDeduplicationWorkflow(make(), str(tmp_path / "out"), eps=EPS, **OPTIONS).run(NOWHERE)
    assert not (tmp_path / "out").exists()


def test_list_views_are_written_as_the_lists_that_they_are(tmp_path: Path) -> None:
    values, offsets = pa.array([1.0, 2.0, 3.0, 4.0]), pa.array([2, 0, 2], pa.int32())
    views = pa.ListViewArray.from_arrays(offsets, pa.array([2, 2, 2], pa.int32()), values)
    missing = pa.array([[1.0], None, [2.0, 3.0]], pa.large_list_view(pa.float64()))
    for column in (views, views.slice(1, 2), missing, missing.slice(1)):
        write_part(Location.of(str(tmp_path / "x.parquet")), [pa.table({"x": column})])
        assert pq.read_table(tmp_path / "x.parquet")["x"].to_pylist() == column.to_pylist()


def test_the_bits_of_float16_are_embeddings_where_that_is_said(near: distributed.Client) -> None:
    rows = np.float16([[1, 2], [1, 2], [3, 1]]).view(np.uint16)
    told: dict[str, Any] = {"client": near, "embedding_encoding": "fp16_bits", **OPTIONS}
    for given in (rows, pd.DataFrame({"id": range(3), "embedding": list(rows)})):
        assert len(semdedup.deduplicate(given, **told)) == 2
    with pytest.raises(BadFileError, match="uint16, which may be numbers or the bits"):  # of float32 and such bits
        ObjectRows(pd.Series([rows[0], np.ones(2)]).to_numpy(), "x", fp16_bits=True)


def test_objects_of_several_kinds_are_embeddings() -> None:
    for given in ([[3, 4], None], [np.float64([3, 4]), [3.0, 4], np.int8([3, 4]), pd.NaT], [(3, 4), float("nan")]):
        column = ObjectRows(pd.Series(given, dtype=object).to_numpy(), "x").rows(0, len(given))
        assert column.to_pylist() == [[3, 4]] * (len(given) - 1) + [None]
        assert pa.types.is_floating(column.type.value_type)


def test_lazy_and_split_frames_of_others_are_told_what_to_do() -> None:
    polars, datasets = pytest.importorskip("polars"), pytest.importorskip("datasets")
    for given, words in (
        (polars.DataFrame({"id": [1]}).lazy(), r"call \.collect\(\)"),
        (datasets.DatasetDict(), "one of its splits"),
        (datasets.IterableDataset.from_generator(lambda: iter(())), "without streaming"),
    ):
        with pytest.raises(ParameterError, match=words):
            semdedup.deduplicate(given)


def test_scores_are_read_from_disk_alone(frame: pd.DataFrame) -> None:
    with pytest.raises(ParameterError, match=r"must be the folder of the .* on disk; got the pandas DataFrame"):
        semdedup.IdentifyDuplicatesStage(input_path=frame, output_path="out")
    with pytest.raises(ParameterError, match="a path, a glob or a list of these is needed here; got DataFrame"):
        semdedup.read_embeddings(frame)  # type: ignore[arg-type]


def test_whole_numbers_are_embeddings(near: distributed.Client) -> None:
    rows = np.array([[1, 2], [1, 2], [-3, 1], [2, 4]])
    kept = semdedup.deduplicate(rows, client=near, **OPTIONS)
    assert kept.dtype == rows.dtype
    assert len(kept) == 2
    for dtype in (np.int64, np.int8, np.uint32, np.float16, ">f4"):
        found = hold(Frame(rows.astype(dtype), "numpy"), Columns("id", "embedding", by_position=True)).rows(0, 4)
        assert found.column("embedding").to_pylist() == rows.astype(dtype).tolist()
    with pytest.raises(BadFileError, match="beyond 2\\*\\*53"):
        hold(Frame(rows << 55, "numpy"), Columns("id", "embedding", by_position=True)).rows(0, 4)


@contextlib.contextmanager
def temporary_folders() -> Iterator[Callable[[], set[Path]]]:
    """The temporary folders of ours that there are, beside those of before."""

    def names() -> set[Path]:
        gc.collect()
        return set(Path(tempfile.gettempdir()).glob(f"semdedup-*-{os.getpid()}-*-deduplicate_*"))

    before = names()
    yield lambda: names() - before


@pytest.mark.parametrize("most_held", [1 << 20, 0], ids=["with the frame", "on disk"])
def test_the_ids_that_a_lazy_result_drops_stay_whoever_computes_it(
    most_held: int,
    frame: pd.DataFrame,
    dropped: list[str],
    near: distributed.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("semdedup.dedup.results.dropped.MOST_HELD", most_held)
    with temporary_folders() as folders:
        kept = semdedup.deduplicate(in_dask(frame), EPS, client=near, **OPTIONS)
        asked = near.compute(kept[["height"]] + 1)
        tasks, held = kept.to_delayed(), near.persist(kept)
        del kept
        assert len(asked.result()) == len(held.compute(scheduler=near)) == 60 - len(dropped)
        assert sum(map(len, dask.compute(*tasks, scheduler="sync"))) == 60 - len(dropped)
        (thread,) = [each for each in threading.enumerate() if each.name == "semdedup-remove"] or [None]
        if thread is not None:
            thread.join()
        left = {path.parent.name for folder in folders() for path in folder.rglob("*") if path.is_file()}
        assert left == (set() if most_held else {"duplicates"})
        assert bool(folders()) == (not most_held)


def test_rows_that_cannot_be_compared_stay_and_are_told(
    frame: pd.DataFrame, dropped: list[str], near: distributed.Client
) -> None:
    more = pd.concat([frame, _frame_with(id=[None, "z"], embedding=[np.ones(6), None])])
    with pytest.warns(
        UserWarning, match="2 rows of the pandas DataFrame cannot be compared and stay: 1 null, 1 null_id"
    ):
        kept = semdedup.deduplicate(more, EPS, client=near, **OPTIONS)
    assert len(kept) == 62 - len(dropped)
    assert kept.dtypes.equals(more.dtypes)


def test_the_quarantine_names_the_rows_of_a_frame_and_no_file_that_is_gone(
    frame: pd.DataFrame, near: distributed.Client, tmp_path: Path
) -> None:
    bad = frame.assign(embedding=[*frame.embedding[:59], None])
    for name, given in (("eager", bad), ("lazy", in_dask(bad))):
        SemanticDeduplicationWorkflow(given, str(tmp_path / name), **OPTIONS).run(near)
    found = [read_folder(tmp_path / name / "_quarantine")["source"][0] for name in ("eager", "lazy")]
    assert found == ["rows 0 to 59 of the frame", "partition 2 of the frame"]
    assert source_in_words("s3://b/out/rows-1-2.parquet") == "s3://b/out/rows-1-2.parquet"


@pytest.mark.parametrize(
    "ids",
    [
        pa.ExtensionArray.from_storage(pa.uuid(), pa.array([uuid.UUID(int=i).bytes for i in range(3)], pa.binary(16))),
        pa.array([b"\xff", b"a", b"b"]),
        pa.array(["a", "b", "c"]).dictionary_encode(),
        pa.array(["a", "b", "c"], pa.string_view()),
        pa.array([2**63 + 1, 2**63, 5], pa.uint64()),
    ],
    ids=lambda ids: str(ids.type),
)
def test_rows_go_by_ids_of_every_kind_and_columns_of_every_type_stay(ids: pa.Array, tmp_path: Path) -> None:
    gone = as_ids(pa.chunked_array([ids.slice(1, 1)]), id_type(ids.type))
    pq.write_table(pa.table({"id": gone}), tmp_path / "gone.parquet")
    dropped = Dropped(((Location.of(str(tmp_path / "gone.parquet")), None),))
    encoded = pa.RunEndEncodedArray.from_arrays([2, 3], pa.array(["x", "y"]))
    columns = {"id": ids, "encoded": encoded, "view": pa.array(["a", None, "c"], pa.string_view())}
    for given in (pa.table(columns), pa.record_batch(columns)):
        kept = without_dropped(Frame(given, "arrow"), "id", dropped)
        assert type(kept) is type(given)
        assert kept.schema == given.schema
        assert kept.to_pylist() == given.slice(0, 1).to_pylist() + given.slice(2).to_pylist()


def test_what_fails_in_a_partition_comes_as_it_is_and_says_in_which(
    frame: pd.DataFrame, near: distributed.Client
) -> None:
    def fail(rows: pd.DataFrame, partition_info: Any = None) -> pd.DataFrame:
        if partition_info is not None and partition_info["number"] == 1:
            raise RuntimeError("of the user")
        return rows

    lazy = in_dask(frame)
    with pytest.raises(RuntimeError, match="of the user") as caught:
        semdedup.deduplicate(lazy.map_partitions(fail, meta=lazy._meta), client=near, **OPTIONS)
    assert caught.value.__notes__ == ["in partition 1 of the Dask DataFrame, which was being computed"]


def test_ids_that_are_there_twice_are_refused_and_nothing_stays(frame: pd.DataFrame, near: distributed.Client) -> None:
    twice = pd.concat([frame, frame[:1]])
    with temporary_folders() as folders:
        with pytest.raises(DuplicateIdError, match="of the pandas DataFrame"):
            semdedup.deduplicate(twice, EPS, client=near, **OPTIONS)
        assert folders() == set()
    with pytest.raises(ParameterError, match="deduplicate has no parameter 'epsilon' here"):
        semdedup.deduplicate(frame, epsilon=0.1)


def test_workers_that_do_not_see_the_temporary_folder_need_an_output_path(
    frame: pd.DataFrame, near: distributed.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unseen(client: object, reads: object, writes: list[Location], may_go: bool = False) -> None:
        raise ClusterError(f"worker x does not see what the client writes in {writes[0]}")

    monkeypatch.setattr("semdedup.compute.session.check_paths", unseen)
    with pytest.raises(ClusterError, match=r"of this machine alone: give output_path, a folder that every worker sees"):
        semdedup.deduplicate(frame, client=near, **OPTIONS)


def test_a_result_filters_frames_and_files_and_gives_its_tables_as_frames(
    table: pa.Table, frame: pd.DataFrame, near: distributed.Client, tmp_path: Path
) -> None:
    pq.write_table(table, tmp_path / "rows.parquet")
    workflow = SemanticDeduplicationWorkflow(frame, str(tmp_path / "out"), eps=EPS, removal="witness", **OPTIONS)
    made = workflow.run(near)
    n_kept, n_dropped = made.kept or 0, made.duplicates or 0
    for result in (made, semdedup.load(str(tmp_path / "out"))):
        assert len(result.filter(frame)) == len(result.filter(table)) == n_kept
        assert len(result.filter(str(tmp_path / "rows.parquet")).compute(scheduler="sync")) == n_kept
        frames = (result.scores_frame(), result.duplicates_frame(), result.witnesses_frame())
        assert [len(each.compute(scheduler="sync")) for each in frames] == [60, n_dropped, n_dropped]
        pairs = result.pairs(n=5)
        assert list(pairs.columns) == ["id", "max_id", "cosine_sim_score"]
        assert pairs.cosine_sim_score.is_monotonic_decreasing
        assert len(pairs) == 5
        assert len(result.pairs(eps=0.0, n=100)) < len(result.pairs(n=100)) <= 60
    by_scores = made.rethreshold(EPS, "any")
    assert len(by_scores.filter(frame)) == 60 - (by_scores.duplicates or 0)
    for frame_of_none in (made.rethreshold(0.02).duplicates_frame, made.rethreshold(EPS, "any").witnesses_frame):
        with pytest.raises(InputError, match="were written for this result; semdedup extract"):
            frame_of_none()
    with pytest.raises(ParameterError, match="goes with frames alone; got a path"):
        made.filter(str(tmp_path / "rows.parquet"), id_field=None)
    with pytest.raises(ParameterError, match="ids are int64 in the frame and string in the result"):
        made.filter(frame.assign(id=range(60)))


def test_leaks_pairs_and_estimates_take_frames(
    frame: pd.DataFrame, dropped: list[str], near: distributed.Client, tmp_path: Path
) -> None:
    io: dict[str, Any] = {"client": near, "verbose": False}
    for i, (a, b) in enumerate([(in_dask(frame), frame), (frame, in_dask(frame))]):
        found = semdedup.find_leaks(a, b, str(tmp_path / f"leaks-{i}"), eps=EPS, **io)
        assert (found.a_rows, found.leaks) == (60, 60)
    pairs = [semdedup.find_pairs(given, EPS, str(tmp_path / f"pairs-{i}"), **io).pairs
             for i, given in enumerate([frame, in_dask(frame)])]  # fmt: skip
    assert pairs[0] == pairs[1] >= len(dropped)
    found = semdedup.estimate(in_dask(frame), eps=EPS, **{**OPTIONS, **io})
    assert found.shares["duplicates"][0] == pytest.approx(len(dropped) / 60)


def test_a_complete_search_of_frames_needs_no_workers(
    frame: pd.DataFrame, near: distributed.Client, tmp_path: Path
) -> None:
    first = semdedup.find_leaks(frame[:9], frame, str(tmp_path), eps=EPS, client=near, verbose=False)
    assert (
        semdedup.find_leaks(frame[:9], frame, str(tmp_path), eps=EPS, client=NOWHERE, verbose=False).leaks
        == first.leaks
    )
    with pytest.raises(OutputConflictError, match="against_rows: 9 there, 8 now"):
        semdedup.find_leaks(frame[:8], frame, str(tmp_path), eps=EPS, client=NOWHERE, verbose=False)


def test_a_frame_goes_to_an_object_store_and_its_result_filters(
    frame: pd.DataFrame, dropped: list[str], near: distributed.Client, s3: tuple[str, dict]
) -> None:
    bucket, options = s3
    kwargs = {"storage_options": options}
    workflow = SemanticDeduplicationWorkflow(in_dask(frame), f"{bucket}/out", eps=EPS, write_kwargs=kwargs, **OPTIONS)
    workflow.run(near)
    found = semdedup.load(f"{bucket}/out", storage_options=options)
    assert len(found.filter(frame)) == 60 - len(dropped)
    assert len(found.duplicates_frame().compute(scheduler="sync")) == len(dropped)
    place = Location.of(f"{bucket}/out", options)
    assert not [file.url for file in place.files() if "_scratch" in file.url]
