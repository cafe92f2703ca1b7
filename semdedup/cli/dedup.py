"""`semdedup dedup` and `semdedup extract`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import click

from semdedup.cli.flags import (
    EXIT_QUARANTINE,
    Command,
    ManyValues,
    cluster_flags,
    cluster_of,
    n_clusters_of,
    output_flags,
    show,
    show_plan,
    storage_flags,
    storage_of,
    told_errors,
)
from semdedup.dedup.input.files import find_files
from semdedup.dedup.names import COMMAND_LINE
from semdedup.dedup.pipeline import Pipeline
from semdedup.dedup.ranking import WHICH_TO_KEEP
from semdedup.dedup.threshold.extract import eps_to_extract, extraction_stage
from semdedup.dedup.threshold.extract import extract as write_extraction
from semdedup.dedup.threshold.recommended import chosen_eps
from semdedup.dedup.workflow import SemanticDeduplicationWorkflow
from semdedup.errors import ParameterError
from semdedup.storage.location import Location


@click.command(cls=Command)
@click.option("--input-embeddings-path", "input_path", cls=ManyValues, required=True, help="Folder, file or glob.")
@click.option("--output-path", required=True, help="Folder for results, local or s3://.")
@click.option("--cache-path", help="Folder for clusters and scores; the output path by default.")
@click.option("--n-clusters", default="auto", show_default=True, help="Number of clusters, or auto.")
@click.option("--eps-thresholds", cls=ManyValues, type=float, help="Write a summary for each of these.")
@click.option("--eps-threshold", type=float, help="One threshold, to summarise and to extract.")
@click.option("--eps-to-extract", type=float, help="Write the ids to drop for this one.")
@click.option("--which-to-keep", type=click.Choice(list(WHICH_TO_KEEP)), default="hard", show_default=True)
@click.option(
    "--sim-metric",
    type=click.Choice(["cosine", "l2"]),
    default="cosine",
    show_default=True,
    help="Distance to the centroid that ranks.",
)
@click.option("--files-per-partition", type=click.IntRange(1), help="Most files in one partition.")
@click.option("--id-field", default="id", show_default=True)
@click.option("--embedding-field", default="embedding", show_default=True)
@click.option("--embedding-dim", type=click.IntRange(1), help="Expected length; the commonest by default.")
@click.option("--metadata-fields", cls=ManyValues, help="Columns to carry along.")
@click.option("--input-filetype", type=click.Choice(["parquet", "jsonl"]), default="parquet", show_default=True)
@click.option("--random-state", type=int, default=42, show_default=True)
@click.option("--max-iter", type=click.IntRange(1), default=300, show_default=True)
@click.option("--fit-data-fraction", type=float, help="Share of the rows that the clustering is fitted on.")
@click.option("--pairwise-batch-size", type=click.IntRange(1), default=1024, show_default=True)
@click.option("--skip-bad-files", is_flag=True, help="Count and list files that cannot be read, and go on.")
@click.option("--overwrite", is_flag=True, help="First delete what semdedup wrote to the output path before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def dedup(verbose: bool, quiet: bool, dry_run: bool, **flags: Any) -> None:
    """Find near-duplicates among embeddings and write the ids to drop.

    \b
    Example:
      semdedup dedup --input-embeddings-path clips/iv2_embd_parquet --output-path clips/dedup \\
          --n-clusters 1000 --eps-thresholds 0.01 0.001 --eps-to-extract 0.01
    """
    with told_errors(verbose):
        cluster, storage = cluster_of(flags), storage_of(flags)
        thresholds, extract, why = _thresholds(flags, storage)
        if not quiet:
            click.echo(f"eps {extract:g} ({why})", err=True)
        kwargs = {"storage_options": storage}
        workflow = SemanticDeduplicationWorkflow(
            input_path=list(flags.pop("input_path")),
            n_clusters=n_clusters_of(flags.pop("n_clusters")),
            metadata_fields=flags.pop("metadata_fields"),
            clear_output=flags.pop("overwrite"),
            eps=extract,
            count_at=thresholds,
            read_kwargs=kwargs,
            write_kwargs=kwargs,
            layout=COMMAND_LINE,
            verbose=not quiet,
            **flags,
        )
        if dry_run:
            show_plan(workflow.describe())
            return
        result = workflow.run(cluster=cluster)
        show(result)
        for reason in result.skipped_files[:10]:
            click.echo(f"skipped: {reason}", err=True)
        sys.exit(EXIT_QUARANTINE if result.n_quarantined or result.skipped_files else 0)


def _thresholds(flags: dict[str, Any], storage: dict[str, Any]) -> tuple[Sequence[float], float, str]:
    """Thresholds to summarise at, the one to extract, and where it comes from."""
    several, single, extract = flags.pop("eps_thresholds"), flags.pop("eps_threshold"), flags.pop("eps_to_extract")
    if several and single is not None:
        raise ParameterError("give --eps-thresholds or --eps-threshold, not both")
    given = list(several) or ([single] if single is not None else [])
    if extract is not None:
        why = "--eps-to-extract"
    elif given:
        extract, why = given[0], "--eps-threshold" if single is not None else "the first of --eps-thresholds"
    else:
        locations = [Location.of(path, storage) for path in flags["input_path"]]
        files = find_files(locations, flags["input_filetype"])
        told = files if flags["input_filetype"] == "parquet" else []
        extract, why = chosen_eps(None, [locations[0].at(file.url) for file in told], flags["skip_bad_files"])
    return list(dict.fromkeys([*given, extract])), extract, why


@click.command(cls=Command)
@click.argument("results")
@click.option("--eps", type=float, help="Drop rows whose score is at least 1 - eps.")
@click.option("--target-fraction", type=float, help="Instead of --eps: the part of the rows that is to remain.")
@click.option("--output-path", help="Folder to write to; RESULTS/eps_{eps} by default.")
@click.option("--overwrite", is_flag=True, help="First delete what semdedup wrote to the output path before.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and write nothing.")
@cluster_flags
@storage_flags
@output_flags
def extract(
    results: str,
    eps: float | None,
    target_fraction: float | None,
    output_path: str | None,
    overwrite: bool,
    dry_run: bool,
    verbose: bool,
    quiet: bool,
    **flags: Any,
) -> None:
    """Write the ids to drop and to keep for another eps, from scores that exist; nothing is compared again.

    \b
    Example:
      semdedup extract clips/dedup --eps 0.05
      semdedup extract clips/dedup --target-fraction 0.8
    """
    with told_errors(verbose):
        cluster, storage = cluster_of(flags), storage_of(flags)
        chosen = eps_to_extract(results, eps, target_fraction, storage)
        options: dict[str, Any] = {"storage_options": storage, "clear_output": overwrite, "verbose": not quiet}
        if dry_run:
            stage = extraction_stage(results, chosen, output_path, **options)
            show_plan(Pipeline("extract").add_stage(stage).describe())
        else:
            show(write_extraction(results, chosen, output_path, cluster=cluster, **options))
