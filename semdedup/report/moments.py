"""Pictures of videos at moments: from the clips that cover them, or from the video itself where it can be reached."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from semdedup.compute.progress import Reporter
from semdedup.errors import BadFileError, SemdedupError
from semdedup.report.strips import CHILDREN, SECONDS_A_CLIP, strip_of
from semdedup.storage.location import Location
from semdedup.storage.tables import read_batches
from semdedup.video.child import ChildDied, ChildTimeout, borrowed_child
from semdedup.video.clip_meta import read_meta
from semdedup.video.fetch import source_of
from semdedup.video.kinds import VIDEOS
from semdedup.video.options import Limits
from semdedup.video.quarantine import VideoFault
from semdedup.video.stills import StillsJob, take_stills
from semdedup.video.tree import CLIPS, meta_of_clip

HEIGHT = 120
OF_EMBEDDED = "_clips.parquet"
"""How the names of tables of videos that were embedded end."""

COLUMNS = ("video", "url", "duration_s", "clips")
ROWS = 1 << 12

Wanted = Sequence[tuple[str, Sequence[float]]]
"""Videos, each with the seconds at which it is to be seen."""


@dataclass(frozen=True)
class KnownVideo:
    """A video as the table of an output has it.

    Attributes:
        folder: of the output.
        url: of the video.
        duration_s: 0 where it is not known.
        clips: ids, in the order of their time.
    """

    folder: Location
    url: str
    duration_s: float
    clips: Sequence[str]


def find_videos(names: Sequence[str], folders: Sequence[Location]) -> dict[str, KnownVideo]:
    """What is known of some videos, from the first output of `split` or `embed` that has them. Reads its table once."""
    found: dict[str, KnownVideo] = {}
    for folder in folders:
        tables = [name for name in folder.folder_names() if name == VIDEOS or name.endswith(OF_EMBEDDED)]
        for table in sorted(tables, key=lambda name: (name != VIDEOS, name)):
            for row in _rows(folder / table, names):
                known = KnownVideo(folder, row.get("url") or "", row.get("duration_s") or 0.0, row.get("clips") or ())
                found.setdefault(row["video"], known)
    return found


def _rows(table: Location, names: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    wanted = pa.array(names, pa.string())
    try:
        for batch in read_batches(table, COLUMNS, ROWS):
            if "video" in batch.schema.names:
                yield from batch.filter(pc.is_in(batch["video"], wanted)).to_pylist()
    except (BadFileError, pa.ArrowException):  # one that is damaged tells of no videos
        return


def load_moments(
    wanted: Wanted, videos: Mapping[str, KnownVideo], most_bytes: int, reporter: Reporter
) -> list[list[str]]:
    """Pictures as ``data:`` URIs, empty where there is none, until there are `most_bytes` of them.

    Videos are decoded in processes of their own, some at a time, which the caller ends.
    """
    if not videos:
        return [["" for _ in moments] for _, moments in wanted]
    loaded: list[list[str]] = []
    n_bytes = 0
    with reporter.step("overlaps", len(wanted), "strips") as advance, ThreadPoolExecutor(CHILDREN) as pool:
        for pictures in pool.map(lambda each: _pictures(videos.get(each[0]), each[1]), wanted):
            size = sum(map(len, pictures))
            if n_bytes + size > most_bytes:
                pictures, size = ["" for _ in pictures], 0
            n_bytes += size
            loaded.append(pictures)
            advance(1)
    return loaded


def _pictures(video: KnownVideo | None, moments: Sequence[float]) -> list[str]:
    """The picture of each moment: those that clips have, the others from the video."""
    pictures = ["" for _ in moments]
    if video is None:
        return pictures
    by_clip: dict[str, list[tuple[int, float]]] = {}
    clip_at = _Clips(video)
    for i, moment_s in enumerate(moments):
        if (place := clip_at(moment_s)) is not None:
            by_clip.setdefault(place[0], []).append((i, place[1]))
    for clip, inside in by_clip.items():
        _take(video.folder / CLIPS / f"{clip}.mp4", inside, pictures)
    rest = [(i, moment_s) for i, moment_s in enumerate(moments) if not pictures[i]]
    if rest and video.url:
        source = video.folder.at(video.url)
        if source.is_local or not video.folder.is_local:  # a store that nobody has named is not asked
            _take(source, rest, pictures)
    return pictures


class _Clips:
    """Finds the clips of a video by time. Reads the metadata of as many as a binary search looks at."""

    def __init__(self, video: KnownVideo) -> None:
        self._video = video
        self._span = cache(self._read_span)

    def __call__(self, moment_s: float) -> tuple[str, float] | None:
        """The clip that shows a moment, and when in it; None where there is none."""
        clips = self._video.clips
        try:
            i = bisect_right(range(len(clips)), moment_s, key=lambda i: self._span(i)[1])
            if i < len(clips) and self._span(i)[0] <= moment_s:
                return clips[i], moment_s - self._span(i)[0]
        except (LookupError, SemdedupError):  # their metadata are gone, or malformed
            pass
        return None

    def _read_span(self, i: int) -> tuple[float, float]:
        meta = read_meta(self._video.folder.below(meta_of_clip(self._video.clips[i])))
        if not isinstance(meta, dict) or not meta.get("duration_span"):
            raise LookupError(self._video.clips[i])
        start_s, end_s = meta["duration_span"]
        return float(start_s), float(end_s)


def _take(place: Location, moments: Sequence[tuple[int, float]], pictures: list[str]) -> None:
    """Put the pictures of some moments of a file to their positions; leave those of one that cannot be read."""
    try:
        for (i, _), picture in zip(moments, _stills(place, [moment_s for _, moment_s in moments]), strict=False):
            pictures[i] = strip_of([picture], HEIGHT)
    except (SemdedupError, VideoFault, ChildDied, ChildTimeout):
        return


def _stills(place: Location, moments: Sequence[float]) -> Sequence[np.ndarray]:
    with source_of(place, sparing=True) as (source, provide), borrowed_child() as child:
        job = StillsJob(source, moments, HEIGHT, Limits(timeout_s=SECONDS_A_CLIP))
        (found,) = child.call(take_stills, job, SECONDS_A_CLIP, provide=provide)
    return found.pictures
