"""`semdedup dedup` and `semdedup extract`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import click

from semdedup.cli.flags import EXIT_QUARANTINE, Command, flag_of, given_of, setting_flags, show, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.base.chain import eps_of
from semdedup.dedup.input.convert import is_converted
from semdedup.dedup.input.files import embeddings_of, find_files
from semdedup.dedup.names import COMMAND_LINE
from semdedup.dedup.options import (
    CompareOptions,
    InputOptions,
    IOOptions,
    KMeansOptions,
    ThresholdOptions,
    UpdateOptions,
)
from semdedup.dedup.threshold.extract import eps_to_extract, extraction
from semdedup.dedup.threshold.extract import extract as write_extraction
from semdedup.dedup.threshold.recommended import chosen_eps
from semdedup.dedup.threshold.rule import EPS, REMOVAL
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.errors import ParameterError
from semdedup.settings.choices import RemovalRule
from semdedup.settings.shared import SharedOptions
from semdedup.storage.location import Location, locations_of

EPS_SPELLED = replace(EPS, default=None, aliases=("eps_to_extract", "eps_threshold"))


@click.command(cls=Command)
@setting_flags(
    IOOptions,
    InputOptions,
    KMeansOptions,
    CompareOptions,
    ThresholdOptions,
    UpdateOptions,
    without=["eps"],
    required=["input_path", "output_path"],
)
@flag_of(EPS, help="Write the ids to drop for this threshold.")
@flag_of(EPS, ["--eps-to-extract"], dest="eps_to_extract", help="The same as --eps.")
@flag_of(EPS, ["--eps-threshold"], dest="eps_threshold", help="The same as --eps.")
@work_flags()
def dedup(dry_run: bool, cluster: ClusterOptions, storage: dict[str, Any], verbose: bool, **flags: Any) -> None:
    """Find near-duplicates among embeddings and write the ids to drop.

    \b
    Example:
      semdedup dedup --input-embeddings-path clips --output-path clips/dedup \\
          --eps-thresholds 0.01 0.001 --eps-to-extract 0.01
    """
    given = given_of(flags)
    thresholds, extract, why = _thresholds(given, storage)
    if verbose:
        click.echo(f"eps {extract:g} ({why})", err=True)
    kwargs = {"storage_options": storage}
    workflow = SemanticDeduplicationWorkflow(
        **given,
        eps=extract,
        count_at=thresholds,
        read_kwargs=kwargs,
        write_kwargs=kwargs,
        layout=COMMAND_LINE,
        verbose=verbose,
    )
    if dry_run:
        show_plan(workflow.describe())
        return
    result = workflow.run(cluster=cluster)
    show(result)
    for reason in result.skipped_files[:10]:
        click.echo(f"skipped: {reason}", err=True)
    sys.exit(EXIT_QUARANTINE if result.n_quarantined or result.skipped_files else 0)


def _thresholds(given: dict[str, Any], storage: dict[str, Any]) -> tuple[Sequence[float], float, str]:
    """Thresholds to summarise at, the one to extract, and where it comes from."""
    several: Sequence[float] = given.pop("count_at", ())
    if several and "eps_threshold" in given:
        raise ParameterError("give --eps-thresholds or --eps-threshold, not both")
    names = [name for name in ("eps", "eps_to_extract", "eps_threshold") if name in given]
    spelled: dict[str, Any] = {name: given.pop(name) for name in names}
    extract, why = EPS_SPELLED.of(spelled), "".join(f"--{name.replace('_', '-')}" for name in names[:1])
    if not spelled and several:
        extract, why = several[0], "the first of --eps-thresholds"
    elif not spelled and "base" in given:
        extract, why = eps_of(Location.of(given["base"], storage)), "of the base"
    elif not spelled:
        io, inputs = IOOptions.of(given), InputOptions.of(given)
        filetype = inputs.input_filetype
        locations = embeddings_of(locations_of(io.input_path, {"storage_options": storage}))
        files = [file for file in find_files(locations, inputs.input_filetype) if not is_converted(file, filetype)]
        extract, why = chosen_eps(None, [locations[0].at(file.url) for file in files], inputs.skip_bad_files)
    return list(dict.fromkeys([*several, extract])), extract, why


@click.command(cls=Command)
@click.argument("results")
@flag_of(EPS)
@click.option("--target-fraction", type=float, help="Instead of --eps: the part of the rows that is to remain.")
@flag_of(REMOVAL, help=f"{REMOVAL.help} By default the rule of the results.")
@click.option("--output-path", help="Folder to write to; RESULTS/eps_{eps}_{removal} by default.")
@setting_flags(SharedOptions, only=["clear_output", "take_over", "verify"])
@work_flags()
def extract(
    results: str,
    eps: float | None,
    removal: RemovalRule | None,
    target_fraction: float | None,
    output_path: str | None,
    dry_run: bool,
    cluster: ClusterOptions,
    storage: dict[str, Any],
    verbose: bool,
    **flags: Any,
) -> None:
    """Write the ids to drop and to keep for another eps or removal rule, from scores that exist.

    \b
    Example:
      semdedup extract clips/dedup --eps 0.05
      semdedup extract clips/dedup --eps 0.05 --removal witness
      semdedup extract clips/dedup --target-fraction 0.8
    """
    chosen = eps_to_extract(results, eps, target_fraction, storage, removal)
    options: dict[str, Any] = {"removal": removal, "storage_options": storage, "verbose": verbose, **given_of(flags)}
    if dry_run:
        show_plan(extraction(results, chosen, output_path, **options).describe())
    else:
        show(write_extraction(results, chosen, output_path, cluster=cluster, **options))
