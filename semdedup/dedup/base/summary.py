"""What an update tells of its base afterwards, from the facts on record."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from semdedup.dedup.names import WITHDRAWN
from semdedup.runs.identity import resolve_path
from semdedup.storage.location import Location

FAR = 2
"""New rows that lie this many times as far from the centroids as kept rows of the base ask for new centroids."""


@dataclass(frozen=True)
class BaseSummary:
    """The base of a result.

    Attributes:
        rows: rows of all results of the chain, those in quarantine too.
        kept: those of them that new rows were compared with.
        paths: the results of the chain, the oldest first.
        mean_distance: mean `l2_dist_to_cent` of the kept rows.
        new_mean_distance: the same of the new rows.
    """

    rows: int
    kept: int
    paths: tuple[str, ...]
    mean_distance: float
    new_mean_distance: float

    @property
    def advice(self) -> str:
        """What to do where the centroids do not fit the new rows; empty where they do."""
        if not self.mean_distance or self.new_mean_distance < FAR * self.mean_distance:
            return ""
        times = self.new_mean_distance / self.mean_distance
        return (
            f"new rows lie {times:.1f} times as far from the centroids as those of the base: cluster all anew, without "
            "base, before much is missed or the clusters grow uneven"
        )

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        distances = f"{self.new_mean_distance:.4g} of new rows, {self.mean_distance:.4g} of the base"
        lines = [
            ("base", f"{self.kept:,} kept of {self.rows:,} rows, in {', '.join(self.paths)}"),
            ("mean distance to the centroid", distances),
        ]
        return lines + [("advice", self.advice)] * bool(self.advice)


@dataclass(frozen=True)
class Withdrawal:
    """The rows that a result withdrew from its base.

    Attributes:
        ids: how many ids were withdrawn.
        could_return: how many duplicates of the base nothing keeps out any more.
        path: the folder of their tables, ``withdrawn.parquet`` (``id``) and, if there are any, ``could_return.parquet``
            (``id``, ``withdrawn_id``, ``cosine_sim_score`` of these two).
    """

    ids: int
    could_return: int
    path: str

    def lines(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        return [
            ("withdrawn from the base", f"{self.ids:,}"),
            ("  nothing keeps out any more", f"{self.could_return:,} rows, in {self.path}"),
        ]


def summary_of(
    clustered: Mapping[str, Any], compared: Mapping[str, Any], cache: Location
) -> tuple[BaseSummary | None, Withdrawal | None]:
    """What the facts of the two steps tell whose record is in the folder `cache`."""
    base, withdrawn = compared.get("base"), compared.get("withdrawn")
    found = None
    if base is not None and "mean_distance" in clustered:
        paths = tuple(str(resolve_path(entry["path"], cache)) for entry in compared["bases"])
        found = BaseSummary(base["rows"], base["kept"], paths, base["mean_distance"], clustered["mean_distance"])
    return found, None if withdrawn is None else Withdrawal(**withdrawn, path=str(cache / WITHDRAWN))
