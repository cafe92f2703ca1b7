"""The flat layout: ``00000.tar``, ``00001.tar``, …, each with whole samples."""

from __future__ import annotations

from typing import ClassVar

from semdedup.shards.layouts.base import ShardLayout


class FlatLayout(ShardLayout):
    """Numbered tars with whole samples, embeddings included."""

    name = "flat"
    tar_columns: ClassVar = {"mp4": "shard", "json": "shard", "npy": "shard"}
    loading = """import json
import webdataset as wds

shards = [shard["name"] for shard in json.load(open("manifest.json"))["shards"]]
dataset = wds.WebDataset(shards, shardshuffle=False).decode()
for sample in dataset:
    video, about = sample["mp4"], sample["json"]  # bytes of the clip, and a dict
"""

    def tar_names(self, version: str, bin_: int, number: int) -> dict[str, str]:
        """One tar a shard.

        >>> FlatLayout().tar_names("v0", 0, 12)
        {'shard': '00012.tar'}
        """
        return {"shard": f"{number:05d}.tar"}
