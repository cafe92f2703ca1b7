"""What workflows over clips that exist share: which there are, and what their ids are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from semdedup.errors import OutputConflictError
from semdedup.runs.record import Record
from semdedup.video.base import VideoWorkflow
from semdedup.video.clip_ids import BY_NAME, BY_PATH, of_one_name
from semdedup.video.files import FoundVideos, find_videos
from semdedup.video.records import VideoFile
from semdedup.video.tree import CLIPS
from semdedup.video.video_table import stamped_by_split

CLIPS_PER_TASK = 32
"""Clips that exist and are only embedded go to the workers in so many a task, so that a model gets whole batches."""


class ClipWorkflow(VideoWorkflow):
    """A workflow whose videos are clips, each of which is looked at as a whole."""

    unit, unit_of_tasks, per_task = "clips", "tasks", CLIPS_PER_TASK

    def find(self) -> FoundVideos:
        """The clips of the input, and what else was there."""
        found = find_videos(self.sources, self.own, looked_into=self._looked_into)
        folder = self.sources[0]
        return replace(found, videos=stamped_by_split(folder.parent, found.videos)) if folder.name == CLIPS else found

    def id_scheme(self, files: Sequence[VideoFile]) -> str:
        """What the ids are: as the folder has them already, else what these files ask for.

        Raises:
            OutputConflictError: the folder has names of files, and now two of these are the same.
        """
        repeated = of_one_name(file.relative_path for file in files)
        entry = None if self.io.clear_output else Record(self.output).steps.get(self.kind.step)
        scheme: str = (
            (BY_PATH if repeated else BY_NAME) if entry is None else entry["parameters"].get("clip_ids", BY_NAME)
        )
        if repeated and scheme == BY_NAME:
            raise OutputConflictError(
                f"the results in {self.output / (self.kind.folder or self.kind.captions)} go by the names of the "
                f"files, and now two clips would have the same id: {repeated[0]} and {repeated[1]}. Rename one; or "
                "take another output path, or make these results anew with clear_output=True (--overwrite): ids are "
                "paths then."
            )
        return scheme
