"""The dedup from embeddings to the ids to drop: its answer, its files, and what the answer must not depend on."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import make_blobs

import semdedup
from semdedup import IdentifyDuplicatesStage, RankingStrategy
from semdedup.dedup.input.ids import hash_ids
from tests.helpers import (
    LISTS,
    assert_same_answer,
    embedding_table,
    files_below,
    ids_of,
    near_duplicates,
    read_all_scores,
    read_answer,
    read_folder,
    reference_scores,
    set_task_bytes,
    stamps,
    workflow,
    write_embeddings,
)

Answer = tuple[pd.DataFrame, list[Any]]


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], np.ndarray]:
    return near_duplicates(np.random.default_rng(1))


@pytest.fixture(scope="module")
def baseline(
    rows: tuple[list[str], np.ndarray], client: distributed.Client, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A finished run over one file. Nobody writes to it."""
    place = tmp_path_factory.mktemp("baseline")
    write_embeddings(place / "in", *rows)
    workflow(place / "in", place / "out").run(client)
    return place / "out"


@pytest.fixture(scope="module")
def answer(baseline: Path) -> Answer:
    return read_answer(baseline)


# Known answers


@pytest.fixture(scope="module")
def blobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    points, _ = make_blobs(n_samples=[100, 200, 300, 400, 500], n_features=3, random_state=42)
    return write_embeddings(tmp_path_factory.mktemp("blobs"), list(range(1500)), points)


@pytest.mark.parametrize(("which", "duplicates"), [("hard", 1471), ("easy", 1495)])
def test_the_blobs_of_the_peer_have_as_many_duplicates_as_there(
    which: str, duplicates: int, blobs: Path, client: distributed.Client, tmp_path: Path
) -> None:
    result = workflow(blobs, tmp_path / "out", n_clusters=5, max_iter=300, which_to_keep=which).run(client)
    assert (result.duplicates, result.kept, result.total) == (duplicates, 1500 - duplicates, 1500)
    assert len(read_folder(tmp_path / "out" / "duplicates")) == duplicates


RANKINGS: dict[str, tuple[dict[str, Any], list[str], list[bool]]] = {
    "hard by cosine": ({"which_to_keep": "hard"}, ["cosine_dist_to_cent"], [False, False]),
    "hard by l2": ({"which_to_keep": "hard", "distance_metric": "l2"}, ["l2_dist_to_cent"], [False, False]),
    "easy by cosine": (
        {"which_to_keep": "easy", "distance_metric": "cosine"},
        ["cosine_dist_to_cent"],
        [True, True],
    ),
    "easy by l2, as sim_metric": ({"which_to_keep": "easy", "sim_metric": "l2"}, ["l2_dist_to_cent"], [True, True]),
    "soft": ({"which_to_keep": "soft"}, ["cosine_dist_to_cent"], [True, True]),
    "random": ({"which_to_keep": "random"}, ["hash"], [True, True]),
    "random with a seed": ({"ranking_strategy": RankingStrategy.random(random_seed=7)}, ["hash 7"], [True, True]),
    "the smallest value": (
        {"ranking_strategy": RankingStrategy.metadata_based(["height"], ascending=True)},
        ["height"],
        [True, True],
    ),
    "the largest value": (
        {"ranking_strategy": RankingStrategy.metadata_based(["height"], ascending=False)},
        ["height"],
        [False, True],
    ),
    "two columns in two directions": (
        {"ranking_strategy": RankingStrategy.metadata_based(["camera", "height"], ascending=[True, False])},
        ["camera", "height"],
        [True, False, True],
    ),
}


@pytest.fixture(scope="module")
def with_metadata(rows: tuple[list[str], np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    ids, x = rows
    height = [None if i % 5 == 0 else float(i % 7) for i in range(len(ids))]
    camera = [None if i % 11 == 0 else "abc"[i % 3] for i in range(len(ids))]
    return write_embeddings(tmp_path_factory.mktemp("ranked"), ids, x, 2, height=height, camera=camera)


@pytest.mark.parametrize(("parameters", "by", "ascending"), RANKINGS.values(), ids=RANKINGS)
def test_scores_and_witnesses_equal_a_reference_in_numpy(
    parameters: dict[str, Any],
    by: list[str],
    ascending: list[bool],
    with_metadata: Path,
    client: distributed.Client,
    tmp_path: Path,
) -> None:
    result = workflow(with_metadata, tmp_path, n_clusters=4, **parameters).run(client)
    clusters = read_folder(tmp_path / "kmeans_results")
    clusters["hash"] = hash_ids(pa.array(clusters["id"], pa.string()), 42)
    clusters["hash 7"] = hash_ids(pa.array(clusters["id"], pa.string()), 7)
    expected = reference_scores(clusters, by, ascending)
    scores, duplicates = read_answer(tmp_path)
    pd.testing.assert_frame_equal(scores, expected, check_exact=True, check_dtype=False)
    assert duplicates == expected.loc[expected["cosine_sim_score"] >= np.float32(0.99), "id"].tolist()
    assert result.duplicates == len(duplicates) > 40


def test_distances_and_labels_are_those_of_the_nearest_centroid(baseline: Path) -> None:
    clusters = read_folder(baseline / "kmeans_results")
    centroids = np.load(baseline / "_kmeans_centroids.npy", allow_pickle=False).astype(np.float64)
    x = np.stack(clusters["embedding"]).astype(np.float64)
    distances = np.linalg.norm(x[:, None] - centroids, axis=2)
    own = clusters["centroid"].to_numpy()
    assert (distances.argmin(axis=1) == own).all()
    np.testing.assert_allclose(clusters["l2_dist_to_cent"], distances[np.arange(len(x)), own], rtol=1e-6)
    directions = centroids / np.linalg.norm(centroids, axis=1, keepdims=True)
    np.testing.assert_allclose(clusters["cosine_dist_to_cent"], 1 - (x * directions[own]).sum(axis=1), atol=1e-7)


def test_embeddings_are_normalised_and_otherwise_those_of_the_input(
    rows: tuple[list[str], np.ndarray], baseline: Path
) -> None:
    clusters = read_folder(baseline / "kmeans_results")
    assert clusters["id"].tolist() == rows[0]
    unit = rows[1] / np.linalg.norm(rows[1].astype(np.float64), axis=1, keepdims=True)
    np.testing.assert_allclose(np.stack(clusters["embedding"]), unit, atol=1e-7)


# What the answer must not depend on


@pytest.mark.parametrize("n_files", [2, 7])
def test_the_number_of_files_changes_nothing(
    n_files: int, rows: tuple[list[str], np.ndarray], answer: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", *rows, n_files=n_files)
    workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert_same_answer(tmp_path / "out", answer)


def test_the_order_of_rows_and_files_changes_nothing(
    rows: tuple[list[str], np.ndarray],
    answer: Answer,
    client: distributed.Client,
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    order = rng.permutation(len(rows[0]))
    names = ["z.parquet", "a.parquet", "m.parquet"]
    write_embeddings(tmp_path / "in", [rows[0][i] for i in order], rows[1][order], 3, names=names)
    workflow([tmp_path / "in" / name for name in names], tmp_path / "out").run(client)
    assert_same_answer(tmp_path / "out", answer)


@pytest.mark.parametrize(
    ("kind", "element"),
    [("list", "float64"), ("large_list", "float32"), ("fixed_size_list", "float32"), ("fixed_size_list", "float64")],
)
def test_the_type_of_the_embedding_column_changes_nothing(
    kind: str,
    element: str,
    rows: tuple[list[str], np.ndarray],
    answer: Answer,
    client: distributed.Client,
    tmp_path: Path,
) -> None:
    column = LISTS[kind](pa.type_for_alias(element), rows[1].shape[1])
    write_embeddings(tmp_path / "in", *rows, n_files=2, column=column)
    workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert_same_answer(tmp_path / "out", answer)


def test_rows_that_are_normalised_already_score_alike_as_float32_and_float64(
    rows: tuple[list[str], np.ndarray], client: distributed.Client, tmp_path: Path
) -> None:
    unit = rows[1] / np.linalg.norm(rows[1], axis=1, keepdims=True)
    for name in ("float32", "float64"):
        write_embeddings(tmp_path / name, rows[0], unit, column=pa.list_(pa.type_for_alias(name)))
        workflow(tmp_path / name, tmp_path / f"out {name}").run(client)
    assert_same_answer(tmp_path / "out float64", read_answer(tmp_path / "out float32"))


def test_float16_embeddings_are_read_with_the_values_that_they_have(
    rows: tuple[list[str], np.ndarray], client: distributed.Client, tmp_path: Path
) -> None:
    half = rows[1].astype(np.float16)
    write_embeddings(tmp_path / "half", rows[0], half, column=pa.list_(pa.float16(), half.shape[1]))
    write_embeddings(tmp_path / "single", rows[0], half.astype(np.float32))
    for name in ("half", "single"):
        workflow(tmp_path / name, tmp_path / f"out {name}").run(client)
    assert_same_answer(tmp_path / "out half", read_answer(tmp_path / "out single"))


@pytest.mark.parametrize(
    "parameters",
    [
        {"pairwise_batch_size": 1, "files_per_partition": 1},
        {"pairwise_batch_size": 64, "files_per_partition": 4},
        {"pairwise_batch_size": 4096, "max_samples_per_batch": 5, "embedding_dim": 6},
    ],
    ids=str,
)
def test_batches_and_partitions_change_nothing(
    parameters: dict[str, Any],
    rows: tuple[list[str], np.ndarray],
    answer: Answer,
    client: distributed.Client,
    tmp_path: Path,
) -> None:
    write_embeddings(tmp_path / "in", *rows, n_files=5)
    workflow(tmp_path / "in", tmp_path / "out", **parameters).run(client)
    assert_same_answer(tmp_path / "out", answer)


@pytest.mark.parametrize("task_bytes", [300, pytest.param(1000, marks=pytest.mark.slow), 4000])
def test_tiny_tasks_with_many_partitions_buckets_and_tiles_change_nothing(
    task_bytes: int,
    rows: tuple[list[str], np.ndarray],
    answer: Answer,
    client: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    set_task_bytes(monkeypatch, task_bytes)
    write_embeddings(tmp_path / "in", *rows, n_files=2)
    workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert_same_answer(tmp_path / "out", answer)


@pytest.mark.parametrize("which", [pytest.param("easy", marks=pytest.mark.slow), "random"])
def test_large_clusters_in_tiles_score_as_small_ones_do(
    which: str, with_metadata: Path, client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    workflow(with_metadata, tmp_path / "whole", n_clusters=2, which_to_keep=which).run(client)
    set_task_bytes(monkeypatch, 600)
    workflow(with_metadata, tmp_path / "tiles", n_clusters=2, which_to_keep=which).run(client)
    assert_same_answer(tmp_path / "tiles", read_answer(tmp_path / "whole"))


@pytest.fixture(scope="module")
def one_worker() -> Iterator[distributed.Client]:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=1, processes=True, host="127.0.0.1", dashboard_address="127.0.0.1:0"
        ) as cluster,
        distributed.Client(cluster, set_as_default=False) as connected,
    ):
        yield connected


def test_the_number_of_workers_changes_nothing(
    rows: tuple[list[str], np.ndarray], answer: Answer, one_worker: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", *rows, n_files=7)
    workflow(tmp_path / "in", tmp_path / "out").run(one_worker)
    assert_same_answer(tmp_path / "out", answer)


@pytest.mark.parametrize("unit", [False, True], ids=["rows of any length", "rows of length 1"])
def test_scaling_vectors_by_a_power_of_two_changes_nothing(
    unit: bool,
    rows: tuple[list[str], np.ndarray],
    client: distributed.Client,
    rng: np.random.Generator,
    tmp_path: Path,
) -> None:
    x = rows[1] / np.linalg.norm(rows[1], axis=1, keepdims=True) if unit else rows[1]
    scale = rng.choice(np.float32([0.5, 1, 2, 2**40]), size=(len(x), 1))
    write_embeddings(tmp_path / "in", rows[0], x)
    write_embeddings(tmp_path / "scaled", rows[0], x * scale)
    workflow(tmp_path / "in", tmp_path / "out").run(client)
    workflow(tmp_path / "scaled", tmp_path / "out scaled").run(client)
    assert_same_answer(tmp_path / "out scaled", read_answer(tmp_path / "out"))


def test_the_seed_decides_the_centroids_and_nothing_else_does(
    rows: tuple[list[str], np.ndarray], baseline: Path, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", *rows, n_files=3)
    for seed in (42, 43):
        workflow(tmp_path / "in", tmp_path / str(seed), random_state=seed, n_clusters=3).run(client)
    same, other = (np.load(tmp_path / str(seed) / "_kmeans_centroids.npy") for seed in (42, 43))
    assert (same == np.load(baseline / "_kmeans_centroids.npy")).all()
    assert not np.array_equal(same, other)


vectors = st.lists(
    st.lists(st.floats(-4, 4, width=16), min_size=3, max_size=3).filter(any), min_size=2, max_size=24
).map(np.array)


@settings(max_examples=4)
@given(x=vectors, cut=st.integers(1, 5), seed=st.integers(0, 99))
def test_any_partitioning_and_order_of_any_rows_gives_the_same_answer(
    x: np.ndarray,
    cut: int,
    seed: int,
    client: distributed.Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = tmp_path_factory.mktemp("any")
    order = np.random.default_rng(seed).permutation(len(x))
    write_embeddings(place / "in", list(range(len(x))), x)
    write_embeddings(place / "shuffled", order.tolist(), x[order], min(cut, len(x)))
    workflow(place / "in", place / "a", n_clusters=2).run(client)
    with pytest.MonkeyPatch.context() as patch:
        set_task_bytes(patch, 60)
        workflow(place / "shuffled", place / "b", n_clusters=2, pairwise_batch_size=cut).run(client)
    assert_same_answer(place / "b", read_answer(place / "a"))


@settings(max_examples=4)
@given(x=vectors, eps=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)))
def test_a_larger_eps_never_keeps_more(
    x: np.ndarray,
    eps: tuple[float, float],
    client: distributed.Client,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    place = tmp_path_factory.mktemp("eps")
    write_embeddings(place / "in", list(range(len(x))), x)
    workflow(place / "in", place / "out", n_clusters=2, eps=None).run(client)
    found = []
    for i, value in enumerate(sorted(eps)):
        IdentifyDuplicatesStage(
            eps=value,
            input_path=str(place / "out" / "pairwise_results"),
            output_path=str(place / str(i)),
            verbose=False,
        ).run(client)
        found.append(set(read_folder(place / str(i))["id"]))
    scores = read_all_scores(place / "out").set_index("id")["cosine_sim_score"]
    assert found[0] <= found[1] < set(scores.index)
    assert found[1] == set(scores.index[scores >= np.float32(1 - max(eps))])


# Counts and rows


def test_every_input_row_stands_once_in_scores_or_quarantine(client: distributed.Client, tmp_path: Path) -> None:
    ids, x = near_duplicates(np.random.default_rng(3), 60)
    x = x.astype(object)
    bad: dict[int, Any] = {3: None, 20: [1.0], 40: [np.nan] * 6, 55: [0.0] * 6}
    values = [bad.get(i, list(x[i])) for i in range(len(ids))]
    (tmp_path / "in").mkdir()
    pq.write_table(embedding_table(ids, values), tmp_path / "in" / "a.parquet")
    result = workflow(tmp_path / "in", tmp_path / "out").run(client)
    scored = read_all_scores(tmp_path / "out")["id"].tolist()
    aside = read_folder(tmp_path / "out" / "_quarantine")["id"].tolist()
    assert sorted(scored + aside) == ids
    assert aside == [ids[i] for i in bad]
    assert result.kept + result.duplicates + result.n_quarantined == result.total == len(ids)
    assert not set(read_answer(tmp_path / "out")[1]) & set(aside)


def test_the_best_ranked_row_of_a_cluster_has_score_zero_and_itself_as_witness(baseline: Path) -> None:
    scores, clusters = read_all_scores(baseline), read_folder(baseline / "kmeans_results")
    best = clusters.sort_values(["cosine_dist_to_cent", "id"], ascending=False).groupby("centroid")["id"].first()
    found = scores.set_index("id").loc[best.tolist()]
    assert (found["cosine_sim_score"] == 0).all()
    assert (found["max_id"] == found.index).all()


def test_without_eps_there_are_scores_only_and_eps_later_adds_duplicates_without_redoing(
    rows: tuple[list[str], np.ndarray], answer: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", *rows)
    result = workflow(tmp_path / "in", tmp_path / "out", eps=None).run(client)
    assert (result.duplicates, result.kept) == (None, None)
    assert not (tmp_path / "out" / "duplicates").exists()
    before = {path: t for path, t in stamps(tmp_path / "out").items() if Path(path).suffix in (".parquet", ".npy")}
    result = workflow(tmp_path / "in", tmp_path / "out", eps=0.01).run(client)
    after = stamps(tmp_path / "out")
    assert {path: after[path] for path in before} == before
    assert result.duplicates == len(answer[1])
    assert_same_answer(tmp_path / "out", answer)


# Sizes and shapes of input that must be survived


def test_auto_makes_one_cluster_below_5000_rows_and_the_root_of_half_the_rows_above(
    client: distributed.Client, rng: np.random.Generator, tmp_path: Path
) -> None:
    x = rng.normal(size=(5000, 3))
    write_embeddings(tmp_path / "few", list(range(4999)), x[:4999])
    write_embeddings(tmp_path / "many", list(range(5000)), x)
    few = workflow(tmp_path / "few", tmp_path / "out few", n_clusters="auto", eps=None).run(client)
    many = workflow(tmp_path / "many", tmp_path / "out many", n_clusters="auto", eps=None).run(client)
    assert (few.metadata["n_clusters"], many.metadata["n_clusters"]) == (1, 50)
    assert np.load(tmp_path / "out many" / "_kmeans_centroids.npy").shape == (50, 3)


def test_more_clusters_than_rows_are_cut_down_to_the_rows(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", ["a", "b", "c"], np.eye(3))
    result = workflow(tmp_path / "in", tmp_path / "out", n_clusters=10).run(client)
    assert (result.total, result.duplicates) == (3, 0)
    assert read_all_scores(tmp_path / "out")["max_id"].tolist() == ["a", "b", "c"]


def test_one_row_is_kept(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", ["only"], np.ones((1, 4)))
    result = workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert (result.total, result.kept, result.duplicates) == (1, 1, 0)
    assert read_answer(tmp_path / "out")[1] == []
    assert read_all_scores(tmp_path / "out").values.tolist() == [["only", "only", 0.0]]


@pytest.mark.parametrize("n_clusters", [1, 5])
def test_of_equal_rows_one_is_kept_and_is_the_witness_of_all(
    n_clusters: int, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", list(range(50)), np.tile([1.0, 2.0, 3.0], (50, 1)), 3)
    result = workflow(tmp_path / "in", tmp_path / "out", n_clusters=n_clusters, eps=1e-6).run(client)
    assert (result.kept, result.duplicates) == (1, 49)
    assert read_all_scores(tmp_path / "out")["max_id"].unique().tolist() == [49]  # hard: ties by id, the largest first


def test_embeddings_of_length_one_are_compared(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", ["a", "b", "c"], np.array([[1.0], [5.0], [-2.0]]))
    result = workflow(tmp_path / "in", tmp_path / "out", n_clusters=1).run(client)
    assert (result.total, result.duplicates) == (3, 1)


def test_a_cluster_that_holds_nearly_everything_is_scored(
    client: distributed.Client, rng: np.random.Generator, tmp_path: Path
) -> None:
    x = np.concatenate([np.eye(3)[0] + rng.normal(scale=1e-3, size=(300, 3)), -np.eye(3)[:2]])
    write_embeddings(tmp_path / "in", list(range(302)), x, 2)
    result = workflow(tmp_path / "in", tmp_path / "out", n_clusters=3, eps=0.1).run(client)
    clusters = read_folder(tmp_path / "out" / "kmeans_results")
    expected = reference_scores(clusters, ["cosine_dist_to_cent"], [False, False])
    pd.testing.assert_frame_equal(read_all_scores(tmp_path / "out"), expected, check_exact=True, check_dtype=False)
    assert result.duplicates >= 297


@pytest.mark.parametrize("tiled", [False, True], ids=["small cluster", "large cluster in tiles"])
def test_rows_of_low_information_have_score_zero_and_are_nobodys_witness(
    tiled: bool,
    rows: tuple[list[str], np.ndarray],
    client: distributed.Client,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    low = [None if i % 7 == 0 else i % 4 == 0 for i in range(len(rows[0]))]
    write_embeddings(tmp_path / "in", *rows, n_files=2, low_information=low)
    if tiled:
        set_task_bytes(monkeypatch, 600)
    workflow(tmp_path / "in", tmp_path / "out").run(client)
    scores, duplicates = read_answer(tmp_path / "out")
    flagged = {i for i, flag in zip(rows[0], low, strict=True) if flag}
    own = scores[scores["id"].isin(flagged)]
    assert (own["cosine_sim_score"] == 0).all()
    assert (own["max_id"] == own["id"]).all()
    others = scores[~scores["id"].isin(flagged)].reset_index(drop=True)
    clusters = read_folder(tmp_path / "out" / "kmeans_results")
    informing = clusters[~clusters["id"].isin(flagged)]
    expected = reference_scores(informing, ["cosine_dist_to_cent"], [False, False])
    pd.testing.assert_frame_equal(others, expected, check_exact=True, check_dtype=False)
    assert not flagged & set(duplicates)


HOSTILE = [
    "a/b/c",
    "../../etc/passwd",
    "<script>alert(1)</script>",
    "two\nlines",
    "",
    " ",
    "ünï·😀",
    "x" * 70_000,
    "NaN",
]


@pytest.mark.parametrize(
    "ids",
    [HOSTILE, list(range(-4, 5)), [2**63 + i for i in range(9)], [str(i) for i in range(9)]],
    ids=["hostile", "int", "uint64", "digits"],
)
def test_ids_come_back_as_they_are(ids: list[Any], client: distributed.Client, tmp_path: Path) -> None:
    kind = pa.uint64() if isinstance(ids[0], int) and ids[0] > 2**62 else None
    (tmp_path / "in").mkdir()
    x = np.arange(1, 10)[:, None] * [1.0, 2.0]
    pq.write_table(embedding_table(pa.array(ids, kind), x), tmp_path / "in" / "a.parquet")
    result = workflow(tmp_path / "in", tmp_path / "out", n_clusters=1, eps=0.5).run(client)
    assert result.duplicates == 8
    scores = pq.read_table(tmp_path / "out" / "pairwise_results" / "cluster_0.parquet")
    assert sorted(scores["id"].to_pylist()) == sorted(ids)
    found = ids_of(tmp_path / "out" / "duplicates" / "part-0.parquet")
    assert found == sorted(ids)[:8]
    assert scores["max_id"].to_pylist() == [sorted(ids)[8]] * 9
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("kind", ["large_string", "dictionary", "int32"])
def test_ids_of_other_types_are_written_as_string_or_int64(
    kind: str, client: distributed.Client, tmp_path: Path
) -> None:
    kinds = {
        "large_string": (pa.array(["a", "b"], pa.large_string()), pa.string()),
        "dictionary": (pa.array(["a", "b"]).dictionary_encode(), pa.string()),
        "int32": (pa.array([1, 2], pa.int32()), pa.int64()),
    }
    ids, expected = kinds[kind]
    (tmp_path / "in").mkdir()
    pq.write_table(embedding_table(ids, np.eye(2)), tmp_path / "in" / "a.parquet")
    workflow(tmp_path / "in", tmp_path / "out", n_clusters=1).run(client)
    assert pq.read_schema(tmp_path / "out" / "pairwise_results" / "cluster_0.parquet").types[:2] == [expected] * 2


def test_json_lines_give_the_answer_of_parquet(
    rows: tuple[list[str], np.ndarray], answer: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    for i, part in enumerate(np.array_split(np.arange(len(rows[0])), 3)):
        lines = [json.dumps({"embedding": rows[1][j].astype(float).tolist(), "id": rows[0][j], "n": 1}) for j in part]
        (tmp_path / "in" / f"{i}.jsonl").write_text("\n".join(lines) + "\n" * (i % 2))
    workflow(tmp_path / "in", tmp_path / "out", input_filetype="jsonl", metadata_fields=["n"]).run(client)
    assert_same_answer(tmp_path / "out", answer)
    assert read_folder(tmp_path / "out" / "kmeans_results")["n"].tolist() == [1] * len(rows[0])


def test_columns_of_other_names_are_read_by_their_names(
    rows: tuple[list[str], np.ndarray], answer: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    (tmp_path / "in").mkdir()
    table = embedding_table(*rows).rename_columns(["clip uuid", "vector.of.floats"])
    pq.write_table(table, tmp_path / "in" / "a.parquet")
    parameters = {"id_field": "clip uuid", "embedding_field": "vector.of.floats"}
    workflow(tmp_path / "in", tmp_path / "out", **parameters).run(client)
    assert_same_answer(tmp_path / "out", answer)


def test_metadata_goes_along_to_the_clusters_whatever_its_type(client: distributed.Client, tmp_path: Path) -> None:
    x = np.eye(4)[[0, 1, 2, 3, 0, 1]]
    others = {
        "caption": ["a", None, "b\n", "c", "d", "e"],
        "span": [[0.0, 1.5], [1.5], [], None, [2.0], [3.0]],
        "seconds": [1, 2, 3, 4, 5, 6],
    }
    write_embeddings(tmp_path / "in", list("abcdef"), x, 1, **others, unwanted=[0] * 6)
    workflow(tmp_path / "in", tmp_path / "out", metadata_fields=list(others)).run(client)
    clusters = read_folder(tmp_path / "out" / "kmeans_results")
    assert "unwanted" not in clusters
    assert clusters["caption"].fillna("none").tolist() == ["a", "none", "b\n", "c", "d", "e"]
    assert clusters["seconds"].tolist() == others["seconds"]
    assert [None if v is None else list(v) for v in clusters["span"]] == others["span"]


def test_files_with_different_metadata_columns_go_together(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", ["a", "b"], np.eye(2), names=["1.parquet"], score=[1, 2])
    write_embeddings(tmp_path / "in", ["c", "d"], np.eye(2), names=["2.parquet"], caption=["x", "y"], score=[0.5, 1.5])
    write_embeddings(tmp_path / "in", ["e"], np.ones((1, 2)), names=["3.parquet"])
    workflow(tmp_path / "in", tmp_path / "out", metadata_fields=["caption", "score"]).run(client)
    clusters = read_folder(tmp_path / "out" / "kmeans_results")
    assert clusters["score"].fillna(-1).tolist() == [1, 2, 0.5, 1.5, -1]
    assert clusters["caption"].fillna("-").tolist() == ["-", "-", "x", "y", "-"]


def test_names_that_begin_with_an_underscore_or_a_dot_are_no_input(
    rows: tuple[list[str], np.ndarray], answer: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", *rows)
    write_embeddings(tmp_path / "in" / "_quarantine", *rows)
    write_embeddings(tmp_path / "in" / ".cache", *rows)
    write_embeddings(tmp_path / "in", *rows, names=["_tmp.parquet"])
    (tmp_path / "in" / "notes.txt").write_text("not data")
    workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert_same_answer(tmp_path / "out", answer)


def test_a_result_within_the_input_folder_does_not_become_input(
    rows: tuple[list[str], np.ndarray], answer: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    source = write_embeddings(tmp_path / "in", *rows)
    for _ in range(2):
        workflow(source, source / "result").run(client)
        assert_same_answer(source / "result", answer)


def test_output_and_cache_within_the_input_folder_do_not_become_input(
    rows: tuple[list[str], np.ndarray], client: distributed.Client, tmp_path: Path
) -> None:
    source = write_embeddings(tmp_path / "in", *rows)
    for _ in range(2):
        result = workflow(source, source / "result", cache_path=source / "cache").run(client)
        assert result.total == len(rows[0])


@pytest.mark.parametrize("form", ["file", "glob", "list of paths", "list of folder and file", "nested"])
def test_input_may_be_a_file_a_folder_a_glob_or_a_list(
    form: str, rows: tuple[list[str], np.ndarray], answer: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    folder = tmp_path / "in"
    if form == "file":
        source: Any = write_embeddings(folder, *rows) / "part-0.parquet"
    elif form == "nested":
        write_embeddings(folder / "a" / "b", rows[0][:100], rows[1][:100])
        write_embeddings(folder / "c", rows[0][100:], rows[1][100:])
        source = folder
    else:
        write_embeddings(folder, *rows, n_files=3)
        write_embeddings(folder / "other", rows[0][:5], rows[1][:5], names=["other.pq"])
        every = [folder / f"part-{i}.parquet" for i in range(3)]
        if form == "list of folder and file":
            (folder / "deep").mkdir()
            every[0].rename(folder / "deep" / "part-0.parquet")
            source = [folder / "deep", *every[1:], every[1]]
        else:
            source = folder / "part-*.parquet" if form == "glob" else every
    if form == "list of paths":
        made = semdedup.SemanticDeduplicationWorkflow(source, tmp_path / "out", 3, max_iter=5, eps=0.01, verbose=False)
        made.run(client)
    else:
        workflow(source, tmp_path / "out").run(client)
    assert_same_answer(tmp_path / "out", answer)


# Files


def test_the_output_has_exactly_the_files_of_the_contract(baseline: Path) -> None:
    files = files_below(baseline)
    clusters = sorted(read_folder(baseline / "kmeans_results")["centroid"].unique())
    assert clusters == [0, 1, 2]
    assert files == sorted(
        [
            f"_forest/part-{clusters[0]}.parquet",
            "_kmeans_centroids.npy",
            "_manifest.json",
            "duplicates/part-0.parquet",
            *(f"kmeans_results/centroid={k}/part-0.parquet" for k in clusters),
            *(f"pairwise_results/cluster_{k}.parquet" for k in clusters),
        ]
    )


def test_any_reader_of_parquet_reads_each_folder(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", ["a", "b", "c", "d"], np.array([[1, 0], [1, 0], [0, 1], [0, 0]]))
    workflow(tmp_path / "in", tmp_path / "out").run(client)
    for folder, n_rows in {"kmeans_results": 3, "pairwise_results": 3, "duplicates": 1, "_quarantine": 1}.items():
        assert ds.dataset(tmp_path / "out" / folder).count_rows() == n_rows
        assert len(pd.read_parquet(tmp_path / "out" / folder)) == n_rows


def test_columns_and_types_are_those_of_the_contract(
    with_metadata: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(with_metadata, tmp_path, metadata_fields=["camera", "height"]).run(client)
    cluster = pq.read_schema(next((tmp_path / "kmeans_results" / "centroid=0").iterdir()))
    assert {name: str(kind) for name, kind in zip(cluster.names, cluster.types, strict=True)} == {
        "id": "string",
        "embedding": "list<element: float>",
        "camera": "string",
        "height": "double",
        "l2_dist_to_cent": "float",
        "cosine_dist_to_cent": "float",
    }
    assert cluster.names[:2] == ["id", "embedding"]
    scores = pq.read_schema(tmp_path / "pairwise_results" / "cluster_0.parquet")
    assert list(zip(scores.names, map(str, scores.types), strict=True)) == [
        ("id", "string"),
        ("max_id", "string"),
        ("cosine_sim_score", "float"),
    ]
    duplicates = pq.read_schema(tmp_path / "duplicates" / "part-0.parquet")
    assert list(zip(duplicates.names, map(str, duplicates.types), strict=True)) == [("id", "string")]
    centroids = np.load(tmp_path / "_kmeans_centroids.npy", allow_pickle=False)
    assert (centroids.shape, centroids.dtype) == ((3, 6), np.float32)


def test_ids_of_duplicates_are_sorted_within_a_file(baseline: Path) -> None:
    for file in (baseline / "duplicates").iterdir():
        assert ids_of(file) == sorted(ids_of(file))


def test_a_cluster_is_one_file_unless_it_is_large(
    rows: tuple[list[str], np.ndarray], client: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_task_bytes(monkeypatch, 46 * 70)  # 70 rows with their ids: partitions are smaller than clusters
    write_embeddings(tmp_path / "in", *rows, n_files=8)
    workflow(tmp_path / "in", tmp_path / "out", n_clusters=6).run(client)
    found = read_folder(tmp_path / "out" / "kmeans_results").groupby("centroid").size()
    small = [k for k, n in found.items() if n <= 70]
    assert small
    for k in small:
        assert len(list((tmp_path / "out" / "kmeans_results" / f"centroid={k}").iterdir())) == 1


def test_the_manifest_tells_parameters_input_counts_files_and_versions(baseline: Path) -> None:
    manifest = json.loads((baseline / "_manifest.json").read_text())
    assert list(manifest["steps"]) == ["identify", "kmeans", "pairwise"]
    for step in manifest["steps"].values():
        assert step["status"] == "committed"
        assert {"parameters", "input", "files", "facts", "versions"} <= step.keys()
        assert all((baseline / name).is_file() for name in step["files"])
        assert step["versions"]["semdedup"] == semdedup.__version__
    kmeans = manifest["steps"]["kmeans"]
    assert kmeans["parameters"]["n_clusters"] == 3
    assert kmeans["input"]["files"] == 1
    assert kmeans["facts"]["rows"] == 240
    listed = {name for step in manifest["steps"].values() for name in step["files"]}
    assert listed | {"_manifest.json"} == set(files_below(baseline))


@pytest.mark.parametrize("eps", [None, 0.01], ids=["scores only", "with eps"])
def test_a_cache_path_takes_clusters_and_scores_and_the_output_the_rest(
    eps: float | None, answer: Answer, rows: tuple[list[str], np.ndarray], client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", [*rows[0], "zero"], np.concatenate([rows[1], np.zeros((1, 6))]))
    result = workflow(tmp_path / "in", tmp_path / "out", cache_path=tmp_path / "cache", eps=eps).run(client)
    assert result.quarantined == {"zero": 1}
    top = {path.split("/")[0] for path in files_below(tmp_path / "cache")}
    assert {"kmeans_results", "pairwise_results", "_kmeans_centroids.npy"} <= top
    assert "duplicates" not in top
    expected = {"_manifest.json", "_quarantine"} | ({"duplicates"} if eps else set())
    assert {path.split("/")[0] for path in files_below(tmp_path / "out")} == expected
    assert read_folder(tmp_path / "out" / "_quarantine").values.tolist()[0][:2] == ["zero", "zero"]
    pd.testing.assert_frame_equal(read_all_scores(tmp_path / "cache"), answer[0], check_exact=True)
    cache = json.loads((tmp_path / "out" / "_manifest.json").read_text())["cache"]
    assert cache["root"] == "../cache"
    assert len(semdedup.read_scores(str(tmp_path / "out"))) == len(rows[0])
    assert {"kmeans", "pairwise"} == cache["steps"].keys()


def test_write_kwargs_reach_parquet(rows: tuple[list[str], np.ndarray], tmp_path: Path, client: Any) -> None:
    write_embeddings(tmp_path / "in", *rows)
    kwargs = {
        "write_kwargs": {"compression": "snappy", "storage_options": None},
        "cache_kwargs": {"row_group_size": 50},
    }
    workflow(tmp_path / "in", tmp_path / "out", n_clusters=1, **kwargs).run(client)
    duplicates = pq.read_metadata(tmp_path / "out" / "duplicates" / "part-0.parquet")
    assert duplicates.row_group(0).column(0).compression == "SNAPPY"
    assert pq.read_metadata(tmp_path / "out" / "kmeans_results" / "centroid=0" / "part-0.parquet").num_row_groups == 5


# The result and the readers


def test_the_result_has_counts_seconds_paths_and_metadata(
    rows: tuple[list[str], np.ndarray], answer: Answer, client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", *rows)
    result = workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert (result.total, result.duplicates, result.kept) == (240, len(answer[1]), 240 - len(answer[1]))
    assert {"total_time", "kmeans_time", "pairwise_time", "num_duplicates"} <= result.metadata.keys()
    assert result.metadata["num_duplicates"] == result.duplicates
    assert result.metadata["total_time"] >= result.metadata["kmeans_time"] > 0
    assert all(Path(path).exists() for path in result.paths.values())
    assert result.eps == 0.01


def test_the_result_prints_as_a_table_in_a_terminal_and_a_notebook(
    rows: tuple[list[str], np.ndarray], client: distributed.Client, tmp_path: Path
) -> None:
    write_embeddings(tmp_path / "in", *rows)
    result = workflow(tmp_path / "in", tmp_path / "out <b>").run(client)
    for text in (repr(result), str(result), result._repr_html_()):
        assert "240" in text
        assert f"{result.duplicates:,}" in text
        assert "duplicates" in text
    assert "<b>" not in result._repr_html_()
    assert result._repr_html_().startswith("<table")
    scores_only = dataclasses.replace(result, duplicates=None, kept=None, eps=None)
    assert "scores only" in repr(scores_only)


def test_readers_give_dask_dataframes(
    rows: tuple[list[str], np.ndarray], baseline: Path, answer: Answer, client: distributed.Client
) -> None:
    scores = semdedup.read_scores(str(baseline))
    assert list(scores.columns) == ["id", "max_id", "cosine_sim_score"]
    found = client.compute(scores).result().sort_values("id")
    assert found["cosine_sim_score"].tolist() == answer[0]["cosine_sim_score"].tolist()
    duplicates = client.compute(semdedup.read_duplicates(str(baseline))).result()
    assert sorted(duplicates["id"]) == answer[1]
    clusters = client.compute(semdedup.read_clusters(str(baseline))).result()
    assert set(clusters["centroid"]) == {0, 1, 2}
    assert len(clusters) == len(rows[0])
    assert "embedding" in clusters
    inner = client.compute(semdedup.read_scores(str(baseline / "pairwise_results"))).result()
    assert len(inner) == len(found)


def test_read_embeddings_gives_the_columns_as_they_are(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", ["a", "b", "c"], np.eye(3), 2, caption=["x", "y", "z"])
    frame = semdedup.read_embeddings(str(tmp_path / "in"))
    assert (list(frame.columns), frame.npartitions) == (["id", "embedding", "caption"], 2)
    found = client.compute(frame).result()
    assert found["caption"].tolist() == ["x", "y", "z"]
    assert np.stack(found["embedding"]).tolist() == np.eye(3).tolist()


@pytest.mark.parametrize(
    ("chosen", "is_said"),
    [({"n_clusters": 5}, True), ({"n_clusters": 5, "exact_up_to": 0.05}, False), ({"n_clusters": "auto"}, False)],
)
def test_clusters_that_are_tiny_by_choice_are_said_once(
    chosen: dict[str, Any],
    is_said: bool,
    client: distributed.Client,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    rng: np.random.Generator,
) -> None:
    source = write_embeddings(tmp_path / "in", range(240), rng.normal(size=(240, 4)))
    made = workflow(source, tmp_path / "out", verbose=True, **chosen)
    made.run(client)
    made.run(client)
    said = capsys.readouterr().err
    assert said.count("warning: n_clusters 5 leaves 48 rows to a cluster") == is_said
    assert said.count("--exact-up-to") == is_said
