"""`exact_up_to`: the answer of brute force over all rows, whatever the clusters, blocks and tiles."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse.csgraph import connected_components

from semdedup import (
    IdentifyDuplicatesStage,
    ParameterError,
    RankingStrategy,
    SemanticDeduplicationWorkflow,
    extract,
    load,
)
from semdedup.arrays import to_host
from semdedup.dedup.kernels import join
from semdedup.dedup.kernels.bounds import principal_axes, short_error, short_rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.join import Join, Margins, Side
from semdedup.dedup.ranking import rank_order
from tests.helpers import read_folder, set_task_bytes, set_task_work, workflow, write_embeddings
from tests.reference import least_score, pairs, removal, scores, similarities

RANKINGS: dict[str, Any] = {
    "hard": RankingStrategy.by_distance("hard", "cosine"),
    "easy": RankingStrategy.by_distance("easy", "l2"),
    "random": RankingStrategy.random(7),
    "metadata": RankingStrategy.metadata_based(["height"], ascending=False),
}


def crowd(n: int, d: int, spread: float, seed: int) -> np.ndarray:
    """Rows about a few directions, with copies."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((6, d))[rng.integers(6, size=n)] + spread * rng.standard_normal((n, d))
    rows[rng.integers(n, size=n // 8)] = rows[rng.integers(n, size=n // 8)]
    return unit_rows(rows.astype(np.float32))


def side(rows: np.ndarray, labels: np.ndarray, axes: np.ndarray, centroids: bool = True) -> tuple[Side, np.ndarray]:
    """A side of a join, and the rows in its order."""
    order = np.argsort(labels, kind="stable")
    starts = np.append(np.unique(labels[order], return_index=True)[1], len(labels))
    parts = [rows[order][a:b] for a, b in itertools.pairwise(starts)]
    centres = np.stack([part.mean(axis=0) for part in parts]).astype(np.float32) if centroids else None
    return Side(rows[order], short_rows(rows[order], axes), starts, centres), order


def on_device(one: Side, xp: ModuleType) -> Side:
    """The side with its rows as arrays of a module."""
    return one._replace(rows=xp.asarray(one.rows), short=xp.asarray(one.short))


@settings(deadline=None, max_examples=80)
@given(
    st.integers(2, 90),
    st.sampled_from([3, 24]),
    st.sampled_from([0.02, 0.3, 1.0]),
    st.sampled_from([0.0, 0.05, 0.3]),
    st.integers(0, 10_000),
)
def test_a_join_finds_what_brute_force_finds(
    xp: ModuleType, n: int, d: int, spread: float, eps: float, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, labels = crowd(n, d, spread, seed), rng.integers(5, size=n)
    axes = principal_axes(rows[: n // 2 + 1], int(rng.integers(1, d + 1)))
    matching = np.triu(similarities(rows) >= least_score(eps), 1)
    for centroids in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(join, "SMALL", 4)
            patch.setattr(join, "PART_ROWS", 20)
            patch.setattr(join, "NANOSECONDS_A_RECTANGLE", -1e9)  # margins, however little they spare
            whole, order = side(rows, labels, axes, centroids)
            for left, right, wanted in (
                ((whole, order), (whole, order), matching & (labels[:, None] != labels)),
                (
                    side(rows[: n // 2], labels[: n // 2], axes, centroids),
                    side(rows[n // 2 :], labels[n // 2 :], axes, centroids),
                    np.where(np.arange(n) < n // 2, False, matching) & (np.arange(n) < n // 2)[:, None],
                ),
            ):
                other = 0 if left is right or left[0] is right[0] else n // 2
                sides = {id(one): on_device(one, xp) for one in (left[0], right[0])}
                found = {
                    tuple(sorted((int(left[1][i]), int(right[1][j]) + other)))
                    for pairs in Join(sides[id(left[0])], sides[id(right[0])], least_score(eps)).pairs()
                    for i, j in zip(to_host(pairs.left), to_host(pairs.right), strict=True)
                }
                assert found == {(int(i), int(j)) for i, j in np.argwhere(wanted)}


@settings(deadline=None, max_examples=60)
@given(st.integers(4, 90), st.sampled_from([0.02, 0.3, 1.0]), st.sampled_from([0.0, 0.1, 0.3]), st.integers(0, 10_000))
def test_every_match_is_in_a_rectangle_of_the_margins(n: int, spread: float, eps: float, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(5, size=n)
    rows = crowd(n, 8, spread, seed)
    whole, order = side(rows, labels, principal_axes(rows, 4))
    wanted = np.triu(similarities(rows[order]) >= least_score(eps), 1) & (labels[order][:, None] != labels[order])
    for pair in (0.0, 1e30):  # a cluster with all that is near to it, and clusters two by two
        left = wanted.copy()
        for found in Margins(whole, whole, least_score(eps), pair).rectangles():
            left[np.ix_(*found)] = False
        assert not left.any()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.sampled_from([2, 16, 65]), st.sampled_from([1e-3, 0.3, 3.0]), st.integers(0, 10_000))
def test_the_product_of_short_rows_is_no_less_than_that_of_the_rows(n: int, d: int, spread: float, seed: int) -> None:
    rows = crowd(n, d, spread, seed)
    for n_axes in {1, d // 2 + 1, d}:
        axes = principal_axes(rows, n_axes)
        assert np.linalg.norm(axes.astype(np.float64), 2) <= 1
        short = short_rows(rows, axes)
        bound = (short @ short.T).astype(np.float64) + short_error(d, n_axes + 1)
        assert (bound >= rows.astype(np.float64) @ rows.astype(np.float64).T).all()


class Answer:
    """What a run wrote, in the rank order of the whole input, and what brute force says of the same rows and ranks."""

    def __init__(self, out: Path, strategy: RankingStrategy) -> None:
        clusters = read_folder(out / "kmeans_results")
        light = pa.Table.from_pandas(clusters.drop(columns="embedding"), preserve_index=False)
        clusters = clusters.iloc[rank_order(light, strategy)]
        self.out, self.ids = out, clusters["id"].to_numpy()
        self.rows, self.labels = np.stack(clusters["embedding"]), clusters["centroid"].to_numpy()

    def check_scores(self, exact_up_to: float) -> None:
        table = read_folder(self.out / "pairwise_results").set_index("id").loc[self.ids]
        expected = scores(self.rows, self.labels, exact_up_to)
        np.testing.assert_array_equal(table["cosine_sim_score"], expected.score)
        np.testing.assert_array_equal(table["max_id"], self.ids[expected.match])

    def check_removal(self, eps: float, rule: str, folder: Path) -> None:
        expected = removal(self.rows, eps, rule)
        assert set(read_folder(folder / "duplicates")["id"]) == set(self.ids[expected.removed])
        if rule != "any":
            witnesses = read_folder(folder / "witnesses").set_index("id").loc[self.ids[expected.removed]]
            np.testing.assert_array_equal(witnesses["witness_id"], self.ids[expected.witness[expected.removed]])
            np.testing.assert_array_equal(witnesses["cosine_sim_score"], expected.score[expected.removed])

    def check_forest(self, exact_up_to: float) -> None:
        edges = pd.read_parquet(self.out / "_forest")
        rank = pd.Series(np.arange(len(self.ids)), self.ids)
        a, b = rank[edges["id_a"]].to_numpy(), rank[edges["id_b"]].to_numpy()
        assert (a < b).all()
        assert (np.diff(a) >= 0).all()
        found = similarities(self.rows)
        for eps in (exact_up_to, exact_up_to / 2, 0.0):
            n_edges = int((edges["cosine_sim_score"] >= least_score(eps)).sum())
            assert connected_components(found >= least_score(eps))[0] == len(self.ids) - n_edges


def write_input(folder: Path, rows: np.ndarray, n_files: int = 3) -> Path:
    ids = [f"clip-{i:05d}" for i in range(len(rows))]
    return write_embeddings(folder, ids, rows, n_files, height=[int(i) % 3 for i in range(len(rows))])


EPS = {"digits": 0.06, "text": 0.25}
WHOLE, CUT = 1 << 22, {"digits": 20_000, "text": 120_000}
CASES = [(data, ranking, task_bytes) for data in EPS for ranking in RANKINGS for task_bytes in (WHOLE, CUT[data])]
QUICK = [("digits", "metadata", CUT["digits"]), ("text", "easy", CUT["text"])]


@pytest.mark.parametrize(
    ("data", "ranking", "task_bytes"),
    [pytest.param(*case, marks=() if case in QUICK else pytest.mark.slow) for case in CASES],
)
def test_scores_and_removals_are_those_of_brute_force(
    data: str,
    ranking: str,
    task_bytes: int,
    digit_rows: np.ndarray,
    text_rows: np.ndarray,
    client: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real_rows, exact = (digit_rows if data == "digits" else text_rows)[:500], EPS[data]
    set_task_work(monkeypatch, task_bytes, real_rows.shape[1])
    strategy = RANKINGS[ranking]
    source = write_input(tmp_path / "in", real_rows)
    fields = {"metadata_fields": ["height"], "ranking_strategy": strategy, "n_clusters": 6}
    workflow(source, tmp_path / "out", eps=exact, exact_up_to=exact, removal="witness", **fields).run(client)
    answer = Answer(tmp_path / "out", strategy)
    answer.check_scores(exact)
    answer.check_forest(exact)
    answer.check_removal(exact, "witness", tmp_path / "out")
    for rule in ("any", "components", "witness"):
        extract(str(tmp_path / "out"), exact * 0.7, str(tmp_path / rule), removal=rule, client=client)
        answer.check_removal(exact * 0.7, rule, tmp_path / rule)


@pytest.mark.parametrize("ranking", ["random", pytest.param("metadata", marks=pytest.mark.slow)])
def test_the_answer_does_not_depend_on_the_number_of_clusters(
    ranking: str, text_rows: np.ndarray, client: distributed.Client, tmp_path: Path
) -> None:
    source = write_input(tmp_path / "in", text_rows[:500])
    answers = []
    for k in (1, 3, 40):
        out = tmp_path / f"out-{k}"
        fields = {"metadata_fields": ["height"], "ranking_strategy": RANKINGS[ranking]}
        workflow(source, out, n_clusters=k, eps=0.2, exact_up_to=0.2, removal="witness", **fields).run(client)
        answers.append(read_folder(out / "witnesses").sort_values("id", ignore_index=True))
        assert len(answers[0])
        pd.testing.assert_frame_equal(answers[0], answers[-1])


def test_a_heap_that_lies_in_several_clusters(client: distributed.Client, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    rows = unit_rows((1 + 0.05 * rng.standard_normal((400, 8))).astype(np.float32))
    source = write_input(tmp_path / "in", rows)
    workflow(source, tmp_path / "out", n_clusters=5, eps=0.1, exact_up_to=0.1, removal="witness").run(client)
    answer = Answer(tmp_path / "out", RANKINGS["hard"])
    assert len(np.unique(answer.labels)) == 5
    assert len(pairs(answer.rows, 0.1).score) > 70_000
    answer.check_scores(0.1)
    answer.check_forest(0.1)
    answer.check_removal(0.1, "witness", tmp_path / "out")


def test_copies_match_at_eps_zero(text_rows: np.ndarray, client: distributed.Client, tmp_path: Path) -> None:
    rows = np.concatenate([text_rows[:200], text_rows[:60]])
    source = write_input(tmp_path / "in", rows)
    for exact in (None, 0.0):
        out = tmp_path / f"out-{exact}"
        result = workflow(source, out, eps=0.0, exact_up_to=exact, removal="witness").run(client)
        assert result.duplicates == 60


@pytest.mark.parametrize("eps", [0.11, 0.5])
def test_an_eps_beyond_is_refused(
    eps: float, text_rows: np.ndarray, client: distributed.Client, tmp_path: Path
) -> None:
    source, out = write_input(tmp_path / "in", text_rows[:50]), tmp_path / "out"
    with pytest.raises(ParameterError, match="exact_up_to"):
        workflow(source, out, eps=eps, exact_up_to=0.1)
    workflow(source, out, eps=0.05, exact_up_to=0.1).run(client)
    result = load(str(out))
    refused: Sequence[Any] = [
        lambda: extract(str(out), eps, client=client),
        lambda: result.rethreshold(eps),
        lambda: result.remaining([0.05, eps]),
        lambda: list(result.groups(eps)),
        lambda: result.borderline(3, eps),
        lambda: IdentifyDuplicatesStage(0.05, str(out), str(out / "more"), count_at=[eps]).run(client),
    ]
    for call in refused:
        with pytest.raises(ParameterError, match="exact_up_to"):
            call()
    assert max(at for at, _ in result.remaining()) <= 0.1


@pytest.mark.parametrize(
    ("rule", "task_bytes"),
    [
        ("witness", CUT["text"]),
        *(pytest.param(rule, WHOLE, marks=pytest.mark.slow) for rule in ("any", "witness")),
        *(pytest.param(rule, CUT["text"], marks=pytest.mark.slow) for rule in ("any", "components")),
        ("components", WHOLE),
    ],
)
def test_new_rows_against_a_base(
    rule: str,
    task_bytes: int,
    text_rows: np.ndarray,
    client: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_task_bytes(monkeypatch, task_bytes)
    exact = 0.25
    ids = [f"clip-{i:05d}" for i in range(450)]
    chosen = np.random.default_rng(0).permutation(450)
    for number, part in enumerate((chosen[:250], chosen[250:])):
        write_embeddings(tmp_path / f"in-{number}", [ids[i] for i in part], text_rows[part], 2)
    workflow(tmp_path / "in-0", tmp_path / "old", eps=exact, exact_up_to=exact, removal="witness").run(client)
    SemanticDeduplicationWorkflow(
        *(str(tmp_path / name) for name in ("in-1", "out")),
        base=str(tmp_path / "old"),
        removal=rule,  # type: ignore[arg-type]
        eps=exact,
        verbose=False,
    ).run(client)

    old, new = Answer(tmp_path / "old", RANKINGS["hard"]), Answer(tmp_path / "out", RANKINGS["hard"])
    kept = ~np.isin(old.ids, read_folder(tmp_path / "old" / "duplicates")["id"])
    n = int(kept.sum())
    rows, names = np.concatenate([old.rows[kept], new.rows]), np.concatenate([old.ids[kept], new.ids])
    labels = np.concatenate([old.labels[kept], new.labels])
    expected = scores(rows, labels, exact, n)
    table = read_folder(tmp_path / "out" / "pairwise_results").set_index("id").loc[names[n:]]
    np.testing.assert_array_equal(table["cosine_sim_score"], expected.score[n:])
    np.testing.assert_array_equal(table["max_id"], names[expected.match[n:]])
    for eps, folder in ((exact, tmp_path / "out"), (0.15, tmp_path / "more")):
        if folder != tmp_path / "out":
            extract(str(tmp_path / "out"), eps, str(folder), client=client)
        gone = removal(rows, eps, rule, base=n)
        assert set(read_folder(folder / "duplicates")["id"]) == set(names[gone.removed])
        assert set(gone.witness[gone.removed] < n) == {True, False}
        if rule != "any":
            witnesses = read_folder(folder / "witnesses").set_index("id").loc[names[gone.removed]]
            np.testing.assert_array_equal(witnesses["witness_id"], names[gone.witness[gone.removed]])
            np.testing.assert_array_equal(witnesses["cosine_sim_score"], gone.score[gone.removed])
