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
from semdedup.dedup.base.new_rows import Embeddings, LeftOut
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
from semdedup.shards.embedders import EMBEDDERS
from semdedup.storage.location import Location

ALL_STEPS = (new_rows.SELECT, *STEPS, EMBEDDERS)
ALL_WRITTEN = {**new_rows.WRITTEN, **WRITTEN, EMBEDDERS: WRITTEN[IDENTIFY]}
RANKINGS = ("which_to_keep", "rank_by", "ranking_strategy", "distance_metric", "sim_metric")
"""Parameters of a dedup that say by what it ranks; a distance alone says that it is by that."""

ANEW = "clear_output=True (--overwrite) makes overlaps, dedup and dataset anew"


class Dedups:
    """The dedups below the root of a run, ``dedup``, ``dedup-0002``, …, each with those before it for its base.

    Args:
        root: of the run.
        embeddings: of all clips; those that another embedder failed on are left out until it has embedded them.
        given: parameters of the dedup, as the user gave them.
        shared: ``read_kwargs``, ``write_kwargs``, ``clear_output`` and others that all workflows take.
        left_out: clips that go before they are compared, as tables of ids in the order in which these were made.
        is_partial: whether there are clips that only some of the embedders have embedded.
    """

    def __init__(
        self,
        root: Location,
        embeddings: Embeddings,
        given: Mapping[str, Any],
        shared: Mapping[str, Any],
        left_out: Sequence[LeftOut] = (),
        is_partial: bool = False,
    ) -> None:
        self.root, self.embeddings, self.left_out, self.is_partial = root, embeddings, tuple(left_out), is_partial
        self._given, self._shared = dict(given), dict(shared)

    def _with(self, **given: Any) -> Dedups:
        """The same with other parameters."""
        return Dedups(
            *(self.root, self.embeddings, {**self._given, **given}, self._shared, self.left_out, self.is_partial)
        )

    def with_default(self, name: str, value: Any) -> Dedups:
        """The same with a parameter of the dedup that the user may have left out."""
        return self if name in self._given else self._with(**{name: value})

    @property
    def folders(self) -> list[Location]:
        """Their folders, the oldest first; a last one may not be complete."""
        return DEDUPS.below(self.root)

    def folder(self, number: int) -> Location:
        """That of this number; numbers begin at 1."""
        return self.root / DEDUPS.name(number)

    def ranked(self, anew: bool) -> Dedups:
        """The same with a ranking, where the user gave none: that of the first one, unless all are made `anew`; else
        the best copy stays."""
        if any(self._given.get(name) is not None for name in RANKINGS):
            return self
        ranking = None if anew else self.recorded("ranking", PAIRWISE)
        strategy = RankingStrategy.best() if ranking is None else RankingStrategy.described(ranking)
        return self._with(ranking_strategy=strategy)

    def recorded(self, name: str, step: str = IDENTIFY) -> Any:
        """A parameter of a step of the first one, by default of the threshold; None where it is not on record."""
        entry = Record(self.folder(1)).steps.get(step)
        return None if entry is None else entry["parameters"].get(name)

    def check(self, eps: float) -> None:
        """Check the parameters, before any work. Raises `ParameterError`."""
        self._first(self.embeddings.folder, eps)

    def workflow(self, number: int, eps: float) -> SemanticDeduplicationWorkflow:
        """The dedup of this number. Raises `InputError` where its base is not complete."""
        folder, shared, given = self.folder(number), self._shared, self._given
        if number == 1:
            return self._first(folder / new_rows.FOLDER if self._is_selected(1) else self.embeddings.folder, eps)
        given = {name: value for name, value in given.items() if name not in OF_THE_FIT}
        base = self.folder(number - 1).url
        shared = {**shared, "clear_output": False}
        source = (folder / new_rows.FOLDER).url
        return SemanticDeduplicationWorkflow(source, folder.url, eps=eps, base=base, **shared, **given)

    def _first(self, rows: Location, eps: float) -> SemanticDeduplicationWorkflow:
        """The first dedup, of these rows."""
        return SemanticDeduplicationWorkflow(rows.url, self.folder(1).url, eps=eps, **self._shared, **self._given)

    def run(
        self, client: distributed.Client, cluster: ClusterOptions | None, reporter: Reporter, eps: float
    ) -> DedupResult:
        """Complete what was begun, then compare clips that no dedup has with all before, in a dedup of their own.

        Raises:
            OutputConflictError: other parameters than on record; or files of an earlier dedup are missing and cannot be
                made again as they were.
        """
        if self._shared["clear_output"]:
            # the first one deletes itself, but for rows that are selected for it
            is_selected = self._is_selected(1) or self._is_to_be_selected
            folders = [*([self.folder(1)] if is_selected else []), *self.folders[1:]]
            clear_dedups(self.root, folders, take_over=self._shared["take_over"])
            return self._make(1, client, cluster, reporter, eps)
        if beyond := DEDUPS.beyond(self.root):
            raise OutputConflictError(
                f"{self.folder(len(self.folders) + 1)} is not there, and {beyond[0]} was made after it. Put it back, "
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
        while self._recorded_input(n) != self._input(n):
            try:
                made.append(self._make(n + 1, client, cluster, reporter, eps))
            except new_rows.NothingNewError:
                break
            n += 1
        if n == 1 and made:
            return made[0]
        if n == 1 and not self._is_selected(1) and self._recorded_input(1) == self._input(1):
            return self.workflow(1, eps).run(client, cluster=cluster)
        return self._together(made)

    def _is_complete(self, number: int, eps: float) -> bool:
        """Whether a dedup is. Raises `OutputConflictError` where it was made with other parameters."""
        stages = self.workflow(number, eps).pipeline.stages
        for stage in reversed(stages):  # another eps is to be told as such, and not as another forest
            Record(stage.destination().root).check(stage.step, stage.parameters())
        return all(stage.as_step(stage.source()).is_complete() for stage in stages)

    def _recorded_input(self, number: int) -> Mapping[str, Any] | None:
        """What the embeddings were when a dedup took its clips from them."""
        entry = Record(self.folder(number)).steps.get(new_rows.SELECT if self._is_selected(number) else KMEANS)
        return None if entry is None else entry["input"]

    def _input(self, number: int) -> Mapping[str, Any]:
        """What they are now."""
        found = self.embeddings
        return new_rows.identify(found.folders if self._is_selected(number) else [found.folder])

    def _is_selected(self, number: int) -> bool:
        """Whether a dedup is of rows that are selected from the embeddings; the first one need not be."""
        steps = Record(self.folder(number)).steps
        return number > 1 or new_rows.SELECT in steps or (KMEANS not in steps and self._is_to_be_selected)

    @property
    def _is_to_be_selected(self) -> bool:
        """Whether the first dedup, where it is made now, is not of all rows of the embeddings."""
        return self.is_partial or any(x.rows for x in self.left_out)

    def _check_left_out(self, number: int) -> None:
        """Refuse a dedup of clips that are to be left out now, or that was made without others.

        Raises:
            OutputConflictError: what goes before is not what it was when the dedup was made.
        """
        steps, now = Record(self.folder(number)).steps, {ids.identity for ids in self.left_out}
        then = steps.get(new_rows.SELECT, {}).get("parameters", {}).get(new_rows.LEFT_OUT, [])
        first = any(x.rows for x in self.left_out if x.is_first)
        is_without = KMEANS in steps and new_rows.SELECT not in steps and first
        if not now.issuperset(then) or (is_without and number == 1):
            raise OutputConflictError(
                f"{self.folder(number)} was made when other clips went by overlap, or by another embedder, than go "
                f"now: what tells so was made anew, or is not there. Put back what was there, or {ANEW}."
            )

    def _check_can_be_made(self, number: int, n: int) -> None:
        """Refuse to make a dedup again that was complete, where that would give another than it was."""
        folder = self.folder(number)
        record = Record(folder)
        if record.committed(IDENTIFY) is None:
            return
        faults = [fault for step in STEPS for fault in record.changed(step, self._shared["verify"])]
        if faults and (number < n or self._recorded_input(number) != self._input(number)):
            raise OutputConflictError(
                f"{len(faults)} files of {folder} are not as they were written: {'; '.join(faults[:3])}. There are "
                f"clips that came since, so that they cannot be made again as they were. Put them back, or {ANEW}."
            )

    def _make(
        self, number: int, client: distributed.Client, cluster: ClusterOptions | None, reporter: Reporter, eps: float
    ) -> DedupResult:
        """Make a dedup, or complete it."""
        folder = self.folder(number)
        with owned(folder, take_over=self._shared["take_over"], say=reporter.say) as ownership:
            record = Record(folder, ownership.token)
            begun = KMEANS in record.steps and record.committed(IDENTIFY) is None and not self._is_selected(number)
            if begun and self._recorded_input(number) != self._input(number):
                reporter.say(f"{folder.name}: begun again, for clips came since it was begun")
                record.clear(STEPS, WRITTEN)
            if self._is_selected(number):
                self._select(number, client, cluster, reporter, ownership)
            result = self.workflow(number, eps).run(client, cluster=cluster)
        self._forget_selected(number)
        return result

    def _forget_selected(self, number: int) -> None:
        """Delete the copies of new clips' embeddings that a complete update was made of."""
        folder = self.folder(number)
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
        folder, links = self.folder(number), chain_of(self.folder(number - 1)) if number > 1 else ()
        record = Record(folder, ownership.token)
        step = new_rows.selection(folder, self.embeddings, links, self.left_out)
        if step.is_complete() and record.steps[step.name]["files"]:
            return
        record.clear(ALL_STEPS, ALL_WRITTEN)
        embeddings = self.embeddings.folder
        reads = [embeddings.at(find_files([embeddings], "parquet")[0].url)]
        with open_session(client, cluster or ClusterOptions(), reporter, reads, [folder]) as session:
            found = run_step(step, new_rows.select_new_rows(self.embeddings, links, self.left_out), session, ownership)
        which = "that no dedup has yet" if number > 1 else "that nothing before it drops"
        reporter.say(f"{folder.name}: {found.facts['rows']:,} clips {which}")

    def _together(self, made: Sequence[DedupResult]) -> DedupResult:
        """All of them as one result, with the seconds of those that this run made."""
        found = load(self.root.url, storage_options=self.root.options)
        seconds: dict[str, float] = {}
        for result in made:
            for name, each in result.seconds.items():
                seconds[name] = seconds.get(name, 0.0) + each
        newest = {"scores": str(self.folders[-1])}
        return replace(found, seconds={"total": 0.0, **seconds}, paths={**found.paths, **newest})


def clear_dedups(root: Location, folders: Sequence[Location], *, take_over: bool) -> None:
    """Delete dedups below a root, and those beyond a gap, the newest first, so that none is without its base."""
    for folder in reversed([*folders, *DEDUPS.beyond(root)]):
        with owned(folder, take_over=take_over) as ownership:
            Record(folder, ownership.token).clear(ALL_STEPS, ALL_WRITTEN)
        folder.remove_if_empty()
