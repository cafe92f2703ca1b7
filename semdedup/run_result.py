"""What the whole way gives back, and the check that no clip was lost on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from semdedup.dedup.results.chain import ChainResult, name_of
from semdedup.dedup.results.result import DedupResult
from semdedup.display import Displayable
from semdedup.errors import IntegrityError
from semdedup.run_overlaps import RunOverlaps
from semdedup.shards.result import ShardResult
from semdedup.video.quarantine import EMBED_ERROR
from semdedup.video.records import DONE, QUARANTINED, TOO_SHORT
from semdedup.video.result import SplitResult


@dataclass(frozen=True, repr=False)
class RunResult(Displayable):
    """What the whole way gives back.

    Attributes:
        split: of the videos.
        dedup: of the comparison; its methods answer questions about the scores.
        shard: of the dataset.
        report: path of the page.
        seconds: time of each part, and ``total``.
        gone: videos of earlier runs that are not in the input any more; their clips stay.
        overlaps: clips that go by overlap; None where none were looked for.
    """

    split: SplitResult
    dedup: DedupResult
    shard: ShardResult
    report: str
    seconds: Mapping[str, float]
    gone: tuple[str, ...] = ()
    overlaps: RunOverlaps | None = None

    def show(self, n: int = 5, eps: float | None = None, *, borderline: bool = False) -> None:
        """Show the n most similar pairs of clips, at most eps apart, or those nearest to it; see `DedupResult.show`."""
        self.dedup.show(n, eps, borderline=borderline)

    @property
    def clean(self) -> bool:
        """Whether nothing is in quarantine."""
        return self.split.clean and not (self.dedup.n_quarantined or self.dedup.skipped_files)

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        return [
            ("videos", f"{len(self.split.videos):,}"),
            ("  done", f"{self.split.count(DONE):,}"),
            *([("    of these gone, their clips stay", f"{len(self.gone):,}")] if self.gone else []),
            ("  too short", f"{self.split.count(TOO_SHORT):,}"),
            ("  in quarantine", f"{self.split.count(QUARANTINED):,}"),
            *((f"    {reason}", f"{count:,}") for reason, count in self.split.quarantined.items()),
            *([("left for another run", f"{self.split.left_out:,} videos")] if self.split.left_out else []),
            ("clips", f"{self.split.clips:,}"),
            *((f"  in quarantine, {name}", f"{count:,}") for name, count in self.split.quarantined_clips.items()),
            *([("  by overlap", f"{self.overlaps.total:,}")] if self.overlaps else []),
            (f"  near-duplicates at eps {self.dedup.eps:g}, {self.dedup.removal}", f"{self.dedup.duplicates or 0:,}"),
            *([("  both, dropped", f"{self.shard.by_overlap:,}")] if self._both else []),
            ("  in the dataset", f"{self.shard.kept:,}"),
            *((f"  {name}", counts) for name, counts in self._searches()),
            *((f"  {name}", counts) for name, counts in self._dedups()),
            ("shards", f"{self.shard.shards:,}"),
            *((f"{part} seconds", f"{seconds:.1f}") for part, seconds in self.seconds.items()),
            ("clip files", str(self.split.paths.get("clip files", ""))),
            ("scores", str(self.dedup.paths.get("scores", ""))),
            ("dataset", str(self.shard.paths["dataset"])),
            ("report", self.report),
        ]

    @property
    def _both(self) -> bool:
        return self.overlaps is not None and self.overlaps.drop_when == "both"

    def _searches(self) -> Iterator[tuple[str, str]]:
        """The searches for overlaps, where there are several, with what each found."""
        if self.overlaps is not None and len(self.overlaps.duplicates) > 1:
            yield from ((name, f"{count:,} clips by overlap") for name, count in self.overlaps.duplicates.items())

    def _dedups(self) -> Iterator[tuple[str, str]]:
        """The dedups, where there are several, with what each was about."""
        for link in self.dedup.links if isinstance(self.dedup, ChainResult) else ():
            yield name_of(link), f"{link.total:,} clips, {link.duplicates:,} near-duplicates"
        if isinstance(self.dedup, ChainResult) and self.dedup.advice:
            yield "advice", f"{self.dedup.advice} (--overwrite)"


def check_balance(split: SplitResult, overlaps: RunOverlaps | None, dedup: DedupResult, shard: ShardResult) -> None:
    """Every video is done, too short or in quarantine; every clip is kept, a duplicate, by overlap, or set aside, over
    all dedups and in the dataset.

    Raises:
        IntegrityError: with every count that is not what it must be.
    """
    faults = []
    became = {status: split.count(status) for status in (DONE, TOO_SHORT, QUARANTINED)}
    if len(split.videos) != sum(became.values()):
        faults.append(f"of {len(split.videos):,} videos there are {became}")
    both = overlaps is not None and overlaps.drop_when == "both"
    by_overlap = 0 if overlaps is None else overlaps.total
    left_out = 0 if both else by_overlap
    if dedup.total != (dedup.kept or 0) + (dedup.duplicates or 0) + dedup.n_quarantined:
        faults.append(
            f"of {dedup.total:,} clips in the dedups {dedup.kept:,} are kept, {dedup.duplicates:,} duplicates and "
            f"{dedup.n_quarantined:,} in quarantine"
        )
    failed = split.quarantined_clips.get(EMBED_ERROR, 0)
    if split.clips != split.embedded + failed:
        faults.append(f"of {split.clips:,} clips {split.embedded:,} were embedded, and {failed:,} failed")
    if dedup.total + left_out != split.embedded and not dedup.skipped_files:
        faults.append(
            f"{split.embedded:,} clips have an embedding, but {dedup.total:,} are in the dedups"
            + f", and {left_out:,} went by overlap before" * bool(left_out)
        )
    most = min(by_overlap, dedup.duplicates or 0)
    dropped = (shard.by_overlap <= most, 0) if both else (shard.by_overlap == by_overlap, dedup.duplicates)
    if shard.clips != shard.kept + sum(shard.dropped.values()) or dropped != (True, shard.duplicates):
        faults.append(
            f"of {shard.clips:,} clips {shard.kept:,} are in the dataset, {shard.duplicates:,} were dropped as "
            f"duplicates, of {dedup.duplicates:,}, and {shard.by_overlap:,} by overlap, of {by_overlap:,}"
        )
    if faults:
        raise IntegrityError("videos or clips were lost or added on the way: " + "; ".join(faults))
