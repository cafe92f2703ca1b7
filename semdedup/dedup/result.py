"""What a run gives back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from semdedup.display import Shown


@dataclass(frozen=True, repr=False)
class DedupResult(Shown):
    """Counts, times and places of a run.

    Attributes:
        total: rows of the input: kept + duplicates + quarantined.
        duplicates: rows to drop; None where no eps was given.
        kept: rows to keep; None where no eps was given.
        quarantined: rows set aside because they cannot be compared, by reason.
        eps: the threshold, or None.
        seconds: time of each step.
        paths: what was written, by table.
        metadata: ``total_time``, ``kmeans_time``, ``pairwise_time``, ``num_duplicates``, ``step_seconds`` and facts of
            the clustering.
        skipped_files: files that could not be read and were left out, with the reason.
    """

    total: int
    duplicates: int | None
    kept: int | None
    quarantined: Mapping[str, int]
    eps: float | None
    seconds: Mapping[str, float]
    paths: Mapping[str, str]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    skipped_files: tuple[str, ...] = ()

    @property
    def n_quarantined(self) -> int:
        """Rows set aside."""
        return sum(self.quarantined.values())

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""

        def share(count: int) -> str:
            return f"{count:,} ({count / self.total:.1%})" if self.total else f"{count:,}"

        lines = [("rows", f"{self.total:,}")]
        if self.duplicates is not None and self.kept is not None:
            lines.append((f"duplicates at eps {self.eps:g}", share(self.duplicates)))
            lines.append(("kept", share(self.kept)))
        else:
            lines.append(("duplicates", "not asked for: no eps, scores only"))
        lines.append(("quarantined", share(self.n_quarantined) if self.quarantined else "0"))
        lines += [(f"  {reason}", f"{count:,}") for reason, count in sorted(self.quarantined.items())]
        if self.skipped_files:
            lines.append(("files skipped", f"{len(self.skipped_files):,}"))
        if "clusters" in self.metadata:
            lines.append(("clusters", f"{self.metadata['clusters']:,}"))
        lines += [(f"{step} seconds", f"{seconds:.1f}") for step, seconds in self.seconds.items()]
        lines += [(name, path) for name, path in self.paths.items()]
        return lines
