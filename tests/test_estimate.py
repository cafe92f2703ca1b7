"""The estimate says what brute force says, and its intervals hold."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from click.testing import CliRunner
from sklearn.datasets import load_digits, make_blobs

import semdedup
from semdedup import ParameterError, SemdedupError
from semdedup.arrays import Backend, backend_module
from semdedup.cli import main
from semdedup.dedup.estimate.across import Across, across_seconds, grown
from semdedup.dedup.estimate.axes import choose_axes
from semdedup.dedup.estimate.cost import MODES
from semdedup.dedup.estimate.look import Search, Seen
from semdedup.dedup.estimate.result import interval, shares_of
from semdedup.dedup.estimate.sample import OTHER_SEED, Sample
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.kernels.bounds import principal_axes
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.kmeans import assign
from semdedup.dedup.threshold.rule import least_score
from semdedup.storage.location import Location
from tests.helpers import NOWHERE, near_duplicates, read_folder, workflow, write_embeddings

EPS = (0.001, 0.01, 0.05)


def digits() -> tuple[list[str], np.ndarray]:
    rows = load_digits().data.astype(np.float32)
    return [f"digit-{i}" for i in range(len(rows))], rows


def blobs() -> tuple[list[int], np.ndarray]:
    rows, _ = make_blobs(n_samples=[100, 200, 300, 400, 500], n_features=3, random_state=42)
    return list(range(len(rows))), rows.astype(np.float32)


def truth(ids: list[Any], rows: np.ndarray, labels: np.ndarray, seed: int, eps: tuple[float, ...]) -> pd.DataFrame:
    """Both shares by brute force over all rows."""
    units = unit_rows(rows)
    scores = (units.astype(np.float64) @ units.T.astype(np.float64)).clip(0, 1).astype(np.float32)
    scores[(units[:, None] == units[None]).all(axis=2) if len(units) < 2000 else np.eye(len(units), dtype=bool)] = 1
    ranks = hash_ids(pa.array(ids), seed)
    better = ranks[None] < ranks[:, None]
    found = []
    for each in eps:
        matches = better & (scores >= least_score(each))
        duplicate = matches.any(axis=1)
        lost = duplicate & ~(matches & (labels[None] == labels[:, None])).any(axis=1)
        found.append((each, duplicate.mean(), lost.sum() / duplicate.sum() if duplicate.any() else np.nan))
    return pd.DataFrame(found, columns=["eps", "duplicates", "lost"])


def estimate(source: Path, client: Any, **options: Any) -> semdedup.Estimate:
    return semdedup.estimate(str(source), **{"eps": EPS, "sample": 5000, "client": client, "verbose": False, **options})


def labels_of(source: Path, output: Path, client: Any, ids: list[Any], **options: Any) -> np.ndarray:
    """The clusters of a run, in the order of the ids."""
    workflow(source, output, **{"max_iter": 300, "eps": None, **options}).run(client)
    found = read_folder(output / "kmeans_results").set_index("id")["centroid"]
    return found.loc[ids].to_numpy()


@pytest.mark.slow
@pytest.mark.parametrize("data", [digits, blobs])
def test_of_all_rows_it_is_what_brute_force_finds_in_the_clusters_of_the_run(
    data: Any, client: distributed.Client, tmp_path: Path
) -> None:
    ids, rows = data()
    source = write_embeddings(tmp_path / "in", ids, rows, n_files=3)
    found = estimate(source, client, n_clusters=12, random_state=7)
    labels = labels_of(source, tmp_path / "out", client, ids, n_clusters=12, random_state=7)
    expected = truth(ids, rows, labels, 7, EPS)
    assert found.sampled == found.total == len(ids)
    assert found.n_clusters == 12
    pd.testing.assert_frame_equal(found.shares[["eps", "duplicates", "lost"]], expected)
    assert expected["lost"].max() > 0


def test_the_duplicates_are_those_of_a_run_that_ranks_by_the_same_hash(
    client: distributed.Client, tmp_path: Path
) -> None:
    source = write_embeddings(tmp_path / "in", *digits())
    found = estimate(source, client, eps=0.03, random_state=3).shares
    options = {"which_to_keep": "random", "random_state": 3, "n_clusters": 1}
    result = workflow(source, tmp_path / "out", eps=0.03, **options).run(client)
    assert found["duplicates"][0] == result.duplicates / result.total
    assert found["lost"][0] == 0  # fewer than 5,000 rows are one cluster


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"files_per_partition": 1}, {"max_samples_per_batch": 7}])
def test_it_does_not_depend_on_files_partitions_or_the_order_of_rows(
    options: dict[str, Any], client: distributed.Client, tmp_path: Path, rng: np.random.Generator
) -> None:
    ids, rows = digits()
    order = rng.permutation(len(ids))
    one = write_embeddings(tmp_path / "one", ids, rows)
    many = write_embeddings(tmp_path / "many", [ids[i] for i in order], rows[order], n_files=7)
    chosen = {"sample": 300, "n_clusters": 5}
    found, again = estimate(one, client, **chosen), estimate(many, client, **chosen, **options)
    pd.testing.assert_frame_equal(found.shares, again.shares, check_exact=True)
    assert found.sampled == again.sampled == 300
    other = estimate(one, client, **chosen, random_state=1).shares
    assert not other.equals(found.shares)


@pytest.mark.slow
def test_intervals_hold_for_at_least_17_of_20_seeds(client: distributed.Client, tmp_path: Path) -> None:
    ids, rows = digits()
    source = write_embeddings(tmp_path / "in", ids, rows)
    held = {"duplicates": np.zeros(3, int), "lost": np.zeros(3, int)}
    eps = (0.02, 0.05, 0.1)
    for seed in range(20):
        options: dict[str, Any] = {"n_clusters": 20, "random_state": seed}
        found = estimate(source, client, eps=eps, sample=200, **options).shares
        every = estimate(source, client, eps=eps, sample=len(ids), **options).shares
        for name, count in held.items():
            count += ((found[f"{name}_low"] <= every[name]) & (every[name] <= found[f"{name}_high"])).to_numpy()
    assert all((count >= 17).all() for count in held.values()), held


def test_rows_that_cannot_be_compared_are_left_out_and_counted(client: distributed.Client, tmp_path: Path) -> None:
    rows: Any = [[1, 0], [1, 0], None, [0, 0], [np.nan, 1], [1, 0, 0], [0, 1]]
    source = write_embeddings(tmp_path / "in", list("abcdefg"), np.array(rows, dtype=object))
    found = estimate(source, client, embedding_dim=2)
    assert found.total == 7
    assert found.sampled == 3
    assert found.quarantined == {"null": 1, "zero": 1, "not_finite": 1, "wrong_length": 1}
    assert found.shares["duplicates"].tolist() == [1 / 3] * 3


def test_rows_of_low_information_match_nothing(client: distributed.Client, tmp_path: Path) -> None:
    ids, rows = [f"{i}" for i in range(40)], np.ones((40, 4), np.float32)
    low = [i % 2 == 0 for i in range(40)]
    source = write_embeddings(tmp_path / "in", ids, rows, 2, low_information=low)
    assert estimate(source, client).shares["duplicates"].tolist() == [19 / 40] * 3


def test_of_equal_rows_all_but_one_are_duplicates(client: distributed.Client, tmp_path: Path) -> None:
    ids, rows = list(range(6000)), np.full((6000, 8), 0.3, np.float32)
    found = estimate(write_embeddings(tmp_path / "in", ids, rows), client, sample=6000, eps=0)
    assert found.shares["duplicates"].tolist() == [5999 / 6000]
    assert found.shares["lost"].tolist() == [0]


def test_without_duplicates_there_is_nothing_to_lose(client: distributed.Client, tmp_path: Path) -> None:
    found = estimate(write_embeddings(tmp_path / "in", [1, 2, 3], np.eye(3, dtype=np.float32)), client, eps=0.1)
    assert found.shares["duplicates"].tolist() == [0]
    assert np.isnan(found.shares[["lost", "lost_low", "lost_high"]].to_numpy()).all()
    assert "none" in str(found)
    assert found.to_json()["shares"][0]["lost"] is None


def test_json_lines_and_a_scratch_folder_of_ones_own(client: distributed.Client, tmp_path: Path) -> None:
    ids, rows = digits()
    lines = [json.dumps({"id": i, "embedding": row.tolist()}) for i, row in zip(ids, rows, strict=True)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    source = write_embeddings(tmp_path / "parquet", ids, rows)
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    options: dict[str, Any] = {"sample": 400, "n_clusters": 4, "removal": "witness", "output_path": "unused"}
    found = estimate(tmp_path / "in.jsonl", client, input_filetype="jsonl", scratch_path=str(scratch), **options)
    pd.testing.assert_frame_equal(found.shares, estimate(source, client, **options).shares)
    assert not list(scratch.iterdir())


def test_files_that_cannot_be_read_are_left_out_where_that_is_asked_for(
    client: distributed.Client, tmp_path: Path
) -> None:
    source = write_embeddings(tmp_path / "in", *digits())
    (source / "bad.parquet").write_bytes(b"PAR1 no more")
    assert len(estimate(source, client, skip_bad_files=True).skipped_files) == 1
    with pytest.raises(semdedup.BadFileError, match=r"bad\.parquet"):
        estimate(source, client)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"eps": 1}, r"eps must be numbers in \[0, 1\); got 1"),
        ({"eps": []}, "eps names no threshold"),
        ({"sample": 0}, "sample must be a whole number of at least 1; got 0"),
        ({"n_cluster": 3}, "estimate has no parameter 'n_cluster' here"),
        ({"n_clusters": 0}, "n_clusters must be"),
    ],
)
def test_what_cannot_be_is_refused_before_a_cluster_is_asked_for(
    options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    source = write_embeddings(tmp_path / "in", *digits())
    with pytest.raises(ParameterError, match=message):
        estimate(source, NOWHERE, **options)


def test_a_path_that_is_not_there_and_ids_given_twice_are_refused(client: distributed.Client, tmp_path: Path) -> None:
    with pytest.raises(SemdedupError, match="no such path"):
        estimate(tmp_path / "nowhere", NOWHERE)
    source = write_embeddings(tmp_path / "in", ["a", "a"], np.eye(2, dtype=np.float32))
    with pytest.raises(semdedup.DuplicateIdError, match="'a': 2 times"):
        estimate(source, client, scratch_path=str(tmp_path / "scratch"))
    assert not (tmp_path / "scratch").exists() or not list((tmp_path / "scratch").iterdir())


@pytest.mark.slow
def test_the_bytes_of_a_run_are_foretold(client: distributed.Client, tmp_path: Path, rng: np.random.Generator) -> None:
    rows = rng.standard_normal((20_000, 64)).astype(np.float32)
    source = write_embeddings(tmp_path / "in", [f"clip-{i:06d}" for i in range(len(rows))], rows, n_files=4)
    found = estimate(source, client, eps=0.1, sample=500).cost
    assert found["mode"].tolist()[:3] == ["any", "witness", "components"] == list(MODES)[:3]
    assert (found["bytes"] == found["read"] + found["written"]).all()
    assert found["mode"].tolist()[3:] == ["exact_up_to=0.1"]
    assert (found["seconds"] > 0).all()
    workflow(source, tmp_path / "out", n_clusters="auto", max_iter=300).run(client)
    stays = sum(path.stat().st_size for path in (tmp_path / "out").rglob("*.parquet"))
    shuffled = rows.nbytes
    assert found["written"][0] == pytest.approx(stays + shuffled + rows.nbytes, rel=0.2)  # all are fitted on


@pytest.mark.slow
def test_on_s3_with_a_scratch_folder_there(
    client: distributed.Client, tmp_path: Path, s3: tuple[str, dict[str, Any]]
) -> None:
    bucket, storage = s3
    source = write_embeddings(tmp_path / "in", *digits(), n_files=2)
    for path in source.iterdir():
        (Location.of(bucket, storage) / "in" / path.name).write_bytes(path.read_bytes())
    kwargs = {"storage_options": storage}
    options: dict[str, Any] = {"sample": 200, "n_clusters": 3}
    found = semdedup.estimate(
        f"{bucket}/in",
        EPS,
        client=client,
        read_kwargs=kwargs,
        write_kwargs=kwargs,
        scratch_path=f"{bucket}/scratch",
        verbose=False,
        **options,
    )
    pd.testing.assert_frame_equal(found.shares, estimate(source, client, **options).shares)
    assert len(Location.of(bucket, storage).files()) == 2


# --- the parts ---


def test_what_is_counted_of_few_rows_grows_at_first_as_between_half_and_all_of_them() -> None:
    assert grown(1, 4, 4, 0.8, 3) == 256
    assert grown(10, 60, 4, 0.8, 1) == pytest.approx(60 * 4 * 1.5**0.8)
    assert grown(0, 5, 1, 0.7, 2) == 5


def test_the_cost_of_all_pairs_is_never_more_than_without_bounds() -> None:
    tried = Across(0.1, 1000, 10, (90_000, 900_000), (40, 45), 1e-3, 1e-8, 1e-9, 1e-6, 0.0)
    seconds = across_seconds(tried, 1_000_000, 10, 4, 100)
    assert seconds == pytest.approx(1e-8 * 1e7 + 1e-9 * 5e11 + 1e-3 * 5e11 * 1e-6)


def test_axes_are_chosen_where_rows_have_directions(rng: np.random.Generator) -> None:
    low_rank = rng.standard_normal((500, 20)) @ rng.standard_normal((20, 128))
    assert 16 <= choose_axes(unit_rows(low_rank.astype(np.float32)), 0.8).shape[1] <= 32
    assert choose_axes(unit_rows(rng.standard_normal((500, 128)).astype(np.float32)), 0.1).shape == (128, 0)
    assert choose_axes(np.eye(4, dtype=np.float32), 0.8).shape == (4, 0)


@pytest.mark.parametrize("n_axes", [0, 3])
def test_batches_in_any_order_find_the_same(n_axes: int, backend: Backend, rng: np.random.Generator) -> None:
    _, rows = near_duplicates(rng, 600, 8)
    units, ranks = unit_rows(rows), rng.permutation(600).astype(np.uint64)
    order = np.argsort(ranks)[100:]
    axes = principal_axes(units, 3)[:, :n_axes]
    sample = Sample(units[order], ranks[order], np.zeros(500, np.int32), axes)
    scores = np.where(ranks[None] < ranks[order][:, None], units[order] @ units.T, 0).clip(0, 1)
    expected = np.where(scores.max(axis=1) >= 0.9, scores.max(axis=1), 0)

    def label(matched: Any) -> Any:
        return backend_module(backend).zeros(len(matched), dtype=np.int32)

    found = []
    for cuts in ([600], [1, 64, 300], range(1, 600, 37)):
        search = Search(sample, label, backend, np.float32(0.9), np.float32(2))
        for part in np.split(np.arange(600), [cut for cut in cuts if cut < 600]):
            search.compare(rows[part], ranks[part])
        found.append(search.settle())
    for seen in found:
        np.testing.assert_allclose(seen.best, expected, atol=1e-6)
        np.testing.assert_array_equal(seen.best, found[0].best)


@pytest.mark.slow
def test_intervals_of_few_rows_hold_what_all_rows_find() -> None:
    ids, rows = digits()
    units, eps = unit_rows(rows), (0.02, 0.05, 0.1)
    held = np.zeros((3, 2), int)
    for seed in range(20):
        ranks, chosen = hash_ids(pa.array(ids), seed), hash_ids(pa.array(ids), seed + OTHER_SEED).argsort()[:200]
        centroids = units[hash_ids(pa.array(ids), seed + 1).argsort()[:30]]
        order = np.argsort(ranks)
        sample = Sample(units[order], ranks[order], assign(units[order], centroids), principal_axes(units, 32))
        search = Search(sample, partial(assign, centroids=centroids), "cpu", least_score(0.1), least_score(0.02))
        search.compare(rows, ranks)
        seen, few = search.settle(), np.isin(order, chosen)
        every = shares_of(seen, len(ids), eps)
        found = shares_of(Seen(seen.best[few], seen.own[few]), 200, eps)
        for at, name in enumerate(("duplicates", "lost")):
            held[:, at] += (found[f"{name}_low"] <= every[name]) & (every[name] <= found[f"{name}_high"])
        assert (found["lost_high"] < 1).all()
    assert (held >= 17).all(), held


def test_intervals_are_those_of_scipy() -> None:
    from scipy.stats import binomtest

    for found, asked in ((0, 10), (3, 10), (10, 10), (57, 2000)):
        expected = binomtest(found, asked).proportion_ci(0.95, "exact")
        assert interval(found, asked) == pytest.approx((found / asked, *expected), rel=1e-9)
    assert np.isnan(interval(0, 0)).all()
    seen = Seen(np.array([1, 0.97, 0.97, 0], np.float32), np.array([1, 0.97, 0.5, 0], np.float32))
    assert shares_of(seen, 8, [0.1])[["duplicates", "lost"]].to_numpy().tolist() == [[3 / 8, 1 / 3]]


# --- the command ---


def test_the_command_prints_a_table_and_json(tmp_path: Path) -> None:
    source = write_embeddings(tmp_path / "in", *digits())
    arguments = ["estimate", "--input-embeddings-path", str(source), "--eps", "0.01", "0.05", "--n-workers", "1"]
    arguments += ["--quiet", "--sample", "300", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [row["eps"] for row in found["shares"]] == [0.01, 0.05]
    assert {"mode", "seconds", "bytes"} <= set(found["cost"][0])
    assert found["sampled"] == 300
    assert "semdedup estimate --input-embeddings-path" in CliRunner().invoke(main, ["estimate", "--help"]).output
    refused = CliRunner().invoke(main, [*arguments, "--eps", "2"])
    assert refused.exit_code == 2
