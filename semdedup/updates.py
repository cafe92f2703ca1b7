"""The dedups of a run: the first one over all clips, and an update each time that clips came since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import open_session
from semdedup.dedup.base import new_rows
from semdedup.dedup.base.chain import chain_of
from semdedup.dedup.base.new_rows import LeftOut
from semdedup.dedup.base.update import OF_THE_FIT
from semdedup.dedup.input.files import find_files
from semdedup.dedup.names import IDENTIFY, KMEANS, PAIRWISE, STEPS, WRITTEN
from semdedup.dedup.ranking import RankingStrategy
from semdedup.dedup.results.load import load
from semdedup.dedup.results.result import DedupResult
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.errors import OutputConflictError
from semdedup.runs.owner import Ownership, owned
from semdedup.runs.places import DEDUPS
from semdedup.runs.record import Record
from semdedup.runs.step import run_step
from semdedup.storage.location import Location

ALL_STEPS = (new_rows.SELECT, *STEPS)
ALL_WRITTEN = {**new_rows.WRITTEN, **WRITTEN}
RANKINGS = ("which_to_keep", "rank_by", "ranking_strategy", "distance_metric", "sim_metric")
"""Parameters of a dedup that say by what it ranks; a distance alone says that it is by that."""

ANEW = "clear_output=True (--overwrite) makes overlaps, dedup and dataset anew"


class Dedups:
    """The dedups below the root of a run, ``dedup``, ``dedup-0002``, …, each with those before it for its base.

    Args:
        root: of the run.
        embeddings: folder of the embeddings of all clips.
        given: parameters of the dedup, as the user gave them.
        shared: ``read_kwargs``, ``write_kwargs``, ``clear_output`` and others that all workflows take.
        left_out: clips that go before they are compared, as tables of ids in the order in which these were made.
    """

    def __init__(
        self,
        root: Location,
        embeddings: Location,
        given: Mapping[str, Any],
        shared: Mapping[str, Any],
        left_out: Sequence[LeftOut] = (),
    ) -> None:
        self.root, self.embeddings, self.left_out = root, embeddings, tuple(left_out)
        self._given, self._shared = dict(given), dict(shared)

    def with_default(self, name: str, value: Any) -> Dedups:
        """The same with a parameter of the dedup that the user may have left out."""
        return Dedups(self.root, self.embeddings, {name: value, **self._given}, self._shared, self.left_out)

    @property
    def folders(self) -> list[Location]:
        """Their folders, the oldest first; a last one may not be complete."""
        return DEDUPS.below(self.root)

    def ranked(self, anew: bool) -> Dedups:
        """The same with a ranking, where the user gave none: that of the first one, unless all are made `anew`; else
        the best copy stays."""
        if any(self._given.get(name) is not None for name in RANKINGS):
            return self
        ranking = None if anew else self.recorded("ranking", PAIRWISE)
        strategy = RankingStrategy.best() if ranking is None else RankingStrategy.described(ranking)
        given = {**self._given, "ranking_strategy": strategy}
        return Dedups(self.root, self.embeddings, given, self._shared, self.left_out)

    def recorded(self, name: str, step: str = IDENTIFY) -> Any:
        """A parameter of a step of the first one, by default of the threshold; None where it is not on record."""
        entry = Record(self._folder(1)).steps.get(step)
        return None if entry is None else entry["parameters"].get(name)

    def check(self, eps: float) -> None:
        """Check the parameters, before any work. Raises `ParameterError`."""
        self._first(self.embeddings, eps)

    def workflow(self, number: int, eps: float) -> SemanticDeduplicationWorkflow:
        """The dedup of this number. Raises `InputError` where its base is not complete."""
        folder, shared, given = self._folder(number), self._shared, self._given
        if number == 1:
            return self._first(folder / new_rows.FOLDER if self._is_selected(1) else self.embeddings, eps)
        given = {name: value for name, value in given.items() if name not in OF_THE_FIT}
        base = self._folder(number - 1).url
        shared = {**shared, "clear_output": False}
        source = (folder / new_rows.FOLDER).url
        return SemanticDeduplicationWorkflow(source, folder.url, eps=eps, base=base, **shared, **given)

    def _first(self, rows: Location, eps: float) -> SemanticDeduplicationWorkflow:
        """The first dedup, of these rows."""
        return SemanticDeduplicationWorkflow(rows.url, self._folder(1).url, eps=eps, **self._shared, **self._given)

    def run(
        self, client: distributed.Client, cluster: ClusterOptions | None, reporter: Reporter, eps: float
    ) -> DedupResult:
        """Complete what was begun, then compare clips that no dedup has with all before, in a dedup of their own.

        Raises:
            OutputConflictError: other parameters than on record; or files of an earlier dedup are missing and cannot be
                made again as they were.
        """
        if self._shared["clear_output"]:
            self._clear()
            return self._make(1, client, cluster, reporter, eps)
        if beyond := DEDUPS.beyond(self.root):
            raise OutputConflictError(
                f"{self._folder(len(self.folders) + 1)} is not there, and {beyond[0]} was made after it. Put it back, "
                f"or {ANEW}."
            )
        made: list[DedupResult] = []
        n = len(self.folders)
        for number in range(1, n + 1):
            self._check_left_out(number)
            if not self._is_complete(number, eps):
                self._check_can_be_made(number, n)
                made.append(self._make(number, client, cluster, reporter, eps))
            self._forget_selected(number)
        if n == 0:
            n, made = 1, [self._make(1, client, cluster, reporter, eps)]
        while self._recorded_input(n) != new_rows.identify(self.embeddings):
            try:
                made.append(self._make(n + 1, client, cluster, reporter, eps))
            except new_rows.NothingNewError:
                break
            n += 1
        if n == 1 and made:
            return made[0]
        if n == 1 and not self._is_selected(1):
            return self.workflow(1, eps).run(client, cluster=cluster)
        return self._together(made)

    def _folder(self, number: int) -> Location:
        return self.root / DEDUPS.name(number)

    def _is_complete(self, number: int, eps: float) -> bool:
        """Whether a dedup is. Raises `OutputConflictError` where it was made with other parameters."""
        stages = self.workflow(number, eps).pipeline.stages
        for stage in reversed(stages):  # another eps is to be told as such, and not as another forest
            Record(stage.destination().root).check(stage.step, stage.parameters())
        return all(stage.as_step(stage.source()).is_complete() for stage in stages)

    def _recorded_input(self, number: int) -> Mapping[str, Any] | None:
        """What the embeddings were when a dedup took its clips from them."""
        entry = Record(self._folder(number)).steps.get(new_rows.SELECT if self._is_selected(number) else KMEANS)
        return None if entry is None else entry["input"]

    def _is_selected(self, number: int) -> bool:
        """Whether a dedup is of rows that are selected from the embeddings; the first one need not be."""
        steps = Record(self._folder(number)).steps
        return number > 1 or new_rows.SELECT in steps or (KMEANS not in steps and any(x.rows for x in self.left_out))

    def _check_left_out(self, number: int) -> None:
        """Refuse a dedup of clips that are to be left out now, or that was made without others.

        Raises:
            OutputConflictError: what goes by overlap is not what it was when the dedup was made.
        """
        steps, now = Record(self._folder(number)).steps, [ids.identity for ids in self.left_out]
        then = steps.get(new_rows.SELECT, {}).get("parameters", {}).get(new_rows.LEFT_OUT, [])
        is_without = KMEANS in steps and new_rows.SELECT not in steps and any(x.rows for x in self.left_out[:1])
        if then != now[: len(then)] or (is_without and number == 1):
            raise OutputConflictError(
                f"{self._folder(number)} was made when other clips went by overlap than go now: the overlaps beside it "
                f"were made anew, or are not there. Put back what was there, or {ANEW}."
            )

    def _check_can_be_made(self, number: int, n: int) -> None:
        """Refuse to make a dedup again that was complete, where that would give another than it was."""
        folder = self._folder(number)
        record = Record(folder)
        if record.committed(IDENTIFY) is None:
            return
        faults = [fault for step in STEPS for fault in record.changed(step, self._shared["verify"])]
        if faults and (number < n or self._recorded_input(number) != new_rows.identify(self.embeddings)):
            raise OutputConflictError(
                f"{len(faults)} files of {folder} are not as they were written: {'; '.join(faults[:3])}. There are "
                f"clips that came since, so that they cannot be made again as they were. Put them back, or {ANEW}."
            )

    def _make(
        self, number: int, client: distributed.Client, cluster: ClusterOptions | None, reporter: Reporter, eps: float
    ) -> DedupResult:
        """Make a dedup, or complete it."""
        folder = self._folder(number)
        with owned(folder, take_over=self._shared["take_over"], say=reporter.say) as ownership:
            record = Record(folder, ownership.token)
            begun = KMEANS in record.steps and record.committed(IDENTIFY) is None and not self._is_selected(number)
            if begun and self._recorded_input(number) != new_rows.identify(self.embeddings):
                reporter.say(f"{folder.name}: begun again, for clips came since it was begun")
                record.clear(STEPS, WRITTEN)
            if self._is_selected(number):
                self._select(number, client, cluster, reporter, ownership)
            result = self.workflow(number, eps).run(client, cluster=cluster)
        self._forget_selected(number)
        return result

    def _forget_selected(self, number: int) -> None:
        """Delete the copies of new clips' embeddings that a complete update was made of."""
        folder = self._folder(number)
        if Record(folder).steps.get(new_rows.SELECT, {}).get("files"):
            with owned(folder, take_over=self._shared["take_over"]) as ownership:
                new_rows.forget_selected(folder, ownership.token)

    def _select(
        self,
        number: int,
        client: distributed.Client,
        cluster: ClusterOptions | None,
        reporter: Reporter,
        ownership: Ownership,
    ) -> None:
        """Write the clips that no earlier dedup has and that are not left out, unless a killed run has done that."""
        folder, links = self._folder(number), chain_of(self._folder(number - 1)) if number > 1 else ()
        record = Record(folder, ownership.token)
        step = new_rows.selection(folder, self.embeddings, links, self.left_out)
        if step.is_complete() and record.steps[step.name]["files"]:
            return
        record.clear(ALL_STEPS, ALL_WRITTEN)
        reads = [self.embeddings.at(find_files([self.embeddings], "parquet")[0].url)]
        with open_session(client, cluster or ClusterOptions(), reporter, reads, [folder]) as session:
            found = run_step(step, new_rows.select_new_rows(self.embeddings, links, self.left_out), session, ownership)
        which = "that no dedup has yet" if number > 1 else "that do not go by overlap"
        reporter.say(f"{folder.name}: {found.facts['rows']:,} clips {which}")

    def _clear(self) -> None:
        """Delete them, the newest first, so that none is without its base; the first one deletes itself, but for rows
        that are selected for it."""
        first = [self._folder(1)] if self._is_selected(1) or any(x.rows for x in self.left_out) else []
        for folder in reversed([*first, *self.folders[1:], *DEDUPS.beyond(self.root)]):
            with owned(folder, take_over=self._shared["take_over"]) as ownership:
                Record(folder, ownership.token).clear(ALL_STEPS, ALL_WRITTEN)
            folder.remove_if_empty()

    def _together(self, made: Sequence[DedupResult]) -> DedupResult:
        """All of them as one result, with the seconds of those that this run made."""
        found = load(self.root.url, storage_options=self.root.options)
        seconds: dict[str, float] = {}
        for result in made:
            for name, each in result.seconds.items():
                seconds[name] = seconds.get(name, 0.0) + each
        newest = {"scores": str(self.folders[-1])}
        return replace(found, seconds={"total": 0.0, **seconds}, paths={**found.paths, **newest})
