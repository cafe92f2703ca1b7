"""What others do: each peer is a few lines around its library, and is left out by name where that is not installed."""

import os
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.workers import MemoryWatch

Peer = Callable[..., Any]


def those_installed(peers: Mapping[str, tuple[str, Peer]]) -> dict[str, Peer]:
    """The peers whose package is there; of the others the names are printed."""
    absent = [name for name, (package, _) in peers.items() if find_spec(package) is None]
    if absent:
        print(f"  not installed, left out: {', '.join(absent)}", flush=True)
    return {name: peer for name, (_, peer) in peers.items() if name not in absent}


def float32_alone(rows: np.ndarray, block: int = 256) -> None:
    """The comparison in float32 products and maxima, half of the square in NumPy, and nothing decided in float64."""
    best = np.zeros(len(rows), dtype=np.float32)
    for start in range(0, len(rows), block):
        stop = min(start + block, len(rows))
        product = rows[start:stop] @ rows[:stop].T
        product[:, start:][np.arange(stop - start) >= np.arange(stop - start)[:, None]] = -1
        best[start:stop] = product.max(axis=1)


def numpy_loop(rows: np.ndarray, batch: int = 1024) -> None:
    """The loop of NeMo Curator, in NumPy: the product of all rows with a batch, its upper triangle, the maxima."""
    for start in range(0, len(rows), batch):
        product = np.triu(rows @ rows[start : start + batch].T, k=1 - start)
        product.max(axis=0)
        product.argmax(axis=0)


def torch_loop(rows: np.ndarray, batch: int = 1024) -> None:
    """The loop of NeMo Curator as it is, in PyTorch."""
    import torch

    tensor = torch.from_numpy(rows)
    for start in range(0, len(tensor), batch):
        torch.triu(tensor @ tensor[start : start + batch].T, diagonal=1 - start).max(dim=0)


def faiss_search(rows: np.ndarray) -> None:
    """The two nearest of each row, of which one is the row itself; whether it ranks better is not asked."""
    import faiss

    index = faiss.IndexFlatIP(rows.shape[1])
    index.add(rows)
    index.search(rows, 2)


def semhash_default(rows: np.ndarray) -> None:
    """Its index of given embeddings, which finds most neighbours and not all, and its choice among them."""
    from semhash import SemHash

    SemHash.from_embeddings(rows, [str(i) for i in range(len(rows))], model=None).self_deduplicate(threshold=0.99)


COMPARISON: dict[str, tuple[str, Peer]] = {
    "NumPy, half the square, float32 alone": ("numpy", float32_alone),
    "NumPy, the loop of NeMo Curator": ("numpy", numpy_loop),
    "PyTorch, the loop of NeMo Curator": ("torch", torch_loop),
    "faiss IndexFlatIP.search(x, 2)": ("faiss", faiss_search),
    "semhash (approximate)": ("semhash", semhash_default),
}


def faiss_kmeans(rows: np.ndarray, k: int, iterations: int) -> np.ndarray:
    import faiss

    found = faiss.Kmeans(rows.shape[1], k, niter=iterations, max_points_per_centroid=len(rows), seed=0)
    found.train(rows)
    return found.centroids


def sklearn_kmeans(rows: np.ndarray, k: int, iterations: int) -> np.ndarray:
    from sklearn.cluster import KMeans

    return KMeans(k, init="k-means++", n_init=1, max_iter=iterations, random_state=0).fit(rows).cluster_centers_


def sklearn_mini_batches(rows: np.ndarray, k: int, iterations: int) -> np.ndarray:
    """Of its own default sizes and number of batches: its iterations are no passes over the rows."""
    from sklearn.cluster import MiniBatchKMeans

    return MiniBatchKMeans(k, n_init=1, random_state=0).fit(rows).cluster_centers_


CLUSTERING: dict[str, tuple[str, Peer]] = {
    "faiss.Kmeans": ("faiss", faiss_kmeans),
    "scikit-learn KMeans, k-means++": ("sklearn", sklearn_kmeans),
    "scikit-learn MiniBatchKMeans": ("sklearn", sklearn_mini_batches),
}


def lance_index(folder: Path, embeddings: pa.FixedSizeListArray, partitions: int) -> None:
    """A data set of embeddings with an index of so many partitions, in which Lance looks for pairs."""
    import lance

    written = lance.write_dataset(pa.table({"embedding": embeddings}), folder)
    written.create_index("embedding", "IVF_FLAT", metric="cosine", num_partitions=partitions)


def lance_pairs(folder: Path, eps: float) -> np.ndarray:
    """Pairs (p, 2) of the positions of rows in one partition; what is open and cached is so for this call alone."""
    import lance
    from lance.vector import find_duplicate_pairs

    with find_duplicate_pairs(lance.dataset(folder), "embedding", eps, max_concurrency=1) as reader:
        found = reader.read_all()
    return np.stack([found["row_id_a"].to_numpy(), found["row_id_b"].to_numpy()], axis=1).astype(np.int64)


PAIRS: dict[str, tuple[str, Peer]] = {"Lance find_duplicate_pairs": ("lance", lance_pairs)}


def faiss_script(inputs: Path, output: Path, k: int, eps: float, iterations: int = 10) -> dict[str, float]:
    """The whole dedup as one would write it down with faiss: one process that holds everything in memory.

    k-means, the label and distance of each row, a flat search in each cluster, and the ids of the rows whose
    neighbour is near and farther from the centroid.
    """
    import faiss

    with MemoryWatch([os.getpid()]) as watch:
        started = time.perf_counter()
        table = pq.read_table(inputs)
        ids = table["id"]
        rows = np.vstack([chunk.flatten().to_numpy().reshape(len(chunk), -1) for chunk in table["embedding"].chunks])
        del table
        faiss.normalize_L2(rows)
        kmeans = faiss.Kmeans(rows.shape[1], k, niter=iterations, seed=0)
        kmeans.train(rows)
        distances, labels = kmeans.assign(rows)
        order = np.lexsort((-distances, labels))  # in each cluster the farthest first: that is the one to keep
        edges = np.searchsorted(labels[order], np.arange(k + 1))
        drop = []
        for start, stop in pairwise(edges):
            chosen = order[start:stop]
            cluster = rows[chosen]
            index = faiss.IndexFlatIP(cluster.shape[1])
            index.add(cluster)
            scores, neighbours = index.search(cluster, min(2, len(cluster)))
            near = (scores >= 1 - eps) & (neighbours < np.arange(len(cluster))[:, None])
            drop.append(chosen[near.any(axis=1)])
        dropped = np.concatenate(drop)
        pq.write_table(pa.table({"id": ids.take(pa.array(dropped))}), output)
        seconds = time.perf_counter() - started
    return {"seconds": seconds, "peak_mib": watch.peaks[0], "duplicates": len(dropped)}
