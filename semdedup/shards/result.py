"""The result of `ShardWorkflow`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semdedup.display import Displayable


@dataclass(frozen=True, repr=False)
class ShardResult(Displayable):
    """Counts over the dataset.

    Attributes:
        facts: ``clips`` of the input; ``kept``; ``dropped`` by reason; ``shards``; ``bytes`` of the clips kept;
            ``tar_bytes``; ``without_score`` (kept all the same), ``without_metadata``, of these
            ``malformed_metadata``, ``without_embedding``; ``filter_unknown``, of those dropped by ``filter`` the ones
            of which what it asks is not known; ``unmatched`` scores, whose id is no clip's; ``left_out``,
            videos that are no MP4 files; ``quarantined``, clips that could not be embedded; ``eps``, and where it is
            from; ``removal``, the rule; of several embedders these stand in ``embedders``, by their names, with the
            clips that are ``duplicates`` by each; ``updates``, how often it was continued, where it was.
        paths: of the dataset and its files, by name.
        seconds: time of each step, and ``total``.
        resumed: whether an earlier run had written the same already, and nothing was done.
    """

    facts: Mapping[str, Any]
    paths: Mapping[str, str]
    seconds: Mapping[str, float]
    resumed: bool = False

    @property
    def clips(self) -> int:
        """Clips of the input."""
        return int(self.facts["clips"])

    @property
    def kept(self) -> int:
        """Samples in the shards."""
        return int(self.facts["kept"])

    @property
    def dropped(self) -> Mapping[str, int]:
        """Clips that are not in the shards, by reason."""
        return dict(self.facts["dropped"])

    @property
    def duplicates(self) -> int:
        """Clips that were dropped as near-duplicates."""
        return self.dropped.get("duplicate", 0)

    @property
    def by_embedder(self) -> Mapping[str, int]:
        """Of several embedders the clips that are near-duplicates by each, whatever became of them."""
        return {name: each["duplicates"] for name, each in self.facts.get("embedders", {}).items()}

    @property
    def by_overlap(self) -> int:
        """Clips that were dropped by overlap; where it took both, as near-duplicates, too."""
        return self.dropped.get("overlap", 0)

    @property
    def shards(self) -> int:
        """How many shards there are."""
        return int(self.facts["shards"])

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of each line of the table."""
        facts = self.facts
        eps = (
            [("eps", f"{facts['eps']:g} ({facts['eps_from']}), removal {facts['removal']}")]
            if facts["eps"] is not None
            else []
        )
        by = facts.get("embedders", {}).items()
        eps += [
            (f"eps, {name}", f"{each['eps']:g} ({each['eps_from']}), removal {each['removal']}") for name, each in by
        ]
        others = [
            ("without score, kept", "without_score"),
            ("without metadata", "without_metadata"),
            ("  for they are malformed", "malformed_metadata"),
            ("without embedding", "without_embedding"),
            ("filter, not known", "filter_unknown"),
            ("scores of no clip", "unmatched"),
            ("other videos, left out", "left_out"),
            ("in quarantine, left out", "quarantined"),
        ]
        return [
            *eps,
            ("clips", f"{self.clips:,}"),
            ("  in the shards", f"{self.kept:,}"),
            *((f"  dropped, {reason}", f"{count:,}") for reason, count in self.dropped.items()),
            *((f"    near-duplicates by {name}", f"{each['duplicates']:,}") for name, each in by),
            *((words, f"{facts[name]:,}") for words, name in others if facts.get(name)),
            ("shards", f"{self.shards:,}"),
            ("bytes", f"{facts['tar_bytes']:,}"),
            *((f"{step} seconds", f"{seconds:.1f}") for step, seconds in self.seconds.items()),
            *self.paths.items(),
        ]
