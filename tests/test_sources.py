"""Inputs that are not Parquet files: Lance data sets, Arrow files, folders of Hugging Face's `save_to_disk`."""

import json
import sys
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import semdedup
from semdedup import BadFileError, InputError, OutputConflictError, ParameterError
from semdedup.dedup.input import lance as lance_module
from semdedup.dedup.input.convert import blocks_of, convert_block
from semdedup.dedup.input.datasets import dataset_files, lance_place
from semdedup.dedup.input.files import find_files
from semdedup.dedup.input.found import FoundFiles
from semdedup.dedup.options import InputOptions
from semdedup.storage.location import Location
from tests.helpers import NOWHERE, answer_of, assert_same_answer, embedding_table, near_duplicates, workflow

COLUMNS = ["id", "embedding", "note"]
DIM = 6


@pytest.fixture(scope="module")
def rows() -> tuple[list[str], np.ndarray]:
    return near_duplicates(np.random.default_rng(4), 90, DIM)


@pytest.fixture(scope="module")
def expected(rows: Any, inside: distributed.Client, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return answer_of(rows, inside, tmp_path_factory.mktemp("parquet"))


@pytest.fixture
def lance() -> Any:
    return pytest.importorskip("lance", reason="Lance is not tested: no pylance")


def table_of(rows: Any, column: pa.DataType | None = None) -> pa.Table:
    ids, vectors = rows
    table = embedding_table(ids, vectors, pa.list_(pa.float32(), DIM), other=pa.array(ids))
    return table.set_column(1, "embedding", table["embedding"].cast(column or table["embedding"].type))


def write_streams(folder: Path, table: pa.Table, n_files: int = 2, batch_rows: int = 7) -> Path:
    """A folder as `datasets.Dataset.save_to_disk` writes it."""
    folder.mkdir(parents=True)
    names = [f"data-{i:05d}-of-{n_files:05d}.arrow" for i in range(n_files)]
    per_file = -(-len(table) // n_files)
    for i, name in enumerate(names):
        with pa.ipc.new_stream(folder / name, table.schema) as writer:
            for batch in table.slice(i * per_file, per_file).to_batches(batch_rows):
                writer.write_batch(batch)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    (folder / "dataset_info.json").write_text("{}")
    return folder


# Lance


@pytest.mark.parametrize("column", [pa.list_(pa.float32(), DIM), pa.list_(pa.float32()), pa.list_(pa.float16(), DIM)])
def test_a_lance_data_set_gives_the_answer_of_the_same_rows_in_parquet(
    column: pa.DataType, lance: Any, rows: Any, expected: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    halves = rows[0], rows[1].astype(column.value_type.to_pandas_dtype()).astype(np.float32)
    if column.value_type == pa.float16():
        expected = answer_of(halves, inside, tmp_path)
    source = tmp_path / "emb.lance"
    lance.write_dataset(table_of(halves, column), source, max_rows_per_file=40)
    result = workflow(source, tmp_path / "lance-out").run(inside)
    assert_same_answer(tmp_path / "lance-out", expected)
    assert result.total == 90
    workflow(source, tmp_path / "lance-out").run(NOWHERE)  # complete already


def test_a_lance_data_set_is_named_by_its_folder_or_a_pattern_of_it_and_told_of_where_it_is_not(
    lance: Any, rows: Any, tmp_path: Path
) -> None:
    for name in ("x.lance", "y.lance"):
        lance.write_dataset(table_of(rows), tmp_path / "in" / name)
    pq.write_table(table_of(rows), tmp_path / "in" / "a.parquet")

    def found(*paths: str) -> FoundFiles:
        return find_files([Location.of(f"{tmp_path}/{path}") for path in paths], "parquet")

    def names(files: FoundFiles) -> list[str]:
        return [file.url.removeprefix(f"{tmp_path}/in/").partition("/")[0] for file in files]

    for pattern in ("in/*.lance", "*/*.lance", "**/*.lance"):
        assert names(found(pattern)) == ["x.lance", "y.lance"]
    assert names(found("in/*")) == ["a.parquet", "x.lance", "y.lance"]
    assert not found("in/*").passed_over
    assert names(found("in")) == ["a.parquet"]
    ((reason, told),) = found("in").passed_over.items()
    assert "read where they are named" in reason
    assert set(told) == {"in x.lance", "in y.lance"}
    assert found("in/x.lance", "in").passed_over == {reason: {"in y.lance": 1}}
    (tmp_path / "in" / "a.parquet").unlink()
    for path in ("in", "in/x.lance/data/*.lance"):
        with pytest.raises(InputError, match=rf"To read a data set name its folder: {tmp_path}/in/x.lance\."):
            found(path)


def test_rows_that_lance_deleted_are_gone_and_a_new_version_is_another_input(
    lance: Any, rows: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    source = tmp_path / "emb"  # known by what it holds, whatever its name
    dataset = lance.write_dataset(table_of(rows), source, max_rows_per_file=40)
    dataset.delete("id < 'clip-00050'")
    assert workflow(source, tmp_path / "out").run(inside).total == 40
    lance.write_dataset(table_of(rows).slice(0, 5), source, mode="append")
    with pytest.raises(OutputConflictError, match="input: "):
        workflow(source, tmp_path / "out").run(NOWHERE)
    assert workflow(source, tmp_path / "out", clear_output=True).run(inside).total == 45


def test_blocks_of_a_lance_data_set_hold_each_row_once_and_only_the_columns_that_are_read(
    lance: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lance_module, "BLOCK_BYTES", 1000)
    dataset = lance.write_dataset(table_of(rows), tmp_path / "emb.lance", max_rows_per_file=40)
    dataset.delete("id = 'clip-00003' or id = 'clip-00089'")
    root = Location.of(tmp_path / "emb.lance")
    files = dataset_files(root)
    assert files is not None
    assert lance_place(files[0].url) == (root.url, 2)
    blocks, _ = blocks_of(files, root, Location.of(tmp_path / "made"), InputOptions(metadata_fields=("note",)))
    assert len(blocks) > 3
    for block in blocks:
        convert_block(COLUMNS, block)
    found = pa.concat_tables([pq.read_table(block.target.url) for block in blocks])
    assert found.column_names == ["id", "embedding"]
    assert found["id"].to_pylist() == [i for i in rows[0] if i not in ("clip-00003", "clip-00089")]


def test_a_lance_data_set_on_s3_is_read_with_the_options_that_the_rest_is_read_with(
    lance: Any, rows: Any, s3: tuple[str, dict[str, Any]], tmp_path: Path
) -> None:
    lance.write_dataset(table_of(rows), tmp_path / "emb.lance", max_rows_per_file=40)
    root = Location.of(f"{s3[0]}/emb.lance", s3[1])
    for path in (tmp_path / "emb.lance").rglob("*"):
        if path.is_file():
            (root / path.relative_to(tmp_path / "emb.lance").as_posix()).write_bytes(path.read_bytes())
    files = dataset_files(root)
    assert files is not None
    blocks, _ = blocks_of(files, root, Location.of(tmp_path / "made"), InputOptions(metadata_fields=("note",)))
    for block in blocks:
        convert_block(COLUMNS, block)
    found = pa.concat_tables([pq.read_table(block.target.url) for block in blocks])
    assert found["id"].to_pylist() == rows[0]


def test_what_is_wrong_with_a_lance_data_set_is_told_before_there_are_workers(
    lance: Any, rows: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "emb.lance"
    lance.write_dataset(table_of(rows).rename_columns(["key", "vector", "other"]), source)
    with pytest.raises(BadFileError, match=rf"Lance data set .*{source} has none of .*it has key, vector, other"):
        workflow(source, tmp_path / "out").run(NOWHERE)
    for refused in (
        lambda: semdedup.find_leaks(str(source), str(source), str(tmp_path / "leaks"), client=NOWHERE),
        lambda: semdedup.read_embeddings(str(source)),
    ):
        with pytest.raises(InputError, match=f"reads Parquet; {source} is not"):
            refused()
    for path in (source / "data").iterdir():
        path.unlink()
    given = {"id_field": "key", "embedding_field": "vector"}
    assert dataset_files(Location.of(source))
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(ParameterError, match="is Lance, which needs pylance: pip install 'pylance>="):
        workflow(source, tmp_path / "out", **given).run(NOWHERE)
    assert not (tmp_path / "out").exists()


def test_a_lance_data_set_whose_data_are_gone_is_named(
    lance: Any, rows: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    lance.write_dataset(table_of(rows), tmp_path / "emb.lance")
    for path in (tmp_path / "emb.lance" / "data").iterdir():
        path.unlink()
    with pytest.raises(BadFileError, match=r"the Lance data set .*emb\.lance cannot be read: "):
        workflow(tmp_path / "emb.lance", tmp_path / "out").run(inside)


def test_lance_data_sets_that_cannot_be_read_are_left_out_where_that_is_asked_for(
    lance: Any, rows: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    for name in ("good", "data", "manifest"):
        lance.write_dataset(table_of(rows), tmp_path / "in" / f"{name}.lance")
    for path in [*(tmp_path / "in/data.lance/data").iterdir(), *(tmp_path / "in/manifest.lance/_versions").iterdir()]:
        path.write_bytes(b"damaged")
    result = workflow(tmp_path / "in" / "*", tmp_path / "out", skip_bad_files=True).run(inside)
    assert result.total == len(rows[0])
    assert [path for path in ("data.lance", "manifest.lance") if any(path in why for why in result.skipped_files)] == [
        "data.lance",
        "manifest.lance",
    ]


# Arrow


def test_a_folder_of_hugging_face_gives_the_answer_of_the_same_rows_in_parquet(
    rows: Any, expected: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    source = write_streams(tmp_path / "saved", table_of(rows))
    write_streams(tmp_path / "other", table_of(rows))
    (tmp_path / "other" / "data-00000-of-00002.arrow").rename(source / "cache-5eac.arrow")  # which is no data
    workflow(source, tmp_path / "out").run(inside)
    assert_same_answer(tmp_path / "out", expected)


def test_what_the_package_datasets_saves_is_read(
    rows: Any, expected: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    datasets = pytest.importorskip("datasets", reason="no package datasets")
    ids, vectors = rows
    made = datasets.Dataset.from_dict({"id": ids, "embedding": vectors.tolist()})
    made = made.cast_column("embedding", datasets.Sequence(datasets.Value("float32"), length=DIM))
    made.save_to_disk(tmp_path / "saved", num_shards=2)
    workflow(tmp_path / "saved", tmp_path / "out").run(inside)
    assert_same_answer(tmp_path / "out", expected)
    other = datasets.Dataset.from_dict({"id": ["x"], "embedding": [[1.0] * DIM]}, features=made.features)
    datasets.DatasetDict({"train": made, "test": other}).save_to_disk(tmp_path / "splits")
    with pytest.raises(InputError, match=rf"name one or some: {tmp_path}/splits/train, {tmp_path}/splits/test"):
        workflow(tmp_path / "splits", tmp_path / "none").run(NOWHERE)
    both = [tmp_path / "splits" / "test", tmp_path / "splits" / "train"]
    assert workflow(both, tmp_path / "both").run(inside).total == 91


def test_one_arrow_file_by_name_beside_parquet(
    rows: Any, expected: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    table = table_of(rows)
    (tmp_path / "in").mkdir()
    pq.write_table(table.slice(0, 30), tmp_path / "in" / "a.parquet")
    with pa.ipc.new_file(tmp_path / "b.arrow", table.schema) as writer:
        writer.write_table(table.slice(30))
    workflow([tmp_path / "in", tmp_path / "b.arrow"], tmp_path / "out").run(inside)
    assert_same_answer(tmp_path / "out", expected)


def broken(folder: Path, content: bytes) -> None:
    (folder / "data-00001-of-00002.arrow").write_bytes(content)


@pytest.mark.parametrize("kept", [0, 3, 200, -40])
def test_an_arrow_file_that_is_cut_is_named_and_may_be_left_out(
    kept: int, rows: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    source = write_streams(tmp_path / "saved", table_of(rows))
    broken(source, (source / "data-00001-of-00002.arrow").read_bytes()[:kept])
    with pytest.raises(BadFileError, match=r"data-00001-of-00002\.arrow cannot be read as Arrow"):
        workflow(source, tmp_path / "out").run(inside)
    result = workflow(source, tmp_path / "out", skip_bad_files=True).run(inside)
    assert result.total == 45
    assert len(result.skipped_files) == 1


def test_text_and_offsets_that_lie_are_a_bad_file_and_no_crash(
    rows: Any, inside: distributed.Client, tmp_path: Path
) -> None:
    table = table_of((["abc", "def"], rows[1][:2]))
    with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as writer:
        writer.write_table(table)
    right, wrong = (np.array([0, 3, end], np.int32).tobytes() for end in (6, 2**30))
    content = (tmp_path / "a.arrow").read_bytes()
    assert right in content
    (tmp_path / "a.arrow").write_bytes(content.replace(right, wrong))
    with pytest.raises(BadFileError, match="cannot be read as Arrow"):
        workflow(tmp_path / "a.arrow", tmp_path / "out").run(inside)


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ('{"_data_files": [{"filename": "../secret.arrow"}]}', "which is no Arrow file in that folder"),
        ('{"_data_files": [{"filename": "gone.arrow"}]}', "gone.arrow is missing, which"),
        ('{"_data_files": []}', "names no files"),
        ("{}", "is not as Hugging Face's save_to_disk writes it"),
        ("not json", "is not as Hugging Face's save_to_disk writes it"),
    ],
)
def test_a_folder_of_hugging_face_that_is_not_as_it_should_be_is_refused(
    state: str, message: str, rows: Any, tmp_path: Path
) -> None:
    source = write_streams(tmp_path / "saved", table_of(rows))
    (source / "state.json").write_text(state)
    with pytest.raises((BadFileError, InputError), match=message):
        workflow(source, tmp_path / "out").run(NOWHERE)


def test_estimate_and_pairs_read_what_the_dedup_reads(rows: Any, inside: distributed.Client, tmp_path: Path) -> None:
    source = write_streams(tmp_path / "saved", table_of(rows))
    found = semdedup.find_pairs(str(source), 0.01, str(tmp_path / "pairs"), client=inside, verbose=False)
    parquet = tmp_path / "in.parquet"
    pq.write_table(table_of(rows), parquet)
    same = semdedup.find_pairs(str(parquet), 0.01, str(tmp_path / "same"), client=inside, verbose=False)

    def pairs(place: str) -> pd.DataFrame:
        return pq.read_table(tmp_path / place / "pairs").to_pandas().sort_values(["id_a", "id_b"], ignore_index=True)

    pd.testing.assert_frame_equal(pairs("pairs"), pairs("same"))
    assert found.pairs == same.pairs


def test_a_folder_with_a_file_of_that_name_alone_is_no_data_set(tmp_path: Path) -> None:
    pq.write_table(pa.table({"id": ["a"], "embedding": [[1.0]]}), tmp_path / "a.parquet")
    (tmp_path / "state.json").write_text("{}")
    assert [file.url for file in find_files([Location.of(tmp_path)], "parquet")] == [f"{tmp_path}/a.parquet"]
