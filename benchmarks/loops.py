"""The loops in which NeMo Curator compares the rows of a cluster, for arrays of NumPy, CuPy and PyTorch alike.

Each takes the module of the arrays and (n, d) rows of length 1, best-ranked first, and gives for every row its
similarity to the most similar better-ranked one, (n,) of the type of the rows, and which that is; 0 and 0 where there
is none. The type of the rows, and the device that they are on, are those of the products. Memory: n·batch products.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any

Loop = Callable[[ModuleType, Any], tuple[Any, Any]]
BATCH = 1024
"""Rows that are compared at a time, as Curator does by default."""


def curator_1_3(xp: ModuleType, rows: Any, batch: int = BATCH) -> tuple[Any, Any]:
    """NeMo Curator up to 1.3: all rows times a batch, zeros below the diagonal, maxima. Its rows are float32."""
    found = []
    for start in range(0, len(rows), batch):
        product = rows @ rows[start : start + batch].T
        found.append(_best_of_columns(xp, xp.triu(product, 1 - start)))
    return _joined(xp, found)


def curator_1_4(xp: ModuleType, rows: Any, batch: int = BATCH) -> tuple[Any, Any]:
    """NeMo Curator 1.4: only the rows up to the end of the batch, so half of the square. Its rows are float16."""
    found, workspace = [], _empty(xp, rows, len(rows) * batch)
    for start in range(0, len(rows), batch):
        stop = min(start + batch, len(rows))
        product = workspace[: stop * (stop - start)].reshape(stop, stop - start)
        xp.matmul(rows[:stop], rows[start:stop].T, out=product)
        product[start:] = xp.triu(product[start:], 1)
        found.append(_best_of_columns(xp, product))
    return _joined(xp, found)


def _best_of_columns(xp: ModuleType, product: Any) -> tuple[Any, Any]:
    """The largest of each column, and the first place that it stands at."""
    if xp.__name__ == "torch":
        return tuple(product.max(0))
    index = product.argmax(axis=0)
    return xp.take_along_axis(product, index[None], axis=0)[0], index


def _joined(xp: ModuleType, found: list[tuple[Any, Any]]) -> tuple[Any, Any]:
    scores, indices = zip(*found, strict=True)
    return xp.concatenate(scores), xp.concatenate(indices)


def _empty(xp: ModuleType, rows: Any, number: int) -> Any:
    """Space for so many products, of the type of the rows and on their device."""
    return rows.new_empty(number) if xp.__name__ == "torch" else xp.empty(number, dtype=rows.dtype)
