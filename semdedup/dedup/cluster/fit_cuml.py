"""The fit by cuML's k-means over Dask, which needs a GPU in every worker. Imported where it may run, and only there.

It is driven from a task on a worker, since cuML brings the fitted model and its labels to whoever calls it, and there
makes CuPy arrays of them. So the client needs neither a GPU nor RAPIDS.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import dask
import dask.array
import distributed
import numpy as np

from semdedup.arrays import Array, backend_module, gpu_usable, to_host
from semdedup.arrays.devices import import_beside_cupy
from semdedup.storage.arrays import load_array
from semdedup.storage.location import Location

PACKAGES = ("cuml", "raft_dask")
OF_SCHEDULER = ("raft_dask",)
"""Of these packages the scheduler makes the id by which NCCL's processes find each other."""


def cuml_faults(client: distributed.Client) -> dict[str, str]:
    """Why cuML cannot run, for each process where it cannot; the client is not asked.

    Workers need a GPU, the packages, and ``CUDA_VISIBLE_DEVICES``, by which cuML finds the card of each; dask-cuda sets
    it in its workers, and nowhere else.
    """
    asked = {"scheduler": client.run_on_scheduler(_missing, OF_SCHEDULER), **client.run(_missing_in_worker)}
    return {where: why for where, why in asked.items() if why}


def _missing(packages: Sequence[str] = PACKAGES) -> str:
    absent = [name for name in packages if find_spec(name) is None]
    return f"packages missing: {', '.join(absent)}" if absent else ""


def _missing_in_worker() -> str:
    if not gpu_usable():
        return "no usable GPU"
    unset = "" if os.environ.get("CUDA_VISIBLE_DEVICES") else "CUDA_VISIBLE_DEVICES is not set (dask-cuda sets it)"
    return _missing() or unset


def fit_by_cuml(
    client: distributed.Client,
    parts: Sequence[distributed.Future],
    sizes: Sequence[int],
    start: Location,
    options: Mapping[str, Any],
) -> distributed.Future:
    """Begin a fit on parts of the sample that are on the workers.

    Args:
        client: connection to the workers.
        parts: futures of (m, d) float32 rows; empty parts are left out. They must be kept until the fit has ended.
        sizes: rows of each part.
        start: file of the (k, d) float32 centroids to start from.
        options: ``max_iter``, ``tol``, ``random_state`` and ``max_samples_per_batch``, as cuML has them.

    Returns:
        A future of centroids (k, d) float32, rows of each (k,) int64, inertia and iterations, as cuML gives them.
    """
    keys: dict[Any, int] = {part.key: size for part, size in zip(parts, sizes, strict=True) if size}
    return client.submit(partial(_fit, keys, start, dict(options)), pure=False)


def _fit(
    keys: Mapping[Any, int], place: Location, options: Mapping[str, Any]
) -> tuple[np.ndarray, np.ndarray, float, int]:
    shuffle = "dataframe.shuffle.method"  # importing cuml.dask sets it for everybody; undone with the block
    with dask.config.set({shuffle: dask.config.get(shuffle, None)}):
        estimator = import_beside_cupy("cuml.dask.cluster").KMeans
    start = load_array(place)
    with distributed.worker_client() as client, client.as_current():  # parts of cuML ask for the current client
        blocks = [
            dask.array.from_delayed(
                dask.delayed(_on_gpu)(distributed.Future(key, client)), (size, start.shape[1]), dtype=np.float32
            )
            for key, size in keys.items()
        ]
        init = client.scatter(start, hash=False)  # cuML sends what it is given to each worker, twice: now a key
        model = estimator(client=client, n_clusters=len(start), init=init, n_init=1, **options)
        model.fit(dask.array.concatenate(blocks))
        fitted = model.get_combined_model()
        labels = to_host(client.compute(model.labels_).result())
    counts = np.bincount(labels, minlength=len(start))  # labels are in the order of the workers; counts do not care
    return to_host(fitted.cluster_centers_).astype(np.float32), counts, float(model.inertia_), int(fitted.n_iter_)


def _on_gpu(part: np.ndarray) -> Array:
    return backend_module("gpu").asarray(part)
