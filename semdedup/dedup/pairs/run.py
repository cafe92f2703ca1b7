"""Every pair of an input within eps: from its files to tables of pairs.

Rows are compared with all others, wherever they lie: there is no cluster at whose edge a pair could be missed. Where
they are clustered, margins rule out most pairs of clusters; everywhere, short rows rule out most pairs of rows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

from semdedup.dedup import sizes
from semdedup.dedup.compare.groups import Cluster
from semdedup.dedup.compare.run import find_clusters, pack_groups
from semdedup.dedup.compare.spans import blocks_per_task, cut_evenly
from semdedup.dedup.compare.table import forest_schema
from semdedup.dedup.input.facts import Counted, FileFacts, inspect_all, inspect_first
from semdedup.dedup.input.found import top_of
from semdedup.dedup.input.partitions import Partition, Slice, cut_partitions, partition_label
from semdedup.dedup.input.planned import planned_bytes
from semdedup.dedup.input.scan import ID_HASH_SEED, Workspace, check_ids_unique, expected_length, scan_lengths
from semdedup.dedup.input.schema import casts_in_words, unify_schemas
from semdedup.dedup.input.usable import usable_files
from semdedup.dedup.names import PAIRS
from semdedup.dedup.options import PairsOptions
from semdedup.dedup.pairs.source import Search, checked_fields
from semdedup.dedup.pairs.tasks import (
    BLOCKS_SAMPLED,
    ROWS_SAMPLED,
    Block,
    PairsTask,
    find_in_span,
    fit_axes,
    lay_out_block,
    most_matched,
)
from semdedup.dedup.threshold.rule import least_score
from semdedup.errors import InputError, IntegrityError
from semdedup.runs.run import Run
from semdedup.storage.location import FileInfo, Location, without_storage_options
from semdedup.storage.tables import LOW_INFORMATION, write_table


class Found(NamedTuple):
    """What is known of the input before rows are compared: how to read it, its blocks, the length, its rows, and most
    rows of a block."""

    work: Workspace
    blocks: Sequence[Block]
    dim: int
    n_rows: int
    block_rows: int


def list_pairs(
    run: Run,
    files: Sequence[FileInfo],
    source: Location,
    search: Search,
    kwargs: tuple[Mapping[str, Any] | None, Mapping[str, Any] | None],
) -> dict[str, Any]:
    """Write every pair within eps, resuming where an earlier run stopped. `kwargs` are for reading and for writing.

    Returns:
        Facts: pairs; rows compared, of low information, quarantined by reason; what bounds left; the plan in words.

    Raises:
        InputError: there are more pairs than `max_pairs`.
    """
    read_kwargs, write_kwargs = map(without_storage_options, kwargs)
    with run.refusing():
        found = _prepare(run, files, source, search, read_kwargs)
    options = search.options
    task = PairsTask(
        work=found.work,
        strategy=search.strategy,
        dim=found.dim,
        least=least_score(options.eps),
        max_pairs=options.max_pairs,
        sampled=max(1, ROWS_SAMPLED // min(len(found.blocks), BLOCKS_SAMPLED)),
        final=run.final,
        backend=run.session.backend,
        write_kwargs=write_kwargs,
    )
    laid_out = run.results("lay out", partial(lay_out_block, task), found.blocks, unit="blocks", label=_label)
    blocks = [block for block, result in zip(found.blocks, laid_out, strict=True) if result["rows"]]
    sampled = [block.number for block in blocks[:: max(1, -(-len(blocks) // BLOCKS_SAMPLED))]]
    width = run.results("principal axes", partial(fit_axes, task), [sampled])[0]["width"] if blocks else 0
    n_pairs, counts = _find(run, task, blocks, options, blocks_per_task(len(blocks), found.block_rows, found.dim))
    if not n_pairs:  # a reader finds the columns
        with run.noting():
            empty = forest_schema(found.work.schema.id).empty_table()
            write_table(run.final / PAIRS / "part-0.parquet", empty, write_kwargs)
    quarantined = sum((Counter(result["quarantined"]) for result in laid_out), Counter[str]())
    compared, low = (sum(result[name] for result in laid_out) for name in ("rows", LOW_INFORMATION))
    if compared + low + sum(quarantined.values()) != found.n_rows:
        raise IntegrityError(
            f"{found.n_rows} rows stand in the files, but {compared} were compared, {low} are of low information and "
            f"{quarantined} were quarantined. Did the input change during the run?"
        )
    return {
        "pairs": n_pairs,
        "rows": compared,
        LOW_INFORMATION: low,
        "quarantined": dict(quarantined),
        "counts": counts,
        "plan": _plan_in_words(len(blocks), width, found.dim, search.clustered, counts),
    }


def _prepare(
    run: Run, files: Sequence[FileInfo], source: Location, search: Search, read_kwargs: Mapping[str, Any]
) -> Found:
    """Look at the input, refuse what cannot be compared, and cut it into blocks."""
    session, scratch = run.session, run.scratch
    facts = _facts_of(run, files, source, search)
    fields = checked_fields(facts, search, top_of(files))
    n_rows, n_bytes, others = (
        sum(getattr(file, name) for file in facts) for name in ("n_rows", "n_bytes", "other_bytes")
    )
    row_bytes = n_bytes / n_rows
    n_bytes = sizes.bytes_per_task(session.n_slots, session.task_memory, n_bytes)
    (task_bytes,) = planned_bytes(run, scratch / "plan.json", n_bytes)
    for words in casts_in_words(facts, fields):
        session.reporter.say(words)
    work = Workspace(unify_schemas(facts, fields, top_of(files)).below(files), source, scratch, read_kwargs)
    partitions = cut_partitions(facts, task_bytes, None)
    lengths, hashes = scan_lengths(run, "scan", work, partitions)
    dim = expected_length(lengths, fields.embedding_dim)
    check_ids_unique(session, work, partitions, ID_HASH_SEED, hashes)
    block_rows = sizes.rows_compared(task_bytes, dim, others / n_rows)
    block_bytes = min(task_bytes, int(block_rows * row_bytes))
    every: list[tuple[Partition, ...]] = [(part,) for part in cut_partitions(facts, block_bytes, None)]
    if search.clustered:
        every = _cluster_parts(find_clusters(files, facts), facts, block_rows)
    blocks = [Block(number, parts, search.clustered) for number, parts in enumerate(every)]
    return Found(work, blocks, dim, n_rows, block_rows)


def _facts_of(run: Run, files: Sequence[FileInfo], source: Location, search: Search) -> list[FileFacts]:
    """Facts of all files that have rows."""
    if not search.clustered:
        wanted = replace(search.fields, metadata_fields=search.strategy.columns)
        return usable_files(run, files, source, wanted)[0]
    first = inspect_first(files, source, Counted.of(search.fields))
    fields = checked_fields(first, search, top_of(files))
    located = [(source.at(file.url), file.url) for file in files]
    every, _ = inspect_all(run.session, located, Counted.of(fields, fields.carried))
    facts = [file for file in every if file.n_rows]
    if not facts:
        raise InputError(f"no rows in the clusters of {source}")
    return facts


def _cluster_parts(
    clusters: Sequence[Cluster], facts: Sequence[FileFacts], rows_per_task: int
) -> list[tuple[Partition, ...]]:
    """Groups of clusters, each cluster a part; a cluster that is larger than a task is cut into groups of its own."""
    small, large = pack_groups(clusters, sizes.TaskRows(rows_per_task, rows_per_task))
    groups = [
        tuple(
            tuple(Slice(url, url, 0, n) for url, n in zip(cluster.urls, cluster.rows, strict=True)) for cluster in group
        )
        for group in small
    ]
    by_url = {file.url: file for file in facts}
    for cluster in large:
        # of rows that take the same
        even = [replace(by_url[url], n_values=by_url[url].n_rows, other_bytes=0) for url in cluster.urls]
        most_bytes = sizes.held_bytes(rows_per_task, rows_per_task)
        groups += [(partition,) for partition in cut_partitions(even, most_bytes, None)]
    return groups


def _spans(blocks: Sequence[Block], most: int) -> Iterator[tuple[int, Block, tuple[Block, ...]]]:
    """Each block with itself and all later ones, at most so many in a task; and the number of pairs before."""
    number, bare = 0, [replace(block, parts=()) for block in blocks]
    for i, block in enumerate(blocks):
        for first, last in cut_evenly(len(blocks) - i, most):
            yield number, block, tuple(bare[i + first : i + last])
            number += last - first


def _find(
    run: Run, task: PairsTask, blocks: Sequence[Block], options: PairsOptions, most: int
) -> tuple[int, dict[str, int]]:
    """Compare all blocks, a task one with so many at most; how many pairs there are, and what bounds left."""
    jobs = {str(item[0]): item for item in _spans(blocks, most)}
    n_pairs, counts = 0, Counter[str]()
    with run.refusing():  # more pairs than that: what was found goes, and another eps finds nothing in its way
        for entry in run.each("compare spans", partial(find_in_span, task), jobs, unit="spans of blocks", label=_label):
            n_pairs += entry.result["pairs"]
            counts.update(entry.result["counts"])
            if entry.result["stopped"] or n_pairs > options.max_pairs:
                number, row = max((most_matched(task, block.number) for block in blocks), key=lambda most: most[0])
                raise too_many(
                    options,
                    f"{n_pairs:,} were found before the run stopped. Of these most are of the id {row!r}: {number:,}. "
                    f"Nothing was written to {run.root}.",
                )
    return n_pairs, dict(counts)


def too_many(options: PairsOptions, found: str) -> InputError:
    """The refusal of an input that has more pairs than are wanted."""
    return InputError(
        f"more than {options.max_pairs:,} pairs (max_pairs) lie within eps {options.eps:g}: {found} Give a smaller "
        "eps, or a larger max_pairs (--max-pairs). Where copies of one clip are that many, drop them first: semdedup "
        "dedup."
    )


def _plan_in_words(n_blocks: int, width: int, dim: int, clustered: bool, counts: Mapping[str, int]) -> str:
    """How pairs were ruled out, for the result."""
    what = f"{width - 1} of {dim} principal coordinates and the length of the rest" if width else "whole rows"
    by_margin = clustered and counts.get("blocked", 0) < counts.get("pairs", 0)
    return f"{n_blocks:,} blocks, products of {what}" + ", where margins of clusters leave a pair" * by_margin


def _label(item: Any) -> str:
    """What a task on blocks is called where a worker dies of it."""
    blocks = [item] if isinstance(item, Block) else [block for block in item if isinstance(block, Block)]
    return "; ".join(
        partition_label((block.number, tuple(s for part in block.parts for s in part))) for block in blocks
    )
