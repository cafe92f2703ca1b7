"""`semdedup demo`."""

from __future__ import annotations

import click

from semdedup.cli.flags import Command, cluster_flags, cluster_of, output_flags, show, told_errors
from semdedup.demo import OUT, VIDEOS, run_demo


@click.command(cls=Command)
@click.option("--output-path", default="semdedup-demo", show_default=True, help="Folder to write to.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@output_flags
def demo(output_path: str, dry_run: bool, verbose: bool, quiet: bool, **flags: object) -> None:
    """Make videos with known near-duplicates, go the whole way with them here, and tell what was found.

    \b
    Example:
      semdedup demo --output-path /tmp/semdedup-demo
    """
    with told_errors(verbose):
        if dry_run:
            click.echo(
                f"would write videos to {output_path}/{VIDEOS}, and all that is made of them to {output_path}/{OUT}"
            )
            return
        result = run_demo(output_path, cluster_of(flags), verbose=not quiet)
        show(result)
        click.echo(f"found {result.found:,} of {result.planted:,} planted copies; {result.wrong:,} other clips dropped")
        click.echo(f"shards: {result.run.shard.paths['dataset']}")
        click.echo(f"report: {result.run.report}")
