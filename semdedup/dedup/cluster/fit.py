"""Fitting the centroids on the sample, spread over the workers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from semdedup.arrays import Array, Backend, backend_module, to_host
from semdedup.compute.session import Session
from semdedup.dedup.cluster.draw import Sample
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.kernels.kmeans import Sums, converged, lloyd_sums, next_centroids, seeds
from semdedup.dedup.options import INITS, KMeansOptions
from semdedup.errors import ClusterError, ParameterError
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location

SEEDING_ROWS_PER_CENTROID, SMALLEST_SEEDING_SAMPLE = 4, 4096
"""Rows that k-means++ draws from: for each centroid, times the oversampling factor, and in all at least."""


@dataclass(frozen=True)
class Fit:
    """Fitted centroids (k, d) float32, the rows of the sample nearest to each (k,) int64, inertia, iterations, engine.

    The engine is the one that ran, ``cuml`` or ``lloyd``.
    """

    centroids: np.ndarray
    counts: np.ndarray
    inertia: float
    iterations: int
    engine: str


@lru_cache(maxsize=1)
def load_centroids(location: Location, digest: str, backend: Backend) -> Array:
    """Centroids from their file, once for each worker process; the digest tells one content from the next."""
    return backend_module(backend).asarray(load_array(location))


def _seed(n_clusters: int, n_rows: int, seed: int, backend: Backend, parts: Sequence[np.ndarray]) -> np.ndarray:
    rows = np.concatenate(parts)[:n_rows]
    return rows[seeds(backend_module(backend).asarray(rows), n_clusters, np.random.default_rng(seed))]


def _sums(centroids: Location, backend: Backend, part: np.ndarray) -> Sums:
    xp = backend_module(backend)
    if not len(part):
        means = load_array(centroids)
        return Sums(np.zeros(means.shape), np.zeros(len(means), dtype=np.int64))
    found = lloyd_sums(xp.asarray(part), xp.asarray(load_array(centroids)))
    return Sums(to_host(found.rows), to_host(found.counts))


def _add(left: Sums, right: Sums) -> Sums:
    return Sums(left.rows + right.rows, left.counts + right.counts)


def fit_centroids(
    session: Session, work: Workspace, sample: Sample, dim: int, n_clusters: int, options: KMeansOptions
) -> Fit:
    """Fit `n_clusters` centroids, fewer where the sample has fewer rows.

    The parts of the sample stay on the workers as futures that can be made again from their files; centroids travel
    as a file; sums are added on the workers, two by two.

    Cost: 2·m·k·d operations an iteration for m rows of sample, over all workers; m·d·4 bytes of cluster memory.
    """
    parts, sizes = sample
    n_clusters = min(n_clusters, sum(sizes))
    engine = _chosen_engine(session, options)
    best: Fit | None = None
    for attempt in range(options.n_init):
        start = _start(session, parts, sizes, dim, n_clusters, options, options.random_state + attempt)
        if engine == "cuml":
            found = _fit_cuml(session, parts, sizes, start, options)
        else:
            found = _fit_lloyd(session, work, parts, start, options)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    return best


def _start(
    session: Session,
    parts: Sequence[Any],
    sizes: Sequence[int],
    dim: int,
    n_clusters: int,
    options: KMeansOptions,
    seed: int,
) -> np.ndarray:
    if not isinstance(options.init, str):
        if options.init.shape[1] != dim:
            raise ParameterError(f"init has centroids of length {options.init.shape[1]}; the embeddings have {dim}")
        return options.init[:n_clusters]
    if INITS[options.init] == "random":
        wanted = n_clusters  # the sample is in the order of a hash: its first rows are random ones
    else:
        per_centroid = SEEDING_ROWS_PER_CENTROID * options.oversampling_factor
        wanted = max(n_clusters, SMALLEST_SEEDING_SAMPLE, int(per_centroid * n_clusters))
    needed = int(np.searchsorted(np.cumsum(sizes), min(wanted, sum(sizes)))) + 1
    if INITS[options.init] == "random":
        return np.concatenate(session.client.gather(list(parts[:needed])))[:n_clusters]
    with session.reporter.step("seed", n_clusters, "centroids") as advance:
        seeding = partial(_seed, n_clusters, wanted, seed, session.backend)
        rows = session.client.submit(seeding, list(parts[:needed]), pure=False).result()
        advance(n_clusters)
    return rows


def _fit_lloyd(
    session: Session, work: Workspace, parts: Sequence[Any], start: np.ndarray, options: KMeansOptions
) -> Fit:
    client, centroids, inertia = session.client, start, np.inf
    with session.reporter.step("fit", None, "iterations") as advance:
        for iteration in range(1, options.max_iter + 1):
            location = work.scratch / "fit" / f"centroids-{session.token}-{iteration}.npy"
            save_array(location, centroids)
            step = partial(_sums, location, session.backend)
            sums = [client.submit(step, part, pure=False) for part in parts]
            while len(sums) > 1:
                pairs = zip(sums[::2], sums[1::2], strict=False)
                sums = [client.submit(_add, a, b, pure=False) for a, b in pairs] + sums[len(sums) & ~1 :]
            total = sums[0].result()
            session.check()
            location.remove()
            previous, (centroids, inertia) = inertia, next_centroids(centroids, total)
            advance(1)
            if converged(previous, inertia, options.tol):
                break
    return Fit(centroids, total.counts, inertia, iteration, "lloyd")


def _chosen_engine(session: Session, options: KMeansOptions) -> str:
    """``cuml`` or ``lloyd``, and the reason on stderr: ``auto`` takes cuML where GPUs work and every process has it."""
    if options.kmeans_engine == "lloyd":
        engine, reason = "lloyd", "asked for"
    elif options.kmeans_engine == "auto" and session.backend == "cpu":
        engine, reason = "lloyd", "on the CPU"
    else:
        from semdedup.dedup.cluster.fit_cuml import cuml_faults

        faults = [f"{where}: {why}" for where, why in cuml_faults(session.client).items()]
        if faults and options.kmeans_engine == "cuml":
            listed = "\n".join(f"  {fault}" for fault in faults[:10])
            raise ClusterError(
                f"kmeans_engine='cuml' cannot run here:\n{listed}\nTake kmeans_engine='auto' or 'lloyd'."
            )
        engine, reason = ("lloyd", f"no cuML: {faults[0]}") if faults else ("cuml", "every worker has a GPU and cuML")
    session.reporter.say(f"k-means engine: {engine} ({reason})")
    return engine


def _fit_cuml(
    session: Session, parts: Sequence[Any], sizes: Sequence[int], start: np.ndarray, options: KMeansOptions
) -> Fit:
    from semdedup.dedup.cluster.fit_cuml import fit_by_cuml

    passed = {name: getattr(options, name) for name in ("max_iter", "tol", "random_state", "max_samples_per_batch")}
    with session.reporter.step("fit (cuML)", None, "fits") as advance:
        found = fit_by_cuml(session.client, parts, sizes, start, **passed)
        advance(1)
    return Fit(*found, "cuml")
