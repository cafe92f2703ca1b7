"""From the folder of a result to a page, or a plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from semdedup.calibration.run import commit_of, embedder_of, stored_calibration
from semdedup.compute.progress import Reporter
from semdedup.dedup.base.folders import results_in
from semdedup.dedup.names import STEPS
from semdedup.dedup.results.chain import ChainResult, ChainRows, name_of
from semdedup.dedup.results.load import load
from semdedup.dedup.results.pairs import Id, Pair
from semdedup.dedup.results.removed import RemovedRows
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.threshold.rule import DEFAULT_EPS
from semdedup.dedup.threshold.vectors import find_vectors
from semdedup.errors import InputError
from semdedup.overlaps.folders import overlaps_below
from semdedup.report import strips
from semdedup.report.aligned import N_MOMENTS, AlignedVideos, align
from semdedup.report.cards import Outcome, shown_ids
from semdedup.report.moments import find_videos, load_moments
from semdedup.report.overlaps import outputs_at, survey_overlaps
from semdedup.report.page import Background, render
from semdedup.report.plot import check_matplotlib, plot_format, write_plot
from semdedup.report.quarantine import read_quarantine
from semdedup.report.strips import ClipStrip, clip_folders, load_strips
from semdedup.report.survey import DROPPED_PER_GROUP, THRESHOLDS, Survey, survey
from semdedup.report.target import check_pictures, check_target, link_to
from semdedup.runs.record import Record
from semdedup.storage.location import Location, Paths, locations_of
from semdedup.video.child import end_children

PAGE = "report.html"


def write_report(
    results: str,
    *,
    clips: Paths | None = None,
    output_path: str | None = None,
    eps: float | None = None,
    overlaps: Paths | None = None,
    storage_options: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    verbose: bool = True,
) -> str:
    """Write one page of HTML that shows a result: counts over all of it, and a sample of its pairs and groups.

    The page needs no network and stays below 10 MB whatever the size of the result.

    Args:
        results: folder of a dedup, of either layout, or of tables of scores; local or remote. Or the root of a run,
            whose dedups are shown together.
        clips: the output folder of `split`, or a folder of MP4 files, for pictures, or a list of those; by default that
            of the run, or of the split in whose folder the result is.
        output_path: the file to write; ``{results}/report.html`` by default.
        eps: the threshold to begin with; that of the result by default, or 0.1.
        overlaps: an output of `find_overlaps`, or a list of those; by default those of the run.
        storage_options: for fsspec.
        overwrite: replace a file that is not a report of semdedup, and a report that has pictures by one without.
        verbose: show progress.

    Returns:
        Where the page is.

    Raises:
        InputError: no scores, no clips or no overlaps at the paths.
        OutputConflictError: the file exists and is not a report of semdedup, or has pictures and would have none.
    """
    reporter, root = Reporter(verbose), Location.of(results, storage_options)
    result = load(results, storage_options=storage_options)
    target = Location.of(output_path or f"{results.rstrip('/')}/{PAGE}", storage_options)
    check_target(target, overwrite)
    kwargs = {"storage_options": dict(storage_options or {})}
    folders = clip_folders(root, None if clips is None else locations_of(clips, kwargs))
    outputs = [output for path in locations_of(overlaps, kwargs) for output in outputs_at(path)] or overlaps_below(root)
    rows, notes = _by_rule(result)
    with reporter.step("scores", None, "tables") as advance:
        found = survey(rows, _eps_of(result, eps))
        advance(len(rows.scores.files))
    aligned, clip_strips = _with_pictures(result, found, outputs, folders, reporter)
    if clips is None and not any(clip.url for clip in clip_strips.values()):  # those beside are of something else
        folders, clip_strips = [], {row_id: replace(clip, missing="") for row_id, clip in clip_strips.items()}
    is_own = (result.eps, result.removal) == (found.eps, rows.removal)
    more = notes + _notes(result, bool(folders)) + (aligned.notes() if aligned else [])
    gone = result.duplicates if is_own else None
    background = replace(_background(result, root, folders, outputs), notes=more, removal=rows.removal, removed=gone)
    links = {row_id: link for row_id, clip in clip_strips.items() if (link := link_to(clip.url, target))}
    witnesses = _witnesses(result, found) if is_own and not rows.by_scores else None
    page = render(found, clip_strips, background, aligned, Outcome(witnesses, links)).encode()
    if not overwrite:
        check_pictures(target, page, bool(clip_strips), reporter)
    target.write_bytes(page)
    return str(target)


def _background(
    result: DedupResult, root: Location, folders: Sequence[Location], outputs: Sequence[Location]
) -> Background:
    """What is known of a result beside its scores."""
    assert result.scores is not None
    steps = [Record(place).every_step for place in results_in(root)]
    place = root.at(Location.of(str(result.paths["results"])).url)
    return Background(
        place=str(root),
        quarantine=read_quarantine(result, root, folders),
        steps=_steps(outputs) | _steps(results_in(root)),
        across=result.scores.across,
        embedder=embedder_of(steps),
        calibration=stored_calibration(place, commit_of(steps)) or {},
    )


def plot_curve(
    results: str, path: str, *, eps: float | None = None, storage_options: Mapping[str, Any] | None = None
) -> str:
    """Write the curve of what remains against eps as a PNG or SVG file; returns where it is.

    The curve ends at eps 0.2, or further where the threshold of the result, or the one given, is above 0.15; at
    `exact_up_to` in any case. Under other removal rules than ``any`` it has 21 points, each of which costs a second
    look at the clusters.

    Raises:
        ParameterError: the name ends in neither .png nor .svg, or Matplotlib is not installed.
    """
    plot_format(path)
    check_matplotlib()
    result = load(results, storage_options=storage_options)
    chosen = result.eps if eps is None else eps
    most = next(most for most in (0.2, 0.5, 1.0) if chosen is None or chosen <= 0.75 * most or most == 1.0)
    target = Location.of(path, storage_options)
    assert result.scores is not None
    rows = RemovedRows(result.scores, result.removal)
    most = min(most, 1.0 if rows.exact_up_to is None else rows.exact_up_to)
    steps = THRESHOLDS if rows.by_scores else np.linspace(0, min(most, THRESHOLDS[-1]), 21).tolist()
    curve = result.remaining([x for x in steps if x <= most])
    write_plot(target, curve, chosen)
    return str(target)


def _with_pictures(
    result: DedupResult,
    found: Survey,
    outputs: Sequence[Location],
    folders: Sequence[Location],
    reporter: Reporter,
) -> tuple[AlignedVideos | None, dict[Any, ClipStrip]]:
    """Some of the longest overlaps, where there are outputs of them, and the clips of the sample."""
    try:
        aligned = _overlaps(outputs, folders, reporter) if outputs else None
        room = strips.MOST_BYTES - (aligned.n_bytes if aligned else 0)
        return aligned, _strips(result, found, folders, reporter, room)
    finally:
        end_children()


def _overlaps(outputs: Sequence[Location], folders: Sequence[Location], reporter: Reporter) -> AlignedVideos:
    """Overlaps with pictures, which may take a third of the bytes that all pictures of the page may take."""
    found = survey_overlaps(outputs)
    sides = [side for overlap in found.shown for side in overlap.sides]
    videos = find_videos(sorted({side.video for side in sides}), folders)
    moments = [times for overlap in found.shown for times in zip(*overlap.moments(N_MOMENTS), strict=True)]
    wanted = [(side.video, times) for side, times in zip(sides, moments, strict=True)]
    pictures = load_moments(wanted, videos, strips.MOST_BYTES // 3, reporter)
    return align(found, {name: video.duration_s for name, video in videos.items()}, pictures)


def _eps_of(result: DedupResult, eps: float | None) -> float:
    if eps is not None:
        return float(eps)
    return DEFAULT_EPS if result.eps is None else result.eps


def _by_rule(result: DedupResult) -> tuple[RemovedRows, list[str]]:
    """The rows that go by the rule of the result; by the scores, and a note, where clusters that it needs are gone."""
    assert result.scores is not None
    links = result.links if isinstance(result, ChainResult) else (result,)
    several = [RemovedRows(link.scores, link.removal) for link in links if link.scores is not None]
    rows = several[0] if len(several) == 1 else ChainRows.together(result.scores, several)
    try:
        for each in several:
            if not each.by_scores:
                find_vectors(each.scores.source, each.removal)
    except InputError as error:
        return RemovedRows(result.scores), [f"groups are those of the rule any: {error}"]
    return rows, []


def _witnesses(result: DedupResult, found: Survey) -> dict[Id, tuple[Id, float]] | None:
    """Of the rows of the sample that go the witness, and their similarity; None where none were written."""
    ids = {row_id for pair in found.sample.pairs for row_id in (pair.id, pair.max_id)}
    try:
        frame = result.witnesses_frame()
    except InputError:
        return None
    rows = frame[frame["id"].isin(list(ids))].compute(scheduler="synchronous")
    known = {str(row_id): row_id for row_id in ids}  # of ids in a frame the types may be NumPy's
    return {known[str(row.id)]: (row.witness_id, float(row.cosine_sim_score)) for row in rows.itertuples(index=False)}


def _strips(
    result: DedupResult, found: Survey, folders: Sequence[Location], reporter: Reporter, most_bytes: int
) -> dict[Any, ClipStrip]:
    """The strip of every clip of the sample. Pairs near the threshold come first, for the pictures have a budget."""
    assert result.scores is not None
    loaded = load_strips(shown_ids(found), folders, reporter, most_bytes)
    pairs = [*found.sample.pairs, *(p for group in found.groups for p in group.dropped[:DROPPED_PER_GROUP])]
    kept = [Pair(group.kept, group.kept, 0.0, group.cluster) for group in found.groups]
    metadata = result.scores.metadata([*pairs, *kept])
    return {
        row_id: clip if clip.metadata is not None else replace(clip, metadata=metadata.get(row_id))
        for row_id, clip in loaded.items()
    }


def _notes(result: DedupResult, pictures: bool) -> list[str]:
    notes = [] if pictures else ["no frames of the clips: name their folder with --clips to see them"]
    if isinstance(result, ChainResult):
        parts = (f"{name_of(link)} ({link.total:,} rows)" for link in result.links)
        notes.append(f"{len(result.links):,} dedups together, each of new rows: {', '.join(parts)}")
    return notes


def _steps(roots: Sequence[Location]) -> dict[str, Mapping[str, Any]]:
    """What is on record, in the order of the work; of several results with the name of the folder in front."""
    found: dict[str, Mapping[str, Any]] = {}
    for root in roots:
        steps, front = Record(root).every_step, f"{root.name}: " if len(roots) > 1 else ""
        names = sorted(steps, key=lambda name: (STEPS.index(name) if name in STEPS else -1, name))
        found |= {f"{front}{name}": steps[name] for name in names}
    return found
