"""`semdedup shard`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import (
    Command,
    cluster_flags,
    cluster_of,
    given_of,
    output_flags,
    setting_flags,
    show,
    show_plan,
    storage_flags,
    storage_of,
    told_errors,
)
from semdedup.shards.options import ShardIOOptions, ShardOptions
from semdedup.shards.workflow import ShardWorkflow


@click.command(cls=Command)
@setting_flags(ShardIOOptions, ShardOptions, required=["input_clip_path", "output_dataset_path"])
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def shard(verbose: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Write the clips that remain as WebDataset shards, with their metadata.

    \b
    Example:
      semdedup shard --input-clip-path clips --output-dataset-path dataset \\
          --input-semantic-dedup-path clips/dedup --semantic-dedup-epsilon 0.01
    """
    with told_errors(verbose):
        cluster, kwargs = cluster_of(flags), {"storage_options": storage_of(flags)}
        workflow = ShardWorkflow(**given_of(flags), read_kwargs=kwargs, write_kwargs=kwargs, verbose=not quiet)
        if dry_run:
            show_plan(workflow.plan(cluster=cluster))
            return
        show(workflow.run(cluster=cluster))
