"""Clips, scores, embeddings and metadata come together, partition by partition, through files.

    clips, in order, cut ──────────────────────▶ partition 0 ─▶ samples, with what goes into their JSON
    scores, some row groups  ─┐  in order, cut     partition 1     dropped clips, with the reason
    scores, others           ─┼─ at the same ───▶ partition 2     sizes, by which shards are cut
    embeddings, some         ─┘  boundaries        …

`scatter` cuts the tables; this module joins one partition. No worker holds more than one partition, or some row groups,
whatever the number of clips. The answer depends on none of these cuts.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.shards.by_embedder import EXAMPLES, ByEmbedder, among, of_the_first, positions_of
from semdedup.shards.clip_columns import stem_of
from semdedup.shards.drops import DUPLICATE, EMPTY_FILE, FILTER, OVERLAP, WITHDRAWN
from semdedup.shards.keep_if import keeps
from semdedup.shards.keys import sample_key
from semdedup.shards.layouts import ShardLayout
from semdedup.shards.plan import clips_file
from semdedup.shards.sample import npy_bytes, sample_json
from semdedup.shards.scatter import DROPS_SCHEMA, EMBEDDINGS_SCHEMA, SCORES_SCHEMA
from semdedup.shards.streams import read_small
from semdedup.shards.tar import member_bytes
from semdedup.storage.arrays import save_array
from semdedup.storage.chunks import read_chunk, write_chunks
from semdedup.storage.location import Location
from semdedup.storage.pieces import Pieces
from semdedup.video.clip_meta import parse_meta
from semdedup.video.files import printable

SAMPLES_AT_A_TIME = 1024
"""Samples whose metadata is in memory at a time, in this step and in the next."""

SAMPLES_SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "key": pa.string(),
        "path": pa.binary(),
        "bytes": pa.int64(),
        "score": pa.float32(),
        "bin": pa.int16(),
        "json": pa.binary(),
        "npy": pa.binary(),
    }
)
DROPPED_SCHEMA = pa.schema(
    {"id": pa.string(), "reason": pa.string(), "score": pa.float32(), "max_id": pa.string(), "source": pa.string()}
)


@dataclass(frozen=True)
class Join:
    """What every task of the join needs to know.

    Attributes:
        root: folder that the paths of clips are relative to.
        metas: folder of the metadata.
        scratch: folder to write to.
        scored: whether there are scores, so that a clip without one is to be counted.
        layout: of the dataset; it divides samples into bins.
        with_embeddings: whether samples get one.
        both: whether a clip goes by overlap and as a near-duplicate only where both is so.
        embedders: whose results there are; mostly one.
        all_embedders: whether a clip is a near-duplicate only where it is so by all of them.
        keep_if: conditions that a clip has to satisfy.
    """

    root: Location
    metas: Location
    scratch: Location
    scored: bool
    layout: ShardLayout
    with_embeddings: bool
    both: bool = False
    embedders: int = 1
    all_embedders: bool = False
    keep_if: tuple[str, ...] = ()


@dataclass(frozen=True)
class Partition:
    """The input of one task: clips, a range of bytes of the table of clips; scores, ids to drop that come apart, and
    embeddings."""

    number: int
    clips: tuple[int, int]
    scores: Pieces
    drops: Pieces
    embeddings: Pieces


def samples_file(scratch: Location, partition: int) -> Location:
    """The samples of one partition, `SAMPLES_AT_A_TIME` a chunk."""
    return scratch / "samples" / f"{partition}.arrows"


def sizes_file(scratch: Location, partition: int) -> Location:
    """(2, n) int64: the bytes in a tar of each sample of a partition, and its bin."""
    return scratch / "sizes" / f"{partition}.npy"


def dropped_file(scratch: Location, partition: int) -> Location:
    """The clips of a partition that are dropped, in chunks."""
    return scratch / "dropped" / f"{partition}.arrows"


def join_partition(task: Join, item: Partition) -> dict[str, Any]:
    """Decide on the clips of one partition; write its samples, its dropped clips, and sizes.

    Memory: ids, paths, scores and embeddings of the partition, and `SAMPLES_AT_A_TIME` samples with their metadata.

    Returns:
        Counts: ``clips``, ``kept``, ``bytes`` (of the clips kept), ``dropped`` by reason, ``unscored``, ``unmatched``
        (scores whose id is no clip's, with ``examples``), ``duplicates_by`` (clips that are so by each embedder,
        whatever becomes of them), ``shown`` (clips that are listed by overlap,
        of so many rows that list such: ``said_shown``), ``without_meta``, of these ``malformed_meta`` (with
        ``meta_faults`` of the first), ``without_embedding``, ``filter_unknown`` (dropped by the filter, of which what
        it asks is not known); and ``ends`` of the chunks of samples, ``dropped_ends`` of
        those of dropped clips.
    """
    clips = read_chunk(clips_file(task.scratch), *item.clips)
    ids = clips.column("id").cast(pa.string())
    scores = item.scores.read(SCORES_SCHEMA)
    apart = item.drops.read(DROPS_SCHEMA)
    by = [ByEmbedder.of(n, ids, scores, apart, task.scored) for n in range(task.embedders)]
    n_bytes = clips.column("bytes").to_numpy()
    listed: dict[str, np.ndarray] = {
        reason: among(ids, apart.filter(pc.equal(apart["reason"], reason))) for reason in (OVERLAP, WITHDRAWN)
    }
    duplicate = np.stack([each.duplicate for each in by])
    listed[DUPLICATE] = duplicate.min(axis=0) if task.all_embedders else duplicate.max(axis=0)
    reasons = _drop_reasons(n_bytes, listed, task.both)
    rows = pa.table(
        {
            "id": ids,
            **{name: clips.column(name) for name in ("path", "bytes", "has_meta")},
            **{name: of_the_first(by, name) for name in ("score", "max_id")},
        }
    )
    ends, lacks = _write_samples(task, item, rows, np.flatnonzero(reasons == ""))
    reasons[lacks.filtered] = FILTER
    kept, removed = np.flatnonzero(reasons == ""), np.flatnonzero(reasons != "")
    dropped = _dropped(rows.take(removed), reasons[removed])
    dropped_ends = write_chunks(dropped_file(task.scratch, item.number), dropped.to_batches())
    unscored = np.stack([each.unscored for each in by]).all(axis=0) & ~np.isin(reasons, (OVERLAP, FILTER))
    unmatched = scores["id"].filter(pc.invert(pc.is_in(scores["id"], value_set=ids)))
    return {
        "clips": len(ids),
        "kept": len(kept),
        "bytes": int(n_bytes[kept].sum()),
        "dropped": dict(Counter(reasons[removed].tolist())),
        "unscored": int(np.count_nonzero(unscored)) if task.scored else 0,
        "duplicates_by": duplicate.sum(axis=1).tolist(),
        "unmatched": len(unmatched),
        "examples": unmatched[:EXAMPLES].to_pylist(),
        "shown": int(np.count_nonzero(listed[OVERLAP])),
        "said_shown": pc.sum(pc.equal(apart["reason"], OVERLAP)).as_py() or 0,
        "without_meta": lacks.metas,
        "malformed_meta": lacks.malformed,
        "meta_faults": lacks.faults,
        "without_embedding": lacks.embeddings,
        "filter_unknown": lacks.unknown,
        "ends": ends,
        "dropped_ends": dropped_ends,
    }


def _drop_reasons(n_bytes: np.ndarray, listed: Mapping[str, np.ndarray], both: bool) -> np.ndarray:
    """Why each clip is dropped, (n,) objects; empty where it is kept.

    Args:
        n_bytes: of each clip.
        listed: for each reason, the clips that tables list, (n,) truth.
        both: whether of overlap and near-duplicates it takes both.
    """
    reasons = np.full(len(n_bytes), "", dtype=object)
    reasons[n_bytes == 0] = EMPTY_FILE
    if not both:
        reasons[listed[DUPLICATE]] = DUPLICATE
    reasons[listed[OVERLAP] & listed[DUPLICATE] if both else listed[OVERLAP]] = OVERLAP
    reasons[listed[WITHDRAWN]] = WITHDRAWN
    return reasons


@dataclass
class _Lacks:
    """How many samples are without metadata, of these with a malformed file, and without an embedding; some faults.

    Attributes:
        filtered: positions of clips that do not satisfy the conditions; of `unknown` of them that is not known.
    """

    metas: int = 0
    malformed: int = 0
    embeddings: int = 0
    unknown: int = 0
    filtered: list[int] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def meta_of(self, text: bytes | None, file: Location | None) -> dict[str, Any]:
        """The metadata of a sample from the content of its file; none where there is no file, or it is malformed."""
        meta = None if text is None else parse_meta(text)
        if isinstance(meta, dict):
            return meta
        self.metas += 1
        self.malformed += meta is not None
        if meta is not None and len(self.faults) < EXAMPLES:
            self.faults.append(f"{printable(str(file))} {meta}")
        return {}


def _write_samples(task: Join, item: Partition, rows: pa.Table, may_stay: np.ndarray) -> tuple[list[int], _Lacks]:
    """Write the samples of a partition and their sizes: of the clips that may stay, those that satisfy the conditions.

    Returns:
        Where the chunks of samples end, and what samples lack.
    """
    lacks = _Lacks()
    sizes: list[np.ndarray] = [np.empty((2, 0), dtype=np.int64)]

    def batches() -> Iterator[pa.RecordBatch]:
        embeddings = item.embeddings.read(EMBEDDINGS_SCHEMA)
        at = positions_of(rows["id"], embeddings["id"], unique=True)
        held = SAMPLES_SCHEMA.empty_table()
        for start in range(0, len(may_stay), SAMPLES_AT_A_TIME):
            chosen = may_stay[start : start + SAMPLES_AT_A_TIME]
            metas, stay = _metas(task, rows.take(chosen), lacks)
            lacks.filtered += chosen[~stay].tolist()
            vectors = embeddings["embedding"].take(at.take(chosen[stay]))
            held = pa.concat_tables([held, _samples(task, rows.take(chosen[stay]), metas, vectors, lacks)])
            is_last = start + SAMPLES_AT_A_TIME >= len(may_stay)
            while len(held) >= SAMPLES_AT_A_TIME or (is_last and len(held)):  # who reads them counts on that
                batch, held = held.slice(0, SAMPLES_AT_A_TIME).combine_chunks(), held.slice(SAMPLES_AT_A_TIME)
                yield batch.to_batches()[0]

    def measured() -> Iterator[pa.RecordBatch]:
        for batch in batches():
            sizes.append(np.stack([_sizes(batch), batch.column("bin").to_numpy().astype(np.int64)]))
            yield batch

    ends = write_chunks(samples_file(task.scratch, item.number), measured())
    save_array(sizes_file(task.scratch, item.number), np.concatenate(sizes, axis=1))
    return ends, lacks


def _metas(task: Join, rows: pa.Table, lacks: _Lacks) -> tuple[list[dict[str, Any]], np.ndarray]:
    """The metadata of those clips that satisfy the conditions, and which these are, (n,) bool; counts in `lacks`."""
    paths = [os.fsdecode(path) for path in rows["path"].to_pylist()]
    files = [
        task.metas / f"{stem_of(path)}.json" if known else None
        for path, known in zip(paths, rows["has_meta"].to_pylist(), strict=True)
    ]
    metas, stay = [], np.ones(len(rows), dtype=bool)
    for i, text in enumerate(read_small(files, task.root.is_local)):
        meta = lacks.meta_of(text, files[i])
        satisfied = not task.keep_if or keeps(task.keep_if, meta)
        lacks.unknown += satisfied is None
        stay[i] = satisfied is True
        metas += [meta] if satisfied else []
    return metas, stay


def _samples(
    task: Join, rows: pa.Table, metas: Sequence[Mapping[str, Any]], vectors: pa.ChunkedArray, lacks: _Lacks
) -> pa.Table:
    """Samples of some clips; counts those without embedding in `lacks`."""
    paths = [os.fsdecode(path) for path in rows["path"].to_pylist()]
    found = zip(metas, *(rows[name].to_pylist() for name in ("id", "score", "max_id")), paths, strict=True)
    contents = [sample_json(meta, clip_id, path, score, max_id) for meta, clip_id, score, max_id, path in found]
    npy = [npy_bytes(vector) if task.with_embeddings else None for vector in vectors]
    lacks.embeddings += sum(content is None for content in npy)
    table = {
        "id": rows["id"],
        "key": pa.array(map(sample_key, rows["id"].to_pylist()), pa.string()),
        "path": rows["path"].cast(pa.binary()),
        "bytes": rows["bytes"],
        "score": rows["score"],
        "bin": pa.array(map(task.layout.bin_of, metas), pa.int16()),
        "json": pa.array(contents, pa.binary()),
        "npy": pa.array(npy, pa.binary()),
    }
    return pa.table(table).cast(SAMPLES_SCHEMA)


def _sizes(batch: pa.RecordBatch) -> np.ndarray:
    """Bytes that each sample takes in a tar, (n,) int64."""
    lengths = [pc.binary_length(batch.column(name)).to_pylist() for name in ("json", "npy")]
    found = zip(batch.column("bytes").to_pylist(), *lengths, strict=True)
    return np.array([sum(member_bytes(n) for n in members if n is not None) for members in found], dtype=np.int64)


def _dropped(rows: pa.Table, reasons: np.ndarray) -> pa.Table:
    paths = (path.decode("utf-8", "backslashreplace") for path in rows["path"].to_pylist())
    columns = {"reason": pa.array(reasons, pa.string()), "source": pa.array(paths, pa.string())}
    return (
        pa.table({**{name: rows[name] for name in ("id", "score", "max_id")}, **columns})
        .select(DROPPED_SCHEMA.names)
        .cast(DROPPED_SCHEMA)
        .combine_chunks()
    )
