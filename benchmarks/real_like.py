"""Rows like real embeddings: drawn around real ones, and looked at whether they need what real ones need.

Copies planted among noise lie in the cluster of their original, and nothing else is near: a comparison across clusters
has hardly anything to do there. Here the rows are those of the tests' real sentence embeddings with noise, twice:
around real rows *documents*, around each document rows at all distances from none to far. The noise has the covariance
of the differences between real rows and their nearest, so that leading axes hold as much as they do of real rows.
"""

from pathlib import Path
from typing import Any

import numpy as np

from semdedup.dedup.kernels.exact import unit_rows

REAL = Path(__file__).parent.parent / "tests" / "data" / "text_embeddings.npy"
ROWS_A_DOCUMENT = 5
SKEW = 1.2
"""Of documents: above 1 some have more rows than others."""

SPREAD = 0.72
"""Length of the noise between a real row and a document: with it rows need as many visits as real ones do."""

CLOSENESS = 1.75
"""Lengths of the noise between a document and its rows are at most t with probability t to this power, up to 1."""

REAL_VISITS = {0.05: (8.3, 8.8), 0.1: (22.0, 28.0)}
"""Clusters visited a row on 50,000 real sentence embeddings × 384 in 158 and in 500 clusters."""

LEADING, REAL_ENERGY = 64, 0.63
"""So many principal axes of 384 hold so much of the squares of those real rows."""

BLOCK = 1 << 16


def real_like_rows(n: int, d: int, seed: int = 0) -> np.ndarray:
    """(n, d) float32 of length 1; of the real rows the d leading principal axes, or all of them turned into d."""
    rng = np.random.default_rng(seed)
    real, axes = _real_rows(d)
    steps = real - real[np.argmax(real @ real.T - 2 * np.eye(len(real)), axis=1)]
    noise = np.linalg.cholesky(steps.T @ steps / np.square(steps).sum() + 1e-9 * np.eye(len(axes))).T @ axes
    documents = (real @ axes)[rng.integers(len(real), size=max(1, n // ROWS_A_DOCUMENT))].astype(np.float32)
    _add_noise(documents, noise.astype(np.float32), np.full(len(documents), SPREAD), rng)
    rows = documents[(len(documents) * rng.random(n) ** SKEW).astype(np.int64)]
    _add_noise(rows, noise.astype(np.float32), rng.random(n) ** (1 / CLOSENESS), rng)
    return rows


def _real_rows(d: int) -> tuple[np.ndarray, np.ndarray]:
    """The real rows (m, e) and a matrix (e, d) that takes them to length d."""
    real = unit_rows(np.load(REAL)).astype(np.float64)
    if d <= real.shape[1]:
        return real, np.linalg.eigh(real.T @ real)[1][:, ::-1][:, :d]
    turned = np.linalg.qr(np.random.default_rng(0).normal(size=(d, real.shape[1])))[0]
    return real, turned.T


def _add_noise(rows: np.ndarray, noise: np.ndarray, lengths: np.ndarray, rng: np.random.Generator) -> None:
    """Add noise of so great lengths to rows, in place, and bring them to length 1."""
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        drawn = rng.standard_normal((len(block), len(noise)), dtype=np.float32)
        drawn *= lengths[start : start + BLOCK, None].astype(np.float32)
        block += drawn @ noise
        block /= np.linalg.norm(block, axis=1, keepdims=True)


def visits(rows: np.ndarray, centroids: np.ndarray, eps: float) -> float:
    """Clusters that a row must be compared with by the half-margin bound, its own among them, on average.

    Of two rows within r = √(2·eps) in different clusters one lies within r/2 of the hyperplane that bisects their
    centroids; so a row visits the clusters from whose hyperplane it is at most that far. Centroids are made unit.
    """
    units = unit_rows(centroids)
    similarity, between = rows @ units.T, units @ units.T
    own = similarity.argmax(axis=1)
    ahead = similarity[np.arange(len(rows)), own][:, None] - similarity
    apart = np.sqrt(np.maximum(2 - 2 * between[own], 1e-12))
    return float((ahead <= np.sqrt(2 * eps) / 2 * apart).sum(axis=1).mean())


def neighbours(rows: np.ndarray, sample: np.ndarray, eps: float) -> dict[str, float]:
    """Of the sampled rows the share with one before it within eps, and how many other rows each has within eps."""
    before, number = np.zeros(len(sample), dtype=bool), 0
    for start in range(0, len(rows), BLOCK):
        near = rows[sample] @ rows[start : start + BLOCK].T >= 1 - eps
        number += int(near.sum())
        before |= (near & (np.arange(start, start + near.shape[1]) < sample[:, None])).any(axis=1)
    return {"duplicates": float(before.mean()), "neighbours": number / len(sample) - 1}


def looked_at(rows: np.ndarray, centroids: np.ndarray, sampled: int = 2000) -> dict[str, Any]:
    """Visits and neighbours at each eps, of a sample of rows of length 1; printed beside what real ones have."""
    chosen = np.random.default_rng(0).choice(len(rows), min(sampled, len(rows)), replace=False)
    found: dict[str, Any] = {}
    for eps, (least, most) in REAL_VISITS.items():
        each = {"visits": visits(rows[chosen], centroids, eps), **neighbours(rows, chosen, eps)}
        print(
            f"    like real rows, eps {eps:g}, {len(centroids)} clusters: {each['visits']:.1f} clusters visited a row "
            f"(real ones in 158 and 500: {least:g} and {most:g}), duplicates {each['duplicates']:.1%}, "
            f"neighbours a row {each['neighbours']:.3f}"
        )
        found[f"{eps:g}"] = each
    squares = np.linalg.eigvalsh(rows[: 10 * BLOCK].T @ rows[: 10 * BLOCK])[::-1]
    found["energy"] = float(squares[:LEADING].sum() / squares.sum())
    print(
        f"    {LEADING} principal axes of {rows.shape[1]} hold {found['energy']:.2f} (384 of real ones: {REAL_ENERGY})"
    )
    return found
