"""New rows against an earlier result: the answer of rule 8, chains, what is withdrawn, and what is refused."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup import (
    DuplicateIdError,
    InputError,
    OutputConflictError,
    PairwiseStage,
    ParameterError,
    RankingStrategy,
    SemanticDeduplicationWorkflow,
    extract,
    load,
)
from semdedup.cli import main
from semdedup.dedup import sizes
from semdedup.dedup.base.chain import chain_of
from semdedup.dedup.compare.scored import Limits, score_new_rows
from semdedup.dedup.kernels.matches import Matches
from semdedup.dedup.threshold.components import best_of_components
from semdedup.storage.location import Location
from tests import reference
from tests.helpers import (
    NOWHERE,
    assert_same_answer,
    contents,
    embedding_table,
    kill,
    near_duplicates,
    read_all_scores,
    read_answer,
    read_folder,
    set_task_bytes,
    set_task_work,
    start_driver,
    wait_for,
    work_of_driver,
    workflow,
    write_embeddings,
)

EPS = 0.02


def update(source: Path, output: Path, base: Path, **parameters: Any) -> SemanticDeduplicationWorkflow:
    """An update without progress, with everything that is not given as in the base."""
    return SemanticDeduplicationWorkflow(str(source), str(output), base=str(base), **{"verbose": False, **parameters})


def parts_of(
    rng: np.random.Generator, place: Path, n: int = 480, n_parts: int = 2, dim: int = 6, **others: Any
) -> None:
    """Write inputs ``in-0``, ``in-1``, … of equal size, with near copies and exact copies within and across them."""
    ids, rows = near_duplicates(rng, n, dim)
    for number, part in enumerate(np.array_split(np.arange(n), n_parts)):
        chosen = {name: [values[i] for i in part] for name, values in others.items()}
        write_embeddings(place / f"in-{number}", [ids[i] for i in part], rows[part], 2, **chosen)


def kept_of(output: Path) -> pd.DataFrame:
    """The rows of the clusters of a result that are no duplicates."""
    rows = read_folder(output / "kmeans_results")
    return rows[~rows["id"].isin(read_folder(output / "duplicates")["id"])]


def answer_of_rule_8(
    kept: pd.DataFrame, new: pd.DataFrame, by: Sequence[str], ascending: Sequence[bool]
) -> pd.DataFrame:
    """Scores of new rows against kept ones, which all rank better, and each other: the rule in NumPy."""
    tables = []
    for label, rows in new.groupby("centroid"):
        mine, theirs = (
            part.sort_values([*by, "id"], ascending=list(ascending), na_position="last", ignore_index=True)
            for part in (rows, kept[kept["centroid"] == label])
        )
        ids = pd.concat([theirs["id"], mine["id"]], ignore_index=True)
        x = np.stack([*theirs["embedding"], *mine["embedding"]])
        similarity = (x.astype(np.float64) @ x.T.astype(np.float64)).clip(0, 1).astype(np.float32)
        similarity[(x[:, None] == x).all(axis=2)] = 1  # copies match whatever rounding leaves of their length
        similarity[np.triu_indices(len(x))] = -1
        best = similarity.argmax(axis=1)
        score = similarity.max(axis=1)
        if not len(theirs):
            best[0], score[0] = 0, 0
        found = {"id": ids, "max_id": ids[best].array, "cosine_sim_score": score}
        tables.append(pd.DataFrame(found)[len(theirs) :])
    return pd.concat(tables).sort_values("id", ignore_index=True)


RANKINGS = {"hard": (["cosine_dist_to_cent"], [False, False]), "easy": (["cosine_dist_to_cent"], [True, True])}


@pytest.mark.parametrize("keep", RANKINGS)
def test_the_answer_is_that_of_rule_8_to_the_bit(
    keep: str, client: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    parts_of(rng, tmp_path)
    workflow(tmp_path / "in-0", tmp_path / "old", eps=EPS, which_to_keep=keep).run(client)
    found = update(tmp_path / "in-1", tmp_path / "out", tmp_path / "old").run(client)

    kept, new = kept_of(tmp_path / "old"), read_folder(tmp_path / "out" / "kmeans_results")
    expected = answer_of_rule_8(kept, new, *RANKINGS[keep])
    pd.testing.assert_frame_equal(read_all_scores(tmp_path / "out"), expected, check_exact=True)
    duplicates = expected["id"][expected["cosine_sim_score"] >= np.float32(1 - EPS)]
    assert read_folder(tmp_path / "out" / "duplicates")["id"].tolist() == duplicates.tolist()
    assert (found.total, found.duplicates, found.eps) == (240, len(duplicates), EPS)
    assert set(expected["max_id"]) & set(kept["id"]), "base rows are matches"

    centroids = [np.load(tmp_path / name / "_kmeans_centroids.npy") for name in ("old", "out")]
    assert np.array_equal(*centroids)
    assert found.base is not None
    assert (found.base.rows, found.base.kept) == (240, len(kept))
    assert found.base.paths == (str(tmp_path / "old"),)
    assert found.base.mean_distance == pytest.approx(kept["l2_dist_to_cent"].mean(), rel=1e-6)
    assert found.base.new_mean_distance == pytest.approx(new["l2_dist_to_cent"].mean(), rel=1e-6)
    assert load(str(tmp_path / "out")).base == found.base


@pytest.mark.parametrize("task_bytes", [pytest.param(600, marks=pytest.mark.slow), 3000])
def test_clusters_larger_than_a_task_give_the_same(
    task_bytes: int,
    client: distributed.Client,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts_of(rng, tmp_path, low_information=[i % 7 == 3 for i in range(480)])
    workflow(tmp_path / "in-0", tmp_path / "old", eps=EPS).run(client)
    update(tmp_path / "in-1", tmp_path / "whole", tmp_path / "old").run(client)
    set_task_work(monkeypatch, task_bytes, 6)
    update(tmp_path / "in-1", tmp_path / "tiled", tmp_path / "old").run(client)
    whole = read_answer(tmp_path / "whole")
    assert_same_answer(tmp_path / "tiled", whole)
    assert not set(whole[0]["max_id"]) & {f"clip-{i:05d}" for i in range(480) if i % 7 == 3} - set(whole[0]["id"])
    forests = [
        pq.read_table(tmp_path / name / "_forest").to_pandas().sort_values(["id_a", "id_b"], ignore_index=True)
        for name in ("whole", "tiled")
    ]
    pd.testing.assert_frame_equal(*forests)
    base = forests[0]["a_of_base"]
    assert base.any()
    old = set(read_folder(tmp_path / "old" / "kmeans_results")["id"])
    assert set(forests[0]["id_a"][base]) <= old
    assert not (set(forests[0]["id_a"][~base]) | set(forests[0]["id_b"])) & old


def test_a_chain_gives_what_one_comparison_with_forced_ranks_gives(
    client: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    parts_of(rng, tmp_path, n_parts=3)
    workflow(tmp_path / "in-0", tmp_path / "0", eps=EPS).run(client)
    update(tmp_path / "in-1", tmp_path / "1", tmp_path / "0").run(client)
    found = update(tmp_path / "in-2", tmp_path / "2", tmp_path / "1").run(client)

    kept = pd.concat([kept_of(tmp_path / name) for name in "01"])
    new = read_folder(tmp_path / "2" / "kmeans_results")
    assert found.base is not None
    assert found.base.kept == len(kept)
    assert [link.root.url for link in chain_of(Location.of(tmp_path / "2"))] == [str(tmp_path / name) for name in "012"]

    # the union, ranked by hand: kept rows first, each set farthest first
    order: Any = {"ascending": [False, False], "ignore_index": True}
    by = ["cosine_dist_to_cent", "id"]
    union = pd.concat([kept.sort_values(by, **order), new.sort_values(by, **order)], ignore_index=True)
    for label, rows in union.reset_index(names="rank").groupby("centroid"):
        folder = tmp_path / "union" / f"centroid={label}"
        folder.mkdir(parents=True)
        table = embedding_table(rows["id"], rows["embedding"], rank=pa.array(rows["rank"]))
        pq.write_table(table, folder / "part-0.parquet")
    ranking = RankingStrategy.metadata_based(["rank"])
    PairwiseStage(
        input_path=str(tmp_path / "union"),
        output_path=str(tmp_path / "scores"),
        ranking_strategy=ranking,
        verbose=False,
    ).run(client)
    expected = read_folder(tmp_path / "scores")
    expected = expected[expected["id"].isin(new["id"])].reset_index(drop=True)
    pd.testing.assert_frame_equal(read_all_scores(tmp_path / "2"), expected, check_exact=True)


def removal_of_rule_8(
    kept: pd.DataFrame, new: pd.DataFrame, eps: float, rule: str, across: bool = False
) -> pd.DataFrame:
    """``id``, ``witness_id`` and score of the new rows that go, by brute force: kept rows rank first."""
    parts = [reference.ranked(rows) for rows in (kept, new)]
    ids, rows, clusters = (np.concatenate(part) for part in zip(*parts, strict=True))
    low = np.concatenate([_low(rows, part[0]) for rows, part in zip((kept, new), parts, strict=True)])
    found = reference.removal(rows, eps, rule, None if across else clusters, len(kept), low)
    goes = found.removed
    assert (goes >= len(kept)).all()
    columns = {"id": ids[goes], "witness_id": ids[found.witness[goes]], "cosine_sim_score": found.score[goes]}
    return pd.DataFrame(columns).sort_values("id", ignore_index=True)


def _low(rows: pd.DataFrame, ids: np.ndarray) -> np.ndarray:
    return rows.set_index("id")["low_information"].loc[ids].to_numpy(dtype=bool)


@pytest.mark.parametrize("task_bytes", [None, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("rule", ["witness", pytest.param("components", marks=pytest.mark.slow)])
def test_every_removal_rule_goes_with_a_chain(
    rule: str,
    task_bytes: int | None,
    client: distributed.Client,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts_of(rng, tmp_path, n_parts=3, low_information=[i % 7 == 3 for i in range(480)])
    if task_bytes:
        set_task_work(monkeypatch, task_bytes, 6)
    workflow(tmp_path / "in-0", tmp_path / "0", eps=0.1, removal=rule).run(client)
    update(tmp_path / "in-1", tmp_path / "1", tmp_path / "0").run(client)
    found = update(tmp_path / "in-2", tmp_path / "2", tmp_path / "1", count_at=[0.02, 0.3]).run(client)

    kept = pd.concat([kept_of(tmp_path / name) for name in "01"])
    new = read_folder(tmp_path / "2" / "kmeans_results")
    expected = removal_of_rule_8(kept, new, 0.1, rule)
    witnesses = read_folder(tmp_path / "2" / "witnesses")
    pd.testing.assert_frame_equal(witnesses, expected, check_exact=True)
    assert read_folder(tmp_path / "2" / "duplicates")["id"].tolist() == expected["id"].tolist()
    assert set(expected["witness_id"]) & set(kept["id"])
    assert (found.total, found.duplicates, found.kept) == (160, len(expected), 160 - len(expected))
    for eps in (0.02, 0.3):  # the latter beyond the forest
        number = len(removal_of_rule_8(kept, new, eps, rule))
        assert found.metadata["removed_at"][repr(eps)] == number
        assert found.rethreshold(eps).duplicates == number
    extracted = extract(str(tmp_path / "2"), 0.02, str(tmp_path / "e"), client=client)
    assert extracted.duplicates == found.metadata["removed_at"]["0.02"]
    assert extracted.kept == len(read_folder(tmp_path / "e" / "kept"))


@pytest.mark.parametrize("task_bytes", [None, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "rule", ["witness", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("any", "components"))]
)
def test_matches_in_other_clusters_of_a_base_are_found(
    rule: str,
    task_bytes: int | None,
    client: distributed.Client,
    tmp_path: Path,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parts_of(rng, tmp_path, n_parts=3, low_information=[i % 7 == 3 for i in range(480)])
    if task_bytes:
        set_task_work(monkeypatch, task_bytes, 6)
    k = 60 if task_bytes is None else 4  # some clusters have rows of the base only; or all are larger than a task
    workflow(tmp_path / "in-0", tmp_path / "0", eps=0.1, n_clusters=k, removal=rule, exact_up_to=0.15).run(client)
    update(tmp_path / "in-1", tmp_path / "1", tmp_path / "0").run(client)
    found = update(tmp_path / "in-2", tmp_path / "2", tmp_path / "1", count_at=[0.02]).run(client)

    kept = pd.concat([kept_of(tmp_path / name) for name in "01"])
    new = read_folder(tmp_path / "2" / "kmeans_results")
    assert task_bytes or set(kept["centroid"]) - set(new["centroid"])
    parts = [reference.ranked(rows) for rows in (kept, new)]
    ids, rows, clusters = (np.concatenate(part) for part in zip(*parts, strict=True))
    low = np.concatenate([_low(rows, part[0]) for rows, part in zip((kept, new), parts, strict=True)])
    scores = reference.scores(rows, clusters, 0.15, len(kept), low)
    columns = {"id": ids, "max_id": ids[scores.match], "cosine_sim_score": scores.score}
    expected = pd.DataFrame(columns)[len(kept) :].sort_values("id", ignore_index=True)
    pd.testing.assert_frame_equal(read_all_scores(tmp_path / "2"), expected, check_exact=True)
    goes = removal_of_rule_8(kept, new, 0.1, rule, across=True)
    assert read_folder(tmp_path / "2" / "duplicates")["id"].tolist() == goes["id"].tolist()
    assert found.duplicates == len(goes)
    assert found.metadata["removed_at"]["0.02"] == len(removal_of_rule_8(kept, new, 0.02, rule, across=True))
    if rule != "any":
        pd.testing.assert_frame_equal(read_folder(tmp_path / "2" / "witnesses"), goes, check_exact=True)


@settings(max_examples=60)
@given(data=st.data())
@pytest.mark.parametrize("listed", [True, False])
def test_rows_of_a_base_are_candidates_only(listed: bool, data: st.DataObject) -> None:
    n = data.draw(st.integers(2, 24))
    n_base = data.draw(st.integers(0, n - 1))
    points = np.array(data.draw(st.lists(st.integers(0, 9), min_size=n, max_size=n)))
    low = np.array(data.draw(st.lists(st.integers(0, 5), min_size=n, max_size=n))) == 0
    rows = np.stack([np.cos(points / 5), np.sin(points / 5), np.zeros(n)], axis=1).astype(np.float32)  # with copies
    limits = Limits(np.float32(0.95), 8)
    with pytest.MonkeyPatch.context() as patch:
        if not listed:  # as where there are too many matches to be gathered
            patch.setattr("semdedup.dedup.compare.scored.matches_to_gather", lambda least, n: Matches(least, -1))
            patch.setattr("semdedup.dedup.kernels.forest.MOST_EDGES", 3)
        found = score_new_rows(rows, low, n_base, limits)
    expected = reference.scores(rows, base=n_base, low_information=low)
    assert np.array_equal(found.score, expected.score[n_base:])
    assert np.array_equal(found.match, expected.match[n_base:])
    for least in (0.95, 0.99, 1.0):
        reached = found.forest.score >= np.float32(least)
        a, b = found.forest.left[reached], found.forest.right[reached]
        assert not ((a < n_base) & (b < n_base)).any()
        best = best_of_components(found.forest, n, np.float32(least), n_base)
        goes = reference.removal(rows, 1 - least, "components", base=n_base, low_information=low)
        assert np.array_equal(best, goes.witness)


@pytest.fixture(scope="module")
def made(client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of inputs ``in-0`` and ``in-1``, and a result ``old`` of the first with an id in quarantine."""
    place = tmp_path_factory.mktemp("base")
    rng = np.random.default_rng(3)
    parts_of(rng, place)
    bad = embedding_table(["bad"], [None], pa.list_(pa.float32()))
    pq.write_table(bad, place / "in-0" / "bad.parquet")
    workflow(place / "in-0", place / "old", eps=EPS, which_to_keep="easy", distance_metric="l2").run(client)
    return place


def test_what_is_not_given_comes_from_the_record(made: Path, tmp_path: Path) -> None:
    def chosen(**parameters: Any) -> tuple[Any, ...]:
        found = update(made / "in-1", tmp_path / "out", made / "old", **parameters)
        return found.eps, found.pipeline.stages[1].ranking()

    def by_distance(keep: Any, metric: Any) -> RankingStrategy:
        return RankingStrategy.by_distance(keep, metric)

    assert chosen() == (EPS, by_distance("easy", "l2"))
    assert chosen(eps=0.1, which_to_keep="hard") == (0.1, by_distance("hard", "l2"))
    assert chosen(distance_metric="cosine") == (EPS, by_distance("easy", "cosine"))
    assert chosen(which_to_keep="random", random_state=7) == (EPS, RankingStrategy.random(7))
    other = RankingStrategy.metadata_based("height")
    assert chosen(ranking_strategy=other) == (EPS, other)


def test_names_of_the_columns_and_a_ranking_by_metadata_come_from_the_record(
    client: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    ids, rows = near_duplicates(rng, 120, 4)
    heights = rng.integers(1, 5, 120)
    for name, part in (("in-0", slice(0, 60)), ("in-1", slice(60, 120))):
        (tmp_path / name).mkdir()
        table = embedding_table(ids[part], rows[part], height=pa.array(heights[part]))
        pq.write_table(table.rename_columns(["clip", "vector", "height"]), tmp_path / name / "a.parquet")
    ranking = RankingStrategy.metadata_based("height", ascending=False)
    names = {"id_field": "clip", "embedding_field": "vector"}
    workflow(tmp_path / "in-0", tmp_path / "old", eps=EPS, ranking_strategy=ranking, **names).run(client)
    update(tmp_path / "in-1", tmp_path / "out", tmp_path / "old").run(client)
    new = read_folder(tmp_path / "out" / "kmeans_results")
    expected = answer_of_rule_8(kept_of(tmp_path / "old"), new, ["height"], [False, True])
    pd.testing.assert_frame_equal(read_all_scores(tmp_path / "out"), expected, check_exact=True)


@pytest.mark.parametrize("across", [{}, {"exact_up_to": 0.2}])
def test_the_best_copy_stays_by_the_columns_that_there_are(
    across: dict[str, float], client: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    """Files of the base have pixels or bitrates, that of the update one side and durations."""
    ids, rows = near_duplicates(rng, 180, 4)
    columns = [{"width", "height"}, {"bitrate"}, {"width", "duration_s"}]
    numbers = {name: rng.integers(1, 5, 180) for name in ("width", "height", "bitrate", "duration_s")}
    for number, there in enumerate(columns):
        part, folder = slice(60 * number, 60 * number + 60), tmp_path / ("in-1" if number == 2 else "in-0")
        folder.mkdir(exist_ok=True)
        others = {name: pa.array(numbers[name][part]) for name in there}
        pq.write_table(embedding_table(ids[part], rows[part], **others), folder / f"{number}.parquet")
    given = {"n_clusters": 1, "eps": EPS, **across}
    workflow(tmp_path / "in-0", tmp_path / "old", which_to_keep="best", **given).run(client)
    update(tmp_path / "in-1", tmp_path / "out", tmp_path / "old").run(client)
    for name, kept, by in (("old", None, ["pixels", "bitrate"]), ("out", tmp_path / "old", ["duration_s"])):
        mine = read_folder(tmp_path / name / "kmeans_results")
        if "height" in mine:
            mine["pixels"] = mine["width"] * mine["height"]
        mine[by] = -mine[by]
        theirs = mine[:0] if kept is None else kept_of(kept).assign(duration_s=0)
        expected = answer_of_rule_8(theirs, mine, by, [True] * (len(by) + 1))
        pd.testing.assert_frame_equal(read_all_scores(tmp_path / name), expected, check_exact=True)


@pytest.mark.parametrize(
    "parameters",
    [{"n_clusters": 4}, {"init": "random"}, {"init": np.eye(6)}, {"max_iter": 3}, {"fit_data_fraction": 0.5}],
    ids=lambda given: next(iter(given)),
)
def test_options_of_the_fit_are_refused(made: Path, tmp_path: Path, parameters: dict[str, Any]) -> None:
    with pytest.raises(ParameterError, match=f"{next(iter(parameters))} cannot be given together with base"):
        update(made / "in-1", tmp_path / "out", made / "old", **parameters)


def refused(source: Path, output: Path, base: Path, **parameters: Any) -> str:
    """The sentence in which an update is refused before a cluster is asked for; nothing is written."""
    before = contents(base) if base.exists() else {}
    with pytest.raises((InputError, ParameterError)) as caught:
        update(source, output, base, **parameters).run(NOWHERE)
    assert not output.exists() or output == base
    assert not base.exists() or contents(base) == before
    return str(caught.value)


def test_a_base_that_cannot_be_one_is_refused_by_name(
    made: Path, client: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    new, out, old = made / "in-1", tmp_path / "out", tmp_path / "old"
    assert f"no such path: {tmp_path / 'nosuch'}" in refused(new, out, tmp_path / "nosuch")
    assert "holds no complete result of the dedup" in refused(new, out, made / "in-0")
    workflow(made / "in-0", tmp_path / "scores", eps=None).run(client)
    assert "was made without eps" in refused(new, out, tmp_path / "scores")
    shutil.copytree(made / "old", old)
    assert "is the output itself" in refused(new, old, old)
    lost = next((old / "kmeans_results").rglob("*.parquet"))
    lost.unlink()
    said = refused(new, out, old)
    assert str(old) in said
    assert f"{lost.relative_to(old)} is missing" in said
    shutil.rmtree(old / "kmeans_results")
    assert "are not as they were written" in refused(new, out, old)
    (old / "_manifest.json").write_text("{")
    assert "is damaged" in refused(new, out, old)


def test_rows_of_another_kind_are_refused_before_there_are_workers(made: Path, tmp_path: Path) -> None:
    out, old = tmp_path / "out", made / "old"
    ids, rows = [f"x{i}" for i in range(5)], np.ones((5, 4), np.float32)
    assert "have length 6, those of the input 4" in refused(write_embeddings(tmp_path / "a", ids, rows), out, old)
    numbered = write_embeddings(tmp_path / "b", range(5), np.ones((5, 6), np.float32))
    assert "are string, those of the input int64" in refused(numbered, out, old)
    assert "which the clusters of the base" in refused(
        write_embeddings(tmp_path / "c", ids, np.ones((5, 6), np.float32), height=[1] * 5),
        out,
        old,
        ranking_strategy=RankingStrategy.metadata_based("height"),
    )


def test_another_embedder_is_refused(client: distributed.Client, tmp_path: Path, rng: np.random.Generator) -> None:
    ids, rows = near_duplicates(rng, 60, 4)
    for name, embedder, part in (("in-0", "one", slice(0, 30)), ("in-1", "two", slice(30, 60))):
        (tmp_path / name).mkdir()
        table = embedding_table(ids[part], rows[part])
        pq.write_table(table.replace_schema_metadata({"semdedup.embedder": embedder}), tmp_path / name / "part.parquet")
    workflow(tmp_path / "in-0", tmp_path / "old").run(client)
    said = refused(tmp_path / "in-1", tmp_path / "out", tmp_path / "old")
    assert "are of the embedder one, those of the input of two" in said


def test_new_rows_of_which_none_can_be_compared_are_refused(
    made: Path, client: distributed.Client, tmp_path: Path
) -> None:
    zeros = write_embeddings(tmp_path / "zeros", ["x1", "x2"], np.zeros((2, 6), np.float32))
    with pytest.raises(InputError, match=r"every new row was set aside, .* compare with the base: 2 zero"):
        update(zeros, tmp_path / "out", made / "old").run(client)
    assert not (tmp_path / "out").exists()


def test_ids_that_stand_in_the_chain_are_refused_with_examples(
    made: Path, client: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    update(made / "in-1", tmp_path / "1", made / "old").run(client)
    duplicate = read_folder(made / "old" / "duplicates")["id"][0]
    kept = kept_of(tmp_path / "1")["id"].iloc[0]
    ids = ["new", duplicate, kept, "bad"]
    again = write_embeddings(tmp_path / "again", ids, rng.normal(size=(4, 6)).astype(np.float32))
    with pytest.raises(DuplicateIdError, match="3 ids of the input stand in the base already") as caught:
        update(again, tmp_path / "2", tmp_path / "1").run(client)
    said = str(caught.value)
    for value, root in ((duplicate, made / "old"), (kept, tmp_path / "1"), ("bad", made / "old")):
        assert f"{value!r} of {again / 'part-0.parquet'}: stands in {root}" in said
    assert not (tmp_path / "2").exists()


def test_a_chain_whose_first_result_was_made_anew_is_refused(
    made: Path, client: distributed.Client, tmp_path: Path
) -> None:
    shutil.copytree(made / "old", tmp_path / "0")
    update(made / "in-1", tmp_path / "1", tmp_path / "0").run(client)
    more = write_embeddings(tmp_path / "more", ["m"], np.ones((1, 6), np.float32))
    (tmp_path / "moved").mkdir()
    for name in "01":  # moved together they are found
        shutil.move(tmp_path / name, tmp_path / "moved" / name)
    found = update(more, tmp_path / "moved" / "2", tmp_path / "moved" / "1").run(client)
    assert found.base is not None
    assert found.base.paths == (str(tmp_path / "moved" / "0"), str(tmp_path / "moved" / "1"))
    workflow(made / "in-0", tmp_path / "moved" / "0", eps=0.1, clear_output=True).run(client)
    said = refused(more, tmp_path / "3", tmp_path / "moved" / "1")
    assert f"{tmp_path / 'moved' / '0'} is not what it was" in said
    shutil.rmtree(tmp_path / "moved" / "0")
    assert f"no such path: {tmp_path / 'moved' / '0'}" in refused(more, tmp_path / "3", tmp_path / "moved" / "1")


CLIPS = {"a": 0.0, "a2": 0.05, "b": 1.0, "b2": 1.05, "b3": 1.1, "c": 2.0}
"""Angles of clips of an earlier result: a2 goes for a; b2 and b3 for b; at 0.05 apart the score is .99875."""


def on_a_circle(folder: Path, angles: dict[str, float]) -> Path:
    rows = np.array([[np.cos(angle), np.sin(angle)] for angle in angles.values()], dtype=np.float32)
    return write_embeddings(folder, list(angles), rows, order=list(range(len(angles))))


def circle(
    place: Path, client: distributed.Client, first: dict[str, float] | None = None, last: dict[str, float] | None = None
) -> Path:
    """A result of one cluster of `CLIPS` and more, ranked as they come, at an eps that angles up to .11 apart match."""
    source = on_a_circle(place / "in", {**(first or {}), **CLIPS, **(last or {})})
    ranking = RankingStrategy.metadata_based("order")
    workflow(source, place / "old", n_clusters=1, eps=0.0062, ranking_strategy=ranking).run(client)
    return place / "old"


def test_withdrawn_rows_match_nothing_and_what_they_alone_kept_out_is_named(
    client: distributed.Client, tmp_path: Path
) -> None:
    old = circle(tmp_path, client, last={"d": 1.13})  # matches b2 and b3, not b: it goes for them, drifting away from b
    assert read_folder(old / "duplicates")["id"].tolist() == ["a2", "b2", "b3", "d"]
    new = on_a_circle(tmp_path / "new", {"n": 1.02, "m": 0.01})
    found = update(new, tmp_path / "out", old, withdraw=["b", "a2"]).run(client)
    assert read_folder(tmp_path / "out" / "duplicates")["id"].tolist() == ["m"], "n is like b, which was withdrawn"
    assert found.base is not None
    assert found.filter(pd.DataFrame({"id": ["m", "n", "b", "a2"]})).id.tolist() == ["n"]
    assert found.withdrawn is not None
    assert (found.base.rows, found.base.kept) == (7, 2)
    assert (found.withdrawn.ids, found.withdrawn.could_return) == (2, 2)
    folder = Path(found.withdrawn.path)
    assert pq.read_table(folder / "withdrawn.parquet")["id"].to_pylist() == ["b", "a2"]
    back = pq.read_table(folder / "could_return.parquet").to_pylist()
    assert [(row["id"], row["withdrawn_id"]) for row in back] == [("b2", "b"), ("b3", "b")]
    assert back[0]["cosine_sim_score"] == pytest.approx(np.cos(0.05), rel=1e-6)
    assert load(str(tmp_path / "out")).withdrawn == found.withdrawn
    assert "nothing keeps out any more" in repr(found)

    # for later links it stays withdrawn
    more = on_a_circle(tmp_path / "more", {"x": 1.0, "y": 0.0})
    again = update(more, tmp_path / "2", tmp_path / "out").run(client)
    assert again.base is not None
    assert (again.base.kept, again.withdrawn) == (3, None)
    scores = read_all_scores(tmp_path / "2").set_index("id")["max_id"]
    assert scores.to_dict() == {"x": "n", "y": "a"}


def test_what_another_row_that_stays_matches_does_not_come_back(client: distributed.Client, tmp_path: Path) -> None:
    old = circle(tmp_path, client, first={"e": 1.2})  # stays, and matches b3
    new = on_a_circle(tmp_path / "new", {"n": 3.0})
    (tmp_path / "ids.txt").write_text("b\n\nc\n")
    found = update(new, tmp_path / "out", old, withdraw=[str(tmp_path / "ids.txt")]).run(client)
    assert found.withdrawn is not None
    assert (found.withdrawn.ids, found.withdrawn.could_return) == (2, 1)
    assert pq.read_table(tmp_path / "out" / "_withdrawn" / "could_return.parquet")["id"].to_pylist() == ["b2"]


def test_ids_to_withdraw_that_are_not_there_are_refused(made: Path, client: distributed.Client, tmp_path: Path) -> None:
    new, out = made / "in-1", tmp_path / "out"
    with pytest.raises(InputError, match="withdraw names 1 ids that are no rows of the base, such as 'nosuch'"):
        update(new, out, made / "old", withdraw=["clip-00001", "nosuch"]).run(client)
    assert "no such file" in refused(new, out, made / "old", withdraw=["ids.txt"])
    with pytest.raises(ParameterError, match="withdraw names rows of a base; give base"):
        workflow(new, out, withdraw=["x"])
    with pytest.raises(ParameterError, match="withdraw must be ids"):
        update(new, out, made / "old", withdraw=[1.5])


def test_the_command_takes_a_base_and_what_it_does_not_name(
    client: distributed.Client, made: Path, tmp_path: Path
) -> None:
    old, out = tmp_path / "old", tmp_path / "out"
    common = ["--scheduler", client.scheduler.address, "--quiet"]
    first = ["dedup", "--input-embeddings-path", str(made / "in-0"), "--output-path", str(old), "--n-clusters", "3"]
    done = CliRunner().invoke(main, [*first, "--eps", "0.02", *common])
    assert done.exit_code == 3, done.output  # an id is in quarantine
    then = ["dedup", "--input-embeddings-path", str(made / "in-1"), "--output-path", str(out), "--base", str(old)]
    done = CliRunner().invoke(main, [*then, "--withdraw", "clip-00001", "clip-00002", *common])
    assert done.exit_code == 0, done.output
    assert "withdrawn from the base" in done.output
    assert (out / "extraction" / "dedup_summary_0.02.csv").exists()
    expected = update(made / "in-1", tmp_path / "other", old, withdraw=["clip-00001", "clip-00002"]).run(client)
    assert load(str(out)).duplicates == expected.duplicates


def test_an_update_is_complete_goes_on_and_refuses_another_base(
    client: distributed.Client, made: Path, tmp_path: Path
) -> None:
    shutil.copytree(made / "old", tmp_path / "old")
    update(made / "in-1", tmp_path / "out", tmp_path / "old").run(client)
    before = contents(tmp_path / "out")
    shutil.move(tmp_path / "old", tmp_path / "elsewhere")  # the same, elsewhere
    update(made / "in-1", tmp_path / "out", tmp_path / "elsewhere").run(NOWHERE)
    assert contents(tmp_path / "out") == before
    workflow(made / "in-0", tmp_path / "other", eps=0.1).run(client)
    with pytest.raises(OutputConflictError, match="base: "):
        update(made / "in-1", tmp_path / "out", tmp_path / "other", eps=EPS).run(client)
    with pytest.raises(OutputConflictError, match="withdraw: None there"):
        update(made / "in-1", tmp_path / "out", tmp_path / "elsewhere", withdraw=["clip-00001"]).run(client)


@pytest.mark.slow
def test_a_base_whose_clusters_are_in_a_cache(client: distributed.Client, made: Path, tmp_path: Path) -> None:
    workflow(made / "in-0", tmp_path / "old", eps=EPS, cache_path=tmp_path / "cache").run(client)
    workflow(made / "in-0", tmp_path / "plain", eps=EPS).run(client)
    answers = []
    for base in ("old", "plain"):
        out = tmp_path / f"out-{base}"
        update(made / "in-1", out, tmp_path / base, cache_path=str(tmp_path / f"cache-{base}")).run(client)
        answers.append(read_folder(tmp_path / f"cache-{base}" / "pairwise_results"))
        assert load(str(out)).base.paths == (str(tmp_path / base),)  # type: ignore[union-attr]
        assert [link.root.name for link in chain_of(Location.of(out))] == [base, out.name]
    pd.testing.assert_frame_equal(*answers)


@pytest.mark.slow
def test_a_base_in_a_bucket(client: distributed.Client, made: Path, s3: tuple[str, dict]) -> None:
    bucket, options = s3
    kwargs = {"storage_options": options}
    io = {"read_kwargs": kwargs, "write_kwargs": kwargs}
    for number in (0, 1):
        for file in (made / f"in-{number}").iterdir():
            Location.of(f"{bucket}/in-{number}/{file.name}", options).write_bytes(file.read_bytes())
    workflow(f"{bucket}/in-0", f"{bucket}/old", eps=EPS, **io).run(client)
    found = update(f"{bucket}/in-1", f"{bucket}/out", f"{bucket}/old", withdraw=["clip-00001"], **io).run(client)
    workflow(made / "in-0", made / "local", eps=EPS).run(client)
    other = update(made / "in-1", made / "local-out", made / "local", withdraw=["clip-00001"]).run(client)
    assert (found.duplicates, found.base.kept) == (other.duplicates, other.base.kept)  # type: ignore[union-attr]


@pytest.mark.slow
@pytest.mark.parametrize(
    "pattern",
    ["kmeans-*/journal/assign/1.json", "pairwise-*/dropped/0.arrow", "pairwise-*/journal/compare*/0.json"],
)
def test_a_killed_update_goes_on_where_it_stopped(
    pattern: str, made: Path, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"base": str(made / "old"), "withdraw": ["clip-00001"], "verbose": False}
    set_task_bytes(monkeypatch, 600)
    monkeypatch.setattr(sizes, "WORK_PER_TASK", work_of_driver(600))
    update(made / "in-1", tmp_path / "whole", **options).run(client)
    out = tmp_path / "out"
    parameters = {"input_path": str(made / "in-1"), "output_path": str(out), **options}
    driver = start_driver(tmp_path, parameters, task_bytes=600)
    wait_for(out, f"_scratch/{pattern}", driver)
    kill(driver)
    update(made / "in-1", out, **options).run(client)
    assert contents(out) == contents(tmp_path / "whole")


@pytest.mark.parametrize("exact_up_to", [pytest.param(None, marks=pytest.mark.slow), 0.01])
@pytest.mark.parametrize(
    ("rule", "back"),
    [
        pytest.param("any", ["b2", "b3"], marks=pytest.mark.slow),
        ("witness", []),
        pytest.param("components", ["b2", "b3", "d"], marks=pytest.mark.slow),
    ],
)
def test_what_withdrawn_rows_kept_out_under_each_rule(
    rule: str, back: list[str], exact_up_to: float | None, client: distributed.Client, tmp_path: Path
) -> None:
    # d matches b2 and b3, not b: by `any` it goes for them, by `components` for b, by `witness` it stays
    source = on_a_circle(tmp_path / "in", {**CLIPS, "d": 1.13})
    ranking = RankingStrategy.metadata_based("order")
    k = 1 if exact_up_to is None else 7  # each row in a cluster of its own
    workflow(
        source,
        tmp_path / "old",
        n_clusters=k,
        eps=0.0062,
        ranking_strategy=ranking,
        removal=rule,
        exact_up_to=exact_up_to,
    ).run(client)
    found = update(on_a_circle(tmp_path / "new", {"n": 3.0}), tmp_path / "out", tmp_path / "old", withdraw=["b"]).run(
        client
    )
    assert found.withdrawn is not None
    assert found.withdrawn.could_return == len(back)
    file = tmp_path / "out" / "_withdrawn" / "could_return.parquet"
    assert (pq.read_table(file)["id"].to_pylist() if back else file.exists()) == (back or False)
