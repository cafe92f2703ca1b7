"""`semdedup shard`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import Command, given_of, setting_flags, show, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.shards.options import DropOptions, ShardIOOptions, ShardOptions
from semdedup.shards.workflow import ShardWorkflow


@click.command(cls=Command)
@setting_flags(ShardIOOptions, DropOptions, ShardOptions, required=["input_clip_path", "output_dataset_path"])
@work_flags()
def shard(dry_run: bool, cluster: ClusterOptions, storage: dict[str, Any], verbose: bool, **flags: Any) -> None:
    """Write the clips that remain as WebDataset shards, with their metadata.

    Given the root of a `semdedup run` it takes the clips, dedups and overlaps there.

    \b
    Example:
      semdedup shard --input-clip-path clips --output-dataset-path dataset \\
          --input-semantic-dedup-path clips/dedup --semantic-dedup-epsilon 0.01
    """
    kwargs = {"storage_options": storage}
    workflow = ShardWorkflow(**given_of(flags), read_kwargs=kwargs, write_kwargs=kwargs, verbose=verbose)
    if dry_run:
        show_plan(workflow.plan(cluster=cluster))
        return
    show(workflow.run(cluster=cluster))
