"""A dataset that grows: what came since is added in new shards, and what was shipped stays as it is.

A dataset is continued where nothing of what it was made from has changed: its clips and their metadata are there as
they were, and the results of the dedup are those that it was made with, followed by updates. Then the clips that came
since are joined, cut and written as if they were all; their shards go on with the numbers, and the tables are those of
before with the new rows at their end.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semdedup.errors import OutputConflictError
from semdedup.runs.identity import fingerprint_of
from semdedup.runs.lookup import known_files
from semdedup.runs.written_files import WrittenFiles
from semdedup.shards import card
from semdedup.shards.chain import DropChain
from semdedup.shards.clip_columns import column_digests, stem_columns
from semdedup.shards.inputs import Inputs
from semdedup.shards.layouts.base import ShardLayout, WrittenShard
from semdedup.storage.digests import are_among
from semdedup.storage.location import Location
from semdedup.storage.tables import open_parquet
from semdedup.video.tree import CLIPS, METAS
from semdedup.video.video_table import files_of_split

MADE_FROM = "made_from"
"""Fact of the record: what identifies the clips, the results of the dedup and overlaps, and the bin of each shard."""

SUMMED = (
    *("clips", "kept", "shards", "bytes", "tar_bytes"),
    *("without_score", "without_metadata", "malformed_metadata", "without_embedding", "unmatched"),
    "filter_unknown",
)
"""Facts that are counts of clips or shards."""


@dataclass(frozen=True)
class Shipped:
    """What a dataset holds before it is continued.

    Attributes:
        root: its folder.
        facts: on record.
    """

    root: Location
    facts: Mapping[str, Any]

    @property
    def results(self) -> list[str]:
        """What identifies the results of the dedup that it was made from."""
        return list(self.facts[MADE_FROM]["results"])

    @property
    def overlaps(self) -> list[str]:
        """The same of the overlaps."""
        return list(self.facts[MADE_FROM].get("overlaps", ()))

    @property
    def bins(self) -> Sequence[int]:
        """The bin of each shard."""
        bins: Sequence[int] = self.facts[MADE_FROM]["bins"]
        return bins

    @property
    def tars(self) -> list[dict[str, Any]]:
        """What the manifest tells of each tar."""
        tars: list[dict[str, Any]] = json.loads((self.root / card.DATASET_MANIFEST).read_bytes())["shards"]
        return tars

    def ids(self) -> np.ndarray:
        """Digests of the clips in it, and of those that were dropped, (n,) S16, in ascending order."""
        found = []
        for name in (card.INDEX, card.DROPPED):
            with open_parquet(self.root / name) as parquet:
                batches = parquet.iter_batches(columns=["id"], use_threads=False)
                found.append(column_digests(batch.column("id") for batch in batches))
        return np.sort(np.concatenate(found))

    def shards(self, layout: ShardLayout) -> list[WrittenShard]:
        """Its shards in order."""
        columns = list(dict.fromkeys(layout.tar_columns.values()))
        tars = self.tars
        together = (tars[i : i + len(columns)] for i in range(0, len(tars), len(columns)))
        return [
            WrittenShard(
                bin_, {column: tar["name"] for column, tar in zip(columns, own, strict=True)}, own[0]["samples"]
            )
            for bin_, own in zip(self.bins, together, strict=True)
        ]

    def merged(self, facts: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of the whole, with those of what is added."""
        dropped = Counter(self.facts["dropped"]) + Counter(facts["dropped"])
        counts = {name: self.facts.get(name, 0) + facts[name] for name in SUMMED}
        updates = self.facts.get("updates", 0) + 1
        earlier = self.facts.get("embedders", {})
        more = {name: {**each, "duplicates": each["duplicates"] + earlier.get(name, {}).get("duplicates", 0)}
                for name, each in facts.get("embedders", {}).items()}  # fmt: skip
        merged = {**facts, **counts, "dropped": dict(sorted(dropped.items())), "updates": updates}
        return merged | ({"embedders": more} if more else {})


def only(inputs: Inputs, ids: np.ndarray, inside: bool) -> Inputs:
    """The clips that are, or are not, among these, with their metadata; `ids` as `Shipped.ids`. Memory: both lists."""
    among = are_among(column_digests(inputs.ids()), ids)
    own = np.sort(column_digests(stem_columns(inputs.clips.filter(among))))
    metas = inputs.metas.filter(are_among(column_digests(stem_columns(inputs.metas)), own) == inside)
    return replace(inputs, clips=inputs.clips.filter(among == inside), metas=metas)


def identity_of(inputs: Inputs) -> dict[str, Any]:
    """What identifies clips and their metadata, wherever they are."""
    own = np.sort(column_digests(stem_columns(inputs.clips)))
    metas = inputs.metas.filter(are_among(column_digests(stem_columns(inputs.metas)), own))
    return fingerprint_of([inputs.clips, metas], known_of(inputs, [inputs.root]))


def known_of(inputs: Inputs, folders: Sequence[Location]) -> WrittenFiles:
    """What records in folders, and a split, say of their files: of videos those of clips and metadata alone."""
    begins = tuple(f"{inputs.root.url.rstrip('/')}/{folder}/" for folder in (CLIPS, METAS))
    of_split = (file for file in files_of_split(inputs.root) if file[0].startswith(begins))
    return WrittenFiles(itertools.chain(of_split, known_files(folders).items()))


def made_from(inputs: Inputs, drops: DropChain | None, bins: Sequence[int]) -> dict[str, Any]:
    """The fact `MADE_FROM` of a dataset."""
    drops = drops or DropChain()
    made = {"clips": identity_of(inputs), "results": drops.identities(), "bins": list(bins)}
    return {MADE_FROM: {**made, "overlaps": drops.overlap_identities()} if drops.overlaps else made}


def results_of_each(results: Sequence[str]) -> dict[str | None, list[str]]:
    """What `DropChain.identities` tells of results, by the embedders that they have in front."""
    found: dict[str | None, list[str]] = {}
    for identity in results:
        found.setdefault(identity.rpartition(" ")[0], []).append(identity)
    return found


def shipped(root: Location, entry: Mapping[str, Any] | None, inputs: Inputs, drops: DropChain | None) -> Shipped | None:
    """The dataset in a folder, if it can be continued with what came since.

    Args:
        root: the folder.
        entry: what is on record there.
        inputs, drops: what there is now.

    Raises:
        OutputConflictError: clips that were shipped have been withdrawn since.
    """
    facts = (entry or {}).get("facts", {})
    if drops is None or MADE_FROM not in facts:
        return None
    found = Shipped(root, facts)
    before, now = (found.results, found.overlaps), (drops.identities(), drops.overlap_identities())
    first, later = ({**results_of_each(results), None: overlaps} for results, overlaps in (before, now))
    goes_on = all(later.get(name, [])[: len(made)] == made for name, made in first.items())
    if not goes_on or before == now or before == ([], []):
        return None
    ids = found.ids()
    old = only(inputs, ids, inside=True)
    if len(old.clips) == len(inputs.clips) or identity_of(old) != facts[MADE_FROM]["clips"]:
        return None
    if any(drops.after(found.results).withdrawn):
        raise OutputConflictError(
            f"{root} holds shards that are left as they are, and {drops.sources[-1]} withdraws clips from them. Make "
            "the dataset anew with clear_output=True (--overwrite), or in another folder."
        )
    return found
