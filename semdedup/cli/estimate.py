"""`semdedup estimate`."""

from __future__ import annotations

import sys
from typing import Any

import click

from semdedup.cli.flags import EXIT_QUARANTINE, Command, given_of, setting_flags, show, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.estimate.options import EstimateOptions
from semdedup.dedup.estimate.search import estimate as estimate_input
from semdedup.dedup.options import CompareOptions, InputOptions, IOOptions, KMeansOptions


@click.command("estimate", cls=Command)
@setting_flags(IOOptions, only=["input_path"], required=["input_path"])
@setting_flags(EstimateOptions, InputOptions, KMeansOptions, CompareOptions)
@work_flags(dry_run=False)
def estimate(as_json: bool, cluster: ClusterOptions, storage: dict[str, Any], verbose: bool, **flags: Any) -> None:
    """Tell what a dedup would find, what its clusters hide, and what it costs, before the full run; writes nothing.

    Duplicates by eps, and the share of them that lie across clusters only, with 95 % intervals; seconds and bytes of
    the run in each mode on these workers. It takes the flags of `dedup` that its answer depends on.

    \b
    Example:
      semdedup estimate --input-embeddings-path clips/dct3d_embd_parquet --eps 0.3 0.4 0.5
    """
    given = given_of(flags)
    kwargs = {"storage_options": storage}
    paths = given.pop("input_path")
    found = estimate_input(paths, cluster=cluster, read_kwargs=kwargs, write_kwargs=kwargs, verbose=verbose, **given)
    show(found, as_json)
    for reason in found.skipped_files[:10]:
        click.echo(f"skipped: {reason}", err=True)
    sys.exit(EXIT_QUARANTINE if found.n_quarantined or found.skipped_files else 0)
