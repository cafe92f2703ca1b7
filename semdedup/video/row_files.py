"""Rows that a task makes of a video: embeddings of its clips, their captions, and its fingerprint track.

They wait in the scratch folder of the run, a file for each, until `parts` puts them together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from semdedup.storage.location import Location
from semdedup.storage.tables import embedding_column, one_batch, read_arrow_batch, write_arrow
from semdedup.video.clip_meta import read_meta
from semdedup.video.files import printable
from semdedup.video.fingerprint import DIM, moments_s
from semdedup.video.records import CAPTION_ROWS, TRACK_ROWS, VideoFile, of_embedder, rows_schema
from semdedup.video.steps.caption.windows import WINDOWS, caption_name
from semdedup.video.steps.chain import Clip
from semdedup.video.steps.protocol import StepSpec
from semdedup.video.tree import CLIPS, meta_of_clip

VECTORS = "fingerprint.list.element"


@dataclass(frozen=True)
class RowKind:
    """Rows that there are of videos, in Parquet files that hold many of them; those of one video are in one file.

    Attributes:
        name: in words.
        scratch: folder of the scratch folder that they wait in.
        n_rows: column of the table of videos with the number of rows.
        part: column of it with the name of the file.
        vector: column of the rows that takes the room.
        by: column of the rows by which those of a video are found in a file: ``id``, one of its clips, or ``video``.
        order: columns by which the rows of a file are ordered.
        part_bytes: of vectors in one file. One of less than half is written anew with what a later run adds.
        write_kwargs: options of `pyarrow.parquet.write_table`.
    """

    name: str
    scratch: str
    n_rows: str
    part: str
    vector: str
    by: str
    order: tuple[str, ...]
    part_bytes: int
    write_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def path(self, scratch: Location, version: str) -> Location:
        """Where the rows of a version of a video wait."""
        return scratch / self.scratch / f"{version}.arrow"

    def write(self, scratch: Location, version: str, rows: pa.Table) -> None:
        """Leave the rows of a video for later."""
        write_arrow(self.path(scratch, version), rows.schema, [one_batch(rows)])

    def read(self, scratch: Location, version: str) -> pa.RecordBatch:
        """The rows of a video."""
        return read_arrow_batch(self.path(scratch, version), 0)


EMBEDDINGS = RowKind(
    *("embeddings", "rows", "n_rows", "part", "embedding", "id", ("video", "start_s", "end_s", "id")),
    part_bytes=128 << 20,
)


def embedding_kinds(folders: Sequence[str]) -> dict[str, RowKind]:
    """What folders of embeddings hold. Each of several embedders has a place, a count and files of its own."""
    if len(folders) == 1:
        return {folders[0]: EMBEDDINGS}
    return {
        folder: replace(
            EMBEDDINGS,
            name=f"embeddings of {folder}",
            scratch=f"rows-{folder}",
            n_rows=of_embedder("n_rows", folder),
            part=of_embedder("part", folder),
        )
        for folder in folders
    }


CAPTIONS = RowKind(
    *("captions", "captions", "n_captions", "caption_part", "caption", "id", ("id", "start_frame")),
    part_bytes=32 << 20,
)

TRACKS = RowKind(
    *("fingerprints", "tracks", "n_fingerprints", "fingerprint_part", "fingerprint", "video", ("video", "t_s")),
    part_bytes=32 << 20,  # a row has the name of the video beside its vector, which is no longer
    # Parquet has no numbers of 8 bits: by a dictionary they take 8, and not 32.
    write_kwargs={
        "compression": dict.fromkeys(["video", "t_s", VECTORS], "ZSTD"),
        "use_dictionary": ["video", "t_s", VECTORS],
    },
)


def embedding_rows(
    steps: Sequence[StepSpec], embedder: str, video: VideoFile, clips: Sequence[Clip], origin: Mapping[str, Any]
) -> pa.Table:
    """The embeddings of a video by an embedder with what serves to rank them, in the order of the clips.

    Args:
        steps: whose columns there are.
        embedder: its name.
        video: that they belong to.
        clips: some of which have an embedding.
        origin: what is known better of a clip that was cut earlier, see `origin_of`.
    """
    schema = rows_schema(steps).remove_metadata()
    embedded = [clip for clip in clips if embedder in clip.vectors]
    rows = [{"video": video.relative_path, **clip.facts, **origin} for clip in embedded]
    columns: dict[str, Any] = {name: [row.get(name) for row in rows] for name in schema.names if name != "embedding"}
    columns["embedding"] = embedding_column(np.stack([clip.vectors[embedder] for clip in embedded]))
    return pa.table({name: columns[name] for name in schema.names}, schema=schema)


def caption_rows(clips: Sequence[Clip], model: str) -> pa.Table:
    """The captions of clips by a model: a row for each window."""
    name = caption_name(model)
    rows = [
        {
            "id": clip.facts["id"],
            **{column: window[column] for column in ("start_frame", "end_frame")},
            "caption": window[name],
            "model": model,
        }
        for clip in clips
        for window in clip.facts.get(WINDOWS) or ()
    ]
    return pa.Table.from_pylist(rows, CAPTION_ROWS)


def track_rows(video: VideoFile, fingerprints: np.ndarray) -> pa.Table:
    """The fingerprint track of a video: a row for each of its vectors, (n, `DIM`) int8."""
    schema, n = TRACK_ROWS.remove_metadata(), len(fingerprints)
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(fingerprints.reshape(-1)), DIM)
    return pa.table([pa.array([video.relative_path] * n), pa.array(moments_s(n)), vectors], schema=schema)


def origin_of(inputs: Location, file: VideoFile) -> dict[str, Any] | str:
    """Where a clip that exists was cut from, if its metadata are beside it as `split` writes them, or their fault."""
    folder = inputs.at(file.url).parent
    if folder.name != CLIPS:
        return {}
    place = folder.parent / meta_of_clip(os.path.splitext(file.url.rsplit("/", 1)[-1])[0])
    known = read_meta(place)
    if known is None or isinstance(known, str):
        return f"{printable(place.url)} {known}" if known else {}
    start_s, end_s = known.get("duration_span") or (None, None)
    video, bitrate = known.get("video") or known.get("source_video"), known.get("bitrate_source")
    found = {"video": video, "start_s": start_s, "end_s": end_s, "bitrate": None if bitrate is None else int(bitrate)}
    return {name: value for name, value in found.items() if value is not None}
