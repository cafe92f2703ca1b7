"""The removal rules from end to end, beside ten lines of NumPy: which rows go, for whose sake, and what results say."""

import json
import time
from collections.abc import Callable
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
from sklearn.datasets import load_digits

import semdedup
from semdedup import (
    BadFileError,
    IdentifyDuplicatesStage,
    InputError,
    KMeansStage,
    PairwiseStage,
    ParameterError,
    Pipeline,
    SemanticDeduplicationWorkflow,
    VideoDeduplicationWorkflow,
    extract,
    find_leaks,
    load,
    write_report,
)
from semdedup.cli import main
from semdedup.dedup.kernels.forest import spanning_forest
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.threshold.components import best_of_components
from tests.helpers import (
    NOWHERE,
    contents,
    ids_of,
    kill,
    near_duplicates,
    read_folder,
    set_task_bytes,
    set_task_work,
    start_driver,
    wait_for,
    workflow,
    write_embeddings,
)
from tests.shards import ids_in, make_clips, read_manifest, read_samples, sharder

RULES = ("any", "witness", "components")
EPS = 0.1


def with_witness(scores: np.ndarray, least: float) -> dict[int, tuple[int, float]]:
    """Rows in rank order: which go, for whose sake, and how similar they are to it."""
    kept: list[int] = []
    gone = {}
    for row in range(len(scores)):
        best = max(kept, key=lambda other: (scores[row, other], -other), default=-1)
        if best >= 0 and scores[row, best] >= least:
            gone[row] = (best, scores[row, best])
        else:
            kept.append(row)
    return gone


def with_components(scores: np.ndarray, least: float) -> dict[int, tuple[int, float]]:
    """The same for the components of the matches, whose best-ranked row stays."""
    label = np.arange(len(scores))
    linked = (scores >= least) | np.eye(len(scores), dtype=bool)
    for _ in range(len(scores)):
        label = np.array([label[row].min() for row in linked])
    return {row: (best, scores[row, best]) for row, best in enumerate(label) if best != row}


def with_any(scores: np.ndarray, least: float) -> dict[int, tuple[int, float]]:
    """Rows that match a better-ranked one."""
    best = [int(scores[row, :row].argmax()) if row else 0 for row in range(len(scores))]
    return {
        row: (best[row], scores[row, best[row]]) for row in range(1, len(scores)) if scores[row, best[row]] >= least
    }


REFERENCE: dict[str, Callable[[np.ndarray, float], dict[int, tuple[int, float]]]] = {
    "any": with_any,
    "witness": with_witness,
    "components": with_components,
}


def expected(out: Path, rule: str, eps: float) -> pd.DataFrame:
    """What goes from a result, by the ranks in which its scores stand: ``id``, ``witness_id``, similarity; by id."""
    clusters = read_folder(out / "kmeans_results").set_index("id")
    rows = []
    for file in sorted((out / "pairwise_results").glob("*.parquet")):
        ids = ids_of(file)
        found = clusters.loc[ids]
        x = np.stack(found["embedding"]).astype(np.float64)
        scores = (x @ x.T).clip(0, 1).astype(np.float32)
        _, same = np.unique(np.stack(found["embedding"]), axis=0, return_inverse=True)
        scores[same.reshape(-1, 1) == same.reshape(-1)] = 1
        if "low_information" in found:
            low = found["low_information"].to_numpy(dtype=bool)
            scores[low] = scores[:, low] = 0
        gone = REFERENCE[rule](scores, np.float32(1 - eps))
        rows += [(ids[row], ids[witness], score) for row, (witness, score) in gone.items()]
    table = pd.DataFrame(rows, columns=["id", "witness_id", "cosine_sim_score"])
    return table.sort_values("id", ignore_index=True)


def assert_right(out: Path, rule: str, eps: float, found: Path | None = None) -> int:
    """Assert that the ids and witnesses in a folder are those of the rule; how many go."""
    found = found or out
    wanted = expected(out, rule, eps)
    assert read_folder(found / "duplicates")["id"].tolist() == wanted["id"].tolist()
    files = sorted((found / "witnesses").glob("*")) if (found / "witnesses").exists() else []
    if rule == "any":
        assert not files
        return len(wanted)
    assert [file.name for file in files] == [file.name for file in sorted((found / "duplicates").glob("*"))]
    for file in files:
        assert ids_of(file) == ids_of(found / "duplicates" / file.name) == sorted(ids_of(file))
    witnesses = read_folder(found / "witnesses")
    assert witnesses.columns.tolist() == ["id", "witness_id", "cosine_sim_score"]
    assert witnesses["witness_id"].tolist() == wanted["witness_id"].tolist()
    np.testing.assert_allclose(witnesses["cosine_sim_score"], wanted["cosine_sim_score"], atol=2.0**-23)
    assert not set(witnesses["witness_id"]) & set(witnesses["id"])
    return len(wanted)


def drifting(rng: np.random.Generator, n: int = 600, dim: int = 12) -> np.ndarray:
    """Rows of which many are like another, which is like another in turn, and so on; some are equal."""
    rows = rng.normal(size=(n, dim))
    for row in range(1, n):
        if rng.random() < 0.6:
            rows[row] = rows[row - 1] + rng.normal(scale=0.3, size=dim)
    rows[: n // 20] = rows[n // 20 : 2 * (n // 20)]
    return rows[rng.permutation(n)].astype(np.float32)


@pytest.fixture(scope="module")
def emb(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = drifting(np.random.default_rng(5))
    low = [i % 37 == 0 for i in range(len(rows))]
    ids = [f"r{i:04d}" for i in range(len(rows))]
    return write_embeddings(tmp_path_factory.mktemp("removal"), ids, rows, 3, low_information=low)


@pytest.fixture(scope="module")
def scored(emb: Path, client: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A result of scores only."""
    out = tmp_path_factory.mktemp("scored") / "out"
    workflow(emb, out, eps=None, which_to_keep="random").run(client)
    return out


@pytest.fixture(params=["small", pytest.param("large", marks=pytest.mark.slow)])
def task_size(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clusters that fit a task, and such that do not."""
    if request.param == "large":
        set_task_work(monkeypatch, 3000, 12)


# Which rows go


@pytest.mark.usefixtures("task_size")
@pytest.mark.parametrize("rule", RULES)
def test_each_rule_takes_what_ten_lines_of_numpy_take(
    rule: str, emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = workflow(emb, out, eps=EPS, removal=rule, count_at=[0.02, EPS, 0.15], which_to_keep="random").run(client)
    assert result.duplicates == assert_right(out, rule, EPS) > 50
    assert result.kept == 600 - result.duplicates
    assert result.removal == load(str(out)).removal == rule
    assert json.loads((out / "_manifest.json").read_text())["steps"]["identify"]["parameters"]["removal"] == rule
    for eps in (0.02, EPS, 0.15):
        n = len(expected(out, rule, eps))
        assert result.metadata["removed_at"][repr(eps)] == n
        line = f"{eps!r},{600 - n},{n},600"
        assert (out / f"dedup_summary_{eps:.6g}.csv").read_text().split() == ["eps,kept,removed,total", line]


@pytest.mark.usefixtures("task_size")
@pytest.mark.parametrize("eps", [0.0, 0.05, 0.25, 0.6])
@pytest.mark.parametrize("rule", RULES)
def test_scores_that_exist_serve_every_rule(
    rule: str, eps: float, scored: Path, client: distributed.Client, tmp_path: Path
) -> None:
    done = extract(str(scored), eps, str(tmp_path / "x"), removal=rule, client=client, verbose=False)
    assert done.duplicates == assert_right(scored, rule, eps, tmp_path / "x")
    assert done.removal == rule
    kept = read_folder(tmp_path / "x" / "kept")["id"].tolist()
    gone = read_folder(tmp_path / "x" / "duplicates")["id"].tolist()
    assert sorted(kept + gone) == [f"r{i:04d}" for i in range(600)]
    assert load(str(scored)).rethreshold(eps, rule).duplicates == done.duplicates


def test_beyond_the_forest_clusters_are_compared_again_and_that_is_said(
    scored: Path, client: distributed.Client, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    extract(str(scored), 0.3, str(tmp_path / "a"), removal="components", client=client)
    assert "no forest of matches up to eps 0.3: the clusters are compared again" in capfd.readouterr().err
    extract(str(scored), 0.2, str(tmp_path / "b"), removal="components", client=client)
    assert "compared again" not in capfd.readouterr().err


def test_rules_on_digits(client: distributed.Client, tmp_path: Path) -> None:
    rows = load_digits().data.astype(np.float32)
    source = write_embeddings(tmp_path / "in", range(len(rows)), rows, 2)
    gone = {}
    for rule in RULES:
        out = tmp_path / rule
        workflow(source, out, n_clusters=5, eps=0.05, removal=rule).run(client)
        assert assert_right(out, rule, 0.05) > 300
        gone[rule] = set(read_folder(out / "duplicates")["id"])
    assert gone["witness"] < gone["any"] < gone["components"]


def test_a_chain_of_slow_drift_keeps_a_witness_for_each_row(client: distributed.Client, tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    rows = [rng.normal(size=64)]
    rows[0] /= np.linalg.norm(rows[0])
    for _ in range(399):
        across = rng.normal(size=64)
        across -= (across @ rows[-1]) * rows[-1]
        rows.append(0.995 * rows[-1] + np.sqrt(1 - 0.995**2) * across / np.linalg.norm(across))
    source = write_embeddings(tmp_path / "in", range(400), np.array(rows, dtype=np.float32))
    kept = {}
    for rule in RULES:
        strategy = semdedup.RankingStrategy.metadata_based("id") if rule else None
        result = workflow(source, tmp_path / rule, n_clusters=1, removal=rule, ranking_strategy=strategy).run(client)
        assert_right(tmp_path / rule, rule, 0.01)
        kept[rule] = result.kept
    assert kept["any"] == kept["components"] == 1
    assert 50 < kept["witness"] < 400
    assert load(str(tmp_path / "any")).without_witness() > 300


@pytest.mark.slow
def test_a_heap_of_nearly_equal_rows_is_cheap(client: distributed.Client, tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    rows = (1 + rng.normal(scale=1e-3, size=(20_000, 16))).astype(np.float32)
    source = write_embeddings(tmp_path / "in", range(20_000), rows)
    workflow(source, tmp_path / "out", n_clusters=1, eps=None).run(client)
    started = time.monotonic()
    for rule in RULES:
        done = extract(str(tmp_path / "out"), EPS, removal=rule, client=client, verbose=False)
        assert (done.kept, done.duplicates) == (1, 19_999)
    assert load(str(tmp_path / "out")).rethreshold(EPS).without_witness() == 0
    assert time.monotonic() - started < 30


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1), st.floats(0, 0.99))
def test_components_of_a_forest_are_those_of_all_pairs(n: int, seed: int, eps: float) -> None:
    x = np.random.default_rng(seed).normal(size=(n, 3))
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    scores = (x @ x.T).clip(0, 1).astype(np.float32)
    left, right = np.triu_indices(n, 1)
    chosen = spanning_forest(left, right, scores[left, right], n)
    edges = Pairs(left[chosen], right[chosen], scores[left, right][chosen])
    best = best_of_components(edges, n, np.float32(1 - eps))
    wanted = with_components(scores, np.float32(1 - eps))
    assert {row: witness for row, witness in enumerate(best) if witness >= 0} == {r: w for r, (w, _) in wanted.items()}


# What stages and results say


def test_a_stage_finds_the_clusters_by_the_record_of_the_scores(
    emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    quiet: dict[str, Any] = {"verbose": False}
    pipeline = Pipeline().add_stage(
        KMeansStage(n_clusters=3, max_iter=5, input_path=str(emb), output_path=str(tmp_path / "kmeans"), **quiet)
    )
    pipeline.add_stage(PairwiseStage(output_path=str(tmp_path / "pairwise"), **quiet))
    pipeline.add_stage(
        IdentifyDuplicatesStage(eps=EPS, removal="witness", output_path=str(tmp_path / "ids"), **quiet)
    ).run(client)
    assert sorted(path.name for path in (tmp_path / "ids").iterdir()) == [
        "_manifest.json",
        "_progress.json",
        "part-0.parquet",
        "witnesses",
    ]
    frame = client.compute(semdedup.read_duplicates(str(tmp_path / "ids"))).result()
    witnesses = client.compute(semdedup.read_witnesses(str(tmp_path / "ids"))).result()
    assert frame["id"].tolist() == witnesses["id"].tolist()
    (tmp_path / "kmeans").rename(tmp_path / "elsewhere")

    def identify(name: str, **more: Any) -> IdentifyDuplicatesStage:
        where = {"input_path": str(tmp_path / "pairwise"), "output_path": str(tmp_path / name)}
        return IdentifyDuplicatesStage(eps=EPS, removal="witness", **where, **quiet, **more)

    with pytest.raises(
        InputError, match=r"no clusters in .*kmeans\. The removal rule 'witness' reads the clusters, wh"
    ):
        identify("gone").run(NOWHERE)
    identify("again", clusters_path=str(tmp_path / "elsewhere")).run(client)
    assert contents(tmp_path / "again") == contents(tmp_path / "ids")
    other = tmp_path / "other"
    KMeansStage(n_clusters=3, max_iter=1, input_path=str(emb), output_path=str(other), **quiet).run(client)
    with pytest.raises(InputError, match="are not those that the scores in"):
        identify("wrong", clusters_path=str(other)).run(NOWHERE)


def test_a_cache_elsewhere_and_a_result_that_was_moved(emb: Path, client: distributed.Client, tmp_path: Path) -> None:
    place = tmp_path / "before"
    made = workflow(emb, place / "out", cache_path=place / "cache", eps=EPS, removal="witness", which_to_keep="random")
    result = made.run(client)
    assert result.paths["witnesses"] == str(place / "out" / "witnesses")
    place.rename(tmp_path / "after")
    out = tmp_path / "after" / "out"
    done = extract(str(out), EPS, str(tmp_path / "x"), client=client, verbose=False)
    assert (done.removal, done.duplicates) == ("witness", result.duplicates)
    assert contents(tmp_path / "x" / "witnesses") == contents(out / "witnesses")
    assert load(str(out)).rethreshold(0.05).duplicates == len(expected(tmp_path / "after" / "cache", "witness", 0.05))
    assert_right(tmp_path / "after" / "cache", "witness", EPS, out)


def test_tables_of_others_serve_where_they_stand_in_rank_order(client: distributed.Client, tmp_path: Path) -> None:
    rows = np.array([[1, 0], [0.99, 0.14], [0.95, 0.31]], dtype=np.float32)
    write_embeddings(tmp_path / "kmeans_results" / "centroid=4", ["a", "b", "c"], rows)
    scores = pa.table({"id": ["a", "b", "c"], "max_id": ["a", "a", "b"], "cosine_sim_score": [0.0, 0.9902, 0.9849]})
    (tmp_path / "pairwise_results").mkdir()
    place = tmp_path / "pairwise_results" / "cluster_4.parquet"
    pq.write_table(scores, place)
    for rule, kept in (("any", 1), ("witness", 2), ("components", 1)):
        done = extract(str(tmp_path), 0.02, removal=rule, client=client, verbose=False)
        assert done.kept == kept
        assert done.paths["ids to drop"].endswith(f"eps_0.02_{rule}/duplicates")
    pq.write_table(scores.take([2, 1, 0]), place)
    with pytest.raises(BadFileError, match="do not stand in rank order: 'c' does not come after 'b'"):
        extract(str(tmp_path), 0.02, str(tmp_path / "x"), removal="witness", client=client, verbose=False)


def test_a_result_tells_of_witnesses(scored: Path) -> None:
    result = load(str(scored)).rethreshold(EPS, "witness")
    wanted = expected(scored, "witness", EPS).set_index("id")
    assert result.removal == "witness"
    assert result.without_witness() == 0
    groups = list(result.groups())
    assert {pair.id: group.kept for group in groups for pair in group.dropped} == wanted["witness_id"].to_dict()
    assert all(pair.max_id == group.kept for group in groups for pair in group.dropped)
    row = wanted.index[0]
    told = result.explain(row)
    assert (told.duplicate, told.witness.max_id) == (True, wanted["witness_id"].iloc[0])
    assert f"{row} goes for the sake of {told.witness.max_id}, which stays: similarity" in str(told)
    assert result.explain(groups[0].kept).duplicate is False
    assert result.remaining([EPS]) == [(EPS, 1 - len(wanted) / 600)]
    with pytest.raises(ParameterError, match="target_fraction is for removal='any'"):
        result.suggest_eps(0.5)
    assert any("duplicates at eps 0.1, witness" in name for name, _ in result.rows())
    with pytest.raises(ParameterError, match="removal must be one of any, witness, components; got 'some'"):
        result.rethreshold(EPS, "some")  # type: ignore[arg-type]


@pytest.mark.slow
@pytest.mark.usefixtures("task_size")
def test_rows_that_any_removes_without_a_witness_are_counted(scored: Path) -> None:
    gone, kept = expected(scored, "any", EPS), set(read_folder(scored / "pairwise_results")["id"])
    kept -= set(gone["id"])
    clusters = read_folder(scored / "kmeans_results").set_index("id")
    lonely = 0
    for row in gone["id"]:
        near = clusters.loc[[i for i in kept if clusters.loc[i, "centroid"] == clusters.loc[row, "centroid"]]]
        near = near[~near["low_information"]]
        scores = np.stack(near["embedding"]).astype(np.float64) @ clusters.loc[row, "embedding"].astype(np.float64)
        lonely += not (scores.astype(np.float32) >= np.float32(1 - EPS)).any()
    assert load(str(scored)).rethreshold(EPS).without_witness() == lonely > 0


@pytest.mark.parametrize(
    "rule", ["witness", *(pytest.param(rule, marks=pytest.mark.slow) for rule in ("any", "components"))]
)
def test_across_clusters_a_result_answers_as_that_of_one_cluster(
    rule: str, emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    made: dict[str, Any] = {"eps": EPS, "which_to_keep": "random", "removal": rule, "exact_up_to": 0.2}
    many = workflow(emb, tmp_path / "many", n_clusters=5, **made).run(client)
    one = workflow(emb, tmp_path / "one", n_clusters=1, **{**made, "exact_up_to": None}).run(client)
    assert many.duplicates == one.duplicates
    for other in RULES:
        found, wanted = many.rethreshold(0.15, other), one.rethreshold(0.15, other)
        assert found.duplicates == wanted.duplicates
        assert found.without_witness() == wanted.without_witness()
        groups, others = ({group.kept: group.dropped for group in each.groups()} for each in (found, wanted))
        assert groups.keys() == others.keys()
        for kept, dropped in groups.items():
            assert {(pair.id, pair.max_id) for pair in dropped} == {(pair.id, pair.max_id) for pair in others[kept]}
        row = next(iter(groups.values()))[0].id
        told, wanted_told = found.explain(row), wanted.explain(row)
        assert (told.duplicate, told.pair.max_id) == (wanted_told.duplicate, wanted_told.pair.max_id)
        assert told.metadata
        assert told.max_metadata
        assert (told.witness and told.witness.max_id) == (wanted_told.witness and wanted_told.witness.max_id)
    for ask in (many.rethreshold, lambda eps: extract(str(tmp_path / "many"), eps, client=NOWHERE)):
        with pytest.raises(ParameterError, match=r"eps 0\.3 is above exact_up_to 0\.2"):
            ask(0.3)
    assert max(eps for eps, _ in many.remaining()) == 0.2
    assert Path(write_report(str(tmp_path / "many"), verbose=False)).exists()


@pytest.mark.parametrize("rule", RULES)
def test_the_page_tells_of_the_rule(rule: str, emb: Path, client: distributed.Client, tmp_path: Path) -> None:
    result = workflow(emb, tmp_path / "out", eps=EPS, removal=rule).run(client)
    page = Path(write_report(str(tmp_path / "out"), verbose=False)).read_text()
    assert f"<h1>{result.duplicates} of 600 clips are near-duplicates</h1>" in page
    assert ("for its sake, their witness" in page) == (rule != "any")
    assert (f"removal rule {rule}" in page) == (rule != "any")
    (tmp_path / "out" / "kmeans_results").rename(tmp_path / "gone")
    page = Path(write_report(str(tmp_path / "out"), verbose=False)).read_text()
    assert ("groups are those of the rule any: no clusters in" in page) == (rule != "any")


def test_shards_go_by_the_rule(client: distributed.Client, tmp_path: Path) -> None:
    rows = drifting(np.random.default_rng(9), 60)
    ids = [f"c{i:02d}" for i in range(60)]
    make_clips(tmp_path / "in", ids, embeddings=False)
    source, out = write_embeddings(tmp_path / "emb", ids, rows), tmp_path / "dedup"
    workflow(source, out, n_clusters=2, eps=EPS, removal="witness").run(client)
    for name, more, rule, eps in (
        ("record", {}, "witness", EPS),
        ("given", {"removal": "components"}, "components", EPS),
        ("other", {"semantic_dedup_epsilon": 0.02}, "witness", 0.02),
        ("scores", {"removal": "any", "semantic_dedup_epsilon": 0.02}, "any", 0.02),
    ):
        result = sharder(tmp_path / "in", tmp_path / name, input_semantic_dedup_path=out, **more).run(client)
        gone = set(expected(out, rule, eps)["id"])
        assert gone
        assert ids_in(read_samples(tmp_path / name)) == [i for i in ids if i not in gone]
        assert (result.facts["removal"], result.facts["eps"]) == (rule, eps)
        assert read_manifest(tmp_path / name)["removal"] == rule
        again = sharder(tmp_path / "in", tmp_path / name, input_semantic_dedup_path=out, **more).run(NOWHERE)
        assert again.resumed
    with pytest.raises(ParameterError, match="removal is given, but no scores"):
        sharder(tmp_path / "in", tmp_path / "x", removal="any")
    (out / "pairwise_results").rename(tmp_path / "scores-gone")
    with pytest.raises(ParameterError, match="extracted at removal witness: they cannot be had for removal any"):
        sharder(tmp_path / "in", tmp_path / "x", input_semantic_dedup_path=out / "duplicates", removal="any").run(
            NOWHERE
        )


def test_leaks_have_the_best_match_as_witness(emb: Path, client: distributed.Client, tmp_path: Path) -> None:
    b = write_embeddings(tmp_path / "b", range(30), drifting(np.random.default_rng(5))[:30] + np.float32(0.01))
    (tmp_path / "a").mkdir()
    write_embeddings(tmp_path / "a", range(100, 700), drifting(np.random.default_rng(5)))
    result = find_leaks(str(tmp_path / "a"), str(b), str(tmp_path / "out"), eps=EPS, client=client, verbose=False)
    scores = read_folder(tmp_path / "out" / "pairwise_results")
    wanted = scores[scores["cosine_sim_score"] >= np.float32(1 - EPS)].reset_index(drop=True)
    found = read_folder(tmp_path / "out" / "witnesses")
    assert found["id"].tolist() == wanted["id"].tolist()
    assert found["witness_id"].tolist() == wanted["max_id"].tolist()
    assert result.leaks == len(found) > 0
    for rule in ("any", "witness"):
        done = extract(str(tmp_path / "out"), EPS, str(tmp_path / rule), removal=rule, client=client, verbose=False)
        assert done.duplicates == result.leaks
    with pytest.raises(ParameterError, match="removal must be any or witness for scores of one set against another"):
        extract(str(tmp_path / "out"), EPS, str(tmp_path / "x"), removal="components", client=client, verbose=False)


# Killed, in a bucket, from the command line


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["witness", "components"])
def test_a_run_that_is_killed_in_a_second_look_ends_with_the_same_bytes(
    rule: str, emb: Path, client: distributed.Client, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    set_task_bytes(monkeypatch, 3000)
    chosen = {"n_clusters": 6, "max_iter": 5, "eps": EPS, "removal": rule}
    workflow(emb, tmp_path / "whole", **chosen).run(client)
    given = {**chosen, "input_path": str(emb), "output_path": str(tmp_path / "out")}
    for step in ("gather-tiles", "threshold"):
        process = start_driver(tmp_path, given, task_bytes=3000)
        wait_for(tmp_path / "out", f"_scratch/identify-*/journal/{step}/*.json", process)
        kill(process)
        assert not (tmp_path / "out" / "duplicates").exists()
    process = start_driver(tmp_path, given, task_bytes=3000)
    assert process.wait(120) == 0, (tmp_path / "log").read_text()
    assert contents(tmp_path / "out") == contents(tmp_path / "whole")


@pytest.mark.slow
def test_witnesses_in_a_bucket(s3: tuple[str, dict], client: distributed.Client, tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "in", *near_duplicates(np.random.default_rng(3)))
    kwargs = {"storage_options": s3[1]}
    out = f"{s3[0]}/out"
    made = SemanticDeduplicationWorkflow(
        str(source), out, n_clusters=2, eps=EPS, removal="witness", write_kwargs=kwargs, verbose=False
    )
    result = made.run(client)
    workflow(source, tmp_path / "out", n_clusters=2, max_iter=300, eps=EPS, removal="witness").run(client)
    found = client.compute(semdedup.read_witnesses(out, storage_options=s3[1])).result()
    wanted = read_folder(tmp_path / "out" / "witnesses")
    assert sorted(found["id"]) == wanted["id"].tolist()
    assert len(client.compute(result.witnesses_frame()).result()) == result.duplicates
    for rule, n in (("components", None), ("witness", result.duplicates)):
        done = extract(out, EPS, removal=rule, storage_options=s3[1], client=client, verbose=False)
        assert done.duplicates == (n or done.duplicates)
        assert load(out, storage_options=s3[1]).rethreshold(EPS, rule).duplicates == done.duplicates


def test_the_command_line_has_the_rule(emb: Path, client: distributed.Client, tmp_path: Path) -> None:
    def run(*args: str) -> str:
        done = CliRunner().invoke(main, [*args, "--quiet", "--scheduler", client.scheduler.address])
        assert done.exit_code == 0, done.output
        return done.output

    out = str(tmp_path / "out")
    places = ["--input-embeddings-path", str(emb), "--output-path", out]
    told = run("dedup", *places, "--n-clusters", "3", "--eps", "0.1", "--removal", "witness")
    assert "duplicates at eps 0.1, witness" in told
    assert (tmp_path / "out" / "witnesses").is_dir()
    told = run("extract", out, "--eps", "0.05")  # the rule of the record
    assert "eps_0.05_witness" in told
    told = run("extract", out, "--eps", "0.05", "--removal", "components")
    assert "eps_0.05_components" in told
    done = CliRunner().invoke(main, ["extract", out, "--eps", "0.05", "--removal", "most"])
    assert done.exit_code == 2
    assert "removal must be one of any, witness, components; got 'most'" in done.output


def test_the_whole_way_removes_with_a_witness_unless_told_otherwise(tmp_path: Path) -> None:
    for options, removal in (({}, "witness"), ({"removal": "any"}, "any")):
        dedups = VideoDeduplicationWorkflow("in", str(tmp_path), dedup=options).dedups._of("dct3d", fresh=True)
        assert dedups.workflow(1, EPS).removal == removal
