"""The comparison of two sets without clusters: from the files of A and of B to tables of scores.

Every row of B is compared with every row of A, so that there is no edge of a cluster at which a match could be missed.
A block of B is written as a cluster of the usual layout.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from semdedup.compute.session import Session
from semdedup.dedup import sizes
from semdedup.dedup.input.facts import Counted, FileFacts, inspect_all
from semdedup.dedup.input.partitions import Partition, cut_partitions
from semdedup.dedup.input.planned import planned_bytes
from semdedup.dedup.input.scan import ID_HASH_SEED, Workspace, check_ids_unique, expected_length, scan_lengths
from semdedup.dedup.input.schema import casts_in_words
from semdedup.dedup.leaks.sets import Embeddings, check_sets
from semdedup.dedup.leaks.tasks import LeakTask, compare_span, lay_out_block, write_block
from semdedup.dedup.names import QUARANTINE, Destination, below
from semdedup.dedup.options import InputOptions
from semdedup.display import format_counts
from semdedup.errors import InputError, IntegrityError
from semdedup.runs.run import Run
from semdedup.storage.location import without_storage_options
from semdedup.storage.tables import LOW_INFORMATION


class Prepared(NamedTuple):
    """What is known of the sets before rows are compared: how to read them, blocks of B, spans of A, sizes."""

    a: Workspace
    b: Workspace
    blocks: Sequence[Partition]
    spans: Sequence[Partition]
    dim: int
    task_bytes: int
    a_rows: int
    b_rows: int


def compare_sets(
    run: Run, a: Embeddings, b: Embeddings, fields: InputOptions, destination: Destination
) -> dict[str, Any]:
    """Score each row of B against all rows of A and write the tables, resuming where an earlier run stopped.

    Time: 2·n_A·n_B·d operations, B is read
    twice, A once for each block of B.

    Returns:
        Facts: rows scored, rows of B quarantined by reason, rows of A and how many of them were left out.
    """
    with run.refusing():
        found = _prepare(run, a, b, fields)
    task = LeakTask(
        a=found.a,
        b=found.b,
        dim=found.dim,
        chunk_rows=sizes.rows_per_task(found.task_bytes // sizes.CHUNKS_A_BLOCK, found.dim),
        scratch=run.scratch,
        target=below(run.final, destination.folder),
        quarantine=run.final / QUARANTINE,
        backend=run.session.backend,
        write_kwargs=without_storage_options(destination.write_kwargs),
    )

    def each(name: str, function: Any, items: Sequence[Any], unit: str) -> list[dict[str, Any]]:
        return run.results(name, partial(function, task), items, unit=unit)

    blocks, spans = found.blocks, found.spans
    laid_out = each("lay out", lay_out_block, list(enumerate(blocks)), "blocks")
    tasks = [(block, number, span) for block in range(len(blocks)) for number, span in enumerate(spans)]
    seen = each("compare", compare_span, tasks, "tasks")[: len(spans)]  # the first block's tasks have seen all of A
    left_out = sum((Counter(result["left_out"]) for result in seen), Counter[str]())
    a_rows = sum(result["rows"] for result in seen)
    if a_rows == sum(left_out.values()):
        with run.refusing():
            raise InputError(f"no row of {a.name} can be compared: {format_counts(left_out)}")
    written = each("write", write_block, [(block, len(spans)) for block in range(len(blocks))], "blocks")
    return _balanced_facts(found, laid_out, written, a_rows, left_out)


def _prepare(run: Run, a: Embeddings, b: Embeddings, fields: InputOptions) -> Prepared:
    """Look at both sets, refuse what cannot be compared, and cut them into blocks and spans."""
    session, scratch = run.session, run.scratch
    a_facts, b_facts = _facts_of(session, a, fields), _facts_of(session, b, fields)
    schema = check_sets(a_facts, b_facts, a.name, b.name, fields)
    for words in casts_in_words([*a_facts, *b_facts], fields):
        session.reporter.say(words)
    a_bytes, b_bytes = (sum(file.n_bytes for file in facts) for facts in (a_facts, b_facts))
    a_rows, b_rows = (sum(file.n_rows for file in facts) for facts in (a_facts, b_facts))
    n_bytes = sizes.most_bytes_per_task(session.task_memory)  # a fair share is for `count_tasks` to find
    (task_bytes,) = planned_bytes(run, scratch / "plan.json", n_bytes)
    tasks_file = scratch / f"tasks-{task_bytes}.json"
    if not tasks_file.exists():
        found = sizes.count_tasks(session.n_slots, a_bytes // 4, b_bytes // 4, b_rows, task_bytes)
        tasks_file.write_json(found, forced=True)
    n_blocks, n_spans = tasks_file.read_json()
    blocks = cut_partitions(b_facts, b_bytes // n_blocks + 1, None)
    spans = cut_partitions(a_facts, a_bytes // n_spans + 1, None)
    work_a = Workspace(schema.below(a.files), a.source, scratch / "a", {})
    work_b = Workspace(schema.below(b.files), b.source, scratch / "b", {})
    lengths, hashes = scan_lengths(run, f"scan {work_b.scratch.name}", work_b, blocks)
    dim = _length_of(b.name, lengths, fields.embedding_dim)
    # A file whose footer tells d elements a row on average is not read for its lengths: should they differ all the
    # same, its rows are counted and left out as they are compared.
    even = {file.source: Counter({dim: file.n_rows}) for file in a_facts if file.n_values == dim * file.n_rows}
    odd = cut_partitions([file for file in a_facts if file.source not in even], task_bytes, None)
    lengths_a, _ = scan_lengths(run, f"scan {work_a.scratch.name}", work_a, odd)
    dim_a = _length_of(a.name, {**even, **lengths_a}, fields.embedding_dim)
    if dim != dim_a:
        raise InputError(
            f"the embeddings of {a.name} have length {dim_a}, those of {b.name} have length {dim}; embeddings of "
            "different models cannot be compared: embed one of the sets again"
        )
    check_ids_unique(session, work_b, blocks, ID_HASH_SEED, hashes)
    return Prepared(work_a, work_b, blocks, spans, dim, task_bytes, a_rows, b_rows)


def _balanced_facts(
    found: Prepared,
    laid_out: Sequence[Mapping[str, Any]],
    written: Sequence[Mapping[str, Any]],
    a_rows: int,
    left_out: Mapping[str, int],
) -> dict[str, Any]:
    """The facts of the step.

    Raises:
        IntegrityError: not every row of both sets is among them.
    """
    quarantined = sum((Counter(result["quarantined"]) for result in laid_out), Counter[str]())
    n_scored = sum(result["rows"] for result in written)
    if (a_rows, n_scored + sum(quarantined.values())) != (found.a_rows, found.b_rows):
        raise IntegrityError(
            f"{found.b_rows} rows of B stand in the files, but {n_scored} were scored and {quarantined} quarantined; "
            f"{a_rows} rows of A were seen. Did the input change during the run?"
        )
    return {
        "rows": n_scored,
        "quarantined": dict(quarantined),
        "clusters": len(found.blocks),
        "embedding_dim": found.dim,
        LOW_INFORMATION: sum(result[LOW_INFORMATION] for result in laid_out),
        "rows_of_a": a_rows,
        "left_out_of_a": dict(left_out),
    }


def _facts_of(session: Session, found: Embeddings, fields: InputOptions) -> list[FileFacts]:
    """Facts of all files that have rows, in the order of the files."""
    located = [(found.source.at(file.url), file.url) for file in found.files]
    every, _ = inspect_all(session, located, Counted.of(fields))
    facts = [file for file in every if file.n_rows]
    if not facts:
        raise InputError(f"no rows in {found.name}: {len(found.files)} files, all without rows")
    return facts


def _length_of(name: str, lengths: Mapping[str, Mapping[int, int]], embedding_dim: int | None) -> int:
    if not any(length for counts in lengths.values() for length in counts):
        raise InputError(f"{name} holds no embeddings: every one of them is null or empty")
    return expected_length(lengths, embedding_dim)
