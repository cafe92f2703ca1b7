"""One run of `split` or `embed` on a session: the tasks for the videos that are missing, and the commit."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import pyarrow as pa

from semdedup.errors import InputError, IntegrityError, ParameterError
from semdedup.runs.journal import HOME, Entry
from semdedup.runs.run import Run
from semdedup.storage.tables import write_table
from semdedup.video.parts import Part, Parts, plan_parts
from semdedup.video.quarantine import EMBED_ERROR, is_tried_again
from semdedup.video.records import VideoFile, clip_faults, clip_quarantine_table, quarantine_table, summary
from semdedup.video.tree import SUMMARY, file_key, version_key
from semdedup.video.video_table import Missing, OwnFile, VideoTable, names_of, own_files
from semdedup.video.worker import Settings, Target, process_videos

WRITE = "write embeddings"

MOST_FAILED = 20
"""Clips on which an embedder fails before it has embedded one; then it is given up."""


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
            if only is None or (only.get(row["video"]) == version and not is_tried_again(row)):
                self.rows[row["video"]] = row
                self.files[row["video"]] = own_files(row, entry.written)
        self.in_place += [name for name in entry.written if not name.startswith(HOME)]


@dataclass
class EmbedTally:
    """Whether the embedder works at all. One that fails on every clip is at fault itself, and ends the run.

    Attributes:
        known: clips that failed in earlier runs: that they fail again tells nothing.
        proven: whether clips of earlier runs have embeddings.
        embedded: clips that this run has embedded.
        failed: those that are not `known` on which the embedder failed.
        first: what it said of the first.
    """

    known: frozenset[str]
    proven: bool
    embedded: int = 0
    failed: int = 0
    first: str = ""

    @classmethod
    def of(cls, before: Mapping[str, Mapping[str, Any]]) -> EmbedTally:
        """That of a run on a folder whose table has these rows."""
        known = frozenset(fault["id"] for _, fault in clip_faults(before.values()))
        return cls(known, any(row["n_rows"] for row in before.values()))

    def take(self, rows: Iterable[Mapping[str, Any]], at_the_end: bool = False) -> None:
        """Count what became of videos.

        Raises:
            ParameterError: no clip could be embedded, of `MOST_FAILED`; or at the end of any, here and in earlier runs.
        """
        rows = list(rows)
        self.embedded += sum(row["n_rows"] for row in rows)
        failed = [fault for _, fault in clip_faults(rows) if fault["reason"] == EMBED_ERROR]
        new = [fault["detail"] for fault in failed if fault["id"] not in self.known]
        self.failed, self.first = self.failed + len(new), self.first or "".join(new[:1])
        hopeless = self.failed >= MOST_FAILED or (at_the_end and self.failed and not self.proven)
        if hopeless and not self.embedded:
            raise ParameterError(f"none of {self.failed:,} clips could be embedded, of the first: {self.first}")


def process(
    run: Run,
    settings: Settings,
    todo: Sequence[VideoFile],
    per_task: int,
    unit: str,
    unit_of_tasks: str,
    tally: EmbedTally,
) -> Processed:
    """Process videos, but for those that a run which was killed has done.

    An entry of the journal is what one task did. Tasks are cut anew from what is left, so that nothing that was done is
    repeated, whatever videos came or went: a key is of this run alone, and entries of others are read by their videos.

    Raises:
        IntegrityError: videos were lost on the way.
        ParameterError: the embedder fails on every clip.
    """
    done = Processed()
    versions = {video.relative_path: video.version for video in todo}
    for entry in run.entries(run.step):
        done.take(entry, versions)
    tally.take(done.rows.values())
    if done.rows:
        run.reporter.say(f"{len(done.rows):,} of {len(todo):,} {unit} were done by a run that was interrupted")
    rest = [video for video in todo if video.relative_path not in done.rows]
    batches = [rest[i : i + per_task] for i in range(0, len(rest), per_task)]
    jobs = {f"{file_key(' '.join(video.version for video in batch))}-{run.token}": batch for batch in batches}
    settings = replace(settings, target=Target(run.root, run.scratch, run.token))
    for entry in run.each(run.step, partial(process_videos, settings), jobs, unit=unit_of_tasks, label=paths_of):
        done.take(entry)
        tally.take(entry.result)
    tally.take((), at_the_end=True)
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

    Raises:
        IntegrityError: clips have neither an embedding nor a reason for that.
    """
    kind, new = table.kind, done.rows
    if embedder is not None:
        check_embedded(new.values())
    if kind.owns_clips:  # it has made them anew
        new = {video: {**row, "meta_faults": []} for video, row in new.items()}
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
    malformed = sum(len(row.get("meta_faults") or ()) for row in rows.values())
    run.commit(
        summary(list(rows.values()), None) | ({} if kind.owns_clips else {"malformed_metadata": malformed}),
        kept=stay,
        obsolete=table.checked(obsolete),
        in_place=[name for name in done.in_place if name not in obsolete],
    )


def check_embedded(rows: Iterable[Mapping[str, Any]]) -> None:
    """Every clip that is kept has an embedding, or failed to get one. Raises `IntegrityError`."""
    for row in rows:
        failed = sum(fault["reason"] == EMBED_ERROR for fault in row.get("clip_faults") or ())
        if len(row["clips"]) != row["n_rows"] + failed:
            raise IntegrityError(
                f"{row['video']}: of {len(row['clips'])} clips {row['n_rows']} have an embedding, and {failed} failed"
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
    tables = {kind.quarantine: quarantine_table(videos), kind.clip_quarantine: clip_quarantine_table(videos)}
    for name, quarantine in tables.items():
        if len(quarantine):
            write_table(run.final / name, quarantine)
            names.append(name)
    if kind.owns_clips:
        (run.final / SUMMARY).write_json(summary(videos, embedder))
        names.append(SUMMARY)
    return names
