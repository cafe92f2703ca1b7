"""`semdedup demo`."""

from __future__ import annotations

import click

from semdedup.cli.flags import Command, output_flag, show, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.demo import OUT, VIDEOS, run_demo

FOLDER = "semdedup-demo"


@click.command(cls=Command)
@output_flag(f"Folder to write to. By default {FOLDER}.")
@work_flags(storage=False)
def demo(output_path: str | None, as_json: bool, dry_run: bool, cluster: ClusterOptions, verbose: bool) -> None:
    """Make videos with known near-duplicates, go the whole way with them here, and tell what was found.

    \b
    Example:
      semdedup demo --output-path /tmp/semdedup-demo
    """
    folder = output_path or FOLDER
    if dry_run:
        show_plan([f"would write videos to {folder}/{VIDEOS}, and all that is made of them to {folder}/{OUT}"], as_json)
        return
    result = run_demo(folder, cluster, verbose)
    show(result, as_json)
    if as_json:
        return
    click.echo(
        f"found {result.found:,} of {result.planted:,} planted copies: {result.by_overlap:,} by overlap, "
        f"{result.by_embedding:,} by embedding; {result.wrong:,} other clips dropped"
    )
    click.echo(f"shards: {result.run.shard.paths['dataset']}")
    click.echo(f"report: {result.run.report}")
