"""The frame of every step that is made whole: clear, refuse, go on, do the work, look at the input again, commit."""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from semdedup.compute.progress import Reporter
from semdedup.compute.session import Session
from semdedup.errors import IntegrityError, OutputConflictError
from semdedup.runs.files import changed_files
from semdedup.runs.owner import FILE_NAME, Ownership, owned, read_owner
from semdedup.runs.record import SCRATCH, Record
from semdedup.runs.run import Run, begin, finish
from semdedup.storage.location import UNFINISHED, Location

Identity = Mapping[str, Any]
"""What identifies an input, from `semdedup.runs.identity.fingerprint`."""


@dataclass(frozen=True)
class Step:
    """A step, as far as a run has to know it.

    Attributes:
        name: in the record.
        root: the folder that it writes to.
        parameters: what its result depends on beside its input, as JSON values.
        identify: identifies its input as it is now.
        written: for it and the steps made of it, what the names of their files look like.
        cleared: what goes first where the output is to be made anew: its name, and those of the steps made of it.
        hint: what else can be done where a folder holds other results.
        verify: whether checksums of what is complete are compared, too.
        grows: whether what is on record is a part of what there is to make now, so that a run adds the rest and leaves
            the files of before; None: other input is refused.
    """

    name: str
    root: Location
    parameters: Mapping[str, Any]
    identify: Callable[[], Identity]
    written: Mapping[str, re.Pattern[str]]
    cleared: Collection[str] = ()
    hint: str = ""
    verify: bool = False
    grows: Callable[[Mapping[str, Any]], bool] | None = None

    def is_complete(self) -> bool:
        """Whether an earlier run committed it, its files are all there, and it is not to be cleared."""
        record = Record(self.root)
        return (
            not self.cleared and record.committed(self.name) is not None and not record.changed(self.name, self.verify)
        )


@dataclass(frozen=True)
class Outcome:
    """What a step gave: its facts, its seconds without forcing to disk, and whether an earlier run had done it all."""

    facts: Mapping[str, Any]
    seconds: float = 0.0
    resumed: bool = False


def complete_already(step: Step, reporter: Reporter) -> Outcome:
    """The outcome of a step that `Step.is_complete`; what a killed run left goes, unless another run is at work."""
    tidy(step.root)
    reporter.say(f"{step.name}: complete already, nothing to do")
    return Outcome(Record(step.root).steps[step.name]["facts"], resumed=True)


def tidy(root: Location) -> None:
    """Delete what killed runs left in a folder that nobody is at work in; for a run that finds nothing to do."""
    names = root.folder_names()
    owner = read_owner(root) if FILE_NAME in names else None
    if FILE_NAME in names and (owner is None or not owner.is_gone):
        return
    if owner is not None or any(name == SCRATCH or UNFINISHED.fullmatch(name) for name in names):
        with contextlib.suppress(OutputConflictError), owned(root) as ownership:
            Record(root, ownership.token).remove_strays()


def run_step(
    step: Step,
    work: Callable[[Run], Mapping[str, Any]],
    session: Session,
    ownership: Ownership,
    made_anew: bool = False,
) -> Outcome:
    """Run a step on a session, going on where an earlier run stopped.

    Args:
        work: does it, and returns the facts.
        made_anew: whether its input was made again by this run, because files of it were missing.

    Raises:
        OutputConflictError: the folder holds the step with other parameters or from another input.
        InputError: the input changed while it was read.
    """
    record, reporter = Record(step.root, ownership.token), session.reporter
    if step.cleared:
        record.clear(step.cleared, step.written)
    record.remove_strays()
    with reporter.doing("looking at the input"):
        identity = step.identify()
    _clear_what_changed(record, step, reporter, identity if made_anew else None)
    _open_again(record, step, reporter, identity, ownership)
    record.check(step.name, step.parameters, identity, step.hint)
    run = None
    if not record.committed(step.name):
        try:
            run = begin(record, step.name, step.parameters, identity, ownership, session, step.written)
        except IntegrityError as error:  # what a killed run had ordered cannot be carried out any more
            reporter.say(f"{step.name}: made again: {error}")
            record.clear([step.name], step.written)
            run = begin(record, step.name, step.parameters, identity, ownership, session, step.written)
    if run is None:
        return complete_already(step, reporter)
    started = time.monotonic()
    reporter.start_over()
    with run:
        before = record.steps[step.name].get("files", {}) if step.grows is not None else {}
        facts = work(run)
        run.commit(facts, kept=before, look_again=step.identify)
    seconds = time.monotonic() - started - reporter.forced_seconds
    record.update(step.name, seconds=round(seconds, 3))
    return Outcome(facts, seconds)


def _open_again(record: Record, step: Step, reporter: Reporter, identity: Identity, ownership: Ownership) -> None:
    """Begin to continue a step that grows; what a killed run had added of an input that has grown since is given up."""
    if step.grows is None:
        return
    with contextlib.suppress(IntegrityError):  # what a killed run had ordered cannot be carried out any more
        finish(record, step.name, ownership, step.written)
    entry = record.steps.get(step.name)
    if entry is None or entry["status"] == "clearing" or "facts" not in entry:
        return
    faults = changed_files(record.root, entry["files"])
    if faults:
        reporter.say(f"{step.name}: made again, for {len(faults)} of its files changed: {'; '.join(faults[:3])}")
        record.clear([step.name], step.written)
    elif entry["input"] != identity and step.grows(entry):
        record.check(step.name, step.parameters, hint=step.hint)
        for name in entry.get("temporary", ()):
            record.root.below(name).remove_tree()
        name = f"{SCRATCH}/{step.name}-{ownership.token}"
        record.update(step.name, status="begun", input=dict(identity), temporary=[name])


def _clear_what_changed(record: Record, step: Step, reporter: Reporter, made_anew: Identity | None) -> None:
    """Delete a step whose files are missing or changed, or whose input was made anew and is not the same."""
    faults = record.changed(step.name, step.verify)
    if faults:
        reporter.say(f"{step.name}: made again, for {len(faults)} of its files changed: {'; '.join(faults[:3])}")
    entry = record.steps.get(step.name)
    if faults or (made_anew is not None and entry is not None and entry["input"] != made_anew):
        record.clear([step.name], step.written)
