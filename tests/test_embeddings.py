"""Embedding columns of every kind, the arrays that they hold, and why some rows cannot be compared."""

from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import ParameterError
from semdedup.dedup.input.rows import (
    REASONS,
    check_rows,
    commonest_length,
    embedding_rows,
    gather_unit_rows,
    length_counts,
    with_source,
)
from semdedup.dedup.kernels.exact import unit_rows
from semdedup.storage.tables import embedding_column

LISTS = {
    "list": lambda element: pa.list_(element),
    "large_list": lambda element: pa.large_list(element),
    "fixed_size_list": lambda element: pa.list_(element, 3),
}
ELEMENTS = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}

WHOLE = [[1.0, 2.0, 3.0], [0.0, -1.0, 0.5], [4.0, 0.0, 0.0], [0.25, 0.0, -8.0], [1.0, 1.0, 1.0]]
NAN, INF = float("nan"), float("inf")
FAULTY = [
    ([1.0, 2.0, 3.0], ""),
    (None, "null"),
    ([0.0, -0.0, 0.0], "zero"),
    ([1.0, NAN, 0.0], "not_finite"),
    ([0.0, -INF, 0.0], "not_finite"),
    ([1.0, None, 2.0], "not_finite"),
    ([None, None, None], "not_finite"),
    ([0.0, 0.0, 6.0], ""),
]
RAGGED = [([], "wrong_length"), ([1.0, 2.0], "wrong_length"), ([1.0, 2.0, 3.0, 4.0], "wrong_length")]


@pytest.fixture(params=LISTS)
def list_of(request: pytest.FixtureRequest) -> Any:
    return LISTS[request.param]


@pytest.fixture(params=ELEMENTS)
def element(request: pytest.FixtureRequest) -> pa.DataType:
    return ELEMENTS[request.param]


def cut(column: pa.Array, how: str) -> pa.ChunkedArray:
    """The rows of the column but for the first, laid out in one of the ways that Arrow has."""
    tail = column.slice(1)
    if how == "sliced":
        return pa.chunked_array([tail])
    if how == "chunked":
        return pa.chunked_array([tail.slice(0, 1), tail.slice(1, 0), tail.slice(1)])
    return pa.chunked_array([pa.concat_arrays([tail])], type=column.type)


def array_of(rows: list[Any], kind: pa.DataType) -> pa.Array:
    if pa.types.is_float16(kind.value_type):
        rows = [None if row is None else [None if x is None else np.float16(x) for x in row] for row in rows]
    return pa.array(rows, kind)


def reasons(column: pa.ChunkedArray, dim: int, ids: pa.ChunkedArray | None = None) -> list[str]:
    ids = pa.chunked_array([np.arange(len(column))]) if ids is None else ids
    return [REASONS[code] for code in check_rows(ids, column, dim).faults]


@pytest.mark.parametrize("layout", ["sliced", "chunked", "whole"])
def test_whole_rows_come_back_in_their_order_and_type(list_of: Any, element: pa.DataType, layout: str) -> None:
    column = cut(array_of(WHOLE, list_of(element)), layout)
    rows, positions = embedding_rows(column, 3)
    assert rows.tolist() == WHOLE[1:]
    assert rows.dtype == element.to_pandas_dtype()
    assert positions.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("layout", ["sliced", "chunked", "whole"])
def test_every_fault_gets_its_reason_and_the_other_rows_stay_in_line(
    list_of: Any, element: pa.DataType, layout: str
) -> None:
    kind = list_of(element)
    cases = FAULTY if pa.types.is_fixed_size_list(kind) else FAULTY + RAGGED + FAULTY[:1]
    column = cut(array_of([WHOLE[0], *(row for row, _ in cases)], kind), layout)
    ids = pa.chunked_array([np.arange(len(column))])
    checked = check_rows(ids, column, 3)
    assert [REASONS[code] for code in checked.faults] == [reason for _, reason in cases]
    good = [(position, row) for position, (row, reason) in enumerate(cases) if not reason]
    assert checked.positions.tolist() == [position for position, _ in good]
    assert checked.rows.tolist() == [row for _, row in good]
    np.testing.assert_allclose(np.linalg.norm(unit_rows(checked.rows), axis=1), 1, rtol=1e-6)  # float32 of dimension 3


def test_an_embedding_of_the_wrong_fixed_size_is_of_the_wrong_length(element: pa.DataType) -> None:
    column = pa.chunked_array([array_of([*WHOLE, None], pa.list_(element, 3))])
    assert reasons(column, 4) == ["wrong_length"] * 5 + ["null"]
    assert embedding_rows(column, 4)[0].shape == (0, 4)


def test_a_row_without_an_id_is_at_fault_for_that(list_of: Any) -> None:
    column = pa.chunked_array([array_of([WHOLE[0], None, WHOLE[1]], list_of(pa.float32()))])
    ids = pa.chunked_array([pa.array([None, None, "c"])])
    assert reasons(column, 3, ids) == ["null_id", "null_id", ""]


def test_null_rows_shift_nobody_even_where_the_values_would_reshape(list_of: Any) -> None:
    rows = [None if position % 2 else [position, 1.0, 2.0] for position in range(12)]
    found, positions = embedding_rows(pa.chunked_array([array_of(rows, list_of(pa.float32()))]), 3)
    assert found[:, 0].tolist() == positions.tolist() == [0, 2, 4, 6, 8, 10]


def test_ragged_rows_whose_values_would_reshape_are_told_apart() -> None:
    column = pa.chunked_array([pa.array([[1.0], [2.0, 3.0, 4.0], [5.0, 6.0]])])
    assert reasons(column, 2) == ["wrong_length", "wrong_length", ""]


def test_values_under_null_rows_are_not_read() -> None:
    values = pa.array([1.0, 2.0, 7.0, 7.0, 3.0, 4.0])
    for make in (
        lambda mask: pa.ListArray.from_arrays(pa.array([0, 2, 4, 6], pa.int32()), values, mask=mask),
        lambda mask: pa.FixedSizeListArray.from_arrays(values, 2, mask=mask),
    ):
        rows, positions = embedding_rows(pa.chunked_array([make(pa.array([False, True, False]))]), 2)
        assert rows.tolist() == [[1, 2], [3, 4]]
        assert positions.tolist() == [0, 2]


@pytest.mark.parametrize("n_chunks", [0, 1, 2])
def test_a_column_without_rows_has_none(list_of: Any, element: pa.DataType, n_chunks: int) -> None:
    kind = list_of(element)
    column = pa.chunked_array([pa.array([], kind)] * n_chunks, type=kind)
    checked = check_rows(pa.chunked_array([pa.array([], pa.string())]), column, 3)
    assert unit_rows(checked.rows).shape == (0, 3)
    assert len(checked.positions) == len(checked.faults) == 0


def test_a_column_of_nulls_only_is_null(list_of: Any) -> None:
    assert reasons(pa.chunked_array([pa.nulls(3, list_of(pa.float32()))]), 3) == ["null"] * 3


def test_the_largest_and_smallest_values_of_a_type_are_finite_and_not_zero(element: pa.DataType) -> None:
    limits = np.finfo(element.to_pandas_dtype())
    rows = [[limits.max, 0, 0], [0, limits.smallest_subnormal, 0], [limits.min, limits.max, limits.min]]
    values = pa.array(np.array(rows, dtype=element.to_pandas_dtype()).reshape(-1))
    column = pa.chunked_array([pa.FixedSizeListArray.from_arrays(values, 3)])
    assert reasons(column, 3) == ["", "", ""]
    np.testing.assert_allclose(np.linalg.norm(unit_rows(check_rows(column, column, 3).rows), axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize("kind", ["list", "large_list", "fixed_size_list"])
@pytest.mark.parametrize("sliced", [False, True], ids=["whole", "sliced"])
def test_one_whole_chunk_is_not_copied(kind: str, sliced: bool) -> None:
    values = np.arange(1, 31, dtype=np.float32)
    column = {
        "list": lambda: pa.ListArray.from_arrays(np.arange(0, 31, 3, dtype=np.int32), pa.array(values)),
        "large_list": lambda: pa.LargeListArray.from_arrays(np.arange(0, 31, 3), pa.array(values)),
        "fixed_size_list": lambda: pa.FixedSizeListArray.from_arrays(pa.array(values), 3),
    }[kind]()
    column = pa.chunked_array([column.slice(2, 5) if sliced else column])
    rows, _ = embedding_rows(column, 3)
    assert np.shares_memory(rows, values)
    assert np.shares_memory(check_rows(column, column, 3).rows, values)


@given(
    rows=st.lists(
        st.none() | st.lists(st.none() | st.sampled_from([0.0, 1.0, -2.5, NAN, INF]), max_size=4), max_size=20
    ),
    cuts=st.lists(st.integers(0, 20), max_size=4),
    dim=st.integers(1, 4),
    large=st.booleans(),
)
def test_reasons_are_those_of_a_look_at_each_row_however_the_column_is_chunked(
    rows: list[Any], cuts: list[int], dim: int, large: bool
) -> None:
    def reason(row: list[float | None] | None) -> str:
        if row is None:
            return "null"
        if len(row) != dim:
            return "wrong_length"
        if not all(value is not None and np.isfinite(value) for value in row):
            return "not_finite"
        return "" if any(row) else "zero"

    kind = (pa.large_list if large else pa.list_)(pa.float32())
    column = pa.array(rows, kind)
    edges = [0, *sorted(min(cut, len(rows)) for cut in cuts), len(rows)]
    chunks = [column.slice(start, stop - start) for start, stop in pairwise(edges)]
    chunked = pa.chunked_array(chunks, type=kind)
    assert reasons(chunked, dim) == [reason(row) for row in rows]
    ids = pa.chunked_array([np.arange(len(rows))])
    assert check_rows(ids, chunked, dim).rows.tolist() == [row for row in rows if not reason(row)]


@pytest.mark.parametrize("cuts", [[], [4], [0, 1, 1, 5, 8]], ids=["one table", "two", "six, two of them empty"])
def test_rows_gathered_from_tables_are_those_of_one_table(list_of: Any, cuts: list[int]) -> None:
    column = array_of([row for row, _ in FAULTY], list_of(pa.float32()))
    table = pa.table({"id": list("abcdefgh"), "note": range(8), "embedding": column})
    edges = [0, *cuts, 8]
    tables = (table.slice(start, stop - start) for start, stop in pairwise(edges))
    out = np.zeros((8, 3), dtype=np.float32)
    found = gather_unit_rows(tables, 3, out)
    assert found.n_rows == 2
    assert found.others.to_pylist() == [{"id": "a", "note": 0}, {"id": "h", "note": 7}]
    assert found.positions.tolist() == [0, 7]
    np.testing.assert_array_equal(out[:2], unit_rows(np.array([[1, 2, 3], [0, 0, 6]])))
    quarantine = with_source(found.faulty, "here").to_pylist()
    expected = [(letter, reason) for letter, (_, reason) in zip("abcdefgh", FAULTY, strict=True) if reason]
    assert [(row["id"], row["reason"], row["source"]) for row in quarantine] == [(*pair, "here") for pair in expected]
    light = gather_unit_rows([table], 3, None)
    assert light.others.equals(found.others)


@given(seed=st.integers(0, 2**32), n=st.integers(0, 40), dim=st.integers(1, 9))
def test_a_column_made_of_rows_gives_them_back(seed: int, n: int, dim: int) -> None:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    column = embedding_column(rows)
    assert column.type == pa.list_(pa.float32())
    column.validate(full=True)
    found, positions = embedding_rows(pa.chunked_array([column]), dim)
    np.testing.assert_array_equal(found, rows)
    assert positions.tolist() == list(range(n))


def test_a_column_of_contiguous_rows_shares_their_memory(rng: np.random.Generator) -> None:
    rows = rng.normal(size=(10, 4)).astype(np.float32)
    assert np.shares_memory(embedding_column(rows).flatten().to_numpy(), rows)
    assert embedding_column(rows[:, ::2]).to_pylist() == rows[:, ::2].tolist()


def test_more_elements_than_a_list_array_holds_are_refused() -> None:
    rows = np.broadcast_to(np.float32(0), (1 << 21, 1 << 10))
    with pytest.raises(ParameterError, match="in parts"):
        embedding_column(rows)


@pytest.mark.parametrize(
    ("rows", "counts", "expected"),
    [
        ([[1.0], [1.0, 2.0], [3.0, 4.0], None, []], {0: 1, 1: 1, 2: 2}, 2),
        ([[1.0], [1.0, 2.0]], {1: 1, 2: 1}, 2),
        ([[], [], [1.0]], {0: 2, 1: 1}, 1),
        ([[], None], {0: 1}, 0),
        ([], {}, 0),
    ],
    ids=["commonest", "of equally common ones the largest", "empty is no length", "none", "no rows"],
)
def test_the_expected_length_is_the_commonest(rows: list[Any], counts: dict[int, int], expected: int) -> None:
    found = length_counts(pa.chunked_array([pa.array(rows, pa.list_(pa.float32()))]))
    assert found == counts
    assert commonest_length(found) == expected
