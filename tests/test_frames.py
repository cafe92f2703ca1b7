"""The steps of the dedup as functions of frames: the same answers as the workflow, whatever the frame looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import dask
import dask.dataframe as dd
import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import s3fs
from dask.dataframe.utils import meta_nonempty
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup import (
    BadFileError,
    DuplicateIdError,
    InputError,
    KMeansStage,
    PairwiseStage,
    ParameterError,
    RankingStrategy,
    StorageError,
    read_clusters,
)
from semdedup.arrays import to_host
from semdedup.dedup.compare.scored import best_of_rows
from semdedup.dedup.input.rows import REASONS, sorted_rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.frames import assign_clusters, drop, normalize, rejected, score_clusters
from semdedup.storage.arrays import save_array
from semdedup.storage.location import Location
from tests import reference
from tests.helpers import near_duplicates, read_all_scores, write_embeddings


@pytest.fixture(autouse=True)
def lists_stay_lists() -> Iterator[None]:
    with dask.config.set({"dataframe.convert-string": False}):
        yield


def frame_of(rows: Any, **columns: Any) -> pd.DataFrame:
    """A frame of these embeddings, whatever they are, in an object column; ids are text unless they are given."""
    column = pd.Series([None] * len(rows), dtype=object)
    for i, row in enumerate(rows):
        column[i] = row
    return pd.DataFrame({"id": [f"r{i}" for i in range(len(rows))], **columns, "embedding": column})


def arrow_frame(rows: list[Any], kind: pa.DataType) -> pd.DataFrame:
    frame = frame_of(rows)
    return frame.assign(embedding=pd.array(rows, dtype=pd.ArrowDtype(kind)))


def stacked(frame: pd.DataFrame) -> np.ndarray:
    return np.stack(frame["embedding"].tolist())


def by_id(frame: pd.DataFrame) -> pd.DataFrame:
    return frame.sort_values("id", ignore_index=True)


def assign_to_axes(df: pd.DataFrame) -> pd.DataFrame:
    return assign_clusters(df, np.eye(2))


F16, F32, F64 = np.float16, np.float32, np.float64
SAME = [[3.0, 4.0], None, [0.0, 0.5], [1.0, 2.0, 3.0], [1.0, float("nan")], [0.0, 0.0]]
FORMS: dict[str, Callable[[], pd.DataFrame]] = {
    "lists": lambda: frame_of(SAME),
    "tuples": lambda: frame_of([row and tuple(row) for row in SAME]),
    "float32": lambda: frame_of([None if row is None else F32(row) for row in SAME]),
    "float16": lambda: frame_of([None if row is None else F16(row) for row in SAME]),
    "several types": lambda: frame_of(
        [F64(SAME[0]), pd.NA, F32(SAME[2]), SAME[3], F16(SAME[4]), np.array([0, 0], dtype=">f4")]
    ),
    "missing as NaN": lambda: frame_of([float("nan") if row is None else row for row in SAME]),
    "a null in a list": lambda: frame_of([*SAME[:4], [1.0, None], [0, 0]]),
    "some whole numbers": lambda: frame_of([[6, 8], None, (0, 7), [1, 2, 3], [1.0, None], np.zeros(2)]),
    "Arrow lists": lambda: arrow_frame(SAME, pa.list_(pa.float32())),
    "large Arrow lists": lambda: arrow_frame(SAME, pa.large_list(pa.float64())),
}


@pytest.mark.parametrize("form", FORMS)
def test_any_list_form_comes_in_and_every_row_is_normalised_or_told_of(form: str) -> None:
    df = FORMS[form]().set_index(pd.Index(list("uvwxyz")))
    before = df.copy(deep=True)
    kept, left = normalize(df), rejected(df)
    assert (kept["id"].tolist(), kept.index.tolist()) == (["r0", "r2"], ["u", "w"])
    np.testing.assert_array_equal(stacked(kept), F32([[0.6, 0.8], [0, 1]]))
    assert {row.dtype for row in kept["embedding"]} == {np.dtype(F32)}
    assert left["id"].tolist() == ["r1", "r3", "r4", "r5"]
    assert left["reason"].tolist() == ["null", "wrong_length", "not_finite", "zero"]
    assert left.index.tolist() == ["v", "x", "y", "z"]
    assert (kept.dtypes["id"], left.dtypes["id"]) == (df.dtypes["id"],) * 2
    pd.testing.assert_frame_equal(df, before)


def test_fixed_size_lists_come_in() -> None:
    df = arrow_frame([[3.0, 4.0], None], pa.list_(pa.float64(), 2))
    assert (normalize(df)["id"].tolist(), rejected(df)["reason"].tolist()) == (["r0"], ["null"])


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.int32, np.int64, None])
def test_whole_numbers_are_numbers(kind: Any) -> None:
    rows = [[3, 4], [0, 5]]
    kept = normalize(frame_of(rows if kind is None else [kind(row) for row in rows]))
    np.testing.assert_array_equal(stacked(kept), F32([[0.6, 0.8], [0, 1]]))


def test_embeddings_are_views_of_one_array() -> None:
    kept = normalize(frame_of(np.eye(3, dtype=F32)))
    assert len({id(row.base) for row in kept["embedding"]}) == 1
    assert kept["embedding"].iloc[0].base.shape == (3, 3)


def test_columns_of_other_names_become_id_and_embedding() -> None:
    df = frame_of([[1.0, 0.0], [2.0, 0.0]], note=["a", "b"]).rename(columns={"id": "clip", "embedding": "v"})
    kept = normalize(df, id_field="clip", embedding_field="v")
    assert list(kept.columns) == ["id", "note", "embedding"]
    missing = df.assign(clip=["x", None])
    assert rejected(missing, id_field="clip", embedding_field="v").to_dict("list") == {
        "id": [missing["clip"][1]],
        "reason": ["null_id"],
    }
    assert normalize(missing, id_field="clip", embedding_field="v")["id"].tolist() == ["x"]


def test_centroids_are_an_array_or_a_file_that_is_read_anew_when_it_changes(tmp_path: Path) -> None:
    df, file = normalize(frame_of([[1.0, 0.0], [0.6, 0.8]])), tmp_path / "centroids.npy"
    found = assign_clusters(df, [[0, 1], [1, 0]])
    assert found["centroid"].tolist() == [1, 0]
    assert found["cosine_dist_to_cent"].tolist() == pytest.approx([0, 0.2])
    assert found["l2_dist_to_cent"].tolist() == pytest.approx([0, 0.4**0.5])
    assert [str(kind) for kind in found.dtypes[2:]] == ["int32", "float32", "float32"]
    for centroids in (np.eye(2)[::-1], np.eye(2)):
        np.save(file, centroids.astype(F32))
        for place in (file, str(file)):
            pd.testing.assert_frame_equal(assign_clusters(df, place), assign_clusters(df, centroids))
    pd.testing.assert_frame_equal(assign_clusters(found, np.eye(2)), assign_clusters(df, np.eye(2)))


def test_centroids_may_be_on_s3(s3: tuple[str, dict], monkeypatch: pytest.MonkeyPatch) -> None:
    bucket, options = s3
    save_array(Location.of(f"{bucket}/centroids.npy", options), np.eye(2, dtype=F32))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", options["key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options["secret"])
    monkeypatch.setenv("AWS_ENDPOINT_URL", options["client_kwargs"]["endpoint_url"])
    monkeypatch.setattr(s3fs.S3FileSystem, "cachable", False)  # what knows these credentials is not for other tests
    df = normalize(frame_of([[0.6, 0.8]]))
    pd.testing.assert_frame_equal(assign_clusters(df, f"{bucket}/centroids.npy"), assign_clusters(df, np.eye(2)))


RANKINGS: dict[str, tuple[Any, tuple[str, ...], tuple[bool, ...]]] = {
    "hard": ("hard", ("cosine_dist_to_cent",), (False, False)),
    "easy": ("easy", ("cosine_dist_to_cent",), (True, True)),
    "soft": ("soft", ("cosine_dist_to_cent",), (True, True)),
    "l2": (RankingStrategy.by_distance("hard", "l2"), ("l2_dist_to_cent",), (False, False)),
    "metadata": ({"metadata_cols": ["level"], "ascending": [False]}, ("level",), (False, True)),
}


@settings(max_examples=60)
@given(data=st.data(), ranking=st.sampled_from(sorted(RANKINGS)), text=st.booleans(), keep=st.booleans())
def test_scores_are_those_of_brute_force_for_any_rows_in_any_order(
    data: st.DataObject, ranking: str, text: bool, keep: bool
) -> None:
    steps = st.lists(st.sampled_from([-1.0, -0.5, 0.0, 0.25, 1.0]), min_size=3, max_size=3).filter(any)
    rows = data.draw(st.lists(steps, max_size=14))
    n = len(rows)
    ids = data.draw(st.permutations(range(n)))
    df = frame_of(
        rows,
        level=pd.array(data.draw(st.lists(st.sampled_from([None, 1, 2]), min_size=n, max_size=n)), dtype="Int64"),
        low_information=np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=bool),
    ).assign(id=pd.Series([f"é{i}" for i in ids], dtype=str) if text else pd.array(ids, dtype="int64"))
    df.index = pd.Index(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), dtype="int64")
    labelled = assign_clusters(normalize(df), np.eye(3)[: data.draw(st.integers(1, 3))])
    value, by, ascending = RANKINGS[ranking]
    found = score_clusters(labelled, value, keep_columns=keep)
    assert list(found.columns[:3]) == ["id", "max_id", "cosine_sim_score"]
    assert found.index.equals(labelled.index)
    assert found["id"].tolist() == labelled["id"].tolist()
    pd.testing.assert_frame_equal(found.iloc[:, 3:], labelled.drop(columns=["id", "embedding"]) if keep else found[[]])
    if n:
        order, vectors, labels = reference.ranked(labelled, by, ascending)
        low = labelled.set_index("id")["low_information"].loc[order].to_numpy(dtype=bool)
        expected = reference.scores(vectors, labels, low_information=low)
        scores = by_id(pd.DataFrame({"id": order, "max_id": order[expected.match], "score": expected.score}))
        assert by_id(found)["max_id"].tolist() == scores["max_id"].tolist()
        np.testing.assert_array_equal(by_id(found)["cosine_sim_score"], scores["score"])
    kept = drop(found, 0.1)
    assert kept["id"].tolist() == found["id"][found["cosine_sim_score"] < F32(0.9)].tolist()
    assert kept.dtypes.equals(found.dtypes)


OF_WORKFLOW: dict[str, tuple[Any, dict[str, Any]]] = {
    "hard": ("hard", {"which_to_keep": "hard"}),
    "easy": ("soft", {"which_to_keep": "easy"}),
    "random": ("random", {"which_to_keep": "random"}),
    "metadata": (
        RankingStrategy.metadata_based("height"),
        {"ranking_strategy": RankingStrategy.metadata_based("height")},
    ),
}


@pytest.fixture(scope="module")
def clustered(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, Path]:
    """A frame, some of whose rows cannot be compared, and the workflow's clusters of the same rows."""
    folder, rng = tmp_path_factory.mktemp("frames"), np.random.default_rng(5)
    ids, rows = near_duplicates(rng)
    rows[7] = np.nan
    others = {
        "height": [None if i % 7 == 0 else int(i % 5) for i in range(len(ids))],
        "low_information": [i % 11 == 0 for i in range(len(ids))],
    }
    source = write_embeddings(folder / "input", ids, rows, n_files=2, **others)
    stage = KMeansStage(
        n_clusters=5, input_path=str(source), output_path=str(folder / "clusters"), metadata_fields=[*others]
    )
    stage.run(client)
    frame = frame_of(list(rows), **{name: pd.Series(values) for name, values in others.items()}).assign(id=ids)
    return frame, folder / "clusters"


@pytest.mark.parametrize(("ranking", "n_partitions"), list(zip(OF_WORKFLOW, [1, 3, 7, 4], strict=True)))
def test_the_steps_on_a_dask_frame_give_the_scores_of_the_workflow_row_for_row(
    client: distributed.Client, clustered: tuple[pd.DataFrame, Path], tmp_path: Path, ranking: str, n_partitions: int
) -> None:
    frame, folder = clustered
    value, parameters = OF_WORKFLOW[ranking]
    PairwiseStage(input_path=str(folder), output_path=str(tmp_path / "pairwise_results"), **parameters).run(client)
    with client.as_current(), dask.config.set({"dataframe.shuffle.method": "p2p"}):
        ddf = dd.from_pandas(frame, npartitions=n_partitions, sort=False)
        labelled = ddf.map_partitions(normalize).map_partitions(assign_clusters, str(folder / "_kmeans_centroids.npy"))
        whole = labelled.shuffle("centroid")
        scores = whole.map_partitions(score_clusters, value)
        left = ddf.map_partitions(rejected)
        remaining = scores.map_partitions(drop, 0.05)
        found, left, remaining = dask.compute(scores, left, remaining)
    expected = read_all_scores(tmp_path)
    pd.testing.assert_frame_equal(by_id(found), expected, check_exact=True, check_dtype=False)
    assert (found["cosine_sim_score"].dtype, found["max_id"].dtype) == (F32, frame["id"].dtype)
    assert left.to_dict("list") == {"id": [frame["id"][7]], "reason": ["not_finite"]}
    below = expected["cosine_sim_score"] < reference.least_score(0.05)
    assert sorted(remaining["id"]) == expected["id"][below].tolist()
    assert 0 < below.sum() < len(below)


def test_clusters_of_a_result_are_scored_as_they_are_read(clustered: tuple[pd.DataFrame, Path]) -> None:
    ddf = read_clusters(str(clustered[1]))
    scores = ddf.map_partitions(score_clusters)
    eager = score_clusters(ddf.compute())
    assert scores.dtypes.equals(eager.dtypes)
    pd.testing.assert_frame_equal(by_id(scores.compute(scheduler="sync")), by_id(eager))


IDS = {
    "objects": pd.Series(["a", "b", "c"], dtype=object),
    "text": pd.Series(["a", "b", "c"], dtype=str),
    "string": pd.Series(["a", "b", "c"], dtype="string"),
    "int64": pd.Series([1, 2, 3]),
    "whole objects": pd.Series([1, 2, 3], dtype=object),
    "bytes": pd.Series([b"a", b"b", b"c"]),
    "category": pd.Series(["a", "b", "c"], dtype="category"),
    "Arrow": pd.Series(["a", "b", "c"], dtype=pd.ArrowDtype(pa.string())),
}
LISTS = {"arrays": None, "Arrow lists": pa.list_(pa.float32()), "fixed Arrow lists": pa.list_(pa.float64(), 2)}


@pytest.mark.parametrize("lists", LISTS)
@pytest.mark.parametrize("ids", IDS)
def test_types_inferred_from_what_dask_makes_up_or_from_no_rows_are_those_of_rows(ids: str, lists: str) -> None:
    kind, rows = LISTS[lists], [[3.0, 4.0], [1.0, 0.0], None]
    df = (frame_of(rows) if kind is None else arrow_frame(rows, kind)).assign(id=IDS[ids], low_information=False)
    labelled = assign_clusters(df.iloc[:2], np.eye(2))
    for step, part in (
        (rejected, df),
        (normalize, df),
        (assign_to_axes, df.iloc[:2]),
        (score_clusters, labelled),
        (lambda part: drop(part, 0.1), score_clusters(labelled)),
    ):
        found = step(part)
        assert len(found)
        for other in (step(meta_nonempty(part.iloc[:0])), step(part.iloc[:0])):
            assert list(other.columns) == list(found.columns)
            assert other.dtypes.equals(found.dtypes)


def test_no_file_is_read_to_infer_types() -> None:
    assert not len(assign_clusters(meta_nonempty(GOOD.iloc[:0]), "/no/such.npy"))


@pytest.mark.parametrize("step", [normalize, rejected, assign_to_axes, score_clusters])
def test_lists_that_dask_has_turned_into_text_are_refused_with_what_to_do(step: Callable[..., Any]) -> None:
    df = frame_of([[1.0, 0.0], [0.0, 1.0]], centroid=0, cosine_dist_to_cent=F32(0.5))
    with dask.config.set({"dataframe.convert-string": True}):
        ddf = dd.from_pandas(df, npartitions=1)
    with pytest.raises(ValueError, match=r"dataframe\.convert-string': False"):
        ddf.map_partitions(step)
    for part in (ddf.compute(scheduler="sync"), df.assign(embedding=["[1, 0]", "[0, 1]"])):
        with pytest.raises(InputError, match=r"holds text.*dataframe\.convert-string': False"):
            step(part)


GOOD = frame_of([[1.0, 0.0], [0.6, 0.8], [0.0, 1.0]], level=[1, 2, 3])
LABELLED = assign_clusters(normalize(GOOD), [[1, 0], [1, 1]])
SCORED = score_clusters(LABELLED)


@pytest.mark.parametrize(
    ("make", "error", "named"),
    [
        (lambda: normalize([1]), ParameterError, "df must be a pandas or cuDF DataFrame; got list$"),
        (
            lambda: normalize(dd.from_pandas(GOOD, npartitions=1)),
            ParameterError,
            "got dask.DataFrame; give .* map_partitions",
        ),
        (lambda: normalize(GOOD, id_field="clip"), ParameterError, "no column 'clip'; it has id, .*id_field"),
        (lambda: normalize(GOOD, embedding_field="v"), ParameterError, "no column 'v'; .*embedding_field"),
        (lambda: normalize(GOOD, id_field="embedding"), ParameterError, "are both 'embedding'"),
        (lambda: normalize(GOOD, id_field="level"), ParameterError, "becomes 'id', and there is another"),
        (lambda: normalize(pd.concat([GOOD, GOOD], axis=1)), ParameterError, "has 2 columns 'id'"),
        (lambda: normalize(GOOD.assign(id=0.5)), InputError, "'id' is double; ids must be text, whole"),
        (lambda: normalize(GOOD.assign(id=[1, "a", 2])), InputError, "'id' holds values that go into no one type"),
        (lambda: normalize(GOOD.assign(embedding=0.5)), InputError, "'embedding' is double; .* must be lists"),
        (lambda: normalize(frame_of([np.eye(2)])), InputError, "in row 0; an embedding has one dimension"),
        (lambda: normalize(frame_of([[1.0], "a"])), InputError, "holds text .such as 'a'"),
        (lambda: normalize(frame_of([["a"], ["b"]])), InputError, "embeddings must be lists"),
        (lambda: normalize(frame_of([np.uint16([1, 2])])), InputError, "is uint16, which may be numbers or the bits"),
        (lambda: normalize(frame_of([np.int64([1, 2]), object()])), InputError, "holds what is no list of numbers"),
        (lambda: normalize(frame_of(["foo", "foo", "foo"])), InputError, "holds text .such as 'foo'"),
        (lambda: assign_clusters(GOOD.drop(columns="embedding"), np.eye(2)), ParameterError, "no column 'embedding'"),
        (lambda: assign_clusters(frame_of(SAME), np.eye(2)), InputError, "4 of 6 rows .*zero: 1.*; normalize leaves"),
        (lambda: assign_clusters(GOOD, np.eye(3)), ParameterError, "centroids have length 3, the embeddings 2"),
        (lambda: assign_clusters(GOOD, np.ones(2)), ParameterError, r"array of shape \(2,\)"),
        (lambda: assign_clusters(GOOD, np.empty((0, 2))), ParameterError, r"array of shape \(0, 2\)"),
        (lambda: assign_clusters(GOOD, [[np.nan, 0]]), ParameterError, "not finite"),
        (lambda: assign_clusters(GOOD, [["a", "b"]]), ParameterError, "path of a .npy file of one; got list"),
        (lambda: assign_clusters(GOOD, 3), ParameterError, "path of a .npy file of one; got int"),
        (lambda: assign_clusters(GOOD, "/no/such.npy"), StorageError, "/no/such.npy: No such file"),
        (lambda: assign_clusters(GOOD, __file__), BadFileError, "test_frames.py holds no array"),
        (lambda: score_clusters(GOOD), ParameterError, "no column 'centroid'; .* Call assign_clusters first"),
        (
            lambda: score_clusters(LABELLED, "best"),
            ParameterError,
            "which_to_keep='best' needs width and height, .* none of",
        ),
        (lambda: score_clusters(LABELLED, "most"), ParameterError, "ranking must be one of best, hard, .*; got 'most'"),
        (lambda: score_clusters(LABELLED, 3), ParameterError, "ranking must be one of best, hard"),
        (lambda: score_clusters(LABELLED, {"metadata_cols": ["height"]}), ParameterError, "'height', which the frame"),
        (
            lambda: score_clusters(LABELLED, {"metadata_cols": ["embedding"]}),
            ParameterError,
            "a column with an order; 'embedding'",
        ),
        (lambda: score_clusters(LABELLED.assign(embedding=frame_of(SAME)["embedding"])), InputError, "null: 1"),
        (lambda: score_clusters(LABELLED.assign(id="a")), DuplicateIdError, "1 ids stand .* such as 'a'"),
        (lambda: score_clusters(LABELLED.assign(id=[None, "a", "b"])), InputError, "1 of 3 ids are null"),
        (lambda: score_clusters(LABELLED.assign(centroid=0.5)), InputError, "'centroid' is double; it must hold a"),
        (lambda: score_clusters(LABELLED.assign(centroid=pd.array([0, None, 1]))), InputError, "with 1 nulls"),
        (lambda: score_clusters(LABELLED.assign(low_information="no")), InputError, "string; it must be true or"),
        (
            lambda: score_clusters(LABELLED.assign(low_information=[0, 1, 7])),
            InputError,
            "of the frame has the value 7; it must be",
        ),
        (lambda: drop(LABELLED, 0.1), ParameterError, "no column 'cosine_sim_score'.*Call score_clusters first"),
        (lambda: drop(SCORED, 1), ParameterError, "eps must lie in"),
        (lambda: drop(SCORED.assign(cosine_sim_score=[0.5, np.nan, None]), 0.1), InputError, "2 of 3 rows have"),
        (lambda: drop(SCORED.assign(cosine_sim_score="a"), 0.1), InputError, "string; it must hold numbers"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_found(
    make: Callable[[], Any], error: type[Exception], named: str
) -> None:
    with pytest.raises(error, match=named):
        make()


def test_a_ranking_by_an_absent_column_is_refused_before_work_starts() -> None:
    ddf = dd.from_pandas(LABELLED, npartitions=1)
    with pytest.raises(ValueError, match="ranking needs the column 'height', which the frame does not have"):
        ddf.map_partitions(score_clusters, RankingStrategy.metadata_based("height"))


@pytest.mark.parametrize(
    "marked",
    [
        pd.Series([True, None, False], dtype=object),
        pd.array([1, None, 0], dtype="Int8"),
        pd.array([True, None, False], dtype="boolean"),
        np.array([1, 0, 0]),
    ],
)
def test_a_mark_of_low_information_may_be_truth_or_number_or_missing(marked: Any) -> None:
    df = assign_clusters(normalize(frame_of([[1.0, 0.0]] * 3)), [[1, 0]]).assign(low_information=marked)
    assert score_clusters(df)["max_id"].tolist() == ["r0", "r2", "r2"]
    assert not score_clusters(df.assign(low_information=None))["max_id"].eq("r0").any()


def test_rows_are_checked_and_scored_on_any_backend(xp: ModuleType, rng: np.random.Generator) -> None:
    rows = xp.asarray(F32([[3, 4], [np.nan, 0], [0, 0], [0.6, 0.8], [1, 1]]))
    missing = xp.asarray(np.array([False] * 6 + [True]))
    found = sorted_rows(rows, xp.asarray([0, 1, 3, 4, 5]), missing, xp.asarray(np.arange(7) == 5))
    reasons = ["", "not_finite", "wrong_length", "zero", "", "null_id", "null"]
    assert [REASONS[code] for code in to_host(found.faults)] == reasons
    assert to_host(found.positions).tolist() == [0, 4]
    scores, match = best_of_rows(unit_rows(found.rows), None)
    assert (to_host(scores).tolist(), to_host(match).tolist()) == ([0, 1], [0, 0])
    units = unit_rows(rng.normal(size=(40, 5)).astype(F32))
    low = rng.random(40) < 0.3
    scores, match = best_of_rows(xp.asarray(units), low)
    expected = reference.scores(units, low_information=low)
    np.testing.assert_array_equal(to_host(scores), expected.score)
    np.testing.assert_array_equal(to_host(match), expected.match)
