"""Clips, scores, embeddings and metadata come together, partition by partition, through files.

    clips, in order, cut ──────────────────────▶ partition 0 ─▶ samples, with what goes into their JSON
    scores, some row groups  ─┐  in order, cut     partition 1     dropped clips, with the reason
    scores, others           ─┼─ at the same ───▶ partition 2     sizes, by which shards are cut
    embeddings, some         ─┘  boundaries        …

No worker holds more than one partition, or some row groups, whatever the number of clips. The answer depends on none of
these cuts.
"""

from __future__ import annotations

import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.dedup.input.ids import id_type
from semdedup.dedup.input.rows import embedding_element_type
from semdedup.dedup.threshold.rule import duplicate_mask
from semdedup.errors import BadFileError, DuplicateIdError
from semdedup.shards.inputs import stem_of
from semdedup.shards.keys import key_of
from semdedup.shards.layouts.cosmos import bin_of
from semdedup.shards.order import Boundary, in_order, parts
from semdedup.shards.streams import ahead, read_chunk, read_small, write_chunks
from semdedup.shards.tar import member_bytes
from semdedup.storage.arrays import save_array
from semdedup.storage.location import FileInfo, Location
from semdedup.storage.tables import open_parquet

DUPLICATE, EMPTY = "duplicate", "empty_file"

SCORE_BYTES, EMBEDDING_BYTES = 16 << 20, 64 << 20
"""Bytes of Parquet files that one task scatters, unless one row group has more."""

FILES_PER_TASK = 1000
SAMPLES_AT_A_TIME = 1024
"""Samples whose metadata is in memory at a time, in this step and in the next."""

EXAMPLES = 3

SCORES = pa.schema(
    {"id": pa.string(), "score": pa.float32(), "max_id": pa.string(), "duplicate": pa.bool_()},
)
EMBEDDINGS = pa.schema({"id": pa.string(), "embedding": pa.list_(pa.float32())})
SAMPLES = pa.schema(
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
DROPPED = pa.schema(
    {
        "id": pa.string(),
        "reason": pa.string(),
        "score": pa.float32(),
        "max_id": pa.string(),
        "source": pa.string(),
    }
)


@dataclass(frozen=True)
class Groups:
    """Row groups [first, last) of a Parquet file; all of them for a `last` of 0."""

    url: str
    first: int = 0
    last: int = 0


def cut_files(files: Sequence[FileInfo], source: Location, most_bytes: int) -> list[tuple[Groups, ...]]:
    """Cut Parquet files into tasks of about `most_bytes`. Of files larger than that, the footers are read."""
    tasks: list[list[Groups]] = []
    held = most_bytes
    for file in files:
        for groups, n_bytes in _cut_file(file, source, most_bytes):
            if held + n_bytes > most_bytes or len(tasks[-1]) == FILES_PER_TASK:
                tasks.append([])
                held = 0
            tasks[-1].append(groups)
            held += n_bytes
    return [tuple(task) for task in tasks]


def _cut_file(file: FileInfo, source: Location, most_bytes: int) -> Iterator[tuple[Groups, int]]:
    if file.n_bytes <= most_bytes:
        yield Groups(file.url), file.n_bytes
        return
    with open_parquet(source.at(file.url)) as parquet:
        sizes = [parquet.metadata.row_group(i).total_byte_size for i in range(parquet.metadata.num_row_groups)]
    for i, n_bytes in enumerate(sizes):
        yield Groups(file.url, i, i + 1), min(n_bytes, most_bytes)


@dataclass(frozen=True)
class Scatter:
    """What every task that scatters rows to partitions needs to know.

    Attributes:
        source: storage of the tables.
        target: folder for the files that it writes, one a task.
        bounds: where the partitions begin.
        seed: of the order of samples.
        eps: the threshold for scores; None for tables of ids to drop.
    """

    source: Location
    target: Location
    bounds: tuple[Boundary, ...]
    seed: int | None
    eps: float | None = None


def scatter_scores(task: Scatter, item: tuple[int, tuple[Groups, ...]]) -> dict[str, Any]:
    """Write the rows of some tables of scores, or of ids to drop, cut into partitions.

    Returns:
        ``rows`` that have an id, and ``ends``: where each partition ends in the file.
    """
    columns = ("id",) if task.eps is None else ("id", "cosine_sim_score", "max_id")
    return _scatter(task, item, [_scores(task, found) for found in _read(task.source, item[1], columns)])


def _scores(task: Scatter, found: pa.Table) -> pa.Table:
    n = len(found)
    if task.eps is None:
        score, max_id = pa.nulls(n, pa.float32()), pa.nulls(n, pa.string())
        duplicate = pa.array(np.ones(n, dtype=bool))
    else:
        score, max_id = found["cosine_sim_score"].cast(pa.float32()), found["max_id"].cast(pa.string())
        duplicate = pa.array(duplicate_mask(score.to_numpy(), task.eps))
    return pa.table({"id": found["id"].cast(pa.string()), "score": score, "max_id": max_id, "duplicate": duplicate})


def scatter_embeddings(task: Scatter, item: tuple[int, tuple[Groups, ...]]) -> dict[str, Any]:
    """Write the rows of some tables of embeddings, cut into partitions. Rows without one are left out.

    Returns:
        ``rows``, and ``ends``: where each partition ends in the file.
    """
    tables = []
    for found in _read(task.source, item[1], ("id", "embedding")):
        ids, rows = found["id"].cast(pa.string()), found["embedding"].cast(EMBEDDINGS.field("embedding").type)
        tables.append(pa.table({"id": ids, "embedding": rows}).filter(pc.is_valid(rows)))
    return _scatter(task, item, tables)


def _read(source: Location, groups: Sequence[Groups], columns: Sequence[str]) -> Iterator[pa.Table]:
    """Tables with these columns; ids may be text or whole numbers, which are compared as text."""
    for part in groups:
        with open_parquet(source.at(part.url)) as parquet:
            schema = parquet.schema_arrow
            missing = [name for name in columns if name not in schema.names]
            if missing:
                raise BadFileError(f"the file {part.url} has no column {missing[0]!r}; it has {schema.names}")
            for name in columns:
                kind = schema.field(name).type
                fits = {"embedding": embedding_element_type, "cosine_sim_score": _number_type}.get(name, id_type)(kind)
                if fits is None:
                    raise BadFileError(f"the column {name!r} of {part.url} is {kind}, which cannot be used")
            wanted = range(part.first, part.last or parquet.metadata.num_row_groups)
            yield parquet.read_row_groups(list(wanted), columns=list(columns), use_threads=False)


def _number_type(found: pa.DataType) -> pa.DataType | None:
    return found if pa.types.is_floating(found) else None


def _scatter(task: Scatter, item: tuple[int, Any], tables: Sequence[pa.Table]) -> dict[str, Any]:
    table = pa.concat_tables(tables)
    known = in_order(table.filter(pc.is_valid(table["id"])), task.seed)
    ends = write_chunks(_piece(task.target, item[0]), parts(known, task.bounds))
    return {"rows": len(known), "ends": ends}


def _piece(folder: Location, position: int) -> Location:
    return folder / f"{position}.arrows"


@dataclass(frozen=True)
class Pieces:
    """Where the rows of one partition stand: ranges of bytes of files that tasks have scattered."""

    folder: Location
    ranges: tuple[tuple[int, int, int], ...]

    def read(self, schema: pa.Schema) -> pa.Table:
        """The rows, in no particular order. Memory: the rows."""
        batches = ahead(self._read, self.ranges, 1 if self.folder.is_local else len(self.ranges[:8]) or 1)
        return pa.Table.from_batches(list(batches), schema).combine_chunks()

    def _read(self, piece: tuple[int, int, int]) -> pa.RecordBatch:
        position, start, end = piece
        return read_chunk(_piece(self.folder, position), start, end)


def pieces_of(folder: Location, ends: Mapping[int, Sequence[int]], partition: int) -> Pieces:
    """The pieces of one partition, from what the scattering tasks gave back, by their positions."""
    ranges = ((i, ends[i][partition - 1] if partition else 0, ends[i][partition]) for i in sorted(ends))
    return Pieces(folder, tuple(found for found in ranges if found[1] < found[2]))


@dataclass(frozen=True)
class Join:
    """What every task of the join needs to know.

    Attributes:
        root: folder that the paths of clips are relative to.
        metas: folder of the metadata.
        scratch: folder to write to.
        scored: whether there are scores, so that a clip without one is to be counted.
        binned: whether clips go into the bins of cosmos-curate's tree.
        with_embeddings: whether samples get one.
    """

    root: Location
    metas: Location
    scratch: Location
    scored: bool
    binned: bool
    with_embeddings: bool


@dataclass(frozen=True)
class Partition:
    """The input of one task: clips, a range of bytes of the table of clips; scores and embeddings."""

    number: int
    clips: tuple[int, int]
    scores: Pieces
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
        (scores whose id is no clip's, with ``examples``), ``without_meta``, ``without_embedding``; and ``ends`` of the
        chunks of samples, ``dropped_ends`` of those of dropped clips.
    """
    clips = read_chunk(task.scratch / "clips.arrows", *item.clips)
    ids = clips.column("id").cast(pa.string())
    scores = item.scores.read(SCORES)
    at = _positions(ids, scores["id"], unique=task.scored)
    found = scores.take(at)
    n_bytes = clips.column("bytes").to_numpy()
    reasons = np.full(len(ids), "", dtype=object)
    reasons[n_bytes == 0] = EMPTY
    reasons[pc.fill_null(found["duplicate"], False).to_numpy()] = DUPLICATE
    candidates = np.flatnonzero(reasons == "")
    rows = pa.table(
        {
            "id": ids,
            **{name: clips.column(name) for name in ("path", "bytes", "has_meta")},
            **{name: found[name] for name in ("score", "max_id")},
        }
    )
    counts: Counter[str] = Counter()
    sizes, bins = [], []

    def batches() -> Iterator[pa.RecordBatch]:
        embeddings = item.embeddings.read(EMBEDDINGS)
        embedded = _positions(ids, embeddings["id"], unique=True)
        for start in range(0, len(candidates), SAMPLES_AT_A_TIME):
            chosen = candidates[start : start + SAMPLES_AT_A_TIME]
            vectors = embeddings["embedding"].take(embedded.take(chosen))
            batch = _samples(task, rows.take(chosen), vectors, counts)
            sizes.append(_sizes(batch))
            bins.append(batch.column("bin").to_numpy())
            yield batch

    ends = write_chunks(samples_file(task.scratch, item.number), batches())
    save_array(sizes_file(task.scratch, item.number), np.array([_joined(sizes), _joined(bins)], dtype=np.int64))
    gone = np.flatnonzero(reasons != "")
    dropped = _dropped(rows.take(gone), reasons[gone])
    dropped_ends = write_chunks(dropped_file(task.scratch, item.number), dropped.to_batches())
    strays = scores["id"].filter(pc.invert(pc.is_in(scores["id"], value_set=ids)))
    kept = reasons == ""
    return {
        "clips": len(ids),
        "kept": int(kept.sum()),
        "bytes": int(n_bytes[kept].sum()),
        "dropped": dict(Counter(reasons[gone].tolist())),
        "unscored": int(at.null_count) if task.scored else 0,
        "unmatched": len(strays),
        "examples": strays[:EXAMPLES].to_pylist(),
        "without_meta": counts["without_meta"],
        "without_embedding": counts["without_embedding"],
        "ends": ends,
        "dropped_ends": dropped_ends,
    }


def _positions(ids: pa.Array, others: pa.ChunkedArray, *, unique: bool) -> pa.Array:
    """Where each id stands among others; null where it does not.

    Raises:
        DuplicateIdError: one stands there twice, and should not.
    """
    if unique and len(pc.unique(others)) < len(others):
        counted = pc.value_counts(others)
        twice = counted.field("values").filter(pc.greater(counted.field("counts"), 1))
        raise DuplicateIdError(
            "the tables of scores or embeddings hold ids more than once, so that it is not clear what a clip gets: "
            f"{', '.join(map(repr, twice[:EXAMPLES].to_pylist()))}. Give one result, and not several together."
        )
    return pc.index_in(ids, value_set=others.combine_chunks())


def _joined(arrays: Sequence[np.ndarray]) -> np.ndarray:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=np.int64)


def _samples(task: Join, rows: pa.Table, vectors: pa.ChunkedArray, counts: Counter[str]) -> pa.RecordBatch:
    """Samples of some clips."""
    paths = [os.fsdecode(path) for path in rows["path"].to_pylist()]
    files = [
        task.metas / f"{stem_of(path)}.json" if known else None
        for path, known in zip(paths, rows["has_meta"].to_pylist(), strict=True)
    ]
    ids, scores, max_ids = (rows[name].to_pylist() for name in ("id", "score", "max_id"))
    contents, bins = [], []
    for i, text in enumerate(read_small(files, task.root.is_local)):
        meta = {} if text is None else _parsed(text, files[i])
        bins.append(bin_of(meta) if task.binned else 0)
        counts["without_meta"] += text is None
        contents.append(sample_json(meta, ids[i], paths[i], scores[i], max_ids[i]))
    npy = [_npy(vector) if task.with_embeddings else None for vector in vectors]
    counts["without_embedding"] += sum(content is None for content in npy)
    table = {
        "id": rows["id"],
        "key": pa.array(map(key_of, ids), pa.string()),
        "path": rows["path"].cast(pa.binary()),
        "bytes": rows["bytes"],
        "score": rows["score"],
        "bin": pa.array(bins, pa.int16()),
        "json": pa.array(contents, pa.binary()),
        "npy": pa.array(npy, pa.binary()),
    }
    return pa.table(table).cast(SAMPLES).combine_chunks().to_batches()[0]


def _parsed(text: bytes, file: Location | None) -> dict[str, Any]:
    try:
        meta = json.loads(text)
    except ValueError as error:
        raise BadFileError(f"the metadata {file} cannot be read as JSON: {error}") from error
    if not isinstance(meta, dict):
        raise BadFileError(f"the metadata {file} is no JSON object, but a {type(meta).__name__}")
    return meta


def sample_json(meta: Mapping[str, Any], clip_id: str, path: str, score: float | None, max_id: str | None) -> bytes:
    """What the JSON of a sample holds: all that is known of the clip, and always the same few names.

    ``id``, ``source`` (path of the clip in the input), ``video`` and ``start_s``, ``end_s`` (which span of which video
    it is), ``score`` and ``max_id`` (how much it is like which better-ranked clip); null where they are not known. What
    the metadata holds under one of these names, and is something else, is called ``meta_…``.
    """
    span = meta.get("duration_span")
    start_s, end_s = span if isinstance(span, list) and len(span) == 2 else (None, None)
    ours = {
        "id": clip_id,
        "source": os.fsencode(path).decode("utf-8", "backslashreplace"),
        "video": meta.get("video", meta.get("source_video")),
        "start_s": meta.get("start_s", start_s),
        "end_s": meta.get("end_s", end_s),
        "score": score,
        "max_id": max_id,
    }
    others = {f"meta_{n}" if n in ours else n: value for n, value in meta.items() if n not in ours or value != ours[n]}
    return json.dumps({**others, **ours}, sort_keys=True).encode()


def _npy(vector: pa.ListScalar) -> bytes | None:
    if not vector.is_valid:
        return None
    content = io.BytesIO()
    np.save(content, vector.values.to_numpy(zero_copy_only=False), allow_pickle=False)
    return content.getvalue()


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
        .select(DROPPED.names)
        .cast(DROPPED)
        .combine_chunks()
    )
