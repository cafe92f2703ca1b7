"""One shard: its tar or tars, streamed, and a row of the index for each sample."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from semdedup.shards.join import SAMPLES_AT_A_TIME, samples_file
from semdedup.shards.layouts import ShardLayout
from semdedup.shards.packing import Shard
from semdedup.shards.streams import read_clips, writing_stream
from semdedup.shards.tar import TarWriter
from semdedup.storage.chunks import read_chunk, write_chunks
from semdedup.storage.location import Location

MEMBERS = ("mp4", "json", "npy")
"""Members of a sample, by the endings of their names."""


def index_schema(layout: ShardLayout, with_embeddings: bool) -> pa.Schema:
    """Columns of the index: offsets are of the content of a member in its tar, sizes in bytes."""
    members = [member for member in MEMBERS if member != "npy" or with_embeddings]
    return pa.schema(
        [
            ("id", pa.string()),
            ("key", pa.string()),
            *((column, pa.string()) for column in dict.fromkeys(layout.tar_columns.values())),
            *((f"{member}_{what}", pa.int64()) for member in members for what in ("offset", "size")),
            ("score", pa.float32()),
        ]
    )


def index_file(scratch: Location, number: int) -> Location:
    """The rows of the index for one shard, in chunks."""
    return scratch / "index" / f"{number}.arrows"


@dataclass(frozen=True)
class Writing:
    """What every task that writes a shard needs to know.

    Attributes:
        root: folder that the paths of clips are relative to.
        scratch: folder with the samples, and for the parts of the index.
        target: folder of the dataset.
        layout: of the dataset.
        schema: of its index.
    """

    root: Location
    scratch: Location
    target: Location
    layout: ShardLayout
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
            for name in dict.fromkeys(shard.tars.values())
        }
        rows, counts = _write_samples(task, shard, tars), []

        def batches() -> Iterator[pa.RecordBatch]:
            while some := list(itertools.islice(rows, SAMPLES_AT_A_TIME)):
                counts.append(len(some))
                yield pa.RecordBatch.from_pylist(some, schema=task.schema)

        index_ends = write_chunks(index_file(task.scratch, shard.number), batches())
        finished = [{"name": name, "sha256": tar.finish(), "bytes": tar.n_bytes} for name, tar in tars.items()]
    return {"samples": sum(counts), "tars": finished, "index_ends": index_ends}


def _write_samples(task: Writing, shard: Shard, tars: Mapping[str, TarWriter]) -> Iterator[dict[str, Any]]:
    """Write the samples of a shard; yield the row of the index for each."""
    samples, again = itertools.tee(_samples(task.scratch, shard))
    clips = read_clips(task.root, ((os.fsdecode(sample["path"]), sample["bytes"]) for sample in again))
    tar_of = {member: tars[shard.tars[column]] for member, column in task.layout.tar_columns.items()}
    for sample, clip in zip(samples, clips, strict=True):
        row = {**{name: sample[name] for name in ("id", "key", "score")}, **shard.tars}
        contents: dict[str, tuple[int, Iterable[bytes]]] = {"mp4": (sample["bytes"], clip)}
        contents |= {name: (len(sample[name]), [sample[name]]) for name in ("json", "npy") if sample[name] is not None}
        for member, (n_bytes, pieces) in contents.items():
            row[f"{member}_size"] = n_bytes
            row[f"{member}_offset"] = tar_of[member].add(f"{sample['key']}.{member}", n_bytes, pieces)
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
