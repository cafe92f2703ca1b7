"""`semdedup demo`."""

from __future__ import annotations

import click

from semdedup.cli.flags import Command, show, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.demo import OUT, VIDEOS, run_demo


@click.command(cls=Command)
@click.option("--output-path", default="semdedup-demo", show_default=True, help="Folder to write to.")
@work_flags(storage=False)
def demo(output_path: str, dry_run: bool, cluster: ClusterOptions, verbose: bool) -> None:
    """Make videos with known near-duplicates, go the whole way with them here, and tell what was found.

    \b
    Example:
      semdedup demo --output-path /tmp/semdedup-demo
    """
    if dry_run:
        click.echo(f"would write videos to {output_path}/{VIDEOS}, and all that is made of them to {output_path}/{OUT}")
        return
    result = run_demo(output_path, cluster, verbose)
    show(result)
    click.echo(
        f"found {result.found:,} of {result.planted:,} planted copies: {result.by_overlap:,} by overlap, "
        f"{result.by_embedding:,} by embedding; {result.wrong:,} other clips dropped"
    )
    click.echo(f"shards: {result.run.shard.paths['dataset']}")
    click.echo(f"report: {result.run.report}")
