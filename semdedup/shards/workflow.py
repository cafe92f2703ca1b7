"""`ShardWorkflow`: the clips that remain, as WebDataset shards, on Dask."""

from __future__ import annotations

import re
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import distributed
import pyarrow as pa

from semdedup.choices import DatasetLayout
from semdedup.compute.progress import Reporter
from semdedup.compute.session import ClusterOptions, Session, open_session
from semdedup.dedup.cluster.fit import load_array
from semdedup.dedup.results.scores import Scores
from semdedup.errors import InputError, IntegrityError, OutputConflictError, ParameterError
from semdedup.runs.journal import read_journal, run_journaled
from semdedup.runs.record import FILE_NAME, SCRATCH, Manifest, fingerprint
from semdedup.shards import card
from semdedup.shards.drops import Drops, find_drops
from semdedup.shards.inputs import Inputs, clip_table, find_inputs
from semdedup.shards.join import (
    DROPPED,
    EMBEDDING_BYTES,
    SCORE_BYTES,
    Groups,
    Join,
    Partition,
    Scatter,
    cut_files,
    dropped_file,
    join_partition,
    pieces_of,
    scatter_embeddings,
    scatter_scores,
    sizes_file,
)
from semdedup.shards.layouts.cosmos import BINS
from semdedup.shards.options import COSMOS, ShardOptions
from semdedup.shards.order import Boundary, boundaries, cut, in_order
from semdedup.shards.packing import rows_of_shards
from semdedup.shards.result import ShardResult
from semdedup.shards.streams import REQUESTS_AHEAD, ahead, write_chunks
from semdedup.shards.write import (
    METAS,
    VIDEO,
    Shard,
    Writing,
    bin_folder,
    chunks_of,
    flat_name,
    index_file,
    index_schema,
    joined,
    part_name,
    wdinfo,
    write_shard,
)
from semdedup.storage.location import Location, storage_options_of
from semdedup.storage.tables import write_batches

STEP = "shard"
CLIPS_PER_PARTITION = 1 << 15
EMBEDDED_CLIPS_PER_PARTITION = 1 << 13
"""Most clips that one task joins; fewer where their embeddings come along."""

TOP_FILES = (card.MANIFEST, card.README, card.INDEX, card.DROPPED)


class ShardWorkflow:
    """The clips that remain after the dedup, as WebDataset shards with their metadata.

    The same input gives the same bytes, whatever the cluster. Clips are read once and streamed; scores and metadata are
    joined to them partition by partition. Memory of a task: one partition's ids and scores, some pieces of clips.

    Args:
        input_clip_path: output of `split`, or any folder of MP4 files, whose names without ending are their ids.
        output_dataset_path: folder for the dataset.
        annotation_version: which metadata of the clips: that of ``metas/{version}``.
        input_semantic_dedup_path: a result of the dedup, whose duplicates are dropped; None: all clips are kept.
        semantic_dedup_epsilon: clips with a score of at least 1 - eps are dropped; None: the eps that the result's own
            ids to drop were extracted at.
        layout: ``flat`` or ``cosmos``; see `ShardOptions`.
        samples_per_shard: most samples of a shard.
        target_tar_size_mb: most MiB of a shard.
        with_embeddings: whether samples get their embedding from the folder ``*_embd_parquet`` of the input; or the
            name of that folder, where there are several.
        shuffle_seed: shuffle the samples with this seed; None: they are in the order of their ids.
        read_kwargs: ``storage_options`` of the input.
        write_kwargs: ``storage_options`` of the output.
        clear_output: first delete what an earlier export wrote there, and nothing else.
        verbose: show progress.

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
        layout: DatasetLayout = "flat",
        samples_per_shard: int = 10_000,
        target_tar_size_mb: float = 500,
        with_embeddings: bool | str = False,
        shuffle_seed: int | None = None,
        read_kwargs: Mapping[str, Any] | None = None,
        write_kwargs: Mapping[str, Any] | None = None,
        clear_output: bool = False,
        verbose: bool = True,
    ) -> None:
        self.options = ShardOptions(
            annotation_version, layout, samples_per_shard, target_tar_size_mb, with_embeddings, shuffle_seed
        )
        if input_semantic_dedup_path is None and semantic_dedup_epsilon is not None:
            raise ParameterError(
                "semantic_dedup_epsilon is given, but no scores: name them by input_semantic_dedup_path "
                "(--input-semantic-dedup-path)"
            )
        self.input = Location.of(input_clip_path, storage_options_of(read_kwargs))
        self.output = Location.of(output_dataset_path, storage_options_of(write_kwargs))
        self.dedup: Location | None = None
        if input_semantic_dedup_path is not None:  # an empty path is an error, and not "nothing to drop"
            self.dedup = Location.of(input_semantic_dedup_path, storage_options_of(read_kwargs))
        self.eps = semantic_dedup_epsilon
        self.clear_output, self.verbose = clear_output, verbose

    def run(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> ShardResult:
        """Write the dataset, going on where an earlier run with the same parameters and input stopped.

        Args:
            client: a `distributed.Client`, a scheduler address, or None: the current default client if there is one,
                else a cluster of its own for the time of the run. A client that is given is never closed.
            cluster: how to start that cluster.

        Raises:
            SemdedupError: see `semdedup.errors`. A run that is refused has written nothing.
        """
        started = time.monotonic()
        reporter = Reporter(self.verbose)
        inputs, drops = self._find()
        parameters, identity = self._identity(inputs, drops)
        manifest = self._checked_manifest(parameters, identity)
        done = None if self.clear_output else manifest.committed(STEP)
        if done is not None:
            manifest.remove_strays()
            reporter.say("shard: complete already, nothing to do")
            return self._result(done["facts"], {"total": time.monotonic() - started}, resumed=True)
        reads = [self.input.at(clip.url) for clip in (inputs.clips[0], inputs.clips[-1])]
        with open_session(client, cluster or ClusterOptions(), reporter, reads, [self.output]) as session:
            if self.clear_output:
                manifest.clear([STEP])
            manifest.remove_strays()
            manifest.begin(STEP, parameters, identity, [f"{SCRATCH}/{STEP}-{uuid.uuid4().hex[:8]}"])
            facts = _Export(session, manifest, inputs, drops, self.options, parameters).run()
        return self._result(facts, {**reporter.seconds, "total": time.monotonic() - started})

    def plan(
        self, client: distributed.Client | str | None = None, *, cluster: ClusterOptions | None = None
    ) -> Iterator[str]:
        """What `run` would do, in lines of text. Everything is checked, scores are counted; nothing is written.

        No cluster is needed: `client` and `cluster` are taken as `run` takes them, and left alone.
        """
        inputs, drops = self._find()
        parameters, identity = self._identity(inputs, drops)
        manifest = self._checked_manifest(parameters, identity)
        yield f"input: {len(inputs.clips):,} clips, {inputs.n_bytes:,} bytes, {len(inputs.metas):,} with metadata"
        if inputs.left_out:
            yield f"  left out: {inputs.left_out:,} videos that are no MP4 files, or hidden"
        if drops is None:
            yield "duplicates: none are dropped, for no scores are given"
        elif drops.scored and drops.eps is not None:
            rows, (duplicates,) = Scores(drops.files, drops.source).count([drops.eps])
            yield f"duplicates: {duplicates:,} of {rows:,} scores reach 1 - eps, eps {drops.eps:g} ({drops.why})"
        else:
            yield f"duplicates: those listed in {len(drops.files):,} files"
        yield f"would write to {self.output}" + (
            ": complete already" if manifest.committed(STEP) and not self.clear_output else ""
        )
        yield (
            f"  layout {self.options.layout}, at most {self.options.samples_per_shard:,} samples and "
            f"{self.options.target_tar_size_mb:g} MiB a shard"
        )

    def _find(self) -> tuple[Inputs, Drops | None]:
        inputs = find_inputs(self.input, self.output, self.options.annotation_version, self.options.with_embeddings)
        return inputs, find_drops(self.dedup, self.eps) if self.dedup else None

    def _identity(self, inputs: Inputs, drops: Drops | None) -> tuple[dict[str, Any], dict[str, Any]]:
        """What the result depends on, as JSON values: parameters, and the files of the input."""
        parameters = {
            "input_clip_path": str(inputs.root),
            "input_semantic_dedup_path": str(self.dedup) if self.dedup else None,
            "semantic_dedup_epsilon": drops and drops.eps,
            "annotation_version": self.options.annotation_version,
            "layout": self.options.layout,
            "samples_per_shard": self.options.samples_per_shard,
            "target_tar_size_mb": self.options.target_tar_size_mb,
            "with_embeddings": inputs.embeddings_folder,
            "shuffle_seed": self.options.shuffle_seed,
        }
        files = [*inputs.clips, *inputs.metas, *inputs.embeddings, *(drops.files if drops else ())]
        return parameters, fingerprint(files)

    def _checked_manifest(self, parameters: Mapping[str, Any], identity: Mapping[str, Any]) -> Manifest:
        """The manifest of the output; refuses a folder of other shards, ours or somebody else's."""
        manifest = Manifest(self.output)
        if not self.clear_output:
            manifest.check(STEP, parameters, identity)
        if self.clear_output or STEP not in manifest.steps:
            self._check_foreign(manifest)
        return manifest

    def _check_foreign(self, manifest: Manifest) -> None:
        ours = manifest.files
        names = (file.url[len(self.output.url.rstrip("/")) + 1 :] for file in self.output.files())
        foreign = [
            name
            for name in names
            if (name in TOP_FILES or re.search(r"\.tar(\.|$)", name) or name.endswith(card.WDINFO))
            and name not in ours
            and not name.startswith(f"{SCRATCH}/")
        ]
        if foreign:
            raise OutputConflictError(
                f"{self.output} holds {len(foreign):,} files of a dataset that semdedup has no record of: "
                f"{', '.join(foreign[:3])}. They are not deleted; move them away, or choose another output path."
            )

    def _result(self, facts: Mapping[str, Any], seconds: Mapping[str, float], resumed: bool = False) -> ShardResult:
        paths = {"dataset": str(self.output)}
        paths |= {name.split(".")[0]: str(self.output / name) for name in (card.INDEX, card.DROPPED, card.README)}
        return ShardResult(facts, {**paths, "manifest": str(self.output / FILE_NAME)}, seconds, resumed)


@dataclass(frozen=True)
class _Plan:
    """How the work is cut into tasks.

    Attributes:
        bounds: where the partitions begin.
        clip_ends: where they end in the file of clips, in bytes.
        scores: row groups that one task scatters, for each.
        embeddings: the same.
    """

    bounds: list[Boundary]
    clip_ends: list[int]
    scores: list[tuple[Groups, ...]]
    embeddings: list[tuple[Groups, ...]]

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> _Plan:
        """The reverse of `dataclasses.asdict`."""
        scores, embeddings = (
            [tuple(Groups(**groups) for groups in task) for task in value[name]] for name in ("scores", "embeddings")
        )
        return cls([tuple(bound) for bound in value["bounds"]], value["clip_ends"], scores, embeddings)


class _Export:
    """One run on a session: each step leaves its results in the scratch folder, where a later run finds them."""

    def __init__(
        self,
        session: Session,
        manifest: Manifest,
        inputs: Inputs,
        drops: Drops | None,
        options: ShardOptions,
        parameters: Mapping[str, Any],
    ) -> None:
        self.session, self.manifest, self.inputs, self.drops = session, manifest, inputs, drops
        self.options, self.parameters = options, parameters
        self.scratch = manifest.scratch(STEP)
        self.final = self.scratch / "output"

    def run(self) -> dict[str, Any]:
        """Join, cut, write, commit; return the facts."""
        with self.manifest.refusing(STEP):
            partitions = self._join(self._plan())
        shards = self._shards(partitions)
        schema = index_schema(self.inputs.embeddings_folder is not None, self.options.layout == COSMOS)
        work = partial(write_shard, Writing(self.inputs.root, self.scratch, self.final, schema))
        journal = self.scratch / "shards"
        found = dict(run_journaled(self.session, "write shards", work, shards, journal, unit="shards"))
        written = [found[number] for number in range(len(shards))]
        tars = [{"samples": result["samples"], **tar} for result in written for tar in result["tars"]]
        facts = self._facts(partitions, written)
        names = [tar["name"] for tar in tars] + self._write_tables(partitions, written, schema)
        if self.options.layout == COSMOS:
            names += self._write_wdinfo(shards, written)
        (self.final / card.MANIFEST).write_bytes(card.manifest(self.parameters, facts, tars))
        (self.final / card.README).write_bytes(card.readme(self.parameters, facts))
        names += [card.MANIFEST, card.README]
        self.manifest.complete(STEP, [(self.final, "")], names, facts)
        return facts

    def _plan(self) -> _Plan:
        """Sort the clips, and cut them and the tables into tasks: once, so that a resumed run cuts alike."""
        place = self.scratch / "plan.json"
        if not place.exists():
            most = EMBEDDED_CLIPS_PER_PARTITION if self.inputs.embeddings_folder else CLIPS_PER_PARTITION
            table = in_order(clip_table(self.inputs), self.options.shuffle_seed)
            drops = self.drops
            plan = _Plan(
                bounds=boundaries(table, most),
                clip_ends=write_chunks(self.scratch / "clips.arrows", cut(table, most)),
                scores=cut_files(drops.files, drops.source, SCORE_BYTES) if drops else [],
                embeddings=cut_files(self.inputs.embeddings, self.inputs.root, EMBEDDING_BYTES),
            )
            place.write_json(asdict(plan))
        return _Plan.from_json(place.read_json())

    def _join(self, plan: _Plan) -> list[dict[str, Any]]:
        """What became of the clips of each partition."""
        drops, seed, bounds = self.drops, self.options.shuffle_seed, tuple(plan.bounds)
        scores, embeddings = self.scratch / "scores", self.scratch / "embeddings"
        score_ends: dict[int, list[int]] = {}
        if drops is not None:
            scatter = Scatter(drops.source, scores, bounds, seed, drops.eps if drops.scored else None)
            score_ends = self._scatter("scores", partial(scatter_scores, scatter), plan.scores)
        others = Scatter(self.inputs.root, embeddings, bounds, seed)
        embedding_ends = self._scatter("embeddings", partial(scatter_embeddings, others), plan.embeddings)
        items = [
            Partition(
                number, clips, pieces_of(scores, score_ends, number), pieces_of(embeddings, embedding_ends, number)
            )
            for number, clips in enumerate(pairwise([0, *plan.clip_ends]))
        ]
        join = Join(
            self.inputs.root,
            self.inputs.metas_folder,
            self.scratch,
            drops is not None and drops.scored,
            self.options.layout == COSMOS,
            self.inputs.embeddings_folder is not None,
        )
        journal = self.scratch / "join"
        found = dict(run_journaled(self.session, "join", partial(join_partition, join), items, journal, unit="parts"))
        partitions = [found[number] for number in range(len(items))]
        self._check_matches(partitions)
        return partitions

    def _scatter(self, what: str, work: Callable[[Any], dict[str, Any]], tasks: Sequence[Any]) -> dict[int, list[int]]:
        """Cut tables into partitions; for each task, where these end in its file."""
        items, journal = list(enumerate(tasks)), self.scratch / f"read_{what}"
        found = run_journaled(self.session, f"read {what}", work, items, journal, unit="tasks")
        return {position: result["ends"] for position, result in found}

    def _check_matches(self, partitions: Sequence[Mapping[str, Any]]) -> None:
        """Tell of scores that belong to no clip; refuse scores without rows, and those of which none does."""
        if self.drops is None:
            return
        rows = sum(result["rows"] for _, result in read_journal(self.scratch / "read_scores"))
        what = "scores" if self.drops.scored else "ids to drop"
        if self.drops.scored and not rows:
            raise InputError(f"no rows in the {len(self.drops.files)} tables of scores in {self.drops.source}")
        strays = sum(found["unmatched"] for found in partitions)
        if not strays:
            return
        examples = ", ".join([repr(name) for found in partitions for name in found["examples"]][:3])
        if strays == rows:
            raise InputError(
                f"none of the {rows:,} {what} in {self.drops.source} belongs to a clip in {self.inputs.root}: ids "
                f"there are {examples}. Ids of clips are the names of their files, without ending; give the result of "
                "the dedup of these clips."
            )
        self.session.reporter.say(f"{strays:,} of {rows:,} {what} belong to no clip: {examples}")

    def _facts(self, partitions: Sequence[Mapping[str, Any]], written: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Sum up partitions and shards. Raises `IntegrityError` where clips were lost or invented."""
        dropped: Counter[str] = Counter()
        for found in partitions:
            dropped.update(found["dropped"])

        def total(name: str) -> int:
            return sum(found[name] for found in partitions)

        samples = sum(result["samples"] for result in written)
        if not len(self.inputs.clips) == total("clips") == samples + dropped.total() or samples != total("kept"):
            raise IntegrityError(
                f"{len(self.inputs.clips)} clips went in, {total('kept')} were kept and {dropped.total()} dropped, but "
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
            "without_embedding": total("without_embedding") if self.inputs.embeddings_folder else 0,
            "unmatched": total("unmatched"),
            "left_out": self.inputs.left_out,
            "eps": self.drops and self.drops.eps,
            "eps_from": self.drops and self.drops.why,
        }

    def _shards(self, partitions: Sequence[Mapping[str, Any]]) -> list[Shard]:
        """Cut the samples into shards, by their sizes alone."""
        files = [sizes_file(self.scratch, number) for number in range(len(partitions))]
        arrays = list(ahead(load_array, files, REQUESTS_AHEAD))
        sizes, bins = [array[0] for array in arrays], [array[1] for array in arrays]
        binned = self.options.layout == COSMOS
        shards: list[Shard] = []
        for chosen in range(len(BINS)) if binned else (0,):
            found = rows_of_shards(sizes, bins, chosen, self.options.samples_per_shard, self.options.most_bytes)
            for i, (rows, n_bytes) in enumerate(found):
                folder = bin_folder(self.options.annotation_version, chosen)
                video, metas = (
                    f"{folder}/{kind}/{part_name(i)}" if binned else flat_name(i) for kind in (VIDEO, METAS)
                )
                ends = tuple(tuple(partitions[part.partition]["ends"]) for part in rows)
                shards.append(Shard(len(shards), (video, metas), chosen, rows, ends, n_bytes))
        return shards

    def _write_tables(
        self, partitions: Sequence[Mapping[str, Any]], written: Sequence[Mapping[str, Any]], schema: pa.Schema
    ) -> list[str]:
        """Write the index and the table of dropped clips; return their names."""
        index = (
            chunk
            for i, result in enumerate(written)
            for chunk in chunks_of(index_file(self.scratch, i), result["index_ends"])
        )
        write_batches(self.final / card.INDEX, schema, joined(index, schema))
        dropped = (
            chunk
            for i, found in enumerate(partitions)
            for chunk in chunks_of(dropped_file(self.scratch, i), found["dropped_ends"])
        )
        write_batches(self.final / card.DROPPED, DROPPED, joined(dropped, DROPPED))
        return [card.INDEX, card.DROPPED]

    def _write_wdinfo(self, shards: Sequence[Shard], written: Sequence[Mapping[str, Any]]) -> list[str]:
        """Write what loaders of cosmos-curate's tree begin with; return the names."""
        version, names = self.options.annotation_version, []
        for chosen in sorted({shard.bin for shard in shards}):
            folder = bin_folder(version, chosen)
            here = [shard for shard in shards if shard.bin == chosen]
            tars = [shard.tars[0].removeprefix(f"{folder}/{VIDEO}/") for shard in here]
            samples = [written[shard.number]["samples"] for shard in here]
            names.append(f"{folder}/{card.WDINFO}")
            (self.final / names[-1]).write_json(wdinfo(self.manifest.root, folder, tars, samples))
        listed = "".join(f"{self.manifest.root / name}\n" for name in names)
        names.append(f"{version}/{card.WDINFO_LIST}")
        (self.final / names[-1]).write_bytes(listed.encode())
        return names
