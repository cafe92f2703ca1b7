"""Whether the models of a run work at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from semdedup.errors import ParameterError
from semdedup.video.quarantine import CAPTION_ERROR, EMBED_ERROR
from semdedup.video.steps.caption.captioner import CaptionSpec
from semdedup.video.video_rows import VideoRows

MOST_FAILED = 20
"""Clips on which a model fails before it has worked for one; then it is given up."""


def is_of(fault: Mapping[str, Any], step: str) -> bool:
    """Whether a fault of a clip is of a step; of what versions before several embedders wrote it is not told."""
    return (fault.get("step") or step) == step


@dataclass
class Tally:
    """Whether a model works at all. One that fails on every clip is at fault itself, and ends the run.

    Attributes:
        step: name of the step that it is.
        column: of the table of videos, with the number of its clips for which the model worked.
        reason: of the quarantine, where it failed.
        verb: what it does to clips.
        known: clips that failed in earlier runs: that they fail again tells nothing.
        proven: whether it worked for clips of earlier runs.
        worked: clips of this run for which it worked.
        failed: those that are not `known` on which it failed.
        first: what it said of the first.
    """

    step: str
    column: str
    reason: str
    verb: str
    known: frozenset[str]
    proven: bool
    worked: int = 0
    failed: int = 0
    first: str = ""

    @classmethod
    def all_of(cls, before: VideoRows, embedders: Mapping[str, str]) -> list[Tally]:
        """Those of a run on a folder whose table has these rows: of its embedders, and of its captioner.

        Args:
            before: the rows.
            embedders: names of the embedders, each with the column that counts what it has embedded.
        """
        faults = [fault for _, fault in before.clip_faults()]
        models = [(name, column, EMBED_ERROR, "embedded") for name, column in embedders.items()]
        models.append((CaptionSpec.name, "n_captioned", CAPTION_ERROR, "captioned"))
        return [
            cls(*model, frozenset(fault["id"] for fault in faults if is_of(fault, model[0])), before.sum(model[1]) > 0)
            for model in models
        ]

    def take(self, rows: Iterable[Mapping[str, Any]], at_the_end: bool = False) -> None:
        """Count what became of videos, and `check`."""
        self.count(rows)
        self.check(at_the_end)

    def count(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Count what became of videos."""
        for row in rows:
            self.worked += row.get(self.column) or 0  # what an older version did has not all columns
            for fault in row["clip_faults"]:
                if fault["reason"] == self.reason and is_of(fault, self.step) and fault["id"] not in self.known:
                    self.failed, self.first = self.failed + 1, self.first or fault["detail"]

    def check(self, at_the_end: bool = False) -> None:
        """Whether to go on.

        Raises:
            ParameterError: it worked for no clip, of `MOST_FAILED`; or at the end of any, here and in earlier runs.
        """
        hopeless = self.failed >= MOST_FAILED or (at_the_end and self.failed and not self.proven)
        if hopeless and not self.worked:
            raise ParameterError(f"none of {self.failed:,} clips could be {self.verb}, of the first: {self.first}")
