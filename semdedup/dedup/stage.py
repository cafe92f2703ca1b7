"""What a stage is, and how stages run one after the other: checks on the client first, then one cluster for all."""

from __future__ import annotations

import contextlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import distributed
import pyarrow as pa

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import Session, open_session
from semdedup.dedup.frame_input.held import Columns
from semdedup.dedup.frame_input.source import NOT_READ, FrameSource
from semdedup.dedup.input.found import passed_over_of, told
from semdedup.dedup.input.rules import is_data
from semdedup.dedup.names import STEPS, WRITTEN, Destination, below, destination_of, join
from semdedup.dedup.options import IOOptions
from semdedup.dedup.ranking import RankingStrategy
from semdedup.errors import ParameterError
from semdedup.runs.at_work import at_work
from semdedup.runs.files import refuse_foreign
from semdedup.runs.identity import fingerprint
from semdedup.runs.lookup import known_files
from semdedup.runs.owner import Ownership, owned
from semdedup.runs.record import Record
from semdedup.runs.run import Run
from semdedup.runs.step import Outcome, Step, complete_already, run_step
from semdedup.settings.frames import Frame
from semdedup.settings.reprs import Shown
from semdedup.storage.location import FileInfo, Location, locations_of

PASSED_OVER = "passed_over"
"""Fact of a step: the files that were passed over when its input was found, by reason and ending."""

ANOTHER_EPS = "Another eps needs no new run: semdedup extract --eps."


@dataclass(frozen=True)
class StageResult:
    """What one stage did: its name, where it wrote, its facts (counts), its seconds, and those of the steps within.

    `resumed` tells that an earlier run had committed the same already, and nothing was done. `forced` are the bytes
    that were forced to disk and the seconds that this took, which `seconds` are without.
    """

    stage: str
    path: str
    facts: Mapping[str, Any]
    seconds: float
    steps: Mapping[str, float] = field(default_factory=dict)
    resumed: bool = False
    forced: tuple[int, float] = (0, 0.0)


class Stage(Shown, ABC):
    """A stage of the dedup: it stores its parameters and checks them; the work is done by functions.

    Attributes:
        step: name of the step that its record has.
        io: where it reads and writes.
        folder: where its tables go, below the output path.
        ends_of_input: the first and the last file of its input, where it was listed before there were workers.
        hint: what else can be done where the output path holds a result of other parameters.
    """

    step: str
    hint = ANOTHER_EPS

    finds_across = False
    """Whether it compares rows of different clusters, too."""

    reads = ""
    """What its input is, of a stage that takes no frame."""

    def __init__(self, given: Mapping[str, Any]) -> None:
        self.io, self.folder = IOOptions.of(given), given["folder"]
        self.clear_output, self.verbose = self.io.clear_output, self.io.verbose
        self.ends_of_input: tuple[FileInfo, ...] = ()
        if self.reads and isinstance(self.io.input_path, Frame):
            raise ParameterError(
                f"input_path of {type(self).__name__} must be {self.reads}, on disk; got {self.io.input_path.name}. "
                "A frame of embeddings goes into SemanticDeduplicationWorkflow or KMeansStage, one of clusters into "
                "PairwiseStage."
            )

    def source(self) -> Sequence[Location]:
        """Where it reads; nowhere where it is given a frame."""
        return () if isinstance(self.io.input_path, Frame) else locations_of(self.io.input_path, self.io.read_kwargs)

    @cached_property
    def frame(self) -> FrameSource | None:
        """The frame that it reads, if it is given one."""
        given = self.io.input_path
        return FrameSource(given, self.columns(given)) if isinstance(given, Frame) else None

    def columns(self, frame: Frame) -> Columns:
        """The columns of a frame that it uses."""
        raise NotImplementedError

    def is_known(self) -> bool:
        """Whether its input is known before there are workers: that of a Dask frame is not."""
        return self.frame is None or self.frame.identity is not None

    def learn(self, session: Session) -> None:
        """Know what only the workers can tell of its input."""
        if self.frame is not None:
            entry = Record(self.destination().root).steps.get(self.step)
            begun_anew = entry is None or self.clear_output or entry["status"] == "clearing"
            self.frame.learn(session, NOT_READ if begun_anew or entry is None else entry["input"])

    def destination(self) -> Destination:
        """Where it writes."""
        return destination_of(self.io.output_path, self.folder, self.io.write_kwargs)

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input, as JSON values."""

    @abstractmethod
    def find_input(self, sources: Sequence[Location]) -> Sequence[FileInfo]:
        """Its input files. Raises `InputError` where there are none."""

    def passed_over(self, files: Sequence[FileInfo]) -> dict[str, Any]:
        """What was passed over when its input was found: of each reason, how many files there are of each ending."""
        return dict(passed_over_of(files))

    @abstractmethod
    def is_result(self, name: str) -> bool:
        """Whether a reader would take a file of this name, relative to the destination, for a result of this stage."""

    @abstractmethod
    def work(self, run: Run, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Do the work; return its facts."""

    @abstractmethod
    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse on the client what the footers of the first input files show to be wrong."""

    def ranking(self) -> RankingStrategy | None:
        """By what it ranks the rows of its input, if it does: the stage before it refuses what cannot be ranked so."""
        return None

    def while_written(self, run: Run) -> Callable[[pa.Schema, int], Callable[..., None] | None] | None:
        """What of its work a run of the stage before can do as it writes its rows, given their columns and length."""
        return None

    def before(self, following: Stage | None) -> None:
        """Take note of the stage of the pipeline that comes next, before anything is checked."""

    def check_destination(self, record: Record) -> None:
        """Refuse to write where results lie that are not on record: they would be read together with ours.

        Raises:
            OutputConflictError: naming some of the files.
        """
        root, ours = self.destination().root, record.files
        for name in self.folders():
            folder = below(root, name)
            names = (file.url[len(folder.url) + 1 :] for file in folder.files())
            foreign = [n for n in names if is_data(n) and self.is_result(n) and join(name, n) not in ours]
            what = f"that look like results of the step '{self.step}', but that semdedup has no record of"
            refuse_foreign(folder, foreign, what)

    def readable(self) -> list[Location]:
        """Files that every worker must see; tried before the work begins."""
        if self.frame is not None:
            return []
        found = self.ends_of_input or self.find_input(self.source())
        return [self.source()[0].at(file.url) for file in (found[0], found[-1])]

    def folders(self) -> Sequence[str]:
        """Folders of its tables, below the root of its destination."""
        return [self.destination().folder]

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> StageResult:
        """Run this stage alone. `client` and `cluster` are as for the workflow."""
        return run_stages([self], client, cluster=cluster)[0]

    def identify(self, sources: Sequence[Location]) -> tuple[Sequence[FileInfo], Mapping[str, Any] | None]:
        """Its input files, and what identifies them: files of ours by their checksums, others by size and stamp; of a
        frame no files, and its content."""
        if self.frame is not None:
            return [], self.frame.identity
        files = self.find_input(sources)
        return files, fingerprint(files, known_files(sources))

    def made_anew(self) -> Sequence[str]:
        """What goes where its output is cleared: its step, and those that are made of it."""
        return STEPS[STEPS.index(self.step) :]

    def as_step(self, sources: Sequence[Location]) -> Step:
        """The stage as a step of a run that reads these places, or its frame."""
        return Step(
            name=self.step,
            root=self.destination().root,
            parameters=self.parameters(),
            identify=lambda: self.identify(sources)[1] or NOT_READ,
            written=WRITTEN,
            cleared=self.made_anew() if self.clear_output else (),
            hint=self.hint,
            verify=self.io.verify,
        )

    def execute(
        self, session: Session, sources: Sequence[Location], ownership: Ownership, made_anew: bool = False
    ) -> StageResult:
        """Run on a session; see `semdedup.runs.step.run_step`."""

        listed: list[Sequence[FileInfo]] = []

        def identify() -> Mapping[str, Any]:
            files, identity = self.identify(sources)
            listed[:] = [files]
            return identity or NOT_READ

        def work(run: Run) -> dict[str, Any]:
            places = sources if self.frame is None else [self.frame.write(run)]
            files = listed.pop() if self.frame is None else self.find_input(places)  # as it was identified just now
            passed_over = self.passed_over(files)
            for line in told(passed_over):
                run.session.reporter.say(line)
            facts = self.work(run, files, places[0])
            return {**facts, PASSED_OVER: passed_over} if passed_over else facts

        self.learn(session)
        with contextlib.nullcontext() if self.frame is None else self.frame.naming():
            outcome = run_step(replace(self.as_step(sources), identify=identify), work, session, ownership, made_anew)
        return self.result(outcome, session.reporter)

    def result(self, outcome: Outcome, reporter: Reporter) -> StageResult:
        """What the stage gives back."""
        destination = self.destination()
        path = str(below(destination.root, destination.folder))
        steps = {} if outcome.resumed else dict(reporter.seconds)
        forced = (0, 0.0) if outcome.resumed else (reporter.forced_bytes, reporter.forced_seconds)
        return StageResult(self.step, path, outcome.facts, outcome.seconds, steps, outcome.resumed, forced)


def run_stages(
    stages: Sequence[Stage], client: distributed.Client | str | None, *, cluster: ClusterOptions | None
) -> list[StageResult]:
    """Check stages, then run them one after the other; no cluster is started or used where all are complete."""
    reporter = Reporter(any(stage.verbose for stage in stages))
    with reporter.doing("looking at the input"):
        check_stages(stages)
    roots = {stage.destination().root.url: stage.destination().root for stage in stages}
    if all(stage.is_known() for stage in stages):
        steps = [stage.as_step(stage.source()) for stage in stages]
        if all(step.is_complete() for step in steps):
            outcomes = [complete_already(step, reporter) for step in steps]
            return [stage.result(outcome, reporter) for stage, outcome in zip(stages, outcomes, strict=True)]
    take_over = any(stage.io.take_over for stage in stages)
    with contextlib.ExitStack() as stack:
        for root in reversed(roots.values()):  # the last one is that of the results: it tells of the work
            stack.enter_context(at_work(root, reporter, take_over=take_over))
        reads = stages[0].readable()
        session = stack.enter_context(
            open_session(client, cluster or ClusterOptions(), reporter, reads, list(roots.values()))
        )
        results = execute_stages(session, stages)
        reporter.summarize(_summary(results))
        return results


def _summary(results: Sequence[StageResult]) -> list[tuple[str, str]]:
    """Counts of the stages, by name; where stages count the same, that of the last."""
    found: dict[str, str] = {}
    for result in results:
        counts = {name: fact for name, fact in result.facts.items() if isinstance(fact, int)}
        found |= {name.replace("_", " "): f"{count:,}" for name, count in counts.items()}
        found[f"{result.stage} seconds"] = f"{result.seconds:.1f}"
    return list(found.items())


def execute_stages(session: Session, stages: Sequence[Stage]) -> list[StageResult]:
    """Run stages on a session; one without a source reads what the stage before it wrote."""
    results: list[StageResult] = []
    written: Sequence[Location] = ()
    made_anew = False
    for stage in stages:
        destination = stage.destination()
        was_complete = Record(destination.root).committed(stage.step) is not None and not stage.clear_output
        with owned(destination.root) as ownership:
            results.append(stage.execute(session, stage.source() or written, ownership, made_anew))
        made_anew = was_complete and not results[-1].resumed
        written = [below(destination.root, destination.folder)]
    return results


def check_stages(stages: Sequence[Stage]) -> None:
    """Check what can be checked on the client: parameters, the first input, earlier results. Nothing is written."""
    if stages[0].frame is None and not stages[0].source():
        raise ParameterError(f"{type(stages[0]).__name__} is the first stage and has no input_path")
    for stage, following in zip(stages, [*stages[1:], None], strict=True):
        stage.before(following)
    places = [(stage.step, stage.destination().root.url) for stage in stages]
    for step, root in places:
        if places.count((step, root)) > 1:
            raise ParameterError(f"two stages write the step '{step}' to {root}; give them output paths of their own")
    written: Sequence[Location] = ()
    ready = True  # whether the input of the stage is there already
    for stage in stages:
        destination = stage.destination()
        sources = stage.source() or written
        files, identity = stage.identify(sources) if ready else ([], None)
        stage.ends_of_input = (files[0], files[-1]) if len(files) else ()
        record = Record(destination.root)
        if not stage.clear_output and stage.is_known():
            record.check(stage.step, stage.parameters(), identity, stage.hint)
        if stage.clear_output or stage.step not in record.steps:
            stage.check_destination(record)
            if ready and stage.frame is not None:
                stage.frame.check(stage.check_schema)
            elif ready:
                stage.check_schema(files, sources[0])
        ready = ready and stage.is_known() and stage.as_step(sources).is_complete()
        written = [below(destination.root, destination.folder)]


def describe_stages(stages: Sequence[Stage]) -> list[str]:
    """What running them would do, in lines of text. Everything that can be checked is checked; nothing is written."""
    check_stages(stages)
    lines = _input_lines(stages[0])
    for stage in stages:
        destination = stage.destination()
        writes = f"would write to {below(destination.root, destination.folder)}"
        what = "complete already" if stage.as_step(()).is_complete() else writes
        lines.append(f"{stage.step}: {what}; {json.dumps(stage.parameters(), sort_keys=True)}")
    return lines


def _input_lines(stage: Stage) -> list[str]:
    if stage.frame is not None:
        return [f"input: {stage.frame.frame.name}"]
    files = stage.find_input(stage.source())
    n_bytes = sum(file.n_bytes for file in files)
    line = f"input: {len(files):,} files, {n_bytes:,} bytes, from {files[0].url} to {files[-1].url}"
    return [line, *told(stage.passed_over(files))]
