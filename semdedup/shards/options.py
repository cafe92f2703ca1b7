"""What a user can choose about a dataset."""

from __future__ import annotations

import re
from dataclasses import dataclass

from semdedup.errors import ParameterError
from semdedup.shards.layouts import LAYOUTS
from semdedup.video.tree import ANNOTATION_VERSION

MIB = 1 << 20


@dataclass(frozen=True)
class ShardOptions:
    """What shards look like.

    Attributes:
        annotation_version: which metadata: that of the folder ``metas/{version}``.
        layout: ``flat``: ``00000.tar``, …, samples whole; ``cosmos``: the tree of cosmos-curate, binned by resolution,
            aspect ratio and duration, with videos and metadata in tars of their own.
        samples_per_shard: most samples of a shard.
        target_tar_size_mb: most MiB of a shard; a sample that is larger has a shard of its own.
        with_embeddings: whether samples get their embedding; or the name of the folder of embeddings, if there are
            several.
        shuffle_seed: samples are in the order of a hash of their id with this seed; None: of their id.
    """

    annotation_version: str = ANNOTATION_VERSION
    layout: str = "flat"
    samples_per_shard: int = 10_000
    target_tar_size_mb: float = 500
    with_embeddings: bool | str = False
    shuffle_seed: int | None = None

    def __post_init__(self) -> None:
        if self.layout not in tuple(LAYOUTS):  # a list, say, cannot be looked up
            raise ParameterError(f"layout must be one of {', '.join(LAYOUTS)}; got {self.layout!r}")
        if not isinstance(self.annotation_version, str) or not re.fullmatch(
            r"[A-Za-z0-9_-][A-Za-z0-9._-]*", self.annotation_version
        ):
            raise ParameterError(f"annotation_version must be the name of a folder; got {self.annotation_version!r}")
        if not _is_whole(self.samples_per_shard) or self.samples_per_shard < 1:
            raise ParameterError(f"samples_per_shard must be a whole number from 1 on; got {self.samples_per_shard!r}")
        size = self.target_tar_size_mb
        if isinstance(size, bool) or not isinstance(size, (int, float)) or not 0 < size < float("inf"):
            raise ParameterError(f"target_tar_size_mb must be a number above 0; got {size!r}")
        if self.shuffle_seed is not None and not _is_whole(self.shuffle_seed):
            raise ParameterError(f"shuffle_seed must be a whole number, or None; got {self.shuffle_seed!r}")
        if self.with_embeddings and "npy" not in LAYOUTS[self.layout].tar_columns:
            others = " or ".join(name for name, layout in LAYOUTS.items() if "npy" in layout.tar_columns)
            raise ParameterError(
                f"with_embeddings: the layout {self.layout} has no place for embeddings; take the layout {others}"
            )

    @property
    def most_bytes(self) -> int:
        """Most bytes of the samples of a shard."""
        return int(self.target_tar_size_mb * MIB)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
