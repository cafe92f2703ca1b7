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
    frames,
    read_clusters,
)
from semdedup.arrays import to_host
from semdedup.dedup.compare.groups import best_of_rows
from semdedup.dedup.input.rows import REASONS, sorted_rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.frames import assign_clusters, drop, normalize, rejected, score_clusters
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
    stage = KMeansStage(n_clusters=5, input_path=str(source), output_path=str(folder), metadata_fields=[*others])
    stage.run(client)
    frame = frame_of(list(rows), **{name: pd.Series(values) for name, values in others.items()}).assign(id=ids)
    return frame, folder


@pytest.mark.parametrize(("ranking", "n_partitions"), list(zip(OF_WORKFLOW, [1, 3, 7, 4], strict=True)))
def test_the_steps_on_a_dask_frame_give_the_scores_of_the_workflow_row_for_row(
    client: distributed.Client, clustered: tuple[pd.DataFrame, Path], tmp_path: Path, ranking: str, n_partitions: int
) -> None:
    frame, folder = clustered
    value, parameters = OF_WORKFLOW[ranking]
    PairwiseStage(input_path=str(folder), output_path=str(tmp_path / "pairwise_results"), **parameters).run(client)
    with client.as_current():
        ddf = dd.from_pandas(frame, npartitions=n_partitions, sort=False)
        labelled = ddf.map_partitions(normalize).map_partitions(assign_clusters, str(folder / "_kmeans_centroids.npy"))
        whole = labelled.shuffle("centroid")
        assert "P2P" in type(whole.optimize().expr).__name__ or "p2p" in str(whole.optimize().expr).lower()
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
