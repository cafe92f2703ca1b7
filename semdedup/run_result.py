"""What the whole way gives back, and the check that no clip was lost on it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from semdedup.dedup.results.chain import ChainResult, name_of
from semdedup.dedup.results.result import DedupResult
from semdedup.display import Displayable
from semdedup.errors import IntegrityError
from semdedup.run_overlaps import RunOverlaps
from semdedup.settings.choices import DropWhen
from semdedup.shards.options import DUPLICATE_WHEN
from semdedup.shards.result import ShardResult
from semdedup.video.quarantine import EMBED_ERROR
from semdedup.video.records import DONE, QUARANTINED, TOO_SHORT
from semdedup.video.result import SplitResult


@dataclass(frozen=True, repr=False)
class RunResult(Displayable):
    """What the whole way gives back.

    Attributes:
        split: of the videos.
        dedups: of the comparison by each embedder, by its name; mostly one.
        shard: of the dataset.
        reports: path of the page about each.
        seconds: time of each part, and ``total``.
        gone: videos of earlier runs that are not in the input any more; their clips stay.
        overlaps: clips that go by overlap; None where none were looked for.
        duplicate_when: of several embedders, whether a clip is a near-duplicate by ``either`` or by ``both``.
    """

    split: SplitResult
    dedups: Mapping[str, DedupResult]
    shard: ShardResult
    reports: Mapping[str, str]
    seconds: Mapping[str, float]
    gone: tuple[str, ...] = ()
    overlaps: RunOverlaps | None = None
    duplicate_when: DropWhen = DUPLICATE_WHEN.default

    @property
    def dedup(self) -> DedupResult:
        """The comparison, whose methods answer questions about the scores; of several embedders that by the first."""
        return next(iter(self.dedups.values()))

    @property
    def report(self) -> str:
        """Path of the page; of several that about the first embedder."""
        return next(iter(self.reports.values()))

    def show(self, n: int = 5, eps: float | None = None, *, borderline: bool = False) -> None:
        """Show the n most similar pairs of clips, at most eps apart, or those nearest to it; see `DedupResult.show`.

        Of several embedders the first tells; ask one of `dedups` for the others.
        """
        self.dedup.show(n, eps, borderline=borderline)

    @property
    def clean(self) -> bool:
        """Whether nothing is in quarantine."""
        return self.split.clean and not any(
            found.n_quarantined or found.skipped_files for found in self.dedups.values()
        )

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
            *self._near_duplicates(),
            *([("  both, dropped", f"{self.shard.by_overlap:,}")] if self._both else []),
            *([("  by keep_if", f"{filtered:,}")] if (filtered := self.shard.dropped.get("filter", 0)) else []),
            ("  in the dataset", f"{self.shard.kept:,}"),
            *((f"  {name}", counts) for name, counts in self._searches()),
            *((f"  {name}", counts) for dedup in self.dedups.values() for name, counts in _links(dedup)),
            ("shards", f"{self.shard.shards:,}"),
            *((f"{part} seconds", f"{seconds:.1f}") for part, seconds in self.seconds.items()),
            ("clip files", str(self.split.paths.get("clip files", ""))),
            *((f"scores{by}", str(dedup.paths.get("scores", ""))) for by, dedup in self._by()),
            ("dataset", str(self.shard.paths["dataset"])),
            *((f"report{by}", page) for (by, _), page in zip(self._by(), self.reports.values(), strict=True)),
        ]

    def _by(self) -> Iterator[tuple[str, DedupResult]]:
        """Of each embedder what lines about it say of that, and its dedup."""
        for name, dedup in self.dedups.items():
            yield f" by {name}" * (len(self.dedups) > 1), dedup

    def _near_duplicates(self) -> Iterator[tuple[str, str]]:
        """Near-duplicates by each embedder, and where there are several by either or both."""
        for by, dedup in self._by():
            yield f"  near-duplicates{by} at eps {dedup.eps:g}, {dedup.removal}", f"{dedup.duplicates or 0:,}"
        if len(self.dedups) > 1 and not self._both:
            yield f"  near-duplicates by {self.duplicate_when}, dropped", f"{self.shard.duplicates:,}"

    def to_json(self) -> dict[str, Any]:
        """What each part tells, as JSON values."""
        parts: Mapping[str, Displayable] = {"split": self.split, "dedup": self.dedup, "shard": self.shard}
        several = {name: dedup.to_json() for name, dedup in self.dedups.items()}
        overlaps = None
        if self.overlaps is not None:
            overlaps = {"drop_when": self.overlaps.drop_when, "duplicates": dict(self.overlaps.duplicates)}
        found = {**super().to_json(), **{name: part.to_json() for name, part in parts.items()}, "overlaps": overlaps}
        return {**found, "report": self.report, **({"dedups": several} if len(several) > 1 else {})}

    @property
    def _both(self) -> bool:
        return self.overlaps is not None and self.overlaps.drop_when == "both"

    def _searches(self) -> Iterator[tuple[str, str]]:
        """The searches for overlaps, where there are several, with what each found."""
        if self.overlaps is not None and len(self.overlaps.duplicates) > 1:
            yield from ((name, f"{count:,} clips by overlap") for name, count in self.overlaps.duplicates.items())


def _links(dedup: DedupResult) -> Iterator[tuple[str, str]]:
    """The dedups of an embedder, where there are several, with what each was about."""
    for link in dedup.links if isinstance(dedup, ChainResult) else ():
        yield name_of(link), f"{link.total:,} clips, {link.duplicates:,} near-duplicates"
    if isinstance(dedup, ChainResult) and dedup.advice:
        yield "advice", f"{dedup.advice} (--overwrite)"


def check_balance(
    split: SplitResult,
    overlaps: RunOverlaps | None,
    dedups: Mapping[str, DedupResult],
    shard: ShardResult,
    duplicate_when: DropWhen = DUPLICATE_WHEN.default,
) -> None:
    """Every video is done, too short or in quarantine; every clip is kept, a duplicate, by overlap, or set aside, over
    all dedups of each embedder, and in the dataset.

    Raises:
        IntegrityError: with every count that is not what it must be.
    """
    faults = []
    became = {status: split.count(status) for status in (DONE, TOO_SHORT, QUARANTINED)}
    if len(split.videos) != sum(became.values()):
        faults.append(f"of {len(split.videos):,} videos there are {became}")
    both = overlaps is not None and overlaps.drop_when == "both"
    by_overlap = 0 if overlaps is None else overlaps.total - overlaps.waiting
    failed = len({(video, x["id"]) for video, x in split.videos.clip_faults() if x["reason"] == EMBED_ERROR})
    if split.clips != split.embedded + failed:
        faults.append(f"of {split.clips:,} clips {split.embedded:,} were embedded, and {failed:,} failed")
    gone, one_by_one = 0 if both else by_overlap, not both and duplicate_when == "either"
    for name, dedup in dedups.items():
        by = f" by {name}" * (len(dedups) > 1)
        if dedup.total != (dedup.kept or 0) + (dedup.duplicates or 0) + dedup.n_quarantined:
            faults.append(
                f"of {dedup.total:,} clips in the dedups{by} {dedup.kept:,} are kept, {dedup.duplicates:,} duplicates "
                f"and {dedup.n_quarantined:,} in quarantine"
            )
        if dedup.total + gone != split.embedded and not dedup.skipped_files:
            faults.append(
                f"{split.embedded:,} clips have an embedding, but {dedup.total:,} are in the dedups{by}"
                + f", and {gone:,} went before" * bool(gone)
            )
        gone += (dedup.duplicates or 0) * one_by_one
    counts = [dedup.duplicates or 0 for dedup in dedups.values()]
    by_all = len(counts) > 1 and duplicate_when == "both"  # else no clip goes by two of them
    most = min(counts) if by_all else sum(counts)
    least = 0 if by_all else most
    if both:
        is_so = shard.by_overlap <= min(by_overlap, most) and not shard.duplicates
    else:
        is_so = shard.by_overlap == by_overlap and least <= shard.duplicates <= most
    if shard.clips != shard.kept + sum(shard.dropped.values()) or not is_so:
        faults.append(
            f"of {shard.clips:,} clips {shard.kept:,} are in the dataset, {shard.duplicates:,} were dropped as "
            f"duplicates, of {' and '.join(f'{count:,}' for count in counts)}, and {shard.by_overlap:,} by overlap, of "
            f"{by_overlap:,}"
        )
    if faults:
        raise IntegrityError("videos or clips were lost or added on the way: " + "; ".join(faults))
