"""`semdedup pairs`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from semdedup.cli.flags import EXIT_QUARANTINE, Command, given_of, setting_flags, show, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.options import FieldOptions, PairsOptions, RankedOptions
from semdedup.dedup.pairs.search import run_pairs
from semdedup.dedup.pairs.stage import PairsStage
from semdedup.dedup.pipeline import Pipeline
from semdedup.settings.shared import SharedOptions


@click.command(cls=Command)
@click.argument("input")
@click.option("--output-path", required=True, help="Folder for results, local or s3://.")
@setting_flags(PairsOptions, required=["eps"])
@setting_flags(FieldOptions)
@setting_flags(RankedOptions, only=["input_filetype"])
@setting_flags(SharedOptions, only=["clear_output", "take_over", "verify"])
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@work_flags()
def pairs(
    input: str,
    as_json: bool,
    dry_run: bool,
    cluster: ClusterOptions,
    storage: dict[str, Any],
    verbose: bool,
    **flags: Any,
) -> None:
    """List every pair within eps, wherever the two rows lie.

    INPUT is embeddings (folder, file or glob), an output folder of `semdedup split`, a result of `semdedup dedup`, or
    the root of a `semdedup run`: there its result, or the embeddings of its clips where it has several.

    \b
    Example:
      semdedup pairs clips/iv2_embd_parquet --eps 0.05 --output-path clips/pairs
    """
    kwargs = {"storage_options": storage}
    stage = PairsStage(input_path=input, read_kwargs=kwargs, write_kwargs=kwargs, verbose=verbose, **given_of(flags))
    if dry_run:
        show_plan(Pipeline("pairs").add_stage(stage).describe())
        return
    result = run_pairs(stage, cluster=cluster)
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        show(result)
    sys.exit(EXIT_QUARANTINE if result.n_quarantined else 0)
