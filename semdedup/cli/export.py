"""`semdedup export`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import Command, argument_of, given_of, output_flag, setting_flags, show, show_plan, work_flags
from semdedup.exports.options import ExportOptions
from semdedup.exports.write import describe_export
from semdedup.exports.write import export as write_export
from semdedup.settings.kinds import path


@click.command(cls=Command)
@argument_of("results", path(), "Folder that a dedup wrote, or the root of a run.", metavar="RESULT")
@output_flag("Folder to write to, which is empty or absent.", required=True)
@setting_flags(ExportOptions)
@work_flags(on_dask=False)
def export(
    results: str, output_path: str, as_json: bool, dry_run: bool, storage: dict[str, Any], verbose: bool, **flags: Any
) -> None:
    """Write what remains of a result as a data set for Hugging Face, as Parquet, or scores and ids as Lance.

    \b
    Example:
      semdedup export clips/dedup --input-embeddings-path clips/dct3d_embd_parquet --output-path kept
      semdedup export out --clips-path out --output-path kept-videos
      semdedup export clips/dedup --format lance --eps 0.4 --output-path scores
    """
    options: dict[str, Any] = {**given_of(flags), "storage_options": storage, "verbose": verbose}
    if dry_run:
        show_plan(describe_export(results, output_path, **options), as_json)
        return
    show(write_export(results, output_path, **options), as_json)
