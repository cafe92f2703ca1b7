"""Questions to a result: the answers of the streamed tables are those of NumPy on the whole."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

import semdedup
from semdedup import InputError, ParameterError
from semdedup.dedup.results import scores as module
from semdedup.dedup.results.scores import Scores
from semdedup.dedup.results.tallies import CountAt
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.storage.location import Location
from tests.helpers import near_duplicates, read_all_scores, workflow, write_embeddings

THRESHOLDS = [0.0, 0.01, 0.1, 0.5, 0.999]


def write_scores(folder: Path, tables: list[pd.DataFrame], row_group: int = 1 << 20) -> Scores:
    folder.mkdir(exist_ok=True)
    for cluster, table in enumerate(tables):
        frame = table.assign(cosine_sim_score=table["cosine_sim_score"].astype(np.float32))
        pq.write_table(
            pa.Table.from_pandas(frame, preserve_index=False),
            folder / f"cluster_{cluster}.parquet",
            row_group_size=row_group,
        )
    return replace(Scores.of(Location.of(folder)), foreign=())  # as if on record, which spares a reading each time


def tables_of(values: list[list[float]]) -> list[pd.DataFrame]:
    """Clusters of rows in rank order, each most like the one before it."""
    return [
        pd.DataFrame(
            {
                "id": [f"{cluster}-{i}" for i in range(len(scores))],
                "max_id": [f"{cluster}-{max(0, i - 1)}" for i in range(len(scores))],
                "cosine_sim_score": scores,
            }
        )
        for cluster, scores in enumerate(values)
    ]


ANY_SCORE = st.one_of(
    st.floats(0, 1, width=32), st.sampled_from([0.0, 0.5, 0.9, 1.0, 0.99, float(np.float32(1 - 0.1))])
)


@given(
    values=st.lists(st.lists(ANY_SCORE, min_size=1, max_size=8), min_size=1, max_size=3), at_a_time=st.integers(1, 9)
)
def test_counts_histogram_and_borderline_are_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]], at_a_time: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ROWS_AT_A_TIME", at_a_time)
        scores = write_scores(tmp_path_factory.mktemp("scores"), tables_of(values))
        whole = np.array([score for cluster in values for score in cluster], dtype=np.float32)
        assert scores.n_rows == len(whole)
        assert scores.count(THRESHOLDS) == (len(whole), [int((whole >= np.float32(1 - e)).sum()) for e in THRESHOLDS])
        assert scores.histogram(10).tolist() == np.histogram(whole, np.linspace(0, 1, 11, dtype=np.float32))[0].tolist()
        compared = whole[whole > 0]
        nearest = np.sort(np.abs(compared - np.float32(0.9)))[:4]
        found = [abs(np.float32(pair.score) - np.float32(0.9)) for pair in scores.borderline(4, 0.1)]
        assert found == nearest.tolist()


@given(
    scores=st.lists(st.one_of(ANY_SCORE, st.just(float("nan")), st.floats(-1, 2, width=32)), max_size=20),
    thresholds=st.lists(st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.999]), min_size=1, max_size=4),
)
def test_counting_decides_as_the_rule_does_whatever_the_scores(scores: list[float], thresholds: list[float]) -> None:
    values = np.array(scores, dtype=np.float32)
    counts = CountAt(thresholds)
    counts.take(0, 0, values)
    assert counts.duplicates == [int(duplicate_mask(values, eps).sum()) for eps in thresholds]
    assert counts.n_rows == len(values)


@given(values=st.lists(ANY_SCORE, min_size=1, max_size=40), fraction=st.floats(0.01, 1))
def test_the_eps_for_a_fraction_is_the_smallest_that_reaches_it(
    tmp_path_factory: pytest.TempPathFactory, values: list[float], fraction: float
) -> None:
    scores = write_scores(tmp_path_factory.mktemp("scores"), tables_of([values]))
    whole = np.array(values, dtype=np.float32)

    def remain(eps: float) -> float:
        return float((whole < np.float32(1 - eps)).mean())

    if (whole <= 0).mean() > fraction:
        with pytest.raises(ParameterError, match="cannot be reached"):
            scores.suggest_eps(fraction)
        return
    eps = scores.suggest_eps(fraction)
    if eps < 1:
        assert remain(eps) <= fraction
    smaller = [1 - float(score) - 1e-7 for score in whole if 1 - float(score) - 1e-7 < eps - 2e-7]
    assert all(remain(other) > fraction for other in smaller if other >= 0)


@given(
    values=st.lists(st.lists(ANY_SCORE, min_size=1, max_size=9), min_size=1, max_size=3),
    eps=st.sampled_from(THRESHOLDS),
)
def test_groups_hold_every_duplicate_once_under_a_row_that_is_kept(
    tmp_path_factory: pytest.TempPathFactory, values: list[list[float]], eps: float
) -> None:
    firsts = [[0.0, *cluster[1:]] for cluster in values]
    tables = tables_of(firsts)
    scores = write_scores(tmp_path_factory.mktemp("scores"), tables)
    rows = pd.concat(tables).set_index("id")
    dropped = set(rows.index[rows["cosine_sim_score"].astype(np.float32) >= np.float32(1 - eps)])
    groups = list(scores.groups(eps))
    members = [pair.id for group in groups for pair in group.dropped]
    assert sorted(members) == sorted(dropped)
    for group in groups:
        assert group.kept not in dropped
        for pair in group.dropped:
            way = pair.id
            while way in dropped:
                way = rows.loc[way, "max_id"]
            assert way == group.kept


@pytest.mark.parametrize("length", [1, 2, 3, 7])
def test_rows_that_point_at_each_other_in_a_circle_are_still_told_once(tmp_path: Path, length: int) -> None:
    ids = [f"c{i}" for i in range(length)]
    others = ids[1:] + ids[:1]
    ring = pd.DataFrame({"id": [*ids, "t"], "max_id": [*others, "c0"], "cosine_sim_score": [0.95] * (length + 1)})
    groups = list(write_scores(tmp_path / "scores", [ring]).groups(0.1))
    assert sorted(pair.id for group in groups for pair in group.dropped) == sorted([*ids, "t"])


@pytest.fixture(scope="module")
def result(client, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, semdedup.DedupResult]:
    folder = tmp_path_factory.mktemp("result")
    ids, rows = near_duplicates(np.random.default_rng(0))
    source = write_embeddings(folder / "in", ids, rows, 2, height=[int(i[-3:]) for i in ids])
    return folder / "out", workflow(source, folder / "out", metadata_fields=["height"]).run(client)


def test_a_loaded_result_is_the_one_of_the_run(result: tuple[Path, semdedup.DedupResult]) -> None:
    folder, ran = result
    loaded = semdedup.load(str(folder))
    assert loaded.summary() == ran.summary()
    assert loaded.remaining(THRESHOLDS) == ran.remaining(THRESHOLDS)
    assert [group.kept for group in loaded.groups()] == [group.kept for group in ran.groups()]


def test_another_eps_needs_no_new_run_in_either_direction(result: tuple[Path, semdedup.DedupResult]) -> None:
    folder, ran = result
    scores = read_all_scores(folder)["cosine_sim_score"]
    for eps in (0.5, 0.0001, 0.01):
        again = ran.rethreshold(eps)
        assert again.duplicates == (scores >= np.float32(1 - eps)).sum()
        assert (again.eps, again.total) == (eps, ran.total)
        assert again.kept == again.total - again.duplicates
    assert ran.rethreshold(0.01).summary() == ran.summary()


def test_a_row_is_explained_with_both_clips(result: tuple[Path, semdedup.DedupResult]) -> None:
    folder, ran = result
    scores = read_all_scores(folder)
    worst = scores.loc[scores["cosine_sim_score"].idxmax()]
    told = ran.explain(worst["id"])
    assert (told.pair.max_id, told.duplicate) == (worst["max_id"], True)
    assert told.metadata["height"] == int(worst["id"][-3:])
    assert told.max_metadata["height"] == int(worst["max_id"][-3:])
    assert f"{worst['id']} is a duplicate of {worst['max_id']}" in str(told)
    first = scores.loc[scores["id"] == scores["max_id"]].iloc[0]
    assert ran.explain(first["id"]).duplicate is False
    with pytest.raises(InputError, match="no row 'nobody'"):
        ran.explain("nobody")


def test_a_result_of_another_program_is_loaded(tmp_path: Path) -> None:
    write_scores(tmp_path / "semdedup_pruning_tables", tables_of([[0, 0.95, 0.5]]))
    loaded = semdedup.load(str(tmp_path / "semdedup_pruning_tables"))
    assert (loaded.total, loaded.duplicates) == (3, None)
    assert loaded.rethreshold(0.1).duplicates == 1
    with pytest.raises(ParameterError, match="eps is not given"):
        loaded.borderline(1)


def test_bad_questions_are_refused(tmp_path: Path) -> None:
    loaded = write_scores(tmp_path / "scores", tables_of([[0, 0.95]]))
    with pytest.raises(ParameterError, match="target_fraction"):
        loaded.suggest_eps(0)
    with pytest.raises(ParameterError, match=r"at least 0\.5 remains"):
        loaded.suggest_eps(0.2)
    with pytest.raises(ParameterError, match="ids are string; got 3"):
        loaded.explain(3, 0.1)
    with pytest.raises(InputError):
        semdedup.load(str(tmp_path / "nothing"))
