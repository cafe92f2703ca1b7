"""`semdedup split` and `semdedup embed`."""

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
    show_and_exit,
    show_plan,
    storage_flags,
    storage_of,
    told_errors,
)
from semdedup.video.options import ClipOptions, EmbedOptions, PlanOptions, VideoIOOptions
from semdedup.video.steps.embed.providers import NAMES
from semdedup.video.workflow import VideoEmbedWorkflow, VideoSplitWorkflow

EMBEDDERS = {"embedding_algorithm": "|".join(NAMES)}


@click.command(cls=Command)
@setting_flags(
    VideoIOOptions, PlanOptions, ClipOptions, EmbedOptions, required=["input_path", "output_path"], metavars=EMBEDDERS
)
@click.option("--dry-run", is_flag=True, help="Print the plan, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def split(verbose: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Cut videos into clips, and embed each clip.

    \b
    Example:
      semdedup split --video-dir videos --output-clip-path clips --fixed-stride-split-duration 10
      semdedup dedup --input-embeddings-path clips/dct3d_embd_parquet --output-path clips/dedup
    """
    with told_errors(verbose):
        _run_videos(VideoSplitWorkflow, dry_run, quiet, flags)


@click.command(cls=Command)
@setting_flags(
    VideoIOOptions,
    EmbedOptions,
    required=["input_path"],
    flags={"input_path": ["--input-clip-path"], "output_path": ["--output-path"]},
    metavars=EMBEDDERS,
)
@click.option("--dry-run", is_flag=True, help="Print the plan, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def embed(verbose: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Embed clips that exist; the name of a file without its ending is the id of the clip.

    \b
    Example:
      semdedup embed --input-clip-path clips --embedding-algorithm hf --model-dir models/siglip2
    """
    with told_errors(verbose):
        _run_videos(VideoEmbedWorkflow, dry_run, quiet, flags)


def _run_videos(
    workflow: type[VideoSplitWorkflow] | type[VideoEmbedWorkflow], dry_run: bool, quiet: bool, flags: dict[str, Any]
) -> None:
    cluster, kwargs = cluster_of(flags), {"storage_options": storage_of(flags)}
    made = workflow(**given_of(flags), read_kwargs=kwargs, write_kwargs=kwargs, verbose=not quiet)
    if dry_run:
        show_plan(made.plan(cluster=cluster))
        return
    result = made.run(cluster=cluster)
    show_and_exit(result, result.faults(), not result.quarantined)
