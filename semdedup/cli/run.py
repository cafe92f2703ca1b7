"""`semdedup run`: the whole way."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import click

from semdedup.cli.flags import (
    Command,
    file_setting,
    flag_of,
    given_of,
    setting_flags,
    show_and_exit,
    show_plan,
    work_flags,
)
from semdedup.cli.params import rivals_of
from semdedup.compute.options import ClusterOptions
from semdedup.dedup.options import CompareOptions, KMeansOptions
from semdedup.dedup.threshold.rule import REMOVAL
from semdedup.overlaps.options import OverlapsOptions
from semdedup.run_dedups import RUN_REMOVAL
from semdedup.run_options import RunOptions
from semdedup.settings import Kind, Options, Setting
from semdedup.shards.options import ShardOptions
from semdedup.video.options import EmbedOptions, PlanOptions, StepOptions, VideoIOOptions
from semdedup.workflow import WORKFLOWS, VideoDeduplicationWorkflow, names_of

FLAGS: Mapping[str, tuple[Sequence[type[Options]], Sequence[str]]] = {
    "split": (
        (PlanOptions, StepOptions, EmbedOptions, VideoIOOptions),
        (
            *("splitting_algorithm", "fixed_stride_split_duration", "clip_scores"),
            *("embedding_algorithm", "model_dir", "limit"),
        ),
    ),
    "overlaps": ((OverlapsOptions,), ("min_overlap", "mirror")),
    "dedup": ((KMeansOptions, CompareOptions), ("n_clusters", "which_to_keep", "rank_by", "exact_up_to", "removal")),
    "shard": ((ShardOptions,), ("layout", "samples_per_shard", "target_tar_size_mb", "keep_if")),
}
"""Settings of the parts that have a flag here (``removal`` has it apart). The file of --config takes all of them."""


NOT_FOR_A_RUN = frozenset(
    {
        *("input_path", "video_dir", "input_clip_path", "clips", "input_semantic_dedup_path", "input_overlaps_path"),
        *("output_path", "output_clip_path", "output_dataset_path"),
    }
)
"""Paths that a section may say for the command of its own; a run has them below its output path."""

SECTION = Kind("be a mapping of parameters", dict, metavar="MAPPING")


def part_flags(function: Callable[..., Any]) -> Callable[..., Any]:
    """The flags of the parts, and their sections in the file."""
    for part, (groups, names) in reversed(list(FLAGS.items())):
        function = setting_flags(*groups, only=names, part=part)(function)
        function = file_setting(Setting(SECTION, None, "", part), section=names_of(part))(function)
    return function


@click.command(cls=Command)
@setting_flags(RunOptions, without=["storage_options"], required=["input_path", "output_path"])
@flag_of(replace(REMOVAL, default=RUN_REMOVAL), part="dedup")
@part_flags
@work_flags()
def run(
    as_json: bool, dry_run: bool, cluster: ClusterOptions, storage: dict[str, Any], verbose: bool, **flags: Any
) -> None:
    """From videos to shards with one command. Run it again after a kill: it goes on where it stopped.

    \b
    Example:
      semdedup run --video-dir videos --output-path out --fixed-stride-split-duration 5
      semdedup run --video-dir videos --output-path out --rank-by height:desc,bitrate:desc
      semdedup run --video-dir videos --output-path out --drop-when both --mirror
      semdedup config run > run.yaml     (fill in video_dir and output_path)
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
    given = given_of({name: value for name, value in flags.items() if name not in WORKFLOWS})
    parts: dict[str, Any] = {part: _section(part, flags[part] or {}) for part in WORKFLOWS}
    for part, (_, names) in FLAGS.items():
        flagged = {name: given.pop(name) for name in names if name in given}
        beaten = {rival for name in flagged for rival in rivals_of(name)}
        parts[part] = {name: value for name, value in parts[part].items() if name not in beaten} | flagged
    workflow = VideoDeduplicationWorkflow(**given, **parts, storage_options=storage, verbose=verbose)
    if dry_run:
        show_plan(workflow.plan(cluster=cluster), as_json)
        return
    result = workflow.run(cluster=cluster)
    show_and_exit(result, result.split.faults(), result.clean, as_json)


def _section(part: str, said: Mapping[str, Any]) -> dict[str, Any]:
    """What the file says of a part, without the paths that only the command of its own takes: these are told."""
    left_out = [name for name in said if name in NOT_FOR_A_RUN]
    if left_out:
        names = ", ".join(left_out)
        click.echo(f"{part}: {names} in the file is not for a run, which has it below its output path", err=True)
    return {name: value for name, value in said.items() if name not in NOT_FOR_A_RUN and name != "verbose"}
