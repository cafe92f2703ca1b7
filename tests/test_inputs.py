"""The input: which files are read, in what types, and how they are cut into partitions."""

import json
import os
import subprocess
import sys
from array import array
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import BadFileError, InputError, ParameterError, StorageError
from semdedup.dedup.input.facts import Counted, FileFacts, inspect_files
from semdedup.dedup.input.files import find_files
from semdedup.dedup.input.found import told, top_of
from semdedup.dedup.input.keys import partition_keys
from semdedup.dedup.input.partitions import Slice, cut_partitions
from semdedup.dedup.input.schema import InputSchema, check_file_schema, unify_schemas
from semdedup.dedup.options import InputOptions
from semdedup.dedup.sizes import held_bytes
from semdedup.dedup.threshold.recommended import recommended_eps
from semdedup.storage import tables
from semdedup.storage.location import Location
from semdedup.storage.tables import iter_rows, open_parquet, read_table

EMBEDDINGS = pa.list_(pa.float32())


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(*paths: Path | str, filetype: str = "parquet", outputs: tuple[Path, ...] = ()) -> list[str]:
    """Names of the files found, relative to the folder of the first path."""
    files = find_files([Location.of(path) for path in paths], filetype, [Location.of(path) for path in outputs])
    return [file.url.removeprefix(str(paths[0])).lstrip("/") for file in files]


def test_a_folder_gives_its_data_files_at_any_depth_in_order(tmp_path: Path) -> None:
    touch(tmp_path, "b.parquet", "a.parquet", "x/y/z.pq", "c.txt", "d.parquet.crc", "notes.jsonl")
    assert found(tmp_path) == ["a.parquet", "b.parquet", "x/y/z.pq"]
    assert found(tmp_path, filetype="jsonl") == ["notes.jsonl"]


def test_names_that_begin_with_an_underscore_or_a_dot_are_no_data_at_any_depth(tmp_path: Path) -> None:
    touch(tmp_path, "_x.parquet", ".x.parquet", "_dir/a.parquet", "k/.hidden/b.parquet", "k/_SUCCESS", "k/a_b.parquet")
    assert found(tmp_path) == ["k/a_b.parquet"]


def test_a_folder_may_itself_begin_with_an_underscore(tmp_path: Path) -> None:
    touch(tmp_path, "_mine/.deep/a.parquet")
    assert found(tmp_path / "_mine" / ".deep") == ["a.parquet"]


STRANGE = ["with space", "a[1]", "a*b", "q?", "50%20", "x#y", "été ✓", "semi;colon", "plus+"]


@pytest.mark.parametrize("name", STRANGE)
def test_strange_names_of_folders_and_files_are_taken_as_they_are(tmp_path: Path, name: str) -> None:
    touch(tmp_path, f"{name}/{name}.parquet", "a1/other.parquet", "axb/other.parquet", "q1/other.parquet")
    assert found(tmp_path / name) == [f"{name}.parquet"]
    assert found(tmp_path, tmp_path / name / f"{name}.parquet").count(f"{name}/{name}.parquet") == 1


def test_a_single_file_may_have_any_name(tmp_path: Path) -> None:
    touch(tmp_path, "_part.snappy")
    assert found(tmp_path / "_part.snappy") == [""]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.parquet", ["a.parquet", "b.parquet"]),
        ("[b-z].parquet", ["b.parquet"]),
        ("?.parquet", ["a.parquet", "b.parquet"]),
        ("**/*.parquet", ["a.parquet", "b.parquet", "d/c.parquet"]),
        ("d*/*", ["d/c.parquet"]),
    ],
)
def test_patterns_give_the_files_that_match(tmp_path: Path, pattern: str, expected: list[str]) -> None:
    touch(tmp_path, "a.parquet", "b.parquet", "d/c.parquet", "notes.txt")
    files = find_files([Location.of(tmp_path / pattern)], "parquet")
    assert [file.url for file in files] == [str(tmp_path / name) for name in expected]


def test_a_file_given_in_several_ways_is_read_once(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet", "b.parquet")
    assert found(tmp_path, tmp_path / "a.parquet", str(tmp_path / "*.parquet")) == ["a.parquet", "b.parquet"]


def test_results_inside_the_input_folder_are_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet", "out/duplicates/part-0.parquet", "out2/b.parquet")
    assert found(tmp_path, outputs=(tmp_path / "out",)) == ["a.parquet", "out2/b.parquet"]


@pytest.mark.parametrize(
    ("there", "asked", "message"),
    [
        ((), "emb", r"no such path: .*/emb$"),
        (("emb_parquet/a.parquet",), "emb", r"no such path: .*/emb; did you mean .*/emb_parquet\?$"),
        (("emb/.gitkeep",), "emb", r"there are 1 files that mark or check others: 1 without an ending; files must end"),
        (("emb/a.csv", "emb/b.csv"), "emb", r"2 files that are no Parquet: 2 \.csv; .* pd\.read_csv\('a\.csv'"),
        (("emb/a.npy",), "emb", r"1 \.npy; .* To convert one: pq\.write_table\(.*'a\.parquet'\) with x = np\.load"),
        (
            ("emb/a.jsonl",),
            "emb",
            r"1 \.jsonl; .* For JSON Lines give input_filetype='jsonl' \(--input-filetype jsonl\)",
        ),
        (("emb/_a.parquet",), "emb", r"1 files whose names begin with a dot or an underscore: 1 \.parquet"),
        (("emb/a.bin", "emb/b", "emb/c.parquet.gz"), "emb", r"1 without an ending, 1 \.bin, 1 \.parquet\.gz"),
        (("emb/a.csv",), "emb/a.csv", r"a\.csv is no Parquet: what is read is Parquet .* JSON Lines .*read_csv"),
        (("emb/a.jsonl",), "emb/a.jsonl", r"a\.jsonl is no Parquet: .*input_filetype='jsonl'"),
        (("emb/a.csv",), "emb/*", r"no parquet files in .*/emb/\*: there are 1 files that are no Parquet: 1 \.csv"),
        (("emb/a.parquet",), "emb/*.pq", r"no such path: .*/emb/\*\.pq$"),
        (("iv2_embd/a.pickle",), "iv2_embd", r"iv2_embd holds pickles.*: .*/iv2_embd_parquet$"),
        (("iv2_embd/a.pkl",), "iv2_embd/a.pkl", r"iv2_embd holds pickles.*: .*/iv2_embd_parquet$"),
    ],
    ids=lambda value: value if isinstance(value, str) and "/" not in value and value != "emb" else "",
)
def test_what_cannot_be_input_is_refused_with_what_is_there(
    tmp_path: Path, there: tuple[str, ...], asked: str, message: str
) -> None:
    touch(tmp_path, *there)
    with pytest.raises(InputError, match=message):
        find_files([Location.of(tmp_path / asked)], "parquet")


def test_a_folder_without_anything_is_told_as_empty(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=rf"no parquet files in {tmp_path}: it is empty; files must end in \.parquet or"
    ):
        find_files([Location.of(tmp_path)], "parquet")


PARQUET = b"PAR1" + bytes(8) + b"PAR1"


def put(folder: Path, *names: str, content: bytes = PARQUET) -> None:
    """Write files that begin and end as Parquet does."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def passed_over(*paths: Path | str, filetype: str = "parquet") -> str:
    """What was passed over, in words."""
    files = find_files([Location.of(path) for path in paths], filetype)
    return "".join(told(files.passed_over)).removeprefix("passed over ")


SAME = [
    "x",
    "x/",
    "x/*",
    "x/**",
    "x/**/*",
    ["x/*"],
    ["x", "x/a/*"],
    "?",
    "x/./",
    "x/../x",
    ["x/*/", "x/*.p*", "x/*.P*"],
]


@pytest.mark.parametrize("given", SAME, ids=str)
def test_folder_pattern_and_list_give_the_same_files(given: str | list[str], tmp_path: Path) -> None:
    put(tmp_path / "x", "a/e/1.parquet", "_year=2020/city=b/2.PARQUET", "b.pq", "c.Parq", "d.gz.parquet", "a/f.parquet")
    touch(
        tmp_path / "x", "_SUCCESS", ".a.parquet.crc", "a/_metadata", "_common_metadata", "a/.b.parquet", "_c/d.parquet"
    )
    paths = [f"{tmp_path}/{path}" for path in ([given] if isinstance(given, str) else given)]
    files = find_files([Location.of(path) for path in paths], "parquet")
    names = ["_year=2020/city=b/2.PARQUET", "a/e/1.parquet", "a/f.parquet", "b.pq", "c.Parq", "d.gz.parquet"]
    assert [file.url for file in files] == [f"{tmp_path}/x/{name}" for name in names]


def test_what_looks_like_data_and_is_not_read_is_counted_by_reason_and_ending(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", "part-r-00000", "b.parquet.gzip", "c.snap", "d.e.0")
    touch(tmp_path, "v.f4v", "w.F4V", "n.npy", "t.txt", "j.json.gz", "k.jsonl", "noend", "_SUCCESS", "a.parquet.crc")
    touch(tmp_path, "k/.h.parquet", "_old/x.pq", "_tmp", ".DS_Store")
    put(tmp_path, "half", content=b"PAR1" + bytes(20))
    assert found(tmp_path) == ["a.parquet", "b.parquet.gzip", "c.snap", "d.e.0", "part-r-00000"]
    assert passed_over(tmp_path) == (
        "8 files that are no Parquet: 2 without an ending, 2 .f4v, 1 .json.gz, 1 .jsonl, 1 .npy, 1 .txt; "
        "2 files whose names begin with a dot or an underscore: 1 .parquet, 1 .pq"
    )
    assert passed_over(tmp_path / "k.jsonl", filetype="jsonl") == ""
    assert passed_over(f"{tmp_path}/*l", filetype="jsonl") == ""


def test_what_a_pattern_names_outright_is_taken(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet", "_b.parquet", ".c/d.parquet", "e.json", "_f/g.parquet", "h/_i.parquet")
    for pattern, names in {
        "_*": ["_b.parquet", "_f/g.parquet"],
        ".c/*": [".c/d.parquet"],
        "*/_i*": ["h/_i.parquet"],
        "*.json": ["e.json"],
        "_?/*": ["_f/g.parquet"],
    }.items():
        files = find_files([Location.of(f"{tmp_path}/{pattern}")], "parquet")
        assert [file.url for file in files] == [f"{tmp_path}/{name}" for name in names], pattern


def test_more_files_than_can_be_looked_into_are_told_and_none_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.dedup.input.files.MOST_LOOKED_INTO", 2)
    put(tmp_path, "a.parquet", "p0", "p1", "p2")
    assert found(tmp_path) == ["a.parquet"]
    assert "3 files whose endings tell nothing, and which are more than" in passed_over(tmp_path)
    (tmp_path / "p2").unlink()
    assert found(tmp_path) == ["a.parquet", "p0", "p1"]


def test_links_are_followed_and_what_they_lead_to_counts_once(tmp_path: Path) -> None:
    put(tmp_path, "in/a.parquet", "in/d/b.parquet", "other/c.parquet", "other/deep/e.parquet", "beside.parquet")
    for name, target in {
        "in/z": tmp_path / "other",
        "in/again": tmp_path / "other",
        "in/d/up": tmp_path / "in",
        "in/root": tmp_path,
        "in/1.parquet": tmp_path / "in" / "a.parquet",
        "in/2.parquet": tmp_path / "beside.parquet",
        "in/itself": "itself",
        "in/nowhere": "absent",
        "other/back": tmp_path / "in" / "d",
        "in_link": tmp_path / "in",
    }.items():
        (tmp_path / name).symlink_to(target)
    names = ["2.parquet", "a.parquet", "again/c.parquet", "again/deep/e.parquet", "d/b.parquet"]
    assert found(tmp_path / "in") == names
    assert "5 files that stand there twice, by links or other names: 4 without an ending, 1 .parquet" in passed_over(
        tmp_path / "in"
    )
    for again in ("in_link", "in/a.parquet", "in_link/a.parquet", "in/z", "in/d/../d", "in*", "in/*/*.parquet"):
        assert found(tmp_path / "in", f"{tmp_path}/{again}") == names, again
    assert len(find_files([Location.of(f"{tmp_path}/in/*")], "parquet")) == len(names)
    assert len(find_files([Location.of(f"{tmp_path}/in_li*")], "parquet")) == len(names)


def test_a_file_that_is_kept_behind_a_hidden_name_is_read_by_its_other_one(tmp_path: Path) -> None:
    put(tmp_path, ".store/1/a.parquet", "_k/b.parquet", ".store/2/e.parquet", ".store/3/f.parquet")
    for name, target in {
        "v": ".store/1",
        "c.parquet": "_k/b.parquet",
        ".d.parquet": "_k/b.parquet",
        "..data": "v",
    }.items():
        (tmp_path / name).symlink_to(target)
    (tmp_path / "3").symlink_to(tmp_path / ".store" / "3" / "f.parquet")
    assert found(tmp_path) == ["3", "c.parquet", "v/a.parquet"]
    assert passed_over(tmp_path) == "1 files whose names begin with a dot or an underscore: 1 .parquet"


def test_pipes_are_told_and_not_opened(tmp_path: Path) -> None:
    put(tmp_path, "a.parquet")
    os.mkfifo(tmp_path / "b.parquet")
    os.mkfifo(tmp_path / "c")
    assert found(tmp_path) == ["a.parquet"]
    assert passed_over(tmp_path).endswith("or may not be read: 1 without an ending, 1 .parquet")
    with pytest.raises(InputError, match=r"b\.parquet is no regular file"):
        find_files([Location.of(tmp_path / "b.parquet")], "parquet")


def record(root: Path, step: str, *names: str) -> None:
    """Write files, and a record that names them."""
    put(root, *names)
    files = {name: [len(PARQUET), "0" * 32] for name in names}
    entry = {"status": "committed", "parameters": {}, "input": {}, "facts": {}, "files": files}
    put(root, "_manifest.json", content=json.dumps({"format": 2, "steps": {step: entry}}).encode())


OURS = ("kmeans_results/centroid=0/part-0.parquet", "pairwise_results/cluster_0.parquet", "duplicates/part-0.parquet")


def test_results_of_earlier_runs_are_input_only_where_they_are_given(tmp_path: Path) -> None:
    put(tmp_path, "in/a.parquet", "in/res/mine.parquet", "in/res/_quarantine/x.parquet")
    record(tmp_path / "in" / "res", "kmeans", *OURS)
    record(tmp_path / "in" / "clips", "split", "x_embd_parquet/part-0.parquet", "other/t.parquet")
    put(tmp_path, "in/foreign/_manifest.json", content=b"{}")
    put(tmp_path, "in/foreign/b.parquet")
    names = ["a.parquet", "clips/x_embd_parquet/part-0.parquet", "foreign/b.parquet", "res/mine.parquet"]
    assert found(tmp_path / "in") == names
    assert passed_over(tmp_path / "in") == "4 files of results of semdedup: 3 in res/, 1 in clips/"
    for pattern in ("in/**/*.parquet", "in/*", "i*"):
        files = find_files([Location.of(f"{tmp_path}/{pattern}")], "parquet")
        assert [file.url for file in files] == [f"{tmp_path}/in/{name}" for name in names], pattern
    given = {"in/res": 4, "in/*/kmeans_results": 1, "in/*/*/centroid=0": 1, "in/res/*": 4, "in/clips": 2}
    for path, n_files in given.items():
        assert len(find_files([Location.of(f"{tmp_path}/{path}")], "parquet")) == n_files, path
    assert passed_over(tmp_path / "in", tmp_path / "in" / "res") == "1 files of results of semdedup: 1 in clips/"


def test_tracks_beside_embeddings_are_no_input_unless_they_are_named(tmp_path: Path) -> None:
    embeddings, tracks = "x_embd_parquet/part-0.parquet", "fingerprints/part-00000.parquet"
    put(tmp_path, "foreign/fingerprints/a.parquet")
    record(tmp_path / "out" / "clips", "split", embeddings, tracks)
    assert found(tmp_path / "out" / "clips") == [embeddings]
    assert passed_over(tmp_path / "out" / "clips") == "1 files of results of semdedup: 1 in fingerprints/"
    for pattern in ("out", "out/clips/*", "out/clips/*/*.parquet", "out/**/*.parquet", "o*"):
        (file,) = find_files([Location.of(f"{tmp_path}/{pattern}")], "parquet")
        assert file.url.endswith(embeddings), pattern
    for path in ("out/clips/fingerprints", "out/*/fingerprints", "foreign"):
        assert len(find_files([Location.of(f"{tmp_path}/{path}")], "parquet")) == 1, path
    record(tmp_path / "told", "split", embeddings, "qwen_caption_parquet/part-00000.parquet")
    assert found(tmp_path / "told") == [embeddings]
    assert passed_over(tmp_path / "told") == "1 files of results of semdedup: 1 in qwen_caption_parquet/"
    (tmp_path / "out" / "clips" / tracks).unlink()
    assert len(find_files([Location.of(tmp_path / "out" / "clips")], "parquet", recorded=True)) == 1


def test_an_output_below_the_input_is_no_input_by_whatever_name_it_is_reached(tmp_path: Path) -> None:
    put(tmp_path, "in/a.parquet", "out/duplicates/b.parquet")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "out")
    (tmp_path / "out_link").symlink_to(tmp_path / "out")
    assert found(tmp_path / "in", outputs=(tmp_path / "out_link",)) == ["a.parquet"]


def test_keys_are_those_of_the_folders_around_a_file() -> None:
    url = "s3://bucket/year=2020/x/city=S%C3%A3o%20Paulo/n=__HIVE_DEFAULT_PARTITION__/a=b.parquet"
    assert partition_keys(url, "s3://bucket/") == {"year": "2020", "city": "São Paulo", "n": None}
    assert partition_keys("/a/=b/c=/k=1/k=2/x", "/") == {"c": "", "k": "2"}


@pytest.mark.parametrize(
    ("given", "keys"),
    [
        (["year=1"], {"k": "2"}),
        (["year=1/k=*"], {"k": "2"}),
        (["year=1/k=*/a.parquet", "year=1/k=3"], {"k": "2"}),
        (["year=1/k=2", "year=1/k=3"], {"k": "2"}),
        (["year=1/k=2"], {}),
        (["year=1/k=2/a.parquet"], {}),
        ([""], {"year": "1", "k": "2"}),
    ],
)
def test_folders_above_what_is_given_are_no_keys(tmp_path: Path, given: list[str], keys: dict[str, str]) -> None:
    put(tmp_path / "run=7", "year=1/k=2/a.parquet", "year=1/k=3/b.parquet")
    files = find_files([Location.of(f"{tmp_path}/run=7/{path}") for path in given], "parquet")
    assert partition_keys(files[0].url, top_of(files)) == keys


@pytest.mark.parametrize(
    ("values", "together", "read"),
    [
        (["2020", "-7", "007"], pa.int64(), [2020, -7, 7]),
        (["2020", "x", "007"], pa.string(), ["2020", "x", "007"]),
        (["1", "__HIVE_DEFAULT_PARTITION__"], pa.int64(), [1, None]),
        (["9223372036854775808", "1"], pa.string(), ["9223372036854775808", "1"]),
        (["1.5", ""], pa.string(), ["1.5", ""]),
        (["__HIVE_DEFAULT_PARTITION__"], pa.null(), [None]),
    ],
    ids=str,
)
def test_keys_are_whole_numbers_where_all_of_them_are(
    values: list[str], together: pa.DataType, read: list[Any], tmp_path: Path
) -> None:
    files = [f"{tmp_path}/k={value}/a.parquet" for value in values]
    pq.write_table(table_of(2), tmp_path / "a.parquet")
    facts = [facts_of(table_of(2).schema, url) for url in files]
    schema = unify_schemas(facts, InputOptions(metadata_fields=("k",)), f"{tmp_path}/")
    assert schema.metadata.field("k").type == together
    for url, value in zip(files, read, strict=True):
        (table,) = schema.read(Location.of(tmp_path / "a.parquet"), Slice(url, url, 0, 2), {})
        assert table.column("k").to_pylist() == [value] * 2
        assert table.schema.field("k").type == together


def test_a_column_of_a_file_wins_over_a_key_of_the_same_name(tmp_path: Path) -> None:
    for name, others in {"k=1/a": {}, "k=x/b": {"k": pa.array([7], pa.int32())}}.items():
        (tmp_path / name).parent.mkdir()
        pq.write_table(table_of(1, **others), tmp_path / f"{name}.parquet")
    files = [tmp_path / "k=1" / "a.parquet", tmp_path / "k=x" / "b.parquet"]
    facts = [facts_of(pq.read_schema(file), str(file)) for file in files]
    schema = unify_schemas(facts, InputOptions(metadata_fields=("k",)), f"{tmp_path}/")
    slices = [Slice(str(file), str(file), 0, 1) for file in files]
    read = [next(iter(schema.read(Location.of(piece.url), piece, {})))["k"].to_pylist() for piece in slices]
    assert read == [[1], [7]]
    with pytest.raises(BadFileError, match=r"'k' is string in /d\.parquet but int64 in /k=2/c\.parquet"):
        unify_schemas(
            [facts_of(table_of(1).schema, "/k=2/c.parquet"), facts_of(table_of(1, k=["y"]).schema, "/d.parquet")],
            InputOptions(metadata_fields=("k",)),
            "/",
        )


def test_an_input_that_is_all_output_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "out/a.parquet")
    with pytest.raises(InputError, match="outside of the output folder"):
        find_files([Location.of(tmp_path)], "parquet", [Location.of(tmp_path / "out")])


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"input_filetype": "csv"}, "'csv'"),
        ({"embedding_dim": 0}, "embedding_dim"),
        ({"files_per_partition": 0}, "files_per_partition"),
        ({"id_field": "x", "embedding_field": "x"}, "'x'"),
        ({"metadata_fields": ("height", "centroid")}, "centroid"),
        ({"metadata_fields": ("l2_dist_to_cent",)}, "l2_dist_to_cent"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, dict) else "",
)
def test_wrong_options_are_named(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        InputOptions(**options)


def facts_of(schema: pa.Schema, source: str) -> FileFacts:
    return FileFacts(source, source, 1, 1, schema.serialize().to_pybytes())


def unified(*metadata: dict[str, pa.DataType], ids: tuple[pa.DataType, ...] = (), fields: str = "m") -> InputSchema:
    files = []
    for i, types in enumerate(metadata):
        kind = ids[i] if ids else pa.string()
        schema = pa.schema([("id", kind), ("embedding", EMBEDDINGS), *types.items()])
        files.append(facts_of(schema, f"{i}.parquet"))
    return unify_schemas(files, InputOptions(metadata_fields=tuple(fields)))


@pytest.mark.parametrize(
    ("types", "together"),
    [
        ([pa.int32(), pa.int64()], pa.int64()),
        ([pa.int32(), pa.float64()], pa.float64()),
        ([pa.null(), pa.string()], pa.string()),
        ([pa.string(), pa.large_string()], pa.large_string()),
        ([pa.list_(pa.int8()), pa.list_(pa.int16())], pa.list_(pa.int16())),
    ],
    ids=str,
)
def test_metadata_types_are_promoted_to_one_that_holds_all(types: list[pa.DataType], together: pa.DataType) -> None:
    for order in (types, types[::-1]):
        assert unified(*({"m": kind} for kind in order)).metadata.field("m").type == together


def test_metadata_that_a_file_lacks_is_null_there() -> None:
    schema = unified({"a": pa.int8()}, {}, {"b": pa.string()}, fields="ab")
    assert schema.metadata == pa.schema([("a", pa.int8()), ("b", pa.string())])


def test_metadata_types_that_do_not_go_together_name_both_files() -> None:
    with pytest.raises(BadFileError, match=r"'m' is string in 0\.parquet but int64 in 2\.parquet"):
        unified({"m": pa.string()}, {}, {"m": pa.int64()})


def test_metadata_that_no_file_has_is_refused_with_the_columns_there_are() -> None:
    with pytest.raises(ParameterError, match="names b, which no file has; columns: a, embedding, id"):
        unified({"a": pa.int8()}, {}, fields="ab")


@pytest.mark.parametrize(
    ("ids", "together"),
    [
        ((pa.int8(), pa.uint32()), pa.int64()),
        ((pa.uint64(), pa.uint64()), pa.uint64()),
        ((pa.string(), pa.large_string()), pa.string()),
        ((pa.dictionary(pa.int8(), pa.string()), pa.null()), pa.string()),
        ((pa.null(), pa.int16()), pa.int64()),
    ],
    ids=str,
)
def test_ids_get_one_type(ids: tuple[pa.DataType, ...], together: pa.DataType) -> None:
    assert unified({}, {}, ids=ids, fields="").id == together


def test_ids_that_are_text_here_and_numbers_there_name_both_files() -> None:
    with pytest.raises(BadFileError, match=r"int64 in 1\.parquet but text in 0\.parquet"):
        unified({}, {}, ids=(pa.string(), pa.int64()), fields="")


def test_a_schema_survives_as_text() -> None:
    schema = unified({"m": pa.list_(pa.int8())}, ids=(pa.uint64(),))
    assert InputSchema.from_json(schema.options, json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"embedding": EMBEDDINGS}, r"a\.parquet has no column 'id'; it has embedding"),
        ({"id": pa.string(), "vector": EMBEDDINGS}, "no column 'embedding'; it has id, vector"),
        ({}, "it has none"),
        ({"id": pa.float64(), "embedding": EMBEDDINGS}, "'id' of .* is double; ids must be"),
        ({"id": pa.string(), "embedding": pa.string()}, "'embedding' of .* is string; embeddings must be"),
        ({"id": pa.string(), "embedding": pa.list_(pa.int64())}, r"is list<.*int64>; embeddings must be lists"),
    ],
    ids=["no id", "no embedding", "no columns", "id of floats", "embedding of text", "embedding of integers"],
)
def test_a_file_without_the_columns_or_with_wrong_types_is_named(schema: dict[str, pa.DataType], message: str) -> None:
    with pytest.raises(BadFileError, match=message):
        check_file_schema(pa.schema(schema.items()), "a.parquet", InputOptions())


def table_of(n: int, start: int = 0, **others: Any) -> pa.Table:
    rows = np.arange(start * 3, (start + n) * 3, dtype=np.float32)
    embeddings = pa.FixedSizeListArray.from_arrays(pa.array(rows), 3).cast(EMBEDDINGS)
    ids = [f"clip-{i}" for i in range(start, start + n)]
    return pa.table({"id": pa.array(ids, pa.string()), "embedding": embeddings, **others})


@pytest.fixture(scope="module")
def grouped(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Files of 50 rows by the size of their row groups."""
    folder = tmp_path_factory.mktemp("grouped")
    for size in (1, 7, 50):
        pq.write_table(table_of(50), folder / f"{size}.parquet", row_group_size=size)
    return {size: folder / f"{size}.parquet" for size in (1, 7, 50)}


@given(
    size=st.sampled_from([1, 7, 50]),
    edges=st.tuples(st.integers(0, 50), st.integers(0, 50)).map(sorted),
    batch=st.sampled_from([1, 4, 1000]),
)
def test_any_range_of_rows_is_read_whatever_the_row_groups(
    grouped: dict[int, Path], size: int, edges: list[int], batch: int
) -> None:
    start, stop = edges
    with pytest.MonkeyPatch.context() as patch, open_parquet(Location.of(grouped[size])) as file:
        patch.setattr(tables, "ROWS_PER_BATCH", batch)
        read = list(iter_rows(file, ["id", "embedding"], start, stop))
    assert all(0 < len(table) <= batch for table in read)
    ids = [value for table in read for value in table.column("id").to_pylist()]
    assert ids == [f"clip-{i}" for i in range(start, stop)]
    vectors = [row for table in read for row in table.column("embedding").to_pylist()]
    assert vectors == [[3 * i, 3 * i + 1, 3 * i + 2] for i in range(start, stop)]


def test_a_slice_is_read_in_the_names_and_types_of_the_whole_input(tmp_path: Path) -> None:
    file = tmp_path / "a.parquet"
    ids = pa.array([7, 8, 9], pa.int8())
    pq.write_table(pa.table({"clip": ids, "v": [[1.0]] * 3, "m": pa.array([1, 2, 3], pa.int16()), "x": [0] * 3}), file)
    options = InputOptions(id_field="clip", embedding_field="v", metadata_fields=("m", "absent"))
    schema = InputSchema(options, pa.int64(), pa.schema([("m", pa.float64()), ("absent", pa.string())]))
    (table,) = schema.read(Location.of(file), Slice("a", "a", 1, 3), {})
    assert table.column_names == ["id", "embedding", "m", "absent"]
    assert table.schema.types[2:] == [pa.float64(), pa.string()]
    assert table.schema.field("id").type == pa.int64()
    assert table.to_pylist() == [{"id": i, "embedding": [1.0], "m": i - 6.0, "absent": None} for i in (8, 9)]


def test_facts_of_files_are_those_of_their_footers(tmp_path: Path) -> None:
    pq.write_table(table_of(5), tmp_path / "a.parquet", row_group_size=2)
    pq.write_table(pa.table({"id": ["a"], "embedding": [[[1.0]]], "embedding2": [[1.0, 2.0]]}), tmp_path / "b.parquet")
    pq.write_table(table_of(0), tmp_path / "c.parquet")
    files = [(Location.of(tmp_path / f"{name}.parquet"), f"source {name}") for name in "abc"]
    facts, bad = inspect_files(Counted("embedding"), False, files)
    assert [(file.source, file.n_rows, file.n_values) for file in facts] == [
        ("source a", 5, 15),
        ("source b", 1, 1),
        ("source c", 0, 0),
    ]
    assert bad == []


def test_files_that_cannot_be_read_are_named_or_listed(tmp_path: Path) -> None:
    pq.write_table(table_of(2), tmp_path / "good.parquet")
    touch(tmp_path, "bad.parquet")
    files = [(Location.of(tmp_path / name), name) for name in ("good.parquet", "bad.parquet")]
    with pytest.raises(BadFileError, match=r"bad\.parquet cannot be read as Parquet"):
        inspect_files(Counted("embedding"), False, files)
    facts, bad = inspect_files(Counted("embedding"), True, files)
    assert [file.source for file in facts] == ["good.parquet"]
    assert [("bad.parquet" in fault) for fault in bad] == [True]


@pytest.mark.parametrize("skip_bad_files", [False, True])
def test_a_file_that_is_gone_is_no_bad_file(skip_bad_files: bool, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot read .*absent\.parquet"):
        inspect_files(
            Counted("embedding"), skip_bad_files, [(Location.of(tmp_path / "absent.parquet"), "absent.parquet")]
        )


@pytest.mark.parametrize(
    ("metadata", "eps"),
    [({b"semdedup.recommended_eps": b"0.25"}, 0.25), ({b"semdedup.recommended_eps": b"0"}, 0), ({}, None)],
)
def test_the_recommended_eps_stands_in_the_schema(tmp_path: Path, metadata: dict, eps: float | None) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(table_of(1).replace_schema_metadata(metadata), file)
    assert recommended_eps([Location.of(file)]) == eps


def test_the_recommended_eps_is_that_of_the_first_file_that_can_be_read(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet")
    for name, text in (("b", b"0.2"), ("c", b"0.3")):
        table = table_of(1).replace_schema_metadata({b"semdedup.recommended_eps": text})
        pq.write_table(table, tmp_path / f"{name}.parquet")
    files = [Location.of(tmp_path / f"{name}.parquet") for name in "abc"]
    assert recommended_eps(files, skip_bad_files=True) == 0.2
    with pytest.raises(BadFileError, match=r"a\.parquet"):
        recommended_eps(files)


@pytest.mark.parametrize("text", [b"much", b"1.0", b"-0.1", b"nan", b"inf", b""])
def test_a_recommended_eps_that_is_none_names_the_file(tmp_path: Path, text: bytes) -> None:
    file = tmp_path / "a.parquet"
    pq.write_table(table_of(1).replace_schema_metadata({b"semdedup.recommended_eps": text}), file)
    with pytest.raises(BadFileError, match=r"a\.parquet"):
        recommended_eps([Location.of(file)])


FILES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12)


def facts_by_sizes(files: list[tuple[int, int]]) -> list[FileFacts]:
    return [FileFacts(f"{i}", f"source {i}", n_rows, n_rows * dim, b"") for i, (n_rows, dim) in enumerate(files)]


def bytes_of_rows(files: list[tuple[int, int]]) -> dict[str, int]:
    return {f"{i}": held_bytes(1, dim) for i, (_, dim) in enumerate(files)}


@given(files=FILES, target=st.integers(1, 30_000), most_files=st.none() | st.integers(1, 4))
def test_partitions_hold_every_row_once_in_order_and_no_more_than_their_target(
    files: list[tuple[int, int]], target: int, most_files: int | None
) -> None:
    facts, row_bytes = facts_by_sizes(files), bytes_of_rows(files)
    partitions = cut_partitions(facts, target, most_files)
    rows = [(piece.url, row) for part in partitions for piece in part for row in range(piece.start, piece.stop)]
    assert rows == [(file.url, row) for file in facts for row in range(file.n_rows)]
    for part in partitions:
        held = sum((piece.stop - piece.start) * row_bytes[piece.url] for piece in part)
        assert held <= target or sum(piece.stop - piece.start for piece in part) == 1
        assert most_files is None or len({piece.url for piece in part}) <= most_files
        assert all(piece.start < piece.stop for piece in part)


@given(files=FILES, target=st.integers(1, 30_000))
def test_partitions_are_not_smaller_than_they_need_to_be(files: list[tuple[int, int]], target: int) -> None:
    row_bytes = bytes_of_rows(files)
    parts = cut_partitions(facts_by_sizes(files), target, None)
    held = [sum((p.stop - p.start) * row_bytes[p.url] for p in part) for part in parts]
    largest = max(row_bytes.values(), default=0)
    # a third of the target on average: a file cut in pieces starts a partition, and a row is not cut
    assert sum(held) >= len(held) * (target - 2 * largest) / 3 - target


@given(groups=st.lists(st.integers(1, 50), min_size=2, max_size=9), target=st.integers(1, 80), more=st.integers(0, 60))
def test_a_file_is_cut_between_row_groups_and_within_those_only_that_are_larger_than_a_task(
    groups: list[int], target: int, more: int
) -> None:
    n_rows, most = sum(groups), target + more
    facts = [FileFacts("a", "a", n_rows, 0, b"", 0, array("q", groups))]
    (row_bytes,) = {held_bytes(1, 0)}
    pieces = [p for part in cut_partitions(facts, target * row_bytes, None, most * row_bytes) for p in part]
    assert [row for p in pieces for row in range(p.start, p.stop)] == list(range(n_rows))
    edges = {0, *accumulate(groups)}
    starts = [0, *accumulate(groups[:-1])]
    large = {row for start, n in zip(starts, groups, strict=True) if n > most for row in range(start, start + n)}
    for p in pieces:
        assert p.stop - p.start <= target or {p.start, p.stop} <= edges or p.start in large
        assert p.stop - p.start <= most
        assert {p.start, p.stop} <= edges | large


FUZZ = """
import collections, json, sys
import numpy as np, pyarrow as pa
from array import array
from itertools import accumulate
from pathlib import Path
from semdedup import BadFileError, ParameterError
from semdedup.dedup.input.rows import check_rows
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.input.ids import hash_ids
from semdedup.dedup.options import InputOptions
from semdedup.dedup.input.partitions import Slice
from semdedup.dedup.input.schema import check_file_schema, unify_schemas
from semdedup.dedup.input.facts import Counted, inspect_files
from semdedup.storage.location import Location

good, target = Path(sys.argv[1]).read_bytes(), Path(sys.argv[2])
rng = np.random.default_rng(0)
options = InputOptions(metadata_fields=("note",))

def read(file):
    facts, _ = inspect_files(Counted("embedding"), False, [(file, file.url)])
    check_file_schema(pa.ipc.read_schema(pa.py_buffer(facts[0].schema)), file.url, options)
    schema = unify_schemas(facts, options)
    n_rows = 0
    for table in schema.read(file, Slice("", "", 0, facts[0].n_rows), {}):
        hash_ids(table.column("id"), 0)
        unit_rows(check_rows(table.column("id"), table.column("embedding"), 3).rows)
        table.column("note").to_pylist()
        n_rows += len(table)
    assert n_rows == facts[0].n_rows

def damaged():
    for _ in range(int(sys.argv[3])):
        bad = bytearray(good)
        how, place = rng.integers(4), rng.integers(len(good))
        if how == 0:
            del bad[place:]
        elif how == 1:
            del bad[place : place + rng.integers(1, 40)]
        else:
            places = rng.integers(len(good), size=4) if how == 2 else -rng.integers(1, 600, size=2)
            bad[places[0]] ^= 1 << rng.integers(8)
            bad[places[1]] = rng.integers(256)
        yield bad
    # one bit flipped where the footer tells the columns: some of these end the process where it is asked unprepared
    footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
    for place in range(footer, footer + 100):
        bad = bytearray(good)
        bad[place] ^= 1 + place % 2
        yield bad

outcomes = collections.Counter()
for bad in damaged():
    target.write_bytes(bad)
    try:
        read(Location.of(target))
        outcomes["read"] += 1
    except BadFileError as error:
        assert str(target) in str(error), error
        outcomes["refused"] += 1
    except ParameterError:  # the name of the metadata column was hit
        outcomes["refused"] += 1
print(json.dumps(outcomes))
"""


def test_a_file_is_cut_only_where_it_is_larger_than_a_task_may_be() -> None:
    facts = [FileFacts(name, name, n_rows, 0, b"") for name, n_rows in (("a", 30), ("b", 5), ("c", 5), ("d", 90))]
    target, most = held_bytes(10, 0), held_bytes(40, 0)
    rows = [sum(piece.stop - piece.start for piece in part) for part in cut_partitions(facts, target, None, most)]
    assert rows == [30, 10, 30, 30, 30]


@pytest.mark.parametrize("checksums", [False, True], ids=["plain", "page checksums"])
def test_a_damaged_file_is_read_or_refused_by_name_and_nothing_else(tmp_path: Path, checksums: bool) -> None:
    good = tmp_path / "good.parquet"
    notes = pa.array(["x", "yy", None, "é"] * 25)
    pq.write_table(table_of(100, note=notes), good, row_group_size=40, write_page_checksum=checksums)
    # in a process of its own: PyArrow is C++, and what it does not survive shall fail one test only
    command = [sys.executable, "-W", "ignore", "-c", FUZZ, str(good), str(tmp_path / "bad.parquet"), "400"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["refused"] > 200


@pytest.mark.parametrize("n_bytes", [0, 1, 4, 12, -1, -9], ids=lambda n: f"{n} bytes" if n >= 0 else f"{-n} missing")
def test_a_file_that_was_cut_off_is_refused(tmp_path: Path, n_bytes: int) -> None:
    pq.write_table(table_of(100), tmp_path / "whole.parquet")
    (tmp_path / "cut.parquet").write_bytes((tmp_path / "whole.parquet").read_bytes()[:n_bytes])
    with pytest.raises(BadFileError, match=r"cut\.parquet cannot be read as Parquet"):
        read_table(Location.of(tmp_path / "cut.parquet"))


@pytest.mark.parametrize("column", ["id", "note"])
def test_text_that_is_no_utf_8_is_refused_by_name(tmp_path: Path, column: str) -> None:
    wrong = pa.Array.from_buffers(pa.string(), 1, [None, *pa.array([b"\xff\xfe"]).buffers()[1:]])
    table = table_of(1, note=["x"])
    table = table.set_column(table.column_names.index(column), column, wrong)
    pq.write_table(table, tmp_path / "a.parquet")
    schema = InputSchema(InputOptions(metadata_fields=("note",)), pa.string(), pa.schema([("note", pa.string())]))
    with pytest.raises(BadFileError, match=r"a\.parquet cannot be read as Parquet: .*UTF8"):
        list(schema.read(Location.of(tmp_path / "a.parquet"), Slice("", "", 0, 1), {}))


def test_a_footer_that_promises_more_rows_than_there_are_is_refused(tmp_path: Path) -> None:
    pq.write_table(table_of(10), tmp_path / "a.parquet")
    schema = InputSchema(InputOptions(), pa.string(), pa.schema([]))
    with pytest.raises(BadFileError, match="rows up to 11 were to be read, but there are 10"):
        list(schema.read(Location.of(tmp_path / "a.parquet"), Slice("", "", 0, 11), {}))
