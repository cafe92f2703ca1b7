"""A small input with known near-duplicates, and the whole way through it on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.compute import ClusterOptions
from semdedup.dedup.exact import unit_rows
from semdedup.dedup.result import DedupResult
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.errors import InputError
from semdedup.storage import Location
from semdedup.tables import embedding_column, read_table, write_table

N_ROWS, N_COPIES, DIM, N_TOPICS, N_FILES = 20_000, 2_000, 256, 200, 8
EPS = 0.01
"""Copies differ from their originals by noise of a tenth of this; different clips of one topic by far more."""

NOTE = "_semdedup_demo.json"


@dataclass(frozen=True)
class DemoResult:
    """What the demo planted and what was found of it.

    Attributes:
        run: result of the workflow.
        planted: pairs of a clip and its near-duplicate.
        found: pairs of which one is among the ids to drop.
        wrong: ids to drop that belong to no pair.
    """

    run: DedupResult
    planted: int
    found: int
    wrong: int


def make_embeddings(seed: int = 0) -> tuple[pa.Table, list[tuple[str, str]]]:
    """Make embeddings of clips on some topics, with near-duplicates among them.

    Returns:
        A table of ``id`` and ``embedding``, 20,000 rows of 256, in random order; and the pairs (original, copy).
    """
    rng = np.random.default_rng(seed)
    n_originals = N_ROWS - N_COPIES
    topics = rng.standard_normal((N_TOPICS, DIM), dtype=np.float32)
    originals = unit_rows(topics[rng.integers(N_TOPICS, size=n_originals)] + rng.standard_normal((n_originals, DIM)))
    copied = rng.choice(n_originals, size=N_COPIES, replace=False)
    noise = rng.standard_normal((N_COPIES, DIM)) * (0.1 * EPS / DIM) ** 0.5
    rows = np.concatenate([originals, unit_rows(originals[copied] + noise)])
    ids = np.array([f"clip-{i:05d}" for i in range(n_originals)] + [f"clip-{i:05d}-copy" for i in copied])
    order = rng.permutation(N_ROWS)
    pairs = [(f"clip-{i:05d}", f"clip-{i:05d}-copy") for i in copied]
    return pa.table({"id": pa.array(ids[order]), "embedding": embedding_column(rows[order])}), pairs


def run_demo(output_path: str, cluster: ClusterOptions | None = None, verbose: bool = True) -> DemoResult:
    """Make embeddings in ``{output_path}/embeddings``, dedup them into ``…/results``, and look what was found.

    Raises:
        InputError: the folder holds something that is not a demo's.
    """
    root = Location.of(output_path)
    if root.files() and not (root / NOTE).exists():
        raise InputError(f"{root} holds files that are not the demo's; give another folder with --output-path")
    table, pairs = make_embeddings()
    (root / NOTE).write_json({"rows": len(table), "near-duplicates": len(pairs)})
    rows_per_file = len(table) // N_FILES
    for i in range(N_FILES):
        write_table(root / "embeddings" / f"part-{i}.parquet", table.slice(i * rows_per_file, rows_per_file))
    options: dict[str, Any] = {"eps": EPS, "clear_output": True, "verbose": verbose}
    workflow = SemanticDeduplicationWorkflow((root / "embeddings").url, (root / "results").url, **options)
    run = workflow.run(cluster=cluster)
    dropped: set[str] = set()
    for file in (root / "results" / "duplicates").files():
        dropped.update(pc.unique(read_table(root.at(file.url)).column("id")).to_pylist())
    in_pairs = {clip for pair in pairs for clip in pair}
    found = sum(original in dropped or copy in dropped for original, copy in pairs)
    return DemoResult(run, len(pairs), found, len(dropped - in_pairs))
