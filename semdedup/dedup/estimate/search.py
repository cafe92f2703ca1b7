"""`estimate`: what a run would find and cost, before it is run."""

from __future__ import annotations

import contextlib
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Unpack

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import open_session
from semdedup.compute.temporary import seen_by_all
from semdedup.dedup.cluster.plan import check_embedding_files
from semdedup.dedup.estimate.result import Estimate
from semdedup.dedup.estimate.run import Asked, estimate_files
from semdedup.dedup.frame_input.held import Columns
from semdedup.dedup.frame_input.source import NOT_READ, FrameSource
from semdedup.dedup.input.files import embeddings_of, find_files
from semdedup.dedup.input.found import FoundFiles
from semdedup.dedup.keywords import DedupKeywords
from semdedup.dedup.names import OUR_COLUMNS
from semdedup.dedup.options import (
    CompareOptions,
    EstimateOptions,
    InputOptions,
    IOOptions,
    KMeansOptions,
    ThresholdOptions,
)
from semdedup.errors import IntegrityError
from semdedup.runs.identity import fingerprint
from semdedup.runs.owner import owned
from semdedup.runs.record import Record
from semdedup.runs.run import begin
from semdedup.settings import check_names, settings_of
from semdedup.settings.frames import Frame, Input, with_frames
from semdedup.storage.location import Location, locations_of, storage_options_of
from semdedup.storage.temporary import temporary_prefix

STEP = "estimate"


def estimate(
    input: Input,
    eps: float | Sequence[float] = (0.05, 0.1, 0.2),
    sample: int = 2000,
    random_state: int = 42,
    client: distributed.Client | str | None = None,
    *,
    cluster: ClusterOptions | None = None,
    scratch_path: str | None = None,
    **options: Unpack[DedupKeywords],
) -> Estimate:
    """Estimate what `SemanticDeduplicationWorkflow` would find and cost, from a sample of rows compared with all rows.

    The sample is chosen by a seeded hash of the ids: it does not depend on files or partitions. Rows that cannot be
    compared are left out and counted; those of `low_information` match nothing. The clusters are those of the run: the
    same sample is fitted on, with the same seed. What the run costs is extrapolated from pieces of it that are measured
    on the workers.

    Args:
        input: folder, file or glob of Parquet (or JSON Lines) with ids and embeddings; or several; or a frame, as for
            the workflow.
        eps: thresholds to estimate at.
        sample: rows to compare with all rows. An interval narrows with its root.
        random_state: seed of the sample, of the rank, and of the clusters.
        client, cluster: as for the workflow.
        scratch_path: folder for files in between, all of which go at the end: a few bytes for each row, and the rows
            that the clusters are fitted on. By default a temporary folder of this machine; workers elsewhere need one
            that they see.
        options: of the workflow, such as `n_clusters` or `embedding_field`; those that are about its output mean
            nothing here.

    Raises:
        SemdedupError: see `semdedup.errors`. Nothing is left behind in any case.

    Cost: the scan and the fit of the run, and one more reading of the input; see `estimate.run.estimate_files`.

    Example:
        >>> semdedup.estimate("emb/", eps=[0.05, 0.1]).shares
    """
    given = {"input_path": input, "eps": eps, "sample": sample, "random_state": random_state}
    given = with_frames({**options, **given, "scratch_path": scratch_path}, "input_path")
    asked = _asked(given, options)
    return _estimate(asked, client, cluster or ClusterOptions())


def _estimate(asked: Asked, client: distributed.Client | str | None, cluster: ClusterOptions) -> Estimate:
    """Check what can be checked here, and work in a folder that goes."""
    started = time.monotonic()
    frame: FrameSource | None = None
    sources: list[Location] = []
    files = FoundFiles(())
    if isinstance(asked.io.input_path, Frame):
        frame = FrameSource(asked.io.input_path, Columns.of(asked.inputs, asked.io.input_path))
        frame.check(partial(check_embedding_files, inputs=asked.inputs, ranked_by=asked.compare.strategy))
    else:
        sources = embeddings_of(locations_of(asked.io.input_path, asked.io.read_kwargs))
        files = find_files(sources, asked.inputs.input_filetype, recorded=True)
        check_embedding_files(files, sources[0], asked.inputs, asked.compare.strategy)
    reporter = Reporter(asked.io.verbose)
    with contextlib.ExitStack() as stack:
        scratch = stack.enter_context(_scratch(asked))
        ownership = stack.enter_context(owned(scratch, say=reporter.say))
        reads = [sources[0].at(file.url) for file in (files[0], files[-1])] if files else []
        with seen_by_all(scratch, asked.options.scratch_path is None, "scratch_path (--scratch-path)"):
            session = stack.enter_context(open_session(client, cluster, reporter, reads, [scratch]))
        identity = fingerprint(files) if frame is None else frame.identity or NOT_READ
        run = begin(Record(scratch, ownership.token), STEP, {}, identity, ownership, session, {})
        if run is None:
            raise IntegrityError(f"the folder {scratch} was new, and yet there is a run in it")
        if frame is not None:
            frame.learn(session)
            sources = [frame.write(run)]
            files = find_files(sources, asked.inputs.input_filetype)
            stack.enter_context(frame.naming())
        found = estimate_files(run, files, sources[0], asked)
    seconds = time.monotonic() - started  # with the start of the workers
    return replace(found, seconds=seconds, passed_over=files.passed_over)


def _asked(given: dict[str, Any], options: Mapping[str, Any]) -> Asked:
    """The settings by groups. Raises a `ParameterError` for a name that the workflow does not have."""
    groups = (IOOptions, InputOptions, KMeansOptions, CompareOptions, ThresholdOptions)
    names = [name for declared in settings_of(*groups) for name in (declared.name, *declared.aliases)]
    ours = ("input_path", "random_state", "eps")
    check_names("estimate", options, [name for name in names if name not in ours])
    compare = CompareOptions.of(given)
    ThresholdOptions.of({name: value for name, value in given.items() if name != "eps"})
    inputs = InputOptions.of(given)
    more = [name for name in compare.strategy.columns if name not in (*OUR_COLUMNS, inputs.id_field)]
    inputs = InputOptions.of({**given, "metadata_fields": [*inputs.metadata_fields, *more]})  # as the workflow does
    inputs = inputs.ranked(compare.strategy)
    return Asked(IOOptions.of(given), inputs, KMeansOptions.of(given), compare, EstimateOptions.of(given))


@contextlib.contextmanager
def _scratch(asked: Asked) -> Iterator[Location]:
    """A folder for files in between, which is gone after the block."""
    if asked.options.scratch_path is None:
        with tempfile.TemporaryDirectory(prefix=temporary_prefix("estimate"), ignore_cleanup_errors=True) as temporary:
            yield Location.of(temporary)
        return
    place = Location.of(asked.options.scratch_path, storage_options_of(asked.io.write_kwargs))
    folder = place / f"_estimate-{uuid.uuid4().hex[:12]}"
    try:
        yield folder
    finally:
        folder.remove_tree()
