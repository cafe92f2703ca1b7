"""What has become of videos whose clips an earlier run made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from semdedup.video.records import VideoFile
from semdedup.video.video_table import VideoTable


class Changes(NamedTuple):
    """Videos that gave clips and are not as they were then, by their relative paths: other content, or none."""

    changed: tuple[str, ...]
    gone: tuple[str, ...]


def changes_of(table: VideoTable, files: Iterable[VideoFile]) -> Changes:
    """Compare videos of the input with the table of those that were processed. Those without clips do not count."""
    now = {file.relative_path: file for file in files}
    with_clips = {name: row for name, row in table.rows.items() if row["clips"]}
    changed = (
        name
        for name, row in with_clips.items()
        if name in now and row["stamp"] and (row["n_bytes"], row["stamp"]) != (now[name].n_bytes, now[name].stamp)
    )
    return Changes(tuple(sorted(changed)), tuple(sorted(with_clips.keys() - now.keys())))
