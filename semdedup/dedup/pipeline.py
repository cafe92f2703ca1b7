"""What a stage is, and the pipeline that chains stages: checks on the client first, then one cluster for all."""

from __future__ import annotations

import contextlib
import json
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import distributed

from semdedup.compute.cluster import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import Session, open_session
from semdedup.dedup.input.files import is_data
from semdedup.dedup.names import STEPS, Destination, below, join
from semdedup.errors import OutputConflictError, ParameterError
from semdedup.runs.record import SCRATCH, Manifest, fingerprint
from semdedup.storage.location import FileInfo, Location

ANOTHER_EPS = "Another eps needs no new run: semdedup extract --eps."


@dataclass(frozen=True)
class StageResult:
    """What one stage did: its name, where it wrote, its facts (counts), its seconds, and those of the steps within.

    `resumed` tells that an earlier run had committed the same already, and nothing was done.
    """

    stage: str
    path: str
    facts: Mapping[str, Any]
    seconds: float
    steps: Mapping[str, float] = field(default_factory=dict)
    resumed: bool = False


class Stage(ABC):
    """A stage of the dedup: it stores its parameters and checks them; the work is done by functions."""

    step: str
    clear_output: bool
    verbose: bool

    @abstractmethod
    def source(self) -> Sequence[Location]:
        """Where it reads."""

    @abstractmethod
    def destination(self) -> Destination:
        """Where it writes."""

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside its input, as JSON values."""

    @abstractmethod
    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """Its input files. Raises `InputError` where there are none."""

    @abstractmethod
    def is_result(self, name: str) -> bool:
        """Whether a reader would take a file of this name, relative to the destination, for a result of this stage."""

    @abstractmethod
    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Do the work; return its facts."""

    @abstractmethod
    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse on the client what the footers of the first input files show to be wrong."""

    def precede(self, following: Stage | None) -> None:  # noqa: B027
        """Be told which stage of the pipeline comes next, before anything is checked."""

    def check_destination(self, manifest: Manifest) -> None:
        """Refuse to write where results stand that are not on record: they would be read together with ours.

        Raises:
            OutputConflictError: naming some of the files.
        """
        root, ours = self.destination().root, manifest.files
        for name in self.folders():
            folder = below(root, name)
            names = (file.url[len(folder.url) + 1 :] for file in folder.files())
            foreign = [n for n in names if is_data(n) and self.is_result(n) and join(name, n) not in ours]
            if foreign:
                raise OutputConflictError(
                    f"{folder} holds {len(foreign)} files that look like results of the step '{self.step}', but that "
                    f"semdedup has no record of: {', '.join(foreign[:3])}. They are not deleted; move them away, or "
                    "choose another output path."
                )

    def readable(self) -> list[Location]:
        """Files that every worker must see; tried before the work begins."""
        found = self.find_input(self.source())
        return [self.source()[0].at(file.url) for file in (found[0], found[-1])]

    def folders(self) -> Sequence[str]:
        """Folders of its tables, below the root of its destination."""
        return [self.destination().folder]

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> StageResult:
        """Run this stage alone. `client` and `cluster` are as for the workflow."""
        return Pipeline(self.step).add_stage(self).run(client, cluster=cluster)[0]

    def execute(self, session: Session, sources: Sequence[Location]) -> StageResult:
        """Run on a session, going on where an earlier run stopped."""
        destination = self.destination()
        files = self.find_input(sources)
        identity = fingerprint(files)
        manifest = Manifest(destination.root)
        if self.clear_output:
            manifest.clear(STEPS[STEPS.index(self.step) :])  # what is made of this step goes with it
        manifest.check(self.step, self.parameters(), identity, ANOTHER_EPS)
        path = str(below(destination.root, destination.folder))
        done = manifest.committed(self.step)
        manifest.remove_strays()
        if done:
            session.reporter.say(f"{self.step}: complete already, nothing to do")
            return StageResult(self.step, path, done["facts"], 0.0, resumed=True)
        scratch = f"{SCRATCH}/{self.step}-{uuid.uuid4().hex[:8]}"
        manifest.begin(self.step, self.parameters(), identity, [scratch])
        started = time.monotonic()
        session.reporter.seconds.clear()
        facts = self.work(session, files, sources[0])
        seconds = time.monotonic() - started
        Manifest(destination.root).note_seconds(self.step, seconds)
        return StageResult(self.step, path, facts, seconds, dict(session.reporter.seconds))


class Pipeline:
    """Stages one after the other; a stage without `input_path` reads what the stage before it wrote.

    Example:
        >>> pipeline = Pipeline(name="dedup", description="k-means, then comparison")
        >>> pipeline.add_stage(KMeansStage(input_path="emb/", output_path="out/kmeans"))
        >>> pipeline.add_stage(PairwiseStage(output_path="out/pairwise"))
        >>> pipeline.run()
    """

    def __init__(self, name: str = "", description: str = "") -> None:
        self.name = name
        self.description = description
        self.stages: list[Stage] = []

    def add_stage(self, stage: Stage) -> Pipeline:
        """Append a stage; returns the pipeline, so that calls chain."""
        if not isinstance(stage, Stage):
            raise ParameterError(f"add_stage takes a stage; got {type(stage).__name__}")
        self.stages.append(stage)
        return self

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> list[StageResult]:
        """Run the stages on a client, a scheduler address, the current default client, or a cluster of their own.

        Parameters, paths and conflicts with earlier results are checked before a cluster is started or used.

        Returns:
            One `StageResult` for each stage.
        """
        if not self.stages:
            raise ParameterError("the pipeline has no stages; add some with add_stage")
        self.check()
        first = self.stages[0]
        reporter = Reporter(any(stage.verbose for stage in self.stages))
        writes = [stage.destination().root for stage in self.stages]
        if self._all_committed():
            session: Any = contextlib.nullcontext(_NoSession(reporter))
        else:
            session = open_session(client, cluster or ClusterOptions(), reporter, first.readable(), writes)
        with session as opened:
            return self.execute(opened)

    def check(self) -> None:
        """Check what can be checked on the client: parameters, the first input, earlier results. Nothing is written."""
        if not self.stages[0].source():
            raise ParameterError(f"{type(self.stages[0]).__name__} is the first stage and has no input_path")
        for stage, following in zip(self.stages, [*self.stages[1:], None], strict=True):
            stage.precede(following)
        places = [(stage.step, stage.destination().root.url) for stage in self.stages]
        for step, root in places:
            if places.count((step, root)) > 1:
                raise ParameterError(
                    f"two stages write the step '{step}' to {root}; give them output paths of their own"
                )
        before: Sequence[Location] = ()
        ready = True  # whether the input of the stage stands there already
        for stage in self.stages:
            destination = stage.destination()
            sources = stage.source() or before
            files = stage.find_input(sources) if ready else []
            identity = fingerprint(files) if ready else None
            manifest = Manifest(destination.root)
            if not stage.clear_output:
                manifest.check(stage.step, stage.parameters(), identity, ANOTHER_EPS)
            if stage.clear_output or stage.step not in manifest.steps:
                stage.check_destination(manifest)
                if ready:
                    stage.check_schema(files, sources[0])
            ready = ready and not stage.clear_output and manifest.committed(stage.step) is not None
            before = [below(destination.root, destination.folder)]

    def describe(self) -> list[str]:
        """What `run` would do, in lines of text. Everything that can be checked is checked; nothing is written."""
        self.check()
        first = self.stages[0]
        files = first.find_input(first.source())
        n_bytes = sum(file.n_bytes for file in files)
        lines = [f"input: {len(files):,} files, {n_bytes:,} bytes, from {files[0].url} to {files[-1].url}"]
        for stage in self.stages:
            destination = stage.destination()
            done = Manifest(destination.root).committed(stage.step) and not stage.clear_output
            what = "complete already" if done else f"would write to {below(destination.root, destination.folder)}"
            lines.append(f"{stage.step}: {what}; {json.dumps(stage.parameters(), sort_keys=True)}")
        return lines

    def execute(self, session: Session) -> list[StageResult]:
        """Run the stages on a session that is open."""
        results: list[StageResult] = []
        before: Sequence[Location] = ()
        for stage in self.stages:
            destination = stage.destination()
            results.append(stage.execute(session, stage.source() or before))
            before = [below(destination.root, destination.folder)]
        return results

    def _all_committed(self) -> bool:
        return all(
            not stage.clear_output and Manifest(stage.destination().root).committed(stage.step) for stage in self.stages
        )


@dataclass(frozen=True)
class _NoSession:
    """Stands in for a session where every stage is complete and no cluster is needed."""

    reporter: Reporter
