"""`semdedup shard`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import (
    Command,
    cluster_flags,
    cluster_of,
    output_flags,
    show,
    show_plan,
    storage_flags,
    storage_of,
    told_errors,
)
from semdedup.shards.layouts import LAYOUTS
from semdedup.shards.workflow import ShardWorkflow


@click.command(cls=Command)
@click.option("--input-clip-path", required=True, help="Output of split, or a folder of MP4 files; local or s3://.")
@click.option("--output-dataset-path", required=True, help="Folder for the dataset, local or s3://.")
@click.option("--annotation-version", default="v0", show_default=True, help="Which metadata: metas/VERSION.")
@click.option("--input-semantic-dedup-path", help="Result of dedup, whose duplicates are dropped; none by default.")
@click.option(
    "--semantic-dedup-epsilon",
    type=float,
    help="Drop clips whose score is at least 1 - eps; the eps that dedup extracted by default.",
)
@click.option(
    "--layout",
    type=click.Choice(list(LAYOUTS)),
    default="flat",
    show_default=True,
    help="00000.tar, …; or the binned tree of cosmos-curate.",
)
@click.option("--samples-per-shard", type=click.IntRange(1), default=10_000, show_default=True)
@click.option("--target-tar-size-mb", type=float, default=500.0, show_default=True, help="Most MiB of a shard.")
@click.option(
    "--with-embeddings",
    is_flag=False,
    flag_value="",
    metavar="[FOLDER]",
    help="Write {key}.npy too; name the folder of embeddings where there are several.",
)
@click.option("--shuffle-seed", type=int, help="Shuffle the samples; in the order of their ids by default.")
@click.option("--overwrite", is_flag=True, help="First delete what an earlier shard wrote to the output path.")
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
        folder = flags.pop("with_embeddings")
        workflow = ShardWorkflow(
            with_embeddings=folder if folder else folder is not None,
            clear_output=flags.pop("overwrite"),
            read_kwargs=kwargs,
            write_kwargs=kwargs,
            verbose=not quiet,
            **flags,
        )
        if dry_run:
            show_plan(workflow.plan(cluster=cluster))
            return
        show(workflow.run(cluster=cluster))
