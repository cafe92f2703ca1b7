"""One run of `split` or `embed` on a session: the tasks for the videos that are missing, and the commit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from semdedup.errors import InputError, IntegrityError
from semdedup.runs.journal import HOME, Entry
from semdedup.runs.run import Run
from semdedup.storage.tables import write_batches, write_table
from semdedup.video.counts import Counts
from semdedup.video.merged import Merged, gone_clips, gone_videos, without_lost
from semdedup.video.own_files import COLUMN, OwnFiles, names_of, own_files
from semdedup.video.parts import PartPlan, Parts, plan_parts, write_name
from semdedup.video.quarantine import CAPTION_ERROR, EMBED_ERROR, NO_WINDOW, is_tried_again
from semdedup.video.records import CAPTION_ROWS, FILES, QUARANTINED, TRACK_ROWS, VIDEO_COLUMNS, VideoFile
from semdedup.video.row_files import RowKind
from semdedup.video.tally import Tally, is_of
from semdedup.video.tree import FINGERPRINTS, SUMMARY, file_key
from semdedup.video.video_rows import RowsHeld, VideoRows, clip_quarantine_table, quarantine_table
from semdedup.video.video_table import Missing, Placed, VideoTable
from semdedup.video.worker import Settings, process_videos


class Processed:
    """What became of videos, as tasks tell it. Memory: that of `VideoRows`, and a name a video.

    Args:
        columns: of the table of videos.

    Attributes:
        files: files of each video that are its own, in the order of the rows.
        also_in_place: names of what was put below the root beside these: of versions that videos had before.
    """

    def __init__(self, columns: pa.Schema = VIDEO_COLUMNS) -> None:
        self.files = OwnFiles()
        self.also_in_place: list[str] = []
        self._names: set[str] = set()
        self._held = RowsHeld(columns)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, video: str) -> bool:
        return video in self._names

    def take(self, entry: Entry, only: Mapping[str, VideoFile] | None = None) -> list[dict[str, Any]]:
        """Take what a task did; with `only`, of videos that are as they were, and did not fail by the moment.

        Returns:
            The rows that were taken.
        """
        new, own = [], set[str]()
        for row in entry.result:
            if row["video"] not in self._names and (only is None or _is_as_it_was(row, only.get(row["video"]))):
                new.append(row)
                self._names.add(row["video"])
                self._held.add(row)
                files = own_files(row, entry.written)
                self.files.add(files)
                own.update(name for name, _, _ in files)
        self.also_in_place += [name for name in entry.written if name not in own and not name.startswith(HOME)]
        return new

    def rows(self) -> VideoRows:
        """Of the table, in no order."""
        return self._held.rows()

    def in_place(self) -> Iterator[str]:
        """Names of everything that was put below the root."""
        return itertools.chain((name for files in self.files for name, _, _ in files), self.also_in_place)


def _is_as_it_was(row: Mapping[str, Any], file: VideoFile | None) -> bool:
    """Whether a row tells of a video as it is now, and it did not fail by the moment."""
    is_same = file is not None and (row["n_bytes"], row["stamp"]) == (file.n_bytes, file.stamp)
    return is_same and not is_tried_again(row)


def process(
    run: Run,
    settings: Settings,
    todo: Sequence[VideoFile],
    per_task: int,
    unit: str,
    unit_of_tasks: str,
    tallies: Sequence[Tally],
    columns: pa.Schema,
) -> Processed:
    """Process videos, but for those that a run which was killed has done.

    An entry of the journal is what one task did. Tasks are cut anew from what is left, so that nothing that was done is
    repeated, whatever videos came or went: a key is of this run alone, and entries of others are read by their videos.

    Args:
        settings: with a target.
        columns: of the table of videos.

    Raises:
        IntegrityError: videos were lost on the way.
        ParameterError: an embedder or the captioner fails on every clip.
    """
    done = Processed(columns)
    files = {video.relative_path: video for video in todo}
    for entry in run.entries(run.step):
        rows = done.take(entry, files)
        for tally in tallies:
            tally.count(rows)
    for tally in tallies:
        tally.check()
    del files
    if done:
        run.reporter.say(f"{len(done):,} of {len(todo):,} {unit} were done by a run that was interrupted")
    rest = [video for video in todo if video.relative_path not in done]
    batches = [rest[i : i + per_task] for i in range(0, len(rest), per_task)]
    jobs = {f"{file_key(' '.join(video.version for video in batch))}-{run.token}": batch for batch in batches}
    for entry in run.each(run.step, partial(process_videos, settings), jobs, unit=unit_of_tasks, label=paths_of):
        done.take(entry)
        for tally in tallies:
            tally.take(entry.result)
        run.reporter.quarantined(sum(row["status"] == QUARANTINED for row in entry.result))
    for tally in tallies:
        tally.check(at_the_end=True)
    if len(done) != len(todo):
        raise IntegrityError(f"{len(todo)} videos went in, {len(done)} came out")
    return done


def paths_of(batch: Sequence[VideoFile]) -> str:
    """What a task is at, for the error where its worker dies."""
    return ", ".join(video.relative_path for video in batch)


def check_unchanged(rows: VideoRows, now: Sequence[VideoFile]) -> None:
    """Compare the videos that were processed with the input as it is now. One that is gone was what it was.

    One that could not be read because it was gone has no stamp, and is tried again by a later run.

    Raises:
        InputError: some have changed since they were listed.
    """
    n_bytes, stamps = rows.numbers("n_bytes"), rows.column("stamp").to_pylist()
    positions = rows.positions(pa.array([file.relative_path for file in now], pa.string())).tolist()
    changed = [
        file.relative_path
        for file, row in zip(now, positions, strict=True)
        if row >= 0 and stamps[row] and (n_bytes[row], stamps[row]) != (file.n_bytes, file.stamp)
    ]
    if changed:
        raise InputError(
            f"{len(changed)} videos changed while they were being processed: {', '.join(changed[:3])}. Nothing was put "
            "on record; what was done of the others is kept. Run the same command again when the input is complete."
        )


def commit(
    run: Run,
    table: VideoTable,
    missing: Missing,
    done: Processed,
    placed: Placed,
    embedders: Mapping[str, pa.Schema],
) -> None:
    """Make what a run did part of the folder.

    Memory: `rows_memory` of the videos that there were and of those of this run, and some hundred bytes a clip for the
    `ROWS` videos that are written at a time.

    Args:
        table: as it was before the run.
        placed: videos that runs which were killed put in place, with their clips.
        embedders: names of the embedders, in the order of their folders, with the schemas of their embeddings.

    Raises:
        IntegrityError: clips have neither an embedding nor a reason for that.
    """
    kind, new = table.kind, done.rows()
    check_embedded(new, {name: kind.rows[folder].n_rows for name, folder in zip(embedders, kind.folders, strict=True)})
    if kind.captions:
        check_captioned(new)
    if kind.owns_clips:  # it has made their metadata anew
        new = new.with_no("meta_faults")
    before = table.rows
    for folder, rows in kind.rows.items():
        before = without_lost(before, rows, folder, missing.files)
        run.forget(write_name(rows))  # of a run that was killed before it had everything
    run.final.remove_tree()
    of_embeddings = dict(zip(kind.folders, embedders.values(), strict=True))
    schemas = {**of_embeddings, kind.captions: CAPTION_ROWS, FINGERPRINTS: TRACK_ROWS}
    plans = {folder: _write_parts(run, table, folder, before, new, schemas[folder]) for folder in kind.rows}
    merged = Merged(before, new, list(plans.values()))
    with run.noting():
        counts, written = _write_tables(run, table, merged, done.files, list(embedders))
    recorded = (table.entry or {}).get("files", {})
    kept = [f"{folder}/{name}" for folder, plan in plans.items() for name in plan.kept]
    stay = {name: recorded[name] for name in kept}
    written += [f"{folder}/{part.name}" for folder, plan in plans.items() for part in plan.parts]
    obsolete = set(recorded) - {*stay, *written}
    if kind.owns_clips:
        obsolete.update(names_of(gone_clips(merged, placed), gone_videos(merged, placed)))
    malformed = {} if kind.owns_clips else {"malformed_metadata": counts.malformed}
    run.commit(
        counts.summary(()) | malformed,
        kept=stay,
        obsolete=table.checked(obsolete),
        in_place=(name for name in done.in_place() if name not in obsolete),
    )


def check_embedded(rows: VideoRows, embedders: Mapping[str, str]) -> None:
    """Every clip that is kept has an embedding of each embedder, or failed to get it. Raises `IntegrityError`.

    Args:
        rows: of the table of videos.
        embedders: names of the embedders, each with the column that counts what it has embedded.
    """
    n_clips = pc.fill_null(pc.list_value_length(rows.column("clips")), 0).to_numpy()
    for name, column in embedders.items():
        for row in rows.filter(n_clips != rows.numbers(column)):
            faults = (fault for fault in row["clip_faults"] or () if fault["reason"] == EMBED_ERROR)
            failed = sum(is_of(fault, name) for fault in faults)
            if len(row["clips"]) != row[column] + failed:
                raise IntegrityError(
                    f"{row['video']}: of {len(row['clips'])} clips {row[column]} have an embedding of {name}, and "
                    f"{failed} failed"
                )


def check_captioned(rows: VideoRows) -> None:
    """Every clip that is kept has captions, or failed to get them. Raises `IntegrityError`."""
    n_clips = pc.fill_null(pc.list_value_length(rows.column("clips")), 0).to_numpy()
    for row in rows.filter(n_clips != rows.numbers("n_captioned")):
        failed = sum(fault["reason"] in (CAPTION_ERROR, NO_WINDOW) for fault in row["clip_faults"] or ())
        if len(row["clips"]) != (row["n_captioned"] or 0) + failed:
            raise IntegrityError(
                f"{row['video']}: of {len(row['clips'])} clips {row['n_captioned']} have captions, and {failed} failed"
            )


def _write_parts(
    run: Run, table: VideoTable, folder: str, before: VideoRows, new: VideoRows, schema: pa.Schema
) -> PartPlan:
    kind: RowKind = table.kind.rows[folder]
    work = Parts(kind, table.root / folder, run.scratch, run.final / folder, schema)
    plan = plan_parts(kind, before, new, work.most_rows(new))
    n_rows = 0
    if plan.parts:
        jobs = {part.name: part for part in plan.parts}
        n_rows = sum(entry.result for entry in run.each(write_name(kind), work.write, jobs, unit="files"))
    if n_rows != plan.n_rows:
        raise IntegrityError(f"{n_rows} {kind.name} were written, and the videos gave {plan.n_rows}")
    return plan


def _write_tables(
    run: Run, table: VideoTable, merged: Merged, files: OwnFiles, embedders: Sequence[str]
) -> tuple[Counts, list[str]]:
    """Write the tables of the step, and its summary; the counts over all videos, and what was written."""
    kind, counts, bad = table.kind, Counts(), list[pa.RecordBatch]()

    def counted() -> Iterator[pa.Table]:
        for batch, own in merged.batches(table.files(), files):
            counts.add(batch)
            bad.extend(VideoRows([batch]).in_quarantine().batches)
            yield pa.Table.from_batches([batch]).append_column(COLUMN, own)

    write_batches(run.final / kind.table, kind.columns.append(pa.field(COLUMN, FILES)), counted())
    names, rows = [kind.table], VideoRows(bad)
    tables = {kind.quarantine: quarantine_table(rows), kind.clip_quarantine: clip_quarantine_table(rows)}
    for name, quarantine in tables.items():
        if len(quarantine):
            write_table(run.final / name, quarantine)
            names.append(name)
    if kind.owns_clips:
        (run.final / SUMMARY).write_json(counts.summary(embedders))
        names.append(SUMMARY)
    return counts, names
