"""What workflows over clips that exist share: where these are and the results go, which there are, and their ids."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from semdedup.compute.session import Session
from semdedup.errors import OutputConflictError
from semdedup.runs.places import CAPTIONS_ENDING, EMBEDDINGS_ENDING, find_part
from semdedup.runs.record import Record
from semdedup.settings import needed
from semdedup.storage.location import Location, locations_of, storage_options_of
from semdedup.video.base import VideoWorkflow
from semdedup.video.clip_ids import BY_NAME, BY_PATH, of_one_name
from semdedup.video.files import FoundVideos, below, find_videos
from semdedup.video.options import DecodeOptions, VideoIOOptions
from semdedup.video.records import VideoFile
from semdedup.video.tree import CLIPS, FINGERPRINTS, METAS
from semdedup.video.video_table import stamped_by_split
from semdedup.video.worker import Settings

CLIPS_PER_TASK = 32
"""Clips that exist and are only embedded go to the workers in so many a task, so that a model gets whole batches."""


WRITTEN_BESIDE_CLIPS = (
    rf"_[^/]+\.(?:json|parquet)$|_(?:quarantine|scratch)/|[^/]+(?:{EMBEDDINGS_ENDING}|{CAPTIONS_ENDING})/|{METAS}/"
    rf"|{FINGERPRINTS}/part-\d+\.parquet$"
)
"""What `embed` and `caption` write below their output, which may be the folder of the clips."""


class ClipWorkflow(VideoWorkflow):
    """A workflow whose videos are clips, each of which is looked at as a whole."""

    unit, unit_of_tasks, per_task = "clips", "tasks", CLIPS_PER_TASK

    def _place(self, given: Mapping[str, Any]) -> None:
        """Take what says where clips are, how they are decoded, and where the results go: by default beside the clips.

        Raises:
            ParameterError: no input is given, or a value is wrong.
        """
        self.io = io = VideoIOOptions.of(given)
        self.decode = DecodeOptions.of(given)
        paths = locations_of(needed(io.input_path, "input_path"), io.read_kwargs)
        folders = [place for path in paths for place in find_part(path, "clips")]
        self.sources = [path / CLIPS if (path / CLIPS).is_dir() else path for path in folders]
        root = self.sources[0].parent if self.sources[0].name == CLIPS else folders[0]
        self.output = (
            root if io.output_path is None else Location.of(io.output_path, storage_options_of(io.write_kwargs))
        )
        self.own = below(self.output, WRITTEN_BESIDE_CLIPS)

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
            names = self.kind.folders or (self.kind.captions,)
            raise OutputConflictError(
                f"the results in {', '.join(str(self.output / name) for name in names)} go by the names of the "
                f"files, and now two clips would have the same id: {repeated[0]} and {repeated[1]}. Rename one; or "
                "take another output path, or make these results anew with clear_output=True (--overwrite): ids are "
                "paths then."
            )
        return scheme

    def parameters(self, files: Sequence[VideoFile]) -> dict[str, Any]:
        """What the result depends on beside the clips, as JSON values. Names of files as ids are not on record."""
        by_path = {"clip_ids": BY_PATH} if self.id_scheme(files) == BY_PATH else {}
        return {**self.decode.recorded(), **self.step_parameters(), **by_path}

    def settings(self, session: Session, files: Sequence[VideoFile]) -> Settings:
        """What the workers have to know."""
        return Settings(
            plan=None,
            encoder="",
            id_scheme=self.id_scheme(files),
            previews=False,
            upload_clips=False,
            limits=self.limits,
            decode=self.decode,
            steps=self.steps,
            inputs=self.sources[0],
        )
