"""The kernels for GPUs without one: built for the processor, compiled by nvcc, and how far halves may be off."""

import re
import shutil
import subprocess
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from semdedup.dedup.kernels.exact import unit_rows
from semdedup.dedup.kernels.gpu import compare, halves
from semdedup.dedup.kernels.gpu.tiles import SIDE, TOGETHER, Rectangle, launches
from tests.test_strict_cupy import assert_all_passed, run_over_the_stand_in

SOURCE = files("semdedup.dedup.kernels.gpu") / "kernels.cu"
REGISTERS_OF_A_PROCESSOR, BLOCKS_OF_A_PROCESSOR = 65_536, 2


@pytest.mark.skipif(shutil.which("g++") is None, reason="no g++ to build the kernels for the processor")
def test_kernels_built_for_the_processor_have_the_bits_of_numpy() -> None:
    assert_all_passed(run_over_the_stand_in("tests/test_gpu_kernels.py", FAKE_KERNELS="1"), 60)


@pytest.mark.parametrize("architecture", [pytest.param("sm_75", marks=pytest.mark.slow), "sm_80", "sm_90"])
@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc")
def test_kernels_compile_without_headers_and_two_blocks_fit_a_multiprocessor(architecture: str, tmp_path: Path) -> None:
    command = ["nvcc", f"-arch={architecture}", "-std=c++17", "-ftz=true", "-cubin", "-Xptxas", "-v"]
    done = subprocess.run(
        [*command, "-o", str(tmp_path / "kernels.cubin"), str(SOURCE)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "#include" not in SOURCE.read_text(encoding="utf-8")
    assert not re.search(r"[1-9]\d* bytes spill", done.stderr), done.stderr
    found = re.search(r"Function properties for propose.*?Used (\d+) registers", done.stderr, re.DOTALL)
    if architecture == "sm_75":
        assert found is None  # it has no copies to shared memory as it goes on
        return
    assert found is not None
    assert int(found[1]) * compare.THREADS * BLOCKS_OF_A_PROCESSOR <= REGISTERS_OF_A_PROCESSOR
    assert compare.SHARED_BYTES <= 48 << 10


def cut_off(values: np.ndarray) -> np.ndarray:
    """float64 to float32 towards 0."""
    rounded = values.astype(np.float32)
    return np.where(np.abs(rounded) > np.abs(values), np.nextafter(rounded, np.float32(0)), rounded)


def as_tensor_cores_add(terms: np.ndarray, together: int) -> np.ndarray:
    """Sums over the columns of exact products, so many at a time: all numbers, and their sum, are cut off."""
    total = np.zeros(len(terms), dtype=np.float32)
    for start in range(0, terms.shape[1], together):
        numbers = np.concatenate([total[:, None].astype(np.float64), terms[:, start : start + together]], axis=1)
        _, exponent = np.frexp(np.abs(numbers).max(axis=1))
        unit = np.ldexp(1.0, exponent - 24)[:, None]  # the last digit that is kept of the largest
        total = cut_off((np.trunc(numbers / unit) * unit).sum(axis=1))
    return total


@pytest.mark.parametrize("together", [1, 4, 8, 16])
@pytest.mark.parametrize("sign", ["any", "the same"])
@pytest.mark.parametrize("dim", [1, 5, 512, 1536])
def test_sums_that_are_cut_off_err_by_less_than_the_bound(
    rng: np.random.Generator, dim: int, together: int, sign: str
) -> None:
    x, y = rng.normal(size=(2, 200, dim)) * 10.0 ** rng.uniform(-3, 0, size=(2, 200, dim))
    if sign == "the same":  # so that all errors are
        x, y = np.abs(x), np.abs(x)
    x, y = (unit_rows(rows).astype(np.float16).astype(np.float64) for rows in (x, y))
    lengths = np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1)
    terms = x * y
    exact = terms.sum(axis=1)
    for _ in range(5):
        found = as_tensor_cores_add(terms[:, rng.permutation(dim)], together)
        assert (np.abs(found - exact) <= halves.tensor_core_error(dim) * lengths).all()


@pytest.mark.parametrize("small", [0, 1, 2**-12, 2**-30, 2**-60])
@pytest.mark.parametrize("dim", [1, 40, 768])
def test_products_of_halves_err_by_less_than_the_bound(rng: np.random.Generator, dim: int, small: float) -> None:
    """Rows with few large elements and many small ones, which would be subnormal halves or vanish."""
    rows = rng.normal(size=(100, dim))
    rows[:, rng.permutation(dim)[dim // 8 + 1 :]] *= small
    rows = unit_rows(rows)
    of_halves = (rows * np.float32(halves.SCALE)).astype(np.float16).astype(np.float64) / halves.SCALE
    true = rows.astype(np.float64)
    most = np.linalg.norm(of_halves - true, axis=1).max()
    error = halves.half_error(most, most, dim)
    terms = (of_halves[:, None] * of_halves[None]).reshape(-1, dim)
    assert (np.abs(as_tensor_cores_add(terms, 8) - (true @ true.T).ravel()) <= error).all()
    assert error < 1e-3


@pytest.mark.parametrize(("first", "end"), [(0, 1), (0, 2), (5, 400), (0, 2500), (128, 3000)])
def test_each_query_meets_each_better_ranked_row_of_its_cluster_once(first: int, end: int) -> None:
    met = np.zeros((end, end), dtype=int)
    for per_side, squares in launches([Rectangle((first, end), (first, end), within=True)]):
        for query, query_end, candidate, candidate_end in squares.tolist():
            assert max(query_end - query, candidate_end - candidate) <= per_side * SIDE
            met[query:query_end, candidate:candidate_end] += 1
    ahead = np.tri(end, k=-1, dtype=bool)
    ahead[:, :first] = ahead[:first] = False
    assert (met[ahead] == 1).all()
    assert met.max(initial=0) <= 1
    if end - first > 2 * TOGETHER * SIDE:
        assert met.sum() < 0.85 * (end - first) ** 2  # about half of it, by tiles


@pytest.mark.parametrize("within", [True, False])
@pytest.mark.parametrize("most", [1, 7, 100])
def test_no_launch_has_more_squares_than_it_may(most: int, within: bool) -> None:
    rectangles = [Rectangle((0, 30), (0, 30), within), Rectangle((30, 5030), (30, 5030), within)]
    rectangles += [Rectangle((9000 + 10 * i, 9010 + 10 * i), (9000 + 10 * i, 9010 + 10 * i), within) for i in range(12)]
    parts = list(launches(rectangles, most))
    widest = -(-5000 // (TOGETHER * SIDE))
    assert max(len(squares) for _, squares in parts) <= max(most, widest)
    for kind in (1, TOGETHER):
        whole = [squares for per_side, squares in launches(rectangles) if per_side == kind]
        cut = [squares for per_side, squares in parts if per_side == kind]
        assert len(whole) == 1
        assert sorted(np.concatenate(cut).tolist()) == sorted(whole[0].tolist())


def test_a_cluster_of_any_size_fits_the_grids_of_cuda() -> None:
    """12 million rows have 4.4 * 10**9 tiles up to the diagonal, of which no launch may have 2**31."""
    seen = 0
    for per_side, squares in launches([Rectangle((0, 12_000_000), (0, 12_000_000), within=True)]):
        assert len(squares) * per_side**2 < 1 << 31
        seen += len(squares)
    side = TOGETHER * SIDE
    rows = -(-12_000_000 // side)
    assert seen == rows * (rows + 1) // 2


def test_a_rectangle_is_halved_until_its_queries_are_few() -> None:
    waiting, few = [Rectangle((7, 9000), (0, 500))], []
    while waiting:
        one = waiting.pop()
        parts = one.halves()
        waiting += parts
        few += [] if parts else [one]
    spans = sorted(one.queries for one in few)
    assert (spans[0][0], spans[-1][1]) == (7, 9000)
    assert all(end == start for (_, end), (start, _) in pairwise(spans))
    assert max(end - start for start, end in spans) <= 1024
