"""The clips that there are: which part of which video each is, from embeddings or from metadata."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.errors import BadFileError
from semdedup.overlaps.blocks import CLIPS_SCHEMA, Blocks
from semdedup.overlaps.ranks import Places
from semdedup.overlaps.source import OF_EMBEDDINGS, SPAN_COLUMNS, ClipFiles
from semdedup.overlaps.tracks import plain_type
from semdedup.storage.arrays import load_rows, pack_ends
from semdedup.storage.batches import ROWS_PER_BATCH
from semdedup.storage.chunks import write_chunks
from semdedup.storage.digests import digests
from semdedup.storage.file_list import FileList
from semdedup.storage.location import Location
from semdedup.storage.pieces import piece_file
from semdedup.storage.tables import RowGroups, cut_files, iter_groups, open_parquet
from semdedup.video.clip_meta import parse_meta, span_of

SPANS = pa.schema({"id": pa.string(), "video": pa.string(), "start_s": pa.float64(), "end_s": pa.float64()})

METAS_AT_A_TIME = 4096
"""Metadata that a task reads."""

RANKS_AT_A_TIME = 1 << 20
"""Videos whose ranks a task holds: 24 bytes each."""

Part = tuple[RowGroups, ...] | FileList


def cut_clips(clips: ClipFiles, root: Location, most_bytes: int) -> list[Part]:
    """The files that tell of clips, cut into tasks."""
    if clips.kind == OF_EMBEDDINGS:
        return list(cut_files(clips.files, root, most_bytes))
    return [clips.files[start : start + METAS_AT_A_TIME] for start in range(0, len(clips.files), METAS_AT_A_TIME)]


@dataclass(frozen=True)
class ScatterClips:
    """What every task that scatters clips needs to know: the blocks, and how many videos have a rank."""

    blocks: Blocks
    n_videos: int


def scatter_clips(task: ScatterClips, item: tuple[int, Part]) -> dict[str, Any]:
    """Write the clips that some files tell of, cut into blocks by their videos.

    Memory: the clips of videos with a track, a batch of them as objects, and `RANKS_AT_A_TIME` ranks.

    Returns:
        ``clips`` of videos with a track, those ``without_track``, those ``without_span``, and ``ends``.
    """
    number, part = item
    source, ranks = task.blocks.source, _Ranks(task)
    found, counts = [CLIPS_SCHEMA.empty_table()], Counter[str]()
    for batch in _of_metas(source, part) if isinstance(part, FileList) else _of_embeddings(source, part):
        spans = batch.filter(_have_spans(batch))
        rank = ranks.of(spans["video"])
        columns = {"rank": pa.array(rank), **{name: spans[name] for name in ("start_s", "end_s", "id")}}
        found.append(pa.table(columns, schema=CLIPS_SCHEMA).filter(pa.array(rank >= 0)))
        counts["clips"] += len(found[-1])
        counts["without_track"] += len(spans) - len(found[-1])
        counts["without_span"] += len(batch) - len(spans)
    ends = write_chunks(piece_file(task.blocks.clips, number), task.blocks.pieces(pa.concat_tables(found)))
    return {**{name: counts[name] for name in COUNTED}, "ends": pack_ends(ends)}


COUNTED = ("clips", "without_track", "without_span")


def _have_spans(batch: pa.RecordBatch) -> pa.BooleanArray:
    """Which clips have an id, a video, and two finite times."""
    known = pc.and_(pc.is_valid(batch["id"]), pc.is_valid(batch["video"]))
    for name in ("start_s", "end_s"):
        known = pc.and_(known, pc.fill_null(pc.is_finite(batch[name]), False))
    return known


class _Ranks:
    """The ranks of videos by their names. Where they are few, they are read once."""

    def __init__(self, task: ScatterClips) -> None:
        self._task = task
        self._places: Places | None = None

    def of(self, videos: pa.StringArray) -> np.ndarray:
        """The rank of each video, (n,) int64; -1 where it has no track."""
        names = videos.dictionary_encode()
        wanted = digests(names.dictionary.to_pylist())
        ranks = np.full(len(wanted), -1, dtype=np.int64)
        for start in range(0, self._task.n_videos if len(wanted) else 0, RANKS_AT_A_TIME):
            ranks = np.maximum(ranks, self._part(start).find(wanted))
        return ranks[names.indices.to_numpy()]

    def _part(self, start: int) -> Places:
        n = self._task.n_videos
        if self._places is None or n > RANKS_AT_A_TIME:
            some = load_rows(self._task.blocks.ranks, start, min(start + RANKS_AT_A_TIME, n))
            self._places = Places(np.ascontiguousarray(some["digest"]), np.ascontiguousarray(some["rank"]))
        return self._places


def _of_embeddings(source: Location, groups: tuple[RowGroups, ...]) -> Iterator[pa.RecordBatch]:
    for part in groups:
        with open_parquet(source.at(part.url)) as parquet:
            schema = parquet.schema_arrow
            for name, field in zip(SPAN_COLUMNS, SPANS, strict=True):
                found = plain_type(schema.field(name).type) if name in schema.names else None
                if found != field.type:
                    raise BadFileError(
                        f"{part.url} tells of clips, but its column {name!r} is {found or 'not there'}; {field.type} "
                        "is needed, to know which part of which video a clip is"
                    )
            for batch in iter_groups(parquet, part.of(parquet), SPAN_COLUMNS, ROWS_PER_BATCH):
                yield pa.RecordBatch.from_arrays([batch[field.name].cast(field.type) for field in SPANS], schema=SPANS)


def _of_metas(source: Location, files: FileList) -> Iterator[pa.RecordBatch]:
    rows = []
    for file, content in source.read_all(files):
        meta = parse_meta(content)
        known = {} if isinstance(meta, str) else meta
        start_s, end_s = span_of(known)
        video = known.get("video") or known.get("source_video")
        name = file.url.rpartition("/")[2].removesuffix(".json")
        rows.append({"id": name, "video": video, "start_s": start_s, "end_s": end_s})
    yield pa.RecordBatch.from_pylist(rows, SPANS)
