"""The comparison on one GPU: semdedup with CuPy beside the usual loop in PyTorch, in float32, TF32 and float16.

python -m benchmarks.gpu.comparison [DIM [ROWS ...]]
"""

import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from semdedup import max_similarity

TILE, RUN, ERROR_OF_FLOAT16 = 8192, 32, 6e-4


def seconds(torch: Any, function: Callable[[], Any], n: int = 3) -> float:
    """The least of some calls after a first one, each to the end of all work of the device."""
    function()
    torch.cuda.synchronize()
    found = []
    for _ in range(n):
        started = time.perf_counter()
        function()
        torch.cuda.synchronize()
        found.append(time.perf_counter() - started)
    return min(found)


def usual_loop(torch: Any, x: Any, batch: int = 1024) -> None:
    for start in range(0, len(x), batch):
        torch.triu(torch.mm(x, x[start : start + batch].T), diagonal=1 - start).max(dim=0)


def half_square(torch: Any, x: Any, **out_dtype: Any) -> int:
    """Half of the square in tiles, and maxima of runs: what proposes, without deciding. Gives the runs to look into."""
    near = 0
    for start in range(0, len(x), TILE):
        queries, parts = x[start : start + TILE], []
        for left in range(0, start + 1, TILE):
            product = torch.mm(x[left : left + TILE], queries.T, **out_dtype)
            product = torch.triu(product, diagonal=1) if left == start else product
            product = torch.nn.functional.pad(product, (0, 0, 0, -len(product) % RUN))
            parts.append(product.view(-1, RUN, product.shape[1]).amax(1))
        maxima = torch.cat(parts)
        near += int((maxima >= maxima.amax(0) - 2 * ERROR_OF_FLOAT16).sum())
    return near


def made_rows(torch: Any, n: int, dim: int) -> Any:
    generator = torch.Generator("cuda").manual_seed(0)
    centres = torch.randn(max(1, n // 20), dim, device="cuda", generator=generator)
    which = torch.randint(len(centres), (n,), device="cuda", generator=generator)
    rows = centres[which] + 0.5 * torch.randn(n, dim, device="cuda", generator=generator)
    return torch.nn.functional.normalize(rows).contiguous()


def check_scores(cp: Any, rows: Any, x: Any) -> None:
    score, _ = max_similarity(rows[:4096])
    expected = (x.double()[:4096] @ x.double()[:4096].T).triu(1).amax(0).clamp(0, 1).float().cpu().numpy()
    difference = float(np.abs(cp.asnumpy(score) - expected).max())
    print(f"  largest difference of 4,096 scores from float64's: {difference:.1e}")


def measure(torch: Any, cp: Any, n: int, dim: int) -> None:
    x = made_rows(torch, n, dim)
    half, rows, found = x.half(), cp.from_dlpack(x), {}
    matmul = torch.backends.cuda.matmul
    matmul.allow_tf32 = False
    found["usual loop, float32"] = seconds(torch, lambda: usual_loop(torch, x))
    matmul.allow_tf32 = True
    found["usual loop, TF32"] = seconds(torch, lambda: usual_loop(torch, x))
    found["half square, TF32, maxima of runs"] = seconds(torch, lambda: half_square(torch, x))
    matmul.allow_tf32 = False
    found["usual loop, float16"] = seconds(torch, lambda: usual_loop(torch, half))
    try:
        wide = {"out_dtype": torch.float32}
        near = half_square(torch, half, **wide) / n
        found["half square, float16 to float32, maxima of runs"] = seconds(
            torch, lambda: half_square(torch, half, **wide)
        )
        print(f"  runs of {RUN} to look into for each row after float16: {near:.2f}")
    except (TypeError, RuntimeError) as error:  # older PyTorch has no out_dtype
        print("  float16 to float32:", str(error)[:120])
    found["semdedup max_similarity, CuPy"] = seconds(torch, lambda: max_similarity(rows))
    check_scores(cp, rows, x)
    print(f"n={n} d={dim} {torch.cuda.get_device_name()}")
    for name, time_taken in found.items():
        ratio = found["usual loop, float32"] / time_taken
        speed = n * n * dim / time_taken / 1e12
        print(f"  {name:50s} {time_taken * 1e3:9.2f} ms {speed:8.1f} TFLOP/s of n*n*d {ratio:6.2f} x", flush=True)


def main(dim: int = 1024, *sizes: int) -> None:
    import cupy as cp
    import torch

    for n in sizes or (2000, 20_000, 100_000):
        measure(torch, cp, n, dim)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
