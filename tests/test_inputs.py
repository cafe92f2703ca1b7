"""What the input is: its files, its schema, and its partitions."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import BadFileError, InputError, ParameterError
from semdedup.dedup.embeddings import embedding_column
from semdedup.dedup.inputs import FileFacts, InputOptions, cut_partitions, find_files, recommended_eps, unify_schemas
from semdedup.dedup.tables import iter_rows, open_parquet
from semdedup.storage import Location


def touch(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")


def found(root: Path, *patterns: str, outputs: tuple[str, ...] = ()) -> list[str]:
    places = [Location.of(root / pattern) for pattern in patterns or ("",)]
    files = find_files(places, "parquet", [Location.of(root / output) for output in outputs])
    return [str(Path(file.url).relative_to(root)) for file in files]


def test_folders_are_searched_at_any_depth_and_hidden_names_are_not_data(tmp_path: Path) -> None:
    touch(tmp_path, "b.parquet", "a/x [1] ü.parquet", "a/.hidden.parquet", "_manifest/c.parquet", "note.txt", "c.pq")
    assert found(tmp_path) == ["a/x [1] ü.parquet", "b.parquet", "c.pq"]


def test_files_patterns_and_lists_are_taken_once_each(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet", "b.parquet", "sub/c.parquet", "d [1].parquet")
    assert found(tmp_path, "*.parquet", "a.parquet", "sub") == [
        "a.parquet",
        "b.parquet",
        "d [1].parquet",
        "sub/c.parquet",
    ]
    assert found(tmp_path, "d [1].parquet") == ["d [1].parquet"]


def test_what_lies_below_an_output_is_no_input(tmp_path: Path) -> None:
    touch(tmp_path, "a.parquet", "out/kmeans_results/b.parquet", "outer/c.parquet")
    assert found(tmp_path, outputs=("out",)) == ["a.parquet", "outer/c.parquet"]


@pytest.mark.parametrize(
    ("names", "asked", "message"),
    [
        ((), "", "it is empty"),
        (("a.txt",), "", r"it holds 1 files \(.txt\)"),
        (("emb/a.pickle",), "emb", "emb_parquet"),
        (("emb/a.pkl",), "emb/a.pkl", "pickles"),
        ((), "absent", "no such path"),
        (("emb_parquet/a.parquet",), "emb", "did you mean .*emb_parquet"),
        ((), "*.parquet", "no such path"),
    ],
)
def test_an_input_without_files_is_refused_with_what_was_found(
    tmp_path: Path, names: tuple[str, ...], asked: str, message: str
) -> None:
    touch(tmp_path, *names)
    with pytest.raises(InputError, match=message):
        found(tmp_path, asked)


def facts(*schemas: pa.Schema) -> list[FileFacts]:
    return [FileFacts(f"{i}", f"file-{i}", 1, 1, schema.serialize().to_pybytes()) for i, schema in enumerate(schemas)]


def schema(ids: pa.DataType = pa.string(), **metadata: pa.DataType) -> pa.Schema:  # noqa: B008
    return pa.schema([("id", ids), ("embedding", pa.list_(pa.float32())), *metadata.items()])


def test_types_of_metadata_are_promoted_to_one_that_holds_all() -> None:
    options = InputOptions(metadata_fields=("height", "note"))
    unified = unify_schemas(facts(schema(height=pa.int32()), schema(height=pa.float64(), note=pa.null())), options)
    assert unified.metadata == pa.schema([("height", pa.float64()), ("note", pa.null())])
    assert unified.id == pa.string()


@pytest.mark.parametrize(
    ("kinds", "expected"),
    [
        ((pa.int8(), pa.int64()), pa.int64()),
        ((pa.uint64(),), pa.uint64()),
        ((pa.large_string(), pa.string()), pa.string()),
    ],
)
def test_ids_get_one_type(kinds: tuple[pa.DataType, ...], expected: pa.DataType) -> None:
    assert unify_schemas(facts(*map(schema, kinds)), InputOptions()).id == expected


def test_what_does_not_go_together_names_both_files() -> None:
    with pytest.raises(BadFileError, match=r"file-1 .*file-0"):
        unify_schemas(facts(schema(pa.string()), schema(pa.int64())), InputOptions())
    options = InputOptions(metadata_fields=("x",))
    with pytest.raises(BadFileError, match=r"file-0 .*file-1"):
        unify_schemas(facts(schema(x=pa.string()), schema(x=pa.int64())), options)


def test_a_metadata_field_that_no_file_has_is_refused_with_the_columns_there_are() -> None:
    with pytest.raises(ParameterError, match="height"):
        unify_schemas(facts(schema(height=pa.int8())), InputOptions(metadata_fields=("absent",)))


FILES = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 9)), min_size=1, max_size=12)


@given(FILES, st.integers(1, 500), st.one_of(st.none(), st.integers(1, 3)))
def test_partitions_hold_every_row_once_in_order_and_no_more_than_they_should(
    shapes: list[tuple[int, int]], target: int, most_files: int | None
) -> None:
    files = [FileFacts(f"{i}", f"{i}", n, n * dim, b"") for i, (n, dim) in enumerate(shapes)]
    partitions = cut_partitions(files, target, most_files)
    rows = [(piece.url, row) for part in partitions for piece in part for row in range(piece.start, piece.stop)]
    assert rows == [(file.url, row) for file in files for row in range(file.n_rows)]
    dims = {str(i): dim for i, (_, dim) in enumerate(shapes)}
    for part in partitions:
        values = sum((piece.stop - piece.start) * dims[piece.url] for piece in part)
        longest = max(dims[piece.url] for piece in part)
        assert values <= max(target, longest) + longest  # rows are whole
        assert most_files is None or len(part) <= most_files


@pytest.mark.parametrize("row_group_size", [7, 1000])
@pytest.mark.parametrize(("start", "stop"), [(0, 100), (0, 1), (99, 100), (13, 14), (6, 50), (40, 40)])
def test_any_range_of_rows_is_read(tmp_path: Path, row_group_size: int, start: int, stop: int) -> None:
    rows = np.arange(300, dtype=np.float32).reshape(100, 3)
    table = pa.table({"id": pa.array(range(100)), "embedding": embedding_column(rows)})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group_size)
    with open_parquet(Location.of(tmp_path / "a.parquet")) as file:
        tables = list(iter_rows(file, ["embedding", "id"], start, stop))
    read = pa.concat_tables(tables) if tables else table.slice(0, 0)
    assert read.column("id").to_pylist() == list(range(start, stop))
    assert read.column("embedding").to_pylist() == rows[start:stop].tolist()


def test_a_damaged_file_is_named_or_read_and_nothing_else_happens(tmp_path: Path, rng: np.random.Generator) -> None:
    path = tmp_path / "a.parquet"
    rows = rng.standard_normal((50, 4)).astype(np.float32)
    table = pa.table({"id": [f"clip-{i}" for i in range(50)], "embedding": embedding_column(rows)})
    pq.write_table(table, path, write_page_checksum=True)
    good = path.read_bytes()
    refused = 0
    for _ in range(300):
        broken = bytearray(good)
        if rng.random() < 0.3:
            del broken[rng.integers(len(broken)) :]
        else:
            broken[rng.integers(len(broken))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(broken))
        try:
            with open_parquet(Location.of(path)) as file:
                list(iter_rows(file, [name for name in ("id", "embedding") if name in file.schema_arrow.names]))
        except BadFileError as error:
            assert "a.parquet" in str(error)  # noqa: PT017
            refused += 1
    assert refused > 100


def test_the_recommended_eps_is_read_from_the_metadata_and_checked(tmp_path: Path) -> None:
    def write(name: str, metadata: dict | None) -> Location:
        pq.write_table(pa.table({"id": ["a"]}).replace_schema_metadata(metadata), tmp_path / name)
        return Location.of(tmp_path / name)

    good, none, bad = (
        write("good.parquet", {"semdedup.recommended_eps": "0.3"}),
        write("none.parquet", None),
        write("bad.parquet", {"semdedup.recommended_eps": "2"}),
    )
    assert recommended_eps([good]) == 0.3
    assert recommended_eps([none, good]) is None
    assert recommended_eps([bad, good], skip_bad_files=True) == 0.3
    with pytest.raises(BadFileError, match="not in"):
        recommended_eps([bad])
