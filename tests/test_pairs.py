"""Every pair within eps, against brute force."""

import json
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
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
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup import (
    DuplicateIdError,
    InputError,
    KMeansStage,
    OutputConflictError,
    PairsResult,
    PairsStage,
    PairwiseStage,
    ParameterError,
    RankingStrategy,
    SemdedupError,
    cli,
    find_leaks,
    find_pairs,
)
from semdedup.arrays import to_host
from semdedup.dedup.kernels.bounds import principal_axes, short_rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.join import Side
from semdedup.dedup.kernels.matches import Pairs
from semdedup.dedup.pairs.copies import Copies, expanded
from semdedup.dedup.pairs.match import choose_width, every_match
from semdedup.dedup.ranking import rank_order
from tests import reference
from tests.helpers import (
    NOWHERE,
    assert_nothing_left,
    contents,
    embedding_table,
    files_below,
    kill,
    near_duplicates,
    set_task_bytes,
    stamps,
    start_program,
    wait_for,
    workflow,
    write_embeddings,
)
from tests.test_reference import on_circle

EPS = (0.05, 0.1, 0.2)
QUICK = [("text_rows", 0.1), ("digit_rows", 0.2)]
Table = Sequence[tuple[Any, Any, float]]


def pairs(source: Any, eps: float, out: Path, client: Any, **options: Any) -> PairsResult:
    return find_pairs(str(source), eps, str(out), client=client, verbose=False, **options)


def read_pairs(out: Path) -> pd.DataFrame:
    """The pairs of a result, by the ids."""
    files = sorted((out / "pairs").glob("*.parquet"))
    table = pa.concat_tables([pq.read_table(file) for file in files]).to_pandas()
    return table.sort_values(["id_a", "id_b"], ignore_index=True)


def brute_force(ids: Sequence[Any], rows: np.ndarray, eps: float, **options: Any) -> pd.DataFrame:
    """All pairs of rows whose rank is the order that they are given in."""
    found = reference.pairs(rows, eps, **options)
    every = np.array(ids, dtype=object)
    table = pd.DataFrame({"id_a": every[found.better], "id_b": every[found.worse], "cosine_sim_score": found.score})
    return table.sort_values(["id_a", "id_b"], ignore_index=True)


def assert_same_pairs(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    assert found["id_a"].tolist() == expected["id_a"].tolist()
    assert found["id_b"].tolist() == expected["id_b"].tolist()
    np.testing.assert_allclose(found["cosine_sim_score"], expected["cosine_sim_score"], rtol=0, atol=6e-8)


def by_id(ids: Sequence[Any], rows: np.ndarray) -> tuple[list[Any], np.ndarray]:
    order = sorted(range(len(ids)), key=lambda i: ids[i])
    return [ids[i] for i in order], rows[order]


@pytest.fixture
def small_tasks(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """A function that makes tasks hold so many bytes."""
    return partial(set_task_bytes, monkeypatch)


# Arrays


def side_of(rows: Any, width: int, n_clusters: int, xp: ModuleType) -> Side:
    """Rows cut into clusters of about the same size, with short rows of a width, or the rows themselves for 0."""
    starts = np.unique(np.linspace(0, len(rows), n_clusters + 1).astype(np.int64))
    on_device = xp.asarray(rows)
    short = short_rows(on_device, xp.asarray(principal_axes(rows, width - 1))) if width else on_device
    means = [rows[a:b].mean(axis=0) for a, b in pairwise(starts.tolist())]
    return Side(on_device, short, starts, np.stack(means) if n_clusters > 1 else None)


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 120),
    cut=st.floats(0.1, 1),
    dim=st.integers(2, 12),
    n_clusters=st.integers(1, 9),
    shortened=st.booleans(),
    eps=st.floats(0, 0.9),
)
def test_matches_of_one_side_and_of_two_are_all_pairs(
    xp: ModuleType, seed: int, n: int, cut: float, dim: int, n_clusters: int, shortened: bool, eps: float
) -> None:
    _, rows = near_duplicates(np.random.default_rng(seed), n + 3, dim)
    rows = unit_rows(rows)
    middle = max(1, int(len(rows) * cut) - 1)
    expected = reference.pairs(rows, eps)
    width = max(2, dim // 2) if shortened else 0
    sides = [side_of(part, width, n_clusters, xp) for part in (rows[:middle], rows[middle:])]
    if width:
        axes = xp.asarray(principal_axes(rows, width - 1))
        sides = [side._replace(short=short_rows(side.rows, axes)) for side in sides]
    found, counts = Counter[tuple[int, int]](), Counter[str]()
    for left, right, shifts in ((0, 0, (0, 0)), (0, 1, (0, middle)), (1, 1, (middle, middle))):
        one, other = sides[left], sides[right]
        for each in every_match(one, other if left != right else one, reference.least_score(eps), counts):
            ends = to_host(each.left) + shifts[0], to_host(each.right) + shifts[1]
            found.update(zip(*map(np.ndarray.tolist, ends), strict=True))
    assert set(found) == set(zip(expected.better.tolist(), expected.worse.tolist(), strict=True))
    assert set(found.values()) <= {1}
    assert counts["matches"] == len(expected.score)
    assert counts["pairs"] == len(rows) * (len(rows) - 1) // 2
    assert counts["pairs"] >= counts["by_margin"] >= counts["by_axes"] >= counts["matches"]


@pytest.mark.slow
def test_the_width_of_short_rows_is_chosen_by_what_they_leave(text_rows: np.ndarray, digit_rows: np.ndarray) -> None:
    widths = [choose_width(text_rows, reference.least_score(eps))[0] for eps in (0.05, 0.2, 0.5, 0.95)]
    assert widths == [*sorted(widths[:3]), 0]
    assert widths[0] in (32, 64)
    for eps in EPS:
        width, axes = choose_width(digit_rows, reference.least_score(eps))
        assert axes.shape == (64, max(0, width - 1))
    assert choose_width(text_rows[:, :40], np.float32(0.9))[0] == 0
    assert choose_width(np.empty((0, 384), np.float32), np.float32(0.9))[1].shape == (384, 0)


@given(
    seed=st.integers(0, 2**32),
    sizes=st.lists(st.integers(1, 6), min_size=1, max_size=8),
    most=st.integers(1, 40),
    same=st.booleans(),
)
def test_pairs_of_rows_that_have_copies_are_pairs_of_all(seed: int, sizes: list[int], most: int, same: bool) -> None:
    rng = np.random.default_rng(seed)
    left = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    right = left if same else rng.permutation(np.repeat(np.arange(len(sizes)), sizes[::-1]))
    matching = np.triu(rng.random((len(sizes),) * 2) < 0.5)
    if same:
        matching[np.diag_indices(len(sizes))] = True
    chosen = np.nonzero(matching)
    score = rng.random(len(chosen[0])).astype(np.float32)
    one = Copies.of(left)
    pieces = list(expanded(Pairs(*chosen, score), one, one if same else Copies.of(right), most))
    assert all(len(piece.left) <= most for piece in pieces)
    found = Counter(pair for piece in pieces for pair in zip(*map(np.ndarray.tolist, piece), strict=True))
    both = {(a, b): float(value) for a, b, value in zip(*chosen, score, strict=True)}
    expected = Counter(
        (i, j, both[a, b])
        for i, a in enumerate(left)
        for j, b in enumerate(right)
        if (a, b) in both and (not same or a != b or i < j)
    )
    assert found == expected


# The whole of it


@pytest.mark.parametrize(
    ("name", "eps"),
    [
        pytest.param(name, eps, marks=() if (name, eps) in QUICK else pytest.mark.slow)
        for name in ("text_rows", "digit_rows")
        for eps in EPS
    ],
)
def test_the_pairs_are_those_of_brute_force_however_the_rows_lie(
    name: str, eps: float, client: distributed.Client, tmp_path: Path, request: pytest.FixtureRequest,
    rng: np.random.Generator, small_tasks: Callable[[int], None],
) -> None:  # fmt: skip
    rows = request.getfixturevalue(name)
    ids = [f"{i:05d}" for i in rng.permutation(len(rows))]
    expected = brute_force(*by_id(ids, rows), eps)
    for n_files, part in ((1, 1), (5, 4)):  # one block, then some
        source = write_embeddings(tmp_path / f"in-{n_files}", ids, rows, n_files)
        small_tasks((4 * rows.size + 20 * len(rows)) // part + 4)
        found = pairs(source, eps, tmp_path / f"out-{n_files}", client)
        assert_same_pairs(read_pairs(tmp_path / f"out-{n_files}"), expected)
        assert (found.pairs, found.compared, found.eps) == (len(expected), len(rows), eps)
        differ = len(np.unique(rows, axis=0))
        assert differ * (differ - 1) // 2 <= found.counts["pairs"] <= len(rows) * (len(rows) - 1) // 2
        assert (
            part > 1 or found.counts["pairs"] == differ * (differ - 1) // 2
        )  # of a block one of equal rows is compared
        assert f"{part + (part > 1)} blocks" in found.plan or f"{part} blocks" in found.plan
        assert "margins" not in found.plan


@pytest.mark.parametrize("eps", [0.05, pytest.param(0.2, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "which", ["hard", *(pytest.param(which, marks=pytest.mark.slow) for which in ("easy", "random"))]
)
def test_of_a_result_the_pairs_are_by_its_ranks_and_across_its_clusters(
    eps: float, which: str, client: distributed.Client, tmp_path: Path, text_rows: np.ndarray,
    small_tasks: Callable[[int], None],
) -> None:  # fmt: skip
    rows = text_rows[:1500]
    source = write_embeddings(tmp_path / "in", [f"{i:05d}" for i in range(len(rows))], rows, 3)
    workflow(source, tmp_path / "result", n_clusters=12, which_to_keep=which, random_state=7).run(client)
    small_tasks(4 * rows.size // 9)  # the largest clusters are cut
    found = pairs(tmp_path / "result", eps, tmp_path / "out", client)
    clusters = pd.concat(
        pq.read_table(file).to_pandas() for file in (tmp_path / "result" / "kmeans_results").rglob("*.parquet")
    )
    if which == "random":
        strategy = RankingStrategy.random(7)
        clusters = clusters.iloc[rank_order(pa.table({"id": clusters["id"]}), strategy)]
    else:
        up = which == "easy"
        clusters = clusters.sort_values(["cosine_dist_to_cent", "id"], ascending=[up, up])
    expected = brute_force(clusters["id"].tolist(), np.stack(clusters["embedding"]), eps)
    assert_same_pairs(read_pairs(tmp_path / "out"), expected)
    assert found.pairs == len(expected)
    assert found.counts["by_margin"] <= found.counts["pairs"] == len(rows) * (len(rows) - 1) // 2
    parts = [str(tmp_path / "result" / "kmeans_results"), str(tmp_path / "result")]
    assert [pairs(part, eps, tmp_path / "out", NOWHERE).pairs for part in parts] == [len(expected)] * 2  # complete


@pytest.mark.slow
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), n=st.integers(1, 60), dim=st.integers(1, 70), eps=st.floats(0, 0.5))
def test_any_rows_any_ranking(
    client: distributed.Client, tmp_path_factory: pytest.TempPathFactory, seed: int, n: int, dim: int, eps: float
) -> None:
    place = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(seed)
    ids, rows = near_duplicates(rng, n + 2, dim)
    ids = rng.permutation(ids).tolist()
    height = rng.integers(0, 3, len(ids)).tolist()
    source = write_embeddings(place / "in", ids, rows, 1 + seed % 3, height=height)
    order = sorted(range(len(ids)), key=lambda i: (-height[i], ids[i]))
    ranking = {"metadata_cols": ["height"], "ascending": [False]}
    pairs(source, eps, place / "out", client, ranking_strategy=ranking)
    expected = brute_force([ids[i] for i in order], unit_rows(rows)[order], eps)
    assert_same_pairs(read_pairs(place / "out"), expected)


def test_integer_ids_and_rows_that_cannot_be_compared_or_show_nothing(
    client: distributed.Client, tmp_path: Path
) -> None:
    rows = [[1.0, 0.0], None, [1.0, 0.0], [0.0, 0.0], [1.0, 0.0], [np.nan, 1.0], [1.0]]
    low = [False, False, True, False, None, False, False]
    (tmp_path / "in").mkdir()
    pq.write_table(
        embedding_table([10, 9, 8, 7, 6, 5, 4], rows, low_information=pa.array(low)), tmp_path / "in" / "a.parquet"
    )
    found = pairs(tmp_path / "in", 0, tmp_path / "out", client)
    assert read_pairs(tmp_path / "out").values.tolist() == [[6, 10, 1.0]]
    assert found.quarantined == {"null": 1, "zero": 1, "not_finite": 1, "wrong_length": 1}
    assert (found.compared, found.low_information, found.n_quarantined) == (2, 1, 4)
    aside = pa.concat_tables(map(pq.read_table, (tmp_path / "out" / "_quarantine").iterdir())).to_pandas()
    assert sorted(aside["id"]) == [4, 5, 7, 9]
    assert {"quarantined", "left out: low_information", "plan"} <= {name for name, _ in found.rows()}


def test_without_pairs_there_is_a_table_without_rows(client: distributed.Client, tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "in", ["a", "b"], np.eye(2))
    assert pairs(source, 0.5, tmp_path / "out", client).pairs == 0
    table = pq.read_table(tmp_path / "out" / "pairs" / "part-0.parquet")
    assert table.schema == pa.schema([("id_a", pa.string()), ("id_b", pa.string()), ("cosine_sim_score", pa.float32())])
    one = write_embeddings(tmp_path / "one", ["a"], np.eye(1))
    assert pairs(one, 0.5, tmp_path / "out-one", client).compared == 1


def test_json_lines(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    lines = [{"id": name, "embedding": [1, 2]} for name in "bca"]
    (tmp_path / "in" / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    pairs(tmp_path / "in", 0, tmp_path / "out", client, input_filetype="jsonl")
    assert read_pairs(tmp_path / "out")[["id_a", "id_b"]].values.tolist() == [["a", "b"], ["a", "c"], ["b", "c"]]


# Too many


@pytest.mark.slow
def test_a_heap_of_equal_rows_is_listed_or_refused_with_the_id_that_has_most(
    client: distributed.Client, tmp_path: Path, small_tasks: Callable[[int], None], rng: np.random.Generator
) -> None:
    rows = np.zeros((1802, 16))
    rows[:1500, 0] = 3  # the heap, then one that is near to it and to another, then others
    rows[1500:1502, :2] = on_circle(0.28, 0.5)
    rows[1502:, 2:] = rng.normal(size=(300, 14))
    ids = [f"{i:04d}" for i in rng.permutation(1802)]
    source = write_embeddings(tmp_path / "in", ids, rows, 2)
    small_tasks(4 * 16 * 700)
    expected = brute_force(*by_id(ids, unit_rows(rows)), 0.04)
    found = pairs(source, 0.04, tmp_path / "out", client)
    assert found.pairs == len(expected) > 1500 * 1499 // 2
    assert_same_pairs(read_pairs(tmp_path / "out"), expected)
    most = Counter([*expected["id_a"], *expected["id_b"]]).most_common(1)[0]
    assert most[0] == ids[1500]
    with pytest.raises(SemdedupError, match=r"more than 2,000 pairs \(max_pairs\) lie within eps 0.04.*of the id '\d"):
        pairs(source, 0.04, tmp_path / "refused", client, max_pairs=2000)
    assert_nothing_left(tmp_path / "refused")
    with pytest.raises(SemdedupError, match=f"of the id '{most[0]}': 1,501"):
        pairs(source, 0.04, tmp_path / "refused", client, max_pairs=len(expected) - 1)
    assert_nothing_left(tmp_path / "refused")
    assert pairs(source, 0, tmp_path / "refused", client).pairs == 1500 * 1499 // 2  # another eps: nothing in its way
    with pytest.raises(SemdedupError, match=r"stand in .* from an earlier run"):
        pairs(source, 0.04, tmp_path / "out", NOWHERE, max_pairs=2000)
    assert pairs(source, 0.04, tmp_path / "out", NOWHERE, max_pairs=len(expected)).pairs == len(expected)


# Refused


def test_what_is_refused_and_leaves_nothing(client: distributed.Client, tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "in", ["a", "b"], np.eye(2))
    out = tmp_path / "out"
    cases: list[tuple[Any, dict[str, Any], type[Exception], str]] = [
        (source, {"eps": 1}, ParameterError, "eps must lie in"),
        (source, {"eps": True}, ParameterError, "eps must lie in"),
        (source, {"max_pairs": 0}, ParameterError, "max_pairs must be a whole number of at least 1"),
        (source, {"ranking_strategy": 3}, ParameterError, "ranking_strategy must be a RankingStrategy"),
        (source, {"ranking_strategy": {"metadata_cols": ["height"]}}, ParameterError, "the column 'height'"),
        (source, {"id_field": "clip"}, InputError, "no column 'clip'"),
        (tmp_path / "nowhere", {}, InputError, "no such path"),
    ]
    for path, options, kind, words in cases:
        eps = options.pop("eps", 0.1)
        with pytest.raises(kind, match=words):
            pairs(path, eps, out, NOWHERE, **options)
        assert_nothing_left(out)
    twice = write_embeddings(tmp_path / "twice", ["a", "a"], np.eye(2))
    with pytest.raises(DuplicateIdError, match="'a': 2 times"):
        pairs(twice, 0.1, out, client)
    assert_nothing_left(out)


def test_results_without_clusters_are_refused(client: distributed.Client, tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "in", ["a", "b", "c"], np.eye(3))
    find_leaks(str(source), str(source), str(tmp_path / "leaks"), client=client, verbose=False)
    with pytest.raises(InputError, match="comparison of two sets"):
        pairs(tmp_path / "leaks", 0.1, tmp_path / "out", NOWHERE)
    workflow(source, tmp_path / "result", n_clusters=1).run(client)
    (tmp_path / "result" / "kmeans_results").rename(tmp_path / "elsewhere")
    with pytest.raises(InputError, match="clusters are not there any more"):
        pairs(tmp_path / "result", 0.1, tmp_path / "out", NOWHERE)


def test_other_parameters_or_another_input_are_refused_with_the_difference(
    client: distributed.Client, tmp_path: Path
) -> None:
    source, out = write_embeddings(tmp_path / "in", ["a", "b"], np.ones((2, 2))), tmp_path / "out"
    assert pairs(source, 0.1, out, client).pairs == 1
    before = stamps(out)
    assert pairs(source, 0.1, out, NOWHERE).pairs == 1  # complete already: no cluster is needed
    for eps, options, word in [(0.2, {}, "eps: 0.1 there, 0.2 now"), (0.1, {"embedding_dim": 2}, "embedding_dim")]:
        with pytest.raises(OutputConflictError, match=word) as caught:
            pairs(source, eps, out, NOWHERE, **options)
        assert "extract" not in str(caught.value)
    with pytest.raises(OutputConflictError, match="ranking_strategy"):
        pairs(source, 0.1, out, NOWHERE, ranking_strategy=RankingStrategy.random(3))
    assert stamps(out) == before
    write_embeddings(tmp_path / "in", ["a", "b"], np.eye(2))
    with pytest.raises(OutputConflictError, match="input: 1 files"):
        pairs(source, 0.1, out, NOWHERE)
    assert pairs(source, 0.1, out, client, clear_output=True).pairs == 0
    (out / "pairs" / "part-0.parquet").unlink()
    assert pairs(source, 0.1, out, client).pairs == 0
    assert (out / "pairs" / "part-0.parquet").exists()


def test_pairs_beside_the_result_that_they_are_of(client: distributed.Client, tmp_path: Path) -> None:
    ids, rows = near_duplicates(np.random.default_rng(0))
    source, out = write_embeddings(tmp_path / "in", ids, rows), tmp_path / "out"
    workflow(source, out).run(client)
    before = contents(out)
    found = pairs(out, 0.01, out, client)
    assert len(read_pairs(out)) == found.pairs > 0
    assert {name: content for name, content in contents(out).items() if not name.startswith("pairs/")} == before
    workflow(source, out).run(NOWHERE)
    again = pairs(out, 0.02, out, client, clear_output=True)
    assert again.pairs >= found.pairs
    assert {name: content for name, content in contents(out).items() if not name.startswith("pairs/")} == before


@pytest.mark.slow
def test_clusters_are_found_wherever_a_result_has_them(client: distributed.Client, tmp_path: Path) -> None:
    ids, rows = near_duplicates(np.random.default_rng(0))
    source = write_embeddings(tmp_path / "in", ids, rows)
    workflow(source, tmp_path / "run" / "dedup", cache_path=tmp_path / "cache").run(client)
    kwargs: dict[str, Any] = {"verbose": False}
    clusters, scores = str(tmp_path / "clusters"), str(tmp_path / "scores")
    KMeansStage(3, input_path=str(source), output_path=clusters, max_iter=5, **kwargs).run(client)
    PairwiseStage(input_path=clusters, output_path=scores, **kwargs).run(client)
    by_ranks = [pairs(tmp_path / name, 0.01, tmp_path / f"of-{name}", client) for name in ("run", "cache", "scores")]
    expected = read_pairs(tmp_path / "of-run")
    for name in ("cache", "scores"):
        assert_same_pairs(read_pairs(tmp_path / f"of-{name}"), expected)
    shutil.copytree(clusters, tmp_path / "foreign", ignore=shutil.ignore_patterns("_*"))
    for name in ("clusters", "foreign"):  # without ranks: by id
        pairs(tmp_path / name, 0.01, tmp_path / f"of-{name}", client)
        assert_same_pairs(read_pairs(tmp_path / f"of-{name}"), brute_force(*by_id(ids, unit_rows(rows)), 0.01))
    assert {found.pairs for found in by_ranks} == {len(expected)}
    assert any(a > b for a, b in zip(expected["id_a"], expected["id_b"], strict=True))


# Killed

DRIVER = """
import json, sys
from semdedup import find_pairs
from semdedup.dedup import sizes

if __name__ == "__main__":
    source, out, scheduler, task_bytes = json.loads(sys.argv[1])
    sizes.SMALLEST_TASK = sizes.LARGEST_TASK = task_bytes
    sizes.BESIDE_A_ROW = 0
    find_pairs(source, 0.1, out, client=scheduler, verbose=False)
"""


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on_and_ends_with_the_same_bytes(
    client: distributed.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], text_rows: np.ndarray,
    small_tasks: Callable[[int], None],
) -> None:  # fmt: skip
    task_bytes = 4 * text_rows.size // 12
    small_tasks(task_bytes)  # a dozen blocks, so that there is a middle
    source = write_embeddings(tmp_path / "in", [f"{i:05d}" for i in range(len(text_rows))], text_rows, 2)
    pairs(source, 0.1, tmp_path / "uninterrupted", client)
    out = tmp_path / "out"
    process = start_program(tmp_path, DRIVER, str(source), str(out), client.scheduler.address, task_bytes)
    try:
        wait_for(out, "_scratch/pairs-*/journal/compare-spans/*.json", process)
    finally:
        kill(process)
    assert not (out / "pairs").exists()
    find_pairs(str(source), 0.1, str(out), client=client)
    told = capsys.readouterr().err
    assert re.search(r"compare spans: [1-9]\d* of \d{2,} spans of blocks were done by an earlier run", told)
    assert contents(out) == contents(tmp_path / "uninterrupted")


# Command line, object store


@pytest.fixture
def run(client: distributed.Client) -> Callable[[str], Result]:
    def invoke(line: str) -> Result:
        name, *rest = shlex.split(line)
        return CliRunner().invoke(cli.main, [name, "--scheduler", client.scheduler.address, *rest])

    return invoke


def test_the_command(run: Any, tmp_path: Path) -> None:
    ids, rows = near_duplicates(np.random.default_rng(0))
    source = write_embeddings(tmp_path / "in", ids, rows)
    line = f"pairs {source} --eps 0.01 --output-path {tmp_path}/out"
    planned = run(f"{line} --dry-run")
    assert planned.exit_code == 0, planned.output
    assert f"would write to {tmp_path}/out/pairs" in planned.output
    assert not (tmp_path / "out").exists()
    done = run(f"{line} --quiet")
    assert done.exit_code == 0, done.output
    assert "pairs within eps 0.01" in done.output
    told = json.loads(run(f"{line} --json --quiet").stdout)
    assert told["pairs"] == len(read_pairs(tmp_path / "out")) == told["counts"]["matches"] + 20
    assert (told["eps"], told["compared"], told["quarantined"]) == (0.01, len(ids), {})
    assert "complete already" in run(f"{line} --dry-run").output
    refused = run(f"{line.replace('0.01', '0.02')} --quiet")
    assert (refused.exit_code, "eps" in refused.output) == (1, True)
    assert run(f"{line.replace('0.01', '0.02')} --quiet --overwrite").exit_code == 0
    too_many = run(f"{line}2 --quiet --max-pairs 5")
    assert (too_many.exit_code, "max_pairs" in too_many.output) == (1, True)
    assert run(f"{line}3 --max-pairs 0").exit_code == 2
    assert run(f"pairs {source} --output-path {tmp_path}/out").exit_code == 2  # eps is asked for
    write_embeddings(tmp_path / "odd", ["a", "b"], np.array([[1, 0], [0, 0]]))
    assert run(f"pairs {tmp_path}/odd --eps 0.1 --output-path {tmp_path}/out3 --quiet").exit_code == 3
    assert "semdedup pairs clips" in run("pairs --help").output


@pytest.mark.slow
def test_a_result_in_a_bucket(s3: tuple[str, dict], client: distributed.Client, tmp_path: Path) -> None:
    bucket, options = s3
    ids, rows = near_duplicates(np.random.default_rng(0))
    write_embeddings(tmp_path / "in", ids, rows, 2)
    fs = fsspec.filesystem("s3", **options, use_listings_cache=False)
    fs.put(f"{tmp_path}/in/", f"{bucket}/in/", recursive=True)
    kwargs = {"storage_options": options}
    workflow(f"{bucket}/in", f"{bucket}/result", read_kwargs=kwargs, write_kwargs=kwargs).run(client)
    for source, where in (("in", "plain"), ("result", "of-result")):
        found = pairs(f"{bucket}/{source}", 0.01, f"{bucket}/{where}", client, storage_options=options)  # type: ignore[arg-type]
        fs.get(f"{bucket}/{where}/", f"{tmp_path}/{where}/", recursive=True)
        assert not [name for name in files_below(tmp_path / where) if name.startswith("_scratch")]
        assert options["secret"] not in (tmp_path / where / "_manifest.json").read_text() + str(found)
    expected = brute_force(*by_id(ids, unit_rows(rows)), 0.01)
    assert_same_pairs(read_pairs(tmp_path / "plain"), expected)
    assert len(read_pairs(tmp_path / "of-result")) == len(expected)
    assert PairsStage(input_path=f"{bucket}/in", output_path=f"{bucket}/x").options.eps == 0.1
