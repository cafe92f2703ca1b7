"""The ids to drop and the ids to keep for any eps, from scores that exist."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Unpack

import distributed

from semdedup.compute.options import ClusterOptions
from semdedup.dedup.base.folders import results_in
from semdedup.dedup.names import WITNESSES, WORKFLOW, summary_name
from semdedup.dedup.pipeline import Pipeline
from semdedup.dedup.results.find import recorded_removal
from semdedup.dedup.results.load import load
from semdedup.dedup.threshold.rule import REMOVAL
from semdedup.dedup.threshold.stage import IdentifyDuplicatesStage
from semdedup.display import Displayable
from semdedup.errors import ParameterError
from semdedup.runs.places import DEDUPS
from semdedup.settings.choices import RemovalRule
from semdedup.settings.shared import Shared
from semdedup.storage.location import Location

KEPT = "kept"


@dataclass(frozen=True, repr=False)
class Extraction(Displayable):
    """What `extract` wrote.

    Attributes:
        eps: the threshold.
        removal: the rule.
        total: rows of the scores.
        duplicates: how many of them go.
        paths: ids to drop, ids to keep, the witnesses where the rule has them, the summary.
    """

    eps: float
    removal: str
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
            ("removal", self.removal),
            (f"duplicates at eps {self.eps:.6g}", f"{self.duplicates:,} ({part:.1%})"),
            ("kept", f"{self.kept:,} ({1 - part:.1%})"),
            *self.paths.items(),
        ]


def eps_to_extract(
    results: str,
    eps: float | None,
    target_fraction: float | None,
    storage_options: Mapping[str, Any] | None = None,
    removal: RemovalRule | None = None,
) -> float:
    """The eps that is given, or the smallest one at which at most a fraction of the rows remains under the rule."""
    if (eps is None) == (target_fraction is None):
        raise ParameterError("give eps, or target_fraction, the part of the rows that is to remain; one of the two")
    if target_fraction is not None:
        return load(results, storage_options=storage_options).suggest_eps(target_fraction, removal)
    assert eps is not None
    return eps


def extraction(
    results: str,
    eps: float,
    output_path: str | None = None,
    *,
    removal: RemovalRule | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **shared: Unpack[Shared],
) -> Pipeline:
    """What `extract` runs: a stage, or of the root of a run one for each of its results."""
    kwargs = {"storage_options": dict(storage_options or {})}
    root = Location.of(results, storage_options)
    links = results_in(root)
    rules: list[RemovalRule] = [REMOVAL.check(recorded_removal(link)) if removal is None else removal for link in links]
    target = output_path or f"{results.rstrip('/')}/eps_{eps:.6g}_{rules[-1]}"
    pipeline = Pipeline("extract")
    for number, (link, rule) in enumerate(zip(links, rules, strict=True), 1):
        stage = IdentifyDuplicatesStage(
            eps=eps,
            count_at=[eps],
            input_path=results if link.url == root.url else link.url,
            output_path=target if len(links) == 1 else f"{target.rstrip('/')}/{DEDUPS.name(number)}",
            removal=rule,
            kept=KEPT,
            read_kwargs=kwargs,
            write_kwargs=kwargs,
            folder=WORKFLOW.duplicates,
            **shared,
        )
        pipeline.add_stage(stage)
    return pipeline


def extract(
    results: str,
    eps: float | None = None,
    output_path: str | None = None,
    *,
    removal: RemovalRule | None = None,
    target_fraction: float | None = None,
    client: distributed.Client | str | None = None,
    cluster: ClusterOptions | None = None,
    storage_options: Mapping[str, Any] | None = None,
    **shared: Unpack[Shared],
) -> Extraction:
    """Write the ids to drop and the ids to keep for any eps; nothing is compared again.

    Args:
        results: folder of a dedup, of either layout, or of tables of scores; local or remote. Of the root of a run each
            dedup is looked at by its own rule, with the rows of its base that were kept when it was made.
        eps: rows match where their score is at least 1 - eps.
        output_path: folder to write to; ``{results}/eps_{eps}_{removal}`` by default. It gets ``duplicates/*.parquet``,
            ``kept/*.parquet`` (``id``, sorted within a file), ``dedup_summary_{eps}.csv``, and ``witnesses/*.parquet``
            under the rules that have them; of a run, ``dedup/``, ``dedup-0002/``, … with these.
        removal: which rows go: ``any``, ``witness``, ``components``; the rule of the record by default, else ``any``.
        target_fraction: instead of eps: the smallest eps at which at most this part of the rows remains.
        client, cluster: as for the workflow.
        storage_options: for fsspec.
        shared: ``clear_output``, ``verbose``, ``take_over`` and ``verify``, as for the workflow.

    Time: a reading of the scores and ids; with `target_fraction`, two more of the scores; under the rule ``witness``
    also of those clusters in which the scores alone do not decide. Memory of a task: the ids of about 16 MiB of files,
    twice; or as the comparison.
    """
    chosen = eps_to_extract(results, eps, target_fraction, storage_options, removal)
    pipeline = extraction(results, chosen, output_path, removal=removal, storage_options=storage_options, **shared)
    found = pipeline.run(client, cluster=cluster)
    rows, duplicates = (sum(part.facts[name] for part in found) for name in ("rows", "duplicates"))
    last = pipeline.stages[-1]
    assert isinstance(last, IdentifyDuplicatesStage)
    roots = [stage.destination().root for stage in pipeline.stages]
    return Extraction(chosen, last.rule.removal, rows, duplicates, _paths(roots, last.rule.removal, chosen))


def _paths(roots: Sequence[Location], removal: str, eps: float) -> dict[str, str]:
    """Where the results are, by what they are; of several results, by folder."""
    if len(roots) > 1:
        return {"ids to drop and to keep": str(roots[0].parent), **{root.name: str(root) for root in roots}}
    (root,) = roots
    paths = {
        "ids to drop": root / WORKFLOW.duplicates,
        "ids to keep": root / KEPT,
        **({} if removal == "any" else {"witnesses": root / WITNESSES}),
        "summary": root / summary_name(eps),
    }
    return {name: str(path) for name, path in paths.items()}
