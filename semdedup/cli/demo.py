"""`semdedup demo`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import Command, cluster_flags, cluster_of, output_flags, show, told_errors
from semdedup.demo import run_demo


@click.command(cls=Command)
@click.option("--output-path", default="semdedup-demo", show_default=True, help="Folder to write to.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@output_flags
def demo(output_path: str, dry_run: bool, verbose: bool, quiet: bool, **flags: Any) -> None:
    """Make 20,000 embeddings with known near-duplicates, dedup them here, and tell what was found.

    \b
    Example:
      semdedup demo --output-path /tmp/semdedup-demo
    """
    with told_errors(verbose):
        if dry_run:
            click.echo(f"would write embeddings to {output_path}/embeddings and dedup them into {output_path}/results")
            return
        result = run_demo(output_path, cluster_of(flags), verbose=not quiet)
        show(result.run)
        click.echo(
            f"found {result.found:,} of {result.planted:,} planted near-duplicates; {result.wrong:,} other rows dropped"
        )
