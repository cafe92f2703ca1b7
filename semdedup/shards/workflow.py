"""`ShardWorkflow`: the clips that remain, as WebDataset shards, on Dask."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Unpack

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.compute.progress import Reporter
from semdedup.compute.session import open_session
from semdedup.dedup.results.scores import Scores
from semdedup.errors import InputError
from semdedup.runs.at_work import at_work
from semdedup.runs.files import refuse_foreign
from semdedup.runs.identity import fingerprint_of
from semdedup.runs.places import CLIPS, DEDUPS, find_part, is_root, results_by_embedder
from semdedup.runs.record import FILE_NAME, SCRATCH, Record
from semdedup.runs.run import Run
from semdedup.runs.step import Outcome, Step, complete_already, run_step
from semdedup.settings import documented, needed
from semdedup.settings.choices import DatasetLayout, DropWhen, RemovalRule
from semdedup.settings.reprs import Shown
from semdedup.settings.shared import SharedKeywords
from semdedup.shards import card
from semdedup.shards.chain import DropChain, find_all_drops
from semdedup.shards.drops import Drops
from semdedup.shards.embedders import embedders_of
from semdedup.shards.growth import MADE_FROM, known_of, shipped
from semdedup.shards.inputs import Inputs, find_inputs
from semdedup.shards.keep_if import check_columns
from semdedup.shards.layouts import LAYOUTS
from semdedup.shards.options import DropOptions, ShardIOOptions, ShardOptions
from semdedup.shards.result import ShardResult
from semdedup.shards.run import STEP, ShardRun
from semdedup.storage.file_list import FileList
from semdedup.storage.location import Location, storage_options_of

WRITTEN = re.compile(r"(?:[^/]+/){0,6}(?:[^/]+\.tar|wdinfo[^/]*\.(?:json|csv))|[^/]+\.(?:json|md|parquet|csv)")
"""What the names of the files of a dataset look like."""

TOP_FILES = (card.DATASET_MANIFEST, card.README, card.INDEX, card.DROPPED)


@documented(ShardIOOptions, DropOptions, ShardOptions)
class ShardWorkflow(Shown):
    """The clips that remain after the dedup, as WebDataset shards with their metadata.

    The same input gives the same bytes, whatever the cluster. Clips are read once and streamed; scores and metadata are
    joined to them partition by partition. Memory of a task: one partition's ids and scores, some pieces of clips. Given
    the root of a run, its clips, dedups and overlaps are taken.

    Example:
        >>> ShardWorkflow("clips/", "dataset/", input_semantic_dedup_path="clips/dedup").run()
    """

    def __init__(
        self,
        input_clip_path: str,
        output_dataset_path: str,
        *,
        annotation_version: str = "v0",
        input_semantic_dedup_path: str | None = None,
        semantic_dedup_epsilon: float | None = None,
        removal: RemovalRule | None = None,
        input_overlaps_path: str | None = None,
        drop_when: DropWhen | None = None,
        duplicate_when: DropWhen | None = None,
        layout: DatasetLayout = "flat",
        samples_per_shard: int = 10_000,
        target_tar_size_mb: float = 500.0,
        with_embeddings: bool | str = False,
        shuffle_seed: int | None = None,
        eps: float | None = None,
        keep_if: str | Sequence[str] = (),
        **shared: Unpack[SharedKeywords],
    ) -> None:
        given = {**locals(), **shared}
        self.options = ShardOptions.of(given)
        self.io = io = ShardIOOptions.of(given)
        reads, writes = storage_options_of(io.read_kwargs), storage_options_of(io.write_kwargs)
        self.input = Location.of(needed(io.input_clip_path, "input_clip_path"), reads)
        self.output = Location.of(needed(io.output_dataset_path, "output_dataset_path"), writes)
        self.drops = DropOptions.of(given)
        paths = self.drops.input_semantic_dedup_path, self.drops.input_overlaps_path
        self._dedup, self.overlaps = (None if named is None else Location.of(named, reads) for named in paths)

    @cached_property
    def dedup(self) -> Location | None:
        """The result by which clips are dropped; of the root of a run its own where none is given.

        Raises:
            InputError: a root that has none.
        """
        if self._dedup is not None or not is_root(self.input):
            return self._dedup
        if not results_by_embedder(self.input) and find_part(self.input, "results") == (self.input,):
            raise InputError(
                f"{self.input} is the root of a run without a result: there is no folder {DEDUPS.first} in it. Run the "
                f"same semdedup run again, or give {self.input / CLIPS} to write all clips."
            )
        return self.input

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> ShardResult:
        """Write the dataset, going on where an earlier run with the same parameters and input stopped.

        `client` and `cluster` are as for `SemanticDeduplicationWorkflow.run`.

        Raises:
            SemdedupError: see `semdedup.errors`. A run that is refused has written nothing.
        """
        started = time.monotonic()
        reporter = Reporter(self.io.verbose)
        with reporter.doing("looking at the input"):
            found = _Found(self._find)
            step, grows = self._checked_step(found)
        if step.is_complete() and not grows:
            outcome = complete_already(step, reporter)
            return self._result(outcome, {"total": time.monotonic() - started})
        clips = found.now()[0].clips
        reads = [self.input.at(clip.url) for clip in (clips[0], clips[-1])]
        del clips

        def work(run: Run) -> dict[str, Any]:
            inputs, drops = found.taken()
            before = shipped(self.output, run.record.steps[STEP], inputs, drops)
            return ShardRun(run, inputs, drops, self.options, self._described(inputs, drops), before).run()

        with (
            at_work(self.output, reporter, take_over=self.io.take_over) as ownership,
            open_session(client, cluster or ClusterOptions(), reporter, reads, [self.output]) as session,
        ):
            outcome = run_step(step, work, session, ownership)
            result = self._result(outcome, {**reporter.seconds, "total": time.monotonic() - started})
            reporter.summarize(result.rows())
        return result

    def plan(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> Iterator[str]:
        """What `run` would do, in lines of text. Everything is checked, scores are counted; nothing is written.

        No cluster is needed: `client` and `cluster` are taken as `run` takes them, and left alone.
        """
        found = _Found(self._find)
        step, grows = self._checked_step(found)
        inputs, drops = found.now()
        yield f"input: {len(inputs.clips):,} clips, {inputs.n_bytes:,} bytes, {len(inputs.metas):,} with metadata"
        if inputs.left_out:
            yield f"  left out: {inputs.left_out:,} videos that are no MP4 files, or hidden"
        if inputs.quarantined:
            yield f"  in quarantine: {inputs.quarantined:,} clips that could not be embedded"
        if drops is None:
            yield "duplicates: none are dropped, for no scores are given"
        else:
            yield from map(_described_drops, drops.links)
            if len(drops.embedders) > 1:
                yield f"near-duplicates: by {drops.duplicate_when} of {', '.join(drops.embedders)}"
            yield from _described_overlaps(drops)
        what = "complete already" if step.is_complete() else "all shards"
        if self.options.keep_if:
            yield f"kept if: {' and '.join(f'({text})' for text in self.options.keep_if)}"
        yield f"would write to {self.output}: " + ("new shards after those that there are" if grows else what)
        yield (
            f"  layout {self.options.layout}, at most {self.options.samples_per_shard:,} samples and "
            f"{self.options.target_tar_size_mb:g} MiB a shard"
        )

    def _find(self) -> tuple[Inputs, DropChain | None]:
        version, embeddings, compared = self.options.annotation_version, self.options.with_embeddings, bool(self.dedup)
        options = self.drops
        drops = find_all_drops(
            self.dedup,
            options.semantic_dedup_epsilon,
            options.removal,
            overlaps=self.overlaps,
            clips=self.input,
            drop_when=options.drop_when,
            duplicate_when=options.duplicate_when,
        )
        by = () if drops is None else embedders_of(drops.sources)
        return find_inputs(self.input, self.output, version, embeddings, compared, by), drops

    def _described(self, inputs: Inputs, drops: DropChain | None) -> dict[str, Any]:
        """What the result depends on beside the files of its input, as the dataset says it."""
        return {
            "input_clip_path": str(inputs.root),
            "input_semantic_dedup_path": str(self.dedup) if self.dedup else None,
            "semantic_dedup_epsilon": drops and drops.eps,
            "removal": drops and drops.removal,
            **_parameters_of_overlaps(drops),
            **_parameters_of_embedders(drops),
            **self.options.recorded(),
            "with_embeddings": inputs.embeddings_folder,
        }

    @staticmethod
    def _recorded(described: Mapping[str, Any]) -> dict[str, Any]:
        """The same for the record: an input is known by its files, wherever it is."""
        places = ("input_clip_path", "input_semantic_dedup_path", "input_overlaps_path")
        return {name: value is not None if name in places else value for name, value in described.items()}

    @staticmethod
    def _identity(inputs: Inputs, drops: DropChain | None) -> dict[str, Any]:
        tables = FileList.of(drops.files if drops else ())
        folders = [inputs.root, *(drops.folders if drops else [])]
        files = [inputs.clips, inputs.metas, inputs.embeddings, tables]
        return fingerprint_of(files, known_of(inputs, folders))

    def _checked_step(self, found: _Found) -> tuple[Step, bool]:
        """The step, and whether it continues a dataset; refuses a folder that holds other shards, recorded or not."""
        inputs, drops = found.now()
        check_columns(self.options.keep_if, inputs)
        parameters = self._recorded(self._described(inputs, drops))
        step = Step(
            name=STEP,
            root=self.output,
            parameters=parameters,
            identify=lambda: self._identity(*found.anew()),
            written={STEP: WRITTEN},
            cleared=(STEP,) if self.io.clear_output else (),
            verify=self.io.verify,
            grows=lambda entry: shipped(self.output, entry, *found.now()) is not None,
        )
        record, grows = Record(self.output), False
        if not self.io.clear_output and STEP in record.steps:
            identity = self._identity(inputs, drops)
            entry = record.steps[STEP]
            grows = entry["input"] != identity and shipped(self.output, entry, inputs, drops) is not None
            record.check(STEP, parameters, None if grows else identity)
        elif not self.io.clear_output:
            record.check(STEP, parameters)
        if self.io.clear_output or STEP not in record.steps:
            self._check_foreign(record)
        return step, grows

    def is_stale(self) -> bool:
        """Whether the output holds only the beginning of a dataset that was to be made of other clips or drops.

        Raises:
            OutputConflictError: it was begun with other parameters.
        """
        entry = Record(self.output).steps.get(STEP)
        if entry is None or "facts" in entry or entry["input"] == self._identity(*self._find()):
            return False
        Record(self.output).check(STEP, self._recorded(self._described(*self._find())))
        return True

    def _check_foreign(self, record: Record) -> None:
        ours = record.files
        names = (file.url[len(self.output.url.rstrip("/")) + 1 :] for file in self.output.files())
        foreign = [
            name for name in names if _is_of_a_dataset(name) and name not in ours and not name.startswith(f"{SCRATCH}/")
        ]
        refuse_foreign(self.output, foreign, "of a dataset that semdedup has no record of")

    def _result(self, outcome: Outcome, seconds: Mapping[str, float]) -> ShardResult:
        paths = {"dataset": str(self.output)}
        paths |= {name.split(".")[0]: str(self.output / name) for name in (card.INDEX, card.DROPPED, card.README)}
        paths["manifest"] = str(self.output / FILE_NAME)
        facts = {name: value for name, value in outcome.facts.items() if name != MADE_FROM}  # for later runs alone
        return ShardResult(facts, paths, seconds, outcome.resumed)


class _Found:
    """What there is to make a dataset of, listed by `find`. One listing is held at a time, for it may be large."""

    def __init__(self, find: Callable[[], tuple[Inputs, DropChain | None]]) -> None:
        self._find = find
        self._last: tuple[Inputs, DropChain | None] | None = None

    def now(self) -> tuple[Inputs, DropChain | None]:
        """As it was listed last."""
        self._last = self._find() if self._last is None else self._last
        return self._last

    def anew(self) -> tuple[Inputs, DropChain | None]:
        """As it is listed now."""
        self._last = None
        return self.now()

    def taken(self) -> tuple[Inputs, DropChain | None]:
        """As it was listed last, which is not held any more."""
        last, self._last = self.now(), None
        return last


def _described_drops(drops: Drops) -> str:
    """What a result drops, in a line of text; scores are counted."""
    if drops.by_scores and drops.eps is not None:
        rows, (duplicates,) = Scores(drops.files, drops.source).count([drops.eps])
        return f"duplicates: {duplicates:,} of {rows:,} scores reach 1 - eps, eps {drops.eps:g} ({drops.why})"
    if drops.scored and not drops.ids:
        return f"duplicates: to be found by the removal rule {drops.removal} at eps {drops.eps:g} ({drops.why})"
    return f"duplicates: those listed in {len(drops.ids or drops.files):,} files"


def _described_overlaps(drops: DropChain) -> Iterator[str]:
    """What goes by overlap, in lines of text."""
    if drops.overlaps:
        n_files = sum(len(found.files) for found in drops.overlaps)
        only = ", where they are near-duplicates, too" if drops.drop_when == "both" else ""
        yield f"by overlap: those listed in {n_files:,} files{only}"


def _parameters_of_overlaps(drops: DropChain | None) -> dict[str, Any]:
    """What a dataset depends on where clips go by overlap; nothing where none do."""
    if drops is None or not drops.overlaps:
        return {}
    return {
        "input_overlaps_path": ", ".join(str(found.source) for found in drops.overlaps),
        "drop_when": drops.drop_when,
    }


def _parameters_of_embedders(drops: DropChain | None) -> dict[str, Any]:
    """What a dataset depends on where several embedders tell which clips are near-duplicates; else nothing."""
    if drops is None or len(drops.embedders) < 2:
        return {}
    by = {name: {"eps": link.eps, "removal": link.removal} for name, link in drops.newest.items()}
    return {"embedders": by, "duplicate_when": drops.duplicate_when}


def _is_of_a_dataset(name: str) -> bool:
    """Whether a file, by its path below the output, could belong to a dataset, of any layout."""
    extra = {extra_name for layout in LAYOUTS.values() for extra_name in layout.extra_names}
    return name in TOP_FILES or name.rsplit("/", 1)[-1] in extra or re.search(r"\.tar(\.|$)", name) is not None
