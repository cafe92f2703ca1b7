"""Every Arrow type in every place where a column is used: it is computed with to the end, or refused on the client."""

import datetime as dt
import decimal
import json
import re
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import distributed
import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from semdedup import BadFileError, InputError, PairwiseStage, ParameterError, RankingStrategy, SemdedupError
from semdedup.dedup.input.columns import (
    as_embeddings,
    carried_type,
    common_type,
    embedding_type,
    is_fp16_bits,
    python_rows,
)
from semdedup.dedup.input.ids import as_ids, id_type
from semdedup.dedup.input.schema import check_file_schema
from semdedup.dedup.options import InputOptions
from semdedup.dedup.ranking import check_rankable, rank_order
from tests.helpers import read_all_scores, workflow

Row = Callable[[Any, Any], pa.Array]


def of(kind: pa.DataType, one: Any, other: Any) -> pa.Array:
    """A column of the values one, null, other, null."""
    storage = kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind
    if pa.types.is_float16(storage):
        one, other = np.float16(one), np.float16(other)
    array = pa.array([one, None, other, None], storage)
    return pa.ExtensionArray.from_storage(kind, array) if isinstance(kind, pa.BaseExtensionType) else array


D, DAY = decimal.Decimal, dt.date
ORDERED: dict[str, pa.Array] = {
    str(array.type): array
    for array in (
        of(pa.bool_(), False, True),
        *(of(kind, 1, 2) for kind in (pa.int8(), pa.uint16(), pa.int64())),
        of(pa.uint64(), 1, 2**64 - 1),
        *(of(kind, 0.5, 1.5) for kind in (pa.float16(), pa.float32(), pa.float64())),
        *(of(kind(7, 2), D("-0.5"), D("1.5")) for kind in (pa.decimal32, pa.decimal64, pa.decimal128, pa.decimal256)),
        *(of(kind, DAY(1969, 1, 1), DAY(2020, 1, 1)) for kind in (pa.date32(), pa.date64())),
        *(of(pa.time32(unit), 1, 2) for unit in ("s", "ms")),
        *(of(pa.time64(unit), 1, 2) for unit in ("us", "ns")),
        *(of(pa.timestamp(unit), -5, 7) for unit in ("s", "ms", "us", "ns")),
        *(of(pa.timestamp("us", zone), -5, 7) for zone in ("UTC", "Europe/Berlin")),
        *(of(pa.duration(unit), -5, 7) for unit in ("s", "ns")),
        *(of(kind, "a", "é" * 20) for kind in (pa.string(), pa.large_string(), pa.string_view())),
        *(of(kind, b"a", b"\xff" * 20) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
        of(pa.binary(2), b"aa", b"\xff\x00"),
        of(pa.uuid(), b"\x01" * 16, b"\xff" * 16),
        of(pa.bool8(), 0, 1),
        of(pa.dictionary(pa.int8(), pa.string()), "a", "b").take(pa.array([0, 1, 2, 3])),
        pa.DictionaryArray.from_arrays(pa.array([1, None, 0, None], pa.int32()), ["z", "a"]),
        of(pa.dictionary(pa.int16(), pa.int64()), 1, 2),
    )
}
"""Columns whose first value comes before the third in their order."""

UNORDERED: dict[str, pa.Array] = {
    str(array.type): array
    for array in (
        of(pa.list_(pa.int32()), [1], []),
        of(pa.large_list(pa.string()), ["a"], []),
        of(pa.list_(pa.int8(), 2), [1, 2], [3, 4]),
        of(pa.list_view(pa.int8()), [1, 2, 3], [4]),
        of(pa.struct([("a", pa.int8()), ("b", pa.string())]), {"a": 1, "b": "x"}, {"a": None, "b": "y"}),
        of(pa.list_(pa.struct([("a", pa.int8())])), [{"a": 1}], []),
        of(pa.map_(pa.string(), pa.int8()), [("a", 1)], []),
        of(pa.list_(pa.dictionary(pa.int8(), pa.string())), ["b", "a"], ["a"]),
        of(pa.struct([("a", pa.dictionary(pa.int8(), pa.string()))]), {"a": "x"}, {"a": None}),
        of(pa.struct([("a", pa.string_view())]), {"a": "x"}, {"a": None}),
        of(pa.struct([("a", pa.uuid().storage_type)]), {"a": b"1" * 16}, {"a": None}),
        of(pa.json_(pa.string()), "{}", "[1]"),
        of(pa.opaque(pa.binary(), "t", "v"), b"{}", b"[1]"),
        of(pa.fixed_shape_tensor(pa.float32(), [2]), [1, 2], [3, 4]),
    )
}
EVERY = {**ORDERED, **UNORDERED, "null": pa.nulls(4)}
BY_TYPE = RankingStrategy.metadata_based(["x"])


def storable(array: pa.Array) -> bool:
    """Whether this PyArrow writes it to Parquet and reads it again."""
    sink = pa.BufferOutputStream()
    try:
        pq.write_table(pa.table({"x": array}), sink)
        pq.read_table(pa.BufferReader(sink.getvalue()))
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        return False
    return True


def put(place: Path, rows: np.ndarray | list | pa.Array, ids: Any = None, **columns: Any) -> Path:
    """Write a file of embeddings."""
    place.parent.mkdir(parents=True, exist_ok=True)
    embedding = rows if isinstance(rows, pa.Array) else pa.array([list(map(float, row)) for row in rows])
    named = {"id": ids, "embedding": embedding} if ids is not None else {"embedding": embedding}
    pq.write_table(pa.table({**named, **columns}), place)
    return place


def units(n: int, dim: int = 4, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)


# Ranked by


@pytest.mark.parametrize("name", EVERY)
def test_a_column_is_ranked_in_its_order_or_refused(name: str) -> None:
    table = pa.table({"id": ["a", "b", "c", "d"], "x": EVERY[name]})
    if name in UNORDERED:
        with pytest.raises(ParameterError, match=r"needs a column with an order; 'x' in A is "):
            check_rankable(table.schema, BY_TYPE, "A")
        return
    check_rankable(table.schema, BY_TYPE, "A")
    first, last = ([0, 1], [1, 0]) if name == "null" else ([0, 2], [2, 0])
    for ascending, expected in ((True, first), (False, last)):
        strategy = RankingStrategy.metadata_based(["x"], ascending)
        assert rank_order(table, strategy).tolist()[:2] == (expected if name != "null" else [0, 1])
        assert rank_order(pa.concat_tables([table.slice(2), table.slice(0, 2)]), strategy).tolist()[2:] != []


# Carried along


def test_columns_of_every_type_come_out_of_the_clusters_as_they_went_in(
    inside: distributed.Client, tmp_path: Path
) -> None:
    columns = {f"c{i}": array for i, array in enumerate(EVERY.values()) if storable(array)}
    assert len(columns) > 30
    put(tmp_path / "in" / "a.parquet", units(4), list("abcd"), **columns)
    put(tmp_path / "in" / "b.parquet", units(4, seed=1), list("efgh"))
    put(tmp_path / "in" / "c.parquet", units(4, seed=2), list("ijkl"), **dict.fromkeys(columns, pa.nulls(4)))
    put(
        tmp_path / "in" / "d.parquet",
        units(4, seed=3),
        list("mnop"),
        **{name: pa.concat_arrays([c.slice(2), c.slice(0, 2)]) for name, c in columns.items()},
    )
    given = pa.concat_tables(
        [pq.read_table(tmp_path / "in" / f"{name}.parquet") for name in "ad"], promote_options="permissive"
    ).drop_columns(["embedding"])
    ranked = RankingStrategy.metadata_based([name for name in columns if int(name[1:]) < len(ORDERED)][::7])
    result = workflow(
        tmp_path / "in", tmp_path / "out", metadata_fields=tuple(columns), ranking_strategy=ranked, exact_up_to=0.1
    ).run(inside)
    assert (result.total, result.quarantined) == (16, {})
    clusters = pa.concat_tables(
        [
            pq.read_table(file, partitioning=None)
            for file in sorted((tmp_path / "out/kmeans_results").rglob("*.parquet"))
        ]
    )
    found = {row["id"]: row for row in clusters.select(["id", *columns]).to_pylist()}
    assert {row["id"]: row for row in given.to_pylist()} == {name: found[name] for name in "abcdmnop"}
    assert all(value is None for name in "efghijkl" for value in list(found[name].values())[1:])
    for name, array in columns.items():
        if not pa.types.is_dictionary(array.type) and not pa.types.is_nested(array.type):
            assert clusters.schema.field(name).type == carried_type(given.schema.field(name).type)


@pytest.mark.parametrize(
    ("one", "other", "together"),
    [
        (pa.int32(), pa.int64(), pa.int64()),
        (pa.timestamp("s"), pa.timestamp("ns"), pa.timestamp("ns")),
        (pa.dictionary(pa.int8(), pa.string()), pa.string(), pa.string()),
        (pa.dictionary(pa.int8(), pa.string()), pa.dictionary(pa.int32(), pa.large_string()), pa.large_string()),
        (pa.string_view(), pa.large_string(), pa.large_string()),
        (pa.null(), pa.uuid(), pa.uuid()),
        (pa.decimal128(5, 2), pa.decimal256(50, 4), pa.decimal256(50, 4)),
        (pa.struct([("a", pa.int8())]), pa.struct([("a", pa.int64())]), pa.struct([("a", pa.int64())])),
        (pa.dictionary(pa.int8(), pa.string()), pa.int64(), None),
        (pa.string(), pa.int64(), None),
        (pa.timestamp("s", "UTC"), pa.timestamp("s"), None),
        (pa.uuid(), pa.string(), None),
        (pa.list_view(pa.int8()), pa.null(), pa.list_view(pa.int8())),
        (pa.list_view(pa.int8()), pa.list_view(pa.int64()), None),
        (pa.list_view(pa.string_view()), pa.null(), None),
        (pa.list_(pa.float32(), 0), pa.null(), None),
    ],
    ids=str,
)
def test_two_types_have_one_that_holds_both_or_none(one: pa.DataType, other: pa.DataType, together: Any) -> None:
    assert common_type(one, other) == common_type(other, one) == together


@pytest.mark.parametrize(
    ("columns", "value"),
    [
        (
            {"id": (pa.array([1, 2]), pa.array([3, 2**63], pa.uint64()))},
            "'id' of .*b.parquet is uint64.* 9223372036854",
        ),
        (
            {"m": (pa.array([5, 2**40], pa.timestamp("s")), pa.array([5, 6], pa.timestamp("ns")))},
            "'m' of .*a.parquet is timestamp.* does not fit into timestamp",
        ),
        ({"m": (pa.array([0.5, 1.5]), pa.array([1, 2**53 + 1]))}, "'m' of .*b.parquet is int64.* 9007199254740993"),
    ],
    ids=["ids", "points in time", "numbers"],
)
def test_a_value_that_does_not_fit_is_named_and_no_damage_of_its_file(
    columns: dict[str, tuple[pa.Array, pa.Array]], value: str, inside: distributed.Client, tmp_path: Path
) -> None:
    for i, name in enumerate("ab"):
        others = {"id": [f"{name}0", f"{name}1"], **{column: both[i] for column, both in columns.items()}}
        put(tmp_path / "in" / f"{name}.parquet", units(2, seed=i), others.pop("id"), **others)
    with pytest.raises(InputError, match=value) as raised:
        workflow(
            tmp_path / "in", tmp_path / "out", metadata_fields=[*columns.keys() - {"id"}], skip_bad_files=True
        ).run(inside)
    assert not isinstance(raised.value, BadFileError)


def test_values_that_python_has_no_object_for_are_shown_as_text() -> None:
    days = pa.array([2**50, None], pa.timestamp("ms"))
    rows = python_rows(pa.record_batch({"far": days, "near": pa.array([1, 2])}))
    assert [row["near"] for row in rows] == [1, 2]
    assert str(2**50) in rows[0]["far"]
    assert rows[1]["far"] is None


# Embeddings


def lists(kind: pa.DataType, rows: Any) -> pa.Array:
    if isinstance(kind, pa.BaseExtensionType):
        return pa.ExtensionArray.from_storage(kind, pa.array(rows, kind.storage_type))
    return pa.array(rows, kind)


WHOLE, PARTS = [[1, 2], [-3, 4]], [[0.5, 2], [-3, 0.25]]
BITS = np.array(PARTS, np.float16).view(np.uint16).tolist()
EMBEDDINGS: dict[str, tuple[pa.Array, Any]] = {
    str(array.type): (array, rows)
    for array, rows in (
        *(
            (lists(make(kind), np.array(PARTS, kind.to_pandas_dtype()).tolist()), PARTS)
            for kind in (pa.float32(), pa.float64())
            for make in (pa.list_, pa.large_list, pa.list_view, pa.large_list_view)
        ),
        (pa.array([list(map(np.float16, row)) for row in PARTS], pa.list_(pa.float16())), PARTS),
        *((lists(pa.list_(kind), WHOLE), WHOLE) for kind in (pa.int8(), pa.int16(), pa.int32())),
        (lists(pa.list_(pa.uint8(), 2), [[1, 2], [3, 255]]), [[1, 2], [3, 255]]),
        (lists(pa.list_(pa.float32(), 2), PARTS), PARTS),
        (lists(pa.fixed_shape_tensor(pa.float32(), [2, 1]), PARTS), PARTS),
        (lists(pa.fixed_shape_tensor(pa.int8(), [1, 2]), WHOLE), WHOLE),
        (pa.nulls(2), [None, None]),
        (lists(pa.list_(pa.null()), [[None, None], []]), [[None, None], []]),
        (lists(pa.list_(pa.float32(), 0), [[], []]), [[], []]),
    )
}
NO_EMBEDDINGS = (
    *(pa.list_(kind) for kind in (pa.int64(), pa.uint16(), pa.uint32(), pa.uint64(), pa.bool_(), pa.string())),
    *(pa.list_(pa.decimal128(5, 2)), pa.list_(pa.list_(pa.float32())), pa.string(), pa.binary(), pa.float32()),
    *(pa.dictionary(pa.int8(), pa.string()), pa.struct([("a", pa.float32())]), pa.uuid()),
    pa.fixed_shape_tensor(pa.float32(), [2, 2], permutation=[1, 0]),
)


def test_embeddings_of_every_accepted_type_are_clustered_as_their_numbers(
    inside: distributed.Client, tmp_path: Path
) -> None:
    expected, bad = {}, 0
    for i, (array, rows) in enumerate(EMBEDDINGS.values()):
        try:
            put(tmp_path / "in" / f"{i:02d}.parquet", array, [f"{i}-0", f"{i}-1"])
        except pa.ArrowNotImplementedError:  # PyArrow 19 and views
            continue
        for row, values in enumerate(rows):
            if values and None not in values:
                expected[f"{i}-{row}"] = np.array(values) / np.linalg.norm(values)
            bad += not values or None in values
    stage = workflow(tmp_path / "in", tmp_path / "out", n_clusters=2)
    result = stage.run(inside)
    assert result.n_quarantined == bad
    clusters = ds.dataset(tmp_path / "out" / "kmeans_results").to_table().to_pylist()
    assert {row["id"] for row in clusters} == expected.keys()
    for row in clusters:
        np.testing.assert_allclose(row["embedding"], expected[row["id"]], rtol=1e-6)
    facts = json.loads((tmp_path / "out" / "_manifest.json").read_text())["steps"]["kmeans"]["facts"]
    assert {"embedding: list<int8> read as float32", "embedding: list<int32> read as float64"} <= set(facts["casts"])
    assert len(set(facts["casts"])) == len(facts["casts"])


@pytest.mark.parametrize("kind", NO_EMBEDDINGS, ids=str)
def test_other_types_are_no_embeddings(kind: pa.DataType) -> None:
    said = "embedding_encoding='fp16_bits'" if kind == pa.list_(pa.uint16()) else "embeddings must be lists of float16"
    with pytest.raises(BadFileError, match=rf"'embedding' of a is {re.escape(str(kind))}; .*{said}"):
        check_file_schema(pa.schema([("id", pa.string()), ("embedding", kind)]), "a", InputOptions())


@pytest.mark.parametrize("make", [pa.list_, pa.large_list, pa.list_view, lambda kind: pa.list_(kind, 2)])
def test_bits_of_float16_are_read_where_it_is_said_or_curator_wrote_them(make: Callable) -> None:
    column = pa.chunked_array([pa.array([*BITS, None], make(pa.uint16()))]).slice(1)
    assert as_embeddings(column, fp16_bits=True).to_pylist() == [PARTS[1], None]
    assert embedding_type(column.type) is None
    assert is_fp16_bits(None, "s3://b/x/kmeans_results/centroid=3/a.parquet")
    assert not is_fp16_bits(None, "s3://b/kmeans_results/a.parquet")
    assert is_fp16_bits("fp16_bits", "a.parquet")


def test_clusters_of_curator_are_compared(inside: distributed.Client, tmp_path: Path) -> None:
    bits = units(20).astype(np.float16)
    bits[7] = bits[3]
    column = pa.array(bits.view(np.uint16).tolist(), pa.list_(pa.uint16()))
    put(tmp_path / "kmeans_results" / "centroid=0" / "a.parquet", column, [f"{i}" for i in range(20)],
        cosine_dist_to_cent=pa.array(np.linspace(0, 1, 20), pa.float32()))  # fmt: skip
    PairwiseStage(input_path=str(tmp_path / "kmeans_results"), output_path=str(tmp_path / "out"), verbose=False).run(
        inside
    )
    scores = pq.read_table(tmp_path / "out" / "cluster_0.parquet").to_pylist()
    assert {row["id"]: row["max_id"] for row in scores if row["cosine_sim_score"] == 1} == {"3": "7"}


# Ids

UUID = uuid.UUID(int=2**127 + 5)


@pytest.mark.parametrize(
    ("array", "ids"),
    [
        (pa.array(["a", None]), ["a", None]),
        (pa.array(["a", None], pa.large_string()), ["a", None]),
        (pa.array(["a", None], pa.string_view()), ["a", None]),
        (pa.array(["a", None]).dictionary_encode(), ["a", None]),
        (lists(pa.uuid(), [UUID.bytes, None]), [str(UUID), None]),
        (pa.array([b"\x00\xff", None], pa.binary(2)), ["00ff", None]),
        (pa.array([b"\x00\xff", None]), ["00ff", None]),
        (pa.array([b"\x00\xff", None], pa.binary_view()), ["00ff", None]),
        (pa.array([1, None], pa.uint32()), [1, None]),
        (pa.array([2**64 - 1, None], pa.uint64()), [2**64 - 1, None]),
        (pa.array([5, None], pa.int16()).dictionary_encode(), [5, None]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_ids_are_read_as_text_or_whole_numbers(array: pa.Array, ids: list) -> None:
    kind = id_type(array.type)
    assert kind in (pa.string(), pa.int64(), pa.uint64())
    found = as_ids(pa.chunked_array([array]), kind)
    assert (found.type, found.to_pylist()) == (kind, ids)


def test_ids_of_types_that_go_together_do_and_others_name_both_files(
    inside: distributed.Client, tmp_path: Path
) -> None:
    put(tmp_path / "text" / "a.parquet", units(1), lists(pa.uuid(), [UUID.bytes]))
    put(tmp_path / "text" / "b.parquet", units(1, seed=1), ["x"])
    workflow(tmp_path / "text", tmp_path / "out").run(inside)
    assert read_all_scores(tmp_path / "out")["id"].tolist() == [str(UUID), "x"]
    put(tmp_path / "numbers" / "a.parquet", units(1), pa.array([-1], pa.int8()))
    put(tmp_path / "numbers" / "b.parquet", units(1, seed=1), pa.array([2**63 - 1], pa.uint64()))
    workflow(tmp_path / "numbers", tmp_path / "out2").run(inside)
    assert read_all_scores(tmp_path / "out2")["id"].tolist() == [-1, 2**63 - 1]
    put(tmp_path / "text" / "c.parquet", units(1), pa.array([b"1"], pa.binary(1)))
    with pytest.raises(BadFileError, match=r"'id' is bytes in .*c\.parquet but UUIDs in .*a\.parquet"):
        workflow(tmp_path / "text", tmp_path / "out3").describe()


def test_clusters_of_others_pass_the_checks_of_our_own_input(inside: distributed.Client, tmp_path: Path) -> None:
    def refused(name: str, match: str, *tables: dict[str, Any], **options: Any) -> None:
        for i, table in enumerate(tables):
            rows = table.pop("rows", units(2, seed=i))
            put(tmp_path / name / f"centroid={i}" / "a.parquet", rows, **{"cosine_dist_to_cent": [0.5, 0.6], **table})
        stage = PairwiseStage(
            input_path=str(tmp_path / name), output_path=str(tmp_path / f"out-{name}"), verbose=False, **options
        )
        with pytest.raises(SemdedupError, match=match):
            stage.run(inside)

    refused("ids", "'id' is int64 in .*centroid=1/a.parquet but text in", {"ids": ["a", "b"]}, {"ids": [1, 2]})
    refused("marks", "'low_information' of .* is string", {"ids": ["a", "b"], "low_information": ["x", "y"]})
    refused("bits", "embedding_encoding", {"ids": ["a", "b"], "rows": pa.array([[1], [2]], pa.list_(pa.uint16()))})
    refused("length", "length 4 and none of length 5", {"ids": ["a", "b"]}, embedding_dim=5)
    refused("nothing", "holds? no embeddings", {"ids": ["a", "b"], "rows": pa.nulls(2)})
    refused(
        "ranks",
        "'x' is string in .* but int64 in",
        {"ids": ["a", "b"], "x": ["a", "b"]},
        {"ids": ["c", "d"], "x": [1, 2]},
        ranking_strategy=BY_TYPE,
    )


# Marks of low information


def test_marks_may_be_truth_or_0_and_1_or_null_and_rows_that_are_marked_match_nothing(
    inside: distributed.Client, tmp_path: Path
) -> None:
    kinds = [pa.bool_(), pa.int8(), pa.uint64(), pa.null(), None]
    for i, kind in enumerate(kinds):
        marks = [None] * 3 if kind == pa.null() else [1, 0, None] if kind != pa.bool_() else [True, False, None]
        columns = {} if kind is None else {"low_information": pa.array(marks, kind)}
        put(tmp_path / "in" / f"{i}.parquet", [[1, 2, 3]] * 3, [f"{i}{n}" for n in range(3)], **columns)
    result = workflow(tmp_path / "in", tmp_path / "out", n_clusters=1).run(inside)
    scores = read_all_scores(tmp_path / "out").set_index("id")["cosine_sim_score"]
    assert scores[[f"{i}0" for i in range(3)]].tolist() == [0] * 3
    assert result.duplicates == 15 - 3 - 1


@pytest.mark.parametrize(
    "kind",
    [pa.float64(), pa.string(), pa.list_(pa.bool_()), pa.dictionary(pa.int8(), pa.bool_()), pa.decimal128(1, 0)],
    ids=str,
)
def test_marks_of_other_types_are_refused_by_name(kind: pa.DataType) -> None:
    schema = pa.schema([("id", pa.string()), ("embedding", pa.list_(pa.float32())), ("low_information", kind)])
    with pytest.raises(BadFileError, match=rf"'low_information' of a, .* is {re.escape(str(kind))}"):
        check_file_schema(schema, "a", InputOptions())


@pytest.mark.parametrize("value", [2, -1])
def test_a_mark_of_another_value_is_named_with_its_file(value: int, inside: distributed.Client, tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", units(2), ["a", "b"], low_information=pa.array([0, value], pa.int64()))
    with pytest.raises(BadFileError, match=rf"'low_information' of .*a\.parquet has the value {value};"):
        workflow(tmp_path / "a.parquet", tmp_path / "out").run(inside)


# Names of columns


def test_a_column_that_is_used_stands_there_once_and_others_may_be_anything(
    inside: distributed.Client, tmp_path: Path
) -> None:
    arrays = {"id": pa.array(["a", "b"]), "embedding": pa.array([[1.0, 2.0], [2.0, 1.0]]), "m": pa.array([1, 2])}
    nested = pa.array([{"b": [1.0]}, {"b": [2.0]}])

    def write(*names: str) -> Path:
        columns = [nested if name == "v" else arrays.get(name, arrays["m"]) for name in names]
        pq.write_table(pa.Table.from_arrays(columns, names=list(names)), tmp_path / "a.parquet")
        return tmp_path / "a.parquet"

    for twice in ("id", "embedding", "m"):
        file = write("id", "embedding", "m", twice)
        with pytest.raises(BadFileError, match=f"the column '{twice}' stands there twice"):
            workflow(file, tmp_path / "out", metadata_fields="m").describe()
    file = write("id", "embedding", "x", "x", "", "ID", "Id", "m.n", "é.\n", "v")
    result = workflow(file, tmp_path / "out", metadata_fields=["m.n", "é.\n", "ID"]).run(inside)
    assert result.total == 2
    pq.write_table(pa.Table.from_arrays([arrays["id"], arrays["embedding"], nested], names=["ID", "v.b", "v"]), file)
    assert workflow(file, tmp_path / "out2", id_field="ID", embedding_field="v.b").run(inside).total == 2
    with pytest.raises(BadFileError, match="no column 'id'; it has ID"):
        workflow(file, tmp_path / "out3", embedding_field="v.b").describe()


# Ids of file and row


def test_ids_are_made_of_file_and_row_where_there_are_none(inside: distributed.Client, tmp_path: Path) -> None:
    rows = units(90)
    rows[60:] = rows[:30]
    put(tmp_path / "in" / "a.parquet", rows[:40])
    put(tmp_path / "in" / "more" / "b c.parquet", rows[40:])
    expected = {f"a.parquet:{i}" for i in range(40)} | {f"more/b c.parquet:{i}" for i in range(50)}
    answers = []
    for name, options in (("one", {}), ("other", {"files_per_partition": 1})):
        workflow(tmp_path / "in", tmp_path / name, id_field=None, **options).run(inside)
        answers.append(read_all_scores(tmp_path / name))
        assert set(answers[-1]["id"]) == expected
    assert answers[0].equals(answers[1])
    best = answers[0].set_index("id")["cosine_sim_score"]
    assert max(best["a.parquet:7"], best["more/b c.parquet:27"]) == 1


def test_rows_of_json_lines_are_counted_through_the_file(
    inside: distributed.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("semdedup.dedup.input.jsonl.BLOCK_BYTES", 200)
    lines = [json.dumps({"embedding": row}) for row in units(40).tolist()]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    workflow(tmp_path / "a.jsonl", tmp_path / "out", id_field=None, input_filetype="jsonl").run(inside)
    assert set(read_all_scores(tmp_path / "out")["id"]) == {f"a.jsonl:{i}" for i in range(40)}


def test_no_id_field_is_said_by_none_or_by_empty_text() -> None:
    assert InputOptions.of({"id_field": None}).id_field is None
    assert InputOptions.of({"id_field": ""}).id_field is None
    assert InputOptions.of({}).id_field == "id"


# The sample to fit on


def test_a_sample_is_of_rows_that_can_be_compared_however_few(inside: distributed.Client, tmp_path: Path) -> None:
    rows = np.zeros((3000, 4), np.float32)
    rows[1500:1530] = units(30)
    ids = [f"{i}" for i in range(3000)]
    put(tmp_path / "one" / "a.parquet", rows, ids)
    for i, start in enumerate(range(0, 3000, 1000)):
        put(tmp_path / "many" / f"{i}.parquet", rows[start : start + 1000], ids[start : start + 1000])
    found = []
    for name in ("one", "many"):
        result = workflow(tmp_path / name, tmp_path / f"out-{name}", fit_data_fraction=0.001).run(inside)
        assert (result.total, result.quarantined) == (3000, {"zero": 2970})
        found.append(np.load(tmp_path / f"out-{name}" / "_kmeans_centroids.npy"))
    assert found[0].shape == (3, 4)
    np.testing.assert_array_equal(*found)


def test_an_input_without_ids_is_refused_with_what_was_found(inside: distributed.Client, tmp_path: Path) -> None:
    put(tmp_path / "a.parquet", units(2), pa.array([None, None], pa.string()))
    with pytest.raises(InputError, match=r"every row was set aside.*: 2 null_id"):
        workflow(tmp_path / "a.parquet", tmp_path / "out").run(inside)
