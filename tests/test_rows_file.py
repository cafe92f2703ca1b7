"""Parquet files whose lists are written as they lie in memory: what PyArrow and Polars read of them."""

from pathlib import Path
from typing import Any

import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from semdedup.errors import BadFileError
from semdedup.storage import rows_file
from semdedup.storage.location import Location
from semdedup.storage.rows_file import rows_of_lists, write_rows_file
from semdedup.storage.tables import embedding_column, read_table, write_table
from semdedup.storage.thrift import decoded, encoded


def table_of(n: int, d: int, seed: int = 0) -> pa.Table:
    """Rows with metadata of many kinds, in front of the lists only such without columns inside."""
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((n, d)).astype(np.float32)
    rows[rng.random(n) < 0.3, 0] = np.nan
    return pa.table(
        {
            "id": [f"clip-{i}" for i in range(n)],
            "embedding": embedding_column(rows),
            "height": pa.array([None if i % 3 else i for i in range(n)], pa.int16()),
            "when": pa.array(range(n), pa.timestamp("ns", "Europe/Berlin")),
            "tags": pa.array([[{"a": i, "b": None}] * (i % 3) for i in range(n)]),
            "truth": pa.array([i % 2 == 0 for i in range(n)]),
            "large": pa.array(["x"] * n, pa.large_string()),
            "distance": rows[:, 0],
        }
    )


def written(table: pa.Table, path: Path, **options: Any) -> pq.ParquetFile:
    write_rows_file(Location.of(path), table, "embedding", options)
    return pq.ParquetFile(path, page_checksum_verification=True)


@settings(max_examples=12)
@given(n=st.integers(1, 120), d=st.integers(1, 40), group=st.integers(1, 150), page=st.integers(1, 9_000))
@example(n=70, d=1, group=150, page=64)
def test_the_file_reads_as_the_one_that_pyarrow_writes(
    tmp_path_factory: pytest.TempPathFactory, n: int, d: int, group: int, page: int
) -> None:
    folder, table = tmp_path_factory.mktemp("rows"), table_of(n, d)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rows_file, "PAGE_BYTES", page)
        ours = written(table, folder / "ours.parquet", row_group_size=group)
    write_table(Location.of(folder / "theirs.parquet"), table, {"row_group_size": group})
    theirs = pq.ParquetFile(folder / "theirs.parquet")
    assert ours.schema.equals(theirs.schema)
    assert ours.schema_arrow.equals(theirs.schema_arrow, check_metadata=True)
    for number in range(theirs.num_row_groups):
        one, other = (file.metadata.row_group(number) for file in (ours, theirs))
        assert (one.num_rows, one.column(1).num_values) == (other.num_rows, other.column(1).num_values)
        assert [one.column(i).path_in_schema for i in range(one.num_columns)] == [
            other.column(i).path_in_schema for i in range(other.num_columns)
        ]
    found, expected = ours.read(), theirs.read()
    assert (
        found.drop_columns("embedding")
        .drop_columns("distance")
        .equals(expected.drop_columns("embedding").drop_columns("distance"))
    )
    for name in ("embedding", "distance"):
        left, right = (each.column(name).combine_chunks() for each in (found, table))
        left, right = (each.flatten() if name == "embedding" else each for each in (left, right))
        np.testing.assert_array_equal(left.to_numpy().view(np.uint32), right.to_numpy().view(np.uint32))
    in_polars = polars.read_parquet(folder / "ours.parquet", columns=["id", "embedding"])
    assert in_polars.to_arrow().column("embedding").combine_chunks().flatten().to_numpy().tobytes() == (
        table.column("embedding").combine_chunks().flatten().to_numpy().tobytes()
    )


def test_a_byte_that_changed_is_noticed(tmp_path: Path) -> None:
    table = table_of(300, 64)
    path = tmp_path / "rows.parquet"
    begin = written(table, path).metadata.row_group(0).column(1).data_page_offset
    content = bytearray(path.read_bytes())
    content[begin + 40_000] ^= 4
    path.write_bytes(content)
    with pytest.raises(BadFileError):
        read_table(Location.of(path))


def test_what_is_not_so_simple_is_left_to_pyarrow(tmp_path: Path) -> None:
    simple = table_of(6, 4)
    assert rows_of_lists(simple, "embedding") is not None
    lists = [
        pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float32())),
        pa.array([[1.0, 2.0], None], pa.list_(pa.float32())),
        pa.array([[1.0, None], [1.0, 2.0]], pa.list_(pa.float32())),
        pa.array([[], []], pa.list_(pa.float32())),
        pa.array([[1.0, 2.0], [3.0, 4.0]], pa.list_(pa.float64())),
        pa.chunked_array([[[1.0, 2.0]], [[3.0, 4.0]]], pa.list_(pa.float32())),
    ]
    for column in lists:
        table = pa.table({"id": ["a", "b"], "embedding": column})
        assert rows_of_lists(table, "embedding") is None
        assert written(table, tmp_path / "rows.parquet").read().equals(table)
    behind = pa.table({"tags": simple.column("tags"), "embedding": simple.column("embedding")})
    assert rows_of_lists(behind, "embedding") is None
    assert rows_of_lists(simple.slice(2, 3), "embedding").shape == (3, 4)  # type: ignore[union-attr]
    asked = written(simple, tmp_path / "rows.parquet", compression="gzip")
    assert asked.metadata.row_group(0).column(1).compression == "GZIP"


def test_metadata_that_nobody_asks_for_comes_back_as_it_was(tmp_path: Path) -> None:
    pq.write_table(table_of(50, 3), tmp_path / "any.parquet", write_page_index=True, store_decimal_as_integer=True)
    content = (tmp_path / "any.parquet").read_bytes()
    footer = content[-8 - int.from_bytes(content[-8:-4], "little") : -8]
    assert encoded(decoded(footer)) == footer
