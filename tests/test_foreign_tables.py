"""Tables of scores, clusters and ids to drop of other programs: what cannot be right is refused where it is read."""

from collections.abc import Callable
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
    DuplicateIdError,
    IdentifyDuplicatesStage,
    InputError,
    PairwiseStage,
    RankingStrategy,
    SemdedupError,
)
from semdedup.dedup.input import hashes
from semdedup.dedup.results import checks
from semdedup.dedup.results.scores import Scores
from semdedup.storage.location import Location
from tests.helpers import NOWHERE, embedding_table, files_below, read_folder
from tests.shards import make_clips, sharder, write_duplicates

NAN, INF = float("nan"), float("inf")
IDS, MAX_IDS, SCORES = ["a", "b", "c", "d"], ["a", "a", "a", "b"], [0.0, 0.5, 0.92, 0.97]


def score_table(**columns: Any) -> pa.Table:
    """A table of scores of four rows with other columns in place of some."""
    return pa.table({"id": IDS, "max_id": MAX_IDS, "cosine_sim_score": SCORES, **columns})


def put(folder: Path, *tables: pa.Table) -> Path:
    """Tables of scores as another program writes them."""
    folder.mkdir(parents=True, exist_ok=True)
    for k, table in enumerate(tables):
        pq.write_table(table, folder / f"cluster_{k}.parquet")
    return folder


def scored(*scores: Any, kind: pa.DataType | None = None) -> pa.Table:
    return score_table(cosine_sim_score=pa.array([*scores], kind or pa.float64()))


def twice(name: str) -> pa.Table:
    table = score_table()
    return table.append_column(name, table.column(name))


OTHERS = score_table(id=list("wxyz"), max_id=["w"] * 4)

BROKEN: dict[str, tuple[tuple[pa.Table, ...], str]] = {
    "score null": ((OTHERS, scored(0, 0.5, None, 0.95)), r"'cosine_sim_score'.*cluster_1\.parquet holds null in row 2"),
    "score NaN": ((scored(0, NAN, 0.1, 0.95),), r"cluster_0\.parquet holds nan in row 1.*from 0 to 1"),
    "score infinite": ((scored(0, 0.5, 0.1, INF),), "holds inf in row 3"),
    "score negative": ((scored(0, 0.5, -0.3, 0.95),), r"holds -0\.3 in row 2"),
    "score of 2": ((scored(0, 0.5, 2, 0.95),), r"holds 2\.0 in row 2"),
    "score beyond float32": ((scored(0, 0.5, 1e300, 0.95),), r"holds 1e\+300 in row 2"),
    "score text": ((score_table(cosine_sim_score=["0", "1", "1", "0"]),), "'cosine_sim_score'.*is string"),
    "score whole": ((score_table(cosine_sim_score=[0, 1, 1, 0]),), "'cosine_sim_score'.*is int64"),
    "score absent": ((score_table().drop_columns("cosine_sim_score"),), "no column 'cosine_sim_score'"),
    "score column twice": ((twice("cosine_sim_score"),), "2 columns 'cosine_sim_score'"),
    "match absent": ((score_table().drop_columns("max_id"),), "no column 'max_id'"),
    "match null": ((score_table(max_id=["a", None, "a", "a"]),), "'max_id'.*holds null in row 1"),
    "match of another type": ((score_table(max_id=[1, 1, 1, 1]),), "'id'.*is string but.*'max_id' is int64"),
    "id null": ((OTHERS, score_table(id=["a", "b", None, "d"])), r"'id'.*cluster_1\.parquet holds null in row 2"),
    "id column twice": ((twice("id"),), "2 columns 'id'"),
    "id a number with a fraction": ((score_table(id=[1.0, 2.0, 3.0, 4.0]),), "'id'.*is double"),
    "id a list": ((score_table(id=[["a"], ["b"], ["c"], ["d"]]),), "'id'.*is list"),
    "id twice in a table": ((score_table(id=["a", "b", "a", "d"]),), "1 ids.*more than once.*'a'"),
    "id twice in two tables": ((OTHERS, score_table(id=["a", "b", "c", "w"])), "1 ids.*more than once.*'w'"),
    "ids text and numbers": ((score_table(), score_table(id=[1, 2, 3, 4], max_id=[1] * 4)), "'id' is string in.*int64"),
}
"""Tables of scores, and what is said of them."""


def identify(folder: Path, out: Path, inside: Any, **options: Any) -> Any:
    stage = IdentifyDuplicatesStage(eps=0.1, input_path=str(folder), output_path=str(out), verbose=False, **options)
    return stage.run(inside)


READERS: dict[str, Callable[[Path, Path], Any]] = {
    "remaining": lambda folder, out: semdedup.load(str(folder)).remaining([0.1]),
    "suggest_eps": lambda folder, out: semdedup.load(str(folder)).suggest_eps(0.6),
    "rethreshold": lambda folder, out: semdedup.load(str(folder)).rethreshold(0.1),
    "borderline": lambda folder, out: semdedup.load(str(folder)).borderline(2, 0.1),
    "groups": lambda folder, out: list(semdedup.load(str(folder)).groups(0.1)),
    "explain": lambda folder, out: semdedup.load(str(folder)).explain("d", 0.1),
    "read_scores": lambda folder, out: semdedup.read_scores(str(folder)).compute(scheduler="synchronous"),
    "report": lambda folder, out: semdedup.write_report(
        str(folder), eps=0.1, output_path=f"{out}/report.html", verbose=False
    ),
}


@pytest.mark.parametrize("reader", READERS)
def test_every_reader_refuses_a_table_of_scores_that_cannot_be_right(reader: str, tmp_path: Path) -> None:
    for kind, (tables, words) in BROKEN.items():
        folder = put(tmp_path / kind / "scores", *tables)
        with pytest.raises(SemdedupError, match=rf"(?s){words}"):
            READERS[reader](folder, tmp_path / kind)
        assert not (tmp_path / kind / "report.html").exists()


@pytest.mark.parametrize("kind", ["score null", "score negative", "id null", "id twice in two tables", "match null"])
def test_stages_and_shards_refuse_it_and_leave_nothing(kind: str, inside: distributed.Client, tmp_path: Path) -> None:
    tables, words = BROKEN[kind]
    folder = put(tmp_path / "extraction" / "semdedup_pruning_tables", *tables)
    with pytest.raises((BadFileError, DuplicateIdError), match=rf"(?s){words}"):
        identify(
            folder,
            tmp_path / "out",
            inside,
            removal="witness" if kind == "match null" else "any",
            clusters_path=str(matching_clusters(tmp_path)),
        )
    assert not (tmp_path / "out").exists()
    make_clips(tmp_path / "clips", IDS, metas=False, embeddings=False)
    shards = sharder(
        tmp_path / "clips", tmp_path / "tars", input_semantic_dedup_path=tmp_path, semantic_dedup_epsilon=0.1
    )
    with pytest.raises((BadFileError, DuplicateIdError), match=r"holds|more than once"):
        shards.run(inside)
    assert not (tmp_path / "tars").exists()


def matching_clusters(tmp_path: Path) -> Path:
    """Clusters of the rows of these tables."""
    for k, ids in enumerate([IDS, list("wxyz")]):
        (tmp_path / "clusters" / f"centroid={k}").mkdir(parents=True)
        table = embedding_table(ids, np.eye(4, 5, k=k))
        pq.write_table(table, tmp_path / "clusters" / f"centroid={k}" / "x.parquet")
    return tmp_path / "clusters"


@pytest.mark.parametrize("kind", [kind for kind in BROKEN if "column" in kind or "absent" in kind])
def test_what_the_footers_show_is_refused_before_a_cluster_is_asked_for(kind: str, tmp_path: Path) -> None:
    tables, words = BROKEN[kind]
    folder = put(tmp_path / "scores", *tables)
    with pytest.raises(BadFileError, match=words):
        identify(folder, tmp_path / "out", NOWHERE)
    with pytest.raises(BadFileError, match=words):
        semdedup.load(str(folder))


@pytest.mark.parametrize("element", [pa.float16(), pa.float32(), pa.float64()], ids=str)
@pytest.mark.parametrize(
    "ids", [pa.string(), pa.large_string(), pa.dictionary(pa.int8(), pa.string()), pa.int16()], ids=str
)
def test_rows_are_kept_or_dropped_in_file_summary_and_answers_alike(
    ids: pa.DataType, element: pa.DataType, tmp_path: Path
) -> None:
    def named(names: list[str]) -> pa.Array:
        return pa.array([ord(name) for name in names] if ids == pa.int16() else names, ids)

    step = 2.0**-10 if element == pa.float16() else 1e-7  # a little above 1, as low precision gives
    scores = pa.array([-0.0, 0.5, 1 + step, 0.97], pa.float64()).cast(element)
    folder = put(tmp_path, pa.table({"id": named(IDS), "max_id": named(MAX_IDS), "cosine_sim_score": scores}))
    result = semdedup.load(str(folder)).rethreshold(0.1)
    assert (result.total, result.kept, result.duplicates) == (4, 2, 2)
    assert result.remaining([0.1, 0.01]) == [(0.1, 0.5), (0.01, 0.75)]
    assert result.suggest_eps(0.75) == 0.0  # of the score above 1, which counts as 1
    dropped = {pair.id for group in result.groups() for pair in group.dropped}
    assert dropped == ({99, 100} if ids == pa.int16() else {"c", "d"})
    assert len(semdedup.read_scores(str(folder)).compute(scheduler="synchronous")) == 4
    assert Scores.of(Location.of(folder)).histogram(2).tolist() == [1, 3]


def test_summaries_and_ids_agree_with_the_table(inside: distributed.Client, tmp_path: Path) -> None:
    folder = put(tmp_path / "scores", scored(-0.0, 0.5, 1.001, 0.95), OTHERS.slice(0, 0), OTHERS)
    facts = identify(folder, tmp_path / "out", inside, count_at=[0.1, 0.01], summaries="sums", kept="kept").facts
    assert facts == {"rows": 8, "duplicates": 4, "removed_at": {"0.1": 4, "0.01": 1}}
    summary = pd.read_csv(tmp_path / "out" / "sums" / "dedup_summary_0.1.csv").to_dict("records")
    assert summary == [{"eps": 0.1, "kept": 4, "removed": 4, "total": 8}]
    assert pq.read_table(tmp_path / "out" / "part-0.parquet")["id"].to_pylist() == ["c", "d", "y", "z"]
    assert sorted(read_folder(tmp_path / "out" / "kept")["id"]) == ["a", "b", "w", "x"]


@pytest.mark.parametrize("empty", [pd.DataFrame(), pd.DataFrame({"id": [], "max_id": [], "cosine_sim_score": []})])
def test_a_table_without_rows_says_nothing_whatever_its_columns(empty: pd.DataFrame, tmp_path: Path) -> None:
    folder = put(tmp_path, pa.Table.from_pandas(empty), score_table())
    assert semdedup.load(str(folder)).rethreshold(0.1).duplicates == 2
    assert len(semdedup.read_scores(str(folder)).compute(scheduler="synchronous")) == 4


def test_ids_are_compared_range_by_range_and_equal_hashes_are_no_equal_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = [score_table(id=[f"{k}{name}" for name in IDS]) for k in range(6)]
    folder = put(tmp_path / "good", *tables)
    monkeypatch.setattr(hashes, "HASHES_PER_RANGE", 5)
    monkeypatch.setattr(checks, "BYTES_PER_TASK", 1)
    Scores.of(Location.of(folder)).check()
    again = put(tmp_path / "again", *tables, tables[1])
    with pytest.raises(DuplicateIdError, match=r"(?s)4 ids .*'1a': 2 times, in .*cluster_1.parquet and .*cluster_6"):
        Scores.of(Location.of(again)).check()
    monkeypatch.setattr(checks, "hash_ids", lambda ids, seed: np.zeros(len(ids), dtype=np.uint64))
    Scores.of(Location.of(folder)).check()


# Names of files and folders


def rows_of(*ids: Any, dim: int = 3, **columns: Any) -> pa.Table:
    rows = np.random.default_rng(len(ids)).normal(size=(len(ids), dim))
    distances = {"cosine_dist_to_cent": np.arange(len(ids)) / 10, **columns}
    return embedding_table(ids, rows, **distances)


NAMES = {
    "twice": ("a/{}1", "b/{}1", "cluster 1 is there twice below .*a/.*b/"),
    "with a zero in front": ("{}01", "{}1", "cluster 1 is there twice"),
    "no number": ("{}x", "{}1", "x.* is named like a cluster, but not by its number"),
    "negative": ("{}-1", "{}1", "-1.* is named like a cluster"),
    "too large": ("{}2147483648", "{}1", "2147483648.* is named like a cluster"),
}


@pytest.mark.parametrize(("one", "other", "words"), NAMES.values(), ids=NAMES)
def test_each_cluster_has_one_folder_and_one_table_by_its_number(
    one: str, other: str, words: str, tmp_path: Path
) -> None:
    for name, ids in ((one, "ab"), (other, "cd")):
        place = tmp_path / "clusters" / name.format("centroid=") / "x.parquet"
        place.parent.mkdir(parents=True)
        pq.write_table(rows_of(*ids), place)
        table = tmp_path / "scores" / f"{name.format('cluster_')}.parquet"
        table.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(score_table(id=[f"{i}{ids}" for i in IDS]), table)
    readers: list[Callable[[], Any]] = [
        lambda: compare(tmp_path / "clusters", tmp_path / "out", NOWHERE),
        lambda: semdedup.read_clusters(str(tmp_path / "clusters")),
        lambda: identify(tmp_path / "scores", tmp_path / "out", NOWHERE),
        lambda: semdedup.load(str(tmp_path / "scores")),
        lambda: semdedup.read_scores(str(tmp_path / "scores")),
    ]
    for reader in readers:
        with pytest.raises(InputError, match=words):
            reader()


# Clusters


def compare(folder: Path, out: Path, inside: Any, **options: Any) -> Any:
    return PairwiseStage(input_path=str(folder), output_path=str(out), verbose=False, **options).run(inside)


def put_clusters(folder: Path, *tables: pa.Table) -> Path:
    for k, table in enumerate(tables):
        (folder / f"centroid={k}").mkdir(parents=True)
        pq.write_table(table, folder / f"centroid={k}" / "x.parquet")
    return folder


WRONG_CLUSTERS: dict[str, tuple[tuple[pa.Table, ...], str]] = {
    "id twice": ((rows_of("a", "b", "a"),), "1 ids stand in the input more than once.*'a'"),
    "id twice in two clusters": ((rows_of("a", "b"), rows_of("c", "b")), "1 ids.*more than once.*'b'"),
    "ids text and numbers": ((rows_of("a", "b"), rows_of(1, 2)), "'id' is int64 in .*centroid=1.*text in .*centroid=0"),
    "distances text": ((rows_of("a", "b", cosine_dist_to_cent=["9", "10"]),), "'cosine_dist_to_cent'.*is string"),
    "distances whole": ((rows_of("a", "b", cosine_dist_to_cent=[9, 10]),), "'cosine_dist_to_cent'.*is int64"),
    "lengths": ((rows_of("a", "b"), rows_of("c", "d", "e", dim=5)), "centroid=0.*length 3 and none of length 5"),
}


@pytest.mark.parametrize(("tables", "words"), WRONG_CLUSTERS.values(), ids=WRONG_CLUSTERS)
def test_clusters_that_cannot_be_right_are_refused_before_anything_is_written(
    tables: tuple[pa.Table, ...], words: str, inside: distributed.Client, tmp_path: Path
) -> None:
    folder = put_clusters(tmp_path / "in", *tables)
    with pytest.raises(SemdedupError, match=rf"(?s){words}"):
        compare(folder, tmp_path / "out", inside)
    assert not (tmp_path / "out").exists()


def test_a_column_that_ranks_has_one_type_in_all_clusters(inside: distributed.Client, tmp_path: Path) -> None:
    folder = put_clusters(tmp_path / "in", rows_of("a", "b", q=[1, 2]), rows_of("c", "d", q=["x", "y"]))
    strategy = RankingStrategy.metadata_based(["q"])
    with pytest.raises(BadFileError, match=r"'q' is int64 in .*centroid=0.*string in .*centroid=1"):
        compare(folder, tmp_path / "out", inside, ranking_strategy=strategy)


def test_rows_without_a_distance_rank_last_and_rows_without_an_id_are_set_aside(
    inside: distributed.Client, tmp_path: Path
) -> None:
    lacking = rows_of("a", "b", "c", "d", cosine_dist_to_cent=[0.1, None, NAN, 0.5])
    nobody = rows_of("x", "y").set_column(0, "id", pa.nulls(2))
    folder = put_clusters(tmp_path / "in", lacking, nobody, rows_of("e", None))
    facts = compare(folder, tmp_path / "out", inside).facts
    assert (facts["rows"], facts["quarantined"]) == (5, {"null_id": 3})
    ranked = pq.read_table(tmp_path / "out" / "cluster_0.parquet")["id"].to_pylist()
    assert ranked == ["d", "a", "c", "b"]
    assert identify(tmp_path / "out", tmp_path / "drop", inside).facts["rows"] == 5


# Ids to drop


@pytest.mark.parametrize(
    ("ids", "words"),
    [
        (pa.array(["a", None]), "'id'.*holds null in row 1"),
        (pa.array([1.0, 2.0]), "'id'.*is double"),
        (pa.array([["a"]]), "'id'.*is list"),
        (None, "no column 'id'"),
    ],
    ids=["null", "fractions", "lists", "absent"],
)
def test_ids_to_drop_that_cannot_be_ids_are_refused(
    ids: pa.Array | None, words: str, inside: distributed.Client, tmp_path: Path
) -> None:
    write_duplicates(tmp_path, ["a"])
    pq.write_table(pa.table({"other" if ids is None else "id": ids or ["a"]}), tmp_path / "duplicates" / "b.parquet")
    (tmp_path / "duplicates" / "part-0.parquet").unlink()
    make_clips(tmp_path / "clips", IDS, metas=False, embeddings=False)
    with pytest.raises(BadFileError, match=words):
        sharder(tmp_path / "clips", tmp_path / "tars", input_semantic_dedup_path=tmp_path).run(inside)
    assert not (tmp_path / "tars").exists()
    with pytest.raises(BadFileError, match=words):
        semdedup.read_duplicates(str(tmp_path / "duplicates")).compute(scheduler="synchronous")


def test_an_id_to_drop_that_is_named_twice_goes_once(inside: distributed.Client, tmp_path: Path) -> None:
    write_duplicates(tmp_path, ["a", "b", "a"])
    make_clips(tmp_path / "clips", IDS, metas=False, embeddings=False)
    result = sharder(tmp_path / "clips", tmp_path / "tars", input_semantic_dedup_path=tmp_path).run(inside)
    assert (result.kept, result.dropped) == (2, {"duplicate": 2})
    assert files_below(tmp_path / "tars")


def test_what_lies_among_foreign_tables_is_told(inside: distributed.Client, tmp_path: Path) -> None:
    put(tmp_path / "scores", score_table())
    pq.write_table(pa.table({"x": [1]}), tmp_path / "scores" / "summary.parquet")
    (tmp_path / "scores" / "notes.txt").write_text("x")
    wanted = {"that are no Parquet": {".txt": 1}, "whose names are of other tables": {".parquet": 1}}
    found = IdentifyDuplicatesStage(
        eps=0.1, input_path=str(tmp_path / "scores"), output_path=str(tmp_path / "out"), verbose=False
    ).run(inside)
    assert found.facts["passed_over"] == wanted
