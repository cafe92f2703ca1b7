"""`find_overlaps`: stretches of time that two videos share, and the clips that go because of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Unpack

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import open_session
from semdedup.overlaps.names import OVERLAP_DUPLICATES, OVERLAPS, STEP, WRITTEN
from semdedup.overlaps.options import MIN_OVERLAP, OverlapsOptions
from semdedup.overlaps.result import OverlapsResult
from semdedup.overlaps.run import join_tracks
from semdedup.overlaps.source import Source, check_output, find_source
from semdedup.runs.at_work import at_work
from semdedup.runs.files import refuse_foreign
from semdedup.runs.record import FILE_NAME, Record
from semdedup.runs.run import Run
from semdedup.runs.step import Outcome, Step, complete_already, run_step
from semdedup.settings import documented, needed
from semdedup.settings.shared import Shared, SharedOptions
from semdedup.storage.location import Location


@documented(OverlapsOptions, SharedOptions)
class OverlapSearch:
    """The search that `find_overlaps` runs; see there. `plan` tells what it would do."""

    def __init__(
        self,
        clips: str,
        output_path: str,
        *,
        min_overlap: float = MIN_OVERLAP,
        mirror: bool = False,
        base: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        **shared: Unpack[Shared],
    ) -> None:
        given = {**locals(), **shared}
        self.options, self.shared = OverlapsOptions.of(given), SharedOptions.of(given)
        self.clips = Location.of(needed(clips, "clips"), storage_options)
        self.output = Location.of(needed(output_path, "output_path"), storage_options)
        self.output.check_writable()
        self.base = None if self.options.base is None else Location.of(self.options.base, storage_options)
        check_output(self.output, self.base)

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> OverlapsResult:
        """Run, going on where an earlier run with the same parameters and input stopped.

        `client` and `cluster` are as for `SemanticDeduplicationWorkflow.run`.
        """
        reporter = Reporter(self.shared.verbose)
        with reporter.doing("looking at the input"):
            source = self._find()
            step = self._checked_step(source)
        if step.is_complete():
            return self._result(complete_already(step, reporter))
        tracks = source.tracks
        reads = [source.root.at(tracks[i].url) for i in (0, -1)]

        def work(run: Run) -> dict[str, Any]:
            return join_tracks(run, source, self.options)

        with (
            at_work(self.output, reporter, take_over=self.shared.take_over) as ownership,
            open_session(client, cluster or ClusterOptions(), reporter, reads, [self.output]) as session,
        ):
            result = self._result(run_step(step, work, session, ownership))
            reporter.summarize(result.rows())
        return result

    def plan(self) -> Iterator[str]:
        """What `run` would do, in lines of text. Everything that can be checked is checked; nothing is written."""
        source = self._find()
        step = self._checked_step(source)
        n_bytes = int(source.tracks.n_bytes.sum())
        yield f"input: {len(source.tracks):,} files of tracks, {n_bytes:,} bytes, in {source.root}"
        yield f"ranks: {', '.join(file.url.rpartition('/')[2] for file in source.tables) or 'by path alone'}"
        clips = source.clips
        yield f"clips: {clips.name}, {len(clips.files):,} files" if clips.name else "clips: none; none can go"
        if self.base is not None:
            yield f"base: {self.base}"
        yield f"{STEP}: " + ("complete already" if step.is_complete() else f"would write to {self.output}")

    def _find(self) -> Source:
        return find_source(self.clips, self.base)

    def _checked_step(self, source: Source) -> Step:
        """The step; refuses a folder that holds other overlaps, recorded or not."""
        base = None if source.base is None else source.base.commit
        step = Step(
            name=STEP,
            root=self.output,
            parameters={**self.options.recorded(), "base": base},
            identify=lambda: self._find().identity(),
            written=WRITTEN,
            cleared=(STEP,) if self.shared.clear_output else (),
            hint="Where videos came since, another output path with base (--base) compares these alone.",
            verify=self.shared.verify,
        )
        record = Record(self.output)
        if not self.shared.clear_output:
            record.check(STEP, step.parameters, source.identity(), step.hint)
        if self.shared.clear_output or STEP not in record.steps:
            ours = record.files
            for name in (OVERLAPS, OVERLAP_DUPLICATES):
                folder = self.output / name
                found = (f"{name}/{file.url[len(folder.url) + 1 :]}" for file in folder.files().ending_in(".parquet"))
                refuse_foreign(folder, [each for each in found if each not in ours], "that semdedup has no record of")
        return step

    def _result(self, outcome: Outcome) -> OverlapsResult:
        paths = {"overlaps": str(self.output / OVERLAPS), "clips that go": str(self.output / OVERLAP_DUPLICATES)}
        paths["manifest"] = str(self.output / FILE_NAME)
        return OverlapsResult(outcome.facts, outcome.seconds, paths, self.output, outcome.resumed)


def find_overlaps(
    clips: str,
    output: str,
    *,
    min_overlap: float = MIN_OVERLAP,
    mirror: bool = False,
    base: str | None = None,
    client: distributed.Client | str | None = None,
    cluster: ClusterOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
    clear_output: bool = False,
    verbose: bool = True,
    take_over: bool = False,
    verify: bool = False,
) -> OverlapsResult:
    """Find which stretch of which video is which stretch of another, or of the same one, wherever it lies in time.

    The better-ranked video is a: more pixels, then a higher bitrate, then longer; ties by path. A moment t of b is the
    moment ``start_a_s + speed * (t - start_b_s)`` of a.

    A clip goes where better-ranked videos, or earlier parts of its own, show at least `min_overlap` of it in clips that
    exist.

    Args:
        clips: the output folder of `split` or `embed`, or the root of a `run`: it has the tracks of the videos.
        output: folder for ``overlaps/*.parquet`` (``video_a``, ``start_a_s``, ``end_a_s``, ``video_b``, ``start_b_s``,
            ``end_b_s``, ``speed``, ``score``; with `mirror` also ``mirrored``), ``overlap_duplicates/*.parquet``
            (``id``, and ``video``, ``start_s``, ``end_s`` of what shows it) and the manifest.
        min_overlap: the share of a clip that must be shown for it to go.
        mirror: find mirror images, too.
        base: an earlier output for the same folder, which has grown since: its videos rank first and are compared with
            the new ones alone, and the tables hold what concerns these.
        client, cluster, clear_output, verbose, take_over, verify: as for the workflow.
        storage_options: for fsspec.

    Raises:
        SemdedupError: see `semdedup.errors`. A run that is refused has written nothing.

    Cost: for n vectors, of which a second of video has two, n²/2 products of 64 numbers; a base of m spares m²/2.
    Memory of a task: two blocks, whatever the size of the input; of the client 200 bytes a video.

    Example:
        >>> semdedup.find_overlaps("clips", "clips/overlaps").longest()
    """
    search = OverlapSearch(
        clips,
        output,
        min_overlap=min_overlap,
        mirror=mirror,
        base=base,
        storage_options=storage_options,
        clear_output=clear_output,
        verbose=verbose,
        take_over=take_over,
        verify=verify,
    )
    return search.run(client, cluster=cluster)
