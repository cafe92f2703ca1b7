"""`deduplicate`: a frame in, the same kind of frame without near-duplicates out."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from inspect import signature
from typing import Any, TypeVar

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.compute.temporary import TemporaryFolder, seen_by_all
from semdedup.dedup.frame_input.held import read_once
from semdedup.dedup.results.dropped import as_it_came, without_dropped
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.display import format_counts
from semdedup.errors import ParameterError
from semdedup.settings import check_names
from semdedup.settings.frames import TAKEN, frame_of, with_frames
from semdedup.storage.location import Location

F = TypeVar("F")

OURS = ("input_path", "output_path", "eps")


def deduplicate(
    frame: F,
    eps: float = 0.1,
    *,
    output_path: str | None = None,
    client: distributed.Client | str | None = None,
    cluster: ClusterOptions | None = None,
    **options: Any,
) -> F:
    """The same frame without its near-duplicates.

    The comparison runs at the call. A Dask DataFrame comes back lazy: its partitions drop their rows when they are
    computed, and are computed again for that unless they were persisted. Everything else comes back in memory, rows in
    their order and all columns and the index as they were. What hands out Arrow by ``__arrow_c_stream__`` alone comes
    back as a PyArrow Table.

    Rows that cannot be compared (null, of another length, not finite, zero, or without an id) stay, with a warning that
    counts them.

    Args:
        frame: a Dask, pandas, cuDF or Polars DataFrame, a PyArrow Table, a `datasets.Dataset`, anything with
            ``__arrow_c_stream__``, with a column of ids and one of embeddings; or a NumPy or CuPy matrix (n, d), whose
            rows are the embeddings.
        eps: a row goes where its similarity to a better-ranked row is at least 1 - eps.
        output_path: folder for the clusters, scores and ids to drop, for `semdedup.load`. By default a temporary folder
            of this machine, which goes with the call; of a lazy frame many ids to drop stay in it until the process
            ends, few of them travel with the frame.
        client, cluster: as for the workflow.
        options: of `SemanticDeduplicationWorkflow`. `id_field` None takes the positions of the rows as ids.

    Raises:
        SemdedupError: see `semdedup.errors`; `DuplicateIdError` where an id is there twice.

    Cost: that of the workflow; an eager frame is held twice for a moment, and written to the disk once.

    Example:
        >>> df = pd.DataFrame({"id": ids, "embedding": list(vectors)})
        >>> kept = semdedup.deduplicate(df, eps=0.05)
    """
    return _deduplicate(frame, eps, output_path, client, cluster, options)


def _deduplicate(
    frame: F,
    eps: float,
    output_path: str | None,
    client: distributed.Client | str | None,
    cluster: ClusterOptions | None,
    options: Mapping[str, Any],
) -> F:
    found = frame_of(frame)
    if found is None:
        raise ParameterError(
            f"frame must be {TAKEN}; got {type(frame).__name__}. For files there is SemanticDeduplicationWorkflow"
        )
    if eps is None:
        raise ParameterError("eps must be a number in [0, 1); got None")
    known = [name for name in signature(SemanticDeduplicationWorkflow).parameters if name not in OURS]
    check_names("deduplicate", options, known)
    given = with_frames({**options, "eps": eps, "input_path": read_once(found)}, "input_path")
    folder, place = None, output_path
    if place is None:
        folder = TemporaryFolder("deduplicate")
        place = folder.path
    try:
        workflow = SemanticDeduplicationWorkflow(output_path=place, **given)
        with seen_by_all(Location.of(place), folder is not None, "output_path"):
            result = workflow.run(client, cluster=cluster)
        dropped = result.dropped()
        if folder is not None and found.is_lazy:
            dropped = dropped.in_memory()
        kept: F = without_dropped(given["input_path"], given.get("id_field", "id"), dropped)
    except BaseException:
        if folder is not None:
            folder.remove()
        raise
    if result.n_quarantined:
        reasons = format_counts(result.quarantined)
        what = f"{result.n_quarantined:,} rows of {found.name} cannot be compared and stay"
        warnings.warn(f"{what}: {reasons}", stacklevel=3)
    if folder is not None and found.is_lazy and dropped.files:
        folder.stay_with(location.url for location, _ in dropped.files)
    elif folder is not None:
        folder.go()
    return as_it_came(found, kept)
