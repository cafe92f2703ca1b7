"""`semdedup pairs`."""

from __future__ import annotations

import sys
from typing import Any

import click

from semdedup.cli.flags import (
    EXIT_QUARANTINE,
    Command,
    argument_of,
    given_of,
    output_flag,
    setting_flags,
    show,
    show_plan,
    work_flags,
)
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.options import FieldOptions, PairsOptions, RankedOptions
from semdedup.dedup.pairs.search import run_pairs
from semdedup.dedup.pairs.stage import PairsStage
from semdedup.dedup.pipeline import Pipeline
from semdedup.settings.kinds import path
from semdedup.settings.shared import SharedOptions


@click.command(cls=Command)
@argument_of("input", path(), "Embeddings (folder, file or glob), an output folder of split, or a result of dedup.")
@output_flag(required=True)
@setting_flags(PairsOptions, required=["eps"])
@setting_flags(FieldOptions)
@setting_flags(RankedOptions, only=["input_filetype"])
@setting_flags(SharedOptions, only=["clear_output", "take_over", "verify"])
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
      semdedup pairs clips/dct3d_embd_parquet --eps 0.4 --output-path clips/pairs
    """
    kwargs = {"storage_options": storage}
    stage = PairsStage(input_path=input, read_kwargs=kwargs, write_kwargs=kwargs, verbose=verbose, **given_of(flags))
    if dry_run:
        show_plan(Pipeline("pairs").add_stage(stage).describe(), as_json)
        return
    result = run_pairs(stage, cluster=cluster)
    show(result, as_json)
    sys.exit(EXIT_QUARANTINE if result.n_quarantined else 0)
