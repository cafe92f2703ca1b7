"""Rank: who is kept."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
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


@settings(max_examples=40, deadline=None)
@given(st.permutations(range(5)), st.sampled_from(STRATEGIES))
def test_the_order_does_not_depend_on_how_the_rows_stand(order: list[int], strategy: RankingStrategy) -> None:
    assert ranked(strategy, TABLE.take(order)) == ranked(strategy)


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
    "make",
    [
        lambda: RankingStrategy.metadata_based([]),
        lambda: RankingStrategy.metadata_based(["a", "a"]),
        lambda: RankingStrategy.metadata_based(["a", "b"], [True]),
        lambda: RankingStrategy.by_distance("hardest", "cosine"),
        lambda: RankingStrategy.by_distance("hard", "manhattan"),
        lambda: check_rankable(TABLE.schema, RankingStrategy.metadata_based("absent"), "the file"),
        lambda: check_rankable(
            pa.schema([("x", pa.list_(pa.int8()))]), RankingStrategy.metadata_based("x"), "the file"
        ),
    ],
)
def test_what_cannot_rank_is_refused(make) -> None:
    with pytest.raises(ParameterError):
        make()
