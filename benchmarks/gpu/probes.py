"""What semdedup assumes of CuPy, and its arrays on the GPU beside those on the CPU: a line for each. Needs CuPy."""

import tempfile
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from semdedup import max_similarity
from semdedup.arrays import gpu_count, gpu_usable, host_rows, missing_gpu_packages
from semdedup.arrays.devices import describe_device
from semdedup.arrays.frames import REFUSALS, frames_on, read_lists
from semdedup.dedup.kernels.exact import exact_dot, on_grid, unit_rows
from semdedup.dedup.kernels.gpu import halves
from semdedup.dedup.kernels.gpu.compare import Search
from semdedup.dedup.kernels.gpu.compiled import has_tensor_cores
from semdedup.dedup.kernels.gpu.tiles import Rectangle
from semdedup.dedup.kernels.kmeans import SUM_GRID_BITS, assign, lloyd_sums, seeds

KINDS = (
    *(pa.list_(kind) for kind in (pa.float32(), pa.float64(), pa.int8(), pa.uint8(), pa.int16(), pa.int32())),
    *(pa.large_list(pa.float32()), pa.list_(pa.float32(), 64)),
)


def report(name: str, holds: Any, more: str = "") -> None:
    print("OK   " if holds else "FAULT", name, more, flush=True)


def probe_maxima(cp: Any, rng: np.random.Generator) -> None:
    values, rows = rng.random(1000), rng.integers(50, size=1000)
    for dtype in (np.float64, np.float32):
        found, expected = cp.full(50, -np.inf, dtype=dtype), np.full(50, -np.inf, dtype=dtype)
        cp.maximum.at(found, cp.asarray(rows), cp.asarray(values.astype(dtype)))
        np.maximum.at(expected, rows, values.astype(dtype))
        more = "(a fault is expected: semdedup does not use it)" if dtype == np.float64 else ""
        report(f"maximum.at of {np.dtype(dtype)}", (found.get() == expected).all(), more)
    whole = (values * 2.0**63).astype(np.uint64)
    for name, start in (("maximum", 0), ("minimum", 1 << 63)):
        found, expected = cp.full(50, start, dtype=cp.uint64), np.full(50, start, dtype=np.uint64)
        getattr(cp, name).at(found, cp.asarray(rows), cp.asarray(whole))
        getattr(np, name).at(expected, rows, whole)
        report(f"{name}.at of uint64", (found.get() == expected).all())


def probe_indices(cp: Any, rng: np.random.Generator) -> None:
    runs, run, column = rng.random((6, 16, 5)), np.array([0, 3, 5]), np.array([1, 4, 0])
    found = cp.asarray(runs)[cp.asarray(run), :, cp.asarray(column)]
    report("runs[run, :, column] is (p, 16)", np.array_equal(found.get(), runs[run, :, column]))
    marked = cp.zeros(10)
    marked[cp.asarray([1, 0] * 5, dtype=bool)] = cp.arange(5.0)
    report("assignment by a mask", marked.get()[::2].tolist() == [0, 1, 2, 3, 4])
    report("where(c, 0, -1) is int64", cp.where(cp.asarray([True]), 0, -1).dtype == np.int64)
    report("cumsum of bool is int64", cp.cumsum(cp.ones(3, bool)).dtype == np.int64)


def probe_sums(cp: Any, rng: np.random.Generator) -> None:
    from cupyx.scipy import sparse

    n, dim, k = 300_000, 64, 40
    x = rng.standard_normal((n, dim), dtype=np.float32)
    on_gpu, squares = cp.asarray(x), np.einsum("ij,ij->i", x, x, dtype=np.float64)
    for dtype in (np.float32, np.float64):
        found = cp.einsum("ij,ij->i", on_gpu, on_gpu, dtype=dtype)
        close = float(np.abs(found.get() - squares).max()) < 1e-3
        report(f"einsum of {n} rows in {np.dtype(dtype)}", found.dtype == dtype and close)
    labels, grid = rng.integers(k, size=n).astype(np.int32), np.rint(x.astype(np.float64) * 2**10) / 2**10
    parts = (cp.ones(n), cp.asarray(labels), cp.arange(n + 1, dtype=cp.int32))
    sums = sparse.csr_matrix(parts, shape=(n, k)).T @ cp.asarray(grid)
    expected = np.zeros((k, dim))
    np.add.at(expected, labels, grid)
    report("csr.T @ dense is exact on the grid", (sums.get() == expected).all())
    product = cp.empty((400, 300), cp.float32)
    cp.matmul(on_gpu[:400], on_gpu[400:700].T, out=product)
    error = np.abs(product.get() - x[:400].astype(np.float64) @ x[400:700].astype(np.float64).T).max()
    report("float32 matmul is not TF32", error < 1e-4, f"(error {error:.1e})")


def probe_semdedup(cp: Any, rng: np.random.Generator, width: float) -> None:
    centres = rng.standard_normal((250, 768))
    noise = width * rng.standard_normal((20_000, 768))
    rows = on_grid(unit_rows(centres[rng.integers(250, size=20_000)] + noise), SUM_GRID_BITS)
    centroids, on_gpu = rows[rng.permutation(20_000)[:500]], cp.asarray(rows)
    labels, found = assign(rows, centroids), assign(on_gpu, cp.asarray(centroids)).get()
    more = f"({int((labels != found).sum())} differ, {int((found < 0).sum())} negative)"
    report(f"labels of 20,000 x 768, k=500, width {width}, are the CPU's", (labels == found).all(), more)
    sums, of_gpu = lloyd_sums(rows, centroids), lloyd_sums(on_gpu, cp.asarray(centroids))
    report("sums are the CPU's to the bit", (sums.rows == of_gpu.rows.get()).all())
    chosen = [seeds(array, 200, np.random.default_rng(3)) for array in (rows, on_gpu)]
    report("seeds are the CPU's", (chosen[0] == chosen[1]).all())
    best, of_gpu = max_similarity(rows[:8000]), max_similarity(on_gpu[:8000])
    same = all((a == b.get()).all() for a, b in zip(best, of_gpu, strict=True))
    report("max_similarity is the CPU's to the bit", same)


def probe_halves(cp: Any, rng: np.random.Generator) -> None:
    """How far products of halves on the tensor cores are off, beside the bounds; and sums in the fixed order."""
    for dim in (3, 512, 768, 1536):
        n = 1024
        rows = unit_rows(rng.standard_normal((n, dim)) + rng.random((n, 1)))
        on_gpu = cp.asarray(rows)
        search = Search(on_gpu, on_gpu, cp.arange(n, dtype=np.int32), capacity=n * n)
        number = search.propose([Rectangle((0, n), (0, n), within=True)], np.float32(-2))  # below every product
        queries, candidates, products = (array[:number].get() for array in search.found)
        of_halves = search.halves[0].get().astype(np.float64)[:, :dim] / halves.SCALE
        true = rows.astype(np.float64)
        added = np.abs(products - (of_halves @ of_halves.T)[queries, candidates]).max()
        whole = np.abs(products - (true @ true.T)[queries, candidates]).max()
        most = np.linalg.norm(of_halves - true, axis=1).max()
        bounds = halves.tensor_core_error(dim) * halves.LONGEST**2, halves.half_error(most, most, dim)
        report(f"d={dim}: all {n * (n - 1) // 2} pairs are proposed", number == n * (n - 1) // 2, f"({number})")
        report(f"d={dim}: tensor cores add", added <= bounds[0], f"(error {added:.1e}, bound {bounds[0]:.1e})")
        report(f"d={dim}: products of halves", whole <= bounds[1], f"(error {whole:.1e}, bound {bounds[1]:.1e})")
        pairs = cp.asarray(queries[:5000]), cp.asarray(candidates[:5000])
        same = exact_dot(on_gpu, on_gpu, *pairs).get() == exact_dot(rows, rows, *(pair.get() for pair in pairs))
        report(f"d={dim}: sums have NumPy's bits", same.all())


def probe_frames(rng: np.random.Generator) -> None:
    """cuDF reads what PyArrow does, of each type that it is asked for; of others it must not be asked."""
    n, dim = 5000, 64
    values = np.rint(50 * rng.standard_normal((n, dim)))
    for kind in KINDS:
        rows = values.astype(kind.value_type.to_pandas_dtype())
        lists = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), dim).cast(kind)
        with tempfile.TemporaryDirectory() as name:
            path = f"{name}/centroid=3"
            pq.write_table(pa.table({"e": lists, "centroid": pa.array([7] * n)}), path, row_group_size=2000)
            try:
                found, _ = read_lists(path, "e", (1, 2), 500, 2000, np.dtype(np.float32)).rows(dim)
                report(f"cuDF reads {kind}", (found.get() == values[2500:4500]).all())
            except REFUSALS as error:
                report(f"cuDF reads {kind}", False, f"{type(error).__name__}: {str(error)[:200]}")


def probe_memory() -> None:
    """A pool as dask-cuda sets it up is counted as free, and CuPy takes from it."""
    import cupy as cp

    cp.get_default_memory_pool().free_all_blocks()  # of what ran before: they count as free
    before = describe_device()
    print("     ", before, cp.cuda.runtime.memGetInfo())
    try:
        import rmm
        from rmm.allocators.cupy import rmm_cupy_allocator
    except ImportError as error:
        return report("RMM", False, str(error))
    rmm.reinitialize(pool_allocator=True, initial_pool_size=int(0.8 * before.memory) // 256 * 256)
    cp.cuda.set_allocator(rmm_cupy_allocator)
    free, after = cp.cuda.runtime.memGetInfo()[0], describe_device()
    report("a pool counts as free", after.memory > 0.95 * before.memory, f"({free} free outside, {after})")
    held = cp.zeros(1 << 28, dtype=np.uint8)
    report("CuPy takes from the pool", cp.cuda.runtime.memGetInfo()[0] == free, f"({held.nbytes} bytes)")
    pinned = host_rows(cp.arange(12.0, dtype=np.float32).reshape(4, 3), np.array([3, 1]))
    report("rows come through page-locked memory", pinned.tolist() == [[9, 10, 11], [3, 4, 5]])


def main() -> None:
    import cupy as cp

    print("CuPy", cp.__version__, "NumPy", np.__version__, cp.cuda.runtime.getDeviceProperties(0)["name"])
    print("GPUs:", gpu_count(), "usable:", gpu_usable(), "missing:", missing_gpu_packages())
    rng = np.random.default_rng(0)
    probe_maxima(cp, rng)
    probe_indices(cp, rng)
    probe_sums(cp, rng)
    if has_tensor_cores(cp.zeros(1)):
        probe_halves(cp, rng)
    for width in (1.0, 0.2):
        probe_semdedup(cp, rng, width)
    if frames_on("gpu"):
        probe_frames(rng)
    probe_memory()  # the last one, for it changes the allocator


if __name__ == "__main__":
    main()
