"""What has become of videos whose clips an earlier run made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import pyarrow.compute as pc

from semdedup.video.records import VideoFile
from semdedup.video.video_table import VideoTable


class Changes(NamedTuple):
    """Videos that gave clips and are not as they were then, by their relative paths: other content, or none."""

    changed: tuple[str, ...]
    gone: tuple[str, ...]


def changes_of(table: VideoTable, files: Iterable[VideoFile]) -> Changes:
    """Compare videos of the input with the table of those that were processed. Those without clips do not count."""
    now = {file.relative_path: file for file in files}
    changed, gone = [], []
    rows = table.rows.filter(pc.greater(pc.list_value_length(table.rows.column("clips")), 0).to_numpy())
    columns = [rows.column(name) for name in ("video", "n_bytes", "stamp")]
    for name, n_bytes, stamp in zip(*columns, strict=True):
        file = now.get(name.as_py())
        if file is None:
            gone.append(name.as_py())
        elif stamp.as_py() and (n_bytes.as_py(), stamp.as_py()) != (file.n_bytes, file.stamp):
            changed.append(name.as_py())
    return Changes(tuple(sorted(changed)), tuple(sorted(gone)))
