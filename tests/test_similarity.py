"""The comparison, against ten lines of NumPy."""

from collections.abc import Iterator
from itertools import pairwise
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from semdedup import ParameterError, max_similarity
from semdedup.arrays import to_host
from semdedup.dedup.kernels import best_match as similarity
from semdedup.dedup.kernels import distinct, products
from semdedup.dedup.kernels.best_match import best_match
from semdedup.dedup.kernels.distinct import first_occurrences
from semdedup.dedup.kernels.exact import unit_rows


@pytest.fixture(params=["float32", "bfloat16"], scope="module", autouse=True)
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    """What products are computed in first, however small they are; NumKong multiplies bfloat16 on any processor."""
    if request.param == "bfloat16" and products.numkong is None:
        pytest.skip("NumKong has no wheel for this platform")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "has_bfloat16_matrices", lambda: request.param == "bfloat16")
        patch.setattr(products, "SMALLEST_DIM", 1)
        patch.setattr(products, "SMALLEST_PRODUCT", 0)
        yield request.param


def reference(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Score and index of each row, best-ranked first, by the definition."""
    products = rows.astype(np.float64) @ rows.astype(np.float64).T
    similarity = np.clip(products, 0, 1).astype(np.float32)
    similarity[(rows[:, None] == rows).all(axis=2)] = 1
    score, index = np.zeros(len(rows), dtype=np.float32), np.zeros(len(rows), dtype=np.int64)
    for i in range(1, len(rows)):
        index[i] = similarity[i, :i].argmax()
        score[i] = similarity[i, index[i]]
    return score, index


def make(rng: np.random.Generator, n: int, d: int, kind: str) -> np.ndarray:
    rows = rng.standard_normal((n, d))
    if kind == "copies":
        rows = rows[rng.integers(max(1, n // 2), size=n)]
    if kind == "one topic":
        rows = 5 + rows
    if kind == "crowded":
        rows = 1 + 1e-4 * rows
    if kind == "narrow crowds":
        rows = 1 + rng.choice([1e-3, 1e-5, 1e-8], (n, 1)) * rows
    if kind == "equal":
        rows[:] = rows[:1]
    if kind == "axes":
        rows = np.eye(d)[rng.integers(d, size=n)] * rng.choice([-1, 1], (n, 1))
    if kind == "opposite":
        rows = np.where(np.arange(n)[:, None] % 2, 1, -1) * (5 + rows)
    return unit_rows(rows.astype(np.float32))


KINDS = ["random", "copies", "one topic", "crowded", "narrow crowds", "equal", "opposite", "axes"]


def assert_by_the_definition(xp: ModuleType, rows: np.ndarray, batch_size: int = 1024) -> None:
    """Compare with the definition to the last bit, on arrays that refuse to be written to."""
    rows.setflags(write=False)
    score, index = map(to_host, max_similarity(xp.asarray(rows), batch_size))
    expected_score, expected_index = reference(rows)
    assert (score.dtype, index.dtype) == (np.float32, np.int64)
    np.testing.assert_array_equal(score, expected_score)
    np.testing.assert_array_equal(index, expected_index)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("n", "d"), [(1, 3), (2, 1), (65, 2), (300, 16), (700, 300), pytest.param(1500, 33, marks=pytest.mark.slow)]
)
@pytest.mark.parametrize("batch_size", [1, pytest.param(64, marks=pytest.mark.slow), 4096])
def test_scores_and_indices_are_those_of_the_definition_bit_by_bit(
    xp: ModuleType, rng: np.random.Generator, kind: str, n: int, d: int, batch_size: int
) -> None:
    if n > 300 and batch_size == 1:
        pytest.skip("a batch of one row is tried on small inputs")
    assert_by_the_definition(xp, make(rng, n, d, kind), batch_size)


@given(st.integers(0, 2**32), st.integers(0, 120), st.integers(1, 20), st.sampled_from(KINDS), st.integers(1, 200))
def test_any_rows_and_any_batch_size_agree_with_the_definition(
    xp: ModuleType, seed: int, n: int, d: int, kind: str, batch_size: int
) -> None:
    assert_by_the_definition(xp, make(np.random.default_rng(seed), n, d, kind), batch_size)


@given(
    rows=st.lists(st.lists(st.sampled_from([-0.5, 0.5]), min_size=4, max_size=4), max_size=40),
    batch_size=st.integers(1, 50),
)
def test_corners_of_a_cube_tie_everywhere_and_the_best_ranked_wins(
    xp: ModuleType, rows: list[list[float]], batch_size: int
) -> None:
    assert_by_the_definition(xp, np.array(rows, dtype=np.float32).reshape(-1, 4), batch_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch_size", [1, 7, 64])
@pytest.mark.parametrize("elements", [1 << 7, 1 << 11], ids=["tiny tiles", "small tiles"])
def test_the_size_of_a_product_changes_nothing(
    xp: ModuleType,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
    kind: str,
    batch_size: int,
    elements: int,
) -> None:
    for module in (similarity, distinct):
        monkeypatch.setattr(module, "block_elements", lambda *arrays: elements)
    assert_by_the_definition(xp, make(rng, 150, 12, kind), batch_size)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [-1.0, 2.0], ids=["always", "never"])
def test_thinning_out_changes_nothing(
    xp: ModuleType, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: str, share: float
) -> None:
    monkeypatch.setattr(similarity, "CROWDED", share)
    for module in (similarity, distinct):
        monkeypatch.setattr(module, "block_elements", lambda *arrays: 1 << 12)
    assert_by_the_definition(xp, make(rng, 300, 24, kind), 32)


@pytest.mark.parametrize(("kind", "expected"), [("crowded", True), ("random", False)])
def test_crowded_tiles_and_only_these_are_thinned_out(
    xp: ModuleType, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, kind: str, expected: bool
) -> None:
    thinned, thin_out = [], similarity._thin_out
    monkeypatch.setattr(similarity, "_thin_out", lambda *args: thinned.append(1) or thin_out(*args))
    assert_by_the_definition(xp, make(rng, 400, 64, kind))
    assert bool(thinned) == expected


def test_products_become_finer_where_too_many_rows_are_near_and_stay_so(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    used: list[str] = []
    for kind in (products.HalfPrecision, products.SinglePrecision):
        multiply = kind.multiply
        monkeypatch.setattr(
            kind, "multiply", lambda self, *args, m=multiply: used.append(type(self).__name__) or m(self, *args)
        )
    monkeypatch.setattr(similarity, "block_elements", lambda *arrays: 1 << 18)
    max_similarity(unit_rows(rng.standard_normal((700, 96))))
    assert set(used) == {"HalfPrecision" if precision == "bfloat16" else "SinglePrecision"}
    used.clear()
    max_similarity(unit_rows(1 + 0.05 * rng.standard_normal((700, 96))))
    expected = ["HalfPrecision"] if precision == "bfloat16" else []
    assert used == expected + ["SinglePrecision"] * (len(used) - len(expected))


def test_rows_may_stand_anywhere_in_memory(rng: np.random.Generator) -> None:
    rows = make(rng, 300, 40, "one topic")
    moved = np.zeros(rows.nbytes + 1, dtype=np.uint8)[1:].view(np.float32).reshape(rows.shape)  # as received by Dask
    moved[...] = rows
    for other in (moved, np.asfortranarray(rows)):
        np.testing.assert_array_equal(max_similarity(other), max_similarity(rows))
        np.testing.assert_array_equal(unit_rows(other), unit_rows(rows))


def test_no_rows_have_no_scores(xp: ModuleType) -> None:
    score, index = max_similarity(xp.empty((0, 4), dtype=np.float32))
    assert score.shape == index.shape == (0,)


def test_where_every_similarity_is_negative_the_score_is_zero_against_the_best_ranked(xp: ModuleType) -> None:
    rows = unit_rows(np.eye(40) - 1 / 40)  # the corners of a simplex
    assert (rows @ rows.T)[np.tril_indices(40, -1)].max() < -0.02
    score, index = map(to_host, max_similarity(xp.asarray(rows)))
    assert not score.any()
    assert not index.any()


def test_a_copy_far_up_wins_against_a_row_just_beside(xp: ModuleType) -> None:
    rows = unit_rows(np.array([[1.0, 2e-3, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    score, index = map(to_host, max_similarity(xp.asarray(rows)))
    assert (index[3], score[3]) == (1, 1)
    rows = unit_rows(np.array([[1.0, 1e-4, 0.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]))
    score, index = map(to_host, max_similarity(xp.asarray(rows)))
    assert (index[3], score[3]) == (0, 1), "at 1e-4 both are 1 in float32, and the best-ranked wins"


def test_the_known_answer_of_six_vectors(xp: ModuleType) -> None:
    rows = np.array([[1, 2, 3], [4, 5, 6], [7, 8, 9], [10, 11, 12], [1, 2, 3], [1, 2, 3]], dtype=np.float32)
    score, index = max_similarity(xp.asarray(unit_rows(rows)))
    assert (to_host(score) * 1e6).astype(int).tolist() == [0, 974_631, 998_190, 999_618, 1_000_000, 1_000_000]
    assert to_host(index).tolist() == [0, 0, 1, 2, 0, 0]


@given(st.integers(0, 2**32), st.lists(st.integers(0, 90), max_size=4), st.sampled_from(KINDS))
def test_the_best_of_tiles_is_the_best_of_the_whole(xp: ModuleType, seed: int, cuts: list[int], kind: str) -> None:
    rows, ranks = xp.asarray(make(np.random.default_rng(seed), 90, 7, kind)), xp.arange(90)
    whole = best_match(rows, ranks, rows, ranks)
    score, position = np.zeros(90, dtype=np.float32), np.full(90, -1)
    for start, stop in pairwise([0, *sorted(cuts), 90]):  # the best ranks first: of equal scores the first wins
        found = best_match(rows, ranks, rows[start:stop], ranks[start:stop])
        found_score, found_position = to_host(found.score), to_host(found.position)
        better = (found_position >= 0) & ((found_score > score) | (position < 0))
        score[better], position[better] = found_score[better], found_position[better] + start
    np.testing.assert_array_equal(score, to_host(whole.score))
    np.testing.assert_array_equal(position, to_host(whole.position))


def test_among_crowded_candidates_a_copy_wins_whatever_rounding_left_of_its_length(xp: ModuleType) -> None:
    rows = make(np.random.default_rng(0), 90, 12, "narrow crowds")
    expected = [(rows[:position] == rows[position]).all(axis=1) for position in range(90)]
    ranks = xp.arange(90)
    found = best_match(xp.asarray(rows), ranks, xp.asarray(rows), ranks)
    copies = [position for position in range(90) if expected[position].any()]
    assert copies
    for position in copies:
        assert to_host(found.score)[position] == 1
        assert to_host(found.position)[position] <= expected[position].argmax()


@given(st.integers(0, 2**32), st.integers(0, 30), st.integers(0, 30))
def test_queries_that_are_no_candidates_match_the_candidates_that_rank_better(
    xp: ModuleType, seed: int, n_queries: int, n_candidates: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = make(rng, n_queries + n_candidates, 5, "random")
    asking = np.sort(rng.choice(len(rows), n_queries, replace=False)) if n_queries else np.empty(0, dtype=int)
    offered = np.setdiff1d(np.arange(len(rows)), asking)
    found = best_match(*map(xp.asarray, (rows[asking], asking, rows[offered], offered)))
    for rank, score, position in zip(asking, to_host(found.score), to_host(found.position), strict=True):
        better = rows[offered[offered < rank]].astype(np.float64)
        cosine = (better @ rows[rank].astype(np.float64)).clip(0, 1).astype(np.float32)
        assert (score, position) == ((cosine.max(), cosine.argmax()) if len(cosine) else (0, -1))


def test_a_query_without_a_better_ranked_candidate_has_no_match(xp: ModuleType) -> None:
    rows = xp.asarray(make(np.random.default_rng(0), 4, 3, "random"))
    found = best_match(rows[:2], xp.asarray([0, 1]), rows[2:], xp.asarray([2, 3]))
    assert to_host(found.position).tolist() == [-1, -1]
    assert to_host(found.score).tolist() == [0, 0]


def test_first_occurrences_are_the_rows_that_are_not_repeated(xp: ModuleType, rng: np.random.Generator) -> None:
    rows = np.sign(rng.standard_normal((400, 64))).astype(np.float32)[rng.integers(60, size=400)]
    _, first = np.unique(rows, axis=0, return_index=True)
    assert to_host(first_occurrences(xp.asarray(rows))).tolist() == sorted(first)


@given(
    rows=st.lists(st.lists(st.sampled_from([0.0, -0.0, 1.0, 1e-45]), min_size=3, max_size=3), max_size=30),
    offset=st.integers(0, 37),
)
def test_first_occurrences_compares_the_bits_of_whole_rows(
    xp: ModuleType, rows: list[list[float]], offset: int
) -> None:
    wide = np.zeros((len(rows), 40), dtype=np.float32)  # the difference may lie beside the columns looked at first
    wide[:, offset : offset + 3] = np.array(rows, dtype=np.float32).reshape(-1, 3)
    seen: dict[bytes, int] = {}
    for position, row in enumerate(wide):
        seen.setdefault(row.tobytes(), position)
    assert to_host(first_occurrences(xp.asarray(wide))).tolist() == list(seen.values())


@pytest.mark.parametrize(
    ("rows", "batch_size", "named"),
    [
        (np.zeros((2, 2)), 1, "float64"),
        (np.zeros((2, 2), np.int32), 1, "int32"),
        (np.zeros(3, np.float32), 1, r"\(3,\)"),
        (np.zeros((1, 2, 3), np.float32), 1, r"\(1, 2, 3\)"),
        (np.zeros((2, 2), np.float32), 0, "batch_size must be at least 1, got 0"),
        (np.zeros((2, 2), np.float32), -5, "batch_size must be at least 1, got -5"),
    ],
    ids=["float64", "integers", "one axis", "three axes", "batch of none", "negative batch"],
)
def test_wrong_arguments_are_refused_with_what_was_given(
    xp: ModuleType, rows: np.ndarray, batch_size: int, named: str
) -> None:
    with pytest.raises(ParameterError, match=named):
        max_similarity(xp.asarray(rows), batch_size)
