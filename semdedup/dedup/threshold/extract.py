"""The ids to drop and the ids to keep for any eps, from scores that exist."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Unpack

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.dedup.names import WORKFLOW, summary_name
from semdedup.dedup.pipeline import Pipeline
from semdedup.dedup.results.result import load
from semdedup.dedup.threshold.stage import IdentifyDuplicatesStage
from semdedup.display import Displayable
from semdedup.errors import ParameterError
from semdedup.settings.shared import Shared

KEPT = "kept"


@dataclass(frozen=True, repr=False)
class Extraction(Displayable):
    """What `extract` wrote.

    Attributes:
        eps: the threshold.
        total: rows of the scores.
        duplicates: how many of them go.
        paths: ids to drop, ids to keep, the summary.
    """

    eps: float
    total: int
    duplicates: int
    paths: Mapping[str, str]

    @property
    def kept(self) -> int:
        """How many rows stay."""
        return self.total - self.duplicates

    def rows(self) -> list[tuple[str, str]]:
        """Name and value of everything that there is to tell."""
        part = self.duplicates / max(1, self.total)
        return [
            ("rows", f"{self.total:,}"),
            (f"duplicates at eps {self.eps:.6g}", f"{self.duplicates:,} ({part:.1%})"),
            ("kept", f"{self.kept:,} ({1 - part:.1%})"),
            *self.paths.items(),
        ]


def eps_to_extract(
    results: str, eps: float | None, target_fraction: float | None, storage_options: Mapping[str, Any] | None = None
) -> float:
    """The eps that is given, or the smallest one at which at most a fraction of the rows remains."""
    if (eps is None) == (target_fraction is None):
        raise ParameterError("give eps, or target_fraction, the part of the rows that is to remain; one of the two")
    if target_fraction is not None:
        return load(results, storage_options=storage_options).suggest_eps(target_fraction)
    assert eps is not None
    return eps


def extraction_stage(
    results: str,
    eps: float,
    output_path: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    **shared: Unpack[Shared],
) -> IdentifyDuplicatesStage:
    """The stage that `extract` runs."""
    kwargs = {"storage_options": dict(storage_options or {})}
    return IdentifyDuplicatesStage(
        eps=eps,
        count_at=[eps],
        input_path=results,
        output_path=output_path or f"{results.rstrip('/')}/eps_{eps:.6g}",
        kept=KEPT,
        read_kwargs=kwargs,
        write_kwargs=kwargs,
        folder=WORKFLOW.duplicates,
        **shared,
    )


def extract(
    results: str,
    eps: float | None = None,
    output_path: str | None = None,
    *,
    target_fraction: float | None = None,
    client: distributed.Client | str | None = None,
    cluster: ClusterOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **shared: Unpack[Shared],
) -> Extraction:
    """Write the ids to drop and the ids to keep for any eps; nothing is compared again.

    Args:
        results: folder of a dedup, of either layout, or of tables of scores; local or remote.
        eps: rows whose score is at least 1 - eps are dropped.
        output_path: folder to write to; ``{results}/eps_{eps}`` by default. It gets ``duplicates/*.parquet``,
            ``kept/*.parquet`` (``id``, sorted within a file) and ``dedup_summary_{eps}.csv``.
        target_fraction: instead of eps: the smallest eps at which at most this part of the rows remains.
        client, cluster: as for the workflow.
        storage_options: for fsspec.
        shared: ``clear_output``, ``verbose``, ``take_over`` and ``verify``, as for the workflow.

    Time: a reading of the scores and ids; with `target_fraction`, two more of the scores. Memory of a task: the ids of
    about 16 MiB of files, twice.
    """
    chosen = eps_to_extract(results, eps, target_fraction, storage_options)
    stage = extraction_stage(results, chosen, output_path, storage_options=storage_options, **shared)
    (found,) = Pipeline("extract").add_stage(stage).run(client, cluster=cluster)
    root = stage.destination().root
    paths = {
        "ids to drop": root / WORKFLOW.duplicates,
        "ids to keep": root / KEPT,
        "summary": root / summary_name(chosen),
    }
    places = {name: str(path) for name, path in paths.items()}
    return Extraction(chosen, found.facts["rows"], found.facts["duplicates"], places)
