"""`semdedup run`: the whole way."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click
import yaml

from semdedup.cli.flags import (
    Command,
    ManyValues,
    cluster_flags,
    cluster_of,
    n_clusters_of,
    output_flags,
    show_and_exit,
    show_plan,
    storage_flags,
    storage_of,
    told_errors,
)
from semdedup.dedup.ranking import WHICH_TO_KEEP
from semdedup.errors import ParameterError
from semdedup.shards.layouts import LAYOUTS
from semdedup.video.plan import ALGORITHMS
from semdedup.video.steps.embed.providers import NAMES
from semdedup.workflow import WORKFLOWS, VideoDeduplicationWorkflow

PART_OF_FLAG = {
    "splitting_algorithm": "split",
    "fixed_stride_split_duration": "split",
    "embedding_algorithm": "split",
    "model_dir": "split",
    "limit": "split",
    "n_clusters": "dedup",
    "which_to_keep": "dedup",
    "layout": "shard",
    "samples_per_shard": "shard",
    "target_tar_size_mb": "shard",
}
"""Which part each of the flags below is a parameter of. The file of --config takes all parameters of all parts."""


@click.command(cls=Command)
@click.option("--video-dir", "--input-video-path", "input_path", cls=ManyValues, help="Folder, file, glob.")
@click.option("--output-path", help="Folder for clips, dedup, report and dataset; local or s3://.")
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="YAML file; flags win over it.")
@click.option("--eps", type=float, help="Drop clips whose score is at least 1 - eps; by the embedder by default.")
@click.option("--splitting-algorithm", type=click.Choice(ALGORITHMS), help="fixed_stride by default.")
@click.option("--fixed-stride-split-duration", type=float, help="Seconds of a clip; 10 by default.")
@click.option("--embedding-algorithm", type=click.Choice(list(NAMES)), help="dct3d by default.")
@click.option("--model-dir", help="Folder of the model; nothing is ever downloaded.")
@click.option("--limit", type=click.IntRange(0), help="Most videos that this run processes.")
@click.option("--n-clusters", help="Number of clusters; auto by default.")
@click.option("--which-to-keep", type=click.Choice(list(WHICH_TO_KEEP)), help="hard by default.")
@click.option("--layout", type=click.Choice(list(LAYOUTS)), help="Of the dataset; flat by default.")
@click.option("--samples-per-shard", type=click.IntRange(1), help="10000 by default.")
@click.option("--target-tar-size-mb", type=float, help="Most MiB of a shard; 500 by default.")
@click.option(
    "--overwrite", is_flag=True, help="Make dedup and dataset anew; clips where their own parameters changed."
)
@click.option("--dry-run", is_flag=True, help="Print the plan, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def run(
    input_path: tuple[str, ...],
    output_path: str | None,
    config: str | None,
    eps: float | None,
    overwrite: bool,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Split, dedup, report and shard with one command. Run it again after a kill: it goes on where it stopped.

    \b
    Example:
      semdedup run --video-dir videos --output-path out --fixed-stride-split-duration 5
      semdedup run --config run.yaml

    \b
    The file, whose sections take the parameters of the Python workflows by name:
      video_dir: videos
      output_path: out
      split: {fixed_stride_split_duration: 5, generate_previews: true}
      dedup: {n_clusters: 100}
      shard: {layout: flat, shuffle_seed: 7}
    """
    with told_errors(verbose):
        cluster, storage = cluster_of(flags), storage_of(flags)
        told = _read_config(config)
        parts = {part: dict(told.get(part) or {}) for part in WORKFLOWS}
        for name, part in PART_OF_FLAG.items():
            value = flags.pop(name)
            if value is not None:
                parts[part][name] = value
        clusters = parts["dedup"].get("n_clusters")
        if isinstance(clusters, str):
            parts["dedup"]["n_clusters"] = n_clusters_of(clusters)
        workflow = VideoDeduplicationWorkflow(
            _given(list(input_path) or told.get("video_dir"), "--video-dir", "video_dir"),
            _given(output_path or told.get("output_path"), "--output-path", "output_path"),
            eps=told.get("eps") if eps is None else eps,
            storage_options=storage,
            clear_output=overwrite,
            verbose=not quiet,
            **parts,
        )
        if dry_run:
            show_plan(workflow.plan(cluster=cluster))
            return
        result = workflow.run(cluster=cluster)
        show_and_exit(result, result.split.faults(), result.clean)


def _given(value: Any, flag: str, key: str) -> Any:
    if not value:
        raise ParameterError(f"{flag} is not given, nor {key} in the file of --config")
    return value


def _read_config(path: str | None) -> Mapping[str, Any]:
    """The file of ``--config``: a mapping of known names; sections are mappings."""
    if path is None:
        return {}
    try:
        told = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"--config {path} is no YAML: {' '.join(str(error).split())}") from None
    known = ["video_dir", "output_path", "eps", *WORKFLOWS]
    if not isinstance(told, dict):
        raise ParameterError(f"--config {path} must hold a mapping of {', '.join(known)}")
    for name, value in told.items():
        if name not in known:
            raise ParameterError(f"--config {path}: no such name {name!r}; there are {', '.join(known)}")
        if name in WORKFLOWS and value is not None and not isinstance(value, dict):
            raise ParameterError(f"--config {path}: {name} must be a mapping of parameters; got {value!r}")
    return told
