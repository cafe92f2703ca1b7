"""What a layout of a dataset decides; `semdedup.shards.layouts.LAYOUTS` lists the layouts there are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from semdedup.storage.location import Location


class WrittenShard(NamedTuple):
    """A shard that has been written: its bin, the names of its tars by column of the index, and how many samples."""

    bin: int
    tars: Mapping[str, str]
    samples: int


class ShardLayout(ABC):
    """How samples are arranged in tars, and what else loaders of the dataset expect.

    Attributes:
        name: the value of ``layout`` that chooses it.
        tar_columns: for each member of a sample (``mp4``, ``json``, ``npy``), the column of the index that names the
            tar the member is in. Members with the same column share a tar. Without ``npy``, embeddings have no place.
        n_bins: number of groups that samples are divided into; a shard holds samples of one.
        extra_names: names, without folders, of the files that `extra_files` gives.
        loading: Python code for ``README.md`` that loads the dataset.
    """

    name: ClassVar[str]
    tar_columns: ClassVar[Mapping[str, str]]
    n_bins: ClassVar[int] = 1
    extra_names: ClassVar[tuple[str, ...]] = ()
    loading: ClassVar[str]

    @abstractmethod
    def tar_names(self, version: str, bin_: int, number: int) -> dict[str, str]:
        """Names of the tars of a shard, by column of the index.

        Args:
            version: ``annotation_version`` of the metadata.
            bin_: the bin of its samples.
            number: position among the shards of this bin.
        """

    def bin_of(self, meta: Mapping[str, Any]) -> int:
        """The bin of a sample with this metadata, from 0 to `n_bins` - 1."""
        return 0

    def extra_files(self, root: Location, version: str, shards: Sequence[WrittenShard]) -> Iterator[tuple[str, bytes]]:
        """Name and content of each further file of a dataset in the folder `root`."""
        return iter(())
