"""`semdedup clean`."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from semdedup.cli.flags import Command, show, work_flags
from semdedup.runs.clean import clean as clean_folder


@click.command(cls=Command)
@click.argument("output_path", metavar="OUT")
@click.option("--unfinished", is_flag=True, help="Also the scratch from which a killed run would go on.")
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON; nothing is asked.")
@work_flags(on_dask=False)
def clean(
    output_path: str, unfinished: bool, yes: bool, as_json: bool, dry_run: bool, storage: dict[str, Any], verbose: bool
) -> None:
    """Delete what dead runs have left in OUT and below: scratch, and files half written. Sizes are told first.

    Results and records stay, and so does everything where a run is at work.

    \b
    Example:
      semdedup clean out --dry-run
      semdedup clean out --yes
    """
    found = clean_folder(output_path, delete=False, storage_options=storage)
    wanted = [each for each in found.found if unfinished or not each.goes_on]
    if not as_json:
        show(found)
        if len(wanted) < len(found.found):
            click.echo("what a killed run would go on from stays; --unfinished deletes that, too", err=True)
        if wanted and not dry_run and not yes:
            yes = _is_wanted(sum(each.n_bytes for each in wanted))
    if wanted and yes and not dry_run:
        found = clean_folder(output_path, unfinished=unfinished, storage_options=storage)
        if not as_json:
            click.echo(f"deleted: {sum(each.n_bytes for each in found.deleted):,} bytes")
    if as_json:
        click.echo(json.dumps(found.to_json()))


def _is_wanted(n_bytes: int) -> bool:
    if sys.stdin.isatty():
        return click.confirm(f"Delete {n_bytes:,} bytes?")
    click.echo("nothing was deleted: give --yes", err=True)
    return False
