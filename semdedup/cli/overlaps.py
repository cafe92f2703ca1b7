"""`semdedup overlaps`."""

from __future__ import annotations

import json
from typing import Any

import click

from semdedup.cli.flags import Command, given_of, setting_flags, show, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.overlaps.options import OverlapsOptions
from semdedup.overlaps.search import OverlapSearch
from semdedup.settings.shared import SharedOptions


@click.command(cls=Command)
@click.argument("clips")
@click.option("--output-path", required=True, help="Folder for results, local or s3://.")
@setting_flags(OverlapsOptions)
@setting_flags(SharedOptions, only=["clear_output", "take_over", "verify"])
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@work_flags()
def overlaps(
    clips: str,
    as_json: bool,
    dry_run: bool,
    cluster: ClusterOptions,
    storage: dict[str, Any],
    verbose: bool,
    **flags: Any,
) -> None:
    """Find which stretch of which video is which stretch of another.

    CLIPS is an output folder of `semdedup split` or `semdedup embed`, or the root of a `semdedup run`.

    \b
    Example:
      semdedup overlaps clips --output-path clips/overlaps
    """
    search = OverlapSearch(clips, storage_options=storage, verbose=verbose, **given_of(flags))
    if dry_run:
        show_plan(search.plan())
        return
    result = search.run(cluster=cluster)
    if as_json:
        click.echo(json.dumps(result.to_json()))
    else:
        show(result)
