"""The fit by cuML's k-means over Dask, which needs a GPU in every worker. Imported where it may run, and only there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

import dask
import dask.array
import distributed
import numpy as np

from semdedup.arrays import Array, backend_module, gpu_usable, to_host

PACKAGES = ("cuml", "raft_dask")


def cuml_faults(client: distributed.Client) -> dict[str, str]:
    """Why cuML cannot run, for the client and for each worker where it cannot.

    All of them need a GPU and the packages. Only workers need ``CUDA_VISIBLE_DEVICES``, by which cuML finds the card of
    each; dask-cuda sets it in its workers, and nowhere else.
    """
    faults = {"client": _missing(), **client.run(_missing_in_worker)}
    return {where: why for where, why in faults.items() if why}


def _missing() -> str:
    if not gpu_usable():
        return "no usable GPU"
    absent = [name for name in PACKAGES if find_spec(name) is None]
    return f"packages missing: {', '.join(absent)}" if absent else ""


def _missing_in_worker() -> str:
    unset = "" if os.environ.get("CUDA_VISIBLE_DEVICES") else "CUDA_VISIBLE_DEVICES is not set (dask-cuda sets it)"
    return _missing() or unset


def fit_by_cuml(
    client: distributed.Client, parts: Sequence[Any], sizes: Sequence[int], start: np.ndarray, **options: Any
) -> tuple[np.ndarray, np.ndarray, float, int]:
    """Fit on parts of the sample that are on the workers.

    Args:
        client: connection to the workers.
        parts: futures of (m, d) float32 rows; empty parts are left out.
        sizes: rows of each part.
        start: (k, d) float32 centroids to start from.
        options: ``max_iter``, ``tol``, ``random_state`` and ``max_samples_per_batch``, as cuML has them.

    Returns:
        Centroids (k, d) float32, rows of each (k,) int64, inertia and iterations, as cuML gives them.
    """
    shuffle = "dataframe.shuffle.method"  # importing cuml.dask sets it for everybody; undone with the block
    with dask.config.set({shuffle: dask.config.get(shuffle, None)}):
        from cuml.dask.cluster import KMeans

    blocks = [
        dask.array.from_delayed(dask.delayed(_on_gpu)(part), shape=(size, start.shape[1]), dtype=np.float32)
        for part, size in zip(parts, sizes, strict=True)
        if size
    ]
    with client.as_current():  # parts of cuML ask for the current client, whichever they were given
        model = KMeans(client=client, n_clusters=len(start), init=start, n_init=1, **options)
        model.fit(dask.array.concatenate(blocks))
        fitted = model.get_combined_model()
        labels = to_host(client.compute(model.labels_).result())
    counts = np.bincount(labels, minlength=len(start))  # labels are in the order of the workers; counts do not care
    return to_host(fitted.cluster_centers_).astype(np.float32), counts, float(model.inertia_), int(fitted.n_iter_)


def _on_gpu(part: np.ndarray) -> Array:
    return backend_module("gpu").asarray(part)
