"""What a search for overlaps found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from semdedup.dedup.results.frames import frame_of_files
from semdedup.display import Displayable, clock, one_line
from semdedup.overlaps.compare import LONGEST, longest_of
from semdedup.overlaps.names import OVERLAPS
from semdedup.storage.batches import ROWS_PER_BATCH
from semdedup.storage.location import Location
from semdedup.storage.tables import open_parquet, read_batches

if TYPE_CHECKING:
    import dask.dataframe as dd


@dataclass(frozen=True, repr=False)
class OverlapsResult(Displayable):
    """Counts over everything in the output folder.

    Attributes:
        facts: ``videos`` with a track, of these ``base_videos``; ``video_seconds``; ``overlaps``, the stretches that
            two videos share, or one has twice; ``pairs`` of different videos that share one, videos ``within`` which
            one is repeated; ``overlap_seconds`` of the worse-ranked videos; ``clips`` of the videos that were compared,
            ``duplicates`` among them, which go, and their ``duplicate_seconds``; clips ``without_track`` and
            ``without_span``, which stay; ``clips_from``, the folder that tells of the clips, empty where none does.
        seconds: time of the run, without forcing files to disk.
        paths: what was written, by table.
        root: the output folder.
        resumed: whether an earlier run had written the same already, and nothing was done.
    """

    facts: Mapping[str, Any]
    seconds: float
    paths: Mapping[str, str]
    root: Location
    resumed: bool = False

    @property
    def videos(self) -> int:
        """Videos with a track."""
        return int(self.facts["videos"])

    @property
    def video_seconds(self) -> float:
        """Seconds of all tracks."""
        return float(self.facts["video_seconds"])

    @property
    def pairs(self) -> int:
        """Pairs of different videos that share a stretch."""
        return int(self.facts["pairs"])

    @property
    def overlaps(self) -> int:
        """Stretches that two videos share, or one has twice."""
        return int(self.facts["overlaps"])

    @property
    def overlap_seconds(self) -> float:
        """Their seconds in the worse-ranked video."""
        return float(self.facts["overlap_seconds"])

    @property
    def clips(self) -> int:
        """Clips of the videos that were compared."""
        return int(self.facts["clips"])

    @property
    def duplicates(self) -> int:
        """Clips that go by overlap."""
        return int(self.facts["duplicates"])

    def longest(self, n: int = LONGEST) -> pd.DataFrame:
        """The n longest overlaps, longest first. More than `LONGEST` are a reading of the table."""
        rows = self.facts["longest"]
        if n > len(rows) and len(rows) < self.overlaps:
            rows = self._read_longest(n)
        with open_parquet(self.root.at(self._files()[0].url)) as parquet:
            schema: pa.Schema = parquet.schema_arrow
        return pa.Table.from_pylist(list(rows[:n]), schema).to_pandas()

    def _read_longest(self, n: int) -> list[dict[str, Any]]:
        longest: list[dict[str, Any]] = []
        for file in self._files():
            place = self.root.at(file.url)
            with open_parquet(place) as parquet:
                names = parquet.schema_arrow.names
            for batch in read_batches(place, names, ROWS_PER_BATCH):
                longest = longest_of([*longest, *batch.to_pylist()], n)
        return longest

    def _files(self) -> Any:
        return (self.root / OVERLAPS).files().ending_in(".parquet")

    def frame(self) -> dd.DataFrame:
        """The overlaps as a Dask DataFrame."""
        return frame_of_files(self.root, self._files())

    def to_json(self) -> dict[str, Any]:
        """Everything that there is to tell, as JSON values."""
        return {**self.facts, "seconds": self.seconds, "paths": dict(self.paths)}

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell, the longest overlaps last."""
        facts = self.facts
        lines = [("videos", f"{self.videos:,} ({clock(self.video_seconds)})")]
        if facts["base_videos"]:
            lines.append(("  of the base", f"{facts['base_videos']:,}"))
        lines += [
            ("overlaps", f"{self.overlaps:,} ({clock(self.overlap_seconds)})"),
            ("  pairs of videos", f"{self.pairs:,}"),
            ("  videos that repeat a part", f"{facts['within']:,}"),
            ("clips", f"{self.clips:,}" if facts["clips_from"] else "none are there"),
            ("  duplicates by overlap", f"{self.duplicates:,} ({clock(facts['duplicate_seconds'])})"),
        ]
        others = {"without_track": "  of videos without a track", "without_span": "  without a time"}
        lines += [(words, f"{facts[name]:,}") for name, words in others.items() if facts[name]]
        lines += [("seconds", f"{self.seconds:.1f}"), *self.paths.items()]
        return [*lines, *_in_words(facts["longest"])]


def _in_words(longest: Any) -> list[tuple[str, str]]:
    """The longest overlaps, a line each: how long, and where in which videos."""
    words = []
    for row in longest:
        ends = (f"{one_line(row[f'video_{x}'])} {clock(row[f'start_{x}_s'])}–{clock(row[f'end_{x}_s'])}" for x in "ab")
        mirrored = ", mirrored" * bool(row.get("mirrored"))
        speed = f", speed {row['speed']:.3g}" * (round(row["speed"], 3) != 1)
        words.append((clock(row["end_b_s"] - row["start_b_s"]), " = ".join(ends) + speed + mirrored))
    return [("longest overlaps", "better-ranked video = worse-ranked video"), *words] if words else []
