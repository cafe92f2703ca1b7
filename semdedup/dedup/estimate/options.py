"""The settings of an estimate, each declared here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from semdedup.dedup.threshold.rule import EPS
from semdedup.errors import ParameterError
from semdedup.settings import OUTPUT, Options, setting
from semdedup.settings.kinds import path, several, whole
from semdedup.settings.shared import NO_PART


@dataclass(frozen=True)
class EstimateOptions(Options):
    """What to estimate, and from how many rows."""

    eps: tuple[float, ...] = setting(
        (0.05, 0.1, 0.2), several("be numbers in [0, 1)", EPS.kind), "Thresholds to estimate at."
    )
    sample: int = setting(2000, whole(1), "Rows to compare with all rows.")
    scratch_path: str | None = setting(
        None,
        path(),
        "Folder that all workers see, for files in between, which all go; a temporary one of this machine by default.",
        unrecorded=NO_PART,
        heading=OUTPUT,
    )

    def check_together(self) -> None:
        """There is something to estimate."""
        object.__setattr__(self, "eps", tuple(dict.fromkeys(self.eps)))
        if not self.eps:
            raise ParameterError("eps names no threshold; give one or several, such as 0.05 0.1")
