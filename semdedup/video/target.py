"""Where the results of a run over videos go, and what of them is put in place by tasks."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semdedup.runs.owner import check_owner
from semdedup.storage.location import Location, json_bytes
from semdedup.video.clip_ids import BY_NAME, BY_PATH, file_id
from semdedup.video.clip_meta import read_meta
from semdedup.video.files import printable
from semdedup.video.records import meta_of_file
from semdedup.video.steps.caption.windows import WINDOWS
from semdedup.video.steps.protocol import StepSpec
from semdedup.video.tree import meta_of_clip


@dataclass(frozen=True)
class Target:
    """Where the results of a run go.

    Attributes:
        root: folder for the results.
        scratch: folder for what is not yet complete.
        token: of the run: one that was overtaken puts nothing in place any more.
        tracks: whether fingerprint tracks of the videos are among them.
    """

    root: Location
    scratch: Location
    token: str
    tracks: bool

    def put(self, name: str, path: Path) -> None:
        """Put a finished file in place. Raises `OutputConflictError` where another run has taken over."""
        check_owner(self.root, self.token)
        (self.root / name).take(path)

    def put_json(self, name: str, value: Any, folder: Path) -> None:
        """Write a file by way of the work folder: what a kill leaves half-written is left there, and goes with it."""
        made = folder / f"{uuid.uuid4().hex}.json"
        with (self.root / name).errors("write"):
            made.write_bytes(json_bytes(value))
        self.put(name, made)

    def put_captions(self, clip: Mapping[str, Any], steps: Sequence[StepSpec], id_scheme: str, folder: Path) -> str:
        """Add the captions of a clip that is a file to its metadata, which are made where there are none.

        Where ids are paths, metadata are of the clips right in the folder, by their names: so `shard` reads them.

        Returns:
            What is wrong with the metadata, which stay as they are then.
        """
        clip_id = str(clip["id"])
        if id_scheme == BY_PATH:
            if "/" in clip_id:
                return ""
            clip_id = file_id(BY_NAME, clip_id)
        name = meta_of_clip(clip_id)
        earlier = read_meta(self.root / name)
        if isinstance(earlier, str):
            return f"{printable((self.root / name).url)} {earlier}"
        if earlier or clip.get(WINDOWS):
            self.put_json(name, meta_of_file(clip, earlier or {}, steps), folder)
        return ""
