"""Fitting the centroids on the sample, spread over the workers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np

from semdedup.arrays import Array, Backend, backend_module, to_host
from semdedup.compute.allocator import keeping_freed_memory
from semdedup.compute.session import Session
from semdedup.dedup.cluster.draw import Sample
from semdedup.dedup.cluster.seed import choose_seeds, first_rows, in_order, seeding_rows
from semdedup.dedup.input.scan import Workspace
from semdedup.dedup.kernels.kmeans import Sums, converged, lloyd_sums, next_centroids
from semdedup.dedup.kinds import INITS
from semdedup.dedup.options import KMeansOptions
from semdedup.errors import ClusterError, ParameterError
from semdedup.storage.arrays import load_array, save_array
from semdedup.storage.location import Location

SHARE_OF_SAMPLE = 2
"""The GPUs have to have so many times the memory of the sample: its parts are not of one size, nor evenly dealt."""


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


def fit_memory(n_rows: int, n_clusters: int, dim: int, n_threads: int) -> int:
    """Most bytes that a worker of so many threads holds in the fit, with `n_rows` rows of the sample in all of them.

    The rows; for each thread, a sum (k, d) in float64, and the centroids as they are read and as they are laid out for
    products; and the sum of two sums.
    """
    return 4 * dim * n_rows + n_threads * 16 * n_clusters * dim + 8 * n_clusters * dim


def _sums(centroids: Location, backend: Backend, parts: Sequence[np.ndarray]) -> Sums:
    """The sums of some parts together, added up in place."""
    xp = backend_module(backend)
    means = xp.asarray(load_array(centroids))
    total = Sums(xp.zeros(means.shape, dtype=np.float64), xp.zeros(len(means), dtype=np.int64))
    with keeping_freed_memory():
        for part in parts:
            if len(part):
                lloyd_sums(xp.asarray(part), means, total)
    return Sums(to_host(total.rows), to_host(total.counts))


def _add(left: Sums, right: Sums) -> Sums:
    return Sums(left.rows + right.rows, left.counts + right.counts)


def fit_centroids(
    session: Session, work: Workspace, sample: Sample, dim: int, n_clusters: int, options: KMeansOptions
) -> Fit:
    """Fit `n_clusters` centroids, fewer where the sample has fewer rows.

    The parts of the sample stay on the workers as futures that can be made again from their files; centroids travel
    as a file; each thread of the workers sums up the parts that it is dealt, and these sums are added two by two, those
    of a worker first.

    Cost: 2·m·k·d operations an iteration for m rows of sample, over all workers. Memory: of a worker `fit_memory`; of
    the client 8·k·d bytes four times.
    """
    n_clusters = min(n_clusters, sum(sample.sizes))
    engine = _chosen_engine(session, options, 4 * dim * sum(sample.sizes))
    best: Fit | None = None
    for attempt in range(options.n_init):
        start = _start(session, sample, dim, n_clusters, options, options.random_state + attempt)
        if engine == "cuml":
            found = _fit_cuml(session, work, sample, start, options)
        else:
            found = _fit_lloyd(session, work, sample, start, options)
        if best is None or found.inertia < best.inertia:
            best = found
    assert best is not None
    return best


def _start(
    session: Session, sample: Sample, dim: int, n_clusters: int, options: KMeansOptions, seed: int
) -> np.ndarray:
    if not isinstance(options.init, str):
        if options.init.shape[1] != dim:
            raise ParameterError(f"init has centroids of length {options.init.shape[1]}; the embeddings have {dim}")
        return options.init[:n_clusters]
    if INITS[options.init] == "random":  # the hashes that order the sample are random numbers
        heads = first_rows(session, sample, n_clusters)
        rows = session.client.gather([head.rows for head in heads])
        return in_order(rows, [head.ranks for head in heads], n_clusters)
    wanted = seeding_rows(n_clusters, options.oversampling_factor)
    with session.reporter.step("seed", n_clusters, "centroids") as advance:
        found = choose_seeds(session, sample, dim, wanted, n_clusters, seed)
        advance(n_clusters)
    return found


def share_parts(
    sizes: Sequence[int], holders: Sequence[Collection[str]], threads: Mapping[str, int]
) -> list[tuple[str, tuple[int, ...]]]:
    """Deal the parts of the sample to the threads of the workers, about as many rows to each.

    A part goes to a worker that holds it, unless this has its share already; it is moved then, and stays there.

    Args:
        sizes: rows of each part.
        holders: the workers that hold each part; none where it is being made again.
        threads: of each worker.

    Returns:
        Worker and positions of parts for each thread that has any, those of a worker side by side.

    >>> share_parts([5, 5, 5, 5], [["a"], ["a"], ["a"], []], {"a": 1, "b": 1})
    [('a', (0, 1)), ('b', (2, 3))]
    """
    share = sum(sizes) / max(1, sum(threads.values()))
    room = {worker: share * number for worker, number in threads.items()}
    dealt: dict[str, list[int]] = {worker: [] for worker in threads}

    def give(part: int, worker: str) -> None:
        dealt[worker].append(part)
        room[worker] -= sizes[part]

    moved = []
    for part, held_by in enumerate(holders):
        nearest = max((worker for worker in held_by if worker in room), key=room.__getitem__, default=None)
        if nearest is not None and room[nearest] >= sizes[part] / 2:
            give(part, nearest)
        else:
            moved.append(part)
    for part in moved:
        give(part, max(room, key=room.__getitem__))
    groups: list[tuple[str, tuple[int, ...]]] = []
    for worker, parts in dealt.items():
        of_threads: list[list[int]] = [[] for _ in range(threads[worker])]
        for part in parts:
            min(of_threads, key=lambda held: sum(sizes[other] for other in held)).append(part)
        groups += [(worker, tuple(held)) for held in of_threads if held]
    return groups


def _sums_of_threads(session: Session, sample: Sample, step: Callable[[list[Any]], Sums]) -> list[Any]:
    """Futures of the sums of the parts that each thread has."""
    client = session.client
    held = client.who_has(list(sample.parts))
    holders = [tuple(held.get(part.key, ())) for part in sample.parts]
    threads = client.nthreads()
    if not threads:  # while workers are started again
        return [client.submit(step, list(sample.parts), pure=False)]
    return [
        client.submit(
            step, [sample.parts[part] for part in parts], workers=[worker], allow_other_workers=True, pure=False
        )
        for worker, parts in share_parts(sample.sizes, holders, threads)
    ]


def _fault_of_memory(session: Session, sample_bytes: int) -> dict[str, str]:
    """Why a sample of so many bytes cannot be on the GPUs of all workers; nothing where it can, or on the CPU."""
    needed, there = SHARE_OF_SAMPLE * sample_bytes, session.n_slots * (session.device_memory or 0)
    if session.device_memory is None or needed <= there:
        return {}
    return {"GPUs": f"the sample needs {needed / 2**30:.1f} GiB, and they have {there / 2**30:.1f} GiB together"}


def _where_computed(session: Session, sample: Sample, dim: int) -> Sample:
    """The sample on the GPUs, where it fits there, so that it is not copied in each iteration."""
    if session.backend == "cpu" or _fault_of_memory(session, 4 * dim * sum(sample.sizes)):
        return sample
    place = partial(_on_backend, session.backend)
    return sample._replace(parts=[session.client.submit(place, part, pure=False) for part in sample.parts])


def _on_backend(backend: Backend, part: Array) -> Array:
    return backend_module(backend).asarray(part)


def _fit_lloyd(session: Session, work: Workspace, sample: Sample, start: np.ndarray, options: KMeansOptions) -> Fit:
    client, centroids, inertia = session.client, start, np.inf
    sample = _where_computed(session, sample, start.shape[1])
    with session.reporter.step("fit", None, "iterations") as advance:
        for iteration in range(1, options.max_iter + 1):
            location = work.scratch / "fit" / f"centroids-{session.token}-{iteration}.npy"
            save_array(location, centroids)
            sums = _sums_of_threads(session, sample, partial(_sums, location, session.backend))
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


def _chosen_engine(session: Session, options: KMeansOptions, sample_bytes: int) -> str:
    """``cuml`` or ``lloyd``, and the reason on stderr: ``auto`` takes cuML where every worker has it and a GPU, and the
    sample fits on these."""
    if options.kmeans_engine == "lloyd":
        engine, reason = "lloyd", "asked for"
    elif options.kmeans_engine == "auto" and session.backend == "cpu":
        engine, reason = "lloyd", "on the CPU"
    else:
        from semdedup.dedup.cluster.fit_cuml import cuml_faults

        found = cuml_faults(session.client) or _fault_of_memory(session, sample_bytes)
        faults = [f"{where}: {why}" for where, why in found.items()]
        if faults and options.kmeans_engine == "cuml":
            listed = "\n".join(f"  {fault}" for fault in faults[:10])
            raise ClusterError(
                f"kmeans_engine='cuml' cannot run here:\n{listed}\nTake kmeans_engine='auto' or 'lloyd'."
            )
        engine, reason = ("lloyd", f"no cuML: {faults[0]}") if faults else ("cuml", "every worker has a GPU and cuML")
    session.reporter.say(f"k-means engine: {engine} ({reason})")
    return engine


def _fit_cuml(session: Session, work: Workspace, sample: Sample, start: np.ndarray, options: KMeansOptions) -> Fit:
    from semdedup.dedup.cluster.fit_cuml import fit_by_cuml

    passed = {name: getattr(options, name) for name in ("max_iter", "tol", "random_state", "max_samples_per_batch")}
    location = work.scratch / "fit" / f"start-{session.token}.npy"
    save_array(location, start)
    with session.reporter.step("fit (cuML)", None, "fits") as advance:
        future = fit_by_cuml(session.client, sample.parts, sample.sizes, location, passed)
        found = session.result_of("fit (cuML)", future)
        session.check()
        advance(1)
    location.remove()
    centroids, counts, inertia, iterations = found
    return Fit(centroids, counts, inertia, iterations, "cuml")
