"""`semdedup split` and `semdedup embed`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import Command, given_of, kwargs_of, setting_flags, show_and_exit, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.video.options import ClipOptions, DecodeOptions, EmbedOptions, PlanOptions, StepOptions, VideoIOOptions
from semdedup.video.steps.embed.providers import NAMES
from semdedup.video.workflow import VideoEmbedWorkflow, VideoSplitWorkflow

EMBEDDERS = {"embedding_algorithm": "|".join(NAMES)}


@click.command(cls=Command)
@setting_flags(
    VideoIOOptions,
    PlanOptions,
    DecodeOptions,
    ClipOptions,
    StepOptions,
    EmbedOptions,
    required=["input_path", "output_path"],
    metavars=EMBEDDERS,
)
@work_flags()
def split(**flags: Any) -> None:
    """Cut videos into clips, and embed each clip.

    \b
    Example:
      semdedup split --video-dir videos --output-clip-path clips --fixed-stride-split-duration 10
      semdedup dedup --input-embeddings-path clips/dct3d_embd_parquet --output-path clips/dedup
    """
    _run_videos(VideoSplitWorkflow, **flags)


@click.command(cls=Command)
@setting_flags(
    VideoIOOptions,
    DecodeOptions,
    StepOptions,
    EmbedOptions,
    required=["input_path"],
    flags={"input_path": ["--input-clip-path"], "output_path": ["--output-path"]},
    metavars=EMBEDDERS,
)
@work_flags()
def embed(**flags: Any) -> None:
    """Embed clips that exist. Ids are the names of the files without ending, or their paths where names are the same.

    \b
    Example:
      semdedup embed --input-clip-path clips --embedding-algorithm hf --model-dir models/siglip2
    """
    _run_videos(VideoEmbedWorkflow, **flags)


def _run_videos(
    workflow: type[VideoSplitWorkflow] | type[VideoEmbedWorkflow],
    as_json: bool,
    dry_run: bool,
    cluster: ClusterOptions,
    storage: dict[str, Any],
    verbose: bool,
    **flags: Any,
) -> None:
    given = given_of(flags)
    made = workflow(**(given | kwargs_of(given, storage)), verbose=verbose)
    if dry_run:
        show_plan(made.plan(cluster=cluster), as_json)
        return
    result = made.run(cluster=cluster)
    show_and_exit(result, result.faults(), result.clean, as_json)
