"""A run of one step, from its beginning to its commit: the frame of all work that can be killed and goes on."""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Self

import distributed

from semdedup.compute.session import Session, short_repr
from semdedup.errors import InputError, IntegrityError, OutputConflictError, ParameterError, StorageError
from semdedup.runs.commit import Orders, carry_out, force_files, force_names
from semdedup.runs.identity import input_words
from semdedup.runs.journal import FINAL, HOME, Entry, Job, journal_of, read_journal, run_job, within_scratch
from semdedup.runs.owner import Ownership
from semdedup.runs.record import SCRATCH, Record
from semdedup.storage.location import Location
from semdedup.storage.processes import host_name
from semdedup.storage.written import Written, collecting

Drive = Callable[[str, Sequence[Job]], Iterator[tuple[int, Any]]]
"""Makes the calls of a part of a step, under its name: gives the position of each, and what it gave."""

FORCED_AT_A_TIME = 10_000
"""Files that are forced to disk at a time: of a million, threads would hold a gigabyte of calls that wait."""


class Run:
    """One run of a step in a folder, from `begin`.

    Attributes:
        root: the folder.
        scratch: where it works; a run that was killed left its own, which goes on under this one's name.
        final: in there, the files that will be below the root, each in its place. Whatever is written there, by tasks
            or by the client, is put on record with size and checksum when the run is committed.
        reporter: where progress goes.
    """

    def __init__(self, record: Record, step: str, ownership: Ownership, session: Session) -> None:
        self.record, self.step = record, step
        self.session = replace(session, check=ownership.check_heartbeat)
        self.root = record.root
        self._ownership = ownership
        self.scratch = record.root.below(record.steps[step]["temporary"][0])
        self.final = self.scratch / FINAL
        self._files: dict[str, Written] = {}
        self.reporter = session.reporter

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        """Where another run has taken over, say so, whatever that led to here, and take the scratch folder away."""
        if not isinstance(error, Exception):
            return
        try:
            self._ownership.check()
        except OutputConflictError as overtaken:
            self._leave()
            raise overtaken from error
        except StorageError:  # the disk that led to the error
            return

    @property
    def token(self) -> str:
        """The token of the run, by which workers ask whether it still owns the folder."""
        return self._ownership.token

    def each(
        self,
        name: str,
        function: Callable[[Any], Any],
        jobs: Mapping[str, Any] | Sequence[Any],
        *,
        unit: str = "tasks",
        label: Callable[[Any], str] = short_repr,
        drive: Drive | None = None,
        task_memory: int | None = None,
    ) -> Iterator[Entry]:
        """Call ``function(item)`` on the workers for the jobs that no earlier run has done.

        A job counts once its entry is in the journal; a function writes its own files before it returns, so that a task
        that is killed in the middle is simply done again. Being done twice must do no harm.

        Args:
            name: of this part of the step, shown with its progress.
            function: gives JSON values.
            jobs: items by key, or a sequence, whose keys are the positions.
            unit: what a job is called in messages.
            label: what an item is called where a worker dies of it.
            drive: makes the calls, in place of tasks on the workers.
            task_memory: as for `Session.run`.

        Yields:
            an entry for every job, those of earlier runs first.
        """
        items = jobs if isinstance(jobs, Mapping) else {str(i): item for i, item in enumerate(jobs)}
        folder = self._journal(name)
        done = set()
        for entry in read_journal(self.root, self.scratch, folder, items):
            done.add(entry.key)
            self._note(entry.written)
            yield entry
        if done:
            self.reporter.say(f"{name}: {len(done)} of {len(items)} {unit} were done by an earlier run")
        missing = [key for key in items if key not in done]
        if not missing:
            return
        calls = [Job(function, items[key], self.root, self.scratch, folder / f"{key}.json") for key in missing]
        if drive is None:
            running = self.session.run(
                name, run_job, calls, unit=unit, label=lambda job: label(job.item), task_memory=task_memory
            )
        else:
            running = drive(name, calls)
        for position, (result, written) in running:
            self._note(written)
            yield Entry(missing[position], result, written)

    def results(self, name: str, function: Callable[[Any], Any], items: Sequence[Any], **options: Any) -> list[Any]:
        """What `each` gives for items, in their order."""
        found = {int(entry.key): entry.result for entry in self.each(name, function, items, **options)}
        return [found[position] for position in range(len(items))]

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """While the client itself writes files of the run: they are noted as those of its tasks are."""
        with collecting(self.root.url, self.scratch.url, self.final.url) as written:
            yield
        self._note(within_scratch(written, self.root, self.scratch))

    def _note(self, written: Mapping[str, Written]) -> None:
        prefix = f"{HOME}{FINAL}/"
        self._files.update({name[len(prefix) :]: each for name, each in written.items() if name.startswith(prefix)})

    def forget(self, name: str) -> None:
        """Delete the journal of a part, because what it was done by has changed."""
        self._journal(name).remove_tree()

    def take_over(self, folder: Location) -> None:
        """Go on in what another step has done for this one, in a scratch folder, unless this one has begun already."""
        if (self.scratch / "journal").is_dir():
            folder.remove_tree()
        else:
            folder.move_into(self.scratch)

    def done_for_it(self, name: str, counts: Callable[[Entry], bool]) -> Iterator[Entry]:
        """The entries of a part that another step has done for this one, those that count."""
        for entry in self.entries(name):
            if counts(entry):
                self._note(entry.written)
                yield entry

    def entries(self, name: str) -> Iterator[Entry]:
        """The journal of a part once more, one entry at a time."""
        return read_journal(self.root, self.scratch, self._journal(name))

    def _journal(self, name: str) -> Location:
        return journal_of(self.scratch, name)

    @contextlib.contextmanager
    def refusing(self) -> Iterator[None]:
        """While a step still checks its input: a refusal takes back everything, as if the step had not begun.

        The corrected command then finds nothing in its way. What was complete before keeps its files.
        """
        try:
            yield
        except (InputError, ParameterError):
            entry = self.record.steps.get(self.step)
            if entry is not None and entry["status"] == "begun" and "facts" not in entry:
                self.scratch.remove_tree()
                (self.root / SCRATCH).remove_if_empty()
                self._ownership.made = self.root.around(entry.get("made_folders", 0))
                self.record.write({name: other for name, other in self.record.steps.items() if name != self.step})
                self.reporter.begun(-1)
            raise

    def commit(
        self,
        facts: Mapping[str, Any],
        *,
        kept: Mapping[str, Written] | None = None,
        obsolete: Sequence[str] = (),
        in_place: Iterable[str] = (),
        look_again: Callable[[], Mapping[str, Any]] | None = None,
    ) -> None:
        """Put the finished files in place and the step on record as complete; the scratch folder goes.

        Args:
            facts: what is to be known of the step, as JSON values.
            kept: files of an earlier commit that stay.
            obsolete: names of files of an earlier commit that go.
            in_place: names of files that tasks have put below the root already; they are forced to disk with the rest.
                They are gone through once, and not kept.
            look_again: identifies the input once more.

        Raises:
            InputError: the input is not what it was when the step began.
        """
        with self.reporter.doing("putting files in place"):
            if look_again is not None:
                self._check_input(look_again)
            files = self._files
            self._check_final(files)
            forced = self._force(files, in_place)
            orders = Orders({**(kept or {}), **files}, sorted(obsolete), facts, forced)
            self._ownership.check()
            orders.write(self.scratch)
            carry_out(self.record, self.step, orders, self._ownership.check)
        self.reporter.forced(*forced)

    def _leave(self) -> None:
        """Delete the scratch folder of a run that was overtaken, where the other has not taken it along."""
        steps = Record(self.root).steps.values()
        name = self.scratch.url[len(self.root.url.rstrip("/")) + 1 :]
        if self.root.is_local and not any(name in step.get("temporary", ()) for step in steps):
            self.scratch.remove_tree()
            self.scratch.parent.remove_if_empty()

    def _check_input(self, look_again: Callable[[], Mapping[str, Any]]) -> None:
        before, now = self.record.steps[self.step]["input"], dict(look_again())
        if before != now:
            raise InputError(
                f"the input changed while the step '{self.step}' was reading it: {input_words(before)} at the "
                f"beginning, {input_words(now)} now"
                + ", changed since"
                * (before["files"] == now["files"])
                + f". Nothing was put in place in {self.root}. Wait until the input is complete and run again with "
                "clear_output=True (--overwrite)."
            )

    def _check_final(self, files: Mapping[str, Written]) -> None:
        """Compare what tasks say that they wrote with what is there; what nobody wrote in full is deleted."""
        start, whole, strays = len(self.final.url) + 1, set[str](), list[Location]()
        for file in self.final.files():
            name = file.url[start:]
            if name not in files:
                strays.append(self.root.at(file.url))
            elif files[name].n_bytes == file.n_bytes:
                whole.add(name)
        if wrong := files.keys() - whole:
            raise IntegrityError(
                f"{self.root}: {len(wrong)} files that the step '{self.step}' wrote are not there or not whole: "
                f"{', '.join(sorted(wrong)[:3])}. Is the folder seen alike by every worker? Run the same command again."
            )
        self.root.remove_files(strays)

    def _force(self, files: Iterable[str], in_place: Iterable[str]) -> tuple[int, float]:
        """Wait until files are on the disk of every host that may have written them; bytes and seconds."""
        if not self.root.is_local:
            return 0, 0.0
        client: distributed.Client = self.session.client
        hosts = {name: address for address, name in client.run(host_name).items() if name != host_name()}
        n_bytes, seconds, folders = 0, 0.0, set[str]()
        names = itertools.chain((f"{self.final.url}/{name}" for name in files), self._noting_folders(in_place, folders))
        while paths := list(itertools.islice(names, FORCED_AT_A_TIME)):
            if hosts:
                client.run(force_files, paths, workers=list(hosts.values()))
            more = force_files(paths)
            n_bytes, seconds = n_bytes + more[0], seconds + more[1]
        force_names(self.root, (f"{folder}/" for folder in folders))
        return n_bytes, seconds

    def _noting_folders(self, names: Iterable[str], folders: set[str]) -> Iterator[str]:
        """The paths of files below the root; the folders that they are in are added to `folders`."""
        prefix = self.root.url.rstrip("/")
        for name in names:
            folders.add(name.rpartition("/")[0])
            yield f"{prefix}/{name}"


def begin(
    record: Record,
    step: str,
    parameters: Mapping[str, Any],
    source: Mapping[str, Any],
    ownership: Ownership,
    session: Session,
    written: Mapping[str, re.Pattern[str]],
) -> Run | None:
    """Put a run of a step on record before its first file is written.

    What a killed run had ordered is carried out first; what one was deleting is deleted. A step that is complete is
    opened again, because more is to come: its files and facts stay on record.

    Returns:
        The run; None where carrying out a killed run's orders has made the step complete.
    """
    if record.steps.get(step, {}).get("status") == "clearing":
        record.clear([step], written)
    if finish(record, step, ownership, written):
        return None
    name = f"{SCRATCH}/{step.split()[0]}-{ownership.token}"
    entry = record.steps.get(step)
    if entry is None:
        record.update(
            step,
            status="begun",
            parameters=dict(parameters),
            input=dict(source),
            temporary=[name],
            made_folders=len(ownership.made) or None,
        )
    elif entry["status"] == "committed":
        record.update(step, status="begun", parameters=dict(parameters), input=dict(source), temporary=[name])
    else:
        _go_on(record, step, name)
    session.reporter.begun()
    return Run(record, step, ownership, session)


def _go_on(record: Record, step: str, name: str) -> None:
    """Take over the scratch folder of a run that was killed.

    A local folder gets this run's name, so that what tasks of the other run still write does not get into it. In an
    object store that would copy everything; names there stay, and such tasks write the same as this run's.
    """
    before = record.steps[step]["temporary"]
    if not record.root.is_local:
        return
    record.update(step, temporary=[name, *(other for other in before if other != name)])
    for other in before:
        place = record.root.below(other)
        if other != name and place.is_dir() and not (record.root / name).is_dir():
            place.move_into(record.root / name)
    record.update(step, temporary=[name])


def finish(
    record: Record, step: str, ownership: Ownership, written: Mapping[str, re.Pattern[str]] | None = None
) -> bool:
    """Carry out what a killed run has ordered, among names as they are `written`. False where there are no orders."""
    entry = record.steps.get(step)
    if entry is None or entry["status"] != "begun":
        return False
    for name in entry["temporary"]:
        scratch = record.root.below(name)
        orders = Orders.read(scratch)
        if orders is not None:
            orders.check_names(record.root, step, (written or {}).get(step), scratch)
            record.update(step, temporary=[name])
            carry_out(record, step, orders, ownership.check)
            return True
    return False
