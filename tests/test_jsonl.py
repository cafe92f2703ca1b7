"""JSON Lines: every line once, wherever the blocks are cut, in types that everything after it can use."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from semdedup import BadFileError
from semdedup.dedup.input import jsonl
from semdedup.dedup.input.jsonl import convert_block, jsonl_blocks
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import read_table

COLUMNS = ["id", "embedding", "note"]


def blocks_of(folder: Path, content: bytes, block_bytes: int) -> list[jsonl.JsonlBlock]:
    file = folder / "part.jsonl"
    file.write_bytes(content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BLOCK_BYTES", block_bytes)
        return jsonl_blocks(
            [FileInfo(str(file), len(content), "")], Location.of(folder), Location.of(folder / "converted")
        )


def convert(folder: Path, content: bytes, block_bytes: int = 1 << 20) -> list[pa.Table]:
    """The tables that a file becomes, one for each block."""
    blocks = blocks_of(folder, content, block_bytes)
    for block in blocks:
        convert_block(COLUMNS, block)
    return [read_table(block.target) for block in blocks]


def rows_of(tables: list[pa.Table]) -> list[dict[str, Any]]:
    return [row for table in tables for row in table.to_pylist()]


def lines(*rows: Any, end: str = "\n") -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows).encode()


ROWS = [{"id": f"clip-{i}", "embedding": [i + 0.5, -1.0], "note": "é" * i} for i in range(12)]
SMALL_ROW = st.fixed_dictionaries(
    {"id": st.integers(0, 10**9), "embedding": st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=3)}
)


@settings(max_examples=50)  # each block is a file
@given(
    rows=st.lists(SMALL_ROW, max_size=8),
    block_bytes=st.integers(5, 200),
    blank=st.lists(st.sampled_from(["\n", "\n\n", "\r\n", "\n \n"]), min_size=8, max_size=8),
    final_newline=st.booleans(),
)
def test_blocks_of_any_size_give_every_line_once_and_in_order(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[dict[str, Any]],
    block_bytes: int,
    blank: list[str],
    final_newline: bool,
) -> None:
    content = b"".join(lines(row, end=end) for row, end in zip(rows, blank, strict=False))
    content = content if final_newline else content.rstrip()
    assert rows_of(convert(tmp_path_factory.mktemp("jsonl"), content, block_bytes)) == rows


@pytest.mark.parametrize("block_bytes", [3, 7, 40, 41, 64, 1000])
def test_text_of_several_bytes_a_letter_is_not_cut(tmp_path: Path, block_bytes: int) -> None:
    assert rows_of(convert(tmp_path, lines(*ROWS), block_bytes)) == ROWS


def test_blocks_cover_each_file_once_and_have_targets_of_their_own(tmp_path: Path) -> None:
    files = [FileInfo(f"/in/{n}.jsonl", n, "") for n in (0, 1, 99, 100, 101, 250)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(jsonl, "BLOCK_BYTES", 100)
        blocks = jsonl_blocks(files, Location.of("/in"), Location.of("/out"))
    for file in files:
        own = [(block.start, block.stop) for block in blocks if block.source.url == file.url]
        assert [byte for start, stop in own for byte in range(start, stop)] == list(range(file.n_bytes))
        assert all(0 < stop - start <= 100 for start, stop in own)
    assert len({block.target.url for block in blocks}) == len(blocks) == 8


def test_a_line_longer_than_many_blocks_belongs_where_it_begins(tmp_path: Path) -> None:
    long = {"id": 1, "embedding": [0.5] * 5000}
    tables = convert(tmp_path, lines({"id": 0, "embedding": [1.0]}, long, {"id": 2, "embedding": [2.0]}), 20)
    assert [row["id"] for row in rows_of(tables)] == [0, 1, 2]
    assert sum(len(table) > 0 for table in tables) == 3


@pytest.mark.parametrize("content", [b"", b"\n", b"  \n\n \r\n"], ids=["no bytes", "a newline", "blank lines"])
def test_a_file_without_lines_has_no_rows(tmp_path: Path, content: bytes) -> None:
    assert rows_of(convert(tmp_path, content)) == []


def test_whole_numbers_in_embeddings_become_floats(tmp_path: Path) -> None:
    (table,) = convert(tmp_path, lines({"id": "a", "embedding": [1, 0]}, {"id": "b", "embedding": [-3, 2]}))
    assert table.schema.field("embedding").type == pa.list_(pa.float64())
    assert table.column("embedding").to_pylist() == [[1.0, 0.0], [-3.0, 2.0]]
    (mixed,) = convert(tmp_path, lines({"id": "a", "embedding": [1, 0.5]}, {"id": "b", "embedding": [2, 3]}))
    assert mixed.column("embedding").to_pylist() == [[1.0, 0.5], [2.0, 3.0]]


@pytest.mark.parametrize("embedding", [None, [], [None, None]], ids=["null", "empty", "nulls"])
def test_embeddings_without_a_single_number_are_kept_as_rows(tmp_path: Path, embedding: Any) -> None:
    row = {"id": "a", "embedding": embedding}
    assert rows_of(convert(tmp_path, lines(row))) == [row]


@pytest.mark.parametrize("value", ["2024-01-01", "2024-01-01 00:00:00", "2024-01-01T10:00:00Z"])
@pytest.mark.parametrize("block_bytes", [30, 1 << 20], ids=["a block a line", "one block"])
def test_text_that_looks_like_a_date_stays_text(tmp_path: Path, value: str, block_bytes: int) -> None:
    rows = [{"id": value, "embedding": [1.0], "note": "2020-02-02"}, {"id": "b", "embedding": [2.0], "note": "x"}]
    for chosen in (rows[:1], rows, rows[::-1]):
        tables = convert(tmp_path, lines(*chosen), block_bytes)
        assert rows_of(tables) == chosen
        assert {str(table.schema.field("id").type) for table in tables if len(table)} == {"string"}


def test_whole_numbers_too_long_for_a_float_are_rounded_in_embeddings(tmp_path: Path) -> None:
    (table,) = convert(tmp_path, lines({"id": "a", "embedding": [2**53 + 1, 1]}))
    assert table.column("embedding").to_pylist() == [[2.0**53, 1.0]]


def test_whole_number_ids_stay_whole_numbers_to_the_last_digit(tmp_path: Path) -> None:
    rows = [{"id": 2**62 + 1, "embedding": [1.0]}, {"id": -1, "embedding": [2.0]}]
    assert rows_of(convert(tmp_path, lines(*rows))) == rows


def test_columns_that_nobody_asked_for_are_left_out(tmp_path: Path) -> None:
    (table,) = convert(tmp_path, lines({"other": {"x": [1]}, "embedding": [0.5], "id": "a", "date": "2024-01-01"}))
    assert table.column_names == ["id", "embedding"]


def test_lines_that_lack_a_field_have_null_there(tmp_path: Path) -> None:
    content = lines({"id": "a", "embedding": [0.5]}, {"id": "b", "note": "x"})
    (table,) = convert(tmp_path, content)
    assert table.to_pylist() == [
        {"id": "a", "embedding": [0.5], "note": None},
        {"id": "b", "embedding": None, "note": "x"},
    ]


@pytest.mark.parametrize(
    "broken",
    [b'{"id": 1, "embedding": [1.0', b"no json\n", b"[1, 2]\n", b'{"id": "\xff\xfe"}\n', b'{"id": 1} {"id": }\n'],
    ids=["cut off", "no JSON", "a list", "no UTF-8", "two on a line"],
)
def test_a_broken_line_is_an_error_that_names_the_file_and_the_bytes(tmp_path: Path, broken: bytes) -> None:
    with pytest.raises(BadFileError, match=r"part\.jsonl cannot be read as JSON Lines, bytes 0 to \d+: "):
        convert(tmp_path, lines(*ROWS[:3]) + broken)
    assert not list(tmp_path.glob("converted/*"))


def test_the_bytes_named_are_those_of_the_block(tmp_path: Path) -> None:
    good = lines(*ROWS)
    with pytest.raises(BadFileError, match=f"bytes {len(good)} to "):
        convert(tmp_path, good + b"x" * len(good) + b"\n", len(good))


def test_a_file_with_none_of_the_columns_is_named_with_those_it_has(tmp_path: Path) -> None:
    with pytest.raises(BadFileError, match=r"part\.jsonl has none of the columns .*it has clip, vector"):
        convert(tmp_path, lines({"clip": "a", "vector": [1.0]}))
