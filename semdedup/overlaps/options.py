"""The settings of the search for overlaps."""

from __future__ import annotations

from dataclasses import dataclass

from semdedup.settings import INPUT, Options, setting
from semdedup.settings.kinds import number, path, truth

MIN_OVERLAP = 0.8


@dataclass(frozen=True)
class OverlapsOptions(Options):
    """What is looked for, and which clips go because of it."""

    min_overlap: float = setting(
        MIN_OVERLAP,
        number(0, 1, open_below=True),
        "A clip goes where better-ranked videos show at least this share of it.",
    )
    mirror: bool = setting(False, truth(), "Find mirror images, too.")
    base: str | None = setting(
        None,
        path(),
        "An earlier output of this for the same folder: its videos rank first and are compared with new ones alone.",
        unrecorded="the record knows it by its commit",
        heading=INPUT,
    )
