"""The stages: chained as in the documents of the system that they follow, and alone on another program's files."""

import json
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import (
    BadFileError,
    IdentifyDuplicatesStage,
    InputError,
    KMeansStage,
    PairwiseStage,
    ParameterError,
    Pipeline,
    RankingStrategy,
    StageResult,
)
from semdedup.runs.record import Record
from semdedup.storage.location import Location
from tests.helpers import (
    NOWHERE,
    embedding_table,
    files_below,
    near_duplicates,
    read_answer,
    read_folder,
    reference_scores,
    stamps,
    workflow,
    write_embeddings,
)
from tests.records import put_committed

DOCUMENT = """
from semdedup import KMeansStage, PairwiseStage, Pipeline

INPUT_PARQUET = f"{OUT_DIR}/iv2_embd_parquet"  # or s3://...
OUTPUT_DIR = f"{OUT_DIR}/semantic_dedup"

pipe = Pipeline(name="video_semantic_dedup", description="K-means + pairwise duplicate removal")

pipe.add_stage(
    KMeansStage(
        n_clusters=1000,
        id_field="id",
        embedding_field="embedding",
        input_path=INPUT_PARQUET,
        output_path=f"{OUTPUT_DIR}/kmeans",
        input_filetype="parquet",
        embedding_dim=512,
        read_kwargs={"storage_options": None},
        write_kwargs={"storage_options": None},
    )
)

pipe.add_stage(
    PairwiseStage(
        id_field="id",
        embedding_field="embedding",
        input_path=f"{OUTPUT_DIR}/kmeans",
        output_path=f"{OUTPUT_DIR}/pairwise",
        which_to_keep="hard",   # or "easy" or "random"
        sim_metric="cosine",    # or "l2"
        pairwise_batch_size=1024,
        read_kwargs={"storage_options": None},
        write_kwargs={"storage_options": None},
    )
)

pipe.run()
"""
"""Section 2 of the document on splitting and deduplication, with other imports and no executor."""


def test_the_pipeline_of_the_documents_runs_with_only_its_imports_changed(
    client: distributed.Client, rng: np.random.Generator, tmp_path: Path
) -> None:
    x = rng.normal(size=(200, 512))
    x[:50] = x[50:100] * rng.uniform(0.5, 2, size=(50, 1))
    ids = [f"1a2b3c4d-{i:04d}" for i in range(200)]
    names = [f"{i:08x}.parquet" for i in range(20)]
    folder = tmp_path / "iv2_embd_parquet"
    write_embeddings(folder, ids, x, 20, column=pa.list_(pa.float64()), names=names)  # as the peer's splitter writes
    with client.as_current():
        exec(DOCUMENT, {"OUT_DIR": str(tmp_path)})
    clusters = read_folder(tmp_path / "semantic_dedup" / "kmeans")
    assert clusters["id"].tolist() == ids
    scores = read_folder(tmp_path / "semantic_dedup" / "pairwise")
    expected = reference_scores(clusters, ["cosine_dist_to_cent"], [False, False])
    pd.testing.assert_frame_equal(scores, expected, check_exact=True, check_dtype=False)
    assert (scores["cosine_sim_score"] > 0.99999).sum() == 50


@pytest.fixture
def emb(tmp_path: Path) -> Path:
    return write_embeddings(tmp_path / "emb", *near_duplicates(np.random.default_rng(2), 90), 3)


def test_stages_without_input_path_read_what_the_stage_before_wrote(
    emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    pipeline = Pipeline("dedup", "three stages")
    chained = (
        pipeline.add_stage(
            KMeansStage(
                n_clusters=3, max_iter=5, input_path=str(emb), output_path=str(tmp_path / "kmeans"), verbose=False
            )
        )
        .add_stage(PairwiseStage(output_path=str(tmp_path / "pairwise"), verbose=False))
        .add_stage(IdentifyDuplicatesStage(eps=0.01, output_path=str(tmp_path / "drop"), verbose=False))
    )
    assert chained is pipeline
    results = pipeline.run(client)
    assert [result.stage for result in results] == ["kmeans", "pairwise", "identify"]
    assert all(isinstance(result, StageResult) and not result.resumed for result in results)
    workflow(emb, tmp_path / "whole").run(client)
    scores, duplicates = read_answer(tmp_path / "whole")
    pd.testing.assert_frame_equal(read_folder(tmp_path / "pairwise"), scores, check_exact=True)
    assert read_folder(tmp_path / "drop")["id"].tolist() == duplicates
    assert results[2].facts["duplicates"] == len(duplicates) > 0


def test_a_stage_alone_writes_straight_under_its_output_path(
    emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    kmeans, pairwise, drop = (tmp_path / name for name in ("kmeans", "pairwise", "drop"))
    KMeansStage(n_clusters=2, input_path=str(emb), output_path=str(kmeans), verbose=False).run(client)
    PairwiseStage(input_path=str(kmeans), output_path=str(pairwise), verbose=False).run(client)
    IdentifyDuplicatesStage(input_path=str(pairwise), output_path=str(drop), eps=0.01, verbose=False).run(client)
    assert files_below(kmeans) == [
        "_kmeans_centroids.npy",
        "_manifest.json",
        "centroid=0/part-0.parquet",
        "centroid=1/part-0.parquet",
    ]
    forest = [name for name in files_below(pairwise) if name.startswith("_forest/")]
    assert forest
    assert files_below(pairwise) == [*forest, "_manifest.json", "cluster_0.parquet", "cluster_1.parquet"]
    assert files_below(drop) == ["_manifest.json", "part-0.parquet"]


def test_all_stages_may_write_to_one_folder(emb: Path, client: distributed.Client, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    pipeline = Pipeline().add_stage(KMeansStage(n_clusters=2, input_path=str(emb), output_path=out, verbose=False))
    pipeline.add_stage(PairwiseStage(output_path=out, verbose=False)).run(client)
    assert {"centroid=0", "cluster_0.parquet"} <= {path.split("/")[0] for path in files_below(tmp_path / "out")}
    assert [result.resumed for result in pipeline.run(client)] == [True, True]


def everything_in(out: str, emb: Path, cleared: str = "", **parameters: Any) -> dict[str, Any]:
    """The three stages, each alone, on one folder; the one of this name clears what was there."""
    common: dict[str, Any] = {"output_path": out, "verbose": False}
    found = {
        "kmeans": KMeansStage(input_path=str(emb), n_clusters=parameters.get("n_clusters", 2), max_iter=5, **common),
        "pairwise": PairwiseStage(input_path=out, which_to_keep=parameters.get("which_to_keep", "hard"), **common),
        "identify": IdentifyDuplicatesStage(input_path=out, eps=parameters.get("eps", 0.01), folder="drop", **common),
    }
    if cleared:
        found[cleared].clear_output = True
    return found


CLIPS = {"_videos.parquet": "split", "clips/a.mp4": "split", "iv2_embd_parquet/part-0.parquet": "embed iv2"}


def split_into(out: Path) -> None:
    """Put clips and embeddings into a folder, with the record of the commands that write them."""
    for step in dict.fromkeys(CLIPS.values()):
        files = [name for name, writer in CLIPS.items() if writer == step]
        put_committed(Location.of(out), step, *files, parameters={"seconds": 5})


@pytest.mark.parametrize(
    ("cleared", "changed", "left"),
    [
        ("kmeans", {"n_clusters": 3}, []),
        ("pairwise", {"which_to_keep": "easy"}, ["kmeans"]),
        ("identify", {"eps": 0.5}, ["kmeans", "pairwise"]),
    ],
    ids=["k-means", "comparison", "threshold"],
)
def test_a_stage_clears_what_it_makes_and_what_is_made_of_that_and_nothing_else(
    cleared: str, changed: dict[str, Any], left: list[str], emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    split_into(out)
    for stage in everything_in(str(out), emb).values():
        stage.run(client)
    before = stamps(out)
    steps = Record(Location.of(out)).steps
    again = everything_in(str(out), emb, cleared, **changed)[cleared].run(client)
    assert not again.resumed
    after = Record(Location.of(out)).steps
    assert after.keys() == {"split", "embed iv2", *left, cleared}
    for step in ("split", "embed iv2", *left):
        assert after[step] == steps[step]
    kept = [str(out / name) for step in ("split", "embed iv2", *left) for name in steps[step]["files"]]
    assert {name: stamps(out).get(name) for name in kept} == {name: before[name] for name in kept}
    gone = {"kmeans": ("centroid=1", "cluster_1.parquet", "drop"), "pairwise": ("drop",), "identify": ()}[cleared]
    assert [name for name in gone if (out / name).exists()] == [name for name in gone if name == "centroid=1"]


def test_only_the_stages_that_are_told_to_clear_do(emb: Path, client: distributed.Client, tmp_path: Path) -> None:
    out = str(tmp_path / "out")
    for stage in everything_in(out, emb).values():
        stage.run(client)
    again = everything_in(out, emb, "identify", eps=0.5)
    results = Pipeline().add_stage(again["pairwise"]).add_stage(again["identify"]).run(client)
    assert [result.resumed for result in results] == [True, False]


def test_a_workflow_that_clears_leaves_the_clips_of_its_folder(
    emb: Path, client: distributed.Client, tmp_path: Path
) -> None:
    split_into(tmp_path / "out")
    split_into(tmp_path / "cache")
    (tmp_path / "cache" / "_quarantine").mkdir()
    (tmp_path / "cache" / "_quarantine" / "videos.parquet").write_bytes(b"of split")
    for n_clusters in (2, 3):
        workflow(emb, tmp_path / "out", cache_path=tmp_path / "cache", n_clusters=n_clusters, clear_output=True).run(
            client
        )
        for folder in ("out", "cache"):
            assert set(CLIPS) <= set(files_below(tmp_path / folder))
            assert Record(Location.of(tmp_path / folder)).committed("split")
    assert "_quarantine/videos.parquet" not in files_below(tmp_path / "out")


# On another program's files

SIX = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [1, 2, 3], [1, 2, 3]], dtype=np.float64)
SCORES = [0, 0.974631, 0.998190, 0.999618, 1, 1]
WITNESSES = [0, 0, 1, 2, 0, 0]


def foreign_clusters(folder: Path, clusters: dict[int, pa.Table], name: str = "x.parquet") -> Path:
    """Write folders ``centroid=K`` as another program would: its own file names, and what else it leaves there."""
    for k, table in clusters.items():
        (folder / f"centroid={k}").mkdir(parents=True)
        pq.write_table(table, folder / f"centroid={k}" / name)
    (folder / "_SUCCESS").write_text("")
    return folder


@pytest.mark.parametrize("element", ["float32", "float64"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_comparison_of_hand_written_clusters_gives_the_known_scores(
    metric: str, element: str, client: distributed.Client, tmp_path: Path
) -> None:
    ids = [f"r{i}" for i in range(6)]
    distances = {
        f"{m}_dist_to_cent": pa.array(np.arange(6, 0, -1.0) * (1 if m == metric else -1)) for m in ("l2", "cosine")
    }
    table = embedding_table(ids, SIX, pa.list_(pa.type_for_alias(element)), **distances)
    order = pa.array([3, 0, 5, 2, 1, 4])
    source = foreign_clusters(tmp_path / "clusters", {7: table.take(order)})
    PairwiseStage(input_path=str(source), output_path=str(tmp_path / "out"), distance_metric=metric, verbose=False).run(
        client
    )
    assert files_below(tmp_path / "out") == ["_forest/part-7.parquet", "_manifest.json", "cluster_7.parquet"]
    scores = read_folder(tmp_path / "out")
    np.testing.assert_allclose(scores["cosine_sim_score"], SCORES, atol=1e-6)
    assert scores["max_id"].tolist() == [f"r{i}" for i in WITNESSES]


def test_comparison_alone_equals_the_reference_on_clusters_of_another_program(
    client: distributed.Client, rng: np.random.Generator, tmp_path: Path
) -> None:
    frames, tables = [], {}
    for k, n in ((0, 30), (3, 1), (10, 17)):
        x = rng.normal(size=(n, 5)) * rng.uniform(0.1, 10, size=(n, 1))
        distance = pa.array(rng.choice([0.1, 0.2, 0.3], size=n))  # ties go by id
        ids = [100 * k + i for i in range(n)]
        tables[k] = embedding_table(ids, x, pa.list_(pa.float64()), cosine_dist_to_cent=distance)
        unit = list(x / np.linalg.norm(x, axis=1, keepdims=True))
        frames.append(pd.DataFrame({"id": ids, "embedding": unit, "d": distance.to_numpy(), "centroid": k}))
    source = foreign_clusters(tmp_path / "clusters", tables)
    PairwiseStage(input_path=str(source), output_path=str(tmp_path / "out"), which_to_keep="easy", verbose=False).run(
        client
    )
    expected = reference_scores(pd.concat(frames), ["d"], [True, True])
    scores = read_folder(tmp_path / "out")
    np.testing.assert_allclose(scores["cosine_sim_score"], expected["cosine_sim_score"], atol=1e-6)
    assert scores["max_id"].tolist() == expected["max_id"].tolist()
    assert {path.name for path in (tmp_path / "out").glob("*.parquet")} == {f"cluster_{k}.parquet" for k in (0, 3, 10)}


def test_comparison_ranks_by_metadata_that_stands_in_the_clusters(client: distributed.Client, tmp_path: Path) -> None:
    table = embedding_table(list("abcdef"), SIX[::-1], rank=pa.array([5, 4, 3, 2, 1, 0]))
    PairwiseStage(
        input_path=str(foreign_clusters(tmp_path / "clusters", {0: table})),
        output_path=str(tmp_path / "out"),
        ranking_strategy=RankingStrategy.metadata_based(["rank"], ascending=True),
        verbose=False,
    ).run(client)
    scores = read_folder(tmp_path / "out")
    np.testing.assert_allclose(scores["cosine_sim_score"], SCORES[::-1], atol=1e-6)
    assert scores["max_id"].tolist() == list("ffdeff")


def test_comparison_reads_its_columns_by_their_names_and_files_of_one_cluster_together(
    client: distributed.Client, tmp_path: Path
) -> None:
    distance = pa.array(np.arange(6, 0, -1.0))
    table = embedding_table(range(6), SIX, cosine_dist_to_cent=distance).rename_columns(
        ["uuid", "embeddings", "cosine_dist_to_cent"]
    )
    source = foreign_clusters(tmp_path / "clusters", {0: table[:2]})
    pq.write_table(table[2:], source / "centroid=0" / "y.parquet")
    PairwiseStage("uuid", "embeddings", str(source), str(tmp_path / "out"), verbose=False).run(client)
    scores = read_folder(tmp_path / "out")
    assert scores["id"].tolist() == list(range(6))
    np.testing.assert_allclose(scores["cosine_sim_score"], SCORES, atol=1e-6)


def test_rows_of_foreign_clusters_that_cannot_be_compared_are_quarantined(
    client: distributed.Client, tmp_path: Path
) -> None:
    values = [[1.0, 2.0], None, [0.0, 0.0], [float("nan"), 1.0], [1.0], [2.0, 4.0]]
    table = embedding_table(list("abcdef"), values, cosine_dist_to_cent=pa.array(np.arange(6.0)))
    source = foreign_clusters(tmp_path / "clusters", {0: table})
    result = PairwiseStage(input_path=str(source), output_path=str(tmp_path / "out"), verbose=False).run(client)
    assert result.facts["quarantined"] == {"null": 1, "zero": 1, "not_finite": 1, "wrong_length": 1}
    assert read_folder(tmp_path / "out" / "_quarantine")["id"].tolist() == list("bcde")
    assert pq.read_table(tmp_path / "out" / "cluster_0.parquet")["id"].to_pylist() == ["f", "a"]


def test_clusters_may_be_a_frame(emb: Path, client: distributed.Client, tmp_path: Path) -> None:
    KMeansStage(n_clusters=3, input_path=str(emb), output_path=str(tmp_path / "clusters"), verbose=False).run(client)
    lazy = semdedup.read_clusters(str(tmp_path / "clusters"))
    held = lazy.compute()
    given: dict[str, Any] = {"files": str(tmp_path / "clusters"), "dask": lazy, "pandas": held}
    found = []
    for name, clusters in given.items():
        PairwiseStage(input_path=clusters, output_path=str(tmp_path / name), verbose=False).run(client)
        found.append(semdedup.read_scores(str(tmp_path / name)).compute().sort_values("id").reset_index(drop=True))
    for scores in found[1:]:
        pd.testing.assert_frame_equal(scores, found[0])
    for words, wrong in {
        "no column 'centroid'": held.drop(columns="centroid"),
        "'centroid' of rows 0 to .* is -1 in some row": held.assign(centroid=-1),
        "'centroid' of .* is null in some rows": held.assign(centroid=pd.NA).astype({"centroid": "Int64"}),
        "'centroid' of .* is .*string": held.assign(centroid="0"),
    }.items():
        with pytest.raises(BadFileError, match=words):
            PairwiseStage(input_path=wrong, output_path=str(tmp_path / "wrong"), verbose=False).run(client)


def test_clusters_without_the_distance_that_ranks_are_refused_by_name(
    client: distributed.Client, tmp_path: Path
) -> None:
    source = foreign_clusters(tmp_path / "clusters", {0: embedding_table(["a"], [[1.0]])})
    stage = PairwiseStage(input_path=str(source), output_path=str(tmp_path / "out"), verbose=False)
    with pytest.raises(ParameterError, match=r"cosine_dist_to_cent.*id, embedding"):
        stage.run(client)
    assert not (tmp_path / "out").exists()


def test_threshold_of_hand_written_scores(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    for k, rows in {0: [("b", 0.9), ("a", 0.95), ("c", 0.0)], 12: [("d", 0.8999999), ("e", 1.0)]}.items():
        score = pa.array([score for _, score in rows], pa.float32())
        table = pa.table({"id": [i for i, _ in rows], "max_id": ["c"] * len(rows), "cosine_sim_score": score})
        pq.write_table(table, tmp_path / "scores" / f"cluster_{k}.parquet")
    stage = IdentifyDuplicatesStage(0.1, str(tmp_path / "scores"), str(tmp_path / "drop"))
    result = stage.run(client)
    assert result.facts["rows"] == 5
    assert read_folder(tmp_path / "drop")["id"].tolist() == ["a", "b", "e"]  # 0.9 is reached in float32


def test_a_table_of_scores_without_its_columns_is_refused_by_name(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "scores").mkdir()
    pq.write_table(pa.table({"id": ["a"]}), tmp_path / "scores" / "cluster_0.parquet")
    stage = IdentifyDuplicatesStage(0.1, str(tmp_path / "scores"), str(tmp_path / "drop"))
    with pytest.raises(BadFileError, match=r"cluster_0\.parquet.*cosine_sim_score"):
        stage.run(client)
    assert not files_below(tmp_path / "drop")


@pytest.mark.parametrize(
    ("stage", "words"),
    [(PairwiseStage, "centroid=0.*KMeansStage"), (IdentifyDuplicatesStage, "cluster_0.*PairwiseStage")],
    ids=["comparison", "threshold"],
)
def test_a_stage_on_a_folder_that_is_not_its_input_says_what_it_looks_for(
    stage: Any, words: str, emb: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        stage(input_path=str(emb), output_path=str(tmp_path / "out"), verbose=False).run(NOWHERE)
    assert not (tmp_path / "out").exists()


# Parameters of pipelines and stages


def test_a_pipeline_without_stages_or_input_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="no stages"):
        Pipeline("empty").run()
    with pytest.raises(ParameterError, match=r"PairwiseStage.*input_path"):
        Pipeline().add_stage(PairwiseStage(output_path=str(tmp_path))).run()
    with pytest.raises(ParameterError, match="output_path"):
        Pipeline().add_stage(KMeansStage(input_path=str(tmp_path))).run()
    with pytest.raises(ParameterError, match=r"add_stage.*str"):
        Pipeline().add_stage("kmeans")  # type: ignore[arg-type]


def test_credentials_are_not_in_the_repr_of_a_stage(tmp_path: Path) -> None:
    kwargs = {"storage_options": {"secret": "canary-secret-0451"}}
    for stage in (KMeansStage, PairwiseStage, IdentifyDuplicatesStage):
        made = stage(input_path="in", output_path="out", read_kwargs=kwargs, write_kwargs=kwargs)
        assert "canary-secret-0451" not in repr(made) + repr(made.destination()) + repr(made.source())


def test_a_finished_pipeline_run_again_does_nothing(emb: Path, client: distributed.Client, tmp_path: Path) -> None:
    def pipeline() -> Pipeline:
        kmeans = KMeansStage(n_clusters=2, input_path=str(emb), output_path=str(tmp_path / "a"), verbose=False)
        return Pipeline().add_stage(kmeans).add_stage(PairwiseStage(output_path=str(tmp_path / "b"), verbose=False))

    first = pipeline().run(client)
    again = pipeline().run(NOWHERE)  # no cluster is needed for nothing
    assert [result.facts for result in again] == [result.facts for result in first]
    assert all(result.resumed for result in again)


def test_everything_a_stage_takes_is_exported() -> None:
    names = ["KMeansStage", "PairwiseStage", "IdentifyDuplicatesStage", "Pipeline", "RankingStrategy", "StageResult"]
    assert set(names) <= set(semdedup.__all__)
    assert json.dumps(RankingStrategy.metadata_based("height").describe())
