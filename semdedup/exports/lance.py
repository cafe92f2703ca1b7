"""Scores and ids to keep as Lance data sets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from semdedup.dedup.input.lance import import_lance
from semdedup.dedup.names import SCORE
from semdedup.dedup.results.scores import Scores
from semdedup.errors import InputError
from semdedup.exports.gone import DUPLICATE, OVERLAP, Gone
from semdedup.shards.chain import DropChain

SCORES, KEEP = "scores.lance", "keep.lance"


def write_lance(chain: DropChain, gone: Gone, folder: Path, counts: Counter[str]) -> None:
    """Write ``scores.lance`` (``id``, ``max_id``, ``cosine_sim_score``, ``duplicate``) and ``keep.lance`` (``id``).

    Memory: one batch. The scores are read twice.
    """
    lance = import_lance("the output")
    if not all(link.scored for link in chain.links):
        raise InputError(f"no scores in {chain}: format 'lance' writes scores; give the folder of the whole result")
    kind = next(_batches(chain)).schema.field("id").type
    scores = pa.schema([("id", kind), ("max_id", kind), (SCORE, pa.float32()), ("duplicate", pa.bool_())])
    rows = pa.RecordBatchReader.from_batches(scores, _scores(chain, gone, scores, counts))
    lance.write_dataset(rows, folder / SCORES)
    keep = pa.schema([("id", kind)])
    lance.write_dataset(pa.RecordBatchReader.from_batches(keep, _keep(chain, gone, keep)), folder / KEEP)


def _batches(chain: DropChain) -> Iterator[pa.RecordBatch]:
    for link in chain.links:
        for _, batch in Scores(link.files, link.source).batches(["id", "max_id", SCORE]):
            yield batch


def _scores(chain: DropChain, gone: Gone, schema: pa.Schema, counts: Counter[str]) -> Iterator[pa.RecordBatch]:
    duplicates = Gone({why: gone.ids[why] for why in (DUPLICATE, OVERLAP)}, None)
    for batch in _batches(chain):
        stays = duplicates.look(pa.chunked_array([batch.column("id")]), counts)
        columns = [batch.column(name).cast(schema.field(name).type) for name in ("id", "max_id", SCORE)]
        counts["rows"] += len(batch)
        yield pa.RecordBatch.from_arrays([*columns, pa.array(~stays)], schema=schema)


def _keep(chain: DropChain, gone: Gone, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    for batch in _batches(chain):
        ids = batch.column("id")
        stays = gone.look(pa.chunked_array([ids]), Counter())
        yield pa.RecordBatch.from_arrays([ids.cast(schema.field("id").type).filter(pa.array(stays))], schema=schema)
