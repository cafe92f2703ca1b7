"""`semdedup run`: the whole way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from semdedup.cli.flags import Command, flag_of, given_of, setting_flags, show_and_exit, show_plan, work_flags
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.options import CompareOptions, KMeansOptions
from semdedup.dedup.threshold.rule import REMOVAL
from semdedup.errors import ParameterError
from semdedup.overlaps.options import OverlapsOptions
from semdedup.settings import Options
from semdedup.shards.options import ShardOptions
from semdedup.video.options import EmbedOptions, PlanOptions, VideoIOOptions
from semdedup.workflow import RUN_REMOVAL, WORKFLOWS, RunOptions, VideoDeduplicationWorkflow

FLAGS: Mapping[str, tuple[Sequence[type[Options]], Sequence[str]]] = {
    "split": (
        (PlanOptions, EmbedOptions, VideoIOOptions),
        ("splitting_algorithm", "fixed_stride_split_duration", "embedding_algorithm", "model_dir", "limit"),
    ),
    "overlaps": ((OverlapsOptions,), ("min_overlap", "mirror")),
    "dedup": ((KMeansOptions, CompareOptions), ("n_clusters", "which_to_keep", "rank_by", "exact_up_to", "removal")),
    "shard": ((ShardOptions,), ("layout", "samples_per_shard", "target_tar_size_mb")),
}
"""Settings of the parts that have a flag here (``removal`` has it apart). The file of --config takes all of them."""


def part_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """These flags."""
    for groups, names in reversed(list(FLAGS.values())):
        function = setting_flags(*groups, only=names)(function)
    return function


@click.command(cls=Command)
@setting_flags(RunOptions)
@click.option("--config", type=click.Path(exists=True, dir_okay=False), help="YAML file; flags win over it.")
@flag_of(REMOVAL, help=f"{REMOVAL.help} [default: {RUN_REMOVAL}]")
@part_flags
@work_flags()
def run(
    config: str | None, dry_run: bool, cluster: ClusterOptions, storage: dict[str, Any], verbose: bool, **flags: Any
) -> None:
    """From videos to shards with one command. Run it again after a kill: it goes on where it stopped.

    \b
    Example:
      semdedup run --video-dir videos --output-path out --fixed-stride-split-duration 5
      semdedup run --video-dir videos --output-path out --rank-by height:desc,bitrate:desc
      semdedup run --video-dir videos --output-path out --drop-when both --mirror
      semdedup run --config run.yaml

    \b
    The file, whose sections take the parameters of the Python workflows by name:
      video_dir: videos
      output_path: out
      split: {fixed_stride_split_duration: 5, generate_previews: true}
      overlaps: {min_overlap: 0.9, mirror: true}
      dedup: {which_to_keep: best, exact_up_to: 0.1}
      shard: {layout: flat, shuffle_seed: 7}
    """
    settings = _read_config(config)
    given: dict[str, Any] = {
        "input_path": settings.get("video_dir"),
        **{name: settings.get(name) for name in ("output_path", "eps", "drop_when")},
    }
    given |= given_of(flags)
    parts: dict[str, Any] = {part: dict(settings.get(part) or {}) for part in WORKFLOWS}
    for part, (_, names) in FLAGS.items():
        parts[part] |= {name: given.pop(name) for name in names if name in given}
    for name, flag in (("input_path", "--video-dir"), ("output_path", "--output-path")):
        if given[name] is None:
            key = flag[2:].replace("-", "_")
            raise ParameterError(f"{flag} is not given, nor {key} in the file of --config")
    workflow = VideoDeduplicationWorkflow(**given, **parts, storage_options=storage, verbose=verbose)
    if dry_run:
        show_plan(workflow.plan(cluster=cluster))
        return
    result = workflow.run(cluster=cluster)
    show_and_exit(result, result.split.faults(), result.clean)


def _read_config(path: str | None) -> Mapping[str, Any]:
    """The file of ``--config``: a mapping of known names; sections are mappings."""
    if path is None:
        return {}
    try:
        settings = yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ParameterError(f"--config {path} is no YAML: {' '.join(str(error).split())}") from None
    known = ["video_dir", "output_path", "eps", "drop_when", *WORKFLOWS]
    if not isinstance(settings, dict):
        raise ParameterError(f"--config {path} must hold a mapping of {', '.join(known)}")
    for name, value in settings.items():
        if name not in known:
            raise ParameterError(f"--config {path}: no such name {name!r}; there are {', '.join(known)}")
        if name in WORKFLOWS and value is not None and not isinstance(value, dict):
            raise ParameterError(f"--config {path}: {name} must be a mapping of parameters; got {value!r}")
    return settings
