"""What others do: each peer is a few lines around its library, and is left out by name where that is not installed."""

import os
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.loops import Loop, curator_1_3, curator_1_4
from benchmarks.workers import MemoryWatch

Peer = Callable[..., Any]
One = TypeVar("One")
Prepare = Callable[[np.ndarray, float, Path], Callable[[], np.ndarray]]
"""Takes (n, d) float32 rows of length 1, best-ranked first, an eps, and a folder; what it gives is called and timed."""


def those_installed(peers: Mapping[str, tuple[str, One]]) -> dict[str, One]:
    """The peers whose package is there; of the others the names are printed."""
    absent = [name for name, (package, _) in peers.items() if find_spec(package) is None]
    if absent:
        print(f"  not installed, left out: {', '.join(absent)}", flush=True)
    return {name: peer for name, (_, peer) in peers.items() if name not in absent}


def curator_loop(loop: Loop, dtype: str) -> Prepare:
    """A loop of NeMo Curator in PyTorch, on rows that have that type already, as its files have; on the CPU."""

    def prepare(rows: np.ndarray, eps: float, folder: Path) -> Callable[[], np.ndarray]:
        import torch

        tensor = torch.from_numpy(rows).to(getattr(torch, dtype))
        return lambda: loop(torch, tensor)[0].float().numpy() >= np.float32(1 - eps)

    return prepare


def faiss_search(rows: np.ndarray, eps: float, folder: Path) -> Callable[[], np.ndarray]:
    """The two nearest of each row, of which one is the row itself; whether others rank better is not asked."""
    import faiss

    def search() -> np.ndarray:
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        scores, neighbours = index.search(rows, 2)
        return ((scores >= np.float32(1 - eps)) & (neighbours < np.arange(len(rows))[:, None])).any(axis=1)

    return search


def semhash_of(backend: str) -> Prepare:
    """The choice that semhash makes among given embeddings, by an index of Vicinity: USEARCH is its default."""

    def prepare(rows: np.ndarray, eps: float, folder: Path) -> Callable[[], np.ndarray]:
        from semhash import SemHash
        from vicinity import Backend

        names = [str(i) for i in range(len(rows))]

        def choose() -> np.ndarray:
            found = SemHash.from_embeddings(rows, names, model=None, ann_backend=Backend[backend])
            goes = np.ones(len(rows), dtype=bool)
            goes[np.array(found.self_deduplicate(threshold=1 - eps).selected, dtype=np.int64)] = False
            return goes

        return choose

    return prepare


def faiss_pairs(rows: np.ndarray, eps: float, folder: Path) -> Callable[[], np.ndarray]:
    """Everything within eps of each row, so that each pair is found twice, and given once."""
    import faiss

    def search() -> np.ndarray:
        index = faiss.IndexFlatIP(rows.shape[1])
        index.add(rows)
        edges, _, found = index.range_search(rows, float(np.nextafter(np.float32(1 - eps), np.float32(0))))
        each = np.repeat(np.arange(len(rows)), np.diff(edges.astype(np.int64)))
        return np.stack([each, found], axis=1)[each < found]

    return search


def lance_pairs(partitions: int) -> Prepare:
    """Lance compares the rows inside each partition of an index (IVF_FLAT), which is made before."""

    def prepare(rows: np.ndarray, eps: float, folder: Path) -> Callable[[], np.ndarray]:
        import lance
        from lance.vector import find_duplicate_pairs

        place = folder / f"lance-{partitions}"
        embeddings = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
        written = lance.write_dataset(pa.table({"embedding": embeddings}), place)
        written.create_index("embedding", "IVF_FLAT", metric="cosine", num_partitions=partitions)

        def find() -> np.ndarray:  # opened here: what is cached of a data set is so for this call alone
            with find_duplicate_pairs(lance.dataset(place), "embedding", eps, max_concurrency=1) as reader:
                found = reader.read_all()
            columns = [found[name].to_numpy() for name in ("row_id_a", "row_id_b")]
            return np.stack(columns, axis=1).astype(np.int64)

        return find

    return prepare


ANY: dict[str, tuple[str, Prepare]] = {
    "NeMo Curator ≤ 1.3, its loop, float32": ("torch", curator_loop(curator_1_3, "float32")),
    "NeMo Curator 1.4, its loop, float16": ("torch", curator_loop(curator_1_4, "float16")),
    "NeMo Curator 1.4, its loop, bfloat16": ("torch", curator_loop(curator_1_4, "bfloat16")),
    "faiss IndexFlatIP.search(x, 2)": ("faiss", faiss_search),
}
"""Which rows match a better-ranked one, (n,). Curator's default is float16, in which PyTorch is slow on processors."""

WITNESS: dict[str, tuple[str, Prepare]] = {
    "semhash, its default index": ("semhash", semhash_of("USEARCH")),
    "semhash, exact": ("semhash", semhash_of("BASIC")),
}
"""Which rows match a better-ranked one that stays, (n,)."""

PAIRS: dict[str, tuple[str, Prepare]] = {
    "faiss IndexFlatIP.range_search": ("faiss", faiss_pairs),
    "Lance find_duplicate_pairs, 1 partition": ("lance", lance_pairs(1)),
    "Lance find_duplicate_pairs, 20 partitions": ("lance", lance_pairs(20)),
}
"""All pairs of rows that match, (p, 2)."""


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
