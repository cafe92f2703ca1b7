"""`semdedup explain`."""

from __future__ import annotations

from typing import Any

import click

from semdedup.cli.flags import Command, flag_of, work_flags
from semdedup.dedup.results.load import load
from semdedup.dedup.results.scores import NoSuchRowError
from semdedup.dedup.threshold.rule import EPS
from semdedup.overlaps.explain import find_shown
from semdedup.storage.location import Location


@click.command(cls=Command)
@click.argument("results")
@click.argument("row_id", metavar="ID")
@flag_of(EPS, help="Threshold; that of the results by default.")
@work_flags(on_dask=False, dry_run=False)
def explain(results: str, row_id: str, eps: float | None, storage: dict[str, Any], verbose: bool) -> None:
    """Tell why a row went, and which one stays for it, or which video shows it; or why it stays.

    \b
    Example:
      semdedup explain clips/dedup holiday-00012
    """
    shown = find_shown(Location.of(results, storage), row_id)
    if shown is not None:
        click.echo(str(shown))
    result = load(results, storage_options=storage)
    try:
        click.echo(str(result.explain(result.row_id(row_id), eps)))
    except NoSuchRowError:
        if shown is None:
            raise
