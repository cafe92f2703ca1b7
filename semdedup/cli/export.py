"""`semdedup export`."""

from __future__ import annotations

import json
from typing import Any

import click

from semdedup.cli.flags import Command, given_of, setting_flags, show, show_plan, work_flags
from semdedup.exports.options import ExportOptions
from semdedup.exports.write import describe_export
from semdedup.exports.write import export as write_export


@click.command(cls=Command)
@click.argument("results")
@click.option("--output-path", required=True, help="Folder to write to, which is empty or absent.")
@setting_flags(ExportOptions)
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON.")
@work_flags(on_dask=False)
def export(
    results: str, output_path: str, as_json: bool, dry_run: bool, storage: dict[str, Any], verbose: bool, **flags: Any
) -> None:
    """Write what remains of a result as a data set for Hugging Face, as Parquet, or scores and ids as Lance.

    \b
    Example:
      semdedup export clips/dedup --input-embeddings-path clips/iv2_embd_parquet --output-path kept
      semdedup export out --clips-path out --output-path videos
      semdedup export clips/dedup --format lance --eps 0.05 --output-path scores
    """
    options: dict[str, Any] = {**given_of(flags), "storage_options": storage, "verbose": verbose}
    if dry_run:
        show_plan(describe_export(results, output_path, **options))
        return
    found = write_export(results, output_path, **options)
    if as_json:
        by = {"format": found.format, "path": found.path, "eps": found.eps, "removal": found.removal}
        click.echo(json.dumps({**by, **found.counts}))
    else:
        show(found)
