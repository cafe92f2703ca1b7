"""Input and parameters that cannot be used: each fault has a name, is told before there is output, and loses no row."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import (
    BadFileError,
    DuplicateIdError,
    InputError,
    OutputConflictError,
    PairwiseStage,
    ParameterError,
    RankingStrategy,
    SemdedupError,
    StorageError,
)
from tests.helpers import (
    NOWHERE,
    assert_nothing_left,
    embedding_table,
    files_below,
    read_all_scores,
    read_folder,
    workflow,
    write_embeddings,
)


@pytest.fixture
def good(tmp_path: Path) -> Path:
    """Three good files of ten rows of length 4."""
    rng = np.random.default_rng(5)
    return write_embeddings(tmp_path / "in", [f"id{i:02d}" for i in range(30)], rng.normal(size=(30, 4)), 3)


def write(folder: Path, name: str, table: pa.Table, **options: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, folder / name, **options)
    return folder / name


def damage_pages(path: Path) -> None:
    """Overwrite the pages of a Parquet file and leave its footer as it was."""
    content = bytearray(path.read_bytes())
    content[8:200] = bytes(192)
    path.write_bytes(bytes(content))
    pq.read_metadata(path)


# Rows that cannot be compared

BAD_ROWS: dict[str, tuple[Any, Any, str]] = {
    "null": ("bad", None, "null"),
    "too short": ("bad", [1.0, 2.0, 3.0], "wrong_length"),
    "too long": ("bad", [1.0] * 5, "wrong_length"),
    "empty": ("bad", [], "wrong_length"),
    "nan": ("bad", [1.0, 2.0, float("nan"), 3.0], "not_finite"),
    "infinite": ("bad", [1.0, float("-inf"), 2.0, 3.0], "not_finite"),
    "null element": ("bad", [1.0, 2.0, None, 3.0], "not_finite"),
    "zero": ("bad", [0.0, -0.0, 0.0, 0.0], "zero"),
    "null id": (None, [1.0, 2.0, 3.0, 4.0], "null_id"),
}


@pytest.mark.parametrize(("row_id", "embedding", "reason"), BAD_ROWS.values(), ids=BAD_ROWS)
def test_a_row_that_cannot_be_compared_is_quarantined_with_reason_and_source(
    row_id: Any, embedding: Any, reason: str, good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    path = write(good, "z.parquet", embedding_table(["a", row_id, "b"], [[1.0] * 4, embedding, [-1.0, 2, 3, 4]]))
    result = workflow(good, tmp_path / "out").run(client)
    assert result.quarantined == {reason: 1}
    assert (result.total, result.n_quarantined) == (33, 1)
    assert result.kept + result.duplicates == 32
    aside = pq.read_table(tmp_path / "out" / "_quarantine").to_pylist()
    assert aside == [{"id": row_id, "reason": reason, "source": str(path)}]
    scored = read_all_scores(tmp_path / "out")["id"].tolist()
    assert len(scored) == 32
    assert "bad" not in scored
    assert {"a", "b"} <= set(scored)


@pytest.mark.parametrize("kind", ["fixed_size_list", "float16", "float64 that overflows float32"])
def test_rows_of_other_column_types_are_quarantined_alike(
    kind: str, good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    columns = {"fixed_size_list": pa.list_(pa.float32(), 4), "float16": pa.list_(pa.float16())}
    column = columns.get(kind, pa.list_(pa.float64()))
    values: list[Any] = [[1.0] * 4, None, [0.0] * 4, [float("inf")] * 4, [3.0, 1, 2, 0]]
    if "float64" in kind:
        values[0] = [1e300, 1e300, 0, 1e-300]
    write(good, "z.parquet", embedding_table(list("abcde"), values, column))
    result = workflow(good, tmp_path / "out").run(client)
    assert result.quarantined == {"null": 1, "zero": 1, "not_finite": 1}
    assert {"a", "e"} <= set(read_all_scores(tmp_path / "out")["id"])


def test_quarantined_rows_are_counted_by_reason_over_all_files(
    good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    write(good, "x.parquet", embedding_table(["x1", "x2", "x3"], [None, [0.0] * 4, [1.0] * 4]))
    write(good, "y.parquet", embedding_table(["y1", "y2"], [None, [2.0] * 4]))
    result = workflow(good, tmp_path / "out", files_per_partition=1).run(client)
    assert result.quarantined == {"null": 2, "zero": 1}
    aside = read_folder(tmp_path / "out" / "_quarantine")
    assert aside["id"].tolist() == ["x1", "x2", "y1"]
    assert [Path(source).name for source in aside["source"]] == ["x.parquet", "x.parquet", "y.parquet"]
    assert json.loads((tmp_path / "out" / "_manifest.json").read_text())["steps"]["kmeans"]["facts"]["rows"] == 35
    assert "quarantined" in repr(result)


def test_what_is_passed_over_is_told_before_and_after_and_kept_on_record(
    good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    (good / "part-0.parquet").rename(good / "part-0.PARQUET")
    (good / "x.f4v").write_text("no data")
    (good / "_SUCCESS").write_text("")
    workflow(good, good / "earlier").run(client)
    n = len([name for name in files_below(good / "earlier") if name.endswith(".parquet") and name[0] != "_"])
    words = f"{n} files of results of semdedup: {n} in in/earlier/; 1 files that are no Parquet: 1 .f4v"
    made = workflow(f"{good}*", tmp_path / "out", n_clusters=1)
    assert f"passed over {words}" in made.describe()
    result = made.run(client)
    assert result.total == 30
    for told in (result, semdedup.load(str(tmp_path / "out")), made.run(client)):
        assert ("passed over", words) in told.rows()
    facts = json.loads((tmp_path / "out" / "_manifest.json").read_text())["steps"]["kmeans"]["facts"]
    assert facts["passed_over"] == result.metadata["passed_over"]
    pairs = semdedup.find_pairs(str(good), 0.05, str(tmp_path / "pairs"), client=client, verbose=False)
    leaks = semdedup.find_leaks(str(good), str(good / "*"), str(tmp_path / "leaks"), client=client, verbose=False)
    for found in (pairs, leaks):
        assert "1 files that are no Parquet: 1 .f4v" in dict(found.rows())["passed over"]
    assert "1 files of A that are no Parquet: 1 .f4v" in dict(leaks.rows())["passed over"]


def test_keys_of_folders_are_carried_and_ranked_by_and_belong_to_the_input(
    client: distributed.Client, tmp_path: Path
) -> None:
    rows = np.random.default_rng(1).normal(size=(4, 3))
    for year in (2019, 2021, 2020):
        write_embeddings(tmp_path / "in" / f"_year={year}" / "town=a%20b", [f"{year}-{i}" for i in range(4)], rows)
    ranking = RankingStrategy.metadata_based(["_year"], ascending=False)
    made = workflow(tmp_path / "in", tmp_path / "out", metadata_fields=["town"], ranking_strategy=ranking)
    assert made.run(client).duplicates == 8
    clusters = read_folder(tmp_path / "out" / "kmeans_results")
    assert clusters["_year"].tolist() == [int(row_id[:4]) for row_id in clusters["id"]]
    assert set(clusters["town"]) == {"a b"}
    assert {row_id[:4] for row_id in read_folder(tmp_path / "out" / "duplicates")["id"]} == {"2019", "2020"}
    assert all(read_all_scores(tmp_path / "out")["max_id"].str.startswith("2021"))
    made.run(NOWHERE)
    pairs = semdedup.find_pairs(
        str(tmp_path / "in"), 0.01, str(tmp_path / "pairs"), ranking_strategy=ranking, client=client, verbose=False
    )
    assert pairs.pairs == 12
    assert {row_id[:4] for row_id in pq.read_table(tmp_path / "pairs" / "pairs")["id_a"].to_pylist()} == {
        "2020",
        "2021",
    }
    (tmp_path / "in" / "_year=2021").rename(tmp_path / "in" / "_year=2018")
    with pytest.raises(OutputConflictError, match="input: 3 files"):
        made.run(NOWHERE)
    with pytest.raises(ParameterError, match=r"names _year, which no file has.*: give the folder that holds _year=…"):
        workflow(tmp_path / "in" / "_year=2019", tmp_path / "other", metadata_fields=["_year"]).run(NOWHERE)
    with pytest.raises(ParameterError, match=r"names yeer, which no file has; columns: _year, embedding, id, town"):
        workflow(tmp_path / "in", tmp_path / "other", metadata_fields=["yeer"]).run(NOWHERE)


def test_the_length_that_is_expected_may_be_given(client: distributed.Client, tmp_path: Path) -> None:
    values = [[1.0, 2.0]] * 3 + [[1.0, 2.0, 3.0]]
    write(tmp_path / "in", "a.parquet", embedding_table(list("abcd"), values))
    result = workflow(tmp_path / "in", tmp_path / "out", embedding_dim=3).run(client)
    assert result.quarantined == {"wrong_length": 3}
    assert read_all_scores(tmp_path / "out")["id"].tolist() == ["d"]


def test_empty_embeddings_do_not_count_for_the_commonest_length(client: distributed.Client, tmp_path: Path) -> None:
    write(tmp_path / "in", "a.parquet", embedding_table(list("abcd"), [[], [], [1.0, 2.0], []]))
    assert workflow(tmp_path / "in", tmp_path / "out").run(client).quarantined == {"wrong_length": 3}


@pytest.mark.parametrize("given", [None, 4], ids=["commonest length", "embedding_dim"])
def test_a_file_in_which_no_row_has_the_expected_length_is_refused(
    given: int | None, good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    write(good, "z.parquet", embedding_table(["a", "b"], [[1.0] * 7, [2.0] * 7]))
    with pytest.raises(BadFileError, match=r"z\.parquet.*length 7.*length 4"):
        workflow(good, tmp_path / "out", embedding_dim=given).run(client)
    assert_nothing_left(tmp_path / "out")


@pytest.mark.parametrize("embedding", [None, [], [0.0, 0.0], [float("nan")] * 2], ids=["null", "empty", "zero", "nan"])
def test_an_input_without_any_row_that_can_be_compared_is_refused(
    embedding: Any, client: distributed.Client, tmp_path: Path
) -> None:
    write(tmp_path / "in", "a.parquet", embedding_table(["a", "b", "c"], [embedding] * 3))
    with pytest.raises(InputError, match=r"no embeddings|every row was set aside.*: 3 (zero|not_finite)"):
        workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert_nothing_left(tmp_path / "out")


# Files that cannot be read

BAD_FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no Parquet at all": (lambda path: path.write_bytes(b"this is no parquet file"), r"bad\.parquet"),
    "zero bytes": (lambda path: path.write_bytes(b""), r"bad\.parquet"),
    "cut off": (lambda path: path.write_bytes((path.parent / "part-0.parquet").read_bytes()[:-100]), r"bad\.parquet"),
    "no embedding column": (
        lambda path: pq.write_table(pa.table({"id": ["a"], "vector": [[1.0]], "caption": ["x"]}), path),
        r"bad\.parquet.*no column 'embedding'.*id, vector, caption",
    ),
    "no id column": (
        lambda path: pq.write_table(pa.table({"clip_id": ["a"], "embedding": [[1.0]]}), path),
        r"bad\.parquet.*no column 'id'.*clip_id, embedding",
    ),
    "embedding is text": (
        lambda path: pq.write_table(pa.table({"id": ["a"], "embedding": ["[1.0]"]}), path),
        r"'embedding' of .*bad\.parquet is (large_)?string.*id, embedding",
    ),
    "embedding is a list of integers": (
        lambda path: pq.write_table(pa.table({"id": ["a"], "embedding": [[1, 2, 3, 4]]}), path),
        r"'embedding' of .*bad\.parquet is list.*int64",
    ),
    "id is a float": (
        lambda path: pq.write_table(pa.table({"id": [1.5], "embedding": [[1.0] * 4]}), path),
        r"'id' of .*bad\.parquet is double.*id, embedding",
    ),
    "ids are numbers here and text elsewhere": (
        lambda path: pq.write_table(pa.table({"id": [1], "embedding": [[1.0] * 4]}), path),
        r"int64 in .*bad\.parquet but text in .*part-\d\.parquet",
    ),
    "pages are damaged": (
        lambda path: (write(path.parent, path.name, fresh_rows(), compression="none"), damage_pages(path)),
        r"bad\.parquet",
    ),
}


def fresh_rows() -> pa.Table:
    return embedding_table([f"fresh{i}" for i in range(10)], np.arange(1.0, 41).reshape(10, 4))


@pytest.mark.parametrize(("make", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_file_that_cannot_be_used_is_named_with_what_it_has(
    make: Callable[[Path], Any], words: str, good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    make(good / "bad.parquet")
    with pytest.raises(BadFileError, match=words):
        workflow(good, tmp_path / "out").run(client)
    assert_nothing_left(tmp_path / "out")


SKIPPABLE = [name for name in BAD_FILES if name != "ids are numbers here and text elsewhere"]


@pytest.mark.parametrize("name", SKIPPABLE)
def test_skip_bad_files_counts_and_lists_them(
    name: str, good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    make, words = BAD_FILES[name]
    make(good / "bad.parquet")
    result = workflow(good, tmp_path / "out", skip_bad_files=True).run(client)
    assert (result.total, len(result.skipped_files)) == (30, 1)
    assert "bad.parquet" in result.skipped_files[0]
    assert re.search(words, result.skipped_files[0])
    assert len(read_all_scores(tmp_path / "out")) == 30
    assert "files skipped" in repr(result)


def test_skipping_bad_files_gives_the_answer_of_the_good_ones_alone(
    good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(good, tmp_path / "alone").run(client)
    (good / "bad.parquet").write_bytes(b"")
    write(good, "damaged.parquet", fresh_rows(), compression="none")
    damage_pages(good / "damaged.parquet")
    result = workflow(good, tmp_path / "out", skip_bad_files=True).run(client)
    assert len(result.skipped_files) == 2
    assert read_all_scores(tmp_path / "out").equals(read_all_scores(tmp_path / "alone"))


def test_skipping_every_file_is_refused(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.parquet").write_bytes(b"no")
    with pytest.raises(InputError, match=r"a\.parquet"):
        workflow(tmp_path / "in", tmp_path / "out", skip_bad_files=True).run(client)
    assert_nothing_left(tmp_path / "out")


def test_a_line_that_is_no_json_is_refused_with_its_file(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"id": "a", "embedding": [1, 2]}\n{"id": "b", "embe\n')
    with pytest.raises(BadFileError, match=r"a\.jsonl.*JSON"):
        workflow(tmp_path / "in", tmp_path / "out", input_filetype="jsonl").run(client)
    assert_nothing_left(tmp_path / "out")


def test_a_bad_json_file_is_skipped_when_asked_to(client: distributed.Client, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jsonl").write_text('{"id": "a", "embedding": [1, 2]}\n{"id": "b", "embe\n')
    (tmp_path / "in" / "b.jsonl").write_text('{"id": "c", "embedding": [1, 2]}\n{"id": "d", "embedding": null}\n')
    result = workflow(tmp_path / "in", tmp_path / "out", input_filetype="jsonl", skip_bad_files=True).run(client)
    assert (result.total, result.quarantined, len(result.skipped_files)) == (2, {"null": 1}, 1)
    assert "a.jsonl" in result.skipped_files[0]
    assert pq.read_table(tmp_path / "out" / "_quarantine")["source"].to_pylist() == [str(tmp_path / "in" / "b.jsonl")]


# Paths and files


def refused(error: type[SemdedupError], words: str, source: Any, output: Path, **parameters: Any) -> None:
    """Assert that a run is refused before a cluster is asked for, and leaves nothing at all."""
    with pytest.raises(error, match=words):
        workflow(source, output, **parameters).run(NOWHERE)
    assert not output.exists()


def test_a_path_that_is_not_there_is_refused(tmp_path: Path) -> None:
    refused(InputError, "no such path: .*absent", tmp_path / "absent", tmp_path / "out")
    refused(InputError, r"no such path: .*\*\.parquet", tmp_path / "*.parquet", tmp_path / "out")


def test_a_path_that_is_not_there_suggests_the_folder_of_parquet_beside_it(tmp_path: Path) -> None:
    write_embeddings(tmp_path / "iv2_embd_parquet", ["a"], np.ones((1, 2)))
    refused(InputError, "did you mean .*iv2_embd_parquet", tmp_path / "iv2_embd", tmp_path / "out")


def test_a_folder_without_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    refused(InputError, "no parquet files in .*in: it is empty", tmp_path / "in", tmp_path / "out")
    (tmp_path / "in" / "a.csv").write_text("id")
    refused(
        InputError, r"no parquet files in .*1 files that are no Parquet: 1 \.csv", tmp_path / "in", tmp_path / "out"
    )
    refused(InputError, "no jsonl files", tmp_path / "in", tmp_path / "out", input_filetype="jsonl")
    refused(ParameterError, "input_path is an empty list", [], tmp_path / "out")


def test_an_input_without_rows_is_refused(tmp_path: Path) -> None:
    for i in range(2):
        write(tmp_path / "in", f"{i}.parquet", embedding_table([], []))
    refused(InputError, "no rows in .*/in", tmp_path / "in", tmp_path / "out")


def test_many_files_without_rows_are_refused(client: distributed.Client, tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / "in", f"{i}.parquet", embedding_table([], []))
    with pytest.raises(InputError, match=r"no rows in .*/in"):
        workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert_nothing_left(tmp_path / "out")


def test_empty_files_among_others_are_survived(good: Path, client: distributed.Client, tmp_path: Path) -> None:
    write(good, "empty.parquet", embedding_table([], []))
    write(good, "another.parquet", pa.table({"nothing": pa.array([], pa.int8())}))
    result = workflow(good, tmp_path / "out").run(client)
    assert (result.total, result.skipped_files) == (30, ())


@pytest.mark.parametrize("suffix", [".pickle", ".pkl"])
def test_pickles_are_refused_with_the_name_of_the_parquet_folder(suffix: str, tmp_path: Path) -> None:
    (tmp_path / "iv2_embd").mkdir()
    (tmp_path / "iv2_embd" / f"a{suffix}").write_bytes(b"\x80\x04.")
    for source in (tmp_path / "iv2_embd", tmp_path / "iv2_embd" / f"a{suffix}"):
        refused(InputError, "pickles, which are never read.*iv2_embd_parquet", source, tmp_path / "out")


def test_an_output_that_is_the_input_folder_is_refused(good: Path) -> None:
    before = files_below(good)
    with pytest.raises(InputError, match="take another output"):
        workflow(good, good).run(NOWHERE)
    assert files_below(good) == before


def test_results_that_are_not_on_record_are_not_mixed_with_ours(
    good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    foreign = {
        "kmeans_results/centroid=7/theirs.parquet",
        "pairwise_results/cluster_99.parquet",
        "duplicates/theirs.parquet",
    }
    for name in sorted(foreign):
        out = tmp_path / name.split("/")[0]
        write((out / name).parent, Path(name).name, fresh_rows())
        for clear in (False, True):
            with pytest.raises(OutputConflictError, match=Path(name).name):
                workflow(good, out, clear_output=clear).run(NOWHERE)
        assert files_below(out) == [name]


@pytest.mark.parametrize("kind", ["text", "int"])
def test_the_same_id_twice_is_refused_with_examples(kind: str, client: distributed.Client, tmp_path: Path) -> None:
    ids: list[Any] = [i if kind == "int" else f"clip/{i}" for i in range(20)]
    ids[15], ids[18] = ids[2], ids[4]
    rows = np.random.default_rng(0).normal(size=(20, 3))
    write_embeddings(tmp_path / "in", ids, rows, 2)
    with pytest.raises(DuplicateIdError, match="2 ids") as caught:
        workflow(tmp_path / "in", tmp_path / "out").run(client)
    for twice in (ids[2], ids[4]):
        assert f"{twice!r}: 2 times" in str(caught.value)
    assert "part-0.parquet and " in str(caught.value)
    assert_nothing_left(tmp_path / "out")


def test_a_file_that_is_there_under_two_names_is_refused(
    good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    (good / "copy.parquet").write_bytes((good / "part-1.parquet").read_bytes())
    with pytest.raises(DuplicateIdError, match=r"10 ids.*\n.*copy\.parquet and .*part-1\.parquet"):
        workflow(good, tmp_path / "out").run(client)
    assert_nothing_left(tmp_path / "out")
    (good / "copy.parquet").unlink()
    assert workflow(good, tmp_path / "out").run(client).total == 30  # the corrected command has nothing in its way


def test_a_refused_run_leaves_the_folder_of_the_user_where_it_is(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", ["a", "a"], np.eye(2))
    (tmp_path / "out").mkdir()
    with pytest.raises(DuplicateIdError):
        workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert not list((tmp_path / "out").iterdir())


def test_rows_without_id_are_no_duplicates_of_each_other(client: distributed.Client, tmp_path: Path) -> None:
    write(tmp_path / "in", "a.parquet", embedding_table([None, "a", None], np.eye(3)))
    result = workflow(tmp_path / "in", tmp_path / "out").run(client)
    assert result.quarantined == {"null_id": 2}


def test_the_same_file_listed_twice_is_read_once(good: Path, client: distributed.Client, tmp_path: Path) -> None:
    result = workflow([good, good / "part-0.parquet", good / "part-0.parquet"], tmp_path / "out").run(client)
    assert result.total == 30


@pytest.mark.parametrize(
    ("first", "second"),
    [(pa.array(["1"]), pa.array([{"a": 1}])), (pa.array([[1.0]]), pa.array(["x"]))],
    ids=["text and struct", "list and text"],
)
def test_metadata_of_types_that_do_not_go_together_names_both_files(
    first: pa.Array, second: pa.Array, tmp_path: Path
) -> None:
    write(tmp_path / "in", "1.parquet", embedding_table(["a"], [[1.0]], extra=first))
    write(tmp_path / "in", "2.parquet", embedding_table(["b"], [[1.0]], extra=second))
    refused(
        BadFileError,
        r"'extra' is .* in .*1\.parquet but .* in .*2\.parquet",
        tmp_path / "in",
        tmp_path / "out",
        metadata_fields=["extra"],
    )


def test_an_output_that_cannot_be_written_is_a_storage_error(
    good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(SemdedupError, match="file/out") as caught:
        workflow(good, tmp_path / "file" / "out").run(client)
    assert isinstance(caught.value, StorageError)


# Parameters

BAD_PARAMETERS: dict[str, tuple[dict[str, Any], str]] = {
    "eps of 1": ({"eps": 1}, r"eps.*\[0, 1\).*got 1"),
    "eps below 0": ({"eps": -0.1}, "eps.*-0.1"),
    "eps is nan": ({"eps": float("nan")}, "eps.*nan"),
    "eps is text": ({"eps": "0.1"}, "eps.*'0.1'"),
    "which_to_keep": ({"which_to_keep": "bets"}, "which_to_keep.*best, hard, easy, soft, random.*'bets'"),
    "no clusters": ({"n_clusters": 0}, "n_clusters.*at least 1.*0"),
    "half a cluster": ({"n_clusters": 2.5}, "n_clusters.*2.5"),
    "n_clusters is a word": ({"n_clusters": "many"}, "n_clusters.*'auto'.*'many'"),
    "distance_metric": ({"distance_metric": "dot"}, "distance_metric.*cosine, l2.*'dot'"),
    "sim_metric": ({"sim_metric": "dot"}, "cosine, l2.*'dot'"),
    "two metrics": ({"distance_metric": "l2", "sim_metric": "cosine"}, "distance_metric.*'l2'.*sim_metric.*'cosine'"),
    "pairwise_batch_size": ({"pairwise_batch_size": 0}, "pairwise_batch_size.*at least 1.*0"),
    "max_iter": ({"max_iter": 0}, "max_iter.*at least 1.*0"),
    "tol": ({"tol": -1.0}, "tol.*-1"),
    "n_init": ({"n_init": 0}, "n_init"),
    "fit_data_fraction": ({"fit_data_fraction": 1.5}, "fit_data_fraction.*1.5"),
    "init": ({"init": "best"}, "init.*k-means.*'best'"),
    "oversampling_factor": ({"oversampling_factor": 0}, "oversampling_factor.*0"),
    "embedding_dim": ({"embedding_dim": 0}, "embedding_dim.*0"),
    "input_filetype": ({"input_filetype": "csv"}, "input_filetype.*parquet, jsonl.*'csv'"),
    "files_per_partition": ({"files_per_partition": 0}, "files_per_partition.*0"),
    "one column for two things": ({"id_field": "x", "embedding_field": "x"}, "id_field and embedding_field.*'x'"),
    "a column of ours as metadata": ({"metadata_fields": ["centroid"]}, "metadata_fields.*centroid"),
    "a metadata column that is not there": ({"metadata_fields": ["caption"]}, "metadata_fields.*caption.*id"),
    "a ranking column that is not there": (
        {"ranking_strategy": RankingStrategy.metadata_based(["height"])},
        "height.*embedding, id",
    ),
    "a ranking strategy by name": ({"ranking_strategy": "random"}, "ranking_strategy.*str"),
    "kmeans_engine": ({"kmeans_engine": "faiss"}, "kmeans_engine.*auto, cuml, lloyd.*'faiss'"),
    "credentials in a path": ({"cache_path": "s3://key:secret@bucket/x"}, "credentials.*storage_options"),
    "protocol of a path": ({"cache_path": "nosuch://bucket/x"}, "protocol.*nosuch"),
}


@pytest.mark.parametrize(("parameters", "words"), BAD_PARAMETERS.values(), ids=BAD_PARAMETERS)
def test_a_parameter_that_cannot_be_is_refused_before_a_cluster_is_asked_for(
    parameters: dict[str, Any], words: str, good: Path, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        workflow(good, tmp_path / "out", **parameters).run(NOWHERE)
    assert isinstance(caught.value, SemdedupError)
    assert isinstance(caught.value, ValueError)
    assert "key:secret" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_metadata_column_that_no_file_of_many_has_is_refused(client: distributed.Client, tmp_path: Path) -> None:
    write_embeddings(tmp_path / "in", list(range(20)), np.random.default_rng(0).normal(size=(20, 3)), 20)
    with pytest.raises(ParameterError, match=r"metadata_fields.*caption.*embedding, id"):
        workflow(tmp_path / "in", tmp_path / "out", metadata_fields=["caption"]).run(client)
    assert_nothing_left(tmp_path / "out")


@pytest.mark.parametrize(
    ("columns", "ascending"),
    [([], True), (["a", "a"], True), (["a", "b"], [True])],
    ids=["no column", "a column twice", "too few directions"],
)
def test_a_ranking_by_metadata_checks_itself(columns: list[str], ascending: Any) -> None:
    with pytest.raises(ParameterError, match=r"metadata_cols|ascending"):
        RankingStrategy.metadata_based(columns, ascending)


def test_centroids_to_start_from_must_fit_the_embeddings(
    good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    with pytest.raises(ParameterError, match=r"init.*shape"):
        workflow(good, tmp_path / "out", init=np.ones(4))
    with pytest.raises(ParameterError, match=r"length 3.*have 4"):
        workflow(good, tmp_path / "out", init=np.eye(3)).run(client)
    assert_nothing_left(tmp_path / "out")
    result = workflow(good, tmp_path / "out", init=np.eye(4)[:3], max_iter=1).run(client)
    assert result.total == 30


def test_a_client_that_is_none_is_refused_by_type(good: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match=r"client.*int"):
        workflow(good, tmp_path / "out").run(42)  # type: ignore[arg-type]
    assert not (tmp_path / "out").exists()


def test_a_ranking_column_that_the_clusters_lack_is_refused_by_the_stage_alone(
    good: Path, client: distributed.Client, tmp_path: Path
) -> None:
    workflow(good, tmp_path / "out", eps=None).run(client)
    stage = PairwiseStage(
        input_path=str(tmp_path / "out" / "kmeans_results"),
        output_path=str(tmp_path / "more"),
        ranking_strategy=RankingStrategy.metadata_based("height"),
        verbose=False,
    )
    with pytest.raises(ParameterError, match=r"height.*metadata_fields"):
        stage.run(NOWHERE)
    assert not (tmp_path / "more").exists()
