"""What the parts of a frame are called, which lie as Parquet in the scratch folder of a run and go with it."""

from __future__ import annotations

import re

PART = re.compile(r"(?:rows-(?P<start>\d+)-(?P<stop>\d+)|partition-(?P<number>\d+))\.parquet|centroid=(?P<cluster>\d+)")
"""Names of the files of parts, and of the folders of clusters."""

OF_FRAME = re.compile(r"/_scratch/[^/]+/(?P<frame>frame(?:-\w+)?)/(?P<part>[^/]+)$")
"""Where they lie, below the folder of a result."""


def rows_name(start: int, stop: int) -> str:
    """The name of the file of rows [start, stop)."""
    return f"rows-{start:012d}-{stop:012d}.parquet"


def partition_name(number: int) -> str:
    """The name of the file of a partition."""
    return f"partition-{number:06d}.parquet"


def part_in_words(file: str, frame: str) -> str:
    """What the part of a frame in a file is called; the frame itself where the file is no part."""
    found = PART.fullmatch(file)
    if found is None:
        return frame
    if found["cluster"] is not None:
        return f"cluster {int(found['cluster'])} of {frame}"
    if found["number"] is not None:
        return f"partition {int(found['number'])} of {frame}"
    return f"rows {int(found['start']):,} to {int(found['stop']) - 1:,} of {frame}"


def source_in_words(source: str) -> str:
    """What rows come from, for the user: a file as it is, a part of a frame in words."""
    found = OF_FRAME.search(source)
    if found is None or PART.fullmatch(found["part"]) is None:
        return source
    return part_in_words(found["part"], "the " + found["frame"].replace("-", " "))
