"""Counts over the videos of a folder, from rows of the table of videos."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.video.records import DONE, PASSED_OVER, QUARANTINED, TOO_SHORT, of_embedder
from semdedup.video.steps.table import SCORES, counted
from semdedup.video.video_rows import VideoRows

QUANTILES = {"5 %": 0.05, "median": 0.5, "95 %": 0.95}
"""Of scores, with their words."""

OF_A_FOLDER = of_embedder("n_rows", "")
"""How the names of columns begin that count the embeddings of one of several embedders."""

MOST_LISTED = 1000
"""Names that a summary lists; all of them are in the table of videos."""


class Counts:
    """Counts over rows, a batch at a time. The same batches give the same counts to the last digit.

    Attributes:
        n_videos: rows.
        n_clips: clips that there are.
        n_embedded: clips with an embedding; of several embedders with one of each.
        by_folder: of several embedders the clips that each has embedded, by its folder.
        n_captioned: clips with captions.
        n_captions: captions of their windows.
        n_fingerprints: vectors of the tracks of videos.
        by_status: videos.
        by_reason: videos in quarantine.
        clips_by_reason: clips in quarantine; their videos went on.
        marked: clips that a step has marked, by the name of the mark.
        malformed: metadata that could not be used.
        scores: the numbers that clips have, by the name of the score: float32 arrays, one after the other.
    """

    def __init__(self) -> None:
        self.n_videos = self.n_clips = self.n_embedded = self.n_fingerprints = self.malformed = 0
        self.n_captioned = self.n_captions = 0
        self.by_folder = Counter[str]()
        self.by_status, self.by_reason, self.clips_by_reason = Counter[str](), Counter[str](), Counter[str]()
        self.marked = dict.fromkeys(counted(), 0)
        self.scores: dict[str, list[np.ndarray]] = {name: [] for name in SCORES}
        self._longest_s, self._n_bytes, self._clip_bytes = 0.0, 0, 0
        self._too_short: list[str] = []
        self._of_batches: dict[str, list[float]] = {name: [] for name in ("duration_s", "clip_seconds", *PASSED_OVER)}

    @classmethod
    def of(cls, rows: VideoRows) -> Counts:
        """Those over all rows."""
        counts = cls()
        for batch in rows.batches:
            counts.add(batch)
        return counts

    def add(self, batch: pa.RecordBatch) -> None:
        """Count rows."""
        rows = VideoRows([batch])
        self.n_videos += len(rows)
        self.n_clips += rows.n_clips
        self.n_embedded += rows.sum("n_rows")
        for name in batch.schema.names:
            if name.startswith(OF_A_FOLDER):
                self.by_folder[name.removeprefix(OF_A_FOLDER)] += rows.sum(name)
        self.n_fingerprints += rows.sum("n_fingerprints")
        self.n_captioned += rows.sum("n_captioned")
        self.n_captions += rows.sum("n_captions")
        self.malformed += sum(1 for _ in rows.meta_faults())
        self.by_status.update(_counted(batch["status"]))
        self.by_reason.update(_counted(batch["reason"].filter(pc.equal(batch["status"], QUARANTINED))))
        faults = {(video, fault["id"], fault["reason"]) for video, fault in rows.clip_faults()}
        self.clips_by_reason.update(reason for _, _, reason in faults)  # a clip on which two embedders fail is one
        for name in self.marked:
            self.marked[name] += rows.sum(f"n_{name}")
        for name, found in self.scores.items():
            found.append(batch[f"clip_{name}"].flatten().drop_null().to_numpy())
        self._longest_s = max(self._longest_s, pc.max(batch["longest_clip_s"]).as_py() or 0.0)
        self._n_bytes += rows.sum("n_bytes")
        self._clip_bytes += rows.sum("clip_bytes")
        short = batch["video"].filter(pc.equal(batch["status"], TOO_SHORT)).to_pylist()
        self._too_short = heapq.nsmallest(MOST_LISTED, [*self._too_short, *short])
        for name, sums in self._of_batches.items():
            sums.append(math.fsum(rows.numbers(name)))

    def seconds(self, name: str) -> float:
        """The sum of a column of seconds: ``duration_s`` or ``clip_seconds``."""
        return round(math.fsum(self._of_batches[name]), 6)

    def spread(self) -> dict[str, dict[str, float]]:
        """How the scores that are measured spread: how many clips have one, and quantiles, by the name of the score."""
        every = {name: np.concatenate([np.zeros(0), *found]) for name, found in self.scores.items()}
        return {
            name: {
                "clips": len(values),
                **{word: float(f"{np.quantile(values, q):.6g}") for word, q in QUANTILES.items()},
            }
            for name, values in every.items()
            if len(values)
        }

    def passed_over(self) -> dict[str, float]:
        """How much of videos is not in their clips, by the names of `PASSED_OVER`; what older versions made has 0."""
        return {
            name: int(self.seconds(name)) if pa.types.is_integer(kind) else self.seconds(name)
            for name, (kind, _) in PASSED_OVER.items()
        }

    def summary(self, embedders: Sequence[str]) -> dict[str, Any]:
        """What ``summary.json`` holds, of these embedders: the name of one, or the list of several."""
        by_folder = {"num_clips_with_embeddings_by_folder": dict(sorted(self.by_folder.items()))}
        return {
            "num_input_videos": self.n_videos,
            "num_processed_videos": self.by_status[DONE],
            "num_too_short_videos": self.by_status[TOO_SHORT],
            "num_quarantined_videos": self.by_status[QUARANTINED],
            "quarantined_by_reason": dict(sorted(self.by_reason.items())),
            "num_quarantined_clips": self.clips_by_reason.total(),
            "quarantined_clips_by_reason": dict(sorted(self.clips_by_reason.items())),
            "too_short_videos": self._too_short,
            "embedding_algorithm": (list(embedders) if len(embedders) > 1 else embedders[0]) if embedders else None,
            "total_video_bytes": self._n_bytes,
            "total_video_duration": self.seconds("duration_s"),
            "total_clip_duration": self.seconds("clip_seconds"),
            "max_clip_duration": self._longest_s,
            "total_clip_bytes": self._clip_bytes,
            "total_num_clips": self.n_clips,
            "total_num_clips_with_embeddings": self.n_embedded,
            **(by_folder if self.by_folder else {}),
            "total_num_clips_with_captions": self.n_captioned,
            "total_num_captions": self.n_captions,
            "total_num_fingerprints": self.n_fingerprints,
            **{f"total_{name}": count for name, count in self.passed_over().items()},
            **{f"total_num_clips_{name}": count for name, count in self.marked.items()},
            **{f"clip_{name}": found for name, found in self.spread().items()},
        }


def _counted(column: pa.Array) -> dict[str, int]:
    return {each["values"]: each["counts"] for each in pc.value_counts(column).to_pylist()}
