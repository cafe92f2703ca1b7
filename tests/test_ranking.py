"""Rank: who is kept."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import ParameterError, RankingStrategy
from semdedup.dedup.ranking import check_rankable, rank_order

TABLE = pa.table(
    {
        "id": ["a", "b", "c", "d", "e"],
        "cosine_dist_to_cent": pa.array([0.1, 0.5, 0.5, 0.2, 0.1], pa.float32()),
        "l2_dist_to_cent": pa.array([5, 4, 3, 2, 1], pa.float32()),
        "quality": pa.array([1.0, None, 3.0, float("nan"), 3.0]),
        "height": pa.array([720, 1080, 720, 1080, 480]),
    }
)


def ranked(strategy: RankingStrategy, table: pa.Table = TABLE) -> str:
    return "".join(map(str, table.column("id").take(pa.array(rank_order(table, strategy))).to_pylist()))


@pytest.mark.parametrize(
    ("strategy", "order"),
    [
        (RankingStrategy.by_distance("hard", "cosine"), "cbdea"),
        (RankingStrategy.by_distance("easy", "cosine"), "aedbc"),
        (RankingStrategy.by_distance("soft", "cosine"), "aedbc"),
        (RankingStrategy.by_distance("hard", "l2"), "abcde"),
        (RankingStrategy.metadata_based("height"), "eacbd"),
        (RankingStrategy.metadata_based(["height"], ascending=False), "bdace"),
        (RankingStrategy.metadata_based(["height", "quality"], ascending=[False, True]), "bdace"),
        (RankingStrategy.metadata_based("quality"), "acebd"),
        (RankingStrategy.metadata_based("quality", ascending=False), "ceabd"),
    ],
)
def test_the_order_is_that_of_the_rule_with_nulls_last_and_ties_by_id(strategy: RankingStrategy, order: str) -> None:
    assert ranked(strategy) == order


STRATEGIES = [
    RankingStrategy.by_distance("hard", "cosine"),
    RankingStrategy.by_distance("easy", "l2"),
    RankingStrategy.random(3),
    RankingStrategy.metadata_based(["quality", "height"], [False, True]),
]


@given(st.permutations(range(5)), st.sampled_from(STRATEGIES))
def test_the_order_does_not_depend_on_how_the_rows_stand(order: list[int], strategy: RankingStrategy) -> None:
    assert ranked(strategy, TABLE.take(order)) == ranked(strategy)


VALUES = st.sampled_from([None, float("nan"), -1.5, 0.0, 0.5, 2.0])
LEVELS = st.sampled_from([None, 1, 2, 3])
TEXT_IDS = st.lists(st.text(max_size=4), max_size=12, unique=True)
NUMBER_IDS = st.lists(st.integers(-(2**63), 2**63 - 1), max_size=12, unique=True)


@given(ids=TEXT_IDS | NUMBER_IDS, directions=st.tuples(st.booleans(), st.booleans()), data=st.data())
def test_the_order_is_that_of_sorting_with_what_is_missing_last(
    ids: list[str] | list[int], directions: tuple[bool, bool], data: st.DataObject
) -> None:
    rows = [(data.draw(VALUES), data.draw(LEVELS), key) for key in ids]

    def key(row: tuple) -> list[tuple]:
        parts = []
        for value, ascending in zip(row[:2], directions, strict=True):
            missing = value is None or value != value
            parts.append((missing, 0 if missing else value if ascending else -value))
        return [*parts, row[2].encode() if isinstance(row[2], str) else row[2]]

    kind = pa.string() if all(isinstance(value, str) for value in ids) else pa.int64()
    table = pa.table(
        {
            "id": pa.array(ids, kind),
            "value": pa.array([row[0] for row in rows], pa.float64(), from_pandas=False),
            "level": pa.array([row[1] for row in rows], pa.int8()),
        }
    )
    order = rank_order(table, RankingStrategy.metadata_based(["value", "level"], directions))
    assert [rows[position][2] for position in order] == [row[2] for row in sorted(rows, key=key)]


QUALITY = {"width": pa.int32(), "height": pa.uint16(), "bitrate": pa.float64(), "duration_s": pa.decimal128(4, 1)}


@given(
    rows=st.lists(st.tuples(*[LEVELS] * 4), max_size=12),
    there=st.sets(st.sampled_from(list(QUALITY)), min_size=1).filter(
        lambda names: names not in ({"width"}, {"height"})
    ),
)
def test_the_best_copy_has_most_pixels_then_bitrate_then_duration(rows: list[tuple], there: set[str]) -> None:
    found = [{name: value for name, value in zip(QUALITY, row, strict=True) if name in there} for row in rows]

    def key(i: int) -> list[tuple]:
        sides = [found[i].get(name) for name in ("width", "height")]
        numbers = [None if None in sides else sides[0] * sides[1], found[i].get("bitrate"), found[i].get("duration_s")]
        return [*((number is None, -(number or 0)) for number in numbers), i]

    columns = {name: pa.array([row[name] for row in found], kind) for name, kind in QUALITY.items() if name in there}
    table = pa.table({"id": pa.array(range(len(rows)), pa.int64()), **columns})
    check_rankable(table.schema, RankingStrategy.best(), "the table")
    assert rank_order(table, RankingStrategy.best()).tolist() == sorted(range(len(rows)), key=key)


def test_pixels_of_large_pictures_do_not_overflow() -> None:
    table = pa.table(
        {"id": [1, 2], "width": pa.array([2, 65_000], pa.int32()), "height": pa.array([2, 65_000], pa.int32())}
    )
    assert rank_order(table, RankingStrategy.best()).tolist() == [1, 0]


def test_one_ranking_said_in_three_ways_is_the_same() -> None:
    named = RankingStrategy.metadata_based(["height", "bit rate"], ascending=[False, True])
    assert RankingStrategy.rank_by("height:desc, bit rate:asc") == named
    assert RankingStrategy.rank_by(["height:desc", "bit rate:asc"]) == named
    for strategy in (named, RankingStrategy.best(), RankingStrategy.random(7), RankingStrategy.by_id()):
        assert RankingStrategy.described(strategy.describe()) == strategy


@pytest.mark.parametrize("id_type", [pa.string(), pa.int64(), pa.uint64()], ids=str)
@pytest.mark.parametrize("strategy", STRATEGIES[:3], ids=["hard", "easy", "random"])
def test_no_rows_and_one_row_have_an_order(strategy: RankingStrategy, id_type: pa.DataType) -> None:
    for n in (0, 1):
        columns = {name: pa.array([0.5] * n, pa.float32()) for name in ("cosine_dist_to_cent", "l2_dist_to_cent")}
        table = pa.table({"id": pa.array(["1"] * n).cast(id_type), **columns})
        order = rank_order(table, strategy)
        assert (order.tolist(), order.dtype) == ([0] * n, np.int64)


@pytest.mark.parametrize(
    ("column", "ascending", "expected"),
    [
        (pa.array(["b", None, "a"]).dictionary_encode(), True, "zxy"),
        (pa.array([True, False, None]), True, "yxz"),
        (pa.array([True, False, None]), False, "xyz"),
        (pa.array([2, 1, None], pa.timestamp("s")), False, "xyz"),
        (pa.array([2**63, 1, None], pa.uint64()), True, "yxz"),
        (pa.array([np.float16(2), np.float16("nan"), np.float16(1)]), True, "zxy"),
        (pa.array(["b", None, "a"], pa.string_view()), True, "zxy"),
        (pa.array([b"b", None, b"a"], pa.binary_view()), True, "zxy"),
        (pa.array(["2.5", None, "-1"]).cast(pa.decimal128(4, 1)), True, "zxy"),
        (pa.nulls(3, pa.string()), False, "xyz"),
        (pa.nulls(3), False, "xyz"),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)
def test_columns_of_any_ordered_type_rank(column: pa.Array, ascending: bool, expected: str) -> None:
    table = pa.table({"id": ["x", "y", "z"], "column": column})
    check_rankable(table.schema, RankingStrategy.metadata_based("column"), "the file")
    assert ranked(RankingStrategy.metadata_based("column", ascending), table) == expected


def test_the_order_of_chunks_is_that_of_the_whole() -> None:
    table = pa.concat_tables([TABLE.slice(3), TABLE.slice(0, 0), TABLE.slice(0, 3)])
    for strategy in STRATEGIES:
        assert ranked(strategy, table) == ranked(strategy)


def test_a_random_rank_depends_on_its_seed_and_on_the_id_alone() -> None:
    ids = pa.table({"id": pa.array(range(1000))})
    first, other = (rank_order(ids, RankingStrategy.random(seed)) for seed in (1, 2))
    assert sorted(first) == list(range(1000))
    assert (first != other).any()
    np.testing.assert_array_equal(rank_order(ids.slice(0, 500), RankingStrategy.random(1)), first[first < 500])


def test_whole_numbers_break_ties_as_numbers() -> None:
    table = pa.table({"id": [9, 10, 100], "cosine_dist_to_cent": pa.array([1, 1, 1], pa.float32())})
    assert ranked(RankingStrategy.by_distance("easy", "cosine"), table) == "910100"
    assert ranked(RankingStrategy.by_distance("hard", "cosine"), table) == "100109"


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: RankingStrategy.metadata_based([]), "at least one column"),
        (lambda: RankingStrategy.metadata_based(["a", "a"]), "none twice"),
        (lambda: RankingStrategy.metadata_based(["a", "b"], [True]), r"one for each of \['a', 'b'\]"),
        (
            lambda: RankingStrategy.by_distance("hardest", "cosine"),
            "best, hard, easy, soft, random; got 'hardest'",
        ),
        (lambda: RankingStrategy.by_distance("hard", "manhattan"), "cosine, l2; got 'manhattan'"),
        (lambda: RankingStrategy.by_distance("random", "manhattan"), "cosine, l2"),
        (
            lambda: RankingStrategy.rank_by("height"),
            "rank_by must be columns with a direction.*'height', which does not",
        ),
        (lambda: RankingStrategy.rank_by("a:desc,a:asc"), "which names a column twice"),
        (lambda: RankingStrategy.rank_by(""), "which names no column"),
        (
            lambda: check_rankable(
                pa.schema({"id": pa.string(), "width": pa.int8()}), RankingStrategy.best(), "the file"
            ),
            "needs width and height, bitrate or duration_s, and the file has none of them; it has id, width",
        ),
        (
            lambda: check_rankable(pa.schema({"bitrate": pa.string()}), RankingStrategy.best(), "the file"),
            "ranks by numbers; 'bitrate' in the file is string",
        ),
        (
            lambda: check_rankable(TABLE.schema, RankingStrategy.metadata_based("absent"), "the file"),
            "'absent', which the file does not have; it has id, .*metadata_fields",
        ),
        (
            lambda: check_rankable(
                pa.schema([("x", pa.list_(pa.int8()))]), RankingStrategy.metadata_based("x"), "the file"
            ),
            "'x' in the file is list",
        ),
    ],
    ids=[
        "no column",
        "a column twice",
        "a direction too few",
        "what",
        "by what",
        "by what, at random",
        "no direction",
        "a column with two directions",
        "nothing to rank by",
        "one side of the picture",
        "a bitrate in words",
        "absent",
        "list",
    ],
)
def test_what_cannot_rank_is_refused(make: Callable[[], object], named: str) -> None:
    with pytest.raises(ParameterError, match=named):
        make()
