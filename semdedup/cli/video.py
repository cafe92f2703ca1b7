"""`semdedup split` and `semdedup embed`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from semdedup.cli.flags import (
    Command,
    ManyValues,
    cluster_flags,
    cluster_of,
    output_flags,
    show_and_exit,
    show_plan,
    storage_flags,
    storage_of,
    told_errors,
)
from semdedup.video.clip_ids import SCHEMES
from semdedup.video.encode import CHOICES
from semdedup.video.plan import ALGORITHMS, CUTS
from semdedup.video.probe import Limits
from semdedup.video.steps.embed.providers import NAMES
from semdedup.video.workflow import VideoEmbedWorkflow, VideoSplitWorkflow


def embedding_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags of every command that embeds clips."""
    flags = [
        click.option("--embedding-algorithm", type=click.Choice(list(NAMES)), default="dct3d", show_default=True),
        click.option("--model-dir", help="Folder of the model; nothing is ever downloaded."),
        click.option("--trust-remote-code", is_flag=True, help="Run Python code that comes with the model."),
        click.option("--embedding-batch-size", type=click.IntRange(1), help="Clips that a model embeds at a time."),
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def limit_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """Flags on what one video may cost."""
    usual = Limits()
    told = {
        "timeout_s": ("--video-timeout", click.FLOAT, "Seconds without progress after which a video is given up."),
        "max_pixels": ("--max-pixels", click.IntRange(1), "Most pixels of a frame."),
        "max_frames": ("--max-frames", click.IntRange(1), "Most frames of a video."),
    }
    flags = [
        click.option(flag, name, type=kind, default=getattr(usual, name), show_default=True, help=text)
        for name, (flag, kind, text) in told.items()
    ]
    for flag in reversed(flags):
        function = flag(function)
    return function


def _limits(flags: dict[str, Any]) -> Limits:
    return Limits(**{name: flags.pop(name) for name in ("max_pixels", "max_frames", "timeout_s")})


@click.command(cls=Command)
@click.option(
    "--video-dir", "--input-video-path", "input_path", cls=ManyValues, required=True, help="Folder, file, glob."
)
@click.option("--output-clip-path", "--output-path", "output_path", required=True, help="Folder, local or s3://.")
@click.option("--splitting-algorithm", type=click.Choice(ALGORITHMS), default="fixed_stride", show_default=True)
@click.option("--fixed-stride-split-duration", type=float, default=10.0, show_default=True, help="Seconds of a clip.")
@click.option(
    "--fixed-stride-stride-s", type=float, help="Seconds from one start to the next; the duration by default."
)
@click.option("--fixed-stride-min-clip-length-s", type=float, default=2.0, show_default=True)
@click.option("--scene-min-length-s", type=float, default=2.0, show_default=True)
@click.option("--scene-max-length-s", type=float, default=60.0, show_default=True)
@click.option(
    "--cut",
    type=click.Choice(CUTS),
    default="reencode",
    show_default=True,
    help="Exact to the frame, or without loss at key frames.",
)
@click.option("--transcode-encoder", type=click.Choice(CHOICES), default="auto", show_default=True)
@click.option(
    "--clip-id-scheme",
    type=click.Choice(SCHEMES),
    default="semdedup",
    show_default=True,
    help="Ids as the peers make them, or ones that stay when the folder moves.",
)
@click.option("--no-upload-clips", "upload_clips", flag_value=False, default=True, help="Write no MP4 files.")
@click.option("--no-generate-embeddings", "generate_embeddings", flag_value=False, default=True, help="Embed nothing.")
@click.option("--generate-previews", is_flag=True, help="Write an animated WebP for each clip.")
@click.option("--limit", type=click.IntRange(0), default=0, help="Most videos that this run processes.")
@click.option("--limit-clips", type=click.IntRange(0), default=0, help="Most clips of each video.")
@click.option("--overwrite", is_flag=True, help="First delete what an earlier split wrote to the output path.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and write nothing.")
@embedding_flags
@limit_flags
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
@click.option("--input-clip-path", "input_path", cls=ManyValues, required=True, help="Output of split, or a folder.")
@click.option("--output-path", help="Folder for the embeddings; beside the clips by default.")
@click.option("--limit", type=click.IntRange(0), default=0, help="Most clips that this run embeds.")
@click.option("--overwrite", is_flag=True, help="First delete what an earlier run of this wrote to the output path.")
@click.option("--dry-run", is_flag=True, help="Print the plan, and write nothing.")
@embedding_flags
@limit_flags
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
    made = workflow(
        input_path=list(flags.pop("input_path")),
        clear_output=flags.pop("overwrite"),
        limits=_limits(flags),
        read_kwargs=kwargs,
        write_kwargs=kwargs,
        verbose=not quiet,
        **flags,
    )
    if dry_run:
        show_plan(made.plan(cluster=cluster))
        return
    result = made.run(cluster=cluster)
    show_and_exit(result, result.faults(), not result.quarantined)
