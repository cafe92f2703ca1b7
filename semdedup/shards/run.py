"""One run of `shard` on a session: scatter, join, cut, write, commit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from semdedup.dedup.threshold.groups import Targets
from semdedup.dedup.threshold.run import Rule, remove
from semdedup.errors import InputError, IntegrityError
from semdedup.runs.run import Run
from semdedup.shards import card
from semdedup.shards.chain import DropChain
from semdedup.shards.drops import DUPLICATE, OVERLAP, WITHDRAWN, Drops
from semdedup.shards.growth import Shipped, made_from, only
from semdedup.shards.inputs import Inputs
from semdedup.shards.join import Join, Partition, join_partition, sizes_file
from semdedup.shards.layouts import LAYOUTS
from semdedup.shards.layouts.base import WrittenShard
from semdedup.shards.options import ShardOptions
from semdedup.shards.packing import Shard, pack_shards, read_sizes
from semdedup.shards.plan import SCORE_BYTES, Boundary, Plan, plan_once
from semdedup.shards.scatter import Scatter, scatter_drops, scatter_embeddings, scatter_several
from semdedup.shards.streams import REQUESTS_AHEAD
from semdedup.shards.tables import write_dropped, write_index
from semdedup.shards.write import Writing, index_schema, write_shard
from semdedup.storage.chunks import ahead
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.pieces import cuts_of, pieces_of
from semdedup.storage.tables import cut_files
from semdedup.video.clip_ids import BY_NAME, BY_PATH
from semdedup.video.clip_meta import describe_faults

STEP = "shard"

IDS = {
    BY_NAME: "the names of their files, without ending",
    BY_PATH: "the paths of their files below the folder, for names are the same in several",
}


class ShardRun:
    """One run on a session: each step leaves its results in the scratch folder, where a later run finds them.

    Args:
        run: of the step.
        inputs, drops: everything that there is now.
        options, parameters: of the dataset.
        before: what it holds already, where it is continued.
    """

    def __init__(
        self,
        run: Run,
        inputs: Inputs,
        drops: DropChain | None,
        options: ShardOptions,
        parameters: Mapping[str, Any],
        before: Shipped | None = None,
    ) -> None:
        self._run, self._every, self.before = run, (inputs, drops), before
        self.inputs, self.drops = inputs, drops
        if before is not None and drops is not None:
            self.inputs, self.drops = only(inputs, before.ids(), inside=False), drops.after(before.results)
        self.options, self.parameters = options, parameters
        self._embedders = () if drops is None else drops.embedders  # of all: a part may have none of some
        self.layout = LAYOUTS[options.layout]
        self.scratch, self.final = run.scratch, run.final

    def run(self) -> dict[str, Any]:
        """Join, cut and write what is new; return the facts of the whole."""
        with self._run.refusing():
            partitions = self._join(plan_once(self.scratch, self.inputs, self.drops, self.options.shuffle_seed))
        shards = self._cut(partitions)
        schema = index_schema(self.layout, self.inputs.embeddings_folder is not None)
        work = partial(write_shard, Writing(self.inputs.root, self.scratch, self.final, self.layout, schema))
        written = self._run.results("write shards", work, shards, unit="shards")
        facts, before = count_facts(self.inputs, self._every[1], partitions, written), self.before
        tars = [{"samples": result["samples"], **tar} for result in written for tar in result["tars"]]
        done = [
            WrittenShard(shard.bin, shard.tars, result["samples"])
            for shard, result in zip(shards, written, strict=True)
        ]
        root, old = self._run.root, None if before is None else self._run.root
        if before is not None:
            facts, tars, done = before.merged(facts), before.tars + tars, before.shards(self.layout) + done
        with self._run.noting():
            write_index(self.final / card.INDEX, self.scratch, written, schema, old and old / card.INDEX)
            write_dropped(self.final / card.DROPPED, self.scratch, partitions, old and old / card.DROPPED)
            (self.final / card.DATASET_MANIFEST).write_bytes(card.dataset_manifest(self.parameters, facts, tars))
            (self.final / card.README).write_bytes(card.readme(self.parameters, facts, self.layout.loading))
            for name, content in self.layout.extra_files(root, self.options.annotation_version, done):
                (self.final / name).write_bytes(content)
        return {**facts, **made_from(*self._every, [shard.bin for shard in done])}

    def _join(self, plan: Plan) -> list[dict[str, Any]]:
        """The results of `join_partition`, for each partition."""
        drops, seed, bounds = self.drops, self.options.shuffle_seed, tuple(plan.bounds)
        scores, embeddings = self.scratch / "scores", self.scratch / "embeddings"
        score_cuts = drop_cuts = cuts_of((), 0, len(bounds))
        rows = 0
        if drops is not None:
            several = [
                Scatter(
                    *(link.source, scores, bounds, seed, link.scored, link.eps if link.by_scores else None),
                    embedder=self._embedders.index(link.embedder),
                )
                for link in drops.links
            ]
            tasks = list(zip(plan.links, plan.scores, strict=True))
            score_cuts, rows = self._scatter("scores", partial(scatter_several, several), tasks, len(bounds))
            drop_cuts = self._drop(drops, bounds)
        others = Scatter(self.inputs.root, embeddings, bounds, seed)
        scatter = partial(scatter_embeddings, others)
        embedding_cuts, _ = self._scatter("embeddings", scatter, plan.embeddings, len(bounds))
        items = [
            Partition(
                number,
                clips,
                pieces_of(scores, score_cuts, number),
                pieces_of(self.scratch / "drops", drop_cuts, number),
                pieces_of(embeddings, embedding_cuts, number),
            )
            for number, clips in enumerate(pairwise([0, *plan.clip_ends]))
        ]
        join = Join(
            root=self.inputs.root,
            metas=self.inputs.metas_folder,
            scratch=self.scratch,
            scored=drops is not None and drops.scored,
            layout=self.layout,
            with_embeddings=self.inputs.embeddings_folder is not None,
            both=drops is not None and drops.drop_when == "both",
            embedders=max(1, len(self._embedders)),
            all_embedders=drops is not None and drops.duplicate_when == "both",
            keep_if=self.options.keep_if,
        )
        partitions = self._run.results("join", partial(join_partition, join), items, unit="parts")
        if drops is not None and (warning := check_matches(self.inputs, drops, rows, partitions)):
            self._run.reporter.say(warning)
        if drops is not None and drops.overlaps and self.before is None:
            check_shown(self.inputs, drops, partitions)
        if malformed := sum(found["malformed_meta"] for found in partitions):
            faults = [fault for found in partitions for fault in found["meta_faults"]]
            then = (
                "what is asked of their clips is not known"
                if self.options.keep_if
                else "their clips go without metadata"
            )
            self._run.reporter.say(describe_faults(malformed, faults, then))
        if unknown := sum(found["filter_unknown"] for found in partitions):
            self._run.reporter.say(f"{unknown:,} clips lack a column that keep_if asks for, and are not kept")
        return partitions

    def _drop(self, drops: DropChain, bounds: tuple[Boundary, ...]) -> np.ndarray:
        """Cut the tables of ids that go beside scores into partitions."""
        tables = [
            (DUPLICATE, self._embedders.index(link.embedder), *self._ids_to_drop(link))
            for link in drops.links
            if link.scored and not link.by_scores
        ]
        tables += [(WITHDRAWN, 0, files, at) for files, at in zip(drops.withdrawn, drops.sources, strict=True) if files]
        tables += [(OVERLAP, 0, found.files, found.source) for found in drops.overlaps]
        target, seed = self.scratch / "drops", self.options.shuffle_seed
        several = [
            Scatter(source, target, bounds, seed, reason=reason, embedder=embedder)
            for reason, embedder, _, source in tables
        ]
        tasks = [
            (number, task)
            for number, (_, _, files, source) in enumerate(tables)
            for task in cut_files(files, source, SCORE_BYTES)
        ]
        if not tasks:
            return cuts_of((), 0, len(bounds))
        return self._scatter("drops", partial(scatter_drops, several), tasks, len(bounds))[0]

    def _ids_to_drop(self, drops: Drops) -> tuple[Sequence[FileInfo], Location]:
        """The ids that go by a rule that needs more than scores: those on record, else found now."""
        if drops.ids:
            return drops.ids, drops.source
        assert drops.eps is not None
        assert drops.removal is not None
        folder = self.scratch / "removal"
        targets = Targets(dropped=folder, kept=None, witnesses=None, write_kwargs={})
        remove(self._run, drops.files, drops.source, Rule(drops.eps, removal=drops.removal), targets)
        return sorted(folder.files(), key=lambda file: file.url), folder

    def _scatter(
        self, what: str, work: Callable[[Any], dict[str, Any]], tasks: Sequence[Any], n_partitions: int
    ) -> tuple[np.ndarray, int]:
        """Cut tables into partitions: where these are in the file of each task, see `cuts_of`; and how many rows."""
        rows = 0

        def ends() -> Iterator[tuple[int, Sequence[int]]]:
            nonlocal rows
            for entry in self._run.each(f"read {what}", work, list(enumerate(tasks))):
                rows += entry.result["rows"]
                yield int(entry.key), entry.result["ends"]

        return cuts_of(ends(), len(tasks), n_partitions), rows

    def _cut(self, partitions: Sequence[Mapping[str, Any]]) -> list[Shard]:
        """Cut the samples into shards, by their sizes alone."""
        files = [sizes_file(self.scratch, number) for number in range(len(partitions))]
        samples, ends = list(ahead(read_sizes, files, REQUESTS_AHEAD)), [found["ends"] for found in partitions]
        options = self.options
        first = Counter([] if self.before is None else self.before.bins)
        most = options.samples_per_shard, options.most_bytes
        return pack_shards(self.layout, options.annotation_version, samples, ends, *most, first)


def check_matches(inputs: Inputs, drops: DropChain, rows: int, partitions: Sequence[Mapping[str, Any]]) -> str | None:
    """A warning where some of the `rows` scores or ids to drop belong to no clip.

    Raises:
        InputError: there are tables of scores, but no rows; or none of the rows belongs to a clip.
    """
    what = "scores" if drops.scored else "ids to drop"
    if drops.scored and not rows:
        raise InputError(f"no rows in the {len(drops.files)} tables of scores in {drops}")
    unmatched = sum(found["unmatched"] for found in partitions)
    if not unmatched:
        return None
    examples = ", ".join([repr(name) for found in partitions for name in found["examples"]][:3])
    if unmatched == rows:
        raise InputError(
            f"none of the {rows:,} {what} in {drops} belongs to a clip in {inputs.root}: ids "
            f"there are {examples}. Ids of clips here are {IDS[inputs.id_scheme]}; give the result of the dedup of "
            "these clips."
        )
    return f"{unmatched:,} of {rows:,} {what} belong to no clip: {examples}"


def check_shown(inputs: Inputs, drops: DropChain, partitions: Sequence[Mapping[str, Any]]) -> None:
    """Refuse tables of clips that go by overlap none of which is about a clip."""
    shown = sum(found["said_shown"] for found in partitions)
    if not shown or inputs.quarantined or any(found["shown"] for found in partitions):
        return
    sources = ", ".join(str(found.source) for found in drops.overlaps)
    raise InputError(
        f"none of the {shown:,} clips that go by overlap, of {sources}, is in {inputs.root}. Ids of clips "
        f"here are {IDS[inputs.id_scheme]}; give the overlaps of these clips."
    )


def count_facts(
    inputs: Inputs,
    drops: DropChain | None,
    partitions: Sequence[Mapping[str, Any]],
    written: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """The facts of a `ShardResult`, from the results of `join_partition` and `write_shard`.

    Raises:
        IntegrityError: clips were lost or added on the way.
    """
    dropped: Counter[str] = Counter()
    for found in partitions:
        dropped.update(found["dropped"])

    def total(name: str) -> int:
        return sum(found[name] for found in partitions)

    samples = sum(result["samples"] for result in written)
    if not len(inputs.clips) == total("clips") == samples + dropped.total() or samples != total("kept"):
        raise IntegrityError(
            f"{len(inputs.clips)} clips went in, {total('kept')} were kept and {dropped.total()} dropped, but "
            f"{samples} written"
        )
    return {
        "clips": total("clips"),
        "kept": total("kept"),
        "dropped": dict(sorted(dropped.items())),
        "shards": len(written),
        "bytes": total("bytes"),
        "tar_bytes": sum(tar["bytes"] for result in written for tar in result["tars"]),
        "without_score": total("unscored"),
        "without_metadata": total("without_meta"),
        "malformed_metadata": total("malformed_meta"),
        "without_embedding": total("without_embedding") if inputs.embeddings_folder else 0,
        "filter_unknown": total("filter_unknown"),
        "unmatched": total("unmatched"),
        "left_out": inputs.left_out,
        "quarantined": inputs.quarantined,
        "eps": drops and drops.eps,
        "removal": drops and drops.removal,
        "eps_from": drops and drops.why,
        **count_by_embedder(drops, partitions),
    }


def count_by_embedder(drops: DropChain | None, partitions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fact ``embedders``, where there are several: threshold, rule, and clips that are near-duplicates by each."""
    if drops is None or len(drops.embedders) < 2:
        return {}
    counts = np.sum([found["duplicates_by"] for found in partitions], axis=0).tolist()
    return {
        "embedders": {
            name: {"eps": link.eps, "eps_from": link.why, "removal": link.removal, "duplicates": count}
            for (name, link), count in zip(drops.newest.items(), counts, strict=True)
        }
    }
