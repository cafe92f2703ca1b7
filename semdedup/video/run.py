"""One run of `split` or `embed` on a session: the tasks for the videos that are missing, and the commit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from semdedup.errors import InputError, IntegrityError
from semdedup.runs.journal import HOME, Entry
from semdedup.runs.run import Run
from semdedup.storage.tables import write_table
from semdedup.video.parts import Part, Parts, plan_parts
from semdedup.video.quarantine import OF_THE_MOMENT
from semdedup.video.records import VideoFile, quarantine_table, summary
from semdedup.video.tree import SUMMARY, file_key, version_key
from semdedup.video.video_table import Missing, OwnFile, VideoTable, names_of, own_files
from semdedup.video.worker import Settings, Target, process_videos

WRITE = "write embeddings"


@dataclass
class Processed:
    """What became of videos.

    Attributes:
        rows: of the table, by video.
        files: files of each video that are its own, by video.
        in_place: names of everything that was put below the root.
    """

    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: dict[str, list[OwnFile]] = field(default_factory=dict)
    in_place: list[str] = field(default_factory=list)

    def take(self, entry: Entry, only: Mapping[str, str] | None = None) -> None:
        """Take what a task did; with `only`, of videos that are as they were, and did not fail by the moment."""
        for row in entry.result:
            version = version_key(row["video"], row["n_bytes"], row["stamp"])
            if only is None or (only.get(row["video"]) == version and row["reason"] not in OF_THE_MOMENT):
                self.rows[row["video"]] = row
                self.files[row["video"]] = own_files(row, entry.written)
        self.in_place += [name for name in entry.written if not name.startswith(HOME)]


def process(
    run: Run, settings: Settings, todo: Sequence[VideoFile], per_task: int, unit: str, unit_of_tasks: str
) -> Processed:
    """Process videos, but for those that a run which was killed has done.

    An entry of the journal is what one task did. Tasks are cut anew from what is left, so that nothing that was done is
    repeated, whatever videos came or went: a key is of this run alone, and entries of others are read by their videos.

    Raises:
        IntegrityError: videos were lost on the way.
    """
    done = Processed()
    versions = {video.relative_path: video.version for video in todo}
    for entry in run.entries(run.step):
        done.take(entry, versions)
    if done.rows:
        run.reporter.say(f"{len(done.rows):,} of {len(todo):,} {unit} were done by a run that was interrupted")
    rest = [video for video in todo if video.relative_path not in done.rows]
    batches = [rest[i : i + per_task] for i in range(0, len(rest), per_task)]
    jobs = {f"{file_key(' '.join(video.version for video in batch))}-{run.token}": batch for batch in batches}
    settings = replace(settings, target=Target(run.root, run.scratch, run.token))
    for entry in run.each(run.step, partial(process_videos, settings), jobs, unit=unit_of_tasks, label=paths_of):
        done.take(entry)
    if len(done.rows) != len(todo):
        raise IntegrityError(f"{len(todo)} videos went in, {len(done.rows)} came out")
    return done


def paths_of(batch: Sequence[VideoFile]) -> str:
    """What a task is at, for the error where its worker dies."""
    return ", ".join(video.relative_path for video in batch)


def check_unchanged(done: Processed, now: Sequence[VideoFile]) -> None:
    """Compare the videos that were processed with the input as it is now. One that is gone was what it was.

    One that could not be read because it was gone has no stamp, and is tried again by a later run.

    Raises:
        InputError: some have changed since they were listed.
    """
    rows = {video: row for video, row in done.rows.items() if row["stamp"]}
    versions = {video: version_key(video, row["n_bytes"], row["stamp"]) for video, row in rows.items()}
    changed = [file.relative_path for file in now if versions.get(file.relative_path, file.version) != file.version]
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
    placed: Mapping[str, Sequence[str]],
    schema: pa.Schema,
    embedder: str | None,
) -> None:
    """Make what a run did part of the folder.

    Args:
        table: as it was before the run.
        placed: videos that runs which were killed put in place, with their clips.
    """
    kind, new = table.kind, done.rows
    before = dict(table.rows)
    table.rows = {video: without_lost(row, kind.folder, missing.files) for video, row in before.items()}
    run.forget(WRITE)  # of a run that was killed before it had everything
    run.final.remove_tree()
    parts, kept = _write_parts(run, table, new, schema)
    rows = {**table.rows, **new, **{row["video"]: {**row, "part": name} for name, held in parts for row in held}}
    rows = {video: rows[video] for video in sorted(rows)}
    with run.noting():
        names = _write_tables(run, table, rows, done, embedder)
    recorded = (table.entry or {}).get("files", {})
    stay = {f"{kind.folder}/{name}": recorded[f"{kind.folder}/{name}"] for name in kept}
    obsolete = set(recorded) - {*stay, *names, *(f"{kind.folder}/{name}" for name, _ in parts)}
    if kind.owns_clips:
        then = {clip for row in before.values() for clip in row["clips"]}.union(*placed.values())
        obsolete.update(names_of(then - {clip for row in rows.values() for clip in row["clips"]}, placed.keys() - rows))
    run.commit(
        summary(list(rows.values()), None),
        kept=stay,
        obsolete=table.checked(obsolete),
        in_place=[name for name in done.in_place if name not in obsolete],
    )


def without_lost(row: dict[str, Any], folder: str, lost: frozenset[str]) -> dict[str, Any]:
    """A row of a video whose embeddings are gone: without them, and without a stamp, so that it is processed again."""
    if row["n_rows"] and f"{folder}/{row['part']}" in lost:
        return {**row, "n_rows": 0, "part": "", "stamp": ""}
    return row


def _write_parts(
    run: Run, table: VideoTable, new: Mapping[str, Mapping[str, Any]], schema: pa.Schema
) -> tuple[list[Part], list[str]]:
    folder = table.kind.folder
    work = Parts(table.root / folder, run.scratch, run.final / folder, schema)
    parts, kept = plan_parts(table.rows, new, work.most_rows([row for row in new.values() if row["n_rows"]]))
    n_rows = 0
    if parts:
        n_rows = sum(
            entry.result for entry in run.each(WRITE, work.write, {part[0]: part for part in parts}, unit="files")
        )
    if n_rows != sum(row["n_rows"] for _, held in parts for row in held):
        raise IntegrityError(f"{n_rows} embeddings were written, which is not what the videos gave")
    return parts, kept


def _write_tables(
    run: Run, table: VideoTable, rows: Mapping[str, Mapping[str, Any]], done: Processed, embedder: str | None
) -> list[str]:
    kind, videos = table.kind, list(rows.values())
    table.write(run.final / kind.table, rows, done.files)
    names = [kind.table]
    quarantine = quarantine_table(videos)
    if len(quarantine):
        write_table(run.final / kind.quarantine, quarantine)
        names.append(kind.quarantine)
    if kind.owns_clips:
        (run.final / SUMMARY).write_json(summary(videos, embedder))
        names.append(SUMMARY)
    return names
