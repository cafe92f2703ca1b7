"""One shard: its tar or tars, streamed, and a row of the index for each sample."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from semdedup.shards.inputs import MP4
from semdedup.shards.join import SAMPLES_AT_A_TIME, samples_file
from semdedup.shards.layouts.cosmos import BINS
from semdedup.shards.packing import Rows
from semdedup.shards.streams import REQUESTS_AHEAD, ahead, read_chunk, read_clips, write_chunks, writing_stream
from semdedup.shards.tar import TarWriter
from semdedup.storage.location import Location

TARS_PER_PART = 100
"""Tars of one folder ``part_000000`` of cosmos-curate's tree."""

VIDEO, METAS = "video", "metas"
"""Folders of the parallel tars of that tree."""

JSON, NPY = ".json", ".npy"

ROWS_PER_GROUP = 1 << 16
"""Rows of a row group of the index, and of the table of dropped clips."""


@dataclass(frozen=True)
class Shard:
    """What one task writes.

    Attributes:
        number: position among all shards.
        tars: name of the tar that videos go into, and of that for their metadata; they may be one.
        bin: of its samples.
        rows: where these stand.
        ends: for each of `rows`, where the chunks of the samples of that partition end.
        n_bytes: bytes of its samples, about.
    """

    number: int
    tars: tuple[str, str]
    bin: int
    rows: tuple[Rows, ...]
    ends: tuple[tuple[int, ...], ...]
    n_bytes: int


def flat_name(number: int) -> str:
    """Name of a shard in the flat layout.

    >>> flat_name(12)
    '00012.tar'
    """
    return f"{number:05d}.tar"


def bin_folder(version: str, bin_: int) -> str:
    """The folder of a bin of cosmos-curate's tree."""
    return f"{version}/{BINS[bin_]}"


def part_name(number: int) -> str:
    """Name of a tar below ``video`` and ``metas`` of a bin.

    >>> part_name(101)
    'part_000001/000001.tar'
    """
    part, tar = divmod(number, TARS_PER_PART)
    return f"part_{part:06d}/{tar:06d}.tar"


def index_schema(with_embeddings: bool, parallel: bool) -> pa.Schema:
    """Columns of the index: offsets are of the content of a member in its tar, sizes in bytes."""
    members = ["mp4", "json", *(["npy"] if with_embeddings else [])]
    return pa.schema(
        [
            ("id", pa.string()),
            ("key", pa.string()),
            ("shard", pa.string()),
            *([("json_shard", pa.string())] if parallel else []),
            *((f"{member}_{what}", pa.int64()) for member in members for what in ("offset", "size")),
            ("score", pa.float32()),
        ]
    )


def index_file(scratch: Location, number: int) -> Location:
    """The rows of the index for one shard, in chunks."""
    return scratch / "index" / f"{number}.arrows"


@dataclass(frozen=True)
class Writing:
    """What every task that writes a shard needs to know: where clips, scratch files and shards are."""

    root: Location
    scratch: Location
    target: Location
    schema: pa.Schema


def write_shard(task: Writing, shard: Shard) -> dict[str, Any]:
    """Write a shard, and its part of the index while it is written.

    Memory: `SAMPLES_AT_A_TIME` samples with their metadata, and some pieces of clips.

    Returns:
        ``samples``; ``tars``: name, SHA-256 and bytes of each; ``index_ends``: of the chunks of the index.
    """
    with contextlib.ExitStack() as stack:
        tars = {
            name: TarWriter(stack.enter_context(writing_stream(task.target / name, shard.n_bytes)))
            for name in dict.fromkeys(shard.tars)
        }
        rows, counts = _write_samples(task, shard, tars), []

        def batches() -> Iterator[pa.RecordBatch]:
            while some := list(itertools.islice(rows, SAMPLES_AT_A_TIME)):
                counts.append(len(some))
                yield pa.RecordBatch.from_pylist(some, schema=task.schema)

        index_ends = write_chunks(index_file(task.scratch, shard.number), batches())
        told = [{"name": name, "sha256": tar.finish(), "bytes": tar.n_bytes} for name, tar in tars.items()]
    return {"samples": sum(counts), "tars": told, "index_ends": index_ends}


def _write_samples(task: Writing, shard: Shard, tars: Mapping[str, TarWriter]) -> Iterator[dict[str, Any]]:
    """Write the samples of a shard; yield the row of the index for each."""
    videos, metas = (tars[name] for name in shard.tars)
    samples, again = itertools.tee(_samples(task.scratch, shard))
    clips = read_clips(task.root, ((os.fsdecode(sample["path"]), sample["bytes"]) for sample in again))
    for sample, clip in zip(samples, clips, strict=True):
        key = sample["key"]
        row = {name: sample[name] for name in ("id", "key", "score")}
        row |= {"shard": shard.tars[0], "json_shard": shard.tars[1]}
        row |= {"mp4_size": sample["bytes"], "mp4_offset": videos.add(key + MP4, sample["bytes"], clip)}
        for kind, tar in ((JSON, metas), (NPY, videos)):
            content = sample[kind[1:]]
            if content is not None:
                row[f"{kind[1:]}_size"] = len(content)
                row[f"{kind[1:]}_offset"] = tar.add(key + kind, len(content), [content])
        yield row


def _samples(scratch: Location, shard: Shard) -> Iterator[dict[str, Any]]:
    """The samples of a shard, one chunk in memory at a time."""
    for rows, ends in zip(shard.rows, shard.ends, strict=True):
        file = samples_file(scratch, rows.partition)
        for number in range(rows.start // SAMPLES_AT_A_TIME, -(-rows.stop // SAMPLES_AT_A_TIME)):
            batch = read_chunk(file, ends[number - 1] if number else 0, ends[number])
            first = number * SAMPLES_AT_A_TIME
            start = max(rows.start - first, 0)
            batch = batch.slice(start, rows.stop - first - start)
            yield from batch.filter(pc.equal(batch.column("bin"), shard.bin)).to_pylist()


def joined(chunks: Iterable[tuple[Location, int, int]], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows of chunks, given by file and range of bytes, in groups that do not depend on how they were cut."""
    held: list[pa.RecordBatch] = []
    for batch in ahead(lambda chunk: read_chunk(*chunk), chunks, REQUESTS_AHEAD):
        held.append(batch)
        while sum(map(len, held)) >= ROWS_PER_GROUP:
            rows = pa.Table.from_batches(held, schema)
            yield rows.slice(0, ROWS_PER_GROUP)
            held = rows.slice(ROWS_PER_GROUP).to_batches()
    if held:
        yield pa.Table.from_batches(held, schema)


def chunks_of(file: Location, ends: Sequence[int]) -> Iterator[tuple[Location, int, int]]:
    """The chunks of a file that have rows."""
    return ((file, start, end) for start, end in pairwise([0, *ends]) if start < end)


def wdinfo(root: Location, folder: str, names: Sequence[str], samples: Sequence[int]) -> dict[str, Any]:
    """What ``wdinfo.json`` of a bin holds: its tars, as loaders of cosmos-curate's tree look for them."""
    where = (root / folder).url
    return {
        "data_keys": [VIDEO, METAS],
        "chunk_size": TARS_PER_PART,
        "data_list": list(names),
        "data_list_key_count": list(samples),
        "root": where if root.is_local else where.partition("://")[2].partition("/")[2],
        "total_key_count": sum(samples),
    }
