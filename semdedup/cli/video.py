"""`semdedup split`, `semdedup embed` and `semdedup caption`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from semdedup.cli.flags import Command, given_of, kwargs_of, setting_flags, show_and_exit, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.video.base import VideoWorkflow
from semdedup.video.caption import VideoCaptionWorkflow
from semdedup.video.options import (
    CaptionOptions,
    ClipOptions,
    DecodeOptions,
    EmbedOptions,
    PlanOptions,
    StepOptions,
    VideoIOOptions,
)
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
    CaptionOptions,
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


@click.command(cls=Command)
@setting_flags(
    VideoIOOptions,
    CaptionOptions,
    DecodeOptions,
    required=["input_path", "captioning_model"],
    flags={
        "input_path": ["--input-clip-path"],
        "output_path": ["--output-path"],
        "captioning_model": ["--captioning-model", "--model-dir"],
    },
)
@work_flags()
def caption(**flags: Any) -> None:
    """Caption clips that exist, window by window, by a local vision-language model of transformers.

    Captions go into metas/v0/{id}.json beside the clips, and into {name}_caption_parquet. Another model adds its own.

    \b
    Example:
      semdedup caption --input-clip-path clips --captioning-model models/Qwen2.5-VL-7B-Instruct
    """
    _run_videos(VideoCaptionWorkflow, **flags)


def _run_videos(
    workflow: Callable[..., VideoWorkflow],
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
