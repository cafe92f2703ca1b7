"""What a run over videos gives back."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from semdedup.display import Displayable, one_line
from semdedup.video.counts import QUANTILES, Counts
from semdedup.video.records import DONE, PASSED_OVER, QUARANTINED, TOO_SHORT
from semdedup.video.video_rows import VideoRows

MOST_FAULTS = 10


def _spread(found: Mapping[str, float]) -> str:
    """How a score spreads, in words."""
    return ", ".join(f"{word} {found[word]:.3g}" for word in QUANTILES)


@dataclass(frozen=True, repr=False)
class SplitResult(Displayable):
    """Counts over everything in the output folder, and what this run added.

    Attributes:
        videos: a row for each video, as a dictionary when it is asked for, with ``status``, ``reason``, ``detail``,
            ``clips`` and more: `VIDEO_COLUMNS`.
        processed: videos that this run processed; the others were complete already.
        left_out: videos that ``limit`` left for a later run.
        seconds: time of each step, and ``total``.
        paths: where the results are.
        footage_s: seconds of video that this run processed.
    """

    videos: VideoRows
    processed: int
    left_out: int
    seconds: Mapping[str, float]
    paths: Mapping[str, str]
    footage_s: float = 0.0

    @cached_property
    def counts(self) -> Counts:
        """Counts over all videos."""
        return Counts.of(self.videos)

    def count(self, status: str) -> int:
        """Videos of a status."""
        return self.counts.by_status[status]

    @property
    def clips(self) -> int:
        """Clips in the folder."""
        return self.counts.n_clips

    @property
    def embedded(self) -> int:
        """Clips with an embedding; of several embedders with one of each."""
        return self.counts.n_embedded

    @property
    def quarantined(self) -> Mapping[str, int]:
        """Videos in quarantine, by reason."""
        return dict(sorted(self.counts.by_reason.items()))

    @property
    def quarantined_clips(self) -> Mapping[str, int]:
        """Clips in quarantine, by reason; their videos went on."""
        return dict(sorted(self.counts.clips_by_reason.items()))

    @property
    def clean(self) -> bool:
        """Whether nothing is in quarantine."""
        return not (self.quarantined or self.quarantined_clips)

    @property
    def malformed_metadata(self) -> int:
        """Clips that were embedded as if they had no metadata, for these are malformed."""
        return self.counts.malformed

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that is known."""
        seconds, passed_over = self.counts.seconds("clip_seconds"), self.counts.passed_over()
        by_folder = self.counts.by_folder
        lines = [
            ("videos", f"{len(self.videos):,}"),
            ("  done", f"{self.count(DONE):,}"),
            ("  too short", f"{self.count(TOO_SHORT):,}"),
            ("  in quarantine", f"{self.count(QUARANTINED):,}"),
        ]
        lines += [(f"    {reason}", f"{count:,}") for reason, count in self.quarantined.items()]
        lines += [
            *((f"  {PASSED_OVER[name][1]}", f"{count:,}") for name, count in passed_over.items() if count),
            ("processed by this run", f"{self.processed:,}"),
            *([("left for another run", f"{self.left_out:,}")] if self.left_out else []),
            ("clips", f"{self.clips:,} ({seconds:,.1f} s)"),
            ("  with embedding" if len(by_folder) < 2 else "  with all embeddings", f"{self.embedded:,}"),
            *((f"    {folder}", f"{count:,}") for folder, count in by_folder.items()),
            *([("  with captions", f"{self.counts.n_captioned:,}")] if self.counts.n_captioned else []),
            *((f"  {name.replace('_', ' ')}", f"{count:,}") for name, count in self.counts.marked.items() if count),
            *((f"  {name}", _spread(found)) for name, found in self.counts.spread().items()),
            *([("  in quarantine", f"{sum(self.quarantined_clips.values()):,}")] if self.quarantined_clips else []),
            *((f"    {reason}", f"{count:,}") for reason, count in self.quarantined_clips.items()),
            *([("  with malformed metadata", f"{self.malformed_metadata:,}")] if self.malformed_metadata else []),
        ]
        lines += [(f"{step} seconds", f"{time:.1f}") for step, time in self.seconds.items()]
        if self.footage_s and self.seconds.get("total"):
            lines.append(("speed", f"{self.footage_s / self.seconds['total']:.1f} x real time"))
        return lines + list(self.paths.items())

    def to_json(self) -> dict[str, Any]:
        """Counts, times and places as JSON values."""
        by_status = {status: self.count(status) for status in (DONE, TOO_SHORT, QUARANTINED)}
        return {
            **super().to_json(),
            "videos": {"all": len(self.videos), **by_status},
            "quarantined": self.quarantined,
            "clips": self.clips,
            "clips_s": self.counts.seconds("clip_seconds"),
            "embedded": self.embedded,
            **({"embedded_by_folder": dict(self.counts.by_folder)} if self.counts.by_folder else {}),
            "marked": dict(self.counts.marked),
            "quarantined_clips": self.quarantined_clips,
            "malformed_metadata": self.malformed_metadata,
        }

    def faults(self) -> list[str]:
        """What is wrong with what is in quarantine: a line for each of the first, and how many more there are."""
        videos = ((video["video"], video) for video in self.videos.where("status", QUARANTINED))
        clips = ((f"clip {fault['id']} of {video}", fault) for video, fault in self.videos.clip_faults())
        bad = itertools.islice(itertools.chain(videos, clips), MOST_FAULTS)
        lines = [one_line(f"{name}: {found['reason']}: {found['detail']}") for name, found in bad]
        more = self.count(QUARANTINED) + sum(1 for _ in self.videos.clip_faults()) - MOST_FAULTS
        return [*lines, f"and {more:,} more, in the quarantine"] if more > 0 else lines
