"""The tree of cosmos-curate: samples binned by resolution, aspect ratio and duration, metadata in tars of their own.

Its own bins leave out clips of less than 5 seconds, those wider than ten times their height, and those whose size or
length is not known, without a message. Here these have bins too: no layout loses clips.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from semdedup.shards.layouts.base import ShardLayout, WrittenShard
from semdedup.storage.location import json_bytes

if TYPE_CHECKING:
    from semdedup.storage.location import Location

TARS_PER_PART = 100
"""Tars of one folder ``part_000000``."""

VIDEO_TARS, METAS_TARS = "video", "metas"
"""Folders of a bin with the tars of clips, and the parallel ones of their metadata."""

WDINFO, WDINFO_LIST = "wdinfo.json", "wdinfo_list.csv"

RESOLUTIONS = (("1080", 1080), ("720", 720), ("lt_720", 0))
"""Name, and the least of height and width."""

ASPECT_RATIOS = (("9_16", 0.65), ("3_4", 0.88), ("1_1", 1.16), ("4_3", 1.55), ("16_9", math.inf))
"""Name, and the largest width over height."""

DURATIONS = (("lt_5", 0.0, 5.0), ("5_10", 5.0, 10.0), ("10_30", 10.0, 30.0), ("30_inf", 30.0, math.inf))
"""Name, and seconds from and to. Both ends are included, but for that of the first; the first that fits counts."""

BINS = (
    *(
        f"resolution_{resolution}/aspect_ratio_{ratio}/duration_{duration}"
        for resolution, _ in RESOLUTIONS
        for ratio, _ in ASPECT_RATIOS
        for duration, *_ in DURATIONS
    ),
    "resolution_unknown/aspect_ratio_unknown/duration_unknown",
)
"""Folders of the bins, in the order in which they are numbered. The last is for clips without usable metadata."""


def bin_of(meta: Mapping[str, Any]) -> int:
    """The number of the bin that a clip falls in, by its metadata.

    >>> BINS[bin_of({"width": 1920, "height": 1080, "num_frames": 250, "framerate": 25})]
    'resolution_1080/aspect_ratio_16_9/duration_5_10'
    """
    values = [meta.get(name) for name in ("width", "height", "num_frames", "framerate")]
    if not all(isinstance(v, (int, float)) and not isinstance(v, bool) and 0 < v < math.inf for v in values):
        return len(BINS) - 1
    width, height, n_frames, rate = map(float, values)  # type: ignore[arg-type]
    resolution = next(i for i, (_, least) in enumerate(RESOLUTIONS) if min(width, height) >= least)
    ratio = next(i for i, (_, most) in enumerate(ASPECT_RATIOS) if width / height <= most)
    seconds = n_frames / rate
    short = seconds < DURATIONS[0][2]
    duration = 0 if short else next(i for i, (_, low, high) in enumerate(DURATIONS) if i and low <= seconds <= high)
    return (resolution * len(ASPECT_RATIOS) + ratio) * len(DURATIONS) + duration


class CosmosLayout(ShardLayout):
    """``{version}/{bin}/video/part_000000/000000.tar``, …, and beside ``video`` the same under ``metas``."""

    name = "cosmos"
    tar_columns: ClassVar = {"mp4": "shard", "json": "json_shard"}
    n_bins = len(BINS)
    extra_names = (WDINFO, WDINFO_LIST)
    loading = """import json
import webdataset as wds

shards = [shard["name"] for shard in json.load(open("manifest.json"))["shards"]]
videos = wds.WebDataset([name for name in shards if "/video/" in name], shardshuffle=False)
metas = wds.WebDataset([name for name in shards if "/metas/" in name], shardshuffle=False).decode()
for sample, known in zip(videos, metas, strict=True):
    video, about = sample["mp4"], known["json"]  # bytes of the clip, and a dict
"""

    def tar_names(self, version: str, bin_: int, number: int) -> dict[str, str]:
        """A tar of clips and one of their metadata.

        >>> CosmosLayout().tar_names("v0", 0, 101)["shard"]
        'v0/resolution_1080/aspect_ratio_9_16/duration_lt_5/video/part_000001/000001.tar'
        """
        part, tar = divmod(number, TARS_PER_PART)
        folder, name = f"{version}/{BINS[bin_]}", f"part_{part:06d}/{tar:06d}.tar"
        return {"shard": f"{folder}/{VIDEO_TARS}/{name}", "json_shard": f"{folder}/{METAS_TARS}/{name}"}

    def bin_of(self, meta: Mapping[str, Any]) -> int:
        """See the function `bin_of`."""
        return bin_of(meta)

    def extra_files(self, root: Location, version: str, shards: Sequence[WrittenShard]) -> Iterator[tuple[str, bytes]]:
        """``wdinfo.json`` of each bin, and ``wdinfo_list.csv`` with the paths of those: what loaders begin with."""
        infos = []
        for bin_ in sorted({shard.bin for shard in shards}):
            folder = f"{version}/{BINS[bin_]}"
            infos.append(f"{folder}/{WDINFO}")
            yield infos[-1], json_bytes(wdinfo(root, folder, [shard for shard in shards if shard.bin == bin_]))
        yield f"{version}/{WDINFO_LIST}", "".join(f"{root / name}\n" for name in infos).encode()


def wdinfo(root: Location, folder: str, shards: Sequence[WrittenShard]) -> dict[str, Any]:
    """Content of ``wdinfo.json`` of the bin in this folder, in the form that loaders of cosmos-curate's tree read."""
    place = (root / folder).url
    return {
        "data_keys": [VIDEO_TARS, METAS_TARS],
        "chunk_size": TARS_PER_PART,
        "data_list": [shard.tars["shard"].removeprefix(f"{folder}/{VIDEO_TARS}/") for shard in shards],
        "data_list_key_count": [shard.samples for shard in shards],
        "root": place if root.is_local else place.partition("://")[2].partition("/")[2],
        "total_key_count": sum(shard.samples for shard in shards),
    }
