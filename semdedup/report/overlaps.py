"""What the page shows of overlaps: counts over all of them, and some of the longest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from semdedup.errors import InputError
from semdedup.overlaps.folders import drop_when_of, overlaps_below
from semdedup.overlaps.names import MIRRORED, OVERLAP_COLUMNS, OVERLAP_DUPLICATES, OVERLAPS, STEP
from semdedup.runs.lookup import check_recorded
from semdedup.runs.record import FILE_NAME, Record
from semdedup.storage.location import Location
from semdedup.storage.tables import read_batches

COLUMNS = tuple(OVERLAP_COLUMNS.names)
VIDEOS = ("video_a", "video_b")
TIMES = tuple(name for name in COLUMNS if name not in VIDEOS)

N_SHOWN, N_LONGEST = 20, 400
"""Overlaps that are shown, and the longest, of which these are chosen."""

ROWS = 1 << 16
"""That are read at a time."""


class Stretch(NamedTuple):
    """A stretch of time of a video."""

    video: str
    start_s: float
    end_s: float


@dataclass(frozen=True)
class Overlap:
    """A stretch of time that two videos share, or one shows twice: `a` is the better-ranked video, or comes first.

    The moment `t_b` of b is the moment ``start_a_s + speed * (t_b - start_b_s)`` of a. Times are in seconds.
    """

    video_a: str
    start_a_s: float
    end_a_s: float
    video_b: str
    start_b_s: float
    end_b_s: float
    speed: float
    score: float
    mirrored: bool = False

    @property
    def seconds(self) -> float:
        """How long b shows it."""
        return self.end_b_s - self.start_b_s

    @property
    def sides(self) -> tuple[Stretch, Stretch]:
        """The stretches of a and of b."""
        return (
            Stretch(self.video_a, self.start_a_s, self.end_a_s),
            Stretch(self.video_b, self.start_b_s, self.end_b_s),
        )

    def moments(self, n: int) -> list[tuple[float, float]]:
        """Moments of a and of b that show the same, at the middles of n equal parts.

        >>> Overlap("a", 10, 14, "b", 0, 4, 1.0, 0.9).moments(2)
        [(11.0, 1.0), (13.0, 3.0)]
        """
        offsets = [self.seconds * (i + 0.5) / n for i in range(n)]
        return [(self.start_a_s + self.speed * offset, self.start_b_s + offset) for offset in offsets]


@dataclass(frozen=True)
class OverlapSurvey:
    """Counts of tables of overlaps, and some of the longest.

    Attributes:
        overlaps: how many there are.
        pairs: of different videos that share one.
        within: videos that repeat a part.
        seconds: of all overlaps together.
        clips: that go by overlap.
        both: whether these go only where they are near-duplicates, too.
        shown: at most `N_SHOWN`, see `varied`.
    """

    overlaps: int
    pairs: int
    within: int
    seconds: float
    clips: int
    both: bool
    shown: Sequence[Overlap]


def outputs_at(path: Location) -> Sequence[Location]:
    """The output of `find_overlaps` at a path, or those of the run whose root it is.

    Raises:
        InputError: there is none, or it is not complete.
    """
    found = overlaps_below(path)
    is_output = not found and (path / OVERLAPS).is_dir()
    if is_output and (not (path / FILE_NAME).exists() or Record(path).committed(STEP) is not None):
        found = (path,)
    if not found:
        raise InputError(
            f"no overlaps in {path}; give an output of find_overlaps that is complete, or the root of a run"
        )
    return found


def survey_overlaps(outputs: Sequence[Location]) -> OverlapSurvey:
    """Count what is in outputs of `find_overlaps`. Memory: 8 bytes for each pair of videos and each clip that goes.

    Raises:
        InputError: a table lacks columns or holds times that are none, or one on record is missing.
    """
    longest = pd.DataFrame()
    n_rows, seconds = 0, 0.0
    pairs, within, clips = _Distinct(), _Distinct(), _Distinct()
    for frame in _frames(outputs, OVERLAPS, COLUMNS, [MIRRORED]):
        n_rows += len(frame)
        frame = frame.assign(**{MIRRORED: frame.get(MIRRORED, False)})[[*COLUMNS, MIRRORED]]
        frame["seconds"] = frame["end_b_s"] - frame["start_b_s"]
        seconds += float(frame["seconds"].sum())
        is_within = frame["video_a"] == frame["video_b"]
        pairs.add(frame.loc[~is_within, list(VIDEOS)])
        within.add(frame.loc[is_within, ["video_a"]])
        order = ["video_a", "start_a_s", "video_b", "start_b_s"]
        longest = pd.concat([longest, frame]) if len(longest) else frame
        longest = longest.sort_values(["seconds", *order], ascending=[False, *[True] * len(order)]).head(N_LONGEST)
    for frame in _frames(outputs, OVERLAP_DUPLICATES, ["id"], []):
        clips.add(frame)
    rows = longest.drop(columns="seconds").itertuples(index=False) if len(longest) else ()
    return OverlapSurvey(
        overlaps=n_rows,
        pairs=len(pairs),
        within=len(within),
        seconds=seconds,
        clips=len(clips),
        both=bool(outputs) and drop_when_of(outputs[0].parent) == "both",
        shown=varied([Overlap(*row) for row in rows])[:N_SHOWN],
    )


def varied(longest: Sequence[Overlap]) -> list[Overlap]:
    """Overlaps in the order in which they tell most, given the longest first.

    Of n copies each two share a stretch. So each worse-ranked video comes once, beside one that is worse than none of
    the others where there is such a one, and the better-ranked videos take turns; then come the rest.

    >>> a, b, c = (Overlap(*each, 0, 9, 1.0, 0.9) for each in (("y", 0, 9, "z"), ("x", 0, 9, "y"), ("x", 0, 9, "z")))
    >>> varied([a, b, c]) == [b, c, a]
    True
    """
    worse = {overlap.video_b for overlap in longest if overlap.video_a != overlap.video_b}
    once: dict[tuple[str, bool], Overlap] = {}
    for overlap in sorted(longest, key=lambda overlap: overlap.video_a in worse):
        once.setdefault((overlap.video_b, overlap.video_a == overlap.video_b), overlap)
    by_better: dict[str, list[Overlap]] = {}
    for overlap in sorted(once.values(), key=lambda overlap: -overlap.seconds):
        by_better.setdefault(overlap.video_a, []).append(overlap)
    turns = [overlap for turn in itertools.zip_longest(*by_better.values()) for overlap in turn if overlap is not None]
    first = set(turns)
    return turns + [overlap for overlap in longest if overlap not in first]


def _frames(
    outputs: Iterable[Location], folder: str, needed: Sequence[str], others: Sequence[str]
) -> Iterator[pd.DataFrame]:
    """The tables of one folder of each output, so many rows at a time."""
    for output in outputs:
        files = (output / folder).files().ending_in(".parquet")
        check_recorded(output / folder, files, lambda url: url.endswith(".parquet"))
        for file in files:
            place = output.at(file.url)
            for batch in read_batches(place, [*needed, *others], ROWS):
                if missing := [name for name in needed if name not in batch.schema.names]:
                    raise InputError(f"{place} has no column {missing[0]}: it is no table of find_overlaps")
                yield _checked(batch, place)


def _checked(batch: pa.RecordBatch, place: Location) -> pd.DataFrame:
    frame = batch.to_pandas()
    times = [name for name in TIMES if name in frame]
    try:
        frame = frame.astype({**dict.fromkeys(times, float), **({MIRRORED: bool} if MIRRORED in frame else {})})
    except (TypeError, ValueError) as error:
        raise InputError(f"{place} is no table of find_overlaps: {error}") from error
    values = frame[times].to_numpy()
    if not np.isfinite(values).all() or (times and (frame["end_b_s"] < frame["start_b_s"]).any()):
        raise InputError(f"{place} is no table of find_overlaps: it holds times that are none")
    return frame


class _Distinct:
    """Counts rows that differ, by a hash of 64 bits."""

    def __init__(self) -> None:
        self._seen = np.zeros(0, np.uint64)

    def add(self, frame: pd.DataFrame) -> None:
        hashes = pd.util.hash_pandas_object(frame, index=False).to_numpy()
        self._seen = np.union1d(self._seen, hashes)

    def __len__(self) -> int:
        return len(self._seen)
