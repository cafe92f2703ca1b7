"""The comparison of two sets without clusters, as a stage: from the files of A and of B to tables of scores.

Every row of B is compared with every row of A, so that there is no edge of a cluster at which a match could be missed.
A block of B is written as a cluster of the usual layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import pyarrow as pa

from semdedup.compute.session import Session
from semdedup.dedup import sizes
from semdedup.dedup.input.facts import FileFacts, inspect_files
from semdedup.dedup.input.files import InputOptions, find_files
from semdedup.dedup.input.partitions import Partition, cut_partitions
from semdedup.dedup.input.scan import Sampling, Workspace, check_ids_unique, expected_length, scan_partition
from semdedup.dedup.input.schema import InputSchema, check_file_schema, unify_schemas
from semdedup.dedup.leaks.tasks import Crossing, compare_span, lay_out_block, write_block
from semdedup.dedup.names import (
    AGAINST,
    KMEANS,
    PAIRWISE,
    QUARANTINE,
    SCORES_FILE,
    Destination,
    destination_of,
    join,
)
from semdedup.dedup.pipeline import Stage
from semdedup.errors import InputError, IntegrityError, OutputConflictError, ParameterError
from semdedup.runs.journal import run_journaled
from semdedup.runs.record import Manifest, fingerprint
from semdedup.storage.location import FileInfo, Location, Paths, locations_of, without_storage_options
from semdedup.storage.tables import EMBEDDER, LOW_INFORMATION

EMBEDDINGS_FOLDER = "_embd_parquet"

ID_HASH_SEED = 0
NO_SAMPLE = Sampling(ID_HASH_SEED, threshold=1, n_parts=1)  # hashes below 1: no row, but for a chance of n in 2**64


class Embeddings(NamedTuple):
    """One of the two sets: its files, their storage, and the name to tell the user."""

    files: Sequence[FileInfo]
    source: Location
    name: str


def compare_sets(
    session: Session, a: Embeddings, b: Embeddings, fields: InputOptions, destination: Destination
) -> dict[str, Any]:
    """Score each row of B against all rows of A and write the tables, resuming where an earlier run stopped.

    The manifest of the destination must have the step on record as begun. Time: 2·n_A·n_B·d operations, B is read
    twice, A once for each block of B.

    Returns:
        Facts: rows scored, rows of B quarantined by reason, rows of A and how many of them were left out.
    """
    manifest = Manifest(destination.root)
    scratch = manifest.scratch(PAIRWISE)
    plan_file = scratch / "plan.json"
    with manifest.refusing(PAIRWISE):
        a_facts, b_facts = _inspect(session, a, fields), _inspect(session, b, fields)
        schema = check_sets(a_facts, b_facts, a.name, b.name, fields)
        a_values, b_values = (sum(file.n_values for file in facts) for facts in (a_facts, b_facts))
        b_rows = sum(file.n_rows for file in b_facts)
        if not plan_file.exists():
            n_bytes = sizes.most_bytes_per_task(session.task_memory)  # a fair share is for `count_tasks` to find
            n_blocks, n_spans = sizes.count_tasks(session.n_slots, a_values, b_values, b_rows, n_bytes)
            plan_file.write_json({"task_bytes": n_bytes, "n_blocks": n_blocks, "n_spans": n_spans})
        plan = plan_file.read_json()
        blocks = cut_partitions(b_facts, b_values // plan["n_blocks"] + 1, None)
        spans = cut_partitions(a_facts, a_values // plan["n_spans"] + 1, None)
        work_a = Workspace(schema, a.source, scratch / "a", {})
        work_b = Workspace(schema, b.source, scratch / "b", {})
        lengths, n_hashes = _scan(session, work_b, blocks)
        dim = _length_of(b.name, lengths, fields.embedding_dim)
        # A file whose footer tells d elements a row on average is not read for its lengths: should they differ all the
        # same, its rows are counted and left out as they are compared.
        even = {file.source: Counter({dim: file.n_rows}) for file in a_facts if file.n_values == dim * file.n_rows}
        odd = cut_partitions([file for file in a_facts if file.source not in even], plan["task_bytes"] // 4, None)
        dim_a = _length_of(a.name, {**even, **_scan(session, work_a, odd)[0]}, fields.embedding_dim)
        if dim != dim_a:
            raise InputError(
                f"the embeddings of {a.name} have length {dim_a}, those of {b.name} have length {dim}; embeddings of "
                "different models cannot be compared: embed one of the sets again"
            )
        check_ids_unique(session, work_b, blocks, ID_HASH_SEED, n_hashes)
    task = Crossing(
        a=work_a,
        b=work_b,
        dim=dim,
        chunk_rows=max(1, plan["task_bytes"] // sizes.CHUNKS_A_BLOCK // (4 * dim)),
        scratch=scratch,
        target=scratch / "output",
        quarantine=scratch / "quarantine",
        backend=session.backend,
        write_kwargs=without_storage_options(destination.write_kwargs),
    )

    def run(name: str, function: Any, items: Sequence[Any], unit: str) -> list[dict[str, Any]]:
        done = run_journaled(session, name, partial(function, task), items, scratch / name.replace(" ", "-"), unit=unit)
        return [result for _, result in sorted(done, key=lambda pair: pair[0])]

    laid_out = run("lay out", lay_out_block, list(enumerate(blocks)), "blocks")
    tasks = [(block, number, span) for block in range(len(blocks)) for number, span in enumerate(spans)]
    seen = run("compare", compare_span, tasks, "tasks")[
        : len(spans)
    ]  # those of the first block: each has seen all of A
    left_out = sum((Counter(result["left_out"]) for result in seen), Counter[str]())
    a_rows = sum(result["rows"] for result in seen)
    if a_rows == sum(left_out.values()):
        with manifest.refusing(PAIRWISE):
            raise InputError(f"no row of {a.name} can be compared: {told(left_out)}")
    written = run("write", write_block, [(block, len(spans)) for block in range(len(blocks))], "blocks")
    quarantined = sum((Counter(result["quarantined"]) for result in laid_out), Counter[str]())
    n_scored = sum(result["rows"] for result in written)
    if (a_rows, n_scored + sum(quarantined.values())) != (sum(file.n_rows for file in a_facts), b_rows):
        raise IntegrityError(
            f"{b_rows} rows of B stand in the files, but {n_scored} were scored and {quarantined} quarantined; "
            f"{a_rows} rows of A were seen. Did the input change during the run?"
        )
    listed = [join(destination.folder, name) for result in written for name in result["files"]]
    listed += [join(QUARANTINE, name) for result in laid_out for name in result["quarantine_files"]]
    facts = {
        "rows": n_scored,
        "quarantined": dict(quarantined),
        "clusters": len(blocks),
        "embedding_dim": dim,
        LOW_INFORMATION: sum(result[LOW_INFORMATION] for result in laid_out),
        "rows_of_a": a_rows,
        "left_out_of_a": dict(left_out),
    }
    moves = [(task.target, destination.folder), (task.quarantine, QUARANTINE)]
    manifest.complete(PAIRWISE, moves, listed, facts)
    return facts


def _inspect(session: Session, found: Embeddings, fields: InputOptions) -> list[FileFacts]:
    """Facts of all files that have rows, in the order of the files."""
    located = [(found.source.at(file.url), file.url) for file in found.files]
    groups = [located[i : i + sizes.FILES_PER_INSPECTION] for i in range(0, len(located), sizes.FILES_PER_INSPECTION)]
    inspect = partial(inspect_files, fields.embedding_field, False)
    results = dict(session.run("inspect files", inspect, groups, unit="groups"))
    facts = [file for position in sorted(results) for file in results[position][0] if file.n_rows]
    if not facts:
        raise InputError(f"no rows in {found.name}: {len(found.files)} files, all without rows")
    return facts


def check_sets(
    a: Sequence[FileFacts], b: Sequence[FileFacts], a_name: str, b_name: str, fields: InputOptions
) -> InputSchema:
    """The columns of both sets, after checking that they can be compared.

    Raises:
        BadFileError: a column is missing or of the wrong type, or ids are text here and numbers there.
        InputError: the sets were embedded by different embedders.
    """
    embedders: dict[str, str] = {}
    for file in {file.schema: file for file in (*a, *b)}.values():
        schema = pa.ipc.read_schema(pa.py_buffer(file.schema))
        check_file_schema(schema, file.source, fields)
        embedder = (schema.metadata or {}).get(EMBEDDER)
        if embedder is not None:
            embedders.setdefault(embedder.decode(errors="replace"), file.source)
    if len(embedders) > 1:
        found = "; ".join(f"{source} is of {name!r}" for name, source in embedders.items())
        raise InputError(
            f"the embeddings of {a_name} and {b_name} are of different embedders and cannot be compared: {found}. "
            "Embed one of the sets again: semdedup embed."
        )
    return unify_schemas([*a, *b], fields)


def _scan(
    session: Session, work: Workspace, partitions: Sequence[Partition]
) -> tuple[dict[str, Counter[int]], list[int]]:
    """How many rows of each file have which length, and the number of ids of each partition, hashed for later."""
    scan = partial(scan_partition, work, NO_SAMPLE, False)
    items = list(enumerate(partitions))
    found = dict(run_journaled(session, "scan", scan, items, work.scratch / "scan", unit="partitions"))
    lengths: dict[str, Counter[int]] = {}
    for result in found.values():
        for source, pairs in result["lengths"].items():
            lengths.setdefault(source, Counter()).update(dict(map(tuple, pairs)))
    return lengths, [found[position]["hashes"] for position in range(len(items))]


def _length_of(name: str, lengths: Mapping[str, Mapping[int, int]], embedding_dim: int | None) -> int:
    if not any(length for counts in lengths.values() for length in counts):
        raise InputError(f"{name} holds no embeddings: every one of them is null or empty")
    return expected_length(lengths, embedding_dim)


def told(counts: Mapping[str, int]) -> str:
    """Counts by reason, in words."""
    return ", ".join(f"{count:,} {reason}" for reason, count in sorted(counts.items()))


@dataclass
class CrossStage(Stage):
    """Score each row of a set B against all rows of a set A: tables ``cluster_{k}.parquet``, one a block of B.

    `id` is of B, `max_id` of A. The parameters are those of `find_leaks`; `input_path` is B, `against` is A.

    Example:
        >>> CrossStage(input_path="eval/", against="train/", output_path="out/scores").run()

    Cost: 2·n_A·n_B·d operations; memory of a task as in `compare_span`.
    """

    against: Paths | None = None
    input_path: Paths | None = None
    output_path: str | None = None
    id_field: str = "id"
    embedding_field: str = "embedding"
    embedding_dim: int | None = None
    read_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)  # they may hold credentials
    write_kwargs: Mapping[str, Any] | None = field(default=None, repr=False)
    clear_output: bool = False
    verbose: bool = True
    folder: str = ""

    def __post_init__(self) -> None:
        self.step = PAIRWISE
        self.fields = InputOptions(self.id_field, self.embedding_field, self.embedding_dim)

    def source(self) -> Sequence[Location]:
        """Where B is."""
        return locations_of(self.input_path, self.read_kwargs)

    def destination(self) -> Destination:
        """Where it writes."""
        return destination_of(self.output_path, self.folder, self.write_kwargs)

    def parameters(self) -> dict[str, Any]:
        """What its result depends on beside B: A, among others."""
        found = {f"{AGAINST}_{name}": value for name, value in fingerprint(self.find_against().files).items()}
        return {
            "id_field": self.id_field,
            "embedding_field": self.embedding_field,
            "embedding_dim": self.embedding_dim,
            **found,
        }

    def find_input(self, sources: Sequence[Location]) -> list[FileInfo]:
        """The files of B."""
        return find_embeddings(sources, [self.destination().root])

    def find_against(self) -> Embeddings:
        """The files of A."""
        sources = locations_of(self.against, self.read_kwargs)
        if not sources:
            raise ParameterError("the set to compare with is not given: name the embeddings of A")
        return Embeddings(find_embeddings(sources, [self.destination().root]), sources[0], _names(sources))

    def readable(self) -> list[Location]:
        """Files of both sets."""
        a = self.find_against()
        return [*super().readable(), *(a.source.at(file.url) for file in (a.files[0], a.files[-1]))]

    def is_result(self, name: str) -> bool:
        """Whether a file of this name is a table of scores."""
        return bool(SCORES_FILE.search(name))

    def check_destination(self, manifest: Manifest) -> None:
        """Refuse a folder that holds a dedup: its clusters and these scores would pass for one result."""
        if KMEANS in manifest.steps:
            raise OutputConflictError(f"{manifest.root} holds the result of a dedup; choose another output path")
        super().check_destination(manifest)

    def check_schema(self, files: Sequence[FileInfo], source: Location) -> None:
        """Refuse what the footers of the first files of both sets show to be wrong."""
        a, b = self.find_against(), self._embeddings(files, source)
        check_sets(self._facts_of_first(a), self._facts_of_first(b), a.name, b.name, self.fields)

    def _facts_of_first(self, found: Embeddings) -> list[FileFacts]:
        located = [(found.source.at(file.url), file.url) for file in found.files[: sizes.FILES_CHECKED_FIRST]]
        return [file for file in inspect_files(self.embedding_field, False, located)[0] if file.n_rows]

    def work(self, session: Session, files: Sequence[FileInfo], source: Location) -> dict[str, Any]:
        """Compare the sets."""
        a, b = self.find_against(), self._embeddings(files, source)
        return compare_sets(session, a, b, self.fields, self.destination())

    def _embeddings(self, files: Sequence[FileInfo], source: Location) -> Embeddings:
        return Embeddings(files, source, _names(self.source() or [source]))


def _names(sources: Sequence[Location]) -> str:
    return ", ".join(map(str, sources[:3])) + ", …" * (len(sources) > 3)


def find_embeddings(paths: Sequence[Location], outputs: Sequence[Location] = ()) -> list[FileInfo]:
    """The Parquet files of embeddings: files, folders, patterns, and outputs of `split`, which hold one such folder.

    Raises:
        InputError: no such path, no files, or embeddings of several embedders.
    """
    return find_files([_embeddings_folder(path) for path in paths], "parquet", outputs)


def _embeddings_folder(path: Location) -> Location:
    """The folder ``*_embd_parquet`` in the output of `split`, or the path itself where it holds none."""
    if not path.is_dir():
        return path
    with path.errors("list"):
        entries = path.fs.ls(path.url, detail=False)
    names = sorted(entry.rstrip("/").rsplit("/", 1)[-1] for entry in entries)
    names = [name for name in names if name.endswith(EMBEDDINGS_FOLDER)]
    if len(names) > 1:
        raise InputError(
            f"{path} holds the embeddings of several embedders: {', '.join(names)}; name one of these folders"
        )
    return path / names[0] if names else path
