"""Names of the folders and columns of the overlaps of videos."""

from __future__ import annotations

import re

import pyarrow as pa

STEP = "overlaps"
"""Name of the step in the record."""

OVERLAPS = "overlaps"
OVERLAP_DUPLICATES = "overlap_duplicates"
VIDEOS = "_videos"
"""Folder of the videos that were compared, in the order of their ranks: what a later search with this base goes by."""

MIRRORED = "mirrored"
"""Column of the overlaps that tells which were found in the mirror image; it is there where that was looked for."""

OVERLAP_COLUMNS = pa.schema(
    {
        "video_a": pa.string(),
        "start_a_s": pa.float64(),
        "end_a_s": pa.float64(),
        "video_b": pa.string(),
        "start_b_s": pa.float64(),
        "end_b_s": pa.float64(),
        "speed": pa.float64(),
        "score": pa.float64(),
    }
)
DUPLICATE_COLUMNS = pa.schema({"id": pa.string(), "video": pa.string(), "start_s": pa.float64(), "end_s": pa.float64()})
VIDEO_COLUMNS = pa.schema({"video": pa.string(), "rows": pa.int64(), "digest": pa.uint64()})
"""Columns of `VIDEOS`: how many fingerprints a video has, and a digest of them."""

WRITTEN = {STEP: re.compile(rf"(?:{OVERLAPS}|{OVERLAP_DUPLICATES}|{VIDEOS})/part-\d+\.parquet")}
"""What the names of the files of the step look like: a record that names others is not believed."""


def overlap_columns(mirror: bool) -> pa.Schema:
    """The columns of the overlaps; where mirror images were looked for, too, with `MIRRORED`."""
    return OVERLAP_COLUMNS.append(pa.field(MIRRORED, pa.bool_())) if mirror else OVERLAP_COLUMNS
