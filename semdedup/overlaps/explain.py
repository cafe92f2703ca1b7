"""Why a clip of a run goes by overlap: what shows it."""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow.compute as pc

from semdedup.overlaps.folders import drop_when_of, overlaps_below
from semdedup.overlaps.names import DUPLICATE_COLUMNS, OVERLAP_DUPLICATES
from semdedup.runs.places import around
from semdedup.settings.choices import DropWhen
from semdedup.storage.batches import ROWS_PER_BATCH
from semdedup.storage.location import Location
from semdedup.storage.tables import read_batches


@dataclass(frozen=True)
class ShownClip:
    """A clip that goes by overlap.

    Attributes:
        id: of the clip.
        video: that shows it.
        start_s, end_s: where, in seconds of that video.
        drop_when: of the run; with ``both`` the clip stays unless it is a near-duplicate, too.
    """

    id: str
    video: str
    start_s: float
    end_s: float
    drop_when: DropWhen

    def __str__(self) -> str:
        where = f"{self.video} shows it from {self.start_s:.2f} s to {self.end_s:.2f} s"
        if self.drop_when == "both":
            return f"{self.id} goes by overlap if it is a near-duplicate, too: {where}"
        return f"{self.id} goes by overlap: {where}"


def find_shown(results: Location, clip_id: str) -> ShownClip | None:
    """What shows a clip of a run, given its root or a dedup below it; None where it does not go by overlap, or the path
    is of no run. Cost: a reading of the clips that go."""
    found = ((root, when) for root in around(results) if (when := drop_when_of(root)) is not None)
    root, when = next(found, (None, None))
    if root is None or when is None:
        return None
    for folder in overlaps_below(root):
        for file in (folder / OVERLAP_DUPLICATES).files().ending_in(".parquet"):
            for batch in read_batches(folder.at(file.url), DUPLICATE_COLUMNS.names, ROWS_PER_BATCH):
                for row in batch.filter(pc.equal(batch["id"], clip_id)).to_pylist():
                    return ShownClip(**row, drop_when=when)
    return None
